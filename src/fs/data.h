/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the parts of file data share: extents of a locked inode, stores with copy on write, chains of transactions.
 *
 * Attributes of the inode in work travel as struct inode_attr; whoever changes them calls inode_put() at the end.
 */
#ifndef UMBRA_FS_DATA_H
#define UMBRA_FS_DATA_H

#include "fs/core.h"
#include "media/ag.h"

/* Units that one step on one extent may edit at most: extent tree, refcount and rmap trees (each split up to its root), bitmap,
 * group headers, inode. Batches stop while so many fit. */
#define DATA_STEP_UNITS 36u
/* Blocks of one step: bounds the bitmap units that it edits. */
#define DATA_STEP_BLK (CHUNK_BLOCKS * 512ull)

#define FILE_BLK_END (1ull << 52) /* past the last block that a file can have */

static inline uint64_t blk_of(uint64_t off)
{
	return off >> BLOCK_SHIFT;
}

static inline uint64_t blk_up(uint64_t off)
{
	return (off >> BLOCK_SHIFT) + ((off & (BLOCK_SIZE - 1)) != 0);
}

/* ---- extent.c: the extent tree of a locked inode ---- */

/* The extent that covers file_blk, cut to start there, or the next one after it; -ENOENT: none. */
must_check int extent_find(struct btree *bt, uint64_t file_blk, struct extent *extent);
/* Whether b continues a: in the file, on the device, in kind, and in the same group. */
bool extents_join(struct pool *pool, const struct extent *a, const struct extent *b);
/* Puts an extent into a hole, merged with its neighbours where they continue each other. */
must_check int extent_add(struct op *op, struct btree *bt, const struct extent *extent);
/* Takes the first mapped piece of [lo, hi) out of the tree, at most max_blk of it; -ENOENT: nothing is mapped there. */
must_check int extent_cut(struct op *op, struct btree *bt, uint64_t lo, uint64_t hi, uint64_t max_blk,
			  struct extent *piece);

/* extent_cut() of at most DATA_STEP_BLK, and the file no longer owns the piece's blocks. */
must_check int extent_drop(struct op *op, struct btree *bt, uint64_t ino, uint64_t lo, uint64_t hi,
			   struct extent *piece);

/*
 * Whether the block lost an owner (extent_drop) in this transaction; *count_blk is cut to where the answer is the same. Then it must not be
 * stored into in place, though it may have only one owner now: until the commit the mapping that is going shows it.
 */
bool extent_was_dropped(const struct op *op, uint64_t dev_blk, uint64_t *count_blk);

/* Drops what is mapped in [lo, hi), as much as fits in this transaction; *done if nothing is left. attr->blocks follows. */
must_check int data_drop(struct op *op, struct inode_attr *attr, uint64_t lo, uint64_t hi, bool *done);

/* ---- write.c ---- */

/* A run of bytes to store: from memory, or zeroes if src is NULL. */
struct data_src {
	const uint8_t *bytes;
	uint64_t off; /* file offset of bytes[0] */
};

/* Meets what is bad of the line in whose middle dev_off is; 0 at the start of one. */
must_check int data_line_look(struct op *op, uint64_t dev_off);
/* Stores [off, end) into a locked file in extent format: in place where it is alone with its blocks, else into new ones. Stops early
 * when the transaction is full: *stored_end, which with an error says how far it got (what was stored in place stays). Grows
 * attr->blocks, not attr->size. */
must_check int data_store(struct op *op, struct inode *inode, struct inode_attr *attr,
			  const struct data_src *src, uint64_t off, uint64_t end, uint64_t *stored_end);
/* The same for any format: small files stay inline; a gap past the end is zeroed; attr->size follows. src has bytes. */
must_check int data_write(struct op *op, struct inode *inode, struct inode_attr *attr,
			  const struct data_src *src, uint64_t off, uint64_t end, uint64_t *stored_end);
/* Inline bytes (or none) become an extent tree. */
must_check int data_to_extents(struct op *op, struct inode *inode, struct inode_attr *attr);
/* Zeroes the rest of the last block past the end of the file, before the size grows. */
must_check int data_zero_tail(struct op *op, struct inode *inode, struct inode_attr *attr);
/* What a change of content takes away from setuid files, unless the caller may keep it. */
must_check int data_kill_priv(struct op *op, struct inode_attr *attr);
/* Regular file that may be changed: -EISDIR, -EINVAL, -EPERM. */
must_check int data_may_write(const struct inode_attr *attr);

/* Copies the first blocks of a written extent to others: *done_blk. */
must_check int data_copy(struct op *op, struct inode *inode, struct inode_attr *attr,
			 const struct extent *extent, uint64_t *done_blk);
/* Copies the first blocks of a written extent if they are shared; the file is alone with *done_blk of them then. */
must_check int data_unshare(struct op *op, struct inode *inode, struct inode_attr *attr,
			    const struct extent *extent, uint64_t *done_blk);

/* ---- size.c, shift.c ---- */

/* Frees blocks [lo, hi), under an intent and in several transactions if need be: attr is put and read again then. */
must_check int data_free_range(struct op *op, struct inode *inode, struct inode_attr *attr, uint64_t lo,
			       uint64_t hi);
/* FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE. */
must_check int data_shift(struct op *op, struct inode *inode, struct inode_attr *attr, int mode, uint64_t off,
			  uint64_t len);

/* ---- chain.c ---- */

/*
 * Runs step until it returns 0, each step in a transaction of its own under the inode locks that op holds. A step returns 1 when there is
 * more to do, 0 when what it edited last may be committed with the operation, or an error. It is called again after -EDEADLK and -ENOBUFS, so it keeps its
 * progress on media, or in arg by assignment right before it returns. The operation cannot start over once a step is committed.
 */
must_check int op_chain(struct op *op, int (*step)(struct op *op, void *arg), void *arg);

/*
 * The end of a chain that has committed steps under an intent, with its result: commits what the last step edited. If it cannot go on the
 * file is half-way, and the intent would later meet what others have changed since: the pool takes no more writes until a mount has finished it.
 */
must_check int op_chain_end(struct op *op, int rc);

/* An intent slot of the inode, filled but for its body; edits its unit. -ENOLCK: there is none now, op_run() waits for one. */
struct intent_ref {
	uint64_t unit_laddr;
	uint32_t index;
};
must_check int intent_make(struct op *op, const struct inode_attr *attr, enum intent_type type,
			   const uint64_t args[8], struct intent_ref *ref);
must_check int intent_edit(struct op *op, const struct intent_ref *ref, struct m_intent **intent);
must_check int intent_clear(struct op *op, const struct intent_ref *ref);
/* The unattached tree in an intent's body. */
void intent_tree(struct op *op, const struct intent_ref *ref, uint64_t ino, struct btree *bt);

/* size.c, shift.c, swap.c: go on with an intent of that type for a locked inode. */
must_check int resume_truncate(struct op *op, struct inode *inode, const struct intent_ref *ref, uint64_t lo,
			       uint64_t hi);
must_check int resume_shift(struct op *op, struct inode *inode, const struct intent_ref *ref);
must_check int resume_drop(struct op *op, struct inode *inode, const struct intent_ref *ref);

#endif
