/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The transport over io_uring without a kernel that asks: the ring itself, how requests and replies lie in an entry, what counts as a stream.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/fuse.h>

#include "fuse/uring_priv.h"

#define COMMANDS 8u

/* A device that knows no commands refuses each; that is enough to see that they come back, more often than there is room for at once. */
static void test_ring(void **state)
{
	struct ring ring;
	struct ring_command command = { .op = URING_REGISTER, .bytes = "command", .bytes_size = 7 };
	uint64_t tag, next = 100;
	int result, rc = ring_open(&ring, COMMANDS, 2 * COMMANDS);

	(void)state;
	if (rc == -EPERM || rc == -ENOSYS)
		skip();
	assert_int_equal(rc, 0);
	command.fd = eventfd(0, EFD_CLOEXEC);
	assert_true(command.fd >= 0);
	for (unsigned round = 0; round < 50; round++) {
		unsigned count = 1 + round % COMMANDS;

		assert_false(ring_is_ready(&ring));
		assert_false(ring_pop(&ring, &tag, &result));
		for (unsigned i = 0; i < count; i++) {
			command.tag = next + i;
			assert_true(ring_push(&ring, &command));
		}
		assert_int_equal(ring_submit(&ring), 0);
		for (unsigned i = 0; i < count; i++) {
			assert_int_equal(ring_enter(&ring, true), 0);
			assert_true(ring_is_ready(&ring));
			assert_true(ring_pop(&ring, &tag, &result));
			assert_int_equal(tag, next + i);
			assert_int_equal(result, -EOPNOTSUPP);
		}
		next += count;
	}
	for (unsigned i = 0; i < COMMANDS; i++)
		assert_true(ring_push(&ring, &command));
	assert_false(ring_push(&ring, &command));
	close(command.fd);
	ring_close(&ring);
	ring_close(&ring);
}

static void test_cores(void **state)
{
	(void)state;
	assert_int_equal(uring_cores_parse("0\n"), 1);
	assert_int_equal(uring_cores_parse("0-1\n"), 2);
	assert_int_equal(uring_cores_parse("0-127"), 128);
	assert_int_equal(uring_cores_parse("0,1-3\n"), 4);
	assert_int_equal(uring_cores_parse(""), -1);
	assert_int_equal(uring_cores_parse("\n"), -1);
	assert_int_equal(uring_cores_parse("1-3\n"), -1);
	assert_int_equal(uring_cores_parse("0-1,4\n"), -1);
	assert_int_equal(uring_cores_parse("0-\n"), -1);
	assert_int_equal(uring_cores_parse("0-1x\n"), -1);
	assert_int_equal(uring_cores_parse("0-70000\n"), -1);
}

/* As the kernel leaves it in an entry. */
static void request_put(struct entry *entry, const char *op, size_t op_size, const char *payload, size_t size)
{
	struct fuse_in_header in = { .len = (uint32_t)(sizeof(in) + op_size + size), .unique = 7 };

	memset(entry->head, 0xee, sizeof(*entry->head));
	memcpy(entry->head->in_out, &in, sizeof(in));
	memcpy(entry->head->op_in, op, op_size);
	memcpy(entry->payload, payload, size);
	entry->head->ring.payload_size = (uint32_t)size;
}

static void test_request(void **state)
{
	struct entry *entry = uring_entry_new(NULL);
	struct fuse_in_header in;
	char *request;
	size_t size;

	(void)state;
	assert_non_null(entry);
	request_put(entry, "argument", 8, "name", 5);
	request = uring_entry_join(entry, &size);
	assert_non_null(request);
	assert_int_equal(size, sizeof(in) + 8 + 5);
	memcpy(&in, request, sizeof(in));
	assert_int_equal(in.unique, 7);
	assert_memory_equal(request + sizeof(in), "argumentname", 13);
	assert_ptr_equal(request + sizeof(in) + 8, entry->payload);

	request_put(entry, "", 0, "name", 5);
	request = uring_entry_join(entry, &size);
	assert_memory_equal(request + sizeof(in), "name", 5);

	/* Lengths that cannot be. */
	entry->head->ring.payload_size = 100;
	assert_null(uring_entry_join(entry, &size));
	in.len = sizeof(in) + 129;
	memcpy(entry->head->in_out, &in, sizeof(in));
	entry->head->ring.payload_size = 0;
	assert_null(uring_entry_join(entry, &size));
	uring_entry_free(entry);
}

static void reply_check(struct entry *entry, int error, const char *payload, size_t size)
{
	struct fuse_out_header out;

	memcpy(&out, entry->head->in_out, sizeof(out));
	assert_int_equal(out.unique, 7);
	assert_int_equal(out.error, error);
	assert_int_equal(entry->head->ring.payload_size, size);
	assert_memory_equal(entry->payload, payload, size);
}

