/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Lists of ranges that are being put together.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "registry/priv.h"

void list_init(struct range_list *l)
{
	l->at = l->few;
	l->count = 0;
	l->room = ARRAY_SIZE(l->few);
}

void list_free(struct range_list *l)
{
	if (l->at != l->few)
		free(l->at);
	list_init(l);
}

int list_add(struct range_list *l, const struct range *range)
{
	if (l->count == l->room) {
		uint32_t room = l->room * 2;
		struct range *at = malloc(room * sizeof(*at));

		if (!at)
			return -ENOMEM;
		memcpy(at, l->at, l->count * sizeof(*at));
		if (l->at != l->few)
			free(l->at);
		l->at = at;
		l->room = room;
	}
	l->at[l->count++] = *range;
	return 0;
}

/* next goes on where last ends: last becomes longer. */
static bool joins(struct range *last, const struct range *next, uint64_t value)
{
	if (last->tag != next->tag || value != next->value || last->blk + last->count_blk != next->blk ||
	    next->count_blk > UINT32_MAX - last->count_blk)
		return false;
	last->count_blk += next->count_blk;
	return true;
}

int list_add_shadow(struct range_list *l, const struct range *shadow)
{
	struct range *last = l->count > 0 ? &l->at[l->count - 1] : NULL;

	if (last && joins(last, shadow, shadow->tag & SHADOW_HOLE ? 0 : last->value + last->count_blk))
		return 0;
	return list_add(l, shadow);
}

int list_add_master(struct range_list *l, const struct range *master)
{
	struct range *last = l->count > 0 ? &l->at[l->count - 1] : NULL;

	if (last && joins(last, master, last->value))
		return 0;
	return list_add(l, master);
}

struct range shadow_part(const struct range *shadow, uint64_t lo, uint64_t hi)
{
	struct range part = *shadow;

	lo = u64_max(lo, shadow->blk);
	hi = u64_min(hi, shadow->blk + shadow->count_blk);
	part.blk = lo;
	part.count_blk = (uint32_t)(hi - lo);
	if (!(part.tag & SHADOW_HOLE))
		part.value += lo - shadow->blk;
	return part;
}
