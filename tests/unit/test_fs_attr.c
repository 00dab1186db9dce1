/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Attributes: setattr and its rules, access times, extended attributes, ACLs.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>

#include <cmocka.h>

#include "lib/testfs.h"
#include "media/node.h"

#define ROOT INODE_ROOT
#define ACCESS "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"

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

static int set(uint64_t ino, struct fs_set what)
{
	struct inode_attr attr;

	return fs_setattr(t.fs, &testfs_root, ino, &what, &attr);
}

static void test_mode_and_owner(void **state)
{
	uint64_t f = testfs_node(&t, ROOT, "f", S_IFREG | 0644),
		 d = testfs_node(&t, ROOT, "d", S_IFDIR | 0755);
	struct inode_attr a, b;

	(void)state;
	a = testfs_attr(&t, f);
	assert_int_equal(set(f, (struct fs_set){ .what = FS_SET_MODE, .mode = S_IFDIR | 06755 }), 0);
	b = testfs_attr(&t, f);
	assert_int_equal(b.mode, S_IFREG | 06755);
	assert_true(b.ctime.s > a.ctime.s || b.ctime.ns > a.ctime.ns);
	assert_int_equal(b.mtime.ns, a.mtime.ns);
	assert_true(b.change > a.change);
	assert_int_equal(set(f, (struct fs_set){ .what = FS_SET_UID | FS_SET_GID, .uid = 5, .gid = 6 }), 0);
	b = testfs_attr(&t, f);
	assert_int_equal(b.uid, 5);
	assert_int_equal(b.gid, 6);
	assert_int_equal(b.mode, S_IFREG | 0755);
	/* setgid without group execution is mandatory locking: it stays */
	assert_int_equal(set(f, (struct fs_set){ .what = FS_SET_MODE, .mode = 06744 }), 0);
	assert_int_equal(set(f, (struct fs_set){ .what = FS_SET_KILLPRIV }), 0);
	assert_int_equal(testfs_attr(&t, f).mode, S_IFREG | 02744);
	assert_int_equal(set(d, (struct fs_set){ .what = FS_SET_MODE, .mode = 03777 }), 0);
	assert_int_equal(set(d, (struct fs_set){ .what = FS_SET_UID, .uid = 9 }), 0);
	assert_int_equal(testfs_attr(&t, d).mode, S_IFDIR | 03777);
}

static void test_setgid_directory(void **state)
{
	struct fs_cred cred = { .uid = 3, .gid = 4 };
	uint64_t d = testfs_node(&t, ROOT, "d", S_IFDIR | 0777);
	struct inode_attr attr;

	(void)state;
	assert_int_equal(
		set(d, (struct fs_set){ .what = FS_SET_MODE | FS_SET_GID, .mode = 02777, .gid = 77 }), 0);
	assert_int_equal(fs_mknod(t.fs, &cred, d, "f", 1, S_IFREG | 0666, 0, &attr), 0);
	assert_int_equal(attr.gid, 77);
	assert_int_equal(attr.mode, S_IFREG | 0666);
	assert_int_equal(fs_mknod(t.fs, &cred, d, "s", 1, S_IFDIR | 0777, 0, &attr), 0);
	assert_int_equal(attr.gid, 77);
	assert_int_equal(attr.mode, S_IFDIR | 02777);
}

static void test_times(void **state)
{
	uint64_t f = testfs_node(&t, ROOT, "f", S_IFREG | 0644);
	struct fs_set want = {
		.what = FS_SET_ATIME | FS_SET_MTIME,
		.atime = { -1234567890123, 999999999 },
		.mtime = { 1ll << 40, 1 },
	};
	struct inode_attr a = testfs_attr(&t, f), b;

	(void)state;
	assert_int_equal(set(f, want), 0);
	testfs_remount(&t);
	b = testfs_attr(&t, f);
	assert_int_equal(b.atime.s, want.atime.s);
	assert_int_equal(b.atime.ns, want.atime.ns);
	assert_int_equal(b.mtime.s, want.mtime.s);
	assert_int_equal(b.btime.ns, a.btime.ns);
	want.atime.ns = 1000000000;
	assert_int_equal(set(f, want), -EINVAL);
}

