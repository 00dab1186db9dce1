/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Cursors: a key, and an index that holds as long as the tree's path has not moved on.
 */
#include <errno.h>

#include "btree/path.h"

void bt_cursor_set(struct bt_cursor *cur, unsigned index)
{
	struct btree *bt = cur->bt;
	struct body_form form = bt_form(bt, bt->path.levels - 1);

	body_key(bt_path_leaf(bt)->body, &form, index, &cur->key);
	cur->generation = bt->path.generation;
	cur->index = (uint16_t)index;
	cur->is_on_record = true;
}

/* To the first record of the leaf after the path's. */
static int leaf_next(struct bt_cursor *cur)
{
	struct btree *bt = cur->bt;
	struct bt_key high = bt->path.high_key;
	int rc;

	if (!bt->path.has_high_key)
		return -ENOENT;
	rc = bt_path_find(bt, &high);
	if (rc)
		return rc;
	if (bt_key_compare(&bt->path.low_key, &high, node_ops(bt->kind)->key_words) != 0)
		return bt_lies(bt, 0, "keys are not in ascending order");
	bt_cursor_set(cur, 0);
	return 0;
}

static int leaf_prev(struct bt_cursor *cur)
{
	struct btree *bt = cur->bt;
	struct bt_key low = bt->path.low_key;
	int rc = bt_path_find_below(bt, &low);

	if (!rc)
		bt_cursor_set(cur, node_count(bt_path_leaf(bt)->body) - 1);
	return rc;
}

int bt_cursor_seek(struct bt_cursor *cur, const struct bt_key *key, enum bt_seek how)
{
	struct btree *bt = cur->bt;
	struct body_form form;
	const void *leaf;
	unsigned index;
	int rc;

	cur->is_on_record = false;
	rc = bt_path_find(bt, key);
	if (rc)
		return rc;
	form = bt_form(bt, bt->path.levels - 1);
	leaf = bt_path_leaf(bt)->body;
	index = body_search(leaf, &form, key, how == SEEK_GT || how == SEEK_LE);
	if (how == SEEK_GE || how == SEEK_GT) {
		if (index == node_count(leaf))
			return leaf_next(cur);
	} else {
		if (index == 0)
			return leaf_prev(cur);
		index--;
	}
	bt_cursor_set(cur, index);
	return 0;
}

static bool cursor_holds(const struct bt_cursor *cur)
{
	return cur->generation == cur->bt->path.generation && bt_path_is_valid(cur->bt);
}

int bt_record_find(struct btree *bt, const struct bt_key *key, unsigned *index)
{
	struct body_form form;
	const void *leaf;
	unsigned i;
	int rc;

	rc = bt_path_find(bt, key);
	if (rc)
		return rc;
	form = bt_form(bt, bt->path.levels - 1);
	leaf = bt_path_leaf(bt)->body;
	i = body_search(leaf, &form, key, false);
	if (i == node_count(leaf) || body_compare(leaf, &form, i, key) != 0)
		return -ENOENT;
	*index = i;
	return 0;
}

int bt_cursor_sync(struct bt_cursor *cur)
{
	unsigned index;
	int rc;

	if (!cur->is_on_record)
		return -ENOENT;
	if (cursor_holds(cur))
		return 0;
	rc = bt_record_find(cur->bt, &cur->key, &index);
	if (!rc)
		bt_cursor_set(cur, index);
	return rc;
}

int bt_seek(struct btree *bt, struct bt_cursor *cur, const struct bt_key *key, enum bt_dir dir)
{
	*cur = (struct bt_cursor){ .bt = bt };
	return bt_cursor_seek(cur, key, dir == BT_GE ? SEEK_GE : SEEK_LE);
}

int bt_next(struct bt_cursor *cur)
{
	if (!cur->is_on_record)
		return -ENOENT;
	if (!cursor_holds(cur)) {
		struct bt_key key = cur->key;

		return bt_cursor_seek(cur, &key, SEEK_GT);
	}
	if (cur->index + 1u < node_count(bt_path_leaf(cur->bt)->body)) {
		bt_cursor_set(cur, cur->index + 1u);
		return 0;
	}
	cur->is_on_record = false;
	return leaf_next(cur);
}

int bt_prev(struct bt_cursor *cur)
{
	if (!cur->is_on_record)
		return -ENOENT;
	if (!cursor_holds(cur)) {
		struct bt_key key = cur->key;

		return bt_cursor_seek(cur, &key, SEEK_LT);
	}
	if (cur->index > 0) {
		bt_cursor_set(cur, cur->index - 1u);
		return 0;
	}
	cur->is_on_record = false;
	return leaf_prev(cur);
}

int bt_get(struct bt_cursor *cur, const void **rec, size_t *size_bytes)
{
	struct btree *bt = cur->bt;
	struct body_form form;
	const struct bt_step *leaf;
	int rc = bt_cursor_sync(cur);

	if (rc)
		return rc;
	form = bt_form(bt, bt->path.levels - 1);
	leaf = bt_path_leaf(bt);
	*size_bytes = body_entry_size(leaf->body, &form, cur->index);
	if (*size_bytes == 0)
		return bt_lies(bt, leaf->laddr, "size of a record makes no sense");
	*rec = body_entry(leaf->body, &form, cur->index);
	return 0;
}
