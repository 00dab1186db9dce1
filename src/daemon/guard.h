/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A process that ends the connection of a mount without a keeper when its daemon is killed.
 *
 * The kernel does so itself when nobody has the connection's descriptor any more. But a thread that has the kernel drop pages may wait there for a READ that
 * the daemon had taken: it cannot be killed, has the descriptor, and waits for what only the end of the connection would end. Whoever uses the mount
 * would hang with it, and hear no ENOTCONN.
 *
 * The guard is a child of the daemon's main thread, which is never in such a call: the kernel sends it a signal when that thread ends, whatever becomes of others. It has
 * nothing open but the kernel's file that ends the connection (fusectl.h), no part in the pool, and is forked before there is anything that would be copied. If it is
 * killed nothing else happens.
 */
#ifndef UMBRA_DAEMON_GUARD_H
#define UMBRA_DAEMON_GUARD_H

#include <sys/types.h>

#include "util/util.h"

struct guard {
	pid_t pid; /* 0: there is none */
	int fd;    /* to it; -1: it has been told all */
};

/* Before options are parsed: where this process's arguments lie, which are what ps(1) shows of a process. */
void guard_title_room(int argc, char **argv);

/*
 * By the main thread, before there are others. dir: for its title. Where it cannot be had the mount is as good as any; nobody ends its
 * connection.
 */
void guard_start(struct guard *guard, const char *dir);
/* Of the mount that has just been made; before requests are read. */
void guard_watch(struct guard *guard, unsigned dev_minor);
/* The connection is gone, or will be. */
void guard_end(struct guard *guard);

#endif
