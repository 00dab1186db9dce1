/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Work that must not run on a worker: what tells the kernel to drop cached pages or names waits for pages whose READ or WRITE
 * is still to be answered, by a worker. A few threads of their own do it, holding no lock.
 */
#ifndef UMBRA_FUSE_DEFER_H
#define UMBRA_FUSE_DEFER_H

#include <stdbool.h>

#include "util/util.h"

struct defer;

/* One piece of work; embedded in what fn works on, which fn frees. */
struct defer_work {
	void (*fn)(struct defer_work *work);
	struct defer_work *next;
	struct txn_receipt *receipt; /* of the request (kept.h): goes along from thread to thread */
};

must_check int defer_open(unsigned threads, struct defer **out);
/*
 * The same for work that waits in the kernel and cannot be ended there: its threads have no descriptor but fd, so that all others are closed when the process ends, whatever becomes of the
 * threads. It logs nothing, and opens nothing.
 */
must_check int defer_open_alone(unsigned threads, int fd, struct defer **out);
/* False: closing, nothing was taken. */
must_check bool defer_add(struct defer *defer, struct defer_work *work);
/* Finishes what was taken, takes no more. The workers must still be running, or the connection dead. A second call does nothing. */
void defer_close(struct defer *defer);
void defer_free(struct defer *defer);

#endif
