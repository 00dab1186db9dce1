/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Collapse and insert: blocks past a point move to other file offsets, under an intent.
 *
 * Arguments of INTENT_SHIFT: 0 first block to move, 1 by how many blocks (signed), 2 cursor (left: all before it has moved; right: all
 * from it on), 3 and 4 blocks to free first (equal: done), 5 size of the file at the end.
 */
#include <errno.h>
#include <linux/falloc.h>

#include "fs/data.h"
#include "fs/loss.h"
#include "util/sabotage.h"

enum { SHIFT_FROM, SHIFT_BY, SHIFT_CURSOR, SHIFT_FREE_LO, SHIFT_FREE_HI, SHIFT_SIZE };

struct shift {
	uint64_t ino;
	struct intent_ref ref;
};

static uint64_t piece_max(const struct inode_attr *attr)
{
	return attr->flags & INODE_LOST ? LOSS_SHIFT_BLK : UINT32_MAX;
}

static int move_piece(struct op *op, struct btree *bt, const struct inode_attr *attr, uint64_t lo,
		      uint64_t hi, uint64_t by)
{
	struct extent piece;
	int rc = extent_cut(op, bt, lo, hi, UINT32_MAX, &piece);

	if (!rc)
		rc = loss_shift(op, attr, lo, hi, by);
	if (rc)
		return rc;
	rc = space_shift(op->tx, piece.dev_blk, piece.count_blk, attr->ino, piece.file_blk,
			 piece.file_blk + by);
	piece.file_blk += by;
	return rc ? rc : extent_add(op, bt, &piece);
}

/* The next extent to the left; -ENOENT: all have moved. */
static int shift_left(struct op *op, struct btree *bt, const struct inode_attr *attr, uint64_t by,
		      uint64_t *cursor)
{
	struct extent e;
	int rc = extent_find(bt, *cursor, &e);

	if (rc)
		return rc;
	e.count_blk = u64_min(e.count_blk, piece_max(attr));
	rc = move_piece(op, bt, attr, e.file_blk, e.file_blk + e.count_blk, by);
	if (!rc)
		*cursor = e.file_blk + e.count_blk;
	return rc;
}

/* The last extent that starts before file_blk; -ENOENT: none. */
static int extent_before(struct btree *bt, uint64_t file_blk, struct extent *e)
{
	struct bt_key key = { { file_blk - 1 } };
	struct bt_cursor cur;
	const void *rec;
	size_t size;
	int rc = file_blk ? bt_seek(bt, &cur, &key, BT_LE) : -ENOENT;

	if (!rc)
		rc = bt_get(&cur, &rec, &size);
	if (!rc)
		extent_decode(e, rec);
	return rc;
}

/* The last extent before the cursor to the right, as far as it lies past from. */
static int shift_right(struct op *op, struct btree *bt, const struct inode_attr *attr, uint64_t from,
		       uint64_t by, uint64_t *cursor)
{
	struct extent e;
	uint64_t lo, hi;
	int rc = *cursor > from ? extent_before(bt, *cursor, &e) : -ENOENT;

	if (rc)
		return rc;
	if (e.file_blk + e.count_blk <= from)
		return -ENOENT;
	lo = u64_max(e.file_blk, from);
	hi = u64_min(e.file_blk + e.count_blk, *cursor);
	if (hi - lo > piece_max(attr))
		lo = hi - piece_max(attr);
	rc = move_piece(op, bt, attr, lo, hi, by);
	if (!rc)
		*cursor = lo;
	return rc;
}

static int shift_finish(struct op *op, struct inode_attr *attr, const struct shift *s, uint64_t size)
{
	int rc = intent_clear(op, &s->ref);

	attr->size = size;
	attr_touch(op, attr, true);
	return rc ? rc : inode_put(op, attr);
}

static int shift_free(struct op *op, struct inode_attr *attr, struct m_intent *it)
{
	uint64_t lo = le64_get(it->it_args[SHIFT_FREE_LO]), hi = le64_get(it->it_args[SHIFT_FREE_HI]);
	bool done;
	int rc;

	if (lo == hi)
		return 0;
	rc = data_drop(op, attr, lo, hi, &done);
	if (rc)
		return rc;
	if (done)
		it->it_args[SHIFT_FREE_LO] = it->it_args[SHIFT_FREE_HI];
	return done ? 0 : 1;
}

