/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Blocks for file data: which group, and what to do when there are none.
 *
 * First all groups are asked for a run worth having, then for whatever is left, then windows of idle streams are taken back.
 */
#include <errno.h>

#include "space/priv.h"

bool group_alloc(struct group *g, const struct index_want *want, uint64_t *blk, uint64_t *count_blk)
{
	bool found;

	pthread_mutex_lock(&g->lock);
	found = index_find(&g->index, want, blk, count_blk);
	if (found) {
		index_take(&g->index, *blk, *count_blk);
		*blk += g->start_blk;
	}
	pthread_mutex_unlock(&g->lock);
	return found;
}

uint64_t group_alloc_at(struct group *g, uint64_t blk, uint64_t min_blk, uint64_t max_blk)
{
	uint64_t run;

	pthread_mutex_lock(&g->lock);
	run = index_run_at(&g->index, blk - g->start_blk, max_blk, index_open_budget(&g->index));
	if (run < min_blk)
		run = 0;
	if (run > 0)
		index_take(&g->index, blk - g->start_blk, run);
	pthread_mutex_unlock(&g->lock);
	return run;
}

int space_alloc_at(struct txn *tx, uint64_t blk)
{
	struct space *space = space_of(txn_pool(tx));
	struct group *g = &space->groups[pool_blk_ag(space->pool, blk)];
	int rc = group_load(g);

	if (rc)
		return rc;
	if (group_is_closed(g, blk))
		return closed_alloc_at(tx, g, blk);
	do {
		bool taken;

		pthread_mutex_lock(&g->lock);
		taken = index_is_taken(&g->index, blk - g->start_blk, 1);
		if (!taken)
			index_take(&g->index, blk - g->start_blk, 1);
		pthread_mutex_unlock(&g->lock);
		if (!taken) {
			grab_add(tx, g, blk, 1, NULL);
			return 0;
		}
	} while (window_steal(space));
	return -EBUSY;
}

struct group *want_group(struct space *space, const struct space_want *want, uint64_t goal_blk, uint32_t step)
{
	uint32_t first = want->agno_hint < space->ag_count ? want->agno_hint : 0;

	if (goal_blk != 0)
		first = pool_blk_ag(space->pool, goal_blk);
	return &space->groups[(first + step) % space->ag_count];
}

/* One round over the groups. 1: nothing. */
static int alloc_round(struct txn *tx, const struct space_want *want, uint64_t goal_blk, bool worn,
		       struct group **from, uint64_t *blk, uint64_t *count_blk)
{
	struct space *space = space_of(txn_pool(tx));
	struct index_want w = { .count_blk = want->count_blk, .all = want->all, .worn = worn };
	int error = 0, rc;

	if (!want->all)
		w.count_blk = u64_min(w.count_blk, SPACE_PIECE_BLK);
	for (uint32_t i = 0; i < space->ag_count; i++) {
		struct group *g = want_group(space, want, goal_blk, i);

		rc = group_load(g);
		if (rc)
			error = rc;
		if (rc || (txn_mode(tx) != TXN_FREEING && !group_can_grow(g)))
			continue;
		w.goal_blk = goal_blk != 0 && i == 0 ? goal_blk - g->start_blk : INDEX_NONE;
		if (group_alloc(g, &w, blk, count_blk)) {
			*from = g;
			return 0;
		}
	}
	return error ? error : 1;
}

int space_alloc(struct txn *tx, const struct space_want *want, uint64_t *blk, uint64_t *count_blk)
{
	struct space *space = space_of(txn_pool(tx));
	uint64_t goal_blk = want->goal_blk;
	int rc;

	assert(want->count_blk > 0);
	/* A large piece that could lie like the file does starts a chunk of its own. */
	if (want->stream && want->count_blk >= CHUNK_BLOCKS && want->file_blk % CHUNK_BLOCKS == 0)
		goal_blk = u64_align_up(goal_blk, CHUNK_BLOCKS);
	if (goal_blk >= pool_size_blk(space->pool))
		goal_blk = 0;
	do {
		struct group *g;

		if (want->stream && !want->all && window_alloc(tx, want, blk, count_blk))
			return 0;
		rc = alloc_round(tx, want, goal_blk, false, &g, blk, count_blk);
		if (rc)
			rc = alloc_round(tx, want, goal_blk, true, &g, blk, count_blk);
		if (!rc) {
			grab_add(tx, g, *blk, *count_blk, NULL);
			window_passed(want, *blk, *count_blk);
			return 0;
		}
	} while (window_steal(space));
	return rc == 1 ? -ENOSPC : rc;
}
