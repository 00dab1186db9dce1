/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * More names for an inode, and fewer: link, unlink, rmdir.
 */
#include <errno.h>
#include <sys/stat.h>

#include "fs/names.h"
#include "util/sabotage.h"

struct link_arg {
	uint64_t ino, dir;
	const char *name;
	size_t len;
	struct inode_attr *attr;
};

static int link_may(const struct inode_attr *attr)
{
	if (S_ISDIR(attr->mode) || attr->flags & (INODE_IMMUTABLE | INODE_APPEND))
		return -EPERM;
	return attr->nlink >= FS_LINK_MAX ? -EMLINK : 0;
}

static int link_op(struct op *op, void *arg)
{
	struct link_arg *a = arg;
	struct inode_attr dir, attr;
	struct inode *inode;
	int rc = op_inode_pair(op, a->dir, true, NULL, a->ino, true, &inode);

	if (!rc)
		rc = inode_get(op, a->dir, &dir);
	if (!rc)
		rc = inode_get(op, a->ino, &attr);
	if (!rc)
		rc = dir_may_add(&dir);
	if (!rc)
		rc = link_may(&attr);
	if (!rc)
		rc = name_add(op, &dir, a->name, a->len, &attr);
	if (!rc && attr.nlink == 0) {
		rc = orphan_remove(op, a->ino);
		inode_on_commit(op, inode, INODE_NAMED);
	}
	if (rc)
		return rc;
	if (!sabotage_point("link-count"))
		attr.nlink++;
	attr_touch(op, &attr, false);
	rc = inode_put(op, &attr);
	if (!rc)
		rc = inode_put(op, &dir);
	if (rc)
		return rc;
	inode_on_commit(op, inode, INODE_REF);
	op->answer = (int64_t)a->ino;
	op->answer_flags = RECEIPT_MAKES;
	inode_show(inode, &attr);
	*a->attr = attr;
	return 0;
}

int fs_link(struct fs *fs, uint64_t ino, uint64_t dir, const char *name, size_t len, struct inode_attr *attr)
{
	struct link_arg a = { ino, dir, name, len, attr };
	int rc = name_check_new(name, len);

	return rc ? rc : op_run(fs, TXN_WRITE, op_request(), link_op, &a);
}

int name_drop(struct op *op, struct inode *inode, struct inode_attr *attr, uint64_t dir, uint64_t key)
{
	uint32_t links = S_ISDIR(attr->mode) ? 2 : 1;
	int rc = parent_remove(op, attr->ino, dir, key);

	if (rc)
		return rc;
	if (attr->nlink < links)
		return -EUCLEAN;
	attr->nlink -= links;
	attr_touch(op, attr, false);
	if (attr->nlink == 0) {
		rc = orphan_add(op, attr);
		inode_on_commit(op, inode, INODE_UNLINKED);
	}
	return rc ? rc : inode_put(op, attr);
}

int inode_may_drop(const struct inode_attr *attr)
{
	return attr->flags & (INODE_IMMUTABLE | INODE_APPEND) ? -EPERM : 0;
}

int dir_lose(struct inode_attr *dir, unsigned entries, unsigned subdirs)
{
	if (dir->size < entries || dir->nlink < 2 + subdirs)
		return -EUCLEAN;
	dir->size -= entries;
	dir->nlink -= subdirs;
	return 0;
}

struct unlink_arg {
	uint64_t dir;
	const char *name;
	size_t len;
	bool rmdir;
};

static int unlink_may(const struct inode_attr *attr, bool rmdir)
{
	int rc = inode_may_drop(attr);

	if (rc)
		return rc;
	if (!rmdir)
		return S_ISDIR(attr->mode) ? -EISDIR : 0;
	if (!S_ISDIR(attr->mode))
		return -ENOTDIR;
	return attr->size ? -ENOTEMPTY : 0;
}

static int unlink_op(struct op *op, void *arg)
{
	struct unlink_arg *a = arg;
	struct inode_attr dir, attr;
	struct inode *inode;
	struct dir_slot slot;
	int rc = op_inode(op, a->dir, true, NULL);

	if (!rc)
		rc = inode_get(op, a->dir, &dir);
	if (!rc && !S_ISDIR(dir.mode))
		rc = -ENOTDIR;
	if (!rc)
		rc = dir_find(op, a->dir, a->name, a->len, &slot);
	if (rc)
		return rc == -ENOSPC ? -ENOENT : rc;
	rc = dir_may_drop(&dir);
	if (!rc)
		rc = op_inode(op, slot.entry.ino, true, &inode);
	if (!rc)
		rc = inode_get(op, slot.entry.ino, &attr);
	if (!rc)
		rc = unlink_may(&attr, a->rmdir);
	if (!rc)
		rc = dir_remove(op, &slot);
	if (!rc)
		rc = name_drop(op, inode, &attr, a->dir, slot.entry.key);
	if (rc)
		return rc == -ESTALE ? -EUCLEAN : rc;
	rc = dir_lose(&dir, 1, a->rmdir);
	if (rc)
		return rc;
	attr_touch(op, &dir, true);
	return inode_put(op, &dir);
}

int fs_unlink(struct fs *fs, uint64_t dir, const char *name, size_t len)
{
	struct unlink_arg a = { dir, name, len, false };
	int rc = name_check(name, len);

	if (!rc && name_is_dots(name, len))
		rc = -EISDIR;
	return rc ? rc : op_run(fs, TXN_FREEING, op_request(), unlink_op, &a);
}

int fs_rmdir(struct fs *fs, uint64_t dir, const char *name, size_t len)
{
	struct unlink_arg a = { dir, name, len, true };
	int rc = name_check(name, len);

	if (!rc && name_is_dots(name, len))
		rc = len == 1 ? -EINVAL : -ENOTEMPTY;
	return rc ? rc : op_run(fs, TXN_FREEING, op_request(), unlink_op, &a);
}
