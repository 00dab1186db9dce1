/* SPDX-License-Identifier: BSD-3-Clause */
/* truncate and ftruncate: content on both sides, times, permission, types, limits. */
#define _GNU_SOURCE
#include "files.h"

#include <sys/resource.h>
#include <sys/statvfs.h>
#include <signal.h>

static const size_t sizes[] = { 0, 1, 100, 511, 512, 4095, 4096, 4097, 8192, 65536, 65537, 200000 };
enum { SIZES_COUNT = sizeof(sizes) / sizeof(sizes[0]), SIZE_MAX_TRIED = 200000 };

/* From every size to every size: what is left is kept, what is new is zero. */
static void content_pair(size_t from, size_t to, bool by_fd)
{
	unsigned char *want = buffer_make(SIZE_MAX_TRIED);
	unsigned char *got = buffer_make(SIZE_MAX_TRIED);
	int fd;

	bytes_fill(want, from, 7);
	file_make("f", want, from);
	fd = file_open("f", O_RDWR);
	if (by_fd)
		OK(ftruncate(fd, (off_t)to));
	else
		OK(truncate("f", (off_t)to));
	memset(want + (to < from ? to : from), 0, SIZE_MAX_TRIED - (to < from ? to : from));
	EQ(to, fd_stat(fd).st_size);
	EQ(to, path_stat("f").st_size);
	EQ(to, pread(fd, got, SIZE_MAX_TRIED, 0));
	MEMEQ(want, got, to);
	/* Growing again must not bring anything back. */
	OK(ftruncate(fd, SIZE_MAX_TRIED));
	EQ(SIZE_MAX_TRIED, pread(fd, got, SIZE_MAX_TRIED, 0));
	MEMEQ(want, got, SIZE_MAX_TRIED);
	close(fd);
	free(want);
	free(got);
}

static void case_content(void)
{
	for (size_t i = 0; i < SIZES_COUNT; i++) {
		for (size_t k = 0; k < SIZES_COUNT; k++) {
			check_context("%zu to %zu", sizes[i], sizes[k]);
			content_pair(sizes[i], sizes[k], (i + k) & 1);
		}
	}
}

static void case_blocks(void)
{
	blkcnt_t full;

	file_fill("f", 1 << 20, 1);
	MUST(sync_file_range(file_open("f", O_RDWR), 0, 0, 7));
	full = path_stat("f").st_blocks;
	TRUE(full >= (1 << 20) / 512);
	OK(truncate("f", 4096));
	TRUE(path_stat("f").st_blocks < full);
	OK(truncate("f", 0));
	EQ(0, path_stat("f").st_blocks);
	OK(truncate("f", (off_t)1 << 40));
	EQ((off_t)1 << 40, path_stat("f").st_size);
	TRUE(path_stat("f").st_blocks < 64);
	OK(truncate("f", 0));
}

static void case_times(void)
{
	struct stat before;
	struct stat after;
	int fd;

	file_fill("f", 5000, 1);
	fd = file_open("f", O_RDWR);
	for (int i = 0; i < 4; i++) {
		/* 0: down by path, 1: up by descriptor, 2: up by path, 3: down by descriptor. */
		static const off_t to[] = { 1000, 9000, 10000, 500 };

		check_context("to %ld", (long)to[i]);
		before = path_stat("f");
		clock_tick();
		OK((i & 1) ? ftruncate(fd, to[i]) : truncate("f", to[i]));
		after = path_stat("f");
		TRUE(time_compare(before.st_mtim, after.st_mtim) < 0);
		TRUE(time_compare(before.st_ctim, after.st_ctim) < 0);
		TRUE(atime_same(&before, &after));
	}
	check_context("refused");
	before = path_stat("f");
	clock_tick();
	ERR(EINVAL, ftruncate(fd, -1));
	ERR(EINVAL, truncate("f", -1));
	ERR_AS(USER_A, EACCES, truncate("f", 3));
	after = path_stat("f");
	TRUE(mtime_same(&before, &after) && ctime_same(&before, &after));
	/* ftruncate to the same size marks the file too. */
	check_context("same size");
	OK(ftruncate(fd, after.st_size));
	EQ(500, path_stat("f").st_size);
}

