/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Stores into files: in place where the file is alone with its blocks, copy on write where they are shared.
 *
 * New blocks are filled completely (data, copied edges, zeroes) before the transaction that makes them visible; the commit fences
 * them first. Bytes of a block past the end of the file are never copied: they may be left over from before a truncate.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/data.h"
#include "fs/loss.h"
#include "util/sabotage.h"

#define UNSHARE_BLK 1024u /* copied in one step of unshare */

/* One store in work: [pos, end) lies in a single extent or hole. */
struct store {
	struct op *op;
	struct inode *inode;
	struct inode_attr *attr;
	const struct data_src *src;
	struct btree bt;
	uint64_t pos, end;
	bool no_space; /* the step that failed had edited nothing: there were no blocks for it */
};

int data_may_write(const struct inode_attr *attr)
{
	if (S_ISDIR(attr->mode))
		return -EISDIR;
	if (!S_ISREG(attr->mode))
		return -EINVAL;
	return attr->flags & INODE_IMMUTABLE ? -EPERM : 0;
}

int data_kill_priv(struct op *op, struct inode_attr *attr)
{
	return op->cred && op->cred->kill_priv_exempt ? 0 : inode_kill_priv(op, attr);
}

static struct dax *store_dax(const struct store *s)
{
	return pool_dax(txn_pool(s->op->tx));
}

/* A copy may begin with its last bytes, so that a store which is to be refused for its first line must not begin. */
int data_line_look(struct op *op, uint64_t dev_off)
{
	uint8_t byte;

	if (dev_off % LINE_SIZE == 0)
		return 0;
	return op_dax(op,
		      dax_load(pool_dax(op->fs->pool), &byte, u64_align_down(dev_off, LINE_SIZE), 1, NULL));
}

/* The caller's bytes [from, to) of the file go to dev_off. */
static int store_bytes(const struct store *s, uint64_t from, uint64_t to, uint64_t dev_off)
{
	if (from >= to)
		return 0;
	if (!s->src->bytes)
		return op_dax(s->op, dax_zero(store_dax(s), dev_off, to - from));
	return op_dax(s->op,
		      dax_store(store_dax(s), dev_off, s->src->bytes + (from - s->src->off), to - from));
}

/* What the file has in [from, to) goes to new_off: from old_off if there is something, zeroes past the end of the file. */
static int store_edge(const struct store *s, uint64_t from, uint64_t to, uint64_t old_off, uint64_t new_off)
{
	uint64_t keep = 0;
	int rc = 0;

	if (from >= to)
		return 0;
	if (old_off != 0 && from < s->attr->size)
		keep = u64_min(to, s->attr->size) - from;
	if (keep != 0)
		rc = dax_move(store_dax(s), new_off, old_off, keep);
	if (!rc && keep < to - from && !sabotage_point("zero-edge"))
		rc = dax_zero(store_dax(s), new_off + keep, to - from - keep);
	return op_dax(s->op, rc);
}

/* Fills count_blk blocks at dev_blk, the file's from file_blk on: edges around [pos, end) from old_blk (0 = zeroes). */
static int store_fill(const struct store *s, uint64_t file_blk, uint64_t count_blk, uint64_t dev_blk,
		      uint64_t old_blk)
{
	uint64_t start = file_blk << BLOCK_SHIFT, stop = (file_blk + count_blk) << BLOCK_SHIFT;
	uint64_t dev = dev_blk << BLOCK_SHIFT, old = old_blk << BLOCK_SHIFT;
	uint64_t pos = u64_min(s->pos, stop), end = u64_min(s->end, stop);
	int rc;

	if (!sabotage_point("data-stored-new"))
		txn_data_stored(s->op->tx);
	rc = store_edge(s, start, pos, old, dev);
	if (!rc)
		rc = store_bytes(s, pos, end, dev + (pos - start));
	if (!rc)
		rc = store_edge(s, end, stop, old ? old + (end - start) : 0, dev + (end - start));
	return rc;
}

