/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad memory: what to do about one block. See DESIGN.md 11.
 *
 * The rmap says whose it is. Free: it is taken out of use. Data of one owner: saved line by line into a new block, which the file maps from then
 * on, in one transaction. Data of several: the same, but they are switched to the new block, which they go on sharing, in batches;
 * a forward record remembers the new block and what was lost until all have been, and a mount goes on with it. Meanwhile the bad block has one
 * owner more (OWNER_BAD), so that nobody stores into it in place. In the end it belongs to OWNER_BAD alone and is never used again. The file system's own:
 * poison_meta.c.
 *
 * Runs in the thread that met the bad memory, with no transaction open and under poison_lock; others who meet it wait for that. The transactions
 * here may meet bad memory themselves: metadata is read from its mirror, a bad free block is seen to first (recursion).
 */
#include "fs/poison.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "fs/data.h"
#include "fs/loss.h"
#include "util/log.h"
#include "util/sabotage.h"

#define DEPTH_MAX 8u
#define ROUNDS_MAX 100u /* in which owners change under our hands */
#define OWNERS_BATCH 32u

/* One mapping of the block. */
struct mapping {
	uint64_t ino, file_blk;
	uint64_t lost_lines; /* out: that this owner lost now */
	bool switched;       /* out */
};

#define HOW_LATER 1u /* metadata is only noted */
#define HOW_AWAY 2u  /* the block is not to be used any more, even if it can be */

/* One block in work. */
struct bad {
	struct fs *fs;
	uint64_t dev_off, blk;
	unsigned how;
	/* looked up */
	struct mapping owners[OWNERS_BATCH];
	unsigned count;           /* of owners; there may be more */
	uint64_t special;         /* one that is no file: OWNER_*, or 0 */
	struct rmap special_rmap; /* its record */
	bool specials_too;        /* walk past the last owner there is room for */
	bool forwarded;           /* there is a forward record */
	uint64_t new_blk, lost_lines;
	uint64_t target_blk; /* a new block that is known to be kept for this one */
};

int op_dax(struct op *op, int rc)
{
	if (rc != -EIO || !dax_bad_met(pool_dax(op->fs->pool)))
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
	if (bad->count == OWNERS_BATCH)
		return bad->specials_too ? 0 : 1;
	bad->owners[bad->count++] = (struct mapping){
		.ino = rmap->owner,
		.file_blk = rmap->offset_blk + (bad->blk - rmap->start_blk),
	};
	return 0;
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
	struct bt_key key = { { bad->blk } };
	const struct m_forward *m;
	struct bt_cursor cur;
	struct btree bt;
	const void *rec;
	size_t size_bytes;
	int rc = space_ag_tree(op->tx, pool_blk_ag(op->fs->pool, bad->blk), AG_FORWARDS, &bt);

	if (!rc)
		rc = bt_seek(&bt, &cur, &key, BT_LE);
	if (!rc)
		rc = bt_get(&cur, &rec, &size_bytes);
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	m = rec;
	if (le64_get(m->fw_old_blk) != bad->blk)
		return 0;
	bad->new_blk = le64_get(m->fw_new_blk);
	bad->lost_lines = le64_get(m->fw_lost_lines);
	if (bad->target_blk == bad->new_blk)
		return 1; /* has been looked at: it may have many owners by now */
	rc = le32_get(m->fw_count_blk) == 1 ? space_owners(op->tx, bad->new_blk, 1, target_find, bad) : 0;
	if (rc == 1)
		bad->target_blk = bad->new_blk;
	return rc == 0 ? -EUCLEAN : rc;
}

static int look(struct op *op, void *arg)
{
	struct bad *bad = arg;
	int rc;

	bad->count = 0;
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

	if (!rc)
		rc = dax_salvage(dax, bad->blk << BLOCK_SHIFT, bytes, &bad->lost_lines);
	if (!rc)
		rc = op_dax(op, dax_store(dax, bad->new_blk << BLOCK_SHIFT, bytes, sizeof(bytes)));
	if (!rc && !sabotage_point("poison-save-fence"))
		txn_data_stored(op->tx);
	return rc;
}

/* 0: the owner maps the block, 1: not any more. */
static int owner_maps(struct op *op, const struct bad *bad, const struct mapping *m, struct inode_attr *attr,
		      struct extent *e)
{
	struct btree bt;
	int rc = inode_get(op, m->ino, attr);

	if (rc || attr->data_format != DATA_EXTENTS)
		return rc ? rc : 1;
	inode_data_tree(op, m->ino, NODE_EXTENT, &bt);
	rc = extent_find(&bt, m->file_blk, e);
	if (rc == -ENOENT || (!rc && (e->file_blk != m->file_blk || e->dev_blk != bad->blk)))
		return 1;
	return rc;
}

