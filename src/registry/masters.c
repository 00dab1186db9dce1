/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How many shadows are on which blocks, and blocks that are free but for them (quarantine).
 *
 * Where memory is wanted to count less, masters and quarantine keep what they have: blocks stay unused that could be used, until
 * masters_mend() has counted anew.
 */
#include <assert.h>
#include <errno.h>

#include "registry/priv.h"
#include "util/sabotage.h"

/* m with one shadow more, or less; false: none is left. */
static bool counted(struct range *m, bool write, bool more)
{
	if (more) {
		m->value += !sabotage_point("registry-count");
		m->tag += write;
		return true;
	}
	assert(m->value > 0 && (!write || m->tag > 0));
	m->value--;
	m->tag -= write;
	return m->value > 0;
}

/* Adds what there is in [lo, hi) after the change: masters and, where there is none, one for the first shadow. */
static int changed(const struct ranges *masters, uint64_t lo, uint64_t hi, bool write, bool more,
		   struct range_list *list)
{
	int rc = 0;

	for (uint64_t blk = lo; blk < hi && !rc;) {
		struct range m, part;
		bool found = ranges_find(masters, blk, &m) && m.blk < hi;
		uint64_t end = found ? m.blk : hi;

		if (blk < end) {
			assert(more);
			part = (struct range){
				.blk = blk, .count_blk = (uint32_t)(end - blk), .tag = write, .value = 1
			};
		} else {
			end = u64_min(hi, m.blk + m.count_blk);
			part = (struct range){
				.blk = blk, .count_blk = (uint32_t)(end - blk), .tag = m.tag, .value = m.value
			};
			if (!counted(&part, write, more))
				part.count_blk = 0;
		}
		if (part.count_blk > 0)
			rc = list_add_master(list, &part);
		blk = end;
	}
	return rc;
}

/* The masters around [lo, hi) are taken apart at its borders, and put together again where counts have become equal. */
static int masters_change(struct ranges *masters, const struct range *shadow, bool more)
{
	uint64_t lo = shadow->value, hi = lo + shadow->count_blk, from = lo, to = hi;
	bool write = shadow->tag & SHADOW_WRITE;
	struct range before, after;
	struct range_list list;
	int rc = 0;

	if (shadow->tag & SHADOW_HOLE)
		return 0;
	list_init(&list);
	if (lo > 0 && ranges_find(masters, lo - 1, &before) && before.blk < lo) {
		from = before.blk;
		before.count_blk = (uint32_t)(lo - before.blk);
		rc = list_add_master(&list, &before);
	}
	if (!rc)
		rc = changed(masters, lo, hi, write, more, &list);
	if (!rc && ranges_find(masters, hi, &after) && after.blk <= hi) {
		to = after.blk + after.count_blk;
		after.blk = hi;
		after.count_blk = (uint32_t)(to - hi);
		rc = list_add_master(&list, &after);
	}
	if (!rc)
		rc = ranges_replace(masters, from, to, list.at, list.count);
	list_free(&list);
	return rc;
}

int masters_add(struct registry *r, const struct range *shadow)
{
	return masters_change(r->masters, shadow, true);
}

int masters_drop(struct registry *r, const struct range *shadow)
{
	return masters_change(r->masters, shadow, false);
}

void masters_forget(struct registry *r, const struct range *shadow)
{
	if (masters_drop(r, shadow))
		r->is_stale = true;
}

/* ---- quarantine ---- */

/* Takes [lo, hi), which lies in one range of it, out. (l) */
static int quarantine_cut(struct registry *r, const struct range *q, uint64_t lo, uint64_t hi)
{
	uint64_t end = q->blk + q->count_blk;
	struct range parts[2];
	unsigned count = 0;
	int rc;

	if (q->blk < lo)
		parts[count++] = (struct range){ .blk = q->blk, .count_blk = (uint32_t)(lo - q->blk) };
	if (hi < end)
		parts[count++] = (struct range){ .blk = hi, .count_blk = (uint32_t)(end - hi) };
	rc = ranges_replace(r->quarantine, q->blk, end, parts, count);
	if (!rc)
		r->quarantine_blk -= hi - lo;
	return rc;
}

/* The first blocks of [blk, hi) that are in quarantine without a master are taken out of it. (l) */
static bool quarantine_take(struct registry *r, uint64_t blk, uint64_t hi, uint64_t *lo, uint64_t *end)
{
	struct range q, m;

	while (blk < hi && ranges_find(r->quarantine, blk, &q) && q.blk < hi) {
		*lo = u64_max(blk, q.blk);
		*end = u64_min(hi, q.blk + q.count_blk);
		if (ranges_find(r->masters, *lo, &m) && !sabotage_point("registry-quarantine")) {
			if (m.blk <= *lo) {
				blk = m.blk + m.count_blk;
				continue;
			}
			*end = u64_min(*end, m.blk);
		}
		if (!quarantine_cut(r, &q, *lo, *end))
			return true;
		r->is_stale = true;
		blk = *end;
	}
	return false;
}

