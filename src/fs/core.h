/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the parts of fs/ share: the inode table, the runner of operations, access to inodes inside a transaction.
 *
 * An operation is a function that is run inside a transaction, perhaps several times: it must look at everything again each
 * time, and change nothing of its own on errors (outputs are set only on success, by assignment).
 *
 * Lock order: evac_lock (or else it is only tried), rename_lock, drain_lock, poison_lock, slow_lock, then the locks of a transaction (inodes by number, groups by number), then
 * work_lock. rename_lock, drain_lock, poison_lock and slow_lock are never taken inside a transaction.
 */
#ifndef UMBRA_FS_CORE_H
#define UMBRA_FS_CORE_H

#include <pthread.h>
#include <stdatomic.h>
#include <urcu/urcu-memb.h>
#include <urcu/rculfhash.h>
#include <urcu/list.h>

#include "fs/copies.h"
#include "fs/fs.h"
#include "fs/holders.h"
#include "fs/ledger.h"
#include "space/space.h"
#include "txn/txn.h"

/* An inode in DRAM: exists while it is referenced, opened or part of a running operation. */
struct inode {
	struct txn_lock lock; /* covers the inode's record and trees, and the fields marked (l) */
	uint64_t ino;
	struct ledger_cell *cell; /* NULL: there is no ledger */
	_Atomic bool adopted;     /* what its cell says has been counted */
	_Atomic uint64_t
		pins; /* all that keeps it in the table: references, opens, operations, queues. 0: on its way out */
	_Atomic uint64_t refs;                          /* lookups of the kernel */
	_Atomic uint32_t opens, write_opens, map_opens; /* counted up under (l), any mode */
	_Atomic uint32_t cached_opens;                  /* the same; counted down any time */
	_Atomic uint64_t modes;                         /* how they get at data (modes.c) */
	_Atomic uint64_t
		page_reads;       /* into the page cache while write_opens > 0; counted under (l), any mode */
	_Atomic uint32_t holders; /* who map its blocks, each an open too; counted up under (l), any mode */
	_Atomic uint64_t lent;    /* whether the kernel may keep pages of it (lend.c) */
	_Atomic bool checked;     /* the inode tree says that it is allocated; set under (l), any mode */
	_Atomic bool unlinked;    /* no name left: free it when refs and opens are gone */
	_Atomic bool unreadable;  /* some of it was, in bad memory that stays where it is */
	_Atomic bool freeing;     /* somebody is about to free it, or it is in fs->orphans */
	bool atime_queued;        /* in fs->atimes; under work_lock */
	_Atomic int64_t atime_ns; /* newer access time, not on media yet, since 1970; 0: none */
	struct space_stream stream; /* (l) */
	struct cds_list_head orphan_link, atime_link;
	struct cds_lfht_node node;
	struct rcu_head rcu;
};

/* A place in bad memory that is to be seen to (poison_queue.c). */
struct bad_place {
	uint64_t dev_off;
	uint64_t not_before_ms; /* it has been tried in vain */
	uint32_t round;         /* in which it was tried last */
	uint8_t tries;
	bool due; /* metadata: it was met since it was tried; data: a file has let go of it */
	bool in_work;
	bool data; /* a block of files that could not be helped: tried again and again, until it can or is nobody's */
	bool for_space; /* it waits for room, not for a time */
	bool on_media;  /* that it is bad */
	bool clear;     /* the device is to clear it in the end */
};
#define BAD_PLACES_MAX 16384u

/* A block that was met as bad, and could be read (poison.c). */
struct passed_place {
	uint64_t blk;
	int64_t since_s;
	unsigned count; /* since then */
};

struct fs {
	struct pool *pool;
	struct fs_opts opts;
	uint64_t name_seed, parent_seed; /* of the hashes */
	uint64_t hash_last;              /* highest key of a name */

	struct cds_lfht *inodes;
	_Atomic uint64_t inode_count;
	pthread_mutex_t
		adopt_lock; /* inodes that come into the table and have a cell; nothing is taken under it */

