/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Recorded stores, and which of them survive.
 */
#include "crash/record.h"

#include <stdlib.h>
#include <string.h>

#include "lib/testfs.h"

#define LINE 64u
#define WORD 8u
#define LOOSE_BYTES 256u /* libpmem goes around the cache from here on */

static void *grow(void *memory, size_t size)
{
	memory = realloc(memory, size ? size : 1);
	if (!memory)
		abort();
	return memory;
}

/* ---- record ---- */

static struct record_event *event_add(struct record *r)
{
	if (r->count == r->room) {
		r->room = r->room ? r->room * 2 : 256;
		r->events = grow(r->events, r->room * sizeof(*r->events));
	}
	return &r->events[r->count++];
}

void record_store(struct record *r, uint64_t off, const void *src, size_t len)
{
	if (r->size - r->used < len) {
		r->size = (r->used + len) * 2;
		r->bytes = grow(r->bytes, r->size);
	}
	*event_add(r) = (struct record_event){ off, len, r->used };
	if (src)
		memcpy(r->bytes + r->used, src, len);
	else
		memset(r->bytes + r->used, 0, len);
	r->used += len;
}

void record_fence(struct record *r)
{
	*event_add(r) = (struct record_event){ 0 };
}

void record_drop(struct record *r, size_t count)
{
	r->count -= count;
	memmove(r->events, r->events + count, r->count * sizeof(*r->events));
	if (r->count == 0)
		r->used = 0;
}

void record_clear(struct record *r)
{
	r->count = 0;
	r->used = 0;
}

void record_free(struct record *r)
{
	free(r->events);
	free(r->bytes);
	*r = (struct record){ 0 };
}

/* ---- pending ---- */

static int piece_compare(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;

	if (x->off / LINE != y->off / LINE)
		return x->off / LINE < y->off / LINE ? -1 : 1;
	return x->event < y->event ? -1 : x->event > y->event;
}

static uint8_t words_of(uint64_t off, uint32_t len)
{
	unsigned first = (unsigned)(off % LINE / WORD), last = (unsigned)((off + len - 1) % LINE / WORD);

	return (uint8_t)((2u << last) - (1u << first));
}

static void pieces_cut(struct pending *p, const struct record *r, size_t from, size_t to)
{
	size_t room = 0;

	for (size_t i = from; i < to; i++) {
		const struct record_event *e = &r->events[i];

		for (uint64_t off = e->off, end = e->off + e->len; off < end;) {
			uint64_t stop = off / LINE * LINE + LINE;
			uint32_t len;

			stop = stop < end ? stop : end;
			len = (uint32_t)(stop - off);
			if (p->piece_count == room) {
				room = room ? room * 2 : 256;
				p->pieces = grow(p->pieces, room * sizeof(*p->pieces));
			}
			p->pieces[p->piece_count++] = (struct piece){
				.off = off,
				.len = len,
				.event = p->event_count,
				.src = r->bytes + e->at + (off - e->off),
				.all = words_of(off, len),
				.loose = e->len >= LOOSE_BYTES,
			};
			off = stop;
		}
		p->event_count++;
	}
}

/* The bytes of a piece that lie in one word of its line. */
static uint32_t word_bytes(const struct piece *piece, unsigned word, uint32_t *at)
{
	uint64_t lo = piece->off / LINE * LINE + word * WORD, hi = lo + WORD, end = piece->off + piece->len;

	lo = lo > piece->off ? lo : piece->off;
	hi = hi < end ? hi : end;
	*at = (uint32_t)(lo - piece->off);
	return (uint32_t)(hi - lo);
}

/* The words that hold something else before, or that an earlier store of the line changes. */
static uint8_t words_that_matter(const struct piece *piece, uint8_t touched, const uint8_t *memory)
{
	uint8_t words = piece->all & touched;
	uint32_t at;

	for (unsigned bits = piece->all & ~(unsigned)touched; bits; bits &= bits - 1) {
		unsigned word = (unsigned)__builtin_ctz(bits);
		uint32_t len = word_bytes(piece, word, &at);

		if (memcmp(memory + piece->off + at, piece->src + at, len) != 0)
			words |= (uint8_t)(1u << word);
	}
	return words;
}

