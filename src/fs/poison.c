/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad memory: what to do about one block. See DESIGN.md 11.
 *
 * The rmap says whose it is. Free: it is taken out of use. Data of one owner: saved line by line into a new block, which the file maps from then
 * on, in one transaction. Data of several: the same, but they are switched to the new block, which they go on sharing, in batches;
 * a forward record remembers the new block and what was lost until all have been, and a mount goes on with it. Meanwhile the bad block has one
 * owner more (OWNER_BAD), so that nobody stores into it in place. In the end it belongs to OWNER_BAD alone and is never used again. What has nowhere to go
 * stays, with OWNER_BAD too: poison_stay.c. The file system's own: poison_meta.c.
 *
 * Runs in the thread that met the bad memory, with no transaction open and under poison_lock; others who meet it wait for that. The transactions
 * here may meet bad memory themselves: metadata is read from its mirror, a bad free block is seen to first (recursion).
 */
#include "fs/poison.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fs/data.h"
#include "fs/forward.h"
#include "fs/loss.h"
#include "fs/switch.h"
#include "fs/xattr.h"
#include "util/log.h"
#include "util/sabotage.h"

#define DEPTH_MAX 8u
#define ROUNDS_MAX 100u /* in which owners change under our hands */
#define PASSED_MAX 3u   /* times that a block passes */
#define PASSED_AGAIN_S 10
#define UNTOLD_MAX 16384u

#define HOW_LATER 1u /* metadata is only noted */
#define HOW_AWAY 2u  /* the block is not to be used any more, even if it can be */
#define HOW_CLEAR 4u /* but for its device having cleared it */
#define HOW_QUIET 8u /* whoever calls tells the log how many stay */

/* One block in work. */
struct bad {
	struct fs *fs;
	uint64_t dev_off, blk;
	unsigned how;
	/* looked up */
	struct switching owners;
	uint64_t special; /* one that is no file: OWNER_*, or 0. OWNER_BAD with files: is left, or stays */
	struct rmap special_rmap; /* its record */
	bool specials_too;        /* walk past the last owner there is room for */
	bool forwarded;           /* there is a forward record */
	uint64_t new_blk, lost_lines;
	uint64_t target_blk; /* a new block that is known to be kept for this one */
	uint64_t zero_blk;   /* 0, or the new block of those of a batch who want zeroes */
	uint64_t freed;      /* space_freed() at the beginning */
	bool no_block;       /* there was no new one */
};

void poison_enter(struct fs *fs)
{
	if (pthread_mutex_trylock(&fs->poison_lock) != 0) /* neither free nor ours */
		poison_enter_last(fs);
}

void poison_enter_last(struct fs *fs)
{
	pthread_mutex_lock(&fs->poison_next);
	pthread_mutex_lock(&fs->poison_lock);
	pthread_mutex_unlock(&fs->poison_next);
}

void poison_leave(struct fs *fs)
{
	pthread_mutex_unlock(&fs->poison_lock);
}

static struct bad *bad_of(struct switching *s)
{
	return container_of(s, struct bad, owners);
}

int op_dax(struct op *op, int rc)
{
	/* Now: ending the operation may run others. */
	if (rc != -EIO || !dax_bad_take(pool_dax(op->fs->pool), &op->bad))
		return rc;
	op->bad_data = true;
	return -EHWPOISON;
}

/* ---- looking it up ---- */

static int owner_note(void *arg, const struct rmap *rmap)
{
	struct bad *bad = arg;

	if (rmap->owner & OWNER_SPECIAL) {
		if (bad->special == 0 || bad->special == OWNER_BAD) {
			bad->special = rmap->owner;
			bad->special_rmap = *rmap;
		}
		return 0;
	}
	return switching_note(&bad->owners, rmap) == 1 && !bad->specials_too;
}

static int target_find(void *arg, const struct rmap *rmap)
{
	const struct bad *bad = arg;

	return rmap->owner == OWNER_FORWARD &&
	       rmap->offset_blk + (bad->new_blk - rmap->start_blk) == bad->blk;
}

