/* SPDX-License-Identifier: BSD-3-Clause */
/* Limits: file sizes up to the largest, EFBIG past it, statfs, and what pathconf says. */
#define _GNU_SOURCE
#include "files.h"

#include <limits.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>

/* The largest size that ftruncate takes. */
static off_t size_max_find(int fd)
{
	off_t good = 0;
	off_t bad = INT64_MAX;

	if (ftruncate(fd, INT64_MAX) == 0)
		return INT64_MAX;
	while (bad - good > 1) {
		off_t middle = good + (bad - good) / 2;

		if (ftruncate(fd, middle) == 0)
			good = middle;
		else if (TRUE(errno == EFBIG || errno == EINVAL))
			bad = middle;
		else
			break;
	}
	return good;
}

static void case_file_size(void)
{
	char c = 0;
	int fd = file_open("f", O_RDWR | O_CREAT);
	off_t max = size_max_find(fd);

	check_context("largest size %lld", (long long)max);
	/* A terabyte is the least that is worth the name. */
	TRUE(max >= (off_t)1 << 40);
	OK(ftruncate(fd, 0));
	EQ(1, pwrite(fd, "x", 1, max - 1));
	EQ(max, fd_stat(fd).st_size);
	EQ(1, pread(fd, &c, 1, max - 1));
	EQ('x', c);
	if (max < INT64_MAX) {
		ERR(EFBIG, pwrite(fd, "y", 1, max));
		ERR(EFBIG, fallocate(fd, 0, max, 1));
		/* A write across the limit is cut, or refused. */
		if (pwrite(fd, "zz", 2, max - 1) != 1)
			EQ(EFBIG, errno);
		ERR2(EFBIG, EINVAL, ftruncate(fd, max + 1));
		EQ(0, pread(fd, &c, 1, max));
	}
	EQ(max, fd_stat(fd).st_size);
	TRUE(fd_stat(fd).st_blocks < 1 << 16);
	OK(ftruncate(fd, 1));
	EQ(1, pread(fd, &c, 1, 0));
	EQ(0, c);
	OK(unlink("f"));
}

static void case_powers_of_two(void)
{
	char got[2];
	int fd = file_open("f", O_RDWR | O_CREAT);
	off_t max = size_max_find(fd);

	OK(ftruncate(fd, 0));
	for (int bit = 12; bit < 62 && ((off_t)1 << bit) < max; bit++) {
		off_t at = ((off_t)1 << bit) - 1;

		check_context("2^%d", bit);
		got[0] = (char)bit;
		got[1] = (char)(bit + 1);
		EQ(2, pwrite(fd, got, 2, at));
		EQ(at + 2, fd_stat(fd).st_size);
	}
	for (int bit = 12; bit < 62 && ((off_t)1 << bit) < max; bit++) {
		check_context("2^%d", bit);
		EQ(2, pread(fd, got, 2, ((off_t)1 << bit) - 1));
		EQ(bit, got[0]);
		EQ(bit + 1, got[1]);
	}
	OK(ftruncate(fd, 0));
	EQ(0, fd_stat(fd).st_blocks);
}

static void case_statfs(void)
{
	struct statvfs v;
	struct statvfs after;
	struct statfs s;
	int fd;

	MUST(statvfs(".", &v));
	MUST(statfs(".", &s));
	TRUE(v.f_bsize >= 512 && v.f_frsize >= 512);
	TRUE(v.f_blocks > 0);
	TRUE(v.f_bfree <= v.f_blocks);
	TRUE(v.f_bavail <= v.f_bfree);
	TRUE(v.f_ffree <= v.f_files);
	TRUE(v.f_namemax == 255);
	EQ(s.f_blocks, v.f_blocks);
	/* Space that is written is missing, every view agrees. */
	file_fill("f", 16 << 20, 1);
	fd = file_open("f", O_RDONLY);
	OK(fsync(fd));
	MUST(fstatvfs(fd, &after));
	TRUE((v.f_bfree - after.f_bfree) * v.f_frsize >= 15 << 20);
	EQ(v.f_blocks, after.f_blocks);
	MUST(statfs("f", &s));
	EQ(s.f_namelen, 255);
	EQ(255, pathconf(".", _PC_NAME_MAX));
	EQ(4096, pathconf(".", _PC_PATH_MAX));
	EQ(1, pathconf(".", _PC_CHOWN_RESTRICTED));
	EQ(1, pathconf(".", _PC_NO_TRUNC));
}

/* Sparse writes must not promise more than there is: blocks count what is allocated. */
static void case_blocks_honest(void)
{
	char c[4096];
	int fd = file_open("f", O_RDWR | O_CREAT);

	memset(c, 'x', sizeof(c));
	for (int i = 0; i < 100; i++)
		EQ(4096, pwrite(fd, c, 4096, (off_t)i << 24));
	OK(fsync(fd));
	TRUE(fd_stat(fd).st_blocks >= 100 * 8);
	/* Speculative preallocation apart. */
	TRUE(fd_stat(fd).st_blocks <= 100 * 8 * 64);
	EQ(4096, fd_stat(fd).st_blksize % 4096 == 0 ? 4096 : fd_stat(fd).st_blksize);
}

static void case_statx(void)
{
	struct statx stx;
	struct stat st;
	int fd;

	file_fill("f", 5000, 1);
	st = path_stat("f");
	MUST(statx(AT_FDCWD, "f", AT_STATX_FORCE_SYNC, STATX_ALL, &stx));
	EQ(STATX_BASIC_STATS, stx.stx_mask & STATX_BASIC_STATS);
	EQ(st.st_ino, stx.stx_ino);
	EQ(5000, stx.stx_size);
	EQ(st.st_mtim.tv_nsec, stx.stx_mtime.tv_nsec);
	EQ(st.st_blocks, stx.stx_blocks);
	if (stx.stx_mask & STATX_BTIME) {
		struct statx later;

		clock_tick();
		OK(chmod("f", 0600));
		MUST(statx(AT_FDCWD, "f", 0, STATX_ALL, &later));
		EQ(stx.stx_btime.tv_sec, later.stx_btime.tv_sec);
		EQ(stx.stx_btime.tv_nsec, later.stx_btime.tv_nsec);
	}
	fd = file_open("f", O_RDONLY);
	MUST(statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_SIZE, &stx));
	EQ(5000, stx.stx_size);
}

static void case_inode_numbers(void)
{
	enum { COUNT = 2000 };
	static ino_t inos[COUNT];
	char name[16];

	for (int i = 0; i < COUNT; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		MUST(mknod(name, S_IFREG | 0644, 0));
		inos[i] = path_stat(name).st_ino;
		TRUE(inos[i] != 0);
	}
	/* Unique, and the same on every look. */
	for (int i = 0; i < COUNT; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		if (!EQ(inos[i], path_stat(name).st_ino))
			return;
		for (int k = 0; k < i; k++) {
			if (inos[k] == inos[i]) {
				check_context("f%d and f%d", k, i);
				WRONG("inode number used twice");
				return;
			}
		}
	}
}

static const struct check_case cases[] = {
	{ "file_size", case_file_size }, { "powers_of_two", case_powers_of_two },
	{ "statfs", case_statfs },       { "blocks_honest", case_blocks_honest },
	{ "statx", case_statx },         { "inode_numbers", case_inode_numbers },
};

CHECK_MAIN(cases)
