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
	bool as_it_is; /* with no_replay: the size is what block 0 says, even if it tells of a growth that will be taken back */
	/*
	 * For a repair: a pool in SUPER_STATE_REPAIR is opened too, and units of which both copies are lost do not stop the replay.
	 * mend (may be NULL) is called after the replay of slot 0, before anything else is looked up in a chunk table.
	 * With readonly nothing but the replay and the repair itself changes the pool.
	 */
	bool repair;
	int (*mend)(struct pool *pool, void *arg);
	void *mend_arg;
	/* (may be NULL) The replay has applied the record of that transaction, and is about to retire it: so it has happened. */
	void (*applied)(void *arg, uint64_t seq);
	void *applied_arg;
};

struct pool_stats {
	_Atomic uint64_t commits, aborts, retries, lines_logged, heals, damaged_units, replayed_records,
		bad_reads;
};

/*
 * Reads the superblock (either copy), checks features, replays the journal, reserves sequence numbers. On error -errno and
 * one line in why. The pool takes no ownership of dax.
 */
must_check int pool_open(struct dax *dax, const struct pool_opts *opts, struct pool **out, char *why,
			 size_t why_size);
/* Whether pool_open() finds a superblock of which one copy is sound, whatever it says. */
bool pool_super_exists(struct dax *dax);
/* Marks a clean unmount unless crashed (tests) or readonly, and frees everything. No transaction may be open. */
void pool_close(struct pool *pool, bool clean);

struct dax *pool_dax(const struct pool *pool);
const struct super *pool_super(const struct pool *pool);
struct pool_stats *pool_stats(struct pool *pool);
bool pool_is_readonly(const struct pool *pool);
bool pool_was_clean(const struct pool *pool); /* at open */

/* What the journal replay of pool_open applied. */
unsigned pool_replayed(const struct pool *pool);

/*
 * For a repair that writes units by hand. begin: from here on the pool cannot be mounted for writing; reserves sequence numbers.
 * seq: the next one. end: the run has come to its end. reload: chunk tables and remap lists were changed behind the pool's back.
 */
must_check int pool_repair_begin(struct pool *pool);
must_check int pool_repair_seq(struct pool *pool, uint64_t *seq);
must_check int pool_repair_end(struct pool *pool, bool clean);
void pool_reload(struct pool *pool);

/* Why the pool no longer takes writes, or NULL. pool_fail makes it so (first reason stays). */
const char *pool_failed(const struct pool *pool);
void pool_fail(struct pool *pool, const char *reason);

/*
 * What befell a metadata unit: healed from its other copy, or lost (reported once). owner: inode number or OWNER_*, 0: not known. fn is
 * called with locks held, so it may only take a note. Without one it is logged.
 */
struct pool_event {
	uint64_t laddr, owner;
	bool lost;
	const char *what; /* valid during the call */
};
void pool_on_event(struct pool *pool, void (*fn)(void *arg, const struct pool_event *event), void *arg);
void pool_event_log(const struct pool_event *event, const char *path); /* path: of the owner, or NULL */

/* Bad memory was met under metadata. fn may only take a note, as above: it is to be seen to with no transaction open. */
void pool_on_bad(struct pool *pool, void (*fn)(void *arg, uint64_t dev_off), void *arg);
/* By somebody who reads and writes units by hand. */
void pool_bad_met(struct pool *pool, uint64_t dev_off);

/* A slot for the floor above txn to hang its state on, one per pool. */
void pool_set_space(struct pool *pool, void *space);
void *pool_space(const struct pool *pool);

struct txn_lock *pool_ag_lock(struct pool *pool, uint32_t agno);

/*
 * Keeps all other threads out of transactions (their txn_begin() waits), and returns when none is open: chains run to their end before. The
 * caller has no transaction open, and may then have some. It holds no lock that others take inside of a transaction, and takes none
 * that they hold while they begin one.
 */