/* 1: there is a forward record of it. -EUCLEAN: to a block that is not kept for it; nobody may be switched to that. */
static int forward_get(struct op *op, struct bad *bad)
{
	struct m_forward m;
	int rc = forward_record(op, bad->blk, &m);

	if (rc != 1 || le64_get(m.fw_old_blk) != bad->blk)
		return rc < 0 ? rc : 0;
	bad->new_blk = le64_get(m.fw_new_blk);
	bad->lost_lines = le64_get(m.fw_lost_lines);
	if (bad->target_blk == bad->new_blk)
		return 1; /* has been looked at: it may have many owners by now */
	rc = le32_get(m.fw_count_blk) == 1 ? space_owners(op->tx, bad->new_blk, 1, target_find, bad) : 0;
	if (rc == 1)
		bad->target_blk = bad->new_blk;
	return rc == 0 ? -EUCLEAN : rc;
}

/* arg: the struct switching, as for all that follows about several owners. */
static int look(struct op *op, void *arg)
{
	struct bad *bad = bad_of(arg);
	int rc;

	bad->owners.count = 0;
	bad->special = 0;
	rc = space_owners(op->tx, bad->blk, 1, owner_note, bad);
	if (rc < 0)
		return rc;
	rc = forward_get(op, bad);
	if (rc < 0)
		return rc;
	bad->forwarded = rc;
	return 0;
}

/* ---- the new block ---- */

/* What can be saved of the block goes to a new one, which nobody owns yet. */
static int save(struct op *op, struct bad *bad)
{
	struct space_want want = {
		.agno_hint = pool_blk_ag(op->fs->pool, bad->blk),
		.count_blk = 1,
	};
	struct dax *dax = pool_dax(op->fs->pool);
	uint8_t bytes[BLOCK_SIZE];
	uint64_t got_blk;
	int rc = space_alloc(op->tx, &want, &bad->new_blk, &got_blk);

	bad->no_block = rc == -ENOSPC;
	if (!rc)
		rc = dax_salvage(dax, bad->blk << BLOCK_SHIFT, bytes, &bad->lost_lines);
	if (!rc)
		rc = op_dax(op, dax_store(dax, bad->new_blk << BLOCK_SHIFT, bytes, sizeof(bytes)));
	if (!rc && !sabotage_point("poison-save-fence"))
		txn_data_stored(op->tx);
	return rc;
}

/* 0: the owner maps the block, and nobody maps it through him; 1: not any more. */
static int owner_maps(struct op *op, const struct bad *bad, const struct share *m, struct inode_attr *attr,
		      struct extent *e)
{
	struct inode *inode;
	struct btree bt;
	int rc = op_hold(op, m->ino, true, &inode);

	if (!rc)
		rc = inode_get(op, m->ino, attr);
	if (rc || attr->data_format != DATA_EXTENTS)
		return rc ? rc : 1;
	inode_data_tree(op, m->ino, NODE_EXTENT, &bt);
	rc = extent_find(&bt, m->file_blk, e);
	if (rc == -ENOENT || (!rc && (e->file_blk != m->file_blk || e->dev_blk != bad->blk)))
		return 1;
	if (!rc && !(e->flags & EXTENT_UNWRITTEN) && !sabotage_point("change-poison"))
		rc = op_change(op, inode, m->file_blk, m->file_blk + 1, FS_CHANGE_MOVE);
	return rc;
}

/* The owner loses those lines, unless he wants zeroes in their place: out: m->zeroed, and then which lines. */
static int owner_wants(struct op *op, const struct inode_attr *attr, struct share *m, uint64_t lost_lines)
{
	uint64_t before;
	int rc;

	m->zeroed = false;
	m->lost_lines = 0;
	if (loss_of(attr, m->file_blk, lost_lines) == 0)
		return 0;
	rc = policy_is_zero(op, m->ino, &m->zeroed);
	if (rc || !m->zeroed)
		return rc;
	/* What has been lost before stays lost; of the rest the new block has zeroes. */
	rc = loss_get(op, attr, m->file_blk, &before);
	m->lost_lines = loss_of(attr, m->file_blk, lost_lines) & ~before;
	return rc;
}

/*
 * Who wants zeroes does not go on sharing with those for whom the lines are lost. Should the lines go bad once more, all would have lost them, and
 * what one of them puts back would be taken for what the others had. One block does for a batch, whose files are locked.
 */
