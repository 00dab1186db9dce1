/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * For a daemon that is to run out of memory for the buffers of its queues (life/transport): after UMBRA_ENTRIES of them there is none.
 */
#include <stdatomic.h>
#include <stdlib.h>

#define ENTRY_SIZE ((1u << 20) + 2 * 4096)

void *aligned_alloc(size_t align, size_t size)
{
	static _Atomic long taken;
	const char *most = getenv("UMBRA_ENTRIES");
	void *memory;

	if (size == ENTRY_SIZE && most && atomic_fetch_add(&taken, 1) >= strtol(most, NULL, 10))
		return NULL;
	return posix_memalign(&memory, align, size) == 0 ? memory : NULL;
}
