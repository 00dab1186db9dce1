/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A walk over all names of a file system.
 */
#include "lib/testtree.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define CHECK(what, ino)                                                           \
	do {                                                                       \
		if (!(what)) {                                                     \
			fprintf(stderr, "testtree:%d: inode %llu: %s\n", __LINE__, \
				(unsigned long long)(ino), #what);                 \
			abort();                                                   \
		}                                                                  \
	} while (0)

/* Names found of one inode that is no directory. */
struct links {
	uint64_t ino;
	uint32_t count;
};

struct walk {
	struct testfs *t;
	void (*fn)(void *arg, uint64_t dir, const struct fs_dirent *entry);
	void *arg;
	struct links *links;
	size_t link_count, link_size;
	uint64_t *dirs; /* still to be read */
	size_t dir_count, dir_size;
	uint64_t dir, parent; /* being read */
	uint64_t entries, dir_entries, subdirs;
	uint64_t cookie;
};

static void links_add(struct walk *w, uint64_t ino)
{
	if (w->link_count == w->link_size) {
		w->link_size = w->link_size ? w->link_size * 2 : 64;
		w->links = realloc(w->links, w->link_size * sizeof(*w->links));
	}
	w->links[w->link_count++] = (struct links){ ino, 1 };
}

static void dirs_add(struct walk *w, uint64_t ino)
{
	if (w->dir_count == w->dir_size) {
		w->dir_size = w->dir_size ? w->dir_size * 2 : 64;
		w->dirs = realloc(w->dirs, w->dir_size * sizeof(*w->dirs));
	}
	w->dirs[w->dir_count++] = ino;
}

/* The path of an inode by its number leads to it. */
static void path_check(struct walk *w, uint64_t ino)
{
	char path[4096], *piece, *rest = path;
	struct inode_attr attr;
	uint64_t at = INODE_ROOT;

	CHECK(fs_path(w->t->fs, ino, path, sizeof(path)) == 0, ino);
	while ((piece = strtok_r(rest, "/", &rest))) {
		CHECK(fs_lookup(w->t->fs, at, piece, strlen(piece), &attr) == 0, ino);
		at = attr.ino;
		fs_forget(w->t->fs, at, 1);
	}
	CHECK(at == ino, ino);
}

static int entry_seen(void *arg, const struct fs_dirent *e)
{
	struct walk *w = arg;
	struct inode_attr attr;

	CHECK(e->cookie > w->cookie, w->dir);
	w->cookie = e->cookie;
	if (e->cookie <= 2) {
		CHECK(e->ino == (e->cookie == 1 ? w->dir : w->parent), w->dir);
		return 0;
	}
	w->entries++;
	w->dir_entries++;
	CHECK(fs_lookup(w->t->fs, w->dir, e->name, e->name_len, &attr) == 0, w->dir);
	CHECK(attr.ino == e->ino, w->dir);
	CHECK((attr.mode & S_IFMT) >> 12 == e->type, e->ino);
	fs_forget(w->t->fs, attr.ino, 1);
	if (e->type == DT_DIR) {
		w->subdirs++;
		dirs_add(w, e->ino);
	} else {
		links_add(w, e->ino);
	}
	path_check(w, e->ino);
	if (w->fn)
		w->fn(w->arg, w->dir, e);
	return 0;
}

static void dir_read(struct walk *w, uint64_t dir)
{
	struct inode_attr attr, parent;

	CHECK(fs_getattr(w->t->fs, dir, &attr) == 0, dir);
	CHECK(fs_lookup(w->t->fs, dir, "..", 2, &parent) == 0, dir);
	fs_forget(w->t->fs, parent.ino, 1);
	w->dir = dir;
	w->parent = parent.ino;
	w->dir_entries = w->subdirs = w->cookie = 0;
	CHECK(fs_readdir(w->t->fs, dir, 0, false, entry_seen, w) == 0, dir);
	CHECK(attr.size == w->dir_entries, dir);
	CHECK(attr.nlink == 2 + w->subdirs, dir);
}

static int by_ino(const void *a, const void *b)
{
	uint64_t x = ((const struct links *)a)->ino, y = ((const struct links *)b)->ino;

	return (x > y) - (x < y);
}

static void links_check(struct walk *w)
{
	if (w->link_count)
		qsort(w->links, w->link_count, sizeof(*w->links), by_ino);
	for (size_t i = 0, next; i < w->link_count; i = next) {
		struct inode_attr attr;

		for (next = i; next < w->link_count && w->links[next].ino == w->links[i].ino;)
			next++;
		CHECK(fs_getattr(w->t->fs, w->links[i].ino, &attr) == 0, w->links[i].ino);
		CHECK(attr.nlink == next - i, attr.ino);
	}
}

uint64_t testtree_walk(struct testfs *t, void (*fn)(void *arg, uint64_t dir, const struct fs_dirent *entry),
		       void *arg)
{
	struct walk w = { .t = t, .fn = fn, .arg = arg };

	dirs_add(&w, INODE_ROOT);
	for (size_t i = 0; i < w.dir_count; i++)
		dir_read(&w, w.dirs[i]);
	links_check(&w);
	testfs_check(t);
	free(w.links);
	free(w.dirs);
	return w.entries;
}
