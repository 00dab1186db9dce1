/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who owns what in a group: extents of all inodes, what the file system itself owns, and of the old rmap what nobody else knows.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "media/journal.h"
#include "repair/groups.h"
#include "txn/format.h"

static uint64_t rmap_end(const struct rmap *r)
{
	return r->start_blk + r->count_blk;
}

static uint64_t rmap_delta(const struct rmap *r)
{
	return r->offset_blk - r->start_blk;
}

static int start_compare(const void *a, const void *b)
{
	const struct rmap *x = a, *y = b;

	if (x->start_blk != y->start_blk)
		return x->start_blk < y->start_blk ? -1 : 1;
	if (x->owner != y->owner)
		return x->owner < y->owner ? -1 : 1;
	return x->offset_blk < y->offset_blk ? -1 : x->offset_blk > y->offset_blk;
}

static int piece_compare(const void *a, const void *b)
{
	const struct rmap *x = a, *y = b;

	if (x->owner != y->owner)
		return x->owner < y->owner ? -1 : 1;
	if (rmap_delta(x) != rmap_delta(y))
		return rmap_delta(x) < rmap_delta(y) ? -1 : 1;
	return start_compare(a, b);
}

static void rmap_sort(struct rows *rows, int (*compare)(const void *a, const void *b))
{
	rows_sort(rows, sizeof(struct rmap), compare);
}

static void rmap_add(struct repair *rp, struct rows *rows, const struct rmap *r)
{
	struct rmap *row = rows_add(rp->facts, rows, sizeof(*row));

	if (row)
		*row = *r;
}

/* ---- the file system itself ---- */

/* A part of a lane that no journal record covers: mkfs makes other ones today. */
static void lane_cover(struct repair *rp, struct rows *rows, size_t count, uint64_t lo, uint64_t hi,
		       uint64_t offset)
{
	uint64_t ag_size = rp->super->ag_size_blk;

	while (lo < hi) {
		uint64_t end = u64_min(hi, (lo / ag_size + 1) * ag_size);
		bool covered = false;

		for (size_t i = 0; i < count && !covered; i++) {
			const struct rmap *r = (const struct rmap *)rows->data + i;

			if (r->owner != OWNER_JOURNAL)
				continue;
			covered = r->start_blk <= lo && rmap_end(r) > lo;
			if (covered)
				end = rmap_end(r);
			else if (r->start_blk > lo)
				end = u64_min(end, r->start_blk);
		}
		if (!covered)
			rmap_add(rp, rows,
				 &(struct rmap){ .start_blk = lo,
						 .owner = OWNER_JOURNAL,
						 .offset_blk = offset,
						 .count_blk = end - lo });
		lo = end;
	}
}

static void journal_owners(struct repair *rp, struct rows *out)
{
	const struct super *s = rp->super;
	uint64_t lane_blk = s->lane_size_bytes / BLOCK_SIZE;
	size_t count;

	for (uint32_t agno = 0; agno < s->ag_count; agno++) {
		struct rmap birth[FORMAT_OWNERS_MAX];
		unsigned n = format_owners(s, agno, birth);
		uint64_t start = super_ag_start_blk(s, agno), end = start + super_ag_length_blk(s, agno);

		for (unsigned i = 0; i < n; i++) {
			if (birth[i].owner == OWNER_JOURNAL && birth[i].start_blk >= start &&
			    birth[i].start_blk < end && birth[i].count_blk <= end - birth[i].start_blk)
				rmap_add(rp, out, &birth[i]);
		}
	}
	count = out->count;
	for (uint32_t i = 0; i < s->lane_count; i++) {
		lane_cover(rp, out, count, s->lanes[i].primary_blk, s->lanes[i].primary_blk + lane_blk, 0);
		lane_cover(rp, out, count, s->lanes[i].mirror_blk, s->lanes[i].mirror_blk + lane_blk,
			   JOURNAL_MIRROR);
	}
}

int special_owners(struct repair *rp, struct rows *out)
{
	const struct rmap *owners = rp->facts->owners.data;

	journal_owners(rp, out);
	for (size_t i = 0; i < rp->facts->owners.count; i++) {
		if (owners[i].owner & OWNER_SPECIAL)
			rmap_add(rp, out, &owners[i]);
	}
	rmap_sort(out, start_compare);
	return rp->facts->error;
}

