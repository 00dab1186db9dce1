/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * File data in corners: the largest sizes, files without any data, append-only and immutable ones, blocks past the end, appends that
 * take several transactions.
 */
#include <errno.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/data.h"
#include "lib/testfs.h"
#include "registry/registry.h"

#define BLK ((uint64_t)BLOCK_SIZE)

static struct testfs t;

static int setup(void **state)
{
	(void)state;
	testfs_make(&t, &(struct testfs_opts){ .size_bytes = (uint64_t)64 << 20,
					       .format = { .lane_size_bytes = 256u << 10 } });
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	testfs_check(&t);
	testfs_free(&t);
	return 0;
}

static uint64_t file_make(const char *name)
{
	return testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644);
}

static int set_size(uint64_t ino, uint64_t size)
{
	struct fs_set set = { .what = FS_SET_SIZE, .size = size };
	struct inode_attr attr;

	return fs_setattr(t.fs, &testfs_root, ino, &set, &attr);
}

static int set_flags(uint64_t ino, uint32_t flags)
{
	struct fs_set set = { .what = FS_SET_FLAGS, .flags = flags };
	struct inode_attr attr;

	return fs_setattr(t.fs, &testfs_root, ino, &set, &attr);
}

static ssize_t put(uint64_t ino, const char *text, uint64_t off, unsigned flags)
{
	return fs_write(t.fs, &testfs_root, ino, text, strlen(text), off, flags);
}

static int falloc(uint64_t ino, int mode, uint64_t off, uint64_t len)
{
	return fs_fallocate(t.fs, &testfs_root, ino, mode, off, len);
}

static void assert_bytes(uint64_t ino, uint64_t off, const char *text)
{
	char got[64] = "";

	assert_int_equal(fs_read(t.fs, ino, got, strlen(text), off), (int)strlen(text));
	assert_memory_equal(got, text, strlen(text));
}

/* ---- the largest sizes ---- */

/* What lies before the end that no file can pass is written, as anywhere. */
static void test_write_up_to_the_limit(void **state)
{
	uint64_t f = file_make("f"), found;

	(void)state;
	assert_int_equal(put(f, "end of it", FS_SIZE_MAX - 3, 0), 3);
	assert_int_equal(testfs_attr(&t, f).size, FS_SIZE_MAX);
	assert_bytes(f, FS_SIZE_MAX - 3, "end");
	assert_int_equal(put(f, "x", FS_SIZE_MAX, 0), -EFBIG);
	assert_int_equal(put(f, "x", UINT64_MAX, 0), -EFBIG);
	assert_int_equal(put(f, "x", 0, FS_WRITE_APPEND), -EFBIG);
	assert_int_equal(fs_seek(t.fs, f, 0, SEEK_DATA, &found), 0);
	assert_int_equal(found, FS_SIZE_MAX - BLK);
	assert_int_equal(falloc(f, 0, FS_SIZE_MAX - BLK, BLK + 1), -EFBIG);
	assert_int_equal(set_size(f, FS_SIZE_MAX - 4), 0);
	assert_int_equal(set_size(f, FS_SIZE_MAX), 0);
	assert_bytes(f, FS_SIZE_MAX - 4, "\0\0\0");
}

/* Blocks that were set aside past the end cannot be moved past the last one that a file can have. */
static void test_insert_moves_what_is_past_the_end(void **state)
{
	uint64_t f = file_make("f");

	(void)state;
	assert_int_equal(put(f, "text", 0, 0), 4);
	assert_int_equal(falloc(f, FALLOC_FL_KEEP_SIZE, FS_SIZE_MAX - 2 * BLK, BLK), 0);
	assert_int_equal(falloc(f, FALLOC_FL_INSERT_RANGE, 0, 4 * BLK), -EFBIG);
	assert_int_equal(falloc(f, FALLOC_FL_INSERT_RANGE, 0, 2 * BLK), -EFBIG);
	assert_int_equal(falloc(f, FALLOC_FL_INSERT_RANGE, 0, BLK), 0);
	assert_null(pool_failed(t.pool));
	assert_bytes(f, BLK, "text");
}

