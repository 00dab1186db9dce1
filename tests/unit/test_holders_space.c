/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What somebody still holds is given to nobody when it becomes free, until he lets go; and what is moved under holders: ranges that are emptied, long clones.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fs/core.h"
#include "fs/owners.h"
#include "lib/testlist.h"
#include "unit/fake_holders.h"

#define MIB ((uint64_t)1 << 20)
#define END (1ull << 52)
#define GROUP_BYTES (32 * MIB)
#define GROUPS 2
#define SIZE_BYTES (48 * MIB) /* the last group is not full */
#define GROWN_BYTES (GROUPS * GROUP_BYTES)
#define HELD_BLK 300u

static struct testfs t;
static struct fake_holders fake;
static uint8_t bytes[MIB];
static uint64_t file, filler, filled_bytes;
static uint64_t held_blks[HELD_BLK]; /* of the device */

static void store_blk(uint64_t ino, uint64_t lo, uint64_t count)
{
	assert_int_equal(fs_write(t.fs, &testfs_root, ino, bytes, count * BLOCK_SIZE, lo * BLOCK_SIZE, 0),
			 count * BLOCK_SIZE);
}

static int size_set(uint64_t ino, uint64_t size)
{
	struct fs_set set = { .what = FS_SET_SIZE, .size = size };
	struct inode_attr attr;

	return fs_setattr(t.fs, &testfs_root, ino, &set, &attr);
}

static uint64_t dev_of(uint64_t ino, uint64_t blk)
{
	struct fs_extent e;

	assert_int_equal(fs_map(t.fs, ino, blk * BLOCK_SIZE, &e, 1), 1);
	assert_true(e.file_off <= blk * BLOCK_SIZE);
	return (e.dev_off + (blk * BLOCK_SIZE - e.file_off)) >> BLOCK_SHIFT;
}

static int setup(void **state)
{
	const struct format_opts format = { .ag_size_bytes = GROUP_BYTES };
	const struct pool_opts pool_opts = { 0 };
	const struct fs_opts fs_opts = { 0 };
	char why[256];

	(void)state;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 31 + i / 251 + i / 65536 + 1);
	memset(&t, 0, sizeof(t));
	assert_int_equal(dax_open_ram_room(SIZE_BYTES, GROWN_BYTES, NULL, NULL, &t.dax), 0);
	assert_int_equal(pool_format(t.dax, &format, NULL, why, sizeof(why)), 0);
	assert_int_equal(pool_open(t.dax, &pool_opts, &t.pool, why, sizeof(why)), 0);
	assert_int_equal(fs_open(t.pool, &fs_opts, &t.fs), 0);
	fake_holders_set(&fake, t.fs);
	file = testfs_node(&t, INODE_ROOT, "file", S_IFREG | 0644);
	filler = testfs_node(&t, INODE_ROOT, "filler", S_IFREG | 0644);
	filled_bytes = 0;
	for (unsigned i = 0; i < HELD_BLK; i += 100)
		store_blk(file, i, 100);
	for (unsigned i = 0; i < HELD_BLK; i++)
		held_blks[i] = dev_of(file, i);
	assert_int_equal(fs_hold(t.fs, file), 0);
	assert_int_equal(fake_grant(&fake, file, 0, END, true), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_release(&fake, file, 0, END);
	fs_unhold(t.fs, file);
	fake_holders_end(&fake);
	assert_null(pool_failed(t.pool));
	testfs_check(&t);
	testfs_free(&t);
	return 0;
}

/* All that there is. */
static void fill(void)
{
	uint64_t step = MIB;

	while (step >= BLOCK_SIZE) {
		ssize_t n = fs_write(t.fs, &testfs_root, filler, bytes + 1, step - BLOCK_SIZE / 2,
				     filled_bytes, 0);

		assert_true(n > 0 || n == -ENOSPC);
		if (n <= 0)
			step /= 2;
		else
			filled_bytes = u64_align_up(filled_bytes + (uint64_t)n, BLOCK_SIZE);
	}
}

