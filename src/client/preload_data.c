/* SPDX-License-Identifier: BSD-3-Clause */
/* Data calls with an offset of their own. (Those at the offset of the description: preload_read.c.) */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "client/fds.h"
#include "client/guard.h"
#include "client/next.h"
#include "client/preload_parts.h"
#include "util/util.h"

NEXT(pread64, ssize_t, (int, void *, size_t, off_t))
NEXT(pwrite64, ssize_t, (int, const void *, size_t, off_t))
NEXT(preadv64, ssize_t, (int, const struct iovec *, int, off_t))
NEXT(pwritev64, ssize_t, (int, const struct iovec *, int, off_t))
NEXT(preadv64v2, ssize_t, (int, const struct iovec *, int, off_t, int))
NEXT(pwritev64v2, ssize_t, (int, const struct iovec *, int, off_t, int))
NEXT(__pread64_chk, ssize_t, (int, void *, size_t, off_t, size_t))

static ssize_t read_at(int fd, void *buf, size_t size, off_t off)
{
	ssize_t rc;

	if (off >= 0 && mapped_one(fd, buf, size, off, false, &rc))
		return rc;
	pthread_testcancel();
	return fds_call(fd, buf, size, off, false, &rc) ? rc : next_of_pread64()(fd, buf, size, off);
}

static ssize_t write_at(int fd, const void *buf, size_t size, off_t off)
{
	void *same = (void *)(uintptr_t)buf; /* not changed */
	ssize_t rc;

	if (off >= 0 && mapped_one(fd, same, size, off, true, &rc))
		return rc;
	pthread_testcancel();
	return fds_call(fd, same, size, off, true, &rc) ? rc : next_of_pwrite64()(fd, buf, size, off);
}

static void copy_parts(void *dst, const void *src, size_t len)
{
	memcpy(dst, src, len);
}

bool parts_get(struct iovec parts[PARTS_MAX], const struct iovec *iov, int count)
{
	size_t left = PARTS_BYTES_MAX;

	if (count < 1 || count > PARTS_MAX || !fds_guard())
		return false;
	if (!guard_copy_user(copy_parts, parts, iov, (size_t)count * sizeof(*iov), iov, NULL))
		return false;
	for (int i = 0; i < count; i++) {
		if (parts[i].iov_len > left)
			return false;
		left -= parts[i].iov_len;
	}
	return left < PARTS_BYTES_MAX;
}

/* The first part decides who does it; what cannot go on after it ends early, as calls may. */
static bool by_parts(int fd, const struct iovec *iov, int count, off_t off, bool store, ssize_t *rc)
{
	struct iovec parts[PARTS_MAX];
	ssize_t done = 0;

	pthread_testcancel();
	if (off < 0 || !fds_maybe(fd) || !parts_get(parts, iov, count))
		return false;
	for (int i = 0; i < count; i++) {
		ssize_t n;
		int before = errno;

		if (parts[i].iov_len == 0)
			continue;
		if (!fds_call(fd, parts[i].iov_base, parts[i].iov_len, off + done, store, &n)) {
			if (done == 0)
				return false;
			n = store ? next_of_pwrite64()(fd, parts[i].iov_base, parts[i].iov_len, off + done) :
				    next_of_pread64()(fd, parts[i].iov_base, parts[i].iov_len, off + done);
		}
		if (n < 0 && done > 0)
			errno = before;
		else if (n < 0)
			done = n;
		if (n < 0)
			break;
		done += n;
		if ((size_t)n < parts[i].iov_len)
			break;
	}
	*rc = done;
	return true;
}

static ssize_t readv_at(int fd, const struct iovec *iov, int count, off_t off)
{
	ssize_t rc;

	if (off >= 0 && mapped_parts(fd, iov, count, off, 0, false, &rc))
		return rc;
	return by_parts(fd, iov, count, off, false, &rc) ? rc : next_of_preadv64()(fd, iov, count, off);
}

static ssize_t writev_at(int fd, const struct iovec *iov, int count, off_t off)
{
	ssize_t rc;

	if (off >= 0 && mapped_parts(fd, iov, count, off, 0, true, &rc))
		return rc;
	return by_parts(fd, iov, count, off, true, &rc) ? rc : next_of_pwritev64()(fd, iov, count, off);
}

/* What is direct is durable when it returns, and never waits. -1 as an offset is the description's own. */
#define FLAGS_KNOWN (RWF_HIPRI | RWF_DSYNC | RWF_SYNC)

static ssize_t readv2_at(int fd, const struct iovec *iov, int count, off_t off, int flags)
{
	ssize_t rc;

	if (off >= -1 && mapped_parts(fd, iov, count, off, flags, false, &rc))
		return rc;
	if (!(flags & ~FLAGS_KNOWN) && (off == -1 ? parts_here(fd, iov, count, flags, false, &rc) :
						    by_parts(fd, iov, count, off, false, &rc)))
		return rc;
	return next_of_preadv64v2()(fd, iov, count, off, flags);
}

static ssize_t writev2_at(int fd, const struct iovec *iov, int count, off_t off, int flags)
{
	ssize_t rc;

	if (off >= -1 && mapped_parts(fd, iov, count, off, flags, true, &rc))
		return rc;
	if (off == -1 ? !(flags & ~FLAGS_KNOWN) && parts_here(fd, iov, count, flags, true, &rc) :
			!flags && by_parts(fd, iov, count, off, true, &rc))
		return rc;
	return next_of_pwritev64v2()(fd, iov, count, off, flags);
}

/* Both names of each, whichever the headers make of the plain one here. */
#define BOTH(type, plain, large, name, args, call)      \
	exported type name##_plain args __asm__(plain); \
	exported type name##_large args __asm__(large); \
	type name##_plain args                          \
	{                                               \
		return call;                            \
	}                                               \
	type name##_large args                          \
	{                                               \
		return call;                            \
	}

BOTH(ssize_t, "pread", "pread64", call_pread, (int fd, void *buf, size_t size, off_t off),
     read_at(fd, buf, size, off))
BOTH(ssize_t, "pwrite", "pwrite64", call_pwrite, (int fd, const void *buf, size_t size, off_t off),
     write_at(fd, buf, size, off))
BOTH(ssize_t, "preadv", "preadv64", call_preadv, (int fd, const struct iovec *iov, int count, off_t off),
     readv_at(fd, iov, count, off))
BOTH(ssize_t, "pwritev", "pwritev64", call_pwritev, (int fd, const struct iovec *iov, int count, off_t off),
     writev_at(fd, iov, count, off))
BOTH(ssize_t, "preadv2", "preadv64v2", call_preadv2,
     (int fd, const struct iovec *iov, int count, off_t off, int flags),
     readv2_at(fd, iov, count, off, flags))
BOTH(ssize_t, "pwritev2", "pwritev64v2", call_pwritev2,
     (int fd, const struct iovec *iov, int count, off_t off, int flags),
     writev2_at(fd, iov, count, off, flags))

/* Of programs that are compiled with _FORTIFY_SOURCE; a buffer that is too small ends the program, in libc. */
BOTH(ssize_t, "__pread_chk", "__pread64_chk", call_pread_chk,
     (int fd, void *buf, size_t size, off_t off, size_t room),
     size <= room ? read_at(fd, buf, size, off) : next_of___pread64_chk()(fd, buf, size, off, room))
