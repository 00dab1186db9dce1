/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Metadata leaves a range, and memory is bad: blocks of a chunk that are known to be so or are found to be, and where things are to go. What is bad is out
 * of use in the end and told, all the rest moves.
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

#include "fs/core.h"
#include "fs/owners.h"
#include "fs/poison.h"
#include "lib/testfs.h"
#include "lib/testlist.h"
#include "lib/testpoison.h"

#define MIB ((uint64_t)1 << 20)
#define POOL_BYTES (64 * MIB)
#define GROUP_BYTES (16 * MIB)
#define STEPS_MAX 20000u

static struct testfs t;
static struct testpoison *poison;
static char *want;
static uint8_t bytes[32768];

static struct {
	unsigned meta, free;
	uint64_t off; /* of the last one */
} told;

static void on_poison(void *arg, const struct fs_poison *event)
{
	(void)arg;
	told.meta += event->kind == FS_POISON_META && event->moved;
	told.free += event->kind == FS_POISON_FREE;
	told.off = event->dev_off;
}

/* The same each time. lane_bytes: 0, or lanes of that size. */
static void begin(uint32_t lane_bytes)
{
	const struct testfs_opts opts = {
		.size_bytes = POOL_BYTES,
		.format.ag_size_bytes = lane_bytes ? POOL_BYTES / 2 : GROUP_BYTES,
		.format.lane_size_bytes = lane_bytes,
		.format.lane_count = lane_bytes ? 2 : 0,
	};

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 31 + i / 251 + 1);
	testfs_make(&t, &opts);
	/* A second metadata chunk. */
	for (unsigned i = 0; i < 70; i++) {
		uint64_t ino;
		char name[16];

		snprintf(name, sizeof(name), "x%u", i);
		ino = testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644);
		assert_int_equal(fs_setxattr(t.fs, ino, "user.a", bytes, sizeof(bytes), 0, false), 0);
	}
	fs_work(t.fs);
	want = testlist_make(&t);
	memset(&told, 0, sizeof(told));
	fs_on_poison(t.fs, on_poison, NULL);
}

static void poison_begin(uint32_t lane_bytes)
{
	begin(lane_bytes);
	poison = testpoison_open(t.dax);
	if (!poison) {
		testfs_free(&t);
		free(want);
		skip();
	}
}

static void end(void)
{
	char *got = testlist_make(&t);

	assert_int_equal(testlist_diff(want, got, true), 0);
	free(got);
	free(want);
	assert_null(pool_failed(t.pool));
	testfs_check(&t);
	if (poison)
		testpoison_close(poison);
	poison = NULL;
	testfs_remount(&t);
	testfs_check(&t);
	testfs_free(&t);
}

/* 0: it can move. */
static uint64_t evacuate(uint64_t off, uint64_t len, bool mark_bad)
{
	struct fs_evacuation e = { .dev_off = off, .len = len, .mark_bad = mark_bad };
	unsigned steps = 0;
	int rc;

	assert_int_equal(fs_evacuate(t.fs, &e), 0);
	do {
		rc = fs_evacuate_step(t.fs, e.id, MIB, &e);
		assert_true(++steps < STEPS_MAX);
	} while (rc == 1);
	assert_int_equal(rc, 0);
	return e.left_bytes;
}

/* Bytes there that a special owner has; all: those of anybody. */
static uint64_t owned(uint64_t off, uint64_t len, uint64_t owner, bool all)
{
	struct fs_owners_pos pos = { 0 };
	uint64_t sum = 0;
	struct fs_owner o;
	unsigned count;

	while (fs_owners(t.fs, off, len, &pos, &o, 1, &count) == 0 && count == 1) {
		sum += all || o.owner == owner ? o.len : 0;
		pos = o.after;
	}
	return sum;
}

static uint64_t bad_bytes(uint64_t off, uint64_t len)
{
	return owned(off, len, OWNER_BAD, false);
}

/* A chunk that can move, with units in use. */
static uint64_t chunk_find(unsigned copy, uint64_t *lchunk)
{
	uint64_t ag_chunks = pool_super(t.pool)->ag_size_blk / CHUNK_BLOCKS;
	struct fs_owners_pos pos = { 0 };
	struct fs_owner o;
	unsigned count;

	do {
		assert_int_equal(fs_owners(t.fs, 0, POOL_BYTES, &pos, &o, 1, &count), 0);
		assert_int_equal(count, 1);
		pos = o.after;
	} while (o.owner != (copy ? OWNER_MIRROR : OWNER_META) || o.file_off % ag_chunks == 0);
	*lchunk = o.file_off;
	return o.dev_off;
}

