/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What of the inode table outlives the daemon: how often the kernel knows each inode, and has it open.
 *
 * A daemon that takes over a mount from another one has an empty table, and a kernel that goes on naming inodes. So these counts are in memory that another
 * process keeps (fuse/kept.h), a cell for each number that an inode can have; the inode in DRAM counts as it always does, and its cell along with it. An
 * inode that comes into the table begins with what its cell says, and has pins for that (ledger_adopt()).
 *
 * Cells go up before the kernel hears of it, and down after it has said so: where a daemon is killed in between they say too much, never too little. What is
 * too much keeps an unlinked inode from being freed until the mount ends, and nothing else.
 */
#ifndef UMBRA_FS_LEDGER_H
#define UMBRA_FS_LEDGER_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "txn/pool.h"
#include "txn/receipt.h"

struct fs;
struct inode;

/* All zero: the kernel does not know it. The layout is that of all builds that may follow one another. */
struct ledger_cell {
	_Atomic uint64_t refs;
	_Atomic uint32_t opens, write_opens, map_opens,
		cached_opens;  /* as those of struct inode, without holders */
	_Atomic uint64_t ways; /* LEDGER_THROUGH and LEDGER_BYPASS of its opens: modes.c */
};
#define LEDGER_WAY_BITS 24u
#define LEDGER_WAY_MAX \
	((1ull << LEDGER_WAY_BITS) - 1) /* so many or more: stays until the kernel forgets the inode */
#define LEDGER_THROUGH 1ull
#define LEDGER_BYPASS (1ull << LEDGER_WAY_BITS)
static_assert(sizeof(struct ledger_cell) == 32, "two in a line");

struct fs_ledger {
	struct ledger_cell *cells; /* by inode number */
	uint64_t cell_count;
	struct txn_receipt *receipts;
	uint32_t receipt_count;
};

/* How many cells a pool needs, however far it grows. */
uint64_t fs_ledger_cells(const struct pool *pool);

/*
 * Before fs_open(), after the replay: inodes that were made for a request that has not been answered get the reference of the answer, so that nobody frees
 * them. (RECEIPT_REF)
 */
void fs_ledger_settle(const struct fs_ledger *ledger);

/* NULL: there is no ledger, or no inode has that number. */
struct ledger_cell *ledger_cell(const struct fs *fs, uint64_t ino);
/* The kernel knows it, or has it open. */
bool ledger_knows(const struct fs *fs, uint64_t ino);
/* The pinned inode has its cell's counts from here on; once for each time that it is in the table. */
void ledger_adopt(struct fs *fs, struct inode *inode);

/* All of them may be given NULL. */
void ledger_ref(struct ledger_cell *cell);
void ledger_unref(struct ledger_cell *cell, uint64_t count);
/* flags: FS_OPEN_* */
void ledger_open(struct ledger_cell *cell, unsigned flags);
void ledger_close(struct ledger_cell *cell, unsigned flags);
void ledger_uncache(struct ledger_cell *cell);
/* One more open, or one less, that gets at the data in one of these ways: FS_OPEN_THROUGH, FS_OPEN_BYPASS, or none. */
void ledger_way(struct ledger_cell *cell, unsigned flags, bool more);

#endif
