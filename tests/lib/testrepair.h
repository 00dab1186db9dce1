/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Files of which a test knows the content, and a repair of the pool that they are on. Whatever goes wrong stops the test.
 */
#ifndef UMBRA_TESTS_TESTREPAIR_H
#define UMBRA_TESTS_TESTREPAIR_H

#include "lib/testunit.h"
#include "media/ag.h"
#include "repair/repair.h"

#define TESTREPAIR_FILES 300u

struct testrepair {
	struct testfs t;
	uint64_t inos[TESTREPAIR_FILES], hashes[TESTREPAIR_FILES]; /* 0: unlinked; not known */
};

/* Many extents in turns, some shared, some given back; with_xattrs: so much metadata that it takes several chunks. */
void testrepair_make(struct testrepair *e, uint64_t size_bytes, bool with_xattrs);
void testrepair_make_with(struct testrepair *e, const struct testfs_opts *opts, bool with_xattrs);

/*
 * On a pool that nobody has open (t.dax is still there): repairs it, looks whether a second repair finds nothing, and opens it. At
 * most lost_max things may be told as lost.
 */
void testrepair_mend(struct testrepair *e, unsigned lost_max);

/* All files are as they were, and new ones can be made. */
void testrepair_verify(struct testrepair *e);

/* Addresses of the nodes of a tree of a group, of all or of the leaves; their number. */
size_t testrepair_nodes(struct testrepair *e, uint32_t agno, enum ag_tree which, bool leaves,
			uint64_t *laddrs);

#endif
