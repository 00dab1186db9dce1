/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The check framework: runs each case in a child and counts in memory shared with it.
 * A case that does not end within CASE_MAX_S seconds is killed and has failed: that is a hang, and
 * nothing else in here depends on time.
 */
#define _GNU_SOURCE
#include "check.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <ftw.h>
#include <getopt.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CASE_MAX_S = 300, FAILURES_PRINTED_MAX = 20, TEXT_SIZE = 512, WHY_SIZE = 2048 };

/* Shared by the runner, the case and the case's children. */
struct check_shared {
	unsigned long done_count;
	unsigned long failed_count;
	bool skipped;
	char why[WHY_SIZE];
};

static struct check_shared *shared;
static char context[TEXT_SIZE];
static const char *program;
static const char *fs_name = "";
static uint64_t seed;
static unsigned scale = 1;

static void check_count(bool good, const char *file, int line, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

static void check_count(bool good, const char *file, int line, const char *format, ...)
{
	char text[TEXT_SIZE];
	unsigned long nth;
	const char *base = strrchr(file, '/');
	va_list ap;

	__atomic_add_fetch(&shared->done_count, 1, __ATOMIC_RELAXED);
	if (good)
		return;
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	nth = __atomic_add_fetch(&shared->failed_count, 1, __ATOMIC_RELAXED);
	if (nth == 1)
		snprintf(shared->why, sizeof(shared->why), "%s:%d: %s%s%s", base ? base + 1 : file, line,
			 context, context[0] ? ": " : "", text);
	if (nth <= FAILURES_PRINTED_MAX)
		dprintf(STDOUT_FILENO, "# %s:%d: %s%s%s\n", base ? base + 1 : file, line, context,
			context[0] ? ": " : "", text);
}

long check_ok(long rc, const char *what, const char *file, int line)
{
	int saved = errno;

	check_count(rc != -1, file, line, "%s: %s", what, strerrorname_np(saved));
	errno = saved;
	return rc;
}

long check_must(long rc, const char *what, const char *file, int line)
{
	check_ok(rc, what, file, line);
	if (rc == -1)
		_exit(0);
	return rc;
}

bool check_err(int want, int other, long rc, const char *what, const char *file, int line)
{
	int got = errno;
	bool good = rc == -1 && (got == want || (other != 0 && got == other));

	if (rc != -1)
		check_count(good, file, line, "%s: succeeded (%ld), want %s", what, rc,
			    strerrorname_np(want));
	else
		check_count(good, file, line, "%s: %s, want %s", what,
			    got ? strerrorname_np(got) : "no errno", strerrorname_np(want));
	return good;
}

bool check_true(bool cond, const char *what, const char *file, int line)
{
	check_count(cond, file, line, "not true: %s", what);
	return cond;
}

bool check_eq(long long want, long long got, const char *what, const char *file, int line)
{
	check_count(want == got, file, line, "%s: %lld (0x%llx), want %lld (0x%llx)", what, got,
		    (unsigned long long)got, want, (unsigned long long)want);
	return want == got;
}

bool check_mem(const void *want, const void *got, size_t size, const char *what, const char *file, int line)
{
	const unsigned char *w = want;
	const unsigned char *g = got;
	size_t i;

	for (i = 0; i < size && w[i] == g[i]; i++)
		;
	check_count(i == size, file, line, "%s: byte %zu of %zu is 0x%02x, want 0x%02x", what, i, size,
		    i < size ? g[i] : 0, i < size ? w[i] : 0);
	return i == size;
}

bool check_str(const char *want, const char *got, const char *what, const char *file, int line)
{
	bool good = strcmp(want, got) == 0;

	check_count(good, file, line, "%s: \"%.100s\", want \"%.100s\"", what, got, want);
	return good;
}

void check_context(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(context, sizeof(context), format, ap);
	va_end(ap);
}

void check_skip(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(shared->why, sizeof(shared->why), format, ap);
	va_end(ap);
	shared->skipped = true;
	_exit(0);
}

unsigned long check_failed_count(void)
{
	return __atomic_load_n(&shared->failed_count, __ATOMIC_RELAXED);
}

uint64_t check_seed(void)
{
	return seed;
}

unsigned check_scale(void)
{
	return scale;
}

bool check_fs_is(const char *name)
{
	return strcmp(fs_name, name) == 0;
}

pid_t child_start(void (*body)(void *), void *arg)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		body(arg);
		_exit(0);
	}
	check_true(pid > 0, "fork", CHECK_AT);
	return pid;
}

void child_wait(pid_t pid)
{
	int status = -1;

	while (waitpid(pid, &status, 0) == -1 && errno == EINTR)
		;
	check_count(status == 0, CHECK_AT, "child: %s %d",
		    WIFSIGNALED(status) ? "killed by signal" : "exit status",
		    WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

void child_run(void (*body)(void *), void *arg)
{
	child_wait(child_start(body, arg));
}

static int tree_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)ftw;
	return type == FTW_DP || type == FTW_DNR ? rmdir(path) : unlink(path);
}

/* Removes what a case left; a file system on which that fails has failed the case. */
static void tree_remove(const char *path)
{
	if (nftw(path, tree_remove_one, 64, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) != 0)
		check_count(false, CHECK_AT, "removing the case's directory: %s", strerrorname_np(errno));
}

