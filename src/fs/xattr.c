/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Extended attributes: records of the inode's attribute tree by hash of the whole name; a value that does not fit into a record
 * lies in units of its own, which the record lists.
 */
#include "fs/xattr.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "fs/names.h"
#include "util/sabotage.h"

#define XATTR_NAME_MAX 255u
#define LARGE_UNITS_MAX ((FS_XATTR_VALUE_MAX + XVAL_DATA_SIZE - 1) / XVAL_DATA_SIZE)
#define UNITS_FOR_TREE 24u /* that one more record, or one less, may edit */

struct xattr_name {
	const char *name;
	size_t len;
};

/* Where an attribute is, or would be. */
struct xattr_slot {
	struct btree bt;
	struct probe_at at;
	const struct m_attr *rec; /* found */
};

static bool xattr_is(const void *rec, const void *arg)
{
	const struct m_attr *m = rec;
	const struct xattr_name *want = arg;

	return m->at_type == ATTR_XATTR && m->at_namelen == want->len &&
	       memcmp(m->at_data, want->name, want->len) == 0;
}

static struct probe xattr_probe(const struct fs *fs, struct btree *bt, const struct xattr_name *name)
{
	return (struct probe){ bt, HASH_FIRST, fs->hash_last, xattr_is, name };
}

/* -ENODATA: not there (xattr_put may follow). */
static int xattr_find(struct op *op, uint64_t ino, const char *name, struct xattr_slot *slot)
{
	struct xattr_name want = { name, strlen(name) };
	struct probe p = xattr_probe(op->fs, &slot->bt, &want);
	size_t size_bytes;
	const void *rec;
	int rc;

	inode_attr_tree(op, ino, &slot->bt);
	rc = probe_find(&p, hash_name(op->fs, want.name, want.len), &slot->at);
	if (rc)
		return rc == -ENOENT ? -ENODATA : rc;
	rc = bt_get(&slot->at.cur, &rec, &size_bytes);
	if (!rc)
		slot->rec = rec;
	return rc;
}

static size_t value_len(const struct m_attr *m)
{
	return le32_get(m->at_value_len);
}

static unsigned large_count(size_t len_bytes)
{
	return (unsigned)u64_div_up(len_bytes, XVAL_DATA_SIZE);
}

static size_t large_off(size_t name_len)
{
	return u64_align_up(sizeof(struct m_attr) + name_len, sizeof(le64));
}

static const le64 *large_list(const struct m_attr *m)
{
	return (const le64 *)((const uint8_t *)m + large_off(m->at_namelen));
}

/* ---- reading ---- */

static int large_load(struct op *op, const struct m_attr *m, uint8_t *value)
{
	const le64 *laddrs = large_list(m);
	size_t left = value_len(m);

	for (unsigned i = 0; left; i++) {
		size_t part = u64_min(left, XVAL_DATA_SIZE);
		const struct m_xval *unit;
		const void *raw;
		int rc = txn_get(op->tx, le64_get(laddrs[i]), MAGIC_XVAL, &raw);

		if (rc)
			return rc;
		unit = raw;
		if (le32_get(unit->xv_len_bytes) != part)
			return -EUCLEAN;
		memcpy(value, unit->xv_data, part);
		value += part;
		left -= part;
	}
	return 0;
}

static int value_load(struct op *op, const struct m_attr *m, void *value)
{
	if (m->at_flags & ATTR_LARGE)
		return large_load(op, m, value);
	memcpy(value, m->at_data + m->at_namelen, value_len(m));
	return 0;
}

int xattr_load(struct op *op, uint64_t ino, const char *name, void **value, size_t *size_bytes)
{
	struct xattr_slot slot;
	void *copy;
	int rc = xattr_find(op, ino, name, &slot);

	if (rc)
		return rc == -ENOSPC ? -ENODATA : rc;
	copy = txn_alloc(op->tx, value_len(slot.rec));
	if (!copy)
		return -ENOMEM;
	rc = value_load(op, slot.rec, copy);
	if (rc)
		return rc;
	*value = copy;
	*size_bytes = value_len(slot.rec);
	return 0;
}

/* ---- writing ---- */

/* A record with room for the largest. */
union attr_buf {
	struct m_attr m;
	uint8_t bytes[NODE_REC_MAX + 8];
};