static int zeroes_own(struct op *op, struct bad *bad, const struct share *m, uint64_t *blk)
{
	struct space_want want = {
		.agno_hint = pool_blk_ag(op->fs->pool, bad->new_blk),
		.count_blk = 1,
	};
	struct dax *dax = pool_dax(op->fs->pool);
	uint8_t bytes[BLOCK_SIZE];
	uint64_t got_blk;
	int rc;

	*blk = bad->zero_blk;
	if (bad->zero_blk)
		return space_share(op->tx, bad->zero_blk, 1, m->ino, m->file_blk);
	rc = space_alloc(op->tx, &want, blk, &got_blk);
	if (!rc)
		rc = op_dax(op, dax_load(dax, bytes, bad->new_blk << BLOCK_SHIFT, sizeof(bytes), NULL));
	if (!rc)
		rc = op_dax(op, dax_store(dax, *blk << BLOCK_SHIFT, bytes, sizeof(bytes)));
	if (!sabotage_point("zeroes-own-fence"))
		txn_data_stored(op->tx);
	if (!rc)
		rc = space_own(op->tx, *blk, 1, m->ino, m->file_blk);
	bad->zero_blk = rc ? 0 : *blk;
	return rc;
}

/*
 * The owner maps the new block instead, and has lost what is lost. own: how the new block becomes his. 1: he does not map the bad block
 * any more.
 */
static int owner_switch(struct op *op, struct bad *bad, struct share *m,
			int (*own)(struct txn *tx, uint64_t blk, uint64_t count_blk, uint64_t owner,
				   uint64_t offset_blk))
{
	uint64_t lost_lines, new_blk = bad->new_blk;
	struct inode_attr attr;
	struct extent e, piece;
	struct btree bt;
	int rc = owner_maps(op, bad, m, &attr, &e);

	if (rc)
		return rc;
	lost_lines = e.flags & EXTENT_UNWRITTEN ? 0 : bad->lost_lines;
	inode_data_tree(op, m->ino, NODE_EXTENT, &bt);
	rc = extent_cut(op, &bt, m->file_blk, m->file_blk + 1, 1, &piece);
	if (!rc)
		rc = owner_wants(op, &attr, m, lost_lines);
	if (!rc && own == space_share && m->zeroed && m->lost_lines && !sabotage_point("zeroes-own")) {
		rc = zeroes_own(op, bad, m, &new_blk);
		if (rc == -ENOSPC) { /* rather no bytes than zeroes that would get mixed up */
			m->zeroed = false;
			new_blk = bad->new_blk;
			rc = own(op->tx, new_blk, 1, m->ino, m->file_blk);
		}
	} else if (!rc) {
		rc = own(op->tx, new_blk, 1, m->ino, m->file_blk);
	}
	/* The last owner, but the block does not become free. */
	if (!rc && own == space_own && bad->special != OWNER_BAD)
		rc = space_share(op->tx, bad->blk, 1, OWNER_BAD, bad->blk);
	if (!rc)
		rc = space_drop(op->tx, bad->blk, 1, m->ino, m->file_blk);
	piece.dev_blk = new_blk;
	if (!rc)
		rc = extent_add(op, &bt, &piece);
	if (!rc && !m->zeroed && lost_lines)
		rc = loss_add(op, &attr, m->file_blk, lost_lines, &m->lost_lines);
	if (!rc)
		rc = inode_put(op, &attr);
	m->switched = rc == 0;
	return rc;
}

/* ---- one owner ---- */

/* 1: something has changed meanwhile. */
static int single(struct op *op, void *arg)
{
	struct bad *bad = arg;
	struct share *m = &bad->owners.list[0], was = *m;
	struct inode_attr attr;
	struct extent e;
	int rc = op_inode(op, m->ino, true, NULL);

	if (!rc)
		rc = owner_maps(op, bad, m, &attr, &e);
	if (!rc)
		rc = look(op, &bad->owners);
	if (!rc &&
	    (bad->forwarded || bad->owners.count != 1 || m->ino != was.ino || m->file_blk != was.file_blk))
		return 1; /* nothing has been taken: it may be committed */
	if (!rc)
		rc = save(op, bad);
	if (!rc)
		rc = owner_switch(op, bad, m, space_own);
	return rc == -ESTALE ? 1 : rc;
}

/* ---- several ---- */

