/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The commit. Each fence separates what must be durable before from what is stored after:
 *
 *	1. data that nothing referred to before		| fence: replay would else expose what lay there
 *	2. record in the lane and in its mirror		| fence: the operation has happened
 *	3. changed lines to both homes			| fence: the record may go
 *	4. record retired in the lane and its mirror	| fence: another lane may log the same units
 *
 * A copy that cannot be written in step 3 is left to be healed from the other; when neither can, the record stays for
 * the next mount and the pool takes no more writes.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "txn/internal.h"
#include "util/log.h"

static int image_check(struct txn *tx, struct image *image)
{
	const char *why = unit_check_body(image->data, unit_size(image->magic));

	if (!why)
		return 0;
	log_error("refusing to write metadata unit 0x%" PRIx64 ": %s", image->laddr, why);
	pool_fail(tx->pool, "an operation made unsound metadata");
	return -EUCLEAN;
}

/* Which 64-byte lines differ from home; fresh units: which are not zero. */
static int image_diff(struct txn *tx, struct image *image)
{
	static const uint8_t zero[LINE_SIZE];
	unsigned lines = (unsigned)(unit_size(image->magic) / LINE_SIZE);
	const uint8_t *home = NULL;
	uint64_t mask = 0;
	const void *unit;
	int rc;

	if (!image->fresh) {
		rc = unit_home(tx->pool, image->laddr, image->magic, &unit);
		if (rc)
			return rc;
		home = unit;
	}
	for (unsigned i = 0; i < lines; i++) {
		const uint8_t *other = home ? home + i * LINE_SIZE : zero;

		if (memcmp(image->data + i * LINE_SIZE, other, LINE_SIZE) != 0)
			mask |= 1ull << i;
	}
	image->dirty_lines = mask;
	return 0;
}

/* Checks, seals and diffs all images; counts what the record will hold. */
static int images_prepare(struct txn *tx, uint32_t *entries, uint32_t *lines)
{
	*entries = *lines = 0;
	for (struct image *image = tx->images; image; image = image->next) {
		int rc;

		image->dirty_lines = 0;
		if (image->forgotten)
			continue;
		rc = image_check(tx, image);
		if (!rc)
			rc = image_diff(tx, image);
		if (rc)
			return rc;
		if (image->dirty_lines == 0)
			continue;
		unit_seal(image->data, unit_size(image->magic), tx->seq);
		image->dirty_lines |= 1; /* the header */
		*entries += 1;
		*lines += (uint32_t)__builtin_popcountll(image->dirty_lines);
	}
	return 0;
}

struct prepare {
	struct txn *tx;
	uint32_t entries, lines;
};

static int prepare_run(void *arg)
{
	struct prepare *p = arg;

	return images_prepare(p->tx, &p->entries, &p->lines);
}

static size_t record_fill(struct txn *tx, uint8_t *staging, uint32_t lane, uint32_t entries, uint32_t lines)
{
	struct m_record *r = (struct m_record *)staging;
	struct m_record_entry *entry = (struct m_record_entry *)(r + 1);
	size_t length = record_length_bytes(entries, lines);
	uint8_t *line = staging + length - (size_t)lines * LINE_SIZE;

	memset(staging, 0, (size_t)(line - staging));
	for (struct image *image = tx->images; image; image = image->next) {
		uint64_t flags = (image->fresh ? ENTRY_FRESH : 0) |
				 (image->magic == MAGIC_INODE ? ENTRY_INODE : 0);

		if (image->dirty_lines == 0)
			continue;
		*entry++ =
			(struct m_record_entry){ le64_of(image->laddr | flags), le64_of(image->dirty_lines) };
		for (uint64_t mask = image->dirty_lines; mask; mask &= mask - 1) {
			memcpy(line, image->data + (size_t)__builtin_ctzll(mask) * LINE_SIZE, LINE_SIZE);
			line += LINE_SIZE;
		}
	}
	*r = (struct m_record){
		.rc_magic = le32_of(MAGIC_RECORD),
		.rc_seq = le64_of(tx->seq),
		.rc_uuid = tx->pool->super.uuid,
		.rc_lane = le32_of(lane),
		.rc_entry_count = le32_of(entries),
		.rc_line_count = le32_of(lines),
		.rc_length_bytes = le32_of((uint32_t)length),
		.rc_request_id = le64_of(tx->request_id),
		.rc_result = le32_of((uint32_t)tx->result),
	};
	r->rc_crc = le32_of(record_crc(r, length));
	return length;
}

