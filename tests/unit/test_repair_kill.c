/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Repair that is killed at a store: the next run finishes the work, with the same result as if there had been no first one.
 *
 *	UMBRA_SEED=N             that run again
 *	UMBRA_KILL_ALL=1         at each store (long), not at some of them
 *	UMBRA_MATRIX_ONLY=TEXT   units with this in their name
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "repair_scene.h"

#define SOME_STORES 8u /* of each repair, beside the last one */

static uint64_t seed;

/* The stores of a repair, in their order; src NULL in them: zeroes. */
struct tape {
	struct tape_store {
		uint64_t off;
		size_t len, at;
	} * stores;
	size_t count, room;
	uint8_t *bytes;
	size_t used, size;
};

static void tape_add(struct tape *tape, uint64_t off, const void *src, size_t len)
{
	if (tape->count == tape->room) {
		tape->room = tape->room ? tape->room * 2 : 256;
		tape->stores = realloc(tape->stores, tape->room * sizeof(*tape->stores));
	}
	if (tape->size - tape->used < len) {
		tape->size = (tape->used + len) * 2;
		tape->bytes = realloc(tape->bytes, tape->size);
	}
	assert_true(tape->stores && tape->bytes);
	tape->stores[tape->count++] = (struct tape_store){ off, len, tape->used };
	if (src)
		memcpy(tape->bytes + tape->used, src, len);
	else
		memset(tape->bytes + tape->used, 0, len);
	tape->used += len;
}

static void on_store(void *ctx, uint64_t off, const void *src, size_t len)
{
	tape_add(ctx, off, src, len);
}

static void on_zero(void *ctx, uint64_t off, size_t len)
{
	tape_add(ctx, off, NULL, len);
}

static void on_fence(void *ctx)
{
	(void)ctx;
}

/* The first count stores, and if torn a half of the one after them. */
static void tape_play(const struct tape *tape, struct scene_image *im, size_t count, bool torn)
{
	for (size_t i = 0; i < count + torn; i++) {
		const struct tape_store *st = &tape->stores[i];

		scene_image_mark(im, st->off, st->len);
		memcpy(im->bytes + st->off, tape->bytes + st->at, i < count ? st->len : st->len / 2);
	}
}

static bool killed_at(const struct scene *s, const struct scene_unit *u, const struct tape *tape,
		      size_t count, bool torn, struct scene_image *im)
{
	uint64_t no_random = 0;
	struct scene_run run;
	char why[512] = "";
	bool fine;

	scene_image_reset(s, im);
	assert_true(scene_damage(s, im, u, SCENE_ZERO, 3, &no_random));
	tape_play(tape, im, count, torn);
	scene_repair(&run, im, NULL, false);
	if (run.rc || run.report.after.findings) {
		fine = false;
		snprintf(why, sizeof(why), "rc %d, %llu findings left, %s", run.rc,
			 (unsigned long long)run.report.after.findings, run.why);
	} else {
		fine = scene_is_mended(s, im, u, SCENE_ZERO, 3, NULL, why, sizeof(why));
	}
	if (!fine)
		print_message("# %s, killed after %zu of %zu stores%s: %s\n", u->name, count, tape->count,
			      torn ? " and a half" : "", why);
	scene_run_free(&run);
	return fine;
}

/* Both copies are lost, so that there is something to do. */
static unsigned unit_run(const struct scene *s, const struct scene_unit *u, struct scene_image *im,
			 uint64_t *random)
{
	struct tape tape = { 0 };
	const struct dax_trace trace = { on_store, on_zero, on_fence, &tape };
	bool all = getenv("UMBRA_KILL_ALL") != NULL;
	struct scene_run run;
	unsigned bad = 0;

	scene_image_reset(s, im);
	assert_true(scene_damage(s, im, u, SCENE_ZERO, 3, random));
	scene_repair(&run, im, &trace, false);
	scene_run_free(&run);
	assert_true(tape.count > 1);
	for (size_t k = 0; all && k < tape.count; k++)
		bad += !killed_at(s, u, &tape, k, k % 2, im);
	for (unsigned i = 0; !all && i < SOME_STORES; i++) {
		/* Some at the end, where the pieces are put together. */
		uint64_t back = testfs_below(random, i % 2 ? tape.count : u64_min(tape.count, 40));

		bad += !killed_at(s, u, &tape, tape.count - 1 - back, i & 2, im);
	}
	free(tape.stores);
	free(tape.bytes);
	return bad;
}

static void test_killed(void **state)
{
	struct scene_image im;
	const char *only = getenv("UMBRA_MATRIX_ONLY");
	uint64_t random = seed;
	struct scene s;
	unsigned bad = 0;

	(void)state;
	scene_make(&s, false);
	scene_image_make(&s, &im);
	for (unsigned i = 0; i < s.unit_count; i++) {
		if (!only || strstr(s.units[i].name, only))
			bad += unit_run(&s, &s.units[i], &im, &random);
	}
	assert_int_equal(bad, 0);
	scene_image_free(&im);
	scene_free(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_killed),
	};

	seed = testfs_seed();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
