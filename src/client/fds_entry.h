/* SPDX-License-Identifier: BSD-3-Clause */
/* What is known of a descriptor, for those who do more than a call in one section: fds.c. */
#ifndef UMBRA_CLIENT_FDS_ENTRY_H
#define UMBRA_CLIENT_FDS_ENTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/offset.h"

struct fd_entry {
	struct umbra_file *file;
	_Atomic unsigned
		pins; /* calls that use it without a section: what would end the descriptor waits for them */
	struct offset offset;
	uint64_t dev, ino;
	int fd;                /* of those that are ending */
	const void *ended_by;  /* the thread */
	struct fd_entry *next; /* of all, or of those that are ending; under fds_lock */
};

/* Before all else. False: it is the kernel's. Until fds_done() calls in handlers of this thread are the kernel's. */
must_check bool fds_begin(int fd, bool store);
void fds_done(void);

/* With a pin more; NULL: it has no entry. */
struct fd_entry *fds_pin(int fd);
/* It has none yet. True: perhaps now. is_worth: before anything is changed, whether it is worth an entry. */
must_check bool fds_learn(int fd, bool (*is_worth)(int fd, size_t size, off_t off, bool store), size_t size,
			  bool store);

#endif
