/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Small helpers that every floor may use.
 */
#ifndef UMBRA_UTIL_UTIL_H
#define UMBRA_UTIL_UTIL_H

#include <stddef.h>
#include <stdint.h>

#define must_check __attribute__((warn_unused_result))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

static inline uint64_t u64_min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t u64_max(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static inline uint64_t u64_div_up(uint64_t a, uint64_t b)
{
	return a / b + (a % b != 0);
}

/* unit must be a power of two */
static inline uint64_t u64_align_down(uint64_t a, uint64_t unit)
{
	return a & ~(unit - 1);
}

static inline uint64_t u64_align_up(uint64_t a, uint64_t unit)
{
	return (a + unit - 1) & ~(unit - 1);
}

#endif
