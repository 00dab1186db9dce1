/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The scene and its calls.
 */
#include "fs_calls.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define EXTENTS 120u /* of the files a and b: a tree of its own */
#define NAMES 200u   /* of the directory 'many' */
#define DEPTH 40u    /* directories one in the other */

/* Numbers of what is in the scene; the same in each copy of it. */
static uint64_t ino_a, ino_b, ino_c, ino_many, ino_deep[DEPTH], ino_link, ino_heir, ino_x;
static uint8_t big[100000];

static const struct fs_cred user = { .uid = 1000, .gid = 1000 };

static void must(int64_t rc, const char *what)
{
	if (rc < 0) {
		fprintf(stderr, "fs_calls: %s: %s\n", what, strerror((int)-rc));
		abort();
	}
}

static void shred(struct testfs *t, uint64_t ino)
{
	for (unsigned i = 0; i < EXTENTS; i++)
		must(fs_write(t->fs, &testfs_root, ino, big + i, BLOCK_SIZE, (uint64_t)2 * i * BLOCK_SIZE, 0),
		     "write");
}

/* owner, group and others as usual, and one more user */
static void acl_make(uint8_t acl[44])
{
	static const uint16_t entries[5][2] = { { 1, 7 }, { 2, 6 }, { 4, 5 }, { 0x10, 7 }, { 0x20, 5 } };

	memset(acl, 0xff, 44);
	memcpy(acl, &(uint32_t){ 2 }, 4);
	for (unsigned i = 0; i < 5; i++) {
		memcpy(acl + 4 + 8 * i, entries[i], 4);
		if (entries[i][0] == 2)
			memcpy(acl + 8 + 8 * i, &(uint32_t){ 77 }, 4);
	}
}

static void names_make(struct testfs *t)
{
	struct inode_attr attr;
	uint8_t acl[44];
	char name[80];
	uint64_t dir = INODE_ROOT;

	ino_many = testfs_node(t, INODE_ROOT, "many", S_IFDIR | 0755);
	for (unsigned i = 0; i < NAMES; i++) {
		snprintf(name, sizeof(name), "a-name-that-takes-some-room-in-the-tree-%u", i);
		testfs_node(t, ino_many, name, S_IFREG | 0644);
	}
	for (unsigned i = 0; i < DEPTH; i++)
		dir = ino_deep[i] = testfs_node(t, dir, "deep", S_IFDIR | 0755);
	testfs_node(t, INODE_ROOT, "empty", S_IFDIR | 0755);
	must(fs_symlink(t->fs, &testfs_root, INODE_ROOT, "link", 4, "target", 6, &attr), "symlink");
	fs_forget(t->fs, attr.ino, 1);
	ino_link = attr.ino;
	ino_heir = testfs_node(t, INODE_ROOT, "heir", S_IFDIR | 0775);
	acl_make(acl);
	must(fs_setxattr(t->fs, ino_heir, "system.posix_acl_default", acl, sizeof(acl), 0, false), "acl");
}

void *fs_calls_image(void)
{
	struct testfs_opts opts = { .size_bytes = FS_CALLS_BYTES, .format.lane_size_bytes = 256u << 10 };
	void *image = malloc(FS_CALLS_BYTES);
	struct testfs t;

	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (uint8_t)(i * 7 + i / 251);
	testfs_make(&t, &opts);
	ino_a = testfs_node(&t, INODE_ROOT, "a", S_IFREG | 0644);
	ino_b = testfs_node(&t, INODE_ROOT, "b", S_IFREG | 0644);
	ino_c = testfs_node(&t, INODE_ROOT, "c", S_IFREG | 0644);
	ino_x = testfs_node(&t, INODE_ROOT, "x", S_IFREG | 0644);
	shred(&t, ino_a);
	must(fs_clone(t.fs, &testfs_root, ino_a, 0, ino_b, 0, EXTENTS * BLOCK_SIZE, 0, NULL), "clone");
	must(fs_setxattr(t.fs, ino_x, "user.small", big, 20, 0, false), "setxattr");
	must(fs_setxattr(t.fs, ino_x, "user.large", big, 30000, 0, false), "setxattr");
	names_make(&t);
	fs_work(t.fs);
	testfs_remount(&t);
	memcpy(image, dax_ptr(t.dax, 0), FS_CALLS_BYTES);
	testfs_free(&t);
	return image;
}

/* ---- the calls ---- */

/* Gives back the reference that a call has given. */
static int64_t drop(struct testfs *t, int rc, const struct inode_attr *attr)
{
	if (!rc)
		fs_forget(t->fs, attr->ino, 1);
	return rc;
}

