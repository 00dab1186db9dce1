/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Dedupe: compares two ranges under both locks and shares them if they are equal. Changes no byte and no time stamp.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/clone.h"
#include "fs/data.h"
#include "util/sabotage.h"

#define COMPARE_BYTES (256u << 10)

struct dedupe_call {
	uint64_t src, src_off, dst, dst_off, len;
	bool same; /* out */
};

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
static int dedupe_share(struct op *op, struct clone_ends *ends, const struct dedupe_call *d)
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

	if (!rc)
		rc = dedupe_check(&ends, d);
	/* Before they are compared: nobody may store into them until they are shared. */
	if (!rc && !sabotage_point("change-dedupe"))
		rc = share_ask(op, &ends, &range);
	if (!rc)
		rc = ranges_compare(op, &ends, d, &same);
	if (!rc && same)
		rc = dedupe_share(op, &ends, d);
	if (!rc)
		d->same = same;
	return rc;
}

int fs_dedupe(struct fs *fs, uint64_t src, uint64_t src_off, uint64_t dst, uint64_t dst_off, uint64_t len,
	      bool *same)
{
	struct dedupe_call d = { .src = src, .src_off = src_off, .dst = dst, .dst_off = dst_off, .len = len };
	int rc = op_run(fs, TXN_WRITE, NULL, dedupe_once, &d);

	if (!rc)
		*same = d.same;
	return rc;
}
