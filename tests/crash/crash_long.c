/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The crash tests for as long as one likes: round after round on a fresh pool of some shape. A round is the next slice of all pairs of
 * operations in all states, some operations with many images, some long sequences, some operations of several transactions.
 *
 *	crash_long [--seconds N] [--images N] [--seed N] [--jobs N]
 *
 * Round r of seed s is round 0 of seed s + r.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "crash/scenes.h"

#define PAIRS 64u
#define SINGLES 12u
#define SEQUENCES 4u
#define REPORT_SEC 10

static const struct crash_opts shapes[] = {
	{ .size_bytes = 0 },
	{ .size_bytes = (uint64_t)40 << 20,
	  .format = { .ag_size_bytes = (uint64_t)16 << 20, .dir_hash_bits = 9 } },
	{ .size_bytes = (uint64_t)24 << 20, .format = { .lane_size_bytes = 256 << 10, .dir_hash_bits = 12 } },
	{ .size_bytes = (uint64_t)16 << 20, .format = { .metadata_single = true } },
};
static const struct crash_opts many_shape = {
	.size_bytes = (uint64_t)64 << 20,
	.format = { .lane_size_bytes = 256 << 10 },
	.images = 3,
};

/* What all workers have done. */
static struct shared {
	_Atomic uint64_t ops, images, again, rounds, next_round;
	_Atomic uint64_t cpu_us;
	_Atomic bool stop, failed;
} * shared;

static uint64_t seconds, images_wanted, seed;
static unsigned jobs = 1;

