/* SPDX-License-Identifier: BSD-3-Clause */
/* The workloads of the benchmark: what a row is, and the helpers that rows share. */
#ifndef UMBRA_BENCH_WORK_H
#define UMBRA_BENCH_WORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define BLK_BYTES 4096u
#define MIB_BYTES (1u << 20)

/* One measurement. Rows read the top part and fill the bottom part. */
struct work {
	int dir_fd;           /* an empty directory of this measurement */
	const char *dir;      /* its path */
	uint64_t count;       /* how many operations, files or extents */
	uint64_t size_bytes;  /* file size, where the row has one */
	const char *umbractl; /* program that clones trees, or NULL: clone here */
	pid_t server_pid;     /* 0: no server */
	char *block;          /* MIB_BYTES of data that does not compress */

	uint64_t done_count;                /* operations done in the timed part */
	uint64_t done_bytes;                /* bytes moved in the timed part, for rows in MB/s */
	uint64_t wall_ns;                   /* set by the row only if it times single calls itself */
	uint64_t first_ns, last_ns;         /* scale rows: time of the first and the last 5 % */
	uint64_t first_cpu_ns, last_cpu_ns; /* the same, of processors: client and server */
	uint64_t quiet_p99_ns, busy_p99_ns; /* of calls before and while something else goes on */
	int fd;                             /* a file that prepare leaves open for run */
};

/* prepare is not timed; run is. is_cold_*: caches are dropped in between. */
struct row {
	const char *name;
	uint64_t count;
	uint64_t size_bytes;
	void (*prepare)(struct work *w);
	void (*run)(struct work *w);
	bool is_cold_names; /* dentries and inodes */
	bool is_cold_data;  /* page cache too */
};

extern const struct row meta_rows[];
extern const struct row data_rows[];
extern const struct row clone_rows[];
extern const struct row scale_rows[];
extern const struct row evacuate_rows[];
extern const struct row beside_rows[];
extern const struct row run_rows[];

/* Ends the program with a message when ok is false. */
void need(bool ok, const char *what);

uint64_t now_ns(void);
/* CPU of the caller (children included) and the server so far. */
uint64_t cpu_ns(const struct work *w);

/* Name of file index in the measurement's directory; valid until the next call. */
const char *file_name(uint64_t index);
int file_create(const struct work *w, uint64_t index);
/* Creates count files, each with size_bytes of data (at most 1 MiB). */
void files_make(const struct work *w, uint64_t count, size_t size_bytes);
/* Creates name with size_bytes of data in 1 MiB writes; returns it open for reading and writing. */
int file_fill(const struct work *w, const char *name, uint64_t size_bytes);
void write_full(const struct work *w, int fd, size_t size_bytes, uint64_t off_bytes);
/* Drops the clean pages of one file and makes sure that they are gone. */
void file_chill(int fd, uint64_t size_bytes);
/* Clones or copies the whole of src to the empty dst by copy_file_range alone. */
void file_clone(int src, int dst, uint64_t size_bytes);
/* What the slowest hundredth takes at least; sorts them. */
uint64_t p99_ns(uint32_t *took_ns, uint64_t count);
/* A small fast generator with a fixed seed, so that every run does the same. */
uint64_t random_next(void);

#endif
