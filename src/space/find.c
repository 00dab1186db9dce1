/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where the next run of blocks comes from: the search in the index of one group.
 */
#include "space/index.h"

#include "space/bits.h"

/* A piece that continues the file is worth having from this length on, even if more was wanted. */
#define GOAL_MIN_BLK 16u

/* A hole shorter than this is worse for a large piece than breaking into the spare chunks. */
#define HOLE_MIN_BLK 16u

uint64_t index_run_at(const struct index *x, uint64_t blk, uint64_t max_blk, uint32_t budget)
{
	uint64_t run = 0;

	while (run < max_blk && (blk + run) / CHUNK_BLOCKS < x->chunks) {
		uint32_t chunk = (uint32_t)((blk + run) / CHUNK_BLOCKS);
		unsigned first = (blk + run) % CHUNK_BLOCKS, n;

		if (x->class[chunk] == INDEX_WHOLE && budget-- == 0)
			break;
		n = bits_clear_run(x->bits[chunk], first, CHUNK_BLOCKS);
		run += n;
		if (first + n < CHUNK_BLOCKS)
			break;
	}
	return u64_min(run, max_blk);
}

/* First wholly free chunk at or after chunk; x->chunks if there is none. */
static uint32_t whole_from(const struct index *x, uint32_t chunk)
{
	while (chunk < x->chunks) {
		uint64_t rest = x->whole[chunk / 64] >> chunk % 64;

		if (rest) {
			chunk += (uint32_t)__builtin_ctzll(rest);
			break;
		}
		chunk = (chunk / 64 + 1) * 64;
	}
	return chunk < x->chunks ? chunk : x->chunks;
}

/* How many wholly free chunks follow each other from chunk on, at most max. */
static uint32_t whole_run(const struct index *x, uint32_t chunk, uint32_t max)
{
	uint32_t run = 0;

	while (run < max && chunk + run < x->chunks) {
		uint64_t taken = ~x->whole[(chunk + run) / 64] >> (chunk + run) % 64;

		if (taken == 0) {
			run += 64 - (chunk + run) % 64;
			continue;
		}
		run += (uint32_t)__builtin_ctzll(taken);
		break;
	}
	if (chunk + run > x->chunks)
		run = x->chunks - chunk;
	return run < max ? run : max;
}

/* Whole chunks for a large request: the first run that is long enough, looking from the goal on and then from the start; else the longest. */
static bool find_chunks(const struct index *x, const struct index_want *want, uint32_t budget, uint64_t *blk,
			uint64_t *count_blk)
{
	uint32_t need = (uint32_t)u64_min(u64_div_up(want->count_blk, CHUNK_BLOCKS), UINT32_MAX);
	uint32_t best = 0, best_run = 0;
	uint32_t start = want->goal_blk == INDEX_NONE ? 0 : (uint32_t)(want->goal_blk / CHUNK_BLOCKS);

	if (need > budget)
		need = budget;
	for (unsigned round = 0; round < 2 && best_run < need; round++) {
		uint32_t chunk = round == 0 ? start : 0, end = round == 0 ? x->chunks : start;

		for (chunk = whole_from(x, chunk); chunk < end && best_run < need;) {
			uint32_t run = whole_run(x, chunk, need);

			if (run > best_run) {
				best = chunk;
				best_run = run;
			}
			chunk = whole_from(x, chunk + run);
		}
	}
	if (best_run == 0 || (want->all && (uint64_t)best_run * CHUNK_BLOCKS < want->count_blk))
		return false;
	*blk = (uint64_t)best * CHUNK_BLOCKS;
	*count_blk = u64_min(want->count_blk, (uint64_t)best_run * CHUNK_BLOCKS);
	return true;
}

/* The lowest run of count blocks in a chunk that has one. */
static uint64_t chunk_find(const struct index *x, uint32_t chunk, unsigned count)
{
	struct bits512 run;

	for (unsigned i = 0; i < CHUNK_WORDS; i++)
		run.w[i] = ~x->bits[chunk][i];
	bits512_runs(&run, count);
	if (bits512_is_zero(&run))
		return INDEX_NONE;
	return (uint64_t)chunk * CHUNK_BLOCKS + bits512_first(&run);
}

