/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A handler that has come within malloc() may touch a mapping: whoever sees to that, the thread and the listener, calls nothing of malloc()'s (the linker leads it here). And the library's own memory.
 */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <umbra/umbra.h>

#include "client/memory.h"
#include "fake_daemon.h"

#define LIMIT_S 110u
#define BLOCK FAKE_BLOCK
#define BLOCKS 64u
#define BOTH (PROT_READ | PROT_WRITE)
#define SIZES 40u

static atomic_bool is_within; /* some thread is in malloc() */
static _Atomic unsigned calls;

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__real_aligned_alloc(size_t align, size_t size);
void *__wrap_aligned_alloc(size_t align, size_t size);
void __real_free(void *at);
void __wrap_free(void *at);

static void note(void)
{
	if (atomic_load(&is_within))
		atomic_fetch_add(&calls, 1);
}

void *__wrap_malloc(size_t size)
{
	note();
	return __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	note();
	return __real_calloc(count, size);
}

void *__wrap_aligned_alloc(size_t align, size_t size)
{
	note();
	return __real_aligned_alloc(align, size);
}

void __wrap_free(void *at)
{
	if (at)
		note();
	__real_free(at);
}

struct scene {
	struct fake *fake;
	uint8_t *at;
};

/* In a thread that has never called the library. */
static void *touch_all(void *arg)
{
	struct scene *s = arg;

	for (uint32_t turn = 0; turn < 3; turn++) {
		for (uint32_t i = 0; i < BLOCKS; i += 3) {
			uint64_t word;

			memcpy(&word, s->at + i * BLOCK, sizeof(word));
			s->at[i * BLOCK + 8] = (uint8_t)i;
		}
		fake_begin(s->fake, turn, BLOCKS - turn, turn == 1);
		for (uint32_t i = turn; turn != 1 && i < BLOCKS - turn; i += 2)
			fake_move(s->fake, i);
		fake_end(s->fake);
	}
	return NULL;
}

static void test_faults(void **state)
{
	struct umbra_file *file;
	struct scene s = { .fake = fake_new(512, BLOCKS) };
	int fd = fake_open(s.fake, O_RDWR);
	pthread_t thread;

	(void)state;
	fake_fill(s.fake, 0, 16, 1, false);
	fake_fill(s.fake, 20, BLOCKS, 2, true);
	assert_int_equal(umbra_attach(fd, &file), 0);
	s.at = umbra_mmap(NULL, BLOCKS * BLOCK, BOTH, MAP_SHARED, file, 0);
	assert_int_equal(umbra_mmap_error(s.at), 0);
	atomic_store(&is_within, true);
	assert_int_equal(pthread_create(&thread, NULL, touch_all, &s), 0);
	pthread_join(thread, NULL);
	atomic_store(&is_within, false);
#ifndef MEMORY_IS_WATCHED
	assert_int_equal(calls, 0);
#endif
	assert_true(s.fake->maps > 3);
	assert_int_equal(umbra_munmap(s.at, BLOCKS * BLOCK), 0);
	umbra_detach(file);
	close(fd);
	fake_check(s.fake);
	fake_free(s.fake);
}

static void test_sizes(void **state)
{
	uint8_t *at[SIZES];

	(void)state;
	for (unsigned turn = 0; turn < 3; turn++) {
		for (unsigned i = 0; i < SIZES; i++) {
			size_t size = ((size_t)1 << (i / 2)) + 7 * (i % 2);

			at[i] = i % 3 ? memory_get(size) : memory_get_clear(size);
			assert_non_null(at[i]);
			assert_int_equal((uintptr_t)at[i] % 16, 0);
			for (size_t k = 0; i % 3 == 0 && k < size; k++)
				assert_int_equal(at[i][k], 0);
			memset(at[i], (int)i + 1, size);
		}
		for (unsigned i = 0; i < SIZES; i++) {
			size_t size = ((size_t)1 << (i / 2)) + 7 * (i % 2);

			assert_int_equal(at[i][0], i + 1);
			assert_int_equal(at[i][size - 1], i + 1);
			memory_put(at[i]);
		}
	}
	memory_put(NULL);
	assert_null(memory_get(SIZE_MAX));
	assert_null(memory_get(SIZE_MAX - 100));
}

/* What has been given back is used again. */
static void test_again(void **state)
{
	void *at = memory_get(200), *other;

	(void)state;
	memory_put(at);
	other = memory_get(180);
#ifndef MEMORY_IS_WATCHED
	assert_ptr_equal(at, other);
#endif
	memory_put(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_again),
	};

	alarm(LIMIT_S);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
