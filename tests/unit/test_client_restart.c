/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What libumbra does when the daemon ends and another one comes, against one of the test's own (fake_daemon.h). As soon as the library has let go, blocks move, and the places where they were are
 * filled with something else: whoever reads or stores by what he knew before is seen.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <umbra/ioctl.h>
#include <umbra/umbra.h>

#include "client/calls.h"
#include "fake_daemon.h"

#define LIMIT_S 110u
#define LIMIT_BROKEN_S 25u /* with a step left out some wait for ever */
#define BLOCK FAKE_BLOCK
#define BLOCKS 64u
#define BOTH (PROT_READ | PROT_WRITE)
#define THREADS 4u
#define SHARE (BLOCKS / THREADS) /* blocks of each thread */
#define DEATHS 20u

static struct fake *fake;
static struct umbra_file *file;
static int fd;
static unsigned long long lost_before;
static sigjmp_buf out;

static void on_fault(int sig, siginfo_t *info, void *context)
{
	(void)context;
	(void)info;
	siglongjmp(out, sig);
}

static int up(void **state)
{
	struct umbra_counts counts;

	(void)state;
	fake = fake_new(512, BLOCKS);
	fake_fill(fake, 0, BLOCKS, 1, false);
	fd = fake_open(fake, O_RDWR);
	assert_int_equal(umbra_attach(fd, &file), 0);
	umbra_get_counts(&counts);
	lost_before = counts.lost_sessions;
	return 0;
}

static int down(void **state)
{
	(void)state;
	umbra_detach(file);
	close(fd);
	fake_check(fake);
	fake_free(fake);
	return 0;
}

static void nap(void)
{
	const struct timespec pause = { .tv_nsec = 1000000 };

	nanosleep(&pause, NULL);
}

/* The daemon dies, the library lets go, the blocks move. */
static void die(bool mount_first)
{
	struct umbra_counts counts;

	/* Calls may have gone by the kernel since the last death: then there is no session yet that could end. */
	while (!fake_is_attached(fake))
		nap();
	fake_kill(fake, mount_first);
	do {
		nap();
		umbra_get_counts(&counts);
	} while (counts.lost_sessions == lost_before);
	lost_before = counts.lost_sessions;
	for (uint32_t i = 0; i < BLOCKS; i++)
		fake_move(fake, i);
}

struct task {
	pthread_t thread;
	void (*run)(struct task *t);
	uint8_t *at;
	atomic_bool done;
	ssize_t rc;
	uint64_t word;
};

static void run_load(struct task *t)
{
	memcpy(&t->word, t->at, 8);
}

static void run_store(struct task *t)
{
	memcpy(t->at, &t->word, 8);
}

static void run_read(struct task *t)
{
	t->rc = umbra_pread(file, &t->word, 8, 3 * BLOCK);
}

static void run_write(struct task *t)
{
	t->rc = umbra_pwrite(file, &t->word, 8, 4 * BLOCK);
}

static void run_sync(struct task *t)
{
	t->rc = umbra_msync(t->at, BLOCK, MS_SYNC);
}

static void *run(void *arg)
{
	struct task *t = arg;

	t->run(t);
	t->done = true;
	return NULL;
}

static uint8_t *map(void)
{
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	void *at;

	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	at = umbra_mmap(NULL, BLOCKS * BLOCK, BOTH, MAP_SHARED, file, 0);
	assert_int_equal(umbra_mmap_error(at), 0);
	return at;
}

