/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Floor dax: opening, durability, locks, errors, stores and what they do to the memory, the trace of the RAM backend.
 * Guards have a test of their own.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "dax/dax.h"
#include "util/log.h"

#define MIB ((uint64_t)1 << 20)

/* msync() of this program: counts, remembers the last range, fails when told to. */
static unsigned int msync_count;
static const void *msync_addr;
static size_t msync_len;
static int msync_error;

int msync(void *addr, size_t len, int flags)
{
	msync_count++;
	msync_addr = addr;
	msync_len = len;
	if (msync_error) {
		errno = msync_error;
		return -1;
	}
	return (int)syscall(SYS_msync, addr, len, flags);
}

static bool is_in_memory(const char *dir)
{
	struct statfs sfs;

	return statfs(dir, &sfs) == 0 && (sfs.f_type == TMPFS_MAGIC || sfs.f_type == RAMFS_MAGIC);
}

/* A name nobody uses, in /dev/shm or in a directory on a disk; skips the test where there is none of that kind. */
static char *path_make(bool in_memory)
{
	const char *const dirs[] = { "/dev/shm", getenv("TMPDIR"), "/tmp", "/var/tmp", "." };
	static char path[4096];

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		if (!dirs[i] || access(dirs[i], W_OK) || is_in_memory(dirs[i]) != in_memory)
			continue;
		snprintf(path, sizeof(path), "%s/test_dax.%d.pool", dirs[i], (int)getpid());
		unlink(path);
		return path;
	}
	print_message("skipped: no directory %s\n", in_memory ? "on tmpfs" : "on a disk");
	skip();
	return NULL;
}

static struct dax *pool_open(const char *path, const struct dax_opts *opts)
{
	char why[512] = "";
	struct dax *dax = NULL;
	int rc = dax_open(path, opts, &dax, why, sizeof(why));

	if (rc)
		fail_msg("dax_open: %d: %s", rc, why);
	return dax;
}

static struct dax *pool_create(const char *path, uint64_t size_bytes, enum dax_durability durability)
{
	const struct dax_opts opts = { .durability = durability, .create = true, .size_bytes = size_bytes };

	return pool_open(path, &opts);
}

/* The open must fail with rc and a why that is one line, names the path and holds text. */
static void refused(const char *path, const struct dax_opts *opts, int rc, const char *text)
{
	char why[8192] = "";
	struct dax *dax = NULL;

	assert_int_equal(dax_open(path, opts, &dax, why, sizeof(why)), rc);
	assert_null(dax);
	assert_true(strncmp(why, path, strlen(path)) == 0);
	assert_null(strchr(why, '\n'));
	if (!strstr(why, text))
		fail_msg("'%s' does not say '%s'", why, text);
}

static void bytes_fill(uint8_t *buf, size_t len_bytes, unsigned int seed)
{
	for (size_t i = 0; i < len_bytes; i++)
		buf[i] = (uint8_t)((i * 2654435761u >> 13) + seed);
}

/* Stores of many sizes at odd places, moves and zeros, against the same done to plain memory. */
static void stores_check(struct dax *dax)
{
	static const size_t sizes[] = { 1,    7,    8,     63,    64,    65,    255,    256,
					4096, 4097, 16383, 16384, 20001, 65536, 1200000 };
	uint8_t *twin = calloc(1, 4 * MIB);
	uint8_t *src = malloc(2 * MIB);
	uint8_t *got = malloc(4 * MIB);
	bool same = false;
	uint64_t bad;

	assert_true(twin && src && got);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint64_t off = 4096 * i * i * 2 + 13 * (i % 3);

		bytes_fill(src, sizes[i], (unsigned int)i);
		assert_int_equal(dax_store(dax, off, src, sizes[i]), 0);
		memcpy(twin + off, src, sizes[i]);
		assert_int_equal(dax_zero(dax, off + sizes[i] / 2, sizes[i] / 3), 0);
		memset(twin + off + sizes[i] / 2, 0, sizes[i] / 3);
		assert_int_equal(dax_move(dax, off + sizes[i] / 4, off, sizes[i]), 0);
		memmove(twin + off + sizes[i] / 4, twin + off, sizes[i]);
		assert_int_equal(dax_move(dax, 3 * MIB, off, sizes[i] / 2), 0);
		memmove(twin + 3 * MIB, twin + off, sizes[i] / 2);
		assert_int_equal(dax_same(dax, 3 * MIB, off, sizes[i] / 2, &same), 0);
		assert_int_equal(same, memcmp(twin + 3 * MIB, twin + off, sizes[i] / 2) == 0);
		dax_fence(dax);
	}
	assert_int_equal(dax_load(dax, got, 0, 4 * MIB, &bad), 0);
	assert_memory_equal(got, twin, 4 * MIB);
	assert_memory_equal(dax_ptr(dax, 0), twin, 4 * MIB);
	assert_int_equal(dax_store(dax, 4 * MIB, src, 0), 0);
	assert_int_equal(dax_same(dax, 5, 6, 0, &same), 0);
	assert_true(same);
	free(twin);
	free(src);
	free(got);
}

