/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The tree's promises one by one: fill of nodes, root in and out of its unit, cost of a stab, errors, media that lie. Random
 * histories are in tests/model/test_btree_model.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/fake_txn.h"
#include "lib/tree_records.h"

#define ROOT_OFF 176u
#define RMAP_PER_LEAF 126u

static struct btree tree_new(enum node_kind kind, uint16_t root_size_bytes)
{
	struct btree bt = {
		.tx = fake_txn_new(),
		.kind = kind,
		.root_magic = MAGIC_AG,
		.root_off = ROOT_OFF,
		.root_size_bytes = root_size_bytes,
		.owner = 77,
		.alloc = &fake_alloc,
	};

	bt.root_laddr = fake_unit_add(bt.tx, MAGIC_AG, OWNER_AG);
	return bt;
}

/* What the next transaction sees. */
static void tree_commit(struct btree *bt)
{
	const char *why = fake_txn_commit(bt->tx);

	if (why)
		fail_msg("committed an unsound node: %s", why);
	bt->path = (struct bt_path){ 0 };
}

static void tree_is_sound(struct btree *bt, uint64_t want_records)
{
	const char *why = "";
	uint64_t nodes, records;

	if (bt_verify(bt, &why))
		fail_msg("not sound: %s", why);
	assert_int_equal(bt_count(bt, &nodes, &records), 0);
	assert_int_equal(records, want_records);
	assert_int_equal(nodes, fake_node_count(bt->tx));
}

static void index_insert(struct btree *bt, uint64_t index, struct rng *rng)
{
	union tree_record rec;
	size_t size_bytes = tree_record_make(bt->kind, index, rng, &rec);

	assert_int_equal(bt_insert(bt, &rec, size_bytes), 0);
}

static void index_delete(struct btree *bt, uint64_t index)
{
	struct bt_key key;

	tree_key_make(bt->kind, index, &key);
	assert_int_equal(bt_delete(bt, &key), 0);
}

static void test_empty(void **state)
{
	struct btree bt = tree_new(NODE_EXTENT, 224);
	struct bt_key key = { { 5, 0, 0 } };
	struct bt_cursor cur;
	const void *rec;
	size_t size_bytes;
	bool empty;

	(void)state;
	assert_int_equal(bt_seek(&bt, &cur, &key, BT_GE), -ENOENT);
	assert_int_equal(bt_seek(&bt, &cur, &key, BT_LE), -ENOENT);
	assert_int_equal(bt_get(&cur, &rec, &size_bytes), -ENOENT);
	assert_int_equal(bt_next(&cur), -ENOENT);
	assert_int_equal(bt_delete(&bt, &key), -ENOENT);
	assert_int_equal(bt_destroy(&bt, 5, &empty), 0);
	assert_true(empty);
	tree_is_sound(&bt, 0);
	fake_txn_free(bt.tx);
}

/* 9 records of 24 bytes fit into 224: the tenth takes them out, and few enough of them go back in. */
static void test_root_out_and_in(void **state)
{
	struct btree bt = tree_new(NODE_EXTENT, 224);
	struct rng rng = rng_start("root");
	uint8_t *root;

	(void)state;
	for (uint64_t i = 0; i < 9; i++)
		index_insert(&bt, i, &rng);
	assert_int_equal(fake_node_count(bt.tx), 0);
	index_insert(&bt, 9, &rng);
	assert_int_equal(fake_node_count(bt.tx), 1);
	tree_is_sound(&bt, 10);
	tree_commit(&bt);
	for (uint64_t i = 0; i < 4; i++)
		index_delete(&bt, i);
	assert_int_equal(fake_node_count(bt.tx), 0);
	tree_is_sound(&bt, 6);
	for (uint64_t i = 4; i < 10; i++)
		index_delete(&bt, i);
	tree_is_sound(&bt, 0);
	tree_commit(&bt);
	root = fake_unit_bytes(bt.tx, bt.root_laddr);
	for (unsigned i = 0; i < 224; i++)
		assert_int_equal(root[ROOT_OFF + i], 0);
	fake_txn_free(bt.tx);
}

