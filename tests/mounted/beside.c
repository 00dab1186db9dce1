/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A file that one has directly and another through the kernel, by calls and by mappings, at the same time: what either has been told is stored the other reads, and nobody's bytes
 * come over those of others.
 */
#define _GNU_SOURCE
#include "check.h"
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <umbra/ioctl.h>
#include <umbra/umbra.h>

#define BLOCK 4096u
#define BLOCKS 64u
#define BYTES ((size_t)BLOCKS * BLOCK)

static struct umbra_file *attach(int fd)
{
	struct umbra_file *file;
	int rc;

	if (!check_fs_is("umbrafs"))
		check_skip("only umbrafs has direct mappings");
	rc = umbra_attach(fd, &file);
	if (rc == -EOPNOTSUPP)
		check_skip("the mount gives no direct access");
	MUST(rc == 0 ? 0 : -1);
	return file;
}

/* Blocks that are there, and no page of them in the kernel. */
static void file_new(const char *name)
{
	static uint8_t bytes[BYTES];
	int fd = (int)MUST(open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644));

	MUST(pwrite(fd, bytes, sizeof(bytes), 0) == sizeof(bytes) ? 0 : -1);
	MUST(close(fd));
}

static void *shared_new(size_t len)
{
	void *at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	MUST(at == MAP_FAILED ? -1 : 0);
	return at;
}

/* ---- turns: one after the other ---- */

static _Atomic unsigned *turn;

static void turn_is(unsigned want)
{
	while (atomic_load(turn) != want && check_failed_count() == 0)
		usleep(200);
}

static void turn_next(void)
{
	atomic_fetch_add(turn, 1);
}

static volatile uint64_t *kernel_map(int fd, int prot, int flags)
{
	void *at = mmap(NULL, BYTES, prot, flags, fd, 0);

	MUST(at == MAP_FAILED ? -1 : 0);
	return at;
}

static uint64_t direct_word(struct umbra_file *file, unsigned word)
{
	uint64_t value = 0;

	EQ(8, umbra_pread(file, &value, 8, 8 * (off_t)word));
	return value;
}

static void direct_store(struct umbra_file *file, unsigned word, uint64_t value)
{
	EQ(8, umbra_pwrite(file, &value, 8, 8 * (off_t)word));
}

static void call_store(int fd, unsigned word, uint64_t value)
{
	EQ(8, pwrite(fd, &value, 8, 8 * (off_t)word));
}

/* In its turns it stores to the next word of the first block, through the kernel. */
static void storer_body(void *arg)
{
	bool calls = *(bool *)arg;
	int fd = (int)MUST(open("f", O_RDWR));
	volatile uint64_t *at = kernel_map(fd, PROT_READ | PROT_WRITE, MAP_SHARED);

	for (unsigned i = 0; i < 8 && check_failed_count() == 0; i++) {
		turn_is(2 * i);
		for (unsigned word = 0; word < i; word++)
			EQ(word + 1, at[word]);
		if (i > 0)
			EQ(1000 + i - 1, at[100 + i - 1]);
		if (calls)
			call_store(fd, i, i + 1);
		else
			at[i] = i + 1;
		turn_next();
	}
	close(fd);
}

/* A kernel mapping that was there first, or an open that came later; the direct one reads what it stores, and stores in its own turns. */
static void kernel_stores(bool calls, bool attached_first)
{
	struct umbra_file *file = NULL;
	int fd = -1;
	pid_t pid;

	file_new("f");
	atomic_store(turn, 0);
	if (attached_first) {
		fd = (int)MUST(open("f", O_RDWR));
		file = attach(fd);
		direct_store(file, 400, 7);
		EQ(7, direct_word(file, 400));
	}
	pid = child_start(storer_body, &calls);
	for (unsigned i = 0; i < 8 && check_failed_count() == 0; i++) {
		turn_is(2 * i + 1);
		if (!file) {
			fd = (int)MUST(open("f", O_RDWR));
			file = attach(fd);
		}
		for (unsigned word = 0; word <= i; word++)
			EQ(word + 1, direct_word(file, word));
		direct_store(file, 100 + i, 1000 + i);
		turn_next();
	}
	child_wait(pid);
	for (unsigned i = 0; i < 8; i++) {
		EQ(i + 1, direct_word(file, i));
		EQ(1000 + i, direct_word(file, 100 + i));
	}
	umbra_detach(file);
	close(fd);
}

