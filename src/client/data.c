/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading and writing: one section (section.h) after the other, each of which copies a part of one piece, so that a revoke never waits for long. What comes between
 * two of them is done without: asking for pieces, the kernel's calls.
 *
 * Within the size that is known a call is done here; what passes the end, and all that goes wrong, is done by the kernel.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "client/data.h"
#include "client/file.h"
#include "client/guard.h"
#include "client/map.h"
#include "client/mapping.h"
#include "client/reopen.h"
#include "client/section.h"
#include "client/session.h"
#include "client/store.h"
#include "client/user_memory.h"
#include "util/sabotage.h"

#define exported __attribute__((visibility("default")))

#define PART_BYTES (1u << 20)  /* in one section */
#define CALL_BYTES 0x7ffff000u /* the kernel does no more in one call */
#define TRIES_MAX 64           /* without a byte done */
#define END_SKIP_MAX 63u       /* calls that do not ask whether the file is longer now */
#define BLOCK 4096u
#define LINE_BYTES 64u
#define EARLY_BYTES 512u

/* What is left of a call. */
struct call {
	struct umbra_file *file;
	struct section *section;
	uint8_t *buf; /* not changed by a write */
	uint64_t off, len;
	uint64_t done, direct;
	bool guards_buf; /* it may be bad: then the kernel says what comes of that */
	bool lost;       /* what the kernel is asked for now was lost */
};

enum next {
	GO_ON,     /* something is done */
	ASK,       /* for pieces at ask_off */
	BAD,       /* memory at ask_off */
	BY_KERNEL, /* as far as kernel_len */
};

struct outcome {
	enum next next;
	bool past_end; /* of what is known of the file */
	uint64_t ask_off, kernel_len;
};

static void copy_bytes(void *dst, const void *src, size_t len)
{
	memcpy(dst, src, len);
}

static void copy_zeroes(void *dst, const void *src, size_t len)
{
	(void)src;
	memset(dst, 0, len);
}

/* Pages of a buffer that is read, or written: there when this has returned. */
static void touch_to_read(void *dst, const void *src, size_t len)
{
	const volatile uint8_t *at = src;

	(void)dst;
	for (size_t i = 0; i < len; i += BLOCK)
		(void)at[i];
	(void)at[len - 1];
}

static void touch_to_write(void *dst, const void *src, size_t len)
{
	uint8_t *at = dst, none = 0;

	(void)src;
	/* Not known to be zero: else compilers make a load of what changes nothing. */
	__asm__ volatile("" : "+r"(none));
	for (size_t i = 0; i < len; i += BLOCK)
		__atomic_fetch_or(&at[i], none, __ATOMIC_RELAXED);
	__atomic_fetch_or(&at[len - 1], none, __ATOMIC_RELAXED);
}

/*
 * The next part of the buffer is there before the section: getting it may take the daemon (a mapping of a file, the data of a program), which may be waiting for the section.
 */
static bool buf_is_there(const struct call *c, bool store)
{
	uint64_t n = u64_min(c->len, PART_BYTES);

	if (!c->guards_buf)
		return true;
	return data_touch(c->buf, n, store);
}

static struct outcome advance(struct call *c, uint64_t n)
{
	c->buf += n;
	c->off += n;
	c->len -= n;
	c->done += n;
	return (struct outcome){ .next = GO_ON };
}

/* Of a part of a piece, between the buffer and at. */
static struct outcome part_copy(struct call *c, guard_copy_fn copy, void *dst, const void *src, uint64_t n,
				const uint8_t *at)
{
	struct outcome o = { .next = BAD, .ask_off = c->off };
	const uint8_t *fault;

	if (c->guards_buf ? guard_copy_user(copy, dst, src, n, c->buf, &fault) :
			    guard_copy(copy, dst, src, n, &fault)) {
		c->direct += n;
		return advance(c, n);
	}
	if (c->guards_buf && (uintptr_t)fault - (uintptr_t)c->buf < n)
		return (struct outcome){ .next = BY_KERNEL, .kernel_len = c->len };
	if (fault > at && fault < at + n)
		o.ask_off += (uint64_t)(fault - at);
	o.kernel_len = u64_min(c->len, u64_align_down(o.ask_off, BLOCK) + BLOCK - c->off);
	return o;
}

