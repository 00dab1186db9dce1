/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Signals of an unmodified program. Its handlers for all others are in preload_handlers.h. SIGSEGV and SIGBUS are the library's from its first direct call or mapping on (guard.h); the program's own actions for them are kept, and are called for
 * what is not ours. The kernel ends a process that has blocked one of the two and meets it, so neither is ever blocked there: not by masks, not while a handler runs. The
 * program sees masks as it has set them, and what is sent to it (kill(2)) while it thinks that it has blocked it comes later.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "client/calls.h"
#include "client/fds.h"
#include "client/guard.h"
#include "client/next.h"
#include "client/preload_handlers.h"

#ifndef SIG_HOLD
#define SIG_HOLD ((__sighandler_t)2)
#endif

NEXT(sigaction, int, (int, const struct sigaction *, struct sigaction *))
NEXT(signal, __sighandler_t, (int, __sighandler_t))
NEXT(__sysv_signal, __sighandler_t, (int, __sighandler_t))
NEXT(sigset, __sighandler_t, (int, __sighandler_t))
NEXT(sighold, int, (int))
NEXT(sigrelse, int, (int))
NEXT(sigignore, int, (int))
NEXT(siginterrupt, int, (int, int))
NEXT(sigprocmask, int, (int, const sigset_t *, sigset_t *))
NEXT(pthread_sigmask, int, (int, const sigset_t *, sigset_t *))
NEXT(sigsuspend, int, (const sigset_t *))
NEXT(sigpending, int, (sigset_t *))
NEXT(sigtimedwait, int, (const sigset_t *, siginfo_t *, const struct timespec *))
NEXT(pthread_create, int, (pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))
NEXT(syscall, long, (long, ...))

/* Which of the two: */
#define OF_SEGV 1u
#define OF_BUS 2u

static bool is_on;
static _Atomic unsigned char masks[NSIG]; /* of the actions of others: which of the two they have */
static atomic_bool interrupts[NSIG];      /* siginterrupt() */
static __thread unsigned blocked __attribute__((tls_model("initial-exec")));
/* Sent while it was blocked. */
static __thread unsigned pending __attribute__((tls_model("initial-exec")));
static __thread siginfo_t pending_info[2] __attribute__((tls_model("initial-exec")));

static unsigned kind_of(int sig)
{
	return sig == SIGSEGV ? OF_SEGV : sig == SIGBUS ? OF_BUS : 0;
}

static unsigned kinds_in(const sigset_t *set)
{
	return (sigismember(set, SIGSEGV) == 1 ? OF_SEGV : 0) | (sigismember(set, SIGBUS) == 1 ? OF_BUS : 0);
}

static void kinds_add(sigset_t *set, unsigned kinds)
{
	if (kinds & OF_SEGV)
		sigaddset(set, SIGSEGV);
	if (kinds & OF_BUS)
		sigaddset(set, SIGBUS);
}

static void kinds_remove(sigset_t *set)
{
	sigdelset(set, SIGSEGV);
	sigdelset(set, SIGBUS);
}

/* In the handler. */
static bool put_off(int sig, const siginfo_t *info)
{
	if (info->si_code > 0 || !(blocked & kind_of(sig)))
		return false;
	pending |= kind_of(sig);
	pending_info[sig == SIGBUS] = *info;
	return true;
}

static void pending_send(unsigned kind, int sig)
{
	siginfo_t info = pending_info[sig == SIGBUS];

	if (!(pending & kind) || (blocked & kind))
		return;
	pending &= ~kind;
	(void)next_of_syscall()(SYS_rt_tgsigqueueinfo, (long)getpid(), next_of_syscall()(SYS_gettid),
				(long)sig, &info);
}

__attribute__((constructor(103))) static void begin(void)
{
	sigset_t two, before;

	client_calls.mask = next_of_pthread_sigmask();
	client_calls.action = next_of_sigaction();
	is_on = fds_are_on();
	if (!is_on)
		return;
	guard_never_blocked = true;
	guard_put_off = put_off;
	sigemptyset(&two);
	kinds_add(&two, OF_SEGV | OF_BUS);
	/* As the program that started this one has left it. */
	if (client_calls.mask(SIG_UNBLOCK, &two, &before) == 0)
		blocked = kinds_in(&before);
	handlers_begin();
}

/* ---- actions ---- */

