/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Blocks that a file maps and the file system itself owns: they are taken from the file, which is named. But a metadata chunk
 * in which nothing lies gives way: a file may have it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "repair/groups.h"

struct cut {
	struct repair *rp;
	const struct rows *specials;
	struct seen_inode *seen;
	struct rows kept; /* struct m_extent */
	uint64_t blocks;
	bool any;
	char path[REPAIR_PATH_SIZE];
	unsigned left; /* nodes that may still be entered */
};

static void extent_keep(struct cut *c, const struct extent *e, uint64_t from, uint64_t to)
{
	struct m_extent *row;
	struct extent part = *e;

	if (from >= to)
		return;
	row = rows_add(c->rp->facts, &c->kept, sizeof(*row));
	part.file_blk += from - e->dev_blk;
	part.dev_blk = from;
	part.count_blk = to - from;
	if (row)
		extent_encode(row, &part);
	c->blocks += to - from;
}

/* What of an extent nobody else has, and the rest told. */
static void extent_cut(struct cut *c, const struct extent *e)
{
	const struct rmap *all = c->specials->data;
	uint64_t at = e->dev_blk, end = e->dev_blk + e->count_blk;

	for (size_t i = special_find(c->specials, at); i < c->specials->count && at < end; i++) {
		uint64_t lo = u64_max(all[i].start_blk, at), hi;

		if (lo >= end)
			break;
		hi = u64_min(all[i].start_blk + all[i].count_blk, end);
		extent_keep(c, e, at, lo);
		if (hi > lo) {
			c->any = true;
			repair_told(c->rp, REPAIR_LOST,
				    "%s: blocks %" PRIu64 " to %" PRIu64 " of it lie where metadata does",
				    c->path, e->file_blk + (lo - e->dev_blk),
				    e->file_blk + (hi - e->dev_blk) - 1);
			at = hi;
		}
	}
	extent_keep(c, e, at, end);
}

static void cut_body(struct cut *c, const struct m_node_body *body)
{
	for (unsigned i = 0; i < node_count(body); i++) {
		if (node_level(body) == 0) {
			struct extent e;

			extent_decode(&e, (const struct m_extent *)(const void *)body->nb_space + i);
			extent_cut(c, &e);
		} else if (c->left > 0) {
			const le64 *w = (const le64 *)(const void *)body->nb_space + (size_t)i * 2;
			struct m_node *node = aligned_alloc(64, sizeof(*node));
			const struct m_node_body *child;

			c->left--;
			if (!node) {
				c->rp->error = -ENOMEM;
				return;
			}
			child = (const void *)node->nd_body;
			if (repair_unit_read(c->rp, le64_get(w[1]), MAGIC_NODE, c->seen->ino, node) &&
			    node_level(child) + 1u == node_level(body) && child->nb_kind == NODE_EXTENT)
				cut_body(c, child);
			free(node);
		}
	}
}

static int inode_cut(struct repair *rp, const struct rows *specials, struct seen_inode *seen, bool *changed)
{
	uint64_t laddr = seen->ino << INODE_SHIFT;
	struct cut c = {
		.rp = rp, .specials = specials, .seen = seen, .left = (unsigned)rp->facts->report->nodes + 1
	};
	_Alignas(64) struct m_inode m;
	int rc = 0;

	if (!repair_unit_read(rp, laddr, MAGIC_INODE, seen->ino, &m) || m.di_data_format != DATA_EXTENTS)
		return 0;
	repair_path(rp, seen->ino, c.path);
	cut_body(&c, (const void *)m.di_data);
	rc = rp->error ? rp->error : rp->facts->error;
	if (!rc && c.any) {
		m.di_blocks = le64_of(c.blocks);
		rc = repair_bulk(rp, pool_laddr_ag(rp->pool, laddr), NODE_EXTENT, seen->ino, c.kept.data,
				 c.kept.count, m.di_data, INODE_DATA_SIZE);
		if (!rc)
			rc = repair_unit_write(rp, laddr, MAGIC_INODE, &m);
		*changed = *changed || rc == 0;
	}
	rows_free(&c.kept);
	return rc;
}

