/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inserting and replacing records, splitting nodes, growing the root.
 *
 * Errors in the middle (no space) leave the images half done; the caller drops the transaction.
 */
#include <errno.h>
#include <string.h>

#include "btree/path.h"

#define RUN_MIN 4 /* inserts side by side that make a run */

/*
 * The root is full: its content moves to a new node and the root leads there.
 *
 *	[a b c]    ==>    [0]
 *	                   |
 *	                [a b c]
 */
static int root_grow(struct btree *bt)
{
	struct bt_path *p = &bt->path;
	struct body_form root_form = bt_form(bt, 0), form = bt_form(bt, 1);
	static const struct bt_key zero;
	uint8_t entry[INNER_ENTRY_MAX] __attribute__((aligned(8)));
	void *root, *body;
	uint64_t laddr;
	unsigned level;
	int rc;

	if (p->levels == BT_MAX_LEVEL)
		return -EFBIG;
	level = node_level(p->step[0].body);
	rc = bt_node_new(bt, level, bt->root_laddr, &laddr, &body);
	if (rc)
		return rc;
	rc = bt_step_edit(bt, 0, &root);
	if (rc)
		return rc;
	rc = body_append(body, &form, root, &root_form, 0, node_count(root));
	if (rc)
		return bt_lies(bt, 0, "records make no sense");
	memset(root, 0, bt->root_size_bytes);
	body_init(root, &root_form, level + 1);
	inner_entry_make(entry, form.ops, &zero, laddr, form.ops->is_range ? body_high(body, &form) : 0);
	rc = body_insert(root, &root_form, 0, entry, inner_entry_size(form.ops));
	if (rc)
		return rc;
	memmove(&p->step[1], &p->step[0], p->levels * sizeof(p->step[0]));
	p->levels++;
	p->step[0].index = 0;
	p->step[1].laddr = laddr;
	p->step[1].body = body;
	return 0;
}

/*
 * Splits the full node at that depth and puts the entry into one of the halves; separator is the entry that the parent then
 * lacks, high the highest end below it.
 */
static int node_split(struct btree *bt, unsigned depth, unsigned index, const void *entry, size_t size_bytes,
		      void *separator, uint64_t *high)
{
	struct bt_step *parent = &bt->path.step[depth - 1];
	struct body_form form = bt_form(bt, depth), parent_form = bt_form(bt, depth - 1);
	void *left, *right, *above;
	struct bt_key key;
	uint64_t laddr;
	unsigned keep, from;
	int rc;

	rc = bt_node_new(bt, node_level(bt->path.step[depth].body), bt->path.step[depth].laddr, &laddr,
			 &right);
	if (rc)
		return rc;
	rc = bt_step_edit(bt, depth, &left);
	if (rc)
		return rc;
	keep = body_split_point(left, &form, index, size_bytes, bt->path.run_count >= RUN_MIN);
	from = keep > index ? keep - 1 : keep;
	rc = body_append(right, &form, left, &form, from, node_count(left));
	if (!rc) {
		body_cut(left, &form, from);
		if (keep > index)
			rc = body_insert(left, &form, index, entry, size_bytes);
		else
			rc = body_insert(right, &form, index - from, entry, size_bytes);
	}
	if (rc)
		return bt_lies(bt, bt->path.step[depth].laddr, "records make no sense");
	body_key(right, &form, 0, &key);
	if (form.ops->is_range)
		*high = body_high(right, &form);
	inner_entry_make(separator, form.ops, &key, laddr, *high);
	if (!form.ops->is_range)
		return 0;
	rc = bt_step_edit(bt, depth - 1, &above);
	if (!rc)
		inner_set_high(above, &parent_form, parent->index, body_high(left, &form));
	return rc;
}

/* All entries above depth reach at least to high. */
static int path_raise_highs(struct btree *bt, unsigned depth, uint64_t high)
{
	for (unsigned d = depth; d > 0; d--) {
		struct body_form form = bt_form(bt, d - 1);
		struct bt_step *above = &bt->path.step[d - 1];
		void *body;
		int rc;

		if (inner_high(above->body, &form, above->index) >= high)
			return 0;
		rc = bt_step_edit(bt, d - 1, &body);
		if (rc)
			return rc;
		inner_set_high(body, &form, above->index, high);
	}
	return 0;
}

