/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * File data: each kind of store, size change, fallocate, clone and dedupe in the states that matter, held against plain arrays.
 */
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
#include <unistd.h>

#include <cmocka.h>

#include "lib/testfs.h"

#define FILE_MAX (4u << 20)

/* A file and what it should hold. */
struct shadow {
	uint64_t ino;
	uint64_t size;
	uint8_t *bytes;
};

static struct testfs t;

static int setup(void **state)
{
	(void)state;
	testfs_make(&t, NULL);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	testfs_free(&t);
	return 0;
}

static struct shadow file_make(const char *name)
{
	return (struct shadow){ .ino = testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644),
				.bytes = calloc(1, FILE_MAX) };
}

static void file_check(const struct shadow *f)
{
	uint8_t *buf = malloc(FILE_MAX);
	assert_int_equal(testfs_attr(&t, f->ino).size, f->size);
	assert_int_equal(fs_read(t.fs, f->ino, buf, FILE_MAX, 0), (int)f->size);
	assert_memory_equal(buf, f->bytes, f->size);
	free(buf);
}

static void file_write(struct shadow *f, uint64_t off, uint64_t len, uint8_t byte)
{
	uint8_t *buf = malloc(len);

	for (uint64_t i = 0; i < len; i++)
		buf[i] = (uint8_t)(byte + i / 7);
	assert_int_equal(fs_write(t.fs, &testfs_root, f->ino, buf, len, off, 0), (int)len);
	memcpy(f->bytes + off, buf, len);
	if (off + len > f->size)
		f->size = off + len;
	free(buf);
}

static void file_truncate(struct shadow *f, uint64_t size)
{
	struct fs_set set = { .what = FS_SET_SIZE, .size = size };
	struct inode_attr attr;

	assert_int_equal(fs_setattr(t.fs, &testfs_root, f->ino, &set, &attr), 0);
	if (size < f->size)
		memset(f->bytes + size, 0, f->size - size);
	f->size = size;
}

static void file_falloc(struct shadow *f, int mode, uint64_t off, uint64_t len)
{
	assert_int_equal(fs_fallocate(t.fs, &testfs_root, f->ino, mode, off, len), 0);
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		memset(f->bytes + off, 0, len);
	if (!(mode & FALLOC_FL_KEEP_SIZE) && off + len > f->size)
		f->size = off + len;
}

static void file_clone(const struct shadow *src, uint64_t src_off, struct shadow *dst, uint64_t dst_off,
		       uint64_t len, uint64_t want_shared)
{
	uint64_t shared;

	assert_int_equal(fs_clone(t.fs, &testfs_root, src->ino, src_off, dst->ino, dst_off, len, 0, &shared),
			 (int)len);
	assert_int_equal(shared, want_shared);
	memmove(dst->bytes + dst_off, src->bytes + src_off, len);
	if (dst_off + len > dst->size)
		dst->size = dst_off + len;
}

static uint64_t file_blocks(const struct shadow *f)
{
	return testfs_attr(&t, f->ino).blocks;
}

static void test_sizes(void **state)
{
	static const uint64_t sizes[] = { 1, 100, 224, 225, 4095, 4096, 4097, 70000, 1 << 20, (1 << 20) + 5 };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		char name[20];
		struct shadow f;

		snprintf(name, sizeof(name), "f%u", i);
		f = file_make(name);
		file_write(&f, 0, sizes[i], (uint8_t)i);
		file_check(&f);
		file_write(&f, sizes[i] / 2, sizes[i], 77);
		file_check(&f);
		testfs_crash(&t);
		file_check(&f);
		free(f.bytes);
	}
}

static void test_sparse_and_tail(void **state)
{
	struct shadow f = file_make("f");

	(void)state;
	file_write(&f, 10, 20, 1);
	file_write(&f, 9000, 100, 2); /* inline to extents, a hole before */
	file_check(&f);
	file_truncate(&f, 9010);
	file_truncate(&f, 20000); /* what lay past 9010 must not come back */
	file_check(&f);
	file_truncate(&f, 9050);
	file_write(&f, 30000, 10, 3);
	file_check(&f);
	file_truncate(&f, 0);
	assert_int_equal(file_blocks(&f), 0);
	file_truncate(&f, 100);
	file_check(&f);
	free(f.bytes);
}

