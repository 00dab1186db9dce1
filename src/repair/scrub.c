/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Scrub of a mounted file system (scrub.h).
 *
 * Which units are in use is copied chunk by chunk under the group's lock; which of them hold inodes, and which of those inodes are in
 * use, comes from the group's tree of inodes. Both may be out of date when a unit is read, so nothing is believed
 * to be bad before it was seen to be bad with its lock held and still in use.
 *
 * Locks: scrub->lock is taken last and never held while anything else is waited for.
 */
#include "repair/scrub.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fs/core.h"
#include "media/ag.h"
#include "util/log.h"

#define BATCH_BYTES (1u << 20) /* between two looks at the clock */

struct scrub {
	struct fs *fs;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	pthread_t thread;
	bool has_thread; /* to be joined */
	bool stop;
	struct scrub_status status;
	/* the thread's own */
	struct timespec run_start, cpu_start;
	uint64_t batch_bytes;
	struct timespec batch_start;
	uint64_t used[CHUNK_BLOCKS / 64];              /* units in use of the chunk */
	uint64_t clusters[CHUNK_BLOCKS / 64];          /* first units of inode clusters in it */
	uint64_t in_use[CHUNK_BLOCKS / CLUSTER_UNITS]; /* of each cluster: a bit for each inode in use */
};

static uint64_t now_s(void)
{
	return (uint64_t)time(NULL);
}

static uint64_t ns_since(clockid_t clock, const struct timespec *start)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)(now.tv_sec - start->tv_sec) * 1000000000u + (uint64_t)now.tv_nsec -
	       (uint64_t)start->tv_nsec;
}

/* By its thread, under the lock. */
static void times_set(struct scrub *s)
{
	s->status.run_ns = ns_since(CLOCK_MONOTONIC, &s->run_start);
	s->status.cpu_ns = ns_since(CLOCK_THREAD_CPUTIME_ID, &s->cpu_start);
}

static bool bit_get(const uint64_t *bits, unsigned i)
{
	return bits[i / 64] >> i % 64 & 1;
}

/* ---- what is in use ---- */

struct chunk_op {
	struct scrub *scrub;
	uint64_t lchunk;
};

static int clusters_load(struct op *op, struct scrub *s, uint32_t agno, uint64_t lchunk)
{
	uint64_t first = lchunk << (CHUNK_SHIFT - INODE_SHIFT), end = first + CHUNK_SIZE / INODE_SIZE;
	struct bt_key from = { { first } };
	struct bt_cursor cur;
	struct btree bt;
	const void *rec;
	size_t size;
	int rc = space_ag_tree(op->tx, agno, AG_INODES, &bt);

	if (rc)
		return rc;
	for (rc = bt_seek(&bt, &cur, &from, BT_GE); rc == 0; rc = bt_next(&cur)) {
		const struct m_inode_cluster *m;
		uint64_t ino;
		unsigned unit;

		rc = bt_get(&cur, &rec, &size);
		if (rc)
			return rc;
		m = rec;
		ino = le64_get(m->ic_first_ino);
		if (ino >= end)
			return 0;
		unit = (unsigned)((ino - first) >> (BLOCK_SHIFT - INODE_SHIFT));
		s->clusters[unit / 64] |= 1ull << unit % 64;
		s->in_use[unit / CLUSTER_UNITS] = ~le64_get(m->ic_free_mask) & (ino == 0 ? ~1ull : ~0ull);
	}
	return rc == -ENOENT ? 0 : rc;
}

static int chunk_load(struct op *op, void *arg)
{
	const struct chunk_op *c = arg;
	struct scrub *s = c->scrub;
	uint32_t ag_chunks = (uint32_t)(pool_super(op->fs->pool)->ag_size_blk / CHUNK_BLOCKS);
	uint32_t agno = (uint32_t)(c->lchunk / ag_chunks), slot = (uint32_t)(c->lchunk % ag_chunks);
	const struct m_chunk *m;
	const void *unit;
	int rc = txn_lock_ag(op->tx, agno);

	memset(s->used, 0, sizeof(s->used));
	memset(s->clusters, 0, sizeof(s->clusters));
	memset(s->in_use, 0, sizeof(s->in_use));
	if (!rc)
		rc = txn_get(op->tx, pool_ag_unit(op->fs->pool, agno, AG_UNIT_TABLE + slot / CHUNKS_PER_UNIT),
			     MAGIC_CHUNKS, &unit);
	if (rc)
		return rc;
	m = &((const struct m_chunks *)unit)->ct_chunks[slot % CHUNKS_PER_UNIT];
	if (slot != 0 && le32_get(m->ck_primary) == 0)
		return 0;
	for (unsigned i = 0; i < CHUNK_BLOCKS; i++)
		if (m->ck_used[i / 8] >> i % 8 & 1)
			s->used[i / 64] |= 1ull << i % 64;
	return clusters_load(op, s, agno, c->lchunk);
}

