/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Trees keyed by hash: directory entries, extended attributes, parent items.
 *
 * Invariant: from the hash of any record to its key, every key is in use (by records or tombstones). A tombstone exists only
 * while the key after it is in use:
 *
 *	hash h:   h     h+1   h+2   h+3            h     h+1   h+2             h
 *		| A   | B   | C   |     |   -B   | A   | tomb| C   |    -C   | A   |
 *
 * Keys in use all around the key space, which only tiny test spaces can reach, are the one case in which tombstones stay.
 */
#include "fs/names.h"

#include <errno.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static uint64_t hash_fit(const struct fs *fs, uint64_t hash)
{
	uint64_t key = hash & fs->hash_last;

	return key < HASH_FIRST ? key + HASH_FIRST : key;
}

uint64_t hash_name(const struct fs *fs, const char *name, size_t len)
{
	return hash_fit(fs, XXH3_64bits_withSeed(name, len, fs->name_seed));
}

uint64_t hash_parent(const struct fs *fs, uint64_t dir, uint64_t key)
{
	le64 words[2] = { le64_of(dir), le64_of(key) };

	return ATTR_KEY_PARENT | hash_fit(fs, XXH3_64bits_withSeed(words, sizeof(words), fs->parent_seed));
}

bool probe_is_tomb(enum node_kind kind, const void *rec)
{
	if (kind == NODE_DIR)
		return ((const struct m_dirent *)rec)->de_namelen == 0;
	return ((const struct m_attr *)rec)->at_type == ATTR_TOMB;
}

static uint64_t key_after(const struct probe *p, uint64_t key)
{
	return key == p->last ? p->first : key + 1;
}

static uint64_t key_before(const struct probe *p, uint64_t key)
{
	return key == p->first ? p->last : key - 1;
}

static int seek(const struct probe *p, struct bt_cursor *cur, uint64_t key)
{
	return bt_seek(p->bt, cur, &(struct bt_key){ { key } }, BT_GE);
}

/* The record with this key under a cursor that a seek or step has just moved (with result rc), or *rec = NULL. */
static int rec_at(struct bt_cursor *cur, int rc, uint64_t key, const void **rec)
{
	size_t size_bytes;

	*rec = NULL;
	if (rc == -ENOENT)
		return 0;
	if (!rc)
		rc = bt_get(cur, rec, &size_bytes);
	if (!rc && probe_key(*rec) != key)
		*rec = NULL;
	return rc;
}

int probe_find(const struct probe *p, uint64_t hash, struct probe_at *at)
{
	uint64_t key = hash;
	bool have_free = false;
	const void *rec;
	int rc = seek(p, &at->cur, key);

	at->reuse = false;
	do {
		rc = rec_at(&at->cur, rc, key, &rec);
		if (rc)
			return rc;
		if (!rec) {
			if (!have_free)
				at->key = key;
			return -ENOENT;
		}
		if (probe_is_tomb(p->bt->kind, rec)) {
			if (!have_free)
				at->key = key;
			have_free = at->reuse = true;
		} else if (p->match(rec, p->arg)) {
			at->key = key;
			at->reuse = false;
			return 0;
		}
		rc = key == p->last ? seek(p, &at->cur, p->first) : bt_next(&at->cur);
		key = key_after(p, key);
	} while (key != hash);
	return have_free ? -ENOENT : -ENOSPC;
}

int probe_put(const struct probe *p, const struct probe_at *at, const void *rec, size_t size_bytes)
{
	return at->reuse ? bt_update(p->bt, rec, size_bytes) : bt_insert(p->bt, rec, size_bytes);
}

/* Looks at a neighbour of the cursor's record: in use at all, a tombstone. */
static int look_aside(const struct probe *p, const struct bt_cursor *here, uint64_t key, bool after,
		      bool *used, bool *tomb)
{
	struct bt_cursor cur = *here;
	const void *rec;
	int rc;

	if (key == (after ? p->last : p->first))
		rc = seek(p, &cur, after ? p->first : p->last);
	else
		rc = after ? bt_next(&cur) : bt_prev(&cur);
	rc = rec_at(&cur, rc, after ? key_after(p, key) : key_before(p, key), &rec);
	if (rc)
		return rc;
	*used = rec != NULL;
	*tomb = rec && probe_is_tomb(p->bt->kind, rec);
	return 0;
}

static int bury(const struct probe *p, struct probe_at *at)
{
	union {
		struct m_dirent dirent;
		struct m_attr attr;
	} tomb;

	memset(&tomb, 0, sizeof(tomb));
	if (p->bt->kind == NODE_DIR) {
		tomb.dirent.de_key = le64_of(at->key);
		tomb.dirent.de_len_bytes = le16_of(sizeof(tomb.dirent));
		return bt_replace(&at->cur, &tomb, sizeof(tomb.dirent));
	}
	tomb.attr.at_key = le64_of(at->key);
	tomb.attr.at_len_bytes = le16_of(sizeof(tomb.attr));
	tomb.attr.at_type = ATTR_TOMB;
	return bt_replace(&at->cur, &tomb, sizeof(tomb.attr));
}

/* Tombstones right before key keep nothing together any more. */
static int clean_before(const struct probe *p, uint64_t key)
{
	struct bt_cursor cur;
	const void *rec;
	bool end;
	int rc;

	for (;;) {
		key = key_before(p, key);
		rc = rec_at(&cur, seek(p, &cur, key), key, &rec);
		if (rc || !rec || !probe_is_tomb(p->bt->kind, rec))
			return rc;
		rc = bt_remove(&cur, &end);
		if (rc)
			return rc;
	}
}

int probe_remove(const struct probe *p, struct probe_at *at)
{
	bool used, tomb_after, tomb_before, used_before, end;
	int rc = look_aside(p, &at->cur, at->key, true, &used, &tomb_after);

	if (rc)
		return rc;
	if (used)
		return bury(p, at);
	rc = look_aside(p, &at->cur, at->key, false, &used_before, &tomb_before);
	if (rc)
		return rc;
	rc = bt_remove(&at->cur, &end);
	if (rc || !tomb_before)
		return rc;
	return clean_before(p, at->key);
}
