/* SPDX-License-Identifier: BSD-3-Clause */
/* libumbra by one thread, against a daemon of the test's own (fake_daemon.h): each message, each way to the kernel. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <umbra/umbra.h>

#include "fake_daemon.h"

#define LIMIT_S 110u
#define BLOCK FAKE_BLOCK
#define BLOCKS 64u

struct scene {
	struct fake *fake;
	struct umbra_file *file;
	int fd;
	struct umbra_counts before;
};

static struct scene s;
static uint8_t buf[BLOCKS * BLOCK + 1], expected[BLOCKS * BLOCK + 1];

/* 16 blocks in a row, a hole of 4, 12 that are strewn; the rest is not there. */
static int up(void **state)
{
	(void)state;
	s.fake = fake_new(512, BLOCKS);
	fake_fill(s.fake, 0, 16, 1, false);
	fake_fill(s.fake, 20, 32, 2, true);
	s.fd = fake_open(s.fake, O_RDWR);
	assert_int_equal(umbra_attach(s.fd, &s.file), 0);
	umbra_get_counts(&s.before);
	return 0;
}

static int down(void **state)
{
	(void)state;
	umbra_detach(s.file);
	close(s.fd);
	fake_check(s.fake);
	fake_free(s.fake);
	return 0;
}

static struct umbra_counts counts(void)
{
	struct umbra_counts c;

	umbra_get_counts(&c);
	c.reads -= s.before.reads;
	c.read_bytes -= s.before.read_bytes;
	c.writes -= s.before.writes;
	c.written_bytes -= s.before.written_bytes;
	c.kernel_reads -= s.before.kernel_reads;
	c.kernel_writes -= s.before.kernel_writes;
	c.maps -= s.before.maps;
	c.revokes -= s.before.revokes;
	c.lost_sessions -= s.before.lost_sessions;
	return c;
}

static void reads_right(uint64_t off, uint64_t len, uint64_t n)
{
	memset(buf, 0x55, sizeof(buf));
	fake_read(s.fake, off, expected, n);
	assert_int_equal(umbra_pread(s.file, buf, len, (off_t)off), n);
	assert_memory_equal(buf, expected, n);
	for (uint64_t i = n; i < len; i++)
		assert_int_equal(buf[i], 0x55);
}

static void writes_right(uint64_t off, uint64_t len, uint8_t byte)
{
	memset(expected, byte, len);
	assert_int_equal(umbra_pwrite(s.file, expected, len, (off_t)off), len);
	fake_read(s.fake, off, buf, len);
	assert_memory_equal(buf, expected, len);
}

static void pause_ms(long ms)
{
	struct timespec pause = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&pause, NULL);
}

/* What has failed is tried again after 100 ms. */
static void retry_comes(void)
{
	pause_ms(150);
}

static void test_attach_errors(void **state)
{
	struct umbra_file *file;
	int dir = open("/tmp", O_RDONLY | O_DIRECTORY), path = open("/tmp", O_PATH);

	(void)state;
	assert_int_equal(umbra_attach(-1, &file), -EBADF);
	assert_int_equal(umbra_attach(path, &file), -EBADF);
	assert_int_equal(umbra_attach(dir, &file), -EINVAL);
	close(dir);
	close(path);
	s.fake->rights = 0;
	assert_int_equal(umbra_attach(s.fd, &file), -EOPNOTSUPP);
	s.fake->rights = 3;
	s.fake->attach_error = EMFILE;
	assert_int_equal(umbra_attach(s.fd, &file), -EOPNOTSUPP);
	s.fake->attach_error = 0;
	s.fake->no_ioctl = true;
	assert_int_equal(umbra_attach(s.fd, &file), -EOPNOTSUPP);
	s.fake->no_ioctl = false;
	umbra_detach(NULL);
	assert_string_equal(umbra_version(), UMBRA_VERSION);
}

