/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The space of a pool as a whole: opening it, transactions at work in a group, totals, trees and intents of groups.
 */
#include "space/space.h"

#include <errno.h>
#include <stdlib.h>

#include "space/priv.h"
#include "util/sabotage.h"

/* Chunks of a group that are kept for metadata: what frees and punches may need on a full pool. */
static uint32_t group_keep(const struct group *g)
{
	return g->chunks < 24 ? 0 : 2 + g->chunks / 256;
}

void group_set_length(struct group *g, uint64_t length_blk)
{
	g->length_blk = length_blk;
	g->chunks = (uint32_t)u64_div_up(length_blk, CHUNK_BLOCKS);
	g->keep = group_keep(g);
}

void group_init(struct space *space, uint32_t agno)
{
	struct group *g = &space->groups[agno];

	g->space = space;
	g->agno = agno;
	g->start_blk = pool_ag_start_blk(space->pool, agno);
	group_set_length(g, pool_ag_length_blk(space->pool, agno));
	pthread_mutex_init(&g->load_lock, NULL);
	pthread_mutex_init(&g->lock, NULL);
}

int space_open(struct pool *pool)
{
	struct space *space = calloc(1, sizeof(*space));
	const struct super *super = pool_super(pool);

	if (!space)
		return -ENOMEM;
	space->pool = pool;
	space->ag_count = pool_ag_count(pool);
	space->ag_chunks = (uint32_t)(super->ag_size_blk / CHUNK_BLOCKS);
	space->mirrored = super->incompat & FEATURE_INCOMPAT_META_DUP;
	space->groups = calloc(pool_ag_room(pool), sizeof(*space->groups));
	if (!space->groups) {
		free(space);
		return -ENOMEM;
	}
	pthread_mutex_init(&space->refill_lock, NULL);
	pthread_mutex_init(&space->grow_lock, NULL);
	windows_init(space);
	for (uint32_t i = 0; i < space->ag_count; i++)
		group_init(space, i);
	pool_set_space(pool, space);
	return 0;
}

void space_close(struct pool *pool)
{
	struct space *space = space_of(pool);

	if (!space)
		return;
	windows_destroy(space);
	for (uint32_t i = 0; i < space->ag_count; i++) {
		struct group *g = &space->groups[i];

		assert(!g->cur);
		index_destroy(&g->index);
		free(g->kept);
		free(g->units_free);
		free(g->units_runs);
		free(g->clusters);
		pthread_mutex_destroy(&g->load_lock);
		pthread_mutex_destroy(&g->lock);
	}
	pthread_mutex_destroy(&space->refill_lock);
	pthread_mutex_destroy(&space->grow_lock);
	free(space->groups);
	free(space);
	pool_set_space(pool, NULL);
}

bool space_range_ok(const struct space *space, uint64_t blk, uint64_t count_blk)
{
	uint64_t size_blk = pool_size_blk(space->pool);

	return count_blk > 0 && blk < size_blk && count_blk <= size_blk - blk;
}

/* ---- a transaction in a group ---- */

uint32_t group_give_locked(struct group *g, uint64_t lo, uint64_t hi)
{
	uint64_t before = u64_min(hi, g->closed_lo), after = u64_max(lo, g->closed_hi);
	uint32_t whole = 0;

	if (lo < before)
		whole = index_give(&g->index, lo, before - lo);
	if (after < hi)
		whole += index_give(&g->index, after, hi - after);
	return whole;
}

void group_give(struct group *g, uint64_t blk, uint64_t count_blk)
{
	uint64_t lo = blk - g->start_blk;
	uint32_t whole;

	pthread_mutex_lock(&g->lock);
	whole = group_give_locked(g, lo, lo + count_blk);
	pthread_mutex_unlock(&g->lock);
	if (whole)
		atomic_fetch_add(&g->space->chunk_epoch, whole);
}

static void group_tx_commit(struct group_tx *at)
{
	struct group *g = at->g;

	g->free_blk = at->now.free_blk;
	g->inode_count = at->now.inode_count;
	g->inode_free = at->now.inode_free;
	g->meta_chunks = at->now.meta_chunks;
	g->meta_free = at->now.meta_free;
	for (const struct group_freed *f = at->freed; f; f = f->next) {
		for (uint64_t i = 0; i < f->count; i++)
			group_give_freed(g, f->ranges[i].blk, f->ranges[i].count_blk);
	}
	if (at->freed && !sabotage_point("space-freed"))
		atomic_fetch_add(&g->space->freed, 1);
}

