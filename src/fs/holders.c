/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Those who map pages of files: they are asked before blocks change, and granted what may be mapped. See holders.h and the decision *direct mappings*.
 *
 * An operation names a range under the inode's write lock; if it is held the operation ends, with nothing done and no lock held the holders are asked, and it starts
 * again. Until it is over they grant nothing of the file, so it comes through in the end. Who is granted something gets it under the inode's lock, shared.
 */
#include "fs/holders.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/data.h"
#include "fs/forward.h"
#include "fs/loss.h"
#include "util/log.h"
#include "util/sabotage.h"

#define ROUNDS_MAX 8u /* in which they are asked about the same once more */
#define ROUNDS_ALL_MAX 1024u
#define STORABLE_COPIES 128u /* in one call; more are not noted */

static const struct fs_holders *holders_of(struct fs *fs)
{
	return atomic_load_explicit(&fs->holders, memory_order_acquire);
}

void fs_set_holders(struct fs *fs, const struct fs_holders *holders)
{
	atomic_store(&fs->holders, holders);
	space_set_keep(fs->pool, holders ? holders->keep : NULL, holders ? holders->arg : NULL);
}

/* ---- before a change ---- */

/* One more range, or the last one becomes longer. What there is no room for is named in the next round. */
static void change_note(struct op *op, const struct op_change *c)
{
	struct op_change *last = op->change_count ? &op->changes[op->change_count - 1] : NULL;
	bool joins = last && last->ino == c->ino && last->change == c->change && last->lo_blk <= c->lo_blk;

	if (joins && (c->lo_blk <= last->hi_blk || op->change_count == OP_CHANGES))
		last->hi_blk = u64_max(last->hi_blk, c->hi_blk);
	else if (op->change_count < OP_CHANGES)
		op->changes[op->change_count++] = *c;
}

static bool is_held(struct fs *fs, const struct inode *inode, uint64_t lo_blk, uint64_t hi_blk,
		    enum fs_change change)
{
	const struct fs_holders *holders = holders_of(fs);

	return holders && atomic_load_explicit(&inode->holders, memory_order_relaxed) > 0 &&
	       holders->held(holders->arg, inode->ino, lo_blk, hi_blk, change);
}

int op_change(struct op *op, struct inode *inode, uint64_t lo_blk, uint64_t hi_blk, enum fs_change change)
{
	if (atomic_load_explicit(&inode->holders, memory_order_relaxed) == 0 || lo_blk >= hi_blk ||
	    !is_held(op->fs, inode, lo_blk, hi_blk, change))
		return 0;
	change_note(op, &(struct op_change){ inode->ino, lo_blk, hi_blk, change });
	return -EUSERS;
}

/* Whether a store to blk replaces what is there, and how far it is the same. */
static int store_changes(struct op *op, const struct inode_attr *attr, struct btree *bt, uint64_t blk,
			 uint64_t hi_blk, bool fill, bool *changes, uint64_t *count_blk)
{
	uint64_t refs = 1;
	struct extent e;
	int rc = extent_find(bt, blk, &e);

	if (rc && rc != -ENOENT)
		return rc;
	if (rc == -ENOENT || e.file_blk > blk) {
		*count_blk = (rc ? hi_blk : u64_min(hi_blk, e.file_blk)) - blk;
		*changes = fill && !sabotage_point("change-fill");
		return 0;
	}
	*count_blk = u64_min(e.count_blk, hi_blk - blk);
	*changes = fill && e.flags & EXTENT_UNWRITTEN && !sabotage_point("change-fill");
	if (e.flags & EXTENT_UNWRITTEN || !(attr->flags & INODE_SHARED))
		return 0;
	rc = space_refs(op->tx, e.dev_blk, *count_blk, &refs, count_blk);
	if (!rc && refs == 1 && extent_was_dropped(op, e.dev_blk, count_blk))
		refs = 2;
	*changes = refs > 1 && !sabotage_point("change-copy");
	return rc;
}

