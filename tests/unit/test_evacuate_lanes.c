/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Journal lanes in a range that is emptied: in the first and last chunk and in chunks of their own, all of them and some, under load, with power
 * loss at every fence; and what comes after it: replay, repair, growing, bad memory.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "crash/cut.h"
#include "fs/owners.h"
#include "fs/poison.h"
#include "lib/testfs.h"
#include "lib/testlist.h"
#include "lib/testpoison.h"
#include "media/journal.h"
#include "repair/repair.h"
#include "space/space.h"

#define MIB ((uint64_t)1 << 20)
#define STEPS_MAX 20000u
#define FILES 40u

/* What mkfs makes: lanes beside the superblocks; in chunks of their own, with space left over; larger than a chunk. */
struct shape {
	const char *name;
	uint64_t size_bytes, ag_bytes;
	uint32_t lanes, lane_bytes;
};

static const struct shape shapes[] = {
	{ "home, one group", 24 * MIB, 24 * MIB, 4, 384 << 10 },
	{ "home", 32 * MIB, 16 * MIB, 4, 384 << 10 },
	{ "own chunks", 48 * MIB, 24 * MIB, 2, 1536 << 10 },
	{ "large", 64 * MIB, 32 * MIB, 2, 4 << 20 },
};

static struct testfs t;
static uint8_t bytes[40000];

static struct testfs_opts shape_opts(const struct shape *s)
{
	return (struct testfs_opts){
		.size_bytes = s->size_bytes,
		.format.ag_size_bytes = s->ag_bytes,
		.format.lane_count = s->lanes,
		.format.lane_size_bytes = s->lane_bytes,
	};
}

static void begin(const struct shape *s, const struct dax_trace *trace)
{
	struct testfs_opts opts = shape_opts(s);

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 31 + i / 251 + 1);
	opts.trace = trace;
	testfs_make(&t, &opts);
	for (unsigned i = 0; i < FILES; i++) {
		char name[16];
		uint64_t ino;

		snprintf(name, sizeof(name), "f%u", i);
		ino = testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644);
		assert_int_equal(fs_write(t.fs, &testfs_root, ino, bytes, 1000 * i, 0, 0), 1000 * i);
		assert_int_equal(fs_setxattr(t.fs, ino, "user.a", bytes + i, 9000, 0, false), 0);
	}
	fs_work(t.fs);
}

static void end(void)
{
	assert_null(pool_failed(t.pool));
	testfs_check(&t);
	testfs_free(&t);
}

/* ---- where lanes are ---- */

static uint64_t lane_off(struct testfs *u, uint32_t lane, unsigned copy)
{
	return super_lane_blk(pool_super(u->pool), lane, copy) * BLOCK_SIZE;
}

static unsigned lanes_in(struct testfs *u, uint64_t off, uint64_t len)
{
	unsigned count = 0;

	for (uint32_t i = 0; i < 2 * pool_super(u->pool)->lane_count; i++) {
		uint64_t at = lane_off(u, i / 2, i % 2);

		count += at < off + len && at + pool_lane_len_blk(u->pool) * BLOCK_SIZE > off;
	}
	return count;
}

/* No two of them at one place, nor both copies of one in a chunk while there are free ones. */
static void lanes_look(struct testfs *u, bool apart)
{
	const struct super *s = pool_super(u->pool);

	for (uint32_t i = 0; i < 2 * s->lane_count; i++) {
		uint64_t at = lane_off(u, i / 2, i % 2);

		assert_int_equal(lanes_in(u, at, pool_lane_len_blk(u->pool) * BLOCK_SIZE), 1);
		assert_true(!apart ||
			    lane_off(u, i / 2, 0) / CHUNK_SIZE != lane_off(u, i / 2, 1) / CHUNK_SIZE);
	}
}

struct use {
	uint64_t journal, spare, bad, fixed, others;
};

