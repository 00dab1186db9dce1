/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Growing: the transaction on the group that was the last one, and the state in DRAM.
 *
 * What the last group owns for itself (mirror of slot 0, superblock, journal) follows from the size of the pool. The transaction takes away
 * what it had in the old one, and gives it what it has in the new one; where both are the same nothing changes. The
 * order of it all stands in txn/grow.c.
 */
#include <errno.h>
#include <string.h>

#include "space/priv.h"
#include "txn/format.h"
#include "txn/grow.h"
#include "util/log.h"

struct growth {
	struct space *space;
	struct group *g; /* the last one, so far */
	uint64_t length_blk;
	struct rmap old[FORMAT_OWNERS_MAX], now[FORMAT_OWNERS_MAX];
	unsigned old_count, now_count;
};

static bool has(const struct rmap *list, unsigned count, const struct rmap *r)
{
	for (unsigned i = 0; i < count; i++) {
		if (list[i].start_blk == r->start_blk && list[i].count_blk == r->count_blk &&
		    list[i].owner == r->owner && list[i].offset_blk == r->offset_blk)
			return true;
	}
	return false;
}

/* The end of the record in which the block lies; 0: in none. *next: where the next one begins, if that is nearer. */
static uint64_t covered_to(const struct rmap *list, unsigned count, uint64_t blk, uint64_t *next)
{
	for (unsigned i = 0; i < count; i++) {
		if (list[i].start_blk <= blk && blk - list[i].start_blk < list[i].count_blk)
			return list[i].start_blk + list[i].count_blk;
		if (list[i].start_blk > blk)
			*next = u64_min(*next, list[i].start_blk);
	}
	return 0;
}

/* Calls fn for what of a range the group does not own for itself from now on. */
static void for_free(const struct growth *w, uint64_t blk, uint64_t end_blk,
		     void (*fn)(void *arg, uint64_t blk, uint64_t count_blk), void *arg)
{
	while (blk < end_blk) {
		uint64_t next = end_blk, to = covered_to(w->now, w->now_count, blk, &next);

		if (to == 0)
			fn(arg, blk, next - blk);
		blk = to ? to : next;
	}
}

static void free_later(void *at, uint64_t blk, uint64_t count_blk)
{
	group_free_later(at, blk, count_blk);
}

static int record_drop(struct group_tx *at, const struct growth *w, const struct rmap *r)
{
	int rc = rmap_remove(at, r->start_blk, r->count_blk, r->owner, r->offset_blk, r->start_blk);

	if (!rc)
		rc = bitmap_change(at, r->start_blk, r->count_blk, false);
	if (!rc)
		for_free(w, r->start_blk, r->start_blk + r->count_blk, free_later, at);
	return rc;
}

/* Since lanes have left the last chunk it may be in pieces; some of them are out of use, and stay so. */
static int journal_drop(struct group_tx *at, const struct growth *w, const struct rmap *all)
{
	uint64_t blk = all->start_blk, end = blk + all->count_blk;
	struct rmap r;
	int rc;

	while ((rc = journal_piece(at->tx, blk, end, &r)) == 1) {
		rc = record_drop(at, w, &r);
		if (rc)
			break;
		blk = r.start_blk + r.count_blk;
	}
	return rc;
}

/* What the old size gave it: not all of it becomes free. */
static int owners_drop(struct group_tx *at, const struct growth *w)
{
	int rc = 0;

	for (unsigned i = 0; i < w->old_count && !rc; i++) {
		const struct rmap *r = &w->old[i];

		if (has(w->now, w->now_count, r))
			continue;
		rc = r->owner == OWNER_JOURNAL ? journal_drop(at, w, r) : record_drop(at, w, r);
	}
	return rc;
}

static int owners_add(struct group_tx *at, const struct growth *w)
{
	int rc = 0;

	for (unsigned i = 0; i < w->now_count && !rc; i++) {
		const struct rmap *r = &w->now[i];

		if (has(w->old, w->old_count, r))
			continue;
		rc = bitmap_change(at, r->start_blk, r->count_blk, true);
		if (!rc)
			rc = rmap_add(at, r->start_blk, r->count_blk, r->owner, r->offset_blk);
	}
	return rc;
}

/* Bits past the end meant nothing until now. */
static int bits_begin(struct group_tx *at, const struct growth *w)
{
	uint32_t first_unit = AG_UNIT_TABLE + ag_table_units(w->space->ag_chunks);
	uint64_t end = w->length_blk / CHUNK_BLOCKS;

	for (uint64_t chunk = w->g->chunks; chunk < end; chunk++) {
		struct m_bitmap *m;
		void *unit;
		int rc = txn_edit(
			at->tx, slot_laddr(w->g, 0, first_unit + (uint32_t)(chunk / BITMAP_CHUNKS_PER_UNIT)),
			MAGIC_BITMAP, &unit);

		if (rc)
			return rc;
		m = unit;
		memset(m->bm_bits[chunk % BITMAP_CHUNKS_PER_UNIT], 0, sizeof(m->bm_bits[0]));
	}
	at->now.free_blk += w->length_blk - w->g->length_blk;
	return 0;
}

