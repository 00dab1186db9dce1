/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Going to the background so that whoever waits for the command learns how the start went.
 *
 * The process forks at once and starts up in the child, which still has the terminal; the parent waits until the child says that it is
 * up or ends, and exits with the child's status.
 */
#ifndef UMBRA_DAEMON_BACKGROUND_H
#define UMBRA_DAEMON_BACKGROUND_H

#include "util/util.h"

struct background {
	int fd; /* to the parent; -1: foreground */
};

/*
 * Returns in the child (0, or -errno in the only process). Before any thread is started. If the child dies of a signal the parent calls
 * died(arg) before it exits.
 */
must_check int background_start(struct background *bg, void (*died)(void *arg), void *arg);
/* Leaves the terminal and the working directory. */
void background_detach(void);
/* The child is up: leaves the terminal, and the parent exits with status 0. */
void background_up(struct background *bg);

#endif
