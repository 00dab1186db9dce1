/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Space against a plain model: owners of each block, units and inode numbers in use. Random operations of several owners in
 * transactions that commit or abort; after a number of them everything is compared. UMBRA_SEED replays a run.
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

#define OWNERS 12u
#define FIRST_OWNER 1000u
#define TRANSACTIONS 12000u
#define CHECK_EVERY 1500u
#define THINGS_MAX 4096u

struct own {
	uint32_t owner;
	uint64_t offset;
};

struct block {
	struct own *owns;
	uint32_t count, room;
	uint64_t freed_by; /* the transaction in which its last owner went */
};

/* A metadata run or an inode number. */
struct thing {
	uint64_t where;
	uint32_t count; /* units; 0: an inode */
};

/* How to take back what the model did in this transaction. */
struct undo {
	bool added, is_thing;
	uint64_t blk;
	struct own own;
	struct thing thing;
};

struct world {
	struct test_pool t;
	struct space_rng rng;
	struct block *blocks;
	uint64_t size_blk;
	struct thing things[THINGS_MAX];
	unsigned thing_count;
	struct undo *undos;
	size_t undo_count, undo_room;
	uint64_t serial; /* of the transaction */
	struct space_stream streams[OWNERS];
	uint64_t next_offset[OWNERS];
	bool draining;
	bool making; /* mostly units and inodes */
	unsigned full, refills, commits, aborts;
};

static uint64_t pick(struct world *w, uint64_t below)
{
	return space_random(&w->rng, below);
}

/* ---- model ---- */

static void block_add(struct world *w, uint64_t blk, struct own own)
{
	struct block *b = &w->blocks[blk];

	if (b->count == b->room) {
		b->room = b->room ? 2 * b->room : 2;
		b->owns = realloc(b->owns, b->room * sizeof(*b->owns));
		assert_non_null(b->owns);
	}
	b->owns[b->count++] = own;
}

static bool block_has(const struct world *w, uint64_t blk, struct own own, uint32_t *index)
{
	const struct block *b = &w->blocks[blk];

	for (uint32_t i = 0; i < b->count; i++) {
		if (b->owns[i].owner == own.owner && b->owns[i].offset == own.offset) {
			*index = i;
			return true;
		}
	}
	return false;
}

static void block_remove(struct world *w, uint64_t blk, struct own own)
{
	struct block *b = &w->blocks[blk];
	uint32_t i = 0;

	assert_true(block_has(w, blk, own, &i));
	b->owns[i] = b->owns[--b->count];
	if (b->count == 0)
		b->freed_by = w->serial;
}

static void note(struct world *w, struct undo undo)
{
	if (w->undo_count == w->undo_room) {
		w->undo_room = w->undo_room ? 2 * w->undo_room : 256;
		w->undos = realloc(w->undos, w->undo_room * sizeof(*w->undos));
		assert_non_null(w->undos);
	}
	w->undos[w->undo_count++] = undo;
}

static void model_own(struct world *w, uint64_t blk, uint64_t count, uint32_t owner, uint64_t offset,
		      bool add)
{
	for (uint64_t i = 0; i < count; i++) {
		struct own own = { owner, offset + i };

		if (add)
			block_add(w, blk + i, own);
		else
			block_remove(w, blk + i, own);
		note(w, (struct undo){ .added = add, .blk = blk + i, .own = own });
	}
}

static void thing_add(struct world *w, struct thing thing)
{
	for (unsigned i = 0; i < w->thing_count; i++)
		assert_true(w->things[i].where != thing.where ||
			    (w->things[i].count == 0) != (thing.count == 0));
	w->things[w->thing_count++] = thing;
}

static void thing_remove(struct world *w, struct thing thing)
{
	for (unsigned i = 0; i < w->thing_count; i++) {
		if (w->things[i].where == thing.where && w->things[i].count == thing.count) {
			w->things[i] = w->things[--w->thing_count];
			return;
		}
	}
	fail();
}

static void model_undo(struct world *w)
{
	while (w->undo_count > 0) {
		struct undo *u = &w->undos[--w->undo_count];

		if (u->is_thing && u->added)
			thing_remove(w, u->thing);
		else if (u->is_thing)
			thing_add(w, u->thing);
		else if (u->added)
			block_remove(w, u->blk, u->own);
		else
			block_add(w, u->blk, u->own);
	}
}

/* ---- operations: 0, or the error that ends the transaction ---- */

