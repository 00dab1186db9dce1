/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The consistency walk on media that lie: units with wrong content and a good CRC, by chance. UMBRA_SEED replays a run.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "lib/testunit.h"
#include "media/ag.h"
#include "repair/check.h"

#define POOL_BYTES ((uint64_t)16 << 20)
#define FILE_BYTES ((uint64_t)1 << 20)

/* A number that may be taken for something. */
static uint64_t lie(uint64_t *random)
{
	static const uint64_t numbers[] = { 0,          1,          2,          511,        512,       4096,
					    1ull << 20, 1ull << 31, 1ull << 55, 1ull << 63, UINT64_MAX };

	switch (testfs_below(random, 4)) {
	case 0:
		return numbers[testfs_below(random, ARRAY_SIZE(numbers))];
	case 1:
		return testfs_below(random, CHUNK_BLOCKS) * BLOCK_SIZE; /* a unit */
	case 2:
		return testfs_below(random, POOL_BYTES / BLOCK_SIZE);
	default:
		return testfs_random(random);
	}
}

/* Some bytes of a unit, in both copies, with a good CRC. */
static void unit_lies(uint8_t *unit, size_t size, uint64_t *random)
{
	for (uint64_t i = 1 + testfs_below(random, 4); i > 0; i--) {
		size_t width = (size_t)1 << testfs_below(random, 4);
		size_t room = testfs_below(random, 2) ? size : 256; /* most of what matters lies in front */
		size_t at = 48 + testfs_below(random, (room - 48) / width) * width;
		uint64_t value = lie(random);

		memcpy(unit + (at < size - width ? at : size - width), &value, width);
	}
}

/* Files of some kinds, and directories that need trees. */
static void content_make(struct testfs *t)
{
	uint8_t *bytes = calloc(1, FILE_BYTES);
	struct inode_attr a, b, link, dir;
	char name[200];

	assert_int_equal(testfs_mknod(t, INODE_ROOT, "file", S_IFREG | 0644, &a), 0);
	assert_int_equal(testfs_mknod(t, INODE_ROOT, "clone", S_IFREG | 0644, &b), 0);
	assert_int_equal(testfs_mknod(t, INODE_ROOT, "dir", S_IFDIR | 0755, &dir), 0);
	assert_int_equal(fs_write(t->fs, &testfs_root, a.ino, bytes, FILE_BYTES, 0, 0), FILE_BYTES);
	assert_int_equal(fs_clone(t->fs, &testfs_root, a.ino, 0, b.ino, 0, FILE_BYTES / 2, 0, NULL),
			 FILE_BYTES / 2);
	for (unsigned i = 0; i < 40; i++)
		assert_int_equal(fs_write(t->fs, &testfs_root, b.ino, bytes, 100, i * 10000, 0), 100);
	assert_int_equal(fs_symlink(t->fs, &testfs_root, INODE_ROOT, "link", 4, "file", 4, &link), 0);
	assert_int_equal(fs_setxattr(t->fs, a.ino, "user.big", bytes, 10000, 0, false), 0);
	memset(name, 'n', sizeof(name));
	for (unsigned i = 0; i < 100; i++) {
		snprintf(name + 150, sizeof(name) - 150, "%u", i);
		assert_int_equal(testfs_mknod(t, dir.ino, name, S_IFREG | 0600, NULL), 0);
	}
	free(bytes);
}

static uint64_t findings(struct testfs *t)
{
	struct check_opts opts = { 0 };
	struct check_report report;

	assert_int_equal(check_pool(t->pool, &opts, &report), 0);
	return report.findings;
}

/* Whatever a unit says, the walk comes to its end. */
static void test_lying_media(void **state)
{
	struct testfs_opts opts = { .size_bytes = POOL_BYTES };
	uint64_t random = testfs_seed(), found = 0;
	_Alignas(64) uint8_t unit[BLOCK_SIZE], good[BLOCK_SIZE];
	struct testfs t;

	(void)state;
	testfs_make(&t, &opts);
	content_make(&t);
	for (unsigned i = 0; i < 4000; i++) {
		uint64_t laddr = testfs_below(&random, 80) * BLOCK_SIZE;
		size_t size = BLOCK_SIZE;

		if (laddr < AG_UNIT_HEADER * BLOCK_SIZE) {
			laddr = (1 + testfs_below(&random, 12)) << INODE_SHIFT;
			size = INODE_SIZE;
		}
		testunit_load(&t, laddr, good, size);
		if (unit_size(unit_magic(good)) != size)
			continue;
		memcpy(unit, good, size);
		unit_lies(unit, size, &random);
		testunit_store(&t, laddr, unit, size, TESTUNIT_BOTH);
		found += findings(&t) != 0;
		testunit_store(&t, laddr, good, size, TESTUNIT_BOTH);
	}
	assert_true(found > 500);
	assert_int_equal(findings(&t), 0);
	testfs_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lying_media),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
