/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fixed units of an allocation group (FORMAT.md 5): they lie in slot 0 of the group, in this order.
 *
 *	unit 0..7   first inode cluster (in group 0 record 1 is the root directory; record 0 is never used)
 *	unit 8      group header
 *	unit 9      intents
 *	unit 10     remap list
 *	unit 11     reserved, zero
 *	unit 12..   chunk table, then bitmap, then units to hand out
 *
 * Slot 0 lies in the second chunk of the group, its mirror in the last but one.
 */
#ifndef UMBRA_MEDIA_AG_H
#define UMBRA_MEDIA_AG_H

#include "media/inode.h"
#include "media/node.h"
#include "media/super.h"
#include "media/unit.h"

#define AG_MIN_CHUNKS 8u
#define AG_MAX_CHUNKS 8192u /* 16 GiB: table and bitmap fit into slot 0 */
#define AG_UNIT_HEADER 8u
#define AG_UNIT_INTENTS 9u
#define AG_UNIT_REMAP 10u
#define AG_UNIT_TABLE 12u
#define AG_ROOT_SIZE 256u /* of each embedded root body */

/* Trees of a group; the index of their roots in the header. */
enum ag_tree { AG_REFCOUNT, AG_RMAP, AG_INODES, AG_ORPHANS, AG_FORWARDS, AG_LOSSES, AG_TREES };

/*
 * What the superblock alone knows (FORMAT.md 5.1): each group header has a copy, for the day on which both superblocks are lost. All
 * zero in pools made before there was one.
 */
struct m_ag_super {
	le64 as_size_blk;
	le64 as_ag_size_blk;
	le64 as_compat;
	le64 as_ro_compat;
	le64 as_incompat;
	le64 as_created_ns;
	le32 as_dir_hash_bits;
	le32 as_lane_count;
	le32 as_lane_size_bytes;
	le32 as_pad;
	uint8_t as_hash_seed[16];
	uint8_t as_label[SUPER_LABEL_SIZE];
	struct m_lane as_lanes[SUPER_LANES_MAX];
};
static_assert(sizeof(struct m_ag_super) == 1136, "FORMAT.md 5.1");

struct m_ag {
	struct m_unit_hdr ag_hdr;
	le32 ag_index;
	le32 ag_flags;
	le64 ag_length_blk;
	le64 ag_free_blk;        /* clear bits of the bitmap */
	le64 ag_inode_count;     /* inodes in clusters, used or free (without record 0 of group 0) */
	le64 ag_inode_free;      /* free ones of them */
	le32 ag_meta_chunks;     /* chunks in the chunk table, slot 0 included */
	le32 ag_meta_free_units; /* clear bits of all used maps */
	le64 ag_reserved[10];
	uint8_t ag_roots[AG_TREES][AG_ROOT_SIZE];
	struct m_ag_super ag_super;
	uint8_t ag_pad[BLOCK_SIZE - 176 - AG_TREES * AG_ROOT_SIZE - sizeof(struct m_ag_super)];
};
static_assert(sizeof(struct m_ag) == BLOCK_SIZE, "FORMAT.md 5.1");
static_assert(offsetof(struct m_ag, ag_roots) == 176, "FORMAT.md 5.1");

/* FORMAT.md 5.3. One logical chunk; chunk numbers from the start of the device, 0 = none. */
struct m_chunk {
	le32 ck_primary;
	le32 ck_mirror;
	le32 ck_used_count;
	le32 ck_flags;
	le64 ck_reserved[6];
	uint8_t ck_used[CHUNK_BLOCKS / 8]; /* bit per unit, lowest bit first */
};
static_assert(sizeof(struct m_chunk) == 128, "FORMAT.md 5.3");

#define CHUNKS_PER_UNIT 31u
struct m_chunks {
	struct m_unit_hdr ct_hdr;
	uint8_t ct_pad[80];
	struct m_chunk ct_chunks[CHUNKS_PER_UNIT];
};
static_assert(sizeof(struct m_chunks) == BLOCK_SIZE, "FORMAT.md 5.3");

