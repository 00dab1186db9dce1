/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Header and checks of metadata units: one place that knows every kind.
 */
#include "media/unit.h"

#include <isa-l/crc.h>
#include <string.h>

#include "media/ag.h"
#include "media/inode.h"
#include "media/journal.h"
#include "media/node.h"
#include "media/super.h"

static uint32_t crc_part(const void *p, size_t len_bytes, uint32_t crc)
{
	return crc32_iscsi((unsigned char *)(uintptr_t)p, (int)len_bytes, crc);
}

/* CRC32C (Castagnoli, RFC 3720) with the four bytes at crc_off taken as zero. */
static uint32_t crc_skipping(const void *p, size_t len_bytes, size_t crc_off)
{
	static const uint32_t zero;
	const uint8_t *b = p;
	uint32_t crc = crc_part(b, crc_off, 0xffffffffu);

	crc = crc_part(&zero, sizeof(zero), crc);
	crc = crc_part(b + crc_off + sizeof(zero), len_bytes - crc_off - sizeof(zero), crc);
	return ~crc;
}

uint32_t unit_crc(const void *unit, size_t size_bytes)
{
	return crc_skipping(unit, size_bytes, offsetof(struct m_unit_hdr, uh_crc));
}

uint32_t record_crc(const void *record, size_t length_bytes)
{
	return crc_skipping(record, length_bytes, offsetof(struct m_unit_hdr, uh_crc));
}

void unit_init(void *unit, uint32_t magic, uint64_t laddr, uint64_t owner, const struct m_uuid *uuid)
{
	struct m_unit_hdr *h = unit;

	*h = (struct m_unit_hdr){
		.uh_magic = le32_of(magic),
		.uh_laddr = le64_of(laddr),
		.uh_owner = le64_of(owner),
		.uh_uuid = *uuid,
	};
}

void unit_seal(void *unit, size_t size_bytes, uint64_t seq)
{
	struct m_unit_hdr *h = unit;

	h->uh_seq = le64_of(seq);
	h->uh_crc = le32_of(unit_crc(unit, size_bytes));
}

size_t unit_size(uint32_t magic)
{
	switch (magic) {
	case MAGIC_INODE:
		return INODE_SIZE;
	case MAGIC_SUPER:
	case MAGIC_AG:
	case MAGIC_INTENTS:
	case MAGIC_REMAP:
	case MAGIC_CHUNKS:
	case MAGIC_BITMAP:
	case MAGIC_NODE:
	case MAGIC_XVAL:
		return BLOCK_SIZE;
	default:
		return 0;
	}
}

const char *unit_check_header(const void *unit, size_t size_bytes, uint32_t magic, uint64_t laddr,
			      const struct m_uuid *uuid)
{
	const struct m_unit_hdr *h = unit;
	uint32_t found = le32_get(h->uh_magic);

	if (magic != 0 && found != magic)
		return "unit: wrong magic";
	if (unit_size(found) != size_bytes)
		return "unit: unknown magic";
	if (le64_get(h->uh_laddr) != laddr)
		return "unit: wrong address";
	if (memcmp(&h->uh_uuid, uuid, sizeof(*uuid)) != 0)
		return "unit: belongs to another pool";
	if (le32_get(h->uh_crc) != unit_crc(unit, size_bytes))
		return "unit: bad CRC";
	return NULL;
}

static const char *node_unit_check(const struct m_node *n)
{
	if (node_count(n->nd_body) == 0)
		return "node: empty";
	return node_body_check(n->nd_body, NODE_BODY_SIZE);
}

static const char *xval_check(const struct m_xval *x)
{
	uint32_t len = le32_get(x->xv_len_bytes);

	return len == 0 || len > XVAL_DATA_SIZE ? "xattr value: bad length" : NULL;
}

const char *unit_check_body(const void *unit, size_t size_bytes)
{
	struct super super;

	(void)size_bytes;
	switch (unit_magic(unit)) {
	case MAGIC_SUPER:
		super_decode(&super, unit);
		return super_check(&super);
	case MAGIC_AG:
		return ag_check(unit);
	case MAGIC_INTENTS:
		return intents_check(unit);
	case MAGIC_REMAP:
		return remaps_check(unit);
	case MAGIC_CHUNKS:
		return chunks_check(unit);
	case MAGIC_INODE:
		return inode_check(unit);
	case MAGIC_NODE:
		return node_unit_check(unit);
	case MAGIC_XVAL:
		return xval_check(unit);
	case MAGIC_BITMAP: /* any bits make sense by themselves */
		return NULL;
	default:
		return "unit: unknown magic";
	}
}
