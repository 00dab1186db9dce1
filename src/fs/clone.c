/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Clone: a range of one file comes to stand in another (or the same) by sharing blocks.
 *
 * A few extents are switched in one transaction. Many are built as an unattached tree under an intent and swapped in at the end
 * (swap.c), so that an error or a crash in the middle leaves the destination as it was.
 *
 * What is not whole blocks is copied. A last block that ends both files is shared; its bytes past the end are zeroed first.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/clone.h"
#include "fs/data.h"
#include "util/sabotage.h"

#define COPY_BYTES (256u << 10)       /* at a time, through memory */
#define COPY_MAX ((uint64_t)64 << 20) /* by copying in one call; the caller goes on from there */

struct clone_call {
	uint64_t src, src_off, dst, dst_off, len;
	unsigned flags;
	uint64_t max_bytes;                /* no more than these of it */
	uint64_t done_bytes, shared_bytes; /* out */
	uint64_t stored_bytes; /* out, when it failed: so many first ones are stored all the same */
};

/* FICLONERANGE's rule: whole blocks, the last one may end both files. Small files that have no blocks are copied all the same. */
static bool range_is_blocks(const struct inode_attr *src, const struct inode_attr *dst,
			    const struct clone_call *c, uint64_t len)
{
	if ((c->src_off | c->dst_off) & (BLOCK_SIZE - 1))
		return false;
	return (len & (BLOCK_SIZE - 1)) == 0 ||
	       (c->src_off + len == src->size && c->dst_off + len >= dst->size);
}

static int clone_check(const struct inode_attr *src, const struct inode_attr *dst, struct clone_call *c,
		       uint64_t *len)
{
	int rc = data_may_write(dst);

	if (!rc && S_ISDIR(src->mode))
		rc = -EISDIR;
	if (!rc && !S_ISREG(src->mode))
		rc = -EINVAL;
	if (rc)
		return rc;
	if (dst->flags & INODE_APPEND && c->dst_off < dst->size)
		return -EPERM;
	if (c->dst_off > FS_SIZE_MAX)
		return -EFBIG;
	*len = c->src_off >= src->size ? 0 : u64_min(c->len, src->size - c->src_off);
	if ((c->flags & FS_CLONE_STRICT) && c->len == 0)
		*len = c->src_off >= src->size ? 0 : src->size - c->src_off;
	if (*len > FS_SIZE_MAX - c->dst_off)
		return -EFBIG;
	if ((c->flags & FS_CLONE_STRICT) && !range_is_blocks(src, dst, c, *len))
		return -EINVAL;
	if (c->src == c->dst && c->src_off < c->dst_off + *len && c->dst_off < c->src_off + *len)
		return -EINVAL;
	return 0;
}

int share_ask(struct op *op, const struct clone_ends *ends, const struct share_range *range)
{
	uint64_t src_end = range->src_blk + range->count_blk, dst_end = range->dst_blk + range->count_blk;
	int rc = 0, dst_rc = 0;

	/* Both, so that they are asked about at once. */
	if (!sabotage_point("change-share"))
		rc = op_change(op, ends->src_inode, range->src_blk, src_end, FS_CHANGE_SHARE);
	if (ends->dst_inode && !sabotage_point("change-shared"))
		dst_rc = op_change(op, ends->dst_inode, range->dst_blk, dst_end, FS_CHANGE_MOVE);
	return rc ? rc : dst_rc;
}

/* Copies [src_off, +len) through memory, as far as fits; *done, with an error too. */
static int copy_bytes(struct op *op, struct inode *dst_inode, struct inode_attr *src, struct inode_attr *dst,
		      uint64_t src_off, uint64_t dst_off, uint64_t len, uint64_t *done)
{
	uint8_t *buf = txn_alloc(op->tx, COPY_BYTES);
	int rc = buf ? 0 : -ENOMEM;

	*done = 0;
	while (!rc && *done < len && (*done == 0 || txn_has_room(op->tx, 2 * DATA_STEP_UNITS))) {
		uint64_t part = u64_min(len - *done, COPY_BYTES), to = dst_off + *done, stored_end;
		struct data_src bytes = { buf, to };

		rc = data_read(op, src, src_off + *done, buf, part);
		if (rc)
			break;
		rc = data_write(op, dst_inode, dst, &bytes, to, to + part, &stored_end);
		*done = stored_end - dst_off;
		if (stored_end < to + part)
			break;
	}
	return rc;
}

