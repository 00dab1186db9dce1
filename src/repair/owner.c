/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The three identities: rmap = union of all extent trees and special owners, refcount = multiplicity of rmap, bitmap = union of rmap.
 *
 * How extents and rmap records are cut does not matter, so what differs is brought into one form: pieces sorted by owner, delta
 * (offset - start) and start, with pieces that continue each other made one.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "repair/priv.h"

static uint64_t rmap_delta(const struct rmap *r)
{
	return r->offset_blk - r->start_blk;
}

static uint64_t rmap_end(const struct rmap *r)
{
	return r->start_blk + r->count_blk;
}

void check_owner_add(struct check *ck, uint64_t blk, uint64_t count_blk, uint64_t owner, uint64_t offset_blk)
{
	/* A record of the rmap lies in the group of its blocks. */
	while (count_blk != 0 && blk < ck->super->size_blk) {
		uint64_t ag_end = (blk / ck->super->ag_size_blk + 1) * ck->super->ag_size_blk;
		uint64_t part = u64_min(count_blk, ag_end - blk);
		struct rmap *row = rows_add(ck, &ck->owners, sizeof(*row));

		if (row)
			*row = (struct rmap){
				.start_blk = blk, .owner = owner, .offset_blk = offset_blk, .count_blk = part
			};
		part_rows_added(ck);
		blk += part;
		count_blk -= part;
		offset_blk += part;
	}
}

int check_owner_compare(const void *a, const void *b)
{
	const struct rmap *x = a, *y = b;

	if (x->start_blk != y->start_blk)
		return x->start_blk < y->start_blk ? -1 : 1;
	if (x->owner != y->owner)
		return x->owner < y->owner ? -1 : 1;
	if (x->offset_blk != y->offset_blk)
		return x->offset_blk < y->offset_blk ? -1 : 1;
	return x->count_blk < y->count_blk ? -1 : x->count_blk > y->count_blk;
}

static int piece_compare(const void *a, const void *b)
{
	const struct rmap *x = a, *y = b;

	if (x->owner != y->owner)
		return x->owner < y->owner ? -1 : 1;
	if (rmap_delta(x) != rmap_delta(y))
		return rmap_delta(x) < rmap_delta(y) ? -1 : 1;
	return x->start_blk < y->start_blk ? -1 : x->start_blk > y->start_blk;
}

/* Rows into the common form. twice: owning a block twice is a finding. */
static void pieces_merge(struct check *ck, struct rmap *rows, size_t *count, bool twice)
{
	struct rows all = { rows, *count, *count };
	size_t out = 0;

	if (*count == 0)
		return;
	rows_sort(&all, sizeof(*rows), piece_compare);
	for (size_t i = 1; i < *count; i++) {
		struct rmap *last = &rows[out], *r = &rows[i];

		if (last->owner != r->owner || rmap_delta(last) != rmap_delta(r) ||
		    r->start_blk > rmap_end(last)) {
			rows[++out] = *r;
			continue;
		}
		if (twice && r->start_blk < rmap_end(last))
			check_found(ck, CHECK_RMAP_TWICE, "block %" PRIu64 ": owner 0x%" PRIx64 " twice",
				    r->start_blk, r->owner);
		last->count_blk = u64_max(rmap_end(last), rmap_end(r)) - last->start_blk;
	}
	*count = out + 1;
}

/* ---- one group ---- */

struct group_check {
	struct check *ck;
	uint32_t agno;
	uint64_t start_blk, end_blk;
	struct rows rmap;   /* struct rmap */
	struct rows ends;   /* uint64_t: a heap of the ends of the records that have begun */
	struct rows counts; /* struct refcount: what the tree should say */
	struct rows says;   /* and what it does */
	struct rows owned;  /* struct refcount: runs of owned blocks */
};

static void rmap_seen(void *arg, const void *rec, size_t size_bytes)
{
	struct group_check *g = arg;
	struct rmap r, *row;

	(void)size_bytes;
	rmap_decode(&r, rec);
	if (r.start_blk < g->start_blk || r.start_blk >= g->end_blk ||
	    r.count_blk > g->end_blk - r.start_blk) {
		check_found(g->ck, CHECK_RMAP_EXTRA,
			    "group %u: rmap record of block %" PRIu64 " leaves the group", g->agno,
			    r.start_blk);
		return;
	}
	row = rows_add(g->ck, &g->rmap, sizeof(*row));
	if (row)
		*row = r;
}

