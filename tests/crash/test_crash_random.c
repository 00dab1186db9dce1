/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Operations by chance, one after the other on the same files, each cut at every fence: states that nobody thought of. The pool has several
 * groups, and names have few bits of hash. UMBRA_CRASH_SEQUENCES: how many sequences (60).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "crash/scenes.h"

#define SEQUENCE_MIN 3u
#define SEQUENCE_MAX 30u

static void test_sequences(void **state)
{
	const char *given = getenv("UMBRA_CRASH_SEQUENCES");
	unsigned count = given ? (unsigned)strtoul(given, NULL, 0) : 60;
	uint64_t random = suite_seed();

	(void)state;
	for (unsigned i = 0; i < count; i++) {
		unsigned length =
			SEQUENCE_MIN + (unsigned)testfs_below(&random, SEQUENCE_MAX - SEQUENCE_MIN + 1);

		assert_true(scene_sequence(suite_pool(), &random, length));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sequences),
	};
	struct crash_opts opts = {
		.size_bytes = (uint64_t)40 << 20,
		.format = { .ag_size_bytes = (uint64_t)16 << 20, .dir_hash_bits = 9 },
		.images = 12,
	};

	return suite_main(&opts, tests, ARRAY_SIZE(tests));
}
