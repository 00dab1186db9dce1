/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Many whole-file clones at once: new names in one directory, as many in a transaction as fit.
 *
 * A new file is as its source was: mode, owner, times, attributes, content (shared). Only regular files; the caller checks rights.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/clone.h"
#include "fs/data.h"
#include "fs/names.h"
#include "fs/xattr.h"

/* Units for one small file: inodes, names, trees; attributes and extents look at the room by themselves. */
#define FILE_UNITS (2 * DATA_STEP_UNITS)

struct files_call {
	uint64_t dir;
	struct fs_clone_item *items;
	int64_t before; /* items of the same request that are there already */
	unsigned first, count;
	unsigned limit; /* of items in one transaction */
	unsigned done;  /* out: of items from first on */
	unsigned at;    /* out, also on errors: the item that failed, from first on */
};

/* share: share_now() or share_extents() */
static int copy_content(struct op *op, struct clone_ends *ends,
			int (*share)(struct op *op, struct clone_ends *ends, const struct share_range *range))
{
	struct share_range range = { 0, 0, blk_up(ends->src.size) };
	struct m_inode *to;
	const struct m_inode *from;
	bool ready = true;
	int rc = 0;

	ends->quiet = true; /* the twin keeps its source's times */
	if (ends->src.data_format == DATA_INLINE) {
		rc = inode_record(op, ends->src.ino, &from);
		if (!rc)
			rc = inode_edit(op, ends->dst.ino, &to);
		if (!rc)
			memcpy(to->di_data, from->di_data, INODE_DATA_SIZE);
		return rc;
	}
	if (ends->src.data_format != DATA_EXTENTS || ends->src.blocks == 0)
		return 0;
	rc = tail_ready(op, ends->src_inode, &ends->src, &ready);
	if (rc || range.count_blk == 0)
		return rc;
	if (!ready)
		return -EXDEV; /* the tail has to be copied: the slow way */
	return share(op, ends, &range);
}

/* The new inode without its content: what the source has, but its own number, links and birth. */
static int make_twin(struct op *op, struct clone_ends *ends, bool named)
{
	struct inode_attr twin = ends->src;
	int rc;

	twin.nlink = named;
	twin.blocks = 0;
	twin.flags &= ~(INODE_SHARED | INODE_UNWRITTEN | INODE_LOST); /* unwritten extents become holes */
	rc = inode_new(op, inode_agno(op->fs, ends->src.ino), &twin, &ends->dst_inode);
	if (rc)
		return rc;
	twin.atime = ends->src.atime;
	twin.mtime = ends->src.mtime;
	ends->dst = twin;
	return inode_put(op, &twin);
}

/*
 * The names and the size of the directory are in *dir, which is put by the caller. -EOVERFLOW: it does not fit; all that was edited has
 * to go.
 */
static int clone_short(struct op *op, struct inode_attr *dir, struct fs_clone_item *item,
		       struct clone_ends *ends)
{
	uint64_t next_key = 0;
	bool done = true;
	int rc = make_twin(op, ends, true);

	if (!rc)
		rc = name_add(op, dir, item->name, item->name_len, &ends->dst);
	if (!rc)
		rc = xattr_copy(op, item->src, ends->dst.ino, &next_key, &done);
	if (!rc && !done)
		rc = -EOVERFLOW;
	if (!rc)
		rc = copy_content(op, ends, share_now);
	return rc ? rc : clone_put(op, ends);
}

struct attrs_copying {
	uint64_t from, to, next_key;
};

static int attrs_step(struct op *op, void *arg)
{
	struct attrs_copying *a = arg;
	uint64_t next_key = a->next_key;
	bool done;
	int rc = xattr_copy(op, a->from, a->to, &next_key, &done);

	if (rc || done)
		return rc;
	a->next_key = next_key;
	return 1;
}

struct naming {
	uint64_t dir;
	const struct fs_clone_item *item;
	struct clone_ends *ends;
};

static int name_step(struct op *op, void *arg)
{
	const struct naming *n = arg;
	struct inode_attr dir, twin;
	int rc = inode_get(op, n->dir, &dir);

	if (!rc)
		rc = inode_get(op, n->ends->dst.ino, &twin);
	if (!rc)
		rc = name_add(op, &dir, n->item->name, n->item->name_len, &twin);
	if (!rc)
		rc = orphan_remove(op, twin.ino);
	if (rc)
		return rc;
	inode_on_commit(op, n->ends->dst_inode, INODE_NAMED);
	twin.nlink = 1;
	rc = inode_put(op, &twin);
	return rc ? rc : inode_put(op, &dir);
}

