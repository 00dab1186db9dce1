/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Moving what several files share, without bad memory: a run of blocks at a time, in the way of poison.c.
 *
 *	begin	one transaction: the content is copied, the new run belongs to OWNER_FORWARD, the old one to OWNER_BAD besides, and a
 *		forward record remembers both
 *	switch	owners are switched in batches, each to a share of the new run
 *	end	with none left the record goes; the old run stays OWNER_BAD's, or is free (FORWARD_GOOD)
 *
 * From the first transaction on the old run counts as shared, so nobody stores into it in place, and the copy stays what the owners have. All
 * under poison_lock: of a run in work nobody else goes on with a part. What a crash leaves is found by poison_resume(); it reads the new run
 * before it switches anybody to it, and where that has gone bad meanwhile the block stays where it was (block_back). Where the old run has gone bad, it must
 * not become free in the end (source_split).
 */
#include "fs/forward.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "fs/poison.h"
#include "fs/switch.h"
#include "util/log.h"
#include "util/sabotage.h"

#define RUN_BLK 64u       /* copied under the group's lock */
#define RUN_MANY_BLK 512u /* the same, where each owner has to be switched for each run */
#define MANY_OWNERS 16u

struct run {
	uint64_t old_blk, new_blk, count_blk;
	uint64_t goal_blk;
	bool bad;
	struct switching switching; /* its owners */
};

static struct run *run_of(struct switching *s)
{
	return container_of(s, struct run, switching);
}

int forward_record(struct op *op, uint64_t blk, struct m_forward *found)
{
	struct bt_key key = { { blk } };
	struct bt_cursor cur;
	struct btree bt;
	const void *rec;
	size_t size_bytes;
	int rc = space_ag_tree(op->tx, pool_blk_ag(op->fs->pool, blk), AG_FORWARDS, &bt);

	if (!rc)
		rc = bt_seek(&bt, &cur, &key, BT_LE);
	if (!rc)
		rc = bt_get(&cur, &rec, &size_bytes);
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	memcpy(found, rec, sizeof(*found));
	return blk - le64_get(found->fw_old_blk) < le32_get(found->fw_count_blk);
}

int forward_next(struct op *op, uint64_t blk, uint64_t end_blk, struct m_forward *found)
{
	struct bt_key key = { { blk } };
	struct bt_cursor cur;
	struct btree bt;
	const void *rec;
	size_t size_bytes;
	int rc = forward_record(op, blk, found);

	if (rc)
		return rc;
	rc = space_ag_tree(op->tx, pool_blk_ag(op->fs->pool, blk), AG_FORWARDS, &bt);
	if (!rc)
		rc = bt_seek(&bt, &cur, &key, BT_GE);
	if (!rc)
		rc = bt_get(&cur, &rec, &size_bytes);
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	memcpy(found, rec, sizeof(*found));
	return le64_get(found->fw_old_blk) < end_blk;
}

/* ---- begin ---- */

/* The first one: they come by their start. */
static int special_find(void *arg, const struct rmap *rmap)
{
	uint64_t *start_blk = arg;

	if (!(rmap->owner & OWNER_SPECIAL))
		return 0;
	*start_blk = rmap->start_blk;
	return 1;
}

static int record_add(struct op *op, const struct run *r)
{
	const struct m_forward rec = {
		.fw_old_blk = le64_of(r->old_blk),
		.fw_new_blk = le64_of(r->new_blk),
		.fw_count_blk = le32_of((uint32_t)r->count_blk),
		.fw_flags = le32_of(r->bad ? 0 : FORWARD_GOOD),
	};
	struct btree bt;
	int rc = space_ag_tree(op->tx, pool_blk_ag(op->fs->pool, r->old_blk), AG_FORWARDS, &bt);

	return rc || sabotage_point("forward-record") ? rc : bt_insert(&bt, &rec, sizeof(rec));
}

