/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pieces of a file that large pages can map: 2 MiB of it that are one chunk of the device.
 *
 * The file's stream sets a chunk aside (space_window_chunk()), of which block k is for block k of the piece, and what is not there yet is stored there: copied, or zeroed, or set aside past the end of the
 * file. That takes as many transactions as it takes; after each of them the file is what it was before. What fits into the chunk where most of it
 * lies already is completed there, so that the end of a file costs no copy.
 */
#include <assert.h>
#include <errno.h>
#include <sys/stat.h>

#include "fs/data.h"
#include "fs/loss.h"
#include "space/space.h"
#include "util/sabotage.h"

#define HALF_BLK (CHUNK_BLOCKS / 2)
#define PASSES_MAX 2048u

struct whole_call {
	uint64_t ino, lo_blk;
	bool store;
	bool anew; /* the chunk that the stream has for it is no good */
	bool done; /* out */
};

/* What is the same of a file: a part of an extent with as many owners, or of a hole. */
struct run {
	struct extent e; /* of a hole, dev_blk is 0 */
	bool shared;
};

struct piece {
	struct op *op;
	struct inode *inode;
	struct inode_attr *attr;
	struct btree bt;
	uint64_t lo_blk, hi_blk;
	uint64_t end_blk;   /* what lies behind it is past the end of the file */
	uint64_t chunk_blk; /* where most of it lies, or is to lie; 0: nowhere */
	bool reserved;      /* the stream has the rest of it */
	bool store;
	/* As it is */
	uint64_t data_blk;
	bool shared, fine;
	uint64_t have[CHUNK_BLOCKS / 64];
};

static int run_at(struct piece *p, uint64_t blk, struct run *r)
{
	uint64_t refs = 1;
	int rc = extent_find(&p->bt, blk, &r->e);

	if (rc && rc != -ENOENT)
		return rc;
	if (rc == -ENOENT || r->e.file_blk > blk) {
		r->e.count_blk = (rc ? p->hi_blk : u64_min(p->hi_blk, r->e.file_blk)) - blk;
		r->e.file_blk = blk;
		r->e.dev_blk = 0;
		r->e.flags = 0;
		rc = 0;
	} else {
		r->e.count_blk = u64_min(r->e.count_blk, p->hi_blk - blk);
		if (p->attr->flags & INODE_SHARED)
			rc = space_refs(p->op->tx, r->e.dev_blk, r->e.count_blk, &refs, &r->e.count_blk);
		if (!rc && refs == 1 && extent_was_dropped(p->op, r->e.dev_blk, &r->e.count_blk))
			refs = 2;
	}
	if (blk < p->end_blk)
		r->e.count_blk = u64_min(r->e.count_blk, p->end_blk - blk);
	r->shared = refs > 1;
	return rc;
}

/* The chunk in which the run lies as the file does; 0: none. */
static uint64_t run_chunk(const struct piece *p, const struct run *r)
{
	uint64_t in_blk = r->e.file_blk - p->lo_blk;

	if (r->e.dev_blk % CHUNK_BLOCKS != in_blk || (r->shared && p->store))
		return 0;
	return r->e.dev_blk - in_blk;
}

static bool run_is_data(const struct run *r)
{
	return r->e.dev_blk != 0 && !(r->e.flags & EXTENT_UNWRITTEN);
}

/* Whether it is what it should be, where it should be. */
static bool run_is_right(const struct piece *p, const struct run *r)
{
	return p->chunk_blk != 0 && run_chunk(p, r) == p->chunk_blk &&
	       (r->e.file_blk >= p->end_blk || run_is_data(r));
}

/* Goes over what there is, and finds the chunk that has most of it. */
static int piece_look(struct piece *p)
{
	uint64_t most_blk = 0, blk;
	struct run r;
	int rc = 0;

	p->data_blk = p->chunk_blk = 0;
	p->shared = false;
	for (blk = p->lo_blk; !rc && blk < p->hi_blk; blk += r.e.count_blk) {
		rc = run_at(p, blk, &r);
		if (rc)
			break;
		p->data_blk += run_is_data(&r) ? r.e.count_blk : 0;
		p->shared |= r.shared;
		if (run_chunk(p, &r) != 0 && r.e.count_blk > most_blk) {
			most_blk = r.e.count_blk;
			p->chunk_blk = run_chunk(p, &r);
		}
	}
	if (p->reserved)
		p->chunk_blk = space_window_at(p->op->fs->pool, &p->inode->stream, p->lo_blk);
	return rc;
}

