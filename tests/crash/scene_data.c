/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * States of a file, and all that changes its data.
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>

#include "crash/scenes.h"

#define KIB 1024u
#define BLK 4096u

/* ---- states ---- */

static void state_empty(struct scene *s)
{
	(void)s;
}

static void state_inline(struct scene *s)
{
	scene_fill(s, s->file, 0, 100, 1);
}

static void state_tail(struct scene *s)
{
	scene_fill(s, s->file, 0, 3000, 1);
}

static void state_blocks(struct scene *s)
{
	scene_fill(s, s->file, 0, 20000, 1);
}

static int falloc(struct scene *s, uint64_t ino, int mode, uint64_t off, uint64_t len)
{
	struct scene_model *m = model_begin(s);
	int rc = fs_fallocate(s->t->fs, &testfs_root, ino, mode, off, len);

	if (!rc && (ino == s->file || ino == s->other))
		model_falloc(m, ino, mode, off, len);
	model_end(s, m, rc == 0);
	return rc;
}

static void state_unwritten(struct scene *s)
{
	(void)falloc(s, s->file, 0, 0, 64 * KIB);
}

static void state_reserved(struct scene *s)
{
	scene_fill(s, s->file, 0, 3000, 1);
	(void)falloc(s, s->file, FALLOC_FL_KEEP_SIZE, 0, 64 * KIB);
}

static void state_sparse(struct scene *s)
{
	scene_fill(s, s->file, 0, 5000, 1);
	scene_fill(s, s->file, 60000, 5000, 2);
}

static int64_t share(struct scene *s, uint64_t src, uint64_t src_off, uint64_t dst, uint64_t dst_off,
		     uint64_t len)
{
	struct scene_model *m = model_begin(s);
	int64_t done = fs_clone(s->t->fs, &testfs_root, src, src_off, dst, dst_off, len, 0, NULL);

	if (done > 0)
		model_share(m, src, src_off, dst, dst_off, (uint64_t)done);
	model_end(s, m, done >= 0);
	return done;
}

static void state_shared(struct scene *s)
{
	scene_fill(s, s->other, 0, 20000, 3);
	(void)share(s, s->other, 0, s->file, 0, 20000);
}

static void state_part_shared(struct scene *s)
{
	scene_fill(s, s->file, 0, 20000, 1);
	(void)share(s, s->file, BLK, s->other, 0, 2 * BLK);
}

/* Twice in the same file: who stores into both places must not take the second for his alone. */
static void state_shared_inside(struct scene *s)
{
	scene_fill(s, s->file, 0, 8 * BLK, 1);
	(void)share(s, s->file, 0, s->file, 16 * BLK, 8 * BLK);
}

static void state_setuid(struct scene *s)
{
	struct fs_set set = { .what = FS_SET_MODE, .mode = 06755 };
	struct inode_attr attr;

	scene_fill(s, s->file, 0, 20000, 1);
	(void)!fs_setattr(s->t->fs, &testfs_root, s->file, &set, &attr);
}

static void fill_up(struct scene *s, uint64_t least)
{
	uint64_t filler = scene_make(s, INODE_ROOT, "filler", S_IFREG | 0600), off = 0;
	struct fs_statfs st;

	if (fs_statfs(s->t->fs, &st) != 0)
		return;
	for (uint64_t len = u64_align_up(st.free_blk * BLK, 1u << 20); len >= least; len /= 2) {
		if (fs_fallocate(s->t->fs, &testfs_root, filler, FALLOC_FL_KEEP_SIZE, off, len) == 0)
			off += len;
	}
}

/* No space is left but a few blocks. */
static void state_full(struct scene *s)
{
	scene_fill(s, s->file, 0, 20000, 1);
	fill_up(s, 4 * BLK);
}

/* None at all: what is freed is what the next one gets. */
static void state_brim(struct scene *s)
{
	scene_fill(s, s->other, 0, 9001, 3);
	scene_fill(s, s->file, 0, 2 * BLK, 1);
	scene_fill(s, s->file, 6 * BLK, 9000, 2);
	fill_up(s, BLK);
}

/* A size without a block. */
static void state_hole(struct scene *s)
{
	struct fs_set set = { .what = FS_SET_SIZE, .size = 30000 };
	struct inode_attr attr;

	(void)!fs_setattr(s->t->fs, &testfs_root, s->file, &set, &attr);
}

