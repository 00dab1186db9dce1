/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbractl clone: what its two parts share.
 */
#ifndef UMBRA_TOOLS_CTL_CLONE_H
#define UMBRA_TOOLS_CTL_CLONE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

struct clone {
	bool batches; /* files go to the daemon many at a time (root) */
	bool progress;
	uint64_t files, dirs, others, bytes, errors;
	struct timespec started, shown;
	dev_t dev;
	ino_t dst_root; /* not to be cloned into itself */
};

/* Says what went wrong with one name (path may be cut) and counts it. */
void clone_error(struct clone *c, const char *path, int error);
void clone_progress(struct clone *c, bool last);

/* Clones the regular file src_dir/src_name to the new name dst_dir/dst_name, attributes too. 0 or an errno. */
int clone_file(struct clone *c, int src_dir, const char *src_name, int dst_dir, const char *dst_name);
/* Owner, mode, attributes and times of src put on dst; st is src's. 0 or an errno. */
int clone_attributes(int src, int dst, const struct stat *st);

/* The tree src_dir/src_name as the new name dst_dir/dst_name. Errors are counted and said. */
void clone_tree(struct clone *c, int src_dir, const char *src_name, int dst_dir, const char *dst_name,
		const char *path);

#endif
