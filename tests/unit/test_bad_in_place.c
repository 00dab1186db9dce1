/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad memory under file data that stays where it is, since the mount is read-only or there is no space: all that can be read of it is read.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fs/core.h"
#include "lib/testfs.h"
#include "lib/testpoison.h"

#define FILE_BLOCKS 3u
#define FILE_BYTES (FILE_BLOCKS * BLOCK_SIZE)
#define BAD_BLK 1u
#define OWNERS 3u

static struct testfs t;
static struct testpoison *poison;
static uint8_t content[FILE_BYTES];
static uint64_t owners[OWNERS], bad_off;

static uint64_t place_of(uint64_t ino)
{
	struct fs_extent e;

	assert_int_equal(fs_map(t.fs, ino, BAD_BLK * BLOCK_SIZE, &e, 1), 1);
	return e.dev_off + (BAD_BLK * BLOCK_SIZE - e.file_off);
}

/* Files that share their blocks. */
static void begin(uint64_t size_bytes)
{
	const struct testfs_opts opts = { .size_bytes = size_bytes };

	testfs_make(&t, &opts);
	poison = testpoison_open(t.dax);
	if (!poison) {
		testfs_free(&t);
		skip();
	}
	for (unsigned i = 0; i < FILE_BYTES; i++)
		content[i] = (uint8_t)(i * 31 + i / 256 + 1);
	for (unsigned i = 0; i < OWNERS; i++) {
		char name[2] = { (char)('0' + i), '\0' };

		owners[i] = testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644);
		if (i == 0)
			assert_int_equal(fs_write(t.fs, &testfs_root, owners[0], content, FILE_BYTES, 0, 0),
					 FILE_BYTES);
		else
			assert_int_equal(fs_clone(t.fs, &testfs_root, owners[0], 0, owners[i], 0, FILE_BYTES,
						  0, NULL),
					 FILE_BYTES);
	}
	bad_off = place_of(owners[0]);
}

static void end(void)
{
	testpoison_close(poison);
	assert_null(pool_failed(t.pool));
	testfs_check(&t);
	testfs_free(&t);
}

/* Every line of a file: lost ones cannot be read, all others are as they were. */
static void file_check(uint64_t ino, uint64_t lost)
{
	uint8_t line[LINE_SIZE];

	for (uint64_t off = 0; off < FILE_BYTES; off += LINE_SIZE) {
		bool gone = off / BLOCK_SIZE == BAD_BLK && lost >> off % BLOCK_SIZE / LINE_SIZE & 1;

		assert_int_equal(fs_read(t.fs, ino, line, LINE_SIZE, off), gone ? -EIO : (int)LINE_SIZE);
		if (!gone)
			assert_memory_equal(line, content + off, LINE_SIZE);
	}
}

static void files_check(uint64_t lost)
{
	for (unsigned i = 0; i < OWNERS; i++)
		file_check(owners[i], lost);
}

/* Up to a line that cannot be read. Only of pages, which the kernel keeps as a whole, nothing. */
static void in_place_check(uint64_t ino)
{
	uint8_t bytes[FILE_BYTES];
	uint64_t bad = BAD_BLK * BLOCK_SIZE;

	file_check(ino, 0x8100);
	assert_true(testfs_attr(&t, ino).flags & INODE_LOST);
	assert_int_equal(fs_read(t.fs, ino, bytes, FILE_BYTES, 1), bad + 8 * LINE_SIZE - 1);
	assert_memory_equal(bytes, content + 1, bad + 8 * LINE_SIZE - 1);
	assert_int_equal(fs_read(t.fs, ino, bytes, FILE_BYTES, bad + 9 * LINE_SIZE + 5), 6 * LINE_SIZE - 5);
	assert_memory_equal(bytes, content + bad + 9 * LINE_SIZE + 5, 6 * LINE_SIZE - 5);
	assert_int_equal(fs_read(t.fs, ino, bytes, 1, bad + 9 * LINE_SIZE - 1), -EIO);
	assert_int_equal(fs_read(t.fs, ino, bytes, FILE_BYTES, bad + 16 * LINE_SIZE),
			 FILE_BYTES - bad - 16 * LINE_SIZE);
	assert_memory_equal(bytes, content + bad + 16 * LINE_SIZE, FILE_BYTES - bad - 16 * LINE_SIZE);
	assert_int_equal(fs_read_pages(t.fs, ino, bytes, BLOCK_SIZE, bad), -EIO);
	assert_int_equal(fs_read_pages(t.fs, ino, bytes, FILE_BYTES, 0), -EIO);
	assert_int_equal(fs_read_pages(t.fs, ino, bytes, BLOCK_SIZE, bad - BLOCK_SIZE), BLOCK_SIZE);
	assert_memory_equal(bytes, content + bad - BLOCK_SIZE, BLOCK_SIZE);
	assert_int_equal(fs_read_pages(t.fs, ino, bytes, 2 * BLOCK_SIZE, bad + BLOCK_SIZE),
			 FILE_BYTES - bad - BLOCK_SIZE);
}

static void test_readonly(void **state)
{
	struct inode_attr attr;

	(void)state;
	begin(0);
	t.opts.fs.readonly = true;
	testfs_remount(&t);
	files_check(0);
	assert_false(testfs_attr(&t, owners[0]).flags & INODE_LOST);
	testpoison_lines(poison, bad_off, 0x8100);
	for (unsigned i = 0; i < OWNERS; i++) {
		char name[2] = { (char)('0' + i), '\0' };

		assert_int_equal(testfs_lookup(&t, INODE_ROOT, name, &attr),
				 0); /* a reference: it is remembered */
		in_place_check(owners[i]);
		fs_forget(t.fs, owners[i], 1);
	}
	testpoison_heal_all(poison);
	t.opts.fs.readonly = false;
	testfs_remount(&t);
	files_check(0);
	assert_false(testfs_attr(&t, owners[0]).flags & INODE_LOST);
	end();
}

/* There is no space to save anything to. */
static void test_no_room(void **state)
{
	uint64_t at = 0, fill;
	ssize_t n;

	(void)state;
	begin((uint64_t)16 << 20);
	fill = testfs_node(&t, INODE_ROOT, "fill", S_IFREG | 0644);
	for (uint64_t len = FILE_BYTES; len >= BLOCK_SIZE; len -= BLOCK_SIZE) {
		while ((n = fs_write(t.fs, &testfs_root, fill, content, len, at, 0)) > 0)
			at += (uint64_t)n;
	}
	testpoison_lines(poison, bad_off, 0x8100);
	for (unsigned i = 0; i < OWNERS; i++)
		in_place_check(owners[i]);
	assert_int_equal(place_of(owners[0]), bad_off);
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "fill"), 0);
	fs_work(t.fs);
	files_check(0x8100);
	assert_int_not_equal(place_of(owners[0]), bad_off);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_readonly),
		cmocka_unit_test(test_no_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
