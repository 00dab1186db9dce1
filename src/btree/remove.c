/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Removing records, merging nodes, shrinking the root.
 *
 * A node that is less than half as full as a merged one may be looks at its two siblings under the same parent. A merged
 * node is at most 3/4 full, so that the next inserts do not split it again.
 */
#include <errno.h>
#include <string.h>

#include "btree/path.h"

/* The first entry of an inner body now reaches down to low: so do the inner bodies at its left edge. */
static int left_edge_lower(struct btree *bt, void *body, const struct body_form *root_form,
			   const struct bt_key *low)
{
	struct body_form form = *root_form;

	for (unsigned level = node_level(body);; level--) {
		uint64_t laddr = inner_child(body, &form, 0);
		const void *child;
		struct bt_key key;
		void *unit;
		int rc;

		body_key(body, &form, 0, &key);
		inner_set_key(body, &form, 0, low);
		if (level == 1)
			return 0;
		rc = bt_node_get(bt, laddr, level - 1, &key, NULL, &child, NULL);
		if (!rc)
			rc = txn_edit(bt->tx, laddr, MAGIC_NODE, &unit);
		if (rc)
			return rc;
		form = bt_form(bt, 1);
		body = ((struct m_node *)unit)->nd_body;
	}
}

/* Takes the entry out of the parent at that depth; the first one carries the parent's lower bound. */
static int parent_remove(struct btree *bt, unsigned depth, unsigned index)
{
	struct body_form form = bt_form(bt, depth);
	struct bt_key low;
	void *body;
	int rc = bt_step_edit(bt, depth, &body);

	if (rc)
		return rc;
	body_key(body, &form, index, &low);
	body_remove(body, &form, index);
	if (index == 0 && node_count(body))
		return left_edge_lower(bt, body, &form, &low);
	return 0;
}

/* Gives back the empty node at that depth. */
static int node_drop(struct btree *bt, unsigned depth)
{
	int rc = bt_node_free(bt, bt->path.step[depth].laddr);

	if (!rc)
		rc = parent_remove(bt, depth - 1, bt->path.step[depth - 1].index);
	if (!rc && node_ops(bt->kind)->is_range)
		rc = bt_path_fix_highs(bt, depth - 1);
	return rc;
}

/* Moves the right one of two neighbours into the left one; left_index is the left one's in the parent at depth - 1. */
static int nodes_merge(struct btree *bt, unsigned depth, unsigned left_index, uint64_t left_laddr,
		       const void *right, uint64_t right_laddr)
{
	struct body_form form = bt_form(bt, depth), parent_form = bt_form(bt, depth - 1);
	const void *parent = bt->path.step[depth - 1].body;
	uint64_t high = 0;
	void *unit, *body;
	int rc;

	rc = txn_edit(bt->tx, left_laddr, MAGIC_NODE, &unit);
	if (rc)
		return rc;
	rc = body_append(((struct m_node *)unit)->nd_body, &form, right, &form, 0, node_count(right));
	if (rc)
		return bt_lies(bt, left_laddr, "records make no sense");
	if (form.ops->is_range)
		high = u64_max(inner_high(parent, &parent_form, left_index),
			       inner_high(parent, &parent_form, left_index + 1));
	rc = parent_remove(bt, depth - 1, left_index + 1);
	if (rc)
		return rc;
	if (form.ops->is_range) {
		rc = bt_step_edit(bt, depth - 1, &body);
		if (rc)
			return rc;
		inner_set_high(body, &parent_form, left_index, high);
	}
	return bt_node_free(bt, right_laddr);
}

/* Merges the node at that depth with a sibling if both together are small. */
static int node_merge(struct btree *bt, unsigned depth, bool *is_merged)
{
	const struct bt_step *s = &bt->path.step[depth], *parent = &bt->path.step[depth - 1];
	struct body_form form = bt_form(bt, depth);
	unsigned max_bytes = body_capacity(&form) * 3 / 4;
	const void *sibling;
	uint64_t laddr;
	int used, rc;

	*is_merged = false;
	used = body_used_below(s->body, &form, max_bytes / 2);
	if (used < 0)
		return bt_lies(bt, s->laddr, "records make no sense");
	if (used > (int)max_bytes / 2)
		return 0;
	for (unsigned right = 0; right < 2; right++) {
		int sibling_used;

		if (right ? parent->index + 1u >= node_count(parent->body) : parent->index == 0)
			continue;
		rc = bt_sibling_get(bt, depth - 1, right ? parent->index + 1u : parent->index - 1u, &laddr,
				    &sibling);
		if (rc)
			return rc;
		sibling_used = body_used_below(sibling, &form, max_bytes);
		if (sibling_used < 0)
			return bt_lies(bt, laddr, "records make no sense");
		if (sibling_used + used > (int)max_bytes)
			continue;
		*is_merged = true;
		if (right)
			return nodes_merge(bt, depth, parent->index, s->laddr, sibling, laddr);
		return nodes_merge(bt, depth, parent->index - 1u, laddr, s->body, s->laddr);
	}
	return 0;
}

