/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libumbra: data straight from the device, beside the kernel's calls for the same files.
 */
#define _GNU_SOURCE
#include "check.h"
#include "files.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <umbra/umbra.h>

#define BLOCK 4096u
#define MODEL_MAX (96u * BLOCK)
#define STEPS 3000
#define PROCESSES 4u
#define SHARE 64u /* blocks of each process */
#define ROUNDS 400

static uint64_t number;

static uint32_t draw(uint32_t below)
{
	number ^= number << 13;
	number ^= number >> 7;
	number ^= number << 17;
	return (uint32_t)(number >> 20) % below;
}

/* A file that is attached; ends the case where there is no such thing. */
static struct umbra_file *attach(int fd)
{
	struct umbra_file *file;
	int rc;

	if (!check_fs_is("umbrafs"))
		check_skip("only umbrafs has direct mappings");
	rc = umbra_attach(fd, &file);
	if (rc == -EOPNOTSUPP)
		check_skip("the mount gives no direct access");
	MUST(rc == 0 ? 0 : -1);
	return file;
}

/* By an open that knows that somebody stores directly. */
static ssize_t kernel_read(const char *name, void *buf, size_t size, off_t off)
{
	int fd = (int)MUST(open(name, O_RDONLY));
	ssize_t n = pread(fd, buf, size, off);

	close(fd);
	return n;
}

static bool by_kernel(const struct umbra_counts *before)
{
	struct umbra_counts now;

	umbra_get_counts(&now);
	return now.kernel_reads != before->kernel_reads || now.kernel_writes != before->kernel_writes;
}

/* What one writes the other reads, in both directions, and all of it without the kernel where it can be. */
static void case_both_ways(void)
{
	static uint8_t a[300 * BLOCK], b[sizeof(a)];
	struct umbra_counts before;
	struct umbra_file *file;
	int fd = (int)MUST(open("f", O_RDWR | O_CREAT, 0644));

	for (size_t i = 0; i < sizeof(a); i++)
		a[i] = (uint8_t)(i * 7 + i / BLOCK);
	EQ(sizeof(a), pwrite(fd, a, sizeof(a), 0));
	file = attach(fd);
	umbra_get_counts(&before);
	EQ(sizeof(b), umbra_pread(file, b, sizeof(b), 0));
	MEMEQ(a, b, sizeof(a));
	memset(a + 5000, 0x77, 100 * BLOCK);
	EQ(100 * BLOCK, umbra_pwrite(file, a + 5000, 100 * BLOCK, 5000));
	TRUE(!by_kernel(&before));
	EQ(sizeof(b), kernel_read("f", b, sizeof(b), 0));
	MEMEQ(a, b, sizeof(a));
	memset(a + 9000, 0x78, 10000);
	EQ(10000, pwrite(fd, a + 9000, 10000, 9000));
	EQ(sizeof(b), umbra_pread(file, b, sizeof(b), 0));
	MEMEQ(a, b, sizeof(a));
	umbra_detach(file);
	close(fd);
}

/* The end moves within a block: nothing past it is read, nothing is stored there. */
static void case_end_in_a_block(void)
{
	static uint8_t buf[4 * BLOCK];
	struct umbra_file *file;
	int fd = (int)MUST(open("f", O_RDWR | O_CREAT, 0644));

	memset(buf, 1, sizeof(buf));
	EQ(10000, pwrite(fd, buf, 10000, 0));
	file = attach(fd);
	EQ(10000, umbra_pwrite(file, buf, 10000, 0));
	EQ(10000, umbra_pread(file, buf, sizeof(buf), 0));
	OK(ftruncate(fd, 9000));
	EQ(9000, umbra_pread(file, buf, sizeof(buf), 0));
	EQ(0, umbra_pread(file, buf, 100, 9500));
	memset(buf, 2, sizeof(buf));
	EQ(100, umbra_pwrite(file, buf, 100, 9500));
	EQ(9600, lseek(fd, 0, SEEK_END));
	EQ(9600, umbra_pread(file, buf, sizeof(buf), 0));
	EQ(0, buf[9200]);
	EQ(2, buf[9500]);
	OK(ftruncate(fd, 9300));
	OK(ftruncate(fd, 12000));
	EQ(12000, umbra_pread(file, buf, sizeof(buf), 0));
	EQ(0, buf[9500]);
	umbra_detach(file);
	close(fd);
}

