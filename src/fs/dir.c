/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Directories: entries in a tree by hash of the name, and reading them in that order.
 *
 * An entry keeps its key as long as it exists, so the key is a readdir cookie that stays good while other entries come and go.
 * '.' and '..' have no entries: they are the directory itself and the one of its parent item, with cookies 1 and 2.
 *
 * fs_readdir() copies a batch out under the directory's lock and hands it on with no lock held.
 */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/names.h"

#define COOKIE_DOT 1u
#define COOKIE_DOTDOT 2u

struct name_ref {
	const char *name;
	size_t len;
};

static bool dirent_is(const void *rec, const void *arg)
{
	const struct m_dirent *m = rec;
	const struct name_ref *want = arg;

	return m->de_namelen == want->len && memcmp(m->de_name, want->name, want->len) == 0;
}

static struct probe dir_probe(const struct fs *fs, struct dir_slot *slot, const struct name_ref *name)
{
	return (struct probe){ &slot->bt, HASH_FIRST, fs->hash_last, dirent_is, name };
}

int dir_find(struct op *op, uint64_t dir, const char *name, size_t len, struct dir_slot *slot)
{
	struct name_ref want = { name, len };
	struct probe p = dir_probe(op->fs, slot, &want);
	const struct m_dirent *m;
	const void *rec;
	size_t size_bytes;
	int rc;

	inode_data_tree(op, dir, NODE_DIR, &slot->bt);
	rc = probe_find(&p, hash_name(op->fs, name, len), &slot->at);
	if (rc)
		return rc;
	rc = bt_get(&slot->at.cur, &rec, &size_bytes);
	if (rc)
		return rc;
	m = rec;
	slot->entry = (struct dir_entry){ slot->at.key, le64_get(m->de_ino), m->de_type };
	return 0;
}

union dirent_buf {
	struct m_dirent m;
	uint8_t bytes[sizeof(struct m_dirent) + FS_NAME_MAX + 8];
};

static size_t dirent_fill(union dirent_buf *buf, uint64_t key, const void *name, size_t len, uint64_t ino,
			  uint8_t type)
{
	size_t size_bytes = u64_align_up(sizeof(buf->m) + len, 8);

	memset(buf, 0, size_bytes);
	buf->m.de_key = le64_of(key);
	buf->m.de_len_bytes = le16_of((uint16_t)size_bytes);
	buf->m.de_type = type;
	buf->m.de_namelen = (uint8_t)len;
	buf->m.de_ino = le64_of(ino);
	memcpy(buf->bytes + sizeof(buf->m), name, len);
	return size_bytes;
}

int dir_insert(struct op *op, struct dir_slot *slot, const char *name, size_t len, uint64_t ino, uint8_t type)
{
	struct probe p = dir_probe(op->fs, slot, NULL);
	union dirent_buf buf;
	size_t size_bytes = dirent_fill(&buf, slot->at.key, name, len, ino, type);
	int rc = probe_put(&p, &slot->at, &buf, size_bytes);

	if (!rc)
		slot->entry = (struct dir_entry){ slot->at.key, ino, type };
	return rc;
}

int dir_replace(struct op *op, struct dir_slot *slot, uint64_t ino, uint8_t type)
{
	const struct m_dirent *m;
	union dirent_buf buf;
	const void *rec;
	size_t size_bytes;
	int rc = bt_get(&slot->at.cur, &rec, &size_bytes);

	(void)op;
	if (rc)
		return rc;
	m = rec;
	size_bytes = dirent_fill(&buf, slot->at.key, m->de_name, m->de_namelen, ino, type);
	rc = bt_replace(&slot->at.cur, &buf, size_bytes);
	if (!rc)
		slot->entry = (struct dir_entry){ slot->at.key, ino, type };
	return rc;
}

int dir_remove(struct op *op, struct dir_slot *slot)
{
	struct probe p = dir_probe(op->fs, slot, NULL);

	return probe_remove(&p, &slot->at);
}

/* ---- reading ---- */

#define BATCH_ENTRIES 64
#define BATCH_BYTES 4096

struct batch {
	uint64_t dir;
	uint64_t cookie; /* go on after this one */
	bool ref;
	unsigned count;
	bool end;
	struct batch_entry {
		uint64_t ino, cookie;
		struct inode *inode; /* referenced, with ref */
		uint16_t name_off;
		uint8_t type, len;
	} entries[BATCH_ENTRIES];
	size_t used;
	char names[BATCH_BYTES];
};

static bool batch_add(struct batch *b, uint64_t ino, uint64_t cookie, uint8_t type, const void *name,
		      size_t len)
{
	if (b->count == BATCH_ENTRIES || sizeof(b->names) - b->used < len)
		return false;
	b->entries[b->count++] =
		(struct batch_entry){ ino, cookie, NULL, (uint16_t)b->used, type, (uint8_t)len };
	memcpy(b->names + b->used, name, len);
	b->used += len;
	return true;
}