static void fill_undo(void)
{
	assert_int_equal(size_set(filler, 0), 0);
	filled_bytes = 0;
}

/* How many of the file's old blocks the filler has. */
static unsigned filler_has(unsigned lo, unsigned hi)
{
	struct fs_extent list[64];
	uint64_t off = 0;
	unsigned sum = 0;
	int count;

	while ((count = fs_map(t.fs, filler, off, list, ARRAY_SIZE(list))) > 0) {
		for (int i = 0; i < count; i++) {
			uint64_t first = list[i].dev_off >> BLOCK_SHIFT,
				 end = first + (list[i].len >> BLOCK_SHIFT);

			for (unsigned k = lo; k < hi; k++)
				sum += held_blks[k] >= first && held_blks[k] < end;
			off = list[i].file_off + list[i].len;
		}
	}
	assert_int_equal(count, 0);
	return sum;
}

/* They show what they showed. */
static void shown(unsigned lo, unsigned hi)
{
	for (unsigned i = lo; i < hi; i++)
		assert_memory_equal(dax_ptr(t.dax, held_blks[i] << BLOCK_SHIFT), bytes + i % 100 * BLOCK_SIZE,
				    BLOCK_SIZE);
}

/* ---- quarantine ---- */

static uint64_t free_blk(void)
{
	struct fs_statfs st;

	assert_int_equal(fs_statfs(t.fs, &st), 0);
	return st.free_blk;
}

static void test_kept(void **state)
{
	uint64_t before = free_blk();

	(void)state;
	fake.mood = FAKE_MUTE;
	assert_int_equal(size_set(file, 0), 0);
	assert_int_equal(fake.kept_count, HELD_BLK);
	assert_int_equal(free_blk(), before);
	fill();
	assert_int_equal(filler_has(0, HELD_BLK), 0);
	shown(0, HELD_BLK);
	assert_int_equal(free_blk(), 0);
	/* A part of them. */
	fake_release(&fake, file, 10, 20);
	assert_int_equal(free_blk(), 10);
	fill();
	assert_int_equal(filler_has(10, 20), 10);
	assert_int_equal(filler_has(0, HELD_BLK), 10);
	shown(0, 10);
	shown(20, HELD_BLK);
	fake_release(&fake, file, 0, END);
	fill();
	assert_int_equal(filler_has(0, HELD_BLK), HELD_BLK);
}

/* Some of what becomes free is held, and it takes a mount to have it back. */
static void test_some(void **state)
{
	(void)state;
	fake_release(&fake, file, 0, 50);
	fake_release(&fake, file, 51, 200);
	fake.mood = FAKE_MUTE;
	assert_int_equal(size_set(file, 0), 0);
	assert_int_equal(fake.kept_count, 101);
	/* What is not kept is not given twice. */
	space_release(t.pool, held_blks[0], 200);
	space_release(t.pool, 0, UINT64_MAX / 2);
	fake.kept_count = 0;
	fill();
	assert_int_equal(filler_has(0, HELD_BLK), HELD_BLK);
}

static void test_mount(void **state)
{
	(void)state;
	fake.mood = FAKE_MUTE;
	assert_int_equal(size_set(file, 0), 0);
	fill();
	assert_int_equal(filler_has(0, HELD_BLK), 0);
	fake.count = 0;
	fake_holders_end(&fake);
	testfs_remount(&t);
	fake_holders_set(&fake, t.fs);
	fill();
	assert_int_equal(filler_has(0, HELD_BLK), HELD_BLK);
}

/* A session has ended without a word, and its file goes. */
static void test_unlinked(void **state)
{
	(void)state;
	fake.mood = FAKE_MUTE;
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "file"), 0);
	fs_unhold(t.fs, file);
	fs_work(t.fs);
	fill();
	assert_int_equal(filler_has(0, HELD_BLK), 0);
	shown(0, HELD_BLK);
}

