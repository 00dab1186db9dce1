/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Events of bad memory. See events.h.
 *
 * They come from the thread that sees to the bad memory, for which others wait, perhaps the answer to a READ of a page that has to be dropped:
 * so it only takes a note. One deferred thread at a time drops pages and writes to the log.
 */
#include "fuse/events.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <urcu/list.h>

#include <umbra/ioctl.h>

#include "fuse/ops.h"
#include "util/log.h"

#define LOGGED_MAX 100u /* owners of one block that are named in the log */

/* One to be told, or several blocks in a row that were nobody's. */
struct telling {
	struct cds_list_head link;
	struct fs_poison poison;
	uint64_t len; /* bytes from poison.dev_off on */
};

struct events {
	struct session *session;
	struct defer_work work;
	pthread_mutex_t lock;
	/* (lock) */
	struct event *kept; /* a ring */
	uint64_t last;      /* number of the last one */
	struct cds_list_head tellings;
	unsigned joining;       /* whoever takes a range out of use */
	struct telling *run;    /* of nobody's blocks there, so far; or NULL */
	bool working;           /* work is queued, or under way */
	uint64_t noted_block;   /* of the last event */
	uint64_t block, owners; /* logged last, and how many of its owners */
	struct event_counts counts;
	int notify_fd; /* -1: nobody wants to know */
};

/* ---- telling ---- */

static void log_owner(const struct fs_poison *p, const char *path)
{
	if (p->lost_lines)
		log_error("bad memory at 0x%" PRIx64 ": %s (inode %" PRIu64
			  ") has %s %d bytes between %" PRIu64 " and %" PRIu64,
			  p->dev_off, path, p->ino, p->zeroed ? "zeroes in place of" : "lost",
			  __builtin_popcountll(p->lost_lines) * (int)LINE_SIZE,
			  p->file_off + (uint64_t)__builtin_ctzll(p->lost_lines) * LINE_SIZE,
			  p->file_off + (uint64_t)(64 - __builtin_clzll(p->lost_lines)) * LINE_SIZE);
	else
		log_warn("bad memory at 0x%" PRIx64 ": moved a block of %s (inode %" PRIu64
			 "), nothing is lost",
			 p->dev_off, path, p->ino);
}

static void log_free(const struct telling *t)
{
	if (t->len > BLOCK_SIZE)
		log_warn("bad memory from 0x%" PRIx64 " to 0x%" PRIx64
			 ": was nobody's, and is taken out of use",
			 t->poison.dev_off, t->poison.dev_off + t->len);
	else
		log_warn("bad memory at 0x%" PRIx64 ": was nobody's, and is taken out of use",
			 t->poison.dev_off);
}

static void log_event(struct events *ev, const struct telling *t)
{
	const struct fs_poison *p = &t->poison;
	char path[OPS_PATH_MAX];
	uint64_t owners;

	switch (p->kind) {
	case FS_POISON_DATA:
		pthread_mutex_lock(&ev->lock);
		ev->owners = ev->block == p->dev_off ? ev->owners + 1 : 1;
		ev->block = p->dev_off;
		owners = ev->owners;
		pthread_mutex_unlock(&ev->lock);
		if (owners == LOGGED_MAX)
			log_warn("bad memory at 0x%" PRIx64
				 ": and more owners: umbractl losses names them all",
				 p->dev_off);
		if (owners >= LOGGED_MAX)
			return;
		if (fs_path(ev->session->fs, p->ino, path, sizeof(path)) != 0)
			strcpy(path, "a file without a name");
		log_owner(p, path);
		return;
	case FS_POISON_FREE:
		log_free(t);
		return;
	case FS_POISON_PASSED:
		log_warn("bad memory at 0x%" PRIx64 ": can be read again", p->dev_off);
		return;
	default:
		log_warn("bad memory at 0x%" PRIx64 ": held metadata, of which the other copy serves",
			 p->dev_off);
		return;
	}
}

static struct telling *telling_take(struct events *ev)
{
	struct telling *t = NULL;

	pthread_mutex_lock(&ev->lock);
	if (!cds_list_empty(&ev->tellings)) {
		t = cds_list_first_entry(&ev->tellings, struct telling, link);
		cds_list_del(&t->link);
	} else {
		ev->working = false;
	}
	pthread_mutex_unlock(&ev->lock);
	return t;
}

static void events_tell_all(struct defer_work *work)
{
	struct events *ev = container_of(work, struct events, work);
	struct telling *t;

	while ((t = telling_take(ev))) {
		/* What the kernel has of it may be older than what was lost, or be all that is left: it is not to hide a loss. */
		if (t->poison.kind == FS_POISON_DATA && t->poison.lost_lines)
			(void)session_drop(ev->session, t->poison.ino, (off_t)t->poison.file_off, BLOCK_SIZE);
		log_event(ev, t);
		free(t);
	}
}

/* ---- taking note ---- */

static void ring_add(struct events *ev, const struct fs_poison *poison)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	ev->last++;
	ev->kept[ev->last % UMBRA_EVENTS_KEPT] = (struct event){
		.number = ev->last,
		.time_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec,
		.poison = *poison,
	};
}

static void counts_add(struct event_counts *counts, const struct fs_poison *poison)
{
	uint64_t bytes = (uint64_t)__builtin_popcountll(poison->lost_lines) * LINE_SIZE;

	if (poison->kind != FS_POISON_DATA || bytes == 0)
		return;
	if (poison->zeroed) {
		counts->zeroed_blocks++;
		counts->zeroed_bytes += bytes;
	} else {
		counts->lost_blocks++;
		counts->lost_bytes += bytes;
	}
}