	_Atomic(const struct fs_holders *) holders; /* NULL: nobody maps files */
	_Atomic uint64_t holder_count;              /* of all inodes */
	_Atomic uint64_t drops; /* how often the kernel has been made to drop pages (lend.c) */

	pthread_mutex_t slow_lock;      /* of operations that lost many rounds; recursive */
	pthread_mutex_t rename_lock;    /* directories move between directories one at a time */
	pthread_mutex_t drain_lock;     /* whoever empties the queues */
	pthread_mutex_t poison_lock;    /* whoever sees to bad memory; recursive; by poison_enter() */
	pthread_mutex_t poison_next;    /* who waits for it, before him who has had it */
	unsigned poison_depth;          /* under poison_lock */
	struct passed_place passed[16]; /* under poison_lock */
	struct copies copies;
	bool stays_made; /* this mount has left files in bad memory (poison_stay.c); under poison_lock */
	_Atomic bool bad_in_use;   /* there may be such files, of earlier mounts too; set under poison_lock */
	_Atomic bool stays_sought; /* those of earlier ones have been looked for, or there are none */
	pthread_mutex_t evac_lock; /* whoever empties a range */
	struct evacuation *evac;   /* under evac_lock */
	_Atomic fs_wait_fn wait_fn;
	void *wait_arg;
	fs_poison_fn poison_fn;
	void *poison_arg;
	struct fs_poison *untold; /* (poison_lock) events of the mount, for who listens first */
	size_t untold_count, untold_room;
	bool is_resuming; /* (poison_lock) they are kept */

	uint64_t bad_blk,
		bad_counted_at; /* blocks out of use, space_bad_changes() + 1 before they were counted; under work_lock */

	pthread_mutex_t work_lock;
	pthread_cond_t work_cond;
	struct cds_list_head orphans; /* inodes to free, pinned */
	struct cds_list_head atimes;  /* inodes with an access time to write, pinned */
	pthread_t worker;
	struct cds_list_head events; /* of metadata units, to be logged */
	unsigned event_count;
	struct bad_place *bad;                   /* in order */
	_Atomic unsigned bad_count, bad_waiting; /* the latter: for_space; changed under work_lock */
	unsigned bad_room;
	unsigned bad_told; /* blocks of files in it that the log has spoken of */
	bool bad_new;      /* there is something to do that the background thread does not know of */
	bool bad_added;    /* perhaps before those that a round has come to */
	bool bad_over; /* there were more than there is room for: those on media are to be looked for again */
	uint32_t bad_round;
	_Atomic uint64_t bad_full_at; /* space_freed() when there was no room for any of them */
	uint64_t bad_full_until_ms;   /* so long that counts */
	uint64_t bad_vain_until_ms;   /* tried in vain, bad_vain rounds in a row */
	unsigned bad_vain;
	bool worker_runs, worker_idle; /* idle: waits to be woken; under work_lock */
	_Atomic bool worker_stop;
	_Atomic bool orphans_scanned; /* those that an earlier mount left have been looked at */
};

/* Blocks of a file that an operation is about to change (op_change()). */
struct op_change {
	uint64_t ino, lo_blk, hi_blk;
	enum fs_change change;
};

/* One run of an operation. */
#define OP_HELD_FEW 6
#define OP_CHANGES 16
struct op {
	struct fs *fs;
	struct txn *tx;
	const struct fs_cred *cred; /* may be NULL */
	struct inode_time now;
	struct inode **held; /* inodes pinned by this run */
	unsigned held_count, held_size;
	struct inode *held_few[OP_HELD_FEW];
	struct op_dropped *dropped; /* blocks that lost an owner in transaction dropped_seq; in its memory */
	uint64_t dropped_seq;
	struct op_change *changes; /* OP_CHANGES of them: what holders have to be asked about */
	unsigned change_count;
	bool bad_data;      /* this run met bad memory in file data */
	struct dax_bad bad; /* there */
	int64_t answer; /* for the receipt, if it has one: an inode that is made (RECEIPT_MAKES), or how far the request has come */
	uint32_t answer_flags;
};

/* The cred of a call that is given none: with the receipt of this thread; NULL: it has none. */
const struct fs_cred *op_request(void);

