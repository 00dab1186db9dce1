/* SPDX-License-Identifier: BSD-3-Clause */
/* Lists of parts, as preadv() and its kin have them. */
#ifndef UMBRA_CLIENT_PRELOAD_PARTS_H
#define UMBRA_CLIENT_PRELOAD_PARTS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "util/util.h"

#define PARTS_MAX 16 /* more are the kernel's */
#define PARTS_BYTES_MAX 0x7ffff000u

/* A copy of the list, with less than the kernel does in one call. False: the kernel says what is wrong with it, if anything. */
must_check bool parts_get(struct iovec parts[PARTS_MAX], const struct iovec *iov, int count);

/* At the offset of the description. False: it is the kernel's. */
must_check bool parts_here(int fd, const struct iovec *iov, int count, int flags, bool store, ssize_t *rc);

/*
 * Data calls whose memory is a mapping of the library's (user_memory.h). True: it has been done, with *rc and errno. off: -1 is that of the description.
 */
must_check bool mapped_one(int fd, void *buf, size_t size, off_t off, bool store, ssize_t *rc);
must_check bool mapped_parts(int fd, const struct iovec *iov, int count, off_t off, int flags, bool store,
			     ssize_t *rc);

/*
 * Data calls whose memory lies in mappings of the library's (user_memory.h). store: to the file. off: -1 is that of the description. True: done, with *rc and errno.
 */
must_check bool mapped_one(int fd, void *buf, size_t size, off_t off, bool store, ssize_t *rc);
must_check bool mapped_parts(int fd, const struct iovec *iov, int count, off_t off, int flags, bool store,
			     ssize_t *rc);

#endif
