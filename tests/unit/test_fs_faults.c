/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Stores that fail, at each place of an operation in turn, and operations that break off in the middle of several transactions: what is
 * in memory has to agree with the media afterwards, and the media with itself.
 */
#include <errno.h>
#include <linux/falloc.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "dax/priv.h" /* a store is refused the way a failed msync() has it */
#include "lib/testfs.h"
#include "media/journal.h"
#include "repair/check.h"
#include "space/space.h"

static struct testfs t;

/* ---- faults ---- */

static struct {
	uint64_t seen;       /* stores since it was armed */
	uint64_t first, end; /* those that fail, counted from 1; 0: none */
	uint64_t record;     /* the journal record of this commit, counted from 1, in all lanes; 0: none */
	uint64_t records, last_seq;
	uint64_t hits;
} fault;

static bool is_record(const void *src, size_t len_bytes, uint64_t *seq)
{
	struct m_record head;

	if (!src || len_bytes < sizeof(head))
		return false;
	memcpy(&head, src, sizeof(head));
	*seq = le64_get(head.rc_seq);
	return le32_get(head.rc_magic) == MAGIC_RECORD;
}

static void fault_store(void *ctx, uint64_t off, const void *src, size_t len_bytes)
{
	bool hit = fault.end != 0 && ++fault.seen >= fault.first && fault.seen < fault.end;
	uint64_t seq;

	(void)ctx;
	(void)off;
	if (fault.record && is_record(src, len_bytes, &seq)) {
		fault.records += seq != fault.last_seq;
		fault.last_seq = seq;
		hit = fault.records == fault.record;
	}
	fault.hits += hit;
	if (t.dax)
		atomic_store(&t.dax->failed, hit);
}

static void fault_zero(void *ctx, uint64_t off, size_t len_bytes)
{
	fault_store(ctx, off, NULL, len_bytes);
}

static void fault_fence(void *ctx)
{
	(void)ctx;
}

static const struct dax_trace trace = { fault_store, fault_zero, fault_fence, NULL };

static void fault_arm(uint64_t first, uint64_t end)
{
	memset(&fault, 0, sizeof(fault));
	fault.first = first;
	fault.end = end;
}

/* Whether any store was refused. */
static bool fault_disarm(void)
{
	uint64_t hits = fault.hits;

	memset(&fault, 0, sizeof(fault));
	atomic_store(&t.dax->failed, false);
	return hits != 0;
}

/* ---- what must hold ---- */

static void found(void *arg, enum check_kind kind, const char *text)
{
	(void)arg;
	if (kind != CHECK_UNIT_COPY && kind != CHECK_UNIT_DIFFERS && kind != CHECK_SUPER)
		fprintf(stderr, "%s: %s\n", check_kind_name(kind), text);
}

static void media_check(void)
{
	struct check_opts opts = { .found = found, .limit = 10 };
	struct check_report report;

	assert_int_equal(check_pool(t.pool, &opts, &report), 0);
	/* A copy that could not be written may be torn or old until its unit is read again: the other one serves. */
	assert_int_equal(report.findings, report.by_kind[CHECK_UNIT_COPY] +
						  report.by_kind[CHECK_UNIT_DIFFERS] +
						  report.by_kind[CHECK_SUPER]);
	assert_int_equal(report.intents, 0);
	assert_int_equal(report.orphans, 0);
}

static struct space_totals totals(void)
{
	struct space_totals sum;

	assert_int_equal(space_totals(t.pool, &sum), 0);
	return sum;
}

/* Counters in memory and on media are the same; a pool that has failed only has to come back whole. */
static void settle(void)
{
	bool failed = pool_failed(t.pool);
	struct space_totals before = { 0 }, after;

	fs_work(t.fs);
	if (!failed)
		before = totals();
	if (failed)
		testfs_crash(&t);
	else
		testfs_remount(&t);
	after = totals();
	fs_work(t.fs); /* what could not be freed before */
	media_check();
	if (failed)
		return;
	assert_int_equal(before.free_blk, after.free_blk);
	assert_int_equal(before.inode_count, after.inode_count);
	assert_int_equal(before.inode_free, after.inode_free);
	assert_int_equal(before.meta_free_units, after.meta_free_units);
}