/* Copied on write: the old ones stay what they are for who did not answer. */
static void test_copied(void **state)
{
	uint64_t other = testfs_node(&t, INODE_ROOT, "other", S_IFREG | 0644);

	(void)state;
	assert_int_equal(fs_clone(t.fs, &testfs_root, file, 0, other, 0, HELD_BLK * BLOCK_SIZE, 0, NULL),
			 HELD_BLK * BLOCK_SIZE);
	assert_int_equal(fake_held_blk(&fake, file, 0, END, true), 0);
	assert_int_equal(fake_held_blk(&fake, file, 0, END, false), HELD_BLK);
	fake.mood = FAKE_MUTE;
	assert_int_equal(fs_write(t.fs, &testfs_root, file, bytes + 5, 50 * BLOCK_SIZE, 0, 0),
			 50 * BLOCK_SIZE);
	assert_int_equal(fake.kept_count, 0);
	shown(0, HELD_BLK);
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "other"), 0);
	fs_work(t.fs);
	assert_int_equal(fake.kept_count, 50);
	fill();
	assert_int_equal(filler_has(0, HELD_BLK), 0);
	shown(0, HELD_BLK);
}

/* ---- ranges that are emptied ---- */

static int evacuate(struct fs_evacuation *e, uint64_t agno, bool mark_bad)
{
	int rc;

	*e = (struct fs_evacuation){ .dev_off = agno * GROUP_BYTES,
				     .len = GROUP_BYTES,
				     .mark_bad = mark_bad };
	rc = fs_evacuate(t.fs, e);
	if (!rc)
		do {
			rc = fs_evacuate_step(t.fs, e->id, MIB, e);
		} while (rc == 1);
	return rc;
}

static uint64_t group_of_held(void)
{
	return held_blks[0] / (GROUP_BYTES / BLOCK_SIZE);
}

/* Blocks of the file that lie in that group. */
static unsigned still_there(uint64_t agno)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < HELD_BLK; i++)
		sum += dev_of(file, i) / (GROUP_BYTES / BLOCK_SIZE) == agno;
	return sum;
}

static void test_evacuated(void **state)
{
	struct fs_evacuation e;
	char *want = testlist_make(&t), *got;

	(void)state;
	assert_int_equal(evacuate(&e, group_of_held(), false), 0);
	assert_int_equal(fake_held_blk(&fake, file, 0, END, false), 0);
	assert_true(fake.ask_count > 0);
	for (unsigned i = 0; i < fake.ask_count; i++)
		assert_true(fake.asks[i].hi_blk <= HELD_BLK && fake.asks[i].change == FS_CHANGE_MOVE);
	assert_int_equal(still_there(group_of_held()), 0);
	got = testlist_make(&t);
	assert_int_equal(testlist_diff(want, got, true), 0);
	free(want);
	free(got);
}

/* A file whose holders refuse stays, and all else goes. */
static void test_evacuate_refused(void **state)
{
	uint64_t other = testfs_node(&t, INODE_ROOT, "other", S_IFREG | 0644);
	struct fs_evacuation e;

	(void)state;
	store_blk(other, 0, 200);
	fake.mood = FAKE_REFUSES;
	for (uint64_t agno = 0; agno < GROUPS; agno++) {
		unsigned stays = still_there(agno);

		assert_int_equal(evacuate(&e, agno, false), 0);
		assert_int_equal(still_there(agno), stays);
		assert_true(stays == 0 || e.left_bytes >= stays * BLOCK_SIZE);
		assert_true(dev_of(other, 0) / (GROUP_BYTES / BLOCK_SIZE) != agno);
	}
	fake_check(&fake);
}