/* ---- files without data ---- */

/* A hole is a hole in the clone too, however large it is. */
static void test_clone_of_a_hole(void **state)
{
	uint64_t f = file_make("f"), g = file_make("g"), size = (uint64_t)1 << 40, shared;

	(void)state;
	assert_int_equal(set_size(f, size), 0);
	assert_int_equal(put(g, "old", 2 * BLK, 0), 3);
	assert_int_equal(fs_clone(t.fs, &testfs_root, f, 0, g, 0, 0, FS_CLONE_STRICT, &shared), size);
	assert_int_equal(testfs_attr(&t, g).size, size);
	assert_int_equal(testfs_attr(&t, g).blocks, 0);
	assert_bytes(g, 2 * BLK, "\0\0\0");
	/* Within one file, and only at the edges by bytes. */
	assert_int_equal(fs_clone(t.fs, &testfs_root, f, 5, f, size / 2 + 5, size / 4, 0, NULL), size / 4);
	assert_true(testfs_attr(&t, f).blocks <= 2);
}

static void test_truncate_gives_back_what_is_past_the_end(void **state)
{
	uint64_t f = file_make("f");
	struct inode_attr before, after;

	(void)state;
	assert_int_equal(put(f, "text", 3000, 0), 4);
	assert_int_equal(falloc(f, FALLOC_FL_KEEP_SIZE, 0, 100 * BLK), 0);
	before = testfs_attr(&t, f);
	assert_int_equal(before.blocks, 100);
	assert_int_equal(set_size(f, 3004), 0);
	after = testfs_attr(&t, f);
	assert_int_equal(after.blocks, 1);
	assert_int_equal(after.mtime.ns, before.mtime.ns);
	assert_bytes(f, 3000, "text");
	assert_int_equal(falloc(f, FALLOC_FL_KEEP_SIZE, 0, 100 * BLK), 0);
	assert_int_equal(set_size(f, 0), 0);
	assert_int_equal(falloc(f, FALLOC_FL_KEEP_SIZE, 0, 100 * BLK), 0);
	assert_int_equal(fs_opened(t.fs, f, FS_OPEN_WRITE | FS_OPEN_TRUNCATE, &testfs_root), 0);
	fs_closed(t.fs, f, FS_OPEN_WRITE);
	assert_int_equal(testfs_attr(&t, f).blocks, 0);
}

/* ---- unshare: an allocation that also copies what is shared ---- */

static void test_unshare_allocates(void **state)
{
	uint64_t f = file_make("f"), g = file_make("g");
	struct fs_extent map[8];
	int n;

	(void)state;
	assert_int_equal(put(f, "one", BLK, 0), 3);
	assert_int_equal(put(f, "two", 4 * BLK, 0), 3);
	assert_int_equal(fs_clone(t.fs, &testfs_root, f, 0, g, 0, 5 * BLK, 0, NULL), 4 * BLK + 3);
	assert_int_equal(falloc(g, FALLOC_FL_UNSHARE_RANGE | FALLOC_FL_KEEP_SIZE, 0, 10 * BLK), 0);
	assert_int_equal(testfs_attr(&t, g).blocks, 10);
	assert_int_equal(testfs_attr(&t, g).size, 4 * BLK + 3);
	n = fs_map(t.fs, g, 0, map, 8);
	assert_true(n > 0);
	for (int i = 0; i < n; i++)
		assert_int_equal(map[i].owners, 1);
	assert_bytes(g, BLK, "one");
	assert_bytes(g, 2 * BLK, "\0\0\0");
	assert_bytes(g, 4 * BLK, "two");
	assert_int_equal(falloc(g, FALLOC_FL_UNSHARE_RANGE, 0, 12 * BLK), 0);
	assert_int_equal(testfs_attr(&t, g).size, 12 * BLK);
	/* Of a small file too a store must not need space afterwards. */
	g = file_make("small");
	assert_int_equal(put(g, "tiny", 0, 0), 4);
	assert_int_equal(falloc(g, FALLOC_FL_UNSHARE_RANGE | FALLOC_FL_KEEP_SIZE, 0, 3 * BLK), 0);
	assert_int_equal(testfs_attr(&t, g).blocks, 3);
	assert_bytes(g, 0, "tiny");
}

