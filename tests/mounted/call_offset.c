/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A program that knows nothing of umbrafs: one offset that threads, processes, duplicates of a descriptor and streams share. Each case says what is wrong; it is right on file systems
 * of the kernel's.
 *
 *   call_offset DIR [CASE...]
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKERS 4u
#define RECORD 1024u
#define RECORDS 3000u
#define TAIL 100u

static const char *program;
static unsigned wrong;

/* Between the processes of a case */
static struct shared {
	_Atomic uint32_t seen[4 * RECORDS];
	_Atomic uint32_t tails, ready, read, written;
} * shared;

#define CHECK(what)                                                                            \
	do {                                                                                   \
		if (!(what) && wrong++ < 8)                                                    \
			printf("wrong, line %d: %s (%s)\n", __LINE__, #what, strerror(errno)); \
	} while (0)

static void record_fill(uint8_t *at, uint32_t id)
{
	for (size_t i = 0; i < RECORD; i += 4)
		memcpy(at + i, &id, 4);
}

/* Which record it is; UINT32_MAX: a mixture */
static uint32_t record_id(const uint8_t *at, size_t size)
{
	uint32_t id;

	memcpy(&id, at, 4);
	for (size_t i = 4; i + 4 <= size; i += 4)
		if (memcmp(at, at + i, 4) != 0)
			return UINT32_MAX;
	return id;
}

/* Records 0 to RECORDS - 1 and a part of one more. */
static int file_make(int flags)
{
	static uint8_t all[RECORDS * RECORD + TAIL + RECORD];
	int fd = open("f", O_RDWR | O_CREAT | O_TRUNC, 0644);

	for (uint32_t i = 0; i <= RECORDS; i++)
		record_fill(all + (size_t)i * RECORD, i);
	CHECK(pwrite(fd, all, RECORDS * RECORD + TAIL, 0) == RECORDS * RECORD + TAIL);
	close(fd);
	fd = open("f", flags);
	CHECK(fd >= 3);
	memset(shared, 0, sizeof(*shared));
	return fd;
}

static void read_all(int fd)
{
	_Alignas(8) uint8_t at[RECORD];
	struct iovec iov[3] = { { at, 24 }, { at + 24, 1000 - 24 }, { at + 1000, RECORD - 1000 } };

	for (unsigned turn = 0;; turn++) {
		ssize_t n = turn % 3 ? read(fd, at, RECORD) : readv(fd, iov, 3);

		if (n == 0)
			return;
		if (n == TAIL) {
			CHECK(record_id(at, TAIL) == RECORDS);
			atomic_fetch_add(&shared->tails, 1);
		} else if (n == RECORD && record_id(at, RECORD) < RECORDS) {
			atomic_fetch_add(&shared->seen[record_id(at, RECORD)], 1);
		} else {
			CHECK(n == RECORD && record_id(at, RECORD) < RECORDS);
			return;
		}
	}
}

static void *read_thread(void *arg)
{
	read_all((int)(intptr_t)arg);
	return NULL;
}

static void all_seen_once(int fd)
{
	unsigned others = 0;

	for (uint32_t i = 0; i < RECORDS; i++)
		others += shared->seen[i] != 1;
	CHECK(others == 0);
	CHECK(shared->tails == 1);
	CHECK(lseek(fd, 0, SEEK_CUR) == RECORDS * RECORD + TAIL);
}

static void case_read_threads(void)
{
	for (unsigned round = 0; round < 3; round++) {
		int fd = file_make(round == 1 ? O_RDWR : O_RDONLY);
		pthread_t threads[WORKERS];

		for (unsigned i = 0; i < WORKERS; i++)
			pthread_create(&threads[i], NULL, read_thread,
				       (void *)(intptr_t)(round == 2 ? dup(fd) : fd));
		for (unsigned i = 0; i < WORKERS; i++)
			pthread_join(threads[i], NULL);
		all_seen_once(fd);
		close(fd);
	}
}

/* Not before all are there. */
static void meet(void)
{
	atomic_fetch_add(&shared->ready, 1);
	while (atomic_load(&shared->ready) < WORKERS)
		usleep(100);
}

static void child_wait(pid_t pid)
{
	int status = -1;

	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

static void case_read_processes(void)
{
	for (unsigned round = 0; round < 4; round++) {
		int fd = file_make(round % 2 ? O_RDWR : O_RDONLY);
		_Alignas(8) uint8_t at[RECORD];
		pid_t pids[WORKERS];

		/* It is known here before, or not. */
		for (unsigned i = 0; i < (round < 2 ? 20 : 0); i++) {
			CHECK(read(fd, at, RECORD) == RECORD);
			atomic_fetch_add(&shared->seen[i], 1);
		}
		fflush(stdout);
		for (unsigned i = 0; i < WORKERS; i++) {
			pids[i] = i % 2 ? _Fork() : fork();
			if (pids[i] == 0) {
				meet();
				read_all(fd);
				fflush(stdout);
				_exit(wrong != 0);
			}
		}
		for (unsigned i = 0; i < WORKERS; i++)
			child_wait(pids[i]);
		all_seen_once(fd);
		close(fd);
	}
}

/* ---- writing ---- */

/* Half of them lie within the file at first. */
static void write_all(int fd, uint32_t first)
{
	_Alignas(8) uint8_t at[RECORD];
	struct iovec iov[2] = { { at, 500 }, { at + 500, RECORD - 500 } };

	for (uint32_t i = 0; i < 2 * RECORDS / WORKERS; i++) {
		record_fill(at, first + i);
		CHECK((i % 3 ? write(fd, at, RECORD) : writev(fd, iov, 2)) == RECORD);
	}
}

struct writer {
	int fd;
	uint32_t first;
};

static void *write_thread(void *arg)
{
	const struct writer *w = arg;

	write_all(w->fd, w->first);
	return NULL;
}

static void written_are_there(int fd)
{
	int seen = open("f", O_RDONLY);
	unsigned others = 0;
	uint8_t at[RECORD];

	CHECK(lseek(fd, 0, SEEK_CUR) == 2 * RECORDS * RECORD);
	for (uint32_t i = 0; i < 2 * RECORDS; i++) {
		uint32_t id;

		CHECK(read(seen, at, RECORD) == RECORD);
		id = record_id(at, RECORD);
		if (id >= 10000 && id < 10000 + 2 * RECORDS)
			shared->seen[id - 10000]++;
	}
	for (uint32_t i = 0; i < 2 * RECORDS; i++)
		others += shared->seen[i] != 1;
	CHECK(others == 0);
	CHECK(read(seen, at, 1) == 0);
	close(seen);
	close(fd);
}

static void case_write_threads(void)
{
	for (unsigned round = 0; round < 3; round++) {
		int fd = file_make(round ? O_WRONLY : O_RDWR);
		pthread_t threads[WORKERS];
		struct writer writers[WORKERS];

		for (unsigned i = 0; i < WORKERS; i++) {
			writers[i] = (struct writer){ round == 2 ? dup(fd) : fd,
						      10000 + i * 2 * RECORDS / WORKERS };
			pthread_create(&threads[i], NULL, write_thread, &writers[i]);
		}
		for (unsigned i = 0; i < WORKERS; i++)
			pthread_join(threads[i], NULL);
		written_are_there(fd);
	}
}

static void case_write_processes(void)
{
	for (unsigned round = 0; round < 2; round++) {
		int fd = file_make(round ? O_WRONLY : O_RDWR);
		pid_t pids[WORKERS];

		fflush(stdout);
		for (uint32_t i = 0; i < WORKERS; i++) {
			pids[i] = fork();
			if (pids[i] == 0) {
				meet();
				write_all(fd, 10000 + i * 2 * RECORDS / WORKERS);
				fflush(stdout);
				_exit(wrong != 0);
			}
		}
		for (unsigned i = 0; i < WORKERS; i++)
			child_wait(pids[i]);
		written_are_there(fd);
	}
}

/* ---- both at one offset ---- */

static void *both_thread(void *arg)
{
	const struct writer *w = arg;
	_Alignas(8) uint8_t at[RECORD];

	for (uint32_t i = 0; i < 1500; i++) {
		if (i % 4 == w->first % 4) {
			record_fill(at, 10000);
			CHECK(write(w->fd, at, RECORD) == RECORD);
			atomic_fetch_add(&shared->written, 1);
		} else {
			ssize_t n = read(w->fd, at, RECORD);

			CHECK(n == 0 || (n == RECORD && record_id(at, RECORD) != UINT32_MAX));
			atomic_fetch_add(&shared->read, n > 0);
		}
	}
	return NULL;
}

/* Whoever reads at the end moves nothing: there are no gaps. */
static void case_both_threads(void)
{
	for (unsigned round = 0; round < 4; round++) {
		int fd = file_make(O_RDWR), seen;
		pthread_t threads[WORKERS];
		struct writer writers[WORKERS];
		uint32_t old = round % 2 ? 1000 : 0, count;
		uint8_t at[RECORD];
		struct stat st;

		CHECK(ftruncate(fd, old * RECORD) == 0);
		for (unsigned i = 0; i < WORKERS; i++) {
			writers[i] = (struct writer){ fd, i };
			pthread_create(&threads[i], NULL, both_thread, &writers[i]);
		}
		for (unsigned i = 0; i < WORKERS; i++)
			pthread_join(threads[i], NULL);
		count = shared->read + shared->written;
		CHECK(lseek(fd, 0, SEEK_CUR) == count * RECORD);
		CHECK(fstat(fd, &st) == 0 && st.st_size == (count > old ? count : old) * RECORD);
		seen = open("f", O_RDONLY);
		for (uint32_t i = 0; i < count; i++) {
			CHECK(read(seen, at, RECORD) == RECORD);
			CHECK(record_id(at, RECORD) == 10000 || (i < old && record_id(at, RECORD) == i));
		}
		close(seen);
		close(fd);
	}
}

/* ---- the same offset by other ways ---- */

/* What comes next at the offset of fd. */
static uint32_t next_of(int fd)
{
	_Alignas(8) uint8_t at[RECORD];

	return read(fd, at, RECORD) == RECORD ? record_id(at, RECORD) : UINT32_MAX;
}

static int passed(int fd)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	char byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	int pair[2], got;

	CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(int));
	CHECK(sendmsg(pair[0], &msg, 0) == 1);
	CHECK(recvmsg(pair[1], &msg, 0) == 1);
	memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
	close(pair[0]);
	close(pair[1]);
	return got;
}