static void refcount_seen(void *arg, const void *rec, size_t size_bytes)
{
	struct group_check *g = arg;
	struct refcount *row = rows_add(g->ck, &g->says, sizeof(*row)), r;

	(void)size_bytes;
	refcount_decode(&r, rec);
	if (row)
		*row = r;
}

static void walk_tree(struct group_check *g, enum ag_tree which, const char *name,
		      void (*fn)(void *arg, const void *rec, size_t size_bytes))
{
	struct check_tree tree = {
		.ck = g->ck,
		.kind = ag_tree_kind(which),
		.owner = OWNER_AG,
		.name = name,
		.id = g->agno,
		.fn = fn,
		.arg = g,
	};

	uint64_t bad = check_bad_count(g->ck);

	check_tree(&tree, g->ck->ags[g->agno].header->ag_roots[which], AG_ROOT_SIZE);
	if (check_bad_count(g->ck) != bad)
		g->ck->ags[g->agno].damage |= GROUP_TREE(which);
}

/* ---- multiplicity ---- */

static void end_push(struct group_check *g, uint64_t end)
{
	uint64_t *row = rows_add(g->ck, &g->ends, sizeof(*row)), *ends = g->ends.data;
	size_t at = g->ends.count - 1;

	if (!row)
		return;
	for (; at > 0 && ends[(at - 1) / 2] > end; at = (at - 1) / 2)
		ends[at] = ends[(at - 1) / 2];
	ends[at] = end;
}

/* Takes the lowest out. */
static void end_pop(struct group_check *g)
{
	uint64_t *ends = g->ends.data, last = ends[--g->ends.count];
	size_t at = 0, child;

	for (; (child = 2 * at + 1) < g->ends.count; at = child) {
		child += child + 1 < g->ends.count && ends[child + 1] < ends[child];
		if (ends[child] >= last)
			break;
		ends[at] = ends[child];
	}
	ends[at] = last;
}

static void run_add(struct check *ck, struct rows *rows, uint64_t start, uint64_t end, uint64_t refs)
{
	struct refcount *last = rows->count ? (struct refcount *)rows->data + rows->count - 1 : NULL, *row;

	if (last && last->start_blk + last->count_blk == start && last->refs == refs) {
		last->count_blk += end - start;
		return;
	}
	row = rows_add(ck, rows, sizeof(*row));
	if (row)
		*row = (struct refcount){ start, end - start, refs };
}

/* From the records by start: runs of owned blocks, and those with two owners or more. */
static void count_owners(struct group_check *g)
{
	const struct rmap *r = g->rmap.data;
	size_t count = g->rmap.count, i = 0;
	uint64_t at = 0;

	while ((i < count || g->ends.count > 0) && !g->ck->error) {
		uint64_t end = g->ends.count > 0 ? *(const uint64_t *)g->ends.data : UINT64_MAX;
		uint64_t next = i < count ? u64_min(r[i].start_blk, end) : end, refs = g->ends.count;

		if (refs > 0 && next > at)
			run_add(g->ck, &g->owned, at, next, 1);
		if (refs > 1 && next > at)
			run_add(g->ck, &g->counts, at, next, refs);
		at = next;
		for (; i < count && r[i].start_blk == at; i++)
			end_push(g, rmap_end(&r[i]));
		while (g->ends.count > 0 && *(const uint64_t *)g->ends.data == at)
			end_pop(g);
	}
}

static int forward_compare(const void *key, const void *item)
{
	const uint64_t *blk = key;
	const struct seen_forward *f = item;

	if (*blk < f->old_blk)
		return -1;
	return *blk - f->old_blk >= f->count_blk;
}

static const struct seen_forward *forward_of(const struct check *ck, uint64_t old_blk)
{
	return ck->forwards.count == 0 ? NULL :
					 bsearch(&old_blk, ck->forwards.data, ck->forwards.count,
						 sizeof(struct seen_forward), forward_compare);
}

