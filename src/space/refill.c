/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Metadata chunks come and go, each in a transaction of its own with no other lock held.
 *
 * A chunk and its mirror are wholly free chunks: the primary in the group that needs units, or in another if data fills that one (its trees
 * must be able to grow even then: a write to a clone elsewhere may split its records); the mirror far away, in another group if it can be.
 * Each has one rmap record and all its bits in the bitmap set. Its units can be used by transactions that begin after this one.
 *
 * Ordinary needs leave the reserve alone (index.keep chunks of each group); when transactions that free have used up their
 * own units too, the reserve is opened.
 */
#include <errno.h>
#include <string.h>

#include "space/priv.h"
#include "util/sabotage.h"

/* Units that a group has to have left over when it gives a chunk back. */
#define TRIM_SPARE 256u

/* Wholly free chunks of a group that a refill may use. */
static uint32_t chunks_available(struct group *g, bool reserve)
{
	uint32_t n;

	if (g->loaded != GROUP_LOADED)
		return 2; /* not looked at yet: worth a try */
	pthread_mutex_lock(&g->lock);
	n = reserve ? g->index.whole_count : index_budget(&g->index);
	pthread_mutex_unlock(&g->lock);
	return n;
}

bool refill_possible(struct group *g, bool reserve)
{
	struct space *space = g->space;
	uint32_t available = 0, needed = space->mirrored ? 2 : 1;

	if (g->refill_failed_at == space->chunk_epoch + 1 || g->meta_chunks >= space->ag_chunks)
		return false;
	if (space->windows.free_blk >= CHUNK_BLOCKS)
		return true; /* they can be taken back: worth a try */
	for (uint32_t i = 0; i < space->ag_count && available < needed; i++)
		available += chunks_available(&space->groups[(g->agno + i) % space->ag_count], reserve);
	return available >= needed;
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

/* A metadata chunk of group g and the groups in which its copies lie. */
struct chunk_pair {
	struct group *g, *primary_g, *mirror_g; /* mirror_g NULL: no mirror */
	uint64_t blk, mirror_blk;
	uint32_t slot;
	bool begun; /* the transaction gives the chunks back */
};

struct group *chunk_grab_any(struct space *space, uint32_t first, const struct group *last, bool reserve,
			     bool highest, uint64_t *blk)
{
	for (uint32_t i = 0; i <= space->ag_count; i++) {
		struct group *g = &space->groups[(first + i) % space->ag_count];

		if (i == space->ag_count && !last)
			break;
		if (i == space->ag_count)
			g = &space->groups[last->agno];
		else if (g == last)
			continue;
		if (group_load(g) != 0)
			continue;
		*blk = chunk_grab(g, reserve, highest);
		if (*blk != 0)
			return g;
	}
	return NULL;
}

static bool pair_grab(struct chunk_pair *pair, bool reserve)
{
	struct space *space = pair->g->space;

	pair->mirror_g = NULL;
	pair->mirror_blk = 0;
	pair->primary_g = chunk_grab_any(space, pair->g->agno, NULL, reserve, false, &pair->blk);
	if (!pair->primary_g || !space->mirrored)
		return pair->primary_g != NULL;
	pair->mirror_g = chunk_grab_any(space, pair->primary_g->agno + space->ag_count / 2, pair->primary_g,
					reserve, true, &pair->mirror_blk);
	if (!pair->mirror_g)
		group_give(pair->primary_g, pair->blk, CHUNK_BLOCKS);
	return pair->mirror_g != NULL;
}

/* What a transaction has of the three groups; some may be the same. */
struct pair_tx {
	struct group_tx *at, *primary, *mirror;
};

/* Locks the groups of a pair in order. */
static int pair_enter(struct txn *tx, const struct chunk_pair *pair, struct pair_tx *ptx)
{
	struct space *space = pair->g->space;
	struct group_tx *at;
	int rc = 0;

	for (uint32_t i = 0; i < space->ag_count && !rc; i++) {
		struct group *g = &space->groups[i];

		if (g != pair->g && g != pair->primary_g && g != pair->mirror_g)
			continue;
		rc = group_enter(tx, i, &at);
		if (rc)
			return rc;
		at->refill = true;
		if (g == pair->g)
			ptx->at = at;
		if (g == pair->primary_g)
			ptx->primary = at;
		if (g == pair->mirror_g)
			ptx->mirror = at;
	}
	return rc;
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

/* Makes a pair of grabbed chunks, which are given back when that fails, a metadata chunk of the group. */
static int chunk_make(struct txn *tx, void *arg)
{
	struct chunk_pair *pair = arg;
	struct group *g = pair->g;
	struct pair_tx ptx;
	uint64_t lchunk;
	int rc;

	if (pair->begun)
		return -EAGAIN; /* bad memory was met, and what was grabbed is given back */
	pair->begun = true;
	grab_add(tx, pair->primary_g, pair->blk, CHUNK_BLOCKS, NULL);
	if (pair->mirror_g)
		grab_add(tx, pair->mirror_g, pair->mirror_blk, CHUNK_BLOCKS, NULL);
	rc = pair_enter(tx, pair, &ptx);
	if (rc)
		return rc;
	for (pair->slot = 0; pair->slot < g->slot_end && g->units_free[pair->slot] != SLOT_ABSENT;)
		pair->slot++;
	if (pair->slot >= g->space->ag_chunks)
		return -ENOSPC;
	lchunk = slot_laddr(g, pair->slot, 0) >> CHUNK_SHIFT;
	rc = sabotage_point("chunk-own") ? 0 : chunk_own(ptx.primary, pair->blk, OWNER_META, lchunk);
	if (!rc && pair->mirror_g && !sabotage_point("chunk-own-mirror"))
		rc = chunk_own(ptx.mirror, pair->mirror_blk, OWNER_MIRROR, lchunk);
	/* Last, so that no node of this transaction is put into a chunk that has no place yet. */
	if (!rc)
		rc = slot_make(ptx.at, pair);
	if (!rc)
		chunk_hook_add(tx, lchunk, pair->blk, pair->mirror_blk);
	return rc;
}

static int pair_make(struct chunk_pair *pair)
{
	int rc;

	pair->begun = false;
	rc = txn_run(pair->g->space->pool, TXN_FREEING, chunk_make, pair);
	if (pair->begun)
		return rc;
	group_give(pair->primary_g, pair->blk, CHUNK_BLOCKS);
	if (pair->mirror_g)
		group_give(pair->mirror_g, pair->mirror_blk, CHUNK_BLOCKS);
	return rc;
}

static int group_refill(struct group *g)
{
	struct chunk_pair pair = { .g = g };
	unsigned tries = 0;
	bool got, lent;
	int rc = group_load(g);

	if (rc)
		return rc;
	do {
		do {
			got = pair_grab(&pair, false);
		} while (!got && window_steal(g->space));
		lent = !got && g->meta_free < UNITS_CRITICAL + 8;
		if (lent)
			got = pair_grab(&pair, true);
		rc = got ? pair_make(&pair) : -ENOSPC;
	} while (rc == -EAGAIN && ++tries < POOL_GUARD_TRIES);
	if (!rc && lent) {
		pthread_mutex_lock(&g->lock);
		g->lent++;
		pthread_mutex_unlock(&g->lock);
	}
	return rc;
}

/* Whether ordinary transactions find units somewhere. */
static bool any_units(struct space *space)
{
	for (uint32_t i = 0; i < space->ag_count; i++) {
		struct group *g = &space->groups[i];

		if (group_load(g) == 0 &&
		    (g->meta_free >= group_units_keep(g, UNITS_KEEP_INODES) + 8 || refill_possible(g, false)))
			return true;
	}
	return false;
}

int space_refill(struct pool *pool)
{
	struct space *space = space_of(pool);
	unsigned made = 0, failed = 0;

	/* A chain waits for this lock inside of a transaction. */
	pool_hold(pool);
	pthread_mutex_lock(&space->refill_lock);
	for (uint32_t i = 0; i < space->ag_count; i++) {
		struct group *g = &space->groups[i];
		/* Chunks that come free from here on are worth another try. */
		uint64_t epoch = space->chunk_epoch;

		if (!atomic_exchange(&g->refill_wanted, false))
			continue;
		if (group_refill(g) == 0) {
			made++;
		} else {
			g->refill_failed_at = epoch + 1;
			failed++;
		}
	}
	pthread_mutex_unlock(&space->refill_lock);
	pool_release(pool);
	return failed > 0 && made == 0 && !any_units(space) ? -ENOSPC : 0;
}

/* ---- giving chunks back ---- */

static bool group_may_trim(struct group *g)
{
	return g->loaded == GROUP_LOADED && g->empty_slots > 0 &&
	       g->meta_free >= CHUNK_BLOCKS + TRIM_SPARE + group_units_keep(g, UNITS_KEEP_INODES);
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

/* The last one that is not used at all and may be given back. */
static int slot_find_empty(struct group_tx *at, uint32_t *slot)
{
	struct group *g = at->g;

	for (*slot = g->slot_end; *slot > 1;) {
		bool remapped;
		int rc;

		if (g->units_free[--*slot] != CHUNK_BLOCKS)
			continue;
		rc = chunk_is_remapped(at, *slot, &remapped);
		if (rc || !remapped)
			return rc;
	}
	return -ENOENT;
}

/* A chunk of the group that is not used at all, and its places. -ENOENT: none. */
static int pair_find(struct txn *tx, void *arg)
{
	struct chunk_pair *pair = arg;
	struct group *g = pair->g;
	struct space *space = g->space;
	const struct m_chunk *entry;
	struct group_tx *at;
	int rc = group_enter(tx, g->agno, &at);

	if (rc)
		return rc;
	rc = slot_find_empty(at, &pair->slot);
	if (!rc)
		rc = meta_slot_get(at, pair->slot, &entry);
	if (rc)
		return rc;
	pair->blk = (uint64_t)le32_get(entry->ck_primary) * CHUNK_BLOCKS;
	pair->mirror_blk = (uint64_t)le32_get(entry->ck_mirror) * CHUNK_BLOCKS;
	pair->mirror_g = NULL;
	pair->primary_g = g;
	if (!space_range_ok(space, pair->blk, CHUNK_BLOCKS))
		return -EUCLEAN;
	pair->primary_g = &space->groups[pool_blk_ag(space->pool, pair->blk)];
	if (pair->mirror_blk != 0 && space_range_ok(space, pair->mirror_blk, CHUNK_BLOCKS))
		pair->mirror_g = &space->groups[pool_blk_ag(space->pool, pair->mirror_blk)];
	else if (pair->mirror_blk != 0)
		return -EUCLEAN;
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

/* -EAGAIN: it is in use again. */
static int chunk_unmake(struct txn *tx, void *arg)
{
	const struct chunk_pair *pair = arg;
	struct group *g = pair->g;
	uint64_t lchunk = slot_laddr(g, pair->slot, 0) >> CHUNK_SHIFT;
	struct pair_tx ptx;
	struct m_chunk *entry;
	bool remapped = true;
	int rc = pair_enter(tx, pair, &ptx);

	if (!rc)
		rc = meta_slot_edit(ptx.at, pair->slot, &entry);
	if (!rc)
		rc = chunk_is_remapped(ptx.at, pair->slot, &remapped);
	if (rc)
		return rc;
	if (remapped || g->units_free[pair->slot] != CHUNK_BLOCKS ||
	    le32_get(entry->ck_primary) != pair->blk / CHUNK_BLOCKS)
		return -EAGAIN;
	memset(entry, 0, sizeof(*entry));
	meta_slot_set(ptx.at, pair->slot, SLOT_ABSENT);
	ptx.at->now.meta_chunks--;
	ptx.at->now.meta_free -= CHUNK_BLOCKS;
	rc = group_counts_put(ptx.at);
	if (!rc)
		rc = chunk_disown(ptx.primary, pair->blk, OWNER_META, lchunk);
	if (!rc && pair->mirror_g)
		rc = chunk_disown(ptx.mirror, pair->mirror_blk, OWNER_MIRROR, lchunk);
	if (!rc)
		chunk_hook_add(tx, lchunk, 0, 0);
	return rc;
}

int space_trim(struct pool *pool)
{
	struct space *space = space_of(pool);
	int given = 0, rc = 0;

	pool_hold(pool);
	pthread_mutex_lock(&space->refill_lock);
	for (uint32_t i = 0; i < space->ag_count; i++) {
		struct group *g = &space->groups[i];
		struct chunk_pair pair = { .g = g };

		rc = 0;
		while (!rc && group_may_trim(g)) {
			rc = txn_run(pool, TXN_READ, pair_find, &pair);
			if (!rc)
				rc = txn_run(pool, TXN_FREEING, chunk_unmake, &pair);
			given += rc == 0;
		}
	}
	pthread_mutex_unlock(&space->refill_lock);
	pool_release(pool);
	return given > 0 || rc == -EAGAIN || rc == -ENOENT ? given : rc;
}
