/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mkfs: over what was there before, and with lanes that are too many for where they have to lie.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dax/dax.h"
#include "media/ag.h"
#include "txn/format.h"
#include "txn/pool.h"

#define MIB ((uint64_t)1 << 20)

/* The first pool went to the end of the device, the second leaves a rest out: of both superblocks' copies only the second's counts. */
static void test_old_copy(void **state)
{
	static const uint8_t zero[BLOCK_SIZE];
	const struct format_opts first = { .ag_size_bytes = 66 * MIB },
				 second = { .ag_size_bytes = 64 * MIB };
	const struct pool_opts opts = { 0 };
	struct super super;
	struct pool *pool;
	struct dax *dax;
	char why[256];

	(void)state;
	assert_int_equal(dax_open_ram(132 * MIB, NULL, NULL, &dax), 0);
	assert_int_equal(pool_format(dax, &first, NULL, why, sizeof(why)), 0);
	assert_int_equal(pool_format(dax, &second, &super, why, sizeof(why)), 0);
	assert_int_equal(super.size_blk, 128 * MIB / BLOCK_SIZE);
	assert_int_equal(dax_store(dax, 0, zero, sizeof(zero)), 0);
	assert_int_equal(pool_open(dax, &opts, &pool, why, sizeof(why)), 0);
	assert_memory_equal(&pool_super(pool)->uuid, &super.uuid, sizeof(super.uuid));
	assert_int_equal(pool_super(pool)->ag_size_blk, 64 * MIB / BLOCK_SIZE);
	pool_close(pool, true);
	dax_close(dax);
}

/* Lanes as large as group 0, and a last group with no room for their mirrors; with room in group 0 for both it is made. */
static void test_many_lanes(void **state)
{
	struct format_opts opts = { .ag_size_bytes = 136 * 2 * MIB,
				    .lane_count = 64,
				    .lane_size_bytes = 4 * MIB };
	struct rmap owned[FORMAT_OWNERS_MAX];
	struct super super;
	struct dax *dax;
	char why[256] = "";

	(void)state;
	assert_int_equal(dax_open_ram(146 * 2 * MIB, NULL, NULL, &dax), 0);
	assert_int_equal(pool_format(dax, &opts, NULL, why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(why, "does not fit"));
	opts.lane_count = 32;
	assert_int_equal(pool_format(dax, &opts, &super, why, sizeof(why)), 0);
	for (uint32_t agno = 0; agno < super.ag_count; agno++) {
		unsigned count = format_owners(&super, agno, owned);

		for (unsigned i = 1; i < count; i++)
			assert_true(owned[i - 1].start_blk + owned[i - 1].count_blk <= owned[i].start_blk);
	}
	dax_close(dax);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_old_copy),
		cmocka_unit_test(test_many_lanes),
	};

	return cmocka_run_group_tests_name("format", tests, NULL, NULL);
}
