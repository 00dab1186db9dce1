/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Blocks that are known as bad and that files could not leave are not given to others by dedupe, nor when copies for mappings are given back: who has them shares
 * the good one.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fs/copies.h"
#include "fs/core.h"
#include "fs/owners.h"
#include "fs/poison.h"
#include "lib/testfs.h"

#define BLOCKS 24u
#define TAIL 100u /* bytes in the last block */
#define FILE_BYTES ((BLOCKS - 1) * (uint64_t)BLOCK_SIZE + TAIL)

static struct testfs t;
static uint64_t a, b;
static uint8_t content[BLOCKS * BLOCK_SIZE], back[BLOCKS * BLOCK_SIZE];

static uint64_t file_make(const char *name)
{
	uint64_t ino = testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644);

	assert_int_equal(fs_write(t.fs, &testfs_root, ino, content, FILE_BYTES, 0, 0), FILE_BYTES);
	return ino;
}

static void make(void)
{
	for (size_t i = 0; i < sizeof(content); i++)
		content[i] = (uint8_t)(i * 31 + i / 251 + 1);
	testfs_make(&t, NULL);
	a = file_make("a");
	b = file_make("b");
}

static uint64_t blk_of_file(uint64_t ino, uint64_t file_blk)
{
	struct fs_extent e;

	assert_int_equal(fs_map(t.fs, ino, file_blk * BLOCK_SIZE, &e, 1), 1);
	return (e.dev_off + (file_blk * BLOCK_SIZE - e.file_off)) / BLOCK_SIZE;
}

/* As if there had been no room. Returns the block. */
static uint64_t stay(uint64_t ino, uint64_t file_blk)
{
	uint64_t blk = blk_of_file(ino, file_blk);

	pthread_mutex_lock(&t.fs->poison_lock);
	assert_int_equal(poison_stay(t.fs, blk), 0);
	pthread_mutex_unlock(&t.fs->poison_lock);
	return blk;
}

static unsigned files_of(uint64_t blk)
{
	struct fs_owners_pos pos = { 0 };
	unsigned count, files = 0;
	bool bad = false;
	struct fs_owner o;

	for (;;) {
		assert_int_equal(fs_owners(t.fs, blk * BLOCK_SIZE, BLOCK_SIZE, &pos, &o, 1, &count), 0);
		if (count == 0)
			break;
		bad |= o.owner == OWNER_BAD;
		files += o.owner != OWNER_BAD;
		pos = o.after;
	}
	assert_true(bad);
	return files;
}

static void end(void)
{
	const uint64_t inos[] = { a, b };

	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(fs_read(t.fs, inos[i], back, sizeof(back), 0), FILE_BYTES);
		assert_memory_equal(back, content, FILE_BYTES);
	}
	testfs_check(&t);
	testfs_free(&t);
}

static bool dedupe(uint64_t src, uint64_t dst)
{
	bool same = false;

	assert_int_equal(fs_dedupe(t.fs, src, 0, dst, 0, FILE_BYTES, &same), 0);
	return same;
}

/* Blocks that both have, of those from first to end - 1. */
static unsigned shared(unsigned first, unsigned last)
{
	unsigned count = 0;

	for (unsigned i = first; i < last; i++)
		count += blk_of_file(a, i) == blk_of_file(b, i);
	return count;
}

/* First, in the middle, several, last; of one file, of the other. */
static void test_dedupe(void **state)
{
	static const unsigned runs[][2] = { { 0, 1 }, { 7, 8 }, { 7, 11 }, { BLOCKS - 1, BLOCKS } };

	(void)state;
	for (size_t r = 0; r < ARRAY_SIZE(runs); r++) {
		for (unsigned of_dst = 0; of_dst < 2; of_dst++) {
			uint64_t bad[BLOCKS], good = 0;

			make();
			for (unsigned i = runs[r][0]; i < runs[r][1]; i++)
				bad[i] = stay(of_dst ? b : a, i);
			good = blk_of_file(of_dst ? a : b, runs[r][0]);
			assert_true(dedupe(a, b));
			assert_int_equal(shared(0, BLOCKS), BLOCKS);
			assert_true(blk_of_file(a, runs[r][0]) == good);
			for (unsigned i = runs[r][0]; i < runs[r][1]; i++)
				assert_int_equal(files_of(bad[i]), 0);
			end();
		}
	}
}

