/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Names: lookup, making and removing of inodes and links.
 *
 * A lookup finds the name under the directory's lock, takes a reference while the name keeps the number, and reads the child
 * in a second transaction: the child may have a lower number than the directory, or be locked by a long write. All others
 * lock the directory first and then the child; out of order that is only tried, and op_run() does the rest.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/names.h"
#include "fs/xattr.h"
#include "util/sabotage.h"

#define LOOKUP_ROUNDS 100 /* a name that is replaced this often while it is looked up */
#define FLAGS_INHERITED (INODE_DAX | INODE_NODUMP | INODE_NOATIME | INODE_SYNC)

uint8_t mode_dt(uint32_t mode)
{
	return (uint8_t)((mode & S_IFMT) >> 12);
}

static bool name_is_dot(const char *name, size_t len)
{
	return len == 1 && name[0] == '.';
}

static bool name_is_dotdot(const char *name, size_t len)
{
	return len == 2 && name[0] == '.' && name[1] == '.';
}

int name_check(const char *name, size_t len)
{
	if (len == 0)
		return -ENOENT;
	if (len > FS_NAME_MAX)
		return -ENAMETOOLONG;
	if (memchr(name, '/', len) || memchr(name, 0, len))
		return -EINVAL;
	return 0;
}

bool name_is_dots(const char *name, size_t len)
{
	return name_is_dot(name, len) || name_is_dotdot(name, len);
}

int name_check_new(const char *name, size_t len)
{
	if (name_is_dots(name, len))
		return -EEXIST;
	return name_check(name, len);
}

int dir_may_add(const struct inode_attr *dir)
{
	if (!S_ISDIR(dir->mode))
		return -ENOTDIR;
	if (dir->nlink == 0)
		return -ENOENT;
	return dir->flags & INODE_IMMUTABLE ? -EPERM : 0;
}

int dir_may_drop(const struct inode_attr *dir)
{
	return dir->flags & (INODE_IMMUTABLE | INODE_APPEND) ? -EPERM : 0;
}

/* ---- lookup ---- */

struct lookup_arg {
	uint64_t dir;
	const char *name;
	size_t len;
	struct inode *child; /* referenced */
};

static int lookup_op(struct op *op, void *arg)
{
	struct lookup_arg *a = arg;
	struct inode_attr dir;
	struct dir_slot slot;
	int rc = op_inode(op, a->dir, false, NULL);

	if (!rc)
		rc = inode_get(op, a->dir, &dir);
	if (!rc && !S_ISDIR(dir.mode))
		rc = -ENOTDIR;
	if (!rc)
		rc = dir_find(op, a->dir, a->name, a->len, &slot);
	if (rc)
		return rc == -ENOSPC ? -ENOENT : rc;
	a->child = inode_pin_ref(op->fs, slot.entry.ino);
	return a->child ? 0 : -ENOMEM;
}

struct getattr_arg {
	uint64_t ino, gen;
	bool ref; /* take a reference, if the inode is more than an orphan that waits for its end */
	struct inode_attr *attr;
};

static int getattr_op(struct op *op, void *arg)
{
	struct getattr_arg *a = arg;
	struct inode_attr attr;
	struct inode *inode;
	int rc = op_inode(op, a->ino, false, &inode);

	if (!rc)
		rc = inode_get(op, a->ino, &attr);
	if (rc)
		return rc;
	if (a->gen && a->gen != attr.gen)
		return -ESTALE;
	if (a->ref) {
		if (attr.nlink == 0 && !atomic_load(&inode->refs) && !atomic_load(&inode->opens))
			return -ESTALE;
		inode_ref(inode);
	}
	inode_show(inode, &attr);
	*a->attr = attr;
	return 0;
}

int fs_getattr(struct fs *fs, uint64_t ino, struct inode_attr *attr)
{
	struct getattr_arg a = { .ino = ino, .attr = attr };

	return op_run(fs, TXN_READ, NULL, getattr_op, &a);
}

int fs_ref(struct fs *fs, uint64_t ino, uint64_t gen, struct inode_attr *attr)
{
	struct getattr_arg a = { .ino = ino, .gen = gen, .ref = true, .attr = attr };

	return op_run(fs, TXN_READ, NULL, getattr_op, &a);
}

