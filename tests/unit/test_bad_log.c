/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the log says of bad memory that stays: each block once, however many there are and however often they are met, and then how many it is when that
 * has changed.
 */
#include <errno.h>
#include <fcntl.h>
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
#include <unistd.h>

#include <cmocka.h>

#include "daemon/badblocks.h"
#include "dax/badblocks.h"
#include "fs/core.h"
#include "fs/poison.h"
#include "lib/testfs.h"
#include "lib/testpoison.h"

#define POOL_BYTES ((uint64_t)24 << 20)
#define BAD 700u /* more than the log remembers by itself */
#define LOOKS 5u

static struct testfs t;
static uint64_t fill, offs[BAD];
static uint8_t bytes[64 * BLOCK_SIZE];

/* ---- the log ---- */

static FILE *log_file;
static long log_at; /* what has been read of it */
static int log_was;

static void log_begin(void)
{
	log_file = tmpfile();
	assert_non_null(log_file);
	log_at = 0;
	assert_int_equal(fcntl(fileno(log_file), F_SETFL, O_APPEND), 0);
	log_was = dup(STDERR_FILENO);
	assert_true(log_was >= 0 && dup2(fileno(log_file), STDERR_FILENO) >= 0);
}

/* Lines since the last call that hold the text. */
static unsigned log_lines(const char *text)
{
	char line[4096];
	unsigned count = 0;

	assert_int_equal(fseek(log_file, log_at, SEEK_SET), 0);
	while (fgets(line, sizeof(line), log_file))
		count += strstr(line, text) != NULL;
	log_at = ftell(log_file);
	return count;
}

static void log_end(void)
{
	assert_true(dup2(log_was, STDERR_FILENO) >= 0);
	close(log_was);
	fclose(log_file);
}

/* ---- the pool ---- */

static void make(bool full)
{
	const struct testfs_opts opts = { .size_bytes = POOL_BYTES };
	uint64_t at = 0;
	ssize_t n;

	testfs_make(&t, &opts);
	fill = testfs_node(&t, INODE_ROOT, "fill", S_IFREG | 0644);
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 31 + i / 251);
	for (size_t len = sizeof(bytes); len >= BLOCK_SIZE; len /= 2)
		while ((full || at < 2 * BAD * BLOCK_SIZE) &&
		       (n = fs_write(t.fs, &testfs_root, fill, bytes, len, at, 0)) > 0)
			at += (uint64_t)n;
	for (unsigned i = 0; i < BAD; i++) {
		uint64_t off = 2 * i * BLOCK_SIZE;
		struct fs_extent e;

		assert_int_equal(fs_map(t.fs, fill, off, &e, 1), 1);
		offs[i] = e.dev_off + (off - e.file_off);
	}
	log_begin();
}

static void end(void)
{
	assert_null(pool_failed(t.pool));
	testfs_check(&t);
	testfs_free(&t);
	log_end();
}

static void test_rounds(void **state)
{
	(void)state;
	make(true);
	for (unsigned i = 0; i < BAD; i++)
		assert_int_equal(fs_poison_add(t.fs, offs[i]), -EINPROGRESS);
	assert_int_equal(log_lines("stays in use for now"), BAD);
	poison_drain(t.fs, POISON_ALL);
	assert_int_equal(log_lines(""), 1);
	for (unsigned i = 0; i < LOOKS; i++)
		poison_drain(t.fs, POISON_ALL);
	for (unsigned i = 0; i < BAD; i++)
		assert_int_equal(fs_poison_add(t.fs, offs[i]), -EINPROGRESS);
	assert_int_equal(log_lines(""), 0);
	/* Those of another mount are named by none. */
	testfs_remount(&t);
	fs_work(t.fs);
	assert_int_equal(log_lines("stays in use for now"), 0);
	(void)log_lines("");
	poison_drain(t.fs, POISON_ALL);
	assert_int_equal(log_lines(""), 0);
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "fill"), 0);
	fs_work(t.fs);
	poison_drain(t.fs, POISON_ALL);
	assert_int_equal(log_lines("has to wait any more"), 1);
	end();
}

static void test_readonly(void **state)
{
	const struct pool_opts opts = { .readonly = true };
	const struct fs_opts fs_opts = { .readonly = true };
	struct testpoison *poison;
	char why[256];
	uint8_t byte;

	(void)state;
	make(false);
	fs_close(t.fs);
	pool_close(t.pool, true);
	assert_int_equal(pool_open(t.dax, &opts, &t.pool, why, sizeof(why)), 0);
	assert_int_equal(fs_open(t.pool, &fs_opts, &t.fs), 0);
	poison = testpoison_open(t.dax);
	if (!poison) {
		log_end();
		testfs_free(&t);
		skip();
	}
	for (unsigned i = 0; i < BAD; i++)
		testpoison_page(poison, offs[i]);
	(void)log_lines("");
	for (unsigned look = 0; look < LOOKS; look++) {
		for (unsigned i = 0; i < BAD; i++)
			assert_int_equal(fs_read(t.fs, fill, &byte, 1, 2 * i * BLOCK_SIZE), -EIO);
		assert_int_equal(log_lines(""), look == 0 ? BAD : 0);
	}
	testpoison_close(poison);
	end();
}

/* ---- the device's own list ---- */

static atomic_uint looks;

static int device_list(void *ctx, dax_badblock_fn fn, void *arg)
{
	int rc = 0;

	(void)ctx;
	for (unsigned i = 0; i < BAD && !rc; i++)
		rc = fn(arg, offs[i], BLOCK_SIZE);
	atomic_fetch_add(&looks, 1);
	return rc;
}

static void test_listed(void **state)
{
	static const struct dax_badblocks_ops ops = { .list = device_list };
	struct badblocks *bb;

	(void)state;
	make(true);
	dax_badblocks_stand_in(t.dax, &ops, NULL);
	atomic_store(&looks, 0);
	assert_int_equal(badblocks_start(t.fs, 1, &bb), 0);
	while (atomic_load(&looks) < LOOKS)
		sched_yield();
	badblocks_stop(bb);
	assert_int_equal(log_lines(""), 1);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rounds),
		cmocka_unit_test(test_readonly),
		cmocka_unit_test(test_listed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
