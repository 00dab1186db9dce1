/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests about inodes themselves: lookup and forget, attributes, symlinks' targets, statfs.
 *
 * The node id that the kernel knows is the inode number, so no table of ids is needed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "fuse/again.h"
#include "fuse/ops.h"
#include "util/sabotage.h"

#define RDEV_MAJOR(rdev) ((rdev) >> 20)
#define RDEV_MINOR(rdev) ((rdev)&0xfffffu)
#define BLOCK_SECTORS (BLOCK_SIZE / 512)

static bool req_has_group(void *arg, uint32_t gid)
{
	gid_t few[32], *groups = few;
	int max = (int)ARRAY_SIZE(few), count = fuse_req_getgroups(arg, max, few);
	bool found = false;

	if (count > max) {
		groups = calloc((size_t)count, sizeof(*groups));
		max = groups ? count : 0;
		count = groups ? fuse_req_getgroups(arg, max, groups) : 0;
	}
	for (int i = 0; i < count && i < max; i++)
		found |= groups[i] == gid;
	if (groups != few)
		free(groups);
	return found;
}

struct fs_cred ops_cred(fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	/* CAP_FSETID of the caller does not travel; root nearly always has it. */
	return (struct fs_cred){
		.uid = ctx->uid,
		.gid = ctx->gid,
		.umask = ctx->umask,
		.kill_priv_exempt = ctx->uid == 0,
		.request_id = wire_now.unique,
		.receipt = kept_now,
		.has_group = req_has_group,
		.group_arg = req,
	};
}

void ops_stat(const struct inode_attr *attr, struct stat *st)
{
	*st = (struct stat){
		.st_ino = attr->ino,
		.st_mode = attr->mode,
		.st_nlink = attr->nlink,
		.st_uid = attr->uid,
		.st_gid = attr->gid,
		.st_rdev = makedev(RDEV_MAJOR(attr->rdev), RDEV_MINOR(attr->rdev)),
		.st_size = (off_t)attr->size,
		.st_blksize = BLOCK_SIZE,
		.st_blocks = (blkcnt_t)(attr->blocks * BLOCK_SECTORS),
		.st_atim = { attr->atime.s, attr->atime.ns },
		.st_mtim = { attr->mtime.s, attr->mtime.ns },
		.st_ctim = { attr->ctime.s, attr->ctime.ns },
	};
}

double ops_attr_timeout(const struct session *session, uint64_t ino)
{
	return direct_is_stored(session, ino) ? 0 : OPS_TIMEOUT_S;
}

void ops_entry(const struct session *session, const struct inode_attr *attr, struct fuse_entry_param *entry)
{
	*entry = (struct fuse_entry_param){
		.ino = attr->ino,
		.generation = attr->gen,
		.attr_timeout = ops_attr_timeout(session, attr->ino),
		.entry_timeout = OPS_TIMEOUT_S,
	};
	ops_stat(attr, &entry->attr);
}

void ops_reply(fuse_req_t req, int rc)
{
	fuse_reply_err(req, -rc);
}

void ops_reply_entry(fuse_req_t req, const struct inode_attr *attr)
{
	const struct session *session = req_session(req);
	struct fuse_entry_param entry;

	ops_entry(session, attr, &entry);
	if (fuse_reply_entry(req, &entry) < 0)
		fs_forget(session->fs, attr->ino, 1);
}

/* '.' and '..' by number: how the kernel finds an inode of an NFS handle again. */
struct dots {
	unsigned seen;
	uint64_t parent;
};

static int dots_fill(void *arg, const struct fs_dirent *entry)
{
	struct dots *dots = arg;

	if (dots->seen++ == 0)
		return 0;
	dots->parent = entry->ino;
	return 1;
}

