/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opens through the page cache whose processes speak of direct mappings: they do not count against those who want to store directly.
 *
 * An open comes in when a token is made for it and goes when it is closed. It is excused while somebody has its file attached by such a token.
 */
#ifndef UMBRA_FUSE_OPENS_H
#define UMBRA_FUSE_OPENS_H

#include <stdbool.h>
#include <stdint.h>

#include "util/util.h"

struct opens;

must_check int opens_new(struct opens **out);
void opens_free(struct opens *opens); /* may be NULL */

/* A token names it. Without memory it is left out, and counts. */
void opens_add(struct opens *opens, uint64_t ino, uint64_t open);
/* Before it is closed. */
void opens_remove(struct opens *opens, uint64_t open);

/* By as many attached files. False: it has been closed, or was never added. */
bool opens_excuse(struct opens *opens, uint64_t open);
/* True: it counts again. */
bool opens_accuse(struct opens *opens, uint64_t open);
/* How many of the file are excused. */
uint32_t opens_excused(struct opens *opens, uint64_t ino);

#endif