static void count(struct crash *c, struct crash_stats *old)
{
	static uint64_t cpu_us;
	struct crash_stats now = *crash_stats(c);
	struct timespec ts;
	uint64_t us;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	us = (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
	atomic_fetch_add(&shared->cpu_us, us - cpu_us);
	cpu_us = us;
	atomic_fetch_add(&shared->ops, now.ops - old->ops);
	atomic_fetch_add(&shared->images, now.images - old->images);
	atomic_fetch_add(&shared->again, now.again - old->again);
	*old = now;
}

/* All pairs in all states, in an order that mixes them: number n of them. */
static bool pair_run(struct crash *c, uint64_t n)
{
	uint64_t ops = scene_op_count(), total = ops * ops * file_state_count;

	n = n % total * 7919 % total;
	return scene_pair(c, &file_states[n % file_state_count],
			  scene_op((unsigned)(n / file_state_count % ops)),
			  scene_op((unsigned)(n / file_state_count / ops)));
}

static bool part_run(struct crash *c, unsigned part, uint64_t round, uint64_t *random)
{
	if (part < PAIRS) {
		crash_set_images(c, 6, 40);
		return pair_run(c, round * PAIRS + part);
	}
	if (part < PAIRS + SINGLES) {
		uint64_t state = testfs_below(random, file_state_count);

		crash_set_images(c, 200, 3000);
		return scene_run(c, &file_states[state],
				 scene_op((unsigned)testfs_below(random, file_op_count)));
	}
	crash_set_images(c, 12, 24);
	return scene_sequence(c, random, 3 + (unsigned)testfs_below(random, 28));
}

static bool pool_run(uint64_t round)
{
	uint64_t random = round;
	struct crash_opts opts = shapes[testfs_below(&random, ARRAY_SIZE(shapes))];
	struct crash_stats done = { 0 };
	struct crash *c;
	bool ok = true;

	opts.seed = round;
	c = crash_new(&opts);
	for (unsigned i = 0; i < PAIRS + SINGLES + SEQUENCES && ok && !atomic_load(&shared->stop); i++) {
		ok = part_run(c, i, round, &random);
		count(c, &done);
	}
	crash_free(c);
	return ok;
}

static bool many_run(uint64_t round)
{
	uint64_t random = round;
	struct crash_opts opts = many_shape;
	struct crash_stats done = { 0 };
	const struct scene_op *op;
	struct crash *c;
	bool ok;

	do {
		op = &file_ops[testfs_below(&random, file_op_count)];
	} while (!scene_op_is_long(op));
	opts.seed = round;
	c = crash_new(&opts);
	ok = scene_run(c, &many_states[testfs_below(&random, many_state_count)], op);
	count(c, &done);
	crash_free(c);
	return ok;
}

static void work(void)
{
	while (!atomic_load(&shared->stop)) {
		uint64_t round = seed + atomic_fetch_add(&shared->next_round, 1);

		if (!pool_run(round) || (!atomic_load(&shared->stop) && round % 4 == 0 && !many_run(round))) {
			printf("# violation: --seed %" PRIu64 "\n", round);
			atomic_store(&shared->failed, true);
			atomic_store(&shared->stop, true);
		}
		atomic_fetch_add(&shared->rounds, 1);
	}
}

static double now_sec(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void report(double started)
{
	double passed = now_sec() - started;
	double cpu = (double)atomic_load(&shared->cpu_us) / 1e6;
	uint64_t images = atomic_load(&shared->images);

	printf("%.0f s: %" PRIu64 " images, %.0f images/s (%.0f in a second of CPU time), %" PRIu64
	       " of them crashed again, %" PRIu64 " operations, %" PRIu64 " rounds, %s (seed %" PRIu64 ")\n",
	       passed, images, (double)images / passed, (double)images / (cpu > 0 ? cpu : 1),
	       atomic_load(&shared->again), atomic_load(&shared->ops), atomic_load(&shared->rounds),
	       atomic_load(&shared->failed) ? "A VIOLATION" : "no violation", seed);
	fflush(stdout);
}

/* Until all workers are gone. A worker that is brought down is a violation too. */
static void watch(double started)
{
	double reported = started;
	unsigned left = jobs;
	int status;

	while (left > 0) {
		pid_t pid = waitpid(-1, &status, WNOHANG);

		if (pid > 0) {
			left--;
			if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
				atomic_store(&shared->failed, true);
		} else {
			nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
		}
		if ((seconds && now_sec() - started >= (double)seconds) ||
		    (images_wanted && atomic_load(&shared->images) >= images_wanted) ||
		    atomic_load(&shared->failed))
			atomic_store(&shared->stop, true);
		if (now_sec() - reported >= REPORT_SEC) {
			reported = now_sec();
			report(started);
		}
	}
}

static int usage(const char *program)
{
	fprintf(stderr, "usage: %s [--seconds N] [--images N] [--seed N] [--jobs N]\n", program);
	return 2;
}

static bool options(int argc, char **argv)
{
	static const struct option known[] = {
		{ "seconds", required_argument, NULL, 's' },
		{ "images", required_argument, NULL, 'i' },
		{ "seed", required_argument, NULL, 'r' },
		{ "jobs", required_argument, NULL, 'j' },
		{ 0 },
	};
	bool has_seed = false;
	int c;

	while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
		uint64_t value = c == '?' ? 0 : strtoull(optarg, NULL, 0);

		switch (c) {
		case 's':
			seconds = value;
			break;
		case 'i':
			images_wanted = value;
			break;
		case 'r':
			seed = value;
			has_seed = true;
			break;
		case 'j':
			jobs = (unsigned)value;
			break;
		default:
			return false;
		}
	}
	if (!has_seed)
		seed = testfs_seed() % 1000000;
	return optind == argc && jobs > 0;
}

int main(int argc, char **argv)
{
	double started;

	if (!options(argc, argv))
		return usage(argv[0]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		abort();
	started = now_sec();
	for (unsigned i = 0; i < jobs; i++) {
		pid_t pid = fork();

		if (pid < 0)
			abort();
		if (pid == 0) {
			work();
			fflush(stdout);
			_exit(0);
		}
	}
	watch(started);
	report(started);
	return atomic_load(&shared->failed);
}
