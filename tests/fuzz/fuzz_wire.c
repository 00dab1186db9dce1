/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests of the kernel's protocol, before libfuse sees them.
 *
 * Input: u8 flags | requests, each: u8 size in 8 bytes | bytes.
 */
#include <assert.h>

#include "fuse/wire.h"
#include "fuzz/input.h"
#include "fuzz/target.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct wire wire = { .compact_setxattr = input_u8(&in) & 1 };

	while (in.size) {
		size_t len = 8u + input_u8(&in) * 8u, now = len;
		char *request = input_memory(&in, len), *at = request;
		enum wire_verdict verdict = wire_request(&wire, &at, &now);

		assert(at >= request && now <= len && at + now == request + len);
		for (size_t i = 0; verdict == WIRE_PASS && i < now; i++)
			(void)*(volatile char *)(at + i);
		free(request);
	}
	return 0;
}
