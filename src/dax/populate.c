/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Page tables before large stores. A store that faults makes one entry; a read, sixteen where pages are in the page cache, which may be stored to as
 * well in shared memory. So one page in sixteen is read in (2 MiB: 100 us, each page 150, faults of stores 600; the copy takes 150). A device has no such neighbours:
 * there each page is named. Bad memory is not touched. What is there already costs half as much to be asked for again, so it is noted: a bit for each
 * unit, in a table where chunks may displace each other. It is a hint: pages that are gone again fault.
 */
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "dax/priv.h"

#define UNIT_BYTES (64u << 10)
#define PAGE_BYTES 4096u
#define NICE_LAST 19
#define CHUNK_BYTES (32 * (uint64_t)UNIT_BYTES)

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

/* Whole units. False: it does not work here; pages come as they are touched. */
static bool units_populate(uint8_t *at, size_t len_bytes, bool is_device)
{
	if (is_device)
		return madvise(at, len_bytes, MADV_POPULATE_READ) == 0;
	for (size_t done = 0; done < len_bytes; done += UNIT_BYTES)
		if (madvise(at + done, PAGE_BYTES, MADV_POPULATE_READ))
			return false;
	return true;
}

/* The part of [lo, hi) in one chunk. */
static void chunk_populate(struct dax *dax, uint64_t lo, uint64_t hi)
{
	uint64_t chunk = lo / CHUNK_BYTES, tag = (chunk + 1) << 32;
	_Atomic uint64_t *entry = &dax->populated[chunk % ARRAY_SIZE(dax->populated)];
	uint64_t have = atomic_load_explicit(entry, memory_order_relaxed), want = 0;

	if (have >> 32 != chunk + 1)
		have = tag;
	for (uint64_t at = lo; at < hi; at += UNIT_BYTES)
		want |= 1ull << at % CHUNK_BYTES / UNIT_BYTES;
	if ((have & want) == want || !units_populate(dax->base + lo, hi - lo, dax->device))
		return;
	atomic_store_explicit(entry, have | want, memory_order_relaxed);
}

void dax_populate(struct dax *dax, uint64_t off, size_t len_bytes)
{
	/* Nothing outside of the range: a plain file may have holes there. */
	uint64_t lo = u64_align_up(off, UNIT_BYTES), hi = u64_align_down(off + len_bytes, UNIT_BYTES);

	if (dax->durability == DAX_MSYNC || dax->by_caller)
		return;
	while (lo < hi) {
		uint64_t end = u64_min(u64_align_down(lo, CHUNK_BYTES) + CHUNK_BYTES, hi);

		chunk_populate(dax, lo, end);
		lo = end;
	}
}

/* ---- all of it ---- */

static bool is_over(const struct dax *dax)
{
	return atomic_load_explicit(&dax->filling_is_over, memory_order_relaxed);
}

/* Where there is memory from off on; false: nowhere. A device has it everywhere. */
static bool memory_find(const struct dax *dax, uint64_t off, uint64_t end, uint64_t *lo, uint64_t *hi)
{
	off_t at;

	*lo = off;
	*hi = end;
	if (dax->device)
		return off < end;
	at = off < end ? lseek(dax->fd, (off_t)off, SEEK_DATA) : -1;
	if (at < 0 || (uint64_t)at >= end)
		return false;
	*lo = (uint64_t)at;
	at = lseek(dax->fd, at, SEEK_HOLE);
	if (at > (off_t)*lo)
		*hi = u64_min((uint64_t)at, end);
	return true;
}

static void *filling_run(void *arg)
{
	struct dax *dax = arg;
	uint64_t end = u64_min(dax->size_bytes, DAX_POPULATED * CHUNK_BYTES), off = 0, lo, hi;

	/* Whoever is served goes first. Not SCHED_IDLE: who has to wait for a core for long must not hold the lock of the page tables meanwhile. */
	(void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE_LAST);
	/* Looking for the end of memory takes the longer the more there is: once for each stretch. */
	for (; !is_over(dax) && memory_find(dax, off, end, &lo, &hi); off = hi)
		for (; !is_over(dax) && lo < hi; lo = u64_align_down(lo, CHUNK_BYTES) + CHUNK_BYTES)
			dax_populate(dax, lo, u64_min(hi - lo, CHUNK_BYTES - lo % CHUNK_BYTES));
	return NULL;
}

int dax_fill(struct dax *dax)
{
	int rc;

	if (dax->readonly || dax->fd < 0 || dax->durability == DAX_MSYNC || dax->is_filling)
		return 0;
	rc = -pthread_create(&dax->filling, NULL, filling_run, dax);
	dax->is_filling = rc == 0;
	return rc;
}

void filling_end(struct dax *dax)
{
	if (!dax->is_filling)
		return;
	atomic_store(&dax->filling_is_over, true);
	pthread_join(dax->filling, NULL);
	dax->is_filling = false;
}
