/* SPDX-License-Identifier: BSD-3-Clause */
/* Reading and writing: every call for it, append, sparse files, O_DIRECT, O_SYNC, pipes between. */
#define _GNU_SOURCE
#include "files.h"

#include <limits.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

enum { BIG = 3 << 20 };

static void case_sizes(void)
{
	static const size_t sizes[] = { 1,    2,     511,    512,    513,     4095,          4096,
					4097, 65535, 131072, 131073, 1 << 20, (1 << 20) + 1, BIG };
	unsigned char *want = buffer_make(BIG);
	unsigned char *got = buffer_make(BIG);
	int fd = file_open("f", O_RDWR | O_CREAT);

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		check_context("%zu", sizes[i]);
		bytes_fill(want, sizes[i], (unsigned char)i);
		OK(ftruncate(fd, 0));
		EQ(sizes[i], pwrite(fd, want, sizes[i], 0));
		EQ(sizes[i], fd_stat(fd).st_size);
		EQ(sizes[i], pread(fd, got, BIG, 0));
		MEMEQ(want, got, sizes[i]);
		EQ(sizes[i] - 1, pread(fd, got, BIG, 1));
		MEMEQ(want + 1, got, sizes[i] - 1);
		EQ(0, pread(fd, got, BIG, (off_t)sizes[i]));
		EQ(0, pread(fd, got, BIG, (off_t)sizes[i] + 100000));
		/* Blocks of a full file: all of it, and no more than the preallocation of a few MiB. */
		TRUE(fd_stat(fd).st_blocks * 512 >= (blkcnt_t)(sizes[i] < 4096 ? 0 : sizes[i] / 4096 * 4096));
	}
	free(want);
	free(got);
}

static void case_offsets(void)
{
	unsigned char want[20000];
	unsigned char got[20000];
	struct rnd r = { 42 };
	int fd = file_open("f", O_RDWR | O_CREAT);

	memset(want, 0, sizeof(want));
	OK(ftruncate(fd, sizeof(want)));
	for (int i = 0; i < 400; i++) {
		size_t at = rnd_below(&r, sizeof(want));
		size_t len = rnd_below(&r, i & 1 ? 10 : 9000);

		if (len > sizeof(want) - at)
			len = sizeof(want) - at;
		memset(want + at, i, len);
		EQ(len, pwrite(fd, want + at, len, (off_t)at));
		EQ(sizeof(got), pread(fd, got, sizeof(got), 0));
		if (!MEMEQ(want, got, sizeof(want)))
			break;
	}
}

static void case_position(void)
{
	char buf[8] = "";
	int fd = file_open("f", O_RDWR | O_CREAT);

	EQ(6, write(fd, "abcdef", 6));
	EQ(6, lseek(fd, 0, SEEK_CUR));
	EQ(2, lseek(fd, 2, SEEK_SET));
	EQ(2, read(fd, buf, 2));
	MEMEQ("cd", buf, 2);
	EQ(4, lseek(fd, 0, SEEK_CUR));
	EQ(2, pread(fd, buf, 2, 0));
	EQ(4, lseek(fd, 0, SEEK_CUR));
	EQ(5, lseek(fd, -1, SEEK_END));
	EQ(16, lseek(fd, 10, SEEK_END));
	EQ(1, write(fd, "x", 1));
	EQ(17, fd_stat(fd).st_size);
	EQ(8, pread(fd, buf, 8, 6));
	MEMEQ("\0\0\0\0\0\0\0\0", buf, 8);
	ERR(EINVAL, lseek(fd, -1, SEEK_SET));
	ERR(EINVAL, pread(fd, buf, 1, -1));
	ERR(EINVAL, lseek(fd, 0, 99));
	/* A duplicated descriptor shares the position, a second open does not. */
	int dup_fd = dup(fd);
	int second = file_open("f", O_RDWR);
	EQ(3, lseek(fd, 3, SEEK_SET));
	EQ(3, lseek(dup_fd, 0, SEEK_CUR));
	EQ(0, lseek(second, 0, SEEK_CUR));
	ERR(EFAULT, write(fd, pointer_bad(), 10));
	ERR(EFAULT, read(fd, pointer_bad(), 10));
}