static uint64_t place_of(uint64_t laddr, unsigned copy)
{
	uint64_t off;

	assert_int_equal(pool_place(t.pool, laddr, copy, &off), 0);
	return off;
}

/* ---- what a chunk leaves ---- */

static const unsigned bad_blocks[] = { 0, 3, 4, 200, 511 };

static void known_of(unsigned copy, bool mark_bad)
{
	uint64_t chunk, lchunk, bad = ARRAY_SIZE(bad_blocks);

	begin(0);
	chunk = chunk_find(copy, &lchunk);
	for (unsigned i = 0; i < ARRAY_SIZE(bad_blocks); i++)
		assert_int_equal(fs_poison_add(t.fs, chunk + bad_blocks[i] * BLOCK_SIZE), 0);
	memset(&told, 0, sizeof(told));
	assert_int_equal(evacuate(chunk + 20 * BLOCK_SIZE, BLOCK_SIZE, mark_bad), 0);
	assert_true(place_of((lchunk << CHUNK_SHIFT) + BLOCK_SIZE, copy) - chunk >= CHUNK_SIZE);
	for (unsigned i = 0; i < bad; i++)
		assert_int_equal(bad_bytes(chunk + bad_blocks[i] * BLOCK_SIZE, BLOCK_SIZE), BLOCK_SIZE);
	assert_int_equal(bad_bytes(chunk, CHUNK_SIZE), (bad + mark_bad) * BLOCK_SIZE);
	assert_int_equal(owned(chunk, CHUNK_SIZE, 0, true), (bad + mark_bad) * BLOCK_SIZE);
	assert_int_equal(told.meta + told.free, 0); /* was told before */
	end();
}

static void test_known(void **state)
{
	(void)state;
	for (unsigned copy = 0; copy < 2; copy++) {
		known_of(copy, false);
		known_of(copy, true);
	}
}

/*
 * In the new chunk nothing is wrong with the places of units that were bad in the old one: they lie there, what stood in for them is free, and the next
 * move leaves good memory behind. One that cannot be read where it stands in stays there.
 */
static void home_of(unsigned copy, bool unread)
{
	uint64_t chunk, lchunk, stand_in, first;

	if (unread)
		poison_begin(0);
	else
		begin(0);
	chunk = chunk_find(copy, &lchunk);
	first = lchunk << CHUNK_SHIFT;
	for (unsigned i = 0; i < ARRAY_SIZE(bad_blocks); i++)
		assert_int_equal(fs_poison_add(t.fs, chunk + bad_blocks[i] * BLOCK_SIZE), 0);
	assert_int_equal(owned(0, POOL_BYTES, OWNER_REMAP, false), ARRAY_SIZE(bad_blocks) * BLOCK_SIZE);
	stand_in = place_of(first + 3 * BLOCK_SIZE, copy);
	if (unread)
		testpoison_page(poison, stand_in);
	assert_int_equal(evacuate(chunk, CHUNK_SIZE, false), 0);
	assert_int_equal(owned(0, POOL_BYTES, OWNER_REMAP, false), unread ? BLOCK_SIZE : 0);
	chunk = place_of(first + BLOCK_SIZE, copy) - BLOCK_SIZE;
	for (unsigned i = 0; i < ARRAY_SIZE(bad_blocks); i++)
		if (!unread || bad_blocks[i] != 3)
			assert_int_equal(place_of(first + bad_blocks[i] * BLOCK_SIZE, copy),
					 chunk + bad_blocks[i] * BLOCK_SIZE);
	if (unread)
		assert_int_equal(place_of(first + 3 * BLOCK_SIZE, copy), stand_in);
	if (unread)
		testpoison_heal_all(poison);
	testfs_check(&t);
	assert_int_equal(evacuate(chunk, CHUNK_SIZE, false), 0);
	assert_int_equal(owned(chunk, CHUNK_SIZE, 0, true), unread ? BLOCK_SIZE : 0);
	end();
}

static void test_home(void **state)
{
	(void)state;
	for (unsigned copy = 0; copy < 2; copy++) {
		home_of(copy, false);
		home_of(copy, true);
	}
}

