/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The mount of a daemon that answers the kernel's first request in another way than all others: it cannot take over from them. See keeper.sh.
 */
#include "fuse/ops.h"

#undef FUSE_CAP_CACHE_SYMLINKS
#define FUSE_CAP_CACHE_SYMLINKS 0

#include "../../src/fuse/session.c"