static int op_write(struct world *w, struct txn *tx)
{
	unsigned who = (unsigned)pick(w, OWNERS);
	uint64_t offset = w->next_offset[who] + (pick(w, 4) == 0 ? pick(w, 600) : 0);
	struct space_want want = {
		.agno_hint = (uint32_t)pick(w, pool_ag_count(w->t.pool)),
		.goal_blk = pick(w, 3) == 0 ? pick(w, w->size_blk) : 0,
		.file_blk = offset,
		.count_blk = pick(w, 8) == 0 ? 1 + pick(w, 1500) : 1 + pick(w, 20),
		.all = pick(w, 6) == 0,
		.stream = pick(w, 4) == 0 ? NULL : &w->streams[who],
	};
	uint64_t blk, count;
	int rc;

	if (want.goal_blk == 1 || (pick(w, 5) == 0 && want.count_blk < 3))
		want.goal_blk = w->size_blk + 5; /* nonsense goals do no harm */
	rc = space_alloc(tx, &want, &blk, &count);
	if (rc)
		return rc;
	assert_true(count >= 1 && count <= want.count_blk && (!want.all || count == want.count_blk));
	assert_true(blk + count <= w->size_blk);
	for (uint64_t i = 0; i < count; i++) {
		assert_int_equal(w->blocks[blk + i].count, 0);
		assert_true(w->blocks[blk + i].freed_by != w->serial);
	}
	rc = space_own(tx, blk, count, FIRST_OWNER + who, offset);
	if (rc)
		return rc;
	model_own(w, blk, count, FIRST_OWNER + who, offset, true);
	w->next_offset[who] = offset + count;
	return 0;
}

/* A block with owners, one of them, and how far it goes on; false: none found. */
static bool pick_owned(struct world *w, uint64_t *blk, struct own *own, uint64_t *count)
{
	uint64_t start = pick(w, w->size_blk), max = 1 + pick(w, pick(w, 3) == 0 ? 800 : 12);
	uint32_t i;

	for (uint64_t k = 0; k < w->size_blk; k++) {
		const struct block *b = &w->blocks[(start + k) % w->size_blk];

		if (b->count == 0)
			continue;
		*blk = (start + k) % w->size_blk;
		*own = b->owns[pick(w, b->count)];
		*count = 1;
		while (*count < max && *blk + *count < w->size_blk &&
		       block_has(w, *blk + *count, (struct own){ own->owner, own->offset + *count }, &i))
			(*count)++;
		return true;
	}
	return false;
}

static int op_share(struct world *w, struct txn *tx)
{
	unsigned who = (unsigned)pick(w, OWNERS);
	uint64_t blk, count, offset = w->next_offset[who];
	struct own own;
	uint32_t i;
	int rc;

	if (!pick_owned(w, &blk, &own, &count))
		return 0;
	if (pick(w, 4) == 0)
		offset = own.offset; /* as clones do: the same offset in another file */
	for (uint64_t k = 0; k < count; k++) {
		if (block_has(w, blk + k, (struct own){ FIRST_OWNER + who, offset + k }, &i))
			return 0;
	}
	rc = space_share(tx, blk, count, FIRST_OWNER + who, offset);
	if (rc)
		return rc;
	model_own(w, blk, count, FIRST_OWNER + who, offset, true);
	w->next_offset[who] = u64_max(w->next_offset[who], offset + count + pick(w, 2));
	return 0;
}

static int op_drop(struct world *w, struct txn *tx)
{
	uint64_t blk, count;
	struct own own;
	int rc;

	if (!pick_owned(w, &blk, &own, &count))
		return 0;
	if (pick(w, 2) == 0)
		rc = space_drop(tx, blk, count, own.owner, own.offset);
	else
		rc = space_drop_piece(tx, blk, count, own.owner, own.offset, blk - u64_min(blk, pick(w, 30)));
	if (rc)
		return rc;
	model_own(w, blk, count, own.owner, own.offset, false);
	return 0;
}

static int op_shift(struct world *w, struct txn *tx)
{
	uint64_t blk, count, to;
	struct own own;
	uint32_t i;
	int rc;

	if (!pick_owned(w, &blk, &own, &count))
		return 0;
	to = own.offset + pick(w, 50);
	for (uint64_t k = 0; k < count; k++) {
		if (block_has(w, blk + k, (struct own){ own.owner, to + k }, &i))
			return 0;
	}
	rc = space_shift(tx, blk, count, own.owner, own.offset, to);
	if (rc)
		return rc;
	model_own(w, blk, count, own.owner, own.offset, false);
	model_own(w, blk, count, own.owner, to, true);
	return 0;
}

