/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading files: bytes, where data lies, where extents lie.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fs/clone.h"
#include "fs/data.h"
#include "fs/loss.h"
#include "util/sabotage.h"

/* About a second. */
#define MEMORY_TRIES 100u
#define MEMORY_PAUSE_NS 10000000

struct read_call {
	uint64_t ino, off, size_bytes;
	uint8_t *buf;
	bool pages;          /* the kernel keeps them */
	bool now;            /* nobody is asked for them */
	bool in_place;       /* there is bad memory that cannot be seen to: what can be read where it is */
	uint64_t done_bytes; /* out */
};

/* One piece from pos on: *len bytes are in buf. */
static int read_piece(struct op *op, struct btree *bt, uint64_t pos, uint64_t end, uint8_t *buf,
		      uint64_t *len)
{
	uint64_t blk = blk_of(pos), stop;
	struct extent e;
	int rc = extent_find(bt, blk, &e);

	if (rc && rc != -ENOENT)
		return rc;
	if (rc == -ENOENT || e.file_blk > blk) {
		stop = rc ? end : u64_min(end, e.file_blk << BLOCK_SHIFT);
		*len = stop - pos;
		memset(buf, 0, *len);
		return 0;
	}
	stop = u64_min(end, (e.file_blk + e.count_blk) << BLOCK_SHIFT);
	*len = stop - pos;
	if (e.flags & EXTENT_UNWRITTEN) {
		memset(buf, 0, *len);
		return 0;
	}
	return op_dax(op,
		      dax_load(pool_dax(txn_pool(op->tx)), buf,
			       (e.dev_blk << BLOCK_SHIFT) + (pos - (e.file_blk << BLOCK_SHIFT)), *len, NULL));
}

int data_read(struct op *op, const struct inode_attr *attr, uint64_t off, uint8_t *buf, uint64_t len)
{
	const struct m_inode *record;
	uint64_t pos = off, end = off + len;
	uint64_t lost_off;
	struct btree bt;
	int rc = 0;

	if (attr->data_format == DATA_INLINE) {
		rc = inode_record(op, attr->ino, &record);
		if (!rc)
			memcpy(buf, record->di_data + off, len);
		return rc;
	}
	if (attr->data_format != DATA_EXTENTS) {
		memset(buf, 0, len); /* nothing written yet */
		return 0;
	}
	rc = loss_find(op, attr, off, end, &lost_off);
	if (!rc && lost_off < end)
		rc = -EIO;
	inode_data_tree(op, attr->ino, NODE_EXTENT, &bt);
	while (!rc && pos < end) {
		uint64_t piece = 0;

		rc = read_piece(op, &bt, pos, end, buf + (pos - off), &piece);
		pos += piece;
	}
	return rc;
}

int data_is_zero(struct op *op, uint64_t dev_off, uint64_t len_bytes, bool *zero)
{
	uint8_t bytes[BLOCK_SIZE];
	int rc = dax_load(pool_dax(txn_pool(op->tx)), bytes, dev_off, len_bytes, NULL);

	rc = op_dax(op, rc);
	*zero = true;
	for (uint64_t i = 0; !rc && i < len_bytes; i++)
		*zero &= bytes[i] == 0;
	return rc;
}

/* In the block of pos, of which not all can be read: *len bytes up to the first line that cannot. */
static int lines_read(struct op *op, struct btree *bt, uint64_t pos, uint64_t end, uint8_t *buf,
		      uint64_t *len)
{
	uint64_t in_blk = pos & (BLOCK_SIZE - 1), good = 0, bad_lines;
	uint8_t bytes[BLOCK_SIZE];
	struct extent e;
	int rc = extent_find(bt, blk_of(pos), &e);

	*len = 0;
	if (rc)
		return rc;
	if (dax_salvage(pool_dax(op->fs->pool), (e.dev_blk + (blk_of(pos) - e.file_blk)) << BLOCK_SHIFT,
			bytes, &bad_lines) != 0)
		return 0;
	while (pos + good < end && !(bad_lines >> (in_blk + good) / LINE_SIZE & 1))
		good++;
	memcpy(buf, bytes + in_blk, good);
	*len = good;
	return 0;
}

