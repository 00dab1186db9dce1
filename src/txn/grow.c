/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Growing a pool (grow.h): in which order what is written.
 *
 *	new groups, zeroes where old superblocks or records	| fence: nobody looks there yet
 *	could be seen						|
 *	| freeze
 *	copy of the superblock at the new end			block 0 is whole, and still tells of the old size
 *	mirror of slot 0 of the last group at its new place	| fence: both must be there before block 0 is written
 *	block 0							| fence: it or the next one is whole at any time
 *	copy at the former end					| fence: the pool is larger, for the time being
 *	transaction on the last group				now it has happened (space/grow.c)
 *	copies of the superblock's fields in all other groups
 *	zeroes over the copy at the former end			| fence: it is not to be taken for the copy of a pool that ends there
 *	superblock without the former size			| fence: before anything is changed that lay elsewhere before
 *	| thaw
 *
 * If the last group gets one chunk longer, the new mirror of slot 0 lies in the former last chunk, over the former copy of the superblock;
 * what is said of it above is then done to one in the last block of the chunk after it, before block 0 is written.
 */
#include "txn/grow.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "txn/format.h"
#include "txn/internal.h"
#include "util/log.h"

int grow_plan(struct pool *pool, uint64_t size_bytes, uint64_t *size_blk)
{
	int rc = dax_grow(pool->dax, size_bytes);
	uint64_t blk = format_size_blk(dax_size_bytes(pool->dax), pool->super.ag_size_blk);

	if (rc)
		return rc;
	if (blk <= pool_size_blk(pool))
		return -EALREADY;
	if (blk > 1ull << 48 || u64_div_up(blk, pool->super.ag_size_blk) > pool->ag_room)
		return -EOVERFLOW;
	*size_blk = blk;
	return 0;
}

/* Mirrors of lanes beside the copy of the superblock stay beside it. Nothing but they and free space can lie in that chunk. */
static void lanes_shift(struct super *s, uint64_t from_blk, uint64_t to_blk)
{
	for (uint32_t i = 0; i < s->lane_count; i++) {
		if (s->lanes[i].mirror_blk >= from_blk - CHUNK_BLOCKS)
			s->lanes[i].mirror_blk = s->lanes[i].mirror_blk - from_blk + to_blk;
	}
}

/* Size, groups, lanes. */
static void super_resize(struct super *s, uint64_t size_blk)
{
	uint64_t old_blk = s->size_blk;

	s->size_blk = size_blk;
	s->ag_count = (uint32_t)u64_div_up(size_blk, s->ag_size_blk);
	lanes_shift(s, old_blk, size_blk);
}

void grow_super(struct pool *pool, uint64_t size_blk, struct super *super)
{
	pthread_mutex_lock(&pool->super_mutex);
	*super = pool->super;
	pthread_mutex_unlock(&pool->super_mutex);
	super->grown_from_blk = 0;
	super->incompat &= ~FEATURE_INCOMPAT_GROWING;
	super_resize(super, size_blk);
}

/* No old record may lie where their mirrors come to lie. */
static int lanes_wipe(struct pool *pool, const struct super *next)
{
	int rc = 0;

	for (uint32_t i = 0; i < next->lane_count && !rc; i++) {
		if (next->lanes[i].mirror_blk != pool->super.lanes[i].mirror_blk)
			rc = dax_zero(pool->dax, next->lanes[i].mirror_blk * BLOCK_SIZE, BLOCK_SIZE);
	}
	return rc;
}

int grow_groups(struct pool *pool, uint64_t size_blk)
{
	uint32_t count = pool_ag_count(pool);
	struct super next;
	int rc;

	grow_super(pool, size_blk, &next);
	rc = pool_ags_make(pool, next.ag_count);
	/* Whatever an older pool may have left at its end is behind the end of this one. */
	if (!rc)
		rc = format_wipe_tail(pool->dax, pool_size_blk(pool));
	if (!rc && !sabotage_point("grow-groups"))
		rc = format_groups(pool->dax, &next, count);
	if (!rc && !sabotage_point("grow-lanes"))
		rc = lanes_wipe(pool, &next);
	/* All of it before the first superblock that tells of it; and what takes long before everybody has to wait. */
	return rc || sabotage_point("grow-groups-fence") ? rc : dax_fence(pool->dax);
}

