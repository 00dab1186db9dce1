/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Copies are made of more than what is stored to (holders.h). When the holder has let go of the file, those blocks that are as they were share the old ones again, which the clone's origin, or
 * whoever, has still. That is a dedupe of what looks the same: it asks holders, compares under the locks of both files and switches in a transaction, so
 * nothing depends on these notes being true.
 */
#include "fs/copies.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/core.h"
#include "fs/holders.h"
#include "fs/owners.h"
#include "media/unit.h"

#define COPIES_MAX 16384u /* 32 GiB in pieces of 2 MiB */
#define OWNERS 16u        /* that are looked at */
#define EXTENTS 16u
#define RUN_MIN_BLK 4u /* a smaller one is not worth its extents */

void copies_open(struct fs *fs)
{
	pthread_mutex_init(&fs->copies.lock, NULL);
}

void copies_close(struct fs *fs)
{
	free(fs->copies.list);
	pthread_mutex_destroy(&fs->copies.lock);
}

/* ---- notes ---- */

/* Under the lock. False: there is no room. */
static bool copy_add(struct copies *all, const struct copy *c)
{
	struct copy *last = all->count > 0 ? &all->list[all->count - 1] : NULL, *more;

	if (last && last->ino == c->ino && !last->due && last->file_blk + last->count_blk == c->file_blk &&
	    last->old_blk + last->count_blk == c->old_blk && c->count_blk <= UINT32_MAX - last->count_blk) {
		last->count_blk += c->count_blk;
		return true;
	}
	if (all->count == all->room) {
		if (all->room == COPIES_MAX)
			return false;
		more = realloc(all->list, (all->room ? 4 * all->room : 64) * sizeof(*more));
		if (!more)
			return false;
		all->list = more;
		all->room = all->room ? 4 * all->room : 64;
	}
	all->list[all->count++] = *c;
	return true;
}

void copies_note(struct fs *fs, const struct copy *copies, unsigned count)
{
	pthread_mutex_lock(&fs->copies.lock);
	for (unsigned i = 0; i < count && copy_add(&fs->copies, &copies[i]); i++)
		;
	pthread_mutex_unlock(&fs->copies.lock);
}

void fs_give_back(struct fs *fs, uint64_t ino)
{
	struct copies *all = &fs->copies;
	size_t due = 0;

	pthread_mutex_lock(&all->lock);
	for (size_t i = 0; i < all->count; i++) {
		if (all->list[i].due || (ino != 0 && all->list[i].ino != ino))
			continue;
		all->list[i].due = true;
		due++;
	}
	atomic_fetch_add(&all->due_count, due);
	pthread_mutex_unlock(&all->lock);
	if (due == 0)
		return;
	pthread_mutex_lock(&fs->work_lock);
	work_wake(fs);
	pthread_mutex_unlock(&fs->work_lock);
}

/* The last one that is due: the list is not gone through from its start each time. */
static bool copy_take(struct copies *all, struct copy *c)
{
	bool found = false;

	if (atomic_load(&all->due_count) == 0)
		return false;
	pthread_mutex_lock(&all->lock);
	for (size_t i = all->count; i-- > 0 && !found;) {
		found = all->list[i].due;
		if (!found)
			continue;
		*c = all->list[i];
		all->list[i] = all->list[--all->count];
		atomic_fetch_sub(&all->due_count, 1);
	}
	pthread_mutex_unlock(&all->lock);
	return found;
}

/* ---- sharing again ---- */

/* Where old blocks are in a file now, and how many in a row: the longest of those that begin there. 0: some are nobody's, or this file's. */
static uint64_t origin_find(struct fs *fs, uint64_t ino, uint64_t old_blk, uint64_t count_blk, uint64_t *src,
			    uint64_t *src_blk, uint64_t *skip_blk)
{
	uint64_t start = old_blk << BLOCK_SHIFT, best = 0;
	const struct fs_owners_pos first = { 0 };
	struct fs_owner owners[OWNERS];
	unsigned count = 0;

	*skip_blk = count_blk;
	if (fs_owners(fs, start, count_blk << BLOCK_SHIFT, &first, owners, OWNERS, &count))
		return 0;
	for (unsigned i = 0; i < count; i++) {
		const struct fs_owner *o = &owners[i];

		if (o->owner & OWNER_SPECIAL || o->owner == ino)
			continue;
		if (o->dev_off > start) {
			*skip_blk = u64_min(*skip_blk, (o->dev_off - start) >> BLOCK_SHIFT);
		} else if (o->len > best) {
			best = o->len;
			*src = o->owner;
			*src_blk = o->file_off >> BLOCK_SHIFT;
		}
	}
	return best >> BLOCK_SHIFT;
}