int op_change_store(struct op *op, struct inode *inode, const struct inode_attr *attr, uint64_t lo_blk,
		    uint64_t hi_blk, bool fill)
{
	bool held = false;
	struct btree bt;

	/* All of it first: mostly nobody holds anything of it. */
	if (atomic_load_explicit(&inode->holders, memory_order_relaxed) == 0 || lo_blk >= hi_blk ||
	    attr->data_format != DATA_EXTENTS || !is_held(op->fs, inode, lo_blk, hi_blk, FS_CHANGE_MOVE))
		return 0;
	inode_data_tree(op, attr->ino, NODE_EXTENT, &bt);
	for (uint64_t blk = lo_blk, count_blk; blk < hi_blk; blk += count_blk) {
		bool changes = false;
		int rc = store_changes(op, attr, &bt, blk, hi_blk, fill, &changes, &count_blk);

		if (!rc && changes)
			rc = op_change(op, inode, blk, blk + count_blk, FS_CHANGE_MOVE);
		if (rc && rc != -EUSERS)
			return rc;
		held |= rc == -EUSERS;
	}
	return held ? -EUSERS : 0;
}

int op_change_grow(struct op *op, struct inode *inode, const struct inode_attr *attr)
{
	uint64_t end_blk = blk_up(attr->size);

	if (sabotage_point("change-grow"))
		return 0;
	return op_change(op, inode, end_blk, u64_align_up(end_blk, CHUNK_BLOCKS), FS_CHANGE_MOVE);
}

int op_change_check(struct op *op, uint64_t ino, uint64_t lo_blk, uint64_t hi_blk, enum fs_change change)
{
	for (unsigned i = 0; i < op->held_count; i++) {
		if (op->held[i]->ino != ino || !is_held(op->fs, op->held[i], lo_blk, hi_blk, change) ||
		    sabotage_point("change-check"))
			continue;
		log_error("inode %" PRIu64 ": blocks %" PRIu64 " to %" PRIu64
			  " were about to change while they are mapped",
			  ino, lo_blk, hi_blk);
		return -EUCLEAN;
	}
	return 0;
}

/* ---- asking ---- */

static bool was_asked(const struct changes *changes, const struct op_change *c)
{
	for (size_t i = 0; i < changes->count; i++) {
		const struct op_change *old = &changes->list[i];

		if (old->ino == c->ino && old->change == c->change && old->lo_blk <= c->lo_blk &&
		    c->hi_blk <= old->hi_blk)
			return true;
	}
	return false;
}

static int changes_room(struct changes *changes, unsigned count)
{
	size_t room = changes->count + count;
	struct op_change *more;

	if (room <= changes->room)
		return 0;
	room *= 2;
	more = realloc(changes->list, room * sizeof(*more));
	if (!more)
		return -ENOMEM;
	changes->list = more;
	changes->room = room;
	return 0;
}

void fs_on_wait(struct fs *fs, fs_wait_fn fn, void *arg)
{
	if (fn)
		fs->wait_arg = arg;
	atomic_store(&fs->wait_fn, fn);
}

int changes_begin(struct fs *fs, struct changes *changes, const struct op_change *asked, unsigned count)
{
	const struct fs_holders *holders = holders_of(fs);
	fs_wait_fn wait_fn = atomic_load(&fs->wait_fn);
	bool any_new = false;
	int rc = changes_room(changes, count);

	for (unsigned i = 0; i < count; i++)
		any_new |= !was_asked(changes, &asked[i]);
	if (!rc && ((!any_new && ++changes->again > ROUNDS_MAX) || ++changes->rounds > ROUNDS_ALL_MAX))
		rc = -EBUSY;
	if (wait_fn)
		wait_fn(fs->wait_arg, true);
	for (unsigned i = 0; i < count && !rc && holders; i++) {
		const struct op_change *c = &asked[i];

		rc = holders->begin(holders->arg, c->ino, c->lo_blk, c->hi_blk, c->change);
		if (!rc)
			changes->list[changes->count++] = *c;
	}
	if (wait_fn)
		wait_fn(fs->wait_arg, false);
	return rc;
}

