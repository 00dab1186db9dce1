/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Space of a pool: blocks, their owners and how many they are, metadata units, inode numbers.
 *
 * Truth on media, per group: bitmap, refcount tree (two or more owners), rmap tree (every owner), inode tree. In DRAM: a copy
 * of the bitmap that also holds what running transactions took (or have not yet given back), with a summary of each chunk; it alone decides
 * what may be allocated. It is loaded when a group is first used.
 *
 * All functions with a transaction take the lock of the groups that they edit (txn_lock_ag) and may return
 *	-EDEADLK  lock order: abort and start again (txn.h)
 *	-ENOBUFS  metadata units of a group run low: abort, space_refill(), start again
 *	-ENOSPC, -EIO, -EUCLEAN
 * Blocks that a transaction frees can be allocated again only after its commit.
 */
#ifndef UMBRA_SPACE_SPACE_H
#define UMBRA_SPACE_SPACE_H

#include <stdbool.h>
#include <stdint.h>

#include "btree/btree.h"
#include "media/ag.h"
#include "txn/pool.h"
#include "txn/txn.h"
#include "util/util.h"

/* Sets up and frees the DRAM part; pool_space(pool) points to it. */
must_check int space_open(struct pool *pool);
void space_close(struct pool *pool);

/*
 * The pool grows on what its device or file has gained; a plain file is made size_bytes large before (0: as it is). Others may work meanwhile: they
 * wait for a moment. No lock may be held, no transaction be open. Errors, with the pool as it was: -EALREADY there is nothing to grow on,
 * -EBUSY somebody else grows it, -EROFS, -EIO, -ENOSPC, and those of dax_grow().
 */
must_check int space_grow(struct pool *pool, uint64_t size_bytes);

struct space_totals {
	uint64_t total_blk; /* what data could use in an empty pool */
	uint64_t free_blk;  /* without the reserve */
	uint64_t inode_count, inode_free;
	uint64_t meta_chunks, meta_free_units;
	uint64_t reserve_blk;
};

/* Sums of the groups' counters (a snapshot, no locks kept). */
must_check int space_totals(struct pool *pool, struct space_totals *totals);

/* ---- file data ---- */

/* own and drop edit the bitmap: a piece of so many blocks touches at most two units of it. space_alloc gives no more at once (but with want.all). */
#define SPACE_PIECE_BLK (63u * CHUNK_BLOCKS)

/*
 * Where a file's next blocks should come from: a few windows of blocks set aside in DRAM around what was written last, so that
 * files written in small pieces or at random places get contiguous blocks. Zeroed = none. Covered by the inode's lock;
 * taken back by the allocator when space runs out.
 */
struct space_stream {
	void *windows; /* NULL: none */
};
void space_stream_release(struct pool *pool, struct space_stream *stream);

struct space_want {
	uint32_t agno_hint;          /* where the inode lives */
	uint64_t goal_blk;           /* 0 or the device block it should follow */
	uint64_t file_blk;           /* for the stream */
	uint64_t count_blk;          /* how many */
	bool all;                    /* one run of count_blk or -ENOSPC */
	struct space_stream *stream; /* may be NULL */
};

/*
 * Takes a run of 1 .. count_blk free blocks in DRAM: contiguous, 2 MiB aligned where large; no lock, nothing on media yet. Back to
 * free if the transaction aborts. The caller stores data into it and then calls space_own() for all of it in the same transaction.
 */
must_check int space_alloc(struct txn *tx, const struct space_want *want, uint64_t *blk, uint64_t *count_blk);

/* Takes that one block if it is free, as space_alloc() does. -EBUSY: it is not, or a running transaction has it. */
must_check int space_alloc_at(struct txn *tx, uint64_t blk);

/*
 * Sets aside a chunk for the 2 MiB of the file from want->file_blk on, which lie as it does: space_alloc() with this stream then gives block k of them place k of
 * it. chunk_blk: that chunk, of which the blocks of have are the file's already (a bit each); 0: any that is wholly free. Of want only agno_hint, file_blk and
 * stream count. -ENOSPC: something else is there, or there is none.
 */
must_check int space_window_chunk(struct txn *tx, const struct space_want *want, uint64_t chunk_blk,
				  const uint64_t have[CHUNK_BLOCKS / 64], uint64_t *blk);
/* The chunk that is set aside in this way, or has come to be; 0: none. */
uint64_t space_window_at(struct pool *pool, const struct space_stream *stream, uint64_t file_blk);

