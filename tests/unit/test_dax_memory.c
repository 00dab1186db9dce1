/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Whether a plain file has memory at a place, where the file system below has blocks of a page or more, or smaller ones (as fstatfs() is made to say).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cmocka.h>

#include "dax/dax.h"

#define PAGE 4096u
#define PAGES 64u

/* The linker leads the library to these. */
int __real_fstatfs64(int fd, struct statfs *sfs);
int __wrap_fstatfs64(int fd, struct statfs *sfs);
off_t __real_lseek64(int fd, off_t off, int whence);
off_t __wrap_lseek64(int fd, off_t off, int whence);

static long block_bytes;
static unsigned hole_seeks;

int __wrap_fstatfs64(int fd, struct statfs *sfs)
{
	int rc = __real_fstatfs64(fd, sfs);

	sfs->f_bsize = block_bytes;
	sfs->f_frsize = block_bytes;
	return rc;
}

off_t __wrap_lseek64(int fd, off_t off, int whence)
{
	hole_seeks += whence == SEEK_HOLE;
	return __real_lseek64(fd, off, whence);
}

/* The way to the next hole may be long: who does not have to know it does not ask. */
static void test_memory(void **state)
{
	char path[] = "/dev/shm/test_dax_memory.XXXXXX";
	const struct dax_opts opts = { .create = true, .size_bytes = PAGES * PAGE };
	uint8_t bytes[PAGE];
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	memset(bytes, 1, sizeof(bytes));
	for (block_bytes = 1024; block_bytes <= 2 << 20; block_bytes *= 2) {
		struct dax *dax;
		char why[256];

		assert_int_equal(truncate(path, 0), 0);
		assert_int_equal(dax_open(path, &opts, &dax, why, sizeof(why)), 0);
		for (uint64_t i = 0; i < PAGES; i++)
			assert_int_equal(dax_store(dax, i * PAGE, bytes, PAGE), 0);
		for (uint64_t i = 7; i < PAGES; i += 8)
			dax_discard(dax, i * PAGE, PAGE);
		hole_seeks = 0;
		for (uint64_t i = 0; i < PAGES; i++)
			assert_true(dax_has_memory(dax, i * PAGE + 100) == (i % 8 != 7));
		assert_int_equal(hole_seeks, block_bytes < (long)PAGE ? PAGES : 0);
		dax_close(dax);
	}
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_memory) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
