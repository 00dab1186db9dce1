/* SPDX-License-Identifier: BSD-3-Clause */
/* Many processes that have files mapped: how long it takes until all have let go of a page, and what memory they take. */
#define _GNU_SOURCE
#include "map.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PUNCHES 21u

struct crew {
	pid_t *pids;
	int (*pipes)[2]; /* to each one, and from it */
	uint32_t count;
};

static void tell(int fd)
{
	need(write(fd, "x", 1) == 1, "pipe");
}

static void hear(int fd)
{
	char c;

	need(read(fd, &c, 1) == 1, "pipe: a process has ended");
}

/* Each runs work(arg, its number, its pipes) and ends. */
static struct crew crew_start(uint32_t count, void (*work)(void *arg, uint32_t number, int in, int out),
			      void *arg)
{
	struct crew crew = { calloc(count + 1, sizeof(pid_t)), calloc(count + 1, sizeof(int[2])), count };

	need(crew.pids && crew.pipes, "memory");
	for (uint32_t i = 0; i < count; i++) {
		int to[2], from[2];

		need(pipe2(to, O_CLOEXEC) == 0 && pipe2(from, O_CLOEXEC) == 0, "pipe");
		crew.pids[i] = fork();
		need(crew.pids[i] >= 0, "fork");
		if (crew.pids[i] == 0) {
			close(to[1]);
			close(from[0]);
			for (uint32_t j = 0; j < i; j++) {
				close(crew.pipes[j][0]);
				close(crew.pipes[j][1]);
			}
			work(arg, i, to[0], from[1]);
			_exit(0);
		}
		close(to[0]);
		close(from[1]);
		crew.pipes[i][0] = to[1];
		crew.pipes[i][1] = from[0];
		hear(crew.pipes[i][1]);
	}
	return crew;
}

static void crew_turn(const struct crew *crew)
{
	for (uint32_t i = 0; i < crew->count; i++)
		tell(crew->pipes[i][0]);
	for (uint32_t i = 0; i < crew->count; i++)
		hear(crew->pipes[i][1]);
}

static void crew_end(struct crew *crew)
{
	for (uint32_t i = 0; i < crew->count; i++) {
		close(crew->pipes[i][0]);
		close(crew->pipes[i][1]);
	}
	for (uint32_t i = 0; i < crew->count; i++)
		waitpid(crew->pids[i], NULL, 0);
	free(crew->pids);
	free(crew->pipes);
}

/* ---- revokes ---- */

/* Reads the next page each time that it is told to, and has it mapped until somebody takes it away. */
static void page_reader(void *arg, uint32_t number, int in, int out)
{
	const struct bench *b = arg;
	char path[4096], c;
	volatile uint8_t *at;
	struct place p;

	(void)number;
	snprintf(path, sizeof(path), "%s/file", b->dir);
	p = place_open(open(path, O_RDONLY | O_CLOEXEC));
	need(p.fd >= 0, path);
	at = place_map(&p, b->size_bytes, PROT_READ);
	tell(out);
	for (uint64_t page = 0; read(in, &c, 1) == 1; page++) {
		(void)at[page * PAGE_BYTES];
		tell(out);
	}
}

static int by_ns(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Median of holes that are punched, each of a page that all of the crew have. */
static uint64_t punches(const struct bench *b, int fd, const struct crew *crew, uint64_t first)
{
	uint64_t ns[PUNCHES];

	for (uint64_t i = 0; i < PUNCHES; i++) {
		uint64_t start_ns;

		if (crew)
			crew_turn(crew);
		start_ns = now_ns();
		need(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       (off_t)((first + i) * PAGE_BYTES), PAGE_BYTES) == 0,
		     "punch");
		ns[i] = now_ns() - start_ns;
	}
	(void)b;
	qsort(ns, PUNCHES, sizeof(ns[0]), by_ns);
	return ns[PUNCHES / 2];
}

/* The same punch of what nobody maps is taken off. */
static void run_revoke(struct bench *b)
{
	int fd = file_make(b, "file", b->size_bytes);
	uint64_t alone_ns, ns;
	struct crew crew;
	char path[4096];

	/* While somebody may write through pages of the kernel nobody maps the file. */
	close(fd);
	snprintf(path, sizeof(path), "%s/file", b->dir);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	need(fd >= 0, path);
	alone_ns = punches(b, fd, NULL, PUNCHES);
	crew = crew_start((uint32_t)b->count, page_reader, b);
	ns = punches(b, fd, &crew, 0);
	b->wall_ns = ns > alone_ns ? ns - alone_ns : 1;
	b->done_count = 1;
	crew_end(&crew);
	close(fd);
}

/* ---- memory ---- */

/* KiB of a line of /proc/PID/status. */
static uint64_t status_kib(pid_t pid, const char *name)
{
	unsigned long long kib = 0;
	char path[64], line[256];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	file = fopen(path, "re");
	need(file != NULL, path);
	while (fgets(line, sizeof(line), file))
		if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':')
			sscanf(line + strlen(name) + 1, "%llu", &kib);
	fclose(file);
	return kib;
}

static uint64_t memory_kib(pid_t pid)
{
	return status_kib(pid, "RssAnon") + status_kib(pid, "VmPTE");
}

static void clone_reader(void *arg, uint32_t number, int in, int out)
{
	const struct bench *b = arg;
	volatile uint8_t *at;
	char path[4096], c;
	struct place p;

	snprintf(path, sizeof(path), "%s/clone-%u", b->dir, number);
	p = place_open(open(path, O_RDONLY | O_CLOEXEC));
	need(p.fd >= 0, path);
	tell(out);
	hear(in);
	at = place_map(&p, b->size_bytes, PROT_READ);
	for (uint64_t off = 0; off < b->size_bytes; off += PAGE_BYTES)
		(void)at[off];
	tell(out);
	(void)!read(in, &c, 1);
}

static uint64_t crew_kib(const struct bench *b, const struct crew *crew)
{
	uint64_t kib = b->server_pid ? memory_kib(b->server_pid) : 0;

	for (uint32_t i = 0; i < crew->count; i++)
		kib += memory_kib(crew->pids[i]);
	return kib;
}

/* Between having the files open and having read all of the mappings: private memory and page tables of all processes, the server's among them, and space of the pool. */
static void run_clones(struct bench *b)
{
	int src = file_make(b, "file", b->size_bytes);
	uint64_t used, before_kib;
	struct crew crew;

	for (uint64_t i = 0; i < b->count; i++) {
		char name[32];

		snprintf(name, sizeof(name), "clone-%llu", (unsigned long long)i);
		close(file_clone(b, name, src, b->size_bytes));
	}
	crew = crew_start((uint32_t)b->count, clone_reader, b);
	used = space_used(b);
	before_kib = crew_kib(b, &crew);
	timer_start(b);
	for (uint32_t i = 0; i < crew.count; i++) {
		tell(crew.pipes[i][0]);
		hear(crew.pipes[i][1]);
	}
	timer_stop(b);
	b->done_count = b->count;
	b->extra_bytes = (crew_kib(b, &crew) - before_kib) * 1024 + (space_used(b) - used);
	b->stored_bytes = b->size_bytes * b->count;
	crew_end(&crew);
	close(src);
}

const struct map_row map_many_rows[] = {
	{ "map_revoke_1", 1, MIB_BYTES, run_revoke },
	{ "map_revoke_10", 10, MIB_BYTES, run_revoke },
	{ "map_revoke_100", 100, MIB_BYTES, run_revoke },
	{ "map_clones", 1000, 256ull * MIB_BYTES, run_clones },
	{ NULL, 0, 0, NULL },
};
