/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The load under which the daemon or the machine is killed, and the check of what was acknowledged.
 *
 *	stress_load prepare DIR WORKERS
 *	stress_load write DIR LOG WORKERS SEED [STEPS [MARK]]
 *	stress_load verify DIR LOG WORKERS SEED [STEPS]
 *
 * prepare makes directories and the file that all share blocks of. write: each worker does one step after the other, until the file system
 * goes away (or so many), and appends a line to LOG.WORKER once a step has returned: its number and a checksum of the files that it has touched.
 * With '-' as LOG the lines go to standard output, a serial line, with 'wWORKER ' before them, for a machine that will not outlive them; after
 * MARK steps the first worker says 'kill-me'.
 *
 * verify: a call that has returned is durable, so after the crash there must be what all steps of the log made, with the step after them done or not
 * done; one on bytes of a file may have left each of them old or new. LOG.WORKER.state, if it is there, is what the worker began with;
 * what it ends with is written to LOG.WORKER.next.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "steps.h"

enum { WORKERS_MAX = 16, BASE_SERIAL = 4711 };

struct worker {
	struct place place;
	struct model model;
	const char *log; /* "-": standard output */
	uint64_t seed;
	uint64_t steps_max, mark;
};

static uint8_t base[MODEL_BASE_SIZE];

static FILE *file_of(const struct worker *w, const char *suffix, const char *mode)
{
	char path[600];

	snprintf(path, sizeof(path), "%s.%u%s", w->log, w->place.worker, suffix);
	return fopen(path, mode);
}

static bool state_load(struct worker *w)
{
	FILE *f;
	bool good;

	if (!model_make(&w->model, base))
		return false;
	f = file_of(w, ".state", "r");
	if (!f)
		return true;
	good = model_load(&w->model, f);
	fclose(f);
	return good;
}

static int prepare(unsigned workers)
{
	char name[20];
	int fd = open("base", O_WRONLY | O_CREAT | O_TRUNC, 0644);
	bool good = fd != -1 && write(fd, base, sizeof(base)) == (ssize_t)sizeof(base);

	good = close(fd) == 0 && mkdir("common", 0755) == 0 && good;
	for (unsigned i = 0; i < workers; i++) {
		snprintf(name, sizeof(name), "w%u", i);
		good = mkdir(name, 0755) == 0 && good;
	}
	if (!good)
		perror("stress_load: prepare");
	return good ? 0 : 1;
}

/* One write(2) for each line: it must not stay in a buffer, nor be cut in two. From a serial line it has gone out when this returns. */
static bool line_put(const struct worker *w, int fd, uint64_t index, uint64_t sum)
{
	char line[80];
	int len = w->log[0] == '-' ? snprintf(line, sizeof(line), "w%u ", w->place.worker) : 0;

	len += snprintf(line + len, sizeof(line) - (size_t)len, "%lu %016lx\n", (unsigned long)index,
			(unsigned long)sum);
	if (w->log[0] == '-' && index == w->mark && w->place.worker == 0)
		len += snprintf(line + len, sizeof(line) - (size_t)len, "kill-me\n");
	return write(fd, line, (size_t)len) == len &&
	       (tcdrain(fd) == 0 || errno == ENOTTY || errno == EINVAL);
}

/* Errors that a file system gives when it is gone. */
static bool is_gone(int rc)
{
	return rc == -ENOTCONN || rc == -ECONNABORTED || rc == -ECANCELED || rc == -EIO || rc == -ENODEV;
}

static int worker_write(struct worker *w)
{
	char path[600];
	struct step s;
	int rc = 0, fd = STDOUT_FILENO;

	if (w->log[0] != '-') {
		snprintf(path, sizeof(path), "%s.%u", w->log, w->place.worker);
		fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	}
	for (uint64_t i = 0; i < w->steps_max && !rc; i++) {
		model_pick(&w->model, w->seed, i, &s);
		rc = steps_run(&w->place, &w->model, &s);
		if (!rc) {
			model_apply(&w->model, &s);
			if (!line_put(w, fd, i, model_sum(&w->model, &s)))
				return 1;
		} else if (!is_gone(rc)) {
			printf("# worker %u: step %lu (%s of %s): %s\n", w->place.worker, (unsigned long)i,
			       step_name(s.kind), place_path(w->place.worker, s.a), strerror(-rc));
			return 1;
		}
	}
	return 0;
}

