/* SPDX-License-Identifier: BSD-3-Clause */
/* Writes around the page cache: they notice pages that were read meanwhile and that a mapping may store into. */
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

static ssize_t direct(char byte, unsigned flags, uint64_t page_reads)
{
	return fs_write_direct(t.fs, &testfs_root, file, &byte, 1, 0, flags, page_reads);
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
	page_read();
	page_read();
	assert_int_equal(direct('a', 0, 0), 1);
	assert_int_equal(first_byte(), 'a'); /* not into the cache */
	assert_int_equal(fs_page_reads(t.fs, file), 2);
	fs_closed(t.fs, file, FS_OPEN_WRITE);
	assert_int_equal(fs_page_reads(t.fs, file), 2);
	fs_closed(t.fs, file, FS_OPEN_WRITE);
	assert_int_equal(fs_page_reads(t.fs, file), 0);
	fs_closed(t.fs, file, 0);
}

static void test_beside_a_mapping(void **state)
{
	(void)state;
	assert_int_equal(file_open(FS_OPEN_WRITE), 0);
	assert_int_equal(file_open(FS_OPEN_WRITE | FS_OPEN_MAP), 0);
	assert_int_equal(direct('a', 0, 0), 1);
	page_read();
	assert_int_equal(direct('b', 0, 0), -EAGAIN);
	assert_int_equal(first_byte(), 'a');
	assert_int_equal(direct('b', 0, 1), 1);
	page_read();
	assert_int_equal(direct('c', 0, 1), -EAGAIN);
	assert_int_equal(first_byte(), 'b');
	fs_closed(t.fs, file, FS_OPEN_WRITE | FS_OPEN_MAP);
	/* Nobody is left who may store. */
	assert_int_equal(direct('c', 0, 0), 1);
	assert_int_equal(direct('d', FS_WRITE_NO_PAGES, 0), -EAGAIN);
	assert_int_equal(direct('d', FS_WRITE_NO_PAGES, 2), 1);
	assert_int_equal(first_byte(), 'd');
	/* Other writes do not ask. */
	assert_int_equal(fs_write(t.fs, &testfs_root, file, "e", 1, 0, 0), 1);
	fs_closed(t.fs, file, FS_OPEN_WRITE);
}

/* Pages that were read while only such had it open that cannot store into them: the first that can must not find them. */
static void test_mapping_comes_later(void **state)
{
	(void)state;
	assert_int_equal(file_open(FS_OPEN_WRITE | FS_OPEN_MAP), 0);
	page_read();
	assert_int_equal(file_open(FS_OPEN_WRITE | FS_OPEN_MAP), 0); /* all of them look at pages alike */
	assert_int_equal(file_open(FS_OPEN_WRITE), 0);
	assert_int_equal(file_open(FS_OPEN_WRITE | FS_OPEN_MAP), 1);
	assert_int_equal(file_open(FS_OPEN_WRITE | FS_OPEN_MAP), 1);
	assert_int_equal(file_open(0), 0);
	assert_int_equal(file_open(FS_OPEN_WRITE), 0);
	fs_closed(t.fs, file, FS_OPEN_WRITE);
	fs_closed(t.fs, file, FS_OPEN_WRITE);
	assert_int_equal(file_open(FS_OPEN_WRITE | FS_OPEN_MAP), 0);
	for (unsigned i = 0; i < 5; i++)
		fs_closed(t.fs, file, FS_OPEN_WRITE | FS_OPEN_MAP);
	fs_closed(t.fs, file, 0);
	assert_int_equal(fs_page_reads(t.fs, file), 0);
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
		cmocka_unit_test_setup_teardown(test_beside_a_mapping, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mapping_comes_later, setup, teardown),
		cmocka_unit_test_setup_teardown(test_failed_open, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
