/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading and writing by libumbra, as ratios: to a plain copy from and to the same kind of memory, which is the limit, and to pread()/pwrite() of a file on tmpfs and of the
 * same file by the kernel.
 *
 *	bench_direct FILE TMPFS-FILE [MIB]
 *
 * FILE is on umbrafs and is overwritten. Medians of RUNS, taking turns.
 */
#include <fcntl.h>
#include <libpmem.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <umbra/umbra.h>

#define BLOCK 4096u
#define MIB (1u << 20)
#define RUNS 5
#define HOT_CALLS 200000u
#define RANDOM_CALLS 60000u

struct bench {
	struct umbra_file *file;
	int fd, tmpfs;
	uint8_t *memory; /* of the file on tmpfs */
	size_t bytes;
	uint8_t *buf;
};

enum way { DIRECT, COPY, TMPFS, KERNEL, WAYS };

struct row {
	const char *name;
	uint32_t size;
	bool write, hot;
};

static const struct row rows[] = {
	{ "read 4K, the same", BLOCK, false, true },         { "read 4K, random", BLOCK, false, false },
	{ "write 4K, random, durable", BLOCK, true, false }, { "read 1M", MIB, false, false },
	{ "overwrite 1M, durable", MIB, true, false },
};

static void stop(const char *what)
{
	perror(what);
	exit(1);
}

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static ssize_t call(struct bench *b, enum way way, const struct row *row, uint64_t off)
{
	switch (way) {
	case DIRECT:
		return row->write ? umbra_pwrite(b->file, b->buf, row->size, (off_t)off) :
				    umbra_pread(b->file, b->buf, row->size, (off_t)off);
	case COPY:
		if (row->write)
			pmem_memmove(b->memory + off, b->buf, row->size, 0);
		else
			memcpy(b->buf, b->memory + off, row->size);
		return row->size;
	default:
		return row->write ? pwrite(way == TMPFS ? b->tmpfs : b->fd, b->buf, row->size, (off_t)off) :
				    pread(way == TMPFS ? b->tmpfs : b->fd, b->buf, row->size, (off_t)off);
	}
}

/* Microseconds a call. */
static double measure(struct bench *b, enum way way, const struct row *row)
{
	uint64_t number = 88172645463325252ull, places = b->bytes / row->size;
	uint32_t calls = row->size == MIB ? (uint32_t)places : row->hot ? HOT_CALLS : RANDOM_CALLS;
	double start;

	if (way == KERNEL)
		calls = calls / 10 + 1;
	start = now_s();
	for (uint32_t i = 0; i < calls; i++) {
		uint64_t at = 0;

		number ^= number << 13;
		number ^= number >> 7;
		number ^= number << 17;
		if (!row->hot)
			at = row->size == MIB ? i % places : number % places;
		if (call(b, way, row, at * row->size) != (ssize_t)row->size)
			stop(row->name);
	}
	return (now_s() - start) / calls * 1e6;
}

static int by_size(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void row_run(struct bench *b, const struct row *row)
{
	double us[WAYS][RUNS];

	for (unsigned way = 0; way < WAYS; way++) /* what is met for the first time */
		(void)measure(b, way, row);
	for (unsigned run = 0; run < RUNS; run++)
		for (unsigned way = 0; way < WAYS; way++)
			us[way][run] = measure(b, way, row);
	for (unsigned way = 0; way < WAYS; way++)
		qsort(us[way], RUNS, sizeof(double), by_size);
	printf("%-26s %9.2f %9.2f %9.2f %9.2f   %6.2f %6.2f %6.2f\n", row->name, us[DIRECT][RUNS / 2],
	       us[COPY][RUNS / 2], us[TMPFS][RUNS / 2], us[KERNEL][RUNS / 2],
	       us[DIRECT][RUNS / 2] / us[COPY][RUNS / 2], us[DIRECT][RUNS / 2] / us[TMPFS][RUNS / 2],
	       us[DIRECT][RUNS / 2] / us[KERNEL][RUNS / 2]);
}

int main(int argc, char **argv)
{
	struct bench b = { .bytes = (argc > 3 ? strtoul(argv[3], NULL, 0) : 1024) * (size_t)MIB };
	struct umbra_counts counts;
	int rc;

	if (argc < 3 || b.bytes == 0) {
		fprintf(stderr, "usage: bench_direct FILE TMPFS-FILE [MIB]\n");
		return 2;
	}
	b.fd = open(argv[1], O_RDWR | O_CREAT, 0600);
	b.tmpfs = open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0600);
	b.buf = aligned_alloc(MIB, MIB);
	if (b.fd < 0 || b.tmpfs < 0 || !b.buf)
		stop("open");
	memset(b.buf, 1, MIB);
	for (size_t off = 0; off < b.bytes; off += MIB)
		if (pwrite(b.fd, b.buf, MIB, (off_t)off) != MIB ||
		    pwrite(b.tmpfs, b.buf, MIB, (off_t)off) != MIB)
			stop("write");
	b.memory = mmap(NULL, b.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, b.tmpfs, 0);
	if (b.memory == MAP_FAILED)
		stop("mmap");
	rc = umbra_attach(b.fd, &b.file);
	if (rc) {
		fprintf(stderr, "%s: %s\n", argv[1], strerror(-rc));
		return 1;
	}
	printf("%-26s %9s %9s %9s %9s   %20s\n", "us a call", "libumbra", "copy", "tmpfs", "umbrafs",
	       "libumbra to each");
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		row_run(&b, &rows[i]);
	umbra_get_counts(&counts);
	printf("by the kernel: %llu reads, %llu writes\n", counts.kernel_reads, counts.kernel_writes);
	umbra_detach(b.file);
	return 0;
}