static int shift_step(struct op *op, void *arg)
{
	const struct shift *s = arg;
	struct inode_attr attr;
	struct m_intent *it;
	uint64_t by, cursor;
	struct btree bt;
	int rc = inode_get(op, s->ino, &attr);

	if (!rc)
		rc = intent_edit(op, &s->ref, &it);
	if (!rc)
		rc = shift_free(op, &attr, it);
	by = rc ? 0 : le64_get(it->it_args[SHIFT_BY]);
	cursor = rc ? 0 : le64_get(it->it_args[SHIFT_CURSOR]);
	inode_data_tree(op, s->ino, NODE_EXTENT, &bt);
	while (rc == 0) {
		if (!txn_has_room(op->tx, DATA_STEP_UNITS))
			rc = 1;
		else if (by >> 63)
			rc = shift_left(op, &bt, &attr, by, &cursor);
		else
			rc = shift_right(op, &bt, &attr, le64_get(it->it_args[SHIFT_FROM]), by, &cursor);
	}
	if (rc == -ENOENT)
		return shift_finish(op, &attr, s, le64_get(it->it_args[SHIFT_SIZE]));
	if (rc != 1)
		return rc;
	if (cursor != 0 && !sabotage_point("shift-cursor"))
		it->it_args[SHIFT_CURSOR] = le64_of(cursor);
	rc = inode_put(op, &attr);
	return rc ? rc : 1;
}

int resume_shift(struct op *op, struct inode *inode, const struct intent_ref *ref)
{
	struct shift s = { inode->ino, *ref };

	return op_chain(op, shift_step, &s);
}

/* Whether what lies past the end (set aside with FALLOC_FL_KEEP_SIZE) would be moved past the last block that a file can have. */
static int insert_may(struct op *op, const struct inode_attr *attr, uint64_t count_blk)
{
	struct btree bt;
	struct extent e;
	int rc;

	inode_data_tree(op, attr->ino, NODE_EXTENT, &bt);
	rc = extent_before(&bt, FILE_BLK_END, &e);
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	return e.file_blk + e.count_blk + count_blk > blk_of(FS_SIZE_MAX) ? -EFBIG : 0;
}

int data_shift(struct op *op, struct inode *inode, struct inode_attr *attr, int mode, uint64_t off,
	       uint64_t len)
{
	uint64_t first = blk_of(off), count = blk_of(len), args[8] = { 0 };
	struct intent_ref ref;
	int rc;

	if ((off | len) & (BLOCK_SIZE - 1))
		return -EINVAL;
	if (mode == FALLOC_FL_COLLAPSE_RANGE ? off + len >= attr->size : off >= attr->size)
		return -EINVAL;
	if (mode == FALLOC_FL_INSERT_RANGE && len > FS_SIZE_MAX - attr->size)
		return -EFBIG;
	rc = sabotage_point("change-shift") ? 0 : op_change(op, inode, first, FILE_BLK_END, FS_CHANGE_MOVE);
	if (!rc)
		rc = data_to_extents(op, inode, attr);
	if (!rc && mode == FALLOC_FL_INSERT_RANGE)
		rc = insert_may(op, attr, count);
	if (rc)
		return rc;
	if (mode == FALLOC_FL_COLLAPSE_RANGE) {
		args[SHIFT_FROM] = args[SHIFT_CURSOR] = first + count;
		args[SHIFT_BY] = -count;
		args[SHIFT_FREE_LO] = first;
		args[SHIFT_FREE_HI] = first + count;
		args[SHIFT_SIZE] = attr->size - len;
	} else {
		args[SHIFT_FROM] = first;
		args[SHIFT_BY] = count;
		args[SHIFT_CURSOR] = FILE_BLK_END;
		args[SHIFT_SIZE] = attr->size + len;
	}
	rc = data_kill_priv(op, attr); /* now: who goes on after a crash does not know who asked */
	if (!rc)
		rc = inode_put(op, attr);
	if (!rc)
		rc = intent_make(op, attr, INTENT_SHIFT, args, &ref);
	if (rc)
		return rc;
	/* From here on it comes to its end, whoever is killed. */
	if (op->cred && op->cred->receipt && !sabotage_point("receipt-shift"))
		txn_set_receipt(op->tx, op->cred->receipt, 0, 0, 0);
	/* The chain may drop what was edited so far and try again: the intent must be there then. */
	rc = txn_roll(op->tx);
	if (rc)
		return rc;
	txn_set_freeing(op->tx); /* it has to come to its end */
	return op_chain_end(op, resume_shift(op, inode, &ref));
}
