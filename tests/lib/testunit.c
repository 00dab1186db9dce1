/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Metadata units under the hand of a test.
 */
#include "lib/testunit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A unit with both copies asked for may have one: --metadata=single. */
static bool is_wanted(struct testfs *t, uint64_t laddr, unsigned copies, unsigned copy)
{
	uint64_t off;

	return copies & 1u << copy &&
	       (copies != TESTUNIT_BOTH || pool_place(t->pool, laddr, copy, &off) != -ENOENT);
}

static uint64_t place(struct testfs *t, uint64_t laddr, unsigned copy)
{
	uint64_t off;

	if (pool_place(t->pool, laddr, copy, &off) != 0)
		abort();
	return off;
}

static void store(struct testfs *t, uint64_t off, const void *bytes, size_t size_bytes)
{
	if (dax_store(t->dax, off, bytes, size_bytes) != 0)
		abort();
}

void testunit_load(struct testfs *t, uint64_t laddr, void *unit, size_t size_bytes)
{
	memcpy(unit, dax_ptr(t->dax, place(t, laddr, 0)), size_bytes);
}

void testunit_store(struct testfs *t, uint64_t laddr, void *unit, size_t size_bytes, unsigned copies)
{
	unit_seal(unit, size_bytes, le64_get(((struct m_unit_hdr *)unit)->uh_seq));
	for (unsigned copy = 0; copy < 2; copy++) {
		if (is_wanted(t, laddr, copies, copy))
			store(t, place(t, laddr, copy), unit, size_bytes);
	}
	pool_unverify(t->pool, laddr, size_bytes);
}

void testunit_junk(struct testfs *t, uint64_t laddr, unsigned copies)
{
	uint8_t bytes[LINE_SIZE];

	memset(bytes, 0xa5, sizeof(bytes));
	for (unsigned copy = 0; copy < 2; copy++) {
		if (is_wanted(t, laddr, copies, copy))
			store(t, place(t, laddr, copy) + 2 * LINE_SIZE, bytes, sizeof(bytes));
	}
}
