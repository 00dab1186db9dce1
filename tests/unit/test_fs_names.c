/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Names: making, finding and removing them, links, renames, reading directories; errors as Linux gives them.
 */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "lib/testfs.h"

#define ROOT INODE_ROOT

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
	testfs_check(&t);
	testfs_free(&t);
	return 0;
}

static uint64_t make_dir(uint64_t dir, const char *name)
{
	return testfs_node(&t, dir, name, S_IFDIR | 0755);
}

static uint64_t make_file(uint64_t dir, const char *name)
{
	return testfs_node(&t, dir, name, S_IFREG | 0644);
}

static void assert_path(uint64_t ino, const char *path)
{
	char buf[4096];

	assert_int_equal(fs_path(t.fs, ino, buf, sizeof(buf)), 0);
	assert_string_equal(buf, path);
}

/* 0: not there. */
static uint64_t find(uint64_t dir, const char *name)
{
	struct inode_attr attr;
	int rc = testfs_lookup(&t, dir, name, &attr);

	if (rc) {
		assert_int_equal(rc, -ENOENT);
		return 0;
	}
	fs_forget(t.fs, attr.ino, 1);
	return attr.ino;
}

static void test_make_and_find(void **state)
{
	static const uint32_t types[] = { S_IFREG, S_IFDIR, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK };
	struct fs_cred cred = { .uid = 7, .gid = 8, .umask = 027 };
	struct inode_attr made, found;
	char name[8];

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		snprintf(name, sizeof(name), "n%u", i);
		assert_int_equal(fs_mknod(t.fs, &cred, ROOT, name, 2, types[i] | 0777, 0x12345, &made), 0);
		assert_int_equal(fs_lookup(t.fs, ROOT, name, 2, &found), 0);
		assert_int_equal(made.ino, found.ino);
		assert_int_equal(made.gen, found.gen);
		assert_int_equal(made.ctime.ns, found.ctime.ns);
		assert_int_equal(made.mode, types[i] | 0750);
		assert_int_equal(made.uid, 7);
		assert_int_equal(made.gid, 8);
		assert_int_equal(made.rdev, types[i] == S_IFCHR || types[i] == S_IFBLK ? 0x12345 : 0);
		assert_int_equal(made.nlink, types[i] == S_IFDIR ? 2 : 1);
		assert_int_equal(testfs_mknod(&t, ROOT, name, S_IFREG, NULL), -EEXIST);
		fs_forget(t.fs, made.ino, 2);
	}
	assert_int_equal(testfs_attr(&t, ROOT).size, ARRAY_SIZE(types));
	assert_int_equal(testfs_attr(&t, ROOT).nlink, 3);
	assert_int_equal(fs_cached_inodes(t.fs), 0);
	testfs_remount(&t);
	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		snprintf(name, sizeof(name), "n%u", i);
		assert_true(find(ROOT, name) != 0);
		assert_int_equal(types[i] == S_IFDIR ? testfs_rmdir(&t, ROOT, name) :
						       testfs_unlink(&t, ROOT, name),
				 0);
		assert_int_equal(find(ROOT, name), 0);
	}
	assert_int_equal(testfs_attr(&t, ROOT).size, 0);
	assert_int_equal(testfs_attr(&t, ROOT).nlink, 2);
}

static void test_bad_names(void **state)
{
	struct inode_attr attr;
	char name[257];
	uint64_t file = make_file(ROOT, "f");

	(void)state;
	memset(name, 'x', sizeof(name));
	assert_int_equal(fs_mknod(t.fs, NULL, ROOT, name, 256, S_IFREG, 0, &attr), -ENAMETOOLONG);
	assert_int_equal(fs_lookup(t.fs, ROOT, name, 256, &attr), -ENAMETOOLONG);
	assert_int_equal(fs_mknod(t.fs, NULL, ROOT, name, 255, S_IFREG, 0, &attr), 0);
	fs_forget(t.fs, attr.ino, 1);
	assert_int_equal(fs_unlink(t.fs, ROOT, name, 255), 0);
	assert_int_equal(fs_mknod(t.fs, NULL, ROOT, "a/b", 3, S_IFREG, 0, &attr), -EINVAL);
	assert_int_equal(fs_mknod(t.fs, NULL, ROOT, "", 0, S_IFREG, 0, &attr), -ENOENT);
	assert_int_equal(testfs_mknod(&t, ROOT, ".", S_IFREG, NULL), -EEXIST);
	assert_int_equal(testfs_mknod(&t, ROOT, "..", S_IFREG, NULL), -EEXIST);
	assert_int_equal(testfs_rmdir(&t, ROOT, "."), -EINVAL);
	assert_int_equal(testfs_rmdir(&t, ROOT, ".."), -ENOTEMPTY);
	assert_int_equal(testfs_mknod(&t, file, "x", S_IFREG, NULL), -ENOTDIR);
	assert_int_equal(testfs_lookup(&t, file, "x", NULL), -ENOTDIR);
	assert_int_equal(testfs_unlink(&t, file, "x"), -ENOTDIR);
	assert_int_equal(testfs_mknod(&t, 12345, "x", S_IFREG, NULL), -ESTALE);
	assert_int_equal(testfs_mknod(&t, UINT64_MAX, "x", S_IFREG, NULL), -ESTALE);
	assert_int_equal(testfs_lookup(&t, 0, "x", NULL), -ESTALE);
}

