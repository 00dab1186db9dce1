/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Loss records of files. See loss.h; FORMAT.md 6.9.
 */
#include "fs/loss.h"

#include <assert.h>
#include <errno.h>

#include "fs/data.h"
#include "util/sabotage.h"

#define BLOCK_LINES (BLOCK_SIZE / LINE_SIZE)

static int loss_tree(struct op *op, uint64_t ino, struct btree *bt)
{
	return space_ag_tree(op->tx, inode_agno(op->fs, ino), AG_LOSSES, bt);
}

/* The first record of the file at block blk or after it, before block hi; -ENOENT. */
static int loss_next(struct btree *bt, uint64_t ino, uint64_t blk, uint64_t hi, struct m_loss *loss)
{
	struct bt_key key = { { ino, blk } };
	const struct m_loss *m;
	struct bt_cursor cur;
	const void *rec;
	size_t size_bytes;
	int rc = bt_seek(bt, &cur, &key, BT_GE);

	if (!rc)
		rc = bt_get(&cur, &rec, &size_bytes);
	if (rc)
		return rc;
	m = rec;
	if (le64_get(m->ls_ino) != ino || le64_get(m->ls_file_blk) >= hi)
		return -ENOENT;
	*loss = *m;
	return 0;
}

static int loss_delete(struct btree *bt, uint64_t ino, uint64_t file_blk)
{
	struct bt_key key = { { ino, file_blk } };

	return bt_delete(bt, &key);
}

/* After a record went: the file may have no other. */
static int flag_renew(struct btree *bt, struct inode_attr *attr)
{
	struct m_loss any;
	int rc = loss_next(bt, attr->ino, 0, UINT64_MAX, &any);

	if (rc == -ENOENT)
		attr->flags &= ~INODE_LOST;
	return rc == -ENOENT ? 0 : rc;
}

/* The lines from one to before another, of a block. */
static uint64_t lines_mask(uint64_t first, uint64_t end)
{
	uint64_t below_end = end >= BLOCK_LINES ? UINT64_MAX : (1ull << end) - 1;

	return first >= BLOCK_LINES ? 0 : below_end & ~((1ull << first) - 1);
}

/* Lines of a block that [off, end) touches. */
static uint64_t lines_touched(uint64_t file_blk, uint64_t off, uint64_t end)
{
	uint64_t start = file_blk << BLOCK_SHIFT;

	if (end <= start || off >= start + BLOCK_SIZE)
		return 0;
	off = u64_max(off, start) - start;
	end = u64_min(end, start + BLOCK_SIZE) - start;
	return lines_mask(off / LINE_SIZE, (end + LINE_SIZE - 1) / LINE_SIZE);
}

/* Lines of a block of which [off, end) has all that the file of that size has. */
static uint64_t lines_covered(uint64_t file_blk, uint64_t off, uint64_t end, uint64_t size)
{
	uint64_t start = file_blk << BLOCK_SHIFT;

	if (end >= size)
		end = u64_align_up(end, LINE_SIZE);
	if (end <= start || off >= start + BLOCK_SIZE)
		return 0;
	off = u64_max(off, start) - start;
	end = u64_min(end, start + BLOCK_SIZE) - start;
	off = (off + LINE_SIZE - 1) / LINE_SIZE;
	end /= LINE_SIZE;
	return off < end ? lines_mask(off, end) : 0;
}

int loss_find(struct op *op, const struct inode_attr *attr, uint64_t off, uint64_t end, uint64_t *lost_off)
{
	struct btree bt;
	int rc;

	*lost_off = end;
	if (!(attr->flags & INODE_LOST) || off >= end || sabotage_point("loss-read"))
		return 0;
	rc = loss_tree(op, attr->ino, &bt);
	for (uint64_t blk = blk_of(off); !rc; blk++) {
		struct m_loss loss;
		uint64_t lost;

		rc = loss_next(&bt, attr->ino, blk, blk_up(end), &loss);
		if (rc)
			break;
		blk = le64_get(loss.ls_file_blk);
		lost = le64_get(loss.ls_lost_lines) & lines_touched(blk, off, end);
		if (lost == 0)
			continue;
		*lost_off = u64_max(off, (blk << BLOCK_SHIFT) + (uint64_t)__builtin_ctzll(lost) * LINE_SIZE);
		return 0;
	}
	return rc == -ENOENT ? 0 : rc;
}

int loss_may_store(struct op *op, const struct inode_attr *attr, uint64_t off, uint64_t end)
{
	struct btree bt;
	int rc;

	if (!(attr->flags & INODE_LOST) || off >= end || sabotage_point("loss-may-store"))
		return 0;
	rc = loss_tree(op, attr->ino, &bt);
	/* All between the edges is covered. */
	for (unsigned i = 0; i < 2 && !rc; i++) {
		uint64_t blk = i == 0 ? blk_of(off) : blk_of(end - 1);
		struct m_loss loss;

		rc = loss_next(&bt, attr->ino, blk, blk + 1, &loss);
		if (!rc && le64_get(loss.ls_lost_lines) & lines_touched(blk, off, end) &
				   ~lines_covered(blk, off, end, attr->size))
			return -EIO;
		if (rc == -ENOENT)
			rc = 0;
	}
	return rc;
}

