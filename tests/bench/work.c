/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * work ROW DIR [--count N] [--size BYTES] [--server PID] [--umbractl PROGRAM]: runs one workload in a new
 * directory under DIR and prints one line of JSON: operations, bytes, wall and CPU time of the timed part.
 *
 * Exit code: 0, 1 on failure, 2 on wrong usage, 3 where the file system cannot do what the row needs.
 * Times are of the calls, seen by the caller. CPU is the caller's (children included) and the server's.
 */
#define _GNU_SOURCE
#include "work.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define EXIT_UNSUPPORTED 3

void need(bool ok, const char *what)
{
	int err;

	if (ok)
		return;
	err = errno;
	fprintf(stderr, "work: %s: %s\n", what, strerror(err));
	exit(err == EOPNOTSUPP ? EXIT_UNSUPPORTED : 1);
}

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t random_next(void)
{
	static uint64_t state = 0x853c49e6748fea9bu;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static int u32_compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

uint64_t p99_ns(uint32_t *took_ns, uint64_t count)
{
	qsort(took_ns, count, sizeof(*took_ns), u32_compare);
	return count ? took_ns[count * 99 / 100] : 0;
}

const char *file_name(uint64_t index)
{
	static char name[32];

	snprintf(name, sizeof(name), "file-%08llu", (unsigned long long)index);
	return name;
}

int file_create(const struct work *w, uint64_t index)
{
	int fd = openat(w->dir_fd, file_name(index), O_CREAT | O_EXCL | O_RDWR, 0644);

	need(fd >= 0, "create");
	return fd;
}

void write_full(const struct work *w, int fd, size_t size_bytes, uint64_t off_bytes)
{
	need(pwrite(fd, w->block, size_bytes, (off_t)off_bytes) == (ssize_t)size_bytes, "write");
}

void files_make(const struct work *w, uint64_t count, size_t size_bytes)
{
	for (uint64_t i = 0; i < count; i++) {
		int fd = file_create(w, i);

		if (size_bytes)
			write_full(w, fd, size_bytes, 0);
		need(close(fd) == 0, "close");
	}
}

int file_fill(const struct work *w, const char *name, uint64_t size_bytes)
{
	int fd = openat(w->dir_fd, name, O_CREAT | O_EXCL | O_RDWR, 0644);
	uint64_t off_bytes = 0;

	need(fd >= 0, name);
	while (off_bytes < size_bytes) {
		size_t part_bytes = MIB_BYTES;

		if (part_bytes > size_bytes - off_bytes)
			part_bytes = (size_t)(size_bytes - off_bytes);
		write_full(w, fd, part_bytes, off_bytes);
		off_bytes += part_bytes;
	}
	need(fsync(fd) == 0, "fsync");
	return fd;
}

void file_chill(int fd, uint64_t size_bytes)
{
	size_t pages_count = (size_t)((size_bytes + BLK_BYTES - 1) / BLK_BYTES);
	unsigned char *resident = malloc(pages_count);
	uint64_t warm_count = 0;
	void *map;

	need(fsync(fd) == 0, "fsync");
	need(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0, "posix_fadvise");
	map = mmap(NULL, size_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
	/* Direct I/O files without mmap have no page cache to drop. */
	if (map != MAP_FAILED) {
		need(resident && mincore(map, size_bytes, resident) == 0, "mincore");
		for (size_t i = 0; i < pages_count; i++)
			warm_count += resident[i] & 1;
		munmap(map, size_bytes);
	}
	free(resident);
	if (warm_count * 50 > pages_count)
		fprintf(stderr, "work: %llu of %zu pages stayed in the cache: not cold\n",
			(unsigned long long)warm_count, pages_count);
}

void file_clone(int src, int dst, uint64_t size_bytes)
{
	while (size_bytes) {
		ssize_t n = copy_file_range(src, NULL, dst, NULL, size_bytes, 0);

		need(n > 0, "copy_file_range");
		size_bytes -= (uint64_t)n;
	}
}

/* CPU time of all threads of a process, 0 when there is none. */
static uint64_t process_cpu_ns(pid_t pid)
{
	unsigned long long task_ns;
	uint64_t sum_ns = 0;
	char path[300];
	struct dirent *de;
	DIR *tasks;

	if (pid == 0)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	tasks = opendir(path);
	while (tasks && (de = readdir(tasks)) != NULL) {
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%d/task/%s/schedstat", (int)pid, de->d_name);
		f = de->d_name[0] == '.' ? NULL : fopen(path, "re");
		if (f && fscanf(f, "%llu", &task_ns) == 1)
			sum_ns += task_ns;
		if (f)
			fclose(f);
	}
	if (tasks)
		closedir(tasks);
	return sum_ns;
}

static uint64_t own_cpu_ns(void)
{
	static const int who[] = { RUSAGE_SELF, RUSAGE_CHILDREN };
	uint64_t sum_ns = 0;

	for (int i = 0; i < 2; i++) {
		struct rusage ru;

		getrusage(who[i], &ru);
		sum_ns += (uint64_t)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) * 1000000000u +
			  (uint64_t)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) * 1000u;
	}
	return sum_ns;
}

