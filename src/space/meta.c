/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Metadata units: bits in the chunk table of a group, and nothing else. So handing out a unit for a node of the rmap tree
 * never changes the rmap tree.
 *
 * Units are handed out from bytes of the used map that are already broken, so that runs of 8 stay for inode clusters.
 */
#include <errno.h>

#include "space/bits.h"
#include "space/priv.h"
#include "util/sabotage.h"

static uint64_t slot_table_laddr(const struct group *g, uint32_t slot)
{
	return slot_laddr(g, 0, AG_UNIT_TABLE + slot / CHUNKS_PER_UNIT);
}

int meta_slot_get(struct group_tx *at, uint32_t slot, const struct m_chunk **entry)
{
	const void *unit;
	int rc = txn_get(at->tx, slot_table_laddr(at->g, slot), MAGIC_CHUNKS, &unit);

	if (!rc)
		*entry = &((const struct m_chunks *)unit)->ct_chunks[slot % CHUNKS_PER_UNIT];
	return rc;
}

int meta_slot_edit(struct group_tx *at, uint32_t slot, struct m_chunk **entry)
{
	void *unit;
	int rc = txn_edit(at->tx, slot_table_laddr(at->g, slot), MAGIC_CHUNKS, &unit);

	if (!rc)
		*entry = &((struct m_chunks *)unit)->ct_chunks[slot % CHUNKS_PER_UNIT];
	return rc;
}

/* ---- state in DRAM ---- */

void units_note(struct group_tx *at, uint32_t slot, uint64_t clusters)
{
	struct group *g = at->g;
	struct group_undo *u = at->undo;

	if (u && u->slot == slot) {
		u->clusters |= clusters; /* older values of this slot are noted already */
		return;
	}
	u = txn_alloc(at->tx, sizeof(*u));
	*u = (struct group_undo){
		.next = at->undo,
		.slot = slot,
		.units_free = g->units_free[slot],
		.units_runs = g->units_runs[slot],
		.clusters = clusters,
	};
	at->undo = u;
}

static void slot_set(struct group *g, uint32_t slot, unsigned free, unsigned runs)
{
	unsigned old = g->units_free[slot];

	if (slot > 0 && old == CHUNK_BLOCKS)
		g->empty_slots--;
	if (slot > 0 && free == CHUNK_BLOCKS)
		g->empty_slots++;
	g->units_free[slot] = (uint16_t)free;
	g->units_runs[slot] = (uint8_t)runs;
	if (free != SLOT_ABSENT && free > 0 && slot < g->slot_low)
		g->slot_low = slot;
	if (free != SLOT_ABSENT && slot >= g->slot_end)
		g->slot_end = slot + 1;
}

void units_undo(struct group *g, const struct group_undo *undo)
{
	slot_set(g, undo->slot, undo->units_free, undo->units_runs);
	g->clusters[undo->slot] |= undo->clusters;
	if (undo->clusters && undo->slot < g->clusters_low)
		g->clusters_low = undo->slot;
}

void meta_slot_set(struct group_tx *at, uint32_t slot, unsigned units_free)
{
	units_note(at, slot, 0);
	slot_set(at->g, slot, units_free, units_free == CHUNK_BLOCKS ? CHUNK_BLOCKS / 8 : 0);
}

/* ---- choosing ---- */

/* A run of count units, aligned to count, that is free in this byte of a used map; 8: none. */
static unsigned byte_find(uint8_t used, unsigned count)
{
	unsigned mask = (1u << count) - 1;

	for (unsigned i = 0; i + count <= 8; i += count) {
		if (!(used >> i & mask))
			return i;
	}
	return 8;
}

/* A unit of a slot for a run of count: in a broken byte if that can be, near the hint. CHUNK_BLOCKS: none. */
static unsigned slot_find(const struct m_chunk *entry, unsigned hint_unit, unsigned count)
{
	unsigned fresh = CHUNK_BLOCKS, bytes = CHUNK_BLOCKS / 8;

	for (unsigned k = 0; k < bytes; k++) {
		unsigned byte = (hint_unit / 8 + k) % bytes, bit;
		uint8_t used = entry->ck_used[byte];

		if (used == 0xff)
			continue;
		if (used == 0) {
			if (fresh == CHUNK_BLOCKS)
				fresh = byte * 8;
			if (count == 8)
				return fresh;
			continue;
		}
		bit = byte_find(used, count);
		if (bit < 8)
			return byte * 8 + bit;
	}
	return fresh;
}

