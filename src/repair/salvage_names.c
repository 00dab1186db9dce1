/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Directories and attribute trees from their leaves and from each other: a parent item says which entry there was, with its key and
 * name, and an entry which parent item.
 *
 * Keys are kept, so readdir cookies stay good and both sides agree. Where two records want one key the later one takes the next; what
 * looking up then does not find is put in order with the other names (chain_mend.c).
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "repair/salvage.h"

/* A record in the arena. */
struct left {
	uint64_t key, seq;
	uint64_t id; /* hash of what must not be there twice */
	size_t off;  /* in the arena */
	uint32_t size_bytes;
	bool is_tomb, gone;
};

struct names {
	struct salvage *s;
	struct patient *p;
	enum node_kind kind;
	struct rows recs;        /* struct left */
	struct rows arena;       /* bytes, each record aligned to 8 */
	struct laddr_set values; /* units of large values */
};

static const void *rec_of(const struct names *n, const struct left *rec)
{
	return (const uint8_t *)n->arena.data + rec->off;
}

/* Room for a record of size_bytes, zeroed; NULL: no memory. */
static void *rec_new(struct names *n, uint64_t key, size_t size_bytes, uint64_t seq, bool is_tomb)
{
	struct left *row = rows_add(n->s->ck, &n->recs, sizeof(*row));
	size_t off = n->arena.count * sizeof(le64);

	for (size_t i = 0; row && i < size_bytes; i += sizeof(le64)) {
		le64 *word = rows_add(n->s->ck, &n->arena, sizeof(*word));

		if (!word)
			return NULL;
		*word = le64_of(0);
	}
	if (!row)
		return NULL;
	*row = (struct left){
		.key = key, .seq = seq, .off = off, .size_bytes = (uint32_t)size_bytes, .is_tomb = is_tomb
	};
	return (uint8_t *)n->arena.data + off;
}

static void names_free(struct names *n)
{
	rows_free(&n->recs);
	rows_free(&n->arena);
	free(n->values.slots);
}

/* ---- what makes two records the same ---- */

/* The bytes that must not be there twice. */
static const uint8_t *rec_id(const struct names *n, const struct left *rec, size_t *len, unsigned *type)
{
	const void *raw = rec_of(n, rec);
	const struct m_dirent *d = raw;
	const struct m_attr *a = raw;

	if (n->kind == NODE_DIR) {
		*type = 0;
		*len = d->de_namelen;
		return d->de_name;
	}
	*type = a->at_type;
	*len = a->at_type == ATTR_PARENT ? 2 * sizeof(le64) : a->at_namelen;
	return a->at_data;
}

static bool rec_same(const struct names *n, const struct left *x, const struct left *y)
{
	const uint8_t *x_id, *y_id;
	unsigned x_type, y_type;
	size_t x_len, y_len;

	x_id = rec_id(n, x, &x_len, &x_type);
	y_id = rec_id(n, y, &y_len, &y_type);
	return x_type == y_type && x_len == y_len && memcmp(x_id, y_id, x_len) == 0;
}

static int id_compare(const void *a, const void *b)
{
	const struct left *x = a, *y = b;

	if (x->id != y->id)
		return x->id < y->id ? -1 : 1;
	if (x->seq != y->seq)
		return x->seq > y->seq ? -1 : 1;
	return x->key < y->key ? -1 : x->key > y->key;
}

/* Of two directory entries of one name both stay if they lead to different inodes: who is right shows later. */
static bool is_older_twin(const struct names *n, const struct left *first, const struct left *rec)
{
	const struct m_dirent *x = rec_of(n, first), *y = rec_of(n, rec);

	return rec_same(n, first, rec) && (n->kind != NODE_DIR || le64_get(x->de_ino) == le64_get(y->de_ino));
}

/* Sorts by identity and marks older twins as gone. */
static void twins_drop(struct names *n)
{
	struct left *all = n->recs.data, *first = NULL;

	for (size_t i = 0; i < n->recs.count; i++) {
		unsigned type;
		size_t len;
		const uint8_t *id = rec_id(n, &all[i], &len, &type);

		all[i].id = name_hash(id, len) + type;
	}
	if (n->recs.count)
		qsort(all, n->recs.count, sizeof(*all), id_compare);
	for (size_t i = 0; i < n->recs.count; i++) {
		if (all[i].is_tomb)
			continue;
		if (first && is_older_twin(n, first, &all[i]))
			all[i].gone = true;
		else
			first = &all[i];
	}
}

