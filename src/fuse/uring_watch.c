/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The watcher of the rings: relieves leaders whose request lasts, and chooses their class. See uring.c.
 *
 * A leader that has requests is SCHED_IDLE, for the reasons that are in place.c: so the one who is answered stays on its core. It is an ordinary thread
 * again once it has none, before the watcher sleeps, and for a while after it was starved beside threads that compute.
 *
 * Of a stream that is read ahead a request takes as long as what the reader does with the one before: the two are better off on two cores. So
 * where large reads go on, each where the last one ended, the leader is *loose*: an ordinary thread on any core, until there are others or none for some ticks.
 * For large reads here and there the reader waits, so they are answered on its core.
 *
 * A leader that has replied and lost its core by that is not starved: who was answered computes. It may be, though, if a request is there
 * by now, which only the leader itself can see. So it is made an ordinary thread until it has looked, and for some time waits
 * in such a way that one can tell (uring_lead.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fuse/ops.h"
#include "fuse/uring_priv.h"

#define TICK_NS 2000000
#define LIFT_MIN_NS 50000000u
#define LIFT_MAX_NS 1600000000u
#define QUIET_TICKS_COUNT 10u /* without requests; then the watcher sleeps */
#define STREAM_BEGIN 3u       /* ticks with large reads that go on; then the leader is loose */
#define STREAM_MAX 10u        /* such ticks that make up for as many with other requests */

/* (uring lock) */
static struct uring_seat *spare_find(struct uring *uring)
{
	for (unsigned i = 0; i < uring->seats_count; i++)
		if (!uring->seats[i].on && atomic_load(&uring->seats[i].tid))
			return &uring->seats[i];
	return NULL;
}

/* A spare takes the place of a leader that is still at the request it was seen at. */
static bool ring_relieve(struct uring *uring, struct core_ring *on)
{
	bool is_relieved = false;
	struct uring_seat *spare, *former = atomic_load(&on->leader);
	struct entry *entry;

	pthread_mutex_lock(&uring->lock);
	spare = spare_find(uring);
	if (!spare || pthread_mutex_trylock(&on->lock) != 0)
		goto out;
	if (atomic_load(&former->requests_count) == on->seen_count) {
		entry = atomic_load(&former->entry);
		if (entry && atomic_load(&entry->unique) != 0)
			uring_entry_hold(entry, atomic_load(&entry->unique));
		atomic_store(&on->leader, spare);
		spare->on = on;
		/* What it still has to do, it does where there is room. */
		(void)sched_setaffinity(atomic_load(&former->tid), sizeof(uring->cpus), &uring->cpus);
		place_class(atomic_load(&former->tid), false);
		pthread_cond_broadcast(&uring->changed);
		is_relieved = true;
	}
	pthread_mutex_unlock(&on->lock);
out:
	pthread_mutex_unlock(&uring->lock);
	return is_relieved;
}

/* ---- the class of leaders ---- */

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	if (clock_gettime(clock, &ts) != 0)
		return 0;
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void ring_class(struct core_ring *on, const struct uring_seat *leader, bool is_idle)
{
	if (atomic_load(&on->is_idle) != is_idle)
		place_class(atomic_load(&leader->tid), is_idle);
	atomic_store(&on->is_idle, is_idle);
}

/* Whether a thread wants to run: field 3 of its stat. */
static bool is_runnable(pid_t tid)
{
	char path[64], text[128];
	const char *at;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	at = strrchr(text, ')'); /* the name may hold blanks */
	return at && at[1] == ' ' && at[2] == 'R';
}

/* It has something to do, and got less than half of the time. */
static bool is_starved(const struct core_ring *on, const struct uring_seat *leader, bool is_busy,
		       uint64_t cpu_ns)
{
	if (!is_busy && !is_runnable(atomic_load(&leader->tid)))
		return false;
	return (cpu_ns - on->seen_cpu_ns) * 2 < TICK_NS;
}

static void ring_lift(struct core_ring *on, const struct uring_seat *leader, uint64_t now_ns)
{
	bool is_again = now_ns - on->lift_until_ns < 2 * on->lift_ns;

	on->lift_ns = is_again && on->lift_ns < LIFT_MAX_NS ? 2 * on->lift_ns :
		      is_again                              ? LIFT_MAX_NS :
							      LIFT_MIN_NS;
	on->lift_until_ns = now_ns + on->lift_ns;
	ring_class(on, leader, false);
}

/* ---- one look ---- */

bool uring_stream_tick(struct stream *stream, bool goes_on)
{
	bool was_loose = stream->is_loose;

	if (goes_on)
		stream->score += stream->score < STREAM_MAX;
	else
		stream->score -= stream->score > 0;
	stream->is_loose = stream->score >= (was_loose ? 1 : STREAM_BEGIN);
	return stream->is_loose != was_loose;
}

/* Where the leader runs. A tick without requests says nothing, many say that there is no stream. */
static void ring_stream(const struct uring *uring, struct core_ring *on, const struct uring_seat *leader,
			bool is_still)
{
	unsigned count = atomic_load(&leader->streamed_count);
	bool goes_on = count != on->seen_streamed_count, is_quiet = on->quiet_count >= QUIET_TICKS_COUNT;

	on->seen_streamed_count = count;
	if (leader != on->seen_leader || is_quiet)
		on->stream.score = 0;
	if (leader != on->seen_leader) {
		on->stream.is_loose = false; /* it has bound itself */
	} else if (on->cpu >= 0 && (!is_still || is_quiet) && uring_stream_tick(&on->stream, goes_on)) {
		ring_class(on, leader, false);
		uring_pin(uring, atomic_load(&leader->tid), on->stream.is_loose ? -1 : on->cpu);
	}
}

static void ring_rouse(struct core_ring *on, struct uring_seat *leader)
{
	atomic_store(&leader->is_roused, true);
	ring_class(on, leader, false);
}

/* Whether there was anything to do lately. */
static bool ring_look(struct uring *uring, struct core_ring *on)
{
	struct uring_seat *leader = atomic_load(&on->leader);
	unsigned count = atomic_load(&leader->requests_count);
	int stage = atomic_load(&leader->stage);
	bool is_busy = stage == STAGE_PROCESS, is_idle = atomic_load(&on->is_idle);
	bool is_still = leader == on->seen_leader && count == on->seen_count;
	uint64_t cpu_ns = is_idle ? clock_ns(leader->clock) : 0, now_ns = clock_ns(CLOCK_MONOTONIC);

	on->quiet_count = is_busy || !is_still ? 0 : on->quiet_count + 1;
	ring_stream(uring, on, leader, is_still);
	if (is_busy && is_still && ring_is_ready(&on->ring) && ring_relieve(uring, on))
		atomic_store(&on->is_idle, false);
	else if (is_idle && is_still && stage == STAGE_REPLIED)
		ring_rouse(on, leader);
	else if (is_idle && is_still && is_starved(on, leader, is_busy, cpu_ns))
		ring_lift(on, leader, now_ns);
	else if (on->quiet_count >= QUIET_TICKS_COUNT)
		ring_class(on, leader, false);
	else if (!is_still && on->cpu >= 0 && !on->stream.is_loose && place_may_idle(uring->session->place) &&
		 now_ns > on->lift_until_ns)
		ring_class(on, leader, true);
	on->seen_leader = leader;
	on->seen_count = count;
	on->seen_cpu_ns = cpu_ns;
	return on->quiet_count < QUIET_TICKS_COUNT;
}

static bool rings_look(struct uring *uring)
{
	bool is_active = false;

	for (unsigned i = 0; i < uring->rings_count; i++)
		is_active |= ring_look(uring, &uring->rings[i]);
	return is_active;
}

void *uring_watch_run(void *arg)
{
	struct uring *uring = arg;
	struct timespec tick = { 0, TICK_NS };

	while (!uring_is_ended(uring)) {
		if (rings_look(uring)) {
			nanosleep(&tick, NULL);
			continue;
		}
		/* Whoever takes a request from here on rings; whoever took one before is seen. */
		atomic_store(&uring->is_asleep, true);
		if (!rings_look(uring))
			while (sem_wait(&uring->bell) != 0 && errno == EINTR)
				;
		atomic_store(&uring->is_asleep, false);
	}
	return NULL;
}
