/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Parents of an inode: one item in its attribute tree for each name that it has, so that a number becomes a path without a walk
 * of the whole tree. The root has none.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "fs/names.h"
#include "util/log.h"
#include "util/sabotage.h"

struct parent_key {
	uint64_t dir, key;
};

/* Directory and key, then the name: at_data of a parent item. */
struct m_parent {
	le64 pa_dir;
	le64 pa_key;
	uint8_t pa_name[];
};

static const struct m_parent *parent_body(const struct m_attr *m)
{
	return (const struct m_parent *)m->at_data;
}

static bool parent_is(const void *rec, const void *arg)
{
	const struct m_attr *m = rec;
	const struct parent_key *want = arg;

	return m->at_type == ATTR_PARENT && le64_get(parent_body(m)->pa_dir) == want->dir &&
	       le64_get(parent_body(m)->pa_key) == want->key;
}

static struct probe parent_probe(const struct fs *fs, struct btree *bt, const struct parent_key *key)
{
	return (struct probe){ bt, ATTR_KEY_PARENT | HASH_FIRST, ATTR_KEY_PARENT | fs->hash_last, parent_is,
			       key };
}

int parent_add(struct op *op, uint64_t ino, uint64_t dir, uint64_t key, const char *name, size_t len)
{
	struct parent_key want = { dir, key };
	struct btree bt;
	struct probe p = parent_probe(op->fs, &bt, &want);
	union {
		struct m_attr m;
		uint8_t bytes[sizeof(struct m_attr) + sizeof(struct m_parent) + FS_NAME_MAX + 8];
	} buf;
	struct m_parent *body = (struct m_parent *)(buf.bytes + sizeof(struct m_attr));
	size_t size_bytes = u64_align_up(sizeof(buf.m) + sizeof(*body) + len, 8);
	struct probe_at at;
	int rc;

	inode_attr_tree(op, ino, &bt);
	rc = probe_find(&p, hash_parent(op->fs, dir, key), &at);
	if (rc == 0)
		return -EUCLEAN;
	if (rc != -ENOENT)
		return rc;
	memset(&buf, 0, size_bytes);
	buf.m.at_key = le64_of(at.key);
	buf.m.at_len_bytes = le16_of((uint16_t)size_bytes);
	buf.m.at_type = ATTR_PARENT;
	buf.m.at_namelen = (uint8_t)len;
	body->pa_dir = le64_of(dir);
	body->pa_key = le64_of(key);
	memcpy(body->pa_name, name, len);
	return sabotage_point("parent-add") ? 0 : probe_put(&p, &at, &buf, size_bytes);
}

int parent_remove(struct op *op, uint64_t ino, uint64_t dir, uint64_t key)
{
	struct parent_key want = { dir, key };
	struct btree bt;
	struct probe p = parent_probe(op->fs, &bt, &want);
	struct probe_at at;
	int rc;

	inode_attr_tree(op, ino, &bt);
	rc = probe_find(&p, hash_parent(op->fs, dir, key), &at);
	if (rc == -ENOENT || rc == -ENOSPC) {
		log_warn("inode %" PRIu64 ": no parent item for its name in directory %" PRIu64, ino, dir);
		return 0;
	}
	return rc || sabotage_point("parent-remove") ? rc : probe_remove(&p, &at);
}

static void parent_load(struct parent *parent, const struct m_attr *m)
{
	parent->dir = le64_get(parent_body(m)->pa_dir);
	parent->key = le64_get(parent_body(m)->pa_key);
	parent->len = m->at_namelen;
	memcpy(parent->name, parent_body(m)->pa_name, m->at_namelen);
}

int parent_find(struct op *op, uint64_t ino, uint64_t dir, uint64_t key, struct parent *parent)
{
	struct parent_key want = { dir, key };
	struct btree bt;
	struct probe p = parent_probe(op->fs, &bt, &want);
	struct probe_at at;
	const void *rec;
	size_t size_bytes;
	int rc;

	inode_attr_tree(op, ino, &bt);
	rc = probe_find(&p, hash_parent(op->fs, dir, key), &at);
	if (!rc)
		rc = bt_get(&at.cur, &rec, &size_bytes);
	if (rc)
		return rc == -ENOSPC ? -ENOENT : rc;
	parent_load(parent, rec);
	return 0;
}

int parent_first(struct op *op, uint64_t ino, struct parent *parent)
{
	struct bt_key key = { { ATTR_KEY_PARENT } };
	struct bt_cursor cur;
	struct btree bt;
	int rc;

	inode_attr_tree(op, ino, &bt);
	for (rc = bt_seek(&bt, &cur, &key, BT_GE); !rc; rc = bt_next(&cur)) {
		const struct m_attr *m;
		const void *rec;
		size_t size_bytes;

		rc = bt_get(&cur, &rec, &size_bytes);
		if (rc)
			return rc;
		m = rec;
		if (m->at_type != ATTR_PARENT)
			continue;
		parent_load(parent, m);
		return 0;
	}
	return rc;
}

struct parent_arg {
	uint64_t ino;
	struct parent *parent;
};

static int parent_op(struct op *op, void *arg)
{
	struct parent_arg *a = arg;
	int rc = op_inode(op, a->ino, false, NULL);

	return rc ? rc : parent_first(op, a->ino, a->parent);
}

int parent_dir(struct fs *fs, uint64_t dir, uint64_t *out)
{
	struct parent parent;
	struct parent_arg a = { dir, &parent };
	int rc = 0;

	if (dir == INODE_ROOT)
		parent.dir = INODE_ROOT;
	else
		rc = op_run(fs, TXN_READ, NULL, parent_op, &a);
	if (!rc)
		*out = parent.dir;
	return rc;
}

int fs_path(struct fs *fs, uint64_t ino, char *buf, size_t size_bytes)
{
	size_t at = size_bytes;
	int rc = 0;

	if (size_bytes < 2)
		return -ENAMETOOLONG;
	buf[--at] = 0;
	/* No directory moves meanwhile, so the pieces belong together. */
	pthread_mutex_lock(&fs->rename_lock);
	while (ino != INODE_ROOT) {
		struct parent parent;
		struct parent_arg a = { ino, &parent };

		rc = op_run(fs, TXN_READ, NULL, parent_op, &a);
		if (!rc && at < parent.len + 1)
			rc = -ENAMETOOLONG;
		if (rc)
			break;
		at -= parent.len;
		memcpy(buf + at, parent.name, parent.len);
		buf[--at] = '/';
		ino = parent.dir;
	}
	pthread_mutex_unlock(&fs->rename_lock);
	if (rc)
		return rc;
	if (buf[at] == 0)
		buf[--at] = '/';
	memmove(buf, buf + at, size_bytes - at);
	return 0;
}
