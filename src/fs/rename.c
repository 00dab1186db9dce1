/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Rename: plain, without replacing, exchange, with a whiteout.
 *
 * A directory that moves to another directory could make a loop. Such moves happen one at a time (rename_lock), and the
 * directories above both ends are listed before: as long as rename_lock is held none of them can move elsewhere. Whether a
 * rename is of that kind shows only under the locks, so the operation comes back with -EAGAIN once and is run again.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h> /* RENAME_* */
#include <stdlib.h>
#include <sys/stat.h>

#include "fs/names.h"

#define RENAME_KNOWN (RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)
#define DEPTH_MAX 1000000u /* of directories in each other: more is a loop on media */

/* The directories from one up to the root, itself included. */
struct ancestors {
	uint64_t *inos;
	unsigned count, size;
};

struct rename_end {
	uint64_t dir;
	const char *name;
	size_t len;
	struct ancestors above;

	/* found by each run */
	struct dir_slot slot;
	struct inode *inode; /* NULL: no such name */
	struct inode_attr attr;
};

struct rename_arg {
	struct rename_end from, to;
	unsigned flags;
	bool ancestors_known;
};

/* The attributes of the directories at both ends, which may be one. */
struct rename_dirs {
	struct inode_attr attrs[2];
	struct inode_attr *from, *to;
};

static bool is_above(const struct ancestors *above, uint64_t ino)
{
	for (unsigned i = 0; i < above->count; i++) {
		if (above->inos[i] == ino)
			return true;
	}
	return false;
}

static int ancestors_list(struct fs *fs, uint64_t dir, struct ancestors *above)
{
	while (above->count < DEPTH_MAX) {
		int rc;

		if (above->count == above->size) {
			unsigned size = above->size ? above->size * 2 : 32;
			uint64_t *more = realloc(above->inos, size * sizeof(*more));

			if (!more)
				return -ENOMEM;
			above->inos = more;
			above->size = size;
		}
		above->inos[above->count++] = dir;
		if (dir == INODE_ROOT)
			return 0;
		rc = parent_dir(fs, dir, &dir);
		if (rc)
			return rc; /* -ENOENT: it was removed */
	}
	return -EUCLEAN;
}

static int end_find(struct op *op, struct rename_end *end)
{
	int rc = dir_find(op, end->dir, end->name, end->len, &end->slot);

	end->inode = NULL;
	if (rc)
		return rc;
	rc = op_inode(op, end->slot.entry.ino, true, &end->inode);
	if (!rc)
		rc = inode_get(op, end->slot.entry.ino, &end->attr);
	return rc == -ESTALE ? -EUCLEAN : rc;
}

static bool is_dir(const struct rename_end *end)
{
	return end->inode && S_ISDIR(end->attr.mode);
}

/* What Linux checks of one name that another takes the place of. */
static int replace_may(const struct rename_arg *a)
{
	if (is_dir(&a->from) != is_dir(&a->to))
		return is_dir(&a->to) ? -EISDIR : -ENOTDIR;
	return is_dir(&a->to) && a->to.attr.size ? -ENOTEMPTY : 0;
}

static int links_may(const struct rename_arg *a, const struct rename_dirs *dirs)
{
	bool exchange = a->flags & RENAME_EXCHANGE;

	if (dirs->from == dirs->to)
		return 0;
	if (is_dir(&a->from) && !is_dir(&a->to) && dirs->to->nlink >= FS_LINK_MAX)
		return -EMLINK;
	if (exchange && is_dir(&a->to) && !is_dir(&a->from) && dirs->from->nlink >= FS_LINK_MAX)
		return -EMLINK;
	return 0;
}

static int rename_may(const struct rename_arg *a, const struct rename_dirs *dirs)
{
	bool exchange = a->flags & RENAME_EXCHANGE;
	int rc = dir_may_drop(dirs->from);

	if (!rc)
		rc = inode_may_drop(&a->from.attr);
	if (!rc)
		rc = dir_may_add(dirs->to);
	if (!rc && a->to.inode)
		rc = dir_may_drop(dirs->to);
	if (!rc && a->to.inode)
		rc = inode_may_drop(&a->to.attr);
	if (!rc && !exchange && a->to.inode)
		rc = replace_may(a);
	return rc ? rc : links_may(a, dirs);
}