static int large_store(struct op *op, uint64_t ino, union attr_buf *buf, size_t name_len,
		       const uint8_t *value, size_t size_bytes)
{
	le64 *laddrs = (le64 *)(buf->bytes + large_off(name_len));

	for (unsigned i = 0; i < large_count(size_bytes); i++) {
		size_t part = u64_min(size_bytes - i * XVAL_DATA_SIZE, XVAL_DATA_SIZE);
		struct m_xval *unit;
		uint64_t laddr;
		void *raw;
		int rc = space_meta_alloc(op->tx, inode_laddr(ino), 1, &laddr);

		if (!rc)
			rc = txn_new(op->tx, laddr, MAGIC_XVAL, ino, &raw);
		if (rc)
			return rc;
		unit = raw;
		unit->xv_len_bytes = le32_of((uint32_t)part);
		memcpy(unit->xv_data, value + i * XVAL_DATA_SIZE, part);
		laddrs[i] = le64_of(laddr);
	}
	return 0;
}

static int large_free(struct op *op, const struct m_attr *m)
{
	uint64_t laddrs[LARGE_UNITS_MAX];
	unsigned count = m->at_flags & ATTR_LARGE ? large_count(value_len(m)) : 0;

	if (count > LARGE_UNITS_MAX)
		return -EUCLEAN;
	for (unsigned i = 0; i < count; i++)
		laddrs[i] = le64_get(large_list(m)[i]);
	for (unsigned i = 0; i < count; i++) {
		int rc = space_meta_free(op->tx, laddrs[i], 1);

		if (rc)
			return rc;
	}
	return 0;
}

/* Fills a record; its size in *rec_size. */
static int attr_fill(struct op *op, uint64_t ino, union attr_buf *buf, uint64_t key, const char *name,
		     const void *value, size_t size_bytes, size_t *rec_size)
{
	size_t name_len = strlen(name);
	size_t size = u64_align_up(sizeof(buf->m) + name_len + size_bytes, 8);
	bool large = size > NODE_REC_MAX;

	if (large)
		size = large_off(name_len) + large_count(size_bytes) * sizeof(le64);
	memset(buf, 0, size);
	buf->m.at_key = le64_of(key);
	buf->m.at_len_bytes = le16_of((uint16_t)size);
	buf->m.at_type = ATTR_XATTR;
	buf->m.at_namelen = (uint8_t)name_len;
	buf->m.at_value_len = le32_of((uint32_t)size_bytes);
	buf->m.at_flags = large ? ATTR_LARGE : 0;
	memcpy(buf->bytes + sizeof(buf->m), name, name_len);
	*rec_size = size;
	if (large)
		return large_store(op, ino, buf, name_len, value, size_bytes);
	if (size_bytes)
		memcpy(buf->bytes + sizeof(buf->m) + name_len, value, size_bytes);
	return 0;
}

int xattr_store(struct op *op, uint64_t ino, const char *name, const void *value, size_t size_bytes,
		int flags)
{
	struct xattr_slot slot;
	struct probe p;
	union attr_buf buf;
	size_t rec_size;
	int rc = xattr_find(op, ino, name, &slot);
	bool found = rc == 0;

	if (rc && rc != -ENODATA)
		return rc;
	if (found && flags & XATTR_CREATE)
		return -EEXIST;
	if (!found && flags & XATTR_REPLACE)
		return -ENODATA;
	if (found && !sabotage_point("xattr-free"))
		rc = large_free(op, slot.rec);
	else
		rc = 0;
	if (!rc)
		rc = attr_fill(op, ino, &buf, slot.at.key, name, value, size_bytes, &rec_size);
	if (rc)
		return rc;
	if (found)
		return bt_replace(&slot.at.cur, &buf, rec_size);
	p = xattr_probe(op->fs, &slot.bt, NULL);
	return probe_put(&p, &slot.at, &buf, rec_size);
}

int xattr_drop(struct op *op, uint64_t ino, const char *name)
{
	struct xattr_slot slot;
	struct probe p;
	int rc = xattr_find(op, ino, name, &slot);

	if (!rc)
		rc = large_free(op, slot.rec);
	if (rc)
		return rc == -ENOSPC ? -ENODATA : rc;
	p = xattr_probe(op->fs, &slot.bt, NULL);
	return probe_remove(&p, &slot.at);
}

static int copy_one(struct op *op, const struct m_attr *m, uint64_t to)
{
	void *value = txn_alloc(op->tx, value_len(m));
	char name[XATTR_NAME_MAX + 1];
	int rc = value ? value_load(op, m, value) : -ENOMEM;

	memcpy(name, m->at_data, m->at_namelen);
	name[m->at_namelen] = 0;
	return rc ? rc : xattr_store(op, to, name, value, value_len(m), 0);
}

