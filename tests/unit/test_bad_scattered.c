/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad memory here and there breaks every chunk that would be whole. What is free beside it can be used all the same, and a file that fills it can be taken
 * away again; so it is when a range is emptied that had the whole chunks.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "lib/testfs.h"

#define POOL_BYTES ((uint64_t)128 << 20)
#define PIECE_BYTES ((size_t)1 << 20)

static struct testfs t;
static uint8_t bytes[PIECE_BYTES];

static int setup(void **state)
{
	const struct testfs_opts opts = { .size_bytes = POOL_BYTES };

	(void)state;
	memset(bytes, 5, sizeof(bytes));
	testfs_make(&t, &opts);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	testfs_check(&t);
	testfs_free(&t);
	return 0;
}

/* One block of each chunk of the device that can be taken out of use. */
static void break_chunks(void)
{
	for (uint64_t off = CHUNK_SIZE; off < POOL_BYTES; off += CHUNK_SIZE)
		(void)!fs_poison_add(t.fs, off + 9 * BLOCK_SIZE);
}

static uint64_t fill(const char *name)
{
	uint64_t ino = testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644), at = 0;
	ssize_t n;

	while ((n = fs_write(t.fs, &testfs_root, ino, bytes, sizeof(bytes), at, 0)) > 0)
		at += (uint64_t)n;
	assert_int_equal(n, -ENOSPC);
	return at;
}

static void use_all(void)
{
	struct fs_statfs st;
	uint64_t stored;

	assert_int_equal(fs_statfs(t.fs, &st), 0);
	assert_true(st.free_blk <= st.total_blk);
	for (unsigned i = 0; i < 3; i++) {
		stored = fill("f");
		assert_true(stored > POOL_BYTES / 4 * 3);
		assert_true(stored + CHUNK_SIZE >= st.free_blk << BLOCK_SHIFT);
		assert_int_equal(testfs_unlink(&t, INODE_ROOT, "f"), 0);
		fs_work(t.fs);
	}
}

static void test_bad(void **state)
{
	(void)state;
	break_chunks();
	use_all();
	testfs_remount(&t);
	use_all();
}

/* With the chunks that are whole in a range that is being emptied, others go on, and it comes to an end. */
static void test_closed(void **state)
{
	struct fs_evacuation e = { .dev_off = POOL_BYTES / 8, .len = POOL_BYTES / 2 };
	uint64_t ino;
	int rc;

	(void)state;
	for (uint64_t off = CHUNK_SIZE; off < POOL_BYTES; off += CHUNK_SIZE)
		if (off < e.dev_off || off >= e.dev_off + e.len)
			(void)!fs_poison_add(t.fs, off + 9 * BLOCK_SIZE);
	ino = testfs_node(&t, INODE_ROOT, "f", S_IFREG | 0644);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(fs_write(t.fs, &testfs_root, ino, bytes, sizeof(bytes), i * PIECE_BYTES, 0),
				 sizeof(bytes));
	rc = fs_evacuate(t.fs, &e);
	if (rc == -ENOSPC) {
		assert_true(e.needed_bytes > e.free_bytes || e.needed_chunks > e.free_chunks);
		return;
	}
	assert_int_equal(rc, 0);
	ino = testfs_node(&t, INODE_ROOT, "g", S_IFREG | 0644);
	assert_int_equal(fs_write(t.fs, &testfs_root, ino, bytes, sizeof(bytes), 0, 0), sizeof(bytes));
	while ((rc = fs_evacuate_step(t.fs, e.id, PIECE_BYTES, &e)) > 0)
		;
	assert_int_equal(rc, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_bad, setup, teardown),
		cmocka_unit_test_setup_teardown(test_closed, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
