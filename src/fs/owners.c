/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A page of rmap records at a time. See owners.h. Records come in order of (start, owner, offset), so the last one seen says
 * where to go on; the walk starts again at its block, where longer records that were seen come first and are passed over.
 */
#include "fs/owners.h"

#include <errno.h>
#include <stdbool.h>

#include "fs/core.h"
#include "media/node.h"
#include "space/space.h"

struct owners_page {
	const struct fs_owners_pos *pos;
	uint64_t from_blk, end_blk;
	struct fs_owner *owners;
	unsigned max, count;
};

static bool owner_was_seen(const struct fs_owners_pos *pos, const struct rmap *rmap)
{
	uint64_t start = rmap->start_blk + 1;

	if (start != pos->start_blk)
		return start < pos->start_blk;
	if (rmap->owner != pos->owner)
		return rmap->owner < pos->owner;
	return rmap->offset_blk <= pos->offset_blk;
}

static int owners_take(void *arg, const struct rmap *rmap)
{
	struct owners_page *page = arg;
	uint64_t start = u64_max(rmap->start_blk, page->from_blk);
	uint64_t end = u64_min(rmap->start_blk + rmap->count_blk, page->end_blk);
	uint64_t offset = rmap->offset_blk;

	if (start >= end || owner_was_seen(page->pos, rmap))
		return 0;
	if (page->count == page->max)
		return 1;
	if (!(rmap->owner & OWNER_SPECIAL))
		offset = (offset + (start - rmap->start_blk)) * BLOCK_SIZE;
	page->owners[page->count++] = (struct fs_owner){
		.dev_off = start * BLOCK_SIZE,
		.len = (end - start) * BLOCK_SIZE,
		.owner = rmap->owner,
		.file_off = offset,
		.after = { rmap->start_blk + 1, rmap->owner, rmap->offset_blk },
	};
	return 0;
}

static int owners_op(struct op *op, void *arg)
{
	struct owners_page *page = arg;
	uint64_t from = page->from_blk;
	int rc;

	page->count = 0;
	if (page->pos->start_blk)
		from = u64_max(from, page->pos->start_blk - 1);
	if (from >= page->end_blk)
		return 0;
	rc = space_owners(op->tx, from, page->end_blk - from, owners_take, page);
	return rc < 0 ? rc : 0;
}

int fs_owners(struct fs *fs, uint64_t dev_off, uint64_t len, const struct fs_owners_pos *pos,
	      struct fs_owner *owners, unsigned max, unsigned *count)
{
	uint64_t size = pool_size_blk(fs_pool(fs)) * BLOCK_SIZE;
	struct owners_page page = { .pos = pos, .owners = owners, .max = max };
	int rc;

	if (len == 0 || dev_off >= size || len > size - dev_off)
		return -EINVAL;
	page.from_blk = dev_off / BLOCK_SIZE;
	page.end_blk = u64_div_up(dev_off + len, BLOCK_SIZE);
	if (pos->start_blk > page.end_blk)
		return -EINVAL;
	rc = op_run(fs, TXN_READ, NULL, owners_op, &page);
	if (rc < 0)
		return rc;
	*count = page.count;
	return 0;
}
