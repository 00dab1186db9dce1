/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Chunk tables and remap lists that are sound by themselves and tell of places that cannot be: outside of the device, where something
 * has its fixed place, the same place twice.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "repair/places.h"

struct tables {
	struct repair *rp;
	uint32_t ag_chunks;
	bool write;
	uint64_t lies;
	uint64_t *owners; /* of each chunk of the device: logical chunk + 1, 0: nobody so far */
};

static void chunk_none(struct m_chunk *c, unsigned copy)
{
	if (copy == 1) {
		c->ck_mirror = le32_of(0);
		return;
	}
	c->ck_primary = c->ck_mirror;
	c->ck_mirror = le32_of(0);
	if (le32_get(c->ck_primary) == 0)
		*c = (struct m_chunk){ 0 };
}

/* Of two that say that they lie in this chunk, the one whose units do. The one before keeps it if nothing tells. */
static bool owner_wins(struct tables *t, uint64_t lchunk, uint32_t chunk)
{
	struct chunk_votes votes = places_chunk_vote(t->rp, chunk);

	return votes.count != 0 && votes.lchunk == lchunk;
}

/* False: this copy cannot lie there. */
static bool place_take(struct tables *t, uint64_t lchunk, uint32_t chunk)
{
	uint64_t *owner;

	if (!places_chunk_is_possible(t->rp->super, chunk))
		return false;
	owner = &t->owners[chunk];
	if (*owner == lchunk + 1)
		return true;
	if (*owner != 0 && !owner_wins(t, lchunk, chunk))
		return false;
	t->lies += *owner != 0; /* the loser goes when it is looked at again */
	*owner = lchunk + 1;
	return true;
}

static void slot_first(struct tables *t, uint32_t agno, struct m_chunk *c)
{
	c->ck_primary = le32_of((uint32_t)places_slot0_chunk(t->rp->super, agno, 0));
	c->ck_mirror = le32_of((uint32_t)places_slot0_chunk(t->rp->super, agno, 1));
}

static void slot_look(struct tables *t, uint64_t lchunk, struct m_chunk *c)
{
	uint32_t chunk[2] = { le32_get(c->ck_primary), le32_get(c->ck_mirror) };

	for (unsigned copy = 2; copy-- > 0;) {
		bool same = copy == 1 && chunk[0] == chunk[1];

		if (chunk[copy] != 0 && (same || !place_take(t, lchunk, chunk[copy])))
			chunk_none(c, copy);
	}
}

static int table_look(struct tables *t, uint32_t agno, uint32_t index)
{
	uint64_t laddr = pool_ag_unit(t->rp->pool, agno, AG_UNIT_TABLE + index);
	_Alignas(64) struct m_chunks m, old;
	int rc;

	if (!repair_unit_read(t->rp, laddr, MAGIC_CHUNKS, 0, &m))
		return 0;
	old = m;
	for (uint32_t k = 0; k < CHUNKS_PER_UNIT; k++) {
		uint32_t slot = index * CHUNKS_PER_UNIT + k;

		if (slot == 0)
			slot_first(t, agno, &m.ct_chunks[k]);
		else if (slot >= t->ag_chunks)
			m.ct_chunks[k] = (struct m_chunk){ 0 };
		else
			slot_look(t, (uint64_t)agno * t->ag_chunks + slot, &m.ct_chunks[k]);
	}
	if (memcmp(&m, &old, sizeof(m)) == 0)
		return 0;
	t->lies++;
	if (!t->write)
		return 0;
	rc = repair_unit_write(t->rp, laddr, MAGIC_CHUNKS, &m);
	if (!rc)
		repair_told(t->rp, REPAIR_MENDED, "group %u: places in the chunk table that cannot be", agno);
	return rc;
}

static int remaps_look(struct tables *t, uint32_t agno)
{
	uint64_t laddr = pool_ag_unit(t->rp->pool, agno, AG_UNIT_REMAP);
	uint64_t lchunks = (uint64_t)t->rp->super->ag_count * t->ag_chunks;
	_Alignas(64) struct m_remaps m, out;
	uint32_t count = 0;
	int rc;

	if (!repair_unit_read(t->rp, laddr, MAGIC_REMAP, 0, &m))
		return 0;
	memset(&out, 0, sizeof(out));
	out.rl_hdr = m.rl_hdr;
	for (uint32_t i = 0; i < le32_get(m.rl_count); i++) {
		uint64_t unit = le64_get(m.rl_entries[i].rp_laddr),
			 blk = le64_get(m.rl_entries[i].rp_place_blk);

		if (unit % BLOCK_SIZE == 0 && unit >> CHUNK_SHIFT < lchunks && blk < t->rp->super->size_blk &&
		    blk != 0)
			out.rl_entries[count++] = m.rl_entries[i];
	}
	if (count == le32_get(m.rl_count))
		return 0;
	out.rl_count = le32_of(count);
	t->lies++;
	if (!t->write)
		return 0;
	rc = repair_unit_write(t->rp, laddr, MAGIC_REMAP, &out);
	if (!rc)
		repair_told(t->rp, REPAIR_MENDED, "group %u: entries of the remap list that make no sense",
			    agno);
	return rc;
}

int places_tables(struct repair *rp, bool write, uint64_t *lies)
{
	struct tables t = {
		.rp = rp,
		.ag_chunks = (uint32_t)(rp->super->ag_size_blk / CHUNK_BLOCKS),
		.write = write,
	};
	int rc = 0;

	t.owners = calloc(rp->super->size_blk / CHUNK_BLOCKS, sizeof(*t.owners));
	if (!t.owners)
		return -ENOMEM;
	/* Twice: who loses a chunk to a later one is found in the second round. */
	for (unsigned round = 0; round < 2 && !rc; round++) {
		for (uint32_t agno = 0; agno < rp->super->ag_count && !rc; agno++) {
			rc = remaps_look(&t, agno);
			for (uint32_t i = 0; i < ag_table_units(t.ag_chunks) && !rc; i++)
				rc = table_look(&t, agno, i);
		}
		if (t.lies == 0)
			break;
	}
	*lies = t.lies;
	free(t.owners);
	if (write && t.lies != 0)
		pool_reload(rp->pool);
	return rc;
}
