/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inode numbers: clusters of 64 in 8 units that lie together, a record with a mask of free ones for each in the group's inode
 * tree. Only that tree says what is an inode.
 *
 * In DRAM each group has a bit for each run of 8 units: a cluster that may have free inodes. A bit may be set wrongly (the tree
 * is asked before it is believed), and is never missing for a cluster below clusters_seen.
 */
#include <errno.h>
#include <string.h>

#include "space/priv.h"
#include "util/sabotage.h"

/*
 * Free inodes that stay in a group when it gives back a cluster. Fewer than the cluster that is never given back has, so that of
 * files that are all deleted no cluster stays, and with it no chunk.
 */
#define INODES_SPARE (CLUSTER_INODES / 2)

struct cluster {
	uint64_t first_ino, free_mask;
};

static uint64_t cluster_bit(uint64_t first_ino)
{
	return 1ull << laddr_unit(first_ino << INODE_SHIFT) / CLUSTER_UNITS;
}

static uint32_t cluster_slot(const struct group *g, uint64_t first_ino)
{
	return laddr_slot(g, first_ino << INODE_SHIFT);
}

/* The group's first cluster always is there. */
static bool cluster_stays(const struct group *g, uint64_t first_ino)
{
	return first_ino << INODE_SHIFT == slot_laddr(g, 0, 0);
}

static void cluster_mark(struct group *g, uint64_t first_ino)
{
	uint32_t slot = cluster_slot(g, first_ino);

	g->clusters[slot] |= cluster_bit(first_ino);
	if (slot < g->clusters_low)
		g->clusters_low = slot;
}

static void cluster_unmark(struct group_tx *at, uint64_t first_ino)
{
	uint32_t slot = cluster_slot(at->g, first_ino);

	units_note(at, slot, cluster_bit(first_ino));
	at->g->clusters[slot] &= ~cluster_bit(first_ino);
}

static int cluster_read(struct bt_cursor *cur, struct cluster *c)
{
	const struct m_inode_cluster *m;
	const void *rec;
	size_t size;
	int rc = bt_get(cur, &rec, &size);

	if (rc)
		return rc;
	m = rec;
	c->first_ino = le64_get(m->ic_first_ino);
	c->free_mask = le64_get(m->ic_free_mask);
	return 0;
}

static void cluster_encode(struct m_inode_cluster *m, const struct cluster *c)
{
	m->ic_first_ino = le64_of(c->first_ino);
	m->ic_free_mask = le64_of(c->free_mask);
}

/* The record of exactly that cluster. -ENOENT. */
static int cluster_find(struct group_tx *at, uint64_t first_ino, struct bt_cursor *cur, struct cluster *c)
{
	struct bt_key key = { { first_ino } };
	int rc = bt_seek(group_tree(at, AG_INODES), cur, &key, BT_GE);

	if (!rc)
		rc = cluster_read(cur, c);
	return !rc && c->first_ino != first_ino ? -ENOENT : rc;
}

/* Goes on over the records that have not been seen since the group was loaded, to the first with free inodes. -ENOENT: no more. */
static int clusters_scan(struct group_tx *at)
{
	struct group *g = at->g;
	struct bt_key key = { { g->clusters_seen } };
	struct bt_cursor cur;
	struct cluster c;
	int rc;

	if (g->clusters_seen == UINT64_MAX)
		return -ENOENT;
	for (rc = bt_seek(group_tree(at, AG_INODES), &cur, &key, BT_GE); !rc; rc = bt_next(&cur)) {
		rc = cluster_read(&cur, &c);
		if (rc)
			return rc;
		if (c.first_ino << INODE_SHIFT < slot_laddr(g, 0, 0) ||
		    c.first_ino << INODE_SHIFT >= slot_laddr(g, g->space->ag_chunks, 0))
			return -EUCLEAN;
		g->clusters_seen = c.first_ino + 1;
		if (c.free_mask != 0) {
			cluster_mark(g, c.first_ino);
			if (c.free_mask == ~0ull && !cluster_stays(g, c.first_ino))
				g->cluster_empty = c.first_ino;
			return 0;
		}
	}
	if (rc == -ENOENT)
		g->clusters_seen = UINT64_MAX;
	return rc;
}

