/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One copy of a metadata chunk moves to another chunk: what lies there is copied, and one transaction changes the entry in the chunk table and the
 * owners of both chunks.
 *
 * The entry counts from the transaction's record on, as one of a remap list does (move.c): what the transaction itself edits of the chunk is stored
 * in the new place. With everybody else outside (pool_freeze), so that the copy is what the units hold, and nobody looks at one on its way.
 *
 * Blocks of the old chunk that cannot be read go out of use, and those whose units lie elsewhere: they were left since they were bad, or are to be taken
 * for it. In the new chunk nothing is wrong with the place of such a unit: it comes home, in the same transaction. Only one that cannot be read where
 * it stands in, or for which there is no room in the transaction, stays there.
 */
#include <errno.h>
#include <string.h>

#include "space/bits.h"
#include "space/priv.h"
#include "util/sabotage.h"

#define HOME_UNITS 24u /* that one block's way home may edit, and what comes after it */

struct chunk_move {
	struct space *space;
	struct group *g, *old_g, *new_g; /* whose units they are, and where they lie */
	uint64_t lchunk, old_blk, new_blk;
	uint32_t slot;
	unsigned copy;
	bool bad;
	bool begun;                      /* the transaction gives the new chunk back */
	uint64_t known_bad[CHUNK_WORDS]; /* blocks of the old chunk */
	struct chunk_bad *found;
};

static bool bit_get(const uint64_t *words, unsigned bit)
{
	return words[bit / 64] >> bit % 64 & 1;
}

static uint64_t move_owner(const struct chunk_move *m)
{
	return m->copy ? OWNER_MIRROR : OWNER_META;
}

static int block_store(const struct chunk_move *m, unsigned block, const void *bytes)
{
	uint64_t off = (m->new_blk + block) << BLOCK_SHIFT;
	int rc = dax_store(pool_dax(m->space->pool), off, bytes, BLOCK_SIZE);

	if (rc)
		m->found->new_off = off;
	return rc;
}

/* Block by block, each from the copy that can be read. */
static int blocks_copy(const struct chunk_move *m, const uint8_t *used)
{
	struct pool *pool = m->space->pool;
	struct dax *dax = pool_dax(pool);
	_Alignas(64) uint8_t bytes[BLOCK_SIZE];
	int rc = 0;

	for (unsigned i = 0; i < CHUNK_BLOCKS && !rc; i++) {
		uint64_t off = (m->old_blk + i) << BLOCK_SHIFT;

		if (dax_load(dax, bytes, off, BLOCK_SIZE, NULL) == 0) {
			rc = block_store(m, i, bytes);
			continue;
		}
		if (dax_has_memory(dax, off))
			m->found->old[i / 64] |= 1ull << i % 64;
		if (bit_get(m->known_bad, i) || !(used[i / 8] >> i % 8 & 1))
			continue; /* nothing lies there */
		rc = pool_unit_save(pool, (m->lchunk << CHUNK_SHIFT) + (uint64_t)i * BLOCK_SIZE, m->copy,
				    bytes);
		if (!rc)
			rc = block_store(m, i, bytes);
	}
	return rc;
}

/* A store says nothing of whether the memory is good. */
static int new_look(const struct chunk_move *m)
{
	const struct dax *dax = pool_dax(m->space->pool);
	uint64_t end = (m->new_blk + CHUNK_BLOCKS) << BLOCK_SHIFT;
	uint8_t back[BLOCK_SIZE];
	int rc = 0;

	for (uint64_t off = m->new_blk << BLOCK_SHIFT; off < end && !rc; off += BLOCK_SIZE) {
		rc = dax_load(dax, back, off, BLOCK_SIZE, NULL);
		if (rc)
			m->found->new_off = off;
	}
	return rc;
}

static int chunk_copy(struct chunk_move *m, const uint8_t *used)
{
	struct dax *dax = pool_dax(m->space->pool);
	int rc;

	*m->found = (struct chunk_bad){ 0 };
	rc = dax_move(dax, m->new_blk << BLOCK_SHIFT, m->old_blk << BLOCK_SHIFT, CHUNK_SIZE);
	if (rc)
		rc = blocks_copy(m, used);
	if (!rc)
		rc = new_look(m);
	dax_bad_forget();
	return rc;
}

/* Units of this copy of the chunk that lie elsewhere. */
static int known_bad_get(struct group_tx *at, struct chunk_move *m)
{
	uint64_t first = m->lchunk << CHUNK_SHIFT;
	const struct m_remaps *list;
	const void *unit;
	int rc = txn_get(at->tx, slot_laddr(at->g, 0, AG_UNIT_REMAP), MAGIC_REMAP, &unit);

	if (rc)
		return rc;
	memset(m->known_bad, 0, sizeof(m->known_bad));
	list = unit;
	for (uint32_t i = 0; i < le32_get(list->rl_count) && i < REMAPS_PER_UNIT; i++) {
		uint64_t laddr = le64_get(list->rl_entries[i].rp_laddr);

		if (laddr >= first && laddr - first < CHUNK_SIZE &&
		    le32_get(list->rl_entries[i].rp_copy) == m->copy)
			m->known_bad[laddr_unit(laddr) / 64] |= 1ull << laddr_unit(laddr) % 64;
	}
	return 0;
}