/* A record that is larger than the root, and one that grows until it is. */
static void test_large_records(void **state)
{
	struct btree bt = tree_new(NODE_ATTR, 128);
	union tree_record rec = { { 0 } };
	struct m_attr *m = (void *)&rec;

	(void)state;
	for (unsigned size = 24; size <= NODE_REC_MAX; size += 8) {
		m->at_type = ATTR_TOMB;
		for (unsigned key = 1; key <= 10; key++) {
			m->at_key = le64_of(key);
			m->at_len_bytes = le16_of((uint16_t)size);
			assert_int_equal(size == 24 ? bt_insert(&bt, m, size) : bt_update(&bt, m, size), 0);
		}
		tree_is_sound(&bt, 10);
	}
	assert_in_range(fake_node_count(bt.tx), 3, 6);
	for (unsigned key = 10; key >= 1; key--) {
		m->at_key = le64_of(key);
		m->at_len_bytes = le16_of(24);
		assert_int_equal(bt_update(&bt, m, 24), 0);
		tree_is_sound(&bt, 10);
	}
	for (unsigned key = 10; key > 3; key--)
		assert_int_equal(bt_delete(&bt, &(struct bt_key){ { key, 0, 0 } }), 0);
	assert_int_equal(fake_node_count(bt.tx), 0);
	tree_is_sound(&bt, 3);
	fake_txn_free(bt.tx);
}

static void test_sorted_inserts_fill(void **state)
{
	struct btree bt = tree_new(NODE_RMAP, 256);
	struct rng rng = rng_start("sorted");
	uint64_t before;

	(void)state;
	for (uint64_t i = 0; i < 20000; i++)
		index_insert(&bt, i < 10000 ? i : i + 20000, &rng);
	tree_is_sound(&bt, 20000);
	assert_true(fake_node_count(bt.tx) <= 20000 / RMAP_PER_LEAF * 103 / 100);
	/* A run into the middle leaves full nodes too, a descending one half full ones. */
	before = fake_node_count(bt.tx);
	for (uint64_t i = 0; i < 10000; i++)
		index_insert(&bt, 10000 + i, &rng);
	assert_true(fake_node_count(bt.tx) - before <= 10000 / RMAP_PER_LEAF * 106 / 100 + 4);
	for (unsigned round = 0; round < 2; round++) { /* in the middle, at the end behind a full leaf */
		before = fake_node_count(bt.tx);
		for (uint64_t i = 0; i < 10000; i++)
			index_insert(&bt, (round ? 59999 : 29999) - i, &rng);
		assert_true(fake_node_count(bt.tx) - before <= 10000 / RMAP_PER_LEAF * 210 / 100);
	}
	tree_is_sound(&bt, 50000);
	tree_commit(&bt);
	fake_txn_free(bt.tx);
}

static void test_random_inserts_and_deletes(void **state)
{
	enum { COUNT = 200000 };
	struct btree bt = tree_new(NODE_RMAP, 88); /* two entries: as high as can be */
	struct rng rng = rng_start("random");
	uint32_t *order = malloc(COUNT * sizeof(*order));

	(void)state;
	for (uint32_t i = 0; i < COUNT; i++) {
		uint64_t j = rng_below(&rng, i + 1);

		order[i] = order[j];
		order[j] = i;
	}
	for (unsigned i = 0; i < COUNT; i++)
		index_insert(&bt, order[i], &rng);
	tree_is_sound(&bt, COUNT);
	assert_true(fake_node_count(bt.tx) < COUNT / RMAP_PER_LEAF * 16 / 10);
	tree_commit(&bt);
	for (unsigned i = 0; i < COUNT; i++) {
		index_delete(&bt, order[i]);
		if (i % 20000 == 0)
			tree_is_sound(&bt, COUNT - 1 - i);
		if (i == COUNT * 9 / 10) /* what is left takes no more than a third of a node each */
			assert_true(fake_node_count(bt.tx) < COUNT / 10 / RMAP_PER_LEAF * 3);
	}
	tree_is_sound(&bt, 0);
	assert_int_equal(fake_node_count(bt.tx), 0);
	tree_commit(&bt);
	free(order);
	fake_txn_free(bt.tx);
}

/* From either end, and from the middle to both: whole nodes of each level go. */
static void test_sorted_deletes(void **state)
{
	enum { COUNT = 60000 };
	struct rng rng = rng_start("sorted deletes");

	(void)state;
	for (unsigned way = 0; way < 4; way++) {
		struct btree bt = tree_new(NODE_RMAP, 88);

		for (uint64_t i = 0; i < COUNT; i++)
			index_insert(&bt, i, &rng);
		for (uint64_t i = 0; i < COUNT; i++) {
			uint64_t ways[4] = { i, COUNT - 1 - i, (i + COUNT / 2) % COUNT,
					     (2 * COUNT - 1 - i - COUNT / 3) % COUNT };

			index_delete(&bt, ways[way]);
			if (i % 1000 == 0)
				tree_is_sound(&bt, COUNT - 1 - i);
		}
		assert_int_equal(fake_node_count(bt.tx), 0);
		fake_txn_free(bt.tx);
	}
}