int xattr_copy(struct op *op, uint64_t from, uint64_t to, uint64_t *next_key, bool *done)
{
	struct bt_key key = { { *next_key } };
	struct bt_cursor cur;
	struct btree bt;
	int rc;

	*done = false;
	inode_attr_tree(op, from, &bt);
	for (rc = bt_seek(&bt, &cur, &key, BT_GE); !rc; rc = bt_next(&cur)) {
		const struct m_attr *m;
		size_t size_bytes;
		const void *rec;
		unsigned units;

		rc = bt_get(&cur, &rec, &size_bytes);
		if (rc)
			return rc;
		m = rec;
		if (le64_get(m->at_key) & ATTR_KEY_PARENT)
			break;
		if (m->at_type != ATTR_XATTR)
			continue;
		units = m->at_flags & ATTR_LARGE ? large_count(value_len(m)) : 0;
		if (!txn_has_room(op->tx, units + UNITS_FOR_TREE)) {
			*next_key = le64_get(m->at_key);
			return 0;
		}
		rc = copy_one(op, m, to);
		if (rc)
			return rc;
	}
	if (rc && rc != -ENOENT)
		return rc;
	*done = true;
	return 0;
}

int xattr_free_large(struct op *op, uint64_t ino, bool *done)
{
	struct bt_key key = { { 0 } };
	struct bt_cursor cur;
	struct btree bt;
	bool end = false;
	int rc;

	*done = false;
	inode_attr_tree(op, ino, &bt);
	rc = bt_seek(&bt, &cur, &key, BT_GE);
	while (!rc && !end) {
		const struct m_attr *m;
		size_t size_bytes;
		const void *rec;

		rc = bt_get(&cur, &rec, &size_bytes);
		if (rc)
			return rc;
		m = rec;
		if (le64_get(m->at_key) & ATTR_KEY_PARENT)
			break;
		if (m->at_type != ATTR_XATTR || !(m->at_flags & ATTR_LARGE)) {
			rc = bt_next(&cur);
			continue;
		}
		if (!txn_has_room(op->tx, LARGE_UNITS_MAX + UNITS_FOR_TREE))
			return 0;
		rc = large_free(op, m);
		if (!rc)
			rc = bt_remove(&cur, &end);
	}
	if (rc && rc != -ENOENT)
		return rc;
	*done = true;
	return 0;
}

/* ---- calls ---- */

static bool has_prefix(const char *name, const char *prefix)
{
	return strncmp(name, prefix, strlen(prefix)) == 0;
}

static bool is_acl(const char *name)
{
	return strcmp(name, XATTR_ACL_ACCESS) == 0 || strcmp(name, XATTR_ACL_DEFAULT) == 0;
}

static int xattr_name_check(const char *name)
{
	static const char *const prefixes[] = { "user.", "trusted.", "security." };
	size_t len = strlen(name);

	if (len == 0 || len > XATTR_NAME_MAX)
		return -ERANGE;
	if (is_acl(name))
		return 0;
	for (unsigned i = 0; i < ARRAY_SIZE(prefixes); i++) {
		if (has_prefix(name, prefixes[i]))
			return name[strlen(prefixes[i])] ? 0 : -EINVAL;
	}
	return -EOPNOTSUPP;
}

/* user.* belongs to the content of files and directories. */
static bool type_has_user(const struct inode_attr *attr)
{
	return S_ISREG(attr->mode) || S_ISDIR(attr->mode);
}

struct xattr_arg {
	uint64_t ino;
	const char *name; /* NULL: list */
	const void *set;  /* NULL: remove */
	void *buf;        /* get and list */
	size_t size_bytes;
	int flags;
	bool kill_sgid;
};

