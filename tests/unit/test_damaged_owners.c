/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Blocks of many owners, of whom more are damaged than are switched at once: all others get away from bad memory, or out of a range that is
 * emptied, and the damaged ones do when they have been repaired.
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
#include "lib/testfs.h"
#include "lib/testpoison.h"

#define FILE_BLOCKS 6u
#define FILE_BYTES (FILE_BLOCKS * BLOCK_SIZE)
#define BAD_BLK 4u
#define COUNT_MAX 200u
#define STEPS_MAX 1000u

static struct testfs t;
static uint8_t content[FILE_BYTES];
static uint64_t owners[COUNT_MAX]; /* in the order of their numbers */
static bool damaged[COUNT_MAX];
static uint8_t saved[COUNT_MAX][2][INODE_SIZE];
static unsigned count;

static int ino_compare(const void *a, const void *b)
{
	uint64_t ia = *(const uint64_t *)a, ib = *(const uint64_t *)b;

	return (ia > ib) - (ia < ib);
}

/*
 * So many files that share their blocks; each third one has only those from BAD_BLK on of another, and so a record that starts elsewhere: those
 * come behind the others, whatever their numbers.
 */
static void owners_make(unsigned wanted)
{
	for (unsigned i = 0; i < FILE_BYTES; i++)
		content[i] = (uint8_t)(i * 31 + i / 256 + 1);
	for (count = 0; count < wanted; count++) {
		uint64_t from = count % 3 == 1 ? BAD_BLK * BLOCK_SIZE : 0;
		char name[16];

		snprintf(name, sizeof(name), "%u", count);
		owners[count] = testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644);
		if (count == 0 || from > 0)
			assert_int_equal(fs_write(t.fs, &testfs_root, owners[count], content, FILE_BYTES, 0,
						  0),
					 FILE_BYTES);
		if (count > 0)
			assert_int_equal(fs_clone(t.fs, &testfs_root, owners[0], from, owners[count], from,
						  FILE_BYTES - from, 0, NULL),
					 FILE_BYTES - from);
	}
	qsort(owners, count, sizeof(owners[0]), ino_compare);
	memset(damaged, 0, sizeof(damaged));
}

/* Both copies of an inode's record. */
static uint8_t *record_of(uint64_t ino, unsigned copy)
{
	uint64_t laddr = ino << INODE_SHIFT, off;

	assert_int_equal(pool_place(t.pool, u64_align_down(laddr, BLOCK_SIZE), copy, &off), 0);
	return (uint8_t *)(uintptr_t)dax_ptr(t.dax, off + laddr % BLOCK_SIZE);
}

static void owner_spoil(unsigned i)
{
	damaged[i] = true;
	for (unsigned copy = 0; copy < 2; copy++) {
		memcpy(saved[i][copy], record_of(owners[i], copy), INODE_SIZE);
		memset(record_of(owners[i], copy), 0xee, INODE_SIZE);
	}
}

static void owners_repair(void)
{
	for (unsigned i = 0; i < count; i++) {
		for (unsigned copy = 0; copy < 2 && damaged[i]; copy++)
			memcpy(record_of(owners[i], copy), saved[i][copy], INODE_SIZE);
		damaged[i] = false;
	}
}

static uint64_t place_of(uint64_t ino)
{
	struct fs_extent e;

	assert_int_equal(fs_map(t.fs, ino, BAD_BLK * BLOCK_SIZE, &e, 1), 1);
	return e.dev_off + (BAD_BLK * BLOCK_SIZE - e.file_off);
}

/* Who is not damaged has all but the lost lines of the bad block, and has it elsewhere than at dev_off. */
static void owners_check(uint64_t dev_off, uint64_t lost)
{
	uint8_t line[LINE_SIZE];

	for (unsigned i = 0; i < count; i++) {
		if (damaged[i]) {
			assert_int_equal(fs_read(t.fs, owners[i], line, 1, 0), -EUCLEAN);
			continue;
		}
		if (place_of(owners[i]) == dev_off)
			fail_msg("owner %u of %u has not been switched", i, count);
		for (uint64_t off = 0; off < FILE_BYTES; off += LINE_SIZE) {
			bool gone = off / BLOCK_SIZE == BAD_BLK && lost >> off % BLOCK_SIZE / LINE_SIZE & 1;

			assert_int_equal(fs_read(t.fs, owners[i], line, LINE_SIZE, off),
					 gone ? -EIO : (int)LINE_SIZE);
			if (!gone)
				assert_memory_equal(line, content + off, LINE_SIZE);
		}
	}
}

