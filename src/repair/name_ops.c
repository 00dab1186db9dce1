/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Operations on one name: entries and parent items. Facts may be older than the media: each looks again before it changes anything.
 *
 * Link counts and orphan records follow later (count_mend.c), from what the trees say then.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "repair/mend.h"

#define RENAMES_MAX 100000u /* tries to find a name that is not in use */
#define LOST_FOUND "lost+found"

int mend_entry_load(struct op *op, uint64_t dir, uint64_t key, struct dir_slot *slot, struct mend_name *name)
{
	const struct m_dirent *m;
	size_t size_bytes;
	const void *rec;
	int rc;

	inode_data_tree(op, dir, NODE_DIR, &slot->bt);
	rc = bt_seek(&slot->bt, &slot->at.cur, &(struct bt_key){ { key } }, BT_GE);
	if (!rc)
		rc = bt_get(&slot->at.cur, &rec, &size_bytes);
	if (!rc && (probe_key(rec) != key || probe_is_tomb(NODE_DIR, rec)))
		rc = -ENOENT;
	if (rc)
		return rc;
	m = rec;
	slot->at.key = key;
	slot->at.reuse = false;
	slot->entry = (struct dir_entry){ key, le64_get(m->de_ino), m->de_type };
	name->len = m->de_namelen;
	memcpy(name->bytes, m->de_name, name->len);
	return 0;
}

int mend_child(struct op *op, uint64_t ino, bool *there)
{
	int rc = op_inode(op, ino, true, NULL);

	*there = rc == 0;
	return rc == -ESTALE || rc == -EUCLEAN ? 0 : rc;
}

int mend_parent_drop(struct op *op, uint64_t ino, uint64_t dir, uint64_t key)
{
	struct parent parent;
	int rc = parent_find(op, ino, dir, key, &parent);

	if (rc)
		return rc == -ENOENT ? 0 : rc;
	return parent_remove(op, ino, dir, key);
}

int mend_name_free(struct op *op, uint64_t dir, struct mend_name *name)
{
	for (unsigned i = 1; i < RENAMES_MAX; i++) {
		struct mend_name next = *name;
		struct dir_slot slot;
		char tail[16];
		size_t tail_len = (size_t)snprintf(tail, sizeof(tail), "~%u", i);
		int rc;

		if (next.len + tail_len > FS_NAME_MAX)
			next.len = FS_NAME_MAX - tail_len;
		memcpy(next.bytes + next.len, tail, tail_len);
		next.len += tail_len;
		rc = dir_find(op, dir, next.bytes, next.len, &slot);
		if (rc == 0)
			continue;
		if (rc == -ENOENT)
			*name = next;
		return rc == -ENOENT ? 0 : rc;
	}
	return -ENOSPC;
}

/* A locked directory: its record. -ENOENT: it is none. */
static int dir_hold(struct op *op, uint64_t dir, struct inode_attr *attr)
{
	int rc = op_inode(op, dir, true, NULL);

	if (!rc)
		rc = inode_get(op, dir, attr);
	return rc ? rc : S_ISDIR(attr->mode) ? 0 : -ENOENT;
}

struct entry_arg {
	const struct seen_name *seen;
	uint8_t type;
	struct mend_name *name;
};

/* The directory with its lock, and the entry if it still is the one that was seen. */
static int entry_hold(struct op *op, const struct entry_arg *a, struct inode_attr *dir, struct dir_slot *slot)
{
	int rc = dir_hold(op, a->seen->dir, dir);

	if (!rc)
		rc = mend_entry_load(op, a->seen->dir, a->seen->key, slot, a->name);
	return rc ? rc : slot->entry.ino == a->seen->child ? 0 : -ENOENT;
}

static int drop_op(struct op *op, void *arg)
{
	const struct entry_arg *a = arg;
	struct inode_attr dir;
	struct dir_slot slot;
	bool there;
	int rc = entry_hold(op, a, &dir, &slot);

	if (!rc)
		rc = mend_child(op, a->seen->child, &there);
	if (!rc)
		rc = dir_remove(op, &slot);
	if (!rc && there)
		rc = mend_parent_drop(op, a->seen->child, a->seen->dir, a->seen->key);
	if (rc)
		return rc;
	dir.size -= dir.size != 0;
	attr_touch(op, &dir, true);
	return inode_put(op, &dir);
}

int mend_entry_drop(struct mend *m, const struct seen_name *entry, struct mend_name *name)
{
	struct mend_name own;
	struct entry_arg a = { .seen = entry, .name = name ? name : &own };

	return mend_run(m, drop_op, &a, "remove an entry of directory", entry->dir);
}

static int retype_op(struct op *op, void *arg)
{
	const struct entry_arg *a = arg;
	struct inode_attr dir;
	struct dir_slot slot;
	int rc = entry_hold(op, a, &dir, &slot);

	return rc ? rc : dir_replace(op, &slot, slot.entry.ino, a->type);
}

int mend_entry_retype(struct mend *m, const struct seen_name *entry, uint8_t type, struct mend_name *name)
{
	struct entry_arg a = { .seen = entry, .type = type, .name = name };

	return mend_run(m, retype_op, &a, "correct an entry of directory", entry->dir);
}

static int parent_add_op(struct op *op, void *arg)
{
	const struct entry_arg *a = arg;
	struct inode_attr dir;
	struct dir_slot slot;
	int rc = entry_hold(op, a, &dir, &slot);

	if (!rc)
		rc = op_inode(op, a->seen->child, true, NULL);
	/* One for another name at the same place is of no use. */
	if (!rc)
		rc = mend_parent_drop(op, a->seen->child, a->seen->dir, a->seen->key);
	return rc ? rc :
		    parent_add(op, a->seen->child, a->seen->dir, a->seen->key, a->name->bytes, a->name->len);
}

