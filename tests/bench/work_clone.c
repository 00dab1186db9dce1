/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Rows that clone. A file system that cannot clone copies: the figure then is that of the copy.
 * Single calls are timed, the median of the calls of a run is its result.
 */
#define _GNU_SOURCE
#include "work.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CLONES_MAX 64u
#define CLONES_BUDGET_NS 1000000000u
#define BASES_COUNT 16u

static void prepare_one_extent(struct work *w)
{
	uint64_t off_bytes = 0;

	w->fd = file_create(w, 0);
	/* Where it works, preallocation gives the one extent. */
	if (fallocate(w->fd, 0, 0, (off_t)w->size_bytes) != 0)
		need(errno == EOPNOTSUPP, "fallocate");
	for (; off_bytes < w->size_bytes; off_bytes += MIB_BYTES)
		write_full(w, w->fd, MIB_BYTES, off_bytes);
	need(fsync(w->fd) == 0, "fsync");
}

/*
 * count extents with holes between them: every other block of a written file is punched out. Where there is
 * no punch, only every other block is written.
 */
static void prepare_many_extents(struct work *w)
{
	int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	bool is_punched = true;

	w->size_bytes = w->count * 2 * BLK_BYTES;
	w->fd = file_fill(w, "source", w->size_bytes);
	for (uint64_t i = 0; i < w->count && is_punched; i++) {
		is_punched = fallocate(w->fd, mode, (off_t)((2 * i + 1) * BLK_BYTES), BLK_BYTES) == 0;
		need(is_punched || errno == EOPNOTSUPP, "punch");
	}
	if (!is_punched) {
		need(ftruncate(w->fd, 0) == 0, "truncate");
		for (uint64_t i = 0; i < w->count; i++)
			write_full(w, w->fd, BLK_BYTES, 2 * i * BLK_BYTES);
		need(ftruncate(w->fd, (off_t)w->size_bytes) == 0, "truncate");
	}
	need(fsync(w->fd) == 0, "fsync");
}

static int ns_compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void run_clone(struct work *w)
{
	uint64_t ns[CLONES_MAX];
	uint64_t sum_ns = 0;
	size_t n = 0;

	while (n < 9 && sum_ns < CLONES_BUDGET_NS) {
		int dst = file_create(w, n + 1);
		uint64_t start_ns;

		need(lseek(w->fd, 0, SEEK_SET) == 0, "lseek");
		start_ns = now_ns();
		file_clone(w->fd, dst, w->size_bytes);
		ns[n] = now_ns() - start_ns;
		sum_ns += ns[n++];
		close(dst);
	}
	qsort(ns, n, sizeof(ns[0]), ns_compare);
	w->wall_ns = ns[n / 2];
	w->done_count = 1;
	w->done_bytes = w->size_bytes;
}

static int base_open(const struct work *w, uint64_t index)
{
	char name[32];
	int fd;

	snprintf(name, sizeof(name), "base-%llu", (unsigned long long)(index % BASES_COUNT));
	fd = openat(w->dir_fd, name, O_RDONLY);
	return fd >= 0 ? fd : file_fill(w, name, w->size_bytes);
}

static void clone_at(int src, int dir_fd, const char *name, uint64_t size_bytes)
{
	int dst = openat(dir_fd, name, O_CREAT | O_EXCL | O_WRONLY, 0644);

	need(dst >= 0, name);
	file_clone(src, dst, size_bytes);
	need(close(dst) == 0, "close");
}

/* A tree of count files that share the blocks of a few: as large as it looks only to its readers. */
static void prepare_tree(struct work *w)
{
	int dir_fd;

	need(mkdirat(w->dir_fd, "src", 0755) == 0, "mkdir");
	dir_fd = openat(w->dir_fd, "src", O_RDONLY | O_DIRECTORY);
	need(dir_fd >= 0, "src");
	for (uint64_t i = 0; i < w->count; i++) {
		int base = base_open(w, i);

		need(lseek(base, 0, SEEK_SET) == 0, "lseek");
		clone_at(base, dir_fd, file_name(i), w->size_bytes);
		close(base);
	}
	close(dir_fd);
	need(syncfs(w->dir_fd) == 0, "syncfs");
}

static void tree_by_program(const struct work *w)
{
	pid_t pid = fork();
	int status;

	need(pid >= 0, "fork");
	if (pid == 0) {
		need(fchdir(w->dir_fd) == 0, "chdir");
		execl(w->umbractl, w->umbractl, "clone", "-r", "src", "dst", (char *)NULL);
		need(false, w->umbractl);
	}
	need(waitpid(pid, &status, 0) == pid && status == 0, "umbractl clone -r");
}

static void tree_by_calls(const struct work *w)
{
	int src_fd = openat(w->dir_fd, "src", O_RDONLY | O_DIRECTORY);
	int dst_fd;

	need(src_fd >= 0 && mkdirat(w->dir_fd, "dst", 0755) == 0, "mkdir");
	dst_fd = openat(w->dir_fd, "dst", O_RDONLY | O_DIRECTORY);
	need(dst_fd >= 0, "dst");
	for (uint64_t i = 0; i < w->count; i++) {
		int fd = openat(src_fd, file_name(i), O_RDONLY);

		need(fd >= 0, "open");
		clone_at(fd, dst_fd, file_name(i), w->size_bytes);
		close(fd);
	}
	close(src_fd);
	close(dst_fd);
}

static void run_tree(struct work *w)
{
	if (w->umbractl)
		tree_by_program(w);
	else
		tree_by_calls(w);
	w->done_count = w->count;
}

const struct row clone_rows[] = {
	{ .name = "clone_1g",
	  .size_bytes = 1024ull * MIB_BYTES,
	  .prepare = prepare_one_extent,
	  .run = run_clone },
	{ .name = "clone_20k", .count = 20000, .prepare = prepare_many_extents, .run = run_clone },
	{ .name = "clone_tree",
	  .count = 2000,
	  .size_bytes = 16ull * MIB_BYTES,
	  .prepare = prepare_tree,
	  .run = run_tree },
	{ .name = NULL },
};