static void test_inline_truncate(void **state)
{
	struct shadow f = file_make("f");

	(void)state;
	file_write(&f, 0, 200, 9);
	file_truncate(&f, 50);
	file_truncate(&f, 150);
	file_check(&f);
	file_truncate(&f, 5000);
	file_check(&f);
	free(f.bytes);
}

static void test_fallocate(void **state)
{
	struct shadow f = file_make("f");

	(void)state;
	file_falloc(&f, 0, 0, 100000);
	file_check(&f);
	assert_int_equal(file_blocks(&f), 25);
	file_write(&f, 5000, 50000, 5);
	file_check(&f);
	file_falloc(&f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 6000, 20000);
	file_check(&f);
	assert_int_equal(file_blocks(&f), 25 - 4);
	file_falloc(&f, FALLOC_FL_ZERO_RANGE, 5500, 30000);
	file_check(&f);
	assert_int_equal(file_blocks(&f), 25);
	file_falloc(&f, FALLOC_FL_KEEP_SIZE, 100000, 100000);
	assert_int_equal(file_blocks(&f), 49);
	file_check(&f);
	file_falloc(&f, FALLOC_FL_ZERO_RANGE, 150001, 60000);
	file_check(&f);
	free(f.bytes);
}

static bool has_unwritten_flag(uint64_t ino)
{
	struct inode_attr a;

	assert_int_equal(fs_getattr(t.fs, ino, &a), 0);
	return a.flags & INODE_UNWRITTEN;
}

/* It comes with the first unwritten extent, stays, and goes to no clone: what is unwritten is a hole there. */
static void test_unwritten_flag(void **state)
{
	struct shadow f = file_make("f"), g = file_make("g"), h = file_make("h");
	struct fs_clone_item item = { f.ino, "f2", 2, 0 };
	unsigned done;

	(void)state;
	file_write(&f, 0, 20000, 1);
	file_write(&g, 0, 20000, 1);
	file_falloc(&g, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 8192);
	assert_false(has_unwritten_flag(f.ino) || has_unwritten_flag(g.ino));
	file_falloc(&f, FALLOC_FL_KEEP_SIZE, 100000, 4096);
	file_falloc(&g, FALLOC_FL_ZERO_RANGE, 8192, 4096);
	assert_true(has_unwritten_flag(f.ino) && has_unwritten_flag(g.ino));
	file_write(&g, 0, 20000, 2);
	assert_true(has_unwritten_flag(g.ino));
	assert_true(fs_clone(t.fs, &testfs_root, f.ino, 0, h.ino, 0, 20000, 0, NULL) > 0);
	assert_int_equal(fs_clone_files(t.fs, &testfs_root, INODE_ROOT, &item, 1, &done), 0);
	assert_false(has_unwritten_flag(h.ino) || has_unwritten_flag(item.new_ino));
	testfs_check(&t);
	free(f.bytes);
	free(g.bytes);
	free(h.bytes);
}

static void test_collapse_and_insert(void **state)
{
	struct shadow f = file_make("f");

	(void)state;
	file_write(&f, 0, 100000, 1);
	file_write(&f, 200000, 50000, 2);
	assert_int_equal(fs_fallocate(t.fs, &testfs_root, f.ino, FALLOC_FL_COLLAPSE_RANGE, 8192, 40960), 0);
	memmove(f.bytes + 8192, f.bytes + 8192 + 40960, f.size - 8192 - 40960);
	memset(f.bytes + f.size - 40960, 0, 40960);
	f.size -= 40960;
	file_check(&f);
	assert_int_equal(fs_fallocate(t.fs, &testfs_root, f.ino, FALLOC_FL_INSERT_RANGE, 4096, 12288), 0);
	memmove(f.bytes + 4096 + 12288, f.bytes + 4096, f.size - 4096);
	memset(f.bytes + 4096, 0, 12288);
	f.size += 12288;
	file_check(&f);
	assert_int_equal(fs_fallocate(t.fs, &testfs_root, f.ino, FALLOC_FL_COLLAPSE_RANGE, 1, 4096), -EINVAL);
	free(f.bytes);
}

