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
 * A watcher looks every few milliseconds while there are requests.
 * - A request has waited for a whole tick and the leader got no time: SCHED_IDLE starves beside threads that compute, with the locks it
 *   has. It is *lifted*, made an ordinary thread that goes on to follow.
 * - A request has waited for a whole tick all the same: the leader is at something long or waits for a lock. Spread.
 * - For some ticks, requests have waited behind long ones (several streams at a time), or the leader was busy all the time. Spread.
 * Spread, everything is as if there were no placement. Both last for a while, longer each time they turn out to be needed again at once.
 *
 * A thread that works long and steadily (place_apart) is kept off the leader's core: the scheduler would put it there, as on an idle one, and the leader would be
 * starved until it is lifted.
 *
 * Going back from SCHED_IDLE needs CAP_SYS_NICE or RLIMIT_NICE; without it the leader is as if always lifted: on busy cores following alone
 * helps as much, on idle ones it neither helps nor harms.
 *
 * place->lock protects mode, leader (both also read without it, as hints) and which seats are taken. A thread that is SCHED_IDLE may be kept from
 * running for long, so it never takes the lock: the leader pins and demotes itself without, and looks afterwards whether it still is the leader.
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
#define AWAY_NS 30000u /* from a reply to the next request: it may have come from another core */
#define HOLD_MIN_NS 50000000u
#define HOLD_MAX_NS 1600000000u
#define STRAYS_MIN 2u
#define CALM_COUNT 8u /* replies that are not looked at after one that was as it should be */
#define STRAYS_MAX 1024u
#define LINE_SIZE 64

enum stage { STAGE_RECEIVE, STAGE_PROCESS, STAGE_REPLIED };
enum mode { MODE_GATHER, MODE_SPREAD };

/* What is not atomic and not (lock) is the worker's own. */
struct place_seat {
	struct place *place;
	bool is_taken;   /* (lock) */
	pid_t tid;       /* (lock) */
	clockid_t clock; /* (lock) its CPU time */

	_Atomic int cpu; /* that it has pinned itself to, -1: none */
	pid_t caller;    /* who waits for the answer, 0: nobody */
	uint64_t begin_ns, replied_ns;
	unsigned strays_count, strays_limit;
	unsigned calm_count; /* replies that need no look yet */
	long preempts_count;

	_Atomic unsigned requests_count;
	_Atomic unsigned blocks_count; /* long requests behind which others waited */
	_Atomic int stage;
} __attribute__((aligned(LINE_SIZE)));

struct place {
	int fd, bell; /* bell: an eventfd, the watcher's */
	bool at_caller, may_idle;
	cpu_set_t cpus; /* that the process may use */
	pthread_t watcher;
	bool is_watched;

