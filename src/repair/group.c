/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Superblock, fixed units of the groups, chunk tables, trees of inodes, orphans, forwards and losses, counters.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "repair/priv.h"

#define SUPER_BLOCKS 16u /* at each end of the device */

static uint64_t fixed_laddr(const struct check *ck, uint32_t agno, uint32_t unit)
{
	return pool_ag_unit(ck->pool, agno, unit);
}

static uint64_t ag_first_lchunk(const struct check *ck, uint32_t agno)
{
	return (uint64_t)agno * ck->ag_chunks;
}

/* ---- superblock ---- */

static const char *super_copy_read(struct check *ck, uint64_t blk, struct m_super *m)
{
	struct super super;
	const char *why;

	if (dax_load(ck->dax, m, blk * BLOCK_SIZE, sizeof(*m), NULL) != 0)
		return "bad memory";
	why = unit_check_header(m, sizeof(*m), MAGIC_SUPER, OWNER_SUPER, &ck->super->uuid);
	if (why)
		return why;
	super_decode(&super, m);
	return super_check(&super);
}

void check_super(struct check *ck)
{
	uint64_t last_blk = ck->super->size_blk - 1;
	_Alignas(64) struct m_super m, copy;
	const char *why = super_copy_read(ck, 0, &m), *copy_why = super_copy_read(ck, last_blk, &copy);

	if (why)
		check_found(ck, CHECK_SUPER, "superblock: %s", why);
	if (copy_why)
		check_found(ck, CHECK_SUPER, "copy of the superblock in block %" PRIu64 ": %s", last_blk,
			    copy_why);
	if (!why && !copy_why && memcmp(&m, &copy, sizeof(m)) != 0)
		check_found(ck, CHECK_SUPER,
			    "the copies of the superblock differ (versions %" PRIu64 " and %" PRIu64 ")",
			    le64_get(m.sb_version_count), le64_get(copy.sb_version_count));
	check_owner_add(ck, 0, SUPER_BLOCKS, OWNER_SUPER, 0);
	check_owner_add(ck, ck->super->size_blk - SUPER_BLOCKS, SUPER_BLOCKS, OWNER_SUPER, 1);
	for (uint32_t i = 0; i < ck->super->remap_count; i++) {
		const struct remap *r = &ck->super->remaps[i];

		check_owner_add(ck, r->place_blk, 1, OWNER_REMAP, r->laddr / BLOCK_SIZE * 2 + r->copy);
	}
}

/* ---- fixed units ---- */

static void check_place(struct check *ck, uint64_t lchunk, uint32_t chunk, const char *copy, uint64_t owner)
{
	if (((uint64_t)chunk + 1) * CHUNK_BLOCKS > ck->super->size_blk) {
		check_found(ck, CHECK_CHUNK, "metadata chunk %" PRIu64 ": its %s lies outside of the device",
			    lchunk, copy);
		return;
	}
	check_owner_add(ck, (uint64_t)chunk * CHUNK_BLOCKS, CHUNK_BLOCKS, owner, lchunk);
}

static void check_chunk(struct check *ck, uint32_t agno, uint32_t slot, const struct m_chunk *c)
{
	uint64_t lchunk = ag_first_lchunk(ck, agno) + slot;
	uint32_t primary = le32_get(c->ck_primary), mirror = le32_get(c->ck_mirror);
	uint64_t first = super_ag_start_blk(ck->super, agno) / CHUNK_BLOCKS;
	uint64_t chunks = super_ag_length_blk(ck->super, agno) / CHUNK_BLOCKS;

	if (slot == 0 && (primary != first + 1 || mirror != first + chunks - 2))
		check_found(ck, CHECK_CHUNK, "metadata chunk %" PRIu64 ": not at its fixed place", lchunk);
	if (primary == 0)
		return;
	check_place(ck, lchunk, primary, "primary", OWNER_META);
	if (mirror != 0)
		check_place(ck, lchunk, mirror, "mirror", OWNER_MIRROR);
	else if (ck->super->incompat & FEATURE_INCOMPAT_META_DUP)
		check_found(ck, CHECK_CHUNK, "metadata chunk %" PRIu64 ": it has no mirror", lchunk);
	for (unsigned unit = 0; unit < CHUNK_BLOCKS; unit++) {
		if (c->ck_used[unit / 8] >> unit % 8 & 1)
			ck->used[lchunk][unit / 64] |= 1ull << unit % 64;
	}
	ck->ags[agno].meta_chunks++;
	ck->ags[agno].meta_free_units += CHUNK_BLOCKS - le32_get(c->ck_used_count);
}