static void case_descriptors(void)
{
	int fd = file_make(O_RDWR), copy, sent, own, out = open("g", O_RDWR | O_CREAT | O_TRUNC, 0644);
	char name[40];
	uint32_t n;

	for (n = 0; n < 20; n++)
		CHECK(next_of(fd) == n);
	copy = dup(fd);
	sent = passed(fd);
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	own = open(name, O_RDWR);
	CHECK(copy >= 0 && sent >= 0 && own >= 0);
	for (uint32_t k = 0; k < 100; k++) {
		CHECK(next_of(fd) == n++);
		CHECK(next_of(copy) == n++);
		CHECK(next_of(sent) == n++);
		CHECK(next_of(own) == k);
		CHECK(lseek(copy, 0, SEEK_CUR) == n * RECORD);
		if (k % 10 == 0) {
			n = 500 + k;
			CHECK(lseek(sent, n * RECORD, SEEK_SET) == n * RECORD);
		}
		if (k % 10 == 5) {
			CHECK(sendfile(out, fd, NULL, RECORD) == RECORD);
			n++;
		}
		if (k % 10 == 7) {
			CHECK(copy_file_range(copy, NULL, out, NULL, 2 * RECORD, 0) == 2 * RECORD);
			n += 2;
		}
	}
	CHECK(lseek(out, 0, SEEK_CUR) == 30 * RECORD);
	close(out);
	close(own);
	close(sent);
	close(copy);
	close(fd);
}