static void test_reading(void **state)
{
	(void)state;
	reads_right(0, 100, 100);
	assert_int_equal(counts().maps, 1);
	reads_right(0, 32 * BLOCK, 32 * BLOCK);
	reads_right(15 * BLOCK + 5, 6 * BLOCK, 6 * BLOCK); /* over the hole */
	reads_right(17 * BLOCK + 7, 13, 13);
	assert_int_equal(counts().maps, 1);
	assert_int_equal(counts().kernel_reads, 0);
	assert_int_equal(counts().reads, 4);
	assert_int_equal(counts().read_bytes, 100 + 38 * BLOCK + 13);
	/* Over the end, and past it: only the kernel knows where that is now. */
	reads_right(31 * BLOCK + 1, 2 * BLOCK, BLOCK - 1);
	reads_right(32 * BLOCK, 10, 0);
	reads_right(40 * BLOCK, 10, 0);
	assert_int_equal(counts().kernel_reads, 3);
	assert_int_equal(umbra_pread(s.file, buf, 0, 0), 0);
	assert_int_equal(umbra_pread(s.file, buf, 1, -1), -EINVAL);
}

static void test_writing(void **state)
{
	(void)state;
	assert_int_equal(s.fake->slots[1].stored, 0);
	writes_right(3 * BLOCK + 100, 5, 0xa1);
	assert_int_equal(s.fake->slots[1].stored, 1);
	writes_right(0, 16 * BLOCK, 0xa2);
	assert_int_equal(counts().maps, 2);             /* to know the blocks, to store to them */
	writes_right(20 * BLOCK + 1, 11 * BLOCK, 0xa3); /* strewn: a message for each of them */
	assert_int_equal(counts().kernel_writes, 0);
	/* Only the block that is written gets a place. */
	writes_right(18 * BLOCK, 10, 0xa4);
	assert_int_equal(s.fake->blocks[17].dev, 0);
	assert_int_equal(s.fake->blocks[19].dev, 0);
	reads_right(16 * BLOCK, 4 * BLOCK, 4 * BLOCK);
	assert_int_equal(counts().kernel_writes, 0);
	assert_int_equal(counts().writes, 4);
	assert_int_equal(counts().written_bytes, 27 * BLOCK + 15);
	assert_int_equal(umbra_pwrite(s.file, buf, 1, -1), -EINVAL);
}

static void test_the_end_moves(void **state)
{
	(void)state;
	reads_right(0, 10, 10);
	/* Over the end, and past it: the kernel's. Then all is known again. */
	writes_right(32 * BLOCK - 3, 6, 0xb1);
	writes_right(33 * BLOCK, BLOCK + 1, 0xb2);
	assert_int_equal(counts().kernel_writes, 2);
	assert_int_equal(counts().writes, 0);
	writes_right(33 * BLOCK, BLOCK + 1, 0xb3);
	reads_right(33 * BLOCK, BLOCK + 1, BLOCK + 1);
	assert_int_equal(counts().kernel_writes, 2);
	/* Somebody else makes it longer. */
	fake_fill(s.fake, 34, 40, 3, false);
	reads_right(33 * BLOCK, 7 * BLOCK, 7 * BLOCK);
	assert_true(counts().kernel_reads > 0);
	umbra_get_counts(&s.before);
	reads_right(36 * BLOCK, 10, 10);
	assert_int_equal(counts().kernel_reads, 0);
	/* And shorter. */
	fake_begin(s.fake, 10, BLOCKS, false);
	fake_set_size(s.fake, 10 * BLOCK + 10);
	fake_end(s.fake);
	reads_right(10 * BLOCK, 100, 10);
	reads_right(9 * BLOCK, 2 * BLOCK, BLOCK + 10);
	reads_right(12 * BLOCK, 10, 0);
	writes_right(10 * BLOCK, 10, 0xb4);
	assert_int_equal(counts().kernel_writes, 0);
}

