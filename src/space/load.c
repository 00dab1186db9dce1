/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading a group's state into DRAM when it is first used.
 *
 * No lock on the group is needed: no transaction changes a group before it is loaded (group_enter loads first), so what lies on media
 * stands still meanwhile.
 */
#include <errno.h>
#include <stdlib.h>

#include "space/priv.h"
#include "util/log.h"

static int load_counts(struct group *g, struct txn *tx)
{
	const struct m_ag *m;
	const void *unit;
	int rc = txn_get(tx, slot_laddr(g, 0, AG_UNIT_HEADER), MAGIC_AG, &unit);

	if (rc)
		return rc;
	m = unit;
	if (le32_get(m->ag_index) != g->agno || le64_get(m->ag_length_blk) != g->length_blk) {
		log_error("group %u: its header is another group's", g->agno);
		return -EUCLEAN;
	}
	g->free_blk = le64_get(m->ag_free_blk);
	g->inode_count = le64_get(m->ag_inode_count);
	g->inode_free = le64_get(m->ag_inode_free);
	g->meta_chunks = le32_get(m->ag_meta_chunks);
	g->meta_free = le32_get(m->ag_meta_free_units);
	g->loaded = GROUP_COUNTED;
	return 0;
}

static int load_bitmap(struct group *g, struct txn *tx)
{
	uint32_t first_unit = AG_UNIT_TABLE + ag_table_units(g->space->ag_chunks);
	int rc = index_init(&g->index, g->chunks);

	g->index.keep = g->keep;
	g->index.spare = g->chunks / 16;
	for (uint32_t chunk = 0; chunk < g->chunks && !rc; chunk += BITMAP_CHUNKS_PER_UNIT) {
		uint64_t laddr = slot_laddr(g, 0, first_unit + chunk / BITMAP_CHUNKS_PER_UNIT);
		const void *unit;

		rc = txn_get(tx, laddr, MAGIC_BITMAP, &unit);
		for (uint32_t i = 0; i < BITMAP_CHUNKS_PER_UNIT && chunk + i < g->chunks && !rc; i++) {
			const struct m_bitmap *m = unit;
			uint64_t bits[CHUNK_WORDS];

			for (unsigned w = 0; w < CHUNK_WORDS; w++)
				bits[w] = le64_get(((const le64 *)(const void *)m->bm_bits[i])[w]);
			index_load_chunk(&g->index, chunk + i, bits);
		}
	}
	if (!rc && g->index.free_blk != g->free_blk) {
		log_warn("group %u: %llu blocks are free by its bitmap, %llu by its header", g->agno,
			 (unsigned long long)g->index.free_blk, (unsigned long long)g->free_blk);
		g->free_blk = g->index.free_blk;
	}
	return rc;
}

static void load_slot(struct group *g, uint32_t slot, const struct m_chunk *entry)
{
	unsigned free = 0, runs = 0;

	if (le32_get(entry->ck_primary) == 0)
		return;
	for (unsigned i = 0; i < sizeof(entry->ck_used); i++) {
		free += 8 - (unsigned)__builtin_popcount(entry->ck_used[i]);
		runs += entry->ck_used[i] == 0;
	}
	g->units_free[slot] = (uint16_t)free;
	g->units_runs[slot] = (uint8_t)runs;
	g->slot_end = slot + 1;
	if (slot > 0 && free == CHUNK_BLOCKS)
		g->empty_slots++;
}

static int load_units(struct group *g, struct txn *tx)
{
	uint32_t slots = g->space->ag_chunks, free = 0;

	g->units_free = malloc(slots * sizeof(*g->units_free));
	g->units_runs = calloc(slots, sizeof(*g->units_runs));
	g->clusters = calloc(slots, sizeof(*g->clusters));
	if (!g->units_free || !g->units_runs || !g->clusters)
		return -ENOMEM;
	for (uint32_t slot = 0; slot < slots; slot++)
		g->units_free[slot] = SLOT_ABSENT;
	for (uint32_t slot = 0; slot < slots; slot += CHUNKS_PER_UNIT) {
		const struct m_chunks *m;
		const void *unit;
		uint64_t laddr = slot_laddr(g, 0, AG_UNIT_TABLE + slot / CHUNKS_PER_UNIT);
		int rc = txn_get(tx, laddr, MAGIC_CHUNKS, &unit);

		if (rc)
			return rc;
		m = unit;
		for (uint32_t i = 0; i < CHUNKS_PER_UNIT && slot + i < slots; i++)
			load_slot(g, slot + i, &m->ct_chunks[i]);
	}
	for (uint32_t slot = 0; slot < g->slot_end; slot++)
		free += g->units_free[slot] == SLOT_ABSENT ? 0 : g->units_free[slot];
	if (free != g->meta_free) {
		log_warn("group %u: %u metadata units are free by its chunk table, %u by its header", g->agno,
			 free, (unsigned)g->meta_free);
		g->meta_free = free;
	}
	g->lent = g->meta_free / CHUNK_BLOCKS; /* nobody knows: at most so many */
	return 0;
}

static void group_unload(struct group *g)
{
	index_destroy(&g->index);
	free(g->units_free);
	free(g->units_runs);
	free(g->clusters);
	g->units_free = NULL;
	g->units_runs = NULL;
	g->clusters = NULL;
	g->slot_end = 0;
	g->empty_slots = 0;
}

struct loading {
	struct group *g;
	enum group_loaded how_far;
};

static int loading_run(struct txn *tx, void *arg)
{
	const struct loading *l = arg;
	struct group *g = l->g;
	int rc = 0;

	if (g->loaded == GROUP_NOT_LOADED)
		rc = load_counts(g, tx);
	if (rc || l->how_far != GROUP_LOADED)
		return rc;
	group_unload(g); /* bad memory may have been met half-way */
	rc = load_bitmap(g, tx);
	return rc ? rc : load_units(g, tx);
}

static int group_load_to(struct group *g, enum group_loaded how_far)
{
	struct loading loading = { g, how_far };
	int rc = 0;

	if (atomic_load_explicit(&g->loaded, memory_order_acquire) >= (int)how_far)
		return 0;
	/* Others wait for this lock inside of transactions. */
	pool_hold(g->space->pool);
	pthread_mutex_lock(&g->load_lock);
	if (g->loaded < (int)how_far) {
		rc = txn_run(g->space->pool, TXN_READ, loading_run, &loading);
		if (rc)
			group_unload(g);
		else if (how_far == GROUP_LOADED)
			atomic_store_explicit(&g->loaded, GROUP_LOADED, memory_order_release);
	}
	pthread_mutex_unlock(&g->load_lock);
	pool_release(g->space->pool);
	return rc;
}

int group_load(struct group *g)
{
	return group_load_to(g, GROUP_LOADED);
}

int group_load_counts(struct group *g)
{
	return group_load_to(g, GROUP_COUNTED);
}
