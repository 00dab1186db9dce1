/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Transactions: what a commit changes and an abort does not, healing, locks, replay after a cut at every store.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "dax/priv.h" /* a store is refused the way a failed msync() has it */
#include "media/ag.h"
#include "media/inode.h"
#include "txn/format.h"
#include "txn/txn.h"

#define POOL_BYTES ((uint64_t)16 << 20)
#define ROOT_LADDR (INODE_ROOT << INODE_SHIFT)

struct env {
	struct dax *dax;
	struct pool *pool;
	/* Stores are applied only while budget lasts: the rest is what a crash loses. */
	uint8_t *image;
	long stores, budget;
	/* Stores that touch this byte of the pool are refused; 0: none. */
	uint64_t refuse_off;
};

static void trace_store(void *ctx, uint64_t off, const void *src, size_t len_bytes)
{
	struct env *env = ctx;
	bool hit = env->refuse_off >= off && env->refuse_off - off < len_bytes;

	if (env->dax)
		atomic_store(&env->dax->failed, env->refuse_off && hit);
	if (env->image && env->stores++ < env->budget)
		memcpy(env->image + off, src, len_bytes);
}

static void trace_zero(void *ctx, uint64_t off, size_t len_bytes)
{
	struct env *env = ctx;

	if (env->image && env->stores++ < env->budget)
		memset(env->image + off, 0, len_bytes);
}

static void trace_fence(void *ctx)
{
	(void)ctx;
}

static void env_open(struct env *env, const void *image)
{
	struct dax_trace trace = { trace_store, trace_zero, trace_fence, env };
	char why[200];

	assert_int_equal(dax_open_ram(POOL_BYTES, image, &trace, &env->dax), 0);
	if (!image)
		assert_int_equal(pool_format(env->dax, &(struct format_opts){ 0 }, NULL, why, sizeof(why)),
				 0);
	assert_int_equal(pool_open(env->dax, &(struct pool_opts){ 0 }, &env->pool, why, sizeof(why)), 0);
}

static void env_close(struct env *env)
{
	pool_close(env->pool, true);
	dax_close(env->dax);
}

static uint32_t root_uid(struct pool *pool)
{
	struct txn *tx = txn_begin(pool, TXN_READ);
	struct inode_attr attr;
	const void *unit;

	assert_int_equal(txn_get(tx, ROOT_LADDR, MAGIC_INODE, &unit), 0);
	inode_attr_decode(&attr, unit);
	assert_int_equal(txn_commit(tx), 0);
	return attr.uid;
}

static struct txn *edit_root(struct pool *pool, uint32_t uid)
{
	struct txn *tx = txn_begin(pool, TXN_WRITE);
	void *unit;

	assert_int_equal(txn_edit(tx, ROOT_LADDR, MAGIC_INODE, &unit), 0);
	((struct m_inode *)unit)->di_uid = le32_of(uid);
	return tx;
}

static void test_commit_and_abort(void **state)
{
	struct env env = { 0 };

	(void)state;
	env_open(&env, NULL);
	txn_abort(edit_root(env.pool, 5));
	assert_int_equal(root_uid(env.pool), 0);
	assert_int_equal(txn_commit(edit_root(env.pool, 6)), 0);
	assert_int_equal(root_uid(env.pool), 6);
	env_close(&env);
}

static void test_sequence_never_repeats(void **state)
{
	struct env env = { 0 };
	uint64_t before, after;
	struct txn *tx;
	uint8_t *copy = malloc(POOL_BYTES);

	(void)state;
	env_open(&env, NULL);
	tx = txn_begin(env.pool, TXN_WRITE);
	before = txn_seq(tx);
	txn_abort(tx);
	memcpy(copy, dax_ptr(env.dax, 0), POOL_BYTES);
	env_close(&env);
	env_open(&env, copy); /* as after a crash: the close is not in the copy */
	assert_false(pool_was_clean(env.pool));
	tx = txn_begin(env.pool, TXN_WRITE);
	after = txn_seq(tx);
	txn_abort(tx);
	assert_true(after > before);
	env_close(&env);
	free(copy);
}

static void damage(struct env *env, uint64_t laddr, unsigned copy)
{
	uint64_t off;
	uint8_t junk[LINE_SIZE];

	memset(junk, 0xa5, sizeof(junk));
	assert_int_equal(pool_place(env->pool, laddr, copy, &off), 0);
	assert_int_equal(dax_store(env->dax, off + LINE_SIZE, junk, sizeof(junk)), 0);
	pool_unverify(env->pool, laddr, INODE_SIZE);
}