/* Blocks that such an owner has anywhere. */
static uint64_t blocks_of(uint64_t owner)
{
	struct fs_owners_pos pos = { 0 };
	struct fs_owner page[64];
	uint64_t bytes = 0;
	unsigned n;

	do {
		assert_int_equal(fs_owners(t.fs, 0, pool_size_blk(t.pool) * BLOCK_SIZE, &pos, page,
					   ARRAY_SIZE(page), &n),
				 0);
		for (unsigned i = 0; i < n; i++) {
			bytes += page[i].owner == owner ? page[i].len : 0;
			pos = page[i].after;
		}
	} while (n > 0);
	return bytes / BLOCK_SIZE;
}

static unsigned told_count;

static void told(void *arg, const struct fs_poison *event)
{
	(void)arg;
	told_count += event->kind == FS_POISON_DATA;
}

/* What comes first in the order in which owners are looked at is damaged, and some behind. */
static unsigned spoil(unsigned first, unsigned each)
{
	unsigned healthy = 0;

	for (unsigned i = 0; i < count; i++) {
		if (i < first || (each && i % each == 0))
			owner_spoil(i);
		else
			healthy++;
	}
	testfs_crash(&t);
	return healthy;
}

static unsigned first_healthy(void)
{
	unsigned i = 0;

	while (damaged[i])
		i++;
	return i;
}

static void poison_of(unsigned wanted, unsigned first, unsigned each)
{
	const struct testfs_opts opts = { .size_bytes = (uint64_t)24 << 20 };
	struct testpoison *poison;
	unsigned healthy;
	uint64_t dev_off;
	uint8_t byte;

	testfs_make(&t, &opts);
	owners_make(wanted);
	dev_off = place_of(owners[0]);
	healthy = spoil(first, each);
	poison = testpoison_open(t.dax);
	if (!poison) {
		testfs_free(&t);
		skip();
	}
	testpoison_lines(poison, dev_off, 0x10);
	fs_on_poison(t.fs, told, NULL);
	told_count = 0;
	(void)!fs_read(t.fs, owners[first_healthy()], &byte, 1, BAD_BLK * BLOCK_SIZE);
	assert_int_equal(told_count, healthy);
	owners_check(dev_off, 0x10);
	assert_int_equal(blocks_of(OWNER_FORWARD), 1);
	testpoison_close(poison);
	owners_repair();
	testfs_crash(&t);
	owners_check(dev_off, 0x10);
	assert_int_equal(blocks_of(OWNER_FORWARD), 0);
	assert_int_equal(blocks_of(OWNER_BAD), 1);
	testfs_check(&t);
	testfs_free(&t);
}

static void test_poison(void **state)
{
	(void)state;
	poison_of(50, 40, 0);
	poison_of(50, 49, 0);
	poison_of(120, 32, 2);
	poison_of(COUNT_MAX, 64, 5);
	poison_of(COUNT_MAX, 0, 2);
}

static unsigned lost_count(void)
{
	unsigned lost = 0;
	uint8_t byte;

	for (unsigned i = 0; i < count; i++)
		lost += !damaged[i] &&
			fs_read(t.fs, owners[i], &byte, 1, BAD_BLK * BLOCK_SIZE + 4 * LINE_SIZE) == -EIO;
	return lost;
}

static void heal(unsigned by, unsigned healthy, unsigned passed_over)
{
	struct fs_healed healed;
	unsigned at = 0;

	assert_int_equal(
		fs_heal(t.fs, owners[by], BAD_BLK * BLOCK_SIZE, content + BAD_BLK * BLOCK_SIZE, &healed), 0);
	assert_int_equal(healed.count, healthy);
	assert_int_equal(healed.damaged, passed_over);
	for (unsigned i = 0; i < count && at < u64_min(healed.damaged, FS_HEAL_NAMED); i++) {
		if (damaged[i])
			assert_int_equal(healed.damaged_inos[at++], owners[i]);
	}
}

/*
 * What was lost is put back for all who can be looked at, the damaged ones are named. early: they were damaged before their memory went bad, so that they
 * have not been switched away from it.
 */
static void heal_of(unsigned wanted, unsigned first, unsigned each, bool early)
{
	const struct testfs_opts opts = { .size_bytes = (uint64_t)24 << 20 };
	struct testpoison *poison;
	struct fs_extent e;
	uint64_t dev_off;
	unsigned healthy = wanted;
	uint8_t byte;

	testfs_make(&t, &opts);
	owners_make(wanted);
	dev_off = place_of(owners[0]);
	if (early)
		healthy = spoil(first, each);
	poison = testpoison_open(t.dax);
	if (!poison) {
		testfs_free(&t);
		skip();
	}
	testpoison_lines(poison, dev_off, 0x10);
	(void)!fs_read(t.fs, owners[first_healthy()], &byte, 1, BAD_BLK * BLOCK_SIZE);
	testpoison_close(poison);
	owners_check(dev_off, 0x10);
	if (!early)
		healthy = spoil(first, each);
	heal(first_healthy(), healthy, early ? 0 : wanted - healthy);
	owners_check(dev_off, 0);
	assert_int_equal(fs_map(t.fs, owners[first_healthy()], BAD_BLK * BLOCK_SIZE, &e, 1), 1);
	assert_int_equal(e.owners, early ? 1 : wanted);
	owners_repair();
	testfs_crash(&t);
	assert_int_equal(lost_count(), wanted - healthy);
	heal(0, wanted - healthy, 0);
	owners_check(dev_off, 0);
	testfs_check(&t);
	testfs_free(&t);
}

