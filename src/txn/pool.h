/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An open pool: superblock, allocation groups, chunk table, journal lanes.
 *
 * Logical address = (agno * chunks per group + slot) * 2 MiB + offset. Slot 0 of each group lies at a fixed place
 * (FORMAT.md 3) and holds the group's header, intents, remap list, chunk table and bitmap.
 */
#ifndef UMBRA_TXN_POOL_H
#define UMBRA_TXN_POOL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "dax/dax.h"
#include "media/super.h"
#include "util/util.h"

struct pool;
struct txn;
struct txn_lock;

struct pool_opts {
	bool readonly;
	bool no_replay; /* a read-only look at a pool that was not unmounted */
};

struct pool_stats {
	_Atomic uint64_t commits, aborts, retries, lines_logged, heals, damaged_units, replayed_records;
};

/*
 * Reads the superblock (either copy), checks features, replays the journal, reserves sequence numbers. On error -errno and
 * one line in why. The pool takes no ownership of dax.
 */
must_check int pool_open(struct dax *dax, const struct pool_opts *opts, struct pool **out, char *why,
			 size_t why_size);
/* Marks a clean unmount unless crashed (tests) or readonly, and frees everything. No transaction may be open. */
void pool_close(struct pool *pool, bool clean);

struct dax *pool_dax(const struct pool *pool);
const struct super *pool_super(const struct pool *pool);
struct pool_stats *pool_stats(struct pool *pool);
bool pool_was_clean(const struct pool *pool); /* at open */

/* Why the pool no longer takes writes, or NULL. pool_fail makes it so (first reason stays). */
const char *pool_failed(const struct pool *pool);
void pool_fail(struct pool *pool, const char *reason);

/* A slot for the floor above txn to hang its state on, one per pool. */
void pool_set_space(struct pool *pool, void *space);
void *pool_space(const struct pool *pool);

struct txn_lock *pool_ag_lock(struct pool *pool, uint32_t agno);

/* Geometry. */
uint32_t pool_ag_count(const struct pool *pool);
uint64_t pool_ag_start_blk(const struct pool *pool, uint32_t agno);
uint64_t pool_ag_length_blk(const struct pool *pool, uint32_t agno);
uint32_t pool_blk_ag(const struct pool *pool, uint64_t blk);
uint32_t pool_laddr_ag(const struct pool *pool, uint64_t laddr);
uint64_t pool_ag_unit(const struct pool *pool, uint32_t agno, uint32_t unit_index); /* laddr of fixed unit */

/*
 * Where a unit lies: device offset of copy 0 or 1. -ENOENT: no such chunk (or no such copy). Reads the chunk table on first
 * use of a group.
 */
must_check int pool_place(struct pool *pool, uint64_t laddr, unsigned copy, uint64_t *off);

/* The chunk table in DRAM follows the one on media: called from a hook when a chunk came (places in chunks from the start
 * of the device; 0 = no copy) or went (both 0). */
void pool_chunk_set(struct pool *pool, uint64_t lchunk, uint32_t primary_chunk, uint32_t mirror_chunk);

/* A chunk's units have a new life: forget that they were verified. */
void pool_unverify(struct pool *pool, uint64_t laddr, uint64_t len_bytes);

#endif
