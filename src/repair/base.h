/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the parts of a repair share: facts, units written by hand, new units, trees from sorted records.
 *
 * Facts are the rows of a consistency walk that was run for them (repair/priv.h): who exists, who owns what, which units are in use,
 * which are reached, what is damaged. They are collected before repair_inodes and again before repair_groups.
 *
 * Rules of writing: a new node goes into a unit from repair_unit_alloc; the unit that makes it valid (inode, group header) is written
 * last; what another part still needs as a source is not overwritten. Old nodes are not given back by hand: units that nothing
 * leads to any more come free when the used maps are made anew, after repair_inodes.
 */
#ifndef UMBRA_REPAIR_BASE_H
#define UMBRA_REPAIR_BASE_H

#include "media/ag.h"
#include "media/inode.h"
#include "media/node.h"
#include "repair/priv.h"
#include "repair/repair.h"

struct fs;

/* Where repair_unit_alloc takes units from. */
enum unit_from {
	UNIT_FREE,    /* neither in use nor reached */
	UNIT_DEAD,    /* in use, not reached, and nobody who is damaged owns it */
	UNIT_UNNAMED, /* the same, or its owner is not there */
	UNIT_FROM
};

struct repair_cursor {
	uint32_t slot[UNIT_FROM]; /* where the next look begins */
};

struct repair {
	struct dax *dax;
	struct pool *pool;
	const struct super *super;
	const struct repair_opts *opts;
	struct repair_report *report;
	struct check *facts;                 /* rows of the last walk; NULL: none */
	int error;                           /* first one that stops the run: -ENOMEM, -EIO */
	bool begun;                          /* the superblock says SUPER_STATE_REPAIR */
	uint64_t (*taken)[CHUNK_UNIT_WORDS]; /* units of each logical chunk that repair_unit_alloc gave away */
	uint64_t *busy; /* a bit for each chunk of the device: not free for a metadata chunk; NULL: not known */
	bool busy_is_less;           /* what is doubtful is not in it */
	struct rows claims, claimed; /* struct repair_claim; struct seen_inode: new by them */
	uint8_t *redo;               /* for each group: to be made anew whatever was found */
	uint8_t *suspects; /* for each group: an earlier walk found something there; NULL: none has been */
	struct repair_cursor *cursors; /* for each group: where to look for free units */
	struct rows fresh;             /* uint64_t: units given away since it was emptied */
	bool incomplete;               /* repair_group_each could not read a part of a tree */
	bool inodes_are_done;          /* units that nothing leads to are no source of theirs any more */
	uint64_t spare_blk,
		spare_end_blk; /* of a chunk for blocks that stand in for units; 0: there is none */
	bool was_unfinished;   /* an earlier run did not come to its end */
	bool wrote;            /* something of the pool is not as it was, beside its state */
	bool places_failed;    /* they are in bad memory, and there is no room elsewhere */
	bool inodes_are_left;  /* what is wrong with some could not be mended */
	struct check_opts silent;
	struct check_report walked;
};

/* What repair_inodes decided about a number, where the tree of inodes says something else. */
struct repair_claim {
	uint64_t ino;
	size_t order; /* the last word about a number holds */
	bool in_use;
};

