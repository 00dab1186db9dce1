/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad memory that comes back into use, with power loss at every fence of that, and the device's own list of it, read by the daemon's
 * thread: one that stands in. The kernel's: test_badblocks_sysfs.c.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "crash/cut.h"
#include "daemon/badblocks.h"
#include "dax/badblocks.h"
#include "fs/core.h"
#include "fs/owners.h"
#include "lib/testfs.h"
#include "lib/testpoison.h"

#define FILE_BLOCKS 8u
#define FILE_BYTES (FILE_BLOCKS * BLOCK_SIZE)
#define RANGES_MAX 6000u
#define NO_LOOK 3600000 /* ms: only when it is told to */

static struct testfs t;
static struct testpoison *poison;
static uint8_t content[FILE_BYTES];

static struct {
	atomic_uint lost, moved, unused, meta;
} told;

static void on_poison(void *arg, const struct fs_poison *event)
{
	(void)arg;
	if (event->kind == FS_POISON_DATA)
		atomic_fetch_add(event->lost_lines ? &told.lost : &told.moved, 1);
	else if (event->kind == FS_POISON_FREE)
		atomic_fetch_add(&told.unused, 1);
	else if (event->kind == FS_POISON_META)
		atomic_fetch_add(&told.meta, 1);
}

/* ---- a list that stands in ---- */

enum clearing { CLEAR_WORKS, CLEAR_FAILS, CLEAR_LIES };

static struct {
	pthread_mutex_t lock;
	struct dax_bad ranges[RANGES_MAX];
	unsigned count;
	int error;
	enum clearing clearing;
	atomic_uint looks, clears;
	int send_fd, fd; /* a byte out of band tells that it has changed */
} device = { .lock = PTHREAD_MUTEX_INITIALIZER, .send_fd = -1, .fd = -1 };

static int device_list(void *ctx, dax_badblock_fn fn, void *arg)
{
	char byte;
	int rc;

	(void)ctx;
	if (device.fd >= 0)
		(void)!recv(device.fd, &byte, 1, MSG_OOB | MSG_DONTWAIT);
	pthread_mutex_lock(&device.lock);
	rc = device.error;
	for (unsigned i = 0; i < device.count && !rc; i++)
		rc = fn(arg, device.ranges[i].off, device.ranges[i].len);
	pthread_mutex_unlock(&device.lock);
	atomic_fetch_add(&device.looks, 1);
	return rc;
}

static int device_clear(void *ctx, uint64_t off, uint64_t len_bytes)
{
	(void)ctx;
	if (off % BLOCK_SIZE != 0 || len_bytes != BLOCK_SIZE)
		abort(); /* in another thread */
	atomic_fetch_add(&device.clears, 1);
	if (device.clearing == CLEAR_FAILS)
		return -EIO;
	if (device.clearing == CLEAR_WORKS && poison)
		testpoison_heal(poison, off);
	return 0;
}

static int device_fd(void *ctx)
{
	(void)ctx;
	return device.fd;
}

static const struct dax_badblocks_ops device_ops = { device_list, device_clear, device_fd, NULL };
static const struct dax_badblocks_ops list_ops = { .list = device_list };

static void list_set(const struct dax_bad *ranges, unsigned count, int error)
{
	pthread_mutex_lock(&device.lock);
	device.count = count;
	device.error = error;
	for (unsigned i = 0; i < count; i++)
		device.ranges[i] = ranges[i];
	pthread_mutex_unlock(&device.lock);
}

static void list_one(uint64_t off, uint64_t len)
{
	list_set(&(struct dax_bad){ off, len }, 1, 0);
}

/* Until the thread has read it so often. */
static void looks_wait(unsigned count)
{
	while (atomic_load(&device.looks) < count)
		sched_yield();
}

/* ---- scene ---- */

static void begin(const struct testfs_opts *opts, const struct dax_badblocks_ops *ops)
{
	testfs_make(&t, opts);
	list_set(NULL, 0, 0);
	device.clearing = CLEAR_WORKS;
	atomic_store(&device.looks, 0);
	atomic_store(&device.clears, 0);
	memset(&told, 0, sizeof(told));
	if (ops)
		dax_badblocks_stand_in(t.dax, ops, NULL);
	fs_on_poison(t.fs, on_poison, NULL);
	poison = testpoison_open(t.dax);
	if (poison)
		return;
	testfs_free(&t);
	skip();
}

