/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Every operation on file data in every state of the file, cut at every fence.
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

	for (unsigned i = 0; i < file_state_count; i++)
		ok &= scene_run(suite_pool(), &file_states[i], op);
	assert_true(ok);
}

int main(void)
{
	struct CMUnitTest *tests = calloc(file_op_count, sizeof(*tests));
	struct crash_opts opts = { .images = 100, .all = 1000 };
	int failed;

	for (unsigned i = 0; tests && i < file_op_count; i++)
		tests[i] = (struct CMUnitTest){
			.name = file_ops[i].name,
			.test_func = test_op,
			.initial_state = (void *)(uintptr_t)&file_ops[i],
		};
	failed = suite_main(&opts, tests, file_op_count);
	free(tests);
	return failed;
}
