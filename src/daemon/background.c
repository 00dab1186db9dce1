/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See background.h.
 */
#include "daemon/background.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define STATUS_SYSTEM 2

/* In the parent: never returns. */
static void wait_child(int fd, pid_t pid, void (*died)(void *arg), void *arg)
{
	char up;
	ssize_t n;
	int status;

	do
		n = read(fd, &up, 1);
	while (n < 0 && errno == EINTR);
	if (n == 1)
		_exit(0);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			_exit(STATUS_SYSTEM);
	if (WIFEXITED(status))
		_exit(WEXITSTATUS(status));
	fprintf(stderr, "umbrafs: died while starting (signal %d)\n", WTERMSIG(status));
	died(arg);
	_exit(STATUS_SYSTEM);
}

int background_start(struct background *bg, void (*died)(void *arg), void *arg)
{
	int fds[2];
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		int rc = -errno;

		close(fds[0]);
		close(fds[1]);
		return rc;
	}
	if (pid > 0) {
		close(fds[1]);
		wait_child(fds[0], pid, died, arg);
	}
	close(fds[0]);
	setsid();
	bg->fd = fds[1];
	return 0;
}

void background_detach(void)
{
	int null;

	fflush(NULL);
	if (chdir("/"))
		fprintf(stderr, "umbrafs: cannot leave the working directory\n");
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
		close(null);
	}
}

void background_up(struct background *bg)
{
	if (bg->fd < 0)
		return;
	background_detach();
	if (write(bg->fd, "", 1) != 1) {
		/* The parent was killed: the mount stands all the same. */
	}
	close(bg->fd);
	bg->fd = -1;
}
