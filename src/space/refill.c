/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Metadata chunks come and go, each in a transaction of its own with no other lock held.
 *
 * A chunk and its mirror are wholly free chunks: the primary in the group that needs units, the mirror in another group if there is one.
 * Each has one rmap record and all its bits in the bitmap set. Its units can be used by transactions that begin after this one.
 *
 * Ordinary needs leave the reserve alone (index.keep chunks of each group); when transactions that free have used up their
 * own units too, the reserve is opened.
 */
#include <errno.h>
#include <string.h>

#include "space/priv.h"

/* Units that a group has to have left over when it gives a chunk back. */
#define TRIM_SPARE 256u

/* Wholly free chunks that a refill may use. */
static uint32_t chunks_available(struct group *g, bool reserve)
{
	uint32_t n;

	pthread_mutex_lock(&g->lock);
	n = reserve ? g->index.whole_count : index_budget(&g->index);
	pthread_mutex_unlock(&g->lock);
	return n;
}

static uint32_t chunks_needed(const struct space *space)
{
	return space->mirrored && space->ag_count == 1 ? 2 : 1;
}

static bool mirror_possible(struct group *g, bool reserve)
{
	struct space *space = g->space;

	if (!space->mirrored || space->ag_count == 1)
		return true;
	for (uint32_t i = 0; i < space->ag_count; i++) {
		struct group *other = &space->groups[i];

		if (other != g && (other->loaded != GROUP_LOADED || chunks_available(other, reserve) > 0))
			return true;
	}
	return false;
}

bool refill_possible(struct group *g, bool reserve)
{
	struct space *space = g->space;

	if (g->refill_failed_at == space->chunk_epoch + 1 || g->meta_chunks >= space->ag_chunks)
		return false;
	if (space->windows.free_blk >= CHUNK_BLOCKS)
		return true; /* they can be taken back: worth a try */
	return chunks_available(g, reserve) >= chunks_needed(space) && mirror_possible(g, reserve);
}

/* Takes a wholly free chunk; 0: none. */
static uint64_t chunk_grab(struct group *g, bool reserve, bool highest)
{
	uint64_t chunk = INDEX_NONE, blk = 0;

	pthread_mutex_lock(&g->lock);
	if (reserve || index_budget(&g->index) > 0)
		chunk = index_whole_chunk(&g->index, highest);
	if (chunk != INDEX_NONE) {
		index_take(&g->index, chunk * CHUNK_BLOCKS, CHUNK_BLOCKS);
		blk = g->start_blk + chunk * CHUNK_BLOCKS;
	}
	pthread_mutex_unlock(&g->lock);
	return blk;
}

struct chunk_pair {
	struct group *g, *mirror_g; /* mirror_g NULL: no mirror */
	uint64_t blk, mirror_blk;
	uint32_t slot;
};

static bool pair_grab(struct chunk_pair *pair, bool reserve)
{
	struct space *space = pair->g->space;

	pair->mirror_g = NULL;
	pair->mirror_blk = 0;
	pair->blk = chunk_grab(pair->g, reserve, false);
	if (pair->blk == 0 || !space->mirrored)
		return pair->blk != 0;
	for (uint32_t i = 0; i < space->ag_count && pair->mirror_blk == 0; i++) {
		pair->mirror_g = &space->groups[(pair->g->agno + space->ag_count / 2 + i) % space->ag_count];
		if (pair->mirror_g == pair->g && space->ag_count > 1)
			continue;
		if (group_load(pair->mirror_g) == 0)
			pair->mirror_blk = chunk_grab(pair->mirror_g, reserve, true);
	}
	if (pair->mirror_blk == 0)
		group_give(pair->g, pair->blk, CHUNK_BLOCKS);
	return pair->mirror_blk != 0;
}

/* Locks the groups of a pair in order. */
static int pair_enter(struct txn *tx, const struct chunk_pair *pair, struct group_tx **at, struct group_tx **mirror_at)
{
	struct group_tx *low;
	uint32_t agno = pair->g->agno, mirror_agno = pair->mirror_g ? pair->mirror_g->agno : agno;
	int rc = group_enter(tx, agno < mirror_agno ? agno : mirror_agno, &low);

	if (!rc)
		rc = group_enter(tx, agno, at);
	if (!rc)
		rc = group_enter(tx, mirror_agno, mirror_at);
	if (rc)
		return rc;
	(*at)->refill = (*mirror_at)->refill = true;
	return 0;
}

struct chunk_hook {
	struct pool *pool;
	uint64_t lchunk;
	uint32_t primary, mirror;
};

static void chunk_hook_end(void *arg, bool committed)
{
	const struct chunk_hook *hook = arg;

	if (committed)
		pool_chunk_set(hook->pool, hook->lchunk, hook->primary, hook->mirror);
}

