/* SPDX-License-Identifier: BSD-3-Clause */
/* libumbra where something comes to its limit: areas of the kernel's, patience, descriptors that are not what they were, daemons that do not answer. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <umbra/umbra.h>

#include "client/memory.h"
#include "fake_daemon.h"

#define LIMIT_S 110u
#define BLOCK FAKE_BLOCK
#define PIECES 18000u     /* more than areas of the kernel's that are taken */
#define AREAS_MAX 16384u  /* mapping.c */
#define OTHER_AREAS 1000u /* of the program */

static struct fake *fake;
static struct umbra_file *file;
static int fd;

static void up(uint32_t blocks, bool strewn)
{
	fake = fake_new(blocks * 2 + 64, blocks);
	fake_fill(fake, 0, blocks, 1, strewn);
	fd = fake_open(fake, O_RDWR);
	assert_int_equal(umbra_attach(fd, &file), 0);
}

static void down(void)
{
	umbra_detach(file);
	close(fd);
	fake_check(fake);
	fake_free(fake);
}

static unsigned long long lost_sessions(void)
{
	struct umbra_counts counts;

	umbra_get_counts(&counts);
	return counts.lost_sessions;
}

static void pause_ms(long ms)
{
	struct timespec pause = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&pause, NULL);
}

/* The kernel's areas of this process. */
static unsigned areas(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned count = 0;

	assert_non_null(maps);
	for (int c; (c = getc(maps)) != EOF;)
		count += c == '\n';
	fclose(maps);
	return count;
}

static void reads_right(const uint8_t *at, uint32_t lo, uint32_t hi)
{
	for (uint32_t i = lo; i < hi; i++) {
		uint64_t word;

		memcpy(&word, at + (uint64_t)i * BLOCK, sizeof(word));
		assert_int_equal(word, fake_word(i, 1));
	}
}

/* A file in so many pieces that the kernel would not take them all. */
static void test_areas(void **state)
{
	uint8_t *at;

	(void)state;
	up(PIECES, true);
	at = umbra_mmap(NULL, (size_t)PIECES * BLOCK, PROT_READ, MAP_SHARED, file, 0);
	assert_int_equal(umbra_mmap_error(at), 0);
	for (unsigned round = 0; round < 2; round++) {
		reads_right(at, 0, PIECES);
		assert_true(areas() > 100);
		assert_true(areas() < AREAS_MAX + OTHER_AREAS);
	}
	assert_int_equal(umbra_munmap(at, (size_t)PIECES * BLOCK), 0);
	down();
}

/* One instruction, which needs both at once. */
static void copy_byte(uint8_t *to, const uint8_t *from)
{
#ifdef __x86_64__
	__asm__ volatile("movsb" : "+D"(to), "+S"(from) : : "memory");
#else
	*to = *from;
#endif
}