/* The key moves over the bounds of its leaf, whose own record has gone before. */
static void test_replace_over_the_edge(void **state)
{
	struct btree bt = tree_new(NODE_EXTENT, 224);
	struct rng rng = rng_start("edge");
	struct bt_cursor cur;
	struct m_extent m;
	const void *rec;
	size_t size_bytes;
	bool end;

	(void)state;
	for (uint64_t i = 0; i < 1000; i++)
		index_insert(&bt, i, &rng);
	for (uint64_t i = 100; i < 900; i++) {
		struct bt_key key = { { i * 16, 0, 0 } };
		struct extent e = { i * 16 + 17, 9, 2, 0 };

		assert_int_equal(bt_seek(&bt, &cur, &key, BT_GE), 0);
		assert_int_equal(bt_next(&cur), 0);
		assert_int_equal(bt_remove(&cur, &end), 0);
		assert_int_equal(bt_prev(&cur), 0);
		extent_encode(&m, &e);
		assert_int_equal(bt_replace(&cur, &m, sizeof(m)), 0);
		assert_int_equal(bt_get(&cur, &rec, &size_bytes), 0);
		assert_memory_equal(rec, &m, sizeof(m));
		e.file_blk = i * 16; /* and back */
		extent_encode(&m, &e);
		assert_int_equal(bt_replace(&cur, &m, sizeof(m)), 0);
		index_insert(&bt, i + 1, &rng);
		if (i % 50 == 0)
			tree_is_sound(&bt, 1000);
	}
	fake_txn_free(bt.tx);
}

/* Half of the records overlap nearly everything but lie left of what is asked for. */
static void test_stab_is_cheap(void **state)
{
	enum { COUNT = 100000 };
	struct btree bt = tree_new(NODE_RMAP, 256);
	struct bt_cursor cur;
	uint64_t gets;
	unsigned hits = 0;
	struct m_rmap m;

	(void)state;
	for (uint64_t i = 0; i < COUNT; i++) {
		struct rmap r = { 10 * i, 5, 0, i == 3 || i == 50000 ? 10 * COUNT : 5, 0 };

		rmap_encode(&m, &r);
		assert_int_equal(bt_insert(&bt, &m, sizeof(m)), 0);
	}
	gets = fake_get_count(bt.tx);
	for (int rc = bt_overlap_first(&bt, &cur, 900000, 900009); rc == 0;
	     rc = bt_overlap_next(&cur, 900000, 900009))
		hits++;
	assert_int_equal(hits, 3);
	assert_true(fake_get_count(bt.tx) - gets <= 12);
	assert_int_equal(bt_overlap_first(&bt, &cur, 10 * COUNT + 500010, UINT64_MAX), -ENOENT);
	fake_txn_free(bt.tx);
}

struct visit {
	uint64_t count, stop_at;
	unsigned last_level;
};

static int visit_node(void *arg, uint64_t laddr, unsigned level)
{
	struct visit *v = arg;

	assert_int_not_equal(laddr, 0);
	assert_true(level <= v->last_level);
	v->last_level = level;
	return ++v->count == v->stop_at ? 42 : 0;
}

static void test_walk_and_destroy(void **state)
{
	struct btree bt = tree_new(NODE_DIR, 224);
	struct rng rng = rng_start("walk");
	struct visit v = { .last_level = BT_MAX_LEVEL };
	bool empty = false;
	uint64_t nodes;

	(void)state;
	for (uint64_t i = 0; i < 30000; i++)
		index_insert(&bt, i, &rng);
	nodes = fake_node_count(bt.tx);
	assert_int_equal(bt_walk_nodes(&bt, visit_node, &v), 0);
	assert_int_equal(v.count, nodes);
	assert_int_equal(v.last_level, 0);
	v = (struct visit){ .last_level = BT_MAX_LEVEL, .stop_at = 7 };
	assert_int_equal(bt_walk_nodes(&bt, visit_node, &v), 42);
	assert_int_equal(v.count, 7);
	for (unsigned i = 0; !empty; i++) {
		const char *why = "";

		assert_true(i <= nodes / 10 + 1);
		assert_int_equal(bt_destroy(&bt, 10, &empty), 0);
		if (bt_verify(&bt, &why))
			fail_msg("not sound: %s", why);
		tree_commit(&bt);
	}
	assert_int_equal(fake_node_count(bt.tx), 0);
	tree_is_sound(&bt, 0);
	index_insert(&bt, 1, &rng);
	tree_is_sound(&bt, 1);
	fake_txn_free(bt.tx);
}

