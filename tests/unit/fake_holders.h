/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Holders for tests: a table of shadows, as grants gave them. It lets go when it is asked to, or refuses, or does not answer; and it looks whether the
 * file system kept its word. Its functions stop the test, so threads other than the test's must not see anything wrong.
 */
#ifndef UMBRA_TESTS_FAKE_HOLDERS_H
#define UMBRA_TESTS_FAKE_HOLDERS_H

#include <pthread.h>

#include "fs/holders.h"
#include "lib/testfs.h"

struct fake_ask {
	uint64_t ino, lo_blk, hi_blk;
	enum fs_change change;
};
#define FAKE_ASKS 256u
#define FAKE_SHADOWS 8192u
#define FAKE_KEPT 16384u

struct fake_shadow {
	uint64_t ino, file_blk, dev_blk, count_blk;
	uint32_t flags; /* FS_PIECE_* */
	bool lost;      /* its session did not answer */
};

enum fake_mood {
	FAKE_ANSWERS,
	FAKE_REFUSES, /* begin() gives -EBUSY */
	FAKE_MUTE,    /* no answer: shadows are lost; -EBUSY for SHARE if one may be stored through */
	FAKE_DEAF,    /* says that they are gone, but they are not */
};

struct fake_holders {
	struct fs_holders ops;
	struct fs *fs;
	pthread_mutex_t lock; /* all of the following; taken under locks of fs, and never around a call of it */
	enum fake_mood mood;
	void (*last_store)(struct fake_holders *h); /* when it is asked, before it lets go; may be NULL */
	struct fake_shadow shadows[FAKE_SHADOWS];
	unsigned count;
	struct fake_ask asks[FAKE_ASKS]; /* since fake_forget(): as many as there is room for */
	unsigned ask_count, begun, ended;
	struct fake_ask open[64]; /* begun, not ended */
	unsigned open_count;
	uint64_t kept[FAKE_KEPT]; /* blocks that keep() has said are held */
	unsigned kept_count;
	bool whole;         /* grants are asked for so */
	unsigned no_memory; /* so often begin() gives -ENOMEM first */
	bool broken;
};

void fake_holders_set(struct fake_holders *h, struct fs *fs);
/* fs is still open: nobody holds anything any more. */
void fake_holders_end(struct fake_holders *h);
/* What was asked so far is not looked at. */
void fake_forget(struct fake_holders *h);

/* Shadows of what there is in [lo, hi) of a file; its result, of take() too: -EAGAIN while a change is under way. fs_hold() is the caller's. */
int fake_grant(struct fake_holders *h, uint64_t ino, uint64_t lo_blk, uint64_t hi_blk, bool write);
/* Lets go of all in the range, lost or not; what was kept is given back. */
void fake_release(struct fake_holders *h, uint64_t ino, uint64_t lo_blk, uint64_t hi_blk);
/* Blocks of the file in [lo, hi) that are held (and may be stored to). */
uint64_t fake_held_blk(struct fake_holders *h, uint64_t ino, uint64_t lo_blk, uint64_t hi_blk, bool write);
/* Shadows that are not lost show what the file has; those that may be stored through are of blocks with one owner. Nothing else may run. */
void fake_check(struct fake_holders *h);

#endif