static void chunk_hook_add(struct txn *tx, uint64_t lchunk, uint64_t blk, uint64_t mirror_blk)
{
	struct chunk_hook *hook = txn_alloc(tx, sizeof(*hook));

	*hook = (struct chunk_hook){
		.pool = txn_pool(tx),
		.lchunk = lchunk,
		.primary = (uint32_t)(blk / CHUNK_BLOCKS),
		.mirror = (uint32_t)(mirror_blk / CHUNK_BLOCKS),
	};
	txn_on_end(tx, chunk_hook_end, hook);
}

static int chunk_own(struct group_tx *at, uint64_t blk, uint64_t owner, uint64_t lchunk)
{
	int rc = bitmap_change(at, blk, CHUNK_BLOCKS, true);

	return rc ? rc : rmap_add(at, blk, CHUNK_BLOCKS, owner, lchunk);
}

static int slot_make(struct group_tx *at, const struct chunk_pair *pair)
{
	struct m_chunk *entry;
	int rc = meta_slot_edit(at, pair->slot, &entry);

	if (rc)
		return rc;
	if (le32_get(entry->ck_primary) != 0)
		return -EUCLEAN;
	memset(entry, 0, sizeof(*entry));
	entry->ck_primary = le32_of((uint32_t)(pair->blk / CHUNK_BLOCKS));
	entry->ck_mirror = le32_of((uint32_t)(pair->mirror_blk / CHUNK_BLOCKS));
	meta_slot_set(at, pair->slot, CHUNK_BLOCKS);
	at->now.meta_chunks++;
	at->now.meta_free += CHUNK_BLOCKS;
	return group_counts_put(at);
}

/* Makes a pair of grabbed chunks a metadata chunk of the group. */
static int chunk_make(struct chunk_pair *pair)
{
	struct group *g = pair->g;
	struct txn *tx = txn_begin(g->space->pool, TXN_FREEING);
	struct group_tx *at, *mirror_at;
	uint64_t lchunk;
	int rc;

	grab_add(tx, g, pair->blk, CHUNK_BLOCKS, NULL);
	if (pair->mirror_g)
		grab_add(tx, pair->mirror_g, pair->mirror_blk, CHUNK_BLOCKS, NULL);
	rc = pair_enter(tx, pair, &at, &mirror_at);
	if (rc)
		goto out_abort;
	for (pair->slot = 0; pair->slot < g->slot_end && g->units_free[pair->slot] != SLOT_ABSENT;)
		pair->slot++;
	rc = -ENOSPC;
	if (pair->slot >= g->space->ag_chunks)
		goto out_abort;
	lchunk = slot_laddr(g, pair->slot, 0) >> CHUNK_SHIFT;
	rc = chunk_own(at, pair->blk, OWNER_META, lchunk);
	if (!rc && pair->mirror_g)
		rc = chunk_own(mirror_at, pair->mirror_blk, OWNER_MIRROR, lchunk);
	/* Last, so that no node of this transaction is put into a chunk that has no place yet. */
	if (!rc)
		rc = slot_make(at, pair);
	if (rc)
		goto out_abort;
	chunk_hook_add(tx, lchunk, pair->blk, pair->mirror_blk);
	return txn_commit(tx);
out_abort:
	txn_abort(tx);
	return rc;
}

static int group_refill(struct group *g)
{
	struct chunk_pair pair = { .g = g };
	bool got;
	int rc = group_load(g);

	if (rc)
		return rc;
	do {
		got = pair_grab(&pair, false);
	} while (!got && window_steal(g->space));
	if (!got && g->meta_free < UNITS_CRITICAL + 8)
		got = pair_grab(&pair, true);
	return got ? chunk_make(&pair) : -ENOSPC;
}

/* Whether ordinary transactions find units somewhere. */
static bool any_units(struct space *space)
{
	for (uint32_t i = 0; i < space->ag_count; i++) {
		struct group *g = &space->groups[i];

		if (group_load(g) == 0 && (g->meta_free >= group_units_keep(g, UNITS_KEEP_INODES) + 8 ||
					   refill_possible(g, false)))
			return true;
	}
	return false;
}

int space_refill(struct pool *pool)
{
	struct space *space = space_of(pool);
	unsigned made = 0, failed = 0;

	pthread_mutex_lock(&space->refill_lock);
	for (uint32_t i = 0; i < space->ag_count; i++) {
		struct group *g = &space->groups[i];

		if (!atomic_exchange(&g->refill_wanted, false))
			continue;
		if (group_refill(g) == 0) {
			made++;
		} else {
			g->refill_failed_at = space->chunk_epoch + 1;
			failed++;
		}
	}
	pthread_mutex_unlock(&space->refill_lock);
	return failed > 0 && made == 0 && !any_units(space) ? -ENOSPC : 0;
}

/* ---- giving chunks back ---- */

static bool group_may_trim(struct group *g)
{
	return g->loaded == GROUP_LOADED && g->empty_slots > 0 &&
	       g->meta_free >= CHUNK_BLOCKS + TRIM_SPARE + group_units_keep(g, UNITS_KEEP_INODES);
}

