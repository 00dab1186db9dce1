/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the parts of the consistency walk share.
 *
 * Order of the walk: superblock, fixed units of each group, trees of inodes (which numbers are in use), each inode with its
 * trees, intents, names against inodes, owners of blocks group by group, used maps. Each part collects rows for a later one.
 */
#ifndef UMBRA_REPAIR_PRIV_H
#define UMBRA_REPAIR_PRIV_H

#include "media/ag.h"
#include "media/node.h"
#include "repair/check.h"

#define CHUNK_UNIT_WORDS (CHUNK_BLOCKS / 64)

/* Rows of one size in an array that grows. */
struct rows {
	void *data;
	size_t count, room;
};

struct seen_inode {
	uint64_t ino;
	uint64_t gen;
	uint64_t parent; /* directories: the one that names it, 0: none seen */
	uint32_t nlink;
	uint32_t names;    /* entries that lead to it */
	uint32_t subdirs;  /* directories: entries for directories */
	uint16_t mode_fmt; /* S_IFMT bits, 0: its record is lost */
	uint8_t flags;     /* SEEN_* */
	uint8_t walk;      /* state of the search for loops */
	uint16_t mend;     /* SALVAGE_*, MEND_*: what repair has to look at */
	uint8_t unaware;   /* shares blocks, and does not have SEEN_SHARED */
	uint64_t parents;  /* seen_name_sum of its parent items */
};
#define SEEN_SHARED 0x1u /* has INODE_SHARED */
#define SEEN_ORPHAN 0x2u /* is in the tree of orphans */
#define SEEN_TOLD 0x4u   /* its missing flag has been reported */
#define SEEN_LOST 0x8u   /* has INODE_LOST */
#define SEEN_FULL 0x10u  /* there are entries in it (names_mend.c) */

/* Blocks on their way from one place to another: the old ones belong to OWNER_BAD too, the new ones to OWNER_FORWARD. */
struct seen_forward {
	uint64_t old_blk, new_blk, count_blk;
};

/* What is wrong with an inode by itself, without what another copy of a unit can mend. */
#define SALVAGE_RECORD 0x1u  /* its record is lost (mode_fmt 0), or a number in it does not fit its trees */
#define SALVAGE_EXTENTS 0x2u /* the extent tree, or a symlink's target */
#define SALVAGE_DIR 0x4u     /* the tree of entries */
#define SALVAGE_ATTR 0x8u    /* the tree of attributes and parents */

#define SALVAGE_TREES (SALVAGE_EXTENTS | SALVAGE_DIR | SALVAGE_ATTR)
/* What the file system's own transactions mend (repair/names_mend.c). */
#define MEND_CHAIN 0x10u      /* hash chains of its entries */
#define MEND_CHAIN_ATTR 0x20u /* of its attributes or parent items */
#define MEND_RECORD 0x40u     /* generation, size, bytes behind inline data */
#define MEND_SYMLINK 0x80u    /* a symlink without target */
#define MEND_COUNTS 0x100u    /* links, entries, blocks, flags that follow from its trees */

/* One name: as an entry says, or as a parent item says. */
struct seen_name {
	uint64_t child, dir, key;
	uint32_t name_hash; /* the low half will do */
	uint32_t type;      /* DT_* (entries) */
};

struct seen_intent {
	uint32_t agno, slot;
	struct m_intent intent;
	bool lies; /* it cannot be finished */
};

/* A metadata unit that cannot be read in either copy. */
struct lost_unit {
	uint64_t laddr, owner; /* owner: who should have it */
	uint32_t magic;
};

/* A cluster of inodes, in the tree or found without it. */
struct seen_cluster {
	uint64_t first_ino, free_mask;
};

/* A node of a tree of a group. */
struct seen_node {
	uint64_t laddr;
	uint32_t agno, kind;
};

#define GROUP_TREE(which) (1u << (which)) /* enum ag_tree: damage in that tree */
#define GROUP_HEADER 0x40u                /* lost, or its index, length or copy of the superblock are wrong */
#define GROUP_UNITS 0x80u                 /* intents, remap list */
#define GROUP_TABLE 0x100u                /* places or used maps */
#define GROUP_OWNERS 0x200u               /* bitmap, rmap, reference counts against each other */
#define GROUP_COUNTERS 0x400u

struct check_ag {
	struct m_ag *header; /* NULL: lost */
	uint32_t damage;     /* GROUP_* */
	uint64_t inode_count, inode_free;
	uint32_t meta_chunks, meta_free_units;
	size_t owners_first, owners_count; /* its rows of check.owners */
};

