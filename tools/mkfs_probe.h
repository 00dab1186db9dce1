/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is on a pool before mkfs overwrites it.
 */
#ifndef UMBRA_TOOLS_MKFS_PROBE_H
#define UMBRA_TOOLS_MKFS_PROBE_H

#include <stddef.h>

#include "util/util.h"

/*
 * 0: nothing known is there (or there is no such file yet). 1: something is, named in what ("an ext4 file system", "an umbrafs pool"). -errno: could not be
 * looked at, with one line in what.
 */
must_check int probe_content(const char *path, char *what, size_t what_size);

#endif
