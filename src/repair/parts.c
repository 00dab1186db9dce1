/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The walk on all cores: a stage of it is cut into numbered parts, threads take them in order, and what a part has found is put
 * to the rest in the order of the numbers. So findings come as if there was one thread.
 *
 * Rows come in any order, since they are sorted later: each thread gives away what it has as soon as it is some. One that has a large
 * directory does not make the others keep theirs.
 *
 * A part works on a struct check of its own: what only grows in a stage (rows, findings, counts) is its own; what is read, or written
 * by one part alone (an inode's row, a group), is shared. The map of reached units is shared by all and changed bit by bit.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "repair/priv.h"

#define THREADS_MAX 64u
#define ROWS_MAX 2048u             /* that a thread keeps for itself */
#define TEXT_MAX ((size_t)8 << 20) /* bytes of findings that a part keeps; more are counted only */

struct stage {
	struct check *ck;
	const char *name;
	void (*fn)(struct check *part, uint32_t index);
	uint32_t count;
	bool views;

	pthread_mutex_t lock;
	uint32_t next;       /* part to be begun */
	uint32_t retired;    /* parts whose results have been put to the rest */
	struct check **done; /* parts that are ready and wait for one before them */
	struct check *spare;
};

/* Of one thread, which uses their memory again for the next part. */
struct worker_rows {
	struct rows owners, names, parents;
};

/* spare: one that has been retired, whose memory is used again; or NULL. */
static struct check *part_make(struct stage *st, struct worker_rows *rows)
{
	struct check *spare = st->spare;
	struct check old = { .report = spare ? spare->report : calloc(1, sizeof(*old.report)) };
	struct check *part = spare ? spare : malloc(sizeof(*part));

	if (!part || !old.report) {
		free(part);
		free(old.report);
		return NULL;
	}
	if (spare)
		old = *spare;
	st->spare = NULL;
	*part = *st->ck;
	*old.report = (struct check_report){ 0 };
	part->report = old.report;
	part->stage = st;
	part->views = st->views;
	if (!st->views) {
		part->owners = rows->owners;
		part->names = rows->names;
		part->parents = rows->parents;
	}
	part->texts = (struct rows){ old.texts.data, 0, old.texts.room };
	part->lost = (struct rows){ old.lost.data, 0, old.lost.room };
	part->ag_nodes = (struct rows){ old.ag_nodes.data, 0, old.ag_nodes.room };
	return part;
}

static void part_free(struct check *part)
{
	free(part->report);
	rows_free(&part->texts);
	rows_free(&part->lost);
	rows_free(&part->ag_nodes);
	free(part);
}

/* ---- findings ---- */

/* In rows of bytes: one byte for the kind, or CHECK_KINDS for a copy that was healed, then the text with its zero. */
void part_text(struct check *part, unsigned kind, const char *text)
{
	size_t len = strlen(text) + 1, room = part->texts.room;
	uint8_t *data = part->texts.data;

	if (part->texts.count + len + 1 > TEXT_MAX)
		return;
	if (part->texts.count + len + 1 > room) {
		room = (part->texts.count + len + 1) * 2;
		data = realloc(data, room);
		if (!data) {
			part->error = -ENOMEM;
			return;
		}
		part->texts.data = data;
		part->texts.room = room;
	}
	data[part->texts.count] = (uint8_t)kind;
	memcpy(data + part->texts.count + 1, text, len);
	part->texts.count += len + 1;
}

static void texts_tell(struct check *ck, const struct check *part)
{
	const struct check_opts *opts = ck->opts;
	const char *at = part->texts.data, *end = at ? at + part->texts.count : NULL;

	for (; at < end; at += 2 + strlen(at + 1)) {
		unsigned kind = (uint8_t)*at;

		if (kind == CHECK_KINDS) {
			if (opts->healed)
				opts->healed(opts->arg, at + 1);
		} else if (opts->found && (opts->limit == 0 || ck->report->by_kind[kind] < opts->limit)) {
			opts->found(opts->arg, kind, at + 1);
		}
		if (kind != CHECK_KINDS)
			ck->report->by_kind[kind]++;
	}
}

/* ---- rows ---- */

static void rows_give(struct stage *st, struct rows *to, struct rows *from, size_t row_size)
{
	rows_append(st->ck, to, from, row_size);
	from->count = 0;
}

/* Under the lock. */
static void part_rows_give(struct stage *st, struct check *part)
{
	rows_give(st, &st->ck->owners, &part->owners, sizeof(struct rmap));
	rows_give(st, &st->ck->names, &part->names, sizeof(struct seen_name));
	rows_give(st, &st->ck->parents, &part->parents, sizeof(struct seen_name));
}

void part_rows_added(struct check *ck)
{
	struct stage *st = ck->stage;

	if (!st || ck->owners.count + ck->names.count + ck->parents.count < ROWS_MAX)
		return;
	assert(!ck->views);
	pthread_mutex_lock(&st->lock);
	part_rows_give(st, ck);
	pthread_mutex_unlock(&st->lock);
}

/* ---- results ---- */

/* All of a report are counts. */
static void report_add(struct check_report *to, const struct check_report *from)
{
	uint64_t *a = (uint64_t *)to;
	const uint64_t *b = (const uint64_t *)from;

	static_assert(sizeof(*to) % sizeof(uint64_t) == 0, "counts and nothing else");
	for (size_t i = 0; i < sizeof(*to) / sizeof(uint64_t); i++)
		a[i] += b[i];
}

static void part_retire(struct stage *st, struct check *part)
{
	struct check *ck = st->ck;
	uint64_t kinds[CHECK_KINDS];

	for (unsigned kind = 0; kind < CHECK_KINDS; kind++)
		kinds[kind] = ck->report->by_kind[kind] + part->report->by_kind[kind];
	texts_tell(ck, part);
	report_add(ck->report, part->report);
	memcpy(ck->report->by_kind, kinds, sizeof(kinds));
	rows_append(ck, &ck->lost, &part->lost, sizeof(struct lost_unit));
	rows_append(ck, &ck->ag_nodes, &part->ag_nodes, sizeof(struct seen_node));
	if (part->error && !ck->error)
		ck->error = part->error;
	if (st->spare)
		part_free(st->spare);
	st->spare = part;
	st->retired++;
	check_step(ck, st->name, st->retired, st->count);
}

/* ---- threads ---- */

static void *worker(void *arg)
{
	struct stage *st = arg;
	struct worker_rows rows = { 0 };

	pthread_mutex_lock(&st->lock);
	while (st->next < st->count && !st->ck->error) {
		uint32_t index = st->next++;
		struct check *part = part_make(st, &rows);

		if (!part) {
			st->ck->error = -ENOMEM;
			break;
		}
		pthread_mutex_unlock(&st->lock);
		st->fn(part, index);
		pthread_mutex_lock(&st->lock);
		if (!st->views) {
			part_rows_give(st, part);
			rows = (struct worker_rows){ part->owners, part->names, part->parents };
		}
		st->done[index] = part;
		while (st->retired < st->count && st->done[st->retired]) {
			part = st->done[st->retired];
			st->done[st->retired] = NULL;
			part_retire(st, part);
		}
	}
	pthread_mutex_unlock(&st->lock);
	rows_free(&rows.owners);
	rows_free(&rows.names);
	rows_free(&rows.parents);
	return NULL;
}

static unsigned thread_count(const struct check *ck, uint32_t parts)
{
	unsigned count = ck->opts->threads;
	cpu_set_t set;

	if (count == 0)
		count = sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
	return (unsigned)u64_min(u64_min(count, THREADS_MAX), parts);
}

void check_parts(struct check *ck, const char *name, bool views, uint32_t count,
		 void (*fn)(struct check *part, uint32_t index))
{
	struct stage st = { .ck = ck, .name = name, .fn = fn, .count = count, .views = views };
	unsigned threads = thread_count(ck, count), started = 0;
	pthread_t ids[THREADS_MAX];

	if (count == 0 || ck->error)
		return;
	st.done = calloc(count, sizeof(*st.done));
	if (!st.done) {
		ck->error = -ENOMEM;
		return;
	}
	pthread_mutex_init(&st.lock, NULL);
	/* Where no thread can be had, those that there are do it. */
	while (started + 1 < threads && pthread_create(&ids[started], NULL, worker, &st) == 0)
		started++;
	worker(&st);
	while (started > 0)
		pthread_join(ids[--started], NULL);
	pthread_mutex_destroy(&st.lock);
	for (uint32_t i = 0; i < count; i++) {
		if (st.done[i])
			part_free(st.done[i]);
	}
	if (st.spare)
		part_free(st.spare);
	free(st.done);
}
