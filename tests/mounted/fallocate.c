/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fallocate in the modes that reach a FUSE server, and SEEK_DATA/SEEK_HOLE: content, size, blocks.
 * Modes that a file system does not have must say EOPNOTSUPP and change nothing.
 */
#define _GNU_SOURCE
#include "files.h"

#include <signal.h>
#include <sys/resource.h>

enum { SIZE = 256 << 10, BLOCK = 4096 };
#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

static unsigned char want[SIZE * 2];
static unsigned char got[SIZE * 2];

/* A full file of SIZE bytes, whose content is in want. */
static int full_file(void)
{
	memset(want, 0, sizeof(want));
	bytes_fill(want, SIZE, 3);
	for (size_t i = 0; i < SIZE; i++)
		want[i] |= 1;
	file_make("f", want, SIZE);
	int fd = file_open("f", O_RDWR);
	MUST(fsync(fd));
	return fd;
}

static void content_is(int fd, size_t size)
{
	EQ(size, fd_stat(fd).st_size);
	memset(got, 0xee, sizeof(got));
	EQ(size, pread(fd, got, sizeof(got), 0));
	MEMEQ(want, got, size);
}

static const struct {
	off_t at;
	off_t len;
} ranges[] = {
	{ 0, BLOCK },
	{ BLOCK, BLOCK },
	{ 0, SIZE },
	{ 1, 1 },
	{ 100, 200 },
	{ BLOCK - 1, 2 },
	{ 100, BLOCK },
	{ BLOCK, 10 * BLOCK },
	{ BLOCK + 1, 10 * BLOCK },
	{ 7 * BLOCK - 3, 9001 },
	{ SIZE - BLOCK, BLOCK },
	{ SIZE - 100, 100 },
	{ SIZE - 10, 1000 },
	{ SIZE, BLOCK },
	{ SIZE + 5000, 5000 },
	{ 0, 2 * SIZE },
	{ SIZE / 2, SIZE },
};

static void zero_model(off_t at, off_t len)
{
	for (off_t i = at; i < at + len && i < 2 * SIZE; i++)
		want[i] = 0;
}

static void case_punch(void)
{
	blkcnt_t before;
	int fd;

	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		check_context("%ld+%ld", (long)ranges[i].at, (long)ranges[i].len);
		fd = full_file();
		before = fd_stat(fd).st_blocks;
		OK(fallocate(fd, PUNCH, ranges[i].at, ranges[i].len));
		zero_model(ranges[i].at, ranges[i].len);
		content_is(fd, SIZE);
		OK(fsync(fd));
		TRUE(fd_stat(fd).st_blocks <= before);
		if (ranges[i].at == 0 && ranges[i].len >= SIZE)
			EQ(0, fd_stat(fd).st_blocks);
		else if (ranges[i].at % BLOCK == 0 && ranges[i].len % BLOCK == 0 &&
			 ranges[i].at + ranges[i].len <= SIZE)
			EQ(before - ranges[i].len / 512, fd_stat(fd).st_blocks);
		close(fd);
	}
	fd = full_file();
	check_context("again and filled");
	for (int i = 0; i < 20; i++) {
		OK(fallocate(fd, PUNCH, i * 3 * BLOCK, 2 * BLOCK));
		zero_model(i * 3 * BLOCK, 2 * BLOCK);
		memset(want + i * 3 * BLOCK + 100, 'q', 200);
		EQ(200, pwrite(fd, want + i * 3 * BLOCK + 100, 200, i * 3 * BLOCK + 100));
		content_is(fd, SIZE);
	}
}

static void zero_range(int mode)
{
	off_t end;
	int fd;

	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		check_context("%ld+%ld", (long)ranges[i].at, (long)ranges[i].len);
		fd = full_file();
		if (fallocate(fd, mode, ranges[i].at, ranges[i].len) == -1 && errno == EOPNOTSUPP)
			check_skip("no FALLOC_FL_ZERO_RANGE");
		OK(fallocate(fd, mode, ranges[i].at, ranges[i].len));
		zero_model(ranges[i].at, ranges[i].len);
		end = ranges[i].at + ranges[i].len;
		content_is(fd, (size_t)(!(mode & FALLOC_FL_KEEP_SIZE) && end > SIZE ? end : SIZE));
		close(fd);
	}
}

static void case_zero(void)
{
	zero_range(FALLOC_FL_ZERO_RANGE);
}
static void case_zero_keep_size(void)
{
	zero_range(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE);
}

