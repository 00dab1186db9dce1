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

static const char *copy_read(struct dax *dax, const struct super *primary, struct super *super)
{
	uint64_t size = dax_size_bytes(dax);
	uint64_t chunk = u64_align_down(size, CHUNK_SIZE);
	const char *why = "no copy found";

	if (primary) {
		if (primary->size_blk * BLOCK_SIZE > size)
			return "lies past the end of the pool";
		return super_read(dax, (primary->size_blk - 1) * BLOCK_SIZE, super);
	}
	for (unsigned i = 0; i < SUPER_TAIL_CHUNKS && chunk >= CHUNK_SIZE; i++, chunk -= CHUNK_SIZE) {
		why = super_read(dax, chunk - BLOCK_SIZE, super);
		if (!why && super->size_blk * BLOCK_SIZE == chunk)
			return NULL;
	}
	return "no copy found";
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

/*
 * A growth that was broken off before block 0 was written may have left its copy behind, at an end that the pool does not have. Then the
 * copy at the former end is of the same age or newer.
 */
static void former_prefer(struct dax *dax, struct super *super)
{
	struct super former;

	if (super->grown_from_blk != 0 &&
	    !super_read(dax, (super->grown_from_blk - 1) * BLOCK_SIZE, &former) &&
	    former.size_blk == super->grown_from_blk && former.version_count >= super->version_count &&
	    memcmp(&former.uuid, &super->uuid, sizeof(former.uuid)) == 0)
		*super = former;
}

int super_load(struct dax *dax, struct super *super, bool *rewrite, char *why, size_t why_size)
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
		former_prefer(dax, super);
		log_warn("superblock: %s; its copy at the end of the pool is used", bad);
	} else if (copy_bad) {
		if (super->size_blk * BLOCK_SIZE <= dax_size_bytes(dax))
			log_warn("copy of the superblock: %s; the first one is used", copy_bad);
	} else if (copy.version_count > super->version_count && memcmp(&copy.uuid, &super->uuid, 16) == 0) {
		*super = copy;
	}
	rc = super_judge(super, dax_size_bytes(dax), why, why_size);
	*rewrite = bad || copy_bad;
	return rc;
}

/* Under super_mutex. */
static int super_store_locked(struct pool *pool)
{
	_Alignas(64) struct m_super m;
	int rc, rc_copy;

	pool->super.version_count++;
	super_encode(&m, &pool->super);
	unit_seal(&m, sizeof(m), pool->super.version_count);
	rc = dax_store(pool->dax, 0, &m, sizeof(m));
	/* One of the two is whole at any time. */
	if (!sabotage_point("super-fence"))
		dax_fence(pool->dax);
	rc_copy = dax_store(pool->dax, (pool->super.size_blk - 1) * BLOCK_SIZE, &m, sizeof(m));
	dax_fence(pool->dax);
	return rc && rc_copy ? -EIO : 0;
}

int super_store(struct pool *pool)
{
	int rc;

	pthread_mutex_lock(&pool->super_mutex);
	rc = super_store_locked(pool);
	pthread_mutex_unlock(&pool->super_mutex);
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
