/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests that are asked again (resend.c), carried out: one after the other, in the order in which they came, before any new one.
 *
 * But one that has to wait for who maps a file (fs/holders.h) waits aside: the next ones go on, and when none is left to be begun, new ones do. For a process may let go only when it has been answered itself: a
 * thread of it that unmaps pages of the kernel's, or touches them, has the lock of its address space until the READ or WRITE of them has been answered. Such a request has done nothing yet, and it
 * takes no lock along.
 *
 * A request at which a daemon has ended again and again is answered with EIO. That it waits while a daemon ends says nothing against it.
 */
#ifndef UMBRA_FUSE_CARRY_H
#define UMBRA_FUSE_CARRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/util.h"

struct session;
struct worker;
struct carry;

struct again {
	struct again *next;
	size_t size;
	_Alignas(8) char bytes[]; /* as the kernel has sent it */
};

/* Whether there may be one that is sent again behind it: these are read before all others, in any order. */
struct fuse_in_header;
bool carry_is_aside(const struct fuse_in_header *in);

/*
 * Carries out all from *first on, which are its own then (*first is NULL), and comes back when new ones may be carried out. uniques: of those that are sent again, without the kernel's mark; gets sorted.
 * *out, also on errors, is for carry_close().
 */
must_check int carry_all(struct session *session, struct again **first, uint64_t *uniques, size_t count,
			 struct carry **out);
/* On a thread that carries them out (worker->carry): around a wait for who maps a file. */
void carry_wait(struct worker *worker, bool begins);
/* Waits for those that still wait. NULL is fine. */
void carry_close(struct carry *carry);

#endif