/* What several files share, too. */
static void test_evacuate_shared(void **state)
{
	uint64_t other = testfs_node(&t, INODE_ROOT, "other", S_IFREG | 0644), agno = group_of_held();
	struct fs_evacuation e;

	(void)state;
	assert_int_equal(fs_clone(t.fs, &testfs_root, file, 0, other, 0, HELD_BLK * BLOCK_SIZE, 0, NULL),
			 HELD_BLK * BLOCK_SIZE);
	fake.mood = FAKE_REFUSES;
	assert_int_equal(evacuate(&e, agno, false), 0);
	assert_true(still_there(agno) > 0 && e.left_bytes >= still_there(agno) * BLOCK_SIZE);
	fake_check(&fake);
	fake.mood = FAKE_ANSWERS;
	assert_int_equal(evacuate(&e, agno, false), 0);
	assert_int_equal(still_there(agno), 0);
	assert_int_equal(fake_held_blk(&fake, file, 0, END, false), 0);
	assert_int_equal(dev_of(file, 7), dev_of(other, 7));
}

/* Kept when the range is closed, or while it is; let go before it is opened, or after. */
static void test_closed(void **state)
{
	struct fs_evacuation e = { .dev_off = group_of_held() * GROUP_BYTES, .len = GROUP_BYTES };

	(void)state;
	fake.mood = FAKE_MUTE;
	assert_int_equal(size_set(file, 200 * BLOCK_SIZE), 0);
	assert_int_equal(fs_evacuate(t.fs, &e), 0);
	assert_int_equal(size_set(file, 0), 0);
	fake_release(&fake, file, 250, 300);
	fake_release(&fake, file, 50, 100);
	fill();
	assert_int_equal(filler_has(0, HELD_BLK), 0);
	fill_undo();
	fs_evacuate_stop(t.fs, e.id);
	fill();
	assert_int_equal(filler_has(50, 100) + filler_has(250, 300), 100);
	assert_int_equal(filler_has(0, HELD_BLK), 100);
	shown(0, 50);
	shown(100, 250);
	fill_undo();
	fake_release(&fake, file, 0, END);
	fill();
	assert_int_equal(filler_has(0, HELD_BLK), HELD_BLK);
}

/* Marked as bad while it is kept: it is not given to anybody any more, whoever lets go. */
static void test_marked_bad(void **state)
{
	struct fs_evacuation e;
	struct fs_owners_pos pos = { 0 };
	struct fs_owner owner;
	unsigned count;

	(void)state;
	fake.mood = FAKE_MUTE;
	assert_int_equal(size_set(file, 0), 0);
	assert_int_equal(evacuate(&e, group_of_held(), true), 0);
	shown(0, HELD_BLK);
	fake_release(&fake, file, 0, END);
	fill();
	assert_int_equal(filler_has(0, HELD_BLK), 0);
	assert_int_equal(fs_owners(t.fs, held_blks[5] << BLOCK_SHIFT, BLOCK_SIZE, &pos, &owner, 1, &count),
			 0);
	assert_int_equal(count, 1);
	assert_true(owner.owner == OWNER_BAD);
}

/* ---- long clones ---- */

#define PIECES 400u

static void test_long_clone(void **state)
{
	uint64_t src = testfs_node(&t, INODE_ROOT, "src", S_IFREG | 0644), len = 2 * PIECES * BLOCK_SIZE;
	uint64_t dst = testfs_node(&t, INODE_ROOT, "dst", S_IFREG | 0644);
	struct fs_clone_item item = { .src = src, .name = "twin", .name_len = 4 };
	char *before, *after;
	unsigned count;

	(void)state;
	for (unsigned i = 0; i < PIECES; i++) {
		store_blk(src, 2 * i, 1);
		store_blk(dst, 2 * i + 1, 1);
	}
	assert_int_equal(size_set(src, len), 0);
	assert_int_equal(fs_hold(t.fs, src), 0);
	assert_int_equal(fs_hold(t.fs, dst), 0);
	for (unsigned i = 0; i < 2 * PIECES; i += 200) {
		assert_int_equal(fake_grant(&fake, src, i, i + 200, true), 0);
		assert_int_equal(fake_grant(&fake, dst, i, i + 200, true), 0);
	}
	before = testlist_make(&t);
	fake.mood = FAKE_REFUSES;
	assert_int_equal(fs_clone(t.fs, &testfs_root, src, 0, dst, 0, len, 0, NULL), -EBUSY);
	assert_int_equal(fs_clone_files(t.fs, &testfs_root, INODE_ROOT, &item, 1, &count), -EBUSY);
	after = testlist_make(&t);
	assert_int_equal(testlist_diff(before, after, true), 0);
	free(before);
	free(after);
	fake_check(&fake);
	fake.mood = FAKE_ANSWERS;
	fake_forget(&fake);
	assert_int_equal(fs_clone(t.fs, &testfs_root, src, 0, dst, 0, len, 0, NULL), len);
	assert_int_equal(fake.ask_count, 2);
	assert_int_equal(fake_held_blk(&fake, src, 0, END, true), 0);
	assert_int_equal(fake_held_blk(&fake, dst, 0, END, false), 0);
	fake_check(&fake);
	assert_int_equal(fs_clone_files(t.fs, &testfs_root, INODE_ROOT, &item, 1, &count), 0);
	assert_int_equal(fake.ask_count, 2); /* nobody stores to it any more */
	fake_check(&fake);
	fake_release(&fake, src, 0, END);
	fs_unhold(t.fs, src);
	fs_unhold(t.fs, dst);
}

