/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Emptying a range of the device, while others read and write: DESIGN.md 11.
 *
 * The allocator is told to hand out nothing of the range (space/close.c), so what leaves it does not come back. Then, piece by piece: journal
 * lanes (space/lane_move.c), metadata chunks (space/chunk_move.c), then all that files have, as the rmap names it. Data of one owner is copied and switched in one transaction
 * under the inode's lock, some hundred KiB at a time; what is shared goes on being shared (forward.c). What has left belongs to nobody, or
 * with mark_bad to OWNER_BAD. Passes over the range until one finds nothing to move.
 *
 * All of this is in DRAM but for what has moved: after a crash it is begun anew, and finds less.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include "dax/badblocks.h"
#include "fs/forward.h"
#include "fs/owners.h"
#include "fs/poison.h"
#include "media/journal.h"
#include "util/log.h"
#include "util/sabotage.h"

#define PIECE_BLK 64u            /* copied under one hold of an inode's lock */
#define UNWRITTEN_BLK 8192u      /* not copied */
#define STREAM_MIN_BLK PIECE_BLK /* smaller ones need no windows */
#define TRIES_MAX 1000u          /* at one place, while its owners change */
#define ITEMS_MAX 256u           /* of one step */
#define IDLE_MS 30000u
#define BAD_CHUNKS_MAX 16u /* to which a chunk cannot go */
#define PAGE 256u
#define CHUNK_BYTES ((uint64_t)CHUNK_BLOCKS * BLOCK_SIZE)

enum phase { PHASE_LANES, PHASE_CHUNKS, PHASE_OWNERS, PHASE_BAN };

/* What has become of a piece: it is gone, stays, or nothing lay there. */
enum outcome { GONE, LEFT, SPARE };

/* One copy of a metadata chunk in the range. */
struct chunk {
	uint64_t blk, lchunk;
	unsigned copy;
	uint64_t len; /* bytes in the range */
};

struct evacuation {
	struct fs *fs;
	struct fs_evacuation told;
	uint64_t lo_blk, hi_blk;
	enum phase phase;
	uint64_t lane_blk; /* lanes before it have been looked at */
	struct chunk *chunks;
	size_t chunk_count, chunk_room, chunk_at;
	uint64_t cursor_blk;
	bool any;            /* has moved in this pass */
	unsigned tries;      /* at the cursor */
	uint64_t goal_blk;   /* where shared data goes on */
	struct inode *inode; /* pinned: what its windows have set aside is for the next piece */
	uint64_t used_ms;
};

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- what is there ---- */

static int chunk_add(struct evacuation *ev, const struct fs_owner *owner)
{
	struct chunk *c;

	if (ev->chunk_count == ev->chunk_room) {
		size_t room = ev->chunk_room ? 2 * ev->chunk_room : 16;
		struct chunk *more = realloc(ev->chunks, room * sizeof(*more));

		if (!more)
			return -ENOMEM;
		ev->chunks = more;
		ev->chunk_room = room;
	}
	c = &ev->chunks[ev->chunk_count++];
	*c = (struct chunk){
		.blk = owner->after.start_blk - 1,
		.lchunk = owner->file_off,
		.copy = owner->owner == OWNER_MIRROR,
		.len = owner->len,
	};
	return 0;
}

/* Slot 0 of a group lies where its first units are looked for. */
static bool chunk_is_fixed(const struct fs *fs, uint64_t lchunk)
{
	return lchunk % (pool_super(fs->pool)->ag_size_blk / CHUNK_BLOCKS) == 0;
}

static int owner_count(struct evacuation *ev, const struct fs_owner *owner, uint64_t *seen_off,
		       uint64_t *data)
{
	uint64_t end = owner->dev_off + owner->len, start = u64_max(owner->dev_off, *seen_off);

	if (!(owner->owner & OWNER_SPECIAL) || owner->owner == OWNER_REMAP) {
		if (start < end)
			*data += end - start;
		*seen_off = u64_max(*seen_off, end);
		return 0;
	}
	if ((owner->owner != OWNER_META && owner->owner != OWNER_MIRROR) ||
	    chunk_is_fixed(ev->fs, owner->file_off))
		return 0;
	return chunk_add(ev, owner);
}