static int store_alloc(struct store *s, uint64_t file_blk, uint64_t count_blk, uint64_t goal_blk,
		       uint64_t *dev_blk, uint64_t *got_blk)
{
	struct space_want want = {
		.agno_hint = pool_laddr_ag(txn_pool(s->op->tx), inode_laddr(s->attr->ino)),
		.goal_blk = goal_blk,
		.file_blk = file_blk,
		.count_blk = count_blk,
		.stream = &s->inode->stream,
	};
	int rc = space_alloc(s->op->tx, &want, dev_blk, got_blk);

	s->no_space = rc == -ENOSPC;
	return rc;
}

/* The block after the one that precedes file_blk in the file: the best place for what follows. */
static uint64_t store_goal(struct store *s, uint64_t file_blk)
{
	struct extent e;

	if (file_blk == 0 || extent_find(&s->bt, file_blk - 1, &e) != 0 || e.file_blk != file_blk - 1)
		return 0;
	return e.dev_blk + 1;
}

static int store_hole(struct store *s, uint64_t count_blk)
{
	uint64_t file_blk = blk_of(s->pos), dev_blk, got_blk;
	int rc = store_alloc(s, file_blk, count_blk, store_goal(s, file_blk), &dev_blk, &got_blk);

	if (!rc)
		rc = store_fill(s, file_blk, got_blk, dev_blk, 0);
	if (!rc)
		rc = space_own(s->op->tx, dev_blk, got_blk, s->attr->ino, file_blk);
	if (!rc)
		rc = extent_add(s->op, &s->bt, &(struct extent){ file_blk, dev_blk, got_blk, 0 });
	if (rc)
		return rc;
	s->attr->blocks += got_blk;
	s->pos = u64_min(s->end, (file_blk + got_blk) << BLOCK_SHIFT);
	return 0;
}

static int store_unwritten(struct store *s, const struct extent *e)
{
	struct extent piece;
	int rc = store_fill(s, e->file_blk, e->count_blk, e->dev_blk, 0);

	if (!rc)
		rc = extent_cut(s->op, &s->bt, e->file_blk, e->file_blk + e->count_blk, e->count_blk, &piece);
	if (rc)
		return rc;
	piece.flags &= ~EXTENT_UNWRITTEN;
	rc = extent_add(s->op, &s->bt, &piece);
	if (!rc)
		s->pos = u64_min(s->end, (piece.file_blk + piece.count_blk) << BLOCK_SHIFT);
	return rc;
}

static int store_in_place(struct store *s, const struct extent *e)
{
	uint64_t dev_off = (e->dev_blk << BLOCK_SHIFT) + (s->pos - (e->file_blk << BLOCK_SHIFT));
	uint64_t end = u64_min(s->end, (e->file_blk + e->count_blk) << BLOCK_SHIFT);
	int rc = 0;

	if (!sabotage_point("store-look"))
		rc = data_line_look(s->op, dev_off);
	if (!rc)
		rc = store_bytes(s, s->pos, end, dev_off);
	if (rc)
		return rc;
	if (end > s->attr->size && !sabotage_point("data-stored-past-end"))
		txn_data_stored(s->op->tx); /* the new size will make them visible */
	s->pos = end;
	return 0;
}

static int store_copy(struct store *s, const struct extent *e)
{
	uint64_t dev_blk, got_blk, from_blk = e->flags & EXTENT_UNWRITTEN ? 0 : e->dev_blk;
	struct extent piece;
	int rc = store_alloc(s, e->file_blk, e->count_blk, 0, &dev_blk, &got_blk);

	if (!rc)
		rc = store_fill(s, e->file_blk, got_blk, dev_blk, from_blk);
	if (!rc)
		rc = extent_drop(s->op, &s->bt, s->attr->ino, e->file_blk, e->file_blk + got_blk, &piece);
	if (!rc)
		rc = space_own(s->op->tx, dev_blk, got_blk, s->attr->ino, e->file_blk);
	if (!rc)
		rc = extent_add(s->op, &s->bt, &(struct extent){ e->file_blk, dev_blk, got_blk, 0 });
	if (!rc)
		s->pos = u64_min(s->end, (e->file_blk + got_blk) << BLOCK_SHIFT);
	return rc;
}

