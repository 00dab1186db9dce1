/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The crash tests have to be able to fail: with any one step left out, or done wrong, they do. This program has floors of its own, in
 * which each step can be left out.
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

#include "crash/grow.h"
#include "util/sabotage.h"

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
	"", /* nothing left out: nothing caught */
	/* commit: what is stored, and its fences */
	"data-fence",
	"record-primary",
	"record-mirror",
	"record-fence",
	"home-before-record",
	"mirror-before-record",
	"home-primary",
	"home-mirror",
	"home-fence",
	"retire-early",
	"retire-primary",
	"retire-mirror",
	"retire-fence",
	/* replay and the superblock */
	"record-crc",
	"replay-primary",
	"replay-mirror",
	"replay-fence",
	"replay-retire",
	"super-fence",
	/* who owns what */
	"bitmap-set",
	"bitmap-clear",
	"rmap-own",
	"rmap-share",
	"rmap-drop",
	"rmap-shift",
	"refcount-share",
	"refcount-drop",
	"counters",
	"free-early",
	"unit-used",
	"unit-free",
	"inode-used",
	"inode-free",
	"chunk-own",
	"chunk-own-mirror",
	/* data */
	"data-stored-new",
	"data-stored-past-end",
	"data-stored-symlink",
	"copy-on-write",
	"zero-edge",
	"zero-tail",
	"zero-hole-edge",
	"unwritten",
	"shared-flag",
	/* operations of several transactions */
	"intent-free-range",
	"intent-shift",
	"intent-clone",
	"intent-clear",
	"shift-cursor",
	"swap-share",
	"swap-blocks",
	"swap-keep-old",
	/* names */
	"orphan-add",
	"orphan-remove",
	"parent-add",
	"parent-remove",
	"dir-size",
	"link-count",
	"xattr-free",
	/* growing: what is written, and its fences */
	"grow-groups",
	"grow-groups-fence",
	"grow-lanes",
	"grow-copy",
	"grow-mirror",
	"grow-mirror-fence",
	"grow-guide",
	"grow-former",
	"grow-former-fence",
	"grow-switch-fence",
	"grow-header",
	"grow-renew",
	"grow-wipe",
	"grow-wipe-fence",
	/* and the mount that finishes it */
	"grow-settle",
	"super-order",
};

enum { CAUGHT, MISSED, NEVER_THERE };

static bool states_run(struct crash *c, const struct file_state *states, unsigned count,
		       const struct scene_op *op)
{
	for (unsigned k = 0; k < count; k++) {
		if (!scene_run(c, &states[k], op))
			return false;
	}
	return true;
}

static bool few_run(uint64_t seed)
{
	struct crash_opts opts = { .seed = seed, .images = 12 };
	struct crash *c = crash_new(&opts);
	bool ok = true;

	for (unsigned i = 0; i < file_op_count && ok; i++)
		ok = states_run(c, file_states, file_state_count, &file_ops[i]);
	for (unsigned i = 0; i < name_op_count && ok; i++)
		ok = scene_run(c, NULL, &name_ops[i]);
	if (ok)
		crash_free(c);
	return ok;
}

static bool many_run(uint64_t seed)
{
	struct crash_opts opts = {
		.seed = seed,
		.size_bytes = (uint64_t)64 << 20,
		.format = { .lane_size_bytes = 256 << 10 },
		.images = 3,
	};
	struct crash *c = crash_new(&opts);
	bool ok = true;

	for (unsigned i = 0; i < file_op_count && ok; i++) {
		if (scene_op_is_long(&file_ops[i]))
			ok = states_run(c, many_states, many_state_count, &file_ops[i]);
	}
	if (ok)
		crash_free(c);
	return ok;
}

static bool grow_all(uint64_t seed)
{
	const struct crash_opts opts = { .seed = seed, .images = *left_out ? 100 : 6, .deep = true };
	struct grow_stats stats;
	bool ok = true;

	for (unsigned i = grow_shape_count; i-- > 0 && ok;)
		ok = grow_run(&grow_shapes[i], &opts, GROW_ALONE, &file_states[(seed + i) % file_state_count],
			      NULL, &stats);
	return ok;
}

/* All operations, round after round, until something is wrong. */
static int run_all(uint64_t seed, unsigned rounds)
{
	bool growing = strncmp(left_out, "grow", 4) == 0 || strcmp(left_out, "super-order") == 0;

	for (unsigned round = 0; round < rounds; round++) {
		if ((growing || !*left_out) && !grow_all(seed + round))
			return CAUGHT;
		if (growing)
			continue;
		if (!few_run(seed + round))
			return CAUGHT;
		if ((!was_there || !*left_out || round > 0) && !many_run(seed + round))
			return CAUGHT;
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
		setvbuf(stdout, NULL, _IOLBF, 0);
		left_out = point;
		alarm(1500);
		status = run_all(seed, *point ? 3 : 1);
		fflush(NULL);
		_exit(status);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status))
		printf("# %s: brought down by signal %d\n", point, WTERMSIG(status));
	if (*point)
		assert_true((WIFSIGNALED(status) && WTERMSIG(status) != SIGALRM) ||
			    (WIFEXITED(status) && WEXITSTATUS(status) == CAUGHT));
	else
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == NEVER_THERE);
}

/* With arguments: these points alone, even those that the list does not have. */
int main(int argc, char **argv)
{
	struct CMUnitTest tests[ARRAY_SIZE(points)];
	size_t count = argc > 1 ? (size_t)argc - 1 : ARRAY_SIZE(points);

	if (count > ARRAY_SIZE(points))
		return 2;
	for (size_t i = 0; i < count; i++) {
		const char *point = argc > 1 ? argv[i + 1] : points[i];

		tests[i] = (struct CMUnitTest){
			.name = *point ? point : "nothing-left-out",
			.test_func = test_point,
			.initial_state = (void *)(uintptr_t)point,
		};
	}
	return _cmocka_run_group_tests("sabotage", tests, count, NULL, NULL);
}
