/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the parts of space/ share.
 *
 * Three kinds of state in DRAM:
 *	index    free blocks of a group; under g->lock, a short mutex
 *	windows  runs set aside for streams; under space->windows.lock
 *	struct group_tx and what struct group says of units and inode clusters; under the group's transaction lock
 *
 * Lock order: transaction locks, refill_lock (taken with none of them held), load_lock, windows.lock, g->lock. Both are taken
 * between pool_hold() and pool_release(). Nobody waits for a
 * transaction lock while holding load_lock, windows.lock or g->lock.
 *
 * A group is loaded (index, units, counters) before any transaction can change it: everyone goes through group_enter() or group_load().
 */
#ifndef UMBRA_SPACE_PRIV_H
#define UMBRA_SPACE_PRIV_H

#include <pthread.h>
#include <stdatomic.h>
#include <urcu/list.h>

#include "media/ag.h"
#include "space/index.h"
#include "space/space.h"

#define SLOT_ABSENT 0xffffu /* in group.units_free: no such chunk */

/* Counters of a group header. */
struct group_counts {
	uint64_t free_blk, inode_count, inode_free;
	uint32_t meta_chunks, meta_free;
};

enum group_loaded { GROUP_NOT_LOADED, GROUP_COUNTED, GROUP_LOADED };

struct group {
	struct space *space;
	uint32_t agno;
	uint32_t chunks;       /* physical ones */
	_Atomic uint32_t keep; /* of them kept for metadata */
	uint64_t start_blk, length_blk;

	pthread_mutex_t load_lock;
	_Atomic int loaded; /* enum group_loaded */

	pthread_mutex_t lock;
	struct index index;
	uint32_t lent; /* of its metadata chunks: made out of the reserve, for transactions that free; under lock */
	uint64_t (*kept)[CHUNK_WORDS]; /* quarantine (keep.c), a bit each; NULL: none. Under lock */
	uint32_t kept_chunks;
	uint64_t kept_blk; /* set bits of it */
	uint64_t closed_lo,
		closed_hi; /* nothing is handed out of these blocks (close.c), from the group's start; under lock */

	/* Committed counters, for whoever holds no lock. */
	_Atomic uint64_t free_blk, inode_count, inode_free;
	_Atomic uint32_t meta_chunks, meta_free;
	_Atomic uint32_t empty_slots;      /* wholly unused metadata chunks other than slot 0 */
	_Atomic bool refill_wanted;        /* somebody got -ENOBUFS */
	_Atomic uint64_t refill_failed_at; /* space->chunk_epoch at the last refill that failed, + 1 */

	struct group_tx *cur; /* of the transaction that holds the group's lock for writing */
	uint16_t *units_free; /* of each slot of the chunk table, or SLOT_ABSENT */
	uint8_t *units_runs;  /* of each slot: wholly free runs of 8 units */
	uint32_t slot_end;    /* no chunk at or past it */
	uint32_t slot_low;    /* no free unit below it */
	uint64_t *clusters; /* of each slot: bit per run of 8 units: an inode cluster that may have free inodes */
	uint64_t clusters_seen; /* inode clusters below this number are known */
	uint32_t clusters_low;  /* no bit in clusters[] below this slot */
	uint64_t cluster_empty; /* a cluster without inodes, if it is still so; 0: none known */
};

struct windows {
	pthread_mutex_t lock;
	struct cds_list_head lru; /* of all streams; the least recently used one first */
	_Atomic uint32_t count;
	_Atomic uint64_t free_blk; /* set aside and not yet used */
};

struct space {
	struct pool *pool;
	_Atomic uint32_t ag_count;
	uint32_t ag_chunks; /* of a full group: slots in each chunk table */
	bool mirrored;
	struct group *groups; /* room for as many as there may come to be */
	pthread_mutex_t refill_lock;
	pthread_mutex_t grow_lock;    /* taken with no transaction open, before pool_freeze() */
	_Atomic uint64_t chunk_epoch; /* counts chunks that became wholly free */
	_Atomic uint64_t bad_changes; /* counts changes of what OWNER_BAD has, under the lock of the group */
	_Atomic uint64_t freed;       /* counts what makes blocks free that data may take, after they are */
	struct windows windows;
	_Atomic(space_keep_fn) keep_fn; /* asked under g->lock */
	void *keep_arg;
	_Atomic uint32_t dir_next;
};

/* Ranges freed by a transaction, given to the index when it has committed. */
#define FREED_PER_PIECE 62u
struct group_freed {
	struct group_freed *next;
	uint64_t count;
	struct {
		uint64_t blk, count_blk;
	} ranges[FREED_PER_PIECE];
};

