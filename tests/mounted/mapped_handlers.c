/* SPDX-License-Identifier: BSD-3-Clause */
/* Programs whose handlers come while they read and write files, and use files and mappings themselves; and what they see of their handlers. */
#define _GNU_SOURCE
#include "mapped.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>

/* The old ones that headers do not show. */
sighandler_t sysv_signal(int sig, sighandler_t handler);

enum { PERIOD_US = 200, ALARMS = 3000, CHANGES = 200, QUEUED = 3000 };

/* ---- actions ---- */

static volatile int count, last_code, last_value, last_mask;
static void *volatile last_context;

static int mask_now(void)
{
	static const int sigs[] = { SIGUSR1, SIGUSR2, SIGHUP, SIGSEGV };
	sigset_t now;
	int mask = 0;

	sigprocmask(SIG_BLOCK, NULL, &now);
	for (unsigned i = 0; i < 4; i++)
		mask |= sigismember(&now, sigs[i]) << i;
	return mask;
}

static void on_info(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	count++;
	last_code = info->si_code;
	last_value = info->si_value.sival_int;
	last_context = context;
	last_mask = mask_now();
}

static void on_plain(int sig)
{
	(void)sig;
	count++;
	last_mask = mask_now();
}

static struct sigaction action_of(int sig)
{
	struct sigaction now;

	MUST(sigaction(sig, NULL, &now));
	return now;
}

