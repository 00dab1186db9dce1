/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See guard.h. Nothing here waits for the mount: not the daemon for its guard, which answers before it has to do with it, and not the guard, which has all that
 * it needs by then.
 */
#include "daemon/guard.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "daemon/fusectl.h"
#include "daemon/process.h"
#include "util/log.h"

#define GUARD_NAME "umbrafs-guard"
#define GUARD_SIGNAL SIGUSR1
#define LOOK_S 5

static char *title;
static size_t title_size;

void guard_title_room(int argc, char **argv)
{
	char *end = argc > 0 ? argv[0] : NULL;

	title = end;
	for (int i = 0; i < argc && argv[i] == end; i++)
		end += strlen(end) + 1;
	title_size = (size_t)(end - title);
}

/* ---- the guard ---- */

static void guard_name(const char *dir)
{
	(void)prctl(PR_SET_NAME, GUARD_NAME, 0, 0, 0);
	if (title_size == 0)
		return;
	memset(title, 0, title_size);
	snprintf(title, title_size, GUARD_NAME " %s", dir);
}

/*
 * Until the daemon's main thread has ended; others may send signals too. A process that is about to write core lets no thread end before all have come to it, and
 * tells nobody: that is looked for.
 */
static void daemon_wait(pid_t daemon)
{
	const struct timespec look = { .tv_sec = LOOK_S };
	siginfo_t info;
	sigset_t set;
	int got;

	sigemptyset(&set);
	sigaddset(&set, GUARD_SIGNAL);
	do
		got = sigtimedwait(&set, &info, &look);
	while ((got < 0 || info.si_pid != daemon) && getppid() == daemon && !process_is_over(daemon));
}

/* Alone at first: the daemon that starts may fail, and then there is nothing to end. */
_Noreturn static void guard_run(int fd, pid_t daemon, const char *dir)
{
	unsigned dev_minor;
	sigset_t all;
	int end, rc;

	/* Those who end the mount end the daemon. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	if (prctl(PR_SET_PDEATHSIG, GUARD_SIGNAL, 0, 0, 0) || getppid() != daemon)
		_exit(1);
	if (fd > 0)
		(void)close_range(0, (unsigned)fd - 1, 0);
	(void)close_range((unsigned)fd + 1, UINT_MAX, 0);
	guard_name(dir);
	setsid();
	if (chdir("/") || recv(fd, &dev_minor, sizeof(dev_minor), 0) != sizeof(dev_minor))
		_exit(1);
	end = fusectl_open(dev_minor);
	rc = end < 0 ? end : 0;
	if (send(fd, &rc, sizeof(rc), MSG_NOSIGNAL) != sizeof(rc) || rc)
		_exit(1);
	close(fd);
	daemon_wait(daemon);
	_exit(fusectl_abort(end) ? 1 : 0);
}

/* ---- the daemon ---- */

void guard_start(struct guard *guard, const char *dir)
{
	pid_t daemon = getpid();
	int pair[2];

	*guard = (struct guard){ .fd = -1 };
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
		log_debug("no guard of the mount: %s", strerror(errno));
		return;
	}
	guard->pid = fork();
	if (guard->pid == 0)
		guard_run(pair[1], daemon, dir);
	close(pair[1]);
	guard->fd = pair[0];
	if (guard->pid > 0)
		return;
	log_debug("no guard of the mount: %s", strerror(errno));
	guard->pid = 0;
	close(guard->fd);
	guard->fd = -1;
}

void guard_watch(struct guard *guard, unsigned dev_minor)
{
	int rc = -EPIPE;

	if (!guard->pid)
		return;
	if (send(guard->fd, &dev_minor, sizeof(dev_minor), MSG_NOSIGNAL) == sizeof(dev_minor))
		(void)!recv(guard->fd, &rc, sizeof(rc), 0);
	close(guard->fd);
	guard->fd = -1;
	if (rc == 0)
		return;
	log_debug("no guard of the mount: %s", strerror(-rc));
	guard_end(guard);
}

void guard_end(struct guard *guard)
{
	if (!guard->pid)
		return;
	kill(guard->pid, SIGKILL);
	while (waitpid(guard->pid, NULL, 0) < 0 && errno == EINTR)
		;
	if (guard->fd >= 0)
		close(guard->fd);
	*guard = (struct guard){ .fd = -1 };
}
