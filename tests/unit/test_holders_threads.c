/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Holders beside everybody else: some threads are granted pieces, read and store through them and let go, others write, cut, punch, clone and move the same
 * files. Each block tells which block of a file it is, so whoever sees another one through his shadow has been given what is not his any more; and a
 * clone does not change when its source is stored to.
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
#include <sys/stat.h>

#include <cmocka.h>

#include "fs/core.h"
#include "unit/fake_holders.h"

#define MIB ((uint64_t)1 << 20)
#define END (1ull << 52)
#define FILES 4u
#define BLK 48u /* of each file */
#define GROUP_BYTES (16 * MIB)
#define BLOCK_WORDS (BLOCK_SIZE / sizeof(uint64_t))

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEPS 800u
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define STEPS 800u
#endif
#endif
#ifndef STEPS
#define STEPS 10000u
#endif

static struct testfs t;
static struct fake_holders fake;
static uint64_t files[FILES], clones[FILES];
static atomic_uint working;
static atomic_ullong stored, seen, granted;
static _Atomic(const char *) wrong;
static uint64_t seed;

/* A word of a block: which one it is, and something that changes. */
static uint64_t word_of(uint64_t file_blk, uint64_t what)
{
	return file_blk << 32 | (what & 0xffffffff);
}

static bool word_fits(uint64_t word, uint64_t file_blk)
{
	return word == 0 || word >> 32 == file_blk;
}

static void fill(uint64_t *words, uint64_t blk, uint64_t count, uint64_t what)
{
	for (uint64_t i = 0; i < count * BLOCK_WORDS; i++)
		words[i] = word_of(blk + i / BLOCK_WORDS, what + 1);
}

/* ---- those who map ---- */

/* Their memory is nobody's concern but theirs. */
__attribute__((no_sanitize("thread"))) static void look_through(const struct fake_shadow *s, uint64_t random)
{
	uint64_t blk = random % s->count_blk, at = random / 64 % BLOCK_WORDS;
	volatile uint64_t *word =
		(volatile uint64_t *)(uintptr_t)dax_ptr(t.dax, (s->dev_blk + blk) << BLOCK_SHIFT) + at;

	if (!word_fits(*word, s->file_blk + blk))
		wrong = "a shadow shows another block";
	if (!(s->flags & FS_PIECE_WRITE) || s->lost)
		return;
	*word = word_of(s->file_blk + blk, random | 1);
	stored++;
}

/* What they have they have until they are asked, which takes the lock. */
static void look(uint64_t random)
{
	pthread_mutex_lock(&fake.lock);
	for (unsigned i = 0; i < fake.count && i < 64; i++) {
		const struct fake_shadow *s = &fake.shadows[(random + i) % fake.count];

		if (s->flags & FS_PIECE_HOLE)
			continue;
		look_through(s, testfs_random(&random));
		seen++;
	}
	pthread_mutex_unlock(&fake.lock);
}

static void *holder(void *arg)
{
	uint64_t random = seed + (uintptr_t)arg;

	while (atomic_load(&working) > 0) {
		uint64_t ino = files[testfs_below(&random, FILES)], lo = testfs_below(&random, BLK),
			 hi = lo + 1 + testfs_below(&random, BLK - lo), done;
		int rc = 0;

		fake_release(&fake, ino, lo, hi);
		if (testfs_below(&random, 4) == 0)
			rc = fs_make_storable(t.fs, &testfs_root, ino, lo, hi, &done);
		if (rc && rc != -ENOSPC)
			wrong = "cannot be made storable";
		rc = fake_grant(&fake, ino, lo, hi, testfs_below(&random, 2));
		if (rc == -EDOM) {
			rc = fs_zero_tail(t.fs, ino);
			rc = rc && rc != -ENOSPC && rc != -EBUSY ? rc : -EAGAIN;
		}
		if (rc && rc != -EAGAIN && rc != -EMFILE)
			wrong = "no grant";
		granted += rc == 0;
		for (unsigned i = 0; i < 4; i++)
			look(testfs_random(&random));
	}
	return NULL;
}

/* ---- those who change ---- */

static bool may_be(int64_t rc)
{
	return rc >= 0 || rc == -ENOSPC || rc == -EINVAL || (rc == -EBUSY && fake.mood == FAKE_MUTE);
}

static int size_set(uint64_t ino, uint64_t size)
{
	struct fs_set set = { .what = FS_SET_SIZE, .size = size };
	struct inode_attr attr;

	return fs_setattr(t.fs, &testfs_root, ino, &set, &attr);
}

