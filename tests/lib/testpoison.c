/* SPDX-License-Identifier: BSD-3-Clause */
#define _GNU_SOURCE
#include "lib/testpoison.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE_BYTES 4096u

/* The headers of Debian 12 do not have it. */
#ifndef UFFDIO_POISON
struct uffdio_poison {
	struct uffdio_range range;
	uint64_t mode;
	int64_t updated;
};
#define UFFD_FEATURE_POISON (1 << 14)
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif

struct bad_page {
	uint64_t off;
	uint8_t held[PAGE_BYTES];
};

struct testpoison {
	const struct dax *dax;
	int fd;
	struct bad_page *pages;
	unsigned count;
};

static void must(int rc, const char *what)
{
	if (rc) {
		fprintf(stderr, "testpoison: %s: %s\n", what, strerror(errno));
		abort();
	}
}

struct testpoison *testpoison_open(const struct dax *dax)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_POISON };
	struct testpoison *poison = calloc(1, sizeof(*poison));

	if (!poison)
		abort();
	poison->dax = dax;
	poison->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	if (poison->fd >= 0 && ioctl(poison->fd, UFFDIO_API, &api) == 0)
		return poison;
	printf("# no bad memory: userfaultfd with UFFD_FEATURE_POISON: %s\n", strerror(errno));
	if (poison->fd >= 0)
		close(poison->fd);
	free(poison);
	return NULL;
}

static struct uffdio_range range_of(const struct testpoison *poison, uint64_t off)
{
	return (struct uffdio_range){ .start = (uintptr_t)dax_ptr(poison->dax, off), .len = PAGE_BYTES };
}

void testpoison_page(struct testpoison *poison, uint64_t off)
{
	struct uffdio_range range = range_of(poison, off);
	struct uffdio_register reg = { .range = range, .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_poison bad = { .range = range };
	struct bad_page *page;

	for (unsigned i = 0; i < poison->count; i++) {
		if (poison->pages[i].off == off)
			return;
	}
	poison->pages = realloc(poison->pages, (poison->count + 1) * sizeof(*page));
	if (!poison->pages)
		abort();
	page = &poison->pages[poison->count++];
	page->off = off;
	memcpy(page->held, dax_ptr(poison->dax, off), PAGE_BYTES);
	must(ioctl(poison->fd, UFFDIO_REGISTER, &reg), "UFFDIO_REGISTER");
	must(madvise((void *)(uintptr_t)range.start, PAGE_BYTES, MADV_DONTNEED), "madvise");
	must(ioctl(poison->fd, UFFDIO_POISON, &bad), "UFFDIO_POISON");
}

static void page_heal(struct testpoison *poison, const struct bad_page *page)
{
	struct uffdio_range range = range_of(poison, page->off);
	struct uffdio_copy copy = { .dst = range.start, .src = (uintptr_t)page->held, .len = PAGE_BYTES };

	must(madvise((void *)(uintptr_t)range.start, PAGE_BYTES, MADV_DONTNEED), "madvise");
	must(ioctl(poison->fd, UFFDIO_COPY, &copy), "UFFDIO_COPY");
	must(ioctl(poison->fd, UFFDIO_UNREGISTER, &range), "UFFDIO_UNREGISTER");
}

void testpoison_heal(struct testpoison *poison, uint64_t off)
{
	for (unsigned i = 0; i < poison->count; i++) {
		if (poison->pages[i].off == off) {
			page_heal(poison, &poison->pages[i]);
			poison->pages[i] = poison->pages[--poison->count];
			return;
		}
	}
}

void testpoison_heal_all(struct testpoison *poison)
{
	while (poison->count > 0)
		page_heal(poison, &poison->pages[--poison->count]);
}

void testpoison_close(struct testpoison *poison)
{
	testpoison_heal_all(poison);
	close(poison->fd);
	free(poison->pages);
	free(poison);
}
