/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Blocks that are out of use since their memory was bad come back: after the device has cleared them, or since somebody says so. DESIGN.md 11.
 *
 * Only what belongs to OWNER_BAD alone: nobody maps it, and nobody is on his way away from it. It is written and read back before one transaction gives it
 * back; until that is durable it stays out of use, and what it holds means nothing. What files could not leave is not written to: where somebody says that
 * it is good, and it can be read, it is theirs alone again.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "dax/badblocks.h"
#include "fs/forward.h"
#include "fs/poison.h"
#include "util/log.h"
#include "util/sabotage.h"

struct clearing {
	struct fs *fs;
	uint64_t blk;
	unsigned bad, others; /* owners */
	enum fs_poison_result result;
};

/* ---- whose it is ---- */

static int owner_count(void *arg, const struct rmap *rmap)
{
	struct clearing *c = arg;

	if (rmap->owner == OWNER_BAD)
		c->bad++;
	else
		c->others++;
	return 0;
}

/* result FS_POISON_FREED: it may become free. */
static int look(struct op *op, void *arg)
{
	struct clearing *c = arg;
	struct m_forward m;
	int rc;

	c->bad = 0;
	c->others = 0;
	rc = space_owners(op->tx, c->blk, 1, owner_count, c);
	if (!rc)
		rc = forward_record(op, c->blk, &m); /* they may all have left it, but it counts */
	if (rc < 0)
		return rc;
	if (c->bad == 0)
		c->result = FS_POISON_NOT_BAD;
	else if (c->others > 0 || (rc == 1 && !sabotage_point("clear-forwarded")))
		c->result = FS_POISON_IN_USE;
	else
		c->result = FS_POISON_FREED;
	return 0;
}

static int give_back(struct op *op, void *arg)
{
	struct clearing *c = arg;
	int rc = look(op, c);

	if (rc || c->result != FS_POISON_FREED || sabotage_point("clear-give-back"))
		return rc;
	return space_bad_drop(op->tx, c->blk);
}

/* ---- whether it works ---- */

static bool holds(const struct dax *dax, uint64_t off, const uint8_t *bytes)
{
	uint8_t back[BLOCK_SIZE];

	return dax_load(dax, back, off, BLOCK_SIZE, NULL) == 0 && memcmp(back, bytes, BLOCK_SIZE) == 0;
}

/* Each bit of it can be read as one and as zero. In the end it is zero. */
static bool memory_works(struct dax *dax, uint64_t off)
{
	static const uint8_t patterns[] = { 0x55, 0xaa, 0 };
	uint8_t bytes[BLOCK_SIZE];
	bool works = dax_load(dax, bytes, off, BLOCK_SIZE, NULL) == 0;

	for (unsigned i = 0; i < ARRAY_SIZE(patterns) && works; i++) {
		memset(bytes, patterns[i], sizeof(bytes));
		/* The fence: what is read back has left the store buffers. */
		works = dax_store(dax, off, bytes, BLOCK_SIZE) == 0 && dax_fence(dax) == 0 &&
			holds(dax, off, bytes);
	}
	return works || sabotage_point("clear-check");
}

/* ---- all ---- */

/* Files have it. */
static int stay_forget(struct clearing *c)
{
	struct dax *dax = pool_dax(c->fs->pool);
	uint8_t bytes[BLOCK_SIZE];
	int rc;

	if (dax_load(dax, bytes, c->blk << BLOCK_SHIFT, BLOCK_SIZE, NULL) != 0 &&
	    !sabotage_point("stay-read")) {
		dax_bad_forget();
		c->result = FS_POISON_STILL_BAD;
		return 0;
	}
	rc = poison_stay_end(c->fs, c->blk);
	if (!rc) {
		c->result = FS_POISON_FREED;
		poison_let_go(c->fs, c->blk, 1); /* nor does anybody wait for it any more */
	}
	return rc < 0 ? rc : 0;
}

static int clear(struct clearing *c, bool by_device)
{
	struct dax *dax = pool_dax(c->fs->pool);
	uint64_t off = c->blk << BLOCK_SHIFT;
	int rc = op_run(c->fs, TXN_READ, NULL, look, c);

	if (!rc && c->result == FS_POISON_IN_USE && !by_device)
		return stay_forget(c);
	if (rc || c->result != FS_POISON_FREED)
		return rc;
	if (by_device && !sabotage_point("clear-device")) {
		rc = dax_badblocks_clear(dax, off, BLOCK_SIZE);
		if (rc)
			c->result = rc == -EOPNOTSUPP ? FS_POISON_CANNOT_CLEAR : FS_POISON_NOT_CLEARED;
	}
	if (!rc && !memory_works(dax, off)) {
		c->result = FS_POISON_STILL_BAD;
		rc = 1;
	}
	if (rc) {
		log_debug("bad memory at 0x%" PRIx64 " of the pool stays out of use", off);
		return 0;
	}
	rc = op_run(c->fs, TXN_FREEING, NULL, give_back, c);
	if (!rc && c->result == FS_POISON_FREED && by_device)
		log_info("memory at 0x%" PRIx64
			 " of the pool was bad and is in use again: the device has cleared it",
			 off);
	return rc;
}

int fs_poison_clear(struct fs *fs, uint64_t dev_off, bool by_device, enum fs_poison_result *result)
{
	struct clearing c = { .fs = fs, .blk = dev_off >> BLOCK_SHIFT };
	int rc;

	if (c.blk >= pool_size_blk(fs->pool))
		return -EINVAL;
	if (fs->opts.readonly || pool_failed(fs->pool))
		return -EROFS;
	poison_enter(fs);
	rc = clear(&c, by_device);
	poison_leave(fs);
	if (!rc)
		*result = c.result;
	return rc;
}

bool poison_may_clear(struct fs *fs, uint64_t dev_off)
{
	struct clearing c = { .fs = fs, .blk = dev_off >> BLOCK_SHIFT };

	return dax_badblocks_can_clear(pool_dax(fs->pool)) && op_run(fs, TXN_READ, NULL, look, &c) == 0 &&
	       c.result != FS_POISON_FREED && !sabotage_point("clear-auto");
}

void poison_clear(struct fs *fs, uint64_t dev_off)
{
	enum fs_poison_result result;
	int rc = fs_poison_clear(fs, dev_off, true, &result);

	if (rc && log_is_first(dev_off))
		log_warn("bad memory at 0x%" PRIx64 " of the pool cannot be given back: %s", dev_off,
			 strerror(-rc));
}

int fs_poison_listed(struct fs *fs, uint64_t dev_off)
{
	bool may_clear;
	int rc;

	if (dev_off >> BLOCK_SHIFT >= pool_size_blk(fs->pool))
		return -EINVAL;
	poison_enter(fs);
	may_clear = poison_may_clear(fs, dev_off);
	rc = poison_away_listed(fs, dev_off, may_clear);
	if (rc == -EOPNOTSUPP) { /* all that can be done */
		poison_tell(fs, &(struct fs_poison){ .kind = FS_POISON_META, .dev_off = dev_off });
		rc = 0;
	} else if (!rc && may_clear) {
		poison_clear(fs, dev_off);
	} else if (rc && poison_is_kept(fs, dev_off >> BLOCK_SHIFT)) {
		rc = -EINPROGRESS;
	}
	poison_leave(fs);
	return rc;
}
