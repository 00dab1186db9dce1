/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/user_memory.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "client/guard.h"
#include "client/mapping.h"

#define BLOCK 4096u
#define COPY_BYTES (4u << 20) /* at a time */

bool user_memory_exists(void)
{
	return mappings_touch(0, UINTPTR_MAX);
}

bool user_memory_at(const void *at, size_t len)
{
	uintptr_t lo = (uintptr_t)at, hi;

	if (__builtin_add_overflow(lo, len, &hi))
		hi = UINTPTR_MAX;
	return len > 0 && mappings_touch(lo, hi);
}

bool user_memory_in(const struct iovec *parts, int count)
{
	if (!user_memory_exists())
		return false;
	for (int i = 0; i < count; i++)
		if (user_memory_at(parts[i].iov_base, parts[i].iov_len))
			return true;
	return false;
}

/* ---- touching and copying ---- */

/* Of each page the first byte from at on, in order: so the first one that fails is known. */
static void touch_to_read(void *dst, const void *src, size_t len)
{
	const volatile uint8_t *at = src;

	(void)dst;
	for (size_t i = 0; i < len; i += BLOCK - ((uintptr_t)src + i) % BLOCK)
		(void)at[i];
}

static void touch_to_store(void *dst, const void *src, size_t len)
{
	uint8_t *at = dst, none = 0;

	(void)src;
	/* Not known to be zero: else compilers make a load of what changes nothing. */
	__asm__ volatile("" : "+r"(none));
	for (size_t i = 0; i < len; i += BLOCK - ((uintptr_t)dst + i) % BLOCK)
		__atomic_fetch_or(&at[i], none, __ATOMIC_RELAXED);
}

size_t user_memory_touch(void *at, size_t len, bool store)
{
	const uint8_t *end;

	if (guard_copy_placing(store ? touch_to_store : touch_to_read, at, at, len, at, &end))
		return len;
	return (uintptr_t)end - (uintptr_t)at;
}

static void touch_string(void *dst, const void *src, size_t len)
{
	const volatile uint8_t *at = src;

	(void)dst;
	for (size_t i = 0; i < len && at[i]; i++)
		;
}

bool user_memory_string(const char *at, size_t len_max)
{
	return guard_copy_placing(touch_string, NULL, at, len_max, at, NULL);
}

static void copy_bytes(void *dst, const void *src, size_t len)
{
	memcpy(dst, src, len);
}

bool user_memory_get(void *dst, const void *user, size_t len)
{
	return guard_copy_placing(copy_bytes, dst, user, len, user, NULL);
}

bool user_memory_put(void *user, const void *src, size_t len)
{
	return guard_copy_placing(copy_bytes, user, src, len, user, NULL);
}

/* ---- calls ---- */

/* All parts as one range of bytes. */
struct range {
	const struct iovec *parts;
	int count;
};

typedef size_t (*range_fn)(void *user, uint8_t *copy, size_t len);

static size_t range_touch(void *user, uint8_t *copy, size_t len)
{
	(void)copy;
	return user_memory_touch(user, len, false);
}

static size_t range_touch_to_store(void *user, uint8_t *copy, size_t len)
{
	(void)copy;
	return user_memory_touch(user, len, true);
}

static size_t range_get(void *user, uint8_t *copy, size_t len)
{
	return user_memory_get(copy, user, len) ? len : 0;
}

static size_t range_put(void *user, uint8_t *copy, size_t len)
{
	return user_memory_put(user, copy, len) ? len : 0;
}

/* For [from, from + len) of it, as long as that goes well: how many bytes. */
static size_t range_walk(const struct range *r, size_t from, size_t len, range_fn fn, uint8_t *copy)
{
	size_t done = 0;

	for (int i = 0; i < r->count && done < len; i++) {
		size_t n = r->parts[i].iov_len, good;

		if (from >= n) {
			from -= n;
			continue;
		}
		n = n - from < len - done ? n - from : len - done;
		good = fn((uint8_t *)r->parts[i].iov_base + from, copy ? copy + done : NULL, n);
		done += good;
		if (good < n)
			break;
		from = 0;
	}
	return done;
}

/* One of the calls. *len: what it is to do; what could be tried of it. */
static ssize_t one_call(const struct range *r, size_t from, size_t *len, bool store, bool whole,
			user_call_fn call, void *arg)
{
	size_t good = range_walk(r, from, *len, store ? range_touch_to_store : range_touch, NULL), there;
	uint8_t *copy;
	ssize_t n;

	if (good == 0 || (whole && !store && good < *len)) {
		errno = EFAULT;
		return -1;
	}
	/* A message may be shorter than the memory for it. */
	if (whole)
		good = *len;
	copy = malloc(good);
	if (!copy) {
		errno = ENOMEM;
		return -1;
	}
	*len = good;
	if (!store && range_walk(r, from, good, range_get, copy) < good) {
		errno = EFAULT;
		n = -1;
	} else {
		n = call(arg, copy, good, from);
	}
	there = n > 0 && (size_t)n < good ? (size_t)n : good;
	if (store && n > 0 && range_walk(r, from, there, range_put, copy) < there) {
		errno = EFAULT;
		n = -1;
	}
	free(copy);
	return n;
}

ssize_t user_memory_call(const struct iovec *parts, int count, bool store, bool whole, user_call_fn call,
			 void *arg)
{
	struct range r = { parts, count };
	size_t total = 0, done = 0;
	int before = errno;

	for (int i = 0; i < count; i++)
		if (__builtin_add_overflow(total, parts[i].iov_len, &total) || total > INT64_MAX) {
			errno = EINVAL;
			return -1;
		}
	while (done < total) {
		size_t want = whole || total - done < COPY_BYTES ? total - done : COPY_BYTES, len = want;
		ssize_t n = one_call(&r, done, &len, store, whole, call, arg);

		if (n < 0 && done > 0)
			errno = before;
		if (n < 0)
			return done > 0 ? (ssize_t)done : -1;
		done += (size_t)n;
		if (whole || (size_t)n < len || len < want)
			break;
	}
	return (ssize_t)done;
}
