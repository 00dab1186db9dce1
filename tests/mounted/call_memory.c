/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A program that knows nothing of umbrafs: system calls whose memory is a mapping of a file. Each case says what is wrong; it is right on file systems of the kernel's.
 *
 *   call_memory DIR [CASE...]
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096u
#define BYTES (1u << 20)
#define PART 50000u

static unsigned wrong;

#define CHECK(what)                                                                            \
	do {                                                                                   \
		if (!(what) && wrong++ < 8)                                                    \
			printf("wrong, line %d: %s (%s)\n", __LINE__, #what, strerror(errno)); \
	} while (0)

static uint8_t content[BYTES + PAGE];

static void content_make(uint32_t seed)
{
	for (size_t i = 0; i < sizeof(content); i++)
		content[i] = (uint8_t)((i * 2654435761u + seed) >> 11);
}

static int file_make(const char *name, size_t size)
{
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);

	CHECK(write(fd, content, size) == (ssize_t)size);
	return fd;
}

/* Of a file of its own: nothing of it has been touched. */
static uint8_t *map(const char *name, size_t size, int prot)
{
	int fd = file_make(name, size);
	uint8_t *at = mmap(NULL, size + PAGE, prot, MAP_SHARED, fd, 0);

	CHECK(at != MAP_FAILED);
	close(fd);
	return at;
}

static void unmap(uint8_t *at, size_t size)
{
	CHECK(munmap(at, size + PAGE) == 0);
}

/* What the mapping has is what the file has. */
static void file_check(const char *name, size_t off, const uint8_t *at, size_t len)
{
	static uint8_t got[BYTES];
	int fd = open(name, O_RDONLY);

	CHECK(pread(fd, got, len, (off_t)off) == (ssize_t)len);
	CHECK(memcmp(got, at, len) == 0);
	close(fd);
}

static void case_read(void)
{
	uint8_t *at;
	int from;

	content_make(1);
	from = file_make("from", BYTES);
	content_make(2);
	at = map("m", BYTES, PROT_READ | PROT_WRITE);
	content_make(1);
	CHECK(lseek(from, 0, SEEK_SET) == 0);
	CHECK(read(from, at, PART) == PART && memcmp(at, content, PART) == 0);
	CHECK(read(from, at + 2 * PART, 100) == 100 && memcmp(at + 2 * PART, content + PART, 100) == 0);
	CHECK(pread(from, at + 3 * PART + 1, PART, 777) == PART);
	CHECK(memcmp(at + 3 * PART + 1, content + 777, PART) == 0);
	{
		struct iovec iov[3] = { { at + 5 * PART, 4000 },
					{ content + BYTES, 96 },
					{ at + 7 * PART, PART } };

		CHECK(preadv(from, iov, 3, 12345) == 4096 + PART);
		CHECK(memcmp(at + 5 * PART, content + 12345, 4000) == 0);
		CHECK(memcmp(content + BYTES, content + 12345 + 4000, 96) == 0);
		CHECK(memcmp(at + 7 * PART, content + 12345 + 4096, PART) == 0);
		CHECK(lseek(from, 99, SEEK_SET) == 99);
		CHECK(readv(from, iov, 3) == 4096 + PART && lseek(from, 0, SEEK_CUR) == 99 + 4096 + PART);
		CHECK(memcmp(at + 7 * PART, content + 99 + 4096, PART) == 0);
		file_check("m", 7 * PART, content + 99 + 4096, PART);
	}
	/* All of it, and nothing. */
	CHECK(pread(from, at, BYTES, 0) == BYTES && memcmp(at, content, BYTES) == 0);
	CHECK(pread(from, at, BYTES, BYTES - 10) == 10 && pread(from, at, 10, BYTES) == 0);
	CHECK(read(-1, at, 10) < 0 && errno == EBADF);
	unmap(at, BYTES);
	close(from);
}

static void case_write(void)
{
	uint8_t *at, *same;
	int to = open("to", O_RDWR | O_CREAT | O_TRUNC, 0644);

	content_make(3);
	at = map("m", BYTES, PROT_READ);
	CHECK(write(to, at + 5, PART) == PART && lseek(to, 0, SEEK_CUR) == PART);
	file_check("to", 0, content + 5, PART);
	CHECK(pwrite(to, at + 3 * PART, 2 * PART, 10) == 2 * PART);
	file_check("to", 10, content + 3 * PART, 2 * PART);
	{
		struct iovec iov[2] = { { at + 6 * PART, PART }, { at + 8 * PART, PART } };

		CHECK(writev(to, iov, 2) == 2 * PART && lseek(to, 0, SEEK_CUR) == 3 * PART);
		file_check("to", 2 * PART, content + 8 * PART, PART);
		CHECK(pwritev(to, iov, 2, 5) == 2 * PART);
		file_check("to", 5, content + 6 * PART, PART);
	}
	CHECK(pwrite(to, at, BYTES, 0) == BYTES);
	file_check("to", 0, content, BYTES);
	unmap(at, BYTES);
	/* Of one file, into itself. */
	close(to);
	to = file_make("n", BYTES);
	same = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, to, 0);
	CHECK(pwrite(to, same + PART, PART, 5 * PART) == PART);
	CHECK(memcmp(same + 5 * PART, content + PART, PART) == 0);
	CHECK(pread(to, same + 8 * PART, PART, 0) == PART);
	CHECK(memcmp(same + 8 * PART, content, PART) == 0);
	unmap(same, BYTES - PAGE);
	close(to);
}