static void test_dots(void **state)
{
	uint64_t a = make_dir(ROOT, "a"), b = make_dir(a, "b"), f = make_file(b, "f");

	(void)state;
	assert_int_equal(find(b, "."), b);
	assert_int_equal(find(b, ".."), a);
	assert_int_equal(find(a, ".."), ROOT);
	assert_int_equal(find(ROOT, ".."), ROOT);
	assert_int_equal(find(f, "."), f);
	assert_path(ROOT, "/");
	assert_path(f, "/a/b/f");
}

static void test_remove_rules(void **state)
{
	uint64_t d = make_dir(ROOT, "d");

	(void)state;
	make_file(d, "f");
	assert_int_equal(testfs_rmdir(&t, ROOT, "d"), -ENOTEMPTY);
	assert_int_equal(testfs_unlink(&t, ROOT, "d"), -EISDIR);
	assert_int_equal(testfs_rmdir(&t, d, "f"), -ENOTDIR);
	assert_int_equal(testfs_unlink(&t, d, "g"), -ENOENT);
	assert_int_equal(testfs_unlink(&t, d, "f"), 0);
	assert_int_equal(testfs_rmdir(&t, ROOT, "d"), 0);
	assert_int_equal(testfs_mknod(&t, d, "x", S_IFREG, NULL), -ESTALE);
}

static void test_removed_directory(void **state)
{
	struct inode_attr attr;

	(void)state;
	assert_int_equal(testfs_mknod(&t, ROOT, "d", S_IFDIR | 0755, &attr), 0);
	assert_int_equal(testfs_rmdir(&t, ROOT, "d"), 0);
	assert_int_equal(testfs_mknod(&t, attr.ino, "x", S_IFREG, NULL), -ENOENT);
	assert_int_equal(testfs_attr(&t, attr.ino).nlink, 0);
	fs_forget(t.fs, attr.ino, 1);
	assert_int_equal(fs_getattr(t.fs, attr.ino, &attr), -ESTALE);
}

static void test_links(void **state)
{
	uint64_t d = make_dir(ROOT, "d"), f = make_file(ROOT, "f");

	(void)state;
	assert_int_equal(testfs_link(&t, f, d, "g"), 0);
	assert_int_equal(testfs_link(&t, f, d, "g"), -EEXIST);
	assert_int_equal(testfs_link(&t, d, ROOT, "x"), -EPERM);
	assert_int_equal(testfs_link(&t, 999999, ROOT, "x"), -ESTALE);
	assert_int_equal(testfs_attr(&t, f).nlink, 2);
	assert_int_equal(testfs_unlink(&t, ROOT, "f"), 0);
	assert_path(f, "/d/g");
	assert_int_equal(testfs_rename(&t, d, "g", ROOT, "h", 0), 0);
	assert_path(f, "/h");
	assert_int_equal(testfs_attr(&t, f).nlink, 1);
	assert_int_equal(testfs_unlink(&t, ROOT, "h"), 0);
	assert_int_equal(find(ROOT, "h"), 0);
}

