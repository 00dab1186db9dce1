/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Looks whether a program hands memory of the pool to the kernel, to be read or written there: loaded with LD_PRELOAD, it stands before the calls that
 * copy from and to a caller's memory, and before mmap(), which tells where the pool UMBRA_COPIES_POOL is. Each finding is a line in the file
 * UMBRA_COPIES_LOG; the last line says how many calls it has seen and how many mappings of the pool there were.
 */
#define _GNU_SOURCE
#undef _FILE_OFFSET_BITS /* both names of a call are wanted */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define RANGES_MAX 4096u
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static struct {
	uintptr_t start, end;
} ranges[RANGES_MAX];
static _Atomic unsigned ranges_count;
static _Atomic unsigned long calls_count;

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void say(const char *format, ...)
{
	const char *log = getenv("UMBRA_COPIES_LOG");
	int fd = log ? open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
	char line[200];
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	if (fd >= 0 && n > 0)
		(void)!syscall(SYS_write, fd, line, (size_t)n);
	if (fd >= 0)
		close(fd);
}

static void look(const char *call, const void *memory, size_t size)
{
	uintptr_t at = (uintptr_t)memory;

	atomic_fetch_add(&calls_count, 1);
	for (unsigned i = 0; i < atomic_load(&ranges_count) && i < RANGES_MAX; i++) {
		if (at < ranges[i].end && at + size > ranges[i].start)
			say("%s is given %zu bytes of the pool\n", call, size);
	}
}

static void look_all(const char *call, const struct iovec *iov, int count)
{
	for (int i = 0; i < count; i++)
		look(call, iov[i].iov_base, iov[i].iov_len);
}

static void is_mapped(const void *base, size_t size, int fd)
{
	const char *pool = getenv("UMBRA_COPIES_POOL");
	struct stat want, have;
	unsigned i;

	if (base == MAP_FAILED || fd < 0 || !pool || stat(pool, &want) || fstat(fd, &have) ||
	    want.st_dev != have.st_dev || want.st_ino != have.st_ino)
		return;
	i = atomic_fetch_add(&ranges_count, 1);
	if (i >= RANGES_MAX)
		return;
	ranges[i].start = (uintptr_t)base;
	ranges[i].end = (uintptr_t)base + size;
}

void *mmap(void *at, size_t size, int prot, int flags, int fd, off_t off)
{
	void *base = (void *)syscall(SYS_mmap, at, size, prot, flags, fd, off);

	is_mapped(base, size, fd);
	return base;
}

void *mmap64(void *at, size_t size, int prot, int flags, int fd, off64_t off)
{
	return mmap(at, size, prot, flags, fd, off);
}

ssize_t write(int fd, const void *buf, size_t size)
{
	look("write", buf, size);
	return NEXT(write)(fd, buf, size);
}

ssize_t writev(int fd, const struct iovec *iov, int count)
{
	look_all("writev", iov, count);
	return NEXT(writev)(fd, iov, count);
}

ssize_t pwrite(int fd, const void *buf, size_t size, off_t off)
{
	look("pwrite", buf, size);
	return NEXT(pwrite)(fd, buf, size, off);
}

ssize_t pwrite64(int fd, const void *buf, size_t size, off64_t off)
{
	look("pwrite", buf, size);
	return NEXT(pwrite64)(fd, buf, size, off);
}

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t off)
{
	look_all("pwritev", iov, count);
	return NEXT(pwritev)(fd, iov, count, off);
}

ssize_t vmsplice(int fd, const struct iovec *iov, size_t count, unsigned flags)
{
	look_all("vmsplice", iov, (int)count);
	return NEXT(vmsplice)(fd, iov, count, flags);
}

ssize_t sendto(int fd, const void *buf, size_t size, int flags, const struct sockaddr *to, socklen_t to_size)
{
	look("sendto", buf, size);
	return NEXT(sendto)(fd, buf, size, flags, to, to_size);
}

size_t fwrite(const void *buf, size_t size, size_t count, FILE *out)
{
	look("fwrite", buf, size * count);
	return NEXT(fwrite)(buf, size, count, out);
}

ssize_t read(int fd, void *buf, size_t size)
{
	look("read", buf, size);
	return NEXT(read)(fd, buf, size);
}

ssize_t pread(int fd, void *buf, size_t size, off_t off)
{
	look("pread", buf, size);
	return NEXT(pread)(fd, buf, size, off);
}

ssize_t pread64(int fd, void *buf, size_t size, off64_t off)
{
	look("pread", buf, size);
	return NEXT(pread64)(fd, buf, size, off);
}

ssize_t readv(int fd, const struct iovec *iov, int count)
{
	look_all("readv", iov, count);
	return NEXT(readv)(fd, iov, count);
}

__attribute__((destructor)) static void end(void)
{
	say("seen %lu calls, %u mappings\n", atomic_load(&calls_count), atomic_load(&ranges_count));
}
