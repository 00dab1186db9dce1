/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening and closing a pool.
 */
#include "txn/pool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "txn/grow.h"
#include "txn/internal.h"
#include "util/log.h"

int pool_ags_make(struct pool *pool, uint32_t count)
{
	for (; pool->ag_made < count; pool->ag_made++) {
		struct pool_ag *ag = &pool->ags[pool->ag_made];

		ag->chunks = calloc(pool->ag_chunks, sizeof(*ag->chunks));
		if (!ag->chunks)
			return -ENOMEM;
		txn_lock_init(&ag->lock, TXN_ORDER_AG | pool->ag_made);
	}
	return 0;
}

static int pool_alloc(struct pool *pool)
{
	uint64_t ag_bytes = pool->super.ag_size_blk * BLOCK_SIZE;
	uint64_t room = u64_min(u64_div_up(dax_size_max(pool->dax), ag_bytes), UINT32_MAX / 2);
	int rc;

	pool->ag_chunks = (uint32_t)(pool->super.ag_size_blk / CHUNK_BLOCKS);
	/* For all that it can grow to: nobody has to look out for an array that moves. Unused pages of it are not there. */
	pool->ag_room = (uint32_t)u64_max(room, pool->super.ag_count);
	pool->ags = calloc(pool->ag_room, sizeof(*pool->ags));
	/* Those of the superblock have to be had again at any time. */
	pool->remaps = calloc(SUPER_REMAPS_MAX + 1, sizeof(*pool->remaps));
	pool->remap_room = SUPER_REMAPS_MAX + 1;
	if (!pool->ags || !pool->remaps)
		return -ENOMEM;
	rc = pool_ags_make(pool, pool->super.ag_count);
	if (rc)
		return rc;
	ag_unload_all(pool);
	return journal_open(pool);
}

static void pool_free(struct pool *pool)
{
	if (pool->ags && pool->remaps) {
		ag_unload_all(pool);
		for (uint32_t i = 0; i < pool->ag_made; i++) {
			free(pool->ags[i].chunks);
			txn_lock_destroy(&pool->ags[i].lock);
		}
	}
	journal_close(pool);
	free(pool->ags);
	free(pool->remaps);
	gate_destroy(&pool->gate);
	pthread_rwlock_destroy(&pool->remap_lock);
	pthread_mutex_destroy(&pool->super_mutex);
	pthread_mutex_destroy(&pool->load_mutex);
	free(pool);
}

