/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Growing, cut at every fence, and at those of the mounts that finish it: alone, twice, and with every other operation before it, after it
 * and in the middle of it. The other operations of a run are a part of all, which one depends on the seed; UMBRA_CRASH_STATES=N: all
 * of them, in N states each.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "crash/grow.h"

#define PART 4u /* one of so many operations */

static uint64_t seed;

int __real_format_groups(struct dax *dax, const struct super *super, uint32_t first_agno);
int __wrap_format_groups(struct dax *dax, const struct super *super, uint32_t first_agno);
int __wrap_format_groups(struct dax *dax, const struct super *super, uint32_t first_agno)
{
	int rc = __real_format_groups(dax, super, first_agno);

	grow_middle();
	return rc;
}

static void stats_print(const char *name, const struct grow_stats *s)
{
	print_message("# %s: %" PRIu64 " fences, %" PRIu64 " images (%" PRIu64 " crashed again, %" PRIu64
		      " once more), seen %" PRIu64 " times with the old size, %" PRIu64 " with the new one\n",
		      name, s->crash.fences, s->crash.images, s->crash.again, s->crash.third, s->old,
		      s->grown);
}

static void test_alone(void **state)
{
	const struct crash_opts opts = { .seed = seed, .images = 12, .deep = true };
	const struct grow_shape *shape = *state;
	struct grow_stats stats;

	assert_true(grow_run(shape, &opts, GROW_ALONE, &file_states[seed % file_state_count], NULL, &stats));
	stats_print(shape->name, &stats);
	assert_true(stats.old > 0 && stats.grown > 0);
}

static void test_twice(void **state)
{
	const struct crash_opts opts = { .seed = seed, .images = 8, .deep = true };

	(void)state;
	for (unsigned i = 0; i < grow_shape_count; i++) {
		struct grow_stats stats;

		if (!grow_shapes[i].step)
			continue;
		assert_true(grow_run(&grow_shapes[i], &opts, GROW_TWICE,
				     &file_states[(seed + i) % file_state_count], NULL, &stats));
		assert_true(stats.old > 0 && stats.grown > 0);
	}
}

static const struct {
	const char *name;
	enum grow_order order;
} orders[] = {
	{ "after-others", GROW_AFTER_IT },
	{ "before-others", GROW_BEFORE_IT },
	{ "around-others", GROW_AROUND_IT },
};

static void test_others(void **state)
{
	const struct crash_opts opts = { .seed = seed, .images = 3, .all = 6 };
	const char *given = getenv("UMBRA_CRASH_STATES");
	unsigned states = given ? (unsigned)strtoul(given, NULL, 0) : 1;
	uint64_t random = seed, images = 0;
	bool ok = true;

	for (unsigned i = 0; i < scene_op_count(); i++) {
		uint64_t at = testfs_random(&random);

		if (!given && at % PART != 0)
			continue;
		at /= PART;
		for (unsigned k = 0; k < states; k++) {
			struct grow_stats stats;

			ok &= grow_run(&grow_shapes[(at >> 8) % grow_shape_count], &opts,
				       *(const enum grow_order *)*state,
				       &file_states[(at + k * 5) % file_state_count], scene_op(i), &stats);
			images += stats.crash.images;
		}
	}
	print_message("# %" PRIu64 " images\n", images);
	assert_true(ok);
}

int main(void)
{
	struct CMUnitTest tests[16] = { 0 };
	size_t count = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	seed = testfs_seed();
	for (unsigned i = 0; i < grow_shape_count; i++)
		tests[count++] = (struct CMUnitTest){
			.name = grow_shapes[i].name,
			.test_func = test_alone,
			.initial_state = (void *)(uintptr_t)&grow_shapes[i],
		};
	tests[count++] = (struct CMUnitTest){ .name = "twice", .test_func = test_twice };
	for (unsigned i = 0; i < ARRAY_SIZE(orders); i++)
		tests[count++] = (struct CMUnitTest){
			.name = orders[i].name,
			.test_func = test_others,
			.initial_state = (void *)(uintptr_t)&orders[i].order,
		};
	return _cmocka_run_group_tests("crash_grow", tests, count, NULL, NULL);
}
