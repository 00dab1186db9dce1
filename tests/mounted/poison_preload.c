/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad memory for a program that maps a pool: loaded into it with LD_PRELOAD, it makes pages of its mapping of the pool UMBRA_POISON_POOL bad, or
 * good again, by userfaultfd.
 *
 * The pages at the offsets in UMBRA_POISON_AT are so from the beginning. A daemon gets commands line by line over the named pipe
 * UMBRA_POISON_PIPE, each answered by a line in UMBRA_POISON_ANSWERS ("cannot" before any command: there is no such userfaultfd):
 *
 *	bad OFFSET	the page at that offset of the pool, wherever it is mapped
 *	good OFFSET	as it was
 *
 * With UMBRA_POISON_LASTS it is so too for what is mapped there later by mremap(2): the memory is bad, not only a mapping of it.
 *
 * Ends the program with status 77 if there is no such userfaultfd, and pages were to be bad from the beginning.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../lib/uffd_poison.h"

#define PAGE_BYTES 4096u
#define PLACES_MAX 64u

static int uffd = -1;
/* What is bad by command. */
static pthread_mutex_t bad_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t bad_offs[PLACES_MAX];
static unsigned bad_count;

/* Where the page is mapped; how often. */
static unsigned pages_find(const char *pool, uint64_t off, uintptr_t pages[PLACES_MAX])
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[4400];
	unsigned count = 0;

	while (maps && count < PLACES_MAX && fgets(line, sizeof(line), maps)) {
		unsigned long start, end, at;
		int name = 0;

		if (sscanf(line, "%lx-%lx %*s %lx %*s %*s %n", &start, &end, &at, &name) < 3 || name == 0)
			continue;
		line[strcspn(line, "\n")] = '\0';
		if (strcmp(line + name, pool) == 0 && off >= at && off - at < end - start)
			pages[count++] = start + (off - at);
	}
	if (maps)
		fclose(maps);
	return count;
}

