/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Places: intents, remap lists and chunk tables of which both copies are lost.
 *
 * Which chunk is where is said by the rmap too: one record for each metadata chunk and each mirror. Nodes of the rmap lie in such
 * chunks, so it is read again and again while more of it can be found. What is not found in this way is looked for on the device: a
 * unit says in its header which address it has.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "repair/places.h"

#define ROUNDS_MAX (NODE_LEVELS_MAX + 1)

struct place {
	uint64_t lchunk;
	uint32_t chunk[2];
	uint32_t votes[2]; /* sound units there, where it was looked for */
};

struct places {
	struct repair *rp;
	uint32_t ag_chunks;
	bool *unit_lost; /* for each table unit of each group */
	size_t lost_count;
	uint64_t intents_lost, remaps_lost;
	struct rows places; /* struct place, by lchunk */
	struct rows remaps; /* struct remap, by unit */
	bool found;
};

static uint32_t table_units(const struct places *p)
{
	return ag_table_units(p->ag_chunks);
}

static bool slot_is_lost(const struct places *p, uint64_t lchunk)
{
	uint64_t agno = lchunk / p->ag_chunks, slot = lchunk % p->ag_chunks;

	return agno < p->rp->super->ag_count && p->unit_lost[agno * table_units(p) + slot / CHUNKS_PER_UNIT];
}

uint64_t places_slot0_chunk(const struct super *s, uint32_t agno, unsigned copy)
{
	uint64_t first = super_ag_start_blk(s, agno) / CHUNK_BLOCKS;

	return copy == 0 ? first + 1 : first + super_ag_length_blk(s, agno) / CHUNK_BLOCKS - 2;
}

bool places_chunk_is_possible(const struct super *s, uint64_t chunk)
{
	uint64_t lane_blk = s->lane_size_bytes / BLOCK_SIZE, lo = chunk * CHUNK_BLOCKS,
		 hi = lo + CHUNK_BLOCKS;
	uint32_t agno;

	if (chunk == 0 || hi > s->size_blk - CHUNK_BLOCKS)
		return false; /* superblock, or outside */
	agno = (uint32_t)(lo / s->ag_size_blk);
	if (chunk == places_slot0_chunk(s, agno, 0) || chunk == places_slot0_chunk(s, agno, 1))
		return false;
	for (uint32_t i = 0; i < s->lane_count; i++) {
		if ((s->lanes[i].primary_blk < hi && s->lanes[i].primary_blk + lane_blk > lo) ||
		    (s->lanes[i].mirror_blk < hi && s->lanes[i].mirror_blk + lane_blk > lo))
			return false;
	}
	return true;
}

/* ---- from the rmap ---- */

static struct place *place_of(struct places *p, uint64_t lchunk)
{
	struct place *all = p->places.data, *row;

	for (size_t i = 0; i < p->places.count; i++) {
		if (all[i].lchunk == lchunk)
			return &all[i];
	}
	row = rows_add(p->rp->facts, &p->places, sizeof(*row));
	if (row)
		*row = (struct place){ .lchunk = lchunk };
	return row;
}

static bool rmap_seen(void *arg, const struct rmap *r)
{
	struct places *p = arg;
	unsigned copy = r->owner == OWNER_MIRROR;
	struct place *place;

	if ((r->owner != OWNER_META && r->owner != OWNER_MIRROR) || r->start_blk % CHUNK_BLOCKS ||
	    r->count_blk != CHUNK_BLOCKS || r->offset_blk % p->ag_chunks == 0 ||
	    !slot_is_lost(p, r->offset_blk) ||
	    !places_chunk_is_possible(p->rp->super, r->start_blk / CHUNK_BLOCKS))
		return true;
	place = place_of(p, r->offset_blk);
	if (place && place->chunk[copy] == 0) {
		place->chunk[copy] = (uint32_t)(r->start_blk / CHUNK_BLOCKS);
		p->found = true;
	}
	return true;
}

/* What was found so far can be read. */
static void places_set(struct places *p)
{
	const struct place *all = p->places.data;

	for (size_t i = 0; i < p->places.count; i++) {
		uint32_t primary = all[i].chunk[0] ? all[i].chunk[0] : all[i].chunk[1];
		uint32_t mirror = all[i].chunk[0] ? all[i].chunk[1] : 0;

		pool_chunk_set(p->rp->pool, all[i].lchunk, primary, mirror);
	}
}

