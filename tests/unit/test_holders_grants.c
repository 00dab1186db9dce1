/* SPDX-License-Identifier: BSD-3-Clause */
/* What holders of a file are granted, what is made storable for them, and that a file they have stays. */
#include <errno.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fs/core.h"
#include "fs/data.h"
#include "fs/forward.h"
#include "fs/loss.h"
#include "fs/poison.h"
#include "unit/fake_holders.h"

#define MIB ((uint64_t)1 << 20)
#define END (1ull << 52)

static struct testfs t;
static struct fake_holders fake;
static uint8_t bytes[MIB];
static uint64_t file;

static int setup(void **state)
{
	const struct testfs_opts opts = { .size_bytes = 32 * MIB };

	(void)state;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 31 + i / 251 + i / 65536 + 1);
	testfs_make(&t, &opts);
	fake_holders_set(&fake, t.fs);
	file = testfs_node(&t, INODE_ROOT, "file", S_IFREG | 0644);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_holders_end(&fake);
	testfs_check(&t);
	testfs_free(&t);
	return 0;
}

static void store_blk(uint64_t ino, uint64_t lo, uint64_t count)
{
	assert_int_equal(fs_write(t.fs, &testfs_root, ino, bytes, count * BLOCK_SIZE, lo * BLOCK_SIZE, 0),
			 count * BLOCK_SIZE);
}

static void clone_blk(uint64_t src, uint64_t src_blk, uint64_t dst, uint64_t dst_blk, uint64_t count)
{
	assert_int_equal(fs_clone(t.fs, &testfs_root, src, src_blk * BLOCK_SIZE, dst, dst_blk * BLOCK_SIZE,
				  count * BLOCK_SIZE, 0, NULL),
			 count * BLOCK_SIZE);
}

static void size_set(uint64_t ino, uint64_t size)
{
	struct fs_set set = { .what = FS_SET_SIZE, .size = size };
	struct inode_attr attr;

	assert_int_equal(fs_setattr(t.fs, &testfs_root, ino, &set, &attr), 0);
}

static uint64_t dev_of(uint64_t ino, uint64_t blk)
{
	struct fs_extent e;

	assert_int_equal(fs_map(t.fs, ino, blk * BLOCK_SIZE, &e, 1), 1);
	assert_true(e.file_off <= blk * BLOCK_SIZE);
	return (e.dev_off + (blk * BLOCK_SIZE - e.file_off)) >> BLOCK_SHIFT;
}

/* ---- grants ---- */

static struct {
	struct fs_piece pieces[FS_GRANT_PIECES];
	unsigned count, calls;
	uint64_t size_bytes;
	int rc;
} got;

static int take(void *arg, const struct fs_piece *pieces, unsigned count, uint64_t size_bytes)
{
	(void)arg;
	memcpy(got.pieces, pieces, count * sizeof(*pieces));
	got.count = count;
	got.size_bytes = size_bytes;
	got.calls++;
	return got.rc;
}

static int grant(uint64_t ino, uint64_t lo_blk, uint64_t hi_blk, bool write)
{
	struct fs_grant g = { .ino = ino, .lo_blk = lo_blk, .hi_blk = hi_blk, .write = write, .take = take };

	got.count = got.calls = 0;
	return fs_grant(t.fs, &g);
}

/* The next piece is this one, at the device block of that of the file. */
static void piece_is(unsigned index, uint64_t ino, uint64_t file_blk, uint64_t count_blk, uint32_t flags)
{
	const struct fs_piece *p = &got.pieces[index];

	assert_true(index < got.count);
	assert_int_equal(p->file_blk, file_blk);
	assert_int_equal(p->count_blk, count_blk);
	assert_int_equal(p->flags, flags);
	assert_int_equal(p->dev_blk, flags & FS_PIECE_HOLE ? 0 : dev_of(ino, file_blk));
}

