/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The keeper. See keeper.h. One thread, no memory but what it begins with.
 *
 * A daemon that ends badly before it has answered anything is tried again a few times, then the keeper gives up, and the mount ends as one without it. One
 * that lives but for a moment, again and again, is started later and later.
 *
 * While there is no daemon nothing is logged: whoever takes the lines may himself wait for the mount. What there is to say waits until one has been started.
 */
#include "daemon/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "daemon/fusectl.h"
#include "daemon/keeper_wire.h"
#include "daemon/process.h"
#include "dax/dax.h"
#include "fuse/kept.h"
#include "util/log.h"

#define STATUS_SYSTEM 2
#define OOM_SCORE "-1000"
#define FAILURES_MAX 5 /* daemons in a row that never answered anything */
#define QUICK_MS 1000  /* a daemon that lives no longer... */
#define QUICK_FREE 8   /* ... so many times in a row, is started again at once */
#define DELAY_MS 100   /* later; twice as long each time, up to: */
#define DELAY_MAX_MS 5000
#define LOOK_MS 250 /* whether the daemon is still there: no signal tells of one of which a thread is left */
#define OVER_STEP_MS 20
#define LINGER_MS 2000 /* of a process that has ended, but for threads... */
#define STUCK_MS 100   /* ... all of which wait in the kernel */
#define UPGRADE_STEP_MS 100
#define UPGRADE_MAX_MS 15000 /* until another program answers */

#define NOTES_MAX 8
#define NOTE_BYTES (KEEPER_PATH_MAX + 128)

extern char **environ;

struct note {
	enum log_level level;
	char text[NOTE_BYTES];
};

struct keeper {
	char **argv;
	struct background *bg;
	int program; /* descriptor of the program that is running, or ran last */
	int next;    /* of the one that is to be tried; -1: none */
	int signals, control;
	int kept[KEEPER_FDS]; /* -1: not yet */
	struct kept_head *head;
	pid_t pid;
	bool is_up, was_up; /* this one; any */
	bool is_ending;     /* somebody wants it to end */
	bool to_upgrade;
	char next_path[KEEPER_PATH_MAX];
	int64_t started_ms,
		over_ms; /* over: the daemon has ended, but for threads in the kernel; 0: it has not */
	unsigned failures, quick;
	uint64_t trying; /* the request at which the last one ended; 0: none */
	struct note notes[NOTES_MAX];
	unsigned notes_count;
};

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- what is logged later ---- */

__attribute__((format(printf, 3, 4))) static void note(struct keeper *k, enum log_level level,
						       const char *fmt, ...)
{
	struct note *n = &k->notes[k->notes_count];
	va_list args;

	if (k->notes_count == NOTES_MAX)
		return;
	n->level = level;
	va_start(args, fmt);
	vsnprintf(n->text, sizeof(n->text), fmt, args);
	va_end(args);
	k->notes_count++;
}

/* Unless told to, it does not wait for whoever takes the lines from standard error: he may wait for the mount, and for the daemon that is to be started next. */
static void notes_log(struct keeper *k, bool wait)
{
	struct pollfd err = { .fd = STDERR_FILENO, .events = POLLOUT };
	unsigned done = 0;

	for (; done < k->notes_count && (wait || poll(&err, 1, 0) == 1); done++)
		log_line(k->notes[done].level, "%s", k->notes[done].text);
	k->notes_count -= done;
	memmove(k->notes, k->notes + done, k->notes_count * sizeof(*k->notes));
}

/* ---- starting ---- */

static int spawn(struct keeper *k, int program, int control)
{
	char path[64], variable[64];
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	size_t count = 0;
	char **env;
	sigset_t blocked;
	int rc;

	while (environ[count])
		count++;
	env = calloc(count + 2, sizeof(*env));
	if (!env)
		return -ENOMEM;
	memcpy(env, environ, count * sizeof(*env));
	snprintf(variable, sizeof(variable), KEEPER_VARIABLE "=%s", k->kept[0] >= 0 ? "take" : "mount");
	env[count] = variable;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", program);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, control, KEEPER_FD);
	for (int i = 0; i < KEEPER_FDS && k->kept[i] >= 0; i++)
		posix_spawn_file_actions_adddup2(&actions, k->kept[i], KEEPER_FD + 1 + i);
	posix_spawnattr_init(&attr);
	/* The daemon blocks them too, and takes them when it answers: none ends it while it starts, and leaves a dead mount. */
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigaddset(&blocked, SIGINT);
	sigaddset(&blocked, SIGHUP);
	posix_spawnattr_setsigmask(&attr, &blocked);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	rc = -posix_spawn(&k->pid, path, &actions, &attr, k->argv, env);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	free(env);
	return rc;
}