static void check_table(struct check *ck, uint32_t agno)
{
	_Alignas(64) struct m_chunks m;

	for (uint32_t i = 0; i < ag_table_units(ck->ag_chunks); i++) {
		if (!check_unit(ck, fixed_laddr(ck, agno, AG_UNIT_TABLE + i), MAGIC_CHUNKS, OWNER_AG, &m))
			continue;
		for (uint32_t k = 0; k < CHUNKS_PER_UNIT; k++) {
			uint32_t slot = i * CHUNKS_PER_UNIT + k;

			if (slot < ck->ag_chunks)
				check_chunk(ck, agno, slot, &m.ct_chunks[k]);
			else if (le32_get(m.ct_chunks[k].ck_primary) != 0)
				check_found(ck, CHECK_CHUNK,
					    "group %u: a chunk in slot %u, past the end of the table", agno,
					    slot);
		}
	}
}

static void check_remaps(struct check *ck, uint32_t agno)
{
	_Alignas(64) struct m_remaps m;

	if (!check_unit(ck, fixed_laddr(ck, agno, AG_UNIT_REMAP), MAGIC_REMAP, OWNER_AG, &m))
		return;
	for (uint32_t i = 0; i < le32_get(m.rl_count); i++) {
		uint64_t laddr = le64_get(m.rl_entries[i].rp_laddr),
			 blk = le64_get(m.rl_entries[i].rp_place_blk);

		if (laddr % BLOCK_SIZE ||
		    laddr >> CHUNK_SHIFT >= (uint64_t)ck->super->ag_count * ck->ag_chunks ||
		    blk >= ck->super->size_blk) {
			check_found(ck, CHECK_REMAP,
				    "group %u: remapped unit 0x%" PRIx64 " or its block makes no sense", agno,
				    laddr);
			continue;
		}
		check_owner_add(ck, blk, 1, OWNER_REMAP,
				laddr / BLOCK_SIZE * 2 + le32_get(m.rl_entries[i].rp_copy));
	}
}

static void collect_intents(struct check *ck, uint32_t agno)
{
	_Alignas(64) struct m_intents m;

	if (!check_unit(ck, fixed_laddr(ck, agno, AG_UNIT_INTENTS), MAGIC_INTENTS, OWNER_AG, &m))
		return;
	for (uint32_t i = 0; i < INTENTS_PER_UNIT; i++) {
		struct seen_intent *seen;

		if (le32_get(m.in_slots[i].it_type) == INTENT_NONE)
			continue;
		seen = rows_add(ck, &ck->intents, sizeof(*seen));
		if (seen)
			*seen = (struct seen_intent){ agno, i, m.in_slots[i], false };
	}
}

/* None at all is fine, and while the pool grows or a lane moves it may tell of how it was. */
void check_header_supers(struct check *ck)
{
	static const struct m_ag_super none;
	struct m_ag_super want;

	if (ck->super->grown_from_blk != 0 || check_lane_intent(ck, 0, UINT64_MAX))
		return;
	ag_super_encode(&want, ck->super);
	for (uint32_t agno = 0; agno < ck->super->ag_count; agno++) {
		const struct m_ag *header = ck->ags[agno].header;

		if (!header || memcmp(&header->ag_super, &none, sizeof(none)) == 0 ||
		    memcmp(&header->ag_super, &want, sizeof(want)) == 0)
			continue;
		check_found(ck, CHECK_GROUP,
			    "group %u: its header has another copy of the superblock's fields", agno);
		ck->ags[agno].damage |= GROUP_HEADER;
	}
}

static void check_header(struct check *ck, uint32_t agno)
{
	struct m_ag *m = aligned_alloc(64, sizeof(*m));

	if (!m) {
		ck->error = -ENOMEM;
		return;
	}
	if (!check_unit(ck, fixed_laddr(ck, agno, AG_UNIT_HEADER), MAGIC_AG, OWNER_AG, m)) {
		free(m);
		return;
	}
	ck->ags[agno].header = m;
	if (le32_get(m->ag_index) != agno)
		check_found(ck, CHECK_GROUP, "group %u: its header says that it is group %u", agno,
			    le32_get(m->ag_index));
	if (le64_get(m->ag_length_blk) != super_ag_length_blk(ck->super, agno))
		check_found(ck, CHECK_GROUP,
			    "group %u: its header says %" PRIu64 " blocks, the superblock %" PRIu64, agno,
			    le64_get(m->ag_length_blk), super_ag_length_blk(ck->super, agno));
}

/* Marks the group if something was found since. */
static void damage_since(struct check *ck, uint32_t agno, uint64_t bad_before, uint32_t damage)
{
	if (check_bad_count(ck) != bad_before)
		ck->ags[agno].damage |= damage;
}

