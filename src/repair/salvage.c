/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading what is left of the trees of an inode, by hand and silently.
 *
 * Content is not trusted: no node of a tree is entered twice, each step goes down one level.
 */
#include "repair/salvage.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PATH_DEPTH_MAX 64u

/* ---- a set of addresses ---- */

static bool set_put(struct laddr_set *set, uint64_t laddr)
{
	size_t i = (laddr >> BLOCK_SHIFT) * 0x9e3779b97f4a7c15ull >> 20 & (set->room - 1);

	while (set->slots[i] != 0 && set->slots[i] != laddr)
		i = (i + 1) & (set->room - 1);
	if (set->slots[i] == laddr)
		return false;
	set->slots[i] = laddr;
	set->count++;
	return true;
}

bool laddr_set_add(struct laddr_set *set, uint64_t laddr, int *error)
{
	if (set->count * 2 >= set->room) {
		struct laddr_set more = { .room = set->room ? set->room * 2 : 64 };

		more.slots = calloc(more.room, sizeof(*more.slots));
		if (!more.slots) {
			*error = -ENOMEM;
			return false;
		}
		for (size_t i = 0; i < set->room; i++) {
			if (set->slots[i])
				set_put(&more, set->slots[i]);
		}
		free(set->slots);
		*set = more;
	}
	return set_put(set, laddr);
}

/* ---- trees ---- */

struct leaves {
	struct salvage *s;
	uint64_t ino;
	enum node_kind kind;
	struct laddr_set seen;
	uint64_t lost_nodes, lost_leaves;
	salvage_fn fn;
	void *arg;
};

static void leaf_each(struct leaves *l, const struct m_node_body *body, size_t size_bytes, uint64_t seq)
{
	const struct node_ops *ops = node_ops(l->kind);

	for (unsigned i = 0; i < node_count(body); i++) {
		const uint8_t *rec = body->nb_space + (size_t)i * ops->rec_size_bytes;
		size_t rec_size = ops->rec_size_bytes;

		if (rec_size == 0) {
			size_t off = le16_get(((const le16 *)(const void *)body->nb_space)[i]);

			rec = (const uint8_t *)body + off;
			rec_size = ops->rec_size(rec, size_bytes - off);
		}
		l->fn(l->arg, rec, rec_size, seq);
	}
}

/* Whether another inode has a better claim on the node than the one whose tree leads to it. */
static bool is_of_other(const struct leaves *l, const struct m_node *node)
{
	uint64_t owner = unit_owner(node);
	const struct seen_inode *other = owner == l->ino ? NULL : seen_inode_find(l->s->ck, owner);

	if (!other)
		return owner != l->ino && (owner & OWNER_SPECIAL);
	if (l->kind == NODE_DIR)
		return other->mode_fmt == S_IFDIR;
	if (l->kind == NODE_EXTENT)
		return other->mode_fmt == S_IFREG || other->mode_fmt == S_IFLNK;
	return true;
}

static void body_each(struct leaves *l, const struct m_node_body *body, size_t size_bytes, uint64_t seq);

static void child_each(struct leaves *l, uint64_t laddr, unsigned level)
{
	struct repair *rp = l->s->rp;
	const struct m_node_body *body;
	struct m_node *node;

	if (!laddr_set_add(&l->seen, laddr, &rp->error))
		return;
	node = aligned_alloc(64, sizeof(*node));
	if (!node) {
		rp->error = -ENOMEM;
		return;
	}
	body = (const void *)node->nd_body;
	if (repair_unit_read(rp, laddr, MAGIC_NODE, 0, node) && node_level(body) == level &&
	    body->nb_kind == l->kind && !is_of_other(l, node)) {
		body_each(l, body, NODE_BODY_SIZE, le64_get(node->nd_hdr.uh_seq));
	} else {
		l->lost_nodes++;
		l->lost_leaves += level == 0;
	}
	free(node);
}

