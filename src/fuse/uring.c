/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The transport over io_uring. See uring.h.
 *
 *	         request                    completion                    handler, libfuse
 *	caller ------------> kernel ------------------------> leader --------------------------> reply in the entry
 *	   ^                   ^  |   (all on one core)         |                                     |
 *	   +-------------------+  +-----------------------------+-------- commit, and wait again <----+
 *
 * Each core that this process may use has a queue of the kernel's, a ring, and a thread that is pinned there, the ring's leader. It takes one
 * completion at a time, carries the request out, and hands the reply in with the same system call that waits for the next one. Cores that
 * this process may not use, or that are not there yet, share one ring; its leader runs anywhere.
 *
 * A request that lasts (a lock, another client, much to do) must not hold up the others of its core. A watcher looks every few milliseconds
 * while there are requests: where one waits and the leader is still at the same request as a tick ago, a spare thread becomes the leader; the
 * former one finishes its request and becomes a spare.
 *
 * A request keeps its entry until it is answered, and the kernel sends a queue no more requests than there are entries. Answers that wait for other
 * requests (defer.h) would wait forever if they held all of them. So entries that are held, by a deferred answer or by a former leader, do not
 * count: the ring gets new ones (uring_entries_grow). An entry is 1 MiB of addresses; memory it takes as far as it has been used, and the kernel
 * uses the latest first.
 *
 * The kernel delivers a request in the thread that committed the entry before, wherever that is: asleep, or in user mode. Only one that is in the
 * midst of a system call that cannot be interrupted keeps it waiting. A deferred thread is, while the kernel drops pages for it; the page might be
 * the one that the request is to read. So replies of threads that are not ours are committed by a thread that does nothing else, the courier.
 *
 * FORGET comes over /dev/fuse, and so may be overtaken: what frees the blocks of an unlinked file by what needs them. A request that finds no space waits a
 * little for FORGETs that are on their way, and is carried out once more if there were any.
 *
 * Locks: ring->lock for what is pushed and popped and for the counts of entries; uring->lock for who is spare; uring->post_lock for the courier's
 * list. The watcher takes ring->lock under uring->lock, and does not wait for it; otherwise there is one at a time.
 */
#include "fuse/uring.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fuse/ops.h"
#include "fuse/uring_priv.h"
#include "util/log.h"
#include "util/sabotage.h"

#define PARAMETER "/sys/module/fuse/parameters/enable_uring"
#define POSSIBLE "/sys/devices/system/cpu/possible"
#define COMPLETIONS 1024u
#define KICK_SIGNAL SIGUSR1
#define SPARES_LATER 32u /* that are started when somebody waits for who maps a file, and there is no other */
#define KICK_NS 20000000

/* ---- start and end ---- */

unsigned uring_workers_count(const struct uring *uring)
{
	return uring->seats_count;
}

void uring_workers_set(struct uring *uring, struct worker *workers)
{
	for (unsigned i = 0; i < uring->seats_count; i++) {
		uring->seats[i].worker = &workers[i];
		uring->seats[i].buf = workers[i].buf;
		workers[i].ring_seat = &uring->seats[i];
	}
}

static int seat_start(struct uring *uring, const pthread_attr_t *attr)
{
	struct uring_seat *seat = &uring->seats[uring->started_count];
	int rc = -pthread_create(&seat->worker->thread, attr, uring_seat_run, seat);

	if (rc)
		seat->worker->thread = 0;
	else
		uring->started_count++;
	return rc;
}

int uring_start(struct uring *uring)
{
	int rc = -pthread_create(&uring->courier, NULL, uring_courier_run, uring);

	uring->has_courier = rc == 0;
	while (uring->started_count < uring->seats_count - SPARES_LATER && rc == 0)
		rc = seat_start(uring, NULL);
	return rc;
}

void uring_wait(struct uring *uring, struct uring_seat *seat, bool begins)
{
	unsigned needed = 0, there = 0;
	int rc = 0;

	pthread_mutex_lock(&uring->lock);
	seat->waits = begins;
	for (unsigned i = 0; i < uring->rings_count; i++)
		needed += atomic_load(&uring->rings[i].leader)->waits;
	for (unsigned i = 0; i < uring->started_count; i++)
		there += !uring->seats[i].on;
	while (begins && there < needed && uring->started_count < uring->seats_count && rc == 0 &&
	       !uring_is_ended(uring) && !sabotage_point("standins")) {
		rc = seat_start(uring, &uring->attr);
		there++;
	}
	pthread_mutex_unlock(&uring->lock);
}

