/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad memory under file data: blocks of one owner and of many, of none, on a full pool, met by reads and by stores, by several threads, with power
 * loss at every fence of what is done about it.
 */
#include <errno.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "crash/cut.h"
#include "daemon/early.h"
#include "fs/core.h"
#include "fs/owners.h"
#include "lib/testfs.h"
#include "lib/testpoison.h"

#define FILE_BLOCKS 3u
#define FILE_BYTES (FILE_BLOCKS * BLOCK_SIZE)
#define BAD_BLK 1u /* of each file */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MANY_OWNERS 500
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define MANY_OWNERS 500
#endif
#endif
#ifndef MANY_OWNERS
#define MANY_OWNERS 10000
#endif

static struct testfs t;
static struct testpoison *poison;
static uint8_t content[FILE_BYTES];
static uint64_t *owners;
static unsigned owner_count;

static void begin(uint64_t size_bytes)
{
	const struct testfs_opts opts = { .size_bytes = size_bytes };

	testfs_make(&t, &opts);
	poison = testpoison_open(t.dax);
	if (poison)
		return;
	testfs_free(&t);
	skip();
}

static void end(void)
{
	testpoison_close(poison);
	assert_null(pool_failed(t.pool));
	testfs_check(&t);
	testfs_free(&t);
	free(owners);
	owners = NULL;
	owner_count = 0;
}

/* So many files that share their blocks. */
static void owners_make(unsigned count)
{
	owners = calloc(count, sizeof(*owners));
	owner_count = count;
	for (unsigned i = 0; i < FILE_BYTES; i++)
		content[i] = (uint8_t)(i * 31 + i / 256 + 1);
	owners[0] = testfs_node(&t, INODE_ROOT, "0", S_IFREG | 0644);
	assert_int_equal(fs_write(t.fs, &testfs_root, owners[0], content, FILE_BYTES, 0, 0), FILE_BYTES);
	for (unsigned i = 1; i < count;) {
		struct fs_clone_item items[64];
		char names[64][12];
		unsigned n = 0, done;

		for (; n < ARRAY_SIZE(items) && i + n < count; n++) {
			snprintf(names[n], sizeof(names[n]), "%u", i + n);
			items[n] = (struct fs_clone_item){ .src = owners[0], .name = names[n] };
			items[n].name_len = strlen(names[n]);
		}
		assert_int_equal(fs_clone_files(t.fs, &testfs_root, INODE_ROOT, items, n, &done), 0);
		for (unsigned k = 0; k < done; k++)
			owners[i++] = items[k].new_ino;
	}
}

static uint64_t dev_off_of(struct testfs *u, uint64_t ino, uint64_t blk)
{
	struct fs_extent e;

	assert_int_equal(fs_map(u->fs, ino, blk * BLOCK_SIZE, &e, 1), 1);
	return e.dev_off + (blk * BLOCK_SIZE - e.file_off);
}

/* Every line of a file: lost ones cannot be read, all others are as they were. False: not so, with where. */
static bool file_is(struct testfs *u, uint64_t ino, uint64_t lost)
{
	uint8_t line[LINE_SIZE];

	for (uint64_t off = 0; off < FILE_BYTES; off += LINE_SIZE) {
		bool want = off / BLOCK_SIZE != BAD_BLK || !(lost >> (off % BLOCK_SIZE / LINE_SIZE) & 1);
		ssize_t n = fs_read(u->fs, ino, line, LINE_SIZE, off);

		if (n != (want ? (ssize_t)LINE_SIZE : -EIO) ||
		    (want && memcmp(line, content + off, LINE_SIZE) != 0)) {
			print_message("# inode %llu, byte %llu: %zd\n", (unsigned long long)ino,
				      (unsigned long long)off, n);
			return false;
		}
	}
	return true;
}

static void owners_check(struct testfs *u, uint64_t lost)
{
	for (unsigned i = 0; i < owner_count; i++)
		assert_true(file_is(u, owners[i], lost));
}