static void test_no_space(void **state)
{
	struct btree bt = tree_new(NODE_RMAP, 256);
	struct rng rng = rng_start("no space");
	uint64_t i = 0;
	int rc = 0;

	(void)state;
	for (; i < 5000; i++)
		index_insert(&bt, i, &rng);
	tree_commit(&bt);
	fake_alloc_limit(bt.tx, 0);
	while (rc == 0) {
		union tree_record rec;
		size_t size_bytes = tree_record_make(bt.kind, i++, &rng, &rec);

		rc = bt_insert(&bt, &rec, size_bytes);
	}
	assert_int_equal(rc, -ENOSPC);
	fake_txn_abort(bt.tx);
	bt.path = (struct bt_path){ 0 };
	tree_is_sound(&bt, 5000);
	fake_txn_free(bt.tx);
}

static int stderr_copy;

/* Lies are reported: not here. */
static void stderr_off(void)
{
	int null = open("/dev/null", O_WRONLY);

	stderr_copy = dup(2);
	assert_true(null >= 0 && stderr_copy >= 0 && dup2(null, 2) == 2);
	close(null);
}

static void stderr_on(void)
{
	assert_int_equal(dup2(stderr_copy, 2), 2);
	close(stderr_copy);
}

/* Everything the tree can do, with answers that may be wrong but come. */
static void tree_exercise(struct btree *bt, struct rng *rng)
{
	struct bt_cursor cur;
	const char *why;
	uint64_t nodes, records;
	bool flag;
	int rc;

	rc = bt_verify(bt, &why);
	rc = bt_count(bt, &nodes, &records);
	for (unsigned i = 0; i < 300; i++) {
		union tree_record rec;
		uint64_t index = rng_below(rng, 3000);
		size_t size_bytes = tree_record_make(bt->kind, index, rng, &rec);
		const void *got;
		struct bt_key key;

		node_ops(bt->kind)->rec_key(&rec, &key);
		rc = bt_insert(bt, &rec, size_bytes);
		rc = bt_update(bt, &rec, size_bytes);
		rc = bt_seek(bt, &cur, &key, i % 2 ? BT_GE : BT_LE);
		for (unsigned n = 0; rc == 0 && n < 20; n++) {
			if (bt_get(&cur, &got, &size_bytes) == 0)
				assert_true(size_bytes <= NODE_REC_MAX);
			rc = i % 2 ? bt_next(&cur) : bt_prev(&cur);
		}
		if (i % 3 == 0)
			rc = bt_seek(bt, &cur, &key, BT_GE);
		for (unsigned n = 0; rc == 0 && n < 50; n++)
			rc = bt_remove(&cur, &flag);
		if (!node_ops(bt->kind)->is_range)
			continue;
		rc = bt_overlap_first(bt, &cur, index / 4, index / 4 + 100);
		for (unsigned n = 0; rc == 0 && n < 100; n++)
			rc = bt_overlap_next(&cur, index / 4, index / 4 + 100);
	}
	for (unsigned i = 0; i < 200 && bt_destroy(bt, 10, &flag) == 0 && !flag; i++)
		;
}

static void spoil(struct btree *bt, struct rng *rng)
{
	uint64_t laddr = (1 + rng_below(rng, fake_laddr_max(bt->tx) / BLOCK_SIZE)) * BLOCK_SIZE;
	uint8_t *bytes = fake_unit_bytes(bt->tx, laddr);
	unsigned off = laddr == bt->root_laddr ? ROOT_OFF : NODE_BODY_OFF;
	unsigned size_bytes = laddr == bt->root_laddr ? bt->root_size_bytes : NODE_BODY_SIZE;
	uint8_t *other;

	if (!bytes)
		return;
	switch (rng_below(rng, 4)) {
	case 0: /* the head */
		bytes[off + rng_below(rng, 8)] = (uint8_t)rng_next(rng);
		break;
	case 1: /* slots, first entries */
		bytes[off + 8 + rng_below(rng, 64)] = (uint8_t)rng_next(rng);
		break;
	case 2: /* anything */
		bytes[off + rng_below(rng, size_bytes)] = (uint8_t)rng_next(rng);
		break;
	default: /* another node's content in its place */
		laddr = (1 + rng_below(rng, fake_laddr_max(bt->tx) / BLOCK_SIZE)) * BLOCK_SIZE;
		other = fake_unit_bytes(bt->tx, laddr);
		if (other && laddr != bt->root_laddr && off == NODE_BODY_OFF)
			memcpy(bytes + off, other + off, NODE_BODY_SIZE);
	}
}

