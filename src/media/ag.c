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

void ag_super_encode(struct m_ag_super *m, const struct super *super)
{
	struct m_super whole;

	super_encode(&whole, super);
	/* While it grows, the copies tell of one of both sizes. */
	whole.sb_incompat = le64_of(super->incompat & ~FEATURE_INCOMPAT_GROWING);
	whole.sb_ro_compat =
		le64_of(super->ro_compat & ~FEATURE_RO_COMPAT_BAD_IN_USE); /* it comes and goes */
	*m = (struct m_ag_super){
		.as_size_blk = whole.sb_size_blk,
		.as_ag_size_blk = whole.sb_ag_size_blk,
		.as_compat = whole.sb_compat,
		.as_ro_compat = whole.sb_ro_compat,
		.as_incompat = whole.sb_incompat,
		.as_created_ns = whole.sb_created_ns,
		.as_dir_hash_bits = whole.sb_dir_hash_bits,
		.as_lane_count = whole.sb_lane_count,
		.as_lane_size_bytes = whole.sb_lane_size_bytes,
	};
	memcpy(m->as_hash_seed, whole.sb_hash_seed, sizeof(m->as_hash_seed));
	memcpy(m->as_label, whole.sb_label, sizeof(m->as_label));
	memcpy(m->as_lanes, whole.sb_lanes, sizeof(m->as_lanes));
}

bool ag_super_decode(struct super *super, const struct m_ag_super *m, const struct m_uuid *uuid)
{
	struct m_super whole = {
		.sb_hdr.uh_uuid = *uuid,
		.sb_major = le16_of(SUPER_MAJOR),
		.sb_minor = le16_of(SUPER_MINOR),
		.sb_size_blk = m->as_size_blk,
		.sb_ag_size_blk = m->as_ag_size_blk,
		.sb_compat = m->as_compat,
		.sb_ro_compat = m->as_ro_compat,
		.sb_incompat = m->as_incompat,
		.sb_created_ns = m->as_created_ns,
		.sb_dir_hash_bits = m->as_dir_hash_bits,
		.sb_lane_count = m->as_lane_count,
		.sb_lane_size_bytes = m->as_lane_size_bytes,
	};
	uint64_t ag_size_blk = le64_get(m->as_ag_size_blk);

	if (ag_size_blk == 0 || le32_get(m->as_lane_count) > SUPER_LANES_MAX)
		return false;
	whole.sb_ag_count = le32_of((uint32_t)u64_div_up(le64_get(m->as_size_blk), ag_size_blk));
	memcpy(whole.sb_hash_seed, m->as_hash_seed, sizeof(m->as_hash_seed));
	memcpy(whole.sb_label, m->as_label, sizeof(m->as_label));
	memcpy(whole.sb_lanes, m->as_lanes, sizeof(m->as_lanes));
	super_decode(super, &whole);
	return super_check(super) == NULL;
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
