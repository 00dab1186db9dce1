/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Single units that no longer lie where the chunk table says, since the memory there is bad.
 *
 * The entries of all groups that are loaded, and those of the superblock, are one list in DRAM. Key units (pool.h) can only be in the
 * superblock's, as they are what a group's own list is found by: that one is changed at once and by hand, the others in transactions.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "txn/internal.h"
#include "util/log.h"

#define BLOCK_LINES (BLOCK_SIZE / LINE_SIZE)

bool pool_unit_is_key(const struct pool *pool, uint64_t laddr)
{
	uint64_t slot = (laddr >> CHUNK_SHIFT) % pool->ag_chunks,
		 unit = (laddr >> BLOCK_SHIFT) % CHUNK_BLOCKS;

	return slot == 0 &&
	       (unit == AG_UNIT_HEADER || unit == AG_UNIT_REMAP ||
		(unit >= AG_UNIT_TABLE && unit < AG_UNIT_TABLE + ag_table_units(pool->ag_chunks)));
}

/* ---- the list in DRAM ---- */

static int remap_compare(const void *a, const void *b)
{
	const struct remap *ra = a, *rb = b;

	if (ra->laddr != rb->laddr)
		return ra->laddr < rb->laddr ? -1 : 1;
	return ra->copy < rb->copy ? -1 : ra->copy > rb->copy;
}

static struct remap *entry_find(struct pool *pool, uint64_t unit_laddr, unsigned copy)
{
	struct remap key = { .laddr = unit_laddr, .copy = copy };

	return bsearch(&key, pool->remaps, pool->remap_count, sizeof(key), remap_compare);
}

uint64_t remap_find(struct pool *pool, uint64_t unit_laddr, unsigned copy)
{
	const struct remap *found;
	uint64_t blk;

	pthread_rwlock_rdlock(&pool->remap_lock);
	found = entry_find(pool, unit_laddr, copy);
	blk = found ? found->place_blk : 0;
	pthread_rwlock_unlock(&pool->remap_lock);
	return blk;
}

/* So many more, and one that a commit adds. Under remap_lock. */
static int room_make(struct pool *pool, uint32_t more)
{
	uint32_t sum = pool->remap_count + more + 1;
	struct remap *all;

	if (sum <= pool->remap_room)
		return 0;
	all = realloc(pool->remaps, sum * sizeof(*all));
	if (!all)
		return -ENOMEM;
	pool->remaps = all;
	pool->remap_room = sum;
	return 0;
}

/* One more; there is room. */
static void entry_add(struct pool *pool, const struct remap *remap)
{
	pool->remaps[pool->remap_count] = *remap;
	pool->remap_count++;
	qsort(pool->remaps, pool->remap_count, sizeof(*remap), remap_compare);
}

int remaps_add(struct pool *pool, const struct remap *add, uint32_t count)
{
	int rc;

	pthread_rwlock_wrlock(&pool->remap_lock);
	rc = room_make(pool, count);
	for (uint32_t i = 0; i < count && !rc; i++)
		entry_add(pool, &add[i]);
	pthread_rwlock_unlock(&pool->remap_lock);
	return rc;
}

void remap_put(struct pool *pool, const struct remap *remap)
{
	struct remap *entry;

	if (sabotage_point("remap-put"))
		return;
	pthread_rwlock_wrlock(&pool->remap_lock);
	entry = entry_find(pool, remap->laddr, remap->copy);
	if (entry) {
		*entry = *remap;
	} else {
		assert(pool->remap_count < pool->remap_room);
		entry_add(pool, remap);
	}
	pthread_rwlock_unlock(&pool->remap_lock);
	unit_set_verified(pool, remap->laddr, BLOCK_SIZE, false);
}

/* Whether it is about one of them. */
static bool is_dropped(const struct remap_dropped *d, uint64_t laddr, unsigned copy)
{
	uint64_t unit = (laddr >> BLOCK_SHIFT) % CHUNK_BLOCKS;

	return copy == d->copy && laddr >> CHUNK_SHIFT == d->lchunk && d->units[unit / 64] >> unit % 64 & 1;
}

