/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The superblock (FORMAT.md 4): block 0 of the device and, as a copy, its last block.
 */
#ifndef UMBRA_MEDIA_SUPER_H
#define UMBRA_MEDIA_SUPER_H

#include "media/unit.h"

#define SUPER_MAJOR 1
#define SUPER_MINOR 0
#define SUPER_LANES_MAX 64
#define SUPER_REMAPS_MAX 24
#define SUPER_LABEL_SIZE 32

/* Incompatible features: a pool with others is refused. */
#define FEATURE_INCOMPAT_META_DUP (1ull << 0) /* metadata chunks have mirrors */
#define FEATURE_INCOMPAT_GROWING (1ull << 1)  /* sb_grown_from_blk is set */
#define FEATURE_INCOMPAT_KNOWN (FEATURE_INCOMPAT_META_DUP | FEATURE_INCOMPAT_GROWING)
/* Read-only compatible: a pool with others is mounted read-only. */
#define FEATURE_RO_COMPAT_LANES_MOVED (1ull << 1) /* a journal lane does not lie where mkfs has put it */
#define FEATURE_RO_COMPAT_BAD_IN_USE (1ull << 2)  /* a block that files have may be OWNER_BAD's besides */
#define FEATURE_RO_COMPAT_KNOWN (FEATURE_RO_COMPAT_LANES_MOVED | FEATURE_RO_COMPAT_BAD_IN_USE)
/* Never known: an image of the metadata in which names were replaced (umbradump), so that hashes do not fit them. */
#define FEATURE_RO_COMPAT_NAMES_HIDDEN (1ull << 0)

/* The last block of the pool is the copy; at most so many chunks at the end of a device are left out. */
#define SUPER_TAIL_CHUNKS 16u

#define SUPER_STATE_CLEAN 1u
#define SUPER_STATE_REPAIR 2u /* a repair has begun and not come to its end: not to be mounted for writing */

/* One journal lane and its mirror: first blocks on the device. */
struct m_lane {
	le64 ln_primary_blk;
	le64 ln_mirror_blk;
};

/* One 4 KiB unit that no longer lies where the chunk table says. */
struct m_remap {
	le64 rp_laddr;
	le64 rp_place_blk;
	le32 rp_copy; /* 0 primary, 1 mirror */
	le32 rp_flags;
};
static_assert(sizeof(struct m_remap) == 24, "FORMAT.md 4");

struct m_super {
	struct m_unit_hdr sb_hdr; /* uh_laddr = OWNER_SUPER */
	le16 sb_major;
	le16 sb_minor;
	le32 sb_state;
	le64 sb_compat;
	le64 sb_ro_compat;
	le64 sb_incompat;
	le64 sb_size_blk;
	le64 sb_ag_size_blk; /* multiple of a chunk */
	le32 sb_ag_count;
	le32 sb_dir_hash_bits;  /* 63; fewer only to test collisions */
	le64 sb_seq_limit;      /* no transaction has a higher sequence number */
	le64 sb_version_count;  /* of this superblock: the higher one of two valid copies holds */
	le64 sb_grown_from_blk; /* size before a growth that has not come to its end; 0: none */
	uint8_t sb_hash_seed[16];
	uint8_t sb_label[SUPER_LABEL_SIZE];
	le64 sb_created_ns;
	le64 sb_mounted_ns;
	le32 sb_mount_count;
	le32 sb_lane_count;
	le32 sb_lane_size_bytes;
	le32 sb_remap_count;
	struct m_lane sb_lanes[SUPER_LANES_MAX];
	struct m_remap sb_remaps[SUPER_REMAPS_MAX]; /* of group headers, remap lists, chunk table */
	le64 sb_replayed_seq;                       /* records up to this one are over */
	uint8_t sb_reserved[2280];
};
static_assert(sizeof(struct m_super) == BLOCK_SIZE, "FORMAT.md 4");

struct super {
	uint16_t major, minor;
	uint32_t state;
	uint64_t compat, ro_compat, incompat;
	uint64_t size_blk, ag_size_blk;
	uint32_t ag_count;
	uint32_t dir_hash_bits;
	uint64_t seq_limit, replayed_seq;
	uint64_t version_count;
	uint64_t grown_from_blk;
	uint8_t hash_seed[16];
	char label[SUPER_LABEL_SIZE + 1];
	uint64_t created_ns, mounted_ns;
	uint32_t mount_count;
	uint32_t lane_count, lane_size_bytes;
	struct {
		uint64_t primary_blk, mirror_blk;
	} lanes[SUPER_LANES_MAX];
	uint32_t remap_count;
	struct remap {
		uint64_t laddr, place_blk;
		uint32_t copy, flags;
	} remaps[SUPER_REMAPS_MAX];
	struct m_uuid uuid;
};

/* Decodes a unit whose header was checked. */
void super_decode(struct super *super, const struct m_super *m);
/* Fills a whole unit, header included; unit_seal() then makes it valid. */
void super_encode(struct m_super *m, const struct super *super);
/* Everything but the features, which the caller judges. */
const char *super_check(const struct super *super);

/* Length of a group (only the last may be shorter) and its first block. */
static inline uint64_t super_ag_start_blk(const struct super *s, uint32_t agno)
{
	return (uint64_t)agno * s->ag_size_blk;
}

static inline uint64_t super_ag_length_blk(const struct super *s, uint32_t agno)
{
	return u64_min(s->ag_size_blk, s->size_blk - super_ag_start_blk(s, agno));
}

/* In the first or last chunk: superblock and journal have all of that, and nobody else gets blocks there. */
static inline bool super_blk_is_home(const struct super *s, uint64_t blk)
{
	return blk < CHUNK_BLOCKS || blk >= s->size_blk - CHUNK_BLOCKS;
}

/* A copy of a lane; its first block. */
static inline uint64_t super_lane_blk(const struct super *s, uint32_t lane, unsigned copy)
{
	return copy ? s->lanes[lane].mirror_blk : s->lanes[lane].primary_blk;
}

#endif