static void test_symlinks(void **state)
{
	static const size_t lengths[] = { 1, 100, INODE_INLINE_MAX, INODE_INLINE_MAX + 1, FS_SYMLINK_MAX };
	char target[FS_SYMLINK_MAX + 1], got[FS_SYMLINK_MAX + 1];
	struct inode_attr attr;

	(void)state;
	memset(target, 'a', sizeof(target));
	for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
		assert_int_equal(fs_symlink(t.fs, &testfs_root, ROOT, "s", 1, target, lengths[i], &attr), 0);
		assert_int_equal(attr.size, lengths[i]);
		assert_int_equal(attr.mode, S_IFLNK | 0777);
		fs_forget(t.fs, attr.ino, 1);
		testfs_remount(&t);
		assert_int_equal(fs_readlink(t.fs, find(ROOT, "s"), got), 0);
		assert_int_equal(strlen(got), lengths[i]);
		assert_memory_equal(got, target, lengths[i]);
		assert_int_equal(testfs_unlink(&t, ROOT, "s"), 0);
	}
	assert_int_equal(fs_symlink(t.fs, NULL, ROOT, "s", 1, target, sizeof(target), &attr), -ENAMETOOLONG);
	assert_int_equal(fs_symlink(t.fs, NULL, ROOT, "s", 1, target, 0, &attr), -ENOENT);
	assert_int_equal(fs_readlink(t.fs, ROOT, got), -EINVAL);
}

/* ---- rename ---- */

static void test_rename_plain(void **state)
{
	uint64_t a = make_dir(ROOT, "a"), b = make_dir(ROOT, "b"), sub = make_dir(a, "sub"),
		 f = make_file(sub, "f");

	(void)state;
	assert_int_equal(testfs_rename(&t, a, "sub", b, "moved", 0), 0);
	assert_path(f, "/b/moved/f");
	assert_int_equal(testfs_attr(&t, a).nlink, 2);
	assert_int_equal(testfs_attr(&t, b).nlink, 3);
	assert_int_equal(testfs_attr(&t, a).size, 0);
	assert_int_equal(find(sub, ".."), b);
	assert_int_equal(testfs_rename(&t, ROOT, "b", sub, "x", 0), -EINVAL);
	assert_int_equal(testfs_rename(&t, b, "moved", sub, "x", 0), -EINVAL);
	assert_int_equal(testfs_rename(&t, ROOT, "b", b, "x", 0), -EINVAL);
	assert_int_equal(testfs_rename(&t, sub, "f", ROOT, "b", 0), -EISDIR);
	assert_int_equal(testfs_rename(&t, ROOT, "a", sub, "f", 0), -ENOTDIR);
	assert_int_equal(testfs_rename(&t, ROOT, "a", ROOT, "b", 0), -ENOTEMPTY);
	assert_int_equal(testfs_rename(&t, sub, "f", ROOT, "g", 0), 0);
	assert_int_equal(testfs_rename(&t, ROOT, "a", b, "moved", 0), 0);
	assert_path(a, "/b/moved");
	assert_int_equal(testfs_attr(&t, ROOT).nlink, 3);
	assert_int_equal(testfs_rename(&t, ROOT, "none", b, "y", 0), -ENOENT);
	assert_int_equal(testfs_rename(&t, ROOT, "g", ROOT, "g", 0), 0);
	assert_int_equal(testfs_rename(&t, ROOT, "g", ROOT, "..", 0), -EBUSY);
}

static void test_rename_over(void **state)
{
	uint64_t f = make_file(ROOT, "f"), g = make_file(ROOT, "g");

	(void)state;
	assert_int_equal(testfs_rename(&t, ROOT, "f", ROOT, "g", RENAME_NOREPLACE), -EEXIST);
	assert_int_equal(testfs_link(&t, f, ROOT, "f2"), 0);
	assert_int_equal(testfs_rename(&t, ROOT, "f", ROOT, "f2", 0), 0); /* one inode: nothing happens */
	assert_int_equal(testfs_attr(&t, f).nlink, 2);
	assert_int_equal(testfs_rename(&t, ROOT, "f", ROOT, "g", 0), 0);
	assert_int_equal(find(ROOT, "g"), f);
	assert_int_equal(find(ROOT, "f"), 0);
	assert_int_equal(testfs_attr(&t, ROOT).size, 2);
	assert_int_equal(fs_getattr(t.fs, g, &(struct inode_attr){ 0 }), -ESTALE);
}

