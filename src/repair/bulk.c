/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A tree from sorted records: leaves from left to right, then level by level what leads to them, until it fits into the root.
 *
 * Nodes are filled to seven eighths, so that the first insertions do not split them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "repair/base.h"

struct entry {
	struct bt_key key;
	uint64_t laddr, high;
};

struct builder {
	struct repair *rp;
	uint32_t agno;
	enum node_kind kind;
	uint64_t owner;
	const struct node_ops *ops;
	const void *recs;
	size_t count;
	struct entry *entries; /* of the level that was built last */
	size_t entry_count;
	struct m_node *node; /* being filled */
};

static const void *rec_at(const struct builder *b, size_t i)
{
	if (b->ops->rec_size_bytes)
		return (const uint8_t *)b->recs + i * b->ops->rec_size_bytes;
	return ((const void *const *)b->recs)[i];
}

/* 0: it makes no sense. */
static size_t rec_size(const struct builder *b, size_t i)
{
	return b->ops->rec_size_bytes ? b->ops->rec_size_bytes : b->ops->rec_size(rec_at(b, i), NODE_REC_MAX);
}

static int recs_check(const struct builder *b)
{
	struct bt_key last = { 0 };

	for (size_t i = 0; i < b->count; i++) {
		size_t size = rec_size(b, i);
		struct bt_key key;

		if (size == 0 || b->ops->rec_check(rec_at(b, i), size) != NULL)
			return -EUCLEAN;
		b->ops->rec_key(rec_at(b, i), &key);
		if (i > 0 && bt_key_compare(&last, &key, b->ops->key_words) >= 0)
			return -EUCLEAN;
		if (i > 0 && b->ops->rec_high && !b->ops->is_range &&
		    b->ops->rec_high(rec_at(b, i - 1)) >= key.w[0])
			return -EUCLEAN;
		last = key;
	}
	return 0;
}

/* Records from first on into an empty body, as many as fit into limit_bytes of it; their number. */
static size_t leaf_fill(const struct builder *b, size_t first, void *body, size_t size_bytes,
			size_t limit_bytes)
{
	struct m_node_body *head = body;
	le16 *slots = (le16 *)(void *)head->nb_space;
	size_t room = limit_bytes - sizeof(*head), heap = size_bytes, n = 0;

	for (; first + n < b->count && n < UINT16_MAX; n++) {
		size_t size = rec_size(b, first + n);
		size_t need = size + (b->ops->rec_size_bytes ? 0 : sizeof(le16));

		if (need > room)
			break;
		room -= need;
		if (b->ops->rec_size_bytes) {
			memcpy(head->nb_space + n * size, rec_at(b, first + n), size);
			continue;
		}
		heap -= size;
		memcpy((uint8_t *)body + heap, rec_at(b, first + n), size);
		slots[n] = le16_of((uint16_t)heap);
	}
	head->nb_count = le16_of((uint16_t)n);
	head->nb_kind = (uint8_t)b->kind;
	if (!b->ops->rec_size_bytes && heap != size_bytes)
		head->nb_heap = le16_of((uint16_t)heap);
	return n;
}

static size_t entry_size(const struct builder *b)
{
	return (b->ops->key_words + 1u + b->ops->is_range) * sizeof(le64);
}

static size_t inner_fill(const struct builder *b, size_t first, unsigned level, void *body,
			 size_t limit_bytes)
{
	struct m_node_body *head = body;
	size_t n = u64_min((limit_bytes - sizeof(*head)) / entry_size(b), b->entry_count - first);

	for (size_t i = 0; i < n; i++) {
		const struct entry *e = &b->entries[first + i];
		le64 *w = (le64 *)(void *)(head->nb_space + i * entry_size(b));

		for (unsigned k = 0; k < b->ops->key_words; k++)
			*w++ = le64_of(e->key.w[k]);
		*w++ = le64_of(e->laddr);
		if (b->ops->is_range)
			*w = le64_of(e->high);
	}
	head->nb_count = le16_of((uint16_t)n);
	head->nb_kind = (uint8_t)b->kind;
	head->nb_level = (uint8_t)level;
	return n;
}

