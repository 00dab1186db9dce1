/* SPDX-License-Identifier: BSD-3-Clause */
/* Stores that are durable when they return, by libpmem, which is loaded when it is first needed: it brings more with it than most programs want. */
#ifndef UMBRA_CLIENT_STORE_H
#define UMBRA_CLIENT_STORE_H

#include <stdbool.h>
#include <stddef.h>

/* Whether there is a libpmem. Before the first store_bytes(). */
bool store_load(void);
/* Under a guard: loads and locks nothing. */
void store_bytes(void *dst, const void *src, size_t len);
/* What is in the processor's caches of it is durable when this returns. As store_bytes(). */
void store_flush(const void *at, size_t len);

#endif