/* A chunk of the group that is not used at all, and its places. -ENOENT: none. */
static int pair_find(struct group *g, struct chunk_pair *pair)
{
	struct space *space = g->space;
	struct txn *tx = txn_begin(space->pool, TXN_READ);
	const struct m_chunk *entry;
	struct group_tx *at;
	int rc = group_enter(tx, g->agno, &at);

	if (rc)
		goto out;
	for (pair->slot = g->slot_end; pair->slot > 1 && g->units_free[pair->slot - 1] != CHUNK_BLOCKS;)
		pair->slot--;
	rc = pair->slot > 1 ? meta_slot_get(at, --pair->slot, &entry) : -ENOENT;
	if (rc)
		goto out;
	pair->g = g;
	pair->blk = (uint64_t)le32_get(entry->ck_primary) * CHUNK_BLOCKS;
	pair->mirror_blk = (uint64_t)le32_get(entry->ck_mirror) * CHUNK_BLOCKS;
	pair->mirror_g = NULL;
	if (!space_range_ok(space, pair->blk, CHUNK_BLOCKS) || pair->blk < g->start_blk ||
	    pair->blk >= g->start_blk + g->length_blk)
		rc = -EUCLEAN;
	else if (pair->mirror_blk != 0 && space_range_ok(space, pair->mirror_blk, CHUNK_BLOCKS))
		pair->mirror_g = &space->groups[pool_blk_ag(space->pool, pair->mirror_blk)];
	else if (pair->mirror_blk != 0)
		rc = -EUCLEAN;
out:
	txn_abort(tx);
	return rc;
}

/* Whether a unit of the chunk lies elsewhere: then it stays. */
static int chunk_is_remapped(struct group_tx *at, uint32_t slot, bool *remapped)
{
	uint64_t first = slot_laddr(at->g, slot, 0);
	const struct m_remaps *m;
	const void *unit;
	int rc = txn_get(at->tx, slot_laddr(at->g, 0, AG_UNIT_REMAP), MAGIC_REMAP, &unit);

	if (rc)
		return rc;
	m = unit;
	*remapped = false;
	for (uint32_t i = 0; i < le32_get(m->rl_count) && i < REMAPS_PER_UNIT; i++) {
		uint64_t laddr = le64_get(m->rl_entries[i].rp_laddr);

		*remapped |= laddr >= first && laddr - first < CHUNK_SIZE;
	}
	return 0;
}

static int chunk_disown(struct group_tx *at, uint64_t blk, uint64_t owner, uint64_t lchunk)
{
	int rc = rmap_remove(at, blk, CHUNK_BLOCKS, owner, lchunk, blk);

	if (!rc)
		rc = bitmap_change(at, blk, CHUNK_BLOCKS, false);
	if (!rc)
		group_free_later(at, blk, CHUNK_BLOCKS);
	return rc;
}

static int chunk_unmake(const struct chunk_pair *pair)
{
	struct group *g = pair->g;
	uint64_t lchunk = slot_laddr(g, pair->slot, 0) >> CHUNK_SHIFT;
	struct txn *tx = txn_begin(g->space->pool, TXN_FREEING);
	struct group_tx *at, *mirror_at;
	struct m_chunk *entry;
	bool remapped = true;
	int rc = pair_enter(tx, pair, &at, &mirror_at);

	if (!rc)
		rc = meta_slot_edit(at, pair->slot, &entry);
	if (!rc)
		rc = chunk_is_remapped(at, pair->slot, &remapped);
	if (rc)
		goto out_abort;
	rc = -EAGAIN;
	if (remapped || g->units_free[pair->slot] != CHUNK_BLOCKS ||
	    le32_get(entry->ck_primary) != pair->blk / CHUNK_BLOCKS)
		goto out_abort;
	memset(entry, 0, sizeof(*entry));
	meta_slot_set(at, pair->slot, SLOT_ABSENT);
	at->now.meta_chunks--;
	at->now.meta_free -= CHUNK_BLOCKS;
	rc = chunk_disown(at, pair->blk, OWNER_META, lchunk);
	if (!rc && pair->mirror_g)
		rc = chunk_disown(mirror_at, pair->mirror_blk, OWNER_MIRROR, lchunk);
	if (rc)
		goto out_abort;
	chunk_hook_add(tx, lchunk, 0, 0);
	return txn_commit(tx);
out_abort:
	txn_abort(tx);
	return rc;
}

int space_trim(struct pool *pool)
{
	struct space *space = space_of(pool);
	int given = 0, rc = 0;

	pthread_mutex_lock(&space->refill_lock);
	for (uint32_t i = 0; i < space->ag_count; i++) {
		struct group *g = &space->groups[i];
		struct chunk_pair pair;

		rc = 0;
		while (!rc && group_may_trim(g)) {
			rc = pair_find(g, &pair);
			if (!rc)
				rc = chunk_unmake(&pair);
			given += rc == 0;
		}
	}
	pthread_mutex_unlock(&space->refill_lock);
	return given > 0 || rc == -EAGAIN || rc == -ENOENT ? given : rc;
}
