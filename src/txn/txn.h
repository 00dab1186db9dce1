/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Transactions over metadata units.
 *
 * Inside a transaction metadata is read and edited by logical address. Edits go to DRAM images; nothing touches the
 * device before txn_commit(), which either makes all of them durable or returns an error with nothing changed.
 * txn_abort() drops the images, so errors need no undo.
 *
 * Locks are two-phase: taken with txn_lock() as needed, kept until commit or abort. Each unit is covered by exactly one
 * lock: the inode's for the inode and its trees, the group's for everything of the allocation group. Order: inodes by
 * number, then groups by number. A lock out of order is only tried; if that fails the caller gets -EDEADLK, aborts,
 * and starts again taking the lock numbered txn_blocked_on() first.
 *
 * A transaction belongs to one thread. Pointers from txn_get() are valid until the end of the transaction, but show the
 * unit as it was before an edit: take a new one after editing.
 */
#ifndef UMBRA_TXN_TXN_H
#define UMBRA_TXN_TXN_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "txn/pool.h"
#include "txn/receipt.h"
#include "util/util.h"

struct txn;

/* order: inode number for inodes, TXN_ORDER_AG | index for groups. */
#define TXN_ORDER_AG (1ull << 62)

struct txn_lock {
	uint64_t order;
	uint64_t writes_count; /* times that somebody took it for writing; covered by itself */
	pthread_rwlock_t rw;
};

void txn_lock_init(struct txn_lock *lock, uint64_t order);
void txn_lock_destroy(struct txn_lock *lock);

enum txn_mode {
	TXN_READ, /* no edits */
	TXN_WRITE,
	TXN_FREEING, /* as TXN_WRITE, and may use the reserve: it gives back space */
};

/* NULL: no memory. The transaction has a new sequence number unless TXN_READ. */
struct txn *txn_begin(struct pool *pool, enum txn_mode mode);

/* Steps 1 to 4 of DESIGN section 4, then the commit hooks, then unlock. On error (-EIO, -EROFS, -EFBIG: more lines than
 * a lane holds) nothing has happened, abort hooks have run and the locks are released. tx is gone either way. */
must_check int txn_commit(struct txn *tx);
void txn_abort(struct txn *tx);

/* A whole transaction of fn: committed if fn returns 0 or more, which is returned. Where it meets bad memory fn is called again, in a new one. */
must_check int txn_run(struct pool *pool, enum txn_mode mode, int (*fn)(struct txn *tx, void *arg),
		       void *arg);

/*
 * One step of a chain of transactions under an intent: commits what was edited, gives up the groups' locks and everything from
 * txn_alloc(), and goes on as a new transaction with the inodes' locks still held. On error nothing of this step has happened and
 * tx is as after txn_undo().
 */
must_check int txn_roll(struct txn *tx);
/* Drops what was edited since txn_begin() or txn_roll() and the groups' locks; keeps the inodes' locks. */
void txn_undo(struct txn *tx);

/* From here on the transaction may use the reserve: it gives back space now. */
void txn_set_freeing(struct txn *tx);

struct pool *txn_pool(const struct txn *tx);
uint64_t txn_seq(const struct txn *tx);
enum txn_mode txn_mode(const struct txn *tx);
bool txn_is_dirty(const struct txn *tx);

/* 0, -EDEADLK or -ENOMEM. Taking a lock that is held already is fine; read to write upgrade is only tried (never waits). */
must_check int txn_lock(struct txn *tx, struct txn_lock *lock, bool write);
/*
 * From read to write, waiting for other readers. The lock is let go of in between: -EDEADLK if anybody took it for writing meanwhile, since what has
 * been read may not be so any more, or if it is not the last one in order of all that are held. Nothing may have been edited under it.
 */
must_check int txn_lock_upgrade(struct txn *tx, struct txn_lock *lock);
must_check int txn_lock_ag(struct txn *tx, uint32_t agno); /* for writing; TXN_READ: shared */
bool txn_holds(const struct txn *tx, const struct txn_lock *lock, bool write);
uint64_t txn_blocked_on(const struct txn *tx); /* order of the lock that gave -EDEADLK */

/* The unit at laddr of that kind; size follows from magic. -EUCLEAN: both copies are damaged (reported once). */
must_check int txn_get(struct txn *tx, uint64_t laddr, uint32_t magic, const void **unit);
/* A writable image of it. -ENOMEM. */
must_check int txn_edit(struct txn *tx, uint64_t laddr, uint32_t magic, void **unit);
/* A zeroed image with its header filled, for a unit whose former content does not matter. */
must_check int txn_new(struct txn *tx, uint64_t laddr, uint32_t magic, uint64_t owner, void **unit);
/*
 * Compares both copies of a unit whose lock is held and writes the sound (or later) one over the other. *healed: it did. magic 0:
 * neither header says what it is.
 * -EUCLEAN, -EIO: neither is sound. -EROFS: one is, and the other could not be written.
 */
must_check int txn_unit_scrub(struct txn *tx, uint64_t laddr, uint32_t magic, bool *healed);
/*
 * With this commit one copy of a unit, or of the eight inodes there, lies in another block, which holds what it held before: an entry of the group's
 * remap list. What the transaction itself edits is stored there already. Not for key units; one in a transaction; between pool_freeze() and
 * pool_thaw(). -ENOSPC: the list is full.
 */
struct remap;
must_check int txn_remap(struct txn *tx, const struct remap *remap);
/*
 * With this commit the copies of a metadata chunk lie in these chunks of the device (0: no mirror), where one is another than before; that holds what
 * the chunk held, and the group's chunk table is edited. What the transaction itself edits of it is stored there already. One in a transaction; between
 * pool_freeze() and pool_thaw().
 */
must_check int txn_chunk_move(struct txn *tx, uint64_t lchunk, uint32_t primary, uint32_t mirror);
/*
 * With this commit this copy of these units of a chunk (a bit for each) lies in the chunk and not elsewhere: their entries in the group's remap list go.
 * The chunk holds already what they hold. Not in slot 0; one in a transaction; between pool_freeze() and pool_thaw().
 */
must_check int txn_remap_drop(struct txn *tx, uint64_t lchunk, unsigned copy,
			      const uint64_t units[CHUNK_BLOCKS / 64]);
/* The unit has been given back: its image, if any, is not written. */
void txn_forget(struct txn *tx, uint64_t laddr);

/* Memory that lives as long as the transaction (until txn_roll or txn_undo). NULL (no memory) only for more than TXN_ALLOC_SMALL bytes. */
#define TXN_ALLOC_SMALL 1024u
void *txn_alloc(struct txn *tx, size_t size_bytes);

/* File data was stored into blocks that nothing referred to before: the commit fences it first (step 1). */
void txn_data_stored(struct txn *tx);

/*
 * fn(arg, committed) runs after the commit is durable and before unlock, or on abort. Hooks run in the order of
 * registration when committed and in reverse order on abort. For DRAM state that follows the media.
 */
void txn_on_end(struct txn *tx, void (*fn)(void *arg, bool committed), void *arg);

/* Whether about units more 4 KiB units may still be edited (upper bound on what the lane holds). Batches ask. */
bool txn_has_room(const struct txn *tx, unsigned units);

/* For the record: FUSE request id and its result. */
void txn_set_request(struct txn *tx, uint64_t request_id, int32_t result);
/* The commit, or the next txn_roll(), says in the receipt that the request has been carried out (if it changes anything). See receipt.h. */
void txn_set_receipt(struct txn *tx, struct txn_receipt *receipt, int32_t result, int64_t value,
		     uint32_t flags);

#endif
