/* SPDX-License-Identifier: BSD-3-Clause */
/* What a process has done directly, what the kernel has done and why: UMBRA_STATS. */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <umbra/umbra.h>

#include "client/fds.h"
#include "client/fds_own.h"

static const char *const why_names[WHY_COUNT] = {
	[BY_FEW_CALLS] = "too few calls on a descriptor",
	[BY_OTHER_FILE] = "other files, O_APPEND, no right, or others have them open through the kernel",
	[BY_MAPPED] = "files that the kernel maps",
	[BY_LIMIT] = "RLIMIT_FSIZE",
	[BY_SMALL_MAPPING] = "small mappings to be read",
	[BY_OTHER_MAPPING] = "mappings that only the kernel can make",
	[BY_OFFSET] = "offsets that others move, in files open to read and write",
	[BY_SIZE] = "files that are written at their end, or read whole at once",
};

static bool shows_counts;
static int stats_fd = -1;
static _Atomic uint64_t counts[WHY_COUNT], mappings;

void fds_tell(enum fds_why why)
{
	atomic_fetch_add_explicit(&counts[why], 1, memory_order_relaxed);
}

void fds_maps_directly(void)
{
	atomic_fetch_add_explicit(&mappings, 1, memory_order_relaxed);
}

/* Programs close their standard error before they end. */
void fds_counts_begin(void)
{
	const char *stats = getenv("UMBRA_STATS");

	shows_counts = stats && strcmp(stats, "1") == 0;
	if (shows_counts)
		stats_fd = own_copy(2);
}

__attribute__((destructor)) void fds_say_counts(void)
{
	int fd = stats_fd >= 0 ? stats_fd : 2;
	struct umbra_counts c;
	bool any;

	/* A child by vfork() has nothing to say of its own. */
	if (!shows_counts || !fds_are_own())
		return;
	shows_counts = false;
	umbra_get_counts(&c);
	any = c.reads || c.writes || c.kernel_reads || c.kernel_writes || mappings;
	for (size_t i = 0; i < WHY_COUNT; i++)
		any |= atomic_load(&counts[i]) > 0;
	if (!any)
		return;
	dprintf(fd,
		"umbra: directly %llu reads of %llu bytes, %llu writes of %llu bytes\n"
		"umbra: by the kernel %llu reads, %llu writes of the same files\n",
		c.reads, c.read_bytes, c.writes, c.written_bytes, c.kernel_reads, c.kernel_writes);
	if (mappings)
		dprintf(fd, "umbra: directly %llu mappings\n", (unsigned long long)mappings);
	for (size_t i = 0; i < WHY_COUNT; i++)
		if (atomic_load(&counts[i]))
			dprintf(fd, "umbra: by the kernel %llu calls: %s\n",
				(unsigned long long)atomic_load(&counts[i]), why_names[i]);
}