typedef int (*op_fn)(struct op *op, void *arg);

/*
 * Runs fn in a transaction and commits it (aborts on a negative result, which is returned; else fn's value is). Starts again on -EDEADLK with
 * the blocked lock taken first, on -ENOBUFS after space_refill(), on the first -ENOSPC after draining orphans; takes the pool-wide
 * slow lock after some rounds so that nobody starves. On -ENOLCK (no place for an intent) it waits a little. On -EUSERS (op_change()) holders are asked
 * to let go, until the operation is over. An error of the commit itself is not tried again.
 */
must_check int op_run(struct fs *fs, enum txn_mode mode, const struct fs_cred *cred, op_fn fn, void *arg);
/* The same, but nobody is asked to let go: -EUSERS, and nothing has been done. */
must_check int op_run_now(struct fs *fs, enum txn_mode mode, const struct fs_cred *cred, op_fn fn, void *arg);
/* The same under poison_lock: nothing is drained. Whoever gets -ENOSPC leaves the lock, calls op_gain_space() and tries once more. */
must_check int op_run_poison(struct fs *fs, enum txn_mode mode, op_fn fn, void *arg);
must_check int op_gain_space(struct fs *fs);

/* The inode with its lock held to the end of the operation; inode may be NULL. -ESTALE: no such inode. -EDEADLK. */
must_check int op_inode(struct op *op, uint64_t ino, bool write, struct inode **inode);
/* Two of them in lock order (they may be the same). */
must_check int op_inode_pair(struct op *op, uint64_t a, bool a_write, struct inode **ia, uint64_t b,
			     bool b_write, struct inode **ib);
/* The lock alone: the number may be of no inode. */
must_check int op_hold(struct op *op, uint64_t ino, bool write, struct inode **inode);

/* The result of an access to file data: -EHWPOISON where it met bad memory, so that op_run() sees to that and starts again. */
int op_dax(struct op *op, int rc);

/* The record of a locked inode: attributes decoded, or put back into its image. */
must_check int inode_get(struct op *op, uint64_t ino, struct inode_attr *attr);
must_check int inode_put(struct op *op, const struct inode_attr *attr);
must_check int inode_record(struct op *op, uint64_t ino, const struct m_inode **record);
must_check int inode_edit(struct op *op, uint64_t ino, struct m_inode **record);
static inline uint64_t inode_laddr(uint64_t ino)
{
	return ino << INODE_SHIFT;
}
static inline uint32_t inode_agno(struct fs *fs, uint64_t ino)
{
	return pool_laddr_ag(fs->pool, inode_laddr(ino));
}

/* Its trees. */
void inode_data_tree(struct op *op, uint64_t ino, enum node_kind kind,
		     struct btree *bt); /* NODE_EXTENT, NODE_DIR */
void inode_attr_tree(struct op *op, uint64_t ino, struct btree *bt);

/* Sets mtime and ctime (or ctime alone) to op->now and counts the change; in *attr only. */
void attr_touch(struct op *op, struct inode_attr *attr, bool mtime);
/*
 * What a write by an unprivileged user does to a locked inode: clears setuid, and setgid where group-executable or of a group that is not the
 * caller's, and takes file capabilities (security.capability) away.
 */
must_check int inode_kill_priv(struct op *op, struct inode_attr *attr);
must_check int inode_drop_caps(struct op *op, struct inode_attr *attr);

/* What the DRAM inode says when the transaction has committed. */
enum inode_event {
	INODE_MADE,     /* checked, not unlinked unless nlink is 0 (tmpfile) */
	INODE_UNLINKED, /* lost its last name */
	INODE_NAMED,    /* has a name again */
	INODE_FREED,
	INODE_REF,   /* one more reference */
	INODE_ATIME, /* its access time has been set: the noted one is void */
};
void inode_on_commit(struct op *op, struct inode *inode, enum inode_event event);

/* ---- itable.c: the table of inodes ---- */

