/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Access to the memory of a pool: open and map, store, flush, fence, guarded reads.
 *
 * Offsets and lengths are bytes from the start of the pool. A store is visible at once and durable after the
 * next dax_fence() of the same thread (not of another one). Other threads see stores in their order only after that
 * fence, or after a mutex was released. Whoever reads through dax_ptr() outside a guard takes a SIGBUS that
 * kills the process; inside a guard (dax_guard_enter) the thread jumps back to it. Each open makes
 * sure that the SIGBUS handler is in place; no thread that touches a pool may block SIGBUS (the kernel would kill the process).
 *
 * Asserts: a range outside the pool, a store to a pool opened readonly.
 *
 * Backends: device-DAX node, plain file, RAM with a trace of every store and fence for crash tests.
 */
#ifndef UMBRA_DAX_DAX_H
#define UMBRA_DAX_DAX_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/util.h"

struct dax;

/* How stores become durable; AUTO picks FLUSH for device-DAX and MAP_SYNC files, PROCESS for tmpfs (memory
 * itself is the medium there), MSYNC for every other file. */
enum dax_durability { DAX_AUTO, DAX_FLUSH, DAX_MSYNC, DAX_PROCESS };

struct dax_opts {
	enum dax_durability durability;
	bool readonly;
	bool create; /* plain file: create or resize it to size_bytes */
	uint64_t size_bytes; /* with create: a multiple of 4096, or 0: as large as it is; a device must have as much */
	bool lent_ok; /* processes may still have descriptors of it (dax_lend()): the caller sees to that */
	/*
	 * 0, or: a descriptor of the pool that a process before this has opened so and locked. It is taken instead of opening path, which is then a name for
	 * messages; it is closed by dax_close(), or by a dax_open() that fails.
	 */
	int taken_fd;
	uint64_t limit_bytes; /* 0, or: map no more than this of the pool (a superblock says how much is in use) */
};

/*
 * Opens and maps the pool at path and takes its exclusive lock (flock), shared if readonly.
 * Errors: -errno, with one line in why (naming path and cause): -EBUSY held by another process, -EINVAL neither
 * a device-DAX node nor a regular file, or of a size that no pool has (0, not a multiple of 4096), or a durability
 * that it cannot have (-EOPNOTSUPP: flush on a file without MAP_SYNC), -ENODEV, -ENXIO device too small or disabled,
 * what open(2), mmap(2), ftruncate(2) say. A file that create made is removed again on failure.
 */
must_check int dax_open(const char *path, const struct dax_opts *opts, struct dax **out, char *why,
			size_t why_size);
void dax_close(struct dax *dax);

/*
 * A trace sees each store before it is applied (a move as a store of what it copies, a discard as zeroes) and each fence
 * after it; ctx is the caller's. All three functions are called by the thread that stores or fences; none may be NULL.
 */
struct dax_trace {
	void (*store)(void *ctx, uint64_t off, const void *src, size_t len_bytes);
	void (*zero)(void *ctx, uint64_t off, size_t len_bytes);
	void (*fence)(void *ctx);
	void *ctx;
};

/* A pool in anonymous memory, zero at first, or a copy of image if not NULL. trace may be NULL. */
must_check int dax_open_ram(uint64_t size_bytes, const void *image, const struct dax_trace *trace,
			    struct dax **out);
/* A pool in the caller's memory (aligned to 4096 bytes), which stays his after dax_close(). */
must_check int dax_open_memory(void *memory, uint64_t size_bytes, const struct dax_trace *trace,
			       struct dax **out);

/* The same with room to grow up to max_bytes, of which image, if not NULL, has all. */
must_check int dax_open_ram_room(uint64_t size_bytes, uint64_t max_bytes, const void *image,
				 const struct dax_trace *trace, struct dax **out);

uint64_t dax_size_bytes(const struct dax *dax);
uint64_t dax_size_max(const struct dax *dax);    /* dax_grow() can make it so large */
uint64_t dax_align_bytes(const struct dax *dax); /* alignment that direct mappings of it must respect */
bool dax_is_device(const struct dax *dax);
bool dax_is_readonly(const struct dax *dax);
enum dax_durability dax_durability(const struct dax *dax); /* never DAX_AUTO */
const char *dax_durability_name(enum dax_durability durability);
int dax_fd(const struct dax *dax); /* -1 for RAM */
/*
 * A thread of its own fills this process's page tables for all memory of the pool that there is, up to 16 GiB, so that nobody waits for that later. Once; nothing for
 * pools without a descriptor, read-only ones, and those whose stores are written back. -errno: no thread.
 */
int dax_fill(struct dax *dax);

/*
 * A descriptor of a pool for another process: an open description of its own (with close-on-exec) with a lock (F_OFD_SETLK, shared) on one byte, which is its number
 * (less than 2^62). The kernel keeps the lock as long as anybody has the description: as a descriptor, in whichever process, or below a mapping. So who asks for the
 * lock learns whether it can still be mapped, and nobody opens such a pool for writing (dax_open(): -EBUSY). Whoever takes the lock off his own description deceives
 * himself. -errno.
 */
must_check int dax_lend(int pool_fd, bool write, uint64_t number);
/* Whether somebody still has that one; any of them, but for those of pool_fd itself. */
bool dax_is_lent(int pool_fd, uint64_t number);
bool dax_is_any_lent(int pool_fd);

