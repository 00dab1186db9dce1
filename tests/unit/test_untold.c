/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Owners of bad memory whom a mount sees to, since a crash came before: each is told to whoever listens first.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fs/data.h"
#include "lib/testfs.h"

#define OWNERS 200u
#define LOST_LINES 6u

static struct testfs t;

/* As a crash leaves it: saved, with its forward record, and nobody switched yet. */
static int forward_leave(struct op *op, void *arg)
{
	const uint64_t *old_blk = arg;
	uint64_t new_blk, count;
	struct space_want want = { .count_blk = 1 };
	struct m_forward rec;
	struct btree bt;

	assert_int_equal(space_alloc(op->tx, &want, &new_blk, &count), 0);
	assert_int_equal(dax_zero(pool_dax(t.pool), new_blk * BLOCK_SIZE, BLOCK_SIZE), 0);
	txn_data_stored(op->tx);
	assert_int_equal(space_own(op->tx, new_blk, 1, OWNER_FORWARD, *old_blk), 0);
	assert_int_equal(space_share(op->tx, *old_blk, 1, OWNER_BAD, *old_blk), 0);
	assert_int_equal(space_ag_tree(op->tx, pool_blk_ag(t.pool, *old_blk), AG_FORWARDS, &bt), 0);
	rec = (struct m_forward){
		.fw_old_blk = le64_of(*old_blk),
		.fw_new_blk = le64_of(new_blk),
		.fw_lost_lines = le64_of(LOST_LINES),
		.fw_count_blk = le32_of(1),
	};
	return bt_insert(&bt, &rec, sizeof(rec));
}

static uint64_t inos[OWNERS];

static void told(void *arg, const struct fs_poison *event)
{
	uint8_t *seen = arg;

	assert_int_equal(event->kind, FS_POISON_DATA);
	assert_int_equal(event->lost_lines, LOST_LINES);
	for (unsigned i = 0; i < OWNERS; i++)
		if (inos[i] == event->ino)
			seen[i]++;
}

static void test_mount_tells(void **state)
{
	static uint8_t bytes[BLOCK_SIZE], seen[OWNERS], twice[OWNERS];
	struct fs_extent x;
	uint64_t src, blk;
	char name[12];

	(void)state;
	testfs_make(&t, NULL);
	memset(bytes, 7, sizeof(bytes));
	inos[0] = src = testfs_node(&t, INODE_ROOT, "0", S_IFREG | 0644);
	assert_int_equal(fs_write(t.fs, &testfs_root, src, bytes, sizeof(bytes), 0, 0), sizeof(bytes));
	for (unsigned i = 1; i < OWNERS; i++) {
		struct fs_clone_item item = { .src = src, .name = name };
		unsigned done;

		item.name_len = (size_t)snprintf(name, sizeof(name), "%u", i);
		assert_int_equal(fs_clone_files(t.fs, &testfs_root, INODE_ROOT, &item, 1, &done), 0);
		inos[i] = item.new_ino;
	}
	assert_int_equal(fs_map(t.fs, src, 0, &x, 1), 1);
	blk = x.dev_off / BLOCK_SIZE;
	assert_int_equal(op_run(t.fs, TXN_WRITE, NULL, forward_leave, &blk), 0);
	testfs_check(&t); /* nothing is wrong with that */
	testfs_crash(&t);
	fs_on_poison(t.fs, told, seen);
	for (unsigned i = 0; i < OWNERS; i++)
		assert_int_equal(seen[i], 1);
	fs_on_poison(t.fs, NULL, NULL);
	fs_on_poison(t.fs, told, twice);
	assert_memory_equal(twice, (uint8_t[OWNERS]){ 0 }, OWNERS);
	testfs_check(&t);
	testfs_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mount_tells),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
