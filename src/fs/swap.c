/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sharing extents: few of them in one transaction, many by a tree built beside the file's own and swapped in.
 *
 *	INTENT_CLONE	the intent's tree grows step by step; each new mapping is already owned by the destination
 *	swap		one transaction: the file gets the new tree, the intent the old one (INTENT_DROP), size and times
 *	INTENT_DROP	what only the old tree maps is dropped step by step
 *
 * A crash before the swap drops what only the unattached tree maps, a crash after it what only the old one maps: the same code. A
 * mapping that is in both trees is owned once.
 */
#include <errno.h>
#include <string.h>

#include "fs/clone.h"
#include "fs/loss.h"
#include "media/journal.h"
#include "util/sabotage.h"

/* Units that switching one extent edits, about, when others beside it are switched in the same transaction. */
#define SHARE_UNITS 5u
/* Losses that are copied in passing. */
#define FEW_LOSSES 16u
#define LOSS_UNITS 12u

/* How far, up to e's end, the tree maps e's file blocks to the same device blocks (*same), or does not. */
static int extent_same(struct btree *bt, const struct extent *e, uint64_t *count_blk, bool *same)
{
	struct extent own;
	int rc = extent_find(bt, e->file_blk, &own);

	*same = false;
	*count_blk = e->count_blk;
	if (rc == -ENOENT)
		return 0;
	if (rc)
		return rc;
	if (own.file_blk > e->file_blk) {
		*count_blk = u64_min(e->count_blk, own.file_blk - e->file_blk);
		return 0;
	}
	*same = own.dev_blk == e->dev_blk;
	*count_blk = u64_min(e->count_blk, own.count_blk);
	return 0;
}

/* The source's next written piece of the range from *blk (of the source) on; -ENOENT: no more. */
static int next_written(struct btree *bt, uint64_t *blk, uint64_t end_blk, struct extent *e)
{
	for (;;) {
		int rc = *blk < end_blk ? extent_find(bt, *blk, e) : -ENOENT;

		if (rc)
			return rc;
		if (e->file_blk >= end_blk)
			return -ENOENT;
		e->count_blk = u64_min(e->count_blk, end_blk - e->file_blk);
		*blk = e->file_blk + e->count_blk;
		if (!(e->flags & EXTENT_UNWRITTEN))
			return 0;
	}
}

/* Pieces that are mapped in the range, counted up to max. */
static int count_pieces(struct btree *bt, uint64_t blk, uint64_t end_blk, unsigned max, unsigned *count)
{
	while (*count < max && blk < end_blk) {
		struct extent e;
		int rc = extent_find(bt, blk, &e);

		if (rc == -ENOENT || (!rc && e.file_blk >= end_blk))
			return 0;
		if (rc)
			return rc;
		*count += 1 + (unsigned)(e.count_blk / DATA_STEP_BLK);
		blk = e.file_blk + e.count_blk;
	}
	return 0;
}

/* Losses that the range has in both files, at most max. */
static int count_losses(struct op *op, const struct clone_ends *ends, const struct share_range *r,
			unsigned max, unsigned *count)
{
	unsigned dst = 0;
	int rc = loss_count(op, &ends->src, r->src_blk, r->src_blk + r->count_blk, max, count);

	if (!rc && ends->dst.ino != 0)
		rc = loss_count(op, &ends->dst, r->dst_blk, r->dst_blk + r->count_blk, max, &dst);
	*count = (unsigned)u64_min(*count + dst, max);
	return rc;
}

static int losses_share(struct op *op, struct clone_ends *ends, const struct share_range *r)
{
	return loss_copy(op, &ends->src, r->src_blk, &ends->dst, r->dst_blk, r->count_blk);
}

/* Whoever wants to share has asked. */
static int share_check(struct op *op, const struct clone_ends *ends, const struct share_range *r)
{
	int rc;

	if (!fs_has_holders(op->fs))
		return 0;
	rc = op_change_check(op, ends->src.ino, r->src_blk, r->src_blk + r->count_blk, FS_CHANGE_SHARE);
	if (rc)
		return rc;
	return op_change_check(op, ends->dst.ino, r->dst_blk, r->dst_blk + r->count_blk, FS_CHANGE_MOVE);
}

static int share_short(struct op *op, struct clone_ends *ends, const struct share_range *r)
{
	uint64_t blk = r->src_blk;
	struct btree src, dst;
	struct extent e;
	bool done;
	int rc = data_drop(op, &ends->dst, r->dst_blk, r->dst_blk + r->count_blk, &done);

	if (!rc && !done)
		rc = -EFBIG;
	if (rc)
		return rc;
	inode_data_tree(op, ends->src.ino, NODE_EXTENT, &src);
	inode_data_tree(op, ends->dst.ino, NODE_EXTENT, &dst);
	while ((rc = next_written(&src, &blk, r->src_blk + r->count_blk, &e)) == 0) {
		e.file_blk = e.file_blk - r->src_blk + r->dst_blk;
		rc = space_share(op->tx, e.dev_blk, e.count_blk, ends->dst.ino, e.file_blk);
		if (!rc)
			rc = extent_add(op, &dst, &e);
		if (rc)
			return rc;
		ends->dst.blocks += e.count_blk;
	}
	return rc == -ENOENT ? losses_share(op, ends, r) : rc;
}