static uint64_t part_of(const struct call *c, const struct umbra_piece *p)
{
	return u64_min(u64_min(c->len, p->file_off + p->len - c->off), PART_BYTES);
}

/* NULL: it is not attached. Within a section. */
static const struct view *view_of(struct umbra_file *file)
{
	const struct view *v = atomic_load_explicit(&file->holding->view, memory_order_acquire);

	return atomic_load_explicit(&file->attached, memory_order_relaxed) ? v : NULL;
}

static const struct view *view_now(const struct call *c)
{
	return view_of(c->file);
}

/* Memory is on its way while the copy is being prepared; what follows the processor sees for itself. Bad memory is not touched by that. */
static void fetch_early(const uint8_t *at, uint64_t n)
{
	if (n < EARLY_BYTES)
		return;
#pragma GCC unroll 8
	for (uint64_t i = 0; i < EARLY_BYTES; i += LINE_BYTES)
		__builtin_prefetch(at + i);
}

/*
 * What comes before the stores is more than the processor looks past, so the page would be looked up only then. One line of it is asked for early, the last one: stores around the cache
 * to a line that is in it are slow, which is also why a page that was stored to just now is left alone.
 */
static void look_up_early(struct section *section, const uint8_t *at, uint64_t n)
{
	uint64_t in_page = u64_min(n, BLOCK - (uintptr_t)at % BLOCK);

	if (n < EARLY_BYTES)
		return;
	if (((uintptr_t)at ^ section->stored_at) >= BLOCK)
		__builtin_prefetch(at + in_page - 1, 1);
	section->stored_at = (uintptr_t)at;
}

static struct outcome read_part(struct call *c)
{
	struct outcome ask = { .next = ASK, .ask_off = c->off },
		       kernel = { .next = BY_KERNEL, .kernel_len = c->len };
	const struct view *v = view_now(c);
	const struct umbra_piece *p;
	const uint8_t *at;
	uint64_t n;

	if (!v)
		return ask;
	if (c->off >= v->size_bytes) {
		ask.past_end = kernel.past_end = true;
		return v->size_open ? ask : kernel;
	}
	p = pieces_find(v->pieces, c->off);
	if (!p)
		return ask;
	n = u64_min(part_of(c, p), v->size_bytes - c->off);
	c->lost = p->flags & UMBRA_PIECE_LOST;
	if (c->lost) {
		kernel.kernel_len = n;
		return kernel;
	}
	if (p->flags & UMBRA_PIECE_HOLE)
		return part_copy(c, copy_zeroes, c->buf, NULL, n, NULL);
	at = v->base + p->dev_off + (c->off - p->file_off);
	fetch_early(at, n);
	return part_copy(c, copy_bytes, c->buf, at, n, at);
}

static struct outcome write_part(struct call *c)
{
	struct outcome ask = { .next = ASK, .ask_off = c->off },
		       kernel = { .next = BY_KERNEL, .kernel_len = c->len };
	const struct view *v = view_now(c);
	const struct umbra_piece *p;
	struct outcome o;
	uint8_t *at;
	uint64_t n;