static int batch_dots(struct op *op, struct batch *b)
{
	struct parent parent = { .dir = b->dir };
	int rc;

	if (b->cookie < COOKIE_DOT)
		batch_add(b, b->dir, COOKIE_DOT, DT_DIR, ".", 1);
	if (b->cookie >= COOKIE_DOTDOT)
		return 0;
	rc = parent_first(op, b->dir, &parent);
	if (rc && rc != -ENOENT)
		return rc;
	batch_add(b, parent.dir, COOKIE_DOTDOT, DT_DIR, "..", 2);
	return 0;
}

static int batch_entries(struct op *op, struct batch *b)
{
	struct bt_key key = { { u64_max(b->cookie + 1, HASH_FIRST) } };
	struct bt_cursor cur;
	struct btree bt;
	int rc;

	inode_data_tree(op, b->dir, NODE_DIR, &bt);
	for (rc = bt_seek(&bt, &cur, &key, BT_GE); !rc; rc = bt_next(&cur)) {
		const struct m_dirent *m;
		const void *rec;
		size_t size_bytes;

		rc = bt_get(&cur, &rec, &size_bytes);
		if (rc)
			return rc;
		m = rec;
		if (probe_is_tomb(NODE_DIR, m))
			continue;
		if (!batch_add(b, le64_get(m->de_ino), le64_get(m->de_key), m->de_type, m->de_name,
			       m->de_namelen))
			return 0;
	}
	if (rc == -ENOENT)
		b->end = true;
	return rc == -ENOENT ? 0 : rc;
}

/* References are taken while the directory's lock keeps the names, so that the numbers stay what they are. */
static int batch_ref(struct op *op, struct batch *b)
{
	for (unsigned i = 0; i < b->count; i++) {
		struct batch_entry *e = &b->entries[i];

		if (e->cookie <= COOKIE_DOTDOT)
			continue;
		e->inode = inode_pin_ref(op->fs, e->ino);
		if (!e->inode)
			return -ENOMEM;
	}
	return 0;
}

static int batch_read_op(struct op *op, void *arg)
{
	struct batch *b = arg;
	struct inode_attr attr;
	struct inode *inode;
	int rc = op_inode(op, b->dir, false, &inode);

	if (!rc)
		rc = inode_get(op, b->dir, &attr);
	if (rc)
		return rc;
	if (!S_ISDIR(attr.mode))
		return -ENOTDIR;
	b->count = 0;
	b->used = 0;
	rc = batch_dots(op, b);
	if (!rc)
		rc = batch_entries(op, b);
	if (rc)
		return rc;
	atime_note(op, inode, &attr);
	return b->ref ? batch_ref(op, b) : 0;
}

/* Those that were not handed on. */
static void batch_unref(struct fs *fs, struct batch *b)
{
	for (unsigned i = 0; i < b->count; i++) {
		if (b->entries[i].inode)
			inode_unref(fs, b->entries[i].inode, 1);
		b->entries[i].inode = NULL;
	}
}

/* 1: the caller has enough. */
static int batch_give(struct fs *fs, struct batch *b, int (*fill)(void *arg, const struct fs_dirent *entry),
		      void *arg)
{
	for (unsigned i = 0; i < b->count; i++) {
		struct batch_entry *e = &b->entries[i];
		struct inode_attr attr;
		struct fs_dirent d = {
			.ino = e->ino,
			.cookie = e->cookie,
			.type = e->type,
			.name = b->names + e->name_off,
			.name_len = e->len,
		};

		if (e->inode) {
			int rc = fs_getattr(fs, e->ino, &attr);

			if (!rc && attr.nlink != 0)
				d.attr = &attr;
			/* A damaged inode is still listed; one that has just been removed is not. */
			if (!d.attr && (!rc || rc == -ESTALE))
				continue;
		}
		if (fill(arg, &d)) {
			batch_unref(fs, b);
			return 1;
		}
		if (d.attr)
			e->inode = NULL; /* the reference is the caller's now */
	}
	batch_unref(fs, b);
	return 0;
}

int fs_readdir(struct fs *fs, uint64_t dir, uint64_t cookie, bool ref,
	       int (*fill)(void *arg, const struct fs_dirent *entry), void *arg)
{
	struct batch b;

	b.dir = dir;
	b.cookie = cookie;
	b.ref = ref;
	b.count = 0;
	b.end = cookie >= fs->hash_last;
	while (!b.end) {
		int rc = op_run(fs, TXN_READ, NULL, batch_read_op, &b);

		if (rc) {
			batch_unref(fs, &b);
			return rc;
		}
		if (batch_give(fs, &b, fill, arg))
			return 0;
		if (b.count)
			b.cookie = b.entries[b.count - 1].cookie;
	}
	return 0;
}
