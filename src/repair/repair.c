/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The order of a repair (docs/decisions/2026-11-21-repair.md): superblock, journal, places, then a walk, and if it finds anything inodes,
 * groups, names, and the walk again.
 */
#include "repair/repair.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/fs.h"
#include "repair/groups.h"

#define ROUNDS_MAX 3u /* what one round of groups leaves behind the next one mends */

static const char *const part_names[REPAIR_PARTS] = {
	[REPAIR_SUPER] = "superblock", [REPAIR_PLACES] = "places", [REPAIR_MIRRORS] = "mirrors",
	[REPAIR_INODES] = "inodes",    [REPAIR_GROUPS] = "groups", [REPAIR_NAMES] = "names",
};

const char *repair_part_name(enum repair_part part)
{
	return part < REPAIR_PARTS ? part_names[part] : "unknown";
}

struct run {
	struct repair rp;
	char *why;
	size_t why_size;
	uint64_t stuck; /* copies of units that cannot be written where they are */
};

static int failed(struct run *run, int rc, const char *what)
{
	if (rc && rc != -ECANCELED)
		snprintf(run->why, run->why_size, "%s: %s", what, strerror(-rc));
	return rc;
}

/* Nothing is written before the first yes. 1: no. */
static int may(struct run *run, enum repair_part part, bool safe, const char *what)
{
	struct repair *rp = &run->rp;

	if (rp->opts->may && !rp->opts->may(rp->opts->arg, part, safe, what))
		return 1;
	return failed(run, repair_begin(rp), "superblock");
}

/*
 * What is left does no harm if the pool is written to: space that nobody uses, and copies of units that readers heal. All else can spread:
 * what is wrongly free is given to somebody, what is counted wrongly goes too early.
 */
static bool is_harmless(const struct check_report *left)
{
	return left->findings == left->by_kind[CHECK_SUPER] + left->by_kind[CHECK_UNIT_COPY] +
					 left->by_kind[CHECK_UNIT_DIFFERS] +
					 left->by_kind[CHECK_UNIT_LEAKED] + left->by_kind[CHECK_BITMAP_SET];
}

/* ---- opening ---- */

/* Where nothing could be written the pool is what it was: whoever could mount it still can. */
static void begin_undo(struct repair *rp)
{
	if (rp->begun && !rp->wrote && !rp->was_unfinished && pool_repair_end(rp->pool, false) == 0)
		rp->begun = false;
}

static int mend_places(struct pool *pool, void *arg)
{
	struct repair *rp = arg;
	int rc;

	rp->pool = pool;
	rp->super = pool_super(pool);
	rp->was_unfinished = rp->super->state & SUPER_STATE_REPAIR;
	rc = repair_places(rp);
	rp->places_failed = rc == -EIO || rc == -ENOSPC;
	if (rc)
		begin_undo(rp);
	return rc;
}

static int run_open(struct run *run, bool readonly, bool mend)
{
	struct repair *rp = &run->rp;
	const struct pool_opts opts = {
		.readonly = readonly,
		.repair = true,
		.mend = mend ? mend_places : NULL,
		.mend_arg = rp,
	};
	int rc = pool_open(rp->dax, &opts, &rp->pool, run->why, run->why_size);

	if (rc && rp->places_failed)
		snprintf(run->why, run->why_size,
			 "what all else is found by lies in bad memory, and cannot lie elsewhere: %s",
			 strerror(-rc));
	if (rc) {
		rp->pool = NULL;
		return rc;
	}
	rp->super = pool_super(rp->pool);
	rp->report->super = *rp->super;
	rp->report->replayed += pool_replayed(rp->pool);
	rp->report->changed |= rp->report->replayed != 0;
	return 0;
}

static void run_close(struct run *run)
{
	repair_facts_drop(&run->rp);
	rows_free(&run->rp.claims);
	if (run->rp.pool)
		pool_close(run->rp.pool, false);
	run->rp.pool = NULL;
	run->rp.spare_blk = 0; /* from now on it is given to others */
}

/* ---- inodes and groups ---- */

static bool group_is_damaged(const struct check *ck)
{
	for (uint32_t agno = 0; agno < ck->super->ag_count; agno++) {
		if (ck->ags[agno].damage & ~GROUP_UNITS)
			return true;
	}
	return false;
}

/* Nothing but counters and used maps differs from what the rest says. */
static bool groups_are_safe(const struct check *ck)
{
	for (uint32_t agno = 0; agno < ck->super->ag_count; agno++) {
		if (ck->ags[agno].damage & ~(GROUP_UNITS | GROUP_COUNTERS | GROUP_TABLE))
			return false;
	}
	return true;
}

static int groups_mend(struct run *run)
{
	struct repair *rp = &run->rp;
	int rc = 0;

	rp->inodes_are_done = true;
	for (unsigned round = 0; round < ROUNDS_MAX && !rc; round++) {
		bool changed = false;

		rc = repair_conflicts(rp, &changed);
		if (!rc && changed)
			rc = repair_facts(rp, NULL);
		if (!rc && !changed && !group_is_damaged(rp->facts))
			return 0;
		if (!rc)
			rc = repair_mirrors(rp);
		if (!rc)
			rc = repair_groups(rp);
		if (!rc)
			rc = repair_facts(rp, NULL);
	}
	return rc;
}

