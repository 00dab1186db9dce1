/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A file system on a pool in memory, for tests: made, closed, crashed and opened again. Whatever goes wrong in here stops the
 * test with a line that says where.
 */
#ifndef UMBRA_TESTS_TESTFS_H
#define UMBRA_TESTS_TESTFS_H

#include "dax/dax.h"
#include "fs/fs.h"
#include "txn/format.h"
#include "txn/pool.h"

struct testfs_opts {
	uint64_t size_bytes; /* 0: 64 MiB */
	struct format_opts format;
	struct fs_opts fs;
	const struct dax_trace *trace; /* sees everything after the making */
};

struct testfs {
	struct testfs_opts opts;
	struct dax *dax;
	struct pool *pool;
	struct fs *fs;
};

/* opts may be NULL. */
void testfs_make(struct testfs *t, const struct testfs_opts *opts);
/* A copy of these bytes as they are, with what opening does to it (replay). opts->format is not used. */
void testfs_open_image(struct testfs *t, const void *image, const struct testfs_opts *opts);
void testfs_free(struct testfs *t); /* closes cleanly and frees the memory */

/* Clean: closed and opened again on the same memory. */
void testfs_remount(struct testfs *t);
/* The process is gone: what is in memory now is opened again, as if nothing had been closed. */
void testfs_crash(struct testfs *t);

/* The consistency walk over the pool; the test stops at the first finding. Nothing else may run. */
void testfs_check(struct testfs *t);
/* The same for an image that nobody has open: what fsck would say after the journal was replayed, before any mount. */
void testfs_check_image(const void *image, uint64_t size_bytes);

/* Who asks, in most tests: root with an empty umask. */
extern const struct fs_cred testfs_root;

/* Shorthands by name (a C string). They take a reference and give it back at once, unless an attr is asked for. -errno. */
int testfs_mknod(struct testfs *t, uint64_t dir, const char *name, uint32_t mode, struct inode_attr *attr);
int testfs_lookup(struct testfs *t, uint64_t dir, const char *name, struct inode_attr *attr);
int testfs_unlink(struct testfs *t, uint64_t dir, const char *name);
int testfs_rmdir(struct testfs *t, uint64_t dir, const char *name);
int testfs_link(struct testfs *t, uint64_t ino, uint64_t dir, const char *name);
int testfs_rename(struct testfs *t, uint64_t dir, const char *name, uint64_t new_dir, const char *new_name,
		  unsigned flags);

/* The same without an error to look at: the test stops if it cannot be done. */
uint64_t testfs_node(struct testfs *t, uint64_t dir, const char *name, uint32_t mode);
struct inode_attr testfs_attr(struct testfs *t, uint64_t ino);

/* The seed of a random test: from UMBRA_SEED or the clock; printed. */
uint64_t testfs_seed(void);
/* The next number of a generator (splitmix64), and one below limit. */
uint64_t testfs_random(uint64_t *state);
uint64_t testfs_below(uint64_t *state, uint64_t limit);

#endif