static void test_rename_exchange(void **state)
{
	uint64_t a = make_dir(ROOT, "a"), b = make_dir(ROOT, "b"), d = make_dir(a, "d"),
		 f = make_file(b, "f");

	(void)state;
	assert_int_equal(testfs_rename(&t, a, "d", b, "f", RENAME_EXCHANGE), 0);
	assert_path(f, "/a/d");
	assert_path(d, "/b/f");
	assert_int_equal(testfs_attr(&t, a).nlink, 2);
	assert_int_equal(testfs_attr(&t, b).nlink, 3);
	assert_int_equal(testfs_rename(&t, a, "d", b, "none", RENAME_EXCHANGE), -ENOENT);
	assert_int_equal(testfs_rename(&t, ROOT, "b", b, "f", RENAME_EXCHANGE), -EINVAL);
	assert_int_equal(testfs_rename(&t, b, "f", ROOT, "b", RENAME_EXCHANGE), -EINVAL);
	assert_int_equal(testfs_rename(&t, ROOT, "a", ROOT, "b", RENAME_EXCHANGE), 0);
	assert_path(d, "/a/f");
	assert_int_equal(testfs_rename(&t, a, "f", b, "d", RENAME_EXCHANGE | RENAME_NOREPLACE), -EINVAL);
}

static void test_rename_whiteout(void **state)
{
	uint64_t f = make_file(ROOT, "f"), white;
	struct inode_attr attr;

	(void)state;
	assert_int_equal(testfs_rename(&t, ROOT, "f", ROOT, "g", RENAME_WHITEOUT), 0);
	assert_path(f, "/g");
	white = find(ROOT, "f");
	assert_true(white != 0 && white != f);
	assert_path(white, "/f");
	assert_int_equal(fs_getattr(t.fs, white, &attr), 0);
	assert_int_equal(attr.mode, S_IFCHR);
	assert_int_equal(attr.rdev, 0);
	assert_int_equal(testfs_attr(&t, ROOT).size, 2);
}

/* ---- reading directories ---- */

struct reading {
	unsigned max; /* stop before more */
	unsigned count;
	uint64_t cookie;
	bool ref;
	uint64_t inos[2048];
	char names[2048][24];
};

static int take(void *arg, const struct fs_dirent *e)
{
	struct reading *r = arg;

	if (r->count == r->max)
		return 1;
	if (r->ref && e->name[0] != '.') {
		assert_non_null(e->attr);
		assert_int_equal(e->attr->ino, e->ino);
		fs_forget(t.fs, e->ino, 1);
	} else {
		assert_null(e->attr);
	}
	assert_true(e->cookie > r->cookie);
	r->cookie = e->cookie;
	r->inos[r->count] = e->ino;
	memcpy(r->names[r->count], e->name, e->name_len);
	r->names[r->count++][e->name_len] = 0;
	return 0;
}

static void test_readdir(void **state)
{
	enum { COUNT = 1000 };
	struct reading *r = calloc(1, sizeof(*r));
	uint64_t d = make_dir(ROOT, "d");
	bool seen[COUNT] = { false };
	char name[24];

	(void)state;
	for (unsigned i = 0; i < COUNT; i++) {
		snprintf(name, sizeof(name), "file-%u", i);
		make_file(d, name);
	}
	for (unsigned step = 1; r->max < COUNT + 2; step++) {
		r->ref = step % 2;
		r->max += step;
		if (r->max > COUNT + 2)
			r->max = COUNT + 2;
		assert_int_equal(fs_readdir(t.fs, d, r->cookie, r->ref, take, r), 0);
		assert_int_equal(r->count, r->max);
		/* Others come and go: those that stay are seen once all the same. */
		snprintf(name, sizeof(name), "other-%u", step);
		if (step % 3 == 0)
			assert_int_equal(testfs_mknod(&t, ROOT, name, S_IFREG, NULL), 0);
	}
	r->max++;
	assert_int_equal(fs_readdir(t.fs, d, r->cookie, false, take, r), 0);
	assert_int_equal(r->count, COUNT + 2);
	assert_string_equal(r->names[0], ".");
	assert_int_equal(r->inos[0], d);
	assert_string_equal(r->names[1], "..");
	assert_int_equal(r->inos[1], ROOT);
	for (unsigned i = 2; i < r->count; i++) {
		unsigned n = (unsigned)strtoul(r->names[i] + 5, NULL, 10);

		assert_false(seen[n]);
		seen[n] = true;
		assert_int_equal(find(d, r->names[i]), r->inos[i]);
	}
	fs_work(t.fs); /* access times */
	assert_int_equal(fs_cached_inodes(t.fs), 0);
	assert_int_equal(fs_readdir(t.fs, find(ROOT, "other-3"), 0, false, take, r), -ENOTDIR);
	free(r);
}

