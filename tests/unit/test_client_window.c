/* SPDX-License-Identifier: BSD-3-Clause */
/* How much is copied around stores (client/window.h): few messages where they are dense, little copied where they are not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/window.h"
#include "util/util.h"

#define PAGE 4096ull
#define PAGES_MAX (1u << 20)
#define REGION_PAGES (COPY_REGION / PAGE)

static uint8_t copied[PAGES_MAX];
static uint64_t number = 88172645463325252ull;

struct result {
	unsigned messages;
	uint64_t pages;
};

static uint32_t draw(uint32_t below)
{
	number ^= number << 13;
	number ^= number >> 7;
	number ^= number << 17;
	return (uint32_t)((number >> 16) % below);
}

static void store(struct window_past *past, uint32_t page, uint32_t pages, struct result *r)
{
	uint64_t window;

	if (copied[page])
		return;
	window = window_next(past, page * PAGE);
	assert_in_range(window, COPY_MIN, COPY_MAX);
	assert_int_equal(window & (window - 1), 0);
	for (uint64_t p = u64_align_down(page, window / PAGE), end = u64_min(p + window / PAGE, pages);
	     p < end; p++) {
		r->pages += !copied[p];
		copied[p] = 1;
	}
	r->messages++;
}

static struct result stores(struct window_past *past, uint32_t pages, uint32_t count, uint32_t step)
{
	struct result r = { 0 };

	memset(copied, 0, sizeof(copied));
	past->number = 0;
	for (uint32_t i = 0; i < count; i++)
		store(past, step ? (uint32_t)((uint64_t)i * step % pages) : draw(pages), pages, &r);
	return r;
}

/* Whatever the order: little more than a message a region, and less of large files. */
static void test_dense(void **state)
{
	struct window_past past = { 0 };
	struct result r = stores(&past, 65536, 1u << 20, 0);

	(void)state;
	assert_int_equal(r.pages, 65536);
	assert_true(r.messages <= 65536 / REGION_PAGES * 5 / 4);
	past = (struct window_past){ 0 };
	r = stores(&past, 65536, 65536, 1);
	assert_int_equal(r.pages, 65536);
	assert_true(r.messages <= 65536 / REGION_PAGES * 4 / 3);
	past = (struct window_past){ 0 };
	r = stores(&past, PAGES_MAX / 4, 4 * PAGES_MAX, 0);
	assert_int_equal(r.pages, PAGES_MAX / 4);
	assert_true(r.messages <= PAGES_MAX / 4 / REGION_PAGES);
}

/* One store here and there: no more than is always copied. */
static void test_sparse(void **state)
{
	struct window_past past = { 0 };
	struct result r = stores(&past, PAGES_MAX, 2000, REGION_PAGES + 1);

	(void)state;
	assert_int_equal(r.messages, 2000);
	assert_true(r.pages <= r.messages * (COPY_MIN / PAGE));
	past = (struct window_past){ 0 };
	r = stores(&past, PAGES_MAX, 128, 0);
	assert_true(r.pages <= 2 * r.messages * (COPY_MIN / PAGE));
}

/* After dense stores sparse ones soon cost little again, and the other way round. */
static void test_changes(void **state)
{
	struct window_past past = { 0 };
	struct result r = stores(&past, 65536, 1u << 20, 0);

	(void)state;
	(void)stores(&past, PAGES_MAX, 64, REGION_PAGES * 16 + 16);
	r = stores(&past, PAGES_MAX, 256, REGION_PAGES * 4 + 4);
	assert_true(r.pages <= r.messages * (COPY_MIN / PAGE));
	r = stores(&past, 65536, 1u << 20, 0);
	assert_true(r.messages <= 65536 / REGION_PAGES * 5 / 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dense),
		cmocka_unit_test(test_sparse),
		cmocka_unit_test(test_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