static void case_streams(void)
{
	int fd = file_make(O_RDWR);
	FILE *stream = fdopen(fd, "r+");
	_Alignas(8) uint8_t at[RECORD];

	for (uint32_t k = 0; k < 60; k++) {
		uint32_t n = (k * 37) % 1000;

		CHECK(fseek(stream, (long)(n * RECORD), SEEK_SET) == 0);
		CHECK(fread(at, 1, RECORD, stream) == RECORD && record_id(at, RECORD) == n);
		/* Where the stream has read to. */
		CHECK(fflush(stream) == 0);
		CHECK(lseek(fd, 0, SEEK_CUR) == (n + 1) * RECORD);
		CHECK(next_of(fd) == n + 1);
		CHECK(next_of(fd) == n + 2);
		record_fill(at, n + 3);
		CHECK(write(fd, at, RECORD) == RECORD);
		CHECK(fseek(stream, 0, SEEK_CUR) == 0);
		CHECK(fread(at, 1, RECORD, stream) == RECORD && record_id(at, RECORD) == n + 4);
	}
	fclose(stream);
}

static pid_t program_start(const char *number)
{
	pid_t pid = vfork();

	if (pid == 0) {
		execl(program, program, "--next", number, (char *)NULL);
		_exit(1);
	}
	return pid;
}