uint64_t cpu_ns(const struct work *w)
{
	return own_cpu_ns() + process_cpu_ns(w->server_pid);
}

/* Forgets and late writes reach the server after the call that caused them: wait until it is idle. */
static void server_settle(const struct work *w)
{
	uint64_t before_ns = process_cpu_ns(w->server_pid);

	for (int quiet_count = 0, i = 0; w->server_pid && quiet_count < 4 && i < 2000; i++) {
		uint64_t now;

		usleep(5000);
		now = process_cpu_ns(w->server_pid);
		quiet_count = now - before_ns < 100000 ? quiet_count + 1 : 0;
		before_ns = now;
	}
}

static void drop_caches(const struct work *w, const char *which)
{
	int fd;

	need(syncfs(w->dir_fd) == 0, "syncfs");
	fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
	need(fd >= 0, "/proc/sys/vm/drop_caches");
	/* The first pass only ages dentries that were used lately. */
	for (int i = 0; i < 2; i++)
		need(write(fd, which, 1) == 1, "drop_caches");
	close(fd);
}

static const struct row *row_find(const char *name)
{
	static const struct row *const all[] = { meta_rows,     data_rows,   clone_rows, scale_rows,
						 evacuate_rows, beside_rows, run_rows };

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		for (const struct row *row = all[i]; row->name; row++)
			if (strcmp(row->name, name) == 0)
				return row;
	return NULL;
}

static void measure(struct work *w, const struct row *row)
{
	uint64_t start_ns, wall_ns, own_ns, server_ns;

	if (row->prepare)
		row->prepare(w);
	if (row->is_cold_names)
		drop_caches(w, row->is_cold_data ? "3" : "2");
	server_settle(w);
	server_ns = process_cpu_ns(w->server_pid);
	own_ns = own_cpu_ns();
	start_ns = now_ns();
	row->run(w);
	wall_ns = now_ns() - start_ns;
	own_ns = own_cpu_ns() - own_ns;
	server_ns = process_cpu_ns(w->server_pid) - server_ns;
	if (w->wall_ns == 0)
		w->wall_ns = wall_ns;
	printf("{\"row\": \"%s\", \"count\": %llu, \"bytes\": %llu, \"wall_ns\": %llu, "
	       "\"client_cpu_ns\": %llu, \"server_cpu_ns\": %llu, \"first_ns\": %llu, \"last_ns\": %llu, "
	       "\"first_cpu_ns\": %llu, \"last_cpu_ns\": %llu, \"quiet_p99_ns\": %llu, \"busy_p99_ns\": %llu}\n",
	       row->name, (unsigned long long)w->done_count, (unsigned long long)w->done_bytes,
	       (unsigned long long)w->wall_ns, (unsigned long long)own_ns, (unsigned long long)server_ns,
	       (unsigned long long)w->first_ns, (unsigned long long)w->last_ns,
	       (unsigned long long)w->first_cpu_ns, (unsigned long long)w->last_cpu_ns,
	       (unsigned long long)w->quiet_p99_ns, (unsigned long long)w->busy_p99_ns);
}

static void block_fill(char *block)
{
	for (size_t i = 0; i < MIB_BYTES; i += sizeof(uint64_t)) {
		uint64_t value = random_next();

		memcpy(block + i, &value, sizeof(value));
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "count", required_argument, NULL, 'c' },
		{ "size", required_argument, NULL, 's' },
		{ "server", required_argument, NULL, 'p' },
		{ "umbractl", required_argument, NULL, 'u' },
		{ NULL, 0, NULL, 0 },
	};
	struct work w = { .fd = -1 };
	const struct row *row;
	char dir[4096];
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 'c')
			w.count = strtoull(optarg, NULL, 0);
		else if (opt == 's')
			w.size_bytes = strtoull(optarg, NULL, 0);
		else if (opt == 'p')
			w.server_pid = (pid_t)strtol(optarg, NULL, 0);
		else if (opt == 'u')
			w.umbractl = optarg;
		else
			return 2;
	}
	row = argc - optind == 2 ? row_find(argv[optind]) : NULL;
	if (!row) {
		fprintf(stderr, "usage: work ROW DIR [--count N] [--size BYTES] [--server PID]\n");
		return 2;
	}
	snprintf(dir, sizeof(dir), "%s/%s.%d", argv[optind + 1], row->name, (int)getpid());
	need(mkdir(dir, 0755) == 0, dir);
	w.dir = dir;
	w.dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	need(w.dir_fd >= 0, dir);
	w.count = w.count ? w.count : row->count;
	w.size_bytes = w.size_bytes ? w.size_bytes : row->size_bytes;
	w.block = malloc(MIB_BYTES);
	need(w.block, "memory");
	block_fill(w.block);
	measure(&w, row);
	free(w.block);
	return 0;
}