static int64_t change(uint64_t *random, uint64_t *words)
{
	uint64_t ino = files[testfs_below(random, FILES)], other = files[testfs_below(random, FILES)],
		 lo = testfs_below(random, BLK), count = 1 + testfs_below(random, BLK - lo),
		 off = lo * BLOCK_SIZE, len = count * BLOCK_SIZE;
	bool same;

	switch (testfs_below(random, 9)) {
	case 0:
	case 1:
	case 2:
		fill(words, lo, count, testfs_random(random));
		return fs_write(t.fs, &testfs_root, ino, words, len, off, 0);
	case 3:
		return size_set(ino, off + testfs_below(random, 2) * 8 * testfs_below(random, BLOCK_WORDS));
	case 4:
		return fs_fallocate(t.fs, &testfs_root, ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off,
				    len);
	case 5:
		return fs_fallocate(t.fs, &testfs_root, ino, FALLOC_FL_ZERO_RANGE, off, len);
	case 6:
		return fs_fallocate(t.fs, &testfs_root, ino, 0, off, len);
	case 7:
		return ino == other ? 0 : fs_clone(t.fs, &testfs_root, ino, off, other, off, len, 0, NULL);
	default:
		return ino == other ? 0 : fs_dedupe(t.fs, ino, 0, other, 0, BLOCK_SIZE, &same);
	}
}

static void *changer(void *arg)
{
	static __thread uint64_t words[BLK * BLOCK_WORDS];
	uint64_t random = seed + (uintptr_t)arg;

	for (unsigned i = 0; i < STEPS; i++) {
		if (!may_be(change(&random, words)))
			wrong = "a change fails";
	}
	working--;
	return NULL;
}

/* A clone stays what it was, whatever is stored to the other. */
static void *cloner(void *arg)
{
	static __thread uint64_t first[BLK * BLOCK_WORDS], again[BLK * BLOCK_WORDS];
	uint64_t random = seed + (uintptr_t)arg;

	for (unsigned i = 0; i < STEPS / 2; i++) {
		unsigned which = (unsigned)testfs_below(&random, FILES);
		ssize_t len, len_again = 0;
		int64_t rc;

		rc = size_set(clones[which], 0);
		if (!rc)
			rc = fs_clone(t.fs, &testfs_root, files[which], 0, clones[which], 0, BLK * BLOCK_SIZE,
				      0, NULL);
		if (!may_be(rc))
			wrong = "a clone fails";
		len = fs_read(t.fs, clones[which], first, sizeof(first), 0);
		for (unsigned k = 0; k < 3; k++) {
			/* Others go on meanwhile. */
			len_again = fs_read(t.fs, clones[which], again, sizeof(again), 0);
			if (len < 0 || len != len_again || memcmp(first, again, (size_t)len) != 0)
				wrong = "a clone changes";
		}
		for (size_t k = 0; k < (size_t)len / sizeof(first[0]); k++) {
			if (!word_fits(first[k], k / BLOCK_WORDS))
				wrong = "a clone has another block";
		}
	}
	working--;
	return NULL;
}

static void *mover(void *arg)
{
	uint64_t random = seed + (uintptr_t)arg;

	for (unsigned i = 0; i < STEPS / 200; i++) {
		struct fs_evacuation e = { .dev_off = testfs_below(&random, 4) * GROUP_BYTES,
					   .len = GROUP_BYTES };
		int rc = fs_evacuate(t.fs, &e);

		if (!rc)
			do {
				rc = fs_evacuate_step(t.fs, e.id, MIB, &e);
			} while (rc == 1);
		if (rc && rc != -ENOSPC)
			wrong = "a range cannot be emptied";
	}
	working--;
	return NULL;
}

/* ---- together ---- */

static void run(enum fake_mood mood)
{
	const struct testfs_opts opts = { .size_bytes = 4 * GROUP_BYTES,
					  .format.ag_size_bytes = GROUP_BYTES,
					  .fs.background = true };
	void *(*const fns[])(void *) = { changer, changer, cloner, mover, holder, holder };
	pthread_t threads[ARRAY_SIZE(fns)];
	char name[8];

	seed = testfs_seed();
	testfs_make(&t, &opts);
	fake_holders_set(&fake, t.fs);
	fake.mood = mood;
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		files[i] = testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644);
		snprintf(name, sizeof(name), "c%u", i);
		clones[i] = testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644);
		/* It never has its data in the inode. */
		assert_int_equal(size_set(files[i], BLK * BLOCK_SIZE), 0);
		assert_int_equal(fs_fallocate(t.fs, &testfs_root, files[i], 0, 0, BLK * BLOCK_SIZE), 0);
		assert_int_equal(fs_hold(t.fs, files[i]), 0);
	}
	working = 4;
	wrong = NULL;
	stored = seen = granted = 0;
	for (uintptr_t i = 0; i < ARRAY_SIZE(fns); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, fns[i], (void *)(i + 1)), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(fns); i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	if (wrong)
		fail_msg("%s", wrong);
	assert_true(granted > 0 && seen > 0 && (stored > 0 || mood != FAKE_ANSWERS));
	assert_null(pool_failed(t.pool));
	fake_check(&fake);
	for (unsigned i = 0; i < FILES; i++) {
		fake_release(&fake, files[i], 0, END);
		fs_unhold(t.fs, files[i]);
	}
	fake_holders_end(&fake);
	testfs_check(&t);
	testfs_free(&t);
}

static void test_answers(void **state)
{
	(void)state;
	run(FAKE_ANSWERS);
}

static void test_mute(void **state)
{
	(void)state;
	run(FAKE_MUTE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_mute),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