/* Sound by itself. */
static void body_each(struct leaves *l, const struct m_node_body *body, size_t size_bytes, uint64_t seq)
{
	size_t words = node_ops(l->kind)->key_words + 1u;

	if (node_count(body) == 0)
		return;
	if (node_level(body) == 0) {
		leaf_each(l, body, size_bytes, seq);
		return;
	}
	for (unsigned i = 0; i < node_count(body); i++) {
		const le64 *w = (const le64 *)(const void *)body->nb_space + i * words;

		child_each(l, le64_get(w[words - 1]), node_level(body) - 1u);
	}
}

static void strays_each(struct leaves *l)
{
	_Alignas(64) struct m_node node;
	const struct m_node_body *body = (const void *)node.nd_body;
	const struct stray *strays;
	size_t count;

	strays = salvage_strays(l->s, l->ino, &count);
	for (size_t i = 0; i < count; i++) {
		if (strays[i].kind != l->kind || strays[i].level != 0 ||
		    !laddr_set_add(&l->seen, strays[i].laddr, &l->s->rp->error) ||
		    !repair_unit_read(l->s->rp, strays[i].laddr, MAGIC_NODE, l->ino, &node))
			continue;
		if (body->nb_kind == l->kind && node_level(body) == 0)
			leaf_each(l, body, NODE_BODY_SIZE, strays[i].seq);
	}
}

/* The root of a tree in a record that passed its check; NULL: it has no such tree. */
static const struct m_node_body *root_of(const struct m_inode *m, enum node_kind kind, size_t *size_bytes)
{
	unsigned format = kind == NODE_DIR ? DATA_DIR : DATA_EXTENTS;

	if (kind == NODE_ATTR) {
		*size_bytes = INODE_ATTR_SIZE;
		return (const void *)m->di_attr;
	}
	*size_bytes = INODE_DATA_SIZE;
	return m->di_data_format == format ? (const void *)m->di_data : NULL;
}

void salvage_leaves(struct salvage *s, struct patient *p, enum node_kind kind, salvage_fn fn, void *arg)
{
	struct leaves l = { .s = s, .ino = p->attr.ino, .kind = kind, .fn = fn, .arg = arg };
	size_t size_bytes;
	const struct m_node_body *root = root_of(p->m, kind, &size_bytes);

	if (root)
		body_each(&l, root, size_bytes, le64_get(p->m->di_hdr.uh_seq));
	strays_each(&l);
	free(l.seen.slots);
	p->lost_nodes = l.lost_nodes;
	p->lost_leaves = l.lost_leaves;
}

/* ---- rows ---- */

const struct stray *salvage_strays(const struct salvage *s, uint64_t owner, size_t *count)
{
	return rows_find(&s->strays, sizeof(struct stray), offsetof(struct stray, owner), owner, count);
}

const struct rmap *salvage_rmap(const struct salvage *s, uint64_t owner, size_t *count)
{
	return rows_find(&s->rmap, sizeof(struct rmap), offsetof(struct rmap, owner), owner, count);
}

const struct seen_name *salvage_rows(const struct rows *rows, uint64_t child, size_t *count)
{
	return rows_find(rows, sizeof(struct seen_name), offsetof(struct seen_name, child), child, count);
}

const struct seen_name *salvage_items(const struct salvage *s, uint64_t dir, size_t *count)
{
	return rows_find(&s->items_by_dir, sizeof(struct seen_name), offsetof(struct seen_name, dir), dir,
			 count);
}

/* ---- names ---- */

struct name_find {
	const struct seen_name *want;
	struct name_text *name;
	bool found;
};

static void name_take(struct name_find *f, const void *bytes, size_t len)
{
	if ((uint32_t)name_hash(bytes, len) != f->want->name_hash)
		return;
	f->found = true;
	f->name->len = len;
	memcpy(f->name->bytes, bytes, len);
}

static void entry_look(void *arg, const void *rec, size_t size_bytes, uint64_t seq)
{
	struct name_find *f = arg;
	const struct m_dirent *m = rec;

	(void)size_bytes, (void)seq;
	if (le64_get(m->de_key) == f->want->key && m->de_namelen != 0)
		name_take(f, m->de_name, m->de_namelen);
}

