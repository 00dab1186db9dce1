/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Space: where blocks come from, what becomes of them at the end of a transaction, full pools, owners by the thousand, metadata chunks,
 * inode numbers, intents.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/space_check.h"

#define OWNER 500u
#define MIB (1ull << 20)

static void check(struct test_pool *t)
{
	struct space_seen seen;

	space_check(t->pool, &seen);
	free(seen.blocks);
}

static uint64_t free_blk(struct test_pool *t)
{
	struct space_totals totals;

	assert_int_equal(space_totals(t->pool, &totals), 0);
	return totals.free_blk;
}

/* One piece of a file in a transaction of its own; returns where, or 0 when the pool is full. */
static uint64_t write_piece(struct test_pool *t, struct space_want *want, uint64_t owner, uint64_t *count)
{
	uint64_t blk;
	int rc;

	do {
		struct txn *tx = txn_begin(t->pool, TXN_WRITE);

		rc = space_alloc(tx, want, &blk, count);
		if (!rc)
			rc = space_own(tx, blk, *count, owner, want->file_blk);
		if (!rc) {
			assert_int_equal(txn_commit(tx), 0);
			return blk;
		}
		txn_abort(tx);
		if (rc == -ENOBUFS && space_refill(t->pool) == -ENOSPC)
			rc = -ENOSPC;
	} while (rc == -ENOBUFS);
	assert_int_equal(rc, -ENOSPC);
	return 0;
}

static void drop(struct test_pool *t, uint64_t blk, uint64_t count, uint64_t owner, uint64_t offset)
{
	int rc;

	do {
		struct txn *tx = txn_begin(t->pool, TXN_FREEING);

		rc = space_drop(tx, blk, count, owner, offset);
		if (!rc) {
			assert_int_equal(txn_commit(tx), 0);
			return;
		}
		txn_abort(tx);
		assert_int_equal(rc, -ENOBUFS);
		assert_int_equal(space_refill(t->pool), 0);
	} while (rc);
}

/* ---- allocation ---- */

static void test_large_files_lie_in_aligned_chunks(void **state)
{
	struct space_want want = { .count_blk = 4 * CHUNK_BLOCKS, .all = true };
	struct test_pool t;
	uint64_t blk, count;

	(void)state;
	test_pool_make(&t, 256 * MIB, NULL);
	blk = write_piece(&t, &want, OWNER, &count);
	assert_int_equal(blk % CHUNK_BLOCKS, 0);
	assert_int_equal(count, 4 * CHUNK_BLOCKS);
	/* And it goes on right behind. */
	want = (struct space_want){ .count_blk = 100, .goal_blk = blk + count, .file_blk = count };
	assert_int_equal(write_piece(&t, &want, OWNER, &count), blk + 4 * CHUNK_BLOCKS);
	check(&t);
	test_pool_free(&t);
}

static void test_slow_appends_of_two_files_do_not_mix(void **state)
{
	struct space_stream streams[2] = { { 0 }, { 0 } };
	uint64_t next[2] = { 0, 0 }, extents[2] = { 0, 0 }, count;
	struct test_pool t;

	(void)state;
	test_pool_make(&t, 1024 * MIB, NULL);
	for (uint64_t f = 0; f < 6000; f++) {
		for (unsigned i = 0; i < 2; i++) {
			struct space_want want = {
				.count_blk = 1, .file_blk = f, .goal_blk = next[i], .stream = &streams[i]
			};
			uint64_t blk = write_piece(&t, &want, OWNER + i, &count);

			extents[i] += blk != next[i];
			next[i] = blk + count;
			/* Once they are large they lie as the file does. */
			if (f >= 2048)
				assert_int_equal((blk - f) % CHUNK_BLOCKS, 0);
		}
	}
	assert_true(extents[0] <= 24 && extents[1] <= 24);
	for (unsigned i = 0; i < 2; i++)
		space_stream_release(t.pool, &streams[i]);
	check(&t);
	test_pool_free(&t);
}

