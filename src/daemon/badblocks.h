/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The device's own list of bad memory, read while the file system is mounted.
 */
#ifndef UMBRA_DAEMON_BADBLOCKS_H
#define UMBRA_DAEMON_BADBLOCKS_H

#include "fs/fs.h"
#include "util/util.h"

#define BADBLOCKS_LOOK_MS 30000

struct badblocks;

/*
 * Starts a thread that reads the list, sees to each block in it, and does so again when the kernel says that the list has changed, or after look_ms. *out
 * NULL: the pool is in a plain file, which has no such list, and nothing is done.
 */
must_check int badblocks_start(struct fs *fs, int look_ms, struct badblocks **out);
void badblocks_stop(struct badblocks *bb); /* may be NULL; does not wait for the end of the list */

#endif
