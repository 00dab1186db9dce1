/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One copy of a journal lane moves: to another place that holds no record, by the superblock (txn/lane.c).
 *
 *	transaction: owner of the new place, intent | superblock | headers of all groups | transaction: owner of the old place, the intent goes
 *
 * What the superblock says decides: a mount that finds the intent goes on with the headers if it names the new place, or gives that back.
 * With everybody else outside (pool_freeze): no lane has a record then but for one of these transactions.
 *
 * What a lane leaves is free, or OWNER_BAD's; in the first and last chunk of the pool it stays the journal's (JOURNAL_SPARE), since those are never
 * given to anybody else: where they lie follows from the size of the pool.
 */
#include <errno.h>
#include <string.h>

#include "media/journal.h"
#include "space/priv.h"
#include "util/sabotage.h"

enum { ARG_LANE, ARG_COPY, ARG_NEW_BLK, ARG_OLD_BLK, ARG_BAD_BLK, ARG_BAD_END_BLK, ARGS = 8 };

struct lane_move {
	struct space *space;
	uint64_t args[ARGS], count_blk;
	uint64_t unit_laddr; /* of the intent */
	uint32_t index;
	uint64_t bad_off; /* out: where the new place cannot be used */
};

/* ---- what the journal has ---- */

struct piece_find {
	uint64_t lo, hi;
	struct rmap *piece;
};

static int piece_note(void *arg, const struct rmap *r)
{
	struct piece_find *f = arg;
	uint64_t start = u64_max(r->start_blk, f->lo);

	if (r->owner != OWNER_JOURNAL)
		return 0;
	*f->piece = *r;
	f->piece->start_blk = start;
	f->piece->offset_blk += start - r->start_blk;
	f->piece->count_blk = u64_min(r->start_blk + r->count_blk, f->hi) - start;
	return 1;
}

int journal_piece(struct txn *tx, uint64_t blk, uint64_t end_blk, struct rmap *piece)
{
	struct piece_find f = { blk, end_blk, piece };

	return blk < end_blk ? space_owners(tx, blk, end_blk - blk, piece_note, &f) : 0;
}

static int piece_free(struct group_tx *at, uint64_t blk, uint64_t end_blk)
{
	int rc = blk < end_blk ? bitmap_change(at, blk, end_blk - blk, false) : 0;

	if (!rc && blk < end_blk)
		group_free_later(at, blk, end_blk - blk);
	return rc;
}

/* Nothing lies in the piece any more; [bad, bad_end) of it is out of use. */
static int piece_leave(struct group_tx *at, const struct rmap *r, uint64_t bad, uint64_t bad_end)
{
	const struct super *super = pool_super(at->g->space->pool);
	uint64_t end = r->start_blk + r->count_blk;
	bool home = super_blk_is_home(super, r->start_blk);
	int rc = rmap_remove(at, r->start_blk, r->count_blk, OWNER_JOURNAL, r->offset_blk, r->start_blk);

	bad = u64_min(u64_max(bad, r->start_blk), end);
	bad_end = u64_max(u64_min(bad_end, end), bad);
	if (!rc && bad < bad_end && !sabotage_point("lane-ban"))
		rc = rmap_add(at, bad, bad_end - bad, OWNER_BAD, bad);
	if (home) {
		uint64_t offset = (r->offset_blk & JOURNAL_MIRROR) | JOURNAL_SPARE;

		if (!rc && r->start_blk < bad)
			rc = rmap_add(at, r->start_blk, bad - r->start_blk, OWNER_JOURNAL, offset);
		if (!rc && bad_end < end)
			rc = rmap_add(at, bad_end, end - bad_end, OWNER_JOURNAL, offset);
		return rc;
	}
	if (!rc)
		rc = piece_free(at, r->start_blk, bad);
	return rc ? rc : piece_free(at, bad_end, end);
}

