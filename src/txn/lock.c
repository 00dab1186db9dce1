/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Two-phase locks of a transaction.
 *
 * Order: inode number, then group number (struct txn_lock.order). Waiting is allowed only for a lock above all that are held;
 * any other is tried, so no cycle of waiters can form.
 */
#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "txn/internal.h"

/* Some 20 us of trying. */
#define READ_TRIES 40u
#define READ_PAUSES 10u

void txn_lock_init(struct txn_lock *lock, uint64_t order)
{
	pthread_rwlockattr_t attr;

	lock->order = order;
	lock->writes_count = 0;
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&lock->rw, &attr);
	pthread_rwlockattr_destroy(&attr);
}

void txn_lock_destroy(struct txn_lock *lock)
{
	int rc = pthread_rwlock_destroy(&lock->rw);

	assert(rc == 0);
	(void)rc;
}

static struct held_lock *held_find(const struct txn *tx, const struct txn_lock *lock)
{
	for (unsigned i = 0; i < tx->held_count; i++) {
		if (tx->held[i].lock == lock)
			return &tx->held[i];
	}
	return NULL;
}

bool txn_holds(const struct txn *tx, const struct txn_lock *lock, bool write)
{
	const struct held_lock *held = held_find(tx, lock);

	return held && (held->write || !write);
}

static bool may_wait(const struct txn *tx, const struct txn_lock *lock)
{
	for (unsigned i = 0; i < tx->held_count; i++) {
		if (tx->held[i].lock->order >= lock->order)
			return false;
	}
	return true;
}

static void moment_pass(void)
{
#ifdef __x86_64__
	__builtin_ia32_pause();
#else
	atomic_signal_fence(memory_order_seq_cst);
#endif
}

/* Most who write are done within a few microseconds; to be put to sleep and woken for that takes many times as long. */
static int read_wait(struct txn_lock *lock)
{
	for (unsigned i = 0; i < READ_TRIES; i++) {
		if (pthread_rwlock_tryrdlock(&lock->rw) == 0)
			return 0;
		for (unsigned k = 0; k < READ_PAUSES; k++)
			moment_pass();
	}
	return pthread_rwlock_rdlock(&lock->rw);
}

int txn_lock(struct txn *tx, struct txn_lock *lock, bool write)
{
	struct held_lock *held = held_find(tx, lock);
	int rc;

	if (tx->starved)
		return -ENOMEM;
	if (held && (held->write || !write))
		return 0;
	if (held) /* an upgrade would have to wait for other readers that may wait for us */
		goto blocked;
	if (tx->held_count == tx->held_size) {
		struct held_lock *more = realloc(tx->held, 2 * tx->held_size * sizeof(*more));

		if (!more)
			return -ENOMEM;
		tx->held = more;
		tx->held_size *= 2;
	}
	if (may_wait(tx, lock))
		rc = write ? pthread_rwlock_wrlock(&lock->rw) : read_wait(lock);
	else
		rc = write ? pthread_rwlock_trywrlock(&lock->rw) : pthread_rwlock_tryrdlock(&lock->rw);
	if (rc == EBUSY || rc == EAGAIN)
		goto blocked;
	assert(rc == 0);
	if (write)
		lock->writes_count++;
	tx->held[tx->held_count++] = (struct held_lock){ lock, write };
	return 0;
blocked:
	tx->blocked_on = lock->order;
	return -EDEADLK;
}

int txn_lock_upgrade(struct txn *tx, struct txn_lock *lock)
{
	struct held_lock *held = held_find(tx, lock);
	uint64_t seen_count;
	bool is_same;

	assert(held);
	if (held->write)
		return 0;
	seen_count = lock->writes_count;
	*held = tx->held[--tx->held_count];
	if (!may_wait(tx, lock)) {
		tx->held[tx->held_count++] = (struct held_lock){ lock, false };
		tx->blocked_on = lock->order;
		return -EDEADLK;
	}
	pthread_rwlock_unlock(&lock->rw);
	pthread_rwlock_wrlock(&lock->rw);
	is_same = lock->writes_count++ == seen_count;
	tx->held[tx->held_count++] = (struct held_lock){ lock, true };
	if (is_same)
		return 0;
	tx->blocked_on = lock->order;
	return -EDEADLK;
}

int txn_lock_ag(struct txn *tx, uint32_t agno)
{
	int rc;

	assert(agno < pool_ag_count(tx->pool));
	/* Whoever changes the chunk table has read it before, so that reading it never meets a commit. */
	rc = ag_load(tx->pool, agno);
	if (rc)
		return rc;
	return txn_lock(tx, &tx->pool->ags[agno].lock, tx->mode != TXN_READ);
}

uint64_t txn_blocked_on(const struct txn *tx)
{
	return tx->blocked_on;
}
