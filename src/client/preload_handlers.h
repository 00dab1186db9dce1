/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Handlers of an unmodified program for all signals but SIGSEGV and SIGBUS (guard.h): they never run within a data call of its thread. A section that waits for a handler would be waited for by
 * whoever takes something out of use, and the handler, when it touches a mapping or calls the daemon's kernel, by that one's answer. Nor can a handler jump out of a call then.
 */
#ifndef UMBRA_CLIENT_PRELOAD_HANDLERS_H
#define UMBRA_CLIENT_PRELOAD_HANDLERS_H

#include <signal.h>
#include <stdbool.h>

#include "util/util.h"

/* Before main(), when data calls can be direct: what libraries have set before is taken over. */
void handlers_begin(void);
/* As sigaction(2): what the program has and gets. */
must_check int handlers_action(int sig, const struct sigaction *new, struct sigaction *old);

/* Out of the set: faults, whose handlers run at once wherever they come; abort(3) is one. */
void handlers_keep_faults(sigset_t *set);

/* A signal of this thread has been put off: all are blocked until handlers_release(). */
extern __thread bool handlers_wait __attribute__((tls_model("initial-exec")));
/* After a call, outside of any other: what has been put off comes now, before this returns. */
void handlers_release(void);

#endif
