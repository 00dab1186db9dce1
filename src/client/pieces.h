/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A set of pieces of a file, in order, that never overlap. A set does not change: pieces_put() makes another one, which has most of its leaves in common with the old one,
 * so that readers need no lock. A million pieces are possible: a change costs a leaf and the array of the leaves.
 */
#ifndef UMBRA_CLIENT_PIECES_H
#define UMBRA_CLIENT_PIECES_H

#include <stdint.h>

#include <umbra/direct.h>

#include "util/util.h"

struct pieces;

/* NULL is the empty set, here and below. The piece that has byte off; NULL: none has. */
const struct umbra_piece *pieces_find(const struct pieces *set, uint64_t off);
/* The first piece that begins at off or after it; NULL: none does. */
const struct umbra_piece *pieces_next(const struct pieces *set, uint64_t off);
/* The last one that begins before off; NULL: none does. It may reach past off. */
const struct umbra_piece *pieces_before(const struct pieces *set, uint64_t off);

/*
 * *out: what is in old, but in [lo, hi) these pieces alone; they lie in it, in order. They may be merged. old is to be given to pieces_retire() when it is replaced
 * and nobody looks at it any more, and to nothing else but readers from here on. -ENOMEM: old is as it was.
 */
must_check int pieces_put(struct pieces *old, uint64_t lo, uint64_t hi, const struct umbra_piece *in,
			  unsigned count, struct pieces **out);
/* The same, with these flags taken away from all in [lo, hi). */
must_check int pieces_weaken(struct pieces *old, uint64_t lo, uint64_t hi, uint32_t flags,
			     struct pieces **out);
/* Frees old but for what the set that was made from it has too. */
void pieces_retire(struct pieces *old);
/* Frees all of it. */
void pieces_free(struct pieces *set);

#endif
