/* SPDX-License-Identifier: BSD-3-Clause */
/* Mappings of libumbra, against a daemon of the test's own (fake_daemon.h). */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <umbra/umbra.h>

#include "client/mapping.h"
#include "fake_daemon.h"

#define LIMIT_S 110u
#define BLOCK FAKE_BLOCK
#define BLOCKS 64u
#define BOTH (PROT_READ | PROT_WRITE)
#define THREADS 3u
#define CHANGES 600u

static struct fake *fake;
static struct umbra_file *file;
static int fd;
static sigjmp_buf out;
static void *volatile fault_addr;
static volatile int fault_sig;

static void on_fault(int sig, siginfo_t *info, void *context)
{
	(void)context;
	fault_sig = sig;
	fault_addr = info->si_addr;
	siglongjmp(out, 1);
}

/* 16 blocks in a row, a hole of 4, 12 that are strewn; the rest is not there. */
static int up(void **state)
{
	(void)state;
	fake = fake_new(512, BLOCKS);
	fake_fill(fake, 0, 16, 1, false);
	fake_fill(fake, 20, 32, 2, true);
	fd = fake_open(fake, O_RDWR);
	assert_int_equal(umbra_attach(fd, &file), 0);
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

static uint8_t *map(void *addr, uint64_t len, int prot, int flags, uint64_t off)
{
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	void *at;

	/* cmocka has set its own for this test. The library takes them, and passes on to these what is not for it. */
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	at = umbra_mmap(addr, len, prot, flags, file, (off_t)off);
	assert_int_equal(umbra_mmap_error(at), 0);
	return at;
}

/* The signal that touching it gives, or 0. */
static int touch(volatile uint8_t *at, bool store)
{
	fault_sig = 0;
	if (sigsetjmp(out, 1))
		return fault_sig;
	if (store)
		*at = 0x11;
	else
		(void)*at;
	return 0;
}

static void same(const uint8_t *at, uint64_t off, uint64_t len)
{
	static uint8_t expected[BLOCKS * BLOCK];

	fake_read(fake, off, expected, len);
	assert_memory_equal(at, expected, len);
}

static void test_reading(void **state)
{
	uint8_t *at = map(NULL, 32 * BLOCK, PROT_READ, MAP_SHARED, 0), *other;

	(void)state;
	same(at, 0, 32 * BLOCK);
	assert_int_equal(fake->maps, 1);
	other = map(NULL, 5 * BLOCK, PROT_READ, MAP_PRIVATE, 14 * BLOCK);
	same(other, 14 * BLOCK, 5 * BLOCK);
	assert_int_equal(fake->maps, 1);
	assert_int_equal(touch(at, true), SIGSEGV);
	assert_ptr_equal(fault_addr, at);
	assert_int_equal(umbra_munmap(at, 32 * BLOCK), 0);
	assert_int_equal(touch(at + 5, false), SIGSEGV);
	assert_ptr_equal(fault_addr, at + 5);
	assert_int_equal(umbra_munmap(other, 5 * BLOCK), 0);
}

/* It is in place: the kernel reads it, for whom there is no signal. */
static bool is_there(const uint8_t *at)
{
	int ends[2];
	bool is;

	assert_int_equal(pipe(ends), 0);
	is = write(ends[1], at, 1) == 1;
	close(ends[0]);
	close(ends[1]);
	return is;
}

/* A descriptor that is there after the file has been detached holds up others who store. */
static void test_closed_before_detached(void **state)
{
	uint8_t *at = map(NULL, 32 * BLOCK, BOTH, MAP_SHARED, 0);

	(void)state;
	assert_int_equal(touch(at, true), 0);
	assert_int_equal(fake_opens(fake), 2);
	umbra_detach(file);
	close(fd);
	assert_int_equal(fake_opens(fake), 1);
	assert_int_equal(umbra_munmap(at, 32 * BLOCK), 0);
	assert_int_equal(fake->detaches, 2);
	assert_int_equal(fake->open_then, 0);
	assert_int_equal(fake_opens(fake), 0);
	fd = fake_open(fake, O_RDWR);
	assert_int_equal(umbra_attach(fd, &file), 0);
}

static void test_storing(void **state)
{
	uint8_t *at = map(NULL, 32 * BLOCK, BOTH, MAP_SHARED, 0), got[3];

	(void)state;
	fake_begin(fake, 0, BLOCKS, true);
	fake_share(fake, 2);
	fake_share(fake, 3);
	fake_end(fake);
	assert_int_equal(fake->slots[FAKE_SLOT].stored, 0);
	for (unsigned i = 0; i < 32; i++)
		at[i * BLOCK + i] = (uint8_t)(0xa0 + i);
	assert_int_equal(fake->slots[FAKE_SLOT].stored, 1);
	for (unsigned i = 0; i < 32; i++) {
		fake_read(fake, i * BLOCK + i, got, 1);
		assert_int_equal(got[0], 0xa0 + i);
	}
	same(at, 0, 32 * BLOCK);
	assert_int_equal(umbra_pread(file, got, 3, 17 * BLOCK + 16), 3);
	assert_memory_equal(got, ((uint8_t[]){ 0, 0xa0 + 17, 0 }), 3);
	fake->slots[FAKE_SLOT].stored = 0;
	at[7] = 1;
	assert_int_equal(umbra_msync(at, 32 * BLOCK, MS_SYNC), 0);
	assert_int_equal(fake->slots[FAKE_SLOT].stored, 1);
	assert_int_equal(umbra_munmap(at, 32 * BLOCK), 0);
}

/* All that was asked for comes into place, also what lies elsewhere than the page that was touched. */
static void test_around(void **state)
{
	uint8_t *at = map(NULL, 32 * BLOCK, BOTH, MAP_SHARED, 0);

	(void)state;
	fake_begin(fake, 4, 12, false);
	for (uint32_t i = 4; i < 12; i++)
		fake_share(fake, i);
	fake_end(fake);
	fake->strews = true;
	assert_int_equal(touch(at + 9 * BLOCK, false), 0);
	assert_int_equal(touch(at + 9 * BLOCK, true), 0);
	for (unsigned i = 4; i < 12; i++)
		assert_true(is_there(at + (uint64_t)i * BLOCK));
	assert_int_equal(umbra_munmap(at, 32 * BLOCK), 0);
}

/* There is no space for what is copied around a store: the page alone. */
static void test_little_space(void **state)
{
	uint32_t before[16];
	unsigned asked;
	uint8_t *at;

	(void)state;
	fake_begin(fake, 0, BLOCKS, true);
	for (uint32_t i = 0; i < 16; i++)
		fake_share(fake, i);
	fake_end(fake);
	at = map(NULL, 16 * BLOCK, BOTH, MAP_SHARED, 0);
	for (uint32_t i = 0; i < 16; i++)
		before[i] = fake->blocks[i].dev;
	fake->write_max = 1;
	at[9 * BLOCK] = 0x77;
	for (uint32_t i = 0; i < 16; i++)
		assert_int_equal(fake->blocks[i].dev == before[i], i != 9);
	same(at, 0, 16 * BLOCK);
	fake->write_max = 0;
	fake->map_write_error = ENOSPC;
	assert_int_equal(touch(at + 3 * BLOCK, true), SIGBUS);
	/* Who has waited in vain does not wait again, until somebody has got some: looks and asks once, and again when it comes as SIGBUS. */
	for (unsigned i = 4; i < 8; i++) {
		unsigned asks = fake->maps;

		assert_int_equal(touch(at + i * BLOCK, true), SIGBUS);
		assert_true(fake->maps <= asks + 4);
	}
	fake->map_write_error = 0;
	assert_int_equal(touch(at + 3 * BLOCK, true), 0);
	fake->map_write_error = ENOSPC;
	asked = fake->maps;
	assert_int_equal(touch(at + 5 * BLOCK, true), SIGBUS);
	assert_true(fake->maps > asked + 8);
	fake->map_write_error = 0;
	assert_int_equal(umbra_munmap(at, 16 * BLOCK), 0);
}

/* Space comes once a few have asked in vain. */
static void *space_maker(void *arg)
{
	unsigned before = fake->maps;

	(void)arg;
	while (fake->maps < before + 4)
		usleep(1000);
	fake->map_write_error = 0;
	return NULL;
}

static void test_space_given_back(void **state)
{
	uint8_t *at = map(NULL, 16 * BLOCK, BOTH, MAP_SHARED, 0);
	pthread_t thread;

	(void)state;
	fake_begin(fake, 0, BLOCKS, true);
	fake_share(fake, 3);
	fake_end(fake);
	assert_int_equal(touch(at, false), 0);
	fake->map_write_error = ENOSPC;
	assert_int_equal(pthread_create(&thread, NULL, space_maker, NULL), 0);
	assert_int_equal(touch(at + 3 * BLOCK, true), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(umbra_munmap(at, 16 * BLOCK), 0);
}

/* What is copied for a store is as large as the window, and no more. */
static void test_window(void **state)
{
	uint8_t *at;
	uint32_t before[BLOCKS];

	(void)state;
	fake_fill(fake, 0, BLOCKS, 3, false);
	fake_begin(fake, 0, BLOCKS, true);
	for (uint32_t i = 0; i < BLOCKS; i++)
		fake_share(fake, i);
	fake_end(fake);
	at = map(NULL, BLOCKS * BLOCK, BOTH, MAP_SHARED, 0);
	for (uint32_t i = 0; i < BLOCKS; i++)
		before[i] = fake->blocks[i].dev;
	at[20 * BLOCK] = 0x78;
	for (uint32_t i = 0; i < BLOCKS; i++)
		assert_int_equal(fake->blocks[i].dev == before[i], i < 16 || i >= 32);
	at[33 * BLOCK] = 0x79;
	for (uint32_t i = 0; i < BLOCKS; i++)
		assert_int_equal(fake->blocks[i].dev == before[i], i < 16);
	same(at, 0, BLOCKS * BLOCK);
	assert_int_equal(umbra_munmap(at, BLOCKS * BLOCK), 0);
}

static void test_revoke(void **state)
{
	uint8_t *at = map(NULL, 32 * BLOCK, BOTH, MAP_SHARED, 0);

	(void)state;
	memset(at, 0x31, 4 * BLOCK);
	same(at, 0, 32 * BLOCK);
	fake->slots[FAKE_SLOT].stored = 0;
	at[0] = 0x32;
	fake_begin(fake, 0, 4, false);
	assert_int_equal(fake->slots[FAKE_SLOT].stored, 1);
	for (uint32_t i = 0; i < 4; i++)
		fake_move(fake, i);
	fake_end(fake);
	same(at, 0, 32 * BLOCK);
	memset(at, 0x33, 4 * BLOCK);
	fake_begin(fake, 1, 2, true);
	fake_share(fake, 1);
	fake_end(fake);
	same(at, 0, 32 * BLOCK);
	at[BLOCK] = 0x34;
	same(at, 0, 32 * BLOCK);
	fake_begin(fake, 2, 3, false);
	fake_punch(fake, 2);
	fake_end(fake);
	assert_int_equal(at[2 * BLOCK + 1], 0);
	fake_down(fake);
	fake_up(fake);
	same(at, 0, 32 * BLOCK);
	at[5 * BLOCK] = 0x35;
	same(at, 0, 32 * BLOCK);
	assert_int_equal(umbra_munmap(at, 32 * BLOCK), 0);
}

static void test_the_end(void **state)
{
	uint8_t *at = map(NULL, 48 * BLOCK, BOTH, MAP_SHARED, 0);

	(void)state;
	for (unsigned store = 0; store < 2; store++) {
		assert_int_equal(touch(at + 32 * BLOCK + 9, store), SIGBUS);
		assert_ptr_equal(fault_addr, at + 32 * BLOCK + 9);
		assert_int_equal(touch(at + 40 * BLOCK, store), SIGBUS);
	}
	assert_int_equal(touch(at + 32 * BLOCK - 1, false), 0);
	/* It becomes longer, and shorter. */
	fake_fill(fake, 32, 36, 3, false);
	assert_int_equal(touch(at + 32 * BLOCK + 9, true), 0);
	same(at, 0, 36 * BLOCK);
	assert_int_equal(touch(at + 36 * BLOCK, false), SIGBUS);
	fake_begin(fake, 10, BLOCKS, false);
	fake_set_size(fake, 9 * BLOCK + 1);
	fake_end(fake);
	assert_int_equal(touch(at + 10 * BLOCK - 1, false), 0);
	assert_int_equal(touch(at + 10 * BLOCK, false), SIGBUS);
	/* In the page of the end, after it, with nothing in place. */
	fake_begin(fake, 9, BLOCKS, false);
	fake_end(fake);
	assert_int_equal(touch(at + 10 * BLOCK - 1, true), 0);
	assert_int_equal(umbra_munmap(at, 48 * BLOCK), 0);
}

static void test_moved(void **state)
{
	uint8_t *at = map(NULL, 12 * BLOCK, BOTH, MAP_SHARED, 2 * BLOCK), *to;

	(void)state;
	at[5 * BLOCK] = 0x55;
	to = umbra_mremap(at, 12 * BLOCK, 20 * BLOCK, MREMAP_MAYMOVE, NULL);
	assert_int_equal(umbra_mmap_error(to), 0);
	same(to, 2 * BLOCK, 20 * BLOCK);
	assert_int_equal(umbra_mmap_error(umbra_mremap(to, 21 * BLOCK, 30 * BLOCK, MREMAP_MAYMOVE, NULL)),
			 -EFAULT);
	assert_ptr_equal(umbra_mremap(to, 20 * BLOCK, 4 * BLOCK, 0, NULL), to);
	assert_int_equal(touch(to + 4 * BLOCK, false), SIGSEGV);
	assert_int_equal(umbra_madvise(to, 4 * BLOCK, MADV_DONTNEED), 0);
	assert_int_equal(umbra_madvise(to, 5 * BLOCK, MADV_WILLNEED), -ENOMEM);
	same(to, 2 * BLOCK, 4 * BLOCK);
	assert_int_equal(umbra_munmap(to, 4 * BLOCK), 0);
}

static void test_parts(void **state)
{
	uint8_t *at = map(NULL, 32 * BLOCK, BOTH, MAP_SHARED, 0);

	(void)state;
	same(at, 0, 32 * BLOCK);
	assert_int_equal(umbra_munmap(at + 4 * BLOCK, 2 * BLOCK), 0);
	assert_int_equal(touch(at + 4 * BLOCK, false), SIGSEGV);
	assert_int_equal(touch(at + 6 * BLOCK - 1, true), SIGSEGV);
	same(at, 0, 4 * BLOCK);
	same(at + 6 * BLOCK, 6 * BLOCK, 26 * BLOCK);
	/* Something else is there now: a revoke leaves it alone. */
	assert_ptr_equal(mmap(at + 4 * BLOCK, 2 * BLOCK, BOTH, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
			      0),
			 at + 4 * BLOCK);
	memset(at + 4 * BLOCK, 0x77, 2 * BLOCK);
	fake_begin(fake, 0, BLOCKS, false);
	for (uint32_t i = 0; i < 16; i++)
		fake_move(fake, i);
	fake_end(fake);
	assert_int_equal(at[5 * BLOCK], 0x77);
	/* Another place of the file over the middle of it, and over what is not ours. */
	assert_ptr_equal(map(at + 3 * BLOCK, 4 * BLOCK, BOTH, MAP_SHARED | MAP_FIXED, 24 * BLOCK),
			 at + 3 * BLOCK);
	same(at, 0, 3 * BLOCK);
	same(at + 3 * BLOCK, 24 * BLOCK, 4 * BLOCK);
	same(at + 7 * BLOCK, 7 * BLOCK, 25 * BLOCK);
	at[3 * BLOCK] = 0x55;
	same(at + 24 * BLOCK, 24 * BLOCK, BLOCK);
	assert_int_equal(
		umbra_mmap_error(umbra_mmap(at, BLOCK, BOTH, MAP_SHARED | MAP_FIXED_NOREPLACE, file, 0)),
		-EEXIST);
	assert_int_equal(umbra_munmap(at, 32 * BLOCK), 0);
	for (unsigned i = 0; i < 32; i++)
		assert_int_equal(touch(at + i * BLOCK, false), SIGSEGV);
	/* What is not ours goes too. */
	assert_int_equal(umbra_munmap(at, 32 * BLOCK), 0);
}

static void test_rights(void **state)
{
	uint8_t *at = map(NULL, 8 * BLOCK, BOTH, MAP_SHARED, 0);

	(void)state;
	at[0] = 1;
	assert_int_equal(umbra_mprotect(at, 2 * BLOCK, PROT_READ), 0);
	assert_int_equal(touch(at, true), SIGSEGV);
	assert_int_equal(touch(at, false), 0);
	assert_int_equal(touch(at + 2 * BLOCK, true), 0);
	assert_int_equal(umbra_mprotect(at + BLOCK, 2 * BLOCK, PROT_NONE), 0);
	assert_int_equal(touch(at + BLOCK, false), SIGSEGV);
	assert_int_equal(umbra_mprotect(at, 8 * BLOCK, BOTH), 0);
	assert_int_equal(touch(at + BLOCK, true), 0);
	same(at, 0, 8 * BLOCK);
	assert_int_equal(umbra_munmap(at, 8 * BLOCK), 0);
	assert_int_equal(umbra_mprotect(at, BLOCK, PROT_READ), -ENOMEM);
}

static void test_refused(void **state)
{
	int only = fake_open(fake, O_RDONLY);
	struct umbra_file *reader;
	void *at;

	(void)state;
	assert_int_equal(umbra_attach(only, &reader), 0);
	assert_int_equal(umbra_mmap_error(umbra_mmap(NULL, BLOCK, BOTH, MAP_SHARED, reader, 0)), -EACCES);
	at = umbra_mmap(NULL, BLOCK, PROT_READ, MAP_SHARED, reader, 0);
	assert_int_equal(umbra_mmap_error(at), 0);
	/* It stays when the file is detached and closed. */
	umbra_detach(reader);
	close(only);
	same(at, 0, BLOCK);
	assert_int_equal(umbra_mprotect(at, BLOCK, BOTH), -EACCES);
	assert_int_equal(umbra_munmap(at, BLOCK), 0);
	assert_int_equal(umbra_mmap_error(umbra_mmap(NULL, BLOCK, BOTH, MAP_PRIVATE, file, 0)), -EOPNOTSUPP);
	assert_int_equal(umbra_mmap_error(umbra_mmap(NULL, BLOCK, PROT_EXEC, MAP_SHARED, file, 0)),
			 -EOPNOTSUPP);
	assert_int_equal(umbra_mmap_error(umbra_mmap(NULL, 0, BOTH, MAP_SHARED, file, 0)), -EINVAL);
	assert_int_equal(umbra_mmap_error(umbra_mmap(NULL, BLOCK, BOTH, MAP_SHARED, file, 100)), -EINVAL);
	assert_int_equal(umbra_mmap_error(umbra_mmap(NULL, BLOCK, BOTH, 0, file, 0)), -EINVAL);
	assert_int_equal(umbra_munmap((void *)1, BLOCK), -EINVAL);
	fake_begin(fake, 0, BLOCKS, false);
	fake_end(fake);
	fake->map_error = EINVAL;
	assert_int_equal(umbra_mmap_error(umbra_mmap(NULL, BLOCK, BOTH, MAP_SHARED, file, 20 * BLOCK)),
			 -EOPNOTSUPP);
	fake->map_error = 0;
}

static void test_no_space(void **state)
{
	uint8_t *at = map(NULL, 20 * BLOCK, BOTH, MAP_SHARED, 0);

	(void)state;
	fake->map_write_error = ENOSPC;
	assert_int_equal(touch(at + 17 * BLOCK, true), SIGBUS);
	fake->map_write_error = 0;
	assert_int_equal(touch(at + 17 * BLOCK, true), 0);
	assert_int_equal(umbra_munmap(at, 20 * BLOCK), 0);
}

static void test_lost(void **state)
{
	uint8_t *at = map(NULL, 20 * BLOCK, BOTH, MAP_SHARED, 0);

	(void)state;
	fake_begin(fake, 0, BLOCKS, false);
	fake->blocks[3].lost = true;
	fake_end(fake);
	assert_int_equal(touch(at + 3 * BLOCK + 200, false), SIGBUS);
	assert_ptr_equal(fault_addr, at + 3 * BLOCK + 200);
	assert_int_equal(touch(at + 3 * BLOCK + 200, true), SIGBUS);
	same(at, 0, 3 * BLOCK);
	same(at + 4 * BLOCK, 4 * BLOCK, 16 * BLOCK);
	fake_begin(fake, 3, 4, false);
	fake->blocks[3].lost = false;
	fake_end(fake);
	same(at, 0, 20 * BLOCK);
	assert_int_equal(umbra_munmap(at, 20 * BLOCK), 0);
}

static void test_fork(void **state)
{
	uint8_t *at = map(NULL, 32 * BLOCK, BOTH, MAP_SHARED, 0);
	int status;
	pid_t pid;

	(void)state;
	at[BLOCK] = 0x41;
	pid = fork();
	if (pid == 0) {
		alarm(LIMIT_S);
		if (at[BLOCK] != 0x41 || at[18 * BLOCK] != 0)
			_exit(1);
		at[BLOCK] = 0x42;
		at[17 * BLOCK] = 0x43;
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	same(at, 0, 16 * BLOCK);
	assert_int_equal(at[BLOCK], 0x42);
	assert_int_equal(umbra_munmap(at, 32 * BLOCK), 0);
}

/* ---- threads, while blocks move ---- */

static atomic_bool ended;
static uint8_t *shared_at;

/* Words of its own in every block: what it has stored is there until it stores again. */
static void *storer(void *arg)
{
	unsigned index = *(unsigned *)arg;
	uint64_t last[16] = { 0 };
	uintptr_t wrong = 0;
	uint32_t number = index + 1;

	for (uint64_t round = 1; !ended && !wrong; round++) {
		volatile uint64_t *word;
		unsigned block;

		number = number * 1103515245u + 12345u;
		block = number >> 16 & 15;
		word = (volatile uint64_t *)(void *)(shared_at + block * BLOCK + index * 64);
		if (last[block] && *word != last[block])
			wrong = block + 1;
		*word = last[block] = round << 8 | index;
	}
	return (void *)wrong;
}

static void test_blocks_move(void **state)
{
	unsigned indices[THREADS];
	pthread_t threads[THREADS];
	void *wrong;

	(void)state;
	ended = false;
	shared_at = map(NULL, 16 * BLOCK, BOTH, MAP_SHARED, 0);
	for (unsigned i = 0; i < THREADS; i++) {
		indices[i] = i;
		assert_int_equal(pthread_create(&threads[i], NULL, storer, &indices[i]), 0);
	}
	for (uint32_t i = 0; i < CHANGES; i++) {
		uint32_t block = i * 7 % 16;

		fake_begin(fake, block, block + 1 + i % 3, i % 4 == 0);
		if (i % 4 == 0)
			fake_share(fake, block);
		else
			fake_move(fake, block);
		fake_end(fake);
	}
	ended = true;
	for (unsigned i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_join(threads[i], &wrong), 0);
		assert_null(wrong);
	}
	assert_int_equal(umbra_munmap(shared_at, 16 * BLOCK), 0);
}

struct looking {
	uint8_t *at;
	atomic_bool ends;
	unsigned missed;
	atomic_uint looked;
};

static void *look_on(void *arg)
{
	struct looking *l = arg;

	while (!atomic_load(&l->ends)) {
		uintptr_t addr = (uintptr_t)l->at + 3 * BLOCK;

		for (unsigned i = 0; i < 1000; i++)
			l->missed += !mappings_touch(addr, addr + 1);
		atomic_fetch_add(&l->looked, 1);
	}
	return NULL;
}

/* What changes about a mapping that stays one is one step for other threads: a fault there is never taken for one elsewhere. */
static void test_changes_are_one_step(void **state)
{
	struct looking l = { .at = map(NULL, 8 * BLOCK, BOTH, MAP_SHARED, 0) };
	pthread_t thread;
	void *grown;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, look_on, &l), 0);
	while (atomic_load(&l.looked) < 60000) {
		assert_int_equal(umbra_mprotect(l.at + 2 * BLOCK, 3 * BLOCK, PROT_READ), 0);
		assert_int_equal(umbra_mprotect(l.at, 8 * BLOCK, BOTH), 0);
		for (unsigned i = 0; i < 100; i++) {
			assert_int_equal(umbra_madvise(l.at + BLOCK, 4 * BLOCK, MADV_DONTFORK), 0);
			assert_int_equal(umbra_madvise(l.at, 8 * BLOCK, MADV_DOFORK), 0);
		}
		assert_int_equal(umbra_munmap(l.at + 7 * BLOCK, BLOCK), 0);
		grown = umbra_mremap(l.at, 7 * BLOCK, 8 * BLOCK, 0, NULL);
		assert_ptr_equal(grown, l.at);
		grown = umbra_mmap(l.at, 8 * BLOCK, BOTH, MAP_SHARED | MAP_FIXED, file, 0);
		assert_ptr_equal(grown, l.at);
		for (unsigned i = 0; i < 20; i++) {
			grown = umbra_mremap(map(NULL, 8 * BLOCK, BOTH, MAP_SHARED, 0), 8 * BLOCK, 8 * BLOCK,
					     MREMAP_MAYMOVE | MREMAP_FIXED, l.at);
			assert_ptr_equal(grown, l.at);
		}
	}
	atomic_store(&l.ends, true);
	pthread_join(thread, NULL);
	assert_int_equal(l.missed, 0);
	assert_int_equal(umbra_munmap(l.at, 8 * BLOCK), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_reading, up, down),
		cmocka_unit_test_setup_teardown(test_around, up, down),
		cmocka_unit_test_setup_teardown(test_closed_before_detached, up, down),
		cmocka_unit_test_setup_teardown(test_storing, up, down),
		cmocka_unit_test_setup_teardown(test_little_space, up, down),
		cmocka_unit_test_setup_teardown(test_space_given_back, up, down),
		cmocka_unit_test_setup_teardown(test_window, up, down),
		cmocka_unit_test_setup_teardown(test_revoke, up, down),
		cmocka_unit_test_setup_teardown(test_the_end, up, down),
		cmocka_unit_test_setup_teardown(test_moved, up, down),
		cmocka_unit_test_setup_teardown(test_parts, up, down),
		cmocka_unit_test_setup_teardown(test_rights, up, down),
		cmocka_unit_test_setup_teardown(test_refused, up, down),
		cmocka_unit_test_setup_teardown(test_no_space, up, down),
		cmocka_unit_test_setup_teardown(test_lost, up, down),
		cmocka_unit_test_setup_teardown(test_fork, up, down),
		cmocka_unit_test_setup_teardown(test_blocks_move, up, down),
		cmocka_unit_test_setup_teardown(test_changes_are_one_step, up, down),
	};

	alarm(LIMIT_S);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