/* Blocks from space_alloc get their first owner: bitmap, rmap, counters. */
must_check int space_own(struct txn *tx, uint64_t blk, uint64_t count_blk, uint64_t owner,
			 uint64_t offset_blk);
/* Owned blocks get one more owner: refcount, rmap. */
must_check int space_share(struct txn *tx, uint64_t blk, uint64_t count_blk, uint64_t owner,
			   uint64_t offset_blk);
/* The same for one who has what lies before or behind already: that stays one record, at the price of looking for it. */
must_check int space_share_join(struct txn *tx, uint64_t blk, uint64_t count_blk, uint64_t owner,
				uint64_t offset_blk);
/* An owner goes; the blocks whose last owner it was become free after the commit. */
must_check int space_drop(struct txn *tx, uint64_t blk, uint64_t count_blk, uint64_t owner,
			  uint64_t offset_blk);
/*
 * The same for a piece of an extent that starts at extent_blk (or did before this drop): the owner's record is then found at once, however
 * many owners have overlapping ones. A wrong extent_blk only costs time.
 */
must_check int space_drop_piece(struct txn *tx, uint64_t blk, uint64_t count_blk, uint64_t owner,
				uint64_t offset_blk, uint64_t extent_blk);
/* The same owner now has them at another file offset. */
must_check int space_shift(struct txn *tx, uint64_t blk, uint64_t count_blk, uint64_t owner,
			   uint64_t old_offset_blk, uint64_t new_offset_blk);

/* How many owners the block at blk has (1: not shared) and how far (up to count_blk) the same number holds. */
must_check int space_refs(struct txn *tx, uint64_t blk, uint64_t count_blk, uint64_t *refs,
			  uint64_t *same_blk);

/* Calls fn for each owner of a piece of [blk, blk + count_blk), in order of start, with the whole record (it may reach beyond); fn changes nothing and stops the walk with a non-zero value, which is returned.
 * Metadata chunks come as OWNER_META / OWNER_MIRROR. */
must_check int space_owners(struct txn *tx, uint64_t blk, uint64_t count_blk,
			    int (*fn)(void *arg, const struct rmap *rmap), void *arg);

/*
 * Somebody who may hold blocks that become free: fn says how many from blk on he holds, or does not (*held). Those are kept from use until
 * space_release(); on media they are free, so after a crash or a mount they are as any others. Called after commits (and where a range is opened) under locks of
 * the space floor: fn calls nothing of it. NULL: nobody any more; on return nobody is in fn.
 */
typedef uint64_t (*space_keep_fn)(void *arg, uint64_t blk, uint64_t count_blk, bool *held);
void space_set_keep(struct pool *pool, space_keep_fn fn, void *arg);
/* What of these blocks is kept from use is so no longer. At any time, inside of a transaction too; waits for no lock that is held for more than a moment. */
void space_release(struct pool *pool, uint64_t blk, uint64_t count_blk);

/* Another number than before: there may be blocks that nobody could take before. */
uint64_t space_freed(const struct pool *pool);
/* Another number than before: OWNER_BAD may have got or lost blocks. */
uint64_t space_bad_changes(const struct pool *pool);

/* ---- metadata units and inode numbers ---- */

/* One unit near hint_laddr (any group if that is full), or a run of count aligned to count (power of two <= 8). */
must_check int space_meta_alloc(struct txn *tx, uint64_t hint_laddr, uint32_t count, uint64_t *laddr);
must_check int space_meta_free(struct txn *tx, uint64_t laddr, uint32_t count);
extern const struct bt_alloc space_bt_alloc; /* nodes of inodes' trees */

/* Makes new metadata chunks where they run low (transactions of its own; no lock may be held). -ENOSPC if it cannot and there is need. */
must_check int space_refill(struct pool *pool);
/* Gives metadata chunks that are not used at all back to data (transactions of its own; no lock may be held). Cheap if there is none: to be
 * called when space runs out and now and then. Returns how many, or -errno. */
must_check int space_trim(struct pool *pool);

/* A free inode number in or near that group; the record on media is the caller's to make with txn_new. */
must_check int space_inode_alloc(struct txn *tx, uint32_t agno_hint, uint64_t *ino);
must_check int space_inode_free(struct txn *tx, uint64_t ino);
/* 0 if the number is allocated, -ESTALE if it is not or never could be (any 64-bit value is fine). */
must_check int space_inode_check(struct txn *tx, uint64_t ino);
/* Group for a new directory: spreads them. */
uint32_t space_dir_group(struct pool *pool, uint32_t parent_agno);

