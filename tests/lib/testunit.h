/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Metadata units under the hand of a test: read, changed, and put back with a good CRC, behind the back of all floors.
 */
#ifndef UMBRA_TESTS_TESTUNIT_H
#define UMBRA_TESTS_TESTUNIT_H

#include "lib/testfs.h"
#include "media/unit.h"

enum { TESTUNIT_PRIMARY = 1, TESTUNIT_MIRROR = 2, TESTUNIT_BOTH = 3 };

/* The primary copy. */
void testunit_load(struct testfs *t, uint64_t laddr, void *unit, size_t size_bytes);
/* Seals it with the sequence number that it has. */
void testunit_store(struct testfs *t, uint64_t laddr, void *unit, size_t size_bytes, unsigned copies);
/* Bytes that are no unit. */
void testunit_junk(struct testfs *t, uint64_t laddr, unsigned copies);

#endif
