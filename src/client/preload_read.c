/* SPDX-License-Identifier: BSD-3-Clause */
/* Data calls at the offset of the description, and those that move it by themselves. */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <unistd.h>

#include "client/fds.h"
#include "client/next.h"
#include "client/preload_parts.h"

NEXT(read, ssize_t, (int, void *, size_t))
NEXT(write, ssize_t, (int, const void *, size_t))
NEXT(readv, ssize_t, (int, const struct iovec *, int))
NEXT(writev, ssize_t, (int, const struct iovec *, int))
NEXT(lseek64, off_t, (int, off_t, int))
NEXT(__read_chk, ssize_t, (int, void *, size_t, size_t))

static bool one_here(int fd, void *buf, size_t size, bool store, ssize_t *rc)
{
	struct iovec part = { buf, size };

	if (size >= PARTS_BYTES_MAX || !fds_maybe(fd))
		return false;
	pthread_testcancel();
	return fds_call_here(fd, &part, 1, store, 0, rc);
}

exported ssize_t read(int fd, void *buf, size_t size)
{
	ssize_t rc;

	if (mapped_one(fd, buf, size, -1, false, &rc) || one_here(fd, buf, size, false, &rc))
		return rc;
	return next_of_read()(fd, buf, size);
}

exported ssize_t write(int fd, const void *buf, size_t size)
{
	void *same = (void *)(uintptr_t)buf; /* not changed */
	ssize_t rc;

	if (mapped_one(fd, same, size, -1, true, &rc) || one_here(fd, same, size, true, &rc))
		return rc;
	return next_of_write()(fd, buf, size);
}

bool parts_here(int fd, const struct iovec *iov, int count, int flags, bool store, ssize_t *rc)
{
	struct iovec parts[PARTS_MAX];

	if (!fds_maybe(fd) || !parts_get(parts, iov, count))
		return false;
	pthread_testcancel();
	return fds_call_here(fd, parts, count, store, flags, rc);
}

exported ssize_t readv(int fd, const struct iovec *iov, int count)
{
	ssize_t rc;

	if (mapped_parts(fd, iov, count, -1, 0, false, &rc) || parts_here(fd, iov, count, 0, false, &rc))
		return rc;
	return next_of_readv()(fd, iov, count);
}

exported ssize_t writev(int fd, const struct iovec *iov, int count)
{
	ssize_t rc;

	if (mapped_parts(fd, iov, count, -1, 0, true, &rc) || parts_here(fd, iov, count, 0, true, &rc))
		return rc;
	return next_of_writev()(fd, iov, count);
}

/* Of programs that are compiled with _FORTIFY_SOURCE. */
exported ssize_t __read_chk(int fd, void *buf, size_t size, size_t room);

ssize_t __read_chk(int fd, void *buf, size_t size, size_t room)
{
	return size <= room ? read(fd, buf, size) : next_of___read_chk()(fd, buf, size, room);
}

static off_t seek(int fd, off_t off, int whence)
{
	off_t to;

	return fds_seek(fd, off, whence, &to) ? to : next_of_lseek64()(fd, off, whence);
}

exported off_t lseek_plain(int fd, off_t off, int whence) __asm__("lseek");
exported off_t lseek_large(int fd, off_t off, int whence) __asm__("lseek64");

off_t lseek_plain(int fd, off_t off, int whence)
{
	return seek(fd, off, whence);
}

off_t lseek_large(int fd, off_t off, int whence)
{
	return seek(fd, off, whence);
}
