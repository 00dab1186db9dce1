/* SPDX-License-Identifier: BSD-3-Clause */
/* Rows for sizes: the same operation, many times, the first and the last 5 % timed apart. */
#define _GNU_SOURCE
#include "work.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Calls step for each index and notes what the first and the last 5 % took. */
static void run_steps(struct work *w, void (*step)(struct work *w, uint64_t index))
{
	uint64_t part = w->count / 20 ? w->count / 20 : 1;
	uint64_t start_ns = now_ns(), start_cpu_ns = cpu_ns(w);

	for (uint64_t i = 0; i < w->count; i++) {
		if (i == part) {
			w->first_ns = now_ns() - start_ns;
			w->first_cpu_ns = cpu_ns(w) - start_cpu_ns;
		}
		if (i == w->count - part) {
			w->last_cpu_ns = cpu_ns(w);
			w->last_ns = now_ns();
		}
		step(w, i);
	}
	w->last_ns = now_ns() - w->last_ns;
	w->last_cpu_ns = cpu_ns(w) - w->last_cpu_ns;
	w->done_count = w->count;
}

static void step_create(struct work *w, uint64_t index)
{
	need(close(file_create(w, index)) == 0, "close");
}

static void run_many_create(struct work *w)
{
	run_steps(w, step_create);
}

/* Every second block, so that no two extents can become one. */
static void step_extent(struct work *w, uint64_t index)
{
	write_full(w, w->fd, BLK_BYTES, index * 2 * BLK_BYTES);
}

static void run_many_extents(struct work *w)
{
	w->fd = file_create(w, 0);
	run_steps(w, step_extent);
	need(fsync(w->fd) == 0, "fsync");
}

static void prepare_extents(struct work *w)
{
	w->fd = file_create(w, 0);
	for (uint64_t i = 0; i < w->count; i++)
		step_extent(w, i);
	file_chill(w->fd, w->count * 2 * BLK_BYTES);
}

static void run_extents_clone(struct work *w)
{
	struct stat st;
	int dst = file_create(w, 1);

	need(fstat(w->fd, &st) == 0, "stat");
	file_clone(w->fd, dst, (uint64_t)st.st_size);
	close(dst);
	w->done_count = 1;
}

static void run_extents_truncate(struct work *w)
{
	need(ftruncate(w->fd, 0) == 0, "truncate");
	w->done_count = 1;
}

static void step_extent_read(struct work *w, uint64_t index)
{
	char buf[BLK_BYTES];

	(void)index;
	need(pread(w->fd, buf, sizeof(buf), (off_t)(random_next() % w->count * 2 * BLK_BYTES)) ==
		     (ssize_t)sizeof(buf),
	     "read");
}

static void run_extents_read(struct work *w)
{
	need(posix_fadvise(w->fd, 0, 0, POSIX_FADV_RANDOM) == 0, "posix_fadvise");
	for (uint64_t i = 0; i < 20000; i++)
		step_extent_read(w, i);
	w->done_count = 20000;
}

static void step_clone(struct work *w, uint64_t index)
{
	int dst = file_create(w, index);

	need(lseek(w->fd, 0, SEEK_SET) == 0, "lseek");
	file_clone(w->fd, dst, w->size_bytes);
	close(dst);
}

static void prepare_base(struct work *w)
{
	w->fd = file_fill(w, "base", w->size_bytes);
}

static void run_many_clones(struct work *w)
{
	run_steps(w, step_clone);
}

static void prepare_clones(struct work *w)
{
	prepare_base(w);
	for (uint64_t i = 0; i < w->count; i++)
		step_clone(w, i);
}

/* Copies one block on write in each clone. */
static void step_clone_write(struct work *w, uint64_t index)
{
	int fd = openat(w->dir_fd, file_name(index), O_WRONLY);

	need(fd >= 0, "open");
	write_full(w, fd, BLK_BYTES, w->size_bytes / 2 / BLK_BYTES * BLK_BYTES);
	need(close(fd) == 0, "close");
}

static void run_clones_write(struct work *w)
{
	run_steps(w, step_clone_write);
}

static void step_unlink(struct work *w, uint64_t index)
{
	need(unlinkat(w->dir_fd, file_name(index), 0) == 0, "unlink");
}

static void run_clones_unlink(struct work *w)
{
	run_steps(w, step_unlink);
}

static void step_truncate(struct work *w, uint64_t index)
{
	int fd = openat(w->dir_fd, file_name(index), O_WRONLY);

	need(fd >= 0 && ftruncate(fd, (off_t)(w->size_bytes / 2)) == 0, "truncate");
	close(fd);
}

static void run_clones_truncate(struct work *w)
{
	run_steps(w, step_truncate);
}

const struct row scale_rows[] = {
	{ .name = "many_files", .count = 1000000, .run = run_many_create },
	{ .name = "many_extents", .count = 1000000, .run = run_many_extents },
	{ .name = "extents_read", .count = 1000000, .prepare = prepare_extents, .run = run_extents_read },
	{ .name = "extents_clone", .count = 1000000, .prepare = prepare_extents, .run = run_extents_clone },
	{ .name = "extents_truncate",
	  .count = 1000000,
	  .prepare = prepare_extents,
	  .run = run_extents_truncate },
	{ .name = "many_clones",
	  .count = 10000,
	  .size_bytes = MIB_BYTES,
	  .prepare = prepare_base,
	  .run = run_many_clones },
	{ .name = "clones_write",
	  .count = 10000,
	  .size_bytes = MIB_BYTES,
	  .prepare = prepare_clones,
	  .run = run_clones_write },
	{ .name = "clones_truncate",
	  .count = 10000,
	  .size_bytes = MIB_BYTES,
	  .prepare = prepare_clones,
	  .run = run_clones_truncate },
	{ .name = "clones_unlink",
	  .count = 10000,
	  .size_bytes = MIB_BYTES,
	  .prepare = prepare_clones,
	  .run = run_clones_unlink },
	{ .name = NULL },
};
