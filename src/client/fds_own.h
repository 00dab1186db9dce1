/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The library's own descriptors, which the program does not have: far up, out of the way of programs that close, or take, descriptors by number.
 *
 * Those of files that are mapped (client_calls.fd_dup) have one more trait: a process that closes any descriptor of a file loses its record locks of it. So while it has
 * some they are not closed, but kept until the program itself closes a descriptor of that file, which ends the locks anyway.
 */
#ifndef UMBRA_CLIENT_FDS_OWN_H
#define UMBRA_CLIENT_FDS_OWN_H

#include <stdbool.h>

#define FDS_MAX 65536u

void own_init(void);
/* A copy of fd, or -1: there is no room. */
int own_copy(int fd);
bool own_is(int fd);
/* The lowest from first on; UINT_MAX: none. */
unsigned own_from(unsigned first);

/* Whether own_lock_ends() may have something to do. */
bool own_has_locks(void);
/* The program takes a record lock by fd. */
void own_lock_taken(int fd);
/* The program's fd is about to be closed, or those from first to last. */
void own_lock_ends(int fd);
void own_locks_end(unsigned first, unsigned last);

/* Around fork(); a child has no record locks. */
void own_fork_prepare(void);
void own_fork_parent(void);
void own_fork_child(void);

#endif
