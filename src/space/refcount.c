/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The refcount tree of a group: runs of blocks with two or more owners. Blocks that it does not name have one owner if the bitmap
 * says that they are owned.
 *
 * Records do not overlap, and neighbours that touch have different counts.
 */
#include <errno.h>

#include "space/priv.h"

/* What lies around a block: the record at or before it, and the next one. */
struct around {
	struct bt_cursor cur;          /* on before if there is one, else on after */
	struct refcount before, after; /* count_blk 0: none */
};

static int refcount_read(struct bt_cursor *cur, struct refcount *r)
{
	const void *rec;
	size_t size;
	int rc = bt_get(cur, &rec, &size);

	if (!rc)
		refcount_decode(r, rec);
	return rc;
}

static uint64_t refcount_end(const struct refcount *r)
{
	return r->start_blk + r->count_blk;
}

static int refcount_insert(struct btree *bt, uint64_t blk, uint64_t count_blk, uint64_t refs)
{
	struct refcount r = { .start_blk = blk, .count_blk = count_blk, .refs = refs };
	struct m_refcount m;
	int rc;

	refcount_encode(&m, &r);
	rc = bt_insert(bt, &m, sizeof(m));
	return rc == -EEXIST ? -EUCLEAN : rc;
}

static int refcount_replace(struct bt_cursor *cur, const struct refcount *r)
{
	struct m_refcount m;

	refcount_encode(&m, r);
	return bt_replace(cur, &m, sizeof(m));
}

static int around_get(struct btree *bt, uint64_t blk, struct around *a)
{
	struct bt_key key = { { blk } };
	struct bt_cursor next;
	int rc;

	a->before = a->after = (struct refcount){ 0 };
	rc = bt_seek(bt, &a->cur, &key, BT_LE);
	if (rc == -ENOENT) {
		rc = bt_seek(bt, &a->cur, &key, BT_GE);
		if (!rc)
			rc = refcount_read(&a->cur, &a->after);
		return rc == -ENOENT ? 0 : rc;
	}
	if (!rc)
		rc = refcount_read(&a->cur, &a->before);
	if (rc)
		return rc;
	next = a->cur;
	rc = bt_next(&next);
	if (!rc)
		rc = refcount_read(&next, &a->after);
	return rc == -ENOENT ? 0 : rc;
}

/* A record that covers both sides of blk becomes two. */
static int refcount_split(struct btree *bt, uint64_t blk)
{
	struct around a;
	uint64_t end_blk;
	int rc = around_get(bt, blk, &a);

	if (rc || a.before.count_blk == 0 || a.before.start_blk == blk || refcount_end(&a.before) <= blk)
		return rc;
	end_blk = refcount_end(&a.before);
	a.before.count_blk = blk - a.before.start_blk;
	rc = refcount_replace(&a.cur, &a.before);
	return rc ? rc : refcount_insert(bt, blk, end_blk - blk, a.before.refs);
}

/* Two records that touch at blk and count the same become one. */
static int refcount_merge(struct btree *bt, uint64_t blk)
{
	struct refcount right;
	struct around a;
	bool end;
	int rc;

	if (blk == 0)
		return 0;
	rc = around_get(bt, blk - 1, &a);
	if (rc || a.before.count_blk == 0 || a.after.count_blk == 0)
		return rc;
	right = a.after;
	if (refcount_end(&a.before) != blk || right.start_blk != blk || right.refs != a.before.refs)
		return 0;
	a.before.count_blk += right.count_blk;
	rc = refcount_replace(&a.cur, &a.before);
	if (!rc)
		rc = bt_next(&a.cur);
	return rc ? rc : bt_remove(&a.cur, &end);
}

/* Nothing is counted in the range and its neighbours count otherwise, or not: the usual case of a clone. 1: it is another case. */
static int add_fresh(struct btree *bt, uint64_t blk, uint64_t count_blk)
{
	struct around a;
	int rc = around_get(bt, blk, &a);

	if (rc)
		return rc;
	if (a.before.count_blk > 0 && refcount_end(&a.before) > blk)
		return 1;
	if (a.after.count_blk > 0 && (a.after.start_blk < blk + count_blk ||
				      (a.after.start_blk == blk + count_blk && a.after.refs == 2)))
		return 1;
	if (a.before.count_blk > 0 && a.before.refs == 2 && refcount_end(&a.before) == blk) {
		a.before.count_blk += count_blk;
		return refcount_replace(&a.cur, &a.before);
	}
	return refcount_insert(bt, blk, count_blk, 2);
}

