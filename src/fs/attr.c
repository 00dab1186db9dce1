/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Attributes: setattr and its rules, opens and closes, figures of the whole file system.
 */
#include <errno.h>
#include <sys/stat.h>

#include "fs/core.h"
#include "fs/xattr.h"

#define FLAGS_OF_USERS \
	(INODE_DAX | INODE_IMMUTABLE | INODE_APPEND | INODE_NODUMP | INODE_NOATIME | INODE_SYNC)

void attr_touch(struct op *op, struct inode_attr *attr, bool mtime)
{
	attr->ctime = op->now;
	if (mtime)
		attr->mtime = op->now;
	attr->change++;
}

static bool cred_has_group(const struct fs_cred *cred, uint32_t gid)
{
	return !cred || cred->kill_priv_exempt || cred->gid == gid ||
	       (cred->has_group && cred->has_group(cred->group_arg, gid));
}

/* The set-id bits that go. Setgid without group-execute once meant mandatory locks, and stays for who may set it. */
static uint32_t killed_bits(const struct op *op, const struct inode_attr *attr, uint32_t gid)
{
	uint32_t bits = attr->mode & S_ISUID;

	if (attr->mode & S_ISGID && (attr->mode & S_IXGRP || !cred_has_group(op->cred, gid)))
		bits |= S_ISGID;
	return S_ISDIR(attr->mode) ? 0 : bits;
}

int inode_drop_caps(struct op *op, struct inode_attr *attr)
{
	int rc = xattr_drop(op, attr->ino, XATTR_CAPABILITY);

	return rc == -ENODATA ? 0 : rc;
}

static int kill_priv(struct op *op, struct inode_attr *attr, uint32_t gid)
{
	if (S_ISDIR(attr->mode))
		return 0;
	attr->mode &= ~killed_bits(op, attr, gid);
	return inode_drop_caps(op, attr);
}

int inode_kill_priv(struct op *op, struct inode_attr *attr)
{
	return kill_priv(op, attr, attr->gid);
}

/* Immutable: nothing but the flags themselves (and the project, which comes with them); append-only: neither size, owner nor mode. */
static int set_may(const struct inode_attr *attr, const struct fs_set *set)
{
	uint32_t change = set->what & ~(FS_SET_KILLPRIV | FS_SET_FLAGS | FS_SET_PROJID | FS_SET_CTIME |
					FS_SET_TOUCH | FS_SET_NOTHING);

	if (attr->flags & INODE_IMMUTABLE && change)
		return -EPERM;
	if (attr->flags & INODE_APPEND && change & ~(FS_SET_ATIME | FS_SET_MTIME))
		return -EPERM;
	if (!(set->what & FS_SET_SIZE))
		return 0;
	if (S_ISDIR(attr->mode))
		return -EISDIR;
	if (!S_ISREG(attr->mode))
		return -EINVAL;
	return set->size > FS_SIZE_MAX ? -EFBIG : 0;
}

/*
 * A change of nothing clears set-id bits for the owner alone. But it is also how a kernel tells that somebody is about to write to a file with
 * capabilities: whoever has it open for writing may.
 */
static int nothing_may(const struct op *op, const struct inode *inode, const struct inode_attr *attr)
{
	const struct fs_cred *cred = op->cred;

	if (!cred || cred->uid == 0 || cred->uid == attr->uid || atomic_load(&inode->write_opens) > 0)
		return 0;
	return killed_bits(op, attr, attr->gid) ? -EPERM : 0;
}

static bool time_is_sane(const struct inode_time *t)
{
	return t->ns < 1000000000;
}

static int set_times(struct op *op, struct inode *inode, struct inode_attr *attr, const struct fs_set *set)
{
	if (!time_is_sane(&set->atime) || !time_is_sane(&set->mtime) || !time_is_sane(&set->ctime))
		return -EINVAL;
	if (set->what & FS_SET_ATIME) {
		attr->atime = set->atime;
		inode_on_commit(op, inode, INODE_ATIME);
	}
	if (set->what & FS_SET_MTIME)
		attr->mtime = set->mtime;
	if (set->what & FS_SET_CTIME)
		attr->ctime = set->ctime;
	return 0;
}

static int set_owner_mode(struct op *op, struct inode_attr *attr, const struct fs_set *set)
{
	uint32_t gid = attr->gid;
	int rc = 0;

	if (set->what & FS_SET_UID)
		attr->uid = set->uid;
	if (set->what & FS_SET_GID)
		attr->gid = set->gid;
	if (set->what & FS_SET_MODE)
		attr->mode = (attr->mode & S_IFMT) | (set->mode & 07777);
	else if (set->what & (FS_SET_UID | FS_SET_GID))
		rc = kill_priv(op, attr, gid);
	if (!rc && set->what & FS_SET_KILLPRIV)
		rc = kill_priv(op, attr, gid);
	if (!rc && set->what & FS_SET_MODE)
		rc = acl_chmod(op, attr);
	return rc;
}

