/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Journal records, as replay reads them: a lane of exactly so many bytes, a good CRC where the length allows one.
 *
 * Input: u8 size of the lane in 4 KiB | the lane.
 */
#include <assert.h>

#include "fuzz/input.h"
#include "fuzz/target.h"
#include "media/journal.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	return 0;
}

/* What replay does with a record that passed: all lines are inside of it. */
static void lines_read(const struct m_record *r, size_t limit)
{
	const struct m_record_entry *e = (const void *)(r + 1);
	const uint8_t *end = (const uint8_t *)r + limit;
	const uint8_t *line = (const uint8_t *)r + record_length_bytes(le32_get(r->rc_entry_count), 0);

	for (uint32_t i = 0; i < le32_get(r->rc_entry_count); i++) {
		for (uint64_t mask = le64_get(e[i].re_mask); mask; mask &= mask - 1) {
			assert(line + LINE_SIZE <= end);
			(void)*(const volatile uint8_t *)line;
			line += LINE_SIZE;
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	size_t limit = (size_t)(1 + input_u8(&in) % 4) * BLOCK_SIZE, length;
	struct m_record *r = input_memory(&in, limit);

	(void)record_check(r, limit, le32_get(r->rc_lane), &r->rc_uuid);
	r->rc_magic = le32_of(MAGIC_RECORD);
	length = le32_get(r->rc_length_bytes);
	if (length >= sizeof(*r) && length <= limit)
		r->rc_crc = le32_of(record_crc(r, length));
	if (record_check(r, limit, le32_get(r->rc_lane), &r->rc_uuid) == NULL)
		lines_read(r, limit);
	free(r);
	return 0;
}
