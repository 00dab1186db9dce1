/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An io_uring for commands to a device: pushing them, waiting for their completions. Nothing else that io_uring can do.
 *
 * ring_push() and ring_pop() need a lock of the caller's, one for the ring. ring_enter() does not, so that one thread can wait while others push
 * and submit. A command belongs to the thread that submits it: what the kernel does with it later, it does in that thread, waking it
 * up if need be; and it is cancelled when that thread ends.
 */
#ifndef UMBRA_FUSE_RING_H
#define UMBRA_FUSE_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "util/util.h"

#define RING_COMMAND_SIZE 80u

struct ring {
	int fd; /* -1: not open */
	void *map, *entries;
	size_t map_bytes, entries_bytes;
	_Atomic unsigned *sq_head, *sq_tail, *cq_head, *cq_tail;
	unsigned sq_mask, cq_mask, sq_count;
	void *completions;
};

struct ring_command {
	int fd; /* of the device */
	uint32_t op;
	uint64_t tag;            /* comes back with the completion */
	const struct iovec *iov; /* two of them, or NULL; looked at when it is submitted */
	const void *bytes;       /* at most RING_COMMAND_SIZE */
	size_t bytes_size;
};

/* For up to so many commands that are pushed and not submitted. -errno */
must_check int ring_open(struct ring *ring, unsigned commands, unsigned completions);
/* Also one that is not open. */
void ring_close(struct ring *ring);

/* False: too many that are not submitted. */
must_check bool ring_push(struct ring *ring, const struct ring_command *command);
/* False: there is none. */
must_check bool ring_pop(struct ring *ring, uint64_t *tag, int *result);
/* Whether there is a completion. Any thread. */
bool ring_is_ready(const struct ring *ring);

/* Submits what has been pushed; then, if that is wanted, waits for a completion. -EINTR: a signal came. */
int ring_enter(struct ring *ring, bool wait);
/* Submits all that has been pushed before the call, however often it takes. */
must_check int ring_submit(struct ring *ring);

#endif