static struct use look(struct testfs *u, uint64_t off, uint64_t len)
{
	uint64_t ag_chunks = pool_super(u->pool)->ag_size_blk / CHUNK_BLOCKS;
	struct fs_owners_pos pos = { 0 };
	struct use use = { 0 };
	struct fs_owner page[64];
	unsigned count;

	do {
		assert_int_equal(fs_owners(u->fs, off, len, &pos, page, ARRAY_SIZE(page), &count), 0);
		for (unsigned i = 0; i < count; i++) {
			const struct fs_owner *o = &page[i];
			bool meta = o->owner == OWNER_META || o->owner == OWNER_MIRROR;

			if (o->owner == OWNER_JOURNAL)
				*(o->file_off & JOURNAL_SPARE ? &use.spare : &use.journal) += o->len;
			else if (o->owner == OWNER_BAD)
				use.bad += o->len;
			else if (o->owner == OWNER_SUPER || (meta && o->file_off % ag_chunks == 0))
				use.fixed += o->len;
			else
				use.others += o->len;
			pos = o->after;
		}
	} while (count > 0);
	return use;
}

static int evacuate(struct testfs *u, uint64_t off, uint64_t len, bool mark_bad, uint64_t *left)
{
	struct fs_evacuation e = { .dev_off = off, .len = len, .mark_bad = mark_bad };
	int rc = fs_evacuate(u->fs, &e);
	unsigned steps = 0;

	if (!rc)
		do {
			rc = fs_evacuate_step(u->fs, e.id, MIB, &e);
			assert_true(++steps < STEPS_MAX);
		} while (rc == 1);
	*left = e.left_bytes;
	return rc;
}

static void evacuated(struct testfs *u, uint64_t off, uint64_t len, bool mark_bad)
{
	struct use use;
	uint64_t left;

	assert_int_equal(evacuate(u, off, len, mark_bad, &left), 0);
	use = look(u, off, len);
	assert_int_equal(lanes_in(u, off, len), 0);
	assert_int_equal(use.journal + use.others, 0);
	assert_int_equal(left, use.fixed);
	if (mark_bad)
		assert_int_equal(use.bad, len - use.fixed);
	lanes_look(u, true);
}

/* Records in each lane, whatever thread it belongs to: many commits. And over a mount, and a crash. */
static void journal_used(struct testfs *u)
{
	static unsigned round;

	for (unsigned how = 0; how < 3; how++) {
		for (unsigned i = 0; i < FILES; i++) {
			struct inode_attr attr;
			char name[16];

			snprintf(name, sizeof(name), "f%u", i);
			assert_int_equal(testfs_lookup(u, INODE_ROOT, name, &attr), 0);
			fs_forget(u->fs, attr.ino, 1);
			assert_int_equal(fs_setxattr(u->fs, attr.ino, "user.a", bytes + ++round % 999,
						     9000 + i, 0, false),
					 0);
		}
		testfs_check(u);
		if (how == 0)
			testfs_remount(u);
		if (how == 1)
			testfs_crash(u);
	}
}

/* ---- plain ---- */

static void moves_of(const struct shape *s)
{
	uint64_t at[2], journal = look(&t, 0, s->size_bytes).journal, spare;
	uint64_t all = 2 * s->lanes * (uint64_t)s->lane_bytes;

	/* Of one lane some blocks. */
	for (unsigned copy = 0; copy < 2; copy++) {
		at[copy] = lane_off(&t, 1, copy);
		evacuated(&t, at[copy] + 3 * BLOCK_SIZE, 5 * BLOCK_SIZE, false);
		assert_int_equal(lanes_in(&t, at[copy], s->lane_bytes), 0);
		assert_int_equal(lanes_in(&t, 0, s->size_bytes), 2 * s->lanes);
		testfs_check(&t);
	}
	journal_used(&t);
	assert_true(look(&t, 0, s->size_bytes).journal <= journal);
	/* Each where it is now, a second time. */
	for (unsigned i = 0; i < 2 * s->lanes; i++) {
		at[0] = lane_off(&t, i / 2, i % 2);
		evacuated(&t, at[0], s->lane_bytes, false);
		testfs_check(&t);
	}
	journal_used(&t);
	/* Nothing is left of where they were but the ends of the pool. */
	assert_int_equal(look(&t, 0, s->size_bytes).journal, all);
	spare = look(&t, 0, s->size_bytes).spare;
	assert_int_equal(spare, look(&t, 0, CHUNK_SIZE).spare +
					look(&t, s->size_bytes - CHUNK_SIZE, CHUNK_SIZE).spare);
	assert_int_equal(spare, 2 * CHUNK_SIZE - 32 * BLOCK_SIZE);
}

