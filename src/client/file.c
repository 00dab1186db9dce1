/* SPDX-License-Identifier: BSD-3-Clause */
/* Files: attached and detached, and how what is known of them changes. */
#include "client/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "client/calls.h"
#include "client/guard.h"
#include "client/home.h"
#include "client/mapping.h"
#include "client/memory.h"
#include "client/reopen.h"
#include "client/section.h"
#include "client/session.h"
#include "util/sabotage.h"

#define exported __attribute__((visibility("default")))

struct holding *client_holdings;

int fd_about(int fd, struct stat *st)
{
	struct statx about;

	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE | STATX_INO, &about))
		return -1;
	*st = (struct stat){ .st_dev = makedev(about.stx_dev_major, about.stx_dev_minor),
			     .st_ino = about.stx_ino,
			     .st_mode = about.stx_mode };
	return 0;
}

int fd_size(int fd, uint64_t *size_bytes)
{
	struct statx about;

	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_SIZE, &about))
		return -1;
	*size_bytes = about.stx_size;
	return 0;
}

/* ---- views ---- */

void views_retire(struct view *old)
{
	while (old) {
		struct view *next = old->next;

		if (old->end == VIEW_RETIRES_PIECES)
			pieces_retire(old->pieces);
		else if (old->end == VIEW_FREES_PIECES)
			pieces_free(old->pieces);
		memory_put(old);
		old = next;
	}
}

static struct view *view_of(struct holding *h)
{
	return atomic_load_explicit(&h->view, memory_order_relaxed);
}

static void view_replace(struct holding *h, struct view *new, struct view **old)
{
	struct view *before = view_of(h);

	atomic_store_explicit(&h->view, new, memory_order_release);
	if (!before)
		return;
	before->end = !new                          ? VIEW_FREES_PIECES :
		      new->pieces != before->pieces ? VIEW_RETIRES_PIECES :
						      VIEW_KEEPS_PIECES;
	before->next = *old;
	*old = before;
}

void holding_void(struct holding *h, struct view **old)
{
	/* In this order: in a child there are no slots. */
	view_replace(h, NULL, old);
	mappings_void(h, 0, UINT64_MAX);
	h->session = NULL;
	for (struct umbra_file *f = h->files; f; f = f->next)
		atomic_store_explicit(&f->attached, false, memory_order_relaxed);
}

static struct view *view_make(const struct view *like)
{
	struct view *v = memory_get(sizeof(*v));

	if (v)
		*v = *like;
	return v;
}

static void view_slot(struct view *v, const struct holding *h)
{
	bool has_slot = h->slot != UMBRA_SLOT_NONE;

	v->store = has_slot && (h->session->rights & UMBRA_DIRECT_WRITE);
	v->slot = has_slot ? &h->session->slots[h->slot] : NULL;
}

/* In its new session: what it was stored in the one before. */
static void stores_tell(struct holding *h, struct umbra_slot *slot)
{
	if (h->untold)
		atomic_store_explicit((_Atomic __u64 *)&slot->stored, 1, memory_order_release);
	h->untold = false;
	for (struct mapping *m = h->mappings; m; m = m->next)
		mapping_stored_note(m);
}

void holding_stored(struct holding *h)
{
	const struct view *v = view_of(h);

	h->untold = true;
	if (v && v->slot)
		stores_tell(h, v->slot);
}

/* Nothing is known yet. No memory: there is no view, file_ready() tries again. */
static void view_begin(struct holding *h, uint64_t size_bytes, bool size_open)
{
	struct view first = { .base = h->session->base,
			      .read_base = h->session->read_base,
			      .size_bytes = size_bytes,
			      .size_open = size_open };

	view_slot(&first, h);
	atomic_store_explicit(&h->view, view_make(&first), memory_order_release);
	if (first.slot)
		stores_tell(h, first.slot);
}