int fs_lookup(struct fs *fs, uint64_t dir, const char *name, size_t len, struct inode_attr *attr)
{
	struct lookup_arg a = { dir, name, len, NULL };
	int rc;

	if (name_is_dot(name, len)) {
		/* By number alone: from a file handle, and the kernel does not have the inode (a forget may be on its way). */
		rc = fs_ref(fs, dir, 0, attr);
		if (rc || attr->nlink != 0)
			return rc;
		fs_forget(fs, dir, 1);
		return -ESTALE;
	}
	if (name_is_dotdot(name, len)) {
		uint64_t parent;

		rc = parent_dir(fs, dir, &parent);
		return rc ? rc : fs_ref(fs, parent, 0, attr);
	}
	rc = name_check(name, len);
	for (unsigned round = 0; !rc && round < LOOKUP_ROUNDS; round++) {
		rc = op_run(fs, TXN_READ, NULL, lookup_op, &a);
		if (rc)
			break;
		rc = fs_getattr(fs, a.child->ino, attr);
		if (!rc && attr->nlink != 0)
			return 0;
		inode_unref(fs, a.child, 1);
		if (rc == -ESTALE)
			rc = 0; /* removed in between: look again */
	}
	return rc ? rc : -ENOENT;
}

/* ---- making inodes ---- */

int inode_template(struct op *op, const struct inode_attr *dir, uint32_t mode, uint32_t rdev,
		   struct inode_attr *attr, struct new_acl *acl)
{
	const struct fs_cred *cred = op->cred;
	struct inode_attr a = { .mode = mode & (S_IFMT | 07777) };
	int rc;

	a.uid = cred ? cred->uid : 0;
	a.gid = cred ? cred->gid : 0;
	if (dir->mode & S_ISGID) {
		a.gid = dir->gid;
		if (S_ISDIR(mode))
			a.mode |= S_ISGID;
	}
	a.flags = dir->flags & FLAGS_INHERITED;
	if (!S_ISREG(mode) && !S_ISDIR(mode))
		a.flags &= ~INODE_DAX; /* others have no data, and the kernel lets nobody change it */
	a.nlink = S_ISDIR(mode) ? 2 : 1;
	switch (mode & S_IFMT) {
	case S_IFDIR:
		a.data_format = DATA_DIR;
		break;
	case S_IFREG:
	case S_IFIFO:
	case S_IFSOCK:
		break;
	case S_IFLNK:
		a.mode |= 0777;
		break;
	case S_IFCHR:
	case S_IFBLK:
		a.rdev = rdev;
		break;
	default:
		return -EINVAL;
	}
	rc = acl_inherit(op, dir, &a, acl);
	if (!rc)
		*attr = a;
	return rc;
}

int inode_new(struct op *op, uint32_t agno, struct inode_attr *attr, struct inode **out)
{
	struct inode *inode;
	uint64_t ino;
	void *unit;
	int rc = space_inode_alloc(op->tx, agno, &ino);

	if (!rc)
		rc = op_hold(op, ino, true, &inode);
	if (!rc)
		rc = txn_new(op->tx, inode_laddr(ino), MAGIC_INODE, ino, &unit);
	if (rc)
		return rc;
	attr->ino = ino;
	attr->gen = txn_seq(op->tx);
	attr->atime = attr->mtime = attr->ctime = attr->btime = op->now;
	attr->change = 1;
	inode_attr_encode(unit, attr);
	inode_on_commit(op, inode, INODE_MADE);
	if (attr->nlink == 0)
		inode_on_commit(op, inode, INODE_UNLINKED);
	*out = inode;
	return 0;
}

int name_add(struct op *op, struct inode_attr *dir, const char *name, size_t len,
	     const struct inode_attr *attr)
{
	struct dir_slot slot;
	int rc = dir_find(op, dir->ino, name, len, &slot);

	if (rc == 0)
		return -EEXIST;
	if (rc != -ENOENT)
		return rc;
	return name_add_at(op, dir, &slot, name, len, attr);
}

