/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a file has lost in a block is put back from a copy that somebody has of it, for all files that share the block.
 *
 * The lost lines are stored where they were, into the shared block: whoever shares it has lost them too, or ends before them, so nobody sees bytes
 * change. Then the record of each owner goes, one by one; a crash in between leaves some who can be healed in the same way. A file that goes on
 * in the line in which this one ends stays without that line: the copy does not have all of it.
 */
#include <errno.h>
#include <string.h>

#include "fs/data.h"
#include "fs/loss.h"

#define OWNERS_BATCH 64u
#define BLOCK_LINES (BLOCK_SIZE / LINE_SIZE)

struct heal {
	uint64_t ino, file_blk;
	const uint8_t *bytes;    /* of the whole block */
	uint64_t dev_blk, lines; /* out: what was stored, where */
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

static int special_find(void *arg, const struct rmap *rmap)
{
	(void)arg;
	return rmap->owner & OWNER_SPECIAL ? 1 : 0;
}

static int heal_first(struct op *op, void *arg)
{
	struct heal *h = arg;
	uint64_t start = h->file_blk << BLOCK_SHIFT;
	uint8_t have[BLOCK_SIZE];
	struct inode_attr attr;
	struct extent e;
	struct btree bt;
	int rc = op_inode(op, h->ino, true, NULL);

	if (!rc)
		rc = inode_get(op, h->ino, &attr);
	if (!rc)
		rc = data_may_write(&attr);
	if (!rc)
		rc = loss_get(op, &attr, h->file_blk, &h->lines);
	if (rc)
		return rc;
	if (h->lines == 0 || attr.data_format != DATA_EXTENTS)
		return -ENODATA;
	inode_data_tree(op, h->ino, NODE_EXTENT, &bt);
	rc = extent_find(&bt, h->file_blk, &e);
	if (rc == -ENOENT || (!rc && e.file_blk != h->file_blk))
		return -EUCLEAN;
	if (!rc)
		rc = op_dax(op, dax_load(pool_dax(op->fs->pool), have, e.dev_blk << BLOCK_SHIFT, BLOCK_SIZE,
					 NULL));
	if (rc)
		return rc;
	h->len = attr.size - start;
	if (!lines_agree(have, h->bytes, h->lines, h->len))
		return -EBADMSG;
	h->dev_blk = e.dev_blk;
	/* Until the commit nobody begins to move the block: that takes its group's lock. */
	rc = space_owners(op->tx, e.dev_blk, 1, special_find, NULL);
	if (rc == 1)
		rc = -EBUSY;
	if (!rc)
		rc = lines_store(op, h);
	if (!rc)
		rc = loss_clear(op, &attr, h->file_blk, h->lines);
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
	struct extent e;
	struct btree bt;
	int rc = op_inode(op, ino, true, NULL);

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
		rc = loss_clear(op, &attr, blk, lines);
	if (!rc)
		rc = inode_put(op, &attr);
	return rc ? rc : 1;
}

static int sharers_heal(struct fs *fs, const struct heal *heal, unsigned *healed)
{
	struct sharers s = { .heal = heal };
	int rc;

	do {
		rc = op_run(fs, TXN_READ, NULL, sharers_find, &s);
		for (s.at = 0; s.at < s.count && rc >= 0; s.at++) {
			rc = op_run(fs, TXN_WRITE, NULL, sharer_heal, &s);
			*healed += rc == 1;
			s.after_ino = s.list[s.at].ino;
			s.after_blk = s.list[s.at].file_blk;
		}
	} while (rc >= 0 && s.is_full);
	return rc < 0 ? rc : 0;
}

int fs_heal(struct fs *fs, uint64_t ino, uint64_t file_off, const void *block, unsigned *healed)
{
	struct heal h = { .ino = ino, .file_blk = blk_of(file_off), .bytes = block };
	int rc;

	*healed = 0;
	if (file_off & (BLOCK_SIZE - 1) || file_off > FS_SIZE_MAX)
		return -EINVAL;
	rc = op_run(fs, TXN_WRITE, NULL, heal_first, &h);
	if (rc)
		return rc;
	*healed = 1;
	return sharers_heal(fs, &h, healed);
}