/* Where both are bad each keeps its own, and they are compared all the same. */
static void test_both(void **state)
{
	uint64_t bad[3];
	bool same = true;

	(void)state;
	make();
	bad[0] = stay(a, 5);
	bad[1] = stay(a, 6);
	bad[2] = stay(b, 6);
	assert_true(dedupe(a, b));
	assert_int_equal(shared(0, BLOCKS), BLOCKS - 1);
	assert_int_equal(files_of(bad[0]), 0);
	assert_int_equal(files_of(bad[1]), 1);
	assert_int_equal(files_of(bad[2]), 1);
	end();
	make();
	bad[0] = stay(a, 6);
	assert_int_equal(fs_write(t.fs, &testfs_root, b, "x", 1, 6 * BLOCK_SIZE + 9, 0), 1);
	bad[1] = stay(b, 6);
	assert_int_equal(fs_dedupe(t.fs, a, 0, b, 0, FILE_BYTES, &same), 0);
	assert_false(same);
	assert_int_equal(files_of(bad[0]) + files_of(bad[1]), 2);
	assert_int_equal(shared(7, BLOCKS), 0);
	assert_int_equal(fs_write(t.fs, &testfs_root, b, content, FILE_BYTES, 0, 0), FILE_BYTES);
	end();
	/* A block that both have, by a clone. */
	make();
	assert_int_equal(fs_clone(t.fs, &testfs_root, a, 0, b, 0, FILE_BYTES, 0, NULL), FILE_BYTES);
	bad[0] = stay(a, 6);
	assert_true(dedupe(a, b));
	assert_int_equal(files_of(bad[0]), 2);
	end();
}

/* One that must not be changed stays as it is. */
static void test_immutable(void **state)
{
	const struct fs_set set = { .what = FS_SET_FLAGS, .flags = INODE_IMMUTABLE };
	struct inode_attr attr;
	uint64_t bad;

	(void)state;
	make();
	bad = stay(a, 9);
	assert_int_equal(fs_setattr(t.fs, &testfs_root, a, &set, &attr), 0);
	assert_true(dedupe(a, b));
	assert_int_equal(shared(0, BLOCKS), BLOCKS - 1);
	assert_int_equal(files_of(bad), 1);
	end();
}

/* What b has was copied from what a has. */
static void test_give_back(void **state)
{
	const struct copy copy = { .file_blk = 0, .count_blk = BLOCKS };
	struct copy noted;
	uint64_t bad;

	(void)state;
	make();
	noted = copy;
	noted.ino = b;
	noted.old_blk = blk_of_file(a, 0);
	assert_true(blk_of_file(a, BLOCKS - 1) == noted.old_blk + BLOCKS - 1);
	bad = stay(a, 9);
	copies_note(t.fs, &noted, 1);
	fs_give_back(t.fs, b);
	while (copies_work(t.fs))
		;
	assert_int_equal(shared(0, BLOCKS), BLOCKS);
	assert_int_equal(files_of(bad), 0);
	end();
}

/* Who looks at a file is told how many files have its blocks, and which are bad; who stores to it, of all who have them. */
static void test_map(void **state)
{
	static const struct {
		unsigned first, count;
		uint32_t owners, flags;
	} want[] = {
		{ 0, 6, 2, FS_EXTENT_SHARED },
		{ 6, 1, 1, FS_EXTENT_BAD },
		{ 7, 1, 2, FS_EXTENT_SHARED | FS_EXTENT_BAD },
		{ 8, 2, 2, FS_EXTENT_SHARED },
		{ 10, BLOCKS - 10, 1, FS_EXTENT_LAST },
	};
	struct fs_extent e[8];

	(void)state;
	make();
	assert_int_equal(fs_clone(t.fs, &testfs_root, a, 0, b, 0, 6 * BLOCK_SIZE, 0, NULL), 6 * BLOCK_SIZE);
	assert_int_equal(fs_clone(t.fs, &testfs_root, a, 7 * BLOCK_SIZE, b, 7 * BLOCK_SIZE, 3 * BLOCK_SIZE, 0,
				  NULL),
			 3 * BLOCK_SIZE);
	(void)stay(a, 6);
	(void)stay(a, 7);
	assert_int_equal(fs_map_files(t.fs, a, 0, e, ARRAY_SIZE(e)), ARRAY_SIZE(want));
	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		assert_int_equal(e[i].file_off, want[i].first * BLOCK_SIZE);
		assert_int_equal(e[i].len, want[i].count * BLOCK_SIZE);
		assert_int_equal(e[i].owners, want[i].owners);
		assert_int_equal(e[i].flags, want[i].flags);
	}
	assert_int_equal(fs_map_files(t.fs, a, 6 * BLOCK_SIZE, e, 1), 1);
	assert_int_equal(e[0].flags, FS_EXTENT_BAD);
	assert_int_equal(fs_map(t.fs, a, 6 * BLOCK_SIZE, e, 1), 1);
	assert_int_equal(e[0].flags, FS_EXTENT_SHARED);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dedupe),    cmocka_unit_test(test_both),
		cmocka_unit_test(test_immutable), cmocka_unit_test(test_give_back),
		cmocka_unit_test(test_map),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
