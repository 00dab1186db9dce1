/* SPDX-License-Identifier: BSD-3-Clause */
/* The ways to take requests from the kernel: libfuse's own loop, or threads of ours. */
#define _GNU_SOURCE
#include "null_fuse.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

struct worker {
	pthread_t thread;
	struct fuse_session *se;
	int cpu;
};

static void *serve(void *arg)
{
	struct worker *w = arg;
	struct fuse_buf buf = { .mem = NULL };

	if (w->cpu >= 0) {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET(w->cpu, &set);
		sched_setaffinity(0, sizeof(set), &set);
	}
	while (!fuse_session_exited(w->se)) {
		int rc;

		/* The end of the loop may come only while it waits. */
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
		rc = fuse_session_receive_buf(w->se, &buf);
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
		if (rc == -EINTR)
			continue;
		if (rc <= 0)
			break;
		fuse_session_process_buf(w->se, &buf);
	}
	free(buf.mem);
	return NULL;
}

/* Threads that do nothing but receive and process; this thread is one of them, so that signals end it. */
static int loop_own(struct fuse_session *se, const struct null_opts *opts)
{
	struct worker *all = calloc(opts->threads_count, sizeof(*all));
	unsigned int started = 1;
	int rc = 0;

	if (!all)
		return -ENOMEM;
	for (unsigned int i = 0; i < opts->threads_count; i++) {
		all[i].se = se;
		all[i].cpu = opts->cpu;
	}
	while (started < opts->threads_count && rc == 0) {
		rc = -pthread_create(&all[started].thread, NULL, serve, &all[started]);
		started += rc == 0;
	}
	if (rc == 0)
		serve(&all[0]);
	for (unsigned int i = 1; i < started; i++) {
		pthread_cancel(all[i].thread);
		pthread_join(all[i].thread, NULL);
	}
	free(all);
	return rc;
}

static int loop_lib(struct fuse_session *se, const struct null_opts *opts)
{
	struct fuse_loop_config *config;
	int rc;

	if (opts->threads_count == 1)
		return fuse_session_loop(se);
	config = fuse_loop_cfg_create();
	if (!config)
		return -ENOMEM;
	fuse_loop_cfg_set_max_threads(config, opts->threads_count);
	rc = fuse_session_loop_mt(se, config);
	fuse_loop_cfg_destroy(config);
	return rc;
}

int null_loop(struct fuse_session *se, const struct null_opts *opts)
{
	if (!opts->loop || strcmp(opts->loop, "lib") == 0)
		return loop_lib(se, opts);
	if (strcmp(opts->loop, "own") == 0)
		return loop_own(se, opts);
	if (strcmp(opts->loop, "caller") == 0)
		return null_loop_caller(se);
	return -EINVAL;
}
