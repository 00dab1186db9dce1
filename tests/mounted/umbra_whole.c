/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mappings of libumbra by large pages: of a mount on a device that has no others, or with direct_unit=2M. umbra_whole.sh and tests/vm/guest-direct run it.
 *
 * UMBRA_HUGE says how one sees that pages are large: "shmem" (what smaps says of it), "faults" (one for 2 MiB); without it nobody looks.
 */
#define _GNU_SOURCE
#include "check.h"
#include "files.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <umbra/ioctl.h>
#include <umbra/umbra.h>

#define BLOCK 4096u
#define UNIT ((size_t)2 << 20)
#define ODD 12345u
#define BYTES (3 * UNIT + UNIT / 2 + ODD)

static unsigned char bytes[4 * UNIT], seen[4 * UNIT];

/* Of that size, open for both. */
static int file_new(const char *name, size_t size)
{
	int fd = (int)MUST(open(name, O_RDWR | O_CREAT | O_TRUNC, 0644));

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)(i * 31 + i / 251 + i / 65536 + 1);
	for (size_t at = 0; at < size;)
		at += (size_t)MUST(pwrite(fd, bytes + at, size - at, (off_t)at));
	return fd;
}

static unsigned char *map_at(int fd, size_t len, int prot, size_t off)
{
	struct umbra_file *file;
	void *at;

	MUST(umbra_attach(fd, &file) == 0 ? 0 : -1);
	at = umbra_mmap(NULL, len, prot, MAP_SHARED, file, (off_t)off);
	EQ(0, umbra_mmap_error(at));
	MUST(umbra_mmap_error(at) ? -1 : 0);
	umbra_detach(file);
	return at;
}

static unsigned char *map_all(int fd, size_t len)
{
	return map_at(fd, len, PROT_READ | PROT_WRITE, 0);
}

static void content_is(const char *name, size_t size)
{
	int fd = (int)MUST(open(name, O_RDONLY));

	EQ(size, pread(fd, seen, sizeof(seen), 0));
	MEMEQ(bytes, seen, size);
	close(fd);
}

/* How many 2 MiB of the file are chunks of the device. */
static unsigned chunks_of(int fd)
{
	static struct umbra_extents map;
	unsigned long long lo = 0, end = 0, shift = 1;
	unsigned count = 0;

	map = (struct umbra_extents){ 0 };
	MUST(ioctl(fd, UMBRA_IOC_EXTENTS, &map));
	for (unsigned i = 0; i < map.count; i++) {
		const struct umbra_extent *e = &map.extents[i];

		if (e->file_off != end || e->dev_off - e->file_off != shift ||
		    e->dev_off % UNIT != e->file_off % UNIT)
			lo = (e->file_off + UNIT - 1) / UNIT * UNIT;
		shift = e->dev_off - e->file_off;
		end = e->file_off + e->len;
		for (; lo + UNIT <= end && shift % UNIT == 0; lo += UNIT)
			count++;
	}
	return count;
}

/* ---- large indeed ---- */

static unsigned long long kernel_calls(void)
{
	struct umbra_counts counts;

	umbra_get_counts(&counts);
	return counts.kernel_reads + counts.kernel_writes;
}

static const char *huge_how(void)
{
	const char *how = getenv("UMBRA_HUGE");

	return how ? how : "";
}

/* What large pages map of [at, at + len), as smaps says. */
static size_t huge_bytes(const void *at, size_t len)
{
	size_t lo = (size_t)at, sum = 0, kib;
	unsigned long from, to;
	bool ours = false;
	char line[512];
	FILE *smaps = fopen("/proc/self/smaps", "re");

	MUST(smaps ? 0 : -1);
	while (fgets(line, sizeof(line), smaps)) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			ours = from < lo + len && lo < to;
		else if (ours && (sscanf(line, "ShmemPmdMapped: %zu kB", &kib) == 1 ||
				  sscanf(line, "FilePmdMapped: %zu kB", &kib) == 1))
			sum += kib << 10;
	}
	fclose(smaps);
	return sum;
}

static long faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt;
}

