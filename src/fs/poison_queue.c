/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad memory that was met, until somebody without locks sees to it. Each place once, in order of its address; one place may be in work.
 *
 * Metadata. What could not be helped (no space) stays in the list and is tried again when it is met again, but not at once: each
 * try keeps everybody out for a moment, and meets the place itself.
 *
 * Blocks of files that could not be helped: nobody may meet them again before they can be. They are tried again
 *	- when one of their files lets go of them, at once;
 *	- for want of space, when something has become free. If then there is none for one of them there is none for the others, and nobody tries before
 *	  something becomes free again: a full pool with many of them costs one try. Records have room or not group by group, and so it is then.
 *	  Where others take all that becomes free, it is tried less and less often. Now and then it is all the same, should that rule ever be wrong;
 *	- for anything else (a damaged file) after a time, which gets longer.
 *
 * The list is in DRAM; that these are bad is on media as well (poison_stay.c), if there was any room to write it down. Where there was not, the next mount has it
 * from the device, or learns anew from who meets them. Those on media that the list has no room for are looked for when it has room again.
 *
 * A round goes through the list once and gives poison_lock away between any two places.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fs/poison.h"
#include "util/log.h"
#include "util/sabotage.h"

#define AGAIN_MS 10000u
#define AGAIN_DOUBLE_MAX 6u
#define VAIN_MS 20u /* from one time in vain to the next */
#define VAIN_DOUBLE_MAX 6u
#define FULL_MS 60000u /* so long no space is believed to be none */

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- the list, under work_lock ---- */

