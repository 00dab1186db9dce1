/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Giving back a whole tree in steps, from the right: the leaves of the rightmost node of level 1, then that node, and so
 * on. What is left is a valid tree each time. Leaves are not read, so a damaged one does not keep the others.
 */
#include <errno.h>

#include "btree/path.h"

/* Steps down the right edge to the body of level 1; its depth. */
static int right_edge(struct btree *bt, unsigned *depth)
{
	struct bt_path *p = &bt->path;
	const void *body = p->step[0].body;
	unsigned d = 0;

	for (;;) {
		struct body_form form = bt_form(bt, d);
		uint64_t laddr;
		int rc;

		p->step[d].index = (uint16_t)(node_count(body) - 1);
		if (node_level(body) <= 1)
			break;
		laddr = inner_child(body, &form, p->step[d].index);
		bt_path_bounds(bt, d + 1);
		rc = bt_node_get(bt, laddr, node_level(body) - 1, &p->low_key, NULL, &body, NULL);
		if (rc)
			return rc;
		p->step[++d] = (struct bt_step){ .laddr = laddr, .body = body };
	}
	*depth = d;
	return 0;
}

/* Takes off last children of the body at that depth until max more are gone or it is empty. */
static int children_free(struct btree *bt, unsigned depth, unsigned max, unsigned *freed)
{
	struct body_form form = bt_form(bt, depth);
	void *body;
	int rc;

	rc = bt_step_edit(bt, depth, &body);
	if (rc)
		return rc;
	for (; *freed < max && node_count(body) > 0; (*freed)++) {
		unsigned last = node_count(body) - 1;
		uint64_t laddr = inner_child(body, &form, last);

		if (laddr == 0 || laddr % BLOCK_SIZE)
			return bt_lies(bt, bt->path.step[depth].laddr, "address of a child makes no sense");
		rc = bt_node_free(bt, laddr);
		if (rc)
			return rc;
		body_cut(body, &form, last);
	}
	return 0;
}

/* The body at that depth has lost children: gives it back if none is left, and what becomes empty above it. */
static int edge_trim(struct btree *bt, unsigned depth, unsigned *freed)
{
	for (; depth > 0 && node_count(bt->path.step[depth].body) == 0; depth--) {
		struct bt_step *above = &bt->path.step[depth - 1];
		struct body_form form = bt_form(bt, depth - 1);
		void *body;
		int rc = bt_node_free(bt, bt->path.step[depth].laddr);

		if (!rc)
			rc = bt_step_edit(bt, depth - 1, &body);
		if (rc)
			return rc;
		(*freed)++;
		body_cut(body, &form, node_count(body) - 1);
		above->index = (uint16_t)(node_count(body) ? node_count(body) - 1 : 0);
	}
	return node_ops(bt->kind)->is_range ? bt_path_fix_highs(bt, depth) : 0;
}

int bt_destroy(struct btree *bt, unsigned max_nodes, bool *empty)
{
	unsigned freed = 0;
	const void *root;
	int rc;

	for (;;) {
		unsigned depth;

		bt_path_drop(bt);
		rc = bt_root_get(bt, &root);
		if (rc)
			return rc;
		bt_path_root(bt, root);
		if (node_level(root) == 0 || node_count(root) == 0)
			break;
		if (freed >= max_nodes) {
			*empty = false;
			return 0;
		}
		rc = right_edge(bt, &depth);
		if (rc)
			return rc;
		bt_path_changed(bt);
		rc = children_free(bt, depth, max_nodes, &freed);
		if (!rc)
			rc = edge_trim(bt, depth, &freed);
		if (!rc && node_count(bt->path.step[0].body) == 0)
			rc = bt_root_clear(bt);
		if (rc)
			return rc;
	}
	if (node_count(root)) {
		bt_path_changed(bt);
		rc = bt_root_clear(bt);
		if (rc)
			return rc;
	}
	bt_path_drop(bt);
	*empty = true;
	return 0;
}
