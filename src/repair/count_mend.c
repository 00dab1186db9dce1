/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inodes by themselves: numbers in the record that follow from the trees, orphan records, and records of groups about inodes.
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/data.h"
#include "repair/mend.h"

/* ---- counting ---- */

struct counts {
	uint64_t entries, subdirs, parents, blocks;
	uint64_t end_blk; /* of the last extent, in the file */
	bool any_unwritten;
};

static void count_rec(struct counts *n, enum node_kind kind, const void *rec)
{
	struct extent e;

	if (kind == NODE_EXTENT) {
		extent_decode(&e, rec);
		n->blocks += e.count_blk;
		n->end_blk = e.file_blk + e.count_blk;
		n->any_unwritten |= (e.flags & EXTENT_UNWRITTEN) != 0;
	} else if (kind == NODE_ATTR) {
		n->parents += ((const struct m_attr *)rec)->at_type == ATTR_PARENT;
	} else if (!probe_is_tomb(kind, rec)) {
		n->entries++;
		n->subdirs += ((const struct m_dirent *)rec)->de_type == DT_DIR;
	}
}

static int count_tree(struct btree *bt, struct counts *n)
{
	struct bt_cursor cur;
	int rc;

	for (rc = bt_seek(bt, &cur, &(struct bt_key){ { 0 } }, BT_GE); !rc; rc = bt_next(&cur)) {
		const void *rec;
		size_t size_bytes;

		rc = bt_get(&cur, &rec, &size_bytes);
		if (rc)
			return rc;
		count_rec(n, bt->kind, rec);
	}
	return rc == -ENOENT ? 0 : rc;
}

static int count_all(struct op *op, const struct inode_attr *attr, struct counts *n)
{
	struct btree bt;
	int rc;

	*n = (struct counts){ 0 };
	inode_attr_tree(op, attr->ino, &bt);
	rc = count_tree(&bt, n);
	if (rc || (attr->data_format != DATA_EXTENTS && attr->data_format != DATA_DIR))
		return rc;
	inode_data_tree(op, attr->ino, attr->data_format == DATA_DIR ? NODE_DIR : NODE_EXTENT, &bt);
	return count_tree(&bt, n);
}

/* ---- orphan records ---- */

static int orphan_tree(struct op *op, uint64_t ino, struct btree *bt)
{
	return space_ag_tree(op->tx, inode_agno(op->fs, ino), AG_ORPHANS, bt);
}

/* The record is there if the inode has no links, with its generation; else it is not there. */
static int orphan_settle(struct op *op, const struct inode_attr *attr)
{
	struct m_orphan rec = { le64_of(attr->ino), le64_of(attr->gen) };
	struct btree bt;
	int rc = orphan_tree(op, attr->ino, &bt);

	if (rc)
		return rc;
	if (attr->nlink != 0) {
		rc = bt_delete(&bt, &(struct bt_key){ { attr->ino } });
		return rc == -ENOENT ? 0 : rc;
	}
	rc = bt_update(&bt, &rec, sizeof(rec));
	return rc == -ENOENT ? bt_insert(&bt, &rec, sizeof(rec)) : rc;
}

struct counts_arg {
	uint64_t ino;
	uint32_t flags; /* that the inode has to have */
	bool is_orphan; /* in the tree of orphans, as far as is known */
	bool kill;
	struct inode_attr was, is;
};