/* As data_read() of extents, block by block and up to the first byte in bad memory: *len. */
static int read_in_place(struct op *op, uint64_t ino, uint64_t off, uint8_t *buf, uint64_t *len)
{
	uint64_t pos = off, end = off + *len, stop = off;
	struct btree bt;
	int rc = 0;

	inode_data_tree(op, ino, NODE_EXTENT, &bt);
	while (!rc && pos == stop && pos < end) {
		uint64_t piece = 0;

		stop = u64_min(end, (blk_of(pos) + 1) << BLOCK_SHIFT);
		rc = read_piece(op, &bt, pos, stop, buf + (pos - off), &piece);
		if (rc == -EHWPOISON || rc == -EIO) {
			op->bad_data = false;
			rc = lines_read(op, &bt, pos, stop, buf + (pos - off), &piece);
		}
		pos += rc ? 0 : piece;
	}
	*len = pos - off;
	return rc;
}

static int read_once(struct op *op, void *arg)
{
	struct read_call *r = arg;
	struct inode_attr attr;
	struct inode *inode;
	uint64_t len, lost_off, want;
	int rc = op_inode(op, r->ino, false, &inode);

	if (!rc)
		rc = inode_get(op, r->ino, &attr);
	if (rc)
		return rc;
	if (!S_ISREG(attr.mode))
		return S_ISDIR(attr.mode) ? -EISDIR : -EINVAL;
	r->done_bytes = 0;
	if (r->pages) {
		rc = op_lend(op, inode, blk_of(r->off), blk_up(r->off + r->size_bytes));
		if (rc)
			return rc;
	}
	if (r->pages && atomic_load(&inode->write_opens) > 0)
		atomic_fetch_add(&inode->page_reads, 1);
	if (r->off >= attr.size)
		return 0;
	len = u64_min(r->size_bytes, attr.size - r->off);
	rc = loss_find(op, &attr, r->off, r->off + len, &lost_off);
	/* A short read of a page would be its end of the file. */
	if (!rc && lost_off < r->off + len && (r->pages || lost_off == r->off))
		rc = -EIO;
	if (rc)
		return rc;
	want = len = lost_off - r->off;
	if (r->in_place && attr.data_format == DATA_EXTENTS)
		rc = read_in_place(op, r->ino, r->off, r->buf, &len);
	else
		rc = data_read(op, &attr, r->off, r->buf, len);
	if (!rc && len < want) {
		atomic_store(&inode->unreadable, true);
		rc = r->pages || len == 0 ? -EIO : 0;
	}
	if (rc)
		return rc;
	r->done_bytes = len;
	atime_note(op, inode, &attr);
	return 0;
}

static ssize_t read_run(struct fs *fs, struct read_call *r)
{
	int (*const run)(struct fs *, enum txn_mode, const struct fs_cred *, op_fn, void *) =
		r->now ? op_run_now : op_run;
	int rc = run(fs, TXN_READ, NULL, read_once, r);

	if (rc == -EIO) {
		r->in_place = true;
		rc = run(fs, TXN_READ, NULL, read_once, r);
	}
	return rc ? rc : (ssize_t)r->done_bytes;
}

/* A page that cannot be read ends whoever has it mapped (SIGBUS). Memory that is wanting just now, mostly that to ask holders with, may be there in a moment. */
static ssize_t read_patiently(struct fs *fs, struct read_call *r)
{
	const struct timespec pause = { .tv_nsec = MEMORY_PAUSE_NS };
	ssize_t n = read_run(fs, r);

	for (unsigned i = 0; n == -ENOMEM && i < MEMORY_TRIES && !sabotage_point("page-memory"); i++) {
		nanosleep(&pause, NULL);
		n = read_run(fs, r);
	}
	return n;
}

ssize_t fs_read(struct fs *fs, uint64_t ino, void *buf, size_t size_bytes, uint64_t off)
{
	struct read_call r = { .ino = ino, .off = off, .size_bytes = size_bytes, .buf = buf };

	return read_run(fs, &r);
}

