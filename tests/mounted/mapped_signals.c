/* SPDX-License-Identifier: BSD-3-Clause */
/* Programs that map files and take signals, and that make other processes. */
#define _GNU_SOURCE
#include "mapped.h"

#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

static unsigned char *map;

static void map_begin(void)
{
	int fd = mapped_file("f", O_RDWR);

	map = mapped_make(NULL, BYTES, RW, MAP_SHARED, fd, 0);
	close(fd);
}

/* Pages of the file that nobody has touched yet, one after the other. */
static void next_is_there(bool store)
{
	static unsigned next;

	EQ(next, map[next * PAGE]);
	if (store)
		map[next * PAGE] = (unsigned char)next;
	next++;
}

/* ---- actions ---- */

static volatile int count, last_sig, last_code, last_has_usr1;
static void *volatile last_addr;
static sigjmp_buf out;

static void on_signal(int sig, siginfo_t *info, void *context)
{
	sigset_t now;

	(void)context;
	count++;
	last_sig = sig;
	last_code = info->si_code;
	last_addr = info->si_addr;
	sigprocmask(SIG_BLOCK, NULL, &now);
	last_has_usr1 = sigismember(&now, SIGUSR1);
	/* What is to come is there in a handler too. */
	next_is_there(true);
	if (info->si_code > 0)
		siglongjmp(out, 1);
}

static void on_plain(int sig)
{
	count++;
	last_sig = sig;
	siglongjmp(out, 1);
}

static int touched(volatile unsigned char *at)
{
	count = last_sig = 0;
	last_addr = NULL;
	if (sigsetjmp(out, 1) == 0)
		(void)*at;
	return last_sig;
}

static void action(int sig, void (*handler)(int, siginfo_t *, void *), int flags)
{
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags };

	sigaddset(&action.sa_mask, SIGUSR1);
	sigaddset(&action.sa_mask, SIGBUS);
	OK(sigaction(sig, &action, NULL));
}