/* Put back from a copy, for all who share the block; not if the rest of the copy is something else. */
static void test_heal(void **state)
{
	uint8_t block[BLOCK_SIZE], other[BLOCK_SIZE];
	struct fs_healed healed;
	struct fs_extent e;

	(void)state;
	begin(0);
	owners_make(150);
	memcpy(block, content + BLOCK_SIZE, BLOCK_SIZE);
	testpoison_lines(poison, dev_off_of(&t, owners[0], BAD_BLK), 0x8001);
	owners_check(&t, 0x8001);
	/* One has a block of his own by now, and one is whole. */
	assert_int_equal(fs_write(t.fs, &testfs_root, owners[7], block + 640, 64, BLOCK_SIZE + 640, 0), 64);
	assert_int_equal(fs_write(t.fs, &testfs_root, owners[9], block, BLOCK_SIZE, BLOCK_SIZE, 0),
			 BLOCK_SIZE);
	memcpy(other, block, BLOCK_SIZE);
	other[100] ^= 1;
	assert_int_equal(fs_heal(t.fs, owners[3], BLOCK_SIZE, other, &healed), -EBADMSG);
	owners[9] = owners[8];
	owners_check(&t, 0x8001);
	assert_int_equal(fs_heal(t.fs, owners[3], BLOCK_SIZE, block, &healed), 0);
	assert_int_equal(healed.count, 148);
	assert_true(file_is(&t, owners[7], 0x8001));
	assert_int_equal(fs_heal(t.fs, owners[7], BLOCK_SIZE, block, &healed), 0);
	assert_int_equal(healed.count, 1);
	owners_check(&t, 0);
	assert_int_equal(fs_heal(t.fs, owners[3], BLOCK_SIZE, block, &healed), -ENODATA);
	assert_int_equal(fs_heal(t.fs, owners[3], 100, block, &healed), -EINVAL);
	assert_int_equal(fs_map(t.fs, owners[3], BLOCK_SIZE, &e, 1), 1);
	assert_int_equal(e.owners, 148);
	end();
}

/* The line in which one file ends goes on in another: what a copy of the shorter one says of it is not all of it. */
static void test_heal_shorter(void **state)
{
	struct fs_set set = { .what = FS_SET_SIZE, .size = BLOCK_SIZE + 100 };
	uint8_t block[BLOCK_SIZE] = { 0 }, byte;
	struct inode_attr attr;
	struct fs_healed healed;

	(void)state;
	begin(0);
	owners_make(2);
	assert_int_equal(fs_setattr(t.fs, &testfs_root, owners[1], &set, &attr), 0);
	testpoison_lines(poison, dev_off_of(&t, owners[0], BAD_BLK), 0xf);
	assert_true(file_is(&t, owners[0], 0xf));
	memcpy(block, content + BLOCK_SIZE, 100);
	assert_int_equal(fs_heal(t.fs, owners[1], BLOCK_SIZE, block, &healed), 0);
	assert_int_equal(fs_read(t.fs, owners[1], &byte, 1, BLOCK_SIZE + 99), 1);
	assert_int_equal(byte, content[BLOCK_SIZE + 99]);
	assert_true(file_is(&t, owners[0], 0xe));
	/* What it has now is its own: another copy says something else of the same line. */
	memset(block + 64, 1, sizeof(block) - 64);
	memcpy(block + 256, content + BLOCK_SIZE + 256, sizeof(block) - 256);
	assert_int_equal(fs_heal(t.fs, owners[0], BLOCK_SIZE, block, &healed), 0);
	assert_int_equal(fs_read(t.fs, owners[1], &byte, 1, BLOCK_SIZE + 99), 1);
	assert_int_equal(byte, content[BLOCK_SIZE + 99]);
	end();
}