/* Blocks [lo, hi) of a special record, which others have too: all are on their way, or to be left (a mount goes on with that). */
static bool is_forwarded(const struct check *ck, const struct rmap *r, uint64_t lo, uint64_t hi)
{
	while (lo < hi) {
		uint64_t old_blk = r->owner == OWNER_FORWARD ? r->offset_blk + (lo - r->start_blk) : lo;
		const struct seen_forward *f = forward_of(ck, old_blk);

		if (!f || (r->owner != OWNER_BAD && r->owner != OWNER_FORWARD) ||
		    (r->owner == OWNER_FORWARD && f->new_blk + (old_blk - f->old_blk) != lo))
			return false;
		lo += f->old_blk + f->count_blk - old_blk;
	}
	return true;
}

/*
 * Files may have what is out of use, until they can leave it (FORMAT.md 6.5). Others that are not files are found by their own records, but for another one
 * of OWNER_BAD; *bad_end is where those before it end.
 */
static bool is_left_to_files(const struct rmap *r, uint64_t *bad_end)
{
	bool alone = r->start_blk >= *bad_end;

	if (r->owner != OWNER_BAD)
		return false;
	*bad_end = u64_max(*bad_end, rmap_end(r));
	return alone;
}

static void bad_in_use_count(struct group_check *g, uint64_t blk, uint64_t end_blk)
{
	for (uint64_t next; blk < end_blk; blk = next) {
		const struct seen_forward *f = forward_of(g->ck, blk);

		next = f ? u64_min(end_blk, f->old_blk + f->count_blk) : blk + 1;
		g->ck->report->bad_in_use_blk += f == NULL;
	}
}

static void check_special(struct group_check *g, const struct rmap *r, const struct refcount *shared,
			  const struct refcount *end, uint64_t *bad_end)
{
	bool may = is_left_to_files(r, bad_end);

	for (; shared < end && shared->start_blk < rmap_end(r); shared++) {
		uint64_t lo = u64_max(shared->start_blk, r->start_blk);
		uint64_t hi = u64_min(shared->start_blk + shared->count_blk, rmap_end(r));

		if (may)
			bad_in_use_count(g, lo, hi);
		if (may || is_forwarded(g->ck, r, lo, hi))
			continue;
		check_found(g->ck, CHECK_RMAP_SPECIAL, "block %" PRIu64 ": owner 0x%" PRIx64 " is not alone",
			    lo, r->owner);
		return;
	}
}

/*
 * Records of shared blocks: no special owner but for blocks on their way and bad ones that files cannot leave, and the inode knows. An unattached tree is an owner whom nobody has to know: its blocks
 * are never read, so storing into them in place does no harm.
 */
static void check_sharers(struct group_check *g)
{
	const struct rmap *r = g->rmap.data;
	const struct refcount *shared = g->counts.data;
	uint64_t bad_end = 0;
	size_t first = 0;

	for (size_t i = 0; i < g->rmap.count; i++) {
		struct seen_inode *in;

		while (first < g->counts.count &&
		       shared[first].start_blk + shared[first].count_blk <= r[i].start_blk)
			first++;
		if (first == g->counts.count)
			return;
		if (shared[first].start_blk >= rmap_end(&r[i]))
			continue;
		if (r[i].owner & OWNER_SPECIAL) {
			check_special(g, &r[i], shared + first, shared + g->counts.count, &bad_end);
			continue;
		}
		in = seen_inode_find(g->ck, r[i].owner);
		if (in && in->mode_fmt != 0 && !g->ck->unattached && !(in->flags & SEEN_SHARED))
			__atomic_store_n(&in->unaware, 1, __ATOMIC_RELAXED); /* maybe by several groups */
	}
}

void check_unaware(struct check *ck)
{
	struct seen_inode *inodes = ck->inodes.data;

	for (size_t i = 0; i < ck->inodes.count; i++) {
		if (!inodes[i].unaware)
			continue;
		inodes[i].flags |= SEEN_TOLD;
		check_found(ck, CHECK_SHARED_FLAG, "inode %" PRIu64 " has shared blocks and does not know it",
			    inodes[i].ino);
	}
}

