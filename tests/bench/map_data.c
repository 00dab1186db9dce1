/* SPDX-License-Identifier: BSD-3-Clause */
/* Reading and writing by calls. Beside libumbra, in turns, the same to memory that is mapped: the limit. */
#include "map.h"

#include <libpmem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define TURNS 5u

struct calls {
	struct place file, raw;
	uint8_t *raw_at, *buf;
	uint32_t size; /* of a call */
	bool write, hot, sync;
	bool in_order;
};

static uint64_t place_of(const struct bench *b, const struct calls *c, uint64_t i)
{
	uint64_t places = b->size_bytes / c->size;

	return c->hot ? 0 : (c->in_order ? i % places : random_next() % places) * c->size;
}

/* libumbra: what is written is durable; the kernel's have to be asked for it. */
static uint64_t by_calls(const struct bench *b, const struct calls *c, uint64_t count)
{
	uint64_t start_ns = now_ns();
	struct umbra_file *file = c->file.file;
	ssize_t n;

	for (uint64_t i = 0; i < count; i++) {
		off_t off = (off_t)place_of(b, c, i);

		if (c->write)
			n = file ? umbra_pwrite(file, c->buf, c->size, off) :
				   pwrite(c->file.fd, c->buf, c->size, off);
		else
			n = file ? umbra_pread(file, c->buf, c->size, off) :
				   pread(c->file.fd, c->buf, c->size, off);
		need(n == (ssize_t)c->size, "read or write");
		if (c->sync && !file)
			need(fsync(c->file.fd) == 0, "fsync");
	}
	return now_ns() - start_ns;
}

static uint64_t by_copies(const struct bench *b, const struct calls *c, uint64_t count)
{
	uint64_t start_ns = now_ns();

	for (uint64_t i = 0; i < count; i++) {
		uint8_t *at = c->raw_at + place_of(b, c, i);

		if (c->write)
			pmem_memmove(at, c->buf, c->size, PMEM_F_MEM_NONTEMPORAL);
		else
			memcpy(c->buf, at, c->size);
	}
	return now_ns() - start_ns;
}

/* Each place once: what is measured after that are no first touches of pages. */
static void warm_up(const struct bench *b, const struct calls *c)
{
	struct calls all = *c;

	all.in_order = true;
	all.sync = false;
	(void)by_calls(b, &all, b->size_bytes / c->size);
	if (c->raw_at)
		(void)by_copies(b, &all, b->size_bytes / c->size);
}

static void run(struct bench *b, struct calls *c)
{
	c->file = place_open(file_make(b, "file", b->size_bytes));
	c->buf = aligned_alloc(PAGE_BYTES, MIB_BYTES);
	need(c->buf != NULL, "memory");
	memset(c->buf, 1, MIB_BYTES);
	if (c->file.file) {
		c->raw.fd = file_make(b, b->raw, b->size_bytes);
		c->raw_at = place_map(&c->raw, b->size_bytes, PROT_READ | PROT_WRITE);
	}
	warm_up(b, c);
	for (unsigned turn = 0; turn < TURNS; turn++) {
		b->wall_ns += by_calls(b, c, b->count);
		if (c->raw_at)
			b->raw_ns += by_copies(b, c, b->count);
	}
	b->done_count = b->count * TURNS;
	b->done_bytes = b->done_count * c->size;
	if (c->raw_at) {
		place_unmap(&c->raw, c->raw_at, b->size_bytes);
		place_close(&c->raw);
	}
	place_close(&c->file);
	free(c->buf);
}

static void run_read_hot(struct bench *b)
{
	struct calls c = { .size = PAGE_BYTES, .hot = true };

	run(b, &c);
}

static void run_read_random(struct bench *b)
{
	struct calls c = { .size = PAGE_BYTES };

	run(b, &c);
}

static void run_write_random(struct bench *b)
{
	struct calls c = { .size = PAGE_BYTES, .write = true };

	run(b, &c);
}

static void run_write_sync(struct bench *b)
{
	struct calls c = { .size = PAGE_BYTES, .write = true, .sync = true };

	run(b, &c);
}

static void run_read_large(struct bench *b)
{
	struct calls c = { .size = MIB_BYTES, .in_order = true };

	run(b, &c);
}

static void run_write_large(struct bench *b)
{
	struct calls c = { .size = MIB_BYTES, .write = true, .in_order = true };

	run(b, &c);
}

const struct map_row map_data_rows[] = {
	{ "lib_read_hot", 100000, 256ull * MIB_BYTES, run_read_hot },
	{ "lib_read_random", 50000, 1024ull * MIB_BYTES, run_read_random },
	{ "lib_write_random", 50000, 1024ull * MIB_BYTES, run_write_random },
	{ "lib_write_sync", 20000, 1024ull * MIB_BYTES, run_write_sync },
	{ "lib_read_large", 512, 512ull * MIB_BYTES, run_read_large },
	{ "lib_write_large", 512, 512ull * MIB_BYTES, run_write_large },
	{ NULL, 0, 0, NULL },
};
