/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Holders for tests. See fake_holders.h.
 */
#include "unit/fake_holders.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "space/space.h"

static bool overlaps(const struct fake_shadow *s, uint64_t ino, uint64_t lo_blk, uint64_t hi_blk)
{
	return s->ino == ino && s->file_blk < hi_blk && lo_blk < s->file_blk + s->count_blk;
}

static void add(struct fake_holders *h, const struct fake_shadow *s)
{
	assert(h->count < FAKE_SHADOWS);
	h->shadows[h->count++] = *s;
}

static void part_add(struct fake_holders *h, const struct fake_shadow *s, uint64_t lo, uint64_t hi)
{
	struct fake_shadow part = *s;

	if (lo >= hi)
		return;
	part.file_blk = lo;
	part.count_blk = hi - lo;
	if (!(s->flags & FS_PIECE_HOLE))
		part.dev_blk += lo - s->file_blk;
	add(h, &part);
}

/* The part of a shadow in the range becomes one of its own (*part: its place), or there is none. */
static bool cut(struct fake_holders *h, uint64_t ino, uint64_t lo_blk, uint64_t hi_blk, unsigned from,
		unsigned *part)
{
	for (unsigned i = from; i < h->count; i++) {
		struct fake_shadow s = h->shadows[i];
		uint64_t end = s.file_blk + s.count_blk;

		if (!overlaps(&s, ino, lo_blk, hi_blk))
			continue;
		h->shadows[i] = h->shadows[--h->count];
		part_add(h, &s, s.file_blk, u64_max(s.file_blk, lo_blk));
		part_add(h, &s, u64_min(end, hi_blk), end);
		part_add(h, &s, u64_max(s.file_blk, lo_blk), u64_min(end, hi_blk));
		/* To the place of the one it was, so that nobody meets it twice. */
		s = h->shadows[h->count - 1];
		h->shadows[h->count - 1] = h->shadows[i];
		h->shadows[i] = s;
		*part = i;
		return true;
	}
	return false;
}

static bool has_block(const struct fake_holders *h, uint64_t blk)
{
	for (unsigned i = 0; i < h->count; i++) {
		const struct fake_shadow *s = &h->shadows[i];

		if (!(s->flags & FS_PIECE_HOLE) && s->dev_blk <= blk && blk - s->dev_blk < s->count_blk)
			return true;
	}
	return false;
}

/* ---- what the file system calls ---- */

static bool held(void *arg, uint64_t ino, uint64_t lo_blk, uint64_t hi_blk, enum fs_change change)
{
	struct fake_holders *h = arg;
	bool any = false;

	pthread_mutex_lock(&h->lock);
	for (unsigned i = 0; i < h->count && !any; i++) {
		const struct fake_shadow *s = &h->shadows[i];

		any = overlaps(s, ino, lo_blk, hi_blk) && !s->lost &&
		      (!fs_change_leaves_reads(change) || s->flags & FS_PIECE_WRITE);
	}
	pthread_mutex_unlock(&h->lock);
	return any;
}

static int mute_begin(struct fake_holders *h, uint64_t ino, uint64_t lo_blk, uint64_t hi_blk,
		      enum fs_change change)
{
	int rc = 0;

	for (unsigned i = 0; cut(h, ino, lo_blk, hi_blk, i, &i); i++) {
		struct fake_shadow *s = &h->shadows[i];

		s->lost = true;
		if (change == FS_CHANGE_SHARE && s->flags & FS_PIECE_WRITE)
			rc = -EBUSY;
	}
	return rc;
}

static void answer_begin(struct fake_holders *h, uint64_t ino, uint64_t lo_blk, uint64_t hi_blk,
			 enum fs_change change)
{
	for (unsigned i = 0; cut(h, ino, lo_blk, hi_blk, i, &i);) {
		struct fake_shadow *s = &h->shadows[i];

		if (!fs_change_leaves_reads(change) && !s->lost) {
			*s = h->shadows[--h->count];
			continue;
		}
		if (!s->lost)
			s->flags &= ~FS_PIECE_WRITE;
		i++;
	}
}

