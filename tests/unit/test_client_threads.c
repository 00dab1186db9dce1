/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libumbra by many threads, while blocks move, get shared, and the daemon comes and goes (fake_daemon.h). Each word of the file says whose block it is of and who wrote
 * it last; a block that has been taken away holds something else from the moment on that everybody has let go of it.
 */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <umbra/umbra.h>

#include "fake_daemon.h"

#define LIMIT_S 110u
#define BLOCK FAKE_BLOCK
#define BLOCKS 512u
#define WORDS (BLOCK / 8)
#define READERS 2u
#define WRITERS 2u
#define WORKERS (READERS + WRITERS)
#define SPAN 128u /* blocks of a read */
#define CHANGES 1000
#define DEATHS 15
#define CHILDREN 8

struct scene {
	struct fake *fake;
	struct umbra_file *file;
	int fd;
	atomic_bool stop;
	atomic_uint reads, writes;
	uint32_t last[BLOCKS][WORDS]; /* the tag that its writer wrote last */
};

struct worker {
	pthread_t thread;
	unsigned index; /* of its kind */
	uint64_t number;
};

static struct scene s;
static struct worker workers[WORKERS];

static uint32_t draw(uint64_t *number, uint32_t below)
{
	*number ^= *number << 13;
	*number ^= *number >> 7;
	*number ^= *number << 17;
	return (uint32_t)(*number >> 20) % below;
}

static void stop_here(const char *what, uint64_t off, uint64_t word)
{
	fprintf(stderr, "%s at %#llx: %#llx\n", what, (unsigned long long)off, (unsigned long long)word);
	abort();
}

static void *read_on(void *arg)
{
	struct worker *w = arg;
	uint64_t *words = malloc(SPAN * BLOCK);

	while (!s.stop) {
		uint32_t len = (draw(&w->number, 4) ? 1 : 1 + draw(&w->number, SPAN)) * WORDS -
			       draw(&w->number, WORDS);
		uint32_t first = draw(&w->number, BLOCKS * WORDS - len + 1);

		if (umbra_pread(s.file, words, len * 8ul, first * 8l) != (ssize_t)(len * 8ul))
			stop_here("short", first * 8ul, 0);
		for (uint32_t i = 0; i < len; i++)
			if (words[i] >> 32 != (first + i) / WORDS)
				stop_here("read", (first + i) * 8ul, words[i]);
		s.reads++;
	}
	free(words);
	return NULL;
}

/* Blocks of which the number leaves its index. */
static void *write_on(void *arg)
{
	uint64_t words[WORDS];
	struct worker *w = arg;

	for (uint32_t tag = 100; !s.stop; tag++) {
		uint32_t block = draw(&w->number, BLOCKS / WRITERS) * WRITERS + w->index;
		uint32_t from = draw(&w->number, 2) ? 0 : draw(&w->number, WORDS);
		uint32_t len = from ? 1 + draw(&w->number, WORDS - from) : WORDS;

		for (uint32_t i = 0; i < len; i++) {
			words[i] = fake_word(block, tag);
			s.last[block][from + i] = tag;
		}
		if (umbra_pwrite(s.file, words, len * 8ul, (block * WORDS + from) * 8l) !=
		    (ssize_t)(len * 8ul))
			stop_here("short write", block * (uint64_t)BLOCK, 0);
		s.writes++;
	}
	return NULL;
}

static void work_begins(void)
{
	for (uint32_t i = 0; i < BLOCKS; i++)
		for (uint32_t w = 0; w < WORDS; w++)
			s.last[i][w] = 1;
	s.stop = false;
	s.reads = s.writes = 0;
	for (unsigned i = 0; i < WORKERS; i++) {
		bool reads = i < READERS;

		workers[i].index = reads ? i : i - READERS;
		workers[i].number = 88172645463325252ull + i;
		assert_int_equal(
			pthread_create(&workers[i].thread, NULL, reads ? read_on : write_on, &workers[i]), 0);
	}
}

static void wait_for_work(unsigned reads, unsigned writes)
{
	struct timespec pause = { 0, 1000000 };

	reads += s.reads;
	writes += s.writes;
	while ((int)(s.reads - reads) < 0 || (int)(s.writes - writes) < 0)
		nanosleep(&pause, NULL);
}