static void test_kinds(void **state)
{
	uint64_t other = testfs_node(&t, INODE_ROOT, "other", S_IFREG | 0644);

	(void)state;
	store_blk(other, 0, 8);
	store_blk(file, 0, 4);
	clone_blk(other, 2, file, 8, 3);
	assert_int_equal(fs_fallocate(t.fs, &testfs_root, file, 0, 5 * BLOCK_SIZE, 2 * BLOCK_SIZE), 0);
	size_set(file, 12 * BLOCK_SIZE + 100);
	assert_int_equal(grant(file, 0, END, true), 0);
	assert_int_equal(got.calls, 1);
	assert_int_equal(got.count, 4);
	assert_int_equal(got.size_bytes, 12 * BLOCK_SIZE + 100);
	piece_is(0, file, 0, 4, FS_PIECE_WRITE);
	piece_is(1, file, 4, 4, FS_PIECE_HOLE); /* a hole, unwritten, a hole */
	piece_is(2, file, 8, 3, FS_PIECE_SHARED);
	piece_is(3, file, 11, 2, FS_PIECE_HOLE);
	/* A part of it, to be read. */
	assert_int_equal(grant(file, 2, 9, false), 0);
	assert_int_equal(got.count, 3);
	piece_is(0, file, 2, 2, 0);
	piece_is(1, file, 4, 4, FS_PIECE_HOLE);
	piece_is(2, file, 8, 1, FS_PIECE_SHARED);
	/* Where the number of owners changes, but not whether there are several, there is one piece. */
	clone_blk(other, 3, file, 20, 1);
	assert_int_equal(grant(file, 8, 11, true), 0);
	assert_int_equal(got.count, 1);
	/* What has one owner again may be stored to. */
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "other"), 0);
	fs_work(t.fs);
	assert_int_equal(grant(file, 8, 11, true), 0);
	assert_int_equal(got.count, 3);
	piece_is(1, file, 9, 1, FS_PIECE_SHARED);
	piece_is(2, file, 10, 1, FS_PIECE_WRITE);
	/* Past the end there is nothing. */
	assert_int_equal(grant(file, 30, 40, true), 0);
	assert_int_equal(got.calls, 1);
	assert_int_equal(got.count, 0);
}

static void test_errors(void **state)
{
	uint64_t dir = testfs_node(&t, INODE_ROOT, "dir", S_IFDIR | 0755);

	(void)state;
	assert_int_equal(grant(dir, 0, END, false), -EINVAL);
	assert_int_equal(grant(12345678, 0, END, false), -ESTALE);
	assert_int_equal(grant(file, 0, END, false), 0); /* empty */
	assert_int_equal(got.count, 0);
	assert_int_equal(fs_write(t.fs, &testfs_root, file, bytes, 10, 0, 0), 10);
	assert_int_equal(grant(file, 0, END, false), -EINVAL); /* in the inode */
	assert_int_equal(got.calls, 0);
	store_blk(file, 0, 2);
	got.rc = -EAGAIN;
	assert_int_equal(grant(file, 0, END, false), -EAGAIN);
	got.rc = 0;
	assert_int_equal(grant(file, 0, END, false), 0);
	piece_is(0, file, 0, 2, 0);
}

/* Long holes and many pieces. */
static void test_limits(void **state)
{
	(void)state;
	size_set(file, (3ull << 32) * BLOCK_SIZE);
	assert_int_equal(grant(file, 0, END, true), 0);
	assert_int_equal(got.count, 4);
	for (unsigned i = 0; i < 3; i++)
		piece_is(i, file, i * (uint64_t)UINT32_MAX, UINT32_MAX, FS_PIECE_HOLE);
	piece_is(3, file, 3 * (uint64_t)UINT32_MAX, 3, FS_PIECE_HOLE);
	size_set(file, 0);
	for (unsigned i = 0; i < FS_GRANT_PIECES; i++)
		store_blk(file, 2 * i + 1, 1);
	assert_int_equal(grant(file, 0, END, true), 0);
	assert_int_equal(got.count, FS_GRANT_PIECES);
	piece_is(0, file, 0, 1, FS_PIECE_HOLE);
	piece_is(FS_GRANT_PIECES - 1, file, FS_GRANT_PIECES - 1, 1, FS_PIECE_WRITE);
}

static int lose(struct op *op, void *arg)
{
	struct inode_attr attr;
	uint64_t added;
	int rc = op_inode(op, file, true, NULL);

	if (!rc)
		rc = inode_get(op, file, &attr);
	for (const uint64_t *blk = arg; !rc && *blk != END; blk++)
		rc = loss_add(op, &attr, *blk, 5, &added);
	return rc ? rc : inode_put(op, &attr);
}

