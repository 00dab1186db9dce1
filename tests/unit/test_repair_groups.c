/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Groups made anew: whatever of a group is lost, in both copies, a repair leaves a pool without findings, and every file as it was.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "btree/btree.h"
#include "lib/testrepair.h"
#include "media/node.h"
#include "media/super.h"
#include "space/space.h"
#include "txn/txn.h"

static uint64_t fixed(struct testrepair *e, uint32_t agno, uint32_t unit)
{
	return pool_ag_unit(e->t.pool, agno, unit);
}

static void junk_unit(struct testrepair *e, uint64_t laddr)
{
	testunit_junk(&e->t, laddr, TESTUNIT_BOTH);
}

/* Closed by a process that is gone; then fn does its damage. */
static void scene(uint64_t size_bytes, bool with_xattrs, void (*damage)(struct testrepair *e),
		  unsigned lost_max)
{
	struct testrepair e;

	testrepair_make(&e, size_bytes, with_xattrs);
	fs_close(e.t.fs);
	damage(&e);
	pool_close(e.t.pool, true);
	testrepair_mend(&e, lost_max);
	testrepair_verify(&e);
	testfs_free(&e.t);
}

static void lose_bitmap(struct testrepair *e)
{
	uint32_t chunks = (uint32_t)(pool_super(e->t.pool)->ag_size_blk / CHUNK_BLOCKS);

	junk_unit(e, fixed(e, 0, AG_UNIT_TABLE + ag_table_units(chunks)));
}

static void lose_header(struct testrepair *e)
{
	junk_unit(e, fixed(e, 0, AG_UNIT_HEADER));
}

/* Each third of them. */
static void lose_leaf(struct testrepair *e, enum ag_tree which, size_t at_least)
{
	static uint64_t laddrs[1000];
	size_t n = testrepair_nodes(e, 0, which, true, laddrs);

	assert_true(n >= at_least);
	for (size_t i = 0; i < n; i += 3)
		junk_unit(e, laddrs[i]);
}

static void lose_rmap_leaf(struct testrepair *e)
{
	lose_leaf(e, AG_RMAP, 2);
}

static void lose_refcount_root(struct testrepair *e)
{
	_Alignas(64) struct m_ag m;

	testunit_load(&e->t, fixed(e, 0, AG_UNIT_HEADER), &m, sizeof(m));
	memset(m.ag_roots[AG_REFCOUNT], 0, AG_ROOT_SIZE);
	memset(m.ag_roots[AG_RMAP], 0, AG_ROOT_SIZE);
	memset(m.ag_roots[AG_INODES], 0, AG_ROOT_SIZE);
	m.ag_free_blk = le64_of(1);
	testunit_store(&e->t, fixed(e, 0, AG_UNIT_HEADER), &m, sizeof(m), TESTUNIT_BOTH);
}

static void lose_table(struct testrepair *e)
{
	junk_unit(e, fixed(e, 0, AG_UNIT_TABLE));
}

static void lose_all_headers(struct testrepair *e)
{
	for (uint32_t agno = 0; agno < pool_super(e->t.pool)->ag_count; agno++)
		junk_unit(e, fixed(e, agno, AG_UNIT_HEADER));
}

/* Two files map the same block, and neither knows. */
static uint64_t first_blk(struct testrepair *e, uint64_t ino)
{
	_Alignas(64) struct m_inode m;
	const struct m_node_body *body = (const void *)m.di_data;

	testunit_load(&e->t, ino << INODE_SHIFT, &m, sizeof(m));
	assert_int_equal(node_level(body), 0);
	return le64_get(((const struct m_extent *)(const void *)body->nb_space)->ex_dev_blk);
}

static void map_first(struct testrepair *e, uint64_t ino, uint64_t blk)
{
	_Alignas(64) struct m_node leaf;
	_Alignas(64) struct m_inode m;
	struct m_node_body *body = (void *)m.di_data;

	testunit_load(&e->t, ino << INODE_SHIFT, &m, sizeof(m));
	if (node_level(body) > 0) {
		uint64_t child = le64_get(((const le64 *)(const void *)body->nb_space)[1]);

		testunit_load(&e->t, child, &leaf, sizeof(leaf));
		body = (void *)leaf.nd_body;
		((struct m_extent *)(void *)body->nb_space)->ex_dev_blk = le64_of(blk);
		testunit_store(&e->t, child, &leaf, sizeof(leaf), TESTUNIT_BOTH);
		return;
	}
	((struct m_extent *)(void *)body->nb_space)->ex_dev_blk = le64_of(blk);
	testunit_store(&e->t, ino << INODE_SHIFT, &m, sizeof(m), TESTUNIT_BOTH);
}

