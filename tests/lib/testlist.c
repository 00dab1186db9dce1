/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is in a file system, as text.
 */
#include "lib/testlist.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DEPTH_MAX 32u
#define PATH_SIZE 8192u

struct list {
	struct testfs *t;
	char **lines;
	size_t count, room;
};

struct dir {
	struct list *list;
	const char *path;
	unsigned depth;
};

static uint64_t word_add(uint64_t hash, uint64_t word)
{
	hash = (hash ^ word) * 0x100000001b3ull;
	return hash ^ hash >> 29;
}

/* Eight bytes at a time: else most of the time of some tests would go here. */
static uint64_t hash_add(uint64_t hash, const uint8_t *bytes, size_t len)
{
	uint64_t word;
	size_t at = 0;

	for (; at + sizeof(word) <= len; at += sizeof(word)) {
		memcpy(&word, bytes + at, sizeof(word));
		hash = word_add(hash, word);
	}
	for (; at < len; at++)
		hash = word_add(hash, bytes[at]);
	return word_add(hash, len);
}

static int64_t content_hash(struct testfs *t, const struct inode_attr *a)
{
	static uint8_t buf[1 << 16];
	uint64_t hash = 14695981039346656037ull;
	ssize_t len = 0;

	if (S_ISLNK(a->mode)) {
		int rc = fs_readlink(t->fs, a->ino, (char *)buf);

		return rc ? rc : (int64_t)(hash_add(hash, buf, strlen((char *)buf)) >> 1);
	}
	for (uint64_t off = 0; S_ISREG(a->mode) && off < a->size; off += (uint64_t)len) {
		len = fs_read(t->fs, a->ino, buf, sizeof(buf), off);
		if (len <= 0)
			return len;
		hash = hash_add(hash, buf, (size_t)len);
	}
	return (int64_t)(hash >> 1);
}

/* The sum over all attributes: their order does not matter. */
static int64_t attrs_hash(struct testfs *t, uint64_t ino)
{
	static uint8_t value[1 << 17];
	static char names[1 << 16];
	ssize_t len = fs_listxattr(t->fs, ino, names, sizeof(names));
	uint64_t sum = 0;

	for (char *name = names; len > 0 && name < names + len; name += strlen(name) + 1) {
		ssize_t size = fs_getxattr(t->fs, ino, name, value, sizeof(value));

		if (size < 0)
			return size;
		sum += hash_add(hash_add(1, (uint8_t *)name, strlen(name)), value, (size_t)size);
	}
	return len < 0 ? len : (int64_t)(sum >> 1);
}

static void line_add(struct list *l, const char *text)
{
	if (l->count == l->room) {
		l->room = l->room ? l->room * 2 : 64;
		l->lines = realloc(l->lines, l->room * sizeof(*l->lines));
	}
	l->lines[l->count++] = strdup(text);
}

static void dir_list(struct list *l, const char *path, uint64_t ino, unsigned depth);

static int entry_list(void *arg, const struct fs_dirent *d)
{
	struct dir *dir = arg;
	struct list *l = dir->list;
	char path[PATH_SIZE], text[PATH_SIZE + 512];
	struct inode_attr a;
	int rc;

	if (d->name[0] == '.' && (d->name_len == 1 || (d->name_len == 2 && d->name[1] == '.')))
		return 0;
	snprintf(path, sizeof(path), "%s/%.*s", dir->path, (int)d->name_len, d->name);
	rc = fs_getattr(l->t->fs, d->ino, &a);
	if (rc) {
		snprintf(text, sizeof(text), "%s: %s", path, strerror(-rc));
		line_add(l, text);
		return 0;
	}
	snprintf(text, sizeof(text),
		 "%s: %o type %u ino %" PRIu64 " owner %u:%u links %u size %" PRIu64 " blocks %" PRIu64
		 " content %" PRIx64 " attributes %" PRIx64,
		 path, a.mode, d->type, d->ino, a.uid, a.gid, a.nlink, a.size, a.blocks,
		 (uint64_t)content_hash(l->t, &a), (uint64_t)attrs_hash(l->t, d->ino));
	line_add(l, text);
	if (S_ISDIR(a.mode) && dir->depth < DEPTH_MAX)
		dir_list(l, path, d->ino, dir->depth + 1);
	return 0;
}

static void dir_list(struct list *l, const char *path, uint64_t ino, unsigned depth)
{
	struct dir dir = { l, path, depth };
	char text[PATH_SIZE + 64];
	int rc = fs_readdir(l->t->fs, ino, 0, false, entry_list, &dir);

	if (rc) {
		snprintf(text, sizeof(text), "%s/: %s", path, strerror(-rc));
		line_add(l, text);
	}
}

static int line_compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

char *testlist_make(struct testfs *t)
{
	struct list l = { .t = t };
	size_t size = 1, at = 0;
	char *text;

	dir_list(&l, "", INODE_ROOT, 0);
	if (l.count)
		qsort(l.lines, l.count, sizeof(*l.lines), line_compare);
	for (size_t i = 0; i < l.count; i++)
		size += strlen(l.lines[i]) + 1;
	text = malloc(size);
	for (size_t i = 0; i < l.count; i++) {
		at += (size_t)snprintf(text + at, size - at, "%s\n", l.lines[i]);
		free(l.lines[i]);
	}
	text[at] = 0;
	free(l.lines);
	return text;
}

/* Lines, by their lengths: functions for strings would look for the end of all the text each time, at least under a sanitizer. */
static size_t line_len(const char *line, const char *end)
{
	const char *stop = memchr(line, '\n', (size_t)(end - line));

	return (size_t)(stop - line) + 1;
}

const char *testlist_line(const char *list, const char *path, size_t *len)
{
	const char *end = list + strlen(list);
	size_t path_len = strlen(path);

	for (; list < end; list += *len + 1) {
		*len = line_len(list, end) - 1;
		if (*len > path_len && memcmp(list, path, path_len) == 0 && list[path_len] == ':')
			return list;
	}
	return NULL;
}

/* The line of these bytes between two places, or NULL. */
static const char *line_find(const char *from, const char *end, const char *line, size_t len)
{
	for (size_t n; from < end; from += n) {
		n = line_len(from, end);
		if (n == len && memcmp(from, line, len) == 0)
			return from;
	}
	return NULL;
}

static unsigned lines_only(const char *in, const char *not_in, char mark, bool print)
{
	const char *in_end = in + strlen(in), *end = not_in + strlen(not_in), *next = not_in;
	unsigned count = 0;

	for (size_t len; in < in_end; in += len) {
		const char *there;

		/* Most lines follow each other in both. */
		len = line_len(in, in_end);
		there = line_find(next, end, in, len);
		if (!there)
			there = line_find(not_in, next, in, len);
		if (there)
			next = there + len;
		else if (count++, print)
			printf("# %c%.*s", mark, (int)len, in);
	}
	return count;
}

unsigned testlist_diff(const char *before, const char *after, bool print)
{
	if (strcmp(before, after) == 0)
		return 0;
	return lines_only(before, after, '-', print) + lines_only(after, before, '+', print);
}
