/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Trees of every kind against a sorted array: random operations, transactions that commit, abort or run out of space,
 * several hands on one tree. UMBRA_SEED replays a run.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/fake_txn.h"
#include "lib/tree_records.h"

#define ROOT_OFF 176u
#define OPS 25000u
#define VERIFY_EVERY 200u

struct model_rec {
	struct bt_key key;
	size_t size_bytes;
	uint8_t *bytes;
};

/* Sorted records. */
struct model {
	struct model_rec *recs;
	unsigned count, room;
};

struct world {
	struct rng rng;
	struct txn *tx;
	enum node_kind kind;
	const struct node_ops *ops;
	uint64_t root_laddr;
	uint16_t root_size_bytes, node_limit_bytes;
	uint64_t indexes; /* keys are made from 0 .. indexes - 1 */
	struct model now, committed;
	struct btree trees[2]; /* two views of one tree */
	unsigned trouble;      /* allocations failed in this transaction */
};

static void model_clear(struct model *m)
{
	for (unsigned i = 0; i < m->count; i++)
		free(m->recs[i].bytes);
	m->count = 0;
}

static void rec_set(struct model_rec *r, const struct node_ops *ops, const void *rec, size_t size_bytes)
{
	ops->rec_key(rec, &r->key);
	r->size_bytes = size_bytes;
	r->bytes = malloc(size_bytes);
	assert_non_null(r->bytes);
	memcpy(r->bytes, rec, size_bytes);
}

static void model_room(struct model *m)
{
	if (m->count < m->room)
		return;
	m->room = m->room ? m->room * 2 : 64;
	m->recs = realloc(m->recs, m->room * sizeof(*m->recs));
	assert_non_null(m->recs);
}

static void model_copy(struct model *dst, const struct model *src, const struct node_ops *ops)
{
	model_clear(dst);
	for (unsigned i = 0; i < src->count; i++) {
		model_room(dst);
		rec_set(&dst->recs[dst->count++], ops, src->recs[i].bytes, src->recs[i].size_bytes);
	}
}

