/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Ordered sets of disjoint ranges.
 *
 * Invariants:
 *	- slots are in order; slots[0].blk is 0. All that is in leaf i begins at slots[i].blk or above and ends at slots[i + 1].blk or below;
 *	- no leaf is empty, and only a leaf that is alone has less than RANGES_LEAF / 2 entries;
 *	- what has been published does not change, but for the leaf of a slot, by one that fits between the same neighbours. Whatever else
 *	  changes comes with a new root, so that a reader who has loaded a root sees the borders of its leaves as they were.
 */
#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <urcu/urcu-memb.h>

#include "registry/ranges.h"

#define RANGES_LEAF 64u

struct leaf {
	struct rcu_head rcu;
	_Atomic uint32_t count;
	struct range entries[];
};
struct slot {
	uint64_t blk;
	_Atomic(struct leaf *) leaf;
};
struct root {
	struct rcu_head rcu;
	_Atomic uint32_t count;
	struct slot slots[];
};
struct ranges {
	_Atomic(struct root *) root; /* NULL: empty */
	_Atomic uint64_t count, bytes;
};

int ranges_new(struct ranges **out)
{
	struct ranges *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	*out = r;
	return 0;
}

void ranges_free(struct ranges *r)
{
	struct root *root = r ? atomic_load(&r->root) : NULL;

	for (uint32_t i = 0; root && i < root->count; i++)
		free(root->slots[i].leaf);
	free(root);
	free(r);
}

uint64_t ranges_count(const struct ranges *r)
{
	return atomic_load_explicit(&r->count, memory_order_acquire);
}

/* What the allocator takes for it. */
static size_t taken_bytes(size_t size_bytes)
{
	return u64_align_up(size_bytes + sizeof(size_t), 2 * sizeof(size_t));
}

static size_t leaf_bytes(uint64_t count)
{
	return sizeof(struct leaf) + count * sizeof(struct range);
}

static size_t root_bytes(uint64_t count)
{
	return sizeof(struct root) + count * sizeof(struct slot);
}

uint64_t ranges_bytes(const struct ranges *r)
{
	return taken_bytes(sizeof(*r)) + atomic_load_explicit(&r->bytes, memory_order_relaxed);
}

static void leaf_free(struct rcu_head *head)
{
	struct leaf *leaf = container_of(head, struct leaf, rcu);

	(void)atomic_load(&leaf->count); /* in order after who gave it up */
	free(leaf);
}

static void root_free(struct rcu_head *head)
{
	struct root *root = container_of(head, struct root, rcu);

	(void)atomic_load(&root->count);
	free(root);
}

static void leaf_retire(struct ranges *r, struct leaf *leaf)
{
	atomic_fetch_sub(&r->bytes, taken_bytes(leaf_bytes(leaf->count)));
	atomic_store(&leaf->count, leaf->count);
	urcu_memb_call_rcu(&leaf->rcu, leaf_free);
}

static void root_retire(struct ranges *r, struct root *root)
{
	atomic_fetch_sub(&r->bytes, taken_bytes(root_bytes(root->count)));
	atomic_store(&root->count, root->count);
	urcu_memb_call_rcu(&root->rcu, root_free);
}

/* ---- lookup ---- */

READS_UNDER_RCU static uint32_t slot_of(const struct root *root, uint64_t blk)
{
	uint32_t low = 0, high = atomic_load_explicit(&root->count, memory_order_relaxed);

	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;

		if (root->slots[middle].blk <= blk)
			low = middle;
		else
			high = middle;
	}
	return low;
}