/* Marks units in a slot's map: used or free. -EUCLEAN if one already is so. */
static int slot_change(struct group_tx *at, uint32_t slot, unsigned unit, unsigned count, bool used)
{
	struct group *g = at->g;
	struct m_chunk *entry;
	uint8_t mask = (uint8_t)(((1u << count) - 1) << unit % 8), before;
	unsigned free, runs;
	int rc = meta_slot_edit(at, slot, &entry);

	if (rc)
		return rc;
	before = entry->ck_used[unit / 8];
	if (le32_get(entry->ck_primary) == 0 || (before & mask) != (used ? 0 : mask))
		return -EUCLEAN;
	if (!sabotage_point(used ? "unit-used" : "unit-free"))
		entry->ck_used[unit / 8] = (uint8_t)(before ^ mask);
	free = CHUNK_BLOCKS - le32_get(entry->ck_used_count);
	free = used ? free - count : free + count;
	entry->ck_used_count = le32_of(CHUNK_BLOCKS - free);
	runs = g->units_runs[slot];
	runs += entry->ck_used[unit / 8] == 0;
	runs -= before == 0;
	units_note(at, slot, 0);
	slot_set(g, slot, free, runs);
	at->now.meta_free += used ? 0u - count : count;
	return group_counts_put(at);
}

/* The slot to look in first for count units, from a hint on; slot_end: none. */
static uint32_t slot_from(struct group *g, uint32_t slot, unsigned count)
{
	for (; slot < g->slot_end; slot++) {
		if (g->units_free[slot] == SLOT_ABSENT || g->units_free[slot] < count)
			continue;
		if (count < 8 || g->units_runs[slot] > 0)
			break;
	}
	return slot;
}

/* Looks in slots first .. end - 1. -ENOSPC: nothing there. */
static int take_between(struct group_tx *at, uint32_t first, uint32_t end, unsigned hint_unit, unsigned count,
			uint64_t *laddr)
{
	for (uint32_t slot = first; (slot = slot_from(at->g, slot, count)) < end; slot++) {
		const struct m_chunk *entry;
		unsigned unit;
		int rc = meta_slot_get(at, slot, &entry);

		if (rc)
			return rc;
		unit = slot_find(entry, slot == first ? hint_unit : 0, count);
		if (unit == CHUNK_BLOCKS)
			continue;
		rc = slot_change(at, slot, unit, count, true);
		if (!rc)
			*laddr = slot_laddr(at->g, slot, unit);
		return rc;
	}
	return -ENOSPC;
}

uint32_t group_units_keep(struct group *g, uint32_t keep)
{
	uint32_t lent, missing;

	pthread_mutex_lock(&g->lock);
	missing = g->index.keep > g->index.whole_count ? g->index.keep - g->index.whole_count : 0;
	/* Others are missing since they have bad memory, or are in a range that is emptied: they gave no units. */
	g->lent = (uint32_t)u64_min(g->lent, missing);
	lent = g->lent;
	pthread_mutex_unlock(&g->lock);
	/* Chunks of the reserve that became metadata are for transactions that free. */
	if (g->space->mirrored && g->space->ag_count == 1)
		lent = (uint32_t)u64_min(lent, missing / 2);
	return keep + lent * CHUNK_BLOCKS;
}

bool group_can_grow(struct group *g)
{
	return g->meta_free >= group_units_keep(g, UNITS_KEEP_TREES) + 8 || refill_possible(g, false);
}

/* Whether count units may be taken: 0, -ENOBUFS, -ENOSPC. */
static int units_check(struct group_tx *at, uint32_t count, uint32_t keep)
{
	struct group *g = at->g;
	uint32_t free = at->now.meta_free;
	bool freeing = txn_mode(at->tx) == TXN_FREEING;

	if (at->refill)
		return free >= count ? 0 : -ENOSPC;
	if (!freeing)
		keep = group_units_keep(g, keep);
	else
		keep = UNITS_CRITICAL;
	if (free >= count + keep)
		return 0;
	if (refill_possible(g, freeing)) {
		g->refill_wanted = true;
		return -ENOBUFS;
	}
	return freeing && free >= count ? 0 : -ENOSPC;
}

