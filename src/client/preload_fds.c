/* SPDX-License-Identifier: BSD-3-Clause */
/* All that ends a descriptor, or changes what the library relies on: fds.h. Not seen: system calls without the C library, io_uring. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utmp.h>

#include "client/fds.h"
#include "client/fds_own.h"
#include "client/next.h"
#include "client/preload_mapped.h"

NEXT(close, int, (int))
NEXT(dup2, int, (int, int))
NEXT(dup3, int, (int, int, int))
NEXT(fcntl64, int, (int, int, ...))
NEXT(lockf64, int, (int, int, off_t))
NEXT(fclose, int, (FILE *))
NEXT(freopen64, FILE *, (const char *, const char *, FILE *))
NEXT(daemon, int, (int, int))
NEXT(login_tty, int, (int))
NEXT(_exit, void, (int))
NEXT(unshare, int, (int))
NEXT(setrlimit64, int, (__rlimit_resource_t, const struct rlimit *))
NEXT(prlimit64, int, (pid_t, __rlimit_resource_t, const struct rlimit *, struct rlimit *))
NEXT(syscall, long, (long, ...))

__attribute__((constructor(102))) static void begin(void)
{
	(void)fds_init();
}

static int refused(void)
{
	errno = EBADF;
	return -1;
}

exported int close(int fd)
{
	int rc;

	if (!fds_end(fd))
		return refused();
	rc = next_of_close()(fd);
	fds_ended(fd);
	return rc;
}

exported int dup2(int fd, int to)
{
	int rc;

	if (fd == to)
		return next_of_dup2()(fd, to);
	if (!fds_end(to))
		return refused();
	rc = next_of_dup2()(fd, to);
	fds_ended(to);
	return rc;
}

exported int dup3(int fd, int to, int flags)
{
	int rc;

	if (!fds_end(to))
		return refused();
	rc = next_of_dup3()(fd, to, flags);
	fds_ended(to);
	return rc;
}

static int control(int fd, int command, void *arg)
{
	int rc;

	if (command == F_SETFL) {
		if ((intptr_t)arg & O_APPEND)
			(void)fds_mapped(fd); /* direct calls know nothing of it */
		return next_of_fcntl64()(fd, command, (long)fds_flags_set(fd, (int)(intptr_t)arg));
	}
	if (command == F_SETLK || command == F_SETLKW)
		own_lock_taken(fd);
	rc = next_of_fcntl64()(fd, command, arg);
	return command == F_GETFL ? fds_flags_seen(fd, rc) : rc;
}

exported int fcntl_plain(int fd, int command, ...) __asm__("fcntl");
exported int fcntl_large(int fd, int command, ...) __asm__("fcntl64");

int fcntl_plain(int fd, int command, ...)
{
	va_list args;
	void *arg;

	va_start(args, command);
	arg = va_arg(args, void *);
	va_end(args);
	return control(fd, command, arg);
}

int fcntl_large(int fd, int command, ...)
{
	va_list args;
	void *arg;

	va_start(args, command);
	arg = va_arg(args, void *);
	va_end(args);
	return control(fd, command, arg);
}

static int lock_region(int fd, int command, off_t len)
{
	if (command == F_LOCK || command == F_TLOCK)
		own_lock_taken(fd);
	return next_of_lockf64()(fd, command, len);
}

exported int lockf_plain(int fd, int command, off_t len) __asm__("lockf");
exported int lockf_large(int fd, int command, off_t len) __asm__("lockf64");

int lockf_plain(int fd, int command, off_t len)
{
	return lock_region(fd, command, len);
}

int lockf_large(int fd, int command, off_t len)
{
	return lock_region(fd, command, len);
}

/* ---- many at once ---- */

static int close_some(unsigned first, unsigned last, int flags)
{
	int rc;

	fds_end_range(first, last);
	rc = (int)next_of_syscall()(SYS_close_range, first, last, flags);
	fds_ended_range(first, last);
	return rc;
}

exported int close_range(unsigned first, unsigned last, int flags)
{
	int rc = 0;

	if (flags & CLOSE_RANGE_UNSHARE)
		fds_off();
	if (first > last || flags & ~CLOSE_RANGE_UNSHARE)
		return (int)next_of_syscall()(SYS_close_range, first, last, flags);
	for (;;) {
		unsigned own = own_from(first);

		if (own > last)
			return rc ? rc : close_some(first, last, flags);
		if (own > first)
			rc = close_some(first, own - 1, flags);
		if (rc || own == last)
			return rc;
		first = own + 1;
	}
}

exported void closefrom(int first)
{
	(void)close_range(first < 0 ? 0 : (unsigned)first, UINT_MAX, 0);
}

