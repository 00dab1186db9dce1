/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inode (FORMAT.md 7): 512 bytes at logical address number * 512.
 *
 * Two embedded roots: data (extents, directory entries, or up to 224 bytes of the file or symlink itself) and attr (extended
 * attributes and parents).
 */
#ifndef UMBRA_MEDIA_INODE_H
#define UMBRA_MEDIA_INODE_H

#include "media/unit.h"

#define INODE_ROOT 1ull
#define INODE_DATA_SIZE 224u
#define INODE_ATTR_SIZE 128u
#define INODE_INLINE_MAX INODE_DATA_SIZE

enum inode_data { DATA_NONE, DATA_INLINE, DATA_EXTENTS, DATA_DIR, INODE_DATA_FORMATS };

#define INODE_SHARED 0x1u /* took part in a clone: ask the refcount tree */
#define INODE_DAX 0x2u    /* FS_XFLAG_DAX */
#define INODE_IMMUTABLE 0x4u
#define INODE_APPEND 0x8u
#define INODE_NODUMP 0x10u
#define INODE_NOATIME 0x20u
#define INODE_SYNC 0x40u
#define INODE_LOST 0x80u       /* has loss records */
#define INODE_UNWRITTEN 0x100u /* has, or had, unwritten extents: the rmap does not say which */
#define INODE_FLAGS_KNOWN 0x1ffu

struct m_inode {
	struct m_unit_hdr di_hdr; /* uh_owner = its number */
	le32 di_mode;
	le32 di_nlink;
	le32 di_uid;
	le32 di_gid;
	le64 di_size;   /* bytes; directories: number of entries */
	le64 di_blocks; /* 4 KiB blocks of data, shared ones counted in full; tree nodes not counted */
	le64 di_atime_s, di_mtime_s, di_ctime_s, di_btime_s; /* signed seconds since 1970 */
	le32 di_atime_ns, di_mtime_ns, di_ctime_ns, di_btime_ns;
	le64 di_gen;
	le32 di_rdev; /* major << 20 | minor */
	le32 di_flags;
	le32 di_projid;
	uint8_t di_data_format;
	uint8_t di_pad[3];
	le64 di_change; /* counts changes (NFS change attribute) */
	uint8_t di_data[INODE_DATA_SIZE];
	uint8_t di_attr[INODE_ATTR_SIZE];
};
static_assert(sizeof(struct m_inode) == INODE_SIZE, "FORMAT.md 7");

struct inode_time {
	int64_t s;
	uint32_t ns;
};

struct inode_attr {
	uint64_t ino, gen;
	uint32_t mode, nlink, uid, gid;
	uint64_t size, blocks;
	struct inode_time atime, mtime, ctime, btime;
	uint32_t rdev, flags, projid;
	enum inode_data data_format;
	uint64_t change;
};

void inode_attr_decode(struct inode_attr *a, const struct m_inode *m);
/* Into a unit whose header is there; leaves both roots alone. */
void inode_attr_encode(struct m_inode *m, const struct inode_attr *a);
const char *inode_attr_check(const struct inode_attr *a);

/* The whole unit, its roots included. */
const char *inode_check(const struct m_inode *m);

#endif
