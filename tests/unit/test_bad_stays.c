/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad memory under files of a full pool is known over mounts and crashes: however the files drop the block, it is not handed out.
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

#include "crash/cut.h"
#include "fs/core.h"
#include "fs/owners.h"
#include "lib/testfs.h"
#include "lib/testpoison.h"
#include "repair/repair.h"

#define POOL_BYTES ((uint64_t)16 << 20)
#define FILE_BLOCKS 8u
#define FILE_BYTES (FILE_BLOCKS * BLOCK_SIZE)
#define BAD_BLK 3u
#define OWNERS_MAX 40u
#define LOST 0x8100u

static struct testfs t;
static struct testpoison *poison;
static uint8_t content[FILE_BYTES];
static uint64_t owners[OWNERS_MAX], bad_off;
static unsigned owner_count;

/* ---- the pool ---- */

static uint64_t fill_ino(void)
{
	struct inode_attr attr;

	assert_int_equal(testfs_lookup(&t, INODE_ROOT, "fill", &attr), 0);
	fs_forget(t.fs, attr.ino, 1);
	return attr.ino;
}

static void fill(void)
{
	uint64_t ino = testfs_node(&t, INODE_ROOT, "fill", S_IFREG | 0644), at = 0;
	ssize_t n;

	for (size_t len = sizeof(content); len >= BLOCK_SIZE; len /= 2)
		while ((n = fs_write(t.fs, &testfs_root, ino, content, len, at, 0)) > 0)
			at += (uint64_t)n;
}

static uint64_t place_in(struct testfs *u, uint64_t ino)
{
	struct fs_extent e;

	assert_int_equal(fs_map(u->fs, ino, BAD_BLK * BLOCK_SIZE, &e, 1), 1);
	return e.dev_off + (BAD_BLK * BLOCK_SIZE - e.file_off);
}

static void poison_make(void)
{
	poison = testpoison_open(t.dax);
	if (poison)
		return;
	testfs_free(&t);
	skip();
}

static void name_of(unsigned i, char name[12])
{
	snprintf(name, 12, "%u", i);
}

/* A full pool in which so many files share all their blocks. */
static void full_make(unsigned count, const struct dax_trace *trace)
{
	const struct testfs_opts opts = { .size_bytes = POOL_BYTES, .trace = trace };

	testfs_make(&t, &opts);
	owner_count = count;
	for (unsigned i = 0; i < FILE_BYTES; i++)
		content[i] = (uint8_t)(i * 31 + i / 256 + 1);
	for (unsigned i = 0; i < count; i++) {
		char name[12];

		name_of(i, name);
		owners[i] = testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644);
		if (i == 0)
			assert_int_equal(fs_write(t.fs, &testfs_root, owners[0], content, FILE_BYTES, 0, 0),
					 FILE_BYTES);
		else
			assert_int_equal(fs_clone(t.fs, &testfs_root, owners[0], 0, owners[i], 0, FILE_BYTES,
						  0, NULL),
					 FILE_BYTES);
	}
	fill();
	bad_off = place_in(&t, owners[0]);
	poison_make();
}

/* One of their blocks is bad, which nobody has seen yet. */
static void make(unsigned count)
{
	full_make(count, NULL);
	testpoison_lines(poison, bad_off, LOST);
}

static void meet(void)
{
	uint8_t byte;

	assert_int_equal(fs_read(t.fs, owners[0], &byte, 1, BAD_BLK * BLOCK_SIZE + 8 * LINE_SIZE), -EIO);
}

/* It has been seen, and the next mount is told by nobody: there is no bad memory any more that it could meet. */
static void begin(unsigned count)
{
	make(count);
	meet();
	testpoison_heal_all(poison);
	testpoison_close(poison);
	poison = NULL;
}

static void end(void)
{
	if (poison)
		testpoison_close(poison);
	poison = NULL;
	assert_null(pool_failed(t.pool));
	testfs_check(&t);
	testfs_free(&t);
}

