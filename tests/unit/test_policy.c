/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is to become of lost bytes (user.umbra.on_poison): which values there are, who inherits them, and files that have zeroes where those who
 * share the block with them have lost it; power loss at every fence of that.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>

#include <cmocka.h>

#include "crash/cut.h"
#include "fs/xattr.h"
#include "lib/testfs.h"
#include "lib/testpoison.h"

#define POLICY "user.umbra.on_poison"
#define FILE_BLOCKS 3u
#define FILE_BYTES (FILE_BLOCKS * BLOCK_SIZE)
#define BAD_BLK 1u /* of each file */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MANY_OWNERS 500u
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define MANY_OWNERS 500u
#endif
#endif
#ifndef MANY_OWNERS
#define MANY_OWNERS 10000u
#endif

static struct testfs t;
static struct testpoison *poison;
static uint8_t content[FILE_BYTES];
static uint64_t *owners;
static unsigned owner_count;

static int policy_set(uint64_t ino, const char *value)
{
	return fs_setxattr(t.fs, ino, POLICY, value, strlen(value), 0, false);
}

/* "": it has none. */
static const char *policy_of(uint64_t ino)
{
	static char value[16];
	ssize_t n = fs_getxattr(t.fs, ino, POLICY, value, sizeof(value) - 1);

	assert_true(n >= 0 || n == -ENODATA);
	value[n > 0 ? n : 0] = '\0';
	return value;
}

/* ---- the attribute ---- */

static void test_values(void **state)
{
	uint64_t file, dir, fifo, other;
	struct inode_attr attr;
	char list[256];

	(void)state;
	testfs_make(&t, NULL);
	file = testfs_node(&t, INODE_ROOT, "file", S_IFREG | 0644);
	dir = testfs_node(&t, INODE_ROOT, "dir", S_IFDIR | 0755);
	fifo = testfs_node(&t, INODE_ROOT, "fifo", S_IFIFO | 0644);
	assert_int_equal(fs_symlink(t.fs, &testfs_root, INODE_ROOT, "link", 4, "file", 4, &attr), 0);
	other = attr.ino;
	assert_int_equal(policy_set(file, "zero"), 0);
	assert_string_equal(policy_of(file), "zero");
	assert_int_equal(fs_listxattr(t.fs, file, list, sizeof(list)), sizeof(POLICY));
	assert_string_equal(list, POLICY);
	assert_int_equal(policy_set(file, "eio"), 0);
	assert_string_equal(policy_of(file), "eio");
	assert_int_equal(policy_set(file, ""), -EINVAL);
	assert_int_equal(policy_set(file, "zeros"), -EINVAL);
	assert_int_equal(policy_set(file, "zer"), -EINVAL);
	assert_int_equal(policy_set(file, "EIO"), -EINVAL);
	assert_int_equal(fs_setxattr(t.fs, file, POLICY, "zero", 5, 0, false), -EINVAL);
	assert_int_equal(fs_setxattr(t.fs, file, POLICY, "zero", 4, XATTR_CREATE, false), -EEXIST);
	assert_string_equal(policy_of(file), "eio");
	assert_int_equal(policy_set(dir, "zero"), 0);
	assert_int_equal(policy_set(dir, "none"), -EINVAL);
	assert_int_equal(policy_set(fifo, "zero"), -EINVAL);
	assert_int_equal(policy_set(other, "zero"), -EINVAL);
	assert_int_equal(fs_removexattr(t.fs, file, POLICY), 0);
	assert_int_equal(fs_removexattr(t.fs, file, POLICY), -ENODATA);
	assert_string_equal(policy_of(file), "");
	/* Names beside it are anybody's. */
	assert_int_equal(fs_setxattr(t.fs, file, POLICY "2", "what", 4, 0, false), 0);
	fs_forget(t.fs, other, 1);
	testfs_check(&t);
	testfs_free(&t);
}

