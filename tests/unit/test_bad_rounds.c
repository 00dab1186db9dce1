/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Many blocks in bad memory that files cannot leave: when each is tried again, how many are for nothing, and who waits for that.
 *
 * Nothing here goes by time: what is tried is counted by the looks at the lines of bad blocks.
 */
#include <errno.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#include "dax/badblocks.h"
#include "fs/core.h"
#include "fs/owners.h"
#include "fs/poison.h"
#include "lib/testfs.h"
#include "lib/testpoison.h"

#define POOL_BYTES ((uint64_t)32 << 20)
#define MANY 100u
#define MORE_BYTES ((uint64_t)192 << 20)

static struct testfs t;
static struct testpoison *poison;
static uint8_t bytes[64 * BLOCK_SIZE];
static uint64_t offs[MANY], lost_ino;
static unsigned tried;

/* ---- the pool ---- */

static void fill(const char *name)
{
	uint64_t ino = testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644), at = 0;
	ssize_t n;

	for (size_t len = sizeof(bytes); len >= BLOCK_SIZE; len /= 2)
		while ((n = fs_write(t.fs, &testfs_root, ino, bytes, len, at, 0)) > 0)
			at += (uint64_t)n;
}

static uint64_t place_in(uint64_t ino, uint64_t off)
{
	struct fs_extent x;

	assert_int_equal(fs_map(t.fs, ino, off, &x, 1), 1);
	return x.dev_off + (off - x.file_off);
}

static uint64_t ino_of(const char *name)
{
	struct inode_attr attr;

	assert_int_equal(testfs_lookup(&t, INODE_ROOT, name, &attr), 0);
	fs_forget(t.fs, attr.ino, 1);
	return attr.ino;
}

/* Everything of bad blocks is lost. Each try looks at their lines, and once more if there is a block to go to. */
static bool line_lost(void *ctx, uint64_t off, void *line)
{
	(void)ctx;
	(void)line;
	tried += off % BLOCK_SIZE == 0;
	return false;
}

static void full_make(uint64_t pool_bytes, uint64_t file_bytes, bool background)
{
	const struct testfs_opts opts = { .size_bytes = pool_bytes, .fs.background = background };

	memset(bytes, 3, sizeof(bytes));
	testfs_make(&t, &opts);
	lost_ino = testfs_node(&t, INODE_ROOT, "lost", S_IFREG | 0644);
	for (uint64_t at = 0; at < file_bytes; at += sizeof(bytes))
		assert_int_equal(fs_write(t.fs, &testfs_root, lost_ino, bytes, sizeof(bytes), at, 0),
				 sizeof(bytes));
	fill("fill");
}

/* A file has lost that many blocks of a full pool, each of which somebody has met. */
static void begin(bool background)
{
	uint8_t byte;

	full_make(POOL_BYTES, 2 * sizeof(bytes), background);
	poison = testpoison_open(t.dax);
	if (!poison) {
		testfs_free(&t);
		skip();
	}
	dax_on_salvage(t.dax, line_lost, NULL);
	for (unsigned i = 0; i < MANY; i++) {
		offs[i] = place_in(lost_ino, i * BLOCK_SIZE);
		testpoison_page(poison, offs[i]);
		assert_int_equal(fs_read(t.fs, lost_ino, &byte, 1, i * BLOCK_SIZE), -EIO);
	}
	tried = 0;
}

static void end(void)
{
	assert_null(pool_failed(t.pool));
	testpoison_close(poison);
	testfs_check(&t);
	testfs_free(&t);
}

/* Whether files have it. */
static bool is_left(uint64_t off)
{
	static const struct fs_owners_pos start;
	struct fs_owner owners[2];
	unsigned count;

	assert_int_equal(fs_owners(t.fs, off, BLOCK_SIZE, &start, owners, 2, &count), 0);
	assert_true(count > 0);
	return count == 1 && owners[0].owner == OWNER_BAD;
}

static unsigned left_count(void)
{
	unsigned left = 0;

	for (unsigned i = 0; i < MANY; i++)
		left += is_left(offs[i]);
	return left;
}

static void shorten(const char *name, uint64_t blocks)
{
	struct inode_attr attr = testfs_attr(&t, ino_of(name));
	const struct fs_set set = { .what = FS_SET_SIZE, .size = attr.size - blocks * BLOCK_SIZE };

	assert_int_equal(fs_setattr(t.fs, &testfs_root, attr.ino, &set, &attr), 0);
}

/* ---- how much is for nothing ---- */

