/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tools of a repair: units by hand, new units and chunks, trees from sorted records.
 */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/testunit.h"
#include "repair/base.h"

static const struct repair_opts no_opts;

struct env {
	struct testfs t;
	struct repair rp;
	struct repair_report report;
};

static void env_make(struct env *e, uint64_t size_bytes)
{
	struct testfs_opts opts = { .size_bytes = size_bytes };

	memset(e, 0, sizeof(*e));
	testfs_make(&e->t, &opts);
	e->rp = (struct repair){
		.dax = e->t.dax,
		.pool = e->t.pool,
		.super = pool_super(e->t.pool),
		.opts = &no_opts,
		.report = &e->report,
	};
	assert_int_equal(repair_facts(&e->rp, NULL), 0);
}

static void env_free(struct env *e)
{
	repair_facts_drop(&e->rp);
	rows_free(&e->rp.fresh);
	testfs_free(&e->t);
}

/* ---- units ---- */

static void test_unit_write(void **state)
{
	_Alignas(64) struct m_inode m, back;
	_Alignas(64) uint8_t unit[BLOCK_SIZE];
	uint64_t laddr = INODE_ROOT << INODE_SHIFT, limit;
	struct env e;

	(void)state;
	env_make(&e, 0);
	limit = e.rp.super->seq_limit;
	assert_true(repair_unit_read(&e.rp, laddr, MAGIC_INODE, INODE_ROOT, &m));
	m.di_uid = le32_of(77);
	assert_int_equal(repair_unit_write(&e.rp, laddr, MAGIC_INODE, &m), 0);
	assert_true(e.rp.super->state & SUPER_STATE_REPAIR);
	/* Either copy has it, with a number of its own. */
	for (unsigned copy = 1; copy <= 2; copy++) {
		testunit_junk(&e.t, laddr, copy == 1 ? TESTUNIT_PRIMARY : TESTUNIT_MIRROR);
		assert_true(repair_unit_read(&e.rp, laddr, MAGIC_INODE, INODE_ROOT, &back));
		assert_int_equal(le32_get(back.di_uid), 77);
		assert_int_equal(repair_unit_write(&e.rp, laddr, MAGIC_INODE, &back), 0);
	}
	assert_true(le64_get(back.di_hdr.uh_seq) > le64_get(m.di_hdr.uh_seq));
	assert_true(le64_get(back.di_hdr.uh_seq) <= e.rp.super->seq_limit);
	assert_true(limit <= e.rp.super->seq_limit);
	assert_false(repair_unit_read(&e.rp, laddr, MAGIC_INODE, INODE_ROOT + 1, &back));
	assert_false(repair_unit_read(&e.rp, laddr, MAGIC_NODE, 0, unit));
	/* What would not be believed later is not written. */
	m.di_data_format = 99;
	assert_int_equal(repair_unit_write(&e.rp, laddr, MAGIC_INODE, &m), -EUCLEAN);
	testunit_junk(&e.t, laddr, TESTUNIT_BOTH);
	assert_false(repair_unit_read(&e.rp, laddr, MAGIC_INODE, 0, &back));
	m.di_data_format = DATA_DIR;
	assert_int_equal(repair_unit_write(&e.rp, laddr, MAGIC_INODE, &m), 0);
	env_free(&e);
}

/* Units that are free, each once; when all are given away a chunk comes, and in the end there is no space. */
static void test_unit_alloc(void **state)
{
	struct env e;
	uint64_t laddr, count = 0, other = 0;
	int rc;

	(void)state;
	env_make(&e, (uint64_t)32 << 20);
	while ((rc = repair_unit_alloc(&e.rp, 0, false, &laddr)) == 0) {
		uint64_t lchunk = laddr >> CHUNK_SHIFT;
		unsigned unit = (unsigned)(laddr >> BLOCK_SHIFT) % CHUNK_BLOCKS;
		uint64_t off[2];

		assert_false(e.rp.facts->used[lchunk][unit / 64] >> unit % 64 & 1);
		assert_false(e.rp.facts->reached[lchunk][unit / 64] >> unit % 64 & 1);
		e.rp.facts->used[lchunk][unit / 64] |= 1ull << unit % 64;
		assert_int_equal(pool_place(e.t.pool, laddr, 0, &off[0]), 0);
		assert_int_equal(pool_place(e.t.pool, laddr, 1, &off[1]), 0);
		assert_true(off[0] != off[1]);
		other += lchunk != 0;
		count++;
	}
	assert_int_equal(rc, -ENOSPC);
	assert_true(other >= 4 * CHUNK_BLOCKS && other % CHUNK_BLOCKS == 0);
	assert_true(e.rp.redo[0]);
	env_free(&e);
}