static void case_actions(void)
{
	unsigned char *none = mapped_make(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct sigaction old;

	for (unsigned round = 0; round < 2; round++) {
		/* Once before the first mapping, and once after it. */
		action(SIGSEGV, on_signal, 0);
		action(SIGBUS, on_signal, 0);
		if (round == 0)
			map_begin();
		next_is_there(true);
		mapped_is_direct(map, true);
		EQ(SIGSEGV, touched(none));
		EQ(1, count);
		EQ(SEGV_ACCERR, last_code);
		TRUE(last_addr == none);
		EQ(1, last_has_usr1);
		EQ(SIGSEGV, touched(none));
		EQ(1, count);
		OK(sigaction(SIGSEGV, NULL, &old));
		TRUE(old.sa_sigaction == on_signal);
		EQ(SA_SIGINFO, old.sa_flags & (SA_SIGINFO | SA_NODEFER | (int)SA_RESETHAND));
		EQ(1, sigismember(&old.sa_mask, SIGUSR1));
		EQ(1, sigismember(&old.sa_mask, SIGBUS));
		EQ(0, sigismember(&old.sa_mask, SIGUSR2));
		next_is_there(true);
		OK(munmap(map + 63 * PAGE, PAGE));
		EQ(SIGSEGV, touched(map + 63 * PAGE));
		EQ(1, count);
	}
	EQ(0, truncate("f", 60 * PAGE));
	EQ(SIGBUS, touched(map + 61 * PAGE));
	EQ(1, count);
	TRUE(last_addr == map + 61 * PAGE);
	next_is_there(false);
	/* Right away is the default. */
	action(SIGSEGV, on_signal, (int)SA_RESETHAND);
	EQ(SIGSEGV, touched(none));
	OK(sigaction(SIGSEGV, NULL, &old));
	TRUE(old.sa_handler == SIG_DFL);
	next_is_there(true);
	TRUE(signal(SIGSEGV, on_plain) == SIG_DFL);
	EQ(SIGSEGV, touched(none));
	TRUE(signal(SIGSEGV, SIG_IGN) == on_plain);
	next_is_there(true);
	OK(raise(SIGSEGV));
	TRUE(signal(SIGSEGV, SIG_DFL) == SIG_IGN);
	next_is_there(true);
}

/* The default, with what a shell says of it. */
static void case_default(void)
{
	static const int sigs[] = { SIGSEGV, SIGBUS };

	map_begin();
	next_is_there(true);
	EQ(0, truncate("f", 60 * PAGE));
	for (unsigned i = 0; i < 4; i++) {
		pid_t pid = (pid_t)MUST(fork());
		int status;

		if (pid == 0) {
			map[0] = 1;
			if (i == 0)
				*(volatile unsigned char *)pointer_bad() = 1;
			else if (i == 1)
				map[61 * PAGE] = 1;
			else
				raise(sigs[i - 2]);
			_exit(1);
		}
		MUST(waitpid(pid, &status, 0));
		TRUE(WIFSIGNALED(status));
		EQ(sigs[i % 2], WTERMSIG(status));
	}
}

/* Whoever has all signals blocked, in masks or while a handler runs, has his mappings all the same. */
static void on_usr1(int sig)
{
	(void)sig;
	next_is_there(true);
	next_is_there(false);
	count++;
}

static void *blocked_thread(void *arg)
{
	(void)arg;
	next_is_there(true);
	return NULL;
}

static void on_sent(int sig, siginfo_t *info, void *context)
{
	(void)context;
	last_sig = sig;
	last_code = info->si_code;
	count++;
}

static void case_blocked(void)
{
	struct sigaction all = { .sa_handler = on_usr1 }, old;
	sigset_t set, before, now;
	pthread_t thread;

	sigfillset(&all.sa_mask);
	OK(sigaction(SIGUSR1, &all, NULL));
	OK(sigaction(SIGUSR1, NULL, &old));
	EQ(1, sigismember(&old.sa_mask, SIGSEGV));
	EQ(1, sigismember(&old.sa_mask, SIGBUS));
	map_begin();
	OK(raise(SIGUSR1));
	EQ(1, count);
	sigfillset(&set);
	OK(sigprocmask(SIG_SETMASK, &set, &before));
	EQ(0, sigismember(&before, SIGSEGV));
	OK(sigprocmask(SIG_SETMASK, NULL, &now));
	EQ(1, sigismember(&now, SIGSEGV));
	EQ(1, sigismember(&now, SIGBUS));
	EQ(1, sigismember(&now, SIGTERM));
	next_is_there(true);
	EQ(0, pthread_create(&thread, NULL, blocked_thread, NULL));
	EQ(0, pthread_join(thread, NULL));
	/* What is sent meanwhile comes later. */
	count = 0;
	action(SIGSEGV, on_sent, 0);
	OK(kill(getpid(), SIGSEGV));
	next_is_there(true);
	EQ(0, count);
	sigemptyset(&set);
	sigaddset(&set, SIGSEGV);
	EQ(0, pthread_sigmask(SIG_UNBLOCK, &set, &now));
	EQ(1, sigismember(&now, SIGSEGV));
	EQ(1, count);
	EQ(SIGSEGV, last_sig);
	EQ(SI_USER, last_code);
	OK(sigprocmask(SIG_SETMASK, NULL, &now));
	EQ(0, sigismember(&now, SIGSEGV));
	EQ(1, sigismember(&now, SIGBUS));
	OK(sigprocmask(SIG_SETMASK, &before, NULL));
	next_is_there(true);
}

/* On a stack of the thread's own. */
static sem_t first_taken;

static void *wait_in_thread(void *arg)
{
	sigset_t *set = arg;
	siginfo_t info;
	int sig = 0;

	/* From before, and what comes while it waits. */
	EQ(0, pthread_kill(pthread_self(), SIGSEGV));
	EQ(0, sigwait(set, &sig));
	EQ(SIGSEGV, sig);
	next_is_there(true);
	OK(sem_post(&first_taken));
	EQ(SIGBUS, sigwaitinfo(set, &info));
	EQ(getpid(), info.si_pid);
	return NULL;
}

/* Those that are blocked, and waited for; mappings are there all the time. */
static void case_waited_for(void)
{
	const struct timespec none = { 0 };
	sigset_t set, now;
	siginfo_t info;
	pthread_t thread;
	pid_t pid;

	map_begin();
	next_is_there(true);
	sigemptyset(&set);
	sigaddset(&set, SIGSEGV);
	sigaddset(&set, SIGBUS);
	OK(sigprocmask(SIG_BLOCK, &set, NULL));
	next_is_there(true);
	ERR(EAGAIN, sigtimedwait(&set, NULL, &none));
	OK(raise(SIGBUS));
	OK(sigpending(&now));
	EQ(1, sigismember(&now, SIGBUS));
	EQ(0, sigismember(&now, SIGSEGV));
	next_is_there(true);
	EQ(SIGBUS, sigtimedwait(&set, &info, &none));
	EQ(getpid(), info.si_pid);
	OK(sigpending(&now));
	EQ(0, sigismember(&now, SIGBUS));
	ERR(EAGAIN, sigtimedwait(&set, NULL, &none));
	pid = (pid_t)MUST(fork());
	if (pid == 0)
		_exit(kill(getppid(), SIGSEGV) != 0);
	EQ(SIGSEGV, sigwaitinfo(&set, &info));
	EQ(pid, info.si_pid);
	child_wait(pid);
	OK(sem_init(&first_taken, 0, 0));
	EQ(0, pthread_create(&thread, NULL, wait_in_thread, &set));
	OK(sem_wait(&first_taken));
	EQ(0, pthread_kill(thread, SIGBUS));
	EQ(0, pthread_join(thread, NULL));
	next_is_there(true);
	OK(sigprocmask(SIG_UNBLOCK, &set, NULL));
	next_is_there(true);
}

static void case_alternate_stack(void)
{
	enum { STACK = 8192 };
	stack_t stack = { .ss_sp = malloc(STACK), .ss_size = STACK }, old;
	unsigned char *none = mapped_make(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	OK(sigaltstack(&stack, NULL));
	action(SIGSEGV, on_signal, SA_ONSTACK);
	map_begin();
	for (unsigned i = 0; i < 20; i++)
		next_is_there(i % 2);
	EQ(SIGSEGV, touched(none));
	OK(sigaltstack(NULL, &old));
	TRUE(old.ss_sp == stack.ss_sp);
	EQ(STACK, old.ss_size);
	for (unsigned i = 0; i < 20; i++)
		next_is_there(i % 2);
}

/* ---- processes ---- */

static void in_child(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < PAGES; i++)
		if (!EQ(i == 3 ? 0x93 : i, map[i * PAGE]))
			return;
	mapped_is_direct(map, true);
	/* Nothing else comes there. */
	for (unsigned i = 0; i < 200; i++) {
		unsigned char *at =
			mapped_make(NULL, PAGE * (1 + i % 32), RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		TRUE(at >= map + BYTES || at + PAGE * (1 + i % 32) <= map);
	}
	map[4 * PAGE] = 0x94;
}

static void in_grandchild(void *arg)
{
	/* Without having touched it. */
	child_run(in_child, arg);
	EQ(0x94, map[4 * PAGE]);
	map[5 * PAGE] = 0x95;
	OK(munmap(map + 6 * PAGE, PAGE));
	OK(mprotect(map + 7 * PAGE, PAGE, PROT_NONE));
}

static void case_fork(void)
{
	map_begin();
	map[3 * PAGE] = 0x93;
	child_run(in_grandchild, NULL);
	EQ(0x94, map[4 * PAGE]);
	EQ(0x95, map[5 * PAGE]);
	EQ(6, map[6 * PAGE]);
	EQ(7, map[7 * PAGE]);
	map[4 * PAGE] = 4;
	/* Both store, each its own bytes, and go on while the other one is there. */
	for (unsigned round = 0; round < 3; round++) {
		pid_t pid = (pid_t)MUST(fork());

		if (pid == 0) {
			for (unsigned i = 0; i < BYTES; i += 64)
				map[i + 7] = (unsigned char)(i / 64 + round);
			_exit(0);
		}
		for (unsigned i = 0; i < BYTES; i += 64)
			map[i + 9] = (unsigned char)(i / 64 ^ round);
		child_wait(pid);
		for (unsigned i = 0; i < BYTES; i += 64)
			if (!EQ((unsigned char)(i / 64 + round), map[i + 7]) ||
			    !EQ((unsigned char)(i / 64 ^ round), map[i + 9]))
				return;
	}
	OK(munmap(map, BYTES));
	EQ(0x93, mapped_read("f", 3 * PAGE));
	EQ(63, mapped_read("f", 63 * PAGE));
}

static void child_without(void *arg)
{
	(void)arg;
	EQ(SIGSEGV, mapped_touch(map + 2 * PAGE, false));
	EQ(SIGSEGV, mapped_touch(map + 3 * PAGE, false));
	EQ(4, map[4 * PAGE]);
	EQ(1, map[PAGE]);
	TRUE(mapped_make(map + 2 * PAGE, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == map + 2 * PAGE);
}

static void case_dont_fork(void)
{
	map_begin();
	EQ(2, map[2 * PAGE]);
	OK(madvise(map + 2 * PAGE, 2 * PAGE, MADV_DONTFORK));
	child_run(child_without, NULL);
	EQ(2, map[2 * PAGE]);
	OK(madvise(map, BYTES, MADV_DOFORK));
	map[3 * PAGE] = 0x93;
	child_run(in_child, NULL);
}

static void wait_for(pid_t pid)
{
	int status;

	MUST(waitpid(pid, &status, 0));
	TRUE(WIFEXITED(status));
	EQ(0, WEXITSTATUS(status));
}

/* Children that share memory until they are another program. */
static void case_vfork(void)
{
	static char *args[] = { "true", NULL };
	extern char **environ;
	struct sigaction old;
	pid_t pid;

	map_begin();
	next_is_there(true);
	action(SIGSEGV, on_signal, 0);
	for (unsigned i = 0; i < 8; i++) {
		next_is_there(true);
		pid = vfork();
		if (pid == 0) {
			map[(32 + i) * PAGE] = (unsigned char)(0x40 + i);
			signal(SIGSEGV, SIG_DFL);
			signal(SIGBUS, SIG_DFL);
			execvp("true", args);
			_exit(127);
		}
		MUST(pid);
		wait_for(pid);
		EQ(0x40 + i, map[(32 + i) * PAGE]);
		/* What the child has set for itself is not for us. */
		OK(sigaction(SIGSEGV, NULL, &old));
		TRUE(old.sa_sigaction == on_signal);
		next_is_there(true);
		EQ(0, posix_spawnp(&pid, "true", NULL, NULL, args, environ));
		wait_for(pid);
		next_is_there(false);
		EQ(0, system("true"));
	}
	mapped_is_direct(map, true);
}

static void stay_and_store(void *arg)
{
	unsigned char *mine;
	int fd = file_open("f", O_RDWR);

	mine = mapped_make(NULL, BYTES, RW, MAP_SHARED, fd, 0);
	for (unsigned round = 0; round < 50; round++)
		for (unsigned i = 0; i < PAGES; i++)
			__atomic_fetch_add((unsigned *)(void *)(mine + i * PAGE + 128), 1, __ATOMIC_RELAXED);
	(void)arg;
}

/* One counter in each page, that all add to. */
static void case_processes(void)
{
	pid_t pids[4];

	map_begin();
	memset(map, 0, BYTES);
	for (unsigned i = 0; i < 4; i++)
		pids[i] = child_start(stay_and_store, NULL);
	for (unsigned i = 0; i < 4; i++)
		child_wait(pids[i]);
	for (unsigned i = 0; i < PAGES; i++)
		EQ(200, *(unsigned *)(void *)(map + i * PAGE + 128));
}

static const struct check_case cases[] = {
	{ "actions", case_actions },
	{ "default", case_default },
	{ "blocked", case_blocked },
	{ "waited_for", case_waited_for },
	{ "alternate_stack", case_alternate_stack },
	{ "fork", case_fork },
	{ "dont_fork", case_dont_fork },
	{ "vfork", case_vfork },
	{ "processes", case_processes },
};

CHECK_MAIN(cases)