static int begin(void *arg, uint64_t ino, uint64_t lo_blk, uint64_t hi_blk, enum fs_change change)
{
	struct fake_holders *h = arg;
	struct fake_ask ask = { ino, lo_blk, hi_blk, change };
	struct inode_attr attr;
	int rc = fs_getattr(h->fs, ino, &attr); /* no lock is held: whoever is asked may need the file */

	pthread_mutex_lock(&h->lock);
	h->broken |= rc != 0;
	rc = 0;
	if (h->ask_count < FAKE_ASKS)
		h->asks[h->ask_count++] = ask;
	h->broken |= lo_blk >= hi_blk;
	if (h->last_store)
		h->last_store(h);
	if (h->no_memory > 0) {
		h->no_memory--;
		rc = -ENOMEM;
	} else if (h->mood == FAKE_REFUSES)
		rc = -EBUSY;
	else if (h->mood == FAKE_MUTE)
		rc = mute_begin(h, ino, lo_blk, hi_blk, change);
	else if (h->mood == FAKE_ANSWERS)
		answer_begin(h, ino, lo_blk, hi_blk, change);
	if (!rc) {
		assert(h->open_count < ARRAY_SIZE(h->open));
		h->open[h->open_count++] = ask;
		h->begun++;
	}
	pthread_mutex_unlock(&h->lock);
	return rc;
}

static void end(void *arg, uint64_t ino, uint64_t lo_blk, uint64_t hi_blk, enum fs_change change)
{
	struct fake_holders *h = arg;
	bool found = false;

	pthread_mutex_lock(&h->lock);
	for (unsigned i = 0; i < h->open_count && !found; i++) {
		const struct fake_ask *o = &h->open[i];

		found = o->ino == ino && o->lo_blk == lo_blk && o->hi_blk == hi_blk && o->change == change;
		if (found)
			h->open[i] = h->open[--h->open_count];
	}
	h->broken |= !found;
	h->ended++;
	pthread_mutex_unlock(&h->lock);
}

static void kept_add(struct fake_holders *h, uint64_t blk)
{
	for (unsigned i = 0; i < h->kept_count; i++) {
		if (h->kept[i] == blk)
			return; /* asked again: a range was opened */
	}
	assert(h->kept_count < FAKE_KEPT);
	h->kept[h->kept_count++] = blk;
}

static uint64_t keep(void *arg, uint64_t blk, uint64_t count_blk, bool *is_held)
{
	struct fake_holders *h = arg;
	uint64_t n = 0;

	pthread_mutex_lock(&h->lock);
	*is_held = has_block(h, blk);
	while (n < count_blk && has_block(h, blk + n) == *is_held) {
		if (*is_held)
			kept_add(h, blk + n);
		n++;
	}
	pthread_mutex_unlock(&h->lock);
	return n;
}

/* ---- what tests call ---- */

void fake_holders_set(struct fake_holders *h, struct fs *fs)
{
	memset(h, 0, sizeof(*h));
	pthread_mutex_init(&h->lock, NULL);
	h->fs = fs;
	h->ops = (struct fs_holders){ h, begin, end, held, keep };
	fs_set_holders(fs, &h->ops);
}

void fake_holders_end(struct fake_holders *h)
{
	assert_false(h->broken);
	assert_int_equal(h->open_count, 0);
	assert_int_equal(h->begun, h->ended);
	fs_set_holders(h->fs, NULL);
	pthread_mutex_destroy(&h->lock);
}

void fake_forget(struct fake_holders *h)
{
	pthread_mutex_lock(&h->lock);
	h->ask_count = 0;
	pthread_mutex_unlock(&h->lock);
}

struct grant {
	struct fake_holders *h;
	uint64_t ino;
};

static int take(void *arg, const struct fs_piece *pieces, unsigned count, uint64_t size_bytes)
{
	const struct grant *g = arg;
	struct fake_holders *h = g->h;
	int rc = 0;

	(void)size_bytes;
	pthread_mutex_lock(&h->lock);
	for (unsigned i = 0; i < h->open_count; i++)
		rc = h->open[i].ino == g->ino ? -EAGAIN : rc;
	if (h->count + count + 8 > FAKE_SHADOWS)
		rc = -EMFILE;
	for (unsigned i = 0; i < count && !rc; i++) {
		const struct fs_piece *p = &pieces[i];

		if (!(p->flags & FS_PIECE_LOST))
			add(h, &(struct fake_shadow){ g->ino, p->file_blk, p->dev_blk, p->count_blk, p->flags,
						      false });
	}
	pthread_mutex_unlock(&h->lock);
	return rc;
}

