/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A file system on a pool in memory.
 */
#include "lib/testfs.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "fs/core.h"
#include "repair/check.h"
#include "repair/repair.h"

#define DEFAULT_SIZE ((uint64_t)64 << 20)

const struct fs_cred testfs_root = { .kill_priv_exempt = true };

static void stop(const char *what, int rc, const char *why)
{
	fprintf(stderr, "testfs: %s: %s %s\n", what, strerror(-rc), why);
	abort();
}

static void open_floors(struct testfs *t)
{
	struct pool_opts pool_opts = { .readonly = t->opts.fs.readonly };
	char why[256] = "";
	int rc = pool_open(t->dax, &pool_opts, &t->pool, why, sizeof(why));

	if (rc)
		stop("pool_open", rc, why);
	rc = fs_open(t->pool, &t->opts.fs, &t->fs);
	if (rc)
		stop("fs_open", rc, "");
}

static void close_floors(struct testfs *t, bool clean)
{
	fs_close(t->fs);
	pool_close(t->pool, clean);
}

void testfs_open_image(struct testfs *t, const void *image, const struct testfs_opts *opts)
{
	int rc;

	*t = (struct testfs){ 0 };
	if (opts)
		t->opts = *opts;
	if (!t->opts.size_bytes)
		t->opts.size_bytes = DEFAULT_SIZE;
	rc = dax_open_ram(t->opts.size_bytes, image, t->opts.trace, &t->dax);
	if (rc)
		stop("dax_open_ram", rc, "");
	open_floors(t);
}

void testfs_make(struct testfs *t, const struct testfs_opts *opts)
{
	struct testfs_opts o = { 0 };
	char why[256] = "";
	struct dax *dax;
	int rc;

	if (opts)
		o = *opts;
	if (!o.size_bytes)
		o.size_bytes = DEFAULT_SIZE;
	rc = dax_open_ram(o.size_bytes, NULL, NULL, &dax);
	if (rc)
		stop("dax_open_ram", rc, "");
	rc = pool_format(dax, &o.format, NULL, why, sizeof(why));
	if (rc)
		stop("pool_format", rc, why);
	if (o.trace) {
		testfs_open_image(t, dax_ptr(dax, 0), &o);
		dax_close(dax);
		return;
	}
	*t = (struct testfs){ .opts = o, .dax = dax };
	open_floors(t);
}

void testfs_free(struct testfs *t)
{
	close_floors(t, true);
	dax_close(t->dax);
}

void testfs_remount(struct testfs *t)
{
	close_floors(t, true);
	open_floors(t);
}

void testfs_crash(struct testfs *t)
{
	struct testfs old = *t;

	work_stop(old.fs); /* a copy is no moment in time while somebody stores */
	testfs_open_image(t, dax_ptr(old.dax, 0), &old.opts);
	close_floors(&old, false);
	dax_close(old.dax);
}

static void found(void *arg, enum check_kind kind, const char *text)
{
	(void)arg;
	fprintf(stderr, "testfs: %s: %s\n", check_kind_name(kind), text);
}

void testfs_check(struct testfs *t)
{
	struct check_opts opts = { .found = found, .limit = 5 };
	struct check_report report;
	int rc;

	work_stop(t->fs);
	rc = check_pool(t->pool, &opts, &report);
	if (rc)
		stop("check_pool", rc, "");
	if (report.findings)
		stop("check_pool", -EUCLEAN, "see above");
	rc = work_start(t->fs);
	if (rc)
		stop("work_start", rc, "");
}

static bool may_nothing(void *arg, enum repair_part part, bool safe, const char *what)
{
	(void)arg;
	(void)part;
	(void)safe;
	(void)what;
	return false;
}

