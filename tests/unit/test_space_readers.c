/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Transactions that only read share the lock of a group, and see whole states while others write.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/space_check.h"

#define MIB (1ull << 20)

enum { READERS = 3, READ_INODES = 200 };

struct readers {
	struct test_pool *t;
	pthread_mutex_t lock;
	pthread_cond_t all_there;
	unsigned there; /* readers in the middle of a transaction */
	uint64_t inos[READ_INODES];
	atomic_bool stop;
	_Atomic int error;
};

/* Each reader waits, with the group's lock, for the others to have it too. If they never do, the limit of the suite ends it. */
static void readers_meet(struct readers *r)
{
	pthread_mutex_lock(&r->lock);
	if (++r->there == READERS)
		pthread_cond_broadcast(&r->all_there);
	while (r->there < READERS)
		pthread_cond_wait(&r->all_there, &r->lock);
	pthread_mutex_unlock(&r->lock);
}

static void *reader_run(void *arg)
{
	struct readers *r = arg;
	struct txn *tx = txn_begin(r->t->pool, TXN_READ);
	int rc = space_inode_check(tx, INODE_ROOT);

	if (rc)
		r->error = rc;
	readers_meet(r);
	txn_abort(tx);
	for (unsigned i = 0; !r->stop && !r->error; i++) {
		uint64_t refs, same;

		tx = txn_begin(r->t->pool, TXN_READ);
		rc = space_inode_check(tx, r->inos[i % READ_INODES]);
		if (!rc)
			rc = space_refs(tx, 2 * CHUNK_BLOCKS, 1, &refs, &same);
		if (rc && rc != -EDEADLK)
			r->error = rc;
		txn_abort(tx);
	}
	return NULL;
}

/* Inode numbers and their clusters, beside those that are read. */
static void numbers_come_and_go(struct test_pool *t)
{
	uint64_t inos[300];

	for (unsigned i = 0; i < 3 * ARRAY_SIZE(inos); i++) {
		bool take = i / ARRAY_SIZE(inos) % 2 == 0;
		uint64_t *ino = &inos[i % ARRAY_SIZE(inos)];
		struct txn *tx = txn_begin(t->pool, take ? TXN_WRITE : TXN_FREEING);

		assert_int_equal(take ? space_inode_alloc(tx, 0, ino) : space_inode_free(tx, *ino), 0);
		assert_int_equal(txn_commit(tx), 0);
	}
}

static void test_readers_share_a_group(void **state)
{
	struct readers r = { .lock = PTHREAD_MUTEX_INITIALIZER, .all_there = PTHREAD_COND_INITIALIZER };
	pthread_t threads[READERS];
	struct space_seen seen;
	struct test_pool t;

	(void)state;
	test_pool_make(&t, 64 * MIB, NULL);
	r.t = &t;
	for (unsigned i = 0; i < READ_INODES; i++) {
		struct txn *tx = txn_begin(t.pool, TXN_WRITE);

		assert_int_equal(space_inode_alloc(tx, 0, &r.inos[i]), 0);
		assert_int_equal(txn_commit(tx), 0);
	}
	for (unsigned i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, reader_run, &r), 0);
	/* No writer before they have met: one that waits keeps the next reader out. */
	pthread_mutex_lock(&r.lock);
	while (r.there < READERS)
		pthread_cond_wait(&r.all_there, &r.lock);
	pthread_mutex_unlock(&r.lock);
	if (!r.error)
		numbers_come_and_go(&t);
	r.stop = true;
	for (unsigned i = 0; i < READERS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(r.error, 0);
	space_check(t.pool, &seen);
	free(seen.blocks);
	test_pool_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_readers_share_a_group),
	};

	return cmocka_run_group_tests_name("space_readers", tests, NULL, NULL);
}