void uring_refuse(struct uring *uring)
{
	struct core_ring *on = &uring->rings[0];
	struct uring_cmd cmd = { .queue = on->queues[0].number };
	struct iovec nothing[2] = { { NULL, 0 }, { NULL, 0 } };
	struct ring_command command = {
		.fd = uring->session->fd,
		.op = URING_REGISTER,
		.iov = nothing,
		.bytes = &cmd,
		.bytes_size = sizeof(cmd),
	};
	int rc;

	pthread_mutex_lock(&on->lock);
	rc = ring_push(&on->ring, &command) ? ring_submit(&on->ring) : -EBUSY;
	pthread_mutex_unlock(&on->lock);
	if (rc)
		log_error("io_uring: %s", strerror(-rc));
}

int uring_go(struct uring *uring, char *why, size_t why_size)
{
	int rc;

	pthread_mutex_lock(&uring->lock);
	atomic_store(&uring->state, STATE_GO);
	pthread_cond_broadcast(&uring->changed);
	while (atomic_load(&uring->state) == STATE_GO && uring->turn < uring->rings_count)
		pthread_cond_wait(&uring->changed, &uring->lock);
	rc = uring->refusal;
	pthread_mutex_unlock(&uring->lock);
	if (rc) {
		snprintf(why, why_size, "no queues: %s", strerror(-rc));
		uring_refuse(uring);
		return rc;
	}
	uring->has_watcher = pthread_create(&uring->watcher, NULL, uring_watch_run, uring) == 0;
	if (!uring->has_watcher)
		log_warn("io_uring: no thread that sees to requests that last");
	return 0;
}

static void thread_end(pthread_t thread)
{
	struct timespec until;

	do {
		/* It may be just about to wait: once is not enough. */
		pthread_kill(thread, KICK_SIGNAL);
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += KICK_NS;
		if (until.tv_nsec >= 1000000000) {
			until.tv_sec++;
			until.tv_nsec -= 1000000000;
		}
	} while (pthread_clockjoin_np(thread, NULL, CLOCK_MONOTONIC, &until) == ETIMEDOUT);
}

void uring_end(struct uring *uring)
{
	pthread_mutex_lock(&uring->lock);
	if (!uring_is_ended(uring))
		atomic_store(&uring->state, STATE_ENDED);
	pthread_cond_broadcast(&uring->changed);
	pthread_mutex_unlock(&uring->lock);
	pthread_mutex_lock(&uring->post_lock);
	pthread_cond_broadcast(&uring->post_changed);
	pthread_mutex_unlock(&uring->post_lock);
	sem_post(&uring->bell);
	for (unsigned i = 0; i < uring->started_count; i++) {
		thread_end(uring->seats[i].worker->thread);
		uring->seats[i].worker->thread = 0;
	}
	uring->started_count = 0;
	if (uring->has_courier)
		pthread_join(uring->courier, NULL);
	if (uring->has_watcher)
		pthread_join(uring->watcher, NULL);
	uring->has_courier = uring->has_watcher = false;
}

void uring_close(struct uring *uring)
{
	for (unsigned i = 0; i < uring->rings_count; i++) {
		ring_close(&uring->rings[i].ring);
		pthread_mutex_destroy(&uring->rings[i].lock);
	}
	for (struct entry *entry = atomic_load(&uring->entries), *next; entry; entry = next) {
		next = entry->next;
		uring_entry_free(entry);
	}
	for (unsigned i = 0; uring->seats && i < uring->seats_count; i++)
		if (uring->seats[i].worker)
			uring->seats[i].worker->ring_seat = NULL;
	free(uring->seats);
	free(uring->rings);
	free(uring->queues);
	sem_destroy(&uring->bell);
	pthread_cond_destroy(&uring->post_changed);
	pthread_mutex_destroy(&uring->post_lock);
	pthread_cond_destroy(&uring->changed);
	pthread_mutex_destroy(&uring->lock);
	pthread_attr_destroy(&uring->attr);
	free(uring);
}

/* ---- open ---- */

int uring_cores_parse(const char *list)
{
	long next = 0;

	while (*list && *list != '\n') {
		char *end;
		long from = strtol(list, &end, 10), to = from;

		if (end == list || from != next)
			return -1;
		if (*end == '-') {
			list = end + 1;
			to = strtol(list, &end, 10);
			if (end == list || to < from)
				return -1;
		}
		if (to >= UINT16_MAX || (*end && *end != ',' && *end != '\n'))
			return -1;
		next = to + 1;
		list = *end == ',' ? end + 1 : end;
	}
	return next > 0 ? (int)next : -1;
}

static int file_read(const char *path, char *text, size_t text_size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, text, text_size - 1);
	close(fd);
	if (n < 0)
		return -EIO;
	text[n] = '\0';
	return 0;
}