/* ---- one unit ---- */

/* Both copies are there, the same, and sound: no lock. */
static bool unit_is_fine(struct fs *fs, uint64_t laddr, size_t size)
{
	_Alignas(64) uint8_t primary[BLOCK_SIZE], mirror[BLOCK_SIZE];
	const struct super *super = pool_super(fs->pool);
	struct dax *dax = pool_dax(fs->pool);
	uint64_t off;

	if (pool_place(fs->pool, laddr, 0, &off) != 0 || dax_load(dax, primary, off, size, NULL) != 0 ||
	    unit_check_header(primary, size, 0, laddr, &super->uuid) != NULL)
		return false;
	if (pool_place(fs->pool, laddr, 1, &off) != 0)
		return !(super->incompat & FEATURE_INCOMPAT_META_DUP);
	return dax_load(dax, mirror, off, size, NULL) == 0 && memcmp(primary, mirror, size) == 0;
}

struct unit_op {
	struct fs *fs;
	uint64_t laddr;
	bool is_inode;
	/* results */
	bool checked; /* false: not in use any more, or it changed hands */
	bool healed;
	uint64_t owner;
};

/* The owner as one of the copies says: 0 if neither can be asked. */
static uint64_t owner_guess(const struct unit_op *u, uint32_t *magic)
{
	_Alignas(64) uint8_t buf[BLOCK_SIZE];
	const struct super *super = pool_super(u->fs->pool);
	uint64_t off;

	if (u->is_inode) {
		*magic = MAGIC_INODE;
		return u->laddr >> INODE_SHIFT;
	}
	for (unsigned copy = 0; copy < 2; copy++) {
		if (pool_place(u->fs->pool, u->laddr, copy, &off) == 0 &&
		    dax_load(pool_dax(u->fs->pool), buf, off, sizeof(buf), NULL) == 0 &&
		    unit_check_header(buf, sizeof(buf), 0, u->laddr, &super->uuid) == NULL) {
			*magic = unit_magic(buf);
			return unit_owner(buf);
		}
	}
	*magic = 0;
	return 0;
}

/* Still handed out? Holds the group's lock. */
static int unit_in_use(struct op *op, const struct unit_op *u, bool *in_use)
{
	uint32_t ag_chunks = (uint32_t)(pool_super(u->fs->pool)->ag_size_blk / CHUNK_BLOCKS);
	uint64_t lchunk = u->laddr >> CHUNK_SHIFT;
	uint32_t agno = (uint32_t)(lchunk / ag_chunks), slot = (uint32_t)(lchunk % ag_chunks);
	unsigned index = (unsigned)(u->laddr >> BLOCK_SHIFT) % CHUNK_BLOCKS;
	const void *unit;
	int rc = txn_lock_ag(op->tx, agno);

	if (!rc)
		rc = txn_get(op->tx, pool_ag_unit(u->fs->pool, agno, AG_UNIT_TABLE + slot / CHUNKS_PER_UNIT),
			     MAGIC_CHUNKS, &unit);
	if (!rc)
		*in_use = ((const struct m_chunks *)unit)
					  ->ct_chunks[slot % CHUNKS_PER_UNIT]
					  .ck_used[index / 8] >>
				  index % 8 &
			  1;
	return rc;
}

static int unit_check_locked(struct op *op, void *arg)
{
	struct unit_op *u = arg;
	uint64_t owner, again;
	bool in_use = false, healed = false;
	uint32_t magic;
	int rc = 0;

	u->checked = u->healed = false;
	owner = owner_guess(u, &magic);
	if (owner != 0 && !(owner & OWNER_SPECIAL))
		rc = op_hold(op, owner, false, NULL);
	if (!rc)
		rc = unit_in_use(op, u, &in_use);
	if (!rc && u->is_inode)
		rc = space_inode_check(op->tx, u->laddr >> INODE_SHIFT);
	if (rc == -ESTALE || (!rc && !in_use))
		return 0;
	if (rc)
		return rc;
	again = owner_guess(u, &magic);
	if (again != owner)
		return 0; /* it changed hands: whoever has it now has just written it */
	u->owner = owner;
	u->checked = true;
	rc = txn_unit_scrub(op->tx, u->laddr, magic, &healed);
	u->healed = healed;
	return rc;
}

