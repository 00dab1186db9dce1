/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See space_check.h. It reads the media through a transaction like any reader, and looks inside the floor for what is in DRAM.
 */
#include "lib/space_check.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "space/bits.h"
#include "space/priv.h"

void test_pool_make(struct test_pool *t, uint64_t size_bytes, const struct format_opts *opts)
{
	const struct format_opts none = { 0 };
	const struct pool_opts pool_opts = { 0 };
	char why[256] = "";

	assert_int_equal(dax_open_ram(size_bytes, NULL, NULL, &t->dax), 0);
	if (pool_format(t->dax, opts ? opts : &none, NULL, why, sizeof(why)))
		fail_msg("format: %s", why);
	if (pool_open(t->dax, &pool_opts, &t->pool, why, sizeof(why)))
		fail_msg("open: %s", why);
	assert_int_equal(space_open(t->pool), 0);
}

void test_pool_reopen(struct test_pool *t)
{
	const struct pool_opts pool_opts = { 0 };
	char why[256] = "";

	space_close(t->pool);
	pool_close(t->pool, true);
	if (pool_open(t->dax, &pool_opts, &t->pool, why, sizeof(why)))
		fail_msg("open: %s", why);
	assert_int_equal(space_open(t->pool), 0);
}

void test_pool_free(struct test_pool *t)
{
	space_close(t->pool);
	pool_close(t->pool, true);
	dax_close(t->dax);
}

uint64_t block_owner_hash(uint64_t owner, uint64_t offset_blk)
{
	uint64_t h = (owner * 0x9e3779b97f4a7c15ull ^ offset_blk) * 0xff51afd7ed558ccdull;

	return h ^ h >> 29;
}

uint64_t space_random(struct space_rng *rng, uint64_t below)
{
	uint64_t z = rng->state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return (z ^ z >> 31) % below;
}

