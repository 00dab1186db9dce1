/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * POSIX ACLs: kept as the xattr blobs that user space and the kernel exchange (version 2, little-endian), changed in place.
 *
 * The access ACL and the mode always say the same: owner and other entries are the mode's owner and other bits, the mask (or the
 * group entry where there is no mask) is its group bits. An access ACL that says no more than the mode is not stored.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/xattr.h"

#define ACL_VERSION 2u
#define TAG_USER_OBJ 0x01u
#define TAG_USER 0x02u
#define TAG_GROUP_OBJ 0x04u
#define TAG_GROUP 0x08u
#define TAG_MASK 0x10u
#define TAG_OTHER 0x20u
#define ID_NONE UINT32_MAX

struct acl_head {
	le32 version;
};

struct acl_entry {
	le16 tag, perm;
	le32 id;
};
static_assert(sizeof(struct acl_entry) == 8, "xattr format of ACLs");

static size_t acl_count(size_t size_bytes)
{
	return (size_bytes - sizeof(struct acl_head)) / sizeof(struct acl_entry);
}

static struct acl_entry *acl_entries(const void *blob)
{
	return (struct acl_entry *)((uint8_t *)(uintptr_t)blob + sizeof(struct acl_head));
}

static bool blob_is_empty(const void *blob, size_t size_bytes)
{
	return !blob || size_bytes <= sizeof(struct acl_head);
}

/* Entries come in the order of their tags; ids within a tag in any order. */
static int entry_check(const struct acl_entry *e, unsigned *seen)
{
	unsigned tag = le16_get(e->tag);

	if (le16_get(e->perm) & ~7u)
		return -EINVAL;
	switch (tag) {
	case TAG_USER_OBJ:
	case TAG_GROUP_OBJ:
	case TAG_MASK:
	case TAG_OTHER:
		if (*seen >= tag) /* twice, or after a later one */
			return -EINVAL;
		break;
	case TAG_USER:
	case TAG_GROUP:
		if (*seen >= tag << 1 || le32_get(e->id) == ID_NONE)
			return -EINVAL;
		break;
	default:
		return -EINVAL;
	}
	*seen |= tag;
	return 0;
}

int acl_check(const void *blob, size_t size_bytes)
{
	const unsigned needed = TAG_USER_OBJ | TAG_GROUP_OBJ | TAG_OTHER;
	const struct acl_head *head = blob;
	unsigned seen = 0;

	if (size_bytes <= sizeof(*head) || (size_bytes - sizeof(*head)) % sizeof(struct acl_entry))
		return -EINVAL;
	if (le32_get(head->version) != ACL_VERSION)
		return -EINVAL;
	for (size_t i = 0; i < acl_count(size_bytes); i++) {
		int rc = entry_check(&acl_entries(blob)[i], &seen);

		if (rc)
			return rc;
	}
	if ((seen & needed) != needed)
		return -EINVAL;
	return seen & (TAG_USER | TAG_GROUP) && !(seen & TAG_MASK) ? -EINVAL : 0;
}

bool acl_to_mode(const void *blob, size_t size_bytes, uint32_t *mode)
{
	uint32_t owner = 0, group = 0, other = 0, mask = 0;
	bool has_mask = false, more = false;

	for (size_t i = 0; i < acl_count(size_bytes); i++) {
		const struct acl_entry *e = &acl_entries(blob)[i];
		uint32_t perm = le16_get(e->perm);

		switch (le16_get(e->tag)) {
		case TAG_USER_OBJ:
			owner = perm;
			break;
		case TAG_GROUP_OBJ:
			group = perm;
			break;
		case TAG_OTHER:
			other = perm;
			break;
		case TAG_MASK:
			mask = perm;
			has_mask = more = true;
			break;
		default:
			more = true;
		}
	}
	*mode = owner << 6 | (has_mask ? mask : group) << 3 | other;
	return !more;
}

/* The entry that is the mode's group bits. */
static struct acl_entry *group_entry(void *blob, size_t size_bytes)
{
	struct acl_entry *group = NULL;

	for (size_t i = 0; i < acl_count(size_bytes); i++) {
		struct acl_entry *e = &acl_entries(blob)[i];
		unsigned tag = le16_get(e->tag);

		if (tag == TAG_MASK || (tag == TAG_GROUP_OBJ && !group))
			group = e;
	}
	return group;
}