/* One piece of [pos, end), by what is there now. */
static int store_step(struct store *s)
{
	uint64_t blk = blk_of(s->pos), need_blk = blk_up(s->end) - blk, refs = 1, same_blk;
	struct extent e;
	bool unwritten;
	int rc = extent_find(&s->bt, blk, &e);

	if (rc == -ENOENT)
		return store_hole(s, need_blk);
	if (rc)
		return rc;
	if (e.file_blk > blk)
		return store_hole(s, u64_min(need_blk, e.file_blk - blk));
	e.count_blk = u64_min(e.count_blk, need_blk);
	unwritten = e.flags & EXTENT_UNWRITTEN;
	/* Of what is unwritten only blocks in bad memory have another owner (poison_stay.c). */
	if (s->attr->flags & INODE_SHARED && (!unwritten || atomic_load(&s->op->fs->bad_in_use))) {
		rc = space_refs(s->op->tx, e.dev_blk, e.count_blk, &refs, &same_blk);
		if (rc)
			return rc;
		e.count_blk = same_blk;
		if (refs == 1 && extent_was_dropped(s->op, e.dev_blk, &e.count_blk))
			refs = 2;
	}
	if (refs > 1 && !sabotage_point("copy-on-write"))
		return store_copy(s, &e);
	return unwritten ? store_unwritten(s, &e) : store_in_place(s, &e);
}

int data_store(struct op *op, struct inode *inode, struct inode_attr *attr, const struct data_src *src,
	       uint64_t off, uint64_t end, uint64_t *stored_end)
{
	struct store s = { .op = op, .inode = inode, .attr = attr, .src = src, .pos = off, .end = end };
	int rc = op_change_store(op, inode, attr, blk_of(off), blk_up(end), true);

	inode_data_tree(op, attr->ino, NODE_EXTENT, &s.bt);
	while (!rc && s.pos < end && (s.pos == off || txn_has_room(op->tx, DATA_STEP_UNITS)))
		rc = store_step(&s);
	/* What was stored in place cannot be taken back, so it counts: the caller hears of a short store. */
	if (rc == -ENOSPC && s.no_space && s.pos > off)
		rc = 0;
	*stored_end = s.pos;
	return rc ? rc : loss_stored(op, attr, off, s.pos);
}

int data_copy(struct op *op, struct inode *inode, struct inode_attr *attr, const struct extent *extent,
	      uint64_t *done_blk)
{
	static const struct data_src nothing = { NULL, 0 };
	struct store s = { .op = op, .inode = inode, .attr = attr, .src = &nothing };
	int rc;

	/* An empty store at the end of the piece: everything before it is edge, copied. */
	inode_data_tree(op, attr->ino, NODE_EXTENT, &s.bt);
	s.pos = s.end = (extent->file_blk + extent->count_blk) << BLOCK_SHIFT;
	rc = store_copy(&s, extent);
	*done_blk = blk_of(s.pos) - extent->file_blk;
	return rc;
}

int data_unshare(struct op *op, struct inode *inode, struct inode_attr *attr, const struct extent *extent,
		 uint64_t *done_blk)
{
	struct extent e = *extent;
	uint64_t refs = 1;
	int rc = op_change_store(op, inode, attr, e.file_blk, e.file_blk + e.count_blk, false);

	*done_blk = e.count_blk;
	if (!rc && attr->flags & INODE_SHARED)
		rc = space_refs(op->tx, e.dev_blk, e.count_blk, &refs, done_blk);
	if (rc || refs == 1)
		return rc;
	e.count_blk = u64_min(*done_blk, UNSHARE_BLK);
	return data_copy(op, inode, attr, &e, done_blk);
}

int data_to_extents(struct op *op, struct inode *inode, struct inode_attr *attr)
{
	uint8_t bytes[INODE_INLINE_MAX];
	struct data_src src = { bytes, 0 };
	struct m_inode *record;
	uint64_t stored_end;
	int rc;

	if (attr->data_format == DATA_EXTENTS)
		return 0;
	rc = inode_edit(op, attr->ino, &record);
	if (rc)
		return rc;
	memcpy(bytes, record->di_data, sizeof(bytes));
	memset(record->di_data, 0, sizeof(record->di_data));
	if (attr->data_format == DATA_NONE || attr->size == 0) {
		attr->data_format = DATA_EXTENTS;
		return 0;
	}
	attr->data_format = DATA_EXTENTS;
	return data_store(op, inode, attr, &src, 0, attr->size, &stored_end);
}

