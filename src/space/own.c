/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Owners of blocks come and go: bitmap, refcount tree, rmap tree and counters change together.
 *
 *	bitmap	 = union of the rmap
 *	refcount = how often the rmap names a block, where that is two or more
 */
#include <errno.h>

#include "space/bits.h"
#include "space/priv.h"
#include "util/sabotage.h"

/* Bits of one chunk's line. -EUCLEAN if one of them is already so. */
static int line_change(uint8_t *line, unsigned first, unsigned count, bool owned)
{
	le64 *words = (le64 *)(void *)line;
	unsigned n;

	for (; count > 0; first += n, count -= n) {
		uint64_t mask = bits_mask(first, count, &n), word = le64_get(words[first / 64]);

		if ((word & mask) != (owned ? 0 : mask))
			return -EUCLEAN;
		words[first / 64] = le64_of(word ^ mask);
	}
	return 0;
}

int bitmap_change(struct group_tx *at, uint64_t blk, uint64_t count_blk, bool owned)
{
	struct group *g = at->g;
	uint32_t first_unit = AG_UNIT_TABLE + ag_table_units(g->space->ag_chunks);
	uint64_t left = count_blk, rel = blk - g->start_blk;

	while (left > 0) {
		uint64_t chunk = rel / CHUNK_BLOCKS;
		unsigned first = rel % CHUNK_BLOCKS, n = (unsigned)u64_min(left, CHUNK_BLOCKS - first);
		struct m_bitmap *m;
		void *unit;
		int rc = txn_edit(at->tx,
				  slot_laddr(g, 0, first_unit + (uint32_t)(chunk / BITMAP_CHUNKS_PER_UNIT)),
				  MAGIC_BITMAP, &unit);

		if (rc)
			return rc;
		m = unit;
		if (!sabotage_point(owned ? "bitmap-set" : "bitmap-clear"))
			rc = line_change(m->bm_bits[chunk % BITMAP_CHUNKS_PER_UNIT], first, n, owned);
		if (rc)
			return rc;
		rel += n;
		left -= n;
	}
	at->now.free_blk += owned ? 0 - count_blk : count_blk;
	return group_counts_put(at);
}

/* Calls fn for the part of a range in each group. */
struct piece {
	uint64_t blk, count_blk, owner, offset_blk;
	uint64_t other; /* extent_blk or new offset */
};

static int for_groups(struct txn *tx, const struct piece *all,
		      int (*fn)(struct group_tx *at, const struct piece *p))
{
	struct space *space = space_of(txn_pool(tx));
	struct piece p = *all;
	uint64_t left = all->count_blk;
	int rc = 0;

	if (!space_range_ok(space, all->blk, all->count_blk))
		return -EUCLEAN;
	while (left > 0 && !rc) {
		struct group_tx *at;

		rc = group_enter(tx, pool_blk_ag(space->pool, p.blk), &at);
		if (rc)
			return rc;
		p.count_blk = u64_min(left, at->g->start_blk + at->g->length_blk - p.blk);
		rc = fn(at, &p);
		p.blk += p.count_blk;
		p.offset_blk += p.count_blk;
		left -= p.count_blk;
	}
	return rc;
}

static int own_piece(struct group_tx *at, const struct piece *p)
{
	struct group *g = at->g;
	uint64_t lo = p->blk - g->start_blk;
	bool taken, kept;
	int rc;

	pthread_mutex_lock(&g->lock);
	taken = index_is_taken(&g->index, lo, p->count_blk);
	kept = kept_any(g, lo, lo + p->count_blk);
	pthread_mutex_unlock(&g->lock);
	assert(taken); /* they come from space_alloc */
	if (kept)
		kept_owned(at, p->blk, p->count_blk);
	rc = bitmap_change(at, p->blk, p->count_blk, true);
	if (sabotage_point("rmap-own"))
		return rc;
	return rc ? rc : rmap_add(at, p->blk, p->count_blk, p->owner, p->offset_blk);
}

