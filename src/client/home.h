/* SPDX-License-Identifier: BSD-3-Clause */
/* Where a pool is mounted: noted while its daemon lives, to find the next mount of the same pool when it has ended. */
#ifndef UMBRA_CLIENT_HOME_H
#define UMBRA_CLIENT_HOME_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/util.h"

#define HOME_POINTS_MAX 4u

/* Does not change, and is never freed. */
struct home {
	uint8_t uuid[16];
	char *source; /* as mountinfo has it */
	unsigned count;
	struct {
		char *root, *at; /* which folder of the pool is mounted where; "" is the whole pool */
	} points[HOME_POINTS_MAX];
};

/* Of the mount that fd is on, whose device is dev. NULL: it cannot be told. */
struct home *home_of(int fd, dev_t dev);
/* 1: fd is on a mount of the same pool, 0: it is not. -errno: who serves it does not say, and perhaps has ended. */
must_check int home_has(const struct home *home, int fd);

/* For one mount: its folder, and which one of the pool it is ("": the first one). 0: done. */
typedef int (*home_fn)(void *arg, int dir, const char *root);
/* Calls it for each mount of the pool that answers, until it returns 0. -ENOTCONN: there is none, or none any more; else the last error. */
must_check int home_next(const struct home *home, home_fn fn, void *arg);

#endif