/*
 * Takes the content of a single child into the root while it fills no more than 3/4 of it: a record more or less does not move
 * it out and in again. An empty root becomes all zero.
 */
static int root_shrink(struct btree *bt, bool *is_reshaped)
{
	struct body_form form = bt_form(bt, 0), child_form = bt_form(bt, 1);
	static const struct bt_key zero;
	const struct bt_step *step = &bt->path.step[0];
	unsigned limit_bytes = body_capacity(&form) * 3 / 4;
	void *root;
	int rc;

	while (node_level(step->body) > 0 && node_count(step->body) == 1) {
		uint64_t laddr = inner_child(step->body, &form, 0);
		const void *child;
		int used;

		rc = bt_node_get(bt, laddr, node_level(step->body) - 1, &zero, NULL, &child, NULL);
		if (rc)
			return rc;
		used = body_used_below(child, &child_form, limit_bytes);
		if (used < 0)
			return bt_lies(bt, laddr, "records make no sense");
		if (used > (int)limit_bytes)
			return 0;
		rc = bt_step_edit(bt, 0, &root);
		if (rc)
			return rc;
		*is_reshaped = true;
		memset(root, 0, bt->root_size_bytes);
		body_init(root, &form, node_level(child));
		rc = body_append(root, &form, child, &child_form, 0, node_count(child));
		if (!rc)
			rc = bt_node_free(bt, laddr);
		if (rc)
			return rc;
	}
	return node_count(step->body) == 0 ? bt_root_clear(bt) : 0;
}

int bt_path_rebalance(struct btree *bt)
{
	bool is_reshaped = false;
	int rc = 0;

	if (bt->path.levels == 0)
		return 0; /* the node has just been split */
	for (unsigned d = bt->path.levels - 1; d > 0; d--) {
		bool is_merged = true;

		if (node_count(bt->path.step[d].body) == 0)
			rc = node_drop(bt, d);
		else
			rc = node_merge(bt, d, &is_merged);
		if (rc)
			return rc;
		if (!is_merged)
			break;
		is_reshaped = true;
	}
	rc = root_shrink(bt, &is_reshaped);
	if (is_reshaped)
		bt_path_drop(bt);
	return rc;
}

int bt_path_remove(struct btree *bt, unsigned index)
{
	unsigned depth = bt->path.levels - 1;
	struct body_form form = bt_form(bt, depth);
	uint64_t high = 0;
	void *leaf;
	int rc;

	rc = bt_step_edit(bt, depth, &leaf);
	if (rc)
		return rc;
	bt_path_changed(bt);
	if (form.ops->is_range)
		high = form.ops->rec_high(body_entry(leaf, &form, index));
	body_remove(leaf, &form, index);
	if (form.ops->is_range && depth > 0 && node_count(leaf)) {
		const struct bt_step *above = &bt->path.step[depth - 1];
		struct body_form above_form = bt_form(bt, depth - 1);

		if (high >= inner_high(above->body, &above_form, above->index)) {
			rc = bt_path_fix_highs(bt, depth);
			if (rc)
				return rc;
		}
	}
	return bt_path_rebalance(bt);
}

int bt_delete(struct btree *bt, const struct bt_key *key)
{
	unsigned index;
	int rc = bt_record_find(bt, key, &index);

	return rc ? rc : bt_path_remove(bt, index);
}

int bt_remove(struct bt_cursor *cur, bool *end)
{
	struct btree *bt = cur->bt;
	struct bt_key key = cur->key;
	int rc;

	rc = bt_cursor_sync(cur);
	if (rc)
		return rc;
	rc = bt_path_remove(bt, cur->index);
	if (rc)
		return rc;
	if (bt_path_is_valid(bt) && cur->index < node_count(bt_path_leaf(bt)->body)) {
		bt_cursor_set(cur, cur->index);
		*end = false;
		return 0;
	}
	rc = bt_cursor_seek(cur, &key, SEEK_GE);
	if (rc && rc != -ENOENT)
		return rc;
	*end = rc == -ENOENT;
	return 0;
}
