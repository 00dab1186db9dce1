/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * All that changes names and attributes, in small and in large directories.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "crash/scenes.h"
#include "space/space.h"

#define LONG_NAMES 100u
#define TREE_NAME 200u /* bytes: a node holds few of them */

/* ---- states ---- */

/* "d" and "e": directories; "d" holds "x" and an empty directory "s", "e" holds "y". */
static uint64_t sub(struct scene *s, const char *name)
{
	struct inode_attr a;

	if (testfs_lookup(s->t, INODE_ROOT, name, &a) != 0)
		return 0;
	fs_forget(s->t->fs, a.ino, 1);
	return a.ino;
}

static void make_dirs(struct scene *s)
{
	uint64_t d = scene_make(s, INODE_ROOT, "d", S_IFDIR | 0755),
		 e = scene_make(s, INODE_ROOT, "e", S_IFDIR | 0755);

	scene_fill(s, scene_make(s, d, "x", S_IFREG | 0644), 0, 5000, 1);
	scene_make(s, d, "s", S_IFDIR | 0755);
	scene_fill(s, scene_make(s, e, "y", S_IFREG | 0644), 0, 50, 2);
}

static void long_name(char *name, unsigned i)
{
	memset(name, 'n', TREE_NAME);
	snprintf(name + TREE_NAME - 10, 11, "%010u", i);
}

/* "d" with so many names that they need a tree; i names of "f" in it when links. */
static void make_tree(struct scene *s, bool links)
{
	uint64_t d = scene_make(s, INODE_ROOT, "d", S_IFDIR | 0755);
	char name[TREE_NAME + 1];

	for (unsigned i = 0; i < LONG_NAMES; i++) {
		long_name(name, i);
		if (links)
			(void)!testfs_link(s->t, s->file, d, name);
		else
			scene_make(s, d, name, S_IFREG | 0600);
	}
}

static void make_big_dir(struct scene *s)
{
	make_tree(s, false);
}

static void make_links(struct scene *s)
{
	make_tree(s, true);
}

static void make_two_links(struct scene *s)
{
	(void)!testfs_link(s->t, s->file, INODE_ROOT, "g");
}

static int set_xattr(struct scene *s, uint64_t ino, const char *name, size_t size, uint8_t seed)
{
	return fs_setxattr(s->t->fs, ino, name, scene_bytes(size, seed), size, 0, false);
}

static void make_xattrs(struct scene *s)
{
	(void)!set_xattr(s, s->file, "user.small", 20, 1);
	(void)!set_xattr(s, s->file, "user.large", 12000, 2);
}

static void make_many_xattrs(struct scene *s)
{
	char name[40];

	for (unsigned i = 0; i < 60; i++) {
		snprintf(name, sizeof(name), "user.number.%u", i);
		(void)!set_xattr(s, s->file, name, 150, (uint8_t)i);
	}
}

/* So few metadata units are left that the next large value needs a new chunk of them. */
static void make_few_units(struct scene *s)
{
	struct space_totals totals;
	char name[20];

	for (unsigned i = 0; i < 100; i++) {
		if (space_totals(s->t->pool, &totals) != 0 || totals.meta_free_units < 112)
			return;
		snprintf(name, sizeof(name), "x%u", i);
		if (set_xattr(s, scene_make(s, INODE_ROOT, name, S_IFREG | 0600), "user.large",
			      totals.meta_free_units < 200 ? 12000 : 60000, (uint8_t)i) != 0)
			return;
	}
}

static void make_default_acl(struct scene *s)
{
	static const uint8_t acl[] = { 2,    0,    0, 0, 1,    0,    7,    0,    0xff, 0xff,
				       0xff, 0xff, 4, 0, 5,    0,    0xff, 0xff, 0xff, 0xff,
				       0x20, 0,    5, 0, 0xff, 0xff, 0xff, 0xff };

	make_dirs(s);
	(void)!fs_setxattr(s->t->fs, sub(s, "d"), "system.posix_acl_default", acl, sizeof(acl), 0, false);
}

static void make_open_unlinked(struct scene *s)
{
	scene_fill(s, s->file, 0, 50000, 1);
	make_xattrs(s);
	(void)!fs_opened(s->t->fs, s->file, true, false, &testfs_root);
	(void)!testfs_unlink(s->t, INODE_ROOT, "f");
}

static void make_tmpfile(struct scene *s)
{
	struct inode_attr a;

	if (fs_tmpfile(s->t->fs, &testfs_root, INODE_ROOT, 0600, &a) == 0) {
		s->other = a.ino;
		scene_fill(s, a.ino, 0, 9000, 4);
	}
}

/* ---- operations ---- */

static int64_t referenced(struct scene *s, int rc, const struct inode_attr *a)
{
	if (!rc)
		fs_forget(s->t->fs, a->ino, 1);
	return rc;
}

