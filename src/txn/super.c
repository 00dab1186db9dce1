/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The superblock and its copy: not journaled, written one after the other, the higher version_count holds.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "txn/internal.h"
#include "util/log.h"

#define SEQ_STEP (1ull << 20) /* sequence numbers set aside at a time */

static const char *super_read(struct dax *dax, uint64_t off, struct super *super)
{
	_Alignas(64) struct m_super m;
	const char *why;

	if (dax_load(dax, &m, off, sizeof(m), NULL) != 0)
		return "bad memory";
	why = unit_check_header(&m, sizeof(m), MAGIC_SUPER, OWNER_SUPER, &m.sb_hdr.uh_uuid);
	if (why)
		return why;
	super_decode(super, &m);
	return super_check(super);
}

/* A superblock in the last block of a pool that ends there, or ended there before it grew. */
static bool end_read(struct dax *dax, uint64_t end_blk, struct super *super)
{
	return end_blk != 0 && end_blk <= dax_size_bytes(dax) / BLOCK_SIZE &&
	       !super_read(dax, (end_blk - 1) * BLOCK_SIZE, super) &&
	       (super->size_blk == end_blk || super->grown_from_blk == end_blk);
}

/*
 * Where the header of group 0 puts it, though the device may end elsewhere by now. While a pool grows it tells of the former end; where the
 * copy there had to go, one lies a chunk further (grow.c).
 */
static bool told_copy_read(struct dax *dax, struct super *super)
{
	uint64_t off = (CHUNK_BLOCKS + AG_UNIT_HEADER) * BLOCK_SIZE,
		 size_blk = dax_size_bytes(dax) / BLOCK_SIZE;
	uint64_t end_blk, next_blk;
	_Alignas(64) struct m_ag m;

	if (dax_load(dax, &m, off, sizeof(m), NULL) != 0 || le32_get(m.ag_hdr.uh_magic) != MAGIC_AG)
		return false;
	end_blk = le64_get(m.ag_super.as_size_blk);
	next_blk = end_blk + CHUNK_BLOCKS - 1;
	if (end_blk > size_blk)
		return false;
	if (!end_read(dax, end_blk, super) &&
	    (next_blk >= size_blk || super_read(dax, next_blk * BLOCK_SIZE, super) ||
	     super->grown_from_blk != end_blk))
		return false;
	return memcmp(&super->uuid, &m.ag_hdr.uh_uuid, sizeof(super->uuid)) == 0;
}

static bool tail_copy_read(struct dax *dax, struct super *super)
{
	uint64_t end_blk = u64_align_down(dax_size_bytes(dax), CHUNK_SIZE) / BLOCK_SIZE;

	for (unsigned i = 0; i < SUPER_TAIL_CHUNKS && end_blk != 0; i++, end_blk -= CHUNK_BLOCKS) {
		if (end_read(dax, end_blk, super))
			return true;
	}
	return false;
}

static bool is_same_pool(const struct super *a, const struct super *b)
{
	return memcmp(&a->uuid, &b->uuid, sizeof(a->uuid)) == 0 && a->created_ns == b->created_ns;
}

/*
 * A growth that was broken off before block 0 was written may have left its copy behind, at an end that the pool does not have. Then the
 * copy at the former end is of the same age or newer.
 */
static void former_prefer(struct dax *dax, struct super *super)
{
	struct super former;

	if (super->grown_from_blk != 0 && end_read(dax, super->grown_from_blk, &former) &&
	    former.size_blk == super->grown_from_blk && former.version_count >= super->version_count &&
	    is_same_pool(&former, super))
		*super = former;
}

/* With no block 0 to say where it is. */
static bool copy_find(struct dax *dax, struct super *super)
{
	struct super tail;
	bool is_told = told_copy_read(dax, super);

	if (tail_copy_read(dax, &tail) &&
	    (!is_told || (is_same_pool(&tail, super) && tail.version_count > super->version_count)))
		*super = tail;
	else if (!is_told)
		return false;
	former_prefer(dax, super);
	return true;
}

static const char *copy_read(struct dax *dax, const struct super *primary, struct super *super)
{
	if (!primary)
		return copy_find(dax, super) ? NULL : "no copy found";
	if (primary->size_blk > dax_size_bytes(dax) / BLOCK_SIZE)
		return "lies past the end of the pool";
	return super_read(dax, (primary->size_blk - 1) * BLOCK_SIZE, super);
}

bool pool_super_exists(struct dax *dax)
{
	struct super super;

	return !super_read(dax, 0, &super) || copy_find(dax, &super);
}

