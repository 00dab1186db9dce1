/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Metadata moves out of bad memory: one copy of one unit (or of the eight inodes in a block) to a block of its own.
 *
 *	most units	one transaction: the block gets its owner, the group's remap list its entry
 *	key units	transaction: owner and intent | what the unit holds now, durable | superblock | transaction: the intent goes
 *
 * A block of a metadata chunk that nothing lies in any more stays part of the chunk. One that stood in before is OWNER_BAD's in the end, or
 * free if nothing is wrong with it.
 * All of it with everybody else outside (pool_freeze): nobody looks at a unit whose place changes.
 */
#include <errno.h>
#include <string.h>

#include "space/priv.h"
#include "util/sabotage.h"

#define REFILLS_MAX 16u

struct move {
	struct pool *pool;
	uint64_t laddr, old_blk, new_blk;
	unsigned copy;
	bool stands_in;      /* the old block belongs to no chunk */
	bool good;           /* and can be used again */
	uint64_t bad_blk;    /* out: a new block that cannot be used */
	uint64_t unit_laddr; /* of the intent */
	uint32_t index;
	_Alignas(64) uint8_t bytes[BLOCK_SIZE];
};

static uint64_t remap_offset(uint64_t laddr, uint64_t copy)
{
	return laddr / BLOCK_SIZE * 2 + copy;
}

static struct remap move_remap(const struct move *m)
{
	return (struct remap){ .laddr = m->laddr, .place_blk = m->new_blk, .copy = m->copy };
}

static int new_store(struct move *m)
{
	struct dax *dax = pool_dax(m->pool);
	uint64_t off = m->new_blk << BLOCK_SHIFT;
	uint8_t back[BLOCK_SIZE];
	int rc = dax_store(dax, off, m->bytes, BLOCK_SIZE);

	if (!rc)
		rc = dax_load(dax, back, off, BLOCK_SIZE, NULL);
	if (rc)
		m->bad_blk = m->new_blk;
	return rc;
}

static int new_take(struct txn *tx, struct move *m)
{
	struct space_want want = { .agno_hint = pool_blk_ag(m->pool, m->old_blk), .count_blk = 1 };
	uint64_t got_blk;
	int rc = space_alloc(tx, &want, &m->new_blk, &got_blk);

	m->bad_blk = 0;
	if (!rc)
		rc = new_store(m);
	if (rc)
		return rc;
	if (!sabotage_point("move-data-fence"))
		txn_data_stored(tx);
	return sabotage_point("move-own") ?
		       0 :
		       space_own(tx, m->new_blk, 1, OWNER_REMAP, remap_offset(m->laddr, m->copy));
}

/* It stood in for a unit. */
static int block_leave(struct txn *tx, uint64_t blk, uint64_t offset, bool good)
{
	int rc = good || sabotage_point("move-ban") ? 0 : space_share(tx, blk, 1, OWNER_BAD, blk);

	return rc ? rc : space_drop(tx, blk, 1, OWNER_REMAP, offset);
}

int frozen_run(struct pool *pool, int (*fn)(struct txn *tx, void *arg), void *arg)
{
	unsigned refills = 0;
	int rc;

	do {
		rc = txn_run(pool, TXN_FREEING, fn, arg);
		if (rc != -ENOBUFS)
			break;
		rc = refills++ < REFILLS_MAX ? space_refill(pool) : -ENOSPC;
	} while (rc == 0);
	return rc == -EDEADLK ? -EIO : rc;
}

/* ---- most units ---- */

static int plain_step(struct txn *tx, void *arg)
{
	struct move *m = arg;
	struct remap to;
	int rc = new_take(tx, m);

	if (!rc && m->stands_in)
		rc = block_leave(tx, m->old_blk, remap_offset(m->laddr, m->copy), m->good);
	to = move_remap(m);
	return rc ? rc : txn_remap(tx, &to);
}

/* ---- key units ---- */