/* How to undo what a transaction did to the state of units and clusters. */
struct group_undo {
	struct group_undo *next;
	uint32_t slot;
	uint16_t units_free;
	uint8_t units_runs;
	uint64_t clusters; /* bits to set again */
};

/* A transaction at work in a group. */
struct group_tx {
	struct txn *tx;
	struct group *g;
	struct group_counts now;
	bool refill;                   /* makes or gives back metadata chunks: takes the last units */
	struct group_freed *freed;     /* newest piece first */
	struct group_undo *undo;       /* newest first */
	struct rmap last;              /* inserted last, to merge with */
	struct btree *trees[AG_TREES]; /* made on first use */
};

static inline struct space *space_of(const struct pool *pool)
{
	return pool_space(pool);
}

static inline uint64_t slot_laddr(const struct group *g, uint32_t slot, unsigned unit)
{
	return ((uint64_t)g->agno * g->space->ag_chunks + slot) * CHUNK_SIZE + (uint64_t)unit * BLOCK_SIZE;
}

static inline uint32_t laddr_slot(const struct group *g, uint64_t laddr)
{
	return (uint32_t)((laddr >> CHUNK_SHIFT) % g->space->ag_chunks);
}

static inline unsigned laddr_unit(uint64_t laddr)
{
	return (unsigned)(laddr >> BLOCK_SHIFT) % CHUNK_BLOCKS;
}

/* ---- space.c, load.c ---- */

/* A new one, not loaded; geometry from the pool. */
void group_init(struct space *space, uint32_t agno);
void group_set_length(struct group *g, uint64_t length_blk);

/* Reads a group's state on media if that has not been done. Holds no lock afterwards. */
must_check int group_load(struct group *g);
/* Its counters at least. */
must_check int group_load_counts(struct group *g);

/*
 * Locks a group (shared if the transaction only reads), loads it and gives the transaction's state in it. -EUCLEAN if there is
 * no such group.
 */
must_check int group_enter(struct txn *tx, uint32_t agno, struct group_tx **at);

/* Writes at->now into the header. */
must_check int group_counts_put(struct group_tx *at);

/* The group's tree, kept in at. */
struct btree *group_tree(struct group_tx *at, enum ag_tree which);

/* Blocks become free when the transaction commits. */
void group_free_later(struct group_tx *at, uint64_t blk, uint64_t count_blk);

/* Free blocks back to the index of their group, but for closed ones. Takes g->lock. */
void group_give(struct group *g, uint64_t blk, uint64_t count_blk);

/* The same under g->lock, counted from the start of the group; returns how many chunks became wholly free. */
uint32_t group_give_locked(struct group *g, uint64_t lo, uint64_t hi);

/* Whether blocks lie on the device; they may belong to several groups. */
bool space_range_ok(const struct space *space, uint64_t blk, uint64_t count_blk);

/* Whether a group's units suffice for ordinary transactions, or can be made to. */
bool group_can_grow(struct group *g);

/* ---- own.c: bitmap ---- */

/* Sets or clears bits of the bitmap; -EUCLEAN if one of them already is so. Blocks of one group. */
must_check int bitmap_change(struct group_tx *at, uint64_t blk, uint64_t count_blk, bool owned);

/* ---- rmap.c ---- */

/* Adds a record; merges it with its neighbours of the same owner where that is cheap. */
must_check int rmap_add(struct group_tx *at, uint64_t blk, uint64_t count_blk, uint64_t owner,
			uint64_t offset_blk);
/* Adds one to blocks that others own too: merges with the one added last only. */
must_check int rmap_add_shared(struct group_tx *at, uint64_t blk, uint64_t count_blk, uint64_t owner,
			       uint64_t offset_blk);
/* Takes blocks away from the record (or records) of an owner; extent_blk: where the record is thought to start. -EUCLEAN: not its owner. */
must_check int rmap_remove(struct group_tx *at, uint64_t blk, uint64_t count_blk, uint64_t owner,
			   uint64_t offset_blk, uint64_t extent_blk);

/* ---- refcount.c ---- */

must_check int refcount_add(struct group_tx *at, uint64_t blk, uint64_t count_blk);
/* One owner less; gone() is called for each range that has none left. */
must_check int refcount_drop(struct group_tx *at, uint64_t blk, uint64_t count_blk,
			     int (*gone)(struct group_tx *at, uint64_t blk, uint64_t count_blk));
must_check int refcount_get(struct group_tx *at, uint64_t blk, uint64_t count_blk, uint64_t *refs,
			    uint64_t *same_blk);

