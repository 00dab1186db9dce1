/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Direct mappings of a mount: the registry, the server and the socket, and what the mount asks them.
 */
#ifndef UMBRA_DAEMON_DIRECT_H
#define UMBRA_DAEMON_DIRECT_H

#include <stdbool.h>

#include "daemon/options.h"
#include "fs/fs.h"
#include "fuse/session.h"
#include "util/util.h"

struct direct;

/* Between session_open() and session_run(). *out NULL: the options say that nobody may have any. */
must_check int direct_open(struct fs *fs, struct session *mount, const struct daemon_opts *opts,
			   bool readonly, struct direct **out);
/* Begins to serve; after session_run(). */
must_check int direct_run(struct direct *direct);
/* When no request of the kernel comes any more, before session_close(); then after it. NULL is fine. */
void direct_stop(struct direct *direct);
void direct_close(struct direct *direct);

#endif