static void test_size(void **state)
{
	uint64_t f = testfs_node(&t, ROOT, "f", S_IFREG | 06755),
		 d = testfs_node(&t, ROOT, "d", S_IFDIR | 0755), p = testfs_node(&t, ROOT, "p", S_IFIFO);
	struct inode_attr a = testfs_attr(&t, f), b;

	(void)state;
	assert_int_equal(set(f, (struct fs_set){ .what = FS_SET_SIZE | FS_SET_KILLPRIV, .size = 100000 }), 0);
	b = testfs_attr(&t, f);
	assert_int_equal(b.size, 100000);
	assert_int_equal(b.mode, S_IFREG | 0755);
	assert_true(b.mtime.s > a.mtime.s || b.mtime.ns > a.mtime.ns);
	assert_int_equal(set(f, (struct fs_set){ .what = FS_SET_SIZE, .size = 100000 }), 0);
	assert_int_equal(testfs_attr(&t, f).mtime.ns, b.mtime.ns);
	assert_int_equal(set(f, (struct fs_set){ .what = FS_SET_SIZE, .size = FS_SIZE_MAX + 1 }), -EFBIG);
	assert_int_equal(set(d, (struct fs_set){ .what = FS_SET_SIZE }), -EISDIR);
	assert_int_equal(set(p, (struct fs_set){ .what = FS_SET_SIZE }), -EINVAL);
	assert_int_equal(fs_opened(t.fs, f, FS_OPEN_WRITE | FS_OPEN_TRUNCATE, &testfs_root), 0);
	assert_int_equal(testfs_attr(&t, f).size, 0);
	fs_closed(t.fs, f, FS_OPEN_WRITE);
}

static void test_flags(void **state)
{
	uint64_t d = testfs_node(&t, ROOT, "d", S_IFDIR | 0755), f = testfs_node(&t, d, "f", S_IFREG | 0644),
		 i = testfs_node(&t, d, "i", S_IFREG | 0644);
	struct fs_set append = { .what = FS_SET_FLAGS, .flags = INODE_APPEND };
	struct fs_set immutable = { .what = FS_SET_FLAGS, .flags = INODE_IMMUTABLE };
	struct fs_set none = { .what = FS_SET_FLAGS };

	(void)state;
	assert_int_equal(set(i, immutable), 0);
	assert_int_equal(testfs_unlink(&t, d, "i"), -EPERM);
	assert_int_equal(testfs_rename(&t, d, "i", ROOT, "x", 0), -EPERM);
	assert_int_equal(testfs_rename(&t, d, "f", d, "i", 0), -EPERM);
	assert_int_equal(testfs_link(&t, i, d, "l"), -EPERM);
	assert_int_equal(set(i, (struct fs_set){ .what = FS_SET_MODE, .mode = 0 }), -EPERM);
	assert_int_equal(fs_setxattr(t.fs, i, "user.a", "1", 1, 0, false), -EPERM);
	assert_int_equal(fs_opened(t.fs, i, FS_OPEN_WRITE, &testfs_root), -EPERM);
	/* As FS_IOC_FSSETXATTR asks: flags and project at once. */
	none.what |= FS_SET_PROJID;
	assert_int_equal(set(i, none), 0);
	assert_int_equal(set(d, append), 0);
	assert_int_equal(testfs_mknod(&t, d, "new", S_IFREG, NULL), 0);
	assert_int_equal(testfs_unlink(&t, d, "f"), -EPERM);
	assert_int_equal(testfs_rename(&t, d, "f", ROOT, "f", 0), -EPERM);
	assert_int_equal(set(d, immutable), 0);
	assert_int_equal(testfs_mknod(&t, d, "new2", S_IFREG, NULL), -EPERM);
	assert_int_equal(testfs_unlink(&t, d, "f"), -EPERM);
	assert_int_equal(set(d, (struct fs_set){ .what = FS_SET_FLAGS, .flags = INODE_NOATIME | INODE_LOST }),
			 0);
	assert_int_equal(testfs_attr(&t, testfs_node(&t, d, "child", S_IFREG)).flags, INODE_NOATIME);
	assert_int_equal(testfs_attr(&t, f).flags, 0);
}

