/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Journal lanes and replay.
 *
 * A lane holds at most one live record. Live records of several lanes never touch the same unit (locks are kept until a record is
 * retired), so their order does not matter; but units that say where others lie come first.
 */
#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "txn/grow.h"
#include "txn/internal.h"
#include "util/log.h"

int journal_open(struct pool *pool)
{
	pool->lanes = calloc(pool->super.lane_count, sizeof(*pool->lanes));
	if (!pool->lanes)
		return -ENOMEM;
	for (uint32_t i = 0; i < pool->super.lane_count; i++) {
		struct lane *lane = &pool->lanes[i];

		pthread_mutex_init(&lane->mutex, NULL);
		lane->staging = aligned_alloc(64, pool->super.lane_size_bytes);
		if (!lane->staging)
			return -ENOMEM;
	}
	lanes_place(pool);
	return 0;
}

void lanes_place(struct pool *pool)
{
	for (uint32_t i = 0; i < pool->super.lane_count; i++) {
		pool->lanes[i].off[0] = pool->super.lanes[i].primary_blk * BLOCK_SIZE;
		pool->lanes[i].off[1] = pool->super.lanes[i].mirror_blk * BLOCK_SIZE;
	}
}

bool lanes_dead(struct pool *pool)
{
	bool dead = false;

	for (uint32_t i = 0; i < pool->super.lane_count; i++) {
		pthread_mutex_lock(&pool->lanes[i].mutex);
		dead = dead || pool->lanes[i].dead;
		pthread_mutex_unlock(&pool->lanes[i].mutex);
	}
	return dead;
}

void journal_close(struct pool *pool)
{
	for (uint32_t i = 0; pool->lanes && i < pool->super.lane_count; i++) {
		free(pool->lanes[i].staging);
		pthread_mutex_destroy(&pool->lanes[i].mutex);
	}
	free(pool->lanes);
	pool->lanes = NULL;
}

unsigned lane_index(const struct pool *pool, const struct lane *lane)
{
	return (unsigned)(lane - pool->lanes);
}

/* One that nobody uses, or wait: the next one that is, whoever uses it. */
static struct lane *lane_look(struct pool *pool, unsigned first, uint64_t tried, bool wait, bool worn)
{
	for (unsigned i = 0; i < pool->super.lane_count; i++) {
		unsigned index = (first + i) % pool->super.lane_count;
		struct lane *lane = &pool->lanes[index];

		if (lane->worn != worn || tried >> index & 1)
			continue;
		if (wait)
			pthread_mutex_lock(&lane->mutex);
		else if (pthread_mutex_trylock(&lane->mutex) != 0)
			continue;
		if (!lane->dead)
			return lane;
		pthread_mutex_unlock(&lane->mutex);
	}
	return NULL;
}

struct lane *lane_take(struct pool *pool, uint64_t tried)
{
	int cpu = sched_getcpu();
	unsigned first = (unsigned)(cpu < 0 ? 0 : cpu) % pool->super.lane_count;
	struct lane *lane = lane_look(pool, first, tried, false, false);

	if (!lane)
		lane = lane_look(pool, first, tried, true, false);
	return lane ? lane : lane_look(pool, first, tried, true, true);
}

void lane_wear(struct pool *pool, struct lane *lane, unsigned copy)
{
	if (!atomic_exchange(&lane->worn, true))
		log_warn("journal lane %u: its %s cannot be used; other lanes are", lane_index(pool, lane),
			 copy ? "mirror" : "primary");
}

int pool_lane_renew(struct pool *pool, uint64_t blk)
{
	uint64_t off = blk * BLOCK_SIZE;
	uint8_t back[BLOCK_SIZE];
	int rc = 0;

	pool_hold(pool); /* lanes stay where they are */
	for (uint32_t i = 0; i < pool->super.lane_count; i++) {
		struct lane *lane = &pool->lanes[i];

		for (unsigned copy = 0; copy < 2; copy++) {
			if (off < lane->off[copy] || off - lane->off[copy] >= pool->super.lane_size_bytes)
				continue;
			/* With the mutex there is no record in it, but for one that waits for the next mount. */
			pthread_mutex_lock(&lane->mutex);
			if (lane->dead || dax_zero(pool->dax, off, BLOCK_SIZE) != 0)
				rc = 1;
			dax_fence(pool->dax);
			if (rc || dax_load(pool->dax, back, off, BLOCK_SIZE, NULL) != 0)
				rc = 1;
			pthread_mutex_unlock(&lane->mutex);
			if (rc)
				lane_wear(pool, lane, copy);
		}
	}
	pool_release(pool);
	return rc;
}

void lane_give(struct lane *lane)
{
	pthread_mutex_unlock(&lane->mutex);
}

static bool copy_load(struct pool *pool, struct lane *lane, unsigned copy)
{
	struct m_record *r = (struct m_record *)lane->staging;
	size_t length = sizeof(*r);
	int rc = dax_load(pool->dax, r, lane->off[copy], length, NULL);

	if (!rc) {
		length = le32_get(r->rc_length_bytes);
		if (le32_get(r->rc_magic) != MAGIC_RECORD || length < sizeof(*r) ||
		    length > pool->super.lane_size_bytes)
			return false;
		rc = dax_load(pool->dax, r, lane->off[copy], length, NULL);
	}
	if (rc) {
		lane_wear(pool, lane, copy);
		return false;
	}
	/* What an earlier mount has replayed, but could not retire in bad memory, is over. */
	return !record_check(r, pool->super.lane_size_bytes, lane_index(pool, lane), &pool->super.uuid) &&
	       le64_get(r->rc_seq) > pool->super.replayed_seq;
}