void check_group_units(struct check *ck, uint32_t agno)
{
	uint64_t bad = check_bad_count(ck);

	check_reach(ck, fixed_laddr(ck, agno, AG_UNIT_HEADER), 1, "group header");
	for (uint32_t unit = AG_UNIT_HEADER + 1; unit < ag_fixed_units(ck->ag_chunks); unit++)
		check_reach(ck, fixed_laddr(ck, agno, unit), 1, "fixed unit");
	check_header(ck, agno);
	damage_since(ck, agno, bad, GROUP_HEADER);
	bad = check_bad_count(ck);
	check_remaps(ck, agno);
	collect_intents(ck, agno);
	damage_since(ck, agno, bad, GROUP_UNITS);
	bad = check_bad_count(ck);
	check_table(ck, agno);
	damage_since(ck, agno, bad, GROUP_TABLE);
}

/* ---- trees of a group ---- */

struct group_walk {
	struct check *ck;
	uint32_t agno;
};

static void cluster_keep(struct check *ck, uint64_t first_ino, uint64_t free_mask)
{
	struct seen_cluster *row = rows_add(ck, &ck->clusters, sizeof(*row));

	if (row)
		*row = (struct seen_cluster){ first_ino, free_mask };
}

static void cluster_add(void *arg, const void *rec, size_t size_bytes)
{
	const struct group_walk *w = arg;
	const struct m_inode_cluster *m = rec;
	struct check *ck = w->ck;
	uint64_t first = le64_get(m->ic_first_ino), free = le64_get(m->ic_free_mask);
	uint64_t laddr = first << INODE_SHIFT;

	(void)size_bytes;
	if (laddr >> CHUNK_SHIFT < ag_first_lchunk(ck, w->agno) ||
	    laddr >> CHUNK_SHIFT >= ag_first_lchunk(ck, w->agno + 1)) {
		check_found(ck, CHECK_INODE_TREE,
			    "group %u: inode cluster %" PRIu64 " belongs to another group", w->agno, first);
		return;
	}
	if (!check_reach(ck, laddr, CLUSTER_UNITS, "inode cluster"))
		return;
	if (ck->more)
		cluster_keep(ck, first, free);
	for (unsigned i = first == 0; i < CLUSTER_INODES; i++) {
		struct seen_inode *seen;

		ck->ags[w->agno].inode_count++;
		if (free >> i & 1) {
			ck->ags[w->agno].inode_free++;
			continue;
		}
		seen = rows_add(ck, &ck->inodes, sizeof(*seen));
		if (seen)
			*seen = (struct seen_inode){ .ino = first + i };
	}
	if (first == 0 && free & 3)
		check_found(ck, CHECK_INODE_TREE, "record 0 or the root directory is marked as free");
}

void check_cluster_add(struct check *ck, uint32_t agno, uint64_t first_ino, uint64_t free_mask)
{
	struct group_walk w = { ck, agno };
	struct m_inode_cluster m = { le64_of(first_ino), le64_of(free_mask) };

	cluster_add(&w, &m, sizeof(m));
}

static struct check_tree group_tree(struct group_walk *w, enum ag_tree which, const char *name,
				    void (*fn)(void *arg, const void *rec, size_t size_bytes))
{
	return (struct check_tree){
		.ck = w->ck,
		.kind = ag_tree_kind(which),
		.owner = OWNER_AG,
		.name = name,
		.id = w->agno,
		.fn = fn,
		.arg = w,
	};
}

static void walk_group_tree(struct check *ck, uint32_t agno, enum ag_tree which, const char *name,
			    void (*fn)(void *arg, const void *rec, size_t size_bytes))
{
	struct group_walk w = { ck, agno };
	struct check_tree tree = group_tree(&w, which, name, fn);

	uint64_t bad = check_bad_count(ck);

	if (ck->ags[agno].header)
		check_tree(&tree, ck->ags[agno].header->ag_roots[which], AG_ROOT_SIZE);
	else
		ck->ags[agno].damage |= GROUP_TREE(which);
	damage_since(ck, agno, bad, GROUP_TREE(which));
}

void check_group_inodes(struct check *ck, uint32_t agno)
{
	walk_group_tree(ck, agno, AG_INODES, "inode tree of group", cluster_add);
}

static void orphan_seen(void *arg, const void *rec, size_t size_bytes)
{
	const struct group_walk *w = arg;
	const struct m_orphan *m = rec;
	struct check *ck = w->ck;
	struct seen_inode *seen = seen_inode_find(ck, le64_get(m->or_ino));

	(void)size_bytes;
	ck->report->orphans++;
	if (!seen || pool_laddr_ag(ck->pool, seen->ino << INODE_SHIFT) != w->agno)
		check_found(ck, CHECK_ORPHAN_EXTRA, "group %u: orphan %" PRIu64 " is no inode of it", w->agno,
			    le64_get(m->or_ino));
	else if (seen->gen != le64_get(m->or_gen) && seen->mode_fmt != 0)
		check_found(ck, CHECK_ORPHAN_EXTRA,
			    "orphan %" PRIu64 ": generation %" PRIu64 ", the inode's is %" PRIu64, seen->ino,
			    le64_get(m->or_gen), seen->gen);
	if (seen)
		seen->flags |= SEEN_ORPHAN;
}

