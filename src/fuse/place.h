/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where the workers run, and how many of them read requests: answers come from the caller's core.
 *
 * A round trip between two idle cores costs several times one on a single core, since each side must be woken by an interrupt. So
 * normally one worker, the *leader*, reads all requests on the core of the thread that asks; the others are parked and cost nothing. When
 * requests have to wait for it, all workers read, wherever the scheduler puts them (*spread*), for a while. See place.c for the rules.
 *
 * Each worker has a seat and calls, in this order: place_enter() once, then for each request place_took(), place_replied() (before the
 * reply is written; not if another thread will do that) and place_done(), which parks it while it is not needed; place_leave() once.
 */
#ifndef UMBRA_FUSE_PLACE_H
#define UMBRA_FUSE_PLACE_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>

#include "util/util.h"

struct place;
struct place_seat;
struct fuse_in_header;

/* Seats for count workers. want_caller false: always spread. */
must_check int place_open(unsigned count, bool want_caller, struct place **out);
/* After all workers have left. */
void place_close(struct place *place);

/* Starts the watcher of fd, the connection that the workers read. Without it everything is spread. */
void place_watch(struct place *place, int fd);

/* Whether answers come from the caller's core: asked for, and this process is of the ordinary scheduling class. */
bool place_at_caller(const struct place *place);

/* For threads that are started later, by whomever: like the calling one, and not like a worker, which may be pinned to a core and SCHED_IDLE. To be destroyed. */
must_check int place_attr(pthread_attr_t *attr);

struct place_seat *place_seat(struct place *place, unsigned index);

void place_enter(struct place_seat *seat);
void place_took(struct place_seat *seat, const struct fuse_in_header *in);
void place_replied(struct place_seat *seat);
void place_done(struct place_seat *seat);
void place_leave(struct place_seat *seat);

/*
 * The calling thread works long, in pieces: from now on it stays off the core of the leader, as long as there are others, since a leader does not get
 * a core that somebody else uses. One thread, which may call it again; it lives as long as the workers do.
 */
void place_apart(struct place *place);

/* For threads of others that are placed by the same rules: whether this process may make threads SCHED_IDLE and back; doing so. */
bool place_may_idle(const struct place *place);
void place_class(pid_t tid, bool is_idle);

/* Unparks all workers for good; they read, and see for themselves that the connection is gone or that they shall end. Any thread. */
void place_end(struct place *place);

#endif
