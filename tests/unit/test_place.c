/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Placement of workers (fuse/place.h), with a pipe instead of the kernel's connection (it ends as that does: an error, and nothing to
 * read) and threads that ask instead of programs.
 *
 * Each case waits for what has to come; whatever never comes ends the program (LIMIT_S).
 */
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "fuse/place.h"

#define LIMIT_S 580u
#define WORKERS_MAX 8u

struct call {
	void (*serve)(void *arg); /* what the worker does before it answers; NULL: nothing */
	void *arg;
	sem_t answered;
	/* of the worker */
	pid_t tid;
	int cpu, policy, cpus_count; /* where it ran, its class, how many cores it may use */
};

struct connection {
	int server, client;
	struct place *place;
	unsigned count;
	pthread_t threads[WORKERS_MAX];
	struct place_seat *seats[WORKERS_MAX];
	atomic_uint next;
};

static int cpus_count(void)
{
	cpu_set_t cpus;

	return sched_getaffinity(0, sizeof(cpus), &cpus) ? -1 : CPU_COUNT(&cpus);
}

/* The first core this thread may use that is not `other`; -1: there is none. */
static int cpu_beside(int other)
{
	cpu_set_t cpus;

	if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0)
		for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
			if (cpu != other && CPU_ISSET((size_t)cpu, &cpus))
				return cpu;
	return -1;
}

static void pin(int cpu)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET((size_t)cpu, &one);
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
}

static void *worker_run(void *arg)
{
	struct connection *c = arg;
	struct place_seat *seat = c->seats[atomic_fetch_add(&c->next, 1)];
	struct fuse_in_header in;

	place_enter(seat);
	while (read(c->server, &in, sizeof(in)) == sizeof(in)) {
		struct call *call = (struct call *)(uintptr_t)in.unique;

		place_took(seat, &in);
		if (call->serve)
			call->serve(call->arg);
		call->tid = gettid();
		call->cpu = sched_getcpu();
		call->policy = sched_getscheduler(0);
		call->cpus_count = cpus_count();
		place_replied(seat);
		sem_post(&call->answered);
		place_done(seat);
	}
	place_leave(seat);
	return NULL;
}

static void up(struct connection *c, unsigned count, bool want_caller)
{
	int fds[2];

	*c = (struct connection){ .count = count };
	assert_int_equal(pipe2(fds, O_CLOEXEC | O_DIRECT), 0);
	c->server = fds[0];
	c->client = fds[1];
	assert_int_equal(place_open(count, want_caller, &c->place), 0);
	place_watch(c->place, c->server);
	for (unsigned i = 0; i < count; i++) {
		c->seats[i] = place_seat(c->place, i);
		assert_int_equal(pthread_create(&c->threads[i], NULL, worker_run, c), 0);
	}
}

static void down(struct connection *c)
{
	close(c->client);
	for (unsigned i = 0; i < c->count; i++)
		pthread_join(c->threads[i], NULL);
	place_close(c->place);
	close(c->server);
}

static void ask(struct connection *c, struct call *call)
{
	struct fuse_in_header in = {
		.len = sizeof(in),
		.opcode = FUSE_GETATTR,
		.unique = (uintptr_t)call,
		.pid = (uint32_t)gettid(),
	};

	sem_init(&call->answered, 0, 0);
	if (write(c->client, &in, sizeof(in)) != sizeof(in))
		abort();
}

static void answer_wait(struct call *call)
{
	while (sem_wait(&call->answered))
		;
	sem_destroy(&call->answered);
}

static struct call ask_wait(struct connection *c)
{
	struct call call = { .serve = NULL };

	ask(c, &call);
	answer_wait(&call);
	return call;
}

/* Whether threads may become SCHED_IDLE and come back, without which a leader is never that. */
static bool may_idle(void)
{
	struct sched_param param = { .sched_priority = 0 };

	return sched_setscheduler(0, SCHED_IDLE, &param) == 0 &&
	       sched_setscheduler(0, SCHED_OTHER, &param) == 0;
}

static void *may_idle_run(void *arg)
{
	*(bool *)arg = may_idle();
	return NULL;
}

