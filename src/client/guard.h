/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Copies from and to the device that end, instead of the process, when they meet bad memory. Only for addresses in mappings that are known here; all
 * other SIGBUS go to whom the application has set for them. An application that sets its handler later should pass on what it does not know.
 */
#ifndef UMBRA_CLIENT_GUARD_H
#define UMBRA_CLIENT_GUARD_H

#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/util.h"

/* Takes SIGBUS, if it is somebody else's. -errno. */
must_check int guard_install(void);
/* Takes SIGSEGV, for guard_copy_user(). -errno. */
must_check int guard_install_user(void);
/* SIGSEGV too: for mappings of the application's. */
must_check int guard_install_mappings(void);
/*
 * What the handlers do, for who has taken the signals by other means: true if the access goes on (or comes again), false if it is not ours. All signals are
 * blocked meanwhile. May not return.
 */
bool guard_take(int sig, siginfo_t *info, void *context);
/*
 * For who keeps the application's actions for SIGBUS and SIGSEGV from the system: as sigaction(2), of what the application has and gets. Its handlers are called with the
 * mask and the flags that it asked for, but for SA_ONSTACK and SA_RESTART, which are always so.
 */
must_check int guard_action(int sig, const struct sigaction *new, struct sigaction *old);
/* Both signals stay open while handlers of the application run. Set before main(). */
extern bool guard_never_blocked;
/* True: one that was sent, and is not for now. NULL: nobody puts any off. Set before main(). */
extern bool (*guard_put_off)(int sig, const siginfo_t *info);
/* Around a handler that may have come within a copy: it may make copies too, or jump out. */
struct guard *guard_aside(void);
void guard_back(struct guard *g);
/* Around fork(). */
void guard_fork_prepare(void);
void guard_fork_end(void);
/* -EMFILE: too many. */
must_check int guard_add(const uint8_t *base, uint64_t len);
void guard_remove(const uint8_t *base);

/* How bytes are copied: memcpy(), or store_bytes(). */
typedef void (*guard_copy_fn)(void *dst, const void *src, size_t len);
/* Not within another one of the same thread, but for guard_aside(). False: it has ended at *fault (which may be NULL). */
must_check bool guard_copy(guard_copy_fn copy, void *dst, const void *src, size_t len, const uint8_t **fault);
/* The same where one side, user, is memory of the application that may be bad, wherever it points: ends there too, if guard_install_user() was called. */
must_check bool guard_copy_user(guard_copy_fn copy, void *dst, const void *src, size_t len, const void *user,
				const uint8_t **fault);
/* The same outside of sections, and without locks: what is missing there of the application's mappings comes into place. */
must_check bool guard_copy_placing(guard_copy_fn copy, void *dst, const void *src, size_t len,
				   const void *user, const uint8_t **fault);

#endif
