/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The consistency walk: reads everything that a pool says about itself and reports where two statements disagree. It trusts
 * nothing, and does not use the code that made the structures: units and trees are read by hand. It changes nothing, but for
 * copies of units if check_opts.heal asks for it.
 *
 * For fsck, scrub and tests. The pool must be open and quiet: no transaction while it runs. On a pool that was opened
 * for writing, loading a chunk table for the first time may heal it as any reader would.
 *
 * Memory: 56 bytes for each inode, 32 for each name, 64 for each extent (up to 24 more where its neighbour is free, 48 more where it is
 * shared), 128 for each chunk. What a repair collects beside that when it found something: 32 bytes for each name, up to 32 for each extent.
 */
#ifndef UMBRA_REPAIR_CHECK_H
#define UMBRA_REPAIR_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "txn/pool.h"
#include "util/util.h"

enum check_kind {
	CHECK_SUPER,          /* a copy of the superblock is not sound, or they differ */
	CHECK_UNIT_LOST,      /* no sound copy of a metadata unit */
	CHECK_UNIT_COPY,      /* one copy is not sound or not there */
	CHECK_UNIT_DIFFERS,   /* both are sound and not the same */
	CHECK_UNIT_OWNER,     /* the header names another owner */
	CHECK_UNIT_SEQ,       /* changed by a transaction that has not been yet */
	CHECK_UNIT_TWICE,     /* two things lie in one unit */
	CHECK_UNIT_LEAKED,    /* used map: used, but nothing leads to it */
	CHECK_UNIT_UNMARKED,  /* used map: free, but something lies there */
	CHECK_TREE,           /* structure of a tree */
	CHECK_GROUP,          /* index or length in a group header */
	CHECK_COUNTER,        /* a counter of a group */
	CHECK_CHUNK,          /* places in the chunk table */
	CHECK_REMAP,          /* remap lists */
	CHECK_BITMAP_SET,     /* bitmap: owned, but no rmap record says so */
	CHECK_BITMAP_CLEAR,   /* bitmap: free, but owned */
	CHECK_RMAP_MISSING,   /* owned by an extent or a special owner, without rmap record */
	CHECK_RMAP_EXTRA,     /* rmap record of what its owner does not have */
	CHECK_RMAP_TWICE,     /* the same owner of the same block twice */
	CHECK_RMAP_SPECIAL,   /* metadata, journal or superblock that somebody else owns too */
	CHECK_REFCOUNT,       /* refcount tree differs from the number of rmap records */
	CHECK_SHARED_FLAG,    /* an inode with shared blocks does not know it */
	CHECK_INODE_TREE,     /* clusters in the tree of inodes */
	CHECK_INODE,          /* the record of an inode */
	CHECK_INODE_BLOCKS,   /* its count of blocks */
	CHECK_EXTENT,         /* extents: overlap, outside of the device */
	CHECK_SYMLINK,        /* its target */
	CHECK_XATTR,          /* names and values */
	CHECK_HASH_CHAIN,     /* a name that looking it up does not find */
	CHECK_NAME_TWICE,     /* the same name twice in a directory */
	CHECK_DIR_SIZE,       /* the count of names in a directory */
	CHECK_DIRENT,         /* leads to nothing, or to an inode of another type */
	CHECK_PARENT_MISSING, /* an entry that the inode does not know of */
	CHECK_PARENT_EXTRA,   /* a parent item without entry */
	CHECK_LINKS,          /* link count */
	CHECK_DIR_LINKS,      /* a directory with several names */
	CHECK_ORPHAN_MISSING, /* no name and not in the tree of orphans */
	CHECK_ORPHAN_EXTRA,   /* in the tree of orphans and has names, or is no inode */
	CHECK_DIR_LOOP,       /* directories that the root does not lead to */
	CHECK_INTENT,
	CHECK_FORWARD,
	CHECK_LOSS,
	CHECK_KINDS
};

/* Short name of a kind, for machines: "rmap-missing". */
const char *check_kind_name(enum check_kind kind);

struct check_opts {
	/*
	 * Called for each finding with one line of text (valid during the call); NULL: only counted. This and the other
	 * functions are called by one thread at a time, not always the same one.
	 */
	void (*found)(void *arg, enum check_kind kind, const char *text);
	void *arg;
	uint64_t limit; /* so many lines of each kind, 0: all; all are counted */
	/* Called now and then: so much of this stage of the walk is done. False: give up. May be NULL. */
	bool (*step)(void *arg, const char *what, uint64_t done, uint64_t total);
	/* Write the sound copy of a unit over one that is not, or is older; the pool is open for writing. */
	bool heal;
	void (*healed)(void *arg, const char *text); /* called for each; may be NULL */
	unsigned threads;                            /* 0: as many as there are cores for this process */
};

struct check_report {
	uint64_t findings;
	uint64_t by_kind[CHECK_KINDS];
	uint64_t inodes, directories, names, orphans, intents;
	uint64_t extents, nodes, meta_units;
	uint64_t data_blk, shared_blk, free_blk;
	uint64_t bad_in_use_blk;      /* out of use, and files cannot leave them */
	uint64_t heals, heals_failed; /* copies written anew, and those that could not be */
};

/*
 * Checks everything; *report is filled in any case. 0: the walk came to its end, see report->findings. -ENOMEM;
 * -ECANCELED: opts->step gave up. Units that cannot be read are findings, not errors.
 */
must_check int check_pool(struct pool *pool, const struct check_opts *opts, struct check_report *report);

#endif