/* ---- references, orphans ---- */

static void test_unlinked_but_referenced(void **state)
{
	struct inode_attr attr, other;
	uint64_t gen;

	(void)state;
	assert_int_equal(testfs_mknod(&t, ROOT, "f", S_IFREG | 0644, &attr), 0);
	gen = attr.gen;
	assert_int_equal(fs_opened(t.fs, attr.ino, FS_OPEN_WRITE, &testfs_root), 0);
	assert_int_equal(testfs_unlink(&t, ROOT, "f"), 0);
	fs_forget(t.fs, attr.ino, 1);
	assert_int_equal(fs_getattr(t.fs, attr.ino, &attr), 0);
	assert_int_equal(attr.nlink, 0);
	make_file(ROOT, "g");
	assert_true(find(ROOT, "g") != attr.ino);
	assert_int_equal(fs_ref(t.fs, attr.ino, gen + 1, &other), -ESTALE);
	fs_closed(t.fs, attr.ino, FS_OPEN_WRITE);
	assert_int_equal(fs_getattr(t.fs, attr.ino, &other), -ESTALE);
	assert_int_equal(fs_ref(t.fs, attr.ino, gen, &other), -ESTALE);
	assert_int_equal(testfs_unlink(&t, ROOT, "g"), 0);
}

static void test_tmpfile(void **state)
{
	struct inode_attr attr;

	(void)state;
	assert_int_equal(fs_tmpfile(t.fs, &testfs_root, ROOT, 0600, &attr), 0);
	assert_int_equal(attr.nlink, 0);
	assert_int_equal(testfs_link(&t, attr.ino, ROOT, "named"), 0);
	fs_forget(t.fs, attr.ino, 1);
	assert_int_equal(find(ROOT, "named"), attr.ino);
	assert_int_equal(testfs_attr(&t, attr.ino).nlink, 1);
	assert_int_equal(fs_tmpfile(t.fs, &testfs_root, ROOT, 0600, &attr), 0);
	fs_forget(t.fs, attr.ino, 1);
	assert_int_equal(fs_getattr(t.fs, attr.ino, &attr), -ESTALE);
}

static void test_orphans_after_crash(void **state)
{
	struct inode_attr tmp, dir, file;
	struct fs_statfs before, after;

	(void)state;
	assert_int_equal(fs_statfs(t.fs, &before), 0);
	assert_int_equal(fs_tmpfile(t.fs, &testfs_root, ROOT, 0600, &tmp), 0);
	assert_int_equal(testfs_mknod(&t, ROOT, "d", S_IFDIR | 0755, &dir), 0);
	assert_int_equal(testfs_mknod(&t, ROOT, "f", S_IFREG | 0644, &file), 0);
	assert_int_equal(testfs_rmdir(&t, ROOT, "d"), 0);
	assert_int_equal(testfs_unlink(&t, ROOT, "f"), 0);
	testfs_crash(&t);
	assert_int_equal(fs_getattr(t.fs, tmp.ino, &tmp), 0);
	/* Referenced again before the old mount's orphans are looked at: number and content stay, but not as a name of a lost file. */
	assert_int_equal(fs_ref(t.fs, dir.ino, dir.gen, &dir), -ESTALE);
	fs_work(t.fs);
	assert_int_equal(fs_getattr(t.fs, tmp.ino, &tmp), -ESTALE);
	assert_int_equal(fs_getattr(t.fs, dir.ino, &dir), -ESTALE);
	assert_int_equal(fs_getattr(t.fs, file.ino, &file), -ESTALE);
	assert_int_equal(fs_statfs(t.fs, &after), 0);
	assert_int_equal(after.free_blk, before.free_blk);
}

static void test_removed_at_once_many(void **state)
{
	struct fs_statfs before, after;
	char name[16];

	(void)state;
	make_file(ROOT, "first");
	assert_int_equal(fs_statfs(t.fs, &before), 0);
	for (unsigned i = 0; i < 2000; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		make_file(ROOT, name);
	}
	for (unsigned i = 0; i < 2000; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		assert_int_equal(testfs_unlink(&t, ROOT, name), 0);
	}
	assert_int_equal(testfs_attr(&t, ROOT).size, 1);
	assert_int_equal(fs_statfs(t.fs, &after), 0);
	assert_int_equal(after.total_blk, before.total_blk);
}

