/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A kernel that keeps pages of a file, with mappings that store to them, beside holders who load and store in its blocks. Each thread counts in a word of its own in each
 * block, and says up to where it has come; whoever reads a word afterwards reads at least that, and in the end all have come as far as they have said.
 */
#include <errno.h>
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
#include <sys/stat.h>

#include <cmocka.h>

#include "fs/core.h"
#include "unit/fake_holders.h"

#define MIB ((uint64_t)1 << 20)
#define BLK 4u
#define THREADS 4u /* half of them map by the kernel */
#define BLOCK_WORDS (BLOCK_SIZE / sizeof(uint64_t))

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEPS 1000u
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define STEPS 1000u
#endif
#endif
#ifndef STEPS
#define STEPS 20000u
#endif

static struct testfs t;
static struct fake_holders fake;
static uint64_t file, seed;
static _Atomic uint64_t told[THREADS][BLK];
static atomic_uint direct_stores, kernel_stores, drops;
static pthread_barrier_t start;
static pthread_mutex_t granting[BLK]; /* what a grant that has not ended has noted is not to be used */
static _Atomic(const char *) wrong;

/* ---- the kernel ---- */

/* The lock is held while it is read, and written back. */
static struct page {
	pthread_mutex_t lock;
	bool is_there, is_dirty;
	uint64_t words[BLOCK_WORDS];
} pages[BLK];

static void page_write_back(struct page *p, uint64_t blk)
{
	if (p->is_dirty && fs_write(t.fs, &testfs_root, file, p->words, BLOCK_SIZE, blk * BLOCK_SIZE,
				    FS_WRITE_CACHED) != BLOCK_SIZE)
		wrong = "a page cannot be written back";
	p->is_dirty = false;
}

static void pages_drop(void)
{
	uint64_t drop = fs_drop_begin(t.fs, file);

	for (uint64_t blk = 0; blk < BLK; blk++) {
		pthread_mutex_lock(&pages[blk].lock);
		page_write_back(&pages[blk], blk);
		pages[blk].is_there = false;
		pthread_mutex_unlock(&pages[blk].lock);
	}
	fs_drop_end(t.fs, file, drop);
	drops++;
}

static void word_check(uint64_t word, uint64_t at_least, const char *why)
{
	if (word < at_least)
		wrong = why;
}

static void *mapper(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;
	uint64_t random = seed + me;

	pthread_barrier_wait(&start);
	for (uint64_t i = 1; i <= STEPS && !wrong; i++) {
		uint64_t blk = testfs_below(&random, BLK);
		unsigned other = (unsigned)testfs_below(&random, THREADS);
		uint64_t before = told[other][blk];
		struct page *p = &pages[blk];

		pthread_mutex_lock(&p->lock);
		if (!p->is_there &&
		    fs_read_pages(t.fs, file, p->words, BLOCK_SIZE, blk * BLOCK_SIZE) != BLOCK_SIZE)
			wrong = "a page cannot be read";
		p->is_there = true;
		word_check(p->words[other], before, "a page is old");
		if (testfs_below(&random, 2)) {
			p->words[me] = i;
			p->is_dirty = true;
			told[me][blk] = i;
			kernel_stores++;
		}
		pthread_mutex_unlock(&p->lock);
		sched_yield();
	}
	return NULL;
}

/* ---- holders ---- */

/* Through whatever is held of the block. Their memory is nobody's concern but theirs. */
__attribute__((no_sanitize("thread"))) static void look_through(const struct fake_shadow *s, uint64_t blk,
								unsigned me, unsigned other, uint64_t before,
								uint64_t i)
{
	volatile uint64_t *words = (volatile uint64_t *)(uintptr_t)dax_ptr(
		t.dax, (s->dev_blk + blk - s->file_blk) << BLOCK_SHIFT);

	word_check(words[other], before, "a shadow is old");
	if (!(s->flags & FS_PIECE_WRITE))
		return;
	words[me] = i;
	told[me][blk] = i;
	direct_stores++;
}

