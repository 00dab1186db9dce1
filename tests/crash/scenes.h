/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Operations to be cut by a power loss, and the states that they meet.
 */
#ifndef UMBRA_TESTS_CRASH_SCENES_H
#define UMBRA_TESTS_CRASH_SCENES_H

#include "crash/explore.h"

/* A file "f" in some state, and another one, "o". */
struct scene {
	struct testfs *t;
	uint64_t file, other;
	int64_t result; /* of the operation */
};

struct file_state {
	const char *name;
	void (*make)(struct scene *s);
	bool all_shared; /* nothing of it may be overwritten in place */
};
extern const struct file_state file_states[];
extern const unsigned file_state_count;

struct file_op {
	const char *name;
	int64_t (*run)(struct scene *s);
	/* What it may overwrite in place, NULL: nothing; asked right before it runs. */
	void (*mix)(struct scene *s, struct snapshot_mix *mix);
	void (*make)(struct scene *s); /* what it needs besides the state */
};
extern const struct file_op file_ops[];
extern const unsigned file_op_count;

/* The same for names: "make" prepares, "run" is cut. */
struct name_op {
	const char *name;
	void (*make)(struct scene *s);
	int64_t (*run)(struct scene *s);
	bool makes_odd; /* "make" leaves something that only "run" can take away */
};
extern const struct name_op name_ops[];
extern const unsigned name_op_count;

/* Makes "f" and "o", and takes everything in the root directory away again. */
void scene_begin(struct scene *s, struct testfs *t);
void scene_end(struct scene *s);

/* Runs one operation in one state. False: some image was wrong. */
bool scene_file(struct crash *c, const struct file_state *state, const struct file_op *op);
bool scene_name(struct crash *c, const struct name_op *op);
/* A file in a state by chance, then operations of both kinds by chance. */
bool scene_sequence(struct crash *c, uint64_t *random, unsigned length);

/*
 * Runs the tests (their state is what they were given, the pool is suite_pool()) on one pool and prints what was done. With --long again and again, with
 * other seeds, until one fails. For main().
 */
struct CMUnitTest;
int suite_main(int argc, char **argv, const struct crash_opts *opts, const struct CMUnitTest *tests,
	       size_t count);
struct crash *suite_pool(void);
uint64_t suite_seed(void);

/* Shorthands. */
uint64_t scene_make(struct scene *s, uint64_t dir, const char *name, uint32_t mode);
void scene_fill(struct scene *s, uint64_t ino, uint64_t off, uint64_t len, uint8_t seed);
const uint8_t *scene_bytes(uint64_t len, uint8_t seed);

#endif
