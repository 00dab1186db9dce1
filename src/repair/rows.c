/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Rows: arrays that grow, are sorted and looked into.
 *
 * There are as many of them as there are files, so they are sorted where they are: qsort takes as much memory again.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "repair/priv.h"

#define ROW_MAX 128u
#define SHORT_ROWS 12u /* so few are sorted by insertion */
#define SPANS_MAX 64u  /* the longer half waits: they halve */

typedef int (*rows_compare)(const void *a, const void *b);
/* For each size of row that is frequent there is a copy of these functions. */
#define EACH_SIZE static inline __attribute__((always_inline))

void *rows_add(struct check *ck, struct rows *rows, size_t row_size)
{
	if (rows->count == rows->room) {
		size_t room = rows->room + rows->room / 2 + 64;
		void *data = realloc(rows->data, room * row_size);

		if (!data) {
			ck->error = -ENOMEM;
			return NULL;
		}
		rows->data = data;
		rows->room = room;
	}
	return (uint8_t *)rows->data + rows->count++ * row_size;
}

void rows_append(struct check *ck, struct rows *to, const struct rows *from, size_t row_size)
{
	size_t count = to->count + from->count, room = to->room;
	void *data = to->data;

	if (from->count == 0)
		return;
	if (count > room) {
		room = count + count / 2;
		data = realloc(data, room * row_size);
		if (!data) {
			ck->error = -ENOMEM;
			return;
		}
	}
	memcpy((uint8_t *)data + to->count * row_size, from->data, from->count * row_size);
	*to = (struct rows){ data, count, room };
}

void rows_free(struct rows *rows)
{
	free(rows->data);
	*rows = (struct rows){ 0 };
}

const void *rows_find(const struct rows *rows, size_t row_size, size_t field_off, uint64_t value,
		      size_t *count)
{
	const uint8_t *all = rows->data;
	size_t lo = 0, hi = rows->count;

#define FIELD(i) (*(const uint64_t *)(const void *)(all + (i)*row_size + field_off))
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (FIELD(mid) < value)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (hi = lo; hi < rows->count && FIELD(hi) == value; hi++)
		;
#undef FIELD
	*count = hi - lo;
	return all ? all + lo * row_size : NULL;
}

/* ---- sorting ---- */

EACH_SIZE void swap(uint8_t *a, uint8_t *b, size_t size)
{
	uint8_t t[ROW_MAX];

	memcpy(t, a, size);
	memcpy(a, b, size);
	memcpy(b, t, size);
}

EACH_SIZE void insertion(uint8_t *data, size_t count, size_t size, rows_compare compare)
{
	uint8_t row[ROW_MAX];

	for (size_t i = 1; i < count; i++) {
		size_t k = i;

		if (compare(data + (i - 1) * size, data + i * size) <= 0)
			continue;
		memcpy(row, data + i * size, size);
		for (; k > 0 && compare(data + (k - 1) * size, row) > 0; k--)
			memcpy(data + k * size, data + (k - 1) * size, size);
		memcpy(data + k * size, row, size);
	}
}

/* Slower, and never much slower. */
EACH_SIZE void heap(uint8_t *data, size_t count, size_t size, rows_compare compare)
{
	for (size_t start = count / 2, end = count; end > 1;) {
		size_t at, child;

		if (start > 0)
			start--;
		else
			swap(data, data + --end * size, size);
		for (at = start; (child = 2 * at + 1) < end; at = child) {
			if (child + 1 < end && compare(data + child * size, data + (child + 1) * size) < 0)
				child++;
			if (compare(data + at * size, data + child * size) >= 0)
				break;
			swap(data + at * size, data + child * size, size);
		}
	}
}

EACH_SIZE const uint8_t *median(const uint8_t *a, const uint8_t *b, const uint8_t *c, rows_compare compare)
{
	if (compare(a, b) < 0)
		return compare(b, c) < 0 ? b : compare(a, c) < 0 ? c : a;
	return compare(a, c) < 0 ? a : compare(b, c) < 0 ? c : b;
}

/* How many rows are in the first part; none of them comes after one of the second. Neither is empty. */
EACH_SIZE size_t divide(uint8_t *data, size_t count, size_t size, rows_compare compare)
{
	uint8_t *i = data, *k = data + (count - 1) * size;
	uint8_t pivot[ROW_MAX];

	memcpy(pivot, median(i, data + count / 2 * size, k, compare), size);
	for (;; i += size, k -= size) {
		while (compare(i, pivot) < 0)
			i += size;
		while (compare(pivot, k) < 0)
			k -= size;
		if (i >= k)
			return (size_t)(k - data) / size + 1;
		swap(i, k, size);
	}
}

EACH_SIZE void sort(uint8_t *data, size_t count, size_t size, rows_compare compare)
{
	struct {
		uint8_t *data;
		size_t count;
	} spans[SPANS_MAX];
	size_t waiting = 0, steps = 2 * (size_t)(64 - __builtin_clzll(count | 1)) * count;

	for (;;) {
		while (count > SHORT_ROWS && steps >= count) {
			size_t first = divide(data, count, size, compare);
			uint8_t *second = data + first * size;

			steps -= count;
			if (first < count - first) {
				spans[waiting].data = second;
				spans[waiting++].count = count - first;
				count = first;
			} else {
				spans[waiting].data = data;
				spans[waiting++].count = first;
				data = second;
				count -= first;
			}
		}
		if (count > SHORT_ROWS)
			heap(data, count, size, compare);
		else
			insertion(data, count, size, compare);
		if (waiting == 0)
			return;
		data = spans[--waiting].data;
		count = spans[waiting].count;
	}
}

void rows_sort(struct rows *rows, size_t row_size, int (*compare)(const void *a, const void *b))
{
	uint8_t *data = rows->data;
	size_t i = 1;

	assert(row_size <= ROW_MAX);
	while (i < rows->count && compare(data + (i - 1) * row_size, data + i * row_size) <= 0)
		i++;
	if (i >= rows->count)
		return;
	if (row_size == sizeof(struct rmap))
		sort(data, rows->count, sizeof(struct rmap), compare);
	else
		sort(data, rows->count, row_size, compare);
}
