/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Without which nothing else can be found: superblocks, chunk tables, intents, remap lists. And what a repair that did not come to its
 * end leaves behind.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/testrepair.h"
#include "media/super.h"

#define POOL_BYTES ((uint64_t)256 << 20)

static uint64_t fixed(struct testrepair *e, uint32_t agno, uint32_t unit)
{
	return pool_ag_unit(e->t.pool, agno, unit);
}

static void junk_unit(struct testrepair *e, uint64_t laddr)
{
	testunit_junk(&e->t, laddr, TESTUNIT_BOTH);
}

static void scene(bool with_xattrs, void (*damage)(struct testrepair *e), unsigned lost_max)
{
	struct testrepair e;

	testrepair_make(&e, POOL_BYTES, with_xattrs);
	fs_close(e.t.fs);
	damage(&e);
	pool_close(e.t.pool, true);
	testrepair_mend(&e, lost_max);
	testrepair_verify(&e);
	testfs_free(&e.t);
}

/* ---- tables ---- */

static uint32_t ag_chunks(const struct testrepair *e)
{
	return (uint32_t)(pool_super(e->t.pool)->ag_size_blk / CHUNK_BLOCKS);
}

static unsigned chunks_in_use(struct testrepair *e, uint32_t agno)
{
	_Alignas(64) struct m_chunks m;
	unsigned count = 0;

	testunit_load(&e->t, fixed(e, agno, AG_UNIT_TABLE), &m, sizeof(m));
	for (unsigned i = 0; i < CHUNKS_PER_UNIT; i++)
		count += le32_get(m.ct_chunks[i].ck_primary) != 0;
	return count;
}

static void lose_tables(struct testrepair *e)
{
	unsigned chunks = 0;

	for (uint32_t agno = 0; agno < pool_super(e->t.pool)->ag_count; agno++) {
		chunks += chunks_in_use(e, agno);
		for (uint32_t i = 0; i < ag_table_units(ag_chunks(e)); i++)
			junk_unit(e, fixed(e, agno, AG_UNIT_TABLE + i));
	}
	assert_true(chunks > 8); /* some of them far from slot 0 */
}

static void lose_table(struct testrepair *e)
{
	junk_unit(e, fixed(e, 0, AG_UNIT_TABLE));
}

static void lose_tables_and_rmaps(struct testrepair *e)
{
	static uint64_t laddrs[1000];

	for (uint32_t agno = 0; agno < pool_super(e->t.pool)->ag_count; agno++) {
		size_t n = testrepair_nodes(e, agno, AG_RMAP, false, laddrs);

		for (size_t i = 0; i < n; i++)
			junk_unit(e, laddrs[i]);
		junk_unit(e, fixed(e, agno, AG_UNIT_HEADER));
	}
	lose_tables(e);
}

static void lose_plain(struct testrepair *e)
{
	junk_unit(e, fixed(e, 0, AG_UNIT_INTENTS));
	junk_unit(e, fixed(e, 1, AG_UNIT_REMAP));
	junk_unit(e, fixed(e, 1, AG_UNIT_INTENTS));
}

static void test_table(void **state)
{
	(void)state;
	scene(false, lose_table, 0);
	scene(true, lose_table, 0);
}

static void test_tables(void **state)
{
	(void)state;
	scene(true, lose_tables, 0);
}

static void test_tables_and_rmaps(void **state)
{
	(void)state;
	scene(true, lose_tables_and_rmaps, 0);
}

static void test_plain(void **state)
{
	(void)state;
	scene(false, lose_plain, 2);
}

/* ---- tables that lie ---- */

/* Entries of group 0 in use, slot 0 not counted. */
static struct m_chunk *used_entry(struct m_chunks *m, unsigned index)
{
	for (unsigned i = 1; i < CHUNKS_PER_UNIT; i++) {
		if (le32_get(m->ct_chunks[i].ck_primary) != 0 && index-- == 0)
			return &m->ct_chunks[i];
	}
	fail_msg("too few metadata chunks");
	return NULL;
}

static void lie_table(struct testrepair *e)
{
	_Alignas(64) struct m_chunks m;
	struct m_chunk *a, *b;

	testunit_load(&e->t, fixed(e, 0, AG_UNIT_TABLE), &m, sizeof(m));
	a = used_entry(&m, 0);
	b = used_entry(&m, 1);
	/* One mirror is gone, one is somebody else's primary, one chunk is where none can be, and slot 0 is elsewhere. */
	a->ck_mirror = le32_of(0);
	b->ck_mirror = a->ck_primary;
	used_entry(&m, 2)->ck_primary = le32_of(0x7fffffff);
	m.ct_chunks[0].ck_mirror = le32_of(0);
	m.ct_chunks[CHUNKS_PER_UNIT - 1].ck_primary = le32_of(1);
	testunit_store(&e->t, fixed(e, 0, AG_UNIT_TABLE), &m, sizeof(m), TESTUNIT_BOTH);
}

