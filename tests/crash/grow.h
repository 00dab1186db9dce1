/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Growing a pool, cut by a power loss: shapes of pools, and what goes on before, in the middle and after.
 */
#ifndef UMBRA_TESTS_CRASH_GROW_H
#define UMBRA_TESTS_CRASH_GROW_H

#include "crash/scenes.h"

struct grow_shape {
	const char *name;
	uint64_t made, to; /* MiB: of the pool before and after */
	uint64_t step;     /* MiB, in between, for GROW_TWICE; 0: there is none */
	uint64_t device;   /* MiB that there are in the end */
	uint64_t later; /* MiB that there are after the power loss: somebody enlarged it again; 0: as before */
	uint64_t ag;    /* MiB; 0: by the size */
	uint32_t lane_count, lane_size_bytes;
	bool metadata_single;
};
extern const struct grow_shape grow_shapes[];
extern const unsigned grow_shape_count;

/* The other operation runs ... the growth; and what is cut is the one that comes last. GROW_TWICE: it is another growth. */
enum grow_order { GROW_ALONE, GROW_TWICE, GROW_AFTER_IT, GROW_BEFORE_IT, GROW_AROUND_IT };

/* What was seen: images with either size. */
struct grow_stats {
	uint64_t old, grown;
	struct crash_stats crash;
};

/*
 * On a pool of its own: of opts images, all, deep, seed and quiet count. op may be NULL where there is none. False: some image was
 * wrong, or the pool could not grow.
 */
bool grow_run(const struct grow_shape *shape, const struct crash_opts *opts, enum grow_order order,
	      const struct file_state *state, const struct scene_op *op, struct grow_stats *stats);

/* For GROW_AROUND_IT: to be called while the new groups are made. Does nothing at any other time. */
void grow_middle(void);

#endif