/* A hole of a partly used chunk: the smallest class that surely has it. */
static bool find_hole(const struct index *x, uint64_t count, uint64_t *blk)
{
	unsigned class = 0;

	while (1ull << class < count)
		class ++;
	for (; class < INDEX_CLASSES; class ++) {
		if (x->head[class] != INDEX_NIL) {
			*blk = chunk_find(x, x->head[class], (unsigned)count);
			return true;
		}
	}
	return false;
}

/* The longest hole of a partly used chunk, give or take a factor of two. */
static bool find_worn(const struct index *x, uint64_t max_blk, uint64_t *blk, uint64_t *count_blk)
{
	for (unsigned class = INDEX_CLASSES; class -- > 0;) {
		if (x->head[class] != INDEX_NIL) {
			*blk = chunk_find(x, x->head[class], 1u << class);
			*count_blk = index_run_at(x, *blk, max_blk, 0);
			return true;
		}
	}
	return false;
}

/* From blk on over taken blocks, at most to the end of the chunk. */
static uint64_t skip_taken(const struct index *x, uint64_t blk)
{
	const uint64_t *words = x->bits[blk / CHUNK_BLOCKS];
	uint64_t end = u64_align_down(blk, CHUNK_BLOCKS) + CHUNK_BLOCKS;

	while (blk < end) {
		uint64_t rest = ~words[blk % CHUNK_BLOCKS / 64] >> blk % 64;

		if (rest)
			return blk + (uint64_t)__builtin_ctzll(rest);
		blk = u64_align_down(blk, 64) + 64;
	}
	return end;
}

/* Any run that is long enough, by looking at all blocks: the last try where all must be in one piece. */
static bool find_anywhere(const struct index *x, uint64_t count, uint64_t *blk)
{
	uint64_t at = 0, end = (uint64_t)x->chunks * CHUNK_BLOCKS;

	while (at < end) {
		unsigned class = x->class[at / CHUNK_BLOCKS];
		uint64_t run;

		if (class == INDEX_FULL || (class == INDEX_WHOLE && index_budget(x) == 0)) {
			at = u64_align_down(at, CHUNK_BLOCKS) + CHUNK_BLOCKS;
			continue;
		}
		run = index_run_at(x, at, count, index_budget(x));
		if (run >= count) {
			*blk = at;
			return true;
		}
		at = run > 0 ? at + run : skip_taken(x, at);
	}
	return false;
}

/* Whatever there is: a hole, or one of the spare chunks if there is none or it is short. */
static bool find_rest(const struct index *x, const struct index_want *want, uint64_t *blk,
		      uint64_t *count_blk)
{
	uint64_t count = want->count_blk;
	bool hole = find_worn(x, count, blk, count_blk);
	uint32_t budget = index_budget(x);

	if (hole && (*count_blk == count || *count_blk >= HOLE_MIN_BLK || budget <= x->spare / 2))
		return true;
	if (find_chunks(x, want, budget, blk, count_blk))
		return true;
	return hole;
}

bool index_find(const struct index *x, const struct index_want *want, uint64_t *blk, uint64_t *count_blk)
{
	uint64_t count = want->count_blk, run;
	uint32_t budget = index_open_budget(x);

	if (want->goal_blk != INDEX_NONE && want->goal_blk / CHUNK_BLOCKS < x->chunks) {
		run = index_run_at(x, want->goal_blk, count, budget);
		if (run == count || (!want->all && run >= GOAL_MIN_BLK)) {
			*blk = want->goal_blk;
			*count_blk = run;
			return true;
		}
	}
	if (count < CHUNK_BLOCKS && find_hole(x, count, blk)) {
		*count_blk = count;
		return true;
	}
	if (find_chunks(x, want, budget, blk, count_blk))
		return true;
	if (!want->worn)
		return false;
	*count_blk = count;
	return want->all ? find_anywhere(x, count, blk) : find_rest(x, want, blk, count_blk);
}

uint64_t index_whole_chunk(const struct index *x, bool highest)
{
	uint32_t first = whole_from(x, 0);

	if (first == x->chunks)
		return INDEX_NONE;
	if (!highest)
		return first;
	for (uint64_t i = u64_div_up(x->chunks, 64); i-- > 0;) {
		if (x->whole[i])
			return i * 64 + 63 - (uint64_t)__builtin_clzll(x->whole[i]);
	}
	return INDEX_NONE;
}
