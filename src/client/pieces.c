/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/pieces.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "client/memory.h"

#define LEAF_PIECES 64u
#define LEAF_FEW 16u /* less than that is put together with the neighbour */

struct leaf {
	unsigned count; /* never 0 */
	struct umbra_piece pieces[];
};

struct place {
	uint64_t off; /* of the first piece */
	struct leaf *leaf;
};

struct pieces {
	unsigned count;            /* never 0 */
	unsigned gone_lo, gone_hi; /* leaves that the next set does not have; for pieces_retire() */
	struct place places[];
};

static uint64_t piece_end(const struct umbra_piece *p)
{
	return p->file_off + p->len;
}

/*
 * Both searches take as many steps as the count says, whatever is found, and select instead of branching: what a processor guesses wrong at every other step of a random
 * read costs more than the step.
 */

/* How many leaves begin before off. */
static unsigned leaves_before(const struct pieces *set, uint64_t off)
{
	unsigned lo = 0, left = set ? set->count : 0;

	while (left > 1) {
		unsigned half = left / 2;

		lo += set->places[lo + half - 1].off < off ? half : 0;
		left -= half;
	}
	return lo + (left > 0 && set->places[lo].off < off);
}

static unsigned pieces_before_in(const struct leaf *leaf, uint64_t off)
{
	unsigned lo = 0, left = leaf->count;

	while (left > 1) {
		unsigned half = left / 2;

		lo += leaf->pieces[lo + half - 1].file_off < off ? half : 0;
		left -= half;
	}
	return lo + (leaf->pieces[lo].file_off < off);
}

const struct umbra_piece *pieces_before(const struct pieces *set, uint64_t off)
{
	unsigned i = leaves_before(set, off);
	const struct leaf *leaf;

	if (i == 0)
		return NULL;
	leaf = set->places[i - 1].leaf;
	return &leaf->pieces[pieces_before_in(leaf, off) - 1];
}

const struct umbra_piece *pieces_find(const struct pieces *set, uint64_t off)
{
	const struct umbra_piece *p = pieces_before(set, off + 1);

	return p && off < piece_end(p) ? p : NULL;
}

const struct umbra_piece *pieces_next(const struct pieces *set, uint64_t off)
{
	unsigned i = leaves_before(set, off);

	if (i > 0) {
		const struct leaf *leaf = set->places[i - 1].leaf;
		unsigned at = pieces_before_in(leaf, off);

		if (at < leaf->count)
			return &leaf->pieces[at];
	}
	return set && i < set->count ? &set->places[i].leaf->pieces[0] : NULL;
}

/* ---- changes ---- */

struct row {
	struct umbra_piece *pieces;
	unsigned count;
};

static void row_add(struct row *row, const struct umbra_piece *p)
{
	struct umbra_piece *last = row->count > 0 ? &row->pieces[row->count - 1] : NULL;

	if (p->len == 0)
		return;
	if (last && piece_end(last) == p->file_off && last->flags == p->flags &&
	    ((p->flags & UMBRA_PIECE_HOLE) || last->dev_off + last->len == p->dev_off))
		last->len += p->len;
	else
		row->pieces[row->count++] = *p;
}

/* What of p lies in [lo, hi), with flags taken away. */
static void row_add_part(struct row *row, const struct umbra_piece *p, uint64_t lo, uint64_t hi,
			 uint32_t weaker)
{
	uint64_t from = u64_max(lo, p->file_off), to = u64_min(hi, piece_end(p));
	struct umbra_piece part = *p;

	if (from >= to)
		return;
	part.file_off = from;
	part.len = to - from;
	if (!(p->flags & UMBRA_PIECE_HOLE))
		part.dev_off += from - p->file_off;
	part.flags &= ~weaker;
	row_add(row, &part);
}

static struct leaf *leaf_make(const struct umbra_piece *pieces, unsigned count)
{
	struct leaf *leaf = memory_get(sizeof(*leaf) + count * sizeof(leaf->pieces[0]));

	if (leaf) {
		leaf->count = count;
		memcpy(leaf->pieces, pieces, count * sizeof(leaf->pieces[0]));
	}
	return leaf;
}