/* What copies of lanes have in the range, and what they need elsewhere. */
static void lanes_count(struct evacuation *ev, uint64_t *in_range, uint64_t *needed)
{
	uint64_t len_blk = pool_lane_len_blk(ev->fs->pool);
	struct lane_place lane;

	*in_range = *needed = 0;
	for (uint64_t blk = ev->lo_blk; pool_lane_find(ev->fs->pool, blk, ev->hi_blk, &lane);
	     blk = lane.blk + len_blk) {
		*in_range += (u64_min(lane.blk + len_blk, ev->hi_blk) - u64_max(lane.blk, ev->lo_blk)) *
			     BLOCK_SIZE;
		*needed += len_blk * BLOCK_SIZE;
	}
}

/* What has to move, and whether there is room for it. */
static int survey(struct evacuation *ev)
{
	struct fs_owners_pos pos = { 0 };
	struct fs_owner *page = malloc(PAGE * sizeof(*page));
	uint64_t seen_off = 0, data = 0, lanes, lanes_needed, free_blk;
	unsigned count = 0;
	int rc = page ? 0 : -ENOMEM;

	while (!rc) {
		rc = fs_owners(ev->fs, ev->told.dev_off, ev->told.len, &pos, page, PAGE, &count);
		if (rc || count == 0)
			break;
		for (unsigned i = 0; i < count && !rc; i++)
			rc = owner_count(ev, &page[i], &seen_off, &data);
		pos = page[count - 1].after;
	}
	free(page);
	if (rc)
		return rc;
	lanes_count(ev, &lanes, &lanes_needed);
	ev->told.total_bytes = data + lanes;
	for (size_t i = 0; i < ev->chunk_count; i++)
		ev->told.total_bytes += ev->chunks[i].len;
	ev->told.needed_chunks = ev->chunk_count;
	/* Files in more pieces than before need more nodes in their trees. */
	ev->told.needed_bytes =
		u64_align_up(data + data / 64, BLOCK_SIZE) + lanes_needed + ev->chunk_count * CHUNK_BYTES;
	space_room(ev->fs->pool, &free_blk, &ev->told.free_chunks);
	ev->told.free_bytes = free_blk * BLOCK_SIZE;
	return ev->told.needed_bytes > ev->told.free_bytes || ev->told.needed_chunks > ev->told.free_chunks ?
		       -ENOSPC :
		       0;
}

struct found {
	uint64_t lo_blk, hi_blk;
	struct rmap rmap;   /* cut to the range */
	uint64_t start_blk; /* of the record */
};

static int found_note(void *arg, const struct rmap *rmap)
{
	struct found *f = arg;
	uint64_t start = u64_max(rmap->start_blk, f->lo_blk);

	if (rmap->owner == OWNER_BAD)
		return 0;
	f->start_blk = rmap->start_blk;
	f->rmap = *rmap;
	f->rmap.start_blk = start;
	f->rmap.count_blk = u64_min(rmap->start_blk + rmap->count_blk, f->hi_blk) - start;
	f->rmap.offset_blk += rmap->owner & OWNER_SPECIAL ? 0 : start - rmap->start_blk;
	return 1;
}

/* 1: the first piece that somebody owns. */
static int find(struct op *op, void *arg)
{
	struct found *f = arg;

	return space_owners(op->tx, f->lo_blk, f->hi_blk - f->lo_blk, found_note, f);
}

/* ---- data of one owner ---- */

struct piece {
	uint64_t ino, file_blk, dev_blk, count_blk;
	bool bad;
	uint64_t moved_blk; /* out */
};

/* The block after the one that precedes it in the file. */
static uint64_t piece_goal(struct btree *bt, uint64_t file_blk)
{
	struct extent e;

	if (file_blk == 0 || extent_find(bt, file_blk - 1, &e) != 0 || e.file_blk != file_blk - 1)
		return 0;
	return e.dev_blk + 1;
}

/* As much of the extent as is moved at once; 2: it has several owners. */
static int piece_cut(struct op *op, const struct inode_attr *attr, const struct piece *p, struct extent *e)
{
	uint64_t refs = 1, same_blk = UINT64_MAX;
	int rc = 0;

	e->count_blk = u64_min(u64_min(e->count_blk, p->count_blk),
			       e->flags & EXTENT_UNWRITTEN ? UNWRITTEN_BLK : PIECE_BLK);
	if (attr->flags & INODE_SHARED)
		rc = space_refs(op->tx, e->dev_blk, e->count_blk, &refs, &same_blk);
	e->count_blk = u64_min(e->count_blk, same_blk);
	return rc ? rc : refs > 1 ? 2 : 0;
}

