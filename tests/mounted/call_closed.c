/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One thread closes a descriptor that umbra-run looks at for another one, and something else gets its number: its flags stay as they are.
 *
 *	call_closed FILE        under umbra-run
 *
 * The preload library's question about the descriptor comes here, since the program has an ioctl() of its own: it lasts until the number has been given to a pipe, or
 * for so long that whoever closes it can be seen to wait.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <umbra/direct.h>
#include <umbra/ioctl.h>

#define BLOCK 4096u
#define BLOCKS 60u
#define LIMIT_S 60u
#define CLOSING_TRIES 300u

#define MUST(x) must((x), #x, __LINE__)

int ioctl(int fd, unsigned long request, ...);

static atomic_int idle = -1;
static atomic_bool is_asked, is_closed;
static int ends[2];

static void must(bool ok, const char *what, int line)
{
	if (ok)
		return;
	fprintf(stderr, "call_closed.c:%d: %s\n", line, what);
	exit(1);
}

static void nap(void)
{
	const struct timespec pause = { .tv_nsec = 1000000 };

	nanosleep(&pause, NULL);
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *arg;
	int rc;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	rc = (int)syscall(SYS_ioctl, fd, request, arg);
	if (request == UMBRA_IOC_DIRECT && fd == idle) {
		is_asked = true;
		for (unsigned i = 0; i < CLOSING_TRIES && !is_closed; i++)
			nap();
	}
	return rc;
}

static void *closes(void *arg)
{
	(void)arg;
	while (!is_asked)
		nap();
	MUST(close(idle) == 0);
	MUST(pipe2(ends, O_NONBLOCK) == 0 && (ends[0] == idle || ends[1] == idle));
	is_closed = true;
	return NULL;
}

int main(int argc, char **argv)
{
	char block[BLOCK] = { 1 };
	pthread_t thread;
	int fd;

	MUST(argc == 2);
	alarm(LIMIT_S);
	fd = open(argv[1], O_RDWR | O_CREAT, 0600);
	for (unsigned i = 0; i < BLOCKS; i++)
		MUST(pwrite(fd, block, BLOCK, i * BLOCK) == BLOCK);
	idle = open(argv[1], O_RDONLY);
	MUST(idle >= 0 && read(idle, block, 1) == 1);
	MUST(pthread_create(&thread, NULL, closes, NULL) == 0);
	for (unsigned i = 0; !is_asked; i++) {
		MUST(pwrite(fd, block, 512, (off_t)(i % BLOCKS) * BLOCK) == 512);
		nap();
	}
	MUST(pthread_join(thread, NULL) == 0);
	/* Whoever looked has ended by this: it was this thread. */
	for (unsigned i = 0; i < 2; i++)
		MUST((fcntl(ends[i], F_GETFL) & (O_NONBLOCK | O_DIRECT)) == O_NONBLOCK &&
		     fcntl(ends[i], F_GETSIG) == 0);
	return 0;
}
