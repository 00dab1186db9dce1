/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bodies of nodes and embedded roots: the check, and every operation inside of a body, which may be given one that was not checked
 * but for its counts. Whatever it says, nobody leaves it.
 *
 * Input: u8 kind | u8 size | u8 flags | body | operations: u8 what, u8 index, u64 key words and records.
 */
#include <assert.h>

#include "btree/body.h"
#include "fuzz/input.h"
#include "fuzz/target.h"
#include "media/inode.h"
#include "media/ag.h"

#define FLAG_CHECKED 0x1u /* only bodies that are sound */
#define OPS_MAX 20u

static const unsigned sizes[] = { NODE_BODY_SIZE, INODE_DATA_SIZE, INODE_ATTR_SIZE, AG_ROOT_SIZE };

static void look(const void *body, const struct body_form *form, const struct bt_key *key)
{
	struct bt_key found;
	unsigned count = node_count(body);

	assert(body_search(body, form, key, false) <= count);
	assert(body_search(body, form, key, true) <= count);
	(void)body_used(body, form);
	(void)body_used_below(body, form, 1000);
	for (unsigned i = 0; i < count; i++) {
		size_t size = body_entry_size(body, form, i);
		const uint8_t *entry = body_entry(body, form, i);

		body_key(body, form, i, &found);
		(void)body_compare(body, form, i, key);
		for (size_t k = 0; k < size; k++)
			(void)*(const volatile uint8_t *)(entry + k);
	}
	if (form->ops->is_range && count)
		(void)body_high(body, form);
}

static void insert(void *body, const struct body_form *form, unsigned index, struct input *in)
{
	bool inner = node_level(body) != 0;
	size_t size = inner                     ? inner_entry_size(form->ops) :
		      form->ops->rec_size_bytes ? form->ops->rec_size_bytes :
						  NODE_REC_MIN + input_u8(in) % 50 * 8u;
	void *rec = input_memory(in, size);

	if (body_fits(body, form, size) == 1) {
		if (node_count(body) > 0)
			(void)body_split_point(body, form, index, size, input_u8(in) & 1);
		(void)!body_insert(body, form, index, rec, size);
	}
	free(rec);
}

static void append(void *body, const struct body_form *form, unsigned from)
{
	struct body_form dst_form = { form->ops, form->kind, NODE_BODY_SIZE };
	void *dst = malloc(NODE_BODY_SIZE);
	unsigned count = node_count(body);

	if (!dst)
		abort();
	body_init(dst, &dst_form, node_level(body));
	(void)!body_append(dst, &dst_form, body, form, from < count ? from : count, count);
	if (body_visit_check(dst, &dst_form) == NULL)
		(void)body_used(dst, &dst_form);
	free(dst);
}

static void change(void *body, const struct body_form *form, struct input *in)
{
	unsigned what = input_u8(in), count = node_count(body), index = input_u8(in) % (count + 1);
	struct bt_key key = { { input_u64(in), input_u8(in), input_u8(in) } };
	bool inner = node_level(body) != 0 && index < count;

	look(body, form, &key);
	switch (what % 6) {
	case 0:
	case 1:
		insert(body, form, index, in);
		break;
	case 2:
		if (index < count)
			body_remove(body, form, index);
		break;
	case 3:
		append(body, form, index);
		break;
	case 4:
		body_cut(body, form, index);
		break;
	default:
		if (inner) {
			(void)inner_child(body, form, index);
			inner_set_key(body, form, index, &key);
			if (form->ops->is_range)
				inner_set_high(body, form, index, inner_high(body, form, index) + 1);
		}
	}
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct body_form form = { .kind = 1 + input_u8(&in) % (NODE_KINDS - 1) };
	uint8_t flags;
	void *body;

	form.ops = node_ops(form.kind);
	form.size_bytes = sizes[input_u8(&in) % ARRAY_SIZE(sizes)];
	flags = input_u8(&in);
	body = input_memory(&in, form.size_bytes);
	if (body_visit_check(body, &form) == NULL && ((struct m_node_body *)body)->nb_kind == 0)
		body_init(body, &form, 0); /* an empty tree, about to get its first record */
	if (node_body_check(body, form.size_bytes) != NULL && flags & FLAG_CHECKED)
		goto out;
	for (unsigned i = 0; i < OPS_MAX && body_visit_check(body, &form) == NULL; i++) {
		change(body, &form, &in);
		if (in.size == 0)
			break;
	}
out:
	free(body);
	return 0;
}