static void pool_make(uint64_t size_bytes)
{
	struct testfs_opts opts = {
		.size_bytes = size_bytes,
		.format = { .lane_size_bytes = 256u << 10 },
		.trace = &trace,
	};

	fault = (typeof(fault)){ 0 };
	t.dax = NULL;
	testfs_make(&t, &opts);
}

static uint64_t file_make(const char *name)
{
	return testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644);
}

static void fill(uint8_t *buf, uint64_t blk)
{
	for (unsigned i = 0; i < BLOCK_SIZE; i++)
		buf[i] = (uint8_t)(blk * 7 + i * 3 + 1);
}

static void block_write(uint64_t ino, uint64_t blk)
{
	uint8_t buf[BLOCK_SIZE];

	fill(buf, blk);
	assert_int_equal(fs_write(t.fs, &testfs_root, ino, buf, BLOCK_SIZE, blk * BLOCK_SIZE, 0), BLOCK_SIZE);
}

/* Every other block: no two extents can be one. */
static void file_shred(uint64_t ino, unsigned extents)
{
	for (unsigned i = 0; i < extents; i++)
		block_write(ino, 2 * i);
}

/* The block holds what was written as block was_blk; UINT64_MAX: zeroes. */
static void block_expect(uint64_t ino, uint64_t blk, uint64_t was_blk)
{
	uint8_t buf[BLOCK_SIZE], want[BLOCK_SIZE] = { 0 };

	if (was_blk != UINT64_MAX)
		fill(want, was_blk);
	memset(buf, 0, sizeof(buf));
	assert_true(fs_read(t.fs, ino, buf, BLOCK_SIZE, blk * BLOCK_SIZE) >= 0);
	assert_memory_equal(buf, want, BLOCK_SIZE);
}

static int set_size(uint64_t ino, uint64_t size)
{
	struct fs_set set = { .what = FS_SET_SIZE, .size = size };
	struct inode_attr attr;

	return fs_setattr(t.fs, &testfs_root, ino, &set, &attr);
}

/* ---- every store of every operation ---- */

#define SHRED 300u
#define SCENE_SIZE ((size_t)24 << 20)

static uint64_t a_ino, b_ino;
static uint8_t big[100000];

static int do_create(void)
{
	struct inode_attr attr;
	int rc = fs_mknod(t.fs, &testfs_root, INODE_ROOT, "new", 3, S_IFREG | 0644, 0, &attr);

	if (!rc)
		fs_forget(t.fs, attr.ino, 1);
	return rc;
}

static int do_unlink(void)
{
	int rc = testfs_unlink(&t, INODE_ROOT, "a");

	fs_work(t.fs);
	return rc;
}

static int do_rename(void)
{
	return testfs_rename(&t, INODE_ROOT, "a", INODE_ROOT, "b", 0);
}

static int do_write(void)
{
	return (int)fs_write(t.fs, &testfs_root, a_ino, big, sizeof(big), 5000, 0);
}

static int do_overwrite_clone(void)
{
	return (int)fs_write(t.fs, &testfs_root, b_ino, big, sizeof(big), 5000, 0);
}

static int do_truncate(void)
{
	return set_size(a_ino, 4097);
}

static int do_punch(void)
{
	return fs_fallocate(t.fs, &testfs_root, a_ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4097,
			    1000000);
}

static int do_falloc(void)
{
	return fs_fallocate(t.fs, &testfs_root, a_ino, 0, 0, 2 * SHRED * BLOCK_SIZE);
}

static int do_insert(void)
{
	return fs_fallocate(t.fs, &testfs_root, a_ino, FALLOC_FL_INSERT_RANGE, BLOCK_SIZE, 16 * BLOCK_SIZE);
}

static int do_collapse(void)
{
	return fs_fallocate(t.fs, &testfs_root, a_ino, FALLOC_FL_COLLAPSE_RANGE, BLOCK_SIZE, 16 * BLOCK_SIZE);
}