void changes_end(struct fs *fs, struct changes *changes)
{
	const struct fs_holders *holders = holders_of(fs);

	while (changes->count > 0) {
		const struct op_change *c = &changes->list[--changes->count];

		if (holders && !sabotage_point("change-end"))
			holders->end(holders->arg, c->ino, c->lo_blk, c->hi_blk, c->change);
	}
	free(changes->list);
}

/* ---- who has a file ---- */

struct hold_call {
	uint64_t ino;
	struct inode *inode;
};

static int hold_op(struct op *op, void *arg)
{
	struct hold_call *call = arg;
	struct inode_attr attr;
	struct inode *inode;
	int rc = op_inode(op, call->ino, false, &inode);

	if (!rc)
		rc = inode_get(op, call->ino, &attr);
	if (rc)
		return rc;
	if (attr.nlink == 0 && !atomic_load(&inode->refs) && !atomic_load(&inode->opens))
		return -ESTALE; /* an orphan that waits for its end */
	atomic_fetch_add(&inode->pins, 1);
	atomic_fetch_add(&inode->opens, 1);
	atomic_fetch_add(&op->fs->holder_count, 1);
	atomic_fetch_add(&inode->holders, 1);
	call->inode = inode;
	return 0;
}

int fs_hold(struct fs *fs, uint64_t ino)
{
	struct hold_call call = { .ino = ino };
	int rc = op_run(fs, TXN_READ, NULL, hold_op, &call);

	if (rc && call.inode)
		fs_unhold(fs, ino);
	return rc;
}

void fs_unhold(struct fs *fs, uint64_t ino)
{
	struct inode *inode = inode_pin(fs, ino, 1, false);
	uint32_t held = inode ? atomic_load(&inode->holders) : 0;

	if (!inode)
		return;
	while (held > 0 && !atomic_compare_exchange_weak(&inode->holders, &held, held - 1))
		;
	if (held > 0) {
		atomic_fetch_sub(&fs->holder_count, 1);
		open_unhold(fs, ino);
	}
	inode_unpin(fs, inode, 1);
}

/* ---- grants ---- */

struct pieces {
	struct fs_piece list[FS_GRANT_PIECES];
	unsigned count;
};

/* False: there is no room. */
static bool piece_add(struct pieces *p, struct fs_piece piece)
{
	struct fs_piece *last = p->count ? &p->list[p->count - 1] : NULL;

	if (last && last->flags == piece.flags &&
	    (piece.flags & FS_PIECE_HOLE || last->dev_blk + last->count_blk == piece.dev_blk)) {
		uint64_t more = u64_min(piece.count_blk, UINT32_MAX - last->count_blk);

		last->count_blk += more;
		piece.file_blk += more;
		piece.count_blk -= more;
		piece.dev_blk += piece.flags & FS_PIECE_HOLE ? 0 : more;
	}
	while (piece.count_blk > 0) {
		uint64_t part = u64_min(piece.count_blk, UINT32_MAX);

		if (p->count == FS_GRANT_PIECES)
			return false;
		p->list[p->count] = piece;
		p->list[p->count++].count_blk = part;
		piece.file_blk += part;
		piece.count_blk -= part;
		piece.dev_blk += piece.flags & FS_PIECE_HOLE ? 0 : part;
	}
	return true;
}

/* Whether lines of the first block are lost, and of how many it is so, or not. */
static int lost_run(struct op *op, const struct inode_attr *attr, uint64_t blk, bool *lost,
		    uint64_t *count_blk)
{
	uint64_t end_blk = blk + *count_blk, at;
	int rc = loss_find(op, attr, blk << BLOCK_SHIFT, end_blk << BLOCK_SHIFT, &at);

	*lost = !rc && blk_of(at) == blk;
	if (!rc)
		*count_blk = *lost ? 1 : u64_min(blk_of(at), end_blk) - blk;
	return rc;
}

/* The first piece of a run that is out of use. */
struct bad_piece {
	uint64_t start_blk, end_blk;
};

static int bad_find(void *arg, const struct rmap *rmap)
{
	struct bad_piece *bad = arg;

	if (rmap->owner != OWNER_BAD)
		return 0;
	*bad = (struct bad_piece){ rmap->start_blk, rmap->start_blk + rmap->count_blk };
	return 1;
}

