/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fsck.umbrafs: checks a pool that is not mounted, and mends it. Called by hand or by fsck(8), whose options and exit status it has.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "args.h"
#include "dax/dax.h"
#include "fsck_report.h"
#include "mkfs_probe.h"
#include "repair/repair.h"
#include "txn/pool.h"
#include "util/log.h"

#define MMAP_THRESHOLD_BYTES (256 << 10)
#define BUSY_WAIT_MS 2000 /* a daemon that is just unmounting */
#define BUSY_STEP_MS 20

static const char help[] =
	"usage: fsck.umbrafs [options] POOL\n"
	"Checks the umbrafs file system on POOL, which must not be mounted, and mends it.\n"
	"\n"
	"  -n             only look: open read-only, change nothing\n"
	"  -p, -a         mend what is safe without asking: journal, mirrors, counters\n"
	"  -y             mend everything without asking\n"
	"  -f, --force    look even if the pool was unmounted cleanly\n"
	"  -v, --verbose  show every finding, not the first ones of each kind\n"
	"  -C             show progress (on a terminal)\n"
	"      --json     one JSON object instead of lines\n"
	"  -h, --help     this text\n"
	"  -V, --version  version\n"
	"\n"
	"Without -n, -p and -y it asks before each kind of repair.\n"
	"\n"
	"Exit status, a sum: 0 nothing wrong, 1 mended, 4 something is left, 8 could not be checked, 16 usage,\n"
	"32 cancelled.\n";

enum mode { MODE_ASK, MODE_LOOK, MODE_PREEN, MODE_YES };

struct fsck {
	const char *path;
	enum mode mode;
	bool force, verbose, json, progress;
	bool yes_to_all;
	bool refused; /* a repair was not allowed */
	struct report report;
	char why[1024];
};

static volatile sig_atomic_t cancelled;

static void cancel(int signal)
{
	(void)signal;
	cancelled = 1;
}

/* A second one ends the program at once, which does no harm either. */
static void cancel_setup(void)
{
	const struct sigaction on_cancel = { .sa_handler = cancel, .sa_flags = (int)SA_RESETHAND };
	const int signals[] = { SIGINT, SIGTERM };
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		sigaction(signals[i], &on_cancel, NULL);
		sigaddset(&set, signals[i]);
	}
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

/* ---- command line ---- */

static int usage(const char *fmt, const char *what)
{
	fprintf(stderr, "fsck.umbrafs: ");
	fprintf(stderr, fmt, what);
	fprintf(stderr, " (try --help)\n");
	return FSCK_USAGE;
}

static int mode_set(struct fsck *f, enum mode mode)
{
	if (f->mode != MODE_ASK && f->mode != mode)
		return usage("%s", "only one of -n, -p (or -a) and -y can be given");
	f->mode = mode;
	return 0;
}

/* 0, or the status to exit with; *done: nothing more to do. */
static int option(struct fsck *f, int c, bool *done)
{
	switch (c) {
	case 'n':
		return mode_set(f, MODE_LOOK);
	case 'a':
	case 'p':
		return mode_set(f, MODE_PREEN);
	case 'y':
		return mode_set(f, MODE_YES);
	case 'f':
		f->force = true;
		return 0;
	case 'v':
		f->verbose = true;
		return 0;
	case 'C':
		f->progress = true;
		return 0;
	case 'j':
		f->json = true;
		return 0;
	default:
		*done = true;
		fputs(c == 'h' ? help : "fsck.umbrafs " UMBRA_VERSION "\n", stdout);
		return args_stdout_failed() ? FSCK_ERROR : 0;
	}
}

