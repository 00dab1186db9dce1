/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Placement of the workers. See place.h.
 *
 *                 first worker that is done               requests wait for the leader
 *	no leader ---------------------------> leader, others parked --------------------> spread
 *	    ^                                                                                 |
 *	    +------------------------- the time for it is over -------------------------------+
 *
 * The scheduler sends a woken thread to an idle core, so left alone caller and worker drift apart. But it counts a core that runs nothing except
 * SCHED_IDLE threads as idle. Hence the leader is pinned and SCHED_IDLE: its reply wakes the caller on the leader's core, where the caller
 * preempts it at once, and the next request finds the leader asleep on that same core. A reply that did not get the leader preempted went to
 * a caller elsewhere: after a few of them in a row the leader looks where the caller ran last and moves there.
 *
 * A watcher looks every few milliseconds while there are requests, and spreads the workers when
 * - a request has waited for a whole tick: the leader is at something long, waits for a lock or, being SCHED_IDLE, gets no time beside threads
 *   that compute (with the locks it has: what others can wait for it is bounded by two ticks);
 * - for some ticks, requests have waited behind long ones (several streams at a time), or the leader was busy all the time.
 * Spread, everything is as if there were no placement. That lasts for a while, longer each time it turns out to be needed again at once.
 *
 * Going back from SCHED_IDLE needs CAP_SYS_NICE or RLIMIT_NICE; without it the workers are always spread.
 *
 * place->lock protects mode, leader (both also read without it, as hints) and the class and core of all workers. It is held for a few system
 * calls at most, and by a leader never while it is SCHED_IDLE and can be kept from running for long: the watcher takes it by trying.
 */
#include "fuse/place.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "util/log.h"

#define TICK_NS 2000000u
#define QUIET_TICKS_COUNT 10u /* without requests; then the watcher sleeps */
#define CROWDED_TICKS_COUNT 3u
#define LONG_NS 50000u /* a request that others should not wait for: what waking another core costs */
#define HOLD_MIN_NS 50000000u
#define HOLD_MAX_NS 1600000000u
#define STRAYS_MIN 8u
#define STRAYS_MAX 1024u
#define LINE_SIZE 64

enum stage { STAGE_RECEIVE, STAGE_PROCESS, STAGE_REPLIED };
enum mode { MODE_GATHER, MODE_SPREAD };

/* The worker writes what is atomic, the watcher reads it. */
struct place_seat {
	struct place *place;
	bool is_taken, is_idle; /* (lock) */
	pid_t tid;              /* (lock) */
	clockid_t clock;        /* (lock) its CPU time */
	int cpu;                /* (lock) that it is pinned to, -1: none */

	pid_t caller; /* who waits for the answer, 0: nobody */
	uint64_t begin_ns;
	unsigned strays_count, strays_limit;
	long preempts_count;
	_Atomic unsigned requests_count;
	_Atomic unsigned blocks_count; /* long requests behind which others waited */
	_Atomic int stage;
} __attribute__((aligned(LINE_SIZE)));

struct place {
	int fd, bell; /* bell: an eventfd, the watcher's */
	bool at_caller;
	cpu_set_t cpus; /* that the process may use */
	pthread_t watcher;
	bool is_watched;

	pthread_mutex_t lock;
	pthread_cond_t turn; /* the parked wait for it */
	_Atomic int mode;
	struct place_seat *_Atomic leader;
	_Atomic bool is_ended;
	_Atomic bool is_asleep; /* the watcher, until the bell rings */

	unsigned count;
	struct place_seat seats[];
};

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	if (clock_gettime(clock, &ts) != 0)
		return 0;
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- class and core of a thread ---- */

static int class_set(pid_t tid, int policy)
{
	struct sched_param param = { .sched_priority = 0 };

	return sched_setscheduler(tid, policy, &param) ? -errno : 0;
}

/* Tries the way there and back in a thread that may be lost. */
static void *class_probe(void *arg)
{
	bool *may = arg;

	*may = class_set(0, SCHED_IDLE) == 0 && class_set(0, SCHED_OTHER) == 0;
	return NULL;
}

/* Not if somebody gave this process another class: it is not ours to change. */
static bool class_may_change(void)
{
	pthread_t thread;
	bool may = false;

	if (sched_getscheduler(0) != SCHED_OTHER || pthread_create(&thread, NULL, class_probe, &may))
		return false;
	pthread_join(thread, NULL);
	return may;
}

/* The core a thread runs on or ran on last: field 39 of its stat. */
static int cpu_of(pid_t tid)
{
	char path[64], text[1024];
	const char *at;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return -1;
	text[n] = '\0';
	/* The name, field 2, may hold blanks. */
	at = strrchr(text, ')');
	for (int field = 2; at && field < 39; field++)
		at = strchr(at + 1, ' ');
	return at ? (int)strtol(at, NULL, 10) : -1;
}

/* (lock) */
static void seat_pin(struct place_seat *seat, int cpu)
{
	const struct place *place = seat->place;
	cpu_set_t one;

	if (cpu < 0 || cpu >= CPU_SETSIZE || cpu == seat->cpu || !CPU_ISSET(cpu, &place->cpus))
		return;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	if (sched_setaffinity(seat->tid, sizeof(one), &one) == 0)
		seat->cpu = cpu;
}

/* (lock) Back to an ordinary thread. */
static void seat_free(struct place_seat *seat)
{
	if (!seat->is_taken)
		return;
	if (seat->is_idle && class_set(seat->tid, SCHED_OTHER) == 0)
		seat->is_idle = false;
	if (seat->cpu >= 0 && sched_setaffinity(seat->tid, sizeof(seat->place->cpus), &seat->place->cpus) == 0)
		seat->cpu = -1;
}

/* ---- gather and spread ---- */

static void place_spread(struct place *place)
{
	pthread_mutex_lock(&place->lock);
	atomic_store(&place->mode, MODE_SPREAD);
	atomic_store(&place->leader, NULL);
	for (unsigned i = 0; i < place->count; i++)
		seat_free(&place->seats[i]);
	pthread_cond_broadcast(&place->turn);
	pthread_mutex_unlock(&place->lock);
}

/* The first worker that is done with a request takes the lead, the others park when they have served one more. */
static void place_gather(struct place *place)
{
	pthread_mutex_lock(&place->lock);
	if (!atomic_load(&place->is_ended))
		atomic_store(&place->mode, MODE_GATHER);
	pthread_mutex_unlock(&place->lock);
}

/* (lock) */
static void lead_take(struct place_seat *seat)
{
	atomic_store(&seat->place->leader, seat);
	seat->strays_limit = STRAYS_MIN;
	seat->strays_count = STRAYS_MIN;
	seat->is_idle = true;
}

/* Waits until this worker is to read. */
static void seat_turn(struct place_seat *seat)
{
	struct place *place = seat->place;
	bool is_new = false;

	pthread_mutex_lock(&place->lock);
	while (atomic_load(&place->mode) == MODE_GATHER && atomic_load(&place->leader) != seat) {
		if (!atomic_load(&place->leader)) {
			lead_take(seat);
			is_new = true;
			break;
		}
		pthread_cond_wait(&place->turn, &place->lock);
	}
	pthread_mutex_unlock(&place->lock);
	/* Last, and without the lock: from here on this thread runs only when nobody else wants to. */
	if (is_new)
		class_set(0, SCHED_IDLE);
}