void testfs_check_image(const void *image, uint64_t size_bytes)
{
	struct repair_opts opts = { .found = found, .limit = 5, .may = may_nothing, .force = true };
	struct repair_report report;
	char why[256] = "";
	struct dax *dax;
	int rc = dax_open_ram(size_bytes, image, NULL, &dax);

	if (rc)
		stop("dax_open_ram", rc, "");
	rc = repair_pool(dax, &opts, &report, why, sizeof(why));
	if (rc)
		stop("repair_pool", rc, why);
	/* The superblock is written without a journal, one copy and then the other. */
	if (report.before.findings != report.before.by_kind[CHECK_SUPER])
		stop("repair_pool", -EUCLEAN, "see above");
	dax_close(dax);
}

/* Gives the reference back if the caller does not want the inode. */
static int referenced(struct testfs *t, int rc, const struct inode_attr *got, struct inode_attr *attr)
{
	if (rc)
		return rc;
	if (attr)
		*attr = *got;
	else
		fs_forget(t->fs, got->ino, 1);
	return 0;
}

int testfs_mknod(struct testfs *t, uint64_t dir, const char *name, uint32_t mode, struct inode_attr *attr)
{
	struct inode_attr got;
	int rc = fs_mknod(t->fs, &testfs_root, dir, name, strlen(name), mode, 0, &got);

	return referenced(t, rc, &got, attr);
}

int testfs_lookup(struct testfs *t, uint64_t dir, const char *name, struct inode_attr *attr)
{
	struct inode_attr got;
	int rc = fs_lookup(t->fs, dir, name, strlen(name), &got);

	return referenced(t, rc, &got, attr);
}

int testfs_link(struct testfs *t, uint64_t ino, uint64_t dir, const char *name)
{
	struct inode_attr got;
	int rc = fs_link(t->fs, ino, dir, name, strlen(name), &got);

	return referenced(t, rc, &got, NULL);
}

int testfs_unlink(struct testfs *t, uint64_t dir, const char *name)
{
	return fs_unlink(t->fs, dir, name, strlen(name));
}

int testfs_rmdir(struct testfs *t, uint64_t dir, const char *name)
{
	return fs_rmdir(t->fs, dir, name, strlen(name));
}

int testfs_rename(struct testfs *t, uint64_t dir, const char *name, uint64_t new_dir, const char *new_name,
		  unsigned flags)
{
	return fs_rename(t->fs, &testfs_root, dir, name, strlen(name), new_dir, new_name, strlen(new_name),
			 flags);
}

uint64_t testfs_node(struct testfs *t, uint64_t dir, const char *name, uint32_t mode)
{
	struct inode_attr attr;
	int rc = testfs_mknod(t, dir, name, mode, &attr);

	if (rc)
		stop("fs_mknod", rc, name);
	fs_forget(t->fs, attr.ino, 1);
	return attr.ino;
}

struct inode_attr testfs_attr(struct testfs *t, uint64_t ino)
{
	struct inode_attr attr;
	int rc = fs_getattr(t->fs, ino, &attr);

	if (rc)
		stop("fs_getattr", rc, "");
	return attr;
}

/* UMBRA_TEST_ONLY=PATTERN: of a program's tests only those whose names match, with ! before it all others. */
__attribute__((constructor)) static void tests_pick(void)
{
	const char *pattern = getenv("UMBRA_TEST_ONLY");

	if (pattern && *pattern == '!')
		cmocka_set_skip_filter(pattern + 1);
	else if (pattern)
		cmocka_set_test_filter(pattern);
}

uint64_t testfs_seed(void)
{
	const char *given = getenv("UMBRA_SEED");
	struct timespec now;
	uint64_t seed;

	clock_gettime(CLOCK_REALTIME, &now);
	seed = given ? strtoull(given, NULL, 0) : (uint64_t)now.tv_nsec ^ (uint64_t)now.tv_sec << 20;
	printf("# UMBRA_SEED=%llu\n", (unsigned long long)seed);
	fflush(stdout);
	return seed;
}

uint64_t testfs_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

uint64_t testfs_below(uint64_t *state, uint64_t limit)
{
	return testfs_random(state) % limit;
}
