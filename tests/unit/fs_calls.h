/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A file system with something of most kinds, and every call of fs.h on it, for tests that make each step of a call fail in turn.
 */
#ifndef UMBRA_TESTS_FS_CALLS_H
#define UMBRA_TESTS_FS_CALLS_H

#include "lib/testfs.h"

#define FS_CALLS_BYTES ((uint64_t)18 << 20)

struct fs_call {
	const char *name;
	int64_t (*fn)(struct testfs *t); /* as the call; needs nothing of earlier ones */
	bool reads;                      /* changes nothing */
};
extern const struct fs_call fs_calls[];
extern const unsigned fs_call_count;

/* Takes away what a call has made before it failed, where it may do a part: so that it can be made again. */
void fs_calls_undo(struct testfs *t);

/* The pool to begin with: FS_CALLS_BYTES bytes, the caller's to free. */
void *fs_calls_image(void);

/* One number for all that can be read: names, attributes, contents. The test stops at what cannot be. Times are left out. */
uint64_t fs_calls_sum(struct testfs *t);

#endif