uint64_t space_seed(void)
{
	const char *text = getenv("UMBRA_SEED");
	struct timespec ts;
	uint64_t seed;

	clock_gettime(CLOCK_REALTIME, &ts);
	seed = text ? strtoull(text, NULL, 0) :
		      (uint64_t)ts.tv_nsec ^ (uint64_t)ts.tv_sec << 20 ^ (uint64_t)getpid();
	print_message("# UMBRA_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

/* ---- one group ---- */

struct walk {
	struct pool *pool;
	struct space_seen *seen;
	uint32_t *all; /* records of each block, special owners too */
};

static int see_rmap(void *arg, const struct rmap *r)
{
	struct walk *w = arg;

	for (uint64_t i = 0; i < r->count_blk; i++) {
		w->all[r->start_blk + i]++;
		if (r->owner & OWNER_SPECIAL)
			continue;
		w->seen->blocks[r->start_blk + i].count++;
		w->seen->blocks[r->start_blk + i].hash += block_owner_hash(r->owner, r->offset_blk + i);
	}
	return 0;
}

static void check_bitmap(struct group_tx *at, const struct walk *w)
{
	struct group *g = at->g;
	uint32_t first_unit = AG_UNIT_TABLE + ag_table_units(g->space->ag_chunks);
	uint64_t free_blk = 0;

	for (uint64_t b = 0; b < g->length_blk; b++) {
		uint64_t chunk = b / CHUNK_BLOCKS, bit = b % CHUNK_BLOCKS;
		bool owned, taken;
		const struct m_bitmap *m;
		const void *unit;

		assert_int_equal(
			txn_get(at->tx,
				slot_laddr(g, 0, first_unit + (uint32_t)(chunk / BITMAP_CHUNKS_PER_UNIT)),
				MAGIC_BITMAP, &unit),
			0);
		m = unit;
		owned = m->bm_bits[chunk % BITMAP_CHUNKS_PER_UNIT][bit / 8] >> bit % 8 & 1;
		taken = index_is_taken(&g->index, b, 1);
		if (owned != (w->all[g->start_blk + b] > 0))
			fail_msg("block %llu: bitmap %d, rmap %u", (unsigned long long)(g->start_blk + b),
				 owned, w->all[g->start_blk + b]);
		if (owned != taken)
			fail_msg("block %llu: bitmap %d, index %d", (unsigned long long)(g->start_blk + b),
				 owned, taken);
		free_blk += !owned;
	}
	assert_int_equal(free_blk, at->now.free_blk);
	assert_int_equal(free_blk, g->index.free_blk);
	w->seen->free_blk += free_blk;
}

static void check_refcounts(struct group_tx *at, const struct walk *w)
{
	struct group *g = at->g;
	struct refcount last = { 0 };
	struct bt_cursor cur;
	uint64_t pos = g->start_blk;
	int rc = bt_seek(group_tree(at, AG_REFCOUNT), &cur, &(struct bt_key){ { 0 } }, BT_GE);

	for (;; rc = bt_next(&cur)) {
		struct refcount r = { .start_blk = g->start_blk + g->length_blk };
		const void *rec;
		size_t size;

		if (!rc) {
			assert_int_equal(bt_get(&cur, &rec, &size), 0);
			refcount_decode(&r, rec);
			assert_true(r.refs >= 2 && r.start_blk >= pos);
			if (last.count_blk && last.start_blk + last.count_blk == r.start_blk)
				assert_int_not_equal(last.refs, r.refs);
			last = r;
		} else {
			assert_int_equal(rc, -ENOENT);
		}
		for (; pos < r.start_blk; pos++)
			assert_true(w->all[pos] <= 1);
		if (rc)
			break;
		for (; pos < r.start_blk + r.count_blk; pos++) {
			if (w->all[pos] != r.refs)
				fail_msg("block %llu: refcount %llu, rmap %u", (unsigned long long)pos,
					 (unsigned long long)r.refs, w->all[pos]);
		}
	}
}

/* A cluster with free inodes that the group has seen is not forgotten. */
static void check_hint(const struct group *g, uint64_t first_ino)
{
	uint32_t slot = laddr_slot(g, first_ino << INODE_SHIFT);

	assert_true(g->clusters[slot] >> laddr_unit(first_ino << INODE_SHIFT) / CLUSTER_UNITS & 1);
	assert_true(slot >= g->clusters_low);
}

/* Clusters in the inode tree; returns how many. */
static uint64_t check_inodes(struct group_tx *at, struct space_seen *seen)
{
	uint64_t clusters = 0, free = 0, count;
	struct bt_cursor cur;
	int rc = bt_seek(group_tree(at, AG_INODES), &cur, &(struct bt_key){ { 0 } }, BT_GE);

	for (; !rc; rc = bt_next(&cur)) {
		const struct m_inode_cluster *m;
		const void *rec;
		size_t size;

		assert_int_equal(bt_get(&cur, &rec, &size), 0);
		m = rec;
		assert_int_equal(le64_get(m->ic_first_ino) % CLUSTER_INODES, 0);
		free += (unsigned)__builtin_popcountll(le64_get(m->ic_free_mask));
		if (le64_get(m->ic_free_mask) && le64_get(m->ic_first_ino) < at->g->clusters_seen)
			check_hint(at->g, le64_get(m->ic_first_ino));
		clusters++;
	}
	assert_int_equal(rc, -ENOENT);
	count = clusters * CLUSTER_INODES - (at->g->agno == 0);
	assert_int_equal(count, at->now.inode_count);
	assert_int_equal(free, at->now.inode_free);
	seen->inode_count += count;
	seen->inode_free += free;
	return clusters;
}

static void check_units(struct group_tx *at, const struct walk *w, uint64_t clusters)
{
	struct group *g = at->g;
	uint64_t used = 0, nodes = 0, chunks = 0, free = 0, empty = 0;

	for (uint32_t slot = 0; slot < g->space->ag_chunks; slot++) {
		const struct m_chunk *entry;

		assert_int_equal(meta_slot_get(at, slot, &entry), 0);
		if (le32_get(entry->ck_primary) == 0) {
			assert_int_equal(g->units_free[slot], SLOT_ABSENT);
			assert_int_equal(le32_get(entry->ck_used_count), 0);
			continue;
		}
		assert_int_equal(w->all[(uint64_t)le32_get(entry->ck_primary) * CHUNK_BLOCKS], 1);
		if (le32_get(entry->ck_mirror))
			assert_int_equal(w->all[(uint64_t)le32_get(entry->ck_mirror) * CHUNK_BLOCKS], 1);
		chunks++;
		used += le32_get(entry->ck_used_count);
		free += CHUNK_BLOCKS - le32_get(entry->ck_used_count);
		empty += slot > 0 && le32_get(entry->ck_used_count) == 0;
		assert_int_equal(g->units_free[slot], CHUNK_BLOCKS - le32_get(entry->ck_used_count));
		assert_true(slot < g->slot_end);
	}
	assert_int_equal(chunks, at->now.meta_chunks);
	assert_int_equal(free, at->now.meta_free);
	assert_int_equal(empty, g->empty_slots);
	for (unsigned i = 0; i < AG_TREES; i++) {
		uint64_t n, records;
		const char *why = "";

		if (bt_verify(group_tree(at, (enum ag_tree)i), &why))
			fail_msg("group %u, tree %u: %s", g->agno, i, why);
		assert_int_equal(bt_count(group_tree(at, (enum ag_tree)i), &n, &records), 0);
		nodes += n;
	}
	used -= ag_fixed_units(g->space->ag_chunks) + nodes + (clusters - 1) * CLUSTER_UNITS;
	w->seen->units_used += used;
}

static void check_header(struct group_tx *at)
{
	const struct m_ag *m;
	const void *unit;

	assert_int_equal(txn_get(at->tx, slot_laddr(at->g, 0, AG_UNIT_HEADER), MAGIC_AG, &unit), 0);
	m = unit;
	assert_int_equal(le64_get(m->ag_free_blk), at->now.free_blk);
	assert_int_equal(le64_get(m->ag_inode_count), at->now.inode_count);
	assert_int_equal(le64_get(m->ag_inode_free), at->now.inode_free);
	assert_int_equal(le32_get(m->ag_meta_chunks), at->now.meta_chunks);
	assert_int_equal(le32_get(m->ag_meta_free_units), at->now.meta_free);
}

void space_check(struct pool *pool, struct space_seen *seen)
{
	uint64_t size_blk = pool_super(pool)->size_blk;
	struct walk w = { .pool = pool, .seen = seen };
	struct txn *tx = txn_begin(pool, TXN_READ);

	*seen = (struct space_seen){ 0 };
	seen->blocks = calloc(size_blk, sizeof(*seen->blocks));
	w.all = calloc(size_blk, sizeof(*w.all));
	assert_non_null(seen->blocks);
	assert_non_null(w.all);
	assert_int_equal(space_of(pool)->windows.free_blk, 0);
	for (uint32_t agno = 0; agno < pool_ag_count(pool); agno++) {
		struct group_tx *at;

		/* One group at a time: a record never leaves its group. */
		assert_int_equal(group_enter(tx, agno, &at), 0);
		assert_int_equal(space_owners(tx, at->g->start_blk, at->g->length_blk, see_rmap, &w), 0);
	}
	for (uint32_t agno = 0; agno < pool_ag_count(pool); agno++) {
		struct group_tx *at;

		assert_int_equal(group_enter(tx, agno, &at), 0);
		check_header(at);
		check_bitmap(at, &w);
		check_refcounts(at, &w);
		check_units(at, &w, check_inodes(at, seen));
	}
	txn_abort(tx);
	free(w.all);
}