static void case_permission(void)
{
	static const mode_t modes[] = { 0000, 0400, 0200, 0600, 0100, 0500 };
	int fd;

	file_fill("f", 100, 1);
	MUST(chown("f", USER_A, USER_A));
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		check_context("%o", (unsigned)modes[i]);
		MUST(chmod("f", modes[i]));
		if (modes[i] & 0200)
			OK_AS(USER_A, truncate("f", 50));
		else
			ERR_AS(USER_A, EACCES, truncate("f", 50));
		ERR_AS(USER_B, EACCES, truncate("f", 50));
		OK(truncate("f", 100));
	}
	/* An open descriptor needs no permission any more. */
	MUST(chmod("f", 0600));
	user_is(USER_A, USER_A);
	fd = file_open("f", O_RDWR);
	MUST(chmod("f", 0));
	OK(ftruncate(fd, 10));
	EQ(10, fd_stat(fd).st_size);
	user_root();
	OK(fchown(fd, 0, 0));
	OK_AS(USER_A, ftruncate(fd, 11));
}

static void case_types(void)
{
	MUST(chmod(".", 0777));
	FOR_TYPES(t)
	{
		if (t == T_REG || t == T_LNK)
			continue;
		type_make(t, "f", 0666);
		ERR(t == T_DIR ? EISDIR : EINVAL, truncate("f", 0));
		if (t == T_FIFO)
			ERR(EINVAL, ftruncate(file_open("f", O_RDWR), 0));
		type_unlink(t, "f");
	}
	check_context("symlink");
	file_fill("f", 100, 1);
	MUST(symlink("f", "l"));
	OK(truncate("l", 7));
	EQ(7, path_stat("f").st_size);
	EQ(1, path_stat("l").st_size);
}

static void case_limits(void)
{
	struct rlimit lim = { 10000, RLIM_INFINITY };
	int fd;

	file_make("f", "abc", 3);
	fd = file_open("f", O_RDWR);
	signal(SIGXFSZ, SIG_IGN);
	MUST(setrlimit(RLIMIT_FSIZE, &lim));
	OK(ftruncate(fd, 10000));
	ERR(EFBIG, ftruncate(fd, 10001));
	ERR(EFBIG, truncate("f", 10001));
	EQ(10000, fd_stat(fd).st_size);
	EQ(10, pwrite(fd, "0123456789abc", 13, 9990));
	ERR(EFBIG, pwrite(fd, "x", 1, 10000));
	EQ(10000, fd_stat(fd).st_size);
	OK(ftruncate(fd, 5));
}

static void case_up_and_down_many(void)
{
	struct rnd r = { check_seed() };
	unsigned char *want = buffer_make(1 << 18);
	unsigned char *got = buffer_make(1 << 18);
	size_t size = 0;
	int fd = file_open("f", O_RDWR | O_CREAT);

	check_context("seed %lu", (unsigned long)check_seed());
	for (int i = 0; i < 300; i++) {
		size_t to = rnd_below(&r, 1 << 18);
		size_t at = rnd_below(&r, 1 << 18);
		size_t len = rnd_below(&r, 9000);

		if (at + len > (1 << 18))
			len = (1 << 18) - at;
		bytes_fill(want + at, len, (unsigned char)i);
		EQ(len, pwrite(fd, want + at, len, (off_t)at));
		size = at + len > size && len ? at + len : size;
		OK(ftruncate(fd, (off_t)to));
		if (to < size)
			memset(want + to, 0, (1 << 18) - to);
		size = to;
		EQ(size, pread(fd, got, 1 << 18, 0));
		if (!MEMEQ(want, got, size))
			break;
	}
	free(want);
	free(got);
}

static const struct check_case cases[] = {
	{ "content", case_content },
	{ "blocks", case_blocks },
	{ "times", case_times },
	{ "permission", case_permission },
	{ "types", case_types },
	{ "limits", case_limits },
	{ "up_and_down_many", case_up_and_down_many },
};

CHECK_MAIN(cases)