static void case_programs(void)
{
	int fd = file_make(O_RDONLY);
	char number[12];

	for (uint32_t n = 0; n < 20; n++)
		CHECK(next_of(fd) == n);
	snprintf(number, sizeof(number), "%d", fd);
	for (uint32_t n = 20; n < 60; n += 2) {
		child_wait(program_start(number));
		CHECK(next_of(fd) == n + 1);
	}
	close(fd);
}

/* It ends at any time; whoever has the offset goes on. */
static void case_killed(void)
{
	for (unsigned round = 0; round < 40; round++) {
		int fd = file_make(round % 2 ? O_RDWR : O_RDONLY);
		uint32_t last = 0, n;
		pid_t pid;

		fflush(stdout);
		pid = fork();
		if (pid == 0) {
			_Alignas(8) uint8_t at[RECORD];

			for (;;) {
				if (lseek(fd, 0, SEEK_CUR) > RECORDS / 2 * RECORD)
					lseek(fd, 0, SEEK_SET);
				atomic_store(&shared->ready, read(fd, at, RECORD) == RECORD);
			}
		}
		while (!atomic_load(&shared->ready))
			usleep(100);
		for (unsigned k = 0; k < round * 5; k++)
			CHECK(next_of(fd) < RECORDS);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		last = next_of(fd);
		CHECK(last < RECORDS);
		while ((n = next_of(fd)) != UINT32_MAX)
			CHECK(n == ++last);
		CHECK(last == RECORDS - 1);
		close(fd);
	}
}

/* Whoever follows the end of a file sees each byte once. */
static void case_followed(void)
{
	int to = file_make(O_WRONLY | O_APPEND), fd = open("f", O_RDONLY);
	_Alignas(8) uint8_t at[3 * RECORD];
	uint32_t n = 0;

	CHECK(ftruncate(to, 0) == 0);
	for (unsigned k = 0; k < 300; k++) {
		unsigned count = 1 + k % 2;

		for (unsigned i = 0; i < count; i++) {
			record_fill(at, n + i);
			CHECK(write(to, at, RECORD) == RECORD);
		}
		CHECK(read(fd, at, 3 * RECORD) == count * RECORD);
		CHECK(record_id(at, RECORD) == n);
		n += count;
		CHECK(read(fd, at, RECORD) == 0);
		CHECK(lseek(fd, 0, SEEK_CUR) == n * RECORD);
	}
	close(to);
	close(fd);
}