/* One record is exactly the range and keeps being one that differs from its neighbours. 1: it is another case. */
static int change_exact(struct btree *bt, uint64_t blk, uint64_t count_blk, bool up)
{
	struct refcount prev = { 0 };
	struct bt_cursor cur;
	struct around a;
	int rc = around_get(bt, blk, &a);

	if (rc)
		return rc;
	if (a.before.start_blk != blk || a.before.count_blk != count_blk || a.before.refs == UINT32_MAX)
		return 1;
	a.before.refs = up ? a.before.refs + 1 : a.before.refs - 1;
	if (a.before.refs < 2)
		return 1;
	if (a.after.count_blk > 0 && a.after.start_blk == blk + count_blk && a.after.refs == a.before.refs)
		return 1;
	cur = a.cur;
	rc = bt_prev(&cur);
	if (!rc)
		rc = refcount_read(&cur, &prev);
	if (rc && rc != -ENOENT)
		return rc;
	if (!rc && refcount_end(&prev) == blk && prev.refs == a.before.refs)
		return 1;
	return refcount_replace(&a.cur, &a.before);
}

/*
 * Any case. Adding one reference to [b,e):
 *
 *	    b          e              b          e
 *	|---3---|  |--2--|   ==>   |-3|-4-|2 |-3-|2|
 */
static int change_pieces(struct group_tx *at, uint64_t blk, uint64_t end_blk, bool up,
			 int (*gone)(struct group_tx *at, uint64_t blk, uint64_t count_blk))
{
	struct btree *bt = group_tree(at, AG_REFCOUNT);
	uint64_t pos = blk, next_blk;
	int rc = refcount_split(bt, blk);

	if (!rc)
		rc = refcount_split(bt, end_blk);
	for (; pos < end_blk && !rc; pos = next_blk) {
		struct around a;
		bool end;

		rc = around_get(bt, pos, &a);
		if (rc)
			break;
		if (a.before.count_blk > 0 && refcount_end(&a.before) > pos) {
			next_blk = refcount_end(&a.before);
			if (up && a.before.refs == UINT32_MAX)
				return -EMLINK;
			a.before.refs = up ? a.before.refs + 1 : a.before.refs - 1;
			rc = a.before.refs < 2 ? bt_remove(&a.cur, &end) :
						 refcount_replace(&a.cur, &a.before);
			continue;
		}
		next_blk = a.after.count_blk > 0 ? u64_min(end_blk, a.after.start_blk) : end_blk;
		rc = up ? refcount_insert(bt, pos, next_blk - pos, 2) : gone(at, pos, next_blk - pos);
	}
	if (!rc)
		rc = refcount_merge(bt, blk);
	return rc ? rc : refcount_merge(bt, end_blk);
}

int refcount_add(struct group_tx *at, uint64_t blk, uint64_t count_blk)
{
	struct btree *bt = group_tree(at, AG_REFCOUNT);
	int rc = add_fresh(bt, blk, count_blk);

	if (rc == 1)
		rc = change_exact(bt, blk, count_blk, true);
	return rc == 1 ? change_pieces(at, blk, blk + count_blk, true, NULL) : rc;
}

int refcount_drop(struct group_tx *at, uint64_t blk, uint64_t count_blk,
		  int (*gone)(struct group_tx *at, uint64_t blk, uint64_t count_blk))
{
	struct around a;
	int rc = around_get(group_tree(at, AG_REFCOUNT), blk, &a);

	if (rc)
		return rc;
	if ((a.before.count_blk == 0 || refcount_end(&a.before) <= blk) &&
	    (a.after.count_blk == 0 || a.after.start_blk >= blk + count_blk))
		return gone(at, blk, count_blk);
	rc = change_exact(group_tree(at, AG_REFCOUNT), blk, count_blk, false);
	return rc == 1 ? change_pieces(at, blk, blk + count_blk, false, gone) : rc;
}

int refcount_get(struct group_tx *at, uint64_t blk, uint64_t count_blk, uint64_t *refs, uint64_t *same_blk)
{
	struct around a;
	int rc = around_get(group_tree(at, AG_REFCOUNT), blk, &a);

	if (rc)
		return rc;
	if (a.before.count_blk > 0 && refcount_end(&a.before) > blk) {
		*refs = a.before.refs;
		*same_blk = u64_min(count_blk, refcount_end(&a.before) - blk);
	} else {
		*refs = 1;
		*same_blk = a.after.count_blk > 0 ? u64_min(count_blk, a.after.start_blk - blk) : count_blk;
	}
	return 0;
}