/* How many files have the block, and whether OWNER_BAD has. */
static unsigned files_of(struct testfs *u, uint64_t off, bool *bad)
{
	struct fs_owners_pos pos = { 0 };
	unsigned count, files = 0;
	struct fs_owner o;

	*bad = false;
	for (;;) {
		assert_int_equal(fs_owners(u->fs, off, BLOCK_SIZE, &pos, &o, 1, &count), 0);
		if (count == 0)
			return files;
		if (o.owner == OWNER_BAD)
			*bad = true;
		else
			files++;
		pos = o.after;
	}
}

static bool is_known(unsigned files)
{
	bool bad;

	return files_of(&t, bad_off, &bad) == files && bad;
}

static bool is_flagged(void)
{
	return pool_super(t.pool)->ro_compat & FEATURE_RO_COMPAT_BAD_IN_USE;
}

/* ---- known ---- */

static void test_known(void **state)
{
	(void)state;
	for (unsigned count = 1; count <= OWNERS_MAX; count += OWNERS_MAX - 1) {
		make(count);
		assert_false(is_flagged());
		meet();
		assert_true(is_known(count) && is_flagged());
		testfs_check(&t);
		meet();
		assert_true(is_known(count));
		fs_work(t.fs);
		assert_true(is_known(count));
		testfs_remount(&t);
		assert_true(is_known(count) && is_flagged());
		fs_work(t.fs);
		assert_true(is_known(count) && is_flagged());
		end();
	}
}

/* A mount that nobody tells of it moves the files as soon as there is room, and the one after that forgets that there was such a thing. */
static void test_room(void **state)
{
	uint8_t back[FILE_BYTES];

	(void)state;
	for (unsigned count = 1; count <= OWNERS_MAX; count += OWNERS_MAX - 1) {
		begin(count);
		testfs_remount(&t);
		poison_make();
		testpoison_lines(poison, bad_off, LOST);
		assert_int_equal(testfs_unlink(&t, INODE_ROOT, "fill"), 0);
		fs_work(t.fs);
		fs_work(t.fs);
		assert_true(is_known(0));
		for (unsigned i = 0; i < count; i++) {
			assert_true(place_in(&t, owners[i]) == place_in(&t, owners[0]));
			assert_int_equal(fs_read(t.fs, owners[i], back, FILE_BYTES, 0),
					 BAD_BLK * BLOCK_SIZE + 8 * LINE_SIZE);
			assert_memory_equal(back, content, BAD_BLK * BLOCK_SIZE + 8 * LINE_SIZE);
		}
		testpoison_heal_all(poison);
		testfs_remount(&t);
		assert_true(is_flagged());
		fs_work(t.fs);
		assert_true(is_known(0) && !is_flagged());
		testfs_remount(&t);
		assert_true(is_known(0) && !is_flagged());
		end();
	}
}

/* What can be read again is moved all the same, and nothing of it is lost. */
static void test_readable(void **state)
{
	uint8_t back[FILE_BYTES];

	(void)state;
	for (unsigned count = 1; count <= OWNERS_MAX; count += OWNERS_MAX - 1) {
		begin(count);
		assert_int_equal(testfs_unlink(&t, INODE_ROOT, "fill"), 0);
		fs_work(t.fs);
		assert_true(is_known(0));
		for (unsigned i = 0; i < count; i++) {
			assert_int_equal(fs_read(t.fs, owners[i], back, FILE_BYTES, 0), FILE_BYTES);
			assert_memory_equal(back, content, FILE_BYTES);
		}
		end();
	}
}

/* Out of use by hand, or by the device's list, though nothing is wrong with it. */
static void test_by_hand(void **state)
{
	enum fs_poison_result result;

	(void)state;
	make(1);
	testpoison_heal_all(poison);
	assert_int_equal(fs_poison_add(t.fs, bad_off), -EINPROGRESS);
	assert_true(is_known(1));
	testfs_remount(&t);
	fs_work(t.fs);
	assert_true(is_known(1));
	/* The device is not asked to clear what a file has. */
	assert_int_equal(fs_poison_clear(t.fs, bad_off, true, &result), 0);
	assert_int_equal(result, FS_POISON_IN_USE);
	assert_true(is_known(1));
	assert_int_equal(fs_poison_clear(t.fs, bad_off, false, &result), 0);
	assert_int_equal(result, FS_POISON_FREED);
	assert_false(is_known(1));
	assert_true(place_in(&t, owners[0]) == bad_off);
	assert_int_equal(fs_poison_clear(t.fs, bad_off, false, &result), 0);
	assert_int_equal(result, FS_POISON_NOT_BAD);
	fs_work(t.fs);
	assert_true(place_in(&t, owners[0]) == bad_off);
	/* What cannot be read is not good, whatever somebody says. */
	testpoison_lines(poison, bad_off, LOST);
	meet();
	assert_true(is_known(1));
	assert_int_equal(fs_poison_clear(t.fs, bad_off, false, &result), 0);
	assert_int_equal(result, FS_POISON_STILL_BAD);
	assert_true(is_known(1));
	end();
}

