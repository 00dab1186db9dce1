/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Growing a pool, the part below the space floor (space/grow.c calls it): the device, new groups, superblock, mirror of slot 0.
 *
 * Nothing of the old pool changes before grow_switch() writes the superblock with the new size, which also tells of the old one
 * (sb_grown_from_blk). The transaction that then gives the last group its new length is what decides: a mount that finds the superblock of a
 * growth takes it back if that transaction has not happened, and goes on with it otherwise. It tells by the copy of the superblock's
 * size in the header of that group (grow_header).
 */
#ifndef UMBRA_TXN_GROW_H
#define UMBRA_TXN_GROW_H

#include "media/ag.h"
#include "txn/pool.h"

/*
 * Maps what there is beyond the end of the pool, after making a plain file size_bytes large (0: as it is). *size_blk: what the pool can have. -EALREADY: no
 * more than it has; else as dax_grow().
 */
must_check int grow_plan(struct pool *pool, uint64_t size_bytes, uint64_t *size_blk);

/* The superblock as it would be in this pool with so many blocks. */
void grow_super(struct pool *pool, uint64_t size_blk, struct super *super);

/* The groups of a pool of so many blocks that it does not have yet, on media and in DRAM. Takes its time; nobody is disturbed. */
must_check int grow_groups(struct pool *pool, uint64_t size_blk);

/*
 * Headers of the groups before that one get the superblock's fields anew, each in a transaction of its own. One that is damaged keeps what it
 * has.
 */
must_check int grow_headers(struct pool *pool, uint32_t end_agno);

/* ---- between pool_freeze() and pool_thaw() ---- */

/* The pool has so many blocks. An error: it has what it had. */
must_check int grow_switch(struct pool *pool, uint64_t size_blk);
/* Back again: the transaction has failed. */
void grow_back(struct pool *pool);
/* What the transaction does to the header of the group that was the last. */
void grow_header(struct pool *pool, struct m_ag *header);
/* After it. An error: the next mount goes on; the pool is fine. */
must_check int grow_finish(struct pool *pool);

/* ---- at mount ---- */

/* After the replay of slot 0: takes back a growth that has not happened, in DRAM; the superblock is then to be stored. */
void grow_settle(struct pool *pool);

#endif
