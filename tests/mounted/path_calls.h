/* SPDX-License-Identifier: BSD-3-Clause */
/* The table of calls that take a path, for paths.c. */
#ifndef UMBRA_TESTS_MOUNTED_PATH_CALLS_H
#define UMBRA_TESTS_MOUNTED_PATH_CALLS_H

#include <stddef.h>

/* What a call wants of its path, and what it does with it. */
enum {
	NEEDS_FILE = 1, /* the last component must exist (a regular file) */
	NEEDS_DIR = 2,  /* ... a directory */
	MAKES = 4,      /* the last component must not exist and does afterwards */
	REMOVES = 8,    /* the last component is gone afterwards */
	FOLLOWS = 16,   /* a symlink in the last component is followed */
	BY_ROOT = 32,   /* only root may do it at all */
	NEEDS_LNK = 64, /* the last component must be a symlink */
	LINKS = 128,    /* makes a hard link */
};

struct call {
	const char *name;
	unsigned flags;
	int (*run)(const char *path);
};

extern const struct call calls[];
extern const size_t calls_count;

#endif
