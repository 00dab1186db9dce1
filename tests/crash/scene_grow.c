/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Growing: a pool that has grown is thrown away, so each scene makes its own.
 *
 * After each opening of an image the pool has one of the two sizes, everywhere: superblocks, group headers, and nothing at the former end
 * that could be taken for a superblock.
 */
#include "crash/grow.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "media/ag.h"
#include "media/journal.h"
#include "space/space.h"

#define MIB ((uint64_t)1 << 20)
#define BLK_OF(mib) ((mib)*MIB / BLOCK_SIZE)

const struct grow_shape grow_shapes[] = {
	/* The last group is full; the device has a rest that is too short for one more. */
	{ .name = "one group", .made = 16, .to = 32, .device = 40 },
	/* It is short; with one chunk more the mirror of slot 0 comes to lie where the pool ended. */
	{ .name = "a chunk", .made = 34, .to = 36, .device = 36, .ag = 18 },
	{ .name = "two chunks", .made = 36, .step = 38, .to = 40, .device = 40, .ag = 20 },
	{ .name = "short, and more",
	  .made = 34,
	  .step = 36,
	  .to = 52,
	  .device = 52,
	  .ag = 18,
	  .metadata_single = true },
	{ .name = "own lanes",
	  .made = 36,
	  .step = 52,
	  .to = 54,
	  .device = 54,
	  .ag = 18,
	  .lane_count = 2,
	  .lane_size_bytes = 1 << 20 },
	/* One of the ends, or both, are too far away to be looked for from where the device ends. */
	{ .name = "far", .made = 16, .step = 32, .to = 64, .device = 64, .lane_size_bytes = 256 << 10 },
	{ .name = "one group, then enlarged", .made = 16, .to = 32, .device = 32, .later = 80 },
	{ .name = "a chunk, then enlarged", .made = 34, .to = 36, .device = 36, .later = 96, .ag = 18 },
	{ .name = "two chunks, then enlarged", .made = 36, .to = 40, .device = 40, .later = 96, .ag = 20 },
	{ .name = "more, then enlarged",
	  .made = 34,
	  .step = 36,
	  .to = 52,
	  .device = 52,
	  .later = 96,
	  .ag = 18 },
};
const unsigned grow_shape_count = ARRAY_SIZE(grow_shapes);

/* Of the growth that is being cut, or has been before what is being cut (then both are the new size). */
static struct {
	const struct grow_shape *shape;
	uint64_t from_blk, to_blk, former_blk;
	struct grow_stats *stats;
	char why[200];
	/* GROW_AROUND_IT: */
	struct scene *s;
	const struct scene_op *op; /* is still to be done */
	int64_t op_result;
} now;

/* ---- images ---- */

static const char *header_look(struct pool *pool, uint32_t agno)
{
	const struct super *super = pool_super(pool);
	_Alignas(64) struct m_ag m;
	struct super copy;

	if (dax_load(pool_dax(pool), &m,
		     (super_ag_start_blk(super, agno) + CHUNK_BLOCKS + AG_UNIT_HEADER) * BLOCK_SIZE,
		     sizeof(m), NULL))
		return "a header cannot be read";
	if (le64_get(m.ag_super.as_size_blk) == super->size_blk &&
	    le64_get(m.ag_length_blk) == super_ag_length_blk(super, agno) &&
	    ag_super_decode(&copy, &m.ag_super, &super->uuid) &&
	    memcmp(copy.lanes, super->lanes, sizeof(copy.lanes)) == 0)
		return NULL;
	snprintf(now.why, sizeof(now.why), "the header of group %u does not tell of %" PRIu64 " blocks", agno,
		 super->size_blk);
	return now.why;
}

static bool is_super(struct pool *pool, uint64_t blk)
{
	_Alignas(64) struct m_super m;

	return dax_load(pool_dax(pool), &m, blk * BLOCK_SIZE, sizeof(m), NULL) == 0 &&
	       !unit_check_header(&m, sizeof(m), MAGIC_SUPER, OWNER_SUPER, &pool_super(pool)->uuid);
}

static const char *look(struct pool *pool, bool is_final)
{
	const struct super *super = pool_super(pool);
	bool grown = super->size_blk == now.to_blk;

	now.stats->grown += grown;
	now.stats->old += !grown;
	if (!grown && (is_final || super->size_blk != now.from_blk)) {
		snprintf(now.why, sizeof(now.why), "%" PRIu64 " blocks, not %" PRIu64 "%s", super->size_blk,
			 now.to_blk, is_final ? "" : " or what there were");
		return now.why;
	}
	if (super->grown_from_blk)
		return "the growth has not come to its end";
	if (grown &&
	    (is_super(pool, now.former_blk - 1) || (now.former_blk + CHUNK_BLOCKS != now.to_blk &&
						    is_super(pool, now.former_blk + CHUNK_BLOCKS - 1))))
		return "at the former end there is still a superblock";
	for (uint32_t agno = 0; agno < super->ag_count; agno++) {
		const char *bad = header_look(pool, agno);

		if (bad)
			return bad;
	}
	return NULL;
}

/* ---- the operation ---- */

/*
 * Where the mirrors of lanes will come to lie there may be old records of this pool. One that has been retired in the primary lane becomes
 * such a one.
 */
