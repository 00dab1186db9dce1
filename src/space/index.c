/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * State of the index of free blocks: bits, counts, lists of chunks by longest free run. The search is in find.c.
 */
#include "space/index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "space/bits.h"

int index_init(struct index *x, uint32_t chunks)
{
	*x = (struct index){ .chunks = chunks };
	x->bits = calloc(chunks, sizeof(*x->bits));
	x->whole = calloc(u64_div_up(chunks, 64), sizeof(*x->whole));
	x->free = calloc(chunks, sizeof(*x->free));
	x->next = calloc(chunks, sizeof(*x->next));
	x->prev = calloc(chunks, sizeof(*x->prev));
	x->class = calloc(chunks, sizeof(*x->class));
	if (!x->bits || !x->whole || !x->free || !x->next || !x->prev || !x->class) {
		index_destroy(x);
		return -ENOMEM;
	}
	memset(x->bits, 0xff, chunks * sizeof(*x->bits));
	memset(x->class, INDEX_FULL, chunks);
	for (unsigned k = 0; k < INDEX_CLASSES; k++)
		x->head[k] = INDEX_NIL;
	return 0;
}

void index_destroy(struct index *x)
{
	free(x->bits);
	free(x->whole);
	free(x->free);
	free(x->next);
	free(x->prev);
	free(x->class);
	*x = (struct index){ 0 };
}

static bool array_more(void *array, size_t size_bytes)
{
	void **p = array;
	void *more = realloc(*p, size_bytes);

	if (more)
		*p = more;
	return more != NULL;
}

int index_reserve(struct index *x, uint32_t chunks)
{
	if (array_more(&x->bits, chunks * sizeof(*x->bits)) &&
	    array_more(&x->whole, u64_div_up(chunks, 64) * sizeof(*x->whole)) &&
	    array_more(&x->free, chunks * sizeof(*x->free)) &&
	    array_more(&x->next, chunks * sizeof(*x->next)) &&
	    array_more(&x->prev, chunks * sizeof(*x->prev)) && array_more(&x->class, chunks))
		return 0;
	return -ENOMEM;
}

void index_extend(struct index *x, uint32_t chunks)
{
	uint32_t more = chunks - x->chunks;

	assert(chunks >= x->chunks);
	memset(&x->bits[x->chunks], 0xff, more * sizeof(*x->bits));
	memset(&x->free[x->chunks], 0, more * sizeof(*x->free));
	memset(&x->class[x->chunks], INDEX_FULL, more);
	for (uint64_t i = u64_div_up(x->chunks, 64); i < u64_div_up(chunks, 64); i++)
		x->whole[i] = 0;
	x->chunks = chunks;
}

/* The class of a chunk by its longest free run. */
static unsigned chunk_class(const uint64_t bits[CHUNK_WORDS], unsigned free)
{
	struct bits512 run;

	if (free == 0)
		return INDEX_FULL;
	if (free == CHUNK_BLOCKS)
		return INDEX_WHOLE;
	for (unsigned i = 0; i < CHUNK_WORDS; i++)
		run.w[i] = ~bits[i];
	/* A bit stays set where a run of at least 2^k starts. */
	for (unsigned k = 0; k < INDEX_CLASSES; k++) {
		bits512_and_shifted(&run, 1u << k);
		if (bits512_is_zero(&run))
			return k;
	}
	return INDEX_CLASSES - 1;
}

static void list_remove(struct index *x, uint32_t chunk)
{
	uint16_t next = x->next[chunk], prev = x->prev[chunk];

	if (prev == INDEX_NIL)
		x->head[x->class[chunk]] = next;
	else
		x->next[prev] = next;
	if (next != INDEX_NIL)
		x->prev[next] = prev;
}

static void list_add(struct index *x, uint32_t chunk, unsigned class)
{
	uint16_t next = x->head[class];

	x->prev[chunk] = INDEX_NIL;
	x->next[chunk] = next;
	if (next != INDEX_NIL)
		x->prev[next] = (uint16_t)chunk;
	x->head[class] = (uint16_t)chunk;
}

/* After a change of the bits of a chunk; free: how many are clear now. */
static void chunk_changed(struct index *x, uint32_t chunk, unsigned free)
{
	unsigned old = x->class[chunk], class = chunk_class(x->bits[chunk], free);

	x->free_blk += free;
	x->free_blk -= x->free[chunk];
	x->free[chunk] = (uint16_t)free;
	if (class == old)
		return;
	if (old == INDEX_WHOLE) {
		x->whole[chunk / 64] &= ~(1ull << chunk % 64);
		x->whole_count--;
	} else if (old < INDEX_CLASSES) {
		list_remove(x, chunk);
	}
	x->class[chunk] = (uint8_t) class;
	if (class == INDEX_WHOLE) {
		x->whole[chunk / 64] |= 1ull << chunk % 64;
		x->whole_count++;
	} else if (class < INDEX_CLASSES) {
		list_add(x, chunk, class);
	}
}

void index_load_chunk(struct index *x, uint32_t chunk, const uint64_t bits[CHUNK_WORDS])
{
	unsigned used = 0;

	for (unsigned i = 0; i < CHUNK_WORDS; i++) {
		x->bits[chunk][i] = bits[i];
		used += (unsigned)__builtin_popcountll(bits[i]);
	}
	chunk_changed(x, chunk, CHUNK_BLOCKS - used);
}

void index_take(struct index *x, uint64_t blk, uint64_t count_blk)
{
	while (count_blk > 0) {
		uint32_t chunk = (uint32_t)(blk / CHUNK_BLOCKS);
		unsigned first = blk % CHUNK_BLOCKS;
		unsigned n = (unsigned)u64_min(count_blk, CHUNK_BLOCKS - first);
		unsigned changed = bits_set(x->bits[chunk], first, n);

		assert(changed == n);
		chunk_changed(x, chunk, x->free[chunk] - n);
		blk += n;
		count_blk -= n;
	}
}

uint32_t index_give(struct index *x, uint64_t blk, uint64_t count_blk)
{
	uint32_t before = x->whole_count;

	while (count_blk > 0) {
		uint32_t chunk = (uint32_t)(blk / CHUNK_BLOCKS);
		unsigned first = blk % CHUNK_BLOCKS;
		unsigned n = (unsigned)u64_min(count_blk, CHUNK_BLOCKS - first);
		unsigned changed = bits_clear(x->bits[chunk], first, n);

		assert(changed == n);
		chunk_changed(x, chunk, x->free[chunk] + n);
		blk += n;
		count_blk -= n;
	}
	return x->whole_count - before;
}

bool index_is_taken(const struct index *x, uint64_t blk, uint64_t count_blk)
{
	while (count_blk > 0) {
		uint32_t chunk = (uint32_t)(blk / CHUNK_BLOCKS);
		unsigned first = blk % CHUNK_BLOCKS;
		unsigned n = (unsigned)u64_min(count_blk, CHUNK_BLOCKS - first);

		if (bits_count(x->bits[chunk], first, n) != n)
			return false;
		blk += n;
		count_blk -= n;
	}
	return true;
}