/* ---- streams ---- */

exported int fclose(FILE *stream)
{
	int fd = fileno(stream), rc;

	if (fd >= 0 && !fds_end(fd))
		return refused();
	rc = next_of_fclose()(stream);
	if (fd >= 0)
		fds_ended(fd);
	return rc;
}

static FILE *reopen(const char *path, const char *mode, FILE *stream)
{
	int fd = fileno(stream);

	if (fd >= 0)
		(void)!fds_end(fd);
	stream = next_of_freopen64()(path, mode, stream);
	if (fd >= 0)
		fds_ended(fd);
	return stream;
}

exported FILE *freopen_plain(const char *path, const char *mode, FILE *stream) __asm__("freopen");
exported FILE *freopen_large(const char *path, const char *mode, FILE *stream) __asm__("freopen64");

FILE *freopen_plain(const char *path, const char *mode, FILE *stream)
{
	return reopen(path, mode, stream);
}

FILE *freopen_large(const char *path, const char *mode, FILE *stream)
{
	return reopen(path, mode, stream);
}

/* ---- what changes 0 to 2 within libc ---- */

exported int daemon(int nochdir, int noclose)
{
	fds_end_range(0, 2);
	fds_ended_range(0, 2);
	return next_of_daemon()(nochdir, noclose);
}

exported int login_tty(int fd)
{
	int rc;

	fds_end_range(0, 2);
	rc = next_of_login_tty()(fd);
	fds_ended_range(0, 2);
	return rc;
}

/* ---- the end ---- */

exported _Noreturn void _exit(int status)
{
	fds_say_counts();
	next_of__exit()(status);
	for (;;)
		pause();
}

exported _Noreturn void _Exit(int status)
{
	_exit(status);
}

/* ---- limits, and tables of descriptors that are not shared by all threads ---- */

exported int unshare(int flags)
{
	if (flags & CLONE_FILES)
		fds_off();
	return next_of_unshare()(flags);
}

static int limit_set(__rlimit_resource_t resource, const struct rlimit *limit)
{
	if (resource == RLIMIT_FSIZE)
		fds_no_writes();
	return next_of_setrlimit64()(resource, limit);
}

static int limit_change(pid_t pid, __rlimit_resource_t resource, const struct rlimit *new, struct rlimit *old)
{
	if (new &&resource == RLIMIT_FSIZE)
		fds_no_writes();
	return next_of_prlimit64()(pid, resource, new, old);
}

exported int setrlimit_plain(__rlimit_resource_t resource, const struct rlimit *limit) __asm__("setrlimit");
exported int setrlimit_large(__rlimit_resource_t resource, const struct rlimit *limit) __asm__("setrlimit64");
exported int prlimit_plain(pid_t pid, __rlimit_resource_t resource, const struct rlimit *new,
			   struct rlimit *old) __asm__("prlimit");
exported int prlimit_large(pid_t pid, __rlimit_resource_t resource, const struct rlimit *new,
			   struct rlimit *old) __asm__("prlimit64");

int setrlimit_plain(__rlimit_resource_t resource, const struct rlimit *limit)
{
	return limit_set(resource, limit);
}

int setrlimit_large(__rlimit_resource_t resource, const struct rlimit *limit)
{
	return limit_set(resource, limit);
}

int prlimit_plain(pid_t pid, __rlimit_resource_t resource, const struct rlimit *new, struct rlimit *old)
{
	return limit_change(pid, resource, new, old);
}

int prlimit_large(pid_t pid, __rlimit_resource_t resource, const struct rlimit *new, struct rlimit *old)
{
	return limit_change(pid, resource, new, old);
}

/* ---- system calls by number ---- */

exported long syscall(long number, ...)
{
	long a[6], rc;
	va_list args;

	va_start(args, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(args, long);
	va_end(args);
	switch (number) {
	case SYS_close:
		return close((int)a[0]);
#ifdef SYS_dup2
	case SYS_dup2:
		return dup2((int)a[0], (int)a[1]);
#endif
	case SYS_dup3:
		return dup3((int)a[0], (int)a[1], (int)a[2]);
	case SYS_fcntl:
		return control((int)a[0], (int)a[1], (void *)a[2]); /* NOLINT(performance-no-int-to-ptr) */
	case SYS_unshare:
		return unshare((int)a[0]);
	case SYS_close_range:
		if (a[2] == 0)
			return close_range((unsigned)a[0], (unsigned)a[1], 0);
		if (a[2] & CLOSE_RANGE_UNSHARE)
			fds_off();
		break;
	default:
		if (preload_mapped_call(number, a, &rc))
			return rc;
		break;
	}
	return next_of_syscall()(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