static void test_moves(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(shapes); i++) {
		print_message("# %s\n", shapes[i].name);
		begin(&shapes[i], NULL);
		moves_of(&shapes[i]);
		end();
	}
}

/* Large parts of the pool, with all lanes that are there. */
static void test_halves(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(shapes); i++) {
		const struct shape *s = &shapes[i];

		begin(s, NULL);
		for (unsigned round = 0; round < 4; round++) {
			evacuated(&t, round % 2 ? s->size_bytes / 2 : 0, s->size_bytes / 2, false);
			testfs_check(&t);
			journal_used(&t);
		}
		end();
	}
}

static void test_mark_bad(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(shapes); i++) {
		const struct shape *s = &shapes[i];
		uint64_t last = s->size_bytes - CHUNK_SIZE, own;

		begin(s, NULL);
		own = lane_off(&t, 1, 0);
		evacuated(&t, own + BLOCK_SIZE, 7 * BLOCK_SIZE, true);
		evacuated(&t, 0, CHUNK_SIZE, true);
		evacuated(&t, last, CHUNK_SIZE, true);
		evacuated(&t, 0, CHUNK_SIZE, true);
		evacuated(&t, own & ~(CHUNK_SIZE - 1), 3 * CHUNK_SIZE, false);
		journal_used(&t);
		assert_int_equal(look(&t, 0, CHUNK_SIZE).bad, CHUNK_SIZE - 16 * BLOCK_SIZE);
		assert_int_equal(look(&t, last, CHUNK_SIZE).bad, CHUNK_SIZE - 16 * BLOCK_SIZE);
		assert_int_equal(look(&t, own + BLOCK_SIZE, 7 * BLOCK_SIZE).bad, 7 * BLOCK_SIZE);
		/* What comes back into use there is nobody's to have. */
		for (unsigned k = 0; k < 2; k++) {
			uint64_t off = k ? last + 3 * BLOCK_SIZE : 50 * BLOCK_SIZE;
			enum fs_poison_result result;

			assert_int_equal(fs_poison_clear(t.fs, off, false, &result), 0);
			assert_int_equal(result, FS_POISON_FREED);
			assert_int_equal(look(&t, off, BLOCK_SIZE).spare, BLOCK_SIZE);
		}
		end();
	}
}

/* Nowhere is there a piece that is long enough: nothing has happened, or some of it. */
static void test_full(void **state)
{
	uint64_t ino, at = 0, left;
	const struct shape *s = &shapes[2];

	(void)state;
	begin(s, NULL);
	ino = testfs_node(&t, INODE_ROOT, "filler", S_IFREG | 0644);
	while (fs_write(t.fs, &testfs_root, ino, bytes, BLOCK_SIZE, at, 0) == BLOCK_SIZE)
		at += BLOCK_SIZE;
	assert_int_equal(evacuate(&t, lane_off(&t, 0, 0), s->lane_bytes, false, &left), -ENOSPC);
	testfs_check(&t);
	journal_used(&t);
	end();
}

/* ---- others at work ---- */

static atomic_bool work_stops, work_fails;