/* The file holds what the mapping shows. */
static void file_check(const char *path, const struct dax *dax)
{
	size_t len = dax_size_bytes(dax);
	uint8_t *got = malloc(len);
	int fd = open(path, O_RDONLY);

	assert_true(got && fd >= 0);
	assert_int_equal(pread(fd, got, len, 0), (ssize_t)len);
	assert_memory_equal(got, dax_ptr(dax, 0), len);
	close(fd);
	free(got);
}

static void stores_of(bool in_memory, enum dax_durability durability, enum dax_durability expected)
{
	char *path = path_make(in_memory);
	struct dax *dax = pool_create(path, 4 * MIB, durability);
	struct dax_opts again = { .durability = DAX_AUTO };

	assert_int_equal(dax_durability(dax), expected);
	assert_false(dax_is_device(dax));
	assert_true(dax_size_bytes(dax) == 4 * MIB);
	assert_int_equal(dax_align_bytes(dax), sysconf(_SC_PAGESIZE));
	assert_true(fcntl(dax_fd(dax), F_GETFD) & FD_CLOEXEC);
	stores_check(dax);
	file_check(path, dax);
	dax_close(dax);
	/* All pages are there now: large stores go another way. */
	dax = pool_open(path, &again);
	assert_int_equal(dax_zero(dax, 0, 4 * MIB), 0);
	stores_check(dax);
	file_check(path, dax);
	dax_close(dax);
	unlink(path);
}

static void stores_tmpfs(void **state)
{
	(void)state;
	stores_of(true, DAX_AUTO, DAX_PROCESS);
	stores_of(true, DAX_FLUSH, DAX_FLUSH);
	stores_of(true, DAX_MSYNC, DAX_MSYNC);
}

static void stores_disk(void **state)
{
	char *path = path_make(false);
	struct dax *dax = pool_create(path, 4 * MIB, DAX_AUTO);
	bool with_dax = dax_durability(dax) == DAX_FLUSH;

	(void)state;
	dax_close(dax);
	unlink(path);
	stores_of(false, DAX_AUTO, with_dax ? DAX_FLUSH : DAX_MSYNC);
	stores_of(false, DAX_PROCESS, DAX_PROCESS);
	stores_of(false, DAX_MSYNC, DAX_MSYNC);
}

static void *store_and_fence(void *ctx)
{
	struct dax *dax = ctx;

	assert_int_equal(dax_store(dax, 8192, "thread", 6), 0);
	assert_int_equal(msync_count, 0);
	dax_fence(dax);
	return NULL;
}

