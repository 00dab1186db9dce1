/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Taking down a file system and comparing what was taken down.
 */
#include "crash/snapshot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define XATTR_LIST_MAX 65536u

/* ---- taking down ---- */

static void failed(struct snapshot *snap, int error, const char *what, const char *path)
{
	if (snap->error)
		return;
	snap->error = error;
	snprintf(snap->error_at, sizeof(snap->error_at), "%s of %s: %s", what, path, strerror(-error));
}

static void *grow(void *memory, size_t size)
{
	memory = realloc(memory, size ? size : 1);
	if (!memory)
		abort();
	return memory;
}

static void take_content(struct fs *fs, struct snapshot *snap, struct snapshot_entry *e)
{
	ssize_t got = 0;

	if (S_ISREG(e->attr.mode)) {
		e->content = grow(NULL, e->attr.size);
		got = fs_read(fs, e->attr.ino, e->content, e->attr.size, 0);
		if (got >= 0 && (uint64_t)got != e->attr.size)
			got = -EIO;
	} else if (S_ISLNK(e->attr.mode)) {
		e->content = grow(NULL, FS_SYMLINK_MAX + 1);
		got = fs_readlink(fs, e->attr.ino, (char *)e->content);
		if (!got && strlen((char *)e->content) != e->attr.size)
			got = -EIO;
	}
	if (got < 0)
		failed(snap, (int)got, "content", e->path);
}

static int name_compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void take_value(struct fs *fs, struct snapshot *snap, struct snapshot_entry *e, const char *name)
{
	size_t name_size = strlen(name) + 1;
	ssize_t size = fs_getxattr(fs, e->attr.ino, name, NULL, 0);
	uint32_t len = (uint32_t)size;
	uint8_t *at;

	if (size >= 0) {
		e->xattrs = grow(e->xattrs, e->xattrs_size + name_size + sizeof(len) + (size_t)size);
		at = e->xattrs + e->xattrs_size;
		memcpy(at, name, name_size);
		memcpy(at + name_size, &len, sizeof(len));
		e->xattrs_size += name_size + sizeof(len) + (size_t)size;
		if (size > 0)
			size = fs_getxattr(fs, e->attr.ino, name, at + name_size + sizeof(len), (size_t)size);
	}
	if (size < 0)
		failed(snap, (int)size, name, e->path);
}

static void take_xattrs(struct fs *fs, struct snapshot *snap, struct snapshot_entry *e)
{
	static char list[XATTR_LIST_MAX];
	ssize_t size = fs_listxattr(fs, e->attr.ino, list, sizeof(list));
	char *names[512];
	size_t count = 0;

	if (size < 0)
		failed(snap, (int)size, "xattrs", e->path);
	for (char *name = list; name < list + size && count < 512; name += strlen(name) + 1)
		names[count++] = name;
	qsort(names, count, sizeof(*names), name_compare);
	for (size_t i = 0; i < count; i++)
		take_value(fs, snap, e, names[i]);
}

static struct snapshot_entry *add(struct snapshot *snap, const char *dir, const char *name, size_t len)
{
	struct snapshot_entry *e;

	if (snap->count == snap->room) {
		snap->room = snap->room ? snap->room * 2 : 64;
		snap->entries = grow(snap->entries, snap->room * sizeof(*snap->entries));
	}
	e = &snap->entries[snap->count++];
	*e = (struct snapshot_entry){ .path = grow(NULL, strlen(dir) + len + 2) };
	sprintf(e->path, "%s/%.*s", dir, (int)len, name);
	return e;
}

struct listing {
	struct snapshot *snap;
	const char *dir;
};

static int list_entry(void *arg, const struct fs_dirent *d)
{
	struct listing *l = arg;
	struct snapshot_entry *e;

	if ((d->name_len == 1 && d->name[0] == '.') ||
	    (d->name_len == 2 && d->name[0] == '.' && d->name[1] == '.'))
		return 0;
	e = add(l->snap, l->dir, d->name, d->name_len);
	e->attr.ino = d->ino;
	return 0;
}

static void take_dir(struct fs *fs, struct snapshot *snap, uint64_t dir, const char *path)
{
	size_t first = snap->count, end;
	struct listing l = { snap, path };
	int rc = fs_readdir(fs, dir, 0, false, list_entry, &l);

	if (rc)
		failed(snap, rc, "listing", path);
	end = snap->count;
	for (size_t i = first; i < end; i++) {
		struct snapshot_entry *e = &snap->entries[i];
		const char *name = strrchr(e->path, '/') + 1;
		uint64_t listed = e->attr.ino;

		rc = fs_lookup(fs, dir, name, strlen(name), &e->attr);
		if (rc || e->attr.ino != listed) {
			failed(snap, rc ? rc : -EUCLEAN, "lookup", e->path);
			e->attr = (struct inode_attr){ .ino = listed };
			continue;
		}
		take_content(fs, snap, e);
		take_xattrs(fs, snap, e);
		if (S_ISDIR(e->attr.mode)) {
			char *below = strdup(e->path); /* the array may move */
			uint64_t ino = e->attr.ino;

			take_dir(fs, snap, ino, below);
			free(below);
		}
		fs_forget(fs, listed, 1);
	}
}