/* One that is attached to write gives the holding its slot. */
static void view_again(struct holding *h, struct view **old)
{
	struct view *new = view_make(view_of(h));

	if (new)
		view_slot(new, h);
	if (new &&new->slot)
		stores_tell(h, new->slot);
	if (!new)
		mappings_void(h, 0, UINT64_MAX);
	view_replace(h, new, old);
}

int file_attached(struct umbra_file *f, struct session *s, const struct umbra_msg_attached *answer,
		  struct view **old)
{
	struct holding *h = f->holding;

	/* A descriptor that has been closed and opened again behind our back. */
	if (answer->ino != h->ino || (h->home && answer->generation != h->generation))
		return -ESTALE;
	if (h->session && (h->session != s || h->handle != answer->handle))
		return -EPROTO;
	if (!h->session) {
		h->session = s;
		if (h->away_ns)
			h->back_ns = client_now_ns();
		h->away_ns = 0;
		h->home = s->home;
		h->generation = answer->generation;
		h->handle = answer->handle;
		h->slot = answer->slot;
		h->grown_end = h->grown_bytes = 0;
		view_begin(h, answer->size_bytes, false);
	} else if (h->slot != answer->slot) {
		h->slot = answer->slot;
		if (view_of(h))
			view_again(h, old);
	}
	atomic_store_explicit(&f->attached, true, memory_order_relaxed);
	return 0;
}

/* In order, without gaps, in the range and in the device. */
static bool pieces_are_sound(const struct holding *h, uint64_t lo, uint64_t hi,
			     const struct umbra_msg_pieces *answer)
{
	uint64_t at = lo;

	for (unsigned i = 0; i < answer->count; i++) {
		const struct umbra_piece *p = &answer->pieces[i];

		if (p->file_off != at || p->len == 0 || p->len > hi - at || p->len % 4096)
			return false;
		if (!(p->flags & UMBRA_PIECE_HOLE) &&
		    (p->dev_off > h->session->device_bytes || p->len > h->session->device_bytes - p->dev_off))
			return false;
		at += p->len;
	}
	return true;
}

int holding_pieces(struct holding *h, uint64_t lo, uint64_t hi, const struct umbra_msg_pieces *answer,
		   struct view **old)
{
	struct view *before = view_of(h), *new;
	int rc;

	if (!h->session || !pieces_are_sound(h, lo, hi, answer))
		return -EPROTO;
	if (!before)
		return -ENOMEM;
	new = view_make(before);
	if (!new)
		return -ENOMEM;
	new->size_bytes = answer->size_bytes;
	new->size_open = false;
	rc = pieces_put(before->pieces, lo, hi, answer->pieces, answer->count, &new->pieces);
	if (rc)
		memory_put(new);
	else
		view_replace(h, new, old);
	return rc;
}

/* What the range becomes, and the size; without memory all of the view goes. */
static void let_go(struct holding *h, uint64_t lo, uint64_t hi, uint32_t weaker, uint64_t size_bytes,
		   struct view **old)
{
	struct view *before = view_of(h), *new = view_make(before);
	int rc = -ENOMEM;

	if (new) {
		new->size_open = before->size_open || size_bytes < before->size_bytes;
		new->size_bytes = size_bytes;
		rc = weaker ? pieces_weaken(before->pieces, lo, hi, weaker, &new->pieces) :
			      pieces_put(before->pieces, lo, hi, NULL, 0, &new->pieces);
	}
	if (rc) {
		memory_put(new);
		new = NULL;
		lo = 0;
		hi = UINT64_MAX;
	}
	mappings_void(h, lo, hi);
	view_replace(h, new, old);
}

void holding_drop(struct holding *h, uint64_t lo, uint64_t hi, struct view **old)
{
	struct view *before = view_of(h);

	if (before)
		let_go(h, lo, hi, 0, before->size_bytes, old);
}

