/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Windows: runs of blocks set aside in DRAM for a range of a file.
 *
 * A window maps file blocks [file_blk, + count) to device blocks [blk, + count), so block k of the range gets place k whenever it is
 * written: slow appends stay in one piece, and so does a clone that is overwritten here and there.
 *
 * How large: 16 blocks at first; twice the last one when the file goes on where that ended; and larger the more windows a
 * stream has opened, up to a whole chunk that lies as the file does (2 MiB aligned). Never more than a sixteenth of what is free in
 * the group.
 *
 * windows.lock covers everything here but a stream's pointer, which its inode's lock covers. Any thread may take a window away
 * from its stream. A window is freed when it belongs to no stream and no transaction holds blocks of it (pins).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "space/bits.h"
#include "space/priv.h"

#define WINDOW_MIN_BLK 16u
#define WINDOW_LARGE_BLK 128u /* a request like this gets a whole chunk for its surroundings */
#define STREAM_WINDOWS_MAX 1024u
#define WINDOWS_MAX 8192u /* of the pool: bounds memory */
#define STEAL_BATCH 16u

struct window {
	struct stream *stream; /* NULL: taken away */
	struct group *g;
	uint64_t file_blk, blk;
	uint32_t count_blk;
	uint32_t size_blk; /* what it would be if nothing had been in the way */
	uint32_t unused_blk;
	uint32_t pins;
	uint64_t stamp;               /* of the last use */
	uint64_t unused[CHUNK_WORDS]; /* bit k: block k is still to be handed out */
	struct cds_list_head lru;
};

struct stream {
	struct space *space;
	struct window **windows; /* by file_blk; they do not overlap */
	uint32_t count, room;
	uint32_t opened;                  /* other than those that went on where one ended */
	uint32_t next_size_blk;           /* of the window after the block used last */
	uint64_t next_file_blk, next_blk; /* after the block used last, in the file and on the device */
	uint64_t clock;
};

struct grab {
	struct group *g;
	struct window *window;
	uint64_t blk, count_blk;
};

void windows_init(struct space *space)
{
	pthread_mutex_init(&space->windows.lock, NULL);
	CDS_INIT_LIST_HEAD(&space->windows.lru);
}

/* ---- all under windows.lock ---- */