static void test_reply(void **state)
{
	struct entry *entry = uring_entry_new(NULL);
	struct fuse_out_header out = { .unique = 7 };
	char first[] = "first", second[] = "second";
	struct iovec iov[3] = { { &out, sizeof(out) }, { first, 5 }, { second, 6 } };

	(void)state;
	assert_non_null(entry);
	uring_entry_fill(entry, iov, 1);
	reply_check(entry, 0, "", 0);
	uring_entry_fill(entry, iov, 3);
	reply_check(entry, 0, "firstsecond", 11);

	/* What lies there already: all of it, and a part that has to make room for the one before it. */
	memcpy(entry->payload, "placed", 6);
	iov[1] = (struct iovec){ entry->payload, 6 };
	uring_entry_fill(entry, iov, 2);
	reply_check(entry, 0, "placed", 6);
	iov[1] = (struct iovec){ first, 5 };
	iov[2] = (struct iovec){ entry->payload, 6 };
	uring_entry_fill(entry, iov, 3);
	reply_check(entry, 0, "firstplaced", 11);

	out.error = -ENOENT;
	uring_entry_fill(entry, iov, 1);
	reply_check(entry, -ENOENT, "", 0);
	out.error = 0;
	iov[1] = (struct iovec){ first, SIZE_MAX / 2 };
	uring_entry_fill(entry, iov, 2);
	reply_check(entry, -EIO, "", 0);
	uring_entry_free(entry);
}

static bool read_goes_on(struct entry *entry, uint64_t off_bytes, uint32_t size_bytes, uint64_t *end_bytes)
{
	struct fuse_in_header in = { .opcode = FUSE_READ };
	struct fuse_read_in read = { .offset = off_bytes, .size = size_bytes };

	memcpy(entry->head->in_out, &in, sizeof(in));
	memcpy(entry->head->op_in, &read, sizeof(read));
	return uring_entry_goes_on(entry, end_bytes);
}

static void test_goes_on(void **state)
{
	const uint32_t large = 1u << 19;
	struct entry *entry = uring_entry_new(NULL);
	struct fuse_in_header in = { .opcode = FUSE_WRITE };
	uint64_t end_bytes = 0;

	(void)state;
	assert_non_null(entry);
	assert_true(read_goes_on(entry, 0, large, &end_bytes));
	assert_true(read_goes_on(entry, large, large, &end_bytes));
	/* Others in between change nothing. */
	assert_false(read_goes_on(entry, 4096, 4096, &end_bytes));
	assert_false(read_goes_on(entry, 2 * large, 4096, &end_bytes));
	memcpy(entry->head->in_out, &in, sizeof(in));
	assert_false(uring_entry_goes_on(entry, &end_bytes));
	assert_true(read_goes_on(entry, 2 * large, large, &end_bytes));
	/* Somewhere else, from there on, and the same once more. */
	assert_false(read_goes_on(entry, 7 * large, large, &end_bytes));
	assert_true(read_goes_on(entry, 8 * large, large, &end_bytes));
	assert_false(read_goes_on(entry, 8 * large, large, &end_bytes));
	uring_entry_free(entry);
}

static void test_stream(void **state)
{
	struct stream stream = { 0 };
	unsigned ticks;

	(void)state;
	/* Not at once, nor for a tick now and then. */
	for (unsigned i = 0; i < 100; i++)
		assert_false(uring_stream_tick(&stream, i % 2 == 0));
	assert_false(stream.is_loose);
	stream = (struct stream){ 0 };
	for (ticks = 1; !uring_stream_tick(&stream, true); ticks++)
		assert_true(ticks < 10);
	assert_true(ticks > 1);
	assert_true(stream.is_loose);
	/* It goes on, however long, with ticks that miss it. */
	for (unsigned i = 0; i < 1000; i++)
		assert_false(uring_stream_tick(&stream, i % 3 != 0));
	assert_true(stream.is_loose);
	/* It ends, as soon after a long one. */
	for (ticks = 1; !uring_stream_tick(&stream, false); ticks++)
		assert_true(ticks < 20);
	assert_false(stream.is_loose);
	for (unsigned i = 0; i < 100; i++)
		assert_false(uring_stream_tick(&stream, false));
	assert_false(uring_stream_tick(&stream, true));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ring),  cmocka_unit_test(test_cores),   cmocka_unit_test(test_request),
		cmocka_unit_test(test_reply), cmocka_unit_test(test_goes_on), cmocka_unit_test(test_stream),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