/* Which blocks are in place, and whether all is as it should be. */
static int piece_compare(struct piece *p)
{
	struct run r;
	int rc = 0;

	p->fine = true;
	for (unsigned i = 0; i < CHUNK_BLOCKS / 64; i++)
		p->have[i] = 0;
	for (uint64_t blk = p->lo_blk; blk < p->hi_blk; blk += r.e.count_blk) {
		uint64_t k = blk - p->lo_blk;

		rc = run_at(p, blk, &r);
		if (rc)
			return rc;
		p->fine &= run_is_right(p, &r);
		if (p->chunk_blk != 0 && run_chunk(p, &r) == p->chunk_blk)
			for (uint64_t end = k + r.e.count_blk; k < end; k++)
				p->have[k / 64] |= 1ull << k % 64;
	}
	return 0;
}

/* What one may do for who only reads. */
static int piece_allowed(const struct piece *p)
{
	uint64_t lost_at;
	bool end = p->end_blk < p->hi_blk;
	int rc;

	if (!p->store && (p->data_blk < HALF_BLK || (p->shared && !end)))
		return -EOPNOTSUPP;
	rc = loss_find(p->op, p->attr, p->lo_blk << BLOCK_SHIFT, p->hi_blk << BLOCK_SHIFT, &lost_at);
	return !rc && lost_at < p->hi_blk << BLOCK_SHIFT ? -EOPNOTSUPP : rc;
}

/* A chunk for it: the one that has most of it if the rest of that is free, else another one. */
static int piece_reserve(struct piece *p)
{
	struct space_want want = { .agno_hint = inode_agno(p->op->fs, p->attr->ino),
				   .file_blk = p->lo_blk,
				   .stream = &p->inode->stream };
	int rc = -ENOSPC;

	if (p->reserved)
		return 0;
	if (p->chunk_blk != 0)
		rc = space_window_chunk(p->op->tx, &want, p->chunk_blk, p->have, &p->chunk_blk);
	return rc == -ENOSPC ? space_window_chunk(p->op->tx, &want, 0, NULL, &p->chunk_blk) : rc;
}

/* ---- one run of it ---- */

static int run_drop(struct piece *p, const struct run *r)
{
	struct extent gone;
	int rc = extent_drop(p->op, &p->bt, p->attr->ino, r->e.file_blk, r->e.file_blk + r->e.count_blk,
			     &gone);

	if (!rc)
		p->attr->blocks -= gone.count_blk;
	return rc;
}

/* Blocks past the end of the file. */
static int run_set_aside(struct piece *p, const struct run *r)
{
	struct space_want want = { .agno_hint = inode_agno(p->op->fs, p->attr->ino),
				   .file_blk = r->e.file_blk,
				   .count_blk = r->e.count_blk,
				   .stream = &p->inode->stream };
	struct extent e = { .file_blk = r->e.file_blk, .flags = EXTENT_UNWRITTEN };
	struct dax *dax = pool_dax(p->op->fs->pool);
	int rc = space_alloc(p->op->tx, &want, &e.dev_blk, &e.count_blk);

	/* Nobody is to see there what others have left. */
	if (!rc)
		rc = op_dax(p->op, dax_zero(dax, e.dev_blk << BLOCK_SHIFT, e.count_blk << BLOCK_SHIFT));
	if (!rc)
		rc = space_own(p->op->tx, e.dev_blk, e.count_blk, p->attr->ino, e.file_blk);
	if (!rc)
		rc = extent_add(p->op, &p->bt, &e);
	if (rc)
		return rc;
	p->attr->blocks += e.count_blk;
	p->attr->flags |= INODE_UNWRITTEN;
	return 0;
}

/* What is at blk now lies where it should: somebody may have taken the chunk away from the stream. */
static int run_check(struct piece *p, uint64_t blk)
{
	struct run r;
	int rc = run_at(p, blk, &r);

	return rc || r.e.dev_blk == p->chunk_blk + (blk - p->lo_blk) ? rc : -ENOSPC;
}