	if (!v)
		return ask;
	if (!v->store)
		return kernel;
	if (c->off + c->len > v->size_bytes) {
		ask.ask_off = c->off + c->len - 1;
		ask.past_end = kernel.past_end = true;
		return v->size_open ? ask : kernel;
	}
	p = pieces_find(v->pieces, c->off);
	if (!p || !(p->flags & (UMBRA_PIECE_WRITE | UMBRA_PIECE_LOST)))
		return ask;
	n = part_of(c, p);
	c->lost = p->flags & UMBRA_PIECE_LOST;
	if (p->flags & (UMBRA_PIECE_LOST | UMBRA_PIECE_HOLE)) {
		kernel.kernel_len = n;
		return kernel;
	}
	at = v->base + p->dev_off + (c->off - p->file_off);
	look_up_early(c->section, at, n);
	o = part_copy(c, store_bytes, at, c->buf, n, at);
	/* In the section: the slot is this file's, and whoever hears that we have let go knows of the store. */
	atomic_store_explicit((_Atomic __u64 *)&v->slot->stored, 1, memory_order_release);
	return o;
}

/*
 * The kernel may have pages of the file from before something was stored directly, by whomever: the daemon lets opens that are attached keep the page cache. So they are
 * dropped first. Whoever reads them in again meanwhile reads what is there now.
 */
static ssize_t kernel_pread(int fd, void *buf, uint64_t len, uint64_t off)
{
	uint64_t from = u64_align_down(off, BLOCK), to = u64_align_up(off + len, BLOCK);

	(void)!posix_fadvise(fd, (off_t)from, (off_t)(to - from), POSIX_FADV_DONTNEED);
	return pread(fd, buf, len, (off_t)off);
}

bool data_within(struct umbra_file *file, struct section *section, uint64_t end, bool *open)
{
	const struct view *v;
	bool within;

	section_enter(section);
	v = view_of(file);
	within = v && end <= v->size_bytes;
	*open = v && v->size_open;
	section_leave(section);
	return within;
}

void data_written_to(struct umbra_file *file, struct section *section, uint64_t end)
{
	bool open;

	if (!data_within(file, section, end, &open) && !open)
		holding_size_open(file->holding);
}

/*
 * As file_away(), of a call of the kernel's that has failed. Another thread may have opened the file again since: then that one is alive, and what failed was the one before.
 */
static int kernel_away(struct umbra_file *file, int failed, unsigned *tries)
{
	int away = file_away(file, failed);

	if (away > 0 && mount_is_gone(failed) && !file->closed && (*tries)++ < TRIES_MAX &&
	    !sabotage_point("reopen-overtaken"))
		return 0;
	return away;
}

/* True: the call has ended, with *rc. */
static bool by_kernel(struct call *c, uint64_t len, bool store, ssize_t *rc)
{
	unsigned tries = 0;
	int away, failed;
	ssize_t n;

	if (atomic_load(&c->file->closed)) {
		*rc = c->done > 0 ? (ssize_t)c->done : -EBADF;
		return true;
	}
	do {
		int fd = file_fd(c->file);

		n = store ? pwrite(fd, c->buf, len, (off_t)c->off) : kernel_pread(fd, c->buf, len, c->off);
		failed = n < 0 ? -errno : 0;
		away = n < 0 ? kernel_away(c->file, failed, &tries) : 1;
	} while (away == 0);
	section_count(store ? &c->section->kernel_writes : &c->section->kernel_reads, 1);
	if (n < 0) {
		*rc = c->done > 0 ? (ssize_t)c->done : away < 0 ? away : failed;
		return true;
	}
	if (n > 0) {
		data_written_to(c->file, c->section, c->off + (uint64_t)n);
		if (c->lost)
			map_lost_again(c->file, c->off, (uint64_t)n);
		c->lost = false;
	}
	(void)advance(c, (uint64_t)n);
	*rc = (ssize_t)c->done;
	return (uint64_t)n < len;
}

/* All of it by the kernel, from here on. */
static ssize_t rest_by_kernel(struct call *c, bool store)
{
	ssize_t rc;

	(void)by_kernel(c, c->len, store, &rc);
	return rc;
}

/*
 * Nobody is told when a file becomes longer, so whoever gets past its end asks; but not each time where that is in vain, as where a log is written: what goes past the end is the kernel's.
 */
