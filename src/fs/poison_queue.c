/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad memory under metadata that was met, until somebody without locks sees to it.
 *
 * Each place once. What could not be helped (no space) stays in the list and is tried again when it is met again, but not at once: each
 * try keeps everybody out for a moment, and meets the place itself.
 *
 * Blocks of files that could not be helped are kept here too: nobody may meet them again before they can be. The list is in DRAM; that these are bad is on
 * media as well (poison_stay.c), if there was any room to write it down. Where there was not, the next mount has it from the device, or learns anew from who
 * meets them.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include "fs/poison.h"
#include "util/log.h"
#include "util/sabotage.h"

#define AGAIN_MS 10000u

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Under work_lock, as the next one. NULL: it is not in the list. */
static struct bad_place *place_of(struct fs *fs, uint64_t blk)
{
	for (unsigned i = 0; i < fs->bad_count; i++) {
		if (fs->bad[i].dev_off >> BLOCK_SHIFT == blk)
			return &fs->bad[i];
	}
	return NULL;
}

/* A new entry at the end; NULL: there is no room. */
static struct bad_place *place_more(struct fs *fs)
{
	if (fs->bad_count == fs->bad_room) {
		unsigned room = fs->bad_room ? 2 * fs->bad_room : 16;
		struct bad_place *more = room <= BAD_PLACES_MAX ? realloc(fs->bad, room * sizeof(*more)) :
								  NULL;

		if (!more)
			return NULL;
		fs->bad = more;
		fs->bad_room = room;
	}
	return &fs->bad[fs->bad_count++];
}

/* A new entry; NULL: all are waiting. */
static struct bad_place *place_add(struct fs *fs)
{
	struct bad_place *place = place_more(fs);

	if (place)
		return place;
	for (unsigned i = 0; i < fs->bad_count; i++) {
		if ((!fs->bad[i].met || fs->bad[i].data) && !fs->bad[i].in_work)
			return &fs->bad[i];
	}
	return NULL;
}

void poison_note(struct fs *fs, uint64_t dev_off)
{
	struct bad_place *place;

	if (fs->opts.readonly || sabotage_point("poison-note"))
		return;
	pthread_mutex_lock(&fs->work_lock);
	place = place_of(fs, dev_off >> BLOCK_SHIFT);
	if (place) {
		place->met |= !place->in_work;
	} else {
		place = place_add(fs);
		if (place) {
			*place = (struct bad_place){ .dev_off = dev_off, .met = true };
			fs->bad_new = true;
			work_wake(fs);
		}
	}
	pthread_mutex_unlock(&fs->work_lock);
}

/* The log is to name a place once, however many there are. True: it has not been in the list. */
static bool keep(struct fs *fs, uint64_t dev_off, bool clear, bool again)
{
	struct bad_place *place;
	bool is_new = false, is_full = false;

	pthread_mutex_lock(&fs->work_lock);
	place = place_of(fs, dev_off >> BLOCK_SHIFT);
	if (!place) {
		place = place_more(fs);
		is_new = place != NULL;
		is_full = !place && !fs->bad_full;
		fs->bad_full = !place;
	}
	if (is_new)
		*place = (struct bad_place){ .dev_off = dev_off, .not_before_ms = now_ms() + AGAIN_MS };
	if (place) {
		place->data = true;
		place->clear |= clear;
		place->met |= again && !place->in_work;
	}
	pthread_mutex_unlock(&fs->work_lock);
	if (is_full)
		log_warn("bad memory at 0x%" PRIx64
			 " of the pool: there are too many such places to keep in mind, or to name each",
			 dev_off);
	return is_new;
}

bool poison_keep(struct fs *fs, uint64_t dev_off, bool clear)
{
	return keep(fs, dev_off, clear, true);
}

bool poison_keep_readonly(struct fs *fs, uint64_t dev_off)
{
	return keep(fs, dev_off, false, false);
}

bool poison_is_kept(struct fs *fs, uint64_t dev_off)
{
	const struct bad_place *place;
	bool kept;

	pthread_mutex_lock(&fs->work_lock);
	place = place_of(fs, dev_off >> BLOCK_SHIFT);
	kept = place && place->data;
	pthread_mutex_unlock(&fs->work_lock);
	return kept;
}

void poison_freed(struct fs *fs)
{
	bool any = false;

	pthread_mutex_lock(&fs->work_lock);
	for (unsigned i = 0; i < fs->bad_count; i++) {
		if (fs->bad[i].data)
			fs->bad[i].not_before_ms = 0;
		any |= fs->bad[i].data;
	}
	pthread_mutex_unlock(&fs->work_lock);
	if (any)
		poison_drain(fs, false);
}

static void note(void *arg, uint64_t dev_off)
{
	poison_note(arg, dev_off);
}

void poison_listen(struct fs *fs, bool listen)
{
	pool_on_bad(fs->pool, listen ? note : NULL, fs);
}

/* The next one of this round. False: there is none. */
static bool place_take(struct fs *fs, uint32_t round, bool at_once, struct bad_place *taken)
{
	uint64_t now = now_ms();
	bool found = false;

	pthread_mutex_lock(&fs->work_lock);
	fs->bad_new = false;
	for (unsigned i = 0; i < fs->bad_count && !found; i++) {
		struct bad_place *place = &fs->bad[i];

		if (!place->met || place->round == round || (!at_once && place->not_before_ms > now))
			continue;
		place->met = false;
		place->in_work = true;
		place->round = round;
		*taken = *place;
		found = true;
	}
	pthread_mutex_unlock(&fs->work_lock);
	return found;
}

static void place_done(struct fs *fs, uint64_t dev_off, bool again)
{
	struct bad_place *place;

	pthread_mutex_lock(&fs->work_lock);
	place = place_of(fs, dev_off >> BLOCK_SHIFT);
	place->in_work = false;
	place->not_before_ms = now_ms() + AGAIN_MS;
	place->met |= place->data;
	if (!again)
		*place = fs->bad[--fs->bad_count];
	pthread_mutex_unlock(&fs->work_lock);
}

/* How many could not be helped; each of them has been named before, or is in a list of umbractl. */
static void kept_tell(struct fs *fs)
{
	uint64_t first_off = 0;
	unsigned count = 0, before;

	pthread_mutex_lock(&fs->work_lock);
	for (unsigned i = 0; i < fs->bad_count; i++) {
		if (!fs->bad[i].data)
			continue;
		if (count++ == 0 || fs->bad[i].dev_off < first_off)
			first_off = fs->bad[i].dev_off;
	}
	before = fs->bad_told;
	fs->bad_told = count;
	pthread_mutex_unlock(&fs->work_lock);
	if (count == before)
		return;
	if (count > 0)
		log_warn("blocks in bad memory that cannot be left for now: %u, the first at 0x%" PRIx64
			 " of the pool (umbractl poison list)",
			 count, u64_align_down(first_off, BLOCK_SIZE));
	else
		log_info("no block in bad memory has to wait any more");
}

void poison_drain(struct fs *fs, bool at_once)
{
	struct bad_place place;
	uint32_t round;

	pthread_mutex_lock(&fs->poison_lock);
	round = ++fs->bad_round;
	while (place_take(fs, round, at_once, &place))
		place_done(fs, place.dev_off, poison_again(fs, place.dev_off, place.clear) != 0);
	kept_tell(fs);
	pthread_mutex_unlock(&fs->poison_lock);
}
