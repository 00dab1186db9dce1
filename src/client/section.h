/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sections: what one thread does with memory of the device between two looks at what its process may use of it. Who takes something out of use publishes that, and then
 * waits until all sections that began before have ended (section_wait). A section locks nothing and writes to nobody else's memory; it waits for nothing but memory.
 *
 * This is RCU with membarrier(2), as liburcu has it. It is done here since sections of an application that uses liburcu itself must not delay the answer to a
 * revoke (a thread may be in one, for long, when it calls umbra_pread()), and since the sanitizers see what this orders.
 */
#ifndef UMBRA_CLIENT_SECTION_H
#define UMBRA_CLIENT_SECTION_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <umbra/umbra.h>

#include "util/sabotage.h"
#include "util/util.h"

/* One of each thread, kept for the next one when it ends. */
struct section {
	_Atomic uint64_t phase;          /* in which it has begun; 0: in none */
	_Alignas(64) atomic_bool in_use; /* some thread has it */
	struct section *next;            /* of all that there ever were */
	/* What the thread has done. Changed by it alone, read by all. */
	_Atomic uint64_t reads, read_bytes, writes, written_bytes, kernel_reads, kernel_writes;
	uintptr_t stored_at; /* where last; of the thread alone */
};

extern _Atomic uint64_t section_phase;
extern atomic_bool section_fences; /* there is no membarrier(2): each section fences by itself */
extern __thread struct section *section_own __attribute__((tls_model("initial-exec")));

/* Once in a process, before the first section; again in a child. */
void section_init(void);
/* NULL: no memory. */
struct section *section_register(void);

/* In a handler of the application's that has come within one, and must not wait for anybody who waits for sections. */
static inline bool section_is_interrupted(void)
{
	return section_own && atomic_load_explicit(&section_own->phase, memory_order_relaxed);
}

/* NULL: no memory, or this thread is in one already. */
static inline struct section *section_mine(void)
{
	if (section_is_interrupted() && !sabotage_point("section-nested"))
		return NULL;
	return section_own ? section_own : section_register();
}

/* Not within another one. */
static inline void section_enter(struct section *s)
{
	atomic_store_explicit(&s->phase, atomic_load_explicit(&section_phase, memory_order_relaxed),
			      memory_order_relaxed);
	if (atomic_load_explicit(&section_fences, memory_order_relaxed))
		atomic_thread_fence(memory_order_seq_cst);
	atomic_signal_fence(memory_order_seq_cst);
}

static inline void section_leave(struct section *s)
{
	atomic_signal_fence(memory_order_seq_cst);
	atomic_store_explicit(&s->phase, 0, memory_order_release);
}

static inline void section_count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

/*
 * Until all sections of other threads have ended that may have seen what was so before the call. Not from within one.
 */
void section_wait(void);
/* Adds what all threads have done. */
void section_sum(struct umbra_counts *counts);

/* Around fork(): before it, and after it in the parent and in the child, which has one thread. */
void section_fork_prepare(void);
void section_fork_parent(void);
void section_fork_child(void);

#endif