static void test_random_first_writes_do_not_shred(void **state)
{
	enum { BLOCKS = 16384 };
	struct space_rng rng = { space_seed() };
	struct space_stream stream = { 0 };
	uint64_t *where = calloc(BLOCKS, sizeof(*where)), extents = 1, count;
	struct test_pool t;

	(void)state;
	assert_non_null(where);
	test_pool_make(&t, 512 * MIB, NULL);
	/* Each block of a 64 MiB file is written once, in random order, as after a clone. */
	for (uint64_t left = BLOCKS, f; left > 0; left--) {
		struct space_want want = { .count_blk = 1, .stream = &stream };

		for (f = space_random(&rng, BLOCKS); where[f]; f = (f + 1) % BLOCKS)
			;
		want.file_blk = f;
		where[f] = write_piece(&t, &want, OWNER, &count);
		assert_int_equal(count, 1);
	}
	for (uint64_t f = 1; f < BLOCKS; f++)
		extents += where[f] != where[f - 1] + 1;
	print_message("# %llu extents\n", (unsigned long long)extents);
	assert_true(extents <= 80);
	space_stream_release(t.pool, &stream);
	check(&t);
	free(where);
	test_pool_free(&t);
}

static void test_small_files_fill_broken_chunks(void **state)
{
	struct test_pool t;
	uint64_t used = 0, before, count;

	(void)state;
	test_pool_make(&t, 256 * MIB, NULL);
	before = free_blk(&t);
	for (uint64_t i = 0; i < 2000; i++) {
		struct space_stream stream = { 0 };
		struct space_want want = { .count_blk = 1 + i % 3, .stream = &stream };
		uint64_t blk = write_piece(&t, &want, OWNER + i, &count);

		assert_true(blk != 0);
		used = u64_max(used, blk);
		space_stream_release(t.pool, &stream);
	}
	/* Nearly 4000 blocks: eight chunks and what lies before them in group 0. */
	assert_true(used < 20 * CHUNK_BLOCKS);
	assert_int_equal(before - free_blk(&t), 667 * 6 - 3);
	check(&t);
	test_pool_free(&t);
}

static void test_abort_gives_back(void **state)
{
	struct space_stream stream = { 0 };
	struct test_pool t;
	uint64_t blk, count, again;

	(void)state;
	test_pool_make(&t, 64 * MIB, NULL);
	for (unsigned i = 0; i < 100; i++) {
		struct space_want want = { .count_blk = 1 + i * 20,
					   .file_blk = i * 7,
					   .stream = i % 2 ? &stream : NULL };
		struct txn *tx = txn_begin(t.pool, TXN_WRITE);

		assert_int_equal(space_alloc(tx, &want, &blk, &count), 0);
		if (i % 3)
			assert_int_equal(space_own(tx, blk, count, OWNER, want.file_blk), 0);
		txn_abort(tx);
	}
	/* A window remembers its places over an abort. */
	for (unsigned i = 0; i < 2; i++) {
		struct space_want want = { .count_blk = 1, .file_blk = 5000, .stream = &stream };
		struct txn *tx = txn_begin(t.pool, TXN_WRITE);

		assert_int_equal(space_alloc(tx, &want, i ? &again : &blk, &count), 0);
		txn_abort(tx);
	}
	assert_int_equal(blk, again);
	space_stream_release(t.pool, &stream);
	check(&t);
	test_pool_free(&t);
}

static void test_freed_blocks_wait_for_the_commit(void **state)
{
	struct space_want want = { .count_blk = 4 };
	struct test_pool t;
	uint64_t blk, count, other;
	struct txn *tx;

	(void)state;
	test_pool_make(&t, 16 * MIB, NULL);
	blk = write_piece(&t, &want, OWNER, &count);
	tx = txn_begin(t.pool, TXN_WRITE);
	assert_int_equal(space_drop(tx, blk, count, OWNER, 0), 0);
	want.goal_blk = blk;
	assert_int_equal(space_alloc(tx, &want, &other, &count), 0);
	assert_int_not_equal(other, blk);
	assert_int_equal(space_own(tx, other, count, OWNER, 0), 0);
	assert_int_equal(txn_commit(tx), 0);
	assert_int_equal(write_piece(&t, &want, OWNER, &count), blk);
	check(&t);
	test_pool_free(&t);
}