static void work_ends(void)
{
	static uint64_t words[BLOCKS * WORDS];

	s.stop = true;
	for (unsigned i = 0; i < WORKERS; i++)
		pthread_join(workers[i].thread, NULL);
	fake_check(s.fake);
	fake_read(s.fake, 0, words, sizeof(words));
	for (uint32_t i = 0; i < BLOCKS * WORDS; i++)
		if (words[i] != fake_word(i / WORDS, s.last[i / WORDS][i % WORDS]))
			stop_here("at the end", i * 8ul, words[i]);
}

static int up(void **state)
{
	(void)state;
	s.fake = fake_new(8 * BLOCKS, BLOCKS);
	fake_fill(s.fake, 0, BLOCKS, 1, false);
	s.fd = fake_open(s.fake, O_RDWR);
	assert_int_equal(umbra_attach(s.fd, &s.file), 0);
	return 0;
}

static int down(void **state)
{
	(void)state;
	umbra_detach(s.file);
	close(s.fd);
	fake_free(s.fake);
	return 0;
}

/* What has been read is of the block's own, always; nothing is stored where somebody has let go; no store is forgotten. */
static void test_blocks_move(void **state)
{
	uint64_t number = 4711;
	struct umbra_counts c;

	(void)state;
	work_begins();
	for (unsigned i = 0; i < CHANGES; i++) {
		uint32_t lo = draw(&number, BLOCKS), hi = lo + 1 + draw(&number, draw(&number, 4) ? 8 : SPAN);
		bool share = draw(&number, 2);

		hi = hi < BLOCKS ? hi : BLOCKS;
		fake_begin(s.fake, lo, hi, share);
		for (uint32_t at = lo; at < hi; at++)
			if (share)
				fake_share(s.fake, at);
			else
				fake_move(s.fake, at);
		fake_end(s.fake);
		if (i % 20 == 0)
			wait_for_work(1, 1);
	}
	work_ends();
	umbra_get_counts(&c);
	assert_true(c.reads > 0 && c.writes > 0);
	assert_in_range(c.revokes, CHANGES, UINT64_MAX);
}

static void test_daemon_comes_and_goes(void **state)
{
	(void)state;
	work_begins();
	for (unsigned i = 0; i < DEATHS; i++) {
		wait_for_work(5, 5);
		fake_down(s.fake);
		wait_for_work(5, 5);
		fake_up(s.fake);
	}
	wait_for_work(5, 5);
	work_ends();
}

/* Who waits for an answer keeps nobody else from reading. */
static void *ask_for_all(void *arg)
{
	static uint8_t all[BLOCKS * BLOCK];

	(void)arg;
	if (umbra_pread(s.file, all, sizeof(all), 0) != sizeof(all))
		stop_here("short", 0, 0);
	return NULL;
}

static void test_answers_come_late(void **state)
{
	pthread_t thread;
	uint64_t word;

	(void)state;
	s.fake->delay_ms = 5;
	s.fake->pieces_max = 1;
	assert_int_equal(umbra_pread(s.file, &word, 8, 0), 8);
	fake_begin(s.fake, BLOCKS / 2, BLOCKS, false);
	assert_int_equal(pthread_create(&thread, NULL, ask_for_all, NULL), 0);
	for (unsigned i = 0; i < 1000; i++)
		assert_int_equal(umbra_pread(s.file, &word, 8, i * 8), 8);
	fake_end(s.fake);
	pthread_join(thread, NULL);
	work_begins();
	wait_for_work(20, 20);
	work_ends();
}

static void child_run(unsigned index)
{
	uint64_t words[WORDS], word;
	uint32_t block = index;

	alarm(60);
	if (umbra_pread(s.file, words, sizeof(words), block * (off_t)BLOCK) != sizeof(words))
		_exit(1);
	for (uint32_t i = 0; i < WORDS; i++)
		if (words[i] >> 32 != block)
			_exit(2);
	/* Beyond what the parent's threads write. */
	word = fake_word(BLOCKS - 1, 5000 + index);
	if (umbra_pwrite(s.file, &word, 8, (off_t)BLOCKS * BLOCK + index * 8) != 8)
		_exit(3);
	if (umbra_pread(s.file, words, 8, (off_t)BLOCKS * BLOCK + index * 8) != 8 || words[0] != word)
		_exit(4);
	_exit(0);
}