/* One line for each thing that was mended or lost. */
void repair_told(struct repair *rp, enum repair_act act, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Names go to people: no control characters. */
void repair_text_clean(char *text);
/* Before the first write: from then on until the end of the run nobody mounts the pool for writing. */
must_check int repair_begin(struct repair *rp);
/* opts->step: false: the run is to end (rp->error is set). */
bool repair_step(struct repair *rp, const char *what, uint64_t done, uint64_t total);

/*
 * Writes a unit whose owner is in its header and whose content is complete: fills in the rest of the header (magic, laddr, UUID,
 * the next sequence number, CRC) and stores both copies, one after the other with a fence between. buf is 64-byte aligned, unit_size(magic)
 * bytes. Where neither can be stored it leaves its place. -EUCLEAN: its content does not pass its check (nothing was written). -EIO: neither copy
 * could be written. -ENOSPC: nor is there room elsewhere.
 */
must_check int repair_unit_write(struct repair *rp, uint64_t laddr, uint32_t magic, void *buf);

/* From now on other blocks stand in for the one in which the unit lies. -ENOSPC, -EIO. */
must_check int repair_unit_leave(struct repair *rp, uint64_t laddr);
/* A chunk of the device that nobody says anything about: its first block. For blocks that stand in for units. -ENOSPC. */
must_check int repair_chunk_take(struct repair *rp, uint64_t *blk);

/* The best sound copy into buf (64-byte aligned); owner 0: any. Says nothing. False: there is none. */
bool repair_unit_read(struct repair *rp, uint64_t laddr, uint32_t magic, uint64_t owner, void *buf);

/*
 * A unit in a chunk of the group, or if there is none and anywhere is set of another one, that nobody uses: neither the chunk table, nor
 * what the walk reached, nor who had one before. Where there is none a new metadata chunk is made; then come units that are in use by the
 * table alone and hold nothing that is needed. -ENOSPC.
 */
must_check int repair_unit_alloc(struct repair *rp, uint32_t agno, bool anywhere, uint64_t *laddr);

/*
 * A tree of new units of group agno from count records in ascending order of their keys. recs: kinds of fixed size: an array of
 * records as on media; others: an array of pointers (const void *const *) to records. The body of its root goes to root, which is
 * zeroed first (0 records: stays zero, an empty tree). -EUCLEAN: the records are not sound or not in order. -ENOSPC.
 */
must_check int repair_bulk(struct repair *rp, uint32_t agno, enum node_kind kind, uint64_t owner,
			   const void *recs, size_t count, void *root, size_t root_size_bytes);

/* ---- facts ---- */

/* The walk again, silently, with its rows kept. Findings of it in *report (may be NULL). */
must_check int repair_facts(struct repair *rp, struct check_report *report);

/* The tree of inodes says otherwise, but this number is in use from now on (its record has been written), or free. */
void repair_inode_claim(struct repair *rp, uint64_t ino, bool in_use);

/*
 * All rmap records that can be read, in no order: those of the trees, and in groups with damaged ones those of leaves that nothing leads
 * to. False from fn ends it. A record was checked by itself only.
 */
void repair_rmap_each(struct repair *rp, bool (*fn)(void *arg, const struct rmap *r), void *arg);

/*
 * All units of 4096 bytes that are in use but were not reached by the walk and have a sound copy (of nodes and xattr values: those of
 * trees whose upper levels are lost), by laddr. owner 0: of anybody. False from fn ends it. buf is good during the call.
 */
void repair_stray_each(struct repair *rp, uint32_t agno, uint64_t owner,
		       bool (*fn)(void *arg, uint64_t laddr, const void *unit), void *arg);

/* All records that can be read of one tree of a group (of fixed size, as on media), as repair_rmap_each. False: fn ended it, or no memory. */
bool repair_group_each(struct repair *rp, uint32_t agno, enum ag_tree which,
		       bool (*fn)(void *arg, const void *rec), void *arg);

/* Where a node of a tree by blocks cannot be read: what its records may have been about. A record of another node may be about the same blocks. */
struct repair_hole {
	uint64_t start_blk, end_blk;
};
/* The same; holes (struct repair_hole, NULL: not wanted) are added by start_blk. */
bool repair_group_look(struct repair *rp, uint32_t agno, enum ag_tree which,
		       bool (*fn)(void *arg, const void *rec), void *arg, struct rows *holes);

/* The walk that collects facts, with these options. */
must_check int repair_walk(struct repair *rp, const struct check_opts *opts, struct check_report *report);
/* One whose rows nobody needs: it takes less memory, and of the facts there is only what is known of groups. opts NULL: silent. */
must_check int repair_look(struct repair *rp, const struct check_opts *opts, struct check_report *report);
void repair_facts_drop(struct repair *rp);

/* Gives every metadata chunk a mirror that should have one and has none. */
must_check int repair_mirrors(struct repair *rp);

/* How the inode is called, for messages: its path by the rows of the facts, or "inode N". */
#define REPAIR_PATH_SIZE 1024u
void repair_path(struct repair *rp, uint64_t ino, char path[REPAIR_PATH_SIZE]);

/* ---- parts ---- */

must_check int repair_super(struct dax *dax, const struct repair_opts *opts, struct repair_report *report,
			    char *why, size_t why_size);
must_check int repair_places(struct repair *rp);
/* Whether there is anything for repair_inodes(). */
bool repair_inodes_needed(const struct repair *rp);
must_check int repair_inodes(struct repair *rp);
must_check int repair_groups(struct repair *rp);
/* On a file system that was opened as a mount would do, with transactions. rp->facts are those of a walk after repair_groups. */
must_check int repair_names(struct repair *rp, struct fs *fs);

#endif