static void places_from_rmap(struct places *p)
{
	for (unsigned round = 0; round < ROUNDS_MAX; round++) {
		p->found = false;
		p->rp->incomplete = false;
		repair_rmap_each(p->rp, rmap_seen, p);
		if (!p->found)
			return;
		places_set(p);
	}
}

/* ---- from the device ---- */

struct chunk_votes places_chunk_vote(struct repair *rp, uint64_t chunk)
{
	_Alignas(64) uint8_t buf[BLOCK_SIZE];
	const struct m_unit_hdr *h = (const void *)buf;
	struct chunk_votes votes = { 0 };

	for (uint32_t i = 0; i < CHUNK_SIZE / INODE_SIZE; i++) {
		uint64_t off = (uint64_t)i * INODE_SIZE, at = (chunk << CHUNK_SHIFT) + off;
		uint64_t laddr;
		size_t size;

		if (dax_load(rp->dax, buf, at, sizeof(*h), NULL) != 0)
			continue;
		size = unit_size(le32_get(h->uh_magic));
		laddr = le64_get(h->uh_laddr);
		if (size == 0 || off % size || (laddr & (CHUNK_SIZE - 1)) != off ||
		    memcmp(&h->uh_uuid, &rp->super->uuid, sizeof(h->uh_uuid)) != 0 ||
		    dax_load(rp->dax, buf, at, size, NULL) != 0 ||
		    unit_check_header(buf, size, 0, laddr, &rp->super->uuid))
			continue;
		if (votes.count == 0)
			votes.lchunk = laddr >> CHUNK_SHIFT;
		votes.count += votes.lchunk == laddr >> CHUNK_SHIFT;
		i += (uint32_t)(size / INODE_SIZE) - 1;
	}
	return votes;
}

/* The two with most votes. */
static void vote_count(struct place *place, uint32_t chunk, uint32_t votes)
{
	unsigned worse = place->votes[0] <= place->votes[1] ? 0 : 1;

	if (place->chunk[0] == chunk || place->chunk[1] == chunk || votes <= place->votes[worse])
		return;
	place->chunk[worse] = chunk;
	place->votes[worse] = votes;
}

static void mark_chunk(uint64_t *map, uint64_t chunk)
{
	map[chunk / 64] |= 1ull << chunk % 64;
}

/* Chunks that sound tables, or the rmap, have a use for. */
static void chunks_known(struct places *p, uint64_t *known)
{
	struct repair *rp = p->rp;
	const struct place *all = p->places.data;
	uint64_t lchunks = (uint64_t)rp->super->ag_count * p->ag_chunks;

	for (uint64_t lchunk = 0; lchunk < lchunks; lchunk++) {
		for (unsigned copy = 0; copy < 2; copy++) {
			uint64_t off;

			if (pool_place(rp->pool, lchunk << CHUNK_SHIFT, copy, &off) == 0)
				mark_chunk(known, off >> CHUNK_SHIFT);
		}
	}
	for (size_t i = 0; i < p->places.count; i++) {
		mark_chunk(known, all[i].chunk[0]);
		mark_chunk(known, all[i].chunk[1]);
	}
}

static int places_from_device(struct places *p)
{
	struct repair *rp = p->rp;
	uint64_t chunks = rp->super->size_blk / CHUNK_BLOCKS;
	uint64_t *known = calloc(chunks / 64 + 1, sizeof(*known));

	if (!known)
		return -ENOMEM;
	chunks_known(p, known);
	for (uint64_t chunk = 1; chunk < chunks; chunk++) {
		struct chunk_votes votes;
		struct place *place;

		if (known[chunk / 64] >> chunk % 64 & 1 || !places_chunk_is_possible(rp->super, chunk))
			continue;
		if (!repair_step(rp, "looking for metadata", chunk, chunks))
			break;
		votes = places_chunk_vote(rp, chunk);
		if (votes.count == 0 || votes.lchunk % p->ag_chunks == 0 || !slot_is_lost(p, votes.lchunk))
			continue;
		place = place_of(p, votes.lchunk);
		if (place)
			vote_count(place, (uint32_t)chunk, votes.count);
	}
	free(known);
	places_set(p);
	return rp->error;
}