/* Parts of a mapping in which nothing is in place count for nothing: else they would take the place of all others for good. */
static void test_areas_of_parts(void **state)
{
	const uint32_t touched = 9000;
	uint8_t *at;

	(void)state;
	up(PIECES, true);
	at = umbra_mmap(NULL, (size_t)PIECES * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	assert_int_equal(umbra_mmap_error(at), 0);
	reads_right(at, 0, touched);
	for (uint32_t i = touched + 1000; i < touched + 1010; i += 2)
		assert_int_equal(umbra_munmap(at + (uint64_t)i * BLOCK, BLOCK), 0);
	copy_byte(at + BLOCK, at + 600 * (uint64_t)BLOCK);
	assert_int_equal(at[BLOCK], at[600 * (uint64_t)BLOCK]);
	assert_int_equal(umbra_munmap(at, (size_t)PIECES * BLOCK), 0);
	down();
}

static bool area_more(uint8_t **list)
{
	/* The one before it is readable, or is not: they are two areas. */
	static int prot;
	uint8_t *at = mmap(NULL, BLOCK, prot ^= PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	*list = at;
	return at != MAP_FAILED;
}

/* The program has all areas that the kernel allows: what somebody changes goes all the same, and comes again when it is touched. */
static void test_areas_used_up(void **state)
{
	const uint32_t blocks = 256;
	static uint8_t *ours[200000];
	size_t count = 0;
	uint8_t *at, got;

	(void)state;
#ifdef MEMORY_IS_WATCHED
	skip(); /* a sanitizer wants areas too */
#endif
	up(blocks, false);
	at = umbra_mmap(NULL, blocks * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	assert_int_equal(umbra_mmap_error(at), 0);
	for (uint32_t i = 0; i < blocks; i++)
		at[i * BLOCK + 8] = 1;
	while (count < sizeof(ours) / sizeof(ours[0]) && area_more(&ours[count]))
		count++;
	if (count == sizeof(ours) / sizeof(ours[0])) {
		for (size_t i = 0; i < count; i++)
			munmap(ours[i], BLOCK);
		down();
		skip();
	}
	fake_begin(fake, 100, 150, false);
	for (uint32_t i = 100; i < 150; i++)
		fake_move(fake, i);
	fake_end(fake);
	reads_right(at, 0, blocks);
	for (uint32_t i = 0; i < blocks; i += 3)
		at[i * BLOCK + 8] = 2;
	for (uint32_t i = 0; i < blocks; i++)
		assert_int_equal(at[i * BLOCK + 8], i % 3 == 0 ? 2 : 1);
	for (size_t i = 0; i < count; i++)
		assert_int_equal(munmap(ours[i], BLOCK), 0);
	for (uint32_t i = 0; i < blocks; i++) {
		fake_read(fake, i * BLOCK + 8, &got, 1);
		assert_int_equal(got, i % 3 == 0 ? 2 : 1);
	}
	assert_int_equal(umbra_munmap(at, blocks * BLOCK), 0);
	down();
}

/* Others have the file open through the kernel, and do not close it: the kernel's mapping serves. */
static void test_patience(void **state)
{
	struct timespec begin, end;
	uint8_t *at, got = 0;

	(void)state;
	up(16, false);
	at = umbra_mmap(NULL, 16 * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	assert_int_equal(umbra_mmap_error(at), 0);
	reads_right(at, 0, 16);
	assert_int_equal(ftruncate(fd, 16 * BLOCK), 0);
	atomic_store(&fake->map_write_error, EBUSY);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	at[BLOCK + 5] = 0x77;
	clock_gettime(CLOCK_MONOTONIC, &end);
	assert_true(end.tv_sec - begin.tv_sec >= 4);
	/* It is in the kernel's file, and in the device's nothing has changed. */
	assert_int_equal(pread(fd, &got, 1, BLOCK + 5), 1);
	fake_read(fake, BLOCK + 5, &got, 1);
	assert_int_not_equal(got, 0x77);
	assert_int_equal(at[BLOCK + 5], 0x77);
	/* All of it, and for good. */
	atomic_store(&fake->map_write_error, 0);
	at[2 * BLOCK] = 0x78;
	fake_read(fake, 2 * BLOCK, &got, 1);
	assert_int_not_equal(got, 0x78);
	assert_int_equal(umbra_munmap(at, 16 * BLOCK), 0);
	down();
}

static void session_ends(void)
{
	unsigned long long before = lost_sessions();

	fake_down(fake);
	while (lost_sessions() == before)
		pause_ms(5);
	assert_int_equal(lost_sessions(), before + 1);
}

/* The descriptor has been closed and is another file's by now: nothing is attached by it. */
static void test_other_file(void **state)
{
	unsigned attaches;
	char byte;
	int other;

	(void)state;
	up(16, false);
	assert_int_equal(umbra_pread(file, &byte, 1, 0), 1);
	session_ends();
	fake_up(fake);
	pause_ms(150);
	attaches = fake->attaches;
	other = memfd_create("other", MFD_CLOEXEC);
	assert_true(other >= 0);
	assert_int_equal(dup2(other, fd), fd);
	(void)!umbra_pread(file, &byte, 1, 0);
	assert_int_equal(fake->attaches, attaches);
	close(other);
	down();
}

/* Somebody listens, and takes no connection: calls go on without. */
static void test_nobody_accepts(void **state)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), waiting[8];
	uint8_t got;

	(void)state;
	up(16, false);
	session_ends();
	unlink(fake->socket);
	memcpy(addr.sun_path, fake->socket, sizeof(fake->socket));
	assert_int_equal(bind(listener, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(listener, 0), 0);
	for (size_t i = 0; i < 8; i++) {
		waiting[i] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		(void)connect(waiting[i], (const struct sockaddr *)&addr, sizeof(addr));
	}
	pause_ms(150);
	assert_int_equal(umbra_pread(file, &got, 1, 0), 1);
	assert_int_equal(got, (uint8_t)fake_word(0, 1));
	for (size_t i = 0; i < 8; i++)
		close(waiting[i]);
	close(listener);
	unlink(fake->socket);
	fake_up(fake);
	down();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_areas),         cmocka_unit_test(test_areas_of_parts),
		cmocka_unit_test(test_areas_used_up), cmocka_unit_test(test_patience),
		cmocka_unit_test(test_other_file),    cmocka_unit_test(test_nobody_accepts),
	};
	const char *only = getenv("UMBRA_TEST_ONLY");

	if (only)
		cmocka_set_test_filter(only);
	alarm(LIMIT_S);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