int data_zero_tail(struct op *op, struct inode *inode, struct inode_attr *attr)
{
	static const struct data_src zeroes = { NULL, 0 };
	uint64_t size = attr->size, stored_end;
	struct extent e;
	struct btree bt;
	int rc;

	if (attr->data_format != DATA_EXTENTS || (size & (BLOCK_SIZE - 1)) == 0 ||
	    sabotage_point("zero-tail"))
		return 0;
	inode_data_tree(op, attr->ino, NODE_EXTENT, &bt);
	rc = extent_find(&bt, blk_of(size), &e);
	if (rc == -ENOENT || (!rc && (e.file_blk != blk_of(size) || (e.flags & EXTENT_UNWRITTEN))))
		return 0;
	if (rc)
		return rc;
	return data_store(op, inode, attr, &zeroes, size, u64_align_up(size, BLOCK_SIZE), &stored_end);
}

static int write_inline(struct op *op, struct inode_attr *attr, const struct data_src *src, uint64_t off,
			uint64_t end)
{
	struct m_inode *record;
	int rc = inode_edit(op, attr->ino, &record);

	if (rc)
		return rc;
	if (attr->data_format == DATA_NONE)
		memset(record->di_data, 0, sizeof(record->di_data));
	memcpy(record->di_data + off, src->bytes + (off - src->off), end - off);
	attr->data_format = DATA_INLINE;
	return 0;
}

/* Up to where it may be stored from off on. What goes before a lost line may be there already, from a try that found the line lost. */
static int write_end(struct op *op, const struct inode_attr *attr, uint64_t off, uint64_t *end)
{
	uint64_t before = u64_align_down(*end, LINE_SIZE);
	int rc = loss_may_store(op, attr, off, *end);

	if (rc != -EIO || before <= off)
		return rc;
	rc = loss_may_store(op, attr, off, before);
	if (!rc)
		*end = before;
	return rc;
}

int data_write(struct op *op, struct inode *inode, struct inode_attr *attr, const struct data_src *src,
	       uint64_t off, uint64_t end, uint64_t *stored_end)
{
	int rc;

	*stored_end = off;
	if (attr->data_format != DATA_EXTENTS && u64_max(end, attr->size) <= INODE_INLINE_MAX) {
		/* Bytes in the inode are no blocks, but where there was nothing a hole may be held. */
		rc = 0;
		if (attr->data_format == DATA_NONE && !sabotage_point("change-first"))
			rc = op_change(op, inode, 0, 1, FS_CHANGE_MOVE);
		if (!rc)
			rc = write_inline(op, attr, src, off, end);
		if (!rc)
			*stored_end = end;
	} else {
		rc = write_end(op, attr, off, &end);
		if (!rc)
			rc = data_to_extents(op, inode, attr);
		if (!rc && off > attr->size)
			rc = op_change_grow(op, inode, attr);
		if (!rc && off > attr->size)
			rc = data_zero_tail(op, inode, attr);
		if (!rc)
			rc = data_store(op, inode, attr, src, off, end, stored_end);
	}
	if (!rc)
		attr->size = u64_max(attr->size, *stored_end);
	return rc;
}

/* ---- the call ---- */

struct write_call {
	uint64_t ino, off, size_bytes;
	const uint8_t *buf;
	unsigned flags;
	struct fs_direct *direct; /* NULL: by way of the page cache */
	uint64_t done_bytes;      /* out */
	uint64_t stored_bytes;    /* out, of a store that failed: how far it got */
};