static void test_inherit(void **state)
{
	uint64_t dir, sub, file;
	struct inode_attr attr;

	(void)state;
	testfs_make(&t, NULL);
	dir = testfs_node(&t, INODE_ROOT, "dir", S_IFDIR | 0755);
	file = testfs_node(&t, dir, "before", S_IFREG | 0644);
	assert_int_equal(policy_set(dir, "zero"), 0);
	assert_string_equal(policy_of(file), "");
	assert_string_equal(policy_of(testfs_node(&t, dir, "file", S_IFREG | 0644)), "zero");
	assert_string_equal(policy_of(testfs_node(&t, dir, "fifo", S_IFIFO | 0644)), "");
	assert_int_equal(fs_symlink(t.fs, &testfs_root, dir, "link", 4, "file", 4, &attr), 0);
	assert_string_equal(policy_of(attr.ino), "");
	fs_forget(t.fs, attr.ino, 1);
	assert_int_equal(fs_tmpfile(t.fs, &testfs_root, dir, 0644, &attr), 0);
	assert_string_equal(policy_of(attr.ino), "zero");
	fs_forget(t.fs, attr.ino, 1);
	sub = testfs_node(&t, dir, "sub", S_IFDIR | 0755);
	assert_string_equal(policy_of(sub), "zero");
	assert_string_equal(policy_of(testfs_node(&t, sub, "file", S_IFREG | 0644)), "zero");
	/* Moved in: as it was. */
	assert_int_equal(testfs_rename(&t, INODE_ROOT, "dir", INODE_ROOT, "dir2", 0), 0);
	file = testfs_node(&t, INODE_ROOT, "file", S_IFREG | 0644);
	assert_int_equal(testfs_rename(&t, INODE_ROOT, "file", dir, "moved", 0), 0);
	assert_string_equal(policy_of(file), "");
	assert_int_equal(policy_set(sub, "eio"), 0);
	assert_string_equal(policy_of(testfs_node(&t, sub, "file2", S_IFREG | 0644)), "eio");
	assert_int_equal(fs_removexattr(t.fs, dir, POLICY), 0);
	assert_string_equal(policy_of(testfs_node(&t, dir, "file3", S_IFREG | 0644)), "");
	testfs_check(&t);
	testfs_free(&t);
}

static int value_store(struct op *op, void *arg)
{
	const uint64_t *ino = arg;
	int rc = op_inode(op, *ino, true, NULL);

	return rc ? rc : xattr_store(op, *ino, POLICY, "maybe", 5, 0);
}

/* A value of a version that did not look at it: it says nothing, and is not inherited. */
static void test_unknown(void **state)
{
	uint64_t dir;

	(void)state;
	testfs_make(&t, NULL);
	dir = testfs_node(&t, INODE_ROOT, "dir", S_IFDIR | 0755);
	assert_int_equal(op_run(t.fs, TXN_WRITE, NULL, value_store, &dir), 0);
	assert_string_equal(policy_of(dir), "maybe");
	assert_string_equal(policy_of(testfs_node(&t, dir, "file", S_IFREG | 0644)), "");
	testfs_check(&t);
	testfs_free(&t);
}