static void test_fork_in_the_middle(void **state)
{
	uint64_t word;

	(void)state;
	umbra_detach(s.file);
	close(s.fd);
	fake_free(s.fake);
	s.fake = fake_new(8 * BLOCKS, BLOCKS + 1);
	fake_fill(s.fake, 0, BLOCKS + 1, 1, false);
	s.fd = fake_open(s.fake, O_RDWR);
	assert_int_equal(umbra_attach(s.fd, &s.file), 0);
	work_begins();
	for (unsigned i = 0; i < CHILDREN; i++) {
		int status;
		pid_t pid;

		wait_for_work(2, 2);
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0)
			child_run(i);
		fake_begin(s.fake, 0, BLOCKS, false);
		for (uint32_t at = 0; at < BLOCKS; at += 7)
			fake_move(s.fake, at);
		fake_end(s.fake);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
		fake_read(s.fake, (uint64_t)BLOCKS * BLOCK + i * 8, &word, 8);
		assert_int_equal(word, fake_word(BLOCKS - 1, 5000 + i));
	}
	work_ends();
}

static struct {
	uint8_t *to; /* two pages, of which the second one is not there until the copy has met that */
	atomic_bool met, revoked, revoked_within;
	bool reads; /* the handler, too */
} slow;

/* In the middle of the copy; as long as a revoke that does not wait for it takes, and much longer. */
static void copy_stands(int sig)
{
	struct timespec pause = { 0, 1000000 };
	uint64_t word;

	(void)sig;
	if (slow.reads && (umbra_pread(s.file, &word, 8, 0) != 8 || word != fake_word(0, 1)))
		_exit(1);
	slow.met = true;
	for (unsigned i = 0; i < 300 && !slow.revoked; i++)
		nanosleep(&pause, NULL);
	slow.revoked_within = slow.revoked;
	if (mprotect(slow.to, 2 * BLOCK, PROT_READ | PROT_WRITE))
		_exit(1);
}

static void *read_slowly(void *arg)
{
	(void)arg;
	if (umbra_pread(s.file, slow.to, 2 * BLOCK, 0) != 2 * BLOCK)
		stop_here("short", 0, 0);
	return NULL;
}

static void revoke_waits(bool handler_reads)
{
	struct sigaction action = { .sa_handler = copy_stands }, before;
	struct timespec pause = { 0, 1000000 };
	pthread_t thread;
	uint64_t word;

	slow.met = slow.revoked = slow.revoked_within = false;
	slow.reads = handler_reads;
	slow.to = mmap(NULL, 2 * BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(slow.to, MAP_FAILED);
	assert_int_equal(mprotect(slow.to + BLOCK, BLOCK, PROT_NONE), 0);
	assert_int_equal(sigaction(SIGSEGV, &action, &before), 0);
	assert_int_equal(umbra_pread(s.file, &word, 8, 0), 8); /* all pieces are known */
	assert_int_equal(pthread_create(&thread, NULL, read_slowly, NULL), 0);
	while (!slow.met)
		nanosleep(&pause, NULL);
	fake_begin(s.fake, 0, 2, false);
	slow.revoked = true;
	fake_move(s.fake, 0);
	fake_move(s.fake, 1);
	fake_end(s.fake);
	pthread_join(thread, NULL);
	assert_int_equal(sigaction(SIGSEGV, &before, NULL), 0);
	assert_false(slow.revoked_within);
	for (uint32_t i = 0; i < 2 * WORDS; i++) {
		memcpy(&word, slow.to + i * 8ul, 8);
		assert_int_equal(word, fake_word(i / WORDS, 1));
	}
	munmap(slow.to, 2 * BLOCK);
}

static void test_revoke_waits_for_a_copy(void **state)
{
	(void)state;
	revoke_waits(false);
}

/* Which a handler has interrupted that reads, too: that is the kernel's. */
static void test_revoke_waits_for_the_outer_copy(void **state)
{
	(void)state;
	revoke_waits(true);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, up, down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_blocks_move),
		CASE(test_daemon_comes_and_goes),
		CASE(test_answers_come_late),
		CASE(test_fork_in_the_middle),
		CASE(test_revoke_waits_for_a_copy),
		CASE(test_revoke_waits_for_the_outer_copy),
	};
	const char *only = getenv("UMBRA_TEST_ONLY");

	if (only && *only == '!')
		cmocka_set_skip_filter(only + 1);
	else if (only)
		cmocka_set_test_filter(only);
	alarm(LIMIT_S);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
