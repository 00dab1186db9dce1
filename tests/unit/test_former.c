/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A daemon that takes over while processes still have pages of files from the one before: nobody changes what they may have before they have let go, or had their time; and what may be theirs is not
 * handed out. (fs/former.h)
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#include "fs/core.h"
#include "fs/former.h"
#include "lib/testfs.h"

#define POOL_BYTES ((uint64_t)32 << 20)
#define BLOCKS 40u
#define GONE_MOMENTS 20000u /* until they are found to be gone, at most */
#define LOOKS \
	30u /* of the thread that asks whether they are gone: as long as nothing happens all that time it waits */

static struct fs_ledger ledger;
static _Atomic bool there;
static _Atomic unsigned looks, losses;

static bool is_there(void *arg)
{
	(void)arg;
	atomic_fetch_add(&looks, 1);
	return atomic_load(&there);
}

static void lost(void *arg)
{
	(void)arg;
	atomic_fetch_add(&losses, 1);
}

static const struct fs_former waits = { is_there, lost, NULL, 1000000 },
			      waits_not = { is_there, lost, NULL, 0 };

struct scene {
	struct testfs t;
	uint64_t file, other;
	struct fs_extent old; /* where the file lies */
};

static void a_moment(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

static void *shared(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

static uint64_t file_new(struct testfs *t, const char *name)
{
	static uint8_t bytes[BLOCKS * BLOCK_SIZE];
	struct inode_attr attr;

	memset(bytes, name[0], sizeof(bytes));
	assert_int_equal(testfs_mknod(t, INODE_ROOT, name, S_IFREG | 0644, &attr), 0);
	assert_int_equal(fs_write(t->fs, &testfs_root, attr.ino, bytes, sizeof(bytes), 0, 0), sizeof(bytes));
	return attr.ino;
}

/* "file" is held by somebody who may have its blocks, and store to them; then its daemon is gone. */
static void scene_open(struct scene *s, bool store)
{
	const struct testfs_opts opts = { .size_bytes = POOL_BYTES };

	*s = (struct scene){ .file = 0 };
	testfs_make(&s->t, &opts);
	ledger = (struct fs_ledger){ .cell_count = fs_ledger_cells(s->t.pool) };
	ledger.cells = shared(ledger.cell_count * sizeof(*ledger.cells));
	ledger.lent.blk_count = fs_ledger_blocks(s->t.pool);
	ledger.lent.words = shared(ledger.lent.blk_count / 8);
	ledger.lent.pages = shared(ledger.lent.blk_count / 8 / LENT_PAGE + 1);
	s->t.opts.fs.ledger = &ledger;
	testfs_crash(&s->t);
	atomic_store(&there, true);
	s->file = file_new(&s->t, "file");
	s->other = file_new(&s->t, "other");
	assert_int_equal(fs_map(s->t.fs, s->file, 0, &s->old, 1), 1);
	assert_int_equal(s->old.len, BLOCKS * BLOCK_SIZE);
	assert_int_equal(fs_hold(s->t.fs, s->file), 0);
	if (store)
		fs_hold_store(s->t.fs, s->file);
	fs_lent(s->t.fs, s->old.dev_off / BLOCK_SIZE, BLOCKS);
}

static void scene_next(struct scene *s, const struct fs_former *former)
{
	s->t.opts.fs.former = former;
	s->t.opts.fs.background = false;
	atomic_store(&losses, 0);
	testfs_crash(&s->t);
	if (former && former->wait_ms == 0)
		fs_former_wait(s->t.fs, UINT32_MAX);
}

static void scene_close(struct scene *s)
{
	atomic_store(&there, false);
	s->t.opts.fs.former = NULL;
	testfs_check(&s->t);
	testfs_free(&s->t);
	munmap(ledger.cells, ledger.cell_count * sizeof(*ledger.cells));
	munmap(ledger.lent.words, ledger.lent.blk_count / 8);
	munmap(ledger.lent.pages, ledger.lent.blk_count / 8 / LENT_PAGE + 1);
}

static int truncate_to(struct testfs *t, uint64_t ino, uint64_t size)
{
	const struct fs_set set = { .what = FS_SET_SIZE, .size = size };
	struct inode_attr attr;

	return fs_setattr(t->fs, &testfs_root, ino, &set, &attr);
}

/* ---- whoever would change something waits ---- */

struct call {
	struct scene *s;
	int (*fn)(struct scene *s);
	int rc;
	_Atomic bool is_over;
	bool was_there; /* when it was over */
};

static void *call_run(void *arg)
{
	struct call *c = arg;

	c->rc = c->fn(c->s);
	c->was_there = atomic_load(&there);
	atomic_store(&c->is_over, true);
	return NULL;
}

/* Whether it comes to its end while they are there; it does when they are gone. */
static bool is_over_before(struct scene *s, int (*fn)(struct scene *s))
{
	struct call c = { .s = s, .fn = fn };
	unsigned from = atomic_load(&looks);
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, call_run, &c), 0);
	while (!atomic_load(&c.is_over) && atomic_load(&looks) - from < LOOKS)
		a_moment();
	atomic_store(&there, false);
	pthread_join(thread, NULL);
	assert_int_equal(c.rc, 0);
	return c.was_there;
}

