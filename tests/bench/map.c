/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Work on mapped files, and by libumbra where there is none on kernel file systems. As bench_work it is started for one measurement of one row by `run`, and prints it.
 */
#define _GNU_SOURCE
#include "map.h"

#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

void need(bool ok, const char *what)
{
	if (!ok) {
		perror(what);
		exit(1);
	}
}

uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t random_next(void)
{
	static uint64_t number = 88172645463325252ull;

	number ^= number << 13;
	number ^= number >> 7;
	number ^= number << 17;
	return number;
}

uint32_t *shuffled(uint32_t count)
{
	uint32_t *all = malloc(count * sizeof(*all));

	need(all != NULL, "memory");
	for (uint32_t i = 0; i < count; i++) {
		uint32_t j = (uint32_t)(random_next() % (i + 1));

		all[i] = all[j];
		all[j] = i;
	}
	return all;
}

/* ---- files ---- */

int file_make(const struct bench *b, const char *name, uint64_t size_bytes)
{
	uint64_t *block = malloc(MIB_BYTES);
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), name[0] == '/' ? "%.0s%s" : "%s/%s", b->dir, name);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	need(fd >= 0 && block, path);
	for (size_t i = 0; i < MIB_BYTES / sizeof(*block); i++)
		block[i] = random_next();
	for (uint64_t off = 0; off < size_bytes; off += MIB_BYTES)
		need(pwrite(fd, block, MIB_BYTES, (off_t)off) == MIB_BYTES, "write");
	need(fsync(fd) == 0, "fsync");
	free(block);
	return fd;
}

int file_clone(const struct bench *b, const char *name, int src, uint64_t size_bytes)
{
	int fd = file_make(b, name, 0);
	off_t from = 0, to = 0;

	while ((uint64_t)from < size_bytes)
		need(copy_file_range(src, &from, fd, &to, size_bytes - (uint64_t)from, 0) > 0, "clone");
	need(fsync(fd) == 0, "fsync");
	return fd;
}

struct place place_open(int fd)
{
	struct place p = { .fd = fd };

	if (umbra_attach(fd, &p.file))
		p.file = NULL;
	return p;
}

void place_close(struct place *p)
{
	umbra_detach(p->file);
	close(p->fd);
}

void *place_map(const struct place *p, uint64_t size_bytes, int prot)
{
	void *at = p->file ? umbra_mmap(NULL, size_bytes, prot, MAP_SHARED, p->file, 0) :
			     mmap(NULL, size_bytes, prot, MAP_SHARED, p->fd, 0);

	need(p->file ? umbra_mmap_error(at) == 0 : at != MAP_FAILED, "mmap");
	return at;
}

void place_sync(const struct place *p, void *at, uint64_t size_bytes)
{
	need((p->file ? umbra_msync(at, size_bytes, MS_SYNC) : msync(at, size_bytes, MS_SYNC)) == 0, "msync");
}

void place_unmap(const struct place *p, void *at, uint64_t size_bytes)
{
	need((p->file ? umbra_munmap(at, size_bytes) : munmap(at, size_bytes)) == 0, "munmap");
}

#define SETTLED 10u /* times 50 ms */
#define SETTLE_MAX 1200u

uint64_t space_used(const struct bench *b)
{
	uint64_t used = 0, before = 1;
	struct statvfs st;

	for (unsigned same = 0, i = 0; same < SETTLED && i < SETTLE_MAX; i++) {
		need(statvfs(b->dir, &st) == 0, b->dir);
		used = (st.f_blocks - st.f_bfree) * st.f_frsize;
		same = used == before ? same + 1 : 0;
		before = used;
		usleep(50000);
	}
	return used;
}

/* ---- one measurement ---- */

static uint64_t own_cpu_ns(void)
{
	struct timespec used;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

static uint64_t server_cpu_ns(const struct bench *b)
{
	struct timespec used;
	clockid_t clock;

	if (b->server_pid == 0 || clock_getcpuclockid(b->server_pid, &clock) || clock_gettime(clock, &used))
		return 0;
	return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

void timer_start(struct bench *b)
{
	b->client_cpu_ns -= own_cpu_ns();
	b->server_cpu_ns -= server_cpu_ns(b);
	b->wall_ns -= now_ns();
}

void timer_stop(struct bench *b)
{
	b->wall_ns += now_ns();
	b->client_cpu_ns += own_cpu_ns();
	b->server_cpu_ns += server_cpu_ns(b);
}

static const struct map_row *row_find(const char *name)
{
	static const struct map_row *const all[] = { map_rows, map_many_rows, map_data_rows };

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		for (const struct map_row *row = all[i]; row->name; row++)
			if (strcmp(row->name, name) == 0)
				return row;
	return NULL;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "count", required_argument, NULL, 'c' },
		{ "size", required_argument, NULL, 's' },
		{ "server", required_argument, NULL, 'p' },
		{ "raw", required_argument, NULL, 'r' },
		{ NULL, 0, NULL, 0 },
	};
	struct bench b = { .raw = "/dev/shm/umbra-bench.raw" };
	const struct map_row *row;
	char dir[4096];
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 'c')
			b.count = strtoull(optarg, NULL, 0);
		else if (opt == 's')
			b.size_bytes = strtoull(optarg, NULL, 0);
		else if (opt == 'p')
			b.server_pid = (pid_t)strtol(optarg, NULL, 0);
		else if (opt == 'r')
			b.raw = optarg;
		else
			return 2;
	}
	row = argc - optind == 2 ? row_find(argv[optind]) : NULL;
	if (!row) {
		fprintf(stderr,
			"usage: bench_map ROW DIR [--count N] [--size BYTES] [--server PID] [--raw FILE]\n");
		return 2;
	}
	snprintf(dir, sizeof(dir), "%s/%s.%d", argv[optind + 1], row->name, (int)getpid());
	need(mkdir(dir, 0755) == 0, dir);
	b.dir = dir;
	b.count = b.count ? b.count : row->count;
	b.size_bytes = b.size_bytes ? b.size_bytes : row->size_bytes;
	row->run(&b);
	unlink(b.raw);
	printf("{\"row\": \"%s\", \"count\": %llu, \"bytes\": %llu, \"wall_ns\": %llu, \"raw_ns\": %llu, "
	       "\"stored_bytes\": %llu, \"extra_bytes\": %llu, \"messages\": %llu, \"client_cpu_ns\": %llu, "
	       "\"server_cpu_ns\": %llu}\n",
	       row->name, (unsigned long long)b.done_count, (unsigned long long)b.done_bytes,
	       (unsigned long long)b.wall_ns, (unsigned long long)b.raw_ns,
	       (unsigned long long)b.stored_bytes, (unsigned long long)b.extra_bytes,
	       (unsigned long long)b.messages, (unsigned long long)b.client_cpu_ns,
	       (unsigned long long)b.server_cpu_ns);
	return 0;
}