void holding_revoke(struct holding *h, uint64_t lo, uint64_t hi, bool write_only, struct view **old)
{
	struct view *before = view_of(h);
	uint64_t size;

	if (!before)
		return;
	size = before->size_bytes;
	if (write_only) {
		if (!sabotage_point("revoke-write"))
			let_go(h, lo, hi, UMBRA_PIECE_WRITE, size, old);
		return;
	}
	/* What is taken away up to the end may be cut off. */
	let_go(h, lo, hi, 0, hi >= size ? u64_min(lo, size) : size, old);
}

void holding_size_open(struct holding *h)
{
	struct view *before, *old = NULL, *new;

	pthread_mutex_lock(&client_lock);
	before = view_of(h);
	new = before && !before->size_open ? view_make(before) : NULL;
	if (new) {
		new->size_open = true;
		view_replace(h, new, &old);
	}
	pthread_mutex_unlock(&client_lock);
	if (old)
		section_wait();
	views_retire(old);
}

/* ---- attaching ---- */

void holding_begin(struct holding *h)
{
	pthread_mutex_lock(&client_lock);
	while (h->busy)
		pthread_cond_wait(&client_changed, &client_lock);
	h->busy = true;
	pthread_mutex_unlock(&client_lock);
}

void holding_end(struct holding *h)
{
	pthread_mutex_lock(&client_lock);
	h->busy = false;
	pthread_cond_broadcast(&client_changed);
	pthread_mutex_unlock(&client_lock);
}

/* There is a view. If it is attached, but there was no memory for that, it begins again. */
static bool view_is_there(struct umbra_file *f)
{
	struct holding *h = f->holding;
	bool done;

	pthread_mutex_lock(&client_lock);
	if (h->session && !view_of(h))
		view_begin(h, 0, true);
	done = view_of(h) && f->attached;
	pthread_mutex_unlock(&client_lock);
	return done;
}

static int file_attach(struct umbra_file *f, struct session *s)
{
	struct umbra_msg_attach attach = { .msg = { .size = sizeof(attach), .type = UMBRA_MSG_ATTACH } };
	struct request r = { .file = f };
	struct stat st = { 0 };
	int rc;

	if (f->attached)
		return 0;
	if (!f->closed && fd_about(file_fd(f), &st))
		return -errno;
	if (f->closed || st.st_dev != f->holding->dev || st.st_ino != f->holding->ino)
		return -ESTALE;
	/* From the token on the daemon counts on it. */
	if (f->can_write && client_calls.fd_bypass)
		client_calls.fd_bypass(file_fd(f));
	if (ioctl(file_fd(f), f->can_read ? UMBRA_IOC_TOKEN : UMBRA_IOC_MAP_TOKEN, &attach.token))
		return -errno;
	rc = session_ask(s, &attach.msg, UMBRA_MSG_ATTACHED, &r);
	if (r.old)
		section_wait();
	views_retire(r.old);
	return rc;
}

int file_ready(struct umbra_file *f, bool wait)
{
	struct holding *h = f->holding;
	struct session *s;
	bool left;
	int rc;

	if (view_is_there(f))
		return 0;
	pthread_mutex_lock(&client_lock);
	left = h->by_kernel;
	pthread_mutex_unlock(&client_lock);
	if (left)
		return -EOPNOTSUPP;
	if (!wait && client_now_ns() < atomic_load_explicit(&h->retry_ns[0], memory_order_relaxed))
		return -EAGAIN;
	rc = session_get(file_fd(f), wait, &s);
	if (mount_is_gone(rc)) {
		rc = file_reopen(f);
		if (rc == 0)
			rc = session_get(file_fd(f), wait, &s);
	}
	if (rc == 0) {
		rc = file_attach(f, s);
		for (struct umbra_file *other = h->files; rc == 0 && other; other = other->next)
			if (file_attach(other, s) == -ESTALE && file_reopen(other) == 0)
				(void)!file_attach(other, s);
		session_put(s);
	}
	if (rc)
		atomic_store_explicit(&h->retry_ns[0], client_now_ns() + SESSION_RETRY_NS,
				      memory_order_relaxed);
	return rc;
}

