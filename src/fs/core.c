/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The runner of operations, inodes inside a transaction, opening and closing the file system.
 *
 * An operation that lost (-EDEADLK) starts again with all locks taken first, in order, that it had or wanted: so each round
 * waits properly for what the last one could not have, and knows at least one lock more.
 */
#include "fs/core.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "fs/poison.h"
#include "util/log.h"

#define SLOW_ROUNDS 4  /* lost rounds after which an operation takes the slow lock */
#define REFILLS_MAX 16 /* times that an operation may ask for metadata units */
#define INO_LIMIT (1ull << 55)
#define HASH_BITS_MIN 5u

/* Locks to take first in the next round, by order. */
struct op_locks {
	struct op_want {
		uint64_t order;
		bool write;
	} * wants, few[12];
	unsigned count, size;
};

static int wants_add(struct op_locks *locks, uint64_t order, bool write)
{
	unsigned at = 0;

	if (!locks->wants) {
		locks->wants = locks->few;
		locks->size = ARRAY_SIZE(locks->few);
	}
	while (at < locks->count && locks->wants[at].order < order)
		at++;
	if (at < locks->count && locks->wants[at].order == order) {
		locks->wants[at].write |= write;
		return 0;
	}
	if (locks->count == locks->size) {
		struct op_want *more = malloc(locks->size * 2 * sizeof(*more));

		if (!more)
			return -ENOMEM;
		memcpy(more, locks->wants, locks->count * sizeof(*more));
		if (locks->wants != locks->few)
			free(locks->wants);
		locks->wants = more;
		locks->size *= 2;
	}
	memmove(&locks->wants[at + 1], &locks->wants[at], (locks->count - at) * sizeof(*locks->wants));
	locks->wants[at] = (struct op_want){ order, write };
	locks->count++;
	return 0;
}

/* Remembers what this round held and what it could not have. */
static int wants_note(struct op *op, struct op_locks *locks)
{
	uint64_t blocked = txn_blocked_on(op->tx);
	bool upgrade = false;
	int rc = 0;

	for (unsigned i = 0; i < op->held_count && !rc; i++) {
		struct txn_lock *lock = &op->held[i]->lock;

		if (!txn_holds(op->tx, lock, false))
			continue;
		rc = wants_add(locks, lock->order, txn_holds(op->tx, lock, true));
		upgrade |= lock->order == blocked;
	}
	for (uint32_t agno = 0; agno < pool_ag_count(op->fs->pool) && !rc; agno++) {
		if (txn_holds(op->tx, pool_ag_lock(op->fs->pool, agno), false))
			rc = wants_add(locks, TXN_ORDER_AG | agno, true);
	}
	return rc ? rc : wants_add(locks, blocked, upgrade || txn_mode(op->tx) != TXN_READ);
}

static int wants_take(struct op *op, const struct op_locks *locks)
{
	for (unsigned i = 0; i < locks->count; i++) {
		const struct op_want *want = &locks->wants[i];
		int rc;

		if (want->order < TXN_ORDER_AG)
			rc = op_hold(op, want->order, want->write, NULL);
		else
			rc = txn_lock_ag(op->tx, (uint32_t)(want->order & ~TXN_ORDER_AG));
		if (rc)
			return rc;
	}
	return 0;
}

static void op_release(struct op *op)
{
	for (unsigned i = op->held_count; i-- > 0;)
		inode_unpin(op->fs, op->held[i], 1);
	if (op->held != op->held_few)
		free(op->held);
}

static _Thread_local struct fs_cred request_cred;

void fs_receipt_set(struct txn_receipt *receipt)
{
	request_cred.receipt = receipt;
}

const struct fs_cred *op_request(void)
{
	return request_cred.receipt ? &request_cred : NULL;
}

struct op_call {
	struct op *op;
	const struct op_locks *locks;
	op_fn fn;
	void *arg;
};

static int op_call(void *arg)
{
	const struct op_call *call = arg;
	int rc = wants_take(call->op, call->locks);

	return rc ? rc : call->fn(call->op, call->arg);
}