ssize_t fs_read_pages(struct fs *fs, uint64_t ino, void *buf, size_t size_bytes, uint64_t off)
{
	struct read_call r = { .ino = ino, .off = off, .size_bytes = size_bytes, .buf = buf, .pages = true };

	return read_patiently(fs, &r);
}

ssize_t fs_read_pages_now(struct fs *fs, uint64_t ino, void *buf, size_t size_bytes, uint64_t off)
{
	struct read_call r = {
		.ino = ino, .off = off, .size_bytes = size_bytes, .buf = buf, .pages = true, .now = true
	};

	return read_run(fs, &r);
}

uint64_t fs_page_reads(struct fs *fs, uint64_t ino)
{
	struct inode *inode = inode_pin_known(fs, ino);
	uint64_t count = inode ? atomic_load(&inode->page_reads) : 0;

	if (inode)
		inode_unpin(fs, inode, 1);
	return count;
}

struct seek_call {
	uint64_t ino, off;
	int whence;
	uint64_t found; /* out */
};

/* The next data (written extent) or hole from off on, within size. */
static int seek_extents(struct op *op, const struct inode_attr *attr, struct seek_call *s)
{
	uint64_t pos = s->off;
	struct btree bt;

	inode_data_tree(op, attr->ino, NODE_EXTENT, &bt);
	while (pos < attr->size) {
		struct extent e;
		int rc = attr->data_format == DATA_EXTENTS ? extent_find(&bt, blk_of(pos), &e) : -ENOENT;
		bool hole;

		if (rc && rc != -ENOENT)
			return rc;
		hole = rc == -ENOENT || e.file_blk > blk_of(pos) || (e.flags & EXTENT_UNWRITTEN);
		if (hole == (s->whence == SEEK_HOLE)) {
			s->found = pos;
			return 0;
		}
		if (rc == -ENOENT)
			break;
		if (e.file_blk > blk_of(pos))
			pos = e.file_blk << BLOCK_SHIFT;
		else
			pos = (e.file_blk + e.count_blk) << BLOCK_SHIFT;
	}
	if (s->whence == SEEK_DATA)
		return -ENXIO;
	s->found = attr->size;
	return 0;
}

static int seek_once(struct op *op, void *arg)
{
	struct seek_call *s = arg;
	struct inode_attr attr;
	struct inode *inode;
	int rc = op_inode(op, s->ino, false, &inode);

	if (!rc)
		rc = inode_get(op, s->ino, &attr);
	if (rc)
		return rc;
	if (s->whence != SEEK_DATA && s->whence != SEEK_HOLE)
		return -EINVAL;
	if (s->off >= attr.size)
		return -ENXIO;
	if (attr.data_format == DATA_INLINE) {
		s->found = s->whence == SEEK_DATA ? s->off : attr.size;
		return 0;
	}
	return seek_extents(op, &attr, s);
}

int fs_seek(struct fs *fs, uint64_t ino, uint64_t off, int whence, uint64_t *found)
{
	struct seek_call s = { .ino = ino, .off = off, .whence = whence };
	int rc = op_run(fs, TXN_READ, NULL, seek_once, &s);

	if (!rc)
		*found = s.found;
	return rc;
}

struct map_call {
	uint64_t ino, off;
	struct fs_extent *extents;
	unsigned max, count;
	bool files; /* of a block in bad memory that stays: how many files have it */
};

/* Owners from blk on that are no files. */
struct specials {
	uint64_t blk, end_blk; /* of blk, and as far as they are the same */
	uint64_t count;
	bool bad;
};

static int special_note(void *arg, const struct rmap *rmap)
{
	struct specials *s = arg;

	if (rmap->start_blk >= s->end_blk)
		return 1;
	if (!(rmap->owner & OWNER_SPECIAL))
		return 0;
	if (rmap->start_blk > s->blk) {
		s->end_blk = rmap->start_blk;
		return 1;
	}
	s->end_blk = u64_min(s->end_blk, rmap->start_blk + rmap->count_blk);
	s->count++;
	s->bad |= rmap->owner == OWNER_BAD;
	return 0;
}

