/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad memory under the file system: found, its owners told, taken out of use.
 */
#ifndef UMBRA_FS_POISON_H
#define UMBRA_FS_POISON_H

#include "fs/core.h"
#include "media/node.h"

/*
 * Sees to the block at dev_off: when this returns 0 nobody maps it any more who could be switched away from it, and no unit lies there.
 * No transaction may be open and no lock held that is taken inside of one. -EIO, -ENOSPC ...: it stays as it is.
 */
must_check int poison_handle(struct fs *fs, uint64_t dev_off);

/* The same for what this thread met last, but metadata is only noted. 0: the operation may start again, or -EIO. */
must_check int poison_met(struct fs *fs);

/* Goes on with what a crash left half-way. */
void poison_resume(struct fs *fs);

void poison_tell(struct fs *fs, const struct fs_poison *event);

/* ---- poison_meta.c ---- */

/* A block with such an owner that is no file. away: it is not to be used any more, even if it can be. As poison_handle(). */
must_check int poison_meta(struct fs *fs, uint64_t dev_off, const struct rmap *owner, bool away);

/* ---- poison_queue.c ---- */

/* Metadata in bad memory, for poison_drain(). Whatever locks are held. */
void poison_note(struct fs *fs, uint64_t dev_off);
/* Whether what transactions meet is noted. */
void poison_listen(struct fs *fs, bool listen);
/* Sees to what was noted, each place once. at_once: even what has just been tried. As poison_handle(). */
void poison_drain(struct fs *fs, bool at_once);

#endif