static int call_truncate(struct scene *s)
{
	return truncate_to(&s->t, s->file, BLOCK_SIZE);
}

static int call_truncate_other(struct scene *s)
{
	return truncate_to(&s->t, s->other, BLOCK_SIZE);
}

static int call_clone(struct scene *s)
{
	int64_t n = fs_clone(s->t.fs, &testfs_root, s->file, 0, s->other, 0, BLOCK_SIZE, 0, NULL);

	return n < 0 ? (int)n : 0;
}

static int call_page(struct scene *s)
{
	uint8_t byte;

	return fs_read_pages(s->t.fs, s->file, &byte, 1, 0) == 1 ? 0 : -EIO;
}

static int call_read(struct scene *s)
{
	uint8_t byte;

	return fs_read(s->t.fs, s->file, &byte, 1, 0) == 1 ? 0 : -EIO;
}

/* Pages of the kernel that a mapping stores to without a word. */
static int call_open_pages(struct scene *s)
{
	int rc = fs_opened(s->t.fs, s->file, FS_OPEN_WRITE | FS_OPEN_MAP | FS_OPEN_CACHED, &testfs_root);

	if (rc == 0)
		rc = fs_lend_all(s->t.fs, s->file);
	fs_closed(s->t.fs, s->file, FS_OPEN_WRITE | FS_OPEN_MAP | FS_OPEN_CACHED);
	return rc;
}

static int call_store(struct scene *s)
{
	return fs_write(s->t.fs, &testfs_root, s->file, "x", 1, 0, 0) == 1 ? 0 : -EIO;
}

static void test_waits(void **state)
{
	static const struct {
		int (*fn)(struct scene *s);
		bool reader_waits, storer_waits;
	} calls[] = {
		{ call_truncate, true, true },
		{ call_clone, false, true },
		{ call_page, false, true },
		{ call_read, false, false },
		{ call_open_pages, true, true },
		{ call_store, false, false },
		{ call_truncate_other, false, false },
	};

	(void)state;
	for (size_t i = 0; i < 2 * ARRAY_SIZE(calls); i++) {
		bool store = i % 2;
		struct scene s;

		scene_open(&s, store);
		/* The kernel knows it, and may have pages. */
		assert_int_equal(testfs_lookup(&s.t, INODE_ROOT, "file", &(struct inode_attr){ 0 }), 0);
		scene_next(&s, &waits);
		if (is_over_before(&s, calls[i / 2].fn) ==
		    (store ? calls[i / 2].storer_waits : calls[i / 2].reader_waits))
			fail_msg("call %zu, of who only reads or not: %d", i / 2, store);
		assert_int_equal(atomic_load(&losses), 0);
		scene_close(&s);
	}
}

/* ---- blocks ---- */