/* Under client_lock. NULL: no memory. */
static struct holding *holding_new(dev_t dev, ino_t ino)
{
	struct holding *h = memory_get_clear(sizeof(*h));

	if (!h)
		return NULL;
	h->dev = dev;
	h->ino = ino;
	h->next = client_holdings;
	h->prev = &client_holdings;
	if (h->next)
		h->next->prev = &h->next;
	client_holdings = h;
	return h;
}

/* A file of the same number on another mount, whose daemon has ended: known there, and not looked at yet. Under client_lock. */
static struct holding *holding_elsewhere(dev_t dev, ino_t ino, const struct holding *seen)
{
	struct holding *h = seen ? seen->next : client_holdings;

	while (h && (h->ino != ino || h->dev == dev || !h->home || !h->files))
		h = h->next;
	return h;
}

/*
 * 1: fd, on a later mount, is of the file of h, which has a user: the daemon would take the two for one. Its old session has ended by then, or does so just now. 0: it is
 * not; -errno: it cannot be told now.
 */
static int holding_moves(struct holding *h, int fd, dev_t dev)
{
	int old_fd = -1, rc;

	pthread_mutex_lock(&client_lock);
	if (h->files && !h->files->closed)
		old_fd = file_fd(h->files);
	pthread_mutex_unlock(&client_lock);
	rc = file_is_same(h->home, h->ino, h->generation, fd);
	if (rc <= 0 || (old_fd >= 0 && !fd_is_dead(old_fd)))
		return rc < 0 ? rc : 0;
	holding_begin(h);
	pthread_mutex_lock(&client_lock);
	while (h->session && h->dev != dev)
		pthread_cond_wait(&client_changed, &client_lock);
	h->dev = dev;
	pthread_mutex_unlock(&client_lock);
	holding_end(h);
	return 1;
}

static void holding_put(struct holding *h);

/* Found or made, with one more user. */
static int holding_get(int fd, dev_t dev, ino_t ino, struct holding **out)
{
	struct holding *h, *seen = NULL, *other;
	int rc;

	for (;;) {
		pthread_mutex_lock(&client_lock);
		for (h = client_holdings; h && (h->dev != dev || h->ino != ino); h = h->next)
			;
		other = h ? NULL : holding_elsewhere(dev, ino, seen);
		if (!h && !other)
			h = holding_new(dev, ino);
		if (h || other)
			(h ? h : other)->users++;
		pthread_mutex_unlock(&client_lock);
		if (seen)
			holding_put(seen);
		rc = other ? holding_moves(other, fd, dev) : 1;
		if (rc > 0) {
			*out = other ? other : h;
			return *out ? 0 : -ENOMEM;
		}
		if (rc < 0) {
			holding_put(other);
			return rc;
		}
		seen = other;
	}
}

static void holding_put(struct holding *h)
{
	bool last;

	pthread_mutex_lock(&client_lock);
	last = --h->users == 0;
	if (last) {
		*h->prev = h->next;
		if (h->next)
			h->next->prev = h->prev;
	}
	pthread_mutex_unlock(&client_lock);
	if (last)
		memory_put(h);
}

