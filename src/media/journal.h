/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Journal record (FORMAT.md 8): the one live record of a lane starts at the lane's first byte.
 *
 *	head (64 bytes) | rc_entry_count entries (16 bytes each, padded to 64) | lines (64 bytes each)
 *
 * The lines of entry i follow those of entry i - 1; bit k of its mask stands for line k of the unit.
 */
#ifndef UMBRA_MEDIA_JOURNAL_H
#define UMBRA_MEDIA_JOURNAL_H

#include "media/unit.h"

#define LANE_SIZE_MIN (256u << 10)
#define LANE_SIZE_MAX (4u << 20)

/* In the offset of a journal's rmap record (FORMAT.md 2): mirrors of lanes; nothing lies there. */
#define JOURNAL_MIRROR (1ull << 32)
#define JOURNAL_SPARE (1ull << 33)

struct m_record {
	le32 rc_magic; /* MAGIC_RECORD; 0 when retired */
	le32 rc_crc;   /* of rc_length_bytes from the head on, with rc_crc as zero */
	le64 rc_seq;
	struct m_uuid rc_uuid;
	le32 rc_lane;
	le32 rc_entry_count;
	le32 rc_line_count;
	le32 rc_length_bytes;
	le64 rc_request_id;
	le32 rc_result;
	le32 rc_flags;
};
static_assert(sizeof(struct m_record) == 64, "FORMAT.md 8");

#define ENTRY_FRESH 0x1u /* the unit is zero but for the lines in the mask */
#define ENTRY_INODE 0x2u /* a 512-byte unit (8 lines), else 4096 (64 lines) */
#define ENTRY_FLAGS 0x3u

struct m_record_entry {
	le64 re_laddr; /* | ENTRY_* (units are aligned, so the low bits are free) */
	le64 re_mask;
};
static_assert(sizeof(struct m_record_entry) == 16, "FORMAT.md 8");

static inline size_t record_length_bytes(uint32_t entries, uint32_t lines)
{
	return sizeof(struct m_record) +
	       u64_align_up((uint64_t)entries * sizeof(struct m_record_entry), LINE_SIZE) +
	       (size_t)lines * LINE_SIZE;
}

uint32_t record_crc(const void *record, size_t length_bytes);

/* Reason why it is no valid record of this lane and pool, or NULL. limit_bytes is the size of the lane. */
const char *record_check(const void *record, size_t limit_bytes, uint32_t lane, const struct m_uuid *uuid);

#endif
