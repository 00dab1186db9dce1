/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Units for new nodes, and metadata chunks for them.
 *
 * What is free is what nobody at all says anything about: neither table nor walk, neither bitmap nor rmap nor extents. Which of
 * these is right does not matter here.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "repair/base.h"

static uint64_t lchunk_of(const struct repair *rp, uint32_t agno, uint32_t slot)
{
	return (uint64_t)agno * rp->facts->ag_chunks + slot;
}

static bool slot_has_place(struct repair *rp, uint64_t lchunk)
{
	uint64_t off;

	return pool_place(rp->pool, lchunk << CHUNK_SHIFT, 0, &off) == 0;
}

/* Whether trees of the group that its node may be a part of are to be put together again. */
static bool group_wants(const struct repair *rp, uint32_t agno, const void *unit)
{
	const struct m_node_body *body = (const void *)((const struct m_node *)unit)->nd_body;
	const struct check_ag *ag = &rp->facts->ags[agno];

	for (unsigned i = 0; i < AG_TREES; i++) {
		if (ag_tree_kind((enum ag_tree)i) == (enum node_kind)body->nb_kind)
			return !ag->header || ag->damage & GROUP_TREE(i);
	}
	return false;
}

/* In use by the table, but nothing leads to it: it may still be what a damaged tree is made of. */
static bool stray_is_needed(struct repair *rp, uint64_t laddr, enum unit_from from)
{
	uint32_t agno = pool_laddr_ag(rp->pool, laddr);
	_Alignas(64) uint8_t buf[BLOCK_SIZE];
	const struct seen_inode *seen;

	if (!repair_unit_read(rp, laddr, MAGIC_NODE, 0, buf) &&
	    !repair_unit_read(rp, laddr, MAGIC_XVAL, 0, buf))
		return false;
	if (unit_owner(buf) == OWNER_AG)
		return unit_magic(buf) == MAGIC_NODE && group_wants(rp, agno, buf);
	if (rp->inodes_are_done)
		return false;
	seen = seen_inode_find(rp->facts, unit_owner(buf));
	if (!seen)
		return from != UNIT_UNNAMED;
	return seen->mode_fmt == 0 || seen->mend & SALVAGE_TREES;
}

static void fresh_add(struct repair *rp, uint64_t laddr)
{
	uint64_t *row = rows_add(rp->facts, &rp->fresh, sizeof(*row));

	if (row)
		*row = laddr;
}

static bool unit_find(struct repair *rp, uint64_t lchunk, enum unit_from from, uint64_t *laddr)
{
	const struct check *ck = rp->facts;

	for (unsigned w = 0; w < CHUNK_UNIT_WORDS; w++) {
		uint64_t taken = rp->taken[lchunk][w] | ck->reached[lchunk][w];
		uint64_t free = ~(taken | ck->used[lchunk][w]);

		if (from != UNIT_FREE)
			free = ~taken & ck->used[lchunk][w];
		for (; free; free &= free - 1) {
			unsigned bit = (unsigned)__builtin_ctzll(free);

			*laddr = (lchunk << CHUNK_SHIFT) + (w * 64u + bit) * (uint64_t)BLOCK_SIZE;
			if (from != UNIT_FREE && stray_is_needed(rp, *laddr, from))
				continue;
			rp->taken[lchunk][w] |= 1ull << bit;
			fresh_add(rp, *laddr);
			return true;
		}
	}
	return false;
}

static bool group_find(struct repair *rp, uint32_t agno, enum unit_from from, uint64_t *laddr)
{
	for (uint32_t *slot = &rp->cursors[agno].slot[from]; *slot < rp->facts->ag_chunks; ++*slot) {
		uint64_t lchunk = lchunk_of(rp, agno, *slot);

		if (slot_has_place(rp, lchunk) && unit_find(rp, lchunk, from, laddr))
			return true;
	}
	return false;
}

/* ---- chunks ---- */

static void busy_set(struct repair *rp, uint64_t blk, uint64_t count_blk)
{
	uint64_t chunks = rp->super->size_blk / CHUNK_BLOCKS;

	if (count_blk == 0 || blk >= rp->super->size_blk)
		return;
	for (uint64_t c = blk / CHUNK_BLOCKS; c <= (blk + count_blk - 1) / CHUNK_BLOCKS && c < chunks; c++)
		rp->busy[c / 64] |= 1ull << c % 64;
}