static void test_lost(void **state)
{
	uint64_t blks[] = { 2, 3, 7, END };

	(void)state;
	store_blk(file, 0, 10);
	assert_int_equal(op_run(t.fs, TXN_WRITE, NULL, lose, blks), 0);
	assert_int_equal(grant(file, 0, END, true), 0);
	assert_int_equal(got.count, 5);
	piece_is(0, file, 0, 2, FS_PIECE_WRITE);
	piece_is(1, file, 2, 2, FS_PIECE_LOST);
	piece_is(2, file, 4, 3, FS_PIECE_WRITE);
	piece_is(3, file, 7, 1, FS_PIECE_LOST);
	piece_is(4, file, 8, 2, FS_PIECE_WRITE);
	/* To store all of it heals it. */
	store_blk(file, 2, 1);
	assert_int_equal(grant(file, 2, 4, true), 0);
	piece_is(0, file, 2, 1, FS_PIECE_WRITE);
	piece_is(1, file, 3, 1, FS_PIECE_LOST);
}

/* A forward record of a run of shared blocks, which nobody goes on with. */
static int forward_put(struct op *op, void *arg)
{
	const struct m_forward *rec = arg;
	struct btree bt;
	int rc =
		space_ag_tree(op->tx, pool_blk_ag(op->fs->pool, le64_get(rec->fw_old_blk)), AG_FORWARDS, &bt);

	return rc ? rc : bt_insert(&bt, rec, sizeof(*rec));
}

static int forward_drop(struct op *op, void *arg)
{
	const struct m_forward *rec = arg;
	struct bt_key key = { { le64_get(rec->fw_old_blk) } };
	struct btree bt;
	int rc = space_ag_tree(op->tx, pool_blk_ag(op->fs->pool, key.w[0]), AG_FORWARDS, &bt);

	return rc ? rc : bt_delete(&bt, &key);
}

static void test_leaving(void **state)
{
	uint64_t other = testfs_node(&t, INODE_ROOT, "other", S_IFREG | 0644);
	struct m_forward rec;

	(void)state;
	store_blk(other, 0, 10);
	clone_blk(other, 0, file, 0, 10);
	rec = (struct m_forward){ .fw_old_blk = le64_of(dev_of(file, 4)), .fw_count_blk = le32_of(1) };
	assert_int_equal(op_run(t.fs, TXN_WRITE, NULL, forward_put, &rec), 0);
	assert_int_equal(grant(file, 0, END, true), 0);
	assert_int_equal(got.count, 3);
	piece_is(0, file, 0, 4, FS_PIECE_SHARED);
	piece_is(1, file, 4, 1, FS_PIECE_SHARED | FS_PIECE_LOST);
	piece_is(2, file, 5, 5, FS_PIECE_SHARED);
	assert_int_equal(op_run(t.fs, TXN_WRITE, NULL, forward_drop, &rec), 0);
	/* What only moves can be read where it is. */
	rec.fw_flags = le32_of(FORWARD_GOOD);
	rec.fw_count_blk = le32_of(3);
	assert_int_equal(op_run(t.fs, TXN_WRITE, NULL, forward_put, &rec), 0);
	assert_int_equal(grant(file, 0, END, true), 0);
	assert_int_equal(got.count, 1);
	piece_is(0, file, 0, 10, FS_PIECE_SHARED);
	assert_int_equal(op_run(t.fs, TXN_WRITE, NULL, forward_drop, &rec), 0);
}

static int stay(uint64_t dev_blk)
{
	int rc;

	pthread_mutex_lock(&t.fs->poison_lock);
	rc = poison_stay(t.fs, dev_blk);
	pthread_mutex_unlock(&t.fs->poison_lock);
	return rc;
}

/* In bad memory that the file cannot leave: who maps the block lets go, and gets it no more. */
static void test_staying(void **state)
{
	uint64_t other = testfs_node(&t, INODE_ROOT, "other", S_IFREG | 0644);
	struct m_forward rec;

	(void)state;
	store_blk(file, 0, 10);
	assert_int_equal(fs_hold(t.fs, file), 0);
	assert_int_equal(fake_grant(&fake, file, 0, END, true), 0);
	assert_int_equal(stay(dev_of(file, 4)), 0);
	assert_int_equal(fake.ask_count, 1);
	assert_true(fake.asks[0].lo_blk == 4 && fake.asks[0].hi_blk == 5);
	assert_int_equal(fake_held_blk(&fake, file, 4, 5, false), 0);
	assert_int_equal(grant(file, 0, END, true), 0);
	assert_int_equal(got.count, 3);
	piece_is(0, file, 0, 4, FS_PIECE_WRITE);
	piece_is(1, file, 4, 1, FS_PIECE_SHARED | FS_PIECE_LOST);
	piece_is(2, file, 5, 5, FS_PIECE_WRITE);
	fake_release(&fake, file, 0, END);
	fs_unhold(t.fs, file);
	/* The same where all is shared, and one is on its way besides. */
	clone_blk(file, 0, other, 0, 10);
	rec = (struct m_forward){ .fw_old_blk = le64_of(dev_of(file, 6)), .fw_count_blk = le32_of(1) };
	assert_int_equal(op_run(t.fs, TXN_WRITE, NULL, forward_put, &rec), 0);
	assert_int_equal(stay(dev_of(file, 8)), 0);
	assert_int_equal(grant(other, 0, END, true), 0);
	for (uint64_t i = 0, blk = 0; i < got.count; blk += got.pieces[i++].count_blk) {
		bool bad = blk == 4 || blk == 6 || blk == 8;

		assert_int_equal(got.pieces[i].file_blk, blk);
		assert_true(got.pieces[i].count_blk == 1 || !bad);
		assert_int_equal(got.pieces[i].flags, FS_PIECE_SHARED | (bad ? FS_PIECE_LOST : 0));
	}
	assert_int_equal(op_run(t.fs, TXN_WRITE, NULL, forward_drop, &rec), 0);
}

