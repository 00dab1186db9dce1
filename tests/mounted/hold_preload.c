/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A daemon that has taken requests and does not answer: loaded into it by LD_PRELOAD (guard.sh, keeper.sh).
 *
 * HOLD is a file: while it is there every thread that has taken a READ waits, and says so by another one, with '.there' behind its name. HOLD_WRITES in the environment: one that has taken a
 * WRITE of pages instead; and '.taken' gets a byte for each other request that sets the size of a file, when it has been taken.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define STEP_NS 10000000

static char hold[4096], there[4096], taken[4096];
static bool writes;

__attribute__((constructor)) static void begin(void)
{
	const char *name = getenv("HOLD");

	if (!name)
		return;
	snprintf(hold, sizeof(hold), "%s", name);
	snprintf(there, sizeof(there), "%s.there", name);
	snprintf(taken, sizeof(taken), "%s.taken", name);
	writes = getenv("HOLD_WRITES");
}

static void cut_note(void)
{
	int fd = open(taken, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	(void)!write(fd, "x", 1);
	close(fd);
}

static bool is_to_wait(const void *bytes, ssize_t size)
{
	const struct fuse_in_header *in = bytes;
	const struct fuse_setattr_in *set = (const void *)(in + 1);
	const struct fuse_write_in *out = (const void *)(in + 1);

	if (in->len != size || access(hold, F_OK))
		return false;
	if (!writes)
		return in->opcode == FUSE_READ;
	if (in->opcode == FUSE_SETATTR && set->valid & FATTR_SIZE)
		cut_note();
	return in->opcode == FUSE_WRITE && out->write_flags & FUSE_WRITE_CACHE;
}

ssize_t read(int fd, void *bytes, size_t size)
{
	static ssize_t (*real)(int, void *, size_t);
	const struct timespec step = { .tv_nsec = STEP_NS };
	ssize_t n;
	int error;

	if (!real)
		real = dlsym(RTLD_NEXT, "read");
	n = real(fd, bytes, size);
	error = errno;
	if (*hold && n >= (ssize_t)sizeof(struct fuse_in_header) && is_to_wait(bytes, n)) {
		close(open(there, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
		while (access(hold, F_OK) == 0)
			nanosleep(&step, NULL);
	}
	errno = error;
	return n;
}
