/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What another process shows of a daemon that comes to its end, or does not: threads that wait in the kernel keep a process of which nothing else is left.
 */
#ifndef UMBRA_DAEMON_PROCESS_H
#define UMBRA_DAEMON_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

/* It runs no more of its program, but for what its threads are at in the kernel: its main thread has ended, or it is writing core (or about to, which waits for all threads). */
bool process_is_over(pid_t pid);
/* Of such a one: no thread does anything that would come to its end by itself, as giving back memory does. */
bool process_is_stuck(pid_t pid);

#endif