/* ---- units that lie elsewhere ---- */

static int block_home(const struct chunk_move *m, unsigned unit, const void *bytes)
{
	uint8_t back[BLOCK_SIZE];
	uint64_t off = (m->new_blk + unit) << BLOCK_SHIFT;
	int rc = block_store(m, unit, bytes);

	if (!rc && dax_load(pool_dax(m->space->pool), back, off, BLOCK_SIZE, NULL)) {
		m->found->new_off = off;
		rc = -EIO;
	}
	return rc;
}

/* The block that stood in for a unit. */
static int stand_in_leave(struct txn *tx, const struct chunk_move *m, uint64_t blk, uint64_t laddr)
{
	struct group *g = &m->space->groups[pool_blk_ag(m->space->pool, blk)];
	bool closed = group_is_closed(g, blk);
	int rc = closed && m->bad ? space_share(tx, blk, 1, OWNER_BAD, blk) : 0;

	m->found->home_blk += closed;
	return rc ? rc : space_drop(tx, blk, 1, OWNER_REMAP, laddr / BLOCK_SIZE * 2 + m->copy);
}

static int units_home(struct group_tx *at, const struct chunk_move *m)
{
	uint64_t first = m->lchunk << CHUNK_SHIFT, home[CHUNK_WORDS] = { 0 };
	struct dax *dax = pool_dax(m->space->pool);
	_Alignas(64) uint8_t bytes[BLOCK_SIZE];
	struct m_remaps list;
	bool any = false;
	const void *unit;
	int rc = txn_get(at->tx, slot_laddr(at->g, 0, AG_UNIT_REMAP), MAGIC_REMAP, &unit);

	m->found->home_blk = 0;
	if (rc)
		return rc;
	memcpy(&list, unit, sizeof(list));
	for (uint32_t i = 0; i < le32_get(list.rl_count) && i < REMAPS_PER_UNIT && !rc; i++) {
		uint64_t laddr = le64_get(list.rl_entries[i].rp_laddr);
		uint64_t blk = le64_get(list.rl_entries[i].rp_place_blk);

		if (laddr < first || laddr - first >= CHUNK_SIZE ||
		    le32_get(list.rl_entries[i].rp_copy) != m->copy || !space_range_ok(m->space, blk, 1) ||
		    !txn_has_room(at->tx, HOME_UNITS) ||
		    dax_load(dax, bytes, blk << BLOCK_SHIFT, BLOCK_SIZE, NULL) != 0)
			continue;
		rc = block_home(m, laddr_unit(laddr), bytes);
		if (!rc)
			rc = stand_in_leave(at->tx, m, blk, laddr);
		home[laddr_unit(laddr) / 64] |= 1ull << laddr_unit(laddr) % 64;
		any = true;
	}
	dax_bad_forget();
	return rc || !any ? rc : txn_remap_drop(at->tx, m->lchunk, m->copy, home);
}

/* ---- what it leaves ---- */

static bool block_is_out(const struct chunk_move *m, const struct group *g, unsigned block)
{
	uint64_t rel = m->old_blk + block - g->start_blk;

	return bit_get(m->known_bad, block) || bit_get(m->found->old, block) ||
	       (m->bad && rel >= g->closed_lo && rel < g->closed_hi);
}

static int run_leave(struct group_tx *at, uint64_t blk, uint64_t count_blk, bool out)
{
	int rc;

	if (out)
		return rmap_add(at, blk, count_blk, OWNER_BAD, blk);
	rc = bitmap_change(at, blk, count_blk, false);
	group_free_later(at, blk, count_blk);
	return rc;
}

static int old_leave(struct group_tx *at, const struct chunk_move *m)
{
	int rc = rmap_remove(at, m->old_blk, CHUNK_BLOCKS, move_owner(m), m->lchunk, m->old_blk);

	for (unsigned i = 0, end; i < CHUNK_BLOCKS && !rc; i = end) {
		bool out = block_is_out(m, at->g, i);

		for (end = i + 1; end < CHUNK_BLOCKS && block_is_out(m, at->g, end) == out;)
			end++;
		rc = run_leave(at, m->old_blk + i, end - i, out);
	}
	return rc;
}

static int entry_set(struct txn *tx, const struct chunk_move *m, struct m_chunk *entry)
{
	le32 chunk = le32_of((uint32_t)(m->new_blk / CHUNK_BLOCKS));

	if (m->copy)
		entry->ck_mirror = chunk;
	else
		entry->ck_primary = chunk;
	return txn_chunk_move(tx, m->lchunk, le32_get(entry->ck_primary), le32_get(entry->ck_mirror));
}

static int groups_enter(struct txn *tx, const struct chunk_move *m, struct group_tx **at,
			struct group_tx **old_at, struct group_tx **new_at)
{
	int rc = 0;

