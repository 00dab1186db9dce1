/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See asks.h. One lock, held only to put in and take out.
 */
#include "fuse/asks.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "fuse/kept.h"

#define THREADS_MAX 64u

/* A file that somebody waits for, and its thread. */
struct asking {
	struct asks *asks;
	uint64_t ino;
	struct defer_work *first, **last; /* (lock) */
	struct asking *next;              /* (lock) */
};

struct asks {
	atomic_bool is_here; /* somebody is, or nobody may */
	pthread_attr_t attr;
	pthread_mutex_t lock;
	pthread_cond_t over;
	struct asking *files; /* (lock) */
	unsigned threads;     /* (lock) */
	bool closing;         /* (lock) */
};

/* Like the thread that opens, and not like a worker, which may be pinned to a core and SCHED_IDLE (place.c). */
static int attr_new(pthread_attr_t *attr)
{
	struct sched_param param;
	cpu_set_t cpus;
	int rc = -pthread_attr_init(attr);

	if (rc)
		return rc;
	pthread_attr_setdetachstate(attr, PTHREAD_CREATE_DETACHED);
	if (sched_getparam(0, &param) == 0 && pthread_attr_setschedpolicy(attr, sched_getscheduler(0)) == 0 &&
	    pthread_attr_setschedparam(attr, &param) == 0)
		pthread_attr_setinheritsched(attr, PTHREAD_EXPLICIT_SCHED);
	if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0)
		(void)pthread_attr_setaffinity_np(attr, sizeof(cpus), &cpus);
	return 0;
}

int asks_open(bool here, struct asks **out)
{
	struct asks *asks = calloc(1, sizeof(*asks));
	int rc = asks ? attr_new(&asks->attr) : -ENOMEM;

	if (rc) {
		free(asks);
		return rc;
	}
	atomic_store(&asks->is_here, !here);
	pthread_mutex_init(&asks->lock, NULL);
	pthread_cond_init(&asks->over, NULL);
	*out = asks;
	return 0;
}

bool asks_here(struct asks *asks)
{
	return !atomic_exchange(&asks->is_here, true);
}

void asks_here_end(struct asks *asks)
{
	atomic_store(&asks->is_here, false);
}

/* NULL: nothing waits for the file any more, and it is gone. */
static struct defer_work *work_take(struct asking *file)
{
	struct asks *asks = file->asks;
	struct asking **at = &asks->files;
	struct defer_work *work;

	pthread_mutex_lock(&asks->lock);
	work = file->first;
	if (work) {
		file->first = work->next;
		if (!file->first)
			file->last = &file->first;
	} else {
		while (*at != file)
			at = &(*at)->next;
		*at = file->next;
		asks->threads--;
		pthread_cond_broadcast(&asks->over);
	}
	pthread_mutex_unlock(&asks->lock);
	if (!work)
		free(file);
	return work;
}

static void *file_run(void *arg)
{
	struct defer_work *work;

	while ((work = work_take(arg))) {
		kept_now = work->receipt;
		work->fn(work);
		kept_now = NULL;
	}
	return NULL;
}

/* (lock) NULL: no memory, or too many. */
static struct asking *file_new(struct asks *asks, uint64_t ino)
{
	struct asking *file = asks->threads < THREADS_MAX ? calloc(1, sizeof(*file)) : NULL;
	pthread_t thread;

	if (!file)
		return NULL;
	*file = (struct asking){ .asks = asks, .ino = ino, .last = &file->first, .next = asks->files };
	if (pthread_create(&thread, &asks->attr, file_run, file)) {
		free(file);
		return NULL;
	}
	asks->files = file;
	asks->threads++;
	return file;
}

bool asks_add(struct asks *asks, uint64_t ino, struct defer_work *work)
{
	struct asking *file = NULL;

	work->next = NULL;
	work->receipt = kept_now;
	pthread_mutex_lock(&asks->lock);
	if (!asks->closing) {
		for (file = asks->files; file && file->ino != ino; file = file->next)
			;
		if (!file)
			file = file_new(asks, ino);
	}
	if (file) {
		*file->last = work;
		file->last = &work->next;
	}
	pthread_mutex_unlock(&asks->lock);
	return file != NULL;
}

void asks_close(struct asks *asks)
{
	if (!asks)
		return;
	pthread_mutex_lock(&asks->lock);
	asks->closing = true;
	while (asks->threads > 0)
		pthread_cond_wait(&asks->over, &asks->lock);
	pthread_mutex_unlock(&asks->lock);
	pthread_cond_destroy(&asks->over);
	pthread_mutex_destroy(&asks->lock);
	pthread_attr_destroy(&asks->attr);
	free(asks);
}