int name_add_at(struct op *op, struct inode_attr *dir, struct dir_slot *slot, const char *name, size_t len,
		const struct inode_attr *attr)
{
	int rc = dir_insert(op, slot, name, len, attr->ino, mode_dt(attr->mode));

	if (!rc)
		rc = parent_add(op, attr->ino, dir->ino, slot->entry.key, name, len);
	if (rc)
		return rc;
	if (!sabotage_point("dir-size"))
		dir->size++;
	attr_touch(op, dir, true);
	return 0;
}

/* Short targets lie in the inode, longer ones in a block of data. */
static int symlink_store(struct op *op, struct inode_attr *attr, const char *target, size_t len)
{
	struct space_want want = { .agno_hint = inode_agno(op->fs, attr->ino), .count_blk = 1, .all = true };
	struct dax *dax = pool_dax(op->fs->pool);
	struct m_extent extent = { .ex_count_blk = le32_of(1) };
	struct m_inode *record;
	struct btree bt;
	uint64_t blk, count;
	int rc;

	if (len <= INODE_INLINE_MAX) {
		rc = inode_edit(op, attr->ino, &record);
		if (!rc)
			memcpy(record->di_data, target, len);
		return rc;
	}
	rc = space_alloc(op->tx, &want, &blk, &count);
	if (!rc)
		rc = dax_store(dax, blk << BLOCK_SHIFT, target, len);
	if (!rc)
		rc = dax_zero(dax, (blk << BLOCK_SHIFT) + len, BLOCK_SIZE - len);
	if (!rc)
		rc = space_own(op->tx, blk, 1, attr->ino, 0);
	if (rc)
		return rc;
	if (!sabotage_point("data-stored-symlink"))
		txn_data_stored(op->tx);
	extent.ex_dev_blk = le64_of(blk);
	inode_data_tree(op, attr->ino, NODE_EXTENT, &bt);
	return bt_insert(&bt, &extent, sizeof(extent));
}

struct make_arg {
	uint64_t dir;
	const char *name; /* NULL: tmpfile */
	size_t len;
	uint32_t mode, rdev;
	const char *target; /* symlink */
	size_t target_len;
	struct inode_attr *attr;
};

static int make_inode(struct op *op, const struct make_arg *a, const struct inode_attr *dir,
		      struct inode_attr *attr, struct inode **inode)
{
	uint32_t agno = inode_agno(op->fs, dir->ino);
	struct new_acl acl;
	int rc = inode_template(op, dir, a->mode, a->rdev, attr, &acl);

	if (rc)
		return rc;
	if (S_ISDIR(attr->mode))
		agno = space_dir_group(op->fs->pool, agno);
	if (a->target) {
		attr->size = a->target_len;
		attr->data_format = a->target_len <= INODE_INLINE_MAX ? DATA_INLINE : DATA_EXTENTS;
		attr->blocks = a->target_len <= INODE_INLINE_MAX ? 0 : 1;
	}
	if (!a->name)
		attr->nlink = 0;
	rc = inode_new(op, agno, attr, inode);
	if (!rc && (acl.access || acl.dflt))
		rc = inode_new_acl(op, attr, &acl);
	if (!rc)
		rc = policy_inherit(op, dir->ino, attr);
	if (!rc && a->target)
		rc = symlink_store(op, attr, a->target, a->target_len);
	return rc;
}

static int make_op(struct op *op, void *arg)
{
	struct make_arg *a = arg;
	struct inode_attr dir, attr;
	struct inode *inode;
	struct dir_slot slot;
	int rc = op_inode(op, a->dir, a->name != NULL, NULL);

	if (!rc)
		rc = inode_get(op, a->dir, &dir);
	if (!rc)
		rc = dir_may_add(&dir);
	if (rc)
		return rc;
	if (a->name) {
		rc = dir_find(op, a->dir, a->name, a->len, &slot);
		if (rc != -ENOENT)
			return rc ? rc : -EEXIST;
		if (S_ISDIR(a->mode) && dir.nlink >= FS_LINK_MAX)
			return -EMLINK;
	}
	rc = make_inode(op, a, &dir, &attr, &inode);
	if (!rc && !a->name)
		rc = orphan_add(op, &attr);
	if (!rc && a->name) {
		rc = name_add_at(op, &dir, &slot, a->name, a->len, &attr);
		dir.nlink += S_ISDIR(a->mode);
		if (!rc)
			rc = inode_put(op, &dir);
	}
	if (rc)
		return rc;
	inode_on_commit(op, inode, INODE_REF);
	op->answer = (int64_t)attr.ino;
	op->answer_flags = RECEIPT_MAKES;
	*a->attr = attr;
	return 0;
}

