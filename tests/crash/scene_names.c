/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * All that changes names and attributes, in small and in large directories.
 */
#include <errno.h>
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

static void make_open(struct scene *s)
{
	if (fs_opened(s->t->fs, s->file, FS_OPEN_WRITE, &testfs_root) == 0)
		s->opens++;
}

static void make_open_unlinked(struct scene *s)
{
	(void)!fs_write(s->t->fs, &testfs_root, s->file, scene_bytes(50000, 1), 50000, 0, 0);
	make_xattrs(s);
	make_open(s);
	(void)!testfs_unlink(s->t, INODE_ROOT, "f");
}

static void make_tmpfile(struct scene *s)
{
	struct inode_attr a;

	if (s->tmp || fs_tmpfile(s->t->fs, &testfs_root, INODE_ROOT, 0600, &a) != 0)
		return;
	s->tmp = a.ino;
	scene_fill(s, a.ino, 0, 9000, 4);
}

static void add_name(struct scene *s, uint64_t ino, unsigned i)
{
	char name[20];

	snprintf(name, sizeof(name), "name-%u", i);
	scene_make(s, ino, name, S_IFREG | 0600);
}

/* "d" with so many names that the next one needs another node. */
static void make_names(struct scene *s, unsigned nodes)
{
	unsigned count = scene_full(s, add_name, S_IFDIR | 0700, nodes);
	uint64_t d = scene_make(s, INODE_ROOT, "d", S_IFDIR | 0755);

	for (unsigned i = 0; i < count; i++)
		add_name(s, d, i);
}

static void make_root_full(struct scene *s)
{
	make_names(s, 0);
}

static void make_leaf_full(struct scene *s)
{
	make_names(s, 1);
}

static void add_xattr(struct scene *s, uint64_t ino, unsigned i)
{
	char name[20];

	snprintf(name, sizeof(name), "user.%u", i);
	(void)!set_xattr(s, ino, name, 20, (uint8_t)i);
}

static void make_some_xattrs(struct scene *s, unsigned nodes)
{
	unsigned count = scene_full(s, add_xattr, S_IFREG | 0600, nodes);

	for (unsigned i = 0; i < count; i++)
		add_xattr(s, s->file, i);
}

static void make_xattr_root_full(struct scene *s)
{
	make_some_xattrs(s, 0);
}

static void make_xattr_leaf_full(struct scene *s)
{
	make_some_xattrs(s, 1);
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

static int64_t create_in_dir(struct scene *s)
{
	return testfs_mknod(s->t, sub(s, "d"), "another", S_IFREG | 0640, NULL);
}

static int64_t link_in_dir(struct scene *s)
{
	return testfs_link(s->t, s->file, sub(s, "d"), "another");
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

static int64_t write_unlinked(struct scene *s)
{
	return fs_write(s->t->fs, &testfs_root, s->file, scene_bytes(7000, 9), 7000, 40000, 0);
}

/* It may have another name. */
static void mix_write_unlinked(struct scene *s, struct snapshot_mix *mix)
{
	*mix = (struct snapshot_mix){ s->file, 40000, 47000, false };
}

static int64_t close_unlinked(struct scene *s)
{
	if (s->opens == 0)
		return -ENOENT;
	s->opens--;
	fs_closed(s->t->fs, s->file, FS_OPEN_WRITE);
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
	int rc = testfs_link(s->t, s->tmp, INODE_ROOT, "named");

	if (s->tmp)
		fs_forget(s->t->fs, s->tmp, 1);
	s->tmp = 0;
	return rc;
}

const struct scene_op name_ops[] = {
	{ "create", create, NULL, NULL },
	{ "create-in-tree", create_in_tree, NULL, make_big_dir },
	{ "create-root-full", create_in_dir, NULL, make_root_full },
	{ "create-leaf-full", create_in_dir, NULL, make_leaf_full },
	{ "link-leaf-full", link_in_dir, NULL, make_leaf_full },
	{ "mkdir", make_dir, NULL, NULL },
	{ "mkdir-acl", make_dir_acl, NULL, make_default_acl },
	{ "mknod", make_node, NULL, NULL },
	{ "symlink", symlink_short, NULL, NULL },
	{ "symlink-long", symlink_long, NULL, NULL },
	{ "link", link_one, NULL, NULL },
	{ "link-in-tree", link_in_tree, NULL, make_links },
	{ "unlink-last", unlink_one, NULL, make_xattrs },
	{ "unlink-many-xattrs", unlink_one, NULL, make_many_xattrs },
	{ "unlink-one-of-two", unlink_one, NULL, make_two_links },
	{ "unlink-in-tree", unlink_in_tree, NULL, make_big_dir },
	{ "unlink-link-in-tree", unlink_in_tree, NULL, make_links },
	{ "unlink-open", unlink_one, NULL, make_open },
	{ "write-unlinked", write_unlinked, mix_write_unlinked, make_open_unlinked },
	{ "close-unlinked", close_unlinked, NULL, make_open_unlinked },
	{ "rmdir", remove_dir, NULL, make_dirs },
	{ "rename", rename_in, NULL, NULL },
	{ "rename-between", rename_between, NULL, make_dirs },
	{ "rename-over-file", rename_over, NULL, make_dirs },
	{ "rename-dir", rename_dir, NULL, make_dirs },
	{ "rename-dir-over", rename_dir_over, NULL, make_dirs_and_empty },
	{ "rename-onto-link", rename_onto_link, NULL, make_two_links },
	{ "exchange", exchange_files, NULL, make_dirs },
	{ "exchange-dir", exchange_dir, NULL, make_dirs },
	{ "rename-noreplace", rename_noreplace, NULL, NULL },
	{ "rename-whiteout", rename_whiteout, NULL, NULL },
	{ "setattr", set_attr, NULL, NULL },
	{ "setxattr", xattr_small, NULL, NULL },
	{ "setxattr-large", xattr_large, NULL, NULL },
	{ "setxattr-new-chunk", xattr_large, NULL, make_few_units },
	{ "setxattr-shrink", xattr_shrink, NULL, make_xattrs },
	{ "setxattr-grow", xattr_grow, NULL, make_xattrs },
	{ "setxattr-other", xattr_other_large, NULL, make_xattrs },
	{ "setxattr-many", xattr_small, NULL, make_many_xattrs },
	{ "setxattr-root-full", xattr_small, NULL, make_xattr_root_full },
	{ "setxattr-leaf-full", xattr_small, NULL, make_xattr_leaf_full },
	{ "removexattr-large", xattr_remove_large, NULL, make_xattrs },
	{ "removexattr-many", xattr_remove_one, NULL, make_many_xattrs },
	{ "set-acl", acl_set, NULL, NULL },
	{ "tmpfile", tmpfile_make, NULL, NULL },
	{ "tmpfile-link", tmpfile_link, NULL, make_tmpfile },
};
const unsigned name_op_count = ARRAY_SIZE(name_ops);