static void case_pipes(void)
{
	int fds[2], from;
	uint8_t *at;

	content_make(4);
	at = map("m", BYTES, PROT_READ | PROT_WRITE);
	CHECK(pipe(fds) == 0);
	from = file_make("from", 3000);
	for (unsigned i = 0; i < 20; i++) {
		CHECK(write(fds[1], at + i * PART, 3000) == 3000);
		CHECK(read(fds[0], at + i * PART + 30000, 10000) == 3000);
		CHECK(memcmp(at + i * PART + 30000, content + i * PART, 3000) == 0);
	}
	close(fds[0]);
	close(fds[1]);
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds) == 0);
	memcpy(at, content, BYTES);
	for (unsigned i = 0; i < 20; i++) {
		struct sockaddr_storage name;
		socklen_t len = sizeof(name);
		uint8_t byte[8];
		struct iovec iov[2] = { { at + i * PART + 40000, 500 }, { byte, sizeof(byte) } };
		struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

		CHECK(send(fds[1], at + i * PART, 508, 0) == 508);
		CHECK(recvmsg(fds[0], &msg, 0) == 508);
		CHECK(memcmp(at + i * PART + 40000, content + i * PART, 500) == 0);
		CHECK(memcmp(byte, content + i * PART + 500, 8) == 0);
		CHECK(sendmsg(fds[1], &msg, 0) == 508);
		CHECK(recv(fds[0], at + i * PART + 35000, 400, MSG_TRUNC) == 508);
		CHECK(memcmp(at + i * PART + 35000, content + i * PART, 400) == 0);
		CHECK(sendto(fds[1], at + i * PART, 20000, 0, NULL, 0) == 20000);
		CHECK(recvfrom(fds[0], at + i * PART + 20000, 30000, 0, (struct sockaddr *)&name, &len) ==
		      20000);
		CHECK(memcmp(at + i * PART + 20000, at + i * PART, 20000) == 0);
		memcpy(at, content, BYTES);
	}
	close(fds[0]);
	close(fds[1]);
	close(from);
	unmap(at, BYTES);
}

/* What cannot be is an error, or less, and nothing is lost. */
static void case_errors(void)
{
	uint8_t *readable, *none, *at, got[PAGE];
	int from, fds[2];

	content_make(5);
	from = file_make("from", BYTES);
	readable = map("m", 2 * PAGE, PROT_READ);
	none = map("n", 2 * PAGE, PROT_NONE);
	at = map("o", PAGE, PROT_READ | PROT_WRITE);
	CHECK(pread(from, readable, 100, 0) < 0 && errno == EFAULT);
	CHECK(pread(from, none, 100, 0) < 0 && errno == EFAULT);
	CHECK(pwrite(from, none, 100, 0) < 0 && errno == EFAULT);
	CHECK(pwrite(from, readable, 100, 0) == 100);
	/* The file ends after a page. */
	CHECK(pread(from, at, 2 * PAGE, 10) == PAGE && memcmp(at, content + 10, PAGE) == 0);
	CHECK(pread(from, at + PAGE, PAGE, 0) < 0 && errno == EFAULT);
	CHECK(pwrite(from, at + PAGE / 2, PAGE, 0) == PAGE / 2);
	CHECK(pipe(fds) == 0 && write(fds[1], content, 1000) == 1000);
	CHECK(read(fds[0], readable, 1000) < 0 && errno == EFAULT);
	CHECK(read(fds[0], none, 1000) < 0 && errno == EFAULT);
	CHECK(read(fds[0], at + PAGE, 1000) < 0 && errno == EFAULT);
	CHECK(read(fds[0], got, PAGE) == 1000 && memcmp(got, content, 1000) == 0);
	CHECK(lseek(from, 0, SEEK_SET) == 0 && read(from, readable, 10) < 0 && lseek(from, 0, SEEK_CUR) == 0);
	close(fds[0]);
	close(fds[1]);
	close(from);
	unmap(at, PAGE);
	unmap(none, 2 * PAGE);
	unmap(readable, 2 * PAGE);
}

