/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * SIGBUS -> a jump to the innermost guard of the thread that faulted.
 *
 * The kernel sends SIGBUS to the thread whose access hit poison (BUS_MCEERR_AR), or a page that its file or device
 * cannot give (BUS_ADRERR). The handler looks the address up in the list of mappings: an array of
 * atomic pointers, so that it may be read in the middle of anything. What is not ours, or ours but outside every guard,
 * goes to the handler that was there before, or ends the process as if there were none.
 *
 * A guard does not save the signal mask, which would be a system call for each. The handler knows what it was at the
 * fault and sets it again before it jumps. A thread that blocks SIGBUS is killed by the kernel when it faults.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <ucontext.h>
#include <unistd.h>

#include "dax/priv.h"

#define MAPPINGS_MAX 256

static _Atomic(const struct dax *) mappings[MAPPINGS_MAX];
static pthread_mutex_t handler_lock = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction previous; /* changes under handler_lock, is read by the handler */

/* initial-exec: the handler must not run the allocator of dynamic TLS */
static __thread struct dax_guard *innermost __attribute__((tls_model("initial-exec")));

/* What this thread last jumped away from. */
static __thread struct {
	const struct dax *dax; /* NULL: nothing, or it has been taken */
	struct dax_bad bad;
} bad_last __attribute__((tls_model("initial-exec")));

static const struct dax *mapping_find(const void *addr)
{
	for (size_t i = 0; i < MAPPINGS_MAX; i++) {
		const struct dax *dax = atomic_load_explicit(&mappings[i], memory_order_acquire);

		if (dax && (uintptr_t)addr - (uintptr_t)dax->base < dax->map_bytes)
			return dax;
	}
	return NULL;
}

static void pass_on(int sig, siginfo_t *info, void *context)
{
	bool of_instruction = info->si_code == BUS_ADRALN || info->si_code == BUS_ADRERR ||
			      info->si_code == BUS_OBJERR || info->si_code == BUS_MCEERR_AR;

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
	signal(sig, SIG_DFL);
	if (!of_instruction)
		raise(sig);
}

/* What one signal is about: a page, or more where the kernel does not know which. */
static struct dax_bad range_of(const struct dax *dax, const siginfo_t *info)
{
	uint64_t off = (uint64_t)((const uint8_t *)info->si_addr - dax->base), len = DAX_BLOCK_BYTES;

	bool has_lsb = info->si_code == BUS_MCEERR_AR || info->si_code == BUS_MCEERR_AO;

	if (!has_lsb || info->si_addr_lsb <= 12 || info->si_addr_lsb >= 48)
		return (struct dax_bad){ off, len };
	len = 1ull << info->si_addr_lsb;
	return (struct dax_bad){ off & ~(len - 1), len };
}

static void early_tell(const struct dax *dax, const siginfo_t *info)
{
	int fd = atomic_load_explicit(&dax->early_fd, memory_order_acquire), error = errno;
	struct dax_bad early = range_of(dax, info);

	if (fd > 0)
		(void)!write(fd, &early, sizeof(early)); /* full: then it is met when it is touched */
	errno = error;
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	const struct dax *dax = info->si_code > 0 ? mapping_find(info->si_addr) : NULL;
	struct dax_guard *g = innermost;

	/* Early word of poison that nobody has touched yet: whoever does is told again. */
	if (dax && info->si_code == BUS_MCEERR_AO) {
		early_tell(dax, info);
		return;
	}
	if (!dax || !g || (info->si_code != BUS_ADRERR && info->si_code != BUS_MCEERR_AR)) {
		pass_on(sig, info, context);
		return;
	}
	g->dax = dax;
	g->bad_off = (uint64_t)((const uint8_t *)info->si_addr - dax->base);
	bad_last.dax = dax;
	bad_last.bad = range_of(dax, info);
	innermost = g->outer;
	pthread_sigmask(SIG_SETMASK, &((const ucontext_t *)context)->uc_sigmask, NULL);
	siglongjmp(g->env, 1);
}

/* At each open: whoever took the signal since the last one (a test runner may) is passed on to from now on. */
static int handler_install(void)
{
	struct sigaction action = {
		.sa_sigaction = on_sigbus,
		.sa_flags = SA_SIGINFO | SA_ONSTACK,
	};
	struct sigaction current;
	int rc = 0;

	sigemptyset(&action.sa_mask);
	pthread_mutex_lock(&handler_lock);
	if (sigaction(SIGBUS, NULL, &current)) {
		rc = -errno;
	} else if (!(current.sa_flags & SA_SIGINFO) || current.sa_sigaction != on_sigbus) {
		/* Before the handler: a fault may come as soon as that is in place. */
		previous = current;
		if (sigaction(SIGBUS, &action, NULL))
			rc = -errno;
	}
	pthread_mutex_unlock(&handler_lock);
	return rc;
}

int guard_mapping_add(const struct dax *dax)
{
	int rc = handler_install();

	if (rc)
		return rc;
	for (size_t i = 0; i < MAPPINGS_MAX; i++) {
		const struct dax *none = NULL;

		if (atomic_compare_exchange_strong(&mappings[i], &none, dax))
			return 0;
	}
	return -EMFILE;
}

void guard_mapping_remove(const struct dax *dax)
{
	for (size_t i = 0; i < MAPPINGS_MAX; i++) {
		const struct dax *mine = dax;

		if (atomic_compare_exchange_strong(&mappings[i], &mine, NULL))
			return;
	}
}

bool dax_bad_take(const struct dax *dax, struct dax_bad *bad)
{
	if (bad_last.dax != dax)
		return false;
	*bad = bad_last.bad;
	bad_last.dax = NULL;
	return true;
}

void dax_guard_push(struct dax_guard *g)
{
	g->outer = innermost;
	g->bad_off = 0;
	g->dax = NULL;
	innermost = g;
	/* The reads of the section must not move out of it, even when the compiler sees both sides. */
	atomic_signal_fence(memory_order_seq_cst);
}

void dax_guard_leave(struct dax_guard *g)
{
	atomic_signal_fence(memory_order_seq_cst);
	assert(innermost == g);
	innermost = g->outer;
}

void dax_on_early(struct dax *dax, int fd)
{
	atomic_store_explicit(&dax->early_fd, fd, memory_order_release);
}

void dax_bad_forget(void)
{
	bad_last.dax = NULL;
}
