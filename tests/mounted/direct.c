/* SPDX-License-Identifier: BSD-3-Clause */
/* Files that are written in bulk, or with O_DIRECT, while others read them through the page cache. (Beside mappings: mmap.c.) */
#define _GNU_SOURCE
#include "files.h"

#include <linux/aio_abi.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { PAGE = 4096 };

/* Between the processes of a case. */
static struct shared {
	volatile bool stop;
	volatile unsigned wrong;
} * shared;

static void shared_make(void)
{
	shared = (struct shared *)mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	MUST(shared == MAP_FAILED ? -1 : 0);
}

enum { WHOLE = 256 * 1024 };

/* Has the kernel fetch all pages again and again. */
static void read_cold(void *arg)
{
	int fd = file_open("f", O_RDONLY);
	unsigned char *got = buffer_make(WHOLE);

	(void)arg;
	while (!shared->stop) {
		EQ(WHOLE, pread(fd, got, WHOLE, 0));
		MUST(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
	}
}

static ssize_t aio_write(aio_context_t aio, int fd, const void *buf, size_t size, off_t off)
{
	struct iocb cb = { .aio_fildes = (uint32_t)fd,
			   .aio_lio_opcode = IOCB_CMD_PWRITE,
			   .aio_buf = (uint64_t)(uintptr_t)buf,
			   .aio_nbytes = size,
			   .aio_offset = off };
	struct iocb *list = &cb;
	struct io_event event;

	MUST(syscall(SYS_io_submit, aio, 1L, &list) == 1 ? 0 : -1);
	MUST(syscall(SYS_io_getevents, aio, 1L, 1L, &event, NULL) == 1 ? 0 : -1);
	return (ssize_t)event.res;
}

/* What an asynchronous write has acknowledged is what the next read says. */
static void aio_is_seen(int flags)
{
	unsigned char *mine = buffer_make(WHOLE), *got = buffer_make(WHOLE);
	aio_context_t aio = 0;
	pid_t pids[2];
	int fd, seen;

	memset(mine, 0, WHOLE);
	file_make("f", mine, WHOLE);
	fd = open("f", flags);
	if (fd < 0 && errno == EINVAL)
		return; /* no O_DIRECT here */
	MUST(fd);
	seen = file_open("f", O_RDONLY);
	MUST(syscall(SYS_io_setup, 4L, &aio));
	shared_make();
	for (unsigned i = 0; i < 2; i++)
		pids[i] = child_start(read_cold, NULL);
	for (unsigned i = 1; i <= 1500; i++) {
		memset(mine, (int)i, WHOLE);
		EQ(WHOLE, aio_write(aio, fd, mine, WHOLE, 0));
		EQ(WHOLE, pread(seen, got, WHOLE, 0));
		if (!MEMEQ(mine, got, WHOLE))
			break;
	}
	shared->stop = true;
	for (unsigned i = 0; i < 2; i++)
		child_wait(pids[i]);
}

static void case_aio_beside_reader(void)
{
	aio_is_seen(O_WRONLY);
	aio_is_seen(O_WRONLY | O_DIRECT);
	aio_is_seen(O_RDWR | O_DIRECT);
}

/* Follows the end of the file as it grows: there is nothing in it but 'x'. */
static void read_end(void *arg)
{
	static char got[1 << 20];
	int fd = file_open("f", O_RDONLY);

	(void)arg;
	while (!shared->stop) {
		off_t end = fd_stat(fd).st_size, from = end - end % PAGE;
		ssize_t n = pread(fd, got, sizeof(got), from > PAGE ? from - PAGE : 0);

		for (ssize_t i = 0; i < n; i++)
			shared->wrong += got[i] != 'x';
	}
}

static void longer_is_whole(int flags)
{
	enum { PIECE = 300001, LONG = 128 << 20 };
	static char piece[PIECE];
	pid_t pids[3];
	int fd;

	memset(piece, 'x', PIECE);
	file_make("f", "", 0);
	fd = file_open("f", flags);
	shared_make();
	for (unsigned i = 0; i < 3; i++)
		pids[i] = child_start(read_end, NULL);
	for (off_t off = 0; off < LONG; off += PIECE)
		EQ(PIECE, pwrite(fd, piece, PIECE, off));
	shared->stop = true;
	for (unsigned i = 0; i < 3; i++)
		child_wait(pids[i]);
	EQ(0, shared->wrong);
	close(fd);
	MUST(unlink("f"));
}

static void case_longer_beside_reader(void)
{
	for (unsigned i = 0; i < 4; i++)
		longer_is_whole(i % 2 ? O_WRONLY | O_APPEND : O_WRONLY);
}

/* One write is carried out in several requests: they stay in order. */
static void case_long_appends(void)
{
	static const int modes[] = { O_WRONLY, O_RDWR, O_WRONLY | O_DIRECT, O_RDWR | O_DIRECT };
	enum { SIZE = 4 << 20, WRITES = 8 };
	uint64_t *words = buffer_make(SIZE);

	for (size_t m = 0; m < sizeof(modes) / sizeof(modes[0]); m++) {
		unsigned wrong = 0;
		int fd;

		unlink("f");
		fd = open("f", modes[m] | O_APPEND | O_CREAT, 0644);
		if (fd < 0 && errno == EINVAL)
			continue; /* no O_DIRECT here */
		MUST(fd);
		for (uint64_t i = 0; i < WRITES; i++) {
			for (uint64_t k = 0; k < SIZE / 8; k++)
				words[k] = i * SIZE / 8 + k;
			EQ(SIZE, write(fd, words, SIZE));
		}
		close(fd);
		fd = file_open("f", O_RDONLY);
		for (uint64_t i = 0; i < WRITES; i++) {
			EQ(SIZE, read(fd, words, SIZE));
			for (uint64_t k = 0; k < SIZE / 8; k++)
				wrong += words[k] != i * SIZE / 8 + k;
		}
		close(fd);
		check_context("open with flags 0%o", (unsigned)modes[m]);
		EQ(0, wrong);
	}
}

static const struct check_case cases[] = {
	{ "aio_beside_reader", case_aio_beside_reader },
	{ "longer_beside_reader", case_longer_beside_reader },
	{ "long_appends", case_long_appends },
};

CHECK_MAIN(cases)