	for (uint32_t i = 0; i < m->space->ag_count && !rc; i++) {
		struct group *g = &m->space->groups[i];
		struct group_tx *t;

		if (g != m->g && g != m->old_g && g != m->new_g)
			continue;
		rc = group_enter(tx, i, &t);
		if (rc)
			return rc;
		t->refill = true; /* may take the last units */
		*at = g == m->g ? t : *at;
		*old_at = g == m->old_g ? t : *old_at;
		*new_at = g == m->new_g ? t : *new_at;
	}
	return rc;
}

static int move_step(struct txn *tx, void *arg)
{
	struct chunk_move *m = arg;
	struct group_tx *at = NULL, *old_at = NULL, *new_at = NULL;
	struct m_chunk *entry;
	int rc;

	if (m->begun)
		return -EAGAIN; /* bad memory was met, and what was grabbed is given back */
	m->begun = true;
	grab_add(tx, m->new_g, m->new_blk, CHUNK_BLOCKS, NULL);
	rc = groups_enter(tx, m, &at, &old_at, &new_at);
	if (!rc)
		rc = meta_slot_edit(at, m->slot, &entry);
	if (!rc)
		rc = known_bad_get(at, m);
	if (!rc)
		rc = chunk_copy(m, entry->ck_used);
	if (rc)
		return rc;
	rc = sabotage_point("chunk-move-leave") ? 0 : old_leave(old_at, m);
	if (!rc)
		rc = units_home(at, m);
	if (!sabotage_point("chunk-move-fence"))
		txn_data_stored(tx);
	if (!rc)
		rc = bitmap_change(new_at, m->new_blk, CHUNK_BLOCKS, true);
	if (!rc && !sabotage_point("chunk-move-own"))
		rc = rmap_add(new_at, m->new_blk, CHUNK_BLOCKS, move_owner(m), m->lchunk);
	/* Other units may have been taken from the table meanwhile: the same image. */
	if (!rc)
		rc = meta_slot_edit(at, m->slot, &entry);
	return rc ? rc : entry_set(tx, m, entry);
}

/* A wholly free chunk, as refill.c chooses one. */
static bool new_grab(struct chunk_move *m, const struct m_chunk *entry)
{
	struct space *space = m->space;
	uint64_t other_blk =
		(uint64_t)le32_get(m->copy ? entry->ck_primary : entry->ck_mirror) * CHUNK_BLOCKS;
	const struct group *other = other_blk && space_range_ok(space, other_blk, CHUNK_BLOCKS) ?
					    &space->groups[pool_blk_ag(space->pool, other_blk)] :
					    NULL;
	uint32_t first = m->copy && other ? other->agno + space->ag_count / 2 : m->g->agno;

	m->new_g = chunk_grab_any(space, first, other, false, m->copy, &m->new_blk);
	if (!m->new_g)
		m->new_g = chunk_grab_any(space, first, other, true, m->copy, &m->new_blk);
	return m->new_g != NULL;
}

/* 1: the copy does not lie there. */
static int move_find(struct txn *tx, void *arg)
{
	struct chunk_move *m = arg;
	const struct m_chunk *entry;
	struct group_tx *at;
	int rc = group_enter(tx, m->g->agno, &at);

	if (!rc)
		rc = meta_slot_get(at, m->slot, &entry);
	if (rc)
		return rc;
	if (le32_get(m->copy ? entry->ck_mirror : entry->ck_primary) != m->old_blk / CHUNK_BLOCKS)
		return 1;
	return new_grab(m, entry) ? 0 : -ENOSPC;
}

int space_chunk_move(struct pool *pool, uint64_t blk, uint64_t lchunk, unsigned copy, bool bad,
		     struct chunk_bad *found)
{
	struct space *space = space_of(pool);
	struct chunk_move m = {
		.space = space, .lchunk = lchunk, .old_blk = blk, .copy = copy, .bad = bad, .found = found
	};
	uint64_t agno = lchunk / space->ag_chunks;
	unsigned tries = 0;
	int rc;

	*found = (struct chunk_bad){ 0 };
	m.slot = (uint32_t)(lchunk % space->ag_chunks);
	if (agno >= space->ag_count || m.slot == 0 || !space_range_ok(space, blk, CHUNK_BLOCKS) ||
	    blk % CHUNK_BLOCKS)
		return -EUCLEAN;
	m.g = &space->groups[agno];
	m.old_g = &space->groups[pool_blk_ag(pool, blk)];
	pool_freeze(pool);
	do {
		m.begun = false;
		rc = txn_run(pool, TXN_READ, move_find, &m);
		if (!rc)
			rc = txn_run(pool, TXN_FREEING, move_step, &m);
	} while (rc == -EAGAIN && ++tries < POOL_GUARD_TRIES);
	pool_thaw(pool);
	return rc == -EAGAIN || rc == -EDEADLK || rc == -ENOBUFS ? -EIO : rc;
}
