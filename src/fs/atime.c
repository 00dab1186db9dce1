/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Access times: decided at each read by the mount's rule, kept in the DRAM inode and written in batches. A crash may lose them.
 *
 * relatime: only when the old one is not newer than mtime and ctime, or is a day old.
 */
#include <errno.h>
#include <stdlib.h>

#include "fs/core.h"

#define NS_PER_S 1000000000ll
#define RELATIME_S (24 * 3600)
#define BATCH 32u

static int64_t time_ns(const struct inode_time *t)
{
	return t->s * NS_PER_S + t->ns;
}

static struct inode_time ns_time(int64_t ns)
{
	int64_t s = ns / NS_PER_S - (ns % NS_PER_S < 0);

	return (struct inode_time){ s, (uint32_t)(ns - s * NS_PER_S) };
}

void inode_show(const struct inode *inode, struct inode_attr *attr)
{
	int64_t noted_ns = atomic_load_explicit(&inode->atime_ns, memory_order_relaxed);

	if (noted_ns)
		attr->atime = ns_time(noted_ns);
	if (atomic_load_explicit(&inode->unreadable, memory_order_relaxed))
		attr->flags |= INODE_LOST;
}

static bool time_le(const struct inode_time *a, const struct inode_time *b)
{
	return a->s != b->s ? a->s < b->s : a->ns <= b->ns;
}

static bool is_due(const struct op *op, const struct inode_attr *attr)
{
	if (op->fs->opts.strictatime)
		return true;
	return time_le(&attr->atime, &attr->mtime) || time_le(&attr->atime, &attr->ctime) ||
	       op->now.s - attr->atime.s >= RELATIME_S;
}

void atime_note(struct op *op, struct inode *inode, const struct inode_attr *attr)
{
	struct fs *fs = op->fs;
	struct inode_attr seen = *attr;

	if (fs->opts.noatime || fs->opts.readonly || attr->flags & INODE_NOATIME)
		return;
	inode_show(inode, &seen);
	if (!is_due(op, &seen))
		return;
	atomic_store(&inode->atime_ns, time_ns(&op->now));
	pthread_mutex_lock(&fs->work_lock);
	if (!inode->atime_queued) {
		inode->atime_queued = true;
		atomic_fetch_add(&inode->pins, 1);
		cds_list_add_tail(&inode->atime_link, &fs->atimes);
	}
	pthread_mutex_unlock(&fs->work_lock);
}

struct flush_arg {
	struct inode *inodes[BATCH];
	int64_t written_ns[BATCH];
	unsigned count;
};

static int flush_op(struct op *op, void *arg)
{
	struct flush_arg *a = arg;

	for (unsigned i = 0; i < a->count; i++) {
		struct inode_attr attr;
		int rc = op_inode(op, a->inodes[i]->ino, true, NULL);

		a->written_ns[i] = 0;
		if (rc == -ESTALE)
			continue;
		if (!rc)
			rc = inode_get(op, a->inodes[i]->ino, &attr);
		if (rc)
			return rc;
		a->written_ns[i] = atomic_load(&a->inodes[i]->atime_ns);
		if (a->written_ns[i] == 0 || attr.nlink == 0)
			continue;
		attr.atime = ns_time(a->written_ns[i]);
		rc = inode_put(op, &attr);
		if (rc)
			return rc;
	}
	return 0;
}

static bool flush_take(struct fs *fs, struct flush_arg *a)
{
	a->count = 0;
	pthread_mutex_lock(&fs->work_lock);
	while (a->count < BATCH && !cds_list_empty(&fs->atimes)) {
		struct inode *inode = cds_list_first_entry(&fs->atimes, struct inode, atime_link);

		cds_list_del(&inode->atime_link);
		inode->atime_queued = false;
		a->inodes[a->count++] = inode;
	}
	pthread_mutex_unlock(&fs->work_lock);
	/* In lock order. */
	qsort(a->inodes, a->count, sizeof(a->inodes[0]), inode_compare);
	return a->count != 0;
}

void atime_flush(struct fs *fs)
{
	struct flush_arg a;

	while (flush_take(fs, &a)) {
		int rc = op_run(fs, TXN_WRITE, NULL, flush_op, &a);

		for (unsigned i = 0; i < a.count; i++) {
			/* Noted anew since: that one is queued again. */
			if (!rc)
				atomic_compare_exchange_strong(&a.inodes[i]->atime_ns, &a.written_ns[i], 0);
			inode_unpin(fs, a.inodes[i], 1);
		}
	}
}
