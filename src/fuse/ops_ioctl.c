/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The ioctls that every file system has: flags, project id, generation.
 */
#include <errno.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#undef BLOCK_SIZE /* another one of <linux/fs.h> */
#include "fuse/ops.h"

static const struct {
	uint32_t inode, fl, xflag;
} flag_names[] = {
	{ INODE_IMMUTABLE, FS_IMMUTABLE_FL, FS_XFLAG_IMMUTABLE },
	{ INODE_APPEND, FS_APPEND_FL, FS_XFLAG_APPEND },
	{ INODE_NODUMP, FS_NODUMP_FL, FS_XFLAG_NODUMP },
	{ INODE_NOATIME, FS_NOATIME_FL, FS_XFLAG_NOATIME },
	{ INODE_SYNC, FS_SYNC_FL, FS_XFLAG_SYNC },
	{ INODE_DAX, FS_DAX_FL, FS_XFLAG_DAX },
};

static uint32_t flags_to_fl(uint32_t flags)
{
	uint32_t fl = 0;

	for (size_t i = 0; i < ARRAY_SIZE(flag_names); i++)
		if (flags & flag_names[i].inode)
			fl |= flag_names[i].fl;
	return fl;
}

static uint32_t flags_to_xflags(uint32_t flags)
{
	uint32_t xflags = 0;

	for (size_t i = 0; i < ARRAY_SIZE(flag_names); i++)
		if (flags & flag_names[i].inode)
			xflags |= flag_names[i].xflag;
	return xflags;
}

/* INODE_* of FS_*_FL or FS_XFLAG_*. -EOPNOTSUPP: one of them is not known here. */
static int flags_from(uint32_t given, bool xflags, uint32_t *flags)
{
	uint32_t found = 0;

	for (size_t i = 0; i < ARRAY_SIZE(flag_names); i++) {
		uint32_t bit = xflags ? flag_names[i].xflag : flag_names[i].fl;

		if (given & bit)
			found |= flag_names[i].inode;
		given &= ~bit;
	}
	if (xflags)
		given &= ~(uint32_t)FS_XFLAG_HASATTR; /* read-only, passed back by everyone */
	if (given)
		return -EOPNOTSUPP;
	*flags = found;
	return 0;
}

static void get_flags(fuse_req_t req, fuse_ino_t ino, size_t out_size)
{
	struct inode_attr attr;
	int rc = fs_getattr(req_session(req)->fs, ino, &attr);
	long value = 0;

	if (rc) {
		ops_reply(req, rc);
		return;
	}
	value = (long)flags_to_fl(attr.flags);
	fuse_reply_ioctl(req, 0, &value, u64_min(out_size, sizeof(value)));
}

static void get_fsxattr(fuse_req_t req, fuse_ino_t ino, size_t out_size)
{
	struct fsxattr x = { .fsx_xflags = 0 };
	struct inode_attr attr;
	int rc = fs_getattr(req_session(req)->fs, ino, &attr);

	if (rc == 0 && out_size < sizeof(x))
		rc = -EINVAL;
	if (rc) {
		ops_reply(req, rc);
		return;
	}
	x.fsx_xflags = flags_to_xflags(attr.flags);
	x.fsx_projid = attr.projid;
	fuse_reply_ioctl(req, 0, &x, sizeof(x));
}

static void get_version(fuse_req_t req, fuse_ino_t ino, size_t out_size)
{
	struct inode_attr attr;
	int rc = fs_getattr(req_session(req)->fs, ino, &attr);
	long value;

	if (rc) {
		ops_reply(req, rc);
		return;
	}
	value = (long)attr.gen;
	fuse_reply_ioctl(req, 0, &value, u64_min(out_size, sizeof(value)));
}

/* An answer that has to wait for the kernel. */
struct flags_work {
	struct defer_work work;
	fuse_req_t req;
	uint64_t ino;
};

/* The kernel does not know that ctime has moved. off: from where on it drops pages, -1: none, which waits for nothing. */
static void flags_reply(fuse_req_t req, uint64_t ino, off_t off)
{
	(void)session_drop(req_session(req), ino, off, 0);
	fuse_reply_ioctl(req, 0, NULL, 0);
}

static void flags_deferred(struct defer_work *work)
{
	struct flags_work *w = container_of(work, struct flags_work, work);

	flags_reply(w->req, w->ino, 0);
	free(w);
}

/* Opens that follow read past pages that there are, or read pages that nobody has kept up to date (before Linux 6.6). */
static bool flags_defer(fuse_req_t req, uint64_t ino)
{
	struct flags_work *w = malloc(sizeof(*w));

	if (!w)
		return false;
	*w = (struct flags_work){ { .fn = flags_deferred }, req, ino };
	if (defer_add(req_session(req)->defer, &w->work))
		return true;
	free(w);
	return false;
}

static void set_flags(fuse_req_t req, fuse_ino_t ino, const struct fs_set *set)
{
	struct fs *fs = req_session(req)->fs;
	struct fs_cred cred = ops_cred(req);
	struct inode_attr before, attr;
	int rc = fs_getattr(fs, ino, &before);

	if (rc == 0)
		rc = fs_setattr(fs, &cred, ino, set, &attr);
	if (rc)
		ops_reply(req, rc);
	else if (!S_ISREG(attr.mode) || !((before.flags ^ attr.flags) & INODE_DAX) || !flags_defer(req, ino))
		flags_reply(req, ino, -1);
}

static void set_fl(fuse_req_t req, fuse_ino_t ino, const void *in, size_t in_size)
{
	struct fs_set set = { .what = FS_SET_FLAGS };
	uint32_t fl;
	int rc = -EINVAL;

	if (in_size >= sizeof(fl)) {
		memcpy(&fl, in, sizeof(fl));
		rc = flags_from(fl, false, &set.flags);
	}
	if (rc)
		ops_reply(req, rc);
	else
		set_flags(req, ino, &set);
}

static void set_fsxattr(fuse_req_t req, fuse_ino_t ino, const void *in, size_t in_size)
{
	struct fs_set set = { .what = FS_SET_FLAGS | FS_SET_PROJID };
	struct fsxattr x;
	int rc = -EINVAL;

	if (in_size >= sizeof(x)) {
		memcpy(&x, in, sizeof(x));
		rc = flags_from(x.fsx_xflags, true, &set.flags);
		if (rc == 0 && (x.fsx_extsize || x.fsx_cowextsize))
			rc = -EOPNOTSUPP;
		set.projid = x.fsx_projid;
	}
	if (rc)
		ops_reply(req, rc);
	else
		set_flags(req, ino, &set);
}

void ops_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi,
	       unsigned flags, const void *in, size_t in_size, size_t out_size)
{
	(void)arg;
	if (flags & FUSE_IOCTL_COMPAT) {
		ops_reply(req, -ENOSYS);
		return;
	}
	switch (cmd) {
	case FS_IOC_GETFLAGS:
		get_flags(req, ino, out_size);
		break;
	case FS_IOC_SETFLAGS:
		set_fl(req, ino, in, in_size);
		break;
	case FS_IOC_FSGETXATTR:
		get_fsxattr(req, ino, out_size);
		break;
	case FS_IOC_FSSETXATTR:
		set_fsxattr(req, ino, in, in_size);
		break;
	case FS_IOC_GETVERSION:
		get_version(req, ino, out_size);
		break;
	default:
		if (!ops_private(req, ino, cmd, fi, in, in_size, out_size))
			ops_reply(req, -ENOTTY);
	}
}
