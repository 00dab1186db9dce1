/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Some files under random operations on their data, and byte arrays that say what has to be in them.
 */
#ifndef UMBRA_TESTS_MODEL_DATA_WORLD_H
#define UMBRA_TESTS_MODEL_DATA_WORLD_H

#include "lib/testfs.h"

#define WORLD_FILES 7u

struct file {
	char name[8];
	uint64_t ino;
	uint64_t size;
	uint8_t *bytes; /* zero past size */
};

struct world {
	struct testfs t;
	uint64_t dir; /* where they lie */
	uint64_t random;
	unsigned step;
	const char *doing;
	struct file files[WORLD_FILES];
	uint8_t *buf, *seen;
	unsigned full; /* how often there was no space */
	bool no_crash; /* opened again only after a clean end */
};

/* w->t is open, the rest is zero: empty files in this directory. */
void world_make(struct world *w, uint64_t dir, uint64_t seed);
/* One operation. The test fails if it does what it should not. */
void world_step(struct world *w);
/* Compares everything, and checks the pool. */
void world_check(struct world *w);
/* The same without the walk over the pool. */
void world_compare(struct world *w);
/* Away with all files. */
void world_empty(struct world *w);
void world_free(struct world *w);

#endif