uint64_t space_freed(const struct pool *pool)
{
	return atomic_load(&space_of(pool)->freed);
}

static void group_tx_abort(struct group_tx *at)
{
	struct group *g = at->g;

	for (const struct group_undo *u = at->undo; u; u = u->next)
		units_undo(g, u);
}

static void group_tx_end(void *arg, bool committed)
{
	struct group_tx *at = arg;

	if (committed)
		group_tx_commit(at);
	else
		group_tx_abort(at);
	at->g->cur = NULL;
}

static struct group_tx *group_tx_make(struct txn *tx, struct group *g)
{
	struct group_tx *at = txn_alloc(tx, sizeof(*at));

	*at = (struct group_tx){
		.tx = tx,
		.g = g,
		.now = { .free_blk = g->free_blk,
			 .inode_count = g->inode_count,
			 .inode_free = g->inode_free,
			 .meta_chunks = g->meta_chunks,
			 .meta_free = g->meta_free },
	};
	return at;
}

int group_enter(struct txn *tx, uint32_t agno, struct group_tx **at)
{
	struct space *space = space_of(txn_pool(tx));
	struct group *g;
	int rc;

	if (agno >= space->ag_count)
		return -EUCLEAN;
	g = &space->groups[agno];
	rc = group_load(g);
	if (!rc)
		rc = txn_lock_ag(tx, agno);
	if (rc)
		return rc;
	if (txn_mode(tx) == TXN_READ) { /* perhaps one of many, and none of them leaves anything behind */
		assert(!g->cur);
		*at = group_tx_make(tx, g);
		return 0;
	}
	if (!g->cur) {
		g->cur = group_tx_make(tx, g);
		txn_on_end(tx, group_tx_end, g->cur);
	}
	assert(g->cur->tx == tx);
	*at = g->cur;
	return 0;
}

int group_counts_put(struct group_tx *at)
{
	struct m_ag *m;
	void *unit;
	int rc = txn_edit(at->tx, slot_laddr(at->g, 0, AG_UNIT_HEADER), MAGIC_AG, &unit);

	if (rc || sabotage_point("counters"))
		return rc;
	m = unit;
	m->ag_free_blk = le64_of(at->now.free_blk);
	m->ag_inode_count = le64_of(at->now.inode_count);
	m->ag_inode_free = le64_of(at->now.inode_free);
	m->ag_meta_chunks = le32_of(at->now.meta_chunks);
	m->ag_meta_free_units = le32_of(at->now.meta_free);
	return 0;
}

void group_free_later(struct group_tx *at, uint64_t blk, uint64_t count_blk)
{
	struct group_freed *f = at->freed;

	if (sabotage_point("free-early")) {
		group_give(at->g, blk, count_blk);
		return;
	}
	if (!f || f->count == FREED_PER_PIECE) {
		f = txn_alloc(at->tx, sizeof(*f));
		f->next = at->freed;
		f->count = 0;
		at->freed = f;
	}
	f->ranges[f->count].blk = blk;
	f->ranges[f->count].count_blk = count_blk;
	f->count++;
}

static void tree_init(struct group_tx *at, enum ag_tree which, struct btree *bt)
{
	*bt = (struct btree){
		.tx = at->tx,
		.kind = ag_tree_kind(which),
		.root_laddr = slot_laddr(at->g, 0, AG_UNIT_HEADER),
		.root_magic = MAGIC_AG,
		.root_off = (uint16_t)(offsetof(struct m_ag, ag_roots) + which * AG_ROOT_SIZE),
		.root_size_bytes = AG_ROOT_SIZE,
		.owner = OWNER_AG,
		.alloc = &group_bt_alloc,
	};
}

struct btree *group_tree(struct group_tx *at, enum ag_tree which)
{
	if (!at->trees[which]) {
		at->trees[which] = txn_alloc(at->tx, sizeof(struct btree));
		tree_init(at, which, at->trees[which]);
	}
	return at->trees[which];
}

int space_ag_tree(struct txn *tx, uint32_t agno, enum ag_tree which, struct btree *bt)
{
	struct group_tx *at;
	int rc = group_enter(tx, agno, &at);

	if (rc)
		return rc;
	tree_init(at, which, bt);
	return 0;
}

/* ---- totals ---- */