static int action_set(int sig, const struct sigaction *new, struct sigaction *old)
{
	unsigned before = atomic_load(&masks[sig]);
	bool own = fds_are_own();
	struct sigaction without;
	int rc;

	if (kind_of(sig) && own)
		return guard_action(sig, new, old);
	if (new) {
		without = *new;
		kinds_remove(&without.sa_mask);
	}
	rc = handlers_action(sig, new ? &without : NULL, old);
	if (rc == 0 && old)
		kinds_add(&old->sa_mask, before);
	if (rc == 0 && new &&own)
		atomic_store(&masks[sig], (unsigned char)kinds_in(&new->sa_mask));
	return rc;
}

exported int sigaction(int sig, const struct sigaction *new, struct sigaction *old)
{
	if (!is_on || sig < 1 || sig >= NSIG)
		return next_of_sigaction()(sig, new, old);
	return action_set(sig, new, old);
}

static __sighandler_t handler_set(int sig, __sighandler_t handler, int flags, bool masks_itself)
{
	struct sigaction new = { .sa_handler = handler, .sa_flags = flags }, old;

	if (handler == SIG_ERR || sig < 1 || sig >= NSIG) {
		errno = EINVAL;
		return SIG_ERR;
	}
	if (masks_itself)
		sigaddset(&new.sa_mask, sig);
	return action_set(sig, &new, &old) ? SIG_ERR : old.sa_handler;
}

exported __sighandler_t signal(int sig, __sighandler_t handler)
{
	bool ends_calls = sig > 0 && sig < NSIG && atomic_load(&interrupts[sig]);

	if (!is_on)
		return next_of_signal()(sig, handler);
	return handler_set(sig, handler, ends_calls ? 0 : SA_RESTART, true);
}

exported __sighandler_t bsd_signal(int sig, __sighandler_t handler);

exported __sighandler_t bsd_signal(int sig, __sighandler_t handler)
{
	return signal(sig, handler);
}

exported __sighandler_t ssignal(int sig, __sighandler_t handler)
{
	return signal(sig, handler);
}

exported __sighandler_t __sysv_signal(int sig, __sighandler_t handler)
{
	if (!is_on)
		return next_of___sysv_signal()(sig, handler);
	return handler_set(sig, handler, (int)SA_RESETHAND | SA_NODEFER, false);
}

exported __sighandler_t sysv_signal(int sig, __sighandler_t handler)
{
	return __sysv_signal(sig, handler);
}

exported int siginterrupt(int sig, int flag);

int siginterrupt(int sig, int flag)
{
	struct sigaction action;

	if (!is_on)
		return next_of_siginterrupt()(sig, flag);
	if (sigaction(sig, NULL, &action))
		return -1;
	action.sa_flags = flag ? action.sa_flags & ~SA_RESTART : action.sa_flags | SA_RESTART;
	if (sigaction(sig, &action, NULL))
		return -1;
	atomic_store(&interrupts[sig], flag != 0);
	return 0;
}

/* ---- masks ---- */

static int mask_change(int how, const sigset_t *set, sigset_t *old,
		       int (*next)(int, const sigset_t *, sigset_t *))
{
	unsigned before = blocked, kinds = set ? kinds_in(set) : 0;
	sigset_t without;
	int rc;

	if (!is_on || (!before && !kinds))
		return next(how, set, old);
	if (set) {
		without = *set;
		kinds_remove(&without);
	}
	rc = next(how, set ? &without : NULL, old);
	if (rc)
		return rc;
	if (old)
		kinds_add(old, before);
	if (!set)
		return 0;
	blocked = how == SIG_BLOCK ? before | kinds : how == SIG_UNBLOCK ? before & ~kinds : kinds;
	if (pending) {
		pending_send(OF_SEGV, SIGSEGV);
		pending_send(OF_BUS, SIGBUS);
	}
	return 0;
}

exported int sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
	return mask_change(how, set, old, next_of_sigprocmask());
}

exported int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	return mask_change(how, set, old, next_of_pthread_sigmask());
}

exported int sigsuspend(const sigset_t *mask)
{
	unsigned before = blocked;
	sigset_t without;
	int rc;

	if (!is_on)
		return next_of_sigsuspend()(mask);
	without = *mask;
	kinds_remove(&without);
	blocked = kinds_in(mask);
	rc = next_of_sigsuspend()(&without);
	blocked = before;
	return rc;
}

/* A thread begins with the mask of who has made it. */
struct beginning {
	void *(*run)(void *);
	void *arg;
	unsigned blocked;
};

