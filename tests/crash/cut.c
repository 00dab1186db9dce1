/* SPDX-License-Identifier: BSD-3-Clause */
#include "crash/cut.h"

#include <stdlib.h>
#include <string.h>

#include "lib/testfs.h"

#define PAGE_BYTES 4096u
#define EVENTS_LEFT_OUT 6u

enum { NOTHING, EVERYTHING, BY_CHANCE, WAYS }; /* as pending_sample() counts them */

static struct cut *current;

static void on_store(void *ctx, uint64_t off, const void *src, size_t len)
{
	(void)ctx;
	if (!current)
		return;
	if (current->dead_off == CUT_NO_PAGE || off >= current->dead_off + PAGE_BYTES ||
	    off + len <= current->dead_off)
		record_store(&current->record, off, src, len);
}

static void on_zero(void *ctx, uint64_t off, size_t len)
{
	on_store(ctx, off, NULL, len);
}

static void on_fence(void *ctx)
{
	(void)ctx;
	if (current)
		record_fence(&current->record);
}

const struct dax_trace cut_trace = { on_store, on_zero, on_fence, NULL };

void cut_begin(struct cut *c, const void *memory, uint64_t size_bytes, uint64_t dead_off)
{
	*c = (struct cut){ .size_bytes = size_bytes, .dead_off = dead_off, .random = 1 };
	c->memory = malloc(size_bytes);
	if (!c->memory)
		abort();
	memcpy(c->memory, memory, size_bytes);
	current = c;
}

void cut_end(void)
{
	current = NULL;
}

bool cut_is_recording(void)
{
	return current != NULL;
}

/* Everything has arrived but this store, and what came after it in its lines. */
static void leave_out(struct pending *p, uint32_t event)
{
	for (size_t i = 0; i < p->line_count; i++) {
		bool late = false;

		for (size_t k = p->lines[i].first; k < p->lines[i].first + p->lines[i].count; k++) {
			late |= p->pieces[k].event == event;
			if (late)
				p->pieces[k].arrived = 0;
		}
	}
}

/* Image number n of those before a fence. */
static void image_pick(struct cut *c, struct pending *p, unsigned n)
{
	if (n < WAYS) {
		pending_sample(p, n, &c->random);
		return;
	}
	pending_sample(p, EVERYTHING, &c->random);
	leave_out(p, p->event_count <= EVENTS_LEFT_OUT ? n - WAYS :
							 (uint32_t)testfs_below(&c->random, p->event_count));
}

void cut_images(struct cut *c, void (*look)(void *arg, const uint8_t *image), void *arg)
{
	uint8_t *image = malloc(c->size_bytes);

	if (!image)
		abort();
	for (size_t from = 0; from < c->record.count;) {
		struct pending p;
		size_t to = from;

		while (to < c->record.count && c->record.events[to].len != 0)
			to++;
		pending_init(&p, &c->record, from, to, c->memory);
		for (unsigned n = 0; n < WAYS + u64_min(p.event_count, EVENTS_LEFT_OUT); n++) {
			memcpy(image, c->memory, c->size_bytes);
			image_pick(c, &p, n);
			pending_apply(&p, image);
			look(arg, image);
		}
		pending_sample(&p, EVERYTHING, &c->random);
		pending_apply(&p, c->memory);
		pending_free(&p);
		from = to + 1;
	}
	free(image);
	record_free(&c->record);
	free(c->memory);
	c->memory = NULL;
}