/*
 * A record that belongs behind the last one of a full leaf goes to the front of the leaf on the right if there is room: else descending
 * inserts behind a full leaf would make a new one each. The bound between both moves.
 *
 *	[a b c d] [x y]  +e  ==>  [a b c d] [e x y]
 */
static int leaf_spill(struct btree *bt, const void *rec, size_t size_bytes, uint64_t high, bool *is_done)
{
	unsigned depth = bt->path.levels - 1, index = bt->path.step[depth - 1].index + 1u;
	struct body_form form = bt_form(bt, depth), parent_form = bt_form(bt, depth - 1);
	const void *sibling;
	void *unit, *parent;
	struct bt_key key;
	uint64_t laddr;
	int rc;

	*is_done = false;
	if (index >= node_count(bt->path.step[depth - 1].body))
		return 0;
	rc = bt_sibling_get(bt, depth - 1, index, &laddr, &sibling);
	if (rc)
		return rc;
	rc = body_fits(sibling, &form, size_bytes);
	if (rc <= 0)
		return rc < 0 ? bt_lies(bt, laddr, "records make no sense") : 0;
	rc = bt_step_edit(bt, depth - 1, &parent);
	if (!rc)
		rc = txn_edit(bt->tx, laddr, MAGIC_NODE, &unit);
	if (!rc)
		rc = body_insert(((struct m_node *)unit)->nd_body, &form, 0, rec, size_bytes);
	if (rc)
		return rc;
	form.ops->rec_key(rec, &key);
	inner_set_key(parent, &parent_form, index, &key);
	*is_done = true;
	if (!form.ops->is_range)
		return 0;
	inner_set_high(parent, &parent_form, index, u64_max(inner_high(parent, &parent_form, index), high));
	return path_raise_highs(bt, depth - 1, high);
}

int bt_path_insert(struct btree *bt, unsigned depth, unsigned index, const void *entry, size_t size_bytes,
		   uint64_t high)
{
	uint8_t separator[2][INNER_ENTRY_MAX] __attribute__((aligned(8)));
	bool is_reshaped = false;
	struct body_form form;
	uint64_t right_high = 0;
	unsigned turn = 0;
	void *body;
	int rc;

	bt_path_changed(bt);
	for (;;) {
		form = bt_form(bt, depth);
		rc = body_fits(bt->path.step[depth].body, &form, size_bytes);
		if (rc < 0)
			return bt_lies(bt, bt->path.step[depth].laddr, "records make no sense");
		if (rc > 0)
			break;
		if (depth > 0 && depth == bt->path.levels - 1 &&
		    index == node_count(bt->path.step[depth].body)) {
			rc = leaf_spill(bt, entry, size_bytes, high, &is_reshaped);
			if (rc || is_reshaped) {
				bt_path_drop(bt);
				return rc;
			}
		}
		is_reshaped = true;
		if (depth == 0) {
			rc = root_grow(bt);
			if (rc)
				return rc;
			depth = 1;
			continue;
		}
		rc = node_split(bt, depth, index, entry, size_bytes, separator[turn], &right_high);
		if (rc)
			return rc;
		/* The separator is in no body yet: whoever gets it learns its end with it. */
		high = u64_max(high, right_high);
		entry = separator[turn];
		size_bytes = inner_entry_size(form.ops);
		turn = !turn;
		depth--;
		index = bt->path.step[depth].index + 1u;
	}
	rc = bt_step_edit(bt, depth, &body);
	if (!rc)
		rc = body_insert(body, &form, index, entry, size_bytes);
	if (!rc && form.ops->is_range)
		rc = path_raise_highs(bt, depth, high);
	if (is_reshaped)
		bt_path_drop(bt);
	return rc;
}

/* The form that callers must keep to: else we are wrong. */
static void record_assert(const struct btree *bt, const void *rec, size_t size_bytes)
{
	const struct node_ops *ops = node_ops(bt->kind);

	if (ops->rec_size_bytes)
		assert(size_bytes == ops->rec_size_bytes);
	else
		assert(size_bytes <= NODE_REC_MAX && ops->rec_size(rec, size_bytes) == size_bytes);
}

static uint64_t record_high(const struct btree *bt, const void *rec)
{
	const struct node_ops *ops = node_ops(bt->kind);

	return ops->is_range ? ops->rec_high(rec) : 0;
}