/* Index of the first window that ends after file_blk. */
static uint32_t stream_find(const struct stream *s, uint64_t file_blk)
{
	uint32_t lo = 0, hi = s->count;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		const struct window *w = s->windows[mid];

		if (w->file_blk + w->count_blk <= file_blk)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static void window_unpin(struct window *w)
{
	if (w->pins == 0 && !w->stream)
		free(w);
}

static void window_kill(struct window *w)
{
	struct windows *all = &w->g->space->windows;
	struct stream *s = w->stream;
	uint32_t i = stream_find(s, w->file_blk);

	assert(s->windows[i] == w);
	memmove(&s->windows[i], &s->windows[i + 1], (s->count - i - 1) * sizeof(*s->windows));
	s->count--;
	all->count--;
	all->free_blk -= w->unused_blk;
	cds_list_del(&w->lru);
	for (unsigned k = 0; k < w->count_blk;) {
		unsigned taken = bits_clear_run(w->unused, k, w->count_blk), free = 0;

		k += taken;
		while (k + free < w->count_blk && (w->unused[(k + free) / 64] >> (k + free) % 64 & 1))
			free++;
		if (free > 0)
			group_give(w->g, w->blk + k, free);
		k += free;
	}
	w->stream = NULL;
	window_unpin(w);
}

static void stream_evict(struct stream *s)
{
	struct window *oldest = s->windows[0];

	for (uint32_t i = 1; i < s->count; i++) {
		if (s->windows[i]->stamp < oldest->stamp)
			oldest = s->windows[i];
	}
	window_kill(oldest);
}

static void stream_passed(struct stream *s, uint64_t file_blk, uint64_t blk, uint64_t count_blk,
			  uint32_t size_blk)
{
	s->next_file_blk = file_blk + count_blk;
	s->next_blk = blk + count_blk;
	s->next_size_blk = size_blk;
}

/* Blocks of a window for want; 0: the one at file_blk has been handed out before. */
static uint64_t window_take(struct window *w, const struct space_want *want, uint64_t *blk)
{
	struct windows *all = &w->g->space->windows;
	unsigned k = (unsigned)(want->file_blk - w->file_blk), n = 0;
	unsigned max = (unsigned)u64_min(want->count_blk, w->count_blk - k);

	while (n < max && (w->unused[(k + n) / 64] >> (k + n) % 64 & 1))
		n++;
	if (n == 0)
		return 0;
	bits_clear(w->unused, k, n);
	w->unused_blk -= n;
	all->free_blk -= n;
	w->pins++;
	w->stamp = ++w->stream->clock;
	cds_list_del(&w->lru);
	cds_list_add_tail(&w->lru, &all->lru);
	*blk = w->blk + k;
	stream_passed(w->stream, want->file_blk, *blk, n, w->size_blk);
	return n;
}

/* ---- claims of transactions ---- */

static void grab_return(struct grab *grab)
{
	struct window *w = grab->window;

	if (!w || !w->stream) {
		group_give(grab->g, grab->blk, grab->count_blk);
		return;
	}
	bits_set(w->unused, (unsigned)(grab->blk - w->blk), (unsigned)grab->count_blk);
	w->unused_blk += (uint32_t)grab->count_blk;
	w->g->space->windows.free_blk += grab->count_blk;
}

static void grab_end(void *arg, bool committed)
{
	struct grab *grab = arg;
	struct windows *all = &grab->g->space->windows;
	struct window *w = grab->window;

	if (committed && !w)
		return;
	pthread_mutex_lock(&all->lock);
	if (!committed)
		grab_return(grab);
	if (w) {
		w->pins--;
		if (w->stream && w->pins == 0 && w->unused_blk == 0)
			window_kill(w); /* used up */
		else
			window_unpin(w);
	}
	pthread_mutex_unlock(&all->lock);
}

void grab_add(struct txn *tx, struct group *g, uint64_t blk, uint64_t count_blk, struct window *window)
{
	struct grab *grab = txn_alloc(tx, sizeof(*grab));

	*grab = (struct grab){ .g = g, .window = window, .blk = blk, .count_blk = count_blk };
	txn_on_end(tx, grab_end, grab);
}

/* ---- opening windows ---- */

struct plan {
	uint64_t file_blk, end_blk; /* of the window */
	uint64_t goal_blk;          /* 0: none */
	uint32_t size_blk;
	bool goes_on; /* from file_blk at goal_blk: nothing before it is wanted */
};

static uint32_t plan_size(const struct stream *s, const struct space_want *want)
{
	uint32_t size = WINDOW_MIN_BLK;

	if (want->count_blk >= WINDOW_LARGE_BLK)
		return CHUNK_BLOCKS;
	if (s->next_size_blk != 0 && want->file_blk == s->next_file_blk)
		size = 2 * s->next_size_blk;
	else
		size <<= s->opened / 2 < 5 ? s->opened / 2 : 5;
	while (size < want->count_blk)
		size *= 2;
	return size < CHUNK_BLOCKS ? size : CHUNK_BLOCKS;
}

/* The range of the file for a window of p->size_blk, between the windows that are there. Under windows.lock. */
static void plan_range(const struct stream *s, const struct space_want *want, struct plan *p)
{
	uint32_t i = stream_find(s, want->file_blk);

	p->file_blk = u64_align_down(want->file_blk, p->size_blk);
	p->end_blk = p->file_blk + p->size_blk;
	if (p->goes_on)
		p->file_blk = want->file_blk;
	if (i > 0)
		p->file_blk =
			u64_max(p->file_blk, s->windows[i - 1]->file_blk + s->windows[i - 1]->count_blk);
	if (i < s->count)
		p->end_blk = u64_min(p->end_blk, s->windows[i]->file_blk);
}

/* Blocks for a window of p->size_blk from one group; false: none, or too few for what is wanted. */
static bool plan_alloc(struct stream *s, struct group *g, const struct space_want *want, struct plan *p,
		       uint64_t *blk)
{
	struct index_want w = { .goal_blk = INDEX_NONE, .all = true };
	bool has_goal = p->goal_blk > g->start_blk && p->goal_blk - g->start_blk < g->length_blk;
	bool congruent = (p->goal_blk - want->file_blk) % CHUNK_BLOCKS == 0;
	uint64_t count, run;

	/* A whole chunk lies as the file does; until then a file goes on where it ended. */
	p->goes_on = has_goal && (p->size_blk < CHUNK_BLOCKS || congruent);
	if (p->goes_on) {
		plan_range(s, want, p);
		count = p->end_blk - p->file_blk;
		run = group_alloc_at(g, p->goal_blk, u64_min(want->count_blk, count), count);
		if (run > 0) {
			p->end_blk = p->file_blk + run;
			*blk = p->goal_blk;
			return true;
		}
		p->goes_on = false;
	}
	plan_range(s, want, p);
	w.count_blk = count = p->end_blk - p->file_blk;
	if (has_goal)
		w.goal_blk = u64_min(u64_align_up(p->goal_blk, CHUNK_BLOCKS) - g->start_blk, g->length_blk);
	return group_alloc(g, &w, blk, &count);
}

/* What a window may have at most in this group; 0: none. */
static uint32_t group_window_max(struct group *g)
{
	uint64_t max;

	if (group_load(g) || !group_can_grow(g))
		return 0;
	pthread_mutex_lock(&g->lock);
	max = index_data_blk(&g->index) / 16;
	pthread_mutex_unlock(&g->lock);
	return max < WINDOW_MIN_BLK ? 0 : (uint32_t)u64_min(max, CHUNK_BLOCKS);
}

/* NULL: no memory; the blocks are still the caller's. */
static struct window *window_add(struct stream *s, struct group *g, const struct plan *p, uint64_t blk)
{
	struct windows *all = &s->space->windows;
	struct window *w = calloc(1, sizeof(*w));
	uint32_t i;

	if (w && s->count == s->room) {
		uint32_t room = s->room ? 2 * s->room : 4;
		struct window **more = realloc(s->windows, room * sizeof(struct window *));

		if (more) {
			s->windows = more;
			s->room = room;
		}
	}
	if (!w || s->count == s->room) {
		free(w);
		return NULL;
	}
	w->stream = s;
	w->g = g;
	w->file_blk = p->file_blk;
	w->blk = blk;
	w->count_blk = (uint32_t)(p->end_blk - p->file_blk);
	w->size_blk = p->size_blk;
	w->unused_blk = w->count_blk;
	bits_set(w->unused, 0, w->count_blk);
	i = stream_find(s, p->file_blk);
	memmove(&s->windows[i + 1], &s->windows[i], (s->count - i) * sizeof(*s->windows));
	s->windows[i] = w;
	s->count++;
	all->count++;
	all->free_blk += w->count_blk;
	cds_list_add_tail(&w->lru, &all->lru);
	return w;
}

/* Takes blocks for a window around want's, in the index only; false: there are not enough to do so. Called without windows.lock. */
static bool window_open(struct stream *s, const struct space_want *want, struct plan *p, struct group **g,
			uint64_t *blk)
{
	struct space *space = s->space;
	uint32_t size = p->size_blk;

	for (uint32_t i = 0; i < space->ag_count; i++) {
		uint32_t max;

		*g = want_group(space, want, p->goal_blk, i);
		max = group_window_max(*g);
		for (p->size_blk = size; p->size_blk >= WINDOW_MIN_BLK; p->size_blk /= 2) {
			bool found = false;

			pthread_mutex_lock(&space->windows.lock);
			if (p->size_blk <= max)
				found = plan_alloc(s, *g, want, p, blk);
			pthread_mutex_unlock(&space->windows.lock);
			if (found)
				return true;
		}
	}
	return false;
}

static struct stream *stream_of(struct space *space, const struct space_want *want)
{
	struct stream *s = want->stream->windows;

	if (!s) {
		s = calloc(1, sizeof(*s));
		if (s)
			s->space = space;
		want->stream->windows = s;
	}
	return s;
}

bool window_alloc(struct txn *tx, const struct space_want *want, uint64_t *blk, uint64_t *count_blk)
{
	struct space *space = space_of(txn_pool(tx));
	struct windows *all = &space->windows;
	struct stream *s = stream_of(space, want);
	struct plan p = { .goal_blk = want->goal_blk };
	struct window *w = NULL;
	struct group *g;
	uint64_t run_blk;
	uint32_t i;

	if (!s)
		return false;
	*count_blk = 0;
	pthread_mutex_lock(&all->lock);
	i = stream_find(s, want->file_blk);
	if (i < s->count && s->windows[i]->file_blk <= want->file_blk) {
		w = s->windows[i];
		*count_blk = window_take(w, want, blk);
		g = w->g;
		goto out;
	}
	p.size_blk = plan_size(s, want);
	if (p.goal_blk == 0 && s->next_size_blk != 0 && want->file_blk == s->next_file_blk)
		p.goal_blk = s->next_blk;
	if (p.goal_blk >= pool_size_blk(space->pool))
		p.goal_blk = 0;
	if (s->count >= STREAM_WINDOWS_MAX)
		stream_evict(s);
	pthread_mutex_unlock(&all->lock);
	if (want->count_blk >= CHUNK_BLOCKS && want->file_blk % CHUNK_BLOCKS == 0)
		return false; /* whole chunks need no window */
	if (all->count >= WINDOWS_MAX)
		window_steal(space);
	if (!window_open(s, want, &p, &g, &run_blk))
		return false;
	pthread_mutex_lock(&all->lock);
	if (want->file_blk != s->next_file_blk || s->next_size_blk == 0)
		s->opened++;
	w = window_add(s, g, &p, run_blk);
	if (w)
		*count_blk = window_take(w, want, blk);
	else
		group_give(g, run_blk, p.end_blk - p.file_blk);
out:
	pthread_mutex_unlock(&all->lock);
	if (*count_blk > 0)
		grab_add(tx, g, *blk, *count_blk, w);
	return *count_blk > 0;
}

/* ---- windows that are asked for ---- */

/* What is left of a chunk that others have nothing of. */
static bool chunk_take(struct group *g, uint64_t chunk_blk, const uint64_t have[CHUNK_WORDS])
{
	uint64_t at = chunk_blk - g->start_blk;
	bool free = at / CHUNK_BLOCKS < g->index.chunks;

	pthread_mutex_lock(&g->lock);
	for (unsigned i = 0; free && i < CHUNK_WORDS; i++)
		free = (g->index.bits[at / CHUNK_BLOCKS][i] & ~have[i]) == 0;
	for (unsigned k = 0; free && k < CHUNK_BLOCKS;) {
		unsigned run = bits_clear_run(have, k, CHUNK_BLOCKS);

		if (run > 0)
			index_take(&g->index, at + k, run);
		k += run ? run : 1;
	}
	pthread_mutex_unlock(&g->lock);
	return free;
}

static void chunk_give(struct group *g, uint64_t chunk_blk, const uint64_t have[CHUNK_WORDS])
{
	for (unsigned k = 0; k < CHUNK_BLOCKS;) {
		unsigned run = bits_clear_run(have, k, CHUNK_BLOCKS);

		if (run > 0)
			group_give(g, chunk_blk + k, run);
		k += run ? run : 1;
	}
}

static int chunk_find(struct space *space, const struct space_want *want, struct group **g, uint64_t *blk)
{
	const struct index_want whole = { .goal_blk = INDEX_NONE, .count_blk = CHUNK_BLOCKS, .all = true };
	uint64_t count;

	do {
		for (uint32_t i = 0; i < space->ag_count; i++) {
			*g = want_group(space, want, 0, i);
			count = CHUNK_BLOCKS;
			if (group_load(*g) == 0 && group_can_grow(*g) && group_alloc(*g, &whole, blk, &count))
				return 0;
		}
	} while (window_steal(space));
	return -ENOSPC;
}

int space_window_chunk(struct txn *tx, const struct space_want *want, uint64_t chunk_blk,
		       const uint64_t have[CHUNK_WORDS], uint64_t *blk)
{
	static const uint64_t nothing[CHUNK_WORDS];
	struct space *space = space_of(txn_pool(tx));
	struct plan p = { .file_blk = want->file_blk,
			  .end_blk = want->file_blk + CHUNK_BLOCKS,
			  .size_blk = CHUNK_BLOCKS };
	struct stream *s = stream_of(space, want);
	struct window *w;
	struct group *g;
	int rc;

	if (!s)
		return -ENOMEM;
	pthread_mutex_lock(&space->windows.lock);
	for (uint32_t i = stream_find(s, p.file_blk); i < s->count && s->windows[i]->file_blk < p.end_blk;)
		window_kill(s->windows[i]);
	pthread_mutex_unlock(&space->windows.lock);
	if (chunk_blk != 0) {
		g = &space->groups[pool_blk_ag(space->pool, chunk_blk)];
		rc = group_load(g);
		if (rc == 0 && !chunk_take(g, chunk_blk, have))
			rc = -ENOSPC;
	} else {
		have = nothing;
		rc = chunk_find(space, want, &g, &chunk_blk);
	}
	if (rc)
		return rc;
	pthread_mutex_lock(&space->windows.lock);
	w = s->count < STREAM_WINDOWS_MAX ? window_add(s, g, &p, chunk_blk) : NULL;
	for (unsigned k = 0; w && k < CHUNK_BLOCKS; k++)
		if (have[k / 64] >> k % 64 & 1) {
			bits_clear(w->unused, k, 1);
			w->unused_blk--;
			space->windows.free_blk--;
		}
	pthread_mutex_unlock(&space->windows.lock);
	if (!w) {
		chunk_give(g, chunk_blk, have);
		return -ENOMEM;
	}
	*blk = chunk_blk;
	return 0;
}

uint64_t space_window_at(struct pool *pool, const struct space_stream *stream, uint64_t file_blk)
{
	struct windows *all = &space_of(pool)->windows;
	const struct stream *s = stream->windows;
	uint64_t blk = 0;
	uint32_t i;

	if (!s)
		return 0;
	pthread_mutex_lock(&all->lock);
	i = stream_find(s, file_blk);
	if (i < s->count && s->windows[i]->file_blk == file_blk && s->windows[i]->count_blk == CHUNK_BLOCKS &&
	    s->windows[i]->blk % CHUNK_BLOCKS == 0)
		blk = s->windows[i]->blk;
	pthread_mutex_unlock(&all->lock);
	return blk;
}

void window_passed(const struct space_want *want, uint64_t blk, uint64_t count_blk)
{
	struct stream *s = want->stream ? want->stream->windows : NULL;

	if (s && count_blk >= CHUNK_BLOCKS / 2)
		stream_passed(s, want->file_blk, blk, count_blk, CHUNK_BLOCKS);
}

/* ---- giving back ---- */

static void stream_kill(struct stream *s)
{
	while (s->count > 0)
		window_kill(s->windows[s->count - 1]);
	free(s->windows);
	free(s);
}

void space_stream_release(struct pool *pool, struct space_stream *stream)
{
	struct space *space = space_of(pool);

	if (!stream->windows)
		return;
	pthread_mutex_lock(&space->windows.lock);
	stream_kill(stream->windows);
	stream->windows = NULL;
	pthread_mutex_unlock(&space->windows.lock);
}

bool window_steal(struct space *space)
{
	struct windows *all = &space->windows;
	unsigned stolen = 0;

	pthread_mutex_lock(&all->lock);
	while (stolen < STEAL_BATCH && !cds_list_empty(&all->lru)) {
		window_kill(cds_list_entry(all->lru.next, struct window, lru));
		stolen++;
	}
	pthread_mutex_unlock(&all->lock);
	return stolen > 0;
}

/* Streams that nobody released are leaks of their inodes: their windows go, the streams stay theirs. */
void windows_destroy(struct space *space)
{
	while (window_steal(space))
		;
	pthread_mutex_destroy(&space->windows.lock);
}
