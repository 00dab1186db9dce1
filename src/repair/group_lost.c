/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Blocks that are out of use, where nodes of the rmap cannot be read that said so. What files have their extents tell, and what the file system has its
 * tables; that memory is bad nobody else says. But what was known of it has left traces:
 *
 *	forward records		both ends of their blocks
 *	the bitmap		blocks that are taken, and that nobody has: OWNER_BAD's alone. Of a file whose extents are lost too they may have
 *				been; nobody can tell, and out of use they do no harm
 *	reference counts	blocks that files have, and one owner more (only where the superblock says that there may be such blocks)
 *	the memory itself	what cannot be read is bad, whoever said so
 *
 * Only for ranges of lost nodes. What is not known then is named as lost. Spare blocks beside lanes in the first and last chunk are not looked at: the
 * journal has them in any case, and nobody is given any.
 */
#include <errno.h>
#include <stdlib.h>

#include "repair/groups.h"

enum taken { TAKEN_NO, TAKEN_YES, TAKEN_UNKNOWN };

struct lost {
	struct group_space *g;
	const struct rows *specials;
	struct rows holes;    /* struct repair_hole: of the rmap, apart from each other */
	struct rows no_refs;  /* the same of the reference counts */
	struct rows refs;     /* struct refcount: what can be read of those */
	struct rows bad;      /* struct refcount: what is known to be OWNER_BAD's */
	struct rows more;     /* struct rmap: what is to be known besides */
	struct m_bitmap *map; /* the unit that was looked at last */
	uint32_t map_index;   /* and which it was */
	bool map_sound;
};

/* ---- ranges ---- */

static int hole_compare(const void *a, const void *b)
{
	const struct repair_hole *x = a, *y = b;

	return x->start_blk < y->start_blk ? -1 : x->start_blk > y->start_blk;
}

/* Inside of the group, sorted, apart from each other. */
static void holes_order(const struct group_space *g, struct rows *holes)
{
	struct repair_hole *all = holes->data;
	size_t out = 0;

	for (size_t i = 0; i < holes->count; i++) {
		all[i].start_blk = u64_max(all[i].start_blk, g->start_blk);
		all[i].end_blk = u64_min(all[i].end_blk, g->end_blk);
	}
	rows_sort(holes, sizeof(*all), hole_compare);
	for (size_t i = 0; i < holes->count; i++) {
		if (all[i].start_blk >= all[i].end_blk)
			continue;
		if (out > 0 && all[i].start_blk <= all[out - 1].end_blk)
			all[out - 1].end_blk = u64_max(all[out - 1].end_blk, all[i].end_blk);
		else
			all[out++] = all[i];
	}
	holes->count = out;
}

/* The first part of [lo, hi) that is in one of them. */
static bool hole_next(const struct rows *holes, uint64_t *lo, uint64_t *hi)
{
	const struct repair_hole *all = holes->data;
	size_t at = 0, end = holes->count;

	while (at < end) {
		size_t mid = (at + end) / 2;

		if (all[mid].end_blk <= *lo)
			at = mid + 1;
		else
			end = mid;
	}
	if (*lo >= *hi || at == holes->count || all[at].start_blk >= *hi)
		return false;
	*lo = u64_max(*lo, all[at].start_blk);
	*hi = u64_min(*hi, all[at].end_blk);
	return true;
}

static int run_compare(const void *a, const void *b)
{
	const struct refcount *x = a, *y = b;

	return x->start_blk < y->start_blk ? -1 : x->start_blk > y->start_blk;
}

/* How many the block has of these runs, which are apart from each other; *end_blk: how far it is so, at most. */
static uint64_t run_refs(const struct rows *runs, uint64_t blk, uint64_t *end_blk)
{
	const struct refcount *all = runs->data;
	size_t at = 0, end = runs->count;

	while (at < end) {
		size_t mid = (at + end) / 2;

		if (all[mid].start_blk + all[mid].count_blk <= blk)
			at = mid + 1;
		else
			end = mid;
	}
	if (at == runs->count)
		return 0;
	if (all[at].start_blk > blk) {
		*end_blk = u64_min(*end_blk, all[at].start_blk);
		return 0;
	}
	*end_blk = u64_min(*end_blk, all[at].start_blk + all[at].count_blk);
	return all[at].refs;
}

/* Owners that are known. */
static uint64_t known_refs(const struct lost *l, uint64_t blk, uint64_t *end_blk)
{
	uint64_t refs = run_refs(&l->g->shared, blk, end_blk);

	return refs ? refs : run_refs(&l->g->owned, blk, end_blk);
}

/* ---- what there is of a block ---- */

static enum taken taken(struct lost *l, uint64_t blk)
{
	struct repair *rp = l->g->rp;
	uint32_t ag_chunks = rp->facts->ag_chunks;
	uint64_t chunk = (blk - l->g->start_blk) / CHUNK_BLOCKS, bit = (blk - l->g->start_blk) % CHUNK_BLOCKS;
	uint32_t index = (uint32_t)(chunk / BITMAP_CHUNKS_PER_UNIT);

