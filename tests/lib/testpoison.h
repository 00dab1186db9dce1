/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad memory in a mapped pool: pages on which every access raises SIGBUS, as on a machine whose memory has failed, by
 * userfaultfd (Linux 6.6). The signal's code is BUS_ADRERR, where a machine check gives BUS_MCEERR_AR.
 */
#ifndef UMBRA_TESTS_TESTPOISON_H
#define UMBRA_TESTS_TESTPOISON_H

#include "dax/dax.h"

struct testpoison;

/* NULL: this kernel cannot, or does not allow it; says so on standard output. */
struct testpoison *testpoison_open(struct dax *dax);
void testpoison_close(struct testpoison *poison);

/* Makes the page at off bad. What it held is kept. No other thread may touch it meanwhile. */
void testpoison_page(struct testpoison *poison, uint64_t off);
/* The same, but only those lines of 64 bytes (bit i: line i) are lost: a salvage can read the others. */
void testpoison_lines(struct testpoison *poison, uint64_t off, uint64_t lines);
/* Makes it good again; it holds what it held before. */
void testpoison_heal(struct testpoison *poison, uint64_t off);
void testpoison_heal_all(struct testpoison *poison);

#endif
