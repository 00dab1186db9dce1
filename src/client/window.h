/* SPDX-License-Identifier: BSD-3-Clause */
/* How much of what is shared is copied around a page that is stored to. */
#ifndef UMBRA_CLIENT_WINDOW_H
#define UMBRA_CLIENT_WINDOW_H

#include <stdint.h>

#include <umbra/direct.h>

#define COPY_MIN (64u << 10)
#define COPY_REGION (2u << 20)
#define COPY_MAX UMBRA_MAP_WRITE_MAX

/* Of one file: all zero at first. */
struct window_past {
	uint64_t number; /* of the file: no other has it */
	unsigned density;
};

/*
 * In bytes, a power of two from COPY_MIN to COPY_MAX: the window is the aligned range of that size around off. That it is asked for is noted. Under client_lock.
 */
uint64_t window_next(struct window_past *past, uint64_t off);

#endif
