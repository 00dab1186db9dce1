/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A walk over all names of a quiet file system, through its own calls: link counts, sizes of directories, '..', paths; then testfs_check(). Stops the test
 * where something does not fit.
 */
#ifndef UMBRA_TESTS_TESTTREE_H
#define UMBRA_TESTS_TESTTREE_H

#include "lib/testfs.h"

/* Returns the number of entries. fn (may be NULL) is told of each one. */
uint64_t testtree_walk(struct testfs *t, void (*fn)(void *arg, uint64_t dir, const struct fs_dirent *entry),
		       void *arg);

#endif
