/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading: all that is not known yet up to the next piece that is, in one go; an answer holds 256 pieces.
 *
 * Storing: of blocks that are this file's alone, 2 MiB around. What is shared has to be copied, 64 KiB at first; holes are filled exactly as they are
 * written, since everybody sees the space that they take. Both grow while one goes on where the last one ended.
 *
 * Whatever is known of a range is let go of before it is asked for: when the answer comes the daemon believes that nothing else is in use there.
 */
#include "client/map.h"

#include <errno.h>
#include <fcntl.h>

#include "client/prefault.h"
#include "client/section.h"
#include "client/session.h"

#define BLOCK 4096u
#define READ_BACK (64u << 10)
#define SHARED_FIRST (64u << 10)
#define STORE_MAX (2u << 20)
#define FILE_END ((uint64_t)INT64_MAX & ~(uint64_t)(BLOCK - 1))

struct wish {
	uint64_t lo, hi;
	bool store;
	bool drop; /* something is known of it */
	bool whole;
};

static struct wish wish_to_read(const struct view *v, uint64_t off)
{
	const struct umbra_piece *before = pieces_before(v->pieces, off + 1),
				 *next = pieces_next(v->pieces, off + 1);
	struct wish w = { .lo = u64_align_down(off, READ_BACK), .hi = next ? next->file_off : FILE_END };

	if (before && off < before->file_off + before->len) {
		/* Only the size is to be asked for. */
		w.lo = u64_align_down(off, BLOCK);
		w.hi = w.lo + BLOCK;
		w.drop = true;
	} else if (before) {
		w.lo = u64_max(w.lo, before->file_off + before->len);
	}
	return w;
}

static struct wish wish_to_store(struct holding *h, const struct umbra_piece *p, uint64_t off, uint64_t len)
{
	uint64_t piece_end = p->file_off + p->len, first;
	struct wish w = { .store = true, .drop = true };

	if (!(p->flags & (UMBRA_PIECE_HOLE | UMBRA_PIECE_SHARED))) {
		w.lo = u64_max(u64_align_down(off, STORE_MAX), p->file_off);
		w.hi = u64_min(u64_align_down(off, STORE_MAX) + STORE_MAX, piece_end);
		return w;
	}
	w.lo = u64_align_down(off, p->flags & UMBRA_PIECE_HOLE ? BLOCK : SHARED_FIRST);
	w.lo = u64_max(w.lo, p->file_off);
	first = u64_min(u64_align_up(off + len, BLOCK) - w.lo, STORE_MAX);
	if (!(p->flags & UMBRA_PIECE_HOLE))
		first = u64_max(first, SHARED_FIRST);
	if (w.lo == h->grown_end)
		first = u64_max(first, u64_min(2 * h->grown_bytes, STORE_MAX));
	w.hi = u64_min(w.lo + first, piece_end);
	h->grown_end = w.hi;
	h->grown_bytes = first;
	return w;
}

static bool is_shared(const struct umbra_piece *p)
{
	return (p->flags & (UMBRA_PIECE_SHARED | UMBRA_PIECE_HOLE | UMBRA_PIECE_LOST)) == UMBRA_PIECE_SHARED;
}

/* The aligned range around off, as far as it is shared without a gap; p is there. */
static struct wish wish_to_copy(const struct view *v, const struct umbra_piece *p, uint64_t off,
				uint64_t around)
{
	uint64_t lo = u64_align_down(off, around), hi = lo + around;
	struct wish w = { .lo = p->file_off, .hi = p->file_off + p->len, .store = true, .drop = true };
	const struct umbra_piece *next;

	while (w.lo > lo && (next = pieces_before(v->pieces, w.lo)) && is_shared(next) &&
	       next->file_off + next->len == w.lo)
		w.lo = next->file_off;
	while (w.hi < hi && (next = pieces_find(v->pieces, w.hi)) && is_shared(next))
		w.hi = next->file_off + next->len;
	w.lo = u64_max(w.lo, lo);
	w.hi = u64_min(w.hi, hi);
	return w;
}