static void case_kernel_stores(void)
{
	turn = shared_new(BLOCK);
	for (unsigned how = 0; how < 4 && check_failed_count() == 0; how++) {
		check_context("%s, %s", how & 1 ? "calls" : "a mapping", how & 2 ? "later" : "first");
		kernel_stores(how & 1, how & 2);
	}
}

/* ---- a mapping of an open that bypasses the page cache, or not, of one who only reads ---- */

struct reader {
	bool first; /* opens before anybody stores directly */
	int flags;  /* of the mapping; 0: by splice() */
};

static uint64_t spliced_word(int fd, int pipes[2], unsigned word)
{
	loff_t off = 8 * (loff_t)word;
	uint64_t value = 0;

	EQ(8, splice(fd, &off, pipes[1], NULL, 8, 0));
	EQ(8, read(pipes[0], &value, 8));
	return value;
}

static void reader_body(void *arg)
{
	const struct reader *r = arg;
	const volatile uint64_t *at = NULL;
	int fd = -1, pipes[2];

	MUST(pipe(pipes));
	for (unsigned i = 0; i < 8 && check_failed_count() == 0; i++) {
		turn_is(2 * i + 1);
		if (fd < 0) {
			fd = (int)MUST(open("f", O_RDONLY));
			at = r->flags ? kernel_map(fd, PROT_READ, r->flags) : NULL;
		}
		EQ(i, at ? at[i] : spliced_word(fd, pipes, i));
		turn_next();
	}
	close(fd);
}

static void kernel_reads(const struct reader *r)
{
	int fd, old = -1;
	struct umbra_file *file;
	uint64_t value;
	pid_t pid;

	file_new("f");
	atomic_store(turn, 0);
	fd = (int)MUST(open("f", O_RDWR));
	file = attach(fd);
	if (r->first) {
		old = (int)MUST(open("f", O_RDONLY));
		EQ(8, pread(old, &value, 8, 0));
	}
	pid = child_start(reader_body, (void *)(uintptr_t)r);
	for (unsigned i = 0; i < 8 && check_failed_count() == 0; i++) {
		turn_is(2 * i);
		direct_store(file, i, i);
		if (i == 4 && old >= 0)
			close(old);
		turn_next();
	}
	child_wait(pid);
	for (unsigned i = 0; i < 8; i++)
		EQ(i, direct_word(file, i));
	umbra_detach(file);
	close(fd);
}

static void case_kernel_reads(void)
{
	static const struct reader readers[] = {
		{ false, MAP_SHARED }, { false, MAP_PRIVATE }, { false, 0 },
		{ true, MAP_SHARED },  { true, MAP_PRIVATE },  { true, 0 },
	};

	turn = shared_new(BLOCK);
	for (size_t i = 0; i < sizeof(readers) / sizeof(readers[0]) && check_failed_count() == 0; i++) {
		check_context("reader %zu", i);
		kernel_reads(&readers[i]);
	}
}

/* A page is in the cache from somebody who may only read. Who may store to it opens the file while another reads it directly: no request tells of his first store. */
static void case_page_before_open(void)
{
	int reader, fd, storer;
	struct umbra_file *file;
	volatile uint64_t *at;
	uint64_t value;

	file_new("f");
	reader = (int)MUST(open("f", O_RDONLY));
	fd = (int)MUST(open("f", O_RDONLY));
	file = attach(fd);
	for (unsigned i = 0; i < 3 && check_failed_count() == 0; i++) {
		EQ(8, pread(reader, &value, 8, 0));
		EQ(i, direct_word(file, 0));
		storer = (int)MUST(open("f", O_RDWR));
		EQ(i, direct_word(file, 0));
		at = kernel_map(storer, PROT_READ | PROT_WRITE, MAP_SHARED);
		at[0] = i + 1;
		EQ(i + 1, direct_word(file, 0));
		MUST(munmap((void *)(uintptr_t)at, BYTES));
		close(storer);
	}
	umbra_detach(file);
	close(fd);
	close(reader);
}