/* Blocks of owners whose extents are all known are in the facts. A chunk that no table knows may be one that is to be found again. */
static bool rmap_is_news(struct repair *rp, const struct rmap *r)
{
	const struct seen_inode *seen;

	if (r->owner & OWNER_SPECIAL)
		return true;
	seen = seen_inode_find(rp->facts, r->owner);
	return seen ? seen->mode_fmt == 0 || seen->mend & SALVAGE_EXTENTS : !rp->inodes_are_done;
}

static bool busy_rmap(void *arg, const void *rec)
{
	struct repair *rp = arg;
	struct rmap r;

	rmap_decode(&r, rec);
	if (!rp->busy_is_less || rmap_is_news(rp, &r))
		busy_set(rp, r.start_blk, r.count_blk);
	return true;
}

static void busy_bitmap(struct repair *rp, uint32_t agno)
{
	uint32_t chunks = (uint32_t)(super_ag_length_blk(rp->super, agno) / CHUNK_BLOCKS);
	uint32_t first_unit = AG_UNIT_TABLE + ag_table_units(rp->facts->ag_chunks);
	static const uint8_t none[CHUNK_BLOCKS / 8];
	_Alignas(64) struct m_bitmap m;

	for (uint32_t c = 0; c < chunks; c++) {
		if (c % BITMAP_CHUNKS_PER_UNIT == 0 &&
		    !repair_unit_read(rp,
				      pool_ag_unit(rp->pool, agno, first_unit + c / BITMAP_CHUNKS_PER_UNIT),
				      MAGIC_BITMAP, 0, &m))
			memset(&m, 0, sizeof(m));
		if (memcmp(m.bm_bits[c % BITMAP_CHUNKS_PER_UNIT], none, sizeof(none)) != 0)
			busy_set(rp, super_ag_start_blk(rp->super, agno) + (uint64_t)c * CHUNK_BLOCKS, 1);
	}
}

static void busy_group(struct repair *rp, uint32_t agno)
{
	uint64_t start = super_ag_start_blk(rp->super, agno);
	bool incomplete = rp->incomplete;

	busy_set(rp, start + CHUNK_BLOCKS, 1);
	busy_set(rp, start + super_ag_length_blk(rp->super, agno) - 2 * CHUNK_BLOCKS, 1);
	rp->incomplete = false;
	repair_group_each(rp, agno, AG_RMAP, busy_rmap, rp);
	/* All that the bitmap knows it knows from the rmap. */
	if (!rp->busy_is_less || rp->incomplete)
		busy_bitmap(rp, agno);
	rp->incomplete |= incomplete;
}

/*
 * Chunks about which somebody says something. less: without what bitmap and rmap say of owners that are known not to have it, when
 * there is no room otherwise.
 */
static int busy_make(struct repair *rp, bool less)
{
	const struct rmap *owners = rp->facts->owners.data;
	uint64_t chunks = rp->super->size_blk / CHUNK_BLOCKS,
		 lane_blk = rp->super->lane_size_bytes / BLOCK_SIZE;

	if (rp->busy && rp->busy_is_less >= less)
		return 0;
	free(rp->busy);
	rp->busy_is_less = less;
	rp->busy = calloc(chunks / 64 + 1, sizeof(*rp->busy));
	if (!rp->busy)
		return -ENOMEM;
	busy_set(rp, 0, 1);
	busy_set(rp, rp->super->size_blk - 1, 1);
	for (uint32_t i = 0; i < rp->super->lane_count; i++) {
		busy_set(rp, rp->super->lanes[i].primary_blk, lane_blk);
		busy_set(rp, rp->super->lanes[i].mirror_blk, lane_blk);
	}
	for (uint32_t agno = 0; agno < rp->super->ag_count; agno++)
		busy_group(rp, agno);
	for (size_t i = 0; i < rp->facts->owners.count; i++)
		busy_set(rp, owners[i].start_blk, owners[i].count_blk);
	return rp->facts->error;
}