static void test_heal(void **state)
{
	(void)state;
	heal_of(50, 3, 0, false);
	heal_of(COUNT_MAX, 64, 5, false);
	heal_of(50, 3, 0, true);
	heal_of(COUNT_MAX, 64, 5, true);
}

static void evacuate(uint64_t dev_off, bool mark_bad)
{
	struct fs_evacuation e = { .dev_off = dev_off, .len = BLOCK_SIZE, .mark_bad = mark_bad };
	unsigned steps = 0;
	int rc = fs_evacuate(t.fs, &e);

	while (!rc && (rc = fs_evacuate_step(t.fs, e.id, BLOCK_SIZE, &e)) == 1) {
		assert_true(++steps < STEPS_MAX);
		rc = 0;
	}
	assert_int_equal(rc, 0);
}

static void evacuate_of(unsigned wanted, unsigned first, unsigned each, bool mark_bad)
{
	const struct testfs_opts opts = { .size_bytes = (uint64_t)24 << 20 };
	uint64_t dev_off;

	testfs_make(&t, &opts);
	owners_make(wanted);
	dev_off = place_of(owners[0]);
	(void)spoil(first, each);
	evacuate(dev_off, mark_bad);
	owners_check(dev_off, 0);
	assert_int_equal(blocks_of(OWNER_FORWARD), 1);
	owners_repair();
	testfs_crash(&t);
	owners_check(dev_off, 0);
	assert_int_equal(blocks_of(OWNER_FORWARD), 0);
	assert_int_equal(blocks_of(OWNER_BAD), mark_bad);
	testfs_check(&t);
	testfs_free(&t);
}

/*
 * What a range was emptied of goes bad before all have left it, or is said to be bad: it is not free when they have, in this mount or another one, and
 * nothing is lost.
 */
static void source_of(unsigned wanted, unsigned first, unsigned each, bool by_hand, bool crash)
{
	const struct testfs_opts opts = { .size_bytes = (uint64_t)24 << 20 };
	struct testpoison *poison;
	uint64_t dev_off;

	testfs_make(&t, &opts);
	owners_make(wanted);
	dev_off = place_of(owners[0]);
	(void)spoil(first, each);
	poison = testpoison_open(t.dax);
	if (!poison) {
		testfs_free(&t);
		skip();
	}
	evacuate(dev_off, false);
	assert_int_equal(blocks_of(OWNER_FORWARD), 1);
	if (by_hand) {
		assert_int_not_equal(fs_poison_add(t.fs, dev_off), 0);
	} else {
		testpoison_lines(poison, dev_off, 0x30);
		fs_poison_look(t.fs, dev_off, BLOCK_SIZE);
	}
	owners_check(dev_off, 0);
	/* The next mount is told by nobody. */
	testpoison_heal_all(poison);
	testpoison_close(poison);
	owners_repair();
	if (crash) {
		testfs_crash(&t);
	} else {
		fs_poison_look(t.fs, dev_off, BLOCK_SIZE);
		testfs_remount(&t);
	}
	owners_check(dev_off, 0);
	assert_int_equal(blocks_of(OWNER_FORWARD), 0);
	assert_int_equal(blocks_of(OWNER_BAD), 1);
	testfs_check(&t);
	testfs_free(&t);
}

static void test_source(void **state)
{
	(void)state;
	for (unsigned how = 0; how < 4; how++) {
		source_of(50, 40, 0, how & 1, how & 2);
		source_of(50, 49, 0, how & 1, how & 2);
		source_of(COUNT_MAX, 64, 5, how & 1, how & 2);
	}
}

static void test_evacuate(void **state)
{
	(void)state;
	evacuate_of(50, 40, 0, false);
	evacuate_of(50, 40, 0, true);
	evacuate_of(50, 49, 0, false);
	evacuate_of(120, 32, 2, true);
	evacuate_of(COUNT_MAX, 64, 5, false);
	evacuate_of(COUNT_MAX, 0, 2, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_poison),
		cmocka_unit_test(test_evacuate),
		cmocka_unit_test(test_heal),
		cmocka_unit_test(test_source),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