/* count_blk: of the run that is moved. 1: not shared, 2: its first block is on its way already, or in bad memory. */
static int run_begin(struct op *op, void *arg)
{
	struct run *r = arg, now = *r;
	struct space_want want = { .agno_hint = pool_blk_ag(op->fs->pool, r->old_blk),
				   .goal_blk = r->goal_blk };
	struct dax *dax = pool_dax(op->fs->pool);
	uint64_t refs, same_blk, special_blk;
	/* The group is locked from here on: who shares the run now, goes on sharing it. */
	int rc = space_refs(op->tx, r->old_blk, r->count_blk, &refs, &same_blk);

	if (rc || refs < 2)
		return rc ? rc : 1;
	want.count_blk = u64_min(same_blk, refs > MANY_OWNERS ? RUN_MANY_BLK : RUN_BLK);
	rc = space_owners(op->tx, r->old_blk, want.count_blk, special_find, &special_blk);
	if (rc == 1 && special_blk > r->old_blk && !sabotage_point("forward-before"))
		want.count_blk = special_blk - r->old_blk;
	else if (rc)
		return rc == 1 ? 2 : rc;
	rc = space_alloc(op->tx, &want, &now.new_blk, &now.count_blk);
	if (!rc && !sabotage_point("forward-copy"))
		rc = op_dax(op, dax_move(dax, now.new_blk << BLOCK_SHIFT, now.old_blk << BLOCK_SHIFT,
					 now.count_blk << BLOCK_SHIFT));
	if (rc)
		return rc;
	if (!sabotage_point("forward-copy-fence"))
		txn_data_stored(op->tx);
	rc = space_own(op->tx, now.new_blk, now.count_blk, OWNER_FORWARD, now.old_blk);
	if (!rc && !sabotage_point("forward-share"))
		rc = space_share(op->tx, now.old_blk, now.count_blk, OWNER_BAD, now.old_blk);
	if (!rc)
		rc = record_add(op, &now);
	if (rc)
		return rc;
	r->new_blk = now.new_blk;
	r->count_blk = now.count_blk;
	return 0;
}

/* ---- switch ---- */

/* One extent of a share: it lies in the new run from now on. */
static int extent_switch(struct op *op, const struct run *r, struct btree *bt, uint64_t ino,
			 const struct extent *e)
{
	struct extent piece;
	uint64_t new_blk = r->new_blk + (e->dev_blk - r->old_blk);
	struct inode *inode;
	int rc = op_hold(op, ino, true, &inode);

	if (!rc && !(e->flags & EXTENT_UNWRITTEN) && !sabotage_point("change-forward"))
		rc = op_change(op, inode, e->file_blk, e->file_blk + e->count_blk, FS_CHANGE_MOVE);
	if (!rc)
		rc = extent_cut(op, bt, e->file_blk, e->file_blk + e->count_blk, e->count_blk, &piece);

	if (!rc)
		rc = space_share_join(op->tx, new_blk, e->count_blk, ino, e->file_blk);
	if (!rc)
		rc = space_drop(op->tx, e->dev_blk, e->count_blk, ino, e->file_blk);
	piece.dev_blk = new_blk;
	return rc ? rc : extent_add(op, bt, &piece);
}

/* What the owner still maps of it, as far as there is room. */
static int share_switch(struct op *op, struct switching *switching, struct share *s)
{
	const struct run *r = run_of(switching);
	uint64_t blk = s->file_blk, end = s->file_blk + s->count_blk;
	struct inode_attr attr;
	struct btree bt;
	int rc = inode_get(op, s->ino, &attr);

	if (rc || attr.data_format != DATA_EXTENTS)
		return rc;
	inode_data_tree(op, s->ino, NODE_EXTENT, &bt);
	while (!rc && blk < end && txn_has_room(op->tx, DATA_STEP_UNITS)) {
		struct extent e;

		rc = extent_find(&bt, blk, &e);
		if (rc || e.file_blk >= end)
			break;
		e.count_blk = u64_min(e.count_blk, end - e.file_blk);
		blk = e.file_blk + e.count_blk;
		if (e.dev_blk - s->dev_blk != e.file_blk - s->file_blk)
			continue; /* it has another block there by now */
		rc = extent_switch(op, r, &bt, s->ino, &e);
		s->switched = true;
	}
	return rc == -ENOENT ? 0 : rc;
}

/* ---- end ---- */

/* 1: it has owners still, or again. */
static int run_end(struct op *op, void *arg)
{
	struct switching *switching = arg;
	const struct run *r = run_of(switching);
	struct bt_key key = { { r->old_blk } };
	struct btree bt;
	int rc = switching_look(op, switching);

	if (rc || switching->count > 0)
		return rc ? rc : 1;
	rc = space_ag_tree(op->tx, pool_blk_ag(op->fs->pool, r->old_blk), AG_FORWARDS, &bt);
	if (!rc)
		rc = bt_delete(&bt, &key);
	if (!rc)
		rc = space_drop(op->tx, r->new_blk, r->count_blk, OWNER_FORWARD, r->old_blk);
	if (!rc && !r->bad && !sabotage_point("forward-free"))
		rc = space_drop(op->tx, r->old_blk, r->count_blk, OWNER_BAD, r->old_blk);
	return rc;
}

static int run_finish(struct fs *fs, struct run *r)
{
	static const struct switch_ops ops = { .look = switching_look, .one = share_switch, .end = run_end };

	r->switching =
		(struct switching){ .fs = fs, .ops = &ops, .blk = r->old_blk, .count_blk = r->count_blk };
	return switching_run(&r->switching);
}

