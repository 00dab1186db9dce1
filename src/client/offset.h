/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Calls that move the offset of a description: read(), write() and their kin. The offset is the kernel's, at any time: other descriptors have it too, in other processes, and so have
 * calls that nobody sees here. lseek(2) moves it by a number of bytes in one step and says where it was: whoever moves it has those bytes for himself.
 *
 * What this process believes where it is saves a call, and is never relied on.
 */
#ifndef UMBRA_CLIENT_OFFSET_H
#define UMBRA_CLIENT_OFFSET_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "util/util.h"

struct umbra_file;

/* Of one descriptor */
struct offset {
	pthread_mutex_t lock; /* around a call, as the kernel has one in the description */
	int64_t at;           /* where it was left; -1: not known */
	int64_t end;          /* the file may be that long, if more is not known */
	bool moved;           /* by somebody else, at times: it is asked for first */
	bool by_kernel;       /* for good */
};

struct offset_call {
	int fd;
	struct umbra_file *file; /* of fd, while this lasts */
	struct offset *offset;
	const struct iovec *parts;
	int count;
	size_t size; /* of all parts: 1 to what the kernel does in one call */
	int flags;   /* of preadv2(), pwritev2() */
	bool store;
};

void offset_init(struct offset *o);
/* As the system call, with errno. *by_others: it is the kernel's, since somebody else moves the offset. */
must_check ssize_t offset_call(const struct offset_call *c, bool *by_others);
/* lseek(2). */
must_check off_t offset_seek(int fd, struct offset *o, off_t off, int whence);

#endif
