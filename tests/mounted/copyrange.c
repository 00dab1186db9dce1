/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * copy_file_range, which is a clone wherever it can be: content and independence of both sides
 * for every alignment, and the rules of its man page. Sharing itself is seen in the free space.
 */
#define _GNU_SOURCE
#include "files.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <signal.h>

enum { BLOCK = 4096, SIZE = 64 * BLOCK };

static unsigned char want[2 * SIZE + BLOCK];
static unsigned char got[2 * SIZE + BLOCK];

/* Copies all of it, however many calls that takes; the bytes that came across. */
static off_t copy(int src, off_t from, int dst, off_t to, size_t len)
{
	off_t done = 0;

	while (done < (off_t)len) {
		off_t in = from + done;
		off_t out = to + done;
		ssize_t n = copy_file_range(src, &in, dst, &out, len - (size_t)done, 0);

		if (n == -1)
			return done ? done : -1;
		if (n == 0)
			break;
		EQ(from + done + n, in);
		EQ(to + done + n, out);
		done += n;
	}
	return done;
}

static int source_make(size_t size)
{
	bytes_fill(want, size, 5);
	file_make("src", want, size);
	return file_open("src", O_RDWR);
}

static void file_is(int fd, const unsigned char *bytes, size_t size)
{
	EQ(size, fd_stat(fd).st_size);
	EQ(size, pread(fd, got, sizeof(got), 0));
	MEMEQ(bytes, got, size);
}

static void case_whole(void)
{
	static const size_t sizes[] = { 0, 1, 100, 4095, 4096, 4097, 10000, 65536, 65537, SIZE - 1, SIZE };

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		int src = source_make(sizes[i]);
		int dst = file_open("dst", O_RDWR | O_CREAT | O_TRUNC);

		check_context("%zu bytes", sizes[i]);
		/* Asking for far more than there is. */
		EQ(sizes[i], copy(src, 0, dst, 0, (size_t)1 << 40));
		file_is(dst, want, sizes[i]);
		EQ(0, copy(src, (off_t)sizes[i], dst, 0, 100));
		EQ(0, copy(src, (off_t)sizes[i] + 100000, dst, 0, 100));
		/* Independence, both ways, at every place that matters. */
		for (size_t at = 0; at < sizes[i]; at += 4093) {
			EQ(1, pwrite(dst, "D", 1, (off_t)at));
			EQ(1, pread(src, got, 1, (off_t)at));
			EQ(want[at], got[0]);
			EQ(1, pwrite(src, "S", 1, (off_t)at));
			EQ(1, pread(dst, got, 1, (off_t)at));
			EQ('D', got[0]);
		}
		close(src);
		close(dst);
	}
}

static const struct {
	off_t from;
	off_t to;
	size_t len;
} ranges[] = {
	{ 0, 0, BLOCK },
	{ 0, BLOCK, BLOCK },
	{ BLOCK, 0, 3 * BLOCK },
	{ 1, 0, BLOCK },
	{ 0, 1, BLOCK },
	{ 1, 1, 5 * BLOCK },
	{ 100, 200, 300 },
	{ 100, 100, 5 * BLOCK },
	{ BLOCK, 2 * BLOCK, 5 * BLOCK + 7 },
	{ BLOCK + 9, 9, 5 * BLOCK },
	{ 5, 5 + BLOCK, 9 * BLOCK },
	{ SIZE - BLOCK, 3 * BLOCK, BLOCK },
	{ SIZE - 100, SIZE - 100, 100 },
	{ 0, SIZE, SIZE },
	{ 0, SIZE - 50, 1000 },
	{ 0, SIZE + 10000, 20000 },
	{ 2 * BLOCK, SIZE + 16 * BLOCK, 4 * BLOCK },
	{ 3 * BLOCK, 2 * BLOCK - 1, 2 * BLOCK + 2 },
};

static void case_onto_existing(void)
{
	static unsigned char model[2 * SIZE + BLOCK];

	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		int src = source_make(SIZE);
		size_t end = (size_t)ranges[i].to + ranges[i].len;
		int dst;

		check_context("%ld to %ld, %zu", (long)ranges[i].from, (long)ranges[i].to, ranges[i].len);
		memset(model, 0, sizeof(model));
		bytes_fill(model, SIZE, 99);
		file_make("dst", model, SIZE);
		dst = file_open("dst", O_RDWR);
		EQ(ranges[i].len, copy(src, ranges[i].from, dst, ranges[i].to, ranges[i].len));
		memcpy(model + ranges[i].to, want + ranges[i].from, ranges[i].len);
		file_is(dst, model, end > SIZE ? end : SIZE);
		file_is(src, want, SIZE);
		/* Then written to on both sides of each edge. */
		for (off_t at = ranges[i].to - 1; at <= (off_t)end; at += (off_t)ranges[i].len) {
			if (at < 0)
				continue;
			EQ(2, pwrite(dst, "XY", 2, at));
			memcpy(model + at, "XY", 2);
			end = end > (size_t)at + 2 ? end : (size_t)at + 2;
		}
		file_is(dst, model, end > SIZE ? end : SIZE);
		file_is(src, want, SIZE);
		close(src);
		close(dst);
	}
}

