/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Names inside fs/: trees keyed by hash, directory entries, parent items. The lock of the inode whose tree it is, is held.
 */
#ifndef UMBRA_FS_NAMES_H
#define UMBRA_FS_NAMES_H

#include "btree/btree.h"
#include "fs/core.h"

/* ---- probe.c: hashes as keys ---- */

#define HASH_FIRST 16u /* lower ones are cookies of '.' and '..', and spare */

/* Keys of names, of parent items. */
uint64_t hash_name(const struct fs *fs, const char *name, size_t len);
uint64_t hash_parent(const struct fs *fs, uint64_t dir, uint64_t key);

/*
 * A tree in which records with the same hash take the next free key, wrapping from last to first. A tombstone holds the place of a
 * removed record while the next key is in use, so that a search, which goes on until a key is absent, stays right.
 */
struct probe {
	struct btree *bt; /* NODE_DIR or NODE_ATTR */
	uint64_t first, last;
	bool (*match)(const void *rec, const void *arg);
	const void *arg;
};

struct probe_at {
	struct bt_cursor cur; /* on the record that was found */
	uint64_t key;         /* its key; or the one for a new record */
	bool reuse;           /* not found: a tombstone lies at key */
};

/* Whether a record of these kinds is a tombstone, and its key. */
bool probe_is_tomb(enum node_kind kind, const void *rec);
static inline uint64_t probe_key(const void *rec)
{
	return le64_get(*(const le64 *)rec);
}

/* -ENOENT: not there, at->key is where it would go. -ENOSPC: not there and no key is free. */
must_check int probe_find(const struct probe *p, uint64_t hash, struct probe_at *at);
/* After -ENOENT: rec has the key at->key. */
must_check int probe_put(const struct probe *p, const struct probe_at *at, const void *rec,
			 size_t size_bytes);
/* After 0. */
must_check int probe_remove(const struct probe *p, struct probe_at *at);

/* ---- dir.c: entries of a directory ---- */

struct dir_entry {
	uint64_t key; /* also the readdir cookie */
	uint64_t ino;
	uint8_t type; /* DT_* */
};

/* Where a name is, or would be. Valid until the tree changes. */
struct dir_slot {
	struct btree bt;
	struct probe_at at;
	struct dir_entry entry; /* found */
};

/* 0 or -ENOENT (then dir_insert may follow) or -ENOSPC: too many names with near hashes. */
must_check int dir_find(struct op *op, uint64_t dir, const char *name, size_t len, struct dir_slot *slot);
must_check int dir_insert(struct op *op, struct dir_slot *slot, const char *name, size_t len, uint64_t ino,
			  uint8_t type);
/* The entry found now names another inode; key and name stay. */
must_check int dir_replace(struct op *op, struct dir_slot *slot, uint64_t ino, uint8_t type);
must_check int dir_remove(struct op *op, struct dir_slot *slot);

must_check int name_add_at(struct op *op, struct inode_attr *dir, struct dir_slot *slot, const char *name,
			   size_t len, const struct inode_attr *attr);

/* Names of entries to be made: not '.' or '..' (-EEXIST). */
must_check int name_check_new(const char *name, size_t len);
bool name_is_dots(const char *name, size_t len);
/* -EPERM: entries of this directory, or names of this inode, cannot be removed (immutable, append-only). */
must_check int dir_may_drop(const struct inode_attr *dir);
must_check int inode_may_drop(const struct inode_attr *attr);

/* A directory has so many entries and subdirectories fewer. -EUCLEAN: it does not have as many. */
must_check int dir_lose(struct inode_attr *dir, unsigned entries, unsigned subdirs);

/* ---- parent.c: where an inode is named ---- */

struct parent {
	uint64_t dir, key;
	size_t len;
	char name[FS_NAME_MAX];
};

must_check int parent_add(struct op *op, uint64_t ino, uint64_t dir, uint64_t key, const char *name,
			  size_t len);
must_check int parent_remove(struct op *op, uint64_t ino, uint64_t dir, uint64_t key);
/* That one; -ENOENT. */
must_check int parent_find(struct op *op, uint64_t ino, uint64_t dir, uint64_t key, struct parent *parent);
/* Any one of them; -ENOENT: it has no name, or is the root. */
must_check int parent_first(struct op *op, uint64_t ino, struct parent *parent);
/* The directory above one (the root's is the root): an operation of its own. */
must_check int parent_dir(struct fs *fs, uint64_t dir, uint64_t *parent);

#endif
