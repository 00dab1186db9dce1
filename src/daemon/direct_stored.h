/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Files that may be stored to directly now, and whether they have been: their times follow the marks that processes leave in memory they share with us.
 */
#ifndef UMBRA_DAEMON_DIRECT_STORED_H
#define UMBRA_DAEMON_DIRECT_STORED_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <umbra/direct.h>

#include "fs/fs.h"
#include "util/util.h"

struct stored;
struct stored_ino;

/* One process that may store to one file; embedded in what the server has of it. */
struct stored_file {
	struct stored_ino *of; /* NULL: it may not */
	struct umbra_slot *slot;
	bool is_root; /* setuid and setgid stay */
	struct stored_file *next;
};

must_check int stored_new(struct fs *fs, struct stored **out);
void stored_free(struct stored *stored); /* may be NULL */

/* What stored_add() has found. */
struct stored_begun {
	bool is_ready; /* the kernel keeps nothing of it: somebody has said stored_ready(), and pieces may be granted until stored_granted() */
	bool is_new;   /* it was not added before */
	uint64_t stops;
};
/* From here on the file is stored to. -ENOMEM. */
must_check int stored_add(struct stored *stored, uint64_t ino, struct stored_file *file,
			  struct stored_begun *begun);
/* The kernel keeps nothing of it any more: as is_ready. False: it has been removed, or stores were stopped, meanwhile. */
bool stored_ready(struct stored *stored, struct stored_file *file, const struct stored_begun *begun);
/* The kernel still does: no more, if it is new and not ready all the same. */
void stored_refused(struct stored *stored, struct stored_file *file, const struct stored_begun *begun);
/* One grant is over. */
void stored_granted(struct stored *stored, uint64_t ino);
/*
 * Nobody is ready any more; waits for the grants that have begun. With no lock held. only: if that file is the only one (else any will do). False: there is
 * nothing to be stopped.
 */
bool stored_stop(struct stored *stored, uint64_t ino, const struct stored_file *only);
/* Nobody is ready any more; grants that have begun go on. */
void stored_unready(struct stored *stored, uint64_t ino);
/* No more. Its mark is looked at before. Does nothing if it was not added. */
void stored_remove(struct stored *stored, uint64_t ino, struct stored_file *file);

/* Takes a lock only if there is some file. */
bool stored_has(struct stored *stored, uint64_t ino);
bool stored_is_any(struct stored *stored);
/* Moves the times of the file if it has been stored to; of all. Calls the file system. */
void stored_look(struct stored *stored, uint64_t ino);
void stored_look_all(struct stored *stored);

#endif