/* FORMAT.md 5.4. One 64-byte line of bits for each chunk of the group, a bit per block, lowest first; 1 = owned. */
#define BITMAP_CHUNKS_PER_UNIT 63u
struct m_bitmap {
	struct m_unit_hdr bm_hdr;
	uint8_t bm_pad[16];
	uint8_t bm_bits[BITMAP_CHUNKS_PER_UNIT][CHUNK_BLOCKS / 8];
};
static_assert(sizeof(struct m_bitmap) == BLOCK_SIZE, "FORMAT.md 5.4");

/* FORMAT.md 5.5. */
#define REMAPS_PER_UNIT 168u
struct m_remaps {
	struct m_unit_hdr rl_hdr;
	le32 rl_count;
	le32 rl_pad0;
	le64 rl_pad1;
	struct m_remap rl_entries[REMAPS_PER_UNIT];
};
static_assert(sizeof(struct m_remaps) == BLOCK_SIZE, "FORMAT.md 5.5");

/*
 * FORMAT.md 5.2. What an operation that is too long for one transaction still has to do, or to undo. A slot whose
 * it_type is INTENT_NONE is free.
 */
enum intent_type {
	INTENT_NONE,
	INTENT_TRUNCATE,   /* forward: free everything of it_ino at and past block it_args[0] */
	INTENT_FREE_RANGE, /* forward: free blocks it_args[0] .. it_args[1] - 1 of it_ino (punch, collapse) */
	INTENT_CLONE, /* back: it_body is an unattached extent tree of it_ino; drop what it owns beyond the file's own tree */
	INTENT_DROP, /* forward: it_body is the former extent tree of it_ino; drop what it owns beyond the file's own tree */
	INTENT_SHIFT, /* forward: move records of it_ino past block it_args[0] by it_args[1] (signed) blocks */
	INTENT_RELOCATE, /* copy it_args[1] of the key unit it_args[0] moves to block it_args[2]; [3]: from there, or 0; [4]: it is free then */
	INTENT_LANE, /* copy it_args[1] of journal lane [0] moves to block [2]; [3]: from there; [4] .. [5] - 1: blocks that are bad then */
	INTENT_TYPES
};

#define INTENTS_PER_UNIT 12u
struct m_intent {
	le32 it_type;
	le32 it_flags;
	le64 it_seq; /* transaction that made it */
	le64 it_ino;
	le64 it_gen;
	le64 it_args[8];
	uint8_t it_body[INODE_DATA_SIZE]; /* embedded root */
};
static_assert(sizeof(struct m_intent) == 320, "FORMAT.md 5.2");

struct m_intents {
	struct m_unit_hdr in_hdr;
	uint8_t in_pad[16];
	struct m_intent in_slots[INTENTS_PER_UNIT];
	uint8_t in_tail[192];
};
static_assert(sizeof(struct m_intents) == BLOCK_SIZE, "FORMAT.md 5.2");

/* The copy of the superblock in a group header, and back: false: there is none, or it makes no sense. */
void ag_super_encode(struct m_ag_super *m, const struct super *super);
bool ag_super_decode(struct super *super, const struct m_ag_super *m, const struct m_uuid *uuid);

/* Reasons, or NULL, for units whose header was checked. */
const char *ag_check(const struct m_ag *m);
const char *chunks_check(const struct m_chunks *m);
const char *intents_check(const struct m_intents *m);
const char *remaps_check(const struct m_remaps *m);

/* The kind of record in each tree of a group. */
enum node_kind ag_tree_kind(enum ag_tree which);

static inline uint32_t ag_table_units(uint64_t chunks)
{
	return (uint32_t)u64_div_up(chunks, CHUNKS_PER_UNIT);
}

static inline uint32_t ag_bitmap_units(uint64_t chunks)
{
	return (uint32_t)u64_div_up(chunks, BITMAP_CHUNKS_PER_UNIT);
}

/* First unit of slot 0 that is not fixed; chunks is that of a full group, so it is the same in all groups. */
static inline uint32_t ag_fixed_units(uint64_t chunks)
{
	return AG_UNIT_TABLE + ag_table_units(chunks) + ag_bitmap_units(chunks);
}

#endif
