/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests about names: making, linking, renaming, removing, listing.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "fuse/again.h"
#include "fuse/ops.h"

static void make_node(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode, uint32_t rdev)
{
	struct fs_cred cred = ops_cred(req);
	struct fs *fs = req_session(req)->fs;
	struct inode_attr attr;
	int rc;

	if (!again_is_made(fs, &attr, &rc))
		rc = fs_mknod(fs, &cred, dir, name, strlen(name), mode, rdev, &attr);
	if (rc)
		ops_reply(req, rc);
	else
		ops_reply_entry(req, &attr);
}

void ops_mknod(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode, dev_t rdev)
{
	if ((mode & S_IFMT) == 0)
		mode |= S_IFREG;
	make_node(req, dir, name, mode, (uint32_t)(major(rdev) << 20 | minor(rdev)));
}

void ops_mkdir(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode)
{
	make_node(req, dir, name, (mode & ~(mode_t)S_IFMT) | S_IFDIR, 0);
}

void ops_symlink(fuse_req_t req, const char *target, fuse_ino_t dir, const char *name)
{
	struct fs_cred cred = ops_cred(req);
	struct fs *fs = req_session(req)->fs;
	struct inode_attr attr;
	int rc;

	if (!again_is_made(fs, &attr, &rc))
		rc = fs_symlink(fs, &cred, dir, name, strlen(name), target, strlen(target), &attr);
	if (rc)
		ops_reply(req, rc);
	else
		ops_reply_entry(req, &attr);
}

void ops_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t dir, const char *name)
{
	struct fs *fs = req_session(req)->fs;
	struct inode_attr attr;
	int rc;

	if (!again_is_made(fs, &attr, &rc))
		rc = fs_link(fs, ino, dir, name, strlen(name), &attr);
	if (rc)
		ops_reply(req, rc);
	else
		ops_reply_entry(req, &attr);
}

void ops_unlink(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	int rc;

	if (!again_is_done(&rc))
		rc = fs_unlink(req_session(req)->fs, dir, name, strlen(name));
	ops_reply(req, rc);
}

void ops_rmdir(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	int rc;

	if (!again_is_done(&rc))
		rc = fs_rmdir(req_session(req)->fs, dir, name, strlen(name));
	ops_reply(req, rc);
}

void ops_rename(fuse_req_t req, fuse_ino_t dir, const char *name, fuse_ino_t new_dir, const char *new_name,
		unsigned flags)
{
	struct fs_cred cred = ops_cred(req);
	int rc;

	if (!again_is_done(&rc))
		rc = fs_rename(req_session(req)->fs, &cred, dir, name, strlen(name), new_dir, new_name,
			       strlen(new_name), flags);
	ops_reply(req, rc);
}

void ops_opendir(fuse_req_t req, fuse_ino_t dir, struct fuse_file_info *fi)
{
	(void)dir;
	fi->fh = OPS_FH_DIR | OPS_FH_READ;
	fuse_reply_open(req, fi);
}

/* A READDIR or READDIRPLUS reply in the making. */
struct listing {
	fuse_req_t req;
	char *buf;
	size_t size, used; /* bytes */
	uint64_t *refs;    /* given away so far; NULL: plain READDIR */
	size_t refs_count;
};

static bool name_is_dots(const struct fs_dirent *entry)
{
	return entry->name[0] == '.' &&
	       (entry->name_len == 1 || (entry->name_len == 2 && entry->name[1] == '.'));
}

static int listing_fill(void *arg, const struct fs_dirent *entry)
{
	struct listing *l = arg;
	struct fuse_entry_param param = { .ino = 0 };
	char name[FS_NAME_MAX + 1];
	size_t need;
	bool ref = l->refs && entry->attr && !name_is_dots(entry);

	memcpy(name, entry->name, entry->name_len);
	name[entry->name_len] = '\0';
	/* An entry without attributes in READDIRPLUS has node id 0: the kernel looks it up when it needs to. */
	if (ref) {
		ops_entry(req_session(l->req), entry->attr, &param);
	} else {
		param.attr.st_ino = entry->ino;
		param.attr.st_mode = (mode_t)entry->type << 12;
	}
	if (l->refs)
		need = fuse_add_direntry_plus(l->req, l->buf + l->used, l->size - l->used, name, &param,
					      (off_t)entry->cookie);
	else
		need = fuse_add_direntry(l->req, l->buf + l->used, l->size - l->used, name, &param.attr,
					 (off_t)entry->cookie);
	if (need > l->size - l->used)
		return 1;
	l->used += need;
	if (ref)
		l->refs[l->refs_count++] = entry->ino;
	return 0;
}

static void list(fuse_req_t req, fuse_ino_t dir, size_t size, off_t off, bool plus)
{
	struct fs *fs = req_session(req)->fs;
	struct listing l = {
		.req = req,
		.buf = worker_now->buf,
		.size = u64_min(size, OPS_WRITE_MAX),
		.refs = plus ? worker_now->refs : NULL,
	};
	int rc = fs_readdir(fs, dir, (uint64_t)off, plus, listing_fill, &l);

	/* An error after some entries comes again with the next call. */
	if (rc < 0 && l.used == 0)
		ops_reply(req, rc);
	else if (fuse_reply_buf(req, l.buf, l.used) < 0)
		for (size_t i = 0; i < l.refs_count; i++)
			fs_forget(fs, l.refs[i], 1);
}

void ops_readdir(fuse_req_t req, fuse_ino_t dir, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	list(req, dir, size, off, false);
}

void ops_readdirplus(fuse_req_t req, fuse_ino_t dir, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	list(req, dir, size, off, true);
}