static int lookup_dots(struct fs *fs, uint64_t ino, bool parent, struct inode_attr *attr)
{
	struct dots dots = { .seen = 0 };
	int rc;

	if (parent) {
		rc = fs_readdir(fs, ino, 0, false, dots_fill, &dots);
		if (rc < 0)
			return rc;
		ino = dots.parent;
	}
	rc = fs_ref(fs, ino, 0, attr);
	/* Without a name it is only there for those who have it open, and they do not ask like this. */
	if (rc == 0 && attr->nlink == 0) {
		fs_forget(fs, ino, 1);
		rc = -ESTALE;
	}
	return rc;
}

void ops_lookup(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	struct fs *fs = req_session(req)->fs;
	struct inode_attr attr;
	size_t len = strlen(name);
	int rc;

	again_lookup(fs);
	if (len <= 2 && name[0] == '.' && (len == 1 || name[1] == '.'))
		rc = lookup_dots(fs, dir, len == 2, &attr);
	else
		rc = fs_lookup(fs, dir, name, len, &attr);
	if (rc == 0) {
		again_looked_up(attr.ino);
		ops_reply_entry(req, &attr);
	} else if (rc == -ENOENT) { /* cached too */
		struct fuse_entry_param none = { .entry_timeout = OPS_TIMEOUT_S };

		fuse_reply_entry(req, &none);
	} else {
		ops_reply(req, rc);
	}
}

void ops_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	fs_forget(req_session(req)->fs, ino, count);
	fuse_reply_none(req);
}

void ops_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	struct fs *fs = req_session(req)->fs;

	for (size_t i = 0; i < count; i++)
		fs_forget(fs, forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

static void reply_attr(fuse_req_t req, const struct inode_attr *attr)
{
	struct stat st;

	ops_stat(attr, &st);
	fuse_reply_attr(req, &st, ops_attr_timeout(req_session(req), attr->ino));
}

void ops_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	const struct session *session = req_session(req);
	struct inode_attr attr;
	int rc;

	(void)fi;
	direct_look(session, ino);
	rc = fs_getattr(session->fs, ino, &attr);
	if (rc)
		ops_reply(req, rc);
	else
		reply_attr(req, &attr);
}

static struct inode_time time_of(const struct timespec *t, bool now)
{
	struct timespec ts = *t;

	if (now)
		clock_gettime(CLOCK_REALTIME, &ts);
	return (struct inode_time){ .s = ts.tv_sec, .ns = (uint32_t)ts.tv_nsec };
}

static void setattr_decode(struct fs_set *set, const struct stat *st, int to_set)
{
	*set = (struct fs_set){ .what = 0 };
	if (to_set & FUSE_SET_ATTR_MODE) {
		set->what |= FS_SET_MODE;
		set->mode = st->st_mode & 07777;
	}
	if (to_set & FUSE_SET_ATTR_UID) {
		set->what |= FS_SET_UID;
		set->uid = st->st_uid;
	}
	if (to_set & FUSE_SET_ATTR_GID) {
		set->what |= FS_SET_GID;
		set->gid = st->st_gid;
	}
	if (to_set & FUSE_SET_ATTR_SIZE) {
		set->what |= FS_SET_SIZE;
		set->size = (uint64_t)st->st_size;
	}
	if (to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW)) {
		set->what |= FS_SET_ATIME;
		set->atime = time_of(&st->st_atim, to_set & FUSE_SET_ATTR_ATIME_NOW);
	}
	if (to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW)) {
		set->what |= FS_SET_MTIME;
		set->mtime = time_of(&st->st_mtim, to_set & FUSE_SET_ATTR_MTIME_NOW);
	}
	if (to_set & FUSE_SET_ATTR_CTIME) {
		set->what |= FS_SET_CTIME;
		set->ctime = time_of(&st->st_ctim, false);
	}
}