void pool_freeze(struct pool *pool);
void pool_thaw(struct pool *pool);
/*
 * Between these two nobody freezes, as between txn_begin() and the end of the transaction; they nest. Whoever holds a lock while he begins
 * transactions, and takes the same lock inside of others, holds before he takes it.
 */
void pool_hold(struct pool *pool);
void pool_release(struct pool *pool);

/*
 * What fn(arg) returns, or -EHWPOISON: a verified unit that it read lies in bad memory. Then fn was left in the middle (it holds nothing
 * but a transaction, which can only be aborted), and may be called again: the unit is looked at anew. So for all who read units.
 */
must_check int pool_guard(struct pool *pool, int (*fn)(void *arg), void *arg);
/* The same for an fn that can be left and called again by itself, done until it is not: -EIO if that never happens. */
must_check int pool_guard_all(struct pool *pool, int (*fn)(void *arg), void *arg);
#define POOL_GUARD_TRIES 1000u /* each meets another bad place, or there is something else wrong */

/* Geometry. It changes when the pool grows: inside of a transaction it stays. */
uint64_t pool_size_blk(const struct pool *pool);
uint32_t pool_ag_count(const struct pool *pool);
uint32_t pool_ag_room(const struct pool *pool); /* no growth makes it more */
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

/* ---- remap.c: single units that lie elsewhere ---- */

/*
 * Group header, remap list, chunk table: without them no other unit of the group is found. Where such a unit lies instead only the superblock
 * can say.
 */
bool pool_unit_is_key(const struct pool *pool, uint64_t laddr);

/*
 * From here on one copy of a key unit lies in that block, which holds it, durably. Nobody else has a transaction open. -ENOSPC: the list is
 * full. -EIO: no superblock can be written; the pool takes no more writes.
 */
must_check int pool_remap_super(struct pool *pool, const struct remap *remap);
bool pool_super_has(struct pool *pool, const struct remap *remap);

/*
 * Bytes for a new place of one copy of the unit at laddr, or of the eight inodes there (BLOCK_SIZE, aligned to 8): its own if they can be read, else those of
 * the other copy, else what both have left. -EIO: that is not all of it.
 */
must_check int pool_unit_save(struct pool *pool, uint64_t laddr, unsigned copy, void *bytes);
/* These bytes over its present place. -EIO: it is as bad as before. Nobody else has a transaction open. */
must_check int pool_unit_rewrite(struct pool *pool, uint64_t laddr, unsigned copy, const void *bytes);

/* ---- lane.c: journal lanes that move ---- */

struct lane_place {
	uint32_t lane;
	unsigned copy;
	uint64_t blk; /* first one */
};
uint64_t pool_lane_len_blk(const struct pool *pool);
/* The first place in [blk, end_blk), by address, where copies of lanes have blocks. False: none has. */
bool pool_lane_find(struct pool *pool, uint64_t blk, uint64_t end_blk, struct lane_place *place);
/* Whether that copy lies there. */
bool pool_lane_is_at(struct pool *pool, const struct lane_place *place);
/*
 * From here on it does: its first block holds no record, durably. Between pool_freeze() and pool_thaw(). -EIO: no superblock can be written; the pool
 * takes no more writes.
 */
must_check int pool_lane_set(struct pool *pool, const struct lane_place *place);
/* The groups' copies of what the superblock says about lanes, after it; with no transaction open. */
must_check int pool_lane_told(struct pool *pool);

/* ---- what is no unit ---- */

/* Both copies of the superblock anew. -EIO: the one in that block still cannot be read. */
must_check int pool_super_renew(struct pool *pool, uint64_t blk);
/* BAD_IN_USE of the superblock (FORMAT.md 4) is so, durable on return. With no transaction open. An error: it may be either. */
must_check int pool_bad_in_use(struct pool *pool, bool in_use);
/* Bad memory in a block of the journal: written anew, or (1) its lane is used only where there is no other, as long as it lies there. */
must_check int pool_lane_renew(struct pool *pool, uint64_t blk);

#endif
