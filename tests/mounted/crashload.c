/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The load under which the daemon is killed, and the check afterwards.
 *
 *	m_crashload write DIR LOG WORKERS SEED	until the file system goes away (or --count steps)
 *	m_crashload verify DIR LOG WORKERS	after it came back
 *
 * Each worker works in a directory of its own, one step after the other. Before a step it appends
 * "begin" with what it will do to its log, and "end" once every call of the step has returned; the
 * log lies outside of the file system under test. So after the crash the directory must hold what
 * all ended steps made, with the one step that was begun and not ended done, not done, or, where
 * it is several calls, done up to any of them. A call that returned is durable; files of odd
 * number are fsynced besides (with --sync all: every file and then the directory, for a file system
 * that promises no more than that).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FILES = 40, SIZE_MAX_BYTES = 150000, WORKERS_MAX = 16 };
enum step { STEP_CREATE, STEP_UNLINK, STEP_RENAME, STEP_OVERWRITE, STEP_TRUNCATE, STEP_CLONE, STEP_COUNT };

/* A step as it stands in the log, 32 bytes. */
struct record {
	uint32_t end; /* 0: begin, 1: end */
	uint32_t step;
	uint32_t a;
	uint32_t b;
	uint64_t serial;
	uint64_t size;
};

/* What a file of the worker's directory is: content made from serial, size bytes of it. */
struct file {
	bool there;
	uint64_t serial;
	uint64_t size;
};

struct worker {
	unsigned id;
	char dir[512];
	char log[512];
	struct file files[FILES];
};

static bool sync_all;
static unsigned long step_limit = (unsigned long)-1;

