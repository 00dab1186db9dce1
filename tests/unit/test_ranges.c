/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Ordered sets of ranges against a plain array; without memory; read while they change; a million of them. UMBRA_SEED replays a run.
 */
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <urcu/urcu-memb.h>

#include <cmocka.h>

#include "registry/ranges.h"

void thread_register(void);

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);

static _Thread_local unsigned fail_at; /* the so-manyth from now on fails; 0: none */

static bool fails(void)
{
	return fail_at > 0 && --fail_at == 0;
}

void *__wrap_malloc(size_t size)
{
	return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	return fails() ? NULL : __real_calloc(count, size);
}

static uint64_t rng;

static void seed(void)
{
	const char *given = getenv("UMBRA_SEED");

	rng = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) * 2654435761u;
	printf("# UMBRA_SEED=%llu\n", (unsigned long long)rng);
}

static uint64_t pick(uint64_t below)
{
	uint64_t x = rng += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return (x ^ x >> 31) % below;
}

/* ---- model ---- */

#define BLOCKS 6000u
#define MOST 400u

struct world {
	struct ranges *r;
	uint64_t count;          /* of ranges */
	uint32_t start[BLOCKS];  /* first block + 1 of the range that covers the block; 0: none */
	uint32_t length[BLOCKS]; /* at its first block */
	uint64_t value[BLOCKS];
};

static void compare_at(const struct world *w, uint64_t blk)
{
	struct range found;
	bool is = ranges_find(w->r, blk, &found);

	while (blk < BLOCKS && !w->start[blk])
		blk++;
	assert_int_equal(is, blk < BLOCKS);
	if (!is)
		return;
	assert_int_equal(found.blk, w->start[blk] - 1);
	assert_int_equal(found.count_blk, w->length[found.blk]);
	assert_int_equal(found.value, w->value[found.blk]);
	assert_int_equal(found.tag, (uint32_t)found.value * 3);
}

static void compare(const struct world *w)
{
	struct range found;
	uint64_t count = 0;

	for (uint64_t blk = 0; ranges_find(w->r, blk, &found); blk = found.blk + found.count_blk) {
		assert_true(found.blk >= blk);
		compare_at(w, found.blk);
		count++;
	}
	assert_int_equal(count, w->count);
	assert_int_equal(ranges_count(w->r), w->count);
	for (unsigned i = 0; i < 50; i++)
		compare_at(w, pick(BLOCKS));
}

/* lo and hi move so that they cut no range. */
static void borders(const struct world *w, uint64_t *lo, uint64_t *hi)
{
	while (*lo > 0 && w->start[*lo] && w->start[*lo] - 1 < *lo)
		--*lo;
	while (*hi < BLOCKS && w->start[*hi] && w->start[*hi] - 1 < *hi)
		++*hi;
}

/* What comes into [lo, hi): dense, sparse or nothing. */
static unsigned entries_make(uint64_t lo, uint64_t hi, struct range *entries)
{
	unsigned count = 0, longest = (unsigned)pick(4) * 3 + 1, gap = (unsigned)pick(3) * 2;
	bool none = pick(4) == 0;

	for (uint64_t blk = lo; blk < hi && count < MOST && !none;) {
		uint64_t value = pick(1000000), length = 1 + pick(longest);

		blk += gap ? pick(gap) : 0;
		if (blk + length > hi)
			break;
		entries[count++] = (struct range){
			.blk = blk, .count_blk = (uint32_t)length, .tag = (uint32_t)value * 3, .value = value
		};
		blk += length;
	}
	return count;
}

static void model_replace(struct world *w, uint64_t lo, uint64_t hi, const struct range *entries,
			  unsigned count)
{
	for (uint64_t b = lo; b < hi && b < BLOCKS; b++) {
		w->count -= w->start[b] == b + 1;
		w->start[b] = 0;
	}
	for (unsigned i = 0; i < count; i++) {
		for (uint64_t b = entries[i].blk; b < entries[i].blk + entries[i].count_blk; b++)
			w->start[b] = (uint32_t)entries[i].blk + 1;
		w->length[entries[i].blk] = entries[i].count_blk;
		w->value[entries[i].blk] = entries[i].value;
	}
	w->count += count;
}

static void step(struct world *w)
{
	uint64_t size = pick(3) == 0 ? BLOCKS / 2 : 40, lo = pick(BLOCKS), hi = lo + 1 + pick(size);
	struct range entries[MOST];
	unsigned count;
	int rc;

	hi = u64_min(hi, BLOCKS);
	borders(w, &lo, &hi);
	count = entries_make(lo, hi, entries);
	if (hi == BLOCKS && pick(2))
		hi = UINT64_MAX;
	fail_at = pick(3) == 0 ? 1 + (unsigned)pick(6) : 0;
	rc = ranges_replace(w->r, lo, hi, entries, count);
	assert_true(rc == 0 || (rc == -ENOMEM && fail_at == 0));
	fail_at = 0;
	if (!rc)
		model_replace(w, lo, hi, entries, count);
}

static void test_model(void **unused)
{
	struct world *w = calloc(1, sizeof(*w));

	(void)unused;
	seed();
	thread_register();
	assert_non_null(w);
	assert_int_equal(ranges_new(&w->r), 0);
	for (unsigned i = 0; i < 3000; i++) {
		step(w);
		compare(w);
	}
	ranges_free(w->r);
	free(w);
	urcu_memb_barrier();
}