static int op_refs(struct world *w, struct txn *tx)
{
	uint64_t blk, count, refs, same;
	struct own own;
	int rc;

	if (!pick_owned(w, &blk, &own, &count))
		return 0;
	rc = space_refs(tx, blk, count, &refs, &same);
	if (rc)
		return rc;
	assert_true(same >= 1 && same <= count);
	for (uint64_t k = 0; k < same; k++)
		assert_int_equal(w->blocks[blk + k].count, refs);
	return 0;
}

static int op_thing_make(struct world *w, struct txn *tx)
{
	struct thing thing = { .count = pick(w, 2) ? 0 : 1u << pick(w, 4) };
	uint64_t hint = pick(w, w->size_blk) * BLOCK_SIZE;
	void *unit;
	int rc;

	if (w->thing_count == THINGS_MAX)
		return 0;
	if (thing.count)
		rc = space_meta_alloc(tx, hint, thing.count, &thing.where);
	else
		rc = space_inode_alloc(tx, (uint32_t)pick(w, pool_ag_count(w->t.pool)), &thing.where);
	if (rc)
		return rc;
	if (thing.count) {
		assert_int_equal(thing.where % (thing.count * BLOCK_SIZE), 0);
		assert_int_equal(txn_new(tx, thing.where, MAGIC_XVAL, 1, &unit), 0);
		((struct m_xval *)unit)->xv_len_bytes = le32_of(1);
	}
	thing_add(w, thing);
	note(w, (struct undo){ .added = true, .is_thing = true, .thing = thing });
	return thing.count ? 0 : space_inode_check(tx, thing.where);
}

static int op_thing_drop(struct world *w, struct txn *tx)
{
	struct thing thing;
	int rc;

	if (w->thing_count == 0)
		return 0;
	thing = w->things[pick(w, w->thing_count)];
	rc = thing.count ? space_meta_free(tx, thing.where, thing.count) : space_inode_free(tx, thing.where);
	if (rc)
		return rc;
	if (thing.count == 0)
		assert_int_equal(space_inode_check(tx, thing.where), -ESTALE);
	thing_remove(w, thing);
	note(w, (struct undo){ .is_thing = true, .thing = thing });
	return 0;
}

static int one_op(struct world *w, struct txn *tx)
{
	uint64_t n = pick(w, 100);

	if (n < 5)
		return op_refs(w, tx);
	if (n < 12)
		return op_thing_drop(w, tx);
	if (w->draining)
		return n < 90 ? op_drop(w, tx) : op_thing_drop(w, tx);
	if (n < (w->making ? 75 : 20))
		return op_thing_make(w, tx);
	if (n < 30)
		return op_shift(w, tx);
	if (n < 60)
		return op_share(w, tx);
	if (n < 80)
		return op_drop(w, tx);
	return op_write(w, tx);
}

/* One transaction: all of it or nothing. */
static void transaction(struct world *w)
{
	struct txn *tx = txn_begin(w->t.pool, w->draining ? TXN_FREEING : TXN_WRITE);
	unsigned ops = 1 + (unsigned)pick(w, 8);
	int rc = 0;

	w->serial++;
	w->undo_count = 0;
	for (unsigned i = 0; i < ops && !rc; i++)
		rc = one_op(w, tx);
	if (rc == 0 && pick(w, 8) != 0) {
		assert_int_equal(txn_commit(tx), 0);
		w->commits++;
		return;
	}
	txn_abort(tx);
	w->aborts++;
	w->serial++;
	model_undo(w);
	if (rc == -ENOBUFS) {
		rc = space_refill(w->t.pool);
		assert_true(rc == 0 || rc == -ENOSPC);
		w->refills++;
	} else if (rc == -ENOSPC) {
		assert_false(w->draining); /* there is always room to free */
		w->full++;
		w->draining = true;
	} else {
		assert_int_equal(rc, 0);
	}
}

static void compare(struct world *w)
{
	struct space_seen seen;
	uint64_t units = 0;

	for (unsigned i = 0; i < OWNERS; i++)
		space_stream_release(w->t.pool, &w->streams[i]);
	space_check(w->t.pool, &seen);
	for (uint64_t b = 0; b < w->size_blk; b++) {
		uint64_t hash = 0;

		for (uint32_t i = 0; i < w->blocks[b].count; i++)
			hash += block_owner_hash(w->blocks[b].owns[i].owner, w->blocks[b].owns[i].offset);
		if (seen.blocks[b].count != w->blocks[b].count || seen.blocks[b].hash != hash)
			fail_msg("block %llu: %u owners by the rmap, %u by the model", (unsigned long long)b,
				 seen.blocks[b].count, w->blocks[b].count);
	}
	for (unsigned i = 0; i < w->thing_count; i++)
		units += w->things[i].count;
	assert_int_equal(seen.units_used, units);
	free(seen.blocks);
}