/* A long clone that fails after its first steps has shared blocks for a while: from then on the source is asked for. */
static void test_clone_fails(void **state)
{
	const struct testfs_opts opts = { .size_bytes = (uint64_t)40 << 20, .fs = { .background = false } };
	uint64_t src, other, dst;
	uint8_t block[BLOCK_SIZE];
	uint64_t bytes = 0;
	char name[16];
	int64_t n;

	(void)state;
	testfs_make(&t, &opts);
	memset(block, 1, sizeof(block));
	src = testfs_node(&t, INODE_ROOT, "src", S_IFREG | 0644);
	other = testfs_node(&t, INODE_ROOT, "other", S_IFREG | 0644);
	dst = testfs_node(&t, INODE_ROOT, "dst", S_IFREG | 0644);
	/* One extent for each block, until there is no space for data, then for metadata. */
	while (fs_write(t.fs, &testfs_root, src, block, BLOCK_SIZE, bytes, 0) > 0 &&
	       fs_write(t.fs, &testfs_root, other, block, BLOCK_SIZE, bytes, 0) > 0)
		bytes += 2 * BLOCK_SIZE;
	n = 0;
	for (unsigned i = 0; n >= 0; i++) {
		snprintf(name, sizeof(name), "%u", i);
		n = fs_clone(t.fs, &testfs_root, other, 0, testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644),
			     0, bytes, 0, NULL);
	}
	assert_int_equal(n, -ENOSPC);
	assert_int_equal(fs_clone(t.fs, &testfs_root, src, 0, dst, 0, bytes, 0, NULL), -ENOSPC);
	assert_int_not_equal(testfs_attr(&t, src).flags & INODE_SHARED, 0);
	testfs_check(&t);
	testfs_free(&t);
}

/* A store that ends in the middle of a lost line is cut short before it, whoever meets the bad memory first. */
static void test_store_short(void **state)
{
	enum { OFF = 768, SIZE = BLOCK_SIZE + 1000, STORED = (OFF + SIZE) / 64 * 64 - OFF };
	static uint8_t bytes[SIZE], got[2 * BLOCK_SIZE];

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		uint64_t ino;

		begin(0);
		owners_make(1 + i / 2);
		ino = owners[0];
		memset(bytes, 7, sizeof(bytes));
		testpoison_lines(poison, dev_off_of(&t, ino, BAD_BLK), ~(uint64_t)0);
		if (i % 2)
			assert_int_equal(fs_read(t.fs, ino, got, 1, BLOCK_SIZE), -EIO);
		assert_int_equal(fs_write(t.fs, &testfs_root, ino, bytes, SIZE, OFF, 0), STORED);
		assert_int_equal(fs_write(t.fs, &testfs_root, ino, bytes, 10, OFF + STORED, 0), -EIO);
		assert_int_equal(fs_write(t.fs, &testfs_root, ino, bytes, 100, OFF + STORED + 10, 0), -EIO);
		assert_int_equal(fs_read(t.fs, ino, got, sizeof(got), 0), OFF + STORED);
		assert_memory_equal(got, content, OFF);
		assert_memory_equal(got + OFF, bytes, STORED);
		end();
	}
}

