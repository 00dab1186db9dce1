/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Threads that read requests from /dev/fuse and carry them out: so many as the mount was told, and stand-ins.
 *
 * A request may have to wait for a process that maps the file directly, for as long as revoke_ms. While all who read wait so, stand-ins read: other files' requests do not wait for that process. A
 * stand-in is started when the first one is needed, and parked when it is not.
 */
#ifndef UMBRA_FUSE_WORKERS_H
#define UMBRA_FUSE_WORKERS_H

#include <stdbool.h>

#include "fuse/ops.h"

/* Memory of all workers, those of rings included. */
must_check int workers_alloc(struct session *session);
void workers_free(struct session *session);
must_check int workers_start(struct session *session);
/* Interrupts those that read. */
void workers_kick(struct session *session);
/* All have ended, or do so by themselves. */
void workers_join(struct session *session);
/* On a thread that carries out requests, but none of a ring; around a wait for who maps a file. */
void workers_wait(struct session *session, bool begins);

#endif