bool check_bad_is_told(const struct check *ck)
{
	return ck->report->bad_in_use_blk == 0 || ck->super->ro_compat & FEATURE_RO_COMPAT_BAD_IN_USE;
}

void check_bad_in_use(struct check *ck)
{
	if (!check_bad_is_told(ck))
		check_found(ck, CHECK_SUPER,
			    "files have %" PRIu64
			    " blocks that are out of use, and the superblock does not say so",
			    ck->report->bad_in_use_blk);
}

static void counts_differ(struct group_check *g, uint64_t start, uint64_t end, uint64_t says, uint64_t is)
{
	check_found(g->ck, CHECK_REFCOUNT,
		    "blocks %" PRIu64 " to %" PRIu64 ": refcount %" PRIu64 ", %" PRIu64 " owners", start,
		    end - 1, says, is);
}

/* Two lists of runs, by start, against each other: walks from border to border. */
static void check_refcounts(struct group_check *g)
{
	const struct refcount *a = g->says.data, *b = g->counts.data;
	size_t i = 0, k = 0;
	uint64_t at = 0;

	while (i < g->says.count || k < g->counts.count) {
		uint64_t a_start = i < g->says.count ? u64_max(a[i].start_blk, at) : UINT64_MAX;
		uint64_t a_end = i < g->says.count ? a[i].start_blk + a[i].count_blk : UINT64_MAX;
		uint64_t b_start = k < g->counts.count ? u64_max(b[k].start_blk, at) : UINT64_MAX;
		uint64_t b_end = k < g->counts.count ? b[k].start_blk + b[k].count_blk : UINT64_MAX;
		uint64_t start = u64_min(a_start, b_start), end;

		end = u64_min(a_start == start ? a_end : a_start, b_start == start ? b_end : b_start);
		if (a_start != start)
			counts_differ(g, start, end, 1, b[k].refs);
		else if (b_start != start)
			counts_differ(g, start, end, a[i].refs, 1);
		else if (a[i].refs != b[k].refs)
			counts_differ(g, start, end, a[i].refs, b[k].refs);
		at = end;
		i += a_end <= at;
		k += b_end <= at;
	}
}

/* Records of one tree may overlap over the border of two leaves only. */
static void refcounts_sane(struct group_check *g)
{
	struct refcount *r = g->says.data;
	size_t out = 0;

	for (size_t i = 0; i < g->says.count; i++) {
		bool inside = r[i].start_blk >= g->start_blk && r[i].start_blk < g->end_blk &&
			      r[i].count_blk <= g->end_blk - r[i].start_blk;

		if (!inside || (out > 0 && r[out - 1].start_blk + r[out - 1].count_blk > r[i].start_blk)) {
			check_found(g->ck, CHECK_REFCOUNT,
				    "group %u: refcount record of block %" PRIu64
				    " overlaps another or leaves the group",
				    g->agno, r[i].start_blk);
			continue;
		}
		r[out++] = r[i];
	}
	g->says.count = out;
}

/* ---- bitmap ---- */

static void bit_differs(struct group_check *g, uint64_t from, uint64_t to, bool is_set)
{
	check_found(g->ck, is_set ? CHECK_BITMAP_SET : CHECK_BITMAP_CLEAR,
		    "blocks %" PRIu64 " to %" PRIu64 ": %s", from, to - 1,
		    is_set ? "owned by the bitmap, but nobody owns them" : "free in the bitmap, but owned");
}

/* One chunk's line of the bitmap against the bits that it should have. */
static void check_bitmap_line(struct group_check *g, uint64_t chunk_blk, const uint8_t *line,
			      const uint8_t *should)
{
	uint64_t from = 0;
	int trouble = 0; /* 1: set, 2: clear */

	if (memcmp(line, should, CHUNK_BLOCKS / 8) == 0)
		return;
	for (unsigned i = 0; i <= CHUNK_BLOCKS; i++) {
		int now = 0;

		if (i < CHUNK_BLOCKS) {
			bool is = line[i / 8] >> i % 8 & 1, want = should[i / 8] >> i % 8 & 1;

			now = is == want ? 0 : is ? 1 : 2;
		}
		if (now == trouble)
			continue;
		if (trouble)
			bit_differs(g, chunk_blk + from, chunk_blk + i, trouble == 1);
		from = i;
		trouble = now;
	}
}

