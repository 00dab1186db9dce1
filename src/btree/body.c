/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Operations inside one body: see body.h.
 */
#include "btree/body.h"

#include <errno.h>
#include <string.h>

/* What body_entry gives where a slot points nowhere: its length field says 0. */
static const le64 no_record[NODE_REC_MIN / sizeof(le64)];

static le16 *slots_of(void *body)
{
	return (void *)((struct m_node_body *)body)->nb_space;
}

static const le16 *slots_get(const void *body)
{
	return (const void *)((const struct m_node_body *)body)->nb_space;
}

static unsigned heap_get(const void *body, const struct body_form *form)
{
	unsigned heap = le16_get(((const struct m_node_body *)body)->nb_heap);

	return heap ? heap : form->size_bytes;
}

static void heap_set(void *body, const struct body_form *form, unsigned heap)
{
	((struct m_node_body *)body)->nb_heap = le16_of((uint16_t)(heap == form->size_bytes ? 0 : heap));
}

static void count_set(void *body, unsigned count)
{
	((struct m_node_body *)body)->nb_count = le16_of((uint16_t)count);
}

static uint8_t *array_at(void *body, unsigned stride, unsigned index)
{
	return ((struct m_node_body *)body)->nb_space + index * stride;
}

static const uint8_t *array_get(const void *body, unsigned stride, unsigned index)
{
	return ((const struct m_node_body *)body)->nb_space + index * stride;
}

const char *body_visit_check(const void *body, const struct body_form *form)
{
	const struct m_node_body *b = body;
	unsigned count = node_count(b);

	if (b->nb_kind == 0 && b->nb_level == 0 && count == 0 && le16_get(b->nb_heap) == 0)
		return NULL;
	if (b->nb_kind != form->kind)
		return "node of another kind";
	if (b->nb_level >= NODE_LEVELS_MAX)
		return "level too high";
	if (body_is_slotted(b, form)) {
		unsigned heap = heap_get(b, form);

		if (heap > form->size_bytes || sizeof(*b) + count * sizeof(le16) > heap)
			return "heap and slots make no sense";
		return NULL;
	}
	if (count * body_stride(b, form) > body_capacity(form))
		return "more entries than fit";
	if (b->nb_level && count == 0)
		return "inner body without entries";
	return NULL;
}

void body_init(void *body, const struct body_form *form, unsigned level)
{
	struct m_node_body *b = body;

	memset(b, 0, sizeof(*b));
	b->nb_kind = (uint8_t)form->kind;
	b->nb_level = (uint8_t)level;
}

const void *body_entry(const void *body, const struct body_form *form, unsigned index)
{
	if (body_is_slotted(body, form)) {
		unsigned off = le16_get(slots_get(body)[index]);

		if (off < sizeof(struct m_node_body) || off > form->size_bytes - NODE_REC_MIN || off % 8)
			return no_record;
		return (const uint8_t *)body + off;
	}
	return array_get(body, body_stride(body, form), index);
}

size_t body_entry_size(const void *body, const struct body_form *form, unsigned index)
{
	const uint8_t *rec;

	if (!body_is_slotted(body, form))
		return body_stride(body, form);
	rec = body_entry(body, form, index);
	if (rec == (const void *)no_record)
		return 0;
	return form->ops->rec_size(rec, form->size_bytes - (size_t)(rec - (const uint8_t *)body));
}

void body_key(const void *body, const struct body_form *form, unsigned index, struct bt_key *key)
{
	const le64 *w = body_entry(body, form, index);

	*key = (struct bt_key){ 0 };
	for (unsigned i = 0; i < form->ops->key_words; i++)
		key->w[i] = le64_get(w[i]);
}

static inline int words_compare(const le64 *w, const struct bt_key *key, unsigned words)
{
	for (unsigned i = 0; i < words; i++) {
		uint64_t v = le64_get(w[i]);

		if (v != key->w[i])
			return v < key->w[i] ? -1 : 1;
	}
	return 0;
}

int body_compare(const void *body, const struct body_form *form, unsigned index, const struct bt_key *key)
{
	return words_compare(body_entry(body, form, index), key, form->ops->key_words);
}

