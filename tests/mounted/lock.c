/* SPDX-License-Identifier: BSD-3-Clause */
/* flock, fcntl and OFD locks: exclusion, sharing, ranges, release at close and exit, waiting. */
#define _GNU_SOURCE
#include "files.h"

#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/wait.h>

static int range_lock(int fd, int cmd, short type, off_t start, off_t len)
{
	struct flock fl = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };

	return fcntl(fd, cmd, &fl);
}

/* What F_GETLK says about the range, in another process: F_UNLCK, or the type of a lock there. */
static int range_seen(off_t start, off_t len, short type)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		struct flock fl = { .l_type = type, .l_start = start, .l_len = len };
		int fd = open("f", O_RDWR);

		_exit(fcntl(fd, F_GETLK, &fl) == -1 ? 100 : fl.l_type);
	}
	waitpid(pid, &status, 0);
	return WEXITSTATUS(status);
}

static void case_flock(void)
{
	int a;
	int b;

	file_make("f", "x", 1);
	a = file_open("f", O_RDWR);
	b = file_open("f", O_RDONLY);
	OK(flock(a, LOCK_EX | LOCK_NB));
	ERR(EWOULDBLOCK, flock(b, LOCK_EX | LOCK_NB));
	ERR(EWOULDBLOCK, flock(b, LOCK_SH | LOCK_NB));
	OK(flock(a, LOCK_SH | LOCK_NB));
	OK(flock(b, LOCK_SH | LOCK_NB));
	ERR(EWOULDBLOCK, flock(a, LOCK_EX | LOCK_NB));
	OK(flock(b, LOCK_UN));
	OK(flock(a, LOCK_EX | LOCK_NB));
	/* A duplicate is the same lock; the last close releases. */
	int c = dup(a);
	OK(flock(c, LOCK_EX | LOCK_NB));
	OK(close(a));
	ERR(EWOULDBLOCK, flock(b, LOCK_SH | LOCK_NB));
	OK(close(c));
	OK(flock(b, LOCK_EX | LOCK_NB));
	ERR(EINVAL, flock(b, 64));
}

static void case_fcntl_ranges(void)
{
	int fd;

	file_make("f", "x", 1);
	fd = file_open("f", O_RDWR);
	OK(range_lock(fd, F_SETLK, F_WRLCK, 100, 100));
	EQ(F_UNLCK, range_seen(0, 100, F_WRLCK));
	EQ(F_WRLCK, range_seen(199, 1, F_WRLCK));
	EQ(F_WRLCK, range_seen(0, 0, F_RDLCK));
	EQ(F_UNLCK, range_seen(200, 0, F_WRLCK));
	/* Split by unlocking the middle, partly turned to shared. */
	OK(range_lock(fd, F_SETLK, F_UNLCK, 140, 20));
	EQ(F_UNLCK, range_seen(140, 20, F_WRLCK));
	EQ(F_WRLCK, range_seen(139, 1, F_RDLCK));
	EQ(F_WRLCK, range_seen(160, 1, F_RDLCK));
	OK(range_lock(fd, F_SETLK, F_RDLCK, 100, 10));
	EQ(F_UNLCK, range_seen(100, 10, F_RDLCK));
	EQ(F_RDLCK, range_seen(100, 10, F_WRLCK));
	OK(range_lock(fd, F_SETLK, F_WRLCK, 0, 0));
	EQ(F_WRLCK, range_seen((off_t)1 << 40, 1, F_RDLCK));
	/* Closing any descriptor of the file drops all of the process's locks. */
	OK(close(file_open("f", O_RDONLY)));
	EQ(F_UNLCK, range_seen(0, 0, F_WRLCK));
	ERR(EBADF, range_lock(file_open("f", O_RDONLY), F_SETLK, F_WRLCK, 0, 1));
	ERR(EINVAL, range_lock(fd, F_SETLK, 77, 0, 1));
	ERR(EINVAL, range_lock(fd, F_SETLK, F_WRLCK, -5, 1));
}

static void case_fcntl_processes(void)
{
	int in[2];
	int out[2];
	char c = 0;
	int fd;
	pid_t pid;

	file_make("f", "x", 1);
	MUST(pipe(in));
	MUST(pipe(out));
	pid = fork();
	if (pid == 0) {
		fd = file_open("f", O_RDWR);
		MUST(range_lock(fd, F_SETLKW, F_WRLCK, 0, 0));
		MUST(write(out[1], "l", 1));
		MUST(read(in[0], &c, 1));
		_exit(0);
	}
	EQ(1, read(out[0], &c, 1));
	fd = file_open("f", O_RDWR);
	ERR2(EAGAIN, EACCES, range_lock(fd, F_SETLK, F_RDLCK, 0, 1));
	struct flock fl = { .l_type = F_RDLCK };
	OK(fcntl(fd, F_GETLK, &fl));
	EQ(F_WRLCK, fl.l_type);
	EQ(pid, fl.l_pid);
	/* Death releases, and wakes who waits. */
	EQ(1, write(in[1], "x", 1));
	OK(range_lock(fd, F_SETLKW, F_WRLCK, 0, 0));
	child_wait(pid);
	/* A child inherits no record lock. */
	EQ(F_WRLCK, range_seen(0, 1, F_WRLCK));
}

static void alarm_nothing(int sig)
{
	(void)sig;
}

