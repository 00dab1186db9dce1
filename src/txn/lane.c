/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Journal lanes that move (space/lane_move.c).
 *
 * The superblock says where each copy of a lane lies, and nobody derives it from anything else. While all transactions are kept out no lane has a
 * record, so a copy moves by another number in the superblock, once there is no record in its new place either: whichever superblock the next
 * mount finds, the lane is where that says, and empty.
 */
#include <errno.h>

#include "txn/grow.h"
#include "txn/internal.h"
#include "util/log.h"

uint64_t pool_lane_len_blk(const struct pool *pool)
{
	return pool->super.lane_size_bytes / BLOCK_SIZE;
}

bool pool_lane_find(struct pool *pool, uint64_t blk, uint64_t end_blk, struct lane_place *place)
{
	uint64_t len_blk = pool_lane_len_blk(pool);

	*place = (struct lane_place){ .blk = UINT64_MAX };
	pthread_mutex_lock(&pool->super_mutex);
	for (uint32_t i = 0; i < 2 * pool->super.lane_count; i++) {
		uint64_t at = super_lane_blk(&pool->super, i / 2, i % 2);

		if (at < end_blk && at + len_blk > blk && at < place->blk)
			*place = (struct lane_place){ i / 2, i % 2, at };
	}
	pthread_mutex_unlock(&pool->super_mutex);
	return place->blk != UINT64_MAX;
}

bool pool_lane_is_at(struct pool *pool, const struct lane_place *place)
{
	bool is;

	pthread_mutex_lock(&pool->super_mutex);
	is = place->lane < pool->super.lane_count &&
	     super_lane_blk(&pool->super, place->lane, place->copy) == place->blk;
	pthread_mutex_unlock(&pool->super_mutex);
	return is;
}

/* Bad memory may have been in what it left: it is as good as any other lane if both copies can be read. */
static void lane_judge(struct pool *pool, struct lane *lane)
{
	bool good = true;

	pthread_mutex_lock(&lane->mutex);
	for (unsigned copy = 0; copy < 2; copy++)
		good = good && dax_load(pool->dax, lane->staging, lane->off[copy],
					pool->super.lane_size_bytes, NULL) == 0;
	pthread_mutex_unlock(&lane->mutex);
	dax_bad_forget();
	if (good)
		atomic_store(&lane->worn, false);
}

int pool_lane_set(struct pool *pool, const struct lane_place *place)
{
	struct super *s = &pool->super;
	int rc;

	pthread_mutex_lock(&pool->super_mutex);
	if (place->copy)
		s->lanes[place->lane].mirror_blk = place->blk;
	else
		s->lanes[place->lane].primary_blk = place->blk;
	s->ro_compat |= FEATURE_RO_COMPAT_LANES_MOVED;
	pthread_mutex_unlock(&pool->super_mutex);
	rc = super_store(pool);
	if (rc) { /* which of both places the next mount finds is not known */
		pool_fail(pool, "the superblock cannot be written");
		return rc;
	}
	if (!sabotage_point("lane-set"))
		lanes_place(pool);
	if (pool->lanes[place->lane].worn)
		lane_judge(pool, &pool->lanes[place->lane]);
	return 0;
}

int pool_lane_told(struct pool *pool)
{
	return sabotage_point("lane-told") ? 0 : grow_headers(pool, pool_ag_count(pool));
}