static void case_allocate(void)
{
	off_t end;
	int fd;

	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		check_context("%ld+%ld", (long)ranges[i].at, (long)ranges[i].len);
		fd = full_file();
		OK(fallocate(fd, 0, ranges[i].at, ranges[i].len));
		end = ranges[i].at + ranges[i].len;
		content_is(fd, (size_t)(end > SIZE ? end : SIZE));
		close(fd);
		fd = full_file();
		OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, ranges[i].at, ranges[i].len));
		content_is(fd, SIZE);
		if (end > SIZE)
			TRUE(fd_stat(fd).st_blocks * 512 >=
			     SIZE + end - (ranges[i].at > SIZE ? ranges[i].at : SIZE));
		/* What lies past the end is zero when the file grows into it. */
		OK(ftruncate(fd, 2 * SIZE));
		content_is(fd, 2 * SIZE);
		close(fd);
		/* On an empty file. */
		memset(want, 0, sizeof(want));
		fd = file_open("f", O_RDWR | O_TRUNC);
		OK(fallocate(fd, 0, ranges[i].at, ranges[i].len));
		EQ(end, fd_stat(fd).st_size);
		TRUE(fd_stat(fd).st_blocks * 512 >= ranges[i].len / BLOCK * BLOCK);
		content_is(fd, (size_t)end);
		close(fd);
	}
}

static void case_posix_fallocate(void)
{
	int fd = file_open("f", O_RDWR | O_CREAT | O_TRUNC);
	int pipes[2];

	EQ(0, posix_fallocate(fd, 0, 567));
	EQ(567, fd_stat(fd).st_size);
	EQ(0, posix_fallocate(fd, 20000, 3456));
	EQ(23456, fd_stat(fd).st_size);
	EQ(0, posix_fallocate(fd, 0, 100));
	EQ(23456, fd_stat(fd).st_size);
	EQ(EINVAL, posix_fallocate(fd, 0, 0));
	EQ(EINVAL, posix_fallocate(fd, -1, 10));
	EQ(EINVAL, posix_fallocate(fd, 0, -10));
	EQ(EBADF, posix_fallocate(file_open("f", O_RDONLY), 0, 10));
	MUST(pipe(pipes));
	EQ(ESPIPE, posix_fallocate(pipes[1], 0, 10));
	/* By somebody whose descriptor was opened before the mode forbade writing. */
	user_is(USER_A, USER_A);
	EQ(0, posix_fallocate(fd, 0, 50000));
	user_root();
	EQ(50000, fd_stat(fd).st_size);
}

static void case_errors(void)
{
	struct rlimit lim = { 10000, RLIM_INFINITY };
	int fd = full_file();
	int dir = file_open(".", O_RDONLY | O_DIRECTORY);

	ERR(EINVAL, fallocate(fd, 0, -1, 10));
	ERR(EINVAL, fallocate(fd, 0, 0, 0));
	ERR(EFBIG, fallocate(fd, 0, INT64_MAX - 10, 100));
	ERR(EBADF, fallocate(file_open("f", O_RDONLY), 0, 0, 10));
	ERR2(EBADF, EISDIR, fallocate(dir, 0, 0, 10));
	/* Punching without KEEP_SIZE, unknown modes. */
	ERR2(EOPNOTSUPP, EINVAL, fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 10));
	ERR2(EOPNOTSUPP, EINVAL, fallocate(fd, 0x4000, 0, 10));
	content_is(fd, SIZE);
	OK(ftruncate(fd, 100));
	signal(SIGXFSZ, SIG_IGN);
	MUST(setrlimit(RLIMIT_FSIZE, &lim));
	ERR(EFBIG, fallocate(fd, 0, 0, 20000));
	EQ(100, fd_stat(fd).st_size);
	OK(fallocate(fd, 0, 0, 9000));
}

/* Collapse and insert: either done right, or refused with nothing changed. */
static void case_collapse_insert(void)
{
	int fd = full_file();

	if (fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, BLOCK, 2 * BLOCK) == -1) {
		EQ(EOPNOTSUPP, errno);
		content_is(fd, SIZE);
		ERR(EOPNOTSUPP, fallocate(fd, FALLOC_FL_INSERT_RANGE, BLOCK, BLOCK));
		content_is(fd, SIZE);
		return;
	}
	memmove(want + BLOCK, want + 3 * BLOCK, SIZE - 3 * BLOCK);
	memset(want + SIZE - 2 * BLOCK, 0, 2 * BLOCK);
	content_is(fd, SIZE - 2 * BLOCK);
	if (OK(fallocate(fd, FALLOC_FL_INSERT_RANGE, BLOCK, BLOCK)) == 0) {
		memmove(want + 2 * BLOCK, want + BLOCK, SIZE - 3 * BLOCK);
		memset(want + BLOCK, 0, BLOCK);
		content_is(fd, SIZE - BLOCK);
	}
	ERR(EINVAL, fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 1, BLOCK));
	ERR(EINVAL, fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, 2 * SIZE));
}