static int counts_op(struct op *op, void *arg)
{
	struct counts_arg *a = arg;
	struct counts n;
	struct inode *inode;
	int rc = op_inode(op, a->ino, true, &inode);

	if (!rc)
		rc = inode_get(op, a->ino, &a->was);
	if (!rc)
		rc = count_all(op, &a->was, &n);
	if (rc)
		return rc;
	a->is = a->was;
	a->is.flags |= a->flags | (n.any_unwritten ? INODE_UNWRITTEN : 0);
	a->is.blocks = n.blocks;
	a->is.nlink = (uint32_t)u64_min(n.parents, UINT32_MAX);
	if (S_ISDIR(a->was.mode)) {
		a->is.size = n.entries;
		if (n.parents != 0 || a->ino == INODE_ROOT)
			a->is.nlink = (uint32_t)u64_min(2 + n.subdirs, UINT32_MAX);
	}
	if (a->kill && a->is.nlink != 0)
		return -ENOENT; /* it has a name */
	if (a->is.nlink == a->was.nlink && a->is.size == a->was.size && a->is.blocks == a->was.blocks &&
	    a->is.flags == a->was.flags && a->is_orphan == (a->is.nlink == 0))
		return MEND_NOTHING;
	rc = inode_put(op, &a->is);
	if (!rc)
		rc = orphan_settle(op, &a->is);
	if (!rc)
		inode_on_commit(op, inode, a->is.nlink ? INODE_NAMED : INODE_UNLINKED);
	return rc;
}

int mend_counts(struct mend *m, const struct seen_inode *seen)
{
	struct counts_arg a = {
		.ino = seen->ino,
		.flags = seen->flags & SEEN_TOLD ? INODE_SHARED : 0,
		.is_orphan = seen->flags & SEEN_ORPHAN,
	};
	int rc = mend_run(m, counts_op, &a, "count links of inode", seen->ino);

	if (rc != 1)
		return rc;
	if (a.is.nlink != a.was.nlink)
		repair_told(m->rp, REPAIR_MENDED, "%s: link count %u, was %u", mend_path(m, a.ino),
			    a.is.nlink, a.was.nlink);
	if (a.is.size != a.was.size)
		repair_told(m->rp, REPAIR_MENDED, "%s: %" PRIu64 " entries, was %" PRIu64,
			    mend_path(m, a.ino), a.is.size, a.was.size);
	if (a.is.blocks != a.was.blocks)
		repair_told(m->rp, REPAIR_MENDED, "%s: %" PRIu64 " blocks, was %" PRIu64, mend_path(m, a.ino),
			    a.is.blocks, a.was.blocks);
	if (a.is.flags != a.was.flags)
		repair_told(m->rp, REPAIR_MENDED, "%s: flags 0x%x, was 0x%x", mend_path(m, a.ino), a.is.flags,
			    a.was.flags);
	if (a.is_orphan != (a.is.nlink == 0))
		repair_told(m->rp, REPAIR_MENDED, "inode %" PRIu64 ": %s the tree of orphans", a.ino,
			    a.is.nlink ? "removed from" : "added to");
	return rc;
}

int mend_kill(struct mend *m, uint64_t ino)
{
	struct counts_arg a = { .ino = ino, .kill = true };

	return mend_run(m, counts_op, &a, "give up inode", ino);
}

/* ---- the record ---- */

struct record_arg {
	struct mend *m;
	const struct seen_inode *seen;
	const char *what; /* was mended; NULL: nothing could be */
	bool lost;
};

static size_t text_len(const uint8_t *bytes, size_t max)
{
	const uint8_t *end = memchr(bytes, 0, max);

	return end ? (size_t)(end - bytes) : max;
}

/* A symlink whose length or format is wrong: its target ends with the first zero byte. */
static int symlink_mend(struct op *op, struct inode_attr *attr, struct record_arg *a)
{
	struct dax *dax = pool_dax(op->fs->pool);
	uint8_t target[BLOCK_SIZE];
	struct m_inode *record;
	struct extent e;
	struct btree bt;
	size_t len;
	int rc;

	if (attr->data_format != DATA_EXTENTS) {
		rc = inode_edit(op, attr->ino, &record);
		if (rc)
			return rc;
		len = text_len(record->di_data, INODE_INLINE_MAX);
		attr->data_format = DATA_INLINE;
	} else {
		struct counts n = { 0 };

		inode_data_tree(op, attr->ino, NODE_EXTENT, &bt);
		rc = count_tree(&bt, &n);
		if (!rc)
			rc = extent_find(&bt, 0, &e);
		if (rc && rc != -ENOENT)
			return rc;
		len = 0;
		if (!rc && n.blocks == 1 && e.file_blk == 0 && !n.any_unwritten &&
		    dax_load(dax, target, e.dev_blk << BLOCK_SHIFT, BLOCK_SIZE, NULL) == 0)
			len = text_len(target, FS_SYMLINK_MAX);
	}
	a->lost = len == 0;
	attr->size = len;
	a->what = "length of its target";
	return 0;
}

