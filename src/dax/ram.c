/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A pool in anonymous memory, for tests: every store and fence can be recorded, so that a crash test can build each
 * state that the media could have been left in.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "dax/priv.h"

static int ram_open(void *memory, uint64_t size_bytes, const struct dax_trace *trace, struct dax **out)
{
	struct dax *dax = calloc(1, sizeof(*dax));
	int rc;

	if (!dax)
		return -ENOMEM;
	dax->fd = -1;
	dax->align_bytes = DAX_BLOCK_BYTES;
	dax->durability = DAX_PROCESS;
	dax->size_bytes = size_bytes;
	dax->map_bytes = u64_align_up(size_bytes, DAX_BLOCK_BYTES);
	dax->base = memory;
	if (trace) {
		dax->traced = true;
		dax->trace = *trace;
	}
	rc = guard_mapping_add(dax);
	if (rc) {
		free(dax);
		return rc;
	}
	*out = dax;
	return 0;
}

int dax_open_memory(void *memory, uint64_t size_bytes, const struct dax_trace *trace, struct dax **out)
{
	int rc = ram_open(memory, size_bytes, trace, out);

	if (!rc)
		(*out)->by_caller = true;
	return rc;
}

int dax_open_ram(uint64_t size_bytes, const void *image, const struct dax_trace *trace, struct dax **out)
{
	return dax_open_ram_room(size_bytes, size_bytes, image, trace, out);
}

int dax_open_ram_room(uint64_t size_bytes, uint64_t max_bytes, const void *image,
		      const struct dax_trace *trace, struct dax **out)
{
	size_t map_bytes = u64_align_up(max_bytes, DAX_BLOCK_BYTES);
	void *memory = mmap(NULL, map_bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int rc;

	if (memory == MAP_FAILED)
		return -errno;
	if (image) {
		/* All of it is touched now: with large pages, where they can be had, in a fraction of the time. */
		(void)madvise(memory, map_bytes, MADV_HUGEPAGE);
		memcpy(memory, image, max_bytes);
	}
	rc = ram_open(memory, size_bytes, trace, out);
	if (rc) {
		munmap(memory, map_bytes);
		return rc;
	}
	(*out)->room = memory;
	(*out)->room_bytes = map_bytes;
	(*out)->max_bytes = max_bytes;
	return 0;
}
