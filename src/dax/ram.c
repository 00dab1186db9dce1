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

int dax_open_ram(uint64_t size_bytes, const void *image, const struct dax_trace *trace, struct dax **out)
{
	struct dax *dax = calloc(1, sizeof(*dax));
	void *base;
	int rc;

	if (!dax)
		return -ENOMEM;
	dax->fd = -1;
	dax->align_bytes = DAX_BLOCK_BYTES;
	dax->durability = DAX_PROCESS;
	dax->size_bytes = size_bytes;
	dax->map_bytes = u64_align_up(size_bytes, DAX_BLOCK_BYTES);
	if (trace) {
		dax->traced = true;
		dax->trace = *trace;
	}
	base = mmap(NULL, dax->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		    -1, 0);
	if (base == MAP_FAILED) {
		rc = -errno;
		goto out_free;
	}
	dax->base = base;
	if (image)
		memcpy(dax->base, image, size_bytes);
	rc = guard_mapping_add(dax);
	if (rc)
		goto out_unmap;
	*out = dax;
	return 0;
out_unmap:
	munmap(base, dax->map_bytes);
out_free:
	free(dax);
	return rc;
}