void remaps_forget(struct pool *pool, const struct remap_dropped *dropped)
{
	uint32_t kept = 0;

	pthread_rwlock_wrlock(&pool->remap_lock);
	for (uint32_t i = 0; i < pool->remap_count; i++)
		if (!is_dropped(dropped, pool->remaps[i].laddr, pool->remaps[i].copy))
			pool->remaps[kept++] = pool->remaps[i];
	pool->remap_count = kept;
	pthread_rwlock_unlock(&pool->remap_lock);
	unit_set_verified(pool, dropped->lchunk << CHUNK_SHIFT, CHUNK_SIZE, false);
}

static int room_keep(struct pool *pool)
{
	int rc;

	pthread_rwlock_wrlock(&pool->remap_lock);
	rc = room_make(pool, 0);
	pthread_rwlock_unlock(&pool->remap_lock);
	return rc;
}

/* ---- the list of a group ---- */

static int list_put(struct m_remaps *m, const struct remap *remap)
{
	const struct m_remap entry = {
		.rp_laddr = le64_of(remap->laddr),
		.rp_place_blk = le64_of(remap->place_blk),
		.rp_copy = le32_of(remap->copy),
	};
	uint32_t count = le32_get(m->rl_count), at = 0;

	for (; at < count; at++) {
		struct remap have = { .laddr = le64_get(m->rl_entries[at].rp_laddr),
				      .copy = le32_get(m->rl_entries[at].rp_copy) };
		int order = remap_compare(&have, remap);

		if (order > 0)
			break;
		if (order == 0) {
			m->rl_entries[at] = entry;
			return 0;
		}
	}
	if (count == REMAPS_PER_UNIT)
		return -ENOSPC;
	memmove(&m->rl_entries[at + 1], &m->rl_entries[at], (count - at) * sizeof(entry));
	m->rl_entries[at] = entry;
	m->rl_count = le32_of(count + 1);
	return 0;
}

int txn_remap(struct txn *tx, const struct remap *remap)
{
	struct pool *pool = tx->pool;
	uint32_t agno = pool_laddr_ag(pool, remap->laddr);
	struct remap *mine;
	void *unit;
	int rc = txn_lock_ag(tx, agno);

	assert(!tx->remap && !pool_unit_is_key(pool, remap->laddr));
	if (!rc)
		rc = txn_edit(tx, pool_ag_unit(pool, agno, AG_UNIT_REMAP), MAGIC_REMAP, &unit);
	if (!rc)
		rc = room_keep(pool);
	if (!rc && !sabotage_point("remap-list"))
		rc = list_put(unit, remap);
	if (rc)
		return rc;
	mine = txn_alloc(tx, sizeof(*mine));
	*mine = *remap;
	tx->remap = mine;
	return 0;
}

int txn_remap_drop(struct txn *tx, uint64_t lchunk, unsigned copy, const uint64_t units[CHUNK_BLOCKS / 64])
{
	struct pool *pool = tx->pool;
	uint32_t agno = pool_laddr_ag(pool, lchunk << CHUNK_SHIFT), kept = 0;
	struct remap_dropped *mine;
	struct m_remaps *list;
	void *unit;
	int rc = txn_lock_ag(tx, agno);

	assert(!tx->dropped);
	if (!rc)
		rc = txn_edit(tx, pool_ag_unit(pool, agno, AG_UNIT_REMAP), MAGIC_REMAP, &unit);
	if (rc)
		return rc;
	mine = txn_alloc(tx, sizeof(*mine));
	*mine = (struct remap_dropped){ .lchunk = lchunk, .copy = copy };
	memcpy(mine->units, units, sizeof(mine->units));
	tx->dropped = mine;
	if (sabotage_point("remap-drop"))
		return 0;
	list = unit;
	for (uint32_t i = 0; i < le32_get(list->rl_count); i++) {
		const struct m_remap *entry = &list->rl_entries[i];

		if (!is_dropped(mine, le64_get(entry->rp_laddr), le32_get(entry->rp_copy)))
			list->rl_entries[kept++] = *entry;
	}
	memset(&list->rl_entries[kept], 0, (le32_get(list->rl_count) - kept) * sizeof(list->rl_entries[0]));
	list->rl_count = le32_of(kept);
	return 0;
}

/* ---- the list of the superblock ---- */