/* Everything but the record itself, which the caller puts back. The size comes last: a long truncate commits all with its first step. */
static int set_apply(struct op *op, struct inode *inode, struct inode_attr *attr, const struct fs_set *set)
{
	int rc = set_may(attr, set);

	if (!rc && set->what & FS_SET_NOTHING)
		rc = nothing_may(op, inode, attr);
	if (rc)
		return rc;
	attr_touch(op, attr,
		   set->what & FS_SET_TOUCH || (set->what & FS_SET_SIZE && set->size != attr->size));
	rc = set_owner_mode(op, attr, set);
	if (!rc)
		rc = set_times(op, inode, attr, set);
	if (rc)
		return rc;
	if (set->what & FS_SET_FLAGS)
		attr->flags = (attr->flags & ~FLAGS_OF_USERS) | (set->flags & FLAGS_OF_USERS);
	if (set->what & FS_SET_PROJID)
		attr->projid = set->projid;
	return set->what & FS_SET_SIZE ? data_set_size(op, inode, attr, set->size) : 0;
}

struct setattr_arg {
	uint64_t ino;
	const struct fs_set *set;
	struct inode_attr *attr;
	bool shrink_only;
};

static int setattr_op(struct op *op, void *arg)
{
	struct setattr_arg *a = arg;
	struct inode_attr attr;
	struct inode *inode;
	int rc = op_inode(op, a->ino, true, &inode);

	if (!rc)
		rc = inode_get(op, a->ino, &attr);
	if (!rc && a->shrink_only && a->set->size > attr.size)
		rc = -ENOSPC;
	if (!rc)
		rc = set_apply(op, inode, &attr, a->set);
	if (!rc)
		rc = inode_put(op, &attr);
	if (rc)
		return rc;
	/* An access time that was noted before is void if one is set; it goes with the commit. */
	if (!(a->set->what & FS_SET_ATIME))
		inode_show(inode, &attr);
	*a->attr = attr;
	return 0;
}

int fs_setattr(struct fs *fs, const struct fs_cred *cred, uint64_t ino, const struct fs_set *set,
	       struct inode_attr *attr)
{
	struct setattr_arg a = { ino, set, attr, false };
	int rc = op_run(fs, TXN_WRITE, cred, setattr_op, &a);

	if (rc != -ENOSPC || !(set->what & FS_SET_SIZE))
		return rc;
	/* What gives back blocks may use the reserve. */
	a.shrink_only = true;
	return op_run(fs, TXN_FREEING, cred, setattr_op, &a);
}

/* ---- opens ---- */

struct open_arg {
	uint64_t ino;
	unsigned flags; /* FS_OPEN_* */
	bool kill_priv;
	struct inode *inode;
};

static int open_truncate(struct op *op, struct open_arg *a, struct inode *inode, struct inode_attr *attr)
{
	struct fs_set set = { .what = FS_SET_SIZE | FS_SET_TOUCH | (a->kill_priv ? FS_SET_KILLPRIV : 0) };
	int rc = set_apply(op, inode, attr, &set);

	return rc ? rc : inode_put(op, attr);
}

static int open_op(struct op *op, void *arg)
{
	struct open_arg *a = arg;
	struct inode_attr attr;
	struct inode *inode;
	bool write = a->flags & FS_OPEN_WRITE, truncate = a->flags & FS_OPEN_TRUNCATE;
	int rc = op_inode(op, a->ino, truncate, &inode);

	if (!rc)
		rc = inode_get(op, a->ino, &attr);
	if (rc)
		return rc;
	if (attr.nlink == 0 && !atomic_load(&inode->refs) && !atomic_load(&inode->opens))
		return -ESTALE; /* an orphan that waits for its end */
	if (write && attr.flags & INODE_IMMUTABLE)
		return -EPERM;
	if (truncate)
		rc = open_truncate(op, a, inode, &attr);
	if (rc)
		return rc;
	ledger_open(inode->cell, a->flags);
	atomic_fetch_add(&inode->pins, 1);
	atomic_fetch_add(&inode->opens, 1);
	atomic_fetch_add(&inode->write_opens, write);
	atomic_fetch_add(&inode->map_opens, !!(a->flags & FS_OPEN_MAP));
	atomic_fetch_add(&inode->cached_opens, !!(a->flags & FS_OPEN_CACHED));
	a->inode = inode;
	return 0;
}

