/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the kernel's FUSE does not pass to a server: FICLONE, FICLONERANGE, FIDEDUPERANGE, FIEMAP and some modes of fallocate(2), by the private
 * ioctls of <umbra/ioctl.h>. To be called after the kernel has refused (EOPNOTSUPP), so that its checks have been made.
 *
 * range and map are the caller's and may be bad addresses: -EFAULT. All return 0 or -errno; -EOPNOTSUPP also for a file that is not on an umbrafs mount. Pages of the source that were dirtied through
 * a mapping are written first (fsync).
 */
#ifndef UMBRA_CLIENT_UNPASSED_H
#define UMBRA_CLIENT_UNPASSED_H

#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/util.h"

/* len 0: to the end of the source. */
must_check int unpassed_clone(int dst, int src, uint64_t src_off, uint64_t len, uint64_t dst_off);

/* What is equal only at the beginning is shared that far. */
must_check int unpassed_dedupe(int src, struct file_dedupe_range *range);

must_check int unpassed_fiemap(int fd, struct fiemap *map);

must_check int unpassed_fallocate(int fd, int mode, off_t off, off_t len);

#endif