/* ---- writing ---- */

static void table_fill(struct places *p, uint32_t agno, uint32_t index, struct m_chunks *m)
{
	const struct place *all = p->places.data;
	uint64_t first = (uint64_t)agno * p->ag_chunks + (uint64_t)index * CHUNKS_PER_UNIT;

	for (uint32_t k = 0; k < CHUNKS_PER_UNIT; k++) {
		struct m_chunk *c = &m->ct_chunks[k];
		uint32_t chunk[2] = { 0, 0 };

		if (index == 0 && k == 0) {
			chunk[0] = (uint32_t)places_slot0_chunk(p->rp->super, agno, 0);
			chunk[1] = (uint32_t)places_slot0_chunk(p->rp->super, agno, 1);
		}
		for (size_t i = 0; i < p->places.count; i++) {
			if (all[i].lchunk == first + k)
				memcpy(chunk, all[i].chunk, sizeof(chunk));
		}
		if (chunk[0] == 0 && chunk[1] == 0)
			continue;
		/* Which units are in use shows when everything has been walked through. */
		*c = (struct m_chunk){
			.ck_primary = le32_of(chunk[0] ? chunk[0] : chunk[1]),
			.ck_mirror = le32_of(chunk[0] ? chunk[1] : 0),
			.ck_used_count = le32_of(CHUNK_BLOCKS),
		};
		memset(c->ck_used, 0xff, sizeof(c->ck_used));
	}
}

static int tables_write(struct places *p)
{
	struct repair *rp = p->rp;

	for (uint32_t agno = 0; agno < rp->super->ag_count; agno++) {
		for (uint32_t i = 0; i < table_units(p); i++) {
			_Alignas(64) struct m_chunks m = { 0 };
			int rc;

			if (!p->unit_lost[(size_t)agno * table_units(p) + i])
				continue;
			table_fill(p, agno, i, &m);
			m.ct_hdr.uh_owner = le64_of(OWNER_AG);
			rc = repair_unit_write(rp, pool_ag_unit(rp->pool, agno, AG_UNIT_TABLE + i),
					       MAGIC_CHUNKS, &m);
			if (rc)
				return rc;
			repair_told(rp, REPAIR_MENDED, "group %u: chunk table made anew (unit %u)", agno, i);
		}
	}
	return 0;
}

/* As much of the facts as it takes to read the trees of groups. */
static int facts_begin(struct repair *rp, struct check_report *report)
{
	static const struct check_opts silent = { 0 };
	uint32_t ag_chunks = (uint32_t)(rp->super->ag_size_blk / CHUNK_BLOCKS);
	int rc;

	rp->facts = calloc(1, sizeof(*rp->facts));
	if (!rp->facts)
		return -ENOMEM;
	rc = check_make(rp->facts, rp->pool, &silent, report);
	for (uint32_t agno = 0; agno < rp->super->ag_count && !rc; agno++) {
		struct m_ag *m = aligned_alloc(64, sizeof(*m));

		if (!m)
			rc = -ENOMEM;
		else if (repair_unit_read(rp, pool_ag_unit(rp->pool, agno, AG_UNIT_HEADER), MAGIC_AG, 0, m))
			rp->facts->ags[agno].header = m;
		else
			free(m);
	}
	rp->taken = calloc((size_t)rp->super->ag_count * ag_chunks, sizeof(*rp->taken));
	return rp->taken ? rc : -ENOMEM;
}

/* The tables of a repair that cannot be believed leave no trace: facts are made anew after it. */
static int tables_mend(struct places *p)
{
	struct repair *rp = p->rp;
	struct check_report report;
	int rc = facts_begin(rp, &report);

	if (!rc)
		places_from_rmap(p);
	if (!rc && rp->incomplete)
		rc = places_from_device(p);
	if (!rc)
		rc = rp->facts->error ? rp->facts->error : rp->error;
	if (!rc)
		rc = tables_write(p);
	repair_facts_drop(rp);
	pool_reload(rp->pool);
	return rc;
}

/* ---- intents ---- */

static bool plain_is_lost(struct repair *rp, uint32_t agno, uint32_t unit, uint32_t magic)
{
	_Alignas(64) uint8_t buf[BLOCK_SIZE];

	return !repair_unit_read(rp, pool_ag_unit(rp->pool, agno, unit), magic, 0, buf);
}