int share_fits(struct op *op, const struct clone_ends *ends, const struct share_range *range, bool *fits)
{
	const struct super *super = pool_super(txn_pool(op->tx));
	unsigned lane_units = super->lane_size_bytes / (BLOCK_SIZE + LINE_SIZE);
	unsigned few = (lane_units - DATA_STEP_UNITS) / SHARE_UNITS, pieces = 0, losses = 0;
	struct btree src, dst;
	int rc;

	inode_data_tree(op, ends->src.ino, NODE_EXTENT, &src);
	inode_data_tree(op, ends->dst.ino, NODE_EXTENT, &dst);
	rc = count_pieces(&src, range->src_blk, range->src_blk + range->count_blk, few, &pieces);
	if (!rc && ends->dst.ino != 0)
		rc = count_pieces(&dst, range->dst_blk, range->dst_blk + range->count_blk, few, &pieces);
	if (!rc)
		rc = count_losses(op, ends, range, FEW_LOSSES + 1, &losses);
	/* data_drop() does not begin without room for a whole step. */
	*fits = pieces < few && losses <= FEW_LOSSES &&
		txn_has_room(op->tx, pieces * SHARE_UNITS + (losses ? LOSS_UNITS : 0) + DATA_STEP_UNITS);
	return rc;
}

int share_now(struct op *op, struct clone_ends *ends, const struct share_range *range)
{
	bool fits;
	int rc = share_check(op, ends, range);

	if (!rc)
		rc = share_fits(op, ends, range, &fits);
	if (!rc && !fits)
		rc = -EOVERFLOW;
	if (rc)
		return rc;
	ends->did_share = true;
	return share_short(op, ends, range);
}

/* ---- the unattached tree ---- */

struct swap {
	struct clone_ends *ends;
	struct share_range range;
	struct intent_ref ref;
	uint64_t cursor_blk; /* of the destination: all before it is in the new tree */
	uint64_t blocks;     /* in the new tree */
	uint32_t dst_flags;  /* before the swap */
};

/* A step's work: extents are held back while the next one may continue them, never past the step. */
struct builder {
	struct op *op;
	struct btree own, src, tree;
	struct extent last; /* count_blk 0: none */
	uint64_t blocks;
};

static int builder_flush(struct builder *b)
{
	struct m_extent m;

	if (b->last.count_blk == 0)
		return 0;
	extent_encode(&m, &b->last);
	b->last.count_blk = 0;
	return bt_insert(&b->tree, &m, sizeof(m));
}

static int builder_add(struct builder *b, const struct extent *e)
{
	struct extent *last = &b->last;
	int rc;

	b->blocks += e->count_blk;
	if (last->count_blk != 0 && extents_join(txn_pool(b->op->tx), last, e)) {
		last->count_blk += e->count_blk;
		return 0;
	}
	rc = builder_flush(b);
	*last = *e;
	return rc;
}

/* The file's own extents of [*blk, end_blk) are taken over as they are: the next of them. */
static int take_own(struct builder *b, uint64_t *blk, uint64_t end_blk)
{
	struct extent e;
	int rc = extent_find(&b->own, *blk, &e);

	if (rc == -ENOENT || (!rc && e.file_blk >= end_blk)) {
		*blk = end_blk;
		return 0;
	}
	if (rc)
		return rc;
	e.count_blk = u64_min(e.count_blk, end_blk - e.file_blk);
	*blk = e.file_blk + e.count_blk;
	return builder_add(b, &e);
}

/* The next extent of the source, as far as the file has, or has not, the same one at that place. */
static int take_shared(struct builder *b, const struct swap *s, uint64_t *blk)
{
	uint64_t src_blk = *blk - s->range.dst_blk + s->range.src_blk, count;
	uint64_t dst_ino = s->ends->dst.ino;
	struct extent e;
	bool same;
	int rc = next_written(&b->src, &src_blk, s->range.src_blk + s->range.count_blk, &e);

	if (rc == -ENOENT) {
		*blk = s->range.dst_blk + s->range.count_blk;
		return 0;
	}
	if (rc)
		return rc;
	e.file_blk = e.file_blk - s->range.src_blk + s->range.dst_blk;
	rc = extent_same(&b->own, &e, &count, &same);
	if (rc)
		return rc;
	e.count_blk = count;
	if (!same && !sabotage_point("swap-share"))
		rc = space_share(b->op->tx, e.dev_blk, e.count_blk, dst_ino, e.file_blk);
	*blk = e.file_blk + e.count_blk;
	return rc ? rc : builder_add(b, &e);
}