static void end(void)
{
	testpoison_close(poison);
	poison = NULL;
	assert_null(pool_failed(t.pool));
	testfs_check(&t);
	testfs_free(&t);
}

static uint64_t file_make(const char *name)
{
	uint64_t ino = testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644);

	for (unsigned i = 0; i < FILE_BYTES; i++)
		content[i] = (uint8_t)(i * 31 + i / 256 + 1);
	assert_int_equal(fs_write(t.fs, &testfs_root, ino, content, FILE_BYTES, 0, 0), FILE_BYTES);
	return ino;
}

static uint64_t place(uint64_t ino, uint64_t blk)
{
	struct fs_extent e;

	assert_int_equal(fs_map(t.fs, ino, blk * BLOCK_SIZE, &e, 1), 1);
	return e.dev_off + (blk * BLOCK_SIZE - e.file_off);
}

/* Those lines of that block cannot be read, all else is as it was. */
static void file_check(uint64_t ino, uint64_t blk, uint64_t lost)
{
	uint8_t line[LINE_SIZE];

	for (uint64_t off = 0; off < FILE_BYTES; off += LINE_SIZE) {
		bool is_lost = off / BLOCK_SIZE == blk && lost >> off % BLOCK_SIZE / LINE_SIZE & 1;

		assert_int_equal(fs_read(t.fs, ino, line, LINE_SIZE, off), is_lost ? -EIO : (int)LINE_SIZE);
		if (!is_lost)
			assert_memory_equal(line, content + off, LINE_SIZE);
	}
}

/* 0: nobody. */
static uint64_t owner_at(struct testfs *u, uint64_t off)
{
	static const struct fs_owners_pos start;
	struct fs_owner owner[2];
	unsigned count;

	assert_int_equal(fs_owners(u->fs, off, BLOCK_SIZE, &start, owner, 2, &count), 0);
	return count == 0 ? 0 : owner[count - 1].owner;
}

static enum fs_poison_result clear_at(struct testfs *u, uint64_t off, bool by_device)
{
	enum fs_poison_result result = 0;

	assert_int_equal(fs_poison_clear(u->fs, off, by_device, &result), 0);
	return result;
}

/* ---- met, and cleared ---- */

static void test_met(void **state)
{
	uint64_t a, b, off, off_free;
	uint8_t byte;

	(void)state;
	begin(NULL, &device_ops);
	a = file_make("a");
	b = testfs_node(&t, INODE_ROOT, "b", S_IFREG | 0644);
	assert_int_equal(fs_clone(t.fs, &testfs_root, a, 0, b, 0, FILE_BYTES, 0, NULL), FILE_BYTES);
	/* Of two, of one, of none. */
	off = place(a, 3);
	testpoison_lines(poison, off, 6);
	assert_int_equal(fs_read(t.fs, a, &byte, 1, 3 * BLOCK_SIZE + 64), -EIO);
	assert_true(place(a, 3) != off && place(a, 3) == place(b, 3));
	assert_true(owner_at(&t, off) == 0);
	file_check(a, 3, 6);
	file_check(b, 3, 6);
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "b"), 0);
	fs_work(t.fs);
	off = place(a, 5);
	testpoison_lines(poison, off, 1);
	assert_int_equal(fs_read(t.fs, a, &byte, 1, 5 * BLOCK_SIZE), -EIO);
	assert_true(owner_at(&t, off) == 0);
	off_free = place(a, FILE_BLOCKS - 1) + 100 * BLOCK_SIZE;
	assert_true(owner_at(&t, off_free) == 0);
	testpoison_page(poison, off_free);
	fs_poison_look(t.fs, off_free, 1);
	assert_true(owner_at(&t, off_free) == 0);
	assert_int_equal(atomic_load(&device.clears), 3);
	assert_int_equal(*(const uint8_t *)dax_ptr(t.dax, off_free), 0);
	testfs_remount(&t);
	assert_true(owner_at(&t, off) == 0);
	end();
}

