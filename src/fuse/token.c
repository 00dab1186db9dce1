/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The table of tokens. See token.h. One lock; tokens are compared in constant time.
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

#define TOKENS_MAX 1024u
#define TOKEN_LIFE_S 60

struct token_slot {
	struct umbra_token token;
	struct token_file file;
	time_t until_s; /* monotonic; 0: empty */
};

struct token_table {
	pthread_mutex_t lock;
	unsigned next; /* (lock) to be written: the oldest one */
	struct token_slot slots[TOKENS_MAX];
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

int token_open(struct token_table **out)
{
	struct token_table *table = calloc(1, sizeof(*table));

	if (!table)
		return -ENOMEM;
	pthread_mutex_init(&table->lock, NULL);
	*out = table;
	return 0;
}

void token_close(struct token_table *table)
{
	pthread_mutex_destroy(&table->lock);
	free(table);
}

int token_make(struct token_table *table, const struct token_file *file, struct umbra_token *token)
{
	struct token_slot slot = { .file = *file, .until_s = now_s() + TOKEN_LIFE_S };

	if (getrandom(&slot.token, sizeof(slot.token), 0) != sizeof(slot.token))
		return -EAGAIN;
	pthread_mutex_lock(&table->lock);
	table->slots[table->next] = slot;
	table->next = (table->next + 1) % TOKENS_MAX;
	pthread_mutex_unlock(&table->lock);
	*token = slot.token;
	return 0;
}

int token_use(struct token_table *table, const struct umbra_token *token, pid_t pid, struct token_file *file)
{
	struct token_slot found = { .until_s = 0 };

	/* Newest first: a token is mostly used at once. */
	pthread_mutex_lock(&table->lock);
	for (unsigned i = 1; i <= TOKENS_MAX && !found.until_s; i++) {
		struct token_slot *slot = &table->slots[(table->next + TOKENS_MAX - i) % TOKENS_MAX];

		if (slot->until_s && token_same(&slot->token, token)) {
			found = *slot;
			slot->until_s = 0;
		}
	}
	pthread_mutex_unlock(&table->lock);
	if (!found.until_s || found.until_s < now_s() || found.file.pid != pid)
		return -EACCES;
	*file = found.file;
	return 0;
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
