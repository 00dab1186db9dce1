/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Emptying ranges of the device: everything that a pool can have, in each group and in ranges at random; too little space; bad memory on the way;
 * others who write, clone and unlink meanwhile; power loss at every fence.
 */
#include <errno.h>
#include <linux/falloc.h>
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
#include "fs/core.h"
#include "fs/owners.h"
#include "lib/testfs.h"
#include "lib/testlist.h"
#include "lib/testpoison.h"
#include "media/journal.h"

#define MIB ((uint64_t)1 << 20)
#define STEPS_MAX 20000u /* it comes to an end */
#define GROUP_BYTES (16 * MIB)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MANY_OWNERS 300u
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define MANY_OWNERS 300u
#endif
#endif
#ifndef MANY_OWNERS
#define MANY_OWNERS 3000u
#endif

static struct testfs t;
static uint8_t bytes[4 * MIB];

/* ---- what is in the pool ---- */

static uint64_t file_make(uint64_t dir, const char *name, size_t len)
{
	uint64_t ino = testfs_node(&t, dir, name, S_IFREG | 0644);

	assert_int_equal(fs_write(t.fs, &testfs_root, ino, bytes, len, 0, 0), len);
	return ino;
}

static void clones_make(uint64_t dir, uint64_t src, unsigned count)
{
	for (unsigned i = 0; i < count;) {
		struct fs_clone_item items[64];
		char names[64][12];
		unsigned n = 0, done;

		for (; n < ARRAY_SIZE(items) && i + n < count; n++) {
			snprintf(names[n], sizeof(names[n]), "c%u", i + n);
			items[n] = (struct fs_clone_item){ .src = src, .name = names[n] };
			items[n].name_len = strlen(names[n]);
		}
		assert_int_equal(fs_clone_files(t.fs, &testfs_root, dir, items, n, &done), 0);
		i += done;
	}
}

static uint64_t dir_make(const char *name)
{
	return testfs_node(&t, INODE_ROOT, name, S_IFDIR | 0755);
}

static uint64_t orphan; /* open, without a name */
#define ORPHAN_BYTES (70000u)

static void content_make(unsigned many)
{
	static char target[3000];
	uint64_t dir, ino;
	struct inode_attr attr;
	char name[32];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 31 + i / 251 + i / 65536 + 1);
	ino = file_make(INODE_ROOT, "one", 3 * MIB + 100);
	ino = file_make(INODE_ROOT, "pair", MIB);
	clones_make(dir_make("pairs"), ino, 1);
	assert_int_equal(fs_write(t.fs, &testfs_root, ino, bytes, 5000, 300000, 0), 5000);
	ino = file_make(INODE_ROOT, "hundred", 5 * BLOCK_SIZE + 7);
	clones_make(dir_make("hundreds"), ino, 99);
	ino = file_make(INODE_ROOT, "many", 2 * BLOCK_SIZE);
	clones_make(dir_make("manies"), ino, many);
	ino = file_make(INODE_ROOT, "sparse", 10);
	for (unsigned i = 1; i < 60; i++)
		assert_int_equal(fs_write(t.fs, &testfs_root, ino, bytes, 100, i * 3 * BLOCK_SIZE, 0), 100);
	/* Twice at places of one file. */
	assert_true(fs_clone(t.fs, &testfs_root, ino, 0, ino, MIB, 20 * BLOCK_SIZE, 0, NULL) > 0);
	ino = file_make(INODE_ROOT, "unwritten", 5000);
	assert_int_equal(fs_fallocate(t.fs, &testfs_root, ino, 0, 0, 2 * MIB), 0);
	assert_int_equal(fs_write(t.fs, &testfs_root, ino, bytes, 9000, MIB + 10, 0), 9000);
	file_make(INODE_ROOT, "inline", 150);
	dir = dir_make("small");
	for (unsigned i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "a rather long name %u", i);
		ino = file_make(dir, name, 1 + i * 40);
		if (i % 10 == 0)
			assert_int_equal(fs_setxattr(t.fs, ino, "user.large", bytes + i, 9000, 0, false), 0);
	}
	memset(target, 'x', sizeof(target) - 1);
	assert_int_equal(
		fs_symlink(t.fs, &testfs_root, INODE_ROOT, "link", 4, target, sizeof(target) - 1, &attr), 0);
	orphan = file_make(INODE_ROOT, "orphan", ORPHAN_BYTES);
	assert_int_equal(fs_opened(t.fs, orphan, 0, &testfs_root), 0);
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "orphan"), 0);
}

