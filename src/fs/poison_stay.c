/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad memory under files that have nowhere to go: there is no free block, or one of them is damaged. The files keep the block, and OWNER_BAD has it besides: so
 * nobody stores into it in place, and with its last file it is out of use instead of free. What is bad of it is looked at when it can be left, as ever.
 *
 * This takes no block, only records. Where there is no room even for those the block is in the list of poison_queue.c alone.
 *
 * A mount finds these blocks again in the background: the superblock says whether there can be any (BAD_IN_USE). All changes under poison_lock.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "fs/data.h"
#include "fs/forward.h"
#include "fs/owners.h"
#include "fs/poison.h"
#include "util/log.h"
#include "util/sabotage.h"

#define ROUNDS_MAX 16u /* in which owners change under our hands */
#define OWNERS_BATCH 256u

struct stay {
	uint64_t blk;
	unsigned files;         /* how many own it */
	uint64_t ino, file_blk; /* the first one */
	bool marked;            /* OWNER_BAD has it */
	bool other;             /* it is another's of the file system's own, or is being left */
	bool free_then;         /* it is being left, and would be free in the end */
};

/* ---- looking it up ---- */

static int owner_note(void *arg, const struct rmap *rmap)
{
	struct stay *s = arg;

	if (rmap->owner == OWNER_BAD) {
		s->marked = true;
	} else if (rmap->owner & OWNER_SPECIAL) {
		s->other = true;
	} else if (s->files++ == 0) {
		s->ino = rmap->owner;
		s->file_blk = rmap->offset_blk + (s->blk - rmap->start_blk);
	}
	return 0;
}

static int look(struct op *op, void *arg)
{
	struct stay *s = arg;
	struct m_forward m;
	int rc;

	*s = (struct stay){ .blk = s->blk };
	rc = space_owners(op->tx, s->blk, 1, owner_note, s);
	if (!rc)
		rc = forward_record(op, s->blk, &m);
	s->other |= rc == 1;
	s->free_then = rc == 1 && le32_get(m.fw_flags) & FORWARD_GOOD;
	return rc < 0 ? rc : 0;
}

/*
 * A file that does not know of sharing would store into the block in place, and one who maps it too; where it is damaged nobody does. 1: it does not have
 * the block any more.
 */
static int file_tell(struct op *op, uint64_t ino, uint64_t file_blk, uint64_t blk)
{
	struct inode_attr attr;
	struct inode *inode;
	struct extent e;
	struct btree bt;
	int rc = op_inode(op, ino, true, &inode);

	if (!rc)
		rc = inode_get(op, ino, &attr);
	if (rc == -EUCLEAN)
		return 0;
	if (rc || attr.data_format != DATA_EXTENTS)
		return rc == -ESTALE || !rc ? 1 : rc;
	inode_data_tree(op, ino, NODE_EXTENT, &bt);
	rc = extent_find(&bt, file_blk, &e);
	if (rc == -EUCLEAN)
		return 0;
	if (rc == -ENOENT || (!rc && (e.file_blk != file_blk || e.dev_blk != blk)))
		return 1;
	if (!rc && !(e.flags & EXTENT_UNWRITTEN) && !sabotage_point("stay-change"))
		rc = op_change(op, inode, file_blk, file_blk + 1, FS_CHANGE_MOVE);
	if (rc || attr.flags & INODE_SHARED || sabotage_point("stay-shared"))
		return rc;
	attr.flags |= INODE_SHARED;
	return inode_put(op, &attr);
}

/* 1: look again. */
static int mark(struct op *op, void *arg)
{
	struct stay *s = arg, now = { .blk = s->blk };
	int rc = s->files == 1 ? file_tell(op, s->ino, s->file_blk, s->blk) : 0;

	/* From here on its group is locked: from two files on all know that they share it. */
	if (!rc)
		rc = look(op, &now);
	if (rc || now.marked || now.other)
		return rc;
	if (now.files == 0 ||
	    (now.files == 1 && (s->files != 1 || now.ino != s->ino || now.file_blk != s->file_blk)))
		return 1;
	return sabotage_point("stay-share") ? 0 : space_share(op->tx, s->blk, 1, OWNER_BAD, s->blk);
}