/* The descriptor that is attached, opened before anybody stored directly, and one like it of somebody else who does not store. */
static void case_same_descriptor(void)
{
	int fd, other;
	struct umbra_file *file, *others;
	uint64_t value;

	file_new("f");
	fd = (int)MUST(open("f", O_RDWR));
	other = (int)MUST(open("f", O_RDONLY));
	file = attach(fd);
	others = attach(other);
	for (unsigned i = 0; i < 20 && check_failed_count() == 0; i++) {
		check_context("round %u", i);
		direct_store(file, i, i + 1);
		EQ(8, pread(fd, &value, 8, 8 * (off_t)i));
		EQ(i + 1, value);
		direct_store(file, i, i + 2);
		EQ(8, pread(other, &value, 8, 8 * (off_t)i));
		EQ(i + 2, value);
		call_store(fd, i, i + 3);
		EQ(i + 3, direct_word(others, i));
		EQ(i + 3, direct_word(file, i));
	}
	umbra_detach(others);
	umbra_detach(file);
	close(other);
	close(fd);
}

/* ---- all at once ---- */

enum way { DIRECT, DIRECT_MAP, CALLS, KERNEL_MAP, FRESH_MAP, FRESH_PRIVATE, SPLICE, WAYS };
static const char *const way_name[] = { "direct",        "direct mapping",  "calls", "kernel mapping",
					"fresh mapping", "private mapping", "splice" };

struct party {
	enum way way;
	bool keeps, looks; /* opens the file once, before anybody who does not; only reads */
	unsigned index, count, rounds;
	_Atomic uint64_t *told; /* what each has been told is stored, of its own word */
	_Atomic unsigned *kept; /* how many of those that keep it open have it */
};

struct access {
	int fd, pipes[2];
	struct umbra_file *file;
	volatile uint64_t *at;
	bool is_kernels; /* at */
};

static void access_begin(struct access *a, enum way way)
{
	*a = (struct access){ .fd = (int)MUST(open("f", O_RDWR)) };
	MUST(pipe(a->pipes));
	if (way == DIRECT || way == DIRECT_MAP)
		a->file = attach(a->fd);
	a->is_kernels = way == KERNEL_MAP;
	if (way == DIRECT_MAP) {
		a->at = umbra_mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, a->file, 0);
		/* Somebody else has just had the page cache: the kernel's serves then. */
		a->is_kernels = umbra_mmap_error((const void *)(uintptr_t)a->at) == -EOPNOTSUPP;
		MUST(umbra_mmap_error((const void *)(uintptr_t)a->at) && !a->is_kernels ? -1 : 0);
	}
	if (a->is_kernels)
		a->at = kernel_map(a->fd, PROT_READ | PROT_WRITE, MAP_SHARED);
}

static void access_end(struct access *a, enum way way)
{
	if (way == DIRECT_MAP && !a->is_kernels)
		EQ(0, umbra_munmap((void *)(uintptr_t)a->at, BYTES));
	if (a->is_kernels)
		MUST(munmap((void *)(uintptr_t)a->at, BYTES));
	umbra_detach(a->file);
	close(a->pipes[0]);
	close(a->pipes[1]);
	close(a->fd);
}

static void store(struct access *a, enum way way, unsigned word, uint64_t value)
{
	if (way == DIRECT)
		direct_store(a->file, word, value);
	else if (a->at)
		a->at[word] = value;
	else
		call_store(a->fd, word, value);
}