static void orphan_look(struct testfs *u)
{
	static uint8_t got[ORPHAN_BYTES];

	assert_int_equal(fs_read(u->fs, orphan, got, sizeof(got), 0), sizeof(got));
	assert_memory_equal(got, bytes, sizeof(got));
}

static void begin(uint64_t size_bytes, unsigned many)
{
	const struct testfs_opts opts = { .size_bytes = size_bytes, .format.ag_size_bytes = GROUP_BYTES };

	testfs_make(&t, &opts);
	content_make(many);
}

static void end(void)
{
	assert_null(pool_failed(t.pool));
	fs_closed(t.fs, orphan, 0);
	testfs_check(&t);
	testfs_free(&t);
}

/* ---- emptying ---- */

/* 0, or an error. */
static int evacuate(struct testfs *u, struct fs_evacuation *e)
{
	int rc = fs_evacuate(u->fs, e);
	unsigned steps = 0;

	if (!rc)
		do {
			rc = fs_evacuate_step(u->fs, e->id, MIB, e);
			assert_true(++steps < STEPS_MAX);
		} while (rc == 1);
	return rc;
}

struct range_use {
	uint64_t bad, stays, spare, others;
};

static struct range_use range_look(struct testfs *u, uint64_t off, uint64_t len)
{
	uint64_t ag_chunks = pool_super(u->pool)->ag_size_blk / CHUNK_BLOCKS;
	struct fs_owners_pos pos = { 0 };
	struct range_use use = { 0 };
	struct fs_owner page[64];
	unsigned count;

	do {
		assert_int_equal(fs_owners(u->fs, off, len, &pos, page, ARRAY_SIZE(page), &count), 0);
		for (unsigned i = 0; i < count; i++) {
			const struct fs_owner *o = &page[i];
			bool meta = o->owner == OWNER_META || o->owner == OWNER_MIRROR;

			if (o->owner == OWNER_BAD)
				use.bad += o->len;
			else if (o->owner == OWNER_SUPER || (meta && o->file_off % ag_chunks == 0))
				use.stays += o->len;
			else if (o->owner == OWNER_JOURNAL && o->file_off & JOURNAL_SPARE)
				use.spare += o->len;
			else
				use.others += o->len;
			pos = o->after;
		}
	} while (count > 0);
	return use;
}

/* Nothing is left but what has to stay; all is as it was. */
static void evacuated(struct testfs *u, uint64_t off, uint64_t len, bool mark_bad, const char *want)
{
	struct fs_evacuation e = { .dev_off = off, .len = len, .mark_bad = mark_bad };
	uint64_t bad = range_look(u, off, len).bad;
	struct range_use use;
	char *got;

	assert_int_equal(evacuate(u, &e), 0);
	use = range_look(u, off, len);
	assert_int_equal(use.others, 0);
	assert_int_equal(e.left_bytes, use.stays);
	assert_int_equal(use.bad, mark_bad ? e.len - use.stays : bad);
	assert_true(e.data_bytes + e.shared_bytes + e.meta_bytes >= e.total_bytes);
	got = testlist_make(u);
	if (testlist_diff(want, got, true) != 0)
		fail_msg("%#llx+%#llx: content", (unsigned long long)off, (unsigned long long)len);
	free(got);
	testfs_check(u);
	orphan_look(u);
}

static void test_groups(void **state)
{
	char *want;

	(void)state;
	begin(8 * GROUP_BYTES, MANY_OWNERS);
	want = testlist_make(&t);
	for (unsigned round = 0; round < 2; round++)
		for (uint64_t agno = 0; agno < 8; agno++)
			evacuated(&t, agno * GROUP_BYTES, GROUP_BYTES, false, want);
	free(want);
	end();
}

