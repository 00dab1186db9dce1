/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/spare_areas.h"

#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>

#include "client/calls.h"

#define BLOCK 4096u
/* mremap(2) wants six to be left, and one piece in the midst of a mapping takes two; those at the ends may be the neighbours' too. */
#define SPARE_AREAS 12u

static _Atomic(uint8_t *) held;

void spare_areas_hold(void)
{
	uint8_t *at;

	if (atomic_load(&held))
		return;
	at = client_calls.mmap(NULL, SPARE_AREAS * BLOCK, PROT_NONE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED)
		return;
	/* Each other page differs, so that none is a part of its neighbours. */
	for (unsigned i = 1; i < SPARE_AREAS; i += 2)
		if (client_calls.mprotect(at + i * BLOCK, BLOCK, PROT_READ)) {
			(void)client_calls.munmap(at, SPARE_AREAS * BLOCK);
			return;
		}
	atomic_store(&held, at);
}

bool spare_areas_give(void)
{
	uint8_t *at = atomic_exchange(&held, NULL);

	return at && client_calls.munmap(at, SPARE_AREAS * BLOCK) == 0;
}