/*
 * The owner maps the new block instead, and has lost what is lost. own: how the new block becomes his. 1: he does not map the bad block
 * any more.
 */
static int owner_switch(struct op *op, struct bad *bad, struct mapping *m,
			int (*own)(struct txn *tx, uint64_t blk, uint64_t count_blk, uint64_t owner,
				   uint64_t offset_blk))
{
	struct inode_attr attr;
	struct extent e, piece;
	struct btree bt;
	int rc = owner_maps(op, bad, m, &attr, &e);

	if (rc)
		return rc;
	inode_data_tree(op, m->ino, NODE_EXTENT, &bt);
	rc = extent_cut(&bt, m->file_blk, m->file_blk + 1, 1, &piece);
	if (!rc)
		rc = own(op->tx, bad->new_blk, 1, m->ino, m->file_blk);
	if (!rc && own == space_own) /* the last owner, but the block does not become free */
		rc = space_share(op->tx, bad->blk, 1, OWNER_BAD, bad->blk);
	if (!rc)
		rc = space_drop(op->tx, bad->blk, 1, m->ino, m->file_blk);
	piece.dev_blk = bad->new_blk;
	if (!rc)
		rc = extent_add(&bt, op->fs->pool, &piece);
	if (!rc)
		rc = loss_add(op, &attr, m->file_blk, e.flags & EXTENT_UNWRITTEN ? 0 : bad->lost_lines,
			      &m->lost_lines);
	return rc ? rc : inode_put(op, &attr);
}

/* ---- one owner ---- */

/* 1: something has changed meanwhile. */
static int single(struct op *op, void *arg)
{
	struct bad *bad = arg;
	struct mapping *m = &bad->owners[0];
	uint64_t refs, same_blk;
	struct inode_attr attr;
	struct extent e;
	int rc = op_inode(op, m->ino, true, NULL);

	if (!rc)
		rc = owner_maps(op, bad, m, &attr, &e);
	if (!rc)
		rc = space_refs(op->tx, bad->blk, 1, &refs, &same_blk);
	if (!rc && refs != 1)
		return 1; /* nothing has been taken: it may be committed */
	if (!rc)
		rc = save(op, bad);
	if (!rc)
		rc = owner_switch(op, bad, m, space_own);
	m->switched = rc == 0;
	return rc == -ESTALE ? 1 : rc;
}

/* ---- several ---- */