/* DAX is of files and directories: others neither have it nor get it. Clones have flags of their own. */
static void test_flag_dax(void **state)
{
	static const uint32_t kinds[] = { S_IFREG, S_IFDIR, S_IFIFO, S_IFSOCK, S_IFCHR };
	const struct fs_set dax = { .what = FS_SET_FLAGS, .flags = INODE_DAX };
	uint64_t d = testfs_node(&t, ROOT, "d", S_IFDIR), src = testfs_node(&t, d, "src", S_IFREG), dst;
	uint8_t block[BLOCK_SIZE] = { 1 };
	struct inode_attr link;

	(void)state;
	assert_int_equal(set(d, dax), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
		uint64_t ino = testfs_node(&t, d, (char[]){ (char)('a' + i), 0 }, kinds[i]);

		assert_int_equal(testfs_attr(&t, ino).flags, i < 2 ? INODE_DAX : 0);
	}
	assert_int_equal(fs_symlink(t.fs, &testfs_root, d, "l", 1, "to", 2, &link), 0);
	assert_int_equal(link.flags, 0);
	fs_forget(t.fs, link.ino, 1);
	dst = testfs_node(&t, d, "dst", S_IFREG);
	assert_int_equal(set(src, (struct fs_set){ .what = FS_SET_FLAGS, .flags = INODE_NODUMP }), 0);
	assert_int_equal(fs_write(t.fs, &testfs_root, src, block, BLOCK_SIZE, 0, 0), BLOCK_SIZE);
	assert_int_equal(fs_clone(t.fs, &testfs_root, src, 0, dst, 0, BLOCK_SIZE, 0, NULL), BLOCK_SIZE);
	assert_int_equal(testfs_attr(&t, dst).flags & (INODE_DAX | INODE_NODUMP), INODE_DAX);
	assert_int_equal(testfs_attr(&t, src).flags & (INODE_DAX | INODE_NODUMP), INODE_NODUMP);
	/* It is there after a crash. */
	assert_int_equal(set(dst, (struct fs_set){ .what = FS_SET_FLAGS }), 0);
	testfs_crash(&t);
	assert_int_equal(testfs_attr(&t, dst).flags & INODE_DAX, 0);
	assert_int_equal(testfs_attr(&t, d).flags, INODE_DAX);
}

/* ---- access times ---- */

static bool atime_moves(uint64_t f)
{
	struct inode_attr before = testfs_attr(&t, f), after;
	char buf[1];

	assert_int_equal(fs_read(t.fs, f, buf, 1, 0), 1);
	after = testfs_attr(&t, f);
	assert_int_equal(after.ctime.ns, before.ctime.ns);
	return after.atime.s != before.atime.s || after.atime.ns != before.atime.ns;
}

static void test_relatime(void **state)
{
	uint64_t f = testfs_node(&t, ROOT, "f", S_IFREG | 0644);
	struct fs_set old = { .what = FS_SET_ATIME | FS_SET_MTIME };
	struct inode_attr shown;

	(void)state;
	assert_int_equal(fs_write(t.fs, &testfs_root, f, "x", 1, 0, 0), 1);
	assert_true(atime_moves(f)); /* not newer than mtime */
	assert_false(atime_moves(f));
	assert_int_equal(fs_write(t.fs, &testfs_root, f, "y", 1, 0, 0), 1);
	assert_true(atime_moves(f)); /* though the first has not been written yet */
	shown = testfs_attr(&t, f);
	fs_work(t.fs);
	assert_int_equal(fs_cached_inodes(t.fs), 0);
	assert_int_equal(testfs_attr(&t, f).atime.ns, shown.atime.ns);
	testfs_remount(&t);
	assert_int_equal(testfs_attr(&t, f).atime.ns, shown.atime.ns);
	assert_false(atime_moves(f));
	old.atime.s = time(NULL) - 25 * 3600;
	old.mtime.s = old.atime.s - 10;
	assert_int_equal(set(f, old), 0);
	assert_true(atime_moves(f)); /* the ctime is newer */
	t.opts.fs.noatime = true;
	testfs_remount(&t);
	assert_int_equal(set(f, old), 0);
	assert_false(atime_moves(f));
	t.opts.fs = (struct fs_opts){ .strictatime = true };
	testfs_remount(&t);
	assert_true(atime_moves(f));
	assert_true(atime_moves(f));
	assert_int_equal(set(f, (struct fs_set){ .what = FS_SET_FLAGS, .flags = INODE_NOATIME }), 0);
	assert_false(atime_moves(f));
	/* an unlinked file takes its pending time with it */
	assert_int_equal(set(f, (struct fs_set){ .what = FS_SET_FLAGS }), 0);
	assert_true(atime_moves(f));
	assert_int_equal(testfs_unlink(&t, ROOT, "f"), 0);
	assert_int_equal(fs_getattr(t.fs, f, &shown), -ESTALE);
}