/*
 * Whoever may only write may not ask what there is. What is not known is taken for a hole then. The range may be known in part, but not at off.
 */
static struct wish wish_blindly(struct holding *h, const struct view *v, uint64_t off, uint64_t len)
{
	const struct umbra_piece *before = pieces_before(v->pieces, off + 1),
				 *next = pieces_next(v->pieces, off + 1);
	struct umbra_piece gap = { .file_off = before ? before->file_off + before->len : 0,
				   .flags = UMBRA_PIECE_HOLE };
	struct wish w;

	if (before && off < before->file_off + before->len)
		gap.file_off = before->file_off;
	gap.len = (next ? next->file_off : FILE_END) - gap.file_off;
	w = wish_to_store(h, &gap, off, len);
	return w;
}

/* Under client_lock. -EALREADY: there is nothing to ask for (any more); other errors: the kernel. */
static int wish_make(const struct umbra_file *f, uint64_t off, uint64_t len, bool store, uint64_t around,
		     struct wish *w)
{
	struct holding *h = f->holding;
	const struct view *v = atomic_load_explicit(&h->view, memory_order_relaxed);
	const struct umbra_piece *p;

	if (!v)
		return -ENOTCONN;
	p = pieces_find(v->pieces, off);
	if (off >= v->size_bytes || !p) {
		if (off >= v->size_bytes && !v->size_open)
			return -EALREADY;
		if (store && !v->store)
			return -EACCES;
		*w = f->can_read ? wish_to_read(v, off) : wish_blindly(h, v, off, len);
		return 0;
	}
	if (!store || (p->flags & UMBRA_PIECE_WRITE))
		return -EALREADY;
	if (!v->store || (p->flags & UMBRA_PIECE_LOST))
		return -EACCES;
	*w = around ? wish_to_copy(v, p, off, around) : wish_to_store(h, p, off, len);
	return 0;
}

static bool too_early(const struct holding *h, bool store)
{
	int64_t retry_ns = atomic_load_explicit(&h->retry_ns[store], memory_order_relaxed);

	return retry_ns && client_now_ns() < retry_ns;
}

/* What the message says has been dropped is out of use before it is sent. */
static void quiet(struct view *old)
{
	if (old)
		section_wait();
	views_retire(old);
}

static int ask(struct holding *h, const struct wish *w, struct session *s)
{
	struct umbra_msg_map map = {
		.msg = { .size = sizeof(map), .type = UMBRA_MSG_MAP },
		.handle = h->handle,
		.flags = (w->store ? UMBRA_MAP_WRITE : 0) | (w->drop ? UMBRA_MAP_RELEASE : 0) |
			 (w->whole ? UMBRA_MAP_WHOLE : 0),
		.off = w->lo,
		.len = w->hi - w->lo,
	};
	struct request r = { .holding = h, .lo = w->lo, .hi = w->hi, .meanwhile = prefault_run };
	int rc = session_ask(s, &map.msg, UMBRA_MSG_PIECES, &r);

	quiet(r.old);
	atomic_fetch_add(&client_maps, 1);
	return rc;
}

int map_ask(struct umbra_file *f, uint64_t off, uint64_t len, bool store)
{
	uint64_t lo, hi;

	return map_ask_range(f, off, len, store, &lo, &hi);
}

static int ask_range(struct umbra_file *f, uint64_t off, uint64_t len, bool store, uint64_t around,
		     uint64_t *lo, uint64_t *hi)
{
	struct holding *h = f->holding;
	struct view *old = NULL;
	struct session *s = NULL;
	struct wish w = { 0 };
	int rc;

	if (too_early(h, store))
		return -EAGAIN;
	holding_begin(h);
	rc = file_ready(f, false);
	if (rc)
		goto out;
	pthread_mutex_lock(&client_lock);
	rc = wish_make(f, off, len, store, around, &w);
	if (rc == 0) {
		if (w.drop)
			holding_drop(h, w.lo, w.hi, &old);
		s = h->session;
		session_get_locked(s);
	}
	pthread_mutex_unlock(&client_lock);
	if (rc == 0) {
		quiet(old);
		rc = ask(h, &w, s);
		session_put(s);
		*lo = w.lo;
		*hi = w.hi;
		if (rc == -EBUSY)
			atomic_store(&h->refused, true);
		/* Who asks for this alone has something smaller to ask for. */
		if (rc && rc != -ENOTCONN && !(around && rc == -ENOSPC))
			atomic_store_explicit(&h->retry_ns[store], client_now_ns() + SESSION_RETRY_NS,
					      memory_order_relaxed);
	} else if (rc == -EALREADY) {
		rc = 0;
	}
out:
	holding_end(h);
	return rc;
}