/* One msync() for a fence, from the first to the last store of this thread since its last fence, and none for nothing. */
static void msync_span(void **state)
{
	char *path = path_make(true);
	struct dax *dax = pool_create(path, MIB, DAX_MSYNC);
	const uint8_t *base = dax_ptr(dax, 0);
	static uint8_t big[32768];
	pthread_t thread;

	(void)state;
	msync_count = 0;
	dax_fence(dax);
	assert_int_equal(msync_count, 0);
	assert_int_equal(dax_store(dax, 20000, "abc", 3), 0);
	assert_int_equal(dax_zero(dax, 5000, 1), 0);
	assert_int_equal(dax_move(dax, 9000, 0, 100), 0);
	assert_int_equal(msync_count, 0);
	dax_fence(dax);
	assert_int_equal(msync_count, 1);
	assert_ptr_equal(msync_addr, base + 4096);
	assert_int_equal(msync_len, 20003 - 4096);
	dax_fence(dax);
	assert_int_equal(msync_count, 1);
	assert_int_equal(dax_store(dax, 40960, big, sizeof(big)), 0);
	dax_fence(dax);
	assert_int_equal(msync_count, 2);
	assert_ptr_equal(msync_addr, base + 40960);
	assert_int_equal(msync_len, sizeof(big));
	msync_count = 0;
	assert_int_equal(pthread_create(&thread, NULL, store_and_fence, dax), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(msync_count, 1);
	assert_ptr_equal(msync_addr, base + 8192);
	dax_close(dax);
	unlink(path);
}

/* More pools at once than a thread keeps spans for: still nothing is left out. */
static void msync_many_pools(void **state)
{
	struct dax *pools[7];
	char path[4096];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pools); i++) {
		snprintf(path, sizeof(path), "%s.%zu", path_make(true), i);
		pools[i] = pool_create(path, MIB, DAX_MSYNC);
		unlink(path);
	}
	msync_count = 0;
	for (size_t i = 0; i < ARRAY_SIZE(pools); i++)
		assert_int_equal(dax_store(pools[i], 0, "x", 1), 0);
	for (size_t i = 0; i < ARRAY_SIZE(pools); i++)
		dax_fence(pools[i]);
	assert_int_equal(msync_count, ARRAY_SIZE(pools));
	for (size_t i = 0; i < ARRAY_SIZE(pools); i++) {
		assert_int_equal(dax_store(pools[i], 0, "y", 1), 0);
		dax_close(pools[i]);
	}
}

static void msync_failed(void **state)
{
	char *path = path_make(true);
	struct dax *dax = pool_create(path, MIB, DAX_MSYNC);
	char c;

	(void)state;
	/* The line in the log is expected. */
	log_setup("test_dax", LOG_LEVEL_ERROR, true);
	msync_error = EIO;
	assert_int_equal(dax_store(dax, 0, "x", 1), 0);
	dax_fence(dax);
	msync_error = 0;
	log_setup("test_dax", LOG_LEVEL_ERROR, false);
	assert_int_equal(dax_store(dax, 0, "y", 1), -EIO);
	assert_int_equal(dax_zero(dax, 0, 1), -EIO);
	assert_int_equal(dax_move(dax, 0, 10, 1), -EIO);
	assert_int_equal(dax_load(dax, &c, 0, 1, NULL), 0);
	assert_int_equal(c, 'x');
	dax_close(dax);
	unlink(path);
}

static void discard_punches(void **state)
{
	char *path = path_make(true);
	struct dax *dax = pool_create(path, MIB, DAX_AUTO);
	uint64_t page_bytes = dax_align_bytes(dax);
	static uint8_t ones[1 << 20];
	struct stat before;
	struct stat after;

	(void)state;
	memset(ones, 1, sizeof(ones));
	assert_int_equal(dax_store(dax, 0, ones, sizeof(ones)), 0);
	assert_int_equal(fstat(dax_fd(dax), &before), 0);
	dax_discard(dax, 100, 100);
	dax_discard(dax, page_bytes - 1, 2 * page_bytes + 1);
	assert_int_equal(fstat(dax_fd(dax), &after), 0);
	assert_int_equal((uint64_t)(before.st_blocks - after.st_blocks) * 512, 2 * page_bytes);
	assert_int_equal(after.st_size, before.st_size);
	memset(ones + page_bytes, 0, 2 * page_bytes);
	assert_memory_equal(dax_ptr(dax, 0), ones, sizeof(ones));
	dax_close(dax);
	unlink(path);
}