static void case_child(const struct check_case *c, const char *dir)
{
	struct rlimit core = { 0, 0 };

	setpgid(0, 0);
	setrlimit(RLIMIT_CORE, &core);
	umask(0);
	setgroups(0, NULL);
	signal(SIGPIPE, SIG_DFL);
	if (chdir(dir) != 0)
		check_count(false, CHECK_AT, "chdir to %s: %s", dir, strerrorname_np(errno));
	else
		c->run();
	_exit(0);
}

/* Waits for the case; a watchdog process kills the whole group when it hangs. */
static void case_wait(pid_t pid)
{
	int status = 0;
	pid_t dog = fork();

	if (dog == 0) {
		for (unsigned left = CASE_MAX_S; left > 0; left = sleep(left))
			;
		kill(-pid, SIGKILL);
		_exit(0);
	}
	while (waitpid(pid, &status, 0) == -1 && errno == EINTR)
		;
	kill(dog, SIGKILL);
	waitpid(dog, NULL, 0);
	kill(-pid, SIGKILL);
	if (WIFSIGNALED(status))
		check_count(false, CHECK_AT, "the case was killed by signal %d (%s)%s", WTERMSIG(status),
			    sigabbrev_np(WTERMSIG(status)), WTERMSIG(status) == SIGKILL ? ": it hung" : "");
	else if (WEXITSTATUS(status) != 0)
		check_count(false, CHECK_AT, "the case exited with %d", WEXITSTATUS(status));
}

/* True when the case did not fail. */
static bool case_run(const struct check_case *c, const char *top)
{
	char dir[PATH_MAX + 128];
	pid_t pid;

	memset(shared, 0, sizeof(*shared));
	context[0] = '\0';
	snprintf(dir, sizeof(dir), "%s/%s", top, c->name);
	if (mkdir(dir, 0755) != 0 || chmod(dir, 0755) != 0) {
		printf("not ok %s/%s: mkdir %s: %s\n", program, c->name, dir, strerror(errno));
		return false;
	}
	fflush(stdout);
	pid = fork();
	if (pid == 0)
		case_child(c, dir);
	setpgid(pid, pid);
	case_wait(pid);
	tree_remove(dir);
	if (shared->failed_count)
		printf("not ok %s/%s: %lu of %lu assertions failed; %s\n", program, c->name,
		       shared->failed_count, shared->done_count, shared->why);
	else if (shared->skipped)
		printf("skip %s/%s: %s\n", program, c->name, shared->why);
	else
		printf("ok %s/%s\n", program, c->name);
	fflush(stdout);
	return shared->failed_count == 0;
}

static bool case_selected(const struct check_case *c, char **patterns)
{
	if (!*patterns)
		return true;
	for (; *patterns; patterns++) {
		if (fnmatch(*patterns, c->name, 0) == 0)
			return true;
	}
	return false;
}

static int usage(void)
{
	fprintf(stderr, "usage: %s [--list] [--seed N] [--scale N] [--fs NAME] DIR [CASE...]\n", program);
	return 2;
}

static int cases_run(const struct check_case *cases, size_t count, const char *dir, char **patterns)
{
	char top[PATH_MAX + 64];
	unsigned long done_count = 0;
	int rc = 0;

	if (geteuid() != 0) {
		fprintf(stderr, "%s: needs root\n", program);
		return 2;
	}
	snprintf(top, sizeof(top), "%s/%s.%d", dir, program, (int)getpid());
	if (mkdir(top, 0755) != 0 || chmod(top, 0755) != 0) {
		fprintf(stderr, "%s: mkdir %s: %s\n", program, top, strerror(errno));
		return 2;
	}
	for (size_t i = 0; i < count; i++) {
		if (!case_selected(&cases[i], patterns))
			continue;
		if (!case_run(&cases[i], top))
			rc = 1;
		done_count += shared->done_count;
	}
	rmdir(top);
	printf("# %s: %lu assertions\n", program, done_count);
	return rc;
}

int check_main(int argc, char **argv, const struct check_case *cases, size_t count)
{
	static const struct option options[] = {
		{ "list", no_argument, NULL, 'l' },
		{ "seed", required_argument, NULL, 's' },
		{ "scale", required_argument, NULL, 'x' },
		{ "fs", required_argument, NULL, 'f' },
		{ NULL, 0, NULL, 0 },
	};
	char dir[PATH_MAX];
	int opt;

	program = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
	if (strncmp(program, "m_", 2) == 0)
		program += 2;
	seed = (uint64_t)time(NULL) * 1000003u + (uint64_t)getpid();
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (opt == 'x')
			scale = (unsigned)strtoul(optarg, NULL, 0);
		else if (opt == 'f')
			fs_name = optarg;
		else if (opt != 'l')
			return usage();
		if (opt == 'l') {
			for (size_t i = 0; i < count; i++)
				printf("%s/%s\n", program, cases[i].name);
			return 0;
		}
	}
	if (optind >= argc || !realpath(argv[optind], dir))
		return usage();
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return 2;
	return cases_run(cases, count, dir, argv + optind + 1);
}