static void *work(void *arg)
{
	unsigned number = (unsigned)(uintptr_t)arg, round = 0;
	char name[16];

	while (!atomic_load(&work_stops) && !atomic_load(&work_fails)) {
		struct inode_attr attr;
		bool ok;

		snprintf(name, sizeof(name), "w%u.%u", number, round++ % 8);
		(void)testfs_unlink(&t, INODE_ROOT, name);
		ok = testfs_mknod(&t, INODE_ROOT, name, S_IFREG | 0644, &attr) == 0;
		ok = ok && fs_write(t.fs, &testfs_root, attr.ino, bytes, 20000, 0, 0) == 20000;
		ok = ok && fs_setxattr(t.fs, attr.ino, "user.b", bytes, 5000, 0, false) == 0;
		if (!ok)
			atomic_store(&work_fails, true);
		else
			fs_forget(t.fs, attr.ino, 1);
	}
	return NULL;
}

static void test_busy(void **state)
{
	pthread_t threads[3];

	(void)state;
	for (unsigned i = 1; i < 3; i++) {
		const struct shape *s = &shapes[i];

		begin(s, NULL);
		atomic_store(&work_stops, false);
		for (uintptr_t k = 0; k < ARRAY_SIZE(threads); k++)
			assert_int_equal(pthread_create(&threads[k], NULL, work, (void *)k), 0);
		for (unsigned round = 0; round < 6; round++) {
			uint64_t left, off = round % 2 ? s->size_bytes / 2 : 0;

			assert_int_equal(evacuate(&t, off, s->size_bytes / 2, false, &left), 0);
			assert_int_equal(lanes_in(&t, off, s->size_bytes / 2), 0);
		}
		atomic_store(&work_stops, true);
		for (unsigned k = 0; k < ARRAY_SIZE(threads); k++)
			pthread_join(threads[k], NULL);
		assert_false(atomic_load(&work_fails));
		lanes_look(&t, false);
		testfs_crash(&t);
		journal_used(&t);
		end();
	}
}

/* ---- power loss ---- */

/* Free space holds what would be records of a lane that came to lie there: of units that do not fit them. */
static void records_plant(void)
{
	const struct super *s = pool_super(t.pool);
	_Alignas(64) uint8_t block[BLOCK_SIZE];
	struct m_record *r = (struct m_record *)block;
	struct m_record_entry *e = (struct m_record_entry *)(r + 1);
	size_t length = record_length_bytes(1, 1);

	for (uint64_t blk = 0; blk < s->size_blk; blk++) {
		struct fs_owners_pos pos = { 0 };
		struct fs_owner o;
		unsigned count;

		assert_int_equal(fs_owners(t.fs, blk * BLOCK_SIZE, BLOCK_SIZE, &pos, &o, 1, &count), 0);
		if (count != 0)
			continue;
		memset(block, 0, sizeof(block));
		*r = (struct m_record){
			.rc_magic = le32_of(MAGIC_RECORD),
			.rc_seq = le64_of(s->seq_limit + 1000),
			.rc_uuid = s->uuid,
			.rc_lane = le32_of((uint32_t)(blk % CHUNK_BLOCKS / pool_lane_len_blk(t.pool))),
			.rc_entry_count = le32_of(1),
			.rc_line_count = le32_of(1),
			.rc_length_bytes = le32_of((uint32_t)length),
		};
		e->re_laddr = le64_of(pool_ag_unit(t.pool, 0, AG_UNIT_INTENTS));
		e->re_mask = le64_of(2);
		memset(block + length - LINE_SIZE, 0x55, LINE_SIZE);
		r->rc_crc = le32_of(record_crc(r, length));
		assert_int_equal(dax_store(t.dax, blk * BLOCK_SIZE, block, sizeof(block)), 0);
	}
}

struct crash {
	const struct shape *shape;
	char *want;
	uint64_t off, len;
	bool mark_bad;
	unsigned images, moved, replayed;
};

static void no_finding(void *arg, enum check_kind kind, const char *text)
{
	(void)arg;
	if (kind != CHECK_SUPER) /* power was lost between both */
		fail_msg("%s: %s", check_kind_name(kind), text);
}