int forward_move(struct fs *fs, uint64_t blk, uint64_t *count_blk, bool bad, uint64_t *goal_blk)
{
	struct run *r = calloc(1, sizeof(*r));
	int rc;

	if (!r)
		return -ENOMEM;
	*r = (struct run){ .old_blk = blk, .count_blk = *count_blk, .bad = bad, .goal_blk = *goal_blk };
	poison_enter(fs);
	rc = op_run_poison(fs, TXN_WRITE, run_begin, r);
	if (rc == -ENOSPC) { /* whoever drains comes before poison_lock, and may take long */
		poison_leave(fs);
		rc = op_gain_space(fs);
		poison_enter(fs);
		if (!rc)
			rc = op_run_poison(fs, TXN_WRITE, run_begin, r);
	}
	if (rc == 2) {
		rc = forward_settle(fs, blk);
		if (rc == 0) { /* that block alone */
			*count_blk = 1;
			rc = poison_away(fs, blk << BLOCK_SHIFT);
		}
	} else if (!rc) {
		rc = run_finish(fs, r);
		*count_blk = r->count_blk;
		*goal_blk = r->new_blk + r->count_blk;
	}
	poison_leave(fs);
	free(r);
	return rc;
}

/* ---- a target that has gone bad ---- */

/* One block of a run, of which the new place has become bad before all owners were there. */
struct back {
	const struct run *run;
	uint64_t index;
	bool any; /* out: some were there already */
};

/* The first such block, as long as the old place still has what it held. */
static bool back_find(const struct fs *fs, struct back *b)
{
	const struct dax *dax = pool_dax(fs->pool);
	const struct run *r = b->run;
	uint8_t bytes[BLOCK_SIZE];
	bool found = false;

	for (b->index = 0; b->index < r->count_blk; b->index++) {
		uint64_t old_off = (r->old_blk + b->index) << BLOCK_SHIFT;
		uint64_t new_off = (r->new_blk + b->index) << BLOCK_SHIFT;

		found = dax_load(dax, bytes, new_off, BLOCK_SIZE, NULL) != 0 &&
			dax_has_memory(dax, new_off) && dax_load(dax, bytes, old_off, BLOCK_SIZE, NULL) == 0;
		if (found)
			break;
	}
	dax_bad_forget();
	return found;
}

/* The record is about the blocks before it and those behind it from now on. */
static int record_split(struct op *op, const struct run *r, uint64_t index)
{
	struct bt_key key = { { r->old_blk } };
	struct run before = *r, after = *r;
	struct btree bt;
	int rc = space_ag_tree(op->tx, pool_blk_ag(op->fs->pool, r->old_blk), AG_FORWARDS, &bt);

	before.count_blk = index;
	after.old_blk += index + 1;
	after.new_blk += index + 1;
	after.count_blk -= index + 1;
	if (!rc)
		rc = bt_delete(&bt, &key);
	if (!rc && before.count_blk > 0)
		rc = record_add(op, &before);
	if (!rc && after.count_blk > 0)
		rc = record_add(op, &after);
	return rc;
}

/*
 * Who has not been switched stays. Who has been is on his way from bad memory now, to where he comes from, which for that is kept as a target is:
 * poison.c goes on with it.
 */
static int block_back(struct op *op, void *arg)
{
	struct back *b = arg;
	const struct run *r = b->run;
	const struct run way = { .old_blk = r->new_blk + b->index,
				 .new_blk = r->old_blk + b->index,
				 .count_blk = 1,
				 .bad = true };
	uint64_t bad_blk = way.old_blk, good_blk = way.new_blk, refs, same_blk;
	int rc = record_split(op, r, b->index);

	if (!rc)
		rc = space_refs(op->tx, bad_blk, 1, &refs, &same_blk);
	if (rc)
		return rc;
	b->any = refs > 1;
	if (b->any && !sabotage_point("back-keep"))
		rc = space_share(op->tx, good_blk, 1, OWNER_FORWARD, bad_blk);
	if (!rc && b->any)
		rc = record_add(op, &way);
	if (!rc)
		rc = space_share(op->tx, bad_blk, 1, OWNER_BAD, bad_blk);
	if (!rc)
		rc = space_drop(op->tx, bad_blk, 1, OWNER_FORWARD, good_blk);
	if (!rc)
		rc = space_refs(op->tx, good_blk, 1, &refs, &same_blk);
	/* It is used again, unless nobody does and it was to be out of use. */
	if (!rc && (refs > 1 || !r->bad))
		rc = space_drop(op->tx, good_blk, 1, OWNER_BAD, good_blk);
	return rc;
}