static void case_actions(void)
{
	struct sigaction action = { .sa_sigaction = on_info, .sa_flags = SA_SIGINFO | SA_RESTART }, old;
	const union sigval value = { .sival_int = 77 };

	sigaddset(&action.sa_mask, SIGHUP);
	sigaddset(&action.sa_mask, SIGSEGV);
	OK(sigaction(SIGUSR1, &action, &old));
	TRUE(old.sa_handler == SIG_DFL);
	old = action_of(SIGUSR1);
	TRUE(old.sa_sigaction == on_info);
	EQ(SA_SIGINFO | SA_RESTART,
	   old.sa_flags & (SA_SIGINFO | SA_RESTART | SA_NODEFER | (int)SA_RESETHAND | SA_ONSTACK));
	EQ(1, sigismember(&old.sa_mask, SIGHUP));
	EQ(1, sigismember(&old.sa_mask, SIGSEGV));
	EQ(0, sigismember(&old.sa_mask, SIGUSR2));
	OK(sigqueue(getpid(), SIGUSR1, value));
	EQ(1, count);
	EQ(SI_QUEUE, last_code);
	EQ(77, last_value);
	TRUE(last_context != NULL);
	EQ(1 | 4, last_mask & 7);
	/* Without what it is about; not blocked meanwhile. */
	action = (struct sigaction){ .sa_handler = on_plain, .sa_flags = SA_NODEFER };
	OK(sigaction(SIGUSR1, &action, &old));
	TRUE(old.sa_sigaction == on_info);
	old = action_of(SIGUSR1);
	TRUE(old.sa_handler == on_plain);
	EQ(SA_NODEFER, old.sa_flags & (SA_SIGINFO | SA_RESTART | SA_NODEFER | (int)SA_RESETHAND));
	OK(raise(SIGUSR1));
	EQ(2, count);
	EQ(0, last_mask);
	/* Once */
	action = (struct sigaction){ .sa_sigaction = on_info, .sa_flags = SA_SIGINFO | (int)SA_RESETHAND };
	OK(sigaction(SIGUSR1, &action, NULL));
	old = action_of(SIGUSR1);
	EQ(SA_SIGINFO | (int)SA_RESETHAND, old.sa_flags & (SA_SIGINFO | (int)SA_RESETHAND));
	OK(raise(SIGUSR1));
	EQ(3, count);
	EQ(1, last_mask);
	old = action_of(SIGUSR1);
	TRUE(old.sa_handler == SIG_DFL);
	/* Back as it was. */
	OK(sigaction(SIGUSR1, &action, NULL));
	TRUE(signal(SIGUSR1, SIG_IGN) != SIG_ERR);
	OK(raise(SIGUSR1));
	EQ(3, count);
	OK(sigaction(SIGUSR1, &action, NULL));
	OK(raise(SIGUSR1));
	EQ(4, count);
	ERR(EINVAL, sigaction(0, &action, NULL));
	ERR(EINVAL, sigaction(SIGKILL, &action, NULL));
	ERR(EINVAL, sigaction(NSIG + 1, &action, NULL));
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
static void case_old_calls(void)
{
	TRUE(signal(SIGUSR2, on_plain) == SIG_DFL);
	TRUE(signal(SIGUSR2, on_plain) == on_plain);
	EQ(SA_RESTART, action_of(SIGUSR2).sa_flags & (SA_RESTART | SA_SIGINFO | (int)SA_RESETHAND));
	OK(raise(SIGUSR2));
	EQ(1, count);
	EQ(2, last_mask);
	OK(siginterrupt(SIGUSR2, 1));
	EQ(0, action_of(SIGUSR2).sa_flags & (SA_RESTART | SA_SIGINFO));
	TRUE(signal(SIGUSR2, on_plain) == on_plain);
	EQ(0, action_of(SIGUSR2).sa_flags & SA_RESTART);
	OK(siginterrupt(SIGUSR2, 0));
	EQ(SA_RESTART, action_of(SIGUSR2).sa_flags & SA_RESTART);
	TRUE(sysv_signal(SIGUSR2, on_plain) == on_plain);
	EQ((int)SA_RESETHAND | SA_NODEFER,
	   action_of(SIGUSR2).sa_flags & (SA_RESTART | SA_NODEFER | (int)SA_RESETHAND));
	OK(raise(SIGUSR2));
	EQ(2, count);
	EQ(0, last_mask);
	TRUE(signal(SIGUSR2, SIG_IGN) == SIG_DFL);
	TRUE(sigset(SIGUSR2, on_plain) == SIG_IGN);
	OK(sighold(SIGUSR2));
	OK(raise(SIGUSR2));
	EQ(2, count);
	TRUE(sigset(SIGUSR2, on_plain) == SIG_HOLD);
	EQ(3, count);
	TRUE(sigset(SIGUSR2, SIG_HOLD) == on_plain);
	OK(raise(SIGUSR2));
	OK(sigignore(SIGUSR2));
	OK(sigrelse(SIGUSR2));
	EQ(3, count);
	TRUE(signal(SIGUSR2, SIG_DFL) == SIG_IGN);
	errno = 0;
	TRUE(signal(SIGKILL, on_plain) == SIG_ERR && errno == EINVAL);
	TRUE(signal(-1, on_plain) == SIG_ERR && errno == EINVAL);
}

#pragma GCC diagnostic pop

/* ---- in the middle of calls ---- */

static unsigned char *map;
static unsigned *changes; /* of the other process */
static int calls_fd, other_fd;

/* Takes away pages that are mapped, again and again. */
static void change(void *arg)
{
	int fd = file_open("f", O_RDWR);

	for (;;) {
		if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, BYTES / 2) != 0)
			_exit(1);
		__atomic_fetch_add(changes, 1, __ATOMIC_RELAXED);
	}
	(void)arg;
}