static int piece_store(struct op *op, const struct extent *e, uint64_t new_blk, uint64_t count_blk)
{
	int rc = 0;

	if (e->flags & EXTENT_UNWRITTEN)
		return 0;
	if (!sabotage_point("evacuate-copy"))
		rc = dax_move(pool_dax(op->fs->pool), new_blk << BLOCK_SHIFT, e->dev_blk << BLOCK_SHIFT,
			      count_blk << BLOCK_SHIFT);
	if (!sabotage_point("evacuate-fence"))
		txn_data_stored(op->tx);
	return op_dax(op, rc);
}

/* The file has these blocks in the place of the extent's first ones. */
static int piece_switch(struct op *op, struct btree *bt, const struct piece *p, const struct extent *e,
			uint64_t new_blk, uint64_t count_blk)
{
	struct extent cut;
	int rc = extent_cut(op, bt, e->file_blk, e->file_blk + count_blk, count_blk, &cut);

	if (!rc)
		rc = space_own(op->tx, new_blk, count_blk, p->ino, e->file_blk);
	if (!rc && p->bad && !sabotage_point("evacuate-ban"))
		rc = space_share(op->tx, e->dev_blk, count_blk, OWNER_BAD, e->dev_blk);
	if (!rc && !sabotage_point("evacuate-drop"))
		rc = space_drop(op->tx, e->dev_blk, count_blk, p->ino, e->file_blk);
	cut.dev_blk = new_blk;
	return rc ? rc : extent_add(op, bt, &cut);
}

/*
 * Those who read the file wait only while its extents are switched: it is copied with the inode's lock shared. A count of owners takes the
 * lock of a group, which comes after all of inodes: so for a file that may share, nothing is done before the lock is ours alone.
 *
 * 1: the file has something else there by now. 2: it shares it.
 */
static int piece_move(struct op *op, void *arg)
{
	struct piece *p = arg;
	struct space_want want = { .agno_hint = inode_agno(op->fs, p->ino), .file_blk = p->file_blk };
	struct inode_attr attr;
	struct inode *inode;
	struct extent e;
	struct btree bt;
	uint64_t new_blk, got_blk;
	int rc = op_inode(op, p->ino, false, &inode);

	if (!rc)
		rc = inode_get(op, p->ino, &attr);
	if (!rc && attr.flags & INODE_SHARED)
		rc = txn_lock_upgrade(op->tx, &inode->lock);
	if (rc || attr.data_format != DATA_EXTENTS)
		return rc == -ESTALE || !rc ? 1 : rc;
	inode_data_tree(op, p->ino, NODE_EXTENT, &bt);
	rc = extent_find(&bt, p->file_blk, &e);
	if (rc == -ENOENT || (!rc && (e.file_blk != p->file_blk || e.dev_blk != p->dev_blk)))
		return 1;
	if (!rc)
		rc = piece_cut(op, &attr, p, &e);
	if (!rc && !(e.flags & EXTENT_UNWRITTEN) && !sabotage_point("change-evacuate"))
		rc = op_change(op, inode, e.file_blk, e.file_blk + e.count_blk, FS_CHANGE_MOVE);
	if (rc)
		return rc;
	want.count_blk = e.count_blk;
	want.goal_blk = piece_goal(&bt, p->file_blk);
	want.stream = p->count_blk >= STREAM_MIN_BLK ? &inode->stream : NULL;
	rc = space_alloc(op->tx, &want, &new_blk, &got_blk);
	if (!rc)
		rc = piece_store(op, &e, new_blk, got_blk);
	if (!rc)
		rc = txn_lock_upgrade(op->tx, &inode->lock);
	if (!rc)
		rc = piece_switch(op, &bt, p, &e, new_blk, got_blk);
	if (!rc)
		p->moved_blk = got_blk;
	return rc;
}

static void inode_keep(struct evacuation *ev, uint64_t ino)
{
	if (ev->inode && ev->inode->ino == ino)
		return;
	if (ev->inode)
		inode_unpin(ev->fs, ev->inode, 1);
	ev->inode = ino ? inode_pin(ev->fs, ino, 1, true) : NULL;
}

/* Whether it makes sense to go on with what comes after it. */
static bool is_about_one(int rc)
{
	return rc == -EIO || rc == -EUCLEAN || rc == -EBUSY;
}

