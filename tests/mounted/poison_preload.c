/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad memory for a daemon that runs: loaded into it with LD_PRELOAD, it makes pages of its mapping of the pool bad, or good again, by
 * userfaultfd. Commands come line by line over the named pipe UMBRA_POISON_PIPE, each answered by a line in UMBRA_POISON_ANSWERS.
 *
 *	bad OFFSET	the page at that offset of the pool
 *	good OFFSET	as it was
 *
 * The pool is UMBRA_POISON_POOL.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE_BYTES 4096u

#ifndef UFFDIO_POISON
struct uffdio_poison {
	struct uffdio_range range;
	uint64_t mode;
	int64_t updated;
};
#define UFFD_FEATURE_POISON (1 << 14)
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif

static int uffd = -1;

/* Where the page is mapped, or 0. */
static uintptr_t page_find(const char *pool, uint64_t off)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[4400];
	uintptr_t found = 0;

	while (maps && !found && fgets(line, sizeof(line), maps)) {
		unsigned long start, end, at;
		int name = 0;

		if (sscanf(line, "%lx-%lx %*s %lx %*s %*s %n", &start, &end, &at, &name) < 3 || name == 0)
			continue;
		line[strcspn(line, "\n")] = '\0';
		if (strcmp(line + name, pool) == 0 && off >= at && off - at < end - start)
			found = start + (off - at);
	}
	if (maps)
		fclose(maps);
	return found;
}

static int page_bad(uintptr_t page)
{
	struct uffdio_range range = { .start = page, .len = PAGE_BYTES };
	struct uffdio_register reg = { .range = range, .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_poison bad = { .range = range };

	if (ioctl(uffd, UFFDIO_REGISTER, &reg) || madvise((void *)page, PAGE_BYTES, MADV_DONTNEED) ||
	    ioctl(uffd, UFFDIO_POISON, &bad))
		return errno;
	return 0;
}

static int page_good(uintptr_t page)
{
	struct uffdio_range range = { .start = page, .len = PAGE_BYTES };

	if (ioctl(uffd, UFFDIO_UNREGISTER, &range) || madvise((void *)page, PAGE_BYTES, MADV_DONTNEED))
		return errno;
	return 0;
}

static int command_run(const char *line)
{
	unsigned long long off;
	char what[8];
	uintptr_t page;

	if (sscanf(line, "%7s %lli", what, (long long *)&off) != 2)
		return EINVAL;
	page = page_find(getenv("UMBRA_POISON_POOL"), off & ~(uint64_t)(PAGE_BYTES - 1));
	if (page == 0)
		return EFAULT;
	page &= ~(uintptr_t)(PAGE_BYTES - 1);
	return strcmp(what, "bad") == 0 ? page_bad(page) : page_good(page);
}

static void *serve(void *arg)
{
	char line[64];

	(void)arg;
	for (;;) {
		FILE *in = fopen(getenv("UMBRA_POISON_PIPE"), "re");

		while (in && fgets(line, sizeof(line), in)) {
			FILE *out = fopen(getenv("UMBRA_POISON_ANSWERS"), "ae");
			int rc = command_run(line);

			if (out) {
				fprintf(out, "%s\n", rc ? strerror(rc) : "done");
				fclose(out);
			}
		}
		if (in)
			fclose(in);
		else
			return NULL;
	}
}

__attribute__((constructor)) static void start(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_POISON };
	sigset_t all, before;
	pthread_t thread;

	if (!getenv("UMBRA_POISON_PIPE") || !getenv("UMBRA_POISON_POOL") || !getenv("UMBRA_POISON_ANSWERS"))
		return;
	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		return;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	if (pthread_create(&thread, NULL, serve, NULL) == 0)
		pthread_detach(thread);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}
