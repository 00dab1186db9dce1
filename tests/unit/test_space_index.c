/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The index of free blocks against a plain array of flags. UMBRA_SEED replays a run.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/space_check.h"
#include "space/bits.h"
#include "space/index.h"

#define CHUNKS 70u /* more than one word of the set of whole chunks */
#define BLOCKS (CHUNKS * CHUNK_BLOCKS)

struct world {
	struct space_rng rng;
	struct index x;
	uint8_t taken[BLOCKS];
};

static uint64_t pick(struct world *w, uint64_t below)
{
	return space_random(&w->rng, below);
}

static struct world *world_make(uint32_t keep, uint32_t spare)
{
	const uint64_t none[CHUNK_WORDS] = { 0 };
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	w->rng.state = space_seed();
	assert_int_equal(index_init(&w->x, CHUNKS), 0);
	w->x.keep = keep;
	w->x.spare = spare;
	for (uint32_t i = 0; i < CHUNKS; i++)
		index_load_chunk(&w->x, i, none);
	return w;
}

static void world_free(struct world *w)
{
	index_destroy(&w->x);
	free(w);
}

static void mark(struct world *w, uint64_t blk, uint64_t count, uint8_t taken)
{
	for (uint64_t b = blk; b < blk + count; b++) {
		assert_int_equal(w->taken[b], !taken);
		w->taken[b] = taken;
	}
	if (taken)
		index_take(&w->x, blk, count);
	else
		index_give(&w->x, blk, count);
}

static uint64_t longest_in_chunk(const struct world *w, uint32_t chunk, uint64_t *free)
{
	uint64_t run = 0, best = 0;

	*free = 0;
	for (unsigned i = 0; i < CHUNK_BLOCKS; i++) {
		run = w->taken[chunk * CHUNK_BLOCKS + i] ? 0 : run + 1;
		*free += run > 0;
		best = u64_max(best, run);
	}
	return best;
}

/* The summary of each chunk and the sums fit the flags. */
static void compare(const struct world *w)
{
	uint64_t sum = 0;
	uint32_t whole = 0;

	for (uint32_t c = 0; c < CHUNKS; c++) {
		uint64_t free, longest = longest_in_chunk(w, c, &free);

		sum += free;
		whole += free == CHUNK_BLOCKS;
		assert_int_equal(w->x.free[c], free);
		assert_int_equal(w->x.whole[c / 64] >> c % 64 & 1, free == CHUNK_BLOCKS);
		if (free == 0)
			assert_int_equal(w->x.class[c], INDEX_FULL);
		else if (free == CHUNK_BLOCKS)
			assert_int_equal(w->x.class[c], INDEX_WHOLE);
		else
			assert_true(longest >> w->x.class[c] == 1);
	}
	assert_int_equal(sum, w->x.free_blk);
	assert_int_equal(whole, w->x.whole_count);
	for (unsigned k = 0; k < INDEX_CLASSES; k++) {
		for (uint16_t c = w->x.head[k]; c != INDEX_NIL; c = w->x.next[c])
			assert_int_equal(w->x.class[c], k);
	}
}

static uint64_t longest_anywhere(const struct world *w)
{
	uint64_t run = 0, best = 0;

	for (uint64_t b = 0; b < BLOCKS; b++) {
		run = w->taken[b] ? 0 : run + 1;
		best = u64_max(best, run);
	}
	return best;
}

static void take_some(struct world *w)
{
	struct index_want want = {
		.goal_blk = pick(w, 2) ? INDEX_NONE : pick(w, BLOCKS),
		.count_blk = pick(w, 4) == 0 ? 1 + pick(w, 3000) : 1 + pick(w, 64),
		.all = pick(w, 3) == 0,
		.worn = pick(w, 2),
	};
	uint32_t whole = w->x.whole_count, keep = w->x.keep;
	uint64_t blk, count;

	if (!index_find(&w->x, &want, &blk, &count)) {
		if (want.worn && want.all && keep == 0)
			assert_true(longest_anywhere(w) < want.count_blk);
		if (want.worn && !want.all)
			assert_int_equal(index_data_blk(&w->x), 0);
		return;
	}
	assert_true(count >= 1 && count <= want.count_blk && blk + count <= BLOCKS);
	if (want.all)
		assert_int_equal(count, want.count_blk);
	mark(w, blk, count, 1);
	/* The chunks that are kept stay whole. */
	assert_true(w->x.whole_count >= keep || w->x.whole_count == whole);
}