static int data_move(struct evacuation *ev, const struct rmap *r, uint64_t *moved_blk)
{
	struct piece p = {
		.ino = r->owner,
		.file_blk = r->offset_blk,
		.dev_blk = r->start_blk,
		.count_blk = r->count_blk,
		.bad = ev->told.mark_bad,
	};
	int rc;

	inode_keep(ev, r->owner);
	rc = op_run(ev->fs, TXN_WRITE, NULL, piece_move, &p);
	/* He may share it even if he cannot be looked at: the others do not stay because of him. */
	if (rc == 2 || is_about_one(rc)) {
		int shared_rc;

		*moved_blk = r->count_blk;
		shared_rc = forward_move(ev->fs, r->start_blk, moved_blk, ev->told.mark_bad, &ev->goal_blk);
		if (!shared_rc)
			ev->told.shared_bytes += *moved_blk * BLOCK_SIZE;
		return shared_rc == 1 && rc != 2 ? rc : shared_rc;
	}
	*moved_blk = p.moved_blk;
	if (!rc)
		ev->told.data_bytes += p.moved_blk * BLOCK_SIZE;
	return rc;
}

/* ---- metadata ---- */

/* Met on the way, and out of use by now. */
static void met_tell(struct evacuation *ev, uint64_t blk)
{
	struct fs *fs = ev->fs;
	bool marked = ev->told.mark_bad && blk >= ev->lo_blk && blk < ev->hi_blk;

	poison_enter(fs);
	poison_tell(fs, &(struct fs_poison){
				.kind = FS_POISON_META, .dev_off = blk << BLOCK_SHIFT, .moved = true });
	if (!marked && dax_badblocks_can_clear(pool_dax(fs->pool)))
		poison_clear(fs, blk << BLOCK_SHIFT);
	poison_leave(fs);
}

/* Something was to go to free memory that is bad. 1: that is out of use now, look again. */
static int target_ban(struct evacuation *ev, uint64_t dev_off)
{
	int rc = poison_handle(ev->fs, dev_off);

	return rc ? rc : 1;
}

/* 1: it does not lie there any more, or there were many bad places for it. */
static int chunk_move(struct evacuation *ev, const struct chunk *c)
{
	struct chunk_bad found;
	unsigned tries = 0;
	int rc;

	do {
		rc = space_chunk_move(ev->fs->pool, c->blk, c->lchunk, c->copy, ev->told.mark_bad, &found);
		if (rc != -EIO || found.new_off == 0)
			break;
		rc = target_ban(ev, found.new_off);
	} while (rc == 1 && ++tries < BAD_CHUNKS_MAX);
	if (rc)
		return rc;
	ev->told.meta_bytes += c->len + found.home_blk * BLOCK_SIZE;
	for (unsigned i = 0; i < CHUNK_BLOCKS; i++) {
		if (found.old[i / 64] >> i % 64 & 1)
			met_tell(ev, c->blk + i);
	}
	return 0;
}

/* A block that stands in for a unit of a chunk that lies elsewhere. 1: look again. */
static int stand_in_move(struct evacuation *ev, const struct rmap *r)
{
	struct pool *pool = ev->fs->pool;
	uint64_t laddr = r->offset_blk / 2 * BLOCK_SIZE, off, bad_blk = 0;
	unsigned copy = r->offset_blk % 2;
	uint8_t bytes[BLOCK_SIZE];
	bool met = false;
	int rc;

	pool_freeze(pool);
	rc = pool_place(pool, laddr, copy, &off);
	if (rc || off >> BLOCK_SHIFT != r->start_blk) {
		rc = -EUCLEAN;
	} else {
		met = dax_load(pool_dax(pool), bytes, off, BLOCK_SIZE, NULL) &&
		      dax_has_memory(pool_dax(pool), off);
		rc = met || ev->told.mark_bad ? space_unit_move(pool, laddr, copy, true, &bad_blk) :
						space_unit_leave(pool, laddr, copy, &bad_blk);
	}
	pool_thaw(pool);
	if (rc == -EIO && bad_blk != 0)
		return target_ban(ev, bad_blk << BLOCK_SHIFT);
	if (rc)
		return rc;
	ev->told.meta_bytes += BLOCK_SIZE;
	if (met)
		met_tell(ev, r->start_blk);
	return 0;
}

