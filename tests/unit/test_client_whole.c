/* SPDX-License-Identifier: BSD-3-Clause */
/* What of a file can be put in place by large pages: never what is not the file's. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "client/mapping.h"

#define BLOCK 4096u
#define UNIT ((uint64_t)UMBRA_WHOLE_BYTES)
#define END UINT64_MAX

#define WRITE UMBRA_PIECE_WRITE
#define HOLE UMBRA_PIECE_HOLE
#define LOST UMBRA_PIECE_LOST
#define PAST UMBRA_PIECE_PAST
#define SHARED UMBRA_PIECE_SHARED

/* The view has pieces of one unit, from UNIT in the file on; each begins where the last one ended. */
static const struct row {
	const char *what;
	struct {
		uint64_t dev_blk, count_blk;
		uint32_t flags;
	} pieces[4];
	uint64_t size_blk; /* of the file in it */
	uint64_t off_blk;  /* touched */
	bool store;
	enum place found;
	uint64_t dev_blk;
	uint32_t flags;
} rows[] = {
	{ "a chunk", { { 1024, 512, WRITE } }, 512, 3, true, PLACE_DONE, 1024, WRITE },
	{ "to read", { { 1024, 512, SHARED } }, 512, 3, false, PLACE_DONE, 1024, 0 },
	{ "to read only", { { 1024, 512, SHARED } }, 512, 3, true, PLACE_ASK, 0, 0 },
	{ "in parts",
	  { { 1024, 100, WRITE }, { 1124, 412, WRITE | SHARED } },
	  512,
	  3,
	  true,
	  PLACE_DONE,
	  1024,
	  WRITE },
	{ "not all to store to",
	  { { 1024, 100, WRITE }, { 1124, 412, SHARED } },
	  512,
	  3,
	  true,
	  PLACE_ASK,
	  0,
	  0 },
	{ "all to read", { { 1024, 100, WRITE }, { 1124, 412, SHARED } }, 512, 3, false, PLACE_DONE, 1024, 0 },
	{ "not aligned", { { 1025, 512, WRITE } }, 512, 3, false, PLACE_ASK, 0, 0 },
	{ "in two places", { { 1024, 100, WRITE }, { 1636, 412, WRITE } }, 512, 3, false, PLACE_ASK, 0, 0 },
	{ "a part unknown", { { 1024, 100, WRITE } }, 512, 3, false, PLACE_ASK, 0, 0 },
	{ "its end, all of it the file's",
	  { { 1024, 100, WRITE }, { 1124, 412, WRITE | PAST } },
	  100,
	  3,
	  true,
	  PLACE_DONE,
	  1024,
	  WRITE },
	{ "its end, of which the rest is others'", { { 1024, 100, WRITE } }, 100, 3, false, PLACE_ASK, 0, 0 },
	{ "its end, the rest elsewhere",
	  { { 1024, 100, WRITE }, { 2148, 412, PAST } },
	  100,
	  3,
	  false,
	  PLACE_ASK,
	  0,
	  0 },
	{ "a hole", { { 0, 512, HOLE } }, 512, 3, false, PLACE_DONE, 0, HOLE },
	{ "a hole to store to", { { 0, 512, HOLE } }, 512, 3, true, PLACE_ASK, 0, 0 },
	{ "a hole at the end", { { 0, 100, HOLE } }, 100, 3, false, PLACE_DONE, 0, HOLE },
	{ "a hole, and what is set aside",
	  { { 0, 100, HOLE }, { 1124, 412, PAST } },
	  100,
	  3,
	  false,
	  PLACE_DONE,
	  0,
	  HOLE },
	{ "a hole in part", { { 1024, 100, WRITE }, { 0, 412, HOLE } }, 512, 3, false, PLACE_ASK, 0, 0 },
	{ "data behind a hole", { { 0, 100, HOLE }, { 1124, 412, WRITE } }, 512, 3, false, PLACE_ASK, 0, 0 },
	{ "lost",
	  { { 1024, 3, WRITE }, { 1027, 1, LOST }, { 1028, 508, WRITE } },
	  512,
	  3,
	  false,
	  PLACE_LOST,
	  0,
	  0 },
	{ "lost beside it",
	  { { 1024, 3, WRITE }, { 1027, 1, LOST }, { 1028, 508, WRITE } },
	  512,
	  4,
	  false,
	  PLACE_KERNEL,
	  0,
	  0 },
};

static void test_pieces(void **state)
{
	const struct mapping m = { .unit = UNIT };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct row *row = &rows[i];
		struct umbra_piece in[4] = { 0 }, out = { 0 };
		uint64_t at = UNIT;
		struct view v = { .size_bytes = UNIT + row->size_blk * BLOCK - 1 };
		unsigned count = 0;

		for (; count < 4 && row->pieces[count].count_blk > 0; count++) {
			in[count] = (struct umbra_piece){ .file_off = at,
							  .dev_off = row->pieces[count].dev_blk * BLOCK,
							  .len = row->pieces[count].count_blk * BLOCK,
							  .flags = row->pieces[count].flags };
			at += in[count].len;
		}
		assert_int_equal(pieces_put(NULL, 0, END, in, count, &v.pieces), 0);
		print_message("# %s\n", row->what);
		assert_int_equal(piece_to_place(&m, &v, UNIT + row->off_blk * BLOCK + 5, row->store, &out),
				 row->found);
		if (row->found == PLACE_DONE) {
			assert_int_equal(out.file_off, UNIT);
			assert_int_equal(out.len, UNIT);
			assert_int_equal(out.flags, row->flags);
			assert_int_equal(out.dev_off, row->dev_blk * BLOCK);
		}
		pieces_free(v.pieces);
	}
}

