/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Groups made anew: trees, bitmap, used maps, counters.
 *
 * Order for one group: flags of inodes, new nodes, header, chunk table, bitmap. What the header no longer leads to is given back
 * after it: a run that is killed before finds all that it needs, and after it only maps that can be made again.
 */
#include "repair/groups.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define UNKNOWN_TOLD_MAX 16u
#define PASSES_MAX 8 /* new metadata chunks change what groups have to say: twice in practice */

struct group_make {
	struct repair *rp;
	uint32_t agno;
	struct group_space space;
	struct m_ag *header;
	bool kept[AG_TREES];
	struct rows nodes; /* struct seen_node: new ones */
};

/* ---- records ---- */

struct record {
	le64 w[4];
};

static int record_compare(const void *a, const void *b)
{
	const struct record *x = a, *y = b;

	for (unsigned i = 0; i < 2; i++) {
		if (le64_get(x->w[i]) != le64_get(y->w[i]))
			return le64_get(x->w[i]) < le64_get(y->w[i]) ? -1 : 1;
	}
	return 0;
}

struct collect {
	struct group_make *g;
	enum ag_tree which;
	struct rows rows; /* struct record */
};

static int inode_flag(struct repair *rp, struct seen_inode *seen, uint32_t flag)
{
	uint64_t laddr = seen->ino << INODE_SHIFT;
	_Alignas(64) struct m_inode m;

	if (!repair_unit_read(rp, laddr, MAGIC_INODE, seen->ino, &m))
		return 0;
	m.di_flags = le32_of(le32_get(m.di_flags) | flag);
	return repair_unit_write(rp, laddr, MAGIC_INODE, &m);
}

static bool orphan_fits(const struct group_make *g, const struct m_orphan *m)
{
	uint64_t ino = le64_get(m->or_ino);
	const struct seen_inode *seen = seen_inode_find(g->rp->facts, ino);

	return seen && pool_laddr_ag(g->rp->pool, ino << INODE_SHIFT) == g->agno &&
	       (seen->mode_fmt == 0 || seen->gen == le64_get(m->or_gen));
}

static bool range_is_inside(uint64_t blk, uint64_t count_blk, uint64_t start_blk, uint64_t end_blk)
{
	return blk >= start_blk && blk < end_blk && count_blk <= end_blk - blk;
}

static bool forward_fits(const struct group_make *g, const struct m_forward *m)
{
	uint64_t count = le32_get(m->fw_count_blk);

	return range_is_inside(le64_get(m->fw_old_blk), count, g->space.start_blk, g->space.end_blk) &&
	       range_is_inside(le64_get(m->fw_new_blk), count, 0, g->rp->super->size_blk);
}

static bool loss_fits(struct group_make *g, const struct m_loss *m)
{
	struct seen_inode *seen = seen_inode_find(g->rp->facts, le64_get(m->ls_ino));

	if (seen && !(seen->flags & SEEN_LOST) && inode_flag(g->rp, seen, INODE_LOST) == 0)
		seen->flags |= SEEN_LOST;
	return seen != NULL;
}

static bool record_seen(void *arg, const void *rec)
{
	struct collect *c = arg;
	size_t size = node_ops(ag_tree_kind(c->which))->rec_size_bytes;
	bool fits = c->which == AG_ORPHANS  ? orphan_fits(c->g, rec) :
		    c->which == AG_FORWARDS ? forward_fits(c->g, rec) :
					      loss_fits(c->g, rec);
	struct record *row;

	if (!fits)
		return true;
	row = rows_add(c->g->rp->facts, &c->rows, sizeof(*row));
	if (row) {
		*row = (struct record){ 0 };
		memcpy(row, rec, size);
	}
	return true;
}

/* Sorted, each key once, nothing that overlaps what is before it. */
static size_t records_pack(struct collect *c)
{
	const struct node_ops *ops = node_ops(ag_tree_kind(c->which));
	struct record *all = c->rows.data;
	uint8_t *out = c->rows.data;
	size_t count = 0;

	if (c->rows.count)
		qsort(all, c->rows.count, sizeof(*all), record_compare);
	for (size_t i = 0; i < c->rows.count; i++) {
		struct record r = all[i];
		const uint8_t *last = count ? out + (count - 1) * ops->rec_size_bytes : NULL;
		struct bt_key key, last_key;

		ops->rec_key(&r, &key);
		if (last)
			ops->rec_key(last, &last_key);
		if (last && (bt_key_compare(&last_key, &key, ops->key_words) >= 0 ||
			     (ops->rec_high && ops->rec_high(last) >= key.w[0])))
			continue;
		memcpy(out + count++ * ops->rec_size_bytes, &r, ops->rec_size_bytes);
	}
	return count;
}

