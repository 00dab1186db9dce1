/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory of the application that lies in its mappings (mapping.h), for system calls. Pages that are not in place, or cannot be stored to yet, are EFAULT to the kernel, which may have taken the
 * bytes out of a pipe or a socket by then; and what is in place may be revoked at any moment. So such calls are made with a copy of that memory.
 *
 * None of this under client_lock, in a section, or in a handler that has interrupted the library.
 */
#ifndef UMBRA_CLIENT_USER_MEMORY_H
#define UMBRA_CLIENT_USER_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "util/util.h"

/* Whether there are any mappings at all; whether any lies there. */
bool user_memory_exists(void);
bool user_memory_at(const void *at, size_t len);
bool user_memory_in(const struct iovec *parts, int count);

/* How many of the bytes from at on are there, in place now, and may be stored to where that is wanted. */
must_check size_t user_memory_touch(void *at, size_t len, bool store);
/* A string, of which the kernel reads no more than len_max bytes: it is in place now. */
must_check bool user_memory_string(const char *at, size_t len_max);
/* False: what is there cannot be read, or stored to. */
must_check bool user_memory_get(void *dst, const void *user, size_t len);
must_check bool user_memory_put(void *user, const void *src, size_t len);

/* A system call, or a part of one after so many bytes done: how many it did, or -1 with errno. */
typedef ssize_t (*user_call_fn)(void *arg, void *buf, size_t len, size_t done);
/*
 * Makes a call whose buffer is all of the parts. store: the kernel stores to it. whole: one call for all of it, where the bytes are no stream; else several, until one does less.
 */
ssize_t user_memory_call(const struct iovec *parts, int count, bool store, bool whole, user_call_fn call,
			 void *arg);

#endif