	if (l->map_index != index) {
		l->map_index = index;
		l->map_sound = repair_unit_read(
			rp,
			pool_ag_unit(rp->pool, l->g->agno, AG_UNIT_TABLE + ag_table_units(ag_chunks) + index),
			MAGIC_BITMAP, OWNER_AG, l->map);
	}
	if (!l->map_sound)
		return TAKEN_UNKNOWN;
	return l->map->bm_bits[chunk % BITMAP_CHUNKS_PER_UNIT][bit / 8] >> bit % 8 & 1 ? TAKEN_YES : TAKEN_NO;
}

static bool is_special(const struct lost *l, uint64_t blk)
{
	size_t i = special_find(l->specials, blk);

	return i < l->specials->count && ((const struct rmap *)l->specials->data)[i].start_blk <= blk;
}

/* Where there is nothing in a plain file yet reading would only take room. */
static bool is_unreadable(const struct lost *l, uint64_t blk)
{
	const struct dax *dax = l->g->rp->dax;
	uint8_t bytes[BLOCK_SIZE];

	return dax_has_memory(dax, blk << BLOCK_SHIFT) &&
	       dax_load(dax, bytes, blk << BLOCK_SHIFT, BLOCK_SIZE, NULL) != 0;
}

static bool is_known_bad(const struct lost *l, uint64_t blk)
{
	uint64_t end_blk = UINT64_MAX;

	return run_refs(&l->bad, blk, &end_blk) > 0;
}

/* ---- what comes of it ---- */

static void owner_more(struct lost *l, uint64_t blk, uint64_t owner, uint64_t offset_blk)
{
	struct rmap *last = l->more.count ? (struct rmap *)l->more.data + l->more.count - 1 : NULL;

	if (last && last->owner == owner && last->start_blk + last->count_blk == blk &&
	    last->offset_blk + last->count_blk == offset_blk) {
		last->count_blk++;
		return;
	}
	last = rows_add(l->g->rp->facts, &l->more, sizeof(*last));
	if (last)
		*last = (struct rmap){
			.start_blk = blk, .owner = owner, .offset_blk = offset_blk, .count_blk = 1
		};
}

static void unknown_add(struct lost *l, uint64_t blk)
{
	struct rows *rows = &l->g->unknown;
	struct repair_hole *last = rows->count ? (struct repair_hole *)rows->data + rows->count - 1 : NULL;

	if (last && last->end_blk == blk) {
		last->end_blk++;
		return;
	}
	last = rows_add(l->g->rp->facts, rows, sizeof(*last));
	if (last)
		*last = (struct repair_hole){ blk, blk + 1 };
}

/* Rows that were found become records. */
static int more_take(struct lost *l)
{
	struct group_space *g = l->g;

	if (l->more.count == 0)
		return 0;
	rows_append(g->rp->facts, &g->rmap, &l->more, sizeof(struct rmap));
	l->more.count = 0;
	return g->rp->facts->error ? g->rp->facts->error : group_space_count(g);
}

/* ---- forward records ---- */

static void end_keep(struct lost *l, uint64_t blk, uint64_t count_blk, uint64_t owner, uint64_t delta_blk)
{
	uint64_t lo = blk, end = blk + count_blk, hi = end;

	for (; hole_next(&l->holes, &lo, &hi); lo = hi, hi = end) {
		for (uint64_t b = lo; b < hi; b++) {
			if (taken(l, b) != TAKEN_NO && !is_special(l, b))
				owner_more(l, b, owner, b + delta_blk);
		}
	}
}

static void forwards_keep(struct lost *l)
{
	const struct seen_forward *f = l->g->rp->facts->forwards.data;

	for (size_t i = 0; i < l->g->rp->facts->forwards.count; i++, f++) {
		end_keep(l, f->old_blk, f->count_blk, OWNER_BAD, 0);
		end_keep(l, f->new_blk, f->count_blk, OWNER_FORWARD, f->old_blk - f->new_blk);
	}
}

/* ---- blocks that nobody has ---- */

static void nobodys_keep(struct lost *l, uint64_t lo, uint64_t hi)
{
	for (uint64_t blk = lo; blk < hi; blk++) {
		enum taken now = taken(l, blk);

		/* The next mount lets go of where a lane does not lie. */
		if (now == TAKEN_NO || check_lane_intent(l->g->rp->facts, blk, blk + 1))
			continue;
		if (now == TAKEN_YES || is_unreadable(l, blk)) {
			owner_more(l, blk, OWNER_BAD, blk);
			l->g->kept_blk++;
		} else {
			unknown_add(l, blk);
		}
	}
}

static void holes_keep(struct lost *l)
{
	const struct repair_hole *hole = l->holes.data;

	for (size_t i = 0; i < l->holes.count; i++, hole++) {
		uint64_t next;

		for (uint64_t at = hole->start_blk; at < hole->end_blk; at = next) {
			next = hole->end_blk;
			if (known_refs(l, at, &next) == 0)
				nobodys_keep(l, at, next);
		}
	}
}