/* What stands in lies in the range too: it is not left there, nor out of use unless it is to be. */
static void stand_in_near(bool mark_bad)
{
	uint64_t chunk, lchunk, stand_in, lo, hi;

	begin(0);
	chunk = chunk_find(0, &lchunk);
	assert_int_equal(fs_poison_add(t.fs, chunk + BLOCK_SIZE), 0);
	stand_in = place_of((lchunk << CHUNK_SHIFT) + BLOCK_SIZE, 0);
	lo = u64_min(chunk, stand_in);
	hi = chunk > stand_in ? chunk + CHUNK_SIZE : stand_in + BLOCK_SIZE;
	(void)evacuate(lo, hi - lo, mark_bad);
	assert_int_equal(owned(0, POOL_BYTES, OWNER_REMAP, false), 0);
	assert_int_equal(owned(stand_in, BLOCK_SIZE, 0, true), mark_bad ? BLOCK_SIZE : 0);
	assert_int_equal(bad_bytes(stand_in, BLOCK_SIZE), mark_bad ? BLOCK_SIZE : 0);
	end();
}

static void test_home_near(void **state)
{
	(void)state;
	stand_in_near(false);
	stand_in_near(true);
}

/* As many as a group's list has room for, each beside a good one. */
static void test_known_many(void **state)
{
	uint64_t chunk, lchunk;
	unsigned count = 0;

	(void)state;
	begin(0);
	chunk = chunk_find(0, &lchunk);
	for (; count < 160; count++)
		assert_int_equal(fs_poison_add(t.fs, chunk + (uint64_t)count * 2 * BLOCK_SIZE), 0);
	assert_int_equal(evacuate(chunk + 5 * BLOCK_SIZE, BLOCK_SIZE, false), 0);
	assert_int_equal(owned(chunk, CHUNK_SIZE, 0, true), count * BLOCK_SIZE);
	assert_int_equal(bad_bytes(chunk, CHUNK_SIZE), count * BLOCK_SIZE);
	assert_int_equal(owned(0, POOL_BYTES, OWNER_REMAP, false), 0);
	end();
}

/* Met during the move, whether a unit lies there or none. */
static void met_of(unsigned copy, bool mark_bad)
{
	uint64_t chunk, lchunk;

	poison_begin(0);
	chunk = chunk_find(copy, &lchunk);
	for (unsigned i = 0; i < ARRAY_SIZE(bad_blocks); i++)
		testpoison_page(poison, chunk + bad_blocks[i] * BLOCK_SIZE);
	assert_int_equal(evacuate(chunk + 20 * BLOCK_SIZE, BLOCK_SIZE, mark_bad), 0);
	assert_true(place_of((lchunk << CHUNK_SHIFT) + BLOCK_SIZE, copy) - chunk >= CHUNK_SIZE);
	assert_int_equal(bad_bytes(chunk, CHUNK_SIZE), (ARRAY_SIZE(bad_blocks) + mark_bad) * BLOCK_SIZE);
	assert_int_equal(owned(chunk, CHUNK_SIZE, 0, true), (ARRAY_SIZE(bad_blocks) + mark_bad) * BLOCK_SIZE);
	assert_int_equal(told.meta, ARRAY_SIZE(bad_blocks));
	assert_int_equal(told.off, chunk + 511 * BLOCK_SIZE);
	end();
}

static void test_met(void **state)
{
	(void)state;
	for (unsigned copy = 0; copy < 2; copy++) {
		met_of(copy, false);
		met_of(copy, true);
	}
}

/* ---- where it goes ---- */

/* Free memory that is bad: the chunk goes elsewhere. */
static void target_of(unsigned copy, unsigned block)
{
	uint64_t chunk, lchunk, target;

	begin(0);
	chunk = chunk_find(copy, &lchunk);
	assert_int_equal(evacuate(chunk, CHUNK_SIZE, false), 0);
	target = place_of((lchunk << CHUNK_SHIFT), copy);
	end();
	poison_begin(0);
	assert_int_equal(chunk_find(copy, &lchunk), chunk);
	testpoison_page(poison, target + block * BLOCK_SIZE);
	assert_int_equal(evacuate(chunk, CHUNK_SIZE, false), 0);
	assert_int_equal(owned(chunk, CHUNK_SIZE, 0, true), 0);
	assert_true(place_of((lchunk << CHUNK_SHIFT), copy) != target);
	assert_int_equal(bad_bytes(target, CHUNK_SIZE), BLOCK_SIZE);
	assert_int_equal(told.free, 1);
	assert_int_equal(told.meta, 0);
	assert_int_equal(told.off, target + block * BLOCK_SIZE);
	end();
}