static int pool_recover(struct pool *pool, const struct pool_opts *opts, char *why, size_t why_size)
{
	bool dry = dax_is_readonly(pool->dax);
	unsigned records;
	int rc = journal_replay(pool, opts, dry, &records);

	if (rc) {
		snprintf(why, why_size, "the journal cannot be replayed: %s",
			 rc == -EIO ? "bad memory" : "damaged metadata");
		return rc;
	}
	if (records == 0)
		return 0;
	if (!dry) {
		log_info("replayed %u unfinished transaction%s", records, records == 1 ? "" : "s");
		return 0;
	}
	if (opts->no_replay) {
		log_warn("%u unfinished transactions are not replayed", records);
		return 0;
	}
	snprintf(why, why_size,
		 "was not unmounted and needs %u transactions replayed: mount it read-write once", records);
	return -EROFS;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* All records that there may be were applied; with the next superblock those that could not be retired are over. */
static void replay_is_over(struct pool *pool)
{
	if (!sabotage_point("replay-retire"))
		pool->super.replayed_seq = u64_max(pool->super.replayed_seq, pool->opened_seq);
}

/* The pool is in use from here on: state, mount count, sequence numbers that were never used before. */
static int pool_start(struct pool *pool)
{
	if (pool->readonly)
		return 0;
	pool->super.state &= ~SUPER_STATE_CLEAN;
	pool->super.mount_count++;
	pool->super.mounted_ns = now_ns();
	replay_is_over(pool);
	return super_extend_seq(pool);
}

int pool_open(struct dax *dax, const struct pool_opts *opts, struct pool **out, char *why, size_t why_size)
{
	struct pool *pool = calloc(1, sizeof(*pool));
	int rc;

	if (!pool)
		return -ENOMEM;
	pool->dax = dax;
	pool->readonly = opts->readonly || dax_is_readonly(dax);
	pool->repair = opts->repair;
	pthread_mutex_init(&pool->super_mutex, NULL);
	pthread_mutex_init(&pool->load_mutex, NULL);
	pthread_rwlock_init(&pool->remap_lock, NULL);
	gate_init(&pool->gate);
	snprintf(why, why_size, "out of memory");
	rc = super_load(dax, &pool->super, &pool->copy_lost, why, why_size);
	if (rc)
		goto out_free;
	if (pool->super.ro_compat & ~FEATURE_RO_COMPAT_KNOWN) {
		log_warn("unknown features 0x%llx: mounted read-only",
			 (unsigned long long)pool->super.ro_compat);
		pool->readonly = true;
	}
	if (pool->super.state & SUPER_STATE_REPAIR && !pool->readonly && !opts->repair) {
		snprintf(why, why_size,
			 "a repair of it has not come to its end: run fsck.umbrafs (or mount it read-only)");
		rc = -EUCLEAN;
		goto out_free;
	}
	pool->was_clean = pool->super.state & SUPER_STATE_CLEAN;
	rc = pool_alloc(pool);
	if (rc)
		goto out_free;
	pool->opened_seq = pool->super.seq_limit;
	pool->seq = pool->super.seq_limit + 1;
	pool->seq_limit = pool->super.seq_limit;
	rc = pool_recover(pool, opts, why, why_size);
	if (rc)
		goto out_free;
	rc = pool_start(pool);
	if (!rc && !pool->readonly && pool->super.grown_from_blk != 0)
		rc = grow_finish(pool);
	if (rc) {
		snprintf(why, why_size, "the superblock cannot be written");
		goto out_free;
	}
	*out = pool;
	return 0;
out_free:
	pool_free(pool);
	return rc;
}

void pool_close(struct pool *pool, bool clean)
{
	if (clean && !pool->readonly && !pool_failed(pool)) {
		pool->super.state |= SUPER_STATE_CLEAN;
		if (super_store(pool) != 0)
			log_error("the superblock cannot be written");
	}
	pool_free(pool);
}

unsigned pool_replayed(const struct pool *pool)
{
	return (unsigned)pool->stats.replayed_records;
}

int pool_repair_begin(struct pool *pool)
{
	pool->super.state |= SUPER_STATE_REPAIR;
	pool->super.state &= ~SUPER_STATE_CLEAN;
	replay_is_over(pool);
	return super_extend_seq(pool);
}

int pool_repair_seq(struct pool *pool, uint64_t *seq)
{
	int rc = 0;

	*seq = pool->seq++;
	if (pool->seq + 4096 >= pool->seq_limit)
		rc = super_extend_seq(pool);
	return rc;
}

int pool_repair_end(struct pool *pool, bool clean)
{
	pool->super.state &= ~SUPER_STATE_REPAIR;
	if (clean)
		pool->super.state |= SUPER_STATE_CLEAN;
	return super_store(pool);
}

void pool_reload(struct pool *pool)
{
	ag_unload_all(pool);
}

struct dax *pool_dax(const struct pool *pool)
{
	return pool->dax;
}

const struct super *pool_super(const struct pool *pool)
{
	return &pool->super;
}

struct pool_stats *pool_stats(struct pool *pool)
{
	return &pool->stats;
}

bool pool_is_readonly(const struct pool *pool)
{
	return pool->readonly;
}

bool pool_was_clean(const struct pool *pool)
{
	return pool->was_clean;
}

const char *pool_failed(const struct pool *pool)
{
	return pool->failed;
}

void pool_fail(struct pool *pool, const char *reason)
{
	const char *none = NULL;

	if (atomic_compare_exchange_strong(&pool->failed, &none, reason))
		log_error("no more writes: %s", reason);
}

void pool_set_space(struct pool *pool, void *space)
{
	pool->space = space;
}

void *pool_space(const struct pool *pool)
{
	return pool->space;
}
