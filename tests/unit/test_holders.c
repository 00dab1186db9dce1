/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Before blocks of a file change, those who map them are asked: for each call that can change them, which ranges, and what becomes of it when they refuse or do
 * not answer. What they still have is given to nobody. And what they are granted.
 */
#include <errno.h>
#include <linux/falloc.h>
#include <pthread.h>
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
#include "fs/loss.h"
#include "lib/testlist.h"
#include "unit/fake_holders.h"

#define MIB ((uint64_t)1 << 20)
#define END (1ull << 52)
#define TAIL 100u
#define GROUP_BYTES (16 * MIB)

static struct testfs t;
static struct fake_holders fake;
static uint8_t bytes[4 * MIB];

/*
 * Blocks of file:	0 - 3 its own, 4 5 a hole, 6 7 unwritten, 8 9 shared with other, 10 11 its own, 12 the last: TAIL bytes
 * of other:		0 - 19 its own but for 8 9
 */
static uint64_t file, other;
#define FILE_BLK 13u
#define FILE_BYTES ((FILE_BLK - 1) * (uint64_t)BLOCK_SIZE + TAIL)

static void store(uint64_t ino, unsigned seed, uint64_t off, uint64_t len)
{
	assert_int_equal(fs_write(t.fs, &testfs_root, ino, bytes + seed, len, off, 0), len);
}

static void store_blk(uint64_t ino, unsigned seed, uint64_t lo, uint64_t hi)
{
	store(ino, seed, lo * BLOCK_SIZE, (hi - lo) * BLOCK_SIZE);
}

static int size_set(uint64_t ino, uint64_t size)
{
	struct fs_set set = { .what = FS_SET_SIZE, .size = size };
	struct inode_attr attr;

	return fs_setattr(t.fs, &testfs_root, ino, &set, &attr);
}

static void scene_make(void)
{
	const struct testfs_opts opts = { .format.ag_size_bytes = GROUP_BYTES };

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 31 + i / 251 + i / 65536 + 1);
	testfs_make(&t, &opts);
	file = testfs_node(&t, INODE_ROOT, "file", S_IFREG | 0644);
	other = testfs_node(&t, INODE_ROOT, "other", S_IFREG | 0644);
	store_blk(other, 0, 0, 20);
	store_blk(file, 1, 0, 4);
	store(file, 2, 10 * BLOCK_SIZE, FILE_BYTES - 10 * BLOCK_SIZE);
	assert_int_equal(fs_clone(t.fs, &testfs_root, other, 8 * BLOCK_SIZE, file, 8 * BLOCK_SIZE,
				  2 * BLOCK_SIZE, 0, NULL),
			 2 * BLOCK_SIZE);
	assert_int_equal(fs_fallocate(t.fs, &testfs_root, file, 0, 6 * BLOCK_SIZE, 2 * BLOCK_SIZE), 0);
	fake_holders_set(&fake, t.fs);
	assert_int_equal(fs_hold(t.fs, file), 0);
	assert_int_equal(fs_hold(t.fs, other), 0);
}

static void scene_free(void)
{
	fake_release(&fake, file, 0, END);
	fake_release(&fake, other, 0, END);
	fs_unhold(t.fs, file);
	fs_unhold(t.fs, other);
	fake_holders_end(&fake);
	assert_null(pool_failed(t.pool));
	testfs_check(&t);
	testfs_free(&t);
}

static void grant_all(void)
{
	assert_int_equal(fake_grant(&fake, file, 0, END, true), 0);
	assert_int_equal(fake_grant(&fake, other, 0, END, true), 0);
}

/* ---- every call ---- */

static int done(int64_t result, uint64_t want)
{
	return result < 0 ? (int)result : result == (int64_t)want ? 0 : -EPROTO;
}

static int write_at(uint64_t off, uint64_t len)
{
	return done(fs_write(t.fs, &testfs_root, file, bytes + 7, len, off, 0), len);
}

static int falloc(int mode, uint64_t off, uint64_t len)
{
	return fs_fallocate(t.fs, &testfs_root, file, mode, off, len);
}

static int clone_to(uint64_t src, uint64_t src_off, uint64_t dst, uint64_t dst_off, uint64_t len)
{
	return done(fs_clone(t.fs, &testfs_root, src, src_off, dst, dst_off, len, 0, NULL), len);
}

