/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Blocks that were copied for holders before they stored to them (fs_make_storable()), and where they came from. Only a note in memory: what is
 * forgotten stays as it is, in blocks of the file's own.
 */
#ifndef UMBRA_FS_COPIES_H
#define UMBRA_FS_COPIES_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fs;

struct copy {
	uint64_t ino, file_blk, old_blk;
	uint32_t count_blk;
	bool due; /* to be given back */
};

struct copies {
	pthread_mutex_t lock; /* of what follows; around no call */
	struct copy *list;
	size_t count, room;
	_Atomic size_t due_count;
};

void copies_open(struct fs *fs);
void copies_close(struct fs *fs);
/* After the commit. Those that go on where the last one ended become one with it. */
void copies_note(struct fs *fs, const struct copy *copies, unsigned count);
/* Sees to one that is due. False: there is none. No lock is held. */
bool copies_work(struct fs *fs);

#endif