/* A log: the daemon is not asked at each write whether somebody else has made it longer; but soon if somebody has. */
static void test_log(void **state)
{
	uint64_t at = 32 * BLOCK, end = at + 6 * BLOCK;

	(void)state;
	reads_right(0, 100, 100);
	for (; at < end; at += 128)
		writes_right(at, 128, 0x31);
	assert_int_equal(counts().kernel_writes, 6 * BLOCK / 128);
	assert_true(counts().maps < 20);
	reads_right(31 * BLOCK, 7 * BLOCK, 7 * BLOCK);
	for (unsigned i = 0; counts().writes == 0; i++) {
		assert_true(i < 100);
		reads_right(end - 4, 4, 4);
		writes_right(end - 8, 8, 0x32);
	}
	/* What is there before it is written: only the first writes may be the kernel's. */
	fake_set_size(s.fake, 64 * BLOCK);
	for (at = end; at < 64 * BLOCK; at += 128)
		writes_right(at, 128, 0x33);
	assert_true(counts().writes > 26 * BLOCK / 128 - 100);
}

static void test_modes(void **state)
{
	int rd = fake_open(s.fake, O_RDONLY), wr = fake_open(s.fake, O_WRONLY),
	    app = fake_open(s.fake, O_RDWR | O_APPEND);
	struct umbra_file *r, *w, *a;

	(void)state;
	assert_int_equal(umbra_attach(rd, &r), 0);
	assert_int_equal(umbra_attach(wr, &w), 0);
	assert_int_equal(umbra_attach(app, &a), 0);
	assert_int_equal(s.fake->connects, 1);
	assert_int_equal(umbra_pwrite(r, buf, 10, 0), -EBADF);
	assert_int_equal(umbra_pread(r, buf, 10, 0), 10);
	assert_int_equal(umbra_pread(w, buf, 10, 0), -EBADF);
	assert_int_equal(umbra_pwrite(w, buf, 10, 0), 10);
	assert_int_equal(counts().kernel_writes + counts().kernel_reads, 0);
	assert_int_equal(umbra_pwrite(a, buf, 10, 0), 10);
	assert_int_equal(s.fake->kernel_writes, 1);
	umbra_detach(r);
	umbra_detach(w);
	umbra_detach(a);
	assert_int_equal(s.fake->detaches, 3);
	close(rd);
	close(wr);
	close(app);
}

/* One may only read, then one only write, then one both: what is attached to one file is one thing to the daemon. */
static void test_modes_alone(void **state)
{
	int rd = fake_open(s.fake, O_RDONLY), wr = fake_open(s.fake, O_WRONLY);
	struct umbra_file *r, *w;

	(void)state;
	umbra_detach(s.file);
	assert_int_equal(umbra_attach(wr, &w), 0);
	memset(expected, 0x31, BLOCK);
	assert_int_equal(umbra_pwrite(w, expected, 100, 21 * BLOCK - 50), 100);
	assert_int_equal(umbra_pwrite(w, expected, BLOCK, 17 * BLOCK), BLOCK);
	assert_int_equal(counts().writes, 2);
	umbra_detach(w);
	assert_int_equal(umbra_attach(rd, &r), 0);
	assert_int_equal(umbra_pread(r, buf, 100, 21 * BLOCK - 50), 100);
	assert_memory_equal(buf, expected, 100);
	assert_int_equal(counts().reads, 1);
	assert_int_equal(umbra_attach(s.fd, &s.file), 0);
	writes_right(0, 2 * BLOCK, 0x32);
	assert_int_equal(umbra_pread(r, buf, BLOCK, 0), BLOCK);
	assert_int_equal(buf[7], 0x32);
	umbra_detach(r);
	writes_right(0, BLOCK, 0x33);
	reads_right(0, 4 * BLOCK, 4 * BLOCK);
	assert_int_equal(counts().kernel_writes + counts().kernel_reads, 0);
	close(rd);
	close(wr);
}

static void test_read_only_session(void **state)
{
	struct umbra_file *file;

	(void)state;
	umbra_detach(s.file);
	fake_down(s.fake);
	s.fake->rights = UMBRA_DIRECT_READ;
	fake_up(s.fake);
	do /* the end of the session before comes in its own time */
		retry_comes();
	while (umbra_attach(s.fd, &file));
	s.file = file;
	writes_right(0, 10, 0xc1);
	assert_int_equal(counts().kernel_writes, 1);
	reads_right(0, 10, 10);
	assert_int_equal(counts().kernel_reads, 0);
}