/* From the lower end for a primary, from the upper end for a mirror. 0: none. */
static uint64_t chunk_find(const struct repair *rp, uint32_t agno, bool mirror)
{
	uint64_t chunks = rp->super->size_blk / CHUNK_BLOCKS;
	uint64_t start = mirror ? chunks - 1 : super_ag_start_blk(rp->super, agno) / CHUNK_BLOCKS;

	for (uint64_t i = 0; i < chunks; i++) {
		uint64_t c = mirror ? start - i : (start + i) % chunks;

		if (!(rp->busy[c / 64] >> c % 64 & 1))
			return c;
	}
	return 0;
}

int repair_chunk_take(struct repair *rp, uint64_t *blk)
{
	uint64_t chunk;
	int rc = busy_make(rp, false);

	if (rc)
		return rc;
	chunk = chunk_find(rp, 0, true);
	if (chunk == 0)
		return -ENOSPC;
	*blk = chunk * CHUNK_BLOCKS;
	busy_set(rp, *blk, 1);
	return 0;
}

/* A slot of a sound table unit that has no place; *m is that unit. ag_chunks: none. */
static uint32_t slot_find(struct repair *rp, uint32_t agno, struct m_chunks *m)
{
	uint32_t ag_chunks = rp->facts->ag_chunks;
	bool sound = false;

	for (uint32_t slot = 0; slot < ag_chunks; slot++) {
		if (slot % CHUNKS_PER_UNIT == 0)
			sound = repair_unit_read(
				rp, pool_ag_unit(rp->pool, agno, AG_UNIT_TABLE + slot / CHUNKS_PER_UNIT),
				MAGIC_CHUNKS, 0, m);
		if (sound && slot > 0 && le32_get(m->ct_chunks[slot % CHUNKS_PER_UNIT].ck_primary) == 0)
			return slot;
	}
	return ag_chunks;
}

static void chunk_owned(struct repair *rp, uint64_t chunk, uint64_t owner, uint64_t lchunk)
{
	busy_set(rp, chunk * CHUNK_BLOCKS, 1);
	check_owner_add(rp->facts, chunk * CHUNK_BLOCKS, CHUNK_BLOCKS, owner, lchunk);
	rp->redo[chunk * CHUNK_BLOCKS / rp->super->ag_size_blk] = 1;
}

/* A new metadata chunk for the group. Only the table knows of it at first: the groups where it lies are made anew. */
static int chunk_make(struct repair *rp, uint32_t agno, bool less)
{
	_Alignas(64) struct m_chunks m;
	uint64_t primary, mirror = 0, lchunk;
	uint32_t slot;
	int rc = busy_make(rp, less);

	if (rc)
		return rc;
	slot = slot_find(rp, agno, &m);
	primary = chunk_find(rp, agno, false);
	if (slot == rp->facts->ag_chunks || primary == 0)
		return -ENOSPC;
	if (rp->super->incompat & FEATURE_INCOMPAT_META_DUP) {
		busy_set(rp, primary * CHUNK_BLOCKS, 1);
		mirror = chunk_find(rp, agno, true);
		if (mirror == 0)
			return -ENOSPC;
	}
	/* What lay there, and still looks like units of this very chunk, is not to come to life again. */
	rc = dax_zero(rp->dax, primary << CHUNK_SHIFT, CHUNK_SIZE);
	if (!rc && mirror)
		rc = dax_zero(rp->dax, mirror << CHUNK_SHIFT, CHUNK_SIZE);
	if (rc)
		return rc;
	dax_fence(rp->dax);
	lchunk = lchunk_of(rp, agno, slot);
	m.ct_chunks[slot % CHUNKS_PER_UNIT] = (struct m_chunk){
		.ck_primary = le32_of((uint32_t)primary),
		.ck_mirror = le32_of((uint32_t)mirror),
	};
	m.ct_hdr.uh_owner = le64_of(OWNER_AG);
	rc = repair_unit_write(rp, pool_ag_unit(rp->pool, agno, AG_UNIT_TABLE + slot / CHUNKS_PER_UNIT),
			       MAGIC_CHUNKS, &m);
	if (rc)
		return rc;
	pool_chunk_set(rp->pool, lchunk, (uint32_t)primary, (uint32_t)mirror);
	chunk_owned(rp, primary, OWNER_META, lchunk);
	if (mirror)
		chunk_owned(rp, mirror, OWNER_MIRROR, lchunk);
	rp->redo[agno] = 1;
	if (slot < rp->cursors[agno].slot[UNIT_FREE])
		rp->cursors[agno].slot[UNIT_FREE] = slot;
	return rp->facts->error;
}