/* What they have they have until they are asked, which takes the lock. */
static void look(uint64_t blk, unsigned me, unsigned other, uint64_t i)
{
	uint64_t before = told[other][blk];

	pthread_mutex_lock(&granting[blk]);
	pthread_mutex_lock(&fake.lock);
	for (unsigned k = 0; k < fake.count; k++) {
		const struct fake_shadow *s = &fake.shadows[k];

		if (s->file_blk <= blk && blk < s->file_blk + s->count_blk && !(s->flags & FS_PIECE_HOLE)) {
			look_through(s, blk, me, other, before, i);
			break;
		}
	}
	pthread_mutex_unlock(&fake.lock);
	pthread_mutex_unlock(&granting[blk]);
}

static void *holder(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;
	uint64_t random = seed + me;

	pthread_barrier_wait(&start);
	for (uint64_t i = 1; i <= STEPS && !wrong; i++) {
		uint64_t blk = testfs_below(&random, BLK);
		bool store = testfs_below(&random, 2);
		int rc = 0;

		/* Mostly with what it has from before, as long as nobody has asked for it. */
		if (testfs_below(&random, 4) == 0) {
			pthread_mutex_lock(&granting[blk]);
			fake_release(&fake, file, blk, blk + 1);
			while ((rc = fake_grant(&fake, file, blk, blk + 1, store)) == -ERESTART)
				pages_drop();
			pthread_mutex_unlock(&granting[blk]);
			if (rc && rc != -EAGAIN)
				wrong = "no grant";
		}
		look(blk, me, (unsigned)testfs_below(&random, THREADS), i);
		sched_yield();
	}
	return NULL;
}

/* ---- together ---- */

static void test_together(void **state)
{
	static uint64_t words[BLK * BLOCK_WORDS];
	const struct testfs_opts opts = { .size_bytes = 16 * MIB };
	pthread_t threads[THREADS];

	(void)state;
	seed = testfs_seed();
	testfs_make(&t, &opts);
	fake_holders_set(&fake, t.fs);
	file = testfs_node(&t, INODE_ROOT, "file", S_IFREG | 0644);
	assert_int_equal(fs_write(t.fs, &testfs_root, file, words, sizeof(words), 0, 0), sizeof(words));
	assert_int_equal(fs_opened(t.fs, file, FS_OPEN_WRITE | FS_OPEN_MAP, &testfs_root), 0);
	assert_int_equal(fs_hold(t.fs, file), 0);
	for (unsigned blk = 0; blk < BLK; blk++)
		if (pthread_mutex_init(&pages[blk].lock, NULL) || pthread_mutex_init(&granting[blk], NULL))
			fail_msg("no mutex");
	assert_int_equal(pthread_barrier_init(&start, NULL, THREADS), 0);
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(
			pthread_create(&threads[i], NULL, i < THREADS / 2 ? mapper : holder, (void *)i), 0);
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	pthread_barrier_destroy(&start);
	if (wrong)
		fail_msg("%s", wrong);
	printf("# %u direct stores, %u of the kernel, %u drops\n", direct_stores, kernel_stores, drops);
	assert_true(direct_stores > 0 && kernel_stores > 0 && drops > 0);
	pages_drop();
	assert_int_equal(fs_read(t.fs, file, words, sizeof(words), 0), sizeof(words));
	for (unsigned blk = 0; blk < BLK; blk++)
		for (unsigned i = 0; i < THREADS; i++)
			assert_int_equal(words[blk * BLOCK_WORDS + i], told[i][blk]);
	fs_closed(t.fs, file, FS_OPEN_WRITE | FS_OPEN_MAP);
	fake_release(&fake, file, 0, BLK);
	fs_unhold(t.fs, file);
	fake_holders_end(&fake);
	testfs_check(&t);
	testfs_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_together) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
