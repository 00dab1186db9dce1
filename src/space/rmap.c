/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rmap tree of a group: every owner of every owned run of blocks.
 *
 * A record says that an owner has blocks [start, start + count) at offsets [offset, offset + count). Records overlap where blocks
 * are shared. Records of one owner that continue each other in blocks and offsets are merged where they are seen side by side;
 * whoever looks for an owner must not rely on it. Records of special owners are never merged: their offsets count other things.
 *
 * For one owner offset - start stays the same in whatever piece of a record survives (its delta), so if it is known where
 * the record starts, its key is known: that is how an owner is found among ten thousand with the same blocks.
 */
#include <errno.h>

#include "space/priv.h"

#define JUMP_STARTS 8u /* how many different starts before a block are tried one by one */

static int rmap_read(struct bt_cursor *cur, struct rmap *r)
{
	const void *rec;
	size_t size;
	int rc = bt_get(cur, &rec, &size);

	if (!rc)
		rmap_decode(r, rec);
	return rc;
}

static int rmap_seek(struct btree *bt, struct bt_cursor *cur, uint64_t start, uint64_t owner, uint64_t offset,
		     enum bt_dir dir, struct rmap *r)
{
	struct bt_key key = { { start, owner, offset } };
	int rc = bt_seek(bt, cur, &key, dir);

	return rc ? rc : rmap_read(cur, r);
}

static int rmap_insert(struct btree *bt, const struct rmap *r)
{
	struct m_rmap m;
	int rc;

	rmap_encode(&m, r);
	rc = bt_insert(bt, &m, sizeof(m));
	return rc == -EEXIST ? -EUCLEAN : rc;
}

static int rmap_replace(struct bt_cursor *cur, const struct rmap *r)
{
	struct m_rmap m;

	rmap_encode(&m, r);
	return bt_replace(cur, &m, sizeof(m));
}

/* Whether b continues a. */
static bool rmap_continues(const struct rmap *a, const struct rmap *b)
{
	return !(a->owner & OWNER_SPECIAL) && a->owner == b->owner && a->flags == b->flags &&
	       a->start_blk + a->count_blk == b->start_blk && a->offset_blk + a->count_blk == b->offset_blk;
}

/* The records that r continues and that continue it, if they are found at once. */
struct neighbours {
	struct rmap left, right;
	struct bt_cursor left_cur, right_cur;
	bool has_left, has_right;
	bool right_is_next; /* in key order */
};

static int neighbours_find(struct btree *bt, const struct rmap *r, struct neighbours *n)
{
	uint64_t end_blk = r->start_blk + r->count_blk, delta = r->offset_blk - r->start_blk;
	struct bt_cursor *cur = &n->right_cur;
	bool touches = false;
	int rc = rmap_seek(bt, &n->left_cur, r->start_blk, r->owner, r->offset_blk, BT_LE, &n->left);

	n->has_left = n->has_right = n->right_is_next = false;
	if (!rc) {
		n->has_left = rmap_continues(&n->left, r);
		touches = n->left.start_blk + n->left.count_blk >= r->start_blk;
		*cur = n->left_cur;
		rc = bt_next(cur);
		if (!rc)
			rc = rmap_read(cur, &n->right);
	} else if (rc == -ENOENT) {
		rc = rmap_seek(bt, cur, r->start_blk, r->owner, r->offset_blk, BT_GE, &n->right);
	}
	if (!rc) {
		n->has_right = n->right_is_next = rmap_continues(r, &n->right);
		/* With owners of the same blocks in between it is not the next one. */
		if (!n->has_right && n->right.start_blk <= end_blk)
			rc = rmap_seek(bt, cur, end_blk, r->owner, end_blk + delta, BT_LE, &n->right);
		if (!rc)
			n->has_right = rmap_continues(r, &n->right);
	}
	if (rc && rc != -ENOENT)
		return rc;
	if (!n->has_left && touches) {
		rc = rmap_seek(bt, &n->left_cur, n->left.start_blk, r->owner, n->left.start_blk + delta,
			       BT_LE, &n->left);
		if (!rc)
			n->has_left = rmap_continues(&n->left, r);
	}
	return rc == -ENOENT ? 0 : rc;
}