int meta_take(struct group_tx *at, uint64_t hint_laddr, uint32_t count, uint32_t keep, uint64_t *laddr)
{
	struct group *g = at->g;
	uint32_t slot = laddr_slot(g, hint_laddr), low;
	int rc = units_check(at, count, keep);

	if (rc)
		return rc;
	if (count == 1) {
		g->slot_low = slot_from(g, g->slot_low, 1);
		if (slot < g->slot_low)
			slot = g->slot_low;
	}
	low = count == 1 ? g->slot_low : 0;
	rc = take_between(at, slot, g->slot_end, laddr_unit(hint_laddr), count, laddr);
	if (rc == -ENOSPC)
		rc = take_between(at, low, slot, 0, count, laddr);
	if (rc != -ENOSPC || count == 1)
		return rc;
	/* Enough units, but no aligned run of them. */
	if (refill_possible(g, false)) {
		g->refill_wanted = true;
		return -ENOBUFS;
	}
	return -ENOSPC;
}

int meta_give(struct group_tx *at, uint64_t laddr, uint32_t count)
{
	struct group *g = at->g;
	int rc = slot_change(at, laddr_slot(g, laddr), laddr_unit(laddr), count, false);

	if (rc)
		return rc;
	for (uint32_t i = 0; i < count; i++)
		txn_forget(at->tx, laddr + i * BLOCK_SIZE);
	pool_unverify(g->space->pool, laddr, (uint64_t)count * BLOCK_SIZE);
	return 0;
}

/* ---- for other floors ---- */

/* Whether it is worth asking a group, without its lock. */
static bool group_has_units(struct group *g, uint32_t count, bool freeing)
{
	uint32_t keep;

	if (group_load(g))
		return false;
	keep = freeing ? 0 : group_units_keep(g, UNITS_KEEP_INODES);
	return g->meta_free >= keep + count || refill_possible(g, freeing);
}

int space_meta_alloc(struct txn *tx, uint64_t hint_laddr, uint32_t count, uint64_t *laddr)
{
	struct space *space = space_of(txn_pool(tx));
	uint32_t hint = (uint32_t)((hint_laddr >> CHUNK_SHIFT) / space->ag_chunks);

	assert(count > 0 && count <= 8 && (count & (count - 1)) == 0);
	if (hint >= space->ag_count)
		hint = 0;
	for (uint32_t i = 0; i < space->ag_count; i++) {
		struct group *g = &space->groups[(hint + i) % space->ag_count];
		uint64_t near = i == 0 ? hint_laddr : slot_laddr(g, 0, 0);
		struct group_tx *at;
		int rc;

		if (!group_has_units(g, count, txn_mode(tx) == TXN_FREEING))
			continue;
		rc = group_enter(tx, g->agno, &at);
		if (!rc)
			rc = meta_take(at, near, count, UNITS_KEEP_INODES, laddr);
		if (rc != -ENOSPC)
			return rc;
	}
	return -ENOSPC;
}

int space_meta_free(struct txn *tx, uint64_t laddr, uint32_t count)
{
	struct space *space = space_of(txn_pool(tx));
	uint64_t agno = (laddr >> CHUNK_SHIFT) / space->ag_chunks;
	struct group_tx *at;
	int rc;

	assert(count > 0 && count <= 8 && (count & (count - 1)) == 0);
	if (agno >= space->ag_count || laddr % ((uint64_t)count * BLOCK_SIZE) != 0)
		return -EUCLEAN;
	rc = group_enter(tx, (uint32_t)agno, &at);
	return rc ? rc : meta_give(at, laddr, count);
}

static int inode_node_alloc(struct txn *tx, uint64_t owner, uint64_t hint_laddr, uint64_t *laddr)
{
	(void)owner;
	return space_meta_alloc(tx, hint_laddr, 1, laddr);
}

static int inode_node_free(struct txn *tx, uint64_t laddr)
{
	return space_meta_free(tx, laddr, 1);
}

const struct bt_alloc space_bt_alloc = { inode_node_alloc, inode_node_free };

/* A group's own trees stay in the group, whose lock the caller holds. */
static int group_node_alloc(struct txn *tx, uint64_t owner, uint64_t hint_laddr, uint64_t *laddr)
{
	struct space *space = space_of(txn_pool(tx));
	struct group_tx *at;
	int rc = group_enter(tx, (uint32_t)((hint_laddr >> CHUNK_SHIFT) / space->ag_chunks), &at);

	(void)owner;
	return rc ? rc : meta_take(at, hint_laddr, 1, UNITS_KEEP_TREES, laddr);
}

const struct bt_alloc group_bt_alloc = { group_node_alloc, inode_node_free };