/* ---- full pools ---- */

struct piece {
	uint64_t blk, count, offset;
};

static unsigned fill(struct test_pool *t, struct piece *pieces, unsigned max, uint64_t piece_blk)
{
	struct space_stream stream = { 0 };
	uint64_t offset = 0;
	unsigned n;

	for (n = 0; n < max; n++) {
		struct space_want want = { .count_blk = piece_blk,
					   .file_blk = offset,
					   .stream = n % 2 ? NULL : &stream };

		pieces[n].blk = write_piece(t, &want, OWNER, &pieces[n].count);
		if (pieces[n].blk == 0)
			break;
		pieces[n].offset = offset;
		offset += pieces[n].count + 1;
	}
	assert_true(n < max);
	space_stream_release(t->pool, &stream);
	return n;
}

static void fill_and_empty(uint64_t size_bytes, const struct format_opts *opts)
{
	enum { MAX = 60000 };
	struct piece *pieces = calloc(MAX, sizeof(*pieces));
	struct test_pool t;
	uint64_t first_free = 0;

	assert_non_null(pieces);
	test_pool_make(&t, size_bytes, opts);
	for (unsigned round = 0; round < 4; round++) {
		unsigned n = fill(&t, pieces, MAX, round % 2 ? 600 : 1);

		assert_int_equal(free_blk(&t), 0);
		check(&t);
		/* A hole in the middle of each needs more records, not fewer. */
		for (unsigned i = 0; i < n; i++) {
			if (pieces[i].count >= 3)
				drop(&t, pieces[i].blk + 1, 1, OWNER, pieces[i].offset + 1);
		}
		for (unsigned i = 0; i < n; i++) {
			drop(&t, pieces[i].blk, 1, OWNER, pieces[i].offset);
			if (pieces[i].count >= 3)
				drop(&t, pieces[i].blk + 2, pieces[i].count - 2, OWNER, pieces[i].offset + 2);
			else if (pieces[i].count == 2)
				drop(&t, pieces[i].blk + 1, 1, OWNER, pieces[i].offset + 1);
		}
		assert_true(space_trim(t.pool) >= 0);
		check(&t);
		if (round == 1)
			first_free = free_blk(&t);
		if (round > 1)
			assert_int_equal(free_blk(&t), first_free);
		test_pool_reopen(&t);
	}
	free(pieces);
	test_pool_free(&t);
}

static void test_full_pools_empty_again(void **state)
{
	const struct format_opts single = { .metadata_single = true };
	const struct format_opts groups = { .ag_size_bytes = 32 * MIB };

	(void)state;
	fill_and_empty(16 * MIB, NULL);
	fill_and_empty(64 * MIB, &single);
	fill_and_empty(160 * MIB, &groups);
}

static void test_windows_are_taken_back(void **state)
{
	enum { STREAMS = 200 };
	struct space_stream streams[STREAMS] = { { 0 } };
	struct test_pool t;
	uint64_t left, count, got = 0;

	(void)state;
	test_pool_make(&t, 64 * MIB, NULL);
	left = free_blk(&t);
	for (unsigned i = 0; i < STREAMS; i++) {
		struct space_want want = { .count_blk = 1, .stream = &streams[i] };

		assert_true(write_piece(&t, &want, OWNER + i, &count) != 0);
	}
	for (;;) {
		struct space_want want = { .count_blk = 1000, .file_blk = got };

		if (write_piece(&t, &want, OWNER + STREAMS, &count) == 0)
			break;
		got += count;
	}
	assert_int_equal(got + STREAMS, left);
	for (unsigned i = 0; i < STREAMS; i++)
		space_stream_release(t.pool, &streams[i]);
	check(&t);
	test_pool_free(&t);
}