static int intents_mend(struct repair *rp, uint32_t agno)
{
	_Alignas(64) struct m_intents m = { .in_hdr.uh_owner = le64_of(OWNER_AG) };
	int rc;

	if (!plain_is_lost(rp, agno, AG_UNIT_INTENTS, MAGIC_INTENTS))
		return 0;
	rc = repair_unit_write(rp, pool_ag_unit(rp->pool, agno, AG_UNIT_INTENTS), MAGIC_INTENTS, &m);
	if (!rc)
		repair_told(rp, REPAIR_LOST,
			    "group %u: long operations that were under way are left where they were", agno);
	return rc;
}

/* ---- remap lists ---- */

/* The block holds the unit that it is said to stand in for, or inodes of it. */
static bool stands_in(struct repair *rp, const struct remap *r)
{
	_Alignas(64) uint8_t buf[BLOCK_SIZE];

	if (r->place_blk == 0 || r->place_blk >= rp->super->size_blk ||
	    dax_load(rp->dax, buf, r->place_blk * BLOCK_SIZE, BLOCK_SIZE, NULL) != 0)
		return false;
	for (size_t at = 0; at < BLOCK_SIZE; at += INODE_SIZE) {
		size_t size = unit_size(unit_magic(buf + at));

		if (size != 0 && at + size <= BLOCK_SIZE &&
		    !unit_check_header(buf + at, size, 0, r->laddr + at, &rp->super->uuid))
			return true;
	}
	return false;
}

static bool remap_seen(void *arg, const struct rmap *r)
{
	struct places *p = arg;
	struct remap *row, found = {
		.laddr = r->offset_blk / 2 * BLOCK_SIZE,
		.place_blk = r->start_blk,
		.copy = r->offset_blk % 2,
	};

	if (r->owner != OWNER_REMAP || r->count_blk != 1 ||
	    found.laddr >> CHUNK_SHIFT >= (uint64_t)p->rp->super->ag_count * p->ag_chunks ||
	    !stands_in(p->rp, &found))
		return true;
	row = rows_add(p->rp->facts, &p->remaps, sizeof(*row));
	if (row)
		*row = found;
	return row != NULL;
}

static int remap_compare(const void *a, const void *b)
{
	const struct remap *x = a, *y = b;

	if (x->laddr != y->laddr)
		return x->laddr < y->laddr ? -1 : 1;
	return x->copy < y->copy ? -1 : x->copy > y->copy;
}

/* What the rmap tells of units that lie elsewhere. */
static int remaps_collect(struct places *p)
{
	struct check_report report;
	int rc = facts_begin(p->rp, &report);

	p->remaps.count = 0;
	if (!rc) {
		repair_rmap_each(p->rp, remap_seen, p);
		rows_sort(&p->remaps, sizeof(struct remap), remap_compare);
		rc = p->rp->facts->error;
	}
	repair_facts_drop(p->rp);
	return rc;
}

/* Without these the list of the group could not be found. */
static bool is_fixed(const struct places *p, uint64_t laddr)
{
	uint64_t slot = (laddr >> CHUNK_SHIFT) % p->ag_chunks, unit = (laddr >> BLOCK_SHIFT) % CHUNK_BLOCKS;

	return slot == 0 && (unit == AG_UNIT_HEADER || unit == AG_UNIT_REMAP ||
			     (unit >= AG_UNIT_TABLE && unit < AG_UNIT_TABLE + table_units(p)));
}

static int remap_list_mend(struct places *p, uint32_t agno)
{
	_Alignas(64) struct m_remaps m = { .rl_hdr.uh_owner = le64_of(OWNER_AG) };
	const struct remap *all = p->remaps.data;
	struct repair *rp = p->rp;
	uint32_t count = 0;
	int rc;

	for (size_t i = 0; i < p->remaps.count && count < REMAPS_PER_UNIT; i++) {
		if (pool_laddr_ag(rp->pool, all[i].laddr) == agno && !is_fixed(p, all[i].laddr))
			m.rl_entries[count++] = (struct m_remap){
				.rp_laddr = le64_of(all[i].laddr),
				.rp_place_blk = le64_of(all[i].place_blk),
				.rp_copy = le32_of(all[i].copy),
			};
	}
	m.rl_count = le32_of(count);
	rc = repair_unit_write(rp, pool_ag_unit(rp->pool, agno, AG_UNIT_REMAP), MAGIC_REMAP, &m);
	if (!rc)
		repair_told(rp, REPAIR_MENDED, "group %u: remap list made anew, with %u entries", agno,
			    count);
	return rc;
}

