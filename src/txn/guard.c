/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad memory under a metadata unit that had been verified.
 *
 * Verified units are read where they lie, without a copy, so the read that meets bad memory may be anywhere in an operation. It is left there
 * and then (dax.h, guards), its transaction is aborted, and it starts again: the units of that place are no longer taken for verified,
 * so the next touch loads them by a guarded copy, finds the bad memory as it would find a wrong CRC, and goes to the other copy.
 *
 * So what runs under a guard holds nothing but its transaction: no mutex while units are read, no memory but txn_alloc().
 */
#include <errno.h>
#include <inttypes.h>

#include "txn/internal.h"
#include "util/log.h"

static void chunk_unverify(struct pool *pool, uint32_t agno, uint32_t slot)
{
	uint64_t laddr = ((uint64_t)agno * pool->ag_chunks + slot) << CHUNK_SHIFT;

	unit_set_verified(pool, laddr, CHUNK_SIZE, false);
}

/* Every unit that may lie in that block, as primary or mirror. */
static void block_unverify(struct pool *pool, uint64_t blk)
{
	uint32_t chunk = (uint32_t)(blk / CHUNK_BLOCKS);

	for (uint32_t agno = 0; agno < pool_ag_count(pool); agno++) {
		struct chunk_place *places = pool->ags[agno].chunks;

		chunk_unverify(pool, agno, 0); /* not in the table until that is loaded */
		for (uint32_t slot = 1; slot < pool->ag_chunks; slot++) {
			if (places[slot].primary == chunk || places[slot].mirror == chunk)
				chunk_unverify(pool, agno, slot);
		}
	}
	pthread_rwlock_rdlock(&pool->remap_lock);
	for (uint32_t i = 0; i < pool->remap_count; i++) {
		if (pool->remaps[i].place_blk == blk)
			unit_set_verified(pool, pool->remaps[i].laddr, BLOCK_SIZE, false);
	}
	pthread_rwlock_unlock(&pool->remap_lock);
}

void pool_on_bad(struct pool *pool, void (*fn)(void *arg, uint64_t dev_off), void *arg)
{
	pool->bad_fn = fn;
	pool->bad_arg = arg;
}

void bad_met(struct pool *pool, uint64_t dev_off)
{
	if (pool->bad_fn)
		pool->bad_fn(pool->bad_arg, dev_off);
}

void pool_bad_met(struct pool *pool, uint64_t dev_off)
{
	bad_met(pool, dev_off);
}

int pool_guard(struct pool *pool, int (*fn)(void *arg), void *arg)
{
	struct dax_guard guard;
	int rc;

	if (dax_guard_enter(&guard) == 0) {
		rc = fn(arg);
		dax_guard_leave(&guard);
		return rc;
	}
	atomic_fetch_add(&pool->stats.bad_reads, 1);
	if (log_is_first(guard.bad_off))
		log_warn("bad memory at 0x%" PRIx64 " of the pool, in metadata", guard.bad_off);
	block_unverify(pool, guard.bad_off / BLOCK_SIZE);
	bad_met(pool, guard.bad_off);
	return -EHWPOISON;
}

int pool_guard_all(struct pool *pool, int (*fn)(void *arg), void *arg)
{
	for (unsigned tries = 0; tries < POOL_GUARD_TRIES; tries++) {
		int rc = pool_guard(pool, fn, arg);

		if (rc != -EHWPOISON)
			return rc;
	}
	return -EIO;
}

struct txn_call {
	struct txn *tx;
	int (*fn)(struct txn *tx, void *arg);
	void *arg;
};

static int txn_call(void *arg)
{
	const struct txn_call *call = arg;

	return call->fn(call->tx, call->arg);
}

static int txn_run_once(struct pool *pool, enum txn_mode mode, int (*fn)(struct txn *tx, void *arg),
			void *arg)
{
	struct txn_call call = { .tx = txn_begin(pool, mode), .fn = fn, .arg = arg };
	int rc, err;

	if (!call.tx)
		return -ENOMEM;
	rc = pool_guard(pool, txn_call, &call);
	if (rc < 0) {
		txn_abort(call.tx);
		return rc;
	}
	err = txn_commit(call.tx);
	return err ? err : rc;
}

int txn_run(struct pool *pool, enum txn_mode mode, int (*fn)(struct txn *tx, void *arg), void *arg)
{
	for (unsigned tries = 0; tries < POOL_GUARD_TRIES; tries++) {
		int rc = txn_run_once(pool, mode, fn, arg);

		if (rc != -EHWPOISON)
			return rc;
	}
	return -EIO;
}