static void test_revokes(void **state)
{
	(void)state;
	writes_right(0, 16 * BLOCK, 0xd1);
	fake_begin(s.fake, 2, 5, false);
	fake_move(s.fake, 2);
	fake_punch(s.fake, 3);
	fake_move(s.fake, 4);
	fake_end(s.fake);
	assert_int_equal(counts().revokes, 1);
	reads_right(0, 32 * BLOCK, 32 * BLOCK);
	writes_right(3 * BLOCK, 10, 0xd2);
	/* Shared: it may be read, and gets another place when it is stored to. */
	umbra_get_counts(&s.before);
	fake_begin(s.fake, 6, 8, true);
	fake_share(s.fake, 6);
	fake_share(s.fake, 7);
	fake_end(s.fake);
	reads_right(6 * BLOCK, 2 * BLOCK, 2 * BLOCK);
	assert_int_equal(counts().maps, 0);
	writes_right(6 * BLOCK + 7, 10, 0xd3);
	assert_int_equal(counts().kernel_writes, 0);
	assert_true(s.fake->releases > 0);
	reads_right(0, 16 * BLOCK, 16 * BLOCK);
	/* Of a range that is not known, and of one past all. */
	fake_begin(s.fake, BLOCKS - 2, BLOCKS, false);
	fake_end(s.fake);
	assert_int_equal(counts().kernel_writes + counts().kernel_reads, 0);
}

static void test_errors_of_map(void **state)
{
	(void)state;
	s.fake->map_error = EINVAL;
	reads_right(0, 10, 10);
	reads_right(0, 10, 10);
	writes_right(0, 10, 0xe1);
	assert_int_equal(counts().kernel_reads, 2);
	assert_int_equal(counts().kernel_writes, 1);
	assert_true(s.fake->maps <= 3);
	s.fake->map_error = 0;
	retry_comes();
	reads_right(0, 10, 10);
	assert_int_equal(counts().kernel_reads, 2);
	/* Only storing goes wrong. */
	s.fake->map_write_error = ENOSPC;
	writes_right(0, 10, 0xe2);
	assert_int_equal(counts().kernel_writes, 2);
	reads_right(0, 32 * BLOCK, 32 * BLOCK);
	assert_int_equal(counts().kernel_reads, 2);
	s.fake->map_write_error = 0;
	retry_comes();
	writes_right(0, 10, 0xe3);
	assert_int_equal(counts().kernel_writes, 2);
}

/* The session is at its end, and there is another one a little later. */
static void comes_back(void)
{
	unsigned connects = s.fake->connects;

	while (counts().lost_sessions == 0)
		pause_ms(5);
	assert_int_equal(counts().lost_sessions, 1);
	retry_comes();
	umbra_get_counts(&s.before);
	reads_right(0, 32 * BLOCK, 32 * BLOCK);
	assert_int_equal(counts().kernel_reads, 0);
	assert_int_equal(s.fake->connects, connects + 1);
}

static void test_wrong_messages(void **state)
{
	(void)state;
	s.fake->type_instead = UMBRA_MSG_DONE;
	reads_right(0, 10, 10);
	s.fake->type_instead = 0;
	comes_back();
	fake_begin(s.fake, 0, 32, false);
	fake_end(s.fake);
	umbra_get_counts(&s.before);
	s.fake->type_instead = UMBRA_MSG_PIECES; /* too short */
	reads_right(0, 10, 10);
	s.fake->type_instead = 0;
	comes_back();
}

