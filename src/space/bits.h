/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Arrays of bits in 64-bit words, lowest bit first; and the 512 bits of one chunk as a number that can be shifted.
 */
#ifndef UMBRA_SPACE_BITS_H
#define UMBRA_SPACE_BITS_H

#include <stdbool.h>
#include <stdint.h>

#include "media/unit.h"

struct bits512 {
	uint64_t w[CHUNK_BLOCKS / 64];
};

/* The bits first .. of one word that belong to a range of count bits; *n is how many. */
static inline uint64_t bits_mask(unsigned first, unsigned count, unsigned *n)
{
	unsigned lo = first % 64;

	*n = count < 64 - lo ? count : 64 - lo;
	return (*n == 64 ? ~0ull : (1ull << *n) - 1) << lo;
}

/* How many bits of the range are set. */
static inline unsigned bits_count(const uint64_t *words, unsigned first, unsigned count)
{
	unsigned n, set = 0;

	for (; count > 0; first += n, count -= n) {
		uint64_t mask = bits_mask(first, count, &n);

		set += (unsigned)__builtin_popcountll(words[first / 64] & mask);
	}
	return set;
}

/* Sets (clears) the range; returns how many bits changed. */
static inline unsigned bits_set(uint64_t *words, unsigned first, unsigned count)
{
	unsigned n, changed = 0;

	for (; count > 0; first += n, count -= n) {
		uint64_t mask = bits_mask(first, count, &n);

		changed += (unsigned)__builtin_popcountll(~words[first / 64] & mask);
		words[first / 64] |= mask;
	}
	return changed;
}

static inline unsigned bits_clear(uint64_t *words, unsigned first, unsigned count)
{
	unsigned n, changed = 0;

	for (; count > 0; first += n, count -= n) {
		uint64_t mask = bits_mask(first, count, &n);

		changed += (unsigned)__builtin_popcountll(words[first / 64] & mask);
		words[first / 64] &= ~mask;
	}
	return changed;
}

/* How many bits from first on are clear, looking no further than end. */
static inline unsigned bits_clear_run(const uint64_t *words, unsigned first, unsigned end)
{
	unsigned at = first;

	while (at < end) {
		uint64_t rest = words[at / 64] >> at % 64;
		unsigned n = rest ? (unsigned)__builtin_ctzll(rest) : 64 - at % 64;

		at += n;
		if (rest)
			break;
	}
	return (at < end ? at : end) - first;
}

/* run &= run >> shift, as one number of 512 bits. */
static inline void bits512_and_shifted(struct bits512 *run, unsigned shift)
{
	unsigned words = shift / 64, bits = shift % 64, count = CHUNK_BLOCKS / 64;

	for (unsigned i = 0; i < count; i++) {
		uint64_t lo = i + words < count ? run->w[i + words] : 0;
		uint64_t hi = i + words + 1 < count ? run->w[i + words + 1] : 0;

		run->w[i] &= bits ? lo >> bits | hi << (64 - bits) : lo;
	}
}

static inline bool bits512_is_zero(const struct bits512 *run)
{
	uint64_t any = 0;

	for (unsigned i = 0; i < CHUNK_BLOCKS / 64; i++)
		any |= run->w[i];
	return any == 0;
}

/* The bits at which a run of at least count (1 .. 512) bits starts. */
static inline void bits512_runs(struct bits512 *run, unsigned count)
{
	for (unsigned have = 1; have < count;) {
		unsigned step = have < count - have ? have : count - have;

		bits512_and_shifted(run, step);
		have += step;
	}
}

/* The lowest set bit; there is one. */
static inline unsigned bits512_first(const struct bits512 *run)
{
	unsigned i = 0;

	while (run->w[i] == 0)
		i++;
	return i * 64 + (unsigned)__builtin_ctzll(run->w[i]);
}

#endif
