/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Files with so many extents that an operation on all of them takes several transactions.
 */
#include <fcntl.h>
#include <linux/falloc.h>

#include "crash/scenes.h"

#define BLK 4096u
#define EXTENTS 1600u
#define PART (256u * BLK)

/* Each second block of it is a hole. */
static void shred(struct scene *s, uint64_t ino, uint8_t seed)
{
	for (uint64_t off = 0; off < (uint64_t)EXTENTS * 2 * BLK; off += PART)
		scene_fill(s, ino, off, PART, (uint8_t)(seed + off / PART));
	for (uint64_t i = 0; i < EXTENTS; i++)
		(void)!fs_fallocate(s->t->fs, &testfs_root, ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				    i * 2 * BLK, BLK);
}

static void state_many(struct scene *s)
{
	shred(s, s->file, 1);
	scene_fill(s, s->other, 0, 9000, 2);
}

static void state_many_shared(struct scene *s)
{
	shred(s, s->other, 1);
	(void)!fs_clone(s->t->fs, &testfs_root, s->other, 0, s->file, 0, UINT32_MAX, 0, NULL);
	scene_fill(s, s->file, 100 * BLK, 100, 7);
}

static void state_many_both(struct scene *s)
{
	shred(s, s->other, 1);
	shred(s, s->file, 70);
}

const struct file_state many_states[] = {
	{ "many", state_many, false },
	{ "many-shared", state_many_shared, false },
	{ "many-both", state_many_both, false },
};
const unsigned many_state_count = ARRAY_SIZE(many_states);
