/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The list that a device keeps of its own bad memory, and how it is told to clear an entry of it.
 *
 * Of a device-DAX node of persistent memory the kernel has one, for the whole region that the node is a part of: what a scrub of the device has found and
 * what has been met since. A plain file, or memory that is no persistent memory, has none.
 */
#ifndef UMBRA_DAX_BADBLOCKS_H
#define UMBRA_DAX_BADBLOCKS_H

#include <sys/types.h>

#include "dax/dax.h"

/* A bad range, in bytes from the start of the pool; it may reach beyond its end. Non-zero: stop, and return that. */
typedef int (*dax_badblock_fn)(void *arg, uint64_t off, uint64_t len_bytes);

/*
 * Looks for the list; nothing is loaded. -ENOENT: there is none (of a plain file at once), -EACCES, -EIO ...: it cannot be read. Not by two
 * threads at once. Before it there is none for all the others.
 */
must_check int dax_badblocks_open(struct dax *dax);
/* The same with another root of sysfs, for another device than that of the pool. */
must_check int dax_badblocks_open_at(struct dax *dax, const char *sysfs, dev_t rdev);
/* Whether it has been found, or stands in. */
bool dax_badblocks_known(const struct dax *dax);

/* Calls fn for each range of it, in no order; ranges may overlap. -ENOENT: no list. The kernel shows about 300 ranges at a time. */
must_check int dax_badblocks_list(struct dax *dax, dax_badblock_fn fn, void *arg);
/* To be polled for POLLPRI: the list has changed since it was read; -1: there is nothing to poll. */
int dax_badblocks_fd(const struct dax *dax);
/*
 * The device is to make a range (whole blocks of 4096 bytes) usable again; what it holds then is anybody's guess. -EOPNOTSUPP: there is nobody who could;
 * -EIO and others: it did not. Any thread.
 */
must_check int dax_badblocks_clear(struct dax *dax, uint64_t off, uint64_t len_bytes);
/* Whether there is somebody to ask. */
bool dax_badblocks_can_clear(const struct dax *dax);

struct dax_badblocks_ops {
	int (*list)(void *ctx, dax_badblock_fn fn, void *arg);
	int (*clear)(void *ctx, uint64_t off, uint64_t len_bytes); /* NULL: cannot */
	int (*fd)(void *ctx);                                      /* NULL: none */
	void (*close)(void *ctx);                                  /* by dax_close(); NULL: nothing to do */
};
/* For tests: a list that stands in for the device's. Before anybody asks for that. */
void dax_badblocks_stand_in(struct dax *dax, const struct dax_badblocks_ops *ops, void *ctx);

#endif