/* It stays out of use: the device does not, says that it has, or cannot. Then by hand. */
static void test_not_cleared(void **state)
{
	uint64_t ino, off;
	uint8_t byte;

	(void)state;
	for (enum clearing how = CLEAR_FAILS; how <= CLEAR_LIES; how++) {
		begin(NULL, &device_ops);
		ino = file_make("a");
		off = place(ino, 2);
		device.clearing = how;
		testpoison_page(poison, off);
		assert_int_equal(fs_read(t.fs, ino, &byte, 1, 2 * BLOCK_SIZE), -EIO);
		assert_true(owner_at(&t, off) == OWNER_BAD);
		assert_int_equal(atomic_load(&device.clears), 1);
		file_check(ino, 2, UINT64_MAX);
		/* Once is enough, unless somebody asks for it. */
		fs_poison_look(t.fs, off, 1);
		assert_int_equal(fs_poison_listed(t.fs, off), 0);
		assert_int_equal(atomic_load(&device.clears), 1);
		assert_int_equal(clear_at(&t, off, true),
				 how == CLEAR_FAILS ? FS_POISON_NOT_CLEARED : FS_POISON_STILL_BAD);
		assert_int_equal(clear_at(&t, off, false), FS_POISON_STILL_BAD);
		assert_true(owner_at(&t, off) == OWNER_BAD);
		device.clearing = CLEAR_WORKS;
		assert_int_equal(clear_at(&t, off, true), FS_POISON_FREED);
		assert_true(owner_at(&t, off) == 0);
		end();
	}
	begin(NULL, NULL);
	ino = file_make("a");
	off = place(ino, 2);
	testpoison_page(poison, off);
	assert_int_equal(fs_read(t.fs, ino, &byte, 1, 2 * BLOCK_SIZE), -EIO);
	assert_int_equal(clear_at(&t, off, true), FS_POISON_CANNOT_CLEAR);
	dax_badblocks_stand_in(t.dax, &list_ops, NULL);
	assert_int_equal(clear_at(&t, off, true), FS_POISON_CANNOT_CLEAR);
	assert_true(owner_at(&t, off) == OWNER_BAD);
	end();
}

/* What was taken out of use by hand stays so, and comes back by hand. */
static void test_by_hand(void **state)
{
	uint64_t ino, off, size;
	enum fs_poison_result result;

	(void)state;
	begin(NULL, &device_ops);
	size = pool_size_blk(t.pool) * BLOCK_SIZE;
	ino = file_make("a");
	off = place(ino, 1);
	assert_int_equal(clear_at(&t, off, false), FS_POISON_NOT_BAD);
	assert_int_equal(clear_at(&t, 0, false), FS_POISON_NOT_BAD);
	assert_int_equal(clear_at(&t, off + 64 * BLOCK_SIZE, true), FS_POISON_NOT_BAD);
	assert_int_equal(fs_poison_clear(t.fs, size, false, &result), -EINVAL);
	assert_int_equal(fs_poison_listed(t.fs, size), -EINVAL);
	assert_int_equal(fs_poison_add(t.fs, off), 0);
	assert_int_equal(fs_poison_listed(t.fs, off), 0);
	assert_true(owner_at(&t, off) == OWNER_BAD);
	assert_int_equal(atomic_load(&device.clears), 0);
	assert_int_equal(clear_at(&t, off + 100, false), FS_POISON_FREED);
	assert_int_equal(clear_at(&t, off, false), FS_POISON_NOT_BAD);
	assert_int_equal(atomic_load(&device.clears), 0);
	file_check(ino, 0, 0);
	end();
}

/* A bit that is always one, or always zero: only what is written and read back tells. */
static uint64_t stuck_off;
static uint8_t stuck_one, stuck_zero_bit;

static void stuck_store(void *ctx, uint64_t off, const void *src, size_t len)
{
	(void)ctx, (void)off, (void)src, (void)len;
}

static void stuck_zero(void *ctx, uint64_t off, size_t len)
{
	(void)ctx, (void)off, (void)len;
}

static void stuck_fence(void *ctx)
{
	uint8_t *cell = (uint8_t *)dax_ptr(t.dax, stuck_off);

	(void)ctx;
	*cell = (uint8_t)((*cell | stuck_one) & ~stuck_zero_bit);
}