/* A guess, with no lock: fs_dedupe() looks for itself. */
static bool blocks_look_same(struct fs *fs, uint64_t a_blk, uint64_t b_blk)
{
	bool same;

	return dax_same(pool_dax(fs->pool), a_blk << BLOCK_SHIFT, b_blk << BLOCK_SHIFT, BLOCK_SIZE, &same) ==
		       0 &&
	       same;
}

/* What is looked at: blocks of a file, and where they came from. */
struct stretch {
	uint64_t ino, size_bytes; /* of the file */
	uint64_t blk, dev_blk, old_blk;
	uint64_t src, src_blk;
	uint64_t count_blk;
};

static struct stretch stretch_part(const struct stretch *s, uint64_t first, uint64_t count_blk)
{
	struct stretch part = *s;

	part.blk += first;
	part.dev_blk += first;
	part.old_blk += first;
	part.src_blk += first;
	part.count_blk = count_blk;
	return part;
}

/* False: it was not the same after all. */
static bool run_share(struct fs *fs, const struct stretch *s)
{
	uint64_t off = s->blk << BLOCK_SHIFT, len = s->count_blk << BLOCK_SHIFT;
	bool same = true;
	int rc;

	if (s->count_blk < RUN_MIN_BLK)
		return true;
	/* The last block may end both files, or has to stay. */
	if (off + len > s->size_bytes)
		len = s->size_bytes > off ? s->size_bytes - off : 0;
	rc = fs_dedupe(fs, s->src, s->src_blk << BLOCK_SHIFT, s->ino, off, len, &same);
	len = u64_align_down(len, BLOCK_SIZE);
	if (rc == -EINVAL && len > 0)
		rc = fs_dedupe(fs, s->src, s->src_blk << BLOCK_SHIFT, s->ino, off, len, &same);
	return rc || same;
}

/* Somebody may store meanwhile, until he is asked by fs_dedupe(): what was not the same is looked at once more. */
static void stretch_share(struct fs *fs, const struct stretch *s, bool again)
{
	uint64_t run = 0;

	for (uint64_t i = 0; i <= s->count_blk; i++) {
		struct stretch part = stretch_part(s, i - run, run);

		if (i < s->count_blk && blocks_look_same(fs, s->dev_blk + i, s->old_blk + i)) {
			run++;
			continue;
		}
		if (!run_share(fs, &part) && again)
			stretch_share(fs, &part, false);
		run = 0;
	}
}

/* count_blk blocks of the file that were copied from old_blk on, which are src's from src_blk on now. */
static void range_share(struct fs *fs, const struct copy *c, uint64_t src, uint64_t src_blk)
{
	uint64_t off = c->file_blk << BLOCK_SHIFT, end = off + ((uint64_t)c->count_blk << BLOCK_SHIFT);
	struct stretch s = { .ino = c->ino, .src = src };
	struct fs_extent extents[EXTENTS];
	struct inode_attr attr;
	int n;

	if (fs_getattr(fs, c->ino, &attr))
		return;
	s.size_bytes = attr.size;
	while (off < end && (n = fs_map(fs, c->ino, off, extents, EXTENTS)) > 0) {
		for (int i = 0; i < n && off < end; i++) {
			const struct fs_extent *e = &extents[i];
			uint64_t from = u64_max(e->file_off, off), to = u64_min(e->file_off + e->len, end);

			off = u64_max(off, e->file_off + e->len);
			if (from >= to ||
			    e->flags & (FS_EXTENT_UNWRITTEN | FS_EXTENT_SHARED | FS_EXTENT_INLINE))
				continue;
			s.blk = from >> BLOCK_SHIFT;
			s.dev_blk = (e->dev_off + (from - e->file_off)) >> BLOCK_SHIFT;
			s.old_blk = c->old_blk + (s.blk - c->file_blk);
			s.src_blk = src_blk + (s.blk - c->file_blk);
			s.count_blk = (to - from) >> BLOCK_SHIFT;
			stretch_share(fs, &s, true);
		}
	}
}

bool copies_work(struct fs *fs)
{
	uint64_t src = 0, src_blk = 0, part, skip;
	struct copy c;

	if (!copy_take(&fs->copies, &c))
		return false;
	while (c.count_blk > 0) {
		struct copy some = c;

		part = origin_find(fs, c.ino, c.old_blk, c.count_blk, &src, &src_blk, &skip);
		if (part > 0) {
			some.count_blk = (uint32_t)part;
			range_share(fs, &some, src, src_blk);
		}
		part = part > 0 ? part : skip;
		c.file_blk += part;
		c.old_blk += part;
		c.count_blk -= (uint32_t)part;
	}
	return true;
}
