/* SPDX-License-Identifier: BSD-3-Clause */
/* Writes around the page cache: they notice pages that were read meanwhile. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "lib/testfs.h"

static struct testfs t;
static uint64_t file;

static int setup(void **state)
{
	(void)state;
	testfs_make(&t, NULL);
	file = testfs_node(&t, INODE_ROOT, "f", S_IFREG | 0644);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	testfs_free(&t);
	return 0;
}

static int file_open(unsigned flags)
{
	return fs_opened(t.fs, file, flags, &testfs_root);
}

static void page_read(void)
{
	uint8_t page[BLOCK_SIZE];

	assert_true(fs_read_pages(t.fs, file, page, sizeof(page), 0) >= 0);
}

static ssize_t direct(char byte, uint64_t off, uint64_t page_reads)
{
	struct fs_direct how = { .page_reads = page_reads };
	ssize_t n = fs_write_direct(t.fs, &testfs_root, file, &byte, 1, off, 0, &how);

	assert_false(how.mode_changed);
	return n;
}

static char first_byte(void)
{
	char byte = 0;

	assert_int_equal(fs_read(t.fs, file, &byte, 1, 0), 1);
	return byte;
}

static void test_reads_count_while_written(void **state)
{
	(void)state;
	page_read();
	assert_int_equal(fs_page_reads(t.fs, file), 0);
	assert_int_equal(file_open(0), 0);
	page_read();
	assert_int_equal(fs_page_reads(t.fs, file), 0);
	assert_int_equal(file_open(FS_OPEN_WRITE), 0);
	assert_int_equal(file_open(FS_OPEN_WRITE), 0);
	assert_int_equal(direct('a', 0, 0), 1);
	assert_int_equal(first_byte(), 'a'); /* not into the cache */
	assert_int_equal(fs_page_reads(t.fs, file), 0);
	page_read();
	page_read();
	assert_int_equal(fs_page_reads(t.fs, file), 2);
	fs_closed(t.fs, file, FS_OPEN_WRITE);
	assert_int_equal(fs_page_reads(t.fs, file), 2);
	fs_closed(t.fs, file, FS_OPEN_WRITE);
	assert_int_equal(fs_page_reads(t.fs, file), 0);
	fs_closed(t.fs, file, 0);
}

static void test_beside_readers(void **state)
{
	(void)state;
	assert_int_equal(file_open(FS_OPEN_WRITE), 0);
	assert_int_equal(direct('a', 0, 0), 1);
	page_read();
	assert_int_equal(direct('b', 0, 0), -EAGAIN);
	assert_int_equal(direct('b', 1, 0), -EAGAIN);
	assert_int_equal(testfs_attr(&t, file).size, 1);
	assert_int_equal(first_byte(), 'a');
	assert_int_equal(direct('b', 0, 1), 1);
	page_read();
	assert_int_equal(direct('c', 0, 1), -EAGAIN);
	assert_int_equal(first_byte(), 'b');
	/* Other writes do not ask. */
	assert_int_equal(fs_write(t.fs, &testfs_root, file, "e", 1, 0, 0), 1);
	fs_closed(t.fs, file, FS_OPEN_WRITE);
}

static void test_mappable(void **state)
{
	(void)state;
	assert_false(fs_is_mappable(t.fs, file));
	assert_int_equal(file_open(FS_OPEN_WRITE), 0);
	assert_int_equal(file_open(0), 0);
	assert_false(fs_is_mappable(t.fs, file));
	assert_int_equal(file_open(FS_OPEN_WRITE | FS_OPEN_MAP), 0);
	assert_true(fs_is_mappable(t.fs, file));
	fs_closed(t.fs, file, FS_OPEN_WRITE);
	assert_true(fs_is_mappable(t.fs, file));
	fs_closed(t.fs, file, FS_OPEN_WRITE | FS_OPEN_MAP);
	assert_false(fs_is_mappable(t.fs, file));
	fs_closed(t.fs, file, 0);
}

static void test_mode_changed(void **state)
{
	struct fs_set set = { .what = FS_SET_MODE, .mode = 04755 };
	struct fs_direct how = { 0 };
	struct inode_attr attr;

	(void)state;
	assert_int_equal(fs_setattr(t.fs, &testfs_root, file, &set, &attr), 0);
	assert_int_equal(fs_write_direct(t.fs, NULL, file, "x", 1, 0, 0, &how), 1);
	assert_false(how.mode_changed);
	assert_int_equal(fs_write_direct(t.fs, NULL, file, "x", 1, 0, FS_WRITE_KILLPRIV, &how), 1);
	assert_true(how.mode_changed);
	assert_int_equal(testfs_attr(&t, file).mode & 07777, 0755);
	assert_int_equal(fs_write_direct(t.fs, NULL, file, "x", 1, 0, FS_WRITE_KILLPRIV, &how), 1);
	assert_false(how.mode_changed);
}

/* One that could not be opened does not count. */
static void test_failed_open(void **state)
{
	(void)state;
	struct fs_set set = { .what = FS_SET_FLAGS, .flags = INODE_IMMUTABLE };
	struct inode_attr attr;

	assert_int_equal(fs_setattr(t.fs, &testfs_root, file, &set, &attr), 0);
	assert_int_equal(file_open(FS_OPEN_WRITE | FS_OPEN_MAP), -EPERM);
	assert_false(fs_is_mappable(t.fs, file));
	page_read();
	assert_int_equal(fs_page_reads(t.fs, file), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_reads_count_while_written, setup, teardown),
		cmocka_unit_test_setup_teardown(test_beside_readers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mappable, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mode_changed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_failed_open, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
