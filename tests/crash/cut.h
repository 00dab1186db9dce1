/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Power loss at every fence of what a test does: its stores are recorded, and then images are made of what the memory could have held. For tests that
 * look at the images in their own way; explore.h does it for whole operations.
 */
#ifndef UMBRA_TESTS_CRASH_CUT_H
#define UMBRA_TESTS_CRASH_CUT_H

#include "crash/record.h"
#include "dax/dax.h"

#define CUT_NO_PAGE UINT64_MAX

struct cut {
	struct record record;
	uint8_t *memory; /* as everything that was fenced has left it */
	uint64_t size_bytes;
	uint64_t dead_off; /* the page that takes no stores, or CUT_NO_PAGE */
	uint64_t random;
};

/* For a pool in memory. It tells of stores and fences between cut_begin() and cut_end() of the calling test. */
extern const struct dax_trace cut_trace;

/* From now on it is recorded, on top of this memory. One at a time. */
void cut_begin(struct cut *c, const void *memory, uint64_t size_bytes, uint64_t dead_off);
void cut_end(void);
bool cut_is_recording(void);

/*
 * For each fence some of the images that power loss before it could leave: nothing has arrived, everything, a part, everything but one store. They are
 * valid during the call. Only once for each recording; gives it back.
 */
void cut_images(struct cut *c, void (*look)(void *arg, const uint8_t *image), void *arg);

#endif