/* A few blocks to write to. */
static void room_make(unsigned blocks)
{
	struct inode_attr attr = testfs_attr(&t, fill_ino());
	const struct fs_set set = { .what = FS_SET_SIZE, .size = attr.size - blocks * BLOCK_SIZE };

	assert_int_equal(fs_setattr(t.fs, &testfs_root, attr.ino, &set, &attr), 0);
}

/* Somebody takes all there is. */
static void fill_more(void)
{
	uint64_t ino = testfs_node(&t, INODE_ROOT, "rest", S_IFREG | 0644), at = 0;
	ssize_t n;

	while ((n = fs_write(t.fs, &testfs_root, ino, content, BLOCK_SIZE, at, 0)) > 0)
		at += (uint64_t)n;
}

/* ---- every way to drop it ---- */

static int by_unlink(uint64_t ino, unsigned i)
{
	char name[12];

	(void)ino;
	name_of(i, name);
	return testfs_unlink(&t, INODE_ROOT, name);
}

static int by_truncate(uint64_t ino, unsigned i)
{
	const struct fs_set set = { .what = FS_SET_SIZE, .size = BAD_BLK * BLOCK_SIZE };
	struct inode_attr attr;

	(void)i;
	return fs_setattr(t.fs, &testfs_root, ino, &set, &attr);
}

static int by_punch(uint64_t ino, unsigned i)
{
	(void)i;
	return fs_fallocate(t.fs, &testfs_root, ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			    BAD_BLK * BLOCK_SIZE, BLOCK_SIZE);
}

static int by_zero(uint64_t ino, unsigned i)
{
	(void)i;
	room_make(1);
	return fs_fallocate(t.fs, &testfs_root, ino, FALLOC_FL_ZERO_RANGE, BAD_BLK * BLOCK_SIZE, BLOCK_SIZE);
}

static int by_collapse(uint64_t ino, unsigned i)
{
	(void)i;
	return fs_fallocate(t.fs, &testfs_root, ino, FALLOC_FL_COLLAPSE_RANGE, (BAD_BLK - 1) * BLOCK_SIZE,
			    3 * BLOCK_SIZE);
}

static int by_write(uint64_t ino, unsigned i)
{
	(void)i;
	room_make(1);
	return fs_write(t.fs, &testfs_root, ino, content, BLOCK_SIZE, BAD_BLK * BLOCK_SIZE, 0) == BLOCK_SIZE ?
		       0 :
		       -EIO;
}

static int by_clone(uint64_t ino, unsigned i)
{
	(void)i;
	return fs_clone(t.fs, &testfs_root, fill_ino(), 0, ino, BAD_BLK * BLOCK_SIZE, BLOCK_SIZE, 0, NULL) ==
			       BLOCK_SIZE ?
		       0 :
		       -EIO;
}

static int by_dedupe(uint64_t ino, unsigned i)
{
	uint64_t off = BAD_BLK * BLOCK_SIZE; /* the first piece of the filler is the same */
	bool same = false;
	int rc = fs_dedupe(t.fs, fill_ino(), off, ino, off, BLOCK_SIZE, &same);

	(void)i;
	return rc ? rc : same ? 0 : -EIO;
}

static int (*const drops[])(uint64_t ino, unsigned i) = {
	by_unlink, by_truncate, by_punch, by_zero, by_collapse, by_write, by_clone, by_dedupe,
};