/* ---- trees ---- */

static bool tree_is_kept(const struct group_make *g, enum ag_tree which)
{
	const struct check_ag *ag = &g->rp->facts->ags[g->agno];
	bool of_owners = which == AG_RMAP || which == AG_REFCOUNT;

	return ag->header && !(ag->damage & GROUP_TREE(which)) &&
	       !(of_owners && (ag->damage & GROUP_OWNERS || g->rp->redo[g->agno]));
}

static int tree_bulk(struct group_make *g, enum ag_tree which, const void *recs, size_t count)
{
	struct repair *rp = g->rp;
	int rc;

	rp->fresh.count = 0;
	rc = repair_bulk(rp, g->agno, ag_tree_kind(which), OWNER_AG, recs, count, g->header->ag_roots[which],
			 AG_ROOT_SIZE);
	for (size_t i = 0; i < rp->fresh.count; i++) {
		struct seen_node *node = rows_add(rp->facts, &g->nodes, sizeof(*node));

		if (node)
			*node = (struct seen_node){ ((const uint64_t *)rp->fresh.data)[i], g->agno,
						    ag_tree_kind(which) };
	}
	return rc;
}

static int rmap_bulk(struct group_make *g)
{
	const struct rmap *r = g->space.rmap.data;
	struct m_rmap *recs = malloc((g->space.rmap.count + 1) * sizeof(*recs));
	int rc;

	if (!recs)
		return -ENOMEM;
	for (size_t i = 0; i < g->space.rmap.count; i++)
		rmap_encode(&recs[i], &r[i]);
	rc = tree_bulk(g, AG_RMAP, recs, g->space.rmap.count);
	free(recs);
	return rc;
}

static int refcount_bulk(struct group_make *g)
{
	const struct refcount *r = g->space.shared.data;
	struct m_refcount *recs = malloc((g->space.shared.count + 1) * sizeof(*recs));
	int rc;

	if (!recs)
		return -ENOMEM;
	for (size_t i = 0; i < g->space.shared.count; i++)
		refcount_encode(&recs[i], &r[i]);
	rc = tree_bulk(g, AG_REFCOUNT, recs, g->space.shared.count);
	free(recs);
	return rc;
}

static uint32_t ino_group(const struct repair *rp, uint64_t ino)
{
	return pool_laddr_ag(rp->pool, ino << INODE_SHIFT);
}

static int inodes_bulk(struct group_make *g)
{
	const struct check *ck = g->rp->facts;
	const struct seen_cluster *c = ck->clusters.data;
	struct m_inode_cluster *recs = malloc((ck->clusters.count + 1) * sizeof(*recs));
	size_t count = 0;
	int rc;

	if (!recs)
		return -ENOMEM;
	for (size_t i = 0; i < ck->clusters.count; i++) {
		if (ino_group(g->rp, c[i].first_ino) == g->agno)
			recs[count++] =
				(struct m_inode_cluster){ le64_of(c[i].first_ino), le64_of(c[i].free_mask) };
	}
	rc = tree_bulk(g, AG_INODES, recs, count);
	free(recs);
	return rc;
}

/* Sorted by inode. */
static bool has_losses(const struct m_loss *all, size_t count, uint64_t ino)
{
	size_t lo = 0, hi = count;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (le64_get(all[mid].ls_ino) < ino)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < count && le64_get(all[lo].ls_ino) == ino;
}

