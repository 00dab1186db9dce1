/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One directory with very many entries, in which several processes create, remove and rename while another one lists it.
 *
 *	stress_wide DIR ENTRIES WORKERS DAEMON-PID
 *
 * Names that nobody touches have to be in every listing exactly once; in the end the directory holds exactly what it should. Besides: what the daemon
 * needs for a change, in processor time, may not grow as the directory does, from a twentieth of the entries to all of them: less than half as much.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOVING = 500, WORKERS_MAX = 16, MEASURED_OPS = 3000, TRIES = 5 };

static unsigned long entries, workers;
static int daemon_pid;

/* Shared by all processes: which of each worker's names are there, and whether the workers are done. */
static struct shared {
	uint8_t is_there[WORKERS_MAX][MOVING];
	volatile int done;
} * shared;

static void stop(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
	_exit(1);
}

static uint64_t mix(uint64_t z)
{
	z += 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* Processor time of the daemon, in ticks. */
static unsigned long daemon_ticks(void)
{
	char path[40], line[1024];
	unsigned long user = 0, system = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", daemon_pid);
	f = fopen(path, "r");
	if (!f || !fgets(line, sizeof(line), f) ||
	    sscanf(strrchr(line, ')'), ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
		   &system) != 2)
		stop("the daemon is gone");
	fclose(f);
	return user + system;
}

/* Runs fn in each worker's process; false: one has failed. */
static bool workers_run(void (*fn)(unsigned id, unsigned long from, unsigned long to), unsigned long from,
			unsigned long to)
{
	bool good = true;
	int status;

	fflush(stdout);
	for (unsigned id = 0; id < workers; id++) {
		if (fork() == 0) {
			fn(id, from, to);
			_exit(0);
		}
	}
	for (unsigned id = 0; id < workers; id++)
		good = wait(&status) > 0 && status == 0 && good;
	return good;
}

static void file_make(const char *name)
{
	int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644);

	if (fd == -1)
		stop("create of %s: %s", name, strerror(errno));
	close(fd);
}

/* Names that stay: of numbers from..to, each worker has those that are his. */
static void fill(unsigned id, unsigned long from, unsigned long to)
{
	char name[40];

	for (unsigned long n = from; n < to; n++) {
		if (n % workers != id)
			continue;
		snprintf(name, sizeof(name), "stays-%lu", n);
		file_make(name);
	}
}

static void empty(unsigned id, unsigned long from, unsigned long to)
{
	char name[40];

	for (unsigned long n = from; n < to; n++) {
		if (n % workers != id)
			continue;
		snprintf(name, sizeof(name), "stays-%lu", n);
		if (unlink(name) == -1)
			stop("unlink of %s: %s", name, strerror(errno));
	}
}

/* Creates, removes and renames names of its own: so many times, with this seed. */
static void churn(unsigned id, unsigned long seed, unsigned long ops)
{
	uint8_t *is_there = shared->is_there[id];
	char name[40], other[40];

	for (unsigned long i = 0; i < ops; i++) {
		uint64_t random = mix(seed * 1000003 + i * 31 + id);
		unsigned a = (unsigned)(random % MOVING), b = (unsigned)(random / MOVING % MOVING);

		snprintf(name, sizeof(name), "moves-%u-%u", id, a);
		snprintf(other, sizeof(other), "moves-%u-%u", id, b);
		if (!is_there[a]) {
			file_make(name);
			is_there[a] = 1;
		} else if (random >> 40 & 1) {
			if (unlink(name) == -1)
				stop("unlink of %s: %s", name, strerror(errno));
			is_there[a] = 0;
		} else if (a != b) {
			if (rename(name, other) == -1)
				stop("rename of %s: %s", name, strerror(errno));
			is_there[a] = 0;
			is_there[b] = 1;
		}
	}
}