static int64_t do_lookup(struct testfs *t)
{
	struct inode_attr attr;

	return drop(t, fs_lookup(t->fs, INODE_ROOT, "a", 1, &attr), &attr);
}

static int64_t do_getattr(struct testfs *t)
{
	struct inode_attr attr;

	return fs_getattr(t->fs, ino_a, &attr);
}

static int64_t do_mknod(struct testfs *t)
{
	struct inode_attr attr;

	return drop(t, fs_mknod(t->fs, &user, ino_many, "new", 3, S_IFREG | 0644, 0, &attr), &attr);
}

static int64_t do_mkdir(struct testfs *t)
{
	struct inode_attr attr;

	return drop(t, fs_mknod(t->fs, &user, ino_heir, "new", 3, S_IFDIR | 0755, 0, &attr), &attr);
}

static int64_t do_tmpfile(struct testfs *t)
{
	struct inode_attr attr, linked;
	int rc = fs_tmpfile(t->fs, &user, INODE_ROOT, 0644, &attr);

	if (rc)
		return rc;
	rc = fs_link(t->fs, attr.ino, INODE_ROOT, "named", 5, &linked);
	if (!rc)
		fs_forget(t->fs, linked.ino, 1);
	fs_forget(t->fs, attr.ino, 1);
	return rc;
}

static int64_t do_symlink(struct testfs *t)
{
	struct inode_attr attr;
	char target[FS_SYMLINK_MAX];

	memset(target, 't', sizeof(target));
	return drop(t, fs_symlink(t->fs, &user, INODE_ROOT, "new", 3, target, sizeof(target), &attr), &attr);
}

static int64_t do_readlink(struct testfs *t)
{
	char target[FS_SYMLINK_MAX + 1];

	return fs_readlink(t->fs, ino_link, target);
}

static int64_t do_link(struct testfs *t)
{
	return testfs_link(t, ino_a, ino_many, "another");
}

static int64_t do_unlink(struct testfs *t)
{
	int rc = testfs_unlink(t, INODE_ROOT, "b");

	fs_work(t->fs);
	return rc;
}

static int64_t do_unlink_open(struct testfs *t)
{
	int rc = fs_opened(t->fs, ino_b, FS_OPEN_WRITE, &testfs_root);

	if (rc)
		return rc;
	rc = testfs_unlink(t, INODE_ROOT, "b");
	fs_closed(t->fs, ino_b, FS_OPEN_WRITE);
	fs_work(t->fs);
	return rc;
}

static int64_t do_rmdir(struct testfs *t)
{
	return testfs_rmdir(t, INODE_ROOT, "empty");
}

static int64_t do_rename(struct testfs *t)
{
	return testfs_rename(t, INODE_ROOT, "a", ino_many, "b", 0);
}

static int64_t do_rename_over(struct testfs *t)
{
	int rc = testfs_rename(t, INODE_ROOT, "a", INODE_ROOT, "b", 0);

	fs_work(t->fs);
	return rc;
}

static int64_t do_rename_deep(struct testfs *t)
{
	return testfs_rename(t, INODE_ROOT, "empty", ino_deep[DEPTH - 1], "empty", 0);
}

static int64_t do_exchange(struct testfs *t)
{
	return testfs_rename(t, INODE_ROOT, "a", ino_deep[1], "deep", RENAME_EXCHANGE);
}

static int entry_count(void *arg, const struct fs_dirent *entry)
{
	(void)entry;
	++*(unsigned *)arg;
	return 0;
}

static int64_t do_readdir(struct testfs *t)
{
	unsigned count = 0;

	return fs_readdir(t->fs, ino_many, 0, false, entry_count, &count);
}

static int64_t do_write(struct testfs *t)
{
	return fs_write(t->fs, &user, ino_c, big, 5000, 0, 0);
}

static int64_t do_write_big(struct testfs *t)
{
	return fs_write(t->fs, &user, ino_c, big, sizeof(big), 77777, 0);
}

static int64_t do_overwrite(struct testfs *t)
{
	return fs_write(t->fs, &user, ino_a, big, sizeof(big), 5000, FS_WRITE_KILLPRIV);
}

static int64_t do_append(struct testfs *t)
{
	return fs_write(t->fs, &user, ino_b, big, 10000, 0, FS_WRITE_APPEND);
}

static int64_t do_read(struct testfs *t)
{
	static uint8_t buf[200000];

	return fs_read(t->fs, ino_a, buf, sizeof(buf), 1000);
}

static int64_t set(struct testfs *t, uint64_t ino, struct fs_set what)
{
	struct inode_attr attr;

	return fs_setattr(t->fs, &user, ino, &what, &attr);
}

