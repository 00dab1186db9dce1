/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Calls about parts of 2 MiB of a mapping, which some memory has only as a whole: a program need not know of that. With MAPPED_DIRECT=1 its mappings have to be direct
 * before.
 */
#define _GNU_SOURCE
#include "mapped.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

enum { UNIT = 2 << 20, UNITS = 4, ALL = UNITS * UNIT, NUMBERS = ALL / PAGE };

static uint32_t *number_at(unsigned char *map, unsigned page)
{
	return (uint32_t *)(void *)(map + (size_t)page * PAGE);
}

/* Each page begins with its number. Not the file that was there before. */
static int file_new(const char *name)
{
	unsigned char *bytes = buffer_make(ALL);
	static unsigned before;
	char old[20];

	snprintf(old, sizeof(old), "before%u", before++);
	(void)rename(name, old);
	memset(bytes, 0, ALL);
	for (unsigned i = 0; i < NUMBERS; i++)
		*number_at(bytes, i) = i;
	file_make(name, bytes, ALL);
	free(bytes);
	return file_open(name, O_RDWR);
}

/* Of count pages from page first on. The storable one is in place, with a store. */
static unsigned char *map_new(int fd, unsigned first, unsigned count)
{
	unsigned char *map = mapped_make(NULL, (size_t)count * PAGE, RW, MAP_SHARED, fd, (off_t)first * PAGE);

	for (unsigned i = 0; i < count; i++)
		if (!EQ(first + i, *number_at(map, i)))
			break;
	for (unsigned i = 0; i < count; i += 64)
		map[(size_t)i * PAGE + 8] = 1;
	mapped_is_direct(map, true);
	mapped_is_direct(map + (size_t)(count - 1) * PAGE, true);
	return map;
}

/* Another process stores to it directly, and this one perhaps not: what it stores is to be synchronized (umbra-run(1)). */
static bool has_others;

/* Pages lo to hi are there, as of page first of the file, can be stored to, and others see that; what the file has is what is stored. */
static void is_there(const char *name, unsigned char *map, unsigned first, unsigned lo, unsigned hi)
{
	static unsigned char turn = 1;

	turn++;
	for (unsigned i = lo; i < hi; i++)
		if (!EQ(first + i, *number_at(map, i)))
			return;
	for (unsigned i = lo; i < hi; i += 37) {
		map[(size_t)i * PAGE + 100] = turn;
		if (has_others)
			OK(msync(map + (size_t)i * PAGE, PAGE, MS_SYNC));
		if (!EQ(turn, mapped_read(name, (off_t)(first + i) * PAGE + 100)))
			return;
	}
}

/* Touching what is not there, or may not be touched. */
static void is_out(unsigned char *map, unsigned lo, unsigned hi, bool store)
{
	const unsigned places[] = { lo, (lo + hi) / 2, hi - 1 };

	for (unsigned i = 0; i < 3; i++)
		EQ(SIGSEGV, mapped_touch(map + (size_t)places[i] * PAGE, store));
}

/* Nobody has the addresses. */
static void is_free(unsigned char *map, unsigned lo, unsigned hi)
{
	size_t len = (size_t)(hi - lo) * PAGE;
	unsigned char *at = map + (size_t)lo * PAGE;

	TRUE(mapped_make(at, len, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == at);
	EQ(0, at[len - 1]);
	memset(at, 0xcc, len);
}

/* What is taken out of a mapping of pages FIRST to FIRST + COUNT of the file */
enum { FIRST = 300, COUNT = 1200 };
static const struct {
	const char *what;
	unsigned lo, hi;
} parts[] = {
	{ "head", 0, 10 },
	{ "head and more", 0, 700 },
	{ "tail", COUNT - 1, COUNT },
	{ "tail and more", 400, COUNT },
	{ "middle", 500, 501 },
	{ "middle, over units", 100, 900 },
	{ "middle, from a unit on", 212, 400 },
	{ "middle, up to a unit", 100, 724 },
};

#define FOR_PARTS(i)                                                                          \
	for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]) &&                          \
			     (check_context("%s", parts[i].what), check_failed_count() == 0); \
	     i++)

static void case_unmap(void)
{
	FOR_PARTS(i)
	{
		int fd = file_new("f");
		unsigned char *map = map_new(fd, FIRST, COUNT);
		unsigned lo = parts[i].lo, hi = parts[i].hi;

		OK(munmap(map + (size_t)lo * PAGE, (size_t)(hi - lo) * PAGE));
		is_out(map, lo, hi, false);
		is_there("f", map, FIRST, 0, lo);
		is_there("f", map, FIRST, hi, COUNT);
		is_free(map, lo, hi);
		is_there("f", map, FIRST, 0, lo);
		is_there("f", map, FIRST, hi, COUNT);
		EQ(0xcc, map[(size_t)lo * PAGE]);
		EQ(0xcc, map[(size_t)hi * PAGE - 1]);
		OK(munmap(map, (size_t)COUNT * PAGE));
		is_out(map, 0, COUNT, false);
		close(fd);
	}
}

