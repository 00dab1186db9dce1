/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See drive.h.
 */
#include "fuzz/drive.h"

#include <dirent.h>
#include <errno.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/owners.h"
#include "fuzz/pool.h"
#include "lib/testfs.h"

#define ENTRIES_MAX 400u
#define READ_BYTES 65536u

static uint8_t bytes[3 * READ_BYTES];

/* ---- looking ---- */

struct walk {
	struct fs *fs;
	uint64_t inos[ENTRIES_MAX];
	uint8_t types[ENTRIES_MAX];
	unsigned count;
	unsigned bad;
	const char *first;
};

static void seen(struct walk *w, const char *call, int64_t rc)
{
	if (rc != -EUCLEAN && rc != -EIO && rc != -ESTALE && rc != -EROFS)
		return;
	if (w->bad++ == 0)
		w->first = call;
}

static int see_entry(void *arg, const struct fs_dirent *entry)
{
	struct walk *w = arg;

	if (w->count == ENTRIES_MAX)
		return 1;
	if (!entry->attr) {
		bool is_dot = entry->name[0] == '.' &&
			      (entry->name_len == 1 || (entry->name_len == 2 && entry->name[1] == '.'));

		seen(w, "entry without inode", is_dot ? 0 : -EUCLEAN);
		return 0;
	}
	w->inos[w->count] = entry->ino;
	w->types[w->count++] = entry->type;
	return 0;
}

static void see_xattrs(struct walk *w, uint64_t ino)
{
	static char list[READ_BYTES];
	ssize_t len = fs_listxattr(w->fs, ino, list, sizeof(list));

	seen(w, "fs_listxattr", len);
	for (const char *name = list; len > 0 && name < list + len; name += strlen(name) + 1)
		seen(w, "fs_getxattr", fs_getxattr(w->fs, ino, name, bytes, sizeof(bytes)));
}

static void see_data(struct walk *w, uint64_t ino)
{
	static struct fs_extent extents[50];
	uint64_t off = 0;
	int rc = 0;

	seen(w, "fs_map", fs_map(w->fs, ino, 0, extents, ARRAY_SIZE(extents)));
	for (unsigned i = 0; i < 8 && rc == 0; i++) {
		seen(w, "fs_read", fs_read(w->fs, ino, bytes, READ_BYTES, off));
		off += READ_BYTES;
		rc = fs_seek(w->fs, ino, off, SEEK_DATA, &off);
		seen(w, "fs_seek", rc);
	}
}

static void see_inode(struct walk *w, uint64_t ino)
{
	static char path[8192];
	struct inode_attr attr;
	int rc = fs_getattr(w->fs, ino, &attr);

	seen(w, "fs_getattr", rc);
	if (rc)
		return;
	see_xattrs(w, ino);
	seen(w, "fs_path", fs_path(w->fs, ino, path, sizeof(path)));
	if (S_ISLNK(attr.mode))
		seen(w, "fs_readlink", fs_readlink(w->fs, ino, path));
	if (S_ISREG(attr.mode))
		see_data(w, ino);
}

static void see_owners(struct walk *w)
{
	struct fs_owners_pos pos = { 0 };
	struct fs_owner owners[64];
	unsigned count = 1;

	for (unsigned i = 0; i < 100 && count; i++) {
		int rc = fs_owners(w->fs, 0, FUZZ_POOL_BYTES, &pos, owners, ARRAY_SIZE(owners), &count);

		seen(w, "fs_owners", rc);
		if (rc)
			return;
		if (count)
			pos = owners[count - 1].after;
	}
}

unsigned drive_walk(struct fs *fs, const char **first)
{
	static struct walk w;
	struct fs_statfs st;

	w = (struct walk){ .fs = fs };
	seen(&w, "fs_statfs", fs_statfs(fs, &st));
	see_inode(&w, INODE_ROOT);
	seen(&w, "fs_readdir", fs_readdir(fs, INODE_ROOT, 0, true, see_entry, &w));
	for (unsigned i = 0; i < w.count; i++) {
		see_inode(&w, w.inos[i]);
		if (w.types[i] == DT_DIR)
			seen(&w, "fs_readdir", fs_readdir(fs, w.inos[i], 0, true, see_entry, &w));
	}
	for (unsigned i = 0; i < w.count; i++)
		fs_forget(fs, w.inos[i], 1);
	see_owners(&w);
	*first = w.first;
	return w.bad;
}