/* Takes lines out of a record. */
static int lines_heal(struct btree *bt, const struct m_loss *loss, uint64_t lines)
{
	uint64_t left = le64_get(loss->ls_lost_lines) & ~lines;
	struct m_loss next = *loss;

	if (left == le64_get(loss->ls_lost_lines))
		return 0;
	if (left == 0)
		return loss_delete(bt, le64_get(loss->ls_ino), le64_get(loss->ls_file_blk));
	next.ls_lost_lines = le64_of(left);
	return bt_update(bt, &next, sizeof(next));
}

int loss_stored(struct op *op, struct inode_attr *attr, uint64_t off, uint64_t end)
{
	struct btree bt;
	int rc;

	if (!(attr->flags & INODE_LOST) || off >= end)
		return 0;
	rc = loss_tree(op, attr->ino, &bt);
	for (uint64_t blk = blk_of(off); !rc; blk++) {
		struct m_loss loss;

		rc = loss_next(&bt, attr->ino, blk, blk_up(end), &loss);
		if (rc)
			break;
		blk = le64_get(loss.ls_file_blk);
		rc = lines_heal(&bt, &loss, lines_covered(blk, off, end, attr->size));
		/* In their place: what was stored, or after a crash still the record. */
		if (!sabotage_point("loss-heal-fence"))
			txn_data_stored(op->tx);
	}
	return rc == -ENOENT ? flag_renew(&bt, attr) : rc;
}

int loss_recorded(struct op *op, uint64_t ino, uint64_t file_blk, uint64_t *lines)
{
	struct m_loss loss;
	struct btree bt;
	int rc = loss_tree(op, ino, &bt);

	*lines = 0;
	if (!rc)
		rc = loss_next(&bt, ino, file_blk, file_blk + 1, &loss);
	if (!rc)
		*lines = le64_get(loss.ls_lost_lines);
	return rc == -ENOENT ? 0 : rc;
}

int loss_get(struct op *op, const struct inode_attr *attr, uint64_t file_blk, uint64_t *lines)
{
	*lines = 0;
	return attr->flags & INODE_LOST ? loss_recorded(op, attr->ino, file_blk, lines) : 0;
}

int loss_clear(struct op *op, struct inode_attr *attr, uint64_t file_blk, uint64_t lines)
{
	struct m_loss loss;
	struct btree bt;
	int rc;

	if (!(attr->flags & INODE_LOST))
		return 0;
	rc = loss_tree(op, attr->ino, &bt);
	if (!rc)
		rc = loss_next(&bt, attr->ino, file_blk, file_blk + 1, &loss);
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	rc = lines_heal(&bt, &loss, lines);
	return rc ? rc : flag_renew(&bt, attr);
}

int loss_cut(struct op *op, struct inode_attr *attr, uint64_t size)
{
	uint64_t blk = blk_of(size);

	if ((size & (BLOCK_SIZE - 1)) == 0)
		return 0;
	return loss_clear(op, attr, blk, lines_covered(blk, size, (blk + 1) << BLOCK_SHIFT, size));
}

int loss_drop(struct op *op, struct inode_attr *attr, uint64_t lo, uint64_t hi, bool *done)
{
	struct btree bt;
	int rc;

	*done = true;
	if (!(attr->flags & INODE_LOST) || lo >= hi)
		return 0;
	rc = loss_tree(op, attr->ino, &bt);
	while (!rc) {
		struct m_loss loss;

		rc = loss_next(&bt, attr->ino, lo, hi, &loss);
		if (!rc && !txn_has_room(op->tx, DATA_STEP_UNITS)) {
			*done = false;
			return 0;
		}
		if (!rc && sabotage_point("loss-drop"))
			return 0;
		if (!rc)
			rc = loss_delete(&bt, attr->ino, le64_get(loss.ls_file_blk));
	}
	return rc == -ENOENT ? flag_renew(&bt, attr) : rc;
}