/* Files with losses that may have had more records than were found. */
static void losses_told(struct group_make *g, const struct m_loss *all, size_t count)
{
	struct check *ck = g->rp->facts;
	bool leaf_lost = ck->ags[g->agno].header && g->rp->incomplete;
	const struct seen_inode *in = ck->inodes.data;
	char path[REPAIR_PATH_SIZE];

	for (size_t i = 0; i < ck->inodes.count; i++) {
		if (!(in[i].flags & SEEN_LOST) || ino_group(g->rp, in[i].ino) != g->agno ||
		    (!leaf_lost && has_losses(all, count, in[i].ino)))
			continue;
		repair_path(g->rp, in[i].ino, path);
		repair_told(g->rp, REPAIR_LOST, "%s: which of its blocks are lost is not known any more",
			    path);
	}
}

static int records_bulk(struct group_make *g, enum ag_tree which)
{
	struct collect c = { .g = g, .which = which };
	size_t count;
	int rc = 0;

	g->rp->incomplete = false;
	if (!repair_group_each(g->rp, g->agno, which, record_seen, &c))
		rc = -ENOMEM;
	count = records_pack(&c);
	if (!rc && which == AG_LOSSES)
		losses_told(g, c.rows.data, count);
	if (!rc && which == AG_FORWARDS && g->rp->incomplete && g->rp->facts->ags[g->agno].header)
		repair_told(g->rp, REPAIR_LOST, "group %u: where some of its blocks have moved to", g->agno);
	if (!rc)
		rc = tree_bulk(g, which, c.rows.data, count);
	rows_free(&c.rows);
	return rc;
}

static int tree_make(struct group_make *g, enum ag_tree which)
{
	if (g->kept[which]) {
		memcpy(g->header->ag_roots[which], g->rp->facts->ags[g->agno].header->ag_roots[which],
		       AG_ROOT_SIZE);
		return 0;
	}
	switch (which) {
	case AG_RMAP:
		return rmap_bulk(g);
	case AG_REFCOUNT:
		return refcount_bulk(g);
	case AG_INODES:
		return inodes_bulk(g);
	default:
		return records_bulk(g, which);
	}
}

/* ---- flags of inodes ---- */

static int sharers_flag(struct group_make *g)
{
	const struct rmap *r = g->space.rmap.data;
	const struct refcount *shared = g->space.shared.data;
	char path[REPAIR_PATH_SIZE];
	size_t first = 0;

	for (size_t i = 0; i < g->space.rmap.count; i++) {
		struct seen_inode *seen;
		int rc;

		while (first < g->space.shared.count &&
		       shared[first].start_blk + shared[first].count_blk <= r[i].start_blk)
			first++;
		if (first == g->space.shared.count)
			return 0;
		if (r[i].owner & OWNER_SPECIAL || shared[first].start_blk >= r[i].start_blk + r[i].count_blk)
			continue;
		seen = seen_inode_find(g->rp->facts, r[i].owner);
		if (!seen || seen->mode_fmt == 0 || seen->flags & SEEN_SHARED)
			continue;
		rc = inode_flag(g->rp, seen, INODE_SHARED);
		if (rc)
			return rc;
		seen->flags |= SEEN_SHARED;
		repair_path(g->rp, seen->ino, path);
		repair_told(g->rp, REPAIR_MENDED, "%s: shares blocks with another file, and knows it now",
			    path);
	}
	return 0;
}

/* ---- used maps ---- */

static void unit_mark(struct check *ck, uint64_t laddr, bool used)
{
	uint64_t lchunk = laddr >> CHUNK_SHIFT;
	unsigned unit = (unsigned)(laddr >> BLOCK_SHIFT) % CHUNK_BLOCKS;

	if (used)
		ck->reached[lchunk][unit / 64] |= 1ull << unit % 64;
	else
		ck->reached[lchunk][unit / 64] &= ~(1ull << unit % 64);
}

static bool node_is_old(const struct group_make *g, const struct seen_node *node)
{
	if (node->agno != g->agno)
		return false;
	for (unsigned i = 0; i < AG_TREES; i++) {
		if (ag_tree_kind((enum ag_tree)i) == (enum node_kind)node->kind)
			return !g->kept[i];
	}
	return false;
}

