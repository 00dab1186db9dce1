/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The operator's program. See hook.h.
 *
 * The events that are kept for umbractl are the queue: one thread goes through them by number, and what is no longer kept when it comes there
 * is dropped. Nobody ever waits for this thread but hook_stop(), for a bounded time.
 */
#include "fuse/hook.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fuse/events.h"
#include "fuse/ops.h"
#include "util/log.h"
#include "util/text.h"

#define GRACE_MS 1000    /* less than the next mount waits for the pool */
#define POLL_MS 50       /* where the kernel cannot tell that a process has ended */
#define LOG_AGAIN_S 10   /* failures are named at most that often */
#define TEXT_BYTES 65536 /* of a path */

struct hook {
	struct session *session;
	const char *command;
	pthread_t thread;
	int notify_fd, stop_fd; /* eventfds */
	int64_t deadline_ms;    /* 0: not told to end */
	uint64_t after;         /* number of the last event that was passed on */
	uint64_t unlogged;      /* failures since the last one that was logged */
	time_t logged_s;
	char text[TEXT_BYTES];
};

/* One run of the program. */
struct run {
	pid_t pid;
	int pidfd, in_fd; /* -1: cannot be had; closed */
	const char *line;
	size_t left_bytes;
};

int hook_check(const char *command, char *why, size_t why_size)
{
	struct stat st;
	int rc = 0;

	if (command[0] != '/') {
		snprintf(why, why_size, "on_event=%s: must be an absolute path", command);
		return -EINVAL;
	}
	if (stat(command, &st))
		rc = -errno;
	else if (!S_ISREG(st.st_mode))
		rc = -EACCES;
	else if (access(command, X_OK))
		rc = -errno;
	if (rc)
		snprintf(why, why_size, "on_event=%s: cannot be run: %s", command,
			 rc == -EACCES ? "is not an executable file" : strerror(-rc));
	return rc;
}

static int64_t clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- one run ---- */

static int spawn_prepare(posix_spawn_file_actions_t *actions, posix_spawnattr_t *attr, int in_fd)
{
	sigset_t none, all;
	int rc;

	sigemptyset(&none);
	sigfillset(&all);
	rc = posix_spawn_file_actions_adddup2(actions, in_fd, STDIN_FILENO);
	if (!rc)
		rc = posix_spawn_file_actions_addclosefrom_np(actions, STDERR_FILENO + 1);
	if (!rc)
		rc = posix_spawn_file_actions_addchdir_np(actions, "/");
	if (!rc)
		rc = posix_spawnattr_setsigmask(attr, &none);
	if (!rc)
		rc = posix_spawnattr_setsigdefault(attr, &all);
	if (!rc)
		rc = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
							    POSIX_SPAWN_SETSID);
	return -rc;
}

static int program_spawn(const char *command, int in_fd, pid_t *pid)
{
	char *argv[] = { (char *)(uintptr_t)command, NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	int rc = -posix_spawn_file_actions_init(&actions);

	if (rc)
		return rc;
	rc = -posix_spawnattr_init(&attr);
	if (rc) {
		posix_spawn_file_actions_destroy(&actions);
		return rc;
	}
	rc = spawn_prepare(&actions, &attr, in_fd);
	if (!rc)
		rc = -posix_spawn(pid, command, &actions, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return rc;
}

/* The daemon is the last one to be killed when memory runs out: not so what it starts. */
static void oom_score_reset(pid_t pid)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", (int)pid);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, "0", 1) < 0)
		log_debug("%s: %s", path, strerror(errno));
	close(fd);
}

static int run_start(const struct hook *h, const char *line, struct run *run)
{
	int fds[2], rc;

	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	*run = (struct run){ .in_fd = fds[1], .line = line, .left_bytes = strlen(line) };
	rc = fcntl(fds[1], F_SETFL, O_NONBLOCK) ? -errno : program_spawn(h->command, fds[0], &run->pid);
	close(fds[0]);
	if (rc) {
		close(fds[1]);
		return rc;
	}
	oom_score_reset(run->pid);
	run->pidfd = (int)syscall(SYS_pidfd_open, run->pid, 0);
	return 0;
}

static void input_write(struct run *run)
{
	ssize_t n = write(run->in_fd, run->line, run->left_bytes);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0) {
		run->line += n;
		run->left_bytes -= (size_t)n;
	}
	if (n > 0 && run->left_bytes > 0)
		return;
	close(run->in_fd); /* all is written, or nobody reads it */
	run->in_fd = -1;
}

static void stop_see(struct hook *h)
{
	if (!h->deadline_ms)
		h->deadline_ms = clock_ms() + GRACE_MS;
}

/* How long a poll may wait, with at most that many milliseconds (-1: any time). */
static int wait_ms(const struct hook *h, int most_ms)
{
	int64_t left_ms = h->deadline_ms ? h->deadline_ms - clock_ms() : most_ms;

	if (h->deadline_ms && left_ms < 0)
		left_ms = 0;
	return (int)(most_ms >= 0 && left_ms > most_ms ? most_ms : left_ms);
}