static uint64_t mix(uint64_t z)
{
	z += 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static void content_make(uint64_t serial, unsigned char *bytes, size_t size)
{
	for (size_t i = 0; i < size; i += 8) {
		uint64_t word = mix(serial * 1000003u + i);

		memcpy(bytes + i, &word, size - i < 8 ? size - i : 8);
	}
}

static const char *file_name(unsigned n)
{
	static char names[2][32];
	static unsigned turn;
	char *name = names[turn++ & 1];

	snprintf(name, sizeof(names[0]), "%s%u", n % 5 ? "f" : "a-file-with-quite-a-name-", n);
	return name;
}

/* The step's effect on the model. */
static void model_step(struct file *files, const struct record *r)
{
	struct file *a = &files[r->a];
	struct file *b = &files[r->b];

	switch (r->step) {
	case STEP_CREATE:
		*a = (struct file){ true, r->serial, r->size };
		break;
	case STEP_OVERWRITE:
		a->serial = r->serial;
		a->size = r->size;
		break;
	case STEP_UNLINK:
		a->there = false;
		break;
	case STEP_RENAME:
		*b = *a;
		a->there = false;
		break;
	case STEP_TRUNCATE:
		a->size = r->size;
		break;
	default: /* clone */
		*b = *a;
		break;
	}
}

/* Writes the whole content; false when the file system is gone. */
static bool file_write(int fd, const struct record *r, bool sync)
{
	static unsigned char bytes[SIZE_MAX_BYTES];
	size_t done = 0;

	content_make(r->serial, bytes, r->size);
	while (done < r->size) {
		ssize_t n = write(fd, bytes + done, r->size - done);

		if (n <= 0)
			return false;
		done += (size_t)n;
	}
	if ((sync || sync_all) && fsync(fd) != 0)
		return false;
	return true;
}

static bool clone_run(const struct file *files, const struct record *r)
{
	int src = open(file_name(r->a), O_RDONLY);
	int dst = open(file_name(r->b), O_RDWR | O_CREAT | O_TRUNC, 0644);
	uint64_t done = 0;
	bool good = src != -1 && dst != -1;

	while (good && done < files[r->a].size) {
		ssize_t n = copy_file_range(src, NULL, dst, NULL, files[r->a].size - done, 0);

		good = n > 0;
		done += good ? (uint64_t)n : 0;
	}
	if (good && sync_all)
		good = fsync(dst) == 0;
	if (src != -1)
		close(src);
	return (dst == -1 || close(dst) == 0) && good;
}

/* The step itself: true when every call of it returned success. */
static bool step_run(const struct file *files, const struct record *r)
{
	const char *a = file_name(r->a);
	bool good;
	int fd;

	switch (r->step) {
	case STEP_CREATE:
	case STEP_OVERWRITE:
		fd = open(a, O_WRONLY | (r->step == STEP_CREATE ? O_CREAT | O_EXCL : O_TRUNC), 0644);
		if (fd == -1)
			return false;
		good = file_write(fd, r, r->a & 1);
		return close(fd) == 0 && good;
	case STEP_UNLINK:
		return unlink(a) == 0;
	case STEP_RENAME:
		return rename(a, file_name(r->b)) == 0;
	case STEP_TRUNCATE:
		fd = open(a, O_WRONLY);
		good = fd != -1 && ftruncate(fd, (off_t)r->size) == 0 && (!sync_all || fsync(fd) == 0);
		return (fd == -1 || close(fd) == 0) && good;
	default:
		return clone_run(files, r);
	}
}

/* A step that makes sense for the files that are there. */
static void step_pick(const struct worker *w, struct record *r, uint64_t random)
{
	memset(r, 0, sizeof(*r));
	r->step = (uint32_t)(random % STEP_COUNT);
	r->a = (uint32_t)(random / 7 % FILES);
	r->b = (uint32_t)(random / 1001 % FILES);
	r->serial = random | 1;
	r->size = mix(random) % (random & 4 ? SIZE_MAX_BYTES : 5000);
	if (!w->files[r->a].there)
		r->step = STEP_CREATE;
	else if (r->step == STEP_CREATE)
		r->step = STEP_OVERWRITE;
	if (r->step == STEP_TRUNCATE)
		r->size = w->files[r->a].size / 2;
	if ((r->step == STEP_RENAME || r->step == STEP_CLONE) && r->a == r->b)
		r->step = STEP_UNLINK;
}

static int worker_write(struct worker *w, uint64_t seed)
{
	struct record r;
	int log = open(w->log, O_WRONLY | O_CREAT | O_APPEND, 0644);
	int failed = 0;
	int dir;

	if (log == -1 || (mkdir(w->dir, 0755) == -1 && errno != EEXIST) || chdir(w->dir) == -1) {
		fprintf(stderr, "crashload: %s: %s\n", w->dir, strerror(errno));
		return 1;
	}
	dir = open(".", O_RDONLY | O_DIRECTORY);
	for (unsigned long i = 0; i < step_limit; i++) {
		step_pick(w, &r, mix(seed + i * 31 + w->id * 1000003u));
		if (write(log, &r, sizeof(r)) != sizeof(r))
			return 1;
		if (!step_run(w->files, &r) || (sync_all && fsync(dir) != 0)) {
			failed = errno;
			break;
		}
		r.end = 1;
		if (write(log, &r, sizeof(r)) != sizeof(r))
			return 1;
		model_step(w->files, &r);
	}
	if (failed && failed != ENOTCONN && failed != ECONNABORTED && failed != ECANCELED && failed != EIO &&
	    failed != ENODEV) {
		fprintf(stderr, "crashload: step %u of worker %u: %s\n", r.step, w->id, strerror(failed));
		return 1;
	}
	return 0;
}

/* How many ended steps the log has; *last is the one begun and not ended, if any. */
static long log_read(struct worker *w, struct record *last, bool *pending)
{
	FILE *log = fopen(w->log, "r");
	struct record r;
	long count = 0;

	*pending = false;
	if (!log)
		return -1;
	while (fread(&r, sizeof(r), 1, log) == 1) {
		*pending = !r.end;
		*last = r;
		if (r.end) {
			model_step(w->files, &r);
			count++;
		}
	}
	fclose(log);
	return count;
}

/* Is the file this, or (prefix) the beginning of it? */
static bool file_matches(const char *name, const struct file *want, bool prefix)
{
	static unsigned char bytes[SIZE_MAX_BYTES + 1];
	static unsigned char got[SIZE_MAX_BYTES + 1];
	int fd = open(name, O_RDONLY);
	ssize_t n;

	if (fd == -1)
		return !want->there;
	n = read(fd, got, sizeof(got));
	close(fd);
	if (!want->there || n < 0 || (!prefix && (uint64_t)n != want->size))
		return false;
	if ((uint64_t)n > want->size)
		return false;
	content_make(want->serial, bytes, want->size);
	return memcmp(bytes, got, (size_t)n) == 0;
}

/* The file after the pending step, or in the middle of it. */
static bool file_pending(const struct file *files, const struct record *r, unsigned n)
{
	struct file after[FILES];
	struct file empty = { true, 0, 0 };

	if (n != r->a && n != r->b)
		return false;
	/* Delayed allocation may leave zeros in what was not yet synced. */
	if (sync_all && r->step != STEP_RENAME)
		return true;
	memcpy(after, files, sizeof(after));
	model_step(after, r);
	if (file_matches(file_name(n), &after[n], false))
		return true;
	if (r->step == STEP_CREATE || r->step == STEP_OVERWRITE)
		return n == r->a && (file_matches(file_name(n), &empty, false) ||
				     file_matches(file_name(n), &after[n], true));
	if (r->step == STEP_CLONE)
		return n == r->b && (file_matches(file_name(n), &empty, false) ||
				     file_matches(file_name(n), &after[n], true));
	return false;
}

static int strangers_find(void)
{
	DIR *d = opendir(".");
	struct dirent *e;
	int bad = 0;
	bool known;

	while (d && (e = readdir(d))) {
		known = e->d_name[0] == '.';
		for (unsigned n = 0; n < FILES && !known; n++)
			known = strcmp(e->d_name, file_name(n)) == 0;
		if (!known) {
			printf("# a file nobody made: %s\n", e->d_name);
			bad++;
		}
	}
	if (d)
		closedir(d);
	return bad;
}

static int worker_verify(struct worker *w)
{
	struct record last = { 0 };
	bool pending;
	int bad = 0;
	long count = log_read(w, &last, &pending);

	if (count <= 0)
		return count == 0 ? 0 : 1;
	if (chdir(w->dir) == -1) {
		printf("# %s is gone after %ld steps\n", w->dir, count);
		return 1;
	}
	/* A rename has happened or not: both names tell the same story. */
	if (pending && last.step == STEP_RENAME &&
	    (!file_matches(file_name(last.a), &w->files[last.a], false) ||
	     !file_matches(file_name(last.b), &w->files[last.b], false))) {
		model_step(w->files, &last);
		pending = false;
	}
	for (unsigned n = 0; n < FILES; n++) {
		if (file_matches(file_name(n), &w->files[n], false) ||
		    (pending && file_pending(w->files, &last, n)))
			continue;
		printf("# worker %u after %ld steps: %s/%s is not what was acknowledged (%s%lu bytes)\n",
		       w->id, count, w->dir, file_name(n), w->files[n].there ? "" : "no file, ",
		       (unsigned long)w->files[n].size);
		bad++;
	}
	bad += strangers_find();
	printf("# worker %u: %ld steps acknowledged\n", w->id, count);
	return bad ? 1 : 0;
}

int main(int argc, char **argv)
{
	bool writing;
	unsigned workers;
	int rc = 0;
	int status;

	for (; argc > 2 && argv[1][0] == '-'; argv += 2, argc -= 2) {
		if (strcmp(argv[1], "--sync") == 0)
			sync_all = strcmp(argv[2], "all") == 0;
		else
			step_limit = strtoul(argv[2], NULL, 0);
	}
	if (argc < 5) {
		fprintf(stderr,
			"usage: m_crashload [--sync all] [--count N] write|verify DIR LOG WORKERS [SEED]\n");
		return 2;
	}
	writing = strcmp(argv[1], "write") == 0;
	workers = (unsigned)atoi(argv[4]);
	for (unsigned i = 0; i < workers && i < WORKERS_MAX; i++) {
		static struct worker w;

		memset(&w, 0, sizeof(w));
		w.id = i;
		snprintf(w.dir, sizeof(w.dir), "%s/w%u", argv[2], i);
		snprintf(w.log, sizeof(w.log), "%s.%u", argv[3], i);
		fflush(stdout);
		if (fork() == 0)
			exit(writing ? worker_write(&w, argc > 5 ? strtoull(argv[5], NULL, 0) : 1) :
				       worker_verify(&w));
	}
	while (wait(&status) > 0)
		rc |= status != 0;
	return rc;
}
