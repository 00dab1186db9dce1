/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One B+tree over a table of record operations.
 *
 * The root is a small body embedded in another unit (an inode, a group header, an intent slot); all other nodes are
 * 4 KiB units. When the embedded root overflows its content moves into a new node and the tree grows by a level; when
 * all of it fits again it moves back. Bodies are described in FORMAT.md 6.
 *
 * Records are passed in media form. Whoever calls holds the lock that covers the tree. Nothing here is durable before the
 * transaction commits.
 */
#ifndef UMBRA_BTREE_BTREE_H
#define UMBRA_BTREE_BTREE_H

#include <stdbool.h>
#include <stdint.h>

#include "media/node.h"
#include "txn/txn.h"
#include "util/util.h"

#define BT_MAX_LEVEL NODE_LEVELS_MAX

/*
 * Where nodes come from (the space floor, handed down). alloc gives one free unit's laddr near hint_laddr. Neither may look at or
 * change the tree that calls. The tree itself calls txn_new() after alloc and txn_forget() before free.
 */
struct bt_alloc {
	int (*alloc)(struct txn *tx, uint64_t owner, uint64_t hint_laddr, uint64_t *laddr);
	int (*free)(struct txn *tx, uint64_t laddr);
};

/*
 * The way to the leaf used last, with its bounds: neighbouring keys need no second descent, so who works in key order
 * keeps one struct btree. All zero is "none yet". Changes through another struct btree of the same tree and transaction
 * are noticed. Private to the tree code.
 */
struct bt_path {
	unsigned levels;     /* step[0] is the root, step[levels - 1] the leaf; 0: no path */
	uint64_t generation; /* of path and content: cursors compare it */
	uint64_t changes;    /* of the tree, when the path was last known to be right */
	uint16_t run_index;  /* where the last insert went */
	uint16_t run_count;  /* inserts that went there one behind the other */
	bool has_high_key;
	struct bt_key low_key, high_key; /* keys of the leaf: low <= key < high */
	struct bt_step {
		uint64_t laddr;   /* 0: the embedded root */
		const void *body; /* as it is now in this transaction */
		uint16_t index;   /* of the entry that leads on */
		bool is_edited;   /* body is an image */
	} step[BT_MAX_LEVEL];
};

/*
 * A tree for the length of one transaction. Whoever overwrites the root body with other means starts over with a new
 * struct btree, or calls bt_reset().
 */
struct btree {
	struct txn *tx;
	enum node_kind kind; /* record operations: media/node.h */
	uint64_t root_laddr; /* unit that embeds the root */
	uint32_t root_magic;
	uint16_t root_off;         /* of the body in that unit, bytes */
	uint16_t root_size_bytes;  /* of the body */
	uint16_t node_limit_bytes; /* 0; or use only so much of each node's body, for tests of high trees */
	uint64_t owner;            /* uh_owner of its nodes */
	const struct bt_alloc *alloc;
	struct bt_path path; /* zero at first */
};

/* Forgets the path: the root body was changed from outside. */
void bt_reset(struct btree *bt);

/*
 * A place in the tree. It outlives any change of the tree: it then finds its record again by key. A record that is gone gives -ENOENT from
 * bt_get, while bt_next and bt_prev go to its neighbours.
 */
struct bt_cursor {
	struct btree *bt;
	struct bt_key key;   /* of its record */
	uint64_t generation; /* while the tree's path has the same, index holds */
	uint16_t index;      /* in the leaf */
	bool is_on_record;
};

/* First record with key >= key; BT_LE: last record with key <= key. -ENOENT if there is none. */
enum bt_dir { BT_GE, BT_LE };
must_check int bt_seek(struct btree *bt, struct bt_cursor *cur, const struct bt_key *key, enum bt_dir dir);
/* To the neighbour: -ENOENT at the end (the cursor is then no longer on a record). */
must_check int bt_next(struct bt_cursor *cur);
must_check int bt_prev(struct bt_cursor *cur);

/* The record under the cursor, in media form; valid until the next change of this tree. */
must_check int bt_get(struct bt_cursor *cur, const void **rec, size_t *size_bytes);

/*
 * Inserts; -EEXIST if the key is there. Appending runs split nodes at the end, so that sorted inserts fill them. Here and below
 * rec must not point into the tree itself.
 */
must_check int bt_insert(struct btree *bt, const void *rec, size_t size_bytes);
/* Replaces the record with the same key (-ENOENT if there is none); the size may differ. */
must_check int bt_update(struct btree *bt, const void *rec, size_t size_bytes);
/* Deletes the record with that key (-ENOENT). */
must_check int bt_delete(struct btree *bt, const struct bt_key *key);
/* Under a cursor from bt_seek/next/prev: no second search. After replace the cursor stays on the record (the key may change as long
 * as the order does not); after remove it stands on the following record, or *end is set. */
must_check int bt_replace(struct bt_cursor *cur, const void *rec, size_t size_bytes);
must_check int bt_remove(struct bt_cursor *cur, bool *end);

/*
 * Trees with ranges (NODE_RMAP): the first record, in key order, that overlaps [lo, hi], and the next one after the cursor's. Inner entries carry the
 * highest end below them, so that a stab costs O(log n + hits) even when many long ranges overlap.
 */
must_check int bt_overlap_first(struct btree *bt, struct bt_cursor *cur, uint64_t lo, uint64_t hi);
must_check int bt_overlap_next(struct bt_cursor *cur, uint64_t lo, uint64_t hi);

/* Number of nodes (without the root) and records; walks the tree. */
must_check int bt_count(struct btree *bt, uint64_t *nodes, uint64_t *records);

/* Visits each node unit level by level, leaves last (they are not read); fn may stop the walk with a non-zero value, which is returned. */
must_check int bt_walk_nodes(struct btree *bt, int (*fn)(void *arg, uint64_t laddr, unsigned level),
			     void *arg);

/*
 * Gives back the node units of a tree whose records no longer matter, about max_nodes of them (a few more where the last child of a node goes,
 * at most BT_MAX_LEVEL), from the right, and keeps the rest a valid tree; *empty when the root is empty. Leaves are not read. For
 * trees whose records own something, remove the records instead.
 */
must_check int bt_destroy(struct btree *bt, unsigned max_nodes, bool *empty);

/* A tree whose content lies is reported once in the log; every function may then return -EUCLEAN. */

/* Full check of structure: order, keys against parents, levels, high ends, sizes. Reason in *why (static text). -EUCLEAN if not sound. */
must_check int bt_verify(struct btree *bt, const char **why);

static inline bool bt_is_empty_body(const void *body)
{
	return node_count(body) == 0;
}

#endif
