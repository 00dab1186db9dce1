/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where metadata chunks can lie and what lies in them.
 */
#ifndef UMBRA_REPAIR_PLACES_H
#define UMBRA_REPAIR_PLACES_H

#include "repair/base.h"

struct chunk_votes {
	uint64_t lchunk;
	uint32_t count;
};

/* How many sound units in a chunk of the device say that they belong to the same logical chunk, and to which. */
struct chunk_votes places_chunk_vote(struct repair *rp, uint64_t chunk);
/* It could be one of metadata: it is on the device and nothing has its fixed place there. */
bool places_chunk_is_possible(const struct super *s, uint64_t chunk);
uint64_t places_slot0_chunk(const struct super *s, uint32_t agno, unsigned copy);

/* Sound tables and remap lists that tell nonsense: counts them, and mends them if it may write. */
must_check int places_tables(struct repair *rp, bool write, uint64_t *lies);

#endif