/* ---- storable ---- */

static uint64_t storable(uint64_t lo_blk, uint64_t hi_blk)
{
	uint64_t done_blk = 0;

	assert_int_equal(fs_make_storable(t.fs, &testfs_root, file, lo_blk, hi_blk, &done_blk), 0);
	return done_blk;
}

static void storable_is(uint64_t lo_blk, uint64_t hi_blk)
{
	assert_int_equal(grant(file, lo_blk, hi_blk, true), 0);
	for (unsigned i = 0; i < got.count; i++)
		assert_int_equal(got.pieces[i].flags, FS_PIECE_WRITE);
	assert_int_equal(got.pieces[got.count - 1].file_blk + got.pieces[got.count - 1].count_blk, hi_blk);
}

static void test_storable(void **state)
{
	uint64_t other = testfs_node(&t, INODE_ROOT, "other", S_IFREG | 0644), size = 11 * BLOCK_SIZE + 50;
	struct fs_set set = { .what = FS_SET_MODE | FS_SET_MTIME, .mode = 06755, .mtime = { .s = 5 } };
	struct fs_cred user = { .uid = 1000, .gid = 1000 };
	static uint8_t before[12 * BLOCK_SIZE], after[12 * BLOCK_SIZE];
	struct inode_attr attr;
	uint64_t done_blk;

	(void)state;
	store_blk(other, 0, 12);
	store_blk(file, 1, 2);
	clone_blk(other, 5, file, 6, 3);
	assert_int_equal(fs_fallocate(t.fs, &testfs_root, file, 0, 3 * BLOCK_SIZE, 2 * BLOCK_SIZE), 0);
	size_set(file, size);
	assert_int_equal(fs_setattr(t.fs, &testfs_root, file, &set, &attr), 0);
	assert_int_equal(fs_read(t.fs, file, before, size, 0), size);
	assert_int_equal(fs_make_storable(t.fs, &user, file, 0, 4, &done_blk), 0);
	assert_int_equal(done_blk, 4);
	storable_is(0, 4);
	assert_int_equal(grant(file, 4, END, true), 0);
	piece_is(0, file, 4, 2, FS_PIECE_HOLE);
	attr = testfs_attr(&t, file);
	assert_int_equal(attr.mode & 07777, 0755);
	assert_true(attr.mtime.s > 5);
	assert_int_equal(attr.size, size);
	assert_int_equal(storable(2, 512), 12);
	storable_is(0, 12);
	assert_int_equal(fs_read(t.fs, file, after, size, 0), size);
	assert_memory_equal(before, after, size);
	assert_int_equal(storable(0, 12), 12);  /* nothing to do */
	assert_int_equal(storable(20, 30), 20); /* nothing there */
	/* Bytes of its last block past the end are zeroes. */
	size_set(file, 12 * BLOCK_SIZE);
	assert_int_equal(fs_read(t.fs, file, after, 12 * BLOCK_SIZE, 0), 12 * BLOCK_SIZE);
	for (uint64_t i = size; i < 12 * BLOCK_SIZE; i++)
		assert_int_equal(after[i], 0);
	assert_int_equal(fs_make_storable(t.fs, &testfs_root, INODE_ROOT, 0, 1, &done_blk), -EISDIR);
}