static void test_stuck(void **state)
{
	static const struct dax_trace trace = { stuck_store, stuck_zero, stuck_fence, NULL };
	static const struct testfs_opts opts = { .trace = &trace };
	uint64_t off;

	(void)state;
	begin(&opts, &device_ops);
	off = place(file_make("a"), 1);
	assert_int_equal(fs_poison_add(t.fs, off), 0);
	stuck_off = off + 1000;
	for (unsigned bit = 0; bit < 16; bit++) {
		stuck_one = (uint8_t)(bit < 8 ? 1u << bit : 0);
		stuck_zero_bit = (uint8_t)(bit < 8 ? 0 : 1u << (bit - 8));
		assert_int_equal(clear_at(&t, off, bit % 2), FS_POISON_STILL_BAD);
	}
	assert_true(owner_at(&t, off) == OWNER_BAD);
	stuck_one = stuck_zero_bit = 0;
	assert_int_equal(clear_at(&t, off, false), FS_POISON_FREED);
	end();
}

/* Of metadata it is the block that stood in that can come back, not one of its chunk. */
static void test_meta(void **state)
{
	uint64_t laddr, first, second;

	(void)state;
	begin(NULL, &device_ops);
	laddr = pool_ag_unit(t.pool, 0, AG_UNIT_INTENTS);
	assert_int_equal(pool_place(t.pool, laddr, 0, &first), 0);
	assert_int_equal(fs_poison_listed(t.fs, first), 0);
	assert_int_equal(pool_place(t.pool, laddr, 0, &second), 0);
	assert_true(second != first);
	assert_int_equal(atomic_load(&device.clears), 0);
	assert_int_equal(clear_at(&t, first, true), FS_POISON_NOT_BAD);
	assert_int_equal(fs_poison_listed(t.fs, second), 0);
	assert_int_equal(atomic_load(&device.clears), 1);
	assert_true(owner_at(&t, second) == 0);
	end();
}

/* All owners have gone to another block, but the record of that is still there. */
static int forward_leave(struct op *op, void *arg)
{
	const uint64_t *off = arg;
	uint64_t old_blk = *off / BLOCK_SIZE, new_blk, count;
	struct space_want want = { .count_blk = 1 };
	struct m_forward rec;
	struct btree bt;

	assert_int_equal(space_alloc(op->tx, &want, &new_blk, &count), 0);
	assert_int_equal(space_own(op->tx, new_blk, 1, OWNER_FORWARD, old_blk), 0);
	assert_int_equal(space_alloc_at(op->tx, old_blk), 0);
	assert_int_equal(space_own(op->tx, old_blk, 1, OWNER_BAD, old_blk), 0);
	assert_int_equal(space_ag_tree(op->tx, pool_blk_ag(t.pool, old_blk), AG_FORWARDS, &bt), 0);
	rec = (struct m_forward){
		.fw_old_blk = le64_of(old_blk),
		.fw_new_blk = le64_of(new_blk),
		.fw_count_blk = le32_of(1),
	};
	return bt_insert(&bt, &rec, sizeof(rec));
}

/* Bad, and somebody still has it. */
static int bad_share(struct op *op, void *arg)
{
	const uint64_t *off = arg;

	return space_share(op->tx, *off / BLOCK_SIZE, 1, OWNER_BAD, *off / BLOCK_SIZE);
}

static int bad_drop(struct op *op, void *arg)
{
	const uint64_t *off = arg;

	return space_drop(op->tx, *off / BLOCK_SIZE, 1, OWNER_BAD, *off / BLOCK_SIZE);
}

static void test_forwarded(void **state)
{
	uint64_t off;

	(void)state;
	begin(NULL, &device_ops);
	off = place(file_make("a"), 0);
	assert_int_equal(op_run(t.fs, TXN_WRITE, NULL, bad_share, &off), 0);
	assert_int_equal(clear_at(&t, off, true), FS_POISON_IN_USE);
	assert_int_equal(op_run(t.fs, TXN_WRITE, NULL, bad_drop, &off), 0);
	off += 100 * BLOCK_SIZE;
	assert_int_equal(op_run(t.fs, TXN_WRITE, NULL, forward_leave, &off), 0);
	assert_int_equal(clear_at(&t, off, false), FS_POISON_IN_USE);
	assert_int_equal(clear_at(&t, off, true), FS_POISON_IN_USE);
	assert_int_equal(atomic_load(&device.clears), 0);
	/* Goes on with it, and then it is no worse than others. */
	assert_int_equal(fs_poison_listed(t.fs, off), 0);
	assert_true(owner_at(&t, off) == 0);
	assert_int_equal(atomic_load(&device.clears), 1);
	end();
}

