/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Calls with names, and with small results, that lie in mappings of the library's. The kernel reads a name before it does anything, and says EFAULT where a page is not in place: then it comes into
 * place, and the call is made again.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/fds.h"
#include "client/next.h"
#include "client/user_memory.h"

#define TRIES_MAX 16 /* somebody takes it away again and again */

static bool is_to_be_placed(unsigned *tries)
{
	return errno == EFAULT && (*tries)++ < TRIES_MAX && user_memory_exists() && fds_is_quiet();
}

/* False: it is bad for good, which is what the kernel has said. What is no mapping is right, or else the kernel says so once more. */
static bool string_place(const char *at)
{
	return !user_memory_at(at, 1) || user_memory_string(at, PATH_MAX);
}

static bool memory_place(const void *at, size_t len, bool store)
{
	return !user_memory_at(at, len) || user_memory_touch((void *)(uintptr_t)at, len, store) == len;
}

static bool name_place(const struct sockaddr *name, const socklen_t *len)
{
	socklen_t size;

	return memory_place(len, sizeof(*len), true) && user_memory_get(&size, len, sizeof(size)) &&
	       memory_place(name, size, true);
}

#define PLACED(type, failure, call, place)                                     \
	do {                                                                   \
		unsigned tries = 0;                                            \
		type rc;                                                       \
                                                                               \
		do                                                             \
			rc = call;                                             \
		while (rc == (failure) && is_to_be_placed(&tries) && (place)); \
		return rc;                                                     \
	} while (0)