/* ---- blocks that files have ---- */

static void beside_keep(struct lost *l, uint64_t blk)
{
	if (is_special(l, blk) || is_known_bad(l, blk))
		return;
	owner_more(l, blk, OWNER_BAD, blk);
}

/* More owners than are known: one of them is OWNER_BAD. */
static void counts_keep(struct lost *l)
{
	const struct refcount *r = l->refs.data;

	for (size_t i = 0; i < l->refs.count; i++, r++) {
		uint64_t lo = r->start_blk, end = lo + r->count_blk, hi = end, next;

		for (; hole_next(&l->holes, &lo, &hi); lo = hi, hi = end) {
			for (uint64_t at = lo; at < hi; at = next) {
				uint64_t known;

				next = hi;
				known = known_refs(l, at, &next);
				for (uint64_t blk = at; known > 0 && known < r->refs && blk < next; blk++)
					beside_keep(l, blk);
			}
		}
	}
}

/* Where the counts are lost too: files know that they share, but not with whom. */
static void uncounted_keep(struct lost *l)
{
	const struct rmap *r = l->g->rmap.data;

	for (size_t i = 0; i < l->g->rmap.count; i++, r++) {
		uint64_t lo = r->start_blk, end = lo + r->count_blk, hi = end;
		const struct seen_inode *in;

		if (r->owner & OWNER_SPECIAL || !hole_next(&l->holes, &lo, &hi))
			continue;
		in = seen_inode_find(l->g->rp->facts, r->owner);
		if (in && in->mode_fmt != 0 && !(in->flags & SEEN_SHARED))
			continue;
		for (lo = r->start_blk, hi = end; hole_next(&l->holes, &lo, &hi); lo = hi, hi = end) {
			for (uint64_t blk = lo; blk < hi; blk++) {
				uint64_t from = blk, to = blk + 1;

				if (!hole_next(&l->no_refs, &from, &to) || is_known_bad(l, blk))
					continue;
				if (is_unreadable(l, blk))
					beside_keep(l, blk);
				else
					unknown_add(l, blk);
			}
		}
	}
}

/* ---- a group ---- */

static bool rmap_pass(void *arg, const void *rec)
{
	(void)arg;
	(void)rec;
	return true;
}

static bool refcount_take(void *arg, const void *rec)
{
	struct lost *l = arg;
	struct refcount r, *row;

	refcount_decode(&r, rec);
	if (r.start_blk < l->g->start_blk || r.start_blk >= l->g->end_blk ||
	    r.count_blk > l->g->end_blk - r.start_blk)
		return true;
	row = rows_add(l->g->rp->facts, &l->refs, sizeof(*row));
	if (row)
		*row = r;
	return true;
}

/* How many blocks it is. */
static uint64_t bad_note(struct lost *l)
{
	const struct rmap *r = l->g->rmap.data;
	uint64_t sum = 0;

	l->bad.count = 0;
	for (size_t i = 0; i < l->g->rmap.count; i++) {
		struct refcount *row =
			r[i].owner == OWNER_BAD ? rows_add(l->g->rp->facts, &l->bad, sizeof(*row)) : NULL;

		if (!row)
			continue;
		*row = (struct refcount){ r[i].start_blk, r[i].count_blk, 1 };
		sum += r[i].count_blk;
	}
	return sum;
}

static int files_keep(struct lost *l)
{
	struct group_space *g = l->g;
	uint64_t before;
	int rc;

	if (!(g->rp->super->ro_compat & FEATURE_RO_COMPAT_BAD_IN_USE))
		return 0;
	repair_group_look(g->rp, g->agno, AG_REFCOUNT, refcount_take, l, &l->no_refs);
	holes_order(g, &l->no_refs);
	rows_sort(&l->refs, sizeof(struct refcount), run_compare);
	before = bad_note(l);
	counts_keep(l);
	rc = more_take(l);
	if (rc)
		return rc;
	bad_note(l);
	uncounted_keep(l);
	rc = more_take(l);
	g->kept_of_files_blk = bad_note(l) - before;
	return rc;
}

int group_lost_find(struct group_space *g, const struct rows *specials)
{
	struct lost l = { .g = g, .specials = specials, .map_index = UINT32_MAX };
	int rc = 0;

	repair_group_look(g->rp, g->agno, AG_RMAP, rmap_pass, NULL, &l.holes);
	holes_order(g, &l.holes);
	if (l.holes.count > 0) {
		l.map = aligned_alloc(64, sizeof(*l.map));
		if (!l.map)
			rc = -ENOMEM;
		if (!rc) {
			forwards_keep(&l);
			rc = more_take(&l);
		}
		if (!rc) {
			holes_keep(&l);
			rc = more_take(&l);
		}
		if (!rc)
			rc = files_keep(&l);
		holes_order(g, &g->unknown);
	}
	free(l.map);
	rows_free(&l.holes);
	rows_free(&l.no_refs);
	rows_free(&l.refs);
	rows_free(&l.bad);
	rows_free(&l.more);
	return rc ? rc : g->rp->facts->error;
}
