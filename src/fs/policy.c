/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is to become of a file's bytes that bad memory has taken: its attribute user.umbra.on_poison says so.
 *
 * An ordinary attribute with a rule about its value, looked up when an owner of a bad block is switched away from it: nothing else costs anything.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/xattr.h"
#include "util/sabotage.h"

static bool value_is(const void *value, size_t size_bytes, const char *want)
{
	return size_bytes == strlen(want) && memcmp(value, want, size_bytes) == 0;
}

static bool value_is_known(const void *value, size_t size_bytes)
{
	return value_is(value, size_bytes, "eio") || value_is(value, size_bytes, "zero");
}

static bool type_has_policy(uint32_t mode)
{
	return S_ISREG(mode) || S_ISDIR(mode);
}

int policy_check(const struct inode_attr *attr, const char *name, const void *value, size_t size_bytes)
{
	if (strcmp(name, XATTR_ON_POISON) != 0 || sabotage_point("policy-check"))
		return 0;
	return type_has_policy(attr->mode) && (!value || value_is_known(value, size_bytes)) ? 0 : -EINVAL;
}

int policy_is_zero(struct op *op, uint64_t ino, bool *zero)
{
	size_t size_bytes;
	void *value;
	int rc = xattr_load(op, ino, XATTR_ON_POISON, &value, &size_bytes);

	*zero = rc == 0 && value_is(value, size_bytes, "zero");
	/* Nobody knows what he wants: then no bytes are made up. */
	return rc == -ENODATA || rc == -EUCLEAN ? 0 : rc;
}

int policy_inherit(struct op *op, uint64_t dir, const struct inode_attr *attr)
{
	size_t size_bytes;
	void *value;
	int rc;

	if (!type_has_policy(attr->mode) || sabotage_point("policy-inherit"))
		return 0;
	rc = xattr_load(op, dir, XATTR_ON_POISON, &value, &size_bytes);
	if (!rc && value_is_known(value, size_bytes))
		rc = xattr_store(op, attr->ino, XATTR_ON_POISON, value, size_bytes, 0);
	return rc == -ENODATA ? 0 : rc;
}