static int run_write_own(void)
{
	return write_at(0, 4 * BLOCK_SIZE);
}

static int run_write_hole(void)
{
	return write_at(3 * BLOCK_SIZE + 10, BLOCK_SIZE);
}

static int run_write_unwritten(void)
{
	return write_at(6 * BLOCK_SIZE + 10, 10);
}

static int run_write_shared(void)
{
	return write_at(8 * BLOCK_SIZE + 10, 10);
}

static int run_write_all(void)
{
	return write_at(0, FILE_BYTES);
}

static int run_append(void)
{
	return write_at(FILE_BYTES, 3 * BLOCK_SIZE);
}

static int run_shrink(void)
{
	return size_set(file, 9 * BLOCK_SIZE + 50);
}

static int run_shrink_tail(void)
{
	return size_set(file, FILE_BYTES - 10);
}

static int run_grow(void)
{
	return size_set(file, 100 * BLOCK_SIZE);
}

static int run_open_truncate(void)
{
	int rc = fs_opened(t.fs, file, FS_OPEN_WRITE | FS_OPEN_TRUNCATE, &testfs_root);

	if (!rc)
		fs_closed(t.fs, file, FS_OPEN_WRITE | FS_OPEN_TRUNCATE);
	return rc;
}

static int run_punch(void)
{
	return falloc(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, BLOCK_SIZE + 100, 2 * BLOCK_SIZE);
}

static int run_punch_edge(void)
{
	return falloc(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8 * BLOCK_SIZE + 100, 100);
}

static int run_punch_end(void)
{
	return falloc(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 11 * BLOCK_SIZE, BLOCK_SIZE + TAIL);
}

static int run_zero(void)
{
	return falloc(FALLOC_FL_ZERO_RANGE, 100, 10 * BLOCK_SIZE);
}

static int run_collapse(void)
{
	return falloc(FALLOC_FL_COLLAPSE_RANGE, 2 * BLOCK_SIZE, 3 * BLOCK_SIZE);
}

static int run_insert(void)
{
	return falloc(FALLOC_FL_INSERT_RANGE, 2 * BLOCK_SIZE, 3 * BLOCK_SIZE);
}

static int run_unshare(void)
{
	return falloc(FALLOC_FL_UNSHARE_RANGE, 0, FILE_BYTES);
}

static int run_allocate(void)
{
	return falloc(0, 0, 20 * BLOCK_SIZE);
}

static int run_clone(void)
{
	return clone_to(file, 0, other, 2 * BLOCK_SIZE, 4 * BLOCK_SIZE);
}

static int run_clone_onto(void)
{
	return clone_to(other, 12 * BLOCK_SIZE, file, BLOCK_SIZE, 2 * BLOCK_SIZE);
}

static int run_clone_edges(void)
{
	return clone_to(other, 10 * BLOCK_SIZE + 100, file, 100, 3 * BLOCK_SIZE);
}

static int run_clone_copied(void)
{
	return clone_to(other, 100, file, 0, BLOCK_SIZE);
}

static int run_clone_self(void)
{
	return clone_to(file, 0, file, 20 * BLOCK_SIZE, 2 * BLOCK_SIZE);
}

static int run_dedupe(void)
{
	bool same;
	int rc = fs_dedupe(t.fs, other, 8 * BLOCK_SIZE, file, 8 * BLOCK_SIZE, 2 * BLOCK_SIZE, &same);

	return rc ? rc : same ? 0 : -EPROTO;
}

static int run_clone_files(void)
{
	struct fs_clone_item items[] = { { .src = file, .name = "a", .name_len = 1 },
					 { .src = file, .name = "b", .name_len = 1 } };
	unsigned count;

	return fs_clone_files(t.fs, &testfs_root, INODE_ROOT, items, 2, &count);
}

static int poison_add(uint64_t blk)
{
	struct fs_extent e;

	assert_int_equal(fs_map(t.fs, file, blk * BLOCK_SIZE, &e, 1), 1);
	return fs_poison_add(t.fs, e.dev_off + (blk * BLOCK_SIZE - e.file_off));
}

static int run_poison(void)
{
	return poison_add(2);
}

