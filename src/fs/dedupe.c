/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Dedupe: compares two ranges under both locks and shares them if they are equal. Changes no byte and no time stamp.
 *
 * A block that is known as bad, and that the source could not leave (poison_stay.c), is not shared: nobody else is to have it. The source shares the
 * destination's there, which takes no space, so that it leaves its own.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/clone.h"
#include "fs/data.h"
#include "util/sabotage.h"

#define COMPARE_BYTES (256u << 10)
#define ROUNDS_MAX 16u /* in which blocks become known as bad under our hands */

struct dedupe_call {
	uint64_t src, src_off, dst, dst_off, len;
	bool look; /* they are compared, and nothing else */
	bool same; /* out */
	bool bad;  /* out: the source has a bad block in the range, so nothing was shared */
};

/* ---- bad blocks ---- */

/* How far in a file from off on all blocks are known as bad, or none is. */
struct bad_look {
	uint64_t ino, off, len;
	bool bad;      /* out */
	uint64_t same; /* out: bytes, up to len */
};

/* The first blocks of OWNER_BAD in a range. */
struct bad_run {
	uint64_t start_blk, end_blk; /* in: the range */
	bool found;
};

static int bad_note(void *arg, const struct rmap *rmap)
{
	struct bad_run *run = arg;

	if (rmap->owner != OWNER_BAD)
		return 0;
	run->start_blk = u64_max(run->start_blk, rmap->start_blk);
	run->end_blk = u64_min(run->end_blk, rmap->start_blk + rmap->count_blk);
	run->found = true;
	return 1;
}

/* In the files' extents; the group of what is found stays locked: nothing in it becomes known as bad until the end of the transaction. */
static int bad_find(struct op *op, const struct inode_attr *attr, struct bad_look *look)
{
	uint64_t blk = blk_of(look->off), end = blk_up(look->off + look->len), first = blk;
	struct extent e;
	struct btree bt;
	int rc = 0;

	look->bad = false;
	look->same = look->len;
	if (attr->data_format != DATA_EXTENTS || sabotage_point("dedupe-bad"))
		return 0;
	inode_data_tree(op, look->ino, NODE_EXTENT, &bt);
	for (; blk < end; blk = e.file_blk + e.count_blk) {
		struct bad_run run;

		rc = extent_find(&bt, blk, &e);
		if (rc || e.file_blk >= end)
			break;
		run = (struct bad_run){ .start_blk = e.dev_blk,
					.end_blk = e.dev_blk + u64_min(e.count_blk, end - e.file_blk) };
		rc = space_owners(op->tx, e.dev_blk, run.end_blk - e.dev_blk, bad_note, &run);
		if (rc < 0)
			return rc;
		if (!run.found)
			continue;
		blk = e.file_blk + (run.start_blk - e.dev_blk);
		look->bad = blk == first;
		if (look->bad)
			blk += run.end_blk - run.start_blk;
		look->same = u64_min(look->len, (blk - first) << BLOCK_SHIFT);
		return 0;
	}
	return rc == -ENOENT ? 0 : rc;
}

static int bad_look(struct op *op, void *arg)
{
	struct bad_look *look = arg;
	struct inode_attr attr;
	int rc = op_inode(op, look->ino, false, NULL);

	if (!rc)
		rc = inode_get(op, look->ino, &attr);
	return rc ? rc : bad_find(op, &attr, look);
}

/* ---- one range ---- */

static int dedupe_check(const struct clone_ends *ends, const struct dedupe_call *d)
{
	const struct inode_attr *src = &ends->src, *dst = &ends->dst;
	int rc = data_may_write(dst);

	if (!rc && !S_ISREG(src->mode))
		rc = S_ISDIR(src->mode) ? -EISDIR : -EINVAL;
	if (rc)
		return rc;
	if (d->len == 0 || d->src_off > src->size || d->len > src->size - d->src_off ||
	    d->dst_off > dst->size || d->len > dst->size - d->dst_off)
		return -EINVAL;
	if ((d->src_off | d->dst_off) & (BLOCK_SIZE - 1))
		return -EINVAL;
	if (d->len & (BLOCK_SIZE - 1) &&
	    (d->src_off + d->len != src->size || d->dst_off + d->len != dst->size))
		return -EINVAL;
	if (d->src == d->dst && d->src_off < d->dst_off + d->len && d->dst_off < d->src_off + d->len)
		return -EINVAL;
	return 0;
}

static int ranges_compare(struct op *op, const struct clone_ends *ends, const struct dedupe_call *d,
			  bool *same)
{
	uint8_t *a = txn_alloc(op->tx, 2 * COMPARE_BYTES), *b = a ? a + COMPARE_BYTES : NULL;
	int rc = a ? 0 : -ENOMEM;

	*same = true;
	for (uint64_t done = 0; !rc && *same && done < d->len;) {
		uint64_t part = u64_min(d->len - done, COMPARE_BYTES);

		rc = data_read(op, &ends->src, d->src_off + done, a, part);
		if (!rc)
			rc = data_read(op, &ends->dst, d->dst_off + done, b, part);
		if (!rc)
			*same = memcmp(a, b, part) == 0;
		done += part;
	}
	return rc;
}