/* ---- by chance, against a model ---- */

struct world {
	int fd, other;
	struct umbra_file *file;
	uint8_t bytes[MODEL_MAX], cloned[MODEL_MAX];
	uint32_t size, cloned_size;
};

static struct world w;

static void model_resize(uint32_t size)
{
	if (size > w.size)
		memset(w.bytes + w.size, 0, size - w.size);
	w.size = size;
}

static void step_write(bool direct)
{
	static uint8_t buf[MODEL_MAX];
	uint32_t off = draw(MODEL_MAX), len = 1 + draw(draw(2) ? 5 * BLOCK : 300);
	ssize_t n;

	if (len > MODEL_MAX - off)
		len = MODEL_MAX - off;
	if (draw(4) && w.size > len)
		off %= w.size - len + 1;
	memset(buf, (int)draw(256), len);
	n = direct ? umbra_pwrite(w.file, buf, len, off) : pwrite(w.fd, buf, len, off);
	EQ(len, n);
	if (off + len > w.size)
		model_resize(off + len);
	memcpy(w.bytes + off, buf, len);
}

static void step_read(bool direct)
{
	static uint8_t buf[MODEL_MAX];
	uint32_t off = draw(MODEL_MAX), len = 1 + draw(MODEL_MAX - off);
	uint32_t want = off >= w.size ? 0 : len < w.size - off ? len : w.size - off;
	ssize_t n = direct ? umbra_pread(w.file, buf, len, off) : kernel_read("f", buf, len, off);

	if (EQ(want, n))
		MEMEQ(w.bytes + off, buf, want);
}

static void step_clone(void)
{
	off_t from = 0, to = 0;

	OK(ftruncate(w.other, 0));
	if (w.size > 0)
		EQ(w.size, copy_file_range(w.fd, &from, w.other, &to, w.size, 0));
	memcpy(w.cloned, w.bytes, w.size);
	w.cloned_size = w.size;
}

static void step(unsigned what)
{
	static uint8_t buf[MODEL_MAX];
	uint32_t off = draw(MODEL_MAX), len = 1 + draw(MODEL_MAX - off);

	check_context("seed %#llx, step of kind %u, size %u", (unsigned long long)check_seed(), what, w.size);
	if (what < 8) {
		step_write(what < 6);
	} else if (what < 16) {
		step_read(what < 14);
	} else if (what == 16) {
		OK(ftruncate(w.fd, draw(MODEL_MAX)));
		model_resize((uint32_t)lseek(w.fd, 0, SEEK_END));
	} else if (what == 17) {
		OK(fallocate(w.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len));
		if (off < w.size)
			memset(w.bytes + off, 0, len < w.size - off ? len : w.size - off);
	} else if (what == 18) {
		step_clone();
	} else {
		EQ(w.cloned_size, pread(w.other, buf, sizeof(buf), 0));
		MEMEQ(w.cloned, buf, w.cloned_size);
	}
}

static void case_model(void)
{
	struct umbra_counts counts;

	number = check_seed() | 1;
	w.fd = (int)MUST(open("f", O_RDWR | O_CREAT, 0644));
	w.other = (int)MUST(open("g", O_RDWR | O_CREAT, 0644));
	w.file = attach(w.fd);
	for (unsigned i = 0; i < STEPS * check_scale() && check_failed_count() == 0; i++)
		step(draw(20));
	umbra_get_counts(&counts);
	TRUE(counts.reads > 0 && counts.writes > 0 && counts.revokes > 0);
	umbra_detach(w.file);
	close(w.fd);
	close(w.other);
}

/* ---- processes ---- */

