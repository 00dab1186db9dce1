/* SPDX-License-Identifier: BSD-3-Clause */
/* Calls about mappings of files, in all mixtures with other memory: what they say, and what is there then. */
#define _GNU_SOURCE
#include "mapped.h"

#include <linux/falloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/shm.h>
#include <sys/syscall.h>

static bool is_page(const unsigned char *at, unsigned page)
{
	return EQ(page, at[0]) && EQ(page, at[PAGE - 1]);
}

/* [8 pages of f from page 8 on | 8 of memory | 8 of g from page 40 on], in a row */
static unsigned char *row_make(int f, int g)
{
	unsigned char *at = mapped_make(NULL, 24 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	TRUE(mapped_make(at, 8 * PAGE, RW, MAP_SHARED | MAP_FIXED, f, 8 * PAGE) == at);
	mapped_make(at + 8 * PAGE, 8 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	mapped_make(at + 16 * PAGE, 8 * PAGE, RW, MAP_SHARED | MAP_FIXED, g, 40 * PAGE);
	memset(at + 8 * PAGE, 0x77, 8 * PAGE);
	is_page(at, 8);
	is_page(at + 7 * PAGE, 15);
	is_page(at + 16 * PAGE, 40);
	mapped_is_direct(at, true);
	mapped_is_direct(at + 16 * PAGE, true);
	return at;
}

static void case_errors(void)
{
	int rd = mapped_file("f", O_RDONLY), wr = file_open("f", O_WRONLY), rw = file_open("f", O_RDWR);
	unsigned char *map;

	ERR(EACCES, (long)mmap(NULL, BYTES, RW, MAP_SHARED, rd, 0));
	ERR(EACCES, (long)mmap(NULL, BYTES, PROT_READ, MAP_SHARED, wr, 0));
	ERR(EACCES, (long)mmap(NULL, BYTES, PROT_READ, MAP_PRIVATE, wr, 0));
	ERR(EINVAL, (long)mmap(NULL, 0, PROT_READ, MAP_SHARED, rw, 0));
	ERR(EINVAL, (long)mmap(NULL, BYTES, PROT_READ, MAP_SHARED, rw, 5));
	ERR(EINVAL, (long)mmap(NULL, BYTES, PROT_READ, 0, rw, 0));
	ERR(EINVAL, (long)mmap((void *)5, BYTES, PROT_READ, MAP_SHARED | MAP_FIXED, rw, 0));
	ERR(EBADF, (long)mmap(NULL, BYTES, PROT_READ, MAP_SHARED, 999, 0));
	ERR(ENODEV,
	    (long)mmap(NULL, BYTES, PROT_READ, MAP_SHARED, file_open(".", O_RDONLY | O_DIRECTORY), 0));
	ERR(ENOMEM, (long)mmap(NULL, (size_t)1 << 52, PROT_READ, MAP_SHARED, rw, 0));
	ERR(EOVERFLOW, (long)mmap(NULL, BYTES, PROT_READ, MAP_SHARED, rw, INT64_MAX & ~(off_t)(PAGE - 1)));
	map = mapped_make(NULL, BYTES, RW, MAP_SHARED, rw, 0);
	is_page(map + 3 * PAGE, 3);
	mapped_is_direct(map, true);
	ERR(EEXIST, (long)mmap(map, PAGE, RW, MAP_SHARED | MAP_FIXED_NOREPLACE, rw, 0));
	ERR(EEXIST,
	    (long)mmap(map + 5 * PAGE, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
	ERR(EINVAL, munmap(map + 1, PAGE));
	ERR(EINVAL, munmap(map, 0));
	ERR(EINVAL, mprotect(map + 1, PAGE, PROT_READ));
	ERR(EINVAL, msync(map + 1, PAGE, MS_SYNC));
	ERR(EINVAL, msync(map, PAGE, MS_SYNC | MS_ASYNC));
	ERR(EINVAL, msync(map, PAGE, 0x100));
	ERR(EINVAL, madvise(map + 1, PAGE, MADV_NORMAL));
	ERR(EINVAL, madvise(map, PAGE, 12345));
	ERR(EINVAL, madvise(map, PAGE, MADV_FREE));
	EQ(EINVAL, posix_madvise(map, PAGE, 12345));
	EQ(0, posix_madvise(map, PAGE, POSIX_MADV_WILLNEED));
	OK(munmap(map, BYTES));
	ERR(ENOMEM, mprotect(map, PAGE, PROT_READ));
	ERR(ENOMEM, msync(map, PAGE, MS_SYNC));
	ERR(ENOMEM, madvise(map, PAGE, MADV_NORMAL));
	/* The file has not become anybody else's by all that. */
	map = mapped_make(NULL, BYTES, RW, MAP_SHARED, rw, 0);
	is_page(map, 0);
	mapped_is_direct(map, true);
}

/* A hint that is free is where it goes. */
static void case_hints(void)
{
	int fd = mapped_file("f", O_RDWR);
	unsigned char *free_at = mapped_make(NULL, 8u << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
		      *map;

	OK(ftruncate(fd, 8 << 20));
	free_at = mapped_make(NULL, 8u << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	OK(munmap(free_at, 8u << 20));
	/* Further away than what libraries may take just now. */
	free_at -= (size_t)1 << 38;
	map = mapped_make(free_at + PAGE, 4u << 20, RW, MAP_SHARED, fd, 0);
	TRUE(map == free_at + PAGE);
	is_page(map + 5 * PAGE, 5);
	OK(munmap(map, 4u << 20));
	map = mapped_make(free_at + PAGE, 4u << 20, RW, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
	TRUE(map == free_at + PAGE);
}

/* Something else over it: what was there is gone, and nothing of it comes back. */
static void case_mapped_over(void)
{
	int f = mapped_file("f", O_RDWR), g = mapped_file("g", O_RDWR), other;
	unsigned char *map = mapped_make(NULL, BYTES, RW, MAP_SHARED, f, 0);

	for (unsigned i = 0; i < PAGES; i++)
		is_page(map + i * PAGE, i);
	mapped_make(map + 4 * PAGE, 2 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	EQ(0, map[4 * PAGE]);
	memset(map + 4 * PAGE, 1, 2 * PAGE);
	EQ(4, mapped_read("f", 4 * PAGE));
	mapped_make(map + 10 * PAGE, 2 * PAGE, RW, MAP_SHARED | MAP_FIXED, g, 50 * PAGE);
	is_page(map + 10 * PAGE, 50);
	map[10 * PAGE] = 0xaa;
	EQ(10, mapped_read("f", 10 * PAGE));
	EQ(0xaa, mapped_read("g", 50 * PAGE));
	/* By a file that is not on this file system. */
	other = open("/proc/self/exe", O_RDONLY);
	MUST(other);
	mapped_make(map + 20 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, other, 0);
	MEMEQ("\177ELF", map + 20 * PAGE, 4);
	is_page(map + 3 * PAGE, 3);
	is_page(map + 6 * PAGE, 6);
	is_page(map + 9 * PAGE, 9);
	is_page(map + 12 * PAGE, 12);
	is_page(map + 21 * PAGE, 21);
	/* A change of the file must not come to where something else is now. */
	OK(ftruncate(f, PAGE));
	EQ(1, map[4 * PAGE]);
	MEMEQ("\177ELF", map + 20 * PAGE, 4);
	EQ(0xaa, map[10 * PAGE]);
	EQ(SIGBUS, mapped_touch(map + 12 * PAGE, false));
	OK(munmap(map, BYTES));
	EQ(SIGSEGV, mapped_touch(map + 4 * PAGE, false));
	EQ(SIGSEGV, mapped_touch(map, false));
}

/* Memory of System V over a part, and what changes in the file then. */
static void attached_over(bool by_number)
{
	int f = mapped_file("f", O_RDWR), id = shmget(IPC_PRIVATE, 3 * PAGE - 100, IPC_CREAT | 0600);
	unsigned char *map = mapped_make(NULL, BYTES, RW, MAP_SHARED, f, 0), *at = map + 4 * PAGE;

	MUST(id);
	for (unsigned i = 0; i < PAGES; i++)
		is_page(map + i * PAGE, i);
	ERR(EINVAL, (long)shmat(id, at, 0));
	ERR(EINVAL, (long)shmat(id, at + 1, SHM_REMAP));
	is_page(at, 4);
	if (by_number)
		TRUE(syscall(SYS_shmat, id, at, SHM_REMAP) == (long)at);
	else
		TRUE(shmat(id, at + 1, SHM_REMAP | SHM_RND) == at);
	OK(shmctl(id, IPC_RMID, NULL));
	memset(at, 0xcc, 3 * PAGE);
	is_page(map + 3 * PAGE, 3);
	is_page(map + 7 * PAGE, 7);
	EQ(4, mapped_read("f", 4 * PAGE));
	/* A change of the file must not come to where something else is now. */
	OK(ftruncate(f, PAGE));
	for (unsigned i = 0; i < 3; i++)
		is_page(at + i * PAGE, 0xcc);
	EQ(SIGBUS, mapped_touch(map + 7 * PAGE, false));
	OK(shmdt(at));
	EQ(SIGSEGV, mapped_touch(at, false));
	OK(munmap(map, BYTES));
}

static void case_attached_over(void)
{
	attached_over(false);
	attached_over(true);
}

static void case_mixed_ranges(void)
{
	int f = mapped_file("f", O_RDWR), g = mapped_file("g", O_RDWR);
	unsigned char *row = row_make(f, g), vec[24];

	OK(mprotect(row + 4 * PAGE, 16 * PAGE, PROT_READ));
	EQ(SIGSEGV, mapped_touch(row + 4 * PAGE, true));
	EQ(SIGSEGV, mapped_touch(row + 8 * PAGE, true));
	EQ(SIGSEGV, mapped_touch(row + 19 * PAGE, true));
	EQ(0, mapped_touch(row + 3 * PAGE, true));
	EQ(0, mapped_touch(row + 20 * PAGE, true));
	is_page(row + 4 * PAGE, 12);
	EQ(0x77, row[8 * PAGE]);
	OK(mprotect(row, 24 * PAGE, RW));
	memset(row, 0x42, 24 * PAGE);
	OK(msync(row, 24 * PAGE, MS_SYNC));
	EQ(0x42, mapped_read("f", 8 * PAGE + 5));
	EQ(0x42, mapped_read("f", 15 * PAGE + 5));
	EQ(16, mapped_read("f", 16 * PAGE));
	EQ(39, mapped_read("g", 39 * PAGE));
	EQ(0x42, mapped_read("g", 47 * PAGE));
	OK(madvise(row, 24 * PAGE, MADV_DONTNEED));
	EQ(0x42, row[0]);
	EQ(0, row[8 * PAGE]);
	EQ(0x42, row[16 * PAGE]);
	OK(madvise(row, 24 * PAGE, MADV_POPULATE_WRITE));
	OK(mincore(row, 24 * PAGE, vec));
	for (unsigned i = 0; i < 24; i++)
		EQ(1, vec[i] & 1);
	OK(mlock(row + 6 * PAGE, 12 * PAGE));
	OK(munlock(row + 6 * PAGE, 12 * PAGE));
	/* A hole in it. */
	OK(munmap(row + 6 * PAGE, 4 * PAGE));
	ERR(ENOMEM, msync(row, 24 * PAGE, MS_SYNC));
	ERR(ENOMEM, madvise(row, 24 * PAGE, MADV_WILLNEED));
	ERR(ENOMEM, mprotect(row, 24 * PAGE, PROT_READ));
	ERR(ENOMEM, mincore(row, 24 * PAGE, vec));
	EQ(SIGSEGV, mapped_touch(row, true));
	EQ(SIGSEGV, mapped_touch(row + 6 * PAGE, false));
	EQ(0x42, row[0]);
	OK(munmap(row, 24 * PAGE));
	for (unsigned i = 0; i < 24; i++)
		EQ(SIGSEGV, mapped_touch(row + i * PAGE, false));
}

static void case_protect(void)
{
	int fd = mapped_file("f", O_RDWR), rd = file_open("f", O_RDONLY);
	unsigned char *map = mapped_make(NULL, BYTES, RW, MAP_SHARED, fd, 0);
	unsigned char *read_only = mapped_make(NULL, BYTES, PROT_READ, MAP_SHARED, rd, 0);

	map[PAGE] = 0x81;
	EQ(0x81, read_only[PAGE]);
	OK(mprotect(map + 2 * PAGE, 2 * PAGE, PROT_NONE));
	EQ(SIGSEGV, mapped_touch(map + 2 * PAGE, false));
	EQ(SIGSEGV, mapped_touch(map + 3 * PAGE, true));
	is_page(map + 4 * PAGE, 4);
	OK(mprotect(map + 2 * PAGE, 2 * PAGE, PROT_READ));
	is_page(map + 2 * PAGE, 2);
	EQ(SIGSEGV, mapped_touch(map + 2 * PAGE, true));
	OK(mprotect(map, BYTES, RW));
	EQ(0, mapped_touch(map + 2 * PAGE, true));
	EQ(0x11, mapped_read("f", 2 * PAGE));
	EQ(SIGSEGV, mapped_touch(read_only, true));
	ERR(EACCES, mprotect(read_only, BYTES, RW));
	OK(mprotect(read_only, BYTES, PROT_NONE));
	OK(mprotect(read_only, BYTES, PROT_READ));
	EQ(0x11, read_only[2 * PAGE]);
	mapped_is_direct(map, true);
}

/* Read-only private mappings follow the file, until they are written to. */
static void case_private(void)
{
	int fd = mapped_file("f", O_RDWR);
	unsigned char *map = mapped_make(NULL, BYTES, PROT_READ, MAP_PRIVATE, fd, 0);
	unsigned char *shared = mapped_make(NULL, BYTES, RW, MAP_SHARED, fd, 0);

	is_page(map + 5 * PAGE, 5);
	mapped_is_direct(map + 5 * PAGE, true);
	shared[6 * PAGE] = 0xb6;
	OK(mprotect(map, BYTES, RW));
	EQ(0xb6, map[6 * PAGE]);
	map[7 * PAGE] = 0xc7;
	EQ(0xc7, map[7 * PAGE]);
	EQ(7, shared[7 * PAGE]);
	EQ(7, mapped_read("f", 7 * PAGE));
	shared[8 * PAGE] = 0xd8;
	EQ(0xd8, mapped_read("f", 8 * PAGE));
	is_page(map + 9 * PAGE, 9);
	mapped_is_direct(map, false);
	mapped_is_direct(shared, false);
	OK(munmap(map, BYTES));
	OK(munmap(shared, BYTES));
}

/* What only the kernel can do, of a file that is mapped already: the same bytes through all of them. */
static void case_of_both_kinds(void)
{
	int fd = mapped_file("f", O_RDWR);
	unsigned char *map = mapped_make(NULL, BYTES, RW, MAP_SHARED, fd, 0), *exec, *written;

	memset(map + 3 * PAGE, 0x33, PAGE);
	written = mapped_make(NULL, BYTES, RW, MAP_PRIVATE, fd, 0);
	is_page(written + 3 * PAGE, 0x33);
	exec = mapped_make(NULL, BYTES, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	is_page(exec + 3 * PAGE, 0x33);
	for (unsigned i = 0; i < PAGES; i++)
		map[i * PAGE + 1] = (unsigned char)(0x80 + i);
	for (unsigned i = 0; i < PAGES; i++) {
		EQ(0x80 + i, exec[i * PAGE + 1]);
		EQ(0x80 + i, mapped_read("f", i * PAGE + 1));
	}
	EQ(1, pwrite(fd, "z", 1, 10 * PAGE));
	EQ('z', map[10 * PAGE]);
	EQ('z', exec[10 * PAGE]);
	OK(mprotect(map, BYTES, RW | PROT_EXEC));
	OK(munmap(map, BYTES));
	OK(munmap(exec, BYTES));
	OK(munmap(written, BYTES));
}

static void case_mremap(void)
{
	int f = mapped_file("f", O_RDWR), g = mapped_file("g", O_RDWR);
	unsigned char *map = mapped_make(NULL, 16 * PAGE, RW, MAP_SHARED, f, 8 * PAGE), *row, *to, *copy;

	map[2 * PAGE] = 0x92;
	ERR(EINVAL, (long)mremap(map, 16 * PAGE, 0, MREMAP_MAYMOVE));
	ERR(EINVAL, (long)mremap(map + 1, PAGE, PAGE, MREMAP_MAYMOVE));
	ERR(EINVAL, (long)mremap(map, PAGE, PAGE, 0x80));
	ERR(EINVAL, (long)mremap(map, PAGE, PAGE, MREMAP_FIXED, map + 40 * PAGE));
	ERR(EINVAL, (long)mremap(map, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, map + PAGE));
	ERR(EFAULT, (long)mremap(map, 17 * PAGE, 20 * PAGE, MREMAP_MAYMOVE));
	/* Smaller */
	TRUE(mremap(map, 16 * PAGE, 12 * PAGE, 0) == map);
	EQ(SIGSEGV, mapped_touch(map + 12 * PAGE, false));
	/* Larger, where it is: there is room now. */
	TRUE(mremap(map, 12 * PAGE, 14 * PAGE, 0) == map);
	is_page(map + 13 * PAGE, 21);
	EQ(SIGSEGV, mapped_touch(map + 14 * PAGE, false));
	/* Larger, where there is none. */
	mapped_make(map + 14 * PAGE, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	ERR(ENOMEM, (long)mremap(map, 14 * PAGE, 20 * PAGE, 0));
	to = mremap(map, 14 * PAGE, 20 * PAGE, MREMAP_MAYMOVE);
	MUST(to == MAP_FAILED ? -1 : 0);
	EQ(SIGSEGV, mapped_touch(map, false));
	EQ(0, map[14 * PAGE]);
	EQ(0x92, to[2 * PAGE]);
	is_page(to + 19 * PAGE, 27);
	mapped_is_direct(to + 19 * PAGE, true);
	/* From the middle, over something else. */
	row = row_make(f, g);
	TRUE(mremap(to + 4 * PAGE, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, row + 6 * PAGE) ==
	     row + 6 * PAGE);
	is_page(row + 5 * PAGE, 13);
	is_page(row + 6 * PAGE, 12);
	is_page(row + 9 * PAGE, 15);
	EQ(0x77, row[10 * PAGE]);
	EQ(SIGSEGV, mapped_touch(to + 4 * PAGE, false));
	is_page(to + 3 * PAGE, 11);
	is_page(to + 8 * PAGE, 16);
	/* Memory over a file. */
	copy = mapped_make(NULL, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	*copy = 0x55;
	TRUE(mremap(copy, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, row + 17 * PAGE) == row + 17 * PAGE);
	EQ(0x55, row[17 * PAGE]);
	is_page(row + 18 * PAGE, 42);
	/* A second one of the same. */
	copy = mremap(row + 18 * PAGE, 0, 3 * PAGE, MREMAP_MAYMOVE);
	MUST(copy == MAP_FAILED ? -1 : 0);
	copy[PAGE] = 0xbb;
	EQ(0xbb, row[19 * PAGE]);
	EQ(0xbb, mapped_read("g", 43 * PAGE));
	copy = mremap(copy, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	if (copy != MAP_FAILED)
		EQ(0xbb, copy[PAGE]);
	copy = mapped_make(NULL, BYTES, PROT_READ, MAP_PRIVATE, f, 0);
	is_page(copy, 0);
	ERR(EINVAL, (long)mremap(copy, 0, PAGE, MREMAP_MAYMOVE));
}

/* Neighbours that are one for the kernel, on all file systems but FUSE. */
static void case_mremap_joined(void)
{
	const char *direct = getenv("MAPPED_DIRECT");
	int fd = mapped_file("f", O_RDWR);
	unsigned char *map = mapped_make(NULL, 32 * PAGE, RW, MAP_SHARED, fd, 0), *two;

	if (check_fs_is("umbrafs") && (!direct || strcmp(direct, "1") != 0))
		check_skip("it is the kernel's mapping");

	is_page(map + 3 * PAGE, 3);
	map[9 * PAGE] = 0x99;
	OK(mprotect(map, PAGE, PROT_READ));
	ERR(EFAULT, (long)mremap(map, 32 * PAGE, 40 * PAGE, MREMAP_MAYMOVE));
	is_page(map, 0);
	OK(mprotect(map + 8 * PAGE, 2 * PAGE, PROT_NONE));
	OK(mprotect(map, 32 * PAGE, RW));
	map = mremap(map, 32 * PAGE, 40 * PAGE, MREMAP_MAYMOVE);
	MUST(map == MAP_FAILED ? -1 : 0);
	EQ(0x99, map[9 * PAGE]);
	is_page(map + 39 * PAGE, 39);
	map[39 * PAGE + 5] = 0x39;
	/* Two that were made one after the other; the bytes there do not go on, or do. */
	two = mapped_make(NULL, 32 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (unsigned i = 0; i < 4; i++)
		mapped_make(two + i * 8 * PAGE, 8 * PAGE, RW, MAP_SHARED | MAP_FIXED, fd,
			    (off_t)(i == 3 ? 40 : i * 8) * PAGE);
	two[7 * PAGE] = 0x77;
	is_page(two + 8 * PAGE, 8);
	ERR(EFAULT, (long)mremap(two + 16 * PAGE, 16 * PAGE, 32 * PAGE, MREMAP_MAYMOVE));
	two = mremap(two + PAGE, 22 * PAGE, 22 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, map + 10 * PAGE);
	TRUE(two == map + 10 * PAGE);
	EQ(0x77, two[6 * PAGE]);
	EQ(0x99, two[8 * PAGE]);
	is_page(two + 21 * PAGE, 22);
	is_page(map + 32 * PAGE, 32);
	EQ(0x39, mapped_read("f", 39 * PAGE + 5));
	mapped_is_direct(two, true);
	mapped_is_direct(map, true);
	two[15 * PAGE] = 0x16;
	OK(msync(two, 22 * PAGE, MS_SYNC));
	EQ(0x16, mapped_read("f", 16 * PAGE));
	EQ(0, munmap(map, 40 * PAGE));
}

static void case_madvise(void)
{
	static const int hints[] = { MADV_NORMAL,   MADV_RANDOM,   MADV_SEQUENTIAL, MADV_WILLNEED,
				     MADV_DONTDUMP, MADV_DODUMP,   MADV_DONTNEED,   MADV_COLD,
				     MADV_PAGEOUT,  MADV_DONTFORK, MADV_DOFORK,     MADV_POPULATE_READ };
	int fd = mapped_file("f", O_RDWR), rd = file_open("f", O_RDONLY);
	unsigned char *map = mapped_make(NULL, BYTES + 4 * PAGE, RW, MAP_SHARED, fd, 0);
	unsigned char *read_only = mapped_make(NULL, BYTES, PROT_READ, MAP_SHARED, rd, 0);
	struct stat before;

	map[0] = 0x99;
	for (size_t i = 0; i < sizeof(hints) / sizeof(hints[0]); i++) {
		check_context("hint %d", hints[i]);
		OK(madvise(map, BYTES, hints[i]));
		EQ(0x99, map[0]);
		is_page(map + 9 * PAGE, 9);
	}
	check_context("%s", "");
	before = fd_stat(fd);
	OK(madvise(map + 4 * PAGE, 16 * PAGE, MADV_REMOVE));
	is_page(map + 3 * PAGE, 3);
	is_page(map + 4 * PAGE, 0);
	is_page(map + 19 * PAGE, 0);
	is_page(map + 20 * PAGE, 20);
	TRUE(fd_stat(fd).st_blocks < before.st_blocks);
	EQ(before.st_size, fd_stat(fd).st_size);
	EQ(0, mapped_read("f", 4 * PAGE));
	ERR(EACCES, madvise(read_only, PAGE, MADV_REMOVE));
	OK(madvise(map + 4 * PAGE, 16 * PAGE, MADV_POPULATE_WRITE));
	OK(msync(map, BYTES, MS_SYNC));
	EQ(before.st_blocks, fd_stat(fd).st_blocks);
	ERR(EINVAL, madvise(read_only, PAGE, MADV_POPULATE_WRITE));
	ERR(EFAULT, madvise(map, BYTES + 4 * PAGE, MADV_POPULATE_READ));
	mapped_is_direct(map, true);
	OK(munmap(map, BYTES + 4 * PAGE));
	map = mapped_make(NULL, BYTES, RW, MAP_SHARED | MAP_POPULATE, fd, 0);
	is_page(map + 30 * PAGE, 30);
}

/* By number, as programs do that have their own functions for it. */
static void case_by_number(void)
{
	int fd = mapped_file("f", O_RDWR);
	unsigned char *map = (unsigned char *)syscall(SYS_mmap, NULL, BYTES, RW, MAP_SHARED, fd, 0L),
		      vec[PAGES];

	MUST(map == MAP_FAILED ? -1 : 0);
	is_page(map + PAGE, 1);
	mapped_is_direct(map + PAGE, true);
	map[0] = 0x61;
	OK(syscall(SYS_msync, map, BYTES, MS_SYNC));
	OK(syscall(SYS_mprotect, map, PAGE, PROT_READ));
	EQ(SIGSEGV, mapped_touch(map, true));
	OK(syscall(SYS_madvise, map, BYTES, MADV_WILLNEED));
	is_page(map + (PAGES - 1) * PAGE, PAGES - 1);
	OK(syscall(SYS_mincore, map, BYTES, vec));
	EQ(1, vec[PAGES - 1] & 1);
	map = (unsigned char *)syscall(SYS_mremap, map + PAGE, PAGE, 2 * PAGE, MREMAP_MAYMOVE, NULL);
	MUST(map == MAP_FAILED ? -1 : 0);
	is_page(map, 1);
	is_page(map + PAGE, 2);
	OK(syscall(SYS_munmap, map, 2 * PAGE));
	EQ(SIGSEGV, mapped_touch(map, false));
	EQ(0x61, mapped_read("f", 0));
}

/* Descriptors come and go; the mapping stays. */
static void case_descriptors(void)
{
	int fd = mapped_file("f", O_RDWR), copy, lowest;
	unsigned char *map = mapped_make(NULL, BYTES, RW, MAP_SHARED, fd, 0), *second;

	copy = (int)MUST(dup(fd));
	second = mapped_make(NULL, BYTES, RW, MAP_SHARED, copy, 4 * PAGE);
	second[0] = 0x71;
	EQ(0x71, map[4 * PAGE]);
	/* As programs do that want to have none but their own. */
	for (int i = 3; i < sysconf(_SC_OPEN_MAX) && i < 70000; i++)
		(void)close(i);
	(void)close_range(3, ~0u, 0);
	lowest = (int)MUST(open("/dev/null", O_RDONLY));
	EQ(3, lowest);
	for (unsigned i = 0; i < PAGES; i++)
		map[i * PAGE + 9] = (unsigned char)i;
	EQ(9, mapped_read("f", 9 * PAGE + 9));
	OK(munmap(map, BYTES));
	EQ(0x71, second[0]);
	OK(unlink("f"));
	second[PAGE] = 0x72;
	EQ(0x72, second[PAGE]);
}

/* Whether somebody else could have the lock. */
static void lock_is_free(void *arg)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10 };
	int fd = file_open("f", O_RDWR);

	OK(fcntl(fd, F_GETLK, &lock));
	EQ(*(bool *)arg ? F_UNLCK : F_WRLCK, lock.l_type);
}

/* The process loses its record locks when it closes a descriptor of the file, and not by the end of a mapping. */
static void case_record_locks(void)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10 };
	int fd = mapped_file("f", O_RDWR), other = (int)MUST(dup(fd));
	bool is_free = false;
	unsigned char *map;

	for (unsigned i = 0; i < 4; i++) {
		OK(fcntl(fd, F_SETLK, &lock));
		for (unsigned k = 0; k < 3; k++) {
			map = mapped_make(NULL, BYTES, RW, MAP_SHARED, fd, 0);
			is_page(map + PAGE, 1);
			mapped_is_direct(map + PAGE, true);
			OK(munmap(map, BYTES));
		}
		is_free = false;
		child_run(lock_is_free, &is_free);
		if (i & 1)
			OK(lockf(fd, F_ULOCK, 10));
		else
			OK(close((int)MUST(dup(other))));
		is_free = true;
		child_run(lock_is_free, &is_free);
	}
}

/* ---- times ---- */

static struct stat times_before;

/* The time of the last change: where it is now is where it has to stay, whenever that is looked at. */
static void times_begin(int fd)
{
	clock_tick();
	times_before = fd_stat(fd);
	clock_tick();
}

static void times_have_moved(int fd, bool moved)
{
	struct stat now = fd_stat(fd);

	EQ(!moved, mtime_same(&times_before, &now));
}

static void read_in_child(void *arg)
{
	unsigned char *map = arg;

	is_page(map + 9 * PAGE, 9);
	EQ(0x21, map[30 * PAGE + 5]);
	OK(msync(map, BYTES, MS_SYNC));
	OK(munmap(map, BYTES));
}

/* They move where something may have been stored since they did last, and not by reading. */
static void case_times(void)
{
	int fd = mapped_file("f", O_RDWR);
	unsigned char *map = mapped_make(NULL, BYTES, RW, MAP_SHARED, fd, 0);

	check_context("%s", "nothing but read");
	times_begin(fd);
	is_page(map + 7 * PAGE, 7);
	OK(msync(map, BYTES, MS_SYNC));
	times_have_moved(fd, false);
	check_context("%s", "stored");
	map[30 * PAGE + 5] = 0x21;
	OK(msync(map, BYTES, MS_SYNC));
	times_have_moved(fd, true);
	check_context("%s", "a child that reads");
	times_begin(fd);
	child_run(read_in_child, map);
	times_have_moved(fd, false);
	check_context("%s", "another part");
	OK(msync(map + 40 * PAGE, PAGE, MS_SYNC));
	check_context("%s", "for reading only");
	OK(mprotect(map, BYTES, PROT_READ));
	times_begin(fd);
	is_page(map + 8 * PAGE, 8);
	OK(msync(map, BYTES, MS_SYNC));
	times_have_moved(fd, false);
	OK(mprotect(map, BYTES, RW));
	is_page(map + 8 * PAGE, 8);
	EQ(0x21, map[30 * PAGE + 5]);
	OK(msync(map, BYTES, MS_SYNC));
	times_have_moved(fd, false);
	check_context("%s", "stored again");
	map[50 * PAGE + 6] = 0x22;
	OK(msync(map, BYTES, MS_SYNC));
	times_have_moved(fd, true);
	check_context("%s", "what it had is taken away");
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, BYTES));
	times_begin(fd);
	EQ(0, map[50 * PAGE + 6]);
	OK(munmap(map, BYTES));
	times_have_moved(fd, false);
	check_context("%s", "the end of one that was stored to");
	map = mapped_make(NULL, BYTES, RW, MAP_SHARED, fd, 0);
	map[0] = 1;
	OK(munmap(map, BYTES));
	times_have_moved(fd, true);
}

/* ---- threads ---- */

enum { THREADS = 6, ROUNDS = 300 };

struct worker {
	pthread_t thread;
	unsigned index;
	int fd;
	unsigned wrong;
};

/* Each has bytes of its own in all pages. */
static void *map_and_store(void *arg)
{
	struct worker *w = arg;
	uint64_t number = w->index * 7919 + 1;

	for (unsigned round = 1; round <= ROUNDS; round++) {
		unsigned first, count;
		unsigned char *map, *anon;

		number = number * 6364136223846793005ull + 1442695040888963407ull;
		first = (unsigned)(number >> 40) % PAGES;
		count = 1 + (unsigned)(number >> 20) % (PAGES - first);
		map = mmap(NULL, count * PAGE, RW, MAP_SHARED, w->fd, first * PAGE);
		anon = mmap(NULL, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (map == MAP_FAILED || anon == MAP_FAILED || anon[0]) {
			w->wrong++;
			break;
		}
		for (unsigned i = 0; i < count; i++)
			map[i * PAGE + 64 + w->index] = (unsigned char)round;
		anon[0] = 1;
		if (round % 3 == 0)
			mprotect(map, count * PAGE / 2, PROT_READ);
		for (unsigned i = 0; i < count; i++)
			w->wrong += map[i * PAGE + 64 + w->index] != (unsigned char)round;
		w->wrong += munmap(map, count * PAGE) != 0;
		w->wrong += munmap(anon, PAGE) != 0;
	}
	return NULL;
}

static void case_threads(void)
{
	struct worker workers[THREADS];
	int fd = mapped_file("f", O_RDWR);

	for (unsigned i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){ .index = i, .fd = fd };
		EQ(0, pthread_create(&workers[i].thread, NULL, map_and_store, &workers[i]));
	}
	for (unsigned i = 0; i < THREADS; i++) {
		EQ(0, pthread_join(workers[i].thread, NULL));
		EQ(0, workers[i].wrong);
	}
}

static const struct check_case cases[] = {
	{ "errors", case_errors },
	{ "hints", case_hints },
	{ "mapped_over", case_mapped_over },
	{ "attached_over", case_attached_over },
	{ "mixed_ranges", case_mixed_ranges },
	{ "protect", case_protect },
	{ "private", case_private },
	{ "both_kinds", case_of_both_kinds },
	{ "mremap", case_mremap },
	{ "mremap_joined", case_mremap_joined },
	{ "madvise", case_madvise },
	{ "by_number", case_by_number },
	{ "descriptors", case_descriptors },
	{ "record_locks", case_record_locks },
	{ "times", case_times },
	{ "threads", case_threads },
};

CHECK_MAIN(cases)