/* False: it goes on, and is left alone. */
static bool run_wait(struct hook *h, struct run *run, int *status)
{
	bool ended = false;

	while (!ended) {
		struct pollfd fds[] = {
			{ .fd = run->pidfd, .events = POLLIN },
			{ .fd = run->in_fd, .events = POLLOUT },
			{ .fd = h->deadline_ms ? -1 : h->stop_fd, .events = POLLIN },
		};
		pid_t pid;

		if (poll(fds, ARRAY_SIZE(fds), wait_ms(h, run->pidfd < 0 ? POLL_MS : -1)) < 0 &&
		    errno != EINTR)
			break;
		if (fds[1].revents)
			input_write(run);
		if (fds[2].revents)
			stop_see(h);
		pid = waitpid(run->pid, status, WNOHANG);
		ended = pid == run->pid;
		if (pid < 0 || (!ended && h->deadline_ms && wait_ms(h, -1) == 0))
			break;
	}
	if (run->in_fd >= 0)
		close(run->in_fd);
	if (run->pidfd >= 0)
		close(run->pidfd);
	return ended;
}

/* ---- the thread ---- */

static void failure_log(struct hook *h, const char *what, int value)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (h->logged_s != 0 && now.tv_sec - h->logged_s < LOG_AGAIN_S) {
		h->unlogged++;
		return;
	}
	log_warn("%s, run for event %" PRIu64 ": %s %d (%" PRIu64 " more before that)", h->command, h->after,
		 what, value, h->unlogged);
	h->logged_s = now.tv_sec;
	h->unlogged = 0;
}

static char *line_make(struct hook *h, const struct event *event)
{
	struct umbra_event record = event_record(event);
	char path[OPS_PATH_MAX], *json, *line = NULL;
	bool named = record.ino != 0 && fs_path(h->session->fs, record.ino, path, sizeof(path)) == 0;

	if (named)
		path_text(path, strlen(path), h->text, sizeof(h->text));
	json = event_json(&record, named ? h->text : NULL);
	if (json && asprintf(&line, "%s\n", json) < 0)
		line = NULL;
	free(json);
	return line;
}

/* False: time to end. */
static bool event_pass(struct hook *h, const struct event *event)
{
	char *line = line_make(h, event);
	int rc = line ? 0 : -ENOMEM, status = 0;
	struct run run;
	bool ended = true;

	if (!rc)
		rc = run_start(h, line, &run);
	h->after = event->number;
	if (rc)
		failure_log(h, "cannot be started, error", -rc);
	else
		ended = run_wait(h, &run, &status);
	free(line);
	if (!ended)
		log_warn("%s: still runs (process %d), and is left alone", h->command, (int)run.pid);
	else if (WIFSIGNALED(status))
		failure_log(h, "killed by signal", WTERMSIG(status));
	else if (WEXITSTATUS(status))
		failure_log(h, "ended with status", WEXITSTATUS(status));
	return ended;
}

/* All that there are. False: time to end. */
static bool events_pass(struct hook *h)
{
	uint64_t missed, from;
	struct event event;

	while (events_get(h->session->events, h->after, &event, 1, &missed, &from) > 0) {
		if (missed)
			log_warn("%s: %" PRIu64 " events were dropped, it is too slow for them", h->command,
				 missed);
		if (h->deadline_ms && clock_ms() >= h->deadline_ms)
			return false;
		if (!event_pass(h, &event))
			return false;
	}
	return true;
}

/* What the daemon has for itself, and children inherit: of this thread alone from here on. */
static void thread_setup(void)
{
	if (unshare(CLONE_FS) == 0)
		umask(022);
#ifdef PR_SET_IO_FLUSHER
	(void)prctl(PR_SET_IO_FLUSHER, 0, 0, 0, 0);
#endif
}

static void *hook_run(void *arg)
{
	struct hook *h = arg;
	uint64_t seen;
	struct event event;

	thread_setup();
	while (events_pass(h) && !h->deadline_ms) {
		struct pollfd fds[] = {
			{ .fd = h->notify_fd, .events = POLLIN },
			{ .fd = h->stop_fd, .events = POLLIN },
		};

		if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR)
			break;
		if (fds[0].revents)
			(void)!read(h->notify_fd, &seen, sizeof(seen));
		if (fds[1].revents)
			stop_see(h);
	}
	if (events_get(h->session->events, h->after, &event, 1, &seen, &seen) > 0)
		log_warn("%s: events after number %" PRIu64 " were not passed on", h->command, h->after);
	return NULL;
}

int hook_start(struct session *session, const char *command, struct hook **out)
{
	struct hook *h = calloc(1, sizeof(*h));
	int rc;

	if (!h)
		return -ENOMEM;
	h->session = session;
	h->command = command;
	h->notify_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	h->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = h->notify_fd < 0 || h->stop_fd < 0 ? -errno : 0;
	if (!rc) {
		events_notify(session->events, h->notify_fd);
		rc = -pthread_create(&h->thread, NULL, hook_run, h);
	}
	if (!rc) {
		*out = h;
		return 0;
	}
	events_notify(session->events, -1);
	if (h->notify_fd >= 0)
		close(h->notify_fd);
	if (h->stop_fd >= 0)
		close(h->stop_fd);
	free(h);
	return rc;
}

void hook_stop(struct hook *h)
{
	if (!h)
		return;
	(void)!write(h->stop_fd, &(uint64_t){ 1 }, sizeof(uint64_t));
	pthread_join(h->thread, NULL);
	events_notify(h->session->events, -1);
	close(h->notify_fd);
	close(h->stop_fd);
	free(h);
}