static void test_heal_from_mirror(void **state)
{
	struct env env = { 0 };

	(void)state;
	env_open(&env, NULL);
	assert_int_equal(txn_commit(edit_root(env.pool, 7)), 0);
	damage(&env, ROOT_LADDR, 0);
	assert_int_equal(root_uid(env.pool), 7);
	assert_int_equal(pool_stats(env.pool)->heals, 1);
	env_close(&env);
}

static void test_both_copies_damaged(void **state)
{
	struct env env = { 0 };
	const void *unit;
	struct txn *tx;

	(void)state;
	env_open(&env, NULL);
	damage(&env, ROOT_LADDR, 0);
	damage(&env, ROOT_LADDR, 1);
	tx = txn_begin(env.pool, TXN_READ);
	assert_int_equal(txn_get(tx, ROOT_LADDR, MAGIC_INODE, &unit), -EUCLEAN);
	txn_abort(tx);
	env_close(&env);
}

/* A field that is not in the first line of the inode. */
static int set_root_projid(struct pool *pool, uint32_t projid)
{
	struct txn *tx = txn_begin(pool, TXN_WRITE);
	void *unit;

	assert_int_equal(txn_edit(tx, ROOT_LADDR, MAGIC_INODE, &unit), 0);
	((struct m_inode *)unit)->di_projid = le32_of(projid);
	return txn_commit(tx);
}

/*
 * A commit that could not write one copy leaves it behind; a later one, which changes other lines and can write those, must not
 * make a unit of both that is believed.
 */
static void check_copy_left_behind(unsigned bad_copy, bool line_stays_bad)
{
	const struct m_inode *copies[2];
	struct env env = { 0 };
	struct txn *tx;
	const void *unit;
	uint64_t off;

	env_open(&env, NULL);
	assert_int_equal(root_uid(env.pool), 0);
	assert_int_equal(pool_place(env.pool, ROOT_LADDR, bad_copy, &off), 0);
	env.refuse_off = off + offsetof(struct m_inode, di_projid);
	assert_int_equal(set_root_projid(env.pool, 77), 0);
	assert_int_equal(root_uid(env.pool), 0);
	if (!line_stays_bad)
		env.refuse_off = 0;
	assert_int_equal(txn_commit(edit_root(env.pool, 7)), 0);
	tx = txn_begin(env.pool, TXN_READ);
	assert_int_equal(txn_get(tx, ROOT_LADDR, MAGIC_INODE, &unit), 0);
	assert_int_equal(le32_get(((const struct m_inode *)unit)->di_projid), 77);
	assert_int_equal(le32_get(((const struct m_inode *)unit)->di_uid), 7);
	txn_abort(tx);
	env.refuse_off = 0;
	assert_int_equal(root_uid(env.pool), 7);
	for (unsigned copy = 0; copy < 2; copy++) {
		assert_int_equal(pool_place(env.pool, ROOT_LADDR, copy, &off), 0);
		copies[copy] = dax_ptr(env.dax, off);
	}
	assert_memory_equal(copies[0], copies[1], INODE_SIZE);
	env_close(&env);
}

static void test_copy_left_behind(void **state)
{
	(void)state;
	for (unsigned copy = 0; copy < 2; copy++) {
		check_copy_left_behind(copy, false);
		check_copy_left_behind(copy, true);
	}
}

/* msync() of this program fails at the so-manieth call. */
static unsigned msync_left;

int msync(void *addr, size_t len, int flags)
{
	if (msync_left > 0 && --msync_left == 0) {
		errno = EIO;
		return -1;
	}
	return (int)syscall(SYS_msync, addr, len, flags);
}