static void test_readonly(void **state)
{
	const struct testfs_opts opts = { .fs = { .readonly = true } };
	enum fs_poison_result result;
	struct testfs u;

	(void)state;
	begin(NULL, NULL);
	testfs_remount(&t);
	u = (struct testfs){ .opts = opts };
	testfs_open_image(&u, dax_ptr(t.dax, 0), &opts);
	assert_int_equal(fs_poison_clear(u.fs, 20 << 20, false, &result), -EROFS);
	assert_int_equal(fs_poison_listed(u.fs, 20 << 20), -EROFS);
	testfs_free(&u);
	end();
}

/* ---- power loss ---- */

#define CRASH_BYTES ((uint64_t)24 << 20)

struct crash {
	uint64_t off, ino[2];
	unsigned owners, images, before, freed; /* before: it was still the files' */
};

static void files_check(const struct crash *c, struct testfs *u)
{
	uint8_t back[FILE_BYTES];

	for (unsigned i = 0; i < c->owners; i++) {
		assert_int_equal(fs_read(u->fs, c->ino[i], back, FILE_BYTES, 0), FILE_BYTES);
		assert_memory_equal(back, content, FILE_BYTES);
	}
}

static void image_check(void *arg, const uint8_t *image)
{
	const struct testfs_opts opts = { .size_bytes = CRASH_BYTES };
	struct crash *c = arg;
	struct testfs u;
	uint64_t owner;

	testfs_open_image(&u, image, &opts);
	owner = owner_at(&u, c->off);
	files_check(c, &u);
	testfs_check(&u);
	if (owner != 0) {
		assert_true(owner == OWNER_BAD || owner == c->ino[0] || owner == c->ino[1]);
		assert_int_equal(fs_poison_listed(u.fs, c->off), 0);
		assert_int_equal(clear_at(&u, c->off, false), FS_POISON_FREED);
	}
	assert_true(owner_at(&u, c->off) == 0);
	assert_int_equal(clear_at(&u, c->off, false), FS_POISON_NOT_BAD);
	files_check(c, &u);
	testfs_check(&u);
	testfs_free(&u);
	c->images++;
	c->before += owner != 0 && owner != OWNER_BAD;
	c->freed += owner == 0;
}

/* whole: from the moment on that the device lists it; else it is out of use already. */
static void crash_of(unsigned owners, bool whole)
{
	static const struct testfs_opts opts = { .size_bytes = CRASH_BYTES, .trace = &cut_trace };
	struct crash c = { .owners = owners };
	struct cut cut;

	begin(&opts, &device_ops);
	c.ino[0] = file_make("a");
	c.ino[1] = testfs_node(&t, INODE_ROOT, "b", S_IFREG | 0644);
	if (owners > 1)
		assert_int_equal(fs_clone(t.fs, &testfs_root, c.ino[0], 0, c.ino[1], 0, FILE_BYTES, 0, NULL),
				 FILE_BYTES);
	c.off = place(c.ino[0], 4);
	if (!whole)
		assert_int_equal(fs_poison_add(t.fs, c.off), 0);
	cut_begin(&cut, dax_ptr(t.dax, 0), CRASH_BYTES, CUT_NO_PAGE);
	if (whole)
		assert_int_equal(fs_poison_listed(t.fs, c.off), 0);
	else
		assert_int_equal(clear_at(&t, c.off, true), FS_POISON_FREED);
	cut_end();
	assert_true(owner_at(&t, c.off) == 0);
	cut_images(&cut, image_check, &c);
	print_message("# %u owners: %u images, in %u it was in use, in %u free\n", owners, c.images, c.before,
		      c.freed);
	assert_true(c.freed > 1 && c.before + c.freed < c.images - 1 && whole == (c.before > 1));
	end();
}

static void test_crash(void **state)
{
	(void)state;
	crash_of(1, false);
	crash_of(1, true);
	crash_of(2, true);
}

/* ---- the daemon's thread ---- */