/* -EAGAIN: a directory changes its parent, so the ancestors must be known. */
static int loop_check(const struct rename_arg *a)
{
	bool exchange = a->flags & RENAME_EXCHANGE;

	if (a->from.dir == a->to.dir || (!is_dir(&a->from) && !(exchange && is_dir(&a->to))))
		return 0;
	if (!a->ancestors_known)
		return -EAGAIN;
	if (is_dir(&a->from) && is_above(&a->to.above, a->from.attr.ino))
		return -EINVAL;
	if (is_dir(&a->to) && is_above(&a->from.above, a->to.attr.ino))
		return exchange ? -EINVAL : -ENOTEMPTY;
	return 0;
}

/* Both directories and both inodes, looked at and judged. 1: nothing is to be done. */
static int rename_look(struct op *op, struct rename_arg *a, struct rename_dirs *dirs)
{
	int rc = op_inode_pair(op, a->from.dir, true, NULL, a->to.dir, true, NULL);

	dirs->from = &dirs->attrs[0];
	dirs->to = a->from.dir == a->to.dir ? dirs->from : &dirs->attrs[1];
	if (!rc)
		rc = inode_get(op, a->from.dir, dirs->from);
	if (!rc)
		rc = inode_get(op, a->to.dir, dirs->to);
	if (!rc && (!S_ISDIR(dirs->from->mode) || !S_ISDIR(dirs->to->mode)))
		rc = -ENOTDIR;
	if (!rc)
		rc = end_find(op, &a->from);
	if (rc)
		return rc == -ENOSPC ? -ENOENT : rc;
	rc = end_find(op, &a->to);
	if (rc && rc != -ENOENT)
		return rc;
	if (rc == -ENOENT && a->flags & RENAME_EXCHANGE)
		return -ENOENT;
	if (rc == 0 && a->flags & RENAME_NOREPLACE)
		return -EEXIST;
	if (a->to.inode == a->from.inode)
		return 1; /* the same name, or two names of one inode: both stay */
	rc = loop_check(a);
	return rc ? rc : rename_may(a, dirs);
}

/* The source's entry goes, or becomes a whiteout. */
static int source_clear(struct op *op, struct rename_arg *a, struct inode_attr *dir)
{
	struct inode_attr attr;
	struct inode *inode;
	struct new_acl acl;
	int rc;

	/* The other end may have changed this tree. */
	rc = dir_find(op, a->from.dir, a->from.name, a->from.len, &a->from.slot);
	if (rc)
		return rc;
	if (!(a->flags & RENAME_WHITEOUT)) {
		rc = dir_lose(dir, 1, 0);
		return rc ? rc : dir_remove(op, &a->from.slot);
	}
	rc = inode_template(op, dir, S_IFCHR, 0, &attr, &acl);
	attr.mode = S_IFCHR;
	if (!rc)
		rc = inode_new(op, inode_agno(op->fs, a->from.dir), &attr, &inode);
	if (!rc)
		rc = dir_replace(op, &a->from.slot, attr.ino, DT_CHR);
	if (!rc)
		rc = parent_add(op, attr.ino, a->from.dir, a->from.slot.entry.key, a->from.name, a->from.len);
	return rc;
}

/* The target's name is now the source's. */
static int target_set(struct op *op, struct rename_arg *a, struct inode_attr *dir)
{
	struct rename_end *to = &a->to;
	uint64_t ino = a->from.attr.ino;
	uint8_t type = mode_dt(a->from.attr.mode);
	int rc;

	if (!to->inode) {
		dir->size++;
		return dir_insert(op, &to->slot, to->name, to->len, ino, type);
	}
	rc = dir_replace(op, &to->slot, ino, type);
	if (!rc)
		rc = name_drop(op, to->inode, &to->attr, to->dir, to->slot.entry.key);
	if (!rc && is_dir(to))
		rc = dir_lose(dir, 0, 1);
	return rc;
}

/* An inode that had the name of one end has that of the other. */
static int parent_move(struct op *op, struct inode_attr *attr, const struct rename_end *old, uint64_t old_key,
		       const struct rename_end *new)
{
	int rc = parent_remove(op, attr->ino, old->dir, old_key);

	if (!rc)
		rc = parent_add(op, attr->ino, new->dir, new->slot.entry.key, new->name, new->len);
	attr_touch(op, attr, false);
	return rc ? rc : inode_put(op, attr);
}