static void test_ranges(void **state)
{
	uint64_t random = testfs_seed(), size = 8 * GROUP_BYTES;
	char *want;

	(void)state;
	begin(size, MANY_OWNERS / 10);
	want = testlist_make(&t);
	for (unsigned i = 0; i < 30; i++) {
		uint64_t off = testfs_below(&random, size / BLOCK_SIZE) * BLOCK_SIZE,
			 blocks = 1 + testfs_below(&random, i % 3 ? 4000 : 6);

		evacuated(&t, off, u64_min(blocks * BLOCK_SIZE, size - off), false, want);
	}
	free(want);
	end();
}

/* Out of use for good: over a mount too. */
static void test_mark_bad(void **state)
{
	struct fs_evacuation e = { .dev_off = 2 * GROUP_BYTES + 5000, .len = GROUP_BYTES };
	struct range_use use;
	char *want;

	(void)state;
	begin(8 * GROUP_BYTES, 100);
	want = testlist_make(&t);
	evacuated(&t, 2 * GROUP_BYTES + BLOCK_SIZE, GROUP_BYTES, true, want);
	evacuated(&t, 2 * GROUP_BYTES + BLOCK_SIZE, GROUP_BYTES, true, want);
	/* As if it had not been marked: what is bad stays so. */
	evacuated(&t, 2 * GROUP_BYTES, 2 * GROUP_BYTES, false, want);
	fs_closed(t.fs, orphan, 0);
	testfs_remount(&t);
	use = range_look(&t, e.dev_off, e.len);
	assert_int_equal(use.others, 0);
	assert_true(use.bad >= GROUP_BYTES - 4 * CHUNK_SIZE - BLOCK_SIZE);
	/* New files do not go there. */
	file_make(INODE_ROOT, "new", sizeof(bytes));
	assert_int_equal(range_look(&t, e.dev_off, e.len).others, 0);
	testfs_check(&t);
	testfs_free(&t);
	free(want);
}

static void test_arguments(void **state)
{
	struct fs_evacuation e = { .dev_off = 100, .len = 5000 }, other = { .len = UINT64_MAX };

	(void)state;
	begin(8 * GROUP_BYTES, 10);
	assert_int_equal(fs_evacuate(t.fs, &e), 0);
	assert_int_equal(e.dev_off, 0);
	assert_int_equal(e.len, 2 * BLOCK_SIZE);
	fs_evacuate_stop(t.fs, e.id + 1);
	fs_evacuate_stop(t.fs, e.id);
	assert_int_equal(fs_evacuate_step(t.fs, e.id, MIB, &e), -ECANCELED);
	e = (struct fs_evacuation){ .dev_off = 8 * GROUP_BYTES, .len = 1 };
	assert_int_equal(fs_evacuate(t.fs, &e), -EINVAL);
	e = (struct fs_evacuation){ .dev_off = 8 * GROUP_BYTES - 1, .len = UINT64_MAX };
	assert_int_equal(evacuate(&t, &e), 0);
	assert_int_equal(e.len, BLOCK_SIZE);
	assert_int_equal(e.left_bytes, BLOCK_SIZE);
	e = (struct fs_evacuation){ 0 };
	assert_int_equal(fs_evacuate(t.fs, &e), -EINVAL);
	/* All of it has nowhere to go. */
	assert_int_equal(fs_evacuate(t.fs, &other), -ENOSPC);
	assert_true(other.needed_bytes > other.free_bytes && other.free_bytes == 0);
	/* A second one takes the place of the first. */
	e = (struct fs_evacuation){ .len = GROUP_BYTES };
	assert_int_equal(fs_evacuate(t.fs, &e), 0);
	other = (struct fs_evacuation){ .dev_off = GROUP_BYTES, .len = GROUP_BYTES };
	assert_int_equal(evacuate(&t, &other), 0);
	assert_int_equal(fs_evacuate_step(t.fs, e.id, MIB, &e), -ECANCELED);
	end();
}

static uint64_t free_blocks(void)
{
	struct fs_statfs st;

	assert_int_equal(fs_statfs(t.fs, &st), 0);
	return st.free_blk;
}

