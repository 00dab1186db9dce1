/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A process whose main thread has ended by pthread_exit() ends with its last thread. The threads of the library must not be that: so from then on one of them looks
 * whether there are others, and ends the process as the last one of the application would have done.
 */
#ifndef UMBRA_CLIENT_LAST_H
#define UMBRA_CLIENT_LAST_H

/* By a thread of ours: it has begun, it is about to end. In between it counts; a little too short, since a program that is ended too early is worse. */
void last_thread_begins(void);
void last_thread_ends(void);
/* In a child, which has one thread. */
void last_fork_child(void);

#endif
