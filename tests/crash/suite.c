/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the crash test programs have in common: the pool, the seed.
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
	printf("# %" PRIu64 " operations, %" PRIu64 " fences (%" PRIu64 " with all images), %" PRIu64
	       " images: %" PRIu64 " replayed, %" PRIu64 " crashed again, %" PRIu64 " with intents, %" PRIu64
	       " without one copy of the journal\n",
	       s->ops, s->fences, s->full_fences, s->images, s->replayed, s->again, s->intents, s->lane_lost);
	crash_free(pool);
	return 0;
}

int suite_main(const struct crash_opts *opts, const struct CMUnitTest *tests, size_t count)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	pool_opts = *opts;
	pool_opts.seed = testfs_seed();
	return _cmocka_run_group_tests("crash", tests, count, suite_begin, suite_end);
}
