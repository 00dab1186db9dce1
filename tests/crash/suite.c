/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the crash test programs have in common: the pool, the seed, --long.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "crash/scenes.h"

static struct crash_opts pool_opts;
static struct crash *pool;

struct crash *suite_pool(void)
{
	return pool;
}

uint64_t suite_seed(void)
{
	return pool_opts.seed;
}

static int suite_begin(void **state)
{
	(void)state;
	pool = crash_new(&pool_opts);
	return 0;
}

static int suite_end(void **state)
{
	const struct crash_stats *s = crash_stats(pool);

	(void)state;
	printf("# %" PRIu64 " operations, %" PRIu64 " fences, %" PRIu64 " images: %" PRIu64
	       " replayed, %" PRIu64 " crashed again, %" PRIu64 " without one copy of the journal\n",
	       s->ops, s->fences, s->images, s->replayed, s->again, s->lane_lost);
	crash_free(pool);
	return 0;
}

int suite_main(int argc, char **argv, const struct crash_opts *opts, const struct CMUnitTest *tests,
	       size_t count)
{
	bool is_long = argc > 1 && strcmp(argv[1], "--long") == 0;
	int failed;

	setvbuf(stdout, NULL, _IOLBF, 0);
	pool_opts = *opts;
	pool_opts.seed = testfs_seed();
	do {
		failed = _cmocka_run_group_tests("crash", tests, count, suite_begin, suite_end);
		if (is_long && !failed) {
			testfs_random(&pool_opts.seed);
			printf("# UMBRA_SEED=%" PRIu64 "\n", pool_opts.seed);
		}
	} while (is_long && !failed);
	return failed;
}
