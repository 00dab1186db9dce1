/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Growing: what it was stays, what came is used to the last block, others go on meanwhile, and power may go at every fence.
 *
 * Behind the end of each pool here lies an older one of the same UUID, with files in it and a copy of its superblock: nothing of it may
 * be taken for something of this one.
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

#include "crash/record.h"
#include "lib/testfs.h"
#include "media/ag.h"
#include "space/space.h"
#include "txn/grow.h"

#define MIB ((uint64_t)1 << 20)
#define PIECE 65536u

struct scene {
	const char *name;
	uint64_t size, max, to; /* MiB: made, room, grown to (what the device has then) */
	uint64_t ag;            /* MiB; 0: by the size */
	uint64_t used;          /* MiB of it in the end */
	uint32_t lanes, lane_size;
	uint64_t file; /* MiB of a file in it */
};

static const struct m_uuid uuid = { { 7, 1, 2, 3 } };

static struct format_opts scene_format(const struct scene *s)
{
	return (struct format_opts){
		.uuid = &uuid,
		.ag_size_bytes = s->ag * MIB,
		.lane_count = s->lanes,
		.lane_size_bytes = s->lane_size,
	};
}

static void open_floors(struct testfs *t)
{
	const struct pool_opts opts = { 0 };
	char why[256] = "";

	if (pool_open(t->dax, &opts, &t->pool, why, sizeof(why)) != 0)
		fail_msg("pool_open: %s", why);
	assert_int_equal(fs_open(t->pool, &t->opts.fs, &t->fs), 0);
}

static void format(struct dax *dax, const struct scene *s)
{
	struct format_opts opts = scene_format(s);
	char why[256] = "";

	if (pool_format(dax, &opts, NULL, why, sizeof(why)) != 0)
		fail_msg("pool_format: %s", why);
}

static uint8_t pattern(uint64_t ino, uint64_t off)
{
	return (uint8_t)((off / 512 * 2654435761u + ino * 97 + off) >> 3);
}

/* Writes [from, to) of a file; false: the pool is full. */
static bool file_write(struct testfs *t, uint64_t ino, uint64_t from, uint64_t to)
{
	uint8_t *buf = malloc(PIECE);
	bool ok = true;

	while (from < to && ok) {
		uint64_t len = u64_min(PIECE, to - from);
		ssize_t n;

		for (uint64_t i = 0; i < len; i++)
			buf[i] = pattern(ino, from + i);
		n = fs_write(t->fs, &testfs_root, ino, buf, len, from, 0);
		if (n != -ENOSPC)
			assert_true(n > 0);
		ok = n != -ENOSPC;
		from += ok ? (uint64_t)n : 0;
	}
	free(buf);
	return ok;
}

static void file_check(struct testfs *t, const char *name)
{
	struct inode_attr attr;
	uint8_t *buf = malloc(PIECE);

	assert_int_equal(testfs_lookup(t, INODE_ROOT, name, &attr), 0);
	for (uint64_t off = 0; off < attr.size; off += PIECE) {
		ssize_t n = fs_read(t->fs, attr.ino, buf, PIECE, off);

		assert_int_equal(n, (ssize_t)u64_min(PIECE, attr.size - off));
		for (ssize_t i = 0; i < n; i++)
			if (buf[i] != pattern(attr.ino, off + (uint64_t)i))
				fail_msg("%s: byte %llu is wrong", name,
					 (unsigned long long)off + (unsigned)i);
	}
	fs_forget(t->fs, attr.ino, 1);
	free(buf);
}

static void make(struct testfs *t, const struct scene *s, const struct dax_trace *trace)
{
	const struct scene stale = {
		.size = s->max, .ag = s->ag, .lanes = s->lanes, .lane_size = s->lane_size
	};
	char name[32];

	memset(t, 0, sizeof(*t));
	assert_int_equal(dax_open_ram(s->max * MIB, NULL, NULL, &t->dax), 0);
	format(t->dax, &stale);
	open_floors(t);
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "stale%d", i);
		(void)testfs_node(t, INODE_ROOT, name, i % 2 ? S_IFREG | 0644 : S_IFDIR | 0755);
	}
	(void)file_write(t, testfs_node(t, INODE_ROOT, "stale", S_IFREG | 0644), 0, s->max / 2 * MIB);
	struct dax *old = t->dax;

	fs_close(t->fs);
	pool_close(t->pool, true);
	assert_int_equal(dax_open_ram_room(s->size * MIB, s->max * MIB, dax_ptr(old, 0), trace, &t->dax), 0);
	dax_close(old);
	format(t->dax, s);
	open_floors(t);
	assert_true(file_write(t, testfs_node(t, INODE_ROOT, "file", S_IFREG | 0644), 0, s->file * MIB));
	(void)testfs_node(t, INODE_ROOT, "dir", S_IFDIR | 0755);
}