/* What is not surely durable is not reported as done, and what is reported as done is there after the next mount. */
static void test_fence_that_fails(void **state)
{
	const struct dax_opts opts = { .durability = DAX_MSYNC, .create = true, .size_bytes = POOL_BYTES };
	char path[64], why[200];
	unsigned refused = 0, done = 0;

	(void)state;
	snprintf(path, sizeof(path), "/dev/shm/test_txn.%d", (int)getpid());
	for (unsigned fail_at = 1; fail_at <= 3; fail_at++) {
		struct env env = { 0 };
		int rc;

		assert_int_equal(dax_open(path, &opts, &env.dax, why, sizeof(why)), 0);
		assert_int_equal(pool_format(env.dax, &(struct format_opts){ 0 }, NULL, why, sizeof(why)), 0);
		assert_int_equal(pool_open(env.dax, &(struct pool_opts){ 0 }, &env.pool, why, sizeof(why)),
				 0);
		msync_left = fail_at;
		rc = txn_commit(edit_root(env.pool, 8));
		assert_int_equal(msync_left, 0);
		assert_int_equal(rc, fail_at == 1 ? -EIO : 0);
		*(rc ? &refused : &done) += 1;
		if (rc)
			assert_int_equal(root_uid(env.pool), 0);
		assert_true(txn_commit(edit_root(env.pool, 9)) < 0); /* no more of it */
		pool_close(env.pool, false);
		dax_close(env.dax);
		if (rc)
			continue;
		assert_int_equal(dax_open(path, &(struct dax_opts){ 0 }, &env.dax, why, sizeof(why)), 0);
		assert_int_equal(pool_open(env.dax, &(struct pool_opts){ 0 }, &env.pool, why, sizeof(why)),
				 0);
		assert_int_equal(root_uid(env.pool), 8);
		env_close(&env);
	}
	assert_int_equal(refused, 1);
	assert_int_equal(done, 2);
	unlink(path);
}

static void test_super_copy(void **state)
{
	struct env env = { 0 };
	uint8_t *copy = malloc(POOL_BYTES);

	(void)state;
	env_open(&env, NULL);
	memcpy(copy, dax_ptr(env.dax, 0), POOL_BYTES);
	env_close(&env);
	memset(copy, 0, BLOCK_SIZE);
	env_open(&env, copy);
	memcpy(copy, dax_ptr(env.dax, 0), POOL_BYTES);
	env_close(&env);
	assert_int_not_equal(copy[0], 0); /* rewritten by the mount */
	memset(copy + POOL_BYTES - BLOCK_SIZE, 0, BLOCK_SIZE);
	env_open(&env, copy);
	env_close(&env);
	free(copy);
}

static void test_super_that_lies(void **state)
{
	struct env env = { 0 };
	struct super super;

	(void)state;
	env_open(&env, NULL);
	super = *pool_super(env.pool);
	assert_null(super_check(&super));
	super.seq_limit = UINT64_MAX; /* the next numbers would begin at zero again */
	assert_non_null(super_check(&super));
	env_close(&env);
}

static void test_lock_order(void **state)
{
	struct txn_lock low, high;
	struct env env = { 0 };
	struct txn *a, *b;

	(void)state;
	txn_lock_init(&low, 10);
	txn_lock_init(&high, 20);
	env_open(&env, NULL);
	a = txn_begin(env.pool, TXN_READ);
	b = txn_begin(env.pool, TXN_READ);
	assert_int_equal(txn_lock(a, &high, true), 0);
	assert_int_equal(txn_lock(b, &low, true), 0);
	assert_int_equal(txn_lock(a, &low, true), -EDEADLK);
	assert_int_equal(txn_blocked_on(a), 10);
	txn_abort(b);
	assert_int_equal(txn_lock(a, &low, false), 0);       /* free now: the try succeeds */
	assert_int_equal(txn_lock(a, &low, true), -EDEADLK); /* no upgrade */
	assert_true(txn_holds(a, &low, false));
	assert_false(txn_holds(a, &low, true));
	txn_abort(a);
	env_close(&env);
	txn_lock_destroy(&low);
	txn_lock_destroy(&high);
}

struct upgrade {
	struct pool *pool;
	struct txn_lock *lock;
	bool write;
};

/* Somebody else takes the lock once, and ends. */
static void *lock_once(void *arg)
{
	const struct upgrade *u = arg;
	struct txn *tx = txn_begin(u->pool, TXN_READ);

	assert_int_equal(txn_lock(tx, u->lock, u->write), 0);
	txn_abort(tx);
	return NULL;
}