/*
 * *retry: fn's result, not the commit's, so that another round makes sense. *meta: the bad memory that it met is under metadata, and has been noted
 * (pool_on_bad).
 */
/* How a round ended that is not the last one. */
struct op_ending {
	bool retry, meta;   /* meta: for a unit in bad memory */
	struct dax_bad bad; /* for file data there */
	struct op_change changes[OP_CHANGES];
	unsigned change_count;
};

static int op_round(struct fs *fs, enum txn_mode mode, const struct fs_cred *cred, op_fn fn, void *arg,
		    struct op_locks *locks, struct op_ending *end)
{
	struct op op = {
		.fs = fs, .cred = cred, .held = op.held_few, .held_size = OP_HELD_FEW, .changes = end->changes
	};
	struct op_call call = { &op, locks, fn, arg };
	struct timespec now;
	int rc;

	clock_gettime(CLOCK_REALTIME, &now);
	op.now = (struct inode_time){ now.tv_sec, (uint32_t)now.tv_nsec };
	op.tx = txn_begin(fs->pool, mode);
	end->retry = false;
	if (!op.tx)
		return -ENOMEM;
	dax_bad_forget(); /* what was met before this is somebody's who sees to it */
	rc = pool_guard(fs->pool, op_call, &call);
	end->retry = rc < 0;
	end->meta = rc == -EHWPOISON && !op.bad_data;
	end->bad = op.bad;
	end->change_count = op.change_count;
	if (rc == -EDEADLK && wants_note(&op, locks) != 0)
		rc = -ENOMEM;
	if (rc < 0) {
		txn_abort(op.tx);
	} else {
		int err;

		if (cred)
			txn_set_request(op.tx, cred->request_id, rc);
		if (cred && cred->receipt)
			txn_set_receipt(op.tx, cred->receipt, rc, op.answer, op.answer_flags);
		err = txn_commit(op.tx);
		if (err)
			rc = err;
		else if (cred && op.answer_flags & RECEIPT_MAKES) /* the end hooks have counted it */
			receipt_note(cred->receipt, RECEIPT_REF);
	}
	op_release(&op);
	return rc;
}

/* All places for intents are in use. Whoever has one needs nothing of us any more and gives it back soon. */
static int intents_wait(struct fs *fs)
{
	const struct timespec a_moment = { .tv_nsec = 1000000 };

	if (pool_failed(fs->pool))
		return -EROFS;
	pool_stats(fs->pool)->retries++;
	nanosleep(&a_moment, NULL);
	return 0;
}

/* How the rounds of an operation are going. */
struct op_rounds {
	struct op_locks locks;
	struct changes changes;
	struct op_ending end;
	unsigned lost, refills, poisons;
	bool slow, drained, store, asks;
};

/* Others may need the slow lock before they can help. */
static void slow_leave(struct fs *fs, struct op_rounds *r)
{
	if (r->slow)
		pthread_mutex_unlock(&fs->slow_lock);
	r->slow = false;
	r->lost = 0;
}

static void round_lost(struct fs *fs, struct op_rounds *r)
{
	pool_stats(fs->pool)->retries++;
	if (++r->lost != SLOW_ROUNDS)
		return;
	pthread_mutex_lock(&fs->slow_lock);
	r->slow = true;
}

int op_gain_space(struct fs *fs)
{
	int rc;

	evacuate_idle(fs);
	orphan_drain(fs);
	rc = space_trim(fs->pool);
	return rc < 0 ? rc : 0;
}

/* With no transaction open: what it takes to try once more. 0: it has been done. */
static int round_again(struct fs *fs, struct op_rounds *r, int rc)
{
	if (rc == -EDEADLK) {
		round_lost(fs, r);
		return 0;
	}
	if (r->end.meta) {
		rc = r->poisons++ < POOL_GUARD_TRIES ? 0 : -EIO;
	} else if (rc == -EHWPOISON) {
		slow_leave(fs, r);
		rc = r->poisons++ < POOL_GUARD_TRIES ? poison_met(fs, &r->end.bad, r->store) : -EIO;
	} else if (rc == -EUSERS && r->asks) {
		slow_leave(fs, r);
		rc = changes_begin(fs, &r->changes, r->end.changes, r->end.change_count);
	}
	if (rc == -ENOLCK)
		rc = intents_wait(fs);
	if (rc == -ENOBUFS)
		rc = r->refills++ < REFILLS_MAX ? space_refill(fs->pool) : -ENOSPC;
	if (rc != -ENOSPC || r->drained)
		return rc;
	r->drained = true;
	slow_leave(fs, r);
	return op_gain_space(fs);
}

