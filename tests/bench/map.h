/* SPDX-License-Identifier: BSD-3-Clause */
/* Rows of files that are mapped, or read and written by libumbra: what they share. */
#ifndef UMBRA_BENCH_MAP_H
#define UMBRA_BENCH_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <umbra/umbra.h>

#define PAGE_BYTES 4096u
#define MIB_BYTES (1u << 20)

/* One measurement: rows read the top part and fill the bottom part. */
struct bench {
	const char *dir; /* of this measurement, empty */
	const char *raw; /* a file on tmpfs to be made, whose mapping is as the device's: the limit */
	uint64_t count, size_bytes;
	pid_t server_pid; /* 0: none */

	uint64_t done_count, done_bytes;
	uint64_t wall_ns, client_cpu_ns, server_cpu_ns;
	uint64_t raw_ns;                    /* the same work without a file system; 0: not done */
	uint64_t stored_bytes, extra_bytes; /* how much space it took in the end */
	uint64_t messages;
};

struct map_row {
	const char *name;
	uint64_t count, size_bytes;
	void (*run)(struct bench *b);
};
extern const struct map_row map_rows[], map_many_rows[], map_data_rows[];

/* A file: by libumbra where that is possible, else by the kernel. */
struct place {
	int fd;
	struct umbra_file *file; /* NULL: the kernel's */
};

void need(bool ok, const char *what);
uint64_t now_ns(void);
/* The same in every run. */
uint64_t random_next(void);
/* All numbers below count, in random order; to be freed. */
uint32_t *shuffled(uint32_t count);

/* A new file in the directory of the measurement, or at path where that is absolute, filled and durable. */
int file_make(const struct bench *b, const char *name, uint64_t size_bytes);
/* And a clone of it. */
int file_clone(const struct bench *b, const char *name, int src, uint64_t size_bytes);
/* Of a descriptor, which it takes. */
struct place place_open(int fd);
void place_close(struct place *p);
void *place_map(const struct place *p, uint64_t size_bytes, int prot);
void place_sync(const struct place *p, void *at, uint64_t size_bytes);
void place_unmap(const struct place *p, void *at, uint64_t size_bytes);
/* When it does not change any more: space may be given back in the background. */
uint64_t space_used(const struct bench *b);
/* What is timed: begins, and is over. */
void timer_start(struct bench *b);
void timer_stop(struct bench *b);

#endif
