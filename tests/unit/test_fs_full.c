/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Stores and copies on a full file system: what was stored in place before space ran out cannot be taken back, so the call says how far
 * it got; a call that fails has changed nothing.
 */
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

#include "lib/testfs.h"
#include "media/inode.h"
#include "media/node.h"

#define BLK ((uint64_t)BLOCK_SIZE)
#define FILE_BLK 300u
#define FILE_BYTES (FILE_BLK * BLK)
#define PIECES ((INODE_DATA_SIZE - sizeof(struct m_node_body)) / sizeof(struct m_extent)) /* in an inode */
#define SHREDDED 16u

static struct testfs t;
static uint64_t src, dst;
static uint8_t src_bytes[FILE_BYTES], dst_bytes[FILE_BYTES], seen[FILE_BYTES];

static void put(uint64_t ino, const uint8_t *bytes, uint64_t off, uint64_t len)
{
	assert_int_equal(fs_write(t.fs, &testfs_root, ino, bytes + off, len, off, 0), (int)len);
}

/* The destination holds what it should. */
static void dst_check(void)
{
	assert_int_equal(fs_read(t.fs, dst, seen, FILE_BYTES, 0), (int)FILE_BYTES);
	for (uint64_t i = 0; i < FILE_BYTES; i++) {
		if (seen[i] != dst_bytes[i])
			fail_msg("byte %u of block %u is %02x, not %02x", (unsigned)(i % BLK),
				 (unsigned)(i / BLK), seen[i], dst_bytes[i]);
	}
}

/* A file of that size without blocks is the destination. */
static uint64_t dst_make(const char *name)
{
	struct fs_set set = { .what = FS_SET_SIZE, .size = FILE_BYTES };
	struct inode_attr attr;

	dst = testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644);
	memset(dst_bytes, 0, sizeof(dst_bytes));
	assert_int_equal(fs_setattr(t.fs, &testfs_root, dst, &set, &attr), 0);
	return dst;
}

static int setup(void **state)
{
	(void)state;
	testfs_make(&t, &(struct testfs_opts){ .size_bytes = (uint64_t)24 << 20 });
	src = testfs_node(&t, INODE_ROOT, "src", S_IFREG | 0644);
	for (uint64_t i = 0; i < FILE_BYTES; i++)
		src_bytes[i] = (uint8_t)(1 + (i + i / BLK) % 255);
	put(src, src_bytes, 0, FILE_BYTES);
	dst_make("dst");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	testfs_check(&t);
	testfs_free(&t);
	return 0;
}

/* Blocks of the destination that it is alone with. */
static void dst_fill(uint64_t blk, uint64_t count_blk)
{
	memset(dst_bytes + blk * BLK, 0xee, count_blk * BLK);
	put(dst, dst_bytes, blk * BLK, count_blk * BLK);
}

/* Each second block, as many as need no node. */
static void dst_shred(void)
{
	for (uint64_t i = 0; i < PIECES; i++)
		dst_fill(2 * i, 1);
}

/* A file takes all blocks but some. */
static void blocks_use_up(uint64_t leave_blk)
{
	uint64_t ino = testfs_node(&t, INODE_ROOT, "filler", S_IFREG | 0644), off = 0;

	for (uint64_t len = (uint64_t)16 << 20; len >= BLK; len /= 2) {
		while (fs_fallocate(t.fs, &testfs_root, ino, FALLOC_FL_KEEP_SIZE, off, len) == 0)
			off += len;
	}
	if (leave_blk > 0)
		assert_int_equal(fs_fallocate(t.fs, &testfs_root, ino,
					      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, leave_blk * BLK),
				 0);
}

/* Small files take the metadata units that trees of inodes could have. */
static void units_use_up(void)
{
	int rc = 0;

	for (unsigned i = 0; rc == 0; i++) {
		char name[20];

		snprintf(name, sizeof(name), "small%u", i);
		rc = testfs_mknod(&t, INODE_ROOT, name, S_IFREG | 0644, NULL);
	}
	assert_int_equal(rc, -ENOSPC);
}

/* From src, which is never in step with dst within blocks. Returns what the call returned, after comparing. */
static int64_t copy(uint64_t dst_off, uint64_t len)
{
	uint64_t src_off = dst_off + 1;
	int64_t got = fs_clone(t.fs, &testfs_root, src, src_off, dst, dst_off, len, 0, NULL);

	if (got > 0)
		memcpy(dst_bytes + dst_off, src_bytes + src_off, (size_t)got);
	dst_check();
	return got;
}

/* A store of the same bytes. */
static int64_t overwrite(uint64_t off, uint64_t len)
{
	int64_t got = fs_write(t.fs, &testfs_root, dst, src_bytes + off + 1, len, off, 0);

	if (got > 0)
		memcpy(dst_bytes + off, src_bytes + off + 1, (size_t)got);
	dst_check();
	return got;
}

/* More than is copied at a time is stored in place, then there are no blocks for the rest of a part. */
static void test_copy_without_blocks(void **state)
{
	(void)state;
	dst_fill(0, 200);
	blocks_use_up(0);
	assert_int_equal(copy(0, 250 * BLK), 200 * BLK);
	assert_int_equal(copy(200 * BLK, 50 * BLK), -ENOSPC);
	assert_int_equal(copy(100 * BLK + 7, 150 * BLK), 100 * BLK - 7);
}

/* The same where no part of what is copied at a time has been stored, and with a block for a hole before that. */
static void test_copy_without_blocks_for_a_part(void **state)
{
	(void)state;
	dst_fill(0, 64);
	dst_fill(65, 63);
	blocks_use_up(1);
	assert_int_equal(copy(0, 250 * BLK), 128 * BLK);
	assert_int_equal(copy(128 * BLK, 50 * BLK), -ENOSPC);
}

/*
 * There are blocks, but no units for the nodes that further extents need. Each call stores into a block that the file has, and into the
 * hole behind it. The first ones find some units left.
 */
static void test_no_units(void **state)
{
	uint64_t inos[2 * SHREDDED];
	unsigned failed = 0;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(inos); i++) {
		char name[20];

		snprintf(name, sizeof(name), "shredded%u", i);
		inos[i] = dst_make(name);
		dst_shred();
	}
	blocks_use_up(200);
	units_use_up();
	for (unsigned i = 0; i < ARRAY_SIZE(inos); i++) {
		uint64_t off = BLK - 50;
		int64_t got;

		dst = inos[i];
		memset(dst_bytes, 0, sizeof(dst_bytes));
		for (uint64_t k = 0; k < PIECES; k++)
			memset(dst_bytes + 2 * k * BLK, 0xee, BLK);
		got = i % 2 ? copy(off, 100) : overwrite(off, 100);
		failed += got == 50;
		assert_true(got == 50 || got == 100);
	}
	assert_true(failed > SHREDDED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_copy_without_blocks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_copy_without_blocks_for_a_part, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_units, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