/* More lost blocks in a row than are moved at once. */
static void test_shift_many(void **state)
{
	enum { BLOCKS = 40 };
	static uint8_t bytes[BLOCKS * BLOCK_SIZE];
	uint64_t ino[2];
	uint8_t byte;

	(void)state;
	begin(0);
	memset(bytes, 9, sizeof(bytes));
	for (unsigned i = 0; i < 2; i++) {
		ino[i] = testfs_node(&t, INODE_ROOT, i ? "b" : "a", S_IFREG | 0644);
		assert_int_equal(fs_write(t.fs, &testfs_root, ino[i], bytes, sizeof(bytes), 0, 0),
				 sizeof(bytes));
		for (unsigned blk = 2; blk < BLOCKS; blk++) {
			testpoison_lines(poison, dev_off_of(&t, ino[i], blk), 1);
			assert_int_equal(fs_read(t.fs, ino[i], &byte, 1, blk * BLOCK_SIZE), -EIO);
		}
	}
	assert_int_equal(fs_fallocate(t.fs, &testfs_root, ino[0], FALLOC_FL_COLLAPSE_RANGE, BLOCK_SIZE,
				      BLOCK_SIZE),
			 0);
	assert_int_equal(fs_fallocate(t.fs, &testfs_root, ino[1], FALLOC_FL_INSERT_RANGE, BLOCK_SIZE,
				      3 * BLOCK_SIZE),
			 0);
	for (unsigned blk = 0; blk < BLOCKS - 1; blk++)
		assert_int_equal(fs_read(t.fs, ino[0], &byte, 1, blk * BLOCK_SIZE), blk < 1 ? 1 : -EIO);
	for (unsigned blk = 0; blk < BLOCKS + 3; blk++)
		assert_int_equal(fs_read(t.fs, ino[1], &byte, 1, blk * BLOCK_SIZE), blk < 5 ? 1 : -EIO);
	end();
}

static unsigned told_count;

static void told(void *arg, const struct fs_poison *event)
{
	(void)arg;
	if (event->kind == FS_POISON_DATA)
		told_count++;
}

static double ms_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void owners_of(unsigned count, uint64_t lost)
{
	struct fs_extent e;
	uint64_t dev_off;
	double start;
	uint8_t byte;

	begin((uint64_t)(count > 1000 ? 256 : 24) << 20);
	owners_make(count);
	dev_off = dev_off_of(&t, owners[0], BAD_BLK);
	testpoison_lines(poison, dev_off, lost);
	fs_on_poison(t.fs, told, NULL);
	told_count = 0;
	start = ms_now();
	(void)!fs_read(t.fs, owners[count - 1], &byte, 1, BAD_BLK * BLOCK_SIZE);
	print_message("# %u owners: %.3f ms\n", count, ms_now() - start);
	assert_int_equal(told_count, count);
	owners_check(&t, lost);
	assert_int_not_equal(dev_off_of(&t, owners[0], BAD_BLK), dev_off);
	/* They go on sharing. */
	assert_int_equal(fs_map(t.fs, owners[0], BAD_BLK * BLOCK_SIZE, &e, 1), 1);
	assert_int_equal(e.owners, count);
	/* Who heals does not heal the others. */
	if (count > 1) {
		assert_int_equal(fs_write(t.fs, &testfs_root, owners[1], content + BLOCK_SIZE, BLOCK_SIZE,
					  BLOCK_SIZE, 0),
				 BLOCK_SIZE);
		assert_true(file_is(&t, owners[1], 0));
		assert_true(file_is(&t, owners[0], lost));
		assert_int_equal(testfs_attr(&t, owners[1]).flags & INODE_LOST, 0);
	}
	end();
}

static void test_owners(void **state)
{
	(void)state;
	for (unsigned line = 0; line < 64; line++)
		owners_of(line % 3 + 1, 1ull << line);
	owners_of(1, UINT64_MAX);
	owners_of(2, 0x8000000000000001);
	owners_of(100, 0xff00);
	owners_of(MANY_OWNERS, 2);
}

/* Both copies of an inode's record. */
static void inode_spoil(uint64_t ino)
{
	uint64_t laddr = ino << INODE_SHIFT, off;

	for (unsigned copy = 0; copy < 2; copy++) {
		assert_int_equal(pool_place(t.pool, u64_align_down(laddr, BLOCK_SIZE), copy, &off), 0);
		off += laddr % BLOCK_SIZE;
		memset((uint8_t *)(uintptr_t)dax_ptr(t.dax, off), 0xee, INODE_SIZE);
	}
}

