/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A daemon that has taken requests and does not answer: loaded into it by LD_PRELOAD (guard.sh, keeper.sh).
 *
 * HOLD is a file: while it is there every thread that has taken a READ waits, and says so by another one, with '.there' behind its name.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define STEP_NS 10000000

static char hold[4096], there[4096];

__attribute__((constructor)) static void begin(void)
{
	const char *name = getenv("HOLD");

	if (!name)
		return;
	snprintf(hold, sizeof(hold), "%s", name);
	snprintf(there, sizeof(there), "%s.there", name);
}

ssize_t read(int fd, void *bytes, size_t size)
{
	static ssize_t (*real)(int, void *, size_t);
	const struct timespec step = { .tv_nsec = STEP_NS };
	const struct fuse_in_header *in = bytes;
	ssize_t n;
	int error;

	if (!real)
		real = dlsym(RTLD_NEXT, "read");
	n = real(fd, bytes, size);
	error = errno;
	if (*hold && n >= (ssize_t)sizeof(*in) && in->len == n && in->opcode == FUSE_READ &&
	    access(hold, F_OK) == 0) {
		close(open(there, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
		while (access(hold, F_OK) == 0)
			nanosleep(&step, NULL);
	}
	errno = error;
	return n;
}