/* Behind the end lie bytes that must not come back. */
static void state_cut(struct scene *s)
{
	struct fs_set set = { .what = FS_SET_SIZE, .size = 2001 };
	struct inode_attr attr;

	scene_fill(s, s->file, 0, 20000, 1);
	(void)!fs_setattr(s->t->fs, &testfs_root, s->file, &set, &attr);
}

static void state_shredded(struct scene *s)
{
	for (unsigned i = 0; i < 30; i++)
		scene_fill(s, s->file, i * 2 * BLK, i % 3 ? BLK : 1000, (uint8_t)i);
}

/* One extent more. */
static void add_extent(struct scene *s, uint64_t ino, unsigned i)
{
	scene_fill(s, ino, (uint64_t)i * 2 * BLK, 500, (uint8_t)i);
}

/* The next extent does not fit into the inode any more. */
static void state_root_full(struct scene *s)
{
	for (unsigned i = scene_full(s, add_extent, S_IFREG | 0600, 0); i-- > 0;)
		add_extent(s, s->file, i);
}

/* The next extent splits the leaf. */
static void state_leaf_full(struct scene *s)
{
	for (unsigned i = scene_full(s, add_extent, S_IFREG | 0600, 1); i-- > 0;)
		add_extent(s, s->file, i);
}

const struct file_state file_states[] = {
	{ "empty", state_empty, false },
	{ "inline", state_inline, false },
	{ "tail", state_tail, false },
	{ "blocks", state_blocks, false },
	{ "unwritten", state_unwritten, false },
	{ "reserved", state_reserved, false },
	{ "sparse", state_sparse, false },
	{ "shared", state_shared, true },
	{ "part-shared", state_part_shared, false },
	{ "shared-inside", state_shared_inside, true },
	{ "setuid", state_setuid, false },
	{ "hole", state_hole, false },
	{ "cut", state_cut, false },
	{ "shredded", state_shredded, false },
	{ "root-full", state_root_full, false },
	{ "leaf-full", state_leaf_full, false },
	{ "full", state_full, false },
	{ "brim", state_brim, false },
};
const unsigned file_state_count = ARRAY_SIZE(file_states);

/* ---- operations ---- */

static int64_t store(struct scene *s, uint64_t off, uint64_t len, unsigned flags)
{
	struct scene_model *m = model_begin(s);
	const uint8_t *bytes = scene_bytes(len, 99);
	int64_t done = fs_write(s->t->fs, &testfs_root, s->file, bytes, len, off, flags);

	if (flags & FS_WRITE_APPEND)
		off = model_size_of(m, s->file);
	if (done > 0)
		model_write(m, s->file, off, bytes, (uint64_t)done);
	model_end(s, m, done >= 0);
	return done;
}

static int64_t write_small(struct scene *s)
{
	return store(s, 50, 10, 0);
}

static int64_t write_unaligned(struct scene *s)
{
	return store(s, 3001, 5003, 0);
}

static int64_t write_block(struct scene *s)
{
	return store(s, BLK, BLK, 0);
}

static int64_t write_far(struct scene *s)
{
	return store(s, 100000, 700, 0);
}

static int64_t write_large(struct scene *s)
{
	return store(s, 0, 200000, 0);
}

static int64_t append_small(struct scene *s)
{
	return store(s, 0, 33, FS_WRITE_APPEND);
}

static int64_t append_large(struct scene *s)
{
	return store(s, 0, 30000, FS_WRITE_APPEND);
}

static int64_t set_size(struct scene *s, uint64_t size)
{
	struct fs_set set = { .what = FS_SET_SIZE, .size = size };
	struct scene_model *m = model_begin(s);
	struct inode_attr attr;
	int rc = fs_setattr(s->t->fs, &testfs_root, s->file, &set, &attr);

	if (!rc)
		model_size(m, s->file, size);
	model_end(s, m, rc == 0);
	return rc;
}

static int64_t truncate_zero(struct scene *s)
{
	return set_size(s, 0);
}

static int64_t truncate_small(struct scene *s)
{
	return set_size(s, 50);
}

static int64_t truncate_mid(struct scene *s)
{
	return set_size(s, 5000);
}

static int64_t truncate_up(struct scene *s)
{
	return set_size(s, 300000);
}

static int64_t open_truncate(struct scene *s)
{
	int rc = fs_opened(s->t->fs, s->file, FS_OPEN_WRITE | FS_OPEN_TRUNCATE, &testfs_root);

	if (!rc)
		fs_closed(s->t->fs, s->file, FS_OPEN_WRITE);
	return rc;
}

