/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Journal lanes and replay.
 *
 * A lane holds at most one live record. Live records of several lanes never touch the same unit (locks are kept until a record is
 * retired), so their order does not matter; but units of slot 0 come first, since the chunk table among them says where the
 * others lie.
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

struct lane *lane_take(struct pool *pool)
{
	int cpu = sched_getcpu();
	unsigned first = (unsigned)(cpu < 0 ? 0 : cpu) % pool->super.lane_count;
	struct lane *lane;

	for (unsigned i = 0; i < pool->super.lane_count; i++) {
		lane = &pool->lanes[(first + i) % pool->super.lane_count];
		if (pthread_mutex_trylock(&lane->mutex) != 0)
			continue;
		if (!lane->dead)
			return lane;
		pthread_mutex_unlock(&lane->mutex);
	}
	for (unsigned i = 0; i < pool->super.lane_count; i++) {
		lane = &pool->lanes[(first + i) % pool->super.lane_count];
		pthread_mutex_lock(&lane->mutex);
		if (!lane->dead)
			return lane;
		pthread_mutex_unlock(&lane->mutex);
	}
	return NULL;
}

void lane_give(struct lane *lane)
{
	pthread_mutex_unlock(&lane->mutex);
}

/* A live record of the lane into its staging buffer, from either copy. */
static bool record_load(struct pool *pool, struct lane *lane)
{
	for (unsigned copy = 0; copy < 2; copy++) {
		struct m_record *r = (struct m_record *)lane->staging;
		size_t length;

		if (dax_load(pool->dax, r, lane->off[copy], sizeof(*r), NULL) != 0)
			continue;
		length = le32_get(r->rc_length_bytes);
		if (le32_get(r->rc_magic) != MAGIC_RECORD || length < sizeof(*r) ||
		    length > pool->super.lane_size_bytes)
			continue;
		if (dax_load(pool->dax, r, lane->off[copy], length, NULL) != 0)
			continue;
		if (!record_check(r, pool->super.lane_size_bytes, lane_index(pool, lane), &pool->super.uuid))
			return true;
	}
	return false;
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

static bool in_slot0(const struct pool *pool, const struct m_record_entry *e)
{
	return (le64_get(e->re_laddr) >> CHUNK_SHIFT) % pool->ag_chunks == 0;
}

/* All units of one record that are, or are not, in slot 0. */
static int record_apply(struct pool *pool, const struct m_record *r, bool slot0)
{
	const struct m_record_entry *e = (const struct m_record_entry *)(r + 1);
	const uint8_t *lines = (const uint8_t *)r + le32_get(r->rc_length_bytes) -
			       (size_t)le32_get(r->rc_line_count) * LINE_SIZE;

	for (uint32_t i = 0; i < le32_get(r->rc_entry_count); i++) {
		int rc[2];

		if (in_slot0(pool, &e[i]) == slot0) {
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

static int lane_retire(struct pool *pool, struct lane *lane)
{
	static const uint64_t zero;
	int rc = dax_store(pool->dax, lane->off[0], &zero, sizeof(zero));

	return dax_store(pool->dax, lane->off[1], &zero, sizeof(zero)) ? -EIO : rc;
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
	for (unsigned pass = 0; pass < 2 && rc == 0; pass++) {
		for (uint32_t i = 0; i < pool->super.lane_count && rc == 0; i++) {
			if (live[i])
				rc = record_apply(pool, (const struct m_record *)pool->lanes[i].staging,
						  pass == 0);
		}
		/* The chunk table must be whole before places are looked up in it, and all before the records go. */
		if (!sabotage_point("replay-fence"))
			dax_fence(pool->dax);
		ag_unload_all(pool);
		/* Where things belong is known once the size is. */
		if (pass == 0 && rc == 0)
			grow_settle(pool);
		if (pass == 0 && rc == 0 && opts->mend)
			rc = opts->mend(pool, opts->mend_arg);
	}
	for (uint32_t i = 0; i < pool->super.lane_count && rc == 0; i++) {
		if (live[i] && !sabotage_point("replay-retire"))
			rc = lane_retire(pool, &pool->lanes[i]);
	}
	/* A new record must not stand beside an old one of the same units. */
	dax_fence(pool->dax);
	pool->stats.replayed_records += *records;
	return rc;
}