static void test_closed_with_references(void **state)
{
	struct inode_attr file, tmp, dir;

	(void)state;
	assert_int_equal(testfs_mknod(&t, ROOT, "d", S_IFDIR | 0755, &dir), 0);
	assert_int_equal(testfs_mknod(&t, ROOT, "f", S_IFREG | 0644, &file), 0);
	assert_int_equal(fs_tmpfile(t.fs, &testfs_root, ROOT, 0600, &tmp), 0);
	assert_int_equal(fs_opened(t.fs, tmp.ino, FS_OPEN_WRITE, &testfs_root), 0);
	assert_int_equal(testfs_unlink(&t, ROOT, "f"), 0);
	testfs_remount(&t);
	assert_int_equal(fs_getattr(t.fs, file.ino, &file), -ESTALE);
	assert_int_equal(fs_getattr(t.fs, tmp.ino, &tmp), -ESTALE);
	assert_int_equal(fs_getattr(t.fs, dir.ino, &dir), 0);
}

static void test_failed_pool(void **state)
{
	struct inode_attr attr;

	(void)state;
	assert_int_equal(testfs_mknod(&t, ROOT, "f", S_IFREG | 0644, &attr), 0);
	assert_int_equal(testfs_unlink(&t, ROOT, "f"), 0);
	make_file(ROOT, "g");
	pool_fail(t.pool, "a test says so");
	fs_forget(t.fs, attr.ino, 1);
	assert_int_equal(testfs_mknod(&t, ROOT, "h", S_IFREG, NULL), -EROFS);
	assert_int_equal(testfs_unlink(&t, ROOT, "g"), -EROFS);
	assert_true(find(ROOT, "g") != 0);
}

/* Until nothing fits any more; everything can be removed again, as often as one likes. */
static void test_full_pool(void **state)
{
	uint64_t counts[3] = { 0 };
	struct fs_statfs st;
	char name[256];

	(void)state;
	testfs_free(&t);
	testfs_make(&t, &(struct testfs_opts){ .size_bytes = (uint64_t)16 << 20 });
	memset(name, 'x', sizeof(name));
	for (unsigned round = 0; round < 3; round++) {
		struct inode_attr attr;
		int rc = 0;

		while (!rc) {
			int len = snprintf(name, sizeof(name), "%0200llu", (unsigned long long)counts[round]);

			rc = fs_mknod(t.fs, &testfs_root, ROOT, name, (size_t)len, S_IFREG | 0644, 0, &attr);
			if (rc)
				break;
			fs_forget(t.fs, attr.ino, 1);
			counts[round]++;
		}
		assert_int_equal(rc, -ENOSPC);
		assert_true(counts[round] > 500);
		assert_int_equal(testfs_attr(&t, ROOT).size, counts[round]);
		for (uint64_t i = 0; i < counts[round]; i++) {
			int len = snprintf(name, sizeof(name), "%0200llu", (unsigned long long)i);

			assert_int_equal(fs_unlink(t.fs, ROOT, name, (size_t)len), 0);
		}
		assert_int_equal(fs_statfs(t.fs, &st), 0);
	}
	assert_true(counts[2] * 10 >= counts[1] * 9);
}

static void test_readonly(void **state)
{
	make_file(ROOT, "f");
	t.opts.fs.readonly = true;
	testfs_remount(&t);
	(void)state;
	assert_int_equal(testfs_mknod(&t, ROOT, "g", S_IFREG, NULL), -EROFS);
	assert_int_equal(testfs_unlink(&t, ROOT, "f"), -EROFS);
	assert_true(find(ROOT, "f") != 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_make_and_find),
		T(test_bad_names),
		T(test_dots),
		T(test_remove_rules),
		T(test_removed_directory),
		T(test_links),
		T(test_symlinks),
		T(test_rename_plain),
		T(test_rename_over),
		T(test_rename_exchange),
		T(test_rename_whiteout),
		T(test_readdir),
		T(test_unlinked_but_referenced),
		T(test_tmpfile),
		T(test_orphans_after_crash),
		T(test_removed_at_once_many),
		T(test_closed_with_references),
		T(test_failed_pool),
		T(test_full_pool),
		T(test_readonly),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
