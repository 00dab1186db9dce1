/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The table of inodes in DRAM.
 *
 * Invariants:
 *	- at most one inode with pins > 0 for a number is in the table, so its lock is the lock of that number;
 *	- pins counts every reference, open, running operation and queue entry; it never leaves 0 again. Whoever takes the last
 *	  one removes the inode and hands it to RCU; a lookup that meets it before that removes it too and goes on;
 *	- refs and opens go up only for an inode that is alive, under its lock or the lock of a directory that names it. So when
 *	  orphan_free() sees none of them under the inode's write lock, and no name is left, nobody can come any more.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "fs/core.h"

#define TABLE_MIN \
	8192u /* buckets: growing is done by a thread that may lag behind, making them costs a mount time */

static pthread_key_t thread_key;
static pthread_once_t thread_once = PTHREAD_ONCE_INIT;
static _Thread_local bool thread_known;

static void thread_leave(void *unused)
{
	(void)unused;
	urcu_memb_unregister_thread();
}

static void thread_key_make(void)
{
	int rc = pthread_key_create(&thread_key, thread_leave);

	assert(rc == 0);
	(void)rc;
}

void thread_register(void)
{
	if (thread_known)
		return;
	pthread_once(&thread_once, thread_key_make);
	pthread_setspecific(thread_key, &thread_known);
	urcu_memb_register_thread();
	thread_known = true;
}

static unsigned long ino_hash(uint64_t ino)
{
	ino ^= ino >> 29;
	ino *= 0xbf58476d1ce4e5b9ull;
	return ino ^ ino >> 32;
}

/* Before an inode is pinned it is RCU that keeps it, which the thread sanitizer does not see. */
#define NOT_PINNED_YET __attribute__((no_sanitize("thread")))

NOT_PINNED_YET static int node_is_ino(struct cds_lfht_node *node, const void *key)
{
	return container_of(node, struct inode, node)->ino == *(const uint64_t *)key;
}

static void inode_destroy(struct inode *inode)
{
	txn_lock_destroy(&inode->lock);
	free(inode);
}

static void inode_destroy_rcu(struct rcu_head *head)
{
	struct inode *inode = container_of(head, struct inode, rcu);

	/* After all that was done by those who had it pinned. */
	assert(atomic_load(&inode->pins) == 0);
	inode_destroy(inode);
}

static struct inode *inode_fresh(struct fs *fs, uint64_t ino, uint64_t pins)
{
	struct inode *inode = calloc(1, sizeof(*inode));

	if (!inode)
		return NULL;
	txn_lock_init(&inode->lock, ino);
	inode->ino = ino;
	lend_init(inode);
	inode->cell = ledger_cell(fs, ino);
	atomic_init(&inode->adopted, !inode->cell);
	cds_lfht_node_init(&inode->node);
	atomic_store(&inode->pins, pins); /* last: whoever pins it sees the rest */
	return inode;
}

NOT_PINNED_YET static bool pin_if_alive(struct inode *inode, uint64_t count)
{
	uint64_t pins = atomic_load(&inode->pins);

	while (pins != 0) {
		if (atomic_compare_exchange_weak(&inode->pins, &pins, pins + count))
			return true;
	}
	return false;
}

struct inode *inode_pin(struct fs *fs, uint64_t ino, uint64_t count, bool make)
{
	struct inode *fresh = NULL, *found = NULL;
	unsigned long hash = ino_hash(ino);
	struct cds_lfht_iter iter;
	struct cds_lfht_node *node;

	thread_register();
	urcu_memb_read_lock();
	for (;;) {
		cds_lfht_lookup(fs->inodes, hash, node_is_ino, &ino, &iter);
		node = cds_lfht_iter_get_node(&iter);
		if (!node) {
			if (!make || (!fresh && !(fresh = inode_fresh(fs, ino, count))))
				break;
			node = cds_lfht_add_unique(fs->inodes, hash, node_is_ino, &ino, &fresh->node);
			if (node == &fresh->node) {
				atomic_fetch_add(&fs->inode_count, 1);
				found = fresh;
				fresh = NULL;
				break;
			}
		}
		found = container_of(node, struct inode, node);
		if (pin_if_alive(found, count))
			break;
		found = NULL;
		cds_lfht_del(fs->inodes, node);
	}
	urcu_memb_read_unlock();
	if (fresh)
		inode_destroy(fresh); /* nobody has seen it */
	assert(!found || atomic_load(&found->pins) >= count);
	if (found && !atomic_load(&found->adopted))
		ledger_adopt(fs, found);
	return found;
}

struct inode *inode_pin_known(struct fs *fs, uint64_t ino)
{
	return inode_pin(fs, ino, 1, ledger_knows(fs, ino));
}

