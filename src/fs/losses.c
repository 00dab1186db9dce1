/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A page of loss records at a time, group by group; those of one block.
 */
#include <errno.h>

#include "fs/core.h"
#include "fs/loss.h"

struct losses_page {
	struct fs_losses_pos pos; /* after the last one found */
	struct fs_loss *losses;
	unsigned max, count;
};

/* The rest of one group. */
static int page_fill(struct op *op, void *arg)
{
	struct losses_page *page = arg;
	struct bt_key key = { { page->pos.ino, page->pos.blk } };
	struct bt_cursor cur;
	struct btree bt;
	int rc = space_ag_tree(op->tx, page->pos.agno, AG_LOSSES, &bt);

	page->count = 0;
	if (!rc)
		rc = bt_seek(&bt, &cur, &key, BT_GE);
	while (!rc && page->count < page->max) {
		const struct m_loss *m;
		const void *rec;
		size_t size_bytes;

		rc = bt_get(&cur, &rec, &size_bytes);
		if (rc)
			break;
		m = rec;
		page->losses[page->count++] = (struct fs_loss){
			.ino = le64_get(m->ls_ino),
			.file_off = le64_get(m->ls_file_blk) << BLOCK_SHIFT,
			.lost_lines = le64_get(m->ls_lost_lines),
			.since_s = (int64_t)le64_get(m->ls_since_s),
			.after = { page->pos.agno, le64_get(m->ls_ino), le64_get(m->ls_file_blk) + 1 },
		};
		rc = bt_next(&cur);
	}
	return rc == -ENOENT ? 0 : rc;
}

int fs_losses(struct fs *fs, const struct fs_losses_pos *pos, struct fs_loss *losses, unsigned max,
	      unsigned *count)
{
	struct losses_page page = { .pos = *pos, .losses = losses, .max = max };
	int rc = 0;

	while (!rc && page.count == 0 && page.pos.agno < pool_ag_count(fs->pool)) {
		rc = op_run(fs, TXN_READ, NULL, page_fill, &page);
		if (!rc && page.count == 0)
			page.pos = (struct fs_losses_pos){ .agno = page.pos.agno + 1 };
	}
	*count = page.count;
	return rc;
}

struct lost_arg {
	uint64_t ino, file_blk, lines;
};

static int lost_op(struct op *op, void *arg)
{
	struct lost_arg *a = arg;
	struct inode_attr attr;
	struct inode *inode;
	int rc = op_inode(op, a->ino, false, &inode);

	if (!rc)
		rc = inode_get(op, a->ino, &attr);
	if (!rc)
		rc = loss_get(op, &attr, a->file_blk, &a->lines);
	return rc;
}

int fs_lost_lines(struct fs *fs, uint64_t ino, uint64_t file_off, uint64_t *lost_lines)
{
	struct lost_arg a = { .ino = ino, .file_blk = file_off >> BLOCK_SHIFT };
	int rc = op_run(fs, TXN_READ, NULL, lost_op, &a);

	if (!rc)
		*lost_lines = a.lines;
	return rc;
}