static void test_storable_small(void **state)
{
	uint8_t back[100];

	(void)state;
	assert_int_equal(fs_write(t.fs, &testfs_root, file, bytes, 100, 0, 0), 100);
	assert_int_equal(storable(0, 8), 1);
	storable_is(0, 1);
	assert_int_equal(fs_read(t.fs, file, back, 100, 0), 100);
	assert_memory_equal(back, bytes, 100);
	/* One that has no bytes, but a size. */
	size_set(file, 0);
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "file"), 0);
	file = testfs_node(&t, INODE_ROOT, "file", S_IFREG | 0644);
	size_set(file, 50);
	assert_int_equal(storable(0, 8), 1);
	storable_is(0, 1);
}

/* As far as there is space. */
static void test_storable_full(void **state)
{
	uint64_t filler = testfs_node(&t, INODE_ROOT, "filler", S_IFREG | 0644), at = 0, done_blk = 0;
	ssize_t n;

	(void)state;
	store_blk(file, 255, 1);
	size_set(file, 512 * BLOCK_SIZE);
	while ((n = fs_write(t.fs, &testfs_root, filler, bytes, MIB, at, 0)) > 0)
		at += (uint64_t)n;
	assert_int_equal(n, -ENOSPC);
	assert_int_equal(fs_make_storable(t.fs, &testfs_root, file, 0, 512, &done_blk), -ENOSPC);
	size_set(filler, at - 64 * BLOCK_SIZE);
	assert_int_equal(fs_make_storable(t.fs, &testfs_root, file, 0, 512, &done_blk), 0);
	assert_true(done_blk > 0 && done_blk <= 64);
	storable_is(0, done_blk);
	assert_int_equal(grant(file, done_blk, done_blk + 1, true), 0);
	piece_is(0, file, done_blk, 1, FS_PIECE_HOLE);
}

/* ---- who has a file ---- */

static void test_hold(void **state)
{
	(void)state;
	store_blk(file, 0, 4);
	assert_int_equal(fs_hold(t.fs, 999999), -ESTALE);
	assert_int_equal(fs_hold(t.fs, file), 0);
	assert_int_equal(fs_hold(t.fs, file), 0);
	assert_int_equal(fake_grant(&fake, file, 0, END, true), 0);
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "file"), 0);
	fs_work(t.fs);
	fake_check(&fake);
	fs_unhold(t.fs, file);
	fs_work(t.fs);
	assert_int_equal(testfs_attr(&t, file).size, 4 * BLOCK_SIZE);
	/* It is still asked. */
	size_set(file, BLOCK_SIZE);
	assert_int_equal(fake.ask_count, 1);
	assert_int_equal(fake_held_blk(&fake, file, 0, END, true), 1);
	fake_release(&fake, file, 0, END);
	fs_unhold(t.fs, file);
	fs_work(t.fs);
	assert_int_equal(fs_hold(t.fs, file), -ESTALE);
	fs_unhold(t.fs, file); /* nobody has it */
	assert_int_equal(atomic_load(&t.fs->holder_count), 0);
}

/* A hole of a file that has nothing yet is a shadow too, also when its first bytes go into the inode. */
static void test_first_bytes(void **state)
{
	(void)state;
	size_set(file, 100);
	assert_int_equal(fs_hold(t.fs, file), 0);
	assert_int_equal(fake_grant(&fake, file, 0, END, true), 0);
	assert_int_equal(fake_held_blk(&fake, file, 0, END, false), 1);
	assert_int_equal(fs_write(t.fs, &testfs_root, file, bytes, 10, 5, 0), 10);
	assert_int_equal(fake.ask_count, 1);
	assert_int_equal(fake_held_blk(&fake, file, 0, END, false), 0);
	assert_int_equal(fake_grant(&fake, file, 0, END, true), -EINVAL);
	/* And out of it: nobody can have had anything. */
	store_blk(file, 0, 2);
	assert_int_equal(fake.ask_count, 1);
	fs_unhold(t.fs, file);
}

/* Who does not hold the file is not asked, whatever the table says. */
static void test_not_held(void **state)
{
	(void)state;
	store_blk(file, 0, 4);
	assert_int_equal(fake_grant(&fake, file, 0, END, true), 0);
	size_set(file, 0);
	assert_int_equal(fake.ask_count, 0);
	fake_release(&fake, file, 0, END);
}

static int forgotten(struct op *op, void *arg)
{
	uint64_t lo_blk = *(uint64_t *)arg;
	struct extent piece;
	struct btree bt;
	int rc = op_inode(op, file, true, NULL);

	inode_data_tree(op, file, NODE_EXTENT, &bt);
	return rc ? rc : extent_drop(op, &bt, file, lo_blk, lo_blk + 2, &piece);
}

