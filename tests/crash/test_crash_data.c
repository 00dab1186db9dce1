/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Every operation on data in every state of a file, cut at every fence.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "crash/scenes.h"

static void test_each(void **state)
{
	struct crash_opts opts = { .seed = testfs_seed() };
	struct crash *c = crash_new(&opts);
	bool ok = true;

	(void)state;
	for (unsigned i = 0; i < file_op_count; i++) {
		for (unsigned k = 0; k < file_state_count; k++)
			ok &= scene_file(c, &file_states[k], &file_ops[i]);
	}
	for (unsigned i = 0; i < name_op_count; i++)
		ok &= scene_name(c, &name_ops[i]);
	const struct crash_stats *st = crash_stats(c);
	printf("# ops %lu fences %lu images %lu again %lu replayed %lu lost %lu\n", st->ops, st->fences, st->images, st->again, st->replayed, st->lane_lost);
	crash_free(c);
	assert_true(ok);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
