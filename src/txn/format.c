/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mkfs: geometry, fixed units of all groups, root directory, journal lanes, superblock.
 *
 *	group 0   | super, journal | slot 0 | (lanes) | data ...			      | slot 0' | data    |
 *	group n-1 | data	   | slot 0 | data ...			    | (lanes') | slot 0' | super'  |
 *
 * A small pool keeps its lanes in its first and last chunk, beside the superblocks.
 */
#include "txn/format.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include "media/ag.h"
#include "media/journal.h"
#include "media/node.h"

#define LANES_START_BLK 16u /* blocks 0..15 belong to the superblock */
#define LARGE_POOL ((uint64_t)256 << 20)
#define LARGE_LANES 8u
#define LARGE_LANE_BYTES (1u << 20)
#define SMALL_LANES 4u
#define SMALL_LANE_BYTES (384u << 10)

struct maker {
	struct dax *dax;
	struct super super;
	uint32_t agno; /* the group being made */
	uint64_t start_blk, length_blk, free_blk;
	struct rmap owned[FORMAT_OWNERS_MAX]; /* of this group, by address */
	unsigned owned_count;
};

static uint64_t pick_ag_size(uint64_t size_bytes)
{
	uint64_t want = size_bytes / 4, pow2 = (uint64_t)64 << 20;

	if (size_bytes < (uint64_t)128 << 20)
		return size_bytes;
	while (pow2 * 2 <= want && pow2 < (uint64_t)AG_MAX_CHUNKS * CHUNK_SIZE)
		pow2 *= 2;
	return pow2;
}

static int pick_geometry(struct super *s, uint64_t size_bytes, const struct format_opts *opts, char *why,
			 size_t why_size)
{
	uint64_t size = u64_align_down(size_bytes, CHUNK_SIZE), ag;

	if (size < FORMAT_SIZE_MIN) {
		snprintf(why, why_size, "too small: %llu bytes, at least %llu are needed",
			 (unsigned long long)size_bytes, (unsigned long long)FORMAT_SIZE_MIN);
		return -EINVAL;
	}
	ag = opts->ag_size_bytes ? opts->ag_size_bytes : pick_ag_size(size);
	if (ag > size)
		ag = size;
	if (ag % CHUNK_SIZE != 0 || ag < (uint64_t)AG_MIN_CHUNKS * CHUNK_SIZE ||
	    ag > (uint64_t)AG_MAX_CHUNKS * CHUNK_SIZE) {
		snprintf(why, why_size,
			 "bad group size: a multiple of 2 MiB from 16 MiB to 16 GiB is needed");
		return -EINVAL;
	}
	s->ag_size_blk = ag / BLOCK_SIZE;
	s->size_blk = format_size_blk(size, s->ag_size_blk);
	size = s->size_blk * BLOCK_SIZE;
	if (u64_div_up(size, ag) > UINT32_MAX / 2) {
		snprintf(why, why_size, "too many groups: choose a larger group size");
		return -EINVAL;
	}
	s->ag_count = (uint32_t)u64_div_up(size, ag);
	return 0;
}

static bool lanes_fit_chunk(const struct super *s)
{
	return (uint64_t)s->lane_count * s->lane_size_bytes <= CHUNK_SIZE - 2 * LANES_START_BLK * BLOCK_SIZE;
}

/* Chunks for lanes outside the first and last chunk. */
static uint64_t lane_chunks(const struct super *s)
{
	return lanes_fit_chunk(s) ? 0 : u64_div_up((uint64_t)s->lane_count * s->lane_size_bytes, CHUNK_SIZE);
}

/* The group with the lanes' mirrors: the last one that has room. */
static uint32_t mirror_ag(const struct super *s)
{
	uint32_t last = s->ag_count - 1;

	if (last > 0 && super_ag_length_blk(s, last) / CHUNK_BLOCKS < lane_chunks(s) + AG_MIN_CHUNKS)
		last--;
	return last;
}

static uint64_t mirror_lanes_blk(const struct super *s)
{
	uint32_t agno = mirror_ag(s);
	uint64_t end = super_ag_start_blk(s, agno) + super_ag_length_blk(s, agno);

	if (lane_chunks(s) == 0)
		return s->size_blk - CHUNK_BLOCKS;
	return end - (2 + lane_chunks(s)) * CHUNK_BLOCKS;
}

static int pick_lanes(struct super *s, const struct format_opts *opts, char *why, size_t why_size)
{
	bool large = s->ag_count > 1 && s->size_blk * BLOCK_SIZE >= LARGE_POOL;
	uint64_t primary, mirror, lane_blk;

	s->lane_count = opts->lane_count ? opts->lane_count : large ? LARGE_LANES : SMALL_LANES;
	s->lane_size_bytes = opts->lane_size_bytes ? opts->lane_size_bytes :
			     large                 ? LARGE_LANE_BYTES :
						     SMALL_LANE_BYTES;
	if (s->lane_count > SUPER_LANES_MAX || s->lane_size_bytes < LANE_SIZE_MIN ||
	    s->lane_size_bytes > LANE_SIZE_MAX || s->lane_size_bytes % BLOCK_SIZE != 0) {
		snprintf(why, why_size, "bad journal lanes: 1 to 64 of 256 KiB to 4 MiB");
		return -EINVAL;
	}
	/* Group 0 has the lanes, and their mirrors too where a short last group has no room for them. */
	if (lane_chunks(s) != 0 &&
	    (s->ag_count < 2 || super_ag_length_blk(s, 0) / CHUNK_BLOCKS <
					lane_chunks(s) * (mirror_ag(s) == 0 ? 2 : 1) + AG_MIN_CHUNKS)) {
		snprintf(why, why_size, "the journal does not fit: fewer or smaller lanes, or a larger pool");
		return -EINVAL;
	}
	lane_blk = s->lane_size_bytes / BLOCK_SIZE;
	primary = lane_chunks(s) ? 2 * CHUNK_BLOCKS : LANES_START_BLK;
	mirror = mirror_lanes_blk(s);
	for (uint32_t i = 0; i < s->lane_count; i++) {
		s->lanes[i].primary_blk = primary + i * lane_blk;
		s->lanes[i].mirror_blk = mirror + i * lane_blk;
	}
	return 0;
}

static void own(struct maker *mk, uint64_t start_blk, uint64_t count_blk, uint64_t owner, uint64_t offset_blk)
{
	unsigned i = mk->owned_count++;

	assert(i < ARRAY_SIZE(mk->owned));
	for (; i > 0 && mk->owned[i - 1].start_blk > start_blk; i--)
		mk->owned[i] = mk->owned[i - 1];
	mk->owned[i] = (struct rmap){ start_blk, owner, offset_blk, count_blk, 0 };
	mk->free_blk -= count_blk;
}

/* Who owns what in the group as long as there are no files. */
static void group_owners(struct maker *mk)
{
	const struct super *s = &mk->super;
	uint64_t slot0 = (uint64_t)mk->agno * (s->ag_size_blk / CHUNK_BLOCKS);
	uint64_t end = mk->start_blk + mk->length_blk, lanes = lane_chunks(s) * CHUNK_BLOCKS;
	bool moved = s->ro_compat & FEATURE_RO_COMPAT_LANES_MOVED; /* then only the superblock knows */

	mk->owned_count = 0;
	mk->free_blk = mk->length_blk;
	own(mk, mk->start_blk + CHUNK_BLOCKS, CHUNK_BLOCKS, OWNER_META, slot0);
	own(mk, end - 2 * CHUNK_BLOCKS, CHUNK_BLOCKS, OWNER_MIRROR, slot0);
	if (mk->agno == 0) {
		own(mk, 0, LANES_START_BLK, OWNER_SUPER, 0);
		own(mk, LANES_START_BLK, CHUNK_BLOCKS - LANES_START_BLK, OWNER_JOURNAL,
		    lanes ? JOURNAL_SPARE : 0);
		if (lanes && !moved)
			own(mk, 2 * CHUNK_BLOCKS, lanes, OWNER_JOURNAL, 0);
	}
	/* Not mirror_ag(): the pool may have grown since. */
	if (lanes && !moved && s->lanes[0].mirror_blk >= mk->start_blk && s->lanes[0].mirror_blk < end)
		own(mk, s->lanes[0].mirror_blk, lanes, OWNER_JOURNAL, JOURNAL_MIRROR);
	if (mk->agno == s->ag_count - 1) {
		own(mk, end - CHUNK_BLOCKS, CHUNK_BLOCKS - LANES_START_BLK, OWNER_JOURNAL,
		    JOURNAL_MIRROR | (lanes ? JOURNAL_SPARE : 0));
		own(mk, end - LANES_START_BLK, LANES_START_BLK, OWNER_SUPER, 1);
	}
}

unsigned format_owners(const struct super *super, uint32_t agno, struct rmap owned[FORMAT_OWNERS_MAX])
{
	struct maker mk = {
		.super = *super,
		.agno = agno,
		.start_blk = super_ag_start_blk(super, agno),
		.length_blk = super_ag_length_blk(super, agno),
	};

	group_owners(&mk);
	memcpy(owned, mk.owned, sizeof(mk.owned));
	return mk.owned_count;
}

/* One fixed unit to both of its places. */
static int put_unit(struct maker *mk, void *unit, uint32_t index, size_t off_in_unit, size_t size)
{
	uint64_t first = mk->start_blk / CHUNK_BLOCKS, chunks = mk->length_blk / CHUNK_BLOCKS;
	uint64_t off = (uint64_t)index * BLOCK_SIZE + off_in_unit;
	int rc;

	unit_seal(unit, size, 1);
	assert(unit_check_body(unit, size) == NULL);
	rc = dax_store(mk->dax, ((first + 1) << CHUNK_SHIFT) + off, unit, size);
	if (rc)
		return rc;
	return dax_store(mk->dax, ((first + chunks - 2) << CHUNK_SHIFT) + off, unit, size);
}

static uint64_t unit_laddr(const struct maker *mk, uint32_t index)
{
	uint64_t ag_chunks = mk->super.ag_size_blk / CHUNK_BLOCKS;

	return ((uint64_t)mk->agno * ag_chunks << CHUNK_SHIFT) + (uint64_t)index * BLOCK_SIZE;
}

static void new_unit(struct maker *mk, void *unit, uint32_t magic, uint32_t index)
{
	memset(unit, 0, BLOCK_SIZE);
	unit_init(unit, magic, unit_laddr(mk, index), OWNER_AG, &mk->super.uuid);
}

static void root_body_init(uint8_t *body, enum node_kind kind, const void *recs, unsigned count,
			   size_t rec_size)
{
	struct m_node_body *b = (struct m_node_body *)body;

	b->nb_count = le16_of((uint16_t)count);
	b->nb_kind = (uint8_t)kind;
	memcpy(b->nb_space, recs, count * rec_size);
}

static int make_header(struct maker *mk, uint32_t fixed)
{
	_Alignas(64) struct m_ag m;
	struct m_rmap owned[ARRAY_SIZE(mk->owned)];
	uint64_t used_inodes = mk->agno == 0 ? 2 : 0; /* record 0, which has no number, and the root */
	struct m_inode_cluster cluster = {
		.ic_first_ino = le64_of(unit_laddr(mk, 0) >> INODE_SHIFT),
		.ic_free_mask = le64_of(mk->agno == 0 ? ~3ull : ~0ull),
	};

	new_unit(mk, &m, MAGIC_AG, AG_UNIT_HEADER);
	m.ag_index = le32_of(mk->agno);
	m.ag_length_blk = le64_of(mk->length_blk);
	m.ag_free_blk = le64_of(mk->free_blk);
	m.ag_inode_count = le64_of(mk->agno == 0 ? CLUSTER_INODES - 1 : CLUSTER_INODES);
	m.ag_inode_free = le64_of(CLUSTER_INODES - used_inodes);
	m.ag_meta_chunks = le32_of(1);
	m.ag_meta_free_units = le32_of(CHUNK_BLOCKS - fixed);
	ag_super_encode(&m.ag_super, &mk->super);
	for (unsigned i = 0; i < mk->owned_count; i++)
		rmap_encode(&owned[i], &mk->owned[i]);
	root_body_init(m.ag_roots[AG_RMAP], NODE_RMAP, owned, mk->owned_count, sizeof(owned[0]));
	root_body_init(m.ag_roots[AG_INODES], NODE_INODES, &cluster, 1, sizeof(cluster));
	return put_unit(mk, &m, AG_UNIT_HEADER, 0, BLOCK_SIZE);
}

static int make_table(struct maker *mk, uint32_t fixed)
{
	_Alignas(64) struct m_chunks m;
	uint64_t first = mk->start_blk / CHUNK_BLOCKS, chunks = mk->length_blk / CHUNK_BLOCKS;
	int rc = 0;

	for (uint32_t i = 0; i < ag_table_units(mk->super.ag_size_blk / CHUNK_BLOCKS) && !rc; i++) {
		new_unit(mk, &m, MAGIC_CHUNKS, AG_UNIT_TABLE + i);
		if (i == 0) {
			m.ct_chunks[0].ck_primary = le32_of((uint32_t)first + 1);
			m.ct_chunks[0].ck_mirror = le32_of((uint32_t)(first + chunks - 2));
			m.ct_chunks[0].ck_used_count = le32_of(fixed);
			for (uint32_t k = 0; k < fixed; k++)
				m.ct_chunks[0].ck_used[k / 8] |= (uint8_t)(1u << k % 8);
		}
		rc = put_unit(mk, &m, AG_UNIT_TABLE + i, 0, BLOCK_SIZE);
	}
	return rc;
}

static void bitmap_mark(const struct maker *mk, struct m_bitmap *m, uint64_t first_chunk)
{
	for (unsigned i = 0; i < mk->owned_count; i++) {
		const struct rmap *r = &mk->owned[i];

		for (uint64_t b = r->start_blk - mk->start_blk;
		     b < r->start_blk - mk->start_blk + r->count_blk; b++) {
			uint64_t chunk = b / CHUNK_BLOCKS - first_chunk, bit = b % CHUNK_BLOCKS;

			if (b / CHUNK_BLOCKS >= first_chunk && chunk < BITMAP_CHUNKS_PER_UNIT)
				m->bm_bits[chunk][bit / 8] |= (uint8_t)(1u << bit % 8);
		}
	}
}

static int make_bitmap(struct maker *mk)
{
	_Alignas(64) struct m_bitmap m;
	uint64_t ag_chunks = mk->super.ag_size_blk / CHUNK_BLOCKS;
	int rc = 0;

	for (uint32_t i = 0; i < ag_bitmap_units(ag_chunks) && !rc; i++) {
		uint32_t index = AG_UNIT_TABLE + ag_table_units(ag_chunks) + i;

		new_unit(mk, &m, MAGIC_BITMAP, index);
		bitmap_mark(mk, &m, (uint64_t)i * BITMAP_CHUNKS_PER_UNIT);
		rc = put_unit(mk, &m, index, 0, BLOCK_SIZE);
	}
	return rc;
}

static int make_root(struct maker *mk, const struct format_opts *opts)
{
	_Alignas(64) struct m_inode m;
	struct timespec ts;
	struct inode_time now;

	clock_gettime(CLOCK_REALTIME, &ts);
	now = (struct inode_time){ ts.tv_sec, (uint32_t)ts.tv_nsec };
	memset(&m, 0, sizeof(m));
	unit_init(&m, MAGIC_INODE, INODE_ROOT << INODE_SHIFT, INODE_ROOT, &mk->super.uuid);
	inode_attr_encode(&m, &(struct inode_attr){
				      .gen = 1,
				      .mode = S_IFDIR | 0755,
				      .nlink = 2,
				      .uid = opts->root_uid,
				      .gid = opts->root_gid,
				      .atime = now,
				      .mtime = now,
				      .ctime = now,
				      .btime = now,
				      .data_format = DATA_DIR,
			      });
	return put_unit(mk, &m, 0, INODE_ROOT * INODE_SIZE, INODE_SIZE);
}

static int make_group(struct maker *mk, uint32_t agno)
{
	static const uint32_t plain[] = { AG_UNIT_INTENTS, AG_UNIT_REMAP };
	uint32_t fixed = ag_fixed_units(mk->super.ag_size_blk / CHUNK_BLOCKS);
	_Alignas(64) uint8_t unit[BLOCK_SIZE];
	int rc;

	mk->agno = agno;
	mk->start_blk = super_ag_start_blk(&mk->super, agno);
	mk->length_blk = super_ag_length_blk(&mk->super, agno);
	group_owners(mk);
	for (unsigned i = 0; i < ARRAY_SIZE(plain); i++) {
		new_unit(mk, unit, plain[i] == AG_UNIT_INTENTS ? MAGIC_INTENTS : MAGIC_REMAP, plain[i]);
		rc = put_unit(mk, unit, plain[i], 0, BLOCK_SIZE);
		if (rc)
			return rc;
	}
	rc = make_table(mk, fixed);
	if (!rc)
		rc = make_bitmap(mk);
	return rc ? rc : make_header(mk, fixed);
}

int format_groups(struct dax *dax, const struct super *super, uint32_t first_agno)
{
	struct maker *mk = calloc(1, sizeof(*mk));
	int rc = 0;

	if (!mk)
		return -ENOMEM;
	mk->dax = dax;
	mk->super = *super;
	for (uint32_t agno = first_agno; agno < super->ag_count && !rc; agno++)
		rc = make_group(mk, agno);
	free(mk);
	return rc;
}

int format_wipe_tail(struct dax *dax, uint64_t from_blk)
{
	uint64_t chunk = u64_align_down(dax_size_bytes(dax), CHUNK_SIZE);
	int rc = 0;

	for (unsigned i = 0; i < SUPER_TAIL_CHUNKS && chunk > from_blk * BLOCK_SIZE && !rc;
	     i++, chunk -= CHUNK_SIZE)
		rc = dax_zero(dax, chunk - BLOCK_SIZE, BLOCK_SIZE);
	return rc;
}

uint64_t format_size_blk(uint64_t size_bytes, uint64_t ag_size_blk)
{
	uint64_t size = u64_align_down(size_bytes, CHUNK_SIZE), tail = size % (ag_size_blk * BLOCK_SIZE);

	if (tail < (uint64_t)AG_MIN_CHUNKS * CHUNK_SIZE)
		size -= tail;
	return size / BLOCK_SIZE;
}

static int wipe_lanes(struct maker *mk)
{
	for (uint32_t i = 0; i < mk->super.lane_count; i++) {
		int rc = dax_zero(mk->dax, mk->super.lanes[i].primary_blk * BLOCK_SIZE, BLOCK_SIZE);

		if (!rc)
			rc = dax_zero(mk->dax, mk->super.lanes[i].mirror_blk * BLOCK_SIZE, BLOCK_SIZE);
		if (rc)
			return rc;
	}
	return 0;
}

static int put_super(struct maker *mk)
{
	_Alignas(64) struct m_super m;
	int rc;

	super_encode(&m, &mk->super);
	unit_seal(&m, sizeof(m), mk->super.version_count);
	rc = dax_store(mk->dax, (mk->super.size_blk - 1) * BLOCK_SIZE, &m, sizeof(m));
	if (!rc)
		rc = dax_store(mk->dax, 0, &m, sizeof(m));
	dax_fence(mk->dax);
	return rc;
}

static void super_init(struct super *s, const struct format_opts *opts)
{
	bool random_ok;
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	*s = (struct super){
		.major = SUPER_MAJOR,
		.minor = SUPER_MINOR,
		.state = SUPER_STATE_CLEAN,
		.incompat = opts->metadata_single ? 0 : FEATURE_INCOMPAT_META_DUP,
		.dir_hash_bits = opts->dir_hash_bits ? opts->dir_hash_bits : 63,
		.seq_limit = 1,
		.version_count = 1,
		.created_ns = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec,
	};
	random_ok = getrandom(s->hash_seed, sizeof(s->hash_seed), 0) == sizeof(s->hash_seed) &&
		    getrandom(&s->uuid, sizeof(s->uuid), 0) == sizeof(s->uuid);
	assert(random_ok);                                      /* it cannot fail for so few bytes */
	s->uuid.b[6] = (uint8_t)((s->uuid.b[6] & 0x0f) | 0x40); /* version 4, RFC 4122 */
	s->uuid.b[8] = (uint8_t)((s->uuid.b[8] & 0x3f) | 0x80);
	if (opts->uuid)
		s->uuid = *opts->uuid;
	if (opts->label)
		snprintf(s->label, sizeof(s->label), "%s", opts->label);
}

int pool_format(struct dax *dax, const struct format_opts *opts, struct super *super, char *why,
		size_t why_size)
{
	struct maker *mk = calloc(1, sizeof(*mk));
	int rc;

	if (!mk)
		return -ENOMEM;
	mk->dax = dax;
	super_init(&mk->super, opts);
	rc = pick_geometry(&mk->super, dax_size_bytes(dax), opts, why, why_size);
	if (!rc)
		rc = pick_lanes(&mk->super, opts, why, why_size);
	if (rc)
		goto out;
	snprintf(why, why_size, "bad memory while writing");
	/* No old superblock may name what is being overwritten, wherever its pool ended; the header of group 0 tells where. */
	rc = dax_zero(dax, 0, BLOCK_SIZE);
	if (!rc)
		rc = dax_zero(dax, (CHUNK_BLOCKS + AG_UNIT_HEADER) * BLOCK_SIZE, BLOCK_SIZE);
	if (!rc)
		rc = format_wipe_tail(dax, 0);
	dax_fence(dax);
	if (!rc)
		rc = format_groups(dax, &mk->super, 0);
	mk->agno = 0;
	mk->start_blk = 0;
	mk->length_blk = super_ag_length_blk(&mk->super, 0);
	if (!rc)
		rc = make_root(mk, opts);
	if (!rc)
		rc = wipe_lanes(mk);
	/* The superblock makes it a file system: all else must be durable. */
	dax_fence(dax);
	if (!rc)
		rc = put_super(mk);
	if (!rc && super)
		*super = mk->super;
out:
	free(mk);
	return rc;
}
