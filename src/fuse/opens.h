/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opens that are not what they were answered to be.
 *
 * Those through the page cache whose processes speak of direct mappings do not count against those who want to store directly. Such an open comes in when a token is made for it. It
 * is excused while somebody has its file attached by such a token.
 *
 * Those that bypass the page cache, but have pages all the same, for a mapping or a splice, do count. Such an open comes in with the first page that is read for it while the file is stored to.
 *
 * Both go when they are closed.
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
void opens_add(struct opens *opens, uint64_t ino, uint64_t open, bool writes);
/* A page is read for one that bypasses the page cache. True: for the first time. Without memory it is left out, and does not count. */
bool opens_add_pages(struct opens *opens, uint64_t ino, uint64_t open);
/* Before it is closed. Whether it came in by opens_add_pages(). */
bool opens_remove(struct opens *opens, uint64_t open);

/* By as many attached files. False: it has been closed, or was never added. */
bool opens_excuse(struct opens *opens, uint64_t open);
/* True: it counts again. */
bool opens_accuse(struct opens *opens, uint64_t open);
/* How many of the file are excused; only of those that write. */
uint32_t opens_excused(struct opens *opens, uint64_t ino, bool writes);

#endif
