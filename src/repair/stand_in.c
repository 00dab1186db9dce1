/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A unit that cannot be written in either of its places, since the memory there is bad: blocks elsewhere stand in for it, as they do for one that
 * moved away on a mount (space/move.c). Where they lie is in the remap list of its group, or for key units in the superblock.
 *
 * The blocks come from a chunk of the device that nobody says anything about. So nothing is wrong with that if a run is killed: they have no
 * owner in rmap and bitmap before the groups are made anew, and the walk that comes before that finds them by the list.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "repair/places.h"

#define TRIES_MAX 16u /* blocks that are bad too */

/* Those of a walk; while places are mended there are none of that kind. */
static bool has_facts(const struct repair *rp)
{
	return rp->redo != NULL;
}

/* ---- a chunk for them ---- */

/* A copy of metadata lies there, or a block that stands in for one. */
static bool chunk_has_units(struct repair *rp, uint64_t chunk)
{
	uint64_t lchunks = rp->super->ag_count * (rp->super->ag_size_blk / CHUNK_BLOCKS), off;

	for (uint64_t lchunk = 0; lchunk < lchunks; lchunk++) {
		for (unsigned copy = 0; copy < 2; copy++) {
			if (pool_place(rp->pool, lchunk << CHUNK_SHIFT, copy, &off) == 0 &&
			    off >> CHUNK_SHIFT == chunk)
				return true;
		}
	}
	for (uint32_t i = 0; i < rp->super->remap_count; i++) {
		if (rp->super->remaps[i].place_blk / CHUNK_BLOCKS == chunk)
			return true;
	}
	return false;
}

/* By the bitmap of a group alone, when there are no facts yet. From the upper end, where files come last. 0: none. */
static uint64_t group_chunk_find(struct repair *rp, uint32_t agno)
{
	uint32_t ag_chunks = (uint32_t)(rp->super->ag_size_blk / CHUNK_BLOCKS);
	uint32_t first_unit = AG_UNIT_TABLE + ag_table_units(ag_chunks);
	uint64_t start = super_ag_start_blk(rp->super, agno) / CHUNK_BLOCKS;
	static const uint8_t none[CHUNK_BLOCKS / 8];
	_Alignas(64) struct m_bitmap m;

	for (uint64_t c = super_ag_length_blk(rp->super, agno) / CHUNK_BLOCKS; c-- > 0;) {
		uint64_t unit =
			pool_ag_unit(rp->pool, agno, (uint32_t)(first_unit + c / BITMAP_CHUNKS_PER_UNIT));

		if (places_chunk_is_possible(rp->super, start + c) &&
		    repair_unit_read(rp, unit, MAGIC_BITMAP, OWNER_AG, &m) &&
		    memcmp(m.bm_bits[c % BITMAP_CHUNKS_PER_UNIT], none, sizeof(none)) == 0 &&
		    !chunk_has_units(rp, start + c))
			return start + c;
	}
	return 0;
}

static int chunk_take(struct repair *rp)
{
	int rc = 0;

	rp->spare_blk = 0;
	if (has_facts(rp)) {
		rc = repair_chunk_take(rp, &rp->spare_blk);
	} else {
		for (uint32_t agno = rp->super->ag_count; agno-- > 0 && rp->spare_blk == 0;)
			rp->spare_blk = group_chunk_find(rp, agno) * CHUNK_BLOCKS;
		rc = rp->spare_blk != 0 ? 0 : -ENOSPC;
	}
	rp->spare_end_blk = rp->spare_blk + CHUNK_BLOCKS;
	return rc;
}

/* One that holds these bytes. */
static int block_take(struct repair *rp, const void *bytes, uint64_t *blk)
{
	_Alignas(64) uint8_t back[BLOCK_SIZE];

	for (unsigned tries = 0; tries < TRIES_MAX; tries++) {
		int rc = rp->spare_blk == 0 || rp->spare_blk == rp->spare_end_blk ? chunk_take(rp) : 0;

		if (rc)
			return rc;
		*blk = rp->spare_blk++;
		rc = dax_store(rp->dax, *blk << BLOCK_SHIFT, bytes, BLOCK_SIZE);
		/* The list leads to it. */
		if (!rc)
			rc = dax_fence(rp->dax);
		if (!rc)
			rc = dax_load(rp->dax, back, *blk << BLOCK_SHIFT, BLOCK_SIZE, NULL);
		if (!rc && memcmp(back, bytes, BLOCK_SIZE) == 0)
			return 0;
	}
	rp->spare_blk = 0; /* another chunk next time */
	return -EIO;
}