/* The target of a forward record: its owners have to arrive there first. */
static int forward_wait(struct fs *fs, const struct found *f)
{
	uint64_t old_blk = f->rmap.offset_blk + (f->rmap.start_blk - f->start_blk);
	int rc;

	poison_enter(fs);
	rc = forward_settle(fs, old_blk);
	poison_leave(fs);
	if (rc == 0)
		rc = poison_away(fs, old_blk << BLOCK_SHIFT);
	return rc < 0 ? rc : 1;
}

/* ---- journal ---- */

/* What a lane has left is free: nobody is to be given what cannot be read of it. */
static void left_look(struct evacuation *ev, uint64_t blk, uint64_t end_blk)
{
	struct dax *dax = pool_dax(ev->fs->pool);
	uint8_t bytes[BLOCK_SIZE];

	for (; blk < end_blk; blk++) {
		uint64_t off = blk << BLOCK_SHIFT;

		if (dax_load(dax, bytes, off, BLOCK_SIZE, NULL) && dax_has_memory(dax, off) &&
		    poison_handle(ev->fs, off) && log_is_first(off))
			log_warn("bad memory at 0x%" PRIx64 " of the pool, where a journal lane was", off);
	}
}

/* 1: it does not lie there any more, or a place that was to be its new one turned out to be bad. */
static int lane_move(struct evacuation *ev, const struct lane_place *lane)
{
	uint64_t end_blk = lane->blk + pool_lane_len_blk(ev->fs->pool), bad_off;
	uint64_t hi_blk = u64_min(end_blk, ev->hi_blk), lo_blk = u64_max(lane->blk, ev->lo_blk);
	bool bad = ev->told.mark_bad;
	int rc = space_lane_move(ev->fs->pool, lane, bad ? lo_blk : 0, bad ? hi_blk : 0, &bad_off);

	if (!rc) {
		ev->told.meta_bytes += (hi_blk - lo_blk) * BLOCK_SIZE;
		left_look(ev, lane->blk, end_blk);
	}
	if (rc != -EIO || bad_off == 0)
		return rc;
	return target_ban(ev, bad_off);
}

/* What is no lane is not used; it is told apart from them, so that nobody takes it for one that has stayed. */
static int journal_move(struct evacuation *ev, const struct rmap *r, uint64_t *done_blk,
			enum outcome *outcome)
{
	uint64_t end_blk = r->start_blk + r->count_blk;
	struct lane_place lane;
	int rc;

	if (pool_lane_find(ev->fs->pool, r->start_blk, end_blk, &lane)) {
		if (lane.blk <= r->start_blk) {
			*done_blk =
				u64_min(lane.blk + pool_lane_len_blk(ev->fs->pool), end_blk) - r->start_blk;
			return lane_move(ev, &lane);
		}
		*done_blk = lane.blk - r->start_blk;
	}
	if (r->offset_blk & JOURNAL_SPARE && !ev->told.mark_bad) {
		*outcome = SPARE;
		return 0;
	}
	rc = space_journal_leave(ev->fs->pool, r->start_blk, r->start_blk + *done_blk, ev->told.mark_bad);
	if (rc != -EOPNOTSUPP)
		return rc;
	*outcome = LEFT;
	return 0;
}

/* ---- steps ---- */

/* 0: *done_blk of it are seen to. 1: look again. */
static int found_move(struct evacuation *ev, const struct found *f, uint64_t *done_blk, enum outcome *outcome)
{
	const struct rmap *r = &f->rmap;
	struct chunk c = { f->start_blk, r->offset_blk, r->owner == OWNER_MIRROR, r->count_blk * BLOCK_SIZE };
	int rc;

	*done_blk = r->count_blk;
	*outcome = GONE;
	if (!(r->owner & OWNER_SPECIAL))
		return data_move(ev, r, done_blk);
	switch (r->owner) {
	case OWNER_META:
	case OWNER_MIRROR:
		rc = chunk_is_fixed(ev->fs, c.lchunk) ? -EUCLEAN : chunk_move(ev, &c);
		break;
	case OWNER_REMAP:
		rc = stand_in_move(ev, r);
		break;
	case OWNER_FORWARD:
		return forward_wait(ev->fs, f);
	case OWNER_JOURNAL:
		return journal_move(ev, r, done_blk, outcome);
	default: /* superblock */
		rc = -EUCLEAN;
	}
	if (rc != -EUCLEAN)
		return rc;
	*outcome = LEFT;
	return 0;
}