/* Each has blocks of its own, and knows what it has written there; words say whose they are. */
static void process_body(void *arg)
{
	static uint64_t words[SHARE * BLOCK / 8], read[SHARE * BLOCK / 8];
	unsigned index = *(unsigned *)arg;
	uint64_t base = (uint64_t)index * SHARE * BLOCK;
	int fd = (int)MUST(open("f", O_RDWR));
	struct umbra_file *file = attach(fd);
	struct umbra_counts counts;

	number = check_seed() + index * 977 + 1;
	for (unsigned round = 0; round < ROUNDS && check_failed_count() == 0; round++) {
		uint32_t from = draw(SHARE * BLOCK / 8), len = 1 + draw(draw(4) ? 512 : SHARE * BLOCK / 8);

		if (len > SHARE * BLOCK / 8 - from)
			len = SHARE * BLOCK / 8 - from;
		for (uint32_t i = 0; i < len; i++)
			words[from + i] = (uint64_t)(index + 1) << 32 | round;
		EQ(len * 8, umbra_pwrite(file, &words[from], len * 8, (off_t)(base + from * 8)));
		EQ(sizeof(read), umbra_pread(file, read, sizeof(read), (off_t)base));
		MEMEQ(words, read, sizeof(read));
		/* Of another one: its own or nothing. */
		from = (uint32_t)draw(PROCESSES);
		EQ(sizeof(read), umbra_pread(file, read, sizeof(read), (off_t)from * SHARE * BLOCK));
		for (uint32_t i = 0; i < SHARE * BLOCK / 8; i++)
			if (read[i] && !EQ(from + 1, read[i] >> 32))
				break;
	}
	umbra_get_counts(&counts);
	TRUE(counts.reads > 0);
	umbra_detach(file);
	EQ(sizeof(read), pread(fd, read, sizeof(read), (off_t)base));
	MEMEQ(words, read, sizeof(read));
	close(fd);
}

static void clone_and_look(int fd, int other)
{
	static uint64_t before[SHARE * BLOCK / 8], after[SHARE * BLOCK / 8];
	off_t from = 0, to = 0;

	EQ(PROCESSES * SHARE * BLOCK, copy_file_range(fd, &from, other, &to, PROCESSES * SHARE * BLOCK, 0));
	EQ(sizeof(before), pread(other, before, sizeof(before), 0));
	usleep(1000);
	OK(posix_fadvise(other, 0, 0, POSIX_FADV_DONTNEED));
	EQ(sizeof(after), pread(other, after, sizeof(after), 0));
	MEMEQ(before, after, sizeof(before));
}

/* Beside them the file is cloned, and what lies behind theirs is written, punched and cut off, by the kernel. */
static void case_processes(void)
{
	unsigned indices[PROCESSES];
	pid_t pids[PROCESSES];
	int fd = (int)MUST(open("f", O_RDWR | O_CREAT, 0644)),
	    other = (int)MUST(open("g", O_RDWR | O_CREAT, 0644));
	off_t end = (off_t)PROCESSES * SHARE * BLOCK;
	struct umbra_file *file = attach(fd);

	number = check_seed() | 1;
	MUST(ftruncate(fd, end));
	umbra_detach(file);
	close(fd);
	for (unsigned i = 0; i < PROCESSES; i++) {
		indices[i] = i;
		pids[i] = child_start(process_body, &indices[i]);
	}
	for (unsigned i = 0; i < 40 && check_failed_count() == 0; i++) {
		char text[100] = "behind";

		fd = (int)MUST(open("f", O_RDWR));
		clone_and_look(fd, other);
		EQ(sizeof(text), pwrite(fd, text, sizeof(text), end + draw(10 * BLOCK)));
		OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, end + draw(BLOCK), 3 * BLOCK));
		OK(ftruncate(fd, end + draw(5 * BLOCK)));
		close(fd);
	}
	for (unsigned i = 0; i < PROCESSES; i++)
		child_wait(pids[i]);
	close(other);
}

static const struct check_case cases[] = {
	{ "both_ways", case_both_ways },
	{ "end_in_a_block", case_end_in_a_block },
	{ "model", case_model },
	{ "processes", case_processes },
};

CHECK_MAIN(cases)