/* After twins_drop(): a record with these bytes as identity. */
static bool id_is_there(const struct names *n, size_t count, unsigned type, const void *id, size_t len)
{
	const struct left *all = n->recs.data;
	uint64_t want = name_hash(id, len) + type;
	size_t lo = 0, hi = count;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (all[mid].id < want)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < count && all[lo].id == want; lo++) {
		unsigned rec_type;
		size_t rec_len;
		const uint8_t *rec = rec_id(n, &all[lo], &rec_len, &rec_type);

		if (!all[lo].is_tomb && rec_type == type && rec_len == len && memcmp(rec, id, len) == 0)
			return true;
	}
	return false;
}

/* ---- keys ---- */

static int key_compare(const void *a, const void *b)
{
	const struct left *x = a, *y = b;

	if (x->key != y->key)
		return x->key < y->key ? -1 : 1;
	if (x->is_tomb != y->is_tomb)
		return x->is_tomb ? 1 : -1;
	return x->seq > y->seq ? -1 : x->seq < y->seq;
}

/* Each record gets a key of its own; a tombstone whose key somebody has is not needed. */
static void keys_settle(struct names *n)
{
	struct left *all = n->recs.data;
	uint64_t next = 0;

	if (n->recs.count)
		qsort(all, n->recs.count, sizeof(*all), key_compare);
	for (size_t i = 0; i < n->recs.count; i++) {
		if (all[i].gone)
			continue;
		if (all[i].key < next && all[i].is_tomb) {
			all[i].gone = true;
			continue;
		}
		all[i].key = u64_max(all[i].key, next);
		next = all[i].key + 1;
		*(le64 *)(void *)((uint8_t *)n->arena.data + all[i].off) = le64_of(all[i].key);
	}
}

/* The tree, into a root. *count: records that are no tombstones. */
static int names_write(struct names *n, void *root, size_t root_size_bytes, uint64_t *count)
{
	const struct left *all = n->recs.data;
	struct repair *rp = n->s->rp;
	const void **recs;
	size_t out = 0;
	int rc;

	*count = 0;
	keys_settle(n);
	if (n->s->ck->error || rp->error)
		return -ENOMEM;
	recs = calloc(n->recs.count + 1, sizeof(*recs));
	if (!recs)
		return -ENOMEM;
	for (size_t i = 0; i < n->recs.count; i++) {
		if (all[i].gone)
			continue;
		*count += !all[i].is_tomb;
		recs[out++] = rec_of(n, &all[i]);
	}
	rc = repair_bulk(rp, pool_laddr_ag(rp->pool, n->p->attr.ino << INODE_SHIFT), n->kind, n->p->attr.ino,
			 (const void *)recs, out, root, root_size_bytes);
	free(recs);
	return rc;
}

static void rec_copy(struct names *n, const void *rec, size_t size_bytes, uint64_t seq, bool is_tomb)
{
	void *room = rec_new(n, le64_get(*(const le64 *)rec), size_bytes, seq, is_tomb);

	if (room)
		memcpy(room, rec, size_bytes);
}

/* ---- directories ---- */

static void entry_left(void *arg, const void *rec, size_t size_bytes, uint64_t seq)
{
	rec_copy(arg, rec, size_bytes, seq, ((const struct m_dirent *)rec)->de_namelen == 0);
}

/* The entry that a parent item tells of. */
static void entry_from_item(struct names *n, size_t known, const struct seen_name *item)
{
	const struct seen_inode *child = seen_inode_find(n->s->ck, item->child);
	struct name_text name;
	struct m_dirent *m;
	size_t size_bytes;

	if (!child || child->ino == INODE_ROOT || (child->nlink == 0 && child->mode_fmt != 0) ||
	    !salvage_item_name(n->s, item, &name) || memchr(name.bytes, '/', name.len) ||
	    memchr(name.bytes, 0, name.len) || id_is_there(n, known, 0, name.bytes, name.len))
		return;
	size_bytes = u64_align_up(sizeof(*m) + name.len, 8);
	m = rec_new(n, item->key, size_bytes, 0, false);
	if (!m)
		return;
	m->de_len_bytes = le16_of((uint16_t)size_bytes);
	m->de_type = child->mode_fmt ? (uint8_t)IFTODT(child->mode_fmt) : DT_REG;
	m->de_namelen = (uint8_t)name.len;
	m->de_ino = le64_of(item->child);
	memcpy((uint8_t *)m + sizeof(*m), name.bytes, name.len);
}

