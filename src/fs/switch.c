/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Owners of a run of blocks, switched in batches of as many as fit into a transaction. See switch.h.
 *
 * Who has been switched is not found any more. Who has not been stays where he is in the rmap, so the walk remembers the key behind which it goes
 * on; the order is that of the rmap, not of inodes. Keys change under it when files do, so it starts again from the first one until a walk
 * has switched nobody.
 */
#include "fs/switch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS_MAX 100u /* in which owners change under our hands */

/* What one walk over all owners came to. */
struct walk {
	bool switched; /* somebody was */
	bool passed;   /* somebody was not, and the walk went on behind him */
	int error;     /* why */
};

/* ---- looking for them ---- */

static bool is_behind(const struct rmap *rmap, const struct switching *s)
{
	if (rmap->start_blk != s->after.start_blk)
		return rmap->start_blk > s->after.start_blk;
	if (rmap->owner != s->after.owner)
		return rmap->owner > s->after.owner;
	return rmap->offset_blk > s->after.offset_blk;
}

int switching_note(void *arg, const struct rmap *rmap)
{
	struct switching *s = arg;
	uint64_t start = u64_max(rmap->start_blk, s->blk);
	uint64_t end = u64_min(rmap->start_blk + rmap->count_blk, s->blk + s->count_blk);

	if (rmap->owner & OWNER_SPECIAL || !is_behind(rmap, s))
		return 0;
	if (s->count == SWITCH_BATCH)
		return 1;
	s->list[s->count++] = (struct share){
		.ino = rmap->owner,
		.file_blk = rmap->offset_blk + (start - rmap->start_blk),
		.dev_blk = start,
		.count_blk = end - start,
	};
	s->last.start_blk = rmap->start_blk;
	s->last.owner = rmap->owner;
	s->last.offset_blk = rmap->offset_blk;
	return 0;
}

int switching_look(struct op *op, void *arg)
{
	struct switching *s = arg;
	int rc;

	s->count = 0;
	rc = space_owners(op->tx, s->blk, s->count_blk, switching_note, s);
	return rc < 0 ? rc : 0;
}

/* ---- a batch ---- */

static int share_compare(const void *a, const void *b)
{
	const struct share *sa = a, *sb = b;

	if (sa->ino != sb->ino)
		return sa->ino < sb->ino ? -1 : 1;
	return (sa->file_blk > sb->file_blk) - (sa->file_blk < sb->file_blk);
}

/* As many of the list as fit. */
static int batch_switch(struct op *op, void *arg)
{
	struct switching *s = arg;
	int rc = 0, asked_rc = 0;

	for (unsigned i = 0; i < s->count; i++)
		s->list[i].switched = false;
	for (unsigned i = 0; i < s->count && !rc; i++)
		rc = op_hold(op, s->list[i].ino, true, NULL);
	for (unsigned i = 0; i < s->count && !rc && txn_has_room(op->tx, DATA_STEP_UNITS); i++) {
		rc = s->ops->one(op, s, &s->list[i]);
		if (rc == 1 || rc == -ESTALE)
			rc = 0;
		if (rc == -EUSERS) { /* holders are asked about all of them at once */
			asked_rc = rc;
			rc = 0;
		}
	}
	return rc ? rc : asked_rc;
}

/* *any: somebody was switched. */
static int batch_run(struct switching *s, bool *any)
{
	int rc = op_run(s->fs, TXN_FREEING, NULL, batch_switch, s);

	for (unsigned i = 0; i < s->count && !rc; i++) {
		if (!s->list[i].switched)
			continue;
		*any = true;
		if (s->ops->told)
			s->ops->told(s, &s->list[i]);
	}
	return rc;
}

/* A damaged file among them must not hold up the others: one by one. */
static void each_run(struct switching *s, struct walk *walk)
{
	struct share all[SWITCH_BATCH];
	unsigned count = s->count;

	memcpy(all, s->list, sizeof(all));
	s->count = 1;
	for (unsigned i = 0; i < count; i++) {
		int rc;

		s->list[0] = all[i];
		rc = batch_run(s, &walk->switched);
		if (rc)
			walk->error = rc;
	}
}

static int list_run(struct switching *s, struct walk *walk)
{
	bool any = false;
	int rc;

	qsort(s->list, s->count, sizeof(s->list[0]), share_compare);
	rc = batch_run(s, &any);
	walk->switched |= any;
	if (rc == -EUCLEAN || rc == -EIO || rc == -EBUSY)
		each_run(s, walk);
	else if (rc || any)
		return rc; /* there may have been no room for all */
	s->after = s->last;
	walk->passed = true;
	return 0;
}

/* ---- all of them ---- */

static int walk_run(struct switching *s, struct walk *walk)
{
	bool any;
	int rc;

	*walk = (struct walk){ 0 };
	memset(&s->after, 0, sizeof(s->after));
	do {
		rc = op_run(s->fs, TXN_READ, NULL, s->ops->look, s);
		any = s->count > 0;
		if (!rc && any)
			rc = list_run(s, walk);
	} while (!rc && any);
	memset(&s->after, 0, sizeof(s->after));
	return rc;
}

int switching_run(struct switching *s)
{
	unsigned idle = 0;
	struct walk walk;
	int rc;

	do {
		rc = walk_run(s, &walk);
		if (!rc)
			rc = walk.passed ? 1 : op_run(s->fs, TXN_FREEING, NULL, s->ops->end, s);
		idle = walk.switched ? 0 : idle + 1;
		if (rc == 1 && idle > 0 && walk.error)
			rc = walk.error;
	} while (rc == 1 && idle < ROUNDS_MAX);
	return rc == 1 ? -EUCLEAN : rc; /* their records say so, but they do not map it */
}