static unsigned array_search(const uint8_t *entries, unsigned stride, unsigned count, unsigned words,
			     const struct bt_key *key, int below)
{
	unsigned lo = 0, hi = count;

	/* Ascending runs end up behind the last entry. */
	if (count && words_compare((const void *)(entries + (count - 1) * stride), key, words) < below)
		return count;
	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (words_compare((const void *)(entries + mid * stride), key, words) < below)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

unsigned body_search(const void *body, const struct body_form *form, const struct bt_key *key, bool after)
{
	unsigned lo = 0, hi = node_count(body);
	int below = after ? 1 : 0; /* an entry is before the wanted place if it compares less than this */

	if (!body_is_slotted(body, form))
		return array_search(array_get(body, 0, 0), body_stride(body, form), hi, form->ops->key_words,
				    key, below);
	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (body_compare(body, form, mid, key) < below)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

int body_used(const void *body, const struct body_form *form)
{
	unsigned count = node_count(body);
	unsigned used = 0;

	if (!body_is_slotted(body, form))
		return (int)(count * body_stride(body, form));
	for (unsigned i = 0; i < count; i++) {
		size_t size_bytes = body_entry_size(body, form, i);

		if (size_bytes == 0)
			return -EUCLEAN;
		used += (unsigned)(size_bytes + sizeof(le16));
		if (used > body_capacity(form))
			return -EUCLEAN;
	}
	return (int)used;
}

int body_used_below(const void *body, const struct body_form *form, unsigned limit_bytes)
{
	unsigned least = node_count(body) * (NODE_REC_MIN + (unsigned)sizeof(le16));

	if (body_is_slotted(body, form) && least > limit_bytes)
		return (int)least;
	return body_used(body, form);
}

int body_fits(const void *body, const struct body_form *form, size_t size_bytes)
{
	unsigned count = node_count(body);
	int used;

	if (!body_is_slotted(body, form))
		return (count + 1) * body_stride(body, form) <= body_capacity(form);
	if (sizeof(struct m_node_body) + (count + 1) * sizeof(le16) + size_bytes <= heap_get(body, form))
		return 1;
	used = body_used(body, form);
	if (used < 0)
		return used;
	return (size_t)used + sizeof(le16) + size_bytes <= body_capacity(form);
}

/* Closes the holes between the records of a slotted body. */
static int heap_compact(void *body, const struct body_form *form)
{
	uint8_t copy[BLOCK_SIZE];
	le16 *slots = slots_of(body);
	unsigned heap = form->size_bytes;
	int used = body_used(body, form);

	if (used < 0)
		return used;
	memcpy(copy, body, form->size_bytes);
	for (unsigned i = node_count(body); i > 0; i--) {
		unsigned off = le16_get(slots[i - 1]);
		unsigned size_bytes = (unsigned)form->ops->rec_size(copy + off, form->size_bytes - off);

		heap -= size_bytes;
		memcpy((uint8_t *)body + heap, copy + off, size_bytes);
		slots[i - 1] = le16_of((uint16_t)heap);
	}
	heap_set(body, form, heap);
	return 0;
}

static int slotted_insert(void *body, const struct body_form *form, unsigned index, const void *rec,
			  size_t size_bytes)
{
	unsigned count = node_count(body);
	size_t slots_end = sizeof(struct m_node_body) + (count + 1) * sizeof(le16);
	le16 *slots = slots_of(body);
	unsigned heap;

	if (slots_end + size_bytes > heap_get(body, form)) {
		int rc = heap_compact(body, form);

		if (rc)
			return rc;
		if (slots_end + size_bytes > heap_get(body, form))
			return -EUCLEAN;
	}
	heap = heap_get(body, form) - (unsigned)size_bytes;
	memcpy((uint8_t *)body + heap, rec, size_bytes);
	memmove(slots + index + 1, slots + index, (count - index) * sizeof(le16));
	slots[index] = le16_of((uint16_t)heap);
	heap_set(body, form, heap);
	count_set(body, count + 1);
	return 0;
}

int body_insert(void *body, const struct body_form *form, unsigned index, const void *entry,
		size_t size_bytes)
{
	unsigned count = node_count(body);
	unsigned stride;
	uint8_t *at;

	if (body_is_slotted(body, form))
		return slotted_insert(body, form, index, entry, size_bytes);
	stride = body_stride(body, form);
	assert(stride == size_bytes && (count + 1) * stride <= body_capacity(form));
	at = array_at(body, stride, index);
	memmove(at + stride, at, (size_t)(count - index) * stride);
	memcpy(at, entry, stride);
	count_set(body, count + 1);
	return 0;
}

void body_remove(void *body, const struct body_form *form, unsigned index)
{
	unsigned count = node_count(body);

	if (body_is_slotted(body, form)) {
		le16 *slots = slots_of(body);

		if (le16_get(slots[index]) == heap_get(body, form))
			heap_set(body, form,
				 heap_get(body, form) + (unsigned)body_entry_size(body, form, index));
		memmove(slots + index, slots + index + 1, (count - index - 1) * sizeof(le16));
		if (count == 1)
			heap_set(body, form, form->size_bytes);
	} else {
		unsigned stride = body_stride(body, form);
		uint8_t *at = array_at(body, stride, index);

		memmove(at, at + stride, (size_t)(count - index - 1) * stride);
	}
	count_set(body, count - 1);
}

int body_append(void *dst, const struct body_form *dst_form, const void *src,
		const struct body_form *src_form, unsigned from, unsigned to)
{
	unsigned count = node_count(dst);
	unsigned stride;

	assert(node_level(dst) == node_level(src));
	if (body_is_slotted(dst, dst_form)) {
		for (unsigned i = from; i < to; i++) {
			size_t size_bytes = body_entry_size(src, src_form, i);
			int rc;

			if (size_bytes == 0)
				return -EUCLEAN;
			rc = slotted_insert(dst, dst_form, node_count(dst), body_entry(src, src_form, i),
					    size_bytes);
			if (rc)
				return rc;
		}
		return 0;
	}
	stride = body_stride(dst, dst_form);
	assert((count + to - from) * stride <= body_capacity(dst_form));
	memcpy(array_at(dst, stride, count), array_get(src, stride, from), (size_t)(to - from) * stride);
	count_set(dst, count + to - from);
	return 0;
}

void body_cut(void *body, const struct body_form *form, unsigned index)
{
	if (body_is_slotted(body, form)) {
		unsigned heap = form->size_bytes;

		for (unsigned i = 0; i < index; i++) {
			unsigned off = le16_get(slots_of(body)[i]);

			if (off < heap)
				heap = off;
		}
		heap_set(body, form, heap);
	}
	count_set(body, index);
}

unsigned body_split_point(const void *body, const struct body_form *form, unsigned index, size_t size_bytes,
			  bool is_run)
{
	unsigned count = node_count(body);
	size_t total = size_bytes + sizeof(le16), left = total;
	unsigned k;

	assert(count > 0);
	if (index == count)
		return count;
	if (!body_is_slotted(body, form))
		return is_run ? index + 1 : (count + 1) / 2;
	for (unsigned i = 0; i < count; i++) {
		total += body_entry_size(body, form, i) + sizeof(le16);
		if (i + 1 == index)
			left = total;
	}
	if (is_run && left <= body_capacity(form))
		return index + 1;
	left = 0;
	for (k = 0; k < count; k++) {
		size_t size = size_bytes;

		if (k != index)
			size = body_entry_size(body, form, k < index ? k : k - 1);
		size += sizeof(le16);
		if (k > 0 && left + size > total / 2)
			break;
		left += size;
	}
	return k;
}

uint64_t inner_child(const void *body, const struct body_form *form, unsigned index)
{
	const le64 *w = (const void *)array_get(body, inner_entry_size(form->ops), index);

	return le64_get(w[form->ops->key_words]);
}

uint64_t inner_high(const void *body, const struct body_form *form, unsigned index)
{
	const le64 *w = (const void *)array_get(body, inner_entry_size(form->ops), index);

	return le64_get(w[form->ops->key_words + 1]);
}

void inner_set_high(void *body, const struct body_form *form, unsigned index, uint64_t high)
{
	le64 *w = (void *)array_at(body, inner_entry_size(form->ops), index);

	w[form->ops->key_words + 1] = le64_of(high);
}

void inner_set_key(void *body, const struct body_form *form, unsigned index, const struct bt_key *key)
{
	le64 *w = (void *)array_at(body, inner_entry_size(form->ops), index);

	for (unsigned i = 0; i < form->ops->key_words; i++)
		w[i] = le64_of(key->w[i]);
}

void inner_entry_make(void *entry, const struct node_ops *ops, const struct bt_key *key, uint64_t child,
		      uint64_t high)
{
	le64 *w = entry;

	for (unsigned i = 0; i < ops->key_words; i++)
		w[i] = le64_of(key->w[i]);
	w[ops->key_words] = le64_of(child);
	if (ops->is_range)
		w[ops->key_words + 1] = le64_of(high);
}

uint64_t body_high(const void *body, const struct body_form *form)
{
	unsigned count = node_count(body);
	uint64_t high = 0;

	if (node_level(body)) {
		for (unsigned i = 0; i < count; i++)
			high = u64_max(high, inner_high(body, form, i));
		return high;
	}
	for (unsigned i = 0; i < count; i++)
		high = u64_max(high, form->ops->rec_high(array_get(body, form->ops->rec_size_bytes, i)));
	return high;
}
