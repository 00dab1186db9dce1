/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Threads that serve rings: leaders and spares, and the courier. See uring.c.
 */
#include <errno.h>
#include <linux/fuse.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "fuse/ops.h"
#include "fuse/uring_priv.h"
#include "util/log.h"

#define KICK_SIGNAL SIGUSR1
#define FULL_TRIES 4u
#define PLAIN_MAX 64u
#define PLAIN_ROUSED 1024u

/* ---- replies ---- */

static void post(struct uring *uring, struct entry *entry)
{
	pthread_mutex_lock(&uring->post_lock);
	entry->posted = uring->posts;
	uring->posts = entry;
	pthread_cond_signal(&uring->post_changed);
	pthread_mutex_unlock(&uring->post_lock);
}

bool uring_reply(struct uring *uring, const struct iovec *iov, int count)
{
	struct uring_seat *seat = worker_now ? worker_now->ring_seat : NULL;
	struct entry *entry = seat ? atomic_load_explicit(&seat->entry, memory_order_relaxed) : NULL;
	const struct fuse_out_header *out = iov[0].iov_base;
	uint64_t unique = out->unique;

	if (unique == 0)
		return false; /* tells the kernel something */
	if (entry && atomic_load(&entry->unique) == unique) {
		seat->is_full = out->error == -ENOSPC && seat->may_wait;
		if (seat->is_full)
			return true;
		uring_entry_fill(entry, iov, count);
		seat->is_replied = true;
		return true;
	}
	for (entry = atomic_load(&uring->entries); entry; entry = entry->next) {
		uint64_t expected = unique;

		if (!atomic_compare_exchange_strong(&entry->unique, &expected, 0))
			continue;
		uring_entry_fill(entry, iov, count);
		post(uring, entry);
		return true;
	}
	return false;
}

void *uring_courier_run(void *arg)
{
	struct uring *uring = arg;

	for (;;) {
		struct entry *entry;
		int rc;

		pthread_mutex_lock(&uring->post_lock);
		while (!uring->posts && !uring_is_ended(uring))
			pthread_cond_wait(&uring->post_changed, &uring->post_lock);
		entry = uring->posts;
		if (entry)
			uring->posts = entry->posted;
		pthread_mutex_unlock(&uring->post_lock);
		if (!entry)
			return NULL;
		uring_entry_commit(uring, entry);
		rc = ring_submit(&entry->queue->on->ring);
		if (rc)
			log_error("io_uring: %s", strerror(-rc));
	}
}

/* ---- a leader ---- */

static void seat_stage(struct uring_seat *seat, enum stage stage)
{
	atomic_store(&seat->stage, stage);
}

/* A completion that is not a request. */
static void entry_lost(struct entry *entry, int result)
{
	entry->queue->entries_count--;
	if (entry->is_new)
		entry->queue->on->refusal = result;
	else if (result != -ENOTCONN && result != -ECONNABORTED && result != -ECANCELED)
		log_error("io_uring: the kernel refuses a reply: %s", strerror(-result));
}

/* The next request of its ring; NULL: there is none, or it is not the leader any more. */
static struct entry *request_take(struct uring_seat *seat, struct core_ring *on)
{
	struct entry *entry = NULL;
	uint64_t tag;
	int result;

	pthread_mutex_lock(&on->lock);
	while (!entry && atomic_load(&on->leader) == seat && ring_pop(&on->ring, &tag, &result)) {
		entry = (struct entry *)(uintptr_t)tag;
		if (result < 0) {
			entry_lost(entry, result);
			entry = NULL;
		}
	}
	if (entry) {
		const struct fuse_in_header *in = (const void *)entry->head->in_out;

		entry->is_new = false;
		atomic_store(&entry->unique, in->unique);
		atomic_store(&seat->entry, entry);
	}
	pthread_mutex_unlock(&on->lock);
	return entry;
}

static void request_refuse(struct uring_seat *seat, struct entry *entry, int error)
{
	struct fuse_out_header out = { .len = sizeof(out),
				       .error = error,
				       .unique = atomic_load(&entry->unique) };
	struct iovec iov = { &out, sizeof(out) };

	uring_entry_fill(entry, &iov, 1);
	seat->is_replied = true;
}

