/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Runs of blocks with several owners, on their way to other blocks that they go on sharing.
 */
#ifndef UMBRA_FS_FORWARD_H
#define UMBRA_FS_FORWARD_H

#include "fs/data.h"

/* 1: the forward record that the block is in; 0: there is none. */
must_check int forward_record(struct op *op, uint64_t blk, struct m_forward *found);

/* 1: the first forward record of which [blk, end_blk), in one group, has something; 0: there is none. */
must_check int forward_next(struct op *op, uint64_t blk, uint64_t end_blk, struct m_forward *found);

/*
 * [blk, blk + *count_blk) has several owners: they get another place, nothing of it is lost. Of as much as has the same number of owners; *count_blk
 * is how much it was. bad: the old blocks belong to OWNER_BAD then, else they are free. *goal_blk: 0, or where it should go; where the next piece
 * should. No transaction may be open and no lock held but poison_lock's elders. 1: it does not have several any more, or is on its way: look again.
 */
must_check int forward_move(struct fs *fs, uint64_t blk, uint64_t *count_blk, bool bad, uint64_t *goal_blk);

/*
 * Whoever still is on his way away from the block gets there, if that is a run, or the block is not bad: after a crash, or an error. Under
 * poison_lock, with no transaction open. 1: it was so, and all have; 0: it is no such block.
 */
must_check int forward_settle(struct fs *fs, uint64_t blk);

/* The block is bad, and if others are on their way away from it, it must not be free in the end. As forward_settle(), but 0 in any case but an error. */
must_check int forward_source_bad(struct fs *fs, uint64_t blk);

#endif