/* An operation that forgot to ask does not get through with it. */
static void test_forgotten(void **state)
{
	uint64_t lo_blk = 2;

	(void)state;
	store_blk(file, 0, 10);
	assert_int_equal(fs_hold(t.fs, file), 0);
	assert_int_equal(fake_grant(&fake, file, 3, 4, false), 0);
	assert_int_equal(op_run(t.fs, TXN_WRITE, NULL, forgotten, &lo_blk), -EUCLEAN);
	assert_int_equal(grant(file, 0, END, true), 0);
	assert_int_equal(got.count, 1);
	fake_release(&fake, file, 0, END);
	fs_unhold(t.fs, file);
}

/* ---- pages of the kernel ---- */

static void pages_read(uint64_t lo_blk, uint64_t count_blk)
{
	static uint8_t pages[MIB];

	assert_int_equal(fs_read_pages(t.fs, file, pages, count_blk * BLOCK_SIZE, lo_blk * BLOCK_SIZE),
			 count_blk * BLOCK_SIZE);
	assert_memory_equal(pages, bytes, BLOCK_SIZE);
}

static void pages_written(uint64_t blk)
{
	assert_int_equal(fs_write(t.fs, &testfs_root, file, bytes, BLOCK_SIZE, blk * BLOCK_SIZE,
				  FS_WRITE_PAGES),
			 BLOCK_SIZE);
}

static void pages_drop(void)
{
	fs_drop_end(t.fs, file, fs_drop_begin(t.fs, file));
}

static void asked_once(uint64_t lo_blk, uint64_t hi_blk, enum fs_change change)
{
	assert_int_equal(fake.ask_count, 1);
	assert_int_equal(fake.asks[0].lo_blk, lo_blk);
	assert_int_equal(fake.asks[0].hi_blk, hi_blk);
	assert_int_equal(fake.asks[0].change, change);
	fake_forget(&fake);
}

static void opened(unsigned flags)
{
	assert_int_equal(fs_opened(t.fs, file, flags, &testfs_root), 0);
}

/* Who gets a page to keep has it alone, if he may store to it; else beside those who only read. */
static void test_page_moves(void **state)
{
	(void)state;
	store_blk(file, 0, 20);
	assert_int_equal(fs_hold(t.fs, file), 0);
	opened(0);
	assert_int_equal(fake_grant(&fake, file, 0, 10, true), 0);
	assert_int_equal(fake_grant(&fake, file, 10, 20, false), 0);
	fake_forget(&fake);
	pages_read(0, 1); /* nobody may store to block 0 then */
	asked_once(0, 1, FS_CHANGE_LEND);
	assert_int_equal(fake_held_blk(&fake, file, 0, 20, false), 20);
	assert_int_equal(fake_held_blk(&fake, file, 0, 20, true), 9);
	pages_written(4);
	asked_once(4, 5, FS_CHANGE_LEND);
	store_blk(file, 5, 1);
	pages_read(0, 1);
	assert_int_equal(fake.ask_count, 0);
	opened(FS_OPEN_WRITE | FS_OPEN_MAP);
	pages_read(0, 2);
	asked_once(0, 2, FS_CHANGE_LEND_STORE);
	pages_written(12);
	asked_once(12, 13, FS_CHANGE_LEND_STORE);
	assert_int_equal(fake_held_blk(&fake, file, 0, 20, false), 17);
	/* What goes around the page cache is in the blocks. */
	assert_int_equal(fs_read(t.fs, file, got.pieces, 100, 3 * BLOCK_SIZE), 100);
	assert_int_equal(fake.ask_count, 0);
	fs_closed(t.fs, file, FS_OPEN_WRITE | FS_OPEN_MAP);
	fs_closed(t.fs, file, 0);
	fake_release(&fake, file, 0, END);
	fs_unhold(t.fs, file);
}

/* Who does not answer keeps nobody from reading. */
static void test_page_mute(void **state)
{
	(void)state;
	store_blk(file, 0, 4);
	assert_int_equal(fs_hold(t.fs, file), 0);
	opened(0);
	assert_int_equal(fake_grant(&fake, file, 0, 4, true), 0);
	fake.mood = FAKE_MUTE;
	fake_forget(&fake);
	pages_read(0, 2);
	asked_once(0, 2, FS_CHANGE_LEND);
	pages_read(0, 2);
	assert_int_equal(fake.ask_count, 0);
	fake.mood = FAKE_ANSWERS;
	fake_release(&fake, file, 0, END);
	fs_closed(t.fs, file, 0);
	fs_unhold(t.fs, file);
}