/* How many pages of [off, off + len) this process has in its page tables. */
static uint64_t pages_present(const struct dax *dax, uint64_t off, uint64_t len)
{
	uint64_t entries[2 * MIB / 4096], count = 0, page = (uintptr_t)dax_ptr(dax, off) / 4096;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0 && len / 4096 <= ARRAY_SIZE(entries));
	assert_int_equal(pread(fd, entries, len / 4096 * 8, (off_t)(page * 8)), len / 4096 * 8);
	close(fd);
	for (uint64_t i = 0; i < len / 4096; i++)
		count += entries[i] >> 63;
	return count;
}

/* Page tables for what there is, behind the back of the program; no memory for holes. */
static void fills(void **state)
{
	const struct dax_opts opts = { .create = true, .size_bytes = 8 * MIB };
	char *path = path_make(true);
	struct dax *dax = pool_open(path, &opts);
	static uint8_t ones[2 << 20];
	struct stat before, after;

	(void)state;
	memset(ones, 1, sizeof(ones));
	assert_int_equal(pwrite(dax_fd(dax), ones, MIB, 0), MIB);
	assert_int_equal(pwrite(dax_fd(dax), ones, sizeof(ones), 5 * MIB), sizeof(ones));
	assert_int_equal(fstat(dax_fd(dax), &before), 0);
	assert_int_equal(pages_present(dax, 5 * MIB, 2 * MIB), 0);
	assert_int_equal(dax_fill(dax), 0);
	for (unsigned ms = 0; pages_present(dax, 5 * MIB, 2 * MIB) < 512; ms++) {
		assert_true(ms < 60000);
		usleep(1000);
	}
	assert_int_equal(pages_present(dax, 0, MIB), 256);
	assert_int_equal(pages_present(dax, 2 * MIB, 2 * MIB), 0);
	assert_int_equal(dax_fill(dax), 0);
	assert_int_equal(fstat(dax_fd(dax), &after), 0);
	assert_int_equal(after.st_blocks, before.st_blocks);
	dax_close(dax);
	/* While it is at work. */
	dax = pool_open(path, &opts);
	assert_int_equal(dax_fill(dax), 0);
	dax_close(dax);
	unlink(path);
}

static void resize_limit_readonly(void **state)
{
	char *path = path_make(true);
	struct dax *dax = pool_create(path, MIB, DAX_AUTO);
	struct dax_opts opts = { .limit_bytes = 5000 };
	struct dax *second;
	struct stat st;
	char c;

	(void)state;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(dax_store(dax, 4999, "z", 1), 0);
	dax_close(dax);
	dax = pool_create(path, 2 * MIB, DAX_AUTO);
	assert_true(dax_size_bytes(dax) == 2 * MIB);
	dax_close(dax);
	dax = pool_create(path, 0, DAX_AUTO);
	assert_true(dax_size_bytes(dax) == 2 * MIB);
	dax_close(dax);
	dax = pool_open(path, &opts);
	assert_int_equal(dax_size_bytes(dax), 5000);
	assert_int_equal(dax_store(dax, 4999, "y", 1), 0);
	dax_close(dax);
	opts = (struct dax_opts){ .readonly = true, .limit_bytes = 8 * MIB };
	dax = pool_open(path, &opts);
	second = pool_open(path, &opts); /* readers share */
	assert_true(dax_is_readonly(dax));
	assert_true(dax_size_bytes(dax) == 2 * MIB);
	assert_int_equal(dax_load(dax, &c, 4999, 1, NULL), 0);
	assert_int_equal(c, 'y');
	dax_close(second);
	dax_close(dax);
	unlink(path);
}