/* Long names and attributes that leave no room in the inode, until nothing is left: an error of the usual kind, and nothing half-made. */
static void test_full(void **state)
{
	const struct testfs_opts opts = { .size_bytes = (uint64_t)24 << 20 };
	uint8_t acl[44] = { 2, 0, 0,    0,    1,    0,    7,    0, 0xff, 0xff, 0xff, 0xff, 2,    0,    7,
			    0, 1, 0,    0,    0,    4,    0,    7, 0,    0xff, 0xff, 0xff, 0xff, 0x10, 0,
			    7, 0, 0xff, 0xff, 0xff, 0xff, 0x20, 0, 5,    0,    0xff, 0xff, 0xff, 0xff };
	unsigned made = 0, i;
	uint64_t dir, fill;
	char name[256];
	ssize_t n;
	int rc = 0;

	(void)state;
	testfs_make(&t, &opts);
	dir = testfs_node(&t, INODE_ROOT, "dir", S_IFDIR | 0755);
	fill = testfs_node(&t, INODE_ROOT, "fill", S_IFREG | 0644);
	assert_int_equal(policy_set(dir, "zero"), 0);
	assert_int_equal(fs_setxattr(t.fs, dir, "system.posix_acl_default", acl, sizeof(acl), 0, false), 0);
	for (uint64_t off = 0; (n = fs_write(t.fs, &testfs_root, fill, acl, 1, off, 0)) == 1;)
		off += BLOCK_SIZE;
	assert_int_equal(n, -ENOSPC);
	for (i = 0; rc == 0; i++) {
		memset(name, 'n', sizeof(name));
		name[snprintf(name, sizeof(name), "%07u", i)] = 'n';
		name[i % 3 ? 255 : 20] = '\0';
		rc = testfs_mknod(&t, dir, name, (i % 2 ? S_IFREG : S_IFDIR) | 0755, NULL);
		made += rc == 0;
	}
	assert_int_equal(rc, -ENOSPC);
	assert_true(made > 100);
	assert_int_equal(testfs_lookup(&t, dir, name, NULL), -ENOENT);
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "fill"), 0);
	fs_work(t.fs);
	assert_string_equal(policy_of(testfs_node(&t, dir, name, S_IFREG | 0755)), "zero");
	testfs_check(&t);
	testfs_free(&t);
}

/* ---- bad memory ---- */

static void begin(uint64_t size_bytes)
{
	const struct testfs_opts opts = { .size_bytes = size_bytes };

	testfs_make(&t, &opts);
	poison = testpoison_open(t.dax);
	if (poison)
		return;
	testfs_free(&t);
	skip();
}

static void end(void)
{
	testpoison_close(poison);
	assert_null(pool_failed(t.pool));
	testfs_check(&t);
	testfs_free(&t);
	free(owners);
	owners = NULL;
}

static bool wants_zeroes(unsigned i)
{
	return i % 2 == 1;
}

/* So many files that share their blocks; those with odd numbers want zeroes (all of them, if the first one does). */
static void owners_make(unsigned count, bool all)
{
	char name[12];

	owners = calloc(count, sizeof(*owners));
	owner_count = count;
	for (unsigned i = 0; i < FILE_BYTES; i++)
		content[i] = (uint8_t)(i * 31 + i / 256 + 1) | 1;
	owners[0] = testfs_node(&t, INODE_ROOT, "0", S_IFREG | 0644);
	assert_int_equal(fs_write(t.fs, &testfs_root, owners[0], content, FILE_BYTES, 0, 0), FILE_BYTES);
	if (all)
		assert_int_equal(policy_set(owners[0], "zero"), 0);
	for (unsigned i = 1; i < count; i++) {
		struct fs_clone_item item = { .src = owners[0], .name = name };
		unsigned done;

		item.name_len = (size_t)snprintf(name, sizeof(name), "%u", i);
		assert_int_equal(fs_clone_files(t.fs, &testfs_root, INODE_ROOT, &item, 1, &done), 0);
		owners[i] = item.new_ino;
		if (wants_zeroes(i))
			assert_int_equal(policy_set(owners[i], "zero"), 0);
	}
}

static uint64_t dev_off_in(struct testfs *u, uint64_t ino, uint64_t blk)
{
	struct fs_extent e;

	assert_int_equal(fs_map(u->fs, ino, blk * BLOCK_SIZE, &e, 1), 1);
	return e.dev_off + (blk * BLOCK_SIZE - e.file_off);
}

static uint64_t dev_off_of(uint64_t ino, uint64_t blk)
{
	return dev_off_in(&t, ino, blk);
}