/*
 * Which part of the call can be shared: whole blocks, where both offsets lie alike in their blocks.
 *
 *	src_off        head_end                       share_end   src_off + len
 *	   |---copied-----|------------shared-------------|---copied---|
 */
static void clone_split(const struct clone_call *c, const struct inode_attr *src,
			const struct inode_attr *dst, uint64_t len, uint64_t *head, uint64_t *share)
{
	uint64_t in_blk = c->src_off & (BLOCK_SIZE - 1), end = c->src_off + len;

	*head = len;
	*share = 0;
	if (in_blk != (c->dst_off & (BLOCK_SIZE - 1)) || src->data_format == DATA_INLINE)
		return;
	*head = in_blk == 0 ? 0 : u64_min(len, BLOCK_SIZE - in_blk);
	*share = u64_align_down(end, BLOCK_SIZE);
	if (end == src->size && c->dst_off + len >= dst->size)
		*share = end; /* the last block ends both files */
	*share = *share > c->src_off + *head ? *share - c->src_off - *head : 0;
}

/* Bytes of the last block past the end of the file become zero before it is shared. False: they cannot (the block is shared already). */
int tail_ready(struct op *op, struct inode *inode, struct inode_attr *src, bool *ready)
{
	uint64_t in_blk = src->size & (BLOCK_SIZE - 1), refs = 1, same_blk;
	struct extent e;
	struct btree bt;
	int rc;

	*ready = true;
	inode_data_tree(op, src->ino, NODE_EXTENT, &bt);
	rc = in_blk ? extent_find(&bt, blk_of(src->size), &e) : -ENOENT;
	if (rc == -ENOENT || (!rc && (e.file_blk > blk_of(src->size) || (e.flags & EXTENT_UNWRITTEN))))
		return 0;
	if (!rc && (src->flags & INODE_SHARED))
		rc = space_refs(op->tx, e.dev_blk, 1, &refs, &same_blk);
	if (rc)
		return rc;
	if (refs > 1 && src->flags & INODE_LOST) { /* what is lost of it could not be copied */
		e.count_blk = 1;
		rc = data_unshare(op, inode, src, &e, &same_blk);
		refs = 1;
	}
	if (rc || refs == 1)
		return rc ? rc : data_zero_tail(op, inode, src);
	return data_is_zero(op, (e.dev_blk << BLOCK_SHIFT) + in_blk, BLOCK_SIZE - in_blk, ready);
}

static int clone_shared(struct op *op, struct clone_ends *ends, uint64_t src_off, uint64_t dst_off,
			uint64_t len)
{
	struct share_range range = {
		.src_blk = blk_of(src_off),
		.dst_blk = blk_of(dst_off),
		.count_blk = blk_up(len),
	};
	int rc = data_to_extents(op, ends->dst_inode, &ends->dst);

	if (!rc && dst_off > ends->dst.size)
		rc = op_change_grow(op, ends->dst_inode, &ends->dst);
	if (!rc && dst_off > ends->dst.size)
		rc = data_zero_tail(op, ends->dst_inode, &ends->dst);
	if (rc)
		return rc;
	ends->dst_size = u64_max(ends->dst.size, dst_off + len);
	return share_extents(op, ends, &range);
}

/* Attributes that a finished clone leaves: marks on both, size and times of the destination. */
int clone_put(struct op *op, struct clone_ends *ends)
{
	int rc = 0;

	if (ends->did_share && !(ends->src.flags & INODE_SHARED)) {
		ends->src.flags |= INODE_SHARED;
		if (ends->src.ino != ends->dst.ino)
			rc = inode_put(op, &ends->src);
	}
	if (ends->did_share && !sabotage_point("shared-flag"))
		ends->dst.flags |= INODE_SHARED;
	ends->dst.size = u64_max(ends->dst.size, ends->dst_size);
	if (!ends->quiet)
		attr_touch(op, &ends->dst, true);
	return rc ? rc : inode_put(op, &ends->dst);
}