/* From here on the facts say what the new header says. */
static void nodes_exchange(struct group_make *g)
{
	struct check *ck = g->rp->facts;
	struct seen_node *all = ck->ag_nodes.data;
	size_t out = 0;

	for (size_t i = 0; i < ck->ag_nodes.count; i++) {
		uint64_t laddr = all[i].laddr;
		unsigned unit = (unsigned)(laddr >> BLOCK_SHIFT) % CHUNK_BLOCKS;

		if (!node_is_old(g, &all[i])) {
			all[out++] = all[i];
			continue;
		}
		unit_mark(ck, laddr, false);
		g->rp->taken[laddr >> CHUNK_SHIFT][unit / 64] &= ~(1ull << unit % 64);
	}
	ck->ag_nodes.count = out;
	for (size_t i = 0; i < g->nodes.count; i++) {
		const struct seen_node *node = (const struct seen_node *)g->nodes.data + i;
		struct seen_node *row = rows_add(ck, &ck->ag_nodes, sizeof(*row));

		if (row)
			*row = *node;
		unit_mark(ck, node->laddr, true);
	}
	g->rp->cursors[g->agno] = (struct repair_cursor){ 0 };
}

static unsigned used_count(const uint64_t *words)
{
	unsigned count = 0;

	for (unsigned i = 0; i < CHUNK_UNIT_WORDS; i++)
		count += (unsigned)__builtin_popcountll(words[i]);
	return count;
}

/* As it will be with the new nodes and without the old ones. */
static unsigned used_count_new(const struct group_make *g, uint64_t lchunk)
{
	const struct check *ck = g->rp->facts;
	const struct seen_node *old = ck->ag_nodes.data, *new = g->nodes.data;
	uint64_t words[CHUNK_UNIT_WORDS];

	memcpy(words, ck->reached[lchunk], sizeof(words));
	for (size_t i = 0; i < ck->ag_nodes.count; i++) {
		unsigned unit = (unsigned)(old[i].laddr >> BLOCK_SHIFT) % CHUNK_BLOCKS;

		if (old[i].laddr >> CHUNK_SHIFT == lchunk && node_is_old(g, &old[i]))
			words[unit / 64] &= ~(1ull << unit % 64);
	}
	for (size_t i = 0; i < g->nodes.count; i++) {
		unsigned unit = (unsigned)(new[i].laddr >> BLOCK_SHIFT) % CHUNK_BLOCKS;

		if (new[i].laddr >> CHUNK_SHIFT == lchunk)
			words[unit / 64] |= 1ull << unit % 64;
	}
	return used_count(words);
}

static uint64_t table_laddr(const struct group_make *g, uint32_t index)
{
	return pool_ag_unit(g->rp->pool, g->agno, AG_UNIT_TABLE + index);
}

/* fn for each slot that has a place; unit by unit. */
static int tables_each(struct group_make *g,
		       int (*fn)(struct group_make *g, uint64_t lchunk, struct m_chunk *c), bool write)
{
	uint32_t ag_chunks = g->rp->facts->ag_chunks;
	_Alignas(64) struct m_chunks m, old;

	for (uint32_t i = 0; i < ag_table_units(ag_chunks); i++) {
		int rc = 0;

		if (!repair_unit_read(g->rp, table_laddr(g, i), MAGIC_CHUNKS, 0, &m))
			continue;
		old = m;
		for (uint32_t k = 0; k < CHUNKS_PER_UNIT; k++) {
			uint32_t slot = i * CHUNKS_PER_UNIT + k;

			if (slot < ag_chunks && le32_get(m.ct_chunks[k].ck_primary) != 0)
				rc = fn(g, (uint64_t)g->agno * ag_chunks + slot, &m.ct_chunks[k]);
			else
				m.ct_chunks[k] = (struct m_chunk){ 0 };
		}
		if (rc || !write || (memcmp(&m, &old, sizeof(m)) == 0 && unit_owner(&m) == OWNER_AG))
			continue;
		m.ct_hdr.uh_owner = le64_of(OWNER_AG);
		rc = repair_unit_write(g->rp, table_laddr(g, i), MAGIC_CHUNKS, &m);
		if (rc)
			return rc;
	}
	return 0;
}

static int slot_count(struct group_make *g, uint64_t lchunk, struct m_chunk *c)
{
	(void)c;
	g->header->ag_meta_chunks = le32_of(le32_get(g->header->ag_meta_chunks) + 1);
	g->header->ag_meta_free_units =
		le32_of(le32_get(g->header->ag_meta_free_units) + CHUNK_BLOCKS - used_count_new(g, lchunk));
	return 0;
}

