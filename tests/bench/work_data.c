/* SPDX-License-Identifier: BSD-3-Clause */
/* Rows that move file data. */
#define _GNU_SOURCE
#include "work.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define IO_COUNT 20000u

static void prepare_file(struct work *w)
{
	w->fd = file_fill(w, "data", w->size_bytes);
}

static void prepare_cold_file(struct work *w)
{
	prepare_file(w);
	file_chill(w->fd, w->size_bytes);
}

static void run_seq_write(struct work *w)
{
	int fd = openat(w->dir_fd, "data", O_CREAT | O_EXCL | O_WRONLY, 0644);

	need(fd >= 0, "create");
	for (uint64_t off_bytes = 0; off_bytes < w->size_bytes; off_bytes += MIB_BYTES)
		write_full(w, fd, MIB_BYTES, off_bytes);
	need(close(fd) == 0, "close");
	w->done_count = w->size_bytes / MIB_BYTES;
	w->done_bytes = w->size_bytes;
}

static void run_overwrite(struct work *w)
{
	for (uint64_t off_bytes = 0; off_bytes < w->size_bytes; off_bytes += MIB_BYTES)
		write_full(w, w->fd, MIB_BYTES, off_bytes);
	w->done_count = w->size_bytes / MIB_BYTES;
	w->done_bytes = w->size_bytes;
}

static void run_seq_read(struct work *w)
{
	char *buf = aligned_alloc(BLK_BYTES, MIB_BYTES);

	need(buf, "memory");
	for (uint64_t off_bytes = 0; off_bytes < w->size_bytes; off_bytes += MIB_BYTES)
		need(pread(w->fd, buf, MIB_BYTES, (off_t)off_bytes) == MIB_BYTES, "read");
	free(buf);
	w->done_count = w->size_bytes / MIB_BYTES;
	w->done_bytes = w->size_bytes;
}

static uint64_t random_off_bytes(const struct work *w)
{
	return random_next() % (w->size_bytes / BLK_BYTES) * BLK_BYTES;
}

static void run_rand_write(struct work *w)
{
	for (uint64_t i = 0; i < w->count; i++)
		write_full(w, w->fd, BLK_BYTES, random_off_bytes(w));
	w->done_count = w->count;
}

static void run_write_fsync(struct work *w)
{
	for (uint64_t i = 0; i < w->count; i++) {
		write_full(w, w->fd, BLK_BYTES, random_off_bytes(w));
		need(fsync(w->fd) == 0, "fsync");
	}
	w->done_count = w->count;
}

static void prepare_cold_random(struct work *w)
{
	prepare_cold_file(w);
	need(posix_fadvise(w->fd, 0, 0, POSIX_FADV_RANDOM) == 0, "posix_fadvise");
}

/* A stride coprime to the number of blocks visits every block once, in no order readahead likes. */
static void run_rand_read(struct work *w)
{
	uint64_t blocks_count = w->size_bytes / BLK_BYTES;
	char buf[BLK_BYTES];
	uint64_t blk = 0;

	if (w->count > blocks_count)
		w->count = blocks_count;
	for (uint64_t i = 0; i < w->count; i++) {
		blk = (blk + 7919) % blocks_count;
		need(pread(w->fd, buf, sizeof(buf), (off_t)(blk * BLK_BYTES)) == (ssize_t)sizeof(buf),
		     "read");
	}
	w->done_count = w->count;
}

static void run_append(struct work *w)
{
	int fd = openat(w->dir_fd, "data", O_CREAT | O_EXCL | O_WRONLY | O_APPEND, 0644);

	need(fd >= 0, "create");
	for (uint64_t i = 0; i < w->count; i++)
		need(write(fd, w->block, BLK_BYTES) == BLK_BYTES, "append");
	need(close(fd) == 0, "close");
	w->done_count = w->count;
}

const struct row data_rows[] = {
	{ .name = "seq_write", .size_bytes = 512ull * MIB_BYTES, .run = run_seq_write },
	{ .name = "seq_overwrite",
	  .size_bytes = 512ull * MIB_BYTES,
	  .prepare = prepare_file,
	  .run = run_overwrite },
	{ .name = "seq_read_cold",
	  .size_bytes = 512ull * MIB_BYTES,
	  .prepare = prepare_cold_file,
	  .run = run_seq_read },
	{ .name = "rand_write",
	  .count = IO_COUNT,
	  .size_bytes = 64ull * MIB_BYTES,
	  .prepare = prepare_file,
	  .run = run_rand_write },
	{ .name = "rand_read_cold",
	  .count = IO_COUNT,
	  .size_bytes = 128ull * MIB_BYTES,
	  .prepare = prepare_cold_random,
	  .run = run_rand_read },
	{ .name = "write_fsync",
	  .count = IO_COUNT,
	  .size_bytes = 64ull * MIB_BYTES,
	  .prepare = prepare_file,
	  .run = run_write_fsync },
	{ .name = "append", .count = IO_COUNT, .run = run_append },
	{ .name = NULL },
};
