/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Repair: finds what is damaged and mends it, in the order of docs/decisions/2026-11-21-repair.md.
 *
 * Works on a pool that nobody has open. A run may be killed at any point: the next one finds less to do. From the first
 * write of a repair the superblock says SUPER_STATE_REPAIR, and the pool cannot be mounted for writing, until a run leaves nothing behind
 * that writing could make worse. A run that could not write anything, since the memory is bad, takes that back.
 */
#ifndef UMBRA_REPAIR_REPAIR_H
#define UMBRA_REPAIR_REPAIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dax/dax.h"
#include "repair/check.h"
#include "util/util.h"

enum repair_part {
	REPAIR_SUPER,   /* both copies of the superblock are lost */
	REPAIR_PLACES,  /* headers, intents, remap lists, chunk tables: lost in both copies */
	REPAIR_MIRRORS, /* one copy from the other */
	REPAIR_INODES,
	REPAIR_GROUPS,
	REPAIR_NAMES,
	REPAIR_PARTS
};

enum repair_act {
	REPAIR_MENDED, /* as it was */
	REPAIR_LOST,   /* this much could not be had back */
	REPAIR_LEFT,   /* found, and not mended */
	REPAIR_ACTS
};

struct repair_opts {
	/* Findings of the first walk, as in check_pool. step: also between the parts of a repair; false gives up. May be NULL. */
	void (*found)(void *arg, enum check_kind kind, const char *text);
	uint64_t limit;
	bool (*step)(void *arg, const char *what, uint64_t done, uint64_t total);
	/* One line (valid during the call) for each thing that was mended or lost. May be NULL. */
	void (*told)(void *arg, enum repair_act act, const char *text);
	/* Asked before each part. safe: nothing can get lost by it. False: leave that part. NULL: everything may be done. */
	bool (*may)(void *arg, enum repair_part part, bool safe, const char *what);
	void *arg;
	bool force; /* walk even if the pool was unmounted cleanly */
};

struct repair_report {
	struct check_report before; /* the first walk */
	struct check_report after;  /* the last one; the same as before if there was nothing to do */
	uint64_t acts[REPAIR_ACTS];
	unsigned replayed;  /* transactions of the journal */
	bool walked;        /* false: it was clean, and nobody asked for more */
	bool changed;       /* something was written */
	bool unfinished;    /* what is left could spread: the pool stays in SUPER_STATE_REPAIR */
	struct super super; /* of the pool, once it is known (size_blk 0: it is not) */
};

/* "superblock", "places", ... */
const char *repair_part_name(enum repair_part part);

/*
 * Checks and mends the pool on dax, which is open for writing. 0: the run came to its end; report->after.findings says what is left, acts
 * what was done. -ECANCELED: step gave up. Other -errno, with one line in why: it could not be checked or mended.
 */
must_check int repair_pool(struct dax *dax, const struct repair_opts *opts, struct repair_report *report,
			   char *why, size_t why_size);

#endif