/* The first entry of the leaf that ends behind blk, or count. */
READS_UNDER_RCU static uint32_t entry_of(const struct leaf *leaf, uint64_t blk)
{
	uint32_t low = 0, high = atomic_load_explicit(&leaf->count, memory_order_relaxed);

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (leaf->entries[middle].blk + leaf->entries[middle].count_blk <= blk)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

READS_UNDER_RCU bool ranges_find(const struct ranges *r, uint64_t blk, struct range *out)
{
	const struct root *root = atomic_load_explicit(&r->root, memory_order_acquire);
	const struct leaf *leaf;
	uint32_t slot, entry;

	if (!root)
		return false;
	slot = slot_of(root, blk);
	leaf = atomic_load_explicit(&root->slots[slot].leaf, memory_order_acquire);
	entry = entry_of(leaf, blk);
	if (entry == atomic_load_explicit(&leaf->count, memory_order_relaxed)) {
		if (slot + 1 == atomic_load_explicit(&root->count, memory_order_relaxed))
			return false;
		leaf = atomic_load_explicit(&root->slots[slot + 1].leaf, memory_order_acquire);
		entry = 0;
	}
	*out = leaf->entries[entry];
	return true;
}

/* ---- change ---- */

/* Leaves [from, to) of root give way to these entries, which are in pieces. */
struct edit {
	struct root *root; /* NULL: none yet */
	uint32_t leaves, from, to;
	struct {
		const struct range *at;
		uint32_t count;
	} spans[5];
	unsigned span_count;
	uint64_t total;
	struct leaf **fresh;
	uint32_t fresh_count;
};

static void edit_span(struct edit *e, const struct range *at, uint32_t count)
{
	if (count == 0)
		return;
	e->spans[e->span_count].at = at;
	e->spans[e->span_count++].count = count;
	e->total += count;
}

/* What stays of the leaves around [lo, hi), with what is new in between. */
static void edit_plan(struct edit *e, uint64_t lo, uint64_t hi, const struct range *entries, uint32_t count)
{
	const struct leaf *first, *last, *before = NULL, *after = NULL;
	uint32_t keep, skip;

	if (!e->root) {
		edit_span(e, entries, count);
		return;
	}
	e->leaves = e->root->count;
	e->from = slot_of(e->root, lo);
	e->to = e->from + 1;
	while (e->to < e->leaves && e->root->slots[e->to].blk < hi)
		e->to++;
	first = e->root->slots[e->from].leaf;
	last = e->root->slots[e->to - 1].leaf;
	keep = entry_of(first, lo);
	skip = entry_of(last, hi - 1);
	if (skip < last->count && last->entries[skip].blk < hi) {
		assert(last->entries[skip].blk + last->entries[skip].count_blk == hi);
		skip++;
	}
	assert(keep == first->count || first->entries[keep].blk >= lo);
	assert(first != last || skip >= keep);
	if ((uint64_t)keep + count + (last->count - skip) < RANGES_LEAF / 2) {
		if (e->to < e->leaves)
			after = e->root->slots[e->to++].leaf;
		else if (e->from > 0)
			before = e->root->slots[--e->from].leaf;
	}
	if (before)
		edit_span(e, before->entries, before->count);
	edit_span(e, first->entries, keep);
	edit_span(e, entries, count);
	edit_span(e, last->entries + skip, last->count - skip);
	if (after)
		edit_span(e, after->entries, after->count);
}

/* Copies the next count of the edit's entries. */
static void edit_copy(struct edit *e, unsigned *span, uint32_t *done, struct range *to, uint32_t count)
{
	while (count > 0) {
		uint32_t part = (uint32_t)u64_min(count, e->spans[*span].count - *done);

		memcpy(to, e->spans[*span].at + *done, part * sizeof(*to));
		to += part;
		count -= part;
		*done += part;
		if (*done == e->spans[*span].count) {
			(*span)++;
			*done = 0;
		}
	}
}

static int edit_leaves(struct edit *e)
{
	uint32_t count = (uint32_t)u64_div_up(e->total, RANGES_LEAF), done = 0;
	unsigned span = 0;
	uint64_t given = 0;

	if (count == 0)
		return 0;
	e->fresh = calloc(count, sizeof(*e->fresh));
	if (!e->fresh)
		return -ENOMEM;
	for (; e->fresh_count < count; e->fresh_count++) {
		uint32_t size = (uint32_t)((e->total - given) / (count - e->fresh_count));
		struct leaf *leaf = malloc(leaf_bytes(size));

		if (!leaf)
			return -ENOMEM;
		atomic_init(&leaf->count, size);
		edit_copy(e, &span, &done, leaf->entries, size);
		e->fresh[e->fresh_count] = leaf;
		given += size;
	}
	return 0;
}

/* One leaf for one, between the same borders. */
static bool edit_fits(const struct edit *e)
{
	const struct range *last;

	if (e->fresh_count != 1 || e->to - e->from != 1)
		return false;
	last = &e->fresh[0]->entries[e->fresh[0]->count - 1];
	return e->fresh[0]->entries[0].blk >= e->root->slots[e->from].blk &&
	       (e->to == e->leaves || last->blk + last->count_blk <= e->root->slots[e->to].blk);
}

static int edit_root(struct edit *e, struct root **out)
{
	uint32_t count = e->leaves - (e->to - e->from) + e->fresh_count;
	struct root *root;

	*out = NULL;
	if (count == 0)
		return 0;
	root = malloc(root_bytes(count));
	if (!root)
		return -ENOMEM;
	atomic_init(&root->count, count);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t old = i < e->from ? i : i - e->fresh_count + (e->to - e->from);
		bool fresh = i >= e->from && i < e->from + e->fresh_count;
		struct leaf *leaf = fresh ? e->fresh[i - e->from] : e->root->slots[old].leaf;

		root->slots[i].blk = fresh ? leaf->entries[0].blk : e->root->slots[old].blk;
		atomic_init(&root->slots[i].leaf, leaf);
	}
	root->slots[0].blk = 0;
	*out = root;
	return 0;
}

/* Publishes it. Cannot fail. */
static void edit_publish(struct ranges *r, struct edit *e, bool fits, struct root *root)
{
	uint64_t gone = 0;
	struct leaf *old;

	for (uint32_t i = 0; i < e->fresh_count; i++)
		atomic_fetch_add(&r->bytes, taken_bytes(leaf_bytes(e->fresh[i]->count)));
	if (root)
		atomic_fetch_add(&r->bytes, taken_bytes(root_bytes(root->count)));
	for (uint32_t i = e->from; i < e->to; i++)
		gone += e->root->slots[i].leaf->count;
	if (fits) {
		old = atomic_exchange(&e->root->slots[e->from].leaf, e->fresh[0]);
		leaf_retire(r, old);
	} else {
		atomic_store(&r->root, root);
		for (uint32_t i = e->from; i < e->to; i++)
			leaf_retire(r, e->root->slots[i].leaf);
		if (e->root)
			root_retire(r, e->root);
	}
	atomic_store(&r->count, r->count + e->total - gone);
}

int ranges_replace(struct ranges *r, uint64_t lo, uint64_t hi, const struct range *entries, unsigned count)
{
	struct edit e = { .root = atomic_load(&r->root) };
	struct root *root = NULL;
	bool fits = false;
	int rc;

	if (lo >= hi || (!e.root && count == 0))
		return 0;
	edit_plan(&e, lo, hi, entries, count);
	rc = edit_leaves(&e);
	if (!rc) {
		fits = e.root && edit_fits(&e);
		rc = fits ? 0 : edit_root(&e, &root);
	}
	if (rc) {
		for (uint32_t i = 0; i < e.fresh_count; i++)
			free(e.fresh[i]);
	} else {
		edit_publish(r, &e, fits, root);
	}
	free(e.fresh);
	return rc;
}
