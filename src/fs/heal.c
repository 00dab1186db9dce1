/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a file has lost in a block is put back from a copy that somebody has of it, for all files that share the block.
 *
 * The lost lines are stored where they were, into the shared block: whoever shares it has lost them too, or ends before them, so nobody sees bytes
 * change. Then the record of each owner goes, one by one; a crash in between leaves some who can be healed in the same way. A file that goes on
 * in the line in which this one ends stays without that line: the copy does not have all of it.
 *
 * Where somebody shares the block who has not lost them, or has them again, he keeps what he has: each of the others is healed in a block of his own.
 * So it is while the block is the new one of owners that are still to be switched to it: they may be damaged, which takes until they are repaired.
 *
 * Who is damaged himself is passed over. His records of losses may still be read: they say whether he would see bytes change.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "fs/data.h"
#include "fs/loss.h"
#include "util/log.h"
#include "util/sabotage.h"

#define OWNERS_BATCH 64u
#define ROUNDS_MAX 8u
#define BLOCK_LINES (BLOCK_SIZE / LINE_SIZE)

struct heal {
	uint64_t ino, file_blk;
	const uint8_t *bytes;    /* of the whole block */
	uint64_t dev_blk, lines; /* what is stored, where */
	bool alone;              /* not where it is: each owner in a block of his own */
	bool awaited;            /* the block, by owners still to be switched to it */
	uint64_t len;            /* out: bytes of the block that the copy has */
};

static bool lines_agree(const uint8_t *have, const uint8_t *bytes, uint64_t lost, uint64_t len)
{
	for (unsigned i = 0; i < BLOCK_LINES && i * LINE_SIZE < len; i++) {
		size_t n = u64_min(LINE_SIZE, len - i * LINE_SIZE);

		if (!(lost >> i & 1) && memcmp(have + i * LINE_SIZE, bytes + i * LINE_SIZE, n) != 0)
			return false;
	}
	return true;
}

static int lines_store(struct op *op, const struct heal *h)
{
	struct dax *dax = pool_dax(op->fs->pool);
	int rc = 0;

	for (unsigned i = 0; i < BLOCK_LINES && !rc; i++) {
		if (h->lines >> i & 1)
			rc = dax_store(dax, (h->dev_blk << BLOCK_SHIFT) + i * LINE_SIZE,
				       h->bytes + i * LINE_SIZE, LINE_SIZE);
	}
	txn_data_stored(op->tx);
	return op_dax(op, rc);
}

/* The same into a block of this owner's own, and his record goes. */
static int lines_store_alone(struct op *op, struct inode *inode, struct inode_attr *attr,
			     const struct heal *h, uint64_t file_blk, uint64_t lines)
{
	uint64_t start = file_blk << BLOCK_SHIFT, stored_end;
	const struct data_src src = { h->bytes, start };
	int rc = 0;

	for (unsigned i = 0; i < BLOCK_LINES && !rc; i++) {
		uint64_t off = start + i * LINE_SIZE;

		if (lines >> i & 1 && off < attr->size)
			rc = data_store(op, inode, attr, &src, off, u64_min(off + LINE_SIZE, attr->size),
					&stored_end);
	}
	return rc;
}

/* 1: it is being left. */
static int special_note(void *arg, const struct rmap *rmap)
{
	struct heal *h = arg;

	h->awaited |= rmap->owner == OWNER_FORWARD;
	return rmap->owner & OWNER_SPECIAL && rmap->owner != OWNER_FORWARD ? 1 : 0;
}

static int specials_look(struct op *op, struct heal *h, uint64_t dev_blk)
{
	int rc;

	h->awaited = false;
	rc = space_owners(op->tx, dev_blk, 1, special_note, h);
	return rc == 1 ? -EBUSY : rc;
}

/* What a locked file has lost in the block, and where that lies. */
static int lost_block(struct op *op, const struct heal *h, struct inode_attr *attr, uint64_t *lines,
		      uint64_t *dev_blk)
{
	struct extent e;
	struct btree bt;
	int rc = inode_get(op, h->ino, attr);

	if (!rc)
		rc = data_may_write(attr);
	if (!rc)
		rc = loss_get(op, attr, h->file_blk, lines);
	if (rc)
		return rc;
	if (*lines == 0 || attr->data_format != DATA_EXTENTS)
		return -ENODATA;
	inode_data_tree(op, h->ino, NODE_EXTENT, &bt);
	rc = extent_find(&bt, h->file_blk, &e);
	if (rc == -ENOENT || (!rc && e.file_blk != h->file_blk))
		return -EUCLEAN;
	*dev_blk = e.dev_blk;
	return rc;
}

