/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests that wait until those who map a file directly have let go of pages of it (fs/lend.c). One of them may not answer for as long as revoke_ms, and as many requests may wait for that as there are processes: if all
 * were on workers nobody would be left who answers the others.
 *
 * So one request at a time waits where it is, which costs no other thread. Each other one goes to a thread for its file, which carries out what waits for that file one by one, and ends.
 */
#ifndef UMBRA_FUSE_ASKS_H
#define UMBRA_FUSE_ASKS_H

#include <stdbool.h>
#include <stdint.h>

#include "fuse/defer.h"
#include "util/util.h"

struct asks;

/* here: whether one may wait where it is, since there are other workers. */
must_check int asks_open(bool here, struct asks **out);
/* True: the caller may wait where it is, and says when it has. */
must_check bool asks_here(struct asks *asks);
void asks_here_end(struct asks *asks);
/* Carried out by the thread of the file. False: there is none, or asks are closed: nothing was taken. */
must_check bool asks_add(struct asks *asks, uint64_t ino, struct defer_work *work);
/* Finishes what was taken, takes no more, frees it. May be NULL. */
void asks_close(struct asks *asks);

#endif