static int forward_begin(struct op *op, void *arg)
{
	struct bad *bad = bad_of(arg);
	struct m_forward rec;
	struct btree bt;
	uint64_t refs, same_blk;
	int rc = look(op, arg);

	if (rc || bad->forwarded)
		return rc;
	/* From two owners on all know that they share it. */
	rc = space_refs(op->tx, bad->blk, 1, &refs, &same_blk);
	if (!rc && refs < (bad->special == OWNER_BAD ? 3 : 2))
		return 1;
	if (!rc)
		rc = save(op, bad);
	if (!rc)
		rc = space_own(op->tx, bad->new_blk, 1, OWNER_FORWARD, bad->blk);
	if (!rc && bad->special != OWNER_BAD && !sabotage_point("poison-share"))
		rc = space_share(op->tx, bad->blk, 1, OWNER_BAD, bad->blk);
	if (!rc)
		rc = space_ag_tree(op->tx, pool_blk_ag(op->fs->pool, bad->blk), AG_FORWARDS, &bt);
	if (rc)
		return rc;
	rec = (struct m_forward){
		.fw_old_blk = le64_of(bad->blk),
		.fw_new_blk = le64_of(bad->new_blk),
		.fw_lost_lines = le64_of(bad->lost_lines),
		.fw_count_blk = le32_of(1),
	};
	return sabotage_point("poison-forward") ? 0 : bt_insert(&bt, &rec, sizeof(rec));
}

static int share_switch(struct op *op, struct switching *s, struct share *share)
{
	struct bad *bad = bad_of(s);

	if (share == s->list)
		bad->zero_blk = 0;
	return owner_switch(op, bad, share, space_share);
}

/* 1: it has owners still, or again. */
static int forward_end(struct op *op, void *arg)
{
	struct bad *bad = bad_of(arg);
	struct bt_key key = { { bad->blk } };
	struct btree bt;
	int rc = look(op, arg);

	if (rc || !bad->forwarded)
		return rc;
	if (bad->owners.count > 0)
		return 1;
	rc = space_ag_tree(op->tx, pool_blk_ag(op->fs->pool, bad->blk), AG_FORWARDS, &bt);
	if (!rc)
		rc = bt_delete(&bt, &key);
	return rc ? rc : space_drop(op->tx, bad->new_blk, 1, OWNER_FORWARD, bad->blk);
}

static void told(struct switching *s, const struct share *share)
{
	poison_tell(s->fs, &(struct fs_poison){
				   .kind = FS_POISON_DATA,
				   .dev_off = s->blk << BLOCK_SHIFT,
				   .ino = share->ino,
				   .file_off = share->file_blk << BLOCK_SHIFT,
				   .lost_lines = share->lost_lines,
				   .zeroed = share->zeroed,
			   });
}

static const struct switch_ops switch_ops = { look, share_switch, told, forward_end };

/* ---- nobody ---- */

static int take(struct op *op, void *arg)
{
	const struct bad *bad = arg;
	int rc = space_alloc_at(op->tx, bad->blk);

	return rc ? rc : space_own(op->tx, bad->blk, 1, OWNER_BAD, bad->blk);
}

/* ---- all ---- */

/* 1: look again. */
static int round_run(struct bad *bad)
{
	int rc = bad->how & HOW_AWAY ? forward_source_bad(bad->fs, bad->blk) : 0;

	if (!rc)
		rc = forward_settle(bad->fs, bad->blk);
	if (rc < 0)
		return rc;
	bad->specials_too = true;
	rc = op_run(bad->fs, TXN_READ, NULL, look, &bad->owners);
	bad->specials_too = false;
	if (rc)
		return rc;
	if (bad->forwarded)
		return switching_run(&bad->owners);
	if (bad->special == OWNER_BAD && bad->owners.count == 0)
		return 0; /* has been seen to */
	if (bad->special != 0 && bad->special != OWNER_BAD && bad->how & HOW_LATER) {
		poison_note(bad->fs, bad->dev_off);
		return 0; /* its other copy is read */
	}
	if (bad->special != 0 && bad->special != OWNER_BAD)
		return poison_meta(bad->fs, bad->dev_off, &bad->special_rmap, bad->how & HOW_AWAY);
	if (bad->owners.count == 0) {
		rc = op_run(bad->fs, TXN_FREEING, NULL, take, bad);
		if (!rc)
			poison_tell(bad->fs, &(struct fs_poison){
						     .kind = FS_POISON_FREE,
						     .dev_off = bad->blk << BLOCK_SHIFT,
					     });
		return rc == -EBUSY ? 1 : rc;
	}
	if (bad->owners.count == 1) {
		rc = op_run(bad->fs, TXN_FREEING, NULL, single, bad);
		if (!rc)
			told(&bad->owners, &bad->owners.list[0]);
		return rc;
	}
	bad->specials_too = true;
	rc = op_run(bad->fs, TXN_FREEING, NULL, forward_begin, &bad->owners);
	bad->specials_too = false;
	return rc ? rc : switching_run(&bad->owners);
}