/* ---- slot 0 of the last group ---- */

static uint32_t former_last(const struct super *s)
{
	return (uint32_t)((s->grown_from_blk - 1) / s->ag_size_blk);
}

/* First block of the mirror of slot 0 of a group in a pool of so many blocks. */
static uint64_t mirror_blk(const struct super *s, uint32_t agno, uint64_t size_blk)
{
	uint64_t start = super_ag_start_blk(s, agno);

	return start + u64_min(s->ag_size_blk, size_blk - start) - 2 * CHUNK_BLOCKS;
}

/* 0: not sound; else how late it was written, from 1 on. */
static uint64_t unit_age(const struct pool *pool, const uint8_t *unit, size_t size, uint64_t laddr)
{
	if (unit_size(unit_magic(unit)) != size || unit_check_header(unit, size, 0, laddr, &pool->super.uuid))
		return 0;
	return le64_get(((const struct m_unit_hdr *)(const void *)unit)->uh_seq) + 1;
}

/* The better one of both copies of a block of slot 0. Free units may be anything. */
static int block_load(struct pool *pool, uint64_t laddr, uint8_t *buf)
{
	_Alignas(64) uint8_t copies[2][BLOCK_SIZE];
	int rcs[2];

	for (unsigned copy = 0; copy < 2; copy++) {
		uint64_t off;

		rcs[copy] = pool_place(pool, laddr, copy, &off);
		if (!rcs[copy])
			rcs[copy] = dax_load(pool->dax, copies[copy], off, BLOCK_SIZE, NULL);
	}
	if (rcs[0] && rcs[1])
		return rcs[0];
	memcpy(buf, copies[rcs[0] ? 1 : 0], BLOCK_SIZE);
	if (rcs[0] || rcs[1] || memcmp(copies[0], copies[1], BLOCK_SIZE) == 0)
		return 0;
	if (unit_age(pool, copies[1], BLOCK_SIZE, laddr) > unit_age(pool, copies[0], BLOCK_SIZE, laddr))
		memcpy(buf, copies[1], BLOCK_SIZE);
	for (size_t at = 0; at < BLOCK_SIZE; at += INODE_SIZE) {
		if (unit_age(pool, copies[1] + at, INODE_SIZE, laddr + at) >
		    unit_age(pool, copies[0] + at, INODE_SIZE, laddr + at))
			memcpy(buf + at, copies[1] + at, INODE_SIZE);
	}
	return 0;
}

static int mirror_move(struct pool *pool, uint32_t agno, uint64_t to_blk)
{
	uint64_t laddr = pool_ag_unit(pool, agno, 0);
	_Alignas(64) uint8_t buf[BLOCK_SIZE];

	for (unsigned i = 0; i < CHUNK_BLOCKS; i++) {
		int rc = block_load(pool, laddr + (uint64_t)i * BLOCK_SIZE, buf);

		if (!rc)
			rc = dax_store(pool->dax, (to_blk + i) * BLOCK_SIZE, buf, BLOCK_SIZE);
		if (rc)
			return rc;
	}
	return 0;
}

/* ---- the switch ---- */

/* Under super_mutex; transactions are kept out, and who looks without one reads these with one load. */
static void super_take(struct pool *pool, const struct super *next)
{
	uint64_t size_blk = next->size_blk;
	uint32_t ag_count = next->ag_count;
	struct super *s = &pool->super;

	s->incompat = next->incompat;
	s->grown_from_blk = next->grown_from_blk;
	s->version_count = next->version_count;
	memcpy(s->lanes, next->lanes, sizeof(s->lanes));
	__atomic_store_n(&s->size_blk, size_blk, __ATOMIC_RELEASE);
	__atomic_store_n(&s->ag_count, ag_count, __ATOMIC_RELEASE);
	lanes_place(pool);
}

/*
 * Where a copy lies as long as the header of group 0 tells of the former size: who looks for one there (super.c) has to learn of the
 * growth. Over the former copy, or a chunk further if the mirror of slot 0 comes to lie there.
 */