static void test_waits(void **state)
{
	uint8_t *at = map();
	uint64_t word;

	(void)state;
	for (unsigned turn = 0; turn < 3; turn++) {
		struct task tasks[] = {
			{ .run = run_load, .at = at + 1 * BLOCK },
			{ .run = run_store, .at = at + 2 * BLOCK, .word = 0x22 + turn },
			{ .run = run_read },
			{ .run = run_write, .word = 0x44 + turn },
			{ .run = run_sync, .at = at + 5 * BLOCK },
		};

		at[5 * BLOCK] = 0x55;
		die(turn % 2);
		for (unsigned i = 0; i < 5; i++)
			pthread_create(&tasks[i].thread, NULL, run, &tasks[i]);
		for (unsigned i = 0; i < 200; i++)
			nap();
		for (unsigned i = 0; i < 5; i++)
			assert_false(tasks[i].done);
		fake_mount(fake);
		for (unsigned i = 0; i < 5; i++)
			pthread_join(tasks[i].thread, NULL);
		assert_int_equal(tasks[0].word, fake_word(1, 1));
		fake_read(fake, 2 * BLOCK, &word, 8);
		assert_int_equal(word, 0x22 + turn);
		assert_int_equal(tasks[2].rc, 8);
		assert_int_equal(tasks[2].word, fake_word(3, 1));
		assert_int_equal(tasks[3].rc, 8);
		fake_read(fake, 4 * BLOCK, &word, 8);
		assert_int_equal(word, 0x44 + turn);
		assert_int_equal(tasks[4].rc, 0);
	}
	/* Whoever has the file by the next mount, and whoever had it, have one file. */
	assert_int_equal(umbra_munmap(at, BLOCKS * BLOCK), 0);
}

static int touch(volatile uint8_t *at, bool store)
{
	int sig = sigsetjmp(out, 1);

	if (sig)
		return sig;
	if (store)
		*at = 0x11;
	else
		(void)*at;
	return 0;
}

/* Neither that of another generation nor that of another pool is read or stored to. */
static void test_another_file(void **state)
{
	uint8_t *at = map(), byte = 9;

	(void)state;
	assert_int_equal(touch(at, true), 0);
	for (unsigned what = 0; what < 2; what++) {
		die(false);
		if (what == 0)
			fake->generation = 2;
		else
			fake->pool = 2;
		fake_mount(fake);
		assert_int_equal(touch(at, false), SIGBUS);
		assert_int_equal(touch(at + 2 * BLOCK, true), SIGBUS);
		assert_int_equal(umbra_pread(file, &byte, 1, BLOCK), -ESTALE);
		assert_int_equal(umbra_pwrite(file, &byte, 1, BLOCK), -ESTALE);
		assert_int_equal(umbra_msync(at, BLOCK, MS_SYNC), -ESTALE);
		fake->generation = 1;
		fake->pool = 1;
		/* It is looked for again, but not all the time. */
		while (touch(at + 3 * BLOCK, true))
			nap();
		assert_int_equal(umbra_pread(file, &byte, 1, 3 * BLOCK), 1);
		assert_int_equal(byte, 0x11);
	}
	assert_int_equal(umbra_munmap(at, BLOCKS * BLOCK), 0);
}

/* The next daemon ends while it is asked which file that is: no answer is none that it is another one. */
static void test_next_ends(void **state)
{
	static const unsigned long asked[] = { FAKE_FSTAT, UMBRA_IOC_INFO, FS_IOC_GETVERSION };
	static const int errors[] = { ENOTCONN, ECONNABORTED, EIO };
	uint8_t *at = map(), byte = 0x11;

	(void)state;
	for (unsigned i = 0; i < 9; i++) {
		die(i % 2);
		fake->fails_with = errors[i % 3];
		fake->fails = asked[i / 3];
		fake->fails_times = 2; /* under its name below the mount, and as it is */
		fake_mount(fake);
		if (i % 2)
			assert_int_equal(touch(at + i * BLOCK, true), 0);
		else
			assert_int_equal(umbra_pwrite(file, &byte, 1, i * BLOCK), 1);
		assert_int_equal(fake->fails_times, 0);
		/* A call may have gone by the kernel. */
		while (!fake_is_attached(fake))
			assert_int_equal(umbra_pread(file, &byte, 1, 0), 1);
		fake_read(fake, i * BLOCK, &byte, 1);
		assert_int_equal(byte, 0x11);
	}
	assert_int_equal(umbra_munmap(at, BLOCKS * BLOCK), 0);
}

