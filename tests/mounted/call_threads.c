/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A program that knows nothing of umbrafs: threads that open, read, write and close files of their own and of all, so that the numbers of descriptors go round among
 * them, while others fork, and a signal interrupts all of it with calls of its own.
 *
 *   call_threads DIR
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 6u
#define ROUNDS 250u
#define BLOCK 4096u
#define BLOCKS 16u

static atomic_uint wrong;
static int shared_fd, signal_fd;

static void bad(const char *what)
{
	if (atomic_fetch_add(&wrong, 1) < 5)
		printf("wrong: %s (%s)\n", what, strerror(errno));
}

/* Block n of file f always holds words of (f, n), and how often it was written. */
static void block_fill(uint32_t *block, uint32_t f, uint32_t n, uint32_t round)
{
	for (size_t i = 0; i < BLOCK / 4; i += 4) {
		block[i] = f;
		block[i + 1] = n;
		block[i + 2] = round;
		block[i + 3] = ~f;
	}
}

static void block_check(const uint32_t *block, uint32_t f, uint32_t n)
{
	for (size_t i = 0; i < BLOCK / 4; i += 4)
		if (block[i] != f || block[i + 1] != n || block[i + 3] != ~f) {
			bad("bytes of another file");
			return;
		}
}

static int file_open(uint32_t f)
{
	char name[24];

	snprintf(name, sizeof(name), "t%u", f);
	return open(name, O_RDWR | O_CREAT, 0644);
}

static void work_on(int fd, uint32_t f, uint32_t round)
{
	_Alignas(16) uint32_t block[BLOCK / 4];

	for (uint32_t n = 0; n < BLOCKS; n += 1 + round % 3) {
		block_fill(block, f, n, round);
		if (pwrite(fd, block, BLOCK, n * BLOCK) != BLOCK)
			bad("pwrite");
		memset(block, 0, BLOCK);
		if (pread(fd, block, BLOCK, n * BLOCK) != BLOCK)
			bad("pread");
		block_check(block, f, n);
		if (f != THREADS && block[2] != round)
			bad("what another round wrote");
	}
}

static void *thread(void *arg)
{
	uint32_t self = (uint32_t)(uintptr_t)arg;

	for (uint32_t round = 1; round <= ROUNDS; round++) {
		uint32_t f = self;
		int fd = file_open(f), copy;

		if (fd < 0) {
			bad("open");
			continue;
		}
		work_on(fd, f, round);
		copy = dup(fd);
		close(fd);
		work_on(copy, f, round);
		if (round % 16 == 0) {
			pid_t pid = fork();

			if (pid == 0) {
				work_on(copy, f, round);
				_exit(atomic_load(&wrong) != 0);
			}
			int status = 1;
			while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
				;
			if (status)
				bad("in a child");
		}
		if (round % 8 == self)
			dup2(shared_fd, copy);
		close(copy);
		work_on(shared_fd, THREADS, round);
	}
	return NULL;
}

static void on_signal(int sig)
{
	uint32_t word[4];
	int before = errno;

	(void)sig;
	if (pread(signal_fd, word, sizeof(word), BLOCK) != sizeof(word) || word[0] != THREADS + 1)
		bad("in a handler");
	if (pwrite(signal_fd, word, sizeof(word), BLOCK) != sizeof(word))
		bad("pwrite in a handler");
	close(dup(signal_fd));
	errno = before;
}

static void file_fill(int fd, uint32_t f)
{
	uint32_t block[BLOCK / 4];

	for (uint32_t n = 0; n < BLOCKS; n++) {
		block_fill(block, f, n, 0);
		if (pwrite(fd, block, BLOCK, n * BLOCK) != BLOCK)
			bad("pwrite");
	}
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	pthread_t threads[THREADS];

	if (argc != 2 || chdir(argv[1]))
		return 2;
	shared_fd = file_open(THREADS);
	signal_fd = file_open(THREADS + 1);
	file_fill(shared_fd, THREADS);
	file_fill(signal_fd, THREADS + 1);
	sigaction(SIGUSR1, &action, NULL);
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, thread, (void *)i);
	for (unsigned i = 0; i < THREADS; i++) {
		struct timespec next;

		do {
			for (unsigned k = i; k < THREADS; k++)
				pthread_kill(threads[k], SIGUSR1);
			clock_gettime(CLOCK_REALTIME, &next);
			next.tv_nsec += 2000000;
			if (next.tv_nsec >= 1000000000) {
				next.tv_sec++;
				next.tv_nsec -= 1000000000;
			}
		} while (pthread_timedjoin_np(threads[i], NULL, &next) == ETIMEDOUT);
	}
	printf("%u wrong\n", atomic_load(&wrong));
	return atomic_load(&wrong) != 0;
}