int fs_mknod(struct fs *fs, const struct fs_cred *cred, uint64_t dir, const char *name, size_t len,
	     uint32_t mode, uint32_t rdev, struct inode_attr *attr)
{
	struct make_arg a = { .dir = dir, .name = name, .len = len, .mode = mode, .rdev = rdev, .attr = attr };
	int rc = name_check_new(name, len);

	if (!rc && S_ISLNK(mode))
		rc = -EINVAL;
	return rc ? rc : op_run(fs, TXN_WRITE, cred, make_op, &a);
}

int fs_tmpfile(struct fs *fs, const struct fs_cred *cred, uint64_t dir, uint32_t mode,
	       struct inode_attr *attr)
{
	struct make_arg a = { .dir = dir, .mode = S_IFREG | (mode & 07777), .attr = attr };

	return op_run(fs, TXN_WRITE, cred, make_op, &a);
}

int fs_symlink(struct fs *fs, const struct fs_cred *cred, uint64_t dir, const char *name, size_t len,
	       const char *target, size_t target_len, struct inode_attr *attr)
{
	struct make_arg a = { .dir = dir,
			      .name = name,
			      .len = len,
			      .mode = S_IFLNK | 0777,
			      .target = target,
			      .target_len = target_len,
			      .attr = attr };
	int rc = name_check_new(name, len);

	if (!rc && target_len == 0)
		rc = -ENOENT;
	if (!rc && target_len > FS_SYMLINK_MAX)
		rc = -ENAMETOOLONG;
	if (!rc && memchr(target, 0, target_len))
		rc = -EINVAL;
	return rc ? rc : op_run(fs, TXN_WRITE, cred, make_op, &a);
}

struct readlink_arg {
	uint64_t ino;
	char *buf;
};

static int symlink_load(struct op *op, const struct inode_attr *attr, char *buf)
{
	struct bt_key key = { { 0 } };
	const struct m_inode *record;
	struct extent extent;
	struct bt_cursor cur;
	struct btree bt;
	const void *rec;
	size_t size_bytes;
	int rc;

	if (attr->data_format == DATA_INLINE) {
		rc = inode_record(op, attr->ino, &record);
		if (!rc)
			memcpy(buf, record->di_data, attr->size);
		return rc;
	}
	if (attr->data_format != DATA_EXTENTS)
		return -EUCLEAN;
	inode_data_tree(op, attr->ino, NODE_EXTENT, &bt);
	rc = bt_seek(&bt, &cur, &key, BT_GE);
	if (!rc)
		rc = bt_get(&cur, &rec, &size_bytes);
	if (rc)
		return rc == -ENOENT ? -EUCLEAN : rc;
	extent_decode(&extent, rec);
	if (extent.file_blk != 0 || extent.dev_blk >= pool_size_blk(op->fs->pool))
		return -EUCLEAN;
	return dax_load(pool_dax(op->fs->pool), buf, extent.dev_blk << BLOCK_SHIFT, attr->size, NULL);
}

static int readlink_op(struct op *op, void *arg)
{
	struct readlink_arg *a = arg;
	struct inode_attr attr;
	struct inode *inode;
	int rc = op_inode(op, a->ino, false, &inode);

	if (!rc)
		rc = inode_get(op, a->ino, &attr);
	if (rc)
		return rc;
	if (!S_ISLNK(attr.mode))
		return -EINVAL;
	if (attr.size == 0 || attr.size > FS_SYMLINK_MAX)
		return -EUCLEAN;
	rc = symlink_load(op, &attr, a->buf);
	if (rc)
		return rc;
	a->buf[attr.size] = 0;
	atime_note(op, inode, &attr);
	return 0;
}

int fs_readlink(struct fs *fs, uint64_t ino, char *buf)
{
	struct readlink_arg a = { ino, buf };

	return op_run(fs, TXN_READ, NULL, readlink_op, &a);
}
