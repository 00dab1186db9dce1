/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The kernel calls ours, with the flags and the mask that the program has asked for, and ours the program's. When it comes within a data call (fds_is_quiet()) the signal is sent to this thread again,
 * as it was, and the call goes on with all signals blocked. At its end the mask is what it was, and the kernel delivers what has gathered. So whatever a signal means (system calls that
 * go on or do not, stacks, masks, the order) is the kernel's.
 *
 * Several may come at once: then each interrupts the first instruction of the one before, and the last one to run is the one that has interrupted the call, and knows its mask.
 *
 * The lock is held with all signals blocked, and begins anew in children: the table is then what the kernel has, or what another thread was just about to set.
 */
#include "client/preload_handlers.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "client/calls.h"
#include "client/fds.h"
#include "client/guard.h"
#include "client/next.h"

NEXT(syscall, long, (long, ...))

#define MASK_BYTES (NSIG / 8) /* the kernel's set: a signal frame has no room for more */

typedef void (*handler_fn)(int sig, siginfo_t *info, void *context);

/* Of the last handler that the program has set, whether or not it has that still. Changed under the lock. */
static struct {
	_Atomic(handler_fn) fn;
	atomic_bool once; /* SA_RESETHAND: the kernel does not have the flag */
	bool no_info;     /* without SA_SIGINFO: the kernel has the flag */
} handlers[NSIG];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__thread bool handlers_wait __attribute__((tls_model("initial-exec")));
/* What the thread had blocked before. */
static __thread uint64_t mask_before __attribute__((tls_model("initial-exec")));
static_assert(sizeof(mask_before) == MASK_BYTES, "the kernel's set");

static void signals_block(sigset_t *before)
{
	sigset_t all;

	sigfillset(&all);
	client_calls.mask(SIG_SETMASK, &all, before);
}

static void lock_take(sigset_t *before)
{
	signals_block(before);
	pthread_mutex_lock(&lock);
}

static void lock_give(const sigset_t *before)
{
	pthread_mutex_unlock(&lock);
	client_calls.mask(SIG_SETMASK, before, NULL);
}

static void fork_child(void)
{
	lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

/* ---- signals ---- */

void handlers_keep_faults(sigset_t *set)
{
	static const int faults[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS };

	for (size_t i = 0; i < ARRAY_SIZE(faults); i++)
		sigdelset(set, faults[i]);
}

/* False: too many signals are queued. */
static bool send_again(int sig, siginfo_t *info)
{
	return next_of_syscall()(SYS_rt_tgsigqueueinfo, (long)getpid(), next_of_syscall()(SYS_gettid),
				 (long)sig, info) == 0;
}

static __attribute__((noinline)) bool put_off(int sig, siginfo_t *info, void *context)
{
	ucontext_t *interrupted = context;
	int error = errno;
	sigset_t others, before;
	bool sent;

	sigfillset(&others);
	handlers_keep_faults(&others);
	if (sigismember(&others, sig) != 1)
		return false;
	signals_block(&before); /* it may not be by itself (SA_NODEFER) */
	sent = send_again(sig, info);
	if (sent) {
		memcpy(&mask_before, &interrupted->uc_sigmask, MASK_BYTES);
		handlers_wait = true;
		memcpy(&interrupted->uc_sigmask, &others, MASK_BYTES);
	} else {
		client_calls.mask(SIG_SETMASK, &before, NULL);
	}
	errno = error;
	return sent;
}

void handlers_release(void)
{
	sigset_t before;

	sigemptyset(&before);
	memcpy(&before, &mask_before, MASK_BYTES);
	handlers_wait = false;
	client_calls.mask(SIG_SETMASK, &before, NULL);
}

static void on_signal(int sig, siginfo_t *info, void *context);

static bool is_ours(const struct sigaction *action)
{
	return (action->sa_flags & SA_SIGINFO) && action->sa_sigaction == on_signal;
}

/* The program's action is the default from now on. False: it was before, by a signal in another thread. */
static bool reset(int sig)
{
	struct sigaction now;
	sigset_t before;
	bool mine;

	lock_take(&before);
	mine = handlers[sig].once && client_calls.action(sig, NULL, &now) == 0 && is_ours(&now);
	if (mine) {
		now.sa_handler = SIG_DFL;
		now.sa_flags |= (int)SA_RESETHAND;
		if (handlers[sig].no_info)
			now.sa_flags &= ~SA_SIGINFO;
		mine = client_calls.action(sig, &now, NULL) == 0;
	}
	lock_give(&before);
	return mine;
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
	struct guard *interrupted;

	if (__builtin_expect(!fds_is_quiet(), 0) && put_off(sig, info, context))
		return;
	if (atomic_load_explicit(&handlers[sig].once, memory_order_relaxed) && !reset(sig)) {
		(void)send_again(sig, info);
		return;
	}
	interrupted = guard_aside();
	/* Whoever takes one argument does not look at the others: so does the kernel. */
	atomic_load_explicit(&handlers[sig].fn, memory_order_acquire)(sig, info, context);
	guard_back(interrupted);
}

/* ---- actions ---- */

static bool is_handler(const struct sigaction *action)
{
	return action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN;
}

/* What the kernel has -> what the program has. */
static void show(int sig, struct sigaction *action)
{
	if (!is_ours(action))
		return;
	action->sa_sigaction = handlers[sig].fn;
	if (handlers[sig].no_info)
		action->sa_flags &= ~SA_SIGINFO;
	if (handlers[sig].once)
		action->sa_flags |= (int)SA_RESETHAND;
}

/* A signal that comes meanwhile has the new one, as if it had come afterwards. */
static int set(int sig, const struct sigaction *new)
{
	handler_fn fn = handlers[sig].fn;
	bool once = handlers[sig].once, no_info = handlers[sig].no_info;
	struct sigaction action = *new;
	int rc;

	if (!is_handler(new))
		return client_calls.action(sig, new, NULL);
	action.sa_sigaction = on_signal;
	action.sa_flags = (new->sa_flags | SA_SIGINFO) & ~(int)SA_RESETHAND;
	handlers[sig].no_info = !(new->sa_flags &SA_SIGINFO);
	atomic_store(&handlers[sig].once, new->sa_flags &(int)SA_RESETHAND);
	atomic_store(&handlers[sig].fn, new->sa_sigaction);
	rc = client_calls.action(sig, &action, NULL);
	if (rc) {
		handlers[sig].no_info = no_info;
		atomic_store(&handlers[sig].once, once);
		atomic_store(&handlers[sig].fn, fn);
	}
	return rc;
}

int handlers_action(int sig, const struct sigaction *new, struct sigaction *old)
{
	struct sigaction now;
	sigset_t before;
	int rc;

	/* The table is the parent's; the handlers of a child by vfork() are called by the kernel. */
	if (!fds_are_own()) {
		rc = client_calls.action(sig, new, old);
		if (rc == 0 && old)
			show(sig, old);
		return rc;
	}
	lock_take(&before);
	rc = client_calls.action(sig, NULL, &now);
	if (rc == 0) {
		show(sig, &now);
		rc = new ? set(sig, new) : 0;
	}
	lock_give(&before);
	if (rc == 0 && old)
		*old = now;
	return rc;
}

void handlers_begin(void)
{
	struct sigaction now;

	(void)pthread_atfork(NULL, NULL, fork_child);
	for (int sig = 1; sig < NSIG; sig++)
		if (sig != SIGSEGV && sig != SIGBUS && client_calls.action(sig, NULL, &now) == 0 &&
		    is_handler(&now))
			(void)!set(sig, &now);
}