static int64_t create(struct scene *s)
{
	return testfs_mknod(s->t, INODE_ROOT, "new", S_IFREG | 0640, NULL);
}

static int64_t create_in_tree(struct scene *s)
{
	char name[TREE_NAME + 1];

	long_name(name, LONG_NAMES);
	return testfs_mknod(s->t, sub(s, "d"), name, S_IFREG | 0640, NULL);
}

static int64_t make_dir(struct scene *s)
{
	return testfs_mknod(s->t, INODE_ROOT, "new", S_IFDIR | 0750, NULL);
}

static int64_t make_dir_acl(struct scene *s)
{
	return testfs_mknod(s->t, sub(s, "d"), "new", S_IFDIR | 0750, NULL);
}

static int64_t make_node(struct scene *s)
{
	struct inode_attr a;
	int rc = fs_mknod(s->t->fs, &testfs_root, INODE_ROOT, "node", 4, S_IFBLK | 0600, 7 << 20 | 3, &a);

	return referenced(s, rc, &a);
}

static int64_t symlink_of(struct scene *s, size_t len)
{
	struct inode_attr a;
	char target[2000];
	int rc;

	memset(target, 't', sizeof(target));
	rc = fs_symlink(s->t->fs, &testfs_root, INODE_ROOT, "link", 4, target, len, &a);
	return referenced(s, rc, &a);
}

static int64_t symlink_short(struct scene *s)
{
	return symlink_of(s, 30);
}

static int64_t symlink_long(struct scene *s)
{
	return symlink_of(s, 1500);
}

static int64_t link_one(struct scene *s)
{
	return testfs_link(s->t, s->file, INODE_ROOT, "g");
}

static int64_t link_in_tree(struct scene *s)
{
	char name[TREE_NAME + 1];

	long_name(name, LONG_NAMES);
	return testfs_link(s->t, s->file, sub(s, "d"), name);
}

static int64_t unlink_one(struct scene *s)
{
	return testfs_unlink(s->t, INODE_ROOT, "f");
}

static int64_t unlink_in_tree(struct scene *s)
{
	char name[TREE_NAME + 1];

	long_name(name, LONG_NAMES / 2);
	return testfs_unlink(s->t, sub(s, "d"), name);
}

static int64_t close_unlinked(struct scene *s)
{
	fs_closed(s->t->fs, s->file, true);
	fs_work(s->t->fs);
	return 0;
}

static int64_t remove_dir(struct scene *s)
{
	return testfs_rmdir(s->t, sub(s, "d"), "s");
}

static int64_t rename_in(struct scene *s)
{
	return testfs_rename(s->t, INODE_ROOT, "f", INODE_ROOT, "renamed", 0);
}

static int64_t rename_between(struct scene *s)
{
	return testfs_rename(s->t, sub(s, "d"), "x", sub(s, "e"), "z", 0);
}

static int64_t rename_over(struct scene *s)
{
	return testfs_rename(s->t, sub(s, "d"), "x", sub(s, "e"), "y", 0);
}

static int64_t rename_dir(struct scene *s)
{
	return testfs_rename(s->t, sub(s, "d"), "s", sub(s, "e"), "s", 0);
}

static int64_t rename_dir_over(struct scene *s)
{
	struct inode_attr a;

	if (testfs_lookup(s->t, sub(s, "d"), "s", &a) != 0)
		return -1;
	fs_forget(s->t->fs, a.ino, 1);
	return testfs_rename(s->t, INODE_ROOT, "e", sub(s, "d"), "s", 0);
}

static void make_dirs_and_empty(struct scene *s)
{
	make_dirs(s);
	(void)!testfs_unlink(s->t, sub(s, "e"), "y");
}

static int64_t rename_onto_link(struct scene *s)
{
	return testfs_rename(s->t, INODE_ROOT, "o", INODE_ROOT, "g", 0);
}

static int64_t exchange_files(struct scene *s)
{
	return testfs_rename(s->t, sub(s, "d"), "x", sub(s, "e"), "y", RENAME_EXCHANGE);
}

static int64_t exchange_dir(struct scene *s)
{
	return testfs_rename(s->t, sub(s, "d"), "s", sub(s, "e"), "y", RENAME_EXCHANGE);
}

static int64_t rename_noreplace(struct scene *s)
{
	return testfs_rename(s->t, INODE_ROOT, "f", INODE_ROOT, "free", RENAME_NOREPLACE);
}

static int64_t rename_whiteout(struct scene *s)
{
	return testfs_rename(s->t, INODE_ROOT, "f", INODE_ROOT, "moved", RENAME_WHITEOUT);
}

static int64_t set_attr(struct scene *s)
{
	struct fs_set set = {
		.what = FS_SET_MODE | FS_SET_UID | FS_SET_GID | FS_SET_MTIME | FS_SET_PROJID,
		.mode = 04711,
		.uid = 1000,
		.gid = 1001,
		.projid = 7,
		.mtime = { 1000, 5 },
	};
	struct inode_attr a;

	return fs_setattr(s->t->fs, &testfs_root, s->file, &set, &a);
}