/* The bits of one chunk from the runs of owned blocks; *next is the first run that may reach into it. */
static void chunk_bits(const struct group_check *g, uint64_t chunk_blk, size_t *next, uint8_t *bits)
{
	const struct refcount *runs = g->owned.data;

	memset(bits, 0, CHUNK_BLOCKS / 8);
	while (*next < g->owned.count && runs[*next].start_blk + runs[*next].count_blk <= chunk_blk)
		*next += 1;
	for (size_t i = *next; i < g->owned.count && runs[i].start_blk < chunk_blk + CHUNK_BLOCKS; i++) {
		uint64_t lo = u64_max(runs[i].start_blk, chunk_blk);
		uint64_t hi = u64_min(runs[i].start_blk + runs[i].count_blk, chunk_blk + CHUNK_BLOCKS);

		for (uint64_t b = lo - chunk_blk; b < hi - chunk_blk; b++)
			bits[b / 8] |= (uint8_t)(1u << b % 8);
	}
}

static uint64_t line_free(const uint8_t *line)
{
	uint64_t free_blk = CHUNK_BLOCKS;

	for (unsigned i = 0; i < CHUNK_BLOCKS / 8; i += sizeof(uint64_t)) {
		uint64_t word;

		memcpy(&word, line + i, sizeof(word));
		free_blk -= (uint64_t)__builtin_popcountll(word);
	}
	return free_blk;
}

/* Returns the free blocks by the bitmap. */
static uint64_t check_bitmap(struct group_check *g)
{
	struct check *ck = g->ck;
	uint64_t chunks = (g->end_blk - g->start_blk) / CHUNK_BLOCKS, free_blk = 0;
	uint32_t first_unit = AG_UNIT_TABLE + ag_table_units(ck->ag_chunks);
	_Alignas(64) struct m_bitmap m;
	uint8_t should[CHUNK_BLOCKS / 8];
	size_t next = 0;

	for (uint32_t unit = 0; unit < ag_bitmap_units(ck->ag_chunks); unit++) {
		bool sound = check_unit(ck, pool_ag_unit(ck->pool, g->agno, first_unit + unit), MAGIC_BITMAP,
					OWNER_AG, &m);

		for (uint64_t i = 0; sound && i < BITMAP_CHUNKS_PER_UNIT; i++) {
			uint64_t chunk = (uint64_t)unit * BITMAP_CHUNKS_PER_UNIT + i;
			uint64_t chunk_blk = g->start_blk + chunk * CHUNK_BLOCKS;

			if (chunk >= chunks)
				break;
			chunk_bits(g, chunk_blk, &next, should);
			check_bitmap_line(g, chunk_blk, m.bm_bits[i], should);
			free_blk += line_free(m.bm_bits[i]);
		}
	}
	return free_blk;
}

/* ---- rmap against extents ---- */

static void piece_differs(struct check *ck, const struct rmap *r, uint64_t end, bool missing)
{
	uint64_t offset = r->offset_blk;

	check_found(ck, missing ? CHECK_RMAP_MISSING : CHECK_RMAP_EXTRA,
		    "blocks %" PRIu64 " to %" PRIu64 ": owner 0x%" PRIx64 " at offset %" PRIu64 ": %s",
		    r->start_blk, end - 1, r->owner, offset,
		    missing ? "no rmap record" : "an rmap record of what it does not have");
}

static void piece_skip(struct rmap *r, uint64_t blk)
{
	r->count_blk -= blk - r->start_blk;
	r->offset_blk += blk - r->start_blk;
	r->start_blk = blk;
}

