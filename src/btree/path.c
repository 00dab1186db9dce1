/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading and editing nodes along the way from the root to a leaf: see path.h.
 */
#include "btree/path.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "util/log.h"

/*
 * Counts changes of trees, so that a path notices what was done through another struct btree. A transaction belongs to one
 * thread, so the counters do too; trees that share a counter only cost each other a descent.
 */
#define CHANGE_COUNTERS 64u
static _Thread_local uint64_t change_counters[CHANGE_COUNTERS];

static uint64_t *changes_of(const struct btree *bt)
{
	uint64_t h = (bt->root_laddr + bt->root_off) * 0x9e3779b97f4a7c15ull;

	return &change_counters[(h >> 32) % CHANGE_COUNTERS];
}

struct body_form bt_form(const struct btree *bt, unsigned depth)
{
	struct body_form form = { .ops = node_ops(bt->kind), .kind = bt->kind, .size_bytes = NODE_BODY_SIZE };

	assert(form.ops);
	if (depth == 0)
		form.size_bytes = bt->root_size_bytes;
	else if (bt->node_limit_bytes)
		form.size_bytes = bt->node_limit_bytes;
	return form;
}

int bt_lies(const struct btree *bt, uint64_t laddr, const char *why)
{
	uint64_t place = laddr ? laddr : bt->root_laddr + bt->root_off;

	if (log_is_first(place))
		log_error("%s tree of %s%" PRIu64 " (root in 0x%" PRIx64 "), %s 0x%" PRIx64 ": %s",
			  node_ops(bt->kind)->name, bt->owner & OWNER_SPECIAL ? "special owner " : "inode ",
			  (uint64_t)(bt->owner & ~OWNER_SPECIAL), bt->root_laddr, laddr ? "node" : "unit",
			  u64_align_down(place, 512), why);
	return -EUCLEAN;
}

int bt_root_get(struct btree *bt, const void **body)
{
	struct body_form form = bt_form(bt, 0);
	const void *unit;
	const char *why;
	int rc;

	assert(bt->root_off % 8 == 0 && bt->root_size_bytes % 8 == 0);
	rc = txn_get(bt->tx, bt->root_laddr, bt->root_magic, &unit);
	if (rc)
		return rc;
	*body = (const uint8_t *)unit + bt->root_off;
	why = body_visit_check(*body, &form);
	return why ? bt_lies(bt, 0, why) : 0;
}

static const char *node_visit_check(const struct btree *bt, const struct m_node *node, unsigned level,
				    const struct bt_key *low, const struct bt_key *high)
{
	struct body_form form = bt_form(bt, 1);
	unsigned count = node_count(node->nd_body);
	const char *why;
	int order;

	if (le64_get(node->nd_hdr.uh_owner) != bt->owner)
		return "node of another owner";
	if (node_level(node->nd_body) != level)
		return "node of another level";
	why = body_visit_check(node->nd_body, &form);
	if (why)
		return why;
	if (count == 0)
		return "empty node";
	order = body_compare(node->nd_body, &form, 0, low);
	if (order < 0 || (level > 0 && order > 0))
		return "first key does not fit the entry above";
	if (high && body_compare(node->nd_body, &form, count - 1, high) >= 0)
		return "last key does not fit the entry above";
	return NULL;
}

int bt_node_get(struct btree *bt, uint64_t laddr, unsigned level, const struct bt_key *low,
		const struct bt_key *high, const void **body, const char **why)
{
	const char *reason = "address of a child makes no sense";
	const void *unit;
	int rc;

	if (laddr == 0 || laddr % BLOCK_SIZE)
		goto out_lies;
	rc = txn_get(bt->tx, laddr, MAGIC_NODE, &unit);
	if (rc) {
		if (why)
			*why = "node cannot be read";
		return rc;
	}
	reason = node_visit_check(bt, unit, level, low, high);
	if (reason)
		goto out_lies;
	*body = ((const struct m_node *)unit)->nd_body;
	return 0;
out_lies:
	if (!why)
		return bt_lies(bt, laddr, reason);
	*why = reason;
	return -EUCLEAN;
}

bool bt_path_is_valid(const struct btree *bt)
{
	return bt->path.levels != 0 && bt->path.changes == *changes_of(bt);
}

void bt_path_drop(struct btree *bt)
{
	bt->path.levels = 0;
	bt->path.generation++;
}

void bt_path_root(struct btree *bt, const void *root)
{
	bt->path.step[0] = (struct bt_step){ .body = root };
	bt->path.changes = *changes_of(bt);
}

void bt_path_changed(struct btree *bt)
{
	bt->path.changes = ++*changes_of(bt);
	bt->path.generation++;
}

void bt_reset(struct btree *bt)
{
	bt_path_changed(bt);
	bt_path_drop(bt);
}

void bt_path_bounds(struct btree *bt, unsigned depth)
{
	struct bt_path *p = &bt->path;

	p->low_key = (struct bt_key){ 0 };
	p->has_high_key = false;
	for (unsigned d = 0; d < depth; d++) {
		struct body_form form = bt_form(bt, d);
		const void *body = p->step[d].body;
		unsigned index = p->step[d].index;

		body_key(body, &form, index, &p->low_key);
		if (index + 1 < node_count(body)) {
			body_key(body, &form, index + 1, &p->high_key);
			p->has_high_key = true;
		}
	}
}