static int group_lengthen(struct txn *tx, void *arg)
{
	const struct growth *w = arg;
	uint64_t mirror_blk = w->g->start_blk + w->length_blk - 2 * CHUNK_BLOCKS;
	struct m_chunk *slot0;
	struct group_tx *at;
	void *unit;
	int rc = group_enter(tx, w->g->agno, &at);

	if (rc)
		return rc;
	at->refill = true; /* may take the last units */
	rc = bits_begin(at, w);
	if (!rc)
		rc = owners_drop(at, w);
	if (!rc)
		rc = owners_add(at, w);
	if (!rc)
		rc = meta_slot_edit(at, 0, &slot0);
	if (!rc)
		slot0->ck_mirror = le32_of((uint32_t)(mirror_blk / CHUNK_BLOCKS));
	if (!rc)
		rc = group_counts_put(at);
	if (!rc)
		rc = txn_edit(tx, slot_laddr(w->g, 0, AG_UNIT_HEADER), MAGIC_AG, &unit);
	if (!rc)
		grow_header(w->space->pool, unit);
	return rc;
}

static int growth_commit(struct growth *w)
{
	int rc = txn_run(w->space->pool, TXN_FREEING, group_lengthen, w);

	/* A record of its own that is not there, too little room in the journal: nothing that anybody would try again. */
	return rc == -EDEADLK || rc == -ENOBUFS ? -EIO : rc;
}

static void give(void *g, uint64_t blk, uint64_t count_blk)
{
	group_give(g, blk, count_blk);
}

/* DRAM follows. */
static void groups_follow(const struct growth *w)
{
	struct space *space = w->space;
	struct group *g = w->g;
	uint64_t old_end = g->start_blk + g->length_blk;
	uint32_t count = pool_ag_count(space->pool);

	group_set_length(g, w->length_blk);
	pthread_mutex_lock(&g->lock);
	index_extend(&g->index, g->chunks);
	g->index.keep = g->keep;
	g->index.spare = g->chunks / 16;
	pthread_mutex_unlock(&g->lock);
	for_free(w, old_end, g->start_blk + g->length_blk, give, g);
	for (uint32_t agno = space->ag_count; agno < count; agno++)
		group_init(space, agno);
	space->ag_count = count;
	/* Groups that found no chunk for metadata may find one now. */
	atomic_fetch_add(&space->chunk_epoch, 1);
	atomic_fetch_add(&space->freed, 1);
}

/* With all others outside. */
static int growth_run(struct growth *w, uint64_t size_blk)
{
	struct pool *pool = w->space->pool;
	int rc = grow_switch(pool, size_blk);

	if (rc)
		return rc;
	rc = growth_commit(w);
	if (rc) {
		/* Of a record that may or may not be there only the next mount knows. */
		if (!pool_failed(pool))
			grow_back(pool);
		return rc;
	}
	groups_follow(w);
	if (grow_finish(pool) != 0)
		pool_fail(pool, "growing has not come to its end; the next mount goes on with it");
	return 0;
}

static int bad_note(void *arg, const struct rmap *r)
{
	(void)arg;
	return r->owner == OWNER_BAD;
}

/* The mirror of slot 0 can come to lie where the last chunk was, and some of that may be out of use. */
static int mirror_look(struct txn *tx, void *arg)
{
	const struct growth *w = arg;
	uint64_t end_blk = w->g->start_blk + w->g->length_blk,
		 blk = w->g->start_blk + w->length_blk - 2 * CHUNK_BLOCKS;
	int rc = blk < end_blk ? space_owners(tx, blk, u64_min(CHUNK_BLOCKS, end_blk - blk), bad_note, NULL) :
				 0;

	if (rc != 1)
		return rc;
	log_warn("it cannot grow by so little: memory that is out of use lies where a mirror has to be");
	return -EIO;
}

static int growth_prepare(struct growth *w, struct pool *pool, uint64_t size_bytes, uint64_t *size_blk)
{
	struct super now, next;
	int rc = grow_plan(pool, size_bytes, size_blk);

	if (rc)
		return rc;
	w->space = space_of(pool);
	w->g = &w->space->groups[w->space->ag_count - 1];
	rc = group_load(w->g);
	if (rc)
		return rc;
	grow_super(pool, pool_size_blk(pool), &now);
	grow_super(pool, *size_blk, &next);
	w->length_blk = super_ag_length_blk(&next, w->g->agno);
	w->old_count = format_owners(&now, w->g->agno, w->old);
	w->now_count = format_owners(&next, w->g->agno, w->now);
	if (w->length_blk != w->g->length_blk)
		rc = txn_run(pool, TXN_READ, mirror_look, w);
	if (rc)
		return rc;
	pthread_mutex_lock(&w->g->lock);
	rc = index_reserve(&w->g->index, (uint32_t)(w->length_blk / CHUNK_BLOCKS));
	pthread_mutex_unlock(&w->g->lock);
	return rc ? rc : grow_groups(pool, *size_blk);
}

int space_grow(struct pool *pool, uint64_t size_bytes)
{
	struct space *space = space_of(pool);
	uint64_t size_blk;
	struct growth w;
	int rc;

	if (pool_is_readonly(pool) || pool_failed(pool))
		return -EROFS;
	if (pthread_mutex_trylock(&space->grow_lock) != 0)
		return -EBUSY;
	rc = growth_prepare(&w, pool, size_bytes, &size_blk);
	if (!rc) {
		pool_freeze(pool);
		rc = growth_run(&w, size_blk);
		pool_thaw(pool);
	}
	pthread_mutex_unlock(&space->grow_lock);
	return rc;
}