static void case_huge(void)
{
	int fd = file_new("f", BYTES);
	unsigned char *at = map_all(fd, BYTES);
	unsigned sum = 0;
	long before;

	if (!huge_how()[0])
		check_skip("there is no way to see it here");
	for (size_t i = 0; i < BYTES; i += UNIT)
		at[i] = bytes[i];
	before = faults();
	for (size_t i = 0; i < BYTES; i += BLOCK)
		sum += at[i];
	TRUE(sum > 0);
	/* The first touch of each was one by libumbra, which has put it in place; the second is the page's. Others of ours are few. */
	TRUE(faults() - before < 40);
	/* The last of them only where all that is mapped is so. */
	if (strcmp(huge_how(), "shmem") == 0)
		TRUE(huge_bytes(at, BYTES) >= 3 * UNIT);
	EQ(0, (size_t)at % UNIT);
	EQ(0, kernel_calls());
	EQ(0, umbra_munmap(at, BYTES));
	close(fd);
}

/* ---- where files and mappings end ---- */

static void case_both_ways(void)
{
	int fd = file_new("f", BYTES);
	unsigned char *at = map_all(fd, BYTES);

	MEMEQ(bytes, at, BYTES);
	for (size_t i = 0; i < BYTES; i += 1000)
		at[i] = bytes[i] = (unsigned char)~bytes[i];
	EQ(0, umbra_msync(at, BYTES, MS_SYNC));
	content_is("f", BYTES);
	/* All of the file can be mapped by now, what lies behind its end is set aside for it. */
	EQ(4, chunks_of(fd));
	EQ(BYTES, fd_stat(fd).st_size);
	EQ(0, umbra_munmap(at, BYTES));
	close(fd);
	content_is("f", BYTES);
}