static void case_protect(void)
{
	FOR_PARTS(i)
	{
		int fd = file_new("f");
		unsigned char *map = map_new(fd, FIRST, COUNT), *part;
		unsigned lo = parts[i].lo, hi = parts[i].hi;
		size_t len = (size_t)(hi - lo) * PAGE;

		part = map + (size_t)lo * PAGE;
		OK(mprotect(part, len, RW));
		mapped_is_direct(map, true);
		OK(mprotect(part, len, PROT_READ));
		is_out(map, lo, hi, true);
		EQ(FIRST + lo, *number_at(map, lo));
		EQ(FIRST + hi - 1, *number_at(map, hi - 1));
		is_there("f", map, FIRST, 0, lo);
		is_there("f", map, FIRST, hi, COUNT);
		OK(mprotect(part, len, PROT_NONE));
		is_out(map, lo, hi, false);
		is_out(map, lo, hi, true);
		is_there("f", map, FIRST, 0, lo);
		is_there("f", map, FIRST, hi, COUNT);
		OK(mprotect(part, len, RW));
		is_there("f", map, FIRST, 0, COUNT);
		/* All of it, and back. */
		OK(mprotect(map, (size_t)COUNT * PAGE, PROT_READ));
		is_out(map, 0, COUNT, true);
		OK(mprotect(map, (size_t)COUNT * PAGE, RW));
		is_there("f", map, FIRST, 0, COUNT);
		OK(munmap(map, (size_t)COUNT * PAGE));
		is_out(map, 0, COUNT, false);
		close(fd);
	}
}

/* At its own ends a mapping can be changed as it is. */
static void case_whole(void)
{
	int fd = file_new("f");
	unsigned char *map = map_new(fd, FIRST, COUNT);

	OK(mprotect(map, (size_t)COUNT * PAGE, PROT_READ));
	is_out(map, 0, COUNT, true);
	OK(mprotect(map, (size_t)COUNT * PAGE, RW));
	is_there("f", map, FIRST, 0, COUNT);
	OK(munmap(map, (size_t)(UNIT / PAGE - FIRST) * PAGE));
	is_out(map, 0, UNIT / PAGE - FIRST, false);
	is_there("f", map, FIRST, UNIT / PAGE - FIRST, COUNT);
	mapped_is_direct(map + (size_t)(COUNT - 1) * PAGE, true);
	OK(munmap(map, (size_t)COUNT * PAGE));
}

