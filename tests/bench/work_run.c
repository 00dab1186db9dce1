/* SPDX-License-Identifier: BSD-3-Clause */
/* Rows of programs that know nothing of umbrafs: plain calls, under umbra-run there. */
#define _GNU_SOURCE
#include "work.h"

#include <string.h>
#include <unistd.h>

static _Alignas(BLK_BYTES) char page[BLK_BYTES];

static uint64_t random_place(const struct work *w)
{
	return random_next() % (w->size_bytes / BLK_BYTES) * BLK_BYTES;
}

static void read_page(const struct work *w, uint64_t off_bytes)
{
	need(pread(w->fd, page, BLK_BYTES, (off_t)off_bytes) == (ssize_t)BLK_BYTES, "read");
}

static void write_page(const struct work *w, uint64_t off_bytes)
{
	need(pwrite(w->fd, page, BLK_BYTES, (off_t)off_bytes) == (ssize_t)BLK_BYTES, "write");
}

/* Each place once: what is timed after that are no first touches of pages. */
static void prepare_read(struct work *w)
{
	w->fd = file_fill(w, "data", w->size_bytes);
	for (uint64_t off_bytes = 0; off_bytes < w->size_bytes; off_bytes += BLK_BYTES)
		read_page(w, off_bytes);
}

static void prepare_write(struct work *w)
{
	w->fd = file_fill(w, "data", w->size_bytes);
	memset(page, 1, sizeof(page));
	for (uint64_t off_bytes = 0; off_bytes < w->size_bytes; off_bytes += BLK_BYTES)
		write_page(w, off_bytes);
	need(fsync(w->fd) == 0, "fsync");
}

static void run_done(struct work *w)
{
	w->done_count = w->count;
	w->done_bytes = w->count * BLK_BYTES;
}

static void run_read_hot(struct work *w)
{
	for (uint64_t i = 0; i < w->count; i++)
		read_page(w, 0);
	run_done(w);
}

static void run_read_random(struct work *w)
{
	for (uint64_t i = 0; i < w->count; i++)
		read_page(w, random_place(w));
	run_done(w);
}

static void run_write_random(struct work *w)
{
	for (uint64_t i = 0; i < w->count; i++)
		write_page(w, random_place(w));
	run_done(w);
}

static void run_write_sync(struct work *w)
{
	for (uint64_t i = 0; i < w->count; i++) {
		write_page(w, random_place(w));
		need(fsync(w->fd) == 0, "fsync");
	}
	run_done(w);
}

const struct row run_rows[] = {
	{ .name = "run_read_hot",
	  .count = 500000,
	  .size_bytes = 256ull * MIB_BYTES,
	  .prepare = prepare_read,
	  .run = run_read_hot },
	{ .name = "run_read_random",
	  .count = 250000,
	  .size_bytes = 1024ull * MIB_BYTES,
	  .prepare = prepare_read,
	  .run = run_read_random },
	{ .name = "run_write_random",
	  .count = 250000,
	  .size_bytes = 1024ull * MIB_BYTES,
	  .prepare = prepare_write,
	  .run = run_write_random },
	{ .name = "run_write_sync",
	  .count = 100000,
	  .size_bytes = 1024ull * MIB_BYTES,
	  .prepare = prepare_write,
	  .run = run_write_sync },
	{ .name = NULL },
};
