/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad memory under a file of a full pool stays where it is. It is not handed out when the file goes, and the file leaves it when there is room.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#include "fs/core.h"
#include "fs/owners.h"
#include "lib/testfs.h"
#include "lib/testpoison.h"

#define POOL_BYTES ((uint64_t)32 << 20)

static struct testfs t;
static struct testpoison *poison;
static uint64_t lost_ino, bad_off;
static uint8_t bytes[16 * BLOCK_SIZE];

static uint64_t file_make(const char *name, size_t len)
{
	uint64_t ino = testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644);

	assert_int_equal(fs_write(t.fs, &testfs_root, ino, bytes, len, 0, 0), len);
	return ino;
}

static void fill(void)
{
	uint64_t ino = testfs_node(&t, INODE_ROOT, "fill", S_IFREG | 0644), at = 0;
	ssize_t n;

	for (size_t len = sizeof(bytes); len >= BLOCK_SIZE; len /= 2)
		while ((n = fs_write(t.fs, &testfs_root, ino, bytes, len, at, 0)) > 0)
			at += (uint64_t)n;
}

/* A file with a block in bad memory that has nowhere to go, as somebody has found out. */
static void begin(bool background)
{
	const struct testfs_opts opts = { .size_bytes = POOL_BYTES, .fs.background = background };
	struct fs_extent x;
	uint8_t byte;

	memset(bytes, 3, sizeof(bytes));
	testfs_make(&t, &opts);
	poison = testpoison_open(t.dax);
	if (!poison) {
		testfs_free(&t);
		skip();
	}
	lost_ino = file_make("lost", sizeof(bytes));
	file_make("other", sizeof(bytes));
	fill();
	assert_int_equal(fs_map(t.fs, lost_ino, 3 * BLOCK_SIZE, &x, 1), 1);
	bad_off = x.dev_off + (3 * BLOCK_SIZE - x.file_off);
	testpoison_page(poison, bad_off);
	assert_int_equal(fs_read(t.fs, lost_ino, &byte, 1, 3 * BLOCK_SIZE), -EIO);
}

static void end(void)
{
	assert_null(pool_failed(t.pool));
	testpoison_close(poison);
	testfs_check(&t);
	testfs_free(&t);
}

static uint64_t owner_of(uint64_t off)
{
	static const struct fs_owners_pos start;
	struct fs_owner owner;
	unsigned count;

	assert_int_equal(fs_owners(t.fs, off, BLOCK_SIZE, &start, &owner, 1, &count), 0);
	return count ? owner.owner : 0;
}

static void test_removed(void **state)
{
	(void)state;
	begin(false);
	assert_true(owner_of(bad_off) == lost_ino);
	fs_work(t.fs);
	assert_true(owner_of(bad_off) == lost_ino);
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "lost"), 0);
	fs_work(t.fs);
	assert_true(owner_of(bad_off) == OWNER_BAD);
	end();
}

/* A store is the first to meet it: the file is to get another block, and there is none; nothing of it is unreadable because of that. */
static void test_stored(void **state)
{
	struct fs_extent x;
	uint64_t ino, off;

	(void)state;
	begin(false);
	ino = lost_ino;
	assert_int_equal(fs_map(t.fs, ino, 5 * BLOCK_SIZE, &x, 1), 1);
	off = x.dev_off + (5 * BLOCK_SIZE - x.file_off);
	testpoison_page(poison, off);
	assert_int_equal(fs_write(t.fs, &testfs_root, ino, bytes, BLOCK_SIZE, 5 * BLOCK_SIZE, 0), -ENOSPC);
	assert_true(owner_of(off) == ino);
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "fill"), 0);
	assert_int_equal(fs_write(t.fs, &testfs_root, ino, bytes, BLOCK_SIZE, 5 * BLOCK_SIZE, 0), BLOCK_SIZE);
	assert_int_equal(fs_read(t.fs, ino, bytes, BLOCK_SIZE, 5 * BLOCK_SIZE), BLOCK_SIZE);
	fs_work(t.fs);
	assert_true(owner_of(off) == OWNER_BAD);
	end();
}

#define MANY 150u

static uint64_t fill_ino(void)
{
	struct inode_attr attr;

	assert_int_equal(testfs_lookup(&t, INODE_ROOT, "fill", &attr), 0);
	fs_forget(t.fs, attr.ino, 1);
	return attr.ino;
}

/* More of them than a list of a few places would hold; they are all found when the file goes, be it at the end of the mount. */
static void removed_many(bool is_open)
{
	uint64_t offs[MANY], ino;
	struct fs_extent x;
	uint8_t byte;

	begin(false);
	ino = fill_ino();
	for (unsigned i = 0; i < MANY; i++) {
		uint64_t off = i * BLOCK_SIZE;

		assert_int_equal(fs_map(t.fs, ino, off, &x, 1), 1);
		offs[i] = x.dev_off + (off - x.file_off);
		testpoison_page(poison, offs[i]);
		assert_int_equal(fs_read(t.fs, ino, &byte, 1, off), -EIO);
		assert_true(owner_of(offs[i]) == ino);
	}
	if (is_open)
		assert_int_equal(fs_opened(t.fs, ino, 0, &testfs_root), 0);
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "fill"), 0);
	if (is_open)
		testfs_remount(&t);
	else
		fs_work(t.fs);
	for (unsigned i = 0; i < MANY; i++)
		assert_true(owner_of(offs[i]) == OWNER_BAD);
	end();
}

static void test_removed_many(void **state)
{
	(void)state;
	removed_many(false);
	removed_many(true);
}

static void test_room(void **state)
{
	(void)state;
	begin(false);
	assert_true(owner_of(bad_off) == lost_ino);
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "other"), 0);
	fs_work(t.fs);
	assert_true(owner_of(bad_off) == OWNER_BAD);
	end();
}

static void test_background(void **state)
{
	const struct timespec a_moment = { .tv_nsec = 1000000 };

	(void)state;
	begin(true);
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "lost"), 0);
	/* If it never is, the limit of the suite ends it. */
	while (owner_of(bad_off) != OWNER_BAD)
		nanosleep(&a_moment, NULL);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_removed),      cmocka_unit_test(test_stored),
		cmocka_unit_test(test_removed_many), cmocka_unit_test(test_room),
		cmocka_unit_test(test_background),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
