/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Scrub: reads both copies of every metadata unit in use of a mounted file system and writes the sound one over the other.
 *
 * A thread of its own. Units are looked at without a lock first; only what is not as it should be is looked at again under the lock
 * that covers it, since it may just have been written, given back, or be somebody else's by then.
 */
#ifndef UMBRA_REPAIR_SCRUB_H
#define UMBRA_REPAIR_SCRUB_H

#include <stdbool.h>
#include <stdint.h>

#include "fs/fs.h"
#include "util/util.h"

struct scrub;

enum scrub_state { SCRUB_NONE, SCRUB_RUNS, SCRUB_DONE, SCRUB_STOPPED, SCRUB_FAILED };

struct scrub_status {
	enum scrub_state state;
	int error;                   /* SCRUB_FAILED: -errno */
	uint64_t started_s, ended_s; /* since 1970 */
	uint64_t total_bytes;        /* both copies of all units in use when it began, about */
	uint64_t done_bytes;
	uint64_t run_ns,
		cpu_ns; /* so long it took, or has run until now; and what of that its thread had a core */
	uint64_t healed_count;   /* copies written anew */
	uint64_t lost_count;     /* units without a sound copy */
	uint64_t unhealed_count; /* bad copies that could not be written: read-only, or bad memory */
	uint64_t rate_bytes;     /* at most so many a second; 0: as fast as it goes */
};

/* NULL: no memory. */
struct scrub *scrub_new(struct fs *fs);
/* Stops it if it runs. fs must still be open. */
void scrub_free(struct scrub *scrub);

/* -EBUSY: it runs already. */
must_check int scrub_start(struct scrub *scrub, uint64_t rate_bytes);
/* Returns when the thread has ended; fine if none runs. */
void scrub_stop(struct scrub *scrub);
void scrub_set_rate(struct scrub *scrub, uint64_t rate_bytes);
void scrub_get_status(struct scrub *scrub, struct scrub_status *status);

#endif