/* Whoever touches the page meanwhile has it mapped again. */
static int page_bad(uintptr_t page)
{
	struct uffdio_range range = { .start = page, .len = PAGE_BYTES };
	struct uffdio_register reg = { .range = range, .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_poison bad = { .range = range };

	if (ioctl(uffd, UFFDIO_REGISTER, &reg))
		return errno;
	for (unsigned tries = 0; tries < 10000; tries++) {
		if (madvise((void *)page, PAGE_BYTES, MADV_DONTNEED))
			return errno;
		if (ioctl(uffd, UFFDIO_POISON, &bad) == 0)
			return 0;
		if (errno != EEXIST && errno != EAGAIN)
			return errno;
	}
	return errno;
}

static int page_good(uintptr_t page)
{
	struct uffdio_range range = { .start = page, .len = PAGE_BYTES };

	if (ioctl(uffd, UFFDIO_UNREGISTER, &range) || madvise((void *)page, PAGE_BYTES, MADV_DONTNEED))
		return errno;
	return 0;
}

static void bad_note(uint64_t off, bool bad)
{
	for (unsigned i = 0; i < bad_count; i++)
		if (bad_offs[i] == off)
			bad_offs[i--] = bad_offs[--bad_count];
	if (bad && bad_count < PLACES_MAX)
		bad_offs[bad_count++] = off;
}

/* What was mapped there just now is as bad as what was mapped before. */
static void bad_again(uintptr_t lo, size_t len)
{
	uintptr_t pages[PLACES_MAX];

	pthread_mutex_lock(&bad_lock);
	for (unsigned i = 0; i < bad_count; i++) {
		unsigned count = pages_find(getenv("UMBRA_POISON_POOL"), bad_offs[i], pages);

		for (unsigned j = 0; j < count; j++)
			if (pages[j] >= lo && pages[j] - lo < len)
				(void)page_bad(pages[j]);
	}
	pthread_mutex_unlock(&bad_lock);
}

/* Memory is bad, or good, for all that is mapped there. */
static int command_run(const char *line)
{
	uintptr_t pages[PLACES_MAX];
	unsigned long long off;
	unsigned count;
	char what[8];
	int rc = 0;

	if (sscanf(line, "%7s %lli", what, (long long *)&off) != 2)
		return EINVAL;
	off &= ~(uint64_t)(PAGE_BYTES - 1);
	pthread_mutex_lock(&bad_lock);
	count = pages_find(getenv("UMBRA_POISON_POOL"), off, pages);
	if (count == 0)
		rc = EFAULT;
	else if (getenv("UMBRA_POISON_LASTS"))
		bad_note(off, strcmp(what, "bad") == 0);
	for (unsigned i = 0; i < count && rc == 0; i++)
		rc = strcmp(what, "bad") == 0 ? page_bad(pages[i]) : page_good(pages[i]);
	pthread_mutex_unlock(&bad_lock);
	return rc;
}

/* ---- from the beginning ---- */

static bool is_pool(int fd, const char *pool)
{
	char link[32], path[4096];
	ssize_t len;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	len = readlink(link, path, sizeof(path) - 1);
	if (len < 0)
		return false;
	path[len] = '\0';
	return strcmp(path, pool) == 0;
}

static void *mmap_plain(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	return (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, off);
}

static void pages_bad(const uint8_t *base, size_t len, off_t start, const char *list)
{
	char *end;

	for (;; list = end) {
		uint64_t off = strtoull(list, &end, 0);

		if (end == list)
			return;
		if (off < (uint64_t)start || off - (uint64_t)start >= len)
			continue;
		if (page_bad(((uintptr_t)base + (off - (uint64_t)start)) & ~(uintptr_t)(PAGE_BYTES - 1)))
			_exit(77);
	}
}

void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	const char *pool = getenv("UMBRA_POISON_POOL"), *list = getenv("UMBRA_POISON_AT");
	int writable = -1;
	void *base;

	if (!pool || fd < 0 || !(flags & MAP_SHARED) || !is_pool(fd, pool))
		return mmap_plain(addr, len, prot, flags, fd, off);
	/* What could never be written cannot be made bad. */
	if (!(prot & PROT_WRITE))
		writable = open(pool, O_RDWR | O_CLOEXEC);
	base = mmap_plain(addr, len, prot, flags, writable >= 0 ? writable : fd, off);
	if (writable >= 0)
		close(writable);
	if (base != MAP_FAILED && list)
		pages_bad(base, len, off, list);
	return base;
}

/* How libumbra puts pieces in place. */
void *mremap(void *old, size_t old_size, size_t new_size, int flags, ...)
{
	va_list args;
	void *at;

	va_start(args, flags);
	at = (void *)syscall(SYS_mremap, old, old_size, new_size, flags,
			     flags & MREMAP_FIXED ? va_arg(args, void *) : NULL);
	va_end(args);
	if (at != MAP_FAILED && bad_count > 0)
		bad_again((uintptr_t)at, new_size);
	return at;
}

/* ---- by command ---- */

static void answer(const char *text)
{
	FILE *out = fopen(getenv("UMBRA_POISON_ANSWERS"), "ae");

	if (out) {
		fprintf(out, "%s\n", text);
		fclose(out);
	}
}

static void *serve(void *arg)
{
	/* To write as well: with no writer left it would end, and what the next one writes before it is open again be lost. */
	FILE *in = fopen(getenv("UMBRA_POISON_PIPE"), "r+e");
	char line[64];

	(void)arg;
	while (in && fgets(line, sizeof(line), in)) {
		int rc = command_run(line);

		answer(rc ? strerror(rc) : "done");
	}
	return NULL;
}

__attribute__((constructor)) static void start(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_POISON };
	sigset_t all, before;
	pthread_t thread;

	if (!getenv("UMBRA_POISON_POOL"))
		return;
	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	if (uffd >= 0 && ioctl(uffd, UFFDIO_API, &api)) {
		close(uffd);
		uffd = -1;
	}
	if (!getenv("UMBRA_POISON_PIPE") || !getenv("UMBRA_POISON_ANSWERS"))
		return;
	if (uffd < 0) {
		answer("cannot");
		return;
	}
	unsetenv("LD_PRELOAD"); /* not in programs that this one starts */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	if (pthread_create(&thread, NULL, serve, NULL) == 0)
		pthread_detach(thread);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}
