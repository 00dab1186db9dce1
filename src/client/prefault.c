/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/prefault.h"

#include <sys/mman.h>

#include "client/calls.h"
#include "client/mapping.h"
#include "client/session.h"

#define UNIT_BYTES (64u << 10)
#define BLOCK 4096u
#define STEP_BYTES (256u << 10) /* under the lock: a revoke waits so long */

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

static uintptr_t next_lo, next_hi;

void prefault_set(uintptr_t lo, uintptr_t hi)
{
	next_lo = lo;
	next_hi = hi;
}

/*
 * A page that is read in brings its neighbours of the page cache, which may be stored to as well in shared memory; a device has none. False: it does not work here,
 * pages come as they are touched.
 */
static bool pages_populate(uintptr_t lo, uintptr_t hi, bool is_device)
{
	if (is_device)
		return client_calls.madvise((void *)lo, hi - lo, MADV_POPULATE_READ) == 0;
	for (; lo < hi; lo = u64_align_down(lo, UNIT_BYTES) + UNIT_BYTES)
		if (client_calls.madvise((void *)lo, BLOCK, MADV_POPULATE_READ))
			return false;
	return true;
}

/*
 * Of what is in place: memory that is not there any more, or somebody else's, is not touched.
 */
static bool step(void)
{
	const struct mapping *m = next_lo < next_hi ? mapping_find(next_lo) : NULL;
	const struct session *s = m ? m->mapped->file->holding->session : NULL;
	uintptr_t lo = next_lo, hi;

	if (!s || m->by_kernel)
		return false;
	hi = u64_min(u64_min(u64_align_down(lo, STEP_BYTES) + STEP_BYTES, next_hi), m->hi);
	next_lo = hi;
	return pages_populate(lo, hi, s->is_device);
}

void prefault_run(void)
{
	bool more;

	do {
		pthread_mutex_lock(&client_lock);
		more = step();
		if (!more)
			next_lo = next_hi = 0;
		pthread_mutex_unlock(&client_lock);
	} while (more);
}
