/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Walking a B+tree (FORMAT.md 6) by hand, in key order.
 *
 * Bounds: entry 0 of an inner body carries exactly the lower bound of that body, entry i leads to the keys from its own up to that
 * of entry i + 1. No unit is entered twice, and each step goes down one level, so the walk ends on any content.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "repair/priv.h"

/* Keys of a body: low <= key < high. */
struct bounds {
	struct bt_key low, high;
	bool has_high;
};

static void tree_damaged(const struct check_tree *tree)
{
	if (tree->damaged)
		*tree->damaged = true;
}

static void body_lies(const struct check_tree *tree, const char *why)
{
	tree_damaged(tree);
	check_found(tree->ck, CHECK_TREE, "%s of 0x%" PRIx64 ": %s", tree->name, tree->id, why);
}

static bool key_is_inside(const struct bounds *bounds, const struct bt_key *key, unsigned words)
{
	return bt_key_compare(key, &bounds->low, words) >= 0 &&
	       (!bounds->has_high || bt_key_compare(key, &bounds->high, words) < 0);
}

static uint64_t walk_body(const struct check_tree *tree, const struct m_node_body *body, size_t size_bytes,
			  const struct bounds *bounds);

static uint64_t walk_leaf(const struct check_tree *tree, const struct m_node_body *body, size_t size_bytes,
			  const struct bounds *bounds)
{
	const struct node_ops *ops = node_ops(tree->kind);
	uint64_t high = 0;

	for (unsigned i = 0; i < node_count(body); i++) {
		const uint8_t *rec = body->nb_space + (size_t)i * ops->rec_size_bytes;
		size_t rec_size = ops->rec_size_bytes;
		struct bt_key key;

		if (rec_size == 0) {
			size_t off = le16_get(((const le16 *)(const void *)body->nb_space)[i]);

			rec = (const uint8_t *)body + off;
			rec_size = ops->rec_size(rec, size_bytes - off);
		}
		ops->rec_key(rec, &key);
		if (!key_is_inside(bounds, &key, ops->key_words)) {
			body_lies(tree, "a record lies in the wrong leaf");
			continue;
		}
		if (ops->rec_high)
			high = u64_max(high, ops->rec_high(rec));
		tree->fn(tree->arg, rec, rec_size);
	}
	return high;
}

/* A repair that makes the tree anew gives its old nodes back. */
static void ag_node_keep(const struct check_tree *tree, uint64_t laddr)
{
	struct seen_node *row = rows_add(tree->ck, &tree->ck->ag_nodes, sizeof(*row));

	if (row)
		*row = (struct seen_node){ laddr, (uint32_t)tree->id, tree->kind };
}

static uint64_t walk_child(const struct check_tree *tree, uint64_t laddr, unsigned level,
			   const struct bounds *bounds)
{
	struct m_node *node;
	enum check_led led;
	uint64_t high = 0;

	if (tree->owner == OWNER_AG && laddr / CHUNK_SIZE / tree->ck->ag_chunks != tree->id) {
		body_lies(tree, "a node outside of the group");
		return 0;
	}
	node = aligned_alloc(64, sizeof(*node));
	if (!node) {
		tree->ck->error = -ENOMEM;
		return 0;
	}
	led = check_lead(tree->ck, laddr, MAGIC_NODE, tree->owner, tree->name, node);
	if (led != LED_ASTRAY && tree->ck->keep && tree->owner == OWNER_AG)
		ag_node_keep(tree, laddr);
	if (led != LED_THERE) {
		tree_damaged(tree);
		goto out;
	}
	tree->ck->report->nodes++;
	if (node_level(node->nd_body) != level)
		body_lies(tree, "a node is not of the level below its parent");
	else if (((const struct m_node_body *)(const void *)node->nd_body)->nb_kind != tree->kind)
		body_lies(tree, "a node belongs to another kind of tree");
	else
		high = walk_body(tree, (const void *)node->nd_body, NODE_BODY_SIZE, bounds);
out:
	free(node);
	return high;
}

static void entry_load(const struct m_node_body *body, const struct node_ops *ops, unsigned index,
		       struct bt_key *key, const le64 **rest)
{
	const le64 *w = (const le64 *)(const void *)body->nb_space +
			(size_t)index * (ops->key_words + 1u + ops->is_range);

	*key = (struct bt_key){ 0 };
	for (unsigned i = 0; i < ops->key_words; i++)
		key->w[i] = le64_get(w[i]);
	*rest = w + ops->key_words;
}

static uint64_t walk_inner(const struct check_tree *tree, const struct m_node_body *body,
			   const struct bounds *bounds)
{
	const struct node_ops *ops = node_ops(tree->kind);
	unsigned count = node_count(body);
	uint64_t high = 0;

	for (unsigned i = 0; i < count; i++) {
		struct bounds below = *bounds;
		const le64 *rest, *next_rest;
		uint64_t child_high;

		entry_load(body, ops, i, &below.low, &rest);
		if (i + 1 < count) {
			entry_load(body, ops, i + 1, &below.high, &next_rest);
			below.has_high = true;
		}
		if (i == 0 ? bt_key_compare(&below.low, &bounds->low, ops->key_words) != 0 :
			     !key_is_inside(bounds, &below.low, ops->key_words)) {
			body_lies(tree, "the key of an inner entry does not fit its parent");
			continue;
		}
		child_high = walk_child(tree, le64_get(rest[0]), node_level(body) - 1u, &below);
		if (ops->is_range && child_high != le64_get(rest[1]))
			body_lies(tree, "the highest end below an inner entry is wrong");
		high = u64_max(high, child_high);
	}
	return high;
}

/* The highest end below. */
static uint64_t walk_body(const struct check_tree *tree, const struct m_node_body *body, size_t size_bytes,
			  const struct bounds *bounds)
{
	if (node_level(body) == 0)
		return walk_leaf(tree, body, size_bytes, bounds);
	return walk_inner(tree, body, bounds);
}

void check_tree(const struct check_tree *tree, const void *root, size_t root_size_bytes)
{
	const struct m_node_body *body = root;
	const struct bounds all = { 0 };
	const char *why = node_body_check(root, root_size_bytes);

	if (!why && body->nb_kind != 0 && body->nb_kind != tree->kind)
		why = "wrong kind of tree";
	if (why)
		body_lies(tree, why);
	else if (node_count(body) != 0)
		walk_body(tree, body, root_size_bytes, &all);
}