	pthread_mutex_t lock;
	pthread_cond_t turn; /* the parked wait for it */
	_Atomic int mode;
	struct place_seat *_Atomic leader;
	_Atomic bool is_lifted;
	_Atomic bool is_ended;
	_Atomic bool is_asleep; /* the watcher, until the bell rings */
	_Atomic pid_t apart;    /* a thread that stays off the leader's core, 0: none */

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

static bool class_may_change(void)
{
	pthread_t thread;
	bool may = false;

	if (pthread_create(&thread, NULL, class_probe, &may))
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

/* Off the core that the leader has, if it has one; of a single core nobody can stay off. */
static void apart_set(struct place *place)
{
	const struct place_seat *leader = atomic_load(&place->leader);
	int cpu = leader ? atomic_load(&leader->cpu) : -1;
	pid_t tid = atomic_load(&place->apart);
	cpu_set_t others = place->cpus;

	if (tid == 0)
		return;
	if (cpu >= 0)
		CPU_CLR(cpu, &others);
	if (CPU_COUNT(&others) > 0)
		sched_setaffinity(tid, sizeof(others), &others);
}

/* (lock) Ordinary threads again, wherever the scheduler likes. */
static void seats_free(struct place *place)
{
	for (unsigned i = 0; i < place->count; i++) {
		const struct place_seat *seat = &place->seats[i];

		if (!seat->is_taken || seat == atomic_load(&place->leader))
			continue;
		if (place->may_idle)
			class_set(seat->tid, SCHED_OTHER);
		sched_setaffinity(seat->tid, sizeof(place->cpus), &place->cpus);
	}
}

/* ---- gather and spread ---- */

static void place_spread(struct place *place)
{
	pthread_mutex_lock(&place->lock);
	atomic_store(&place->mode, MODE_SPREAD);
	atomic_store(&place->leader, NULL);
	seats_free(place);
	apart_set(place);
	pthread_cond_broadcast(&place->turn);
	pthread_mutex_unlock(&place->lock);
}

/* The first worker that is done with a request takes the lead; the others serve at most one more, then they park. */
static void place_gather(struct place *place)
{
	pthread_mutex_lock(&place->lock);
	/* Once more: one may have become leader just when it no longer was to. */
	seats_free(place);
	if (!atomic_load(&place->is_ended))
		atomic_store(&place->mode, MODE_GATHER);
	pthread_mutex_unlock(&place->lock);
}

/* Makes the leader, now and later, an ordinary thread or one that runs when nobody else wants to. */
static void place_lift(struct place *place, bool is_lifted)
{
	const struct place_seat *leader;

	pthread_mutex_lock(&place->lock);
	atomic_store(&place->is_lifted, is_lifted || atomic_load(&place->is_ended));
	leader = atomic_load(&place->leader);
	if (leader)
		class_set(leader->tid, atomic_load(&place->is_lifted) ? SCHED_OTHER : SCHED_IDLE);
	pthread_mutex_unlock(&place->lock);
}

/* Waits until this worker is to read. */
static void seat_turn(struct place_seat *seat)
{
	struct place *place = seat->place;
	bool is_leader = false;

	pthread_mutex_lock(&place->lock);
	while (!is_leader && atomic_load(&place->mode) == MODE_GATHER) {
		if (atomic_load(&place->leader)) {
			pthread_cond_wait(&place->turn, &place->lock);
			continue;
		}
		seat->cpu = -1;
		seat->strays_limit = STRAYS_MIN;
		seat->strays_count = STRAYS_MIN;
		seat->calm_count = 0;
		atomic_store(&place->leader, seat);
		is_leader = true;
	}
	pthread_mutex_unlock(&place->lock);
	if (!is_leader || atomic_load(&place->is_lifted))
		return;
	class_set(0, SCHED_IDLE);
	if (atomic_load(&place->leader) != seat || atomic_load(&place->is_lifted))
		class_set(0, SCHED_OTHER);
}

/* Goes where the caller is. */
static void lead_move(struct place_seat *seat)
{
	struct place *place = seat->place;
	int cpu = cpu_of(seat->caller);
	cpu_set_t one;

	/*
	 * It is here, and yet the reply did not get this thread preempted, or it does not come along: looking more often
	 * does not help.
	 */
	if ((cpu == seat->cpu || !place->may_idle) && seat->strays_limit < STRAYS_MAX)
		seat->strays_limit *= 2;
	if (cpu < 0 || cpu >= CPU_SETSIZE || cpu == seat->cpu || !CPU_ISSET(cpu, &place->cpus))
		return;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	if (sched_setaffinity(0, sizeof(one), &one) == 0) {
		seat->cpu = cpu;
		apart_set(place);
	}
	if (atomic_load(&place->leader) != seat)
		sched_setaffinity(0, sizeof(place->cpus), &place->cpus);
}

/* Did the reply bring the caller here? */
static void lead_follow(struct place_seat *seat)
{
	struct rusage ru;

	if (seat->calm_count) {
		seat->calm_count--;
		return;
	}
	getrusage(RUSAGE_THREAD, &ru);
	if (ru.ru_nivcsw != seat->preempts_count) {
		seat->preempts_count = ru.ru_nivcsw;
		seat->calm_count = CALM_COUNT;
		seat->strays_count = 0;
		seat->strays_limit = STRAYS_MIN;
	} else if (++seat->strays_count >= seat->strays_limit) {
		seat->strays_count = 0;
		lead_move(seat);
	}
}

/* ---- the watcher ---- */

struct sample {
	const struct place_seat *leader;
	unsigned requests_count, blocks_count;
	uint64_t cpu_ns, wall_ns;
	bool is_queued, is_waiting; /* somebody waits: to be read; to be read or for an answer */
};

/* A request, or that there will be none any more: the leader has to get on with both. */
static bool is_readable(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return poll(&pfd, 1, 0) > 0 && (pfd.revents & (POLLIN | POLLERR | POLLHUP));
}

static struct sample sample_take(struct place *place)
{
	struct sample s = { .leader = atomic_load(&place->leader), .wall_ns = clock_ns(CLOCK_MONOTONIC) };

	s.is_queued = is_readable(place->fd);
	s.is_waiting = s.is_queued;
	if (s.leader) {
		s.is_waiting |= atomic_load(&s.leader->stage) == STAGE_PROCESS;
		s.requests_count = atomic_load_explicit(&s.leader->requests_count, memory_order_relaxed);
		s.blocks_count = atomic_load_explicit(&s.leader->blocks_count, memory_order_relaxed);
		s.cpu_ns = clock_ns(s.leader->clock);
	}
	return s;
}

/* The leader is at the same request as in the sample before, or has not begun with it. */
static bool is_still(const struct sample *before, const struct sample *now)
{
	return before->is_waiting && now->is_waiting && now->requests_count == before->requests_count;
}

static bool is_starved(const struct sample *before, const struct sample *now)
{
	return is_still(before, now) && (now->cpu_ns - before->cpu_ns) * 2 < now->wall_ns - before->wall_ns;
}

static bool is_stuck(const struct sample *before, const struct sample *now)
{
	return is_still(before, now) && before->is_queued && now->is_queued;
}

static bool is_crowded(const struct sample *before, const struct sample *now)
{
	if (now->blocks_count - before->blocks_count >= 2)
		return true;
	return now->is_queued && (now->cpu_ns - before->cpu_ns) * 10 > (now->wall_ns - before->wall_ns) * 9;
}

/* Sleeps for ns, UINT64_MAX: until there is something to do; less if everything ends. */
static void watch_sleep(struct place *place, uint64_t ns)
{
	struct timespec ts = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };
	bool is_deep = ns == UINT64_MAX;
	struct pollfd pfds[2] = { { .fd = place->bell, .events = POLLIN },
				  { .fd = place->fd, .events = POLLIN } };
	const struct place_seat *leader;
	uint64_t rings;

	if (is_deep) {
		atomic_store(&place->is_asleep, true);
		leader = atomic_load(&place->leader);
		if (leader && atomic_load(&leader->stage) == STAGE_PROCESS)
			goto out; /* took a request before it could see that it has to ring */
	}
	ppoll(pfds, is_deep ? 2 : 1, is_deep ? NULL : &ts, NULL);
out:
	atomic_store(&place->is_asleep, false);
	if (read(place->bell, &rings, sizeof(rings)) < 0) {
		/* Nobody rang. */
	}
}

/* How long something lasts. */
struct hold {
	uint64_t ns, until_ns;
};

static void hold_begin(struct hold *hold)
{
	uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
	bool is_again = now_ns - hold->until_ns < 2 * hold->ns;

	hold->ns = is_again ? u64_min(2 * hold->ns, HOLD_MAX_NS) : HOLD_MIN_NS;
	hold->until_ns = now_ns + hold->ns;
}

/* Watches the leader until there is a reason to spread. */
static void watch_leader(struct place *place, struct hold *lift)
{
	struct sample before = sample_take(place), now;
	unsigned quiet_count = 0, crowded_count = 0;

	for (;; before = now) {
		bool is_quiet = quiet_count > QUIET_TICKS_COUNT;

		watch_sleep(place, is_quiet ? UINT64_MAX : TICK_NS);
		if (atomic_load(&place->is_ended))
			return;
		now = sample_take(place);
		if (is_quiet || !now.leader || now.leader != before.leader) {
			quiet_count = now.leader || is_quiet ? 0 : quiet_count + 1;
			continue;
		}
		quiet_count = now.is_waiting || now.requests_count != before.requests_count ? 0 :
											      quiet_count + 1;
		crowded_count = is_crowded(&before, &now) ? crowded_count + 1 : 0;
		if (!atomic_load(&place->is_lifted) && is_starved(&before, &now)) {
			hold_begin(lift);
			place_lift(place, true);
			now = sample_take(place);
		} else if (crowded_count == CROWDED_TICKS_COUNT || is_stuck(&before, &now)) {
			return;
		} else if (place->may_idle && atomic_load(&place->is_lifted) &&
			   now.wall_ns > lift->until_ns) {
			place_lift(place, false);
		}
	}
}

static void *watch_run(void *arg)
{
	struct place *place = arg;
	struct hold lift = { .ns = HOLD_MIN_NS }, spread = { .ns = HOLD_MIN_NS };

	for (;;) {
		watch_leader(place, &lift);
		if (atomic_load(&place->is_ended))
			return NULL;
		hold_begin(&spread);
		place_spread(place);
		log_debug("placement: spread for %u ms", (unsigned)(spread.ns / 1000000));
		watch_sleep(place, spread.ns);
		place_gather(place);
	}
}

/* ---- what the workers call ---- */

void place_enter(struct place_seat *seat)
{
	struct place *place = seat->place;

	if (!place->at_caller)
		return;
	pthread_mutex_lock(&place->lock);
	seat->tid = gettid();
	seat->is_taken = pthread_getcpuclockid(pthread_self(), &seat->clock) == 0;
	pthread_mutex_unlock(&place->lock);
	if (atomic_load(&place->mode) == MODE_GATHER)
		seat_turn(seat);
}

void place_took(struct place_seat *seat, const struct fuse_in_header *in)
{
	static const uint64_t ring = 1;
	struct place *place = seat->place;

	if (!place->at_caller)
		return;
	switch (in->opcode) {
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
	case FUSE_INTERRUPT:
		seat->caller = 0;
		break;
	default:
		seat->caller = (pid_t)in->pid;
	}
	atomic_store_explicit(&seat->requests_count,
			      atomic_load_explicit(&seat->requests_count, memory_order_relaxed) + 1,
			      memory_order_relaxed);
	atomic_store(&seat->stage, STAGE_PROCESS);
	if (atomic_load(&place->is_asleep) && atomic_exchange(&place->is_asleep, false) &&
	    write(place->bell, &ring, sizeof(ring)) < 0)
		log_warn("placement: %s", strerror(errno));
	seat->begin_ns = clock_ns(CLOCK_MONOTONIC);
	if (seat->begin_ns - seat->replied_ns > AWAY_NS)
		seat->calm_count = 0;
}

/* Others wait behind a request that takes long. */
static void block_note(struct place_seat *seat)
{
	seat->replied_ns = clock_ns(CLOCK_MONOTONIC);
	if (seat->replied_ns - seat->begin_ns > LONG_NS && is_readable(seat->place->fd))
		atomic_fetch_add_explicit(&seat->blocks_count, 1, memory_order_relaxed);
}

/*
 * From here on the worker may be kept from running: the caller has its answer. That is its own time, and what it asks for next does not wait behind
 * this request: so it is now that others are looked for.
 */
void place_replied(struct place_seat *seat)
{
	if (seat->place->at_caller &&
	    atomic_load_explicit(&seat->place->leader, memory_order_relaxed) == seat)
		block_note(seat);
	atomic_store_explicit(&seat->stage, STAGE_REPLIED, memory_order_relaxed);
}

void place_done(struct place_seat *seat)
{
	struct place *place = seat->place;
	bool has_replied;

	if (!place->at_caller)
		return;
	has_replied = atomic_load_explicit(&seat->stage, memory_order_relaxed) == STAGE_REPLIED;
	atomic_store_explicit(&seat->stage, STAGE_RECEIVE, memory_order_relaxed);
	if (atomic_load_explicit(&place->leader, memory_order_acquire) == seat) {
		if (!has_replied)
			block_note(seat);
		else if (seat->caller)
			lead_follow(seat);
	} else if (atomic_load(&place->mode) == MODE_GATHER) {
		seat_turn(seat);
	}
}

void place_leave(struct place_seat *seat)
{
	struct place *place = seat->place;

	if (!place->at_caller)
		return;
	if (place->may_idle)
		class_set(0, SCHED_OTHER); /* before it takes the lock */
	place_end(place);
	pthread_mutex_lock(&place->lock);
	seat->is_taken = false;
	pthread_mutex_unlock(&place->lock);
}

void place_apart(struct place *place)
{
	if (!place->at_caller || atomic_load(&place->apart) != 0)
		return;
	atomic_store(&place->apart, gettid());
	apart_set(place);
}

void place_end(struct place *place)
{
	static const uint64_t ring = 1;

	if (!place->at_caller)
		return;
	atomic_store(&place->is_ended, true);
	place_spread(place);
	if (write(place->bell, &ring, sizeof(ring)) < 0)
		log_warn("placement: %s", strerror(errno));
}

/* ---- open and close ---- */

int place_open(unsigned count, bool want_caller, struct place **out)
{
	size_t size = u64_align_up(sizeof(struct place) + count * sizeof(struct place_seat), LINE_SIZE);
	struct place *place = aligned_alloc(LINE_SIZE, size);

	if (!place)
		return -ENOMEM;
	memset(place, 0, size);
	place->fd = -1;
	place->count = count;
	for (unsigned i = 0; i < count; i++)
		place->seats[i] = (struct place_seat){ .place = place, .cpu = -1 };
	atomic_store(&place->mode, MODE_SPREAD);
	pthread_mutex_init(&place->lock, NULL);
	pthread_cond_init(&place->turn, NULL);
	place->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	place->at_caller = want_caller && place->bell >= 0 && sched_getscheduler(0) == SCHED_OTHER &&
			   sched_getaffinity(0, sizeof(place->cpus), &place->cpus) == 0;
	place->may_idle = place->at_caller && class_may_change();
	atomic_store(&place->is_lifted, !place->may_idle);
	*out = place;
	return 0;
}

void place_watch(struct place *place, int fd)
{
	if (!place->at_caller)
		return;
	place->fd = fd;
	place_gather(place);
	place->is_watched = pthread_create(&place->watcher, NULL, watch_run, place) == 0;
	if (!place->is_watched)
		place_end(place);
}

void place_close(struct place *place)
{
	if (place->is_watched) {
		place_end(place);
		pthread_join(place->watcher, NULL);
	}
	if (place->bell >= 0)
		close(place->bell);
	pthread_cond_destroy(&place->turn);
	pthread_mutex_destroy(&place->lock);
	free(place);
}

bool place_at_caller(const struct place *place)
{
	return place->at_caller;
}

bool place_may_idle(const struct place *place)
{
	return place->may_idle;
}

void place_class(pid_t tid, bool is_idle)
{
	class_set(tid, is_idle ? SCHED_IDLE : SCHED_OTHER);
}

int place_attr(pthread_attr_t *attr)
{
	struct sched_param param;
	cpu_set_t cpus;
	int rc = -pthread_attr_init(attr);

	if (rc)
		return rc;
	if (sched_getparam(0, &param) == 0 && pthread_attr_setschedpolicy(attr, sched_getscheduler(0)) == 0 &&
	    pthread_attr_setschedparam(attr, &param) == 0)
		pthread_attr_setinheritsched(attr, PTHREAD_EXPLICIT_SCHED);
	if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0)
		(void)pthread_attr_setaffinity_np(attr, sizeof(cpus), &cpus);
	return 0;
}

struct place_seat *place_seat(struct place *place, unsigned index)
{
	return &place->seats[index];
}
