/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * File data against byte arrays: random writes, truncates, fallocates, clones and dedupes on some files of a small pool, so that it is full
 * now and then. Contents are compared all the time, the whole pool is checked at intervals and after crashes. UMBRA_SEED replays a run,
 * UMBRA_MODEL_OPS makes it longer or shorter.
 */
#include <errno.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "model/data_world.h"

#define OPS 12000u
#define CHECK_EVERY 250u
#define BLK 4096u

static void run(const struct testfs_opts *opts, uint64_t salt)
{
	const char *given = getenv("UMBRA_MODEL_OPS");
	unsigned count = given ? (unsigned)strtoul(given, NULL, 0) : OPS;
	struct world *w = calloc(1, sizeof(*w));

	testfs_make(&w->t, opts);
	world_make(w, INODE_ROOT, testfs_seed() * 31 + salt);
	while (w->step < count) {
		world_step(w);
		if (w->step % CHECK_EVERY == 0)
			world_check(w);
	}
	fs_work(w->t.fs);
	world_check(w);
	printf("# %u operations, no space %u times\n", count, w->full);
	testfs_free(&w->t);
	world_free(w);
	free(w);
}

static void test_small_pool(void **state)
{
	(void)state;
	run(&(struct testfs_opts){ .size_bytes = (uint64_t)16 << 20 }, 1);
}

static void test_several_groups(void **state)
{
	struct testfs_opts opts = {
		.size_bytes = (uint64_t)48 << 20,
		.format = { .ag_size_bytes = (uint64_t)16 << 20 },
	};

	(void)state;
	run(&opts, 2);
}

static void test_without_mirrors(void **state)
{
	struct testfs_opts opts = {
		.size_bytes = (uint64_t)24 << 20,
		.format = { .metadata_single = true },
	};

	(void)state;
	run(&opts, 3);
}

/* ---- found by chance, kept by name ---- */

static void one_file(struct testfs *t, uint64_t *ino)
{
	struct testfs_opts opts = { .size_bytes = (uint64_t)16 << 20 };
	struct inode_attr a;

	testfs_make(t, &opts);
	assert_int_equal(testfs_mknod(t, INODE_ROOT, "f", S_IFREG | 0644, &a), 0);
	*ino = a.ino;
}

/* A few bytes at the start of a file that has a size and no data: it cannot be inline. */
static void test_store_into_grown_empty(void **state)
{
	struct fs_set set = { .what = FS_SET_SIZE, .size = 300000 };
	struct inode_attr a;
	struct testfs t;
	uint8_t byte;
	uint64_t ino;

	(void)state;
	one_file(&t, &ino);
	assert_int_equal(fs_setattr(t.fs, &testfs_root, ino, &set, &a), 0);
	assert_int_equal(fs_write(t.fs, &testfs_root, ino, "0123456789", 10, 10, 0), 10);
	assert_int_equal(fs_getattr(t.fs, ino, &a), 0);
	assert_int_equal(a.size, 300000);
	assert_int_equal(fs_read(t.fs, ino, &byte, 1, 15), 1);
	assert_int_equal(byte, '5');
	testfs_free(&t);
}

/* Giving back the end of a file whose last block is shared takes no space. */
static void test_punch_to_end_when_full(void **state)
{
	struct inode_attr a;
	struct testfs t;
	uint64_t ino;
	int rc;

	(void)state;
	one_file(&t, &ino);
	assert_int_equal(fs_write(t.fs, &testfs_root, ino, "end", 3, 9000, 0), 3);
	assert_int_equal(testfs_mknod(&t, INODE_ROOT, "twin", S_IFREG | 0644, &a), 0);
	assert_int_equal(fs_clone(t.fs, &testfs_root, ino, 0, a.ino, 0, 9003, 0, NULL), 9003);
	assert_int_equal(testfs_mknod(&t, INODE_ROOT, "filler", S_IFREG | 0644, &a), 0);
	for (uint64_t len = (uint64_t)16 << 20, off = 0; len >= BLK; len /= 2, off += (uint64_t)64 << 20) {
		do {
			rc = fs_fallocate(t.fs, &testfs_root, a.ino, FALLOC_FL_KEEP_SIZE, off, len);
			off += len;
		} while (rc == 0);
		assert_int_equal(rc, -ENOSPC);
	}
	assert_int_equal(fs_write(t.fs, &testfs_root, ino, "x", 1, 8192, 0), -ENOSPC);
	assert_int_equal(fs_fallocate(t.fs, &testfs_root, ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				      8192, 4096),
			 0);
	testfs_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_small_pool),
		cmocka_unit_test(test_several_groups),
		cmocka_unit_test(test_without_mirrors),
		cmocka_unit_test(test_store_into_grown_empty),
		cmocka_unit_test(test_punch_to_end_when_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
