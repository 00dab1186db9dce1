/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A program that knows nothing of umbrafs: calls on descriptors by chance, in one process and in children, and says what each came to. What it says must be the same on
 * every file system, with and without umbra-run: see umbra_run_data.sh.
 *
 *   call_script DIR SEED STEPS
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILES 4u
#define FDS 12u
#define SIZE_MAX_BYTES 300000u
#define PART_MAX 70000u

static uint64_t number;
static int fds[FDS];
static FILE *streams[FDS];
static uint8_t buf[PART_MAX + 64];

static uint32_t draw(uint32_t below)
{
	number ^= number << 13;
	number ^= number >> 7;
	number ^= number << 17;
	return (uint32_t)(number >> 20) % below;
}

static uint32_t sum(const uint8_t *at, size_t len)
{
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < len; i++)
		h = (h ^ at[i]) * 16777619u;
	return h;
}

static void say(const char *what, unsigned slot, long rc, const void *data, size_t len)
{
	printf("%s %u: %ld%s%s", what, slot, rc, rc < 0 ? " " : "", rc < 0 ? strerrorname_np(errno) : "");
	if (data && rc > 0)
		printf(" %08x", sum(data, (size_t)rc < len ? (size_t)rc : len));
	printf("\n");
}

static void fill(size_t len)
{
	uint32_t x = draw(1u << 30);

	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)(x + i * 13 + (i >> 9));
}

static uint32_t length(void)
{
	return draw(3) == 0 ? draw(PART_MAX) : draw(2) ? 4096 * (1 + draw(4)) : draw(500);
}

static off_t place(void)
{
	return draw(2) ? (off_t)draw(SIZE_MAX_BYTES) : (off_t)draw(SIZE_MAX_BYTES / 4096) * 4096;
}

static void close_slot(unsigned i)
{
	if (streams[i])
		say("fclose", i, fclose(streams[i]), NULL, 0);
	else if (fds[i] >= 0)
		say("close", i, draw(4) ? close(fds[i]) : (int)syscall(SYS_close, fds[i]), NULL, 0);
	streams[i] = NULL;
	fds[i] = -1;
}

static void open_slot(unsigned i)
{
	static const int modes[] = { O_RDWR, O_RDWR, O_RDWR, O_RDONLY, O_WRONLY, O_RDWR | O_APPEND };
	char name[8] = { 'f', (char)('0' + draw(FILES)) };
	unsigned how = draw(8);

	close_slot(i);
	if (how == 0) {
		streams[i] = fopen(name, "r+");
		fds[i] = streams[i] ? fileno(streams[i]) : -1;
	} else {
		fds[i] = open(name, modes[draw(6)] | (how == 1 ? O_TRUNC : 0) | (how == 2 ? O_DSYNC : 0),
			      0644);
	}
	say("open", i, fds[i] < 0 ? -1 : 0, NULL, 0);
}

static void step_vectors(unsigned i, bool store)
{
	uint32_t a = length() / 3, b = length() / 3, c = length() / 3;
	struct iovec iov[3] = { { buf, a }, { buf + a, b }, { buf + a + b, c } };
	off_t off = place();
	int count = (int)draw(4);

	if (store)
		fill(a + b + c);
	if (draw(2))
		say(store ? "pwritev2" : "preadv2", i,
		    store ? pwritev2(fds[i], iov, count, off, draw(2) ? RWF_DSYNC : 0) :
			    preadv2(fds[i], iov, count, off, 0),
		    buf, a + b + c);
	else
		say(store ? "pwritev" : "preadv", i,
		    store ? pwritev(fds[i], iov, count, off) : preadv(fds[i], iov, count, off), buf,
		    a + b + c);
}