/* A tree of a group (caller holds or takes the group's lock through it). */
must_check int space_ag_tree(struct txn *tx, uint32_t agno, enum ag_tree which, struct btree *bt);

/*
 * One copy of the unit at laddr, or of the eight inodes there, leaves its block for another one (FORMAT.md 5.5). stands_in: that block is OWNER_REMAP's.
 * Between pool_freeze() and pool_thaw(). -ENOSPC: no block, or no room in the list. -EIO: what it held cannot be had, or (*bad_blk != 0)
 * a free block cannot be used: it is to be taken out of use first.
 */
must_check int space_unit_move(struct pool *pool, uint64_t laddr, unsigned copy, bool stands_in,
			       uint64_t *bad_blk);
/* What is left to do of one that had an intent (FORMAT.md 5.2, INTENT_RELOCATE), but for clearing that. */
must_check int space_unit_move_end(struct txn *tx, const uint64_t args[8]);

/* The same out of a block that stands in and is not bad: it becomes free. */
must_check int space_unit_leave(struct pool *pool, uint64_t laddr, unsigned copy, uint64_t *bad_blk);

/* ---- emptying a range ---- */

/*
 * From here on nothing is handed out of these blocks, nor what becomes free there. One range at a time. Waits until no transaction is open: no lock
 * may be held that others take inside of one.
 */
must_check int space_close_range(struct pool *pool, uint64_t lo_blk, uint64_t hi_blk);
/* What nobody owns in it is free again. */
must_check int space_open_range(struct pool *pool);
/* The next run in [blk, end_blk) of the closed range that nobody owns, for space_own(). -ENOENT: none. */
must_check int space_closed_free(struct txn *tx, uint64_t blk, uint64_t end_blk, uint64_t *run_blk,
				 uint64_t *count_blk);
/* What data may still take outside of it, and wholly free chunks (those that are kept for metadata included). */
void space_room(struct pool *pool, uint64_t *free_blk, uint64_t *whole_chunks);
/*
 * One copy of a metadata chunk, which lies at blk, goes to another chunk; all others wait for that moment. Blocks of the old one belong to OWNER_BAD then if
 * they are bad, or (bad) closed, else they are free. 1: it does not lie there any more. -ENOSPC: there is no wholly free chunk. -EIO: not all of it can be
 * had, or (found->new_off != 0) what was to be its new place is bad memory there.
 */
struct chunk_bad {
	uint64_t old[CHUNK_BLOCKS / 64]; /* of what it leaves: blocks that cannot be read, a bit for each */
	uint64_t new_off;
	uint64_t home_blk; /* closed ones that stood in for units of it: they lie in the new chunk now */
};
must_check int space_chunk_move(struct pool *pool, uint64_t blk, uint64_t lchunk, unsigned copy, bool bad,
				struct chunk_bad *found);

/*
 * The copy of a journal lane that lies at *from goes elsewhere; all others wait for that moment. Of what it leaves, blocks in
 * [bad_blk, bad_end_blk) belong to OWNER_BAD then, the rest is free. 1: it does not lie there any more. -ENOSPC: nowhere are so many free blocks in one
 * piece, or there is no intent. -EIO: *bad_off != 0: what was to be its new place is bad memory there.
 */
must_check int space_lane_move(struct pool *pool, const struct lane_place *from, uint64_t bad_blk,
			       uint64_t bad_end_blk, uint64_t *bad_off);
/* What is left to do of one that had an intent (FORMAT.md 5.2, INTENT_LANE), but for clearing that: first, with no transaction open, and then in one. */
must_check int space_lane_resume(struct pool *pool, const uint64_t args[8]);
must_check int space_lane_move_end(struct txn *tx, const uint64_t args[8]);
/*
 * Blocks of one group that the journal has for no lane: they are known as such, or belong to OWNER_BAD. 1: there is a lane among them. -EOPNOTSUPP:
 * they are the journal's as long as the lanes before them are where they have always been. As space_lane_move().
 */
must_check int space_journal_leave(struct pool *pool, uint64_t blk, uint64_t end_blk, bool bad);

/* The block is not OWNER_BAD's any more: free, or in the first or last chunk what it was. */
must_check int space_bad_drop(struct txn *tx, uint64_t blk);

/* ---- intents ---- */

/* A free slot near the inode's group: its intents unit and index. The caller edits it with txn_edit(MAGIC_INTENTS). -EBUSY: all in use. */
must_check int space_intent_alloc(struct txn *tx, uint32_t agno_hint, uint64_t *unit_laddr, uint32_t *index);

#endif
