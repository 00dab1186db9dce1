/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * No memory: each allocation of each call fails in turn, and all from one on. The call says -ENOMEM or does without, nothing has happened in the
 * first case, nothing is leaked, and the file system goes on.
 *
 * The linker leads malloc() and the like to the functions below (meson.build).
 */
#include <errno.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>
#include <urcu/urcu-memb.h>

#include "fs_calls.h"
#include "repair/check.h"
#include "repair/repair.h"

/* ---- memory that ends ---- */

static struct {
	_Atomic uint64_t seen;       /* since it was armed */
	_Atomic uint64_t first, end; /* those that fail, counted from 1; end 0: none */
	_Atomic uint64_t hits;
	_Atomic int64_t live; /* pieces in use */
} mem;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t align, size_t size);
void __real_free(void *p);
int __real_pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_aligned_alloc(size_t align, size_t size);
void __wrap_free(void *p);
int __wrap_pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);

static bool refused(void)
{
	uint64_t end = atomic_load(&mem.end), n;

	if (!end)
		return false;
	n = atomic_fetch_add(&mem.seen, 1) + 1;
	if (n < atomic_load(&mem.first) || n >= end)
		return false;
	atomic_fetch_add(&mem.hits, 1);
	return true;
}

static void *counted(void *p)
{
	atomic_fetch_add(&mem.live, p != NULL);
	return p;
}

void *__wrap_malloc(size_t size)
{
	return refused() ? NULL : counted(__real_malloc(size));
}

void *__wrap_calloc(size_t count, size_t size)
{
	return refused() ? NULL : counted(__real_calloc(count, size));
}

void *__wrap_realloc(void *old, size_t size)
{
	void *p;

	if (refused())
		return NULL;
	p = __real_realloc(old, size);
	return old ? p : counted(p);
}

void *__wrap_aligned_alloc(size_t align, size_t size)
{
	return refused() ? NULL : counted(__real_aligned_alloc(align, size));
}

void __wrap_free(void *p)
{
	atomic_fetch_sub(&mem.live, p != NULL);
	__real_free(p);
}

int __wrap_pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	return refused() ? EAGAIN : __real_pthread_create(id, attr, fn, arg);
}

static void mem_arm(uint64_t first, uint64_t end)
{
	atomic_store(&mem.seen, 0);
	atomic_store(&mem.hits, 0);
	atomic_store(&mem.first, first);
	atomic_store(&mem.end, end);
}

/* Whether any was refused. */
static bool mem_disarm(void)
{
	atomic_store(&mem.end, 0);
	return atomic_load(&mem.hits) != 0;
}

/* ---- calls ---- */

static void *image;
static uint64_t image_sum;
static const struct testfs_opts opts = { .size_bytes = FS_CALLS_BYTES };

/* One call with allocations refused; *hit: some were. live: what a file system that was closed again leaves. */
static void call_once(const struct fs_call *call, uint64_t first, uint64_t end, int64_t live, bool *hit)
{
	struct testfs t;
	int64_t rc;

	testfs_open_image(&t, image, &opts); /* no inode is in memory */
	mem_arm(first, end);
	rc = call->fn(&t);
	*hit = mem_disarm();
	if (rc < 0 && (rc != -ENOMEM || !*hit)) {
		fprintf(stderr, "%s without allocation %llu: %s\n", call->name, (unsigned long long)first,
			strerror((int)-rc));
		fail();
	}
	if (rc == -ENOMEM) {
		fs_calls_undo(&t);
		assert_int_equal(fs_calls_sum(&t), image_sum);
		if (call->fn(&t) < 0)
			fail_msg("%s cannot be done after allocation %llu failed", call->name,
				 (unsigned long long)first);
	}
	fs_work(t.fs);
	testfs_remount(&t);
	testfs_check(&t);
	testfs_free(&t);
	urcu_memb_barrier(); /* the end of a file system waits for no memory that is still to be freed */
	if (atomic_load(&mem.live) > live)
		fail_msg("%s without allocation %llu: %lld pieces of memory leaked", call->name,
			 (unsigned long long)first, (long long)(atomic_load(&mem.live) - live));
}

static void calls_sweep(bool all_after)
{
	int64_t live;
	bool hit;

	for (unsigned i = 0; i < fs_call_count; i++) {
		/* What the thread keeps for its next transaction is in use from here on. */
		call_once(&fs_calls[i], UINT64_MAX, UINT64_MAX, INT64_MAX, &hit);
		live = atomic_load(&mem.live);
		hit = true;
		for (uint64_t n = 1; hit; n += all_after && n > 8 ? 4 : 1)
			call_once(&fs_calls[i], n, all_after ? UINT64_MAX : n + 1, live, &hit);
	}
}

static void test_one_allocation_fails(void **state)
{
	(void)state;
	calls_sweep(false);
}

static void test_all_allocations_fail_from_one_on(void **state)
{
	(void)state;
	calls_sweep(true);
}

/* ---- operations of several transactions ---- */

#define LONG_BYTES ((uint64_t)40 << 20)
#define LONG_EXTENTS 4500u

static uint64_t long_ino;

