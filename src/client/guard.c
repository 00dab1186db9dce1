/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * SIGBUS in a copy of the library's own -> a jump out of it, by the thread that faulted. The signal mask is not saved with each copy, which would be a system call: the handler knows what
 * it was at the fault.
 *
 * Both signals in a mapping of the application's -> what is missing is put in place, or it is the application's.
 */
#include "client/calls.h"
#include "client/guard.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <ucontext.h>

#include "client/mapping.h"

#define MAPPINGS_MAX 128 /* two for each session */

/* An entry is in use while base is set; len is written before it. */
static struct {
	_Atomic(const uint8_t *) base;
	_Atomic uint64_t len;
	atomic_bool taken;
} mappings[MAPPINGS_MAX];

struct guard {
	sigjmp_buf env;
	const uint8_t *volatile fault;
	uintptr_t user; /* memory of the application that may be bad */
	size_t user_len;
	bool places; /* what is missing of it, if it is a mapping */
};

/* Whoever had SIGBUS, SIGSEGV, or would have them: under handler_lock. */
static struct sigaction previous_of[2];
static pthread_mutex_t handler_lock = PTHREAD_MUTEX_INITIALIZER;
bool guard_never_blocked;
bool (*guard_put_off)(int sig, const siginfo_t *info);
/* initial-exec: the handler must not run the allocator of dynamic TLS */
static __thread struct guard *guard_now __attribute__((tls_model("initial-exec")));

static bool is_mapping(const uint8_t *addr)
{
	for (size_t i = 0; i < MAPPINGS_MAX; i++) {
		const uint8_t *base = atomic_load_explicit(&mappings[i].base, memory_order_acquire);

		if (base && (uintptr_t)addr - (uintptr_t)base <
				    atomic_load_explicit(&mappings[i].len, memory_order_relaxed))
			return true;
	}
	return false;
}

/* With nothing that could come in between: the handler takes it too. */
static void handlers_lock(sigset_t *before)
{
	sigset_t all;

	sigfillset(&all);
	client_calls.mask(SIG_SETMASK, &all, before);
	pthread_mutex_lock(&handler_lock);
}

static void handlers_unlock(const sigset_t *before)
{
	pthread_mutex_unlock(&handler_lock);
	client_calls.mask(SIG_SETMASK, before, NULL);
}

/* What the application has set for sig, for one call of it. All signals are blocked. */
static struct sigaction previous_take(int sig)
{
	struct sigaction *at = &previous_of[sig == SIGSEGV], previous;

	pthread_mutex_lock(&handler_lock);
	previous = *at;
	if (at->sa_flags & (int)SA_RESETHAND) {
		at->sa_handler = SIG_DFL;
		at->sa_flags &= ~SA_SIGINFO;
	}
	pthread_mutex_unlock(&handler_lock);
	return previous;
}

static void pass_on(int sig, siginfo_t *info, void *context)
{
	bool of_instruction = info->si_code > 0 && (sig == SIGSEGV || info->si_code != BUS_MCEERR_AO);
	const struct sigaction previous = previous_take(sig);
	sigset_t mask = ((const ucontext_t *)context)->uc_sigmask;

	/* As it would have been called. */
	for (int other = 1; other < NSIG; other++)
		if (sigismember(&previous.sa_mask, other) == 1)
			sigaddset(&mask, other);
	if (!(previous.sa_flags & SA_NODEFER))
		sigaddset(&mask, sig);
	if (guard_never_blocked) {
		sigdelset(&mask, SIGSEGV);
		sigdelset(&mask, SIGBUS);
	}
	client_calls.mask(SIG_SETMASK, &mask, NULL);
	if (previous.sa_flags & SA_SIGINFO) {
		previous.sa_sigaction(sig, info, context);
		return;
	}
	if (previous.sa_handler == SIG_IGN && !of_instruction)
		return;
	if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
		previous.sa_handler(sig);
		return;
	}
	/* The instruction runs again after the return and dies where a core dump shows it. */
	client_calls.action(sig, &(struct sigaction){ .sa_handler = SIG_DFL }, NULL);
	if (!of_instruction)
		raise(sig);
}

/* Whether the access was to store. Where the processor does not say: the second time in a row at one address. */
static bool is_store(const siginfo_t *info, const void *context)
{
#ifdef __x86_64__
	(void)info;
	return ((const ucontext_t *)context)->uc_mcontext.gregs[REG_ERR] & 2;
#else
	static __thread void *last __attribute__((tls_model("initial-exec")));
	bool again = last == info->si_addr;

	(void)context;
	last = again ? NULL : info->si_addr;
	return again;
#endif
}

/* What no address can be (on x86 those between the halves): the processor does not say which it was. */
static bool is_no_address(const siginfo_t *info)
{
	return info->si_code == SI_KERNEL;
}

static _Noreturn void guard_leave(const siginfo_t *info, const void *context)
{
	struct guard *g = guard_now;

	g->fault = is_no_address(info) ? (const uint8_t *)g->user : info->si_addr;
	guard_now = NULL;
	client_calls.mask(SIG_SETMASK, &((const ucontext_t *)context)->uc_sigmask, NULL);
	siglongjmp(g->env, 1);
}

static bool is_users(const struct guard *g, const siginfo_t *info)
{
	return g &&
	       (is_no_address(info) ? g->user_len > 0 : (uintptr_t)info->si_addr - g->user < g->user_len);
}