static void pass_begin(struct evacuation *ev)
{
	ev->cursor_blk = ev->lo_blk;
	ev->any = false;
	ev->told.left_bytes = 0;
}

static int owners_step(struct evacuation *ev, uint64_t *done_blk)
{
	struct found f = { .lo_blk = ev->cursor_blk, .hi_blk = ev->hi_blk };
	int rc = ev->cursor_blk < ev->hi_blk ? op_run(ev->fs, TXN_READ, NULL, find, &f) : 0;
	enum outcome outcome;

	*done_blk = 0;
	if (rc < 0)
		return rc;
	if (rc == 0) {
		if (ev->any)
			pass_begin(ev);
		else
			ev->phase = PHASE_BAN;
		return 0;
	}
	rc = found_move(ev, &f, done_blk, &outcome);
	if (pool_failed(ev->fs->pool))
		return -EROFS;
	if (rc == 1 && ++ev->tries < TRIES_MAX) {
		*done_blk = 0;
		return 0;
	}
	/* No piece is long enough for a lane: the rest goes all the same. */
	if (rc == 1 || is_about_one(rc) || (rc == -ENOSPC && f.rmap.owner == OWNER_JOURNAL)) {
		if (f.rmap.owner != OWNER_JOURNAL)
			*done_blk = u64_min(f.rmap.count_blk, PIECE_BLK);
		outcome = LEFT;
		rc = 0;
	}
	if (rc)
		return rc;
	ev->tries = 0;
	ev->cursor_blk = f.rmap.start_blk + *done_blk;
	ev->any |= outcome == GONE;
	if (outcome == LEFT)
		ev->told.left_bytes += *done_blk * BLOCK_SIZE;
	return 0;
}

/* While there are runs of free blocks that are long enough. */
static int lanes_step(struct evacuation *ev, uint64_t *done_blk)
{
	struct lane_place lane;
	int rc;

	if (!pool_lane_find(ev->fs->pool, ev->lane_blk, ev->hi_blk, &lane)) {
		*done_blk = 0;
		ev->phase = PHASE_CHUNKS;
		return 0;
	}
	*done_blk = pool_lane_len_blk(ev->fs->pool);
	ev->lane_blk = lane.blk + *done_blk;
	rc = lane_move(ev, &lane);
	if (pool_failed(ev->fs->pool))
		return -EROFS;
	return rc == 1 || rc == -ENOSPC || is_about_one(rc) ? 0 : rc; /* it is met again, or stays */
}

static int chunks_step(struct evacuation *ev, uint64_t *done_blk)
{
	int rc;

	*done_blk = CHUNK_BLOCKS;
	if (ev->chunk_at == ev->chunk_count) {
		ev->phase = PHASE_OWNERS;
		pass_begin(ev);
		return 0;
	}
	rc = chunk_move(ev, &ev->chunks[ev->chunk_at++]);
	return rc == 1 || is_about_one(rc) ? 0 : rc; /* it is met again, or stays */
}

struct ban {
	uint64_t blk, end_blk;
};

/* 1: there is more. */
static int ban(struct op *op, void *arg)
{
	struct ban *b = arg;
	uint64_t blk = b->blk, run_blk, count_blk;
	int rc = 0;

	while (!rc && txn_has_room(op->tx, DATA_STEP_UNITS)) {
		rc = space_closed_free(op->tx, blk, b->end_blk, &run_blk, &count_blk);
		if (!rc)
			rc = space_own(op->tx, run_blk, count_blk, OWNER_BAD, run_blk);
		blk = run_blk + count_blk;
	}
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	b->blk = blk;
	return 1;
}

/* 1: there is more. */
static int one_step(struct evacuation *ev, uint64_t *done_blk)
{
	struct ban b = { ev->cursor_blk, ev->hi_blk };
	int rc;

	switch (ev->phase) {
	case PHASE_LANES:
		rc = lanes_step(ev, done_blk);
		break;
	case PHASE_CHUNKS:
		rc = chunks_step(ev, done_blk);
		break;
	case PHASE_OWNERS:
		rc = owners_step(ev, done_blk);
		if (ev->phase == PHASE_BAN)
			ev->cursor_blk = ev->lo_blk;
		break;
	default:
		*done_blk = CHUNK_BLOCKS;
		if (!ev->told.mark_bad)
			return 0;
		rc = op_run(ev->fs, TXN_FREEING, NULL, ban, &b);
		ev->cursor_blk = b.blk;
		return rc;
	}
	return rc ? rc : 1;
}