static void test_drops(void **state)
{
	(void)state;
	for (size_t d = 0; d < ARRAY_SIZE(drops); d++) {
		for (unsigned count = 1; count <= 3; count += 2) {
			begin(count);
			testfs_remount(&t);
			for (unsigned i = 0; i < count; i++) {
				assert_true(is_known(count - i));
				assert_int_equal(drops[d](owners[i], i), 0);
			}
			assert_true(is_known(0));
			testfs_check(&t);
			fill_more();
			assert_true(is_known(0));
			end();
		}
	}
}

/* One who has it alone does not store into it in place: neither by a call nor by a mapping that was there before. */
static void test_no_store(void **state)
{
	(void)state;
	begin(1);
	testfs_remount(&t);
	assert_int_equal(fs_write(t.fs, &testfs_root, owners[0], content, BLOCK_SIZE, BAD_BLK * BLOCK_SIZE,
				  0),
			 -ENOSPC);
	assert_int_equal(fs_write(t.fs, &testfs_root, owners[0], content, BLOCK_SIZE, 0, 0), BLOCK_SIZE);
	assert_true(is_known(1));
	end();
}

/* The same where nothing has been written yet. */
static void test_unwritten(void **state)
{
	uint64_t ino, blk = BAD_BLK, off;
	uint8_t back[FILE_BYTES], want[FILE_BYTES] = { 0 };
	struct fs_extent e;

	(void)state;
	begin(1);
	room_make(FILE_BLOCKS);
	ino = testfs_node(&t, INODE_ROOT, "unwritten", S_IFREG | 0644);
	assert_int_equal(fs_fallocate(t.fs, &testfs_root, ino, 0, 0, FILE_BYTES), 0);
	assert_int_equal(fs_map(t.fs, ino, blk * BLOCK_SIZE, &e, 1), 1);
	assert_true(e.flags & FS_EXTENT_UNWRITTEN);
	off = place_in(&t, ino);
	fill_more();
	bad_off = off;
	assert_int_equal(fs_poison_add(t.fs, off), -EINPROGRESS);
	assert_true(is_known(1));
	testfs_remount(&t);
	assert_int_equal(fs_write(t.fs, &testfs_root, ino, content, 10, blk * BLOCK_SIZE + 100, 0), -ENOSPC);
	assert_true(place_in(&t, ino) == off);
	room_make(1);
	assert_int_equal(fs_write(t.fs, &testfs_root, ino, content, 10, blk * BLOCK_SIZE + 100, 0), 10);
	assert_int_equal(fs_write(t.fs, &testfs_root, ino, content, 10, 0, 0), 10);
	assert_true(place_in(&t, ino) != off && is_known(0));
	memcpy(want, content, 10);
	memcpy(want + blk * BLOCK_SIZE + 100, content, 10);
	assert_int_equal(fs_read(t.fs, ino, back, FILE_BYTES, 0), FILE_BYTES);
	assert_memory_equal(back, want, FILE_BYTES);
	end();
}

/* ---- others who come by ---- */

static void evacuate(bool mark_bad)
{
	struct fs_evacuation e = { .dev_off = bad_off - BAD_BLK * BLOCK_SIZE,
				   .len = FILE_BYTES,
				   .mark_bad = mark_bad };
	uint8_t back[FILE_BYTES];
	int rc;

	room_make(64);
	assert_int_equal(fs_evacuate(t.fs, &e), 0);
	while ((rc = fs_evacuate_step(t.fs, e.id, 1 << 20, &e)) == 1)
		;
	assert_int_equal(rc, 0);
	assert_int_equal(e.left_bytes, 0);
	for (unsigned i = 0; i < FILE_BLOCKS; i++) {
		bool bad;

		assert_int_equal(files_of(&t, e.dev_off + i * BLOCK_SIZE, &bad), 0);
		assert_true(bad == (mark_bad || i == BAD_BLK));
	}
	for (unsigned i = 0; i < owner_count; i++) {
		assert_int_equal(fs_read(t.fs, owners[i], back, FILE_BYTES, 0), FILE_BYTES);
		assert_memory_equal(back, content, FILE_BYTES);
		assert_true(place_in(&t, owners[i]) == place_in(&t, owners[0]));
	}
}

