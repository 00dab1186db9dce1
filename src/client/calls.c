/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/calls.h"

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
	.busy_ns = 5000000000ll,
};
