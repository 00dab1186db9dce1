/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A process that keeps a mount while its daemon is replaced (-o keeper).
 *
 * It starts the daemon as a child and does nothing but wait for it. The daemon mounts, and sends it descriptors: the connection to the kernel, so that the
 * mount goes on when the daemon ends; the pool's, with its lock; the memory of fuse/kept.h. When the daemon is killed, or ends to make room for
 * another program (umbractl upgrade), the keeper starts the next one, which finds them under fixed numbers. It maps only the head of that memory, where it
 * notes what came of it.
 *
 *	keeper				daemon
 *	start ------------------------> opens the pool, mounts
 *	keeps descriptors <------------ MOUNTED
 *	tells whoever waits <---------- UP: it answers
 *	start with descriptors -------> takes over: fuse/resend.h
 *					...
 *	ends  <------------------------ ends with status 0: it has been unmounted
 */
#ifndef UMBRA_DAEMON_KEEPER_H
#define UMBRA_DAEMON_KEEPER_H

#include <limits.h>
#include <stdbool.h>

#include "daemon/background.h"
#include "util/util.h"

/* The status of a daemon that another program is to take over from. */
#define KEEPER_STATUS_UPGRADE 75

/* In the daemon: what its keeper has given it. */
struct keeper_child {
	int control;    /* to the keeper; -1: there is none */
	bool is_taking; /* the rest is there */
	int memory, connection, pool;
};

/* Whether a keeper has started this process. Once, before any descriptor is opened. */
bool keeper_child(struct keeper_child *child);
/* Of a mount that has just been made. -errno */
must_check int keeper_mounted(const struct keeper_child *child, int memory, int connection, int pool);
/* Of a mount that answers. -errno: nobody is there who would take over, which is logged. */
int keeper_up(const struct keeper_child *child);
/* It has not ended. */
bool keeper_is_there(const struct keeper_child *child);
/* Before it ends with KEEPER_STATUS_UPGRADE. -errno: it must not, nobody would start another one. */
must_check int keeper_upgrade(const struct keeper_child *child, const char *program);

/* Is the keeper, to the end of the mount: the exit status. bg and dir are those of the mount, foreground: bg is not in use. */
int keeper_run(char **argv, struct background *bg);

#endif