/* More files at once than are asked about in one round. */
static void test_many_clones(void **state)
{
	struct fs_clone_item items[40];
	static char names[40][8];
	unsigned count;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(items); i++) {
		snprintf(names[i], sizeof(names[i]), "n%u", i);
		items[i] = (struct fs_clone_item){ .name = names[i], .name_len = strlen(names[i]) };
		snprintf(names[i], sizeof(names[i]), "s%u", i);
		items[i].src = testfs_node(&t, INODE_ROOT, names[i], S_IFREG | 0644);
		snprintf(names[i], sizeof(names[i]), "n%u", i);
		store_blk(items[i].src, 0, 1);
		assert_int_equal(fs_hold(t.fs, items[i].src), 0);
		assert_int_equal(fake_grant(&fake, items[i].src, 0, 1, true), 0);
	}
	assert_int_equal(fs_clone_files(t.fs, &testfs_root, INODE_ROOT, items, ARRAY_SIZE(items), &count), 0);
	assert_int_equal(count, ARRAY_SIZE(items));
	fake_check(&fake);
	for (unsigned i = 0; i < ARRAY_SIZE(items); i++) {
		assert_int_equal(fake_held_blk(&fake, items[i].src, 0, END, true), 0);
		fake_release(&fake, items[i].src, 0, END);
		fs_unhold(t.fs, items[i].src);
	}
}

/* A store to very many pieces asks once, for more than it would have to. */
static void test_many_pieces(void **state)
{
	uint64_t sparse = testfs_node(&t, INODE_ROOT, "sparse", S_IFREG | 0644);

	(void)state;
	for (unsigned i = 0; i < 60; i++)
		store_blk(sparse, 2 * i + 1, 1);
	assert_int_equal(fs_hold(t.fs, sparse), 0);
	assert_int_equal(fake_grant(&fake, sparse, 0, END, true), 0);
	fake_forget(&fake);
	store_blk(sparse, 0, 100);
	assert_int_equal(fake.ask_count, OP_CHANGES);
	assert_int_equal(fake_held_blk(&fake, sparse, 100, END, false), 20);
	assert_true(fake_held_blk(&fake, sparse, 0, 100, false) < 50);
	fake_check(&fake);
	fake_release(&fake, sparse, 0, END);
	fs_unhold(t.fs, sparse);
}

/* All that the filler has is kept. */
static void filler_keep(void)
{
	assert_int_equal(fake_grant(&fake, filler, 0, END, false), 0);
	fill_undo();
}