static uint64_t blk_of(struct testrepair *e, uint64_t ino)
{
	_Alignas(64) struct m_node leaf;
	_Alignas(64) struct m_inode m;
	const struct m_node_body *body = (const void *)m.di_data;

	testunit_load(&e->t, ino << INODE_SHIFT, &m, sizeof(m));
	if (node_level(body) == 0)
		return first_blk(e, ino);
	testunit_load(&e->t, le64_get(((const le64 *)(const void *)body->nb_space)[1]), &leaf, sizeof(leaf));
	body = (const void *)leaf.nd_body;
	return le64_get(((const struct m_extent *)(const void *)body->nb_space)->ex_dev_blk);
}

/* Its first block has the content of another file's now. */
static void map_double(struct testrepair *e)
{
	map_first(e, e->inos[50], blk_of(e, e->inos[60]));
	e->hashes[50] = 0;
}

/* Slot 0 of the group. */
static void map_metadata(struct testrepair *e)
{
	map_first(e, e->inos[50], CHUNK_BLOCKS + 100);
	e->hashes[50] = 0;
}

/* No unit is free: all are in use by the table, and nothing leads to most of them. */
static void fill_chunk(struct testrepair *e)
{
	_Alignas(64) struct m_chunks m;

	testunit_load(&e->t, fixed(e, 0, AG_UNIT_TABLE), &m, sizeof(m));
	memset(m.ct_chunks[0].ck_used, 0xff, CHUNK_BLOCKS / 8);
	m.ct_chunks[0].ck_used_count = le32_of(CHUNK_BLOCKS);
	testunit_store(&e->t, fixed(e, 0, AG_UNIT_TABLE), &m, sizeof(m), TESTUNIT_BOTH);
	lose_rmap_leaf(e);
}

/* The tree of inodes is empty, the header sound. */
static void lose_clusters(struct testrepair *e)
{
	_Alignas(64) struct m_ag m;

	testunit_load(&e->t, fixed(e, 0, AG_UNIT_HEADER), &m, sizeof(m));
	memset(m.ag_roots[AG_INODES], 0, AG_ROOT_SIZE);
	testunit_store(&e->t, fixed(e, 0, AG_UNIT_HEADER), &m, sizeof(m), TESTUNIT_BOTH);
}

/* As it was before most files had been made. */
static void old_clusters(struct testrepair *e)
{
	struct m_inode_cluster *c;
	_Alignas(64) struct m_ag m;

	testunit_load(&e->t, fixed(e, 0, AG_UNIT_HEADER), &m, sizeof(m));
	c = (void *)((struct m_node_body *)(void *)m.ag_roots[AG_INODES])->nb_space;
	c->ic_free_mask = le64_of(UINT64_MAX << 20);
	((struct m_node_body *)(void *)m.ag_roots[AG_INODES])->nb_count = le16_of(1);
	testunit_store(&e->t, fixed(e, 0, AG_UNIT_HEADER), &m, sizeof(m), TESTUNIT_BOTH);
}

/* ---- forward records ---- */

#define FORWARDS 300u

/* Blocks of the group that would lie in another one now. No call makes them. */
static void forwards_make(struct testrepair *e)
{
	uint64_t far_blk = pool_ag_start_blk(e->t.pool, 1);
	struct txn *tx = txn_begin(e->t.pool, TXN_FREEING);
	struct btree bt;

	assert_int_equal(space_ag_tree(tx, 0, AG_FORWARDS, &bt), 0);
	for (uint64_t i = 0; i < FORWARDS; i++) {
		struct m_forward m = {
			.fw_old_blk = le64_of(6000 + 3 * i),
			.fw_new_blk = le64_of(far_blk + 3000 + 3 * i),
			.fw_count_blk = le32_of(2),
		};

		assert_int_equal(bt_insert(&bt, &m, sizeof(m)), 0);
	}
	assert_int_equal(txn_commit(tx), 0);
}