/* In a thread, which may be lost on the way back. */
static void idle_needed(void)
{
	pthread_t thread;
	bool may = false;

	assert_int_equal(pthread_create(&thread, NULL, may_idle_run, &may), 0);
	pthread_join(thread, NULL);
	if (!may)
		skip();
}

/* ---- every request is answered ---- */

#define ASKS_COUNT 400

static void *client_run(void *arg)
{
	for (int i = 0; i < ASKS_COUNT; i++)
		ask_wait(arg);
	return NULL;
}

static void all_answered(unsigned workers_count, unsigned clients_count)
{
	struct connection c;
	pthread_t clients[8];

	up(&c, workers_count, true);
	for (unsigned i = 0; i < clients_count; i++)
		assert_int_equal(pthread_create(&clients[i], NULL, client_run, &c), 0);
	for (unsigned i = 0; i < clients_count; i++)
		pthread_join(clients[i], NULL);
	down(&c);
}

static void every_number(void)
{
	static const unsigned workers[] = { 1, 2, 5 }, clients[] = { 1, 2, 8 };

	for (size_t i = 0; i < 3; i++)
		for (size_t k = 0; k < 3; k++)
			all_answered(workers[i], clients[k]);
}

static void answers(void **state)
{
	(void)state;
	every_number();
}

static void answers_on_one_core(void **state)
{
	cpu_set_t before;

	(void)state;
	assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
	pin(cpu_beside(-1));
	every_number();
	assert_int_equal(sched_setaffinity(0, sizeof(before), &before), 0);
}

/* ---- requests that wait for others ---- */

/*
 * One worker, pinned to a core, answers so many requests in a row, on this core and in this class (-1: any). Spread, several answer, and none
 * is pinned.
 */
static void led_wait(struct connection *c, int count, int cpu, int policy)
{
	pid_t leader = 0;

	for (int led_count = 0; led_count < count;) {
		struct call call = ask_wait(c);
		bool is_led = call.cpus_count == 1 && (cpu < 0 || call.cpu == cpu) &&
			      (policy < 0 || call.policy == policy);

		if (!is_led || call.tid != leader)
			led_count = 0;
		led_count += is_led;
		leader = call.tid;
	}
}

static void wait_for(void *arg)
{
	while (sem_wait(arg))
		;
}

static void let_go(void *arg)
{
	sem_post(arg);
}

/* The leader waits for what only another worker can do, and that one for a third. */
static void waits_for_others(struct connection *c)
{
	struct call call[3];
	sem_t gates[2];

	sem_init(&gates[0], 0, 0);
	sem_init(&gates[1], 0, 0);
	call[0] = (struct call){ .serve = wait_for, .arg = &gates[0] };
	call[1] = (struct call){ .serve = wait_for, .arg = &gates[1] };
	call[2] = (struct call){ .serve = let_go, .arg = &gates[1] };
	for (int i = 0; i < 3; i++)
		ask(c, &call[i]);
	answer_wait(&call[2]);
	answer_wait(&call[1]);
	sem_post(&gates[0]);
	answer_wait(&call[0]);
	sem_destroy(&gates[0]);
	sem_destroy(&gates[1]);
}

static void blocked_leader(void **state)
{
	struct connection c;

	(void)state;
	/* Just started, where one reads and the others are parked; then again, with a leader found anew. */
	up(&c, 3, true);
	for (int round = 0; round < 3; round++) {
		waits_for_others(&c);
		if (place_at_caller(c.place))
			led_wait(&c, 1, -1, -1);
	}
	down(&c);
}

/*
 * A caller has its answer and preempts the leader, takes its time and asks for more: nobody has waited for the leader. This thread is both.
 * Such a leader stays it (pinned) over so many requests: more than there are until the watcher has seen enough.
 */
