/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Operations that take several transactions, cut at every fence of each: what is seen is the state before or the one after.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "crash/scenes.h"

static void test_op(void **state)
{
	const struct scene_op *op = *state;
	bool ok = true;

	for (unsigned i = 0; i < many_state_count; i++)
		ok &= scene_run(suite_pool(), &many_states[i], op);
	assert_true(ok);
}

/* The others would see nothing if their files had too few extents. */
static void test_there_were_intents(void **state)
{
	(void)state;
	if (getenv("UMBRA_CRASH_ONLY"))
		skip();
	assert_true(crash_stats(suite_pool())->intents > 100);
}

int main(void)
{
	struct CMUnitTest *tests = calloc(file_op_count + 1, sizeof(*tests));
	struct crash_opts opts = {
		.size_bytes = (uint64_t)64 << 20,
		.format = { .lane_size_bytes = 256 << 10 }, /* as small as can be */
		.images = 4,
	};
	unsigned count = 0;
	int failed;

	for (unsigned i = 0; tests && i < file_op_count; i++) {
		if (!scene_op_is_long(&file_ops[i]))
			continue;
		tests[count++] = (struct CMUnitTest){
			.name = file_ops[i].name,
			.test_func = test_op,
			.initial_state = (void *)(uintptr_t)&file_ops[i],
		};
	}
	tests[count++] = (struct CMUnitTest)cmocka_unit_test(test_there_were_intents);
	failed = suite_main(&opts, tests, count);
	free(tests);
	return failed;
}