static void test_metadata_does_not_eat_what_frees_need(void **state)
{
	struct test_pool t;
	struct space_totals totals;
	uint64_t laddr, units = 0;
	int rc;

	(void)state;
	test_pool_make(&t, 16 * MIB, NULL);
	do {
		struct txn *tx = txn_begin(t.pool, TXN_WRITE);
		void *unit;

		rc = space_meta_alloc(tx, 0, 1, &laddr);
		if (!rc) {
			assert_int_equal(txn_new(tx, laddr, MAGIC_XVAL, OWNER, &unit), 0);
			((struct m_xval *)unit)->xv_len_bytes = le32_of(1);
			assert_int_equal(txn_commit(tx), 0);
			units++;
			continue;
		}
		txn_abort(tx);
		if (rc == -ENOBUFS)
			rc = space_refill(t.pool);
	} while (!rc);
	assert_int_equal(rc, -ENOSPC);
	assert_int_equal(space_totals(t.pool, &totals), 0);
	assert_true(totals.meta_free_units >= 64 && totals.meta_free_units <= 96);
	assert_true(units > 1000); /* all of its free chunks became metadata */
	check(&t);
	test_pool_free(&t);
}

/* ---- owners ---- */

static unsigned rmap_count(struct test_pool *t, uint64_t blk, uint64_t count)
{
	struct txn *tx = txn_begin(t->pool, TXN_READ);
	struct btree bt;
	struct bt_cursor cur;
	unsigned n = 0;
	int rc;

	assert_int_equal(space_ag_tree(tx, pool_blk_ag(t->pool, blk), AG_RMAP, &bt), 0);
	for (rc = bt_overlap_first(&bt, &cur, blk, blk + count - 1); !rc;
	     rc = bt_overlap_next(&cur, blk, blk + count - 1))
		n++;
	txn_abort(tx);
	return n;
}

static void test_records_of_one_owner_merge(void **state)
{
	struct space_want want = { .count_blk = 64, .all = true };
	struct test_pool t;
	uint64_t blk, count;
	struct txn *tx;

	(void)state;
	test_pool_make(&t, 64 * MIB, NULL);
	tx = txn_begin(t.pool, TXN_WRITE);
	assert_int_equal(space_alloc(tx, &want, &blk, &count), 0);
	for (unsigned i = 0; i < 64; i += 2)
		assert_int_equal(space_own(tx, blk + i, 1, OWNER, 10 + i), 0);
	for (unsigned i = 1; i < 64; i += 2)
		assert_int_equal(space_own(tx, blk + i, 1, OWNER, 10 + i), 0);
	assert_int_equal(txn_commit(tx), 0);
	assert_int_equal(rmap_count(&t, blk, 64), 1);
	tx = txn_begin(t.pool, TXN_WRITE);
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(space_share(tx, blk + i, 1, OWNER + 1, 20 + i), 0);
	assert_int_equal(txn_commit(tx), 0);
	assert_int_equal(rmap_count(&t, blk, 64), 2);
	/* Moved up by one, from the last: nothing meets itself. */
	tx = txn_begin(t.pool, TXN_WRITE);
	for (unsigned i = 64; i-- > 0;)
		assert_int_equal(space_shift(tx, blk + i, 1, OWNER, 10 + i, 1000 + i), 0);
	assert_int_equal(txn_commit(tx), 0);
	assert_int_equal(rmap_count(&t, blk, 64), 2);
	drop(&t, blk + 10, 5, OWNER, 1010);
	assert_int_equal(rmap_count(&t, blk, 64), 3);
	check(&t);
	test_pool_free(&t);
}

static void test_ten_thousand_owners(void **state)
{
	enum { OWNERS = 10000, LENGTH = 1000 };
	struct space_want want = { .count_blk = LENGTH, .all = true };
	struct space_rng rng = { space_seed() };
	struct test_pool t;
	uint64_t blk, count, refs, same;
	struct txn *tx;

	(void)state;
	test_pool_make(&t, 256 * MIB, NULL);
	blk = write_piece(&t, &want, OWNER, &count);
	for (uint64_t i = 1; i < OWNERS;) {
		int rc = 0;

		tx = txn_begin(t.pool, TXN_WRITE);
		for (uint64_t k = i; k < i + 100 && k < OWNERS && !rc; k++)
			rc = space_share(tx, blk, LENGTH, OWNER + k, 0);
		if (rc) {
			txn_abort(tx);
			assert_int_equal(rc, -ENOBUFS);
			assert_int_equal(space_refill(t.pool), 0);
			continue;
		}
		assert_int_equal(txn_commit(tx), 0);
		i += 100;
	}
	/* Each gives up one block somewhere, as when clones are written to. */
	for (uint64_t i = 0; i < OWNERS; i++) {
		uint64_t at = space_random(&rng, LENGTH);

		drop(&t, blk + at, 1, OWNER + i, at);
		tx = txn_begin(t.pool, TXN_WRITE);
		assert_int_equal(space_refs(tx, blk + at, 1, &refs, &same), 0);
		assert_true(refs < OWNERS && refs > OWNERS - 100);
		txn_abort(tx);
		tx = txn_begin(t.pool, TXN_WRITE);
		assert_int_equal(space_drop(tx, blk + at, 1, OWNER + i, at),
				 -EUCLEAN); /* no longer its owner */
		txn_abort(tx);
	}
	check(&t);
	test_pool_free(&t);
}

