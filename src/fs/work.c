/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Background work: freeing of orphans, writing of access times, telling of events, sharing again what was copied for nothing.
 *
 * A wake-up of another core costs more than freeing a small file, so the thread gathers: it is woken by the first orphan only
 * and then lets some more come before it empties the queue.
 */
#include "fs/core.h"

#include <errno.h>
#include <malloc.h>
#include <string.h>
#include <time.h>

#include "fs/poison.h"
#include "util/log.h"

#define GATHER_MS 20
#define ATIME_FLUSH_MS 3000
#define TRIM_INODES 10000u

static struct timespec time_in_ms(long ms)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_nsec += ms % 1000 * 1000000;
	t.tv_sec += ms / 1000 + t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	return t;
}

static bool time_is_past(const struct timespec *until)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec != until->tv_sec ? now.tv_sec > until->tv_sec : now.tv_nsec >= until->tv_nsec;
}

/* Until there are orphans, events, bad places or copies, or the time comes. */
static void wait_orphans(struct fs *fs, const struct timespec *until)
{
	fs->worker_idle = true;
	while (!atomic_load(&fs->worker_stop) && cds_list_empty(&fs->orphans) &&
	       cds_list_empty(&fs->events) && !fs->bad_new && atomic_load(&fs->copies.due_count) == 0) {
		if (pthread_cond_timedwait(&fs->work_cond, &fs->work_lock, until) == ETIMEDOUT)
			break;
	}
	fs->worker_idle = false;
}

static void wait_gather(struct fs *fs)
{
	struct timespec until = time_in_ms(GATHER_MS);

	while (!atomic_load(&fs->worker_stop)) {
		if (pthread_cond_timedwait(&fs->work_cond, &fs->work_lock, &until) == ETIMEDOUT)
			break;
	}
}

/* What was freed may leave whole metadata chunks unused. */
static void drain_and_trim(struct fs *fs)
{
	int rc;

	orphan_drain(fs);
	rc = pool_failed(fs->pool) ? 0 : space_trim(fs->pool);
	if (rc < 0)
		log_warn("unused metadata chunks cannot be given back: %s", strerror(-rc));
	poison_drain(fs, POISON_DUE);
}

/* Memory of inodes that were forgotten goes back to the system when there were many of them. */
static void memory_trim(struct fs *fs, uint64_t *most_inodes)
{
	uint64_t inodes = atomic_load(&fs->inode_count);

	if (inodes > *most_inodes)
		*most_inodes = inodes;
	if (*most_inodes > TRIM_INODES && inodes < *most_inodes / 2) {
		malloc_trim(0);
		*most_inodes = inodes;
	}
}

static void *worker_main(void *arg)
{
	struct fs *fs = arg;
	struct timespec flush_at = time_in_ms(ATIME_FLUSH_MS);
	uint64_t most_inodes = 0;

	thread_register();
	orphan_drain(fs);
	poison_stays_find(fs);
	while (!atomic_load(&fs->worker_stop)) {
		bool work;

		pthread_mutex_lock(&fs->work_lock);
		wait_orphans(fs, &flush_at);
		work = !cds_list_empty(&fs->orphans);
		if (work)
			wait_gather(fs);
		pthread_mutex_unlock(&fs->work_lock);
		events_tell(fs);
		poison_stays_find(fs);
		poison_drain(fs, POISON_DUE);
		if (work)
			drain_and_trim(fs);
		(void)copies_work(fs);
		if (time_is_past(&flush_at)) {
			atime_flush(fs);
			memory_trim(fs, &most_inodes);
			flush_at = time_in_ms(ATIME_FLUSH_MS);
		}
	}
	return NULL;
}

void work_wake(struct fs *fs)
{
	if (!fs->worker_idle)
		return;
	fs->worker_idle = false;
	pthread_cond_signal(&fs->work_cond);
}

int work_start(struct fs *fs)
{
	pthread_condattr_t attr;
	int rc;

	if (!fs->opts.background || fs->opts.readonly)
		return 0;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&fs->work_cond, &attr);
	pthread_condattr_destroy(&attr);
	fs->worker_runs = true;
	rc = pthread_create(&fs->worker, NULL, worker_main, fs);
	if (!rc)
		return 0;
	fs->worker_runs = false;
	pthread_cond_destroy(&fs->work_cond);
	return -rc;
}

void work_stop(struct fs *fs)
{
	if (!fs->worker_runs)
		return;
	pthread_mutex_lock(&fs->work_lock);
	atomic_store(&fs->worker_stop, true);
	pthread_cond_signal(&fs->work_cond);
	pthread_mutex_unlock(&fs->work_lock);
	pthread_join(fs->worker, NULL);
	pthread_cond_destroy(&fs->work_cond);
	fs->worker_runs = false;
	atomic_store(&fs->worker_stop, false);
}

void fs_flush(struct fs *fs)
{
	atime_flush(fs);
}

void fs_work(struct fs *fs)
{
	poison_stays_find(fs);
	poison_drain(fs, POISON_ALL);
	orphan_drain(fs);
	poison_drain(fs, POISON_DUE);
	poison_stays_find(fs);
	while (copies_work(fs))
		;
	atime_flush(fs);
}