static int forward_begin(struct op *op, void *arg)
{
	struct bad *bad = arg;
	struct m_forward rec;
	struct btree bt;
	uint64_t refs, same_blk;
	int rc = look(op, bad);

	if (rc || bad->forwarded)
		return rc;
	/* From two owners on all know that they share it. */
	rc = space_refs(op->tx, bad->blk, 1, &refs, &same_blk);
	if (!rc && refs < 2)
		return 1;
	if (!rc)
		rc = save(op, bad);
	if (!rc)
		rc = space_own(op->tx, bad->new_blk, 1, OWNER_FORWARD, bad->blk);
	if (!rc && !sabotage_point("poison-share"))
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

static int mapping_compare(const void *a, const void *b)
{
	const struct mapping *ma = a, *mb = b;

	if (ma->ino != mb->ino)
		return ma->ino < mb->ino ? -1 : 1;
	return (ma->file_blk > mb->file_blk) - (ma->file_blk < mb->file_blk);
}

/* As many of the batch as fit. */
static int switch_batch(struct op *op, void *arg)
{
	struct bad *bad = arg;
	int rc = 0;

	for (unsigned i = 0; i < bad->count; i++)
		bad->owners[i].switched = false;
	for (unsigned i = 0; i < bad->count && !rc; i++) {
		rc = op_hold(op, bad->owners[i].ino, true, NULL);
	}
	for (unsigned i = 0; i < bad->count && !rc && txn_has_room(op->tx, DATA_STEP_UNITS); i++) {
		rc = owner_switch(op, bad, &bad->owners[i], space_share);
		bad->owners[i].switched = rc == 0;
		if (rc == 1 || rc == -ESTALE)
			rc = 0;
	}
	return rc;
}

/* 1: it has owners still, or again. */
static int forward_end(struct op *op, void *arg)
{
	struct bad *bad = arg;
	struct bt_key key = { { bad->blk } };
	struct btree bt;
	int rc = look(op, bad);

	if (rc || !bad->forwarded)
		return rc;
	if (bad->count > 0)
		return 1;
	rc = space_ag_tree(op->tx, pool_blk_ag(op->fs->pool, bad->blk), AG_FORWARDS, &bt);
	if (!rc)
		rc = bt_delete(&bt, &key);
	return rc ? rc : space_drop(op->tx, bad->new_blk, 1, OWNER_FORWARD, bad->blk);
}

static void told(struct bad *bad)
{
	for (unsigned i = 0; i < bad->count; i++) {
		const struct mapping *m = &bad->owners[i];

		if (m->switched)
			poison_tell(bad->fs, &(struct fs_poison){
						     .kind = FS_POISON_DATA,
						     .dev_off = bad->blk << BLOCK_SHIFT,
						     .ino = m->ino,
						     .file_off = m->file_blk << BLOCK_SHIFT,
						     .lost_lines = m->lost_lines,
					     });
	}
}

static bool any_switched(const struct bad *bad)
{
	bool any = false;

	for (unsigned i = 0; i < bad->count; i++)
		any |= bad->owners[i].switched;
	return any;
}

/* A damaged file among them must not hold up the others: one by one. */
static bool switch_each(struct bad *bad)
{
	struct mapping all[OWNERS_BATCH];
	unsigned count = bad->count;
	bool any = false;

	memcpy(all, bad->owners, sizeof(all));
	bad->count = 1;
	for (unsigned i = 0; i < count; i++) {
		bad->owners[0] = all[i];
		if (op_run(bad->fs, TXN_FREEING, NULL, switch_batch, bad) != 0 || !any_switched(bad))
			continue;
		told(bad);
		any = true;
	}
	return any;
}

/* 0, 1: nobody was switched, or -errno. */
static int switch_some(struct bad *bad)
{
	int rc;

	qsort(bad->owners, bad->count, sizeof(bad->owners[0]), mapping_compare);
	rc = op_run(bad->fs, TXN_FREEING, NULL, switch_batch, bad);
	if (rc == -EUCLEAN || rc == -EIO)
		return switch_each(bad) ? 0 : rc;
	if (!rc)
		told(bad);
	return rc ? rc : !any_switched(bad);
}

static int forward_run(struct bad *bad)
{
	unsigned idle = 0;
	int rc;

	do {
		rc = op_run(bad->fs, TXN_READ, NULL, look, bad);
		if (!rc && bad->count == 0) {
			rc = op_run(bad->fs, TXN_FREEING, NULL, forward_end, bad);
		} else if (!rc) {
			rc = switch_some(bad);
			idle = rc ? idle + 1 : 0;
			rc = rc < 0 ? rc : 1;
		}
	} while (rc == 1 && idle < ROUNDS_MAX);
	return rc == 1 ? -EUCLEAN : rc; /* their records say so, but they do not map it */
}

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
	int rc;

	bad->specials_too = true;
	rc = op_run(bad->fs, TXN_READ, NULL, look, bad);
	bad->specials_too = false;
	if (rc)
		return rc;
	if (bad->forwarded)
		return forward_run(bad);
	if (bad->special == OWNER_BAD && bad->count == 0)
		return 0; /* has been seen to */
	if (bad->special != 0 && bad->how & HOW_LATER) {
		poison_note(bad->fs, bad->dev_off);
		return 0; /* its other copy is read */
	}
	if (bad->special != 0)
		return poison_meta(bad->fs, bad->dev_off, &bad->special_rmap, bad->how & HOW_AWAY);
	if (bad->count == 0) {
		rc = op_run(bad->fs, TXN_FREEING, NULL, take, bad);
		if (!rc)
			poison_tell(bad->fs, &(struct fs_poison){
						     .kind = FS_POISON_FREE,
						     .dev_off = bad->blk << BLOCK_SHIFT,
					     });
		return rc == -EBUSY ? 1 : rc;
	}
	if (bad->count == 1) {
		rc = op_run(bad->fs, TXN_FREEING, NULL, single, bad);
		if (!rc)
			told(bad);
		return rc;
	}
	rc = op_run(bad->fs, TXN_FREEING, NULL, forward_begin, bad);
	return rc ? rc : forward_run(bad);
}

static int handle(struct fs *fs, uint64_t dev_off, unsigned how)
{
	uint64_t blk = dev_off >> BLOCK_SHIFT;
	struct bad *bad = calloc(1, sizeof(*bad));
	unsigned rounds = 0;
	int rc;

	if (!bad)
		return -ENOMEM;
	bad->fs = fs;
	bad->dev_off = dev_off;
	bad->blk = blk;
	bad->how = how;
	do {
		rc = round_run(bad);
	} while (rc == 1 && ++rounds < ROUNDS_MAX);
	free(bad);
	if (rc && log_is_first(blk))
		log_error("bad memory at 0x%" PRIx64 " of the pool stays in use for now: %s",
			  blk << BLOCK_SHIFT, rc == 1 ? "its owners change" : strerror(-rc));
	return rc == 1 ? -EIO : rc;
}