#define FAULTS(call) CHECK(((errno = 0), (call) < 0) && errno == EFAULT)

/* Every call with memory that is none; fd is at the beginning of its file. */
static void bad_calls(int fd, void *bad, int *fds)
{
	struct iovec part = { bad, PART }, *list = bad;
	struct msghdr msg = { .msg_iov = &part, .msg_iovlen = 1 },
		      lists = { .msg_iov = list, .msg_iovlen = 2 };
	uint8_t got[PAGE];

	FAULTS(pread(fd, bad, 1, 0));
	FAULTS(pread(fd, bad, PART, 0));
	FAULTS(pwrite(fd, bad, 1, 0));
	FAULTS(pwrite(fd, bad, PART, 100));
	FAULTS(read(fd, bad, PART));
	FAULTS(write(fd, bad, PART));
	FAULTS(readv(fd, &part, 1));
	FAULTS(writev(fd, &part, 1));
	FAULTS(preadv(fd, &part, 1, 10));
	FAULTS(pwritev(fd, &part, 1, 10));
	FAULTS(preadv2(fd, &part, 1, -1, 0));
	FAULTS(pwritev2(fd, &part, 1, 10, RWF_DSYNC));
	FAULTS(readv(fd, list, 2));
	FAULTS(writev(fd, list, 2));
	FAULTS(preadv(fd, list, 2, 10));
	FAULTS(pwritev(fd, list, 2, 10));
	FAULTS(sendmsg(fds[0], bad, 0));
	FAULTS(recvmsg(fds[1], bad, MSG_DONTWAIT));
	FAULTS(sendmsg(fds[0], &lists, 0));
	FAULTS(recvmsg(fds[1], &lists, MSG_DONTWAIT));
	FAULTS(sendmsg(fds[0], &msg, 0));
	FAULTS(getsockname(fds[0], (void *)got, bad));
	/* Nothing has come of any of that, and the offset is where it was. */
	CHECK(lseek(fd, 0, SEEK_CUR) == 0);
	CHECK(pread(fd, got, PAGE, 50) == PAGE && memcmp(got, content + 50, PAGE) == 0);
}

/* Memory that is none, without a mapping in the process and with one. */
static void case_bad(void)
{
	void *none = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *bad[] = { NULL,
			(void *)8,
			(void *)(1ull << 47),
			(void *)0x1234567812345678,
			(void *)(UINTPTR_MAX - PAGE + 1),
			none };
	uint8_t *at,
		*pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd, fds[2];

	content_make(7);
	fd = file_make("bad", BYTES);
	CHECK(lseek(fd, 0, SEEK_SET) == 0 && socketpair(AF_UNIX, SOCK_DGRAM, 0, fds) == 0);
	CHECK(pages != MAP_FAILED && mprotect(pages + PAGE, PAGE, PROT_NONE) == 0);
	for (unsigned mapped = 0; mapped < 2; mapped++) {
		struct iovec list[2] = { { pages, PAGE }, { NULL, PAGE } };

		at = mapped ? map("m", PAGE, PROT_READ | PROT_WRITE) : NULL;
		for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
			bad_calls(fd, bad[i], fds);
		for (unsigned i = 0; mapped && i < sizeof(bad) / sizeof(bad[0]); i++)
			FAULTS(mincore(at, PAGE, bad[i]));
		/* What is there of it is done, or some of it. */
		CHECK(pread(fd, pages + 100, PAGE, 0) <= (ssize_t)PAGE - 100);
		CHECK(preadv(fd, list, 2, 0) == PAGE && memcmp(pages, content, PAGE) == 0);
		if (mapped) {
			list[0].iov_base = at;
			CHECK(preadv(fd, list, 2, 0) == PAGE && memcmp(at, content, PAGE) == 0);
			unmap(at, PAGE);
		}
	}
	close(fds[0]);
	close(fds[1]);
	close(fd);
	munmap(pages, 2 * PAGE);
	munmap(none, PAGE);
}