/* ---- extended attributes ---- */

static void assert_xattr(uint64_t ino, const char *name, const uint8_t *value, size_t size_bytes)
{
	static uint8_t got[FS_XATTR_VALUE_MAX];

	assert_int_equal(fs_getxattr(t.fs, ino, name, NULL, 0), size_bytes);
	assert_int_equal(fs_getxattr(t.fs, ino, name, got, sizeof(got)), size_bytes);
	assert_memory_equal(got, value, size_bytes);
	if (size_bytes > 1)
		assert_int_equal(fs_getxattr(t.fs, ino, name, got, size_bytes - 1), -ERANGE);
}

static void test_xattr_sizes(void **state)
{
	static const size_t sizes[] = {
		0, 1, 40, 900, 969, 970, 971, 1000, XVAL_DATA_SIZE, XVAL_DATA_SIZE + 1, 65535, 65536
	};
	static uint8_t value[FS_XATTR_VALUE_MAX + 1];
	uint64_t f = testfs_node(&t, ROOT, "f", S_IFREG | 0644);

	(void)state;
	for (size_t i = 0; i < sizeof(value); i++)
		value[i] = (uint8_t)(i * 7 + i / 251);
	for (unsigned from = 0; from < ARRAY_SIZE(sizes); from++) {
		for (unsigned to = 0; to < ARRAY_SIZE(sizes); to++) {
			assert_int_equal(fs_setxattr(t.fs, f, "user.a", value + 1,
						     sizes[from] ? sizes[from] - 1 : 0, 0, false),
					 0);
			assert_int_equal(
				fs_setxattr(t.fs, f, "user.a", value, sizes[to], XATTR_REPLACE, false), 0);
			assert_xattr(f, "user.a", value, sizes[to]);
		}
	}
	testfs_remount(&t);
	assert_xattr(f, "user.a", value, sizes[ARRAY_SIZE(sizes) - 1]);
	assert_int_equal(fs_setxattr(t.fs, f, "user.a", value, sizeof(value), 0, false), -E2BIG);
	assert_int_equal(testfs_unlink(&t, ROOT, "f"), 0);
}

static void test_xattr_rules(void **state)
{
	uint64_t f = testfs_node(&t, ROOT, "f", S_IFREG | 0644),
		 p = testfs_node(&t, ROOT, "p", S_IFIFO | 0644);
	char name[300] = "user.", list[64];

	(void)state;
	memset(name + 5, 'n', sizeof(name) - 6);
	assert_int_equal(fs_setxattr(t.fs, f, name, "", 0, 0, false), -ERANGE);
	name[255] = 0;
	assert_int_equal(fs_setxattr(t.fs, f, name, "v", 1, XATTR_CREATE, false), 0);
	assert_int_equal(fs_setxattr(t.fs, f, name, "w", 1, XATTR_CREATE, false), -EEXIST);
	assert_xattr(f, name, (const uint8_t *)"v", 1);
	assert_int_equal(fs_removexattr(t.fs, f, name), 0);
	assert_int_equal(fs_removexattr(t.fs, f, name), -ENODATA);
	assert_int_equal(fs_setxattr(t.fs, f, name, "w", 1, XATTR_REPLACE, false), -ENODATA);
	assert_int_equal(fs_setxattr(t.fs, f, "user.", "", 0, 0, false), -EINVAL);
	assert_int_equal(fs_setxattr(t.fs, f, "other.a", "", 0, 0, false), -EOPNOTSUPP);
	assert_int_equal(fs_setxattr(t.fs, f, "system.other", "", 0, 0, false), -EOPNOTSUPP);
	assert_int_equal(fs_setxattr(t.fs, p, "user.a", "", 0, 0, false), -EPERM);
	assert_int_equal(fs_getxattr(t.fs, p, "user.a", NULL, 0), -ENODATA);
	assert_int_equal(fs_setxattr(t.fs, p, "trusted.a", "1", 1, 0, false), 0);
	assert_int_equal(fs_setxattr(t.fs, p, "security.b", NULL, 0, 0, false), 0);
	assert_int_equal(fs_listxattr(t.fs, p, NULL, 0), 21);
	assert_int_equal(fs_listxattr(t.fs, p, list, 20), -ERANGE);
	assert_int_equal(fs_listxattr(t.fs, p, list, 21), 21);
	assert_int_equal(fs_listxattr(t.fs, f, list, 21), 0);
}

