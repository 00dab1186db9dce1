/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The table of tokens. See token.h. One lock; tokens are compared in constant time.
 *
 * Each user has a ring, in which the oldest token makes room for a new one; root's is larger. A user without one takes over that
 * whose newest token is the oldest. The first byte of a token tells its ring.
 */
#include "fuse/token.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define ROOT_TOKENS 1024u
#define USER_TOKENS 64u
#define RINGS 32u /* the first one is root's */
#define TOKEN_LIFE_S 60

struct token_slot {
	struct umbra_token token;
	struct token_file file;
	time_t until_s; /* monotonic; 0: empty */
};

struct token_ring {
	uid_t uid;
	unsigned next, size; /* next: to be written, the oldest one */
	time_t made_s;       /* the newest one; 0: nobody's yet */
	struct token_slot *slots;
};

/* What may outlive the table. */
struct token_kept {
	struct token_ring rings[RINGS]; /* where their slots are is found out anew */
	struct token_slot slots[ROOT_TOKENS + (RINGS - 1) * USER_TOKENS];
};

struct token_table {
	pthread_mutex_t lock; /* of all that follows */
	struct token_ring *rings;
	struct token_kept *kept;
	bool is_own; /* its memory goes with it */
};

static time_t now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return now.tv_sec;
}

static bool token_same(const struct umbra_token *a, const struct umbra_token *b)
{
	unsigned difference = 0;

	for (size_t i = 0; i < sizeof(a->bytes); i++)
		difference |= a->bytes[i] ^ b->bytes[i];
	return difference == 0;
}

size_t token_table_size(void)
{
	return sizeof(struct token_kept);
}

int token_open(void *memory, struct token_table **out)
{
	struct token_table *table = calloc(1, sizeof(*table));

	if (!table)
		return -ENOMEM;
	table->is_own = !memory;
	table->kept = memory ? memory : calloc(1, sizeof(*table->kept));
	if (!table->kept) {
		free(table);
		return -ENOMEM;
	}
	table->rings = table->kept->rings;
	pthread_mutex_init(&table->lock, NULL);
	for (unsigned i = 0; i < RINGS; i++) {
		struct token_ring *ring = &table->rings[i];

		ring->size = i ? USER_TOKENS : ROOT_TOKENS;
		ring->slots = table->kept->slots + (i ? ROOT_TOKENS + (i - 1) * USER_TOKENS : 0);
		ring->next %= ring->size;
	}
	*out = table;
	return 0;
}

void token_close(struct token_table *table)
{
	pthread_mutex_destroy(&table->lock);
	if (table->is_own)
		free(table->kept);
	free(table);
}

static struct token_ring *ring_of(struct token_table *table, uid_t uid)
{
	struct token_ring *oldest = &table->rings[1];

	if (uid == 0)
		return &table->rings[0];
	for (unsigned i = 1; i < RINGS; i++) {
		struct token_ring *ring = &table->rings[i];

		if (ring->made_s && ring->uid == uid)
			return ring;
		if (ring->made_s < oldest->made_s)
			oldest = ring;
	}
	for (unsigned i = 0; i < oldest->size; i++)
		oldest->slots[i].until_s = 0;
	oldest->uid = uid;
	return oldest;
}

int token_make(struct token_table *table, const struct token_file *file, struct umbra_token *token)
{
	struct token_slot slot = { .file = *file, .until_s = now_s() + TOKEN_LIFE_S };
	struct token_ring *ring;

	if (getrandom(&slot.token, sizeof(slot.token), 0) != sizeof(slot.token))
		return -EAGAIN;
	pthread_mutex_lock(&table->lock);
	ring = ring_of(table, file->uid);
	slot.token.bytes[0] = (uint8_t)(ring - table->rings);
	ring->slots[ring->next] = slot;
	ring->next = (ring->next + 1) % ring->size;
	ring->made_s = slot.until_s - TOKEN_LIFE_S + 1; /* never 0 */
	pthread_mutex_unlock(&table->lock);
	*token = slot.token;
	return 0;
}

static int token_find(struct token_table *table, const struct umbra_token *token, pid_t pid, bool use,
		      struct token_file *file)
{
	struct token_slot found = { .until_s = 0 };
	struct token_ring *ring;

	if (token->bytes[0] >= RINGS)
		return -EACCES;
	ring = &table->rings[token->bytes[0]];
	/* Newest first: a token is mostly used at once. */
	pthread_mutex_lock(&table->lock);
	for (unsigned i = 1; i <= ring->size && !found.until_s; i++) {
		struct token_slot *slot = &ring->slots[(ring->next + ring->size - i) % ring->size];

		if (slot->until_s && token_same(&slot->token, token)) {
			found = *slot;
			if (use)
				slot->until_s = 0;
		}
	}
	pthread_mutex_unlock(&table->lock);
	if (!found.until_s || found.until_s < now_s() || found.file.pid != pid)
		return -EACCES;
	*file = found.file;
	return 0;
}

bool token_look(struct token_table *table, const struct umbra_token *token, pid_t pid,
		struct token_file *file)
{
	return token_find(table, token, pid, false, file) == 0;
}

int token_use(struct token_table *table, const struct umbra_token *token, pid_t pid, struct token_file *file)
{
	return token_find(table, token, pid, true, file);
}

pid_t token_process(pid_t thread)
{
	char path[64], line[128];
	int process = 0;
	FILE *status;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)thread);
	status = fopen(path, "re");
	if (!status)
		return thread;
	while (fgets(line, sizeof(line), status))
		if (sscanf(line, "Tgid: %d", &process) == 1)
			break;
	fclose(status);
	return process > 0 ? process : thread;
}
