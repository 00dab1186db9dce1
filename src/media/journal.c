/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Check of a journal record: after it every entry may be applied without another look at the lengths.
 */
#include "media/journal.h"

#include <string.h>

#include "util/sabotage.h"

const char *record_check(const void *record, size_t limit_bytes, uint32_t lane, const struct m_uuid *uuid)
{
	const struct m_record *r = record;
	const struct m_record_entry *e = (const struct m_record_entry *)(r + 1);
	uint32_t entries = le32_get(r->rc_entry_count), lines = le32_get(r->rc_line_count);
	size_t length = le32_get(r->rc_length_bytes);
	uint64_t line_sum = 0;

	if (le32_get(r->rc_magic) != MAGIC_RECORD)
		return "record: wrong magic";
	if (memcmp(&r->rc_uuid, uuid, sizeof(*uuid)) != 0)
		return "record: belongs to another pool";
	if (le32_get(r->rc_lane) != lane)
		return "record: belongs to another lane";
	if (entries > limit_bytes / LINE_SIZE || lines > limit_bytes / LINE_SIZE || length > limit_bytes ||
	    length != record_length_bytes(entries, lines))
		return "record: bad length";
	if (!sabotage_point("record-crc") && le32_get(r->rc_crc) != record_crc(record, length))
		return "record: bad CRC";
	for (uint32_t i = 0; i < entries; i++) {
		uint64_t laddr = le64_get(e[i].re_laddr), mask = le64_get(e[i].re_mask);
		uint64_t unit = laddr & ENTRY_INODE ? INODE_SIZE : BLOCK_SIZE;

		line_sum += (uint64_t)__builtin_popcountll(mask);
		if ((laddr & (unit - 1)) & ~(uint64_t)ENTRY_FLAGS)
			return "record: entry not aligned";
		if ((laddr & ENTRY_INODE) && mask >> (INODE_SIZE / LINE_SIZE))
			return "record: mask leaves the inode";
	}
	return line_sum == lines ? NULL : "record: masks and lines differ";
}
