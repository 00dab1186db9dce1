/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Making trees of inodes anew from what is left of them: shared by inodes.c and salvage_*.c.
 *
 * Sources: leaves that can still be reached, leaves in units that are in use and that nothing leads to (their header says whose they
 * are), and other structures: extents from the rmap, entries from parent items, parent items from entries.
 */
#ifndef UMBRA_REPAIR_SALVAGE_H
#define UMBRA_REPAIR_SALVAGE_H

#include "repair/base.h"

#define SALVAGE_PATH_SIZE 400u /* of paths in messages; longer ones lose their beginning */
#define SALVAGE_NAME_MAX 255u

/* A node or value that nothing leads to. */
struct stray {
	uint64_t owner, laddr, seq;
	uint8_t kind; /* enum node_kind; 0: an xattr value */
	uint8_t level;
};

struct salvage {
	struct repair *rp;
	struct check *ck;
	struct rows strays;       /* struct stray, by owner and place */
	struct rows rmap;         /* struct rmap of inodes with lost extents, by owner and offset */
	struct rows items_by_dir; /* struct seen_name: parent items, by directory */
	bool collected;           /* these are there */
	uint64_t wrote;           /* inodes */
	uint64_t unreadable;      /* units in use that nothing leads to and that cannot be read */
	char path[SALVAGE_PATH_SIZE + 2 * SALVAGE_NAME_MAX];
};

/* One inode that is put together again. */
struct patient {
	struct seen_inode *seen;
	struct m_inode *m;      /* its record, to be written at the end */
	struct inode_attr attr; /* the same, decoded; goes back into m at the end */
	bool was_lost;          /* the record was made anew */
	uint16_t trees;         /* SALVAGE_*: to be made */
	uint64_t lost_nodes;    /* nodes of the tree in work that cannot be read */
	uint64_t lost_leaves;   /* leaves that are known to be among them */
};

struct name_text {
	size_t len;
	char bytes[SALVAGE_NAME_MAX];
};

/* Addresses that have been met. */
struct laddr_set {
	uint64_t *slots; /* 0: free */
	size_t count, room;
};

/* ---- salvage.c: reading what is left ---- */

/* False: it is in there already (or there is no memory: *error). */
bool laddr_set_add(struct laddr_set *set, uint64_t laddr, int *error);

/* Each record that is left of a tree, reachable leaves first; seq is that of its leaf. p->lost_nodes counts what cannot be read. */
typedef void (*salvage_fn)(void *arg, const void *rec, size_t size_bytes, uint64_t seq);
void salvage_leaves(struct salvage *s, struct patient *p, enum node_kind kind, salvage_fn fn, void *arg);
/* The strays of one owner. */
const struct stray *salvage_strays(const struct salvage *s, uint64_t owner, size_t *count);
/* Rmap records of one owner; not of inodes that need none. */
const struct rmap *salvage_rmap(const struct salvage *s, uint64_t owner, size_t *count);
/* The rows of names (or items) that are about a child. */
const struct seen_name *salvage_rows(const struct rows *rows, uint64_t child, size_t *count);
/* Parent items that name a directory. */
const struct seen_name *salvage_items(const struct salvage *s, uint64_t dir, size_t *count);

/* The names behind rows of the walk, which has only hashes of them. False: cannot be read. */
bool salvage_entry_name(struct salvage *s, const struct seen_name *entry, struct name_text *name);
bool salvage_item_name(struct salvage *s, const struct seen_name *item, struct name_text *name);
/* A path for messages in s->path, or "inode N". */
const char *salvage_path(struct salvage *s, uint64_t ino);

/* ---- salvage_extents.c, salvage_names.c: a tree into p->m; told what was lost ---- */

must_check int salvage_extents(struct salvage *s, struct patient *p);
must_check int salvage_dir(struct salvage *s, struct patient *p);
must_check int salvage_attr(struct salvage *s, struct patient *p);

#endif