static int64_t xattr_small(struct scene *s)
{
	return set_xattr(s, s->file, "user.new", 30, 5);
}

static int64_t xattr_large(struct scene *s)
{
	return set_xattr(s, s->file, "user.new", 60000, 5);
}

static int64_t xattr_shrink(struct scene *s)
{
	return set_xattr(s, s->file, "user.large", 10, 6);
}

static int64_t xattr_grow(struct scene *s)
{
	return set_xattr(s, s->file, "user.small", 9000, 6);
}

static int64_t xattr_other_large(struct scene *s)
{
	return set_xattr(s, s->file, "user.large", 11000, 7);
}

static int64_t xattr_remove_large(struct scene *s)
{
	return fs_removexattr(s->t->fs, s->file, "user.large");
}

static int64_t xattr_remove_one(struct scene *s)
{
	return fs_removexattr(s->t->fs, s->file, "user.number.30");
}

static int64_t acl_set(struct scene *s)
{
	static const uint8_t acl[] = { 2,    0,    0,    0,    1,    0,    6,    0,    0xff, 0xff, 0xff,
				       0xff, 2,    0,    4,    0,    0xe8, 3,    0,    0,    4,    0,
				       4,    0,    0xff, 0xff, 0xff, 0xff, 0x10, 0,    4,    0,    0xff,
				       0xff, 0xff, 0xff, 0x20, 0,    0,    0,    0xff, 0xff, 0xff, 0xff };

	return fs_setxattr(s->t->fs, s->file, "system.posix_acl_access", acl, sizeof(acl), 0, false);
}

static int64_t tmpfile_make(struct scene *s)
{
	struct inode_attr a;

	return referenced(s, fs_tmpfile(s->t->fs, &testfs_root, INODE_ROOT, 0600, &a), &a);
}

static int64_t tmpfile_link(struct scene *s)
{
	int rc = testfs_link(s->t, s->other, INODE_ROOT, "named");

	fs_forget(s->t->fs, s->other, 1);
	return rc;
}

const struct name_op name_ops[] = {
	{ "create", NULL, create, false },
	{ "create-in-tree", make_big_dir, create_in_tree, false },
	{ "mkdir", NULL, make_dir, false },
	{ "mkdir-acl", make_default_acl, make_dir_acl, false },
	{ "mknod", NULL, make_node, false },
	{ "symlink", NULL, symlink_short, false },
	{ "symlink-long", NULL, symlink_long, false },
	{ "link", NULL, link_one, false },
	{ "link-in-tree", make_links, link_in_tree, false },
	{ "unlink-last", make_xattrs, unlink_one, false },
	{ "unlink-many-xattrs", make_many_xattrs, unlink_one, false },
	{ "unlink-one-of-two", make_two_links, unlink_one, false },
	{ "unlink-in-tree", make_big_dir, unlink_in_tree, false },
	{ "unlink-link-in-tree", make_links, unlink_in_tree, false },
	{ "close-unlinked", make_open_unlinked, close_unlinked, true },
	{ "rmdir", make_dirs, remove_dir, false },
	{ "rename", NULL, rename_in, false },
	{ "rename-between", make_dirs, rename_between, false },
	{ "rename-over-file", make_dirs, rename_over, false },
	{ "rename-dir", make_dirs, rename_dir, false },
	{ "rename-dir-over", make_dirs_and_empty, rename_dir_over, false },
	{ "rename-onto-link", make_two_links, rename_onto_link, false },
	{ "exchange", make_dirs, exchange_files, false },
	{ "exchange-dir", make_dirs, exchange_dir, false },
	{ "rename-noreplace", NULL, rename_noreplace, false },
	{ "rename-whiteout", NULL, rename_whiteout, false },
	{ "setattr", NULL, set_attr, false },
	{ "setxattr", NULL, xattr_small, false },
	{ "setxattr-large", NULL, xattr_large, false },
	{ "setxattr-new-chunk", make_few_units, xattr_large, false },
	{ "setxattr-shrink", make_xattrs, xattr_shrink, false },
	{ "setxattr-grow", make_xattrs, xattr_grow, false },
	{ "setxattr-other", make_xattrs, xattr_other_large, false },
	{ "setxattr-many", make_many_xattrs, xattr_small, false },
	{ "removexattr-large", make_xattrs, xattr_remove_large, false },
	{ "removexattr-many", make_many_xattrs, xattr_remove_one, false },
	{ "set-acl", NULL, acl_set, false },
	{ "tmpfile", NULL, tmpfile_make, false },
	{ "tmpfile-link", make_tmpfile, tmpfile_link, true },
};
const unsigned name_op_count = ARRAY_SIZE(name_ops);
