/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fsck on a pool with edited metadata: a look that may change nothing, then a repair. What it says about the pool has to be true: if it
 * calls it sound, a second run finds nothing, all of it can be read, it can be used, and it is still sound after that.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/drive.h"
#include "fuzz/edit.h"
#include "fuzz/pool.h"
#include "fuzz/target.h"
#include "repair/repair.h"

#define STEPS_MAX 20u

static bool loud;

static void found(void *arg, enum check_kind kind, const char *text)
{
	(void)arg;
	if (loud)
		fprintf(stderr, "%s: %s\n", check_kind_name(kind), text);
}

static void told(void *arg, enum repair_act act, const char *text)
{
	(void)arg;
	if (loud)
		fprintf(stderr, "%s: %s\n",
			act == REPAIR_MENDED ? "mended" :
			act == REPAIR_LOST   ? "lost" :
					       "left",
			text);
}

static bool may_safe(void *arg, enum repair_part part, bool safe, const char *what)
{
	(void)arg, (void)part, (void)what;
	return safe;
}

/* Number of findings, or -errno; every store stops the program if the pool is read-only. */
static int64_t look(bool readonly)
{
	const struct pool_opts opts = { .readonly = true, .no_replay = true };
	const struct check_opts check_opts = { .found = found, .threads = 1 };
	struct dax *dax = fuzz_dax_open(readonly);
	struct check_report report;
	struct pool *pool;
	char why[512];
	int rc = pool_open(dax, &opts, &pool, why, sizeof(why));

	if (rc == 0) {
		rc = check_pool(pool, &check_opts, &report);
		pool_close(pool, false);
	}
	dax_close(dax);
	return rc ? rc : (int64_t)report.findings;
}

static int repair(bool safe, struct repair_report *report, char *why, size_t why_size)
{
	const struct repair_opts opts = {
		.found = found,
		.told = told,
		.may = safe ? may_safe : NULL,
		.force = true,
	};
	struct dax *dax = fuzz_dax_open(false);
	int rc = repair_pool(dax, &opts, report, why, why_size);

	dax_close(dax);
	return rc;
}

/* A pool that has been mended is as good as a new one. */
static void use(const struct edit_head *head)
{
	const struct pool_opts pool_opts = { .readonly = false };
	const struct fs_opts fs_opts = { .readonly = false };
	struct dax *dax = fuzz_dax_open(false);
	struct pool *pool;
	struct fs *fs;
	char why[512];
	const char *first = "";
	int rc = pool_open(dax, &pool_opts, &pool, why, sizeof(why));

	if (rc)
		fuzz_stop("pool_open after repair", rc, why);
	rc = fs_open(pool, &fs_opts, &fs);
	if (rc)
		fuzz_stop("fs_open after repair", rc, "");
	if (drive_walk(fs, &first))
		fuzz_stop("damage after repair", 0, first);
	drive_change(fs, head->seed, head->steps % STEPS_MAX);
	if (pool_failed(pool))
		fuzz_stop("the pool stopped after repair", 0, pool_failed(pool));
	fs_close(fs);
	pool_close(pool, true);
	dax_close(dax);
	if (look(true) != 0) {
		loud = true;
		fuzz_stop("findings after a repair and some use of the pool", look(true), "");
	}
}

static void run(const struct edit_head *head)
{
	struct repair_report report, again;
	char why[512] = "";
	int rc;

	(void)look(true);
	if (head->flags & EDIT_FLAG_PREEN)
		(void)!repair(true, &report, why, sizeof(why));
	rc = repair(false, &report, why, sizeof(why));
	if (rc) {
		if (loud)
			fprintf(stderr, "repair: %s: %s\n", strerror(-rc), why);
		if (!*why)
			fuzz_stop("repair gives up and does not say why", rc, "");
		return;
	}
	rc = repair(false, &again, why, sizeof(why));
	if (rc)
		fuzz_stop("second repair", rc, why);
	if (again.before.findings != report.after.findings) {
		loud = true;
		look(true);
		fuzz_stop("the second run of repair finds something else than the first one left", 0, "");
	}
	if (report.after.findings == 0 && again.changed)
		fuzz_stop("the second run of repair changes something", 0, "");
	if (report.after.findings != 0) {
		/* That repair cannot mend everything is no fault by itself. To see what it leaves: UMBRA_FUZZ_LEFT=1. */
		if (getenv("UMBRA_FUZZ_LEFT")) {
			loud = true;
			look(true);
			fuzz_stop("repair leaves findings", 0, "");
		}
		return;
	}
	use(head);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	cpu_set_t one;

	(void)argc, (void)argv;
	loud = getenv("UMBRA_FUZZ_LOUD") != NULL;
	/* A walk has as many threads as the process has cores. */
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	(void)sched_setaffinity(0, sizeof(one), &one);
	fuzz_pool_make();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct edit_head head;

	edit_apply(data, size, &head);
	run(&head);
	fuzz_pool_restore();
	return 0;
}
