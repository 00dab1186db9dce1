/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Blocks of the device that processes may have mapped, a bit each, in memory that outlives the daemon. Set before anybody may have a block, and cleared after he has said that he has it no more;
 * while there are processes of a daemon before nothing is cleared, since who has what of them is not known.
 *
 * Most of it is never touched, and stays so: a byte for each page of bits says whether there may be any.
 */
#include "fs/core.h"
#include "fs/former.h"
#include "util/sabotage.h"

#define WORD_BLK 64u
#define PAGE_BLK ((uint64_t)LENT_PAGE * 8)

static const struct ledger_lent *lent_of(const struct fs *fs)
{
	return fs->opts.ledger && fs->opts.ledger->lent.words ? &fs->opts.ledger->lent : NULL;
}

uint64_t fs_ledger_blocks(const struct pool *pool)
{
	return u64_align_up((uint64_t)pool_ag_room(pool) * pool_super(pool)->ag_size_blk, PAGE_BLK);
}

bool fs_lends(const struct fs *fs)
{
	return lent_of(fs) != NULL;
}

/* Of the word of blk: the bits of [blk, end). */
static uint64_t word_mask(uint64_t blk, uint64_t end)
{
	unsigned first = blk % WORD_BLK;
	uint64_t count = u64_min(end - blk, WORD_BLK - first);

	return (count == WORD_BLK ? UINT64_MAX : (1ull << count) - 1) << first;
}

void fs_lent(struct fs *fs, uint64_t blk, uint64_t count_blk)
{
	const struct ledger_lent *lent = lent_of(fs);
	uint64_t end = blk + count_blk;

	if (!lent || sabotage_point("lent-note"))
		return;
	assert(end <= lent->blk_count);
	for (; blk < end; blk = u64_align_down(blk, WORD_BLK) + WORD_BLK) {
		atomic_store_explicit(&lent->pages[blk / PAGE_BLK], 1, memory_order_relaxed);
		atomic_fetch_or(&lent->words[blk / WORD_BLK], word_mask(blk, end));
	}
}

void fs_unlent(struct fs *fs, uint64_t blk, uint64_t count_blk)
{
	const struct ledger_lent *lent = lent_of(fs);
	uint64_t end = blk + count_blk;

	if (!lent || former_is_any(fs))
		return;
	for (; blk < end; blk = u64_align_down(blk, WORD_BLK) + WORD_BLK)
		atomic_fetch_and(&lent->words[blk / WORD_BLK], ~word_mask(blk, end));
}

/* The first block from blk on whose bit is so; end: there is none before. */
static uint64_t bit_find(const struct ledger_lent *lent, uint64_t blk, uint64_t end, bool set)
{
	while (blk < end) {
		uint64_t word;

		if (set && blk % PAGE_BLK == 0 &&
		    !atomic_load_explicit(&lent->pages[blk / PAGE_BLK], memory_order_relaxed)) {
			blk += PAGE_BLK;
			continue;
		}
		word = atomic_load(&lent->words[blk / WORD_BLK]);
		word = (set ? word : ~word) & ~0ull << blk % WORD_BLK;
		if (word)
			return u64_min(end, u64_align_down(blk, WORD_BLK) + (unsigned)__builtin_ctzll(word));
		blk = u64_align_down(blk, WORD_BLK) + WORD_BLK;
	}
	return end;
}

bool fs_lent_next(const struct fs *fs, uint64_t blk, uint64_t *lo, uint64_t *hi)
{
	const struct ledger_lent *lent = lent_of(fs);

	if (!lent)
		return false;
	*lo = bit_find(lent, blk, lent->blk_count, true);
	*hi = *lo < lent->blk_count ? bit_find(lent, *lo, lent->blk_count, false) : *lo;
	return *lo < *hi;
}

uint64_t lent_run(const struct fs *fs, uint64_t blk, uint64_t count_blk, bool *lent_out)
{
	const struct ledger_lent *lent = lent_of(fs);
	uint64_t end = blk + count_blk;

	*lent_out = false;
	if (!lent)
		return count_blk;
	assert(end <= lent->blk_count);
	*lent_out = bit_find(lent, blk, blk + 1, true) == blk;
	return bit_find(lent, blk, end, !*lent_out) - blk;
}