static int arguments(struct fsck *f, int argc, char **argv, bool *done)
{
	static const struct option longs[] = {
		{ "force", no_argument, NULL, 'f' },   { "verbose", no_argument, NULL, 'v' },
		{ "json", no_argument, NULL, 'j' },    { "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' }, { NULL, 0, NULL, 0 },
	};
	int c, rc;

	opterr = 0;
	/* fsck(8) gives -C a file descriptor, which only a graphical front end would read. */
	while ((c = getopt_long(argc, argv, "napyfvC::hV", longs, NULL)) != -1) {
		if (c == '?')
			return usage("unknown option '%s'", argv[optind - 1]);
		rc = option(f, c, done);
		if (rc || *done)
			return rc;
	}
	if (optind == argc || !*argv[optind])
		return usage("%s", "missing POOL");
	if (optind + 1 < argc)
		return usage("one argument too many: '%s'", argv[optind + 1]);
	f->path = argv[optind];
	if (f->mode == MODE_ASK && f->json)
		return usage("%s", "--json needs -n, -p or -y");
	if (f->mode == MODE_ASK && (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))) {
		fprintf(stderr,
			"fsck.umbrafs: there is no terminal to ask on; -n, -p or -y say what to do\n");
		return FSCK_ERROR;
	}
	return 0;
}

/* ---- opening ---- */

static int open_wait(struct fsck *f, struct dax **dax)
{
	const struct dax_opts opts = { .readonly = f->mode == MODE_LOOK };
	const struct timespec step = { 0, BUSY_STEP_MS * 1000000 };

	for (int waited_ms = 0;; waited_ms += BUSY_STEP_MS) {
		int rc = dax_open(f->path, &opts, dax, f->why, sizeof(f->why));

		if (rc != -EBUSY || waited_ms >= BUSY_WAIT_MS)
			return rc;
		nanosleep(&step, NULL);
	}
}

/* Something else than a pool is not looked into: what is taken for damage would be somebody's data. */
static int foreign_refuse(struct fsck *f)
{
	char what[512];
	int rc = probe_content(f->path, what, sizeof(what));

	if (rc <= 0 || strstr(what, "umbrafs"))
		return 0;
	snprintf(f->why, sizeof(f->why), "%s: there is %s on it", f->path, what);
	return -EUCLEAN;
}

static bool step(void *arg, const char *what, uint64_t done, uint64_t total)
{
	report_progress(arg, what, done, total);
	return !cancelled;
}

/* ---- looking ---- */

static int failed(struct fsck *f, int rc, const char *why)
{
	if (rc == -ECANCELED)
		return FSCK_CANCELLED;
	snprintf(f->why, sizeof(f->why), "%s: %s", f->path, why);
	return FSCK_ERROR;
}

static int unchecked(struct fsck *f)
{
	report_note(&f->report, "was unmounted cleanly, not checked (-f checks it all the same)");
	return 0;
}

static int look_at(struct fsck *f, struct pool *pool)
{
	const struct check_opts opts = { .found = report_found, .arg = &f->report, .step = step };
	struct check_report found;
	int rc;

	if (pool_super(pool)->state & SUPER_STATE_REPAIR)
		report_note(&f->report, "an earlier repair did not come to its end");
	else if (pool_was_clean(pool) && !f->force)
		return unchecked(f);
	rc = check_pool(pool, &opts, &found);
	if (rc)
		return failed(f, rc, strerror(-rc));
	report_found_end(&f->report, &found);
	report_left(&f->report, &found);
	report_counts(&f->report, &found, pool_super(pool));
	if (found.findings == 0)
		report_note(&f->report, "nothing wrong");
	else
		report_note(&f->report, "%" PRIu64 " findings; nothing was changed", found.findings);
	return found.findings ? FSCK_LEFT : 0;
}

static int look(struct fsck *f, struct dax *dax)
{
	const struct pool_opts opts = { .readonly = true, .no_replay = true };
	struct pool *pool;
	char why[512];
	int rc = pool_open(dax, &opts, &pool, why, sizeof(why)), status;

	if (rc)
		return failed(f, rc, why);
	status = look_at(f, pool);
	pool_close(pool, false);
	return status;
}

/* ---- mending ---- */

/* Is this part of the repair wanted? */
static bool ask(struct fsck *f, const char *what)
{
	char answer[64];

	if (f->yes_to_all)
		return true;
	for (;;) {
		report_note(&f->report, "%s", what);
		printf("Mend this? (y: yes, n: no, a: yes to all) ");
		fflush(stdout);
		if (!fgets(answer, sizeof(answer), stdin) || answer[0] == 'n' || answer[0] == 'N')
			return false;
		if (answer[0] == 'y' || answer[0] == 'Y')
			return true;
		if (answer[0] == 'a' || answer[0] == 'A')
			return f->yes_to_all = true;
	}
}