/* Memory to ask with is wanting, for a while: whoever has the page mapped would die of an error. And nobody is asked by who cannot wait. */
static void test_page_memory(void **state)
{
	uint8_t page[BLOCK_SIZE];

	(void)state;
	store_blk(file, 0, 4);
	assert_int_equal(fs_hold(t.fs, file), 0);
	opened(0);
	assert_int_equal(fake_grant(&fake, file, 0, 4, true), 0);
	fake_forget(&fake);
	assert_int_equal(fs_read_pages_now(t.fs, file, page, sizeof(page), 0), -EUSERS);
	assert_int_equal(fake.ask_count, 0);
	fake.no_memory = 3;
	pages_read(0, 1);
	assert_int_equal(fake.ask_count, 4);
	assert_int_equal(fake_held_blk(&fake, file, 0, 4, true), 3);
	assert_int_equal(fs_read_pages_now(t.fs, file, page, sizeof(page), 0), sizeof(page));
	fake_release(&fake, file, 0, END);
	fs_closed(t.fs, file, 0);
	fs_unhold(t.fs, file);
}

/* A write that is refused takes nothing from anybody. */
static void test_page_refused(void **state)
{
	uint64_t blks[] = { 2, END }, off = 2 * BLOCK_SIZE + 8;

	(void)state;
	store_blk(file, 0, 4);
	assert_int_equal(fs_hold(t.fs, file), 0);
	assert_int_equal(fake_grant(&fake, file, 0, 4, true), 0);
	assert_int_equal(op_run(t.fs, TXN_WRITE, NULL, lose, blks), 0);
	fake_forget(&fake);
	assert_int_equal(fs_write(t.fs, &testfs_root, file, bytes, 8, off, FS_WRITE_PAGES), -EIO);
	assert_int_equal(fake.ask_count, 0);
	assert_int_equal(fake_held_blk(&fake, file, 0, 4, true), 4);
	fake_release(&fake, file, 0, END);
	fs_unhold(t.fs, file);
}

static int take_beside_page(void *arg, const struct fs_piece *pieces, unsigned count, uint64_t size_bytes)
{
	struct inode *inode = inode_pin(t.fs, file, 1, false);

	/* As fs_read_pages() by somebody who does not see the shadows yet. */
	atomic_store(&inode->lent, 0);
	inode_unpin(t.fs, inode, 1);
	return take(arg, pieces, count, size_bytes);
}

/* Whether the kernel may keep a page: who wants to store is not granted anything. */
static bool is_lent(void)
{
	return grant(file, 0, 4, true) == -ERESTART;
}

/* Nothing is granted beside pages that the kernel may have, until it has dropped them all. */
static void test_page_lent(void **state)
{
	struct fs_grant g = { .ino = file, .hi_blk = 4, .write = true, .take = take_beside_page };
	uint64_t first, second;

	(void)state;
	store_blk(file, 0, 4);
	assert_int_equal(fs_hold(t.fs, file), 0);
	opened(0);
	assert_int_equal(grant(file, 0, 4, true), 0);
	pages_read(0, 1);
	assert_true(is_lent());
	assert_int_equal(grant(file, 2, 4, true), -ERESTART);
	assert_int_equal(got.calls, 0);
	assert_int_equal(grant(file, 0, 4, false), 0); /* nobody can store to those pages */
	opened(FS_OPEN_WRITE | FS_OPEN_MAP);
	assert_int_equal(grant(file, 0, 4, false), -ERESTART);
	pages_drop();
	assert_int_equal(grant(file, 0, 4, false), 0);
	assert_int_equal(grant(file, 0, 4, true), 0);
	pages_written(1);
	assert_int_equal(grant(file, 0, 4, false), -ERESTART);
	/* A page that was given while they were dropped. */
	first = fs_drop_begin(t.fs, file);
	assert_int_equal(grant(file, 0, 4, false), -ERESTART);
	pages_read(0, 1);
	fs_drop_end(t.fs, file, first);
	assert_int_equal(grant(file, 0, 4, false), -ERESTART);
	/* Two drop them: what was given after the first began may be there when that is over. */
	first = fs_drop_begin(t.fs, file);
	pages_read(0, 1);
	second = fs_drop_begin(t.fs, file);
	fs_drop_end(t.fs, file, first);
	assert_int_equal(grant(file, 0, 4, true), -ERESTART);
	fs_drop_end(t.fs, file, second);
	assert_int_equal(grant(file, 0, 4, true), 0);
	assert_int_equal(fs_grant(t.fs, &g), -ERESTART);
	fs_closed(t.fs, file, FS_OPEN_WRITE | FS_OPEN_MAP);
	fs_closed(t.fs, file, 0);
	fs_unhold(t.fs, file);
}