static int64_t do_truncate(struct testfs *t)
{
	return set(t, ino_a, (struct fs_set){ .what = FS_SET_SIZE, .size = 4097 });
}

static int64_t do_chmod(struct testfs *t)
{
	return set(t, ino_heir, (struct fs_set){ .what = FS_SET_MODE | FS_SET_UID, .mode = 0700, .uid = 5 });
}

static int64_t alloc(struct testfs *t, uint64_t ino, int mode, uint64_t off, uint64_t len)
{
	return fs_fallocate(t->fs, &user, ino, mode, off, len);
}

static int64_t do_alloc(struct testfs *t)
{
	return alloc(t, ino_a, 0, 0, (uint64_t)2 * EXTENTS * BLOCK_SIZE);
}

static int64_t do_punch(struct testfs *t)
{
	return alloc(t, ino_a, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4097, 300000);
}

static int64_t do_zero(struct testfs *t)
{
	return alloc(t, ino_a, FALLOC_FL_ZERO_RANGE, 4097, 300000);
}

static int64_t do_collapse(struct testfs *t)
{
	return alloc(t, ino_a, FALLOC_FL_COLLAPSE_RANGE, BLOCK_SIZE, 16 * BLOCK_SIZE);
}

static int64_t do_insert(struct testfs *t)
{
	return alloc(t, ino_a, FALLOC_FL_INSERT_RANGE, BLOCK_SIZE, 16 * BLOCK_SIZE);
}

static int64_t do_unshare(struct testfs *t)
{
	return alloc(t, ino_b, FALLOC_FL_UNSHARE_RANGE, 0, EXTENTS * BLOCK_SIZE);
}

static int64_t do_clone(struct testfs *t)
{
	return fs_clone(t->fs, &user, ino_a, 0, ino_c, 0, 1u << 30, 0, NULL);
}

static int64_t do_clone_unaligned(struct testfs *t)
{
	return fs_clone(t->fs, &user, ino_a, 100, ino_c, 300, 50000, 0, NULL);
}

static int64_t do_dedupe(struct testfs *t)
{
	bool same;

	return fs_dedupe(t->fs, ino_a, 0, ino_b, 0, 64 * BLOCK_SIZE, &same);
}

static int64_t do_seek(struct testfs *t)
{
	uint64_t found;

	return fs_seek(t->fs, ino_a, 5000, SEEK_HOLE, &found);
}

static int64_t do_map(struct testfs *t)
{
	struct fs_extent extents[50];

	return fs_map(t->fs, ino_a, 0, extents, 50);
}

static int64_t do_clone_files(struct testfs *t)
{
	struct fs_clone_item items[] = {
		{ .src = ino_a, .name = "twin1", .name_len = 5 },
		{ .src = ino_x, .name = "twin2", .name_len = 5 },
	};
	unsigned done = 0;

	return fs_clone_files(t->fs, &testfs_root, ino_many, items, 2, &done);
}

void fs_calls_undo(struct testfs *t)
{
	(void)!testfs_unlink(t, ino_many, "twin1");
	(void)!testfs_unlink(t, ino_many, "twin2");
}

static int64_t do_setxattr(struct testfs *t)
{
	return fs_setxattr(t->fs, ino_x, "user.small", big, 60000, 0, false);
}

static int64_t do_set_acl(struct testfs *t)
{
	uint8_t acl[44];

	acl_make(acl);
	return fs_setxattr(t->fs, ino_c, "system.posix_acl_access", acl, sizeof(acl), 0, true);
}

static int64_t do_getxattr(struct testfs *t)
{
	uint8_t value[40000];

	return fs_getxattr(t->fs, ino_x, "user.large", value, sizeof(value));
}

static int64_t do_listxattr(struct testfs *t)
{
	char list[1000];

	return fs_listxattr(t->fs, ino_x, list, sizeof(list));
}

static int64_t do_removexattr(struct testfs *t)
{
	return fs_removexattr(t->fs, ino_x, "user.large");
}

static int64_t do_statfs(struct testfs *t)
{
	struct fs_statfs st;

	return fs_statfs(t->fs, &st);
}

static int64_t do_path(struct testfs *t)
{
	char path[1000];

	return fs_path(t->fs, ino_deep[DEPTH - 1], path, sizeof(path));
}

/* Where the data of files begins. */
static int64_t do_evacuate(struct testfs *t)
{
	struct fs_evacuation e = { .dev_off = 4 << 20, .len = 20 * BLOCK_SIZE };
	int rc = fs_evacuate(t->fs, &e);

	if (rc)
		return rc;
	do
		rc = fs_evacuate_step(t->fs, e.id, 1 << 20, &e);
	while (rc == 1);
	return rc ? rc : e.left_bytes ? -EIO : 0;
}

