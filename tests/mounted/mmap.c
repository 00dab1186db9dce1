/* SPDX-License-Identifier: BSD-3-Clause */
/* Mappings through the kernel: coherence with read and write, private ones, SIGBUS past the end. */
#define _GNU_SOURCE
#include "files.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

enum { PAGE = 4096 };

static unsigned char *map_make(int fd, size_t size, int prot, int flags, off_t at)
{
	unsigned char *map = mmap(NULL, size, prot, flags, fd, at);

	MUST(map == MAP_FAILED ? -1 : 0);
	return map;
}

static void case_shared_coherence(void)
{
	unsigned char got[PAGE];
	unsigned char *map;
	int fd;

	file_fill("f", 8 * PAGE, 1);
	fd = file_open("f", O_RDWR);
	map = map_make(fd, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	for (int i = 0; i < 200; i++) {
		size_t at = (size_t)(i * 797) % (8 * PAGE - 16);

		/* Written through one, read through the other, at once. */
		memset(got, i, 16);
		if (i & 1) {
			EQ(16, pwrite(fd, got, 16, (off_t)at));
			MEMEQ(got, map + at, 16);
		} else {
			memset(map + at, i, 16);
			memset(got, 0xee, 16);
			EQ(16, pread(fd, got, 16, (off_t)at));
			MEMEQ(map + at, got, 16);
		}
	}
	OK(msync(map, 8 * PAGE, MS_SYNC));
	/* A second mapping, of another descriptor, sees the same. */
	int fd2 = file_open("f", O_RDONLY);
	unsigned char *map2 = map_make(fd2, 8 * PAGE, PROT_READ, MAP_SHARED, 0);
	MEMEQ(map, map2, 8 * PAGE);
	map[12345] ^= 0xff;
	EQ(map[12345], map2[12345]);
}

static void case_survives_close(void)
{
	unsigned char *map;
	unsigned char got[PAGE];
	int fd;

	file_fill("f", PAGE, 1);
	fd = file_open("f", O_RDWR);
	map = map_make(fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	OK(close(fd));
	memset(map, 0x5a, PAGE);
	OK(munmap(map, PAGE));
	fd = file_open("f", O_RDONLY);
	EQ(PAGE, read(fd, got, PAGE));
	for (int i = 0; i < PAGE; i++) {
		if (!EQ(0x5a, got[i]))
			break;
	}
}

static void case_private(void)
{
	unsigned char got[PAGE];
	unsigned char *map;
	int fd;

	file_fill("f", 2 * PAGE, 1);
	fd = file_open("f", O_RDONLY);
	map = map_make(fd, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
	memset(map, 0xaa, PAGE);
	EQ(PAGE, pread(fd, got, PAGE, 0));
	TRUE(got[0] != 0xaa);
	int wr = file_open("f", O_WRONLY);
	EQ(1, pwrite(wr, "W", 1, 0));
	EQ(0xaa, map[0]);
	/* The page that was not written follows the file on Linux. */
	EQ(1, pwrite(wr, "V", 1, PAGE));
	EQ('V', map[PAGE]);
}

static void case_permission(void)
{
	int rd;
	int wr;

	file_fill("f", PAGE, 1);
	rd = file_open("f", O_RDONLY);
	wr = file_open("f", O_WRONLY);
	ERR(EACCES, (long)mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, rd, 0));
	ERR(EACCES, (long)mmap(NULL, PAGE, PROT_READ, MAP_SHARED, wr, 0));
	ERR(EACCES, (long)mmap(NULL, PAGE, PROT_WRITE, MAP_PRIVATE, wr, 0));
	unsigned char *map = map_make(rd, PAGE, PROT_READ, MAP_SHARED, 0);
	ERR(EACCES, mprotect(map, PAGE, PROT_READ | PROT_WRITE));
	ERR(EINVAL, (long)mmap(NULL, PAGE, PROT_READ, MAP_SHARED, rd, 100));
	ERR(ENODEV, (long)mmap(NULL, PAGE, PROT_READ, MAP_SHARED, file_open(".", O_RDONLY | O_DIRECTORY), 0));
}

static sigjmp_buf bus_jump;
static volatile sig_atomic_t bus_count;

static void bus_handler(int sig)
{
	(void)sig;
	bus_count++;
	siglongjmp(bus_jump, 1);
}

/* True when the access raised SIGBUS. */
static bool bus_try(volatile unsigned char *p, bool store)
{
	if (sigsetjmp(bus_jump, 1))
		return true;
	if (store)
		*p = 1;
	else
		(void)*p;
	return false;
}

static void case_past_eof(void)
{
	struct sigaction sa = { .sa_handler = bus_handler };
	unsigned char *map;
	int fd;

	MUST(sigaction(SIGBUS, &sa, NULL));
	file_fill("f", PAGE + 100, 1);
	fd = file_open("f", O_RDWR);
	map = map_make(fd, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	TRUE(!bus_try(map + PAGE + 99, false));
	/* The rest of the last page is zero. */
	for (int i = 100; i < PAGE; i++) {
		if (!EQ(0, map[PAGE + i]))
			break;
	}
	TRUE(bus_try(map + 2 * PAGE, false));
	TRUE(bus_try(map + 3 * PAGE, true));
	EQ(PAGE + 100, fd_stat(fd).st_size);
	/* Growing makes it accessible. */
	OK(ftruncate(fd, 3 * PAGE));
	TRUE(!bus_try(map + 2 * PAGE, false));
	EQ(0, map[2 * PAGE]);
	/* Shrinking takes it away again. */
	OK(ftruncate(fd, 10));
	TRUE(!bus_try(map + 5, false));
	TRUE(bus_try(map + PAGE, false));
	TRUE(bus_try(map + 2 * PAGE, true));
	OK(ftruncate(fd, 2 * PAGE));
	TRUE(!bus_try(map + PAGE, false));
	EQ(0, map[PAGE]);
	EQ(0, map[11]);
}

/* A store past the end but inside the last page is lost: it does not show when the file grows. */
static void case_stray_store_past_eof(void)
{
	unsigned char *map;
	unsigned char c = 9;
	int fd;

	file_fill("f", PAGE + 100, 1);
	fd = file_open("f", O_RDWR);
	map = map_make(fd, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	map[PAGE + 200] = 1;
	OK(msync(map, 2 * PAGE, MS_SYNC));
	OK(ftruncate(fd, 3 * PAGE));
	EQ(1, pread(fd, &c, 1, PAGE + 200));
	EQ(0, c);
	map[2 * PAGE - 1] = 7;
	EQ(1, pread(fd, &c, 1, 2 * PAGE - 1));
	EQ(7, c);
}

static void case_truncate_and_grow(void)
{
	unsigned char *map;
	int fd;

	/* Bytes cut off must be zero when the file grows, whoever looks. */
	file_fill("f", 8 * PAGE, 1);
	fd = file_open("f", O_RDWR);
	map = map_make(fd, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	for (size_t cut = 8 * PAGE - 1; cut > PAGE; cut -= 1777) {
		check_context("cut at %zu", cut);
		memset(map, 0xdd, 8 * PAGE);
		OK(ftruncate(fd, (off_t)cut));
		OK(ftruncate(fd, 8 * PAGE));
		EQ(0xdd, map[cut - 1]);
		for (size_t i = cut; i < 8 * PAGE; i++) {
			if (!EQ(0, map[i]))
				return;
		}
	}
}

static void case_holes_and_punch(void)
{
	unsigned char *map;
	unsigned char c;
	int fd = file_open("f", O_RDWR | O_CREAT);

	OK(ftruncate(fd, 64 * PAGE));
	map = map_make(fd, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	for (int i = 0; i < 64; i++)
		EQ(0, map[i * PAGE + 5]);
	for (int i = 0; i < 64; i += 3)
		map[i * PAGE + 5] = (unsigned char)i;
	OK(msync(map, 64 * PAGE, MS_SYNC));
	for (int i = 0; i < 64; i++) {
		EQ(1, pread(fd, &c, 1, i * PAGE + 5));
		EQ(i % 3 ? 0 : i, c);
	}
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10 * PAGE, 30 * PAGE));
	for (int i = 0; i < 64; i++)
		EQ(i % 3 || (i >= 10 && i < 40) ? 0 : i, map[i * PAGE + 5]);
	/* And dirty pages under a punch are gone. */
	memset(map, 0x77, 64 * PAGE);
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100, 20 * PAGE));
	EQ(0x77, map[99]);
	EQ(0, map[100]);
	EQ(0, map[20 * PAGE + 99]);
	EQ(0x77, map[20 * PAGE + 100]);
	OK(fsync(fd));
	EQ(1, pread(fd, &c, 1, 20 * PAGE + 99));
	EQ(0, c);
	EQ(1, pread(fd, &c, 1, 20 * PAGE + 100));
	EQ(0x77, c);
}

static void other_process_body(void *arg)
{
	unsigned char *map =
		map_make(file_open("f", O_RDWR), 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	for (int i = 0; i < 16; i++)
		EQ(*(unsigned char *)arg, map[i * PAGE]);
	memset(map, *(unsigned char *)arg + 1, 16 * PAGE);
}

static void case_between_processes(void)
{
	unsigned char value = 10;
	unsigned char *map;

	file_fill("f", 16 * PAGE, 1);
	map = map_make(file_open("f", O_RDWR), 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	for (; value < 60; value += 2) {
		memset(map, value, 16 * PAGE);
		child_run(other_process_body, &value);
		EQ(value + 1, map[3 * PAGE + 7]);
	}
}

/* Each the buffer of a read or write into the other. */
static void case_io_from_mapping(void)
{
	unsigned char *map;
	int fd;
	int other;

	file_fill("f", 16 * PAGE, 1);
	file_fill("g", 16 * PAGE, 99);
	fd = file_open("f", O_RDWR);
	other = file_open("g", O_RDWR);
	map = map_make(fd, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	EQ(5 * PAGE, pread(other, map + 100, 5 * PAGE, 50));
	EQ(5 * PAGE, pwrite(other, map + 2 * PAGE, 5 * PAGE, 3));
	/* Of the file into itself, other pages and the same page. */
	EQ(PAGE, pwrite(fd, map, PAGE, 8 * PAGE));
	MEMEQ(map, map + 8 * PAGE, PAGE);
	EQ(PAGE, pread(fd, map + 10 * PAGE, PAGE, 0));
	MEMEQ(map, map + 10 * PAGE, PAGE);
	EQ(PAGE, pwrite(fd, map, PAGE, 0));
}

static void case_mremap_fork_madvise(void)
{
	unsigned char *map;
	int fd;

	file_fill("f", 8 * PAGE, 1);
	fd = file_open("f", O_RDWR);
	map = map_make(fd, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
	map[0] = 'm';
	map = mremap(map, 2 * PAGE, 8 * PAGE, MREMAP_MAYMOVE);
	TRUE(map != MAP_FAILED && map[0] == 'm');
	map[7 * PAGE] = 'e';
	OK(madvise(map, 8 * PAGE, MADV_DONTNEED));
	EQ('e', map[7 * PAGE]);
	OK(msync(map, 8 * PAGE, MS_SYNC | MS_INVALIDATE));
	OK(munmap(map + 2 * PAGE, 2 * PAGE));
	EQ('e', map[7 * PAGE]);
	ERR(ENOMEM, msync(map, 8 * PAGE, MS_SYNC));
}

enum { MIXED_ROUNDS = 6000 };

/* Stores the even bytes through a mapping until it is ended. */
static void store_even(void *arg)
{
	int fd = file_open("f", O_RDWR);
	unsigned char *map = map_make(fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	for (volatile bool *stop = arg; !*stop;) {
		for (size_t i = 0; i < PAGE; i += 2)
			map[i]++;
		MUST(msync(map, PAGE, MS_SYNC));
	}
}

/* Stores the first byte of each page, all in turn. */
static void store_first_of_pages(void *arg)
{
	int fd = file_open("f", O_RDWR);
	size_t size = (size_t)fd_stat(fd).st_size;
	unsigned char *map = map_make(fd, size, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

	for (volatile bool *stop = arg; !*stop;) {
		for (size_t i = 0; i < size; i += PAGE)
			map[i]++;
		MUST(msync(map, size, MS_SYNC));
	}
}

/* As store_even, with the file opened anew each time. */
static void open_and_store_even(void *arg)
{
	for (volatile bool *stop = arg; !*stop;) {
		int fd = file_open("f", O_RDWR);
		unsigned char *map = map_make(fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);

		for (size_t i = 0; i < PAGE; i += 2)
			map[i]++;
		MUST(munmap(map, PAGE));
		close(fd);
	}
}

/* Has the kernel fetch the page again and again. */
static void read_all_the_time(void *arg)
{
	int fd = file_open("f", O_RDONLY);
	unsigned char got[PAGE];

	for (volatile bool *stop = arg; !*stop;) {
		EQ(PAGE, pread(fd, got, PAGE, 0));
		MUST(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
	}
}

static unsigned odd_bytes_lost(int fd, const unsigned char *want)
{
	unsigned char got[PAGE];
	unsigned lost = 0;

	EQ(PAGE, pread(fd, got, PAGE, 0));
	for (size_t at = 1; at < PAGE; at += 2)
		lost += got[at] != want[at];
	return lost;
}

/* The odd bytes are written, each byte by this process only, while the others are at work: none of them is lost. */
static void odd_bytes_stay(int mode, void (*other)(void *), void (*third)(void *))
{
	unsigned char mine[PAGE] = { 0 };
	bool *stop = (bool *)mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned lost = 0;
	pid_t pids[2] = { 0 };
	int fd, seen;

	file_make("f", mine, PAGE);
	fd = file_open("f", mode);
	seen = file_open("f", O_RDONLY);
	*stop = false;
	pids[0] = child_start(other, stop);
	if (third)
		pids[1] = child_start(third, stop);
	for (unsigned i = 1; i <= MIXED_ROUNDS; i++) {
		size_t at = i * 797 % (PAGE / 2) * 2 + 1;

		mine[at] = (unsigned char)i;
		MUST((int)pwrite(fd, &mine[at], 1, (off_t)at) - 1);
		if (i % 4 == 0)
			lost += odd_bytes_lost(seen, mine);
	}
	*stop = true;
	for (size_t i = 0; i < 2 && pids[i] > 0; i++)
		child_wait(pids[i]);
	close(fd);
	MUST(fsync(seen));
	lost += odd_bytes_lost(seen, mine);
	check_context("open with flags 0%o", (unsigned)mode);
	EQ(0, lost);
	close(seen);
	MUST(unlink("f"));
	MUST(munmap(stop, PAGE));
}

static void case_store_beside_write(void)
{
	odd_bytes_stay(O_WRONLY, store_even, NULL);
	odd_bytes_stay(O_RDWR, store_even, NULL);
	odd_bytes_stay(O_WRONLY, store_even, read_all_the_time);
}

static void case_open_beside_write(void)
{
	odd_bytes_stay(O_WRONLY, open_and_store_even, NULL);
	odd_bytes_stay(O_WRONLY, open_and_store_even, read_all_the_time);
}

/* Long writes, of which each page is stored to as well. */
static void case_store_beside_long_write(void)
{
	enum { PAGES = 64, ROUNDS = 200 };
	static unsigned char bytes[PAGES * PAGE], got[PAGES * PAGE];
	bool *stop = (bool *)mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned lost = 0;
	int fd, seen;
	pid_t pid;

	file_make("f", bytes, sizeof(bytes));
	fd = file_open("f", O_WRONLY);
	seen = file_open("f", O_RDONLY);
	*stop = false;
	pid = child_start(store_first_of_pages, stop);
	for (unsigned i = 1; i <= ROUNDS; i++) {
		memset(bytes + 1, (int)i, sizeof(bytes) - 1);
		EQ((long)sizeof(bytes) - 1, pwrite(fd, bytes + 1, sizeof(bytes) - 1, 1));
		EQ((long)sizeof(got), pread(seen, got, sizeof(got), 0));
		for (size_t at = 0; at < sizeof(got); at++)
			lost += at % PAGE != 0 && got[at] != bytes[at];
	}
	*stop = true;
	child_wait(pid);
	EQ(0, lost);
	close(fd);
	close(seen);
	MUST(munmap(stop, PAGE));
}

static const struct check_case cases[] = {
	{ "shared_coherence", case_shared_coherence },
	{ "survives_close", case_survives_close },
	{ "private", case_private },
	{ "permission", case_permission },
	{ "past_eof", case_past_eof },
	{ "stray_store_past_eof", case_stray_store_past_eof },
	{ "truncate_and_grow", case_truncate_and_grow },
	{ "holes_and_punch", case_holes_and_punch },
	{ "between_processes", case_between_processes },
	{ "io_from_mapping", case_io_from_mapping },
	{ "mremap_madvise", case_mremap_fork_madvise },
	{ "store_beside_write", case_store_beside_write },
	{ "open_beside_write", case_open_beside_write },
	{ "store_beside_long_write", case_store_beside_long_write },
};

CHECK_MAIN(cases)
