/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Making a new file system (mkfs). Outside transactions: there is nothing to keep whole until the superblock is written, last.
 */
#ifndef UMBRA_TXN_FORMAT_H
#define UMBRA_TXN_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dax/dax.h"
#include "media/node.h"
#include "media/super.h"
#include "util/util.h"

#define FORMAT_SIZE_MIN ((uint64_t)16 << 20)

struct format_opts {
	const char *label;         /* NULL: none; at most SUPER_LABEL_SIZE bytes */
	bool metadata_single;      /* no mirrors for metadata chunks made later */
	uint64_t ag_size_bytes;    /* 0: by the size of the pool */
	uint32_t dir_hash_bits;    /* 0: 63 */
	uint32_t lane_count;       /* 0: by the size */
	uint32_t lane_size_bytes;  /* 0: by the size */
	const struct m_uuid *uuid; /* NULL: random */
	uint32_t root_uid, root_gid;
};

/* Writes an empty file system. -EINVAL with one line in why: too small, bad options. -EIO: bad memory. *super (may be NULL): what was made. */
must_check int pool_format(struct dax *dax, const struct format_opts *opts, struct super *super, char *why,
			   size_t why_size);

/* ---- parts of it, for growing ---- */

/* Blocks of a pool on so many bytes: whole chunks, and no last group that would be too short. */
uint64_t format_size_blk(uint64_t size_bytes, uint64_t ag_size_blk);
/* Makes the groups from that one on. No fence. */
must_check int format_groups(struct dax *dax, const struct super *super, uint32_t first_agno);
/* Zeroes what could be taken for a copy of the superblock at the end of the device, past from_blk. No fence. */
must_check int format_wipe_tail(struct dax *dax, uint64_t from_blk);

/*
 * Who owns what in a group of an empty file system, by address: metadata, superblock, journal. Their number. Of lanes that have moved, and those
 * beside them, only what lies in the first and last chunk.
 */
#define FORMAT_OWNERS_MAX 8
unsigned format_owners(const struct super *super, uint32_t agno, struct rmap owned[FORMAT_OWNERS_MAX]);

#endif
