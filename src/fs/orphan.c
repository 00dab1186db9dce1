/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Orphans: inodes without a name, in a tree of their group until they are freed.
 *
 * An inode whose last name goes is put there by the same transaction. It is freed when references and opens are gone too: by the
 * background thread, or at once if there is none. What a crash or an unclean end left is freed after the next mount.
 *
 * Freeing is a chain of transactions: data, large attribute values, attribute tree, then number and orphan record together. Each looks
 * at the inode again, so any two threads may be at it. The background thread takes many small inodes in one.
 */
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/data.h"
#include "fs/names.h"
#include "fs/xattr.h"
#include "util/log.h"
#include "util/sabotage.h"

#define NODES_AT_ONCE 16u /* of a tree given back in one step */
#define UNITS_FOR_END 40u /* that freeing of the number may edit: inode, group trees and header */
#define UNITS_FOR_ONE 80u /* that a small file takes as a whole */
#define FREE_BATCH 32u

static int orphan_tree(struct op *op, uint64_t ino, struct btree *bt)
{
	return space_ag_tree(op->tx, inode_agno(op->fs, ino), AG_ORPHANS, bt);
}

int orphan_add(struct op *op, const struct inode_attr *attr)
{
	struct m_orphan rec = { le64_of(attr->ino), le64_of(attr->gen) };
	struct btree bt;
	int rc = orphan_tree(op, attr->ino, &bt);

	if (!rc && !sabotage_point("orphan-add"))
		rc = bt_insert(&bt, &rec, sizeof(rec));
	return rc == -EEXIST ? -EUCLEAN : rc;
}

int orphan_remove(struct op *op, uint64_t ino)
{
	struct bt_key key = { { ino } };
	struct btree bt;
	int rc = orphan_tree(op, ino, &bt);

	if (!rc && !sabotage_point("orphan-remove"))
		rc = bt_delete(&bt, &key);
	if (rc == -ENOENT) {
		log_warn("inode %" PRIu64 ": has no name, but is not in the orphan tree", ino);
		rc = 0;
	}
	return rc;
}

/* ---- freeing one ---- */

static int tree_free(struct op *op, struct btree *bt, bool *done)
{
	unsigned nodes = NODES_AT_ONCE;

	*done = false;
	while (nodes && !txn_has_room(op->tx, nodes + UNITS_FOR_END))
		nodes /= 2;
	return nodes ? bt_destroy(bt, nodes, done) : 0;
}

static int content_free(struct op *op, struct inode_attr *attr, bool *done)
{
	struct btree bt;
	int rc;

	*done = true;
	if (attr->data_format == DATA_EXTENTS) {
		rc = data_drop(op, attr, 0, FILE_BLK_END, done);
		return rc ? rc : inode_put(op, attr);
	}
	if (attr->data_format != DATA_DIR)
		return 0;
	inode_data_tree(op, attr->ino, NODE_DIR, &bt);
	return tree_free(op, &bt, done);
}

static int attrs_free(struct op *op, uint64_t ino, bool *done)
{
	struct btree bt;
	int rc = xattr_free_large(op, ino, done);

	if (rc || !*done)
		return rc;
	inode_attr_tree(op, ino, &bt);
	return tree_free(op, &bt, done);
}

/* One step; 1: there is more to do. -ESTALE, -EBUSY: nothing is edited. */
static int free_step(struct op *op, uint64_t ino)
{
	struct inode_attr attr;
	struct inode *inode;
	bool done;
	int rc = op_inode(op, ino, true, &inode);

	if (!rc)
		rc = inode_get(op, ino, &attr);
	if (rc)
		return rc;
	if (attr.nlink != 0 || atomic_load(&inode->refs) || atomic_load(&inode->opens))
		return -EBUSY;
	rc = content_free(op, &attr, &done);
	if (!rc && done && !txn_has_room(op->tx, UNITS_FOR_END))
		done = false;
	if (!rc && done)
		rc = attrs_free(op, ino, &done);
	if (!rc && done && !txn_has_room(op->tx, UNITS_FOR_END))
		done = false;
	if (rc || !done)
		return rc ? rc : 1;
	rc = orphan_remove(op, ino);
	if (!rc)
		rc = space_inode_free(op->tx, ino);
	if (rc)
		return rc;
	txn_forget(op->tx, inode_laddr(ino));
	inode_on_commit(op, inode, INODE_FREED);
	return 0;
}

static int free_op(struct op *op, void *arg)
{
	return free_step(op, *(uint64_t *)arg);
}

int orphan_free(struct fs *fs, uint64_t ino)
{
	int rc;

	do {
		rc = op_run(fs, TXN_FREEING, NULL, free_op, &ino);
	} while (rc == 1);
	return rc;
}

static bool is_wanted(const struct inode *inode)
{
	return !atomic_load(&inode->unlinked) || atomic_load(&inode->refs) || atomic_load(&inode->opens);
}