/* The last block may be shared only if nothing is left in it past the end of the file. */
static int dedupe_share(struct op *op, struct clone_ends *ends, struct dedupe_call *d)
{
	struct share_range range = { blk_of(d->src_off), blk_of(d->dst_off), blk_up(d->len) };
	bool ready = true;
	int rc = 0;

	if (ends->src.data_format != DATA_EXTENTS || ends->dst.data_format != DATA_EXTENTS)
		return 0; /* inline bytes: equal, and nothing to gain */
	if (d->len & (BLOCK_SIZE - 1))
		rc = tail_ready(op, ends->src_inode, &ends->src, &ready);
	if (!ready)
		range.count_blk--;
	if (rc || range.count_blk == 0)
		return rc;
	if (atomic_load(&op->fs->bad_in_use)) {
		struct bad_look look = { .ino = d->src, .off = d->src_off, .len = d->len };

		rc = bad_find(op, &ends->src, &look);
		d->bad = !rc && (look.bad || look.same < d->len);
		if (rc || d->bad)
			return rc;
	}
	ends->dst_size = ends->dst.size;
	ends->quiet = true;
	rc = share_extents(op, ends, &range);
	return rc ? rc : clone_put(op, ends);
}

static int dedupe_once(struct op *op, void *arg)
{
	struct dedupe_call *d = arg;
	const struct share_range range = { blk_of(d->src_off), blk_of(d->dst_off), blk_up(d->len) };
	struct clone_ends ends = { 0 };
	int rc = clone_lock(op, &ends, d->src, d->dst);
	bool same;

	d->bad = false;
	if (!rc)
		rc = dedupe_check(&ends, d);
	/* Before they are compared: nobody may store into them until they are shared. */
	if (!rc && !d->look && !sabotage_point("change-dedupe"))
		rc = share_ask(op, &ends, &range);
	if (!rc)
		rc = ranges_compare(op, &ends, d, &same);
	if (!rc && same && !d->look)
		rc = dedupe_share(op, &ends, d);
	if (!rc)
		d->same = same;
	return rc;
}

/* ---- in pieces ---- */

/* Bad blocks of the source, all along the range: it shares those of the destination. Where these are bad too, or it may not be changed, they are compared. */
static int bad_share(struct fs *fs, const struct dedupe_call *d, bool *same)
{
	struct dedupe_call back = {
		.src = d->dst, .src_off = d->dst_off, .dst = d->src, .dst_off = d->src_off, .len = d->len
	};
	int rc = op_run(fs, TXN_WRITE, NULL, dedupe_once, &back);

	if ((!rc && back.bad) || rc == -EPERM || rc == -EACCES) {
		back = *d;
		back.look = true;
		rc = op_run(fs, TXN_READ, NULL, dedupe_once, &back);
	}
	if (!rc)
		*same = back.same;
	return rc;
}

/* Each piece of the source that is good, or bad, by itself. What has been shared before one that differs stays so. */
static int pieces_share(struct fs *fs, const struct dedupe_call *all, bool *same)
{
	struct dedupe_call d = *all;
	uint64_t done = 0;
	unsigned rounds = 0;
	int rc = 0;

	*same = true;
	while (!rc && *same && done < all->len) {
		struct bad_look look = { .ino = all->src,
					 .off = all->src_off + done,
					 .len = all->len - done };
		struct bad_look other = { .ino = all->dst, .off = all->dst_off + done };

		rc = op_run(fs, TXN_READ, NULL, bad_look, &look);
		other.len = look.same;
		if (!rc && look.bad)
			rc = op_run(fs, TXN_READ, NULL, bad_look, &other);
		if (rc)
			break;
		d.src_off = look.off;
		d.dst_off = other.off;
		d.len = look.bad ? other.same : look.same;
		if (look.bad) {
			rc = bad_share(fs, &d, same);
		} else {
			rc = op_run(fs, TXN_WRITE, NULL, dedupe_once, &d);
			*same = d.same;
			if (!rc && d.bad && ++rounds < ROUNDS_MAX)
				continue; /* of late */
			if (!rc && d.bad)
				rc = -EIO;
		}
		done += d.len;
	}
	return rc;
}

int fs_dedupe(struct fs *fs, uint64_t src, uint64_t src_off, uint64_t dst, uint64_t dst_off, uint64_t len,
	      bool *same)
{
	struct dedupe_call d = { .src = src, .src_off = src_off, .dst = dst, .dst_off = dst_off, .len = len };
	int rc = op_run(fs, TXN_WRITE, NULL, dedupe_once, &d);

	if (!rc && d.bad)
		return pieces_share(fs, &d, same);
	if (!rc)
		*same = d.same;
	return rc;
}