/* Refused before anything moves; the space is what it was. */
static void test_full(void **state)
{
	struct fs_evacuation e = { .dev_off = GROUP_BYTES, .len = GROUP_BYTES };
	uint64_t ino, at = 0, before;
	char *want;

	(void)state;
	begin(4 * GROUP_BYTES, 10);
	ino = testfs_node(&t, INODE_ROOT, "filler", S_IFREG | 0644);
	while (fs_write(t.fs, &testfs_root, ino, bytes, MIB, at, 0) == (ssize_t)MIB)
		at += MIB;
	want = testlist_make(&t);
	before = free_blocks();
	assert_int_equal(fs_evacuate(t.fs, &e), -ENOSPC);
	assert_true(e.needed_bytes > e.free_bytes);
	assert_int_equal(e.data_bytes + e.shared_bytes + e.meta_bytes, 0);
	assert_int_equal(free_blocks(), before);
	assert_int_equal(fs_evacuate_step(t.fs, e.id, MIB, &e), -ECANCELED);
	testfs_check(&t);
	/* What was there can be filled again to the last block. */
	assert_int_equal(fs_fallocate(t.fs, &testfs_root, ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
				      20 * MIB),
			 0);
	fs_work(t.fs);
	e = (struct fs_evacuation){ .dev_off = GROUP_BYTES, .len = 4 * MIB };
	assert_int_equal(evacuate(&t, &e), 0);
	for (at = 0; at < 20 * MIB; at += MIB)
		assert_int_equal(fs_write(t.fs, &testfs_root, ino, bytes, MIB, at, 0), MIB);
	e = (struct fs_evacuation){ .dev_off = 0, .len = 5 * CHUNK_SIZE };
	(void)evacuate(&t, &e);
	testfs_check(&t);
	free(want);
	end();
}

/* Bad memory in the range: what can be saved moves, what is lost is told; a stand-in of metadata, and losses, go along. */
static void test_poison(void **state)
{
	struct fs_evacuation e = { .dev_off = 0, .len = 3 * GROUP_BYTES };
	struct testpoison *poison;
	uint64_t ino, off, lost[3];
	struct fs_losses_pos pos = { 0 };
	struct fs_loss losses[8];
	struct fs_extent x;
	unsigned count;
	uint8_t byte;

	(void)state;
	begin(8 * GROUP_BYTES, 100);
	poison = testpoison_open(t.dax);
	if (!poison) {
		end();
		skip();
	}
	ino = file_make(INODE_ROOT, "lost", 600 * BLOCK_SIZE);
	clones_make(dir_make("losts"), file_make(INODE_ROOT, "shared", 20 * BLOCK_SIZE), 2);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(fs_map(t.fs, ino, i * 100 * BLOCK_SIZE, &x, 1), 1);
		lost[i] = x.dev_off;
		testpoison_lines(poison, lost[i], 0x30);
		if (i == 0)
			assert_int_equal(fs_read(t.fs, ino, &byte, 1, 4 * LINE_SIZE), -EIO);
	}
	/* A unit that lies elsewhere than in its chunk. */
	assert_int_equal(pool_place(t.pool, pool_ag_unit(t.pool, 1, AG_UNIT_INTENTS), 0, &off), 0);
	assert_int_equal(fs_poison_add(t.fs, off), 0);
	assert_int_equal(pool_place(t.pool, pool_ag_unit(t.pool, 1, AG_UNIT_HEADER), 0, &off), 0);
	assert_int_equal(fs_poison_add(t.fs, off), 0);
	e.len = 8 * GROUP_BYTES / 2;
	assert_int_equal(evacuate(&t, &e), 0);
	assert_int_equal(range_look(&t, e.dev_off, e.len).others, 0);
	e = (struct fs_evacuation){ .dev_off = 4 * GROUP_BYTES, .len = 4 * GROUP_BYTES, .mark_bad = true };
	assert_int_equal(evacuate(&t, &e), 0);
	assert_int_equal(range_look(&t, e.dev_off, e.len).others, 0);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(fs_read(t.fs, ino, &byte, 1, i * 100 * BLOCK_SIZE + 4 * LINE_SIZE), -EIO);
		assert_int_equal(fs_read(t.fs, ino, &byte, 1, i * 100 * BLOCK_SIZE + 6 * LINE_SIZE), 1);
		assert_int_equal(range_look(&t, lost[i], BLOCK_SIZE).bad, BLOCK_SIZE);
	}
	assert_int_equal(fs_losses(t.fs, &pos, losses, ARRAY_SIZE(losses), &count), 0);
	assert_int_equal(count, 3);
	testpoison_close(poison);
	end();
}