static void case_within_one_file(void)
{
	int fd = source_make(SIZE);

	EQ(8 * BLOCK, copy(fd, 0, fd, 32 * BLOCK, 8 * BLOCK));
	memcpy(want + 32 * BLOCK, want, 8 * BLOCK);
	file_is(fd, want, SIZE);
	EQ(5000, copy(fd, 77, fd, 50000, 5000));
	memcpy(want + 50000, want + 77, 5000);
	file_is(fd, want, SIZE);
	/* Neighbours touch, they do not overlap. */
	EQ(4 * BLOCK, copy(fd, 0, fd, 4 * BLOCK, 4 * BLOCK));
	memcpy(want + 4 * BLOCK, want, 4 * BLOCK);
	file_is(fd, want, SIZE);
	/* Past the end: the file doubles. */
	EQ(SIZE, copy(fd, 0, fd, SIZE, SIZE));
	memcpy(want + SIZE, want, SIZE);
	file_is(fd, want, 2 * SIZE);
	/* Each half is its own. */
	EQ(3, pwrite(fd, "abc", 3, SIZE + 5));
	memcpy(want + SIZE + 5, "abc", 3);
	file_is(fd, want, 2 * SIZE);
	EQ(3, pwrite(fd, "xyz", 3, 5));
	memcpy(want + 5, "xyz", 3);
	file_is(fd, want, 2 * SIZE);
}

static void case_overlap(void)
{
	int fd = source_make(SIZE);
	int fd2 = file_open("src", O_RDWR);
	off_t in = 0;
	off_t out = 100;

	ERR(EINVAL, copy_file_range(fd, &in, fd, &out, 200, 0));
	ERR(EINVAL, copy_file_range(fd, &in, fd2, &out, 200, 0));
	out = 0;
	ERR(EINVAL, copy_file_range(fd, &in, fd, &out, BLOCK, 0));
	out = BLOCK;
	ERR(EINVAL, copy_file_range(fd, &in, fd, &out, BLOCK + 1, 0));
	in = BLOCK;
	out = 0;
	ERR(EINVAL, copy_file_range(fd, &in, fd2, &out, 2 * BLOCK, 0));
	file_is(fd, want, SIZE);
}

static void case_positions(void)
{
	int src = source_make(SIZE);
	int dst = file_open("dst", O_RDWR | O_CREAT | O_TRUNC);
	off_t off = 0;

	MUST(lseek(src, 1000, SEEK_SET));
	EQ(500, copy_file_range(src, NULL, dst, NULL, 500, 0));
	EQ(1500, lseek(src, 0, SEEK_CUR));
	EQ(500, lseek(dst, 0, SEEK_CUR));
	EQ(100, copy_file_range(src, &off, dst, NULL, 100, 0));
	EQ(100, off);
	EQ(1500, lseek(src, 0, SEEK_CUR));
	EQ(600, lseek(dst, 0, SEEK_CUR));
	EQ(600, pread(dst, got, 1000, 0));
	MEMEQ(want + 1000, got, 500);
	MEMEQ(want, got + 500, 100);
}