const struct fs_call fs_calls[] = {
	{ "lookup", do_lookup, true },
	{ "getattr", do_getattr, true },
	{ "mknod", do_mknod, false },
	{ "mkdir", do_mkdir, false },
	{ "tmpfile", do_tmpfile, false },
	{ "symlink", do_symlink, false },
	{ "readlink", do_readlink, true },
	{ "link", do_link, false },
	{ "unlink", do_unlink, false },
	{ "unlink open", do_unlink_open, false },
	{ "rmdir", do_rmdir, false },
	{ "rename", do_rename, false },
	{ "rename over", do_rename_over, false },
	{ "rename deep", do_rename_deep, false },
	{ "exchange", do_exchange, false },
	{ "readdir", do_readdir, true },
	{ "write", do_write, false },
	{ "write big", do_write_big, false },
	{ "overwrite", do_overwrite, false },
	{ "append", do_append, false },
	{ "read", do_read, true },
	{ "truncate", do_truncate, false },
	{ "chmod", do_chmod, false },
	{ "alloc", do_alloc, false },
	{ "punch", do_punch, false },
	{ "zero", do_zero, false },
	{ "collapse", do_collapse, false },
	{ "insert", do_insert, false },
	{ "unshare", do_unshare, false },
	{ "clone", do_clone, false },
	{ "clone unaligned", do_clone_unaligned, false },
	{ "dedupe", do_dedupe, false },
	{ "seek", do_seek, true },
	{ "map", do_map, true },
	{ "clone files", do_clone_files, false },
	{ "setxattr", do_setxattr, false },
	{ "set acl", do_set_acl, false },
	{ "getxattr", do_getxattr, true },
	{ "listxattr", do_listxattr, true },
	{ "removexattr", do_removexattr, false },
	{ "statfs", do_statfs, true },
	{ "path", do_path, true },
	{ "evacuate", do_evacuate, false },
};
const unsigned fs_call_count = ARRAY_SIZE(fs_calls);

/* ---- what is there ---- */

struct walk {
	struct testfs *t;
	uint64_t sum;
};

static void sum_add(uint64_t *sum, const void *bytes, size_t len)
{
	*sum += XXH3_64bits_withSeed(bytes, len, len); /* in any order: cookies may change */
}

static void file_sum(struct testfs *t, const struct inode_attr *attr, uint64_t *sum)
{
	static uint8_t bytes[2 << 20], value[65536];
	static const char *const xattrs[] = { "user.small", "user.large", "system.posix_acl_access",
					      "system.posix_acl_default" };
	ssize_t n;

	if (S_ISREG(attr->mode)) {
		n = fs_read(t->fs, attr->ino, bytes, sizeof(bytes), 0);
		must(n, "read");
		sum_add(sum, bytes, (size_t)n);
	} else if (S_ISLNK(attr->mode)) {
		must(fs_readlink(t->fs, attr->ino, (char *)bytes), "readlink");
		sum_add(sum, bytes, strlen((char *)bytes));
	}
	for (unsigned i = 0; i < ARRAY_SIZE(xattrs); i++) {
		n = fs_getxattr(t->fs, attr->ino, xattrs[i], value, sizeof(value));
		if (n != -ENODATA && n != -EOPNOTSUPP)
			must(n, xattrs[i]);
		sum_add(sum, value, n < 0 ? 0 : (size_t)n);
	}
}

static int entry_sum(void *arg, const struct fs_dirent *entry)
{
	struct walk *w = arg, below = { .t = w->t };
	struct inode_attr attr;

	if (entry->name[0] == '.')
		return 0;
	must(fs_getattr(w->t->fs, entry->ino, &attr), entry->name);
	file_sum(w->t, &attr, &below.sum);
	if (S_ISDIR(attr.mode))
		must(fs_readdir(w->t->fs, entry->ino, 0, false, entry_sum, &below), "readdir");
	below.sum += XXH3_64bits(entry->name, entry->name_len) + attr.mode * 3 + attr.size * 5 +
		     attr.nlink * 7 + attr.uid;
	sum_add(&w->sum, &below.sum, sizeof(below.sum));
	return 0;
}

uint64_t fs_calls_sum(struct testfs *t)
{
	struct walk w = { .t = t };

	must(fs_readdir(t->fs, INODE_ROOT, 0, false, entry_sum, &w), "readdir");
	return w.sum;
}