static uint64_t size_of(const struct testfs *t)
{
	return pool_size_blk(t->pool) * BLOCK_SIZE;
}

static uint64_t free_blk(struct testfs *t)
{
	struct space_totals totals;

	assert_int_equal(space_totals(t->pool, &totals), 0);
	return totals.free_blk;
}

/* All group headers tell of this size. */
static void headers_check(struct testfs *t)
{
	for (uint32_t agno = 0; agno < pool_ag_count(t->pool); agno++) {
		struct txn *tx = txn_begin(t->pool, TXN_READ);
		const void *unit;
		const struct m_ag *m;

		assert_int_equal(txn_get(tx, pool_ag_unit(t->pool, agno, AG_UNIT_HEADER), MAGIC_AG, &unit),
				 0);
		m = unit;
		assert_int_equal(le64_get(m->ag_super.as_size_blk), pool_size_blk(t->pool));
		assert_int_equal(le64_get(m->ag_length_blk), pool_ag_length_blk(t->pool, agno));
		txn_abort(tx);
	}
	assert_int_equal(pool_super(t->pool)->grown_from_blk, 0);
}

/* Fills it: as much as a new pool of that size takes, but for what the groups keep and hold. */
static void fill_check(struct testfs *t, const char *name)
{
	uint64_t ino = testfs_node(t, INODE_ROOT, name, S_IFREG | 0644), off = testfs_attr(t, ino).size;

	while (file_write(t, ino, off, off + PIECE))
		off += PIECE;
	while (file_write(t, ino, off, off + BLOCK_SIZE))
		off += BLOCK_SIZE;
	assert_true(free_blk(t) <= 16);
	testfs_check(t);
	file_check(t, name);
}

static const struct scene scenes[] = {
	/* One group, which is full: a short one comes after it. The lanes lie in the last chunk. */
	{ .name = "one group", .size = 16, .max = 40, .to = 32, .used = 32, .file = 3 },
	{ .name = "one group, and many", .size = 16, .max = 300, .to = 291, .used = 288, .file = 4 },
	/* The last one is short. */
	{ .name = "a chunk", .size = 54, .max = 64, .to = 56, .ag = 32, .used = 56, .file = 9 },
	{ .name = "two chunks", .size = 54, .max = 64, .to = 59, .ag = 32, .used = 58, .file = 9 },
	{ .name = "to its full length", .size = 50, .max = 64, .to = 64, .ag = 32, .used = 64, .file = 9 },
	{ .name = "too short a rest", .size = 50, .max = 80, .to = 78, .ag = 32, .used = 64, .file = 9 },
	{ .name = "short, and more", .size = 50, .max = 128, .to = 118, .ag = 32, .used = 118, .file = 9 },
	/* Lanes with chunks of their own. */
	{ .name = "large lanes",
	  .size = 48,
	  .max = 96,
	  .to = 50,
	  .ag = 32,
	  .used = 50,
	  .lanes = 2,
	  .lane_size = 1 << 20,
	  .file = 5 },
	{ .name = "large lanes, short",
	  .size = 58,
	  .max = 96,
	  .to = 80,
	  .ag = 32,
	  .used = 80,
	  .lanes = 2,
	  .lane_size = 1 << 20,
	  .file = 5 },
	{ .name = "large lanes, full",
	  .size = 64,
	  .max = 96,
	  .to = 96,
	  .ag = 32,
	  .used = 96,
	  .lanes = 2,
	  .lane_size = 1 << 20,
	  .file = 5 },
};