/* By an open of its own. */
static uint64_t fresh_load(enum way way, unsigned word)
{
	int fd = (int)MUST(open("f", word % 2 ? O_RDONLY : O_RDWR));
	const volatile uint64_t *at = kernel_map(fd, PROT_READ, way == FRESH_MAP ? MAP_SHARED : MAP_PRIVATE);
	uint64_t value;

	close(fd);
	value = at[word];
	MUST(munmap((void *)(uintptr_t)at, BYTES));
	return value;
}

static uint64_t load(struct access *a, enum way way, unsigned word)
{
	uint64_t value = 0;

	if (way == DIRECT)
		return direct_word(a->file, word);
	if (a->at)
		return a->at[word];
	if (way == FRESH_MAP || way == FRESH_PRIVATE)
		return fresh_load(way, word);
	if (way == SPLICE)
		return spliced_word(a->fd, a->pipes, word);
	EQ(8, pread(a->fd, &value, 8, 8 * (off_t)word));
	return value;
}

static void party_round(const struct party *p, struct access *a, unsigned i)
{
	unsigned other = (p->index + i) % p->count;
	uint64_t told;

	if (!p->looks)
		store(a, p->way, p->index, i);
	atomic_store(&p->told[p->index], p->looks ? 0 : i);
	told = atomic_load(&p->told[other]);
	check_context("%s, word %u of %u, round %u", way_name[p->way], other, p->count, i);
	TRUE(load(a, p->way, other) >= told);
	EQ(p->looks ? 0 : i, load(a, p->way, p->index));
}

/* Words of all are in one block; each opens the file anew now and then. */
static void party_body(void *arg)
{
	const struct party *p = arg;
	struct access a;

	if (p->keeps) {
		access_begin(&a, p->way);
		atomic_fetch_add(&p->kept[1], 1);
	}
	while (atomic_load(&p->kept[1]) < p->kept[0] && check_failed_count() == 0)
		usleep(200);
	for (unsigned i = 1; i <= p->rounds && check_failed_count() == 0; i++) {
		if (i % 8 == 1 && !p->keeps)
			access_begin(&a, p->way);
		party_round(p, &a, i);
		if (i % 8 == 0 && !p->keeps)
			access_end(&a, p->way);
	}
	if (p->keeps)
		access_end(&a, p->way);
}

static void parties_start(struct party *parties, unsigned count, unsigned rounds)
{
	_Atomic uint64_t *told = shared_new(BLOCK);
	_Atomic unsigned *kept = shared_new(BLOCK);
	uint64_t words[WAYS];
	pid_t pids[WAYS];
	int fd;

	file_new("f");
	for (unsigned i = 0; i < count; i++)
		kept[0] += parties[i].keeps;
	for (unsigned i = 0; i < count; i++) {
		parties[i].index = i;
		parties[i].count = count;
		parties[i].rounds = rounds;
		parties[i].told = told;
		parties[i].kept = kept;
		pids[i] = child_start(party_body, &parties[i]);
	}
	for (unsigned i = 0; i < count; i++)
		child_wait(pids[i]);
	fd = (int)MUST(open("f", O_RDONLY));
	EQ(8 * count, pread(fd, words, 8 * count, 0));
	for (unsigned i = 0; i < count; i++)
		EQ(parties[i].looks ? 0 : rounds, words[i]);
	close(fd);
	MUST(munmap((void *)told, BLOCK));
	MUST(munmap((void *)kept, BLOCK));
}

static void parties_run(const enum way *ways, unsigned count, unsigned rounds)
{
	struct party parties[WAYS] = { 0 };

	for (unsigned i = 0; i < count; i++)
		parties[i].way = ways[i];
	parties_start(parties, count, rounds);
}

/* One who stores directly, beside one who opens the file all the time. */
static void case_open_beside_write(void)
{
	attach((int)MUST(open("f", O_RDWR | O_CREAT, 0644)));
	for (enum way way = CALLS; way < WAYS; way++) {
		const enum way direct[] = { DIRECT, way }, mapped[] = { DIRECT_MAP, way };

		parties_run(direct, 2, 200);
		parties_run(mapped, 2, 200);
	}
}