static void case_errors(void)
{
	uint8_t *half = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), at[10];
	int fd = file_make(O_RDONLY), to = open("f", O_WRONLY), dir = open(".", O_RDONLY);
	struct iovec bad[2] = { { at, 10 }, { half + 4096, 100 } };
	volatile int many = 2000;

	mprotect(half + 4096, 4096, PROT_NONE);
	for (uint32_t n = 0; n < 20; n++)
		CHECK(next_of(fd) == n);
	for (uint32_t n = 0; n < 20; n++)
		CHECK(write(to, half, 100) == 100);
	CHECK(write(fd, at, 10) < 0 && errno == EBADF);
	CHECK(read(to, at, 10) < 0 && errno == EBADF);
	CHECK(read(9999, at, 10) < 0 && errno == EBADF);
	CHECK(read(-1, at, 10) < 0 && errno == EBADF);
	CHECK(read(dir, at, 10) < 0 && errno == EISDIR);
	CHECK(read(fd, at, 0) == 0 && write(to, at, 0) == 0);
	CHECK(read(fd, half + 4096, 100) < 0 && errno == EFAULT);
	CHECK(write(to, half + 4096, 100) < 0 && errno == EFAULT);
	CHECK(readv(fd, bad, many) < 0 && errno == EINVAL);
	CHECK(readv(fd, (struct iovec *)(void *)(half + 4096), 2) < 0 && errno == EFAULT);
	CHECK(lseek(fd, 0, SEEK_CUR) == 20 * RECORD && lseek(to, 0, SEEK_CUR) == 2000);
	CHECK(lseek(fd, -5, SEEK_SET) < 0 && errno == EINVAL);
	CHECK(lseek(fd, -21 * (off_t)RECORD, SEEK_CUR) < 0 && errno == EINVAL);
	CHECK(next_of(fd) == 20);
	/* Far behind the end, and at what there can be no offset. */
	CHECK(lseek(fd, 1ll << 40, SEEK_SET) == 1ll << 40 && read(fd, at, 10) == 0);
	CHECK(lseek(fd, 0, SEEK_CUR) == 1ll << 40);
	CHECK(lseek(fd, RECORDS * RECORD, SEEK_SET) > 0 && read(fd, half, 4096) == TAIL);
	CHECK(lseek(fd, 0, SEEK_CUR) == RECORDS * RECORD + TAIL && read(fd, half, 10) == 0);
	/* At the end of what can be read there is less. */
	CHECK(lseek(fd, 0, SEEK_SET) == 0);
	memset(at, 0, sizeof(at));
	{
		ssize_t n = readv(fd, bad, 2);

		CHECK(lseek(fd, 0, SEEK_CUR) == (n < 0 ? 0 : n));
	}
	close(dir);
	close(to);
	close(fd);
	munmap(half, 8192);
}

/* The times move, and rights that a write takes away are gone, when somebody looks. */
static void case_attributes(void)
{
	int fd = file_make(O_RDWR);
	struct stat before, after;
	uint8_t at[RECORD] = { 0 };

	CHECK(fchmod(fd, 06755) == 0);
	for (unsigned i = 0; i < 20; i++)
		CHECK(read(fd, at, RECORD) == RECORD);
	CHECK(fstat(fd, &before) == 0);
	do
		CHECK(write(fd, at, RECORD) == RECORD && fstat(fd, &after) == 0);
	while (wrong == 0 && after.st_mtim.tv_sec == before.st_mtim.tv_sec &&
	       after.st_mtim.tv_nsec == before.st_mtim.tv_nsec && lseek(fd, 0, SEEK_SET) == 0);
	/* The right to keep them is that of who writes. */
	if (geteuid() == 0)
		CHECK((after.st_mode & 07777) == 06755);
	else
		CHECK((after.st_mode & 07777) == 0755);
	close(fd);
}

static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {
	{ "attributes", case_attributes },
	{ "both_threads", case_both_threads },
	{ "descriptors", case_descriptors },
	{ "errors", case_errors },
	{ "followed", case_followed },
	{ "killed", case_killed },
	{ "programs", case_programs },
	{ "read_processes", case_read_processes },
	{ "read_threads", case_read_threads },
	{ "streams", case_streams },
	{ "write_processes", case_write_processes },
	{ "write_threads", case_write_threads },
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
	program = "/proc/self/exe";
	if (argc == 3 && strcmp(argv[1], "--next") == 0)
		return next_of(atoi(argv[2])) == UINT32_MAX;
	if (argc < 2 || chdir(argv[1]))
		return 2;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (is_wanted(cases[i].name, argv + 2)) {
			unsigned before = wrong;

			cases[i].run();
			printf("%s: %u wrong\n", cases[i].name, wrong - before);
		}
	return wrong != 0;
}