static void case_errors(void)
{
	struct rlimit lim = { BLOCK, RLIM_INFINITY };
	int src = source_make(SIZE);
	int dst = file_open("dst", O_RDWR | O_CREAT | O_TRUNC);
	int pipes[2];
	off_t in = 0;
	off_t out = 0;

	MUST(pipe(pipes));
	MUST(mkdir("d", 0755));
	ERR(EINVAL, copy_file_range(src, &in, dst, &out, 10, 1));
	ERR(EBADF, copy_file_range(file_open("src", O_WRONLY), &in, dst, &out, 10, 0));
	ERR(EBADF, copy_file_range(src, &in, file_open("dst", O_RDONLY), &out, 10, 0));
	ERR(EBADF, copy_file_range(src, &in, file_open("dst", O_RDWR | O_APPEND), &out, 10, 0));
	ERR(EBADF, copy_file_range(src, &in, -1, &out, 10, 0));
	ERR(EISDIR, copy_file_range(file_open("d", O_RDONLY | O_DIRECTORY), &in, dst, &out, 10, 0));
	ERR(EINVAL, copy_file_range(pipes[0], NULL, dst, &out, 10, 0));
	ERR(EINVAL, copy_file_range(src, &in, pipes[1], NULL, 10, 0));
	in = -5;
	ERR2(EINVAL, EOVERFLOW, copy_file_range(src, &in, dst, &out, 10, 0));
	in = 0;
	EQ(0, copy_file_range(src, &in, dst, &out, 0, 0));
	EQ(0, fd_stat(dst).st_size);
	signal(SIGXFSZ, SIG_IGN);
	MUST(setrlimit(RLIMIT_FSIZE, &lim));
	EQ(BLOCK, copy(src, 0, dst, 0, 3 * BLOCK));
	ERR(EFBIG, copy(src, 0, dst, BLOCK, BLOCK));
}

static void case_times(void)
{
	struct stat before[2];
	struct stat after[2];
	int src = source_make(SIZE);
	int dst = file_open("dst", O_RDWR | O_CREAT | O_TRUNC);

	before[0] = path_stat("src");
	before[1] = path_stat("dst");
	clock_tick();
	EQ(SIZE, copy(src, 0, dst, 0, SIZE));
	after[0] = path_stat("src");
	after[1] = path_stat("dst");
	TRUE(mtime_same(&before[0], &after[0]));
	TRUE(time_compare(before[1].st_mtim, after[1].st_mtim) < 0);
	TRUE(time_compare(before[1].st_ctim, after[1].st_ctim) < 0);
	EQ(SIZE, after[1].st_size);
}

static void case_holes(void)
{
	unsigned char *model = buffer_make(SIZE);
	int src = file_open("src", O_RDWR | O_CREAT);
	int dst;

	for (int i = 0; i < 64; i += 7) {
		memset(model + i * BLOCK + 50, i + 1, 3000);
		EQ(3000, pwrite(src, model + i * BLOCK + 50, 3000, i * BLOCK + 50));
	}
	OK(ftruncate(src, SIZE));
	OK(fallocate(src, 0, 3 * BLOCK, 2 * BLOCK)); /* unwritten */
	file_fill("dst", SIZE, 200);
	dst = file_open("dst", O_RDWR);
	/* Over data: the holes must come across as zeros. */
	EQ(SIZE, copy(src, 0, dst, 0, SIZE));
	file_is(dst, model, SIZE);
	dst = file_open("dst", O_RDWR | O_TRUNC);
	EQ(SIZE, copy(src, 0, dst, 0, SIZE));
	file_is(dst, model, SIZE);
	free(model);
}

static void case_dirty_pages(void)
{
	int src = source_make(SIZE);
	int dst;
	unsigned char *in;
	unsigned char *out;

	/* Dirty by write and by mapping, in the source and in the destination; nothing is synced. */
	in = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, src, 0);
	file_fill("dst", SIZE, 77);
	dst = file_open("dst", O_RDWR);
	out = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, dst, 0);
	if (!TRUE(in != MAP_FAILED && out != MAP_FAILED))
		return;
	for (int round = 0; round < 20; round++) {
		check_context("round %d", round);
		memset(in + round * 3 * BLOCK, round, BLOCK);
		memset(want + round * 3 * BLOCK, round, BLOCK);
		memset(out, 0xcc, SIZE);
		EQ(SIZE, copy(src, 0, dst, 0, SIZE));
		MEMEQ(want, out, SIZE);
		file_is(dst, want, SIZE);
		/* Stores after the copy stay on their side. */
		in[round * 100] = 'i';
		want[round * 100] = 'i';
		out[round * 100] = 'o';
		MEMEQ(want, in, SIZE);
		EQ('o', out[round * 100]);
		EQ(1, pread(dst, got, 1, round * 100));
		EQ('o', got[0]);
	}
	OK(msync(in, SIZE, MS_SYNC));
	OK(msync(out, SIZE, MS_SYNC));
	file_is(src, want, SIZE);
}