/* One owner cannot be looked at: all others are switched to the new block and told, and nobody waits. */
static void damaged_of(unsigned count, unsigned damaged)
{
	uint64_t dev_off;
	uint8_t byte;

	begin((uint64_t)24 << 20);
	owners_make(count);
	dev_off = dev_off_of(&t, owners[0], BAD_BLK);
	inode_spoil(owners[damaged]);
	testpoison_close(poison);
	testfs_crash(&t);
	poison = testpoison_open(t.dax);
	testpoison_lines(poison, dev_off, 0x10);
	fs_on_poison(t.fs, told, NULL);
	told_count = 0;
	(void)!fs_read(t.fs, owners[damaged == 0 ? 1 : 0], &byte, 1, BAD_BLK * BLOCK_SIZE);
	assert_int_equal(told_count, count - 1);
	for (unsigned i = 0; i < count; i++) {
		if (i != damaged)
			assert_true(file_is(&t, owners[i], 0x10));
		else
			assert_int_equal(fs_read(t.fs, owners[i], &byte, 1, 0), -EUCLEAN);
	}
	testpoison_close(poison);
	assert_null(pool_failed(t.pool));
	testfs_free(&t);
	free(owners);
	owners = NULL;
	owner_count = 0;
}

static void test_damaged(void **state)
{
	(void)state;
	damaged_of(2, 1);
	damaged_of(20, 0);
	damaged_of(20, 7);
	damaged_of(100, 50);
	damaged_of(100, 99);
}

/* A store into a line that is not lost, by the one owner who has not been switched yet. */
struct late {
	uint64_t dev_off;
	bool done;
};

static void store_late(void *arg, const struct fs_poison *event)
{
	struct late *late = arg;
	uint64_t ino = 0;
	unsigned left = 0;

	if (event->kind != FS_POISON_DATA || late->done)
		return;
	for (unsigned i = 0; i < owner_count; i++) {
		if (dev_off_of(&t, owners[i], BAD_BLK) == late->dev_off) {
			ino = owners[i];
			left++;
		}
	}
	if (left != 1)
		return;
	testpoison_heal_all(poison); /* a device loses a line, not the page */
	assert_int_equal(fs_write(t.fs, &testfs_root, ino, "late", 4, BLOCK_SIZE, 0), 4);
	late->done = true;
}

/* How many are switched at once depends on the room for a transaction. */
static void test_store_late(void **state)
{
	uint8_t block[BLOCK_SIZE];
	unsigned hits = 0;

	(void)state;
	for (unsigned count = 2; count < 80; count++) {
		struct late late = { 0 };
		unsigned found = 0;

		begin((uint64_t)24 << 20);
		owners_make(count);
		late.dev_off = dev_off_of(&t, owners[0], BAD_BLK);
		testpoison_lines(poison, late.dev_off, 2);
		fs_on_poison(t.fs, store_late, &late);
		(void)!fs_read(t.fs, owners[0], block, 1, BLOCK_SIZE);
		for (unsigned i = 0; i < owner_count; i++) {
			assert_true(fs_read(t.fs, owners[i], block, LINE_SIZE, BLOCK_SIZE) == LINE_SIZE);
			found += memcmp(block, "late", 4) == 0;
		}
		assert_int_equal(found, late.done);
		hits += late.done;
		end();
	}
	assert_true(hits > 0);
}

/* A block of nobody: the store that meets it gets another one, and nobody ever gets that. */
static void test_nobody(void **state)
{
	uint8_t block[BLOCK_SIZE];
	uint64_t dev_off, ino;
	struct fs_owner owner;
	static const struct fs_owners_pos start;
	unsigned count;

	(void)state;
	begin(0);
	ino = testfs_node(&t, INODE_ROOT, "a", S_IFREG | 0644);
	memset(block, 7, sizeof(block));
	assert_int_equal(fs_write(t.fs, &testfs_root, ino, block, sizeof(block), 0, 0), sizeof(block));
	dev_off = dev_off_of(&t, ino, 0);
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "a"), 0);
	fs_work(t.fs);
	testpoison_page(poison, dev_off);
	ino = testfs_node(&t, INODE_ROOT, "b", S_IFREG | 0644);
	for (unsigned i = 0;; i++) {
		ssize_t n = fs_write(t.fs, &testfs_root, ino, block, sizeof(block), i * sizeof(block), 0);

		if (n == -ENOSPC)
			break;
		assert_int_equal(n, sizeof(block));
	}
	assert_int_equal(fs_owners(t.fs, dev_off, BLOCK_SIZE, &start, &owner, 1, &count), 0);
	assert_int_equal(count, 1);
	assert_true(owner.owner == OWNER_BAD);
	end();
}