static void test_units(void **state)
{
	(void)state;
	assert_int_equal(whole_unit(1), BLOCK);
	assert_int_equal(whole_unit(BLOCK), BLOCK);
	assert_int_equal(whole_unit(64 << 10), UNIT);
	assert_int_equal(whole_unit(UNIT), UNIT);
	assert_int_equal(whole_unit(1 << 30), 0);
}

/* ---- addresses ---- */

static bool is_mapped(uintptr_t at)
{
	unsigned char there;

	return mincore((void *)at, BLOCK, &there) == 0;
}

/* Blocks 3 to 515 of a file, and addresses for them. */
static void mapping_begin(struct mapping *m, struct mapped *mapped)
{
	*m = (struct mapping){ .off = 3 * BLOCK, .unit = UNIT, .areas = 1, .mapped = mapped };
	assert_int_equal(whole_reserve(m, 0, UNIT, 0, &m->lo), 0);
	m->hi = m->lo + UNIT;
	assert_int_equal(m->lo % UNIT, 3 * BLOCK);
	assert_true(is_mapped(m->lo - 3 * BLOCK));
	assert_true(is_mapped(m->hi + UNIT - 4 * BLOCK));
	assert_int_equal(mappings_reserve(1), 0);
	mapping_add(m);
}

static void mapping_end(struct mapping *m)
{
	mapping_remove(m);
	whole_unreserve(m, m->lo, m->hi);
	assert_int_equal(munmap((void *)m->lo, UNIT), 0);
}

static void test_cut(void **state)
{
	struct holding h = { .ino = 1 };
	struct umbra_file file = { .holding = &h };
	struct mapped mapped = { .file = &file };
	uintptr_t between;
	struct mapping m;

	(void)state;
	mapping_begin(&m, &mapped);
	between = m.lo + UNIT - 3 * BLOCK;
	/* At its ends and between units, and where there is nothing. */
	whole_cut(m.lo, m.hi);
	whole_cut(m.lo - 3 * BLOCK, between);
	whole_cut(between, m.hi + BLOCK);
	assert_int_equal(m.unit, UNIT);
	assert_true(is_mapped(m.lo - BLOCK));
	/* Within one. */
	whole_cut(m.lo - BLOCK, m.lo + BLOCK);
	assert_int_equal(m.unit, BLOCK);
	assert_false(is_mapped(m.lo - BLOCK));
	assert_false(is_mapped(m.hi));
	assert_true(is_mapped(m.lo));
	assert_true(is_mapped(m.hi - BLOCK));
	mapping_end(&m);
	mapping_begin(&m, &mapped);
	whole_cut(m.hi - BLOCK, m.hi);
	assert_int_equal(m.unit, BLOCK);
	assert_false(is_mapped(m.hi));
	mapping_end(&m);
}

/* What somebody else has by now of what was reserved is left alone. */
static void test_unreserve(void **state)
{
	struct holding h = { .ino = 1 };
	struct umbra_file file = { .holding = &h };
	struct mapped mapped = { .file = &file };
	struct mapping m;

	(void)state;
	mapping_begin(&m, &mapped);
	whole_unreserve(&m, m.lo - BLOCK, m.hi + 2 * BLOCK);
	assert_false(is_mapped(m.lo - 2 * BLOCK));
	assert_true(is_mapped(m.lo - BLOCK));
	assert_true(is_mapped(m.hi + BLOCK));
	assert_false(is_mapped(m.hi + 2 * BLOCK));
	mapping_end(&m);
}

static void test_fits(void **state)
{
	const struct mapping whole = { .off = UNIT, .unit = UNIT },
			     part = { .off = UNIT + BLOCK, .unit = UNIT },
			     small = { .off = BLOCK, .unit = BLOCK };

	(void)state;
	assert_int_equal(whole_fits(&whole, 0, BLOCK, 0), 0);
	assert_int_equal(whole_fits(&whole, 4 * UNIT, BLOCK, 0), 0);
	assert_int_equal(whole_fits(&whole, 4 * UNIT + BLOCK, BLOCK, 0), -EOPNOTSUPP);
	assert_int_equal(whole_fits(&whole, 4 * UNIT, UNIT, MAP_FIXED), 0);
	assert_int_equal(whole_fits(&whole, 4 * UNIT, UNIT + BLOCK, MAP_FIXED), -EOPNOTSUPP);
	assert_int_equal(whole_fits(&part, 4 * UNIT + BLOCK, BLOCK, 0), 0);
	assert_int_equal(whole_fits(&part, 4 * UNIT, BLOCK, 0), -EOPNOTSUPP);
	assert_int_equal(whole_fits(&part, 4 * UNIT, UNIT, MAP_FIXED), -EOPNOTSUPP);
	assert_int_equal(whole_fits(&small, 7 * BLOCK, BLOCK, MAP_FIXED), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pieces),    cmocka_unit_test(test_units), cmocka_unit_test(test_cut),
		cmocka_unit_test(test_unreserve), cmocka_unit_test(test_fits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
