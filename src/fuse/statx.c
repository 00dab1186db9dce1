/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * STATX: attributes with the time of birth. Older libfuse does not know it, so the answer is written here.
 */
#include <linux/fuse.h>
#include <linux/stat.h>

#include "fuse/ops.h"

static struct wire_sx_time sx_time(struct inode_time t)
{
	return (struct wire_sx_time){ .s = t.s, .ns = t.ns };
}

static void statx_fill(const struct session *session, struct wire_statx_out *out,
		       const struct inode_attr *attr)
{
	*out = (struct wire_statx_out){
		.attr_valid_s = (uint64_t)ops_attr_timeout(session, attr->ino),
		.mask = STATX_BASIC_STATS | STATX_BTIME,
		.blksize = BLOCK_SIZE,
		.nlink = attr->nlink,
		.uid = attr->uid,
		.gid = attr->gid,
		.mode = (uint16_t)attr->mode,
		.ino = attr->ino,
		.size = attr->size,
		.blocks = attr->blocks * (BLOCK_SIZE / 512),
		.attributes_mask = STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND | STATX_ATTR_NODUMP,
		.atime = sx_time(attr->atime),
		.btime = sx_time(attr->btime),
		.ctime = sx_time(attr->ctime),
		.mtime = sx_time(attr->mtime),
		.rdev_major = attr->rdev >> 20,
		.rdev_minor = attr->rdev & 0xfffffu,
	};
	if (attr->flags & INODE_IMMUTABLE)
		out->attributes |= STATX_ATTR_IMMUTABLE;
	if (attr->flags & INODE_APPEND)
		out->attributes |= STATX_ATTR_APPEND;
	if (attr->flags & INODE_NODUMP)
		out->attributes |= STATX_ATTR_NODUMP;
}

void ops_statx(struct session *session, const void *request)
{
	const struct fuse_in_header *in = request;
	struct fuse_out_header out = { .unique = in->unique, .len = sizeof(out) };
	struct wire_statx_out body;
	struct iovec iov[2] = { { &out, sizeof(out) }, { &body, sizeof(body) } };
	struct inode_attr attr;
	int rc;

	direct_look(session, in->nodeid);
	rc = fs_getattr(session->fs, in->nodeid, &attr);
	if (rc) {
		out.error = rc;
	} else {
		statx_fill(session, &body, &attr);
		out.len += (uint32_t)sizeof(body);
	}
	rc = session_send(session, iov, rc ? 1 : 2);
	(void)rc; /* the kernel no longer wants it */
}
