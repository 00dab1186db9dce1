/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests over io_uring instead of /dev/fuse: a queue for each core, its requests answered on that core. See uring.c.
 *
 * /dev/fuse stays: INIT, FORGET and INTERRUPT come over it, and everything if the kernel does not take the queues. The calls, in this
 * order: uring_open() before the mount, uring_start() before INIT is answered, uring_go() after that, uring_end(), uring_close().
 */
#ifndef UMBRA_FUSE_URING_H
#define UMBRA_FUSE_URING_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

#include "util/util.h"

struct session;
struct uring;
struct uring_seat;
struct worker;

/* Makes the rings, without the kernel's FUSE knowing of them. -errno: it cannot be had; one line in why. */
must_check int uring_open(struct session *session, struct uring **out, char *why, size_t why_size);
/* How many workers it wants, and which they are; each has a seat from then on. */
unsigned uring_workers_count(const struct uring *uring);
void uring_workers_set(struct uring *uring, struct worker *workers);

/* Starts the threads, which wait. */
must_check int uring_start(struct uring *uring);
/*
 * Once INIT is answered the kernel holds all requests back until it has the queues. Hands them to it, or -errno and one line in why: then requests
 * come over /dev/fuse.
 */
must_check int uring_go(struct uring *uring, char *why, size_t why_size);
/* Instead of uring_go(): there will be no queues. An entry that the kernel has to refuse tells it so. */
void uring_refuse(struct uring *uring);

/* By a thread that serves rings, around a wait for who maps a file: there is a spare then, if possible, who takes over its ring. */
void uring_wait(struct uring *uring, struct uring_seat *seat, bool begins);

/* Takes a reply to a request that came over a ring; false: it did not. Any thread. */
bool uring_reply(struct uring *uring, const struct iovec *iov, int count);

/* Ends the threads: the connection is dead, or nothing came of uring_go(). Requests under way are finished first. */
void uring_end(struct uring *uring);
void uring_close(struct uring *uring);

/* The numbers in a list like "0-3,8", or -1: cannot be read, or they do not begin at 0 and go on without a gap. */
int uring_cores_parse(const char *list);

#endif