/* Once more for each time that there was no space and some may have been freed. */
static void request_carry_out(struct uring_seat *seat, struct entry *entry)
{
	struct session *session = seat->uring->session;

	seat->is_replied = false;
	for (unsigned i = 0; i < FULL_TRIES; i++) {
		unsigned forgets_count = atomic_load(&session->forgets_count);
		size_t size;
		char *request = uring_entry_join(entry, &size);

		if (!request) {
			request_refuse(seat, entry, -EIO);
			return;
		}
		seat->is_full = false;
		seat->may_wait = i + 1 < FULL_TRIES;
		session_serve(seat->worker, request, size);
		if (!seat->is_full)
			return;
		if (!session_forgets_wait(session, forgets_count))
			break;
	}
	request_refuse(seat, entry, -ENOSPC);
}

static void request_serve(struct uring_seat *seat, struct entry *entry)
{
	struct uring *uring = seat->uring;
	struct core_ring *on = entry->queue->on;
	uint64_t unique = atomic_load(&entry->unique);

	atomic_fetch_add_explicit(&seat->requests_count, 1, memory_order_relaxed);
	if (uring_entry_goes_on(entry, &seat->read_end_bytes))
		atomic_fetch_add_explicit(&seat->streamed_count, 1, memory_order_relaxed);
	seat_stage(seat, STAGE_PROCESS);
	if (atomic_load(&uring->is_asleep) && atomic_exchange(&uring->is_asleep, false))
		sem_post(&uring->bell);
	/* What it asks for goes where the kernel fetches it, if nothing of the request is there. */
	seat->worker->buf = entry->head->ring.payload_size == 0 ? entry->payload : seat->buf;
	request_carry_out(seat, entry);
	seat->worker->buf = seat->buf;
	if (seat->is_replied) {
		atomic_store(&entry->unique, 0);
		uring_entry_commit(uring, entry);
	} else {
		pthread_mutex_lock(&on->lock);
		uring_entry_hold(entry, unique);
		uring_entries_grow(uring, entry->queue);
		pthread_mutex_unlock(&on->lock);
	}
	atomic_store(&seat->entry, NULL);
	seat_stage(seat, STAGE_WAIT);
}

void uring_pin(const struct uring *uring, pid_t tid, int cpu)
{
	cpu_set_t one;

	if (cpu < 0 || !place_at_caller(uring->session->place)) {
		(void)sched_setaffinity(tid, sizeof(uring->cpus), &uring->cpus);
		return;
	}
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	/* If the core has gone meanwhile, anywhere. */
	(void)sched_setaffinity(tid, sizeof(one), &one);
}

/*
 * Hands in what has been pushed and waits for a request, if none is there.
 *
 * Whoever gets the reply takes the core from a leader that is SCHED_IDLE as soon as that one is about to leave the kernel. If it asks again soon, the
 * leader has not slept meanwhile and needs not be woken, and finds the request when it comes back: that saves a seventh of the round trip. So
 * the reply is handed in by a call that does not wait. If nothing is there after it, another one waits; then the next ones wait at once.
 */
static int lead_wait(struct uring_seat *seat, struct core_ring *on)
{
	int rc;

	if (ring_is_ready(&on->ring))
		return ring_enter(&on->ring, false);
	if (!atomic_load_explicit(&on->is_idle, memory_order_relaxed))
		return ring_enter(&on->ring, true);
	if (seat->plain_count > 0) {
		seat->plain_count--;
		return ring_enter(&on->ring, true);
	}
	seat_stage(seat, STAGE_REPLIED);
	rc = ring_enter(&on->ring, false);
	seat_stage(seat, STAGE_WAIT);
	if (atomic_exchange(&seat->is_roused, false)) {
		seat->plain_count = PLAIN_ROUSED;
	} else if (ring_is_ready(&on->ring)) {
		seat->plain_limit = 1;
	} else {
		seat->plain_limit = seat->plain_limit < PLAIN_MAX ? 2 * seat->plain_limit : PLAIN_MAX;
		seat->plain_count = seat->plain_limit;
	}
	return rc || ring_is_ready(&on->ring) ? rc : ring_enter(&on->ring, true);
}