static void test_target(void **state)
{
	(void)state;
	target_of(0, 0);
	target_of(0, 300);
	target_of(1, 511);
}

/* Both at once. */
static void test_both(void **state)
{
	uint64_t chunk, lchunk, target;

	(void)state;
	begin(0);
	chunk = chunk_find(0, &lchunk);
	assert_int_equal(evacuate(chunk, CHUNK_SIZE, false), 0);
	target = place_of((lchunk << CHUNK_SHIFT), 0);
	end();
	poison_begin(0);
	testpoison_page(poison, target + 2 * BLOCK_SIZE);
	testpoison_page(poison, chunk + BLOCK_SIZE);
	assert_int_equal(evacuate(chunk + 20 * BLOCK_SIZE, BLOCK_SIZE, false), 0);
	assert_int_equal(owned(chunk, CHUNK_SIZE, 0, true), BLOCK_SIZE);
	assert_int_equal(bad_bytes(chunk + BLOCK_SIZE, BLOCK_SIZE), BLOCK_SIZE);
	assert_int_equal(bad_bytes(target + 2 * BLOCK_SIZE, BLOCK_SIZE), BLOCK_SIZE);
	assert_int_equal(told.free, 1);
	assert_int_equal(told.meta, 1);
	end();
}

/* ---- a block that stands in ---- */

static uint64_t stand_in_make(uint64_t laddr)
{
	assert_int_equal(fs_poison_add(t.fs, place_of(laddr, 0)), 0);
	memset(&told, 0, sizeof(told));
	return place_of(laddr, 0);
}

static void stand_in_of(unsigned unit)
{
	uint64_t laddr, from, target;

	begin(0);
	laddr = pool_ag_unit(t.pool, 1, unit);
	from = stand_in_make(laddr);
	assert_int_equal(evacuate(from, BLOCK_SIZE, false), 0);
	target = place_of(laddr, 0);
	assert_int_equal(owned(from, BLOCK_SIZE, 0, true), 0);
	end();
	/* What it would go to is bad. */
	poison_begin(0);
	assert_int_equal(stand_in_make(laddr), from);
	testpoison_page(poison, target);
	assert_int_equal(evacuate(from, BLOCK_SIZE, false), 0);
	assert_int_equal(owned(from, BLOCK_SIZE, 0, true), 0);
	assert_true(place_of(laddr, 0) != target && place_of(laddr, 0) != from);
	assert_int_equal(bad_bytes(target, BLOCK_SIZE), BLOCK_SIZE);
	assert_int_equal(told.free, 1);
	end();
	/* It is itself. */
	poison_begin(0);
	assert_int_equal(stand_in_make(laddr), from);
	testpoison_page(poison, from);
	assert_int_equal(evacuate(from, BLOCK_SIZE, false), 0);
	assert_true(place_of(laddr, 0) != from);
	assert_int_equal(bad_bytes(from, BLOCK_SIZE), BLOCK_SIZE);
	assert_int_equal(told.meta, 1);
	end();
}

static void test_stand_in(void **state)
{
	(void)state;
	stand_in_of(AG_UNIT_INTENTS);
	stand_in_of(AG_UNIT_HEADER);
}

/* A lane leaves for the sake of one of its blocks; another one, which nobody has met, cannot be read. */
static void test_lane(void **state)
{
	uint64_t lane_bytes = 3 * MIB / 2, off;

	(void)state;
	poison_begin((uint32_t)lane_bytes);
	off = super_lane_blk(pool_super(t.pool), 1, 0) * BLOCK_SIZE;
	testpoison_page(poison, off + 7 * BLOCK_SIZE);
	assert_int_equal(evacuate(off, BLOCK_SIZE, false), 0);
	assert_true(super_lane_blk(pool_super(t.pool), 1, 0) * BLOCK_SIZE != off);
	assert_int_equal(bad_bytes(off, lane_bytes), BLOCK_SIZE);
	assert_int_equal(bad_bytes(off + 7 * BLOCK_SIZE, BLOCK_SIZE), BLOCK_SIZE);
	assert_int_equal(told.free, 1);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_home),  cmocka_unit_test(test_home_near),
		cmocka_unit_test(test_known), cmocka_unit_test(test_known_many),
		cmocka_unit_test(test_met),   cmocka_unit_test(test_target),
		cmocka_unit_test(test_both),  cmocka_unit_test(test_stand_in),
		cmocka_unit_test(test_lane),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