struct check {
	struct pool *pool;
	struct dax *dax;
	const struct super *super;
	const struct check_opts *opts;
	struct check_report *report;
	int error; /* -ENOMEM */
	uint32_t ag_chunks;
	uint64_t seq_end; /* no transaction so far has this number */
	struct check_ag *ags;
	uint64_t (*used)[CHUNK_UNIT_WORDS];    /* of each logical chunk: what the chunk table says */
	uint64_t (*reached)[CHUNK_UNIT_WORDS]; /* and what was found */
	struct rows inodes;                    /* struct seen_inode, by number */
	struct rows owners;                    /* struct rmap: what the rmap trees should say */
	struct rows names;                     /* struct seen_name: entries */
	struct rows parents;                   /* struct seen_name: parent items; with keep only */
	bool unattached;                       /* there is an intent with extents in its tree */
	struct rows intents;                   /* struct seen_intent */
	struct rows forwards;                  /* struct seen_forward, by old_blk */

	/* For a repair: */
	bool keep;            /* rows are not freed on the way, parents and those below are collected */
	struct rows lost;     /* struct lost_unit */
	struct rows clusters; /* struct seen_cluster, by number once all are there; where there is more() too */
	struct rows ag_nodes; /* struct seen_node */
	void (*more)(void *arg, struct check *ck,
		     uint32_t agno); /* after the tree of inodes of a group; may add to it */
	void *more_arg;

	/* Of a part of a stage (parts.c): */
	struct stage *stage; /* NULL: this is the whole */
	bool views;          /* owners, names and parents are those of the whole, to be looked at */
	struct rows texts;   /* findings that wait, bytes */
};

/* ---- check.c ---- */