/* ---- others at work ---- */

#define WORKERS 3u
#define WORK_FILES 6u
#define WORK_BLOCKS 40u
#define WORK_BYTES (WORK_BLOCKS * BLOCK_SIZE)

struct worker {
	unsigned number;
	uint64_t random, rounds;
	uint64_t ino[WORK_FILES];
	uint8_t model[WORK_FILES][WORK_BYTES];
	atomic_bool wrong;
};

static atomic_bool work_stops;

static void worker_name(const struct worker *w, unsigned file, char name[16])
{
	snprintf(name, 16, "w%u.%u", w->number, file);
}

static void worker_write(struct worker *w, unsigned file)
{
	uint64_t off = testfs_below(&w->random, WORK_BYTES),
		 len = 1 + testfs_below(&w->random, WORK_BYTES - off);
	uint8_t byte = (uint8_t)testfs_random(&w->random);

	memset(w->model[file] + off, byte, len);
	w->wrong |= fs_write(t.fs, &testfs_root, w->ino[file], w->model[file] + off, len, off, 0) !=
		    (ssize_t)len;
}

static void worker_clone(struct worker *w, unsigned file)
{
	unsigned from = (unsigned)testfs_below(&w->random, WORK_FILES);
	uint64_t blk = testfs_below(&w->random, WORK_BLOCKS),
		 count = 1 + testfs_below(&w->random, WORK_BLOCKS - blk),
		 to = testfs_below(&w->random, WORK_BLOCKS - count + 1);

	if (from == file)
		return;
	memcpy(w->model[file] + to * BLOCK_SIZE, w->model[from] + blk * BLOCK_SIZE, count * BLOCK_SIZE);
	w->wrong |= fs_clone(t.fs, &testfs_root, w->ino[from], blk * BLOCK_SIZE, w->ino[file],
			     to * BLOCK_SIZE, count * BLOCK_SIZE, 0, NULL) != (int64_t)(count * BLOCK_SIZE);
}

static void worker_renew(struct worker *w, unsigned file)
{
	char name[16];

	worker_name(w, file, name);
	w->wrong |= testfs_unlink(&t, INODE_ROOT, name) != 0;
	w->ino[file] = testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644);
	w->wrong |= fs_write(t.fs, &testfs_root, w->ino[file], w->model[file], WORK_BYTES, 0, 0) !=
		    WORK_BYTES;
}

static void worker_punch(struct worker *w, unsigned file)
{
	uint64_t off = testfs_below(&w->random, WORK_BYTES),
		 len = 1 + testfs_below(&w->random, WORK_BYTES - off);

	memset(w->model[file] + off, 0, len);
	w->wrong |= fs_fallocate(t.fs, &testfs_root, w->ino[file], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				 off, len) != 0;
}

static void worker_read(struct worker *w, unsigned file)
{
	static __thread uint8_t got[WORK_BYTES];

	w->wrong |= fs_read(t.fs, w->ino[file], got, WORK_BYTES, 0) != WORK_BYTES ||
		    memcmp(got, w->model[file], WORK_BYTES) != 0;
}

static void *worker_main(void *arg)
{
	static void (*const actions[])(struct worker * w, unsigned file) = {
		worker_write, worker_clone, worker_read,  worker_punch,
		worker_write, worker_clone, worker_renew,
	};
	struct worker *w = arg;

	while (!atomic_load(&work_stops) && !w->wrong) {
		unsigned action = (unsigned)testfs_below(&w->random, ARRAY_SIZE(actions));
		unsigned file = (unsigned)testfs_below(&w->random, WORK_FILES);

		actions[action](w, file);
		w->rounds++;
		if (w->wrong)
			print_message("# worker %u: action %u of file %u\n", w->number, action, file);
	}
	return NULL;
}

