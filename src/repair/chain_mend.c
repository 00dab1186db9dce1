/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Trees keyed by hash in which a lookup does not find what is there: each record that probing from its hash does not lead to
 * is taken out and put back where it belongs; tombstones that hold nothing together go.
 *
 * No such step breaks another chain: taking out leaves a tombstone where one is needed, and nothing that probing leads to depends on
 * a tombstone with a free key behind it. So one pass over the keys is enough.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "repair/mend.h"

/* One tree, and where the pass is. */
struct chain {
	struct mend *m;
	uint64_t ino;
	enum node_kind kind;
	uint64_t key; /* go on from here */
	bool end, did;
	struct seen_name about; /* of the record that was mended: child, key */
	struct mend_name was, is;
};

union any_rec {
	struct m_dirent dirent;
	struct m_attr attr;
	uint8_t bytes[NODE_REC_MAX];
};

static void chain_tree(struct op *op, const struct chain *c, struct btree *bt)
{
	if (c->kind == NODE_DIR)
		inode_data_tree(op, c->ino, NODE_DIR, bt);
	else
		inode_attr_tree(op, c->ino, bt);
}

/* The part of the key space that the key lies in. False: in none. */
static bool key_space(const struct fs *fs, enum node_kind kind, uint64_t key, struct probe *p)
{
	uint64_t space = kind == NODE_ATTR ? key & ATTR_KEY_PARENT : 0;

	p->first = space | HASH_FIRST;
	p->last = space | fs->hash_last;
	return key >= p->first && key <= p->last;
}

/* The record with that key, copied; -ENOENT. */
static int rec_copy(struct btree *bt, uint64_t key, union any_rec *rec, size_t *size_bytes, bool exact)
{
	struct bt_cursor cur;
	const void *at;
	int rc = bt_seek(bt, &cur, &(struct bt_key){ { key } }, BT_GE);

	if (!rc)
		rc = bt_get(&cur, &at, size_bytes);
	if (!rc && exact && probe_key(at) != key)
		rc = -ENOENT;
	if (!rc)
		memcpy(rec->bytes, at, *size_bytes);
	return rc;
}

/* ---- tombstones ---- */

/* Deletes the tombstone at key if the next key is free, and those right before it. */
static int tomb_mend(struct op *op, struct chain *c, struct btree *bt, uint64_t key)
{
	struct probe p;
	union any_rec rec;
	size_t size_bytes;
	int rc = -ENOENT;

	if (key_space(op->fs, c->kind, key, &p))
		rc = rec_copy(bt, key == p.last ? p.first : key + 1, &rec, &size_bytes, true);
	if (rc != -ENOENT)
		return rc;
	c->did = true;
	do {
		rc = bt_delete(bt, &(struct bt_key){ { key } });
		if (rc || key == p.first || key < p.first || key > p.last)
			return rc;
		key--;
		rc = rec_copy(bt, key, &rec, &size_bytes, true);
	} while (!rc && probe_is_tomb(c->kind, &rec));
	return rc == -ENOENT ? 0 : rc;
}

/* Takes the record with that key out. */
static int rec_remove(struct op *op, struct chain *c, struct btree *bt, uint64_t key)
{
	struct probe p = { .bt = bt };
	struct probe_at at = { .key = key };
	int rc;

	if (!key_space(op->fs, c->kind, key, &p))
		return bt_delete(bt, &(struct bt_key){ { key } });
	rc = bt_seek(bt, &at.cur, &(struct bt_key){ { key } }, BT_GE);
	return rc ? rc : probe_remove(&p, &at);
}

/* ---- entries ---- */

/* The child follows: its item for the old key becomes one for the new key. */
static int parent_follow(struct op *op, const struct chain *c, uint64_t child, uint64_t old_key,
			 uint64_t new_key)
{
	bool there;
	int rc = mend_child(op, child, &there);

	if (rc || !there)
		return rc;
	rc = mend_parent_drop(op, child, c->ino, old_key);
	if (!rc && new_key)
		rc = mend_parent_drop(op, child, c->ino, new_key);
	if (!rc && new_key)
		rc = parent_add(op, child, c->ino, new_key, c->is.bytes, c->is.len);
	return rc;
}

