/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside of the txn floor: the pool's state and the images of a transaction.
 */
#ifndef UMBRA_TXN_INTERNAL_H
#define UMBRA_TXN_INTERNAL_H

#include "media/ag.h"
#include "media/journal.h"
#include "txn/pool.h"
#include "txn/txn.h"
#include "util/sabotage.h"

/* One logical chunk in DRAM. verified: a bit for each 512 bytes whose unit passed its checks; made on first touch. */
struct chunk_place {
	_Atomic uint32_t primary, mirror;
	_Atomic(_Atomic uint64_t *) verified;
};
#define VERIFIED_WORDS (CHUNK_SIZE / INODE_SIZE / 64)

struct pool_ag {
	struct txn_lock lock;
	_Atomic bool remaps_loaded; /* pool.remaps has those of its list */
	_Atomic bool loaded;        /* that too, and chunks[] follows the chunk table */
	struct chunk_place *chunks;
};

struct lane {
	pthread_mutex_t mutex;
	uint64_t off[2];   /* of primary and mirror, bytes */
	bool dead;         /* its record is left for the next mount; under mutex */
	_Atomic bool worn; /* bad memory was met in one of both: used where there is no other */
	uint8_t *staging;
};

/* gate.c */
#define GATE_COUNTERS 32u
struct gate {
	struct {
		_Atomic uint64_t inside; /* threads that have something open */
		uint8_t own_line[2 * LINE_SIZE - sizeof(uint64_t)];
	} counters[GATE_COUNTERS];
	_Atomic bool closed; /* changes under mutex, but for closing */
	pthread_mutex_t freezer;
	pthread_mutex_t mutex;
	pthread_cond_t opened;
};

struct pool {
	struct dax *dax;
	bool readonly;
	bool was_clean;
	bool repair;
	uint32_t ag_chunks; /* of a full group: logical chunks of each group */
	struct super super; /* under super_mutex, but for fields that never change */
	bool copy_lost;     /* the copy of the superblock is not sound; under super_mutex */
	pthread_mutex_t super_mutex;
	pthread_mutex_t load_mutex; /* loading groups, healing units */
	_Atomic uint64_t seq;
	_Atomic uint64_t seq_limit;
	uint64_t opened_seq; /* no record of an earlier mount has a higher one */
	_Atomic(const char *) failed;
	void *space;
	struct pool_ag *ags;
	uint32_t ag_room; /* so many it can have */
	uint32_t ag_made; /* so many are set up: at least ag_count */
	struct gate gate;
	struct lane *lanes;
	_Atomic uint32_t remap_count;
	pthread_rwlock_t remap_lock;
	struct remap *remaps; /* sorted by laddr, copy; under remap_lock */
	uint32_t remap_room;  /* one more than there are, when a transaction is to add one */
	struct pool_stats stats;
	void (*event_fn)(void *arg, const struct pool_event *event);
	void *event_arg;
	void (*bad_fn)(void *arg, uint64_t dev_off);
	void *bad_arg;
};

struct image {
	struct image *next;
	uint64_t laddr;
	uint32_t magic;
	bool fresh;
	bool forgotten;
	uint8_t *data;
	uint64_t dirty_lines; /* set at commit */
};

struct txn_end_hook {
	struct txn_end_hook *next, *prev;
	void (*fn)(void *arg, bool committed);
	void *arg;
};

struct arena_block {
	struct arena_block *next;
	size_t used, size;
	_Alignas(64) uint8_t bytes[];
};

/* A chunk that lies elsewhere from the commit on. */
struct chunk_moved {
	uint64_t lchunk;
	uint32_t primary, mirror;
};

/* Units of one copy of a chunk that lie in it again from the commit on. */
struct remap_dropped {
	uint64_t lchunk;
	unsigned copy;
	uint64_t units[CHUNK_BLOCKS / 64];
};

struct held_lock {
	struct txn_lock *lock;
	bool write;
};

struct txn {
	struct pool *pool;
	enum txn_mode mode;
	uint64_t seq;
	bool data_stored;
	uint64_t request_id;
	int32_t result;
	struct txn_receipt *receipt; /* of this commit; NULL: none */
	int32_t receipt_result;
	int64_t receipt_value;
	uint32_t receipt_flags;
	uint64_t blocked_on;
	struct image *images, **images_tail;
	unsigned image_count;
	struct image **table; /* open addressing by laddr */
	unsigned table_size;
	struct txn_end_hook *hooks, *last_hook;
	const struct remap *remap; /* from this commit on; NULL: none */
	const struct chunk_moved *moved;
	const struct remap_dropped *dropped;
	struct held_lock *held;
	unsigned held_count, held_size;
	struct arena_block *arena; /* never NULL */
	bool starved;              /* there was no memory: it can only end */
};

/* unit.c: the unit at home, checked on first touch; heals one copy from the other. */
must_check int unit_home(struct pool *pool, uint64_t laddr, uint32_t magic, const void **unit);
/* A whole unit to one home; the header last, so that a copy which has it has all, even where stores fail. */
must_check int unit_store(struct pool *pool, uint64_t off, const void *unit, size_t size_bytes);
bool unit_is_verified(struct pool *pool, uint64_t laddr);
void unit_set_verified(struct pool *pool, uint64_t laddr, size_t size_bytes, bool verified);

/* gate.c */
void gate_init(struct gate *gate);
void gate_destroy(struct gate *gate);

/* pool.c: sets up the DRAM part of groups, so that there are so many. */
must_check int pool_ags_make(struct pool *pool, uint32_t count);

/* remap.c: the list in DRAM. */
uint64_t remap_find(struct pool *pool, uint64_t unit_laddr, unsigned copy); /* its block; 0: in its chunk */
must_check int remaps_add(struct pool *pool, const struct remap *add, uint32_t count);
/* One of which there may be an older one. There is room (txn_remap). */
void remap_put(struct pool *pool, const struct remap *remap);
void remaps_forget(struct pool *pool, const struct remap_dropped *dropped);

/* guard.c: takes note of bad memory under metadata. */
void bad_met(struct pool *pool, uint64_t dev_off);

/* place.c */
must_check int ag_load(struct pool *pool, uint32_t agno);
void ag_unload_all(struct pool *pool);
struct chunk_place *chunk_place(struct pool *pool, uint64_t laddr);

/* journal.c */
must_check int journal_open(struct pool *pool);
void journal_close(struct pool *pool);
void lanes_place(struct pool *pool); /* where the superblock says */
bool lanes_dead(struct pool *pool);  /* one or more */
struct lane *lane_take(struct pool *pool,
		       uint64_t tried); /* none of those, by a bit for each; NULL: there is no other */
void lane_wear(struct pool *pool, struct lane *lane, unsigned copy);
void lane_give(struct lane *lane);
unsigned lane_index(const struct pool *pool, const struct lane *lane);
must_check int journal_replay(struct pool *pool, const struct pool_opts *opts, bool dry, unsigned *records);

/* commit.c */
must_check int commit_images(struct txn *tx);

/* super.c */
must_check int super_load(struct dax *dax, struct super *super, bool *copy_lost, char *why, size_t why_size);
must_check int super_store(struct pool *pool);
must_check int super_extend_seq(struct pool *pool);

#endif