/* The leaves [a, b) of old are replaced by those that the row fills. */
static int set_make(const struct pieces *old, unsigned a, unsigned b, const struct row *row,
		    struct pieces **out)
{
	unsigned old_count = old ? old->count : 0, added = (row->count + LEAF_PIECES - 1) / LEAF_PIECES;
	unsigned count = old_count - (b - a) + added, done = 0;
	struct pieces *set;

	*out = NULL;
	if (count == 0)
		return 0;
	set = memory_get(sizeof(*set) + count * sizeof(set->places[0]));
	if (!set)
		return -ENOMEM;
	set->count = count;
	set->gone_lo = set->gone_hi = 0;
	if (a > 0)
		memcpy(set->places, old->places, a * sizeof(set->places[0]));
	if (b < old_count)
		memcpy(&set->places[a + added], &old->places[b], (old_count - b) * sizeof(set->places[0]));
	for (unsigned i = 0; i < added; i++) {
		unsigned n = (row->count - done) / (added - i);
		struct leaf *leaf = leaf_make(&row->pieces[done], n);

		if (!leaf) {
			while (i-- > 0)
				memory_put(set->places[a + i].leaf);
			memory_put(set);
			return -ENOMEM;
		}
		set->places[a + i] = (struct place){ leaf->pieces[0].file_off, leaf };
		done += n;
	}
	*out = set;
	return 0;
}

static unsigned count_in(const struct pieces *set, unsigned a, unsigned b)
{
	unsigned count = 0;

	for (unsigned i = a; i < b; i++)
		count += set->places[i].leaf->count;
	return count;
}

static void row_fill(struct row *row, const struct pieces *old, unsigned a, unsigned b, uint64_t lo,
		     uint64_t hi, uint32_t weaker)
{
	for (unsigned i = a; i < b; i++) {
		const struct leaf *leaf = old->places[i].leaf;

		for (unsigned at = 0; at < leaf->count; at++)
			row_add_part(row, &leaf->pieces[at], lo, hi, weaker);
	}
}

/* keep: what old has in [lo, hi) stays, weaker; otherwise in takes its place. */
static int change(struct pieces *old, uint64_t lo, uint64_t hi, bool keep, uint32_t weaker,
		  const struct umbra_piece *in, unsigned count, struct pieces **out)
{
	unsigned a = leaves_before(old, lo), b = leaves_before(old, hi);
	struct row row = { 0 };
	int rc;

	a = a > 0 ? a - 1 : 0; /* its pieces may reach into the range */
	while (old && count_in(old, a, b) + count < LEAF_FEW && (a > 0 || b < old->count)) {
		if (a > 0)
			a--;
		else
			b++;
	}
	/* A piece that has the range in its middle becomes two, and with weaker flags three. */
	row.pieces = memory_get((count_in(old, a, b) + count + 2) * sizeof(row.pieces[0]));
	if (!row.pieces)
		return -ENOMEM;
	row_fill(&row, old, a, b, 0, lo, 0);
	if (keep)
		row_fill(&row, old, a, b, lo, hi, weaker);
	for (unsigned i = 0; i < count; i++)
		row_add(&row, &in[i]);
	row_fill(&row, old, a, b, hi, UINT64_MAX, 0);
	rc = set_make(old, a, b, &row, out);
	memory_put(row.pieces);
	if (rc == 0 && old) {
		old->gone_lo = a;
		old->gone_hi = b;
	}
	return rc;
}

int pieces_put(struct pieces *old, uint64_t lo, uint64_t hi, const struct umbra_piece *in, unsigned count,
	       struct pieces **out)
{
	return change(old, lo, hi, false, 0, in, count, out);
}

int pieces_weaken(struct pieces *old, uint64_t lo, uint64_t hi, uint32_t flags, struct pieces **out)
{
	return change(old, lo, hi, true, flags, NULL, 0, out);
}

static void leaves_free(struct pieces *set, unsigned lo, unsigned hi)
{
	for (unsigned i = lo; i < hi; i++)
		memory_put(set->places[i].leaf);
	memory_put(set);
}

void pieces_retire(struct pieces *old)
{
	if (old)
		leaves_free(old, old->gone_lo, old->gone_hi);
}

void pieces_free(struct pieces *set)
{
	if (set)
		leaves_free(set, 0, set->count);
}
