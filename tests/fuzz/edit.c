/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See edit.h. And how libFuzzer makes an input from another one: mostly a field of a unit gets a value that could mean something there.
 */
#include "fuzz/edit.h"

#include <string.h>

#include "fuzz/pool.h"
#include "lib/testfs.h"
#include "media/inode.h"
#include "media/journal.h"

#define HEAD_BYTES 8u
#define EDIT_BYTES 16u

struct edit {
	uint16_t unit, off;
	uint8_t what, copies;
	uint64_t value;
};

static void edit_decode(struct edit *e, const uint8_t *data)
{
	memcpy(&e->unit, data, 2);
	memcpy(&e->off, data + 2, 2);
	e->what = data[4];
	e->copies = data[5];
	memcpy(&e->value, data + 8, 8);
}

static void edit_encode(uint8_t *data, const struct edit *e)
{
	memset(data, 0, EDIT_BYTES);
	memcpy(data, &e->unit, 2);
	memcpy(data + 2, &e->off, 2);
	data[4] = e->what;
	data[5] = e->copies;
	memcpy(data + 8, &e->value, 8);
}

/* ---- applying ---- */

static void unit_repair_crc(const struct fuzz_unit *u, uint8_t *bytes, bool newer)
{
	struct m_unit_hdr *h = (void *)bytes;
	struct m_record *r = (void *)bytes;

	if (u->kind != FUZZ_RECORD) {
		unit_seal(bytes, u->size_bytes, le64_get(h->uh_seq) + newer);
		return;
	}
	if (le32_get(r->rc_length_bytes) >= sizeof(*r) && le32_get(r->rc_length_bytes) <= LANE_SIZE_MIN) {
		fuzz_pool_touch((uint64_t)(bytes - fuzz_pool_bytes()), sizeof(*r));
		r->rc_crc = le32_of(record_crc(r, le32_get(r->rc_length_bytes)));
	}
}

static void copy_edit(const struct fuzz_unit *u, const struct edit *e, uint8_t *bytes)
{
	const struct fuzz_unit *from = &fuzz_units[e->value % fuzz_unit_count];
	unsigned what = e->what % EDIT_WHATS;
	size_t width = (size_t)1 << (what <= EDIT_64 ? what : 0);
	size_t head = sizeof(struct m_unit_hdr);
	size_t body = (u->size_bytes < from->size_bytes ? u->size_bytes : from->size_bytes) - head;

	if (what == EDIT_BODY)
		memcpy(bytes + head, fuzz_pool_base() + from->off[0] + head, body);
	else if (what == EDIT_ZERO)
		memset(bytes + head, 0, u->size_bytes - head);
	else
		memcpy(bytes + e->off % (u->size_bytes - width + 1), &e->value, width);
}

static void edit_do(const struct edit *e)
{
	static const uint8_t which[EDIT_COPIES] = { 3, 1, 2, 3, 1, 2, 1 };
	const struct fuzz_unit *u = &fuzz_units[e->unit % fuzz_unit_count];
	enum edit_copies copies = e->copies % EDIT_COPIES;
	bool bad = copies == EDIT_BOTH_BAD || copies == EDIT_PRIMARY_BAD || copies == EDIT_MIRROR_BAD;

	for (unsigned copy = 0; copy < 2; copy++) {
		uint8_t *bytes = fuzz_pool_bytes() + u->off[copy];

		if (!(which[copies] & 1u << copy))
			continue;
		fuzz_pool_touch(u->off[copy], u->size_bytes);
		copy_edit(u, e, bytes);
		if (!bad)
			unit_repair_crc(u, bytes, copies == EDIT_PRIMARY_NEWER);
	}
}

void edit_apply(const uint8_t *data, size_t size, struct edit_head *head)
{
	struct edit e;

	*head = (struct edit_head){ 0 };
	if (size < HEAD_BYTES)
		return;
	memcpy(&head->seed, data, 4);
	head->steps = data[4];
	head->flags = data[5];
	for (size_t at = HEAD_BYTES; at + EDIT_BYTES <= size && at < HEAD_BYTES + EDITS_MAX * EDIT_BYTES;
	     at += EDIT_BYTES) {
		edit_decode(&e, data + at);
		edit_do(&e);
	}
}

/* ---- mutation ---- */

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

static uint64_t word_at(const struct fuzz_unit *u, size_t off, size_t width)
{
	uint64_t word = 0;

	memcpy(&word, fuzz_pool_base() + u->off[0] + off, width);
	return word;
}