/* What is kept stays so while the group becomes longer, and then there is more to keep in it. */
static void test_grown(void **state)
{
	uint64_t all;

	(void)state;
	fake.mood = FAKE_MUTE;
	assert_int_equal(fs_hold(t.fs, filler), 0);
	assert_int_equal(size_set(file, 0), 0);
	fill();
	all = filled_bytes;
	filler_keep();
	assert_int_equal(space_grow(t.pool, GROWN_BYTES), 0);
	fill();
	assert_true(filled_bytes > 0 && filled_bytes <= GROWN_BYTES - SIZE_BYTES);
	all += filled_bytes;
	assert_int_equal(filler_has(0, HELD_BLK), 0);
	filler_keep();
	fill();
	assert_int_equal(filled_bytes, 0);
	fake_release(&fake, filler, 0, END);
	fill();
	assert_int_equal(filler_has(0, HELD_BLK), 0);
	assert_true(filled_bytes + MIB > all);
	fake_release(&fake, file, 0, END);
	fill();
	assert_int_equal(filler_has(0, HELD_BLK), HELD_BLK);
	fs_unhold(t.fs, filler);
}

static bool tail_is_zero(uint64_t blk, unsigned from)
{
	const uint8_t *at = dax_ptr(t.dax, blk * BLOCK_SIZE);

	for (unsigned i = from; i < BLOCK_SIZE; i++)
		if (at[i])
			return false;
	return memcmp(at, bytes + 2 * BLOCK_SIZE, from) == 0;
}

/* Past the end of the file the last block has nothing that a mapping shows. */
static void test_tail(void **state)
{
	uint64_t twin = testfs_node(&t, INODE_ROOT, "twin", S_IFREG | 0644), blk;
	struct inode_attr before, after;

	(void)state;
	store_blk(file, 0, 3);
	assert_int_equal(fs_clone(t.fs, &testfs_root, file, 0, twin, 0, 3 * BLOCK_SIZE, 0, NULL),
			 3 * BLOCK_SIZE);
	assert_int_equal(size_set(file, 2 * BLOCK_SIZE + 100), 0);
	blk = dev_of(twin, 2);
	assert_int_equal(dev_of(file, 2), blk);
	assert_int_equal(fs_hold(t.fs, file), 0);
	assert_int_equal(fake_grant(&fake, file, 0, END, false), -EDOM);
	assert_int_equal(fake_grant(&fake, file, 0, 2, false), 0);
	assert_int_equal(fs_getattr(t.fs, file, &before), 0);
	/* The block is another file's too. */
	assert_int_equal(fs_zero_tail(t.fs, file), 0);
	assert_int_equal(fake_grant(&fake, file, 0, END, false), 0);
	assert_int_equal(dev_of(twin, 2), blk);
	assert_false(tail_is_zero(blk, 100));
	assert_true(tail_is_zero(dev_of(file, 2), 100));
	assert_int_equal(fs_getattr(t.fs, file, &after), 0);
	assert_memory_equal(&after.mtime, &before.mtime, sizeof(after.mtime));
	/* Its own: in place. */
	assert_int_equal(size_set(file, 2 * BLOCK_SIZE + 50), 0);
	assert_int_equal(fake_grant(&fake, file, 0, END, true), -EDOM);
	blk = dev_of(file, 2);
	assert_int_equal(fs_zero_tail(t.fs, file), 0);
	assert_int_equal(dev_of(file, 2), blk);
	assert_true(tail_is_zero(blk, 50));
	assert_int_equal(fake_grant(&fake, file, 0, END, true), 0);
	assert_int_equal(testfs_attr(&t, file).size, 2 * BLOCK_SIZE + 50);
	/* Nothing to do. */
	assert_int_equal(size_set(file, 2 * BLOCK_SIZE), 0);
	assert_int_equal(fs_zero_tail(t.fs, file), 0);
	assert_int_equal(fake_grant(&fake, file, 0, END, true), 0);
	assert_int_equal(fs_zero_tail(t.fs, INODE_ROOT), 0);
	fake_release(&fake, file, 0, END);
	fs_unhold(t.fs, file);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_kept),
		test(test_some),
		test(test_mount),
		test(test_unlinked),
		test(test_copied),
		test(test_evacuated),
		test(test_evacuate_refused),
		test(test_evacuate_shared),
		test(test_closed),
		test(test_marked_bad),
		test(test_long_clone),
		test(test_many_clones),
		test(test_many_pieces),
		test(test_grown),
		test(test_tail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