/* First record with key >= key. */
static unsigned model_find(const struct world *w, const struct bt_key *key)
{
	unsigned lo = 0, hi = w->now.count;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (bt_key_compare(&w->now.recs[mid].key, key, w->ops->key_words) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool model_has(const struct world *w, unsigned i, const struct bt_key *key)
{
	return i < w->now.count && bt_key_compare(&w->now.recs[i].key, key, w->ops->key_words) == 0;
}

static void model_insert(struct world *w, unsigned i, const void *rec, size_t size_bytes)
{
	struct model *m = &w->now;

	model_room(m);
	memmove(&m->recs[i + 1], &m->recs[i], (m->count - i) * sizeof(*m->recs));
	m->count++;
	rec_set(&m->recs[i], w->ops, rec, size_bytes);
}

static void model_remove(struct world *w, unsigned i)
{
	struct model *m = &w->now;

	free(m->recs[i].bytes);
	memmove(&m->recs[i], &m->recs[i + 1], (m->count - i - 1) * sizeof(*m->recs));
	m->count--;
}

static void trees_open(struct world *w)
{
	for (unsigned i = 0; i < ARRAY_SIZE(w->trees); i++) {
		w->trees[i] = (struct btree){
			.tx = w->tx,
			.kind = w->kind,
			.root_laddr = w->root_laddr,
			.root_magic = MAGIC_AG,
			.root_off = ROOT_OFF,
			.root_size_bytes = w->root_size_bytes,
			.node_limit_bytes = w->node_limit_bytes,
			.owner = OWNER_AG,
			.alloc = &fake_alloc,
		};
	}
	fake_alloc_limit(w->tx, rng_below(&w->rng, 4) ? -1 : (long)rng_below(&w->rng, 6));
}

static struct btree *tree_any(struct world *w)
{
	return &w->trees[rng_below(&w->rng, 8) == 0];
}

static void tree_verify(struct world *w)
{
	const char *why = "";
	uint64_t nodes, records;

	if (bt_verify(tree_any(w), &why))
		fail_msg("not sound: %s", why);
	assert_int_equal(bt_count(tree_any(w), &nodes, &records), 0);
	assert_int_equal(records, w->now.count);
	assert_int_equal(nodes, fake_node_count(w->tx));
}

static void world_commit(struct world *w)
{
	const char *why;

	tree_verify(w);
	why = fake_txn_commit(w->tx);
	if (why)
		fail_msg("committed an unsound node: %s", why);
	model_copy(&w->committed, &w->now, w->ops);
	trees_open(w);
}

static void world_abort(struct world *w)
{
	fake_txn_abort(w->tx);
	model_copy(&w->now, &w->committed, w->ops);
	trees_open(w);
	tree_verify(w);
}

/* True if the operation met the end of the space: the transaction is gone. */
static bool out_of_space(struct world *w, int rc)
{
	if (rc != -ENOSPC)
		return false;
	w->trouble++;
	world_abort(w);
	return true;
}

static void cursor_is_at(struct world *w, struct bt_cursor *cur, unsigned i)
{
	const void *rec;
	size_t size_bytes;

	assert_true(i < w->now.count);
	assert_int_equal(bt_get(cur, &rec, &size_bytes), 0);
	assert_int_equal(size_bytes, w->now.recs[i].size_bytes);
	assert_memory_equal(rec, w->now.recs[i].bytes, size_bytes);
}

static void op_insert(struct world *w, uint64_t index)
{
	union tree_record rec;
	size_t size_bytes = tree_record_make(w->kind, index, &w->rng, &rec);
	struct bt_key key;
	unsigned i;
	int rc;

	w->ops->rec_key(&rec, &key);
	i = model_find(w, &key);
	rc = bt_insert(tree_any(w), &rec, size_bytes);
	if (out_of_space(w, rc))
		return;
	assert_int_equal(rc, model_has(w, i, &key) ? -EEXIST : 0);
	if (rc == 0)
		model_insert(w, i, &rec, size_bytes);
}

static void op_run(struct world *w)
{
	uint64_t at = rng_below(&w->rng, w->indexes), count = 1 + rng_below(&w->rng, 100);
	bool is_down = rng_below(&w->rng, 2);

	for (uint64_t i = 0; i < count; i++)
		op_insert(w, (is_down ? at + w->indexes - i : at + i) % w->indexes);
}

static void op_update(struct world *w)
{
	union tree_record rec;
	size_t size_bytes = tree_record_make(w->kind, rng_below(&w->rng, w->indexes), &w->rng, &rec);
	struct bt_key key;
	unsigned i;
	int rc;

	w->ops->rec_key(&rec, &key);
	i = model_find(w, &key);
	rc = bt_update(tree_any(w), &rec, size_bytes);
	if (out_of_space(w, rc))
		return;
	assert_int_equal(rc, model_has(w, i, &key) ? 0 : -ENOENT);
	if (rc)
		return;
	model_remove(w, i);
	model_insert(w, i, &rec, size_bytes);
}

static void op_delete(struct world *w)
{
	struct bt_key key;
	unsigned i;
	int rc;

	tree_key_make(w->kind, rng_below(&w->rng, w->indexes), &key);
	i = model_find(w, &key);
	rc = bt_delete(tree_any(w), &key);
	assert_int_equal(rc, model_has(w, i, &key) ? 0 : -ENOENT);
	if (rc == 0)
		model_remove(w, i);
}

/* Changes the tree behind the back of a cursor that stands on *i; false: the transaction is gone. */
static bool change_beside(struct world *w, const struct bt_cursor *cur, bool goes_up, unsigned *i)
{
	unsigned before = w->trouble;
	struct bt_key here = cur->key;

	switch (rng_below(&w->rng, 3)) {
	case 0:
		op_insert(w, rng_below(&w->rng, w->indexes));
		break;
	case 1:
		op_delete(w);
		break;
	default:
		assert_int_equal(bt_delete(tree_any(w), &here), 0);
		model_remove(w, model_find(w, &here));
	}
	if (w->trouble != before)
		return false;
	*i = model_find(w, &here);
	if (!model_has(w, *i, &here) && goes_up)
		(*i)--; /* gone: the next one is where it was */
	return true;
}

/* Seeks, goes some steps, changes the tree through another hand now and then: the cursor finds its way. */
static void op_seek(struct world *w)
{
	enum bt_dir dir = rng_below(&w->rng, 2) ? BT_GE : BT_LE;
	unsigned steps = (unsigned)rng_below(&w->rng, 40);
	struct bt_cursor cur;
	struct bt_key key;
	bool is_up = rng_below(&w->rng, 2);
	unsigned i;
	int rc;

	tree_key_make(w->kind, rng_below(&w->rng, w->indexes), &key);
	rc = bt_seek(tree_any(w), &cur, &key, dir);
	i = model_find(w, &key);
	if (dir == BT_LE && !model_has(w, i, &key))
		i--;
	while (rc == 0 && steps--) {
		cursor_is_at(w, &cur, i);
		if (rng_below(&w->rng, 10) == 0 && !change_beside(w, &cur, is_up, &i))
			return;
		rc = is_up ? bt_next(&cur) : bt_prev(&cur);
		i = is_up ? i + 1 : i - 1;
	}
	if (rc) {
		assert_int_equal(rc, -ENOENT);
		assert_true(i >= w->now.count); /* UINT_MAX before the first */
	}
}

static void op_remove_run(struct world *w)
{
	unsigned count = (unsigned)rng_below(&w->rng, rng_below(&w->rng, 8) ? 30 : 400);
	struct bt_cursor cur;
	struct bt_key key;
	unsigned i;
	bool end = false;

	tree_key_make(w->kind, rng_below(&w->rng, w->indexes), &key);
	i = model_find(w, &key);
	if (bt_seek(tree_any(w), &cur, &key, BT_GE)) {
		assert_int_equal(i, w->now.count);
		return;
	}
	for (; count && !end; count--) {
		cursor_is_at(w, &cur, i);
		if (rng_below(&w->rng, 6) == 0 && i + 1 < w->now.count) {
			i++;
			assert_int_equal(bt_next(&cur), 0);
			continue;
		}
		assert_int_equal(bt_remove(&cur, &end), 0);
		model_remove(w, i);
		assert_int_equal(end, i == w->now.count);
	}
}

/* Replaces under the cursor, with another key where the neighbours leave room. */
static void op_replace(struct world *w)
{
	uint64_t index = rng_below(&w->rng, w->indexes);
	union tree_record rec;
	size_t size_bytes;
	struct bt_cursor cur;
	struct bt_key key, new_key;
	unsigned i;
	int rc;

	tree_key_make(w->kind, index, &key);
	i = model_find(w, &key);
	if (bt_seek(tree_any(w), &cur, &key, BT_GE))
		return;
	cursor_is_at(w, &cur, i);
	/* index lies between the record before and this one, so its key may replace this one's. */
	size_bytes = tree_record_make(w->kind, index, &w->rng, &rec);
	w->ops->rec_key(&rec, &new_key);
	rc = bt_replace(&cur, &rec, size_bytes);
	if (out_of_space(w, rc))
		return;
	assert_int_equal(rc, 0);
	model_remove(w, i);
	model_insert(w, i, &rec, size_bytes);
	cursor_is_at(w, &cur, i);
}

static void op_overlap(struct world *w)
{
	uint64_t lo = rng_below(&w->rng, w->indexes / 4 + 10), hi = lo + rng_below(&w->rng, 30);
	struct bt_cursor cur;
	unsigned i = 0;
	int rc;

	if (!w->ops->is_range)
		return;
	if (rng_below(&w->rng, 20) == 0) {
		lo = 0;
		hi = UINT64_MAX;
	}
	rc = bt_overlap_first(tree_any(w), &cur, lo, hi);
	for (;; i++) {
		while (i < w->now.count &&
		       (w->now.recs[i].key.w[0] > hi || w->ops->rec_high(w->now.recs[i].bytes) < lo))
			i++;
		if (rc)
			break;
		cursor_is_at(w, &cur, i);
		if (rng_below(&w->rng, 20) == 0 && !change_beside(w, &cur, true, &i))
			return;
		rc = bt_overlap_next(&cur, lo, hi);
	}
	assert_int_equal(rc, -ENOENT);
	assert_int_equal(i, w->now.count);
}

static void op_destroy(struct world *w)
{
	bool empty = false;

	for (unsigned round = 0; !empty; round++) {
		unsigned max = (unsigned)rng_below(&w->rng, 6);
		uint64_t before = fake_node_count(w->tx);
		uint64_t nodes, records;
		const char *why = "";

		assert_true(round < 10000);
		assert_int_equal(bt_destroy(tree_any(w), max, &empty), 0);
		assert_true(before - fake_node_count(w->tx) <= max + BT_MAX_LEVEL);
		if (bt_verify(tree_any(w), &why))
			fail_msg("not sound: %s", why);
		assert_int_equal(bt_count(tree_any(w), &nodes, &records), 0);
		assert_true(records <= w->now.count);
		assert_int_equal(nodes, fake_node_count(w->tx));
		while (w->now.count > records)
			model_remove(w, w->now.count - 1);
	}
	assert_int_equal(w->now.count, 0);
}

static void world_step(struct world *w, bool is_growing)
{
	uint64_t dice = rng_below(&w->rng, 1000);

	if (dice < (is_growing ? 300 : 100))
		op_insert(w, rng_below(&w->rng, w->indexes));
	else if (dice < (is_growing ? 400 : 110))
		op_run(w);
	else if (dice < 450)
		op_delete(w);
	else if (dice < (is_growing ? 455 : 520))
		op_remove_run(w);
	else if (dice < 650)
		op_update(w);
	else if (dice < 800)
		op_seek(w);
	else if (dice < 870)
		op_replace(w);
	else if (dice < 950)
		op_overlap(w);
	else if (dice < 985)
		world_commit(w);
	else if (dice < 997)
		world_abort(w);
	else if (is_growing)
		w->indexes = rng_below(&w->rng, 2) ? 300 : 6000;
	else if (rng_below(&w->rng, 4) == 0)
		op_destroy(w);
}

static void run_kind(enum node_kind kind, uint16_t root_size_bytes, uint16_t node_limit_bytes)
{
	struct world w = {
		.kind = kind,
		.root_size_bytes = root_size_bytes,
		.node_limit_bytes = node_limit_bytes,
		.indexes = 6000,
	};
	bool is_growing = true;

	w.ops = node_ops(kind);
	w.rng = rng_start(w.ops->name);
	w.tx = fake_txn_new();
	w.root_laddr = fake_unit_add(w.tx, MAGIC_AG, OWNER_AG);
	trees_open(&w);
	for (unsigned i = 0; i < OPS; i++) {
		world_step(&w, is_growing);
		if (rng_below(&w.rng, 2000) == 0)
			is_growing = !is_growing;
		if (i % VERIFY_EVERY == 0)
			tree_verify(&w);
	}
	world_commit(&w);
	while (w.now.count) {
		unsigned i = (unsigned)rng_below(&w.rng, w.now.count);

		assert_int_equal(bt_delete(&w.trees[0], &w.now.recs[i].key), 0);
		model_remove(&w, i);
	}
	tree_verify(&w);
	assert_int_equal(fake_node_count(w.tx), 0);
	world_commit(&w);
	for (unsigned i = 0; i < root_size_bytes; i++)
		assert_int_equal(((uint8_t *)fake_unit_bytes(w.tx, w.root_laddr))[ROOT_OFF + i], 0);
	fake_txn_free(w.tx);
	model_clear(&w.committed);
	free(w.now.recs);
	free(w.committed.recs);
}

static void test_extent(void **state)
{
	(void)state;
	run_kind(NODE_EXTENT, 224, 0);
}

static void test_dir(void **state)
{
	(void)state;
	run_kind(NODE_DIR, 224, 0);
}

static void test_attr(void **state)
{
	(void)state;
	run_kind(NODE_ATTR, 128, 0);
}

static void test_refcount(void **state)
{
	(void)state;
	run_kind(NODE_REFCOUNT, 256, 0);
}

static void test_rmap(void **state)
{
	(void)state;
	run_kind(NODE_RMAP, 256, 0);
}

/* Few entries in each node: trees of many levels. */
static void test_high_trees(void **state)
{
	(void)state;
	run_kind(NODE_RMAP, 88, 208);
	run_kind(NODE_EXTENT, 56, 104);
	run_kind(NODE_DIR, 128, 1136);
}

static void test_small_kinds(void **state)
{
	(void)state;
	run_kind(NODE_INODES, 256, 0);
	run_kind(NODE_ORPHAN, 256, 0);
	run_kind(NODE_FORWARD, 256, 0);
	run_kind(NODE_LOSS, 256, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_extent),      cmocka_unit_test(test_dir),
		cmocka_unit_test(test_attr),        cmocka_unit_test(test_refcount),
		cmocka_unit_test(test_rmap),        cmocka_unit_test(test_high_trees),
		cmocka_unit_test(test_small_kinds),
	};

	return cmocka_run_group_tests_name("btree_model", tests, NULL, NULL);
}