static void lead(struct uring_seat *seat, struct core_ring *on)
{
	uring_pin(seat->uring, 0, on->cpu);
	seat->plain_count = 0;
	seat->plain_limit = 1;
	/* What the former leader is at holds an entry. */
	pthread_mutex_lock(&on->lock);
	for (unsigned i = 0; i < on->queues_count; i++)
		uring_entries_grow(seat->uring, &on->queues[i]);
	pthread_mutex_unlock(&on->lock);
	while (!uring_is_ended(seat->uring)) {
		struct entry *entry = request_take(seat, on);
		bool is_leader = atomic_load(&on->leader) == seat;
		int rc = 0;

		if (entry)
			request_serve(seat, entry);
		/* What it has pushed goes out in any case; with that it waits, if nothing is there. */
		if (!is_leader || atomic_load(&on->leader) != seat) {
			rc = ring_submit(&on->ring);
			if (rc)
				log_error("io_uring: %s", strerror(-rc));
			return;
		}
		rc = lead_wait(seat, on);
		if (rc && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY) {
			log_error("io_uring: %s", strerror(-rc));
			return;
		}
	}
}

/* ---- who leads ---- */

/*
 * Hands the queues of a ring to the kernel, which begins to use all of them once each has an entry. So it is enough if the last queue gets one; any
 * other refusal leaves all of them unused. *first: a request that has come already.
 */
static int ring_register(struct uring_seat *seat, struct core_ring *on, bool is_last, struct entry **first)
{
	unsigned least_count = is_last ? 1 : URING_DEPTH;
	int rc = 0;

	for (unsigned i = 0; i < on->queues_count; i++) {
		for (unsigned j = 0; j < URING_DEPTH && rc == 0; j++) {
			pthread_mutex_lock(&on->lock);
			rc = uring_entry_add(seat->uring, &on->queues[i]) ? 0 : -ENOMEM;
			pthread_mutex_unlock(&on->lock);
			if (rc == 0)
				rc = ring_submit(&on->ring);
		}
	}
	*first = request_take(seat, on);
	for (unsigned i = 0; i < on->queues_count; i++)
		if (on->queues[i].entries_count < least_count)
			return rc ? rc : on->refusal ? on->refusal : -EIO;
	return 0;
}

/* Waits for its turn. False: nothing comes of it. */
static bool ring_begin(struct uring_seat *seat, struct core_ring *on)
{
	struct uring *uring = seat->uring;
	unsigned index = (unsigned)(on - uring->rings);
	struct entry *first = NULL;
	int rc;

	pthread_mutex_lock(&uring->lock);
	while (!uring_is_ended(uring) && (atomic_load(&uring->state) != STATE_GO || uring->turn != index))
		pthread_cond_wait(&uring->changed, &uring->lock);
	pthread_mutex_unlock(&uring->lock);
	if (uring_is_ended(uring))
		return false;
	uring_pin(uring, 0, on->cpu);
	rc = ring_register(seat, on, index + 1 == uring->rings_count, &first);
	pthread_mutex_lock(&uring->lock);
	uring->turn++;
	uring->refusal = rc;
	if (rc)
		atomic_store(&uring->state, STATE_REFUSED);
	pthread_cond_broadcast(&uring->changed);
	pthread_mutex_unlock(&uring->lock);
	if (rc == 0 && first)
		request_serve(seat, first);
	return rc == 0;
}

void *uring_seat_run(void *arg)
{
	struct uring_seat *seat = arg;
	struct uring *uring = seat->uring;
	struct core_ring *on = seat->on;
	sigset_t kicks;

	worker_now = seat->worker;
	sigemptyset(&kicks);
	sigaddset(&kicks, KICK_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &kicks, NULL);
	pthread_getcpuclockid(pthread_self(), &seat->clock);
	atomic_store(&seat->tid, gettid());
	if (on && ring_begin(seat, on))
		lead(seat, on);
	pthread_mutex_lock(&uring->lock);
	/* One that was a spare from the start may have been given a ring since it has a tid. */
	if (on)
		seat->on = NULL;
	while (!uring_is_ended(uring)) {
		if (!seat->on) {
			pthread_cond_wait(&uring->changed, &uring->lock);
			continue;
		}
		on = seat->on;
		pthread_mutex_unlock(&uring->lock);
		lead(seat, on);
		pthread_mutex_lock(&uring->lock);
		seat->on = NULL;
	}
	pthread_mutex_unlock(&uring->lock);
	return NULL;
}