/* It is tried again, and known to be bad until then. True: the log is to name it. */
static bool stay(struct bad *bad, int why)
{
	struct poison_left left = {
		.clear = bad->how & HOW_CLEAR,
		.on_media = true,
		.for_space = why == -ENOSPC,
	};
	bool keep = bad->forwarded && why == -ENOSPC; /* not all owners have left it */

	if (bad->special == 0 || (bad->special == OWNER_BAD && !bad->forwarded)) {
		int rc = poison_stay(bad->fs, bad->blk);

		left.on_media = rc == 0;
		left.for_space |= rc == -ENOSPC;
		/* By hand, and not written down: whoever wants it has been told that it is not so. */
		keep = left.on_media || !(bad->how & HOW_AWAY);
	}
	if (bad->no_block)
		poison_no_block(bad->fs, bad->freed);
	return keep ? poison_keep(bad->fs, bad->dev_off, &left) : log_is_first(bad->blk);
}

static int handle(struct fs *fs, uint64_t dev_off, unsigned how)
{
	uint64_t blk = dev_off >> BLOCK_SHIFT;
	struct bad *bad = calloc(1, sizeof(*bad));
	unsigned rounds = 0;
	bool tell;
	int rc;

	if (!bad)
		return -ENOMEM;
	bad->fs = fs;
	bad->dev_off = dev_off;
	bad->blk = blk;
	bad->how = how;
	bad->freed = space_freed(fs->pool);
	bad->owners = (struct switching){ .fs = fs, .ops = &switch_ops, .blk = blk, .count_blk = 1 };
	do {
		rc = round_run(bad);
	} while (rc == 1 && ++rounds < ROUNDS_MAX);
	tell = rc && stay(bad, rc) && !(how & HOW_QUIET);
	if (!rc)
		poison_let_go(fs, blk, 1);
	free(bad);
	if (tell)
		log_error("bad memory at 0x%" PRIx64 " of the pool stays in use for now: %s",
			  blk << BLOCK_SHIFT, rc == 1 ? "its owners change" : strerror(-rc));
	return rc == 1 ? -EBUSY : rc;
}

/*
 * A block that can be read and yet is met again and again cannot be stored to: as when the file system that a pool's file is on has no room for the
 * page, and does not say so when asked. Then the operation is not to start again for ever, nor an event to be told each time.
 */
static bool passes_too_often(struct fs *fs, uint64_t blk)
{
	struct passed_place *place = &fs->passed[blk % ARRAY_SIZE(fs->passed)];
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (place->blk != blk || now.tv_sec - place->since_s >= PASSED_AGAIN_S)
		*place = (struct passed_place){ .blk = blk, .since_s = now.tv_sec };
	return place->count++ >= PASSED_MAX;
}

