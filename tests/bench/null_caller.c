/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A receive loop that answers on the caller's core.
 *
 * A round trip between two idle cores costs several times one on a single core, since each side must be woken by
 * an interrupt. The scheduler sends a woken thread to an idle core, so left alone the two drift apart. But it counts
 * a core that runs nothing except SCHED_IDLE threads as idle. Hence:
 *
 * - one worker, pinned and SCHED_IDLE: its reply wakes the caller on the worker's own core, where the caller
 *   preempts it at once, and its next request finds the worker asleep on that same core;
 * - a reply that did not get the worker preempted went to a caller elsewhere: after a few of them the worker looks
 *   where the caller last ran and moves there;
 * - SCHED_IDLE starves beside threads that compute. A watcher looks every few milliseconds while there is work: a
 *   request that waits on a worker that gets no CPU time makes it a normal thread again for a while, longer each
 *   time.
 *
 * Going back from SCHED_IDLE needs CAP_SYS_NICE or RLIMIT_NICE; without it the worker stays normal.
 */
#define _GNU_SOURCE
#include "null_fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <linux/fuse.h>

#define STRAYS_MAX 8u
#define TICK_NS 2000000u
#define QUIET_TICKS_COUNT 50u
#define HOLD_MIN_NS 50000000u
#define HOLD_MAX_NS 3200000000u

enum stage { STAGE_RECEIVE, STAGE_PROCESS, STAGE_REPLIED };

/* The worker writes requests_count and stage, the watcher reads them. */
struct caller {
	struct fuse_session *se;
	pthread_t worker;
	pid_t worker_tid;
	bool may_idle;
	int cpu;
	unsigned int strays_count;
	long preempts_count;
	atomic_uint requests_count;
	atomic_int stage;
};

static struct caller caller;

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	if (clock_gettime(clock, &ts) != 0)
		return 0;
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int class_set(pid_t tid, int policy)
{
	struct sched_param param = { .sched_priority = 0 };

	return sched_setscheduler(tid, policy, &param) ? -errno : 0;
}

/* Tries the way there and back in a thread that may be lost. */
static void *class_probe(void *arg)
{
	bool *may_idle = arg;

	*may_idle = class_set(0, SCHED_IDLE) == 0 && class_set(0, SCHED_OTHER) == 0;
	return NULL;
}

/* The core a thread runs on or ran on last: field 39 of its stat. */
static int cpu_of(pid_t tid)
{
	char path[64];
	char text[1024];
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

/* After each reply: did it bring the caller here? If not, several times, go where the caller is. */
static void caller_follow(pid_t tid)
{
	struct rusage ru;
	cpu_set_t set;
	int cpu;

	getrusage(RUSAGE_THREAD, &ru);
	if (ru.ru_nivcsw != caller.preempts_count) {
		caller.preempts_count = ru.ru_nivcsw;
		caller.strays_count = 0;
		return;
	}
	if (++caller.strays_count < STRAYS_MAX || tid == 0)
		return;
	caller.strays_count = 0;
	cpu = cpu_of(tid);
	if (cpu < 0 || cpu == caller.cpu)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) == 0)
		caller.cpu = cpu;
}

static ssize_t io_read(int fd, void *buf, size_t size, void *userdata)
{
	(void)userdata;
	return read(fd, buf, size);
}

/* From here on the worker may be kept from running: the caller has its answer. */
static ssize_t io_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	(void)userdata;
	atomic_store_explicit(&caller.stage, STAGE_REPLIED, memory_order_relaxed);
	return writev(fd, iov, count);
}

static void work(void)
{
	struct fuse_buf buf = { .mem = NULL };

	while (!fuse_session_exited(caller.se)) {
		const struct fuse_in_header *in;
		int rc = fuse_session_receive_buf(caller.se, &buf);
		pid_t tid;

		if (rc == -EINTR)
			continue;
		if (rc <= 0)
			break;
		in = buf.mem;
		tid = (pid_t)in->pid;
		atomic_fetch_add_explicit(&caller.requests_count, 1, memory_order_relaxed);
		atomic_store_explicit(&caller.stage, STAGE_PROCESS, memory_order_relaxed);
		fuse_session_process_buf(caller.se, &buf);
		atomic_store_explicit(&caller.stage, STAGE_RECEIVE, memory_order_relaxed);
		caller_follow(tid);
	}
	free(buf.mem);
}