static void records_leave(struct scene *s)
{
	static uint8_t lane[1 << 20];
	const struct super *super = pool_super(s->t->pool);
	struct m_record *r = (void *)lane;

	for (uint32_t i = 0; i < super->lane_count; i++) {
		uint64_t mirror_blk = super->lanes[i].mirror_blk - super->size_blk + now.to_blk;
		size_t length;

		if (super->lane_size_bytes > sizeof(lane) ||
		    dax_load(s->t->dax, lane, super->lanes[i].primary_blk * BLOCK_SIZE,
			     super->lane_size_bytes, NULL))
			continue;
		length = le32_get(r->rc_length_bytes);
		if (length < sizeof(*r) || length > super->lane_size_bytes)
			continue;
		r->rc_magic = le32_of(MAGIC_RECORD);
		r->rc_crc = le32_of(record_crc(r, length));
		if (dax_store(s->t->dax, mirror_blk * BLOCK_SIZE, r, length) != 0)
			s->wrong = "behind the end nothing can be stored";
	}
	dax_fence(s->t->dax);
}

/* The device has its new size, as truncate(1) might have given it, but the pool does not know. */
static void grow_make(struct scene *s)
{
	if (dax_grow(s->t->dax, now.shape->device * MIB) != 0)
		s->wrong = "the device does not grow";
	records_leave(s);
}

static int64_t grow(struct scene *s)
{
	int rc = space_grow(s->t->pool, 0);

	if (rc || pool_size_blk(s->t->pool) != now.to_blk)
		s->wrong = "it does not grow";
	return rc;
}

static const struct scene_op grow_op = { .name = "grow", .run = grow, .make = grow_make };

/* The first of two. */
static int64_t grow_part(struct scene *s)
{
	int rc = space_grow(s->t->pool, now.shape->step * MIB);

	if (rc)
		s->wrong = "it does not grow the first time";
	now.from_blk = pool_size_blk(s->t->pool);
	now.former_blk = now.from_blk;
	return rc;
}

static const struct scene_op grow_part_op = { .name = "grow-part", .run = grow_part };

static int64_t grow_again(struct scene *s)
{
	if (dax_grow(s->t->dax, now.shape->device * MIB) != 0)
		s->wrong = "the device does not grow";
	return grow(s);
}

static const struct scene_op grow_again_op = { .name = "grow-again", .run = grow_again };

/* After it nothing but the new size will do. */
static int64_t grow_first(struct scene *s)
{
	int64_t rc = grow(s);

	now.from_blk = now.to_blk;
	return rc;
}

static const struct scene_op grow_first_op = { .name = "grow", .run = grow_first, .make = grow_make };

void grow_middle(void)
{
	const struct scene_op *op = now.op;

	now.op = NULL;
	if (op)
		now.op_result = op->run(now.s);
}

static int64_t grow_around(struct scene *s)
{
	int64_t rc;

	now.s = s;
	rc = grow(s);
	if (now.op)
		s->wrong = "nothing was done in the middle of it";
	return rc ? rc : now.op_result;
}

static void around_mix(struct scene *s, struct snapshot_mix *mix)
{
	if (now.op->mix)
		now.op->mix(s, mix);
}

static const struct scene_op grow_around_op = {
	.name = "grow-around", .run = grow_around, .mix = around_mix, .make = grow_make
};

/* ---- running ---- */

static int64_t nothing(struct scene *s)
{
	(void)s;
	return 0;
}

static bool run(struct crash *c, enum grow_order order, const struct file_state *state,
		const struct scene_op *op)
{
	struct scene_op later;

	switch (order) {
	case GROW_TWICE:
		return scene_pair(c, state, &grow_part_op, &grow_again_op);
	case GROW_AFTER_IT:
		return scene_pair(c, state, op, &grow_op);
	case GROW_BEFORE_IT:
		return scene_pair(c, state, &grow_first_op, op);
	case GROW_AROUND_IT:
		now.op = op;
		later = *op;
		later.run = nothing;
		return scene_pair(c, state, &later, &grow_around_op);
	default:
		return scene_run(c, state, &grow_op);
	}
}

bool grow_run(const struct grow_shape *shape, const struct crash_opts *opts, enum grow_order order,
	      const struct file_state *state, const struct scene_op *op, struct grow_stats *stats)
{
	static const struct m_uuid uuid = { { 7, 1, 2, 3 } };
	struct crash_opts own = *opts;
	struct crash *c;
	bool ok;

	own.size_bytes = u64_max(shape->device, shape->later) * MIB;
	own.made_bytes = shape->made * MIB;
	own.look = look;
	own.format = (struct format_opts){
		.uuid = &uuid,
		.ag_size_bytes = shape->ag * MIB,
		.lane_count = shape->lane_count,
		.lane_size_bytes = shape->lane_size_bytes,
		.metadata_single = shape->metadata_single,
	};
	memset(&now, 0, sizeof(now));
	memset(stats, 0, sizeof(*stats));
	now.shape = shape;
	now.stats = stats;
	now.from_blk = now.former_blk = BLK_OF(shape->made);
	now.to_blk = BLK_OF(shape->to);
	c = crash_new(&own);
	ok = run(c, order, state, op);
	stats->crash = *crash_stats(c);
	if (ok)
		crash_free(c);
	return ok;
}
