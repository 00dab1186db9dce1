/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Every operation after every other one, in some states of the file; the second one is cut at every fence. UMBRA_CRASH_STATES: in how
 * many states (2), which ones depends on the seed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "crash/scenes.h"

#define STATES 2u

static void test_first(void **state)
{
	const char *given = getenv("UMBRA_CRASH_STATES");
	unsigned states = given ? (unsigned)strtoul(given, NULL, 0) : STATES;
	const struct scene_op *first = *state;
	uint64_t random = suite_seed();
	bool ok = true;

	for (unsigned i = 0; i < scene_op_count(); i++) {
		/* All states come equally often. */
		uint64_t at = testfs_random(&random);

		for (unsigned k = 0; k < states; k++)
			ok &= scene_pair(suite_pool(), &file_states[(at + k * 5) % file_state_count], first,
					 scene_op(i));
	}
	assert_true(ok);
}

int main(void)
{
	struct CMUnitTest *tests = calloc(scene_op_count(), sizeof(*tests));
	struct crash_opts opts = { .images = 4, .all = 12 };
	int failed;

	for (unsigned i = 0; tests && i < scene_op_count(); i++)
		tests[i] = (struct CMUnitTest){
			.name = scene_op(i)->name,
			.test_func = test_first,
			.initial_state = (void *)(uintptr_t)scene_op(i),
		};
	failed = suite_main(&opts, tests, scene_op_count());
	free(tests);
	return failed;
}