static int do_clone(void)
{
	int64_t n = fs_clone(t.fs, &testfs_root, a_ino, 0, b_ino, 0, 1u << 30, 0, NULL);

	return n < 0 ? (int)n : 0;
}

static int do_clone_files(void)
{
	struct fs_clone_item item = { .src = a_ino, .name = "twin", .name_len = 4 };
	unsigned done;
	int rc = fs_clone_files(t.fs, &testfs_root, INODE_ROOT, &item, 1, &done);
	int looked = testfs_lookup(&t, INODE_ROOT, "twin", NULL);

	assert_int_equal(looked, done ? 0 : -ENOENT);
	return rc;
}

static int do_xattr(void)
{
	return fs_setxattr(t.fs, a_ino, "user.x", big, 60000, 0, false);
}

static const struct {
	const char *name;
	int (*fn)(void);
} calls[] = {
	{ "create", do_create },
	{ "unlink", do_unlink },
	{ "rename", do_rename },
	{ "write", do_write },
	{ "overwrite a clone", do_overwrite_clone },
	{ "truncate", do_truncate },
	{ "punch", do_punch },
	{ "fallocate", do_falloc },
	{ "insert", do_insert },
	{ "collapse", do_collapse },
	{ "clone", do_clone },
	{ "clone files", do_clone_files },
	{ "xattr", do_xattr },
};

/* Journal lanes go by processor: the record of a call is in another one than those that come after it. */
static void processor_use(int n)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(n, &set);
	(void)!sched_setaffinity(0, sizeof(set), &set); /* where there is only one it shows less */
}

static void call_once(unsigned call, uint64_t first, uint64_t end, bool *hit)
{
	int rc;

	processor_use(0);
	fault_arm(first, end);
	rc = calls[call].fn();
	*hit = fault_disarm();
	processor_use(1);
	/* -EUCLEAN: what the journal alone has got cannot be read before the next mount. */
	if (rc < 0 && rc != -EIO && rc != -EROFS && !(rc == -EUCLEAN && pool_failed(t.pool))) {
		fprintf(stderr, "%s with store %llu refused: %d\n", calls[call].name,
			(unsigned long long)first, rc);
		fail();
	}
	/* It works on, unless it says that it does not. */
	if (!pool_failed(t.pool)) {
		assert_int_equal(testfs_mknod(&t, INODE_ROOT, "after", S_IFREG | 0644, NULL), 0);
		assert_int_equal(testfs_unlink(&t, INODE_ROOT, "after"), 0);
	}
	settle();
}

/* The pool as it is before each try. */
static void *scene_make(void)
{
	void *image = malloc(SCENE_SIZE);

	pool_make(SCENE_SIZE);
	memset(big, 0x5a, sizeof(big));
	a_ino = file_make("a");
	b_ino = file_make("b");
	file_shred(a_ino, SHRED);
	assert_true(do_clone() == 0);
	file_make("c");
	fs_work(t.fs);
	testfs_remount(&t);
	memcpy(image, dax_ptr(t.dax, 0), SCENE_SIZE);
	return image;
}

static void stores_sweep(bool all_after)
{
	void *image = scene_make();
	struct testfs_opts opts = t.opts;

	for (unsigned call = 0; call < ARRAY_SIZE(calls); call++) {
		bool hit = true;

		for (uint64_t n = 1, by = 1; hit; n += by, by += n > 8 ? 1 + n / 2 : 0) {
			testfs_free(&t);
			t.dax = NULL;
			testfs_open_image(&t, image, &opts);
			call_once(call, n, all_after ? UINT64_MAX : n + 1, &hit);
		}
	}
	testfs_free(&t);
	free(image);
}

static void test_one_store_fails(void **state)
{
	(void)state;
	stores_sweep(false);
}

static void test_all_stores_fail_from_one_on(void **state)
{
	(void)state;
	stores_sweep(true);
}

/* ---- long operations that break off ---- */

