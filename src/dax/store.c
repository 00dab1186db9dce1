/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Stores, fences and guarded reads.
 *
 * How a store goes to the memory depends on what makes it durable (figures: one core, 480 MiB of shared cache):
 *
 * - FLUSH: libpmem copies and flushes, or goes around the cache where that is cheaper; the fence drains.
 * - PROCESS: the memory outlives the process and nothing needs to be flushed. A large copy goes around the cache
 *   (1 MiB: 73 us against 113 us), a small one does not: what is read again soon would have to come back from memory
 *   (4 KiB copied and read: 1.5 us against 0.5 us). Even from 16 KiB on.
 *   Holes of the file are better filled by pwrite() than by page faults (1 MiB: 266 us against 472 us).
 * - MSYNC: large stores by pwrite(), which takes no page faults to find out what is dirty. The fence is one msync() from
 *   the first to the last byte that this thread has stored since its last fence. Each msync() of a range costs a
 *   journal commit of the file system below, so one over everything beats one for each piece.
 */
#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dax/libs.h"
#include "dax/priv.h"
#include "util/log.h"

#define LARGE_BYTES 16384u
#define LINE_BYTES 64u
#define DIRTY_POOLS_MAX 4

/* What this thread has stored to MSYNC pools since its last fence of each; id 0 is a free entry. */
struct dirty {
	uint64_t id;
	uint64_t start;
	uint64_t end;
};

static __thread struct dirty dirty_spans[DIRTY_POOLS_MAX];

static void range_assert(const struct dax *dax, uint64_t off, uint64_t len_bytes)
{
	assert(off <= dax->size_bytes && len_bytes <= dax->size_bytes - off);
}

static struct dirty *dirty_find(uint64_t id)
{
	for (size_t i = 0; i < DIRTY_POOLS_MAX; i++)
		if (dirty_spans[i].id == id)
			return &dirty_spans[i];
	return NULL;
}

static int span_sync(struct dax *dax, uint64_t start, uint64_t end)
{
	start = u64_align_down(start, dax->align_bytes);
	if (msync(dax->base + start, end - start, MS_SYNC) == 0)
		return 0;
	/* After a failed write-back the kernel calls the pages clean: a second try would lie. */
	if (!atomic_exchange(&dax->failed, true))
		log_error("%s: msync failed (%s): the pool takes no more writes", dax->path, strerror(errno));
	return -EIO;
}

/* After a store, whether it went well or not. */
static int dirty_add(struct dax *dax, uint64_t off, uint64_t len_bytes)
{
	struct dirty *d = dirty_find(dax->id);

	if (!d) {
		d = dirty_find(0);
		if (!d) /* more pools than entries: slow, and durable before its time */
			return span_sync(dax, off, off + len_bytes);
		*d = (struct dirty){ .id = dax->id, .start = off, .end = off };
	}
	d->start = u64_min(d->start, off);
	d->end = u64_max(d->end, off + len_bytes);
	return 0;
}

void store_forget(const struct dax *dax)
{
	struct dirty *d = dirty_find(dax->id);

	if (d)
		*d = (struct dirty){ 0 };
}

static bool large_is_hole(const struct dax *dax, uint64_t off, size_t len_bytes)
{
	unsigned char resident[256];
	uint64_t end = off + len_bytes;

	for (uint64_t at = u64_align_down(off, dax->align_bytes); at < end;) {
		uint64_t part_bytes = u64_min(end - at, ARRAY_SIZE(resident) * dax->align_bytes);
		uint64_t count = u64_div_up(part_bytes, dax->align_bytes);

		if (mincore(dax->base + at, part_bytes, resident))
			return false;
		for (uint64_t i = 0; i < count; i++)
			if (!(resident[i] & 1))
				return true;
		at += part_bytes;
	}
	return false;
}

/* False: not done, or not to its end; an ordinary copy does it and finds out why. */
static bool store_by_pwrite(struct dax *dax, uint64_t off, const uint8_t *src, size_t len_bytes)
{
	struct stat st;

	if (!dax->by_pwrite || len_bytes < LARGE_BYTES)
		return false;
	if (dax->durability == DAX_PROCESS && !large_is_hole(dax, off, len_bytes))
		return false;
	/* Of a file that somebody has cut short the end is bad memory; it must not grow back as zeros. */
	if (fstat(dax->fd, &st) || (uint64_t)st.st_size < off + len_bytes)
		return false;
	while (len_bytes > 0) {
		ssize_t n = pwrite(dax->fd, src, len_bytes, (off_t)off);

		if (n <= 0)
			return false;
		src += n;
		off += (uint64_t)n;
		len_bytes -= (size_t)n;
	}
	return true;
}

/* Who does a store: libpmem, or NULL for memmove(). Loads it if need be, so not under a guard. */
static const struct libpmem *storer(const struct dax *dax, size_t len_bytes)
{
	if (dax->durability == DAX_FLUSH)
		return dax->pmem;
	return dax->durability == DAX_PROCESS && len_bytes >= LARGE_BYTES ? libpmem_load() : NULL;
}