static bool may(void *arg, enum repair_part part, bool safe, const char *what)
{
	struct fsck *f = arg;
	bool yes = f->mode == MODE_YES || (f->mode == MODE_PREEN ? safe : ask(f, what));

	if (!yes)
		report_note(&f->report, "%s: left as it is: %s", repair_part_name(part), what);
	f->refused |= !yes;
	return yes;
}

static void mend_found(void *arg, enum check_kind kind, const char *text)
{
	report_found(&((struct fsck *)arg)->report, kind, text);
}

static void mend_told(void *arg, enum repair_act act, const char *text)
{
	report_told(&((struct fsck *)arg)->report, act, text);
}

static bool mend_step(void *arg, const char *what, uint64_t done, uint64_t total)
{
	return step(&((struct fsck *)arg)->report, what, done, total);
}

static int mended(struct fsck *f, const struct repair_report *r)
{
	bool left = r->after.findings != 0 || r->acts[REPAIR_LEFT] != 0;
	bool any = r->before.findings != 0 || r->acts[REPAIR_MENDED] != 0 || r->acts[REPAIR_LOST] != 0;

	if (!r->walked)
		return unchecked(f);
	report_found_end(&f->report, &r->before);
	report_left(&f->report, &r->after);
	report_counts(&f->report, &r->after, &r->super);
	if (r->replayed)
		report_note(&f->report, "%u unfinished transactions were replayed", r->replayed);
	if (!any)
		report_note(&f->report, "nothing wrong");
	else if (!left)
		report_note(&f->report, "everything was mended%s",
			    r->acts[REPAIR_LOST] ? "; what could not be had back is named above" : "");
	else
		report_note(&f->report, "%" PRIu64 " findings are left%s", r->after.findings,
			    !f->refused           ? "" :
			    f->mode == MODE_PREEN ? ": run fsck.umbrafs without -p" :
						    "");
	if (r->unfinished)
		report_note(&f->report,
			    "what is left could spread: until it is mended it can be mounted read-only only");
	return left ? FSCK_LEFT : any ? FSCK_CORRECTED : 0;
}

static int mend(struct fsck *f, struct dax *dax)
{
	const struct repair_opts opts = {
		.found = mend_found,
		.step = mend_step,
		.told = mend_told,
		.may = may,
		.arg = f,
		.force = f->force,
	};
	struct repair_report r;
	char why[512] = "";
	int rc = repair_pool(dax, &opts, &r, why, sizeof(why));

	return rc ? failed(f, rc, *why ? why : strerror(-rc)) : mended(f, &r);
}

/* The status, with a line in why if it is FSCK_ERROR. */
static int run(struct fsck *f)
{
	struct dax *dax;
	int status;

	if (foreign_refuse(f) || open_wait(f, &dax))
		return FSCK_ERROR;
	status = f->mode == MODE_LOOK ? look(f, dax) : mend(f, dax);
	dax_close(dax);
	return status;
}

int main(int argc, char **argv)
{
	struct fsck f = { 0 };
	bool done = false;
	int status = arguments(&f, argc, argv, &done);

	if (status || done)
		return status;
	log_setup("fsck.umbrafs", LOG_LEVEL_WARN, false);
	/* What is large is given back when it is freed, however often that happens. */
	mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES);
	cancel_setup();
	report_init(&f.report, f.path, f.json, f.verbose, f.progress && isatty(STDERR_FILENO));
	status = run(&f);
	if (status & FSCK_ERROR)
		fprintf(stderr, "fsck.umbrafs: %s\n", f.why);
	if (status & FSCK_CANCELLED)
		fprintf(stderr, "fsck.umbrafs: cancelled\n");
	return report_end(&f.report, status, status & FSCK_ERROR ? f.why : NULL);
}
