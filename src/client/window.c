/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A message takes as long as a copy of some hundred KiB; but space that is taken for a page that nobody stores to is lost until it is given back. So it depends on what has been seen:
 *
 * - Whoever comes back to a region of 2 MiB gets twice as much there each time: once as much has been spent on messages as on a copy of all of it, all of it is copied.
 * - Whoever mostly comes back to regions (more than once for two that are new) gets more in new ones too, up to all of a region at once. That leaves less to
 *   come back for: the density falls again until some regions are asked for in parts, which shows how it is now. So it follows when stores become sparse.
 *
 * Regions are remembered in a small table, where they displace each other: a forgotten one is a new one.
 */
#include "client/window.h"

#define REGIONS 1024u
#define LEVEL_MAX 5u        /* COPY_MIN << 5 == COPY_MAX */
#define DENSITY_OF_LEVEL 2u /* so much for each doubling */
#define DENSITY_MAX (DENSITY_OF_LEVEL * (LEVEL_MAX + 1))
#define CAME_BACK 2u

static struct region {
	uint64_t file, number;
	unsigned asked;
} regions[REGIONS];

static unsigned level_min(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

uint64_t window_next(struct window_past *past, uint64_t off)
{
	static uint64_t last;
	uint64_t number = off / COPY_MAX;
	struct region *r;
	unsigned level;

	if (past->number == 0)
		past->number = ++last;
	r = &regions[(number + past->number * 7919) % REGIONS];
	if (r->file != past->number || r->number != number)
		*r = (struct region){ past->number, number, 0 };
	level = level_min(past->density / DENSITY_OF_LEVEL + r->asked, LEVEL_MAX);
	if (r->asked > 0)
		past->density = level_min(past->density + CAME_BACK, DENSITY_MAX);
	else if (past->density > 0)
		past->density--;
	r->asked++;
	return (uint64_t)COPY_MIN << level;
}