static void test_evacuate(void **state)
{
	(void)state;
	for (unsigned mark_bad = 0; mark_bad < 2; mark_bad++) {
		uint64_t other;

		for (unsigned count = 1; count <= OWNERS_MAX; count += OWNERS_MAX - 1) {
			begin(count);
			evacuate(mark_bad);
			end();
		}
		/* Blocks before it have as many owners as it has. */
		begin(1);
		other = testfs_node(&t, INODE_ROOT, "other", S_IFREG | 0644);
		assert_int_equal(fs_clone(t.fs, &testfs_root, owners[0], 0, other, 0, BAD_BLK * BLOCK_SIZE, 0,
					  NULL),
				 BAD_BLK * BLOCK_SIZE);
		evacuate(mark_bad);
		end();
	}
}

/* All of them are there after a crash. */
static void test_many(void **state)
{
	uint64_t offs[100], ino;
	struct fs_extent x;
	uint8_t byte;

	(void)state;
	make(1);
	ino = fill_ino();
	for (unsigned i = 0; i < ARRAY_SIZE(offs); i++) {
		uint64_t off = i * 3 * BLOCK_SIZE;

		assert_int_equal(fs_map(t.fs, ino, off, &x, 1), 1);
		offs[i] = x.dev_off + (off - x.file_off);
		testpoison_page(poison, offs[i]);
		assert_int_equal(fs_read(t.fs, ino, &byte, 1, off), -EIO);
	}
	testpoison_heal_all(poison);
	testpoison_close(poison);
	poison = NULL;
	testfs_crash(&t);
	for (unsigned i = 0; i < ARRAY_SIZE(offs); i++) {
		bool bad;

		assert_int_equal(files_of(&t, offs[i], &bad), 1);
		assert_true(bad);
	}
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "fill"), 0);
	fs_work(t.fs);
	for (unsigned i = 0; i < ARRAY_SIZE(offs); i++) {
		bool bad;

		assert_int_equal(files_of(&t, offs[i], &bad), 0);
		assert_true(bad);
	}
	end();
}

/* ---- power loss ---- */

struct crash {
	unsigned images, known;
	bool must; /* the call has returned */
};

/* Either nobody knows yet, or all is as it should be; with its last file the block is out of use then. */
static void image_check(void *arg, const uint8_t *image)
{
	const struct testfs_opts opts = { .size_bytes = POOL_BYTES };
	struct crash *c = arg;
	struct testfs u;
	unsigned files;
	bool bad;

	testfs_check_image(image, POOL_BYTES);
	testfs_open_image(&u, image, &opts);
	files = files_of(&u, bad_off, &bad);
	assert_true(bad || !c->must);
	assert_true(files == 0 || files == owner_count);
	c->known += bad;
	if (bad) {
		assert_true(pool_super(u.pool)->ro_compat & FEATURE_RO_COMPAT_BAD_IN_USE || files == 0);
		for (unsigned i = 0; i < owner_count && files > 0; i++) {
			char name[12];

			name_of(i, name);
			assert_int_equal(testfs_unlink(&u, INODE_ROOT, name), 0);
		}
		fs_work(u.fs);
		assert_int_equal(files_of(&u, bad_off, &bad), 0);
		assert_true(bad);
	}
	testfs_check(&u);
	testfs_free(&u);
	c->images++;
}

static void crash_of(unsigned count)
{
	struct crash c = { 0 };
	struct cut cut;

	full_make(count, &cut_trace);
	cut_begin(&cut, dax_ptr(t.dax, 0), POOL_BYTES, CUT_NO_PAGE);
	testpoison_lines(poison, bad_off, LOST);
	meet();
	cut_end();
	cut_images(&cut, image_check, &c);
	print_message("# %u owners: %u images, %u of them with it\n", count, c.images, c.known);
	assert_true(c.images > 8 && c.known > 0 && c.known < c.images);
	/* And while the files leave it. */
	c = (struct crash){ .must = true };
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "fill"), 0);
	testpoison_heal_all(poison);
	cut_begin(&cut, dax_ptr(t.dax, 0), POOL_BYTES, CUT_NO_PAGE);
	fs_work(t.fs);
	cut_end();
	assert_true(is_known(0));
	cut_images(&cut, image_check, &c);
	assert_true(c.images > 8);
	end();
}

static void test_crash(void **state)
{
	(void)state;
	crash_of(1);
	crash_of(2);
	crash_of(OWNERS_MAX);
}