static void lie_remap(struct testrepair *e)
{
	_Alignas(64) struct m_remaps m;

	testunit_load(&e->t, fixed(e, 0, AG_UNIT_REMAP), &m, sizeof(m));
	m.rl_count = le32_of(2);
	m.rl_entries[0].rp_laddr = le64_of(17);
	m.rl_entries[1].rp_laddr = le64_of(BLOCK_SIZE << 20);
	m.rl_entries[1].rp_place_blk = le64_of(1ull << 50);
	testunit_store(&e->t, fixed(e, 0, AG_UNIT_REMAP), &m, sizeof(m), TESTUNIT_BOTH);
}

static void test_lies(void **state)
{
	(void)state;
	scene(true, lie_table, 0);
	scene(false, lie_remap, 0);
}

/* ---- superblocks ---- */

static void zero(struct testrepair *e, uint64_t blk)
{
	assert_int_equal(dax_zero(e->t.dax, blk * BLOCK_SIZE, BLOCK_SIZE), 0);
}

static void lose_supers(struct testrepair *e)
{
	const struct super *s = pool_super(e->t.pool);

	zero(e, 0);
	zero(e, s->size_blk - 1);
}

static void test_supers(void **state)
{
	struct testrepair e;
	struct super before;
	struct dax *dax;

	(void)state;
	for (unsigned header = 0; header < 2; header++) {
		testrepair_make(&e, POOL_BYTES, false);
		before = *pool_super(e.t.pool);
		fs_close(e.t.fs);
		if (header)
			junk_unit(&e, fixed(&e, 0, AG_UNIT_HEADER));
		dax = e.t.dax;
		pool_close(e.t.pool, true);
		assert_int_equal(dax_zero(dax, 0, BLOCK_SIZE), 0);
		assert_int_equal(dax_zero(dax, (before.size_blk - 1) * BLOCK_SIZE, BLOCK_SIZE), 0);
		testrepair_mend(&e, 0);
		assert_memory_equal(&pool_super(e.t.pool)->uuid, &before.uuid, sizeof(before.uuid));
		assert_memory_equal(pool_super(e.t.pool)->hash_seed, before.hash_seed, 16);
		assert_int_equal(pool_super(e.t.pool)->created_ns, before.created_ns);
		assert_true(pool_super(e.t.pool)->incompat == before.incompat);
		testrepair_verify(&e);
		testfs_free(&e.t);
	}
}

static void lose_supers_and_places(struct testrepair *e)
{
	lose_table(e);
	lose_plain(e);
	lose_supers(e);
}

/* pool_close() of the scene writes the superblocks again: nobody closes here. */
static void test_supers_and_places(void **state)
{
	struct testrepair e;

	(void)state;
	testrepair_make(&e, POOL_BYTES, true);
	fs_close(e.t.fs);
	lose_supers_and_places(&e);
	pool_close(e.t.pool, false);
	testrepair_mend(&e, 2);
	testrepair_verify(&e);
	testfs_free(&e.t);
}

static void test_no_pool(void **state)
{
	struct repair_opts opts = { 0 };
	struct repair_report report;
	struct dax *dax;
	char why[256];

	(void)state;
	assert_int_equal(dax_open_ram(POOL_BYTES, NULL, NULL, &dax), 0);
	assert_int_equal(repair_pool(dax, &opts, &report, why, sizeof(why)), -EUCLEAN);
	assert_true(*why != 0);
	assert_false(report.changed);
	dax_close(dax);
}

/* ---- a repair that did not come to its end ---- */

static void test_unfinished(void **state)
{
	const struct pool_opts plain = { 0 }, look = { .readonly = true },
			       repair = { .readonly = true, .repair = true };
	struct testrepair e;
	struct repair_opts opts = { 0 };
	struct repair_report report;
	struct pool *pool;
	struct dax *dax;
	char why[256];

	(void)state;
	testrepair_make(&e, POOL_BYTES, false);
	dax = e.t.dax;
	fs_close(e.t.fs);
	pool_close(e.t.pool, true);
	assert_int_equal(pool_open(dax, &repair, &pool, why, sizeof(why)), 0);
	assert_int_equal(pool_repair_begin(pool), 0);
	pool_close(pool, false);
	assert_int_equal(pool_open(dax, &plain, &pool, why, sizeof(why)), -EUCLEAN);
	assert_non_null(strstr(why, "fsck.umbrafs"));
	assert_int_equal(pool_open(dax, &look, &pool, why, sizeof(why)), 0);
	pool_close(pool, false);
	/* The next one looks at everything, finds nothing, and that is the end. */
	assert_int_equal(repair_pool(dax, &opts, &report, why, sizeof(why)), 0);
	assert_true(report.walked);
	assert_int_equal(report.before.findings, 0);
	assert_int_equal(pool_open(dax, &plain, &pool, why, sizeof(why)), 0);
	pool_close(pool, true);
	assert_int_equal(repair_pool(dax, &opts, &report, why, sizeof(why)), 0);
	assert_false(report.walked);
	dax_close(dax);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_tables),
		cmocka_unit_test(test_tables_and_rmaps),
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_lies),
		cmocka_unit_test(test_supers),
		cmocka_unit_test(test_supers_and_places),
		cmocka_unit_test(test_no_pool),
		cmocka_unit_test(test_unfinished),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