size_t special_find(const struct rows *specials, uint64_t blk)
{
	const struct rmap *all = specials->data;
	size_t lo = 0, hi = specials->count;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (rmap_end(&all[mid]) <= blk)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* ---- the old rmap ---- */

struct old_rmap {
	struct group_space *g;
	const struct rows *specials;
};

/* Whether extents alone do not tell what this owner has. */
static bool owner_is_unknown(struct repair *rp, uint64_t owner)
{
	const struct seen_inode *seen;

	if (owner & OWNER_SPECIAL)
		return owner == OWNER_BAD || owner == OWNER_FORWARD;
	seen = seen_inode_find(rp->facts, owner);
	return seen && (seen->mode_fmt == 0 || seen->mend & SALVAGE_EXTENTS);
}

/* The journal has it, and nothing lies there: then somebody may have wanted it to be out of use. */
static bool is_spare(struct repair *rp, const struct rmap *special, const struct rmap *bad)
{
	struct lane_place lane;

	return bad->owner == OWNER_BAD && special->owner == OWNER_JOURNAL &&
	       super_blk_is_home(rp->super, bad->start_blk) && special->start_blk <= bad->start_blk &&
	       rmap_end(special) >= rmap_end(bad) &&
	       !pool_lane_find(rp->pool, bad->start_blk, rmap_end(bad), &lane);
}

static bool old_rmap_seen(void *arg, const void *rec)
{
	const struct old_rmap *old = arg;
	struct group_space *g = old->g;
	const struct rmap *special;
	struct rmap r;
	size_t i;

	rmap_decode(&r, rec);
	if (!owner_is_unknown(g->rp, r.owner) || r.start_blk < g->start_blk || r.start_blk >= g->end_blk ||
	    r.count_blk == 0 || r.count_blk > g->end_blk - r.start_blk)
		return true;
	if (r.owner == OWNER_BAD) /* the same block twice is one record then */
		r.offset_blk = r.start_blk;
	i = special_find(old->specials, r.start_blk);
	special = (const struct rmap *)old->specials->data + i;
	if (i == old->specials->count || special->start_blk >= rmap_end(&r) || is_spare(g->rp, special, &r))
		rmap_add(g->rp, &g->rmap, &r);
	return true;
}

/* What is left of a record of the journal: the first part in its place. */
static void spare_cut_one(struct group_space *g, size_t at, const struct rmap *bad)
{
	struct rmap *r = (struct rmap *)g->rmap.data + at, right = *r;

	if (r->owner != OWNER_JOURNAL || r->start_blk > bad->start_blk || rmap_end(r) < rmap_end(bad))
		return;
	right.start_blk = rmap_end(bad);
	right.offset_blk += right.start_blk - r->start_blk;
	right.count_blk = rmap_end(r) - right.start_blk;
	r->count_blk = bad->start_blk - r->start_blk;
	if (right.count_blk != 0)
		rmap_add(g->rp, &g->rmap, &right);
}

/*
 * What is out of use beside superblock and journal is not the journal's. Records of the journal are among the first ones, or have been cut off from one of
 * those.
 */
static void spare_cut(struct group_space *g, size_t specials)
{
	size_t count = g->rmap.count;

	for (size_t i = specials; i < count; i++) {
		struct rmap bad = ((const struct rmap *)g->rmap.data)[i];

		if (bad.owner != OWNER_BAD || !super_blk_is_home(g->rp->super, bad.start_blk))
			continue;
		for (size_t k = 0; k < g->rmap.count; k++) {
			if (k == specials)
				k = count;
			if (k < g->rmap.count)
				spare_cut_one(g, k, &bad);
		}
	}
}

static void empty_drop(struct rows *rows)
{
	struct rmap *r = rows->data;
	size_t out = 0;

	for (size_t i = 0; i < rows->count; i++)
		if (r[i].count_blk != 0)
			r[out++] = r[i];
	rows->count = out;
}

/* ---- common form ---- */

/* Pieces of one inode that continue each other become one record; nobody owns the same twice. */
static void rmap_merge(struct rows *rows)
{
	struct rmap *r = rows->data;
	size_t out = 0;

	rmap_sort(rows, piece_compare);
	for (size_t i = 1; i < rows->count; i++) {
		struct rmap *last = &r[out];
		bool same = last->owner == r[i].owner && rmap_delta(last) == rmap_delta(&r[i]);
		bool touch = r[i].owner & OWNER_SPECIAL ? r[i].start_blk < rmap_end(last) :
							  r[i].start_blk <= rmap_end(last);

		if (same && touch)
			last->count_blk = u64_max(rmap_end(last), rmap_end(&r[i])) - last->start_blk;
		else
			r[++out] = r[i];
	}
	if (rows->count)
		rows->count = out + 1;
	rmap_sort(rows, start_compare);
}

static int end_compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void run_add(struct repair *rp, struct rows *rows, uint64_t start, uint64_t end, uint64_t refs)
{
	struct refcount *last = rows->count ? (struct refcount *)rows->data + rows->count - 1 : NULL, *row;

	if (last && last->start_blk + last->count_blk == start && last->refs == refs) {
		last->count_blk += end - start;
		return;
	}
	row = rows_add(rp->facts, rows, sizeof(*row));
	if (row)
		*row = (struct refcount){ start, end - start, refs };
}

/* From border to border: how many own what lies between. */
static void count_owners(struct group_space *g, const uint64_t *ends)
{
	const struct rmap *r = g->rmap.data;
	size_t count = g->rmap.count, i = 0, k = 0;
	uint64_t refs = 0, at = 0;

	while (k < count) {
		uint64_t next = i < count ? u64_min(r[i].start_blk, ends[k]) : ends[k];

		if (refs > 0 && next > at) {
			run_add(g->rp, &g->owned, at, next, 1);
			g->free_blk -= next - at;
		}
		if (refs > 1 && next > at)
			run_add(g->rp, &g->shared, at, next, refs);
		at = next;
		for (; i < count && r[i].start_blk == at; i++)
			refs++;
		for (; k < count && ends[k] == at; k++)
			refs--;
	}
}

int group_space_count(struct group_space *g)
{
	const struct rmap *r;
	uint64_t *ends = malloc((g->rmap.count + 1) * sizeof(*ends));

	if (!ends)
		return -ENOMEM;
	rmap_merge(&g->rmap);
	r = g->rmap.data;
	g->owned.count = 0;
	g->shared.count = 0;
	g->free_blk = g->end_blk - g->start_blk;
	for (size_t i = 0; i < g->rmap.count; i++)
		ends[i] = rmap_end(&r[i]);
	qsort(ends, g->rmap.count, sizeof(*ends), end_compare);
	count_owners(g, ends);
	free(ends);
	return 0;
}

int group_space_make(struct group_space *g, struct repair *rp, uint32_t agno)
{
	const struct rmap *owners = rp->facts->owners.data;
	struct rows specials = { 0 };
	struct old_rmap old = { g, &specials };
	size_t special_count;
	int rc;

	*g = (struct group_space){
		.rp = rp,
		.agno = agno,
		.start_blk = super_ag_start_blk(rp->super, agno),
	};
	g->end_blk = g->start_blk + super_ag_length_blk(rp->super, agno);
	rc = special_owners(rp, &specials);
	for (size_t i = 0; i < specials.count && !rc; i++) {
		const struct rmap *r = (const struct rmap *)specials.data + i;

		if (r->start_blk >= g->start_blk && r->start_blk < g->end_blk)
			rmap_add(rp, &g->rmap, r);
	}
	special_count = g->rmap.count;
	for (size_t i = 0; i < rp->facts->owners.count && !rc; i++) {
		const struct rmap *r = &owners[i];

		if (!(r->owner & OWNER_SPECIAL) && r->start_blk >= g->start_blk && r->start_blk < g->end_blk)
			rmap_add(rp, &g->rmap, r);
	}
	if (!rc)
		repair_group_each(rp, agno, AG_RMAP, old_rmap_seen, &old);
	spare_cut(g, special_count);
	empty_drop(&g->rmap);
	if (!rc)
		rc = group_space_count(g);
	if (!rc)
		rc = group_lost_find(g, &specials);
	rows_free(&specials);
	return rc ? rc : rp->facts->error;
}

void group_space_free(struct group_space *g)
{
	rows_free(&g->rmap);
	rows_free(&g->owned);
	rows_free(&g->shared);
	rows_free(&g->unknown);
}

void group_space_bits(const struct group_space *g, uint32_t chunk, size_t *next, uint8_t *bits)
{
	const struct refcount *runs = g->owned.data;
	uint64_t lo = g->start_blk + (uint64_t)chunk * CHUNK_BLOCKS, hi = lo + CHUNK_BLOCKS;

	memset(bits, 0, CHUNK_BLOCKS / 8);
	while (*next < g->owned.count && runs[*next].start_blk + runs[*next].count_blk <= lo)
		++*next;
	for (size_t i = *next; i < g->owned.count && runs[i].start_blk < hi; i++) {
		uint64_t from = u64_max(runs[i].start_blk, lo) - lo;
		uint64_t to = u64_min(runs[i].start_blk + runs[i].count_blk, hi) - lo;

		for (uint64_t b = from; b < to; b++)
			bits[b / 8] |= (uint8_t)(1u << b % 8);
	}
}
