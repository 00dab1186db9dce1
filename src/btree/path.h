/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The way from the root to a leaf, and what its users share: reading nodes, editing them, giving them back.
 *
 * Shape of a tree: entry 0 of an inner body carries exactly the lower bound of that body (all zero at the left edge), and entry i leads to
 * the keys from its own key up to that of entry i + 1. So inserts never change a key above the leaf, and a child that
 * does not belong where it was found shows.
 *
 * Invariants of a valid path: steps are consecutive levels; step[d].index leads to step[d + 1]; low_key and high_key are
 * the leaf's bounds; each body shows the present content.
 */
#ifndef UMBRA_BTREE_PATH_H
#define UMBRA_BTREE_PATH_H

#include "btree/body.h"
#include "btree/btree.h"

/* Form of the bodies at that depth: 0 is the root. */
struct body_form bt_form(const struct btree *bt, unsigned depth);

/* Logs (once for each place) that the tree lies; always -EUCLEAN. laddr 0: the root. */
int bt_lies(const struct btree *bt, uint64_t laddr, const char *why);

/* The root's body, checked so that it can be walked. */
must_check int bt_root_get(struct btree *bt, const void **body);
/*
 * The body of a node that must be of that level, with keys in low .. high (high NULL: no bound), checked so that it can be
 * walked. why (may be NULL) gets a static text instead of a line in the log.
 */
must_check int bt_node_get(struct btree *bt, uint64_t laddr, unsigned level, const struct bt_key *low,
			   const struct bt_key *high, const void **body, const char **why);

/* Path to the leaf that holds key or would. */
must_check int bt_path_find(struct btree *bt, const struct bt_key *key);
/* Path to the leaf left of the one that begins with key; -ENOENT if there is none. */
must_check int bt_path_find_below(struct btree *bt, const struct bt_key *key);

bool bt_path_is_valid(const struct btree *bt);
void bt_path_drop(struct btree *bt);
/* Begins a path at the root's body; it is valid when its steps and levels are there. */
void bt_path_root(struct btree *bt, const void *root);
/* Sets the bounds from the steps above depth: those of the body there. */
void bt_path_bounds(struct btree *bt, unsigned depth);
/* The tree's content changed; the path is still right. */
void bt_path_changed(struct btree *bt);

static inline struct bt_step *bt_path_leaf(struct btree *bt)
{
	return &bt->path.step[bt->path.levels - 1];
}

/* Writable body at that depth of the path. */
must_check int bt_step_edit(struct btree *bt, unsigned depth, void **body);
/* The node that entry index of the body at that depth leads to, which is not the path's own. */
must_check int bt_sibling_get(struct btree *bt, unsigned depth, unsigned index, uint64_t *laddr,
			      const void **body);
/* Takes the highest end below each step into the entries above it, from depth up. */
must_check int bt_path_fix_highs(struct btree *bt, unsigned depth);

/* Makes an empty root all zero; step[0] of the path must be there. */
must_check int bt_root_clear(struct btree *bt);

/* A new unit with an empty body of that level, near hint_laddr. */
must_check int bt_node_new(struct btree *bt, unsigned level, uint64_t hint_laddr, uint64_t *laddr,
			   void **body);
must_check int bt_node_free(struct btree *bt, uint64_t laddr);

/* insert.c: an entry into the body at that depth of the path; splits what is full. high: ranges, the record's end. */
must_check int bt_path_insert(struct btree *bt, unsigned depth, unsigned index, const void *entry,
			      size_t size_bytes, uint64_t high);
/* remove.c: a record out of the leaf, then merges; the path may be gone afterwards. */
must_check int bt_path_remove(struct btree *bt, unsigned index);
/* remove.c: gives nodes back where the path's bodies have become small. */
must_check int bt_path_rebalance(struct btree *bt);

/* cursor.c */
enum bt_seek { SEEK_GE, SEEK_GT, SEEK_LE, SEEK_LT };
must_check int bt_cursor_seek(struct bt_cursor *cur, const struct bt_key *key, enum bt_seek how);
/* Puts it on record index of the path's leaf. */
void bt_cursor_set(struct bt_cursor *cur, unsigned index);
/* Makes index hold again; -ENOENT if the record is gone. */
must_check int bt_cursor_sync(struct bt_cursor *cur);
/* Path to the record with that key and its index in the leaf; -ENOENT. */
must_check int bt_record_find(struct btree *bt, const struct bt_key *key, unsigned *index);

#endif
