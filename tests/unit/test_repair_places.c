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

/* Content and CRC are right in both copies; the headers name other owners, or transactions to come. */
static void lie_header(struct testrepair *e, uint64_t laddr, size_t size, uint64_t owner, uint64_t seq)
{
	_Alignas(64) uint8_t unit[BLOCK_SIZE];
	struct m_unit_hdr *hdr = (void *)unit;

	testunit_load(&e->t, laddr, unit, size);
	if (owner)
		hdr->uh_owner = le64_of(owner);
	if (seq)
		hdr->uh_seq = le64_of(seq);
	testunit_store(&e->t, laddr, unit, size, TESTUNIT_BOTH);
}

static void lie_headers(struct testrepair *e)
{
	uint64_t seq = pool_super(e->t.pool)->seq_limit;

	lie_header(e, fixed(e, 0, AG_UNIT_REMAP), BLOCK_SIZE, 0x24800000003, 0);
	lie_header(e, fixed(e, 0, AG_UNIT_HEADER), BLOCK_SIZE, 0, seq + 1);
	lie_header(e, fixed(e, 1, AG_UNIT_TABLE), BLOCK_SIZE, 77, seq << 20);
	lie_header(e, INODE_ROOT << INODE_SHIFT, INODE_SIZE, 0, 1ull << 62);
}

static void test_lies(void **state)
{
	(void)state;
	scene(true, lie_table, 0);
	scene(false, lie_remap, 0);
	scene(false, lie_headers, 0);
}

/* ---- units that lie elsewhere ---- */

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

/* A block of the group that nobody has, by the bitmap; number so many of them. */
static uint64_t free_blk(struct testrepair *e, uint32_t agno, unsigned number)
{
	_Alignas(64) struct m_bitmap m;

	testunit_load(&e->t, fixed(e, agno, AG_UNIT_TABLE + ag_table_units(ag_chunks(e))), &m, sizeof(m));
	for (uint64_t blk = 0; blk < pool_ag_length_blk(e->t.pool, agno); blk++) {
		if (!(m.bm_bits[blk / CHUNK_BLOCKS][blk % CHUNK_BLOCKS / 8] >> blk % 8 & 1) && number-- == 0)
			return pool_ag_start_blk(e->t.pool, agno) + blk;
	}
	fail_msg("no free block");
	return 0;
}

/* One copy of a unit moves to a block; where it was there is nothing any more. */
static struct remap unit_move(struct testrepair *e, uint64_t laddr, unsigned copy, uint64_t blk)
{
	uint64_t off;

	assert_int_equal(pool_place(e->t.pool, laddr, copy, &off), 0);
	assert_int_equal(dax_move(e->t.dax, blk * BLOCK_SIZE, off, BLOCK_SIZE), 0);
	assert_int_equal(dax_zero(e->t.dax, off, BLOCK_SIZE), 0);
	return (struct remap){ .laddr = laddr, .place_blk = blk, .copy = copy };
}

static void list_add(struct m_remaps *m, const struct remap *r)
{
	uint32_t count = le32_get(m->rl_count);

	m->rl_entries[count] =
		(struct m_remap){ le64_of(r->laddr), le64_of(r->place_blk), le32_of(r->copy), le32_of(0) };
	m->rl_count = le32_of(count + 1);
}

static void super_lists(struct testrepair *e, uint64_t laddr, unsigned copy, uint64_t blk)
{
	const struct super *s = pool_super(e->t.pool);

	assert_int_equal(s->remap_count, 1);
	assert_int_equal(s->remaps[0].laddr, laddr);
	assert_int_equal(s->remaps[0].copy, copy);
	assert_int_equal(s->remaps[0].place_blk, blk);
}

/* Units of both kinds: in the list of a group, and in that of the superblock. */
static void test_remaps(void **state)
{
	_Alignas(64) struct m_remaps list, now;
	struct remap moved[3];
	struct testrepair e;
	uint64_t inode;

	(void)state;
	testrepair_make(&e, POOL_BYTES, false);
	fs_close(e.t.fs);
	inode = e.inos[0] << INODE_SHIFT & ~(uint64_t)(BLOCK_SIZE - 1);
	testunit_load(&e.t, fixed(&e, 0, AG_UNIT_REMAP), &list, sizeof(list));
	moved[0] = unit_move(&e, fixed(&e, 0, AG_UNIT_INTENTS), 1, free_blk(&e, 0, 10));
	moved[1] = unit_move(&e, inode, 0, free_blk(&e, 1, 20));
	moved[2] = unit_move(&e, fixed(&e, 1, AG_UNIT_HEADER), 0, free_blk(&e, 0, 30));
	/* By address: an inode of the first cluster comes before the fixed units. */
	list_add(&list, &moved[moved[0].laddr > inode]);
	list_add(&list, &moved[moved[0].laddr < inode]);
	testunit_store(&e.t, fixed(&e, 0, AG_UNIT_REMAP), &list, sizeof(list), TESTUNIT_BOTH);
	assert_int_equal(pool_remap_super(e.t.pool, &moved[2]), 0);
	pool_close(e.t.pool, true);
	/* Their blocks get their owner. */
	testrepair_mend(&e, 0);
	super_lists(&e, moved[2].laddr, moved[2].copy, moved[2].place_blk);

	fs_close(e.t.fs);
	junk_unit(&e, fixed(&e, 0, AG_UNIT_REMAP));
	pool_close(e.t.pool, true);
	testrepair_mend(&e, 0);
	testunit_load(&e.t, fixed(&e, 0, AG_UNIT_REMAP), &now, sizeof(now));
	assert_int_equal(le32_get(now.rl_count), 2);
	assert_memory_equal(now.rl_entries, list.rl_entries, sizeof(now.rl_entries));

	fs_close(e.t.fs);
	lose_supers(&e);
	pool_close(e.t.pool, false);
	testrepair_mend(&e, 0);
	super_lists(&e, moved[2].laddr, moved[2].copy, moved[2].place_blk);
	testrepair_verify(&e);
	testfs_free(&e.t);
}