/* Above those that the child has under fixed numbers. */
static int fd_up(int fd)
{
	int up = fcntl(fd, F_DUPFD_CLOEXEC, KEEPER_FD + 1 + KEEPER_FDS);

	close(fd);
	return up;
}

static int start(struct keeper *k, int program)
{
	int pair[2], rc = 0;

	if (k->control >= 0)
		close(k->control);
	k->control = -1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -errno;
	k->control = fd_up(pair[0]);
	pair[1] = fd_up(pair[1]);
	k->is_up = k->to_upgrade = false;
	k->started_ms = now_ms();
	if (k->control < 0 || pair[1] < 0)
		rc = -EMFILE;
	else
		rc = spawn(k, program, pair[1]);
	if (rc)
		k->pid = 0;
	if (pair[1] >= 0)
		close(pair[1]);
	return rc;
}

/* ---- what the daemon says ---- */

static void head_map(struct keeper *k)
{
	k->head = dax_shared_map(k->kept[0], sizeof(*k->head));
}

static void fds_close(int *fds, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
}

/* Those of a message are kept, once, if they are wanted; others are closed. */
static void fds_take(struct keeper *k, const struct msghdr *msg, bool wanted)
{
	const struct cmsghdr *c = CMSG_FIRSTHDR(msg);
	int fds[CMSG_SPACE(KEEPER_FDS * sizeof(int)) / sizeof(int)]; /* the kernel rounds up, too */
	size_t count;

	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
		return;
	count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(*fds);
	memcpy(fds, CMSG_DATA(c), count * sizeof(*fds));
	if (!wanted || count != KEEPER_FDS || k->kept[0] >= 0) {
		fds_close(fds, count);
		return;
	}
	wanted = true;
	for (int i = 0; i < KEEPER_FDS; i++) {
		k->kept[i] = fd_up(fds[i]);
		wanted &= k->kept[i] >= 0;
	}
	/* All or none: nobody can take over with some of them. */
	if (wanted)
		head_map(k);
	else
		fds_close(k->kept, KEEPER_FDS);
}

/* For systemd, if it waits (sd_notify(3)). */
static void ready_notify(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un to;
	char text[64];
	int fd, len;

	if (!path || (*path != '/' && *path != '@') || !keeper_address(&to, path))
		return;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	len = snprintf(text, sizeof(text), "READY=1\nMAINPID=%d", (int)getpid());
	if (sendto(fd, text, (size_t)len, MSG_NOSIGNAL, (const struct sockaddr *)&to,
		   keeper_address_size(path)) < 0)
		log_warn("%s: %s", path, strerror(errno));
	close(fd);
}

static void heard_up(struct keeper *k)
{
	k->is_up = true;
	k->failures = 0;
	if (!k->was_up) {
		ready_notify();
		if (k->bg->fd >= 0)
			log_syslog();
		background_up(k->bg);
	}
	k->was_up = true;
	if (k->next < 0)
		return;
	close(k->program);
	k->program = k->next;
	k->next = -1;
	if (k->head)
		atomic_store(&k->head->upgrade, KEPT_UPGRADE_DONE);
	log_info("%s has taken over", k->next_path);
}

/* All that is there. */
static void hear(struct keeper *k)
{
	for (;;) {
		char control[CMSG_SPACE(KEEPER_FDS * sizeof(int))];
		struct keeper_message m;
		struct iovec iov = { &m, sizeof(m) };
		struct msghdr msg = {
			.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control,
			.msg_controllen = sizeof(control),
		};
		ssize_t n = k->control < 0 ? -1 : recvmsg(k->control, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n != sizeof(m)) {
			if (n > 0)
				fds_take(k, &msg, false);
			if (n == 0) { /* its end is about to be heard of */
				close(k->control);
				k->control = -1;
			}
			return;
		}
		m.path[sizeof(m.path) - 1] = '\0';
		fds_take(k, &msg, m.what == KEEPER_MOUNTED);
		switch (m.what) {
		case KEEPER_UP:
			heard_up(k);
			break;
		case KEEPER_UPGRADE:
			k->to_upgrade = true;
			memcpy(k->next_path, m.path, sizeof(m.path));
			break;
		default:
			break;
		}
	}
}

/* ---- its end ---- */