static int build_step(struct op *op, void *arg)
{
	struct swap *s = arg;
	uint64_t blk = s->cursor_blk, lo = s->range.dst_blk, hi = lo + s->range.count_blk;
	struct builder b = { .op = op, .blocks = s->blocks };
	struct m_intent *it;
	int rc = intent_edit(op, &s->ref, &it);

	inode_data_tree(op, s->ends->dst.ino, NODE_EXTENT, &b.own);
	inode_data_tree(op, s->ends->src.ino, NODE_EXTENT, &b.src);
	intent_tree(op, &s->ref, s->ends->dst.ino, &b.tree);
	while (!rc && blk != UINT64_MAX && txn_has_room(op->tx, DATA_STEP_UNITS)) {
		if (blk >= lo && blk < hi)
			rc = take_shared(&b, s, &blk);
		else
			rc = take_own(&b, &blk, blk < lo ? lo : UINT64_MAX);
	}
	if (!rc)
		rc = builder_flush(&b);
	if (rc)
		return rc;
	s->cursor_blk = blk;
	s->blocks = b.blocks;
	return blk == UINT64_MAX ? 0 : 1;
}

/* The file gets the new tree, the intent the old one. */
static int swap_step(struct op *op, void *arg)
{
	struct swap *s = arg;
	struct inode_attr *dst = &s->ends->dst;
	uint8_t old[INODE_DATA_SIZE];
	struct m_inode *record;
	struct m_intent *it;
	int rc = intent_edit(op, &s->ref, &it);

	if (!rc)
		rc = inode_edit(op, dst->ino, &record);
	if (rc)
		return rc;
	memcpy(old, record->di_data, sizeof(old));
	memcpy(record->di_data, it->it_body, sizeof(old));
	if (!sabotage_point("swap-keep-old"))
		memcpy(it->it_body, old, sizeof(old));
	it->it_type = le32_of(INTENT_DROP);
	if (!sabotage_point("swap-blocks"))
		dst->blocks = s->blocks;
	dst->flags = s->dst_flags; /* an earlier try may have changed them */
	rc = losses_share(op, s->ends, &s->range);
	if (!rc)
		rc = clone_put(op, s->ends);
	if (!rc) /* all is seen now: the operation's last transaction must not touch the times again */
		s->ends->is_seen = s->ends->quiet = true;
	return rc;
}

static int drop_one(struct op *op, struct btree *junk, struct btree *own, uint64_t ino)
{
	struct extent e, piece;
	uint64_t count;
	bool same;
	int rc = extent_find(junk, 0, &e);

	if (rc)
		return rc;
	rc = extent_same(own, &e, &count, &same);
	if (rc)
		return rc;
	if (same)
		return extent_cut(op, junk, e.file_blk, e.file_blk + count, UINT32_MAX, &piece);
	return extent_drop(op, junk, ino, e.file_blk, e.file_blk + count, &piece);
}

struct drop {
	uint64_t ino;
	struct intent_ref ref;
};

static int drop_step(struct op *op, void *arg)
{
	const struct drop *d = arg;
	struct btree junk, own;
	struct m_intent *it;
	int rc = intent_edit(op, &d->ref, &it);

	intent_tree(op, &d->ref, d->ino, &junk);
	inode_data_tree(op, d->ino, NODE_EXTENT, &own);
	while (!rc) {
		if (!txn_has_room(op->tx, DATA_STEP_UNITS))
			return 1;
		rc = drop_one(op, &junk, &own, d->ino);
	}
	return rc == -ENOENT ? intent_clear(op, &d->ref) : rc;
}

int resume_drop(struct op *op, struct inode *inode, const struct intent_ref *ref)
{
	struct drop d = { inode->ino, *ref };

	return op_chain(op, drop_step, &d);
}

static int share_by_swap(struct op *op, struct clone_ends *ends, const struct share_range *range)
{
	struct swap s = { .ends = ends, .range = *range, .dst_flags = ends->dst.flags };
	unsigned losses;
	int rc = count_losses(op, ends, range, LOSS_COPY_MAX + 1, &losses), undo;

	if (!rc && losses > LOSS_COPY_MAX)
		rc = -EIO; /* more than the swap can take along */
	/* With the first step blocks are shared, whatever comes of it. */
	ends->src.flags |= INODE_SHARED;
	ends->dst.flags |= sabotage_point("shared-flag") ? 0 : INODE_SHARED;
	s.dst_flags = ends->dst.flags;
	if (!rc)
		rc = inode_put(op, &ends->src);
	if (!rc)
		rc = inode_put(op, &ends->dst);
	if (!rc)
		rc = intent_make(op, &ends->dst, INTENT_CLONE, NULL, &s.ref);
	if (!rc)
		rc = txn_roll(op->tx);
	if (rc)
		return rc;
	rc = op_chain(op, build_step, &s);
	if (!rc)
		rc = txn_roll(op->tx);
	if (!rc)
		rc = op_chain(op, swap_step, &s);
	if (!rc)
		rc = txn_roll(op->tx);
	txn_set_freeing(op->tx);
	undo = op_chain_end(op, resume_drop(op, ends->dst_inode, &s.ref));
	return rc ? rc : undo;
}

int share_extents(struct op *op, struct clone_ends *ends, const struct share_range *range)
{
	int rc = share_now(op, ends, range);

	if (rc != -EOVERFLOW)
		return rc;
	ends->did_share = true;
	return share_by_swap(op, ends, range);
}