static void case_parts(void)
{
	int fd = file_new("f", BYTES);
	unsigned char *at = map_at(fd, UNIT + 3 * BLOCK, PROT_READ | PROT_WRITE, UNIT - 2 * BLOCK), *fixed;
	struct umbra_file *file;

	MEMEQ(bytes + UNIT - 2 * BLOCK, at, UNIT + 3 * BLOCK);
	at[0] = bytes[UNIT - 2 * BLOCK] = 7;
	at[UNIT] = bytes[2 * UNIT - 2 * BLOCK] = 8;
	content_is("f", BYTES);
	/* Not at an address within a large page, and the mapping is as it was. */
	MUST(umbra_attach(fd, &file) == 0 ? 0 : -1);
	fixed = umbra_mmap(at, UNIT, PROT_READ, MAP_SHARED | MAP_FIXED, file, 0);
	EQ(-EOPNOTSUPP, umbra_mmap_error(fixed));
	fixed = umbra_mmap(at + UNIT, UNIT, PROT_READ, MAP_SHARED, file, 0);
	EQ(-EOPNOTSUPP, umbra_mmap_error(fixed));
	fixed = umbra_mmap(at + 2 * BLOCK, UNIT, PROT_READ, MAP_SHARED | MAP_FIXED, file, BLOCK);
	EQ(-EOPNOTSUPP, umbra_mmap_error(fixed));
	EQ(7, at[0]);
	/* At its own ends, and between pages, it can be cut. */
	EQ(0, umbra_munmap(at, 2 * BLOCK));
	EQ(8, at[UNIT]);
	fixed = umbra_mmap(at + 2 * BLOCK, UNIT, PROT_READ, MAP_SHARED | MAP_FIXED, file, 0);
	EQ(0, umbra_mmap_error(fixed));
	MEMEQ(bytes, fixed, UNIT);
	EQ(0, umbra_mprotect(at + UNIT + 2 * BLOCK, BLOCK, PROT_READ));
	EQ(bytes[2 * UNIT], at[UNIT + 2 * BLOCK]);
	umbra_detach(file);
	EQ(0, umbra_munmap(at + 2 * BLOCK, UNIT + BLOCK));
	/* Nothing is left of it, nor around it. */
	at = (unsigned char *)((size_t)at / UNIT * UNIT);
	fixed = mmap(at, 3 * UNIT, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	TRUE(fixed == at);
	munmap(fixed, 3 * UNIT);
	close(fd);
}

/* Within a large page: the mapping is for the kernel, when it is touched next. */
static void case_cut(void)
{
	int fd = file_new("f", BYTES);
	unsigned char *at = map_all(fd, BYTES), *fixed;

	at[5] = bytes[5] = 7;
	EQ(0, umbra_munmap(at + BLOCK, BLOCK));
	fixed = mmap(at + BLOCK, BLOCK, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	TRUE(fixed == at + BLOCK);
	EQ(0, fixed[5]);
	MEMEQ(bytes, at, BLOCK);
	MEMEQ(bytes + 2 * BLOCK, at + 2 * BLOCK, BYTES - 2 * BLOCK);
	at[3 * BLOCK] = bytes[3 * BLOCK] = 9;
	EQ(0, umbra_mprotect(at + 3 * BLOCK, BLOCK, PROT_READ));
	EQ(0, umbra_msync(at, BLOCK, MS_SYNC));
	EQ(0, umbra_munmap(at, BLOCK));
	EQ(0, umbra_munmap(at + 2 * BLOCK, BYTES - 2 * BLOCK));
	munmap(fixed, BLOCK);
	close(fd);
	content_is("f", BYTES);
	/* Nothing is left, nor around it. */
	fixed = mmap(at, 4 * UNIT, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	TRUE(fixed == at);
	munmap(fixed, 4 * UNIT);
	/* And it can be had as any other one. */
	fd = (int)MUST(open("f", O_RDWR));
	at = map_all(fd, BYTES);
	MEMEQ(bytes, at, BYTES);
	at[9] = bytes[9] = 1;
	content_is("f", BYTES);
	EQ(0, umbra_munmap(at, BYTES));
	close(fd);
}

static sigjmp_buf after_bus;

static void on_bus(int sig)
{
	(void)sig;
	siglongjmp(after_bus, 1);
}

static bool gives_bus(volatile unsigned char *at)
{
	struct sigaction action = { .sa_handler = on_bus }, before;
	volatile bool got = true;

	MUST(sigaction(SIGBUS, &action, &before));
	if (sigsetjmp(after_bus, 1) == 0) {
		(void)*at;
		got = false;
	}
	MUST(sigaction(SIGBUS, &before, NULL));
	return got;
}

/* What is stored past the end of the file is never seen in it. */
static void case_grown(void)
{
	static const unsigned char zeroes[UNIT];
	size_t size = UNIT + ODD, later = UNIT + UNIT / 2;
	int fd = file_new("f", size);
	unsigned char *at = map_all(fd, 3 * UNIT);

	at[UNIT] = bytes[UNIT] = 1;
	memset(at + later, 0xee, UNIT / 4);
	OK(ftruncate(fd, (off_t)(later + BLOCK)));
	MEMEQ(zeroes, at + later, BLOCK);
	memset(at + later + 2 * BLOCK, 0xee, BLOCK);
	EQ(1, pwrite(fd, "x", 1, (off_t)(2 * UNIT)));
	EQ('x', at[2 * UNIT]);
	memset(bytes + size, 0, 2 * UNIT - size);
	bytes[2 * UNIT] = 'x';
	MEMEQ(bytes, at, 2 * UNIT + 1);
	content_is("f", 2 * UNIT + 1);
	OK(ftruncate(fd, UNIT - 5));
	TRUE(gives_bus(at + UNIT));
	OK(ftruncate(fd, UNIT + 5));
	memset(bytes + UNIT - 5, 0, 10);
	MEMEQ(bytes, at, UNIT + 5);
	content_is("f", UNIT + 5);
	EQ(0, umbra_munmap(at, 3 * UNIT));
	close(fd);
}

/* ---- what is shared, what is not there ---- */

static void clone_make(int from, const char *name, size_t size)
{
	int to = (int)MUST(open(name, O_RDWR | O_CREAT, 0644));
	off_t a = 0, b = 0;

	EQ(size, copy_file_range(from, &a, to, &b, size, 0));
	close(to);
}

static void case_clone(void)
{
	int fd = file_new("f", BYTES), other;
	unsigned char *at, *of_clone;

	clone_make(fd, "c", BYTES);
	other = (int)MUST(open("c", O_RDWR));
	at = map_all(fd, BYTES);
	of_clone = map_all(other, BYTES);
	MEMEQ(bytes, of_clone, BYTES);
	MEMEQ(bytes, at, BYTES);
	/* One unit is this one's own now. */
	of_clone[UNIT + 5] = 0;
	of_clone[BYTES - 1] = 0;
	MEMEQ(bytes, at, BYTES);
	EQ(0, of_clone[UNIT + 5]);
	EQ(bytes[UNIT + 4], of_clone[UNIT + 4]);
	EQ(4, chunks_of(other));
	EQ(0, umbra_munmap(at, BYTES));
	content_is("f", BYTES);
	bytes[UNIT + 5] = bytes[BYTES - 1] = 0;
	MEMEQ(bytes, of_clone, BYTES);
	content_is("c", BYTES);
	EQ(0, umbra_munmap(of_clone, BYTES));
	close(other);
	close(fd);
}

/* Nothing is filled for who only reads; who may store gets it whole. */
static void case_sparse(void)
{
	int fd = (int)MUST(open("f", O_RDWR | O_CREAT, 0644));
	unsigned char *at, *stored;

	memset(bytes, 0, 3 * UNIT);
	OK(ftruncate(fd, 3 * UNIT));
	bytes[5 * BLOCK] = 1;
	EQ(1, pwrite(fd, "\1", 1, 5 * BLOCK));
	at = map_at(fd, 3 * UNIT, PROT_READ, 0);
	MEMEQ(bytes, at, 3 * UNIT);
	EQ(8, fd_stat(fd).st_blocks);
	EQ(0, umbra_munmap(at, 3 * UNIT));
	stored = map_all(fd, 3 * UNIT);
	EQ(0, stored[UNIT]);
	stored[2 * UNIT + 1] = bytes[2 * UNIT + 1] = 9;
	MEMEQ(bytes, stored, 3 * UNIT);
	content_is("f", 3 * UNIT);
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2 * UNIT, BLOCK));
	bytes[2 * UNIT + 1] = 0;
	MEMEQ(bytes, stored, 3 * UNIT);
	EQ(0, umbra_munmap(stored, 3 * UNIT));
	close(fd);
}

/* Data calls of all kinds, and blocks that move. again: another descriptor of the file. */
static void calls(int fd, unsigned char *at, int again)
{
	struct umbra_file *file;
	uint64_t number = check_seed();

	MUST(umbra_attach(fd, &file) == 0 ? 0 : -1);
	for (unsigned i = 0; i < 200 && check_failed_count() == 0; i++) {
		size_t off, len;

		number = number * 6364136223846793005ull + 1442695040888963407ull;
		off = (size_t)(number >> 20) % (BYTES - 20000);
		len = (size_t)(number >> 50) % 16000 + 1;
		memset(bytes + off, (int)i, len);
		switch (i % 4) {
		case 0:
			EQ(len, umbra_pwrite(file, bytes + off, len, (off_t)off));
			break;
		case 1:
			EQ(len, pwrite(again, bytes + off, len, (off_t)off));
			break;
		case 2:
			memcpy(at + off, bytes + off, len);
			break;
		default:
			memset(bytes + off, 0, len);
			OK(fallocate(again, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off,
				     (off_t)len));
			break;
		}
		MEMEQ(bytes, at, BYTES);
		EQ(len, umbra_pread(file, seen, len, (off_t)off));
		MEMEQ(bytes + off, seen, len);
	}
	umbra_detach(file);
	EQ(0, umbra_munmap(at, BYTES));
	close(again);
	close(fd);
	content_is("f", BYTES);
}

static void case_calls(void)
{
	int fd = file_new("f", BYTES);
	unsigned char *at = map_all(fd, BYTES);

	/* From then on nobody who opens it has pages of it. */
	at[0] = bytes[0];
	calls(fd, at, (int)MUST(open("f", O_RDWR)));
	EQ(0, kernel_calls());
}

/* Somebody has it open through the page cache: the mapping is the kernel's, and all of the calls are. */
static void case_kernel(void)
{
	int fd = file_new("f", BYTES), other = (int)MUST(open("f", O_RDONLY));
	unsigned char *at = map_all(fd, BYTES);

	calls(fd, at, (int)MUST(open("f", O_RDWR)));
	TRUE(kernel_calls() > 100);
	close(other);
	/* Without it is not. */
	fd = (int)MUST(open("f", O_RDWR));
	at = map_all(fd, BYTES);
	MEMEQ(bytes, at, BYTES);
	at[7] = bytes[7] = 1;
	content_is("f", BYTES);
	EQ(0, umbra_munmap(at, BYTES));
	close(fd);
}

static const struct check_case cases[] = {
	{ "both_ways", case_both_ways }, { "calls", case_calls },
	{ "clone", case_clone },         { "cut", case_cut },
	{ "grown", case_grown },         { "huge", case_huge },
	{ "kernel", case_kernel },       { "parts", case_parts },
	{ "sparse", case_sparse },
};

CHECK_MAIN(cases)