/* ---- trees ---- */

struct seen {
	enum node_kind kind;
	const uint8_t *recs;
	const void *const *ptrs;
	size_t at;
};

static void rec_seen(void *arg, const void *rec, size_t size_bytes)
{
	struct seen *s = arg;
	const void *want = s->ptrs ? s->ptrs[s->at] : s->recs + s->at * size_bytes;

	assert_memory_equal(rec, want, size_bytes);
	s->at++;
}

static void tree_try(struct env *e, enum node_kind kind, const void *recs, size_t count, size_t root_size)
{
	const struct node_ops *ops = node_ops(kind);
	_Alignas(64) uint8_t root[AG_ROOT_SIZE];
	struct seen seen = {
		.kind = kind,
		.recs = recs,
		.ptrs = ops->rec_size_bytes ? NULL : recs,
	};
	struct check_report report;
	struct check_opts opts = { 0 };
	struct check ck;
	struct check_tree tree = {
		.ck = &ck, .kind = kind, .owner = 1, .name = "tree", .fn = rec_seen, .arg = &seen
	};

	assert_int_equal(repair_bulk(&e->rp, 0, kind, 1, recs, count, root, root_size), 0);
	assert_null(node_body_check(root, root_size));
	assert_int_equal(check_make(&ck, e->t.pool, &opts, &report), 0);
	ck.seq_end = UINT64_MAX;
	check_tree(&tree, root, root_size);
	assert_int_equal(report.findings, 0);
	assert_int_equal(seen.at, count);
	check_free(&ck);
}

static const size_t counts[] = { 0, 1, 5, 9, 10, 140, 150, 1000, 20000 };

static void test_bulk_fixed(void **state)
{
	struct m_extent *extents = calloc(20000, sizeof(*extents));
	struct m_rmap *rmaps = calloc(20000, sizeof(*rmaps));
	struct env e;

	(void)state;
	env_make(&e, 0);
	for (uint64_t i = 0; i < 20000; i++) {
		extent_encode(&extents[i], &(struct extent){ 5 + i * 3, 1000 + i, 2, 0 });
		rmap_encode(&rmaps[i], &(struct rmap){ 1000 + i / 3, 7, i % 3 * 100, 1 + i % 5, 0 });
	}
	for (unsigned i = 0; i < ARRAY_SIZE(counts); i++) {
		tree_try(&e, NODE_EXTENT, extents, counts[i], INODE_DATA_SIZE);
		tree_try(&e, NODE_RMAP, rmaps, counts[i], AG_ROOT_SIZE);
	}
	free(extents);
	free(rmaps);
	env_free(&e);
}

static void test_bulk_variable(void **state)
{
	enum { COUNT = 4000 };
	const void **recs = calloc(COUNT, sizeof(*recs));
	struct env e;

	(void)state;
	env_make(&e, 0);
	for (uint64_t i = 0; i < COUNT; i++) {
		size_t len = 1 + (i * 37) % FS_NAME_MAX,
		       size = u64_align_up(sizeof(struct m_dirent) + len, 8);
		struct m_dirent *m = calloc(1, size);

		*m = (struct m_dirent){
			.de_key = le64_of(16 + i * 1000),
			.de_len_bytes = le16_of((uint16_t)size),
			.de_type = DT_REG,
			.de_namelen = (uint8_t)len,
			.de_ino = le64_of(i + 2),
		};
		memset(m->de_name, 'a' + (int)(i % 26), len);
		recs[i] = m;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(counts); i++)
		tree_try(&e, NODE_DIR, recs, u64_min(counts[i], COUNT), INODE_DATA_SIZE);
	for (unsigned i = 0; i < COUNT; i++)
		free((void *)(uintptr_t)recs[i]);
	free(recs);
	env_free(&e);
}

