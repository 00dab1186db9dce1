/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading metadata units by hand: both copies, one healed from the other if that is asked for, and which units something
 * lies in.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "repair/priv.h"

/* One copy into buf. NULL, or why there is nothing to look at. *absent: there is no such copy, and that is all. */
static const char *copy_load(struct check *ck, uint64_t laddr, unsigned copy, size_t size_bytes, void *buf,
			     bool *absent)
{
	uint64_t off;
	int rc = pool_place(ck->pool, laddr, copy, &off);

	*absent = rc == -ENOENT;
	if (rc)
		return rc == -ENOENT ? "no such copy" : "its place is not known";
	return dax_load(ck->dax, buf, off, size_bytes, NULL) != 0 ? "bad memory" : NULL;
}

/* NULL, or why it cannot be used. */
static const char *copy_judge(const struct check *ck, uint64_t laddr, uint32_t magic, const void *buf)
{
	const char *why = unit_check_header(buf, unit_size(magic), magic, laddr, &ck->super->uuid);

	return why ? why : unit_check_body(buf, unit_size(magic));
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

/* The sound copy in buf over the other one, which is not needed while that is stored: a kill leaves one sound copy. */
static void copy_heal(struct check *ck, uint64_t laddr, unsigned copy, uint32_t magic, const void *buf,
		      const char *why)
{
	char text[128];
	uint64_t off;
	bool failed;

	if (!ck->opts->heal || pool_place(ck->pool, laddr, copy, &off) != 0)
		return;
	failed = dax_store(ck->dax, off, buf, unit_size(magic)) != 0;
	dax_fence(
		ck->dax); /* whole before anything else is stored: a later step may rewrite the copy in buf */
	pool_unverify(ck->pool, laddr, unit_size(magic));
	if (failed) {
		ck->report->heals_failed++;
		pool_bad_met(ck->pool, off);
		return;
	}
	ck->report->heals++;
	if (!ck->opts->healed)
		return;
	snprintf(text, sizeof(text), "%s of unit 0x%" PRIx64 " written from the other copy: %s",
		 copy ? "mirror" : "primary", laddr, why);
	if (ck->stage)
		part_text(ck, CHECK_KINDS, text);
	else
		ck->opts->healed(ck->opts->arg, text);
}

static uint64_t copy_seq(const void *buf)
{
	return le64_get(((const struct m_unit_hdr *)buf)->uh_seq);
}

/* Both are sound. Readers take the later one too. */
static void copies_differ(struct check *ck, uint64_t laddr, uint32_t magic, void *buf, const void *mirror)
{
	check_found(ck, CHECK_UNIT_DIFFERS, "unit 0x%" PRIx64 " and its mirror are sound and differ", laddr);
	if (copy_seq(mirror) > copy_seq(buf)) {
		memcpy(buf, mirror, unit_size(magic));
		copy_heal(ck, laddr, 0, magic, buf, "it was older");
	} else {
		copy_heal(ck, laddr, 1, magic, buf, "it was older");
	}
}

static void lost_keep(struct check *ck, uint64_t laddr, uint32_t magic, uint64_t owner)
{
	struct lost_unit *row = ck->keep ? rows_add(ck, &ck->lost, sizeof(*row)) : NULL;

	if (row)
		*row = (struct lost_unit){ laddr, owner, magic };
}

/* What the place of a unit says by itself: who owns fixed units of a group and inodes cannot be anybody else. */
static bool owner_is_fixed(uint32_t magic)
{
	return magic != MAGIC_NODE && magic != MAGIC_XVAL;
}

/* A sound unit whose header lies: sealed anew, one copy after the other. */
static void header_heal(struct check *ck, uint64_t laddr, uint32_t magic, uint64_t owner, void *buf)
{
	struct m_unit_hdr *hdr = buf;
	uint64_t seq = le64_get(hdr->uh_seq);
	bool foreign = owner_is_fixed(magic) && le64_get(hdr->uh_owner) != owner;

	if (!ck->opts->heal || (!foreign && seq < ck->seq_end))
		return;
	if (foreign)
		hdr->uh_owner = le64_of(owner);
	unit_seal(buf, unit_size(magic), u64_min(seq, ck->super->seq_limit));
	for (unsigned copy = 0; copy < 2; copy++)
		copy_heal(ck, laddr, copy, magic, buf, "its header was wrong");
}

bool check_unit(struct check *ck, uint64_t laddr, uint32_t magic, uint64_t owner, void *buf)
{
	_Alignas(64) uint8_t mirror[BLOCK_SIZE];
	const char *why, *mirror_why;
	size_t size = unit_size(magic);
	bool absent, mirror_absent;

	ck->report->meta_units++;
	why = copy_load(ck, laddr, 0, size, buf, &absent);
	why = why ? why : copy_judge(ck, laddr, magic, buf);
	mirror_why = copy_load(ck, laddr, 1, size, mirror, &mirror_absent);
	if (!mirror_why && (why || memcmp(buf, mirror, size) != 0))
		mirror_why = copy_judge(ck, laddr, magic, mirror);
	else if (!mirror_why)
		goto out; /* the same bytes are as sound */
	if (why && mirror_why) {
		check_found(ck, CHECK_UNIT_LOST, "unit 0x%" PRIx64 ": %s; mirror: %s", laddr, why,
			    mirror_why);
		lost_keep(ck, laddr, magic, owner);
		return false;
	}
	if (why) {
		check_found(ck, CHECK_UNIT_COPY, "unit 0x%" PRIx64 ": %s (its mirror is sound)", laddr, why);
		memcpy(buf, mirror, size);
		if (!absent)
			copy_heal(ck, laddr, 0, magic, buf, why);
	} else if (!mirror_why) {
		copies_differ(ck, laddr, magic, buf, mirror);
	} else if (!mirror_absent) {
		check_found(ck, CHECK_UNIT_COPY, "mirror of unit 0x%" PRIx64 ": %s (the unit is sound)",
			    laddr, mirror_why);
		copy_heal(ck, laddr, 1, magic, buf, mirror_why);
	}
out:
	header_check(ck, laddr, owner, buf);
	header_heal(ck, laddr, magic, owner, buf);
	return true;
}

static bool laddr_is_sane(struct check *ck, uint64_t laddr, unsigned count, const char *what)
{
	if (laddr % BLOCK_SIZE == 0 && laddr >> CHUNK_SHIFT < (uint64_t)ck->super->ag_count * ck->ag_chunks &&
	    (laddr >> BLOCK_SHIFT) % CHUNK_BLOCKS + count <= CHUNK_BLOCKS)
		return true;
	check_found(ck, CHECK_TREE, "%s: metadata address 0x%" PRIx64 " makes no sense", what, laddr);
	return false;
}

/* False: something has reached it before. */
static bool mark(struct check *ck, uint64_t laddr)
{
	uint64_t *words = ck->reached[laddr >> CHUNK_SHIFT];
	unsigned unit = (unsigned)(laddr >> BLOCK_SHIFT) % CHUNK_BLOCKS;
	uint64_t bit = 1ull << unit % 64;

	/* Parts of the walk share the map. */
	return !(__atomic_fetch_or(&words[unit / 64], bit, __ATOMIC_RELAXED) & bit);
}

bool check_reach(struct check *ck, uint64_t laddr, unsigned count, const char *what)
{
	bool free = true;

	if (!laddr_is_sane(ck, laddr, count, what))
		return false;
	for (; count > 0; laddr += BLOCK_SIZE, count--) {
		if (mark(ck, laddr))
			continue;
		check_found(ck, CHECK_UNIT_TWICE, "%s: unit 0x%" PRIx64 " is something else too", what,
			    laddr);
		free = false;
	}
	return free;
}

enum check_led check_lead(struct check *ck, uint64_t laddr, uint32_t magic, uint64_t owner, const char *what,
			  void *buf)
{
	if (!laddr_is_sane(ck, laddr, 1, what))
		return LED_ASTRAY;
	if (!check_unit(ck, laddr, magic, owner, buf)) {
		mark(ck, laddr);
		return LED_LOST;
	}
	return unit_owner(buf) == owner && check_reach(ck, laddr, 1, what) ? LED_THERE : LED_ASTRAY;
}
