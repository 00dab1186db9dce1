/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad memory under the file system: found, its owners told, taken out of use.
 */
#ifndef UMBRA_FS_POISON_H
#define UMBRA_FS_POISON_H

#include "fs/core.h"
#include "media/node.h"

/*
 * Sees to the block at dev_off: when this returns 0 nobody maps it any more who could be switched away from it, and no unit lies there.
 * No transaction may be open and no lock held that is taken inside of one. -EIO, -ENOSPC ...: it stays as it is.
 */
must_check int poison_handle(struct fs *fs, uint64_t dev_off);

/*
 * The same for what an operation met, but metadata is only noted. 0: the operation may start again, or -EIO. store: it is no read; what files cannot leave it
 * does not store to once that is known, so it may start again then, too.
 */
must_check int poison_met(struct fs *fs, const struct dax_bad *bad, bool store);

/* Out of use, even if it can be read and written. As poison_handle(). */
must_check int poison_away(struct fs *fs, uint64_t dev_off);
/* The same for one of many: the caller tells the log of those that stay. clear: until the device has cleared it. */
must_check int poison_away_listed(struct fs *fs, uint64_t dev_off, bool clear);

/* poison_handle() for what was kept with poison_keep(). */
must_check int poison_again(struct fs *fs, uint64_t dev_off, bool clear);

/* Goes on with what a crash left half-way. */
void poison_resume(struct fs *fs);

void poison_tell(struct fs *fs, const struct fs_poison *event);

/*
 * poison_lock; not inside a transaction. Who goes through many places takes it with poison_enter_last(), anew for each: whoever waits comes before him, and he may
 * not have it already.
 */
void poison_enter(struct fs *fs);
void poison_enter_last(struct fs *fs);
void poison_leave(struct fs *fs);

/* ---- poison_meta.c ---- */

/* A block with such an owner that is no file. away: it is not to be used any more, even if it can be. As poison_handle(). */
must_check int poison_meta(struct fs *fs, uint64_t dev_off, const struct rmap *owner, bool away);

/* ---- poison_clear.c ---- */

/*
 * Before a bad block is seen to: whether it may come back at once, after its device has cleared it. Not what is out of use already: somebody may
 * want it so. Then poison_clear() does it, if nobody has the block any more. As poison_handle().
 */
bool poison_may_clear(struct fs *fs, uint64_t dev_off);
void poison_clear(struct fs *fs, uint64_t dev_off);

/* ---- poison_queue.c ---- */

/* Metadata in bad memory, for poison_drain(). Whatever locks are held. */
void poison_note(struct fs *fs, uint64_t dev_off);
/* Data in bad memory that could not be seen to: tried again until it can, or nobody has it any more. Until the end of this mount. */
struct poison_left {
	bool clear;     /* the device is to clear it then */
	bool on_media;  /* it is known there that it is bad */
	bool for_space; /* there was no room; else it is tried again after a time */
	bool found;     /* it has not been tried yet: nothing is said of it if it is known */
	bool in_vain;   /* nothing can be done about it in this mount */
};
/* The log is to name a place once, however many there are. True: it has not been in the list. False too: there is no room for it, which the log has been told. */
bool poison_keep(struct fs *fs, uint64_t dev_off, const struct poison_left *left);
/* Whether it is so. */
bool poison_is_kept(struct fs *fs, uint64_t blk);
/* There was no free block for one of them when space_freed() was so: nor is there for others. */
void poison_no_block(struct fs *fs, uint64_t freed);
/* Something has been committed: if it has made room that they wait for, the background thread is to know. Whatever locks are held. */
void poison_has_room(struct fs *fs);
/* Somebody does not own these blocks any more. Whatever locks are held but work_lock. */
void poison_let_go(struct fs *fs, uint64_t blk, uint64_t count_blk);
/* Whether what transactions meet is noted. */
void poison_listen(struct fs *fs, bool listen);
/* Sees to what is in the list, each place at most once. As poison_handle(), and not under poison_lock. */
enum poison_when {
	POISON_DUE,  /* what it is time for */
	POISON_ALL,  /* what has just been tried too, but not what waits for space while there is none */
	POISON_LAST, /* at the end: the same, but data that the next mount finds is left to that */
};
void poison_drain(struct fs *fs, enum poison_when when);
/* There were more than the list has room for, and it has room again. Says so once. */
bool poison_list_has_room(struct fs *fs);

/* ---- poison_stay.c ---- */

/* Files cannot leave the block now. 0: on media it is known that it is bad. Under poison_lock, with no transaction open. */
must_check int poison_stay(struct fs *fs, uint64_t blk);
/* It is not bad: it is the files' alone again. 1: it is no such block. As poison_stay(). */
must_check int poison_stay_end(struct fs *fs, uint64_t blk);
/* Whether it is OWNER_BAD's, with files or without, and nobody is on his way out of it. */
bool poison_is_known(struct fs *fs, uint64_t blk);
/* Those that earlier mounts have left are tried again, too. Once in a mount; reads the rmap of the whole pool where there can be any. As poison_handle(). */
void poison_stays_find(struct fs *fs);

#endif
