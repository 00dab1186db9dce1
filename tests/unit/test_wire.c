/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests of newer kernels than libfuse knows: what it is given instead of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <linux/fuse.h>

#include "fuse/wire.h"

#define COPY_FILE_RANGE_64 53u
#define TMPFILE 51u

static enum wire_verdict pass(uint32_t opcode, size_t body_bytes, uint32_t *became)
{
	_Alignas(8) char bytes[256] = { 0 };
	struct fuse_in_header *in = (void *)bytes;
	size_t size_bytes = sizeof(*in) + body_bytes;
	struct wire wire = { .ready = true };
	char *request = bytes;
	enum wire_verdict verdict;

	in->opcode = opcode;
	in->unique = 7;
	in->len = (uint32_t)size_bytes;
	memset(&wire_now, 0xff, sizeof(wire_now));
	verdict = wire_request(&wire, &request, &size_bytes);
	assert_int_equal(wire_now.unique, 7);
	*became = ((const struct fuse_in_header *)request)->opcode;
	return verdict;
}

/* An unknown one would be answered with ENOSYS, and two of those at once make the kernel give up the known one. */
static void test_copy_file_range(void **state)
{
	uint32_t became;

	(void)state;
	assert_int_equal(pass(COPY_FILE_RANGE_64, sizeof(struct fuse_copy_file_range_in), &became),
			 WIRE_PASS);
	assert_int_equal(became, FUSE_COPY_FILE_RANGE);
	assert_true(wire_now.copy_64);
	assert_int_equal(pass(FUSE_COPY_FILE_RANGE, sizeof(struct fuse_copy_file_range_in), &became),
			 WIRE_PASS);
	assert_int_equal(became, FUSE_COPY_FILE_RANGE);
	assert_false(wire_now.copy_64);
}

static void test_tmpfile(void **state)
{
	uint32_t became;

	(void)state;
	assert_int_equal(pass(TMPFILE, 16, &became), WIRE_PASS);
	assert_int_equal(became, FUSE_CREATE);
	assert_true(wire_now.tmpfile && !wire_now.copy_64);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_copy_file_range),
		cmocka_unit_test(test_tmpfile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