void pending_init(struct pending *p, const struct record *r, size_t from, size_t to, const uint8_t *memory)
{
	size_t kept = 0;
	uint8_t touched = 0;

	*p = (struct pending){ 0 };
	pieces_cut(p, r, from, to);
	if (p->piece_count == 0)
		return;
	qsort(p->pieces, p->piece_count, sizeof(*p->pieces), piece_compare);
	p->lines = grow(NULL, p->piece_count * sizeof(*p->lines));
	for (size_t i = 0; i < p->piece_count; i++) {
		struct piece piece = p->pieces[i];
		uint64_t line = piece.off / LINE;
		bool is_first = p->line_count == 0 || p->lines[p->line_count - 1].line != line;

		piece.all = words_that_matter(&piece, is_first ? 0 : touched, memory);
		if (!piece.all)
			continue;
		touched = is_first ? piece.all : touched | piece.all;
		if (is_first)
			p->lines[p->line_count++] = (struct line){ .line = line, .first = kept };
		p->lines[p->line_count - 1].count++;
		p->pieces[kept++] = piece;
	}
	p->piece_count = kept;
}

void pending_free(struct pending *p)
{
	free(p->pieces);
	free(p->lines);
	*p = (struct pending){ 0 };
}

/* ---- choices by number ---- */

/* Of one piece: none of its words, some, all. */
static uint64_t piece_ways(const struct piece *piece, bool torn)
{
	return torn ? 1ull << __builtin_popcount(piece->all) : 2;
}

static uint8_t piece_words(const struct piece *piece, uint64_t n, bool torn)
{
	uint8_t words = 0;

	if (!torn)
		return n ? piece->all : 0;
	for (unsigned bits = piece->all; bits; bits &= bits - 1, n >>= 1) {
		if (n & 1)
			words |= (uint8_t)(bits & -bits);
	}
	return words;
}

static uint64_t line_ways(const struct pending *p, const struct line *l, bool torn, uint64_t limit)
{
	uint64_t ordered = 1, loose = 1;

	for (unsigned i = 0; i < l->count; i++) {
		const struct piece *piece = &p->pieces[l->first + i];

		if (piece->loose)
			loose *= piece_ways(piece, torn);
		else
			ordered += piece_ways(piece, torn) - 1;
		if (loose > limit)
			return loose;
	}
	return ordered * loose;
}

static void line_pick(struct pending *p, const struct line *l, bool torn, uint64_t n)
{
	bool stopped = false;

	for (unsigned i = 0; i < l->count; i++) {
		struct piece *piece = &p->pieces[l->first + i];

		if (!piece->loose)
			continue;
		piece->arrived = piece_words(piece, n % piece_ways(piece, torn), torn);
		n /= piece_ways(piece, torn);
	}
	for (unsigned i = 0; i < l->count; i++) {
		struct piece *piece = &p->pieces[l->first + i];
		uint64_t last = piece_ways(piece, torn) - 1;

		if (piece->loose)
			continue;
		piece->arrived = stopped ? 0 : n >= last ? piece->all : piece_words(piece, n, torn);
		stopped |= n < last;
		n -= stopped ? 0 : last;
	}
}

uint64_t pending_possible(const struct pending *p, bool torn, uint64_t limit)
{
	uint64_t possible = 1;

	for (size_t i = 0; i < p->line_count && possible <= limit; i++)
		possible *= line_ways(p, &p->lines[i], torn, limit);
	return possible;
}

void pending_pick(struct pending *p, bool torn, uint64_t n)
{
	for (size_t i = 0; i < p->line_count; i++) {
		uint64_t ways = line_ways(p, &p->lines[i], torn, UINT32_MAX);

		line_pick(p, &p->lines[i], torn, n % ways);
		n /= ways;
	}
}

/* ---- choices by chance ---- */

static void set_all(struct pending *p, bool arrived)
{
	for (size_t i = 0; i < p->piece_count; i++)
		p->pieces[i].arrived = arrived ? p->pieces[i].all : 0;
}

static uint8_t some_words(const struct piece *piece, uint64_t *random)
{
	return (uint8_t)(piece->all & testfs_random(random));
}