static bool range_is_inside(const struct check *ck, uint64_t blk, uint64_t count_blk)
{
	return blk < ck->super->size_blk && count_blk <= ck->super->size_blk - blk;
}

static void forward_seen(void *arg, const void *rec, size_t size_bytes)
{
	const struct group_walk *w = arg;
	const struct m_forward *m = rec;
	uint64_t old_blk = le64_get(m->fw_old_blk), new_blk = le64_get(m->fw_new_blk),
		 count = le32_get(m->fw_count_blk);

	struct seen_forward *seen;

	(void)size_bytes;
	if (!range_is_inside(w->ck, old_blk, count) || !range_is_inside(w->ck, new_blk, count) ||
	    pool_blk_ag(w->ck->pool, old_blk) != w->agno) {
		check_found(w->ck, CHECK_FORWARD,
			    "group %u: forward record of block %" PRIu64 " makes no sense", w->agno, old_blk);
		return;
	}
	seen = rows_add(w->ck, &w->ck->forwards, sizeof(*seen));
	if (seen)
		*seen = (struct seen_forward){ old_blk, new_blk, count };
}

static void loss_seen(void *arg, const void *rec, size_t size_bytes)
{
	const struct group_walk *w = arg;
	const struct m_loss *m = rec;
	struct seen_inode *seen = seen_inode_find(w->ck, le64_get(m->ls_ino));

	(void)size_bytes;
	if (!seen || !(seen->flags & SEEN_LOST))
		check_found(w->ck, CHECK_LOSS, "group %u: loss record of %" PRIu64 ", which %s", w->agno,
			    le64_get(m->ls_ino), seen ? "does not know it" : "is no inode");
}

void check_group_rest(struct check *ck, uint32_t agno)
{
	walk_group_tree(ck, agno, AG_ORPHANS, "orphan tree of group", orphan_seen);
	walk_group_tree(ck, agno, AG_FORWARDS, "forward tree of group", forward_seen);
	walk_group_tree(ck, agno, AG_LOSSES, "loss tree of group", loss_seen);
}

/* ---- counters and used maps ---- */

static void counter(struct check *ck, uint32_t agno, const char *what, uint64_t says, uint64_t is)
{
	if (says != is)
		check_found(ck, CHECK_COUNTER, "group %u: %s: %" PRIu64 " in the header, %" PRIu64 " found",
			    agno, what, says, is);
}

void check_group_counters(struct check *ck, uint32_t agno, uint64_t free_blk)
{
	const struct check_ag *ag = &ck->ags[agno];
	const struct m_ag *m = ag->header;
	uint64_t bad;

	ck->report->free_blk += free_blk;
	if (!m)
		return;
	bad = check_bad_count(ck);
	counter(ck, agno, "free blocks", le64_get(m->ag_free_blk), free_blk);
	counter(ck, agno, "inodes", le64_get(m->ag_inode_count), ag->inode_count);
	counter(ck, agno, "free inodes", le64_get(m->ag_inode_free), ag->inode_free);
	counter(ck, agno, "metadata chunks", le32_get(m->ag_meta_chunks), ag->meta_chunks);
	counter(ck, agno, "free metadata units", le32_get(m->ag_meta_free_units), ag->meta_free_units);
	damage_since(ck, agno, bad, GROUP_COUNTERS);
}

static void used_map_diff(struct check *ck, uint64_t lchunk)
{
	for (unsigned unit = 0; unit < CHUNK_BLOCKS; unit++) {
		bool used = ck->used[lchunk][unit / 64] >> unit % 64 & 1;
		bool reached = ck->reached[lchunk][unit / 64] >> unit % 64 & 1;
		uint64_t laddr = (lchunk << CHUNK_SHIFT) + (uint64_t)unit * BLOCK_SIZE;

		if (used && !reached)
			check_found(ck, CHECK_UNIT_LEAKED,
				    "unit 0x%" PRIx64 " is marked as used, but nothing leads to it", laddr);
		if (reached && !used)
			check_found(ck, CHECK_UNIT_UNMARKED,
				    "unit 0x%" PRIx64 " is in use, but marked as free", laddr);
	}
}

void check_used_maps(struct check *ck)
{
	uint64_t count = (uint64_t)ck->super->ag_count * ck->ag_chunks;

	for (uint64_t lchunk = 0; lchunk < count; lchunk++) {
		if (memcmp(ck->used[lchunk], ck->reached[lchunk], sizeof(ck->used[lchunk])) == 0)
			continue;
		used_map_diff(ck, lchunk);
		ck->ags[lchunk / ck->ag_chunks].damage |= GROUP_TABLE;
	}
}