static void test_busy(void **state)
{
	struct testfs_opts opts = { .size_bytes = 8 * GROUP_BYTES, .format.ag_size_bytes = GROUP_BYTES };
	static struct worker workers[WORKERS];
	uint64_t seed = testfs_seed();
	pthread_t threads[WORKERS];

	(void)state;
	opts.fs.background = true;
	testfs_make(&t, &opts);
	content_make(100);
	atomic_store(&work_stops, false);
	for (unsigned i = 0; i < WORKERS; i++) {
		workers[i] = (struct worker){ .number = i, .random = seed + i };
		for (unsigned k = 0; k < WORK_FILES; k++) {
			char name[16];

			worker_name(&workers[i], k, name);
			workers[i].ino[k] = file_make(INODE_ROOT, name, WORK_BYTES);
			memcpy(workers[i].model[k], bytes, WORK_BYTES);
		}
		assert_int_equal(pthread_create(&threads[i], NULL, worker_main, &workers[i]), 0);
	}
	for (unsigned round = 0; round < 3; round++) {
		for (uint64_t agno = 0; agno < 8; agno++) {
			struct fs_evacuation e = { .dev_off = agno * GROUP_BYTES, .len = GROUP_BYTES };

			assert_int_equal(evacuate(&t, &e), 0);
			for (unsigned i = 0; i < WORKERS; i++)
				assert_false(workers[i].wrong);
		}
	}
	atomic_store(&work_stops, true);
	for (unsigned i = 0; i < WORKERS; i++) {
		pthread_join(threads[i], NULL);
		for (unsigned k = 0; k < WORK_FILES; k++)
			worker_read(&workers[i], k);
		assert_false(workers[i].wrong);
		print_message("# worker %u: %llu rounds\n", i, (unsigned long long)workers[i].rounds);
	}
	orphan_look(&t);
	end();
}

/* ---- power loss ---- */

#define CRASH_BYTES (24 * MIB)

static const struct testfs_opts crash_opts = { .size_bytes = CRASH_BYTES, .trace = &cut_trace };

struct crash {
	char *want;
	uint64_t off, len;
	bool mark_bad;
	unsigned images, gone;
};

/* Everything is there, nothing leaked; the same again goes on and comes to its end. */
static void image_check(void *arg, const uint8_t *image)
{
	const struct testfs_opts opts = { .size_bytes = CRASH_BYTES };
	struct crash *c = arg;
	struct fs_evacuation e = { .dev_off = c->off, .len = c->len, .mark_bad = c->mark_bad };
	struct range_use use;
	struct testfs u;
	char *got;

	if (c->images % 2 == 0)
		testfs_check_image(image, CRASH_BYTES);
	testfs_open_image(&u, image, &opts);
	testfs_check(&u); /* first: whoever touches a unit heals it */
	got = testlist_make(&u);
	assert_int_equal(testlist_diff(c->want, got, true), 0);
	free(got);
	use = range_look(&u, c->off, c->len);
	c->gone += use.others == 0;
	if (!c->mark_bad)
		assert_int_equal(use.bad, 0);
	else /* what has left is out of use at once: all of the range was in use */
		assert_true(use.bad + use.others >= c->len);
	if (c->images++ % 8 == 0) {
		assert_int_equal(evacuate(&u, &e), 0);
		assert_int_equal(range_look(&u, c->off, c->len).others, 0);
		got = testlist_make(&u);
		assert_int_equal(testlist_diff(c->want, got, true), 0);
		free(got);
		testfs_check(&u);
	}
	testfs_free(&u);
}

static void image_check_twice(void *arg, const uint8_t *image)
{
	struct crash *c = arg;
	struct testfs u;
	struct cut cut;

	image_check(c, image);
	if (c->images % 64 != 1)
		return;
	cut_begin(&cut, image, CRASH_BYTES, CUT_NO_PAGE);
	testfs_open_image(&u, image, &crash_opts);
	cut_end();
	testfs_free(&u);
	cut_images(&cut, image_check, c);
}

static unsigned crash_remaps; /* units of the copy that leaves which lie elsewhere by then */

