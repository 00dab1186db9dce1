/* SPDX-License-Identifier: BSD-3-Clause */
/* Pieces of a file that large pages can map: made on demand, and how much of a file is so without. */
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

#include "fs/core.h"
#include "unit/fake_holders.h"

#define MIB ((uint64_t)1 << 20)
#define CHUNK CHUNK_BLOCKS
#define FILE_BLK (16 * CHUNK)

static struct testfs t;
static struct fake_holders fake;
static uint8_t bytes[FILE_BLK * BLOCK_SIZE], seen[FILE_BLK * BLOCK_SIZE];
static uint64_t file;

static int setup(void **state)
{
	const struct testfs_opts opts = { .size_bytes = 512 * MIB, .format.ag_size_bytes = 256 * MIB };

	(void)state;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 31 + i / 251 + i / 65536 + 1);
	testfs_make(&t, &opts);
	fake_holders_set(&fake, t.fs);
	fake.whole = true;
	file = testfs_node(&t, INODE_ROOT, "file", S_IFREG | 0644);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_holders_end(&fake);
	testfs_check(&t);
	testfs_free(&t);
	return 0;
}

static void store_bytes(uint64_t ino, uint64_t off, uint64_t len)
{
	assert_int_equal(fs_write(t.fs, &testfs_root, ino, bytes + off, len, off, 0), len);
}

static void store_blk(uint64_t ino, uint64_t blk, uint64_t count)
{
	store_bytes(ino, blk * BLOCK_SIZE, count * BLOCK_SIZE);
}

static uint64_t file_make(const char *name)
{
	return testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644);
}

static void clone_blk(uint64_t src, uint64_t dst, uint64_t bytes_all)
{
	assert_int_equal(fs_clone(t.fs, &testfs_root, src, 0, dst, 0, bytes_all, 0, NULL), bytes_all);
}

static void size_set(uint64_t ino, uint64_t size)
{
	struct fs_set set = { .what = FS_SET_SIZE, .size = size };
	struct inode_attr attr;

	assert_int_equal(fs_setattr(t.fs, &testfs_root, ino, &set, &attr), 0);
}

static int whole(uint64_t ino, uint64_t blk, bool store)
{
	return fs_make_whole(t.fs, &testfs_root, ino, blk, store);
}

/* All of the file: what was stored, with zeroes where nothing was. */
static void content_is(uint64_t ino, uint64_t size, const uint8_t *want)
{
	assert_int_equal(testfs_attr(&t, ino).size, size);
	assert_int_equal(fs_read(t.fs, ino, seen, size, 0), size);
	assert_memory_equal(seen, want, size);
}

/* Whether the 2 MiB from blk on are one chunk; alone: with one owner. */
static bool is_whole(uint64_t ino, uint64_t blk, bool alone)
{
	uint64_t at = blk * BLOCK_SIZE, end = at + CHUNK_SIZE, dev = 0;
	struct fs_extent e;

	while (at < end) {
		uint64_t in;

		if (fs_map(t.fs, ino, at, &e, 1) != 1 || e.file_off > at || (alone && e.owners != 1))
			return false;
		in = e.dev_off + (at - e.file_off);
		if (at == blk * BLOCK_SIZE)
			dev = in;
		if (in != dev + (at - blk * BLOCK_SIZE) || dev % CHUNK_SIZE)
			return false;
		at = e.file_off + e.len;
	}
	return true;
}

static unsigned whole_count(uint64_t ino)
{
	unsigned count = 0;

	for (uint64_t blk = 0; blk < FILE_BLK; blk += CHUNK)
		count += is_whole(ino, blk, true);
	return count;
}

/* In pieces, none of which lies as it should: nothing is set aside for inodes that nobody uses. */
static void scatter(uint64_t ino, uint64_t from_blk, uint64_t to_blk)
{
	uint64_t other = file_make("other");

	for (uint64_t blk = from_blk; blk < to_blk; blk += 3) {
		store_blk(other, blk, 1);
		store_blk(ino, blk, u64_min(3, to_blk - blk));
	}
}

/* ---- made on demand ---- */

