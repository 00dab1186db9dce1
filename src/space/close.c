/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A range out of which nothing is handed out any more, while it is emptied.
 *
 * In DRAM only: the index has all of it as taken, and what becomes free there stays so. Nobody had claims on blocks of it when it was closed
 * (all transactions were kept out, all windows taken back), so in it the bitmap alone says what is free, to whoever has the group's lock. A
 * crash opens it.
 */
#include <errno.h>

#include "space/bits.h"
#include "space/priv.h"
#include "util/sabotage.h"

/* The part of [lo, hi) in a group, counted from its start; false: none. */
static bool group_part(const struct group *g, uint64_t lo_blk, uint64_t hi_blk, uint64_t *lo, uint64_t *hi)
{
	uint64_t end = g->start_blk + g->length_blk;

	if (lo_blk >= end || hi_blk <= g->start_blk)
		return false;
	*lo = u64_max(lo_blk, g->start_blk) - g->start_blk;
	*hi = u64_min(hi_blk, end) - g->start_blk;
	return true;
}

static void part_take(struct index *x, uint64_t lo, uint64_t hi)
{
	while (lo < hi) {
		uint32_t chunk = (uint32_t)(lo / CHUNK_BLOCKS);
		unsigned first = lo % CHUNK_BLOCKS, end = (unsigned)u64_min(CHUNK_BLOCKS, first + (hi - lo)),
			 free;

		if (x->class[chunk] == INDEX_FULL) {
			lo += end - first;
			continue;
		}
		free = bits_clear_run(x->bits[chunk], first, end);
		if (free > 0)
			index_take(x, lo, free);
		lo += free > 0 ? free : 1;
	}
}

int space_close_range(struct pool *pool, uint64_t lo_blk, uint64_t hi_blk)
{
	struct space *space = space_of(pool);
	uint64_t lo, hi;
	int rc = space_open_range(pool); /* of one before, if that could not be done then */

	for (uint32_t i = 0; i < space->ag_count && !rc; i++) {
		struct group *g = &space->groups[i];

		rc = group_part(g, lo_blk, hi_blk, &lo, &hi) ? group_load(g) : 0;
	}
	if (rc)
		return rc;
	pool_freeze(pool);
	while (window_steal(space))
		;
	for (uint32_t i = 0; i < space->ag_count; i++) {
		struct group *g = &space->groups[i];

		if (!group_part(g, lo_blk, hi_blk, &lo, &hi) || sabotage_point("close"))
			continue;
		pthread_mutex_lock(&g->lock);
		assert(g->closed_lo == g->closed_hi);
		g->closed_lo = lo;
		g->closed_hi = hi;
		part_take(&g->index, lo, hi);
		pthread_mutex_unlock(&g->lock);
	}
	pool_thaw(pool);
	return 0;
}

static int line_get(struct group_tx *at, uint64_t chunk, const le64 **words)
{
	uint32_t unit = AG_UNIT_TABLE + ag_table_units(at->g->space->ag_chunks) +
			(uint32_t)(chunk / BITMAP_CHUNKS_PER_UNIT);
	const void *bitmap;
	int rc = txn_get(at->tx, slot_laddr(at->g, 0, unit), MAGIC_BITMAP, &bitmap);

	if (!rc)
		*words = (const le64 *)(const void *)((const struct m_bitmap *)bitmap)
				 ->bm_bits[chunk % BITMAP_CHUNKS_PER_UNIT];
	return rc;
}

static int chunk_bits(struct group_tx *at, uint64_t chunk, uint64_t bits[CHUNK_WORDS])
{
	const le64 *words;
	int rc = line_get(at, chunk, &words);

	for (unsigned i = 0; i < CHUNK_WORDS && !rc; i++)
		bits[i] = le64_get(words[i]);
	return rc;
}

/* What the bitmap says is free in [lo, hi) of one chunk. Under g->lock. */
static uint32_t part_give(struct group *g, const uint64_t bits[CHUNK_WORDS], uint64_t lo, uint64_t hi)
{
	uint32_t whole = 0;

	while (lo < hi) {
		unsigned first = lo % CHUNK_BLOCKS,
			 free = bits_clear_run(bits, first, first + (unsigned)(hi - lo));

		for (uint64_t end = lo + free, n; lo < end; lo += n) {
			bool kept;

			n = kept_run(g, lo, end, &kept);
			if (!kept)
				whole += index_give(&g->index, lo, n);
		}
		lo += free > 0 ? 0 : 1;
	}
	return whole;
}