int fake_grant(struct fake_holders *h, uint64_t ino, uint64_t lo_blk, uint64_t hi_blk, bool write)
{
	struct grant g = { h, ino };
	struct fs_grant grant = { .ino = ino,
				  .lo_blk = lo_blk,
				  .hi_blk = hi_blk,
				  .write = write,
				  .whole = h->whole,
				  .take = take,
				  .arg = &g };

	return fs_grant(h->fs, &grant);
}

/* One that is kept, and that nobody has any more; 0: there is none. */
static uint64_t kept_take(struct fake_holders *h)
{
	uint64_t blk = 0;

	pthread_mutex_lock(&h->lock);
	for (unsigned i = 0; i < h->kept_count && !blk; i++) {
		if (has_block(h, h->kept[i]))
			continue;
		blk = h->kept[i];
		h->kept[i] = h->kept[--h->kept_count];
	}
	pthread_mutex_unlock(&h->lock);
	return blk;
}

void fake_release(struct fake_holders *h, uint64_t ino, uint64_t lo_blk, uint64_t hi_blk)
{
	uint64_t blk;

	pthread_mutex_lock(&h->lock);
	for (unsigned i = 0; cut(h, ino, lo_blk, hi_blk, i, &i);)
		h->shadows[i] = h->shadows[--h->count];
	pthread_mutex_unlock(&h->lock);
	while ((blk = kept_take(h)) != 0)
		space_release(fs_pool(h->fs), blk, 1);
}

uint64_t fake_held_blk(struct fake_holders *h, uint64_t ino, uint64_t lo_blk, uint64_t hi_blk, bool write)
{
	uint64_t sum = 0;

	pthread_mutex_lock(&h->lock);
	for (unsigned i = 0; i < h->count; i++) {
		const struct fake_shadow *s = &h->shadows[i];

		if (overlaps(s, ino, lo_blk, hi_blk) && (!write || s->flags & FS_PIECE_WRITE))
			sum += u64_min(s->file_blk + s->count_blk, hi_blk) - u64_max(s->file_blk, lo_blk);
	}
	pthread_mutex_unlock(&h->lock);
	return sum;
}

/* The extents of a file agree with it. */
static void shadow_check(struct fake_holders *h, const struct fake_shadow *s)
{
	uint64_t blk = s->file_blk, end = s->file_blk + s->count_blk;

	while (blk < end) {
		struct fs_extent e;
		int count = fs_map(h->fs, s->ino, blk << BLOCK_SHIFT, &e, 1);
		bool hole = count == 0 || e.file_off >> BLOCK_SHIFT >= end ||
			    (e.flags & FS_EXTENT_UNWRITTEN && e.file_off >> BLOCK_SHIFT <= blk);

		assert_true(count >= 0);
		if (s->flags & FS_PIECE_HOLE) {
			if (count == 0 || e.file_off >> BLOCK_SHIFT >= end)
				return;
			assert_true(e.flags & FS_EXTENT_UNWRITTEN);
			blk = (e.file_off + e.len) >> BLOCK_SHIFT;
			continue;
		}
		assert_true(!hole || s->flags & FS_PIECE_PAST);
		assert_true(e.file_off >> BLOCK_SHIFT <= blk);
		assert_int_equal((e.dev_off >> BLOCK_SHIFT) + (blk - (e.file_off >> BLOCK_SHIFT)),
				 s->dev_blk + (blk - s->file_blk));
		assert_true(e.owners == 1 || !(s->flags & FS_PIECE_WRITE));
		blk = (e.file_off + e.len) >> BLOCK_SHIFT;
	}
}

void fake_check(struct fake_holders *h)
{
	for (unsigned i = 0; i < h->count; i++) {
		if (!h->shadows[i].lost)
			shadow_check(h, &h->shadows[i]);
	}
}