static int intent_put(struct txn *tx, const struct move *m, const struct m_intent *intent)
{
	void *unit;
	int rc = txn_lock_ag(tx, pool_laddr_ag(m->pool, m->unit_laddr));

	if (!rc)
		rc = txn_edit(tx, m->unit_laddr, MAGIC_INTENTS, &unit);
	if (!rc)
		((struct m_intents *)unit)->in_slots[m->index] = *intent;
	return rc;
}

static void move_args(const struct move *m, uint64_t args[8])
{
	const uint64_t all[8] = { m->laddr, m->copy, m->new_blk, m->stands_in ? m->old_blk : 0, m->good };

	memcpy(args, all, sizeof(all));
}

static int key_begin(struct txn *tx, void *arg)
{
	struct move *m = arg;
	struct m_intent intent = { .it_seq = le64_of(txn_seq(tx)) };
	uint64_t args[8];
	int rc = new_take(tx, m);

	if (!rc)
		rc = space_intent_alloc(tx, pool_laddr_ag(m->pool, m->laddr), &m->unit_laddr, &m->index);
	if (rc)
		return rc == -EBUSY ? -ENOSPC : rc;
	if (!sabotage_point("move-intent"))
		intent.it_type = le32_of(INTENT_RELOCATE);
	move_args(m, args);
	for (unsigned i = 0; i < ARRAY_SIZE(args); i++)
		intent.it_args[i] = le64_of(args[i]);
	return intent_put(tx, m, &intent);
}

int space_unit_move_end(struct txn *tx, const uint64_t args[8])
{
	const struct remap to = { .laddr = args[0], .copy = (uint32_t)args[1], .place_blk = args[2] };
	uint64_t offset = remap_offset(args[0], args[1]);

	if (!pool_super_has(txn_pool(tx), &to))
		return space_drop(tx, to.place_blk, 1, OWNER_REMAP, offset);
	return args[3] != 0 ? block_leave(tx, args[3], offset, args[4] != 0) : 0;
}

static int key_end(struct txn *tx, void *arg)
{
	const struct m_intent none = { 0 };
	const struct move *m = arg;
	uint64_t args[8];
	int rc;

	move_args(m, args);
	rc = space_unit_move_end(tx, args);
	return rc ? rc : intent_put(tx, m, &none);
}

/* The transaction before may have edited the very unit: this is what it holds since. */
static int key_switch(struct move *m)
{
	struct remap to = move_remap(m);
	int rc = pool_unit_save(m->pool, m->laddr, m->copy, m->bytes);

	if (!rc)
		rc = new_store(m);
	/* Before any superblock says that the unit lies there. */
	if (!rc && !sabotage_point("move-key-fence"))
		rc = dax_fence(pool_dax(m->pool));
	return rc ? rc : pool_remap_super(m->pool, &to);
}

static int key_move(struct move *m)
{
	int rc = frozen_run(m->pool, key_begin, m), end;

	if (rc)
		return rc;
	rc = key_switch(m);
	if (pool_failed(m->pool))
		return -EIO;
	end = frozen_run(m->pool, key_end, m);
	return rc ? rc : end;
}

/* ---- all ---- */

static int unit_move(struct move *m, uint64_t *bad_blk)
{
	struct pool *pool = m->pool;
	uint64_t off;
	int rc = pool_place(pool, m->laddr, m->copy, &off);

	m->old_blk = off >> BLOCK_SHIFT;
	if (!rc)
		rc = pool_unit_save(pool, m->laddr, m->copy, m->bytes);
	if (!rc)
		rc = pool_unit_is_key(pool, m->laddr) ? key_move(m) : frozen_run(m->pool, plain_step, m);
	*bad_blk = m->bad_blk;
	return rc;
}

int space_unit_move(struct pool *pool, uint64_t laddr, unsigned copy, bool stands_in, uint64_t *bad_blk)
{
	struct move m = { .pool = pool, .laddr = laddr, .copy = copy, .stands_in = stands_in };

	return unit_move(&m, bad_blk);
}

int space_unit_leave(struct pool *pool, uint64_t laddr, unsigned copy, uint64_t *bad_blk)
{
	struct move m = { .pool = pool, .laddr = laddr, .copy = copy, .stands_in = true, .good = true };

	return unit_move(&m, bad_blk);
}