/* All of it that is not in the session's own mappings. */
static bool in_mapping(int sig, const siginfo_t *info, const void *context)
{
	/* Kernels without CONFIG_MEMORY_FAILURE, and some devices, have no other code for it. */
	bool bad = sig == SIGBUS && (info->si_code == BUS_MCEERR_AR || info->si_code == BUS_ADRERR);
	enum fault f = mapping_fault((uintptr_t)info->si_addr, is_store(info, context), sig == SIGBUS, bad);

	/* A touch that is to be SIGBUS comes again as one. */
	return f == FAULT_DONE || (f == FAULT_BUS && sig == SIGSEGV);
}

bool guard_take(int sig, siginfo_t *info, void *context)
{
	if (info->si_code <= 0)
		return false;
	if (sig == SIGBUS && is_mapping(info->si_addr)) {
		if (info->si_code == BUS_MCEERR_AO)
			return true; /* nobody has touched it: whoever does is told again */
		if (!guard_now || (info->si_code != BUS_ADRERR && info->si_code != BUS_MCEERR_AR))
			return false;
		guard_leave(info, context);
	}
	/* The same of a mapping of the application's: its handler, if it has one, hears of what it touches. */
	if (sig == SIGBUS && info->si_code == BUS_MCEERR_AO)
		return mapping_is((uintptr_t)info->si_addr);
	if (is_users(guard_now, info)) {
		if (!guard_now->places || !in_mapping(sig, info, context))
			guard_leave(info, context);
		return true;
	}
	return in_mapping(sig, info, context);
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
	if (!guard_take(sig, info, context) && !(guard_put_off && guard_put_off(sig, info)))
		pass_on(sig, info, context);
}

static bool is_taken(const struct sigaction *current)
{
	return (current->sa_flags & SA_SIGINFO) && current->sa_sigaction == on_signal;
}

static int install(int sig)
{
	sigset_t before;
	/*
	 * Nothing comes between: it may wait, with locks of the library's. Early word of bad memory comes to a thread that is in any system call, and the application is not to hear of
	 * it by EINTR either.
	 */
	struct sigaction action = { .sa_sigaction = on_signal,
				    .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART },
			 current;
	int rc = 0;

	sigfillset(&action.sa_mask);
	handlers_lock(&before);
	if (client_calls.action(sig, NULL, &current)) {
		rc = -errno;
	} else if (!is_taken(&current)) {
		previous_of[sig == SIGSEGV] = current;
		if (client_calls.action(sig, &action, NULL))
			rc = -errno;
	}
	handlers_unlock(&before);
	return rc;
}

int guard_action(int sig, const struct sigaction *new, struct sigaction *old)
{
	struct sigaction current, *at = &previous_of[sig == SIGSEGV];
	sigset_t before;
	int rc;

	handlers_lock(&before);
	rc = client_calls.action(sig, NULL, &current);
	if (rc == 0 && !is_taken(&current)) {
		rc = client_calls.action(sig, new, old);
	} else if (rc == 0) {
		current = *at;
		if (new)
			*at = *new;
		if (old)
			*old = current;
	}
	handlers_unlock(&before);
	return rc;
}

void guard_fork_prepare(void)
{
	pthread_mutex_lock(&handler_lock);
}

void guard_fork_end(void)
{
	pthread_mutex_unlock(&handler_lock);
}

int guard_install(void)
{
	return install(SIGBUS);
}

int guard_install_user(void)
{
	return install(SIGSEGV);
}

int guard_install_mappings(void)
{
	int rc = install(SIGBUS);

	return rc ? rc : install(SIGSEGV);
}

int guard_add(const uint8_t *base, uint64_t len)
{
	for (size_t i = 0; i < MAPPINGS_MAX; i++) {
		bool free = false;

		if (!atomic_compare_exchange_strong(&mappings[i].taken, &free, true))
			continue;
		atomic_store_explicit(&mappings[i].len, len, memory_order_relaxed);
		atomic_store_explicit(&mappings[i].base, base, memory_order_release);
		return 0;
	}
	return -EMFILE;
}

void guard_remove(const uint8_t *base)
{
	for (size_t i = 0; i < MAPPINGS_MAX; i++)
		if (atomic_load(&mappings[i].base) == base) {
			atomic_store(&mappings[i].base, NULL);
			atomic_store(&mappings[i].taken, false);
			return;
		}
}

struct guard *guard_aside(void)
{
	struct guard *g = guard_now;

	guard_now = NULL;
	return g;
}

void guard_back(struct guard *g)
{
	guard_now = g;
}

static bool guarded(guard_copy_fn copy, void *dst, const void *src, size_t len, const void *user,
		    size_t user_len, bool places, const uint8_t **fault)
{
	struct guard g;

	/* One by one: to zero all of env, as an initializer does, costs a tenth of a copy of 4 KiB. */
	g.user = (uintptr_t)user;
	g.user_len = user_len;
	g.places = places;
	if (sigsetjmp(g.env, 0)) {
		if (fault)
			*fault = g.fault;
		return false;
	}
	guard_now = &g;
	/* The copy must not move out, even when the compiler sees both sides. */
	atomic_signal_fence(memory_order_seq_cst);
	copy(dst, src, len);
	atomic_signal_fence(memory_order_seq_cst);
	guard_now = NULL;
	return true;
}

bool guard_copy(guard_copy_fn copy, void *dst, const void *src, size_t len, const uint8_t **fault)
{
	return guarded(copy, dst, src, len, NULL, 0, false, fault);
}

bool guard_copy_user(guard_copy_fn copy, void *dst, const void *src, size_t len, const void *user,
		     const uint8_t **fault)
{
	return guarded(copy, dst, src, len, user, len, false, fault);
}

bool guard_copy_placing(guard_copy_fn copy, void *dst, const void *src, size_t len, const void *user,
			const uint8_t **fault)
{
	return guarded(copy, dst, src, len, user, len, true, fault);
}