/* Who may store to pages that are there already has the file alone, from before his first store on. */
static void test_page_open(void **state)
{
	(void)state;
	store_blk(file, 0, 20);
	assert_false(fs_is_held(t.fs, file));
	assert_int_equal(fs_hold(t.fs, file), 0);
	assert_true(fs_is_held(t.fs, file));
	opened(0);
	assert_int_equal(fake_grant(&fake, file, 0, 20, false), 0);
	fake_forget(&fake);
	opened(FS_OPEN_WRITE | FS_OPEN_MAP);
	assert_int_equal(fs_lend_all(t.fs, file), 0); /* no page is there */
	assert_int_equal(fake.ask_count, 0);
	fs_closed(t.fs, file, FS_OPEN_WRITE | FS_OPEN_MAP);
	pages_read(0, 1);
	assert_int_equal(fake.ask_count, 0); /* he only reads */
	opened(FS_OPEN_WRITE | FS_OPEN_MAP);
	assert_int_equal(fs_lend_all(t.fs, file), 0);
	assert_int_equal(fake.ask_count, 1);
	assert_int_equal(fake.asks[0].change, FS_CHANGE_LEND_STORE);
	assert_int_equal(fake_held_blk(&fake, file, 0, 20, false), 0);
	assert_int_equal(grant(file, 0, 4, false), -ERESTART);
	fs_closed(t.fs, file, FS_OPEN_WRITE | FS_OPEN_MAP);
	fs_closed(t.fs, file, 0);
	fs_unhold(t.fs, file);
	assert_int_equal(fs_lend_all(t.fs, file), 0);
}

static bool bypasses(unsigned flags, enum fs_way way, uint32_t harmless)
{
	return fs_open_way(t.fs, file, flags, way, harmless);
}

/* Who writes through pages of the kernel and who bypasses them and maps the file are not there at the same time. */
static void test_ways(void **state)
{
	const unsigned both = FS_OPEN_THROUGH | FS_OPEN_BYPASS;

	(void)state;
	opened(0); /* it is known */
	for (unsigned i = 0; i < 5; i++)
		opened(0);
	assert_false(bypasses(both, FS_WAY_CACHED, 0));
	assert_int_equal(fs_through_opens(t.fs, file), 1);
	/* Who wants to bypass does not, beside him. */
	assert_false(bypasses(both, FS_WAY_WANTS, 0));
	assert_int_equal(fs_through_opens(t.fs, file), 2);
	assert_false(bypasses(FS_OPEN_BYPASS, FS_WAY_WANTS, 1));
	assert_int_equal(fs_through_opens(t.fs, file), 2);
	fs_closed(t.fs, file, FS_OPEN_THROUGH);
	/* His process sees to it. */
	assert_true(bypasses(both, FS_WAY_WANTS, 1));
	assert_int_equal(fs_through_opens(t.fs, file), 1);
	fs_closed(t.fs, file, FS_OPEN_THROUGH);
	/* Beside the one that bypasses all who write do, and who reads need not. */
	assert_true(bypasses(both, FS_WAY_CACHED, 0));
	assert_false(bypasses(FS_OPEN_BYPASS, FS_WAY_CACHED, 0));
	fs_closed(t.fs, file, FS_OPEN_BYPASS);
	assert_true(bypasses(FS_OPEN_THROUGH, FS_WAY_CACHED, 0)); /* it cannot be mapped */
	fs_closed(t.fs, file, FS_OPEN_BYPASS);
	assert_false(bypasses(FS_OPEN_THROUGH, FS_WAY_CACHED, 0));
	assert_true(bypasses(both, FS_WAY_BYPASS, 0));
	fs_closed(t.fs, file, FS_OPEN_THROUGH);
	fs_closed(t.fs, file, FS_OPEN_BYPASS);
	assert_int_equal(fs_through_opens(t.fs, file), 0);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_kinds),          test(test_errors),        test(test_limits),
		test(test_lost),           test(test_leaving),       test(test_storable),
		test(test_storable_small), test(test_storable_full), test(test_hold),
		test(test_first_bytes),    test(test_not_held),      test(test_forgotten),
		test(test_staying),        test(test_page_moves),    test(test_page_mute),
		test(test_page_lent),      test(test_page_open),     test(test_ways),
		test(test_page_memory),    test(test_page_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