static void step_bad(unsigned i)
{
	static uint8_t *hole;

	if (!hole)
		hole = mmap(NULL, 65536, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	say("size", i, lseek(fds[i], 0, SEEK_END), NULL, 0);
	say("seek", i, lseek(fds[i], 5, SEEK_SET), NULL, 0);
	/* Nothing is read past the end, so that nothing is wrong there. */
	if (ftruncate(fds[i], 200000) == 0)
		say("bad pread", i, pread(fds[i], hole, 8192, 4096), NULL, 0);
	say("bad pwrite", i, pwrite(fds[i], hole, 8192, 4096), NULL, 0);
	say("bad preadv", i, preadv(fds[i], (struct iovec *)hole, 2, 0), NULL, 0);
	say("negative", i, pread(fds[i], buf, 10, -5), NULL, 0);
	say("nothing", i, pwrite(fds[i], buf, 0, 5), NULL, 0);
	say("not open", i, pread(9999, buf, 10, 0), NULL, 0);
}

static void step_flags(unsigned i)
{
	int flags = fcntl(fds[i], F_GETFL);

	say("flags", i, flags, NULL, 0);
	say("setfl", i, fcntl(fds[i], F_SETFL, draw(3) ? flags & ~O_APPEND : flags | O_APPEND), NULL, 0);
	say("flags", i, fcntl(fds[i], F_GETFL), NULL, 0);
}

static void step_map(unsigned i)
{
	struct stat st;
	const uint8_t *at;

	if (fstat(fds[i], &st) || st.st_size == 0)
		return;
	at = mmap(NULL, (size_t)st.st_size, PROT_READ, draw(2) ? MAP_SHARED : MAP_PRIVATE, fds[i], 0);
	say("mmap", i, at == MAP_FAILED ? -1 : 0, NULL, 0);
	if (at == MAP_FAILED)
		return;
	printf("mapped %08x\n", sum(at, (size_t)st.st_size));
	munmap((void *)at, (size_t)st.st_size);
}

static void step(bool may_fork);

static void step_child(void)
{
	pid_t pid;
	int status;

	fflush(stdout);
	for (unsigned i = 0; i < FDS; i++)
		if (streams[i])
			fflush(streams[i]);
	pid = draw(3) ? fork() : _Fork();
	if (pid == 0) {
		for (unsigned k = 0; k < 20; k++)
			step(false);
		fflush(stdout);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || status != 0)
		printf("child %x\n", (unsigned)status);
	for (unsigned k = 0; k < 20; k++) /* chance goes on as in a child of its own */
		draw(2);
}

static void step_vfork(unsigned i, unsigned k)
{
	pid_t pid = vfork();

	if (pid == 0) {
		close(fds[i]);
		if (fds[k] >= 0)
			dup2(fds[k], fds[i]);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

static void step_copies(unsigned i, unsigned k)
{
	switch (draw(4)) {
	case 0:
		close_slot(k);
		fds[k] = dup(fds[i]);
		say("dup", k, fds[k] < 0 ? -1 : 0, NULL, 0);
		break;
	case 1:
		close_slot(k);
		fds[k] = fcntl(fds[i], F_DUPFD_CLOEXEC, 20);
		say("dupfd", k, fds[k] < 0 ? -1 : 0, NULL, 0);
		break;
	case 2:
		if (fds[k] >= 0 && !streams[k] && !streams[i])
			say("dup2", k, dup2(fds[i], fds[k]) == fds[k] ? 0 : -1, NULL, 0);
		break;
	default:
		if (fds[k] >= 0 && i != k && !streams[k] && !streams[i])
			say("dup3", k, dup3(fds[i], fds[k], O_CLOEXEC) == fds[k] ? 0 : -1, NULL, 0);
	}
}

static void step_parts(unsigned i, bool store)
{
	uint32_t a = length() / 3, b = length() / 3;
	struct iovec iov[3] = { { buf, a }, { buf, 0 }, { buf + a, b } };
	bool flags = draw(2);

	if (store && lseek(fds[i], 0, SEEK_CUR) >= (off_t)SIZE_MAX_BYTES)
		return;
	if (store)
		fill(a + b);
	if (store)
		say("writev", i, flags ? pwritev2(fds[i], iov, 3, -1, RWF_DSYNC) : writev(fds[i], iov, 3),
		    NULL, 0);
	else
		say("readv", i, flags ? preadv2(fds[i], iov, 3, -1, 0) : readv(fds[i], iov, 3), buf, a + b);
}

/* Within the kernel, which moves the same offset. */
static void step_passed_on(unsigned i, unsigned how)
{
	int to = memfd_create("to", 0), pipes[2];
	ssize_t n;

	if (how == 0) {
		say("sendfile", i, sendfile(to, fds[i], NULL, 5000), NULL, 0);
		n = pread(to, buf, 5000, 0);
	} else {
		if (pipe(pipes))
			return;
		say("splice", i, splice(fds[i], NULL, pipes[1], NULL, 4000, SPLICE_F_NONBLOCK), NULL, 0);
		close(pipes[1]);
		n = read(pipes[0], buf, 4000);
		close(pipes[0]);
	}
	say("got", i, n, buf, 5000);
	close(to);
}

static void step_sequential(unsigned i)
{
	uint32_t len = length();

	switch (draw(9)) {
	case 0:
		say("lseek", i, lseek(fds[i], place(), SEEK_SET), NULL, 0);
		break;
	case 1:
	case 2:
		say("read", i, read(fds[i], buf, len), buf, len);
		break;
	case 3:
	case 4:
		fill(len);
		if (lseek(fds[i], 0, SEEK_CUR) < (off_t)SIZE_MAX_BYTES)
			say("write", i, write(fds[i], buf, len), NULL, 0);
		break;
	case 5:
		step_parts(i, false);
		break;
	case 6:
		step_parts(i, true);
		break;
	case 7:
		step_passed_on(i, draw(2));
		break;
	default:
		say("where", i, lseek(fds[i], 0, draw(3) ? SEEK_CUR : SEEK_END), NULL, 0);
	}
}

static void step_positional(unsigned i)
{
	uint32_t len = length();

	if (draw(2)) {
		say("pread", i, pread(fds[i], buf, len, place()), buf, len);
		return;
	}
	fill(len);
	if (fcntl(fds[i], F_GETFL) & O_APPEND && lseek(fds[i], 0, SEEK_END) > (off_t)SIZE_MAX_BYTES)
		return;
	say("pwrite", i, pwrite(fds[i], buf, len, place()), NULL, 0);
}

static void step(bool may_fork)
{
	unsigned i = draw(FDS), k = draw(FDS), what = draw(100);

	if (fds[i] < 0 || what < 4)
		open_slot(i);
	else if (what < 40)
		step_positional(i);
	else if (what < 50)
		step_vectors(i, draw(2));
	else if (what < 80)
		step_sequential(i);
	else if (what < 85)
		step_copies(i, k);
	else if (what < 88)
		say("ftruncate", i, ftruncate(fds[i], place()), NULL, 0);
	else if (what < 90)
		step_bad(i);
	else if (what < 92 && may_fork) /* umbra-run(1): not in another process */
		step_flags(i);
	else if (what < 94 && may_fork)
		step_child();
	else if (what < 95 && may_fork)
		step_vfork(i, k);
	else if (what < 96)
		close_slot(i);
	else if (what == 98 && draw(6) == 0)
		step_map(i);
}

/* What one way has written the others read: with and without an offset, by a child that has the descriptor, and from file to file in the kernel. */
static void all_ways(void)
{
	enum { BLOCKS = 16, LEN = 4096 };
	int fd = open("f0", O_RDWR), to = open("g", O_RDWR | O_CREAT | O_TRUNC, 0644);

	for (unsigned n = 0; n < BLOCKS; n++) {
		fill(LEN);
		say("write", n, write(fd, buf, LEN), NULL, 0);
	}
	for (unsigned n = 0; n < 6 * BLOCKS; n++) {
		off_t off = (off_t)(n % BLOCKS) * LEN;

		fill(LEN);
		say("pwrite", n, n % 3 ? pwrite(fd, buf, LEN, off) : write(fd, buf, 0), NULL, 0);
		say("pread", n, pread(fd, buf, LEN, off), buf, LEN);
		say("lseek", n, lseek(fd, off, SEEK_SET), NULL, 0);
		say("read", n, read(fd, buf, LEN), buf, LEN);
		say("sendfile", n, sendfile(to, fd, &off, LEN), NULL, 0);
	}
	for (unsigned n = 0; n < BLOCKS; n++)
		say("sent", n, pread(to, buf, LEN, (off_t)(5 * BLOCKS + n) * LEN), buf, LEN);
	fflush(stdout);
	if (vfork() == 0) {
		dup2(fd, 0);
		lseek(0, 0, SEEK_SET);
		execlp("cksum", "cksum", NULL);
		_exit(1);
	}
	wait(NULL);
	close(fd);
	close(to);
	unlink("g");
}

/* What is there in the end, by a descriptor that nothing was done with. */
static void say_file(unsigned n)
{
	char name[8] = { 'f', (char)('0' + n) };
	static uint8_t all[4 * SIZE_MAX_BYTES];
	int fd = open(name, O_RDONLY);
	ssize_t len = read(fd, all, sizeof(all));

	printf("%s: %zd %08x\n", name, len, sum(all, (size_t)len));
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 4 || chdir(argv[1]))
		return 2;
	number = strtoull(argv[2], NULL, 10) * 0x9e3779b97f4a7c15u + 1;
	for (unsigned n = 0; n < FILES; n++) {
		char name[8] = { 'f', (char)('0' + n) };

		fill(PART_MAX);
		close(open(name, O_RDWR | O_CREAT | O_TRUNC, 0644));
		if (truncate(name, n * 100000 + 50000))
			return 2;
	}
	all_ways();
	memset(fds, 0xff, sizeof(fds));
	for (unsigned n = (unsigned)atoi(argv[3]); n > 0; n--)
		step(true);
	for (unsigned i = 0; i < FDS; i++)
		close_slot(i);
	for (unsigned n = 0; n < FILES; n++)
		say_file(n);
	return 0;
}
