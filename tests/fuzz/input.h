/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An input that is eaten from its start; past its end everything is zero.
 */
#ifndef UMBRA_TESTS_FUZZ_INPUT_H
#define UMBRA_TESTS_FUZZ_INPUT_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct input {
	const uint8_t *data;
	size_t size;
};

static inline void input_bytes(struct input *in, void *to, size_t len)
{
	size_t have = in->size < len ? in->size : len;

	memset(to, 0, len);
	if (have)
		memcpy(to, in->data, have);
	in->data += have;
	in->size -= have;
}

static inline uint8_t input_u8(struct input *in)
{
	uint8_t v;

	input_bytes(in, &v, sizeof(v));
	return v;
}

static inline uint16_t input_u16(struct input *in)
{
	uint16_t v;

	input_bytes(in, &v, sizeof(v));
	return v;
}

static inline uint64_t input_u64(struct input *in)
{
	uint64_t v;

	input_bytes(in, &v, sizeof(v));
	return v;
}

/* Memory of exactly that many bytes of the input, at a line: who reads or writes beside it is seen. */
static inline void *input_memory(struct input *in, size_t len)
{
	void *memory = NULL;

	if (posix_memalign(&memory, 64, len))
		abort();
	input_bytes(in, memory, len);
	return memory;
}

#endif