/* A live record of the lane into its staging buffer, from either copy. */
static bool record_load(struct pool *pool, struct lane *lane)
{
	return copy_load(pool, lane, 0) || copy_load(pool, lane, 1);
}

/* One unit of a record onto one copy: what is there (zero if fresh) with the logged lines over it. */
static int entry_apply(struct pool *pool, const struct m_record_entry *e, const uint8_t *lines, unsigned copy)
{
	_Alignas(64) uint8_t buf[BLOCK_SIZE] = { 0 };
	uint64_t flags = le64_get(e->re_laddr) & ENTRY_FLAGS;
	uint64_t laddr = le64_get(e->re_laddr) & ~(uint64_t)ENTRY_FLAGS;
	size_t size = flags & ENTRY_INODE ? INODE_SIZE : BLOCK_SIZE;
	const char *why;
	uint64_t off;
	int rc = pool_place(pool, laddr, copy, &off);

	if (rc)
		return rc;
	if (!(flags & ENTRY_FRESH)) {
		rc = dax_load(pool->dax, buf, off, size, NULL);
		if (rc)
			return rc;
	}
	for (uint64_t mask = le64_get(e->re_mask); mask; mask &= mask - 1, lines += LINE_SIZE)
		memcpy(buf + (size_t)__builtin_ctzll(mask) * LINE_SIZE, lines, LINE_SIZE);
	why = unit_check_header(buf, size, 0, laddr, &pool->super.uuid);
	if (why) {
		log_warn("replay: copy %u of unit 0x%llx: %s", copy, (unsigned long long)laddr, why);
		return -EUCLEAN;
	}
	return unit_store(pool, off, buf, size);
}

/*
 * Where units of slot 0 lie is said by key units, where all others lie by slot 0. A repair makes units of slot 0 anew between the second
 * pass and the last.
 */
#define PASSES 3u
static unsigned entry_pass(const struct pool *pool, const struct m_record_entry *e)
{
	uint64_t laddr = le64_get(e->re_laddr);

	if ((laddr >> CHUNK_SHIFT) % pool->ag_chunks != 0)
		return 2;
	return pool_unit_is_key(pool, laddr) && !sabotage_point("replay-keys") ? 0 : 1;
}

/* All units of one record that are due in that pass. */
static int record_apply(struct pool *pool, const struct m_record *r, unsigned pass)
{
	const struct m_record_entry *e = (const struct m_record_entry *)(r + 1);
	const uint8_t *lines = (const uint8_t *)r + le32_get(r->rc_length_bytes) -
			       (size_t)le32_get(r->rc_line_count) * LINE_SIZE;

	for (uint32_t i = 0; i < le32_get(r->rc_entry_count); i++) {
		int rc[2];

		if (entry_pass(pool, &e[i]) == pass) {
			rc[0] = sabotage_point("replay-primary") ? -EIO : entry_apply(pool, &e[i], lines, 0);
			rc[1] = sabotage_point("replay-mirror") ? -ENOENT :
								  entry_apply(pool, &e[i], lines, 1);
			if (rc[0] && rc[1] && !pool->repair)
				return rc[0] == -ENOENT ? -EUCLEAN : rc[0];
			if (rc[0] || (rc[1] && rc[1] != -ENOENT))
				log_warn("replay: one copy of unit 0x%llx is left to be healed",
					 (unsigned long long)(le64_get(e[i].re_laddr) &
							      ~(uint64_t)ENTRY_FLAGS));
		}
		lines += (size_t)__builtin_popcountll(le64_get(e[i].re_mask)) * LINE_SIZE;
	}
	return 0;
}

/* A copy that cannot be written may come back one day: the superblock says that it is over (replayed_seq). */
static void lane_retire(struct pool *pool, struct lane *lane)
{
	static const uint64_t zero;

	for (unsigned copy = 0; copy < 2; copy++) {
		if (dax_store(pool->dax, lane->off[copy], &zero, sizeof(zero)) != 0)
			lane_wear(pool, lane, copy);
	}
}

int journal_replay(struct pool *pool, const struct pool_opts *opts, bool dry, unsigned *records)
{
	bool live[SUPER_LANES_MAX] = { false };
	int rc = 0;

	*records = 0;
	for (uint32_t i = 0; i < pool->super.lane_count; i++) {
		live[i] = record_load(pool, &pool->lanes[i]);
		*records += live[i];
	}
	if (dry || (*records == 0 && !opts->mend)) {
		if (!opts->as_it_is)
			grow_settle(pool);
		return 0;
	}
	for (unsigned pass = 0; pass < PASSES && rc == 0; pass++) {
		for (uint32_t i = 0; i < pool->super.lane_count && rc == 0; i++) {
			if (live[i])
				rc = record_apply(pool, (const struct m_record *)pool->lanes[i].staging,
						  pass);
		}
		/* What places are looked up in must be whole before, and all before the records go. */
		if (!sabotage_point("replay-fence"))
			dax_fence(pool->dax);
		ag_unload_all(pool);
		/* Where things belong is known once the size is. */
		if (pass == 1 && rc == 0)
			grow_settle(pool);
		if (pass == 1 && rc == 0 && opts->mend)
			rc = opts->mend(pool, opts->mend_arg);
	}
	for (uint32_t i = 0; i < pool->super.lane_count && rc == 0 && opts->applied; i++) {
		if (live[i])
			opts->applied(opts->applied_arg,
				      le64_get(((const struct m_record *)pool->lanes[i].staging)->rc_seq));
	}
	for (uint32_t i = 0; i < pool->super.lane_count && rc == 0; i++) {
		if (live[i] && !sabotage_point("replay-retire"))
			lane_retire(pool, &pool->lanes[i]);
	}
	/* A new record must not stand beside an old one of the same units. */
	dax_fence(pool->dax);
	pool->stats.replayed_records += *records;
	return rc;
}