/* Lists it once. exact: nothing changes meanwhile, so the moving names have to be right too. */
static void list(bool exact)
{
	static uint8_t moving[WORKERS_MAX][MOVING];
	uint8_t *stays = calloc(entries, 1);
	unsigned long n, count = 0;
	unsigned id, a;
	struct dirent *e;
	DIR *d = opendir(".");
	char end;

	memset(moving, 0, sizeof(moving));
	if (!d || !stays)
		stop("opendir: %s", strerror(errno));
	for (errno = 0; (e = readdir(d)); errno = 0) {
		if (sscanf(e->d_name, "stays-%lu%c", &n, &end) == 1 && n < entries) {
			if (stays[n]++)
				stop("%s is listed twice", e->d_name);
			count++;
		} else if (sscanf(e->d_name, "moves-%u-%u%c", &id, &a, &end) == 2 && id < workers &&
			   a < MOVING) {
			moving[id][a]++;
		} else if (e->d_name[0] != '.') {
			stop("%s is listed: nobody made it", e->d_name);
		}
	}
	if (errno)
		stop("readdir: %s", strerror(errno));
	closedir(d);
	free(stays);
	if (count != entries)
		stop("%lu entries are listed, of %lu that were always there", count, entries);
	for (id = 0; exact && id < workers; id++) {
		for (a = 0; a < MOVING; a++) {
			if (moving[id][a] != shared->is_there[id][a])
				stop("moves-%u-%u is listed %u times, not %u", id, a, moving[id][a],
				     shared->is_there[id][a]);
		}
	}
}

static pid_t lister_start(void)
{
	unsigned long times = 0;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		do {
			list(false);
			times++;
		} while (!shared->done);
		printf("# %lu listings meanwhile\n", times);
		fflush(stdout);
		_exit(0);
	}
	return pid;
}

/* Ticks for so many changes: the least of some tries. */
static unsigned long measure(unsigned long round)
{
	unsigned long least = (unsigned long)-1;

	for (unsigned long i = 0; i < TRIES; i++) {
		unsigned long ticks = daemon_ticks();

		if (!workers_run(churn, round * 100 + i, MEASURED_OPS))
			exit(1);
		ticks = daemon_ticks() - ticks;
		least = ticks < least ? ticks : least;
	}
	return least;
}

int main(int argc, char **argv)
{
	unsigned long small, full, first;
	int status;
	pid_t lister;

	if (argc != 5) {
		fprintf(stderr, "usage: stress_wide DIR ENTRIES WORKERS DAEMON-PID\n");
		return 2;
	}
	entries = strtoul(argv[2], NULL, 10);
	workers = strtoul(argv[3], NULL, 10);
	daemon_pid = atoi(argv[4]);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED || workers > WORKERS_MAX || chdir(argv[1]) == -1 ||
	    mkdir("wide", 0755) == -1 || chdir("wide") == -1)
		stop("%s: %s", argv[1], strerror(errno));
	first = entries / 20;
	if (!workers_run(fill, 0, first))
		return 1;
	small = measure(1);
	if (!workers_run(fill, first, entries))
		return 1;
	list(true);
	full = measure(2);
	printf("# %lu changes by each of %lu: %lu ticks with %lu entries, %lu with %lu\n",
	       (unsigned long)MEASURED_OPS, workers, small, first, full, entries);
	/* As it grew it would be twenty times. What a cold cache and busy neighbours cost is far less. */
	if (full > 10 * small + 10)
		stop("a change of the full directory takes the daemon %lu ticks, %lu when it was small", full,
		     small);
	lister = lister_start();
	if (!workers_run(churn, 3, 10 * MEASURED_OPS))
		return 1;
	shared->done = 1;
	if (waitpid(lister, &status, 0) != lister || status != 0)
		return 1;
	list(true);
	if (!workers_run(empty, 0, entries))
		return 1;
	for (unsigned id = 0; id < workers; id++) {
		for (unsigned a = 0; a < MOVING; a++) {
			char name[40];

			snprintf(name, sizeof(name), "moves-%u-%u", id, a);
			if (shared->is_there[id][a] && unlink(name) == -1)
				stop("unlink of %s: %s", name, strerror(errno));
		}
	}
	if (chdir("..") == -1 || rmdir("wide") == -1)
		stop("rmdir: %s", strerror(errno));
	return 0;
}
