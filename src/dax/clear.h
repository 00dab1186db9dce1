/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Errors of persistent memory, cleared by its device through libndctl, which is loaded when the first one is to be. Nobody outside of this folder includes it.
 */
#ifndef UMBRA_DAX_CLEAR_H
#define UMBRA_DAX_CLEAR_H

#include <stdint.h>

#include "util/util.h"

struct clear;

/* For memory of that region ("region1"). NULL: out of memory. */
struct clear *clear_new(const char *region);
void clear_free(struct clear *c); /* may be NULL */

/* -EOPNOTSUPP: not without the library, or not by this device. -EIO: it has not cleared all of it. */
must_check int clear_run(struct clear *c, uint64_t address, uint64_t len_bytes);

#endif
