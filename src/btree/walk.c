/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Walks over a whole tree: count, visit the nodes, check. Depth is bounded by the levels, which go down by one with each step.
 */
#include <errno.h>

#include "btree/path.h"

/* One body on the way: its bounds come from the entries above. */
struct walk_at {
	const void *body;
	uint64_t laddr; /* 0: the root */
	struct bt_key low, high;
	bool has_high;
};

struct walk {
	struct btree *bt;
	unsigned target_level; /* of the nodes to visit */
	int (*fn)(void *arg, uint64_t laddr, unsigned level);
	void *arg;
	uint64_t nodes, records;
	const char *why;
};

static struct body_form form_at(const struct walk *w, const struct walk_at *at)
{
	return bt_form(w->bt, at->laddr ? 1 : 0);
}

/* Fills in all of the child but its body. */
static void child_bounds(const struct walk *w, const struct walk_at *at, unsigned index,
			 struct walk_at *child)
{
	struct body_form form = form_at(w, at);

	*child = (struct walk_at){ .high = at->high, .has_high = at->has_high };
	child->laddr = inner_child(at->body, &form, index);
	body_key(at->body, &form, index, &child->low);
	if (index + 1 < node_count(at->body)) {
		body_key(at->body, &form, index + 1, &child->high);
		child->has_high = true;
	}
}

static int child_get(const struct walk *w, const struct walk_at *at, struct walk_at *child, const char **why)
{
	return bt_node_get(w->bt, child->laddr, node_level(at->body) - 1, &child->low,
			   child->has_high ? &child->high : NULL, &child->body, why);
}

static int count_below(struct walk *w, const struct walk_at *at)
{
	unsigned count = node_count(at->body);

	if (node_level(at->body) == 0) {
		w->records += count;
		return 0;
	}
	for (unsigned i = 0; i < count; i++) {
		struct walk_at child;
		int rc;

		child_bounds(w, at, i, &child);
		rc = child_get(w, at, &child, NULL);
		if (rc)
			return rc;
		w->nodes++;
		rc = count_below(w, &child);
		if (rc)
			return rc;
	}
	return 0;
}

int bt_count(struct btree *bt, uint64_t *nodes, uint64_t *records)
{
	struct walk w = { .bt = bt };
	struct walk_at root = { 0 };
	int rc;

	rc = bt_root_get(bt, &root.body);
	if (!rc)
		rc = count_below(&w, &root);
	if (rc)
		return rc;
	*nodes = w.nodes;
	*records = w.records;
	return 0;
}

static int visit_below(struct walk *w, const struct walk_at *at)
{
	unsigned level = node_level(at->body);

	for (unsigned i = 0; i < node_count(at->body); i++) {
		struct walk_at child;
		int rc;

		child_bounds(w, at, i, &child);
		if (level - 1 == w->target_level) {
			if (child.laddr == 0 || child.laddr % BLOCK_SIZE)
				return bt_lies(w->bt, at->laddr, "address of a child makes no sense");
			rc = w->fn(w->arg, child.laddr, level - 1);
		} else {
			rc = child_get(w, at, &child, NULL);
			if (!rc)
				rc = visit_below(w, &child);
		}
		if (rc)
			return rc;
	}
	return 0;
}

int bt_walk_nodes(struct btree *bt, int (*fn)(void *arg, uint64_t laddr, unsigned level), void *arg)
{
	struct walk w = { .bt = bt, .fn = fn, .arg = arg };
	struct walk_at root = { 0 };
	int rc;

	rc = bt_root_get(bt, &root.body);
	if (rc)
		return rc;
	for (unsigned level = node_level(root.body); level > 0; level--) {
		w.target_level = level - 1;
		rc = visit_below(&w, &root);
		if (rc)
			return rc;
	}
	return 0;
}

static int verify_say(struct walk *w, const char *why)
{
	w->why = why;
	return -EUCLEAN;
}

/* The body by itself and against its bounds. */
static int verify_body(struct walk *w, const struct walk_at *at)
{
	struct body_form form = form_at(w, at);
	unsigned count = node_count(at->body);
	const char *why = node_body_check(at->body, at->laddr ? NODE_BODY_SIZE : form.size_bytes);

	if (why)
		return verify_say(w, why);
	if (count == 0)
		return 0;
	if (node_level(at->body) > 0 && body_compare(at->body, &form, 0, &at->low) != 0)
		return verify_say(w, "node: first key is not the lower bound");
	if (body_compare(at->body, &form, 0, &at->low) < 0)
		return verify_say(w, "node: keys below the lower bound");
	if (at->has_high && body_compare(at->body, &form, count - 1, &at->high) >= 0)
		return verify_say(w, "node: keys reach into the next node");
	return 0;
}

static int verify_below(struct walk *w, const struct walk_at *at)
{
	struct body_form form = form_at(w, at);
	int rc = verify_body(w, at);

	if (rc || node_level(at->body) == 0)
		return rc;
	for (unsigned i = 0; i < node_count(at->body); i++) {
		struct body_form child_form = bt_form(w->bt, 1);
		struct walk_at child;

		child_bounds(w, at, i, &child);
		rc = child_get(w, at, &child, &w->why);
		if (!rc)
			rc = verify_below(w, &child);
		if (rc)
			return rc;
		if (form.ops->is_range &&
		    inner_high(at->body, &form, i) != body_high(child.body, &child_form))
			return verify_say(w, "node: highest end is not right");
	}
	return 0;
}

int bt_verify(struct btree *bt, const char **why)
{
	struct walk w = { .bt = bt, .why = "root cannot be read" };
	struct walk_at root = { 0 };
	int rc;

	rc = bt_root_get(bt, &root.body);
	if (!rc)
		rc = verify_below(&w, &root);
	if (rc)
		*why = w.why;
	return rc;
}