/* ---- metadata chunks, inodes, intents ---- */

static void test_new_chunks_have_far_mirrors(void **state)
{
	const struct format_opts opts = { .ag_size_bytes = 32 * MIB };
	struct test_pool t;
	uint64_t *laddrs = calloc(2000, sizeof(*laddrs)), off;
	struct space_totals before, after;
	unsigned n = 0;

	(void)state;
	assert_non_null(laddrs);
	test_pool_make(&t, 128 * MIB, &opts);
	assert_int_equal(space_totals(t.pool, &before), 0);
	while (n < 2000) {
		struct txn *tx = txn_begin(t.pool, TXN_WRITE);
		void *unit;
		int rc = space_meta_alloc(tx, pool_ag_unit(t.pool, 1, 0), 1, &laddrs[n]);

		if (rc) {
			assert_int_equal(rc, -ENOBUFS);
			txn_abort(tx);
			assert_int_equal(space_refill(t.pool), 0);
			continue;
		}
		assert_int_equal(txn_new(tx, laddrs[n], MAGIC_XVAL, OWNER, &unit), 0);
		((struct m_xval *)unit)->xv_len_bytes = le32_of(1);
		assert_int_equal(txn_commit(tx), 0);
		assert_int_equal(pool_laddr_ag(t.pool, laddrs[n]), 1);
		assert_int_equal(pool_place(t.pool, laddrs[n], 0, &off), 0);
		assert_int_equal(pool_blk_ag(t.pool, off / BLOCK_SIZE), 1);
		assert_int_equal(pool_place(t.pool, laddrs[n], 1, &off), 0);
		if ((laddrs[n] >> CHUNK_SHIFT) % 16 != 0)
			assert_int_not_equal(pool_blk_ag(t.pool, off / BLOCK_SIZE), 1);
		n++;
	}
	check(&t);
	test_pool_reopen(&t);
	while (n-- > 0) {
		struct txn *tx = txn_begin(t.pool, TXN_FREEING);

		assert_int_equal(space_meta_free(tx, laddrs[n], 1), 0);
		assert_int_equal(txn_commit(tx), 0);
	}
	assert_true(space_trim(t.pool) >= 2);
	assert_int_equal(space_totals(t.pool, &after), 0);
	assert_true(after.meta_chunks <= before.meta_chunks + 1);
	check(&t);
	free(laddrs);
	test_pool_free(&t);
}

/* So many in each of the first groups, all made and then all freed. */
static void inodes_come_and_go(struct test_pool *t, uint32_t groups, unsigned count)
{
	uint64_t *inos = calloc(groups * count, sizeof(*inos));
	struct txn *tx;

	assert_non_null(inos);
	for (unsigned i = 0; i < groups * count; i++) {
		tx = txn_begin(t->pool, TXN_WRITE);
		assert_int_equal(space_inode_alloc(tx, i % groups, &inos[i]), 0);
		assert_int_equal(txn_commit(tx), 0);
	}
	for (unsigned i = 0; i < groups * count; i++) {
		tx = txn_begin(t->pool, TXN_FREEING);
		assert_int_equal(space_inode_free(tx, inos[i]), 0);
		assert_int_equal(txn_commit(tx), 0);
	}
	/* The first cluster of each group stays. */
	for (uint32_t agno = 1; agno < groups; agno++) {
		tx = txn_begin(t->pool, TXN_WRITE);
		assert_int_equal(space_inode_alloc(tx, agno, &inos[0]), 0);
		assert_int_equal(inos[0], pool_ag_unit(t->pool, agno, 0) >> INODE_SHIFT);
		txn_abort(tx);
	}
	free(inos);
}