int map_ask_range(struct umbra_file *f, uint64_t off, uint64_t len, bool store, uint64_t *lo, uint64_t *hi)
{
	return ask_range(f, off, len, store, 0, lo, hi);
}

int map_ask_shared(struct umbra_file *f, uint64_t off, uint64_t around, uint64_t *lo, uint64_t *hi)
{
	return ask_range(f, off, 1, true, around, lo, hi);
}

int map_ask_whole(struct umbra_file *f, uint64_t off, bool store)
{
	struct wish w = {
		.lo = u64_align_down(off, UMBRA_WHOLE_BYTES), .store = store, .drop = true, .whole = true
	};
	struct holding *h = f->holding;
	struct view *old = NULL;
	struct session *s = NULL;
	int rc;

	w.hi = w.lo + UMBRA_WHOLE_BYTES;
	holding_begin(h);
	rc = file_ready(f, false);
	if (rc == 0) {
		pthread_mutex_lock(&client_lock);
		if (!atomic_load_explicit(&h->view, memory_order_relaxed)) {
			rc = -ENOTCONN;
		} else {
			holding_drop(h, w.lo, w.hi, &old);
			s = h->session;
			session_get_locked(s);
		}
		pthread_mutex_unlock(&client_lock);
	}
	if (rc == 0) {
		quiet(old);
		rc = ask(h, &w, s);
		session_put(s);
	}
	holding_end(h);
	return rc;
}

int map_bad(struct umbra_file *f, uint64_t off)
{
	struct umbra_msg_bad bad = { .msg = { .size = sizeof(bad), .type = UMBRA_MSG_BAD },
				     .off = u64_align_down(off, BLOCK) };
	struct request r = { 0 };
	struct holding *h = f->holding;
	struct view *old = NULL;
	struct session *s;
	int rc;

	holding_begin(h);
	pthread_mutex_lock(&client_lock);
	s = h->session;
	bad.handle = h->handle;
	if (s)
		session_get_locked(s);
	pthread_mutex_unlock(&client_lock);
	if (!s) {
		rc = -ENOTCONN;
		goto out;
	}
	rc = session_ask(s, &bad.msg, UMBRA_MSG_LOST, &r);
	session_put(s);
	if (rc == 0 && r.lost_lines)
		rc = -EIO;
	/* It may be somewhere else now. */
	pthread_mutex_lock(&client_lock);
	holding_drop(h, bad.off, bad.off + BLOCK, &old);
	pthread_mutex_unlock(&client_lock);
	quiet(old);
out:
	holding_end(h);
	return rc;
}

void map_lost_again(struct umbra_file *f, uint64_t off, uint64_t len)
{
	struct holding *h = f->holding;
	struct view *old = NULL;
	uint64_t end = off + len;

	holding_begin(h);
	pthread_mutex_lock(&client_lock);
	for (off = u64_align_down(off, BLOCK); off < end; off += BLOCK) {
		const struct view *v = atomic_load_explicit(&h->view, memory_order_relaxed);
		const struct umbra_piece *p = v ? pieces_find(v->pieces, off) : NULL;

		if (p && (p->flags & UMBRA_PIECE_LOST))
			holding_drop(h, off, off + BLOCK, &old);
	}
	pthread_mutex_unlock(&client_lock);
	quiet(old);
	holding_end(h);
}
