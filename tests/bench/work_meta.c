/* SPDX-License-Identifier: BSD-3-Clause */
/* Rows about names and attributes. All files of a row lie in one directory. */
#define _GNU_SOURCE
#include "work.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define FILES_COUNT 20000u
#define XATTR_NAME "user.bench"

static void prepare_empty(struct work *w)
{
	files_make(w, w->count, 0);
}

static void prepare_4k(struct work *w)
{
	files_make(w, w->count, BLK_BYTES);
}

static void prepare_one(struct work *w)
{
	w->fd = file_create(w, 0);
}

static void run_create(struct work *w)
{
	files_make(w, w->count, (size_t)w->size_bytes);
	w->done_count = w->count;
}

static void run_stat(struct work *w)
{
	struct stat st;

	for (uint64_t i = 0; i < w->count; i++)
		need(fstatat(w->dir_fd, file_name(i), &st, 0) == 0, "stat");
	w->done_count = w->count;
}

/* One bare round trip each: the kernel is told not to answer from its cache. */
static void run_getattr(struct work *w)
{
	struct statx stx;

	for (uint64_t i = 0; i < w->count; i++)
		need(statx(w->fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &stx) == 0,
		     "statx");
	w->done_count = w->count;
}

static void run_unlink(struct work *w)
{
	for (uint64_t i = 0; i < w->count; i++)
		need(unlinkat(w->dir_fd, file_name(i), 0) == 0, "unlink");
	w->done_count = w->count;
}

static void run_rename(struct work *w)
{
	char name[40];

	for (uint64_t i = 0; i < w->count; i++) {
		snprintf(name, sizeof(name), "renamed-%08llu", (unsigned long long)i);
		need(renameat(w->dir_fd, file_name(i), w->dir_fd, name) == 0, "rename");
	}
	w->done_count = w->count;
}

static void run_open_read(struct work *w)
{
	char buf[BLK_BYTES];

	for (uint64_t i = 0; i < w->count; i++) {
		int fd = openat(w->dir_fd, file_name(i), O_RDONLY);

		need(fd >= 0, "open");
		need(pread(fd, buf, sizeof(buf), 0) == (ssize_t)sizeof(buf), "read");
		close(fd);
	}
	w->done_count = w->count;
}

static void run_open_close(struct work *w)
{
	for (uint64_t i = 0; i < w->count; i++) {
		int fd = openat(w->dir_fd, file_name(0), O_RDONLY);

		need(fd >= 0, "open");
		close(fd);
	}
	w->done_count = w->count;
}

static void run_xattr_set(struct work *w)
{
	for (uint64_t i = 0; i < w->count; i++)
		need(fsetxattr(w->fd, XATTR_NAME, w->block + i % 1024, 32, 0) == 0, "setxattr");
	w->done_count = w->count;
}

static void prepare_xattr(struct work *w)
{
	prepare_one(w);
	need(fsetxattr(w->fd, XATTR_NAME, w->block, 32, 0) == 0, "setxattr");
}

static void run_xattr_get(struct work *w)
{
	char buf[64];

	for (uint64_t i = 0; i < w->count; i++)
		need(fgetxattr(w->fd, XATTR_NAME, buf, sizeof(buf)) == 32, "getxattr");
	w->done_count = w->count;
}

/* What ls -l does: read the directory, stat every entry. */
static void run_list(struct work *w)
{
	DIR *dir = fdopendir(openat(w->dir_fd, ".", O_RDONLY | O_DIRECTORY));
	struct dirent *de;
	struct stat st;

	need(dir, "opendir");
	while ((de = readdir(dir)) != NULL) {
		need(fstatat(w->dir_fd, de->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0, "stat");
		w->done_count += de->d_name[0] != '.';
	}
	closedir(dir);
	need(w->done_count == w->count, "readdir lost entries");
}

static void run_mkdir(struct work *w)
{
	for (uint64_t i = 0; i < w->count; i++)
		need(mkdirat(w->dir_fd, file_name(i), 0755) == 0, "mkdir");
	w->done_count = w->count;
}

/* Directories of 1000 files: a tree that is there when the file system is mounted again. */
static void run_fill(struct work *w)
{
	int top_fd = w->dir_fd;
	uint64_t left = w->count;

	for (uint64_t i = 0; left; i++) {
		uint64_t part = left < 1000 ? left : 1000;
		char name[32];

		snprintf(name, sizeof(name), "dir-%05llu", (unsigned long long)i);
		need(mkdirat(top_fd, name, 0755) == 0, "mkdir");
		w->dir_fd = openat(top_fd, name, O_RDONLY | O_DIRECTORY);
		need(w->dir_fd >= 0, name);
		files_make(w, part, (size_t)w->size_bytes);
		close(w->dir_fd);
		left -= part;
	}
	w->dir_fd = top_fd;
	w->done_count = w->count;
}

const struct row meta_rows[] = {
	{ .name = "create", .count = FILES_COUNT, .run = run_create },
	{ .name = "create_write", .count = FILES_COUNT, .size_bytes = BLK_BYTES, .run = run_create },
	{ .name = "stat_cold",
	  .count = FILES_COUNT,
	  .prepare = prepare_empty,
	  .run = run_stat,
	  .is_cold_names = true },
	{ .name = "getattr", .count = FILES_COUNT, .prepare = prepare_one, .run = run_getattr },
	{ .name = "unlink", .count = FILES_COUNT, .prepare = prepare_empty, .run = run_unlink },
	{ .name = "rename", .count = FILES_COUNT, .prepare = prepare_empty, .run = run_rename },
	{ .name = "mkdir", .count = FILES_COUNT, .run = run_mkdir },
	{ .name = "open_close", .count = FILES_COUNT, .prepare = prepare_one, .run = run_open_close },
	{ .name = "open_read_cold",
	  .count = FILES_COUNT,
	  .prepare = prepare_4k,
	  .run = run_open_read,
	  .is_cold_names = true,
	  .is_cold_data = true },
	{ .name = "xattr_set", .count = FILES_COUNT, .prepare = prepare_one, .run = run_xattr_set },
	{ .name = "xattr_get", .count = FILES_COUNT, .prepare = prepare_xattr, .run = run_xattr_get },
	{ .name = "ls_l",
	  .count = FILES_COUNT,
	  .prepare = prepare_empty,
	  .run = run_list,
	  .is_cold_names = true },
	{ .name = "fill", .count = 100000, .run = run_fill },
	{ .name = NULL },
};