/* ---- the list ---- */

static int list_put(struct repair *rp, const struct remap *to)
{
	uint64_t list = pool_ag_unit(rp->pool, pool_laddr_ag(rp->pool, to->laddr), AG_UNIT_REMAP);
	const struct m_remap entry = { .rp_laddr = le64_of(to->laddr),
				       .rp_place_blk = le64_of(to->place_blk),
				       .rp_copy = le32_of(to->copy) };
	_Alignas(64) struct m_remaps m;
	uint32_t count, at = 0;
	int rc;

	if (!repair_unit_read(rp, list, MAGIC_REMAP, OWNER_AG, &m))
		return -EUCLEAN;
	count = le32_get(m.rl_count);
	while (at < count && (le64_get(m.rl_entries[at].rp_laddr) < to->laddr ||
			      (le64_get(m.rl_entries[at].rp_laddr) == to->laddr &&
			       le32_get(m.rl_entries[at].rp_copy) < to->copy)))
		at++;
	if (at == count || le64_get(m.rl_entries[at].rp_laddr) != to->laddr ||
	    le32_get(m.rl_entries[at].rp_copy) != to->copy) {
		if (count == REMAPS_PER_UNIT)
			return -ENOSPC;
		memmove(&m.rl_entries[at + 1], &m.rl_entries[at], (count - at) * sizeof(entry));
		m.rl_count = le32_of(count + 1);
	}
	m.rl_entries[at] = entry;
	rc = repair_unit_write(rp, list, MAGIC_REMAP, &m);
	pool_reload(rp->pool);
	return rc;
}

/* ---- a unit ---- */

/* What can still be read of other inodes in the block. */
static void block_read(struct repair *rp, uint64_t laddr, uint8_t *bytes)
{
	uint64_t off;

	memset(bytes, 0, BLOCK_SIZE);
	for (size_t at = 0; at < BLOCK_SIZE; at += INODE_SIZE) {
		for (unsigned copy = 0; copy < 2; copy++) {
			if (pool_place(rp->pool, laddr, copy, &off) == 0 &&
			    dax_load(rp->dax, bytes + at, off + at, INODE_SIZE, NULL) == 0)
				break;
			memset(bytes + at, 0, INODE_SIZE);
		}
	}
}

static int copy_leave(struct repair *rp, uint64_t laddr, unsigned copy, const uint8_t *bytes)
{
	struct remap to = { .laddr = laddr, .copy = copy };
	int rc = block_take(rp, bytes, &to.place_blk);

	if (!rc)
		rc = pool_unit_is_key(rp->pool, laddr) ? pool_remap_super(rp->pool, &to) : list_put(rp, &to);
	if (rc || !has_facts(rp))
		return rc;
	check_owner_add(rp->facts, to.place_blk, 1, OWNER_REMAP, laddr / BLOCK_SIZE * 2 + copy);
	rp->redo[to.place_blk / rp->super->ag_size_blk] = 1;
	return rp->facts->error;
}

int repair_unit_leave(struct repair *rp, uint64_t laddr)
{
	_Alignas(64) uint8_t bytes[BLOCK_SIZE];
	int rc = 0, rc_copy, moved = 0;
	uint64_t off;

	laddr = u64_align_down(laddr, BLOCK_SIZE);
	block_read(rp, laddr, bytes);
	for (unsigned copy = 0; copy < 2; copy++) {
		if (pool_place(rp->pool, laddr, copy, &off) != 0)
			continue;
		rc_copy = copy_leave(rp, laddr, copy, bytes);
		moved += rc_copy == 0;
		rc = rc_copy ? rc_copy : rc;
	}
	if (moved == 0)
		return rc;
	rp->wrote = true;
	repair_told(rp, REPAIR_MENDED, "unit 0x%" PRIx64 ": moved out of bad memory", laddr);
	return 0;
}