/* All there is but for the rest that is not for data: how much, and whether any of it is of the file's old blocks. */
static uint64_t fill(struct scene *s, const char *name, bool *of_old)
{
	static uint8_t bytes[64 * BLOCK_SIZE];
	struct fs_extent extents[16];
	uint64_t size = 0, off = 0;
	struct inode_attr attr;
	ssize_t n;
	int count;

	assert_int_equal(testfs_mknod(&s->t, INODE_ROOT, name, S_IFREG | 0644, &attr), 0);
	for (size_t part = sizeof(bytes); part >= BLOCK_SIZE;) {
		n = fs_write(s->t.fs, &testfs_root, attr.ino, bytes, part, size, 0);
		if (n == -ENOSPC)
			part /= 2;
		assert_true(n > 0 || n == -ENOSPC);
		size += n > 0 ? (uint64_t)n : 0;
	}
	*of_old = false;
	while ((count = fs_map(s->t.fs, attr.ino, off, extents, 16)) > 0) {
		for (int i = 0; i < count; i++)
			*of_old |= extents[i].dev_off < s->old.dev_off + s->old.len &&
				   s->old.dev_off < extents[i].dev_off + extents[i].len;
		off = extents[count - 1].file_off + extents[count - 1].len;
	}
	assert_int_equal(count, 0);
	return size;
}

static void unfill(struct scene *s, const char *name)
{
	assert_int_equal(testfs_unlink(&s->t, INODE_ROOT, name), 0);
	fs_work(s->t.fs);
}

static void gone(struct scene *s)
{
	struct fs_statfs before, now;

	assert_int_equal(fs_statfs(s->t.fs, &before), 0);
	atomic_store(&there, false);
	for (unsigned i = 0; i < GONE_MOMENTS; i++) {
		a_moment();
		assert_int_equal(fs_statfs(s->t.fs, &now), 0);
		if (now.free_blk >= before.free_blk + BLOCKS)
			break;
	}
	assert_int_equal(now.free_blk, before.free_blk + BLOCKS);
}

/* Who does not let go keeps what he has; nobody else gets it, and what he may store to is not shared. */
static void test_lost(void **state)
{
	struct scene s;
	bool of_old;

	(void)state;
	scene_open(&s, true);
	scene_next(&s, &waits_not);
	assert_int_equal(atomic_load(&losses), 1);
	assert_int_equal(call_clone(&s), -EBUSY);
	assert_int_equal(fs_clone(s.t.fs, &testfs_root, s.other, 0, s.file, 8 * BLOCK_SIZE, BLOCK_SIZE, 0,
				  NULL),
			 BLOCK_SIZE);
	assert_int_equal(call_page(&s), 0);
	assert_int_equal(truncate_to(&s.t, s.file, 0), 0);
	fill(&s, "full", &of_old);
	assert_false(of_old);
	unfill(&s, "full");
	gone(&s);
	fill(&s, "full", &of_old);
	assert_true(of_old);
	unfill(&s, "full");
	assert_int_equal(fs_clone(s.t.fs, &testfs_root, s.other, 0, s.file, 0, BLOCK_SIZE, 0, NULL),
			 BLOCK_SIZE);
	scene_close(&s);
}

/* Who comes after them is asked to let go, and keeps nobody from sharing what they only read. */
static void test_lost_reader(void **state)
{
	struct scene s;

	(void)state;
	scene_open(&s, false);
	scene_next(&s, &waits_not);
	assert_int_equal(fs_hold(s.t.fs, s.file), 0);
	fs_hold_store(s.t.fs, s.file);
	assert_int_equal(call_clone(&s), 0);
	fs_unhold(s.t.fs, s.file);
	scene_close(&s);
}

/* What was free already, and is not to be used, is so for the next daemon too. */
static void test_free_before(void **state)
{
	struct scene s;
	bool of_old;

	(void)state;
	scene_open(&s, true);
	/* (Nobody was asked, as of one who does not answer.) */
	assert_int_equal(truncate_to(&s.t, s.file, 0), 0);
	for (unsigned i = 0; i < 2; i++) {
		scene_next(&s, &waits_not);
		fill(&s, "full", &of_old);
		assert_false(of_old);
		unfill(&s, "full");
	}
	gone(&s);
	fill(&s, "full", &of_old);
	assert_true(of_old);
	unfill(&s, "full");
	scene_close(&s);
}