static int slot_update(struct group_make *g, uint64_t lchunk, struct m_chunk *c)
{
	struct check *ck = g->rp->facts;
	const uint64_t *words = ck->reached[lchunk];

	for (unsigned unit = 0; unit < CHUNK_BLOCKS; unit += 8)
		c->ck_used[unit / 8] = (uint8_t)(words[unit / 64] >> unit % 64);
	c->ck_used_count = le32_of(used_count(words));
	memcpy(ck->used[lchunk], words, sizeof(ck->used[lchunk]));
	return 0;
}

/* ---- bitmap ---- */

static int bitmap_write(struct group_make *g)
{
	uint32_t ag_chunks = g->rp->facts->ag_chunks;
	uint32_t chunks = (uint32_t)(super_ag_length_blk(g->rp->super, g->agno) / CHUNK_BLOCKS);
	_Alignas(64) struct m_bitmap m, old;
	size_t next = 0;

	for (uint32_t i = 0; i < ag_bitmap_units(ag_chunks); i++) {
		uint64_t laddr =
			pool_ag_unit(g->rp->pool, g->agno, AG_UNIT_TABLE + ag_table_units(ag_chunks) + i);
		uint32_t first = i * BITMAP_CHUNKS_PER_UNIT;
		bool sound = repair_unit_read(g->rp, laddr, MAGIC_BITMAP, OWNER_AG, &old);
		int rc;

		memset(&m, 0, sizeof(m));
		if (sound)
			m.bm_hdr = old.bm_hdr;
		m.bm_hdr.uh_owner = le64_of(OWNER_AG);
		for (uint32_t k = 0; k < BITMAP_CHUNKS_PER_UNIT && first + k < chunks; k++)
			group_space_bits(&g->space, first + k, &next, m.bm_bits[k]);
		if (sound && memcmp(&m, &old, sizeof(m)) == 0)
			continue;
		rc = repair_unit_write(g->rp, laddr, MAGIC_BITMAP, &m);
		if (rc)
			return rc;
	}
	return 0;
}

/* ---- one group ---- */

static void header_counts(struct group_make *g)
{
	const struct check *ck = g->rp->facts;
	const struct seen_cluster *c = ck->clusters.data;
	uint64_t inodes = 0, free = 0;

	for (size_t i = 0; i < ck->clusters.count; i++) {
		if (ino_group(g->rp, c[i].first_ino) != g->agno)
			continue;
		inodes += CLUSTER_INODES - (c[i].first_ino == 0);
		free += (uint64_t)__builtin_popcountll(c[i].free_mask);
	}
	g->header->ag_index = le32_of(g->agno);
	g->header->ag_length_blk = le64_of(super_ag_length_blk(g->rp->super, g->agno));
	g->header->ag_free_blk = le64_of(g->space.free_blk);
	g->header->ag_inode_count = le64_of(inodes);
	g->header->ag_inode_free = le64_of(free);
	ag_super_encode(&g->header->ag_super, g->rp->super);
}

static int group_write(struct group_make *g)
{
	struct check_ag *ag = &g->rp->facts->ags[g->agno];
	uint64_t laddr = pool_ag_unit(g->rp->pool, g->agno, AG_UNIT_HEADER);
	int rc;

	header_counts(g);
	rc = tables_each(g, slot_count, false);
	if (rc)
		return rc;
	g->header->ag_hdr.uh_owner = le64_of(OWNER_AG);
	rc = repair_unit_write(g->rp, laddr, MAGIC_AG, g->header);
	if (rc)
		return rc;
	free(ag->header);
	ag->header = g->header;
	g->header = NULL;
	ag->damage = 0;
	nodes_exchange(g);
	rc = tables_each(g, slot_update, true);
	return rc ? rc : bitmap_write(g);
}

