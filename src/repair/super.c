/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Both copies of the superblock lost: each group header has a copy of what nothing else knows.
 *
 * Slot 0 of a group begins with a chunk, so a header lies at the same place in one of the chunks of the device. It is believed if it is
 * sound, and lies where the geometry that it tells of puts it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "media/journal.h"
#include "repair/base.h"

#define SEQ_STEP (1ull << 20)
#define SEQ_SANE (1ull << 62) /* higher ones were not given by any commit */

/* The header in this chunk, if it is one. */
static bool header_read(struct dax *dax, uint64_t chunk, struct super *super, uint32_t *index)
{
	uint64_t off = (chunk << CHUNK_SHIFT) + AG_UNIT_HEADER * BLOCK_SIZE, first, last;
	_Alignas(64) struct m_ag m;
	uint64_t ag_chunks;
	uint32_t agno;

	if (dax_load(dax, &m, off, sizeof(m), NULL) != 0 || le32_get(m.ag_hdr.uh_magic) != MAGIC_AG)
		return false;
	agno = le32_get(m.ag_index);
	if (!ag_super_decode(super, &m.ag_super, &m.ag_hdr.uh_uuid) || agno >= super->ag_count ||
	    super->size_blk > dax_size_bytes(dax) / BLOCK_SIZE)
		return false;
	ag_chunks = super->ag_size_blk / CHUNK_BLOCKS;
	if (unit_check_header(&m, sizeof(m), MAGIC_AG,
			      (agno * ag_chunks << CHUNK_SHIFT) + AG_UNIT_HEADER * BLOCK_SIZE,
			      &m.ag_hdr.uh_uuid) ||
	    unit_check_body(&m, sizeof(m)))
		return false;
	first = super_ag_start_blk(super, agno) / CHUNK_BLOCKS;
	last = first + super_ag_length_blk(super, agno) / CHUNK_BLOCKS;
	*index = agno;
	return chunk == first + 1 || chunk == last - 2;
}

/*
 * What a header says. One of a pool that grew just then may tell of the former size: if a group that it had already tells of a larger one,
 * that is right (FORMAT.md 4.1).
 */
static bool headers_read(struct dax *dax, struct super *super)
{
	uint64_t chunks = dax_size_bytes(dax) / CHUNK_SIZE, chunk = 0;
	struct super other;
	uint32_t agno;

	while (chunk < chunks && !header_read(dax, chunk, super, &agno))
		chunk++;
	for (uint64_t more = chunk + 1; more < chunks; more++) {
		if (header_read(dax, more, &other, &agno) && agno < super->ag_count &&
		    other.size_blk > super->size_blk &&
		    memcmp(&other.uuid, &super->uuid, sizeof(other.uuid)) == 0) {
			*super = other;
			break;
		}
	}
	return chunk < chunks;
}

/* The highest sequence number in units of this pool in one block. */
static uint64_t block_seq(struct dax *dax, const struct m_uuid *uuid, uint64_t blk)
{
	_Alignas(64) uint8_t buf[BLOCK_SIZE];
	uint64_t highest = 0;

	for (size_t at = 0; at < BLOCK_SIZE; at += INODE_SIZE) {
		uint64_t off = blk * BLOCK_SIZE + at, seq;
		struct m_unit_hdr h;
		size_t size;

		if (dax_load(dax, &h, off, sizeof(h), NULL) != 0)
			continue;
		size = unit_size(le32_get(h.uh_magic));
		seq = le64_get(h.uh_seq);
		if (size == 0 || at % size || seq <= highest || seq >= SEQ_SANE ||
		    memcmp(&h.uh_uuid, uuid, sizeof(*uuid)) != 0)
			continue;
		if (dax_load(dax, buf, off, size, NULL) == 0 &&
		    !unit_check_header(buf, size, 0, le64_get(h.uh_laddr), uuid))
			highest = seq;
	}
	return highest;
}

/* A record that waits for its replay may have the highest number of all. */
static uint64_t journal_seq(struct dax *dax, const struct super *super)
{
	uint64_t highest = 0;

	for (uint32_t i = 0; i < super->lane_count * 2; i++) {
		uint64_t blk = i % 2 ? super->lanes[i / 2].mirror_blk : super->lanes[i / 2].primary_blk;
		struct m_record r;

		if (dax_load(dax, &r, blk * BLOCK_SIZE, sizeof(r), NULL) == 0 &&
		    le32_get(r.rc_magic) == MAGIC_RECORD && le64_get(r.rc_seq) < SEQ_SANE &&
		    memcmp(&r.rc_uuid, &super->uuid, sizeof(r.rc_uuid)) == 0)
			highest = u64_max(highest, le64_get(r.rc_seq));
	}
	return highest;
}

static int super_make(struct dax *dax, const struct repair_opts *opts, struct super *super)
{
	uint64_t highest = journal_seq(dax, super);

	for (uint64_t blk = 0; blk < super->size_blk; blk++) {
		if (blk % CHUNK_BLOCKS == 0 && opts->step &&
		    !opts->step(opts->arg, "sequence numbers", blk, super->size_blk))
			return -ECANCELED;
		highest = u64_max(highest, block_seq(dax, &super->uuid, blk));
	}
	/* Numbers that were set aside and given to nothing that lasted count as well. */
	super->seq_limit = highest + SEQ_STEP;
	super->version_count = 1;
	super->state = SUPER_STATE_REPAIR;
	super->ro_compat |=
		FEATURE_RO_COMPAT_BAD_IN_USE; /* perhaps: a mount that finds no such block takes it back */
	return 0;
}

static int super_write(struct dax *dax, const struct super *super)
{
	_Alignas(64) struct m_super m;
	int rc, rc_copy;

	super_encode(&m, super);
	unit_seal(&m, sizeof(m), super->version_count);
	rc_copy = dax_store(dax, (super->size_blk - 1) * BLOCK_SIZE, &m, sizeof(m));
	/* One of the two is whole at any time. */
	dax_fence(dax);
	rc = dax_store(dax, 0, &m, sizeof(m));
	dax_fence(dax);
	return rc && rc_copy ? -EIO : 0;
}

static void told(const struct repair_opts *opts, struct repair_report *report, enum repair_act act,
		 const char *text)
{
	report->acts[act]++;
	if (opts->told)
		opts->told(opts->arg, act, text);
}

int repair_super(struct dax *dax, const struct repair_opts *opts, struct repair_report *report, char *why,
		 size_t why_size)
{
	struct super super;
	int rc;

	if (pool_super_exists(dax))
		return 0;
	if (!headers_read(dax, &super)) {
		snprintf(why, why_size, "no superblock, and no group header that knows what it said");
		return -EUCLEAN;
	}
	if (opts->may && !opts->may(opts->arg, REPAIR_SUPER, true,
				    "make the superblock anew from its copy in a group header?")) {
		snprintf(why, why_size, "both copies of the superblock are lost");
		return -EUCLEAN;
	}
	rc = super_make(dax, opts, &super);
	if (!rc)
		rc = super_write(dax, &super);
	if (rc) {
		snprintf(why, why_size, "the superblock cannot be written");
		return rc;
	}
	report->changed = true;
	told(opts, report, REPAIR_MENDED, "superblock made anew from a group header");
	return 0;
}
