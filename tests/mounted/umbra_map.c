/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mappings of libumbra: what is stored through them is what the kernel's calls see, and in one of many clones it is in that one alone.
 */
#define _GNU_SOURCE
#include "check.h"
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <umbra/umbra.h>

#define BLOCK 4096u
#define CLONES 6u
#define PROCESSES 3u
#define BLOCKS 512u
#define BYTES ((size_t)BLOCKS * BLOCK)
#define WORDS (BLOCK / 8)

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

static uint64_t *map(int fd, size_t len)
{
	struct umbra_file *file = attach(fd);
	void *at = umbra_mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);

	EQ(0, umbra_mmap_error(at));
	MUST(umbra_mmap_error(at) ? -1 : 0);
	umbra_detach(file);
	return at;
}

static void words_write(const char *name, size_t len)
{
	static uint64_t words[BYTES / 8];
	int fd = (int)MUST(open(name, O_RDWR | O_CREAT | O_TRUNC, 0644));

	for (size_t i = 0; i < len / 8; i++)
		words[i] = i;
	EQ(len, pwrite(fd, words, len, 0));
	close(fd);
}

static const char *clone_name(unsigned i)
{
	static char name[16];

	snprintf(name, sizeof(name), "c%u", i);
	return name;
}

static void case_both_ways(void)
{
	static uint64_t read[BYTES / 8];
	uint64_t *at;
	int fd;

	words_write("f", BYTES);
	fd = (int)MUST(open("f", O_RDWR));
	at = map(fd, BYTES);
	for (size_t i = 0; i < BYTES / 8; i++)
		if (!EQ(i, at[i]))
			break;
	for (size_t i = 0; i < BYTES / 8; i += 100)
		at[i] = ~i;
	EQ(0, umbra_msync(at, BYTES, MS_SYNC));
	close(fd);
	fd = (int)MUST(open("f", O_RDWR));
	EQ(BYTES, pread(fd, read, BYTES, 0));
	MEMEQ(at, read, BYTES);
	read[7] = 1234;
	EQ(8, pwrite(fd, &read[7], 8, 56));
	EQ(1234, at[7]);
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2 * BLOCK));
	EQ(0, at[7]);
	EQ(0, umbra_munmap(at, BYTES));
	close(fd);
}

/* One process of several: words of its own in all blocks of all clones, in an order of its own. */
static void storer(void *arg)
{
	unsigned index = *(unsigned *)arg;
	uint64_t *at[CLONES], number = check_seed() + index * 977 + 1;
	struct umbra_counts counts;
	unsigned *order = calloc(BLOCKS * CLONES, sizeof(*order));

	MUST(order ? 0 : -1);
	for (unsigned i = 0; i < CLONES; i++) {
		int fd = (int)MUST(open(clone_name(i), O_RDWR));

		at[i] = map(fd, BYTES);
		close(fd);
	}
	for (unsigned i = 0; i < BLOCKS * CLONES; i++) {
		unsigned j;

		number = number * 6364136223846793005ull + 1442695040888963407ull;
		j = (unsigned)(number >> 33) % (i + 1);
		order[i] = order[j];
		order[j] = i;
	}
	for (unsigned i = 0; i < BLOCKS * CLONES; i++) {
		unsigned clone = order[i] % CLONES, block = order[i] / CLONES;

		at[clone][block * WORDS + index] = (uint64_t)(clone + 1) << 32 | index << 16 | block;
	}
	for (unsigned i = 0; i < CLONES; i++)
		EQ(0, umbra_munmap(at[i], BYTES));
	/* Not by the kernel. */
	umbra_get_counts(&counts);
	TRUE(counts.maps > CLONES);
	free(order);
}

static void clone_is_right(unsigned clone)
{
	static uint64_t words[BYTES / 8];
	int fd = (int)MUST(open(clone_name(clone), O_RDONLY));

	EQ(BYTES, pread(fd, words, BYTES, 0));
	close(fd);
	for (unsigned i = 0; i < BYTES / 8; i++) {
		unsigned block = i / WORDS, index = i % WORDS;
		uint64_t want = index < PROCESSES ? (uint64_t)(clone + 1) << 32 | index << 16 | block : i;

		if (!EQ(want, words[i]))
			return;
	}
}

