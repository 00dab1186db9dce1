/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad memory under metadata: units, superblock, journal.
 *
 * While it is there the other copy serves, and a copy that cannot be written is left behind (txn/unit.c). Here the copy is made good: what it
 * should hold is stored over it, and where that does not help it moves to another block (space/move.c). Everybody else is kept out for
 * that moment, so this is for a thread that holds nothing: the background thread, or whoever asks for it from outside.
 */
#include <errno.h>

#include "fs/poison.h"
#include "util/sabotage.h"

#define BAD_BLOCKS_MAX 16u /* free ones that turn out to be bad as well */

struct place {
	uint64_t blk, laddr;
	unsigned copy;
	bool stands_in;
};

/* Which copy of what lies in the block. False: none does any more. */
static bool place_find(struct pool *pool, uint64_t blk, const struct rmap *owner, struct place *place)
{
	uint64_t off, offset = owner->offset_blk;

	*place = (struct place){ .blk = blk };
	if (owner->owner == OWNER_REMAP) {
		place->stands_in = true;
		place->laddr = offset / 2 * BLOCK_SIZE;
		place->copy = offset % 2;
	} else {
		place->laddr = (offset << CHUNK_SHIFT) + (blk - owner->start_blk) * BLOCK_SIZE;
		place->copy = owner->owner == OWNER_MIRROR;
	}
	return pool_place(pool, place->laddr, place->copy, &off) == 0 && off >> BLOCK_SHIFT == blk;
}

/* The inode whose record lies at dev_off, or whose tree the unit is part of; 0: of none, or nothing tells. */
static uint64_t owner_find(struct pool *pool, const struct place *place, uint64_t dev_off)
{
	_Alignas(64) uint8_t bytes[BLOCK_SIZE];
	const uint8_t *record = bytes + (dev_off & (BLOCK_SIZE - INODE_SIZE));
	const struct m_uuid *uuid = &pool_super(pool)->uuid;
	uint64_t owner = 0;

	if (pool_unit_save(pool, place->laddr, place->copy, bytes) != 0)
		return 0;
	if (unit_size(unit_magic(bytes)) == BLOCK_SIZE &&
	    !unit_check_header(bytes, BLOCK_SIZE, 0, place->laddr, uuid))
		owner = unit_owner(bytes);
	else if (!unit_check_header(record, INODE_SIZE, MAGIC_INODE,
				    place->laddr + (uint64_t)(record - bytes), uuid))
		owner = unit_owner(record);
	return owner & OWNER_SPECIAL ? 0 : owner;
}

/* With everybody else outside. 1: it has been written anew where it is. */
static int place_mend(struct pool *pool, const struct place *place, bool away, uint64_t *bad_blk)
{
	_Alignas(64) uint8_t bytes[BLOCK_SIZE];
	int rc = pool_unit_save(pool, place->laddr, place->copy, bytes);

	if (rc)
		return rc;
	if (!away && pool_unit_rewrite(pool, place->laddr, place->copy, bytes) == 0)
		return 1;
	return space_unit_move(pool, place->laddr, place->copy, place->stands_in, bad_blk);
}

static int unit_mend(struct fs *fs, uint64_t dev_off, const struct rmap *owner, bool away)
{
	struct pool *pool = fs->pool;
	struct place place;
	uint64_t ino, bad_blk;
	unsigned tries = 0;
	int rc;

	if (!place_find(pool, dev_off >> BLOCK_SHIFT, owner, &place))
		return 0;
	do {
		bad_blk = 0;
		pool_freeze(pool);
		rc = place_mend(pool, &place, away, &bad_blk);
		pool_thaw(pool);
		/* The next one may be better, once this one is out of use. */
		if (bad_blk != 0 && poison_handle(fs, bad_blk << BLOCK_SHIFT) != 0)
			break;
	} while (bad_blk != 0 && rc == -EIO && ++tries < BAD_BLOCKS_MAX);
	if (rc < 0)
		return rc;
	ino = owner_find(pool, &place, dev_off);
	poison_tell(fs, &(struct fs_poison){
				.kind = FS_POISON_META, .dev_off = dev_off, .ino = ino, .moved = rc == 0 });
	return 0;
}

/* 1: no lane has blocks there any more. */
static int lane_move(struct fs *fs, uint64_t blk)
{
	struct lane_place lane;
	unsigned tries = 0;
	uint64_t bad_off;
	int rc;

	if (!pool_lane_find(fs->pool, blk, blk + 1, &lane))
		return 1;
	do {
		rc = space_lane_move(fs->pool, &lane, blk, blk + 1, &bad_off);
		if (bad_off != 0 && poison_handle(fs, bad_off) != 0)
			break;
	} while (bad_off != 0 && rc == -EIO && ++tries < BAD_BLOCKS_MAX);
	return rc;
}

/* A lane that has nowhere to go stays, and is used where there is no other. */
static int lane_mend(struct fs *fs, uint64_t dev_off, bool away)
{
	struct fs_poison event = { .kind = FS_POISON_META, .dev_off = dev_off };
	uint64_t blk = dev_off >> BLOCK_SHIFT;
	int rc = away ? 1 : pool_lane_renew(fs->pool, blk);

	if (rc == 1) {
		rc = lane_move(fs, blk);
		if (rc == 1 && away)
			rc = space_journal_leave(fs->pool, blk, blk + 1, true);
		event.moved = rc == 0;
	}
	if (rc < 0 && (away || pool_failed(fs->pool)))
		return rc;
	poison_tell(fs, &event);
	return 0;
}

int poison_meta(struct fs *fs, uint64_t dev_off, const struct rmap *owner, bool away)
{
	uint64_t blk = dev_off >> BLOCK_SHIFT;
	int rc = 0;

	switch (owner->owner) {
	case OWNER_META:
	case OWNER_MIRROR:
	case OWNER_REMAP:
		return unit_mend(fs, dev_off, owner, away);
	case OWNER_SUPER:
		if (blk == 0 || blk == pool_size_blk(fs->pool) - 1)
			rc = pool_super_renew(fs->pool, blk);
		break;
	case OWNER_JOURNAL:
		return lane_mend(fs, dev_off, away);
	case OWNER_FORWARD:
		return -EBUSY; /* what is on its way to it comes first */
	default:
		return 0;
	}
	if (rc < 0)
		return rc;
	if (away)
		return -EOPNOTSUPP; /* written anew, but where it is */
	if (!rc)
		poison_tell(fs, &(struct fs_poison){ .kind = FS_POISON_META, .dev_off = dev_off });
	return 0;
}