must_check int itable_open(struct fs *fs);
/* References and opens that are left at the end mean nothing: orphans among them are freed. */
void itable_disown_all(struct fs *fs);
void itable_close(struct fs *fs);
/* The inode with one more pin (or as many as given), made if it is not there; make = false: NULL then. NULL: no memory. */
struct inode *inode_pin(struct fs *fs, uint64_t ino, uint64_t count, bool make);
/* One that is there, or that the kernel knows from another daemon. */
struct inode *inode_pin_known(struct fs *fs, uint64_t ino);
void inode_unpin(struct fs *fs, struct inode *inode, uint64_t count);
/* One more reference (with its pin) to an inode that is pinned; back again. Both may free an orphan: hold no lock in inode_unref. */
void inode_ref(struct inode *inode);
struct inode *inode_pin_ref(struct fs *fs, uint64_t ino); /* pin and reference in one; NULL: no memory */
void inode_unref(struct fs *fs, struct inode *inode, uint64_t count);
/* For qsort() of pointers to inodes: the order of their locks. */
int inode_compare(const void *a, const void *b);
/* RCU of the calling thread; op_run and itable.c do it by themselves. */
void thread_register(void);

/* ---- atime.c ---- */

/* attr as others see it: with the access time that is not on media yet, and INODE_LOST if not all of it could be read. */
void inode_show(const struct inode *inode, struct inode_attr *attr);
/* A read of a locked inode happened: notes the access time if the mount options want it. */
void atime_note(struct op *op, struct inode *inode, const struct inode_attr *attr);
/* Writes what was noted. No lock held. */
void atime_flush(struct fs *fs);

/* ---- namei.c: for all that make inodes and names ---- */

/* -ENOTDIR, -ENOENT (removed), -EPERM (immutable): whether names can be made in this directory. */
must_check int dir_may_add(const struct inode_attr *dir);
/* The type of directory entries that stands for a mode. */
uint8_t mode_dt(uint32_t mode);
/* Name of a new entry: length and bytes. */
must_check int name_check(const char *name, size_t len);

/* Attributes of a new inode in dir: owner, group, setgid, umask or default ACL, inherited flags. acl gets what inode_new_acl() will store. */
struct new_acl {
	void *access, *dflt; /* blobs in the transaction's memory; NULL: none */
	size_t access_size, dflt_size;
};
must_check int inode_template(struct op *op, const struct inode_attr *dir, uint32_t mode, uint32_t rdev,
			      struct inode_attr *attr, struct new_acl *acl);
/* Takes a number near group agno and makes the record from attr (number, generation and times are filled in); locked for writing. */
must_check int inode_new(struct op *op, uint32_t agno, struct inode_attr *attr, struct inode **inode);
must_check int inode_new_acl(struct op *op, struct inode_attr *attr, const struct new_acl *acl);
/* A name in a locked directory for a locked inode: entry, parent item, size and times of the directory (nlink is the caller's). -EEXIST. */
must_check int name_add(struct op *op, struct inode_attr *dir, const char *name, size_t len,
			const struct inode_attr *attr);
/* The inode lost one name (count links: 2 for a directory), of that key in dir: parent item, nlink, ctime, orphan. */
must_check int name_drop(struct op *op, struct inode *inode, struct inode_attr *attr, uint64_t dir,
			 uint64_t key);

/* ---- size.c, chain.c ---- */

/* Sets the size of a locked regular file in *attr and in its extents, in several transactions under an intent if need be: attr is put by
 * the first of them, and read again. The caller puts it at the end. */
must_check int data_set_size(struct op *op, struct inode *inode, struct inode_attr *attr, uint64_t size);
must_check int data_resume(struct fs *fs); /* continues all intents */

/* ---- attr.c ---- */

/* One open less that was a holder's, not the kernel's. */
void open_unhold(struct fs *fs, uint64_t ino);

/* ---- orphan.c ---- */