int space_own(struct txn *tx, uint64_t blk, uint64_t count_blk, uint64_t owner, uint64_t offset_blk)
{
	struct piece p = { .blk = blk, .count_blk = count_blk, .owner = owner, .offset_blk = offset_blk };

	return for_groups(tx, &p, own_piece);
}

static int share_piece(struct group_tx *at, const struct piece *p)
{
	int rc = sabotage_point("refcount-share") ? 0 : refcount_add(at, p->blk, p->count_blk);

	if (sabotage_point("rmap-share"))
		return rc;
	return rc ? rc : rmap_add_shared(at, p->blk, p->count_blk, p->owner, p->offset_blk);
}

int space_share(struct txn *tx, uint64_t blk, uint64_t count_blk, uint64_t owner, uint64_t offset_blk)
{
	struct piece p = { .blk = blk, .count_blk = count_blk, .owner = owner, .offset_blk = offset_blk };

	return for_groups(tx, &p, share_piece);
}

static int join_piece(struct group_tx *at, const struct piece *p)
{
	int rc = refcount_add(at, p->blk, p->count_blk);

	return rc ? rc : rmap_add(at, p->blk, p->count_blk, p->owner, p->offset_blk);
}

int space_share_join(struct txn *tx, uint64_t blk, uint64_t count_blk, uint64_t owner, uint64_t offset_blk)
{
	struct piece p = { .blk = blk, .count_blk = count_blk, .owner = owner, .offset_blk = offset_blk };

	return for_groups(tx, &p, join_piece);
}

static int blocks_gone(struct group_tx *at, uint64_t blk, uint64_t count_blk)
{
	int rc = bitmap_change(at, blk, count_blk, false);

	if (!rc)
		group_free_later(at, blk, count_blk);
	return rc;
}

static int drop_piece(struct group_tx *at, const struct piece *p)
{
	int rc = sabotage_point("rmap-drop") ?
			 0 :
			 rmap_remove(at, p->blk, p->count_blk, p->owner, p->offset_blk, p->other);

	if (sabotage_point("refcount-drop"))
		return rc ? rc : blocks_gone(at, p->blk, p->count_blk);
	return rc ? rc : refcount_drop(at, p->blk, p->count_blk, blocks_gone);
}

int space_drop_piece(struct txn *tx, uint64_t blk, uint64_t count_blk, uint64_t owner, uint64_t offset_blk,
		     uint64_t extent_blk)
{
	struct piece p = { blk, count_blk, owner, offset_blk, extent_blk };

	return for_groups(tx, &p, drop_piece);
}

int space_drop(struct txn *tx, uint64_t blk, uint64_t count_blk, uint64_t owner, uint64_t offset_blk)
{
	return space_drop_piece(tx, blk, count_blk, owner, offset_blk, blk);
}

static int shift_piece(struct group_tx *at, const struct piece *p)
{
	int rc;

	if (sabotage_point("rmap-shift"))
		return 0;
	rc = rmap_remove(at, p->blk, p->count_blk, p->owner, p->offset_blk, p->blk);
	return rc ? rc : rmap_add(at, p->blk, p->count_blk, p->owner, p->offset_blk + p->other);
}

int space_shift(struct txn *tx, uint64_t blk, uint64_t count_blk, uint64_t owner, uint64_t old_offset_blk,
		uint64_t new_offset_blk)
{
	struct piece p = { blk, count_blk, owner, old_offset_blk, new_offset_blk - old_offset_blk };

	return for_groups(tx, &p, shift_piece);
}

int space_refs(struct txn *tx, uint64_t blk, uint64_t count_blk, uint64_t *refs, uint64_t *same_blk)
{
	struct space *space = space_of(txn_pool(tx));
	struct group_tx *at;
	int rc;

	if (!space_range_ok(space, blk, count_blk))
		return -EUCLEAN;
	rc = group_enter(tx, pool_blk_ag(space->pool, blk), &at);
	if (rc)
		return rc;
	count_blk = u64_min(count_blk, at->g->start_blk + at->g->length_blk - blk);
	return refcount_get(at, blk, count_blk, refs, same_blk);
}