/* Both in the common form. Pieces are cut down as they are compared, in copies: the rows of other groups are found by their start. */
static void pieces_compare(struct check *ck, const struct rmap *want, size_t want_count,
			   const struct rmap *have, size_t have_count)
{
	struct rmap w = { 0 }, h = { 0 };
	size_t i = 0, k = 0;

	for (;;) {
		struct rmap *r, *other;
		uint64_t end;
		int order;

		while (w.count_blk == 0 && i < want_count)
			w = want[i++];
		while (h.count_blk == 0 && k < have_count)
			h = have[k++];
		if (w.count_blk == 0 && h.count_blk == 0)
			return;
		order = w.count_blk == 0 ? 1 : h.count_blk == 0 ? -1 : piece_compare(&w, &h);
		r = order <= 0 ? &w : &h;
		other = order <= 0 ? &h : &w;
		if (order == 0) {
			end = u64_min(rmap_end(&w), rmap_end(&h));
			piece_skip(&h, end);
		} else {
			end = rmap_end(r);
			if (other->count_blk != 0 && w.owner == h.owner && rmap_delta(&w) == rmap_delta(&h))
				end = u64_min(end, other->start_blk);
			piece_differs(ck, r, end, order < 0);
		}
		piece_skip(r, end);
	}
}

static bool blk_is_in_lane(const struct check *ck, uint64_t lo, uint64_t hi)
{
	uint64_t lane_blk = ck->super->lane_size_bytes / BLOCK_SIZE;

	for (uint32_t i = 0; i < ck->super->lane_count; i++) {
		uint64_t at[2] = { ck->super->lanes[i].primary_blk, ck->super->lanes[i].mirror_blk };

		for (unsigned copy = 0; copy < 2; copy++) {
			if (lo < at[copy] + lane_blk && hi > at[copy])
				return true;
		}
	}
	return false;
}

/*
 * The journal's ranges have room to spare around the lanes: they have to be in the first or last chunk, or hold lanes, or be where one is on its
 * way.
 */
static bool journal_is_sane(const struct check *ck, const struct rmap *r)
{
	return rmap_end(r) <= CHUNK_BLOCKS || r->start_blk >= ck->super->size_blk - CHUNK_BLOCKS ||
	       blk_is_in_lane(ck, r->start_blk, rmap_end(r)) ||
	       check_lane_intent(ck, r->start_blk, rmap_end(r));
}

/* Takes the records out that no extent tree or table stands behind; the rest stays. */
static void special_records(struct group_check *g)
{
	struct rmap *r = g->rmap.data;
	size_t out = 0;

	for (size_t i = 0; i < g->rmap.count; i++) {
		switch (r[i].owner) {
		case OWNER_JOURNAL:
			if (!journal_is_sane(g->ck, &r[i]))
				check_found(g->ck, CHECK_RMAP_EXTRA,
					    "blocks from %" PRIu64
					    " on belong to the journal, which is not there",
					    r[i].start_blk);
			break;
		case OWNER_BAD:
		case OWNER_FORWARD:
			break;
		default:
			r[out++] = r[i];
		}
	}
	g->rmap.count = out;
}

/* Every block of a lane in this group has to belong to the journal. */
static void check_lanes(struct group_check *g)
{
	uint64_t lane_blk = g->ck->super->lane_size_bytes / BLOCK_SIZE;
	const struct rmap *r = g->rmap.data;

	for (uint32_t i = 0; i < g->ck->super->lane_count * 2; i++) {
		uint64_t lo = i % 2 ? g->ck->super->lanes[i / 2].mirror_blk :
				      g->ck->super->lanes[i / 2].primary_blk;
		uint64_t hi = lo + lane_blk;

		if (lo >= g->end_blk || hi <= g->start_blk)
			continue;
		for (size_t k = 0; k < g->rmap.count && lo < hi; k++) {
			if (r[k].owner == OWNER_JOURNAL && r[k].start_blk <= lo && rmap_end(&r[k]) > lo)
				lo = rmap_end(&r[k]);
		}
		if (lo < u64_min(hi, g->end_blk))
			check_found(g->ck, CHECK_RMAP_MISSING,
				    "block %" PRIu64 " of a journal lane does not belong to the journal", lo);
	}
}

void check_owners_divide(struct check *ck)
{
	const struct rmap *all = ck->owners.data;
	size_t at = 0;

	for (uint32_t agno = 0; agno < ck->super->ag_count; agno++) {
		struct check_ag *ag = &ck->ags[agno];
		uint64_t end_blk = super_ag_start_blk(ck->super, agno) + super_ag_length_blk(ck->super, agno);

		ag->owners_first = at;
		while (at < ck->owners.count && all[at].start_blk < end_blk)
			at++;
		ag->owners_count = at - ag->owners_first;
	}
}