int loss_shift(struct op *op, const struct inode_attr *attr, uint64_t lo, uint64_t hi, uint64_t by_blk)
{
	struct m_loss losses[LOSS_SHIFT_BLK];
	unsigned count = 0;
	struct btree bt;
	int rc;

	if (!(attr->flags & INODE_LOST) || sabotage_point("loss-shift"))
		return 0;
	rc = loss_tree(op, attr->ino, &bt);
	assert(hi - lo <= LOSS_SHIFT_BLK);
	/* The new places may be among the old ones. */
	while (!rc && count < LOSS_SHIFT_BLK && (rc = loss_next(&bt, attr->ino, lo, hi, &losses[count])) == 0)
		rc = loss_delete(&bt, attr->ino, le64_get(losses[count++].ls_file_blk));
	if (rc == -ENOENT)
		rc = 0;
	for (unsigned i = 0; i < count && !rc; i++) {
		losses[i].ls_file_blk = le64_of(le64_get(losses[i].ls_file_blk) + by_blk);
		rc = bt_insert(&bt, &losses[i], sizeof(losses[i]));
	}
	return rc;
}

/* One more record, or more lines in the one that is there. */
static int loss_put(struct btree *bt, const struct m_loss *loss)
{
	uint64_t blk = le64_get(loss->ls_file_blk);
	struct m_loss both;
	int rc = loss_next(bt, le64_get(loss->ls_ino), blk, blk + 1, &both);

	if (rc == -ENOENT)
		return bt_insert(bt, loss, sizeof(*loss));
	if (rc)
		return rc;
	both.ls_lost_lines = le64_of(le64_get(both.ls_lost_lines) | le64_get(loss->ls_lost_lines));
	return bt_update(bt, &both, sizeof(both));
}

uint64_t loss_of(const struct inode_attr *attr, uint64_t file_blk, uint64_t lines)
{
	uint64_t start = file_blk << BLOCK_SHIFT;

	return attr->size > start ? lines & lines_touched(file_blk, start, attr->size) : 0;
}

int loss_add(struct op *op, struct inode_attr *attr, uint64_t file_blk, uint64_t lost_lines, uint64_t *added)
{
	struct m_loss loss;
	struct btree bt;
	int rc;

	lost_lines = loss_of(attr, file_blk, lost_lines);
	*added = lost_lines;
	if (lost_lines == 0 || sabotage_point("loss-add"))
		return 0;
	loss = (struct m_loss){
		.ls_ino = le64_of(attr->ino),
		.ls_file_blk = le64_of(file_blk),
		.ls_lost_lines = le64_of(lost_lines),
		.ls_since_s = le64_of((uint64_t)op->now.s),
	};
	rc = loss_tree(op, attr->ino, &bt);
	if (!rc)
		rc = loss_put(&bt, &loss);
	if (!rc)
		attr->flags |= INODE_LOST;
	return rc;
}

int loss_count(struct op *op, const struct inode_attr *attr, uint64_t lo, uint64_t hi, unsigned max,
	       unsigned *count)
{
	struct m_loss loss;
	struct btree bt;
	int rc;

	*count = 0;
	if (!(attr->flags & INODE_LOST))
		return 0;
	rc = loss_tree(op, attr->ino, &bt);
	for (uint64_t blk = lo; !rc && *count < max; blk = le64_get(loss.ls_file_blk) + 1) {
		rc = loss_next(&bt, attr->ino, blk, hi, &loss);
		*count += rc == 0;
	}
	return rc == -ENOENT ? 0 : rc;
}

int loss_copy(struct op *op, const struct inode_attr *src, uint64_t src_blk, struct inode_attr *dst,
	      uint64_t dst_blk, uint64_t count_blk)
{
	struct m_loss *losses;
	unsigned count = 0, dropped = 0;
	struct btree from, to;
	bool done;
	int rc;

	if (!((src->flags | dst->flags) & INODE_LOST) || sabotage_point("loss-clone"))
		return 0;
	losses = txn_alloc(op->tx, (LOSS_COPY_MAX + 1) * sizeof(*losses));
	rc = losses ? loss_tree(op, src->ino, &from) : -ENOMEM;
	for (uint64_t blk = src_blk; !rc && count <= LOSS_COPY_MAX; count++) {
		rc = loss_next(&from, src->ino, blk, src_blk + count_blk, &losses[count]);
		if (rc)
			break;
		blk = le64_get(losses[count].ls_file_blk) + 1;
	}
	if (rc == -ENOENT)
		rc = loss_count(op, dst, dst_blk, dst_blk + count_blk, LOSS_COPY_MAX + 1, &dropped);
	if (!rc && count + dropped > LOSS_COPY_MAX)
		rc = -EFBIG;
	if (!rc)
		rc = loss_drop(op, dst, dst_blk, dst_blk + count_blk, &done);
	if (!rc && !done)
		rc = -EFBIG;
	if (!rc)
		rc = loss_tree(op, dst->ino, &to);
	for (unsigned i = 0; !rc && i < count; i++) {
		losses[i].ls_ino = le64_of(dst->ino);
		losses[i].ls_file_blk = le64_of(le64_get(losses[i].ls_file_blk) - src_blk + dst_blk);
		rc = bt_insert(&to, &losses[i], sizeof(losses[i]));
	}
	if (!rc && count > 0)
		dst->flags |= INODE_LOST;
	return rc;
}