int mend_parent_add(struct mend *m, const struct seen_name *entry)
{
	struct mend_name own;
	struct entry_arg a = { .seen = entry, .name = &own };

	return mend_run(m, parent_add_op, &a, "add a parent item to inode", entry->child);
}

/* The item that was seen: another one may have its place by now. */
static int item_find(struct op *op, const struct seen_name *item, struct parent *parent)
{
	int rc = op_inode(op, item->child, true, NULL);

	if (!rc)
		rc = parent_find(op, item->child, item->dir, item->key, parent);
	return rc ? rc : (uint32_t)name_hash(parent->name, parent->len) == item->name_hash ? 0 : -ENOENT;
}

static int parent_remove_op(struct op *op, void *arg)
{
	const struct entry_arg *a = arg;
	struct parent parent;
	int rc = item_find(op, a->seen, &parent);

	return rc ? rc : parent_remove(op, a->seen->child, a->seen->dir, a->seen->key);
}

int mend_parent_remove(struct mend *m, const struct seen_name *item)
{
	struct entry_arg a = { .seen = item };

	return mend_run(m, parent_remove_op, &a, "remove a parent item of inode", item->child);
}

static int restore_op(struct op *op, void *arg)
{
	const struct entry_arg *a = arg;
	uint64_t child = a->seen->child;
	struct inode_attr dir, attr;
	struct parent parent;
	struct dir_slot slot;
	int rc = dir_hold(op, a->seen->dir, &dir);

	if (!rc)
		rc = item_find(op, a->seen, &parent);
	if (!rc)
		rc = inode_get(op, child, &attr);
	if (!rc)
		rc = name_check_new(parent.name, parent.len);
	if (rc)
		return rc;
	rc = dir_find(op, a->seen->dir, parent.name, parent.len, &slot);
	if (rc != -ENOENT)
		return rc ? rc : -EEXIST;
	rc = parent_remove(op, child, a->seen->dir, a->seen->key);
	if (!rc)
		rc = name_add_at(op, &dir, &slot, parent.name, parent.len, &attr);
	if (!rc)
		rc = inode_put(op, &dir);
	a->name->len = parent.len;
	memcpy(a->name->bytes, parent.name, parent.len);
	return rc;
}

int mend_entry_restore(struct mend *m, const struct seen_name *item, struct mend_name *name)
{
	struct entry_arg a = { .seen = item, .name = name };

	return mend_run(m, restore_op, &a, "put back an entry of directory", item->dir);
}

/* ---- lost+found ---- */

static int lost_found_find(struct mend *m)
{
	static const struct fs_cred root = { 0 };
	char name[sizeof(LOST_FOUND) + 8] = LOST_FOUND;

	for (unsigned i = 1; i < 100 && m->lost_found == 0; i++) {
		struct inode_attr attr;
		int rc = fs_mknod(m->fs, &root, INODE_ROOT, name, strlen(name), S_IFDIR | 0700, 0, &attr);

		if (rc == -EEXIST)
			rc = fs_lookup(m->fs, INODE_ROOT, name, strlen(name), &attr);
		if (rc)
			return rc;
		if (S_ISDIR(attr.mode))
			m->lost_found = attr.ino;
		fs_forget(m->fs, attr.ino, 1);
		snprintf(name, sizeof(name), LOST_FOUND "~%u", i);
	}
	return m->lost_found ? 0 : -EEXIST;
}

struct reconnect_arg {
	uint64_t ino, dir;
	struct mend_name name;
};

static int reconnect_op(struct op *op, void *arg)
{
	struct reconnect_arg *a = arg;
	struct mend_name name;
	struct inode_attr dir, attr;
	struct dir_slot slot;
	int rc = dir_hold(op, a->dir, &dir);

	if (!rc)
		rc = op_inode(op, a->ino, true, NULL);
	if (!rc)
		rc = inode_get(op, a->ino, &attr);
	if (rc)
		return rc;
	name.len = (size_t)snprintf(name.bytes, sizeof(name.bytes), "#%" PRIu64, a->ino);
	rc = dir_find(op, a->dir, name.bytes, name.len, &slot);
	if (rc == 0)
		rc = mend_name_free(op, a->dir, &name);
	else if (rc == -ENOENT)
		rc = 0;
	if (!rc)
		rc = name_add(op, &dir, name.bytes, name.len, &attr);
	if (rc)
		return rc;
	dir.nlink += S_ISDIR(attr.mode);
	a->name = name;
	return inode_put(op, &dir);
}

int mend_reconnect(struct mend *m, uint64_t ino)
{
	struct reconnect_arg a = { .ino = ino };
	int rc = lost_found_find(m);

	if (rc) {
		repair_told(m->rp, REPAIR_LEFT, "inode %" PRIu64 ": has no name, and there is no " LOST_FOUND,
			    ino);
		return rc == -EROFS ? rc : 0;
	}
	a.dir = m->lost_found;
	rc = a.dir == ino ? 0 : mend_run(m, reconnect_op, &a, "name inode", ino);
	if (rc == 1)
		repair_told(m->rp, REPAIR_MENDED, "inode %" PRIu64 " had no name: now %s", ino,
			    mend_entry_path(m, a.dir, &a.name));
	return rc;
}