/* A repair in place of the mount: there is nothing to mend, and then it is mounted. */
static void repair_look(const struct crash *c, const uint8_t *image)
{
	const struct repair_opts opts = { .found = no_finding, .force = true };
	struct repair_report report;
	struct testfs u;
	struct dax *dax;
	char why[256];

	assert_int_equal(dax_open_ram(c->shape->size_bytes, image, NULL, &dax), 0);
	assert_int_equal(repair_pool(dax, &opts, &report, why, sizeof(why)), 0);
	testfs_open_image(&u, dax_ptr(dax, 0), &(struct testfs_opts){ .size_bytes = c->shape->size_bytes });
	testfs_check(&u);
	testfs_free(&u);
	dax_close(dax);
}

static void image_check(void *arg, const uint8_t *image)
{
	struct crash *c = arg;
	const struct testfs_opts opts = { .size_bytes = c->shape->size_bytes };
	struct testfs u;
	struct use use;
	char *got;

	testfs_open_image(&u, image, &opts);
	c->replayed += pool_replayed(u.pool) != 0;
	testfs_check(&u);
	lanes_look(&u, true);
	if (c->len) {
		use = look(&u, c->off, c->len);
		c->moved += use.journal == 0;
		/* What has left is out of use at once. */
		assert_int_equal(use.bad, c->mark_bad ? c->len - use.journal : 0);
	}
	got = testlist_make(&u);
	assert_int_equal(testlist_diff(c->want, got, true), 0);
	free(got);
	if (c->images % 8 == 0 && c->len) {
		evacuated(&u, c->off, c->len, c->mark_bad);
		testfs_check(&u);
	}
	testfs_free(&u);
	if (c->images++ % 4 == 0)
		repair_look(c, image);
}

static void image_check_twice(void *arg, const uint8_t *image)
{
	struct crash *c = arg;
	struct testfs_opts opts = { .size_bytes = c->shape->size_bytes, .trace = &cut_trace };
	struct testfs u;
	struct cut cut;

	image_check(c, image);
	if (c->images % 64 != 1)
		return;
	cut_begin(&cut, image, c->shape->size_bytes, CUT_NO_PAGE);
	testfs_open_image(&u, image, &opts);
	cut_end();
	testfs_free(&u);
	cut_images(&cut, image_check, c);
}

static void crash_of(const struct shape *s, uint32_t lane, unsigned copy, bool mark_bad)
{
	struct crash c = { .shape = s, .mark_bad = mark_bad };
	struct cut cut;

	begin(s, &cut_trace);
	records_plant();
	c.want = testlist_make(&t);
	c.off = lane_off(&t, lane, copy);
	c.len = s->lane_bytes;
	cut_begin(&cut, dax_ptr(t.dax, 0), s->size_bytes, CUT_NO_PAGE);
	evacuated(&t, c.off, c.len, mark_bad);
	cut_end();
	cut_images(&cut, image_check_twice, &c);
	print_message("# %s, lane %u, copy %u%s: %u images, in %u it had moved\n", s->name, lane, copy,
		      mark_bad ? ", marked" : "", c.images, c.moved);
	assert_true(c.moved > 0 && c.moved < c.images);
	free(c.want);
	testfs_check(&t);
	journal_used(&t);
	end();
}

static void test_crash_home(void **state)
{
	(void)state;
	crash_of(&shapes[0], 0, 0, false);
	crash_of(&shapes[0], 3, 1, false);
	crash_of(&shapes[0], 0, 1, true);
}

static void test_crash_own(void **state)
{
	(void)state;
	crash_of(&shapes[2], 1, 0, false);
	crash_of(&shapes[2], 0, 1, true);
}