/* Does again in memory what the log has. -1: the log is wrong. */
static int64_t log_replay(struct worker *w)
{
	FILE *f = file_of(w, "", "r");
	unsigned long index, sum;
	int64_t count = 0;
	struct step s;

	while (f && fscanf(f, "%lu %lx", &index, &sum) == 2) {
		model_pick(&w->model, w->seed, (uint64_t)count, &s);
		model_apply(&w->model, &s);
		if (index != (unsigned long)count || sum != model_sum(&w->model, &s)) {
			printf("# worker %u: the log does not say at step %ld what it should\n",
			       w->place.worker, (long)count);
			fclose(f);
			return -1;
		}
		count++;
	}
	if (f)
		fclose(f);
	return count;
}

/* Which of the states that are allowed it is; NULL: none. */
static struct model *state_find(struct worker *w, struct model *after, const struct step *s)
{
	unsigned id = w->place.worker;

	if (steps_differ(id, &w->model, false) == 0)
		return &w->model;
	if (steps_differ(id, after, false) == 0)
		return after;
	return steps_is_between(id, &w->model, after, s) ? &w->model : NULL;
}

static int worker_verify(struct worker *w)
{
	int64_t count = log_replay(w);
	struct model after, *is;
	struct step s = { 0 };
	FILE *f;

	if (count < 0 || !model_copy(&after, &w->model))
		return 1;
	if ((uint64_t)count < w->steps_max) {
		model_pick(&w->model, w->seed, (uint64_t)count, &s);
		model_apply(&after, &s);
	}
	is = state_find(w, &after, &s);
	printf("# worker %u: %ld steps acknowledged\n", w->place.worker, (long)count);
	if (!is) {
		printf("# worker %u: not there after them (%s of name %u, name %u was under way, bytes %u to %u)\n",
		       w->place.worker, step_name(s.kind), s.a, s.b, s.off, s.off + s.len);
		steps_differ(w->place.worker, &w->model, true);
		return 1;
	}
	f = file_of(w, ".next", "w");
	if (!f || !model_save(is, f) || fclose(f) != 0)
		return 1;
	model_free(&after);
	return 0;
}

static int work(int argc, char **argv, bool writing)
{
	static struct worker w;
	unsigned workers = (unsigned)atoi(argv[4]);
	uint64_t seed = strtoull(argv[5], NULL, 0);
	int status, rc = 0;

	for (unsigned i = 0; i < workers && i < WORKERS_MAX; i++) {
		fflush(stdout);
		if (fork() != 0)
			continue;
		w.place = (struct place){ .worker = i, .held = -1 };
		w.log = argv[3];
		w.seed = model_mix(seed * WORKERS_MAX + i);
		w.steps_max = argc > 6 ? strtoull(argv[6], NULL, 0) : UINT64_MAX;
		w.mark = argc > 7 ? strtoull(argv[7], NULL, 0) : UINT64_MAX;
		if (!state_load(&w))
			exit(1);
		exit(writing ? worker_write(&w) : worker_verify(&w));
	}
	while (wait(&status) > 0)
		rc |= status != 0;
	return rc;
}

int main(int argc, char **argv)
{
	umask(0);
	model_content(BASE_SERIAL, base, sizeof(base));
	if (argc >= 4 && chdir(argv[2]) == -1) {
		perror(argv[2]);
		return 1;
	}
	if (argc == 4 && strcmp(argv[1], "prepare") == 0)
		return prepare((unsigned)atoi(argv[3]));
	if (argc >= 6 && (strcmp(argv[1], "write") == 0 || strcmp(argv[1], "verify") == 0))
		return work(argc, argv, argv[1][0] == 'w');
	fprintf(stderr,
		"usage: stress_load prepare DIR WORKERS | write|verify DIR LOG WORKERS SEED [STEPS]\n");
	return 2;
}