/* Memory that nobody has touched, and that can be read but for a line: as bad as any. */
static void test_list(void **state)
{
	struct badblocks *bb;
	uint64_t a, b, off[3];

	(void)state;
	begin(NULL, &list_ops);
	a = file_make("a");
	b = testfs_node(&t, INODE_ROOT, "b", S_IFREG | 0644);
	assert_int_equal(fs_clone(t.fs, &testfs_root, a, 0, b, 0, 2 * BLOCK_SIZE, 0, NULL), 2 * BLOCK_SIZE);
	off[0] = place(a, 0);
	off[1] = place(a, 5);
	off[2] = off[0] + 100 * BLOCK_SIZE;
	testpoison_lines(poison, off[1], 1ull << 63);
	list_set((struct dax_bad[]){ { off[1] + 4032, 64 }, { off[0] + 512, 512 }, { off[2], 1 } }, 3, 0);
	assert_int_equal(badblocks_start(t.fs, NO_LOOK, &bb), 0);
	assert_non_null(bb);
	while (atomic_load(&told.unused) < 1 || atomic_load(&told.lost) < 1 || atomic_load(&told.moved) < 2)
		sched_yield();
	badblocks_stop(bb);
	for (unsigned i = 0; i < 3; i++)
		assert_true(owner_at(&t, off[i]) == OWNER_BAD);
	assert_true(place(a, 0) == place(b, 0));
	file_check(a, 5, 1ull << 63);
	assert_int_equal(atomic_load(&device.looks), 1);
	end();
}

/* Thousands, in no order, twice, beyond both ends, over superblock and journal. What is cleared is free. */
static void test_many(void **state)
{
	static struct dax_bad ranges[RANGES_MAX];
	const struct testfs_opts opts = { .size_bytes = (uint64_t)64 << 20 };
	uint64_t size = opts.size_bytes, random = testfs_seed(), ino, file_off, last_free, free_blk;
	struct fs_statfs st;
	struct badblocks *bb;
	unsigned n = 0;

	(void)state;
	for (unsigned round = 0; round < 2; round++) {
		begin(&opts, round ? &device_ops : &list_ops);
		ino = file_make("a");
		file_off = place(ino, 0);
		last_free = size - BLOCK_SIZE;
		while (owner_at(&t, last_free) != 0)
			last_free -= BLOCK_SIZE;
		assert_int_equal(fs_statfs(t.fs, &st), 0);
		free_blk = st.free_blk;
		for (n = 0; n < 5000; n++)
			ranges[n] = (struct dax_bad){ testfs_below(&random, size / 512) * 512,
						      512 * testfs_below(&random, 10) };
		for (unsigned i = 0; i < 500; i++)
			ranges[n++] = (struct dax_bad){ size + testfs_below(&random, size), 512 };
		ranges[n++] = (struct dax_bad){ last_free, UINT64_MAX - 1000 };
		ranges[n++] = (struct dax_bad){ UINT64_MAX - 511, 512 };
		ranges[n++] = (struct dax_bad){ 0, 512 };
		ranges[n++] = (struct dax_bad){ 1, UINT64_MAX };
		ranges[n - 1].len = 70 * BLOCK_SIZE; /* the journal, in part */
		ranges[n++] = (struct dax_bad){ place(ino, 0), FILE_BYTES };
		ranges[n++] = (struct dax_bad){ place(ino, 0) + BLOCK_SIZE, 512 };
		list_set(ranges, n, 0);
		assert_int_equal(badblocks_start(t.fs, 1, &bb), 0);
		looks_wait(3);
		badblocks_stop(bb);
		for (unsigned i = 0; i < FILE_BLOCKS && round == 0; i++)
			assert_true(place(ino, i) != file_off + i * BLOCK_SIZE);
		file_check(ino, 0, 0);
		assert_int_equal(fs_statfs(t.fs, &st), 0);
		if (round == 0)
			assert_true(st.free_blk < free_blk - 1000 && owner_at(&t, last_free) == OWNER_BAD);
		else /* lanes of the journal have moved from where nothing else ever lies */
			assert_true(st.free_blk + 2 * pool_super(t.pool)->lane_count *
							    pool_lane_len_blk(t.pool) >
					    free_blk - 300 &&
				    atomic_load(&device.clears) > 1000);
		fs_on_poison(t.fs, NULL, NULL);
		testfs_remount(&t);
		file_check(ino, 0, 0);
		end();
	}
}

