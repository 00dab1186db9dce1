/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bytes of files that bad memory has taken: which 64-byte lines of which blocks, per file, in a tree of the file's group.
 *
 * A lost line cannot be read (-EIO) until it is stored to as a whole, punched, zeroed or cut off; a store to a part of one is refused. Each
 * owner of a shared block has his own record, so that who heals does not heal or hurt the others.
 *
 * All of these are for a locked inode, change attr->flags (INODE_LOST: it has records) for the caller to put, and do nothing for a file
 * without it.
 */
#ifndef UMBRA_FS_LOSS_H
#define UMBRA_FS_LOSS_H

#include "fs/core.h"

/* The first lost byte in [off, end), or end. */
must_check int loss_find(struct op *op, const struct inode_attr *attr, uint64_t off, uint64_t end,
			 uint64_t *lost_off);

/* -EIO if [off, end) covers a part of a lost line, but not all of it that the file has. */
must_check int loss_may_store(struct op *op, const struct inode_attr *attr, uint64_t off, uint64_t end);
/* [off, end) has been stored in this transaction: the lines in it are whole again. */
must_check int loss_stored(struct op *op, struct inode_attr *attr, uint64_t off, uint64_t end);
/* The file ends at size: what its last block has past that is not lost. */
must_check int loss_cut(struct op *op, struct inode_attr *attr, uint64_t size);
/* Blocks [lo, hi) go. *done is false when the transaction is full. */
must_check int loss_drop(struct op *op, struct inode_attr *attr, uint64_t lo, uint64_t hi, bool *done);
/* The records of blocks [lo, hi), at most LOSS_SHIFT_BLK of them, move by so many blocks. */
#define LOSS_SHIFT_BLK 8u
must_check int loss_shift(struct op *op, const struct inode_attr *attr, uint64_t lo, uint64_t hi,
			  uint64_t by_blk);

/* Those of the lines of one block that the file has: not what lies past its end. */
uint64_t loss_of(const struct inode_attr *attr, uint64_t file_blk, uint64_t lines);
/* Lines of one block are lost (any file; sets INODE_LOST). Those past the end of the file are not: *added without them. */
must_check int loss_add(struct op *op, struct inode_attr *attr, uint64_t file_blk, uint64_t lost_lines,
			uint64_t *added);

/* The lost lines of one block; these are whole again (what they hold has been stored). */
must_check int loss_get(struct op *op, const struct inode_attr *attr, uint64_t file_blk, uint64_t *lines);
/* The same of a file whose inode may be damaged: what its records say. */
must_check int loss_recorded(struct op *op, uint64_t ino, uint64_t file_blk, uint64_t *lines);
must_check int loss_clear(struct op *op, struct inode_attr *attr, uint64_t file_blk, uint64_t lines);

/* How many records the blocks [lo, hi) have, at most max. */
must_check int loss_count(struct op *op, const struct inode_attr *attr, uint64_t lo, uint64_t hi,
			  unsigned max, unsigned *count);
/*
 * Blocks [src_blk, + count_blk) of src come to stand at dst_blk of dst (which may be the same file): dst has lost there what src has, and
 * nothing else. At most LOSS_COPY_MAX records in both, or -EFBIG.
 */
#define LOSS_COPY_MAX 1024u
must_check int loss_copy(struct op *op, const struct inode_attr *src, uint64_t src_blk,
			 struct inode_attr *dst, uint64_t dst_blk, uint64_t count_blk);

#endif