/* ---- chunks ---- */

static bool chunk_is_empty(const struct repair *rp, uint64_t lchunk)
{
	static const uint64_t none[CHUNK_UNIT_WORDS];

	return lchunk % rp->facts->ag_chunks != 0 &&
	       memcmp(rp->facts->reached[lchunk], none, sizeof(none)) == 0;
}

/* Gives the chunk back: in its table it is not there any more. */
static int chunk_drop(struct repair *rp, uint64_t lchunk)
{
	uint32_t agno = (uint32_t)(lchunk / rp->facts->ag_chunks);
	uint32_t slot = (uint32_t)(lchunk % rp->facts->ag_chunks);
	uint64_t laddr = pool_ag_unit(rp->pool, agno, AG_UNIT_TABLE + slot / CHUNKS_PER_UNIT);
	_Alignas(64) struct m_chunks m;
	int rc;

	if (!repair_unit_read(rp, laddr, MAGIC_CHUNKS, 0, &m))
		return 0;
	m.ct_chunks[slot % CHUNKS_PER_UNIT] = (struct m_chunk){ 0 };
	rc = repair_unit_write(rp, laddr, MAGIC_CHUNKS, &m);
	if (rc)
		return rc;
	pool_chunk_set(rp->pool, lchunk, 0, 0);
	memset(rp->facts->used[lchunk], 0, sizeof(rp->facts->used[lchunk]));
	repair_told(rp, REPAIR_MENDED, "group %u: a metadata chunk without content, where files lie", agno);
	return 0;
}

struct conflicts {
	struct repair *rp;
	struct rows specials;
	struct rows inodes; /* uint64_t */
	bool changed;
};

/* The owners that a file's extent collides with: chunks that can go do so. True: others stay. */
static bool extent_collides(struct conflicts *c, const struct rmap *r, int *rc)
{
	const struct rmap *all = c->specials.data;
	uint64_t end = r->start_blk + r->count_blk;
	bool collides = false;

	for (size_t i = special_find(&c->specials, r->start_blk); i < c->specials.count && !*rc; i++) {
		bool is_chunk = all[i].owner == OWNER_META || all[i].owner == OWNER_MIRROR;

		if (all[i].start_blk >= end)
			break;
		if (!is_chunk || !chunk_is_empty(c->rp, all[i].offset_blk)) {
			collides = true;
			continue;
		}
		*rc = chunk_drop(c->rp, all[i].offset_blk);
		c->changed = true;
	}
	return collides;
}

static int ino_compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int conflicts_find(struct conflicts *c)
{
	const struct rmap *owners = c->rp->facts->owners.data;
	int rc = special_owners(c->rp, &c->specials);

	for (size_t i = 0; i < c->rp->facts->owners.count && !rc; i++) {
		uint64_t *row;

		if (owners[i].owner & OWNER_SPECIAL || !extent_collides(c, &owners[i], &rc))
			continue;
		row = rows_add(c->rp->facts, &c->inodes, sizeof(*row));
		if (!row)
			return -ENOMEM;
		*row = owners[i].owner;
	}
	return rc;
}

int repair_conflicts(struct repair *rp, bool *changed)
{
	struct conflicts c = { .rp = rp };
	const uint64_t *inos;
	int rc = conflicts_find(&c);

	/* Chunks that went leave facts that are no longer true: the rest in another round. */
	inos = c.inodes.data;
	if (c.inodes.count)
		qsort(c.inodes.data, c.inodes.count, sizeof(*inos), ino_compare);
	for (size_t i = 0; i < c.inodes.count && !rc && !c.changed; i++) {
		struct seen_inode *seen = seen_inode_find(rp->facts, inos[i]);

		if (seen && (i == 0 || inos[i - 1] != inos[i]))
			rc = inode_cut(rp, &c.specials, seen, changed);
	}
	*changed = *changed || c.changed;
	rows_free(&c.specials);
	rows_free(&c.inodes);
	return rc;
}