static void case_tails(void)
{
	/* A tail that is the end of both files; then either grows: zeros, not what lay behind. */
	for (size_t size = BLOCK + 1; size < 3 * BLOCK; size += 1000) {
		int src = source_make(size);
		int dst = file_open("dst", O_RDWR | O_CREAT | O_TRUNC);
		unsigned char zero[2 * BLOCK] = { 0 };

		check_context("%zu bytes", size);
		EQ(size, copy(src, 0, dst, 0, size));
		OK(ftruncate(dst, (off_t)size + BLOCK));
		EQ(BLOCK, pread(dst, got, BLOCK, (off_t)size));
		MEMEQ(zero, got, BLOCK);
		EQ(1, pwrite(src, "e", 1, (off_t)size + 10));
		EQ(11, pread(src, got, 100, (off_t)size));
		MEMEQ(zero, got, 10);
		EQ(BLOCK, pread(dst, got, BLOCK, (off_t)size));
		MEMEQ(zero, got, BLOCK);
		/* A tail copied into the middle brings only its own bytes. */
		file_fill("mid", SIZE, 33);
		int mid = file_open("mid", O_RDWR);
		EQ(size, copy(dst, 0, mid, 0, size));
		bytes_fill(want, SIZE, 33);
		EQ(SIZE - size, pread(mid, got, SIZE, (off_t)size));
		MEMEQ(want + size, got, SIZE - size);
		close(src);
		close(dst);
		close(mid);
	}
}

static void case_st_blocks(void)
{
	struct stat a;
	struct stat b;
	int src = source_make(SIZE);
	int dst = file_open("dst", O_RDWR | O_CREAT | O_TRUNC);

	OK(fsync(src));
	EQ(SIZE, copy(src, 0, dst, 0, SIZE));
	OK(fsync(dst));
	a = fd_stat(src);
	b = fd_stat(dst);
	TRUE(a.st_blocks * 512 >= SIZE);
	TRUE(b.st_blocks * 512 >= SIZE);
}

/* The point of it all: a copy takes no space, and takes it as it is written to. */
static void case_shares_space(void)
{
	enum { LARGE = 64 << 20 };
	struct statvfs before;
	struct statvfs after;
	unsigned char *data = buffer_make(1 << 20);
	int src = file_open("src", O_RDWR | O_CREAT);
	int dst = file_open("dst", O_RDWR | O_CREAT);

	for (int i = 0; i < 64; i++) {
		memset(data, i + 1, 1 << 20);
		EQ(1 << 20, pwrite(src, data, 1 << 20, (off_t)i << 20));
	}
	OK(fsync(src));
	OK(syncfs(src));
	MUST(fstatvfs(src, &before));
	EQ(LARGE, copy(src, 0, dst, 0, LARGE));
	OK(fsync(dst));
	OK(syncfs(src));
	MUST(fstatvfs(src, &after));
	TRUE((before.f_bfree - after.f_bfree) * before.f_frsize < 8 << 20 || after.f_bfree > before.f_bfree);
	/* Writing a quarter of it costs about that much. */
	for (int i = 0; i < 16; i++)
		EQ(1 << 20, pwrite(dst, data, 1 << 20, (off_t)i << 22));
	OK(fsync(dst));
	OK(syncfs(src));
	MUST(fstatvfs(src, &after));
	TRUE((before.f_bfree - after.f_bfree) * before.f_frsize >= 15 << 20);
	TRUE((before.f_bfree - after.f_bfree) * before.f_frsize < 48 << 20);
	free(data);
}

static void case_chain(void)
{
	char name[16];
	int prev = source_make(SIZE);
	int fd = -1;

	/* A clone of a clone of a clone, each changed a little; then the ancestors go. */
	for (int i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "gen%d", i);
		fd = file_open(name, O_RDWR | O_CREAT);
		EQ(SIZE, copy(prev, 0, fd, 0, SIZE));
		memset(want + i * 5000, i, 100);
		EQ(100, pwrite(fd, want + i * 5000, 100, i * 5000));
		close(prev);
		if (i > 0) {
			snprintf(name, sizeof(name), "gen%d", i - 1);
			OK(unlink(name));
		}
		prev = fd;
	}
	file_is(fd, want, SIZE);
	OK(fsync(fd));
	EQ(0, posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
	file_is(fd, want, SIZE);
}

static const struct check_case cases[] = {
	{ "whole", case_whole },
	{ "onto_existing", case_onto_existing },
	{ "within_one_file", case_within_one_file },
	{ "overlap", case_overlap },
	{ "positions", case_positions },
	{ "errors", case_errors },
	{ "times", case_times },
	{ "holes", case_holes },
	{ "dirty_pages", case_dirty_pages },
	{ "tails", case_tails },
	{ "st_blocks", case_st_blocks },
	{ "shares_space", case_shares_space },
	{ "chain", case_chain },
};

CHECK_MAIN(cases)