/* The kernel calls it deleted, but there it is. */
static void test_called_deleted(void **state)
{
	char other[sizeof(fake->path) + 8], link[40], name[sizeof(fake->path) + 16] = "";
	uint8_t byte = 0x11;

	(void)state;
	snprintf(other, sizeof(other), "%s.other", fake->path);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	/* The descriptor keeps the name that is removed; the file gets another of that text. */
	assert_int_equal(linkat(AT_FDCWD, fake->path, AT_FDCWD, other, 0), 0);
	assert_int_equal(unlink(fake->path), 0);
	assert_int_equal(rename(other, fake->path), 0);
	assert_true(readlink(link, name, sizeof(name) - 1) > 0);
	assert_non_null(strstr(name, " (deleted)"));
	die(false);
	fake_mount(fake);
	assert_int_equal(umbra_pwrite(file, &byte, 1, BLOCK), 1);
	byte = 0;
	assert_int_equal(umbra_pread(file, &byte, 1, BLOCK), 1);
	assert_int_equal(byte, 0x11);
}

/* The library's descriptors of the file by this mount, by how they are open: with the flag, without it. */
static void count_own(unsigned counts[2])
{
	DIR *fds = opendir("/proc/self/fd");
	struct stat file_st, st;
	struct dirent *entry;

	assert_non_null(fds);
	assert_int_equal(fstat(fake->fd, &file_st), 0);
	counts[0] = counts[1] = 0;
	while ((entry = readdir(fds))) {
		int own = atoi(entry->d_name);

		if (own == fake->fd || fstatat(dirfd(fds), entry->d_name, &st, 0) ||
		    st.st_dev != file_st.st_dev || st.st_ino != file_st.st_ino || fake_fd_is_dead(own))
			continue;
		counts[(fcntl(own, F_GETFL) & O_DIRECT) != 0]++;
	}
	closedir(fds);
}

/* Under umbra-run nobody sees to it, and the program's descriptor looks as if it did not: what is written by the next mount's goes around the kernel's pages. */
static void test_bypasses(void **state)
{
	void (*bypass)(int fd) = client_calls.fd_bypass;
	uint8_t byte = 0x11;
	unsigned counts[2];

	(void)state;
	client_calls.fd_bypass = NULL;
	assert_int_equal(fcntl(fd, F_SETFL, 0), 0);
	die(false);
	fake_mount(fake);
	assert_int_equal(umbra_pwrite(file, &byte, 1, BLOCK), 1);
	count_own(counts);
	assert_int_equal(counts[0], 0);
	assert_int_equal(counts[1], 1);
	client_calls.fd_bypass = bypass;
}

/* A call of the kernel's fails by the old descriptor; before the thread looks another one has opened the file again. */
static void test_overtaken(void **state)
{
	const uint64_t end = (BLOCKS - 1) * BLOCK;
	uint64_t word = 0x11;

	(void)state;
	/* Past the end: not by the library. */
	fake_set_size(fake, end);
	fake->fails_with = ENOTCONN;
	fake->fails = FAKE_PWRITE;
	fake->fails_times = 1;
	assert_int_equal(umbra_pwrite(file, &word, 8, (off_t)end), 8);
	assert_int_equal(fake->fails_times, 0);
	fake->fails_with = ECONNABORTED;
	fake->fails = FAKE_PREAD;
	fake->fails_times = 1;
	assert_int_equal(umbra_pread(file, &word, 8, (off_t)end + BLOCK), 0);
	assert_int_equal(fake->fails_times, 0);
	fake_read(fake, end, &word, 8);
	assert_int_equal(word, 0x11);
}

