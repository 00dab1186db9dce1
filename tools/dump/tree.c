/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbradump: following a tree from its embedded root. Each step goes down one level, and a tree has so many nodes at most, so it
 * ends on any content.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "dump.h"

struct follow {
	const struct dump *d;
	enum node_kind kind;
	uint64_t nodes_left;
	int rc;
};

static void body_follow(struct follow *f, const struct m_node_body *body, size_t size_bytes);

static void leaf_follow(const struct m_node_body *body, size_t size_bytes, enum node_kind kind)
{
	const struct node_ops *ops = node_ops(kind);

	for (unsigned i = 0; i < node_count(body); i++) {
		size_t off = sizeof(*body) + (size_t)i * ops->rec_size_bytes;

		if (ops->rec_size_bytes == 0)
			off = le16_get(((const le16 *)(const void *)body->nb_space)[i]);
		dump_record_print(kind, (const uint8_t *)body + off);
	}
	(void)size_bytes;
}

static void child_follow(struct follow *f, uint64_t laddr, unsigned level)
{
	struct m_node *node;
	const char *why;

	if (f->nodes_left == 0)
		return;
	f->nodes_left--;
	node = aligned_alloc(64, sizeof(*node));
	if (!node)
		abort();
	if (dump_unit_read(f->d, laddr, MAGIC_NODE, node, &why) < 0 || why)
		f->rc = dump_fail("node 0x%" PRIx64 ": %s", laddr, why);
	else if (node_level(node->nd_body) != level ||
		 ((const struct m_node_body *)(const void *)node->nd_body)->nb_kind != f->kind)
		f->rc = dump_fail("node 0x%" PRIx64 ": of another level or kind than its parent says", laddr);
	else
		body_follow(f, (const void *)node->nd_body, NODE_BODY_SIZE);
	free(node);
}

static void body_follow(struct follow *f, const struct m_node_body *body, size_t size_bytes)
{
	const struct node_ops *ops = node_ops(f->kind);
	const le64 *entry = (const le64 *)(const void *)body->nb_space;

	if (node_level(body) == 0) {
		leaf_follow(body, size_bytes, f->kind);
		return;
	}
	for (unsigned i = 0; i < node_count(body); i++) {
		uint64_t laddr = le64_get(entry[ops->key_words]);

		printf("%*s[level %u, key 0x%" PRIx64 " -> node 0x%" PRIx64 "]\n",
		       2 * (NODE_LEVELS_MAX - (int)node_level(body)) - 20, "", node_level(body),
		       le64_get(entry[0]), laddr);
		child_follow(f, laddr, node_level(body) - 1u);
		entry += ops->key_words + 1u + ops->is_range;
	}
}

int dump_tree_print(const struct dump *d, const void *root, size_t root_size_bytes, enum node_kind kind)
{
	/* No tree has more nodes than there are units. */
	struct follow f = { .d = d, .kind = kind, .nodes_left = d->super->size_blk };
	const struct m_node_body *body = root;
	const char *why = node_body_check(root, root_size_bytes);

	if (!why && body->nb_kind != 0 && body->nb_kind != kind)
		why = "wrong kind of tree";
	if (why)
		return dump_fail("root: %s", why);
	if (node_count(body) == 0)
		printf("empty\n");
	else
		body_follow(&f, body, root_size_bytes);
	return f.rc;
}
