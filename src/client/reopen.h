/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Files whose daemon has ended. The descriptor that the application gave is of a mount that will never answer again: when the pool is mounted the next time the library opens
 * the file there for itself, and goes on with that one. See docs/decisions/2026-11-22-next-daemon.md.
 */
#ifndef UMBRA_CLIENT_REOPEN_H
#define UMBRA_CLIENT_REOPEN_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/file.h"
#include "util/util.h"

/* To be used for all calls of the kernel's: the application's descriptor, or that of our own. */
int file_fd(const struct umbra_file *f);

/* An error that says so of the mount. Whoever is in a call when the daemon ends gets another one than who comes later. */
static inline bool mount_is_gone(int rc)
{
	return rc == -ENOTCONN || rc == -ECONNABORTED || rc == -ECANCELED;
}

/* Whether the daemon of the mount that fd is on has ended. */
bool fd_is_dead(int fd);

/*
 * Opens it at the next mount of its pool, where that is needed. Between holding_begin() and holding_end(). -ENOTCONN: not now; -ESTALE: there is no such
 * file any more.
 */
must_check int file_reopen(struct umbra_file *f);

/*
 * After rc, an error: has the daemon ended? 1: no. 0: it has, and the call is to be tried again (this has waited for a moment); else the error that it comes to. With no lock held.
 */
must_check int file_away(struct umbra_file *f, int rc);

/* 1: fd is an open of the file of the holding (same pool, number and generation), 0: it is not. -errno: it cannot be told now. */
must_check int file_is_same(const struct home *home, uint64_t ino, uint64_t generation, int fd);

/* Mappings that have become the kernel's, of files whose daemon has ended: what the kernel has of them is not shown any more. By a thread that may wait. */
void mappings_take_back(void);
/* The same, of now. Whether there are some of files whose daemon has not. */
bool mappings_take_back_dead(void);

#endif