static void unit_look(struct scrub *s, uint64_t laddr, bool is_inode)
{
	const struct timespec pause = { 0, 1000000 };
	struct unit_op u = { .fs = s->fs, .laddr = laddr, .is_inode = is_inode };
	int rc;

	if (unit_is_fine(s->fs, laddr, is_inode ? INODE_SIZE : BLOCK_SIZE))
		return;
	/* A unit that does not say whose it is may be one that is just being written: its lock is not known either. */
	for (int tries = 0; tries < 5; tries++) {
		rc = op_run(s->fs, TXN_READ, NULL, unit_check_locked, &u);
		if (!u.checked || u.owner != 0)
			break;
		nanosleep(&pause, NULL);
	}
	pthread_mutex_lock(&s->lock);
	s->status.healed_count += rc == 0 && u.healed;
	s->status.lost_count += u.checked && (rc == -EUCLEAN || rc == -EIO);
	s->status.unhealed_count += u.checked && rc == -EROFS;
	pthread_mutex_unlock(&s->lock);
}

/* ---- the walk ---- */

/* When the next batch may begin, at the rate of now. Under the lock. */
static struct timespec batch_end(const struct scrub *s)
{
	uint64_t ns = (uint64_t)((double)s->batch_bytes / (double)s->status.rate_bytes * 1e9);
	struct timespec until = s->batch_start;

	until.tv_sec += (time_t)(ns / 1000000000);
	until.tv_nsec += (long)(ns % 1000000000);
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	return until;
}

/* Counts bytes, keeps to the rate. False: it is to stop. */
static bool progress(struct scrub *s, uint64_t bytes)
{
	bool stop;

	s->batch_bytes += bytes;
	if (s->batch_bytes < BATCH_BYTES)
		return true;
	pthread_mutex_lock(&s->lock);
	s->status.done_bytes += s->batch_bytes;
	times_set(s);
	while (!s->stop && s->status.rate_bytes != 0) {
		struct timespec until = batch_end(s);

		/* Woken: told to stop, or to go at another rate. */
		if (pthread_cond_timedwait(&s->cond, &s->lock, &until) == ETIMEDOUT)
			break;
	}
	stop = s->stop;
	pthread_mutex_unlock(&s->lock);
	s->batch_bytes = 0;
	clock_gettime(CLOCK_MONOTONIC, &s->batch_start);
	return !stop;
}

static bool chunk_look(struct scrub *s, uint64_t lchunk)
{
	uint64_t laddr = lchunk << CHUNK_SHIFT;

	for (unsigned unit = 0; unit < CHUNK_BLOCKS; unit++, laddr += BLOCK_SIZE) {
		unsigned cluster = unit / CLUSTER_UNITS;

		if (!bit_get(s->used, unit))
			continue;
		if (!bit_get(s->clusters, cluster * CLUSTER_UNITS)) {
			/* Unit 11 of slot 0 is fixed and never used: it has no header. */
			if (laddr !=
			    pool_ag_unit(s->fs->pool, pool_laddr_ag(s->fs->pool, laddr), AG_UNIT_REMAP + 1))
				unit_look(s, laddr, false);
		} else {
			unsigned first = unit % CLUSTER_UNITS * (BLOCK_SIZE / INODE_SIZE);

			for (unsigned i = 0; i < BLOCK_SIZE / INODE_SIZE; i++)
				if (s->in_use[cluster] >> (first + i) & 1)
					unit_look(s, laddr + (uint64_t)i * INODE_SIZE, true);
		}
		if (!progress(s, 2 * BLOCK_SIZE))
			return false;
	}
	return true;
}

