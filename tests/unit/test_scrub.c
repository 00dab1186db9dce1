/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Scrub: finds each damaged copy and mends it, names what is lost, and believes nothing bad of units that others are just writing.
 */
#include <errno.h>
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
#include <time.h>

#include <cmocka.h>

#include "lib/testfs.h"
#include "media/ag.h"
#include "repair/scrub.h"
#include "util/log.h"

static struct testfs t;
static struct scrub *scrub;

static int setup(void **state)
{
	(void)state;
	testfs_make(&t, NULL);
	scrub = scrub_new(t.fs);
	assert_non_null(scrub);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	scrub_free(scrub);
	testfs_free(&t);
	return 0;
}

static struct scrub_status run_to_end(void)
{
	const struct timespec pause = { 0, 100000 };
	struct scrub_status status;

	assert_int_equal(scrub_start(scrub, 0), 0);
	do {
		nanosleep(&pause, NULL);
		scrub_get_status(scrub, &status);
	} while (status.state == SCRUB_RUNS);
	return status;
}

/* One bit of a copy of a unit turned over. */
static void damage(uint64_t laddr, unsigned copy, unsigned byte)
{
	uint8_t value;
	uint64_t off;

	assert_int_equal(pool_place(t.pool, laddr, copy, &off), 0);
	assert_int_equal(dax_load(t.dax, &value, off + byte, 1, NULL), 0);
	value ^= 4;
	assert_int_equal(dax_store(t.dax, off + byte, &value, 1), 0);
}

static void fill(unsigned nr)
{
	char name[16];
	uint64_t dir;

	snprintf(name, sizeof(name), "dir%u", nr);
	dir = testfs_node(&t, INODE_ROOT, name, S_IFDIR | 0755);

	for (unsigned i = 0; i < 700; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		testfs_node(&t, dir, name, S_IFREG | 0644);
	}
}

static void test_sound(void **state)
{
	struct scrub_status s;

	(void)state;
	fill(0);
	s = run_to_end();
	assert_int_equal(s.state, SCRUB_DONE);
	assert_int_equal(s.healed_count + s.lost_count + s.unhealed_count, 0);
	assert_int_equal(s.done_bytes, s.total_bytes);
	assert_true(s.ended_s >= s.started_s && s.started_s > 0);
	assert_true(s.run_ns > 0 && s.cpu_ns > 0);
}

/* Every unit in use, either copy: all are found, and the second run finds nothing. */
static void test_every_unit(void **state)
{
	struct scrub_status s;
	uint64_t hurt = 0;

	(void)state;
	fill(0);
	s = run_to_end();
	for (uint64_t laddr = 0; laddr < 1ull << CHUNK_SHIFT; laddr += BLOCK_SIZE) {
		uint8_t head[INODE_SIZE];
		uint64_t off;

		assert_int_equal(pool_place(t.pool, laddr, 0, &off), 0);
		assert_int_equal(dax_load(t.dax, head, off, sizeof(head), NULL), 0);
		/* Of inode clusters one record each, where it is in use (record 0 of the pool is not). */
		if (unit_size(unit_magic(head)) == 0)
			continue;
		if (unit_magic(head) == MAGIC_INODE && le64_get(((struct m_unit_hdr *)head)->uh_owner) > 700)
			continue;
		damage(laddr, (unsigned)(hurt % 2), 60 + (unsigned)(hurt % 400));
		hurt++;
	}
	assert_true(hurt > 30);
	s = run_to_end();
	assert_int_equal(s.state, SCRUB_DONE);
	assert_int_equal(s.healed_count, hurt);
	assert_int_equal(s.lost_count + s.unhealed_count, 0);
	s = run_to_end();
	assert_int_equal(s.healed_count + s.lost_count, 0);
	testfs_check(&t);
}

static void test_lost(void **state)
{
	struct scrub_status s;
	uint64_t ino = testfs_node(&t, INODE_ROOT, "f", S_IFREG | 0644);

	(void)state;
	damage(ino << INODE_SHIFT, 0, 100);
	damage(ino << INODE_SHIFT, 1, 200);
	s = run_to_end();
	assert_int_equal(s.state, SCRUB_DONE);
	assert_int_equal(s.lost_count, 1);
	assert_int_equal(s.healed_count, 0);
	/* Mended from outside, as fsck would: the walk at the end is to find nothing else. */
	damage(ino << INODE_SHIFT, 0, 100);
	damage(ino << INODE_SHIFT, 1, 200);
	testfs_check(&t);
}

static void test_stop_and_rate(void **state)
{
	struct scrub_status s;

	(void)state;
	/* More than a batch: at a byte a second it waits for days, whatever the machine does. */
	for (unsigned i = 0; i < 4; i++)
		fill(i);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(scrub_start(scrub, 1), 0);
		assert_int_equal(scrub_start(scrub, 1), -EBUSY);
		if (i == 1)
			scrub_set_rate(scrub, 2);
		scrub_stop(scrub);
		scrub_get_status(scrub, &s);
		assert_int_equal(s.state, SCRUB_STOPPED);
		assert_true(s.done_bytes < s.total_bytes);
	}
	scrub_stop(scrub);
	assert_int_equal(run_to_end().state, SCRUB_DONE);
}

/* Another rate counts from when it is told: for a batch that is being waited for too. */
static void test_rate_change(void **state)
{
	const struct timespec pause = { 0, 100000 };
	struct scrub_status s;

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		fill(i);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(scrub_start(scrub, 1), 0);
		do {
			nanosleep(&pause, NULL);
			scrub_get_status(scrub, &s);
		} while (s.done_bytes == 0);
		assert_int_equal(s.state, SCRUB_RUNS);
		scrub_set_rate(scrub, i == 0 ? 1ull << 40 : 0);
		do {
			nanosleep(&pause, NULL);
			scrub_get_status(scrub, &s);
		} while (s.state == SCRUB_RUNS);
		assert_int_equal(s.state, SCRUB_DONE);
	}
}

static atomic_bool stop;

static void *writer(void *arg)
{
	uint64_t seed = (uintptr_t)arg, dir;
	char name[16];

	snprintf(name, sizeof(name), "w%u", (unsigned)seed);
	dir = testfs_node(&t, INODE_ROOT, name, S_IFDIR | 0755);
	while (!atomic_load(&stop)) {
		snprintf(name, sizeof(name), "f%u", (unsigned)testfs_below(&seed, 300));
		if (testfs_mknod(&t, dir, name, S_IFREG | 0644, NULL))
			(void)!testfs_unlink(&t, dir, name);
	}
	return NULL;
}

/* Units come, go and change hands while they are read: none of them is bad. */
static void test_beside_writers(void **state)
{
	pthread_t threads[3];
	uint64_t bad = 0;

	(void)state;
	atomic_store(&stop, false);
	for (uintptr_t i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, writer, (void *)(i + 1)), 0);
	for (unsigned i = 0; i < 2000; i++) {
		struct scrub_status s = run_to_end();

		bad += s.healed_count + s.lost_count + s.unhealed_count + (s.state != SCRUB_DONE);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(bad, 0);
	testfs_check(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_sound, setup, teardown),
		cmocka_unit_test_setup_teardown(test_every_unit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lost, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stop_and_rate, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rate_change, setup, teardown),
		cmocka_unit_test_setup_teardown(test_beside_writers, setup, teardown),
	};

	log_setup("test_scrub", LOG_LEVEL_ERROR, false);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
