/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pages of files that the kernel keeps, beside those who map the files directly. See holders.h and the decision *pages of the kernel*.
 *
 *	           the kernel is given a page
 *	none <-----------+---------------------> LENT
 *	 2n+1            |                        0
 *	   ^             |                        |  somebody is about to have it drop all pages
 *	   |             |                        v
 *	   +-------------+-------------------- dropping
 *	     it has, and the number is still his   2n
 *
 * Each drop has a number of its own, so that of two at the same time only the one that began last says that there are no pages; one that somebody was given a page
 * beside says nothing. A page whose request was on its way when a drop began is waited for by the kernel, and dropped.
 *
 * Whoever gives pages writes LENT first and then looks for shadows; whoever grants shadows notes them first and then looks for LENT. So one of the two sees the other.
 */
#include "fs/holders.h"

#include "fs/core.h"
#include "fs/data.h"
#include "util/sabotage.h"

#define LENT 0u
#define NONE_BIT 1u

/* Until it has been told of by op_lend() it has none: the kernel knows no inode that is not here. */
void lend_init(struct inode *inode)
{
	atomic_store(&inode->lent, NONE_BIT);
}

/* But those of a daemon before. */
void lend_adopt(struct inode *inode)
{
	atomic_store(&inode->lent, LENT);
}

int op_lend(struct op *op, struct inode *inode, uint64_t lo_blk, uint64_t hi_blk)
{
	enum fs_change change = FS_CHANGE_LEND;

	/* Mostly it is so already, and then nothing is written. */
	if (atomic_load(&inode->lent) != LENT && !sabotage_point("page-lend"))
		atomic_store(&inode->lent, LENT);
	if (atomic_load(&inode->holders) == 0 || sabotage_point("page-moves"))
		return 0;
	/* LENT, then shadows: those are read without locks. */
	atomic_thread_fence(memory_order_seq_cst);
	/* Through a mapping it may store to the page without another word. */
	if (atomic_load(&inode->map_opens) > 0)
		change = FS_CHANGE_LEND_STORE;
	return op_change(op, inode, lo_blk, hi_blk, change);
}

bool inode_lent(const struct inode *inode, bool store)
{
	return (store || atomic_load(&inode->map_opens) > 0) && !(atomic_load(&inode->lent) & NONE_BIT);
}

uint64_t fs_drop_begin(struct fs *fs, uint64_t ino)
{
	struct inode *inode = inode_pin(fs, ino, 1, false);
	uint64_t drop;

	if (!inode)
		return LENT;
	drop = 2 * (atomic_fetch_add(&fs->drops, 1) + 1);
	atomic_store(&inode->lent, drop);
	inode_unpin(fs, inode, 1);
	return drop;
}

void fs_drop_end(struct fs *fs, uint64_t ino, uint64_t drop)
{
	struct inode *inode = drop == LENT ? NULL : inode_pin(fs, ino, 1, false);

	if (!inode)
		return;
	atomic_compare_exchange_strong(&inode->lent, &drop, drop | NONE_BIT);
	inode_unpin(fs, inode, 1);
}

/* And, if lent is true, whether the kernel may keep pages of it. */
static bool is_held(struct fs *fs, uint64_t ino, bool lent)
{
	struct inode *inode = atomic_load(&fs->holder_count) > 0 ? inode_pin(fs, ino, 1, false) : NULL;
	bool held = inode && atomic_load(&inode->holders) > 0;

	if (held && lent)
		held = !(atomic_load(&inode->lent) & NONE_BIT);
	if (inode)
		inode_unpin(fs, inode, 1);
	return held;
}

bool fs_is_held(struct fs *fs, uint64_t ino)
{
	return is_held(fs, ino, false);
}

bool fs_is_lent(struct fs *fs, uint64_t ino)
{
	return is_held(fs, ino, true);
}

static int lend_all_op(struct op *op, void *arg)
{
	struct inode *inode;
	int rc = op_inode(op, *(uint64_t *)arg, false, &inode);

	if (rc || atomic_load(&inode->lent) & NONE_BIT || sabotage_point("page-open"))
		return rc;
	/* Opens, then shadows, as grants look at shadows and then at opens. */
	atomic_thread_fence(memory_order_seq_cst);
	return op_change(op, inode, 0, blk_of(FS_SIZE_MAX), FS_CHANGE_LEND_STORE);
}

int fs_lend_all(struct fs *fs, uint64_t ino)
{
	return fs_is_held(fs, ino) ? op_run(fs, TXN_READ, NULL, lend_all_op, &ino) : 0;
}

int fs_lend_all_now(struct fs *fs, uint64_t ino)
{
	return fs_is_held(fs, ino) ? op_run_now(fs, TXN_READ, NULL, lend_all_op, &ino) : 0;
}
