/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What libumbra calls durable, on a device whose memory gets what is stored only by lines that somebody flushes, when he waits for them afterwards. The linker leads what the library asks of
 * libpmem to the test, which keeps what memory would have if power went now: a line that was flushed is on its way, as it was then, and there after the next drain. All that is stored in any other way stays
 * in the processor's caches, and is gone.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <libpmem.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <umbra/umbra.h>

#include "client/data.h"
#include "fake_daemon.h"

#define LIMIT_S 110u
#define BLOCK FAKE_BLOCK
#define BLOCKS 640u
#define DEV_BLOCKS 2048u
#define DEV_BYTES ((uint64_t)DEV_BLOCKS * BLOCK)
#define LINE 64u
#define MIB (1u << 20)
#define BOTH (PROT_READ | PROT_WRITE)
/* Blocks of the file: in a row, none, strewn one by one. */
#define HOLE 520u
#define STREWN 524u

/* The linker leads the library to this. */
void *__real_dlsym(void *lib, const char *name);
void *__wrap_dlsym(void *lib, const char *name);

static struct fake *fake;
static struct umbra_file *file;
static int fd;
static uint8_t kept[DEV_BYTES];             /* power goes: what memory has */
static uint8_t under_way[DEV_BYTES];        /* what has been flushed */
static bool is_under_way[DEV_BYTES / LINE]; /* since the last drain */
static uint8_t expected[3 * MIB], buf[3 * MIB];
static __typeof__(pmem_memmove) *real_memmove;
static __typeof__(pmem_persist) *real_persist;
static __typeof__(pmem_flush) *real_flush;
static __typeof__(pmem_drain) *real_drain;

/* ---- the device ---- */

/* Where in the device an address of any mapping of it is; *len: cut to that mapping. */
static uint64_t device_at(const void *addr, uint64_t *len)
{
	unsigned long long lo, hi, off, ino;
	uint64_t at = (uintptr_t)addr, found = UINT64_MAX;
	FILE *maps = fopen("/proc/self/maps", "re");
	struct stat st;
	char line[512];

	assert_non_null(maps);
	assert_int_equal(fstat(fake->dev, &st), 0);
	while (fgets(line, sizeof(line), maps))
		if (sscanf(line, "%llx-%llx %*s %llx %*s %llu", &lo, &hi, &off, &ino) == 4 && lo <= at &&
		    at < hi && ino == st.st_ino) {
			found = off + (at - lo);
			*len = *len < hi - at ? *len : hi - at;
		}
	fclose(maps);
	assert_true(found != UINT64_MAX);
	return found;
}

static void lines_flushed(const void *addr, uint64_t len)
{
	const uint8_t *from = addr;

	while (len > 0) {
		uint64_t n = len, at = device_at(from, &n);

		for (uint64_t line = at / LINE; line <= (at + n - 1) / LINE; line++) {
			memcpy(under_way + line * LINE, fake->base + line * LINE, LINE);
			is_under_way[line] = true;
		}
		from += n;
		len -= n;
	}
}

static void lines_drained(void)
{
	for (uint64_t line = 0; line < DEV_BYTES / LINE; line++)
		if (is_under_way[line])
			memcpy(kept + line * LINE, under_way + line * LINE, LINE);
	memset(is_under_way, 0, sizeof(is_under_way));
}

static void *seen_memmove(void *dst, const void *src, size_t len, unsigned flags)
{
	void *result = real_memmove(dst, src, len, flags);

	if (!(flags & PMEM_F_MEM_NOFLUSH)) {
		lines_flushed(dst, len);
		if (!(flags & PMEM_F_MEM_NODRAIN))
			lines_drained();
	}
	return result;
}

static void seen_flush(const void *addr, size_t len)
{
	real_flush(addr, len);
	lines_flushed(addr, len);
}

static void seen_drain(void)
{
	real_drain();
	lines_drained();
}

static void seen_persist(const void *addr, size_t len)
{
	real_persist(addr, len);
	lines_flushed(addr, len);
	lines_drained();
}

/* Of libpmem only what is known here: another function of it would store without being seen. */
void *__wrap_dlsym(void *lib, const char *name)
{
	void *found = __real_dlsym(lib, name);

	if (strncmp(name, "pmem_", 5) != 0 || !found)
		return found;
	if (strcmp(name, "pmem_memmove") == 0) {
		*(void **)&real_memmove = found;
		return (void *)seen_memmove;
	}
	if (strcmp(name, "pmem_persist") == 0) {
		*(void **)&real_persist = found;
		return (void *)seen_persist;
	}
	if (strcmp(name, "pmem_flush") == 0) {
		*(void **)&real_flush = found;
		return (void *)seen_flush;
	}
	if (strcmp(name, "pmem_drain") == 0) {
		*(void **)&real_drain = found;
		return (void *)seen_drain;
	}
	fprintf(stderr, "%s is not known to this test\n", name);
	abort();
}

