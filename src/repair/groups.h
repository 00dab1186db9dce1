/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Making a group anew: what its trees and its bitmap have to say.
 */
#ifndef UMBRA_REPAIR_GROUPS_H
#define UMBRA_REPAIR_GROUPS_H

#include "repair/base.h"

/* Who owns what in one group. */
struct group_space {
	struct repair *rp;
	uint32_t agno;
	uint64_t start_blk, end_blk;
	struct rows rmap;   /* struct rmap, by start, owner, offset */
	struct rows owned;  /* struct refcount: runs of owned blocks, by start */
	struct rows shared; /* those with two owners or more */
	uint64_t free_blk;
	/* Where the rmap was lost: blocks that stay out of use, alone and beside files, and struct repair_hole of which that is not known any more. */
	uint64_t kept_blk, kept_of_files_blk;
	struct rows unknown;
};

/* From the facts; 0 or -ENOMEM. */
must_check int group_space_make(struct group_space *g, struct repair *rp, uint32_t agno);
void group_space_free(struct group_space *g);
/* The rmap is brought into order, and owned, shared, free_blk are counted from it. 0 or -ENOMEM. */
must_check int group_space_count(struct group_space *g);
/* Adds what else says of blocks that are out of use where nodes of the old rmap are lost. specials: of special_owners(). 0 or -ENOMEM. */
must_check int group_lost_find(struct group_space *g, const struct rows *specials);
/* What the bitmap says about one chunk of the group (index from its start). *next: 0 for the first, chunks in order. */
void group_space_bits(const struct group_space *g, uint32_t chunk, size_t *next, uint8_t *bits);

/* All blocks that belong to the file system itself, by start: struct rmap. */
must_check int special_owners(struct repair *rp, struct rows *out);
/* The first of them that ends after blk. */
size_t special_find(const struct rows *specials, uint64_t blk);

/* Takes from files what metadata owns; *changed: the facts no longer hold. */
must_check int repair_conflicts(struct repair *rp, bool *changed);

#endif