static void owner_changes(struct group_tx *at, uint64_t owner)
{
	if (owner == OWNER_BAD)
		atomic_fetch_add(&at->g->space->bad_changes, 1);
}

uint64_t space_bad_changes(const struct pool *pool)
{
	return atomic_load(&space_of(pool)->bad_changes);
}

int rmap_add(struct group_tx *at, uint64_t blk, uint64_t count_blk, uint64_t owner, uint64_t offset_blk)
{
	struct btree *bt = group_tree(at, AG_RMAP);
	struct rmap r = { .start_blk = blk, .owner = owner, .offset_blk = offset_blk, .count_blk = count_blk };
	struct neighbours n;
	bool end;
	int rc = neighbours_find(bt, &r, &n);

	if (rc)
		return rc;
	owner_changes(at, owner);
	if (n.has_left) {
		r = n.left;
		r.count_blk += count_blk;
	}
	if (n.has_right)
		r.count_blk += n.right.count_blk;
	at->last = r;
	if (n.right_is_next && !n.has_left)
		return rmap_replace(&n.right_cur, &r); /* nothing lies between the old key and the new one */
	if (n.has_right)
		rc = bt_remove(&n.right_cur, &end);
	if (rc)
		return rc;
	return n.has_left ? rmap_replace(&n.left_cur, &r) : rmap_insert(bt, &r);
}

int rmap_add_shared(struct group_tx *at, uint64_t blk, uint64_t count_blk, uint64_t owner,
		    uint64_t offset_blk)
{
	struct btree *bt = group_tree(at, AG_RMAP);
	struct rmap r = { .start_blk = blk, .owner = owner, .offset_blk = offset_blk, .count_blk = count_blk };
	struct rmap found;
	struct bt_cursor cur;
	int rc;

	owner_changes(at, owner);
	if (at->last.count_blk > 0 && rmap_continues(&at->last, &r)) {
		rc = rmap_seek(bt, &cur, at->last.start_blk, owner, at->last.offset_blk, BT_LE, &found);
		if (rc && rc != -ENOENT)
			return rc;
		if (!rc && found.owner == owner && rmap_continues(&found, &r)) {
			found.count_blk += count_blk;
			at->last = found;
			return rmap_replace(&cur, &found);
		}
	} else if (at->last.count_blk == 0) {
		return rmap_add(at, blk, count_blk, owner, offset_blk);
	}
	at->last = r;
	return rmap_insert(bt, &r);
}

/* ---- finding one owner ---- */

struct search {
	uint64_t blk, owner, delta;
	struct bt_cursor cur;
	struct rmap r;
};

static bool search_fits(const struct search *s)
{
	return s->r.owner == s->owner && s->r.offset_blk - s->r.start_blk == s->delta &&
	       s->r.start_blk <= s->blk && s->blk - s->r.start_blk < s->r.count_blk;
}

/* The owner's record that starts at start, or the one before it in key order. */
static int search_at(struct group_tx *at, struct search *s, uint64_t start)
{
	return rmap_seek(group_tree(at, AG_RMAP), &s->cur, start, s->owner, start + s->delta, BT_LE, &s->r);
}

/* Goes back from the block over the nearest different starts of records. 1: none of them was it. */
static int search_back(struct group_tx *at, struct search *s)
{
	int rc = search_at(at, s, s->blk);

	for (unsigned i = 0; i < JUMP_STARTS && !rc; i++) {
		uint64_t start = s->r.start_blk;

		if (search_fits(s))
			return 0;
		rc = search_at(at, s, start);
		if (rc || search_fits(s))
			return rc == -ENOENT ? 1 : rc;
		if (s->r.start_blk == start)
			rc = rmap_seek(group_tree(at, AG_RMAP), &s->cur, start, 0, 0, BT_LE, &s->r);
	}
	return rc == -ENOENT || rc == 0 ? 1 : rc;
}