static int entry_move(struct op *op, struct chain *c, const union any_rec *rec, bool rename)
{
	uint64_t key = le64_get(rec->dirent.de_key), ino = le64_get(rec->dirent.de_ino);
	struct dir_slot slot;
	struct btree bt;
	int rc;

	c->is = c->was;
	chain_tree(op, c, &bt);
	rc = rec_remove(op, c, &bt, key);
	if (!rc && rename)
		rc = mend_name_free(op, c->ino, &c->is);
	if (rc)
		return rc;
	rc = dir_find(op, c->ino, c->is.bytes, c->is.len, &slot);
	if (rc != -ENOENT)
		return rc ? rc : -EEXIST;
	rc = dir_insert(op, &slot, c->is.bytes, c->is.len, ino, rec->dirent.de_type);
	return rc ? rc : parent_follow(op, c, ino, key, slot.entry.key);
}

/* The same name for the same inode twice. */
static int entry_forget(struct op *op, struct chain *c, const union any_rec *rec)
{
	uint64_t key = le64_get(rec->dirent.de_key);
	struct inode_attr dir;
	struct btree bt;
	int rc = inode_get(op, c->ino, &dir);

	c->is.len = 0;
	chain_tree(op, c, &bt);
	if (!rc)
		rc = rec_remove(op, c, &bt, key);
	if (!rc)
		rc = parent_follow(op, c, le64_get(rec->dirent.de_ino), key, 0);
	if (rc)
		return rc;
	dir.size -= dir.size != 0;
	return inode_put(op, &dir);
}

static int entry_mend(struct op *op, struct chain *c, const union any_rec *rec)
{
	uint64_t key = le64_get(rec->dirent.de_key);
	bool is_dots = name_is_dots((const char *)rec->dirent.de_name, rec->dirent.de_namelen);
	struct dir_slot slot;
	int rc;

	c->was.len = rec->dirent.de_namelen;
	memcpy(c->was.bytes, rec->dirent.de_name, c->was.len);
	rc = dir_find(op, c->ino, c->was.bytes, c->was.len, &slot);
	if (rc && rc != -ENOENT && rc != -ENOSPC)
		return rc;
	if (!rc && slot.entry.key == key && !is_dots)
		return 0;
	c->did = true;
	c->about = (struct seen_name){ .child = le64_get(rec->dirent.de_ino), .dir = c->ino, .key = key };
	if (!rc && slot.entry.key != key && slot.entry.ino == c->about.child)
		return entry_forget(op, c, rec);
	return entry_move(op, c, rec, rc == 0 || is_dots);
}

/* ---- attributes and parent items ---- */

static bool attr_same(const void *rec, const void *arg)
{
	const struct m_attr *m = rec, *want = arg;
	size_t len = want->at_type == ATTR_PARENT ? 2 * sizeof(le64) : want->at_namelen;

	return m->at_type == want->at_type &&
	       (want->at_type == ATTR_PARENT || m->at_namelen == want->at_namelen) &&
	       memcmp(m->at_data, want->at_data, len) == 0;
}

static uint64_t attr_hash(const struct fs *fs, const struct m_attr *m)
{
	const le64 *words = (const void *)m->at_data;

	if (m->at_type == ATTR_PARENT)
		return hash_parent(fs, le64_get(words[0]), le64_get(words[1]));
	return hash_name(fs, (const char *)m->at_data, m->at_namelen);
}

static int value_free(struct op *op, const struct m_attr *m)
{
	size_t at = u64_align_up(sizeof(*m) + m->at_namelen, sizeof(le64));
	const le64 *laddrs = (const void *)((const uint8_t *)m + at);
	uint64_t count = u64_div_up(le32_get(m->at_value_len), XVAL_DATA_SIZE);
	int rc = 0;

	if (m->at_type != ATTR_XATTR || !(m->at_flags & ATTR_LARGE))
		return 0;
	for (uint64_t i = 0; i < count && !rc; i++)
		rc = space_meta_free(op->tx, le64_get(laddrs[i]), 1);
	return rc;
}

