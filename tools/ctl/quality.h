/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbractl map --quality: which part of a file large pages can map. The file is looked at in pieces of 2 MiB; one can if it lies in one chunk of the
 * device that is aligned as it is.
 */
#ifndef UMBRA_TOOLS_CTL_QUALITY_H
#define UMBRA_TOOLS_CTL_QUALITY_H

#include "ctl.h"

#define QUALITY_PIECE ((uint64_t)2 << 20)

enum quality {
	QUALITY_HUGE,
	QUALITY_HOLE,      /* nothing is there: reading maps zeroes */
	QUALITY_HOLES,     /* partly */
	QUALITY_UNWRITTEN, /* partly or all of it */
	QUALITY_SCATTERED, /* in more than one place, or not aligned */
	QUALITY_END,       /* the file ends in it, and what follows there is not the file's */
	QUALITY_INLINE,
};

struct quality_run {
	uint64_t off, len;
	enum quality quality;
};

struct quality_sum {
	uint64_t size, huge_bytes, pieces, huge_pieces;
	/* Pieces that are alike and follow each other. */
	struct quality_run *runs;
	size_t run_count, run_room;
	/* The piece in work */
	uint64_t at, covered, dev;
	bool in_file_unwritten, scattered, inlined, failed;
};

/* Extents of a file of q->size bytes, in their order; then the end. -ENOMEM. */
void quality_add(struct quality_sum *q, const struct umbra_extent *e);
int quality_end(struct quality_sum *q);
int quality_print(struct quality_sum *q, bool json);

#endif