/* A mirror for a chunk that has none. All of it is copied before the table knows. */
static int mirror_make(struct repair *rp, uint32_t agno, uint32_t slot)
{
	uint64_t table = pool_ag_unit(rp->pool, agno, AG_UNIT_TABLE + slot / CHUNKS_PER_UNIT);
	uint64_t lchunk = lchunk_of(rp, agno, slot), off, mirror;
	_Alignas(64) struct m_chunks m;
	int rc = pool_place(rp->pool, lchunk << CHUNK_SHIFT, 0, &off);

	if (rc || !repair_unit_read(rp, table, MAGIC_CHUNKS, 0, &m))
		return rc ? rc : -EUCLEAN;
	rc = busy_make(rp, false);
	mirror = rc ? 0 : chunk_find(rp, agno, true);
	if (mirror == 0)
		return rc ? rc : -ENOSPC;
	rc = dax_move(rp->dax, mirror << CHUNK_SHIFT, off, CHUNK_SIZE);
	/* The table leads to it. */
	dax_fence(rp->dax);
	m.ct_chunks[slot % CHUNKS_PER_UNIT].ck_mirror = le32_of((uint32_t)mirror);
	if (!rc)
		rc = repair_unit_write(rp, table, MAGIC_CHUNKS, &m);
	if (rc)
		return rc;
	pool_chunk_set(rp->pool, lchunk, (uint32_t)(off >> CHUNK_SHIFT), (uint32_t)mirror);
	chunk_owned(rp, mirror, OWNER_MIRROR, lchunk);
	repair_told(rp, REPAIR_MENDED, "group %u: a metadata chunk without mirror has one now", agno);
	return rp->facts->error;
}

int repair_mirrors(struct repair *rp)
{
	uint32_t ag_chunks = rp->facts->ag_chunks;

	if (!(rp->super->incompat & FEATURE_INCOMPAT_META_DUP))
		return 0;
	for (uint64_t lchunk = 0; lchunk < (uint64_t)rp->super->ag_count * ag_chunks; lchunk++) {
		uint32_t agno = (uint32_t)(lchunk / ag_chunks), slot = (uint32_t)(lchunk % ag_chunks);
		uint64_t off;
		int rc;

		if (slot == 0 || pool_place(rp->pool, lchunk << CHUNK_SHIFT, 0, &off) != 0 ||
		    pool_place(rp->pool, lchunk << CHUNK_SHIFT, 1, &off) == 0)
			continue;
		rc = mirror_make(rp, agno, slot);
		if (rc == -ENOSPC)
			repair_told(rp, REPAIR_LEFT, "group %u: no space for the mirror of a metadata chunk",
				    agno);
		else if (rc)
			return rc;
	}
	return 0;
}

/* A chunk is taken before anything is overwritten, and then what nobody can want before what somebody might. */
static int group_alloc(struct repair *rp, uint32_t agno, uint64_t *laddr)
{
	static const struct {
		enum unit_from from;
		bool chunk, less; /* make a chunk first */
	} steps[] = {
		{ UNIT_FREE, false, false }, { UNIT_FREE, true, false },     { UNIT_DEAD, false, false },
		{ UNIT_FREE, true, true },   { UNIT_UNNAMED, false, false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		int rc = steps[i].chunk ? chunk_make(rp, agno, steps[i].less) : 0;

		if (rc && rc != -ENOSPC)
			return rc;
		if (!rc && group_find(rp, agno, steps[i].from, laddr))
			return 0;
	}
	return -ENOSPC;
}

int repair_unit_alloc(struct repair *rp, uint32_t agno, bool anywhere, uint64_t *laddr)
{
	uint32_t count = rp->super->ag_count;
	int rc;

	assert(rp->facts && agno < count);
	rc = group_alloc(rp, agno, laddr);
	for (uint32_t i = 1; i < count && anywhere && rc == -ENOSPC; i++)
		rc = group_alloc(rp, (agno + i) % count, laddr);
	return rc;
}