static int heal_look(struct op *op, void *arg)
{
	struct heal *h = arg;
	struct inode_attr attr;
	int rc = op_inode(op, h->ino, false, NULL);

	if (!rc)
		rc = lost_block(op, h, &attr, &h->lines, &h->dev_blk);
	return rc ? rc : specials_look(op, h, h->dev_blk);
}

/* 1: it is not as it was looked at. */
static int heal_first(struct op *op, void *arg)
{
	struct heal *h = arg;
	uint64_t start = h->file_blk << BLOCK_SHIFT, lines, dev_blk;
	uint8_t have[BLOCK_SIZE];
	struct inode_attr attr;
	struct inode *inode;
	int rc = op_inode(op, h->ino, true, &inode);

	if (!rc)
		rc = lost_block(op, h, &attr, &lines, &dev_blk);
	if (!rc && (dev_blk != h->dev_blk || lines != h->lines))
		return 1;
	if (!rc)
		rc = op_dax(op,
			    dax_load(pool_dax(op->fs->pool), have, dev_blk << BLOCK_SHIFT, BLOCK_SIZE, NULL));
	if (rc)
		return rc;
	h->len = attr.size - start;
	if (!lines_agree(have, h->bytes, h->lines, h->len))
		return -EBADMSG;
	/* Until the commit nobody begins to move the block: that takes its group's lock. */
	rc = specials_look(op, h, dev_blk);
	if (!rc && h->awaited && !h->alone)
		return 1;
	if (!rc && h->alone) {
		rc = lines_store_alone(op, inode, &attr, h, h->file_blk, lines);
		return rc ? rc : inode_put(op, &attr);
	}
	if (!rc)
		rc = lines_store(op, h);
	if (!rc)
		rc = loss_clear(op, &attr, h->file_blk, lines);
	return rc ? rc : inode_put(op, &attr);
}

/* ---- those who share it ---- */

struct sharers {
	const struct heal *heal;
	struct {
		uint64_t ino, file_blk;
	} list[OWNERS_BATCH];
	unsigned count, at;
	uint64_t after_ino, after_blk; /* all up to there have been seen */
	bool is_full;
};

static int sharer_note(void *arg, const struct rmap *rmap)
{
	struct sharers *s = arg;
	uint64_t file_blk = rmap->offset_blk + (s->heal->dev_blk - rmap->start_blk);

	if (rmap->owner & OWNER_SPECIAL || rmap->owner < s->after_ino ||
	    (rmap->owner == s->after_ino && file_blk <= s->after_blk))
		return 0;
	/* Not in this order where records start at different places: the lowest ones are kept. */
	if (s->count == OWNERS_BATCH) {
		s->is_full = true;
		if (rmap->owner > s->list[s->count - 1].ino ||
		    (rmap->owner == s->list[s->count - 1].ino && file_blk > s->list[s->count - 1].file_blk))
			return 0;
		s->count--;
	}
	unsigned i = s->count++;

	for (; i > 0 && (s->list[i - 1].ino > rmap->owner ||
			 (s->list[i - 1].ino == rmap->owner && s->list[i - 1].file_blk > file_blk));
	     i--)
		s->list[i] = s->list[i - 1];
	s->list[i].ino = rmap->owner;
	s->list[i].file_blk = file_blk;
	return 0;
}

static int sharers_find(struct op *op, void *arg)
{
	struct sharers *s = arg;
	int rc;

	s->count = 0;
	s->is_full = false;
	rc = space_owners(op->tx, s->heal->dev_blk, 1, sharer_note, s);
	return rc < 0 ? rc : 0;
}

/* 1: it had lost them, and has them again. */
static int sharer_heal(struct op *op, void *arg)
{
	const struct sharers *s = arg;
	uint64_t ino = s->list[s->at].ino, blk = s->list[s->at].file_blk, lost, lines = s->heal->lines;
	struct inode_attr attr;
	struct inode *inode;
	struct extent e;
	struct btree bt;
	int rc = op_inode(op, ino, true, &inode);

	if (!rc)
		rc = inode_get(op, ino, &attr);
	if (!rc)
		rc = loss_get(op, &attr, blk, &lost);
	if (rc)
		return rc == -ESTALE ? 0 : rc;
	if (s->heal->len < BLOCK_SIZE && attr.size - (blk << BLOCK_SHIFT) > s->heal->len)
		lines &= ~(1ull << s->heal->len / LINE_SIZE);
	if (!(lost & lines) || attr.data_format != DATA_EXTENTS)
		return 0;
	inode_data_tree(op, ino, NODE_EXTENT, &bt);
	rc = extent_find(&bt, blk, &e);
	if (rc == -ENOENT || (!rc && (e.file_blk != blk || e.dev_blk != s->heal->dev_blk)))
		return 0; /* it has a block of its own by now */
	if (!rc)
		rc = s->heal->alone ? lines_store_alone(op, inode, &attr, s->heal, blk, lost & lines) :
				      loss_clear(op, &attr, blk, lines);
	if (!rc)
		rc = inode_put(op, &attr);
	return rc ? rc : 1;
}

