/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is in a file system, as text: a line for each name, sorted by path, so that two of them can be compared.
 */
#ifndef UMBRA_TESTS_TESTLIST_H
#define UMBRA_TESTS_TESTLIST_H

#include "lib/testfs.h"

/*
 * Paths with type, mode, owner, links, size, blocks, a hash of content or target, and of the attributes. Inode numbers are part of it;
 * times are not. To be freed. Whatever cannot be read is part of the text too.
 */
char *testlist_make(struct testfs *t);
/* The line of a path; NULL: it is not there. Up to its end of line. */
const char *testlist_line(const char *list, const char *path, size_t *len);
/* The lines that are in only one of both, '-' and '+' in front, on standard output; how many. */
unsigned testlist_diff(const char *before, const char *after, bool print);

#endif