/* Every byte that was written must be inside what SEEK_DATA and SEEK_HOLE call data. */
static void seek_check(int fd, off_t size, const unsigned char *written)
{
	off_t at = 0;

	while (at < size) {
		off_t data = lseek(fd, at, SEEK_DATA);
		off_t hole;

		if (data == -1) {
			EQ(ENXIO, errno);
			data = size;
		}
		TRUE(data >= at && data <= size);
		for (off_t i = at; i < data; i++) {
			if (written[i] && !WRONG("written byte inside a hole"))
				return;
		}
		if (data >= size)
			return;
		hole = (off_t)OK(lseek(fd, data, SEEK_HOLE));
		if (!TRUE(hole > data && hole <= size))
			return;
		EQ(hole, lseek(fd, hole - 1, SEEK_HOLE));
		EQ(data, lseek(fd, data, SEEK_DATA));
		at = hole;
	}
}

static void case_seek(void)
{
	static unsigned char written[SIZE];
	struct rnd r = { check_seed() };
	int fd;

	check_context("seed %lu", (unsigned long)check_seed());
	for (int round = 0; round < 20; round++) {
		memset(written, 0, sizeof(written));
		fd = file_open("f", O_RDWR | O_CREAT | O_TRUNC);
		for (int i = 0; i < 8; i++) {
			size_t at = rnd_below(&r, SIZE - 1);
			size_t len = 1 + rnd_below(&r, SIZE - at);

			len = len > 20000 ? 20000 : len;
			memset(want, 'd', len);
			EQ(len, pwrite(fd, want, len, (off_t)at));
			memset(written + at, 1, len);
		}
		OK(ftruncate(fd, SIZE));
		if (round & 1)
			OK(fsync(fd));
		seek_check(fd, SIZE, written);
		close(fd);
	}
}

static void case_seek_edges(void)
{
	int fd = file_open("f", O_RDWR | O_CREAT | O_TRUNC);

	ERR(ENXIO, lseek(fd, 0, SEEK_DATA));
	ERR(ENXIO, lseek(fd, 0, SEEK_HOLE));
	OK(ftruncate(fd, 1 << 20));
	EQ(0, lseek(fd, 0, SEEK_HOLE));
	EQ(1000, lseek(fd, 1000, SEEK_HOLE));
	EQ(1, pwrite(fd, "x", 1, 1 << 19));
	TRUE(lseek(fd, 0, SEEK_DATA) <= 1 << 19);
	EQ(1 << 19, lseek(fd, 1 << 19, SEEK_DATA));
	TRUE(lseek(fd, 1 << 19, SEEK_HOLE) > 1 << 19);
	ERR(ENXIO, lseek(fd, 1 << 20, SEEK_DATA));
	ERR(ENXIO, lseek(fd, 1 << 20, SEEK_HOLE));
	ERR2(ENXIO, EINVAL, lseek(fd, -1, SEEK_DATA));
	EQ(0, lseek(fd, 0, SEEK_SET));
	/* A file without holes: the only hole is its end. */
	fd = full_file();
	EQ(0, lseek(fd, 0, SEEK_DATA));
	EQ(SIZE, lseek(fd, 0, SEEK_HOLE));
	EQ(SIZE, lseek(fd, SIZE - 1, SEEK_HOLE));
	EQ(SIZE - 1, lseek(fd, SIZE - 1, SEEK_DATA));
	EQ(SIZE, lseek(fd, 0, SEEK_END));
}

/* File systems with extents see holes of whole blocks; umbrafs does. */
static void case_seek_finds_holes(void)
{
	int fd = full_file();

	OK(fallocate(fd, PUNCH, 16 * BLOCK, 16 * BLOCK));
	OK(fsync(fd));
	EQ(16 * BLOCK, lseek(fd, 0, SEEK_HOLE));
	EQ(32 * BLOCK, lseek(fd, 16 * BLOCK, SEEK_DATA));
	EQ(20 * BLOCK, lseek(fd, 20 * BLOCK, SEEK_HOLE));
	EQ(SIZE, lseek(fd, 32 * BLOCK, SEEK_HOLE));
}

static const struct check_case cases[] = {
	{ "punch", case_punch },
	{ "zero", case_zero },
	{ "zero_keep_size", case_zero_keep_size },
	{ "allocate", case_allocate },
	{ "posix_fallocate", case_posix_fallocate },
	{ "errors", case_errors },
	{ "collapse_insert", case_collapse_insert },
	{ "seek", case_seek },
	{ "seek_edges", case_seek_edges },
	{ "seek_finds_holes", case_seek_finds_holes },
};

CHECK_MAIN(cases)