must_check int orphan_add(struct op *op, const struct inode_attr *attr); /* nlink is 0 now */
must_check int orphan_remove(struct op *op, uint64_t ino);               /* it got a name again */
/* Frees data, attributes and number, in as many transactions as it takes. -EBUSY: it is referenced, or has a name. */
must_check int orphan_free(struct fs *fs, uint64_t ino);
/* Frees all that nobody needs any more, what an earlier mount left included; orphan_drain_soon: but for those. No lock held. */
void orphan_drain(struct fs *fs);
void orphan_drain_soon(struct fs *fs);
/* Frees the pinned inode if nobody needs it any more: in the background if there is one. No lock held. */
void orphan_check(struct fs *fs, struct inode *inode);

/* ---- work.c: the background thread ---- */

must_check int work_start(struct fs *fs);
void work_stop(struct fs *fs);
/* There is something in fs->orphans or fs->events, or copies are due; work_lock is held. */
void work_wake(struct fs *fs);

/* ---- holders.c: those who map pages of files ---- */

/*
 * [lo_blk, hi_blk) of a file is about to get other blocks or none (FS_CHANGE_MOVE), or its blocks another owner (FS_CHANGE_SHARE). With the inode's lock held
 * for writing; before anything is done that cannot be done again, so for all of a chain under an intent before its first step. 0: nobody holds it, and
 * nobody can before the lock is given back. -EUSERS: somebody does. Then the operation ends with that, and op_run() asks them and starts
 * it again; ranges that it names before it ends are asked about together.
 * What stays in its block, or reads as zero before and after it, is no change.
 */
must_check int op_change(struct op *op, struct inode *inode, uint64_t lo_blk, uint64_t hi_blk,
			 enum fs_change change);
/*
 * A store to all of [lo_blk, hi_blk) is about to copy what is shared of it and (fill) to write what is a hole, or is unwritten: that is asked for, exactly but
 * where it is in very many pieces.
 */
must_check int op_change_store(struct op *op, struct inode *inode, const struct inode_attr *attr,
			       uint64_t lo_blk, uint64_t hi_blk, bool fill);
/* The file is about to grow over blocks that it has past its end: whoever has them (FS_PIECE_PAST) may have stored there. */
must_check int op_change_grow(struct op *op, struct inode *inode, const struct inode_attr *attr);
/* It is being changed now: -EUCLEAN if somebody holds it. Then op_change() has been forgotten. */
must_check int op_change_check(struct op *op, uint64_t ino, uint64_t lo_blk, uint64_t hi_blk,
			       enum fs_change change);

/* ---- modes.c: opens ---- */

/* One with these flags is closed. */
void open_way_end(struct inode *inode, unsigned flags);
/* So many opens of a daemon before. */
void open_ways_adopt(struct inode *inode, uint32_t through, uint32_t bypass);

/* ---- lend.c: pages that the kernel keeps ---- */

void lend_init(struct inode *inode);
void lend_adopt(struct inode *inode);
/*
 * The kernel is about to be given pages of [lo_blk, hi_blk): whoever may store there directly is asked first, as by op_change(); and whoever has them, if the kernel may
 * store to them. With the lock held in any mode. -EUSERS: as op_change().
 */
must_check int op_lend(struct op *op, struct inode *inode, uint64_t lo_blk, uint64_t hi_blk);
/* Whether the kernel may have pages that a holder must not be beside: to store, or only to read. */
bool inode_lent(const struct inode *inode, bool store);

static inline bool fs_has_holders(struct fs *fs)
{
	return atomic_load_explicit(&fs->holder_count, memory_order_relaxed) > 0;
}

/* Asks the holders, for op_run(). What they were asked is kept until the end. */
struct changes {
	struct op_change *list;
	size_t count, room;
	unsigned rounds, again;
};
must_check int changes_begin(struct fs *fs, struct changes *changes, const struct op_change *asked,
			     unsigned count);
void changes_end(struct fs *fs, struct changes *changes);

/* ---- evacuate.c ---- */

/* There is no space: a range that is being emptied, but nobody goes on with it, is opened again. No transaction open. */
void evacuate_idle(struct fs *fs);
void evacuate_close(struct fs *fs);

/* ---- events.c ---- */

void events_open(struct fs *fs);
void events_close(struct fs *fs); /* the background thread is gone */
void events_tell(struct fs *fs);  /* no lock held */

#endif
