/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A shared block is to leave a range, and there is no unit of metadata left for one of its owners when it goes bad: it is known as bad from then on, over
 * mounts too, and left when there is room.
 */
#include <errno.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fs/core.h"
#include "fs/forward.h"
#include "fs/owners.h"
#include "fs/poison.h"
#include "lib/testfs.h"
#include "lib/testpoison.h"

#define POOL_BYTES ((uint64_t)24 << 20)
#define PIECES 8u              /* extents that an inode has room for */
#define PIECE_BLK 3u           /* blocks of each, and one that is none */
#define MOVED (PIECE_BLK + 2u) /* the middle of the second one */
#define UNITS_MAX 4096u

static struct testfs t;
static struct testpoison *poison;
static uint64_t a, b, fill, dev_off, units[UNITS_MAX];
static unsigned unit_count;
static uint8_t bytes[64 * BLOCK_SIZE], back[BLOCK_SIZE];

/* ---- units ---- */

static int unit_take(struct op *op, void *arg)
{
	return space_meta_alloc(op->tx, 0, 1, arg);
}

static int unit_give(struct op *op, void *arg)
{
	return space_meta_free(op->tx, *(const uint64_t *)arg, 1);
}

static void units_take(void)
{
	int rc;

	while ((rc = op_run(t.fs, TXN_FREEING, NULL, unit_take, &units[unit_count])) == 0)
		assert_true(++unit_count < UNITS_MAX);
	assert_int_equal(rc, -ENOSPC);
	assert_true(unit_count > 0);
}

static void units_give(void)
{
	while (unit_count > 0)
		assert_int_equal(op_run(t.fs, TXN_FREEING, NULL, unit_give, &units[--unit_count]), 0);
}

/* ---- the pool ---- */

static void make(void)
{
	const struct testfs_opts opts = { .size_bytes = POOL_BYTES };
	struct fs_extent e;
	uint64_t at = 0;
	ssize_t n;

	testfs_make(&t, &opts);
	poison = testpoison_open(t.dax);
	if (!poison) {
		testfs_free(&t);
		skip();
	}
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 31 + i / 251 + 1);
	a = testfs_node(&t, INODE_ROOT, "a", S_IFREG | 0644);
	b = testfs_node(&t, INODE_ROOT, "b", S_IFREG | 0644);
	for (unsigned i = 0; i < PIECES; i++)
		assert_int_equal(fs_write(t.fs, &testfs_root, a, bytes, PIECE_BLK * BLOCK_SIZE,
					  i * (PIECE_BLK + 1) * BLOCK_SIZE, 0),
				 PIECE_BLK * BLOCK_SIZE);
	assert_int_equal(fs_clone(t.fs, &testfs_root, a, MOVED * BLOCK_SIZE, b, 0, BLOCK_SIZE, 0, NULL),
			 BLOCK_SIZE);
	assert_int_equal(fs_map(t.fs, a, MOVED * BLOCK_SIZE, &e, 1), 1);
	dev_off = e.dev_off;
	fill = testfs_node(&t, INODE_ROOT, "fill", S_IFREG | 0644);
	for (size_t len = sizeof(bytes); len >= BLOCK_SIZE; len /= 2)
		while ((n = fs_write(t.fs, &testfs_root, fill, bytes, len, at, 0)) > 0)
			at += (uint64_t)n;
	/* A few blocks, and no chunk. */
	assert_int_equal(fs_fallocate(t.fs, &testfs_root, fill, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				      BLOCK_SIZE, 32 * BLOCK_SIZE),
			 0);
}

/* As the first transaction of the move leaves it. */
static int move_begin(struct op *op, void *arg)
{
	struct space_want want = { .count_blk = 1 };
	uint64_t old_blk = dev_off / BLOCK_SIZE, new_blk, count;
	struct m_forward rec;
	struct btree bt;

	(void)arg;
	assert_int_equal(space_alloc(op->tx, &want, &new_blk, &count), 0);
	assert_int_equal(dax_move(pool_dax(t.pool), new_blk * BLOCK_SIZE, dev_off, BLOCK_SIZE), 0);
	txn_data_stored(op->tx);
	assert_int_equal(space_own(op->tx, new_blk, 1, OWNER_FORWARD, old_blk), 0);
	assert_int_equal(space_share(op->tx, old_blk, 1, OWNER_BAD, old_blk), 0);
	assert_int_equal(space_ag_tree(op->tx, 0, AG_FORWARDS, &bt), 0);
	rec = (struct m_forward){ .fw_old_blk = le64_of(old_blk),
				  .fw_new_blk = le64_of(new_blk),
				  .fw_count_blk = le32_of(1),
				  .fw_flags = le32_of(FORWARD_GOOD) };
	return bt_insert(&bt, &rec, sizeof(rec));
}

static unsigned owners_of(bool *bad)
{
	struct fs_owners_pos pos = { 0 };
	unsigned count, files = 0;
	struct fs_owner o;

	*bad = false;
	for (;;) {
		assert_int_equal(fs_owners(t.fs, dev_off, BLOCK_SIZE, &pos, &o, 1, &count), 0);
		if (count == 0)
			return files;
		*bad |= o.owner == OWNER_BAD;
		files += !(o.owner & OWNER_SPECIAL);
		pos = o.after;
	}
}

static int flags_look(struct op *op, void *arg)
{
	struct m_forward m;
	int rc = forward_record(op, dev_off / BLOCK_SIZE, &m);

	*(uint32_t *)arg = rc == 1 ? le32_get(m.fw_flags) : UINT32_MAX;
	return rc < 0 ? rc : 0;
}

static uint32_t forward_flags(void)
{
	uint32_t flags;

	assert_int_equal(op_run(t.fs, TXN_READ, NULL, flags_look, &flags), 0);
	return flags;
}

static void end(void)
{
	bool bad;

	assert_int_equal(owners_of(&bad), 0);
	assert_true(bad);
	assert_int_equal(forward_flags(), UINT32_MAX);
	assert_int_equal(fs_read(t.fs, a, back, BLOCK_SIZE, MOVED * BLOCK_SIZE), BLOCK_SIZE);
	assert_memory_equal(back, bytes + (MOVED - PIECE_BLK - 1) * BLOCK_SIZE, BLOCK_SIZE);
	assert_int_equal(fs_read(t.fs, b, back, BLOCK_SIZE, 0), BLOCK_SIZE);
	assert_memory_equal(back, bytes + (MOVED - PIECE_BLK - 1) * BLOCK_SIZE, BLOCK_SIZE);
	testfs_check(&t);
	testfs_free(&t);
}

static void no_room(bool crash)
{
	bool bad;

	make();
	assert_int_equal(op_run(t.fs, TXN_FREEING, NULL, move_begin, NULL), 0);
	units_take();
	assert_int_equal(forward_flags(), FORWARD_GOOD);
	testpoison_page(poison, dev_off);
	assert_int_equal(fs_read(t.fs, a, back, 1, MOVED * BLOCK_SIZE), -EIO);
	assert_int_equal(forward_flags(), 0);
	assert_true(owners_of(&bad) > 0 && bad);
	assert_true(poison_is_kept(t.fs, dev_off >> BLOCK_SHIFT));
	units_give();
	if (!crash)
		poison_drain(t.fs, true);
	testpoison_heal_all(poison);
	testpoison_close(poison);
	if (crash)
		testfs_crash(&t);
	end();
}

static void test_room(void **state)
{
	(void)state;
	no_room(false);
}

/* The next mount is told by nobody. */
static void test_crash(void **state)
{
	(void)state;
	no_room(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_room),
		cmocka_unit_test(test_crash),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
