/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading metadata units by hand: both copies, and which units something lies in.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "repair/priv.h"

/* One copy into buf. NULL, or why it cannot be used. *absent: there is no such copy, and that is all. */
static const char *copy_read(struct check *ck, uint64_t laddr, unsigned copy, uint32_t magic, void *buf,
			     bool *absent)
{
	size_t size = unit_size(magic);
	const char *why;
	uint64_t off;
	int rc = pool_place(ck->pool, laddr, copy, &off);

	*absent = rc == -ENOENT;
	if (rc)
		return rc == -ENOENT ? "no such copy" : "its place is not known";
	if (dax_load(ck->dax, buf, off, size, NULL) != 0)
		return "bad memory";
	why = unit_check_header(buf, size, magic, laddr, &ck->super->uuid);
	return why ? why : unit_check_body(buf, size);
}

static void header_check(struct check *ck, uint64_t laddr, uint64_t owner, const struct m_unit_hdr *hdr)
{
	uint64_t found = le64_get(hdr->uh_owner);

	if (found != owner)
		check_found(ck, CHECK_UNIT_OWNER,
			    "unit 0x%" PRIx64 ": owner is 0x%" PRIx64 ", not 0x%" PRIx64, laddr, found,
			    owner);
	if (le64_get(hdr->uh_seq) >= ck->seq_end)
		check_found(ck, CHECK_UNIT_SEQ,
			    "unit 0x%" PRIx64 ": transaction %" PRIu64 " has not been yet", laddr,
			    le64_get(hdr->uh_seq));
}

bool check_unit(struct check *ck, uint64_t laddr, uint32_t magic, uint64_t owner, void *buf)
{
	_Alignas(64) uint8_t mirror[BLOCK_SIZE];
	const char *why, *mirror_why;
	bool absent, mirror_absent;

	ck->report->meta_units++;
	why = copy_read(ck, laddr, 0, magic, buf, &absent);
	mirror_why = copy_read(ck, laddr, 1, magic, mirror, &mirror_absent);
	if (why && mirror_why) {
		check_found(ck, CHECK_UNIT_LOST, "unit 0x%" PRIx64 ": %s; mirror: %s", laddr, why,
			    mirror_why);
		return false;
	}
	if (why) {
		check_found(ck, CHECK_UNIT_COPY, "unit 0x%" PRIx64 ": %s (its mirror is sound)", laddr, why);
		memcpy(buf, mirror, unit_size(magic));
	} else if (mirror_why) {
		if (!mirror_absent)
			check_found(ck, CHECK_UNIT_COPY,
				    "mirror of unit 0x%" PRIx64 ": %s (the unit is sound)", laddr,
				    mirror_why);
	} else if (memcmp(buf, mirror, unit_size(magic)) != 0) {
		check_found(ck, CHECK_UNIT_DIFFERS, "unit 0x%" PRIx64 " and its mirror are sound and differ",
			    laddr);
		/* Readers take the later one too. */
		if (le64_get(((const struct m_unit_hdr *)mirror)->uh_seq) >
		    le64_get(((const struct m_unit_hdr *)buf)->uh_seq))
			memcpy(buf, mirror, unit_size(magic));
	}
	header_check(ck, laddr, owner, buf);
	return true;
}

bool check_reach(struct check *ck, uint64_t laddr, unsigned count, const char *what)
{
	uint64_t lchunk = laddr >> CHUNK_SHIFT;
	unsigned unit = (unsigned)(laddr >> BLOCK_SHIFT) % CHUNK_BLOCKS;
	bool free = true;

	if (laddr % BLOCK_SIZE || lchunk >= (uint64_t)ck->super->ag_count * ck->ag_chunks ||
	    unit + count > CHUNK_BLOCKS) {
		check_found(ck, CHECK_TREE, "%s: metadata address 0x%" PRIx64 " makes no sense", what, laddr);
		return false;
	}
	for (; count > 0; unit++, count--) {
		uint64_t bit = 1ull << unit % 64;

		if (ck->reached[lchunk][unit / 64] & bit) {
			check_found(ck, CHECK_UNIT_TWICE, "%s: unit 0x%" PRIx64 " is something else too",
				    what, (lchunk << CHUNK_SHIFT) + (uint64_t)unit * BLOCK_SIZE);
			free = false;
		}
		ck->reached[lchunk][unit / 64] |= bit;
	}
	return free;
}