static int write_once(struct op *op, void *arg)
{
	struct write_call *call = arg, w = *call;
	struct inode_attr attr;
	struct data_src src;
	struct inode *inode;
	uint64_t end;
	uint32_t mode;
	int rc = op_inode(op, w.ino, true, &inode);

	call->stored_bytes = 0;
	if (!rc && w.direct && atomic_load(&inode->page_reads) != w.direct->page_reads)
		rc = -EAGAIN;
	if (!rc)
		rc = inode_get(op, w.ino, &attr);
	if (!rc)
		rc = data_may_write(&attr);
	if (rc == -EPERM && w.flags & FS_WRITE_CACHED)
		rc = 0; /* the store into the page was allowed before the file became immutable */
	if (rc)
		return rc;
	if (w.flags & FS_WRITE_APPEND)
		w.off = attr.size;
	if (w.flags & FS_WRITE_CACHED) {
		if (w.off >= attr.size) {
			call->done_bytes = w.size_bytes; /* cut off meanwhile: nothing to keep */
			return 0;
		}
		w.size_bytes = u64_min(w.size_bytes, attr.size - w.off);
	} else if ((attr.flags & INODE_APPEND) && w.off < attr.size) {
		return -EPERM;
	}
	if (w.off >= FS_SIZE_MAX)
		return -EFBIG;
	w.size_bytes = u64_min(w.size_bytes, FS_SIZE_MAX - w.off);
	if (w.flags & FS_WRITE_PAGES) {
		/* One that is refused takes nothing from anybody. */
		end = w.off + w.size_bytes;
		rc = write_end(op, &attr, w.off, &end);
		if (!rc || sabotage_point("page-refused"))
			rc = op_lend(op, inode, blk_of(w.off), blk_up(w.off + w.size_bytes));
	}
	if (rc)
		return rc;
	src = (struct data_src){ w.buf, w.off };
	rc = data_write(op, inode, &attr, &src, w.off, w.off + w.size_bytes, &end);
	if (rc) {
		call->stored_bytes = end - w.off;
		return rc;
	}
	attr_touch(op, &attr, true);
	mode = attr.mode;
	if (w.flags & FS_WRITE_KILLPRIV)
		rc = inode_kill_priv(op, &attr);
	else if (w.flags & FS_WRITE_DROP_CAPS)
		rc = inode_drop_caps(op, &attr);
	if (!rc)
		rc = inode_put(op, &attr);
	if (!rc && w.direct && attr.mode != mode)
		w.direct->mode_changed = true;
	/* Of an append this is how much of it is there: it cannot be stored once more in the same place. */
	if (op->cred && op->cred->receipt)
		op->answer = op->cred->receipt->value + (int64_t)(end - w.off);
	call->off = w.off;
	call->done_bytes = w.flags & FS_WRITE_CACHED && end - w.off == w.size_bytes ? call->size_bytes :
										      end - w.off;
	return rc;
}

/* There is no space for all of it: up to where there was, since bytes may be stored in place there, else a half. False: it is one block. */
static bool write_less(struct write_call *w)
{
	if (w->stored_bytes > 0)
		w->size_bytes = w->stored_bytes;
	else if (w->size_bytes > BLOCK_SIZE)
		w->size_bytes = u64_align_up(w->size_bytes / 2, BLOCK_SIZE);
	else
		return false;
	return true;
}

static ssize_t write_all(struct fs *fs, const struct fs_cred *cred, struct write_call w)
{
	size_t size_bytes = w.size_bytes, done = 0;
	int failed = 0;

	while (done < size_bytes) {
		int rc = op_run(fs, TXN_WRITE, cred, write_once, &w);

		if (rc == -ENOSPC && write_less(&w))
			continue;
		if (rc && (!(w.flags & FS_WRITE_CACHED) || sabotage_point("pages-short")))
			return done ? (ssize_t)done : rc;
		if (rc) { /* the kernel will not write this block again, but others may have a place */
			failed = rc;
			w.done_bytes = u64_min(BLOCK_SIZE - w.off % BLOCK_SIZE, size_bytes - done);
		}
		done += w.done_bytes;
		w.off += w.done_bytes;
		w.buf += w.done_bytes;
		w.size_bytes = size_bytes - done;
	}
	return failed ? failed : (ssize_t)done;
}

ssize_t fs_write(struct fs *fs, const struct fs_cred *cred, uint64_t ino, const void *buf, size_t size_bytes,
		 uint64_t off, unsigned flags)
{
	struct write_call w = { .ino = ino, .off = off, .size_bytes = size_bytes, .buf = buf, .flags = flags };

	return write_all(fs, cred, w);
}

ssize_t fs_write_direct(struct fs *fs, const struct fs_cred *cred, uint64_t ino, const void *buf,
			size_t size_bytes, uint64_t off, unsigned flags, struct fs_direct *direct)
{
	struct write_call w = { .ino = ino, .off = off, .size_bytes = size_bytes, .buf = buf, .flags = flags };

	direct->mode_changed = false;
	w.direct = direct;
	return write_all(fs, cred, w);
}