#define LONG 4500u /* extents: several steps */
#define STEPS 3u   /* at least */

/* A truncate that cannot go on: blocks past the end must neither come back nor take newer ones with them at the next mount. */
static void test_truncate_broken_off(void **state)
{
	(void)state;
	for (uint64_t n = 1; n <= STEPS; n++) {
		uint64_t ino;
		bool written;

		pool_make((uint64_t)40 << 20);
		ino = file_make("a");
		file_shred(ino, LONG);
		fault_arm(0, 0);
		fault.record = n;
		assert_int_equal(set_size(ino, BLOCK_SIZE), -EIO);
		assert_true(fault_disarm());
		written = !pool_failed(t.pool);
		if (written) {
			assert_int_equal(set_size(ino, BLOCK_SIZE), 0);
			block_write(ino, 8001);
			block_expect(ino, 10, UINT64_MAX);
			block_expect(ino, 8000, UINT64_MAX);
		}
		settle();
		if (written)
			block_expect(ino, 8001, 8001);
		block_expect(ino, 10, UINT64_MAX);
		testfs_free(&t);
	}
}

/* Who cuts a setuid file and breaks off leaves it cut without the bit, or not cut. */
static void test_truncate_takes_setuid_first(void **state)
{
	struct fs_set mode = { .what = FS_SET_MODE, .mode = 04755 };
	struct fs_set cut = { .what = FS_SET_SIZE | FS_SET_KILLPRIV, .size = BLOCK_SIZE };
	struct inode_attr attr;

	(void)state;
	for (uint64_t n = 1; n <= STEPS; n++) {
		uint64_t ino;

		pool_make((uint64_t)40 << 20);
		ino = file_make("a");
		file_shred(ino, LONG);
		assert_int_equal(fs_setattr(t.fs, &testfs_root, ino, &mode, &attr), 0);
		fault_arm(0, 0);
		fault.record = n;
		assert_int_equal(fs_setattr(t.fs, &testfs_root, ino, &cut, &attr), -EIO);
		assert_true(fault_disarm());
		settle();
		attr = testfs_attr(&t, ino);
		assert_true(attr.size != BLOCK_SIZE || !(attr.mode & S_ISUID));
		testfs_free(&t);
	}
}

/* An insert that cannot go on: the file may not be used while it is half-way, and the next mount finishes it, once. */
static void test_insert_broken_off(void **state)
{
	(void)state;
	for (uint64_t n = 1; n <= STEPS; n++) {
		struct inode_attr attr;
		uint64_t ino, by;

		pool_make((uint64_t)40 << 20);
		ino = file_make("a");
		file_shred(ino, LONG);
		fault_arm(0, 0);
		fault.record = n;
		assert_int_equal(fs_fallocate(t.fs, &testfs_root, ino, FALLOC_FL_INSERT_RANGE, BLOCK_SIZE * 2,
					      BLOCK_SIZE * 6),
				 -EIO);
		assert_true(fault_disarm());
		if (!pool_failed(t.pool))
			block_expect(ino, 0, 0);
		for (unsigned again = 0; again < 2; again++) {
			assert_int_equal(fs_getattr(t.fs, ino, &attr), 0);
			by = attr.size / BLOCK_SIZE - (2 * LONG - 1);
			assert_true(by == 0 || by == 6);
			for (uint64_t i = 1; i < LONG && !pool_failed(t.pool); i += 37)
				block_expect(ino, 2 * i + by, 2 * i);
			settle();
		}
		testfs_free(&t);
	}
}