/* Stores the unit, or runs of its dirty lines, at one home; the header last, as unit_store(). */
static int image_store(struct pool *pool, const struct image *image, bool whole, uint64_t off)
{
	uint64_t mask = image->dirty_lines & ~1ull;

	if (whole)
		return unit_store(pool, off, image->data, unit_size(image->magic));
	while (mask) {
		unsigned first = (unsigned)__builtin_ctzll(mask);
		uint64_t rest = ~(mask >> first);
		unsigned count = (unsigned)__builtin_ctzll(rest);
		int rc = dax_store(pool->dax, off + first * LINE_SIZE, image->data + first * LINE_SIZE,
				   (size_t)count * LINE_SIZE);

		if (rc)
			return rc;
		mask = first + count == 64 ? 0 : mask >> (first + count) << (first + count);
	}
	return dax_store(pool->dax, off, image->data, LINE_SIZE);
}

/* Step 3 for one unit. False: neither copy could be written. */
static bool image_home(struct pool *pool, const struct image *image)
{
	/* Of a unit that is not verified one copy may lack the lines of an earlier commit. */
	bool whole = image->fresh || !unit_is_verified(pool, image->laddr);
	unsigned written = 0;
	bool degraded = false;

	for (unsigned copy = 0; copy < 2; copy++) {
		uint64_t off;

		if (sabotage_point(copy ? "home-mirror" : "home-primary"))
			continue;
		if (pool_place(pool, image->laddr, copy, &off) != 0)
			continue;
		if (image_store(pool, image, whole, off) == 0) {
			written++;
			continue;
		}
		degraded = true;
		bad_met(pool, off); /* the next reader may come when the other copy is gone too */
		if (log_is_first(~off))
			log_warn("metadata unit 0x%" PRIx64
				 ": a copy cannot be written, the other one serves",
				 image->laddr);
	}
	unit_set_verified(pool, image->laddr, unit_size(image->magic), !degraded);
	return written != 0;
}

/* A copy of the lane cannot be stored to. Once nobody is in our way it moves out of the bad memory: not now, with its lock held. */
static void lane_met(struct pool *pool, struct lane *lane, unsigned copy)
{
	uint64_t lo = lane->off[copy], hi = lo + pool->super.lane_size_bytes;
	uint8_t bytes[BLOCK_SIZE];
	struct dax_bad bad;

	lane_wear(pool, lane, copy);
	if (!dax_bad_take(pool->dax, &bad) || bad.off >= hi || bad.len > UINT64_MAX - bad.off)
		return;
	lo = u64_max(lo, u64_align_down(bad.off, BLOCK_SIZE));
	hi = u64_min(hi, bad.off + bad.len);
	for (uint64_t off = lo; off < hi; off += BLOCK_SIZE)
		if (dax_load(pool->dax, bytes, off, BLOCK_SIZE, NULL) && dax_has_memory(pool->dax, off))
			bad_met(pool, off);
	dax_bad_forget();
}

/* Only copies that hold the record matter (bits of written). False: one of them would come back at the next mount. */
static bool record_retire(struct pool *pool, struct lane *lane, unsigned written)
{
	static const uint64_t zero;
	bool gone = true;

	for (unsigned copy = 0; copy < 2; copy++) {
		if (sabotage_point(copy ? "retire-mirror" : "retire-primary"))
			continue;
		if (dax_store(pool->dax, lane->off[copy], &zero, sizeof(zero)) == 0)
			continue;
		lane_met(pool, lane, copy);
		gone = gone && !(written >> copy & 1);
	}
	return gone;
}

/*
 * Step 2. *written: a bit for each copy that holds the whole record: one is enough. An error: nothing has happened at the homes; 1: nor in this
 * lane, but another one may do.
 */
static int record_store(struct pool *pool, struct lane *lane, size_t length, unsigned *written)
{
	int rc = 0;

	*written = 0;
	for (unsigned copy = 0; copy < 2; copy++) {
		if (sabotage_point(copy ? "record-mirror" : "record-primary") ||
		    dax_store(pool->dax, lane->off[copy], lane->staging, length) == 0)
			*written |= 1u << copy;
		else
			lane_met(pool, lane, copy);
	}
	if (!*written)
		return 1;
	/* The operation has happened once the record is durable. */
	if (!sabotage_point("record-fence"))
		rc = dax_fence(pool->dax);
	if (rc) {
		pool_fail(pool, "a journal record cannot be made durable");
		lane->dead = true; /* the next mount may find it or not */
	}
	return rc;
}