static int space_mend(struct run *run)
{
	struct repair *rp = &run->rp;
	int rc = 0;

	if (repair_inodes_needed(rp) || rp->facts->lost.count != 0) {
		rc = may(run, REPAIR_INODES, false,
			 "make damaged inodes and their trees anew from what is left?");
		if (!rc)
			rc = failed(run, repair_inodes(rp), "inodes");
		if (!rc)
			rc = failed(run, repair_facts(rp, NULL), "walk");
	}
	if (rc || !group_is_damaged(rp->facts))
		return rc;
	rc = may(run, REPAIR_GROUPS, groups_are_safe(rp->facts), "make groups anew from the inodes?");
	return rc ? rc : failed(run, groups_mend(run), "groups");
}

/* ---- names ---- */

/* On an open pool, as a mount would have it. */
static int names_mend(struct run *run)
{
	const struct fs_opts opts = { .background = false };
	struct repair *rp = &run->rp;
	struct fs *fs;
	int rc;

	run_close(run);
	rp->wrote = true;
	rc = run_open(run, false, false);
	if (rc)
		return rc;
	rc = failed(run, repair_facts(rp, NULL), "walk");
	if (rc)
		return rc;
	rc = failed(run, fs_open(rp->pool, &opts, &fs), "file system");
	if (rc)
		return rc;
	rc = failed(run, repair_names(rp, fs), "names");
	fs_work(fs);
	fs_close(fs);
	return rc;
}

/* ---- the run ---- */

/* Groups in which a closer look at the inodes is worth it. */
static int suspects_set(struct run *run, bool *any)
{
	struct repair *rp = &run->rp;

	rp->suspects = calloc(rp->super->ag_count, sizeof(*rp->suspects));
	if (!rp->suspects)
		return -ENOMEM;
	for (uint32_t agno = 0; agno < rp->super->ag_count; agno++) {
		rp->suspects[agno] = (rp->facts->ags[agno].damage & ~(GROUP_UNITS | GROUP_COUNTERS)) != 0;
		*any = *any || rp->suspects[agno];
	}
	return 0;
}

/* > 0: somebody said no. */
static int mend(struct run *run)
{
	struct repair *rp = &run->rp;
	struct check_report now;
	bool any = false;
	int rc;

	if (check_bad_count(rp->facts) == 0)
		return 0;
	rc = suspects_set(run, &any);
	if (!rc && (any || !rp->facts->keep))
		rc = failed(run, repair_facts(rp, NULL), "walk");
	if (!rc)
		rc = space_mend(run);
	if (rc)
		return rc;
	rc = failed(run, repair_look(rp, NULL, &now), "walk");
	/* What has been made anew may lie in bad memory too. */
	if (!rc)
		run->stuck = now.by_kind[CHECK_UNIT_COPY];
	/* Copies that cannot be written are no matter of names. */
	if (rc || now.findings == now.by_kind[CHECK_UNIT_COPY] + now.by_kind[CHECK_SUPER])
		return rc;
	/* What a damaged directory names would be taken for something without a name. */
	if (rp->inodes_are_left) {
		repair_told(rp, REPAIR_LEFT, "names, link counts and orphans, before all inodes are mended");
		return 0;
	}
	rc = may(run, REPAIR_NAMES, false, "mend names, link counts and orphans?");
	return rc ? rc : names_mend(run);
}

static int walk_first(struct run *run)
{
	struct repair *rp = &run->rp;
	const struct check_opts look = {
		.found = rp->opts->found,
		.arg = rp->opts->arg,
		.limit = rp->opts->limit,
		.step = rp->opts->step,
	};

	rp->report->walked = true;
	return failed(run, repair_look(rp, &look, &rp->report->before), "walk");
}

/* One copy of some units is not sound, or headers lie where the place tells better: both are right after another walk. */
static int mirrors_mend(struct run *run)
{
	struct repair *rp = &run->rp;
	const struct check_opts heal = { .arg = rp->opts->arg, .step = rp->opts->step, .heal = true };
	const struct check_report *found = &rp->report->before;
	struct check_report healed;
	int rc;

	if (found->by_kind[CHECK_SUPER] + found->by_kind[CHECK_UNIT_COPY] +
		    found->by_kind[CHECK_UNIT_DIFFERS] + found->by_kind[CHECK_UNIT_SEQ] +
		    found->by_kind[CHECK_UNIT_OWNER] ==
	    0)
		return 0;
	rc = may(run, REPAIR_MIRRORS, true, "write damaged copies of metadata anew from the sound ones?");
	if (rc)
		return rc;
	if (!check_bad_is_told(rp->facts))
		rc = failed(run, pool_bad_in_use(rp->pool, true), "superblock");
	if (!rc)
		rc = failed(run, repair_look(rp, &heal, &healed), "walk");
	if (rc)
		return rc;
	/* With the first write both copies of the superblock have been. */
	if (found->by_kind[CHECK_SUPER] != 0 && healed.by_kind[CHECK_SUPER] == 0)
		repair_told(rp, REPAIR_MENDED, "copies of the superblock written anew");
	else if (found->by_kind[CHECK_SUPER] != 0)
		repair_told(rp, REPAIR_LEFT, "a copy of the superblock cannot be written");
	if (healed.heals != 0) {
		rp->wrote = true;
		rp->report->changed = true;
		repair_told(rp, REPAIR_MENDED, "%" PRIu64 " damaged copies of metadata units written anew",
			    healed.heals);
	}
	run->stuck = healed.heals_failed;
	return 0;
}