static bool end_is_to_be_asked(struct holding *h)
{
	uint32_t skip = atomic_load_explicit(&h->end_skip, memory_order_relaxed);

	if (skip > 0)
		atomic_store_explicit(&h->end_skip, skip - 1, memory_order_relaxed);
	return skip == 0;
}

static void end_was_asked(struct holding *h, bool in_vain)
{
	uint32_t skip = atomic_load_explicit(&h->end_skip_next, memory_order_relaxed);

	skip = in_vain ? skip : 0;
	atomic_store_explicit(&h->end_skip, skip, memory_order_relaxed);
	atomic_store_explicit(&h->end_skip_next, in_vain ? (uint32_t)u64_min(2 * skip + 1, END_SKIP_MAX) : 0,
			      memory_order_relaxed);
}

/* False: it is the kernel's. */
static bool past_end(const struct call *c, const struct outcome *o, bool *asked)
{
	struct holding *h = c->file->holding;

	if (o->next == ASK && o->past_end && !*asked) {
		*asked = end_is_to_be_asked(h);
		return *asked;
	}
	if (*asked && (o->next == GO_ON || o->past_end)) {
		end_was_asked(h, o->next != GO_ON);
		*asked = false;
	}
	return true;
}

static ssize_t run(struct call *c, bool store)
{
	bool asked = false;

	for (unsigned tries = 0; c->len > 0;) {
		struct outcome o;
		int rc = 0;
		ssize_t n;

		if (!buf_is_there(c, store))
			return rest_by_kernel(c, store);
		section_enter(c->section);
		o = store ? write_part(c) : read_part(c);
		section_leave(c->section);
		if (!past_end(c, &o, &asked))
			return rest_by_kernel(c, store);
		if (o.next == GO_ON) {
			tries = 0;
			continue;
		}
		if (++tries > TRIES_MAX)
			return rest_by_kernel(c, store);
		if (o.next == ASK)
			rc = map_ask(c->file, o.ask_off, c->off + c->len - o.ask_off, store);
		else if (o.next == BAD)
			rc = map_bad(c->file, o.ask_off);
		if (rc && o.next == ASK) {
			rc = file_away(c->file, rc);
			if (rc > 0)
				return rest_by_kernel(c, store);
			if (rc < 0)
				return c->done > 0 ? (ssize_t)c->done : rc;
			tries = 0;
			continue;
		}
		if ((rc || o.next == BY_KERNEL) && by_kernel(c, o.kernel_len, store, &n))
			return n;
	}
	return (ssize_t)c->done;
}

static void count_read(const struct call *c)
{
	if (c->direct > 0) {
		section_count(&c->section->reads, 1);
		section_count(&c->section->read_bytes, c->direct);
	}
}

static void count_written(const struct call *c)
{
	if (c->direct > 0) {
		section_count(&c->section->writes, 1);
		section_count(&c->section->written_bytes, c->direct);
	}
}

/* In a section. False: it is not to be had so; what has been done of it does no harm when it is done again. */
static bool part_at_once(struct umbra_file *file, struct section *section, void *buf, size_t size, off_t off,
			 bool store, bool guards_buf)
{
	struct call c = { .file = file,
			  .section = section,
			  .buf = buf,
			  .len = size,
			  .off = (uint64_t)off,
			  .guards_buf = guards_buf };

	if (store ? !file->can_write || file->appends : !file->can_read)
		return false;
	if ((store ? write_part(&c) : read_part(&c)).next != GO_ON || c.len > 0)
		return false;
	if (store)
		count_written(&c);
	else
		count_read(&c);
	return true;
}

/* What most calls are. Before all else it is known where the bytes are, and memory is on its way. */
static bool call_at_once(struct umbra_file *file, void *buf, size_t size, off_t off, bool store)
{
	struct section *section = mappings_are_none() ? section_mine() : NULL;
	bool done;

	if (!section || off < 0 || size == 0 || size > PART_BYTES)
		return false;
	section_enter(section);
	done = part_at_once(file, section, buf, size, off, store, false);
	section_leave(section);
	return done;
}