static int record_op(struct op *op, void *arg)
{
	struct record_arg *a = arg;
	struct m_inode *record;
	struct inode_attr attr;
	struct counts n;
	size_t used;
	int rc = op_inode(op, a->seen->ino, true, NULL);

	a->what = NULL;
	a->lost = false;
	if (!rc)
		rc = inode_get(op, a->seen->ino, &attr);
	if (!rc)
		rc = count_all(op, &attr, &n);
	if (!rc && S_ISLNK(attr.mode) && a->seen->mend & MEND_SYMLINK)
		rc = symlink_mend(op, &attr, a);
	if (rc)
		return rc;
	if (a->lost)
		return MEND_NOTHING;
	if (attr.gen == 0 || attr.gen >= txn_seq(op->tx)) {
		attr.gen = txn_seq(op->tx);
		a->what = "generation";
	}
	if (n.any_unwritten && !(attr.flags & INODE_UNWRITTEN)) {
		attr.flags |= INODE_UNWRITTEN;
		a->what = "flags";
	}
	if (S_ISREG(attr.mode) && attr.size > FS_SIZE_MAX) {
		attr.size = u64_min(n.end_blk << BLOCK_SHIFT, FS_SIZE_MAX);
		a->what = "size: that of its last block now";
	}
	rc = inode_edit(op, attr.ino, &record);
	if (rc)
		return rc;
	used = attr.data_format == DATA_INLINE ? attr.size : 0;
	if (attr.data_format == DATA_INLINE || attr.data_format == DATA_NONE)
		memset(record->di_data + used, 0, INODE_INLINE_MAX - used);
	inode_attr_encode(record, &attr);
	if (!a->what)
		a->what = "bytes behind the end of its data";
	return 0;
}

/* A symlink that leads nowhere any more goes, with its names. */
static int symlink_lost(struct mend *m, const struct seen_inode *seen)
{
	const struct seen_name *all = m->ck->names.data;

	repair_told(m->rp, REPAIR_LOST, "%s: target of the symlink lost: removed", mend_path(m, seen->ino));
	for (size_t i = 0; i < m->ck->names.count; i++) {
		int rc = all[i].child == seen->ino ? mend_entry_drop(m, &all[i], NULL) : 0;

		if (rc < 0)
			return rc;
	}
	return mend_kill(m, seen->ino);
}

int mend_record(struct mend *m, struct seen_inode *seen)
{
	struct record_arg a = { .m = m, .seen = seen };
	int rc = mend_run(m, record_op, &a, "correct the record of inode", seen->ino);

	if (rc == 0 && a.lost)
		return symlink_lost(m, seen);
	if (rc == 1)
		repair_told(m->rp, REPAIR_MENDED, "%s: %s", mend_path(m, seen->ino), a.what);
	return rc;
}

/* ---- records of groups ---- */

struct group_arg {
	struct mend *m;
	uint32_t agno;
	enum ag_tree which;
	struct bt_key key; /* from this record on; then the one that was changed */
	bool removed;
};

/* What is to become of a record: 0 it stays, 1 it goes, 2 it was changed in *rec. */
static int orphan_judge(struct op *op, const struct group_arg *a, struct m_orphan *rec)
{
	uint64_t ino = le64_get(rec->or_ino);
	struct inode_attr attr;
	int rc = -ESTALE;

	if (inode_agno(op->fs, ino) == a->agno)
		rc = op_inode(op, ino, true, NULL);
	if (!rc)
		rc = inode_get(op, ino, &attr);
	if (rc)
		return rc == -ESTALE ? 1 : rc == -EUCLEAN ? 0 : rc;
	if (attr.nlink != 0)
		return 1;
	if (attr.gen == le64_get(rec->or_gen))
		return 0;
	rec->or_gen = le64_of(attr.gen);
	return 2;
}