static void open_undo(struct fs *fs, struct inode *inode, unsigned flags)
{
	atomic_fetch_sub(&inode->write_opens, !!(flags & FS_OPEN_WRITE));
	atomic_fetch_sub(&inode->map_opens, !!(flags & FS_OPEN_MAP));
	atomic_fetch_sub(&inode->cached_opens, !!(flags & FS_OPEN_CACHED));
	atomic_fetch_sub(&inode->opens, 1);
	ledger_close(inode->cell, flags);
	inode_unpin(fs, inode, 1);
}

int fs_opened(struct fs *fs, uint64_t ino, unsigned flags, const struct fs_cred *cred)
{
	struct open_arg a = { .ino = ino, .flags = flags, .kill_priv = !cred || !cred->kill_priv_exempt };
	int rc = op_run(fs, flags & FS_OPEN_TRUNCATE ? TXN_FREEING : TXN_READ, cred, open_op, &a);

	if (rc && a.inode)
		open_undo(fs, a.inode, flags);
	return rc;
}

static int stream_op(struct op *op, void *arg)
{
	struct inode *inode;
	int rc = op_hold(op, *(uint64_t *)arg, true, &inode);

	if (!rc) {
		space_stream_release(op->fs->pool, &inode->stream);
		if (atomic_load(&inode->write_opens) == 0)
			atomic_store(&inode->page_reads, 0);
	}
	return rc;
}

/* False: it is 0 already; there was no such open. */
static bool count_down(_Atomic uint32_t *count)
{
	uint32_t old = atomic_load(count);

	while (old != 0) {
		if (atomic_compare_exchange_weak(count, &old, old - 1))
			return true;
	}
	return false;
}

/* The inode is pinned once more for this. */
static void open_end(struct fs *fs, struct inode *inode, unsigned flags)
{
	uint64_t ino = inode->ino;

	if (flags & FS_OPEN_MAP)
		(void)count_down(&inode->map_opens);
	if (flags & (FS_OPEN_CACHED | FS_OPEN_PAGED))
		(void)count_down(&inode->cached_opens);
	open_way_end(inode, flags);
	if (flags & FS_OPEN_WRITE && count_down(&inode->write_opens) &&
	    atomic_load(&inode->write_opens) == 0) {
		/* The last writer is gone: what was set aside for him goes back. */
		int rc = op_run(fs, TXN_READ, NULL, stream_op, &ino);

		(void)rc;
	}
	inode_unpin(fs, inode, count_down(&inode->opens) ? 2 : 1);
}

void fs_closed(struct fs *fs, uint64_t ino, unsigned flags)
{
	struct inode *inode = inode_pin_known(fs, ino);

	if (!inode)
		return;
	ledger_close(inode->cell, flags);
	open_end(fs, inode, flags);
}

void open_unhold(struct fs *fs, uint64_t ino)
{
	struct inode *inode = inode_pin(fs, ino, 1, false);

	if (inode)
		open_end(fs, inode, 0);
}

bool fs_is_mappable(struct fs *fs, uint64_t ino)
{
	struct inode *inode = inode_pin_known(fs, ino);
	bool mappable = inode && atomic_load(&inode->map_opens) > 0;

	if (inode)
		inode_unpin(fs, inode, 1);
	return mappable;
}

void fs_uncached(struct fs *fs, uint64_t ino)
{
	struct inode *inode = inode_pin_known(fs, ino);

	if (!inode)
		return;
	ledger_uncache(inode->cell);
	(void)count_down(&inode->cached_opens);
	inode_unpin(fs, inode, 1);
}

void fs_cached(struct fs *fs, uint64_t ino)
{
	struct inode *inode = inode_pin_known(fs, ino);

	if (!inode)
		return;
	atomic_fetch_add(&inode->cached_opens, 1);
	inode_unpin(fs, inode, 1);
}

uint32_t fs_cached_opens(struct fs *fs, uint64_t ino)
{
	struct inode *inode = inode_pin_known(fs, ino);
	uint32_t count = inode ? atomic_load(&inode->cached_opens) : 0;

	if (inode)
		inode_unpin(fs, inode, 1);
	return count;
}

/* ---- figures ---- */

int fs_statfs(struct fs *fs, struct fs_statfs *st)
{
	bool dup = pool_super(fs->pool)->incompat & FEATURE_INCOMPAT_META_DUP;
	uint64_t inodes_per_blk = BLOCK_SIZE / INODE_SIZE / (dup ? 2 : 1);
	struct space_totals totals;
	int rc;

	/* What has been removed counts as free at once. */
	orphan_drain_soon(fs);
	rc = space_totals(fs->pool, &totals);
	if (rc)
		return rc;
	*st = (struct fs_statfs){
		.total_blk = totals.total_blk,
		.free_blk = totals.free_blk,
		.total_inodes = totals.inode_count + totals.free_blk * inodes_per_blk,
		.free_inodes = totals.inode_free + totals.free_blk * inodes_per_blk,
	};
	return 0;
}