/*
 * Maps what a plain file has gained since it was opened, after making it size_bytes large (0: as it is). The former part stays where it is, and in
 * use. A device has been mapped whole. Errors, with nothing changed but perhaps the file's size: -EINVAL it is larger than size_bytes, or a
 * device, or readonly; -EOVERFLOW past dax_size_max(); -EFBIG, -ENOSPC ... as ftruncate(2), mmap(2).
 */
must_check int dax_grow(struct dax *dax, uint64_t size_bytes);

/* Read-only view from off, which must lie inside the pool or at its end (asserted). */
const void *dax_ptr(const struct dax *dax, uint64_t off);

/*
 * Stores (copy from src in ordinary memory, zero, copy within the pool). Non-temporal or flushed as fits; durable
 * after the next fence. Guarded: -EIO where the memory is bad or the file below has no room (the range is then partly
 * written). dax_move takes overlapping ranges.
 */
must_check int dax_store(struct dax *dax, uint64_t off, const void *src, size_t len_bytes);
must_check int dax_zero(struct dax *dax, uint64_t off, size_t len_bytes);
must_check int dax_move(struct dax *dax, uint64_t dst_off, uint64_t src_off, size_t len_bytes);

/*
 * All earlier stores of this thread are durable when it returns 0 (what 'durable' means: dax_durability). -EIO: an msync() has
 * failed; it is in the log, and every later store to this pool is refused with -EIO too.
 */
int dax_fence(struct dax *dax);

/* Guarded copy out of the pool: -EIO where the memory is bad, with the first bad byte's offset in *bad_off
 * (may be NULL). */
must_check int dax_load(const struct dax *dax, void *dst, uint64_t off, size_t len_bytes, uint64_t *bad_off);

/*
 * Memory for what is copied out of a pool and given to the kernel, at a huge page and in one where it can be had: the kernel pins a buffer
 * page by page, and finds a huge one faster. For free(3); NULL without memory.
 */
void *dax_buffer_alloc(size_t len_bytes);
/* Its pages (of any ordinary memory, which is zero then) are there from now on and stay, as far as it may be: who copies there does not have to wait for them. */
void dax_buffer_hold(void *buffer, size_t len_bytes);

/*
 * Ordinary memory, zero at first, that other processes may map too: through *fd, which is the caller's to close and of which nobody can change the size.
 * NULL without memory.
 */
void *dax_shared_alloc(size_t len_bytes, int *fd);
/* What another process, or one before this, has made so. fd stays the caller's. */
void *dax_shared_map(int fd, size_t len_bytes);
void dax_shared_free(void *shared, size_t len_bytes); /* may be NULL */

/* Guarded compare of len_bytes: *same set; -EIO as dax_load. */
must_check int dax_same(const struct dax *dax, uint64_t a_off, uint64_t b_off, size_t len_bytes, bool *same);

/*
 * What can be saved of a 4 KiB block: bit i of *bad_lines is set where line i of 64 bytes cannot be read, and is zero in buf. -EIO: there is no
 * bad memory, but a plain file has nothing at that place, and its file system no room.
 */
must_check int dax_salvage(const struct dax *dax, uint64_t off, void *buf, uint64_t *bad_lines);
/* Whether there is memory at off at all. A page fault of a plain file may fail since its file system is full, or the file was cut. */
bool dax_has_memory(const struct dax *dax, uint64_t off);
/* For tests, which can make only whole pages bad: whether line can be read all the same, and what it holds. NULL: as it is. */
typedef bool (*dax_line_fn)(void *ctx, uint64_t off, void *line);
void dax_on_salvage(struct dax *dax, dax_line_fn fn, void *ctx);

/* Where memory is bad, as the kernel says: the page that off is in, or all of a larger range of which it does not know more. */
struct dax_bad {
	uint64_t off, len;
};

/*
 * Early word of bad memory in a pool, that nobody has touched yet (BUS_MCEERR_AO, to a thread that has asked for it with PR_MCE_KILL_EARLY): the signal
 * handler writes such records to fd, which should not block. 0: nobody listens.
 */
void dax_on_early(struct dax *dax, int fd);

/* Whether this thread has met bad memory of that pool, in a guard or in a guarded call, since that was taken or forgotten; where that was last. */
bool dax_bad_take(const struct dax *dax, struct dax_bad *bad);
void dax_bad_forget(void);

/*
 * Tell the backing store that a range is free: punches the file under a plain pool, zeroes it in RAM, nothing on a
 * device; whole pages inside the range only. Takes effect at once, so freeing the range must be durable before.
 */
void dax_discard(struct dax *dax, uint64_t off, uint64_t len_bytes);

/*
 * A guarded section of the calling thread. Sections nest; the innermost is jumped to. Inside a section the code
 * must hold nothing that it cannot drop after the jump (a mutex, memory known to nobody else).
 *
 *	struct dax_guard g;
 *	if (dax_guard_enter(&g) == 0) { ... dax_ptr() reads ... dax_guard_leave(&g); }
 *	else { bad memory at g.bad_off; the section has already been left }
 */
struct dax_guard {
	sigjmp_buf env;
	struct dax_guard *outer;
	uint64_t bad_off; /* in the pool, of the address that faulted */
	const struct dax *dax;
};

#define dax_guard_enter(g) (dax_guard_push(g), sigsetjmp((g)->env, 0))
void dax_guard_push(struct dax_guard *g);
void dax_guard_leave(struct dax_guard *g);

#endif
