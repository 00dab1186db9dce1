/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Write to all copies of a shared block and see what blows up: N clones of one file, all mapped,
 * every copy of every block stored to, in every order, while others clone, truncate, punch and
 * unlink. Each file must end with exactly its own bytes.
 *
 * Files hold 8-byte words that say where they belong: owner << 48 | serial << 32 | word index.
 * Owner 0 is the file that all were cloned from; a zero word is a hole. So a word of somebody else,
 * or of another place, shows itself wherever it turns up.
 */
#define _GNU_SOURCE
#include "files.h"

#include <sys/mman.h>

enum { BLOCK = 4096, WORDS = BLOCK / 8, BLOCKS = 64, SIZE = BLOCKS * BLOCK, CLONES = 8 };

static uint64_t word_of(unsigned owner, unsigned serial, size_t index)
{
	return (uint64_t)owner << 48 | (uint64_t)(serial & 0xffff) << 32 | (index + 1);
}

static void copy_all(int src, int dst, off_t from, size_t len)
{
	off_t in = from;
	off_t out = from;

	while (len > 0) {
		ssize_t n = OK(copy_file_range(src, &in, dst, &out, len, 0));

		if (n <= 0)
			return;
		len -= (size_t)n;
	}
}

static void base_make(void)
{
	uint64_t *words = buffer_make(SIZE);

	for (size_t i = 0; i < SIZE / 8; i++)
		words[i] = word_of(0, 1, i);
	file_make("base", words, SIZE);
	free(words);
}

static const char *clone_name(unsigned i)
{
	static char name[16];

	snprintf(name, sizeof(name), "clone-%u", i);
	return name;
}

static uint64_t *map_of(int fd)
{
	void *map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	MUST(map == MAP_FAILED ? -1 : 0);
	return map;
}