/* Each line of a file: as it was, but for those of the bad block, which are lost or zeroes. */
static void file_check_in(struct testfs *u, uint64_t ino, uint64_t lost, uint64_t zeroed)
{
	static const uint8_t zeroes[LINE_SIZE];
	uint8_t line[LINE_SIZE];

	for (uint64_t off = 0; off < FILE_BYTES; off += LINE_SIZE) {
		uint64_t bit = off / BLOCK_SIZE == BAD_BLK ? 1ull << (off % BLOCK_SIZE / LINE_SIZE) : 0;
		ssize_t n = fs_read(u->fs, ino, line, LINE_SIZE, off);

		assert_int_equal(n, lost & bit ? -EIO : (ssize_t)LINE_SIZE);
		if (n > 0)
			assert_memory_equal(line, zeroed & bit ? zeroes : content + off, LINE_SIZE);
	}
	assert_int_equal((testfs_attr(u, ino).flags & INODE_LOST) != 0, lost != 0);
}

static void file_check(uint64_t ino, uint64_t lost, uint64_t zeroed)
{
	file_check_in(&t, ino, lost, zeroed);
}

static void owners_check(uint64_t lines)
{
	for (unsigned i = 0; i < owner_count; i++)
		file_check(owners[i], wants_zeroes(i) ? 0 : lines, wants_zeroes(i) ? lines : 0);
}

static unsigned told_lost, told_zeroed, told_moved;
static uint64_t told_lines;

static void told(void *arg, const struct fs_poison *event)
{
	(void)arg;
	if (event->kind != FS_POISON_DATA)
		return;
	told_lines = event->lost_lines;
	told_zeroed += event->zeroed && event->lost_lines;
	told_lost += !event->zeroed && event->lost_lines;
	told_moved += !event->lost_lines;
}

static void lose(uint64_t ino, uint64_t lines)
{
	uint8_t byte;

	told_lost = told_zeroed = told_moved = 0;
	fs_on_poison(t.fs, told, NULL);
	testpoison_lines(poison, dev_off_of(ino, BAD_BLK), lines);
	(void)!fs_read(t.fs, ino, &byte, 1, BAD_BLK * BLOCK_SIZE);
}

static void zero_of(unsigned count, unsigned reader, uint64_t lines)
{
	begin((uint64_t)24 << 20);
	owners_make(count, false);
	lose(owners[reader], lines);
	assert_int_equal(told_zeroed, count / 2);
	assert_int_equal(told_lost, count - count / 2);
	owners_check(lines);
	testpoison_close(poison);
	testfs_check(&t);
	testfs_remount(&t);
	poison = testpoison_open(t.dax);
	owners_check(lines);
	end();
}

static void test_zero(void **state)
{
	(void)state;
	zero_of(2, 0, 1);
	zero_of(2, 1, 0x8000000000000001);
	zero_of(3, 2, UINT64_MAX);
	zero_of(100, 50, 0xff00);
}

/* One alone with his block; a line that was lost before he wanted zeroes stays lost. */
static void test_alone(void **state)
{
	uint8_t byte;

	(void)state;
	begin(0);
	owners_make(1, true);
	lose(owners[0], 6);
	assert_int_equal(told_zeroed, 1);
	file_check(owners[0], 0, 6);
	assert_int_equal(fs_write(t.fs, &testfs_root, owners[0], content + BLOCK_SIZE, BLOCK_SIZE, BLOCK_SIZE,
				  0),
			 BLOCK_SIZE);
	file_check(owners[0], 0, 0);
	assert_int_equal(fs_removexattr(t.fs, owners[0], POLICY), 0);
	lose(owners[0], 1);
	assert_int_equal(told_lost, 1);
	file_check(owners[0], 1, 0);
	assert_int_equal(policy_set(owners[0], "zero"), 0);
	file_check(owners[0], 1, 0);
	lose(owners[0], 5);
	(void)!fs_read(t.fs, owners[0], &byte, 1, BLOCK_SIZE + 64);
	assert_int_equal(told_zeroed, 1);
	assert_int_equal(told_lines, 4);
	file_check(owners[0], 1, 4);
	end();
}