static ssize_t read_call(struct umbra_file *file, void *buf, size_t size, off_t off, bool guards_buf)
{
	struct call c = { .file = file,
			  .buf = buf,
			  .len = u64_min(size, CALL_BYTES),
			  .off = (uint64_t)off,
			  .guards_buf = guards_buf };
	ssize_t rc;

	c.section = section_mine();
	if (!c.section || !file->can_read || off < 0 || size == 0 || off > INT64_MAX - (off_t)CALL_BYTES) {
		rc = pread(file_fd(file), buf, size, off);
		return rc < 0 ? -errno : rc;
	}
	rc = run(&c, false);
	count_read(&c);
	return rc;
}

static ssize_t write_call(struct umbra_file *file, const void *buf, size_t size, off_t off, bool guards_buf)
{
	struct call c = {
		.file = file, .len = u64_min(size, CALL_BYTES), .off = (uint64_t)off, .guards_buf = guards_buf
	};
	ssize_t rc;

	c.section = section_mine();
	if (!c.section || !file->can_write || off < 0 || size == 0 || file->appends ||
	    off > INT64_MAX - (off_t)CALL_BYTES) {
		rc = pwrite(file_fd(file), buf, size, off);
		return rc < 0 ? -errno : rc;
	}
	c.buf = (uint8_t *)(uintptr_t)buf;
	rc = run(&c, true);
	count_written(&c);
	return rc;
}

/* Its buffer is in a mapping: what is missing of that must not be waited for in a section. */
struct mapped_call {
	struct umbra_file *file;
	off_t off;
	bool store;
	ssize_t rc; /* -errno */
};

static ssize_t part_of_mapped(void *arg, void *buf, size_t len, size_t done)
{
	struct mapped_call *c = arg;
	off_t off;

	c->rc = -EINVAL;
	if (!__builtin_add_overflow(c->off, (off_t)done, &off))
		c->rc = c->store ? write_call(c->file, buf, len, off, false) :
				   read_call(c->file, buf, len, off, false);
	return c->rc < 0 ? -1 : c->rc;
}

static ssize_t mapped_call(struct umbra_file *file, void *buf, size_t size, off_t off, bool store)
{
	struct iovec part = { buf, u64_min(size, CALL_BYTES) };
	struct mapped_call c = { .file = file, .off = off, .store = store };
	int before = errno;
	ssize_t n = user_memory_call(&part, 1, !store, false, part_of_mapped, &c);

	if (n < 0)
		n = c.rc < 0 ? c.rc : -errno;
	errno = before;
	return n;
}

exported ssize_t umbra_pread(struct umbra_file *file, void *buf, size_t size, off_t off)
{
	if (call_at_once(file, buf, size, off, false))
		return (ssize_t)size;
	return user_memory_at(buf, size) ? mapped_call(file, buf, size, off, false) :
					   read_call(file, buf, size, off, false);
}

exported ssize_t umbra_pwrite(struct umbra_file *file, const void *buf, size_t size, off_t off)
{
	void *from = (void *)(uintptr_t)buf; /* not changed */

	if (call_at_once(file, from, size, off, true))
		return (ssize_t)size;
	return user_memory_at(buf, size) ? mapped_call(file, from, size, off, true) :
					   write_call(file, buf, size, off, false);
}

ssize_t data_call(struct umbra_file *file, void *buf, size_t size, off_t off, bool store)
{
	return store ? write_call(file, buf, size, off, true) : read_call(file, buf, size, off, true);
}

bool data_touch(void *buf, size_t size, bool store)
{
	return guard_copy_user(store ? touch_to_read : touch_to_write, buf, buf, size, buf, NULL);
}

bool data_at_once(struct umbra_file *file, struct section *section, void *buf, size_t size, off_t off,
		  bool store)
{
	return part_at_once(file, section, buf, size, off, store, true);
}