static void group_told(struct repair *rp, uint32_t agno, uint32_t damage)
{
	static const struct {
		uint32_t bit;
		const char *what;
	} parts[] = {
		{ GROUP_HEADER, "header" },
		{ GROUP_TREE(AG_REFCOUNT), "reference counts" },
		{ GROUP_TREE(AG_RMAP), "rmap" },
		{ GROUP_TREE(AG_INODES), "tree of inodes" },
		{ GROUP_TREE(AG_ORPHANS), "orphans" },
		{ GROUP_TREE(AG_FORWARDS), "forward records" },
		{ GROUP_TREE(AG_LOSSES), "loss records" },
		{ GROUP_TABLE, "used maps" },
		{ GROUP_OWNERS, "owners of blocks" },
		{ GROUP_COUNTERS, "counters" },
	};
	char text[256] = "";

	for (unsigned i = 0; i < ARRAY_SIZE(parts); i++) {
		if (!(damage & parts[i].bit))
			continue;
		if (*text)
			strncat(text, ", ", sizeof(text) - strlen(text) - 1);
		strncat(text, parts[i].what, sizeof(text) - strlen(text) - 1);
	}
	if (*text)
		repair_told(rp, REPAIR_MENDED, "group %u: made anew: %s", agno, text);
}

/* What is said of bad memory where its records are lost. */
static void bad_told(struct repair *rp, const struct group_space *g)
{
	const struct repair_hole *hole = g->unknown.data;
	size_t told = u64_min(g->unknown.count, UNKNOWN_TOLD_MAX);

	if (g->kept_blk)
		repair_told(
			rp, REPAIR_MENDED,
			"group %u: %" PRIu64
			" blocks that nobody has stay out of use, as in bad memory: what said why is lost",
			g->agno, g->kept_blk);
	if (g->kept_of_files_blk)
		repair_told(rp, REPAIR_MENDED,
			    "group %u: %" PRIu64 " blocks of files are in bad memory still", g->agno,
			    g->kept_of_files_blk);
	for (size_t i = 0; i < told; i++)
		repair_told(rp, REPAIR_LOST,
			    "group %u: records of bad memory in blocks %" PRIu64 " to %" PRIu64
			    ", if there were any",
			    g->agno, hole[i].start_blk, hole[i].end_blk - 1);
	if (told < g->unknown.count)
		repair_told(rp, REPAIR_LOST, "group %u: and those in %zu more ranges of blocks", g->agno,
			    g->unknown.count - told);
}

static int group_make(struct repair *rp, uint32_t agno)
{
	struct group_make g = { .rp = rp, .agno = agno };
	uint32_t damage = rp->facts->ags[agno].damage & ~GROUP_UNITS;
	int rc = group_space_make(&g.space, rp, agno);

	g.header = aligned_alloc(64, sizeof(*g.header));
	if (!rc && !g.header)
		rc = -ENOMEM;
	if (!rc) {
		memset(g.header, 0, sizeof(*g.header));
		rc = sharers_flag(&g);
	}
	for (unsigned i = 0; i < AG_TREES; i++)
		g.kept[i] = tree_is_kept(&g, (enum ag_tree)i);
	rp->redo[agno] = 0;
	for (unsigned i = 0; i < AG_TREES && !rc; i++)
		rc = tree_make(&g, (enum ag_tree)i);
	if (!rc)
		rc = rp->facts->error;
	if (!rc)
		rc = group_write(&g);
	if (!rc) {
		group_told(rp, agno, damage);
		bad_told(rp, &g.space);
	}
	free(g.header);
	rows_free(&g.nodes);
	group_space_free(&g.space);
	return rc;
}

static bool group_is_due(const struct repair *rp, uint32_t agno)
{
	return rp->redo[agno] || rp->facts->ags[agno].damage & ~GROUP_UNITS;
}

int repair_groups(struct repair *rp)
{
	uint32_t count = rp->super->ag_count;
	bool again = true;

	rp->inodes_are_done = true;
	for (unsigned pass = 0; pass < PASSES_MAX && again; pass++) {
		again = false;
		for (uint32_t agno = 0; agno < count; agno++) {
			int rc;

			if (!repair_step(rp, "groups", agno, count))
				return rp->error;
			if (!group_is_due(rp, agno))
				continue;
			again = true;
			rc = group_make(rp, agno);
			if (rc == -ENOSPC) {
				repair_told(rp, REPAIR_LEFT, "group %u: no space for its new trees", agno);
				rp->facts->ags[agno].damage = 0;
				rp->redo[agno] = 0;
			} else if (rc) {
				return rc;
			}
		}
	}
	return 0;
}