/* ---- repair ---- */

static void pool_shut(void)
{
	fs_close(t.fs);
	pool_close(t.pool, true);
}

static void pool_back(void)
{
	const struct pool_opts opts = { .readonly = false };
	char why[256];

	assert_int_equal(pool_open(t.dax, &opts, &t.pool, why, sizeof(why)), 0);
	assert_int_equal(fs_open(t.pool, &t.opts.fs, &t.fs), 0);
}

/* What the repair of a pool that nobody has open finds, and leaves nothing of. */
static uint64_t repaired(enum check_kind kind)
{
	const struct repair_opts opts = { .force = true };
	struct repair_report report;
	char why[256];

	assert_int_equal(repair_pool(t.dax, &opts, &report, why, sizeof(why)), 0);
	assert_int_equal(report.after.findings, 0);
	assert_int_equal(report.acts[REPAIR_LOST] + report.acts[REPAIR_LEFT], 0);
	assert_int_equal(report.after.bad_in_use_blk, 1);
	assert_true(report.super.ro_compat & FEATURE_RO_COMPAT_BAD_IN_USE);
	return report.before.by_kind[kind];
}

static int refcount_lose(struct op *op, void *arg)
{
	struct bt_key key = { { bad_off / BLOCK_SIZE } };
	struct btree bt;
	int rc = space_ag_tree(op->tx, 0, AG_REFCOUNT, &bt);

	(void)arg;
	return rc ? rc : bt_delete(&bt, &key);
}

static int shared_lose(struct op *op, void *arg)
{
	struct inode_attr attr;
	int rc = op_inode(op, owners[0], true, NULL);

	(void)arg;
	if (!rc)
		rc = inode_get(op, owners[0], &attr);
	attr.flags &= ~INODE_SHARED;
	return rc ? rc : inode_put(op, &attr);
}

static int bad_twice(struct op *op, void *arg)
{
	(void)arg;
	return space_share(op->tx, bad_off / BLOCK_SIZE, 1, OWNER_BAD, bad_off / BLOCK_SIZE + 7);
}

static void test_repair(void **state)
{
	static const struct {
		int (*damage)(struct op *op, void *arg);
		enum check_kind kind;
	} all[] = {
		{ refcount_lose, CHECK_REFCOUNT },
		{ shared_lose, CHECK_SHARED_FLAG },
		{ bad_twice, CHECK_RMAP_SPECIAL },
		{ NULL, CHECK_SUPER },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		begin(1);
		if (all[i].damage)
			assert_int_equal(op_run(t.fs, TXN_WRITE, NULL, all[i].damage, NULL), 0);
		else
			assert_int_equal(pool_bad_in_use(t.pool, false), 0);
		pool_shut();
		assert_true(repaired(all[i].kind) > 0);
		assert_int_equal(repaired(all[i].kind), 0);
		pool_back();
		assert_true(is_known(1));
		testfs_check(&t);
		assert_int_equal(by_unlink(owners[0], 0), 0);
		fs_work(t.fs);
		assert_true(is_known(0));
		end();
	}
}

/* Groups know all but that there can be such blocks. */
static void test_super_lost(void **state)
{
	(void)state;
	for (unsigned lost = 1; lost < 4; lost++) {
		const uint8_t zero[BLOCK_SIZE] = { 0 };

		begin(2);
		pool_shut();
		if (lost & 1)
			assert_int_equal(dax_store(t.dax, 0, zero, BLOCK_SIZE), 0);
		if (lost & 2)
			assert_int_equal(dax_store(t.dax, POOL_BYTES - BLOCK_SIZE, zero, BLOCK_SIZE), 0);
		(void)repaired(CHECK_SUPER);
		pool_back();
		assert_true(is_known(2));
		end();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known),      cmocka_unit_test(test_room),
		cmocka_unit_test(test_readable),   cmocka_unit_test(test_by_hand),
		cmocka_unit_test(test_drops),      cmocka_unit_test(test_no_store),
		cmocka_unit_test(test_evacuate),   cmocka_unit_test(test_many),
		cmocka_unit_test(test_crash),      cmocka_unit_test(test_repair),
		cmocka_unit_test(test_super_lost), cmocka_unit_test(test_unwritten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
