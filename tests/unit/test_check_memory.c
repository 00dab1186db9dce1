/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How much memory the consistency walk takes: for each inode, name and extent, at its highest. The linker leads what takes memory to
 * functions of this test, which count it.
 */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "lib/testrepair.h"
#include "repair/check.h"

#define POOL_BYTES ((uint64_t)320 << 20)
#define THREADS 2u
#define THREAD_BYTES ((size_t)256 << 10) /* its own, however many files there are */
#define FILES 36000u

/* ---- memory ---- */

static struct {
	_Atomic size_t live, peak;
} mem;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t align, size_t size);
void __real_free(void *p);
void __real_qsort(void *base, size_t count, size_t size, int (*compare)(const void *a, const void *b));
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_aligned_alloc(size_t align, size_t size);
void __wrap_free(void *p);
void __wrap_qsort(void *base, size_t count, size_t size, int (*compare)(const void *a, const void *b));

static void taken(size_t bytes)
{
	size_t live = atomic_fetch_add(&mem.live, bytes) + bytes, peak = atomic_load(&mem.peak);

	while (live > peak && !atomic_compare_exchange_weak(&mem.peak, &peak, live))
		;
}

static void *counted(void *p)
{
	taken(p ? malloc_usable_size(p) : 0);
	return p;
}

void *__wrap_malloc(size_t size)
{
	return counted(__real_malloc(size));
}

void *__wrap_calloc(size_t count, size_t size)
{
	return counted(__real_calloc(count, size));
}

void *__wrap_realloc(void *old, size_t size)
{
	size_t had = old ? malloc_usable_size(old) : 0;
	void *p = __real_realloc(old, size);

	if (!p)
		return NULL;
	atomic_fetch_sub(&mem.live, had);
	return counted(p);
}

void *__wrap_aligned_alloc(size_t align, size_t size)
{
	return counted(__real_aligned_alloc(align, size));
}

void __wrap_free(void *p)
{
	atomic_fetch_sub(&mem.live, p ? malloc_usable_size(p) : 0);
	__real_free(p);
}

/* The C library's takes as much again. */
void __wrap_qsort(void *base, size_t count, size_t size, int (*compare)(const void *a, const void *b))
{
	taken(count * size);
	__real_qsort(base, count, size, compare);
	atomic_fetch_sub(&mem.live, count * size);
}

/* ---- cases ---- */

static void found(void *arg, enum check_kind kind, const char *text)
{
	(void)arg;
	print_message("# %s: %s\n", check_kind_name(kind), text);
}

/* The highest that a walk took beside what there was before. */
static size_t walk_peak(struct testfs *t, struct check_report *report)
{
	const struct check_opts opts = { .found = found, .limit = 5, .threads = THREADS };
	size_t before;

	/* The pool keeps what it has loaded. */
	assert_int_equal(check_pool(t->pool, &opts, report), 0);
	before = atomic_load(&mem.live);
	atomic_store(&mem.peak, before);
	assert_int_equal(check_pool(t->pool, &opts, report), 0);
	assert_int_equal(report->findings, 0);
	return atomic_load(&mem.peak) - before;
}

static void pool_make(struct testfs *t)
{
	const struct testfs_opts opts = { .size_bytes = POOL_BYTES };

	testfs_make(t, &opts);
}

/* What so many things take beside what the same pool takes without them. */
static void few_bytes(size_t empty, size_t full, uint64_t count, size_t limit_bytes, const char *what)
{
	size_t own = empty + THREADS * THREAD_BYTES, each = full > own ? (full - own) / count : 0;

	print_message("# %zu KiB empty, %zu KiB with %llu %s: %zu bytes each\n", empty >> 10, full >> 10,
		      (unsigned long long)count, what, each);
	assert_in_range(each, 0, limit_bytes);
}

static void block_write(struct testfs *t, uint64_t ino, uint64_t blk)
{
	uint8_t bytes[BLOCK_SIZE];

	memset(bytes, (int)blk, sizeof(bytes));
	assert_int_equal(fs_write(t->fs, &testfs_root, ino, bytes, sizeof(bytes), blk * BLOCK_SIZE, 0),
			 sizeof(bytes));
}

static void test_small_files(void **state)
{
	struct check_report report;
	struct testfs t;
	size_t empty;
	char name[32];

	(void)state;
	pool_make(&t);
	empty = walk_peak(&t, &report);
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "file %u", i);
		block_write(&t, testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644), 0);
	}
	few_bytes(empty, walk_peak(&t, &report), FILES, 180, "files of a block");
	assert_int_equal(report.inodes, FILES + 1);
	testfs_free(&t);
}

static void test_directories(void **state)
{
	struct check_report report;
	struct testfs t;
	uint64_t dir = INODE_ROOT;
	size_t empty;
	char name[32];

	(void)state;
	pool_make(&t);
	empty = walk_peak(&t, &report);
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "directory %u", i);
		if (i % 10 == 0)
			dir = testfs_node(&t, i % 1000 == 0 ? INODE_ROOT : dir, name, S_IFDIR | 0755);
		else
			testfs_node(&t, dir, name, S_IFDIR | 0755);
	}
	few_bytes(empty, walk_peak(&t, &report), FILES, 120, "directories");
	assert_int_equal(report.directories, FILES + 1);
	testfs_free(&t);
}

/* Two files in turns: none of their blocks continues another. */
static void test_extents(void **state)
{
	struct check_report report;
	uint64_t file, other;
	struct testfs t;
	size_t empty;

	(void)state;
	pool_make(&t);
	empty = walk_peak(&t, &report);
	file = testfs_node(&t, INODE_ROOT, "file", S_IFREG | 0644);
	other = testfs_node(&t, INODE_ROOT, "other", S_IFREG | 0644);
	for (unsigned i = 0; i < FILES / 2; i++) {
		block_write(&t, file, FILES - 2 * i);
		block_write(&t, other, 2 * i);
	}
	few_bytes(empty, walk_peak(&t, &report), FILES, 100, "extents");
	assert_int_equal(report.extents, FILES);
	testfs_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_small_files),
		cmocka_unit_test(test_directories),
		cmocka_unit_test(test_extents),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