static void test_inode_numbers(void **state)
{
	enum { INODES = 3000 };
	const struct format_opts opts = { .ag_size_bytes = 32 * MIB };
	static const uint64_t never[] = { 0, 2, 64, 100000, 1ull << 40, 1ull << 55, OWNER_META, UINT64_MAX };
	struct space_totals before, after;
	uint64_t *inos = calloc(INODES, sizeof(*inos));
	struct test_pool t;
	struct txn *tx;

	(void)state;
	assert_non_null(inos);
	test_pool_make(&t, 64 * MIB, &opts);
	assert_int_equal(space_totals(t.pool, &before), 0);
	tx = txn_begin(t.pool, TXN_READ);
	assert_int_equal(space_inode_check(tx, INODE_ROOT), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(never); i++)
		assert_int_equal(space_inode_check(tx, never[i]), -ESTALE);
	txn_abort(tx);
	for (unsigned i = 0; i < INODES;) {
		int rc;

		tx = txn_begin(t.pool, TXN_WRITE);
		rc = space_inode_alloc(tx, i % 2, &inos[i]);
		if (rc) {
			assert_int_equal(rc, -ENOBUFS);
			txn_abort(tx);
			assert_int_equal(space_refill(t.pool), 0);
			continue;
		}
		assert_int_equal(space_inode_check(tx, inos[i]), 0);
		assert_int_equal(txn_commit(tx), 0);
		for (unsigned k = i < 200 ? 0 : i - 200; k < i; k++)
			assert_int_not_equal(inos[k], inos[i]);
		i++;
	}
	assert_int_equal(inos[0], 2); /* the lowest one */
	check(&t);
	test_pool_reopen(&t);
	/* The newest first: the clusters that were full longest, in the first chunk, are the last to have free ones. */
	for (unsigned i = INODES; i-- > 0;) {
		tx = txn_begin(t.pool, TXN_FREEING);
		assert_int_equal(space_inode_check(tx, inos[i]), 0);
		assert_int_equal(space_inode_free(tx, inos[i]), 0);
		assert_int_equal(space_inode_free(tx, inos[i]), -EUCLEAN);
		txn_abort(tx);
		tx = txn_begin(t.pool, TXN_FREEING);
		assert_int_equal(space_inode_free(tx, inos[i]), 0);
		assert_int_equal(txn_commit(tx), 0);
	}
	assert_int_equal(space_totals(t.pool, &after), 0);
	assert_int_equal(after.inode_count, before.inode_count);
	inodes_come_and_go(&t, 2, 300);
	test_pool_reopen(&t);
	inodes_come_and_go(&t, 2, 300);
	assert_int_equal(space_totals(t.pool, &after), 0);
	assert_int_equal(after.inode_count, before.inode_count);
	assert_int_equal(after.inode_count - after.inode_free, before.inode_count - before.inode_free);
	check(&t);
	free(inos);
	test_pool_free(&t);
}

static void test_intents_run_out(void **state)
{
	const struct format_opts opts = { .ag_size_bytes = 16 * MIB };
	struct test_pool t;
	uint64_t laddr;
	uint32_t index;
	unsigned n = 0;

	(void)state;
	test_pool_make(&t, 32 * MIB, &opts);
	for (;; n++) {
		struct txn *tx = txn_begin(t.pool, TXN_WRITE);
		void *unit;
		int rc = space_intent_alloc(tx, 1, &laddr, &index);

		if (rc) {
			assert_int_equal(rc, -EBUSY);
			txn_abort(tx);
			break;
		}
		assert_int_equal(txn_edit(tx, laddr, MAGIC_INTENTS, &unit), 0);
		((struct m_intents *)unit)->in_slots[index].it_type = le32_of(INTENT_TRUNCATE);
		assert_int_equal(txn_commit(tx), 0);
	}
	assert_int_equal(n, 2 * INTENTS_PER_UNIT);
	test_pool_free(&t);
}

