/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fallocate: allocate, punch, zero, unshare. (Collapse and insert: shift.c.)
 *
 * Each mode runs as a chain of steps, each of which leaves a sound file whose bytes are old or new, with the times of now; a step looks
 * at everything again.
 */
#include <errno.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/data.h"
#include "fs/loss.h"
#include "util/sabotage.h"

struct falloc {
	uint64_t ino, off, end;
	int mode;
	uint64_t cursor_blk; /* all before it is done */
	bool edges_done;
};

static struct space_want falloc_want(struct op *op, const struct inode_attr *attr, uint64_t blk,
				     uint64_t count_blk)
{
	return (struct space_want){
		.agno_hint = pool_laddr_ag(txn_pool(op->tx), inode_laddr(attr->ino)),
		.file_blk = blk,
		.count_blk = u64_min(count_blk, DATA_STEP_BLK),
	};
}

/* Unwritten blocks into the hole at blk, at most count_blk; *got_blk. */
static int alloc_unwritten(struct op *op, struct btree *bt, struct inode_attr *attr, uint64_t blk,
			   uint64_t count_blk, uint64_t *got_blk)
{
	struct space_want want = falloc_want(op, attr, blk, count_blk);
	struct extent e, before;
	int rc;

	if (blk > 0 && extent_find(bt, blk - 1, &before) == 0 && before.file_blk == blk - 1)
		want.goal_blk = before.dev_blk + 1;
	/* Whole chunks lie as the file does: up to the first one, and then from the start of one on. */
	if (blk % CHUNK_BLOCKS != 0)
		want.count_blk = u64_min(count_blk, CHUNK_BLOCKS - blk % CHUNK_BLOCKS);
	else if (count_blk >= CHUNK_BLOCKS)
		want.goal_blk = u64_align_up(want.goal_blk, CHUNK_BLOCKS);
	rc = space_alloc(op->tx, &want, &e.dev_blk, got_blk);
	if (rc)
		return rc;
	e.file_blk = blk;
	e.count_blk = *got_blk;
	e.flags = sabotage_point("unwritten") ? 0 : EXTENT_UNWRITTEN;
	rc = space_own(op->tx, e.dev_blk, e.count_blk, attr->ino, blk);
	if (!rc)
		rc = extent_add(op, bt, &e);
	if (rc)
		return rc;
	attr->blocks += *got_blk;
	attr->flags |= INODE_UNWRITTEN;
	return 0;
}

/* Zeroes [from, to) inside one block if something is written there. */
static int zero_edge(struct op *op, struct inode *inode, struct inode_attr *attr, uint64_t from, uint64_t to)
{
	static const struct data_src zeroes = { NULL, 0 };
	uint64_t stored_end;
	struct extent e;
	struct btree bt;
	int rc;

	if (from >= to || sabotage_point("zero-hole-edge"))
		return 0;
	inode_data_tree(op, attr->ino, NODE_EXTENT, &bt);
	rc = extent_find(&bt, blk_of(from), &e);
	if (rc == -ENOENT || (!rc && (e.file_blk > blk_of(from) || (e.flags & EXTENT_UNWRITTEN))))
		return 0;
	return rc ? rc : data_store(op, inode, attr, &zeroes, from, to, &stored_end);
}

/* The parts of [off, end) that are not whole blocks. */
static int zero_edges(struct op *op, struct inode *inode, struct inode_attr *attr, uint64_t off, uint64_t end)
{
	uint64_t first_end = u64_min(end, u64_align_up(off, BLOCK_SIZE));
	uint64_t last_start = u64_align_down(end, BLOCK_SIZE);
	int rc = zero_edge(op, inode, attr, off, first_end);

	if (!rc && last_start >= first_end)
		rc = zero_edge(op, inode, attr, last_start, end);
	return rc;
}

/* A written extent at blk becomes unwritten where it is alone, a hole where it is shared. */
static int unwrite(struct op *op, struct btree *bt, struct inode_attr *attr, const struct extent *e,
		   uint64_t *done_blk)
{
	uint64_t refs = 1, same_blk = e->count_blk;
	struct extent piece;
	bool done;
	int rc = loss_drop(op, attr, e->file_blk, e->file_blk + e->count_blk, &done);

	*done_blk = 0;
	if (rc || !done)
		return rc; /* the rest in the next step */
	if (attr->flags & INODE_SHARED)
		rc = space_refs(op->tx, e->dev_blk, e->count_blk, &refs, &same_blk);
	if (rc)
		return rc;
	if (refs > 1) { /* look again: a hole now */
		rc = extent_drop(op, bt, attr->ino, e->file_blk, e->file_blk + same_blk, &piece);
		if (!rc)
			attr->blocks -= piece.count_blk;
		return rc;
	}
	rc = extent_cut(op, bt, e->file_blk, e->file_blk + same_blk, same_blk, &piece);
	if (rc)
		return rc;
	piece.flags |= EXTENT_UNWRITTEN;
	attr->flags |= INODE_UNWRITTEN;
	*done_blk = piece.count_blk;
	return extent_add(op, bt, &piece);
}