int poison_stay(struct fs *fs, uint64_t blk)
{
	struct stay s = { .blk = blk };
	unsigned rounds = 0;
	int rc;

	do {
		rc = op_run(fs, TXN_READ, NULL, look, &s);
		if (!rc && s.free_then)
			return forward_source_bad(fs, blk);
		if (rc || s.marked || s.other)
			return rc;
		if (s.files == 0)
			return -ENOENT;
		/* Before there is such a block: that nobody takes it for damage who does not know of them. */
		atomic_store(&fs->bad_in_use, true);
		if (!sabotage_point("stay-told"))
			rc = pool_bad_in_use(fs->pool, true);
		if (!rc)
			rc = op_run(fs, TXN_FREEING, NULL, mark, &s);
	} while (rc == 1 && ++rounds < ROUNDS_MAX);
	fs->stays_made |= rc == 0;
	return rc == 1 ? -EBUSY : rc;
}

bool poison_is_known(struct fs *fs, uint64_t blk)
{
	struct stay s = { .blk = blk };

	return op_run(fs, TXN_READ, NULL, look, &s) == 0 && s.marked && !s.other;
}

/* ---- it is good after all ---- */

/* 1: it has no file, or is not marked. */
static int unmark(struct op *op, void *arg)
{
	struct stay *s = arg;
	int rc = look(op, s);

	if (rc || !s->marked || s->other || s->files == 0)
		return rc ? rc : 1;
	return space_drop(op->tx, s->blk, 1, OWNER_BAD, s->blk);
}

int poison_stay_end(struct fs *fs, uint64_t blk)
{
	struct stay s = { .blk = blk };

	return op_run(fs, TXN_FREEING, NULL, unmark, &s);
}

/* ---- what earlier mounts had to leave ---- */

/* How far from blk on blocks have no owner but one; 0: this one has more. */
struct run {
	uint64_t blk, count_blk, single_blk;
};

static int single_count(struct op *op, void *arg)
{
	struct run *r = arg;
	uint64_t refs, same_blk;
	int rc = space_refs(op->tx, r->blk, r->count_blk, &refs, &same_blk);

	if (!rc)
		r->single_blk = refs > 1 ? 0 : same_blk;
	return rc;
}

/* Of blocks of OWNER_BAD those that files have too. */
static int run_find(struct fs *fs, uint64_t blk, uint64_t end_blk, uint64_t *found)
{
	const struct poison_left left = { .on_media = true, .for_space = true, .found = true };

	while (blk < end_blk) {
		struct run r = { .blk = blk, .count_blk = end_blk - blk };
		struct stay s = { .blk = blk };
		int rc = op_run(fs, TXN_READ, NULL, single_count, &r);

		if (!rc && r.single_blk == 0)
			rc = op_run(fs, TXN_READ, NULL, look, &s);
		if (rc)
			return rc;
		if (s.marked && !s.other && s.files > 0) {
			++*found;
			poison_keep(fs, blk << BLOCK_SHIFT, &left);
		}
		blk += r.single_blk ? r.single_blk : 1;
	}
	return 0;
}

static int all_find(struct fs *fs, uint64_t *found)
{
	uint64_t len = pool_size_blk(fs->pool) << BLOCK_SHIFT;
	struct fs_owner owners[OWNERS_BATCH];
	struct fs_owners_pos pos = { 0 };
	unsigned count;
	int rc;

	do {
		rc = fs_owners(fs, 0, len, &pos, owners, OWNERS_BATCH, &count);
		for (unsigned i = 0; !rc && i < count; i++) {
			uint64_t blk = owners[i].dev_off >> BLOCK_SHIFT;

			if (owners[i].owner == OWNER_BAD)
				rc = run_find(fs, blk, blk + (owners[i].len >> BLOCK_SHIFT), found);
			pos = owners[i].after;
		}
		if (!rc && atomic_load(&fs->worker_stop))
			rc = -ECANCELED;
	} while (!rc && count > 0);
	return rc;
}

/* There are none any more. */
static int stays_over(struct fs *fs)
{
	int rc = 0;

	poison_enter(fs);
	if (!fs->stays_made) {
		rc = pool_bad_in_use(fs->pool, false);
		atomic_store(&fs->bad_in_use, rc != 0);
	}
	poison_leave(fs);
	return rc;
}

void poison_stays_find(struct fs *fs)
{
	uint64_t found = 0;
	int rc;

	if (poison_list_has_room(fs))
		atomic_store(&fs->stays_sought, false);
	if (fs->opts.readonly || pool_failed(fs->pool) || atomic_exchange(&fs->stays_sought, true))
		return;
	rc = all_find(fs, &found);
	if (!rc && found == 0 && !sabotage_point("stays-over"))
		rc = stays_over(fs);
	if (rc && rc != -ECANCELED)
		log_warn("blocks in bad memory that files still have: %s", strerror(-rc));
	if (found > 0) {
		log_info("blocks in bad memory that files still have: %" PRIu64, found);
		poison_drain(fs, POISON_DUE);
	}
}
