/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is known of bad memory outlives a repair of groups of which nodes of the rmap are lost, in both copies; and where it cannot, repair says so.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fs/core.h"
#include "fs/owners.h"
#include "fs/poison.h"
#include "lib/testpoison.h"
#include "lib/testrepair.h"
#include "media/node.h"

#define POOL_BYTES ((uint64_t)64 << 20)
#define FREE 12u /* blocks that nobody has */
#define FILES 6u /* and that files have */
#define ALL (FREE + FILES + 1)
#define LEAVES_MAX 1000u
#define NODES_MAX 1200u

/* The pool, as a process that is gone has left it. */
static struct testrepair made;
static uint8_t *image;
static uint64_t bad_blk[ALL], new_blk; /* the last one is being left, for new_blk */
static uint64_t leaves[LEAVES_MAX], nodes[NODES_MAX], counts[LEAVES_MAX];
static size_t leaf_count, node_count_all, counts_count;

/* ---- owners ---- */

static unsigned files_of(struct testfs *t, uint64_t blk, bool *bad, bool *forward)
{
	struct fs_owners_pos pos = { 0 };
	unsigned count, files = 0;
	struct fs_owner o;

	*bad = *forward = false;
	for (;;) {
		assert_int_equal(fs_owners(t->fs, blk * BLOCK_SIZE, BLOCK_SIZE, &pos, &o, 1, &count), 0);
		if (count == 0)
			return files;
		*bad |= o.owner == OWNER_BAD;
		*forward |= o.owner == OWNER_FORWARD;
		files += !(o.owner & OWNER_SPECIAL);
		pos = o.after;
	}
}

static bool is_bad(struct testfs *t, uint64_t blk)
{
	bool bad, forward;

	files_of(t, blk, &bad, &forward);
	return bad;
}

/* ---- the pool ---- */

static uint64_t blk_of(struct testfs *t, uint64_t ino, uint64_t file_blk)
{
	struct fs_extent e;

	assert_int_equal(fs_map(t->fs, ino, file_blk * BLOCK_SIZE, &e, 1), 1);
	return (e.dev_off + (file_blk * BLOCK_SIZE - e.file_off)) / BLOCK_SIZE;
}

/* What its owners leave, one of which has been switched. */
static int forward_leave(struct op *op, void *arg)
{
	struct space_want want = { .count_blk = 1 };
	uint64_t old_blk = *(const uint64_t *)arg, count;
	struct dax *dax = pool_dax(op->fs->pool);
	struct m_forward rec;
	struct btree bt;

	assert_int_equal(space_alloc(op->tx, &want, &new_blk, &count), 0);
	assert_int_equal(dax_move(dax, new_blk * BLOCK_SIZE, old_blk * BLOCK_SIZE, BLOCK_SIZE), 0);
	txn_data_stored(op->tx);
	assert_int_equal(space_own(op->tx, new_blk, 1, OWNER_FORWARD, old_blk), 0);
	assert_int_equal(space_share(op->tx, old_blk, 1, OWNER_BAD, old_blk), 0);
	assert_int_equal(space_ag_tree(op->tx, 0, AG_FORWARDS, &bt), 0);
	rec = (struct m_forward){
		.fw_old_blk = le64_of(old_blk),
		.fw_new_blk = le64_of(new_blk),
		.fw_count_blk = le32_of(1),
	};
	return bt_insert(&bt, &rec, sizeof(rec));
}

/* Among those of files, and behind them. */
static void free_add(struct testrepair *e)
{
	uint64_t end = u64_min(pool_super(e->t.pool)->ag_size_blk, POOL_BYTES / BLOCK_SIZE), blk = 0,
		 seen = 0;
	bool bad, forward;

	for (unsigned i = 0; i < FREE; blk++) {
		struct fs_owners_pos pos = { 0 };
		struct fs_owner o;
		unsigned count;

		assert_true(blk < end);
		assert_int_equal(fs_owners(e->t.fs, blk * BLOCK_SIZE, BLOCK_SIZE, &pos, &o, 1, &count), 0);
		if (count > 0 || seen++ % 29 != 5)
			continue;
		assert_int_equal(fs_poison_add(e->t.fs, blk * BLOCK_SIZE), 0);
		assert_int_equal(files_of(&e->t, blk, &bad, &forward), 0);
		assert_true(bad);
		bad_blk[i++] = blk;
	}
}

