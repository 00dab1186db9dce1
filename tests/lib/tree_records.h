/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Random records of every kind of tree, for tests, and a random number generator with a seed that replays.
 */
#ifndef UMBRA_TESTS_TREE_RECORDS_H
#define UMBRA_TESTS_TREE_RECORDS_H

#include "media/node.h"

struct rng {
	uint64_t state;
};

/* From UMBRA_SEED or the clock; printed. */
struct rng rng_start(const char *test);
uint64_t rng_next(struct rng *rng);
/* 0 .. below - 1 */
uint64_t rng_below(struct rng *rng, uint64_t below);

union tree_record {
	uint8_t bytes[NODE_REC_MAX];
	le64 words[NODE_REC_MAX / 8];
};

/*
 * A sound record with key number index: the order of indexes is that of keys, and records of different indexes do not overlap (NODE_RMAP:
 * they often do). What is not key is random. Returns its size.
 */
size_t tree_record_make(enum node_kind kind, uint64_t index, struct rng *rng, union tree_record *rec);
void tree_key_make(enum node_kind kind, uint64_t index, struct bt_key *key);

#endif