/* Nothing has become free: nobody tries. What has helps as many, and one more finds out that it was all. */
static void test_full(void **state)
{
	(void)state;
	begin(false);
	poison_drain(t.fs, POISON_ALL);
	assert_int_equal(tried, 0);
	fs_work(t.fs);
	assert_int_equal(tried, 0);
	shorten("fill", 7);
	poison_drain(t.fs, POISON_ALL);
	assert_int_equal(left_count(), 7);
	assert_int_equal(tried, 2 * 7 + 1);
	poison_drain(t.fs, POISON_ALL);
	assert_int_equal(tried, 2 * 7 + 1);
	end();
}

/* So it is at the end of a mount, and the next one tries once. */
static void test_unmount(void **state)
{
	(void)state;
	begin(false);
	testfs_remount(&t);
	assert_int_equal(tried, 0);
	fs_work(t.fs);
	assert_int_equal(tried, 1);
	assert_int_equal(t.fs->bad_count, MANY);
	shorten("fill", 3);
	tried = 0;
	testfs_remount(&t);
	assert_int_equal(tried, 2 * 3 + 1);
	assert_int_equal(left_count(), 3);
	end();
}

/* What needs no block is seen to all the same: what its file has let go of, and what is no file's. */
static void test_others(void **state)
{
	uint64_t meta;

	(void)state;
	begin(false);
	assert_int_equal(pool_place(t.pool, lost_ino << INODE_SHIFT, 1, &meta), 0);
	poison_note(t.fs, meta);
	assert_int_equal(t.fs->bad_count, MANY + 1);
	assert_int_equal(fs_fallocate(t.fs, &testfs_root, lost_ino,
				      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 50 * BLOCK_SIZE,
				      BLOCK_SIZE),
			 0);
	poison_drain(t.fs, POISON_DUE);
	assert_true(is_left(offs[50]));
	assert_int_equal(tried, 1); /* metadata is good */
	assert_int_equal(t.fs->bad_count, MANY - 1);
	end();
}

/* ---- when ---- */

static unsigned cleared;
static uint64_t cleared_first;

static int device_list(void *ctx, dax_badblock_fn fn, void *arg)
{
	(void)ctx;
	(void)fn;
	(void)arg;
	return 0;
}

static int device_clear(void *ctx, uint64_t off, uint64_t len_bytes)
{
	(void)ctx;
	assert_int_equal(len_bytes, BLOCK_SIZE);
	testpoison_heal(poison, off);
	if (cleared++ == 0)
		cleared_first = off;
	return 0;
}

static const struct dax_badblocks_ops device_ops = { .list = device_list, .clear = device_clear };

static int lost_punch(void)
{
	return fs_fallocate(t.fs, &testfs_root, lost_ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			    10 * BLOCK_SIZE, BLOCK_SIZE);
}

static int lost_collapse(void)
{
	return fs_fallocate(t.fs, &testfs_root, lost_ino, FALLOC_FL_COLLAPSE_RANGE, 10 * BLOCK_SIZE,
			    BLOCK_SIZE);
}

static int lost_truncate(void)
{
	const struct fs_set set = { .what = FS_SET_SIZE, .size = 10 * BLOCK_SIZE };
	struct inode_attr attr;

	return fs_setattr(t.fs, &testfs_root, lost_ino, &set, &attr);
}

static int lost_unlink(void)
{
	return testfs_unlink(&t, INODE_ROOT, "lost");
}

/* What is freed besides is taken by the first one of those that wait for it. */
static const struct {
	int (*let_go)(void);
	unsigned first;
} lets[] = { { lost_punch, 10 }, { lost_collapse, 10 }, { lost_truncate, 0 }, { lost_unlink, 10 } };

/* The device gives a block back as soon as its file has let go of it, in whatever way: that waits for no time. */
static void test_let_go(void **state)
{
	uint8_t byte;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lets); i++) {
		begin(false);
		cleared = 0;
		dax_badblocks_stand_in(t.dax, &device_ops, NULL);
		assert_int_equal(fs_read(t.fs, lost_ino, &byte, 1, 10 * BLOCK_SIZE), -EIO); /* met with it */
		assert_int_equal(cleared, 0);
		assert_int_equal(lets[i].let_go(), 0);
		poison_drain(t.fs, POISON_DUE);
		assert_true(cleared > 0); /* and the next file block has a place to go to, and so on */
		assert_int_equal(cleared_first, offs[lets[i].first]);
		dax_badblocks_stand_in(t.dax, NULL, NULL);
		end();
	}
}

static void by_truncate(void)
{
	shorten("fill", MANY);
}