static void clone_make(const char *name)
{
	int from = (int)MUST(open("f", O_RDONLY)), to = (int)MUST(open(name, O_RDWR | O_CREAT, 0644));
	off_t a = 0, b = 0;

	EQ(BYTES, copy_file_range(from, &a, to, &b, BYTES, 0));
	close(from);
	close(to);
}

/* Beside them other clones of the same blocks are made, cut off, punched and unlinked. */
static void case_all_copies(void)
{
	unsigned indices[PROCESSES];
	pid_t pids[PROCESSES];

	words_write("f", BYTES);
	for (unsigned i = 0; i < CLONES; i++)
		clone_make(clone_name(i));
	for (unsigned i = 0; i < PROCESSES; i++) {
		indices[i] = i;
		pids[i] = child_start(storer, &indices[i]);
	}
	for (unsigned i = 0; i < 20 && check_failed_count() == 0; i++) {
		int fd;

		clone_make("other");
		fd = (int)MUST(open("other", O_RDWR));
		OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, i * BLOCK, 9 * BLOCK));
		OK(ftruncate(fd, (off_t)(BYTES / 2 + i)));
		OK(unlink("other"));
		close(fd);
	}
	for (unsigned i = 0; i < PROCESSES; i++)
		child_wait(pids[i]);
	for (unsigned i = 0; i < CLONES; i++)
		clone_is_right(i);
}

/* Takes away what is in place, and the right to store, again and again. */
static void disturber(void *arg)
{
	volatile bool *stop = arg;

	for (unsigned i = 0; !*stop; i++) {
		clone_make("other");
		OK(unlink("other"));
	}
}

/* A buffer is a mapping, of the same file or of another one. */
static void buffers(const char *from, const char *to, uint64_t *at, unsigned rounds)
{
	int fd = (int)MUST(open(from, O_RDWR)), out = (int)MUST(open(to, O_RDWR));
	struct umbra_file *in = attach(fd), *file = attach(out);
	static uint64_t words[BYTES / 8];

	for (unsigned i = 0; i < rounds && check_failed_count() == 0; i++) {
		size_t size = 1 + (i * 7919 * 31) % (BYTES / 2);
		uint64_t lo = (i * 104729) % (BYTES - size);

		/* From the file into the mapping, and back from there. */
		EQ(size, umbra_pread(in, (uint8_t *)at + lo, size, (off_t)lo));
		EQ(size, umbra_pwrite(file, (uint8_t *)at + lo, size, (off_t)lo));
		EQ(size, pread(out, words, size, (off_t)lo));
		MEMEQ((uint8_t *)at + lo, words, size);
	}
	EQ(-EFAULT, umbra_pread(in, at + BYTES / 8, 100, 0));
	EQ(0, umbra_pread(in, at, 0, 0));
	EQ(0, umbra_pread(in, at, 100, BYTES));
	umbra_detach(file);
	umbra_detach(in);
	close(out);
	close(fd);
}

static void case_buffers(void)
{
	bool *stop = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t *at, *none;
	pid_t pid;
	int fd;

	words_write("f", BYTES);
	words_write("g", BYTES);
	fd = (int)MUST(open("f", O_RDWR));
	at = map(fd, BYTES + BLOCK);
	close(fd);
	buffers("g", "g", at, 20);
	buffers("f", "g", at, 20);
	pid = child_start(disturber, stop);
	buffers("g", "g", at, 300);
	buffers("f", "f", at, 300);
	*stop = true;
	child_wait(pid);
	for (size_t i = 0; i < BYTES / 8; i++)
		if (!EQ(i, at[i]))
			break;
	/* It may be read only. */
	fd = (int)MUST(open("f", O_RDONLY));
	{
		struct umbra_file *file = attach(fd);

		none = umbra_mmap(NULL, BLOCK, PROT_READ, MAP_SHARED, file, 0);
		EQ(0, umbra_mmap_error(none));
		EQ(-EFAULT, umbra_pread(file, none, 100, 0));
		EQ(0, umbra_munmap(none, BLOCK));
		umbra_detach(file);
	}
	close(fd);
	EQ(0, umbra_munmap(at, BYTES + BLOCK));
}

static const struct check_case cases[] = {
	{ "all_copies", case_all_copies },
	{ "both_ways", case_both_ways },
	{ "buffers", case_buffers },
};

CHECK_MAIN(cases)