static int64_t falloc_plain(struct scene *s)
{
	return falloc(s, s->file, 0, 1000, 30000);
}

static int64_t falloc_keep(struct scene *s)
{
	return falloc(s, s->file, FALLOC_FL_KEEP_SIZE, 0, 50000);
}

static int64_t punch_unaligned(struct scene *s)
{
	return falloc(s, s->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1001, 9000);
}

static int64_t punch_block(struct scene *s)
{
	return falloc(s, s->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, BLK, BLK);
}

static int64_t punch_large(struct scene *s)
{
	return falloc(s, s->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2000, 60u << 20);
}

static int64_t zero_unaligned(struct scene *s)
{
	return falloc(s, s->file, FALLOC_FL_ZERO_RANGE, 1001, 9000);
}

static int64_t zero_keep(struct scene *s)
{
	return falloc(s, s->file, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, 70000);
}

static int64_t collapse(struct scene *s)
{
	return falloc(s, s->file, FALLOC_FL_COLLAPSE_RANGE, BLK, BLK);
}

static int64_t insert(struct scene *s)
{
	return falloc(s, s->file, FALLOC_FL_INSERT_RANGE, BLK, 2 * BLK);
}

static int64_t falloc_unshare(struct scene *s)
{
	return falloc(s, s->file, FALLOC_FL_UNSHARE_RANGE, 0, 20000);
}

static int64_t clone_whole(struct scene *s)
{
	return share(s, s->file, 0, s->other, 0, UINT32_MAX);
}

static int64_t clone_unaligned(struct scene *s)
{
	return share(s, s->file, 100, s->other, 5100, 9000);
}

static int64_t clone_onto(struct scene *s)
{
	return share(s, s->other, 0, s->file, 0, UINT32_MAX);
}

static int64_t clone_inside(struct scene *s)
{
	return share(s, s->file, 0, s->file, 16 * BLK, 8 * BLK);
}

static int64_t dedupe(struct scene *s)
{
	struct inode_attr a;
	bool same = false;
	int rc = fs_getattr(s->t->fs, s->file, &a);

	if (!rc)
		rc = fs_dedupe(s->t->fs, s->file, 0, s->other, 0, a.size, &same);
	return rc ? rc : same;
}

/* "o" gets the same bytes as "f", in blocks of its own. */
static void make_twin(struct scene *s)
{
	static uint8_t bytes[16u << 20];
	ssize_t got = fs_read(s->t->fs, s->file, bytes, sizeof(bytes), 0);

	if (got > 0)
		(void)!fs_write(s->t->fs, &testfs_root, s->other, bytes, (size_t)got, 0, 0);
}

static int64_t write_killpriv(struct scene *s)
{
	return store(s, 10, 10, FS_WRITE_KILLPRIV);
}

static int64_t unlink_closed(struct scene *s)
{
	int rc = testfs_unlink(s->t, INODE_ROOT, "f");

	fs_work(s->t->fs);
	return rc;
}

static int64_t rename_over(struct scene *s)
{
	return testfs_rename(s->t, INODE_ROOT, "o", INODE_ROOT, "f", 0);
}

static int64_t clone_files(struct scene *s)
{
	struct fs_clone_item items[3] = { { s->file, "c1", 2, 0 },
					  { s->other, "c2", 2, 0 },
					  { s->file, "c3", 2, 0 } };
	unsigned done;

	return fs_clone_files(s->t->fs, &testfs_root, INODE_ROOT, items, 1, &done);
}

/* ---- what is overwritten in place ---- */

static void mix_write_small(struct scene *s, struct snapshot_mix *mix)
{
	*mix = (struct snapshot_mix){ s->file, 50, 60, false };
}

static void mix_write_unaligned(struct scene *s, struct snapshot_mix *mix)
{
	*mix = (struct snapshot_mix){ s->file, 3001, 8004, false };
}

static void mix_write_block(struct scene *s, struct snapshot_mix *mix)
{
	*mix = (struct snapshot_mix){ s->file, BLK, 2 * BLK, false };
}

static void mix_write_far(struct scene *s, struct snapshot_mix *mix)
{
	*mix = (struct snapshot_mix){ s->file, 100000, 100700, false };
}

static void mix_write_large(struct scene *s, struct snapshot_mix *mix)
{
	*mix = (struct snapshot_mix){ s->file, 0, 200000, false };
}

