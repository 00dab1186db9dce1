/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the parts of the transport over io_uring share (uring.c). No other file includes it but its tests.
 */
#ifndef UMBRA_FUSE_URING_PRIV_H
#define UMBRA_FUSE_URING_PRIV_H

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#include "fuse/ring.h"
#include "fuse/uring.h"
#include "fuse/uring_wire.h"

#define URING_DEPTH 4u /* entries of a queue that are not held */

enum stage { STAGE_WAIT, STAGE_PROCESS, STAGE_REPLIED };

struct entry {
	struct entry *next; /* in uring->entries */
	struct queue *queue;
	struct uring_head *head;
	char *payload;
	struct iovec iov[2];
	_Atomic uint64_t unique; /* of the request in it, 0: answered, or the kernel has it */
	bool is_new;             /* nothing has come back yet */
	bool is_held;            /* (ring lock) */
	struct entry *posted;    /* (post lock) the next one for the courier */
};

struct queue {
	struct core_ring *on;
	uint16_t number;
	unsigned entries_count, held_count; /* (ring lock) */
};

/* Whether somebody reads a stream. (uring_watch.c) */
struct stream {
	unsigned score;
	bool is_loose; /* the leader runs on any core */
};

struct core_ring {
	struct ring ring;
	int cpu; /* -1: any */
	pthread_mutex_t lock;
	struct uring_seat *_Atomic leader; /* changed under lock and uring->lock */
	struct queue *queues;
	unsigned queues_count;
	int refusal; /* the leader's: what the kernel said to an entry */
	/* the watcher's */
	const struct uring_seat *seen_leader;
	unsigned seen_count;
	uint64_t seen_cpu_ns;
	unsigned quiet_count;            /* ticks without requests */
	_Atomic bool is_idle;            /* the leader is SCHED_IDLE; read by it, too */
	uint64_t lift_ns, lift_until_ns; /* it was starved: not before then again */
	unsigned seen_streamed_count;
	struct stream stream;
};

/* What is not atomic and not (lock) is the thread's own. */
struct uring_seat {
	struct uring *uring;
	struct worker *worker;
	struct core_ring *on;        /* (uring lock) that it is to lead; NULL: spare */
	char *buf;                   /* the worker's own, for replies */
	struct entry *_Atomic entry; /* that it is at */
	bool is_replied;
	bool is_full; /* instead: there was no space, perhaps not for long */
	bool may_wait;
	unsigned plain_count;   /* so many times it waits at once when it has replied (uring_lead.c) */
	unsigned plain_limit;   /* what it was last */
	_Atomic bool is_roused; /* by the watcher: it had replied, and got no time since */
	bool waits;             /* (uring lock) for who maps a file */
	clockid_t clock;        /* its CPU time; set before tid */
	_Atomic pid_t tid;      /* 0: it has not begun */
	_Atomic int stage;
	_Atomic unsigned requests_count;
	_Atomic unsigned streamed_count; /* large reads that went on */
	uint64_t read_end_bytes;         /* of the last large one */
};

enum state { STATE_READY, STATE_GO, STATE_REFUSED, STATE_ENDED };

struct uring {
	struct session *session;
	cpu_set_t cpus; /* that this process may use */
	struct queue *queues;
	unsigned queues_count;
	struct core_ring *rings;
	unsigned rings_count;
	struct entry *_Atomic entries; /* all there ever were */

	pthread_mutex_t lock;
	pthread_cond_t changed;
	_Atomic int state;
	unsigned turn; /* (lock) the ring that registers */
	int refusal;   /* (lock) */
	struct uring_seat *seats;
	unsigned seats_count, started_count; /* the second under the lock, once there are requests */
	pthread_attr_t attr;                 /* of threads that are started later */

	pthread_mutex_t post_lock;
	pthread_cond_t post_changed;
	struct entry *posts; /* (post lock) */
	pthread_t courier, watcher;
	bool has_courier, has_watcher;
	sem_t bell;
	_Atomic bool is_asleep; /* the watcher, until the bell rings */
};

static inline bool uring_is_ended(struct uring *uring)
{
	return atomic_load_explicit(&uring->state, memory_order_acquire) >= STATE_REFUSED;
}

/* ---- uring_entry.c ---- */

/* NULL: no memory. */
struct entry *uring_entry_new(struct queue *queue);
void uring_entry_free(struct entry *entry);

/* (ring lock) One more; false: no memory. The caller submits it. */
must_check bool uring_entry_add(struct uring *uring, struct queue *queue);
/* (ring lock) Keeps enough of them from being held. The caller submits them. */
void uring_entries_grow(struct uring *uring, struct queue *queue);
/* (ring lock) It is, if its request is still to be answered. */
void uring_entry_hold(struct entry *entry, uint64_t unique);

/* Puts a reply where the kernel fetches it. Its parts may lie in the payload already, the later ones where the earlier ones belong. */
void uring_entry_fill(struct entry *entry, const struct iovec *iov, int count);
/* Hands the reply that is in it to the ring. The caller submits it. */
void uring_entry_commit(struct uring *uring, struct entry *entry);
/* The request that is in it in one piece, as libfuse reads it. NULL: cannot be. */
char *uring_entry_join(struct entry *entry, size_t *size);

/* Whether the request in it is a large read that begins where the last large one ended: at *end_bytes, which it sets. */
bool uring_entry_goes_on(const struct entry *entry, uint64_t *end_bytes);

/* ---- threads; uring_lead.c, uring_watch.c ---- */

/* Binds a thread, 0: the calling one, to a core; -1: to none. */
void uring_pin(const struct uring *uring, pid_t tid, int cpu);

/* One more tick with requests: large reads that went on, or others alone. True: is_loose has changed. */
bool uring_stream_tick(struct stream *stream, bool goes_on);

void *uring_seat_run(void *seat);
void *uring_courier_run(void *uring);
void *uring_watch_run(void *uring);

#endif