static int block_see(struct fs *fs, uint64_t dev_off, unsigned how)
{
	const struct poison_left vain = { .in_vain = true };
	uint64_t bad_lines;
	uint8_t bytes[BLOCK_SIZE];
	int rc;

	if (fs->opts.readonly || pool_failed(fs->pool)) {
		if (poison_keep(fs, dev_off, &vain) && !(how & HOW_QUIET))
			log_error("bad memory at 0x%" PRIx64
				  " of the pool: nothing is saved of it, since the file system is read-only",
				  u64_align_down(dev_off, BLOCK_SIZE));
		return -EIO;
	}
	poison_enter(fs);
	rc = fs->poison_depth < DEPTH_MAX ? 0 : -EIO;
	fs->poison_depth++;
	if (!rc)
		rc = dax_salvage(pool_dax(fs->pool), dev_off, bytes, &bad_lines);
	if (!rc && bad_lines == 0 && !dax_has_memory(pool_dax(fs->pool), dev_off))
		rc = -EIO; /* a store met it: there was no room for that page */
	if (!rc && bad_lines == 0 && poison_is_known(fs, dev_off >> BLOCK_SHIFT)) {
		rc = handle(fs, dev_off, how); /* as has been decided before */
	} else if (!rc && bad_lines == 0 && passes_too_often(fs, dev_off >> BLOCK_SHIFT)) {
		rc = -EIO;
		if (log_is_first(dev_off))
			log_error("bad memory at 0x%" PRIx64
				  ": can be read, but it seems not to be stored to",
				  dev_off);
	} else if (!rc && bad_lines == 0) {
		poison_tell(fs, &(struct fs_poison){ .kind = FS_POISON_PASSED, .dev_off = dev_off });
	} else if (!rc) {
		if (poison_may_clear(fs, dev_off))
			how |= HOW_CLEAR;
		rc = handle(fs, dev_off, how);
	}
	if (!rc && how & HOW_CLEAR)
		poison_clear(fs, dev_off);
	fs->poison_depth--;
	poison_leave(fs);
	return rc;
}

int poison_handle(struct fs *fs, uint64_t dev_off)
{
	return block_see(fs, dev_off, 0);
}

int poison_again(struct fs *fs, uint64_t dev_off, bool clear)
{
	return block_see(fs, dev_off, clear ? HOW_CLEAR : 0);
}

/* ---- after a crash ---- */

struct forwards {
	uint32_t agno;
	uint64_t next_blk; /* in: look from here on; out: the record found */
};

/* 1: there is one. */
static int forward_find(struct op *op, void *arg)
{
	struct forwards *f = arg;
	struct bt_key key = { { f->next_blk } };
	struct bt_cursor cur;
	struct btree bt;
	const void *rec;
	size_t size_bytes;
	int rc = space_ag_tree(op->tx, f->agno, AG_FORWARDS, &bt);

	if (!rc)
		rc = bt_seek(&bt, &cur, &key, BT_GE);
	if (!rc)
		rc = bt_get(&cur, &rec, &size_bytes);
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	f->next_blk = le64_get(((const struct m_forward *)rec)->fw_old_blk);
	return 1;
}

/* 1: the group has some. */
static int forwards_any(struct txn *tx, void *arg)
{
	const uint32_t *agno = arg;
	struct pool *pool = txn_pool(tx);
	const void *unit;
	/* Not txn_lock_ag(): a mount must not read the chunk tables of all groups. */
	int rc = txn_lock(tx, pool_ag_lock(pool, *agno), true);

	if (!rc)
		rc = txn_get(tx, pool_ag_unit(pool, *agno, AG_UNIT_HEADER), MAGIC_AG, &unit);
	if (rc)
		return rc;
	return !bt_is_empty_body(((const struct m_ag *)unit)->ag_roots[AG_FORWARDS]);
}

void poison_resume(struct fs *fs)
{
	fs->is_resuming = true;
	for (uint32_t agno = 0; agno < pool_ag_count(fs->pool); agno++) {
		struct forwards f = { .agno = agno };
		int rc = txn_run(fs->pool, TXN_READ, forwards_any, &agno);

		while (rc == 1) {
			rc = op_run(fs, TXN_READ, NULL, forward_find, &f);
			poison_enter(fs);
			/* What cannot be done now is tried again at the next mount. */
			if (rc == 1 && forward_settle(fs, f.next_blk) == 0)
				(void)handle(fs, f.next_blk << BLOCK_SHIFT, 0);
			f.next_blk++;
			poison_leave(fs);
		}
		if (rc)
			log_warn("group %u: blocks on their way out of bad memory cannot be looked up: %s",
				 agno, strerror(-rc));
	}
	fs->is_resuming = false;
}