/* Looks at each start of a record that overlaps the block. 1: it is not there. */
static int search_overlaps(struct group_tx *at, struct search *s)
{
	struct btree *bt = group_tree(at, AG_RMAP);
	uint64_t start = UINT64_MAX;
	int rc = bt_overlap_first(bt, &s->cur, s->blk, s->blk);

	while (!rc) {
		struct bt_cursor here = s->cur;

		rc = rmap_read(&s->cur, &s->r);
		if (rc || search_fits(s))
			return rc;
		if (s->r.start_blk == start) {
			/* More than one at this start: is it among them? If not, leave the rest of them out. */
			rc = search_at(at, s, start);
			if (!rc && search_fits(s))
				return 0;
			if (rc && rc != -ENOENT)
				return rc;
			rc = rmap_seek(bt, &here, start + 1, 0, 0, BT_GE, &s->r);
			if (rc)
				break;
			s->cur = here;
			if (s->r.start_blk <= s->blk && s->blk - s->r.start_blk < s->r.count_blk)
				continue;
			rc = bt_overlap_next(&s->cur, s->blk, s->blk);
			continue;
		}
		start = s->r.start_blk;
		rc = bt_overlap_next(&s->cur, s->blk, s->blk);
	}
	return rc == -ENOENT ? 1 : rc;
}

static int rmap_find(struct group_tx *at, struct search *s, uint64_t extent_blk)
{
	int rc;

	if (extent_blk < s->blk && extent_blk >= at->g->start_blk) {
		rc = search_at(at, s, extent_blk);
		if ((rc && rc != -ENOENT) || (!rc && search_fits(s)))
			return rc;
	}
	rc = search_back(at, s);
	if (rc == 1)
		rc = search_overlaps(at, s);
	return rc == 1 ? -EUCLEAN : rc;
}

/*
 * Taking [lo,hi) out of the record under the cursor:
 *
 *	|-----------r-----------|         |--left--|      |-right-|
 *	         lo     hi           ==>           lo     hi
 */
static int rmap_cut(struct group_tx *at, struct search *s, uint64_t lo, uint64_t hi)
{
	struct btree *bt = group_tree(at, AG_RMAP);
	struct rmap left = s->r, right = s->r;
	uint64_t end_blk = s->r.start_blk + s->r.count_blk;
	bool end;
	int rc;

	left.count_blk = lo - left.start_blk;
	right.start_blk = hi;
	right.offset_blk += hi - s->r.start_blk;
	right.count_blk = end_blk - hi;
	if (left.count_blk > 0)
		rc = rmap_replace(&s->cur, &left);
	else
		rc = bt_remove(&s->cur, &end);
	if (!rc && right.count_blk > 0)
		rc = rmap_insert(bt, &right);
	return rc;
}

int rmap_remove(struct group_tx *at, uint64_t blk, uint64_t count_blk, uint64_t owner, uint64_t offset_blk,
		uint64_t extent_blk)
{
	uint64_t end_blk = blk + count_blk;

	at->last.count_blk = 0;
	owner_changes(at, owner);
	for (uint64_t lo = blk, hi; lo < end_blk; lo = hi) {
		struct search s = { .blk = lo, .owner = owner, .delta = offset_blk - blk };
		int rc = rmap_find(at, &s, extent_blk);

		if (rc)
			return rc;
		hi = u64_min(end_blk, s.r.start_blk + s.r.count_blk);
		rc = rmap_cut(at, &s, lo, hi);
		if (rc)
			return rc;
	}
	return 0;
}

int space_owners(struct txn *tx, uint64_t blk, uint64_t count_blk,
		 int (*fn)(void *arg, const struct rmap *rmap), void *arg)
{
	struct space *space = space_of(txn_pool(tx));
	uint64_t end_blk = blk + count_blk;
	int rc = 0;

	if (!space_range_ok(space, blk, count_blk))
		return -EINVAL;
	for (uint64_t hi; blk < end_blk && !rc; blk = hi) {
		struct bt_cursor cur;
		struct group_tx *at;

		rc = group_enter(tx, pool_blk_ag(space->pool, blk), &at);
		if (rc)
			return rc;
		hi = u64_min(end_blk, at->g->start_blk + at->g->length_blk);
		rc = bt_overlap_first(group_tree(at, AG_RMAP), &cur, blk, hi - 1);
		while (!rc) {
			struct rmap r;

			rc = rmap_read(&cur, &r);
			if (!rc)
				rc = fn(arg, &r);
			if (!rc)
				rc = bt_overlap_next(&cur, blk, hi - 1);
		}
		if (rc == -ENOENT)
			rc = 0;
	}
	return rc;
}