/* Allocate, for ZERO_RANGE unwrite whole blocks, for UNSHARE_RANGE copy what is shared: one piece from blk on. */
static int alloc_piece(struct op *op, struct inode *inode, struct inode_attr *attr, const struct falloc *f,
		       uint64_t blk, uint64_t *done_blk)
{
	uint64_t hi = blk_up(f->end);
	struct extent e;
	struct btree bt;
	int rc;

	inode_data_tree(op, attr->ino, NODE_EXTENT, &bt);
	rc = extent_find(&bt, blk, &e);
	if (rc && rc != -ENOENT)
		return rc;
	if (rc == -ENOENT || e.file_blk > blk)
		return alloc_unwritten(op, &bt, attr, blk, (rc ? hi : u64_min(hi, e.file_blk)) - blk,
				       done_blk);
	e.count_blk = u64_min(u64_min(e.count_blk, hi - blk), DATA_STEP_BLK);
	*done_blk = e.count_blk;
	if (e.flags & EXTENT_UNWRITTEN)
		return 0;
	if (f->mode & FALLOC_FL_UNSHARE_RANGE)
		return data_unshare(op, inode, attr, &e, done_blk);
	if (!(f->mode & FALLOC_FL_ZERO_RANGE))
		return 0;
	if (blk < blk_up(f->off) || blk >= blk_of(f->end)) { /* the edges were zeroed by bytes */
		*done_blk = 1;
		return 0;
	}
	e.count_blk = u64_min(e.count_blk, blk_of(f->end) - blk);
	return unwrite(op, &bt, attr, &e, done_blk);
}

static int finish(struct op *op, struct inode *inode, struct inode_attr *attr, const struct falloc *f)
{
	int rc = 0;

	if (!(f->mode & FALLOC_FL_KEEP_SIZE) && f->end > attr->size) {
		rc = data_zero_tail(op, inode, attr);
		attr->size = f->end;
	}
	return rc ? rc : inode_put(op, attr);
}

static int alloc_step(struct op *op, struct inode *inode, struct inode_attr *attr, struct falloc *f)
{
	uint64_t blk = f->cursor_blk, hi = blk_up(f->end);
	int rc = 0;

	if ((f->mode & FALLOC_FL_ZERO_RANGE) && !f->edges_done)
		rc = zero_edges(op, inode, attr, f->off, f->end);
	while (!rc && blk < hi && txn_has_room(op->tx, DATA_STEP_UNITS)) {
		uint64_t done_blk = 0;

		rc = alloc_piece(op, inode, attr, f, blk, &done_blk);
		blk += done_blk;
	}
	if (rc)
		return rc;
	if (blk >= hi)
		return finish(op, inode, attr, f);
	rc = inode_put(op, attr);
	f->cursor_blk = blk;
	f->edges_done = true;
	return rc ? rc : 1;
}

static int punch_step(struct op *op, struct inode *inode, struct inode_attr *attr, struct falloc *f)
{
	uint64_t lo = blk_up(f->off), hi = blk_of(f->end), end = f->end;
	int rc = 0;

	if (end >=
	    attr->size) { /* a whole block up to the end of the file: to zero it first would take space */
		hi = blk_up(end);
		end = u64_align_up(attr->size, BLOCK_SIZE);
	}
	if (f->off < attr->size)
		rc = zero_edges(op, inode, attr, f->off, end);
	if (!rc && lo < hi)
		rc = data_free_range(op, inode, attr, lo, hi);
	return rc ? rc : inode_put(op, attr);
}

/* The same for a small file. */
static int punch_inline(struct op *op, const struct inode_attr *attr, const struct falloc *f)
{
	uint64_t end = u64_min(f->end, attr->size);
	struct m_inode *record;
	int rc = inode_edit(op, attr->ino, &record);

	if (rc)
		return rc;
	if (attr->data_format == DATA_INLINE && f->off < end)
		memset(record->di_data + f->off, 0, end - f->off);
	return inode_put(op, attr);
}

static int falloc_step(struct op *op, void *arg)
{
	struct falloc *f = arg;
	struct inode_attr attr;
	struct inode *inode;
	int rc = op_inode(op, f->ino, true, &inode);

	if (!rc)
		rc = inode_get(op, f->ino, &attr);
	if (!rc)
		rc = data_kill_priv(op, &attr);
	if (rc)
		return rc;
	attr_touch(op, &attr, true);
	if (!(f->mode & FALLOC_FL_PUNCH_HOLE)) {
		rc = data_to_extents(op, inode, &attr);
		return rc ? rc : alloc_step(op, inode, &attr, f);
	}
	return attr.data_format == DATA_EXTENTS ? punch_step(op, inode, &attr, f) :
						  punch_inline(op, &attr, f);
}

