/* SPDX-License-Identifier: BSD-3-Clause */
/* FUSE requests on file data and extended attributes, answered from the in-memory store. */
#define _GNU_SOURCE
#include "null_fuse.h"

#include "null_store.h"

#include <errno.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>

static struct node *file_of(fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? &store_root : (struct node *)(uintptr_t)ino;
}

void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct node *node = file_of(ino);
	const char *bytes;

	(void)fi;
	pthread_rwlock_rdlock(&node->lock);
	bytes = data_read(node, (uint64_t)off, &size);
	fuse_reply_buf(req, bytes, size);
	pthread_rwlock_unlock(&node->lock);
}

void op_write(fuse_req_t req, fuse_ino_t ino, const char *src, size_t size, off_t off,
	      struct fuse_file_info *fi)
{
	struct node *node = file_of(ino);
	int rc;

	(void)fi;
	pthread_rwlock_wrlock(&node->lock);
	rc = data_write(node, src, size, (uint64_t)off);
	if (rc == 0)
		node_touch(node, NODE_MTIME | NODE_CTIME);
	pthread_rwlock_unlock(&node->lock);
	if (rc)
		fuse_reply_err(req, -rc);
	else
		fuse_reply_write(req, size);
}

void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	struct node *node = file_of(ino);
	int rc = 0;

	(void)fi;
	pthread_rwlock_wrlock(&node->lock);
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		rc = data_punch(node, (uint64_t)off, (uint64_t)len);
	if (rc == 0 && !(mode & FALLOC_FL_KEEP_SIZE) && off + len > node->st.st_size)
		rc = data_resize(node, (uint64_t)(off + len));
	if (rc == 0)
		node_touch(node, NODE_MTIME | NODE_CTIME);
	pthread_rwlock_unlock(&node->lock);
	fuse_reply_err(req, -rc);
}

void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in,
			fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t len,
			int flags)
{
	struct node *src = file_of(ino_in);
	struct node *dst = file_of(ino_out);
	struct node *first = src < dst ? src : dst;
	struct node *second = src < dst ? dst : src;
	int rc = 0;

	(void)fi_in;
	(void)fi_out;
	(void)flags;
	pthread_rwlock_wrlock(&first->lock);
	if (second != first)
		pthread_rwlock_wrlock(&second->lock);
	data_read(src, (uint64_t)off_in, &len);
	if (len) {
		rc = data_clone(dst, (uint64_t)off_out, src, (uint64_t)off_in, len);
		if (rc == 0)
			node_touch(dst, NODE_MTIME | NODE_CTIME);
	}
	if (second != first)
		pthread_rwlock_unlock(&second->lock);
	pthread_rwlock_unlock(&first->lock);
	if (rc)
		fuse_reply_err(req, -rc);
	else
		fuse_reply_write(req, len);
}

void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	struct node *node = file_of(ino);
	int rc;

	pthread_rwlock_wrlock(&node->lock);
	rc = xattr_put(node, name, value, size, flags);
	if (rc == 0)
		node_touch(node, NODE_CTIME);
	pthread_rwlock_unlock(&node->lock);
	fuse_reply_err(req, -rc);
}

void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct node *node = file_of(ino);
	const struct xattr *x;

	pthread_rwlock_rdlock(&node->lock);
	x = xattr_find(node, name);
	if (!x)
		fuse_reply_err(req, ENODATA);
	else if (size == 0)
		fuse_reply_xattr(req, x->size_bytes);
	else if (size < x->size_bytes)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, x->value, x->size_bytes);
	pthread_rwlock_unlock(&node->lock);
}

void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct node *node = file_of(ino);
	size_t need_bytes = 0;
	char *names = NULL;

	pthread_rwlock_rdlock(&node->lock);
	for (const struct xattr *x = node->xattrs; x; x = x->next)
		need_bytes += strlen(x->name) + 1;
	if (size >= need_bytes && need_bytes)
		names = malloc(need_bytes);
	if (names) {
		char *at = names;

		for (const struct xattr *x = node->xattrs; x; x = x->next)
			at = stpcpy(at, x->name) + 1;
	}
	pthread_rwlock_unlock(&node->lock);
	if (size == 0)
		fuse_reply_xattr(req, need_bytes);
	else if (size < need_bytes)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, names, need_bytes);
	free(names);
}

void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct node *node = file_of(ino);
	int rc;

	pthread_rwlock_wrlock(&node->lock);
	rc = xattr_del(node, name);
	pthread_rwlock_unlock(&node->lock);
	fuse_reply_err(req, -rc);
}