/* One function of that name. */
#define ONE(type, name, params, args, place)                          \
	NEXT(name, type, params)                                      \
	exported type name params                                     \
	{                                                             \
		PLACED(type, (type)-1, next_of_##name() args, place); \
	}

/* One that has another name for large files too: both, whichever the headers make of the plain one here. */
#define TWO(type, failure, name, params, args, place)                    \
	NEXT(name##64, type, params)                                     \
	exported type name##_plain params __asm__(#name);                \
	exported type name##_large params __asm__(#name "64");           \
	type name##_plain params                                         \
	{                                                                \
		PLACED(type, failure, next_of_##name##64() args, place); \
	}                                                                \
	type name##_large params                                         \
	{                                                                \
		PLACED(type, failure, next_of_##name##64() args, place); \
	}

#define IN(path) string_place(path)
#define OUT(at, len) memory_place(at, len, true)

/* ---- names ---- */

ONE(int, access, (const char *path, int mode), (path, mode), IN(path))
ONE(int, faccessat, (int dir, const char *path, int mode, int flags), (dir, path, mode, flags), IN(path))
ONE(int, chdir, (const char *path), (path), IN(path))
ONE(int, chmod, (const char *path, mode_t mode), (path, mode), IN(path))
ONE(int, fchmodat, (int dir, const char *path, mode_t mode, int flags), (dir, path, mode, flags), IN(path))
ONE(int, chown, (const char *path, uid_t uid, gid_t gid), (path, uid, gid), IN(path))
ONE(int, lchown, (const char *path, uid_t uid, gid_t gid), (path, uid, gid), IN(path))
ONE(int, fchownat, (int dir, const char *path, uid_t uid, gid_t gid, int flags), (dir, path, uid, gid, flags),
    IN(path))
ONE(int, mkdir, (const char *path, mode_t mode), (path, mode), IN(path))
ONE(int, mkdirat, (int dir, const char *path, mode_t mode), (dir, path, mode), IN(path))
ONE(int, rmdir, (const char *path), (path), IN(path))
ONE(int, unlink, (const char *path), (path), IN(path))
ONE(int, unlinkat, (int dir, const char *path, int flags), (dir, path, flags), IN(path))
ONE(int, link, (const char *old, const char *new), (old, new), IN(old) && IN(new))
ONE(int, linkat, (int dir, const char *old, int to, const char *new, int flags), (dir, old, to, new, flags),
    IN(old) && IN(new))
ONE(int, symlink, (const char *old, const char *new), (old, new), IN(old) && IN(new))
ONE(int, symlinkat, (const char *old, int to, const char *new), (old, to, new), IN(old) && IN(new))
ONE(int, rename, (const char *old, const char *new), (old, new), IN(old) && IN(new))
ONE(int, renameat, (int dir, const char *old, int to, const char *new), (dir, old, to, new),
    IN(old) && IN(new))
ONE(int, renameat2, (int dir, const char *old, int to, const char *new, unsigned flags),
    (dir, old, to, new, flags), IN(old) && IN(new))
ONE(int, utimensat, (int dir, const char *path, const struct timespec times[2], int flags),
    (dir, path, times, flags), IN(path) && memory_place(times, 2 * sizeof(*times), false))
TWO(int, -1, truncate, (const char *path, off_t size), (path, size), IN(path))
TWO(int, -1, creat, (const char *path, mode_t mode), (path, mode), IN(path))
TWO(FILE *, NULL, fopen, (const char *path, const char *mode), (path, mode), IN(path))

NEXT(opendir, DIR *, (const char *))

exported DIR *opendir(const char *path)
{
	PLACED(DIR *, NULL, next_of_opendir()(path), IN(path));
}

/* ---- open ---- */

NEXT(open64, int, (const char *, int, ...))
NEXT(openat64, int, (int, const char *, int, ...))

/* Two names, with an argument that is there only when a file may be made. */
#define MODE_OF(flags, mode)                                          \
	do {                                                          \
		va_list list;                                         \
                                                                      \
		va_start(list, flags);                                \
		if ((flags) & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))) \
			mode = va_arg(list, mode_t);                  \
		va_end(list);                                         \
	} while (0)

exported int open_plain(const char *path, int flags, ...) __asm__("open");
exported int open_large(const char *path, int flags, ...) __asm__("open64");
exported int openat_plain(int dir, const char *path, int flags, ...) __asm__("openat");
exported int openat_large(int dir, const char *path, int flags, ...) __asm__("openat64");

int open_plain(const char *path, int flags, ...)
{
	mode_t mode = 0;

	MODE_OF(flags, mode);
	PLACED(int, -1, next_of_open64()(path, flags, mode), IN(path));
}

int open_large(const char *path, int flags, ...)
{
	mode_t mode = 0;

	MODE_OF(flags, mode);
	PLACED(int, -1, next_of_open64()(path, flags, mode), IN(path));
}

int openat_plain(int dir, const char *path, int flags, ...)
{
	mode_t mode = 0;

	MODE_OF(flags, mode);
	PLACED(int, -1, next_of_openat64()(dir, path, flags, mode), IN(path));
}

int openat_large(int dir, const char *path, int flags, ...)
{
	mode_t mode = 0;

	MODE_OF(flags, mode);
	PLACED(int, -1, next_of_openat64()(dir, path, flags, mode), IN(path));
}

/* ---- results: to ask again changes nothing ---- */

TWO(int, -1, stat, (const char *path, struct stat *st), (path, st), IN(path) && OUT(st, sizeof(*st)))
TWO(int, -1, lstat, (const char *path, struct stat *st), (path, st), IN(path) && OUT(st, sizeof(*st)))
TWO(int, -1, fstat, (int fd, struct stat *st), (fd, st), OUT(st, sizeof(*st)))
TWO(int, -1, fstatat, (int dir, const char *path, struct stat *st, int flags), (dir, path, st, flags),
    IN(path) && OUT(st, sizeof(*st)))
ONE(int, statx, (int dir, const char *path, int flags, unsigned mask, struct statx *st),
    (dir, path, flags, mask, st), IN(path) && OUT(st, sizeof(*st)))
ONE(ssize_t, readlink, (const char *path, char *buf, size_t size), (path, buf, size),
    IN(path) && OUT(buf, size))
ONE(ssize_t, readlinkat, (int dir, const char *path, char *buf, size_t size), (dir, path, buf, size),
    IN(path) && OUT(buf, size))
ONE(ssize_t, getrandom, (void *buf, size_t size, unsigned flags), (buf, size, flags), OUT(buf, size))
ONE(int, getsockname, (int fd, struct sockaddr *name, socklen_t *len), (fd, name, len), name_place(name, len))
ONE(int, getpeername, (int fd, struct sockaddr *name, socklen_t *len), (fd, name, len), name_place(name, len))
ONE(int, bind, (int fd, const struct sockaddr *name, socklen_t len), (fd, name, len),
    memory_place(name, len, false))
ONE(int, connect, (int fd, const struct sockaddr *name, socklen_t len), (fd, name, len),
    memory_place(name, len, false))

NEXT(getcwd, char *, (char *, size_t))

exported char *getcwd(char *buf, size_t size)
{
	PLACED(char *, NULL, next_of_getcwd()(buf, size), OUT(buf, size));
}
