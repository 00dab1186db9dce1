/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The steps of the model on a mounted umbrafs, and the comparison of what is there with the model. The working directory is the folder of the load.
 */
#ifndef UMBRA_TESTS_STRESS_STEPS_H
#define UMBRA_TESTS_STRESS_STEPS_H

#include "model.h"

struct place {
	unsigned worker;
	int held; /* an open file without a name; -1: none */
};

/* The path of a name: half of them in a directory of the worker's own, half in one that all share. */
const char *place_path(unsigned worker, unsigned name);

/* 0 or -errno. */
int steps_run(struct place *p, struct model *m, const struct step *s);

/* How many names of the worker are not as the model has it. loud: says what is wrong. */
unsigned steps_differ(unsigned worker, struct model *m, bool loud);

/*
 * A step on the bytes of a file that was under way: everything is as before it, but for the bytes of its file, each of which is old or new.
 * The model takes over what is there. False: it is neither.
 */
bool steps_is_between(unsigned worker, struct model *before, struct model *after, const struct step *s);

#endif