/* After the choice of each piece by itself: those of a line that are not loose come in their order. */
static void keep_order(struct pending *p)
{
	for (size_t i = 0; i < p->line_count; i++) {
		const struct line *l = &p->lines[i];
		bool stopped = false;

		for (unsigned k = 0; k < l->count; k++) {
			struct piece *piece = &p->pieces[l->first + k];

			if (piece->loose)
				continue;
			if (stopped)
				piece->arrived = 0;
			stopped |= piece->arrived != piece->all;
		}
	}
}

/* Power fails between two stores of a machine that keeps their order. */
static void sample_cut(struct pending *p, uint64_t *random)
{
	uint32_t cut = (uint32_t)testfs_below(random, p->event_count + 1u);

	for (size_t i = 0; i < p->piece_count; i++) {
		struct piece *piece = &p->pieces[i];

		piece->arrived = piece->event < cut ? piece->all : 0;
		if (piece->event == cut)
			piece->arrived = some_words(piece, random);
	}
}

/* Each store has arrived or not. */
static void sample_events(struct pending *p, uint64_t *random)
{
	uint64_t percent = (uint64_t[]){ 15, 50, 85 }[testfs_below(random, 3)];
	uint8_t *has = grow(NULL, p->event_count);

	for (uint32_t i = 0; i < p->event_count; i++)
		has[i] = testfs_below(random, 100) < percent;
	for (size_t i = 0; i < p->piece_count; i++)
		p->pieces[i].arrived = has[p->pieces[i].event] ? p->pieces[i].all : 0;
	free(has);
}

/* Each line by itself. */
static void sample_lines(struct pending *p, uint64_t *random)
{
	uint64_t percent = (uint64_t[]){ 15, 50, 85 }[testfs_below(random, 3)];
	bool torn = testfs_below(random, 2) != 0;

	for (size_t i = 0; i < p->line_count; i++) {
		const struct line *l = &p->lines[i];
		uint64_t ways = line_ways(p, l, torn, UINT32_MAX);

		line_pick(p, l, torn,
			  testfs_below(random, 100) < percent ? ways - 1 : testfs_below(random, ways));
	}
}

/* Everything but (part of) one line, or nothing but (part of) it. */
static void sample_one(struct pending *p, uint64_t *random)
{
	bool others = testfs_below(random, 4) != 0, torn = testfs_below(random, 2) != 0;
	const struct line *l;
	uint64_t ways;

	set_all(p, others);
	l = &p->lines[testfs_below(random, p->line_count)];
	ways = line_ways(p, l, torn, UINT32_MAX);
	line_pick(p, l, torn, others ? testfs_below(random, ways - 1) : ways - 1);
}

/* Everything but one store, or one store and nothing else. */
static void sample_one_event(struct pending *p, uint64_t *random)
{
	bool others = testfs_below(random, 3) != 0;
	uint32_t event = p->pieces[testfs_below(random, p->piece_count)].event;

	for (size_t i = 0; i < p->piece_count; i++) {
		struct piece *piece = &p->pieces[i];

		piece->arrived = (piece->event == event) != others ? piece->all : 0;
	}
}

void pending_sample(struct pending *p, unsigned n, uint64_t *random)
{
	set_all(p, n == 1);
	if (n < 2 || p->piece_count == 0)
		return;
	switch (testfs_below(random, 5)) {
	case 0:
		sample_cut(p, random);
		break;
	case 1:
		sample_events(p, random);
		break;
	case 2:
		sample_lines(p, random);
		break;
	case 3:
		sample_one(p, random);
		break;
	default:
		sample_one_event(p, random);
		break;
	}
	keep_order(p);
}

void pending_apply(const struct pending *p, uint8_t *memory)
{
	for (size_t k = 0; k < p->piece_count; k++) {
		const struct piece *piece = &p->pieces[k];
		uint32_t at;

		if (piece->arrived == 0xff) { /* the usual case, and faster */
			memcpy(memory + piece->off, piece->src, piece->len);
			continue;
		}
		for (unsigned bits = piece->arrived; bits; bits &= bits - 1) {
			uint32_t len = word_bytes(piece, (unsigned)__builtin_ctz(bits), &at);

			memcpy(memory + piece->off + at, piece->src + at, len);
		}
	}
}