/* All that the journal has there, and what it has beside it for no lane. In one group. */
static int range_leave(struct txn *tx, uint64_t blk, uint64_t end_blk, uint64_t bad, uint64_t bad_end)
{
	struct pool *pool = txn_pool(tx);
	struct group *g = &space_of(pool)->groups[pool_blk_ag(pool, blk)];
	uint64_t near_blk = u64_min(g->start_blk + g->length_blk, end_blk + CHUNK_BLOCKS);
	struct lane_place lane;
	struct group_tx *at;
	struct rmap r, rest;
	int rc = group_enter(tx, g->agno, &at);

	while (!rc && (rc = journal_piece(tx, blk, end_blk, &r)) == 1) {
		uint64_t end = r.start_blk + r.count_blk;

		/* What mkfs left over behind the last lane. */
		rc = end == end_blk ? journal_piece(tx, end, near_blk, &rest) : 0;
		if (rc == 1 && rest.start_blk == end && rest.offset_blk == r.offset_blk + r.count_blk &&
		    !pool_lane_find(pool, end, end + rest.count_blk, &lane))
			r.count_blk += rest.count_blk;
		if (rc >= 0)
			rc = piece_leave(at, &r, bad, bad_end);
		blk = end;
	}
	return rc;
}

/* ---- a new place ---- */

struct place_want {
	struct lane_move *m;
	uint64_t other_blk; /* the other copy */
	struct group *g;    /* out */
};

/* In one chunk with the other copy. */
static bool place_is_near(const struct place_want *w, uint64_t blk)
{
	uint64_t last = w->m->count_blk - 1;

	return blk / CHUNK_BLOCKS <= (w->other_blk + last) / CHUNK_BLOCKS &&
	       w->other_blk / CHUNK_BLOCKS <= (blk + last) / CHUNK_BLOCKS;
}

/* Beside the lane before it, if that lies elsewhere too by now. */
static bool place_beside(struct place_want *w)
{
	struct lane_move *m = w->m;
	const struct super *super = pool_super(m->space->pool);
	uint64_t blk;

	if (m->args[ARG_LANE] == 0)
		return false;
	blk = super_lane_blk(super, (uint32_t)m->args[ARG_LANE] - 1, (unsigned)m->args[ARG_COPY]) +
	      m->count_blk;
	if (!space_range_ok(m->space, blk, m->count_blk) || place_is_near(w, blk))
		return false;
	m->args[ARG_NEW_BLK] = blk;
	w->g = &m->space->groups[pool_blk_ag(m->space->pool, blk)];
	return blk + m->count_blk <= w->g->start_blk + w->g->length_blk && group_load(w->g) == 0 &&
	       group_alloc_at(w->g, blk, m->count_blk, m->count_blk) != 0;
}

/* The beginning of a wholly free chunk, far from the other copy as those of metadata. */
static bool place_chunk(struct place_want *w, bool reserve)
{
	struct lane_move *m = w->m;
	struct pool *pool = m->space->pool;
	const struct group *other = &m->space->groups[pool_blk_ag(pool, w->other_blk)];
	bool copy = m->args[ARG_COPY] != 0;
	uint32_t first = copy ? other->agno + m->space->ag_count / 2 :
				pool_blk_ag(pool, m->args[ARG_OLD_BLK]);
	uint64_t blk;

	if (m->count_blk > CHUNK_BLOCKS)
		return false;
	w->g = chunk_grab_any(m->space, first, other, reserve, copy, &blk);
	if (!w->g)
		return false;
	m->args[ARG_NEW_BLK] = blk;
	if (m->count_blk < CHUNK_BLOCKS)
		group_give(w->g, blk + m->count_blk, CHUNK_BLOCKS - m->count_blk);
	return true;
}

/* Any run that is long enough. */
static bool place_hole(struct place_want *w, bool near)
{
	struct lane_move *m = w->m;
	uint32_t first = pool_blk_ag(m->space->pool, m->args[ARG_OLD_BLK]), count = m->space->ag_count;
	struct index_want want = {
		.goal_blk = INDEX_NONE, .count_blk = m->count_blk, .all = true, .worn = true
	};
	uint64_t got_blk;

	for (uint32_t i = 0; i < count; i++) {
		w->g = &m->space->groups[(first + i) % count];
		if (group_load(w->g) != 0 || !group_alloc(w->g, &want, &m->args[ARG_NEW_BLK], &got_blk))
			continue;
		if (near || !place_is_near(w, m->args[ARG_NEW_BLK]))
			return true;
		group_give(w->g, m->args[ARG_NEW_BLK], m->count_blk);
	}
	return false;
}