static void test_sizes(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(scenes); i++) {
		const struct scene *s = &scenes[i];
		struct testfs t;
		uint64_t before;

		print_message("# %s\n", s->name);
		make(&t, s, NULL);
		before = free_blk(&t);
		assert_int_equal(space_grow(t.pool, s->to * MIB), 0);
		assert_int_equal(size_of(&t), s->used * MIB);
		assert_true(free_blk(&t) > before);
		testfs_check(&t);
		headers_check(&t);
		file_check(&t, "file");
		fill_check(&t, "fill");
		testfs_remount(&t);
		assert_int_equal(size_of(&t), s->used * MIB);
		testfs_check(&t);
		file_check(&t, "file");
		file_check(&t, "fill");
		assert_int_equal(space_grow(t.pool, 0), -EALREADY);
		testfs_free(&t);
	}
}

/* As much can be written as in a pool that was made so large. */
static void test_nothing_is_lost(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(scenes); i++) {
		const struct scene *s = &scenes[i];
		struct scene whole = *s;
		struct testfs t, u;

		/* Where mkfs would put the lanes elsewhere there is nothing to compare. */
		if (s->lanes || s->used >= 256)
			continue;
		whole.size = s->used;
		whole.ag = s->ag ? s->ag : s->size;
		make(&t, s, NULL);
		assert_int_equal(space_grow(t.pool, s->to * MIB), 0);
		make(&u, &whole, NULL);
		assert_int_equal(free_blk(&t), free_blk(&u));
		assert_int_equal(memcmp(pool_super(t.pool)->lanes, pool_super(u.pool)->lanes,
					sizeof(pool_super(t.pool)->lanes)),
				 0);
		testfs_free(&t);
		testfs_free(&u);
	}
}

/* Chunk by chunk, with writes and crashes in between. */
static void test_again_and_again(void **state)
{
	const struct scene s = { .size = 50, .max = 140, .ag = 32, .file = 9 };
	struct testfs t;
	unsigned grown = 0;

	(void)state;
	make(&t, &s, NULL);
	for (uint64_t to = s.size + 2; to <= s.max; to += 2 + to % 6) {
		uint64_t before = size_of(&t);
		int rc = space_grow(t.pool, to * MIB);
		char name[32];

		grown += rc == 0;
		if (rc)
			assert_int_equal(rc, -EALREADY);
		else
			assert_true(size_of(&t) > before);
		snprintf(name, sizeof(name), "%llu", (unsigned long long)to);
		assert_true(file_write(&t, testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644), 0, MIB));
		testfs_check(&t);
		if (to % 3 == 0)
			testfs_remount(&t);
		file_check(&t, name);
	}
	assert_true(grown > 10);
	headers_check(&t);
	file_check(&t, "file");
	fill_check(&t, "fill");
	testfs_free(&t);
}

static void test_refusals(void **state)
{
	const struct scene s = { .size = 50, .max = 64, .ag = 32, .file = 9 };
	struct testfs t;

	(void)state;
	make(&t, &s, NULL);
	assert_int_equal(space_grow(t.pool, 0), -EALREADY);
	assert_int_equal(space_grow(t.pool, 50 * MIB), -EALREADY);
	assert_int_equal(space_grow(t.pool, 50 * MIB + 8192), -EALREADY);
	assert_int_equal(space_grow(t.pool, 50 * MIB), -EINVAL); /* it has more now */
	assert_int_equal(space_grow(t.pool, 60 * MIB + 17), -EINVAL);
	assert_int_equal(space_grow(t.pool, 66 * MIB), -EOVERFLOW);
	assert_int_equal(size_of(&t), 50 * MIB);
	testfs_check(&t);
	assert_int_equal(space_grow(t.pool, 64 * MIB), 0);
	pool_fail(t.pool, "a test");
	assert_int_equal(space_grow(t.pool, 0), -EROFS);
	testfs_free(&t);
}

/* A full pool: the write that did not fit does after it. */
static void test_full(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(scenes); i++) {
		const struct scene *s = &scenes[i];
		struct testfs t;
		uint64_t ino;

		make(&t, s, NULL);
		fill_check(&t, "fill");
		ino = testfs_node(&t, INODE_ROOT, "after", S_IFREG | 0644);
		assert_false(file_write(&t, ino, 0, MIB));
		assert_int_equal(space_grow(t.pool, s->to * MIB), 0);
		assert_true(file_write(&t, ino, 0, MIB));
		testfs_check(&t);
		file_check(&t, "fill");
		file_check(&t, "after");
		testfs_free(&t);
	}
}

/* ---- others at work ---- */

struct writers {
	struct testfs *t;
	atomic_bool stop;
	_Atomic unsigned rounds;
};