/* A user who gets no session just now: the kernel serves, nobody is asked each time, and later it goes on directly. */
static void test_later(void **state)
{
	struct umbra_file *other;
	struct timespec since, now;
	unsigned connects;
	int fd;

	(void)state;
	clock_gettime(CLOCK_MONOTONIC, &since);
	s.fake->hello_error = EBUSY;
	fake_down(s.fake);
	fake_up(s.fake);
	do
		reads_right(0, 10, 10);
	while (counts().lost_sessions == 0);
	connects = s.fake->connects;
	fd = fake_open(s.fake, O_RDWR);
	assert_int_equal(umbra_attach(fd, &other), 0);
	umbra_get_counts(&s.before);
	writes_right(0, 10, 0xe1);
	assert_int_equal(umbra_pread(other, buf, 1, 0), 1);
	assert_int_equal(counts().kernel_writes + counts().kernel_reads, 2);
	for (unsigned i = 0; i < 5; i++) {
		retry_comes();
		reads_right(0, 10, 10);
		clock_gettime(CLOCK_MONOTONIC, &now);
		assert_true(s.fake->connects - connects <= 2 + (unsigned)(now.tv_sec - since.tv_sec));
	}
	assert_int_equal(umbra_mmap_error(umbra_mmap(NULL, BLOCK, PROT_READ, MAP_SHARED, other, 0)),
			 -EOPNOTSUPP);
	s.fake->hello_error = 0;
	for (unsigned i = 0; counts().writes == 0 || counts().reads == 0; i++) {
		assert_true(i < 200);
		retry_comes();
		writes_right(0, 10, 0xe2);
		assert_int_equal(umbra_pread(other, buf, 1, 0), 1);
	}
	umbra_detach(other);
	close(fd);
}

static void test_daemon_ends(void **state)
{
	unsigned connects;

	(void)state;
	s.fake->deaf = true;
	reads_right(0, 10, 10);
	assert_int_equal(counts().kernel_reads, 1);
	s.fake->deaf = false;
	comes_back();
	writes_right(0, 10, 0xf1);
	umbra_get_counts(&s.before);
	connects = s.fake->connects;
	fake_down(s.fake);
	do
		reads_right(0, 32 * BLOCK, 32 * BLOCK);
	while (counts().lost_sessions == 0);
	writes_right(0, 10, 0xf2);
	reads_right(0, 32 * BLOCK, 32 * BLOCK);
	assert_true(counts().kernel_reads > 0);
	assert_int_equal(counts().kernel_writes, 1);
	/* Nobody answers: it is not asked at each call. */
	fake_up(s.fake);
	retry_comes();
	reads_right(0, 10, 10);
	umbra_get_counts(&s.before);
	writes_right(0, 10, 0xf3);
	reads_right(0, 32 * BLOCK, 32 * BLOCK);
	assert_int_equal(counts().kernel_reads + counts().kernel_writes, 0);
	assert_int_equal(s.fake->connects, connects + 1);
}

static void test_many_pieces(void **state)
{
	struct fake *big = s.fake;

	(void)state;
	umbra_detach(s.file);
	close(s.fd);
	fake_free(s.fake);
	big = s.fake = fake_new(8192, 3000);
	fake_fill(big, 0, 3000, 9, true);
	s.fd = fake_open(big, O_RDWR);
	do
		retry_comes();
	while (umbra_attach(s.fd, &s.file));
	umbra_get_counts(&s.before);
	for (uint32_t i = 0; i < 3000; i += 50)
		reads_right(i * BLOCK + 3, 20 * BLOCK, 20 * BLOCK);
	assert_in_range(counts().maps, 3000 / 256, 3000 / 256 + 2);
	for (uint32_t i = 7; i < 3000; i += 101)
		writes_right(i * BLOCK + 3, 3 * BLOCK, (uint8_t)i);
	big->pieces_max = 1;
	fake_begin(big, 100, 2000, false);
	for (uint32_t i = 100; i < 2000; i += 3)
		fake_move(big, i);
	fake_end(big);
	for (uint32_t i = 0; i < 3000; i += 60)
		reads_right(i * BLOCK, 60 * BLOCK, 60 * BLOCK);
	assert_int_equal(counts().kernel_reads + counts().kernel_writes, 0);
}