static int walk(struct scrub *s)
{
	const struct super *super = pool_super(s->fs->pool);
	uint64_t chunks = pool_ag_count(s->fs->pool) * (super->ag_size_blk / CHUNK_BLOCKS);
	int worst = 0;

	for (uint64_t lchunk = 0; lchunk < chunks; lchunk++) {
		struct chunk_op c = { s, lchunk };
		uint64_t off;
		int rc;

		if (pool_place(s->fs->pool, lchunk << CHUNK_SHIFT, 0, &off) == -ENOENT)
			continue;
		rc = op_run(s->fs, TXN_READ, NULL, chunk_load, &c);
		if (rc) {
			/* Its table or tree cannot be read: that is counted where it is met, and the rest goes on. */
			pthread_mutex_lock(&s->lock);
			s->status.lost_count++;
			pthread_mutex_unlock(&s->lock);
			worst = rc;
			continue;
		}
		if (!chunk_look(s, lchunk))
			return -ECANCELED;
	}
	return worst == -ENOMEM ? worst : 0;
}

static void *scrub_main(void *arg)
{
	struct scrub *s = arg;
	int rc;

	thread_register();
	clock_gettime(CLOCK_MONOTONIC, &s->run_start);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &s->cpu_start);
	s->batch_start = s->run_start;
	s->batch_bytes = 0;
	rc = walk(s);
	pthread_mutex_lock(&s->lock);
	s->status.done_bytes += s->batch_bytes;
	times_set(s);
	s->status.ended_s = now_s();
	s->status.error = rc == -ECANCELED ? 0 : rc;
	s->status.state = rc == 0 ? SCRUB_DONE : rc == -ECANCELED ? SCRUB_STOPPED : SCRUB_FAILED;
	log_info("scrub %s: %llu copies healed, %llu units lost, %llu bad copies not written",
		 rc == 0          ? "done" :
		 rc == -ECANCELED ? "stopped" :
				    "failed",
		 (unsigned long long)s->status.healed_count, (unsigned long long)s->status.lost_count,
		 (unsigned long long)s->status.unhealed_count);
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* ---- from outside ---- */

struct scrub *scrub_new(struct fs *fs)
{
	struct scrub *s = calloc(1, sizeof(*s));
	pthread_condattr_t attr;

	if (!s)
		return NULL;
	s->fs = fs;
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->cond, &attr);
	pthread_condattr_destroy(&attr);
	return s;
}

void scrub_free(struct scrub *s)
{
	if (!s)
		return;
	scrub_stop(s);
	pthread_cond_destroy(&s->cond);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

static uint64_t total_bytes(struct fs *fs)
{
	struct space_totals t;

	if (space_totals(fs->pool, &t))
		return 0;
	return (t.meta_chunks * CHUNK_BLOCKS - t.meta_free_units) * BLOCK_SIZE * 2;
}

int scrub_start(struct scrub *s, uint64_t rate_bytes)
{
	uint64_t total = total_bytes(s->fs);
	int rc = 0;

	pthread_mutex_lock(&s->lock);
	if (s->status.state == SCRUB_RUNS) {
		rc = -EBUSY;
		goto out;
	}
	if (s->has_thread)
		pthread_join(s->thread,
			     NULL); /* it has ended, or is about to let go of the lock's last use */
	s->has_thread = false;
	s->stop = false;
	s->status = (struct scrub_status){
		.state = SCRUB_RUNS, .started_s = now_s(), .total_bytes = total, .rate_bytes = rate_bytes
	};
	rc = -pthread_create(&s->thread, NULL, scrub_main, s);
	s->has_thread = rc == 0;
	if (rc)
		s->status.state = SCRUB_NONE;
out:
	pthread_mutex_unlock(&s->lock);
	return rc;
}

void scrub_stop(struct scrub *s)
{
	pthread_t thread;
	bool has_thread;

	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_signal(&s->cond);
	thread = s->thread;
	has_thread = s->has_thread;
	s->has_thread = false;
	pthread_mutex_unlock(&s->lock);
	if (has_thread)
		pthread_join(thread, NULL);
}

void scrub_set_rate(struct scrub *s, uint64_t rate_bytes)
{
	pthread_mutex_lock(&s->lock);
	s->status.rate_bytes = rate_bytes;
	pthread_cond_signal(&s->cond);
	pthread_mutex_unlock(&s->lock);
}

void scrub_get_status(struct scrub *s, struct scrub_status *status)
{
	pthread_mutex_lock(&s->lock);
	*status = s->status;
	pthread_mutex_unlock(&s->lock);
}