static void test_scattered(void **state)
{
	struct inode_attr before, after;

	(void)state;
	scatter(file, 0, 2 * CHUNK);
	before = testfs_attr(&t, file);
	assert_false(is_whole(file, 0, false));
	assert_int_equal(whole(file, 0, false), 0);
	assert_true(is_whole(file, 0, true));
	assert_false(is_whole(file, CHUNK, false));
	after = testfs_attr(&t, file);
	assert_int_equal(before.mtime.ns, after.mtime.ns);
	assert_int_equal(before.blocks, after.blocks);
	content_is(file, 2 * CHUNK_SIZE, bytes);
	assert_int_equal(whole(file, CHUNK, true), 0);
	assert_true(is_whole(file, CHUNK, true));
	after = testfs_attr(&t, file);
	assert_true(before.mtime.s != after.mtime.s || before.mtime.ns != after.mtime.ns);
	content_is(file, 2 * CHUNK_SIZE, bytes);
}

/* The end of a file stays where it is if there is room, and nobody else has what lies behind it. */
static void test_end(void **state)
{
	uint64_t size = 700 * BLOCK_SIZE + 100;
	struct fs_extent e[2];

	(void)state;
	store_bytes(file, 0, size);
	assert_int_equal(fs_map(t.fs, file, CHUNK_SIZE, e, 1), 1);
	assert_int_equal(whole(file, CHUNK, true), 0);
	assert_true(is_whole(file, CHUNK, true));
	assert_int_equal(fs_map(t.fs, file, CHUNK_SIZE, &e[1], 1), 1);
	assert_int_equal(e[0].dev_off, e[1].dev_off);
	assert_int_equal(testfs_attr(&t, file).blocks, 2 * CHUNK);
	content_is(file, size, bytes);
	/* For who reads there has to be half of it. */
	size_set(file, (CHUNK + 100) * BLOCK_SIZE);
	assert_int_equal(whole(file, CHUNK, false), -EOPNOTSUPP);
	assert_int_equal(testfs_attr(&t, file).blocks, CHUNK + 100);
}

static void test_holes(void **state)
{
	static uint8_t want[CHUNK_SIZE];

	(void)state;
	size_set(file, 3 * CHUNK_SIZE);
	assert_int_equal(whole(file, 0, false), 0);
	assert_int_equal(testfs_attr(&t, file).blocks, 0);
	store_blk(file, 0, 1);
	store_blk(file, 17, 5);
	assert_int_equal(fs_fallocate(t.fs, &testfs_root, file, FALLOC_FL_KEEP_SIZE, 40 * BLOCK_SIZE,
				      100 * BLOCK_SIZE),
			 0);
	assert_int_equal(whole(file, 0, false), -EOPNOTSUPP);
	assert_int_equal(whole(file, 0, true), 0);
	assert_true(is_whole(file, 0, true));
	memcpy(want, bytes, BLOCK_SIZE);
	memcpy(want + 17 * BLOCK_SIZE, bytes + 17 * BLOCK_SIZE, 5 * BLOCK_SIZE);
	assert_int_equal(fs_read(t.fs, file, seen, CHUNK_SIZE, 0), CHUNK_SIZE);
	assert_memory_equal(seen, want, CHUNK_SIZE);
	/* More than half: for who reads too. */
	store_blk(file, CHUNK, 300);
	assert_int_equal(whole(file, CHUNK, false), 0);
	assert_true(is_whole(file, CHUNK, true));
	/* A hole that is stored to. */
	assert_int_equal(whole(file, 2 * CHUNK, true), 0);
	assert_true(is_whole(file, 2 * CHUNK, true));
	/* Past the end there is nothing to be done. */
	assert_int_equal(whole(file, 3 * CHUNK, true), 0);
	assert_int_equal(testfs_attr(&t, file).blocks, 3 * CHUNK);
}

static void test_shared(void **state)
{
	uint64_t other = file_make("other"), size = (2 * CHUNK + 400) * BLOCK_SIZE;

	(void)state;
	store_bytes(file, 0, size);
	clone_blk(file, other, size);
	/* What lies well is shared on. */
	assert_int_equal(whole(other, 0, false), 0);
	assert_true(is_whole(other, 0, false));
	assert_false(is_whole(other, 0, true));
	assert_int_equal(whole(other, 0, true), 0);
	assert_true(is_whole(other, 0, true));
	assert_true(is_whole(file, 0, true));
	assert_true(is_whole(file, CHUNK, false));
	/* The end is for one of them. */
	assert_int_equal(whole(other, 2 * CHUNK, false), 0);
	assert_int_equal(whole(file, 2 * CHUNK, false), 0);
	assert_true(is_whole(other, 2 * CHUNK, false) && is_whole(file, 2 * CHUNK, false));
	content_is(file, size, bytes);
	content_is(other, size, bytes);
}

