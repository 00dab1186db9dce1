/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From logical addresses to places on the device: chunk table in DRAM, geometry. Units that lie elsewhere: remap.c.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "txn/internal.h"
#include "util/log.h"

uint32_t pool_ag_count(const struct pool *pool)
{
	return __atomic_load_n(&pool->super.ag_count, __ATOMIC_ACQUIRE);
}

uint32_t pool_ag_room(const struct pool *pool)
{
	return pool->ag_room;
}

uint64_t pool_size_blk(const struct pool *pool)
{
	return __atomic_load_n(&pool->super.size_blk, __ATOMIC_ACQUIRE);
}

uint64_t pool_ag_start_blk(const struct pool *pool, uint32_t agno)
{
	return super_ag_start_blk(&pool->super, agno);
}

uint64_t pool_ag_length_blk(const struct pool *pool, uint32_t agno)
{
	return u64_min(pool->super.ag_size_blk, pool_size_blk(pool) - pool_ag_start_blk(pool, agno));
}

uint32_t pool_blk_ag(const struct pool *pool, uint64_t blk)
{
	assert(blk < pool_size_blk(pool));
	return (uint32_t)(blk / pool->super.ag_size_blk);
}

uint32_t pool_laddr_ag(const struct pool *pool, uint64_t laddr)
{
	uint64_t agno = (laddr >> CHUNK_SHIFT) / pool->ag_chunks;

	assert(agno < pool_ag_count(pool));
	return (uint32_t)agno;
}

uint64_t pool_ag_unit(const struct pool *pool, uint32_t agno, uint32_t unit_index)
{
	return ((uint64_t)agno * pool->ag_chunks << CHUNK_SHIFT) + (uint64_t)unit_index * BLOCK_SIZE;
}

struct txn_lock *pool_ag_lock(struct pool *pool, uint32_t agno)
{
	return &pool->ags[agno].lock;
}

/* NULL if no group can have that address. */
struct chunk_place *chunk_place(struct pool *pool, uint64_t laddr)
{
	uint64_t lchunk = laddr >> CHUNK_SHIFT;
	uint64_t agno = lchunk / pool->ag_chunks;

	return agno < pool_ag_count(pool) ? &pool->ags[agno].chunks[lchunk % pool->ag_chunks] : NULL;
}

static int place_in_chunk(struct pool *pool, uint64_t laddr, unsigned copy, uint64_t chunk, uint64_t *off)
{
	uint64_t blk;

	if (chunk == 0 || (chunk + 1) * CHUNK_BLOCKS > pool_size_blk(pool))
		return -ENOENT;
	*off = (chunk << CHUNK_SHIFT) + (laddr & (CHUNK_SIZE - 1));
	if (pool->remap_count != 0) {
		blk = remap_find(pool, u64_align_down(laddr, BLOCK_SIZE), copy);
		if (blk != 0 && blk < pool_size_blk(pool))
			*off = blk * BLOCK_SIZE + (laddr & (BLOCK_SIZE - 1));
	}
	return 0;
}

/* Slot 0 needs no table: second chunk of the group and last but one. */
static uint64_t slot0_chunk(const struct pool *pool, uint32_t agno, unsigned copy)
{
	uint64_t first = super_ag_start_blk(&pool->super, agno) / CHUNK_BLOCKS;
	uint64_t chunks = pool_ag_length_blk(pool, agno) / CHUNK_BLOCKS;

	return copy == 0 ? first + 1 : first + chunks - 2;
}

struct ag_loading {
	struct pool *pool;
	uint32_t agno;
};

static int remaps_run(void *arg)
{
	const struct ag_loading *l = arg;
	struct pool *pool = l->pool;
	struct remap add[REMAPS_PER_UNIT];
	const struct m_remaps *m;
	const void *unit;
	uint32_t count;
	int rc = unit_home(pool, pool_ag_unit(pool, l->agno, AG_UNIT_REMAP), MAGIC_REMAP, &unit);

	if (rc)
		return pool->repair ? 0 : rc;
	m = unit;
	count = le32_get(m->rl_count);
	for (uint32_t i = 0; i < count; i++) {
		add[i] = (struct remap){
			.laddr = le64_get(m->rl_entries[i].rp_laddr),
			.place_blk = le64_get(m->rl_entries[i].rp_place_blk),
			.copy = le32_get(m->rl_entries[i].rp_copy),
		};
	}
	return count != 0 ? remaps_add(pool, add, count) : 0;
}

