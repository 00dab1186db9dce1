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

static void pieces_cut(struct pending *p, const struct record *r, size_t from, size_t to)
{
	size_t room = 0;

	for (size_t i = from; i < to; i++) {
		const struct record_event *e = &r->events[i];

		for (uint64_t off = e->off, end = e->off + e->len; off < end;) {
			uint64_t stop = off / LINE * LINE + LINE;

			stop = stop < end ? stop : end;
			if (p->piece_count == room) {
				room = room ? room * 2 : 256;
				p->pieces = grow(p->pieces, room * sizeof(*p->pieces));
			}
			p->pieces[p->piece_count++] = (struct piece){ off, (uint32_t)(stop - off),
								      p->event_count,
								      r->bytes + e->at + (off - e->off) };
			off = stop;
		}
		p->event_count++;
	}
}

void pending_init(struct pending *p, const struct record *r, size_t from, size_t to)
{
	*p = (struct pending){ 0 };
	pieces_cut(p, r, from, to);
	if (p->piece_count == 0)
		return;
	qsort(p->pieces, p->piece_count, sizeof(*p->pieces), piece_compare);
	p->lines = grow(NULL, p->piece_count * sizeof(*p->lines));
	for (size_t i = 0; i < p->piece_count; i++) {
		uint64_t line = p->pieces[i].off / LINE;

		if (p->line_count == 0 || p->lines[p->line_count - 1].line != line)
			p->lines[p->line_count++] = (struct line){ .line = line, .first = i };
		p->lines[p->line_count - 1].count++;
	}
}

void pending_free(struct pending *p)
{
	free(p->pieces);
	free(p->lines);
	*p = (struct pending){ 0 };
}

uint64_t pending_possible(const struct pending *p, uint64_t limit)
{
	uint64_t possible = 1;

	for (size_t i = 0; i < p->line_count && possible <= limit; i++)
		possible *= p->lines[i].count + 1;
	return possible;
}

void pending_pick(struct pending *p, uint64_t n)
{
	for (size_t i = 0; i < p->line_count; i++) {
		struct line *l = &p->lines[i];

		l->arrived = (unsigned)(n % (l->count + 1));
		l->words = 0;
		n /= l->count + 1;
	}
}

static void set_all(struct pending *p, bool arrived)
{
	for (size_t i = 0; i < p->line_count; i++) {
		p->lines[i].arrived = arrived ? p->lines[i].count : 0;
		p->lines[i].words = 0;
	}
}

/* Power fails between two stores of a machine that keeps their order. */
static void sample_cut(struct pending *p, uint64_t *random)
{
	uint32_t cut = (uint32_t)testfs_below(random, p->event_count + 1u);

	for (size_t i = 0; i < p->line_count; i++) {
		struct line *l = &p->lines[i];

		l->arrived = 0;
		l->words = 0;
		while (l->arrived < l->count && p->pieces[l->first + l->arrived].event < cut)
			l->arrived++;
		if (l->arrived < l->count && p->pieces[l->first + l->arrived].event == cut)
			l->words = (uint8_t)testfs_random(random);
	}
}

/* Each store has arrived or not, as far as earlier ones of the same line have. */
static void sample_events(struct pending *p, uint64_t *random)
{
	uint64_t percent = (uint64_t[]){ 15, 50, 85 }[testfs_below(random, 3)];
	uint8_t *has = grow(NULL, p->event_count);

	for (uint32_t i = 0; i < p->event_count; i++)
		has[i] = testfs_below(random, 100) < percent;
	for (size_t i = 0; i < p->line_count; i++) {
		struct line *l = &p->lines[i];

		l->arrived = 0;
		l->words = 0;
		while (l->arrived < l->count && has[p->pieces[l->first + l->arrived].event])
			l->arrived++;
	}
	free(has);
}

/* Each line by itself. */
static void sample_lines(struct pending *p, uint64_t *random)
{
	uint64_t percent = (uint64_t[]){ 15, 50, 85 }[testfs_below(random, 3)];

	for (size_t i = 0; i < p->line_count; i++) {
		struct line *l = &p->lines[i];

		l->arrived = testfs_below(random, 100) < percent ? l->count :
								   (unsigned)testfs_below(random, l->count);
		l->words = testfs_below(random, 4) ? 0 : (uint8_t)testfs_random(random);
	}
}

/* Everything but (part of) one line, or nothing but (part of) it. */
static void sample_one(struct pending *p, uint64_t *random)
{
	bool others = testfs_below(random, 4) != 0;
	struct line *l;

	set_all(p, others);
	if (p->line_count == 0)
		return;
	l = &p->lines[testfs_below(random, p->line_count)];
	l->arrived = others ? (unsigned)testfs_below(random, l->count) : l->count;
	l->words = others && testfs_below(random, 2) ? (uint8_t)testfs_random(random) : 0;
}

/* Everything but one store, or one store and nothing else. */
static void sample_one_event(struct pending *p, uint64_t *random)
{
	bool others = testfs_below(random, 3) != 0;
	uint32_t event = p->event_count ? (uint32_t)testfs_below(random, p->event_count) : 0;

	for (size_t i = 0; i < p->line_count; i++) {
		struct line *l = &p->lines[i];

		l->arrived = 0;
		l->words = 0;
		while (l->arrived < l->count && (p->pieces[l->first + l->arrived].event == event) != others)
			l->arrived++;
	}
}

void pending_sample(struct pending *p, unsigned n, uint64_t *random)
{
	if (n < 2) {
		set_all(p, n == 1);
		return;
	}
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
}

/* Words of one piece: those whose bit is set. */
static void words_apply(const struct piece *piece, uint8_t words, uint8_t *memory)
{
	for (uint32_t i = 0; i < piece->len;) {
		uint64_t off = piece->off + i;
		uint32_t n = WORD - off % WORD;

		n = n < piece->len - i ? n : piece->len - i;
		if (words >> off % LINE / WORD & 1)
			memcpy(memory + off, piece->src + i, n);
		i += n;
	}
}

void pending_apply(const struct pending *p, uint8_t *memory)
{
	for (size_t i = 0; i < p->line_count; i++) {
		const struct line *l = &p->lines[i];

		for (unsigned k = 0; k < l->arrived; k++)
			memcpy(memory + p->pieces[l->first + k].off, p->pieces[l->first + k].src,
			       p->pieces[l->first + k].len);
		if (l->arrived < l->count && l->words)
			words_apply(&p->pieces[l->first + l->arrived], l->words, memory);
	}
}
