/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A queue of work and its threads. See defer.h. One lock, held only to put in and take out.
 */
#include "fuse/defer.h"

#include <errno.h>
#include <linux/close_range.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "fuse/kept.h"
#include "util/sabotage.h"

struct defer {
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct defer_work *first, **last; /* (lock) */
	bool closing;                     /* (lock) */
	int only_fd;                      /* -1: all */
	unsigned count;
	pthread_t threads[];
};

static struct defer_work *defer_take(struct defer *defer)
{
	struct defer_work *work;

	pthread_mutex_lock(&defer->lock);
	while (!defer->first && !defer->closing)
		pthread_cond_wait(&defer->more, &defer->lock);
	work = defer->first;
	if (work) {
		defer->first = work->next;
		if (!defer->first)
			defer->last = &defer->first;
	}
	pthread_mutex_unlock(&defer->lock);
	return work;
}

/* A table of descriptors of its own, with one. Where the kernel cannot do that all is as usual. */
static void fds_leave(int fd)
{
	if (fd < 0 || sabotage_point("defer-alone"))
		return;
	if (close_range((unsigned)fd + 1, ~0u, CLOSE_RANGE_UNSHARE) == 0 && fd > 0)
		(void)close_range(0, (unsigned)fd - 1, 0);
}

static void *defer_run(void *arg)
{
	struct defer *defer = arg;
	struct defer_work *work;

	fds_leave(defer->only_fd);
	while ((work = defer_take(defer))) {
		kept_now = work->receipt;
		work->fn(work);
		kept_now = NULL;
	}
	return NULL;
}

int defer_open(unsigned threads, struct defer **out)
{
	return defer_open_alone(threads, -1, out);
}

int defer_open_alone(unsigned threads, int fd, struct defer **out)
{
	struct defer *defer = calloc(1, sizeof(*defer) + threads * sizeof(defer->threads[0]));
	int rc = 0;

	if (!defer)
		return -ENOMEM;
	pthread_mutex_init(&defer->lock, NULL);
	pthread_cond_init(&defer->more, NULL);
	defer->last = &defer->first;
	defer->only_fd = fd;
	while (defer->count < threads && rc == 0) {
		rc = -pthread_create(&defer->threads[defer->count], NULL, defer_run, defer);
		if (rc == 0)
			defer->count++;
	}
	if (rc) {
		defer_close(defer);
		defer_free(defer);
		return rc;
	}
	*out = defer;
	return 0;
}

bool defer_add(struct defer *defer, struct defer_work *work)
{
	bool taken;

	work->next = NULL;
	work->receipt = kept_now;
	pthread_mutex_lock(&defer->lock);
	taken = !defer->closing;
	if (taken) {
		*defer->last = work;
		defer->last = &work->next;
		pthread_cond_signal(&defer->more);
	}
	pthread_mutex_unlock(&defer->lock);
	return taken;
}

void defer_close(struct defer *defer)
{
	pthread_mutex_lock(&defer->lock);
	defer->closing = true;
	pthread_cond_broadcast(&defer->more);
	pthread_mutex_unlock(&defer->lock);
	for (unsigned i = 0; i < defer->count; i++)
		pthread_join(defer->threads[i], NULL);
	defer->count = 0;
}

void defer_free(struct defer *defer)
{
	pthread_cond_destroy(&defer->more);
	pthread_mutex_destroy(&defer->lock);
	free(defer);
}