static void test_xattr_many(void **state)
{
	enum { COUNT = 300 };
	uint64_t f = testfs_node(&t, ROOT, "f", S_IFREG | 0644);
	static char list[COUNT * 16];
	uint8_t value[700];
	char name[16];

	(void)state;
	memset(value, 1, sizeof(value));
	for (unsigned i = 0; i < COUNT; i++) {
		snprintf(name, sizeof(name), "user.%u", i);
		assert_int_equal(fs_setxattr(t.fs, f, name, value, i * 2, 0, false), 0);
	}
	assert_true(fs_listxattr(t.fs, f, list, sizeof(list)) > COUNT * 7);
	for (unsigned i = 0; i < COUNT; i++) {
		snprintf(name, sizeof(name), "user.%u", i);
		assert_xattr(f, name, value, i * 2);
		if (i % 3)
			assert_int_equal(fs_removexattr(t.fs, f, name), 0);
	}
	testfs_crash(&t);
	for (unsigned i = 0; i < COUNT; i++) {
		snprintf(name, sizeof(name), "user.%u", i);
		assert_int_equal(fs_getxattr(t.fs, f, name, NULL, 0), i % 3 ? -ENODATA : (int)i * 2);
	}
	assert_int_equal(testfs_unlink(&t, ROOT, "f"), 0);
}

/* Hashes of few bits: names collide, with each other's tombstones too; parents live in the same tree. */
static void test_xattr_collisions(void **state)
{
	enum { NAMES = 13 };
	static const size_t sizes[] = { 0, 10, 100, 900, 1500, 9000 };
	struct {
		bool there;
		size_t size;
		uint8_t fill;
	} model[NAMES] = { 0 };
	uint64_t random = testfs_seed(), f;
	uint8_t value[9000], got[9000];
	char name[16];

	(void)state;
	testfs_free(&t);
	testfs_make(&t, &(struct testfs_opts){ .format = { .dir_hash_bits = 5 } });
	f = testfs_node(&t, ROOT, "f", S_IFREG | 0644);
	for (unsigned step = 0; step < 5000; step++) {
		unsigned n = (unsigned)testfs_below(&random, NAMES);
		int flags = (int)testfs_below(&random, 3), want = 0, rc;

		snprintf(name, sizeof(name), "user.n%u", n);
		if (testfs_below(&random, 2)) {
			rc = fs_removexattr(t.fs, f, name);
			assert_int_equal(rc, model[n].there ? 0 : -ENODATA);
			model[n].there = false;
		} else {
			size_t size = sizes[testfs_below(&random, ARRAY_SIZE(sizes))];

			memset(value, (int)step, size);
			if (flags == XATTR_CREATE && model[n].there)
				want = -EEXIST;
			if (flags == XATTR_REPLACE && !model[n].there)
				want = -ENODATA;
			assert_int_equal(fs_setxattr(t.fs, f, name, value, size, flags, false), want);
			if (!want) {
				model[n].there = true;
				model[n].size = size;
				model[n].fill = (uint8_t)step;
			}
		}
		if (step % 7 == 0 && step % 14)
			assert_int_equal(testfs_link(&t, f, ROOT, "g"), 0);
		else if (step % 14 == 0 && step)
			assert_int_equal(testfs_unlink(&t, ROOT, "g"), 0);
		for (n = 0; n < NAMES; n++) {
			snprintf(name, sizeof(name), "user.n%u", n);
			rc = (int)fs_getxattr(t.fs, f, name, got, sizeof(got));
			assert_int_equal(rc, model[n].there ? (int)model[n].size : -ENODATA);
			for (int i = 0; i < rc; i++)
				assert_int_equal(got[i], model[n].fill);
		}
	}
}