static int clone_ranges(struct op *op, struct clone_ends *ends, struct clone_call *c, uint64_t len,
			uint64_t *done, uint64_t *shared)
{
	uint64_t head, share, part = 0;
	bool ready = true;
	int rc = 0;

	clone_split(c, &ends->src, &ends->dst, len, &head, &share);
	*done = *shared = 0;
	if (share != 0) { /* with the edges, which are copied: one of them when all else is shared */
		struct share_range all = { blk_of(c->src_off), blk_of(c->dst_off),
					   blk_up(c->src_off + len) - blk_of(c->src_off) };

		rc = share_ask(op, ends, &all);
		if (rc)
			return rc;
	}
	if (head != 0) {
		rc = copy_bytes(op, ends->dst_inode, &ends->src, &ends->dst, c->src_off, c->dst_off,
				u64_min(head, COPY_MAX), done);
		c->stored_bytes = *done;
		if (rc || *done < head)
			return rc;
		attr_touch(op, &ends->dst, true); /* what follows may commit it by itself */
	}
	if (share & (BLOCK_SIZE - 1))
		rc = tail_ready(op, ends->src_inode, &ends->src, &ready);
	if (!rc && !ready)
		share = u64_align_down(share, BLOCK_SIZE);
	if (!rc && share != 0)
		rc = clone_shared(op, ends, c->src_off + head, c->dst_off + head, share);
	if (rc)
		return rc;
	*shared = share;
	*done += share;
	if (*done < len) {
		ends->dst.size = u64_max(ends->dst.size, ends->dst_size);
		rc = copy_bytes(op, ends->dst_inode, &ends->src, &ends->dst, c->src_off + *done,
				c->dst_off + *done, len - *done, &part);
		if (rc == -ENOSPC && ends->is_seen) { /* what is seen counts */
			txn_undo(op->tx);
			part = 0;
			rc = inode_get(op, ends->dst.ino, &ends->dst);
		}
	}
	*done += part;
	return rc;
}

static int clone_once(struct op *op, void *arg)
{
	struct clone_call *c = arg;
	struct clone_ends ends = { 0 };
	uint64_t len, done = 0, shared = 0;
	int rc = clone_lock(op, &ends, c->src, c->dst);

	c->stored_bytes = 0;
	if (!rc)
		rc = clone_check(&ends.src, &ends.dst, c, &len);
	if (rc)
		return rc;
	len = u64_min(len, c->max_bytes);
	c->done_bytes = c->shared_bytes = 0;
	if (len == 0)
		return 0;
	if (c->flags & FS_CLONE_KILLPRIV)
		rc = inode_kill_priv(op, &ends.dst);
	if (!rc)
		rc = clone_ranges(op, &ends, c, len, &done, &shared);
	if (!rc)
		rc = clone_put(op, &ends);
	if (rc)
		return rc;
	c->done_bytes = done;
	c->shared_bytes = shared;
	return 0;
}

int clone_lock(struct op *op, struct clone_ends *ends, uint64_t src, uint64_t dst)
{
	int rc = op_inode_pair(op, src, true, &ends->src_inode, dst, true, &ends->dst_inode);

	if (!rc)
		rc = inode_get(op, src, &ends->src);
	return rc ? rc : inode_get(op, dst, &ends->dst);
}

int64_t fs_clone(struct fs *fs, const struct fs_cred *cred, uint64_t src, uint64_t src_off, uint64_t dst,
		 uint64_t dst_off, uint64_t len, unsigned flags, uint64_t *shared_bytes)
{
	struct clone_call c = { .src = src,
				.src_off = src_off,
				.dst = dst,
				.dst_off = dst_off,
				.len = len,
				.flags = flags,
				.max_bytes = UINT64_MAX };
	int rc;

	/* What was stored in place cannot be taken back, so it counts: once more, as far as there was space. */
	while ((rc = op_run(fs, TXN_WRITE, cred, clone_once, &c)) == -ENOSPC && c.stored_bytes > 0 &&
	       c.stored_bytes < c.max_bytes)
		c.max_bytes = c.stored_bytes;
	if (rc)
		return rc;
	if (shared_bytes)
		*shared_bytes = c.shared_bytes;
	return (int64_t)c.done_bytes;
}
