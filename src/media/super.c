/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Superblock: decode, encode, check.
 */
#include "media/super.h"

#include <string.h>

#include "media/ag.h"
#include "media/journal.h"

static void lanes_decode(struct super *s, const struct m_super *m)
{
	for (unsigned i = 0; i < SUPER_LANES_MAX; i++) {
		s->lanes[i].primary_blk = le64_get(m->sb_lanes[i].ln_primary_blk);
		s->lanes[i].mirror_blk = le64_get(m->sb_lanes[i].ln_mirror_blk);
	}
	for (unsigned i = 0; i < SUPER_REMAPS_MAX; i++) {
		s->remaps[i].laddr = le64_get(m->sb_remaps[i].rp_laddr);
		s->remaps[i].place_blk = le64_get(m->sb_remaps[i].rp_place_blk);
		s->remaps[i].copy = le32_get(m->sb_remaps[i].rp_copy);
		s->remaps[i].flags = le32_get(m->sb_remaps[i].rp_flags);
	}
}

void super_decode(struct super *s, const struct m_super *m)
{
	*s = (struct super){
		.major = le16_get(m->sb_major),
		.minor = le16_get(m->sb_minor),
		.state = le32_get(m->sb_state),
		.compat = le64_get(m->sb_compat),
		.ro_compat = le64_get(m->sb_ro_compat),
		.incompat = le64_get(m->sb_incompat),
		.size_blk = le64_get(m->sb_size_blk),
		.ag_size_blk = le64_get(m->sb_ag_size_blk),
		.ag_count = le32_get(m->sb_ag_count),
		.dir_hash_bits = le32_get(m->sb_dir_hash_bits),
		.seq_limit = le64_get(m->sb_seq_limit),
		.replayed_seq = le64_get(m->sb_replayed_seq),
		.version_count = le64_get(m->sb_version_count),
		.grown_from_blk = le64_get(m->sb_grown_from_blk),
		.created_ns = le64_get(m->sb_created_ns),
		.mounted_ns = le64_get(m->sb_mounted_ns),
		.mount_count = le32_get(m->sb_mount_count),
		.lane_count = le32_get(m->sb_lane_count),
		.lane_size_bytes = le32_get(m->sb_lane_size_bytes),
		.remap_count = le32_get(m->sb_remap_count),
		.uuid = m->sb_hdr.uh_uuid,
	};
	memcpy(s->hash_seed, m->sb_hash_seed, sizeof(s->hash_seed));
	memcpy(s->label, m->sb_label, SUPER_LABEL_SIZE);
	lanes_decode(s, m);
}

void super_encode(struct m_super *m, const struct super *s)
{
	memset(m, 0, sizeof(*m));
	unit_init(m, MAGIC_SUPER, OWNER_SUPER, OWNER_SUPER, &s->uuid);
	m->sb_major = le16_of(s->major);
	m->sb_minor = le16_of(s->minor);
	m->sb_state = le32_of(s->state);
	m->sb_compat = le64_of(s->compat);
	m->sb_ro_compat = le64_of(s->ro_compat);
	m->sb_incompat = le64_of(s->incompat);
	m->sb_size_blk = le64_of(s->size_blk);
	m->sb_ag_size_blk = le64_of(s->ag_size_blk);
	m->sb_ag_count = le32_of(s->ag_count);
	m->sb_dir_hash_bits = le32_of(s->dir_hash_bits);
	m->sb_seq_limit = le64_of(s->seq_limit);
	m->sb_replayed_seq = le64_of(s->replayed_seq);
	m->sb_version_count = le64_of(s->version_count);
	m->sb_grown_from_blk = le64_of(s->grown_from_blk);
	m->sb_created_ns = le64_of(s->created_ns);
	m->sb_mounted_ns = le64_of(s->mounted_ns);
	m->sb_mount_count = le32_of(s->mount_count);
	m->sb_lane_count = le32_of(s->lane_count);
	m->sb_lane_size_bytes = le32_of(s->lane_size_bytes);
	m->sb_remap_count = le32_of(s->remap_count);
	memcpy(m->sb_hash_seed, s->hash_seed, sizeof(s->hash_seed));
	memcpy(m->sb_label, s->label, SUPER_LABEL_SIZE);
	for (unsigned i = 0; i < SUPER_LANES_MAX; i++) {
		m->sb_lanes[i].ln_primary_blk = le64_of(s->lanes[i].primary_blk);
		m->sb_lanes[i].ln_mirror_blk = le64_of(s->lanes[i].mirror_blk);
	}
	for (unsigned i = 0; i < SUPER_REMAPS_MAX; i++) {
		m->sb_remaps[i].rp_laddr = le64_of(s->remaps[i].laddr);
		m->sb_remaps[i].rp_place_blk = le64_of(s->remaps[i].place_blk);
		m->sb_remaps[i].rp_copy = le32_of(s->remaps[i].copy);
		m->sb_remaps[i].rp_flags = le32_of(s->remaps[i].flags);
	}
}

