/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Metadata units of every kind: header, check of the content, decoding and encoding of what passed.
 *
 * Input: u8 kind of unit (0: as its magic says) | the unit.
 */
#include <assert.h>

#include "fuzz/input.h"
#include "fuzz/target.h"
#include "media/ag.h"
#include "media/inode.h"
#include "media/node.h"
#include "media/super.h"

static const uint32_t magics[] = { 0,           MAGIC_SUPER,  MAGIC_AG,     MAGIC_INTENTS,
				   MAGIC_REMAP, MAGIC_CHUNKS, MAGIC_BITMAP, MAGIC_INODE,
				   MAGIC_NODE,  MAGIC_XVAL };

/* What is decoded and encoded again is the same, and as sound as it was. */
static void inode_again(const struct m_inode *m)
{
	struct m_inode copy = *m;
	struct inode_attr attr;

	inode_attr_decode(&attr, m);
	inode_attr_encode(&copy, &attr);
	assert(memcmp(&copy, m, sizeof(copy)) == 0);
	assert(inode_attr_check(&attr) == NULL && inode_check(&copy) == NULL);
}

static void super_again(const struct m_super *m)
{
	_Alignas(64) struct m_super copy, again;
	struct m_ag_super short_copy;
	struct super super;

	super_decode(&super, m);
	super_encode(&copy, &super);
	super_decode(&super, &copy);
	super_encode(&again, &super);
	assert(super_check(&super) == NULL && memcmp(&copy, &again, sizeof(copy)) == 0);
	ag_super_encode(&short_copy, &super);
	assert(ag_super_decode(&super, &short_copy, &copy.sb_hdr.uh_uuid));
}

static void ag_again(const struct m_ag *m)
{
	struct super super;

	if (ag_super_decode(&super, &m->ag_super, &m->ag_hdr.uh_uuid))
		assert(super_check(&super) == NULL);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	uint32_t magic = magics[input_u8(&in) % ARRAY_SIZE(magics)];
	struct m_unit_hdr *h;
	size_t unit_bytes = unit_size(magic);

	if (!magic && in.size >= sizeof(magic)) {
		memcpy(&magic, in.data, sizeof(magic));
		unit_bytes = unit_size(magic);
	}
	if (!unit_bytes)
		return 0;
	h = input_memory(&in, unit_bytes);
	(void)unit_check_header(h, unit_bytes, magic, 0, &h->uh_uuid);
	h->uh_magic = le32_of(magic);
	unit_seal(h, unit_bytes, le64_get(h->uh_seq));
	assert(unit_check_header(h, unit_bytes, magic, le64_get(h->uh_laddr), &h->uh_uuid) == NULL);
	if (unit_check_body(h, unit_bytes) == NULL) {
		if (magic == MAGIC_INODE)
			inode_again((void *)h);
		if (magic == MAGIC_SUPER)
			super_again((void *)h);
		if (magic == MAGIC_AG)
			ag_again((void *)h);
	}
	free(h);
	return 0;
}
