/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Whoever still has the device of an earlier mount mapped (dax_lend()).
 */
#ifndef UMBRA_DAEMON_DIRECT_DEVICE_H
#define UMBRA_DAEMON_DIRECT_DEVICE_H

#include <stddef.h>

#include "util/util.h"

/* Waits until nobody has. -EBUSY: somebody still has after wait_ms, named in why. */
must_check int direct_device_wait(int pool_fd, int wait_ms, char *why, size_t why_size);

#endif