static void *writer(void *arg)
{
	static atomic_uint number;
	struct writers *w = arg;
	unsigned me = atomic_fetch_add(&number, 1);

	for (unsigned round = 0; !atomic_load(&w->stop); round++) {
		char name[32], other[32];
		uint64_t ino;

		snprintf(name, sizeof(name), "w%u.%u", me, round % 7);
		snprintf(other, sizeof(other), "x%u", me);
		(void)testfs_unlink(w->t, INODE_ROOT, name);
		ino = testfs_node(w->t, INODE_ROOT, name, S_IFREG | 0644);
		(void)file_write(w->t, ino, 0, (round % 40) * 8192);
		file_check(w->t, name);
		(void)testfs_rename(w->t, INODE_ROOT, name, INODE_ROOT, other, 0);
		(void)free_blk(w->t);
		fs_work(w->t->fs);
		atomic_fetch_add(&w->rounds, 1);
	}
	return NULL;
}

static void test_writers(void **state)
{
	const struct scene s = { .size = 50, .max = 400, .ag = 32, .file = 9 };
	struct writers w = { 0 };
	struct testfs t;
	pthread_t threads[3];
	unsigned grown = 0;

	(void)state;
	make(&t, &s, NULL);
	w.t = &t;
	for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, writer, &w), 0);
	for (uint64_t to = s.size + 2; to <= s.max; to += 10) {
		unsigned rounds = atomic_load(&w.rounds);
		int rc = space_grow(t.pool, to * MIB);

		assert_true(rc == 0 || rc == -EALREADY);
		grown += rc == 0;
		while (atomic_load(&w.rounds) < rounds + 4)
			sched_yield();
	}
	atomic_store(&w.stop, true);
	for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	assert_true(grown > 20);
	testfs_check(&t);
	headers_check(&t);
	file_check(&t, "file");
	testfs_remount(&t);
	testfs_check(&t);
	testfs_free(&t);
}

/* ---- power loss ---- */

struct loss {
	const struct scene *s;
	struct record record;
	uint8_t *durable, *image;
	bool armed, done; /* done: space_grow() has returned */
	uint64_t random;
	unsigned fences, images, old, grown;
};

static void loss_store(void *ctx, uint64_t off, const void *src, size_t len)
{
	struct loss *l = ctx;

	if (l->armed)
		record_store(&l->record, off, src, len);
}

static void loss_zero(void *ctx, uint64_t off, size_t len)
{
	loss_store(ctx, off, NULL, len);
}

/* Block 0 is lost one day: its copy is that of this pool, not one that a growth has left behind. */
static void block0_lose(struct testfs *t)
{
	static const uint8_t zero[BLOCK_SIZE];
	uint64_t seq_limit = pool_super(t->pool)->seq_limit;

	fs_close(t->fs);
	pool_close(t->pool, true);
	assert_int_equal(dax_store(t->dax, 0, zero, sizeof(zero)), 0);
	open_floors(t);
	assert_true(pool_super(t->pool)->seq_limit > seq_limit);
}

/* What the next mount makes of it. */
static void image_check(struct loss *l)
{
	uint64_t size;
	struct testfs t = { 0 };

	l->images++;
	assert_int_equal(dax_open_ram(l->s->to * MIB, l->image, NULL, &t.dax), 0);
	open_floors(&t);
	size = size_of(&t);
	if (size != l->s->used * MIB) {
		assert_false(l->done);
		assert_int_equal(size, l->s->size * MIB);
		l->old++;
	} else {
		l->grown++;
	}
	testfs_check(&t);
	headers_check(&t);
	file_check(&t, "file");
	assert_true(file_write(&t, testfs_node(&t, INODE_ROOT, "after", S_IFREG | 0644), 0, MIB));
	if (l->images % 4 == 0) {
		/* And then it grows, or has grown. */
		int rc = space_grow(t.pool, 0);

		assert_int_equal(rc, size == l->s->used * MIB ? -EALREADY : 0);
		assert_int_equal(size_of(&t), l->s->used * MIB);
	}
	if (l->images % 4 == 2) {
		testfs_remount(&t);
		testfs_check(&t);
		file_check(&t, "after");
	}
	if (l->images % 4 == 1) {
		block0_lose(&t);
		assert_int_equal(size_of(&t), size);
		testfs_check(&t);
		file_check(&t, "file");
	}
	testfs_free(&t);
}

