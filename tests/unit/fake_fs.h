/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Files as the registry sees them, in arrays: the calls of fs/holders.h, operations that ask the holders as those of the file system do, and
 * blocks that are free, used, or kept by the holders. Stands in for the floors fs and space.
 */
#ifndef UMBRA_TESTS_FAKE_FS_H
#define UMBRA_TESTS_FAKE_FS_H

#include <pthread.h>
#include <stdatomic.h>

#include "fs/holders.h"

#define FAKE_FILES 8u
#define FAKE_FILE_BLK 64u
#define FAKE_DEV_BLK 1024u

enum fake_use { FAKE_FREE, FAKE_USED, FAKE_KEPT };

struct fake_file {
	pthread_rwlock_t lock;
	_Atomic unsigned holds;
	uint64_t map[FAKE_FILE_BLK]; /* 0: a hole */
};
struct fake_fs {
	const struct fs_holders *holders;
	struct fake_file files[FAKE_FILES + 1]; /* from 1 on */
	pthread_mutex_t lock;                   /* of blocks */
	enum fake_use use[FAKE_DEV_BLK];
	unsigned refs[FAKE_DEV_BLK];
	uint64_t next;    /* where a free block is looked for */
	uint64_t big_blk; /* every file is that large, one block of the device after the other; 0: as in map */
	uint64_t kept_blk;            /* now */
	_Atomic unsigned bad_release; /* of blocks that were not kept, or given out while somebody has them */
	_Atomic unsigned still_held;  /* after it was asked for */
	void (*between)(void *arg);   /* called by fs_grant() with the lock of the inode, before take() */
	void *between_arg;
	/* Called before a change is made, with the locks of its files. */
	void (*changes)(void *arg, uint64_t ino, uint64_t lo, uint64_t hi, enum fs_change change);
	void *changes_arg;
	int storable_rc; /* what fs_make_storable() returns, if not 0 */
};

struct fs *fake_fs_new(void);
void fake_fs_free(struct fs *fs);
struct fake_fs *fake_of(struct fs *fs);

/* The blocks of [lo, hi) go; others come in their place, or a hole. -ENOSPC; errors of begin(). */
must_check int fake_move(struct fs *fs, uint64_t ino, uint64_t lo, uint64_t hi, bool fill);
/* The kernel gets pages of [lo, hi), to store to. */
must_check int fake_lend(struct fs *fs, uint64_t ino, uint64_t lo, uint64_t hi, bool store);
/* to gets the blocks that from has in [lo, hi), too. */
must_check int fake_share(struct fs *fs, uint64_t from, uint64_t to, uint64_t lo, uint64_t hi);

#endif
