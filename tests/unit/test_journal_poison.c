/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad memory under the journal and the superblock: as long as one copy can be written all goes on, and what was over stays over.
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

#include "fs/poison.h"
#include "lib/testlist.h"
#include "lib/testpoison.h"
#include "repair/check.h"
#include "unit/repair_scene.h"

static struct testfs t;
static struct testpoison *poison;

static void pool_make(void)
{
	const struct testfs_opts opts = { .size_bytes = (uint64_t)32 << 20 };

	testfs_make(&t, &opts);
	poison = testpoison_open(t.dax);
	if (poison)
		return;
	testfs_free(&t);
	skip();
}

static void pool_end(void)
{
	testpoison_close(poison);
	assert_null(pool_failed(t.pool));
	testfs_check(&t);
	testfs_free(&t);
}

static uint64_t lane_off(unsigned lane, unsigned copy)
{
	const struct super *s = pool_super(t.pool);

	return (copy ? s->lanes[lane].mirror_blk : s->lanes[lane].primary_blk) * BLOCK_SIZE;
}

static unsigned lane_count(void)
{
	return pool_super(t.pool)->lane_count;
}

/* A file of that name, with attributes enough for a record of several pages. */
static int file_make(const char *name)
{
	static uint8_t value[9000];
	struct inode_attr attr;
	int rc = testfs_mknod(&t, INODE_ROOT, name, S_IFREG | 0644, &attr);

	if (rc)
		return rc;
	memset(value, 3, sizeof(value));
	rc = fs_setxattr(t.fs, attr.ino, "user.x", value, sizeof(value), 0, false);
	fs_forget(t.fs, attr.ino, 1);
	return rc;
}

static bool exists(const char *name)
{
	struct inode_attr attr;
	int rc = testfs_lookup(&t, INODE_ROOT, name, &attr);

	if (!rc)
		fs_forget(t.fs, attr.ino, 1);
	return rc == 0;
}

/* ---- lanes ---- */

/* page: of each lane. One lane can be used with both copies, then with one, then none can. */
static void lanes_of(unsigned page)
{
	uint64_t off = page * BLOCK_SIZE;
	char name[16];

	pool_make();
	pool_on_bad(t.pool, NULL, NULL); /* they stay where they are */
	for (unsigned bad = 0; bad < 2 * lane_count(); bad++) {
		/* Mirrors of all, then primaries. */
		testpoison_page(poison, lane_off(bad % lane_count(), bad < lane_count()) + off);
		if (bad + 1 == 2 * lane_count())
			break;
		snprintf(name, sizeof(name), "f%u", bad);
		assert_int_equal(file_make(name), 0);
		testfs_remount(&t);
		pool_on_bad(t.pool, NULL, NULL);
		assert_true(exists(name));
		snprintf(name, sizeof(name), "g%u", bad);
		assert_int_equal(file_make(name), 0);
		testfs_check(&t);
	}
	assert_int_equal(file_make("never"), -EIO);
	assert_null(pool_failed(t.pool));
	testpoison_heal_all(poison);
	assert_true(page != 0 || !exists("never"));
	assert_int_equal(file_make("again"), 0);
	testfs_remount(&t);
	assert_true(exists("again"));
	pool_end();
}

static void test_lanes(void **state)
{
	(void)state;
	lanes_of(0);
	lanes_of(1);
}

/* Nobody has met it by an access. */
static void test_lane_asked(void **state)
{
	(void)state;
	pool_make();
	for (unsigned lane = 0; lane < lane_count(); lane++) {
		testpoison_page(poison, lane_off(lane, lane % 2) + 3 * BLOCK_SIZE);
		assert_int_equal(poison_handle(t.fs, lane_off(lane, lane % 2) + 3 * BLOCK_SIZE), 0);
	}
	assert_int_equal(file_make("a"), 0);
	pool_end();
}

/* Only a commit meets it: the lane moves as soon as somebody has time for it, and goes on to be used. */
static void moves_of(unsigned copy, unsigned page)
{
	uint64_t before[16];
	char name[16];

	pool_make();
	assert_true(lane_count() <= ARRAY_SIZE(before));
	for (unsigned lane = 0; lane < lane_count(); lane++) {
		before[lane] = lane_off(lane, copy);
		testpoison_page(poison, before[lane] + page * BLOCK_SIZE);
	}
	/* One lane after the other, as each of them is worn. */
	for (unsigned i = 0; i < lane_count(); i++) {
		snprintf(name, sizeof(name), "f%u", i);
		assert_int_equal(file_make(name), 0);
	}
	for (unsigned lane = 0; lane < lane_count(); lane++)
		assert_int_equal(lane_off(lane, copy), before[lane]);
	fs_work(t.fs);
	for (unsigned lane = 0; lane < lane_count(); lane++)
		assert_true(lane_off(lane, copy) != before[lane]);
	testpoison_close(poison);
	testfs_check(&t);
	testfs_crash(&t);
	assert_true(exists("f0"));
	assert_null(pool_failed(t.pool));
	testfs_check(&t);
	testfs_free(&t);
}

