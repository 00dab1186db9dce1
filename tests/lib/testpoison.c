/* SPDX-License-Identifier: BSD-3-Clause */
#define _GNU_SOURCE
#include "lib/testpoison.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/uffd_poison.h"

#define PAGE_BYTES 4096u
#define LINE_BYTES 64u

struct bad_page {
	uint64_t off, lost_lines;
	uint8_t held[PAGE_BYTES];
};

struct testpoison {
	struct dax *dax;
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

static bool line_salvage(void *ctx, uint64_t off, void *line)
{
	const struct testpoison *poison = ctx;

	for (unsigned i = 0; i < poison->count; i++) {
		const struct bad_page *page = &poison->pages[i];
		uint64_t in_page = off - page->off;

		if (off < page->off || in_page >= PAGE_BYTES)
			continue;
		if (page->lost_lines >> in_page / LINE_BYTES & 1)
			return false;
		memcpy(line, page->held + in_page, LINE_BYTES);
		return true;
	}
	return dax_load(poison->dax, line, off, LINE_BYTES, NULL) == 0;
}

struct testpoison *testpoison_open(struct dax *dax)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_POISON };
	struct testpoison *poison = calloc(1, sizeof(*poison));

	if (!poison)
		abort();
	poison->dax = dax;
	poison->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	if (poison->fd >= 0 && ioctl(poison->fd, UFFDIO_API, &api) == 0) {
		dax_on_salvage(dax, line_salvage, poison);
		return poison;
	}
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
	testpoison_lines(poison, off, UINT64_MAX);
}

void testpoison_lines(struct testpoison *poison, uint64_t off, uint64_t lines)
{
	struct uffdio_range range = range_of(poison, off);
	struct uffdio_register reg = { .range = range, .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_poison bad = { .range = range };
	struct bad_page *page;

	for (unsigned i = 0; i < poison->count; i++) {
		if (poison->pages[i].off == off) {
			poison->pages[i].lost_lines |= lines;
			return;
		}
	}
	poison->pages = realloc(poison->pages, (poison->count + 1) * sizeof(*page));
	if (!poison->pages)
		abort();
	page = &poison->pages[poison->count++];
	page->off = off;
	page->lost_lines = lines;
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
	dax_on_salvage(poison->dax, NULL, NULL);
	close(poison->fd);
	free(poison->pages);
	free(poison);
}