static void setattr(fuse_req_t req, const struct fs_cred *cred, uint64_t ino, const struct fs_set *set)
{
	struct fs *fs = req_session(req)->fs;
	struct inode_attr attr;
	struct stat st;
	bool is_done;
	int rc;

	/* What was stored directly before has moved times and taken bits of the mode before. */
	direct_look(req_session(req), ino);
	is_done = again_is_done(&rc);
	if (is_done)
		rc = fs_getattr(fs, ino, &attr);
	else
		rc = fs_setattr(fs, cred, ino, set, &attr);
	if (rc) {
		ops_reply(req, rc);
	} else if (is_done && set->what & FS_SET_SIZE) {
		/* A file that has been cut off may have become longer since; the kernel cuts its pages off where it was asked to, and asks again. */
		ops_stat(&attr, &st);
		if (!sabotage_point("setattr-size"))
			st.st_size = (off_t)set->size;
		fuse_reply_attr(req, &st, sabotage_point("setattr-timeout") ? OPS_TIMEOUT_S : 0);
	} else {
		reply_attr(req, &attr);
	}
}

/* A change that has to wait for the kernel. */
struct setattr_work {
	struct defer_work work;
	fuse_req_t req;
	struct fs_cred cred;
	uint64_t ino;
	struct fs_set set;
};

static void setattr_deferred(struct defer_work *work)
{
	struct setattr_work *w = container_of(work, struct setattr_work, work);

	(void)session_drop(req_session(w->req), w->ino, 0, 0);
	setattr(w->req, &w->cred, w->ino, &w->set);
	free(w);
}

/*
 * What is stored through a mapping moves the modification time when the kernel writes the pages. A time that is set must stay, so what was
 * stored before is written before. (Not with a size: the kernel holds pages back while it changes.)
 */
static bool setattr_defer(fuse_req_t req, const struct fs_cred *cred, uint64_t ino, const struct fs_set *set)
{
	struct session *session = req_session(req);
	struct setattr_work *w = NULL;

	if ((set->what & (FS_SET_MTIME | FS_SET_SIZE)) == FS_SET_MTIME && fs_is_mappable(session->fs, ino))
		w = malloc(sizeof(*w));
	if (!w)
		return false;
	*w = (struct setattr_work){ { .fn = setattr_deferred }, req, *cred, ino, *set };
	if (defer_add(session->defer, &w->work))
		return true;
	free(w);
	return false;
}

void ops_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi)
{
	struct session *session = req_session(req);
	struct fs_cred cred = ops_cred(req);
	struct fs_set set;
	bool kill;

	setattr_decode(&set, st, to_set);
	/* O_TRUNC comes without a file and cannot be told from truncate(2) to nothing. */
	if (set.what & FS_SET_SIZE && (fi || set.size == 0))
		set.what |= FS_SET_TOUCH;
	if (wire_kill_flags(&session->wire))
		kill = wire_now.kill_suidgid;
	else
		kill = (set.what & (FS_SET_UID | FS_SET_GID)) || ((set.what & FS_SET_SIZE) && cred.uid != 0);
	if (to_set == 0) /* chown(2) with neither owner nor group, which clears all the same */
		set.what |= FS_SET_NOTHING | FS_SET_KILLPRIV;
	if (kill)
		set.what |= FS_SET_KILLPRIV;
	if (!setattr_defer(req, &cred, ino, &set))
		setattr(req, &cred, ino, &set);
}

void ops_readlink(fuse_req_t req, fuse_ino_t ino)
{
	int rc = fs_readlink(req_session(req)->fs, ino, worker_now->buf);

	if (rc < 0)
		ops_reply(req, rc);
	else
		fuse_reply_readlink(req, worker_now->buf);
}

void ops_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct fs_statfs fst;
	struct statvfs st;
	int rc = fs_statfs(req_session(req)->fs, &fst);

	(void)ino;
	if (rc) {
		ops_reply(req, rc);
		return;
	}
	st = (struct statvfs){
		.f_bsize = BLOCK_SIZE,
		.f_frsize = BLOCK_SIZE,
		.f_blocks = fst.total_blk,
		.f_bfree = fst.free_blk,
		.f_bavail = fst.free_blk,
		.f_files = fst.total_inodes,
		.f_ffree = fst.free_inodes,
		.f_favail = fst.free_inodes,
		.f_namemax = FS_NAME_MAX,
	};
	fuse_reply_statfs(req, &st);
}