static void test_lane_moves(void **state)
{
	(void)state;
	for (unsigned copy = 0; copy < 2; copy++) {
		moves_of(copy, 0);
		moves_of(copy, 1);
	}
}

/* ---- replay ---- */

/* The image is opened with the page bad; what it held comes back later. */
static void replay_of(const struct scene *live, unsigned copy)
{
	const struct pool_opts pool_opts = { 0 };
	struct inode_attr p;
	char *want, *got, why[256];

	t = (struct testfs){ .opts = { .size_bytes = SCENE_BYTES } };
	assert_int_equal(dax_open_ram(SCENE_BYTES, live->image, NULL, &t.dax), 0);
	poison = testpoison_open(t.dax);
	if (!poison) {
		dax_close(t.dax);
		skip();
	}
	testpoison_page(poison, live->units[0].off[copy]);
	assert_int_equal(pool_open(t.dax, &pool_opts, &t.pool, why, sizeof(why)), 0);
	assert_int_equal(pool_replayed(t.pool), 1);
	assert_int_equal(fs_open(t.pool, &t.opts.fs, &t.fs), 0);
	assert_int_equal(testfs_lookup(&t, INODE_ROOT, "p", &p), 0);
	fs_forget(t.fs, p.ino, 1);
	assert_int_equal(testfs_unlink(&t, p.ino, "journaled"), 0);
	fs_work(t.fs);
	for (unsigned i = 0; i < 50; i++) {
		char name[16];

		snprintf(name, sizeof(name), "new%u", i);
		assert_int_equal(testfs_mknod(&t, p.ino, name, S_IFREG | 0600, NULL), 0);
	}
	want = testlist_make(&t);
	testpoison_heal_all(poison);
	for (unsigned i = 0; i < 2; i++) {
		testfs_remount(&t);
		assert_int_equal(pool_replayed(t.pool), 0);
		got = testlist_make(&t);
		assert_int_equal(testlist_diff(want, got, true), 0);
		free(got);
	}
	free(want);
	pool_end();
}

static void test_replay(void **state)
{
	struct scene live;

	(void)state;
	scene_make(&live, true);
	replay_of(&live, 0);
	replay_of(&live, 1);
	scene_free(&live);
}

/* ---- superblock ---- */

static void found(void *arg, enum check_kind kind, const char *text)
{
	(void)arg;
	if (kind != CHECK_SUPER)
		fail_msg("%s: %s", check_kind_name(kind), text);
}

static void test_super(void **state)
{
	const struct check_opts opts = { .found = found };
	struct check_report report;

	(void)state;
	for (unsigned copy = 0; copy < 2; copy++) {
		uint64_t off;

		pool_make();
		off = copy ? (pool_super(t.pool)->size_blk - 1) * BLOCK_SIZE : 0;
		testpoison_page(poison, off);
		assert_int_equal(poison_handle(t.fs, off), -EIO);
		assert_int_equal(file_make("a"), 0);
		/* Group headers can still move. */
		assert_int_equal(fs_poison_add(t.fs, (CHUNK_BLOCKS + 8) * BLOCK_SIZE), 0);
		for (unsigned i = 0; i < 3; i++) {
			testfs_remount(&t);
			assert_true(exists("a"));
			assert_int_equal(pool_super(t.pool)->remap_count, 1);
			assert_int_equal(check_pool(t.pool, &opts, &report), 0);
			assert_int_equal(report.findings, 1);
		}
		/* What it held before comes back: it is the older one. */
		testpoison_heal_all(poison);
		testfs_remount(&t);
		assert_int_equal(pool_super(t.pool)->remap_count, 1);
		assert_true(exists("a"));
		pool_end();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lanes),      cmocka_unit_test(test_lane_asked),
		cmocka_unit_test(test_lane_moves), cmocka_unit_test(test_replay),
		cmocka_unit_test(test_super),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