/* Waits for who reads; fails if somebody came first who wrote, or if a later lock is held. */
static void test_lock_upgrade(void **state)
{
	struct txn_lock low, high;
	struct env env = { 0 };
	struct upgrade u;
	pthread_t thread;
	struct txn *a, *b;

	(void)state;
	txn_lock_init(&low, 10);
	txn_lock_init(&high, 20);
	env_open(&env, NULL);
	a = txn_begin(env.pool, TXN_READ);
	assert_int_equal(txn_lock(a, &low, false), 0);
	assert_int_equal(txn_lock_upgrade(a, &low), 0);
	assert_true(txn_holds(a, &low, true));
	assert_int_equal(txn_lock_upgrade(a, &low), 0);
	txn_abort(a);
	a = txn_begin(env.pool, TXN_READ);
	assert_int_equal(txn_lock(a, &low, false), 0);
	assert_int_equal(txn_lock(a, &high, false), 0);
	assert_int_equal(txn_lock_upgrade(a, &low), -EDEADLK);
	assert_int_equal(txn_blocked_on(a), 10);
	assert_true(txn_holds(a, &low, false));
	assert_false(txn_holds(a, &low, true));
	assert_int_equal(txn_lock_upgrade(a, &high), 0);
	txn_abort(a);
	/* A writer waits until the upgrade lets go of the lock, which it does for the other reader: he is first. */
	a = txn_begin(env.pool, TXN_READ);
	assert_int_equal(txn_lock(a, &low, false), 0);
	u = (struct upgrade){ env.pool, &low, true };
	assert_int_equal(pthread_create(&thread, NULL, lock_once, &u), 0);
	do { /* until he waits: those who want to read do too then */
		b = txn_begin(env.pool, TXN_READ);
		assert_int_equal(txn_lock(b, &high, true), 0);
		if (txn_lock(b, &low, false) == -EDEADLK)
			break;
		txn_abort(b);
	} while (true);
	txn_abort(b);
	assert_int_equal(txn_lock_upgrade(a, &low), -EDEADLK);
	assert_int_equal(txn_blocked_on(a), 10);
	txn_abort(a);
	pthread_join(thread, NULL);
	env_close(&env);
	txn_lock_destroy(&low);
	txn_lock_destroy(&high);
}

/* Two units in one transaction: after a cut anywhere both are old or both are new, and replay says so. */
static void commit_two(struct pool *pool)
{
	struct txn *tx = edit_root(pool, 9);
	void *unit;

	assert_int_equal(txn_edit(tx, pool_ag_unit(pool, 0, AG_UNIT_HEADER), MAGIC_AG, &unit), 0);
	((struct m_ag *)unit)->ag_flags = le32_of(9);
	assert_int_equal(txn_commit(tx), 0);
}

static bool two_are_new(struct env *env)
{
	struct txn *tx = txn_begin(env->pool, TXN_READ);
	const void *root, *ag;
	bool root_new, ag_new;

	assert_int_equal(txn_get(tx, ROOT_LADDR, MAGIC_INODE, &root), 0);
	assert_int_equal(txn_get(tx, pool_ag_unit(env->pool, 0, AG_UNIT_HEADER), MAGIC_AG, &ag), 0);
	root_new = le32_get(((const struct m_inode *)root)->di_uid) == 9;
	ag_new = le32_get(((const struct m_ag *)ag)->ag_flags) == 9;
	assert_int_equal(root_new, ag_new);
	txn_abort(tx);
	return root_new;
}

static void test_cut_at_every_store(void **state)
{
	bool seen_old = false, seen_new = false;
	uint8_t *start = malloc(POOL_BYTES), *image = malloc(POOL_BYTES);
	struct env env = { 0 };
	long total = 1;

	(void)state;
	env_open(&env, NULL);
	memcpy(start, dax_ptr(env.dax, 0), POOL_BYTES);
	env_close(&env);
	for (long budget = 0; budget <= total; budget++) {
		struct env run = { 0 }, after = { 0 };

		env_open(&run, start);
		memcpy(image, dax_ptr(run.dax, 0), POOL_BYTES);
		run.image = image;
		run.budget = budget;
		commit_two(run.pool);
		run.image = NULL;
		total = run.stores;
		env_close(&run);
		env_open(&after, image);
		*(two_are_new(&after) ? &seen_new : &seen_old) = true;
		assert_int_equal(pool_stats(after.pool)->damaged_units, 0);
		env_close(&after);
	}
	assert_true(seen_old && seen_new);
	free(start);
	free(image);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_commit_and_abort), cmocka_unit_test(test_sequence_never_repeats),
		cmocka_unit_test(test_heal_from_mirror), cmocka_unit_test(test_both_copies_damaged),
		cmocka_unit_test(test_super_copy),       cmocka_unit_test(test_lock_order),
		cmocka_unit_test(test_lock_upgrade),     cmocka_unit_test(test_cut_at_every_store),
		cmocka_unit_test(test_copy_left_behind), cmocka_unit_test(test_super_that_lies),
		cmocka_unit_test(test_fence_that_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
