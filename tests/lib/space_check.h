/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pools in memory for tests of space, and the check that everything in them fits together:
 *	bitmap = union of the rmap, refcount = multiplicity of the rmap, counters, units in use, inode clusters, DRAM = media.
 */
#ifndef UMBRA_TESTS_SPACE_CHECK_H
#define UMBRA_TESTS_SPACE_CHECK_H

#include "space/space.h"
#include "txn/format.h"

struct test_pool {
	struct dax *dax;
	struct pool *pool;
};

/* Formats and opens; fails the test on trouble. */
void test_pool_make(struct test_pool *t, uint64_t size_bytes, const struct format_opts *opts);
/* Closes and opens it again. */
void test_pool_reopen(struct test_pool *t);
void test_pool_free(struct test_pool *t);

/* What the rmap says of one block of data. */
struct block_seen {
	uint32_t count; /* owners */
	uint64_t hash;  /* sum of block_owner_hash() of each */
};
uint64_t block_owner_hash(uint64_t owner, uint64_t offset_blk);

struct space_seen {
	struct block_seen *blocks; /* of the device; free() it */
	uint64_t free_blk;
	uint64_t units_used; /* without fixed units, inode clusters and nodes of the groups' trees */
	uint64_t inode_count, inode_free;
};

/* Checks all groups; no transaction may be open and no stream may hold windows. */
void space_check(struct pool *pool, struct space_seen *seen);

/* A small generator: the same seed gives the same numbers everywhere. */
struct space_rng {
	uint64_t state;
};
uint64_t space_random(struct space_rng *rng, uint64_t below);
/* UMBRA_SEED, or a new seed; printed. */
uint64_t space_seed(void);

#endif