/* ---- changing ---- */

#define TRY(call) (void)!(call)

struct change {
	struct fs *fs;
	uint64_t random;
};

static uint64_t below(struct change *c, uint64_t limit)
{
	return testfs_below(&c->random, limit);
}

static uint64_t some_ino(struct change *c)
{
	return below(c, 30) ? fuzz_inos[below(c, FUZZ_FILES)] : below(c, 200);
}

static uint64_t some_dir(struct change *c)
{
	static const uint8_t dirs[] = { FUZZ_ROOT, FUZZ_ROOT, FUZZ_DIR, FUZZ_LINKS, FUZZ_P, FUZZ_Q };

	return below(c, 20) ? fuzz_inos[dirs[below(c, sizeof(dirs))]] : some_ino(c);
}

static uint64_t some_off(struct change *c)
{
	switch (below(c, 8)) {
	case 0:
		return 0;
	case 1:
		return FS_SIZE_MAX - below(c, 10000);
	case 2:
		return below(c, 1ull << 40);
	case 3:
	case 4:
		return below(c, 500) * BLOCK_SIZE;
	case 5:
		return below(c, 300);
	default:
		return below(c, 2 << 20);
	}
}

static uint64_t some_len(struct change *c)
{
	switch (below(c, 6)) {
	case 0:
		return 1 + below(c, 100);
	case 1:
		return 1 + below(c, 10000);
	case 2:
		return (1 + below(c, 40)) * BLOCK_SIZE;
	case 3:
		return (1 + below(c, 500)) * BLOCK_SIZE;
	default:
		return 1 + below(c, sizeof(bytes));
	}
}

static size_t some_name(struct change *c, char name[256])
{
	if (below(c, 3) == 0)
		fuzz_long_name(name, (unsigned)below(c, 70));
	else if (below(c, 3) == 0)
		snprintf(name, 256, "new%u", (unsigned)below(c, 10));
	else
		snprintf(name, 256, "%s", fuzz_names[below(c, FUZZ_FILES)]);
	return strlen(name);
}

static void change_data(struct change *c, uint64_t ino)
{
	static const int modes[] = { 0,
				     FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_ZERO_RANGE,
				     FALLOC_FL_COLLAPSE_RANGE,
				     FALLOC_FL_INSERT_RANGE,
				     FALLOC_FL_UNSHARE_RANGE };
	struct fs_set set = { .what = FS_SET_SIZE, .size = some_off(c) };
	uint64_t off = some_off(c), len = some_len(c);
	struct inode_attr attr;
	int mode = modes[below(c, ARRAY_SIZE(modes))];

	if (mode == FALLOC_FL_COLLAPSE_RANGE || mode == FALLOC_FL_INSERT_RANGE) {
		off = u64_align_down(off, BLOCK_SIZE);
		len = u64_align_up(len, BLOCK_SIZE);
	}
	switch (below(c, 4)) {
	case 0:
		TRY(fs_setattr(c->fs, &testfs_root, ino, &set, &attr));
		break;
	case 1:
		TRY(fs_fallocate(c->fs, &testfs_root, ino, mode, off, len));
		break;
	default:
		TRY(fs_write(c->fs, &testfs_root, ino, bytes, u64_min(len, sizeof(bytes)), off,
			     (unsigned)below(c, 16)));
	}
}

static void change_share(struct change *c, uint64_t ino)
{
	uint64_t src = some_ino(c), src_off = below(c, 64) * BLOCK_SIZE, dst_off = below(c, 64) * BLOCK_SIZE;
	char names[2][256];
	struct fs_clone_item items[2] = {
		{ src, names[0], some_name(c, names[0]), 0 },
		{ ino, names[1], some_name(c, names[1]), 0 },
	};
	unsigned done = 0;
	bool same;

	switch (below(c, 4)) {
	case 0:
		TRY(fs_clone(c->fs, &testfs_root, src, src_off, ino, dst_off, some_len(c), 0, NULL));
		break;
	case 1:
		TRY(fs_clone(c->fs, &testfs_root, src, 0, ino, 0, 1 << 20, 0, NULL));
		break;
	case 2:
		TRY(fs_dedupe(c->fs, src, src_off, ino, dst_off, (1 + below(c, 32)) * BLOCK_SIZE, &same));
		break;
	default:
		TRY(fs_clone_files(c->fs, &testfs_root, some_dir(c), items, 2, &done));
	}
}

