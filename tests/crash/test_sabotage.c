/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The crash tests have to be able to fail: with any one step of the commit or of the replay left out they do. This program has a
 * transaction floor of its own, in which each step can be left out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "crash/scenes.h"

bool sabotage_point(const char *name);

static const char *left_out = "";
static bool was_there;

bool sabotage_point(const char *name)
{
	if (strcmp(name, left_out) != 0)
		return false;
	was_there = true;
	return true;
}

static const char *const points[] = {
	"",
	"data-fence",
	"record-primary",
	"record-mirror",
	"record-fence",
	"home-primary",
	"home-mirror",
	"home-fence",
	"retire-primary",
	"retire-mirror",
	"retire-fence",
	"replay-mirror",
	"replay-fence",
	"replay-retire",
	"super-fence",
};

enum { CAUGHT, MISSED, NEVER_THERE };

/* All operations, round after round, until something is wrong. */
static int run_all(uint64_t seed, unsigned rounds)
{
	struct crash_opts opts = { .seed = seed, .quiet = true, .images = 12 };
	struct crash *c = crash_new(&opts);

	for (unsigned round = 0; round < rounds; round++) {
		for (unsigned i = 0; i < file_op_count; i++) {
			for (unsigned k = 0; k < file_state_count; k++) {
				if (!scene_file(c, &file_states[k], &file_ops[i]))
					return CAUGHT;
			}
		}
		for (unsigned i = 0; i < name_op_count; i++) {
			if (!scene_name(c, &name_ops[i]))
				return CAUGHT;
		}
	}
	return was_there ? MISSED : NEVER_THERE;
}

/* In a process of its own: what is left out may bring down more than one image. */
static void test_point(void **state)
{
	const char *point = *state;
	uint64_t seed = testfs_seed();
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
		if (!freopen("/dev/null", "w", stderr))
			_exit(NEVER_THERE);
		left_out = point;
		alarm(300);
		_exit(run_all(seed, *point ? 3 : 1));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (*point)
		assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == CAUGHT);
	else
		assert_true(WIFEXITED(status) &&
			    WEXITSTATUS(status) == NEVER_THERE); /* nothing left out: nothing caught */
}

int main(void)
{
	struct CMUnitTest tests[ARRAY_SIZE(points)];

	for (size_t i = 0; i < ARRAY_SIZE(points); i++)
		tests[i] = (struct CMUnitTest){
			.name = *points[i] ? points[i] : "nothing-left-out",
			.test_func = test_point,
			.initial_state = (void *)(uintptr_t)points[i],
		};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