static int super_judge(const struct super *s, uint64_t size_bytes, char *why, size_t why_size)
{
	if (s->major != SUPER_MAJOR) {
		snprintf(why, why_size, "format %u.%u is not supported (this program knows %u.x)", s->major,
			 s->minor, SUPER_MAJOR);
		return -EPROTONOSUPPORT;
	}
	if (s->incompat & ~FEATURE_INCOMPAT_KNOWN) {
		snprintf(why, why_size, "unknown incompatible features 0x%llx",
			 (unsigned long long)(s->incompat & ~FEATURE_INCOMPAT_KNOWN));
		return -EPROTONOSUPPORT;
	}
	if (s->size_blk * BLOCK_SIZE > size_bytes) {
		snprintf(why, why_size,
			 "truncated: the file system has %" PRIu64 " bytes, the pool only %" PRIu64,
			 s->size_blk * BLOCK_SIZE, size_bytes);
		return -EUCLEAN;
	}
	return 0;
}

int super_load(struct dax *dax, struct super *super, bool *copy_lost, char *why, size_t why_size)
{
	struct super copy;
	const char *bad, *copy_bad;
	int rc;

	if (dax_size_bytes(dax) < (uint64_t)AG_MIN_CHUNKS * CHUNK_SIZE) {
		snprintf(why, why_size, "too small to hold a umbrafs file system");
		return -EUCLEAN;
	}
	bad = super_read(dax, 0, super);
	copy_bad = copy_read(dax, bad ? NULL : super, &copy);
	if (bad && copy_bad) {
		snprintf(why, why_size, "no umbrafs superblock (%s; copy: %s)", bad, copy_bad);
		return -EUCLEAN;
	}
	if (bad) {
		*super = copy;
		log_warn("superblock: %s; its copy at the end of the pool is used", bad);
	} else if (copy_bad) {
		if (super->size_blk * BLOCK_SIZE <= dax_size_bytes(dax))
			log_warn("copy of the superblock: %s; the first one is used", copy_bad);
	} else if (copy.version_count > super->version_count && memcmp(&copy.uuid, &super->uuid, 16) == 0) {
		*super = copy;
	}
	rc = super_judge(super, dax_size_bytes(dax), why, why_size);
	*copy_lost = !bad && copy_bad;
	return rc;
}

/* Under super_mutex. */
static int super_store_locked(struct pool *pool)
{
	uint64_t off[2] = { 0, (pool->super.size_blk - 1) * BLOCK_SIZE };
	/* What is whole is written last. */
	unsigned first = pool->copy_lost && !sabotage_point("super-order") ? 1 : 0;
	_Alignas(64) struct m_super m;
	int rc[2];

	pool->super.version_count++;
	super_encode(&m, &pool->super);
	unit_seal(&m, sizeof(m), pool->super.version_count);
	rc[first] = dax_store(pool->dax, off[first], &m, sizeof(m));
	/* One of the two is whole at any time. */
	if (!sabotage_point("super-fence"))
		dax_fence(pool->dax);
	rc[!first] = dax_store(pool->dax, off[!first], &m, sizeof(m));
	dax_fence(pool->dax);
	pool->copy_lost = rc[1] != 0;
	for (unsigned copy = 0; copy < 2; copy++) {
		if (rc[copy] && log_is_first(~off[copy]))
			log_warn("%s cannot be written, the other one serves",
				 copy ? "the copy of the superblock" : "the superblock");
	}
	return rc[0] && rc[1] ? -EIO : 0;
}

int super_store(struct pool *pool)
{
	int rc;

	pthread_mutex_lock(&pool->super_mutex);
	rc = super_store_locked(pool);
	pthread_mutex_unlock(&pool->super_mutex);
	return rc;
}

int pool_super_renew(struct pool *pool, uint64_t blk)
{
	_Alignas(64) struct m_super back;
	int rc;

	pool_hold(pool); /* it stays as large as it is */
	rc = super_store(pool);
	if (!rc)
		rc = dax_load(pool->dax, &back, blk * BLOCK_SIZE, sizeof(back), NULL);
	pool_release(pool);
	return rc;
}

int pool_bad_in_use(struct pool *pool, bool in_use)
{
	uint64_t was, want;
	int rc = 0;

	pool_hold(pool); /* it stays as large as it is */
	pthread_mutex_lock(&pool->super_mutex);
	was = pool->super.ro_compat;
	want = in_use ? was | FEATURE_RO_COMPAT_BAD_IN_USE : was & ~FEATURE_RO_COMPAT_BAD_IN_USE;
	pool->super.ro_compat = want;
	if (want != was)
		rc = super_store_locked(pool);
	if (rc) /* asked for again, it is stored again */
		pool->super.ro_compat = was;
	pthread_mutex_unlock(&pool->super_mutex);
	pool_release(pool);
	return rc;
}

int super_extend_seq(struct pool *pool)
{
	int rc = 0;

	pthread_mutex_lock(&pool->super_mutex);
	if (pool->seq + 4096 >= pool->seq_limit) {
		pool->super.seq_limit = pool->seq + SEQ_STEP;
		rc = super_store_locked(pool);
		if (!rc)
			pool->seq_limit = pool->super.seq_limit;
	}
	pthread_mutex_unlock(&pool->super_mutex);
	return rc;
}
