/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who maps pages of files directly, as the file system sees them: somebody above, to be asked before blocks of a file change places or owners.
 *
 * An operation that is about to do so calls op_change() (core.h) for the range, under the inode's write lock and before its first edit. Where there are
 * holders that have to let go it returns -EUSERS; op_run() then aborts the operation, calls begin() with no lock held, and starts the
 * operation again. end() follows when the operation has ended. Shadows are granted in fs_grant(), under the inode's lock.
 */
#ifndef UMBRA_FS_HOLDERS_H
#define UMBRA_FS_HOLDERS_H

#include <stdbool.h>
#include <stdint.h>

#include "fs/fs.h"
#include "util/util.h"

enum fs_change {
	FS_CHANGE_SHARE, /* blocks get one more owner: nobody may store into them through a mapping */
	FS_CHANGE_MOVE, /* the file gets other blocks there, or none, or others where there are none: nobody may see the old ones */
	/* The kernel gets pages to keep. Nothing else changes, so who does not answer is left alone */
	FS_CHANGE_LEND,       /* that it only reads: nobody may store there through a mapping */
	FS_CHANGE_LEND_STORE, /* that it may store to: nobody may have them */
};

/* Whether shadows that cannot be stored through may stay. */
static inline bool fs_change_leaves_reads(enum fs_change change)
{
	return change == FS_CHANGE_SHARE || change == FS_CHANGE_LEND;
}

struct fs_holders {
	void *arg;
	/*
	 * Asks all who hold shadows in [lo_blk, hi_blk) of the file to let go, and waits for them; until end() no shadow of the file is granted. Called with no
	 * lock held (but those of who sees to bad memory or empties a range: who meets bad memory meanwhile waits). Several may be under way for one file, and
	 * of one operation; the same range may be begun twice, and is ended as often. Returns 0 also if somebody did not answer: held() is not true for those any more, and the blocks
	 * are kept from use. -EBUSY: a SHARE that cannot be made safe. On errors end() is not called.
	 */
	int (*begin)(void *arg, uint64_t ino, uint64_t lo_blk, uint64_t hi_blk, enum fs_change change);
	void (*end)(void *arg, uint64_t ino, uint64_t lo_blk, uint64_t hi_blk, enum fs_change change);
	/*
	 * Whether somebody has to be asked; for SHARE also of those who do not answer: begin() then says -EBUSY. Under the inode's lock; takes no lock
	 * itself.
	 */
	bool (*held)(void *arg, uint64_t ino, uint64_t lo_blk, uint64_t hi_blk, enum fs_change change);
	/*
	 * Blocks have become free, on media and for good: how many from blk on are held by somebody, or are not (*held). Those that are held are the
	 * holder's to give back, by space_release(), which is for no others. Called after commits, and once more for what is free and held when a range that was emptied is
	 * opened; under locks of the space floor: takes none that are held around calls of fs or space_release().
	 */
	uint64_t (*keep)(void *arg, uint64_t blk, uint64_t count_blk, bool *held);
};

/* Before anybody else uses fs; NULL: nobody any more. *holders stays the caller's and has to live on. */
void fs_set_holders(struct fs *fs, const struct fs_holders *holders);

/* One piece of a file as a holder may have it. */
#define FS_PIECE_WRITE 0x1u  /* may be stored to: written, one owner */
#define FS_PIECE_HOLE 0x2u   /* nothing there, or unwritten: reads as zero; dev_blk is 0 */
#define FS_PIECE_SHARED 0x4u /* several owners */
#define FS_PIECE_LOST 0x8u   /* lines are lost, or it leaves bad memory: not to be mapped */
#define FS_PIECE_PAST \
	0x10u /* unwritten blocks past the end of the file: its own, and nothing that it shows */