static void test_clone_and_write(void **state)
{
	struct shadow a = file_make("a"), b = file_make("b"), c = file_make("c");

	(void)state;
	file_write(&a, 0, 300001, 1);
	file_clone(&a, 0, &b, 0, a.size, a.size);
	file_clone(&b, 0, &c, 0, b.size, b.size);
	file_check(&b);
	file_write(&b, 5000, 10, 2);
	file_write(&c, 0, 4096, 3);
	file_write(&a, 299999, 40, 4);
	file_check(&a);
	file_check(&b);
	file_check(&c);
	file_truncate(&b, 100);
	file_truncate(&b, 8000);
	file_falloc(&c, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10000, 20000);
	file_check(&a);
	file_check(&b);
	file_check(&c);
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "a"), 0);
	fs_work(t.fs);
	testfs_crash(&t);
	file_check(&b);
	file_check(&c);
	free(a.bytes);
	free(b.bytes);
	free(c.bytes);
}

static void test_clone_ranges(void **state)
{
	struct shadow a = file_make("a"), b = file_make("b");

	(void)state;
	file_write(&a, 0, 100000, 1);
	file_write(&b, 0, 90000, 2);
	file_clone(&a, 4096, &b, 8192, 40960, 40960);
	file_clone(&a, 5000, &b, 904, 20000, 16384 + 0); /* in step within blocks: edges copied */
	file_clone(&a, 1, &b, 50000, 30000, 0);
	file_clone(&a, 0, &b, 200000 - 200000 % 4096, 100000, 100000);
	file_clone(&b, 0, &b, 1 << 20, 40960, 40960);
	file_check(&a);
	file_check(&b);
	assert_int_equal(fs_clone(t.fs, &testfs_root, b.ino, 0, b.ino, 4096, 8192, 0, NULL), -EINVAL);
	assert_int_equal(fs_clone(t.fs, &testfs_root, a.ino, 200000, b.ino, 0, 100, 0, NULL), 0);
	free(a.bytes);
	free(b.bytes);
}

static void test_clone_inline(void **state)
{
	struct shadow a = file_make("a"), b = file_make("b");

	(void)state;
	file_write(&a, 0, 150, 1);
	file_clone(&a, 0, &b, 0, 150, 0);
	file_check(&b);
	assert_int_equal(file_blocks(&b), 0);
	/* As an ioctl asks: the whole file, though it has no blocks. */
	assert_int_equal(fs_clone(t.fs, &testfs_root, a.ino, 0, b.ino, 0, 0, FS_CLONE_STRICT, NULL), 150);
	assert_int_equal(fs_clone(t.fs, &testfs_root, a.ino, 1, b.ino, 0, 100, FS_CLONE_STRICT, NULL),
			 -EINVAL);
	file_clone(&a, 10, &b, 100, 140, 0); /* no longer inline */
	file_check(&b);
	free(a.bytes);
	free(b.bytes);
}

/* Many extents: the destination's tree is built aside and swapped in. */
static void test_clone_shredded(void **state)
{
	struct shadow a = file_make("a"), b = file_make("b");

	(void)state;
	for (uint64_t blk = 0; blk < 900; blk += 2)
		file_write(&a, blk * 4096, 4096, (uint8_t)blk);
	file_write(&b, 100 * 4096, 300 * 4096, 9);
	file_clone(&a, 0, &b, 0, a.size, a.size);
	file_check(&b);
	file_clone(&a, 0, &b, 0, a.size, a.size); /* again: all the same already */
	file_check(&b);
	file_write(&b, 3, 2000000, 77);
	file_check(&a);
	file_check(&b);
	file_truncate(&a, 10);
	file_check(&a);
	testfs_crash(&t);
	file_check(&b);
	free(a.bytes);
	free(b.bytes);
}

static void test_dedupe(void **state)
{
	struct shadow a = file_make("a"), b = file_make("b");
	struct fs_extent map[8];
	bool same;

	(void)state;
	file_write(&a, 0, 50000, 1);
	file_write(&b, 0, 50000, 1);
	assert_int_equal(fs_dedupe(t.fs, a.ino, 0, b.ino, 0, 50000, &same), 0);
	assert_true(same);
	assert_int_equal(fs_map(t.fs, b.ino, 0, map, 8), 1);
	assert_int_equal(map[0].owners, 2);
	assert_true(map[0].flags & FS_EXTENT_SHARED);
	file_check(&a);
	file_check(&b);
	file_write(&b, 4096, 1, 200);
	assert_int_equal(fs_dedupe(t.fs, a.ino, 0, b.ino, 0, 8192, &same), 0);
	assert_false(same);
	assert_int_equal(fs_dedupe(t.fs, a.ino, 1, b.ino, 0, 8192, &same), -EINVAL);
	file_check(&b);
	free(a.bytes);
	free(b.bytes);
}