static int block_see(struct fs *fs, uint64_t dev_off, unsigned how)
{
	uint64_t bad_lines;
	uint8_t bytes[BLOCK_SIZE];
	int rc;

	if (fs->opts.readonly || pool_failed(fs->pool))
		return -EIO;
	pthread_mutex_lock(&fs->poison_lock);
	rc = fs->poison_depth < DEPTH_MAX ? 0 : -EIO;
	fs->poison_depth++;
	if (!rc)
		rc = dax_salvage(pool_dax(fs->pool), dev_off, bytes, &bad_lines);
	if (!rc && bad_lines == 0 && !dax_has_memory(pool_dax(fs->pool), dev_off))
		rc = -EIO; /* a store met it: there was no room for that page */
	dax_bad_forget();
	if (!rc && bad_lines == 0) {
		poison_tell(fs, &(struct fs_poison){ .kind = FS_POISON_PASSED, .dev_off = dev_off });
	} else if (!rc) {
		rc = handle(fs, dev_off, how);
	}
	fs->poison_depth--;
	pthread_mutex_unlock(&fs->poison_lock);
	return rc;
}

int poison_handle(struct fs *fs, uint64_t dev_off)
{
	return block_see(fs, dev_off, 0);
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
	for (uint32_t agno = 0; agno < pool_ag_count(fs->pool); agno++) {
		struct forwards f = { .agno = agno };
		int rc = txn_run(fs->pool, TXN_READ, forwards_any, &agno);

		while (rc == 1) {
			rc = op_run(fs, TXN_READ, NULL, forward_find, &f);
			pthread_mutex_lock(&fs->poison_lock);
			if (rc == 1) /* what cannot be done now is tried again at the next mount */
				(void)handle(fs, f.next_blk++ << BLOCK_SHIFT, 0);
			pthread_mutex_unlock(&fs->poison_lock);
		}
		if (rc)
			log_warn("group %u: blocks on their way out of bad memory cannot be looked up: %s",
				 agno, strerror(-rc));
	}
}

void fs_poison_look(struct fs *fs, uint64_t dev_off, uint64_t len)
{
	const struct dax *dax = pool_dax(fs->pool);
	uint64_t size = pool_size_blk(fs->pool) << BLOCK_SHIFT;
	uint64_t end = len < size - u64_min(dev_off, size) ? dev_off + len : size;
	uint8_t bytes[BLOCK_SIZE];

	for (uint64_t off = u64_align_down(dev_off, BLOCK_SIZE); off < end; off += BLOCK_SIZE) {
		int rc = dax_load(dax, bytes, off, BLOCK_SIZE, NULL) ? poison_handle(fs, off) : 0;

		if (rc && log_is_first(off))
			log_warn("bad memory at 0x%" PRIx64 " of the pool: %s", off, strerror(-rc));
	}
}

int fs_poison_add(struct fs *fs, uint64_t dev_off)
{
	int rc;

	if (dev_off >> BLOCK_SHIFT >= pool_size_blk(fs->pool))
		return -EINVAL;
	if (fs->opts.readonly || pool_failed(fs->pool))
		return -EROFS;
	pthread_mutex_lock(&fs->poison_lock);
	rc = handle(fs, dev_off, HOW_AWAY);
	pthread_mutex_unlock(&fs->poison_lock);
	return rc;
}

int poison_met(struct fs *fs)
{
	const struct dax *dax = pool_dax(fs->pool);
	struct dax_bad bad;
	uint8_t bytes[BLOCK_SIZE];
	uint64_t end;
	int rc = 0;

	if (!dax_bad_take(dax, &bad))
		return -EIO;
	if (bad.len <= BLOCK_SIZE)
		return block_see(fs, bad.off, HOW_LATER) ? -EIO : 0;
	/* The kernel does not say where in it. */
	end = u64_min(bad.off + bad.len, dax_size_bytes(dax));
	for (uint64_t off = bad.off; off < end && !rc; off += BLOCK_SIZE) {
		if (dax_load(dax, bytes, off, BLOCK_SIZE, NULL) != 0)
			rc = block_see(fs, off, HOW_LATER);
	}
	return rc ? -EIO : 0;
}

/* ---- telling ---- */

void poison_tell(struct fs *fs, const struct fs_poison *event)
{
	struct fs_poison told_of = *event;

	told_of.dev_off = u64_align_down(event->dev_off, BLOCK_SIZE);
	if (fs->poison_fn)
		fs->poison_fn(fs->poison_arg, &told_of);
	else if (event->lost_lines) /* at the mount, or in a tool */
		log_error("bad memory at 0x%" PRIx64 ": inode %" PRIu64
			  " has lost some of the block at %" PRIu64,
			  told_of.dev_off, event->ino, event->file_off);
}

void fs_on_poison(struct fs *fs, fs_poison_fn fn, void *arg)
{
	pthread_mutex_lock(&fs->poison_lock);
	fs->poison_fn = fn;
	fs->poison_arg = arg;
	pthread_mutex_unlock(&fs->poison_lock);
}