static void *thread_begin(void *arg)
{
	struct beginning b = *(struct beginning *)arg;

	free(arg);
	blocked = b.blocked;
	return b.run(b.arg);
}

exported int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
	struct beginning *b;
	int rc;

	if (!is_on || !blocked)
		return next_of_pthread_create()(thread, attr, run, arg);
	b = malloc(sizeof(*b));
	if (!b)
		return EAGAIN;
	*b = (struct beginning){ run, arg, blocked };
	rc = next_of_pthread_create()(thread, attr, thread_begin, b);
	if (rc)
		free(b);
	return rc;
}

/* ---- waiting for them ---- */

exported int sigpending(sigset_t *set)
{
	int rc = next_of_sigpending()(set);

	if (rc == 0)
		kinds_add(set, pending & blocked);
	return rc;
}

static int pending_take(unsigned kinds, siginfo_t *info)
{
	unsigned found = pending & kinds;
	int sig = found & OF_BUS ? SIGBUS : SIGSEGV;

	if (!found)
		return 0;
	pending &= ~kind_of(sig);
	if (info)
		*info = pending_info[sig == SIGBUS];
	return sig;
}

/*
 * The kernel has them blocked for as long as this takes, so that none comes between the look at those that have been put off and the wait. The thread touches no mapping
 * meanwhile: info may be in one.
 */
static int wait_for(const sigset_t *set, siginfo_t *info, const struct timespec *limit)
{
	sigset_t two, before;
	siginfo_t got = { 0 };
	int sig, error;

	sigemptyset(&two);
	kinds_add(&two, kinds_in(set));
	next_of_pthread_sigmask()(SIG_BLOCK, &two, &before);
	sig = pending_take(kinds_in(set), &got);
	if (!sig)
		sig = next_of_sigtimedwait()(set, &got, limit);
	error = errno;
	next_of_pthread_sigmask()(SIG_SETMASK, &before, NULL);
	if (sig > 0 && info)
		*info = got;
	errno = error;
	return sig;
}

exported int sigtimedwait(const sigset_t *set, siginfo_t *info, const struct timespec *limit)
{
	struct timespec copy = limit ? *limit : (struct timespec){ 0 };
	sigset_t wanted = *set;

	if (!is_on || !kinds_in(&wanted))
		return next_of_sigtimedwait()(set, info, limit);
	return wait_for(&wanted, info, limit ? &copy : NULL);
}

exported int sigwaitinfo(const sigset_t *set, siginfo_t *info)
{
	return sigtimedwait(set, info, NULL);
}

exported int sigwait(const sigset_t *set, int *sig)
{
	int before = errno, got;

	do
		got = sigtimedwait(set, NULL, NULL);
	while (got < 0 && errno == EINTR);
	if (got < 0) {
		got = errno;
		errno = before;
		return got;
	}
	errno = before;
	*sig = got;
	return 0;
}

/* ---- of System V ---- */

static int hold(int how, int sig)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	return sigprocmask(how, &set, NULL);
}

exported int sighold(int sig)
{
	return is_on && kind_of(sig) ? hold(SIG_BLOCK, sig) : next_of_sighold()(sig);
}

exported int sigrelse(int sig)
{
	return is_on && kind_of(sig) ? hold(SIG_UNBLOCK, sig) : next_of_sigrelse()(sig);
}

exported int sigignore(int sig)
{
	if (!is_on || !kind_of(sig))
		return next_of_sigignore()(sig);
	return handler_set(sig, SIG_IGN, 0, false) == SIG_ERR ? -1 : 0;
}

static bool is_held(int sig)
{
	sigset_t now;

	return sigprocmask(SIG_BLOCK, NULL, &now) == 0 && sigismember(&now, sig) == 1;
}

exported __sighandler_t sigset(int sig, __sighandler_t handler)
{
	__sighandler_t before;
	struct sigaction now;
	bool was_held;

	if (!is_on)
		return next_of_sigset()(sig, handler);
	was_held = is_held(sig);
	if (handler == SIG_HOLD) {
		if (sigaction(sig, NULL, &now) || hold(SIG_BLOCK, sig))
			return SIG_ERR;
		return was_held ? SIG_HOLD : now.sa_handler;
	}
	before = handler_set(sig, handler, 0, false);
	if (before == SIG_ERR || hold(SIG_UNBLOCK, sig))
		return SIG_ERR;
	return was_held ? SIG_HOLD : before;
}
