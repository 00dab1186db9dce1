/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Looking at a path that may lead to a mount whose daemon hangs. Who asks there waits until the connection ends, and cannot be killed once the daemon has taken what he
 * asks; so another process does, and is left behind if it gets no answer.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fuse/ops.h"
#include "fuse/session.h"

/* Longer than a daemon under load takes. */
#define LOOK_MS 10000

struct seen {
	int error;
	mode_t mode;
};

static struct seen look(const char *path)
{
	struct seen seen = { .mode = 0 };
	struct statvfs fs;
	struct stat st;

	/* The kernel may still know the attributes of the root; this it has to ask for. */
	if (statvfs(path, &fs) && (errno == ENOTCONN || session_is_dying(errno)))
		seen.error = errno;
	else if (stat(path, &st))
		seen.error = errno;
	else
		seen.mode = st.st_mode;
	return seen;
}

_Noreturn static void look_and_say(const char *path, int to)
{
	struct seen seen;

	/* Left behind, it keeps nothing. */
	if (dup2(to, STDIN_FILENO) < 0)
		_exit(1);
	(void)close_range(STDIN_FILENO + 1, UINT_MAX, 0);
	seen = look(path);
	_exit(write(STDIN_FILENO, &seen, sizeof(seen)) != sizeof(seen));
}

int session_look(const char *path, mode_t *mode)
{
	struct pollfd from = { .events = POLLIN };
	struct seen seen = { .error = EIO };
	int fds[2], answers = 0, rc;
	pid_t child;

	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	child = fork();
	if (child == 0)
		look_and_say(path, fds[1]);
	close(fds[1]);
	from.fd = fds[0];
	while (child > 0 && (answers = poll(&from, 1, LOOK_MS)) < 0 && errno == EINTR)
		;
	if (child < 0) { /* better so than not at all */
		seen = look(path);
		rc = -seen.error;
	} else if (answers <= 0) {
		kill(child, SIGKILL);
		(void)waitpid(child, NULL, WNOHANG);
		rc = -ETIMEDOUT;
	} else {
		rc = read(fds[0], &seen, sizeof(seen)) == sizeof(seen) ? -seen.error : -EIO;
		while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
			;
	}
	close(fds[0]);
	if (rc == 0 && mode)
		*mode = seen.mode;
	return rc;
}