/* With the group's lock, shared: nobody's commit changes the bitmap meanwhile. It may be left in the middle and called again. */
static int group_open(struct txn *tx, void *arg)
{
	struct group *g = arg;
	struct group_tx *at;
	int rc = group_enter(tx, g->agno, &at);

	while (!rc && g->closed_lo < g->closed_hi) {
		uint64_t lo = g->closed_lo,
			 hi = u64_min(g->closed_hi, u64_align_down(lo, CHUNK_BLOCKS) + CHUNK_BLOCKS);
		uint64_t bits[CHUNK_WORDS];
		uint32_t whole;

		rc = chunk_bits(at, lo / CHUNK_BLOCKS, bits);
		if (rc)
			break;
		pthread_mutex_lock(&g->lock);
		whole = part_give(g, bits, lo, hi);
		g->closed_lo = hi;
		pthread_mutex_unlock(&g->lock);
		atomic_fetch_add(&g->space->chunk_epoch, whole);
		atomic_fetch_add(&g->space->freed, 1);
	}
	return rc;
}

int space_open_range(struct pool *pool)
{
	struct space *space = space_of(pool);
	int rc = 0;

	for (uint32_t i = 0; i < space->ag_count && !rc; i++) {
		struct group *g = &space->groups[i];

		if (g->closed_lo < g->closed_hi)
			rc = txn_run(pool, TXN_READ, group_open, g);
		if (rc)
			break;
		pthread_mutex_lock(&g->lock);
		g->closed_lo = g->closed_hi = 0;
		pthread_mutex_unlock(&g->lock);
	}
	return rc;
}

bool group_is_closed(struct group *g, uint64_t blk)
{
	bool closed;

	pthread_mutex_lock(&g->lock);
	closed = blk - g->start_blk >= g->closed_lo && blk - g->start_blk < g->closed_hi;
	pthread_mutex_unlock(&g->lock);
	return closed;
}

int closed_alloc_at(struct txn *tx, struct group *g, uint64_t blk)
{
	uint64_t bits[CHUNK_WORDS], rel = blk - g->start_blk;
	struct group_tx *at;
	int rc = group_enter(tx, g->agno, &at);

	if (!rc)
		rc = chunk_bits(at, rel / CHUNK_BLOCKS, bits);
	if (rc)
		return rc;
	return bits[rel % CHUNK_BLOCKS / 64] >> rel % 64 & 1 ? -EBUSY : 0;
}

int space_closed_free(struct txn *tx, uint64_t blk, uint64_t end_blk, uint64_t *run_blk, uint64_t *count_blk)
{
	struct space *space = space_of(txn_pool(tx));
	uint64_t bits[CHUNK_WORDS], run = 0;
	struct group_tx *at;

	while (blk < end_blk) {
		struct group *g = &space->groups[pool_blk_ag(space->pool, blk)];
		uint64_t rel = blk - g->start_blk,
			 stop = u64_min(end_blk, u64_align_down(blk, CHUNK_BLOCKS) + CHUNK_BLOCKS);
		unsigned first = rel % CHUNK_BLOCKS, n;
		int rc;

		if (run > 0 && (rel == 0 || run + CHUNK_BLOCKS > SPACE_PIECE_BLK / 2))
			break; /* of one group, of two units of its bitmap */
		rc = group_enter(tx, g->agno, &at);
		if (!rc)
			rc = chunk_bits(at, rel / CHUNK_BLOCKS, bits);
		if (rc)
			return rc;
		n = bits_clear_run(bits, first, first + (unsigned)(stop - blk));
		if (run == 0)
			*run_blk = blk;
		run += n;
		blk += n;
		if (run > 0 && blk < stop)
			break;
		while (run == 0 && blk < stop &&
		       bits[blk % CHUNK_BLOCKS / 64] >> blk % 64 & 1) /* groups begin with a chunk */
			blk++;
	}
	*count_blk = run;
	return run > 0 ? 0 : -ENOENT;
}

void space_room(struct pool *pool, uint64_t *free_blk, uint64_t *whole_chunks)
{
	struct space *space = space_of(pool);

	*free_blk = *whole_chunks = 0;
	for (uint32_t i = 0; i < space->ag_count; i++) {
		struct group *g = &space->groups[i];

		if (group_load(g) != 0)
			continue;
		pthread_mutex_lock(&g->lock);
		*free_blk += index_data_blk(&g->index);
		*whole_chunks += g->index.whole_count;
		pthread_mutex_unlock(&g->lock);
	}
}
