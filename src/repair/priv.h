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
};
#define SEEN_SHARED 0x1u /* has INODE_SHARED */
#define SEEN_ORPHAN 0x2u /* is in the tree of orphans */
#define SEEN_TOLD 0x4u   /* its missing flag has been reported */
#define SEEN_LOST 0x8u   /* has INODE_LOST */

/* One name: as an entry says, or as a parent item says. */
struct seen_name {
	uint64_t child, dir, key, name_hash;
	uint64_t type; /* DT_* (entries) */
};

struct seen_intent {
	uint32_t agno, slot;
	struct m_intent intent;
};

struct check_ag {
	struct m_ag *header; /* NULL: lost */
	uint64_t inode_count, inode_free;
	uint32_t meta_chunks, meta_free_units;
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
	struct rows names, parents;            /* struct seen_name */
	bool unattached;                       /* there is an intent with an extent tree */
	struct rows intents;                   /* struct seen_intent */
};

/* ---- check.c ---- */

void check_found(struct check *ck, enum check_kind kind, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* A new row at the end, or NULL when there is no memory (ck->error is set then). */
void *rows_add(struct check *ck, struct rows *rows, size_t row_size);
void rows_free(struct rows *rows);

/* ---- unit.c ---- */

/* A sound copy of the unit into buf, which is 64-byte aligned; reports what is wrong with either. False: there is none. */
bool check_unit(struct check *ck, uint64_t laddr, uint32_t magic, uint64_t owner, void *buf);
/* Something lies in these units; false: in one of them something else does already, or they cannot be. */
bool check_reach(struct check *ck, uint64_t laddr, unsigned count, const char *what);

/* ---- tree.c ---- */

/* Walks a tree from its embedded root (already checked by itself); fn sees each record, which was checked by itself. name: for reports. */
struct check_tree {
	struct check *ck;
	enum node_kind kind;
	uint64_t owner;
	const char *name;
	uint64_t id; /* inode or group, for reports */
	void (*fn)(void *arg, const void *rec, size_t size_bytes);
	void *arg;
};
void check_tree(const struct check_tree *tree, const void *root, size_t root_size_bytes);

/* ---- group.c ---- */

void check_super(struct check *ck);
void check_group_units(struct check *ck, uint32_t agno);
void check_group_inodes(struct check *ck, uint32_t agno);
void check_group_rest(struct check *ck, uint32_t agno); /* orphans, forwards, losses */
void check_group_counters(struct check *ck, uint32_t agno, uint64_t free_blk);
void check_used_maps(struct check *ck);

/* ---- inode.c ---- */

struct seen_inode *seen_inode_find(struct check *ck, uint64_t ino);
void check_inode(struct check *ck, size_t index);
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

/* All names that were collected: entries against inodes, parent items, link counts, orphans, reachability. */
void check_names(struct check *ck);

/* ---- owner.c ---- */

/* Blocks that the rmap must know. */
void check_owner_add(struct check *ck, uint64_t blk, uint64_t count_blk, uint64_t owner, uint64_t offset_blk);
void check_owners_begin(struct check *ck);
/* The three identities in one group. */
void check_group_owners(struct check *ck, uint32_t agno);

#endif