static void callers_time(void **state)
{
	static const struct timespec callers = { .tv_nsec = 60000 };
	struct fuse_in_header in = {
		.len = sizeof(in),
		.opcode = FUSE_GETATTR,
		.pid = (uint32_t)gettid(),
	};
	struct place_seat *seat;
	struct place *place;
	cpu_set_t before;
	int fds[2];

	(void)state;
	assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
	if (CPU_COUNT(&before) < 2)
		skip();
	assert_int_equal(pipe2(fds, O_CLOEXEC | O_DIRECT), 0);
	assert_int_equal(place_open(1, true, &place), 0);
	place_watch(place, fds[0]);
	seat = place_seat(place, 0);
	place_enter(seat);
	for (unsigned led_count = 0; place_at_caller(place) && led_count < 200;) {
		place_took(seat, &in);
		place_replied(seat);
		assert_int_equal(write(fds[1], &in, sizeof(in)), sizeof(in));
		nanosleep(&callers, NULL);
		place_done(seat);
		assert_int_equal(read(fds[0], &in, sizeof(in)), sizeof(in));
		led_count = cpus_count() == 1 ? led_count + 1 : 0;
	}
	place_leave(seat);
	place_close(place);
	assert_int_equal(sched_setaffinity(0, sizeof(before), &before), 0);
	close(fds[0]);
	close(fds[1]);
}

/* ---- where the leader is ---- */

static void follows(void **state)
{
	struct connection c;
	cpu_set_t before;
	int cpu = -1;

	(void)state;
	if (cpu_beside(cpu_beside(-1)) < 0)
		skip();
	up(&c, 3, true);
	if (!place_at_caller(c.place)) {
		down(&c);
		skip();
	}
	assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
	for (int round = 0; round < 6; round++) {
		assert_int_equal(sched_setaffinity(0, sizeof(before), &before), 0);
		cpu = cpu_beside(cpu);
		pin(cpu);
		led_wait(&c, 5, cpu, -1);
	}
	assert_int_equal(sched_setaffinity(0, sizeof(before), &before), 0);
	down(&c);
}

struct aside {
	struct place *place;
	sem_t is_aside, may_end;
	pid_t tid;
};

static void *aside_run(void *arg)
{
	struct aside *aside = arg;

	place_apart(aside->place);
	place_apart(aside->place);
	aside->tid = gettid();
	sem_post(&aside->is_aside);
	wait_for(&aside->may_end);
	return NULL;
}

/* Until the thread may use all of these cores but this one; -1: all. c: NULL, or who is asked meanwhile. */
static void apart_wait(const struct aside *aside, struct connection *c, cpu_set_t all, int cpu)
{
	cpu_set_t cpus;

	if (cpu >= 0)
		CPU_CLR((size_t)cpu, &all);
	do {
		if (c)
			ask_wait(c);
		assert_int_equal(sched_getaffinity(aside->tid, sizeof(cpus), &cpus), 0);
	} while (!CPU_EQUAL(&cpus, &all));
}

/* A thread that works long is never where the leader is, wherever that goes; without one it may be anywhere. */
static void keeps_apart(void **state)
{
	struct aside aside;
	struct connection c;
	pthread_t thread;
	cpu_set_t before;
	int cpu = -1;

	(void)state;
	if (cpu_beside(cpu_beside(-1)) < 0)
		skip();
	up(&c, 3, true);
	if (!place_at_caller(c.place)) {
		down(&c);
		skip();
	}
	aside = (struct aside){ .place = c.place };
	sem_init(&aside.is_aside, 0, 0);
	sem_init(&aside.may_end, 0, 0);
	assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
	assert_int_equal(pthread_create(&thread, NULL, aside_run, &aside), 0);
	wait_for(&aside.is_aside);
	for (int round = 0; round < 4; round++) {
		assert_int_equal(sched_setaffinity(0, sizeof(before), &before), 0);
		cpu = cpu_beside(cpu);
		pin(cpu);
		apart_wait(&aside, &c, before, cpu);
	}
	assert_int_equal(sched_setaffinity(0, sizeof(before), &before), 0);
	place_end(c.place);
	apart_wait(&aside, NULL, before, -1);
	sem_post(&aside.may_end);
	pthread_join(thread, NULL);
	down(&c);
}

/* ---- beside threads that compute ---- */

