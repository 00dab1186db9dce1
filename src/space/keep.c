/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Quarantine: blocks that are free on media, while somebody still holds them. They are given to nobody until he lets go.
 *
 * In DRAM only: the index has them as taken, and a bit in g->kept says why. Whether they are held is asked, and the bit set, under one hold of g->lock, so that who lets
 * go a moment later finds the bit. In a closed range (close.c) the bitmap alone says what is free: there they may get an owner (OWNER_BAD), and
 * it is asked again when the range is opened.
 */
#include <stdlib.h>
#include <string.h>

#include "space/bits.h"
#include "space/priv.h"
#include "util/sabotage.h"

void space_set_keep(struct pool *pool, space_keep_fn fn, void *arg)
{
	struct space *space = space_of(pool);

	if (fn)
		space->keep_arg = arg;
	atomic_store(&space->keep_fn, fn);
	/* Whoever is in the old one has a group's lock. */
	for (uint32_t i = 0; i < space->ag_count; i++) {
		pthread_mutex_lock(&space->groups[i].lock);
		pthread_mutex_unlock(&space->groups[i].lock);
	}
}

/* ---- the bits, under g->lock ---- */

/* The group may have grown. */
static bool kept_room(struct group *g, uint32_t chunks)
{
	uint64_t(*more)[CHUNK_WORDS];

	if (chunks <= g->kept_chunks)
		return true;
	chunks = g->chunks;
	more = realloc(g->kept, chunks * sizeof(*more));
	if (!more)
		return false;
	memset(more + g->kept_chunks, 0, (chunks - g->kept_chunks) * sizeof(*more));
	g->kept = more;
	g->kept_chunks = chunks;
	return true;
}

/* The part of [lo, hi) in lo's chunk. */
static unsigned part_of(uint64_t lo, uint64_t hi)
{
	return (unsigned)u64_min(hi - lo, CHUNK_BLOCKS - lo % CHUNK_BLOCKS);
}

static void kept_set(struct group *g, uint64_t lo, uint64_t hi)
{
	if (!kept_room(g, (uint32_t)u64_div_up(hi, CHUNK_BLOCKS)))
		return; /* nobody can let go of them: not used until the next mount */
	for (unsigned n; lo < hi; lo += n) {
		n = part_of(lo, hi);
		g->kept_blk += bits_set(g->kept[lo / CHUNK_BLOCKS], lo % CHUNK_BLOCKS, n);
	}
}

static void kept_clear(struct group *g, uint64_t lo, uint64_t hi)
{
	for (unsigned n; lo < hi && lo / CHUNK_BLOCKS < g->kept_chunks; lo += n) {
		n = part_of(lo, hi);
		g->kept_blk -= bits_clear(g->kept[lo / CHUNK_BLOCKS], lo % CHUNK_BLOCKS, n);
	}
}

bool kept_any(const struct group *g, uint64_t lo, uint64_t hi)
{
	for (unsigned n; lo < hi && lo / CHUNK_BLOCKS < g->kept_chunks; lo += n) {
		n = part_of(lo, hi);
		if (bits_count(g->kept[lo / CHUNK_BLOCKS], lo % CHUNK_BLOCKS, n) > 0)
			return true;
	}
	return false;
}

/* ---- what becomes free ---- */

uint64_t kept_run(struct group *g, uint64_t lo, uint64_t hi, bool *kept)
{
	space_keep_fn fn = atomic_load(&g->space->keep_fn);
	uint64_t count_blk = hi - lo;

	*kept = false;
	if (fn && !sabotage_point("keep")) {
		uint64_t run = fn(g->space->keep_arg, g->start_blk + lo, count_blk, kept);

		count_blk = run > 0 ? u64_min(run, count_blk) : count_blk;
	}
	if (*kept)
		kept_set(g, lo, lo + count_blk);
	else
		kept_clear(g, lo, lo + count_blk);
	return count_blk;
}

void group_give_freed(struct group *g, uint64_t blk, uint64_t count_blk)
{
	uint64_t lo = blk - g->start_blk, hi = lo + count_blk;
	uint32_t whole = 0;

	if (!atomic_load_explicit(&g->space->keep_fn, memory_order_relaxed)) {
		group_give(g, blk, count_blk);
		return;
	}
	pthread_mutex_lock(&g->lock);
	for (uint64_t n; lo < hi; lo += n) {
		bool kept;

		n = kept_run(g, lo, hi, &kept);
		if (!kept)
			whole += group_give_locked(g, lo, lo + n);
	}
	pthread_mutex_unlock(&g->lock);
	if (whole)
		atomic_fetch_add(&g->space->chunk_epoch, whole);
}

/* ---- what is let go ---- */

/* Of one chunk. */
static uint32_t part_release(struct group *g, uint64_t lo, unsigned count)
{
	uint64_t *bits = g->kept[lo / CHUNK_BLOCKS], start = u64_align_down(lo, CHUNK_BLOCKS);
	unsigned at = lo % CHUNK_BLOCKS, end = at + count;
	uint32_t whole = 0;

	while ((at += bits_clear_run(bits, at, end)) < end) {
		unsigned first = at;

		while (at < end && bits[at / 64] >> at % 64 & 1)
			at++;
		g->kept_blk -= bits_clear(bits, first, at - first);
		whole += group_give_locked(g, start + first, start + at);
	}
	return whole;
}

static void group_release(struct group *g, uint64_t lo, uint64_t hi)
{
	uint64_t kept_blk;
	uint32_t whole = 0;

	pthread_mutex_lock(&g->lock);
	kept_blk = g->kept_blk;
	for (unsigned n; lo < hi && lo / CHUNK_BLOCKS < g->kept_chunks; lo += n) {
		n = part_of(lo, hi);
		whole += part_release(g, lo, n);
	}
	kept_blk -= g->kept_blk;
	pthread_mutex_unlock(&g->lock);
	if (kept_blk > 0)
		atomic_fetch_add(&g->space->freed, 1);
	if (whole)
		atomic_fetch_add(&g->space->chunk_epoch, whole);
}

void space_release(struct pool *pool, uint64_t blk, uint64_t count_blk)
{
	struct space *space = space_of(pool);

	if (!space)
		return;
	pool_hold(pool); /* groups stay as long as they are */
	for (uint32_t i = 0; i < space->ag_count; i++) {
		struct group *g = &space->groups[i];
		uint64_t lo = u64_max(blk, g->start_blk),
			 hi = u64_min(blk + count_blk, g->start_blk + g->length_blk);

		if (lo < hi)
			group_release(g, lo - g->start_blk, hi - g->start_blk);
	}
	pool_release(pool);
}

/* ---- what gets an owner all the same ---- */

struct owned {
	struct group *g;
	uint64_t lo, hi;
};

static void owned_end(void *arg, bool committed)
{
	struct owned *o = arg;

	if (!committed || sabotage_point("kept-owned"))
		return;
	pthread_mutex_lock(&o->g->lock);
	kept_clear(o->g, o->lo, o->hi);
	pthread_mutex_unlock(&o->g->lock);
}

void kept_owned(struct group_tx *at, uint64_t blk, uint64_t count_blk)
{
	struct owned *o = txn_alloc(at->tx, sizeof(*o));
	uint64_t lo = blk - at->g->start_blk;

	*o = (struct owned){ at->g, lo, lo + count_blk };
	txn_on_end(at->tx, owned_end, o);
}