static int change_op(struct op *op, void *arg)
{
	struct xattr_arg *a = arg;
	struct inode_attr attr;
	int rc = op_inode(op, a->ino, true, NULL);

	if (!rc)
		rc = inode_get(op, a->ino, &attr);
	if (rc)
		return rc;
	if (attr.flags & (INODE_IMMUTABLE | INODE_APPEND))
		return -EPERM;
	rc = policy_check(&attr, a->name, a->set, a->size_bytes);
	if (rc)
		return rc;
	if (has_prefix(a->name, "user.") && !type_has_user(&attr))
		return -EPERM;
	if (is_acl(a->name))
		rc = acl_set(op, &attr, a->name, a->set, a->size_bytes);
	else if (a->set)
		rc = xattr_store(op, a->ino, a->name, a->set, a->size_bytes, a->flags);
	else
		rc = xattr_drop(op, a->ino, a->name);
	if (rc)
		return rc;
	if (a->kill_sgid)
		attr.mode &= ~(uint32_t)S_ISGID;
	attr_touch(op, &attr, false);
	return inode_put(op, &attr);
}

int fs_setxattr(struct fs *fs, uint64_t ino, const char *name, const void *value, size_t size_bytes,
		int flags, bool acl_kill_sgid)
{
	struct xattr_arg a = { .ino = ino,
			       .name = name,
			       .set = value ? value : "",
			       .size_bytes = size_bytes,
			       .flags = flags,
			       .kill_sgid = acl_kill_sgid && strcmp(name, XATTR_ACL_ACCESS) == 0 };
	int rc = xattr_name_check(name);

	if (!rc && size_bytes > FS_XATTR_VALUE_MAX)
		rc = -E2BIG;
	if (!rc && flags & ~(XATTR_CREATE | XATTR_REPLACE))
		rc = -EINVAL;
	return rc ? rc : op_run(fs, TXN_WRITE, op_request(), change_op, &a);
}

int fs_removexattr(struct fs *fs, uint64_t ino, const char *name)
{
	struct xattr_arg a = { .ino = ino, .name = name };
	int rc = xattr_name_check(name);

	return rc ? rc : op_run(fs, TXN_FREEING, op_request(), change_op, &a);
}

static int get_op(struct op *op, void *arg)
{
	struct xattr_arg *a = arg;
	struct inode_attr attr;
	struct xattr_slot slot;
	int rc = op_inode(op, a->ino, false, NULL);

	if (!rc)
		rc = inode_get(op, a->ino, &attr);
	if (!rc && has_prefix(a->name, "user.") && !type_has_user(&attr))
		rc = -ENODATA;
	if (!rc)
		rc = xattr_find(op, a->ino, a->name, &slot);
	if (rc)
		return rc == -ENOSPC ? -ENODATA : rc;
	if (a->size_bytes) {
		if (value_len(slot.rec) > a->size_bytes)
			return -ERANGE;
		rc = value_load(op, slot.rec, a->buf);
	}
	return rc ? rc : (int)value_len(slot.rec);
}

ssize_t fs_getxattr(struct fs *fs, uint64_t ino, const char *name, void *value, size_t size_bytes)
{
	struct xattr_arg a = { .ino = ino, .name = name, .buf = value, .size_bytes = size_bytes };
	int rc = xattr_name_check(name);

	return rc ? rc : op_run(fs, TXN_READ, NULL, get_op, &a);
}

static int list_op(struct op *op, void *arg)
{
	struct xattr_arg *a = arg;
	struct bt_key key = { { 0 } };
	size_t used = 0;
	struct bt_cursor cur;
	struct btree bt;
	int rc = op_inode(op, a->ino, false, NULL);

	if (rc)
		return rc;
	inode_attr_tree(op, a->ino, &bt);
	for (rc = bt_seek(&bt, &cur, &key, BT_GE); !rc; rc = bt_next(&cur)) {
		const struct m_attr *m;
		size_t rec_bytes;
		const void *rec;

		rc = bt_get(&cur, &rec, &rec_bytes);
		if (rc)
			return rc;
		m = rec;
		if (le64_get(m->at_key) & ATTR_KEY_PARENT)
			break;
		if (m->at_type != ATTR_XATTR)
			continue;
		if (a->size_bytes) {
			if (a->size_bytes - used < m->at_namelen + 1u)
				return -ERANGE;
			memcpy((char *)a->buf + used, m->at_data, m->at_namelen);
			((char *)a->buf)[used + m->at_namelen] = 0;
		}
		used += m->at_namelen + 1u;
		if (used > INT32_MAX)
			return -E2BIG;
	}
	return rc && rc != -ENOENT ? rc : (int)used;
}

ssize_t fs_listxattr(struct fs *fs, uint64_t ino, char *list, size_t size_bytes)
{
	struct xattr_arg a = { .ino = ino, .buf = list, .size_bytes = size_bytes };

	return op_run(fs, TXN_READ, NULL, list_op, &a);
}
