/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Calls that must be atomic, by several processes at once: of all who make, take or move one name
 * one wins; what two directories do to each other leaves a tree. The rounds start together at a
 * barrier; nothing depends on who is faster.
 */
#define _GNU_SOURCE
#include "files.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE 2
#endif

enum { RACERS = 4, ROUNDS = 120 };

struct arena {
	pthread_barrier_t barrier;
	int win_count;
	int odd_count; /* failures with another errno than the one that losers get */
	int value;
};

static struct arena *arena;

/* One racer's try in a round: 0 or -1 with errno. */
typedef int (*race_try)(int racer, int round);
typedef void (*race_step)(int round);

struct race {
	race_try run;
	race_step before;
	race_step after;
	int loser_errno;
	int loser_other;
	int racer;
};

static void racer_body(void *arg)
{
	const struct race *race = arg;

	check_context("racer %d", race->racer);
	for (int round = 0; round < ROUNDS; round++) {
		if (race->racer == 0) {
			arena->win_count = 0;
			arena->odd_count = 0;
			race->before(round);
		}
		pthread_barrier_wait(&arena->barrier);
		if (race->run(race->racer, round) == 0)
			__atomic_add_fetch(&arena->win_count, 1, __ATOMIC_SEQ_CST);
		else if (!TRUE(errno == race->loser_errno || errno == race->loser_other))
			__atomic_add_fetch(&arena->odd_count, 1, __ATOMIC_SEQ_CST);
		pthread_barrier_wait(&arena->barrier);
		if (race->racer == 0)
			race->after(round);
		pthread_barrier_wait(&arena->barrier);
	}
}

static void race_run(race_try run, race_step before, race_step after, int loser, int other)
{
	struct race race[RACERS];
	pthread_barrierattr_t attr;
	pid_t pids[RACERS];

	arena = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_barrierattr_init(&attr);
	pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_barrier_init(&arena->barrier, &attr, RACERS);
	for (int i = 0; i < RACERS; i++) {
		race[i] = (struct race){ run, before, after, loser, other, i };
		pids[i] = child_start(racer_body, &race[i]);
	}
	for (int i = 0; i < RACERS; i++)
		child_wait(pids[i]);
}

static void nothing(int round)
{
	(void)round;
}

static void one_won_remove(int round)
{
	(void)round;
	EQ(1, arena->win_count);
	if (unlink("x") == -1 && errno == EISDIR)
		OK(rmdir("x"));
}

static int try_excl(int racer, int round)
{
	int fd = open("x", O_RDWR | O_CREAT | O_EXCL, 0644);

	(void)racer;
	(void)round;
	return fd == -1 ? -1 : close(fd);
}

static int try_mkdir(int racer, int round)
{
	return (void)racer, (void)round, mkdir("x", 0755);
}
static int try_symlink(int racer, int round)
{
	return (void)racer, (void)round, symlink("y", "x");
}

static void source_make(int round)
{
	if (round == 0)
		file_make("source", "s", 1);
}

static int try_link(int racer, int round)
{
	return (void)racer, (void)round, link("source", "x");
}

static void each_make(int round)
{
	char name[16];

	(void)round;
	for (int i = 0; i < RACERS; i++) {
		snprintf(name, sizeof(name), "own%d", i);
		file_make(name, "o", 1);
	}
}

static int try_noreplace(int racer, int round)
{
	char name[16];

	(void)round;
	snprintf(name, sizeof(name), "own%d", racer);
	return renameat2(AT_FDCWD, name, AT_FDCWD, "x", RENAME_NOREPLACE);
}

static void target_make(int round)
{
	(void)round;
	file_make("x", "x", 1);
}

static int try_unlink(int racer, int round)
{
	return (void)racer, (void)round, unlink("x");
}

static void one_won(int round)
{
	(void)round;
	EQ(1, arena->win_count);
}

static void target_mkdir(int round)
{
	(void)round, MUST(mkdir("x", 0755));
}
static int try_rmdir(int racer, int round)
{
	return (void)racer, (void)round, rmdir("x");
}

static int try_rename_away(int racer, int round)
{
	char name[16];

	(void)round;
	snprintf(name, sizeof(name), "to%d", racer);
	return rename("x", name);
}

static void case_create_excl(void)
{
	race_run(try_excl, nothing, one_won_remove, EEXIST, 0);
}
static void case_mkdir(void)
{
	race_run(try_mkdir, nothing, one_won_remove, EEXIST, 0);
}
static void case_symlink(void)
{
	race_run(try_symlink, nothing, one_won_remove, EEXIST, 0);
}
static void case_link(void)
{
	race_run(try_link, source_make, one_won_remove, EEXIST, 0);
}
static void case_noreplace(void)
{
	race_run(try_noreplace, each_make, one_won_remove, EEXIST, 0);
}
static void case_unlink(void)
{
	race_run(try_unlink, target_make, one_won, ENOENT, 0);
}
static void case_rmdir(void)
{
	race_run(try_rmdir, target_mkdir, one_won, ENOENT, 0);
}
static void case_rename_away(void)
{
	race_run(try_rename_away, target_make, one_won, ENOENT, 0);
}

/* A directory is removed while names are made in it: either it is gone, or it has them. */
static int try_rmdir_or_create(int racer, int round)
{
	char name[32];
	int fd;

	(void)round;
	if (racer == 0)
		return rmdir("x");
	snprintf(name, sizeof(name), "x/f%d", racer);
	fd = open(name, O_CREAT | O_RDWR, 0644);
	return fd == -1 ? -1 : close(fd);
}

