/* SPDX-License-Identifier: BSD-3-Clause */
/* Descriptors of a pool that other processes get, and whether they still have them. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "dax/dax.h"

int dax_lend(int pool_fd, bool write, uint64_t number)
{
	struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = (off_t)number, .l_len = 1 };
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", pool_fd);
	fd = open(path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fcntl(fd, F_OFD_SETLK, &lock)) {
		int rc = -errno;

		close(fd);
		return rc;
	}
	return fd;
}

static bool is_lent(int pool_fd, off_t start, off_t len)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = len };

	/* Where there are no locks nobody could have been given one. */
	return fcntl(pool_fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

bool dax_is_lent(int pool_fd, uint64_t number)
{
	return is_lent(pool_fd, (off_t)number, 1);
}

bool dax_is_any_lent(int pool_fd)
{
	return is_lent(pool_fd, 0, 0);
}