static size_t forwards_count(struct testrepair *e)
{
	static uint64_t laddrs[1000];
	size_t n = testrepair_nodes(e, 0, AG_FORWARDS, true, laddrs), count = 0;

	for (size_t i = 0; i < n; i++) {
		_Alignas(64) struct m_node node;
		const struct m_node_body *body = (const void *)node.nd_body;

		testunit_load(&e->t, laddrs[i], &node, sizeof(node));
		count += node_count(body);
	}
	return count;
}

static void lose_forward_leaf(struct testrepair *e)
{
	lose_leaf(e, AG_FORWARDS, 2);
}

static void forwards(void (*damage)(struct testrepair *e), unsigned lost_max, size_t least, size_t most)
{
	struct testrepair e;
	size_t count;

	testrepair_make(&e, (uint64_t)256 << 20, false);
	forwards_make(&e);
	fs_close(e.t.fs);
	assert_int_equal(forwards_count(&e), FORWARDS);
	damage(&e);
	pool_close(e.t.pool, true);
	testrepair_mend(&e, lost_max);
	count = forwards_count(&e);
	assert_true(count >= least && count <= most);
	testrepair_verify(&e);
	testfs_free(&e.t);
}

static void test_forwards(void **state)
{
	(void)state;
	forwards(lose_bitmap, 0, FORWARDS, FORWARDS);
	/* Its leaves tell by themselves what they are. */
	forwards(lose_header, 0, FORWARDS, FORWARDS);
	forwards(lose_forward_leaf, 1, FORWARDS / 4, FORWARDS - 1);
}

/* ---- one copy of most metadata ---- */

static void single(void (*damage)(struct testrepair *e), unsigned lost_max)
{
	const struct testfs_opts opts = { .size_bytes = (uint64_t)256 << 20, .format.metadata_single = true };
	struct testrepair e;

	testrepair_make_with(&e, &opts, true);
	fs_close(e.t.fs);
	damage(&e);
	pool_close(e.t.pool, true);
	testrepair_mend(&e, lost_max);
	/* What has one copy has it afterwards too. */
	assert_false(pool_super(e.t.pool)->incompat & FEATURE_INCOMPAT_META_DUP);
	testrepair_verify(&e);
	testfs_free(&e.t);
}

static void test_single(void **state)
{
	(void)state;
	single(lose_header, 0);
	single(lose_table, 0);
	single(lose_bitmap, 0);
	single(lose_refcount_root, 0);
	single(lose_clusters, 0);
	single(map_double, 0);
	single(fill_chunk, 0);
}

static void test_double(void **state)
{
	(void)state;
	scene(0, false, map_double, 0);
}

static void test_metadata_mapped(void **state)
{
	(void)state;
	scene(0, false, map_metadata, 1);
}

static void test_full(void **state)
{
	(void)state;
	scene(0, false, fill_chunk, 0);
}

static void test_clusters(void **state)
{
	(void)state;
	scene(0, false, lose_clusters, 0);
	scene((uint64_t)256 << 20, true, lose_clusters, 0);
	scene(0, false, old_clusters, 0);
}

static void test_bitmap(void **state)
{
	(void)state;
	scene(0, false, lose_bitmap, 0);
}

static void test_header(void **state)
{
	(void)state;
	scene(0, false, lose_header, 0);
}

static void test_rmap_leaf(void **state)
{
	(void)state;
	scene(0, false, lose_rmap_leaf, 0);
}

static void test_roots(void **state)
{
	(void)state;
	scene(0, false, lose_refcount_root, 0);
}

static void test_table(void **state)
{
	(void)state;
	scene(0, false, lose_table, 0);
}

static void test_all_headers(void **state)
{
	(void)state;
	scene((uint64_t)512 << 20, false, lose_all_headers, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bitmap),    cmocka_unit_test(test_header),
		cmocka_unit_test(test_rmap_leaf), cmocka_unit_test(test_roots),
		cmocka_unit_test(test_table),     cmocka_unit_test(test_all_headers),
		cmocka_unit_test(test_double),    cmocka_unit_test(test_metadata_mapped),
		cmocka_unit_test(test_full),      cmocka_unit_test(test_clusters),
		cmocka_unit_test(test_forwards),  cmocka_unit_test(test_single),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