static void crash_of(uint64_t (*place)(uint64_t *len), bool mark_bad, const char *name)
{
	struct crash c = { .mark_bad = mark_bad };
	struct fs_evacuation e;
	struct cut cut;
	uint64_t ino, inos[70];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 31 + i / 251 + 1);
	testfs_make(&t, &crash_opts);
	/* A second metadata chunk. */
	for (unsigned i = 0; i < 70; i++) {
		char text[16];

		snprintf(text, sizeof(text), "x%u", i);
		inos[i] = ino = testfs_node(&t, INODE_ROOT, text, S_IFREG | 0644);
		assert_int_equal(fs_setxattr(t.fs, ino, "user.a", bytes, 32768, 0, false), 0);
	}
	file_make(INODE_ROOT, "one", 70 * BLOCK_SIZE);
	clones_make(dir_make("d"), file_make(INODE_ROOT, "shared", 9 * BLOCK_SIZE), 45);
	fs_work(t.fs);
	c.want = testlist_make(&t);
	c.off = place(&c.len);
	/* Ahead of the range. */
	for (unsigned i = 1; i <= crash_remaps; i++)
		assert_int_equal(fs_poison_add(t.fs, c.off - i * BLOCK_SIZE), 0);
	e = (struct fs_evacuation){ .dev_off = c.off, .len = c.len, .mark_bad = mark_bad };
	assert_true(range_look(&t, c.off, c.len).others > 0);
	cut_begin(&cut, dax_ptr(t.dax, 0), CRASH_BYTES, CUT_NO_PAGE);
	assert_int_equal(evacuate(&t, &e), 0);
	cut_end();
	assert_int_equal(range_look(&t, c.off, c.len).others, 0);
	cut_images(&cut, image_check_twice, &c);
	print_message("# %s: %u images, in %u all had moved\n", name, c.images, c.gone);
	assert_true(c.images > 8);
	free(c.want);
	testfs_check(&t);
	/* What is stored into units from now on is stored where the media say. */
	for (unsigned i = 0; i < 70; i++)
		assert_int_equal(fs_setxattr(t.fs, inos[i], "user.a", bytes + i, 30000, 0, false), 0);
	testfs_crash(&t);
	testfs_check(&t);
	testfs_free(&t);
}

static uint64_t place_of(const char *name, uint64_t *len)
{
	struct inode_attr attr;
	struct fs_extent x;

	assert_int_equal(testfs_lookup(&t, INODE_ROOT, name, &attr), 0);
	fs_forget(t.fs, attr.ino, 1);
	assert_int_equal(fs_map(t.fs, attr.ino, 0, &x, 1), 1);
	*len = x.len;
	return x.dev_off;
}

static uint64_t place_one(uint64_t *len)
{
	return place_of("one", len);
}

static uint64_t place_shared(uint64_t *len)
{
	return place_of("shared", len);
}

static uint64_t place_meta(uint64_t owner, uint64_t *len)
{
	uint64_t ag_chunks = pool_super(t.pool)->ag_size_blk / CHUNK_BLOCKS;
	struct fs_owners_pos pos = { 0 };
	struct fs_owner o;
	unsigned count;

	do {
		assert_int_equal(fs_owners(t.fs, 0, CRASH_BYTES, &pos, &o, 1, &count), 0);
		assert_int_equal(count, 1);
		pos = o.after;
	} while (o.owner != owner || o.file_off % ag_chunks == 0);
	*len = o.len / 2;
	return o.dev_off + o.len / 4;
}

static uint64_t place_primary(uint64_t *len)
{
	return place_meta(OWNER_META, len);
}

static uint64_t place_mirror(uint64_t *len)
{
	return place_meta(OWNER_MIRROR, len);
}

static void test_crash_data(void **state)
{
	(void)state;
	crash_of(place_one, false, "one owner");
	crash_of(place_one, true, "one owner, marked");
}

static void test_crash_shared(void **state)
{
	(void)state;
	crash_of(place_shared, false, "46 owners");
	crash_of(place_shared, true, "46 owners, marked");
}

static void test_crash_meta(void **state)
{
	(void)state;
	crash_of(place_primary, false, "metadata");
	crash_of(place_mirror, false, "its mirror");
	crash_of(place_mirror, true, "its mirror, marked");
	crash_remaps = 100;
	crash_of(place_primary, false, "metadata, of which units lie elsewhere");
	crash_of(place_mirror, false, "its mirror, of which units lie elsewhere");
	crash_remaps = 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_groups),       cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_mark_bad),     cmocka_unit_test(test_arguments),
		cmocka_unit_test(test_full),         cmocka_unit_test(test_poison),
		cmocka_unit_test(test_busy),         cmocka_unit_test(test_crash_data),
		cmocka_unit_test(test_crash_shared), cmocka_unit_test(test_crash_meta),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