static int place_take(struct txn *tx, struct lane_move *m)
{
	struct place_want w = {
		.m = m,
		.other_blk = super_lane_blk(pool_super(m->space->pool), (uint32_t)m->args[ARG_LANE],
					    1 - (unsigned)m->args[ARG_COPY]),
	};

	do {
		if (place_beside(&w) || place_chunk(&w, false) || place_hole(&w, false) ||
		    place_chunk(&w, true) || place_hole(&w, true)) {
			grab_add(tx, w.g, m->args[ARG_NEW_BLK], m->count_blk, NULL);
			return 0;
		}
	} while (window_steal(m->space));
	return -ENOSPC;
}

/* No record; and memory that can be used. */
static int place_clear(struct lane_move *m)
{
	struct dax *dax = pool_dax(m->space->pool);
	uint64_t off = m->args[ARG_NEW_BLK] << BLOCK_SHIFT, end = off + (m->count_blk << BLOCK_SHIFT);
	uint8_t back[BLOCK_SIZE];
	int rc = 0;

	for (; off < end && !rc; off += BLOCK_SIZE) {
		if (!sabotage_point("lane-clear"))
			rc = dax_zero(dax, off, BLOCK_SIZE);
		if (!rc)
			rc = dax_load(dax, back, off, BLOCK_SIZE, NULL);
		if (rc)
			m->bad_off = off;
	}
	dax_bad_forget();
	return rc;
}

/* ---- steps ---- */

static int intent_put(struct txn *tx, const struct lane_move *m, const struct m_intent *intent)
{
	void *unit;
	int rc = txn_lock_ag(tx, pool_laddr_ag(m->space->pool, m->unit_laddr));

	if (!rc)
		rc = txn_edit(tx, m->unit_laddr, MAGIC_INTENTS, &unit);
	if (!rc)
		((struct m_intents *)unit)->in_slots[m->index] = *intent;
	return rc;
}

static int begin_step(struct txn *tx, void *arg)
{
	struct lane_move *m = arg;
	struct m_intent intent = { .it_seq = le64_of(txn_seq(tx)) };
	int rc;

	m->bad_off = 0;
	rc = place_take(tx, m);
	if (!rc)
		rc = place_clear(m);
	if (rc)
		return rc;
	/* The fences of this commit make it durable before a superblock says that the lane lies there. */
	rc = space_intent_alloc(tx, 0, &m->unit_laddr, &m->index);
	if (rc)
		return rc == -EBUSY ? -ENOSPC : rc;
	if (!sabotage_point("lane-intent"))
		intent.it_type = le32_of(INTENT_LANE);
	for (unsigned i = 0; i < ARGS; i++)
		intent.it_args[i] = le64_of(m->args[i]);
	rc = intent_put(tx, m, &intent);
	if (!rc && !sabotage_point("lane-own"))
		rc = space_own(tx, m->args[ARG_NEW_BLK], m->count_blk, OWNER_JOURNAL,
			       m->args[ARG_COPY] ? JOURNAL_MIRROR : 0);
	return rc;
}

static struct lane_place place_of(const uint64_t args[ARGS], unsigned which)
{
	return (struct lane_place){ (uint32_t)args[ARG_LANE], args[ARG_COPY] != 0, args[which] };
}

static bool has_moved(struct pool *pool, const uint64_t args[ARGS])
{
	struct lane_place to = place_of(args, ARG_NEW_BLK);

	return pool_lane_is_at(pool, &to);
}

int space_lane_resume(struct pool *pool, const uint64_t args[ARGS])
{
	return has_moved(pool, args) ? pool_lane_told(pool) : 0;
}