static int run_poison_shared(void)
{
	return poison_add(9);
}

static int run_storable(void)
{
	uint64_t done_blk = 0;
	int rc = fs_make_storable(t.fs, &testfs_root, file, 1, 50, &done_blk);

	return rc ? rc : done_blk == FILE_BLK ? 0 : -EPROTO;
}

enum whose { NOBODY, OF_FILE, OF_OTHER };

static const struct call {
	const char *name;
	int (*run)(void);
	struct {
		enum whose whose;
		uint64_t lo_blk, hi_blk;
		enum fs_change change;
	} asks[4];
} calls[] = {
	{ "write_own", run_write_own, { { 0 } } },
	{ "write_hole", run_write_hole, { { OF_FILE, 4, 5, FS_CHANGE_MOVE } } },
	{ "write_unwritten", run_write_unwritten, { { OF_FILE, 6, 7, FS_CHANGE_MOVE } } },
	{ "write_shared", run_write_shared, { { OF_FILE, 8, 9, FS_CHANGE_MOVE } } },
	{ "write_all", run_write_all, { { OF_FILE, 4, 10, FS_CHANGE_MOVE } } },
	{ "append", run_append, { { 0 } } },
	{ "shrink", run_shrink, { { OF_FILE, 9, END, FS_CHANGE_MOVE } } },
	{ "shrink_tail",
	  run_shrink_tail,
	  { { OF_FILE, (FILE_BYTES - 10) / BLOCK_SIZE, END, FS_CHANGE_MOVE } } },
	{ "grow", run_grow, { { 0 } } },
	{ "open_truncate", run_open_truncate, { { OF_FILE, 0, END, FS_CHANGE_MOVE } } },
	{ "punch", run_punch, { { OF_FILE, 2, 3, FS_CHANGE_MOVE } } },
	{ "punch_edge", run_punch_edge, { { OF_FILE, 8, 9, FS_CHANGE_MOVE } } },
	{ "punch_end", run_punch_end, { { OF_FILE, 11, 13, FS_CHANGE_MOVE } } },
	{ "zero", run_zero, { { OF_FILE, 1, 10, FS_CHANGE_MOVE } } },
	{ "collapse", run_collapse, { { OF_FILE, 2, END, FS_CHANGE_MOVE } } },
	{ "insert", run_insert, { { OF_FILE, 2, END, FS_CHANGE_MOVE } } },
	{ "unshare", run_unshare, { { OF_FILE, 8, 10, FS_CHANGE_MOVE } } },
	{ "allocate", run_allocate, { { 0 } } },
	{ "clone", run_clone, { { OF_FILE, 0, 4, FS_CHANGE_SHARE }, { OF_OTHER, 2, 6, FS_CHANGE_MOVE } } },
	{ "clone_onto",
	  run_clone_onto,
	  { { OF_OTHER, 12, 14, FS_CHANGE_SHARE }, { OF_FILE, 1, 3, FS_CHANGE_MOVE } } },
	{ "clone_edges",
	  run_clone_edges,
	  { { OF_OTHER, 10, 14, FS_CHANGE_SHARE }, { OF_FILE, 0, 4, FS_CHANGE_MOVE } } },
	{ "clone_copied", run_clone_copied, { { 0 } } },
	{ "clone_self", run_clone_self, { { OF_FILE, 0, 2, FS_CHANGE_SHARE } } },
	{ "dedupe", run_dedupe, { { OF_FILE, 8, 10, FS_CHANGE_MOVE } } },
	{ "clone_files", run_clone_files, { { OF_FILE, 0, 13, FS_CHANGE_SHARE } } },
	{ "poison", run_poison, { { OF_FILE, 2, 3, FS_CHANGE_MOVE } } },
	{ "poison_shared",
	  run_poison_shared,
	  { { OF_FILE, 9, 10, FS_CHANGE_MOVE }, { OF_OTHER, 9, 10, FS_CHANGE_MOVE } } },
	{ "storable", run_storable, { { OF_FILE, 4, 10, FS_CHANGE_MOVE } } },
};

static uint64_t whose_ino(enum whose whose)
{
	return whose == OF_FILE ? file : other;
}

