/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * All owners of a run of blocks are switched away from it, batch by batch: for poison.c and forward.c, which know what to.
 */
#ifndef UMBRA_FS_SWITCH_H
#define UMBRA_FS_SWITCH_H

#include "fs/data.h"

#define SWITCH_BATCH 32u

/* A part of the run that one file has. */
struct share {
	uint64_t ino, file_blk, dev_blk, count_blk;
	bool switched;       /* out */
	uint64_t lost_lines; /* out, of bad memory: that this owner lost now */
	bool zeroed;         /* they read as zeroes, and are not recorded */
};

struct switching;

struct switch_ops {
	/* Looks for owners with switching_look(), or a look of its own that calls switching_note(). arg: the struct switching, as for end. */
	op_fn look;
	/*
	 * Switches one, as much as there is room for, and says so in share->switched; his inode's lock is held, but he may have changed since he was
	 * looked at. 1, -ESTALE: nothing of it is his any more. share is the first one of s->list when a transaction begins.
	 */
	int (*one)(struct op *op, struct switching *s, struct share *share);
	/* One has been, durably. May be NULL. */
	void (*told)(struct switching *s, const struct share *share);
	/* None is left. 1: somebody is, again. */
	op_fn end;
};

struct switching {
	struct fs *fs;
	const struct switch_ops *ops;
	uint64_t blk, count_blk;
	struct share list[SWITCH_BATCH];
	unsigned count; /* of shares; there may be more */
	struct {
		uint64_t start_blk, owner, offset_blk;
	} after, last; /* keys in the rmap: what is in front of the list, and the last one in it */
};

/* For space_owners(), arg is the struct switching: takes the owner into the list, if it is a file. 1: there is no room. */
int switching_note(void *arg, const struct rmap *rmap);

/* The first owners behind s->after. */
must_check int switching_look(struct op *op, void *arg);

/*
 * Switches all who can be, and ends it. Who cannot be (he is damaged) does not hold up the others, wherever he is among them: -EUCLEAN or
 * -EIO then. With no transaction open; the caller keeps others from doing the same.
 */
must_check int switching_run(struct switching *s);

#endif