static int node_put(struct builder *b, uint64_t *laddr)
{
	/* Trees of a group lie in it; those of inodes where there is room. */
	int rc = repair_unit_alloc(b->rp, b->agno, !(b->owner & OWNER_SPECIAL), laddr);

	b->node->nd_hdr.uh_owner = le64_of(b->owner);
	return rc ? rc : repair_unit_write(b->rp, *laddr, MAGIC_NODE, b->node);
}

#define NODE_FILL (NODE_BODY_SIZE / 8 * 7)

/* room: how many entries there can be. */
static int leaves_build(struct builder *b, size_t room)
{
	for (size_t first = 0, n; first < b->count; first += n) {
		struct entry *e = &b->entries[b->entry_count];
		int rc;

		if (b->entry_count == room)
			return -EOVERFLOW;
		memset(b->node, 0, sizeof(*b->node));
		n = leaf_fill(b, first, b->node->nd_body, NODE_BODY_SIZE, NODE_FILL);
		*e = (struct entry){ 0 };
		/* What leads to the first leaf has the lower bound of the tree. */
		if (first != 0)
			b->ops->rec_key(rec_at(b, first), &e->key);
		for (size_t i = 0; i < n && b->ops->rec_high; i++)
			e->high = u64_max(e->high, b->ops->rec_high(rec_at(b, first + i)));
		rc = node_put(b, &e->laddr);
		if (rc)
			return rc;
		b->entry_count++;
	}
	return 0;
}

/* One level more above the entries, which then are those of the new level. */
static int level_build(struct builder *b, unsigned level)
{
	size_t out = 0;

	for (size_t first = 0, n; first < b->entry_count; first += n) {
		struct entry e = b->entries[first];
		int rc;

		memset(b->node, 0, sizeof(*b->node));
		n = inner_fill(b, first, level, b->node->nd_body, NODE_FILL);
		for (size_t i = 0; i < n; i++)
			e.high = u64_max(e.high, b->entries[first + i].high);
		rc = node_put(b, &e.laddr);
		if (rc)
			return rc;
		b->entries[out++] = e;
	}
	b->entry_count = out;
	return 0;
}

static int tree_build(struct builder *b, void *root, size_t root_size_bytes)
{
	/* A leaf takes all but one record of the largest size, or more. */
	size_t least = b->ops->rec_size_bytes ?
			       (NODE_FILL - sizeof(struct m_node_body)) / b->ops->rec_size_bytes :
			       (NODE_FILL - sizeof(struct m_node_body)) / (NODE_REC_MAX + 2);
	size_t room = b->count / least + 1;
	unsigned level = 1;
	int rc;

	b->node = aligned_alloc(64, sizeof(*b->node));
	b->entries = malloc(room * sizeof(*b->entries));
	rc = b->node && b->entries ? leaves_build(b, room) : -ENOMEM;
	for (; !rc && b->entry_count * entry_size(b) > root_size_bytes - sizeof(struct m_node_body); level++)
		rc = level + 1 < NODE_LEVELS_MAX ? level_build(b, level) : -EFBIG;
	if (!rc)
		inner_fill(b, 0, level, root, root_size_bytes);
	free(b->node);
	free(b->entries);
	return rc;
}

int repair_bulk(struct repair *rp, uint32_t agno, enum node_kind kind, uint64_t owner, const void *recs,
		size_t count, void *root, size_t root_size_bytes)
{
	struct builder b = {
		.rp = rp,
		.agno = agno,
		.kind = kind,
		.owner = owner,
		.ops = node_ops(kind),
		.recs = recs,
		.count = count,
	};
	int rc;

	assert(b.ops);
	memset(root, 0, root_size_bytes);
	if (count == 0)
		return 0;
	rc = recs_check(&b);
	if (rc)
		return rc;
	if (leaf_fill(&b, 0, root, root_size_bytes, root_size_bytes) == count)
		return 0;
	memset(root, 0, root_size_bytes);
	return tree_build(&b, root, root_size_bytes);
}