/* Something else over a part, more of what was around it included. */
static void case_mapped_over(void)
{
	FOR_PARTS(i)
	{
		int f = file_new("f"), g = file_new("g");
		unsigned char *map = map_new(f, FIRST, COUNT);
		unsigned lo = parts[i].lo, hi = parts[i].hi;
		size_t len = (size_t)(hi - lo) * PAGE;

		mapped_make(map + (size_t)lo * PAGE, len, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		memset(map + (size_t)lo * PAGE, 0x55, len);
		EQ(FIRST + lo, mapped_read("f", (off_t)(FIRST + lo) * PAGE) +
				       256 * mapped_read("f", (off_t)(FIRST + lo) * PAGE + 1));
		is_there("f", map, FIRST, 0, lo);
		is_there("f", map, FIRST, hi, COUNT);
		EQ(0x55, map[(size_t)lo * PAGE]);
		EQ(0x55, map[(size_t)hi * PAGE - 1]);
		mapped_make(map + (size_t)lo * PAGE, len, RW, MAP_SHARED | MAP_FIXED, g,
			    (off_t)(lo + 5) * PAGE);
		is_there("g", map, 5, lo, hi);
		is_there("f", map, FIRST, 0, lo);
		is_there("f", map, FIRST, hi, COUNT);
		OK(munmap(map, (size_t)COUNT * PAGE));
		is_out(map, 0, COUNT, false);
		close(f);
		close(g);
	}
}

/* Over all of it and what comes behind it: that is not taken away with what was there. */
static void case_mapped_beyond(void)
{
	unsigned char *room = mapped_make(NULL, ALL, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *map;
	int fd = file_new("f");

	map = map_new(fd, 0, COUNT);
	OK(munmap(room, ALL));
	OK(munmap(map, (size_t)COUNT * PAGE));
	/* Where there was room for it, and for more. */
	map = mapped_make(map, (size_t)COUNT * PAGE, RW, MAP_SHARED, fd, 0);
	is_there("f", map, 0, 0, COUNT);
	room = mmap(map, (size_t)(COUNT + 80) * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	TRUE(room == map);
	memset(room, 0x66, (size_t)(COUNT + 80) * PAGE);
	EQ(0x66, room[(size_t)(COUNT + 80) * PAGE - 1]);
	OK(munmap(room, (size_t)(COUNT + 80) * PAGE));
}

static void fork_child(void *arg)
{
	unsigned char *map = arg;

	is_out(map, 700, 800, false);
	is_out(map, 200, 300, true);
	is_there("f", map, FIRST, 300, 700);
	is_there("f", map, FIRST, 800, COUNT);
	map[(size_t)350 * PAGE + 9] = 0x99;
	OK(mprotect(map + (size_t)200 * PAGE, (size_t)100 * PAGE, RW));
	is_there("f", map, FIRST, 0, 700);
	OK(munmap(map + (size_t)10 * PAGE, (size_t)5 * PAGE));
	is_out(map, 10, 15, false);
}

static void case_fork(void)
{
	int fd = file_new("f");
	unsigned char *map = map_new(fd, FIRST, COUNT), *second = map_new(fd, 0, NUMBERS);

	has_others = true;
	OK(munmap(map + (size_t)700 * PAGE, (size_t)100 * PAGE));
	OK(mprotect(map + (size_t)200 * PAGE, (size_t)100 * PAGE, PROT_READ));
	child_run(fork_child, map);
	EQ(0x99, map[(size_t)350 * PAGE + 9]);
	EQ(0x99, second[(size_t)(FIRST + 350) * PAGE + 9]);
	is_out(map, 200, 300, true);
	is_there("f", map, FIRST, 0, 200);
	is_there("f", second, 0, 0, NUMBERS);
	/* In a child alone. */
	OK(munmap(map, (size_t)COUNT * PAGE));
	OK(munmap(second, ALL));
	close(fd);
	fd = file_new("f");
	map = map_new(fd, FIRST, COUNT);
	OK(madvise(map + (size_t)50 * PAGE, (size_t)20 * PAGE, MADV_DONTFORK));
	is_there("f", map, FIRST, 0, COUNT);
	OK(madvise(map + (size_t)50 * PAGE, (size_t)20 * PAGE, MADV_DOFORK));
	OK(mprotect(map + (size_t)200 * PAGE, (size_t)100 * PAGE, PROT_READ));
	OK(munmap(map + (size_t)700 * PAGE, (size_t)100 * PAGE));
	child_run(fork_child, map);
}

static void without(void *arg)
{
	unsigned char *map = arg;

	is_out(map, 50, 70, false);
	is_there("f", map, FIRST, 0, 50);
	is_there("f", map, FIRST, 70, COUNT);
}

static void case_dont_fork(void)
{
	int fd = file_new("f");
	unsigned char *map = map_new(fd, FIRST, COUNT);

	has_others = true;
	OK(madvise(map + (size_t)50 * PAGE, (size_t)20 * PAGE, MADV_DONTFORK));
	child_run(without, map);
	is_there("f", map, FIRST, 0, COUNT);
}

static unsigned char *moved(unsigned char *map, unsigned from, unsigned to, int flags, unsigned char *at)
{
	unsigned char *now = mremap(map, (size_t)from * PAGE, (size_t)to * PAGE, flags, at);

	MUST(now == MAP_FAILED ? -1 : 0);
	return now;
}

static void case_mremap(void)
{
	int fd = file_new("f");
	unsigned char *map = map_new(fd, FIRST, COUNT), *to, *room;

	/* Shrinks within a unit. */
	TRUE(moved(map, COUNT, 700, 0, NULL) == map);
	is_out(map, 700, COUNT, false);
	is_there("f", map, FIRST, 0, 700);
	is_free(map, 700, COUNT);
	OK(munmap(map + (size_t)700 * PAGE, (size_t)(COUNT - 700) * PAGE));
	/* Larger, where it is: there is room. */
	TRUE(moved(map, 700, 720, 0, NULL) == map);
	is_there("f", map, FIRST, 0, 720);
	is_out(map, 720, 730, false);
	/* Anywhere. */
	to = moved(map, 720, 1700, MREMAP_MAYMOVE, NULL);
	is_there("f", to, FIRST, 0, 1700);
	OK(munmap(to, (size_t)1700 * PAGE));
	close(fd);
	/* A part of one goes elsewhere. */
	fd = file_new("f");
	map = map_new(fd, FIRST, COUNT);
	to = moved(map + (size_t)100 * PAGE, 50, 60, MREMAP_MAYMOVE, NULL);
	is_out(map, 100, 150, false);
	is_there("f", map, FIRST, 0, 100);
	is_there("f", map, FIRST, 150, COUNT);
	is_there("f", to, FIRST + 100, 0, 60);
	close(fd);
	/* To a given place. */
	fd = file_new("g");
	map = map_new(fd, 0, 2 * UNIT / PAGE);
	room = mapped_make(NULL, (size_t)100 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	TRUE(moved(map + (size_t)20 * PAGE, 30, 30, MREMAP_MAYMOVE | MREMAP_FIXED,
		   room + (size_t)10 * PAGE) == room + (size_t)10 * PAGE);
	is_there("g", room + (size_t)10 * PAGE, 20, 0, 30);
	is_out(map, 20, 50, false);
	is_there("g", map, 0, 0, 20);
	is_there("g", map, 0, 50, 2 * UNIT / PAGE);
	close(fd);
	/* Memory over a part. */
	fd = file_new("h");
	map = map_new(fd, 0, 2 * UNIT / PAGE);
	TRUE(moved(room, 5, 5, MREMAP_MAYMOVE | MREMAP_FIXED, map + (size_t)7 * PAGE) ==
	     map + (size_t)7 * PAGE);
	EQ(0, map[(size_t)7 * PAGE]);
	is_there("h", map, 0, 0, 7);
	is_there("h", map, 0, 12, 2 * UNIT / PAGE);
}

/* Larger at the place where it is, before a unit ends and after. */
static void case_grows(void)
{
	int fd = file_new("f");
	unsigned char *room = mapped_make(NULL, 4 * ALL, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *map;

	room += UNIT - (uintptr_t)room % UNIT;
	OK(munmap(room, 2 * ALL));
	map = mapped_make(room, (size_t)100 * PAGE, RW, MAP_SHARED, fd, 0);
	TRUE(map == room);
	is_there("f", map, 0, 0, 100);
	mapped_is_direct(map, true);
	TRUE(mremap(map, (size_t)100 * PAGE, (size_t)110 * PAGE, 0) == map);
	is_there("f", map, 0, 0, 110);
	TRUE(mremap(map, (size_t)110 * PAGE, (size_t)1500 * PAGE, 0) == map);
	is_there("f", map, 0, 0, 1500);
	mapped_is_direct(map + (size_t)1499 * PAGE, true);
	OK(munmap(map, (size_t)1500 * PAGE));
	is_out(map, 0, 1500, false);
}

/* Another process that has it directly, and stores before, and reads all the time: each sees what the other one has synchronized. */
static int ends[2][2];

static void tell(int to)
{
	EQ(1, write(ends[to][1], "x", 1));
}

static void wait_for(int from)
{
	char byte;

	EQ(1, read(ends[from][0], &byte, 1));
}

static void other_process(void *arg)
{
	unsigned char *map = map_new(file_open("f", O_RDWR), 0, NUMBERS);

	(void)arg;
	tell(0);
	for (unsigned round = 0; round < 4; round++) {
		wait_for(1);
		for (unsigned i = 0; i < NUMBERS; i += 16) {
			EQ(round, map[(size_t)i * PAGE + 200]);
			if (round < 2)
				map[(size_t)i * PAGE + 201] = (unsigned char)round;
		}
		OK(msync(map, ALL, MS_SYNC));
		tell(0);
	}
}

static void case_processes(void)
{
	int fd = file_new("f");
	unsigned char *map;
	pid_t pid;

	MUST(pipe(ends[0]));
	MUST(pipe(ends[1]));
	pid = child_start(other_process, NULL);
	wait_for(0);
	map = map_new(fd, 0, NUMBERS);
	for (unsigned round = 0; round < 4; round++) {
		for (unsigned i = 0; i < NUMBERS; i += 16)
			map[(size_t)i * PAGE + 200] = (unsigned char)round;
		/* Which of them are the kernel's by now nobody knows. */
		(void)msync(map, ALL, MS_SYNC);
		tell(1);
		wait_for(0);
		for (unsigned i = 0; i < NUMBERS && check_failed_count() == 0; i += 16)
			EQ(round < 2 ? round : 1, map[(size_t)i * PAGE + 201]);
		/* The last page of the first unit is one that nobody looks at. */
		if (round == 1)
			OK(munmap(map + UNIT - PAGE, PAGE));
		if (round == 2)
			OK(mprotect(map + (size_t)3 * PAGE, PAGE, PROT_NONE));
	}
	child_wait(pid);
	OK(munmap(map, ALL));
}

static const struct check_case cases[] = {
	{ "unmap", case_unmap },
	{ "protect", case_protect },
	{ "whole", case_whole },
	{ "mapped_over", case_mapped_over },
	{ "mapped_beyond", case_mapped_beyond },
	{ "fork", case_fork },
	{ "dont_fork", case_dont_fork },
	{ "mremap", case_mremap },
	{ "grows", case_grows },
	{ "processes", case_processes },
};

CHECK_MAIN(cases)
