/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Page tables before large stores. A store that faults makes one entry; a read, sixteen where pages are in the page cache, which may be stored to as
 * well in shared memory. So one page in sixteen is read in (2 MiB: 100 us, each page 150, faults of stores 600; the copy takes 150). A device has no such neighbours:
 * there each page is named. Bad memory is not touched. What is there already costs half as much to be asked for again, so it is noted: a bit for each
 * unit, in a table where chunks may displace each other. It is a hint: pages that are gone again fault.
 */
#include <stdatomic.h>
#include <sys/mman.h>

#include "dax/priv.h"

#define UNIT_BYTES (64u << 10)
#define PAGE_BYTES 4096u
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
