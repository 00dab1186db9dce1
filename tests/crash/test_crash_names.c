/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Every operation on names and attributes, cut at every fence.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "crash/scenes.h"

static void test_op(void **state)
{
	assert_true(scene_run(suite_pool(), NULL, *state));
}

int main(void)
{
	struct CMUnitTest *tests = calloc(name_op_count, sizeof(*tests));
	struct crash_opts opts = { .images = 400, .all = 4000 };
	int failed;

	for (unsigned i = 0; tests && i < name_op_count; i++)
		tests[i] = (struct CMUnitTest){
			.name = name_ops[i].name,
			.test_func = test_op,
			.initial_state = (void *)(uintptr_t)&name_ops[i],
		};
	failed = suite_main(&opts, tests, name_op_count);
	free(tests);
	return failed;
}