/* The same block is seen to once while it is listed; one that comes back is a new one. */
static void test_again(void **state)
{
	struct badblocks *bb;
	uint64_t off;

	(void)state;
	begin(NULL, &device_ops);
	off = place(file_make("a"), 0) + 100 * BLOCK_SIZE;
	list_set((struct dax_bad[]){ { off + BLOCK_SIZE, 64 }, { off, 512 } }, 2, 0);
	assert_int_equal(badblocks_start(t.fs, 1, &bb), 0);
	looks_wait(4);
	assert_int_equal(atomic_load(&device.clears), 2);
	list_one(off - BLOCK_SIZE, 4 * BLOCK_SIZE);
	looks_wait(atomic_load(&device.looks) + 3);
	assert_int_equal(atomic_load(&device.clears), 4);
	list_set(NULL, 0, 0);
	looks_wait(atomic_load(&device.looks) + 3);
	list_one(off, 1);
	looks_wait(atomic_load(&device.looks) + 3);
	assert_int_equal(atomic_load(&device.clears), 5);
	/* A list that cannot be read for a while. */
	list_set(NULL, 0, -EIO);
	looks_wait(atomic_load(&device.looks) + 3);
	list_set((struct dax_bad[]){ { off, 1 }, { off + BLOCK_SIZE, 1 } }, 2, 0);
	looks_wait(atomic_load(&device.looks) + 3);
	assert_int_equal(atomic_load(&device.clears), 6);
	badblocks_stop(bb);
	assert_true(owner_at(&t, off) == 0);
	end();
}

/* The kernel says that the list has changed. */
static bool sockets_open(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(at);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	device.send_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || device.send_fd < 0 || bind(listener, (void *)&at, sizeof(at)) ||
	    listen(listener, 1) || getsockname(listener, (void *)&at, &len) ||
	    connect(device.send_fd, (void *)&at, len))
		return false;
	device.fd = accept(listener, NULL, NULL);
	close(listener);
	return device.fd >= 0;
}

static void test_told(void **state)
{
	struct badblocks *bb;
	uint64_t off;

	(void)state;
	if (!sockets_open()) {
		print_message("# no sockets: %s\n", strerror(errno));
		skip();
	}
	begin(NULL, &device_ops);
	off = place(file_make("a"), 0) + 100 * BLOCK_SIZE;
	assert_int_equal(badblocks_start(t.fs, NO_LOOK, &bb), 0);
	looks_wait(1);
	for (unsigned i = 1; i < 4; i++) {
		list_one(off + i * BLOCK_SIZE, 512);
		assert_int_equal(send(device.send_fd, "!", 1, MSG_OOB), 1);
		while (atomic_load(&device.clears) < i)
			sched_yield();
	}
	badblocks_stop(bb);
	assert_true(atomic_load(&device.looks) < 10);
	close(device.fd);
	close(device.send_fd);
	device.fd = device.send_fd = -1;
	end();
}

/* No block to save to: again when there is one, and not with each look. */
static void test_full(void **state)
{
	struct badblocks *bb;
	uint64_t ino, fill, off, aborts;
	unsigned i = 0;

	(void)state;
	begin(NULL, &list_ops);
	ino = file_make("a");
	off = place(ino, 3);
	fill = testfs_node(&t, INODE_ROOT, "fill", S_IFREG | 0644);
	while (fs_write(t.fs, &testfs_root, fill, content, BLOCK_SIZE, i++ * BLOCK_SIZE, 0) > 0)
		;
	list_one(off, 1);
	assert_int_equal(badblocks_start(t.fs, 1, &bb), 0);
	looks_wait(3);
	assert_true(place(ino, 3) == off);
	aborts = atomic_load(&pool_stats(t.pool)->aborts);
	looks_wait(20);
	assert_int_equal(atomic_load(&pool_stats(t.pool)->aborts), aborts);
	file_check(ino, 0, 0);
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "fill"), 0);
	fs_work(t.fs);
	while (atomic_load(&told.moved) < 1)
		sched_yield();
	badblocks_stop(bb);
	assert_true(owner_at(&t, off) == OWNER_BAD);
	file_check(ino, 0, 0);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_met),      cmocka_unit_test(test_not_cleared),
		cmocka_unit_test(test_by_hand),  cmocka_unit_test(test_stuck),
		cmocka_unit_test(test_meta),     cmocka_unit_test(test_forwarded),
		cmocka_unit_test(test_readonly), cmocka_unit_test(test_crash),
		cmocka_unit_test(test_list),     cmocka_unit_test(test_many),
		cmocka_unit_test(test_again),    cmocka_unit_test(test_told),
		cmocka_unit_test(test_full),

	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
