/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a range of the device holds, in figures, from its owners as they come.
 */
#ifndef UMBRA_TOOLS_CTL_BLAST_H
#define UMBRA_TOOLS_CTL_BLAST_H

#include "ctl.h"

struct blast_inodes;
struct blast {
	uint64_t off, len;    /* the range */
	uint64_t files;       /* distinct ones */
	uint64_t data_bytes;  /* of the device, that files have */
	uint64_t file_bytes;  /* of files: what several share counts for each */
	uint64_t meta_units;  /* units of metadata, second copies too, in use or not */
	uint64_t bad_bytes;   /* out of use */
	uint64_t kept_bytes;  /* in bad memory, but files have them still */
	uint64_t owned_bytes; /* of anybody; the rest is free */
	/* ends of what has come so far */
	uint64_t data_end, owned_end;
	uint64_t bad_off, bad_end; /* the last range that is bad */
	struct blast_inodes *inodes;
};

/* Owners come in the order of the device. Out of memory: 0 or ENOMEM. */
int blast_add(struct blast *blast, const struct umbra_owner *owner);
void blast_print(const struct blast *blast);
struct json_object *blast_json(const struct blast *blast);
void blast_free(struct blast *blast);

#endif