static int dirs_put(struct op *op, struct rename_dirs *dirs)
{
	int rc;

	attr_touch(op, dirs->from, true);
	rc = inode_put(op, dirs->from);
	if (rc || dirs->from == dirs->to)
		return rc;
	attr_touch(op, dirs->to, true);
	return inode_put(op, dirs->to);
}

static int rename_plain(struct op *op, struct rename_arg *a, struct rename_dirs *dirs)
{
	uint64_t old_key = a->from.slot.entry.key;
	int rc = target_set(op, a, dirs->to);

	if (!rc)
		rc = source_clear(op, a, dirs->from);
	if (!rc)
		rc = parent_move(op, &a->from.attr, &a->from, old_key, &a->to);
	if (rc)
		return rc;
	if (is_dir(&a->from) && dirs->from != dirs->to) {
		rc = dir_lose(dirs->from, 0, 1);
		dirs->to->nlink++;
	}
	return rc ? rc : dirs_put(op, dirs);
}

static int rename_exchange(struct op *op, struct rename_arg *a, struct rename_dirs *dirs)
{
	struct rename_end *from = &a->from, *to = &a->to;
	int delta = is_dir(from) - is_dir(to);
	int rc = dir_replace(op, &to->slot, from->attr.ino, mode_dt(from->attr.mode));

	if (!rc) /* the tree may be the same one and have changed */
		rc = dir_find(op, from->dir, from->name, from->len, &from->slot);
	if (!rc)
		rc = dir_replace(op, &from->slot, to->attr.ino, mode_dt(to->attr.mode));
	if (!rc)
		rc = parent_move(op, &from->attr, from, from->slot.entry.key, to);
	if (!rc)
		rc = parent_move(op, &to->attr, to, to->slot.entry.key, from);
	if (rc)
		return rc;
	if (dirs->from != dirs->to) {
		dirs->from->nlink -= (uint32_t)delta;
		dirs->to->nlink += (uint32_t)delta;
	}
	return dirs_put(op, dirs);
}

static int rename_op(struct op *op, void *arg)
{
	struct rename_arg *a = arg;
	struct rename_dirs dirs;
	int rc = rename_look(op, a, &dirs);

	if (rc)
		return rc < 0 ? rc : 0;
	return a->flags & RENAME_EXCHANGE ? rename_exchange(op, a, &dirs) : rename_plain(op, a, &dirs);
}

static int rename_dir(struct fs *fs, const struct fs_cred *cred, struct rename_arg *a)
{
	int rc;

	pthread_mutex_lock(&fs->rename_lock);
	rc = ancestors_list(fs, a->from.dir, &a->from.above);
	if (!rc)
		rc = ancestors_list(fs, a->to.dir, &a->to.above);
	a->ancestors_known = true;
	if (!rc)
		rc = op_run(fs, TXN_WRITE, cred, rename_op, a);
	pthread_mutex_unlock(&fs->rename_lock);
	free(a->from.above.inos);
	free(a->to.above.inos);
	return rc;
}

int fs_rename(struct fs *fs, const struct fs_cred *cred, uint64_t dir, const char *name, size_t len,
	      uint64_t new_dir, const char *new_name, size_t new_len, unsigned flags)
{
	struct rename_arg a = {
		.from = { .dir = dir, .name = name, .len = len },
		.to = { .dir = new_dir, .name = new_name, .len = new_len },
		.flags = flags,
	};
	int rc = name_check(name, len);

	if (!rc)
		rc = name_check(new_name, new_len);
	if (!rc && (name_is_dots(name, len) || name_is_dots(new_name, new_len)))
		rc = flags & RENAME_NOREPLACE ? -EEXIST : -EBUSY;
	if (flags & ~RENAME_KNOWN ||
	    (flags & RENAME_EXCHANGE && flags & (RENAME_NOREPLACE | RENAME_WHITEOUT)))
		rc = -EINVAL;
	if (!rc)
		rc = op_run(fs, TXN_WRITE, cred, rename_op, &a);
	return rc == -EAGAIN ? rename_dir(fs, cred, &a) : rc;
}
