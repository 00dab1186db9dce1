/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How long a read takes that meets bad memory, until all owners of the block are switched, durable, and told of it.
 *
 *	bench_poison OWNERS	prints {"wall_ns": N}, the median of some; status 3: no bad memory can be made here
 *
 * On a pool in memory, by calls of floor fs: no kernel, no FUSE.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "lib/testfs.h"
#include "lib/testpoison.h"

#define ROUNDS 15u
#define AT_ONCE 64u

static unsigned told_count;

static void told(void *arg, const struct fs_poison *event)
{
	(void)arg;
	told_count += event->kind == FS_POISON_DATA;
}

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "bench_poison: %s\n", what);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void clones_make(struct testfs *t, uint64_t src, unsigned count)
{
	struct fs_clone_item items[AT_ONCE];
	char names[AT_ONCE][16];
	unsigned done;

	for (unsigned made = 0; made < count; made += done) {
		unsigned n = 0;

		for (; n < AT_ONCE && made + n < count; n++) {
			items[n] = (struct fs_clone_item){ .src = src, .name = names[n] };
			items[n].name_len = (size_t)snprintf(names[n], sizeof(names[n]), "%u", made + n);
		}
		must(fs_clone_files(t->fs, &testfs_root, INODE_ROOT, items, n, &done) == 0, "clone");
	}
}

static uint64_t round_ns(unsigned owners)
{
	const struct testfs_opts opts = { .size_bytes = (uint64_t)(owners > 1000 ? 256 : 24) << 20 };
	static const uint8_t bytes[3 * BLOCK_SIZE] = { 1 };
	struct testpoison *poison;
	struct fs_extent e;
	struct testfs t;
	uint64_t ino, start;
	uint8_t byte;

	testfs_make(&t, &opts);
	poison = testpoison_open(t.dax);
	if (!poison)
		exit(3);
	ino = testfs_node(&t, INODE_ROOT, "file", S_IFREG | 0644);
	must(fs_write(t.fs, &testfs_root, ino, bytes, sizeof(bytes), 0, 0) == sizeof(bytes), "write");
	clones_make(&t, ino, owners - 1);
	must(fs_map(t.fs, ino, 0, &e, 1) == 1, "map");
	testpoison_lines(poison, e.dev_off + BLOCK_SIZE, 2);
	fs_on_poison(t.fs, told, NULL);
	told_count = 0;
	start = now_ns();
	must(fs_read(t.fs, ino, &byte, 1, BLOCK_SIZE) == 1, "read beside what is lost");
	start = now_ns() - start;
	must(told_count == owners, "not all were told");
	testpoison_close(poison);
	testfs_free(&t);
	return start;
}

static int in_order(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

int main(int argc, char **argv)
{
	unsigned owners = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 0) : 0,
		 rounds = owners > 1000 ? 3 : ROUNDS;
	uint64_t ns[ROUNDS];

	must(owners > 0, "how many owners?");
	for (unsigned i = 0; i < rounds; i++)
		ns[i] = round_ns(owners);
	qsort(ns, rounds, sizeof(ns[0]), in_order);
	printf("{\"wall_ns\": %llu}\n", (unsigned long long)ns[rounds / 2]);
	return 0;
}
