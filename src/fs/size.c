/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The size of a file: growing (zero the tail first), shrinking (free past the new end, under an intent when that takes more than one
 * transaction).
 */
#include <errno.h>
#include <string.h>

#include "fs/data.h"
#include "fs/loss.h"
#include "util/sabotage.h"

/* Frees [lo, hi) of a locked file step by step; the intent goes with the last step. */
struct free_range {
	uint64_t ino, lo, hi;
	struct intent_ref ref;
};

static int free_range_step(struct op *op, void *arg)
{
	const struct free_range *f = arg;
	struct inode_attr attr;
	bool done;
	int rc = inode_get(op, f->ino, &attr);

	if (!rc)
		rc = data_drop(op, &attr, f->lo, f->hi, &done);
	if (!rc)
		rc = inode_put(op, &attr);
	if (rc || !done)
		return rc ? rc : 1;
	return intent_clear(op, &f->ref);
}

int resume_truncate(struct op *op, struct inode *inode, const struct intent_ref *ref, uint64_t lo,
		    uint64_t hi)
{
	struct free_range f = { inode->ino, lo, u64_min(hi, FILE_BLK_END), *ref };

	return op_chain(op, free_range_step, &f);
}

int data_free_range(struct op *op, struct inode *inode, struct inode_attr *attr, uint64_t lo, uint64_t hi)
{
	uint64_t args[8] = { lo, hi };
	struct intent_ref ref;
	bool done;
	int rc = data_drop(op, attr, lo, hi, &done);

	if (rc || done)
		return rc;
	rc = intent_make(op, attr, INTENT_FREE_RANGE, args, &ref);
	if (!rc)
		rc = inode_put(op, attr);
	if (!rc)
		rc = txn_roll(op->tx);
	if (rc)
		return rc;
	txn_set_freeing(op->tx);
	rc = op_chain_end(op, resume_truncate(op, inode, &ref, lo, hi));
	return rc ? rc : inode_get(op, attr->ino, attr);
}

static int shrink_inline(struct op *op, struct inode_attr *attr, uint64_t size)
{
	struct m_inode *record;
	int rc = inode_edit(op, attr->ino, &record);

	if (rc)
		return rc;
	memset(record->di_data + size, 0, INODE_INLINE_MAX - size);
	attr->size = size;
	if (size == 0)
		attr->data_format = DATA_NONE;
	return 0;
}

static int grow(struct op *op, struct inode *inode, struct inode_attr *attr, uint64_t size)
{
	int rc;

	if (size > FS_SIZE_MAX)
		return -EFBIG;
	rc = op_change_grow(op, inode, attr);
	if (rc)
		return rc;
	if (attr->data_format == DATA_INLINE && size > INODE_INLINE_MAX)
		rc = data_to_extents(op, inode, attr);
	else
		rc = data_zero_tail(op, inode, attr);
	if (!rc)
		attr->size = size;
	return rc;
}

int data_set_size(struct op *op, struct inode *inode, struct inode_attr *attr, uint64_t size)
{
	uint64_t change_blk;
	int rc;

	if (size > attr->size)
		return grow(op, inode, attr, size);
	if (attr->data_format == DATA_INLINE)
		return shrink_inline(op, attr, size);
	/* What is left of the last block stays where it is; but who holds it has to hear that the file ends there. */
	change_blk = size < attr->size ? blk_of(size) : blk_up(size);
	rc = sabotage_point("change-truncate") ?
		     0 :
		     op_change(op, inode, change_blk, FILE_BLK_END, FS_CHANGE_MOVE);
	if (rc)
		return rc;
	attr->size = size;
	if (attr->data_format != DATA_EXTENTS)
		return 0;
	/* At the same size too: what was set aside past the end goes. */
	txn_set_freeing(op->tx);
	/* If it takes several transactions, it has happened with the first: what others add after the last one is not cut off again. */
	if (op->cred && op->cred->receipt && !sabotage_point("receipt-cut"))
		txn_set_receipt(op->tx, op->cred->receipt, 0, 0, 0);
	rc = loss_cut(op, attr, size);
	return rc ? rc : data_free_range(op, inode, attr, blk_up(size), FILE_BLK_END);
}