/* The last blocks of the device are cut off under a mapping that stays. */
static void test_bad_memory(void **state)
{
	struct fake_block *b = &s.fake->blocks[5];

	/* The test runner has taken the signal. */
	umbra_detach(s.file);
	assert_int_equal(umbra_attach(s.fd, &s.file), 0);
	(void)state;
	/* The kernel has lost line 3 and the block. */
	s.fake->used[b->dev] = 0;
	b->dev = s.fake->dev_blocks - 1;
	assert_int_equal(ftruncate(s.fake->dev, (off_t)(s.fake->dev_blocks - 2) * BLOCK), 0);
	reads_right(4 * BLOCK, BLOCK, BLOCK);
	assert_int_equal(umbra_pread(s.file, buf, BLOCK, 5 * BLOCK), -EIO);
	assert_int_equal(s.fake->bads, 1);
	assert_int_equal(umbra_pread(s.file, buf, 4 * BLOCK, 4 * BLOCK), BLOCK);
	assert_int_equal(umbra_pread(s.file, buf, 10, 5 * BLOCK), -EIO);
	assert_int_equal(s.fake->bads, 1);
	/* And now it can be read after all. */
	s.fake->mends = true;
	s.fake->blocks[7].dev = s.fake->dev_blocks - 1;
	fake_begin(s.fake, 7, 8, false);
	fake_end(s.fake);
	assert_int_equal(umbra_pread(s.file, buf, 3 * BLOCK, 6 * BLOCK), 3 * BLOCK);
	assert_int_equal(*(uint64_t *)(void *)(buf + BLOCK), fake_word(7, 77));
	assert_int_equal(s.fake->bads, 2);
	/* Storing meets it too. */
	s.fake->blocks[8].dev = s.fake->dev_blocks - 1;
	fake_begin(s.fake, 8, 9, false);
	fake_end(s.fake);
	writes_right(8 * BLOCK, BLOCK, 0x99);
	assert_int_equal(s.fake->bads, 3);
	assert_int_equal(ftruncate(s.fake->dev, (off_t)s.fake->dev_blocks * BLOCK), 0);
}

static sigjmp_buf out;

static void jump_out(int sig)
{
	(void)sig;
	siglongjmp(out, 1);
}

/* SIGBUS of memory that is not the device's is the application's, whoever has set it. */
static void test_bus_of_others(void **state)
{
	char *page =
		(char *)s.fake->base + (s.fake->dev_blocks - 1) * (uint64_t)BLOCK; /* our own mapping of it */
	struct sigaction mine = { .sa_handler = jump_out }, before;
	volatile bool came = false;
	struct umbra_file *file;

	(void)state;
	umbra_detach(s.file);
	fake_down(s.fake);
	assert_int_equal(sigaction(SIGBUS, &mine, &before), 0);
	fake_up(s.fake);
	do
		retry_comes();
	while (umbra_attach(s.fd, &file));
	s.file = file;
	assert_int_equal(ftruncate(s.fake->dev, (off_t)(s.fake->dev_blocks - 2) * BLOCK), 0);
	if (sigsetjmp(out, 1) == 0)
		(void)*(volatile char *)page;
	else
		came = true;
	assert_true(came);
	assert_int_equal(ftruncate(s.fake->dev, (off_t)s.fake->dev_blocks * BLOCK), 0);
}

static atomic_int told;

static void on_told(int sig)
{
	(void)sig;
	atomic_store(&told, 1);
}

/* The application is not told of bad memory in the library's own mappings of the device that nobody has touched: in each of them. */
static void test_early_word(void **state)
{
	siginfo_t info = { .si_signo = SIGBUS, .si_code = BUS_MCEERR_AO };
	struct sigaction mine = { .sa_handler = on_told }, before;
	unsigned own = 0, others = 0;
	struct stat st;
	char line[512];
	FILE *maps;

	(void)state;
	fake_down(s.fake);
	umbra_detach(s.file);
	assert_int_equal(sigaction(SIGBUS, &mine, &before), 0);
	fake_up(s.fake);
	do
		retry_comes();
	while (umbra_attach(s.fd, &s.file));
	assert_int_equal(fstat(s.fake->dev, &st), 0);
	maps = fopen("/proc/self/maps", "re");
	assert_non_null(maps);
	while (fgets(line, sizeof(line), maps)) {
		unsigned long lo, ino;
		bool is_own;

		if (sscanf(line, "%lx-%*x %*s %*s %*s %lu", &lo, &ino) != 2 || ino != st.st_ino)
			continue;
		is_own = lo != (uintptr_t)s.fake->base;
		*(is_own ? &own : &others) += 1;
		info.si_addr = (void *)(lo + BLOCK);
		atomic_store(&told, 0);
		assert_int_equal(syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), SIGBUS, &info),
				 0);
		assert_int_equal(atomic_load(&told), !is_own);
	}
	fclose(maps);
	assert_int_equal(others, 1);
	assert_int_equal(own, 2);
	assert_int_equal(sigaction(SIGBUS, &before, NULL), 0);
}