/* What must not be: one copy of all homes before the record. For sabotage. */
static void homes_early(struct txn *tx, unsigned copy)
{
	uint64_t off;

	for (struct image *image = tx->images; image; image = image->next) {
		if (image->dirty_lines != 0 && pool_place(tx->pool, image->laddr, copy, &off) == 0)
			(void)!image_store(tx->pool, image, image->fresh, off);
	}
}

/* The record in a lane, which is then taken; NULL: in none. */
static int record_make(struct txn *tx, const struct prepare *p, struct lane **lane, unsigned *written)
{
	struct pool *pool = tx->pool;
	uint64_t tried = 0;
	size_t length;
	int rc;

	while ((*lane = lane_take(pool, tried))) {
		unsigned index = lane_index(pool, *lane);

		length = record_fill(tx, (*lane)->staging, index, p->entries, p->lines);
		if (sabotage_point("home-before-record"))
			homes_early(tx, 0);
		if (sabotage_point("mirror-before-record"))
			homes_early(tx, 1);
		rc = record_store(pool, *lane, length, written);
		if (rc <= 0)
			return rc;
		lane_give(*lane);
		tried |= 1ull << index;
		if (sabotage_point("lane-other"))
			break;
	}
	*lane = NULL;
	return tried ? -EIO : -EROFS;
}

static void forget_units(struct txn *tx)
{
	for (struct image *image = tx->images; image; image = image->next) {
		if (image->forgotten)
			unit_set_verified(tx->pool, image->laddr,
					  image->laddr % BLOCK_SIZE ? INODE_SIZE : BLOCK_SIZE, false);
	}
}

int commit_images(struct txn *tx)
{
	struct pool *pool = tx->pool;
	struct prepare p = { .tx = tx };
	struct lane *lane;
	bool homes_ok = true;
	unsigned written;
	int rc;

	rc = pool_guard_all(pool, prepare_run, &p);
	if (rc)
		return rc;
	if (record_length_bytes(p.entries, p.lines) > pool->super.lane_size_bytes)
		return -EFBIG;
	/* Replay trusts any record whose CRC holds, so the data it points to must be durable before it. */
	if (tx->data_stored && !sabotage_point("data-fence"))
		rc = dax_fence(pool->dax);
	if (rc)
		return rc;
	if (p.entries == 0)
		goto done;
	if (tx->receipt)
		receipt_try(tx->receipt, tx->seq, tx->receipt_result, tx->receipt_value, tx->receipt_flags);
	rc = record_make(tx, &p, &lane, &written);
	if (!lane)
		return rc;
	if (rc)
		goto out_lane;
	/* While the record can still be found. */
	if (tx->receipt)
		receipt_do(tx->receipt);
	/* What it edits of the unit that moves goes to the new place. */
	if (tx->remap)
		remap_put(pool, tx->remap);
	if (tx->moved && !sabotage_point("chunk-move-set"))
		pool_chunk_set(pool, tx->moved->lchunk, tx->moved->primary, tx->moved->mirror);
	if (tx->dropped && !sabotage_point("remap-forget"))
		remaps_forget(pool, tx->dropped);
	for (struct image *image = tx->images; image; image = image->next) {
		if (image->dirty_lines != 0 && !image_home(pool, image))
			homes_ok = false;
	}
	if (sabotage_point("retire-early"))
		(void)record_retire(pool, lane, written);
	/* The record may go only when what it says is durable at home. */
	if (!sabotage_point("home-fence"))
		dax_fence(pool->dax);
	if (!homes_ok) {
		pool_fail(pool, "both copies of a metadata unit cannot be written");
		lane->dead = true; /* its record is for the next mount */
		goto out_lane;
	}
	if (!record_retire(pool, lane, written)) {
		pool_fail(pool, "a journal record cannot be retired");
		lane->dead = true;
	}
	/* The next record with these units may be in another lane: this one must not come back after it. */
	if (!sabotage_point("retire-fence"))
		dax_fence(pool->dax);
	pool->stats.lines_logged += p.lines;
out_lane:
	lane_give(lane);
	if (rc)
		return rc;
done:
	forget_units(tx);
	return 0;
}