/* A superblock that was made anew has no list of its own. */
static int super_remaps_mend(struct places *p)
{
	const struct remap *all;
	struct repair *rp = p->rp;
	int rc = remaps_collect(p);

	all = p->remaps.data;
	for (size_t i = 0; i < p->remaps.count && !rc; i++) {
		bool known = !is_fixed(p, all[i].laddr);

		for (uint32_t k = 0; k < rp->super->remap_count && !known; k++)
			known = remap_compare(&rp->super->remaps[k], &all[i]) == 0;
		if (known)
			continue;
		rc = repair_begin(rp);
		if (!rc)
			rc = pool_remap_super(rp->pool, &all[i]);
		if (!rc)
			repair_told(rp, REPAIR_MENDED,
				    "superblock: %s of unit 0x%" PRIx64 " lies in block %" PRIu64,
				    all[i].copy ? "mirror" : "primary", all[i].laddr, all[i].place_blk);
	}
	return 0;
}

static int remaps_mend(struct places *p)
{
	struct repair *rp = p->rp;
	int rc = remaps_collect(p);

	for (uint32_t agno = 0; agno < rp->super->ag_count && !rc; agno++) {
		if (plain_is_lost(rp, agno, AG_UNIT_REMAP, MAGIC_REMAP))
			rc = remap_list_mend(p, agno);
	}
	pool_reload(rp->pool);
	return rc;
}

/* ---- all ---- */

/* What is lost in both copies. */
static void places_look(struct places *p)
{
	struct repair *rp = p->rp;

	for (uint32_t agno = 0; agno < rp->super->ag_count; agno++) {
		p->intents_lost += plain_is_lost(rp, agno, AG_UNIT_INTENTS, MAGIC_INTENTS);
		p->remaps_lost += plain_is_lost(rp, agno, AG_UNIT_REMAP, MAGIC_REMAP);
		for (uint32_t i = 0; i < table_units(p); i++) {
			bool lost = plain_is_lost(rp, agno, AG_UNIT_TABLE + i, MAGIC_CHUNKS);

			p->unit_lost[(size_t)agno * table_units(p) + i] = lost;
			p->lost_count += lost;
		}
	}
}

static int places_mend(struct places *p, uint64_t lies)
{
	struct repair *rp = p->rp;
	int rc = 0;

	if (lies != 0)
		rc = places_tables(rp, true, &lies);
	if (!rc && p->lost_count != 0)
		rc = tables_mend(p);
	if (!rc && p->remaps_lost != 0)
		rc = remaps_mend(p);
	for (uint32_t agno = 0; agno < rp->super->ag_count && !rc && p->intents_lost != 0; agno++)
		rc = intents_mend(rp, agno);
	return rc;
}

int repair_places(struct repair *rp)
{
	struct places p = { .rp = rp, .ag_chunks = (uint32_t)(rp->super->ag_size_blk / CHUNK_BLOCKS) };
	uint64_t lies = 0;
	int rc;

	p.unit_lost = calloc((size_t)rp->super->ag_count * table_units(&p), sizeof(*p.unit_lost));
	if (!p.unit_lost)
		return -ENOMEM;
	places_look(&p);
	rc = places_tables(rp, false, &lies);
	if (!rc && p.intents_lost + p.remaps_lost + p.lost_count + lies != 0 &&
	    (!rp->opts->may || rp->opts->may(rp->opts->arg, REPAIR_PLACES, p.intents_lost == 0,
					     "make lost chunk tables, intents and remap lists anew?")))
		rc = places_mend(&p, lies);
	/* The superblock may have been made anew, by this run or by one that was killed. */
	if (!rc && rp->super->state & SUPER_STATE_REPAIR)
		rc = super_remaps_mend(&p);
	rows_free(&p.places);
	rows_free(&p.remaps);
	free(p.unit_lost);
	return rc;
}
