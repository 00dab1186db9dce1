/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Shared blocks are to leave a range, and there is room only after others have been freed: whoever frees them does not have poison_lock meanwhile, so who meets bad
 * memory need not wait for him, and the order of locks holds.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fs/core.h"
#include "fs/poison.h"
#include "lib/testfs.h"

#define POOL_BYTES ((uint64_t)24 << 20)
#define FILE_BLOCKS 4u

static struct testfs t;
static uint8_t bytes[64 * BLOCK_SIZE], back[FILE_BLOCKS * BLOCK_SIZE];
static bool armed;
static unsigned drained, locked;

/* ---- what frees ---- */

void __real_orphan_drain(struct fs *fs);
void __wrap_orphan_drain(struct fs *fs);

/* Of a thread that meets bad memory now. */
static void *lock_try(void *arg)
{
	struct fs *fs = arg;

	if (pthread_mutex_trylock(&fs->poison_lock) != 0)
		return fs;
	pthread_mutex_unlock(&fs->poison_lock);
	return NULL;
}

void __wrap_orphan_drain(struct fs *fs)
{
	pthread_t thread;
	void *taken;

	if (armed) {
		armed = false;
		drained++;
		assert_int_equal(pthread_create(&thread, NULL, lock_try, fs), 0);
		assert_int_equal(pthread_join(thread, &taken), 0);
		locked += taken != NULL;
		assert_int_equal(testfs_unlink(&t, INODE_ROOT, "fill"), 0);
	}
	__real_orphan_drain(fs);
}

/* ---- the test ---- */

static void fill(void)
{
	uint64_t ino = testfs_node(&t, INODE_ROOT, "fill", S_IFREG | 0644), at = 0;
	ssize_t n;

	for (size_t len = sizeof(bytes); len >= BLOCK_SIZE; len /= 2)
		while ((n = fs_write(t.fs, &testfs_root, ino, bytes, len, at, 0)) > 0)
			at += (uint64_t)n;
}

static void test_lock(void **state)
{
	const struct testfs_opts opts = { .size_bytes = POOL_BYTES };
	struct fs_evacuation e = { 0 };
	uint64_t a, b;
	struct fs_extent x;
	int rc;

	(void)state;
	testfs_make(&t, &opts);
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 31 + i / 251 + 1);
	a = testfs_node(&t, INODE_ROOT, "a", S_IFREG | 0644);
	b = testfs_node(&t, INODE_ROOT, "b", S_IFREG | 0644);
	assert_int_equal(fs_write(t.fs, &testfs_root, a, bytes, sizeof(back), 0, 0), sizeof(back));
	assert_int_equal(fs_clone(t.fs, &testfs_root, a, 0, b, 0, sizeof(back), 0, NULL), sizeof(back));
	assert_int_equal(fs_map(t.fs, a, 0, &x, 1), 1);
	e.dev_off = x.dev_off;
	e.len = x.len;
	assert_int_equal(fs_evacuate(t.fs, &e), 0);
	fill();
	armed = true;
	do {
		rc = fs_evacuate_step(t.fs, e.id, POOL_BYTES, &e);
	} while (rc == 1);
	assert_int_equal(rc, 0);
	assert_int_equal(drained, 1);
	assert_int_equal(locked, 0);
	assert_int_equal(e.shared_bytes, sizeof(back));
	assert_int_equal(fs_read(t.fs, b, back, sizeof(back), 0), sizeof(back));
	assert_memory_equal(back, bytes, sizeof(back));
	testfs_check(&t);
	/* With nobody to free anything it says so. */
	assert_int_equal(fs_map(t.fs, a, 0, &x, 1), 1);
	e = (struct fs_evacuation){ .dev_off = x.dev_off, .len = x.len };
	assert_int_equal(fs_evacuate(t.fs, &e), 0);
	fill();
	do {
		rc = fs_evacuate_step(t.fs, e.id, POOL_BYTES, &e);
	} while (rc == 1);
	assert_int_equal(rc, -ENOSPC);
	testfs_check(&t);
	testfs_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lock),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