/* ---- what is noted ---- */

static uint64_t ways(const struct scene *s)
{
	return atomic_load(&ledger.cells[s->file].ways) & (LEDGER_HELD | LEDGER_STORED);
}

static void test_notes(void **state)
{
	uint64_t lo, hi;
	struct scene s;

	(void)state;
	scene_open(&s, true);
	assert_true(ways(&s) == (LEDGER_HELD | LEDGER_STORED));
	assert_int_equal(fs_hold(s.t.fs, s.file), 0);
	fs_unhold(s.t.fs, s.file);
	assert_true(ways(&s) == (LEDGER_HELD | LEDGER_STORED));
	fs_unhold(s.t.fs, s.file);
	assert_true(ways(&s) == 0);
	assert_int_equal(fs_hold(s.t.fs, s.file), 0);
	/* While there are others nothing is taken back that may be theirs. */
	scene_next(&s, &waits_not);
	assert_int_equal(fs_hold(s.t.fs, s.file), 0);
	fs_lent(s.t.fs, 5000, 100);
	fs_unlent(s.t.fs, 5000, 100);
	fs_unhold(s.t.fs, s.file);
	assert_true(ways(&s) == LEDGER_HELD);
	assert_true(fs_lent_next(s.t.fs, 5000, &lo, &hi) && lo <= 5000 && hi >= 5100);
	/* A daemon that finds nobody begins anew. */
	atomic_store(&there, false);
	scene_next(&s, &waits);
	assert_false(fs_lent_next(s.t.fs, 0, &lo, &hi));
	fs_lent(s.t.fs, 63, 70);
	fs_lent(s.t.fs, 300, 1);
	assert_true(fs_lent_next(s.t.fs, 0, &lo, &hi) && lo == 63 && hi == 133);
	fs_unlent(s.t.fs, 64, 64);
	assert_true(fs_lent_next(s.t.fs, 0, &lo, &hi) && lo == 63 && hi == 64);
	assert_true(fs_lent_next(s.t.fs, hi, &lo, &hi) && lo == 128 && hi == 133);
	assert_true(fs_lent_next(s.t.fs, hi, &lo, &hi) && lo == 300 && hi == 301);
	assert_false(fs_lent_next(s.t.fs, hi, &lo, &hi));
	scene_close(&s);
}

/* ---- what is known of opens, and of pages that the kernel has ---- */

static void open_way(struct scene *s, unsigned flags, unsigned as, enum fs_way way, bool bypasses)
{
	assert_int_equal(fs_opened(s->t.fs, s->file, flags, &testfs_root), 0);
	assert_int_equal(fs_open_way(s->t.fs, s->file, as, way, 0), bypasses);
}

#define CACHED (FS_OPEN_WRITE | FS_OPEN_CACHED)

/* One writes through pages, one bypasses them, and one that did has been closed. */
static void opens_both(struct scene *s)
{
	scene_open(s, true);
	open_way(s, CACHED, FS_OPEN_THROUGH, FS_WAY_CACHED, false);
	open_way(s, CACHED, FS_OPEN_THROUGH, FS_WAY_CACHED, false);
	fs_closed(s->t.fs, s->file, CACHED | FS_OPEN_THROUGH);
	open_way(s, 0, FS_OPEN_BYPASS, FS_WAY_BYPASS, true);
	atomic_store(&there, false);
}

static int take_any(void *arg, const struct fs_piece *pieces, unsigned count, uint64_t size_bytes)
{
	(void)arg;
	(void)pieces;
	(void)size_bytes;
	return count > 0 ? 0 : -ENODATA;
}

static uint64_t ways_counted(const struct scene *s)
{
	return atomic_load(&ledger.cells[s->file].ways) & ~(LEDGER_HELD | LEDGER_STORED);
}