/* *fixed: something was done. */
static int run_fix(struct piece *p, struct run *r, bool *fixed)
{
	static const struct data_src zeroes = { NULL, 0 };
	uint64_t blk = r->e.file_blk, end_blk = blk + r->e.count_blk, stored_end;
	bool inside = blk < p->end_blk;
	int rc = 0;

	*fixed = !run_is_right(p, r);
	if (!*fixed)
		return 0;
	if (run_is_data(r) && inside)
		return data_copy(p->op, p->inode, p->attr, &r->e, &r->e.count_blk);
	if (r->e.dev_blk != 0 && run_chunk(p, r) != p->chunk_blk)
		rc = run_drop(p, r);
	if (!rc && inside)
		rc = data_store(p->op, p->inode, p->attr, &zeroes, blk << BLOCK_SHIFT, end_blk << BLOCK_SHIFT,
				&stored_end);
	else if (!rc)
		rc = run_set_aside(p, r);
	return rc;
}

/* Until all is there, or the transaction is full. */
static int piece_fix(struct piece *p, bool *done)
{
	uint64_t blk = p->lo_blk;
	int rc = 0;

	while (!rc && blk < p->hi_blk && txn_has_room(p->op->tx, 2 * DATA_STEP_UNITS)) {
		struct run r;
		bool fixed;

		rc = run_at(p, blk, &r);
		if (!rc)
			rc = run_fix(p, &r, &fixed);
		if (!rc && fixed)
			rc = run_check(p, blk);
		/* Perhaps not all of it was done at once. */
		if (!rc && !fixed)
			blk += r.e.count_blk;
	}
	*done = blk >= p->hi_blk;
	return rc;
}

/* ---- the call ---- */

static int whole_op(struct op *op, void *arg)
{
	struct whole_call *call = arg;
	struct inode_attr attr;
	struct piece p = { .op = op, .attr = &attr, .store = call->store, .lo_blk = call->lo_blk };
	bool done = true;
	int rc = op_inode(op, call->ino, true, &p.inode);

	if (!rc)
		rc = inode_get(op, call->ino, &attr);
	if (!rc && !S_ISREG(attr.mode))
		rc = -EINVAL;
	if (!rc && call->store)
		rc = data_may_write(&attr);
	if (!rc && attr.data_format == DATA_INLINE && !call->store)
		rc = -EINVAL;
	if (rc)
		return rc;
	call->done = true;
	p.hi_blk = p.lo_blk + CHUNK_BLOCKS;
	p.end_blk = u64_min(blk_up(attr.size), p.hi_blk);
	if (p.lo_blk >= p.end_blk || (attr.data_format != DATA_EXTENTS && !call->store))
		return 0;
	if (attr.data_format != DATA_EXTENTS) {
		rc = op_change(op, p.inode, p.lo_blk, p.hi_blk, FS_CHANGE_MOVE);
		if (!rc)
			rc = data_to_extents(op, p.inode, &attr);
	}
	inode_data_tree(op, attr.ino, NODE_EXTENT, &p.bt);
	p.reserved = !call->anew && space_window_at(op->fs->pool, &p.inode->stream, p.lo_blk) != 0;
	if (!rc)
		rc = piece_look(&p);
	if (!rc && p.data_blk == 0 && !call->store)
		return 0;
	if (!rc)
		rc = piece_compare(&p);
	if (!rc && !p.fine) {
		rc = piece_allowed(&p);
		if (!rc && !sabotage_point("change-whole"))
			rc = op_change(op, p.inode, p.lo_blk, p.hi_blk, FS_CHANGE_MOVE);
		if (!rc)
			rc = piece_reserve(&p);
		if (!rc)
			rc = piece_fix(&p, &done);
	}
	if (!rc && call->store) {
		attr_touch(op, &attr, true);
		rc = data_kill_priv(op, &attr);
	}
	if (!rc && (call->store || !p.fine))
		rc = inode_put(op, &attr);
	call->done = done;
	return rc;
}

int fs_make_whole(struct fs *fs, const struct fs_cred *cred, uint64_t ino, uint64_t lo_blk, bool store)
{
	struct whole_call call = { .ino = ino, .lo_blk = lo_blk, .store = store };
	struct inode *inode = inode_pin(fs, ino, 1, true); /* with its stream, over all of it */
	int rc = inode ? 0 : -ENOMEM;

	assert(lo_blk % CHUNK_BLOCKS == 0);
	for (unsigned pass = 0; !rc && !call.done; pass++) {
		rc = pass < PASSES_MAX ? op_run(fs, TXN_WRITE, cred, whole_op, &call) : -ENOSPC;
		if (rc == -ENOSPC && !call.anew && pass < PASSES_MAX) {
			call.anew = true;
			call.done = false;
			rc = 0;
		} else {
			call.anew = false;
		}
	}
	if (inode)
		inode_unpin(fs, inode, 1);
	return rc;
}