/* What is shared and does not lie well is not copied for who reads. */
static void test_shared_apart(void **state)
{
	uint64_t other = file_make("other"), third = file_make("third");

	(void)state;
	store_blk(file, 0, 2 * CHUNK);
	assert_int_equal(fs_clone(t.fs, &testfs_root, file, 0, third, BLOCK_SIZE, 2 * CHUNK_SIZE, 0, NULL),
			 2 * CHUNK_SIZE);
	assert_int_equal(whole(third, 0, false), -EOPNOTSUPP);
	assert_int_equal(whole(third, 0, true), 0);
	assert_true(is_whole(third, 0, true));
	assert_false(is_whole(file, 0, true)); /* but for the last block that third does not share */
	content_is(file, 2 * CHUNK_SIZE, bytes);
	(void)other;
}

static void test_no_space(void **state)
{
	uint64_t big = file_make("big"), other = file_make("other");
	uint64_t at = 0;
	ssize_t n;

	(void)state;
	store_blk(file, 0, CHUNK);
	clone_blk(file, other, CHUNK_SIZE);
	while ((n = fs_write(t.fs, &testfs_root, big, bytes, CHUNK_SIZE, at, 0)) > 0)
		at += (uint64_t)n;
	assert_int_equal(n, -ENOSPC);
	assert_int_equal(whole(other, 0, true), -ENOSPC);
	content_is(other, CHUNK_SIZE, bytes);
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "big"), 0);
	assert_int_equal(whole(other, 0, true), 0);
	assert_true(is_whole(other, 0, true));
	content_is(file, CHUNK_SIZE, bytes);
}

static void test_small(void **state)
{
	(void)state;
	store_bytes(file, 0, 100);
	assert_int_equal(whole(file, 0, false), -EINVAL);
	assert_int_equal(whole(file, 0, true), 0);
	assert_true(is_whole(file, 0, true));
	content_is(file, 100, bytes);
}

/* ---- those who have it ---- */

static void test_asked(void **state)
{
	(void)state;
	scatter(file, 0, CHUNK);
	assert_int_equal(fs_hold(t.fs, file), 0);
	assert_int_equal(fake_grant(&fake, file, 0, CHUNK, false), 0);
	assert_int_equal(whole(file, 0, true), 0);
	assert_int_equal(fake_held_blk(&fake, file, 0, CHUNK, false), 0);
	/* Nobody is asked where nothing is to be done. */
	assert_int_equal(fake_grant(&fake, file, 0, CHUNK, true), 0);
	fake_forget(&fake);
	assert_int_equal(whole(file, 0, true), 0);
	assert_int_equal(fake.ask_count, 0);
	assert_int_equal(fake_held_blk(&fake, file, 0, CHUNK, true), CHUNK);
	fake_check(&fake);
	fake_release(&fake, file, 0, CHUNK);
	fs_unhold(t.fs, file);
}

static void hold_end(void)
{
	fake_release(&fake, file, 0, FILE_BLK);
	size_set(file, 100 * BLOCK_SIZE);
	assert_int_equal(whole(file, 0, true), 0);
	assert_int_equal(fake_grant(&fake, file, 0, CHUNK, true), 0);
	assert_int_equal(fake_held_blk(&fake, file, 0, CHUNK, true), CHUNK);
	fake_check(&fake);
}