static void test_unshare(void **state)
{
	struct shadow a = file_make("a"), b = file_make("b");
	struct fs_extent map[8];

	(void)state;
	file_write(&a, 0, 500000, 1);
	file_clone(&a, 0, &b, 0, a.size, a.size);
	assert_int_equal(fs_fallocate(t.fs, &testfs_root, b.ino, FALLOC_FL_UNSHARE_RANGE, 0, 500000), 0);
	assert_true(fs_map(t.fs, a.ino, 0, map, 8) >= 1);
	assert_int_equal(map[0].owners, 1);
	file_check(&a);
	file_check(&b);
	free(a.bytes);
	free(b.bytes);
}

static void test_clone_files(void **state)
{
	struct shadow a = file_make("a"), b = file_make("b");
	struct fs_clone_item items[] = { { a.ino, "a2", 2, 0 },
					 { b.ino, "b2", 2, 0 },
					 { a.ino, "a3", 2, 0 } };
	struct shadow twin;
	unsigned done;

	(void)state;
	file_write(&a, 0, 300000, 1);
	file_write(&b, 0, 100, 2);
	assert_int_equal(fs_setxattr(t.fs, a.ino, "user.x", "value", 5, 0, false), 0);
	assert_int_equal(fs_clone_files(t.fs, &testfs_root, INODE_ROOT, items, 3, &done), 0);
	assert_int_equal(done, 3);
	twin = a;
	twin.ino = items[0].new_ino;
	file_check(&twin);
	assert_int_equal(fs_getxattr(t.fs, twin.ino, "user.x", NULL, 0), 5);
	twin = b;
	twin.ino = items[1].new_ino;
	file_check(&twin);
	items[0].name = "a2";
	assert_int_equal(fs_clone_files(t.fs, &testfs_root, INODE_ROOT, items, 1, &done), -EEXIST);
	free(a.bytes);
	free(b.bytes);
}

static void test_seek(void **state)
{
	struct shadow f = file_make("f");
	uint64_t found;

	(void)state;
	file_write(&f, 40960, 4096, 1);
	file_truncate(&f, 100000);
	assert_int_equal(fs_seek(t.fs, f.ino, 0, SEEK_DATA, &found), 0);
	assert_int_equal(found, 40960);
	assert_int_equal(fs_seek(t.fs, f.ino, 40960, SEEK_HOLE, &found), 0);
	assert_int_equal(found, 45056);
	assert_int_equal(fs_seek(t.fs, f.ino, 50000, SEEK_DATA, &found), -ENXIO);
	assert_int_equal(fs_seek(t.fs, f.ino, 100000, SEEK_HOLE, &found), -ENXIO);
	free(f.bytes);
}

static void test_full(void **state)
{
	struct shadow f = file_make("f"), g = file_make("g");
	uint8_t *buf = calloc(1, 1 << 20);
	struct fs_statfs before, after;
	uint64_t off = 0;
	ssize_t n;

	(void)state;
	assert_int_equal(fs_statfs(t.fs, &before), 0);
	while ((n = fs_write(t.fs, &testfs_root, f.ino, buf, 1 << 20, off, 0)) > 0)
		off += (uint64_t)n;
	assert_int_equal(n, -ENOSPC);
	assert_true(off > 40u << 20);
	assert_int_equal(fs_write(t.fs, &testfs_root, g.ino, buf, 100, 0, 0), 100); /* inline: no block */
	file_truncate(&f, 0);
	assert_int_equal(fs_statfs(t.fs, &after), 0);
	assert_true(after.free_blk + 600 >= before.free_blk);
	free(buf);
	free(f.bytes);
	free(g.bytes);
}

#define DATA_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		DATA_TEST(test_sizes),
		DATA_TEST(test_sparse_and_tail),
		DATA_TEST(test_inline_truncate),
		DATA_TEST(test_fallocate),
		DATA_TEST(test_unwritten_flag),
		DATA_TEST(test_collapse_and_insert),
		DATA_TEST(test_clone_and_write),
		DATA_TEST(test_clone_ranges),
		DATA_TEST(test_clone_inline),
		DATA_TEST(test_clone_shredded),
		DATA_TEST(test_dedupe),
		DATA_TEST(test_unshare),
		DATA_TEST(test_clone_files),
		DATA_TEST(test_seek),
		DATA_TEST(test_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
