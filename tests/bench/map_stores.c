/* SPDX-License-Identifier: BSD-3-Clause */
/* Stores to mapped clones, and to mappings that are in place. */
#define _GNU_SOURCE
#include "map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define TURNS 5u

static uint64_t maps_so_far(void)
{
	struct umbra_counts counts;

	umbra_get_counts(&counts);
	return counts.maps;
}

/* What a clone takes up beyond what was stored to it: when all is over, since space may be given back then. */
static void first_touch(struct bench *b, uint32_t count, bool synced)
{
	int src = file_make(b, "source", b->size_bytes);
	struct place p = place_open(file_clone(b, "clone", src, b->size_bytes));
	uint8_t *at = place_map(&p, b->size_bytes, PROT_READ | PROT_WRITE);
	uint64_t used = space_used(b), maps = maps_so_far(), pages = b->size_bytes / PAGE_BYTES, end;
	uint32_t *order = shuffled((uint32_t)pages);

	timer_start(b);
	for (uint32_t i = 0; i < count; i++)
		*(volatile uint64_t *)(void *)(at + (uint64_t)order[i] * PAGE_BYTES) = i;
	if (synced)
		place_sync(&p, at, b->size_bytes);
	timer_stop(b);
	b->messages = maps_so_far() - maps;
	b->done_count = count;
	b->done_bytes = b->stored_bytes = (uint64_t)count * PAGE_BYTES;
	for (uint32_t i = 0; i < count; i++)
		need(*(volatile uint64_t *)(void *)(at + (uint64_t)order[i] * PAGE_BYTES) == i,
		     "what was stored");
	place_sync(&p, at, b->size_bytes);
	place_unmap(&p, at, b->size_bytes);
	place_close(&p);
	close(src);
	end = space_used(b);
	b->extra_bytes = end > used ? end - used : 0;
	free(order);
}

static void run_dense(struct bench *b)
{
	first_touch(b, (uint32_t)(b->size_bytes / PAGE_BYTES), false);
}

static void run_dense_sync(struct bench *b)
{
	first_touch(b, (uint32_t)(b->size_bytes / PAGE_BYTES), true);
}

static void run_sparse(struct bench *b)
{
	first_touch(b, (uint32_t)b->count, false);
}

/* Pages of 4 KiB, at random. */
static uint64_t stores(const struct bench *b, uint8_t *at, const uint8_t *block)
{
	uint64_t start_ns = now_ns(), pages = b->size_bytes / PAGE_BYTES;

	for (uint64_t i = 0; i < b->count; i++)
		memcpy(at + random_next() % pages * PAGE_BYTES, block, PAGE_BYTES);
	return now_ns() - start_ns;
}

static void run_store_warm(struct bench *b)
{
	static uint8_t block[PAGE_BYTES] = { 1 };
	struct place p = place_open(file_make(b, "file", b->size_bytes)),
		     raw = { .fd = file_make(b, b->raw, b->size_bytes) };
	uint8_t *at = place_map(&p, b->size_bytes, PROT_READ | PROT_WRITE),
		*raw_at = place_map(&raw, b->size_bytes, PROT_READ | PROT_WRITE);

	for (uint64_t off = 0; off < b->size_bytes; off += PAGE_BYTES)
		at[off] = raw_at[off] = 1;
	for (unsigned turn = 0; turn < TURNS; turn++) {
		b->wall_ns += stores(b, at, block);
		b->raw_ns += stores(b, raw_at, block);
	}
	b->done_count = b->count * TURNS;
	place_unmap(&p, at, b->size_bytes);
	place_unmap(&raw, raw_at, b->size_bytes);
	place_close(&p);
	place_close(&raw);
}

/* From mmap() to munmap(). */
static uint64_t read_in(const struct bench *b, const struct place *p)
{
	uint64_t start_ns = now_ns();
	uint8_t *at = place_map(p, b->size_bytes, PROT_READ);

	for (uint64_t off = 0; off < b->size_bytes; off += PAGE_BYTES)
		(void)*(volatile uint8_t *)(at + off);
	place_unmap(p, at, b->size_bytes);
	return now_ns() - start_ns;
}

static void run_read_in(struct bench *b)
{
	struct place p = place_open(file_make(b, "file", b->size_bytes)),
		     raw = { .fd = file_make(b, b->raw, b->size_bytes) };

	(void)read_in(b, &p);
	(void)read_in(b, &raw);
	for (unsigned turn = 0; turn < TURNS; turn++) {
		b->wall_ns += read_in(b, &p);
		b->raw_ns += read_in(b, &raw);
	}
	b->done_count = TURNS;
	b->done_bytes = b->size_bytes * TURNS;
	place_close(&p);
	place_close(&raw);
}

const struct map_row map_rows[] = {
	{ "map_dense", 0, 256ull * MIB_BYTES, run_dense },
	{ "map_dense_sync", 0, 256ull * MIB_BYTES, run_dense_sync },
	{ "map_sparse", 4096, 256ull * MIB_BYTES, run_sparse },
	{ "map_store_warm", 200000, 256ull * MIB_BYTES, run_store_warm },
	{ "map_read_in", 0, 1024ull * MIB_BYTES, run_read_in },
	{ NULL, 0, 0, NULL },
};
