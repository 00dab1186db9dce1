/* SPDX-License-Identifier: BSD-3-Clause */
/* What was copied for holders, and not stored to, shares its blocks again (fs_give_back()). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "crash/cut.h"
#include "fs/core.h"
#include "unit/fake_holders.h"

#define SIZE_BYTES ((uint64_t)32 << 20)
#define BLOCKS 300u
#define TAIL 100u /* bytes in the last block */
#define FILE_BYTES ((BLOCKS - 1) * (uint64_t)BLOCK_SIZE + TAIL)
#define END (1ull << 52)

static struct testfs t;
static struct fake_holders fake;
static uint8_t bytes[BLOCKS * BLOCK_SIZE]; /* of the origin */
static uint8_t expected[BLOCKS * BLOCK_SIZE], got[BLOCKS * BLOCK_SIZE];
static uint64_t origin, twin;

static void make(const struct dax_trace *trace)
{
	const struct testfs_opts opts = { .size_bytes = SIZE_BYTES, .trace = trace };

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 31 + i / 251 + i / 65536 + 1);
	memcpy(expected, bytes, sizeof(bytes));
	testfs_make(&t, &opts);
	fake_holders_set(&fake, t.fs);
	origin = testfs_node(&t, INODE_ROOT, "origin", S_IFREG | 0644);
	twin = testfs_node(&t, INODE_ROOT, "twin", S_IFREG | 0644);
	assert_int_equal(fs_write(t.fs, &testfs_root, origin, bytes, FILE_BYTES, 0, 0), FILE_BYTES);
	assert_int_equal(fs_clone(t.fs, &testfs_root, origin, 0, twin, 0, FILE_BYTES, 0, NULL), FILE_BYTES);
}

static void end(void)
{
	fake_holders_end(&fake);
	testfs_check(&t);
	testfs_free(&t);
}

static uint64_t dev_of(uint64_t ino, uint64_t blk)
{
	struct fs_extent e;

	assert_int_equal(fs_map(t.fs, ino, blk * BLOCK_SIZE, &e, 1), 1);
	return (e.dev_off + (blk * BLOCK_SIZE - e.file_off)) >> BLOCK_SHIFT;
}

static uint64_t free_blk(void)
{
	struct fs_statfs st;

	assert_int_equal(fs_statfs(t.fs, &st), 0);
	return st.free_blk;
}

static void copy(uint64_t lo_blk, uint64_t hi_blk)
{
	while (lo_blk < hi_blk)
		assert_int_equal(fs_make_storable(t.fs, &testfs_root, twin, lo_blk, hi_blk, &lo_blk), 0);
}

/* As a process does it that has the block mapped. */
static void store(uint64_t ino, uint64_t blk, uint8_t *model)
{
	uint8_t *at = (uint8_t *)(uintptr_t)dax_ptr(t.dax, dev_of(ino, blk) << BLOCK_SHIFT);

	at[77] ^= 0x55;
	if (model)
		model[blk * BLOCK_SIZE + 77] ^= 0x55;
}

static void give_back(uint64_t ino)
{
	fs_give_back(t.fs, ino);
	fs_work(t.fs);
}

static void file_is(struct testfs *u, uint64_t ino, const uint8_t *model)
{
	assert_int_equal(fs_read(u->fs, ino, got, sizeof(got), 0), FILE_BYTES);
	assert_memory_equal(got, model, FILE_BYTES);
}

static unsigned shared_count(void)
{
	unsigned count = 0;

	for (uint64_t blk = 0; blk < BLOCKS; blk++)
		count += dev_of(twin, blk) == dev_of(origin, blk);
	return count;
}

static void test_kept(void **state)
{
	uint64_t before;

	(void)state;
	make(NULL);
	before = free_blk();
	copy(0, BLOCKS);
	assert_int_equal(shared_count(), 0);
	store(twin, 3, expected);
	store(twin, 100, expected);
	store(twin, 102, expected); /* 101 alone is not worth it */
	give_back(twin);
	assert_int_equal(shared_count(), BLOCKS - 7); /* 0 to 2 are too few */
	for (unsigned blk = 0; blk < BLOCKS; blk++)
		assert_int_equal(dev_of(twin, blk) == dev_of(origin, blk),
				 blk > 3 && (blk < 100 || blk > 102));
	assert_in_range(before - free_blk(), 7, 20);
	file_is(&t, twin, expected);
	file_is(&t, origin, bytes);
	/* Again, and there is nothing left to be seen to. */
	copy(0, BLOCKS);
	store(twin, 50, expected);
	give_back(0);
	file_is(&t, twin, expected);
	give_back(twin);
	assert_int_equal(dev_of(twin, 200), dev_of(origin, 200));
	end();
}

/* Only when it is asked for, and of that file. */
static void test_asked(void **state)
{
	(void)state;
	make(NULL);
	copy(10, 200);
	fs_work(t.fs);
	give_back(origin);
	assert_int_equal(shared_count(), BLOCKS - 190);
	give_back(twin);
	assert_int_equal(shared_count(), BLOCKS);
	end();
}

/* What the origin has by now is not what was copied. */
static void test_origin_changed(void **state)
{
	(void)state;
	make(NULL);
	copy(0, BLOCKS);
	/* In place: it is alone with them now. */
	store(origin, 20, bytes);
	assert_int_equal(fs_write(t.fs, &testfs_root, origin, bytes, 8 * BLOCK_SIZE, 40 * BLOCK_SIZE, 0),
			 8 * BLOCK_SIZE);
	memcpy(bytes + 40 * BLOCK_SIZE, bytes, 8 * BLOCK_SIZE);
	give_back(twin);
	file_is(&t, twin, expected);
	file_is(&t, origin, bytes);
	assert_int_equal(shared_count(), BLOCKS - 9);
	end();
}