/* Block 0 is torn, the copy at the former end has been written over, and nothing else is there yet. */
static void torn_pick(const struct loss *l, struct pending *p)
{
	for (size_t k = 0; k < p->piece_count; k++) {
		struct piece *piece = &p->pieces[k];
		bool block0 = piece->off < BLOCK_SIZE && piece->off / LINE_SIZE % 2 == 0;

		piece->arrived = 0;
		if (block0 || piece->off / BLOCK_SIZE == l->s->size * MIB / BLOCK_SIZE - 1)
			piece->arrived = piece->all;
	}
}

/* So many for each fence: UMBRA_GROW_IMAGES, 2 if it is not set. */
static unsigned samples_wanted(void)
{
	const char *text = getenv("UMBRA_GROW_IMAGES");

	return text ? (unsigned)strtoul(text, NULL, 10) : 2;
}

static void images_check(struct loss *l, unsigned samples)
{
	struct pending p;

	pending_init(&p, &l->record, 0, l->record.count, l->durable);
	for (unsigned n = 0; n < (p.piece_count ? samples : 1); n++) {
		memcpy(l->image, l->durable, l->s->to * MIB);
		pending_sample(&p, n, &l->random);
		if (n == 2 || (n == 1 && l->fences % 2))
			torn_pick(l, &p);
		pending_apply(&p, l->image);
		image_check(l);
	}
	pending_free(&p);
}

static void loss_fence(void *ctx)
{
	struct loss *l = ctx;
	struct pending p;

	if (!l->armed)
		return;
	l->fences++;
	images_check(l, samples_wanted());
	pending_init(&p, &l->record, 0, l->record.count, l->durable);
	pending_sample(&p, 1, &l->random);
	pending_apply(&p, l->durable);
	pending_free(&p);
	record_clear(&l->record);
}

static void test_power_loss(void **state)
{
	uint64_t seed = testfs_seed();

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(scenes); i++) {
		const struct scene *s = &scenes[i];
		struct loss l = { .s = s, .random = seed + i };
		const struct dax_trace trace = { loss_store, loss_zero, loss_fence, &l };
		struct testfs t;

		if (s->to > 200)
			continue;
		make(&t, s, &trace);
		l.durable = malloc(s->to * MIB);
		l.image = malloc(s->to * MIB);
		/* The device has its new size, with whatever is there. */
		assert_int_equal(dax_grow(t.dax, s->to * MIB), 0);
		memcpy(l.durable, dax_ptr(t.dax, 0), s->to * MIB);
		l.armed = true;
		assert_int_equal(space_grow(t.pool, 0), 0);
		l.done = true;
		images_check(&l, samples_wanted());
		l.armed = false;
		print_message("# %s: %u fences, %u images, %u of them old, %u grown\n", s->name, l.fences,
			      l.images, l.old, l.grown);
		assert_true(l.old > 0 && l.grown > 0);
		testfs_free(&t);
		record_free(&l.record);
		free(l.durable);
		free(l.image);
	}
}

/* ---- an error at the switch, or after it ---- */

/* The transaction cannot be: what the group owned is not there any more. */
static void test_taken_back(void **state)
{
	const struct scene s = { .size = 50, .max = 128, .ag = 32, .file = 9 };
	struct testfs t;
	struct txn *tx;

	(void)state;
	make(&t, &s, NULL);
	tx = txn_begin(t.pool, TXN_WRITE);
	assert_int_equal(space_drop(tx, 50 * MIB / BLOCK_SIZE - 16, 16, OWNER_SUPER, 1), 0);
	assert_int_equal(txn_commit(tx), 0);
	assert_int_equal(space_grow(t.pool, 100 * MIB), -EUCLEAN);
	assert_int_equal(size_of(&t), 50 * MIB);
	assert_null(pool_failed(t.pool));
	assert_true(file_write(&t, testfs_node(&t, INODE_ROOT, "more", S_IFREG | 0644), 0, MIB));
	testfs_remount(&t);
	assert_int_equal(size_of(&t), 50 * MIB);
	file_check(&t, "file");
	file_check(&t, "more");
	testfs_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_nothing_is_lost),
		cmocka_unit_test(test_again_and_again),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_writers),
		cmocka_unit_test(test_power_loss),
		cmocka_unit_test(test_taken_back),
	};

	return cmocka_run_group_tests_name("grow", tests, NULL, NULL);
}