/* The inode is pinned and marked freeing. */
static void orphan_finish(struct fs *fs, struct inode *inode)
{
	int rc;

	for (;;) {
		rc = is_wanted(inode) ? -EBUSY : orphan_free(fs, inode->ino);
		atomic_store(&inode->freeing, false);
		/* Somebody may have come and gone meanwhile, and left it to us. */
		if ((rc && rc != -EBUSY) || is_wanted(inode) || atomic_exchange(&inode->freeing, true))
			break;
	}
	if (rc && rc != -EBUSY && rc != -ESTALE) {
		if (rc != -EROFS)
			log_warn("inode %" PRIu64 ": cannot be freed now: %s", inode->ino, strerror(-rc));
		atomic_store(&inode->unlinked, false); /* the next mount tries again */
	}
}

void orphan_check(struct fs *fs, struct inode *inode)
{
	if (is_wanted(inode) || fs->opts.readonly || pool_failed(fs->pool) ||
	    atomic_exchange(&inode->freeing, true))
		return;
	if (!fs->worker_runs) {
		orphan_finish(fs, inode);
		return;
	}
	atomic_fetch_add(&inode->pins, 1);
	pthread_mutex_lock(&fs->work_lock);
	cds_list_add_tail(&inode->orphan_link, &fs->orphans);
	work_wake(fs);
	pthread_mutex_unlock(&fs->work_lock);
}

/* ---- those that an earlier mount left ---- */

struct scan_arg {
	uint32_t agno;
	uint64_t ino; /* in: look past this one; out: the next, 0 = none */
};

static int scan_op(struct op *op, void *arg)
{
	struct scan_arg *a = arg;
	struct bt_key key = { { a->ino + 1 } };
	struct bt_cursor cur;
	struct btree bt;
	const void *rec;
	size_t size_bytes;
	int rc = space_ag_tree(op->tx, a->agno, AG_ORPHANS, &bt);

	if (!rc)
		rc = bt_seek(&bt, &cur, &key, BT_GE);
	if (!rc)
		rc = bt_get(&cur, &rec, &size_bytes);
	if (rc && rc != -ENOENT)
		return rc;
	a->ino = rc ? 0 : le64_get(((const struct m_orphan *)rec)->or_ino);
	return 0;
}

static void orphans_scan(struct fs *fs)
{
	for (uint32_t agno = 0; agno < pool_ag_count(fs->pool); agno++) {
		struct scan_arg a = { agno, 0 };

		do {
			int rc = op_run(fs, TXN_READ, NULL, scan_op, &a);

			if (rc) {
				log_warn("group %u: the orphan tree cannot be read: %s", agno, strerror(-rc));
				break;
			}
			if (a.ino)
				rc = orphan_free(fs, a.ino);
			if (rc && rc != -EBUSY && rc != -ESTALE)
				log_warn("inode %" PRIu64 ": cannot be freed now: %s", a.ino, strerror(-rc));
		} while (a.ino && !atomic_load(&fs->worker_stop));
	}
}

/* ---- the queue ---- */

/* Many small ones go in one transaction: they share its edits of the group. */
struct free_batch {
	struct inode *inodes[FREE_BATCH];
	unsigned count;
};

static bool batch_take(struct fs *fs, struct free_batch *b)
{
	b->count = 0;
	pthread_mutex_lock(&fs->work_lock);
	while (b->count < FREE_BATCH && !cds_list_empty(&fs->orphans)) {
		b->inodes[b->count] = cds_list_first_entry(&fs->orphans, struct inode, orphan_link);
		cds_list_del(&b->inodes[b->count++]->orphan_link);
	}
	pthread_mutex_unlock(&fs->work_lock);
	qsort(b->inodes, b->count, sizeof(b->inodes[0]), inode_compare);
	return b->count != 0;
}

/* As many of them as fit. One that takes more than a step, or cannot be freed, is left to orphan_finish(). */
static int batch_op(struct op *op, void *arg)
{
	struct free_batch *b = arg;
	unsigned i;

	for (i = 0; i < b->count; i++) {
		int rc = op_hold(op, b->inodes[i]->ino, true, NULL);

		if (rc)
			return rc;
	}
	for (i = 0; i < b->count && txn_has_room(op->tx, UNITS_FOR_ONE); i++) {
		int rc = free_step(op, b->inodes[i]->ino);

		if (rc < 0 && rc != -ESTALE && rc != -EBUSY)
			return rc;
		if (rc == 1)
			break;
	}
	return 0;
}

void orphan_drain_soon(struct fs *fs)
{
	/* The scan after a crash may take long. */
	if (atomic_load(&fs->orphans_scanned))
		orphan_drain(fs);
}

void orphan_drain(struct fs *fs)
{
	struct free_batch b;

	if (fs->opts.readonly)
		return;
	pthread_mutex_lock(&fs->drain_lock);
	if (!atomic_load(&fs->orphans_scanned) && !pool_failed(fs->pool)) {
		orphans_scan(fs);
		atomic_store(&fs->orphans_scanned, true);
	}
	while (batch_take(fs, &b)) {
		int rc = op_run(fs, TXN_FREEING, NULL, batch_op, &b);

		(void)rc; /* whatever it did not do is done, or complained of, one by one */
		for (unsigned i = 0; i < b.count; i++) {
			orphan_finish(fs, b.inodes[i]);
			inode_unpin(fs, b.inodes[i], 1);
		}
	}
	pthread_mutex_unlock(&fs->drain_lock);
}