/* Whoever may have stored past the end of the file lets go before it grows over that. */
static void test_grown(void **state)
{
	uint64_t other = file_make("other");

	(void)state;
	store_blk(file, 0, 100);
	store_blk(other, 0, 3);
	assert_int_equal(fs_hold(t.fs, file), 0);
	hold_end();
	size_set(file, 200 * BLOCK_SIZE);
	assert_int_equal(fake_held_blk(&fake, file, 100, CHUNK, false), 0);
	assert_int_equal(fake_held_blk(&fake, file, 0, 100, true), 100);
	hold_end();
	store_blk(file, 600, 1);
	assert_int_equal(fake_held_blk(&fake, file, 100, CHUNK, false), 0);
	hold_end();
	store_blk(file, 100, 1);
	assert_int_equal(fake_held_blk(&fake, file, 100, 101, false), 0);
	hold_end();
	assert_int_equal(fs_fallocate(t.fs, &testfs_root, file, 0, 150 * BLOCK_SIZE, BLOCK_SIZE), 0);
	assert_int_equal(fake_held_blk(&fake, file, 100, 151, false), 0);
	hold_end();
	assert_int_equal(fs_clone(t.fs, &testfs_root, other, 0, file, 300 * BLOCK_SIZE, BLOCK_SIZE * 3, 0,
				  NULL),
			 BLOCK_SIZE * 3);
	assert_int_equal(fake_held_blk(&fake, file, 100, 303, false), 0);
	hold_end();
	/* What it has grown over reads as zero. */
	size_set(file, CHUNK_SIZE);
	assert_int_equal(fs_read(t.fs, file, seen, CHUNK_SIZE, 0), CHUNK_SIZE);
	for (uint64_t i = 100 * BLOCK_SIZE; i < CHUNK_SIZE; i++)
		assert_int_equal(seen[i], 0);
	fake_release(&fake, file, 0, FILE_BLK);
	fs_unhold(t.fs, file);
}

/* ---- without being asked for ---- */

static void stored_in(uint64_t piece_blk)
{
	for (uint64_t blk = 0; blk < FILE_BLK; blk += piece_blk)
		store_blk(file, blk, piece_blk);
}

static void test_policy(void **state)
{
	struct inode *inode = inode_pin(t.fs, file, 1, true);
	uint64_t other, clone;
	struct inode *pinned;

	(void)state;
	stored_in(256);
	assert_int_equal(whole_count(file), 16);
	size_set(file, 0);
	stored_in(128);
	assert_int_equal(whole_count(file), 16);
	/* The first 2 MiB of what comes in small pieces begin where there is a small hole. */
	size_set(file, 0);
	stored_in(32);
	assert_in_range(whole_count(file), 15, 16);
	size_set(file, 0);
	stored_in(1);
	assert_in_range(whole_count(file), 15, 16);
	size_set(file, 0);
	inode_unpin(t.fs, inode, 1);
	assert_int_equal(fs_fallocate(t.fs, &testfs_root, file, 0, 0, FILE_BLK * BLOCK_SIZE), 0);
	assert_int_equal(whole_count(file), 16);
	other = file_make("other");
	assert_int_equal(fs_fallocate(t.fs, &testfs_root, other, 0, 100 * BLOCK_SIZE,
				      (FILE_BLK - 100) * BLOCK_SIZE),
			 0);
	assert_int_equal(whole_count(other), 15);
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "other"), 0);
	/* A clone of which all is stored to, here and there: the first few places stand for themselves, then it is chunks. */
	stored_in(256);
	clone = file_make("clone");
	clone_blk(file, clone, sizeof(bytes));
	assert_int_equal(whole_count(clone), 0);
	pinned = inode_pin(t.fs, clone, 1, true);
	for (uint64_t i = 0; i < FILE_BLK / 16; i++)
		store_blk(clone, i * 37 % (FILE_BLK / 16) * 16, 16);
	inode_unpin(t.fs, pinned, 1);
	print_message("# %u of 16 pieces of a clone\n", whole_count(clone));
	assert_in_range(whole_count(clone), 5, 16);
	assert_int_equal(whole_count(file), 16);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_asked, setup, teardown),
		cmocka_unit_test_setup_teardown(test_end, setup, teardown),
		cmocka_unit_test_setup_teardown(test_grown, setup, teardown),
		cmocka_unit_test_setup_teardown(test_holes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_space, setup, teardown),
		cmocka_unit_test_setup_teardown(test_policy, setup, teardown),
		cmocka_unit_test_setup_teardown(test_scattered, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shared, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shared_apart, setup, teardown),
		cmocka_unit_test_setup_teardown(test_small, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