static int make(void **state)
{
	static const unsigned which[FILES] = { 2, 40, 151, 250, 5, 299 };
	struct testrepair *e = &made;
	bool bad, forward;

	(void)state;
	testrepair_make(e, POOL_BYTES, false);
	free_add(e);
	pthread_mutex_lock(&e->t.fs->poison_lock);
	for (unsigned i = 0; i < FILES; i++) {
		bad_blk[FREE + i] = blk_of(&e->t, e->inos[which[i]], i % 2 ? 4 : 2);
		assert_int_equal(poison_stay(e->t.fs, bad_blk[FREE + i]), 0);
		assert_true(files_of(&e->t, bad_blk[FREE + i], &bad, &forward) > 0 && bad);
	}
	pthread_mutex_unlock(&e->t.fs->poison_lock);
	bad_blk[ALL - 1] = blk_of(&e->t, e->inos[10], 0);
	assert_int_equal(op_run(e->t.fs, TXN_WRITE, NULL, forward_leave, &bad_blk[ALL - 1]), 0);
	testfs_check(&e->t);
	fs_close(e->t.fs);
	leaf_count = testrepair_nodes(e, 0, AG_RMAP, true, leaves);
	node_count_all = testrepair_nodes(e, 0, AG_RMAP, false, nodes);
	counts_count = testrepair_nodes(e, 0, AG_REFCOUNT, false, counts);
	assert_true(leaf_count > 10 && counts_count > 0);
	pool_close(e->t.pool, true);
	image = malloc(POOL_BYTES);
	assert_non_null(image);
	memcpy(image, dax_ptr(e->t.dax, 0), POOL_BYTES);
	dax_close(e->t.dax);
	return 0;
}

static int drop(void **state)
{
	(void)state;
	free(image);
	return 0;
}

/* ---- damage and repair ---- */

struct run {
	struct testrepair e;
	unsigned acts[REPAIR_ACTS];
	char lost[4096];
};

/* Nobody has it open but for a moment. */
static void run_make(struct run *r)
{
	*r = (struct run){ .e = made };
	r->e.t.fs = NULL;
	r->e.t.pool = NULL;
	assert_int_equal(dax_open_ram(POOL_BYTES, image, NULL, &r->e.t.dax), 0);
}

static void lose(struct run *r, const uint64_t *laddrs, size_t count)
{
	const struct pool_opts opts = { .readonly = true };
	char why[256];

	assert_int_equal(pool_open(r->e.t.dax, &opts, &r->e.t.pool, why, sizeof(why)), 0);
	for (size_t i = 0; i < count; i++)
		testunit_junk(&r->e.t, laddrs[i], TESTUNIT_BOTH);
	pool_close(r->e.t.pool, false);
}

static void lose_fixed(struct run *r, unsigned unit)
{
	const struct pool_opts opts = { .readonly = true };
	char why[256];

	assert_int_equal(pool_open(r->e.t.dax, &opts, &r->e.t.pool, why, sizeof(why)), 0);
	testunit_junk(&r->e.t, pool_ag_unit(r->e.t.pool, 0, unit), TESTUNIT_BOTH);
	pool_close(r->e.t.pool, false);
}

static unsigned bitmap_unit(void)
{
	return AG_UNIT_TABLE + ag_table_units((uint32_t)(POOL_BYTES / CHUNK_SIZE));
}

static void told(void *arg, enum repair_act act, const char *text)
{
	struct run *r = arg;

	r->acts[act]++;
	if (act == REPAIR_LOST && strlen(r->lost) + strlen(text) + 2 < sizeof(r->lost)) {
		strcat(r->lost, text);
		strcat(r->lost, "\n");
	}
}

/* Twice: the second time there is nothing to do. Then it is opened. */
static void mend(struct run *r, struct testpoison *poison)
{
	struct repair_opts opts = { .told = told, .arg = r, .force = true };
	struct dax *dax = r->e.t.dax;
	struct repair_report report;
	char why[256];

	assert_int_equal(repair_pool(dax, &opts, &report, why, sizeof(why)), 0);
	assert_true(report.before.findings > 0);
	assert_int_equal(report.after.findings, 0);
	assert_int_equal(r->acts[REPAIR_LEFT], 0);
	opts.told = NULL;
	assert_int_equal(repair_pool(dax, &opts, &report, why, sizeof(why)), 0);
	assert_int_equal(report.before.findings, 0);
	if (poison)
		testpoison_close(poison);
	testfs_open_image(&r->e.t, dax_ptr(dax, 0), &made.t.opts);
	dax_close(dax);
}

/* They stay bad while files leave them, and whatever is written. */
static void verify(struct run *r, unsigned first, unsigned end)
{
	static uint8_t buf[64 * BLOCK_SIZE];
	uint64_t ino, at = 0;
	ssize_t n;

	for (unsigned i = first; i < end; i++)
		if (!is_bad(&r->e.t, bad_blk[i]))
			fail_msg("block %u is not known as bad any more", i);
	fs_work(r->e.t.fs);
	testrepair_verify(&r->e);
	ino = testfs_node(&r->e.t, INODE_ROOT, "fill", S_IFREG | 0644);
	for (size_t len = sizeof(buf); len >= BLOCK_SIZE; len /= 2)
		while ((n = fs_write(r->e.t.fs, &testfs_root, ino, buf, len, at, 0)) > 0)
			at += (uint64_t)n;
	for (unsigned i = first; i < end; i++) {
		bool bad, forward;

		assert_int_equal(files_of(&r->e.t, bad_blk[i], &bad, &forward), 0);
		assert_true(bad);
	}
	testfs_check(&r->e.t);
	testfs_free(&r->e.t);
}