/* What files cannot leave (poison_stay.c); most pools have no such block. */
static int staying_run(struct op *op, uint64_t dev_blk, bool *staying, uint64_t *count_blk)
{
	struct bad_piece bad;
	int rc = 0;

	if (atomic_load_explicit(&op->fs->bad_in_use, memory_order_relaxed) && !sabotage_point("grant-stay"))
		rc = space_owners(op->tx, dev_blk, *count_blk, bad_find, &bad);
	*staying = rc == 1 && bad.start_blk <= dev_blk;
	if (rc == 1)
		*count_blk = *staying ? u64_min(*count_blk, bad.end_blk - dev_blk) : bad.start_blk - dev_blk;
	return rc < 0 ? rc : 0;
}

/* A block in bad memory, or on its way out of that, is not to be touched; of a shared run, whether it is so. */
static int leaving_run(struct op *op, uint64_t dev_blk, bool *leaving, uint64_t *count_blk)
{
	struct m_forward m = { 0 };
	uint64_t start;
	int rc = forward_next(op, dev_blk, dev_blk + *count_blk, &m);

	*leaving = false;
	if (rc == 0)
		return staying_run(op, dev_blk, leaving, count_blk);
	if (rc != 1)
		return rc;
	start = le64_get(m.fw_old_blk);
	if (start > dev_blk) {
		*count_blk = start - dev_blk;
		return staying_run(op, dev_blk, leaving, count_blk);
	}
	*count_blk = u64_min(*count_blk, start + le32_get(m.fw_count_blk) - dev_blk);
	*leaving = !(le32_get(m.fw_flags) & FORWARD_GOOD);
	return 0;
}

/* The first piece of a written extent, cut to where its flags are the same. */
static int piece_written(struct op *op, const struct inode_attr *attr, bool write, const struct extent *e,
			 struct fs_piece *piece)
{
	uint64_t refs = 1, count_blk = e->count_blk;
	bool lost = false, leaving = false;
	int rc = 0;

	if (attr->flags & INODE_LOST)
		rc = lost_run(op, attr, e->file_blk, &lost, &count_blk);
	if (!rc && attr->flags & INODE_SHARED)
		rc = space_refs(op->tx, e->dev_blk, count_blk, &refs, &count_blk);
	if (!rc && refs > 1)
		rc = leaving_run(op, e->dev_blk, &leaving, &count_blk);
	*piece = (struct fs_piece){ e->file_blk, e->dev_blk, count_blk, refs > 1 ? FS_PIECE_SHARED : 0 };
	if (lost || leaving)
		piece->flags |= FS_PIECE_LOST;
	else if (write && refs == 1)
		piece->flags |= FS_PIECE_WRITE;
	return rc;
}

/* It has one owner: past the end of a file nothing is shared. */
static struct fs_piece piece_past(bool write, const struct extent *e)
{
	return (struct fs_piece){ e->file_blk, e->dev_blk, e->count_blk,
				  FS_PIECE_PAST | (write ? FS_PIECE_WRITE : 0) };
}

static int pieces_find(struct op *op, const struct inode_attr *attr, const struct fs_grant *g,
		       struct pieces *p)
{
	uint64_t end_blk = blk_up(attr->size), hi = u64_min(g->hi_blk, end_blk);
	struct btree bt;

	if (g->whole && g->lo_blk < end_blk)
		hi = u64_min(g->hi_blk, u64_align_up(end_blk, CHUNK_BLOCKS));