static unsigned wanted_asks(const struct call *call)
{
	unsigned n = 0;

	while (n < ARRAY_SIZE(call->asks) && call->asks[n].whose != NOBODY)
		n++;
	return n;
}

static bool ask_is_wanted(const struct call *call, const struct fake_ask *ask)
{
	for (unsigned i = 0; i < wanted_asks(call); i++) {
		if (whose_ino(call->asks[i].whose) == ask->ino && call->asks[i].lo_blk == ask->lo_blk &&
		    call->asks[i].hi_blk == ask->hi_blk && call->asks[i].change == ask->change)
			return true;
	}
	return false;
}

/* What the call does where nobody holds anything. */
static char *list_of(const struct call *call)
{
	char *list;

	scene_make();
	if (call)
		assert_int_equal(call->run(), 0);
	assert_int_equal(fake.begun, 0);
	list = testlist_make(&t);
	scene_free();
	return list;
}

static void lists_equal(const char *want, const struct call *call, const char *how)
{
	char *got = testlist_make(&t);

	if (testlist_diff(want, got, true) != 0)
		fail_msg("%s, %s: something else came of it", call->name, how);
	free(got);
}

/* All is held: it is asked for exactly what changes, and the rest stays as it is. */
static void call_held(const struct call *call)
{
	char *want = list_of(call);
	unsigned asked = 0;

	scene_make();
	grant_all();
	if (call->run() != 0)
		fail_msg("%s: failed", call->name);
	for (unsigned i = 0; i < fake.ask_count; i++) {
		const struct fake_ask *ask = &fake.asks[i];

		if (!ask_is_wanted(call, ask))
			fail_msg("%s: asked for %s %llu to %llu, %d", call->name,
				 ask->ino == file ? "file" : "other", (unsigned long long)ask->lo_blk,
				 (unsigned long long)ask->hi_blk, ask->change);
		asked++;
	}
	if (asked != wanted_asks(call))
		fail_msg("%s: asked %u times", call->name, asked);
	fake_check(&fake);
	lists_equal(want, call, "held");
	free(want);
	scene_free();
}

/* What changes is held by nobody, all else is. */
static void call_beside(const struct call *call)
{
	char *want = list_of(call);

	scene_make();
	grant_all();
	for (unsigned i = 0; i < wanted_asks(call); i++)
		fake_release(&fake, whose_ino(call->asks[i].whose), call->asks[i].lo_blk,
			     call->asks[i].hi_blk);
	if (call->run() != 0 || fake.ask_count > 0)
		fail_msg("%s: beside", call->name);
	fake_check(&fake);
	lists_equal(want, call, "beside");
	free(want);
	scene_free();
}

/* One block of it is held; and held only to be read, where it is to be shared. */
static void call_one(const struct call *call)
{
	unsigned n = wanted_asks(call);

	for (unsigned i = 0; i < n; i++) {
		bool share = call->asks[i].change == FS_CHANGE_SHARE;
		uint64_t blk = call->asks[i].lo_blk;

		scene_make();
		assert_int_equal(fake_grant(&fake, whose_ino(call->asks[i].whose), blk, blk + 1, !share), 0);
		if (call->run() != 0 || (fake.ask_count == 0) != share)
			fail_msg("%s: one block of ask %u", call->name, i);
		fake_check(&fake);
		scene_free();
	}
}

/* They refuse: nothing has happened. */
static void call_refused(const struct call *call)
{
	char *before;
	int rc;

	scene_make();
	grant_all();
	before = testlist_make(&t);
	fake.mood = FAKE_REFUSES;
	rc = call->run();
	if (rc != (wanted_asks(call) > 0 ? -EBUSY : 0))
		fail_msg("%s: %d when refused", call->name, rc);
	if (rc)
		lists_equal(before, call, "refused");
	assert_int_equal(fake.begun, 0);
	fake_check(&fake);
	free(before);
	scene_free();
}

/* Who does not answer is not waited for; only sharing what he may store to cannot go on. */
static void call_mute(const struct call *call)
{
	char *want = list_of(call);
	bool shares = false;
	int rc;

	for (unsigned i = 0; i < wanted_asks(call); i++)
		shares |= call->asks[i].change == FS_CHANGE_SHARE;
	scene_make();
	grant_all();
	fake.mood = FAKE_MUTE;
	rc = call->run();
	if (rc != (shares ? -EBUSY : 0))
		fail_msg("%s: %d when nobody answers", call->name, rc);
	fake_check(&fake);
	if (!rc)
		lists_equal(want, call, "mute");
	free(want);
	scene_free();
}