/* What superblocks and journal take. */
static uint64_t journal_blk(const struct super *super)
{
	uint64_t blk = 2 * CHUNK_BLOCKS;

	if (super->ro_compat & FEATURE_RO_COMPAT_LANES_MOVED) {
		for (uint32_t i = 0; i < 2 * super->lane_count; i++)
			if (!super_blk_is_home(super, super_lane_blk(super, i / 2, i % 2)))
				blk += super->lane_size_bytes / BLOCK_SIZE;
		return blk;
	}
	if (super->lane_count > 0 && super->lanes[0].primary_blk >= CHUNK_BLOCKS)
		blk += 2 * CHUNK_BLOCKS *
		       u64_div_up((uint64_t)super->lane_count * super->lane_size_bytes, CHUNK_SIZE);
	return blk;
}

static int totals_sum(struct pool *pool, struct space_totals *totals)
{
	struct space *space = space_of(pool);
	struct space_totals sum = { .total_blk = pool_size_blk(pool) - journal_blk(pool_super(pool)) };

	for (uint32_t i = 0; i < space->ag_count; i++) {
		struct group *g = &space->groups[i];
		uint64_t keep = g->keep, kept_blk = 0, free_blk;
		int rc = group_load_counts(g);

		if (rc)
			return rc;
		if (g->loaded == GROUP_LOADED) {
			pthread_mutex_lock(&g->lock);
			keep = u64_min(keep, g->index.whole_count);
			kept_blk = g->kept_blk; /* free, and given to nobody */
			pthread_mutex_unlock(&g->lock);
		}
		free_blk = g->free_blk; /* once: it may sink meanwhile */
		free_blk -= u64_min(free_blk, kept_blk);
		keep = u64_min(keep * CHUNK_BLOCKS, free_blk);
		sum.total_blk -= u64_min(sum.total_blk, (2 + g->keep) * CHUNK_BLOCKS);
		sum.free_blk += free_blk - keep;
		sum.reserve_blk += keep;
		sum.inode_count += g->inode_count;
		sum.inode_free += g->inode_free;
		sum.meta_chunks += g->meta_chunks;
		sum.meta_free_units += g->meta_free;
	}
	/* A reserve that bad memory has broken up is not kept, so that data may have it. */
	sum.free_blk = u64_min(sum.free_blk, sum.total_blk);
	*totals = sum;
	return 0;
}

int space_totals(struct pool *pool, struct space_totals *totals)
{
	int rc;

	pool_hold(pool); /* superblock and groups stay as many as they are */
	rc = totals_sum(pool, totals);
	pool_release(pool);
	return rc;
}

uint32_t space_dir_group(struct pool *pool, uint32_t parent_agno)
{
	struct space *space = space_of(pool);
	uint32_t next = atomic_fetch_add(&space->dir_next, 1);
	uint64_t most = 0;

	for (uint32_t i = 0; i < space->ag_count; i++) {
		if (group_load_counts(&space->groups[i]) == 0)
			most = u64_max(most, space->groups[i].free_blk);
	}
	/* Round about, but not into groups that are much fuller than others. */
	for (uint32_t i = 0; i < space->ag_count; i++) {
		uint32_t agno = (next + i) % space->ag_count;

		if (space->groups[agno].free_blk >= most / 2)
			return agno;
	}
	return parent_agno < space->ag_count ? parent_agno : 0;
}

/* ---- intents ---- */

static int group_intent(struct txn *tx, uint32_t agno, uint64_t *unit_laddr, uint32_t *index)
{
	const struct m_intents *m;
	struct group_tx *at;
	const void *unit;
	uint64_t laddr;
	int rc = group_enter(tx, agno, &at);

	if (rc)
		return rc;
	laddr = slot_laddr(at->g, 0, AG_UNIT_INTENTS);
	rc = txn_get(tx, laddr, MAGIC_INTENTS, &unit);
	if (rc)
		return rc;
	m = unit;
	for (uint32_t i = 0; i < INTENTS_PER_UNIT; i++) {
		if (le32_get(m->in_slots[i].it_type) == INTENT_NONE) {
			*unit_laddr = laddr;
			*index = i;
			return 0;
		}
	}
	return -EBUSY;
}

int space_intent_alloc(struct txn *tx, uint32_t agno_hint, uint64_t *unit_laddr, uint32_t *index)
{
	struct space *space = space_of(txn_pool(tx));
	int rc = -EBUSY;

	for (uint32_t i = 0; i < space->ag_count && rc == -EBUSY; i++)
		rc = group_intent(tx, (agno_hint + i) % space->ag_count, unit_laddr, index);
	return rc;
}