static void case_wait_interrupted(void)
{
	struct sigaction sa = { .sa_handler = alarm_nothing };
	int a;
	int b;

	file_make("f", "x", 1);
	a = file_open("f", O_RDWR);
	b = file_open("f", O_RDWR);
	MUST(sigaction(SIGALRM, &sa, NULL));
	MUST(flock(a, LOCK_EX));
	ualarm(50000, 50000);
	ERR(EINTR, flock(b, LOCK_EX));
	ERR(EINTR,
	    range_lock(b, F_OFD_SETLKW, F_WRLCK, 0, 0) == 0 ? range_lock(a, F_OFD_SETLKW, F_WRLCK, 0, 0) : 0);
	ualarm(0, 0);
}

static void case_deadlock(void)
{
	int to_child[2];
	int to_parent[2];
	int status = 0;
	char c;
	int fd;
	pid_t pid;

	file_make("f", "x", 1);
	MUST(pipe(to_child));
	MUST(pipe(to_parent));
	fd = file_open("f", O_RDWR);
	MUST(range_lock(fd, F_SETLK, F_WRLCK, 0, 1));
	pid = fork();
	if (pid == 0) {
		fd = file_open("f", O_RDWR);
		if (range_lock(fd, F_SETLK, F_WRLCK, 1, 1) == -1)
			_exit(9);
		MUST(write(to_parent[1], "x", 1));
		/* Either this one or the parent closes the circle, and that one is told. */
		_exit(range_lock(fd, F_SETLKW, F_WRLCK, 0, 1) == -1 ? errno : 0);
	}
	EQ(1, read(to_parent[0], &c, 1));
	int rc = range_lock(fd, F_SETLKW, F_WRLCK, 1, 1);
	int saved = errno;
	if (rc == -1)
		MUST(range_lock(fd, F_SETLK, F_UNLCK, 0, 0));
	waitpid(pid, &status, 0);
	TRUE((rc == -1 && saved == EDEADLK && WEXITSTATUS(status) == 0) ||
	     (rc == 0 && WEXITSTATUS(status) == EDEADLK));
}

static void case_ofd(void)
{
	int a;
	int b;

	file_make("f", "x", 1);
	a = file_open("f", O_RDWR);
	b = file_open("f", O_RDWR);
	OK(range_lock(a, F_OFD_SETLK, F_WRLCK, 0, 10));
	ERR(EAGAIN, range_lock(b, F_OFD_SETLK, F_WRLCK, 5, 10));
	OK(range_lock(b, F_OFD_SETLK, F_WRLCK, 10, 10));
	/* Against the process's own classic locks as well. */
	ERR2(EAGAIN, EACCES, range_lock(a, F_SETLK, F_WRLCK, 0, 1));
	/* Not dropped by an unrelated close, but by its own. */
	OK(close(file_open("f", O_RDONLY)));
	ERR(EAGAIN, range_lock(b, F_OFD_SETLK, F_WRLCK, 0, 1));
	OK(close(a));
	OK(range_lock(b, F_OFD_SETLK, F_WRLCK, 0, 1));
}

static int *counter;

static void counter_body(void *arg)
{
	int kind = *(int *)arg;
	int fd = file_open("f", O_RDWR);

	for (int i = 0; i < 300; i++) {
		int seen;

		if (kind == 0)
			MUST(flock(fd, LOCK_EX));
		else
			MUST(range_lock(fd, kind == 1 ? F_SETLKW : F_OFD_SETLKW, F_WRLCK, 0, 0));
		seen = *(volatile int *)counter;
		sched_yield();
		*(volatile int *)counter = seen + 1;
		if (kind == 0)
			MUST(flock(fd, LOCK_UN));
		else
			MUST(range_lock(fd, kind == 1 ? F_SETLK : F_OFD_SETLK, F_UNLCK, 0, 0));
	}
}

/* Locks lock: no increment is lost. */
static void case_mutual_exclusion(void)
{
	pid_t pids[3];

	file_make("f", "x", 1);
	counter = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (int kind = 0; kind < 3; kind++) {
		check_context("%s", kind == 0 ? "flock" : kind == 1 ? "fcntl" : "ofd");
		*counter = 0;
		for (int i = 0; i < 3; i++)
			pids[i] = child_start(counter_body, &kind);
		for (int i = 0; i < 3; i++)
			child_wait(pids[i]);
		EQ(900, *counter);
	}
}

static void case_lease_and_unlinked(void)
{
	int a;
	int b;

	/* Locks live on the file, not on its name. */
	file_make("f", "x", 1);
	a = file_open("f", O_RDWR);
	b = file_open("f", O_RDWR);
	OK(flock(a, LOCK_EX));
	OK(rename("f", "g"));
	ERR(EWOULDBLOCK, flock(b, LOCK_EX | LOCK_NB));
	OK(unlink("g"));
	ERR(EWOULDBLOCK, flock(b, LOCK_EX | LOCK_NB));
	file_make("f", "y", 1);
	OK(flock(file_open("f", O_RDWR), LOCK_EX | LOCK_NB));
}

static const struct check_case cases[] = {
	{ "flock", case_flock },
	{ "fcntl_ranges", case_fcntl_ranges },
	{ "fcntl_processes", case_fcntl_processes },
	{ "wait_interrupted", case_wait_interrupted },
	{ "deadlock", case_deadlock },
	{ "ofd", case_ofd },
	{ "mutual_exclusion", case_mutual_exclusion },
	{ "unlinked", case_lease_and_unlinked },
};

CHECK_MAIN(cases)