void inode_unpin(struct fs *fs, struct inode *inode, uint64_t count)
{
	uint64_t pins;

	if (atomic_load(&inode->unlinked)) /* in order after the counts that the caller took down */
		orphan_check(fs, inode);
	pins = atomic_fetch_sub(&inode->pins, count);
	assert(pins >= count);
	if (pins != count)
		return;
	urcu_memb_read_lock();
	cds_lfht_del(fs->inodes, &inode->node);
	urcu_memb_read_unlock();
	atomic_fetch_sub(&fs->inode_count, 1);
	if (inode->stream.windows)
		space_stream_release(fs->pool, &inode->stream);
	atomic_store(&inode->pins,
		     0); /* it is that already; inode_destroy_rcu() reads it after all of the above */
	urcu_memb_call_rcu(&inode->rcu, inode_destroy_rcu);
}

void inode_ref(struct inode *inode)
{
	ledger_ref(inode->cell);
	atomic_fetch_add(&inode->pins, 1);
	atomic_fetch_add(&inode->refs, 1);
}

struct inode *inode_pin_ref(struct fs *fs, uint64_t ino)
{
	struct inode *inode = inode_pin(fs, ino, 1, true);

	if (!inode)
		return NULL;
	ledger_ref(inode->cell);
	atomic_fetch_add(&inode->refs, 1);
	return inode;
}

void inode_unref(struct fs *fs, struct inode *inode, uint64_t count)
{
	uint64_t refs = atomic_load(&inode->refs);
	uint64_t gone;

	do {
		gone = u64_min(refs, count);
	} while (!atomic_compare_exchange_weak(&inode->refs, &refs, refs - gone));
	ledger_unref(inode->cell, gone);
	if (gone)
		inode_unpin(fs, inode, gone);
}

int inode_compare(const void *a, const void *b)
{
	uint64_t x = (*(struct inode *const *)a)->ino, y = (*(struct inode *const *)b)->ino;

	return (x > y) - (x < y);
}

void fs_forget(struct fs *fs, uint64_t ino, uint64_t count)
{
	struct inode *inode = inode_pin_known(fs, ino);

	if (!inode)
		return;
	inode_unref(fs, inode, count);
	inode_unpin(fs, inode, 1);
}

uint64_t fs_cached_inodes(const struct fs *fs)
{
	return atomic_load(&fs->inode_count);
}

int itable_open(struct fs *fs)
{
	thread_register();
	fs->inodes = cds_lfht_new_flavor(TABLE_MIN, TABLE_MIN, 0, CDS_LFHT_AUTO_RESIZE | CDS_LFHT_ACCOUNTING,
					 &urcu_memb_flavor, NULL);
	return fs->inodes ? 0 : -ENOMEM;
}

/* Nobody uses the file system any more: references and opens that are left mean nothing. */
static void itable_disown(struct fs *fs, struct inode *inode)
{
	uint64_t dead = atomic_exchange(&inode->refs, 0) + atomic_exchange(&inode->opens, 0);

	atomic_store(&inode->write_opens, 0);
	atomic_store(&inode->holders, 0);
	atomic_store(&inode->map_opens, 0);
	atomic_store(&inode->cached_opens, 0);
	atomic_store(&inode->modes, 0);
	atomic_store(&inode->page_reads, 0);
	if (dead)
		inode_unpin(fs, inode, dead);
}

void itable_disown_all(struct fs *fs)
{
	struct cds_lfht_iter iter;
	struct cds_lfht_node *node;

	urcu_memb_read_lock();
	for (cds_lfht_first(fs->inodes, &iter); (node = cds_lfht_iter_get_node(&iter));) {
		struct inode *inode = container_of(node, struct inode, node);
		bool alive = pin_if_alive(inode, 1);

		cds_lfht_next(fs->inodes, &iter);
		if (!alive)
			continue;
		/* Freeing an orphan takes locks and time, and the next node may go meanwhile: begin again. */
		if (atomic_load(&inode->unlinked)) {
			urcu_memb_read_unlock();
			itable_disown(fs, inode);
			inode_unpin(fs, inode, 1);
			urcu_memb_read_lock();
			cds_lfht_first(fs->inodes, &iter);
			continue;
		}
		itable_disown(fs, inode);
		inode_unpin(fs, inode, 1);
	}
	urcu_memb_read_unlock();
}

void itable_close(struct fs *fs)
{
	int rc;

	itable_disown_all(fs);
	/* Nobody reads the table. Inodes that are still to be freed know nothing of it, and no unmount waits for that (10 ms and more). */
	assert(atomic_load(&fs->inode_count) == 0);
	rc = cds_lfht_destroy(fs->inodes, NULL);
	assert(rc == 0);
	(void)rc;
}
