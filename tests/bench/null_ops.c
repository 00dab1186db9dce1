/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * FUSE requests answered from the in-memory store. A node id is the address of its node.
 *
 * Attributes and entries are valid for a day, absent names too: the kernel asks once.
 */
#define _GNU_SOURCE
#include "null_fuse.h"

#include "null_store.h"

#include <errno.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_S 86400.0

static struct node *node_of(fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? &store_root : (struct node *)(uintptr_t)ino;
}

static fuse_ino_t ino_of(const struct node *node)
{
	return node == &store_root ? FUSE_ROOT_ID : (fuse_ino_t)(uintptr_t)node;
}

/* store_lock held. */
static void entry_fill(struct fuse_entry_param *e, struct node *node)
{
	memset(e, 0, sizeof(*e));
	e->ino = ino_of(node);
	e->generation = node->st.st_ino;
	pthread_rwlock_rdlock(&node->lock);
	e->attr = node->st;
	pthread_rwlock_unlock(&node->lock);
	e->attr_timeout = TIMEOUT_S;
	e->entry_timeout = TIMEOUT_S;
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	const struct null_opts *opts = userdata;

	conn->want |= conn->capable & FUSE_CAP_PARALLEL_DIROPS;
	conn->want &= ~(unsigned int)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
	if (opts->writeback)
		conn->want |= conn->capable & FUSE_CAP_WRITEBACK_CACHE;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e;
	struct dentry *de;

	memset(&e, 0, sizeof(e));
	e.entry_timeout = TIMEOUT_S;
	pthread_mutex_lock(&store_lock);
	de = name_find(node_of(parent), name);
	if (de) {
		de->node->lookups_count++;
		entry_fill(&e, de->node);
	}
	pthread_mutex_unlock(&store_lock);
	fuse_reply_entry(req, &e);
}

static void forget(fuse_ino_t ino, uint64_t count)
{
	struct node *node = node_of(ino);

	node->lookups_count -= count;
	node_put(node);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	pthread_mutex_lock(&store_lock);
	forget(ino, count);
	pthread_mutex_unlock(&store_lock);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *all)
{
	pthread_mutex_lock(&store_lock);
	for (size_t i = 0; i < count; i++)
		forget(all[i].ino, all[i].nlookup);
	pthread_mutex_unlock(&store_lock);
	fuse_reply_none(req);
}

static void reply_attr(fuse_req_t req, struct node *node)
{
	struct fuse_entry_param e;

	pthread_mutex_lock(&store_lock);
	entry_fill(&e, node);
	pthread_mutex_unlock(&store_lock);
	fuse_reply_attr(req, &e.attr, TIMEOUT_S);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)fi;
	reply_attr(req, node_of(ino));
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int set, struct fuse_file_info *fi)
{
	struct node *node = node_of(ino);
	struct stat *st = &node->st;
	int rc = 0;

	(void)fi;
	pthread_rwlock_wrlock(&node->lock);
	if (set & FUSE_SET_ATTR_SIZE)
		rc = data_resize(node, (uint64_t)attr->st_size);
	if (rc == 0) {
		if (set & FUSE_SET_ATTR_MODE)
			st->st_mode = (st->st_mode & S_IFMT) | (attr->st_mode & 07777);
		if (set & FUSE_SET_ATTR_UID)
			st->st_uid = attr->st_uid;
		if (set & FUSE_SET_ATTR_GID)
			st->st_gid = attr->st_gid;
		if (set & FUSE_SET_ATTR_SIZE)
			node_touch(node, NODE_MTIME);
		if (set & FUSE_SET_ATTR_ATIME)
			st->st_atim = attr->st_atim;
		if (set & FUSE_SET_ATTR_MTIME)
			st->st_mtim = attr->st_mtim;
		if (set & (FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW))
			node_touch(node, (set & FUSE_SET_ATTR_ATIME_NOW ? NODE_ATIME : 0) |
						 (set & FUSE_SET_ATTR_MTIME_NOW ? NODE_MTIME : 0));
		node_touch(node, NODE_CTIME);
	}
	pthread_rwlock_unlock(&node->lock);
	if (rc)
		fuse_reply_err(req, -rc);
	else
		reply_attr(req, node);
}