static void test_ways(void **state)
{
	struct fs_grant grant = { .hi_blk = BLOCKS, .write = true, .take = take_any };
	struct scene s;
	uint64_t drop;

	(void)state;
	opens_both(&s);
	scene_next(&s, NULL);
	assert_int_equal(fs_through_opens(s.t.fs, s.file), 1);
	/* Beside both it goes along with who writes through pages. */
	assert_false(fs_open_way(s.t.fs, s.file, FS_OPEN_THROUGH, FS_WAY_WANTS, 0));
	assert_int_equal(fs_through_opens(s.t.fs, s.file), 2);
	fs_open_way_again(s.t.fs, s.file);
	/* Pages that were read before are dropped first. */
	grant.ino = s.file;
	assert_int_equal(fs_hold(s.t.fs, s.file), 0);
	assert_int_equal(fs_grant(s.t.fs, &grant), -ERESTART);
	drop = fs_drop_begin(s.t.fs, s.file);
	fs_drop_end(s.t.fs, s.file, drop);
	assert_int_equal(fs_grant(s.t.fs, &grant), 0);
	fs_unhold(s.t.fs, s.file);
	fs_closed(s.t.fs, s.file, CACHED | FS_OPEN_THROUGH);
	assert_int_equal(fs_through_opens(s.t.fs, s.file), 0);
	/* Who bypasses is known too: a writer who could go either way goes along with him. */
	assert_true(fs_open_way(s.t.fs, s.file, FS_OPEN_THROUGH, FS_WAY_CACHED, 0));
	fs_closed(s.t.fs, s.file, FS_OPEN_BYPASS);
	assert_true(ways_counted(&s) == 0);
	assert_int_equal(atomic_load(&ledger.cells[s.file].opens), 0);
	scene_close(&s);
}

/* More than there is room for: then it is said for as long as the kernel knows the file, and not forgotten too early. */
static void test_ways_many(void **state)
{
	struct scene s;

	(void)state;
	opens_both(&s);
	atomic_fetch_add(&ledger.cells[s.file].ways, LEDGER_THROUGH * (LEDGER_WAY_MAX - 2));
	scene_next(&s, NULL);
	assert_int_equal(fs_through_opens(s.t.fs, s.file), LEDGER_WAY_MAX - 1);
	for (unsigned i = 0; i < 3; i++)
		assert_false(fs_open_way(s.t.fs, s.file, FS_OPEN_THROUGH, FS_WAY_CACHED, 0));
	for (unsigned i = 0; i < 2; i++)
		fs_open_way_again(s.t.fs, s.file);
	assert_true(ways_counted(&s) == LEDGER_WAY_MAX * LEDGER_THROUGH + LEDGER_BYPASS);
	fs_closed(s.t.fs, s.file, CACHED | FS_OPEN_THROUGH);
	fs_closed(s.t.fs, s.file, FS_OPEN_BYPASS);
	scene_close(&s);
}

/* One that counts because of its pages does so as long as the daemon lives that has counted it. */
static void test_paged(void **state)
{
	struct scene s;

	(void)state;
	scene_open(&s, true);
	assert_int_equal(fs_opened(s.t.fs, s.file, 0, &testfs_root), 0);
	fs_cached(s.t.fs, s.file);
	assert_int_equal(fs_cached_opens(s.t.fs, s.file), 1);
	atomic_store(&there, false);
	scene_next(&s, NULL);
	assert_int_equal(fs_cached_opens(s.t.fs, s.file), 0);
	fs_cached(s.t.fs, s.file);
	assert_int_equal(fs_cached_opens(s.t.fs, s.file), 1);
	fs_closed(s.t.fs, s.file, FS_OPEN_PAGED);
	assert_int_equal(fs_cached_opens(s.t.fs, s.file), 0);
	assert_int_equal(atomic_load(&ledger.cells[s.file].cached_opens), 0);
	scene_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_waits),       cmocka_unit_test(test_lost),
		cmocka_unit_test(test_free_before), cmocka_unit_test(test_notes),
		cmocka_unit_test(test_ways),        cmocka_unit_test(test_ways_many),
		cmocka_unit_test(test_paged),       cmocka_unit_test(test_lost_reader),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