static void test_capability_is_taken(void **state)
{
	uint64_t f = testfs_node(&t, ROOT, "f", S_IFREG | 0755);

	(void)state;
	assert_int_equal(fs_setxattr(t.fs, f, "security.capability", "cap", 3, 0, false), 0);
	assert_int_equal(fs_write(t.fs, &testfs_root, f, "x", 1, 0, 0), 1);
	assert_int_equal(fs_getxattr(t.fs, f, "security.capability", NULL, 0), 3);
	assert_int_equal(set(f, (struct fs_set){ .what = FS_SET_UID, .uid = 1 }), 0);
	assert_int_equal(fs_getxattr(t.fs, f, "security.capability", NULL, 0), -ENODATA);
}

/* ---- ACLs ---- */

struct acl {
	size_t size_bytes;
	uint8_t bytes[4 + 8 * 8];
};

static void acl_put(struct acl *acl, uint16_t tag, uint16_t perm, uint32_t id)
{
	uint8_t *p;

	if (acl->size_bytes == 0) {
		acl->bytes[0] = 2;
		acl->size_bytes = 4;
	}
	p = acl->bytes + acl->size_bytes;
	p[0] = (uint8_t)tag;
	p[2] = (uint8_t)perm;
	for (unsigned i = 0; i < 4; i++)
		p[4 + i] = (uint8_t)(id >> 8 * i);
	acl->size_bytes += 8;
}

/* owner, user 100, group, mask, other */
static struct acl acl_full(uint16_t owner, uint16_t user, uint16_t group, uint16_t mask, uint16_t other)
{
	struct acl acl = { 0 };

	acl_put(&acl, 0x01, owner, UINT32_MAX);
	acl_put(&acl, 0x02, user, 100);
	acl_put(&acl, 0x04, group, UINT32_MAX);
	acl_put(&acl, 0x10, mask, UINT32_MAX);
	acl_put(&acl, 0x20, other, UINT32_MAX);
	return acl;
}

static struct acl acl_minimal(uint16_t owner, uint16_t group, uint16_t other)
{
	struct acl acl = { 0 };

	acl_put(&acl, 0x01, owner, UINT32_MAX);
	acl_put(&acl, 0x04, group, UINT32_MAX);
	acl_put(&acl, 0x20, other, UINT32_MAX);
	return acl;
}

static int acl_set(uint64_t ino, const char *name, const struct acl *acl)
{
	return fs_setxattr(t.fs, ino, name, acl->bytes, acl->size_bytes, 0, false);
}

static void assert_acl(uint64_t ino, const char *name, const struct acl *want)
{
	assert_xattr(ino, name, want->bytes, want->size_bytes);
}

static void test_acl_and_mode(void **state)
{
	uint64_t f = testfs_node(&t, ROOT, "f", S_IFREG | 0644);
	struct acl acl = acl_full(7, 6, 5, 4, 1), min = acl_minimal(6, 4, 0);

	(void)state;
	assert_int_equal(acl_set(f, ACCESS, &acl), 0);
	assert_int_equal(testfs_attr(&t, f).mode, S_IFREG | 0741);
	assert_acl(f, ACCESS, &acl);
	assert_int_equal(set(f, (struct fs_set){ .what = FS_SET_MODE, .mode = 0624 }), 0);
	acl = acl_full(6, 6, 5, 2, 4);
	assert_acl(f, ACCESS, &acl);
	assert_int_equal(acl_set(f, ACCESS, &min), 0);
	assert_int_equal(testfs_attr(&t, f).mode, S_IFREG | 0640);
	assert_int_equal(fs_getxattr(t.fs, f, ACCESS, NULL, 0), -ENODATA);
	assert_int_equal(fs_removexattr(t.fs, f, ACCESS), 0);
	assert_int_equal(acl_set(f, DEFAULT, &acl), -EACCES);
	/* setgid goes if the caller says so */
	assert_int_equal(set(f, (struct fs_set){ .what = FS_SET_MODE, .mode = 02755 }), 0);
	assert_int_equal(fs_setxattr(t.fs, f, ACCESS, min.bytes, min.size_bytes, 0, true), 0);
	assert_int_equal(testfs_attr(&t, f).mode, S_IFREG | 0640);
}