/* A commit after it: its record is found where the lanes are now, in either copy. */
static void test_replay(void **state)
{
	const struct shape *s = &shapes[0];
	struct crash c = { .shape = s };
	struct inode_attr attr;
	struct cut cut;
	uint64_t left;

	(void)state;
	begin(s, &cut_trace);
	assert_int_equal(evacuate(&t, 0, CHUNK_SIZE, false, &left), 0);
	assert_int_equal(evacuate(&t, s->size_bytes - CHUNK_SIZE, CHUNK_SIZE, false, &left), 0);
	assert_int_equal(lanes_in(&t, 0, CHUNK_SIZE), 0);
	assert_int_equal(testfs_lookup(&t, INODE_ROOT, "f7", &attr), 0);
	c.want = testlist_make(&t);
	cut_begin(&cut, dax_ptr(t.dax, 0), s->size_bytes, CUT_NO_PAGE);
	/* It looks the same before and after. */
	assert_int_equal(fs_setxattr(t.fs, attr.ino, "user.a", bytes + 7, 9000, 0, false), 0);
	cut_end();
	fs_forget(t.fs, attr.ino, 1);
	cut_images(&cut, image_check, &c);
	assert_true(c.replayed > 0);
	free(c.want);
	end();
}

/* ---- repair ---- */

static void super_lose(uint8_t *image)
{
	memset(image, 0, BLOCK_SIZE);
	memset(image + shapes[1].size_bytes - BLOCK_SIZE, 0, BLOCK_SIZE);
}

static void rmap_lose(uint8_t *image)
{
	for (unsigned copy = 0; copy < 2; copy++) {
		uint64_t off;

		assert_int_equal(pool_place(t.pool, pool_ag_unit(t.pool, 0, AG_UNIT_HEADER), copy, &off), 0);
		memset(image + off + 300, 0x33, 200);
	}
}

static void bitmap_lose(uint8_t *image)
{
	uint32_t unit = AG_UNIT_TABLE + ag_table_units(pool_super(t.pool)->ag_size_blk / CHUNK_BLOCKS);

	for (uint32_t agno = 0; agno < pool_ag_count(t.pool); agno++)
		for (unsigned copy = 0; copy < 2; copy++) {
			uint64_t off;

			assert_int_equal(pool_place(t.pool, pool_ag_unit(t.pool, agno, unit), copy, &off), 0);
			memset(image + off, 0x44, BLOCK_SIZE);
		}
}

static void lanes_lose(uint8_t *image)
{
	for (uint32_t i = 0; i < pool_super(t.pool)->lane_count; i++)
		memset(image + lane_off(&t, i, i % 2), 0x77, shapes[1].lane_bytes);
}

static void repair_of(void (*damage)(uint8_t *image), bool mark_bad, bool keeps_bad)
{
	const struct shape *s = &shapes[1];
	const struct repair_opts opts = { .force = true };
	struct testfs_opts image_opts = shape_opts(s);
	struct repair_report report;
	uint8_t *image = malloc(s->size_bytes);
	struct testfs u;
	struct dax *dax;
	char why[256], *want, *got;
	uint64_t last = s->size_bytes - CHUNK_SIZE;

	begin(s, NULL);
	evacuated(&t, 0, CHUNK_SIZE, mark_bad);
	evacuated(&t, last + BLOCK_SIZE, s->lane_bytes, mark_bad);
	want = testlist_make(&t);
	memcpy(image, dax_ptr(t.dax, 0), s->size_bytes);
	damage(image);
	assert_int_equal(dax_open_ram(s->size_bytes, image, NULL, &dax), 0);
	assert_int_equal(repair_pool(dax, &opts, &report, why, sizeof(why)), 0);
	assert_int_equal(report.after.findings, 0);
	assert_false(report.unfinished);
	testfs_open_image(&u, dax_ptr(dax, 0), &image_opts);
	testfs_check(&u);
	got = testlist_make(&u);
	assert_int_equal(testlist_diff(want, got, true), 0);
	for (uint32_t i = 0; i < 2 * s->lanes; i++)
		assert_int_equal(lane_off(&u, i / 2, i % 2), lane_off(&t, i / 2, i % 2));
	lanes_look(&u, true);
	if (mark_bad && keeps_bad) {
		assert_int_equal(look(&u, 0, CHUNK_SIZE).bad, CHUNK_SIZE - 16 * BLOCK_SIZE);
		assert_int_equal(look(&u, last + BLOCK_SIZE, s->lane_bytes).bad, s->lane_bytes);
	}
	/* Nobody has been given anything beside the superblocks. */
	assert_int_equal(look(&u, 0, CHUNK_SIZE).others + look(&u, last, CHUNK_SIZE).others, 0);
	journal_used(&u);
	evacuated(&u, 0, s->size_bytes / 2, false);
	testfs_check(&u);
	testfs_free(&u);
	dax_close(dax);
	free(image);
	free(want);
	free(got);
	end();
}