/* Adds a new node under a name that is free; store_lock held. */
static int node_make(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev,
		     const char *link, struct fuse_entry_param *e)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct node *dir = node_of(parent);
	struct node *node;
	int rc;

	if (name_find(dir, name))
		return -EEXIST;
	node = node_new(mode, ctx->uid, ctx->gid, rdev);
	if (!node)
		return -ENOMEM;
	rc = name_add(dir, name, node);
	if (rc == 0 && link) {
		node->link = strdup(link);
		node->st.st_size = (off_t)strlen(link);
	}
	if (rc) {
		node_put(node);
		return rc;
	}
	node->lookups_count = 1;
	entry_fill(e, node);
	pthread_rwlock_wrlock(&dir->lock);
	node_touch(dir, NODE_MTIME | NODE_CTIME);
	pthread_rwlock_unlock(&dir->lock);
	return 0;
}

static void make(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev,
		 const char *link)
{
	struct fuse_entry_param e;
	int rc;

	pthread_mutex_lock(&store_lock);
	rc = node_make(req, parent, name, mode, rdev, link, &e);
	pthread_mutex_unlock(&store_lock);
	if (rc)
		fuse_reply_err(req, -rc);
	else
		fuse_reply_entry(req, &e);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	make(req, parent, name, mode, rdev, NULL);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	make(req, parent, name, S_IFDIR | (mode & 07777), 0, NULL);
}

static void op_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
	make(req, parent, name, S_IFLNK | 0777, 0, link);
}

static void open_flags(fuse_req_t req, struct fuse_file_info *fi)
{
	const struct null_opts *opts = fuse_req_userdata(req);

	fi->direct_io = opts->dio != 0;
	fi->keep_cache = !opts->dio;
	fi->noflush = opts->noflush != 0;
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		      struct fuse_file_info *fi)
{
	struct fuse_entry_param e;
	int rc;

	pthread_mutex_lock(&store_lock);
	rc = node_make(req, parent, name, S_IFREG | (mode & 07777), 0, NULL, &e);
	pthread_mutex_unlock(&store_lock);
	if (rc) {
		fuse_reply_err(req, -rc);
		return;
	}
	open_flags(req, fi);
	fuse_reply_create(req, &e, fi);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	open_flags(req, fi);
	fuse_reply_open(req, fi);
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fuse_reply_open(req, fi);
}

static void op_close(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	fuse_reply_err(req, 0);
}

/* Everything written is already as durable as it will ever be. */
static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)ino;
	(void)datasync;
	(void)fi;
	fuse_reply_err(req, 0);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e;
	struct node *node = node_of(ino);
	int rc = -EEXIST;

	pthread_mutex_lock(&store_lock);
	if (!name_find(node_of(parent), name))
		rc = name_add(node_of(parent), name, node);
	if (rc == 0) {
		node->lookups_count++;
		entry_fill(&e, node);
	}
	pthread_mutex_unlock(&store_lock);
	if (rc)
		fuse_reply_err(req, -rc);
	else
		fuse_reply_entry(req, &e);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	fuse_reply_readlink(req, node_of(ino)->link);
}

static int name_remove(fuse_ino_t parent, const char *name, bool is_dir)
{
	struct node *dir = node_of(parent);
	struct dentry *de = name_find(dir, name);
	struct node *node;

	if (!de)
		return -ENOENT;
	node = de->node;
	if (is_dir && !node->dir)
		return -ENOTDIR;
	if (!is_dir && node->dir)
		return -EISDIR;
	if (is_dir && node->dir->used_count)
		return -ENOTEMPTY;
	name_del(de);
	pthread_rwlock_wrlock(&dir->lock);
	node_touch(dir, NODE_MTIME | NODE_CTIME);
	pthread_rwlock_unlock(&dir->lock);
	node_put(node);
	return 0;
}

static void remove_reply(fuse_req_t req, fuse_ino_t parent, const char *name, bool is_dir)
{
	int rc;

	pthread_mutex_lock(&store_lock);
	rc = name_remove(parent, name, is_dir);
	pthread_mutex_unlock(&store_lock);
	fuse_reply_err(req, -rc);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_reply(req, parent, name, false);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_reply(req, parent, name, true);
}

