/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Several threads at the same few names: every result must be one that some order of the operations can give, and what is left must be
 * a sound tree without an inode too many.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "lib/testfs.h"
#include "lib/testtree.h"
#include "space/space.h"

#define THREADS 4
#define STEPS 4000
#define DIRS 5
#define NAMES 6

static struct testfs t;
static uint64_t dirs[DIRS]; /* they stay; others come and go below them */

struct job {
	pthread_t thread;
	uint64_t random;
};

static void expect_one_of(const char *what, int rc, const int *allowed)
{
	for (; *allowed; allowed++) {
		if (rc == *allowed)
			return;
	}
	if (rc < 0) {
		fprintf(stderr, "%s gives %d\n", what, rc);
		abort();
	}
}

#define ALLOW(...) ((const int[]){ __VA_ARGS__, 0 })

/* A directory: one of those that stay, or one that is found in it right now. *ref: a reference to give back. */
static uint64_t pick_dir(struct job *j, uint64_t *ref)
{
	uint64_t dir = dirs[testfs_below(&j->random, DIRS)];
	char name[2] = { (char)('a' + testfs_below(&j->random, NAMES)), 0 };
	struct inode_attr attr;

	*ref = 0;
	if (testfs_below(&j->random, 3) || fs_lookup(t.fs, dir, name, 1, &attr))
		return dir;
	*ref = attr.ino;
	return attr.ino;
}

static int read_some(void *arg, const struct fs_dirent *e)
{
	unsigned *left = arg;

	if (*left == 0)
		return 1;
	*left -= 1;
	if (e->attr)
		fs_forget(t.fs, e->ino, 1);
	return 0;
}

static void do_file(struct job *j, uint64_t dir, const char *name)
{
	struct inode_attr attr;
	char byte = 'x';

	if (fs_lookup(t.fs, dir, name, 1, &attr))
		return;
	if (S_ISREG(attr.mode)) {
		expect_one_of("open",
			      fs_opened(t.fs, attr.ino,
					FS_OPEN_WRITE | (testfs_below(&j->random, 2) ? FS_OPEN_TRUNCATE : 0),
					&testfs_root),
			      ALLOW(0));
		expect_one_of("write",
			      (int)fs_write(t.fs, &testfs_root, attr.ino, &byte, 1,
					    testfs_below(&j->random, 9000), 0),
			      ALLOW(0));
		fs_closed(t.fs, attr.ino, FS_OPEN_WRITE);
	}
	fs_forget(t.fs, attr.ino, 1);
}

static void step(struct job *j)
{
	static const unsigned flags[] = { 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE };
	char name[2] = { (char)('a' + testfs_below(&j->random, NAMES)), 0 };
	char other[2] = { (char)('a' + testfs_below(&j->random, NAMES)), 0 };
	uint64_t ref, ref2, dir = pick_dir(j, &ref), dir2 = pick_dir(j, &ref2);
	unsigned left = (unsigned)testfs_below(&j->random, 8);
	struct inode_attr attr;

	switch (testfs_below(&j->random, 9)) {
	case 0:
		expect_one_of("mknod", testfs_mknod(&t, dir, name, S_IFREG | 0644, NULL),
			      ALLOW(-EEXIST, -ENOTDIR, -ENOENT));
		break;
	case 1:
		expect_one_of("mkdir", testfs_mknod(&t, dir, name, S_IFDIR | 0755, NULL),
			      ALLOW(-EEXIST, -ENOTDIR, -ENOENT));
		break;
	case 2:
		expect_one_of("unlink", testfs_unlink(&t, dir, name), ALLOW(-ENOENT, -EISDIR, -ENOTDIR));
		break;
	case 3:
		expect_one_of("rmdir", testfs_rmdir(&t, dir, name), ALLOW(-ENOENT, -ENOTEMPTY, -ENOTDIR));
		break;
	case 4:
	case 5:
		expect_one_of("rename",
			      testfs_rename(&t, dir, name, dir2, other, flags[testfs_below(&j->random, 4)]),
			      ALLOW(-ENOENT, -EEXIST, -EINVAL, -ENOTEMPTY, -EISDIR, -ENOTDIR));
		break;
	case 6:
		if (fs_lookup(t.fs, dir, name, 1, &attr))
			break;
		expect_one_of("link", testfs_link(&t, attr.ino, dir2, other),
			      ALLOW(-EEXIST, -EPERM, -ENOENT, -ENOTDIR));
		fs_forget(t.fs, attr.ino, 1);
		break;
	case 7:
		expect_one_of("readdir", fs_readdir(t.fs, dir, 0, true, read_some, &left), ALLOW(-ENOTDIR));
		break;
	default:
		do_file(j, dir, name);
	}
	if (ref)
		fs_forget(t.fs, ref, 1);
	if (ref2)
		fs_forget(t.fs, ref2, 1);
}

static void *job_main(void *arg)
{
	struct job *j = arg;

	for (unsigned i = 0; i < STEPS; i++)
		step(j);
	return NULL;
}

/* Inodes that have names, each once. */
struct named {
	uint64_t inos[4096];
	unsigned count;
};

static void named_add(void *arg, uint64_t dir, const struct fs_dirent *e)
{
	struct named *n = arg;

	(void)dir;
	for (unsigned i = 0; i < n->count; i++) {
		if (n->inos[i] == e->ino)
			return;
	}
	assert_true(n->count < ARRAY_SIZE(n->inos));
	n->inos[n->count++] = e->ino;
}

/* The tree is sound, and the inodes in use on media are the root and those that have names. */
static void check(void)
{
	struct named *n = calloc(1, sizeof(*n));
	struct space_totals totals;

	testtree_walk(&t, named_add, n);
	fs_work(t.fs);
	assert_int_equal(fs_cached_inodes(t.fs), 0);
	assert_int_equal(space_totals(t.pool, &totals), 0);
	assert_int_equal(totals.inode_count - totals.inode_free, n->count + 1);
	free(n);
}

static void run(const struct testfs_opts *opts)
{
	struct job jobs[THREADS];
	uint64_t random = testfs_seed();
	struct inode_attr attr;
	char name[8];

	testfs_make(&t, opts);
	for (unsigned i = 0; i < DIRS; i++) {
		snprintf(name, sizeof(name), "top%u", i);
		assert_int_equal(testfs_mknod(&t, INODE_ROOT, name, S_IFDIR | 0755, &attr), 0);
		dirs[i] = attr.ino;
		fs_forget(t.fs, attr.ino, 1);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		jobs[i].random = testfs_random(&random);
		assert_int_equal(pthread_create(&jobs[i].thread, NULL, job_main, &jobs[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(jobs[i].thread, NULL);
	check();
	testfs_crash(&t);
	check();
	testfs_free(&t);
}

static void test_one_group(void **state)
{
	(void)state;
	run(&(struct testfs_opts){ .format = { .dir_hash_bits = 7 }, .fs = { .background = true } });
}

static void test_groups_inline_freeing(void **state)
{
	(void)state;
	run(&(struct testfs_opts){ .size_bytes = (uint64_t)128 << 20,
				   .format = { .ag_size_bytes = (uint64_t)16 << 20 } });
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_group),
		cmocka_unit_test(test_groups_inline_freeing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