static void test_bulk_refuses(void **state)
{
	_Alignas(64) uint8_t root[INODE_DATA_SIZE];
	struct m_extent x[2];
	struct env e;

	(void)state;
	env_make(&e, 0);
	extent_encode(&x[0], &(struct extent){ 10, 1000, 5, 0 });
	extent_encode(&x[1], &(struct extent){ 14, 2000, 5, 0 }); /* overlaps */
	assert_int_equal(repair_bulk(&e.rp, 0, NODE_EXTENT, 1, x, 2, root, sizeof(root)), -EUCLEAN);
	extent_encode(&x[1], &(struct extent){ 2, 2000, 5, 0 }); /* not in order */
	assert_int_equal(repair_bulk(&e.rp, 0, NODE_EXTENT, 1, x, 2, root, sizeof(root)), -EUCLEAN);
	extent_encode(&x[1], &(struct extent){ 20, 2000, 0, 0 }); /* no blocks */
	assert_int_equal(repair_bulk(&e.rp, 0, NODE_EXTENT, 1, x, 2, root, sizeof(root)), -EUCLEAN);
	env_free(&e);
}

/* ---- rows ---- */

#define SORT_ROWS 3000u

static int word_compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* By value of the first word; the others have to come along. */
static uint64_t sort_word(unsigned pattern, size_t i, size_t count, uint64_t *seed)
{
	switch (pattern) {
	case 0:
		return testfs_random(seed);
	case 1:
		return testfs_below(seed, 3);
	case 2:
		return count - i;
	case 3:
		return i < count / 2 ? i : count - i; /* an organ pipe */
	default:
		return i % 2 ? i : count + i;
	}
}

static void sort_once(unsigned pattern, size_t count, size_t words, uint64_t *seed)
{
	struct rows rows = { malloc((count + 1) * words * sizeof(uint64_t)), count, count + 1 };
	uint64_t *all = rows.data, sum = 0;

	assert_non_null(all);
	for (size_t i = 0; i < count; i++) {
		for (size_t k = 0; k < words; k++)
			all[i * words + k] = k == 0 ? sort_word(pattern, i, count, seed) :
						      all[i * words] * (k + 1);
		sum += all[i * words];
	}
	rows_sort(&rows, words * sizeof(uint64_t), word_compare);
	for (size_t i = 0; i < count; i++) {
		assert_true(i == 0 || all[(i - 1) * words] <= all[i * words]);
		for (size_t k = 1; k < words; k++)
			assert_int_equal(all[i * words + k], all[i * words] * (k + 1));
		sum -= all[i * words];
	}
	assert_int_equal(sum, 0);
	rows_free(&rows);
}

static void test_rows_sort(void **state)
{
	uint64_t seed = testfs_seed();

	(void)state;
	for (unsigned pattern = 0; pattern < 5; pattern++) {
		for (size_t count = 0; count < 70; count++)
			sort_once(pattern, count, 4, &seed);
		for (size_t words = 1; words <= 7; words++)
			sort_once(pattern, SORT_ROWS - words, words, &seed);
	}
}

/* Numbers that are only decided when they are compared, so that each choice of a pivot is a bad one. */
static unsigned *killer_values, killer_solid, killer_candidate;

static int killer_compare(const void *a, const void *b)
{
	unsigned x = *(const unsigned *)a, y = *(const unsigned *)b, gas = SORT_ROWS;

	if (killer_values[x] == gas && killer_values[y] == gas)
		killer_values[x == killer_candidate ? x : y] = killer_solid++;
	if (killer_values[x] == gas)
		killer_candidate = x;
	else if (killer_values[y] == gas)
		killer_candidate = y;
	return killer_values[x] < killer_values[y] ? -1 : killer_values[x] > killer_values[y];
}

static void test_rows_sort_killer(void **state)
{
	unsigned values[SORT_ROWS], all[SORT_ROWS];
	struct rows rows = { all, SORT_ROWS, SORT_ROWS };

	(void)state;
	killer_values = values;
	killer_solid = killer_candidate = 0;
	for (unsigned i = 0; i < SORT_ROWS; i++) {
		all[i] = i;
		values[i] = SORT_ROWS;
	}
	rows_sort(&rows, sizeof(*all), killer_compare);
	for (unsigned i = 1; i < SORT_ROWS; i++)
		assert_true(values[all[i - 1]] <= values[all[i]]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unit_write),       cmocka_unit_test(test_unit_alloc),
		cmocka_unit_test(test_bulk_fixed),       cmocka_unit_test(test_bulk_variable),
		cmocka_unit_test(test_bulk_refuses),     cmocka_unit_test(test_rows_sort),
		cmocka_unit_test(test_rows_sort_killer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
