/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An extent tree from its leaves and the rmap.
 *
 * Leaves may contradict each other; the later one holds, and where no leaf says anything the rmap does. The pieces are swept from the
 * start of the file on: at each place the piece with the highest number of those that cover it goes on.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "repair/salvage.h"

#define FILE_BLK_END (1ull << 51)
#define RANGES_TOLD 8u

struct piece {
	uint64_t lo, hi; /* file blocks */
	uint64_t dev_blk;
	uint64_t seq; /* of the leaf; 0: the rmap */
	uint32_t flags;
};

struct sweep {
	struct salvage *s;
	struct patient *p;
	struct rows pieces;  /* struct piece, by lo */
	struct rows extents; /* struct m_extent */
	size_t *heap;        /* pieces that have begun, latest first */
	size_t heap_count;
	uint64_t dropped; /* pieces that cannot be */
	uint64_t blocks;
	bool any_unwritten;
	struct rows doubtful; /* struct piece: from the rmap, of a file that has had unwritten extents */
};

static void piece_add(struct sweep *w, uint64_t lo, uint64_t count, uint64_t dev_blk, uint64_t seq,
		      uint32_t flags)
{
	uint64_t size_blk = w->s->ck->super->size_blk;
	struct piece *row;

	if (dev_blk == 0 || dev_blk >= size_blk || count > size_blk - dev_blk || lo >= FILE_BLK_END ||
	    count > FILE_BLK_END - lo) {
		w->dropped++;
		return;
	}
	row = rows_add(w->s->ck, &w->pieces, sizeof(*row));
	if (row)
		*row = (struct piece){ lo, lo + count, dev_blk, seq, flags };
}

static void extent_left(void *arg, const void *rec, size_t size_bytes, uint64_t seq)
{
	struct extent e;

	(void)size_bytes;
	extent_decode(&e, rec);
	/* 0 is the rmap's number. */
	piece_add(arg, e.file_blk, e.count_blk, e.dev_blk, u64_max(seq, 1), e.flags);
}

static void rmap_pieces(struct sweep *w)
{
	size_t count;
	const struct rmap *r = salvage_rmap(w->s, w->p->attr.ino, &count);

	for (size_t i = 0; i < count; i++)
		piece_add(w, r[i].offset_blk, r[i].count_blk, r[i].start_blk, 0, 0);
}

static int piece_compare(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;

	if (x->lo != y->lo)
		return x->lo < y->lo ? -1 : 1;
	if (x->seq != y->seq)
		return x->seq > y->seq ? -1 : 1;
	return x->dev_blk < y->dev_blk ? -1 : x->dev_blk > y->dev_blk;
}

/* ---- the heap ---- */

static bool is_before(const struct sweep *w, size_t a, size_t b)
{
	const struct piece *all = w->pieces.data;

	return all[a].seq != all[b].seq ? all[a].seq > all[b].seq : a < b;
}

static void heap_swap(struct sweep *w, size_t i, size_t k)
{
	size_t tmp = w->heap[i];

	w->heap[i] = w->heap[k];
	w->heap[k] = tmp;
}

static void heap_push(struct sweep *w, size_t piece)
{
	size_t i = w->heap_count++;

	w->heap[i] = piece;
	for (; i > 0 && is_before(w, w->heap[i], w->heap[(i - 1) / 2]); i = (i - 1) / 2)
		heap_swap(w, i, (i - 1) / 2);
}

static void heap_pop(struct sweep *w)
{
	size_t i = 0;

	w->heap[0] = w->heap[--w->heap_count];
	for (;;) {
		size_t best = i, left = 2 * i + 1;

		for (size_t k = left; k < left + 2 && k < w->heap_count; k++) {
			if (is_before(w, w->heap[k], w->heap[best]))
				best = k;
		}
		if (best == i)
			return;
		heap_swap(w, i, best);
		i = best;
	}
}

/* ---- extents ---- */

/* Does not cross the border of a group. */
static void extent_put(struct sweep *w, const struct extent *e)
{
	struct m_extent *row = w->extents.count ? (struct m_extent *)w->extents.data + w->extents.count - 1 :
						  NULL;
	uint64_t ag_blk = w->s->ck->super->ag_size_blk;

	if (row) {
		struct extent last;

		extent_decode(&last, row);
		if (last.file_blk + last.count_blk == e->file_blk &&
		    last.dev_blk + last.count_blk == e->dev_blk && last.flags == e->flags &&
		    last.dev_blk / ag_blk == e->dev_blk / ag_blk) {
			last.count_blk += e->count_blk;
			extent_encode(row, &last);
			return;
		}
	}
	row = rows_add(w->s->ck, &w->extents, sizeof(*row));
	if (row)
		extent_encode(row, e);
}