/* Bytes as read(2) gives them, from the cache and past it. */
static void content_is(int fd, const uint64_t *want, size_t size)
{
	uint64_t *got = buffer_make(SIZE);

	EQ(size, fd_stat(fd).st_size);
	EQ(size, pread(fd, got, SIZE, 0));
	MEMEQ(want, got, size);
	OK(fsync(fd));
	EQ(0, posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
	memset(got, 0, SIZE);
	EQ(size, pread(fd, got, SIZE, 0));
	MEMEQ(want, got, size);
	free(got);
}

/* All clones mapped, each block of each stored to in a random order, by one process. */
static void case_store_all_copies(void)
{
	struct rnd r = { check_seed() };
	uint64_t *want[CLONES];
	uint64_t *map[CLONES];
	unsigned order[CLONES * BLOCKS];
	int fd[CLONES];
	int base;

	check_context("seed %lu", (unsigned long)check_seed());
	base_make();
	base = file_open("base", O_RDWR);
	for (unsigned i = 0; i < CLONES; i++) {
		fd[i] = file_open(clone_name(i), O_RDWR | O_CREAT);
		copy_all(base, fd[i], 0, SIZE);
		map[i] = map_of(fd[i]);
		want[i] = buffer_make(SIZE);
		MUST(pread(base, want[i], SIZE, 0));
	}
	for (unsigned i = 0; i < CLONES * BLOCKS; i++)
		order[i] = i;
	for (unsigned round = 0; round < 3 * check_scale(); round++) {
		for (unsigned i = CLONES * BLOCKS - 1; i > 0; i--) {
			unsigned k = (unsigned)rnd_below(&r, i + 1);
			unsigned t = order[i];

			order[i] = order[k];
			order[k] = t;
		}
		for (unsigned i = 0; i < CLONES * BLOCKS; i++) {
			unsigned c = order[i] / BLOCKS;
			size_t at = order[i] % BLOCKS * WORDS + rnd_below(&r, WORDS);

			map[c][at] = want[c][at] = word_of(c + 1, round, at);
		}
		for (unsigned c = 0; c < CLONES; c++)
			MEMEQ(want[c], map[c], SIZE);
		/* The next round stores into blocks that are shared again, two by two. */
		for (unsigned c = 0; c < CLONES; c += 2) {
			copy_all(fd[c], fd[c + 1], 0, SIZE);
			memcpy(want[c + 1], want[c], SIZE);
		}
	}
	for (unsigned c = 0; c < CLONES; c++) {
		MEMEQ(want[c], map[c], SIZE);
		content_is(fd[c], want[c], SIZE);
	}
	for (size_t i = 0; i < SIZE / 8; i++)
		want[0][i] = word_of(0, 1, i);
	content_is(base, want[0], SIZE);
}

/* Every word is the owner's, the base's or a hole, and in its place. */
static bool words_valid(const uint64_t *words, size_t size, unsigned owner, unsigned other)
{
	for (size_t i = 0; i < size / 8; i++) {
		unsigned who = (unsigned)(words[i] >> 48);

		if (words[i] == 0)
			continue;
		if ((who != 0 && who != owner && who != other) || (uint32_t)words[i] != i + 1) {
			check_context("word %zu of a file of %u is %lx", i, owner, (unsigned long)words[i]);
			return WRONG("a word of another file or place");
		}
	}
	return true;
}

struct worker {
	unsigned id;
	uint64_t seed;
	unsigned step_count;
};

struct owned {
	int fd;
	int base;
	uint64_t *map;
	uint64_t *want;
	size_t size;
	unsigned owner;
};

/* One change of one's own file, and of the model of it. */
static void owned_step(struct owned *o, struct rnd *r, unsigned serial)
{
	size_t first = rnd_below(r, BLOCKS) * WORDS;
	size_t at = first + rnd_below(r, WORDS);
	size_t to;

	switch (rnd_below(r, 12)) {
	case 0: /* punch some blocks */
		to = first + WORDS * (1 + rnd_below(r, 4));
		OK(fallocate(o->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)first * 8,
			     (off_t)(to - first) * 8));
		for (size_t i = first; i < to && i < SIZE / 8; i++)
			o->want[i] = 0;
		break;
	case 1: /* cut, in the middle of a block, and grow again */
		OK(ftruncate(o->fd, (off_t)at * 8));
		memset(o->want + at, 0, SIZE - at * 8);
		OK(ftruncate(o->fd, SIZE));
		break;
	case 2: /* take blocks from the base again */
		to = first + WORDS * (1 + rnd_below(r, 8));
		to = to > SIZE / 8 ? SIZE / 8 : to;
		copy_all(o->base, o->fd, (off_t)first * 8, (to - first) * 8);
		for (size_t i = first; i < to; i++)
			o->want[i] = word_of(0, 1, i);
		break;
	case 3: /* write(2) */
		o->want[at] = word_of(o->owner, serial, at);
		EQ(8, pwrite(o->fd, &o->want[at], 8, (off_t)at * 8));
		break;
	case 4: /* what the model says is there */
		MEMEQ(&o->want[first], &o->map[first], BLOCK);
		break;
	case 5:
		OK(msync(o->map, SIZE, MS_SYNC));
		break;
	default: /* store */
		for (size_t i = first; i < SIZE / 8; i += WORDS * 5) {
			o->want[i] = word_of(o->owner, serial, i);
			*(volatile uint64_t *)&o->map[i] = o->want[i];
		}
		break;
	}
}

static void worker_body(void *arg)
{
	const struct worker *w = arg;
	struct rnd r = { w->seed };
	struct owned o = { .owner = w->id, .size = SIZE };

	check_context("worker %u, seed %lu", w->id, (unsigned long)w->seed);
	o.base = file_open("base", O_RDONLY);
	o.fd = file_open(clone_name(w->id), O_RDWR);
	o.map = map_of(o.fd);
	o.want = buffer_make(SIZE);
	for (size_t i = 0; i < SIZE / 8; i++)
		o.want[i] = word_of(0, 1, i);
	for (unsigned s = 0; s < w->step_count && check_failed_count() == 0; s++)
		owned_step(&o, &r, s);
	MEMEQ(o.want, o.map, SIZE);
	content_is(o.fd, o.want, SIZE);
}