/* No block for what can be saved: an error, and later, when there is one, no loss but the lost lines. */
static void test_full(void **state)
{
	uint8_t byte;
	uint64_t ino, fill;
	unsigned i = 0;

	(void)state;
	begin(0);
	owners_make(2);
	ino = owners[1];
	fill = testfs_node(&t, INODE_ROOT, "fill", S_IFREG | 0644);
	while (fs_write(t.fs, &testfs_root, fill, content, BLOCK_SIZE, i++ * BLOCK_SIZE, 0) > 0)
		;
	testpoison_lines(poison, dev_off_of(&t, ino, BAD_BLK), 4);
	(void)!fs_read(t.fs, ino, &byte, 1, BAD_BLK * BLOCK_SIZE);
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "fill"), 0);
	fs_work(t.fs);
	owners_check(&t, 4);
	end();
}

struct reader {
	pthread_t thread;
	unsigned first;
};

static void *reader_run(void *arg)
{
	const struct reader *r = arg;

	for (unsigned i = 0; i < owner_count; i++)
		if (!file_is(&t, owners[(r->first + i) % owner_count], 0x30))
			return arg;
	return NULL;
}

/* The same page from many threads. */
static void test_threads(void **state)
{
	struct reader readers[6];
	void *failed;

	(void)state;
	begin(0);
	owners_make(200);
	testpoison_lines(poison, dev_off_of(&t, owners[0], BAD_BLK), 0x30);
	for (unsigned i = 0; i < ARRAY_SIZE(readers); i++) {
		readers[i].first = i * 33;
		assert_int_equal(pthread_create(&readers[i].thread, NULL, reader_run, &readers[i]), 0);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(readers); i++) {
		pthread_join(readers[i].thread, &failed);
		assert_null(failed);
	}
	end();
}

/* ---- early notice ---- */

/* As the kernel tells a thread that has asked for it: nobody has touched the memory. */
static void early_send(const struct dax *dax, uint64_t off, int lsb)
{
	siginfo_t info = { .si_signo = SIGBUS, .si_code = BUS_MCEERR_AO };

	info.si_addr = (void *)(uintptr_t)dax_ptr(dax, off);
	info.si_addr_lsb = (short)lsb;
	assert_int_equal(syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), SIGBUS, &info), 0);
}

static atomic_uint early_told;

static void told_early(void *arg, const struct fs_poison *event)
{
	(void)arg;
	if (event->kind == FS_POISON_DATA)
		atomic_fetch_add(&early_told, 1);
}

static void test_early(void **state)
{
	struct early *early;
	uint64_t dev_off;

	(void)state;
	begin(0);
	owners_make(4);
	dev_off = dev_off_of(&t, owners[0], BAD_BLK);
	testpoison_lines(poison, dev_off, 1);
	atomic_store(&early_told, 0);
	fs_on_poison(t.fs, told_early, NULL);
	assert_int_equal(early_start(t.fs, &early), 0);
	early_send(t.dax, dev_off, 12);
	while (atomic_load(&early_told) < 4)
		sched_yield();
	owners_check(&t, 1);
	/* Of 2 MiB one page. */
	dev_off = dev_off_of(&t, owners[0], 0);
	testpoison_page(poison, dev_off);
	early_send(t.dax, dev_off, 21);
	while (atomic_load(&early_told) < 8)
		sched_yield();
	early_stop(early);
	for (unsigned i = 0; i < owner_count; i++)
		assert_int_not_equal(dev_off_of(&t, owners[i], 0), dev_off);
	end();
}