static void range_put(struct sweep *w, const struct piece *piece, uint64_t lo, uint64_t hi)
{
	uint64_t ag_blk = w->s->ck->super->ag_size_blk;

	w->blocks += hi - lo;
	w->any_unwritten |= (piece->flags & EXTENT_UNWRITTEN) != 0;
	if (piece->seq == 0 && w->p->attr.flags & INODE_UNWRITTEN) {
		struct piece *row =
			w->doubtful.count ? (struct piece *)w->doubtful.data + w->doubtful.count - 1 : NULL;

		if (row && row->hi == lo)
			row->hi = hi;
		else if ((row = rows_add(w->s->ck, &w->doubtful, sizeof(*row))) != NULL)
			*row = (struct piece){ .lo = lo, .hi = hi };
	}
	while (lo < hi) {
		uint64_t dev_blk = piece->dev_blk + (lo - piece->lo);
		uint64_t count = u64_min(hi - lo, (dev_blk / ag_blk + 1) * ag_blk - dev_blk);

		extent_put(w, &(struct extent){ lo, dev_blk, count, piece->flags });
		lo += count;
	}
}

static void sweep_run(struct sweep *w)
{
	const struct piece *all = w->pieces.data;
	size_t count = w->pieces.count, next = 0;
	uint64_t at = 0;

	for (;;) {
		uint64_t end;

		while (next < count && all[next].lo <= at)
			heap_push(w, next++);
		while (w->heap_count && all[w->heap[0]].hi <= at)
			heap_pop(w);
		if (w->heap_count == 0) {
			if (next == count)
				return;
			at = all[next].lo;
			continue;
		}
		end = all[w->heap[0]].hi;
		if (next < count)
			end = u64_min(end, all[next].lo);
		range_put(w, &all[w->heap[0]], at, end);
		at = end;
	}
}

static void extents_told(struct sweep *w, uint64_t said_blk)
{
	struct repair *rp = w->s->rp;
	const struct piece *doubtful = w->doubtful.data;
	uint64_t ino = w->p->attr.ino;

	if (!w->p->was_lost && w->blocks < said_blk)
		repair_told(rp, REPAIR_LOST,
			    "%s: %" PRIu64 " of its %" PRIu64 " blocks are not known any more",
			    salvage_path(w->s, ino), said_blk - w->blocks, said_blk);
	for (size_t i = 0; i < w->doubtful.count && i < RANGES_TOLD; i++)
		repair_told(rp, REPAIR_LOST,
			    "%s: blocks %" PRIu64 " to %" PRIu64
			    " may never have been written, and then show what lay there before",
			    salvage_path(w->s, ino), doubtful[i].lo, doubtful[i].hi - 1);
	if (w->doubtful.count > RANGES_TOLD)
		repair_told(rp, REPAIR_LOST, "%s: and %zu more ranges like that", salvage_path(w->s, ino),
			    w->doubtful.count - RANGES_TOLD);
}

static int extents_write(struct sweep *w)
{
	struct patient *p = w->p;
	const struct m_extent *rows = w->extents.data;
	struct extent last = { 0 };
	int rc;

	if (w->s->ck->error || w->s->rp->error)
		return -ENOMEM;
	rc = repair_bulk(w->s->rp, pool_laddr_ag(w->s->rp->pool, p->attr.ino << INODE_SHIFT), NODE_EXTENT,
			 p->attr.ino, rows, w->extents.count, p->m->di_data, INODE_DATA_SIZE);
	if (rc)
		return rc;
	extents_told(w, p->attr.blocks);
	p->attr.blocks = w->blocks;
	p->attr.data_format = DATA_EXTENTS;
	if (w->any_unwritten)
		p->attr.flags |= INODE_UNWRITTEN;
	if (w->extents.count)
		extent_decode(&last, &rows[w->extents.count - 1]);
	if (p->was_lost)
		p->attr.size = (last.file_blk + last.count_blk) << BLOCK_SHIFT;
	return 0;
}

int salvage_extents(struct salvage *s, struct patient *p)
{
	struct sweep w = { .s = s, .p = p };
	int rc = -ENOMEM;

	salvage_leaves(s, p, NODE_EXTENT, extent_left, &w);
	if (p->lost_nodes || p->was_lost || w.dropped)
		rmap_pieces(&w);
	w.heap = calloc(w.pieces.count + 1, sizeof(*w.heap));
	if (w.heap) {
		if (w.pieces.count)
			qsort(w.pieces.data, w.pieces.count, sizeof(struct piece), piece_compare);
		sweep_run(&w);
		rc = extents_write(&w);
	}
	free(w.heap);
	rows_free(&w.pieces);
	rows_free(&w.extents);
	rows_free(&w.doubtful);
	return rc;
}