/* Under super_mutex. */
static int super_put(struct super *s, const struct remap *remap)
{
	for (uint32_t i = 0; i < s->remap_count; i++) {
		if (remap_compare(&s->remaps[i], remap) == 0) {
			s->remaps[i] = *remap;
			return 0;
		}
	}
	if (s->remap_count == SUPER_REMAPS_MAX)
		return -ENOSPC;
	s->remaps[s->remap_count++] = *remap;
	return 0;
}

int pool_remap_super(struct pool *pool, const struct remap *remap)
{
	int rc = room_keep(pool);

	if (rc)
		return rc;
	pthread_mutex_lock(&pool->super_mutex);
	rc = super_put(&pool->super, remap);
	pthread_mutex_unlock(&pool->super_mutex);
	if (rc)
		return rc;
	rc = super_store(pool);
	if (rc) /* which of both lists the next mount finds is not known */
		pool_fail(pool, "the superblock cannot be written");
	else
		remap_put(pool, remap);
	return rc;
}

bool pool_super_has(struct pool *pool, const struct remap *remap)
{
	const struct super *s = &pool->super;
	bool has = false;

	pthread_mutex_lock(&pool->super_mutex);
	for (uint32_t i = 0; i < s->remap_count && !has; i++)
		has = remap_compare(&s->remaps[i], remap) == 0 && s->remaps[i].place_blk == remap->place_blk;
	pthread_mutex_unlock(&pool->super_mutex);
	return has;
}

/* ---- what a copy should hold ---- */

/* Whether a unit that was put together of both copies is none: what has never been one is not asked. */
static bool merge_is_torn(struct pool *pool, uint64_t laddr, const uint8_t *unit, size_t size)
{
	const struct m_unit_hdr *hdr = (const void *)unit;

	return unit_size(le32_get(hdr->uh_magic)) == size && le64_get(hdr->uh_laddr) == laddr &&
	       unit_check_header(unit, size, 0, laddr, &pool->super.uuid);
}

/* Lines of one copy that are lost, from the other one: all of them, and they have to fit. */
static int lines_merge(struct pool *pool, uint64_t laddr, uint8_t *bytes, uint64_t bad, const uint8_t *other,
		       uint64_t other_bad)
{
	if (bad & other_bad)
		return -EIO;
	for (unsigned i = 0; i < BLOCK_LINES; i++) {
		if (bad >> i & 1)
			memcpy(bytes + i * LINE_SIZE, other + i * LINE_SIZE, LINE_SIZE);
	}
	for (size_t at = 0; at < BLOCK_SIZE; at += INODE_SIZE) {
		if (merge_is_torn(pool, laddr + at, bytes + at, INODE_SIZE))
			return -EIO;
	}
	return merge_is_torn(pool, laddr, bytes, BLOCK_SIZE) ? -EIO : 0;
}

int pool_unit_save(struct pool *pool, uint64_t laddr, unsigned copy, void *bytes)
{
	_Alignas(64) uint8_t other[BLOCK_SIZE];
	uint64_t off, other_off, bad, other_bad = UINT64_MAX;
	int rc = pool_place(pool, laddr, copy, &off);

	if (!rc)
		rc = dax_salvage(pool->dax, off, bytes, &bad);
	if (rc || bad == 0)
		return rc;
	if (pool_place(pool, laddr, 1 - copy, &other_off) == 0)
		rc = dax_salvage(pool->dax, other_off, other, &other_bad);
	if (rc)
		return rc;
	if (other_bad != 0)
		return lines_merge(pool, laddr, bytes, bad, other, other_bad);
	memcpy(bytes, other, BLOCK_SIZE);
	return 0;
}

int pool_unit_rewrite(struct pool *pool, uint64_t laddr, unsigned copy, const void *bytes)
{
	_Alignas(64) uint8_t back[BLOCK_SIZE];
	uint64_t off;
	int rc = pool_place(pool, laddr, copy, &off);

	if (!rc)
		rc = dax_store(pool->dax, off, bytes, BLOCK_SIZE);
	if (!rc)
		rc = dax_fence(pool->dax);
	if (!rc)
		rc = dax_load(pool->dax, back, off, BLOCK_SIZE, NULL);
	if (!rc)
		rc = memcmp(back, bytes, BLOCK_SIZE) == 0 ? 0 : -EIO;
	unit_set_verified(pool, laddr, BLOCK_SIZE, false);
	return rc;
}