/* Sets owner, group class and other from bits, or cuts them down to it and bits to them. */
static void acl_apply(void *blob, size_t size_bytes, uint32_t *bits, bool cut)
{
	struct acl_entry *group = group_entry(blob, size_bytes);

	for (size_t i = 0; i < acl_count(size_bytes); i++) {
		struct acl_entry *e = &acl_entries(blob)[i];
		unsigned tag = le16_get(e->tag);
		unsigned shift = tag == TAG_USER_OBJ ? 6 : tag == TAG_OTHER ? 0 : 3;
		uint32_t perm = *bits >> shift & 7;

		if (tag != TAG_USER_OBJ && tag != TAG_OTHER && e != group)
			continue;
		if (cut)
			perm &= le16_get(e->perm);
		e->perm = le16_of((uint16_t)perm);
		*bits = (*bits & ~(7u << shift)) | perm << shift;
	}
}

/* The ACL of that name, checked. -ENODATA. */
static int acl_load(struct op *op, uint64_t ino, const char *name, void **blob, size_t *size_bytes)
{
	int rc = xattr_load(op, ino, name, blob, size_bytes);

	if (!rc && acl_check(*blob, *size_bytes))
		rc = -EUCLEAN;
	return rc;
}

int acl_chmod(struct op *op, const struct inode_attr *attr)
{
	uint32_t bits = attr->mode & 0777;
	size_t size_bytes;
	void *blob;
	int rc = acl_load(op, attr->ino, XATTR_ACL_ACCESS, &blob, &size_bytes);

	if (rc)
		return rc == -ENODATA ? 0 : rc;
	acl_apply(blob, size_bytes, &bits, false);
	return xattr_store(op, attr->ino, XATTR_ACL_ACCESS, blob, size_bytes, 0);
}

int acl_inherit(struct op *op, const struct inode_attr *dir, struct inode_attr *attr, struct new_acl *acl)
{
	uint32_t bits = attr->mode & 0777, mode;
	int rc;

	*acl = (struct new_acl){ 0 };
	if (S_ISLNK(attr->mode))
		return 0;
	rc = acl_load(op, dir->ino, XATTR_ACL_DEFAULT, &acl->dflt, &acl->dflt_size);
	if (rc == -ENODATA) {
		attr->mode &= ~(op->cred ? op->cred->umask & 0777 : 0);
		return 0;
	}
	if (rc)
		return rc;
	acl->access = txn_alloc(op->tx, acl->dflt_size);
	if (!acl->access)
		return -ENOMEM;
	acl->access_size = acl->dflt_size;
	memcpy(acl->access, acl->dflt, acl->dflt_size);
	acl_apply(acl->access, acl->access_size, &bits, true);
	attr->mode = (attr->mode & ~0777u) | bits;
	if (acl_to_mode(acl->access, acl->access_size, &mode))
		acl->access = NULL;
	if (!S_ISDIR(attr->mode))
		acl->dflt = NULL;
	return 0;
}

int inode_new_acl(struct op *op, struct inode_attr *attr, const struct new_acl *acl)
{
	int rc = 0;

	if (acl->access)
		rc = xattr_store(op, attr->ino, XATTR_ACL_ACCESS, acl->access, acl->access_size, 0);
	if (!rc && acl->dflt)
		rc = xattr_store(op, attr->ino, XATTR_ACL_DEFAULT, acl->dflt, acl->dflt_size, 0);
	return rc;
}

static int acl_drop(struct op *op, uint64_t ino, const char *name)
{
	int rc = xattr_drop(op, ino, name);

	return rc == -ENODATA ? 0 : rc;
}

int acl_set(struct op *op, struct inode_attr *attr, const char *name, const void *blob, size_t size_bytes)
{
	bool access = strcmp(name, XATTR_ACL_ACCESS) == 0;
	uint32_t bits;
	int rc;

	if (S_ISLNK(attr->mode))
		return -EOPNOTSUPP;
	if (!access && !S_ISDIR(attr->mode))
		return blob_is_empty(blob, size_bytes) ? 0 : -EACCES;
	if (blob_is_empty(blob, size_bytes))
		return acl_drop(op, attr->ino, name);
	rc = acl_check(blob, size_bytes);
	if (rc)
		return rc;
	if (!access)
		return xattr_store(op, attr->ino, name, blob, size_bytes, 0);
	if (acl_to_mode(blob, size_bytes, &bits))
		rc = acl_drop(op, attr->ino, name);
	else
		rc = xattr_store(op, attr->ino, name, blob, size_bytes, 0);
	attr->mode = (attr->mode & ~0777u) | bits;
	return rc;
}
