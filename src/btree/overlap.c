/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which records overlap a range: a walk in key order that leaves out what begins after it and, by the highest ends in
 * inner entries, what ends before it.
 */
#include <errno.h>

#include "btree/path.h"

enum scan { SCAN_HIT, SCAN_END, SCAN_PAST };

/* From step index on: the next entry that may overlap; SCAN_PAST: nothing from there on can. */
static enum scan body_scan(struct bt_step *s, const struct body_form *form, uint64_t lo, uint64_t hi)
{
	unsigned count = node_count(s->body);
	bool is_leaf = node_level(s->body) == 0;

	for (unsigned i = s->index; i < count; i++) {
		const le64 *entry = body_entry(s->body, form, i);
		uint64_t high = is_leaf ? form->ops->rec_high(entry) : inner_high(s->body, form, i);

		if (le64_get(entry[0]) > hi)
			return SCAN_PAST;
		if (high >= lo) {
			s->index = (uint16_t)i;
			return SCAN_HIT;
		}
	}
	return SCAN_END;
}

/* Goes on from the steps down to depth; at the end the path leads to the record found. */
static int overlap_walk(struct bt_cursor *cur, unsigned depth, uint64_t lo, uint64_t hi)
{
	struct btree *bt = cur->bt;
	struct bt_path *p = &bt->path;

	for (;;) {
		struct bt_step *s = &p->step[depth];
		struct body_form form = bt_form(bt, depth);
		unsigned level = node_level(s->body);
		enum scan scan = body_scan(s, &form, lo, hi);
		uint64_t laddr;
		int rc;

		if (scan == SCAN_PAST || (scan == SCAN_END && depth == 0))
			return -ENOENT;
		if (scan == SCAN_END) {
			p->step[--depth].index++;
			continue;
		}
		bt_path_bounds(bt, depth);
		if (level == 0)
			break;
		laddr = inner_child(s->body, &form, s->index);
		bt_path_bounds(bt, depth + 1);
		p->step[depth + 1] = (struct bt_step){ .laddr = laddr };
		rc = bt_node_get(bt, laddr, level - 1, &p->low_key, p->has_high_key ? &p->high_key : NULL,
				 &p->step[depth + 1].body, NULL);
		if (rc)
			return rc;
		depth++;
	}
	p->levels = depth + 1;
	bt_cursor_set(cur, p->step[depth].index);
	return 0;
}

int bt_overlap_first(struct btree *bt, struct bt_cursor *cur, uint64_t lo, uint64_t hi)
{
	const void *root;
	int rc;

	assert(node_ops(bt->kind)->is_range);
	*cur = (struct bt_cursor){ .bt = bt };
	bt_path_drop(bt);
	rc = bt_root_get(bt, &root);
	if (rc)
		return rc;
	bt_path_root(bt, root);
	return overlap_walk(cur, 0, lo, hi);
}

int bt_overlap_next(struct bt_cursor *cur, uint64_t lo, uint64_t hi)
{
	struct btree *bt = cur->bt;
	struct bt_key key = cur->key;
	unsigned depth, index;
	int rc;

	assert(node_ops(bt->kind)->is_range);
	rc = bt_cursor_sync(cur);
	if (rc && (rc != -ENOENT || !cur->is_on_record))
		return rc;
	index = cur->index + 1u;
	if (rc) { /* the record is gone: go on from the one after it */
		rc = bt_cursor_seek(cur, &key, SEEK_GT);
		if (rc)
			return rc;
		index = cur->index;
	}
	cur->is_on_record = false;
	depth = bt->path.levels - 1;
	bt_path_drop(bt);
	bt->path.step[depth].index = (uint16_t)index;
	return overlap_walk(cur, depth, lo, hi);
}