/* A program that never came up: the one before it again. */
static void upgrade_failed(struct keeper *k, const char *why, int number)
{
	if (k->head) {
		snprintf(k->head->upgrade_why, sizeof(k->head->upgrade_why), "%s %d", why, number);
		atomic_store(&k->head->upgrade, KEPT_UPGRADE_FAILED);
	}
	note(k, LOG_LEVEL_ERROR, "%s: %s %d: it does not take over", k->next_path, why, number);
	close(k->next);
	k->next = -1;
}

static int upgrade_start(struct keeper *k)
{
	int fd = open(k->next_path, O_RDONLY | O_CLOEXEC), rc;

	if (k->next >= 0)
		close(k->next);
	k->next = fd < 0 ? -1 : fd_up(fd);
	if (k->head)
		atomic_store(&k->head->upgrade, KEPT_UPGRADE_RUNS);
	rc = k->next < 0 ? -errno : start(k, k->next);
	if (rc)
		upgrade_failed(k, "cannot be started: error", -rc);
	return rc;
}

static void wait_a_little(struct keeper *k)
{
	int64_t ms = DELAY_MS;
	struct timespec t;

	k->quick = now_ms() - k->started_ms > QUICK_MS ? 0 : k->quick + 1;
	if (k->quick <= QUICK_FREE && k->failures == 0)
		return;
	for (unsigned i = QUICK_FREE + 1; i < k->quick && ms < DELAY_MAX_MS; i++)
		ms *= 2;
	ms = ms < DELAY_MAX_MS ? ms : DELAY_MAX_MS;
	t = (struct timespec){ ms / 1000, ms % 1000 * 1000000 };
	nanosleep(&t, NULL);
}

static void daemon_died(struct keeper *k, bool signaled, int number)
{
	if (k->next >= 0) {
		upgrade_failed(k, signaled ? "ended by signal" : "ended with status", number);
		return;
	}
	if (k->head)
		atomic_fetch_add(&k->head->deaths, 1);
	/* It was about to make room, and ended before it had said for whom. */
	if (k->head && atomic_load(&k->head->upgrade) == KEPT_UPGRADE_RUNS) {
		snprintf(k->head->upgrade_why, sizeof(k->head->upgrade_why), "not begun: %s %d",
			 signaled ? "signal" : "status", number);
		atomic_store(&k->head->upgrade, KEPT_UPGRADE_FAILED);
	}
	/* One that came as far as to another request has got over the one before (fuse/resend.c). */
	if (!k->is_up && k->head && k->head->trying != k->trying)
		k->failures = 0;
	if (!k->is_up)
		k->failures++;
	k->trying = k->head ? k->head->trying : 0;
	note(k, LOG_LEVEL_WARN, "the daemon has ended (%s %d): another one takes over",
	     signaled ? "signal" : "status", number);
}

/* True: there is another one. *status: of the keeper, if not. */
static bool go_on(struct keeper *k, int ended, int *status)
{
	bool signaled = WIFSIGNALED(ended);
	int number = signaled ? WTERMSIG(ended) : WEXITSTATUS(ended);
	bool makes_room = !signaled && number == KEEPER_STATUS_UPGRADE && k->to_upgrade;
	int rc;

	*status = signaled ? STATUS_SYSTEM : number;
	if (!signaled && number == 0 && k->is_up)
		return false;
	if (k->kept[0] < 0) {
		if (signaled)
			fprintf(stderr, "umbrafs: died while starting (signal %d)\n", number);
		return false;
	}
	/* The first one has said why, and detached the mount: the next would only find that it is gone, and call it well. */
	if (!signaled && !k->was_up)
		return false;
	/* Between one program and another nobody has heard the signal yet: the one before unmounts. */
	if (k->is_ending && !makes_room && k->next < 0)
		return false;
	if (makes_room && !k->is_ending) {
		rc = upgrade_start(k);
	} else {
		daemon_died(k, signaled, number);
		rc = -EAGAIN;
	}
	while (rc && k->failures < FAILURES_MAX) {
		wait_a_little(k);
		rc = start(k, k->program);
		if (!rc) {
			if (k->is_ending)
				kill(k->pid, SIGTERM);
			return true;
		}
		note(k, LOG_LEVEL_ERROR, "no daemon can be started: %s", strerror(-rc));
		k->failures++;
	}
	if (rc)
		note(k, LOG_LEVEL_ERROR, "%u daemons in a row could not take over: the mount ends",
		     k->failures);
	return rc == 0;
}

/* ---- waiting ---- */

