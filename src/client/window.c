/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A message takes as long as a copy of some hundred KiB, or of a MiB where cores have to be woken for it; but space that is taken for a page that nobody stores to is lost until it is given back.
 * So it depends on what has been seen:
 *
 * - Whoever comes back to a region of 2 MiB gets twice as much there each time: once as much has been spent on messages as on a copy of all of it, all of it is copied.
 * - Whoever comes back to regions (more than once for four that are new) gets more in new ones too: up to all of a region at once, and then up to four of them, for each of which
 *   one has to come back as often. That leaves less to come back for: the density falls again until some regions are asked for in parts, which shows how it is now. So it follows when
 *   stores become sparse.
 *
 * Regions are remembered in a small table, where they displace each other: a forgotten one is a new one.
 */
#include "client/window.h"

#define REGIONS 1024u
#define LEVEL_REGION 5u     /* COPY_MIN << 5 == COPY_REGION */
#define LEVEL_MAX 7u        /* COPY_MIN << 7 == COPY_MAX */
#define DENSITY_OF_LEVEL 2u /* so much for each doubling */
#define DENSITY_MAX 24u
#define CAME_BACK 4u

static struct region {
	uint64_t file, number;
	unsigned asked;
} regions[REGIONS];

static unsigned u_min(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

static struct region *region_get(uint64_t file, uint64_t number)
{
	struct region *r = &regions[(number + file * 7919) % REGIONS];

	if (r->file != file || r->number != number)
		*r = (struct region){ file, number, 0 };
	return r;
}

uint64_t window_next(struct window_past *past, uint64_t off)
{
	static uint64_t last;
	unsigned level, asked, count;
	uint64_t first;

	if (past->number == 0)
		past->number = ++last;
	asked = region_get(past->number, off / COPY_REGION)->asked;
	level = u_min(past->density / DENSITY_OF_LEVEL, LEVEL_MAX);
	if (asked > 0 && level < LEVEL_REGION)
		level = u_min(level + asked, LEVEL_REGION);
	/* All that it has. */
	count = level > LEVEL_REGION ? 1u << (level - LEVEL_REGION) : 1;
	first = off / COPY_REGION / count * count;
	for (unsigned i = 0; i < count; i++)
		region_get(past->number, first + i)->asked++;
	if (asked > 0)
		past->density = u_min(past->density + CAME_BACK, DENSITY_MAX);
	else
		past->density -= u_min(past->density, count > 1 ? count / 2 : 1);
	return (uint64_t)COPY_MIN << level;
}