static void quarantine_settle_range(struct registry *r, uint64_t lo, uint64_t hi)
{
	uint64_t blk, end;
	bool found = true;

	while (found) {
		pthread_mutex_lock(&r->lock);
		found = quarantine_take(r, lo, hi, &blk, &end);
		pthread_mutex_unlock(&r->lock);
		if (found) {
			space_release(fs_pool(r->fs), blk, end - blk);
			lo = end;
		}
	}
}

void quarantine_settle(struct registry *r, const struct range *shadows, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		if (!(shadows[i].tag & SHADOW_HOLE))
			quarantine_settle_range(r, shadows[i].value, shadows[i].value + shadows[i].count_blk);
	}
}

/* [blk, blk + count) has masters. (l) */
static void quarantine_put(struct registry *r, uint64_t blk, uint32_t count_blk)
{
	struct range q = { .blk = blk, .count_blk = count_blk }, before, after;
	uint64_t from = blk, to = blk + count_blk;
	struct range_list list;
	int rc = 0;

	list_init(&list); /* three at most: it needs no memory */
	if (blk > 0 && ranges_find(r->quarantine, blk - 1, &before) && before.blk < blk) {
		from = before.blk;
		rc = list_add_master(&list, &before);
	}
	if (!rc)
		rc = list_add_master(&list, &q);
	if (!rc && ranges_find(r->quarantine, to, &after) && after.blk == to) {
		to += after.count_blk;
		rc = list_add_master(&list, &after);
	}
	if (!rc)
		rc = ranges_replace(r->quarantine, from, to, list.at, list.count);
	/* Without memory the blocks stay out of use until the next mount. */
	r->quarantine_blk += rc ? 0 : count_blk;
	list_free(&list);
}

/*
 * Blocks that are free get no new shadows, so none that has no master here gets one.
 */
READS_UNDER_RCU uint64_t masters_keep(void *arg, uint64_t blk, uint64_t count_blk, bool *held)
{
	struct registry *r = arg;
	struct range m;
	bool found;

	thread_register();
	urcu_memb_read_lock();
	found = ranges_find(r->masters, blk, &m) && m.blk < blk + count_blk;
	urcu_memb_read_unlock();
	*held = false;
	if (!found)
		return count_blk;
	if (m.blk > blk)
		return m.blk - blk;
	pthread_mutex_lock(&r->lock);
	found = ranges_find(r->masters, blk, &m) && m.blk < blk + count_blk;
	if (found && m.blk > blk) {
		count_blk = m.blk - blk;
	} else if (found) {
		count_blk = u64_min(count_blk, m.blk + m.count_blk - blk);
		quarantine_put(r, blk, (uint32_t)count_blk);
		*held = true;
	}
	pthread_mutex_unlock(&r->lock);
	return count_blk;
}

/* ---- counted anew ---- */

static int masters_of_holding(struct ranges *masters, const struct holding *h)
{
	struct range shadow;
	int rc = 0;

	for (uint64_t blk = 0; !rc && ranges_find(h->shadows, blk, &shadow);
	     blk = shadow.blk + shadow.count_blk)
		rc = masters_change(masters, &shadow, true);
	return rc;
}

static int masters_of_all(struct registry *r, struct ranges *masters)
{
	struct session *s;
	int rc = 0;

	cds_list_for_each_entry(s, &r->sessions, link) {
		for (uint32_t i = 0; i < s->handle_room && !rc; i++) {
			if (s->handles[i])
				rc = masters_of_holding(masters, s->handles[i]);
		}
	}
	return rc;
}

void masters_mend(struct registry *r)
{
	struct ranges *old = NULL, *fresh;
	bool mended = false;

	pthread_mutex_lock(&r->lock);
	if (r->is_stale && r->removing == 0 && !ranges_new(&fresh)) {
		mended = !masters_of_all(r, fresh);
		old = mended ? r->masters : fresh;
		if (mended)
			r->masters = fresh;
		r->is_stale = !mended;
	}
	pthread_mutex_unlock(&r->lock);
	if (old)
		urcu_memb_synchronize_rcu();
	ranges_free(old);
	if (mended)
		quarantine_settle_range(r, 0, UINT64_MAX);
}