static void test_lies(void **state)
{
	static const enum node_kind kinds[] = { NODE_RMAP, NODE_DIR, NODE_ATTR, NODE_EXTENT };
	struct rng rng = rng_start("lies");

	(void)state;
	stderr_off();
	for (unsigned round = 0; round < 200; round++) {
		struct btree bt = tree_new(kinds[round % ARRAY_SIZE(kinds)], 128);

		for (uint64_t i = 0; i < 1500; i++)
			index_insert(&bt, i * 2, &rng);
		tree_commit(&bt);
		fake_expect_lies(bt.tx);
		for (unsigned i = 0; i < 1 + round / 10; i++)
			spoil(&bt, &rng);
		tree_exercise(&bt, &rng);
		fake_txn_free(bt.tx);
	}
	stderr_on();
}

/* Every single lie that the walk down must see. */
static void test_lies_are_seen(void **state)
{
	struct btree bt = tree_new(NODE_EXTENT, 224);
	struct rng rng = rng_start("seen");
	struct bt_key key = { { 0, 0, 0 } };
	struct bt_cursor cur;
	struct m_node_body *root;
	struct m_node *leaf;
	uint64_t laddr;

	(void)state;
	stderr_off();
	for (uint64_t i = 0; i < 300; i++)
		index_insert(&bt, i, &rng);
	tree_commit(&bt);
	fake_expect_lies(bt.tx);
	root = (void *)((uint8_t *)fake_unit_bytes(bt.tx, bt.root_laddr) + ROOT_OFF);
	memcpy(&laddr, root->nb_space + 8, 8);
	leaf = fake_unit_bytes(bt.tx, laddr);
#define SEEN(place, lie)                                                     \
	do {                                                                 \
		uint8_t keep = (place);                                      \
		bt.path = (struct bt_path){ 0 };                             \
		assert_int_equal(bt_seek(&bt, &cur, &key, BT_GE), 0);        \
		(place) = (uint8_t)(lie);                                    \
		bt.path = (struct bt_path){ 0 };                             \
		assert_int_equal(bt_seek(&bt, &cur, &key, BT_GE), -EUCLEAN); \
		(place) = keep;                                              \
	} while (0)
	SEEN(((uint8_t *)leaf)[16], 1);   /* owner */
	SEEN(leaf->nd_body[2], 1);        /* level */
	SEEN(leaf->nd_body[3], NODE_DIR); /* kind */
	SEEN(leaf->nd_body[1], 0xff);     /* count */
	SEEN(root->nb_level, 2);          /* the child's level is not one less */
	SEEN(root->nb_level, BT_MAX_LEVEL);
	SEEN(root->nb_kind, NODE_RMAP);
	SEEN(root->nb_space[16 + 1], 0); /* the second key: records of the first child reach past it */
	SEEN(root->nb_space[8 + 1], 1);  /* the child's address */
	SEEN(root->nb_space[0], 1);      /* records before the first child's lower bound */
#undef SEEN
	stderr_on();
	fake_txn_free(bt.tx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_root_out_and_in),
		cmocka_unit_test(test_large_records),
		cmocka_unit_test(test_sorted_inserts_fill),
		cmocka_unit_test(test_random_inserts_and_deletes),
		cmocka_unit_test(test_sorted_deletes),
		cmocka_unit_test(test_replace_over_the_edge),
		cmocka_unit_test(test_stab_is_cheap),
		cmocka_unit_test(test_walk_and_destroy),
		cmocka_unit_test(test_no_space),
		cmocka_unit_test(test_lies),
		cmocka_unit_test(test_lies_are_seen),
	};

	return cmocka_run_group_tests_name("btree", tests, NULL, NULL);
}
