/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See opens.h. A hash by number under one lock; who closes a file when nobody has taken a token takes no lock.
 */
#include "fuse/opens.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define BUCKETS 1024u

struct open_entry {
	uint64_t ino, open;
	uint32_t excuses;
	bool has_pages; /* though it bypasses the page cache */
	bool writes;
	struct open_entry *next;
};

struct opens {
	pthread_mutex_t lock;   /* of all that follows */
	_Atomic uint64_t count; /* also read without it */
	struct open_entry *buckets[BUCKETS];
};

int opens_new(struct opens **out)
{
	struct opens *opens = calloc(1, sizeof(*opens));

	if (!opens)
		return -ENOMEM;
	pthread_mutex_init(&opens->lock, NULL);
	*out = opens;
	return 0;
}

void opens_free(struct opens *opens)
{
	if (!opens)
		return;
	for (unsigned i = 0; i < BUCKETS; i++) {
		while (opens->buckets[i]) {
			struct open_entry *entry = opens->buckets[i];

			opens->buckets[i] = entry->next;
			free(entry);
		}
	}
	pthread_mutex_destroy(&opens->lock);
	free(opens);
}

/* Where the entry is, or would be linked in. Under the lock. */
static struct open_entry **entry_find(struct opens *opens, uint64_t open)
{
	struct open_entry **at = &opens->buckets[open % BUCKETS];

	while (*at && (*at)->open != open)
		at = &(*at)->next;
	return at;
}

/* False: it was there, or there is no memory. */
static bool entry_add(struct opens *opens, const struct open_entry *about)
{
	struct open_entry *entry = malloc(sizeof(*entry)), **at;
	bool added;

	if (!entry)
		return false;
	*entry = *about;
	pthread_mutex_lock(&opens->lock);
	at = entry_find(opens, about->open);
	added = !*at;
	if (added) {
		*at = entry;
		atomic_fetch_add(&opens->count, 1);
	}
	pthread_mutex_unlock(&opens->lock);
	if (!added)
		free(entry);
	return added;
}

void opens_add(struct opens *opens, uint64_t ino, uint64_t open, bool writes)
{
	(void)entry_add(opens, &(struct open_entry){ .ino = ino, .open = open, .writes = writes });
}

bool opens_add_pages(struct opens *opens, uint64_t ino, uint64_t open)
{
	return entry_add(opens, &(struct open_entry){ .ino = ino, .open = open, .has_pages = true });
}

bool opens_remove(struct opens *opens, uint64_t open)
{
	struct open_entry **at, *entry;
	bool has_pages;

	if (atomic_load(&opens->count) == 0)
		return false;
	pthread_mutex_lock(&opens->lock);
	at = entry_find(opens, open);
	entry = *at;
	if (entry) {
		*at = entry->next;
		atomic_fetch_sub(&opens->count, 1);
	}
	pthread_mutex_unlock(&opens->lock);
	has_pages = entry && entry->has_pages;
	free(entry);
	return has_pages;
}

bool opens_excuse(struct opens *opens, uint64_t open)
{
	struct open_entry *entry;

	pthread_mutex_lock(&opens->lock);
	entry = *entry_find(opens, open);
	if (entry)
		entry->excuses++;
	pthread_mutex_unlock(&opens->lock);
	return entry != NULL;
}

bool opens_accuse(struct opens *opens, uint64_t open)
{
	struct open_entry *entry;
	bool counts;

	pthread_mutex_lock(&opens->lock);
	entry = *entry_find(opens, open);
	counts = entry && entry->excuses > 0 && --entry->excuses == 0;
	pthread_mutex_unlock(&opens->lock);
	return counts;
}

uint32_t opens_excused(struct opens *opens, uint64_t ino, bool writes)
{
	uint32_t count = 0;

	if (atomic_load(&opens->count) == 0)
		return 0;
	pthread_mutex_lock(&opens->lock);
	for (unsigned i = 0; i < BUCKETS; i++)
		for (const struct open_entry *entry = opens->buckets[i]; entry; entry = entry->next)
			count += entry->ino == ino && entry->excuses > 0 && (entry->writes || !writes);
	pthread_mutex_unlock(&opens->lock);
	return count;
}
