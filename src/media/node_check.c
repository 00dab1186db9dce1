/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Whether a body is sound by itself (FORMAT.md 6). Reads nothing outside of it, whatever it says.
 */
#include <string.h>

#include "media/node.h"

/* Entries of one size, sorted: inner entries or fixed records. */
static const char *array_keys_check(const uint8_t *entries, unsigned count, size_t entry_size_bytes,
				    unsigned words)
{
	for (unsigned i = 1; i < count; i++) {
		const le64 *a = (const void *)(entries + (i - 1) * entry_size_bytes);
		const le64 *b = (const void *)(entries + i * entry_size_bytes);
		unsigned w = 0;

		while (w < words && le64_get(a[w]) == le64_get(b[w]))
			w++;
		if (w == words || le64_get(a[w]) > le64_get(b[w]))
			return "node: keys are not in ascending order";
	}
	return NULL;
}

static const char *inner_check(const struct m_node_body *b, size_t space_bytes, const struct node_ops *ops)
{
	size_t entry_size_bytes = (ops->key_words + 1u + ops->is_range) * sizeof(le64);
	unsigned count = node_count(b);

	if (b->nb_level >= NODE_LEVELS_MAX)
		return "node: level too high";
	if (le16_get(b->nb_heap))
		return "node: heap in an inner body";
	if (count == 0)
		return "node: inner body without entries";
	if (count * entry_size_bytes > space_bytes)
		return "node: more entries than fit";
	for (unsigned i = 0; i < count; i++) {
		const le64 *w = (const void *)(b->nb_space + i * entry_size_bytes);
		uint64_t child = le64_get(w[ops->key_words]);

		if (child == 0 || child % BLOCK_SIZE)
			return "node: address of a child makes no sense";
	}
	return array_keys_check(b->nb_space, count, entry_size_bytes, ops->key_words);
}

static const char *fixed_check(const struct m_node_body *b, size_t space_bytes, const struct node_ops *ops)
{
	size_t size_bytes = ops->rec_size_bytes;
	unsigned count = node_count(b);

	if (le16_get(b->nb_heap))
		return "node: heap in a body of fixed records";
	if (count * size_bytes > space_bytes)
		return "node: more records than fit";
	for (unsigned i = 0; i < count; i++) {
		const char *why = ops->rec_check(b->nb_space + i * size_bytes, size_bytes);

		if (why)
			return why;
	}
	if (ops->rec_high && !ops->is_range) {
		for (unsigned i = 1; i < count; i++) {
			const le64 *next = (const void *)(b->nb_space + i * size_bytes);

			if (ops->rec_high(b->nb_space + (i - 1) * size_bytes) >= le64_get(*next))
				return "node: records overlap or are not in ascending order";
		}
	}
	return array_keys_check(b->nb_space, count, size_bytes, ops->key_words);
}

/* Marks the 8-byte cells of a record; false if one of them is taken. */
static bool cells_take(uint8_t *cells, size_t off, size_t size_bytes)
{
	for (size_t c = off / 8; c < (off + size_bytes) / 8; c++) {
		if (cells[c])
			return false;
		cells[c] = 1;
	}
	return true;
}

static const char *slotted_check(const struct m_node_body *b, size_t body_size_bytes,
				 const struct node_ops *ops)
{
	uint8_t cells[BLOCK_SIZE / 8] = { 0 };
	const le16 *slots = (const void *)b->nb_space;
	unsigned count = node_count(b);
	size_t heap = le16_get(b->nb_heap) ? le16_get(b->nb_heap) : body_size_bytes;
	size_t slots_end = sizeof(*b) + count * sizeof(le16);
	uint64_t last_key = 0;

	if (heap > body_size_bytes || slots_end > heap)
		return "node: heap and slots make no sense";
	for (unsigned i = 0; i < count; i++) {
		size_t off = le16_get(slots[i]);
		const uint8_t *rec = (const uint8_t *)b + off;
		const char *why;
		size_t size_bytes;
		uint64_t key;

		if (off < heap || off % 8 || off >= body_size_bytes)
			return "node: offset of a record makes no sense";
		size_bytes = ops->rec_size(rec, body_size_bytes - off);
		if (size_bytes == 0)
			return "node: size of a record makes no sense";
		if (!cells_take(cells, off, size_bytes))
			return "node: records lie in each other";
		key = le64_get(*(const le64 *)(const void *)rec);
		if (i > 0 && key <= last_key)
			return "node: keys are not in ascending order";
		last_key = key;
		why = ops->rec_check(rec, size_bytes);
		if (why)
			return why;
	}
	return NULL;
}

const char *node_body_check(const void *body, size_t body_size_bytes)
{
	const struct m_node_body *b = body;
	const struct node_ops *ops;

	assert(body_size_bytes >= sizeof(*b) && body_size_bytes <= BLOCK_SIZE && body_size_bytes % 8 == 0);
	if (b->nb_kind == 0 && body_size_bytes != NODE_BODY_SIZE) {
		static const struct m_node_body zero;

		return memcmp(b, &zero, sizeof(zero)) ? "node: no kind" : NULL;
	}
	ops = node_ops(b->nb_kind);
	if (!ops)
		return "node: unknown kind";
	if (le16_get(b->nb_pad))
		return "node: padding is not zero";
	if (node_count(b) == 0 && body_size_bytes == NODE_BODY_SIZE)
		return "node: empty";
	if (b->nb_level > 0)
		return inner_check(b, body_size_bytes - sizeof(*b), ops);
	if (ops->rec_size_bytes)
		return fixed_check(b, body_size_bytes - sizeof(*b), ops);
	return slotted_check(b, body_size_bytes, ops);
}
