/* SPDX-License-Identifier: BSD-3-Clause */
/* Which pieces are asked for, and how much around what is needed. */
#ifndef UMBRA_CLIENT_MAP_H
#define UMBRA_CLIENT_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "client/file.h"
#include "util/util.h"

/*
 * Something has become known of byte off, or of the size of the file if off lies past it: look again. len: how much is wanted from there on. store: it
 * is to be stored to. An error: not by us; the kernel can.
 */
must_check int map_ask(struct umbra_file *f, uint64_t off, uint64_t len, bool store);
/* The same. What was asked for is [*lo, *hi), if anything was. */
must_check int map_ask_range(struct umbra_file *f, uint64_t off, uint64_t len, bool store, uint64_t *lo,
			     uint64_t *hi);
/* Byte off is to be stored to, which is shared: with the aligned range of that size around it. */
must_check int map_ask_shared(struct umbra_file *f, uint64_t off, uint64_t around, uint64_t *lo,
			      uint64_t *hi);

/* The 2 MiB at off, to be one piece of the device (UMBRA_MAP_WHOLE). As map_ask(); -EOPNOTSUPP: the daemon does not make it so for who only reads. */
must_check int map_ask_whole(struct umbra_file *f, uint64_t off, bool store);

/* The device could not be read (or stored to) there. 0: look again; an error: the kernel knows more. */
must_check int map_bad(struct umbra_file *f, uint64_t off);

/* Bytes of [off, off + len) were lost: they may have been put back since. What is known of them is forgotten. */
void map_lost_again(struct umbra_file *f, uint64_t off, uint64_t len);

#endif