static void case_all_ways(void)
{
	static const enum way ways[] = { DIRECT,    DIRECT_MAP,    CALLS, KERNEL_MAP,
					 FRESH_MAP, FRESH_PRIVATE, SPLICE };

	attach((int)MUST(open("f", O_RDWR | O_CREAT, 0644)));
	for (unsigned i = 0; i < check_scale(); i++)
		parties_run(ways, WAYS, 120);
}

/* Who reads directly comes and goes; those who write through pages of the kernel were there before, and what they write is on its way when pages are dropped. */
static void case_written_through(void)
{
	if (!check_fs_is("umbrafs"))
		check_skip("only umbrafs has direct mappings");
	for (unsigned i = 0; i < 4 * check_scale(); i++) {
		struct party parties[] = {
			{ .way = CALLS, .keeps = true },      { .way = CALLS, .keeps = true },
			{ .way = KERNEL_MAP, .keeps = true }, { .way = SPLICE },
			{ .way = DIRECT, .looks = true },     { .way = DIRECT_MAP, .looks = true },
		};

		parties_start(parties, 6, 120);
	}
}

/* Nobody stores directly, and nobody reads; but the file is held, and opened for mappings all the time. */
static void case_held(void)
{
	static const enum way ways[] = { CALLS, KERNEL_MAP, FRESH_MAP, SPLICE };

	attach((int)MUST(open("f", O_RDWR | O_CREAT, 0644)));
	for (unsigned i = 0; i < 4 * check_scale(); i++)
		parties_run(ways, 4, 120);
}

/* ---- one process that has both ---- */

static uint64_t late_revokes(int fd)
{
	struct umbra_stats stats;

	OK(ioctl(fd, UMBRA_IOC_STATS, &stats));
	return stats.late_revokes;
}

/* A fault of its own kernel mapping waits for what its own listener says. */
static void case_both_in_one(void)
{
	volatile uint64_t *direct, *kernel;
	struct umbra_file *file;
	uint64_t late;
	int fd;

	file_new("f");
	fd = (int)MUST(open("f", O_RDWR));
	file = attach(fd);
	late = late_revokes(fd);
	direct = umbra_mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	MUST(umbra_mmap_error((const void *)(uintptr_t)direct) ? -1 : 0);
	kernel = kernel_map(fd, PROT_READ | PROT_WRITE, MAP_SHARED);
	for (unsigned i = 0; i < 40 && check_failed_count() == 0; i++) {
		check_context("round %u", i);
		direct[i] = i + 1;
		EQ(i + 1, kernel[i]);
		EQ(i + 1, direct_word(file, i));
		kernel[100 + i] = i + 1;
		EQ(i + 1, direct[100 + i]);
		direct_store(file, 200 + i, i + 1);
		EQ(i + 1, kernel[200 + i]);
	}
	EQ(late, late_revokes(fd));
	for (unsigned i = 0; i < 40; i++) {
		EQ(i + 1, direct_word(file, i));
		EQ(i + 1, direct_word(file, 100 + i));
		EQ(i + 1, direct_word(file, 200 + i));
	}
	EQ(0, umbra_munmap((void *)(uintptr_t)direct, BYTES));
	MUST(munmap((void *)(uintptr_t)kernel, BYTES));
	umbra_detach(file);
	close(fd);
}

static const struct check_case cases[] = {
	{ "kernel_stores", case_kernel_stores },
	{ "kernel_reads", case_kernel_reads },
	{ "page_before_open", case_page_before_open },
	{ "same_descriptor", case_same_descriptor },
	{ "open_beside_write", case_open_beside_write },
	{ "all_ways", case_all_ways },
	{ "written_through", case_written_through },
	{ "held", case_held },
	{ "both_in_one", case_both_in_one },
};

CHECK_MAIN(cases)
