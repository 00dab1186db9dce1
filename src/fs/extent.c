/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Extents of a file: find, add with merging, cut with splitting.
 *
 * Extents do not overlap and do not cross the border of an allocation group.
 */
#include <errno.h>
#include <inttypes.h>

#include "fs/data.h"
#include "fs/loss.h"
#include "fs/poison.h"
#include "util/log.h"
#include "util/sabotage.h"

static struct bt_key extent_key(uint64_t file_blk)
{
	return (struct bt_key){ { file_blk } };
}

static int cursor_extent(struct bt_cursor *cur, struct extent *e)
{
	const struct btree *bt = cur->bt;
	uint64_t size_blk = pool_size_blk(txn_pool(bt->tx));
	const void *rec;
	size_t size;
	int rc = bt_get(cur, &rec, &size);

	if (rc)
		return rc;
	extent_decode(e, rec);
	if (e->dev_blk < size_blk && e->count_blk <= size_blk - e->dev_blk)
		return 0;
	if (log_is_first(bt->root_laddr + bt->root_off))
		log_error("inode %" PRIu64 ": an extent leaves the device", bt->owner);
	return -EUCLEAN;
}

/* The extent at or before file_blk that covers it. */
static int extent_covering(struct btree *bt, uint64_t file_blk, struct bt_cursor *cur, struct extent *e)
{
	struct bt_key key = extent_key(file_blk);
	int rc = bt_seek(bt, cur, &key, BT_LE);

	if (!rc)
		rc = cursor_extent(cur, e);
	if (!rc && file_blk - e->file_blk >= e->count_blk)
		rc = -ENOENT;
	return rc;
}

static void extent_trim_front(struct extent *e, uint64_t file_blk)
{
	uint64_t skip = file_blk - e->file_blk;

	e->file_blk += skip;
	e->dev_blk += skip;
	e->count_blk -= skip;
}

int extent_find(struct btree *bt, uint64_t file_blk, struct extent *extent)
{
	struct bt_key key = extent_key(file_blk);
	struct bt_cursor cur;
	int rc = extent_covering(bt, file_blk, &cur, extent);

	if (!rc)
		extent_trim_front(extent, file_blk);
	if (rc != -ENOENT)
		return rc;
	rc = bt_seek(bt, &cur, &key, BT_GE);
	return rc ? rc : cursor_extent(&cur, extent);
}

bool extents_join(struct pool *pool, const struct extent *a, const struct extent *b)
{
	return a->file_blk + a->count_blk == b->file_blk && a->dev_blk + a->count_blk == b->dev_blk &&
	       a->flags == b->flags && a->count_blk + b->count_blk <= UINT32_MAX &&
	       pool_blk_ag(pool, a->dev_blk) == pool_blk_ag(pool, b->dev_blk);
}

static int extent_insert(struct btree *bt, const struct extent *e)
{
	struct m_extent m;

	extent_encode(&m, e);
	return bt_insert(bt, &m, sizeof(m));
}

static int extent_replace(struct bt_cursor *cur, const struct extent *e)
{
	struct m_extent m;

	extent_encode(&m, e);
	return bt_replace(cur, &m, sizeof(m));
}

static int extent_delete(struct btree *bt, uint64_t file_blk)
{
	struct bt_key key = extent_key(file_blk);

	return bt_delete(bt, &key);
}

/* The last look before a file's blocks change: what is unwritten reads as the hole that was there, or will be. */
static int change_check(struct op *op, const struct btree *bt, const struct extent *e)
{
	if (!fs_has_holders(op->fs) || e->flags & EXTENT_UNWRITTEN || bt->root_magic != MAGIC_INODE)
		return 0;
	return op_change_check(op, bt->owner, e->file_blk, e->file_blk + e->count_blk, FS_CHANGE_MOVE);
}

int extent_add(struct op *op, struct btree *bt, const struct extent *extent)
{
	struct pool *pool = op->fs->pool;
	struct extent e = *extent, left, right;
	struct bt_key key = extent_key(e.file_blk);
	struct bt_cursor cur;
	bool has_left;
	int rc = change_check(op, bt, &e);

	if (!rc)
		rc = bt_seek(bt, &cur, &key, BT_LE);
	if (rc && rc != -ENOENT)
		return rc;
	has_left = rc == 0;
	if (has_left) {
		rc = cursor_extent(&cur, &left);
		if (rc)
			return rc;
		has_left = extents_join(pool, &left, &e);
	}
	key = extent_key(e.file_blk + e.count_blk);
	rc = extent_covering(bt, key.w[0], &cur, &right);
	if (rc && rc != -ENOENT)
		return rc;
	if (!rc && extents_join(pool, &e, &right) && right.file_blk == key.w[0]) {
		e.count_blk += right.count_blk;
		rc = extent_delete(bt, right.file_blk);
		if (rc)
			return rc;
	}
	if (!has_left || left.count_blk + e.count_blk > UINT32_MAX)
		return extent_insert(bt, &e);
	left.count_blk += e.count_blk;
	key = extent_key(left.file_blk);
	rc = bt_seek(bt, &cur, &key, BT_LE);
	return rc ? rc : extent_replace(&cur, &left);
}

