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
	uint64_t tmp;      /* a file that never had a name, referenced; 0: none */
	unsigned opens;    /* of "f" */
	bool rough;        /* what cannot be made in this state is left out */
	int64_t result;    /* of the operation */
	const char *wrong; /* what the operation has done wrong, with no power loss at all */
};

struct file_state {
	const char *name;
	void (*make)(struct scene *s);
	bool all_shared; /* nothing of it may be overwritten in place */
};
extern const struct file_state file_states[];
extern const unsigned file_state_count;
/* So many extents that operations on all of them take several transactions, under an intent. */
extern const struct file_state many_states[];
extern const unsigned many_state_count;

struct scene_op {
	const char *name;
	int64_t (*run)(struct scene *s);
	/* What it may overwrite in place, NULL: nothing; asked right before it runs. */
	void (*mix)(struct scene *s, struct snapshot_mix *mix);
	void (*make)(
		struct scene *s); /* what it needs besides the state; may be called when another one has been */
};
extern const struct scene_op file_ops[], name_ops[];
extern const unsigned file_op_count, name_op_count;
/* Number i of both kinds. */
const struct scene_op *scene_op(unsigned i);
unsigned scene_op_count(void);
/* Whole however many transactions it takes; others may stop in the middle, as DESIGN 6 says. */
bool scene_op_is_long(const struct scene_op *op);

/* Makes "f" and "o", and takes everything in the root directory away again. */
void scene_begin(struct scene *s, struct testfs *t);
void scene_end(struct scene *s);

/* Runs one operation in one state (NULL: empty) and cuts it. False: some image was wrong. */
bool scene_run(struct crash *c, const struct file_state *state, const struct scene_op *op);
/* Two of them, the second one is cut. */
bool scene_pair(struct crash *c, const struct file_state *state, const struct scene_op *first,
		const struct scene_op *op);
/* A file in a state by chance, then operations by chance. */
bool scene_sequence(struct crash *c, uint64_t *random, unsigned length);

/*
 * Runs the tests (their state is what they were given, the pool is suite_pool()) on one pool and prints what was done. For main().
 */
struct CMUnitTest;
int suite_main(const struct crash_opts *opts, const struct CMUnitTest *tests, size_t count);
struct crash *suite_pool(void);
uint64_t suite_seed(void);

/*
 * What an operation is to make of the two files: begin, then what it did, then the end compares (done: the operation says that it has
 * been done; else anything goes).
 */
struct scene_model;
struct scene_model *model_begin(struct scene *s);
void model_size(struct scene_model *m, uint64_t ino, uint64_t size);
uint64_t model_size_of(struct scene_model *m, uint64_t ino);
void model_write(struct scene_model *m, uint64_t ino, uint64_t off, const uint8_t *bytes, uint64_t len);
void model_share(struct scene_model *m, uint64_t src, uint64_t src_off, uint64_t dst, uint64_t dst_off,
		 uint64_t len);
void model_falloc(struct scene_model *m, uint64_t ino, int mode, uint64_t off, uint64_t len);
void model_end(struct scene *s, struct scene_model *m, bool done);

/* Shorthands. */
uint64_t scene_make(struct scene *s, uint64_t dir, const char *name, uint32_t mode); /* or what is there */
void scene_fill(struct scene *s, uint64_t ino, uint64_t off, uint64_t len, uint8_t seed);
const uint8_t *scene_bytes(uint64_t len, uint8_t seed);
/* How often add can be called for something new before the tree of it needs its next node but (nodes): full is what it is then. */
unsigned scene_full(struct scene *s, void (*add)(struct scene *s, uint64_t ino, unsigned i), uint32_t mode,
		    unsigned nodes);

#endif
