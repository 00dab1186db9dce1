/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A program of the operator's that is run for each event of bad memory (on_event=), with the event as a line of JSON on its standard input.
 */
#ifndef UMBRA_FUSE_HOOK_H
#define UMBRA_FUSE_HOOK_H

#include <stddef.h>

#include "util/util.h"

struct session;
struct hook;

/* Whether it can be run: an absolute path of a file that can be executed. -errno: one line in why. */
must_check int hook_check(const char *command, char *why, size_t why_size);

/* A thread that runs it for all events of the session from the first one on. command must outlive it. */
must_check int hook_start(struct session *session, const char *command, struct hook **out);
/* Waits a second for what is under way and for what is still to be told. A program that goes on is left alone. NULL is fine. */
void hook_stop(struct hook *hook);

#endif