void fs_poison_look(struct fs *fs, uint64_t dev_off, uint64_t len)
{
	const struct dax *dax = pool_dax(fs->pool);
	uint64_t size = pool_size_blk(fs->pool) << BLOCK_SHIFT;
	uint64_t end = len < size - u64_min(dev_off, size) ? dev_off + len : size;
	uint8_t bytes[BLOCK_SIZE];

	for (uint64_t off = u64_align_down(dev_off, BLOCK_SIZE); off < end; off += BLOCK_SIZE) {
		int rc = dax_load(dax, bytes, off, BLOCK_SIZE, NULL) ? poison_handle(fs, off) : 0;

		if (rc && !poison_is_kept(fs, off >> BLOCK_SHIFT) && log_is_first(off))
			log_warn("bad memory at 0x%" PRIx64 " of the pool: %s", off, strerror(-rc));
	}
}

static int away(struct fs *fs, uint64_t dev_off, unsigned how)
{
	int rc;

	if (dev_off >> BLOCK_SHIFT >= pool_size_blk(fs->pool))
		return -EINVAL;
	if (fs->opts.readonly || pool_failed(fs->pool))
		return -EROFS;
	poison_enter(fs);
	rc = handle(fs, dev_off, HOW_AWAY | how);
	poison_leave(fs);
	return rc;
}

int poison_away(struct fs *fs, uint64_t dev_off)
{
	return away(fs, dev_off, 0);
}

int poison_away_listed(struct fs *fs, uint64_t dev_off, bool clear)
{
	return away(fs, dev_off, HOW_QUIET | (clear ? HOW_CLEAR : 0));
}

int fs_poison_add(struct fs *fs, uint64_t dev_off)
{
	int rc = poison_away(fs, dev_off);

	return rc && rc != -EBUSY && poison_is_known(fs, dev_off >> BLOCK_SHIFT) ? -EINPROGRESS : rc;
}

int poison_met(struct fs *fs, const struct dax_bad *bad, bool store)
{
	const struct dax *dax = pool_dax(fs->pool);
	uint8_t bytes[BLOCK_SIZE];
	uint64_t end;
	int rc = 0;

	if (bad->len <= BLOCK_SIZE) {
		rc = block_see(fs, bad->off, HOW_LATER);
		return rc && !(store && poison_is_known(fs, bad->off >> BLOCK_SHIFT)) ? -EIO : 0;
	}
	/* The kernel does not say where in it. */
	end = u64_min(bad->off + bad->len, dax_size_bytes(dax));
	for (uint64_t off = bad->off; off < end && !rc; off += BLOCK_SIZE) {
		if (dax_load(dax, bytes, off, BLOCK_SIZE, NULL) != 0)
			rc = block_see(fs, off, HOW_LATER);
	}
	return rc ? -EIO : 0;
}

/* ---- telling ---- */

/* Nobody can listen before a file system is open. */
static bool untold_keep(struct fs *fs, const struct fs_poison *event)
{
	if (fs->untold_count == fs->untold_room) {
		size_t room = fs->untold_room ? 2 * fs->untold_room : 64;
		struct fs_poison *more = room <= UNTOLD_MAX ? realloc(fs->untold, room * sizeof(*more)) :
							      NULL;

		if (!more)
			return false;
		fs->untold = more;
		fs->untold_room = room;
	}
	fs->untold[fs->untold_count++] = *event;
	return true;
}

void poison_tell(struct fs *fs, const struct fs_poison *event)
{
	struct fs_poison told_of = *event;

	told_of.dev_off = u64_align_down(event->dev_off, BLOCK_SIZE);
	if (fs->poison_fn)
		fs->poison_fn(fs->poison_arg, &told_of);
	else if (fs->is_resuming && untold_keep(fs, &told_of))
		return;
	else if (event->lost_lines) /* nobody listens */
		log_error("bad memory at 0x%" PRIx64 ": inode %" PRIu64 " has %s the block at %" PRIu64,
			  told_of.dev_off, event->ino,
			  event->zeroed ? "zeroes in the place of some of" : "lost some of", event->file_off);
}

void fs_on_poison(struct fs *fs, fs_poison_fn fn, void *arg)
{
	poison_enter(fs);
	fs->poison_fn = fn;
	fs->poison_arg = arg;
	for (size_t i = 0; fn && i < fs->untold_count; i++)
		fn(arg, &fs->untold[i]);
	if (fn)
		fs->untold_count = 0;
	poison_leave(fs);
}
