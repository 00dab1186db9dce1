/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening and closing a pool.
 */
#include "txn/pool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "txn/internal.h"
#include "util/log.h"

static int pool_alloc(struct pool *pool)
{
	pool->ag_chunks = (uint32_t)(pool->super.ag_size_blk / CHUNK_BLOCKS);
	pool->ags = calloc(pool->super.ag_count, sizeof(*pool->ags));
	if (!pool->ags)
		return -ENOMEM;
	for (uint32_t i = 0; i < pool->super.ag_count; i++) {
		txn_lock_init(&pool->ags[i].lock, TXN_ORDER_AG | i);
		pool->ags[i].chunks = calloc(pool->ag_chunks, sizeof(*pool->ags[i].chunks));
		if (!pool->ags[i].chunks)
			return -ENOMEM;
	}
	ag_unload_all(pool);
	return journal_open(pool);
}

static void pool_free(struct pool *pool)
{
	if (pool->ags) {
		ag_unload_all(pool);
		for (uint32_t i = 0; i < pool->super.ag_count; i++) {
			free(pool->ags[i].chunks);
			txn_lock_destroy(&pool->ags[i].lock);
		}
	}
	journal_close(pool);
	free(pool->ags);
	free(pool->remaps);
	pthread_rwlock_destroy(&pool->remap_lock);
	pthread_mutex_destroy(&pool->super_mutex);
	pthread_mutex_destroy(&pool->load_mutex);
	free(pool);
}

static int pool_recover(struct pool *pool, const struct pool_opts *opts, char *why, size_t why_size)
{
	bool dry = dax_is_readonly(pool->dax);
	unsigned records;
	int rc = journal_replay(pool, dry, &records);

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

/* The pool is in use from here on: state, mount count, sequence numbers that were never used before. */
static int pool_start(struct pool *pool)
{
	pool->seq = pool->super.seq_limit + 1;
	pool->seq_limit = pool->super.seq_limit;
	if (pool->readonly)
		return 0;
	pool->super.state &= ~SUPER_STATE_CLEAN;
	pool->super.mount_count++;
	pool->super.mounted_ns = now_ns();
	return super_extend_seq(pool);
}

int pool_open(struct dax *dax, const struct pool_opts *opts, struct pool **out, char *why, size_t why_size)
{
	struct pool *pool = calloc(1, sizeof(*pool));
	bool rewrite;
	int rc;

	if (!pool)
		return -ENOMEM;
	pool->dax = dax;
	pool->readonly = opts->readonly || dax_is_readonly(dax);
	pthread_mutex_init(&pool->super_mutex, NULL);
	pthread_mutex_init(&pool->load_mutex, NULL);
	pthread_rwlock_init(&pool->remap_lock, NULL);
	snprintf(why, why_size, "out of memory");
	rc = super_load(dax, &pool->super, &rewrite, why, why_size);
	if (rc)
		goto out_free;
	if (pool->super.ro_compat & ~FEATURE_RO_COMPAT_KNOWN) {
		log_warn("unknown features 0x%llx: mounted read-only",
			 (unsigned long long)pool->super.ro_compat);
		pool->readonly = true;
	}
	pool->was_clean = pool->super.state & SUPER_STATE_CLEAN;
	rc = pool_alloc(pool);
	if (rc)
		goto out_free;
	rc = pool_recover(pool, opts, why, why_size);
	if (rc)
		goto out_free;
	rc = pool_start(pool);
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