/* The lowest cluster that may have free inodes. -ENOENT: none. */
static int clusters_lowest(struct group_tx *at, uint64_t *first_ino)
{
	struct group *g = at->g;
	int rc = 0;

	while (!rc) {
		while (g->clusters_low < g->slot_end && g->clusters[g->clusters_low] == 0)
			g->clusters_low++;
		if (g->clusters_low < g->slot_end) {
			unsigned bit = (unsigned)__builtin_ctzll(g->clusters[g->clusters_low]);

			*first_ino = slot_laddr(g, g->clusters_low, bit * CLUSTER_UNITS) >> INODE_SHIFT;
			return 0;
		}
		rc = clusters_scan(at);
	}
	return rc;
}

/* A number from a cluster that has free ones. -ENOENT: the group has none. */
static int inode_take(struct group_tx *at, uint64_t *ino)
{
	struct m_inode_cluster m;
	struct bt_cursor cur;
	struct cluster c;
	uint64_t first_ino;
	int rc;

	do {
		rc = clusters_lowest(at, &first_ino);
		if (rc)
			return rc;
		rc = cluster_find(at, first_ino, &cur, &c);
		if (rc && rc != -ENOENT)
			return rc;
		if (rc || c.free_mask == 0)
			cluster_unmark(at, first_ino);
	} while (rc || c.free_mask == 0);
	*ino = c.first_ino + (unsigned)__builtin_ctzll(c.free_mask);
	c.free_mask &= c.free_mask - 1;
	if (c.free_mask == 0)
		cluster_unmark(at, first_ino);
	cluster_encode(&m, &c);
	rc = sabotage_point("inode-used") ? 0 : bt_replace(&cur, &m, sizeof(m));
	if (rc)
		return rc;
	at->now.inode_free--;
	return group_counts_put(at);
}

/* A new cluster in the group. */
static int cluster_make(struct group_tx *at)
{
	struct cluster c = { .free_mask = ~0ull };
	struct m_inode_cluster m;
	uint64_t laddr;
	int rc = meta_take(at, slot_laddr(at->g, at->g->slot_low, 0), CLUSTER_UNITS, UNITS_KEEP_INODES,
			   &laddr);

	if (rc)
		return rc;
	c.first_ino = laddr >> INODE_SHIFT;
	cluster_encode(&m, &c);
	rc = bt_insert(group_tree(at, AG_INODES), &m, sizeof(m));
	if (rc)
		return rc == -EEXIST ? -EUCLEAN : rc;
	cluster_mark(at->g, c.first_ino);
	at->now.inode_count += CLUSTER_INODES;
	at->now.inode_free += CLUSTER_INODES;
	return group_counts_put(at);
}

static int group_inode_alloc(struct txn *tx, struct group *g, uint64_t *ino)
{
	struct group_tx *at;
	int rc = group_enter(tx, g->agno, &at);

	if (rc)
		return rc;
	rc = at->now.inode_free > 0 ? inode_take(at, ino) : -ENOENT;
	if (rc == -ENOENT) {
		rc = cluster_make(at);
		if (!rc)
			rc = inode_take(at, ino);
		if (rc == -ENOENT)
			rc = -EUCLEAN;
	}
	return rc;
}

/* Whether it is worth asking a group, without its lock. */
static bool group_has_inodes(struct group *g)
{
	if (group_load(g))
		return false;
	return g->inode_free > 0 || g->meta_free >= group_units_keep(g, UNITS_KEEP_INODES) + CLUSTER_UNITS ||
	       refill_possible(g, false);
}

int space_inode_alloc(struct txn *tx, uint32_t agno_hint, uint64_t *ino)
{
	struct space *space = space_of(txn_pool(tx));

	for (uint32_t i = 0; i < space->ag_count; i++) {
		struct group *g = &space->groups[(agno_hint + i) % space->ag_count];
		int rc;

		if (!group_has_inodes(g))
			continue;
		rc = group_inode_alloc(tx, g, ino);
		if (rc != -ENOSPC)
			return rc;
	}
	return -ENOSPC;
}