static bool range_is_inside(const struct super *super, uint64_t blk, uint64_t count_blk)
{
	return blk < super->size_blk && count_blk <= super->size_blk - blk;
}

static int forward_judge(struct op *op, const struct group_arg *a, const struct m_forward *rec)
{
	const struct super *super = pool_super(op->fs->pool);
	uint64_t old_blk = le64_get(rec->fw_old_blk), count = le32_get(rec->fw_count_blk);

	return !range_is_inside(super, old_blk, count) ||
	       !range_is_inside(super, le64_get(rec->fw_new_blk), count) ||
	       pool_blk_ag(op->fs->pool, old_blk) != a->agno;
}

/* An inode that has lost something knows it; a loss of nobody is none. */
static int loss_judge(struct op *op, const struct m_loss *rec)
{
	struct inode_attr attr;
	int rc = op_inode(op, le64_get(rec->ls_ino), true, NULL);

	if (!rc)
		rc = inode_get(op, le64_get(rec->ls_ino), &attr);
	if (rc)
		return rc == -ESTALE ? 1 : rc == -EUCLEAN ? 0 : rc;
	if (attr.flags & INODE_LOST)
		return 0;
	attr.flags |= INODE_LOST;
	rc = inode_put(op, &attr);
	return rc ? rc : 2;
}

static int judge(struct op *op, const struct group_arg *a, void *rec)
{
	switch (a->which) {
	case AG_ORPHANS:
		return orphan_judge(op, a, rec);
	case AG_FORWARDS:
		return forward_judge(op, a, rec);
	default:
		return loss_judge(op, rec);
	}
}

/* Goes on to the first record that is not right. */
static int group_op(struct op *op, void *arg)
{
	struct group_arg *a = arg;
	uint8_t copy[sizeof(struct m_loss)];
	struct bt_key key = a->key;
	struct bt_cursor cur;
	struct btree bt;
	bool end;
	int rc = space_ag_tree(op->tx, a->agno, a->which, &bt);

	if (!rc)
		rc = bt_seek(&bt, &cur, &key, BT_GE);
	for (; !rc; rc = bt_next(&cur)) {
		const void *rec;
		size_t size_bytes;
		int what;

		rc = bt_get(&cur, &rec, &size_bytes);
		if (rc)
			break;
		memcpy(copy, rec, u64_min(size_bytes, sizeof(copy)));
		what = judge(op, a, copy);
		if (what < 0)
			return what;
		if (what == 0)
			continue;
		a->key = cur.key;
		a->removed = what == 1;
		return what == 1 ? bt_remove(&cur, &end) : bt_update(&bt, copy, size_bytes);
	}
	return rc == -ENOENT ? MEND_NOTHING : rc;
}

static int group_mend(struct mend *m, uint32_t agno, enum ag_tree which, const char *name)
{
	struct group_arg a = { .m = m, .agno = agno, .which = which };
	int rc;

	do {
		rc = mend_run(m, group_op, &a, "correct records of group", agno);
		if (rc == 1)
			repair_told(m->rp, REPAIR_MENDED, "group %u: %s record of %" PRIu64 " %s", agno, name,
				    a.key.w[0], a.removed ? "removed" : "corrected");
	} while (rc == 1);
	return rc;
}

int mend_group_records(struct mend *m)
{
	const uint64_t *found = m->report.by_kind;
	int rc = 0;

	for (uint32_t agno = 0; agno < pool_ag_count(m->fs->pool) && rc >= 0; agno++) {
		if (found[CHECK_ORPHAN_EXTRA])
			rc = group_mend(m, agno, AG_ORPHANS, "orphan");
		if (rc >= 0 && found[CHECK_FORWARD])
			rc = group_mend(m, agno, AG_FORWARDS, "forward");
		if (rc >= 0 && found[CHECK_LOSS])
			rc = group_mend(m, agno, AG_LOSSES, "loss");
	}
	return rc;
}