static void mix_punch_unaligned(struct scene *s, struct snapshot_mix *mix)
{
	*mix = (struct snapshot_mix){ s->file, 1001, 10001, false };
}

static void mix_punch_block(struct scene *s, struct snapshot_mix *mix)
{
	*mix = (struct snapshot_mix){ s->file, BLK, 2 * BLK, false };
}

static void mix_punch_large(struct scene *s, struct snapshot_mix *mix)
{
	*mix = (struct snapshot_mix){ s->file, 2000, UINT32_MAX, false };
}

static void mix_zero_unaligned(struct scene *s, struct snapshot_mix *mix)
{
	*mix = (struct snapshot_mix){ s->file, 1001, 10001, false };
}

static void mix_zero_keep(struct scene *s, struct snapshot_mix *mix)
{
	*mix = (struct snapshot_mix){ s->file, 0, 70000, false };
}

static void mix_write_killpriv(struct scene *s, struct snapshot_mix *mix)
{
	*mix = (struct snapshot_mix){ s->file, 10, 20, false };
}

/* The end of a source that is not a whole block is copied where it is not the end of the other file. */
static void mix_tail(struct scene *s, uint64_t src, uint64_t dst, uint64_t dst_off, struct snapshot_mix *mix)
{
	struct inode_attr a;

	if (fs_getattr(s->t->fs, src, &a) == 0)
		*mix = (struct snapshot_mix){ dst, dst_off + u64_align_down(a.size, BLK), dst_off + a.size,
					      false };
}

static void mix_clone_whole(struct scene *s, struct snapshot_mix *mix)
{
	mix_tail(s, s->file, s->other, 0, mix);
}

static void mix_clone_onto(struct scene *s, struct snapshot_mix *mix)
{
	mix_tail(s, s->other, s->file, 0, mix);
}

static void mix_clone_inside(struct scene *s, struct snapshot_mix *mix)
{
	mix_tail(s, s->file, s->file, 16 * BLK, mix);
}

static void mix_clone_unaligned(struct scene *s, struct snapshot_mix *mix)
{
	*mix = (struct snapshot_mix){ s->other, 5100, 14100, false };
}

const struct scene_op file_ops[] = {
	{ "write-small", write_small, mix_write_small, NULL },
	{ "write-unaligned", write_unaligned, mix_write_unaligned, NULL },
	{ "write-block", write_block, mix_write_block, NULL },
	{ "write-far", write_far, mix_write_far, NULL },
	{ "write-large", write_large, mix_write_large, NULL },
	{ "append-small", append_small, NULL, NULL },
	{ "append-large", append_large, NULL, NULL },
	{ "truncate-zero", truncate_zero, NULL, NULL },
	{ "truncate-small", truncate_small, NULL, NULL },
	{ "truncate-mid", truncate_mid, NULL, NULL },
	{ "truncate-up", truncate_up, NULL, NULL },
	{ "open-truncate", open_truncate, NULL, NULL },
	{ "fallocate", falloc_plain, NULL, NULL },
	{ "fallocate-keep", falloc_keep, NULL, NULL },
	{ "punch-unaligned", punch_unaligned, mix_punch_unaligned, NULL },
	{ "punch-block", punch_block, mix_punch_block, NULL },
	{ "punch-large", punch_large, mix_punch_large, NULL },
	{ "zero-unaligned", zero_unaligned, mix_zero_unaligned, NULL },
	{ "zero-keep", zero_keep, mix_zero_keep, NULL },
	{ "collapse", collapse, NULL, NULL },
	{ "insert", insert, NULL, NULL },
	{ "unshare", falloc_unshare, NULL, NULL },
	{ "clone-whole", clone_whole, mix_clone_whole, NULL },
	{ "clone-unaligned", clone_unaligned, mix_clone_unaligned, NULL },
	{ "clone-onto", clone_onto, mix_clone_onto, NULL },
	{ "clone-inside", clone_inside, mix_clone_inside, NULL },
	{ "dedupe", dedupe, NULL, make_twin },
	{ "write-killpriv", write_killpriv, mix_write_killpriv, NULL },
	{ "unlink", unlink_closed, NULL, NULL },
	{ "rename-over", rename_over, NULL, NULL },
	{ "clone-files", clone_files, NULL, NULL },
};
const unsigned file_op_count = ARRAY_SIZE(file_ops);