static void give_some(struct world *w)
{
	uint64_t start = pick(w, BLOCKS), max = pick(w, 3) == 0 ? 2000 : 40, count = 0;

	while (start < BLOCKS && !w->taken[start])
		start++;
	while (start + count < BLOCKS && count < max && w->taken[start + count])
		count++;
	if (count > 0)
		mark(w, start, count, 0);
}

static void random_run(uint32_t keep, uint32_t spare)
{
	struct world *w = world_make(keep, spare);
	bool filling = true;

	for (unsigned i = 0; i < 30000; i++) {
		if (pick(w, 500) == 0)
			filling = !filling;
		if (pick(w, 10) < (filling ? 7 : 3))
			take_some(w);
		else
			give_some(w);
		if (i % 500 == 0)
			compare(w);
	}
	compare(w);
	world_free(w);
}

static void test_random(void **state)
{
	(void)state;
	random_run(0, 0);
	random_run(5, 0);
	random_run(3, 12);
}

static void test_large_requests_take_aligned_chunks(void **state)
{
	struct world *w = world_make(0, 0);
	struct index_want want = { .goal_blk = INDEX_NONE, .count_blk = 3 * CHUNK_BLOCKS };
	uint64_t blk, count;

	(void)state;
	mark(w, 2 * CHUNK_BLOCKS + 7, 1, 1); /* breaks the first run of three */
	assert_true(index_find(&w->x, &want, &blk, &count));
	assert_int_equal(blk, 3 * CHUNK_BLOCKS);
	assert_int_equal(count, 3 * CHUNK_BLOCKS);
	world_free(w);
}

static void test_small_requests_stay_in_broken_chunks(void **state)
{
	struct world *w = world_make(0, 0);
	struct index_want want = { .goal_blk = INDEX_NONE, .count_blk = 5 };
	uint64_t blk, count;

	(void)state;
	mark(w, 40 * CHUNK_BLOCKS, 1, 1);
	for (unsigned i = 0; i < 100; i++) {
		assert_true(index_find(&w->x, &want, &blk, &count));
		assert_int_equal(blk / CHUNK_BLOCKS, 40);
		assert_int_equal(count, 5);
		mark(w, blk, count, 1);
	}
	assert_int_equal(w->x.whole_count, CHUNKS - 1);
	world_free(w);
}

static void test_spare_chunks_are_taken_last(void **state)
{
	struct world *w = world_make(1, 4);
	struct index_want want = { .goal_blk = INDEX_NONE, .count_blk = 512 };
	uint64_t blk, count;

	(void)state;
	for (uint32_t c = 5; c < CHUNKS; c++)
		mark(w, (uint64_t)c * CHUNK_BLOCKS + (c == 50 ? 100 : 0),
		     c == 50 ? CHUNK_BLOCKS - 100 : CHUNK_BLOCKS, 1);
	assert_false(index_find(&w->x, &want, &blk, &count));
	want.worn = true;
	assert_true(index_find(&w->x, &want, &blk, &count));
	assert_int_equal(blk, 50 * CHUNK_BLOCKS);
	assert_int_equal(count, 100);
	mark(w, blk, count, 1);
	for (unsigned left = 4; left > 0; left--) {
		assert_true(index_find(&w->x, &want, &blk, &count));
		assert_int_equal(count, CHUNK_BLOCKS);
		mark(w, blk, count, 1);
	}
	assert_false(index_find(&w->x, &want, &blk, &count));
	assert_int_equal(w->x.whole_count, 1);
	world_free(w);
}

static void test_bits_of_a_chunk(void **state)
{
	struct bits512 run;

	(void)state;
	for (unsigned first = 0; first < CHUNK_BLOCKS; first += 37) {
		for (unsigned count = 1; first + count <= CHUNK_BLOCKS; count += 29) {
			memset(&run, 0, sizeof(run));
			assert_int_equal(bits_set(run.w, first, count), count);
			assert_int_equal(bits_count(run.w, 0, CHUNK_BLOCKS), count);
			assert_int_equal(bits_clear_run(run.w, 0, CHUNK_BLOCKS), first);
			bits512_runs(&run, count);
			assert_int_equal(bits_count(run.w, 0, CHUNK_BLOCKS), 1);
			assert_int_equal(bits512_first(&run), first);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bits_of_a_chunk),
		cmocka_unit_test(test_large_requests_take_aligned_chunks),
		cmocka_unit_test(test_small_requests_stay_in_broken_chunks),
		cmocka_unit_test(test_spare_chunks_are_taken_last),
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests_name("space index", tests, NULL, NULL);
}