static void test_repair(void **state)
{
	(void)state;
	repair_of(super_lose, false, true);
	repair_of(super_lose, true, true);
	repair_of(lanes_lose, true, true);
	repair_of(bitmap_lose, true, true);
	repair_of(rmap_lose, false, false);
	repair_of(rmap_lose, true, false);
}

/* ---- growing ---- */

static void grow_of(const struct shape *s, uint64_t to_bytes, bool mark_bad)
{
	const struct pool_opts pool_opts = { 0 };
	struct testfs_opts opts = shape_opts(s);
	uint64_t last = s->size_bytes - CHUNK_SIZE, mirror;
	struct format_opts format = opts.format;
	char why[256], *want, *got;
	struct use use;

	t = (struct testfs){ .opts = opts };
	assert_int_equal(dax_open_ram_room(s->size_bytes, to_bytes, NULL, NULL, &t.dax), 0);
	assert_int_equal(pool_format(t.dax, &format, NULL, why, sizeof(why)), 0);
	assert_int_equal(pool_open(t.dax, &pool_opts, &t.pool, why, sizeof(why)), 0);
	assert_int_equal(fs_open(t.pool, &opts.fs, &t.fs), 0);
	for (unsigned i = 0; i < FILES; i++) {
		char name[16];
		uint64_t ino;

		snprintf(name, sizeof(name), "f%u", i);
		ino = testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644);
		assert_int_equal(fs_write(t.fs, &testfs_root, ino, bytes, 20000, 0, 0), 20000);
	}
	/* One lane's mirror stays at the end, the others lie anywhere. */
	evacuated(&t, 0, CHUNK_SIZE, mark_bad);
	mirror = lane_off(&t, 0, 1);
	evacuated(&t, lane_off(&t, 1, 1), (s->lanes - 1) * (uint64_t)s->lane_bytes, mark_bad);
	assert_int_equal(lane_off(&t, 0, 1), mirror);
	want = testlist_make(&t);
	if (last + 2 * CHUNK_SIZE == to_bytes && mark_bad) {
		assert_int_equal(space_grow(t.pool, to_bytes), -EIO);
		free(want);
		journal_used(&t);
		end();
		return;
	}
	assert_int_equal(space_grow(t.pool, to_bytes), 0);
	t.opts.size_bytes = to_bytes;
	assert_int_equal(pool_size_blk(t.pool) * BLOCK_SIZE, to_bytes);
	assert_int_equal(lane_off(&t, 0, 1) - mirror, mirror >= last ? to_bytes - s->size_bytes : 0);
	lanes_look(&t, true);
	testfs_check(&t);
	got = testlist_make(&t);
	assert_int_equal(testlist_diff(want, got, true), 0);
	/* What was the last chunk is free, but for what is out of use. */
	use = look(&t, last, CHUNK_SIZE);
	assert_int_equal(use.journal + use.spare + use.others, 0);
	assert_true(use.fixed == 0 || last + 2 * CHUNK_SIZE == to_bytes);
	if (mark_bad && mirror >= last)
		assert_true(use.bad >= (s->lanes - 1) * (uint64_t)s->lane_bytes);
	else
		assert_int_equal(use.bad, 0);
	journal_used(&t);
	evacuated(&t, 0, to_bytes / 2, false);
	evacuated(&t, to_bytes / 2, to_bytes / 2, false);
	free(want);
	free(got);
	end();
}

