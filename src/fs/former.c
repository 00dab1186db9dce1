/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See former.h. A thread asks the kernel until they are gone.
 *
 * Whoever is about to change what they may have finds it as he finds other holders (holders.c), and waits here with no lock held.
 */
#include "fs/former.h"

#include <errno.h>
#include <time.h>

#include "fs/core.h"
#include "space/space.h"
#include "util/log.h"
#include "util/sabotage.h"

#define STEP_MS 1u
#define STEP_MAX_MS 20u
#define STEP_LOST_MS 500u

static struct timespec after_ms(uint64_t ms)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += (time_t)(ms / 1000);
	t.tv_nsec += (long)(ms % 1000) * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	return t;
}

static bool is_past(const struct timespec *limit)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec > limit->tv_sec || (now.tv_sec == limit->tv_sec && now.tv_nsec >= limit->tv_nsec);
}

static void state_set(struct fs *fs, enum former state)
{
	struct former_wait *w = &fs->former_wait;

	pthread_mutex_lock(&w->lock);
	atomic_store(&fs->former, state);
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

/* What was kept for them goes back to use, but for what this daemon has lent. */
static void over(struct fs *fs)
{
	const struct fs_holders *holders;
	uint64_t lo = 0, hi;

	state_set(fs, FORMER_GONE);
	pthread_mutex_lock(&fs->former_wait.holders_lock);
	holders = atomic_load(&fs->holders);
	if (!sabotage_point("former-kept"))
		space_keep_again(fs->pool);
	if (holders && holders->recount)
		holders->recount(holders->arg);
	while (!holders && fs_lent_next(fs, lo, &lo, &hi))
		fs_unlent(fs, lo, hi - lo);
	pthread_mutex_unlock(&fs->former_wait.holders_lock);
}

static void *run(void *arg)
{
	struct fs *fs = arg;
	struct former_wait *w = &fs->former_wait;
	const struct fs_former *former = fs->opts.former;
	struct timespec limit = after_ms(former->wait_ms);
	uint64_t step_ms = STEP_MS;
	bool stop = false;

	thread_register();
	while (!stop && former->is_there(former->arg)) {
		struct timespec step;
		int rc = 0;

		if (atomic_load(&fs->former) == FORMER_WAIT && is_past(&limit)) {
			state_set(fs, FORMER_LOST);
			if (former->lost)
				former->lost(former->arg);
		}
		step = after_ms(step_ms);
		step_ms = atomic_load(&fs->former) == FORMER_LOST ? STEP_LOST_MS :
								    u64_min(2 * step_ms, STEP_MAX_MS);
		pthread_mutex_lock(&w->lock);
		while (!w->stop && rc != ETIMEDOUT)
			rc = pthread_cond_timedwait(&w->changed, &w->lock, &step);
		stop = w->stop;
		pthread_mutex_unlock(&w->lock);
	}
	if (!stop)
		over(fs);
	return NULL;
}

int former_open(struct fs *fs)
{
	struct former_wait *w = &fs->former_wait;
	const struct fs_former *former = fs->opts.former;
	pthread_condattr_t attr;
	int rc;

	pthread_mutex_init(&w->lock, NULL);
	pthread_mutex_init(&w->holders_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->changed, &attr);
	pthread_condattr_destroy(&attr);
	if (!former || !former->is_there(former->arg)) {
		uint64_t lo = 0, hi;

		/* What a daemon before has noted of processes that have ended. */
		while (fs_lent_next(fs, lo, &lo, &hi))
			fs_unlent(fs, lo, hi - lo);
		return 0;
	}
	atomic_store(&fs->former, FORMER_WAIT);
	holders_keep(fs);
	space_keep_loads(fs->pool, true);
	rc = -pthread_create(&w->thread, NULL, run, fs);
	w->runs = rc == 0;
	return rc;
}

void former_close(struct fs *fs)
{
	struct former_wait *w = &fs->former_wait;

	pthread_mutex_lock(&w->lock);
	w->stop = true;
	/* Nobody waits for them any more. */
	if (atomic_load(&fs->former) == FORMER_WAIT)
		atomic_store(&fs->former, FORMER_LOST);
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
	if (w->runs)
		pthread_join(w->thread, NULL);
	pthread_cond_destroy(&w->changed);
	pthread_mutex_destroy(&w->lock);
	pthread_mutex_destroy(&w->holders_lock);
}

/* ---- who asks ---- */

bool former_held(const struct fs *fs, const struct inode *inode, enum fs_change change)
{
	enum former state = atomic_load_explicit(&fs->former, memory_order_acquire);
	uint64_t ways = atomic_load(&inode->former);

	if (state == FORMER_GONE || !(ways & LEDGER_HELD) || sabotage_point("former-held"))
		return false;
	if (state == FORMER_LOST)
		return change == FS_CHANGE_SHARE && ways & LEDGER_STORED && !sabotage_point("former-share");
	return ways & LEDGER_STORED || !fs_change_leaves_reads(change);
}

int former_begin(struct fs *fs, uint64_t ino, enum fs_change change)
{
	struct inode *inode;
	bool stored;

	if (!former_is_any(fs))
		return 0;
	fs_former_wait(fs, UINT32_MAX);
	if (change != FS_CHANGE_SHARE || !former_is_any(fs))
		return 0;
	/* What they may store to gets no other owner. */
	inode = inode_pin(fs, ino, 1, true);
	if (!inode)
		return -ENOMEM;
	stored = atomic_load(&inode->former) & LEDGER_STORED;
	inode_unpin(fs, inode, 1);
	return stored ? -EBUSY : 0;
}

void fs_former_wait(struct fs *fs, unsigned ms)
{
	struct former_wait *w = &fs->former_wait;
	struct timespec limit = after_ms(ms);
	int rc = 0;

	pthread_mutex_lock(&w->lock);
	while (atomic_load(&fs->former) == FORMER_WAIT && !w->stop && rc != ETIMEDOUT)
		rc = pthread_cond_timedwait(&w->changed, &w->lock, &limit);
	pthread_mutex_unlock(&w->lock);
}