static int path_compare(const void *a, const void *b)
{
	return strcmp(((const struct snapshot_entry *)a)->path, ((const struct snapshot_entry *)b)->path);
}

void snapshot_take(struct fs *fs, struct snapshot *snap)
{
	struct snapshot_entry *root;
	int rc;

	*snap = (struct snapshot){ 0 };
	root = add(snap, "", "", 0);
	rc = fs_getattr(fs, INODE_ROOT, &root->attr);
	if (rc)
		failed(snap, rc, "getattr", "/");
	take_dir(fs, snap, INODE_ROOT, "");
	qsort(snap->entries, snap->count, sizeof(*snap->entries), path_compare);
}

void snapshot_free(struct snapshot *snap)
{
	for (size_t i = 0; i < snap->count; i++) {
		free(snap->entries[i].path);
		free(snap->entries[i].content);
		free(snap->entries[i].xattrs);
	}
	free(snap->entries);
	*snap = (struct snapshot){ 0 };
}

/* ---- comparing ---- */

static const struct snapshot_entry *find(const struct snapshot *snap, const char *path)
{
	struct snapshot_entry key = { .path = (char *)(uintptr_t)path };

	return bsearch(&key, snap->entries, snap->count, sizeof(key), path_compare);
}

static bool time_same(struct inode_time a, struct inode_time b)
{
	return a.s == b.s && a.ns == b.ns;
}

static const char *attr_differs(const struct inode_attr *a, const struct inode_attr *b, bool any_time)
{
	if (a->ino != b->ino || a->gen != b->gen)
		return "inode number or generation";
	if (a->mode != b->mode || a->uid != b->uid || a->gid != b->gid)
		return "mode or owner";
	if (a->nlink != b->nlink)
		return "link count";
	if (a->size != b->size)
		return "size";
	if (a->blocks != b->blocks)
		return "blocks";
	/* INODE_SHARED stays when a clone was given up, INODE_UNWRITTEN when an allocation was: they only say where to ask. */
	if (a->rdev != b->rdev || (a->flags ^ b->flags) & ~(INODE_SHARED | INODE_UNWRITTEN) ||
	    a->projid != b->projid)
		return "rdev, flags or projid";
	if (!time_same(a->atime, b->atime) || !time_same(a->btime, b->btime))
		return "atime or btime";
	if (!any_time &&
	    (!time_same(a->mtime, b->mtime) || !time_same(a->ctime, b->ctime) || a->change != b->change))
		return "mtime, ctime or change count";
	return NULL;
}

/* Words of a mixed range may be the other's. */
static bool content_same(const struct snapshot_entry *seen, const struct snapshot_entry *want,
			 const struct snapshot_entry *other, const struct snapshot_mix *mix, uint64_t *at)
{
	uint64_t size = want->attr.size;

	if (!want->content || memcmp(seen->content, want->content, size) == 0)
		return true;
	for (*at = 0; *at < size; ++*at) {
		uint64_t word = *at & ~7ull, end = u64_min(word + 8, size);

		if (seen->content[*at] == want->content[*at])
			continue;
		if (!other || mix->ino != want->attr.ino || *at < mix->lo || *at >= mix->hi)
			return false;
		word = u64_max(word, mix->lo);
		end = u64_min(end, mix->hi);
		if (end > other->attr.size ||
		    memcmp(seen->content + word, other->content + word, end - word) != 0)
			return false;
		*at = end - 1;
	}
	return true;
}

static bool entry_same(const struct snapshot_entry *seen, const struct snapshot_entry *want,
		       const struct snapshot_entry *other, const struct snapshot_mix *mix, bool any_time,
		       char *why, size_t why_size)
{
	const char *what = attr_differs(&seen->attr, &want->attr, any_time);
	uint64_t at;

	if (!what && (seen->xattrs_size != want->xattrs_size ||
		      (seen->xattrs_size && memcmp(seen->xattrs, want->xattrs, seen->xattrs_size) != 0)))
		what = "xattrs";
	if (what) {
		snprintf(why, why_size, "%s: %s", want->path, what);
		return false;
	}
	if (!content_same(seen, want, other, mix, &at)) {
		snprintf(why, why_size, "%s: byte %" PRIu64 " is %02x, not %02x", want->path, at,
			 seen->content[at], want->content[at]);
		return false;
	}
	return true;
}

bool snapshot_same(const struct snapshot *seen, const struct snapshot *want, const struct snapshot *other,
		   const struct snapshot_mix *mix, bool any_time, char *why, size_t why_size)
{
	for (size_t i = 0; i < seen->count || i < want->count; i++) {
		int order = i == seen->count ? 1 :
			    i == want->count ? -1 :
					       strcmp(seen->entries[i].path, want->entries[i].path);

		if (order != 0) {
			snprintf(why, why_size, "%s %s",
				 order < 0 ? seen->entries[i].path : want->entries[i].path,
				 order < 0 ? "is there" : "is not there");
			return false;
		}
		if (!entry_same(&seen->entries[i], &want->entries[i], find(other, want->entries[i].path), mix,
				any_time, why, why_size))
			return false;
	}
	return true;
}