static bool range_ok(uint64_t start_blk, uint64_t count_blk, uint64_t size_blk)
{
	return start_blk != 0 && start_blk < size_blk && count_blk <= size_blk - start_blk;
}

/* The last group of a pool of so many blocks is long enough. */
static bool size_ok(const struct super *s, uint64_t size_blk)
{
	uint64_t last = size_blk % s->ag_size_blk;

	return size_blk != 0 && size_blk % CHUNK_BLOCKS == 0 &&
	       (last == 0 || last >= (uint64_t)AG_MIN_CHUNKS * CHUNK_BLOCKS);
}

static const char *geometry_check(const struct super *s)
{
	bool growing = s->incompat & FEATURE_INCOMPAT_GROWING;

	if (s->ag_size_blk == 0 || s->ag_size_blk % CHUNK_BLOCKS != 0 ||
	    s->ag_size_blk < (uint64_t)AG_MIN_CHUNKS * CHUNK_BLOCKS ||
	    s->ag_size_blk > (uint64_t)AG_MAX_CHUNKS * CHUNK_BLOCKS)
		return "superblock: bad group size";
	if (s->size_blk % CHUNK_BLOCKS != 0 || s->size_blk > 1ull << 48)
		return "superblock: bad pool size";
	if (s->ag_count == 0 || u64_div_up(s->size_blk, s->ag_size_blk) != s->ag_count)
		return "superblock: group count does not fit the size";
	if (!size_ok(s, s->size_blk))
		return "superblock: last group too short";
	if (growing != (s->grown_from_blk != 0) ||
	    (growing && (s->grown_from_blk >= s->size_blk || !size_ok(s, s->grown_from_blk))))
		return "superblock: bad former size";
	return NULL;
}

const char *super_check(const struct super *s)
{
	const char *why = geometry_check(s);

	if (why)
		return why;
	if (s->dir_hash_bits < 5 || s->dir_hash_bits > 63)
		return "superblock: bad directory hash width";
	if (s->lane_count == 0 || s->lane_count > SUPER_LANES_MAX || s->lane_size_bytes < LANE_SIZE_MIN ||
	    s->lane_size_bytes > LANE_SIZE_MAX || s->lane_size_bytes % BLOCK_SIZE != 0)
		return "superblock: bad journal lanes";
	if (s->seq_limit >> 63)
		return "superblock: sequence numbers are used up";
	if (s->replayed_seq > s->seq_limit)
		return "superblock: records are over that have not been yet";
	if (s->remap_count > SUPER_REMAPS_MAX)
		return "superblock: too many remaps";
	for (unsigned i = 0; i < s->lane_count; i++) {
		uint64_t lane_blk = s->lane_size_bytes / BLOCK_SIZE;

		if (!range_ok(s->lanes[i].primary_blk, lane_blk, s->size_blk) ||
		    !range_ok(s->lanes[i].mirror_blk, lane_blk, s->size_blk))
			return "superblock: journal lane leaves the device";
	}
	for (unsigned i = 0; i < s->remap_count; i++) {
		if (!range_ok(s->remaps[i].place_blk, 1, s->size_blk) || s->remaps[i].copy > 1)
			return "superblock: bad remap";
	}
	return NULL;
}