static void change_attrs(struct change *c, uint64_t ino)
{
	struct fs_set set = {
		.what = (uint32_t)below(c, 0x400) & ~FS_SET_SIZE,
		.mode = (uint32_t)below(c, 07777),
		.flags = below(c, 2) ? INODE_APPEND : INODE_DAX,
		.mtime = { 7, 7 },
	};
	struct inode_attr attr;
	char name[64];

	snprintf(name, sizeof(name), "user.attr%u", (unsigned)below(c, 40));
	if (below(c, 5) == 0)
		snprintf(name, sizeof(name), "user.big");
	switch (below(c, 4)) {
	case 0:
		TRY(fs_setattr(c->fs, &testfs_root, ino, &set, &attr));
		break;
	case 1:
		TRY(fs_removexattr(c->fs, ino, name));
		break;
	default:
		TRY(fs_setxattr(c->fs, ino, name, bytes, below(c, 3) ? below(c, 300) : below(c, 65537), 0,
				false));
	}
}

static void change_made(struct change *c, int rc, const struct inode_attr *attr)
{
	if (rc)
		return;
	if (below(c, 2))
		change_data(c, attr->ino);
	fs_forget(c->fs, attr->ino, 1);
}

static void change_new(struct change *c)
{
	static const uint32_t modes[] = { S_IFREG | 0644, S_IFREG | 0600, S_IFDIR | 0755, S_IFCHR, S_IFSOCK };
	uint64_t dir = some_dir(c);
	struct inode_attr attr;
	char name[256];
	size_t len = some_name(c, name);
	int rc;

	switch (below(c, 5)) {
	case 0:
		rc = fs_tmpfile(c->fs, &testfs_root, dir, 0600, &attr);
		break;
	case 1:
		rc = fs_symlink(c->fs, &testfs_root, dir, name, len, (char *)bytes, 1 + below(c, 4000),
				&attr);
		break;
	case 2:
		rc = fs_link(c->fs, some_ino(c), dir, name, len, &attr);
		break;
	default:
		rc = fs_mknod(c->fs, &testfs_root, dir, name, len, modes[below(c, ARRAY_SIZE(modes))],
			      (uint32_t)below(c, 1000), &attr);
	}
	change_made(c, rc, &attr);
}

static void change_names(struct change *c)
{
	static const unsigned flags[] = { 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT };
	uint64_t dir = some_dir(c);
	char name[256], other[256];
	size_t len = some_name(c, name), other_len = some_name(c, other);
	struct inode_attr attr;

	switch (below(c, 5)) {
	case 0:
		TRY(fs_unlink(c->fs, dir, name, len));
		break;
	case 1:
		TRY(fs_rmdir(c->fs, dir, name, len));
		break;
	case 2:
		if (fs_lookup(c->fs, dir, name, len, &attr) == 0)
			fs_forget(c->fs, attr.ino, 1);
		break;
	default:
		TRY(fs_rename(c->fs, &testfs_root, dir, name, len, some_dir(c), other, other_len,
			      flags[below(c, ARRAY_SIZE(flags))]));
	}
}

void drive_change(struct fs *fs, uint64_t seed, unsigned steps)
{
	struct change c = { fs, seed };

	for (unsigned i = 0; i < sizeof(bytes); i += 8)
		memcpy(bytes + i, &i, sizeof(i));
	for (unsigned i = 0; i < 4096; i++)
		bytes[i] = bytes[i] ? bytes[i] : 'z'; /* a target of symlinks, too */
	for (unsigned i = 0; i < steps; i++) {
		uint64_t ino = some_ino(&c);

		switch (below(&c, 8)) {
		case 0:
		case 1:
			change_data(&c, ino);
			break;
		case 2:
		case 3:
			change_share(&c, ino);
			break;
		case 4:
			change_attrs(&c, ino);
			break;
		case 5:
			change_new(&c);
			break;
		case 6:
			change_names(&c);
			break;
		default:
			if (fs_opened(fs, ino, FS_OPEN_WRITE | (below(&c, 2) ? FS_OPEN_TRUNCATE : 0),
				      &testfs_root) == 0) {
				change_names(&c);
				fs_closed(fs, ino, FS_OPEN_WRITE);
			}
			fs_work(fs);
		}
	}
	fs_work(fs);
}