/* ---- files that must not be changed ---- */

static void test_append_only(void **state)
{
	uint64_t f = file_make("f"), g = file_make("g");

	(void)state;
	assert_int_equal(put(f, "first", 0, 0), 5);
	assert_int_equal(put(g, "other text", 0, 0), 10);
	assert_int_equal(set_flags(f, INODE_APPEND), 0);
	assert_int_equal(put(f, "x", 0, 0), -EPERM);
	assert_int_equal(fs_clone(t.fs, &testfs_root, g, 0, f, 0, 10, 0, NULL), -EPERM);
	assert_int_equal(fs_clone(t.fs, &testfs_root, g, 0, f, 4, 10, 0, NULL), -EPERM);
	assert_int_equal(falloc(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 5), -EPERM);
	assert_bytes(f, 0, "first");
	assert_int_equal(fs_clone(t.fs, &testfs_root, g, 5, f, 5, 5, 0, NULL), 5);
	assert_int_equal(put(f, "!", 0, FS_WRITE_APPEND), 1);
	assert_bytes(f, 0, "first text!");
}

/* Pages that were dirty when the flag was set are still written: the stores had been allowed. */
static void test_dirty_pages_of_what_became_immutable(void **state)
{
	uint64_t f = file_make("f"), g = file_make("g");

	(void)state;
	assert_int_equal(put(f, "before", 0, 0), 6);
	assert_int_equal(put(g, "before", 0, 0), 6);
	assert_int_equal(set_flags(f, INODE_IMMUTABLE), 0);
	assert_int_equal(set_flags(g, INODE_APPEND), 0);
	assert_int_equal(put(f, "after ", 0, 0), -EPERM);
	assert_int_equal(put(f, "after ", 0, FS_WRITE_CACHED), 6);
	assert_int_equal(put(g, "after ", 0, FS_WRITE_CACHED), 6);
	assert_bytes(f, 0, "after ");
	assert_bytes(g, 0, "after ");
	assert_int_equal(put(INODE_ROOT, "x", 0, FS_WRITE_CACHED), -EISDIR);
}

/* ---- appends ---- */

#define APPENDS 3u
#define APPEND_BLKS 800u
#define APPEND_BYTES (APPEND_BLKS * BLOCK_SIZE)

static uint64_t appended_ino;

static void *append_main(void *arg)
{
	uint8_t *buf = malloc(APPEND_BYTES);
	uint64_t *total = arg;

	memset(buf, 'a', APPEND_BYTES);
	for (unsigned i = 0; i < APPENDS; i++) {
		ssize_t n = fs_write(t.fs, &testfs_root, appended_ino, buf, APPEND_BYTES, 0, FS_WRITE_APPEND);

		if (n > 0)
			*total += (uint64_t)n;
	}
	free(buf);
	return NULL;
}

/* Free space in single blocks: each append takes several transactions, and none of them stores over another one's bytes. */
static void test_appends_at_once(void **state)
{
	uint64_t filler = file_make("filler"), end = (uint64_t)64 << 20, totals[2] = { 0 };
	pthread_t threads[2];
	struct fs_statfs st;

	(void)state;
	assert_int_equal(fs_statfs(t.fs, &st), 0);
	assert_int_equal(falloc(filler, FALLOC_FL_KEEP_SIZE, 0, (st.free_blk - 100) * BLK), 0);
	while (falloc(filler, FALLOC_FL_KEEP_SIZE, end, BLK) == 0)
		end += BLK;
	for (uint64_t blk = 0; blk < 4 * APPENDS * APPEND_BLKS; blk += 2)
		assert_int_equal(falloc(filler, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, blk * BLK, BLK),
				 0);
	appended_ino = file_make("f");
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, append_main, &totals[i]), 0);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	assert_true(totals[0] > 0 && totals[1] > 0);
	assert_int_equal(testfs_attr(&t, appended_ino).size, totals[0] + totals[1]);
}

