/* SPDX-License-Identifier: BSD-3-Clause */
#include <umbra/umbra.h>

#include <string.h>

#include "client/section.h"
#include "client/session.h"

#define exported __attribute__((visibility("default")))

exported void umbra_get_counts(struct umbra_counts *counts)
{
	memset(counts, 0, sizeof(*counts));
	section_sum(counts);
	counts->maps = atomic_load(&client_maps);
	counts->revokes = atomic_load(&client_revokes);
	counts->lost_sessions = atomic_load(&client_lost);
}

exported const char *umbra_version(void)
{
	return UMBRA_VERSION;
}