/* Past the end of a file there is nothing to lose. */
static void test_short(void **state)
{
	struct fs_set set = { .what = FS_SET_SIZE, .size = BLOCK_SIZE + 100 };
	struct inode_attr attr;

	(void)state;
	begin(0);
	owners_make(2, true);
	assert_int_equal(fs_setattr(t.fs, &testfs_root, owners[1], &set, &attr), 0);
	lose(owners[0], 1ull << 40);
	assert_int_equal(told_zeroed, 1);
	assert_int_equal(told_moved, 1);
	file_check(owners[0], 0, 1ull << 40);
	end();
}

/* Put back for those who have lost it: those who have zeroes keep them. */
static void test_heal(void **state)
{
	struct fs_healed healed;

	(void)state;
	begin(0);
	owners_make(150, false);
	lose(owners[0], 0x8001);
	owners_check(0x8001);
	assert_int_equal(fs_heal(t.fs, owners[1], BLOCK_SIZE, content + BLOCK_SIZE, &healed), -ENODATA);
	assert_int_equal(fs_heal(t.fs, owners[2], BLOCK_SIZE, content + BLOCK_SIZE, &healed), 0);
	assert_int_equal(healed.count, 75);
	for (unsigned i = 0; i < owner_count; i++)
		file_check(owners[i], 0, wants_zeroes(i) ? 0x8001 : 0);
	end();
}

/* The same lines go bad once more, of all: zeroes are what some have lost then, and the others' bytes are not put in their place. */
static void test_heal_again(void **state)
{
	static const uint8_t zeroes[LINE_SIZE];
	uint8_t block[BLOCK_SIZE];
	struct fs_healed healed;

	(void)state;
	begin(0);
	owners_make(6, false);
	lose(owners[0], 2);
	owners_check(2);
	for (unsigned i = 1; i < owner_count; i += 2)
		assert_int_equal(fs_removexattr(t.fs, owners[i], POLICY), 0);
	lose(owners[0], 2);
	lose(owners[1], 2);
	for (unsigned i = 0; i < owner_count; i++)
		file_check(owners[i], 2, 0);
	assert_int_equal(fs_heal(t.fs, owners[0], BLOCK_SIZE, content + BLOCK_SIZE, &healed), 0);
	assert_int_equal(healed.count, 3);
	memcpy(block, content + BLOCK_SIZE, BLOCK_SIZE);
	memcpy(block + LINE_SIZE, zeroes, LINE_SIZE);
	assert_int_equal(fs_heal(t.fs, owners[1], BLOCK_SIZE, block, &healed), 0);
	assert_int_equal(healed.count, 3);
	for (unsigned i = 0; i < owner_count; i++)
		file_check(owners[i], 0, wants_zeroes(i) ? 2 : 0);
	end();
}

static void test_many(void **state)
{
	struct timespec start, now;
	uint8_t byte;

	(void)state;
	begin((uint64_t)256 << 20);
	owners_make(MANY_OWNERS, true);
	told_zeroed = 0;
	fs_on_poison(t.fs, told, NULL);
	testpoison_lines(poison, dev_off_of(owners[0], BAD_BLK), 2);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
	(void)!fs_read(t.fs, owners[7], &byte, 1, BAD_BLK * BLOCK_SIZE);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	print_message("# %u owners who want zeroes: %.3f ms of processor time\n", MANY_OWNERS,
		      (double)(now.tv_sec - start.tv_sec) * 1e3 +
			      (double)(now.tv_nsec - start.tv_nsec) / 1e6);
	assert_int_equal(told_zeroed, MANY_OWNERS);
	for (unsigned i = 0; i < owner_count; i += 97)
		file_check(owners[i], 0, 2);
	end();
}

