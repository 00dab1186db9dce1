/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * UFFDIO_POISON: kernel 6.6 has it, the headers of Debian 12 do not.
 */
#ifndef UMBRA_TESTS_UFFD_POISON_H
#define UMBRA_TESTS_UFFD_POISON_H

#include <linux/userfaultfd.h>
#include <stdint.h>

#ifndef UFFDIO_POISON
struct uffdio_poison {
	struct uffdio_range range;
	uint64_t mode;
	int64_t updated;
};
#define UFFD_FEATURE_POISON (1 << 14)
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif

#endif
