/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory for what is made and freed while somebody waits in a fault, by himself or by the listener that answers him. A signal handler may have come within malloc(), whose locks the thread then has, and may touch a
 * mapping: so none of that is malloc()'s. What has been used stays for the next one, but for very large pieces.
 */
#ifndef UMBRA_CLIENT_MEMORY_H
#define UMBRA_CLIENT_MEMORY_H

#include <stddef.h>

#include "util/util.h"

/* A sanitizer knows more of malloc()'s: in its builds all of it is that. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MEMORY_IS_WATCHED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define MEMORY_IS_WATCHED
#endif
#endif

/* Not cleared, for any type. NULL: there is none. */
must_check void *memory_get(size_t size);
/* The same, all zeroes. */
must_check void *memory_get_clear(size_t size);
/* NULL: nothing happens. */
void memory_put(void *at);

/* Around fork(), after all other locks. */
void memory_fork_prepare(void);
void memory_fork_end(void);

#endif