static void run_note(struct bt_path *p, unsigned index)
{
	if (p->run_count && index == p->run_index + 1u)
		p->run_count = (uint16_t)(p->run_count < RUN_MIN ? p->run_count + 1 : RUN_MIN);
	else
		p->run_count = 1;
	p->run_index = (uint16_t)index;
}

int bt_insert(struct btree *bt, const void *rec, size_t size_bytes)
{
	struct body_form form;
	struct bt_key key;
	const void *leaf;
	unsigned index;
	int rc;

	record_assert(bt, rec, size_bytes);
	node_ops(bt->kind)->rec_key(rec, &key);
	rc = bt_path_find(bt, &key);
	if (rc)
		return rc;
	form = bt_form(bt, bt->path.levels - 1);
	leaf = bt_path_leaf(bt)->body;
	index = body_search(leaf, &form, &key, false);
	if (index < node_count(leaf) && body_compare(leaf, &form, index, &key) == 0)
		return -EEXIST;
	run_note(&bt->path, index);
	return bt_path_insert(bt, bt->path.levels - 1, index, rec, size_bytes, record_high(bt, rec));
}

/* Replaces record index of the path's leaf; the new key lies between its neighbours and in the leaf's bounds. */
static int leaf_replace(struct btree *bt, unsigned index, const void *rec, size_t size_bytes)
{
	unsigned depth = bt->path.levels - 1;
	struct body_form form = bt_form(bt, depth);
	size_t old_size_bytes = body_entry_size(bt->path.step[depth].body, &form, index);
	uint64_t old_high, high = record_high(bt, rec);
	void *leaf;
	int rc;

	if (old_size_bytes == 0)
		return bt_lies(bt, bt->path.step[depth].laddr, "size of a record makes no sense");
	rc = bt_step_edit(bt, depth, &leaf);
	if (rc)
		return rc;
	old_high = record_high(bt, body_entry(leaf, &form, index));
	if (old_size_bytes == size_bytes) {
		bt_path_changed(bt);
		memcpy((void *)(uintptr_t)body_entry(leaf, &form, index), rec, size_bytes);
		if (high == old_high)
			return 0;
		return high > old_high ? path_raise_highs(bt, depth, high) : bt_path_fix_highs(bt, depth);
	}
	body_remove(leaf, &form, index);
	rc = bt_path_insert(bt, depth, index, rec, size_bytes, high);
	if (!rc && size_bytes < old_size_bytes)
		rc = bt_path_rebalance(bt);
	return rc;
}

int bt_update(struct btree *bt, const void *rec, size_t size_bytes)
{
	struct bt_key key;
	unsigned index;
	int rc;

	record_assert(bt, rec, size_bytes);
	node_ops(bt->kind)->rec_key(rec, &key);
	rc = bt_record_find(bt, &key, &index);
	return rc ? rc : leaf_replace(bt, index, rec, size_bytes);
}

int bt_replace(struct bt_cursor *cur, const void *rec, size_t size_bytes)
{
	struct btree *bt = cur->bt;
	unsigned words = node_ops(bt->kind)->key_words;
	struct body_form form;
	struct bt_key key;
	const void *leaf;
	unsigned index;
	int rc;

	record_assert(bt, rec, size_bytes);
	rc = bt_cursor_sync(cur);
	if (rc)
		return rc;
	node_ops(bt->kind)->rec_key(rec, &key);
	form = bt_form(bt, bt->path.levels - 1);
	leaf = bt_path_leaf(bt)->body;
	if ((cur->index > 0 && body_compare(leaf, &form, cur->index - 1u, &key) >= 0) ||
	    (cur->index + 1u < node_count(leaf) && body_compare(leaf, &form, cur->index + 1u, &key) <= 0))
		return bt_lies(bt, bt_path_leaf(bt)->laddr, "keys are not in ascending order");
	if (bt_key_compare(&key, &bt->path.low_key, words) < 0 ||
	    (bt->path.has_high_key && bt_key_compare(&key, &bt->path.high_key, words) >= 0)) {
		rc = bt_path_remove(bt, cur->index); /* it now belongs into the leaf next to it */
		if (!rc)
			rc = bt_insert(bt, rec, size_bytes);
	} else {
		rc = leaf_replace(bt, cur->index, rec, size_bytes);
	}
	if (rc)
		return rc;
	rc = bt_record_find(bt, &key, &index);
	if (!rc)
		bt_cursor_set(cur, index);
	return rc;
}