static void lock_refuses(void **state)
{
	const struct dax_opts rw = { .durability = DAX_AUTO };
	const struct dax_opts ro = { .readonly = true };
	const struct dax_opts mk = { .create = true, .size_bytes = MIB };
	char *path = path_make(true);
	struct dax *dax = pool_create(path, 2 * MIB, DAX_AUTO);
	struct stat st;
	int ready[2];
	int status;
	pid_t child;
	char c;

	(void)state;
	dax_close(dax);
	assert_int_equal(pipe(ready), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		char why[64];

		if (dax_open(path, &rw, &dax, why, sizeof(why)) || write(ready[1], "r", 1) != 1)
			_exit(1);
		pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	refused(path, &rw, -EBUSY, ": in use by another umbrafs process");
	refused(path, &ro, -EBUSY, ": in use by another umbrafs process");
	refused(path, &mk, -EBUSY, ": in use by another umbrafs process");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 2 * MIB); /* refused before anything was changed */
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, &status, 0), child);
	close(ready[0]);
	dax = pool_open(path, &rw); /* a dead holder holds nothing */
	dax_close(dax);
	dax = pool_open(path, &ro);
	refused(path, &rw, -EBUSY, "in use");
	dax_close(dax);
	unlink(path);
}

static void errors(void **state)
{
	const struct dax_opts rw = { .durability = DAX_AUTO };
	struct dax_opts mk = { .create = true, .size_bytes = 5000 };
	char *path = path_make(true);
	int fd;

	(void)state;
	refused(path, &rw, -ENOENT, "No such file");
	refused("/dev/shm/no/such/dir", &rw, -ENOENT, "No such file");
	refused("/dev/null/x", &rw, -ENOTDIR, "Not a directory");
	refused("/dev/shm", &rw, -EINVAL, "is a directory");
	refused("/dev/null", &rw, -EINVAL, "character device 1:3 is not a device-DAX node");
	refused(path, &mk, -EINVAL, "not a multiple of 4096");
	assert_int_equal(access(path, F_OK), -1); /* what create made is gone again */
	mk.size_bytes = (uint64_t)INT64_MAX + 1;
	refused(path, &mk, -EFBIG, "too large");
	mk.size_bytes = 0;
	refused(path, &mk, -ENOENT, "No such file");
	assert_int_equal(mkfifo(path, 0600), 0);
	refused(path, &rw, -EINVAL, "neither");
	unlink(path);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	assert_true(fd >= 0);
	refused(path, &rw, -EINVAL, "is empty");
	assert_int_equal(ftruncate(fd, 4097), 0);
	refused(path, &rw, -EINVAL, "4097 bytes, is not a multiple");
	close(fd);
	unlink(path);
}

static void errors_block_device(void **state)
{
	static const char *const paths[] = { "/dev/vda", "/dev/sda", "/dev/nvme0n1", "/dev/loop0",
					     "/dev/ram0" };
	const struct dax_opts ro = { .readonly = true };
	struct stat st;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		if (stat(paths[i], &st) || !S_ISBLK(st.st_mode))
			continue;
		refused(paths[i], &ro, -EINVAL, "ndctl create-namespace --mode=devdax");
		return;
	}
	print_message("skipped: no block device here\n");
	skip();
}

