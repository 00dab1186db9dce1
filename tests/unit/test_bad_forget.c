/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A thread that has met bad memory, and somebody has seen to it: the next error of an access to the pool is not taken for that once more. The linker
 * leads dax_store() here, where it fails with memory that is good, as when the pool's file cannot be written any more.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fs/fs.h"
#include "fs/owners.h"
#include "lib/testfs.h"
#include "lib/testpoison.h"

#define GROUP_BYTES ((uint64_t)16 << 20)
#define FILES 40u /* so that the inodes of the first and the last one lie in different blocks */

static struct testfs t;
static struct testpoison *poison;
static uint64_t first, last;
static uint8_t block[BLOCK_SIZE];
static bool armed;

int __real_dax_store(struct dax *dax, uint64_t off, const void *src, size_t len_bytes);
int __wrap_dax_store(struct dax *dax, uint64_t off, const void *src, size_t len_bytes);

int __wrap_dax_store(struct dax *dax, uint64_t off, const void *src, size_t len_bytes)
{
	if (armed) {
		armed = false;
		return -EIO;
	}
	return __real_dax_store(dax, off, src, len_bytes);
}

static void begin(void)
{
	const struct testfs_opts opts = { .size_bytes = 4 * GROUP_BYTES,
					  .format.ag_size_bytes = GROUP_BYTES };
	char name[] = "aa";

	testfs_make(&t, &opts);
	poison = testpoison_open(t.dax);
	if (!poison) {
		testfs_free(&t);
		skip();
	}
	memset(block, 7, sizeof(block));
	for (unsigned i = 0; i < FILES; i++) {
		name[0] = (char)('a' + i / 8);
		name[1] = (char)('a' + i % 8);
		last = testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644);
		first = i == 0 ? last : first;
	}
	assert_int_equal(fs_write(t.fs, &testfs_root, first, block, BLOCK_SIZE, 0, 0), BLOCK_SIZE);
	assert_int_equal(fs_write(t.fs, &testfs_root, last, block, BLOCK_SIZE, 0, 0), BLOCK_SIZE);
}

/* The operation is not started again, as it would be had it met bad memory. */
static void end(void)
{
	armed = true;
	assert_int_equal(fs_write(t.fs, &testfs_root, last, block, BLOCK_SIZE, BLOCK_SIZE, 0), -EIO);
	assert_false(armed);
	assert_int_equal(fs_write(t.fs, &testfs_root, last, block, BLOCK_SIZE, BLOCK_SIZE, 0), BLOCK_SIZE);
	testpoison_close(poison);
	assert_null(pool_failed(t.pool));
	testfs_check(&t);
	testfs_free(&t);
}

static uint64_t place_of(uint64_t ino)
{
	struct fs_extent e;

	assert_int_equal(fs_map(t.fs, ino, 0, &e, 1), 1);
	return e.dev_off;
}

static void test_data(void **state)
{
	uint8_t byte;

	(void)state;
	begin();
	testpoison_lines(poison, place_of(first), 1);
	assert_int_equal(fs_read(t.fs, first, &byte, 1, 0), -EIO);
	assert_int_equal(fs_read(t.fs, first, &byte, 1, LINE_SIZE), 1);
	end();
}

/* Looked at by somebody who expects it to be bad. */
static void test_look(void **state)
{
	uint64_t off;

	(void)state;
	begin();
	off = place_of(first);
	testpoison_lines(poison, off, 1);
	fs_poison_look(t.fs, off, BLOCK_SIZE);
	end();
}

static void test_clear(void **state)
{
	enum fs_poison_result result;
	uint64_t off;

	(void)state;
	begin();
	off = place_of(first);
	assert_int_equal(fs_poison_add(t.fs, off), 0);
	testpoison_page(poison, off);
	assert_int_equal(fs_poison_clear(t.fs, off, false, &result), 0);
	assert_int_equal(result, FS_POISON_STILL_BAD);
	end();
}

/* A unit that is read from its other copy. */
static void test_meta(void **state)
{
	uint64_t off;

	(void)state;
	begin();
	assert_int_equal(pool_place(t.pool, u64_align_down(first << INODE_SHIFT, BLOCK_SIZE), 0, &off), 0);
	testpoison_page(poison, off);
	assert_int_equal(testfs_attr(&t, first).size, BLOCK_SIZE);
	end();
}

/* One that moves, with what is bad in it. */
static void test_chunk(void **state)
{
	uint64_t slots = GROUP_BYTES / CHUNK_SIZE;
	struct fs_owners_pos pos = { 0 };
	struct fs_evacuation e = { 0 };
	struct fs_owner o;
	unsigned count;
	int rc;

	(void)state;
	begin();
	/* Until there is a chunk that may move. */
	for (unsigned i = 0;; i++) {
		char name[16] = "x0000";
		static uint8_t value[32768];

		assert_int_equal(fs_owners(t.fs, 0, 4 * GROUP_BYTES, &pos, &o, 1, &count), 0);
		pos = o.after;
		if (count == 1 && o.owner == OWNER_META && o.file_off % slots != 0)
			break;
		if (count == 1)
			continue;
		pos = (struct fs_owners_pos){ 0 };
		name[1] = (char)('a' + i / 26 / 26 % 26);
		name[2] = (char)('a' + i / 26 % 26);
		name[3] = (char)('a' + i % 26);
		assert_int_equal(fs_setxattr(t.fs, testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644),
					     "user.a", value, sizeof(value), 0, false),
				 0);
	}
	/* One that nobody uses. */
	testpoison_page(poison, o.dev_off + o.len - BLOCK_SIZE);
	e.dev_off = o.dev_off;
	e.len = o.len;
	assert_int_equal(fs_evacuate(t.fs, &e), 0);
	while ((rc = fs_evacuate_step(t.fs, e.id, GROUP_BYTES, &e)) == 1)
		;
	assert_int_equal(rc, 0);
	assert_true(e.meta_bytes > 0);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_data), cmocka_unit_test(test_look),  cmocka_unit_test(test_clear),
		cmocka_unit_test(test_meta), cmocka_unit_test(test_chunk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