	inode_data_tree(op, attr->ino, NODE_EXTENT, &bt);
	for (uint64_t blk = g->lo_blk; blk < hi;) {
		struct fs_piece piece = { .file_blk = blk, .count_blk = hi - blk, .flags = FS_PIECE_HOLE };
		struct extent e;
		int rc = attr->data_format == DATA_EXTENTS ? extent_find(&bt, blk, &e) : -ENOENT;

		if (rc && rc != -ENOENT)
			return rc;
		if (blk < end_blk)
			piece.count_blk = u64_min(piece.count_blk, end_blk - blk);
		else if (rc || e.file_blk > blk)
			return 0;
		if (!rc && e.file_blk > blk) {
			piece.count_blk = u64_min(piece.count_blk, e.file_blk - blk);
		} else if (!rc) {
			e.count_blk = u64_min(e.count_blk, piece.count_blk);
			piece.count_blk = e.count_blk;
			if (blk >= end_blk)
				piece = piece_past(g->write, &e);
			else if (!(e.flags & EXTENT_UNWRITTEN))
				rc = piece_written(op, attr, g->write, &e, &piece);
			if (rc)
				return rc;
		}
		if (!piece_add(p, piece))
			return 0;
		blk += piece.count_blk;
	}
	return 0;
}

/*
 * What the last block has past the end of the file may be anything (FORMAT.md), but a mapping shows it. Where there is something it is not granted.
 */
static int tail_look(struct op *op, const struct inode_attr *attr, const struct pieces *p)
{
	uint64_t end_blk = blk_of(attr->size), from = attr->size % BLOCK_SIZE;
	const struct dax *dax = pool_dax(op->fs->pool);
	static const uint8_t zero[LINE_SIZE];
	uint8_t bytes[LINE_SIZE];

	for (unsigned i = 0; from && i < p->count; i++) {
		const struct fs_piece *piece = &p->list[i];
		uint64_t dev_blk = piece->dev_blk + (end_blk - piece->file_blk);

		if (end_blk < piece->file_blk || end_blk - piece->file_blk >= piece->count_blk)
			continue;
		if (piece->flags & (FS_PIECE_HOLE | FS_PIECE_LOST) || sabotage_point("grant-tail"))
			return 0;
		for (uint64_t at = from, end; at < BLOCK_SIZE; at = end) {
			end = u64_align_down(at, LINE_SIZE) + LINE_SIZE;
			/* What cannot be read is seen by nobody. */
			if (dax_load(dax, bytes, (dev_blk << BLOCK_SHIFT) + at, end - at, NULL))
				dax_bad_forget();
			else if (memcmp(bytes, zero, end - at) != 0)
				return -EDOM;
		}
		return 0;
	}
	return 0;
}

struct grant_call {
	const struct fs_grant *grant;
	struct pieces *pieces;
};

static int grant_op(struct op *op, void *arg)
{
	const struct grant_call *call = arg;
	const struct fs_grant *g = call->grant;
	struct inode_attr attr;
	struct inode *inode;
	int rc = op_inode(op, g->ino, false, &inode);

	if (!rc)
		rc = inode_get(op, g->ino, &attr);
	if (rc)
		return rc;
	if (!S_ISREG(attr.mode) || attr.data_format == DATA_INLINE)
		return -EINVAL;
	if (inode_lent(inode, g->write))
		return -ERESTART;
	call->pieces->count = 0;
	rc = pieces_find(op, &attr, g, call->pieces);
	if (!rc && !g->any_tail)
		rc = tail_look(op, &attr, call->pieces);
	if (!rc)
		rc = g->take(g->arg, call->pieces->list, call->pieces->count, attr.size);
	/* Whoever gives the kernel a page just now has not seen what was taken, perhaps: see lend.c. */
	atomic_thread_fence(memory_order_seq_cst);
	if (!rc && inode_lent(inode, g->write))
		rc = -ERESTART;
	return rc;
}

int fs_grant(struct fs *fs, const struct fs_grant *grant)
{
	struct pieces pieces;
	struct grant_call call = { grant, &pieces };

	return op_run(fs, TXN_READ, NULL, grant_op, &call);
}

static int tail_op(struct op *op, void *arg)
{
	uint64_t ino = *(uint64_t *)arg;
	struct inode_attr attr;
	struct inode *inode;
	int rc = op_inode(op, ino, true, &inode);

	if (!rc)
		rc = inode_get(op, ino, &attr);
	if (!rc)
		rc = data_zero_tail(op, inode, &attr);
	return rc ? rc : inode_put(op, &attr);
}

int fs_zero_tail(struct fs *fs, uint64_t ino)
{
	return op_run(fs, TXN_WRITE, NULL, tail_op, &ino);
}

/* ---- made storable ---- */