static void case_vectors(void)
{
	char a[3];
	char b[5000];
	char got[6000];
	volatile int bad_counts[2] = { -1, IOV_MAX + 1 };
	struct iovec iov[3] = { { a, 3 }, { b, sizeof(b) }, { a, 0 } };
	int fd = file_open("f", O_RDWR | O_CREAT);

	memset(a, 'a', sizeof(a));
	memset(b, 'b', sizeof(b));
	EQ(5003, writev(fd, iov, 3));
	EQ(5003, pwritev(fd, iov, 3, 100));
	EQ(5103, pread(fd, got, sizeof(got), 0));
	EQ('b', got[99]);
	EQ('a', got[100]);
	EQ('b', got[103]);
	EQ(0, lseek(fd, 0, SEEK_SET));
	EQ(5003, readv(fd, iov, 2));
	EQ(100, preadv(fd, iov, 2, 5003));
	ERR(EINVAL, writev(fd, iov, bad_counts[0]));
	ERR(EINVAL, writev(fd, iov, bad_counts[1]));
	/* pwritev2 and its flags. */
	EQ(5003, pwritev2(fd, iov, 2, 0, RWF_DSYNC));
	EQ(5003, pwritev2(fd, iov, 2, -1, 0));
	EQ(5003, pwritev2(fd, iov, 2, 0, RWF_APPEND));
	EQ(10006 + 5003, fd_stat(fd).st_size);
	EQ(5003,
	   preadv2(fd, iov, 2, 0, RWF_HIPRI) == -1 && errno == EOPNOTSUPP ? 5003 : preadv2(fd, iov, 2, 0, 0));
	ERR2(EOPNOTSUPP, EINVAL, preadv2(fd, iov, 2, 0, 1 << 20));
}

struct appender {
	int id;
	int count;
	size_t len;
};

static void append_body(void *arg)
{
	const struct appender *a = arg;
	char *record = malloc(a->len);
	int fd = file_open("log", O_WRONLY | O_APPEND);

	if (!record)
		abort();
	memset(record, 'A' + a->id, a->len);
	record[a->len - 1] = '\n';
	for (int i = 0; i < a->count; i++)
		EQ(a->len, write(fd, record, a->len));
	free(record);
}

/* Appends of several processes do not tear and none is lost. */
static void append_try(size_t len)
{
	enum { WRITERS = 4, COUNT = 200 };
	struct appender a[WRITERS];
	pid_t pids[WRITERS];
	int seen[WRITERS] = { 0 };
	char *all = malloc(WRITERS * COUNT * len);
	int fd;

	check_context("records of %zu", len);
	file_make("log", "", 0);
	for (int i = 0; i < WRITERS; i++) {
		a[i] = (struct appender){ i, COUNT, len };
		pids[i] = child_start(append_body, &a[i]);
	}
	for (int i = 0; i < WRITERS; i++)
		child_wait(pids[i]);
	fd = file_open("log", O_RDONLY);
	EQ(WRITERS * COUNT * len, fd_stat(fd).st_size);
	EQ(WRITERS * COUNT * len, read(fd, all, WRITERS * COUNT * len));
	for (size_t r = 0; r < WRITERS * COUNT; r++) {
		char *rec = all + r * len;
		bool whole = rec[0] >= 'A' && rec[0] < 'A' + WRITERS && rec[len - 1] == '\n';

		for (size_t k = 0; whole && k < len - 1; k++)
			whole = rec[k] == rec[0];
		if (!TRUE(whole))
			break;
		seen[rec[0] - 'A']++;
	}
	for (int i = 0; i < WRITERS; i++)
		EQ(COUNT, seen[i]);
	free(all);
}

static void case_append(void)
{
	int a = file_open("f", O_RDWR | O_CREAT | O_APPEND);
	int b = file_open("f", O_RDWR);
	char got[8];

	EQ(2, write(a, "ab", 2));
	EQ(4, pwrite(b, "WXYZ", 4, 0));
	EQ(2, write(a, "cd", 2));
	EQ(6, fd_stat(a).st_size);
	EQ(6, lseek(a, 0, SEEK_CUR));
	EQ(6, pread(b, got, 8, 0));
	MEMEQ("WXYZcd", got, 6);
	/* Linux appends with pwrite too. */
	EQ(1, pwrite(a, "e", 1, 0));
	EQ(7, fd_stat(a).st_size);
	OK(ftruncate(b, 3));
	EQ(1, write(a, "!", 1));
	EQ(4, pread(b, got, 8, 0));
	MEMEQ("WXY!", got, 4);
	EQ(0, fcntl(a, F_SETFL, 0));
	EQ(1, pwrite(a, "Q", 1, 0));
	EQ(4, fd_stat(a).st_size);
	append_try(10);
	append_try(333);
	append_try(5000);
}

static void case_sparse(void)
{
	static const off_t at[] = { 0, 1 << 20, 10 << 20, (off_t)1 << 32, (off_t)1 << 40 };
	unsigned char page[4096];
	unsigned char got[4096];
	unsigned char zero[4096] = { 0 };
	int fd = file_open("f", O_RDWR | O_CREAT);

	bytes_fill(page, sizeof(page), 9);
	for (int i = 0; i < 5; i++)
		EQ(4096, pwrite(fd, page, 4096, at[i]));
	EQ(at[4] + 4096, fd_stat(fd).st_size);
	OK(fsync(fd));
	TRUE(fd_stat(fd).st_blocks < 8 << 11);
	for (int i = 0; i < 5; i++) {
		EQ(4096, pread(fd, got, 4096, at[i]));
		MEMEQ(page, got, 4096);
		if (i < 4) {
			EQ(4096, pread(fd, got, 4096, at[i] + 8192));
			MEMEQ(zero, got, 4096);
			EQ(4096, pread(fd, got, 4096, at[i + 1] - 4096));
			MEMEQ(zero, got, 4096);
		}
	}
	/* Across an edge. */
	EQ(4096, pread(fd, got, 4096, at[1] - 2048));
	MEMEQ(zero, got, 2048);
	MEMEQ(page, got + 2048, 2048);
}