/* Under the lock: t, or NULL, is to be told, after the run. True: work is to be queued. */
static bool telling_add(struct events *ev, struct telling *t)
{
	struct telling *both[] = { ev->run, t };
	bool start = false;

	ev->run = NULL;
	for (unsigned i = 0; i < ARRAY_SIZE(both); i++) {
		if (!both[i])
			continue;
		cds_list_add_tail(&both[i]->link, &ev->tellings);
		start = !ev->working;
	}
	ev->working |= start;
	return start;
}

/* Under the lock: t may wait for those behind it. *start as telling_add() returns. */
static bool run_add(struct events *ev, struct telling *t, bool *start)
{
	if (ev->joining == 0 || t->poison.kind != FS_POISON_FREE)
		return false;
	if (ev->run && ev->run->poison.dev_off + ev->run->len == t->poison.dev_off) {
		ev->run->len += t->len;
		free(t);
		return true;
	}
	*start = telling_add(ev, NULL);
	ev->run = t;
	return true;
}

static void work_queue(struct events *ev)
{
	if (defer_add(ev->session->defer, &ev->work))
		return;
	pthread_mutex_lock(&ev->lock);
	ev->working = false; /* being unmounted */
	pthread_mutex_unlock(&ev->lock);
}

void events_note(void *events, const struct fs_poison *poison)
{
	struct events *ev = events;
	struct telling *t = malloc(sizeof(*t));
	bool start = false;

	pthread_mutex_lock(&ev->lock);
	ring_add(ev, poison);
	counts_add(&ev->counts, poison);
	ev->counts.bad_blocks += ev->noted_block != poison->dev_off && poison->kind != FS_POISON_PASSED;
	ev->noted_block = poison->dev_off;
	if (ev->notify_fd >= 0)
		(void)!write(ev->notify_fd, &(uint64_t){ 1 }, sizeof(uint64_t));
	if (t) {
		t->poison = *poison;
		t->len = BLOCK_SIZE;
		if (!run_add(ev, t, &start))
			start = telling_add(ev, t);
	}
	pthread_mutex_unlock(&ev->lock);
	if (!t)
		log_error("out of memory: cached pages of inode %" PRIu64 " may still show what is lost",
			  poison->ino);
	if (start)
		work_queue(ev);
}

void events_join(struct events *ev, bool begin)
{
	bool start = false;

	pthread_mutex_lock(&ev->lock);
	if (begin)
		ev->joining++;
	else
		ev->joining--;
	if (ev->joining == 0)
		start = telling_add(ev, NULL);
	pthread_mutex_unlock(&ev->lock);
	if (start)
		work_queue(ev);
}

unsigned events_get(struct events *ev, uint64_t after, struct event *list, unsigned max, uint64_t *missed,
		    uint64_t *from)
{
	unsigned count = 0;
	uint64_t first;

	pthread_mutex_lock(&ev->lock);
	first = ev->last > UMBRA_EVENTS_KEPT ? ev->last - UMBRA_EVENTS_KEPT + 1 : 1;
	if (after > ev->last)
		after = ev->last; /* of an earlier mount */
	*from = after;
	*missed = after + 1 < first ? first - after - 1 : 0;
	for (uint64_t n = u64_max(after + 1, first); n <= ev->last && count < max; n++)
		list[count++] = ev->kept[n % UMBRA_EVENTS_KEPT];
	pthread_mutex_unlock(&ev->lock);
	return count;
}

void events_notify(struct events *ev, int fd)
{
	pthread_mutex_lock(&ev->lock);
	ev->notify_fd = fd;
	pthread_mutex_unlock(&ev->lock);
}

static uint16_t event_kind(const struct fs_poison *p)
{
	switch (p->kind) {
	case FS_POISON_DATA:
		if (p->lost_lines && p->zeroed)
			return UMBRA_EVENT_ZEROED;
		return p->lost_lines ? UMBRA_EVENT_LOST : UMBRA_EVENT_MOVED;
	case FS_POISON_FREE:
		return UMBRA_EVENT_UNUSED;
	case FS_POISON_PASSED:
		return UMBRA_EVENT_PASSED;
	default:
		return UMBRA_EVENT_META;
	}
}

struct umbra_event event_record(const struct event *event)
{
	const struct fs_poison *p = &event->poison;

	return (struct umbra_event){
		.number = event->number,
		.time_ns = event->time_ns,
		.dev_off = p->dev_off,
		.ino = p->ino,
		.file_off = p->file_off,
		.lost_lines = p->lost_lines,
		.kind = event_kind(p),
	};
}

void events_count(struct events *ev, struct event_counts *counts)
{
	pthread_mutex_lock(&ev->lock);
	*counts = ev->counts;
	pthread_mutex_unlock(&ev->lock);
}

int events_new(struct session *session, struct events **out)
{
	struct events *ev = calloc(1, sizeof(*ev));

	if (ev)
		ev->kept = calloc(UMBRA_EVENTS_KEPT, sizeof(*ev->kept));
	if (!ev || !ev->kept) {
		free(ev);
		return -ENOMEM;
	}
	ev->session = session;
	ev->notify_fd = -1;
	ev->work.fn = events_tell_all;
	pthread_mutex_init(&ev->lock, NULL);
	CDS_INIT_LIST_HEAD(&ev->tellings);
	*out = ev;
	return 0;
}

void events_free(struct events *ev)
{
	struct telling *t, *next;

	if (!ev)
		return;
	cds_list_for_each_entry_safe(t, next, &ev->tellings, link)
		free(t);
	free(ev->run);
	pthread_mutex_destroy(&ev->lock);
	free(ev->kept);
	free(ev);
}
