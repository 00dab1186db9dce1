/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Operations inside one body (FORMAT.md 6): search, insert, remove, move entries to another body. No I/O, no transaction.
 *
 * "Entry" is a record in a leaf and (key, child, high) in an inner body. Indexes and counts must have passed
 * body_visit_check(); offsets and sizes inside a slotted body are looked at on each access, so that no content makes
 * these functions leave the body.
 */
#ifndef UMBRA_BTREE_BODY_H
#define UMBRA_BTREE_BODY_H

#include "media/node.h"
#include "util/util.h"

/* What kind of body and how much room. */
struct body_form {
	const struct node_ops *ops;
	enum node_kind kind;
	unsigned size_bytes;
};

/* Largest inner entry: three key words, child, high. */
#define INNER_ENTRY_MAX 40u

static inline unsigned inner_entry_size(const struct node_ops *ops)
{
	return (ops->key_words + 1u + ops->is_range) * (unsigned)sizeof(le64);
}

static inline bool body_is_slotted(const void *body, const struct body_form *form)
{
	return form->ops->rec_size_bytes == 0 && node_level(body) == 0;
}

/* Of bodies that are not slotted. */
static inline unsigned body_stride(const void *body, const struct body_form *form)
{
	return node_level(body) ? inner_entry_size(form->ops) : form->ops->rec_size_bytes;
}

static inline unsigned body_capacity(const struct body_form *form)
{
	return form->size_bytes - (unsigned)sizeof(struct m_node_body);
}

/* O(1): whether a body of that level can be walked at all. Reason or NULL. An all-zero body is an empty leaf. */
const char *body_visit_check(const void *body, const struct body_form *form);

void body_init(void *body, const struct body_form *form, unsigned level);

/* The entry; of a slotted body that lies, a record of size 0. */
const void *body_entry(const void *body, const struct body_form *form, unsigned index);
/* Its size, 0 if the body lies. */
size_t body_entry_size(const void *body, const struct body_form *form, unsigned index);
void body_key(const void *body, const struct body_form *form, unsigned index, struct bt_key *key);
/* How the key of an entry compares with key. */
int body_compare(const void *body, const struct body_form *form, unsigned index, const struct bt_key *key);

/* Index of the first entry whose key is >= key, or with after > key; the count if there is none. */
unsigned body_search(const void *body, const struct body_form *form, const struct bt_key *key, bool after);

/* Bytes that entries take, slots included; -EUCLEAN if the body lies. */
int body_used(const void *body, const struct body_form *form);
/* As body_used where that is at most limit_bytes, else anything above limit_bytes; cheap for well filled bodies. */
int body_used_below(const void *body, const struct body_form *form, unsigned limit_bytes);
/* 1 if one more entry of that size fits, 0 if not, -EUCLEAN. */
int body_fits(const void *body, const struct body_form *form, size_t size_bytes);

/* The entry must fit. -EUCLEAN if the body lies. */
must_check int body_insert(void *body, const struct body_form *form, unsigned index, const void *entry,
			   size_t size_bytes);
void body_remove(void *body, const struct body_form *form, unsigned index);

/* Entries from .. to - 1 of src to the end of dst (same level and kind, they must fit). */
must_check int body_append(void *dst, const struct body_form *dst_form, const void *src,
			   const struct body_form *src_form, unsigned from, unsigned to);
/* Drops the entries from index on. */
void body_cut(void *body, const struct body_form *form, unsigned index);

/*
 * Where to split a body that is too full for one more entry of size_bytes at index: how many of the count + 1
 * entries stay left (1 .. count). At the end everything stays, and a run splits behind its entry, so that sorted inserts
 * leave full bodies behind:
 *
 *	[a b c d]  +e  ==>  [a b c d] [e]	run:	[a b x y]  +c  ==>  [a b c] [x y]
 */
unsigned body_split_point(const void *body, const struct body_form *form, unsigned index, size_t size_bytes,
			  bool is_run);

/* Inner bodies. */
uint64_t inner_child(const void *body, const struct body_form *form, unsigned index);
uint64_t inner_high(const void *body, const struct body_form *form, unsigned index);
void inner_set_high(void *body, const struct body_form *form, unsigned index, uint64_t high);
void inner_set_key(void *body, const struct body_form *form, unsigned index, const struct bt_key *key);
/* Writes an entry of at most INNER_ENTRY_MAX bytes. */
void inner_entry_make(void *entry, const struct node_ops *ops, const struct bt_key *key, uint64_t child,
		      uint64_t high);

/* Trees with ranges: the highest end in the body, 0 when empty. */
uint64_t body_high(const void *body, const struct body_form *form);

#endif
