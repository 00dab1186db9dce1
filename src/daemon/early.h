/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Early notice of bad memory: the kernel tells of poison before anybody has touched it.
 */
#ifndef UMBRA_DAEMON_EARLY_H
#define UMBRA_DAEMON_EARLY_H

#include "fs/fs.h"
#include "util/util.h"

struct early;

/* Starts a thread that asks for it and sees to what is told. */
must_check int early_start(struct fs *fs, struct early **out);
void early_stop(struct early *early); /* may be NULL */

#endif