/* In a system call that waits: its number is in /proc. */
static bool is_reading(pid_t tid)
{
	char path[64];
	long number = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", (int)tid);
	file = fopen(path, "re");
	assert_non_null(file);
	if (fscanf(file, "%ld", &number) != 1)
		number = -1; /* it runs */
	fclose(file);
	return number == SYS_read;
}

static int in_read[2];
static atomic_int reader_tid;

static void *reader_run(void *arg)
{
	char byte;

	(void)arg;
	atomic_store(&reader_tid, (int)syscall(SYS_gettid));
	return read(in_read[0], &byte, 1) == 1 ? NULL : reader_run;
}

/* What the library takes for itself may come at any time: no system call that can go on ends by it. */
static void test_calls_go_on(void **state)
{
	struct sigaction mine = { .sa_handler = on_told, .sa_flags = SA_RESTART };
	pthread_t reader;
	void *failed;

	(void)state;
	assert_int_equal(pipe(in_read), 0);
	assert_int_equal(sigaction(SIGBUS, &mine, NULL), 0);
	fake_down(s.fake);
	umbra_detach(s.file);
	fake_up(s.fake);
	do
		retry_comes();
	while (umbra_attach(s.fd, &s.file));
	atomic_store(&told, 0);
	atomic_store(&reader_tid, 0);
	assert_int_equal(pthread_create(&reader, NULL, reader_run, NULL), 0);
	while (atomic_load(&reader_tid) == 0 || !is_reading(atomic_load(&reader_tid)))
		sched_yield();
	assert_int_equal(pthread_kill(reader, SIGBUS), 0);
	while (!atomic_load(&told))
		sched_yield();
	assert_int_equal(write(in_read[1], "x", 1), 1);
	pthread_join(reader, &failed);
	assert_null(failed);
	close(in_read[0]);
	close(in_read[1]);
}

static void child_ok(bool ok, int status)
{
	if (!ok)
		_exit(status);
}

static void test_fork_attaches_anew(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	writes_right(0, 10, 0x71);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		uint8_t byte = 0x72;

		alarm(60);
		umbra_get_counts(&s.before);
		child_ok(umbra_pread(s.file, buf, 32 * BLOCK, 0) == 32 * BLOCK, 1);
		child_ok(buf[0] == 0x71 && buf[9] == 0x71, 2);
		child_ok(umbra_pwrite(s.file, &byte, 1, 9) == 1, 3);
		child_ok(counts().kernel_reads + counts().kernel_writes == 0, 4);
		umbra_detach(s.file);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(s.fake->connects, 2);
	reads_right(0, 10, 10);
	assert_int_equal(buf[9], 0x72);
	/* The parent's session is the parent's alone: without it, it ends. */
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		pause();
		_exit(0);
	}
	umbra_get_counts(&s.before);
	s.fake->deaf = true;
	fake_begin(s.fake, 0, 1, false);
	fake_end(s.fake);
	reads_right(0, 10, 10);
	s.fake->deaf = false;
	comes_back();
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, up, down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_attach_errors),
		CASE(test_reading),
		CASE(test_writing),
		CASE(test_the_end_moves),
		CASE(test_log),
		CASE(test_modes),
		CASE(test_modes_alone),
		CASE(test_revokes),
		CASE(test_errors_of_map),
		CASE(test_read_only_session),
		CASE(test_wrong_messages),
		CASE(test_later),
		CASE(test_daemon_ends),
		CASE(test_many_pieces),
		CASE(test_bad_memory),
		CASE(test_bus_of_others),
		CASE(test_early_word),
		CASE(test_calls_go_on),
		CASE(test_fork_attaches_anew),
	};
	const char *only = getenv("UMBRA_TEST_ONLY");

	if (only && *only == '!')
		cmocka_set_skip_filter(only + 1);
	else if (only)
		cmocka_set_test_filter(only);
	alarm(LIMIT_S);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