static uint64_t guide_blk(const struct super *s)
{
	bool mirror = mirror_blk(s, former_last(s), s->size_blk) == s->grown_from_blk - CHUNK_BLOCKS;

	return s->grown_from_blk - 1 + (mirror ? CHUNK_BLOCKS : 0);
}

/* Before block 0: nothing there is of use yet. */
static int copies_write(struct pool *pool, const struct super *next, const struct m_super *m)
{
	uint64_t guide = guide_blk(next);
	int rc = 0;

	if (!sabotage_point("grow-copy"))
		rc = dax_store(pool->dax, (next->size_blk - 1) * BLOCK_SIZE, m, sizeof(*m));
	if (!rc && guide >= next->grown_from_blk && guide != next->size_blk - 1 &&
	    !sabotage_point("grow-guide"))
		rc = dax_store(pool->dax, guide * BLOCK_SIZE, m, sizeof(*m));
	return rc;
}

/* After it: over the former copy, which would mislead soon. What cannot be read misleads nobody. */
static int former_copy_write(struct pool *pool, const struct super *next, const struct m_super *m)
{
	uint64_t guide = guide_blk(next);
	_Alignas(64) struct m_super old;
	int rc = 0;

	if (guide >= next->grown_from_blk || sabotage_point("grow-former"))
		return 0;
	/* Block 0 or this one is whole at any time. */
	if (!sabotage_point("grow-former-fence"))
		rc = dax_fence(pool->dax);
	if (rc)
		return rc;
	rc = dax_store(pool->dax, guide * BLOCK_SIZE, m, sizeof(*m));
	return rc && dax_load(pool->dax, &old, guide * BLOCK_SIZE, sizeof(old), NULL) == 0 ? rc : 0;
}

static int switch_write(struct pool *pool, const struct super *next)
{
	uint32_t agno = former_last(next);
	uint64_t to_blk = mirror_blk(next, agno, next->size_blk);
	_Alignas(64) struct m_super m;
	int rc;

	super_encode(&m, next);
	unit_seal(&m, sizeof(m), next->version_count);
	rc = copies_write(pool, next, &m);
	if (!rc && to_blk != mirror_blk(next, agno, next->grown_from_blk) && !sabotage_point("grow-mirror"))
		rc = mirror_move(pool, agno, to_blk);
	/* Block 0 or a copy is whole at any time, and the mirror is where they say. */
	if (!rc && !sabotage_point("grow-mirror-fence"))
		rc = dax_fence(pool->dax);
	if (!rc)
		rc = dax_store(pool->dax, 0, &m, sizeof(m));
	if (!rc)
		rc = former_copy_write(pool, next, &m);
	/* Transactions go by the new size from here on. */
	if (!rc && !sabotage_point("grow-switch-fence"))
		rc = dax_fence(pool->dax);
	return rc;
}

int grow_switch(struct pool *pool, uint64_t size_blk)
{
	struct super next, old;
	int rc;

	if (pool_failed(pool) || lanes_dead(pool))
		return -EROFS;
	pthread_mutex_lock(&pool->super_mutex);
	old = pool->super;
	next = old;
	super_resize(&next, size_blk);
	next.grown_from_blk = old.size_blk;
	next.incompat |= FEATURE_INCOMPAT_GROWING;
	next.version_count++;
	rc = switch_write(pool, &next);
	super_take(pool, &next);
	pthread_mutex_unlock(&pool->super_mutex);
	if (rc)
		grow_back(pool);
	return rc;
}

/* The superblock of the pool as it was. What became of the copy at that end is not known: it is to be written first (copy_lost). */
static void super_undo(struct super *s)
{
	super_resize(s, s->grown_from_blk);
	s->grown_from_blk = 0;
	s->incompat &= ~FEATURE_INCOMPAT_GROWING;
}

void grow_back(struct pool *pool)
{
	uint64_t size_blk = pool->super.size_blk;
	struct super next;

	pthread_mutex_lock(&pool->super_mutex);
	next = pool->super;
	super_undo(&next);
	super_take(pool, &next);
	pool->copy_lost = true;
	pthread_mutex_unlock(&pool->super_mutex);
	if (super_store(pool) != 0)
		pool_fail(pool, "the superblock cannot be written");
	/* Else it could be found one day when block 0 is lost. */
	if (dax_zero(pool->dax, (size_blk - 1) * BLOCK_SIZE, BLOCK_SIZE) == 0)
		dax_fence(pool->dax);
}