/* ---- threads ---- */

struct worker {
	struct test_pool *t;
	pthread_t thread;
	uint64_t owner;
	int error;
};

static int worker_step(struct worker *w, struct txn *tx, struct space_rng *rng, struct piece *p,
		       struct space_stream *stream, uint64_t *ino)
{
	struct space_want want = { .agno_hint = (uint32_t)space_random(rng, 4),
				   .count_blk = 1 + space_random(rng, 300),
				   .file_blk = space_random(rng, 100000),
				   .stream = space_random(rng, 2) ? stream : NULL };
	int rc;

	if (p->count) {
		rc = space_drop(tx, p->blk, p->count, w->owner, p->offset);
		p->count = 0;
		return rc ? rc : space_inode_free(tx, *ino);
	}
	rc = space_alloc(tx, &want, &p->blk, &p->count);
	if (!rc)
		rc = space_own(tx, p->blk, p->count, w->owner, want.file_blk);
	p->offset = want.file_blk;
	return rc ? rc : space_inode_alloc(tx, want.agno_hint, ino);
}

static void *worker_run(void *arg)
{
	struct worker *w = arg;
	struct space_rng rng = { w->owner };
	struct piece pieces[32] = { { 0 } };
	uint64_t inos[32];
	struct space_stream stream = { 0 };

	for (unsigned i = 0; i < 3000 && !w->error; i++) {
		unsigned k = (unsigned)space_random(&rng, ARRAY_SIZE(pieces));
		struct piece p = pieces[k];
		uint64_t ino = inos[k];
		struct txn *tx = txn_begin(w->t->pool, p.count ? TXN_FREEING : TXN_WRITE);
		int rc = worker_step(w, tx, &rng, &p, &stream, &ino);

		if (rc)
			txn_abort(tx);
		else
			rc = txn_commit(tx);
		if (rc == 0) {
			pieces[k] = p;
			inos[k] = ino;
		} else if (rc == -ENOBUFS) {
			w->error = space_refill(w->t->pool);
		} else if (rc != -EDEADLK) {
			w->error = rc;
		}
		if (i % 100 == 0)
			space_stream_release(w->t->pool, &stream);
		if (i % 256 == 0 && space_trim(w->t->pool) < 0)
			w->error = -EIO;
	}
	space_stream_release(w->t->pool, &stream);
	return NULL;
}

static void test_threads(void **state)
{
	const struct format_opts opts = { .ag_size_bytes = 64 * MIB };
	struct worker workers[4];
	struct test_pool t;

	(void)state;
	test_pool_make(&t, 256 * MIB, &opts);
	for (unsigned i = 0; i < ARRAY_SIZE(workers); i++) {
		workers[i] = (struct worker){ .t = &t, .owner = OWNER + i };
		assert_int_equal(pthread_create(&workers[i].thread, NULL, worker_run, &workers[i]), 0);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(workers); i++) {
		pthread_join(workers[i].thread, NULL);
		assert_int_equal(workers[i].error, 0);
	}
	check(&t);
	test_pool_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_large_files_lie_in_aligned_chunks),
		cmocka_unit_test(test_slow_appends_of_two_files_do_not_mix),
		cmocka_unit_test(test_random_first_writes_do_not_shred),
		cmocka_unit_test(test_small_files_fill_broken_chunks),
		cmocka_unit_test(test_abort_gives_back),
		cmocka_unit_test(test_freed_blocks_wait_for_the_commit),
		cmocka_unit_test(test_full_pools_empty_again),
		cmocka_unit_test(test_windows_are_taken_back),
		cmocka_unit_test(test_metadata_does_not_eat_what_frees_need),
		cmocka_unit_test(test_records_of_one_owner_merge),
		cmocka_unit_test(test_ten_thousand_owners),
		cmocka_unit_test(test_new_chunks_have_far_mirrors),
		cmocka_unit_test(test_inode_numbers),
		cmocka_unit_test(test_intents_run_out),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests_name("space", tests, NULL, NULL);
}
