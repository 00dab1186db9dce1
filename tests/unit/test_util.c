/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Floor util: little-endian values, rounding, the log.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "util/le.h"
#include "util/log.h"
#include "util/util.h"

static void le_bytes(void **state)
{
	static const uint8_t bytes[] = { 0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01 };
	le16 a;
	le32 b;
	le64 c;

	(void)state;
	memcpy(&a, bytes, sizeof(a));
	memcpy(&b, bytes, sizeof(b));
	memcpy(&c, bytes, sizeof(c));
	assert_int_equal(le16_get(a), 0x0708);
	assert_int_equal(le32_get(b), 0x05060708);
	assert_true(le64_get(c) == 0x0102030405060708ull);
	a = le16_of(0x0708);
	b = le32_of(0x05060708);
	c = le64_of(0x0102030405060708ull);
	assert_memory_equal(&a, bytes, sizeof(a));
	assert_memory_equal(&b, bytes, sizeof(b));
	assert_memory_equal(&c, bytes, sizeof(c));
}

static void rounding(void **state)
{
	(void)state;
	assert_int_equal(u64_align_down(4095, 4096), 0);
	assert_int_equal(u64_align_down(4096, 4096), 4096);
	assert_int_equal(u64_align_up(1, 4096), 4096);
	assert_int_equal(u64_align_up(4096, 4096), 4096);
	assert_int_equal(u64_align_up(0, 4096), 0);
	assert_int_equal(u64_div_up(0, 7), 0);
	assert_int_equal(u64_div_up(7, 7), 1);
	assert_int_equal(u64_div_up(8, 7), 2);
	assert_true(u64_div_up(UINT64_MAX, 2) == (uint64_t)1 << 63);
	assert_int_equal(u64_min(1, 2), 1);
	assert_int_equal(u64_max(1, 2), 2);
}

struct outer {
	int before;
	int member;
};

static void container(void **state)
{
	struct outer o = { 1, 2 };
	int *member = &o.member;

	(void)state;
	assert_ptr_equal(container_of(member, struct outer, member), &o);
}

/* What reaches standard error while a test runs. */
static int saved_stderr;
static FILE *capture;

static void capture_start(void)
{
	capture = tmpfile();
	assert_non_null(capture);
	fflush(stderr);
	saved_stderr = dup(STDERR_FILENO);
	assert_true(saved_stderr >= 0);
	assert_true(dup2(fileno(capture), STDERR_FILENO) >= 0);
}

static void capture_end(char *buf, size_t size)
{
	ssize_t len;

	assert_true(dup2(saved_stderr, STDERR_FILENO) >= 0);
	close(saved_stderr);
	len = pread(fileno(capture), buf, size - 1, 0);
	assert_true(len >= 0);
	buf[len] = '\0';
	fclose(capture);
}

static void log_lines(void **state)
{
	char text[1024];

	(void)state;
	log_setup("prog", LOG_LEVEL_WARN, false);
	capture_start();
	errno = ENOSPC;
	log_error("%s: %d", "a\nb\033[1mc", 7);
	log_warn("careful");
	log_info("not shown");
	log_debug("nor this");
	assert_int_equal(errno, ENOSPC);
	log_setup("prog", LOG_LEVEL_DEBUG, false);
	log_info("caf\303\251");
	log_debug("all");
	capture_end(text, sizeof(text));
	assert_string_equal(text, "prog: a?b?[1mc: 7\n"
				  "prog: warning: careful\n"
				  "prog: caf\303\251\n"
				  "prog: debug: all\n");
}

static void log_long_line(void **state)
{
	static char text[16384];
	static char message[10000];

	(void)state;
	memset(message, 'x', sizeof(message) - 1);
	log_setup("prog", LOG_LEVEL_INFO, false);
	capture_start();
	log_error("%s", message);
	log_error("next");
	capture_end(text, sizeof(text));
	assert_true(strncmp(text, "prog: xxxx", 10) == 0);
	assert_string_equal(strchr(text, '\n'), "\nprog: next\n");
}

static void damage_is_reported_once(void **state)
{
	unsigned again = 0;

	(void)state;
	assert_true(log_is_first(4096));
	assert_false(log_is_first(4096));
	assert_true(log_is_first(8192));
	/* Places are forgotten rather than that new ones are not told. */
	for (uint64_t place = 1; place <= 10000; place++)
		assert_true(place == 4096 || place == 8192 || log_is_first(place));
	for (uint64_t place = 1; place <= 10000; place++)
		again += log_is_first(place);
	assert_true(again > 5000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(le_bytes),      cmocka_unit_test(rounding),
		cmocka_unit_test(container),     cmocka_unit_test(log_lines),
		cmocka_unit_test(log_long_line), cmocka_unit_test(damage_is_reported_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