static void item_look(void *arg, const void *rec, size_t size_bytes, uint64_t seq)
{
	struct name_find *f = arg;
	const struct m_attr *m = rec;
	const le64 *words = (const void *)m->at_data;

	(void)size_bytes, (void)seq;
	if (m->at_type == ATTR_PARENT && le64_get(words[0]) == f->want->dir &&
	    le64_get(words[1]) == f->want->key)
		name_take(f, m->at_data + 2 * sizeof(le64), m->at_namelen);
}

/* The child of an inner body that leads to the key. */
static uint64_t body_child(const struct m_node_body *body, uint64_t key)
{
	const le64 *w = (const le64 *)(const void *)body->nb_space;
	unsigned i = node_count(body) - 1;

	while (i > 0 && le64_get(w[i * 2u]) > key)
		i--;
	return le64_get(w[i * 2u + 1]);
}

bool salvage_entry_name(struct salvage *s, const struct seen_name *entry, struct name_text *name)
{
	_Alignas(64) struct m_inode m;
	_Alignas(64) struct m_node node;
	struct name_find f = { .want = entry, .name = name };
	struct leaves l = { .s = s, .ino = entry->dir, .kind = NODE_DIR, .fn = entry_look, .arg = &f };
	const struct m_node_body *body;
	size_t size_bytes;

	name->len = 0;
	if (!repair_unit_read(s->rp, entry->dir << INODE_SHIFT, MAGIC_INODE, entry->dir, &m))
		return false;
	body = root_of(&m, NODE_DIR, &size_bytes);
	if (!body || node_count(body) == 0)
		return false;
	while (node_level(body) > 0) {
		unsigned level = node_level(body) - 1u;

		if (!repair_unit_read(s->rp, body_child(body, entry->key), MAGIC_NODE, 0, &node))
			return false;
		body = (const void *)node.nd_body;
		size_bytes = NODE_BODY_SIZE;
		if (node_level(body) != level || body->nb_kind != NODE_DIR)
			return false;
	}
	leaf_each(&l, body, size_bytes, 0);
	return f.found;
}

bool salvage_item_name(struct salvage *s, const struct seen_name *item, struct name_text *name)
{
	_Alignas(64) struct m_inode m;
	struct patient p = { .m = &m, .attr = { .ino = item->child } };
	struct name_find f = { .want = item, .name = name };

	name->len = 0;
	if (!repair_unit_read(s->rp, item->child << INODE_SHIFT, MAGIC_INODE, item->child, &m))
		return false;
	salvage_leaves(s, &p, NODE_ATTR, item_look, &f);
	return f.found;
}

/* One step up: the name of an inode and its directory. */
static bool name_above(struct salvage *s, uint64_t ino, struct name_text *name, uint64_t *dir)
{
	size_t count;
	const struct seen_name *rows = salvage_rows(&s->ck->names, ino, &count);

	for (size_t i = 0; i < count; i++) {
		*dir = rows[i].dir;
		if (salvage_entry_name(s, &rows[i], name))
			return true;
	}
	rows = salvage_rows(&s->ck->parents, ino, &count);
	for (size_t i = 0; i < count; i++) {
		*dir = rows[i].dir;
		if (salvage_item_name(s, &rows[i], name))
			return true;
	}
	return false;
}

const char *salvage_path(struct salvage *s, uint64_t ino)
{
	size_t at = sizeof(s->path) - 1;
	uint64_t now = ino;

	s->path[at] = 0;
	for (unsigned depth = 0; now != INODE_ROOT && depth < PATH_DEPTH_MAX; depth++) {
		struct name_text name;
		uint64_t dir;

		if (!name_above(s, now, &name, &dir))
			break;
		if (at < name.len + 1 + 32) {
			s->path[--at] = '~'; /* the beginning is left out */
			now = INODE_ROOT;
			break;
		}
		at -= name.len;
		memcpy(s->path + at, name.bytes, name.len);
		s->path[--at] = '/';
		now = dir;
	}
	if (now != INODE_ROOT) { /* what is above has no name */
		char from[32];
		size_t len = (size_t)snprintf(from, sizeof(from), "inode %" PRIu64, now);

		at -= len;
		memcpy(s->path + at, from, len);
	} else if (s->path[at] == 0) {
		s->path[--at] = '/';
	}
	repair_text_clean(s->path + at);
	return s->path + at;
}