/* No room for the records of one more clone: no name is left behind, and the error says why. */
static void test_clone_files_full(void **state)
{
	struct fs_clone_item item;
	struct inode_attr attr;
	struct fs_statfs st;
	unsigned done, made = 0;
	char name[16];
	uint64_t ino;
	int rc;

	(void)state;
	pool_make((uint64_t)40 << 20);
	ino = file_make("a");
	file_shred(ino, 1500);
	assert_int_equal(fs_statfs(t.fs, &st), 0);
	assert_int_equal(fs_fallocate(t.fs, &testfs_root, file_make("ballast"), 0, 0,
				      (st.free_blk - 600) * BLOCK_SIZE),
			 0);
	do {
		snprintf(name, sizeof(name), "twin%u", made++);
		item = (struct fs_clone_item){ .src = ino, .name = name, .name_len = strlen(name) };
		rc = fs_clone_files(t.fs, &testfs_root, INODE_ROOT, &item, 1, &done);
	} while (rc == 0 && made < 1000);
	assert_int_equal(rc, -ENOSPC);
	assert_int_equal(done, 0);
	assert_int_equal(testfs_lookup(&t, INODE_ROOT, name, NULL), -ENOENT);
	settle();
	assert_int_equal(testfs_lookup(&t, INODE_ROOT, name, NULL), -ENOENT);
	snprintf(name, sizeof(name), "twin%u", made - 2);
	assert_int_equal(testfs_lookup(&t, INODE_ROOT, name, &attr), 0);
	assert_int_equal(attr.blocks, 1500);
	fs_forget(t.fs, attr.ino, 1);
	testfs_free(&t);
}

/* A file whose attributes take the room that its extents would need: one name after the other, or nothing. */
static void test_clone_files_broken_off(void **state)
{
	struct fs_clone_item items[2];
	struct inode_attr root;
	unsigned done;
	uint64_t ino;
	int rc = -EIO;

	(void)state;
	for (uint64_t n = 1; rc == -EIO; n++) {
		pool_make(SCENE_SIZE);
		ino = file_make("a");
		file_shred(ino, 4);
		assert_int_equal(fs_setxattr(t.fs, ino, "user.x", big, 65536, 0, false), 0);
		assert_int_equal(fs_setxattr(t.fs, ino, "user.y", big, 65536, 0, false), 0);
		items[0] = (struct fs_clone_item){ .src = ino, .name = "one", .name_len = 3 };
		items[1] = (struct fs_clone_item){ .src = ino, .name = "two", .name_len = 3 };
		fault_arm(0, 0);
		fault.record = n;
		rc = fs_clone_files(t.fs, &testfs_root, INODE_ROOT, items, 2, &done);
		assert_int_equal(rc, fault_disarm() ? -EIO : 0);
		assert_int_equal(testfs_lookup(&t, INODE_ROOT, "one", NULL), done > 0 ? 0 : -ENOENT);
		assert_int_equal(testfs_lookup(&t, INODE_ROOT, "two", NULL), done > 1 ? 0 : -ENOENT);
		assert_int_equal(fs_getattr(t.fs, INODE_ROOT, &root), 0);
		assert_int_equal(root.size, 1 + done);
		settle();
		testfs_free(&t);
	}
	assert_int_equal(rc, 0);
}

/* Attributes of all sizes, alone or many: whatever room they leave for the rest, there is a way. */
static void test_clone_files_with_attributes(void **state)
{
	struct fs_clone_item items[2];
	char name[2][16], attr_name[16];
	unsigned done, twins = 0;
	uint64_t ino;

	(void)state;
	pool_make((uint64_t)64 << 20);
	ino = file_make("a");
	file_shred(ino, 2);
	for (unsigned many = 0; many < 12; many++) {
		for (size_t size = 2000; size <= 65536; size += 4540) {
			snprintf(attr_name, sizeof(attr_name), "user.%u", many);
			assert_int_equal(fs_setxattr(t.fs, ino, attr_name, big, size, 0, false), 0);
			for (unsigned i = 0; i < 2; i++) {
				snprintf(name[i], sizeof(name[i]), "twin%u", i);
				items[i] = (struct fs_clone_item){ ino, name[i], strlen(name[i]), 0 };
			}
			assert_int_equal(fs_clone_files(t.fs, &testfs_root, INODE_ROOT, items, 2, &done), 0);
			assert_int_equal(done, 2);
			for (unsigned i = 0; i < 2; i++) {
				assert_int_equal(fs_getxattr(t.fs, items[i].new_ino, attr_name, NULL, 0),
						 size);
				block_expect(items[i].new_ino, 2, 2);
				assert_int_equal(testfs_unlink(&t, INODE_ROOT, name[i]), 0);
			}
			twins += done;
		}
	}
	assert_true(twins > 200);
	settle();
	testfs_free(&t);
}