static int attr_mend(struct op *op, struct chain *c, union any_rec *rec, size_t size_bytes)
{
	uint64_t key = le64_get(rec->attr.at_key);
	struct btree bt;
	struct probe p = { .bt = &bt, .match = attr_same, .arg = &rec->attr };
	struct probe_at at;
	int rc;

	key_space(op->fs, NODE_ATTR, key, &p);
	chain_tree(op, c, &bt);
	rc = probe_find(&p, attr_hash(op->fs, &rec->attr), &at);
	if (rc && rc != -ENOENT && rc != -ENOSPC)
		return rc;
	if (!rc && at.key == key)
		return 0;
	c->did = true;
	c->about = (struct seen_name){ .child = c->ino, .key = key };
	c->was.len = rec->attr.at_type == ATTR_XATTR ? rec->attr.at_namelen : 0;
	memcpy(c->was.bytes, rec->attr.at_data, c->was.len);
	c->is.len = 0;
	if (!rc) { /* there twice */
		rc = value_free(op, &rec->attr);
		return rc ? rc : rec_remove(op, c, &bt, key);
	}
	c->is = c->was;
	rc = rec_remove(op, c, &bt, key);
	if (rc)
		return rc;
	rc = probe_find(&p, attr_hash(op->fs, &rec->attr), &at);
	if (rc != -ENOENT)
		return rc ? rc : -EUCLEAN;
	rec->attr.at_key = le64_of(at.key);
	return probe_put(&p, &at, rec, size_bytes);
}

/* ---- the pass ---- */

/* Goes on to the first record that has to be mended, and mends it. */
static int chain_op(struct op *op, void *arg)
{
	struct chain *c = arg;
	uint64_t key = c->key;
	struct btree bt;
	int rc = op_inode(op, c->ino, true, NULL);

	c->did = c->end = false;
	if (rc)
		return rc;
	chain_tree(op, c, &bt);
	for (;;) {
		union any_rec rec;
		size_t size_bytes;

		rc = rec_copy(&bt, key, &rec, &size_bytes, false);
		if (rc)
			break;
		key = probe_key(&rec);
		if (probe_is_tomb(c->kind, &rec))
			rc = tomb_mend(op, c, &bt, key);
		else if (c->kind == NODE_DIR)
			rc = entry_mend(op, c, &rec);
		else
			rc = attr_mend(op, c, &rec, size_bytes);
		if (rc || c->did || key == UINT64_MAX)
			break;
		key++;
	}
	c->end = rc == -ENOENT || key == UINT64_MAX;
	if (rc && !(c->end && !c->did))
		return rc == -ENOENT ? -EUCLEAN : rc;
	c->key = key;
	return c->did ? 0 : MEND_NOTHING;
}

static void chain_told(struct mend *m, const struct chain *c)
{
	if (c->kind == NODE_ATTR) {
		if (c->was.len && !c->is.len)
			repair_told(m->rp, REPAIR_LOST, "%s: attribute %.*s was there twice: one removed",
				    mend_path(m, c->ino), (int)c->was.len, c->was.bytes);
		else
			repair_told(m->rp, REPAIR_MENDED, "%s: order of its attributes",
				    mend_path(m, c->ino));
	} else if (c->about.child == 0) {
		repair_told(m->rp, REPAIR_MENDED, "%s: order of its entries", mend_path(m, c->ino));
	} else if (c->is.len == 0) {
		repair_told(m->rp, REPAIR_MENDED, "%s: was there twice", mend_entry_path(m, c->ino, &c->was));
	} else if (c->is.len != c->was.len || memcmp(c->is.bytes, c->was.bytes, c->is.len) != 0) {
		repair_told(m->rp, REPAIR_MENDED, "%s: name in use twice, now %.*s",
			    mend_entry_path(m, c->ino, &c->was), (int)c->is.len, c->is.bytes);
	} else {
		repair_told(m->rp, REPAIR_MENDED, "%s: could not be found by its name",
			    mend_entry_path(m, c->ino, &c->was));
	}
}

static int chain_mend(struct mend *m, uint64_t ino, enum node_kind kind)
{
	struct chain c = { .m = m, .ino = ino, .kind = kind };
	uint64_t steps_max = m->ck->names.count + m->ck->parents.count + 1000000;
	int rc;

	do {
		c.about.child = 0;
		c.was.len = c.is.len = 0;
		rc = mend_run(m, chain_op, &c, "put the names in order of inode", ino);
		if (rc == 1)
			chain_told(m, &c);
	} while (rc == 1 && !c.end && steps_max-- != 0);
	return rc < 0 ? rc : 0;
}

int mend_dir_chain(struct mend *m, uint64_t dir)
{
	return chain_mend(m, dir, NODE_DIR);
}

int mend_attr_chain(struct mend *m, uint64_t ino)
{
	return chain_mend(m, ino, NODE_ATTR);
}