static void all_or_nothing(int round)
{
	char name[32];
	int there = 0;

	(void)round;
	for (int i = 1; i < RACERS; i++) {
		snprintf(name, sizeof(name), "x/f%d", i);
		there += unlink(name) == 0;
	}
	if (access("x", F_OK) == 0)
		EQ(there, arena->win_count);
	else
		EQ(1, arena->win_count);
	rmdir("x");
}

static void case_rmdir_create(void)
{
	race_run(try_rmdir_or_create, target_mkdir, all_or_nothing, ENOENT, ENOTEMPTY);
}

/* a into b while b goes into a: one of them at most, and never a loop cut off from the root. */
static void pair_make(int round)
{
	(void)round;
	MUST(mkdir("a", 0755));
	MUST(mkdir("b", 0755));
	MUST(mkdir("a/in", 0755));
	MUST(mkdir("b/in", 0755));
}

static int try_into_each_other(int racer, int round)
{
	(void)round;
	return racer & 1 ? rename("a", "b/in/moved") : rename("b", "a/in/moved");
}

static void pair_check(int round)
{
	bool a = access("a", F_OK) == 0;
	bool b = access("b", F_OK) == 0;

	(void)round;
	TRUE(a != b);
	EQ(1, arena->win_count);
	if (a) {
		OK(access("a/in/moved/in", F_OK));
		OK(rmdir("a/in/moved/in") | rmdir("a/in/moved") | rmdir("a/in") | rmdir("a"));
	} else if (b) {
		OK(access("b/in/moved/in", F_OK));
		OK(rmdir("b/in/moved/in") | rmdir("b/in/moved") | rmdir("b/in") | rmdir("b"));
	}
}

static void case_rename_cycle(void)
{
	race_run(try_into_each_other, pair_make, pair_check, ENOENT, EINVAL);
}

/* Renamed over and over: the name is always there, and always leads to a whole file. */
static int try_replace(int racer, int round)
{
	char name[16];
	char got[3000];

	if (racer == 0) {
		for (int i = 0; i < 10; i++) {
			int fd = open("x", O_RDONLY);

			if (!TRUE(fd != -1))
				return 0;
			memset(got, 0, sizeof(got));
			EQ(2000, read(fd, got, sizeof(got)));
			for (int k = 1; k < 2000; k++) {
				if (!EQ(got[0], got[k]))
					break;
			}
			close(fd);
		}
		return 0;
	}
	memset(got, 'a' + racer + round % 20, sizeof(got));
	snprintf(name, sizeof(name), "tmp%d", racer);
	for (int i = 0; i < 5; i++) {
		file_make(name, got, 2000);
		OK(rename(name, "x"));
	}
	return 0;
}

static void whole_make(int round)
{
	char text[2000];

	memset(text, 'z', sizeof(text));
	if (round == 0)
		file_make("x", text, sizeof(text));
}

static void case_replace(void)
{
	race_run(try_replace, whole_make, nothing, 0, 0);
}

/* Two names exchanged by some while others look: both always exist. */
static int try_exchange(int racer, int round)
{
	struct stat st;

	(void)round;
	for (int i = 0; i < 10; i++) {
		if (racer & 1) {
			OK(renameat2(AT_FDCWD, "x", AT_FDCWD, "y", RENAME_EXCHANGE));
		} else {
			OK(stat("x", &st));
			OK(stat("y", &st));
		}
	}
	return 0;
}

static void two_make(int round)
{
	if (round == 0) {
		file_make("x", "x", 1);
		MUST(mkdir("y", 0755));
	}
}

static void case_exchange(void)
{
	race_run(try_exchange, two_make, nothing, 0, 0);
}

/* Everybody writes his own part of one file, by all means; nobody loses anything. */
static int try_parts(int racer, int round)
{
	enum { PART = 3000 };
	unsigned char part[PART];
	unsigned char got[PART];
	int fd = file_open("x", O_RDWR | O_CREAT);
	off_t at = (off_t)racer * PART;

	memset(part, racer * 50 + round % 50, PART);
	if (round % 3 == 0) {
		unsigned char *map;

		EQ(PART, pwrite(fd, part, PART, at));
		map = mmap(NULL, RACERS * PART, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		memcpy(map + at, part, PART);
		MEMEQ(part, map + at, PART);
		munmap(map, RACERS * PART);
	} else {
		for (int i = 0; i < PART; i += 100)
			EQ(100, pwrite(fd, part + i, 100, at + i));
	}
	EQ(PART, pread(fd, got, PART, at));
	MEMEQ(part, got, PART);
	return close(fd);
}

static void case_parts(void)
{
	race_run(try_parts, nothing, nothing, 0, 0);
}

static const struct check_case cases[] = {
	{ "create_excl", case_create_excl },
	{ "mkdir", case_mkdir },
	{ "symlink", case_symlink },
	{ "link", case_link },
	{ "noreplace", case_noreplace },
	{ "unlink", case_unlink },
	{ "rmdir", case_rmdir },
	{ "rename_away", case_rename_away },
	{ "rmdir_create", case_rmdir_create },
	{ "rename_cycle", case_rename_cycle },
	{ "replace", case_replace },
	{ "exchange", case_exchange },
	{ "parts", case_parts },
};

CHECK_MAIN(cases)