/* ---- calls ---- */

/* Under evac_lock. */
static void evacuation_end(struct fs *fs)
{
	struct evacuation *ev = fs->evac;
	int rc;

	if (!ev)
		return;
	fs->evac = NULL;
	inode_keep(ev, 0);
	rc = space_open_range(fs->pool);
	if (rc) /* only until the next mount */
		log_warn("what is free in an emptied range cannot be used for now: %d", rc);
	free(ev->chunks);
	free(ev);
}

static int range_round(struct fs *fs, struct fs_evacuation *e)
{
	uint64_t size = pool_size_blk(fs->pool) << BLOCK_SHIFT, end;

	if (e->len == 0 || e->dev_off >= size)
		return -EINVAL;
	end = e->len < size - e->dev_off ? u64_align_up(e->dev_off + e->len, BLOCK_SIZE) : size;
	e->dev_off = u64_align_down(e->dev_off, BLOCK_SIZE);
	e->len = end - e->dev_off;
	return 0;
}

int fs_evacuate(struct fs *fs, struct fs_evacuation *e)
{
	struct evacuation *ev;
	struct timespec now;
	int rc = range_round(fs, e);

	if (rc)
		return rc;
	if (fs->opts.readonly || pool_failed(fs->pool))
		return -EROFS;
	ev = calloc(1, sizeof(*ev));
	if (!ev)
		return -ENOMEM;
	clock_gettime(CLOCK_REALTIME, &now);
	*ev = (struct evacuation){
		.fs = fs,
		.told = { .dev_off = e->dev_off, .len = e->len, .mark_bad = e->mark_bad },
		.lo_blk = e->dev_off >> BLOCK_SHIFT,
		.hi_blk = (e->dev_off + e->len) >> BLOCK_SHIFT,
		.used_ms = now_ms(),
	};
	pthread_mutex_lock(&fs->evac_lock);
	evacuation_end(fs);
	orphan_drain(fs);
	(void)!space_trim(fs->pool); /* what stays, moves */
	ev->lane_blk = ev->lo_blk;
	ev->told.id = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
	fs->evac = ev;
	rc = space_close_range(fs->pool, ev->lo_blk, ev->hi_blk);
	if (!rc)
		rc = survey(ev);
	*e = ev->told;
	if (rc)
		evacuation_end(fs);
	pthread_mutex_unlock(&fs->evac_lock);
	return rc;
}

int fs_evacuate_step(struct fs *fs, uint64_t id, uint64_t max_bytes, struct fs_evacuation *e)
{
	uint64_t left_blk = u64_div_up(max_bytes, BLOCK_SIZE), done_blk;
	struct evacuation *ev;
	int rc = 1;

	pthread_mutex_lock(&fs->evac_lock);
	ev = fs->evac;
	if (!ev || ev->told.id != id) {
		pthread_mutex_unlock(&fs->evac_lock);
		return -ECANCELED;
	}
	for (unsigned i = 0; i < ITEMS_MAX && rc == 1 && left_blk > 0; i++) {
		rc = one_step(ev, &done_blk);
		left_blk -= u64_min(left_blk, done_blk);
	}
	*e = ev->told;
	ev->used_ms = now_ms();
	if (rc != 1)
		evacuation_end(fs);
	pthread_mutex_unlock(&fs->evac_lock);
	return rc;
}

void fs_evacuate_stop(struct fs *fs, uint64_t id)
{
	pthread_mutex_lock(&fs->evac_lock);
	if (fs->evac && fs->evac->told.id == id)
		evacuation_end(fs);
	pthread_mutex_unlock(&fs->evac_lock);
}

void evacuate_idle(struct fs *fs)
{
	if (pthread_mutex_trylock(&fs->evac_lock) != 0)
		return; /* somebody is at it, perhaps this thread */
	if (fs->evac && now_ms() - fs->evac->used_ms >= IDLE_MS)
		evacuation_end(fs);
	pthread_mutex_unlock(&fs->evac_lock);
}

void evacuate_close(struct fs *fs)
{
	pthread_mutex_lock(&fs->evac_lock);
	evacuation_end(fs);
	pthread_mutex_unlock(&fs->evac_lock);
}