/* ---- more long operations than there are places for intents ---- */

#define LONG 4500u /* extents: cutting them takes several transactions */

struct slots {
	struct intent_ref refs[INTENTS_PER_UNIT];
	unsigned count;
};

static int slots_take(struct op *op, void *arg)
{
	struct slots *s = arg;
	struct inode_attr attr;
	uint64_t none[8] = { 0 };
	int rc = op_inode(op, INODE_ROOT, true, NULL);

	if (!rc)
		rc = inode_get(op, INODE_ROOT, &attr);
	for (s->count = 0; !rc && s->count < INTENTS_PER_UNIT; s->count += rc == 0)
		rc = intent_make(op, &attr, INTENT_FREE_RANGE, none, &s->refs[s->count]);
	return rc;
}

static int slots_give(struct op *op, void *arg)
{
	struct slots *s = arg;
	int rc = 0;

	for (unsigned i = 0; i < s->count && !rc; i++)
		rc = intent_clear(op, &s->refs[i]);
	return rc;
}

static _Atomic bool cut_done;
static uint64_t cut_ino;

static void *cut_main(void *arg)
{
	*(int *)arg = set_size(cut_ino, 1);
	atomic_store(&cut_done, true);
	return NULL;
}

static void test_long_operation_waits_for_a_place(void **state)
{
	uint64_t retries;
	struct slots slots;
	pthread_t thread;
	int rc = -1;

	(void)state;
	cut_ino = file_make("f");
	for (uint64_t i = 0; i < LONG; i++)
		assert_int_equal(put(cut_ino, "x", 2 * i * BLK, 0), 1);
	assert_int_equal(op_run(t.fs, TXN_WRITE, NULL, slots_take, &slots), 0);
	assert_int_equal(slots.count, INTENTS_PER_UNIT);
	retries = pool_stats(t.pool)->retries;
	assert_int_equal(pthread_create(&thread, NULL, cut_main, &rc), 0);
	while (!atomic_load(&cut_done) && atomic_load(&pool_stats(t.pool)->retries) < retries + 3)
		sched_yield();
	assert_false(atomic_load(&cut_done));
	assert_int_equal(op_run(t.fs, TXN_WRITE, NULL, slots_give, &slots), 0);
	pthread_join(thread, NULL);
	assert_int_equal(rc, 0);
	assert_int_equal(testfs_attr(&t, cut_ino).blocks, 1);
}

static atomic_bool may_free;

static void memory_hold(struct rcu_head *unused)
{
	(void)unused;
	while (!atomic_load(&may_free))
		sched_yield();
}

/* What is left to be freed when its readers have gone is freed later. If somebody waits for it, the limit of the suite ends this. */
static void test_end_waits_for_no_memory(void **state)
{
	static struct rcu_head head;
	struct registry *registry;

	(void)state;
	assert_int_equal(registry_open(t.fs, &(struct registry_opts){ 0 }, &registry), 0);
	(void)file_make("a");
	urcu_memb_call_rcu(&head, memory_hold);
	registry_close(registry);
	testfs_remount(&t);
	atomic_store(&may_free, true);
	urcu_memb_barrier();
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_write_up_to_the_limit),
		T(test_insert_moves_what_is_past_the_end),
		T(test_clone_of_a_hole),
		T(test_truncate_gives_back_what_is_past_the_end),
		T(test_unshare_allocates),
		T(test_append_only),
		T(test_dirty_pages_of_what_became_immutable),
		T(test_appends_at_once),
		T(test_long_operation_waits_for_a_place),
		T(test_end_waits_for_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
