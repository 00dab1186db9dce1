/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A thread for early notice of bad memory. See early.h.
 *
 * The kernel sends the signal to a thread that has asked for it (PR_MCE_KILL_EARLY, by thread). The handler writes what it is about into a pipe, which this
 * thread reads.
 */
#include "daemon/early.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "util/log.h"

struct early {
	struct fs *fs;
	struct dax *dax;
	pthread_t thread;
	int pipe[2]; /* read, write */
};

static void *early_run(void *arg)
{
	struct early *e = arg;
	struct dax_bad told;
	ssize_t n;

	if (prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0))
		log_debug("no early notice of bad memory from this kernel");
	for (;;) {
		n = read(e->pipe[0], &told, sizeof(told));
		if (n < 0 && errno == EINTR)
			continue;
		if (n != sizeof(told) || told.len == 0)
			return NULL;
		log_warn("the kernel says that memory is bad at 0x%llx of the pool, %llu bytes",
			 (unsigned long long)told.off, (unsigned long long)told.len);
		fs_poison_look(e->fs, told.off, told.len);
	}
}

int early_start(struct fs *fs, struct early **out)
{
	struct early *e = calloc(1, sizeof(*e));
	int rc = 0;

	if (!e)
		return -ENOMEM;
	e->fs = fs;
	e->dax = pool_dax(fs_pool(fs));
	if (pipe2(e->pipe, O_CLOEXEC) || fcntl(e->pipe[1], F_SETFL, O_NONBLOCK)) {
		rc = -errno;
		free(e);
		return rc;
	}
	rc = -pthread_create(&e->thread, NULL, early_run, e);
	if (rc) {
		close(e->pipe[0]);
		close(e->pipe[1]);
		free(e);
		return rc;
	}
	dax_on_early(e->dax, e->pipe[1]);
	*out = e;
	return 0;
}

void early_stop(struct early *e)
{
	const struct dax_bad end = { 0 };

	if (!e)
		return;
	dax_on_early(e->dax, 0);
	/* The thread reads until there is room. */
	while (write(e->pipe[1], &end, sizeof(end)) != sizeof(end) && errno == EAGAIN)
		usleep(1000);
	pthread_join(e->thread, NULL);
	close(e->pipe[0]);
	close(e->pipe[1]);
	free(e);
}