static void test_grow(void **state)
{
	static const struct shape short_last = { "home, short last group", 40 * MIB, 24 * MIB, 4, 384 << 10 };

	(void)state;
	grow_of(&shapes[0], 24 * MIB + 16 * MIB, false);
	grow_of(&shapes[0], 24 * MIB + 16 * MIB, true);
	grow_of(&short_last, 40 * MIB + CHUNK_SIZE, false);
	grow_of(&short_last, 40 * MIB + CHUNK_SIZE, true);
	grow_of(&shapes[1], 64 * MIB, false);
	grow_of(&shapes[1], 64 * MIB, true);
	grow_of(&shapes[2], 72 * MIB, false);
	grow_of(&shapes[2], 72 * MIB, true);
}

/* ---- bad memory ---- */

static void poison_of(const struct shape *s, struct testpoison *poison)
{
	uint64_t off[2], at, left;

	for (unsigned copy = 0; copy < 2; copy++) {
		off[copy] = lane_off(&t, 1, copy);
		at = off[copy] + 5 * BLOCK_SIZE;
		testpoison_page(poison, at);
		assert_int_equal(poison_handle(t.fs, at), 0);
		assert_true(lane_off(&t, 1, copy) != off[copy]);
		assert_int_equal(look(&t, off[copy], s->lane_bytes).bad, BLOCK_SIZE);
		assert_int_equal(look(&t, at, BLOCK_SIZE).bad, BLOCK_SIZE);
		assert_int_equal(look(&t, off[copy], s->lane_bytes).journal, 0);
		testfs_check(&t);
	}
	/* Where it is now it is as good as any: written anew, as long as that helps. */
	off[0] = lane_off(&t, 1, 0);
	assert_int_equal(poison_handle(t.fs, off[0] + BLOCK_SIZE), 0);
	assert_int_equal(lane_off(&t, 1, 0), off[0]);
	/* Somebody says so. */
	assert_int_equal(fs_poison_add(t.fs, off[0] + BLOCK_SIZE), 0);
	assert_true(lane_off(&t, 1, 0) != off[0]);
	assert_int_equal(look(&t, off[0], s->lane_bytes).bad, BLOCK_SIZE);
	at = s->size_bytes - 20 * BLOCK_SIZE;
	assert_int_equal(evacuate(&t, at, BLOCK_SIZE, false, &left), 0);
	assert_int_equal(fs_poison_add(t.fs, at), 0);
	assert_int_equal(look(&t, at, BLOCK_SIZE).bad, BLOCK_SIZE);
	assert_int_equal(fs_poison_add(t.fs, 0), -EOPNOTSUPP);
	/* A new place in bad memory is none. */
	for (uint32_t i = 0; i < s->lanes; i++) {
		off[1] = lane_off(&t, i, 0);
		at = lane_off(&t, i ? i - 1 : i, 0) + s->lane_bytes + 3 * BLOCK_SIZE;
		if (look(&t, at, BLOCK_SIZE).bad + look(&t, at, BLOCK_SIZE).journal == 0)
			testpoison_page(poison, at);
		evacuated(&t, off[1], s->lane_bytes, false);
	}
	lanes_look(&t, true);
	testfs_check(&t);
}

static void test_poison(void **state)
{
	(void)state;
	for (unsigned i = 1; i < 3; i++) {
		struct testpoison *poison;

		begin(&shapes[i], NULL);
		poison = testpoison_open(t.dax);
		if (!poison) {
			end();
			skip();
		}
		poison_of(&shapes[i], poison);
		testpoison_heal_all(poison);
		testpoison_close(poison);
		journal_used(&t);
		end();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_moves),     cmocka_unit_test(test_halves),
		cmocka_unit_test(test_mark_bad),  cmocka_unit_test(test_full),
		cmocka_unit_test(test_busy),      cmocka_unit_test(test_crash_home),
		cmocka_unit_test(test_crash_own), cmocka_unit_test(test_replay),
		cmocka_unit_test(test_repair),    cmocka_unit_test(test_poison),
		cmocka_unit_test(test_grow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