/* ---- bad memory ---- */

/* What cannot be written where it is goes elsewhere, as on a mount: a walk meets it, and then it is seen to. */
static int units_leave_rounds(struct run *run, struct fs *fs)
{
	struct repair *rp = &run->rp;
	struct check_report walked;
	uint64_t stuck = run->stuck, before = UINT64_MAX;
	int rc;

	rp->silent = (struct check_opts){ .arg = rp->opts->arg, .step = rp->opts->step, .heal = true };
	for (;;) {
		rc = failed(run, repair_walk(rp, &rp->silent, &walked), "walk");
		if (rc)
			break;
		run->stuck = walked.heals_failed;
		if (run->stuck == 0 || run->stuck >= before)
			break;
		before = run->stuck;
		fs_work(fs);
	}
	rp->silent.heal = false;
	if (run->stuck < stuck) {
		rp->report->changed = true;
		repair_told(rp, REPAIR_MENDED, "%" PRIu64 " copies of metadata units moved out of bad memory",
			    stuck - run->stuck);
	}
	return rc;
}

/* Only when nothing else is left: blocks are taken, and units written, as by any transaction. */
static int units_leave(struct run *run)
{
	const struct fs_opts opts = { .background = false };
	struct repair *rp = &run->rp;
	struct check_report now;
	struct fs *fs;
	int rc = failed(run, repair_look(rp, NULL, &now), "walk");

	if (rc || !is_harmless(&now))
		return rc;
	run_close(run);
	rc = run_open(run, false, false);
	if (!rc)
		rc = failed(run, fs_open(rp->pool, &opts, &fs), "file system");
	if (rc)
		return rc;
	rc = units_leave_rounds(run, fs);
	fs_close(fs);
	return rc;
}

/* The end of what could be done, or was wanted. */
static int finish(struct run *run)
{
	struct repair *rp = &run->rp;
	const struct check_report *left = &rp->report->after;
	int rc;

	/* Nobody said yes: all is as it was. */
	if (!rp->begun)
		return 0;
	run_close(run);
	rc = run_open(run, true, false);
	if (!rc)
		rc = failed(run, repair_look(rp, NULL, &rp->report->after), "walk");
	rp->report->unfinished = rc || (!is_harmless(left) && (rp->wrote || rp->was_unfinished));
	if (rc || rp->report->unfinished)
		return rc;
	return failed(run, pool_repair_end(rp->pool, left->findings == 0), "superblock");
}

static int run_all(struct run *run)
{
	struct repair *rp = &run->rp;
	bool clean;
	int rc = run_open(run, true, true);

	if (rc)
		return rc;
	clean = rp->super->state & SUPER_STATE_CLEAN;
	if (clean && !rp->was_unfinished && !rp->opts->force && !rp->report->changed)
		return 0;
	if (rp->super->ro_compat & ~FEATURE_RO_COMPAT_KNOWN) {
		snprintf(run->why, run->why_size, "it has features that this program does not know");
		return -EPROTONOSUPPORT;
	}
	rc = walk_first(run);
	if (rc)
		return rc;
	rp->report->after = rp->report->before;
	if (rp->report->before.findings == 0)
		return rp->was_unfinished || rp->begun ? pool_repair_end(rp->pool, true) : 0;
	rp->report->unfinished = rp->was_unfinished;
	rc = mirrors_mend(run);
	if (!rc)
		rc = mend(run);
	if (!rc && run->stuck != 0)
		rc = units_leave(run);
	if (run->stuck != 0)
		repair_told(rp, REPAIR_LEFT, "%" PRIu64 " copies of metadata units cannot be written",
			    run->stuck);
	/* > 0: what has been done so far is whole; the rest is as it was. */
	if (rc >= 0)
		return finish(run);
	if (rp->pool)
		begin_undo(rp);
	return rc;
}

int repair_pool(struct dax *dax, const struct repair_opts *opts, struct repair_report *report, char *why,
		size_t why_size)
{
	struct run run = {
		.rp = { .dax = dax, .opts = opts, .report = report },
		.why = why,
		.why_size = why_size,
	};
	int rc;

	*report = (struct repair_report){ 0 };
	*why = 0;
	rc = repair_super(dax, opts, report, why, why_size);
	if (!rc)
		rc = run_all(&run);
	run_close(&run);
	rows_free(&run.rp.claimed);
	rows_free(&run.rp.fresh);
	free(run.rp.suspects);
	return rc;
}