static int run(struct fs *fs, enum txn_mode mode, const struct fs_cred *cred, op_fn fn, void *arg, bool drain,
	       bool asks)
{
	struct op_rounds r;
	int rc;

	if (mode != TXN_READ && (fs->opts.readonly || pool_failed(fs->pool)))
		return -EROFS;
	r.locks = (struct op_locks){ .count = 0 };
	r.changes = (struct changes){ .count = 0 };
	r.lost = r.refills = r.poisons = 0;
	r.slow = false;
	r.drained = !drain;
	r.asks = asks;
	r.store = mode != TXN_READ;
	do {
		rc = op_round(fs, mode, cred, fn, arg, &r.locks, &r.end);
	} while (rc < 0 && r.end.retry && (rc = round_again(fs, &r, rc)) == 0);
	slow_leave(fs, &r);
	if (r.changes.list)
		changes_end(fs, &r.changes);
	if (r.locks.wants != r.locks.few)
		free(r.locks.wants);
	if (mode != TXN_READ && rc >= 0)
		poison_has_room(fs);
	return rc;
}

int op_run(struct fs *fs, enum txn_mode mode, const struct fs_cred *cred, op_fn fn, void *arg)
{
	return run(fs, mode, cred, fn, arg, mode == TXN_WRITE, true);
}

int op_run_now(struct fs *fs, enum txn_mode mode, const struct fs_cred *cred, op_fn fn, void *arg)
{
	return run(fs, mode, cred, fn, arg, mode == TXN_WRITE, false);
}

int op_run_poison(struct fs *fs, enum txn_mode mode, op_fn fn, void *arg)
{
	return run(fs, mode, NULL, fn, arg, false, true);
}

static int held_add(struct op *op, struct inode *inode)
{
	if (op->held_count == op->held_size) {
		struct inode **more = malloc(op->held_size * 2 * sizeof(*more));

		if (!more)
			return -ENOMEM;
		memcpy(more, op->held, op->held_count * sizeof(*more));
		if (op->held != op->held_few)
			free(op->held);
		op->held = more;
		op->held_size *= 2;
	}
	op->held[op->held_count++] = inode;
	return 0;
}

int op_hold(struct op *op, uint64_t ino, bool write, struct inode **out)
{
	struct inode *inode = NULL;
	int rc;

	if (ino == 0 || ino >= INO_LIMIT)
		return -ESTALE;
	for (unsigned i = 0; i < op->held_count && !inode; i++) {
		if (op->held[i]->ino == ino)
			inode = op->held[i];
	}
	if (!inode) {
		inode = inode_pin(op->fs, ino, 1, true);
		if (!inode)
			return -ENOMEM;
		rc = held_add(op, inode);
		if (rc) {
			inode_unpin(op->fs, inode, 1);
			return rc;
		}
	}
	rc = txn_lock(op->tx, &inode->lock, write);
	if (rc)
		return rc;
	if (out)
		*out = inode;
	return 0;
}

/* First use of a number by this DRAM inode: the inode tree decides, then the record has to be sound. */
static int inode_first_look(struct op *op, struct inode *inode)
{
	const struct m_inode *record;
	int rc = space_inode_check(op->tx, inode->ino);

	if (rc)
		return rc;
	rc = inode_record(op, inode->ino, &record);
	if (rc)
		return rc;
	atomic_store(&inode->unlinked, le32_get(record->di_nlink) == 0);
	atomic_store(&inode->checked, true);
	return 0;
}

int op_inode(struct op *op, uint64_t ino, bool write, struct inode **out)
{
	struct inode *inode;
	int rc = op_hold(op, ino, write, &inode);

	if (!rc && !atomic_load(&inode->checked))
		rc = inode_first_look(op, inode);
	if (rc)
		return rc;
	if (out)
		*out = inode;
	return 0;
}

