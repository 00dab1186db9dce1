/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What bad memory has done that is still so, in figures: records of losses, which are few, and blocks out of use, which only a walk over all
 * owners finds. So these are counted again only when they may have changed.
 */
#include <errno.h>

#include "fs/core.h"
#include "fs/owners.h"

#define RECORDS_BATCH 1024u
#define OWNERS_BATCH 256u

/* ---- losses ---- */

struct losses_sum {
	uint32_t agno;
	struct bt_key next; /* in its tree */
	uint64_t last_ino;  /* of the record before */
	uint64_t files, blk, lines;
};

/* 1: the group has some. Not by space_ag_tree(), which loads the group. */
static int losses_any(struct txn *tx, void *arg)
{
	const struct losses_sum *sum = arg;
	struct pool *pool = txn_pool(tx);
	const void *unit;
	int rc = txn_lock(tx, pool_ag_lock(pool, sum->agno), true);

	if (!rc)
		rc = txn_get(tx, pool_ag_unit(pool, sum->agno, AG_UNIT_HEADER), MAGIC_AG, &unit);
	if (rc)
		return rc;
	return !bt_is_empty_body(((const struct m_ag *)unit)->ag_roots[AG_LOSSES]);
}

/* Some of a group; 1: there are more. */
static int losses_count(struct op *op, void *arg)
{
	struct losses_sum *all = arg, sum = *all;
	struct bt_cursor cur;
	struct btree bt;
	int rc = space_ag_tree(op->tx, sum.agno, AG_LOSSES, &bt);

	if (!rc)
		rc = bt_seek(&bt, &cur, &sum.next, BT_GE);
	for (unsigned i = 0; !rc && i < RECORDS_BATCH; i++) {
		const struct m_loss *m;
		const void *rec;
		size_t size_bytes;

		rc = bt_get(&cur, &rec, &size_bytes);
		if (rc)
			break;
		m = rec;
		sum.files += le64_get(m->ls_ino) != sum.last_ino;
		sum.blk++;
		sum.lines += (uint64_t)__builtin_popcountll(le64_get(m->ls_lost_lines));
		sum.last_ino = le64_get(m->ls_ino);
		sum.next = (struct bt_key){ { sum.last_ino, le64_get(m->ls_file_blk) + 1 } };
		rc = bt_next(&cur);
	}
	if (rc && rc != -ENOENT)
		return rc;
	*all = sum;
	return rc == 0;
}

static int losses_sum(struct fs *fs, struct fs_damage *damage)
{
	struct losses_sum sum = { 0 };
	int rc = 0;

	for (; !rc && sum.agno < pool_ag_count(fs->pool); sum.agno++) {
		sum.next = (struct bt_key){ { 0 } };
		rc = txn_run(fs->pool, TXN_READ, losses_any, &sum);
		while (rc == 1)
			rc = op_run(fs, TXN_READ, NULL, losses_count, &sum);
	}
	damage->lost_files = sum.files;
	damage->lost_blk = sum.blk;
	damage->lost_bytes = sum.lines * LINE_SIZE;
	return rc;
}

/* ---- blocks out of use ---- */

static int bad_count(struct fs *fs, uint64_t *bad_blk)
{
	uint64_t len = pool_size_blk(fs->pool) << BLOCK_SHIFT;
	struct fs_owner owners[OWNERS_BATCH];
	struct fs_owners_pos pos = { 0 };
	unsigned count;
	int rc;

	*bad_blk = 0;
	do {
		rc = fs_owners(fs, 0, len, &pos, owners, OWNERS_BATCH, &count);
		for (unsigned i = 0; !rc && i < count; i++) {
			if (owners[i].owner == OWNER_BAD)
				*bad_blk += owners[i].len >> BLOCK_SHIFT;
			pos = owners[i].after;
		}
	} while (!rc && count > 0);
	return rc;
}

static int bad_sum(struct fs *fs, uint64_t *bad_blk)
{
	/* Changed from now on: it will be seen, whether this count has it or not. */
	uint64_t changes = space_bad_changes(fs->pool) + 1;
	bool known;
	int rc;

	pthread_mutex_lock(&fs->work_lock);
	known = fs->bad_counted_at == changes;
	*bad_blk = fs->bad_blk;
	pthread_mutex_unlock(&fs->work_lock);
	if (known)
		return 0;
	rc = bad_count(fs, bad_blk);
	if (rc)
		return rc;
	pthread_mutex_lock(&fs->work_lock);
	fs->bad_blk = *bad_blk;
	fs->bad_counted_at = changes;
	pthread_mutex_unlock(&fs->work_lock);
	return 0;
}

int fs_damage(struct fs *fs, struct fs_damage *damage)
{
	struct fs_damage now = { 0 };
	int rc = losses_sum(fs, &now);

	if (!rc)
		rc = bad_sum(fs, &now.bad_blk);
	if (!rc)
		*damage = now;
	return rc;
}