/* ---- superblocks ---- */

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

struct answers {
	bool yes[REPAIR_PARTS];
	unsigned asked;
};

static bool answer(void *arg, enum repair_part part, bool safe, const char *what)
{
	struct answers *a = arg;

	(void)safe, (void)what;
	a->asked++;
	return a->yes[part];
}

/* What is left could spread: the next mount reads only. What does no harm is no reason for that. */
static void partly(void (*damage)(struct testrepair *e), const struct answers *given, bool changed,
		   bool unfinished)
{
	const struct pool_opts plain = { 0 }, look = { .readonly = true };
	struct answers answers = *given;
	struct repair_opts opts = { .may = answer, .arg = &answers, .force = true };
	struct repair_report report;
	struct testrepair e;
	struct pool *pool;
	char why[256];

	testrepair_make(&e, POOL_BYTES, false);
	fs_close(e.t.fs);
	damage(&e);
	pool_close(e.t.pool, true);
	assert_int_equal(repair_pool(e.t.dax, &opts, &report, why, sizeof(why)), 0);
	assert_true(answers.asked != 0);
	assert_true(report.after.findings != 0);
	assert_true(report.changed == changed);
	assert_true(report.unfinished == unfinished);
	assert_int_equal(pool_open(e.t.dax, &look, &pool, why, sizeof(why)), 0);
	assert_true(!!(pool_super(pool)->state & SUPER_STATE_REPAIR) == unfinished);
	/* Where nothing was written it is still what it was. */
	assert_true(!!(pool_super(pool)->state & SUPER_STATE_CLEAN) == !changed);
	pool_close(pool, false);
	if (unfinished)
		assert_int_equal(pool_open(e.t.dax, &plain, &pool, why, sizeof(why)), -EUCLEAN);
	testrepair_mend(&e, TESTREPAIR_FILES);
	testfs_free(&e.t);
}

static void spoil_copy(struct testrepair *e)
{
	testunit_junk(&e->t, fixed(e, 0, AG_UNIT_HEADER), TESTUNIT_MIRROR);
}

static void spoil_copy_and_inode(struct testrepair *e)
{
	spoil_copy(e);
	junk_unit(e, e->inos[7] << INODE_SHIFT);
}

static void leak_unit(struct testrepair *e)
{
	_Alignas(64) struct m_chunks m;
	_Alignas(64) struct m_ag ag;

	testunit_load(&e->t, fixed(e, 0, AG_UNIT_TABLE), &m, sizeof(m));
	m.ct_chunks[0].ck_used[CHUNK_BLOCKS / 8 - 1] |= 0x80;
	m.ct_chunks[0].ck_used_count = le32_of(le32_get(m.ct_chunks[0].ck_used_count) + 1);
	testunit_store(&e->t, fixed(e, 0, AG_UNIT_TABLE), &m, sizeof(m), TESTUNIT_BOTH);
	testunit_load(&e->t, fixed(e, 0, AG_UNIT_HEADER), &ag, sizeof(ag));
	ag.ag_meta_free_units = le32_of(le32_get(ag.ag_meta_free_units) - 1);
	testunit_store(&e->t, fixed(e, 0, AG_UNIT_HEADER), &ag, sizeof(ag), TESTUNIT_BOTH);
	spoil_copy(e);
}

static void test_partly(void **state)
{
	const struct answers none = { 0 }, mirrors = { .yes[REPAIR_MIRRORS] = true };

	(void)state;
	partly(spoil_copy, &none, false, false);
	partly(spoil_copy_and_inode, &none, false, false);
	partly(spoil_copy_and_inode, &mirrors, true, true);
	partly(leak_unit, &mirrors, true, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_tables),
		cmocka_unit_test(test_tables_and_rmaps),
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_lies),
		cmocka_unit_test(test_remaps),
		cmocka_unit_test(test_supers),
		cmocka_unit_test(test_supers_and_places),
		cmocka_unit_test(test_no_pool),
		cmocka_unit_test(test_unfinished),
		cmocka_unit_test(test_partly),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