int space_lane_move_end(struct txn *tx, const uint64_t args[ARGS])
{
	struct pool *pool = txn_pool(tx);
	bool moved = has_moved(pool, args);
	uint64_t blk = args[moved ? ARG_OLD_BLK : ARG_NEW_BLK], count_blk = pool_lane_len_blk(pool);

	if (sabotage_point("lane-leave"))
		return 0;
	if (!space_range_ok(space_of(pool), blk, count_blk))
		return -EUCLEAN;
	return range_leave(tx, blk, blk + count_blk, moved ? args[ARG_BAD_BLK] : 0,
			   moved ? args[ARG_BAD_END_BLK] : 0);
}

static int end_step(struct txn *tx, void *arg)
{
	const struct m_intent none = { 0 };
	const struct lane_move *m = arg;
	int rc = space_lane_move_end(tx, m->args);

	return rc ? rc : intent_put(tx, m, &none);
}

static int lane_move(struct lane_move *m)
{
	struct pool *pool = m->space->pool;
	struct lane_place from = place_of(m->args, ARG_OLD_BLK), to;
	int rc, end;

	if (!pool_lane_is_at(pool, &from))
		return 1;
	rc = frozen_run(pool, begin_step, m);
	if (rc)
		return rc;
	to = place_of(m->args, ARG_NEW_BLK);
	rc = pool_lane_set(pool, &to);
	if (pool_failed(pool))
		return -EIO;
	if (!rc)
		rc = pool_lane_told(pool);
	end = rc ? 0 : frozen_run(pool, end_step, m);
	return rc ? rc : end;
}

int space_lane_move(struct pool *pool, const struct lane_place *from, uint64_t bad_blk, uint64_t bad_end_blk,
		    uint64_t *bad_off)
{
	struct lane_move m = {
		.space = space_of(pool),
		.args = { from->lane, from->copy, 0, from->blk, bad_blk, bad_end_blk },
		.count_blk = pool_lane_len_blk(pool),
	};
	int rc;

	pool_freeze(pool);
	rc = lane_move(&m);
	pool_thaw(pool);
	*bad_off = m.bad_off;
	return rc;
}

/* ---- space beside lanes ---- */

struct spare {
	uint64_t blk, end_blk;
	bool bad;
};

static int spare_step(struct txn *tx, void *arg)
{
	const struct spare *s = arg;

	return range_leave(tx, s->blk, s->end_blk, s->bad ? s->blk : 0, s->bad ? s->end_blk : 0);
}

int space_journal_leave(struct pool *pool, uint64_t blk, uint64_t end_blk, bool bad)
{
	const struct super *super = pool_super(pool);
	struct spare s = { blk, end_blk, bad };
	struct lane_place lane;
	int rc;

	/* As long as all lanes lie where mkfs has put them, a repair takes what is left over behind them for the journal's. */
	if (!super_blk_is_home(super, blk) && !(super->ro_compat & FEATURE_RO_COMPAT_LANES_MOVED))
		return -EOPNOTSUPP;
	pool_freeze(pool);
	rc = pool_lane_find(pool, blk, end_blk, &lane) ? 1 : frozen_run(pool, spare_step, &s);
	pool_thaw(pool);
	return rc;
}

int space_bad_drop(struct txn *tx, uint64_t blk)
{
	struct pool *pool = txn_pool(tx);
	uint64_t offset = JOURNAL_SPARE | (blk < CHUNK_BLOCKS ? 0 : JOURNAL_MIRROR);
	struct group_tx *at;
	int rc;

	if (!super_blk_is_home(pool_super(pool), blk) || sabotage_point("lane-home"))
		return space_drop(tx, blk, 1, OWNER_BAD, blk);
	rc = group_enter(tx, pool_blk_ag(pool, blk), &at);
	if (!rc)
		rc = rmap_remove(at, blk, 1, OWNER_BAD, blk, blk);
	return rc ? rc : rmap_add(at, blk, 1, OWNER_JOURNAL, offset);
}
