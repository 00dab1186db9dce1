/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who owns a range of the device: the rmap, asked from outside.
 */
#ifndef UMBRA_FS_OWNERS_H
#define UMBRA_FS_OWNERS_H

#include <stdint.h>

#include "fs/fs.h"
#include "util/util.h"

/* Where a listing goes on; zeros = at the start. Opaque. */
struct fs_owners_pos {
	uint64_t start_blk, owner, offset_blk; /* of the last record seen, start_blk + 1 */
};

/* One owner of one piece of the range. */
struct fs_owner {
	uint64_t dev_off, len; /* bytes, cut at the range asked for */
	uint64_t owner;        /* inode number or OWNER_* of media/unit.h */
	uint64_t file_off; /* bytes; for special owners what FORMAT.md says about their offset, in blocks */
	struct fs_owners_pos after; /* goes on after it */
};

/*
 * Owners of [dev_off, dev_off + len) after pos, in order of device offset, at most max of them; *count how many, 0 at the end. Not a
 * snapshot over several calls. -EINVAL: the range leaves the pool, pos leaves the range.
 */
must_check int fs_owners(struct fs *fs, uint64_t dev_off, uint64_t len, const struct fs_owners_pos *pos,
			 struct fs_owner *owners, unsigned max, unsigned *count);

#endif
