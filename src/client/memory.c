/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pieces of powers of two, each with a head, cut from larger ones of the kernel's; those that are free are in a list of their size. The lock is the last one, and nobody waits for anything with it.
 */
#include "client/memory.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "client/calls.h"
#include "client/spare_areas.h"

#define KIND_FIRST 6u /* 64 bytes */
#define KINDS 15u     /* up to 1 MiB; above, each is the kernel's own */
#define CUT_BYTES (64u << 10)
#define PAGE 4096u

/* Before what is given out, and of the same alignment. */
struct head {
	uint64_t size; /* of all of it */
	struct head *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct head *unused[KINDS];

static unsigned kind_of(uint64_t size)
{
	unsigned kind = 0;

	while (kind < KINDS && (1ull << (KIND_FIRST + kind)) < size)
		kind++;
	return kind;
}

static void *memory_of_kernel(uint64_t size)
{
	void *at;

	do
		at = client_calls.mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
				       0);
	while (at == MAP_FAILED && spare_areas_give());
	return at == MAP_FAILED ? NULL : at;
}

/* Under the lock. */
static void put(struct head *head, unsigned kind)
{
	head->next = unused[kind];
	unused[kind] = head;
}

/* Under the lock: there is one of this kind, or no memory. */
static void cut(unsigned kind)
{
	uint64_t size = 1ull << (KIND_FIRST + kind), all = u64_max(size, CUT_BYTES);
	uint8_t *at = memory_of_kernel(all);

	for (uint64_t off = 0; at && off < all; off += size) {
		struct head *head = (void *)(at + off);

		head->size = size;
		put(head, kind);
	}
}

void *memory_get(size_t size)
{
	struct head *head;
	uint64_t all;
	unsigned kind;

	if (size > INT64_MAX / 2)
		return NULL;
#ifdef MEMORY_IS_WATCHED
	return malloc(size);
#endif
	all = size + sizeof(*head);
	kind = kind_of(all);
	if (kind == KINDS) {
		all = u64_align_up(all, PAGE);
		head = memory_of_kernel(all);
		if (head)
			head->size = all;
		return head ? head + 1 : NULL;
	}
	pthread_mutex_lock(&lock);
	if (!unused[kind])
		cut(kind);
	head = unused[kind];
	if (head)
		unused[kind] = head->next;
	pthread_mutex_unlock(&lock);
	return head ? head + 1 : NULL;
}

void *memory_get_clear(size_t size)
{
	void *at = memory_get(size);

	if (at)
		memset(at, 0, size);
	return at;
}

void memory_put(void *at)
{
	struct head *head = at ? (struct head *)at - 1 : NULL;
	unsigned kind;

	if (!head)
		return;
#ifdef MEMORY_IS_WATCHED
	free(at);
	return;
#endif
	kind = kind_of(head->size);
	if (kind == KINDS) {
		(void)client_calls.munmap(head, head->size);
		return;
	}
	pthread_mutex_lock(&lock);
	put(head, kind);
	pthread_mutex_unlock(&lock);
}

void memory_fork_prepare(void)
{
	pthread_mutex_lock(&lock);
}

void memory_fork_end(void)
{
	pthread_mutex_unlock(&lock);
}