exported int umbra_attach(int fd, struct umbra_file **file)
{
	int flags = fcntl(fd, F_GETFL), rc;
	struct umbra_file *f;
	struct stat st;

	if (flags < 0 || (flags & O_PATH) || fd_about(fd, &st))
		return -EBADF;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	f = memory_get_clear(sizeof(*f));
	rc = f ? holding_get(fd, st.st_dev, st.st_ino, &f->holding) : -ENOMEM;
	if (rc) {
		memory_put(f);
		return rc == -ENOMEM ? rc : -EOPNOTSUPP;
	}
	f->fd = fd;
	f->own_fd = -1;
	f->can_read = (flags & O_ACCMODE) != O_WRONLY;
	f->can_write = (flags & O_ACCMODE) != O_RDONLY;
	f->appends = flags & O_APPEND;
	holding_begin(f->holding);
	pthread_mutex_lock(&client_lock);
	f->next = f->holding->files;
	f->holding->files = f;
	pthread_mutex_unlock(&client_lock);
	rc = file_ready(f, true);
	holding_end(f->holding);
	/* By the kernel until then. */
	if (rc == SESSION_LATER)
		rc = 0;
	/* Whoever has taken the signal since the session began is passed on to from now on. */
	if (rc == 0)
		rc = guard_install();
	if (rc == 0) {
		*file = f;
		return 0;
	}
	umbra_detach(f);
	return rc == -ENOMEM ? rc : -EOPNOTSUPP;
}

/* Out of the holding; the last one that is attached takes all that is known with it. Under client_lock. */
static void file_unlink(struct umbra_file *f, struct view **old)
{
	struct holding *h = f->holding;
	struct umbra_file **at = &h->files;
	bool known = false;

	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	for (struct umbra_file *other = h->files; other; other = other->next)
		known |= other->attached;
	if (!known)
		holding_void(h, old);
}

void holding_leave(struct holding *h)
{
	struct umbra_msg_detach detach = { .msg = { .size = sizeof(detach), .type = UMBRA_MSG_DETACH } };
	struct session *s = NULL;
	struct view *old = NULL;
	unsigned attached = 0;
	int fd = -1;

	holding_begin(h);
	pthread_mutex_lock(&client_lock);
	h->by_kernel = true;
	detach.handle = h->handle;
	for (struct umbra_file *f = h->files; f; f = f->next) {
		attached += f->attached;
		fd = f->attached && !f->closed ? file_fd(f) : fd;
	}
	if (attached > 0) {
		s = h->session;
		session_get_locked(s);
		/* While the slot is known: they may have been stored to. */
		mappings_void(h, 0, UINT64_MAX);
		holding_void(h, &old);
	}
	pthread_mutex_unlock(&client_lock);
	if (old)
		section_wait();
	views_retire(old);
	if (fd >= 0)
		(void)!posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	for (; attached > 0; attached--) {
		struct request r = { 0 };
		struct umbra_msg_detach again = detach;

		(void)!session_ask(s, &again.msg, UMBRA_MSG_DONE, &r);
	}
	if (s)
		session_put(s);
	holding_end(h);
}

void file_detach_begin(struct umbra_file *f)
{
	struct holding *h = f->holding;
	struct view *old = NULL;

	holding_begin(h);
	pthread_mutex_lock(&client_lock);
	f->told_handle = h->handle;
	f->told = f->attached ? h->session : NULL;
	if (f->told)
		session_get_locked(f->told);
	file_unlink(f, &old);
	pthread_mutex_unlock(&client_lock);
	if (old)
		section_wait();
	views_retire(old);
	/* Pages that the kernel has may be older than what is there: data.c. */
	if (f->told)
		(void)!posix_fadvise(file_fd(f), 0, 0, POSIX_FADV_DONTNEED);
	holding_end(h);
}

void file_detach_end(struct umbra_file *f)
{
	struct umbra_msg_detach detach = { .msg = { .size = sizeof(detach), .type = UMBRA_MSG_DETACH },
					   .handle = f->told_handle };
	struct request r = { 0 };

	if (f->own_fd >= 0)
		client_calls.fd_close(f->own_fd);
	if (f->told) {
		(void)!session_ask(f->told, &detach.msg, UMBRA_MSG_DONE, &r);
		session_put(f->told);
	}
	holding_put(f->holding);
	memory_put(f);
}

exported void umbra_detach(struct umbra_file *f)
{
	if (!f)
		return;
	file_detach_begin(f);
	file_detach_end(f);
}
