/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Stores and fences as they came, and choices of which of the unfenced stores have reached the memory.
 *
 * What a choice may be, for each line of 64 bytes by itself: the stores of the line in their order up to one of them, which may be torn
 * between its aligned words of 8 bytes. A large store may have gone around the cache; its words arrive in any order, whatever
 * came before or after. A word is never torn.
 */
#ifndef UMBRA_TESTS_CRASH_RECORD_H
#define UMBRA_TESTS_CRASH_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct record_event {
	uint64_t off;
	size_t len; /* 0: a fence */
	size_t at;  /* of the bytes in record.bytes */
};

struct record {
	struct record_event *events;
	size_t count, room;
	uint8_t *bytes;
	size_t used, size;
};

void record_store(struct record *r, uint64_t off, const void *src, size_t len); /* src NULL: zeroes */
void record_fence(struct record *r);
/* Forgets the first count events. */
void record_drop(struct record *r, size_t count);
void record_clear(struct record *r);
void record_free(struct record *r);

/* One store's part of one line. Masks have a bit for each word of the line. */
struct piece {
	uint64_t off;
	uint32_t len;
	uint32_t event; /* counted from the first one */
	const uint8_t *src;
	uint8_t all;     /* words that it changes */
	uint8_t arrived; /* the choice */
	bool loose;      /* may have gone around the cache */
};

/* Pieces first .. first + count - 1 of a line. */
struct line {
	uint64_t line;
	size_t first;
	unsigned count;
};

struct pending {
	struct piece *pieces;
	size_t piece_count;
	struct line *lines;
	size_t line_count;
	uint32_t event_count;
};

/* Stores from .. to - 1 of a record, none of them fenced, over a memory; what would change nothing is left out. */
void pending_init(struct pending *p, const struct record *r, size_t from, size_t to, const uint8_t *memory);
void pending_free(struct pending *p);

/* How many choices there are, with or without torn stores; anything above limit if there are more. */
uint64_t pending_possible(const struct pending *p, bool torn, uint64_t limit);
/* Choice number n of them. */
void pending_pick(struct pending *p, bool torn, uint64_t n);
/* A choice by chance; 0: nothing has arrived, 1: everything. */
void pending_sample(struct pending *p, unsigned n, uint64_t *random);
void pending_apply(const struct pending *p, uint8_t *memory);

#endif