static int back_run(struct fs *fs, struct back *b)
{
	uint64_t bad_off = (b->run->new_blk + b->index) << BLOCK_SHIFT;
	int rc = op_run(fs, TXN_FREEING, NULL, block_back, b);

	if (rc)
		return rc;
	if (!b->any)
		poison_tell(fs, &(struct fs_poison){ .kind = FS_POISON_FREE, .dev_off = bad_off });
	/* Its own record is met again at the next mount. */
	if (poison_handle(fs, bad_off))
		log_warn("bad memory at 0x%" PRIx64 " of the pool: not all owners have left it", bad_off);
	return 0;
}

/* ---- a source that has gone bad ---- */

/* The first such block of a run that is to be free in the end. */
static bool source_find(const struct fs *fs, const struct run *r, uint64_t *blk)
{
	const struct dax *dax = pool_dax(fs->pool);
	uint8_t bytes[BLOCK_SIZE];
	bool found = false;

	for (uint64_t i = 0; i < r->count_blk && !r->bad && !found; i++) {
		uint64_t off = (r->old_blk + i) << BLOCK_SHIFT;

		found = dax_load(dax, bytes, off, BLOCK_SIZE, NULL) != 0 && dax_has_memory(dax, off);
		*blk = r->old_blk + i;
	}
	dax_bad_forget();
	return found;
}

/* It gets a record of its own, without FORWARD_GOOD. The new place has all that it held when that was copied, so no line of it is lost: poison.c goes on with it. */
static int source_split(struct op *op, void *arg)
{
	const uint64_t *blk = arg;
	struct run r = { 0 }, way = { .old_blk = *blk, .count_blk = 1, .bad = true };
	struct m_forward m;
	int rc = forward_record(op, *blk, &m);

	if (rc != 1 || !(le32_get(m.fw_flags) & FORWARD_GOOD))
		return rc < 0 ? rc : 0;
	r.old_blk = le64_get(m.fw_old_blk);
	r.new_blk = le64_get(m.fw_new_blk);
	r.count_blk = le32_get(m.fw_count_blk);
	way.new_blk = r.new_blk + (*blk - r.old_blk);
	rc = record_split(op, &r, *blk - r.old_blk);
	return rc ? rc : record_add(op, &way);
}

int forward_source_bad(struct fs *fs, uint64_t blk)
{
	return op_run(fs, TXN_FREEING, NULL, source_split, &blk);
}

/* ---- what was left ---- */

static int target_find(void *arg, const struct rmap *rmap)
{
	const struct run *r = arg;

	return rmap->owner == OWNER_FORWARD &&
	       rmap->offset_blk + (r->new_blk - rmap->start_blk) == r->old_blk &&
	       rmap->start_blk + rmap->count_blk - r->new_blk >= r->count_blk;
}

/* 1: the block in old_blk is part of a run, or of one block that is good. Its record is believed only if its target is kept for it. */
static int record_find(struct op *op, void *arg)
{
	struct run *r = arg;
	struct m_forward m;
	int rc = forward_record(op, r->old_blk, &m);

	if (rc != 1)
		return rc;
	r->bad = !(le32_get(m.fw_flags) & FORWARD_GOOD);
	if (le32_get(m.fw_count_blk) == 1 && r->bad)
		return 0;
	r->old_blk = le64_get(m.fw_old_blk);
	r->new_blk = le64_get(m.fw_new_blk);
	r->count_blk = le32_get(m.fw_count_blk);
	rc = space_owners(op->tx, r->new_blk, 1, target_find, r);
	return rc == 0 ? -EUCLEAN : rc;
}

int forward_settle(struct fs *fs, uint64_t blk)
{
	struct run *r = calloc(1, sizeof(*r));
	struct back back = { .run = r };
	uint64_t bad_blk;
	bool any = false;
	int rc;

	if (!r)
		return -ENOMEM;
	do {
		*r = (struct run){ .old_blk = blk };
		rc = op_run(fs, TXN_READ, NULL, record_find, r);
		if (rc != 1)
			break;
		any = true;
		/* What was copied before a crash may have gone bad since, and what it was copied from. */
		if (!sabotage_point("forward-look") && back_find(fs, &back)) {
			rc = back_run(fs, &back);
		} else if (!sabotage_point("forward-source") && source_find(fs, r, &bad_blk)) {
			rc = forward_source_bad(fs, bad_blk);
			any = bad_blk != blk; /* that one is poison.c's now */
		} else {
			rc = run_finish(fs, r);
			break;
		}
	} while (!rc);
	free(r);
	return !rc && any ? 1 : rc;
}