/* How many of these bytes of the file would not be what they are now. */
static uint64_t lost_if_power_went(uint64_t off, uint64_t len)
{
	uint64_t lost = 0;

	for (; len > 0; len--, off++) {
		uint64_t at = (uint64_t)fake->blocks[off / BLOCK].dev * BLOCK + off % BLOCK;

		assert_true(at >= BLOCK);
		lost += kept[at] != fake->base[at];
	}
	return lost;
}

/* All that has been stored so far is durable. */
static void settle(void)
{
	memcpy(kept, fake->base, DEV_BYTES);
	memset(is_under_way, 0, sizeof(is_under_way));
}

static int up(void **state)
{
	(void)state;
	fake = fake_new(DEV_BLOCKS, BLOCKS);
	fake_fill(fake, 0, HOLE, 1, false);
	fake_fill(fake, STREWN, BLOCKS, 2, true);
	fd = fake_open(fake, O_RDWR);
	assert_int_equal(umbra_attach(fd, &file), 0);
	for (uint32_t i = 0; i < BLOCKS; i++)
		if (fake->blocks[i].dev)
			memset(fake->base + (uint64_t)fake->blocks[i].dev * BLOCK, 0, BLOCK);
	settle();
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

/* Not what is there: zeroes, or what came before. */
static void fill_expected(uint64_t len)
{
	static uint8_t next = 1;

	memset(expected, next, len);
	next = next == 0x7f ? 1 : (uint8_t)(next + 1);
}

/* ---- data calls ---- */

typedef ssize_t (*write_fn)(const void *from, size_t len, uint64_t off);

static ssize_t by_library(const void *from, size_t len, uint64_t off)
{
	return umbra_pwrite(file, from, len, (off_t)off);
}

/* As umbra-run's library does it: at once where that goes, else piece by piece. */
static ssize_t by_program(const void *from, size_t len, uint64_t off)
{
	void *user = (void *)(uintptr_t)from; /* not changed */
	struct section *section = section_mine();
	bool done = false;

	assert_non_null(section);
	if (len <= DATA_AT_ONCE_MAX && data_touch(user, len, true)) {
		section_enter(section);
		done = data_at_once(file, section, user, len, (off_t)off, true);
		section_leave(section);
	}
	return done ? (ssize_t)len : data_call(file, user, len, (off_t)off, true);
}

static void write_is_durable(write_fn by, uint64_t off, uint64_t len)
{
	fill_expected(len);
	assert_int_equal(by(expected, len, off), len);
	assert_int_equal(lost_if_power_went(off, len), 0);
	fake_read(fake, off, buf, len);
	assert_memory_equal(buf, expected, len);
}

static void writes_are_durable(write_fn by)
{
	static const uint64_t sizes[] = { 1, 63, 64, 65, 100, BLOCK - 1, BLOCK, 5 * BLOCK + 7, MIB };
	static const uint64_t offs[] = { 0, 1, 63, 64, 100, BLOCK - 1, 2 * BLOCK, 3 * BLOCK + 5 };
	struct umbra_counts before, after;

	umbra_get_counts(&before);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		for (unsigned j = 0; j < sizeof(offs) / sizeof(offs[0]); j++)
			write_is_durable(by, offs[j], sizes[i]);
	/* More than one section takes; from one piece to the next; blocks that were not there. */
	write_is_durable(by, 77, MIB + 5 * BLOCK);
	write_is_durable(by, STREWN * BLOCK - 3, 9 * BLOCK + 11);
	write_is_durable(by, (STREWN + 12) * BLOCK + 40, 48);
	write_is_durable(by, HOLE * BLOCK + 9, 2 * BLOCK);
	/* From what was there to what was not. */
	write_is_durable(by, HOLE * BLOCK - 5, 4 * BLOCK + 100);
	umbra_get_counts(&after);
	assert_int_equal(after.kernel_writes, before.kernel_writes);
}

static void test_write(void **state)
{
	(void)state;
	writes_are_durable(by_library);
}

static void test_write_of_a_program(void **state)
{
	(void)state;
	writes_are_durable(by_program);
}

/* Other ways through the library: with a mapping calls are not done at once; the buffer is a mapping; what is shared is copied by the daemon first. */
static void test_write_beside_a_mapping(void **state)
{
	uint8_t *at = umbra_mmap(NULL, 64 * BLOCK, BOTH, MAP_SHARED, file, 0);

	(void)state;
	assert_int_equal(umbra_mmap_error(at), 0);
	writes_are_durable(by_library);
	assert_int_equal(umbra_pwrite(file, at + 5, 7 * BLOCK, 100 * BLOCK + 3), 7 * BLOCK);
	assert_int_equal(lost_if_power_went(100 * BLOCK + 3, 7 * BLOCK), 0);
	assert_int_equal(umbra_munmap(at, 64 * BLOCK), 0);
	fake_begin(fake, 2, 6, true);
	for (uint32_t i = 2; i < 6; i++)
		fake_share(fake, i);
	fake_end(fake);
	write_is_durable(by_library, 2 * BLOCK + 9, 3 * BLOCK);
}

/* ---- mappings ---- */

static uint8_t *map(uint64_t len, uint64_t off)
{
	uint8_t *at = umbra_mmap(NULL, len, BOTH, MAP_SHARED, file, (off_t)off);

	assert_int_equal(umbra_mmap_error(at), 0);
	return at;
}

/* Power would take all of it. */
static void store(uint8_t *at, uint64_t off, uint64_t len)
{
	fill_expected(len);
	memcpy(at, expected, len);
	assert_int_equal(lost_if_power_went(off, len), len);
}

static void test_msync(void **state)
{
	static const int flags[] = { MS_SYNC, MS_ASYNC, MS_SYNC | MS_INVALIDATE, 0 };
	uint8_t *at = map(BLOCKS * BLOCK, 0);

	(void)state;
	for (unsigned i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		/* A byte, a few over the end of a line, over the end of a page, a page, more than one section takes. */
		store(at + 5 * BLOCK + 63, 5 * BLOCK + 63, 1);
		store(at + 6 * BLOCK + 60, 6 * BLOCK + 60, 100);
		store(at + 8 * BLOCK - 9, 8 * BLOCK - 9, 18);
		store(at + 9 * BLOCK, 9 * BLOCK, BLOCK);
		store(at + 20 * BLOCK + 1, 20 * BLOCK + 1, MIB + 9 * BLOCK);
		assert_int_equal(umbra_msync(at, HOLE * BLOCK, flags[i]), 0);
		assert_int_equal(lost_if_power_went(0, HOLE * BLOCK), 0);
	}
	/* Strewn blocks, and some that were not there. */
	store(at + HOLE * BLOCK - 100, HOLE * BLOCK - 100, 100);
	fill_expected(4 * BLOCK);
	memcpy(at + HOLE * BLOCK, expected, 4 * BLOCK);
	store(at + STREWN * BLOCK, STREWN * BLOCK, 20 * BLOCK + 50);
	assert_int_equal(umbra_msync(at + (HOLE - 1) * BLOCK, 30 * BLOCK, MS_SYNC), 0);
	assert_int_equal(lost_if_power_went((HOLE - 1) * BLOCK, 30 * BLOCK), 0);
	assert_int_equal(umbra_munmap(at, BLOCKS * BLOCK), 0);
}

/* Of a part, one after the other: the first and the last page of what is asked for too. */
static void test_msync_of_a_part(void **state)
{
	uint8_t *at = map(64 * BLOCK, 3 * BLOCK);

	(void)state;
	store(at, 3 * BLOCK, 64 * BLOCK);
	assert_int_equal(umbra_msync(at + 8 * BLOCK, 16 * BLOCK, MS_SYNC), 0);
	assert_int_equal(lost_if_power_went(11 * BLOCK, 16 * BLOCK), 0);
	assert_int_equal(umbra_msync(at + 40 * BLOCK, 1, MS_SYNC), 0);
	assert_int_equal(lost_if_power_went(43 * BLOCK, BLOCK), 0);
	/* What has been stored to before, and again since. */
	store(at + 9 * BLOCK, 12 * BLOCK, 10);
	assert_int_equal(umbra_msync(at + 9 * BLOCK, BLOCK, MS_ASYNC), 0);
	assert_int_equal(lost_if_power_went(11 * BLOCK, 16 * BLOCK), 0);
	assert_int_equal(umbra_msync(at, 64 * BLOCK, MS_SYNC), 0);
	assert_int_equal(lost_if_power_went(3 * BLOCK, 64 * BLOCK), 0);
	assert_int_equal(umbra_munmap(at, 64 * BLOCK), 0);
}

/* One call for several mappings, with other memory in between; mappings that were cut and moved. */
static void test_msync_of_several(void **state)
{
	uint8_t *at = map(32 * BLOCK, 0), *moved;

	(void)state;
	store(at, 0, 32 * BLOCK);
	assert_ptr_equal(umbra_mmap(at + 8 * BLOCK, 4 * BLOCK, BOTH, MAP_SHARED | MAP_FIXED, file,
				    100 * BLOCK),
			 at + 8 * BLOCK);
	store(at + 8 * BLOCK, 100 * BLOCK, 4 * BLOCK);
	assert_int_equal(umbra_munmap(at + 20 * BLOCK, 2 * BLOCK), 0);
	assert_ptr_equal(mmap(at + 20 * BLOCK, 2 * BLOCK, BOTH,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0),
			 at + 20 * BLOCK);
	assert_int_equal(umbra_msync(at, 32 * BLOCK, MS_SYNC), 0);
	assert_int_equal(lost_if_power_went(0, 8 * BLOCK), 0);
	assert_int_equal(lost_if_power_went(12 * BLOCK, 8 * BLOCK), 0);
	assert_int_equal(lost_if_power_went(22 * BLOCK, 10 * BLOCK), 0);
	assert_int_equal(lost_if_power_went(100 * BLOCK, 4 * BLOCK), 0);
	store(at + 22 * BLOCK, 22 * BLOCK, 10 * BLOCK);
	moved = umbra_mremap(at + 22 * BLOCK, 10 * BLOCK, 12 * BLOCK, MREMAP_MAYMOVE, NULL);
	assert_int_equal(umbra_mmap_error(moved), 0);
	assert_int_equal(umbra_msync(moved, 12 * BLOCK, MS_SYNC), 0);
	assert_int_equal(lost_if_power_went(22 * BLOCK, 10 * BLOCK), 0);
	assert_int_equal(umbra_munmap(moved, 12 * BLOCK), 0);
	assert_int_equal(umbra_munmap(at, 22 * BLOCK), 0);
}

/* What is not in place any more, or may not be stored to, has been stored all the same. */
static void test_msync_after_a_revoke(void **state)
{
	uint8_t *at = map(32 * BLOCK, 0);

	(void)state;
	store(at, 0, 16 * BLOCK);
	fake_begin(fake, 0, 4, true);
	for (uint32_t i = 0; i < 4; i++)
		fake_share(fake, i);
	fake_end(fake);
	fake_begin(fake, 4, 12, false);
	fake_end(fake);
	assert_int_equal(umbra_mprotect(at + 12 * BLOCK, 4 * BLOCK, PROT_READ), 0);
	assert_int_equal(umbra_msync(at, 16 * BLOCK, MS_SYNC), 0);
	assert_int_equal(lost_if_power_went(0, 16 * BLOCK), 0);
	/* What was stored in a session before; whoever touches the mapping waits for this one. */
	store(at + 4 * BLOCK, 4 * BLOCK, 3 * BLOCK);
	fake_down(fake);
	fake_up(fake);
	assert_int_equal(at[20 * BLOCK], 0);
	assert_int_equal(umbra_msync(at, 16 * BLOCK, MS_SYNC), 0);
	assert_int_equal(lost_if_power_went(4 * BLOCK, 12 * BLOCK), 0);
	assert_int_equal(umbra_munmap(at, 32 * BLOCK), 0);
}

/* A mapping goes on when the file has been detached and closed. */
static void test_msync_of_what_is_closed(void **state)
{
	uint8_t *at = map(16 * BLOCK, 0);

	(void)state;
	store(at, 0, 8 * BLOCK);
	umbra_detach(file);
	close(fd);
	store(at + 8 * BLOCK, 8 * BLOCK, 8 * BLOCK);
	assert_int_equal(umbra_msync(at, 16 * BLOCK, MS_SYNC), 0);
	assert_int_equal(lost_if_power_went(0, 16 * BLOCK), 0);
	assert_int_equal(umbra_munmap(at, 16 * BLOCK), 0);
	assert_int_equal(lost_if_power_went(0, 16 * BLOCK), 0);
	fd = fake_open(fake, O_RDWR);
	assert_int_equal(umbra_attach(fd, &file), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_write, up, down),
		cmocka_unit_test_setup_teardown(test_write_of_a_program, up, down),
		cmocka_unit_test_setup_teardown(test_write_beside_a_mapping, up, down),
		cmocka_unit_test_setup_teardown(test_msync, up, down),
		cmocka_unit_test_setup_teardown(test_msync_of_a_part, up, down),
		cmocka_unit_test_setup_teardown(test_msync_of_several, up, down),
		cmocka_unit_test_setup_teardown(test_msync_after_a_revoke, up, down),
		cmocka_unit_test_setup_teardown(test_msync_of_what_is_closed, up, down),
	};

	alarm(LIMIT_S);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