static int signals_open(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGCHLD, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Those that end the mount are the daemon's affair. */
static void signals_take(struct keeper *k)
{
	struct signalfd_siginfo info;

	while (read(k->signals, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGCHLD)
			continue;
		k->is_ending = true;
		if (k->pid > 0)
			kill(k->pid, (int)info.ssi_signo);
	}
}

/*
 * True: the daemon has ended. A thread of it that had the kernel drop pages waits for a request that the daemon was at, and which the next one has to answer: it
 * cannot end before, and runs no more of its program. It is left behind, and waited for when it ends.
 */
static bool has_ended(struct keeper *k, int *ended)
{
	int64_t over_ms;
	pid_t pid;

	while ((pid = waitpid(-1, ended, WNOHANG)) > 0)
		if (pid == k->pid)
			return true;
	if (k->pid <= 0 || !process_is_over(k->pid)) {
		k->over_ms = 0;
		return false;
	}
	if (!k->over_ms)
		k->over_ms = now_ms();
	over_ms = now_ms() - k->over_ms;
	if (over_ms < STUCK_MS || (over_ms < LINGER_MS && !process_is_stuck(k->pid)))
		return false;
	note(k, LOG_LEVEL_WARN, "a thread of daemon %d waits in the kernel: it is left behind", (int)k->pid);
	k->over_ms = 0;
	*ended = k->to_upgrade ? W_EXITCODE(KEEPER_STATUS_UPGRADE, 0) : W_EXITCODE(0, SIGKILL);
	return true;
}

/* The mount ends, and who waits for it hears so. A thread that was left behind has the connection open too. */
static void connection_close(struct keeper *k)
{
	int fd, rc;

	fds_close(k->kept, KEEPER_FDS);
	if (!k->head || waitpid(-1, NULL, WNOHANG) != 0)
		return;
	fd = fusectl_open(k->head->dev_minor);
	rc = fd < 0 ? fd : fusectl_abort(fd);
	if (rc)
		note(k, LOG_LEVEL_WARN,
		     "the connection cannot be ended: %s: who uses the mount may wait for ever",
		     strerror(-rc));
	if (fd >= 0)
		close(fd);
}

/* Until something happens, or it is time to look. */
static bool attend_wait(const struct keeper *k)
{
	int wait_ms = k->over_ms ? OVER_STEP_MS : k->next >= 0 ? UPGRADE_STEP_MS : LOOK_MS;
	struct pollfd fds[2] = { { .fd = k->signals, .events = POLLIN },
				 { .fd = k->control, .events = POLLIN } };

	return poll(fds, 2, wait_ms) >= 0 || errno == EINTR;
}

static int attend(struct keeper *k)
{
	int status = STATUS_SYSTEM, ended;
	bool is_over;

	for (;;) {
		if (!attend_wait(k))
			return STATUS_SYSTEM;
		hear(k);
		if (k->pid > 0)
			notes_log(k, false);
		if (k->next >= 0 && k->pid > 0 && now_ms() - k->started_ms > UPGRADE_MAX_MS)
			kill(k->pid, SIGKILL); /* it is something else, or hangs */
		signals_take(k);
		if (!has_ended(k, &ended))
			continue;
		k->pid = 0;
		hear(k); /* what it said last */
		is_over = !go_on(k, ended, &status);
		if (is_over)
			connection_close(k);
		notes_log(k, is_over);
		if (is_over)
			return status;
	}
}

static void process_setup(void)
{
	int fd = geteuid() == 0 ? open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC) : -1;

	if (fd >= 0) {
		if (write(fd, OOM_SCORE, strlen(OOM_SCORE)) < 0)
			log_debug("oom_score_adj: %s", strerror(errno));
		close(fd);
	}
	(void)prctl(PR_SET_NAME, "umbrafs-keeper", 0, 0, 0);
#ifdef PR_SET_IO_FLUSHER
	(void)prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
#endif
}

int keeper_run(char **argv, struct background *bg)
{
	static struct keeper k;
	int rc;

	k = (struct keeper){ .argv = argv, .bg = bg, .next = -1, .control = -1 };
	for (int i = 0; i < KEEPER_FDS; i++)
		k.kept[i] = -1;
	k.program = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	if (k.program >= 0)
		k.program = fd_up(k.program);
	k.signals = signals_open();
	if (k.program < 0 || k.signals < 0) {
		fprintf(stderr, "umbrafs: %s: %s\n", k.program < 0 ? "/proc/self/exe" : "signalfd",
			strerror(errno));
		return STATUS_SYSTEM;
	}
	k.signals = fd_up(k.signals);
	process_setup();
	rc = start(&k, k.program);
	if (rc) {
		fprintf(stderr, "umbrafs: no daemon can be started: %s\n", strerror(-rc));
		return STATUS_SYSTEM;
	}
	return attend(&k);
}