struct sample {
	unsigned int requests_count;
	uint64_t cpu_ns;
	uint64_t wall_ns;
	bool is_waiting; /* somebody waits for an answer */
};

static int sample_take(struct sample *s, clockid_t worker_clock)
{
	struct pollfd pfd = { .fd = fuse_session_fd(caller.se), .events = POLLIN };

	if (poll(&pfd, 1, 0) < 0 || (pfd.revents & (POLLERR | POLLHUP)))
		return -ENODEV;
	s->requests_count = atomic_load_explicit(&caller.requests_count, memory_order_relaxed);
	s->is_waiting = (pfd.revents & POLLIN) ||
			atomic_load_explicit(&caller.stage, memory_order_relaxed) == STAGE_PROCESS;
	s->cpu_ns = clock_ns(worker_clock);
	s->wall_ns = clock_ns(CLOCK_MONOTONIC);
	return 0;
}

static bool is_starved(const struct sample *before, const struct sample *now)
{
	return now->is_waiting && now->requests_count == before->requests_count &&
	       (now->cpu_ns - before->cpu_ns) * 2 < now->wall_ns - before->wall_ns;
}

/* Sleeps until there is a request, after a long time without. */
static void sleep_deep(void)
{
	struct pollfd pfd = { .fd = fuse_session_fd(caller.se), .events = POLLIN };

	poll(&pfd, 1, -1);
}

static void *watch(void *arg)
{
	static const struct timespec tick = { .tv_nsec = TICK_NS };
	struct sample before, now;
	uint64_t hold_ns = HOLD_MIN_NS, until_ns = 0;
	unsigned int quiet_count = 0;
	bool is_promoted = false;
	clockid_t clock;

	(void)arg;
	if (pthread_getcpuclockid(caller.worker, &clock) || sample_take(&before, clock))
		return NULL;
	for (;;) {
		if (quiet_count > QUIET_TICKS_COUNT && !is_promoted) {
			sleep_deep();
			quiet_count = 0;
			if (sample_take(&before, clock))
				return NULL;
		}
		nanosleep(&tick, NULL);
		if (sample_take(&now, clock))
			return NULL;
		if (now.is_waiting || now.requests_count != before.requests_count)
			quiet_count = 0;
		else
			quiet_count++;
		if (!is_promoted && is_starved(&before, &now)) {
			bool is_again = now.wall_ns - until_ns < 2 * hold_ns;

			hold_ns = is_again ? hold_ns * 2 : HOLD_MIN_NS;
			if (hold_ns > HOLD_MAX_NS)
				hold_ns = HOLD_MAX_NS;
			until_ns = now.wall_ns + hold_ns;
			is_promoted = class_set(caller.worker_tid, SCHED_OTHER) == 0;
		} else if (is_promoted && now.wall_ns > until_ns) {
			is_promoted = class_set(caller.worker_tid, SCHED_IDLE) != 0;
		}
		before = now;
	}
}

int null_loop_caller(struct fuse_session *se)
{
	static const struct fuse_custom_io io = { .read = io_read, .writev = io_writev };
	pthread_t watcher;
	int rc = fuse_session_custom_io(se, &io, fuse_session_fd(se));

	if (rc)
		return rc;
	caller.se = se;
	caller.cpu = -1;
	caller.worker = pthread_self();
	caller.worker_tid = gettid();
	rc = -pthread_create(&watcher, NULL, class_probe, &caller.may_idle);
	if (rc)
		return rc;
	pthread_join(watcher, NULL);
	if (!caller.may_idle) {
		work();
		return 0;
	}
	rc = -pthread_create(&watcher, NULL, watch, NULL);
	if (rc)
		return rc;
	class_set(0, SCHED_IDLE);
	work();
	class_set(0, SCHED_OTHER);
	pthread_cancel(watcher);
	pthread_join(watcher, NULL);
	return 0;
}
