/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Power loss at every fence of an operation.
 *
 * The operation runs on a live pool whose stores and fences are recorded. Then, for each fence, images of what the memory could
 * hold are made (record.h says what that is): all fenced stores, and some of the others. All such images if there are few, else a
 * sample. Each image is opened (replay), checked, and compared with what could be seen before and after the operation; some
 * crash again, at each fence of their being opened. After the operation has returned only the state after it will do.
 */
#ifndef UMBRA_TESTS_CRASH_EXPLORE_H
#define UMBRA_TESTS_CRASH_EXPLORE_H

#include "crash/snapshot.h"
#include "lib/testfs.h"

struct crash_opts {
	uint64_t size_bytes; /* 0: 16 MiB */
	uint64_t made_bytes; /* the pool is made so large, and an operation can grow it up to size_bytes; 0: it cannot grow */
	struct format_opts format;
	uint64_t seed;
	unsigned images; /* a sample for each fence; 0: 100 */
	unsigned all; /* make all images of a fence if there are no more than this; 0: as many as a sample */
	bool deep;    /* every image crashes again, and once more after that */
	bool quiet;   /* says nothing about a failure */
	/* More to look at in an image that has been opened: NULL, or what is wrong with it. May be NULL. */
	const char *(*look)(struct pool *pool, bool is_final);
};

struct crash;

struct crash *crash_new(const struct crash_opts *opts);
void crash_free(struct crash *c);

/* The live file system. What is done to it outside of crash_run() is durable. */
struct testfs *crash_live(struct crash *c);

/* Runs op (which may change what mix points to) and explores it. False: some image was wrong (and printed, unless quiet). */
bool crash_run(struct crash *c, const char *name, void (*op)(struct testfs *t, void *arg), void *arg,
	       const struct snapshot_mix *mix);

/* Other numbers of images from here on; 0: as they are. */
void crash_set_images(struct crash *c, unsigned images, unsigned all);

struct crash_stats {
	uint64_t ops, fences, full_fences; /* full: all images that there can be */
	uint64_t images, again, third, replayed, lane_lost, intents;
};
const struct crash_stats *crash_stats(const struct crash *c);

#endif
