/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Constants of the format and the header that every metadata unit carries (FORMAT.md 1 and 2).
 *
 * A unit is 4096 bytes, or 512 for an inode. Its logical address (laddr) is in bytes; the chunk table says where
 * the two copies lie.
 */
#ifndef UMBRA_MEDIA_UNIT_H
#define UMBRA_MEDIA_UNIT_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/le.h"
#include "util/util.h"

#define BLOCK_SHIFT 12
#define BLOCK_SIZE 4096u
#define CHUNK_SHIFT 21
#define CHUNK_SIZE (1u << CHUNK_SHIFT)
#define CHUNK_BLOCKS (CHUNK_SIZE / BLOCK_SIZE) /* 512 */
#define LINE_SIZE 64u
#define INODE_SIZE 512u
#define INODE_SHIFT 9
#define CLUSTER_INODES 64u /* inodes handed out together: 8 units */
#define CLUSTER_UNITS 8u

/* Magic numbers, one for each kind of unit. */
enum unit_magic {
	MAGIC_SUPER = 0x53424d55,   /* "UMBS" */
	MAGIC_AG = 0x41424d55,      /* "UMBA": allocation group header */
	MAGIC_INTENTS = 0x54424d55, /* "UMBT": intent slots of a group */
	MAGIC_REMAP = 0x4d424d55,   /* "UMBM": remap list of a group */
	MAGIC_CHUNKS = 0x43424d55,  /* "UMBC": piece of the chunk table */
	MAGIC_BITMAP = 0x42424d55,  /* "UMBB": piece of the block bitmap */
	MAGIC_INODE = 0x49424d55,   /* "UMBI": inode, 512 bytes */
	MAGIC_NODE = 0x4e424d55,    /* "UMBN": B+tree node */
	MAGIC_XVAL = 0x58424d55,    /* "UMBX": piece of a large xattr value */
	MAGIC_RECORD = 0x4a424d55,  /* "UMBJ": journal record (not a unit) */
};

struct m_uuid {
	uint8_t b[16];
};

/* FORMAT.md 2. uh_crc is CRC32C of the whole unit with uh_crc taken as zero. */
struct m_unit_hdr {
	le32 uh_magic;
	le32 uh_crc;
	le64 uh_laddr;
	le64 uh_owner; /* inode number, or OWNER_* */
	le64 uh_seq;   /* transaction that last changed it */
	struct m_uuid uh_uuid;
};
static_assert(sizeof(struct m_unit_hdr) == 48, "FORMAT.md 2");

/* Owners that are not inodes (uh_owner, rm_owner). Inode numbers stay below 2^55. */
#define OWNER_SPECIAL (1ull << 63)
#define OWNER_SUPER (OWNER_SPECIAL | 1)   /* superblock and its copy */
#define OWNER_JOURNAL (OWNER_SPECIAL | 2) /* journal lanes; offset = lane, or mirror lane | 1<<32 */
#define OWNER_AG (OWNER_SPECIAL | 3)      /* fixed units and trees of an allocation group */
#define OWNER_META (OWNER_SPECIAL | 4)    /* rmap: metadata chunk, offset = logical chunk number */
#define OWNER_MIRROR (OWNER_SPECIAL | 5) /* rmap: mirror of a metadata chunk, offset = logical chunk number */
#define OWNER_BAD (OWNER_SPECIAL | 6)    /* rmap: bad block that cannot be cleared */
#define OWNER_REMAP (OWNER_SPECIAL | 7)  /* rmap: stands in for one unit; offset = laddr / 4096 * 2 + copy */
#define OWNER_FORWARD (OWNER_SPECIAL | 8) /* rmap: target of a forward record on its way to its owners */

/* Bytes of a unit of that kind; 0 for an unknown magic. */
size_t unit_size(uint32_t magic);

uint32_t unit_crc(const void *unit, size_t size_bytes);

/* Fills the header of a zeroed unit (crc is set when it is committed: unit_seal). */
void unit_init(void *unit, uint32_t magic, uint64_t laddr, uint64_t owner, const struct m_uuid *uuid);
void unit_seal(void *unit, size_t size_bytes, uint64_t seq);

/*
 * Reason why the unit cannot be trusted, or NULL. unit_check_header looks at magic, laddr, uuid and CRC;
 * unit_check_body at everything that the kind of unit can tell by itself. magic 0: any known kind.
 */
const char *unit_check_header(const void *unit, size_t size_bytes, uint32_t magic, uint64_t laddr,
			      const struct m_uuid *uuid);
const char *unit_check_body(const void *unit, size_t size_bytes);

static inline uint32_t unit_magic(const void *unit)
{
	return le32_get(((const struct m_unit_hdr *)unit)->uh_magic);
}

static inline uint64_t unit_owner(const void *unit)
{
	return le64_get(((const struct m_unit_hdr *)unit)->uh_owner);
}

#endif
