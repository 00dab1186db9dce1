/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A store that begins in the middle of a lost line, and zeroing that begins or ends there, changes nothing, even if it is the first to meet the bad memory, and
 * wherever its bytes come from: a copy may begin with the last of them.
 */
#include <errno.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fs/core.h"
#include "lib/testfs.h"
#include "lib/testpoison.h"

#define FILE_BLOCKS 4u
#define FILE_BYTES (FILE_BLOCKS * BLOCK_SIZE)

static struct testfs t;
static struct testpoison *poison;
static uint8_t content[FILE_BYTES], got[FILE_BYTES];
static _Alignas(BLOCK_SIZE) uint8_t bytes[2 * FILE_BYTES];

static void begin(void)
{
	testfs_make(&t, NULL);
	poison = testpoison_open(t.dax);
	if (!poison) {
		testfs_free(&t);
		skip();
	}
	for (unsigned i = 0; i < FILE_BYTES; i++)
		content[i] = (uint8_t)(i * 31 + i / 256 + 1);
	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 17 + i / 256 + 3);
}

static void end(void)
{
	testpoison_close(poison);
	testfs_check(&t);
	testfs_free(&t);
}

/* A file in one piece, whose block 1 loses those lines when somebody touches it. */
static uint64_t file_make(uint64_t lines)
{
	uint64_t ino = testfs_node(&t, INODE_ROOT, "f", S_IFREG | 0644);
	struct fs_extent e;

	assert_int_equal(fs_write(t.fs, &testfs_root, ino, content, FILE_BYTES, 0, 0), FILE_BYTES);
	assert_int_equal(fs_map(t.fs, ino, 0, &e, 1), 1);
	assert_int_equal(e.len, FILE_BYTES);
	testpoison_lines(poison, e.dev_off + BLOCK_SIZE, lines);
	return ino;
}

/* As it was, but for one line. */
static void file_check(uint64_t ino, uint64_t lost_off)
{
	uint64_t behind = lost_off + LINE_SIZE;

	assert_int_equal(fs_read(t.fs, ino, got, FILE_BYTES, 0), lost_off);
	assert_memory_equal(got, content, lost_off);
	assert_int_equal(fs_read(t.fs, ino, got, LINE_SIZE, lost_off), -EIO);
	assert_int_equal(fs_read(t.fs, ino, got, FILE_BYTES, behind), FILE_BYTES - behind);
	assert_memory_equal(got, content + behind, FILE_BYTES - behind);
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "f"), 0);
	fs_work(t.fs);
}

/* From the line's byte at on, up to end, which is in a later block. */
static void refused(unsigned line, uint64_t at, uint64_t end)
{
	uint64_t lost_off = BLOCK_SIZE + line * LINE_SIZE, off = lost_off + at;

	for (unsigned from = 0; from < BLOCK_SIZE; from += 256) {
		uint64_t ino = file_make(1ull << line);

		assert_int_equal(fs_write(t.fs, &testfs_root, ino, bytes + from, end - off, off, 0), -EIO);
		file_check(ino, lost_off);
	}
}

static void test_refused(void **state)
{
	static const uint64_t ends[] = { 2 * BLOCK_SIZE + 5, 2 * BLOCK_SIZE + 50, 2 * BLOCK_SIZE + 200,
					 3 * BLOCK_SIZE, FILE_BYTES };

	(void)state;
	begin();
	for (unsigned i = 0; i < ARRAY_SIZE(ends); i++) {
		refused(63, 63, ends[i]);
		refused(63, 50, ends[i]);
		refused(57, 17, ends[i]);
		refused(0, 1, ends[i]);
	}
	end();
}

static void zeroed(int mode, uint64_t off, uint64_t end, unsigned line)
{
	uint64_t ino = file_make(1ull << line);

	assert_int_equal(fs_fallocate(t.fs, &testfs_root, ino, mode, off, end - off), -EIO);
	file_check(ino, BLOCK_SIZE + line * LINE_SIZE);
}

static void test_zeroed(void **state)
{
	static const int modes[] = { FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE };

	(void)state;
	begin();
	for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
		zeroed(modes[i], 100, BLOCK_SIZE + 10 * LINE_SIZE + 1, 10);
		zeroed(modes[i], BLOCK_SIZE + 64, BLOCK_SIZE + 10 * LINE_SIZE + 1, 10);
		zeroed(modes[i], BLOCK_SIZE + 10 * LINE_SIZE + 63, 3 * BLOCK_SIZE + 100, 10);
	}
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_zeroed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