struct storable_call {
	uint64_t ino, lo_blk, hi_blk;
	uint64_t done_blk;                   /* out; also of one that failed */
	struct copy copies[STORABLE_COPIES]; /* out */
	unsigned copy_count;
};

/* Blocks that were old's are others now. */
static void copy_note(struct storable_call *call, const struct extent *old, struct btree *bt,
		      uint64_t end_blk)
{
	struct extent e;

	if (call->copy_count == STORABLE_COPIES || extent_find(bt, old->file_blk, &e) ||
	    e.file_blk != old->file_blk || e.dev_blk == old->dev_blk)
		return;
	call->copies[call->copy_count++] = (struct copy){ .ino = call->ino,
							  .file_blk = old->file_blk,
							  .old_blk = old->dev_blk,
							  .count_blk = (uint32_t)(end_blk - old->file_blk) };
}

/* One piece from blk on. */
static int storable_piece(struct op *op, struct inode *inode, struct inode_attr *attr,
			  struct storable_call *call, uint64_t blk, uint64_t hi_blk, uint64_t *done_blk)
{
	static const struct data_src zeroes = { NULL, 0 };
	uint64_t stop = hi_blk, stored_end;
	struct extent e;
	struct btree bt;
	int rc;

	inode_data_tree(op, attr->ino, NODE_EXTENT, &bt);
	rc = extent_find(&bt, blk, &e);
	if (rc && rc != -ENOENT)
		return rc;
	if (!rc && e.file_blk == blk && !(e.flags & EXTENT_UNWRITTEN)) {
		e.count_blk = u64_min(e.count_blk, hi_blk - blk);
		rc = data_unshare(op, inode, attr, &e, done_blk);
		*done_blk += blk;
		if (!rc)
			copy_note(call, &e, &bt, *done_blk);
		return rc;
	}
	if (!rc)
		stop = u64_min(hi_blk, e.file_blk > blk ? e.file_blk : blk + e.count_blk);
	rc = data_store(op, inode, attr, &zeroes, blk << BLOCK_SHIFT, stop << BLOCK_SHIFT, &stored_end);
	*done_blk = blk_of(stored_end);
	return rc;
}

static int storable_op(struct op *op, void *arg)
{
	struct storable_call *call = arg;
	uint64_t blk = call->lo_blk, hi_blk;
	struct inode_attr attr;
	struct inode *inode;
	int rc = op_inode(op, call->ino, true, &inode);

	call->done_blk = blk;
	call->copy_count = 0;
	if (!rc)
		rc = inode_get(op, call->ino, &attr);
	if (!rc)
		rc = data_may_write(&attr);
	if (rc)
		return rc;
	hi_blk = u64_min(call->hi_blk, blk_up(attr.size));
	rc = op_change_store(op, inode, &attr, blk, hi_blk, true); /* all of it at once */
	if (!rc)
		rc = data_to_extents(op, inode, &attr);
	while (!rc && blk < hi_blk && (blk == call->lo_blk || txn_has_room(op->tx, DATA_STEP_UNITS))) {
		rc = storable_piece(op, inode, &attr, call, blk, hi_blk, &blk);
		call->done_blk = rc ? call->done_blk : blk;
	}
	attr_touch(op, &attr, true);
	if (!rc)
		rc = data_kill_priv(op, &attr);
	return rc ? rc : inode_put(op, &attr);
}

int fs_make_storable(struct fs *fs, const struct fs_cred *cred, uint64_t ino, uint64_t lo_blk,
		     uint64_t hi_blk, uint64_t *done_blk)
{
	struct storable_call call = { .ino = ino, .lo_blk = lo_blk, .hi_blk = hi_blk };
	int rc;

	/* What there was space for is worth something. */
	while ((rc = op_run(fs, TXN_WRITE, cred, storable_op, &call)) == -ENOSPC && call.done_blk > lo_blk &&
	       call.done_blk < call.hi_blk)
		call.hi_blk = call.done_blk;
	if (rc)
		return rc;
	*done_blk = call.done_blk;
	copies_note(fs, call.copies, call.copy_count);
	return 0;
}