/* A file can be cut, to whatever size, when there is no room at all. */
static void test_truncate_full(void **state)
{
	struct fs_clone_item item;
	unsigned done, made = 0;
	char name[16];
	uint64_t ino;
	int rc;

	(void)state;
	pool_make((uint64_t)40 << 20);
	ino = file_make("a");
	file_shred(ino, 1500);
	while (fs_fallocate(t.fs, &testfs_root, file_make("ballast"), 0, 0, (uint64_t)512 * BLOCK_SIZE) == 0)
		assert_int_equal(testfs_rename(&t, INODE_ROOT, "ballast", INODE_ROOT,
					       (snprintf(name, sizeof(name), "b%u", made++), name), 0),
				 0);
	do {
		snprintf(name, sizeof(name), "twin%u", made++);
		item = (struct fs_clone_item){ .src = ino, .name = name, .name_len = strlen(name) };
		rc = fs_clone_files(t.fs, &testfs_root, INODE_ROOT, &item, 1, &done);
	} while (rc == 0);
	assert_int_equal(set_size(ino, 700 * BLOCK_SIZE), 0);
	block_expect(ino, 698, 698);
	assert_int_equal(set_size(ino, 4000 * BLOCK_SIZE), 0);
	block_expect(ino, 700, UINT64_MAX);
	settle();
	testfs_free(&t);
}

/* An access time that is not on media yet survives a change of times that fails. */
static void test_atime_after_failed_setattr(void **state)
{
	struct fs_set set = { .what = FS_SET_ATIME, .atime = { 1, 0 } };
	struct inode_attr before, after;
	uint64_t ino;
	char byte;

	(void)state;
	pool_make((uint64_t)40 << 20);
	ino = file_make("a");
	block_write(ino, 0);
	assert_int_equal(fs_ref(t.fs, ino, 0, &before), 0);
	assert_int_equal(fs_read(t.fs, ino, &byte, 1, 0), 1);
	assert_int_equal(fs_getattr(t.fs, ino, &before), 0);
	fault_arm(1, UINT64_MAX);
	assert_int_equal(fs_setattr(t.fs, &testfs_root, ino, &set, &after), -EIO);
	fault_disarm();
	assert_int_equal(fs_getattr(t.fs, ino, &after), 0);
	assert_int_equal(after.atime.s, before.atime.s);
	assert_int_equal(after.atime.ns, before.atime.ns);
	fs_forget(t.fs, ino, 1);
	settle();
	testfs_free(&t);
}

/* Orphans that wait for the background thread when the pool fails do not keep the file system from closing. */
static void test_close_failed_with_orphans(void **state)
{
	struct testfs_opts opts = { .fs = { .background = true } };
	char name[16];

	(void)state;
	testfs_make(&t, &opts);
	for (unsigned i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		file_make(name);
	}
	for (unsigned i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		assert_int_equal(testfs_unlink(&t, INODE_ROOT, name), 0);
	}
	pool_fail(t.pool, "a test says so");
	testfs_crash(&t);
	fs_work(t.fs);
	testfs_remount(&t);
	media_check();
	testfs_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_store_fails),
		cmocka_unit_test(test_all_stores_fail_from_one_on),
		cmocka_unit_test(test_truncate_broken_off),
		cmocka_unit_test(test_truncate_takes_setuid_first),
		cmocka_unit_test(test_insert_broken_off),
		cmocka_unit_test(test_clone_files_full),
		cmocka_unit_test(test_clone_files_broken_off),
		cmocka_unit_test(test_clone_files_with_attributes),
		cmocka_unit_test(test_truncate_full),
		cmocka_unit_test(test_atime_after_failed_setattr),
		cmocka_unit_test(test_close_failed_with_orphans),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