/* ---- power loss ---- */

#define CRASH_BYTES ((uint64_t)24 << 20)

static const struct testfs_opts crash_opts = { .size_bytes = CRASH_BYTES, .trace = &cut_trace };

struct crash {
	uint64_t dev_off, lines;
	unsigned images;
};

/*
 * Whoever has been switched or is now: all his bytes but the lost lines, of which he has a record or zeroes, as he wants. No block is both one's
 * who has lost lines and one's who has zeroes there.
 */
static void image_check(void *arg, const uint8_t *image)
{
	const struct testfs_opts opts = { .size_bytes = CRASH_BYTES };
	struct crash *c = arg;
	struct testpoison *bad;
	struct testfs u;

	testfs_open_image(&u, image, &opts);
	bad = testpoison_open(u.dax);
	assert_non_null(bad);
	testpoison_lines(bad, c->dev_off, c->lines);
	for (unsigned i = 0; i < owner_count; i++)
		file_check_in(&u, owners[i], wants_zeroes(i) ? 0 : c->lines, wants_zeroes(i) ? c->lines : 0);
	for (unsigned i = 0; i < owner_count; i++) {
		uint64_t off = dev_off_in(&u, owners[i], BAD_BLK);

		assert_int_not_equal(off, c->dev_off);
		for (unsigned k = 0; k < i; k++)
			if (wants_zeroes(i) != wants_zeroes(k))
				assert_int_not_equal(off, dev_off_in(&u, owners[k], BAD_BLK));
	}
	testpoison_close(bad);
	testfs_check(&u);
	testfs_free(&u);
	c->images++;
}

/* The mount that goes on with it is cut short as well. */
static void image_check_twice(void *arg, const uint8_t *image)
{
	struct crash *c = arg;
	struct testfs u;
	struct cut cut;

	image_check(c, image);
	if (c->images % 32 != 1)
		return;
	cut_begin(&cut, image, CRASH_BYTES, CUT_NO_PAGE);
	testfs_open_image(&u, image, &crash_opts);
	cut_end();
	testfs_free(&u);
	cut_images(&cut, image_check, c);
}

static void crash_of(unsigned count, uint64_t lines)
{
	struct crash c = { .lines = lines };
	struct cut cut;
	uint8_t byte;

	testfs_make(&t, &crash_opts);
	poison = testpoison_open(t.dax);
	if (!poison) {
		testfs_free(&t);
		skip();
	}
	owners_make(count, false);
	c.dev_off = dev_off_of(owners[0], BAD_BLK);
	cut_begin(&cut, dax_ptr(t.dax, 0), CRASH_BYTES, CUT_NO_PAGE);
	for (unsigned line = 0; line < 64; line++)
		if (lines >> line & 1)
			memset(cut.memory + c.dev_off + line * LINE_SIZE, 0xee, LINE_SIZE);
	testpoison_lines(poison, c.dev_off, lines);
	(void)!fs_read(t.fs, owners[0], &byte, 1, BAD_BLK * BLOCK_SIZE);
	cut_end();
	owners_check(lines);
	cut_images(&cut, image_check_twice, &c);
	print_message("# %u owners: %u images\n", count, c.images);
	assert_true(c.images > 8);
	end();
}

static void test_crash(void **state)
{
	(void)state;
	crash_of(2, 0x8000000000000001);
	crash_of(5, UINT64_MAX);
	crash_of(40, 0xf0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),     cmocka_unit_test(test_inherit),
		cmocka_unit_test(test_unknown),    cmocka_unit_test(test_full),
		cmocka_unit_test(test_zero),       cmocka_unit_test(test_alone),
		cmocka_unit_test(test_short),      cmocka_unit_test(test_heal),
		cmocka_unit_test(test_heal_again), cmocka_unit_test(test_many),
		cmocka_unit_test(test_crash),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