struct hogs {
	atomic_bool is_over;
	pthread_t threads[64];
	int count;
};

static void *hog_run(void *arg)
{
	struct hogs *hogs = arg;

	while (!atomic_load_explicit(&hogs->is_over, memory_order_relaxed))
		;
	return NULL;
}

/* One on each core, more would change nothing. */
static void hogs_begin(struct hogs *hogs)
{
	int cpus = cpus_count();

	*hogs = (struct hogs){ .count = cpus < 64 ? cpus : 64 };
	for (int i = 0; i < hogs->count; i++)
		assert_int_equal(pthread_create(&hogs->threads[i], NULL, hog_run, hogs), 0);
}

static void hogs_end(struct hogs *hogs)
{
	atomic_store(&hogs->is_over, true);
	for (int i = 0; i < hogs->count; i++)
		pthread_join(hogs->threads[i], NULL);
}

/* The leader is SCHED_IDLE. Looked at while nobody waits for it: who waits gets it lifted if others keep its core. */
static void sunk_wait(struct connection *c)
{
	static const struct timespec pause = { .tv_nsec = 1000000 };

	for (;;) {
		pid_t leader = ask_wait(c).tid;

		for (int i = 0; i < 5; i++) {
			nanosleep(&pause, NULL);
			if (sched_getscheduler(leader) == SCHED_IDLE)
				return;
		}
	}
}

/* Beside threads that compute the leader is lifted, and goes on to lead; later it sinks again. */
static void lifted_and_back(void **state)
{
	struct connection c;
	struct hogs hogs;

	(void)state;
	idle_needed();
	up(&c, 3, true);
	if (!place_at_caller(c.place)) {
		down(&c);
		skip();
	}
	for (int round = 0; round < 2; round++) {
		sunk_wait(&c);
		hogs_begin(&hogs);
		led_wait(&c, 1, -1, SCHED_OTHER);
		hogs_end(&hogs);
	}
	sunk_wait(&c);
	down(&c);
}

/* ---- the end ---- */

static void meet(void *arg)
{
	pthread_barrier_wait(arg);
}

/* All workers read: so many requests that wait for each other are answered, without help of a watcher. */
static void all_read(struct connection *c)
{
	struct call call[WORKERS_MAX];
	pthread_barrier_t barrier;

	pthread_barrier_init(&barrier, NULL, c->count);
	for (unsigned i = 0; i < c->count; i++) {
		call[i] = (struct call){ .serve = meet, .arg = &barrier };
		ask(c, &call[i]);
	}
	for (unsigned i = 0; i < c->count; i++) {
		answer_wait(&call[i]);
		assert_int_equal(call[i].policy, sched_getscheduler(0));
		assert_int_equal(call[i].cpus_count, cpus_count());
	}
	pthread_barrier_destroy(&barrier);
}

static void ends(void **state)
{
	struct connection c;

	(void)state;
	/* Before there was anything, twice; with a leader; while one waits; by word and by the connection. */
	up(&c, 4, true);
	down(&c);
	up(&c, 4, true);
	place_end(c.place);
	place_end(c.place);
	all_read(&c);
	down(&c);
	up(&c, 4, true);
	for (int i = 0; i < ASKS_COUNT; i++)
		ask_wait(&c);
	place_end(c.place);
	all_read(&c);
	all_read(&c);
	down(&c);
	for (int i = 0; i < 20; i++) {
		up(&c, 4, true);
		ask_wait(&c);
		down(&c);
	}
}

static void spread_by_wish(void **state)
{
	struct connection c;

	(void)state;
	up(&c, 4, false);
	assert_false(place_at_caller(c.place));
	all_read(&c);
	waits_for_others(&c);
	all_read(&c);
	down(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers),         cmocka_unit_test(answers_on_one_core),
		cmocka_unit_test(blocked_leader),  cmocka_unit_test(callers_time),
		cmocka_unit_test(follows),         cmocka_unit_test(keeps_apart),
		cmocka_unit_test(lifted_and_back), cmocka_unit_test(ends),
		cmocka_unit_test(spread_by_wish),
	};

	alarm(LIMIT_S);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