static pid_t calls_begin(void (*handler)(int))
{
	struct sigaction action = { .sa_handler = handler };
	int fd = mapped_file("f", O_RDWR);
	pid_t pid;

	map = mapped_make(NULL, BYTES, RW, MAP_SHARED, fd, 0);
	changes = (void *)mapped_make(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	calls_fd = mapped_file("g", O_RDWR);
	other_fd = mapped_file("h", O_RDWR);
	pid = child_start(change, NULL);
	OK(sigaction(SIGALRM, &action, NULL));
	return pid;
}

static void alarms(unsigned period_us)
{
	const struct itimerval timer = { { 0, period_us }, { 0, period_us } };

	OK(setitimer(ITIMER_REAL, &timer, NULL));
}

static void calls_end(pid_t pid)
{
	alarms(0);
	MUST(kill(pid, SIGKILL));
	MUST(waitpid(pid, NULL, 0));
}

static bool is_enough(void)
{
	return count >= ALARMS && __atomic_load_n(changes, __ATOMIC_RELAXED) >= CHANGES;
}

/* Each page of g is filled with its number, and so it stays. */
static void calls(unsigned i)
{
	unsigned char bytes[PAGE];
	unsigned n = i % PAGES;
	struct iovec part = { bytes, PAGE };

	EQ(PAGE, pread(calls_fd, bytes, PAGE, (off_t)n * PAGE));
	EQ(n, bytes[0]);
	EQ(n, bytes[PAGE - 1]);
	EQ(PAGE, pwrite(calls_fd, bytes, PAGE, (off_t)n * PAGE));
	EQ(n * PAGE, lseek(calls_fd, n * PAGE, SEEK_SET));
	EQ(PAGE, i % 2 ? read(calls_fd, bytes, PAGE) : preadv(calls_fd, &part, 1, (off_t)n * PAGE));
	EQ(n, bytes[9]);
}

static volatile int handled;

static void on_alarm(int sig)
{
	unsigned char bytes[PAGE];
	unsigned n = (unsigned)count++ % PAGES;
	int before = errno;

	(void)sig;
	map[n * PAGE + 64] = (unsigned char)n;
	if (pread(other_fd, bytes, PAGE, (off_t)n * PAGE) != PAGE || bytes[77] != n ||
	    pwrite(other_fd, bytes, PAGE, (off_t)n * PAGE) != PAGE)
		abort();
	errno = before;
	handled++;
}

static void case_touch(void)
{
	pid_t pid = calls_begin(on_alarm);

	alarms(PERIOD_US);
	for (unsigned i = 0; !is_enough(); i++)
		calls(i);
	calls_end(pid);
}

static sigjmp_buf out;

static void jump_out(int sig)
{
	unsigned n = (unsigned)count++ % PAGES;

	(void)sig;
	map[n * PAGE + 64] = (unsigned char)n;
	siglongjmp(out, 1);
}

/* Whatever it was in: calls are done, or were not begun. */
static void case_jump(void)
{
	pid_t pid = calls_begin(jump_out);
	static unsigned i;

	alarms(PERIOD_US);
	(void)sigsetjmp(out, 1);
	for (; !is_enough(); i++)
		calls(i);
	calls_end(pid);
	calls(1);
}

static volatile unsigned expected, wrong;

static void on_queued(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	wrong += info->si_code != SI_QUEUE || info->si_value.sival_int != (int)expected;
	expected++;
	on_alarm(sig);
}

static void send(void *arg)
{
	(void)arg;
	for (int i = 0; i < QUEUED;) {
		if (sigqueue(getppid(), SIGRTMIN + 2, (union sigval){ .sival_int = i }) == 0)
			i++;
		else if (errno != EAGAIN)
			_exit(1);
	}
}

/* Those that are queued all come, in order, with what was sent. */
static void case_queued(void)
{
	struct sigaction action = { .sa_sigaction = on_queued, .sa_flags = SA_SIGINFO | SA_RESTART };
	pid_t pid = calls_begin(SIG_IGN), sender;

	OK(sigaction(SIGRTMIN + 2, &action, NULL));
	sender = child_start(send, NULL);
	for (unsigned i = 0; expected < QUEUED; i++)
		calls(i);
	EQ(0, wrong);
	child_wait(sender);
	calls_end(pid);
}

/* A thread of its own, signals of which go to it. */
static atomic_bool thread_ends;

static void *calls_in_thread(void *arg)
{
	(void)arg;
	for (unsigned i = 0; !thread_ends; i++)
		calls(i);
	return NULL;
}

static void case_threads(void)
{
	struct sigaction action = { .sa_handler = on_alarm, .sa_flags = SA_NODEFER };
	pid_t pid = calls_begin(SIG_IGN);
	pthread_t thread;

	OK(sigaction(SIGUSR1, &action, NULL));
	EQ(0, pthread_create(&thread, NULL, calls_in_thread, NULL));
	while (!is_enough()) {
		int before = handled;

		/* One after the other, more or less: each that is not over yet takes its part of the stack. */
		EQ(0, pthread_kill(thread, SIGUSR1));
		while (handled == before)
			sched_yield();
	}
	thread_ends = true;
	EQ(0, pthread_join(thread, NULL));
	calls_end(pid);
}

static const struct check_case cases[] = {
	{ "actions", case_actions }, { "old_calls", case_old_calls }, { "touch", case_touch },
	{ "jump", case_jump },       { "queued", case_queued },       { "threads", case_threads },
};

CHECK_MAIN(cases)
