/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Checks of the fixed units of an allocation group.
 */
#include "media/ag.h"

#include <string.h>

enum node_kind ag_tree_kind(enum ag_tree which)
{
	static const enum node_kind kinds[AG_TREES] = {
		[AG_REFCOUNT] = NODE_REFCOUNT, [AG_RMAP] = NODE_RMAP,        [AG_INODES] = NODE_INODES,
		[AG_ORPHANS] = NODE_ORPHAN,    [AG_FORWARDS] = NODE_FORWARD, [AG_LOSSES] = NODE_LOSS,
	};

	assert(which < AG_TREES);
	return kinds[which];
}

static const char *root_check(const uint8_t *body, size_t size_bytes, enum node_kind kind)
{
	const struct m_node_body *b = (const struct m_node_body *)body;

	if (b->nb_kind != 0 && b->nb_kind != kind)
		return "root: wrong kind of tree";
	return node_body_check(body, size_bytes);
}

const char *ag_check(const struct m_ag *m)
{
	uint64_t length_blk = le64_get(m->ag_length_blk);

	if (length_blk % CHUNK_BLOCKS != 0 || length_blk > (uint64_t)AG_MAX_CHUNKS * CHUNK_BLOCKS)
		return "group: bad length";
	if (le64_get(m->ag_free_blk) > length_blk)
		return "group: more free blocks than blocks";
	if (le64_get(m->ag_inode_free) > le64_get(m->ag_inode_count))
		return "group: more free inodes than inodes";
	for (unsigned i = 0; i < AG_TREES; i++) {
		const char *why = root_check(m->ag_roots[i], AG_ROOT_SIZE, ag_tree_kind((enum ag_tree)i));

		if (why)
			return why;
	}
	return NULL;
}

const char *chunks_check(const struct m_chunks *m)
{
	for (unsigned i = 0; i < CHUNKS_PER_UNIT; i++) {
		const struct m_chunk *c = &m->ct_chunks[i];
		unsigned used = 0;

		for (unsigned k = 0; k < sizeof(c->ck_used); k += sizeof(uint64_t)) {
			uint64_t word;

			memcpy(&word, &c->ck_used[k], sizeof(word));
			used += (unsigned)__builtin_popcountll(word);
		}
		if (used != le32_get(c->ck_used_count))
			return "chunk table: used count differs from used map";
		if (used != 0 && le32_get(c->ck_primary) == 0)
			return "chunk table: units in a chunk without a place";
		if (le32_get(c->ck_primary) == 0 && le32_get(c->ck_mirror) != 0)
			return "chunk table: mirror without primary";
	}
	return NULL;
}

const char *intents_check(const struct m_intents *m)
{
	for (unsigned i = 0; i < INTENTS_PER_UNIT; i++) {
		const struct m_intent *it = &m->in_slots[i];
		const char *why;

		if (le32_get(it->it_type) >= INTENT_TYPES)
			return "intent: unknown type";
		if (le32_get(it->it_type) != INTENT_CLONE && le32_get(it->it_type) != INTENT_DROP)
			continue;
		why = root_check(it->it_body, sizeof(it->it_body), NODE_EXTENT);
		if (why)
			return why;
	}
	return NULL;
}

const char *remaps_check(const struct m_remaps *m)
{
	if (le32_get(m->rl_count) > REMAPS_PER_UNIT)
		return "remap list: too many entries";
	for (unsigned i = 0; i < le32_get(m->rl_count); i++) {
		if (le32_get(m->rl_entries[i].rp_copy) > 1)
			return "remap list: bad copy";
		if (i > 0 && le64_get(m->rl_entries[i].rp_laddr) < le64_get(m->rl_entries[i - 1].rp_laddr))
			return "remap list: not sorted";
	}
	return NULL;
}