/* A file of many extents or large attributes commits on its way: it is an orphan, which a crash frees, until all of it is there. */
static int clone_long(struct op *op, struct inode_attr *dir, struct fs_clone_item *item,
		      struct clone_ends *ends)
{
	struct naming naming = { dir->ino, item, ends };
	struct attrs_copying attrs = { .from = item->src };
	struct dir_slot slot;
	int rc = dir_find(op, dir->ino, item->name, item->name_len, &slot);

	if (rc != -ENOENT)
		return rc ? rc : -EEXIST;
	rc = make_twin(op, ends, false);
	if (!rc)
		rc = orphan_add(op, &ends->dst);
	if (!rc)
		rc = txn_roll(op->tx);
	attrs.to = ends->dst.ino;
	if (!rc)
		rc = op_chain(op, attrs_step, &attrs);
	if (!rc)
		rc = txn_roll(op->tx);
	if (!rc)
		rc = copy_content(op, ends, share_extents);
	if (!rc)
		rc = clone_put(op, ends);
	if (!rc)
		rc = txn_roll(op->tx);
	if (!rc)
		rc = op_chain(op, name_step, &naming);
	return rc ? rc : inode_get(op, dir->ino, dir);
}

/* *last: nothing more in this transaction. A file of many extents has a transaction of its own; alone = false: it is left for the next one. */
static int clone_item(struct op *op, struct inode_attr *dir, struct fs_clone_item *item, bool alone,
		      bool *last)
{
	struct clone_ends ends = { 0 };
	struct inode_attr src;
	bool fits = true;
	int rc = op_inode(op, item->src, true, &ends.src_inode);

	if (!rc)
		rc = inode_get(op, item->src, &ends.src);
	if (rc)
		return rc;
	if (!S_ISREG(ends.src.mode))
		return S_ISDIR(ends.src.mode) ? -EISDIR : -EINVAL;
	src = ends.src;
	if (ends.src.data_format == DATA_EXTENTS) {
		struct share_range all = { 0, 0, blk_up(ends.src.size) };

		rc = share_ask(op, &ends, &all);
		if (!rc)
			rc = share_fits(op, &ends, &all, &fits);
	}
	*last = !fits;
	if (rc || (!fits && !alone))
		return rc;
	rc = fits ? clone_short(op, dir, item, &ends) : clone_long(op, dir, item, &ends);
	if (rc == -EOVERFLOW && alone) {
		txn_undo(op->tx);
		ends = (struct clone_ends){ .src_inode = ends.src_inode, .src = src };
		*last = true;
		rc = inode_get(op, dir->ino, dir);
		if (!rc)
			rc = clone_long(op, dir, item, &ends);
	}
	if (!rc)
		item->new_ino = ends.dst.ino;
	return rc;
}

static int files_once(struct op *op, void *arg)
{
	struct files_call *c = arg;
	struct inode_attr dir;
	unsigned done = 0;
	bool last = false;
	int rc = op_inode(op, c->dir, true, NULL);

	if (!rc)
		rc = inode_get(op, c->dir, &dir);
	if (!rc)
		rc = dir_may_add(&dir);
	while (!rc && !last && done < c->limit && c->first + done < c->count &&
	       (done == 0 || txn_has_room(op->tx, FILE_UNITS))) {
		struct fs_clone_item *item = &c->items[c->first + done];

		c->at = done;
		rc = name_check_new(item->name, item->name_len);
		if (!rc)
			rc = clone_item(op, &dir, item, done == 0, &last);
		done += rc == 0 && (!last || done == 0);
	}
	if (!rc)
		rc = inode_put(op, &dir);
	op->answer = c->before + c->first + done; /* that are there */
	if (!rc || rc == -EOVERFLOW)
		c->done = done; /* never 0 with -EOVERFLOW: alone there is another way */
	return rc;
}

int fs_clone_files(struct fs *fs, const struct fs_cred *cred, uint64_t dir, struct fs_clone_item *items,
		   unsigned count, unsigned *done)
{
	struct files_call c = { .dir = dir, .items = items, .count = count, .limit = count };
	int rc = 0, failed = 0;

	c.before = cred && cred->receipt ? cred->receipt->value : 0;
	while (c.first < c.count) {
		c.done = 0;
		c.at = 0;
		rc = op_run(fs, TXN_WRITE, cred, files_once, &c);
		if (rc == -EOVERFLOW) {
			c.limit = c.done; /* those before it fit */
			continue;
		}
		if (rc < 0 && c.at > 0 && !failed) {
			failed = rc;
			c.count = c.first + c.at; /* those before it, which went down with it, once more */
			continue;
		}
		if (rc)
			break;
		c.first += c.done;
		c.limit = count;
	}
	*done = c.first;
	return rc ? rc : failed;
}