static void test_leaf(void **state)
{
	static struct run r;
	unsigned kept = 0;

	(void)state;
	for (size_t i = 0; i < leaf_count; i++) {
		run_make(&r);
		lose(&r, &leaves[i], 1);
		mend(&r, NULL);
		assert_string_equal(r.lost, "");
		kept += r.acts[REPAIR_MENDED] > 1;
		verify(&r, 0, ALL);
	}
	assert_true(kept > 2);
}

/* All there is, without a word of loss: the bitmap and the counts know enough. */
static void test_all(void **state)
{
	static struct run r;
	bool bad, forward;

	(void)state;
	run_make(&r);
	lose(&r, nodes, node_count_all);
	mend(&r, NULL);
	assert_string_equal(r.lost, "");
	/* Whoever was on his way has got there, and nothing else is out of use. */
	assert_true(files_of(&r.e.t, new_blk, &bad, &forward) > 0 && !bad && !forward);
	verify(&r, 0, ALL);
}

/* The roots of all trees are lost, and what was in them. */
static void test_header(void **state)
{
	static struct run r;

	(void)state;
	run_make(&r);
	lose_fixed(&r, AG_UNIT_HEADER);
	mend(&r, NULL);
	assert_string_equal(r.lost, "");
	verify(&r, 0, FREE + FILES);
	/* And a leaf of the rmap, which cannot be told from others. */
	for (size_t i = 0; i < leaf_count; i += leaf_count / 3) {
		run_make(&r);
		lose(&r, &leaves[i], 1);
		lose_fixed(&r, AG_UNIT_HEADER);
		mend(&r, NULL);
		verify(&r, 0, FREE + FILES);
	}
}

/* What cannot be read is bad in any case; of the rest it is said that nobody knows. */
static void lose_more(const uint64_t *laddrs, size_t count, unsigned first, unsigned end)
{
	static struct run r;
	struct testpoison *poison;

	for (unsigned readable = 0; readable < 2; readable++) {
		run_make(&r);
		lose(&r, nodes, node_count_all);
		if (laddrs)
			lose(&r, laddrs, count);
		else
			lose_fixed(&r, bitmap_unit());
		poison = testpoison_open(r.e.t.dax);
		if (!poison) {
			dax_close(r.e.t.dax);
			skip();
		}
		for (unsigned i = first; i < end && !readable; i++)
			testpoison_page(poison, bad_blk[i] * BLOCK_SIZE);
		mend(&r, poison);
		assert_non_null(strstr(r.lost, "records of bad memory in blocks"));
		if (readable) {
			testrepair_verify(&r.e);
			testfs_free(&r.e.t);
		} else {
			verify(&r, 0, FREE + FILES);
		}
	}
}

static void test_bitmap_too(void **state)
{
	(void)state;
	lose_more(NULL, 0, 0, FREE);
}

static void test_counts_too(void **state)
{
	(void)state;
	lose_more(counts, counts_count, FREE, FREE + FILES);
}

/* Of the nodes that a repair makes one that has not been there before. */
static uint64_t node_made(void)
{
	static uint64_t now[NODES_MAX];
	static struct run r;
	uint64_t found = 0;
	size_t count;

	run_make(&r);
	lose(&r, nodes, node_count_all);
	mend(&r, NULL);
	count = testrepair_nodes(&r.e, 0, AG_RMAP, false, now);
	for (size_t i = 0; i < count; i++) {
		bool old = false;

		for (size_t k = 0; k < node_count_all; k++)
			old |= nodes[k] == now[i];
		found = old ? found : now[i];
	}
	testfs_free(&r.e.t);
	return found;
}

/* What is made anew goes on to where it can be read, in the same run. */
static void test_made_in_bad(void **state)
{
	uint64_t laddr = node_made(), off;
	struct testpoison *poison;
	static struct run r;

	(void)state;
	assert_int_not_equal(laddr, 0);
	for (unsigned copy = 0; copy < 2; copy++) {
		const struct pool_opts opts = { .readonly = true };
		char why[256];

		run_make(&r);
		lose(&r, nodes, node_count_all);
		assert_int_equal(pool_open(r.e.t.dax, &opts, &r.e.t.pool, why, sizeof(why)), 0);
		assert_int_equal(pool_place(r.e.t.pool, laddr, copy, &off), 0);
		pool_close(r.e.t.pool, false);
		poison = testpoison_open(r.e.t.dax);
		if (!poison) {
			dax_close(r.e.t.dax);
			skip();
		}
		testpoison_page(poison, off);
		mend(&r, poison);
		assert_string_equal(r.lost, "");
		verify(&r, 0, ALL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_leaf),       cmocka_unit_test(test_all),
		cmocka_unit_test(test_header),     cmocka_unit_test(test_bitmap_too),
		cmocka_unit_test(test_counts_too), cmocka_unit_test(test_made_in_bad),
	};

	return cmocka_run_group_tests(tests, make, drop);
}
