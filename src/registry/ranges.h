/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An ordered set of disjoint ranges of blocks, each with a value. Lookups lock nothing and may run beside one change at a time (RCU, urcu-memb).
 *
 * Leaves of at most 64 entries under one sorted array of pointers; a change makes a new leaf (or array) and frees the old one after a grace period.
 * A leaf is as large as what is in it. An entry takes 24 bytes, and with its part of leaf and array no more than 27 where there are many.
 *
 * Threads that look or change are known to RCU (thread_register()). blk + count_blk stays below UINT64_MAX.
 */
#ifndef UMBRA_REGISTRY_RANGES_H
#define UMBRA_REGISTRY_RANGES_H

#include <stdbool.h>
#include <stdint.h>

#include "util/util.h"

/* It is RCU that keeps what such a function looks at, which the thread sanitizer does not see, with atomic loads neither. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define READS_UNDER_RCU __attribute__((disable_sanitizer_instrumentation))
#endif
#endif
#ifndef READS_UNDER_RCU
#define READS_UNDER_RCU
#endif

struct range {
	uint64_t blk;
	uint32_t count_blk;
	uint32_t tag;   /* the user's */
	uint64_t value; /* the user's */
};

struct ranges;

must_check int ranges_new(struct ranges **out);
void ranges_free(struct ranges *r); /* nobody reads it any more */
uint64_t ranges_count(const struct ranges *r);
uint64_t ranges_bytes(const struct ranges *r); /* memory that it takes */

/* The range that covers blk, or the next one after it. False: none. Under rcu_read_lock(), or by who changes. */
bool ranges_find(const struct ranges *r, uint64_t blk, struct range *out);

/*
 * Puts entries (in order, disjoint, count of them) in the place of all that lies in [lo, hi), which cuts no range: those at the borders have been cut by the
 * caller, who puts what is left of them in again. -ENOMEM: nothing has changed. Changes are one at a time: the caller's lock.
 */
must_check int ranges_replace(struct ranges *r, uint64_t lo, uint64_t hi, const struct range *entries,
			      unsigned count);

#endif
