/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/calls.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

static int fd_dup(int fd)
{
	return fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

static void fd_close(int fd)
{
	close(fd);
}

static int fd_own(int fd)
{
	return fd;
}

static int fd_move(int fd, int to)
{
	int rc = dup3(fd, to, O_CLOEXEC) < 0 ? -errno : 0;

	close(fd);
	return rc;
}

static void fd_bypass(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	/* If it cannot be had it bypasses them anyway. */
	if (flags >= 0 && !(flags & O_DIRECT))
		(void)fcntl(fd, F_SETFL, flags | O_DIRECT);
}

struct client_calls client_calls = {
	.mmap = mmap,
	.munmap = munmap,
	.mremap = mremap,
	.mprotect = mprotect,
	.madvise = madvise,
	.msync = msync,
	.action = sigaction,
	.mask = pthread_sigmask,
	.fd_dup = fd_dup,
	.fd_close = fd_close,
	.fd_own = fd_own,
	.fd_move = fd_move,
	.fd_bypass = fd_bypass,
	.busy_ns = 5000000000ll,
};