static void case_names(void)
{
	static const char *const names[] = { "one", "two", "three" };
	char *at, *out;
	struct stat *st;

	memset(content, 0, sizeof(content));
	for (unsigned i = 0; i < 3; i++)
		strcpy((char *)content + (10 + i) * PAGE - 2, names[i]);
	at = (char *)map("m", BYTES, PROT_READ);
	out = (char *)map("n", BYTES, PROT_READ | PROT_WRITE);
	st = (struct stat *)(void *)(out + 5 * PAGE - 8);
	for (unsigned i = 0; i < 3; i++) {
		const char *name = at + (10 + i) * PAGE - 2;
		int fd = open(name, O_RDWR | O_CREAT, 0600);
		FILE *stream;

		CHECK(fd >= 0 && write(fd, name, 3) == 3);
		CHECK(fstat(fd, st) == 0 && st->st_size == 3);
		close(fd);
		CHECK(stat(name, st) == 0 && st->st_size == 3 && access(name, R_OK) == 0);
		stream = fopen(name, "r");
		CHECK(stream);
		fclose(stream);
	}
	CHECK(symlink(at + 10 * PAGE - 2, "link") == 0);
	CHECK(readlink("link", out + 20 * PAGE - 1, 100) == 3 && memcmp(out + 20 * PAGE - 1, "one", 3) == 0);
	CHECK(lstat("link", (struct stat *)(void *)(out + 30 * PAGE)) == 0);
	CHECK(rename(at + 11 * PAGE - 2, at + 12 * PAGE - 2) == 0 && access("two", F_OK) < 0);
	CHECK(unlink(at + 12 * PAGE - 2) == 0 && unlink(at + 10 * PAGE - 2) == 0 && unlink("link") == 0);
	CHECK(unlink(at + 10 * PAGE - 2) < 0 && errno == ENOENT);
	CHECK(getcwd(out + 40 * PAGE - 2, PAGE) == out + 40 * PAGE - 2);
	CHECK(getrandom(out + 50 * PAGE - 2, 200, 0) == 200);
	unmap((uint8_t *)out, BYTES);
	unmap((uint8_t *)at, BYTES);
}

static void case_streams(void)
{
	uint8_t *at, *out;
	FILE *to = fopen("to", "w+");

	content_make(6);
	for (size_t i = 0; i < 100000; i++)
		content[i] = (uint8_t)('a' + i % 26);
	content[100000] = 0;
	at = map("m", BYTES, PROT_READ);
	out = map("n", BYTES, PROT_READ | PROT_WRITE);
	CHECK(fwrite(at, 1, BYTES, to) == BYTES);
	CHECK(fputs((const char *)at, to) >= 0);
	rewind(to);
	CHECK(fread(out, 1000, BYTES / 1000, to) == BYTES / 1000);
	CHECK(memcmp(out, content, BYTES / 1000 * 1000) == 0);
	CHECK(fread(out, 1, BYTES, to) == BYTES % 1000 + 100000);
	CHECK(memcmp(out + BYTES % 1000, content, 100000) == 0);
	fclose(to);
	unmap(out, BYTES);
	unmap(at, BYTES);
}

/* Another process takes away what is in place, and the right to store: no message is lost by that. */
static void case_disturbed(void)
{
	bool *stop = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint8_t *at;
	int fds[2];
	pid_t pid;

	content_make(7);
	at = map("m", BYTES, PROT_READ | PROT_WRITE);
	CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds) == 0);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		int from = open("m", O_RDONLY);

		while (!__atomic_load_n(stop, __ATOMIC_RELAXED)) {
			int to = open("copy", O_RDWR | O_CREAT | O_TRUNC, 0644);
			off_t a = 0, b = 0;

			(void)!copy_file_range(from, &a, to, &b, BYTES, 0);
			close(to);
		}
		_exit(0);
	}
	for (uint32_t i = 0; i < 5000; i++) {
		uint8_t *part = at + (i * 7919) % (BYTES - 9000);

		memcpy(part, &i, 4);
		CHECK(send(fds[0], part, 9000, 0) == 9000);
		memset(part, 0xff, 4);
		CHECK(recv(fds[1], part, 9000, MSG_DONTWAIT) == 9000 && memcmp(part, &i, 4) == 0);
		if (wrong)
			break;
	}
	__atomic_store_n(stop, true, __ATOMIC_RELAXED);
	waitpid(pid, NULL, 0);
	file_check("m", 0, at, BYTES);
	close(fds[0]);
	close(fds[1]);
	unmap(at, BYTES);
	munmap(stop, PAGE);
}

static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {
	{ "bad", case_bad },         { "disturbed", case_disturbed }, { "errors", case_errors },
	{ "names", case_names },     { "pipes", case_pipes },         { "read", case_read },
	{ "streams", case_streams }, { "write", case_write },
};

static bool is_wanted(const char *name, char **names)
{
	if (!*names)
		return true;
	for (; *names; names++)
		if (strcmp(*names, name) == 0)
			return true;
	return false;
}

int main(int argc, char **argv)
{
	if (argc < 2 || chdir(argv[1]))
		return 2;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (is_wanted(cases[i].name, argv + 2)) {
			unsigned before = wrong;

			cases[i].run();
			printf("%s: %u wrong\n", cases[i].name, wrong - before);
		}
	return wrong != 0;
}