static void errors_permission(void **state)
{
	const struct dax_opts rw = { .durability = DAX_AUTO };
	char *path = path_make(true);
	struct dax *dax = pool_create(path, MIB, DAX_AUTO);
	int status;
	pid_t child;

	(void)state;
	dax_close(dax);
	assert_int_equal(chmod(path, 0400), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		char why[512] = "";

		if (geteuid() == 0 && setuid(65534))
			_exit(1);
		if (dax_open(path, &rw, &dax, why, sizeof(why)) != -EACCES)
			_exit(2);
		_exit(strstr(why, "cannot be opened for reading and writing: Permission denied") ? 0 : 3);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	unlink(path);
}

static void errors_durability(void **state)
{
	const struct dax_opts flush = { .durability = DAX_FLUSH };
	char *path = path_make(false);
	struct dax *dax = pool_create(path, MIB, DAX_AUTO);
	bool with_dax = dax_durability(dax) == DAX_FLUSH;

	(void)state;
	dax_close(dax);
	if (with_dax) {
		unlink(path);
		print_message("skipped: the disk is mounted with DAX\n");
		skip();
	}
	refused(path, &flush, -EOPNOTSUPP, "durability=flush needs a device-DAX node");
	unlink(path);
	assert_string_equal(dax_durability_name(DAX_AUTO), "auto");
	assert_string_equal(dax_durability_name(DAX_FLUSH), "flush");
	assert_string_equal(dax_durability_name(DAX_MSYNC), "msync");
	assert_string_equal(dax_durability_name(DAX_PROCESS), "process");
}

/* The trace as text: what happened, where, how much, what the pool held there before, what was stored. */
struct record {
	struct dax *dax;
	char text[1024];
};

static void record_add(struct record *r, const char *what, uint64_t off, const char *src, size_t len_bytes)
{
	size_t used = strlen(r->text);
	const char *old = dax_ptr(r->dax, off);

	snprintf(r->text + used, sizeof(r->text) - used, "%s %d+%zu was %.*s is %.*s\n", what, (int)off,
		 len_bytes, (int)len_bytes, old, src ? (int)len_bytes : 0, src ? src : "");
}

static void record_store(void *ctx, uint64_t off, const void *src, size_t len_bytes)
{
	record_add(ctx, "store", off, src, len_bytes);
}

static void record_zero(void *ctx, uint64_t off, size_t len_bytes)
{
	record_add(ctx, "zero", off, NULL, len_bytes);
}

static void record_fence(void *ctx)
{
	struct record *r = ctx;

	strcat(r->text, "fence\n");
}

static void ram_trace(void **state)
{
	struct record r = { .text = "" };
	const struct dax_trace trace = { record_store, record_zero, record_fence, &r };
	char *image = calloc(1, 16384);

	(void)state;
	assert_non_null(image);
	memcpy(image, "abcdefgh", 8);
	memset(image + 4096, 'p', 8192);
	assert_int_equal(dax_open_ram(16384, image, &trace, &r.dax), 0);
	assert_memory_equal(dax_ptr(r.dax, 0), image, 16384);
	assert_int_equal(dax_fd(r.dax), -1);
	assert_int_equal(dax_store(r.dax, 2, "XY", 2), 0);
	dax_fence(r.dax);
	assert_int_equal(dax_move(r.dax, 1, 0, 4), 0);
	assert_int_equal(dax_zero(r.dax, 0, 2), 0);
	assert_int_equal(dax_store(r.dax, 9, "Q", 0), 0);
	assert_int_equal(dax_move(r.dax, 5, 5, 2), 0);
	dax_fence(r.dax);
	assert_string_equal(r.text, "store 2+2 was cd is XY\nfence\n"
				    "store 1+4 was bXYe is abXY\nzero 0+2 was aa is \nfence\n");
	assert_memory_equal(dax_ptr(r.dax, 0), "\0\0bXYfgh", 8);
	assert_memory_equal(image, "abcdefgh", 8);
	r.text[0] = '\0';
	dax_discard(r.dax, 8192 - 10, 4096 + 20);
	assert_true(strncmp(r.text, "zero 8192+4096 ", 15) == 0);
	assert_memory_equal((const char *)dax_ptr(r.dax, 8191), "p\0", 2);
	dax_close(r.dax);
	free(image);
}

static void ram_stores(void **state)
{
	struct dax *dax;

	(void)state;
	assert_int_equal(dax_open_ram(4 * MIB, NULL, NULL, &dax), 0);
	assert_false(dax_is_device(dax));
	assert_int_equal(dax_durability(dax), DAX_PROCESS);
	stores_check(dax);
	dax_close(dax);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stores_tmpfs),
		cmocka_unit_test(stores_disk),
		cmocka_unit_test(msync_span),
		cmocka_unit_test(msync_many_pools),
		cmocka_unit_test(msync_failed),
		cmocka_unit_test(discard_punches),
		cmocka_unit_test(fills),
		cmocka_unit_test(resize_limit_readonly),
		cmocka_unit_test(lock_refuses),
		cmocka_unit_test(errors),
		cmocka_unit_test(errors_block_device),
		cmocka_unit_test(errors_permission),
		cmocka_unit_test(errors_durability),
		cmocka_unit_test(ram_trace),
		cmocka_unit_test(ram_stores),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
