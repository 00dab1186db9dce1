/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Keeping transactions out for a moment (pool_freeze).
 *
 * Every thread with an open transaction, or in a section between pool_hold() and pool_release(), is counted in one of some counters, each on
 * a line of its own, so that threads do not take it from each other at every read. Whoever freezes says so, and then waits until all of them
 * are zero:
 *
 *	thread	counts itself,	then looks whether it is frozen (and goes back)
 *	freezer	says so,	then looks at the counters
 *
 * Both in one order for all, so one of them sees the other. What a thread has opened already does not wait again: it may hold locks that
 * others need to come to their end.
 */
#include <assert.h>
#include <time.h>

#include "txn/internal.h"

#define HOLDS_MAX 8u /* pools that one thread has something open in */

static __thread struct hold {
	const struct pool *pool;
	unsigned depth;
} holds[HOLDS_MAX];

static struct hold *hold_find(const struct pool *pool)
{
	for (unsigned i = 0; i < HOLDS_MAX; i++)
		if (holds[i].pool == pool)
			return &holds[i];
	return NULL;
}

static _Atomic uint64_t *counter(struct pool *pool)
{
	static atomic_uint last;
	static __thread unsigned mine; /* from 1 on */

	if (mine == 0)
		mine = atomic_fetch_add(&last, 1) % GATE_COUNTERS + 1;
	return &pool->gate.counters[mine - 1].inside;
}

void gate_init(struct gate *gate)
{
	pthread_mutex_init(&gate->mutex, NULL);
	pthread_mutex_init(&gate->freezer, NULL);
	pthread_cond_init(&gate->opened, NULL);
}

void gate_destroy(struct gate *gate)
{
	pthread_cond_destroy(&gate->opened);
	pthread_mutex_destroy(&gate->mutex);
	pthread_mutex_destroy(&gate->freezer);
}

static void gate_enter(struct pool *pool)
{
	struct gate *gate = &pool->gate;

	for (;;) {
		atomic_fetch_add(counter(pool), 1);
		if (!atomic_load(&gate->closed))
			return;
		atomic_fetch_sub(counter(pool), 1);
		pthread_mutex_lock(&gate->mutex);
		while (atomic_load(&gate->closed))
			pthread_cond_wait(&gate->opened, &gate->mutex);
		pthread_mutex_unlock(&gate->mutex);
	}
}

void pool_hold(struct pool *pool)
{
	struct hold *hold = hold_find(pool);

	if (!hold) {
		hold = hold_find(NULL);
		assert(hold);
		gate_enter(pool);
		hold->pool = pool;
	}
	hold->depth++;
}

void pool_release(struct pool *pool)
{
	struct hold *hold = hold_find(pool);

	assert(hold);
	if (--hold->depth > 0)
		return;
	hold->pool = NULL;
	atomic_fetch_sub(counter(pool), 1);
}

void pool_freeze(struct pool *pool)
{
	const struct timespec a_moment = { .tv_nsec = 50000 };
	struct hold *hold = hold_find(NULL);

	assert(hold && !hold_find(pool));
	pthread_mutex_lock(&pool->gate.freezer);
	atomic_store(&pool->gate.closed, true);
	for (unsigned i = 0; i < GATE_COUNTERS; i++)
		while (atomic_load(&pool->gate.counters[i].inside) != 0)
			nanosleep(&a_moment, NULL);
	/* Transactions of this thread are let through, uncounted. */
	*hold = (struct hold){ pool, 1 };
}

void pool_thaw(struct pool *pool)
{
	struct hold *hold = hold_find(pool);

	assert(hold && hold->depth == 1);
	*hold = (struct hold){ 0 };
	pthread_mutex_lock(&pool->gate.mutex);
	atomic_store(&pool->gate.closed, false);
	pthread_cond_broadcast(&pool->gate.opened);
	pthread_mutex_unlock(&pool->gate.mutex);
	pthread_mutex_unlock(&pool->gate.freezer);
}
