/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory for copies out of the device, and memory that is shared with other processes. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dax/dax.h"
#include "util/util.h"

#define HUGE_PAGE ((size_t)2 << 20)

void *dax_buffer_alloc(size_t len_bytes)
{
	size_t size = u64_align_up(len_bytes, HUGE_PAGE);
	void *buffer = aligned_alloc(HUGE_PAGE, size);

	if (buffer)
		(void)madvise(buffer, size, MADV_HUGEPAGE);
	return buffer;
}

void dax_buffer_hold(void *buffer, size_t len_bytes)
{
	(void)!mlock(buffer, len_bytes);
	memset(buffer, 0, len_bytes);
}

void *dax_shared_alloc(size_t len_bytes, int *fd)
{
	int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	int made = memfd_create("umbrafs", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *shared;

	if (made < 0)
		return NULL;
	if (ftruncate(made, (off_t)len_bytes) || fcntl(made, F_ADD_SEALS, seals)) {
		close(made);
		return NULL;
	}
	shared = dax_shared_map(made, len_bytes);
	if (!shared) {
		close(made);
		return NULL;
	}
	*fd = made;
	return shared;
}

void *dax_shared_map(int fd, size_t len_bytes)
{
	void *shared = mmap(NULL, len_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);

	if (shared == MAP_FAILED)
		return NULL;
	(void)madvise(shared, len_bytes, MADV_DONTDUMP);
	return shared;
}

void dax_shared_free(void *shared, size_t len_bytes)
{
	if (shared)
		munmap(shared, len_bytes);
}
