/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad memory under the file system: found, its owners told, taken out of use.
 */
#ifndef UMBRA_FS_POISON_H
#define UMBRA_FS_POISON_H

#include "fs/core.h"

/*
 * Sees to the block at dev_off: when this returns 0 nobody maps it any more who could be switched away from it (metadata: its other copy serves).
 * No transaction may be open and no lock held that is taken inside of one. -EIO, -ENOSPC ...: it stays as it is.
 */
must_check int poison_handle(struct fs *fs, uint64_t dev_off);

/* The same for what this thread met last. 0: the operation may start again, or -EIO. */
must_check int poison_met(struct fs *fs);

/* Goes on with what a crash left half-way. */
void poison_resume(struct fs *fs);

void poison_tell(struct fs *fs, const struct fs_poison *event);

#endif