/* A place that holds something, mostly behind the header. */
static size_t field_pick(const struct fuzz_unit *u, size_t width, uint64_t *random)
{
	size_t off = 0;

	for (unsigned tries = 0; tries < 20; tries++) {
		size_t room = testfs_below(random, 2) ? u->size_bytes : 512;

		off = testfs_below(random, room / width) * width;
		if (off < sizeof(struct m_unit_hdr) && u->kind != FUZZ_RECORD && testfs_below(random, 8))
			continue;
		if (word_at(u, off, width) != 0 || testfs_below(random, 8) == 0)
			break;
	}
	return off;
}

static uint64_t value_pick(const struct fuzz_unit *u, size_t off, size_t width, uint64_t *random)
{
	static const uint64_t numbers[] = { 0,          1,          2,          511,        512,       4096,
					    1ull << 20, 1ull << 31, 1ull << 55, 1ull << 63, UINT64_MAX };
	uint64_t was = word_at(u, off, width);
	const struct fuzz_unit *other = &fuzz_units[testfs_below(random, fuzz_unit_count)];

	switch (testfs_below(random, 10)) {
	case 0:
		return was + 1 + testfs_below(random, 8);
	case 1:
		return was - 1 - testfs_below(random, 8);
	case 2:
		return was ^ 1ull << testfs_below(random, width * 8);
	case 3:
		return word_at(u, testfs_below(random, u->size_bytes / width) * width, width);
	case 4:
		return off + width <= other->size_bytes ? word_at(other, off, width) : 0;
	case 5:
		return numbers[testfs_below(random, ARRAY_SIZE(numbers))];
	case 6:
		return other->laddr;
	case 7:
		return other->laddr >> INODE_SHIFT;
	case 8:
		return testfs_below(random, FUZZ_POOL_BYTES / BLOCK_SIZE);
	default:
		return testfs_random(random);
	}
}

static struct edit edit_pick(uint64_t *random)
{
	static const uint8_t whats[] = { EDIT_64, EDIT_64, EDIT_64, EDIT_32, EDIT_32, EDIT_16, EDIT_8 };
	struct edit e = {
		.unit = (uint16_t)testfs_below(random, fuzz_unit_count),
		.what = whats[testfs_below(random, ARRAY_SIZE(whats))],
		.copies = (uint8_t)(testfs_below(random, 4) ? EDIT_BOTH : testfs_below(random, EDIT_COPIES)),
	};
	const struct fuzz_unit *u;
	size_t width;

	/* There are many inodes that are all alike: not each of them is as likely as a unit of another kind. */
	for (unsigned tries = 0; tries < 3 && fuzz_units[e.unit].size_bytes == INODE_SIZE; tries++)
		e.unit = (uint16_t)testfs_below(random, fuzz_unit_count);
	if (testfs_below(random, 16) == 0) {
		e.what = testfs_below(random, 3) ? EDIT_BODY : EDIT_ZERO;
		e.value = testfs_below(random, fuzz_unit_count);
		return e;
	}
	u = &fuzz_units[e.unit];
	width = (size_t)1 << e.what;
	e.off = (uint16_t)field_pick(u, width, random);
	e.value = value_pick(u, e.off, width, random);
	return e;
}

/* One edit more, less, or another one. */
static size_t edits_mutate(uint8_t *data, size_t size, size_t max_size, uint64_t *random)
{
	size_t count = size < HEAD_BYTES ? 0 : (size - HEAD_BYTES) / EDIT_BYTES;
	uint8_t *at = data + HEAD_BYTES + (count ? testfs_below(random, count) * EDIT_BYTES : 0);
	struct edit e = edit_pick(random);

	if (size < HEAD_BYTES)
		memset(data + size, 0, HEAD_BYTES - size);
	size = HEAD_BYTES + count * EDIT_BYTES;
	switch (count ? testfs_below(random, 6) : 0) {
	case 0:
	case 1:
		if (size + EDIT_BYTES > max_size || count == EDITS_MAX)
			return size;
		edit_encode(data + size, &e);
		return size + EDIT_BYTES;
	case 2:
		edit_encode(at, &e);
		return size;
	case 3: /* the same unit, another field */
		memcpy(&e.unit, at, sizeof(e.unit));
		edit_encode(at, &e);
		return size;
	case 4:
		memmove(at, at + EDIT_BYTES, (size_t)(data + size - at) - EDIT_BYTES);
		return size - EDIT_BYTES;
	default: /* another value */
		edit_decode(&e, at);
		e.value = value_pick(&fuzz_units[e.unit % fuzz_unit_count], 0, 8, random);
		edit_encode(at, &e);
		return size;
	}
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
	uint64_t random = seed;

	if (max_size < HEAD_BYTES + EDIT_BYTES || testfs_below(&random, 8) == 0)
		return LLVMFuzzerMutate(data, size, max_size);
	if (size >= HEAD_BYTES && testfs_below(&random, 6) == 0) {
		uint64_t head = testfs_random(&random);

		memcpy(data, &head, 6);
		return size;
	}
	return edits_mutate(data, size, max_size, &random);
}