static bool rmap_is_same(const struct rmap *x, const struct rmap *y)
{
	return x->start_blk == y->start_blk && x->count_blk == y->count_blk && x->owner == y->owner &&
	       x->offset_blk == y->offset_blk;
}

/*
 * Most records are cut as the extents are, and of blocks that nobody else has: what is the same in both lists, by start, is
 * taken out of them. The rest goes to want_left and to the front of g->rmap.
 */
static void same_drop(struct group_check *g, const struct rmap *want, size_t want_count,
		      struct rows *want_left)
{
	struct rmap *have = g->rmap.data, row, *left;
	size_t i = 0, k = 0, out = 0;
	uint64_t end = 0; /* of all before */

	while (i < want_count || k < g->rmap.count) {
		const struct rmap *w = i < want_count ? &want[i] : NULL;
		const struct rmap *h = k < g->rmap.count ? &have[k] : NULL;

		if (w && h && rmap_is_same(w, h) && w->start_blk >= end &&
		    (i + 1 == want_count || w[1].start_blk >= rmap_end(w)) &&
		    (k + 1 == g->rmap.count || h[1].start_blk >= rmap_end(w))) {
			end = rmap_end(w);
			i++;
			k++;
		} else if (!h || (w && check_owner_compare(w, h) <= 0)) {
			end = u64_max(end, rmap_end(w));
			row = want[i++]; /* it may move down in its own place */
			left = rows_add(g->ck, want_left, sizeof(*left));
			if (left)
				*left = row;
		} else {
			end = u64_max(end, rmap_end(h));
			have[out++] = have[k++];
		}
	}
	g->rmap.count = out;
}

/* The rows of the group against the records. With keep the rows stay as they are; else they are not needed any more. */
static void check_rmap(struct group_check *g)
{
	const struct check_ag *ag = &g->ck->ags[g->agno];
	struct rmap *want = g->ck->owners.data;
	struct rows left = { 0 };

	want = want ? want + ag->owners_first : NULL;
	if (!g->ck->keep)
		left = (struct rows){ want, 0, ag->owners_count };
	same_drop(g, want, ag->owners_count, &left);
	pieces_merge(g->ck, left.data, &left.count, false);
	pieces_merge(g->ck, g->rmap.data, &g->rmap.count, true);
	pieces_compare(g->ck, left.data, left.count, g->rmap.data, g->rmap.count);
	if (g->ck->keep)
		rows_free(&left);
}

static void check_identities(struct group_check *g)
{
	check_lanes(g);
	count_owners(g);
	check_sharers(g);
	refcounts_sane(g);
	check_refcounts(g);
	check_group_counters(g->ck, g->agno, check_bitmap(g));
	for (size_t i = 0; i < g->counts.count; i++)
		g->ck->report->shared_blk += ((const struct refcount *)g->counts.data)[i].count_blk;
	special_records(g);
	check_rmap(g);
}

void check_group_owners(struct check *ck, uint32_t agno)
{
	struct group_check g = { .ck = ck, .agno = agno };
	uint64_t bad = check_bad_count(ck);

	if (!ck->ags[agno].header) {
		ck->ags[agno].damage |= GROUP_TREE(AG_RMAP) | GROUP_TREE(AG_REFCOUNT) | GROUP_OWNERS;
		return;
	}
	g.start_blk = super_ag_start_blk(ck->super, agno);
	g.end_blk = g.start_blk + super_ag_length_blk(ck->super, agno);
	walk_tree(&g, AG_RMAP, "rmap tree of group", rmap_seen);
	walk_tree(&g, AG_REFCOUNT, "refcount tree of group", refcount_seen);
	rows_sort(&g.rmap, sizeof(struct rmap), check_owner_compare);
	check_identities(&g);
	if (check_bad_count(ck) != bad)
		ck->ags[agno].damage |= GROUP_OWNERS;
	rows_free(&g.rmap);
	rows_free(&g.ends);
	rows_free(&g.counts);
	rows_free(&g.says);
	rows_free(&g.owned);
}