struct fs_piece {
	uint64_t file_blk, dev_blk, count_blk;
	uint32_t flags;
};
struct fs_grant {
	uint64_t ino;
	uint64_t lo_blk, hi_blk; /* in; cut at the end of the file */
	bool write;              /* FS_PIECE_WRITE where it may be */
	bool whole;              /* with FS_PIECE_PAST, up to the end of the chunk */
	bool any_tail;           /* the last block whatever it has past the end of the file */
	/*
	 * Called for what there is, in order, under the inode's lock; the pieces are the holder's from here on. 0, or an error that fs_grant() returns;
	 * -EAGAIN: not now (somebody has begun a change).
	 */
	int (*take)(void *arg, const struct fs_piece *pieces, unsigned count, uint64_t size_bytes);
	void *arg;
};
#define FS_GRANT_PIECES 256u /* at most in one call: what is left of the range is not granted */
/*
 * -EINVAL: not a regular file, or its data is in the inode (it has no blocks). -ERESTART: the kernel may keep pages that were stored to, or that would not hear of stores: it
 * is to drop them first (fs_drop_begin()); what take() was given may count, but the holder must not use it. -EDOM: past the end of the file the last block is not all zeroes
 * (fs_zero_tail()). Counts nothing by itself: see fs_hold().
 */
must_check int fs_grant(struct fs *fs, const struct fs_grant *grant);
/* Zeroes the last block past the end of the file, in a copy of it if it is shared. Neither content nor times change. -EROFS, -ENOSPC. */
must_check int fs_zero_tail(struct fs *fs, uint64_t ino);

/*
 * Makes [lo_blk, hi_blk), cut at the end of the file, storable: holes are filled with zeroes, unwritten blocks written, shared ones copied, data out of the inode. As far as
 * *done_blk if it cannot be done as a whole (-ENOSPC and the like only if nothing was). Clears setuid and setgid as a write does, moves mtime. Shadows of
 * others are asked to go.
 */
must_check int fs_make_storable(struct fs *fs, const struct fs_cred *cred, uint64_t ino, uint64_t lo_blk,
				uint64_t hi_blk, uint64_t *done_blk);

/*
 * Of what fs_make_storable() has copied of the file (0: of any file) that which is still the same shares blocks again with where it came from, in the background (fs_work()), if somebody
 * has those still. Holders that are left are asked to go. It is for when they are done: a store afterwards copies again.
 */
void fs_give_back(struct fs *fs, uint64_t ino);

/*
 * Makes the 2 MiB of the file from lo_blk on (which lie like a chunk) one chunk of the device, as far as they begin before its end: what lies elsewhere is copied, holes
 * are filled, and past the end of the file the rest is set aside. store: shared blocks are copied too, so that all of it can be stored to; setuid and mtime as above.
 * Otherwise what is all hole stays so, and content and times do. Shadows are asked to go where anything is to be done.
 * -EOPNOTSUPP: not for who only reads: half of it is holes, or it is shared, and not the end of the file; or lines are lost. -EINVAL: data is in the inode. -ENOSPC: no wholly free chunk.
 */
must_check int fs_make_whole(struct fs *fs, const struct fs_cred *cred, uint64_t ino, uint64_t lo_blk,
			     bool store);

/* A holder has the file: op_change() asks held() while it is so. Counted; ino stays allocated. -ESTALE, -ENOMEM. */
must_check int fs_hold(struct fs *fs, uint64_t ino);
void fs_unhold(struct fs *fs, uint64_t ino);

/*
 * Around having the kernel drop all pages of the file, which waits for those that are on their way to it. Then there are none, unless it was given some meanwhile, or another drop
 * has begun. Whatever fs_drop_begin() returns is for fs_drop_end().
 */
uint64_t fs_drop_begin(struct fs *fs, uint64_t ino);
void fs_drop_end(struct fs *fs, uint64_t ino, uint64_t drop);
/* Whether somebody holds the file; and the kernel may keep pages of it. Takes no lock if nobody holds any. */
bool fs_is_held(struct fs *fs, uint64_t ino);
bool fs_is_lent(struct fs *fs, uint64_t ino);
/*
 * After an open with FS_OPEN_MAP has been counted: where the kernel may keep pages of a file that is held the holders have given up what they have of it, since such a page is
 * stored to without a word. -EBUSY: they have taken more as often as they were asked.
 */
must_check int fs_lend_all(struct fs *fs, uint64_t ino);
/* The same without waiting: -EUSERS, if one of them would have to be asked. */
must_check int fs_lend_all_now(struct fs *fs, uint64_t ino);

#endif
