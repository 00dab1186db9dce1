/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What processes may have mapped that were given it by a daemon before this one (ledger.h), of which it knows little: which files somebody had, which blocks of the device, and whether any of
 * them still has memory of the pool, as the kernel says.
 *
 *	WAIT	they are about to let go, and whoever changes what they may have waits for that
 *	LOST	they have had their time: as sessions that do not answer (decision *direct mappings*). What may be theirs is put to no other use
 *	GONE	nobody has anything; it stays so
 *
 * It only ever goes on to one further down.
 */
#ifndef UMBRA_FS_FORMER_H
#define UMBRA_FS_FORMER_H

#include <stdbool.h>
#include <stdint.h>

#include "fs/holders.h"
#include "util/util.h"

struct fs_former {
	/* Whether any of them still has memory of the pool. Asked again and again, until it says no. */
	bool (*is_there)(void *arg);
	/* They do not let go in time. May be NULL. */
	void (*lost)(void *arg);
	void *arg;
	unsigned wait_ms; /* how long they are waited for; 0: they were in vain before */
};

/* Waits until there are none, or none is waited for any more; ms at most. */
void fs_former_wait(struct fs *fs, unsigned ms);

/* ---- which blocks processes may have, those of this daemon too. Under a lock of the caller's that covers all of them ---- */

/* False: there is nobody who could take over, and nothing is noted. */
bool fs_lends(const struct fs *fs);
/* Before somebody may have them, and when nobody has them any more. */
void fs_lent(struct fs *fs, uint64_t blk, uint64_t count_blk);
void fs_unlent(struct fs *fs, uint64_t blk, uint64_t count_blk);
/* The next ones from blk on that somebody may have. False: there are none. */
bool fs_lent_next(const struct fs *fs, uint64_t blk, uint64_t *lo, uint64_t *hi);

#endif
