/* SPDX-License-Identifier: BSD-3-Clause */
/* Sets of pieces (client/pieces.h), by chance, against an array that has each block by itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "client/pieces.h"

#define BLOCKS 1500u
#define STEPS 4000
#define BLOCK 4096ull

struct model {
	uint64_t dev[BLOCKS]; /* 0: not known; a hole has 1 */
	uint32_t flags[BLOCKS];
};

static uint64_t number;

static uint32_t draw(uint32_t below)
{
	number ^= number << 13;
	number ^= number >> 7;
	number ^= number << 17;
	return (uint32_t)(number >> 20) % below;
}

static void compare(const struct pieces *set, const struct model *m)
{
	const struct umbra_piece *last = NULL;

	for (uint32_t i = 0; i < BLOCKS; i++) {
		uint64_t off = i * BLOCK + draw((uint32_t)BLOCK);
		const struct umbra_piece *p = pieces_find(set, off);

		if (!m->dev[i]) {
			assert_null(p);
			continue;
		}
		assert_non_null(p);
		assert_true(p->file_off <= off && off < p->file_off + p->len);
		assert_int_equal(p->flags, m->flags[i]);
		if (!(p->flags & UMBRA_PIECE_HOLE))
			assert_int_equal(p->dev_off + (i * BLOCK - p->file_off), m->dev[i]);
	}
	/* In order, each once, and none after the last one. */
	for (const struct umbra_piece *p = pieces_next(set, 0); p; p = pieces_next(set, p->file_off + 1)) {
		assert_true(!last || last->file_off + last->len <= p->file_off);
		assert_ptr_equal(pieces_before(set, p->file_off), last);
		last = p;
	}
	assert_ptr_equal(pieces_before(set, UINT64_MAX), last);
}

static unsigned some_pieces(struct model *m, uint32_t lo, uint32_t hi, struct umbra_piece *in)
{
	unsigned count = 0;
	uint32_t at = lo;

	memset(&m->dev[lo], 0, (hi - lo) * sizeof(m->dev[0]));
	while (at < hi && count < UMBRA_PIECES_MAX) {
		uint32_t len = 1 + draw(draw(3) ? 2 : hi - at), flags = draw(8);
		uint64_t dev = flags & UMBRA_PIECE_HOLE ? 0 : (1 + draw(100000)) * BLOCK;

		if (len > hi - at)
			len = hi - at;
		/* Now and then it goes on where the one before it ended: they are one then. */
		if (count > 0 && draw(3) == 0 && dev) {
			flags = in[count - 1].flags & ~UMBRA_PIECE_HOLE;
			dev = in[count - 1].dev_off + in[count - 1].len;
		}
		in[count++] = (struct umbra_piece){ at * BLOCK, dev, len * BLOCK, flags, 0 };
		for (uint32_t i = 0; i < len; i++) {
			m->dev[at + i] = dev ? dev + i * BLOCK : 1;
			m->flags[at + i] = flags;
		}
		at += len;
	}
	return count;
}

static void test_by_chance(void **state)
{
	static struct model m;
	struct umbra_piece in[UMBRA_PIECES_MAX];
	struct pieces *set = NULL, *new;
	struct timespec now;

	(void)state;
	clock_gettime(CLOCK_REALTIME, &now);
	number = getenv("UMBRA_SEED") ? strtoull(getenv("UMBRA_SEED"), NULL, 0) : (uint64_t)now.tv_nsec + 1;
	printf("# UMBRA_SEED=%llu\n", (unsigned long long)number);
	for (unsigned step = 0; step < STEPS; step++) {
		uint32_t lo = draw(BLOCKS), hi = lo + 1 + draw(draw(20) ? 40 : BLOCKS), what = draw(4);
		unsigned count = 0;

		if (hi > BLOCKS)
			hi = BLOCKS;
		if (what == 0) {
			assert_int_equal(pieces_weaken(set, lo * BLOCK, hi * BLOCK, UMBRA_PIECE_WRITE, &new),
					 0);
			for (uint32_t i = lo; i < hi; i++)
				m.flags[i] &= ~UMBRA_PIECE_WRITE;
		} else {
			if (what == 1)
				memset(&m.dev[lo], 0, (hi - lo) * sizeof(m.dev[0]));
			else
				count = some_pieces(&m, lo, hi, in);
			assert_int_equal(pieces_put(set, lo * BLOCK, hi * BLOCK, in, count, &new), 0);
		}
		pieces_retire(set);
		set = new;
		if (step % 20 == 0)
			compare(set, &m);
	}
	compare(set, &m);
	pieces_free(set);
}

static void test_nothing_and_all(void **state)
{
	struct umbra_piece one = { 0, BLOCK, 8 * BLOCK, 0, 0 };
	struct pieces *set, *new;

	(void)state;
	assert_null(pieces_find(NULL, 0));
	assert_null(pieces_next(NULL, 0));
	assert_null(pieces_before(NULL, UINT64_MAX));
	assert_int_equal(pieces_put(NULL, 0, 100 * BLOCK, NULL, 0, &set), 0);
	assert_null(set);
	assert_int_equal(pieces_put(NULL, 0, 8 * BLOCK, &one, 1, &set), 0);
	assert_int_equal(pieces_find(set, 8 * BLOCK - 1)->len, 8 * BLOCK);
	assert_null(pieces_find(set, 8 * BLOCK));
	assert_int_equal(pieces_put(set, 0, UINT64_MAX, NULL, 0, &new), 0);
	pieces_retire(set);
	assert_null(new);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_by_chance),
		cmocka_unit_test(test_nothing_and_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