/* Whether the kernel would do it. */
static int kernel_ask(char *why, size_t why_size)
{
	char text[8];
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC); /* loads the module */

	if (fd >= 0)
		close(fd);
	if (file_read(PARAMETER, text, sizeof(text))) {
		snprintf(why, why_size, "this kernel has no FUSE over io_uring");
		return -EOPNOTSUPP;
	}
	if (text[0] != 'Y' && text[0] != '1') {
		snprintf(why, why_size, "io_uring is off; as root: echo Y > " PARAMETER);
		return -EOPNOTSUPP;
	}
	return 0;
}

static void ring_setup(struct core_ring *on, int cpu, struct queue *queues, unsigned count,
		       struct uring_seat *seat)
{
	on->cpu = cpu;
	on->queues = queues;
	on->queues_count = count;
	pthread_mutex_init(&on->lock, NULL);
	atomic_store(&on->leader, seat);
	seat->on = on;
	for (unsigned i = 0; i < count; i++)
		queues[i].on = on;
}

static bool core_is_ours(const struct uring *uring, int cpu)
{
	return cpu < CPU_SETSIZE && CPU_ISSET(cpu, &uring->cpus);
}

/* The shared ring comes first: the last one to register has a single queue. */
static void rings_lay_out(struct uring *uring, unsigned cores_count)
{
	struct queue *next = uring->queues;
	struct core_ring *on = uring->rings;

	for (unsigned i = 0; i < cores_count; i++)
		if (!core_is_ours(uring, (int)i))
			(next++)->number = (uint16_t)i;
	if (next > uring->queues) {
		ring_setup(on, -1, uring->queues, (unsigned)(next - uring->queues), &uring->seats[0]);
		on++;
	}
	for (unsigned i = 0; i < cores_count; i++) {
		if (!core_is_ours(uring, (int)i))
			continue;
		next->number = (uint16_t)i;
		ring_setup(on, (int)i, next++, 1, &uring->seats[on - uring->rings]);
		on++;
	}
	uring->rings_count = (unsigned)(on - uring->rings);
}

static int rings_make(struct uring *uring, unsigned cores_count, char *why, size_t why_size)
{
	unsigned spares_count = uring->session->opts.threads + SPARES_LATER;
	int rc = 0;

	uring->queues = calloc(cores_count, sizeof(*uring->queues));
	uring->rings = calloc(cores_count, sizeof(*uring->rings));
	uring->seats = calloc(cores_count + spares_count, sizeof(*uring->seats));
	if (!uring->queues || !uring->rings || !uring->seats) {
		snprintf(why, why_size, "out of memory");
		return -ENOMEM;
	}
	rings_lay_out(uring, cores_count);
	for (unsigned i = 0; i < uring->rings_count; i++)
		uring->rings[i].ring.fd = -1;
	uring->seats_count = uring->rings_count + spares_count;
	for (unsigned i = 0; i < uring->seats_count; i++)
		uring->seats[i].uring = uring;
	/* Each thread has pushed a few commands at most that are not submitted; a new leader fills up all queues. */
	for (unsigned i = 0; i < uring->rings_count && rc == 0; i++)
		rc = ring_open(&uring->rings[i].ring,
			       URING_DEPTH * (uring->seats_count + 1 + uring->rings[i].queues_count),
			       COMPLETIONS);
	if (rc)
		snprintf(why, why_size, "no io_uring: %s%s", strerror(-rc),
			 rc == -EPERM ? "; see kernel.io_uring_disabled" : "");
	return rc;
}

int uring_open(struct session *session, struct uring **out, char *why, size_t why_size)
{
	struct uring *uring;
	char list[256];
	int cores_count, rc = kernel_ask(why, why_size);

	if (rc)
		return rc;
	cores_count = file_read(POSSIBLE, list, sizeof(list)) ? -1 : uring_cores_parse(list);
	if (cores_count < 0) {
		snprintf(why, why_size, POSSIBLE " cannot be read");
		return -EOPNOTSUPP;
	}
	uring = calloc(1, sizeof(*uring));
	if (!uring) {
		snprintf(why, why_size, "out of memory");
		return -ENOMEM;
	}
	rc = place_attr(&uring->attr);
	if (rc) {
		snprintf(why, why_size, "attributes of threads: %s", strerror(-rc));
		free(uring);
		return rc;
	}
	uring->session = session;
	pthread_mutex_init(&uring->lock, NULL);
	pthread_cond_init(&uring->changed, NULL);
	pthread_mutex_init(&uring->post_lock, NULL);
	pthread_cond_init(&uring->post_changed, NULL);
	sem_init(&uring->bell, 0, 0);
	if (sched_getaffinity(0, sizeof(uring->cpus), &uring->cpus)) {
		rc = -errno;
		snprintf(why, why_size, "which cores there are cannot be read: %s", strerror(-rc));
	} else {
		rc = rings_make(uring, (unsigned)cores_count, why, why_size);
	}
	if (rc)
		uring_close(uring);
	else
		*out = uring;
	return rc;
}
