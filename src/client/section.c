/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A section notes the phase in which it begins. Who waits begins a new phase, has every running thread pass a barrier, and then waits for those that are in an older
 * one. A thread that had read the old phase but not yet noted it when the barrier came notes it after the barrier, and so sees what was published before.
 *
 * Records are never freed: their number is that of the threads that there were at one time.
 */
#include "client/section.h"

#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "client/memory.h"

#define YIELDS_MAX 20
#define PAUSE_NS 20000

_Atomic uint64_t section_phase = 1;
atomic_bool section_fences = true;
__thread struct section *section_own __attribute__((tls_model("initial-exec")));

static _Atomic(struct section *) all;
static pthread_mutex_t wait_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool key_ok;

static void thread_ends(void *arg)
{
	struct section *s = arg;

	section_own = NULL;
	atomic_store_explicit(&s->in_use, false, memory_order_release);
}

static void key_make(void)
{
	key_ok = pthread_key_create(&key, thread_ends) == 0;
}

static int membarrier(int cmd)
{
	return (int)syscall(SYS_membarrier, cmd, 0, 0);
}

/* Sections that fence need no barrier from others, those that rely on it do: so the flag falls after it is known to work, and never rises again. */
void section_init(void)
{
	/* Early: for one of the first keys nothing has to be allocated by a thread. */
	pthread_once(&key_once, key_make);
	if (membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0 &&
	    membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0)
		atomic_store(&section_fences, false);
}

static struct section *record_take(void)
{
	struct section *s;
	uint8_t *at;

	for (s = atomic_load(&all); s; s = s->next) {
		bool free = false;

		if (!atomic_load_explicit(&s->in_use, memory_order_relaxed) &&
		    atomic_compare_exchange_strong(&s->in_use, &free, true))
			return s;
	}
	at = memory_get(sizeof(*s) + _Alignof(struct section));
	if (!at)
		return NULL;
	s = (void *)(at + _Alignof(struct section) - (uintptr_t)at % _Alignof(struct section));
	*s = (struct section){ .in_use = true, .next = atomic_load(&all) };
	while (!atomic_compare_exchange_weak(&all, &s->next, s))
		;
	return s;
}

struct section *section_register(void)
{
	struct section *s;

	pthread_once(&key_once, key_make);
	s = key_ok ? record_take() : NULL;
	if (s && pthread_setspecific(key, s)) {
		atomic_store_explicit(&s->in_use, false, memory_order_release);
		return NULL;
	}
	section_own = s;
	return s;
}

static void pause_for_others(unsigned turn)
{
	struct timespec pause = { .tv_nsec = PAUSE_NS };

	if (turn < YIELDS_MAX)
		sched_yield();
	else
		nanosleep(&pause, NULL);
}

void section_wait(void)
{
	uint64_t phase;

	pthread_mutex_lock(&wait_lock);
	phase = atomic_fetch_add(&section_phase, 1) + 1;
	if (atomic_load(&section_fences))
		atomic_thread_fence(memory_order_seq_cst);
	else
		(void)membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED); /* it has worked: section_init() */
	for (struct section *s = atomic_load(&all); s; s = s->next)
		for (unsigned turn = 0; s != section_own; turn++) {
			uint64_t in = atomic_load_explicit(&s->phase, memory_order_acquire);

			if (in == 0 || in >= phase)
				break;
			pause_for_others(turn);
		}
	pthread_mutex_unlock(&wait_lock);
}

void section_sum(struct umbra_counts *counts)
{
	for (struct section *s = atomic_load(&all); s; s = s->next) {
		counts->reads += atomic_load_explicit(&s->reads, memory_order_relaxed);
		counts->read_bytes += atomic_load_explicit(&s->read_bytes, memory_order_relaxed);
		counts->writes += atomic_load_explicit(&s->writes, memory_order_relaxed);
		counts->written_bytes += atomic_load_explicit(&s->written_bytes, memory_order_relaxed);
		counts->kernel_reads += atomic_load_explicit(&s->kernel_reads, memory_order_relaxed);
		counts->kernel_writes += atomic_load_explicit(&s->kernel_writes, memory_order_relaxed);
	}
}

void section_fork_prepare(void)
{
	pthread_mutex_lock(&wait_lock);
}

void section_fork_parent(void)
{
	pthread_mutex_unlock(&wait_lock);
}

/* The other threads are not there any more, whatever they were in. */
void section_fork_child(void)
{
	for (struct section *s = atomic_load(&all); s; s = s->next)
		if (s != section_own) {
			atomic_store(&s->phase, 0);
			atomic_store(&s->in_use, false);
		}
	pthread_mutex_unlock(&wait_lock);
}