/* Goes down to the leaf for key; below: for the keys right before it. */
static int path_descend(struct btree *bt, const struct bt_key *key, bool below)
{
	struct bt_path *p = &bt->path;
	struct bt_key low = { 0 }, high;
	bool has_high = false;
	const void *body;
	unsigned level;
	int rc;

	bt_path_drop(bt);
	rc = bt_root_get(bt, &body);
	if (rc)
		return rc;
	bt_path_root(bt, body);
	level = node_level(body);
	for (unsigned d = 0; level > 0; d++) {
		struct body_form form = bt_form(bt, d);
		unsigned index = body_search(body, &form, key, !below);
		uint64_t laddr;

		if (index > 0)
			index--;
		p->step[d].index = (uint16_t)index;
		body_key(body, &form, index, &low);
		if (index + 1 < node_count(body)) {
			body_key(body, &form, index + 1, &high);
			has_high = true;
		}
		laddr = inner_child(body, &form, index);
		rc = bt_node_get(bt, laddr, --level, &low, has_high ? &high : NULL, &body, NULL);
		if (rc)
			return rc;
		p->step[d + 1] = (struct bt_step){ .laddr = laddr, .body = body };
	}
	p->levels = node_level(p->step[0].body) + 1u;
	p->low_key = low;
	p->run_count = 0;
	p->has_high_key = has_high;
	if (has_high)
		p->high_key = high;
	return 0;
}

int bt_path_find(struct btree *bt, const struct bt_key *key)
{
	struct bt_path *p = &bt->path;
	unsigned words = node_ops(bt->kind)->key_words;

	if (bt_path_is_valid(bt) && bt_key_compare(key, &p->low_key, words) >= 0 &&
	    (!p->has_high_key || bt_key_compare(key, &p->high_key, words) < 0))
		return 0;
	return path_descend(bt, key, false);
}

int bt_path_find_below(struct btree *bt, const struct bt_key *key)
{
	static const struct bt_key zero;
	int rc;

	if (bt_key_compare(key, &zero, node_ops(bt->kind)->key_words) == 0)
		return -ENOENT;
	rc = path_descend(bt, key, true);
	if (rc)
		return rc;
	/* A root whose first key is not zero would lead here again and again. */
	if (bt_key_compare(&bt->path.low_key, key, node_ops(bt->kind)->key_words) >= 0)
		return bt_lies(bt, 0, "first key of the root is not zero");
	return 0;
}

int bt_step_edit(struct btree *bt, unsigned depth, void **body)
{
	struct bt_step *s = &bt->path.step[depth];
	void *unit;
	int rc;

	if (s->is_edited) {
		*body = (void *)(uintptr_t)s->body; /* came from txn_edit below */
		return 0;
	}
	if (depth == 0)
		rc = txn_edit(bt->tx, bt->root_laddr, bt->root_magic, &unit);
	else
		rc = txn_edit(bt->tx, s->laddr, MAGIC_NODE, &unit);
	if (rc)
		return rc;
	*body = (uint8_t *)unit + (depth ? NODE_BODY_OFF : bt->root_off);
	if (depth == 0 && ((struct m_node_body *)*body)->nb_kind == 0) {
		struct body_form form = bt_form(bt, 0);

		body_init(*body, &form, 0);
	}
	s->body = *body;
	s->is_edited = true;
	return 0;
}

int bt_sibling_get(struct btree *bt, unsigned depth, unsigned index, uint64_t *laddr, const void **body)
{
	struct body_form form = bt_form(bt, depth);
	const void *parent = bt->path.step[depth].body;
	struct bt_key low, high;
	bool has_high = index + 1 < node_count(parent);

	body_key(parent, &form, index, &low);
	if (has_high)
		body_key(parent, &form, index + 1, &high);
	*laddr = inner_child(parent, &form, index);
	if (*laddr == bt->path.step[depth + 1].laddr)
		return bt_lies(bt, *laddr, "one node in two places");
	return bt_node_get(bt, *laddr, node_level(parent) - 1, &low, has_high ? &high : NULL, body, NULL);
}

int bt_path_fix_highs(struct btree *bt, unsigned depth)
{
	for (unsigned d = depth; d > 0; d--) {
		struct body_form below = bt_form(bt, d), form = bt_form(bt, d - 1);
		struct bt_step *above = &bt->path.step[d - 1];
		uint64_t high = body_high(bt->path.step[d].body, &below);
		void *body;
		int rc;

		if (inner_high(above->body, &form, above->index) == high)
			return 0;
		rc = bt_step_edit(bt, d - 1, &body);
		if (rc)
			return rc;
		inner_set_high(body, &form, above->index, high);
	}
	return 0;
}

int bt_root_clear(struct btree *bt)
{
	void *root;
	int rc = bt_step_edit(bt, 0, &root);

	if (rc)
		return rc;
	memset(root, 0, bt->root_size_bytes);
	bt->path.step[0].is_edited = false; /* the next edit sets the kind again */
	return 0;
}

int bt_node_new(struct btree *bt, unsigned level, uint64_t hint_laddr, uint64_t *laddr, void **body)
{
	struct body_form form = bt_form(bt, 1);
	void *unit;
	int rc;

	rc = bt->alloc->alloc(bt->tx, bt->owner, hint_laddr, laddr);
	if (rc)
		return rc;
	rc = txn_new(bt->tx, *laddr, MAGIC_NODE, bt->owner, &unit);
	if (rc)
		return rc;
	*body = ((struct m_node *)unit)->nd_body;
	body_init(*body, &form, level);
	return 0;
}

int bt_node_free(struct btree *bt, uint64_t laddr)
{
	txn_forget(bt->tx, laddr);
	return bt->alloc->free(bt->tx, laddr);
}