/*
 * The extent [a,d) loses [b,c):
 *
 *      a     b     c     d            a     b     c     d
 *      |-----------------|    ==>     |-----|     |-----|
 */
static int extent_split(struct btree *bt, struct bt_cursor *cur, const struct extent *e,
			const struct extent *piece)
{
	uint64_t piece_end = piece->file_blk + piece->count_blk, end = e->file_blk + e->count_blk;
	struct extent left = *e, right = *e;
	bool gone;
	int rc;

	left.count_blk = piece->file_blk - e->file_blk;
	extent_trim_front(&right, piece_end);
	if (left.count_blk == 0 && piece_end == end)
		return bt_remove(cur, &gone);
	if (left.count_blk == 0)
		return extent_replace(cur, &right); /* the key moves up, the order stays */
	rc = extent_replace(cur, &left);
	if (rc || piece_end == end)
		return rc;
	return extent_insert(bt, &right);
}

/* extent_cut(); *whole_blk: where the extent that the piece is from starts on the device. */
static int cut(struct op *op, struct btree *bt, uint64_t lo, uint64_t hi, uint64_t max_blk,
	       struct extent *piece, uint64_t *whole_blk)
{
	struct bt_key key = extent_key(lo);
	struct bt_cursor cur;
	struct extent e, p;
	int rc = extent_covering(bt, lo, &cur, &e);

	if (rc == -ENOENT) {
		rc = bt_seek(bt, &cur, &key, BT_GE);
		if (!rc)
			rc = cursor_extent(&cur, &e);
	}
	if (rc)
		return rc;
	if (e.file_blk >= hi)
		return -ENOENT;
	p = e;
	if (p.file_blk < lo)
		extent_trim_front(&p, lo);
	p.count_blk = u64_min(u64_min(p.count_blk, hi - p.file_blk), max_blk);
	rc = change_check(op, bt, &p);
	if (!rc)
		rc = extent_split(bt, &cur, &e, &p);
	if (rc)
		return rc;
	*piece = p;
	*whole_blk = e.dev_blk;
	return 0;
}

int extent_cut(struct op *op, struct btree *bt, uint64_t lo, uint64_t hi, uint64_t max_blk,
	       struct extent *piece)
{
	uint64_t whole_blk;

	return cut(op, bt, lo, hi, max_blk, piece, &whole_blk);
}

struct op_dropped {
	struct op_dropped *next;
	struct fs *fs;
	uint64_t blk, count_blk;
};

static void dropped_end(void *arg, bool committed)
{
	const struct op_dropped *d = arg;

	if (committed)
		poison_let_go(d->fs, d->blk, d->count_blk);
}

static void dropped_note(struct op *op, const struct extent *p)
{
	struct op_dropped *d = txn_alloc(op->tx, sizeof(*d));

	*d = (struct op_dropped){ NULL, op->fs, p->dev_blk, p->count_blk };
	if (atomic_load_explicit(&op->fs->bad_count, memory_order_relaxed) > 0 && !sabotage_point("let-go"))
		txn_on_end(op->tx, dropped_end, d);
	if (op->dropped_seq == txn_seq(op->tx))
		d->next = op->dropped;
	op->dropped = d;
	op->dropped_seq = txn_seq(op->tx);
}

bool extent_was_dropped(const struct op *op, uint64_t dev_blk, uint64_t *count_blk)
{
	const struct op_dropped *d = op->dropped_seq == txn_seq(op->tx) ? op->dropped : NULL;

	for (; d; d = d->next) {
		if (d->blk <= dev_blk && dev_blk - d->blk < d->count_blk) {
			*count_blk = u64_min(*count_blk, d->blk + d->count_blk - dev_blk);
			return true;
		}
		if (d->blk > dev_blk)
			*count_blk = u64_min(*count_blk, d->blk - dev_blk);
	}
	return false;
}

int extent_drop(struct op *op, struct btree *bt, uint64_t ino, uint64_t lo, uint64_t hi, struct extent *piece)
{
	struct extent p;
	uint64_t whole_blk;
	int rc = cut(op, bt, lo, hi, DATA_STEP_BLK, &p, &whole_blk);

	if (!rc)
		rc = space_drop_piece(op->tx, p.dev_blk, p.count_blk, ino, p.file_blk, whole_blk);
	if (rc)
		return rc;
	dropped_note(op, &p);
	*piece = p;
	return 0;
}

int data_drop(struct op *op, struct inode_attr *attr, uint64_t lo, uint64_t hi, bool *done)
{
	struct btree bt;
	int rc = loss_drop(op, attr, lo, hi, done);

	if (rc || !*done)
		return rc;
	*done = false;
	inode_data_tree(op, attr->ino, NODE_EXTENT, &bt);
	while (txn_has_room(op->tx, DATA_STEP_UNITS)) {
		struct extent piece;

		rc = extent_drop(op, &bt, attr->ino, lo, hi, &piece);
		if (rc == -ENOENT) {
			*done = true;
			return 0;
		}
		if (rc)
			return rc;
		attr->blocks -= piece.count_blk;
	}
	return 0;
}