static void test_acl_unsound(void **state)
{
	uint64_t f = testfs_node(&t, ROOT, "f", S_IFREG | 0644);
	struct acl good = acl_full(7, 6, 5, 4, 1), bad;

	(void)state;
	for (size_t size = 5; size < good.size_bytes; size++) {
		bad = good;
		bad.size_bytes = size;
		assert_int_equal(acl_set(f, ACCESS, &bad), -EINVAL);
	}
	bad = good;
	bad.bytes[0] = 3; /* version */
	assert_int_equal(acl_set(f, ACCESS, &bad), -EINVAL);
	bad = good;
	bad.bytes[6] = 8; /* permission */
	assert_int_equal(acl_set(f, ACCESS, &bad), -EINVAL);
	bad = good;
	bad.bytes[4] = 3; /* tag */
	assert_int_equal(acl_set(f, ACCESS, &bad), -EINVAL);
	bad = acl_minimal(7, 5, 1);
	bad.bytes[4 + 8] = 2; /* a user, no mask, no group */
	assert_int_equal(acl_set(f, ACCESS, &bad), -EINVAL);
	bad = acl_minimal(7, 5, 1);
	acl_put(&bad, 0x20, 1, UINT32_MAX);
	assert_int_equal(acl_set(f, ACCESS, &bad), -EINVAL);
	assert_int_equal(testfs_attr(&t, f).mode, S_IFREG | 0644);
}

static void test_acl_inherited(void **state)
{
	struct fs_cred cred = { .umask = 077 };
	uint64_t d = testfs_node(&t, ROOT, "d", S_IFDIR | 0755);
	struct acl dflt = acl_full(7, 6, 5, 7, 4), want;
	struct inode_attr attr;

	(void)state;
	assert_int_equal(acl_set(d, DEFAULT, &dflt), 0);
	assert_int_equal(testfs_attr(&t, d).mode, S_IFDIR | 0755);
	assert_int_equal(fs_mknod(t.fs, &cred, d, "f", 1, S_IFREG | 0662, 0, &attr), 0);
	want = acl_full(6, 6, 5, 6, 0);
	assert_acl(attr.ino, ACCESS, &want);
	assert_int_equal(attr.mode, S_IFREG | 0660);
	assert_int_equal(fs_getxattr(t.fs, attr.ino, DEFAULT, NULL, 0), -ENODATA);
	assert_int_equal(fs_mknod(t.fs, &cred, d, "s", 1, S_IFDIR | 0777, 0, &attr), 0);
	want = acl_full(7, 6, 5, 7, 4);
	assert_acl(attr.ino, ACCESS, &want);
	assert_acl(attr.ino, DEFAULT, &dflt);
	assert_int_equal(attr.mode, S_IFDIR | 0774);
	assert_int_equal(fs_symlink(t.fs, &cred, d, "l", 1, "x", 1, &attr), 0);
	assert_int_equal(fs_getxattr(t.fs, attr.ino, ACCESS, NULL, 0), -ENODATA);
	dflt = acl_minimal(7, 5, 0);
	assert_int_equal(acl_set(d, DEFAULT, &dflt), 0);
	assert_int_equal(fs_mknod(t.fs, &cred, d, "g", 1, S_IFREG | 0666, 0, &attr), 0);
	assert_int_equal(attr.mode, S_IFREG | 0640);
	assert_int_equal(fs_getxattr(t.fs, attr.ino, ACCESS, NULL, 0), -ENODATA);
	assert_int_equal(fs_setxattr(t.fs, d, DEFAULT, "", 0, 0, false), 0);
	assert_int_equal(fs_mknod(t.fs, &cred, d, "h", 1, S_IFREG | 0666, 0, &attr), 0);
	assert_int_equal(attr.mode, S_IFREG | 0600);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_mode_and_owner),
		T(test_setgid_directory),
		T(test_times),
		T(test_size),
		T(test_flags),
		T(test_flag_dax),
		T(test_relatime),
		T(test_xattr_sizes),
		T(test_xattr_rules),
		T(test_xattr_many),
		T(test_xattr_collisions),
		T(test_capability_is_taken),
		T(test_acl_and_mode),
		T(test_acl_unsound),
		T(test_acl_inherited),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