/* Whoever stores has to know of OWNER_BAD as of any other who shares the block; whoever looks at a file is told of files. */
static int map_files(struct op *op, struct fs_extent *e, uint64_t *refs)
{
	struct specials s = { .blk = e->dev_off >> BLOCK_SHIFT };
	int rc;

	s.end_blk = s.blk + (e->len >> BLOCK_SHIFT);
	rc = space_owners(op->tx, s.blk, s.end_blk - s.blk, special_note, &s);
	if (rc < 0)
		return rc;
	e->len = (s.end_blk - s.blk) << BLOCK_SHIFT;
	e->flags |= s.bad ? FS_EXTENT_BAD : 0;
	*refs = u64_max(*refs - u64_min(s.count, *refs), 1);
	if (*refs == 1)
		e->flags &= ~FS_EXTENT_SHARED;
	return 0;
}

static int map_extents(struct op *op, const struct inode_attr *attr, struct map_call *m)
{
	uint64_t blk = blk_of(m->off);
	struct btree bt;

	inode_data_tree(op, attr->ino, NODE_EXTENT, &bt);
	while (m->count < m->max) {
		struct fs_extent *out = &m->extents[m->count];
		uint64_t refs = 1, same_blk;
		struct extent e;
		int rc = extent_find(&bt, blk, &e);

		if (rc == -ENOENT) {
			if (m->count > 0)
				out[-1].flags |= FS_EXTENT_LAST;
			return 0;
		}
		same_blk = e.count_blk;
		if (!rc && (attr->flags & INODE_SHARED) && !(e.flags & EXTENT_UNWRITTEN))
			rc = space_refs(op->tx, e.dev_blk, e.count_blk, &refs, &same_blk);
		if (rc)
			return rc;
		*out = (struct fs_extent){
			.file_off = e.file_blk << BLOCK_SHIFT,
			.dev_off = e.dev_blk << BLOCK_SHIFT,
			.len = same_blk << BLOCK_SHIFT,
			.flags = (e.flags & EXTENT_UNWRITTEN ? FS_EXTENT_UNWRITTEN : 0) |
				 (refs > 1 ? FS_EXTENT_SHARED : 0),
		};
		if (refs > 1 && m->files && atomic_load(&op->fs->bad_in_use))
			rc = map_files(op, out, &refs);
		if (rc)
			return rc;
		out->owners = (uint32_t)u64_min(refs, UINT32_MAX);
		m->count++;
		blk = e.file_blk + (out->len >> BLOCK_SHIFT);
	}
	return 0;
}

static int map_inline(struct op *op, const struct inode_attr *attr, struct map_call *m)
{
	uint64_t dev_off;
	int rc = pool_place(txn_pool(op->tx), inode_laddr(attr->ino), 0, &dev_off);

	if (rc || m->off >= attr->size || m->max == 0)
		return rc;
	m->extents[m->count++] = (struct fs_extent){
		.dev_off = dev_off + offsetof(struct m_inode, di_data),
		.len = attr->size,
		.flags = FS_EXTENT_INLINE | FS_EXTENT_LAST,
		.owners = 1,
	};
	return 0;
}

static int map_once(struct op *op, void *arg)
{
	struct map_call *m = arg;
	struct inode_attr attr;
	struct inode *inode;
	int rc = op_inode(op, m->ino, false, &inode);

	m->count = 0;
	if (!rc)
		rc = inode_get(op, m->ino, &attr);
	if (rc)
		return rc;
	if (attr.data_format == DATA_INLINE)
		return map_inline(op, &attr, m);
	return attr.data_format == DATA_EXTENTS ? map_extents(op, &attr, m) : 0;
}

static int map_run(struct fs *fs, struct map_call *m)
{
	int rc = op_run(fs, TXN_READ, NULL, map_once, m);

	return rc ? rc : (int)m->count;
}

int fs_map(struct fs *fs, uint64_t ino, uint64_t off, struct fs_extent *extents, unsigned max)
{
	struct map_call m = { .ino = ino, .off = off, .extents = extents, .max = max };

	return map_run(fs, &m);
}

int fs_map_files(struct fs *fs, uint64_t ino, uint64_t off, struct fs_extent *extents, unsigned max)
{
	struct map_call m = { .ino = ino, .off = off, .extents = extents, .max = max, .files = true };

	return map_run(fs, &m);
}