static int name_move(fuse_ino_t from, const char *name, fuse_ino_t to, const char *newname,
		     unsigned int flags)
{
	struct dentry *src = name_find(node_of(from), name);
	struct dentry *dst = name_find(node_of(to), newname);
	struct node *node;
	int rc;

	if (!src || (!dst && (flags & RENAME_EXCHANGE)))
		return -ENOENT;
	if (dst && (flags & RENAME_NOREPLACE))
		return -EEXIST;
	if (dst == src || (dst && dst->node == src->node))
		return 0;
	node = src->node;
	if (flags & RENAME_EXCHANGE) {
		struct node *other = dst->node;

		name_set(dst, node);
		name_set(src, other);
		return 0;
	}
	if (dst) {
		rc = name_remove(to, newname, node->dir != NULL);
		if (rc)
			return rc;
	}
	rc = name_add(node_of(to), newname, node);
	if (rc == 0)
		name_del(src);
	node->parent = node_of(to);
	return rc;
}

static void op_rename(fuse_req_t req, fuse_ino_t from, const char *name, fuse_ino_t to, const char *newname,
		      unsigned int flags)
{
	int rc;

	pthread_mutex_lock(&store_lock);
	rc = name_move(from, name, to, newname, flags);
	pthread_mutex_unlock(&store_lock);
	fuse_reply_err(req, -rc);
}

static size_t dirent_put(fuse_req_t req, char *buf, size_t size, const char *name, struct node *node,
			 off_t cookie, bool plus)
{
	struct fuse_entry_param e;
	size_t used;
	bool is_dot = name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));

	entry_fill(&e, node);
	if (!plus)
		return fuse_add_direntry(req, buf, size, name, &e.attr, cookie);
	used = fuse_add_direntry_plus(req, buf, size, name, &e, cookie);
	if (used <= size && !is_dot)
		node->lookups_count++;
	return used;
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus)
{
	struct node *dir = node_of(ino);
	struct dentry *de;
	size_t used = 0;
	size_t n = 0;
	char *buf = malloc(size);

	if (!buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	pthread_mutex_lock(&store_lock);
	for (; off < 2; off++, used += n) {
		n = dirent_put(req, buf + used, size - used, off ? ".." : ".", off ? dir->parent : dir,
			       off + 1, plus);
		if (n > size - used)
			goto out;
	}
	for (uint32_t i = (uint32_t)off - 2; (de = dir_next(dir, &i)) != NULL; i++, used += n) {
		n = dirent_put(req, buf + used, size - used, de->name, de->node, (off_t)i + 3, plus);
		if (n > size - used)
			break;
	}
out:
	pthread_mutex_unlock(&store_lock);
	fuse_reply_buf(req, buf, used);
	free(buf);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, off, false);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, off, true);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs st = {
		.f_bsize = 4096,
		.f_frsize = 4096,
		.f_blocks = 1u << 28,
		.f_bfree = 1u << 28,
		.f_bavail = 1u << 28,
		.f_ffree = 1u << 30,
		.f_favail = 1u << 30,
		.f_namemax = NULL_NAME_MAX,
	};

	(void)ino;
	st.f_files = st.f_ffree + store_nodes_count;
	fuse_reply_statfs(req, &st);
}

const struct fuse_lowlevel_ops null_ops = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.symlink = op_symlink,
	.create = op_create,
	.open = op_open,
	.opendir = op_opendir,
	.flush = op_close,
	.release = op_close,
	.releasedir = op_close,
	.fsync = op_fsync,
	.fsyncdir = op_fsync,
	.link = op_link,
	.readlink = op_readlink,
	.unlink = op_unlink,
	.rmdir = op_rmdir,
	.rename = op_rename,
	.readdir = op_readdir,
	.readdirplus = op_readdirplus,
	.statfs = op_statfs,
	.read = op_read,
	.write = op_write,
	.fallocate = op_fallocate,
	.copy_file_range = op_copy_file_range,
	.setxattr = op_setxattr,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
	.removexattr = op_removexattr,
};