static int table_run(void *arg)
{
	const struct ag_loading *l = arg;
	struct pool *pool = l->pool;
	struct chunk_place *chunks = pool->ags[l->agno].chunks;

	for (uint32_t first = 0; first < pool->ag_chunks; first += CHUNKS_PER_UNIT) {
		const struct m_chunks *m;
		const void *unit;
		uint64_t laddr = pool_ag_unit(pool, l->agno, AG_UNIT_TABLE + first / CHUNKS_PER_UNIT);
		int rc = unit_home(pool, laddr, MAGIC_CHUNKS, &unit);

		/* A repair says itself where these chunks are: pool_chunk_set. */
		if (rc && pool->repair)
			continue;
		if (rc)
			return rc;
		m = unit;
		for (uint32_t i = 0; i < CHUNKS_PER_UNIT && first + i < pool->ag_chunks; i++) {
			chunks[first + i].primary = le32_get(m->ct_chunks[i].ck_primary);
			chunks[first + i].mirror = le32_get(m->ct_chunks[i].ck_mirror);
		}
	}
	return 0;
}

/* Only key units are read here, whose places need no list but the superblock's. */
static int load_once(struct pool *pool, uint32_t agno, _Atomic bool *loaded, int (*run)(void *arg))
{
	struct ag_loading loading = { pool, agno };
	int rc = 0;

	if (atomic_load_explicit(loaded, memory_order_acquire))
		return 0;
	pthread_mutex_lock(&pool->load_mutex);
	if (!*loaded) {
		rc = pool_guard_all(pool, run, &loading);
		if (!rc)
			atomic_store_explicit(loaded, true, memory_order_release);
	}
	pthread_mutex_unlock(&pool->load_mutex);
	return rc;
}

static int ag_load_remaps(struct pool *pool, uint32_t agno)
{
	return load_once(pool, agno, &pool->ags[agno].remaps_loaded, remaps_run);
}

int ag_load(struct pool *pool, uint32_t agno)
{
	struct pool_ag *ag = &pool->ags[agno];
	int rc;

	if (atomic_load_explicit(&ag->loaded, memory_order_acquire))
		return 0;
	rc = ag_load_remaps(pool, agno);
	return rc ? rc : load_once(pool, agno, &ag->loaded, table_run);
}

int pool_place(struct pool *pool, uint64_t laddr, unsigned copy, uint64_t *off)
{
	uint64_t lchunk = laddr >> CHUNK_SHIFT;
	uint64_t agno = lchunk / pool->ag_chunks, slot = lchunk % pool->ag_chunks;
	struct chunk_place *place;
	int rc;

	assert(copy < 2);
	if (agno >= pool_ag_count(pool))
		return -ENOENT;
	if (slot == 0) {
		rc = pool_unit_is_key(pool, laddr) ? 0 : ag_load_remaps(pool, (uint32_t)agno);
		return rc ? rc :
			    place_in_chunk(pool, laddr, copy, slot0_chunk(pool, (uint32_t)agno, copy), off);
	}
	rc = ag_load(pool, (uint32_t)agno);
	if (rc)
		return rc;
	place = &pool->ags[agno].chunks[slot];
	return place_in_chunk(pool, laddr, copy, copy == 0 ? place->primary : place->mirror, off);
}

void ag_unload_all(struct pool *pool)
{
	for (uint32_t agno = 0; agno < pool->ag_made; agno++) {
		pool->ags[agno].loaded = false;
		pool->ags[agno].remaps_loaded = false;
		for (uint32_t i = 0; i < pool->ag_chunks; i++) {
			free(pool->ags[agno].chunks[i].verified);
			pool->ags[agno].chunks[i].verified = NULL;
		}
	}
	pool->remap_count = 0;
	if (pool->super.remap_count != 0 &&
	    remaps_add(pool, pool->super.remaps, pool->super.remap_count) != 0)
		assert(0); /* there is always room for them */
}

void pool_chunk_set(struct pool *pool, uint64_t lchunk, uint32_t primary_chunk, uint32_t mirror_chunk)
{
	struct chunk_place *place = chunk_place(pool, lchunk << CHUNK_SHIFT);

	assert(place);
	place->primary = primary_chunk;
	place->mirror = mirror_chunk;
	unit_set_verified(pool, lchunk << CHUNK_SHIFT, CHUNK_SIZE, false);
}

int txn_chunk_move(struct txn *tx, uint64_t lchunk, uint32_t primary, uint32_t mirror)
{
	struct chunk_moved *moved = txn_alloc(tx, sizeof(*moved));

	assert(!tx->moved && chunk_place(tx->pool, lchunk << CHUNK_SHIFT));
	*moved = (struct chunk_moved){ lchunk, primary, mirror };
	tx->moved = moved;
	return 0;
}

void pool_unverify(struct pool *pool, uint64_t laddr, uint64_t len_bytes)
{
	unit_set_verified(pool, laddr, len_bytes, false);
}