/* Of holders, before the first step. Edges are asked for where they are zeroed, holes that are only filled with unwritten blocks not at all. */
static int falloc_ask(struct op *op, struct inode *inode, const struct inode_attr *attr,
		      const struct falloc *f)
{
	uint64_t lo = blk_up(f->off), hi = blk_of(f->end);

	if (!(f->mode & FALLOC_FL_KEEP_SIZE) && f->end > attr->size) {
		int rc = op_change_grow(op, inode, attr);

		if (rc)
			return rc;
	}
	if (f->mode & FALLOC_FL_UNSHARE_RANGE)
		return op_change_store(op, inode, attr, blk_of(f->off), blk_up(f->end), false);
	if (!(f->mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) || sabotage_point("change-punch"))
		return 0;
	if (f->mode & FALLOC_FL_PUNCH_HOLE && f->end >= attr->size)
		hi = blk_up(f->end);
	return lo < hi ? op_change(op, inode, lo, hi, FS_CHANGE_MOVE) : 0;
}

/* Lines that are zeroed in part are met before anything is zeroed. */
static int edges_look(struct op *op, const struct inode_attr *attr, const struct falloc *f)
{
	int rc = 0;

	for (unsigned i = 0; i < 2 && !rc && attr->data_format == DATA_EXTENTS; i++) {
		uint64_t at = i == 0 ? f->off : f->end;
		struct extent e;
		struct btree bt;

		if (at % LINE_SIZE == 0 || at >= attr->size || sabotage_point("edges-look"))
			continue;
		inode_data_tree(op, attr->ino, NODE_EXTENT, &bt);
		rc = extent_find(&bt, blk_of(at), &e);
		if (!rc && e.file_blk == blk_of(at) && !(e.flags & EXTENT_UNWRITTEN))
			rc = data_line_look(op, (e.dev_blk << BLOCK_SHIFT) + at % BLOCK_SIZE);
		if (rc == -ENOENT)
			rc = 0;
	}
	return rc;
}

struct falloc_call {
	uint64_t ino, off, len;
	int mode;
};

static int falloc_once(struct op *op, void *arg)
{
	const struct falloc_call *c = arg;
	struct inode_attr attr;
	struct inode *inode;
	int rc = op_inode(op, c->ino, true, &inode);
	struct falloc f = {
		.ino = c->ino,
		.off = c->off,
		.end = c->off + c->len,
		.mode = c->mode,
		.cursor_blk = blk_of(c->off),
	};

	if (!rc)
		rc = inode_get(op, c->ino, &attr);
	if (rc)
		return rc;
	if (!S_ISREG(attr.mode))
		return S_ISDIR(attr.mode) ? -EISDIR : -ENODEV;
	if (attr.flags & INODE_IMMUTABLE || ((attr.flags & INODE_APPEND) && (c->mode & ~FALLOC_FL_KEEP_SIZE)))
		return -EPERM;
	if (c->mode == FALLOC_FL_COLLAPSE_RANGE || c->mode == FALLOC_FL_INSERT_RANGE)
		return data_shift(op, inode, &attr, c->mode, c->off, c->len);
	if (c->mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		rc = loss_may_store(op, &attr, f.off, f.end);
	if (!rc && c->mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		rc = edges_look(op, &attr, &f);
	if (!rc)
		rc = falloc_ask(op, inode, &attr, &f);
	if (rc)
		return rc;
	return op_chain(op, falloc_step, &f);
}

static bool mode_is_known(int mode)
{
	switch (mode) {
	case 0:
	case FALLOC_FL_KEEP_SIZE:
	case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
	case FALLOC_FL_ZERO_RANGE:
	case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
	case FALLOC_FL_COLLAPSE_RANGE:
	case FALLOC_FL_INSERT_RANGE:
	case FALLOC_FL_UNSHARE_RANGE:
	case FALLOC_FL_UNSHARE_RANGE | FALLOC_FL_KEEP_SIZE:
		return true;
	default:
		return false;
	}
}

int fs_fallocate(struct fs *fs, const struct fs_cred *cred, uint64_t ino, int mode, uint64_t off,
		 uint64_t len)
{
	struct falloc_call c = { .ino = ino, .off = off, .len = len, .mode = mode };
	bool frees = mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_COLLAPSE_RANGE);

	if (!mode_is_known(mode))
		return -EOPNOTSUPP;
	if (len == 0 || off >> 63 || len >> 63)
		return -EINVAL;
	if (off > FS_SIZE_MAX || len > FS_SIZE_MAX - off)
		return -EFBIG;
	return op_run(fs, frees ? TXN_FREEING : TXN_WRITE, cred, falloc_once, &c);
}
