/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Extended attributes and ACLs inside a transaction. The inode's lock is held.
 */
#ifndef UMBRA_FS_XATTR_H
#define UMBRA_FS_XATTR_H

#include "fs/core.h"

#define XATTR_ACL_ACCESS "system.posix_acl_access"
#define XATTR_ACL_DEFAULT "system.posix_acl_default"
#define XATTR_CAPABILITY "security.capability"
#define XATTR_ON_POISON "user.umbra.on_poison"

/* ---- xattr.c ---- */

/* The value in the transaction's memory. -ENODATA. */
must_check int xattr_load(struct op *op, uint64_t ino, const char *name, void **value, size_t *size_bytes);
/* flags: XATTR_CREATE (-EEXIST), XATTR_REPLACE (-ENODATA). Neither ctime nor rules of the name. */
must_check int xattr_store(struct op *op, uint64_t ino, const char *name, const void *value,
			   size_t size_bytes, int flags);
must_check int xattr_drop(struct op *op, uint64_t ino, const char *name);
/* Copies all attributes to another inode, from key *next_key (0) on as far as the transaction has room; then *next_key says where to go on. */
must_check int xattr_copy(struct op *op, uint64_t from, uint64_t to, uint64_t *next_key, bool *done);
/* Removes attributes with values outside the tree, for an inode that is being freed, as far as the transaction has room. */
must_check int xattr_free_large(struct op *op, uint64_t ino, bool *done);

/* ---- acl.c: blobs are POSIX ACLs as in the xattr system.posix_acl_access, version 2 ---- */

/* 0, or -EINVAL. */
must_check int acl_check(const void *blob, size_t size_bytes);
/* The permission bits that a sound ACL stands for; false: it says more than they can. */
bool acl_to_mode(const void *blob, size_t size_bytes, uint32_t *mode);
/* A new mode goes into the inode's access ACL, if it has one. */
must_check int acl_chmod(struct op *op, const struct inode_attr *attr);
/* The mode and ACLs of a new inode from its directory: default ACL, or umask. */
must_check int acl_inherit(struct op *op, const struct inode_attr *dir, struct inode_attr *attr,
			   struct new_acl *acl);
/* setxattr and removexattr (blob NULL) of an ACL: the access ACL also changes attr->mode. */
must_check int acl_set(struct op *op, struct inode_attr *attr, const char *name, const void *blob,
		       size_t size_bytes);

/* ---- policy.c: XATTR_ON_POISON, "eio" (default) or "zero", of regular files and directories ---- */

/* 0, or -EINVAL: another inode, or another value (NULL: it is removed). 0 for any other name. */
must_check int policy_check(const struct inode_attr *attr, const char *name, const void *value,
			    size_t size_bytes);
/* Whether lost bytes of the inode are to read as zeroes. */
must_check int policy_is_zero(struct op *op, uint64_t ino, bool *zero);
/* A new inode gets what its directory has. */
must_check int policy_inherit(struct op *op, uint64_t dir, const struct inode_attr *attr);

#endif