/* ---- meta.c ---- */

/* Units of a group, whatever its low-water marks say about other groups. */
must_check int meta_take(struct group_tx *at, uint64_t hint_laddr, uint32_t count, uint32_t keep,
			 uint64_t *laddr);
must_check int meta_give(struct group_tx *at, uint64_t laddr, uint32_t count);
/* The entry of a slot in an image of the chunk table. */
must_check int meta_slot_edit(struct group_tx *at, uint32_t slot, struct m_chunk **entry);
must_check int meta_slot_get(struct group_tx *at, uint32_t slot, const struct m_chunk **entry);
/* Notes a slot's state before a change; clusters: bits to set if the transaction aborts. */
void units_note(struct group_tx *at, uint32_t slot, uint64_t clusters);
void meta_slot_set(struct group_tx *at, uint32_t slot, unsigned units_free);
void units_undo(struct group *g, const struct group_undo *undo);
/* Free units that ordinary transactions leave: for units of inodes, and for nodes of the group's own trees. */
#define UNITS_KEEP_INODES 96u
#define UNITS_KEEP_TREES 64u
#define UNITS_CRITICAL 32u /* below it a refill may use the reserve */
uint32_t group_units_keep(struct group *g, uint32_t keep);
extern const struct bt_alloc group_bt_alloc; /* nodes of the group's own trees */

/* ---- refill.c ---- */

/* Whether a new metadata chunk for the group can be had, from the reserve if need be. */
bool refill_possible(struct group *g, bool reserve);

/* A chunk from the first group that has one: from group first on, the group last only if no other has. NULL: none. */
struct group *chunk_grab_any(struct space *space, uint32_t first, const struct group *last, bool reserve,
			     bool highest, uint64_t *blk);

/* ---- move.c, lane_move.c ---- */

/* fn as a transaction that makes room for its metadata if need be; between pool_freeze() and pool_thaw(). */
must_check int frozen_run(struct pool *pool, int (*fn)(struct txn *tx, void *arg), void *arg);
/* The first piece of [blk, end_blk), in one group, that the journal has. 1: there is one, 0: none. */
must_check int journal_piece(struct txn *tx, uint64_t blk, uint64_t end_blk, struct rmap *piece);

/* ---- close.c ---- */

bool group_is_closed(struct group *g, uint64_t blk);
/* space_alloc_at() for a closed block: nobody but the caller can want it. */
must_check int closed_alloc_at(struct txn *tx, struct group *g, uint64_t blk);

/* ---- keep.c: quarantine ---- */

/* Blocks that have become free: to the index, but for what somebody holds. Takes g->lock. */
void group_give_freed(struct group *g, uint64_t blk, uint64_t count_blk);
/*
 * Under g->lock: how many of [lo, hi) from lo on, which are free on media and not in the index, are kept, or are not. Asks who may hold them.
 */
uint64_t kept_run(struct group *g, uint64_t lo, uint64_t hi, bool *kept);
/* Under g->lock: whether some of [lo, hi) are. */
bool kept_any(const struct group *g, uint64_t lo, uint64_t hi);
/* Blocks get an owner: with the commit they are kept no longer. */
void kept_owned(struct group_tx *at, uint64_t blk, uint64_t count_blk);

/* ---- window.c ---- */

/* A running transaction's claim on blocks: back to their window, or to the index, if it aborts. */
struct window;
void grab_add(struct txn *tx, struct group *g, uint64_t blk, uint64_t count_blk, struct window *window);

/* Blocks for want from a window of its stream, perhaps a new one. False: there is none, take them directly. */
bool window_alloc(struct txn *tx, const struct space_want *want, uint64_t *blk, uint64_t *count_blk);
/* Blocks that did not come from a window: the stream notes where the file goes on. */
void window_passed(const struct space_want *want, uint64_t blk, uint64_t count_blk);
/* Gives back some windows, of whomever; false: there are none. */
bool window_steal(struct space *space);
void windows_init(struct space *space);
void windows_destroy(struct space *space);

/* ---- alloc.c ---- */

/* A run for data from one group, taken in its index; want's goal is relative to the group, the result is not. */
bool group_alloc(struct group *g, const struct index_want *want, uint64_t *blk, uint64_t *count_blk);
/* What is free from blk on, taken, if it is at least min_blk; how many. */
uint64_t group_alloc_at(struct group *g, uint64_t blk, uint64_t min_blk, uint64_t max_blk);
/* The step-th group to ask. */
struct group *want_group(struct space *space, const struct space_want *want, uint64_t goal_blk,
			 uint32_t step);

#endif