static void drain_all(struct world *w)
{
	w->draining = true;
	for (uint64_t b = 0; b < w->size_blk;) {
		struct txn *tx = txn_begin(w->t.pool, TXN_FREEING);
		int rc = 0;

		w->serial++;
		w->undo_count = 0;
		for (unsigned n = 0; n < 64 && b < w->size_blk && !rc; n++) {
			struct own own;

			while (b < w->size_blk && w->blocks[b].count == 0)
				b++;
			if (b == w->size_blk)
				break;
			own = w->blocks[b].owns[0];
			rc = space_drop(tx, b, 1, own.owner, own.offset);
			if (!rc)
				model_own(w, b, 1, own.owner, own.offset, false);
		}
		if (!rc) {
			assert_int_equal(txn_commit(tx), 0);
			continue;
		}
		assert_int_equal(rc, -ENOBUFS);
		txn_abort(tx);
		model_undo(w);
		assert_int_equal(space_refill(w->t.pool), 0);
	}
	while (w->thing_count > 0) {
		struct txn *tx = txn_begin(w->t.pool, TXN_FREEING);

		w->undo_count = 0;
		assert_int_equal(op_thing_drop(w, tx), 0);
		assert_int_equal(txn_commit(tx), 0);
	}
}

static void run(uint64_t size_bytes, const struct format_opts *opts, unsigned transactions)
{
	struct world *w = calloc(1, sizeof(*w));
	struct space_totals before, after;

	assert_non_null(w);
	w->rng.state = space_seed();
	test_pool_make(&w->t, size_bytes, opts);
	w->size_blk = pool_super(w->t.pool)->size_blk;
	w->blocks = calloc(w->size_blk, sizeof(*w->blocks));
	assert_non_null(w->blocks);
	assert_int_equal(space_totals(w->t.pool, &before), 0);
	for (unsigned i = 1; i <= transactions; i++) {
		transaction(w);
		if (w->draining && pick(w, 300) == 0)
			w->draining = false;
		if (pick(w, 400) == 0)
			w->making = !w->making;
		if (pick(w, 500) == 0)
			assert_true(space_trim(w->t.pool) >= 0);
		if (i % CHECK_EVERY == 0)
			compare(w);
		if (i % (CHECK_EVERY * 2) == 0) {
			test_pool_reopen(&w->t);
			compare(w);
		}
	}
	print_message("# %u commits, %u aborts, %u refills, full %u times\n", w->commits, w->aborts,
		      w->refills, w->full);
	drain_all(w);
	assert_true(space_trim(w->t.pool) >= 0);
	compare(w);
	/* Nothing leaks: what is not free is metadata chunks, and they hold nothing but a few clusters. */
	assert_int_equal(space_totals(w->t.pool, &after), 0);
	assert_true(after.meta_chunks - before.meta_chunks <= 4 * pool_ag_count(w->t.pool));
	assert_int_equal(before.free_blk + before.reserve_blk - after.free_blk - after.reserve_blk,
			 (after.meta_chunks - before.meta_chunks) * CHUNK_BLOCKS *
				 (pool_super(w->t.pool)->incompat & FEATURE_INCOMPAT_META_DUP ? 2 : 1));
	for (uint64_t b = 0; b < w->size_blk; b++)
		free(w->blocks[b].owns);
	free(w->blocks);
	free(w->undos);
	test_pool_free(&w->t);
	free(w);
}

static void test_one_small_group(void **state)
{
	(void)state;
	run(16ull << 20, NULL, TRANSACTIONS);
}

static void test_one_group_without_mirrors(void **state)
{
	const struct format_opts opts = { .metadata_single = true };

	(void)state;
	run(32ull << 20, &opts, TRANSACTIONS);
}

static void test_several_groups(void **state)
{
	const struct format_opts opts = { .ag_size_bytes = 32ull << 20 };

	(void)state;
	run(116ull << 20, &opts, TRANSACTIONS * 2);
}

static void test_larger_groups(void **state)
{
	const struct format_opts opts = { .ag_size_bytes = 128ull << 20 };

	(void)state;
	run(256ull << 20, &opts, TRANSACTIONS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_small_group),
		cmocka_unit_test(test_one_group_without_mirrors),
		cmocka_unit_test(test_several_groups),
		cmocka_unit_test(test_larger_groups),
	};

	return cmocka_run_group_tests_name("space model", tests, NULL, NULL);
}
