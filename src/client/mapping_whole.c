/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Devices of large pages are mapped, protected and unmapped in whole ones only. There what is in place are units of 2 MiB of the file that are 2 MiB of the device: whoever touches one that is not asks
 * the daemon to make it so (UMBRA_MAP_WHOLE). Addresses are reserved for whole units too, around a mapping that does not begin or end
 * with one. One that is cut within a unit has nothing in place from then on: with units of a block it is for the kernel, whoever touches it next (mapping_place()).
 */
#include <errno.h>
#include <sys/mman.h>

#include "client/calls.h"
#include "client/mapping.h"
#include "util/sabotage.h"

#define BLOCK 4096u
#define WHOLE ((uint64_t)UMBRA_WHOLE_BYTES)

uint64_t whole_unit(uint64_t align_bytes)
{
	return align_bytes <= BLOCK ? BLOCK : align_bytes <= WHOLE ? WHOLE : 0;
}

/* ---- what is there ---- */

/* Puts together what the view has of the unit at lo: one range of the device, or all hole. */
static enum place unit_find(const struct view *v, uint64_t lo, uint64_t off, struct umbra_piece *out)
{
	uint64_t size = u64_align_up(v->size_bytes, BLOCK), end;

	*out = (struct umbra_piece){ .file_off = lo, .len = WHOLE, .flags = UMBRA_PIECE_WRITE };
	for (uint64_t at = lo; at < lo + WHOLE; at = end) {
		const struct umbra_piece *p = pieces_find(v->pieces, at);
		bool hole = p && p->flags & UMBRA_PIECE_HOLE;

		/* Behind a hole at the end of the file there is nothing that anybody needs. */
		if (at >= size && out->flags & UMBRA_PIECE_HOLE)
			break;
		if (!p)
			return PLACE_ASK;
		end = p->file_off + p->len;
		if (p->flags & UMBRA_PIECE_LOST)
			return off >= p->file_off && off < end ? PLACE_LOST : PLACE_KERNEL;
		if (at == lo) {
			out->dev_off = hole ? 0 : p->dev_off + (at - p->file_off);
			out->flags |= p->flags & UMBRA_PIECE_HOLE;
		}
		if (hole != !!(out->flags & UMBRA_PIECE_HOLE) ||
		    (out->dev_off % WHOLE && !sabotage_point("whole-align")) ||
		    (!hole && p->dev_off + (at - p->file_off) != out->dev_off + (at - lo)))
			return PLACE_ASK;
		if (!sabotage_point("whole-flags"))
			out->flags &= p->flags | UMBRA_PIECE_HOLE;
	}
	return PLACE_DONE;
}

enum place piece_to_place(const struct mapping *m, const struct view *v, uint64_t off, bool store,
			  struct umbra_piece *out)
{
	enum place found = PLACE_DONE;

	if (m->unit > BLOCK) {
		found = unit_find(v, u64_align_down(off, m->unit), off, out);
	} else {
		const struct umbra_piece *p = pieces_find(v->pieces, off);

		if (!p)
			return PLACE_ASK;
		*out = *p;
		if (p->flags & UMBRA_PIECE_LOST)
			found = PLACE_LOST;
	}
	return found == PLACE_DONE && store && !(out->flags & UMBRA_PIECE_WRITE) ? PLACE_ASK : found;
}

/* ---- addresses ---- */

int whole_fits(const struct mapping *m, uintptr_t hint, size_t len, int fixed)
{
	if (fixed && (m->off % m->unit || len % m->unit || hint % m->unit))
		return -EOPNOTSUPP;
	return hint && (hint - m->off) % m->unit ? -EOPNOTSUPP : 0;
}

int whole_reserve(const struct mapping *m, uintptr_t hint, size_t len, int fixed, uintptr_t *out)
{
	uint64_t before = m->off % m->unit, all = u64_align_up(before + len, m->unit);
	uintptr_t at;
	int rc;

	rc = addresses_reserve(hint > before ? hint - before : 0, all, m->off - before, fixed, &at);
	*out = at + before;
	return rc;
}

void whole_cut(uintptr_t lo, uintptr_t hi)
{
	const uintptr_t ends[] = { lo, hi };

	for (unsigned i = 0; i < ARRAY_SIZE(ends); i++) {
		struct mapping *m = mapping_find(ends[i]);

		if (!m || m->lo == ends[i] || ends[i] % m->unit == 0 || sabotage_point("whole-cut"))
			continue;
		mapping_void(m);
		whole_unreserve(m, m->lo, m->hi);
		m->unit = BLOCK;
	}
}

void whole_void(uintptr_t lo, uintptr_t hi)
{
	struct mapping *m;

	while ((m = mapping_next(lo)) && m->lo < hi) {
		if (m->unit > BLOCK)
			mapping_void(m);
		lo = m->hi;
	}
}

void whole_unreserve(const struct mapping *m, uintptr_t lo, uintptr_t hi)
{
	uintptr_t first = u64_align_down(m->lo, m->unit), end = u64_align_up(m->hi, m->unit);

	lo = u64_min(lo, m->lo);
	hi = u64_max(hi, m->hi);
	if (first < lo)
		client_calls.munmap((void *)first, lo - first);
	if (hi < end)
		client_calls.munmap((void *)hi, end - hi);
}
