/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What bad memory does to files, for the kernel, the log and whoever asks: cached pages of what is lost are dropped, a line for the operator is
 * written, the last events are kept.
 */
#ifndef UMBRA_FUSE_EVENTS_H
#define UMBRA_FUSE_EVENTS_H

#include <stdint.h>

#include <umbra/ioctl.h>

#include "fs/fs.h"
#include "fuse/defer.h"
#include "util/util.h"

struct session;
struct events;

must_check int events_new(struct session *session, struct events **out);
void events_free(struct events *events);

/* For fs_on_poison(): any thread, with no transaction open. Tells the kernel from a deferred thread. */
void events_note(void *events, const struct fs_poison *poison);

/* Around taking a range out of use: blocks in a row that were nobody's are one line of the log, until the end of it. */
void events_join(struct events *events, bool begin);

struct event {
	uint64_t number, time_ns;
	struct fs_poison poison;
};
/*
 * At most max events after that number; *missed: how many in between are no longer kept. *from: the number, or the last one there is if that is less (it
 * is of an earlier mount). Returns how many.
 */
unsigned events_get(struct events *events, uint64_t after, struct event *list, unsigned max, uint64_t *missed,
		    uint64_t *from);

/* What is told of it to others, without its path. */
struct umbra_event event_record(const struct event *event);
/* An eventfd that gets 1 with each event from now on; -1: no more. */
void events_notify(struct events *events, int fd);

/* Since the mount. */
struct event_counts {
	uint64_t bad_blocks, lost_blocks, lost_bytes, zeroed_blocks, zeroed_bytes;
};
void events_count(struct events *events, struct event_counts *counts);

#endif
