/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fences that fail, at each place of each call: the backing store has refused an msync(), and the pool takes no more stores from then on. The call
 * says so, or is done; and what was acknowledged is there when the pool is opened again, whether the memory has everything that was stored by
 * then, or nothing since the last fence that went well.
 *
 * The linker leads dax_fence() and the stores to the functions below (meson.build).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dax/priv.h" /* a store is refused the way a failed msync() has it */
#include "fs_calls.h"
#include "repair/check.h"

static struct {
	uint64_t seen;     /* fences since it was armed */
	uint64_t fails_at; /* counted from 1; 0: none */
	bool failed;
	uint8_t *fenced; /* the memory as of the last fence that went well */
} fence;

int __real_dax_fence(struct dax *dax);
int __wrap_dax_fence(struct dax *dax);

int __wrap_dax_fence(struct dax *dax)
{
	if (fence.fails_at && ++fence.seen >= fence.fails_at) {
		fence.failed = true;
		atomic_store(&dax->failed, true);
		return -EIO;
	}
	if (fence.fails_at)
		memcpy(fence.fenced, dax_ptr(dax, 0), FS_CALLS_BYTES);
	return __real_dax_fence(dax);
}

static void *image;
static const struct testfs_opts opts = { .size_bytes = FS_CALLS_BYTES };

/* Opens a copy of these bytes, which has to be sound, and sums it up. */
static uint64_t reopened(const void *bytes)
{
	struct testfs t;
	uint64_t sum;

	testfs_open_image(&t, bytes, &opts);
	fs_work(t.fs);
	testfs_check(&t);
	sum = fs_calls_sum(&t);
	testfs_free(&t);
	return sum;
}

/* A call that stores bytes in place, or commits piece by piece, may have come to any of them when it failed. */
static bool is_in_pieces(const char *name)
{
	static const char *const names[] = { "write big", "overwrite",   "append", "write",
					     "alloc",     "punch",       "zero",   "clone unaligned",
					     "tmpfile",   "clone files", "unshare" };

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return false;
}

/* after: what the call makes of it. */
static void look(const struct fs_call *call, uint64_t n, int64_t rc, uint64_t before, uint64_t after,
		 uint64_t is)
{
	if (is == after || (rc < 0 && (is == before || is_in_pieces(call->name))))
		return;
	fail_msg("%s with fence %llu refused has returned %lld, and that is not what is there", call->name,
		 (unsigned long long)n, (long long)rc);
}

static bool call_once(const struct fs_call *call, uint64_t n, uint64_t before, uint64_t after)
{
	struct testfs t;
	uint8_t *now = malloc(FS_CALLS_BYTES);
	bool failed;
	int64_t rc;

	fence = (typeof(fence)){ .fenced = fence.fenced };
	testfs_open_image(&t, image, &opts);
	memcpy(fence.fenced, dax_ptr(t.dax, 0), FS_CALLS_BYTES);
	fence.fails_at = n;
	rc = call->fn(&t);
	failed = fence.failed;
	if (rc < 0 && (!failed || (rc != -EIO && rc != -EROFS && rc != -EUCLEAN)))
		fail_msg("%s with fence %llu refused: %lld", call->name, (unsigned long long)n,
			 (long long)rc);
	if (failed) { /* and nothing is acknowledged any more */
		assert_true(testfs_mknod(&t, INODE_ROOT, "after", 0100644, NULL) < 0);
		assert_true(testfs_unlink(&t, INODE_ROOT, "c") < 0);
	}
	memcpy(now, dax_ptr(t.dax, 0), FS_CALLS_BYTES);
	fs_close(t.fs);
	pool_close(t.pool, false);
	dax_close(t.dax);
	fence.fails_at = 0;
	if (failed) {
		look(call, n, rc, before, after, reopened(now));
		look(call, n, rc, before, after, reopened(fence.fenced));
	}
	free(now);
	return failed;
}

static void test_each_fence_of_each_call_fails(void **state)
{
	struct testfs t;
	uint64_t before = reopened(image), after;

	(void)state;
	for (unsigned i = 0; i < fs_call_count; i++) {
		if (fs_calls[i].reads)
			continue;
		testfs_open_image(&t, image, &opts);
		if (fs_calls[i].fn(&t) < 0)
			fail_msg("%s does not work at all", fs_calls[i].name);
		fs_work(t.fs);
		after = fs_calls_sum(&t);
		testfs_free(&t);
		for (uint64_t n = 1; call_once(&fs_calls[i], n, before, after); n++)
			;
	}
}

/* Opening a pool with something to replay. */
static void test_each_fence_of_a_replay_fails(void **state)
{
	uint8_t *crashed = malloc(FS_CALLS_BYTES);
	struct pool_opts pool_opts = { 0 };
	struct testfs t;
	uint64_t want;
	int rc = -EIO;

	(void)state;
	testfs_open_image(&t, image, &opts);
	for (unsigned i = 0; i < fs_call_count; i++) {
		if (strcmp(fs_calls[i].name, "mknod") == 0 || strcmp(fs_calls[i].name, "alloc") == 0)
			assert_true(fs_calls[i].fn(&t) >= 0);
	}
	want = fs_calls_sum(&t);
	memcpy(crashed, dax_ptr(t.dax, 0), FS_CALLS_BYTES);
	testfs_free(&t);
	for (uint64_t n = 1; rc; n++) {
		struct dax *dax;
		struct pool *pool;
		struct fs *fs;
		char why[256] = "";

		fence = (typeof(fence)){ .fenced = fence.fenced };
		assert_int_equal(dax_open_ram(FS_CALLS_BYTES, crashed, NULL, &dax), 0);
		memcpy(fence.fenced, crashed, FS_CALLS_BYTES);
		fence.fails_at = n;
		rc = pool_open(dax, &pool_opts, &pool, why, sizeof(why));
		if (!rc) {
			rc = fs_open(pool, &opts.fs, &fs);
			if (!rc)
				fs_close(fs);
			pool_close(pool, true);
		}
		if (!fence.failed)
			assert_int_equal(rc, 0);
		else
			rc = -EIO; /* whoever opened it may have been told or not: nothing may be lost */
		fence.fails_at = 0;
		assert_int_equal(reopened(dax_ptr(dax, 0)), want);
		assert_int_equal(reopened(fence.fenced), want);
		dax_close(dax);
	}
	free(crashed);
}

static int group_make(void **state)
{
	(void)state;
	image = fs_calls_image();
	fence.fenced = malloc(FS_CALLS_BYTES);
	return 0;
}

static int group_free(void **state)
{
	(void)state;
	free(image);
	free(fence.fenced);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_fence_of_each_call_fails),
		cmocka_unit_test(test_each_fence_of_a_replay_fails),
	};

	return cmocka_run_group_tests(tests, group_make, group_free);
}
