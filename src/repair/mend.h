/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the parts of mending names share (names_mend.c, name_ops.c, chain_mend.c, count_mend.c): transactions on an open file system,
 * each right by itself, so that a run may end anywhere and the next one finds less to do.
 */
#ifndef UMBRA_REPAIR_MEND_H
#define UMBRA_REPAIR_MEND_H

#include "fs/names.h"
#include "repair/salvage.h"

#define MEND_PATH_SIZE 4096u

struct mend {
	struct repair *rp;
	struct fs *fs;
	struct check *ck; /* facts of the last walk */
	struct check_report report;
	uint64_t lost_found; /* inode number, 0: not looked for yet */
	uint64_t changes;    /* transactions that mended something */
	char path[MEND_PATH_SIZE + FS_NAME_MAX + 2];
};

/* The name of an entry, or what a parent item says. */
struct mend_name {
	size_t len;
	char bytes[FS_NAME_MAX];
};

/* ---- names_mend.c ---- */

/*
 * Runs an operation. 1: done; counted as a change. 0: there was nothing to do (the operation gave MEND_NOTHING, or what it is about
 * is not there any more), or it cannot be done (that is told, with what and ino). -errno: no further writing makes sense.
 */
#define MEND_NOTHING 1
must_check int mend_run(struct mend *m, op_fn fn, void *arg, const char *what, uint64_t ino);
/* A path for messages, in m->path; valid until the next call. */
const char *mend_path(struct mend *m, uint64_t ino);
const char *mend_entry_path(struct mend *m, uint64_t dir, const struct mend_name *name);

/* ---- name_ops.c: operations on one name ---- */

/* The entry with exactly this key; slot must not be moved afterwards. -ENOENT: none, or a tombstone. */
must_check int mend_entry_load(struct op *op, uint64_t dir, uint64_t key, struct dir_slot *slot,
			       struct mend_name *name);
/* The child with its lock; *there = false: it is no inode, or cannot be read. */
must_check int mend_child(struct op *op, uint64_t ino, bool *there);
/* The parent item goes if it is there. */
must_check int mend_parent_drop(struct op *op, uint64_t ino, uint64_t dir, uint64_t key);
/* name~1, name~2, ... : the first that is not in the directory. */
must_check int mend_name_free(struct op *op, uint64_t dir, struct mend_name *name);

/* As mend_run(). name (may be NULL) is set to the name that it was about. */
must_check int mend_entry_drop(struct mend *m, const struct seen_name *entry, struct mend_name *name);
must_check int mend_entry_retype(struct mend *m, const struct seen_name *entry, uint8_t type,
				 struct mend_name *name);
must_check int mend_parent_add(struct mend *m, const struct seen_name *entry);
must_check int mend_parent_remove(struct mend *m, const struct seen_name *item);
/* The entry that a parent item speaks of is made again; 0: its name is in use. */
must_check int mend_entry_restore(struct mend *m, const struct seen_name *item, struct mend_name *name);
/* Gives an inode a name in lost+found. */
must_check int mend_reconnect(struct mend *m, uint64_t ino);

/* ---- chain_mend.c, count_mend.c: inodes by themselves ---- */

must_check int mend_dir_chain(struct mend *m, uint64_t dir);
must_check int mend_attr_chain(struct mend *m, uint64_t ino);
must_check int mend_record(struct mend *m, struct seen_inode *seen);
/* Link count, entries, blocks, flags and the orphan record: counted again. */
must_check int mend_counts(struct mend *m, const struct seen_inode *seen);
/* An inode without names whose content is lost becomes an orphan. */
must_check int mend_kill(struct mend *m, uint64_t ino);
/* Records of groups that are about inodes that do not have them: orphans, losses, forwards. */
must_check int mend_group_records(struct mend *m);

#endif