int op_inode_pair(struct op *op, uint64_t a, bool a_write, struct inode **ia, uint64_t b, bool b_write,
		  struct inode **ib)
{
	int rc;

	if (a > b)
		return op_inode_pair(op, b, b_write, ib, a, a_write, ia);
	if (a == b)
		a_write = b_write = a_write || b_write;
	rc = op_inode(op, a, a_write, ia);
	return rc ? rc : op_inode(op, b, b_write, ib);
}

int inode_record(struct op *op, uint64_t ino, const struct m_inode **record)
{
	const void *unit;
	int rc = txn_get(op->tx, inode_laddr(ino), MAGIC_INODE, &unit);

	if (!rc)
		*record = unit;
	return rc;
}

int inode_edit(struct op *op, uint64_t ino, struct m_inode **record)
{
	void *unit;
	int rc = txn_edit(op->tx, inode_laddr(ino), MAGIC_INODE, &unit);

	if (!rc)
		*record = unit;
	return rc;
}

int inode_get(struct op *op, uint64_t ino, struct inode_attr *attr)
{
	const struct m_inode *record;
	int rc = inode_record(op, ino, &record);

	if (!rc)
		inode_attr_decode(attr, record);
	return rc;
}

int inode_put(struct op *op, const struct inode_attr *attr)
{
	struct m_inode *record;
	int rc = inode_edit(op, attr->ino, &record);

	if (!rc)
		inode_attr_encode(record, attr);
	return rc;
}

static void inode_tree(struct op *op, uint64_t ino, enum node_kind kind, size_t off, size_t size_bytes,
		       struct btree *bt)
{
	*bt = (struct btree){
		.tx = op->tx,
		.kind = kind,
		.root_laddr = inode_laddr(ino),
		.root_magic = MAGIC_INODE,
		.root_off = (uint16_t)off,
		.root_size_bytes = (uint16_t)size_bytes,
		.owner = ino,
		.alloc = &space_bt_alloc,
	};
}

void inode_data_tree(struct op *op, uint64_t ino, enum node_kind kind, struct btree *bt)
{
	inode_tree(op, ino, kind, offsetof(struct m_inode, di_data), INODE_DATA_SIZE, bt);
}

void inode_attr_tree(struct op *op, uint64_t ino, struct btree *bt)
{
	inode_tree(op, ino, NODE_ATTR, offsetof(struct m_inode, di_attr), INODE_ATTR_SIZE, bt);
}

struct event_hook {
	struct inode *inode;
	enum inode_event event;
	bool was_checked, was_unlinked;
};

static void event_apply(void *arg, bool committed)
{
	struct event_hook *hook = arg;
	struct inode *inode = hook->inode;

	if (!committed) {
		if (hook->event == INODE_MADE)
			atomic_store(&inode->checked, false);
		return;
	}
	switch (hook->event) {
	case INODE_MADE:
		atomic_store(&inode->unlinked, false);
		atomic_store(&inode->checked, true);
		break;
	case INODE_UNLINKED:
		atomic_store(&inode->unlinked, true);
		break;
	case INODE_NAMED:
		atomic_store(&inode->unlinked, false);
		break;
	case INODE_FREED:
		atomic_store(&inode->checked, false);
		atomic_store(&inode->unlinked, false);
		atomic_store(&inode->unreadable, false);
		atomic_store(&inode->atime_ns, 0);
		break;
	case INODE_REF:
		inode_ref(inode);
		break;
	case INODE_ATIME:
		atomic_store(&inode->atime_ns, 0);
		break;
	}
}

void inode_on_commit(struct op *op, struct inode *inode, enum inode_event event)
{
	struct event_hook *hook = txn_alloc(op->tx, sizeof(*hook));

	*hook = (struct event_hook){ .inode = inode, .event = event };
	txn_on_end(op->tx, event_apply, hook);
}

static void le64_seed(const uint8_t *bytes, uint64_t *seed)
{
	le64 raw;

	memcpy(&raw, bytes, sizeof(raw));
	*seed = le64_get(raw);
}

