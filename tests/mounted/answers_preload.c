/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A daemon that ends when it is about to answer the kernel, or just has: loaded into it by LD_PRELOAD (keeper.sh).
 *
 * ANSWERS_DEATHS is a file that gets a byte with each death, up to ANSWERS_DEATHS_MAX of them. Which answer it is follows from time and process. Every eighth daemon lives for longer than
 * a second: those that do not, again and again, are started later and later.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define ANSWERS_MAX 300
#define ANSWERS_FEW 10
#define LONG_NS 1100000000ll

static _Atomic long answers_left;
static _Atomic int64_t not_before_ns;
static const char *deaths;
static int connection = -1; /* what the last look found */

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

__attribute__((constructor)) static void begin(void)
{
	const char *max = getenv("ANSWERS_DEATHS_MAX");
	struct stat st;

	deaths = getenv("ANSWERS_DEATHS");
	if (!deaths || !max || !getenv("UMBRAFS_KEEPER") || stat(deaths, &st) || st.st_size >= atol(max)) {
		deaths = NULL;
		return;
	}
	srandom((unsigned)(now_ns() ^ getpid()));
	/* Now and then while it takes over; but a request at which three end is given up. */
	answers_left = st.st_size % 3 == 2 ? 1 + random() % ANSWERS_FEW :
					     ANSWERS_FEW + random() % ANSWERS_MAX;
	not_before_ns = now_ns() + (st.st_size % 8 == 7 ? LONG_NS : 0);
}

static bool is_connection(int fd)
{
	char path[64], link[64];
	ssize_t n;

	if (fd == connection)
		return true;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, link, sizeof(link) - 1);
	if (n < 0)
		return false;
	link[n] = '\0';
	if (strcmp(link, "/dev/fuse") == 0)
		connection = fd;
	return fd == connection;
}

/* An answer to a request begins with length, error, number. */
static bool is_last(int fd, const void *bytes, size_t size)
{
	uint64_t unique;

	if (!deaths || size < 16 || !is_connection(fd))
		return false;
	memcpy(&unique, (const char *)bytes + 8, sizeof(unique));
	return unique != 0 && now_ns() > not_before_ns && --answers_left == 0;
}

static void end(void)
{
	int fd = open(deaths, O_WRONLY | O_APPEND | O_CLOEXEC);
	ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");

	(void)!real(fd, "x", 1);
	raise(SIGKILL);
}

ssize_t write(int fd, const void *bytes, size_t size)
{
	static ssize_t (*real)(int, const void *, size_t);
	bool last = is_last(fd, bytes, size), late = last && random() % 4 == 0;
	ssize_t n;

	if (!real)
		real = dlsym(RTLD_NEXT, "write");
	if (last && !late)
		end();
	n = real(fd, bytes, size);
	if (late)
		end();
	return n;
}

ssize_t writev(int fd, const struct iovec *iov, int count)
{
	static ssize_t (*real)(int, const struct iovec *, int);

	if (!real)
		real = dlsym(RTLD_NEXT, "writev");
	if (count > 0 && is_last(fd, iov[0].iov_base, iov[0].iov_len))
		end();
	return real(fd, iov, count);
}