/* A descriptor of the next mount. */
static void test_attached_again(void **state)
{
	struct umbra_file *other;
	uint8_t byte = 9, *at = map();
	int other_fd;

	(void)state;
	assert_int_equal(touch(at, true), 0);
	die(true);
	fake_mount(fake);
	other_fd = fake_open(fake, O_RDWR);
	assert_int_equal(umbra_attach(other_fd, &other), 0);
	assert_int_equal(umbra_pwrite(other, &byte, 1, 0), 1);
	assert_int_equal(at[0], 9);
	assert_int_equal(umbra_pread(file, &byte, 1, BLOCK), 1);
	at[1] = 7;
	assert_int_equal(umbra_pread(other, &byte, 1, 1), 1);
	assert_int_equal(byte, 7);
	umbra_detach(other);
	close(other_fd);
	assert_int_equal(umbra_munmap(at, BLOCKS * BLOCK), 0);
	/* The library's own end before the daemon hears that the file is detached. */
	umbra_detach(file);
	close(fd);
	assert_int_equal(fake_opens(fake), 0);
	assert_int_equal(fake->open_then, 1);
	fd = fake_open(fake, O_RDWR);
	assert_int_equal(umbra_attach(fd, &file), 0);
}

/* ---- threads ---- */

static atomic_bool stop;
static atomic_uint calls[THREADS];

/* cmocka's assertions say nothing in threads other than the test's. */
static void must_be(int64_t what, int64_t expected, const char *name, uint64_t n)
{
	if (what == expected)
		return;
	fprintf(stderr, "call %llu of a thread: %s is %llx, not %llx\n", (unsigned long long)n, name,
		(unsigned long long)what, (unsigned long long)expected);
	abort();
}

/* Blocks of its own: what it has written last is there. */
static void *worker(void *arg)
{
	unsigned index = (unsigned)(uintptr_t)arg;
	uint64_t words[SHARE] = { 0 }, word = 0;

	for (unsigned i = 0; i < SHARE; i++)
		words[i] = fake_word(index * SHARE + i, 1);
	for (uint64_t n = 1; !stop; n++) {
		unsigned i = (unsigned)(n * 7 % SHARE);
		off_t off = (off_t)(index * SHARE + i) * BLOCK + 8;

		must_be(umbra_pread(file, &word, 8, off), 8, "what umbra_pread() says", n);
		must_be((int64_t)word, (int64_t)words[i], "the word", n);
		words[i] = n << 8 | index;
		must_be(umbra_pwrite(file, &words[i], 8, off), 8, "what umbra_pwrite() says", n);
		calls[index]++;
	}
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t threads[THREADS];

	(void)state;
	stop = false;
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, worker, (void *)(uintptr_t)i), 0);
	for (unsigned death = 0; death < DEATHS; death++) {
		unsigned before[THREADS];

		for (unsigned i = 0; i < THREADS; i++)
			before[i] = calls[i];
		for (unsigned i = 0; i < THREADS; i++)
			while (calls[i] - before[i] < 20)
				nap();
		die(death % 2);
		fake_mount(fake);
	}
	stop = true;
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_another_file, up, down),
		cmocka_unit_test_setup_teardown(test_attached_again, up, down),
		cmocka_unit_test_setup_teardown(test_bypasses, up, down),
		cmocka_unit_test_setup_teardown(test_called_deleted, up, down),
		cmocka_unit_test_setup_teardown(test_next_ends, up, down),
		cmocka_unit_test_setup_teardown(test_overtaken, up, down),
		cmocka_unit_test_setup_teardown(test_threads, up, down),
		cmocka_unit_test_setup_teardown(test_waits, up, down),
	};
	const char *only = getenv("UMBRA_TEST_ONLY"), *broken = getenv("UMBRA_LEAVE_OUT");

	if (only && *only == '!')
		cmocka_set_skip_filter(only + 1);
	else if (only)
		cmocka_set_test_filter(only);
	setenv("UMBRA_RESTART", "wait:1000", 1);
	alarm(broken && *broken ? LIMIT_BROKEN_S : LIMIT_S);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