/* Somebody above says that they are gone, and they are not: an end to it, and nothing changes. */
static void call_deaf(const struct call *call)
{
	char *before;
	int rc;

	scene_make();
	grant_all();
	before = testlist_make(&t);
	fake.mood = FAKE_DEAF;
	rc = call->run();
	if (rc != (wanted_asks(call) > 0 ? -EBUSY : 0))
		fail_msg("%s: %d with the deaf", call->name, rc);
	if (rc)
		lists_equal(before, call, "deaf");
	assert_int_equal(fake.begun, fake.ended);
	fake_check(&fake);
	free(before);
	scene_free();
}

static void calls_run(void (*fn)(const struct call *call))
{
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		fn(&calls[i]);
}

static void test_held(void **state)
{
	(void)state;
	calls_run(call_held);
}

static void test_beside(void **state)
{
	(void)state;
	calls_run(call_beside);
}

static void test_one(void **state)
{
	(void)state;
	calls_run(call_one);
}

static void test_refused(void **state)
{
	(void)state;
	calls_run(call_refused);
}

static void test_mute(void **state)
{
	(void)state;
	calls_run(call_mute);
}

static void test_deaf(void **state)
{
	(void)state;
	calls_run(call_deaf);
}

/* ---- in the last moment ---- */

/* The second half of what may be stored to changes. */
static void store_last(struct fake_holders *h)
{
	for (unsigned i = 0; i < h->count; i++) {
		const struct fake_shadow *s = &h->shadows[i];
		uint8_t *at = (uint8_t *)(uintptr_t)dax_ptr(t.dax, s->dev_blk << BLOCK_SHIFT);

		if (s->flags & FS_PIECE_WRITE)
			memset(at + s->count_blk * BLOCK_SIZE / 2, 0x5a, s->count_blk * BLOCK_SIZE / 2);
	}
}

/* What is stored until a holder lets go is part of what is cloned, and compared before it is shared. */
static void test_last_store(void **state)
{
	static uint8_t a[2 * BLOCK_SIZE], b[2 * BLOCK_SIZE];
	bool same = true;

	(void)state;
	scene_make();
	store_blk(file, 0, 0, 2);
	store_blk(other, 0, 0, 2);
	assert_int_equal(fake_grant(&fake, file, 0, 2, true), 0);
	fake.last_store = store_last;
	assert_int_equal(fs_dedupe(t.fs, file, 0, other, 0, 2 * BLOCK_SIZE, &same), 0);
	assert_false(same);
	assert_int_equal(fake.ask_count, 1);
	assert_int_equal(fs_read(t.fs, other, b, sizeof(b), 0), sizeof(b));
	assert_memory_equal(b, bytes, sizeof(b));
	fake_release(&fake, file, 0, END);
	/* The other way round. */
	store_blk(file, 0, 0, 2);
	assert_int_equal(fake_grant(&fake, other, 0, 2, true), 0);
	assert_int_equal(fs_dedupe(t.fs, file, 0, other, 0, 2 * BLOCK_SIZE, &same), 0);
	assert_false(same);
	/* And a clone. */
	store_blk(file, 0, 0, 2);
	assert_int_equal(fake_grant(&fake, file, 0, 2, true), 0);
	assert_int_equal(clone_to(file, 0, other, 0, 2 * BLOCK_SIZE), 0);
	assert_int_equal(fs_read(t.fs, file, a, sizeof(a), 0), sizeof(a));
	assert_int_equal(fs_read(t.fs, other, b, sizeof(b), 0), sizeof(b));
	assert_memory_equal(a, b, sizeof(a));
	assert_int_equal(a[sizeof(a) - 1], 0x5a);
	scene_free();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_last_store), cmocka_unit_test(test_held),
		cmocka_unit_test(test_beside),     cmocka_unit_test(test_one),
		cmocka_unit_test(test_refused),    cmocka_unit_test(test_mute),
		cmocka_unit_test(test_deaf),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
