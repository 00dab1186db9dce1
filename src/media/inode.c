/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inode: decode, encode, check.
 */
#include "media/inode.h"

#include <sys/stat.h>

#include "media/node.h"

void inode_attr_decode(struct inode_attr *a, const struct m_inode *m)
{
	*a = (struct inode_attr){
		.ino = le64_get(m->di_hdr.uh_owner),
		.gen = le64_get(m->di_gen),
		.mode = le32_get(m->di_mode),
		.nlink = le32_get(m->di_nlink),
		.uid = le32_get(m->di_uid),
		.gid = le32_get(m->di_gid),
		.size = le64_get(m->di_size),
		.blocks = le64_get(m->di_blocks),
		.atime = { (int64_t)le64_get(m->di_atime_s), le32_get(m->di_atime_ns) },
		.mtime = { (int64_t)le64_get(m->di_mtime_s), le32_get(m->di_mtime_ns) },
		.ctime = { (int64_t)le64_get(m->di_ctime_s), le32_get(m->di_ctime_ns) },
		.btime = { (int64_t)le64_get(m->di_btime_s), le32_get(m->di_btime_ns) },
		.rdev = le32_get(m->di_rdev),
		.flags = le32_get(m->di_flags),
		.projid = le32_get(m->di_projid),
		.data_format = (enum inode_data)m->di_data_format,
		.change = le64_get(m->di_change),
	};
}

void inode_attr_encode(struct m_inode *m, const struct inode_attr *a)
{
	m->di_gen = le64_of(a->gen);
	m->di_mode = le32_of(a->mode);
	m->di_nlink = le32_of(a->nlink);
	m->di_uid = le32_of(a->uid);
	m->di_gid = le32_of(a->gid);
	m->di_size = le64_of(a->size);
	m->di_blocks = le64_of(a->blocks);
	m->di_atime_s = le64_of((uint64_t)a->atime.s);
	m->di_mtime_s = le64_of((uint64_t)a->mtime.s);
	m->di_ctime_s = le64_of((uint64_t)a->ctime.s);
	m->di_btime_s = le64_of((uint64_t)a->btime.s);
	m->di_atime_ns = le32_of(a->atime.ns);
	m->di_mtime_ns = le32_of(a->mtime.ns);
	m->di_ctime_ns = le32_of(a->ctime.ns);
	m->di_btime_ns = le32_of(a->btime.ns);
	m->di_rdev = le32_of(a->rdev);
	m->di_flags = le32_of(a->flags);
	m->di_projid = le32_of(a->projid);
	m->di_data_format = (uint8_t)a->data_format;
	m->di_change = le64_of(a->change);
}

static bool format_fits_type(const struct inode_attr *a)
{
	switch (a->mode & S_IFMT) {
	case S_IFDIR:
		return a->data_format == DATA_DIR;
	case S_IFREG:
	case S_IFLNK:
		return a->data_format != DATA_DIR;
	case S_IFIFO:
	case S_IFSOCK:
	case S_IFCHR:
	case S_IFBLK:
		return a->data_format == DATA_NONE;
	default:
		return false;
	}
}

const char *inode_attr_check(const struct inode_attr *a)
{
	const uint32_t billion = 1000000000;

	if (a->data_format >= INODE_DATA_FORMATS)
		return "inode: unknown data format";
	if (!format_fits_type(a))
		return "inode: data format does not fit the file type";
	if (a->data_format == DATA_INLINE && a->size > INODE_INLINE_MAX)
		return "inode: too large to be inline";
	if (a->size >> 63)
		return "inode: size out of range";
	if (a->atime.ns >= billion || a->mtime.ns >= billion || a->ctime.ns >= billion ||
	    a->btime.ns >= billion)
		return "inode: nanoseconds out of range";
	if (a->flags & ~INODE_FLAGS_KNOWN)
		return "inode: unknown flags";
	return NULL;
}

static const char *root_check(const void *body, size_t size_bytes, enum node_kind kind)
{
	const struct m_node_body *b = body;

	if (b->nb_kind != 0 && b->nb_kind != kind)
		return "inode: wrong kind of tree";
	return node_body_check(body, size_bytes);
}

const char *inode_check(const struct m_inode *m)
{
	struct inode_attr a;
	const char *why;

	inode_attr_decode(&a, m);
	if (a.ino != le64_get(m->di_hdr.uh_laddr) >> INODE_SHIFT)
		return "inode: number does not fit its address";
	why = inode_attr_check(&a);
	if (!why && a.data_format == DATA_EXTENTS)
		why = root_check(m->di_data, INODE_DATA_SIZE, NODE_EXTENT);
	if (!why && a.data_format == DATA_DIR)
		why = root_check(m->di_data, INODE_DATA_SIZE, NODE_DIR);
	if (!why)
		why = root_check(m->di_attr, INODE_ATTR_SIZE, NODE_ATTR);
	return why;
}