void check_found(struct check *ck, enum check_kind kind, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Findings so far that the other copy of a unit cannot mend. */
uint64_t check_bad_count(const struct check *ck);
/* The walk in parts, for who wants its rows. *report is zeroed. */
must_check int check_make(struct check *ck, struct pool *pool, const struct check_opts *opts,
			  struct check_report *report);
must_check int check_walk(struct check *ck);
void check_free(struct check *ck);
/* For reading again, silently: nothing has been reached, and what is collected goes to rows of its own. */
must_check int check_scratch_make(struct check *scratch, const struct check *ck);
void check_scratch_free(struct check *scratch);
/* Says how far a stage is; false: the caller's opts->step gave up (ck->error is set). */
bool check_step(struct check *ck, const char *what, uint64_t done, uint64_t total);

/* ---- rows.c ---- */

/* Sorts in place, unless they are sorted. */
void rows_sort(struct rows *rows, size_t row_size, int (*compare)(const void *a, const void *b));
void rows_append(struct check *ck, struct rows *to, const struct rows *from, size_t row_size);
/* A new row at the end, or NULL when there is no memory (ck->error is set then). */
void *rows_add(struct check *ck, struct rows *rows, size_t row_size);
/* Of rows sorted by the number at field_off those that have this one; NULL: there are no rows at all. */
const void *rows_find(const struct rows *rows, size_t row_size, size_t field_off, uint64_t value,
		      size_t *count);
void rows_free(struct rows *rows);

/* ---- parts.c ---- */

/*
 * Runs fn for count parts of a stage, several at a time, each with a struct check of its own whose results go to ck in the order of the
 * parts. views: parts read the owners, names and parents of ck; else they add to them, in any order. ck->inodes must not grow.
 */
void check_parts(struct check *ck, const char *name, bool views, uint32_t count,
		 void (*fn)(struct check *part, uint32_t index));
/* A part has new rows: gives them to the whole now and then. Nothing if ck is the whole. */
void part_rows_added(struct check *ck);
/* A finding of a part, or with CHECK_KINDS a copy that was healed. */
void part_text(struct check *part, unsigned kind, const char *text);

/* ---- unit.c ---- */

/* A sound copy of the unit into buf, which is 64-byte aligned; reports what is wrong with either. False: there is none. */
bool check_unit(struct check *ck, uint64_t laddr, uint32_t magic, uint64_t owner, void *buf);
/* Something lies in these units; false: in one of them something else does already, or they cannot be. */
bool check_reach(struct check *ck, uint64_t laddr, unsigned count, const char *what);
/*
 * Follows an address to the unit of a tree: into buf, and reached. What another owner's tree leads to by right is left to that one, so it
 * does not matter who comes first.
 */
enum check_led {
	LED_THERE,
	LED_LOST,   /* no sound copy */
	LED_ASTRAY, /* it is another's, or reached before, or there cannot be one */
};
enum check_led check_lead(struct check *ck, uint64_t laddr, uint32_t magic, uint64_t owner, const char *what,
			  void *buf);

/* ---- tree.c ---- */

/* Walks a tree from its embedded root (already checked by itself); fn sees each record, which was checked by itself. name: for reports. */
struct check_tree {
	struct check *ck;
	enum node_kind kind;
	uint64_t owner;
	const char *name;
	uint64_t id;   /* inode or group, for reports */
	bool *damaged; /* set when a part of the tree cannot be read or contradicts itself; may be NULL */
	void (*fn)(void *arg, const void *rec, size_t size_bytes);
	void *arg;
};
void check_tree(const struct check_tree *tree, const void *root, size_t root_size_bytes);

/* ---- group.c ---- */

void check_super(struct check *ck);
void check_group_units(struct check *ck, uint32_t agno);
/* After the units of all groups. */
void check_header_supers(struct check *ck);
/* Whether a lane is on its way to or from a place that has blocks in [blk, end_blk): the journal has both until it has come to its end. */
bool check_lane_intent(const struct check *ck, uint64_t blk, uint64_t end_blk);
void check_group_inodes(struct check *ck, uint32_t agno);
/* A cluster as if the tree of inodes had said so. */
void check_cluster_add(struct check *ck, uint32_t agno, uint64_t first_ino, uint64_t free_mask);
void check_group_rest(struct check *ck, uint32_t agno); /* orphans, forwards, losses */
void check_group_counters(struct check *ck, uint32_t agno, uint64_t free_blk);
void check_used_maps(struct check *ck);

/* ---- inode.c ---- */

struct seen_inode *seen_inode_find(struct check *ck, uint64_t ino);
void check_inode(struct check *ck, size_t index);
/* The parent items of an inode once more, as rows, without findings. scratch: of check_scratch. */
void check_parents_read(struct check *scratch, uint64_t ino);
void check_intents(struct check *ck);

/* ---- names.c ---- */

/*
 * Follows the keys of one tree of hashed names, in order: each name has to be found by probing from its hash up to its key (from
 * the last key on goes the first), and be there once. Tombstones only keep a place.
 */
struct hash_chain {
	struct check *ck;
	uint64_t ino;
	const char *what;
	uint64_t first, last;         /* of the key space */
	uint64_t run_first, run_last; /* the run of neighbouring keys */
	bool any, is_tomb;            /* there is a run; its last key is a tombstone's */
	bool first_used;              /* the first key of the space is in use */
	bool lies;                    /* there was a finding */
	uint64_t wrap_hash;       /* lowest hash of a name behind the end of the space; UINT64_MAX: none */
	struct rows run, wrapped; /* XXH128 of the names of this run, and of those behind the end */
};
void hash_chain_init(struct hash_chain *chain, struct check *ck, uint64_t ino, const char *what,
		     uint64_t space);
void hash_chain_tomb(struct hash_chain *chain, uint64_t key);
void hash_chain_name(struct hash_chain *chain, uint64_t key, uint64_t hash, const void *name, size_t len);
void hash_chain_end(struct hash_chain *chain);
/* Keys of names and of parent items (FORMAT.md 6.2). */
uint64_t name_key(const struct check *ck, const void *name, size_t len);
uint64_t parent_key(const struct check *ck, uint64_t dir, uint64_t key);
uint64_t name_hash(const void *name, size_t len);

/* Rows of names in order: child, directory, key, hash of the name. */
int seen_name_compare(const void *a, const void *b);
/* Of the names of one inode: sums that are equal are of the same names, in whatever order they were added. */
uint64_t seen_name_sum(uint64_t sum, const struct seen_name *name);
/* All names that were collected, sorted: entries against inodes, parent items, link counts, orphans, reachability. */
void check_names(struct check *ck);

/* ---- owner.c ---- */

/* Blocks that the rmap must know. */
void check_owner_add(struct check *ck, uint64_t blk, uint64_t count_blk, uint64_t owner, uint64_t offset_blk);
int check_owner_compare(const void *a, const void *b);
/* Once they are sorted: whose are which. */
void check_owners_divide(struct check *ck);
/* The three identities in one group; ck->owners are sorted. */
void check_group_owners(struct check *ck, uint32_t agno);
/* Once all groups have been seen: inodes that do not know that they share blocks. */
void check_unaware(struct check *ck);
/* And the superblock that files have blocks that are out of use. */
void check_bad_in_use(struct check *ck);
bool check_bad_is_told(const struct check *ck);

#endif