static void case_direct(void)
{
	unsigned char *want = buffer_make(1 << 20);
	unsigned char *got = buffer_make(1 << 20);
	int direct = open("f", O_RDWR | O_CREAT | O_DIRECT, 0644);
	int cached;

	if (direct == -1 && errno == EINVAL)
		check_skip("no O_DIRECT");
	MUST(direct);
	cached = file_open("f", O_RDWR);
	bytes_fill(want, 1 << 20, 1);
	EQ(1 << 20, pwrite(direct, want, 1 << 20, 0));
	EQ(1 << 20, pread(cached, got, 1 << 20, 0));
	MEMEQ(want, got, 1 << 20);
	/* Written through the cache, read around it; and the other way round, in turns. */
	for (int i = 0; i < 50; i++) {
		off_t at = (off_t)(i * 37 % 256) * 4096;

		memset(want + at, i, 4096);
		EQ(4096, pwrite(i & 1 ? direct : cached, want + at, 4096, at));
		EQ(4096, pread(i & 1 ? cached : direct, got, 4096, at));
		MEMEQ(want + at, got, 4096);
	}
	EQ(1 << 20, pread(direct, got, 1 << 20, 0));
	MEMEQ(want, got, 1 << 20);
	EQ(0, pread(direct, got, 4096, 1 << 20));
	/* Past the end. */
	EQ(4096, pwrite(direct, want, 4096, 2 << 20));
	EQ((2 << 20) + 4096, fd_stat(cached).st_size);
	free(want);
	free(got);
}

static void case_sync_flags(void)
{
	static const int flags[] = { O_SYNC, O_DSYNC, O_SYNC | O_APPEND };
	char got[12];

	for (int i = 0; i < 3; i++) {
		int fd = file_open("f", O_RDWR | O_CREAT | O_TRUNC | flags[i]);

		EQ(11, write(fd, "hello world", 11));
		EQ(11, pread(fd, got, 12, 0));
		OK(fsync(fd));
		OK(fdatasync(fd));
		OK(sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER));
		OK(syncfs(fd));
		close(fd);
	}
	int dir = file_open(".", O_RDONLY | O_DIRECTORY);
	OK(fsync(dir));
	OK(fdatasync(dir));
}

static void case_sendfile_splice(void)
{
	unsigned char *want = buffer_make(300000);
	unsigned char *got = buffer_make(300000);
	int pipes[2];
	off_t off = 0;
	off_t off_out = 0;
	ssize_t n;
	int src;
	int dst;

	bytes_fill(want, 300000, 1);
	file_make("src", want, 300000);
	src = file_open("src", O_RDONLY);
	dst = file_open("dst", O_RDWR | O_CREAT);
	while (off < 300000 && (n = OK(sendfile(dst, src, &off, 300000 - (size_t)off))) > 0)
		;
	EQ(300000, pread(dst, got, 300000, 0));
	MEMEQ(want, got, 300000);
	OK(ftruncate(dst, 0));
	MUST(pipe(pipes));
	memset(got, 0, 300000);
	for (off = 0; off < 300000;) {
		n = OK(splice(src, &off, pipes[1], NULL, 60000, 0));
		while (n > 0) {
			ssize_t out = OK(splice(pipes[0], NULL, dst, &off_out, (size_t)n, 0));

			if (out <= 0)
				return;
			n -= out;
		}
	}
	EQ(300000, pread(dst, got, 300000, 0));
	MEMEQ(want, got, 300000);
	EQ(300000, fd_stat(dst).st_size);
	free(want);
	free(got);
}

/* Data is there for whoever opens after close, whatever was cached by whom. */
static void reader_body(void *arg)
{
	char buf[16] = "";
	int fd = file_open("f", O_RDONLY);

	EQ(5, read(fd, buf, 16));
	STREQ(arg, buf);
}

static void case_close_to_open(void)
{
	char text[8];

	for (int i = 0; i < 100; i++) {
		snprintf(text, sizeof(text), "%05d", i);
		file_make(i & 1 ? "tmp" : "f", text, 5);
		if (i & 1)
			OK(rename("tmp", "f"));
		child_run(reader_body, text);
	}
}

static const struct check_case cases[] = {
	{ "sizes", case_sizes },
	{ "offsets", case_offsets },
	{ "position", case_position },
	{ "vectors", case_vectors },
	{ "append", case_append },
	{ "sparse", case_sparse },
	{ "direct", case_direct },
	{ "sync_flags", case_sync_flags },
	{ "sendfile_splice", case_sendfile_splice },
	{ "close_to_open", case_close_to_open },
};

CHECK_MAIN(cases)