/* ---- several on their way ---- */

/* As a crash leaves it: saved, with its forward record, and nobody switched yet. */
static int forward_leave(struct op *op, void *arg)
{
	const uint64_t *dev_off = arg;
	struct dax *dax = pool_dax(op->fs->pool);
	uint64_t old_blk = *dev_off / BLOCK_SIZE, new_blk, count;
	struct space_want want = { .count_blk = 1 };
	struct m_forward rec;
	struct btree bt;

	assert_int_equal(space_alloc(op->tx, &want, &new_blk, &count), 0);
	assert_int_equal(dax_move(dax, new_blk * BLOCK_SIZE, *dev_off, BLOCK_SIZE), 0);
	txn_data_stored(op->tx);
	assert_int_equal(space_own(op->tx, new_blk, 1, OWNER_FORWARD, old_blk), 0);
	assert_int_equal(space_share(op->tx, old_blk, 1, OWNER_BAD, old_blk), 0);
	assert_int_equal(space_ag_tree(op->tx, pool_blk_ag(op->fs->pool, old_blk), AG_FORWARDS, &bt), 0);
	rec = (struct m_forward){
		.fw_old_blk = le64_of(old_blk),
		.fw_new_blk = le64_of(new_blk),
		.fw_lost_lines = le64_of(2),
		.fw_count_blk = le32_of(1),
	};
	return bt_insert(&bt, &rec, sizeof(rec));
}

static void test_resume(void **state)
{
	uint64_t dev_off[FILE_BLOCKS];
	uint8_t byte;

	(void)state;
	testfs_make(&t, NULL);
	owners_make(5);
	for (unsigned i = 0; i < FILE_BLOCKS; i++) {
		dev_off[i] = dev_off_of(&t, owners[0], i);
		assert_int_equal(op_run(t.fs, TXN_WRITE, NULL, forward_leave, &dev_off[i]), 0);
	}
	testfs_crash(&t);
	for (unsigned i = 0; i < owner_count; i++) {
		for (unsigned blk = 0; blk < FILE_BLOCKS; blk++) {
			assert_int_not_equal(dev_off_of(&t, owners[i], blk), dev_off[blk]);
			assert_int_equal(fs_read(t.fs, owners[i], &byte, 1, blk * BLOCK_SIZE + 64), -EIO);
			assert_int_equal(fs_read(t.fs, owners[i], &byte, 1, blk * BLOCK_SIZE + 128), 1);
			assert_int_equal(byte, content[blk * BLOCK_SIZE + 128]);
		}
	}
	testfs_check(&t);
	testfs_free(&t);
	free(owners);
	owners = NULL;
	owner_count = 0;
}

/* ---- power loss ---- */

#define CRASH_BYTES ((uint64_t)24 << 20)

static const struct testfs_opts crash_opts = { .size_bytes = CRASH_BYTES, .trace = &cut_trace };

struct crash {
	uint64_t dev_off, lost;
	unsigned images;
};

/* Opens an image in which the block is as bad as before, and looks at all owners. */
static void image_check(void *arg, const uint8_t *image)
{
	const struct testfs_opts opts = { .size_bytes = CRASH_BYTES };
	struct crash *c = arg;
	struct testpoison *bad;
	struct testfs u;

	testfs_open_image(&u, image, &opts);
	bad = testpoison_open(u.dax);
	assert_non_null(bad);
	testpoison_lines(bad, c->dev_off, c->lost);
	owners_check(&u, c->lost);
	testpoison_close(bad);
	testfs_check(&u);
	testfs_free(&u);
	c->images++;
}