static bool is_damage(int rc)
{
	return rc == -EUCLEAN || rc == -EIO;
}

/* 1: he has the block too, but has not lost there what the first one has: such as one who ends in a line that was put back for him. */
static int sharer_look(struct op *op, const struct sharers *s)
{
	uint64_t ino = s->list[s->at].ino, blk = s->list[s->at].file_blk, lost;
	struct inode_attr attr;
	struct extent e;
	struct btree bt;
	int rc = op_inode(op, ino, false, NULL);

	if (!rc)
		rc = inode_get(op, ino, &attr);
	if (!rc)
		rc = loss_get(op, &attr, blk, &lost);
	if (rc)
		return rc == -ESTALE ? 0 : rc;
	if (!(loss_of(&attr, blk, s->heal->lines) & ~lost) || attr.data_format != DATA_EXTENTS)
		return 0;
	inode_data_tree(op, ino, NODE_EXTENT, &bt);
	rc = extent_find(&bt, blk, &e);
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	return e.file_blk == blk && e.dev_blk == s->heal->dev_blk && !(e.flags & EXTENT_UNWRITTEN);
}

static int sharer_is_whole(struct op *op, void *arg)
{
	const struct sharers *s = arg;
	uint64_t lost;
	int rc = sharer_look(op, s);

	if (!is_damage(rc))
		return rc;
	/* What nobody knows is taken for whole. */
	rc = loss_recorded(op, s->list[s->at].ino, s->list[s->at].file_blk, &lost);
	return is_damage(rc) || (!rc && s->heal->lines & ~lost) ? 1 : rc;
}

static void damaged_note(struct fs_healed *healed, uint64_t ino, int rc)
{
	for (unsigned i = 0; i < u64_min(healed->damaged, FS_HEAL_NAMED); i++) {
		if (healed->damaged_inos[i] == ino)
			return; /* has the block more than once */
	}
	if (healed->damaged < FS_HEAL_NAMED)
		healed->damaged_inos[healed->damaged] = ino;
	healed->damaged++;
	log_warn("inode %" PRIu64 " shares a block of which lost bytes are put back, but it is damaged: %s",
		 ino, strerror(-rc));
}

static int sharer_run(struct sharers *s, struct fs *fs, struct fs_healed *healed)
{
	int rc = healed ? op_run(fs, TXN_WRITE, NULL, sharer_heal, s) :
			  op_run(fs, TXN_READ, NULL, sharer_is_whole, s);

	if (!healed || !is_damage(rc) || pool_failed(fs->pool))
		return rc;
	damaged_note(healed, s->list[s->at].ino, rc);
	return 0;
}

/* Heals each of them; healed NULL: only looks. *ones: how many are, or are whole. */
static int sharers_run(struct fs *fs, const struct heal *heal, struct fs_healed *healed, unsigned *ones)
{
	struct sharers s = { .heal = heal };
	int rc;

	do {
		rc = op_run(fs, TXN_READ, NULL, sharers_find, &s);
		for (s.at = 0; s.at < s.count && rc >= 0; s.at++) {
			rc = sharer_run(&s, fs, healed);
			*ones += rc == 1;
			s.after_ino = s.list[s.at].ino;
			s.after_blk = s.list[s.at].file_blk;
		}
	} while (rc >= 0 && s.is_full);
	return rc < 0 ? rc : 0;
}

int fs_heal(struct fs *fs, uint64_t ino, uint64_t file_off, const void *block, struct fs_healed *healed)
{
	struct heal h = { .ino = ino, .file_blk = blk_of(file_off), .bytes = block };
	unsigned whole = 0, rounds = 0;
	int rc;

	*healed = (struct fs_healed){ 0 };
	if (file_off & (BLOCK_SIZE - 1) || file_off > FS_SIZE_MAX)
		return -EINVAL;
	do {
		rc = op_run(fs, TXN_READ, NULL, heal_look, &h);
		/* Nobody joins them later: a block gets sharers only while it is on its way, or from one of them. */
		if (!rc)
			rc = sharers_run(fs, &h, NULL, &whole);
		h.alone = (whole > 0 || h.awaited) && !sabotage_point("heal-alone");
		if (!rc)
			rc = op_run(fs, TXN_WRITE, NULL, heal_first, &h);
	} while (rc == 1 && ++rounds < ROUNDS_MAX);
	if (rc)
		return rc == 1 ? -EBUSY : rc;
	healed->count = 1;
	return sharers_run(fs, &h, healed, &healed->count);
}
