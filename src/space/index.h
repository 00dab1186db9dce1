/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Free blocks of one group in DRAM: a copy of its bitmap with a summary of each chunk.
 *
 * A set bit is a block that must not be handed out: owned on media, taken by a running transaction, or set aside in a
 * window. Blocks and chunks are counted from the start of the group. No locks, no media: the group's short mutex covers it.
 *
 * Chunks that are partly free hang in one list for each size class of their longest free run; wholly free ones are in a set.
 * Memory: 71 bytes and a bit for each 2 MiB.
 */
#ifndef UMBRA_SPACE_INDEX_H
#define UMBRA_SPACE_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "media/unit.h"
#include "util/util.h"

#define CHUNK_WORDS (CHUNK_BLOCKS / 64u)
#define INDEX_CLASSES 9u  /* class k: longest free run is 2^k .. 2^(k+1) - 1 blocks */
#define INDEX_WHOLE 9u    /* all of it is free */
#define INDEX_FULL 10u    /* nothing of it is free */
#define INDEX_NIL 0xffffu /* end of a list */
#define INDEX_NONE UINT64_MAX

struct index {
	uint32_t chunks;
	uint32_t whole_count; /* wholly free chunks */
	uint32_t keep;        /* so many of them are not for data */
	uint32_t spare; /* and so many more not while there are holes in other chunks: metadata needs whole ones */
	uint64_t free_blk;
	uint64_t (*bits)[CHUNK_WORDS];
	uint64_t *whole; /* set of wholly free chunks, a bit each */
	uint16_t *free;  /* of each chunk */
	uint16_t *next, *prev;
	uint8_t *class;
	uint16_t head[INDEX_CLASSES];
};

/* All taken at first. -ENOMEM. */
must_check int index_init(struct index *x, uint32_t chunks);
void index_destroy(struct index *x);

/* Memory for more chunks, and more chunks, all taken (up to what was reserved). */
must_check int index_reserve(struct index *x, uint32_t chunks);
void index_extend(struct index *x, uint32_t chunks);

/* The whole state of one chunk, on loading. */
void index_load_chunk(struct index *x, uint32_t chunk, const uint64_t bits[CHUNK_WORDS]);

/* Free blocks become taken, and taken ones free. Returns how many chunks index_give made wholly free. */
void index_take(struct index *x, uint64_t blk, uint64_t count_blk);
uint32_t index_give(struct index *x, uint64_t blk, uint64_t count_blk);
bool index_is_taken(const struct index *x, uint64_t blk, uint64_t count_blk);

/* Wholly free chunks above the reserve, and those that data may open without need. */
static inline uint32_t index_budget(const struct index *x)
{
	return x->whole_count > x->keep ? x->whole_count - x->keep : 0;
}

static inline uint32_t index_open_budget(const struct index *x)
{
	return x->whole_count > x->keep + x->spare ? x->whole_count - x->keep - x->spare : 0;
}

/* Blocks that data may still take. */
static inline uint64_t index_data_blk(const struct index *x)
{
	return x->free_blk - u64_min(x->keep, x->whole_count) * CHUNK_BLOCKS;
}

/* How many blocks from blk on are free, at most max_blk, entering at most budget wholly free chunks. */
uint64_t index_run_at(const struct index *x, uint64_t blk, uint64_t max_blk, uint32_t budget);

/*
 * A run for data, not yet taken: from goal_blk on if that is free (INDEX_NONE: no goal), whole chunks for large requests, a
 * hole of a partly used chunk for small ones, then a fresh chunk. *count_blk: how many, then how many there are. all: so many or nothing.
 * worn: the longest piece there is, even if it is short or breaks into the spare chunks; with all, any piece that is long enough, whatever the search costs. False: nothing.
 */
struct index_want {
	uint64_t goal_blk;
	uint64_t count_blk;
	bool all;
	bool worn;
};
bool index_find(const struct index *x, const struct index_want *want, uint64_t *blk, uint64_t *count_blk);

/* The lowest or highest wholly free chunk (reserve included), or INDEX_NONE. */
uint64_t index_whole_chunk(const struct index *x, bool highest);

#endif
