/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sharing extents between two locked files: used by clone, dedupe and umbractl's tree clone.
 */
#ifndef UMBRA_FS_CLONE_H
#define UMBRA_FS_CLONE_H

#include "fs/data.h"

/* Both files of a clone, locked for writing. They may be the same: then dst is the one that is put. */
struct clone_ends {
	struct inode *src_inode, *dst_inode;
	struct inode_attr src, dst;
	uint64_t dst_size; /* size that the destination will have at least; set by clone_put() */
	bool did_share;
	bool is_seen; /* the shared part has been committed already (swap.c) */
	bool quiet;   /* dedupe: no byte changes, so no time stamp does */
};

struct share_range {
	uint64_t src_blk, dst_blk, count_blk;
};

/* Asks holders about a range that is to be shared, before anything is done. -EUSERS: see op_change(). */
must_check int share_ask(struct op *op, const struct clone_ends *ends, const struct share_range *range);
must_check int clone_lock(struct op *op, struct clone_ends *ends, uint64_t src, uint64_t dst);
/* The marks on both inodes and the destination's size and times. */
must_check int clone_put(struct op *op, struct clone_ends *ends);

/*
 * What the destination has in the range is replaced by the source's written extents (holes and unwritten ranges become holes). In
 * this transaction if it fits, else in several under an intent, the last of which makes all of it visible at once, with clone_put()'s changes.
 */
must_check int share_extents(struct op *op, struct clone_ends *ends, const struct share_range *range);
/* The same, but -EOVERFLOW with nothing edited if it does not fit into this transaction. */
must_check int share_now(struct op *op, struct clone_ends *ends, const struct share_range *range);

/* Makes the source's bytes past its end zero in its last block, before that is shared; *ready is false if it cannot be done. */
must_check int tail_ready(struct op *op, struct inode *inode, struct inode_attr *src, bool *ready);

/* Whether it would fit in what room this transaction has left (dst.ino 0: a file yet to be made). */
must_check int share_fits(struct op *op, const struct clone_ends *ends, const struct share_range *range,
			  bool *fits);

/* read.c */
must_check int data_read(struct op *op, const struct inode_attr *attr, uint64_t off, uint8_t *buf,
			 uint64_t len);
must_check int data_is_zero(struct op *op, uint64_t dev_off, uint64_t len_bytes, bool *zero);

#endif