/* The first one at blk or behind it. */
static unsigned place_index(const struct fs *fs, uint64_t blk)
{
	unsigned lo = 0, hi = fs->bad_count;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;

		if (fs->bad[mid].dev_off >> BLOCK_SHIFT < blk)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* NULL: it is not in the list. */
static struct bad_place *place_of(struct fs *fs, uint64_t blk)
{
	unsigned i = place_index(fs, blk);

	return i < fs->bad_count && fs->bad[i].dev_off >> BLOCK_SHIFT == blk ? &fs->bad[i] : NULL;
}

static void place_remove(struct fs *fs, struct bad_place *place)
{
	struct bad_place *end = fs->bad + fs->bad_count--;

	if (place->for_space)
		atomic_fetch_sub(&fs->bad_waiting, 1);
	memmove(place, place + 1, (size_t)(end - (place + 1)) * sizeof(*place));
}

static bool place_room(struct fs *fs)
{
	unsigned room = fs->bad_room ? 2 * fs->bad_room : 16;
	struct bad_place *more;

	if (fs->bad_count < fs->bad_room)
		return true;
	more = room <= BAD_PLACES_MAX ? realloc(fs->bad, room * sizeof(*more)) : NULL;
	if (!more)
		return false;
	fs->bad = more;
	fs->bad_room = room;
	return true;
}

/* A new entry; NULL: there is no room. */
static struct bad_place *place_add(struct fs *fs, uint64_t dev_off)
{
	struct bad_place *place;
	unsigned i;

	if (!place_room(fs))
		return NULL;
	i = place_index(fs, dev_off >> BLOCK_SHIFT);
	place = &fs->bad[i];
	memmove(place + 1, place, (fs->bad_count++ - i) * sizeof(*place));
	*place = (struct bad_place){ .dev_off = dev_off };
	return place;
}

/*
 * A new entry, if need be in the place of one that is met again, or looked for again; NULL: there is no such one. any: even of data that only this list
 * knows of.
 */
static struct bad_place *place_add_for(struct fs *fs, uint64_t dev_off, bool any)
{
	struct bad_place *place = place_add(fs, dev_off);

	for (unsigned i = 0; i < fs->bad_count && !place; i++) {
		const struct bad_place *old = &fs->bad[i];

		if (old->in_work || (old->data ? !old->on_media && !any : old->due))
			continue;
		fs->bad_over |= old->data;
		place_remove(fs, &fs->bad[i]);
		place = place_add(fs, dev_off);
	}
	return place;
}

static void wait_for_space(struct fs *fs, struct bad_place *place, bool wait)
{
	if (wait && !place->for_space)
		atomic_fetch_add(&fs->bad_waiting, 1);
	if (!wait && place->for_space)
		atomic_fetch_sub(&fs->bad_waiting, 1);
	place->for_space = wait;
}

static void worker_tell(struct fs *fs)
{
	fs->bad_new = true;
	work_wake(fs);
}

static void due_tell(struct fs *fs)
{
	fs->bad_added = true;
	worker_tell(fs);
}

/* ---- what is met, left, let go of ---- */

void poison_note(struct fs *fs, uint64_t dev_off)
{
	struct bad_place *place;

	if (fs->opts.readonly || sabotage_point("poison-note"))
		return;
	pthread_mutex_lock(&fs->work_lock);
	place = place_of(fs, dev_off >> BLOCK_SHIFT);
	if (place) {
		place->due |= !place->in_work;
	} else {
		place = place_add_for(fs, dev_off, false);
		if (!place)
			place = place_add_for(fs, dev_off, true);
		if (place) {
			place->due = true;
			due_tell(fs);
		}
	}
	pthread_mutex_unlock(&fs->work_lock);
}

bool poison_keep(struct fs *fs, uint64_t dev_off, const struct poison_left *left)
{
	struct bad_place *place;
	bool is_new = false, first = false;

	pthread_mutex_lock(&fs->work_lock);
	place = place_of(fs, dev_off >> BLOCK_SHIFT);
	if (place && left->found)
		goto out;
	if (!place) {
		place = left->on_media ? place_add(fs, dev_off) : place_add_for(fs, dev_off, false);
		is_new = place != NULL;
		if (place)
			place->not_before_ms = left->in_vain ? UINT64_MAX : now_ms() + AGAIN_MS;
	}
	if (place) {
		place->data = true;
		place->clear |= left->clear;
		place->on_media = left->on_media;
		wait_for_space(fs, place, left->for_space);
	} else {
		first = !fs->bad_over;
		fs->bad_over = true;
	}
out:
	pthread_mutex_unlock(&fs->work_lock);
	if (first)
		log_warn(
			"bad memory at 0x%" PRIx64
			" of the pool: there are too many such places to keep all of them in mind, or to name each",
			dev_off);
	return is_new;
}

bool poison_is_kept(struct fs *fs, uint64_t blk)
{
	const struct bad_place *place;
	bool kept;

	pthread_mutex_lock(&fs->work_lock);
	place = place_of(fs, blk);
	kept = place && place->data;
	pthread_mutex_unlock(&fs->work_lock);
	return kept;
}

void poison_let_go(struct fs *fs, uint64_t blk, uint64_t count_blk)
{
	bool any = false;

	pthread_mutex_lock(&fs->work_lock);
	for (unsigned i = place_index(fs, blk);
	     i < fs->bad_count && (fs->bad[i].dev_off >> BLOCK_SHIFT) - blk < count_blk; i++) {
		if (!fs->bad[i].data)
			continue;
		fs->bad[i].due = true;
		any |= !fs->bad[i].in_work;
	}
	if (any)
		due_tell(fs);
	pthread_mutex_unlock(&fs->work_lock);
}

void poison_no_block(struct fs *fs, uint64_t freed)
{
	pthread_mutex_lock(&fs->work_lock);
	atomic_store(&fs->bad_full_at, freed);
	fs->bad_full_until_ms = now_ms() + FULL_MS;
	pthread_mutex_unlock(&fs->work_lock);
}

void poison_has_room(struct fs *fs)
{
	if (atomic_load_explicit(&fs->bad_waiting, memory_order_relaxed) == 0 ||
	    atomic_load(&fs->bad_full_at) == space_freed(fs->pool))
		return;
	pthread_mutex_lock(&fs->work_lock);
	if (!fs->bad_new && now_ms() >= fs->bad_vain_until_ms)
		worker_tell(fs);
	pthread_mutex_unlock(&fs->work_lock);
}

static void note(void *arg, uint64_t dev_off)
{
	poison_note(arg, dev_off);
}

void poison_listen(struct fs *fs, bool listen)
{
	pool_on_bad(fs->pool, listen ? note : NULL, fs);
}

/* ---- a round ---- */

struct round {
	enum poison_when when;
	uint32_t number;
	uint64_t next_blk;
	uint64_t freed;    /* when it began */
	uint64_t short_at; /* freed, when there was no room for records in group short_agno */
	uint32_t short_agno;
	bool is_short;
	bool vain, helped; /* for space: one has been tried in vain, one with success */
};

/* Under work_lock. Nothing says that it would be in vain. */
static bool space_may_be(struct fs *fs, const struct round *r, const struct bad_place *place, uint64_t now)
{
	uint64_t freed = space_freed(fs->pool);

	if (r->is_short && r->short_at == freed &&
	    pool_blk_ag(fs->pool, place->dev_off >> BLOCK_SHIFT) == r->short_agno)
		return false;
	if (atomic_load(&fs->bad_full_at) == freed && now < fs->bad_full_until_ms &&
	    !sabotage_point("round-full"))
		return false;
	return r->when != POISON_DUE || now >= fs->bad_vain_until_ms || r->helped;
}

static bool place_is_due(struct fs *fs, const struct round *r, const struct bad_place *place, uint64_t now)
{
	bool is_time = place->not_before_ms <= now;

	if (place->in_work || place->round == r->number)
		return false;
	if (!place->data)
		return place->due && (is_time || r->when != POISON_DUE);
	if (place->due)
		return true;
	if (place->for_space)
		return space_may_be(fs, r, place, now);
	return is_time || r->when == POISON_ALL || (r->when == POISON_LAST && !place->on_media);
}

/* The next one of this round. False: there is none. */
static bool place_take(struct fs *fs, struct round *r, struct bad_place *taken)
{
	uint64_t now = now_ms();
	bool found = false;

	pthread_mutex_lock(&fs->work_lock);
	do {
		if (fs->bad_added)
			r->next_blk = 0;
		fs->bad_added = false;
		for (unsigned i = place_index(fs, r->next_blk); i < fs->bad_count && !found; i++) {
			struct bad_place *place = &fs->bad[i];

			if (!place_is_due(fs, r, place, now))
				continue;
			place->due = false;
			place->in_work = true;
			place->round = r->number;
			r->next_blk = (place->dev_off >> BLOCK_SHIFT) + 1;
			*taken = *place;
			found = true;
		}
	} while (!found && fs->bad_added);
	pthread_mutex_unlock(&fs->work_lock);
	return found;
}

/* What was left has been kept (poison_keep()), if it is data. */
static void place_done(struct fs *fs, struct round *r, const struct bad_place *taken, uint64_t freed, int rc)
{
	uint64_t blk = taken->dev_off >> BLOCK_SHIFT;
	struct bad_place *place;

	pthread_mutex_lock(&fs->work_lock);
	place = place_of(fs, blk);
	place->in_work = false;
	if (place->for_space && rc != 0) {
		r->vain = true;
		if (atomic_load(&fs->bad_full_at) != freed) {
			r->is_short = true;
			r->short_agno = pool_blk_ag(fs->pool, blk);
			r->short_at = freed;
		}
	}
	place->not_before_ms = now_ms() + (AGAIN_MS << place->tries);
	if (place->data && place->tries < AGAIN_DOUBLE_MAX)
		place->tries++;
	if (rc == 0) {
		r->helped |= place->for_space;
		place_remove(fs, place);
	} else if (place->due) { /* meanwhile: in another round */
		worker_tell(fs);
	}
	pthread_mutex_unlock(&fs->work_lock);
}

static void round_end(struct fs *fs, const struct round *r)
{
	pthread_mutex_lock(&fs->work_lock);
	if (r->is_short) {
		atomic_store(&fs->bad_full_at, r->freed);
		fs->bad_full_until_ms = now_ms() + FULL_MS;
	}
	if (r->helped)
		fs->bad_vain = 0;
	else if (r->vain && fs->bad_vain < VAIN_DOUBLE_MAX)
		fs->bad_vain++;
	if (r->vain)
		fs->bad_vain_until_ms = now_ms() + (VAIN_MS << fs->bad_vain);
	pthread_mutex_unlock(&fs->work_lock);
}

/* How many could not be helped, when they have become many more or fewer; each of them has been named before, or is in a list of umbractl. */
static void kept_tell(struct fs *fs)
{
	uint64_t first_off = 0;
	unsigned count = 0;
	bool tell;

	pthread_mutex_lock(&fs->work_lock);
	for (unsigned i = fs->bad_count; i-- > 0;) {
		if (!fs->bad[i].data)
			continue;
		first_off = fs->bad[i].dev_off;
		count++;
	}
	tell = count != fs->bad_told &&
	       (count == 0 || count >= 2 * fs->bad_told || count <= fs->bad_told / 2);
	if (tell)
		fs->bad_told = count;
	pthread_mutex_unlock(&fs->work_lock);
	if (!tell)
		return;
	if (count > 0)
		log_warn("blocks in bad memory that cannot be left for now: %u, the first at 0x%" PRIx64
			 " of the pool (umbractl poison list)",
			 count, u64_align_down(first_off, BLOCK_SIZE));
	else
		log_info("no block in bad memory has to wait any more");
}

void poison_drain(struct fs *fs, enum poison_when when)
{
	struct round r = { .when = when, .freed = space_freed(fs->pool) };
	struct bad_place place;

	pthread_mutex_lock(&fs->work_lock);
	r.number = ++fs->bad_round;
	fs->bad_new = false;
	pthread_mutex_unlock(&fs->work_lock);
	while (!atomic_load(&fs->worker_stop) && place_take(fs, &r, &place)) {
		uint64_t freed = space_freed(fs->pool);
		int rc;

		poison_enter_last(fs);
		rc = poison_again(fs, place.dev_off, place.clear);
		/* Under the lock: whoever meets it again and cannot help it finds the entry as it will be. */
		place_done(fs, &r, &place, freed, rc);
		poison_leave(fs);
	}
	round_end(fs, &r);
	kept_tell(fs);
}

bool poison_list_has_room(struct fs *fs)
{
	bool has;

	pthread_mutex_lock(&fs->work_lock);
	has = fs->bad_over && fs->bad_count < BAD_PLACES_MAX / 2 && !sabotage_point("list-over");
	if (has)
		fs->bad_over = false;
	pthread_mutex_unlock(&fs->work_lock);
	return has;
}