/* Clones whatever the others are at, checks it, scribbles over its own copy and throws it away. */
static void thief_body(void *arg)
{
	const struct worker *w = arg;
	struct rnd r = { w->seed };
	char name[16];

	check_context("thief %u, seed %lu", w->id, (unsigned long)w->seed);
	for (unsigned s = 0; s < w->step_count && check_failed_count() == 0; s++) {
		unsigned victim = 1 + (unsigned)rnd_below(&r, CLONES);
		int src = file_open(clone_name(victim), O_RDONLY);
		int dst;
		uint64_t *map;
		size_t size;
		off_t in = 0;

		snprintf(name, sizeof(name), "loot-%u", w->id);
		dst = file_open(name, O_RDWR | O_CREAT | O_TRUNC);
		while (in < SIZE) {
			off_t out = in;
			ssize_t n = OK(copy_file_range(src, &in, dst, &out, (size_t)(SIZE - in), 0));

			if (n <= 0)
				break; /* cut short by the owner's truncate */
		}
		size = (size_t)fd_stat(dst).st_size & ~7ul;
		map = map_of(dst);
		words_valid(map, size, victim, victim);
		for (size_t i = 0; i < size / 8; i += WORDS)
			map[i] = word_of(w->id, s, i);
		if (rnd_below(&r, 2))
			OK(unlink(name));
		words_valid(map, size, victim, w->id);
		for (size_t i = 0; i < size / 8; i += WORDS)
			EQ(word_of(w->id, s, i), map[i]);
		munmap(map, SIZE);
		close(dst);
		close(src);
		unlink(name);
	}
}

static void case_race(void)
{
	enum { THIEVES = 2 };
	struct worker w[CLONES + THIEVES];
	pid_t pids[CLONES + THIEVES];
	uint64_t *words = buffer_make(SIZE);
	int base;
	int fd;

	base_make();
	base = file_open("base", O_RDONLY);
	for (unsigned i = 1; i <= CLONES; i++) {
		fd = file_open(clone_name(i), O_RDWR | O_CREAT);
		copy_all(base, fd, 0, SIZE);
		close(fd);
	}
	for (unsigned i = 0; i < CLONES + THIEVES; i++) {
		w[i] = (struct worker){ i + 1, check_seed() + i, 150 * check_scale() };
		if (i >= CLONES)
			w[i].step_count = 40 * check_scale();
		pids[i] = child_start(i < CLONES ? worker_body : thief_body, &w[i]);
	}
	for (unsigned i = 0; i < CLONES + THIEVES; i++)
		child_wait(pids[i]);
	/* The base was only ever read. */
	EQ(SIZE, pread(base, words, SIZE, 0));
	for (size_t i = 0; i < SIZE / 8; i++) {
		if (!EQ(word_of(0, 1, i), words[i]))
			break;
	}
	free(words);
}

/* Blocks of a file that is gone must not shine through in the next one. */
static void case_earlier_life(void)
{
	uint64_t *words = buffer_make(SIZE);
	int fd;
	int fd2;

	for (unsigned round = 0; round < 20; round++) {
		for (size_t i = 0; i < SIZE / 8; i++)
			words[i] = word_of(round + 1, 0, i);
		file_make("old", words, SIZE);
		OK(unlink("old"));
		fd = file_open("new", O_RDWR | O_CREAT | O_TRUNC);
		OK(fallocate(fd, 0, 0, SIZE / 2));
		EQ(8, pwrite(fd, words, 8, SIZE / 2 + 8 * BLOCK));
		OK(ftruncate(fd, SIZE));
		fd2 = file_open("new2", O_RDWR | O_CREAT | O_TRUNC);
		copy_all(fd, fd2, 0, SIZE);
		for (int k = 0; k < 2; k++) {
			memset(words, 0xff, SIZE);
			EQ(SIZE, pread(k ? fd2 : fd, words, SIZE, 0));
			for (size_t i = 0; i < SIZE / 8; i++) {
				if (i != (SIZE / 2 + 8 * BLOCK) / 8 && !EQ(0, words[i]))
					return;
			}
		}
		close(fd);
		close(fd2);
	}
	free(words);
}

static const struct check_case cases[] = {
	{ "store_all_copies", case_store_all_copies },
	{ "race", case_race },
	{ "earlier_life", case_earlier_life },
};

CHECK_MAIN(cases)
