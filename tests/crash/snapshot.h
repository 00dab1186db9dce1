/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * All that a program can see of a file system, taken down: every name with its attributes, content, symlink target and xattrs.
 */
#ifndef UMBRA_TESTS_CRASH_SNAPSHOT_H
#define UMBRA_TESTS_CRASH_SNAPSHOT_H

#include "fs/fs.h"

struct snapshot_entry {
	char *path;
	struct inode_attr attr;
	uint8_t *content; /* of a file or symlink, attr.size bytes */
	uint8_t *xattrs;  /* name, NUL, le32-like length, value: one after the other, in order of names */
	size_t xattrs_size;
};

struct snapshot {
	struct snapshot_entry *entries; /* by path */
	size_t count, room;
	int error;          /* of the first call that failed, */
	char error_at[300]; /* and which */
};

void snapshot_take(struct fs *fs, struct snapshot *snap);
void snapshot_free(struct snapshot *snap);

/* Bytes of one file that may be old or new, 8 by 8: it was overwritten in place. */
struct snapshot_mix {
	uint64_t ino; /* 0: none */
	uint64_t lo, hi;
	bool stays; /* even after the operation has returned: it failed */
};

/*
 * Whether seen is the same as want, but for the bytes of mix, which may be as in other. any_time: mtime, ctime and change count may
 * differ (an operation that was finished after the crash). False: why says what differs.
 */
bool snapshot_same(const struct snapshot *seen, const struct snapshot *want, const struct snapshot *other,
		   const struct snapshot_mix *mix, bool any_time, char *why, size_t why_size);

#endif