static void test_origin_gone(void **state)
{
	uint64_t other;

	(void)state;
	make(NULL);
	copy(0, BLOCKS);
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "origin"), 0);
	fs_work(t.fs);
	/* Somebody else gets the blocks. */
	other = testfs_node(&t, INODE_ROOT, "other", S_IFREG | 0644);
	memset(got, 0xee, sizeof(got));
	assert_int_equal(fs_write(t.fs, &testfs_root, other, got, sizeof(got), 0, 0), sizeof(got));
	give_back(twin);
	file_is(&t, twin, expected);
	end();
}

/* The twin itself was cut short, punched, written, unlinked. */
static void test_clone_changed(void **state)
{
	struct fs_set set = { .what = FS_SET_SIZE, .size = 50 * BLOCK_SIZE + 5 };
	struct inode_attr attr;

	(void)state;
	make(NULL);
	copy(0, BLOCKS);
	assert_int_equal(fs_setattr(t.fs, &testfs_root, twin, &set, &attr), 0);
	set.size = FILE_BYTES;
	assert_int_equal(fs_setattr(t.fs, &testfs_root, twin, &set, &attr), 0);
	memset(expected + 50 * BLOCK_SIZE + 5, 0, sizeof(expected) - 50 * BLOCK_SIZE - 5);
	give_back(twin);
	file_is(&t, twin, expected);
	copy(0, 20);
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "twin"), 0);
	fs_work(t.fs);
	give_back(twin);
	file_is(&t, origin, bytes);
	end();
}

/* A mount knows nothing of the copies of the one before. */
static void test_forgotten(void **state)
{
	(void)state;
	make(NULL);
	copy(0, BLOCKS);
	fake_holders_end(&fake);
	testfs_remount(&t);
	fake_holders_set(&fake, t.fs);
	give_back(twin);
	assert_int_equal(shared_count(), 0);
	file_is(&t, twin, expected);
	end();
}

/* Stores to the second half of what is held, when the holder is asked for it. */
static void store_last(struct fake_holders *h)
{
	for (unsigned i = 0; i < h->count; i++) {
		const struct fake_shadow *s = &h->shadows[i];
		uint8_t *at = (uint8_t *)(uintptr_t)dax_ptr(t.dax, s->dev_blk << BLOCK_SHIFT);

		if (s->ino == twin && s->flags & FS_PIECE_WRITE)
			memset(at + s->count_blk / 2 * BLOCK_SIZE, 0x5a,
			       (s->count_blk - s->count_blk / 2) * BLOCK_SIZE);
	}
}

static void test_stored_meanwhile(void **state)
{
	(void)state;
	make(NULL);
	copy(0, BLOCKS);
	assert_int_equal(fs_hold(t.fs, twin), 0);
	assert_int_equal(fake_grant(&fake, twin, 16, 80, true), 0);
	fake.last_store = store_last;
	give_back(twin);
	assert_true(fake.ask_count > 0);
	memset(expected + 48 * BLOCK_SIZE, 0x5a, 32 * BLOCK_SIZE);
	file_is(&t, twin, expected);
	file_is(&t, origin, bytes);
	fake_check(&fake);
	assert_int_equal(dev_of(twin, 200), dev_of(origin, 200));
	/* Who does not answer keeps what he has; nobody else gets it. */
	fake.last_store = NULL;
	copy(0, BLOCKS);
	assert_int_equal(fake_grant(&fake, twin, 100, 140, true), 0);
	fake.mood = FAKE_MUTE;
	give_back(twin);
	file_is(&t, twin, expected);
	fake.mood = FAKE_ANSWERS;
	fake_release(&fake, twin, 0, END);
	fs_unhold(t.fs, twin);
	end();
}

/* ---- power loss ---- */

static unsigned images;

static void image_check(void *arg, const uint8_t *image)
{
	const struct testfs_opts opts = { .size_bytes = SIZE_BYTES };
	struct testfs u;

	(void)arg;
	testfs_open_image(&u, image, &opts);
	file_is(&u, twin, expected);
	file_is(&u, origin, bytes);
	testfs_check(&u);
	testfs_free(&u);
	images++;
}

static void test_crash(void **state)
{
	struct cut cut;

	(void)state;
	make(&cut_trace);
	copy(0, BLOCKS);
	for (unsigned blk = 7; blk < BLOCKS; blk += 60)
		store(twin, blk, expected);
	fs_give_back(t.fs, twin);
	cut_begin(&cut, dax_ptr(t.dax, 0), SIZE_BYTES, CUT_NO_PAGE);
	fs_work(t.fs);
	cut_end();
	assert_true(shared_count() > BLOCKS / 2);
	cut_images(&cut, image_check, NULL);
	assert_true(images > 8);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kept),
		cmocka_unit_test(test_asked),
		cmocka_unit_test(test_origin_changed),
		cmocka_unit_test(test_origin_gone),
		cmocka_unit_test(test_clone_changed),
		cmocka_unit_test(test_forgotten),
		cmocka_unit_test(test_stored_meanwhile),
		cmocka_unit_test(test_crash),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