/* The group that a number would belong to; false: it is no number at all. */
static bool ino_group(const struct space *space, uint64_t ino, uint32_t *agno)
{
	uint64_t lchunk = ino >> (CHUNK_SHIFT - INODE_SHIFT);

	*agno = (uint32_t)(lchunk / space->ag_chunks);
	return ino != 0 && lchunk / space->ag_chunks < space->ag_count;
}

/* A cluster without inodes gives its units back. Its cursor stands on its record. */
static int cluster_give(struct group_tx *at, struct bt_cursor *cur, const struct cluster *c)
{
	bool end;
	int rc = bt_remove(cur, &end);

	if (!rc)
		rc = meta_give(at, c->first_ino << INODE_SHIFT, CLUSTER_UNITS);
	if (rc)
		return rc;
	cluster_unmark(at, c->first_ino);
	at->now.inode_count -= CLUSTER_INODES;
	at->now.inode_free -= CLUSTER_INODES;
	return 0;
}

/* Gives back the cluster that lost its last inode while there was none to spare, if it is still so. */
static int cluster_empty_give(struct group_tx *at)
{
	uint64_t first_ino = at->g->cluster_empty;
	struct bt_cursor cur;
	struct cluster c;
	int rc;

	if (first_ino == 0)
		return 0;
	rc = cluster_find(at, first_ino, &cur, &c);
	if (!rc && c.free_mask == ~0ull)
		return cluster_give(at, &cur, &c);
	at->g->cluster_empty = 0;
	return rc == -ENOENT ? 0 : rc;
}

int space_inode_free(struct txn *tx, uint64_t ino)
{
	uint64_t first_ino = ino & ~(uint64_t)(CLUSTER_INODES - 1), bit = 1ull << ino % CLUSTER_INODES;
	struct m_inode_cluster m;
	struct bt_cursor cur;
	struct group_tx *at;
	struct cluster c;
	bool empty, spare;
	uint32_t agno;
	int rc;

	if (!ino_group(space_of(txn_pool(tx)), ino, &agno) || ino == INODE_ROOT)
		return -EUCLEAN;
	rc = group_enter(tx, agno, &at);
	if (!rc)
		rc = cluster_find(at, first_ino, &cur, &c);
	if (rc)
		return rc == -ENOENT ? -EUCLEAN : rc;
	if (c.free_mask & bit)
		return -EUCLEAN;
	c.free_mask |= bit;
	at->now.inode_free++;
	txn_forget(tx, ino << INODE_SHIFT);
	empty = c.free_mask == ~0ull && !cluster_stays(at->g, first_ino);
	spare = at->now.inode_free >= CLUSTER_INODES + INODES_SPARE;
	if (empty && spare) {
		rc = cluster_give(at, &cur, &c);
	} else {
		cluster_mark(at->g, first_ino);
		cluster_encode(&m, &c);
		rc = sabotage_point("inode-free") ? 0 : bt_replace(&cur, &m, sizeof(m));
		if (!rc && spare)
			rc = cluster_empty_give(at);
		if (empty)
			at->g->cluster_empty = first_ino;
	}
	return rc ? rc : group_counts_put(at);
}

int space_inode_check(struct txn *tx, uint64_t ino)
{
	struct bt_cursor cur;
	struct group_tx *at;
	struct cluster c;
	uint32_t agno;
	int rc;

	if (!ino_group(space_of(txn_pool(tx)), ino, &agno))
		return -ESTALE;
	rc = group_enter(tx, agno, &at);
	if (!rc)
		rc = cluster_find(at, ino & ~(uint64_t)(CLUSTER_INODES - 1), &cur, &c);
	if (rc)
		return rc == -ENOENT ? -ESTALE : rc;
	return c.free_mask >> ino % CLUSTER_INODES & 1 ? -ESTALE : 0;
}