int salvage_dir(struct salvage *s, struct patient *p)
{
	struct names n = { .s = s, .p = p, .kind = NODE_DIR };
	const struct seen_name *items;
	size_t count, known;
	uint64_t entries;
	int rc;

	salvage_leaves(s, p, NODE_DIR, entry_left, &n);
	twins_drop(&n);
	known = n.recs.count;
	items = salvage_items(s, p->attr.ino, &count);
	for (size_t i = 0; i < count; i++)
		entry_from_item(&n, known, &items[i]);
	rc = names_write(&n, p->m->di_data, INODE_DATA_SIZE, &entries);
	if (!rc) {
		if (!p->was_lost && entries < p->attr.size && p->lost_nodes)
			repair_told(s->rp, REPAIR_LOST, "%s: %" PRIu64 " of its %" PRIu64 " entries are lost",
				    salvage_path(s, p->attr.ino), p->attr.size - entries, p->attr.size);
		p->attr.size = entries;
		p->attr.data_format = DATA_DIR;
	}
	names_free(&n);
	return rc;
}

/* ---- attributes and parent items ---- */

/* Whether all units of a large value are there. */
static bool value_is_whole(struct names *n, const struct m_attr *m)
{
	struct repair *rp = n->s->rp;
	const le64 *laddrs =
		(const void *)((const uint8_t *)m + u64_align_up(sizeof(*m) + m->at_namelen, sizeof(le64)));
	uint64_t left = le32_get(m->at_value_len);
	_Alignas(64) struct m_xval x;

	if (m->at_type != ATTR_XATTR || !(m->at_flags & ATTR_LARGE))
		return true;
	for (unsigned i = 0; left != 0; i++) {
		uint64_t part = u64_min(left, XVAL_DATA_SIZE);

		if (!repair_unit_read(rp, le64_get(laddrs[i]), MAGIC_XVAL, n->p->attr.ino, &x) ||
		    le32_get(x.xv_len_bytes) != part ||
		    !laddr_set_add(&n->values, le64_get(laddrs[i]), &rp->error))
			return false;
		left -= part;
	}
	return true;
}

static void attr_left(void *arg, const void *rec, size_t size_bytes, uint64_t seq)
{
	struct names *n = arg;
	const struct m_attr *m = rec;

	if (value_is_whole(n, m)) {
		rec_copy(n, rec, size_bytes, seq, m->at_type == ATTR_TOMB);
		return;
	}
	repair_told(n->s->rp, REPAIR_LOST, "%s: attribute %.*s: a part of its value is lost: removed",
		    salvage_path(n->s, n->p->attr.ino), (int)m->at_namelen, (const char *)m->at_data);
}

/* The parent item that an entry tells of. */
static void item_from_entry(struct names *n, size_t known, const struct seen_name *entry)
{
	uint64_t key = parent_key(n->s->ck, entry->dir, entry->key);
	le64 words[2] = { le64_of(entry->dir), le64_of(entry->key) };
	struct name_text name;
	struct m_attr *m;
	size_t size_bytes;

	if (id_is_there(n, known, ATTR_PARENT, words, sizeof(words)) ||
	    !salvage_entry_name(n->s, entry, &name))
		return;
	size_bytes = u64_align_up(sizeof(*m) + sizeof(words) + name.len, 8);
	m = rec_new(n, key, size_bytes, 0, false);
	if (!m)
		return;
	m->at_len_bytes = le16_of((uint16_t)size_bytes);
	m->at_type = ATTR_PARENT;
	m->at_namelen = (uint8_t)name.len;
	memcpy((uint8_t *)m + sizeof(*m), words, sizeof(words));
	memcpy((uint8_t *)m + sizeof(*m) + sizeof(words), name.bytes, name.len);
}

int salvage_attr(struct salvage *s, struct patient *p)
{
	struct names n = { .s = s, .p = p, .kind = NODE_ATTR };
	const struct seen_name *entries;
	size_t count, known;
	uint64_t records;
	int rc;

	salvage_leaves(s, p, NODE_ATTR, attr_left, &n);
	twins_drop(&n);
	known = n.recs.count;
	entries = p->attr.ino == INODE_ROOT ? NULL : salvage_rows(&s->ck->names, p->attr.ino, &count);
	for (size_t i = 0; entries && i < count; i++)
		item_from_entry(&n, known, &entries[i]);
	rc = names_write(&n, p->m->di_attr, INODE_ATTR_SIZE, &records);
	/* Below a lost inner node nobody knows how many leaves there were. */
	if (!rc && !p->was_lost && (p->lost_leaves || (p->lost_nodes && s->unreadable)))
		repair_told(s->rp, REPAIR_LOST, "%s: attributes, if there were some in its lost units",
			    salvage_path(s, p->attr.ino));
	names_free(&n);
	return rc;
}