/* All of it, one by one, in and out. */
static void test_grow_shrink(void **unused)
{
	struct ranges *r;
	struct range found;
	uint64_t empty;

	(void)unused;
	thread_register();
	assert_int_equal(ranges_new(&r), 0);
	empty = ranges_bytes(r);
	for (uint64_t i = 0; i < 5000; i++) {
		uint64_t blk = i * 7919 % 5000 * 2;
		struct range one = { .blk = blk, .count_blk = 2, .value = blk };

		assert_int_equal(ranges_replace(r, blk, blk + 2, &one, 1), 0);
	}
	assert_int_equal(ranges_count(r), 5000);
	assert_true(ranges_bytes(r) <= 5000 * 27);
	for (uint64_t i = 0; i < 5000; i++) {
		uint64_t blk = i * 6007 % 5000 * 2;

		assert_true(ranges_find(r, blk + 1, &found));
		assert_int_equal(found.blk, blk);
		assert_int_equal(ranges_replace(r, blk, blk + 2, NULL, 0), 0);
		assert_true(!ranges_find(r, blk, &found) || found.blk > blk);
		assert_true(ranges_bytes(r) <= 200 + ranges_count(r) * 27);
	}
	assert_int_equal(ranges_bytes(r), empty);
	ranges_free(r);
	urcu_memb_barrier();
}

/* ---- readers ---- */

enum { READERS = 3, ROUNDS = 4000 };

struct shared {
	struct ranges *r;
	atomic_bool stop;
	_Atomic unsigned wrong, reads;
};

/* Even hundreds of blocks stay as they are; what is in the others comes and goes. */
static void *reader_run(void *arg)
{
	struct shared *s = arg;
	uint64_t x = (uintptr_t)&x;

	thread_register();
	while (!s->stop) {
		struct range found;
		uint64_t blk;

		x = x * 6364136223846793005ull + 1442695040888963407ull;
		blk = (x >> 33) % 10000;
		urcu_memb_read_lock();
		if (ranges_find(s->r, blk, &found)) {
			if (found.blk + found.count_blk <= blk ||
			    found.value != found.blk * 5 + found.count_blk)
				s->wrong++;
			if (blk / 100 % 2 == 0 && (found.blk > blk || found.count_blk != 10))
				s->wrong++;
		} else if (blk / 100 % 2 == 0) {
			s->wrong++;
		}
		urcu_memb_read_unlock();
		s->reads++;
	}
	return NULL;
}

static struct range valued(uint64_t blk, uint32_t count_blk)
{
	return (struct range){ .blk = blk, .count_blk = count_blk, .value = blk * 5 + count_blk };
}

static void test_readers(void **unused)
{
	struct shared s = { 0 };
	pthread_t readers[READERS];

	(void)unused;
	seed();
	thread_register();
	assert_int_equal(ranges_new(&s.r), 0);
	for (uint64_t blk = 0; blk < 10000; blk += 10) {
		struct range one = valued(blk, 10);

		assert_int_equal(ranges_replace(s.r, blk, blk + 10, &one, 1), 0);
	}
	for (unsigned i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, reader_run, &s), 0);
	for (unsigned i = 0; i < ROUNDS || s.reads < ROUNDS; i++) {
		uint64_t lo = pick(50) * 200 + 100;
		struct range entries[100];
		unsigned count = 0;
		uint32_t size = (uint32_t)pick(4);

		for (uint64_t blk = lo; size > 0 && blk < lo + 100 && blk + size <= lo + 100; blk += size)
			entries[count++] = valued(blk, size);
		assert_int_equal(ranges_replace(s.r, lo, lo + 100, entries, count), 0);
	}
	s.stop = true;
	for (unsigned i = 0; i < READERS; i++)
		pthread_join(readers[i], NULL);
	assert_int_equal(s.wrong, 0);
	ranges_free(s.r);
	urcu_memb_barrier();
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void test_million(void **unused)
{
	enum { COUNT = 1000000, LOOKUPS = 1000000 };
	struct mallinfo2 before, after;
	struct ranges *r;
	struct range found;
	double begin;

	(void)unused;
	seed();
	thread_register();
	before = mallinfo2();
	assert_int_equal(ranges_new(&r), 0);
	for (uint64_t i = 0; i < COUNT; i++) {
		struct range one = { .blk = i * 2, .count_blk = 1, .value = i };

		assert_int_equal(ranges_replace(r, i * 2, i * 2 + 1, &one, 1), 0);
	}
	urcu_memb_barrier();
	after = mallinfo2();
	printf("# %.1f bytes a range, by the allocator %.1f\n", (double)ranges_bytes(r) / COUNT,
	       (double)(after.uordblks - before.uordblks) / COUNT);
	assert_true(ranges_bytes(r) <= 27ull * COUNT);
	assert_true(after.uordblks - before.uordblks < 30ull * COUNT);
	begin = seconds();
	for (unsigned i = 0; i < LOOKUPS; i++) {
		uint64_t blk = pick(COUNT) * 2;

		urcu_memb_read_lock();
		assert_true(ranges_find(r, blk, &found));
		urcu_memb_read_unlock();
		assert_true(found.blk == blk);
	}
	printf("# %.0f ns a lookup\n", (seconds() - begin) * 1e9 / LOOKUPS);
	ranges_free(r);
	urcu_memb_barrier();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_grow_shrink),
		cmocka_unit_test(test_readers),
		cmocka_unit_test(test_million),
	};

	cmocka_set_test_filter(getenv("UMBRA_TEST_ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