static void locks_init(struct fs *fs)
{
	pthread_mutexattr_t recursive;

	pthread_mutexattr_init(&recursive);
	pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&fs->slow_lock, &recursive);
	pthread_mutex_init(&fs->poison_lock, &recursive);
	pthread_mutexattr_destroy(&recursive);
	pthread_mutex_init(&fs->poison_next, NULL);
	pthread_mutex_init(&fs->evac_lock, NULL);
	pthread_mutex_init(&fs->rename_lock, NULL);
	pthread_mutex_init(&fs->drain_lock, NULL);
	pthread_mutex_init(&fs->work_lock, NULL);
	pthread_mutex_init(&fs->adopt_lock, NULL);
	CDS_INIT_LIST_HEAD(&fs->orphans);
	CDS_INIT_LIST_HEAD(&fs->atimes);
	events_open(fs);
	poison_listen(fs, true);
}

static void locks_destroy(struct fs *fs)
{
	pthread_mutex_destroy(&fs->slow_lock);
	pthread_mutex_destroy(&fs->poison_lock);
	pthread_mutex_destroy(&fs->poison_next);
	pthread_mutex_destroy(&fs->evac_lock);
	pthread_mutex_destroy(&fs->rename_lock);
	pthread_mutex_destroy(&fs->drain_lock);
	pthread_mutex_destroy(&fs->work_lock);
	pthread_mutex_destroy(&fs->adopt_lock);
}

int fs_open(struct pool *pool, const struct fs_opts *opts, struct fs **out)
{
	const struct super *super = pool_super(pool);
	struct fs *fs;
	int rc;

	if (super->dir_hash_bits < HASH_BITS_MIN || super->dir_hash_bits > 63) {
		log_error("superblock: directory hashes of %u bits make no sense", super->dir_hash_bits);
		return -EUCLEAN;
	}
	fs = calloc(1, sizeof(*fs));
	if (!fs)
		return -ENOMEM;
	fs->pool = pool;
	fs->opts = *opts;
	fs->hash_last = (1ull << super->dir_hash_bits) - 1;
	le64_seed(super->hash_seed, &fs->name_seed);
	le64_seed(super->hash_seed + 8, &fs->parent_seed);
	locks_init(fs);
	copies_open(fs);
	atomic_init(&fs->bad_in_use, super->ro_compat & FEATURE_RO_COMPAT_BAD_IN_USE);
	atomic_init(&fs->bad_full_at, UINT64_MAX);
	atomic_init(&fs->stays_sought, !atomic_load(&fs->bad_in_use));
	rc = space_open(pool);
	if (rc)
		goto out_free;
	rc = itable_open(fs);
	if (rc)
		goto out_space;
	if (!opts->readonly) {
		rc = data_resume(fs);
		if (rc) /* finished later, it would take from files what was written to them meanwhile */
			pool_fail(pool, "an unfinished operation cannot be continued");
		else
			poison_resume(fs);
	}
	rc = work_start(fs);
	if (rc)
		goto out_table;
	*out = fs;
	return 0;
out_table:
	itable_close(fs);
out_space:
	space_close(pool);
out_free:
	pool_on_event(pool, NULL, NULL);
	poison_listen(fs, false);
	copies_close(fs);
	locks_destroy(fs);
	free(fs->bad);
	free(fs->untold);
	free(fs);
	return rc;
}

void fs_close(struct fs *fs)
{
	work_stop(fs);
	evacuate_close(fs);
	events_close(fs);
	atime_flush(fs);
	atomic_store(&fs->orphans_scanned, true); /* if not, the next mount looks at them */
	orphan_drain(fs);
	itable_disown_all(fs);
	poison_drain(
		fs,
		POISON_LAST); /* what was bad of orphans is nobody's now; no copy is left in bad memory if it can be helped */
	itable_close(fs);
	space_close(fs->pool);
	poison_listen(fs, false);
	copies_close(fs);
	locks_destroy(fs);
	free(fs->bad);
	free(fs->untold);
	free(fs);
}

struct pool *fs_pool(const struct fs *fs)
{
	return fs->pool;
}
