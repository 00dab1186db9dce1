/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See ledger.h.
 *
 * A cell changes only while its inode is in the table and has adopted it; so what ledger_adopt() reads nobody changes, and when an inode leaves the table its
 * cell says nothing any more, or what the next one that comes adopts.
 */
#include "fs/ledger.h"

#include "fs/core.h"
#include "util/sabotage.h"

uint64_t fs_ledger_cells(const struct pool *pool)
{
	uint64_t group_chunks = pool_super(pool)->ag_size_blk / CHUNK_BLOCKS;

	return pool_ag_room(pool) * group_chunks * (CHUNK_SIZE / INODE_SIZE);
}

void fs_ledger_settle(const struct fs_ledger *ledger)
{
	for (uint32_t i = 0; i < ledger->receipt_count; i++) {
		struct txn_receipt *r = &ledger->receipts[i];
		uint64_t ino = (uint64_t)r->value;

		if (!atomic_load(&r->unique) || !receipt_is_done(r) || !receipt_has(r, RECEIPT_MAKES) ||
		    receipt_has(r, RECEIPT_REF) || ino >= ledger->cell_count ||
		    sabotage_point("ledger-settle"))
			continue;
		ledger_ref(&ledger->cells[ino]);
		receipt_note(r, RECEIPT_REF);
	}
}

struct ledger_cell *ledger_cell(const struct fs *fs, uint64_t ino)
{
	const struct fs_ledger *ledger = fs->opts.ledger;

	return ledger && ino < ledger->cell_count ? &ledger->cells[ino] : NULL;
}

bool ledger_knows(const struct fs *fs, uint64_t ino)
{
	const struct ledger_cell *cell = ledger_cell(fs, ino);

	return cell && (atomic_load(&cell->refs) || atomic_load(&cell->opens));
}

/* unit: LEDGER_THROUGH or LEDGER_BYPASS */
static uint32_t ways_of(const struct ledger_cell *cell, uint64_t unit)
{
	return (uint32_t)(atomic_load(&cell->ways) / unit & LEDGER_WAY_MAX);
}

void ledger_adopt(struct fs *fs, struct inode *inode)
{
	struct ledger_cell *cell = inode->cell;

	pthread_mutex_lock(&fs->adopt_lock);
	if (!atomic_load(&inode->adopted) && !sabotage_point("ledger-adopt")) {
		uint64_t refs = atomic_load(&cell->refs), opens = atomic_load(&cell->opens);

		atomic_fetch_add(&inode->pins, refs + opens);
		atomic_fetch_add(&inode->refs, refs);
		atomic_fetch_add(&inode->opens, (uint32_t)opens);
		atomic_fetch_add(&inode->write_opens, atomic_load(&cell->write_opens));
		atomic_fetch_add(&inode->map_opens, atomic_load(&cell->map_opens));
		atomic_fetch_add(&inode->cached_opens, atomic_load(&cell->cached_opens));
		/* Pages may have been read into the cache: who writes around it has to look. */
		if (atomic_load(&cell->write_opens))
			atomic_fetch_add(&inode->page_reads, 1);
		if (!sabotage_point("ledger-ways"))
			open_ways_adopt(inode, ways_of(cell, LEDGER_THROUGH), ways_of(cell, LEDGER_BYPASS));
		/* The kernel may have got pages of it from a daemon before. */
		if (refs + opens > 0 && !sabotage_point("ledger-lent"))
			lend_adopt(inode);
		atomic_store(&inode->adopted, true);
	}
	pthread_mutex_unlock(&fs->adopt_lock);
}

void ledger_ref(struct ledger_cell *cell)
{
	if (cell && !sabotage_point("ledger-ref"))
		atomic_fetch_add(&cell->refs, 1);
}

void ledger_unref(struct ledger_cell *cell, uint64_t count)
{
	uint64_t refs = cell ? atomic_load(&cell->refs) : 0, gone;

	if (!cell)
		return;
	do {
		gone = u64_min(refs, count);
	} while (!atomic_compare_exchange_weak(&cell->refs, &refs, refs - gone));
}

static void ledger_up(_Atomic uint32_t *count, bool up)
{
	if (up)
		atomic_fetch_add(count, 1);
}

/* Never under 0. */
static void ledger_down(_Atomic uint32_t *count, bool down)
{
	uint32_t old = atomic_load(count);

	while (down && old != 0 && !atomic_compare_exchange_weak(count, &old, old - 1))
		;
}

void ledger_open(struct ledger_cell *cell, unsigned flags)
{
	if (!cell)
		return;
	ledger_up(&cell->opens, true);
	ledger_up(&cell->write_opens, flags & FS_OPEN_WRITE);
	ledger_up(&cell->map_opens, flags & FS_OPEN_MAP);
	ledger_up(&cell->cached_opens, flags & FS_OPEN_CACHED);
}

void ledger_close(struct ledger_cell *cell, unsigned flags)
{
	if (!cell)
		return;
	ledger_down(&cell->cached_opens, flags & FS_OPEN_CACHED);
	ledger_down(&cell->map_opens, flags & FS_OPEN_MAP);
	ledger_down(&cell->write_opens, flags & FS_OPEN_WRITE);
	ledger_down(&cell->opens, true);
}

void ledger_uncache(struct ledger_cell *cell)
{
	if (cell)
		ledger_down(&cell->cached_opens, true);
}

/* Neither past its bits nor under 0; what is at its most stays there. */
static void way_count(struct ledger_cell *cell, uint64_t unit, bool more)
{
	uint64_t ways = atomic_load(&cell->ways), count;

	do {
		count = ways / unit & LEDGER_WAY_MAX;
		if (count == LEDGER_WAY_MAX || (!more && count == 0))
			return;
	} while (!atomic_compare_exchange_weak(&cell->ways, &ways, more ? ways + unit : ways - unit));
}

void ledger_way(struct ledger_cell *cell, unsigned flags, bool more)
{
	if (cell && flags & FS_OPEN_THROUGH)
		way_count(cell, LEDGER_THROUGH, more);
	if (cell && flags & FS_OPEN_BYPASS)
		way_count(cell, LEDGER_BYPASS, more);
}