void grow_header(struct pool *pool, struct m_ag *header)
{
	struct super now;

	grow_super(pool, pool_size_blk(pool), &now);
	header->ag_length_blk = le64_of(super_ag_length_blk(&now, le32_get(header->ag_index)));
	if (!sabotage_point("grow-header"))
		ag_super_encode(&header->ag_super, &now);
}

/* ---- the end ---- */

static int header_edit(struct txn *tx, void *arg)
{
	const uint32_t *agno = arg;
	struct pool *pool = txn_pool(tx);
	/* Not txn_lock_ag(): this must not read the chunk tables of all groups. */
	int rc = txn_lock(tx, pool_ag_lock(pool, *agno), true);
	void *unit;

	if (!rc)
		rc = txn_edit(tx, pool_ag_unit(pool, *agno, AG_UNIT_HEADER), MAGIC_AG, &unit);
	if (!rc)
		grow_header(pool, unit);
	if (rc != -EIO && rc != -EUCLEAN)
		return rc;
	log_warn("the header of group %u keeps an old copy of what the superblock says: %s", *agno,
		 strerror(-rc));
	return 0; /* it is damaged anyway */
}

int grow_headers(struct pool *pool, uint32_t end_agno)
{
	int rc = 0;

	for (uint32_t agno = 0; agno < end_agno && !rc; agno++)
		rc = txn_run(pool, TXN_FREEING, header_edit, &agno);
	return rc;
}

/* Its place is nobody's now. */
static int guide_wipe(struct pool *pool)
{
	uint64_t guide = guide_blk(&pool->super);

	if (guide == pool->super.size_blk - 1)
		return 0;
	if (!sabotage_point("grow-wipe") && dax_zero(pool->dax, guide * BLOCK_SIZE, BLOCK_SIZE) != 0)
		log_warn("the former copy of the superblock lies in bad memory");
	/* Once no superblock tells of the growth, nobody does this again. */
	return sabotage_point("grow-wipe-fence") ? 0 : dax_fence(pool->dax);
}

int grow_finish(struct pool *pool)
{
	int rc = sabotage_point("grow-renew") ? 0 : grow_headers(pool, former_last(&pool->super));

	if (!rc)
		rc = guide_wipe(pool);
	if (rc)
		return rc;
	pthread_mutex_lock(&pool->super_mutex);
	pool->super.grown_from_blk = 0;
	pool->super.incompat &= ~FEATURE_INCOMPAT_GROWING;
	pthread_mutex_unlock(&pool->super_mutex);
	return super_store(pool);
}

/* ---- at mount ---- */

/* Either copy. */
static bool header_knows(struct pool *pool, uint32_t agno)
{
	uint64_t laddr = pool_ag_unit(pool, agno, AG_UNIT_HEADER), off;
	_Alignas(64) struct m_ag m;

	for (unsigned copy = 0; copy < 2; copy++) {
		if (pool_place(pool, laddr, copy, &off) == 0 &&
		    dax_load(pool->dax, &m, off, sizeof(m), NULL) == 0 &&
		    !unit_check_header(&m, sizeof(m), MAGIC_AG, laddr, &pool->super.uuid) &&
		    le64_get(m.ag_super.as_size_blk) == pool->super.size_blk)
			return true;
	}
	return false;
}

/* The group that was the last is the first whose header knows the new size; where it is damaged, one of the others may tell. */
static bool has_happened(struct pool *pool)
{
	for (uint32_t agno = former_last(&pool->super) + 1; agno > 0; agno--) {
		if (header_knows(pool, agno - 1))
			return true;
	}
	return false;
}

void grow_settle(struct pool *pool)
{
	if (pool->super.grown_from_blk == 0)
		return;
	if (has_happened(pool) || sabotage_point("grow-settle")) {
		log_info("grown by an earlier mount that did not come to the end of it");
		return;
	}
	log_warn("growing it was broken off: it has the size that it had");
	super_undo(&pool->super);
	pool->copy_lost = true;
	lanes_place(pool);
	ag_unload_all(pool);
}