/* The mount that goes on with it is cut short as well. */
static void image_check_twice(void *arg, const uint8_t *image)
{
	struct crash *c = arg;
	struct testfs u;
	struct cut cut;

	image_check(c, image);
	if (c->images % 64 != 1)
		return;
	cut_begin(&cut, image, CRASH_BYTES, CUT_NO_PAGE);
	testfs_open_image(&u, image, &crash_opts);
	cut_end();
	testfs_free(&u);
	cut_images(&cut, image_check, c);
}

static void crash_of(unsigned count, uint64_t lost)
{
	struct crash c = { .lost = lost };
	struct cut cut;
	uint8_t byte;

	testfs_make(&t, &crash_opts);
	poison = testpoison_open(t.dax);
	if (!poison) {
		testfs_free(&t);
		skip();
	}
	owners_make(count);
	c.dev_off = dev_off_of(&t, owners[0], BAD_BLK);
	cut_begin(&cut, dax_ptr(t.dax, 0), CRASH_BYTES, CUT_NO_PAGE);
	for (unsigned line = 0; line < 64; line++)
		if (lost >> line & 1)
			memset(cut.memory + c.dev_off + line * LINE_SIZE, 0xee, LINE_SIZE);
	testpoison_lines(poison, c.dev_off, lost);
	(void)!fs_read(t.fs, owners[0], &byte, 1, BAD_BLK * BLOCK_SIZE);
	cut_end();
	owners_check(&t, lost);
	cut_images(&cut, image_check_twice, &c);
	print_message("# %u owners: %u images\n", count, c.images);
	assert_true(c.images > 8);
	end();
}

static void test_crash(void **state)
{
	(void)state;
	crash_of(1, 0x10);
	crash_of(2, 0x8000000000000001);
	crash_of(70, 0xf0);
}

/* The lines that were lost: still, or what was stored into them; never what the new block had in their place. */
static void image_check_healing(void *arg, const uint8_t *image)
{
	const struct testfs_opts opts = { .size_bytes = CRASH_BYTES };
	struct crash *c = arg;
	uint8_t block[BLOCK_SIZE];
	struct testfs u;
	ssize_t n;

	testfs_open_image(&u, image, &opts);
	n = fs_read(u.fs, owners[0], block, sizeof(block), BAD_BLK * BLOCK_SIZE);
	assert_true(n == -EIO || n == sizeof(block));
	for (ssize_t i = 0; i < n; i++)
		assert_int_equal(block[i], 0xdd);
	testfs_check(&u);
	testfs_free(&u);
	c->images++;
}

static void test_crash_healing(void **state)
{
	struct crash c = { 0 };
	uint8_t block[BLOCK_SIZE];
	struct cut cut;

	(void)state;
	testfs_make(&t, &crash_opts);
	poison = testpoison_open(t.dax);
	if (!poison) {
		testfs_free(&t);
		skip();
	}
	owners_make(1);
	testpoison_page(poison, dev_off_of(&t, owners[0], BAD_BLK));
	assert_true(file_is(&t, owners[0], UINT64_MAX));
	testpoison_heal_all(poison);
	memset(block, 0xdd, sizeof(block));
	cut_begin(&cut, dax_ptr(t.dax, 0), CRASH_BYTES, CUT_NO_PAGE);
	assert_int_equal(fs_write(t.fs, &testfs_root, owners[0], block, sizeof(block), BLOCK_SIZE, 0),
			 sizeof(block));
	cut_end();
	cut_images(&cut, image_check_healing, &c);
	assert_true(c.images > 8);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_owners),      cmocka_unit_test(test_store_late),
		cmocka_unit_test(test_heal),        cmocka_unit_test(test_heal_shorter),
		cmocka_unit_test(test_store_short), cmocka_unit_test(test_shift_many),
		cmocka_unit_test(test_clone_fails), cmocka_unit_test(test_nobody),
		cmocka_unit_test(test_full),        cmocka_unit_test(test_threads),
		cmocka_unit_test(test_early),       cmocka_unit_test(test_resume),
		cmocka_unit_test(test_crash),       cmocka_unit_test(test_crash_healing),
		cmocka_unit_test(test_damaged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