static void by_punch(void)
{
	assert_int_equal(fs_fallocate(t.fs, &testfs_root, ino_of("fill"),
				      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, MANY * BLOCK_SIZE),
			 0);
}

static void by_unlink(void)
{
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "fill"), 0);
}

static void (*const frees[])(void) = { by_truncate, by_punch, by_unlink };

/* Whatever makes room. */
static void test_freed(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(frees); i++) {
		begin(false);
		frees[i]();
		poison_drain(t.fs, POISON_DUE);
		assert_int_equal(left_count(), MANY);
		assert_int_equal(t.fs->bad_count, 0);
		end();
	}
}

/* The background thread hears of it. If it does not, the limit of the suite ends it. */
static void test_background(void **state)
{
	const struct timespec a_moment = { .tv_nsec = 1000000 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(frees); i++) {
		begin(true);
		frees[i]();
		while (atomic_load(&t.fs->bad_count) > 0)
			nanosleep(&a_moment, NULL);
		assert_int_equal(left_count(), MANY);
		end();
	}
}

/* ---- who waits ---- */

static struct {
	pthread_t thread;
	uint64_t off;
	bool began;
	unsigned events, other_at; /* which event was the other thread's */
} waiting;

static void *wait_main(void *arg)
{
	(void)arg;
	if (fs_poison_add(t.fs, waiting.off) != 0)
		fail_msg("the other block is still in use");
	return NULL;
}

/* From the first place of a round on another thread waits for the lock. */
static void waiting_told(void *arg, const struct fs_poison *event)
{
	(void)arg;
	waiting.events++;
	if (event->dev_off == waiting.off)
		waiting.other_at = waiting.events;
	if (waiting.began)
		return;
	waiting.began = true;
	assert_int_equal(pthread_create(&waiting.thread, NULL, wait_main, NULL), 0);
	while (pthread_mutex_trylock(&t.fs->poison_next) == 0) {
		pthread_mutex_unlock(&t.fs->poison_next);
		sched_yield();
	}
}

static void test_lock(void **state)
{
	(void)state;
	begin(false);
	memset(&waiting, 0, sizeof(waiting));
	waiting.off = place_in(ino_of("fill"), 0);
	shorten("fill", MANY + 10);
	fs_on_poison(t.fs, waiting_told, NULL);
	poison_drain(t.fs, POISON_DUE);
	pthread_join(waiting.thread, NULL);
	fs_on_poison(t.fs, NULL, NULL);
	assert_int_equal(waiting.events, MANY + 1);
	assert_int_equal(waiting.other_at, 2);
	end();
}

/* ---- more than the list holds ---- */

#define OVER (BAD_PLACES_MAX + 200u)
static uint64_t all[OVER];

static void over_make(void)
{
	const uint64_t file_bytes = u64_align_up(OVER * BLOCK_SIZE, sizeof(bytes));

	full_make(MORE_BYTES, file_bytes, false);
	for (unsigned i = 0; i < OVER; i++) {
		all[i] = place_in(lost_ino, i * BLOCK_SIZE);
		assert_int_equal(fs_poison_add(t.fs, all[i]), -EINPROGRESS);
	}
	assert_int_equal(t.fs->bad_count, BAD_PLACES_MAX);
}

static void over_end(void)
{
	for (unsigned i = 0; i < OVER; i++)
		assert_true(is_left(all[i]));
	assert_int_equal(t.fs->bad_count, 0);
	testfs_check(&t);
	testfs_free(&t);
}

/* They are on media: those that the list has no room for are found when it has. */
static void test_over(void **state)
{
	(void)state;
	for (unsigned mounts = 1; mounts <= 2; mounts++) {
		over_make();
		if (mounts > 1) {
			testfs_remount(&t);
			fs_work(t.fs);
			assert_int_equal(t.fs->bad_count, BAD_PLACES_MAX);
		}
		assert_int_equal(testfs_unlink(&t, INODE_ROOT, "fill"), 0);
		fs_work(t.fs);
		fs_work(t.fs);
		over_end();
	}
}

/* Nor are they handed out when their file goes. */
static void test_over_gone(void **state)
{
	(void)state;
	over_make();
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "lost"), 0);
	fs_work(t.fs);
	fill("more");
	over_end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full),      cmocka_unit_test(test_unmount),
		cmocka_unit_test(test_others),    cmocka_unit_test(test_let_go),
		cmocka_unit_test(test_freed),     cmocka_unit_test(test_background),
		cmocka_unit_test(test_lock),      cmocka_unit_test(test_over),
		cmocka_unit_test(test_over_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
