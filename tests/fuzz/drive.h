/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Everything that a program can do to a mounted pool, in short. What comes back does not matter: it has to come back.
 */
#ifndef UMBRA_TESTS_FUZZ_DRIVE_H
#define UMBRA_TESTS_FUZZ_DRIVE_H

#include "fs/fs.h"

/* Looks at all names, attributes, content; returns how many calls said that the media are damaged, and which was the first one. */
unsigned drive_walk(struct fs *fs, const char **first);

/* Changes by chance: the same seed does the same. */
void drive_change(struct fs *fs, uint64_t seed, unsigned steps);

#endif
