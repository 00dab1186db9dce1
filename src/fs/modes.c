/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How the opens of a file get at its data: by pages of the kernel, or past them. See fs.h and the decision *pages of the kernel*.
 *
 * A write that goes through pages is stored to the page, and only then sent to us; the page is not locked meanwhile. If all pages are dropped just then, and somebody reads the page again before the write
 * is here, the kernel keeps a page without it. Linux drops all pages whenever an open that bypasses them is mapped. So a file has opens that write through pages, or such that bypass them and may be
 * mapped, and of both at once only what has been said to be harmless.
 */
#include "fs/core.h"

#define THROUGH 1ull
#define BYPASS (1ull << 32)

static uint64_t modes_of(unsigned flags)
{
	return (flags & FS_OPEN_THROUGH ? THROUGH : 0) + (flags & FS_OPEN_BYPASS ? BYPASS : 0);
}

bool fs_open_way(struct fs *fs, uint64_t ino, unsigned flags, enum fs_way way, uint32_t harmless)
{
	struct inode *inode = inode_pin_known(fs, ino);
	uint64_t modes;
	unsigned noted;
	bool bypasses;

	if (!inode)
		return way == FS_WAY_BYPASS;
	modes = atomic_load(&inode->modes);
	do {
		uint32_t through = (uint32_t)modes;
		bool is_free = through <= harmless;

		bypasses = way == FS_WAY_BYPASS || (way == FS_WAY_WANTS && is_free) ||
			   (flags & FS_OPEN_THROUGH && modes >= BYPASS && is_free);
		noted = flags & (bypasses ? FS_OPEN_BYPASS : FS_OPEN_THROUGH);
	} while (!atomic_compare_exchange_weak(&inode->modes, &modes, modes + modes_of(noted)));
	ledger_way(inode->cell, noted, true);
	inode_unpin(fs, inode, 1);
	return bypasses;
}

void open_way_end(struct inode *inode, unsigned flags)
{
	uint64_t modes = atomic_load(&inode->modes);
	unsigned noted;

	do {
		noted = flags & FS_OPEN_THROUGH && (uint32_t)modes > 0 ? FS_OPEN_THROUGH : 0;
		noted |= flags & FS_OPEN_BYPASS && modes >= BYPASS ? FS_OPEN_BYPASS : 0;
	} while (noted && !atomic_compare_exchange_weak(&inode->modes, &modes, modes - modes_of(noted)));
	ledger_way(inode->cell, noted, false);
}

void open_ways_adopt(struct inode *inode, uint32_t through, uint32_t bypass)
{
	atomic_fetch_add(&inode->modes, through * THROUGH + bypass * BYPASS);
}

void fs_open_way_again(struct fs *fs, uint64_t ino)
{
	struct inode *inode = inode_pin_known(fs, ino);

	if (!inode)
		return;
	open_way_end(inode, FS_OPEN_THROUGH);
	inode_unpin(fs, inode, 1);
}

uint32_t fs_through_opens(struct fs *fs, uint64_t ino)
{
	struct inode *inode = inode_pin_known(fs, ino);
	uint32_t count = inode ? (uint32_t)atomic_load(&inode->modes) : 0;

	if (inode)
		inode_unpin(fs, inode, 1);
	return count;
}
