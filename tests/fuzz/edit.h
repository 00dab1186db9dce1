/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What an input of fuzz_image and fuzz_fsck says: a head, then edits of units of the pool. All little-endian.
 *
 *	head (8): le32 seed of what is done afterwards | u8 how much of it | u8 flags | 2 unused
 *	edit (16): le16 unit | le16 offset in it | u8 what | u8 copies | 2 unused | le64 value
 *
 * Units are counted in fuzz_units, modulo their number. After an edit the unit gets a good CRC again, but where `copies` says not.
 */
#ifndef UMBRA_TESTS_FUZZ_EDIT_H
#define UMBRA_TESTS_FUZZ_EDIT_H

#include <stddef.h>
#include <stdint.h>

#define EDITS_MAX 64u

enum edit_what {
	EDIT_8,
	EDIT_16,
	EDIT_32,
	EDIT_64,
	EDIT_BODY, /* the content of unit number `value` behind the own header */
	EDIT_ZERO, /* the content is zero */
	EDIT_WHATS
};

enum edit_copies {
	EDIT_BOTH,
	EDIT_PRIMARY,
	EDIT_MIRROR,
	EDIT_BOTH_BAD, /* bad: with a CRC that does not fit */
	EDIT_PRIMARY_BAD,
	EDIT_MIRROR_BAD,
	EDIT_PRIMARY_NEWER, /* a commit that could not write the mirror */
	EDIT_COPIES
};

#define EDIT_FLAG_CLEAN 0x1u    /* ends with an unmount */
#define EDIT_FLAG_READONLY 0x2u /* opened read-only */
#define EDIT_FLAG_PREEN 0x4u    /* only the safe part of a repair comes first */

struct edit_head {
	uint32_t seed;
	uint8_t steps, flags;
};

/* Applies an input to the pool. */
void edit_apply(const uint8_t *data, size_t size, struct edit_head *head);

#endif