/* From ordinary memory or within the pool, ranges may overlap. src NULL: zeros */
static void bytes_put(const struct dax *dax, const struct libpmem *lib, uint8_t *dst, const uint8_t *src,
		      size_t len_bytes)
{
	unsigned flags = PMEM_F_MEM_NODRAIN | (dax->durability == DAX_FLUSH ? 0 : PMEM_F_MEM_NONTEMPORAL);

	if (lib && src)
		lib->memmove(dst, src, len_bytes, flags);
	else if (lib)
		lib->memset(dst, 0, len_bytes, flags);
	else if (src)
		memmove(dst, src, len_bytes);
	else
		memset(dst, 0, len_bytes);
}

static int bytes_store(struct dax *dax, uint64_t off, const uint8_t *src, size_t len_bytes)
{
	const struct libpmem *lib = storer(dax, len_bytes);
	struct dax_guard g;

	dax_populate(dax, off, len_bytes);
	if (dax_guard_enter(&g) != 0)
		return -EIO;
	bytes_put(dax, lib, dax->base + off, src, len_bytes);
	dax_guard_leave(&g);
	return 0;
}

static int store(struct dax *dax, uint64_t off, const uint8_t *src, size_t len_bytes, bool may_pwrite)
{
	int rc = 0;

	assert(!dax->readonly);
	if (atomic_load_explicit(&dax->failed, memory_order_relaxed))
		return -EIO;
	if (!may_pwrite || !store_by_pwrite(dax, off, src, len_bytes))
		rc = bytes_store(dax, off, src, len_bytes);
	if (dax->durability == DAX_MSYNC && dirty_add(dax, off, len_bytes) != 0)
		rc = -EIO;
	return rc;
}

int dax_store(struct dax *dax, uint64_t off, const void *src, size_t len_bytes)
{
	range_assert(dax, off, len_bytes);
	if (len_bytes == 0)
		return 0;
	if (dax->traced)
		dax->trace.store(dax->trace.ctx, off, src, len_bytes);
	return store(dax, off, src, len_bytes, true);
}

int dax_zero(struct dax *dax, uint64_t off, size_t len_bytes)
{
	range_assert(dax, off, len_bytes);
	if (len_bytes == 0)
		return 0;
	if (dax->traced)
		dax->trace.zero(dax->trace.ctx, off, len_bytes);
	return store(dax, off, NULL, len_bytes, false);
}

int dax_move(struct dax *dax, uint64_t dst_off, uint64_t src_off, size_t len_bytes)
{
	range_assert(dax, dst_off, len_bytes);
	range_assert(dax, src_off, len_bytes);
	if (len_bytes == 0 || dst_off == src_off)
		return 0;
	if (dax->traced)
		dax->trace.store(dax->trace.ctx, dst_off, dax->base + src_off, len_bytes);
	/* No pwrite() out of the pool: bad memory in the source would be found in the middle of the kernel's copy. */
	return store(dax, dst_off, dax->base + src_off, len_bytes, false);
}

/* Stores around the cache too are done, in their order, before what comes after. */
static void drain(const struct dax *dax)
{
	if (dax->durability == DAX_FLUSH) {
		dax->pmem->drain();
		return;
	}
#ifdef __x86_64__
	__builtin_ia32_sfence();
#else
	atomic_thread_fence(memory_order_seq_cst);
#endif
}

int dax_fence(struct dax *dax)
{
	struct dirty *d;
	int rc = 0;

	if (dax->durability == DAX_MSYNC) {
		d = dirty_find(dax->id);
		if (d) {
			rc = span_sync(dax, d->start, d->end);
			*d = (struct dirty){ 0 };
		}
	} else {
		drain(dax);
	}
	if (dax->traced)
		dax->trace.fence(dax->trace.ctx);
	return rc;
}

static bool line_is_readable(const uint8_t *line)
{
	struct dax_guard g;

	if (dax_guard_enter(&g) != 0)
		return false;
	(void)*(const volatile uint8_t *)line;
	dax_guard_leave(&g);
	return true;
}

/* The copy that faulted ran in an order of its own: walk the lines for the first bad byte. */
static uint64_t bad_find(const struct dax *dax, uint64_t off, uint64_t len_bytes)
{
	uint64_t end = off + len_bytes;

	for (uint64_t at = off; at < end; at = u64_align_down(at, LINE_BYTES) + LINE_BYTES)
		if (!line_is_readable(dax->base + at))
			return at;
	return end;
}

int dax_load(const struct dax *dax, void *dst, uint64_t off, size_t len_bytes, uint64_t *bad_off)
{
	struct dax_guard g;
	uint64_t bad;

	range_assert(dax, off, len_bytes);
	if (dax_guard_enter(&g) == 0) {
		memcpy(dst, dax->base + off, len_bytes);
		dax_guard_leave(&g);
		return 0;
	}
	if (bad_off) {
		bad = bad_find(dax, off, len_bytes);
		/* Good again on the second look: then the place that the fault named. */
		*bad_off = bad < off + len_bytes ? bad :
						   u64_min(u64_max(g.bad_off, off), off + len_bytes - 1);
	}
	return -EIO;
}

int dax_same(const struct dax *dax, uint64_t a_off, uint64_t b_off, size_t len_bytes, bool *same)
{
	struct dax_guard g;
	bool equal;

	range_assert(dax, a_off, len_bytes);
	range_assert(dax, b_off, len_bytes);
	if (dax_guard_enter(&g) != 0)
		return -EIO;
	equal = memcmp(dax->base + a_off, dax->base + b_off, len_bytes) == 0;
	dax_guard_leave(&g);
	*same = equal;
	return 0;
}