static void *long_image(void)
{
	struct testfs_opts o = { .size_bytes = LONG_BYTES, .format.lane_size_bytes = 256u << 10 };
	void *bytes = malloc(LONG_BYTES);
	struct testfs t;

	testfs_make(&t, &o);
	long_ino = testfs_node(&t, INODE_ROOT, "a", S_IFREG | 0644);
	for (uint64_t i = 0; i < LONG_EXTENTS; i++)
		assert_int_equal(fs_write(t.fs, &testfs_root, long_ino, &i, sizeof(i), 2 * i * BLOCK_SIZE, 0),
				 sizeof(i));
	testfs_remount(&t);
	memcpy(bytes, dax_ptr(t.dax, 0), LONG_BYTES);
	testfs_free(&t);
	return bytes;
}

/* Half-way there is no way back: it goes on when there is memory again. */
static void test_long_operation_goes_on(void **state)
{
	static const int modes[] = { FALLOC_FL_INSERT_RANGE, FALLOC_FL_COLLAPSE_RANGE };
	struct testfs_opts o = { .size_bytes = LONG_BYTES };
	void *bytes = long_image();
	struct testfs t;
	bool hit;
	int rc;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
		hit = true;
		for (uint64_t n = 1; hit; n++) {
			testfs_open_image(&t, bytes, &o);
			mem_arm(n, n + 1);
			rc = fs_fallocate(t.fs, &testfs_root, long_ino, modes[i], 2 * BLOCK_SIZE,
					  6 * BLOCK_SIZE);
			hit = mem_disarm();
			if (rc != 0 && rc != -ENOMEM)
				fail_msg("mode %d without allocation %llu: %d", modes[i],
					 (unsigned long long)n, rc);
			assert_false(pool_failed(t.pool));
			testfs_check(&t);
			testfs_free(&t);
		}
	}
	free(bytes);
}

/* ---- opening, looking, mending ---- */

static struct dax *dax_of_image(void)
{
	struct dax *dax;

	assert_int_equal(dax_open_ram(FS_CALLS_BYTES, image, NULL, &dax), 0);
	return dax;
}

/* Opens and closes: 0 or why it could not be. */
static int open_close(struct dax *dax)
{
	struct pool_opts pool_opts = { 0 };
	struct fs_opts fs_opts = { .background = true };
	char why[256] = "";
	struct pool *pool;
	struct fs *fs;
	int rc = pool_open(dax, &pool_opts, &pool, why, sizeof(why));

	if (rc)
		return rc;
	rc = fs_open(pool, &fs_opts, &fs);
	if (!rc)
		fs_close(fs);
	pool_close(pool, !rc);
	return rc;
}

static int look(struct dax *dax)
{
	struct check_opts check_opts = { .threads = 3 };
	struct pool_opts pool_opts = { .readonly = true };
	struct check_report report;
	char why[256] = "";
	struct pool *pool;
	int rc = pool_open(dax, &pool_opts, &pool, why, sizeof(why));

	if (rc)
		return rc;
	rc = check_pool(pool, &check_opts, &report);
	if (!rc && report.findings)
		fail_msg("%llu findings that are none", (unsigned long long)report.findings);
	pool_close(pool, false);
	return rc;
}

static int mend(struct dax *dax)
{
	struct repair_opts repair_opts = { .force = true };
	struct repair_report report;
	char why[256] = "";
	int rc = repair_pool(dax, &repair_opts, &report, why, sizeof(why));

	if (!rc)
		assert_int_equal(report.after.findings, 0);
	return rc;
}

static void whole_sweep(int (*fn)(struct dax *dax))
{
	struct dax *dax = dax_of_image();
	int64_t live;
	bool hit = true;
	int rc;

	assert_int_equal(fn(dax), 0);
	dax_close(dax);
	live = atomic_load(&mem.live);
	for (uint64_t n = 1, by = 1; hit; n += by, by += n > 200 ? n / 100 : 0) {
		dax = dax_of_image();
		mem_arm(n, n + 1);
		rc = fn(dax);
		hit = mem_disarm();
		if (rc && rc != -ENOMEM && rc != -EAGAIN)
			fail_msg("without allocation %llu: %d", (unsigned long long)n, rc);
		assert_true(hit || rc == 0);
		assert_int_equal(fn(dax), 0);
		dax_close(dax);
		if (atomic_load(&mem.live) > live)
			fail_msg("without allocation %llu: %lld pieces of memory leaked",
				 (unsigned long long)n, (long long)(atomic_load(&mem.live) - live));
	}
}

static void test_open(void **state)
{
	(void)state;
	whole_sweep(open_close);
}

static void test_check(void **state)
{
	(void)state;
	whole_sweep(look);
}

static void test_repair(void **state)
{
	(void)state;
	whole_sweep(mend);
}

static int group_make(void **state)
{
	struct testfs t;

	(void)state;
	image = fs_calls_image();
	testfs_open_image(&t, image, &opts);
	image_sum = fs_calls_sum(&t);
	testfs_free(&t);
	return 0;
}

static int group_free(void **state)
{
	(void)state;
	free(image);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_open),
		cmocka_unit_test(test_check),
		cmocka_unit_test(test_repair),
		cmocka_unit_test(test_one_allocation_fails),
		cmocka_unit_test(test_all_allocations_fail_from_one_on),
		cmocka_unit_test(test_long_operation_goes_on),
	};

	return cmocka_run_group_tests(tests, group_make, group_free);
}
