/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A program may have as many areas (vm.max_map_count) as the kernel allows it, and yet pages of its mappings have to go, and come again: for that a few areas are held, of nothing.
 */
#ifndef UMBRA_CLIENT_SPARE_AREAS_H
#define UMBRA_CLIENT_SPARE_AREAS_H

#include <stdbool.h>

/* They are held from now on, if they can be had. For one thread at a time. */
void spare_areas_hold(void);
/* They are the kernel's again, for whoever comes next. False: there were none. Waits for nothing. */
bool spare_areas_give(void);

#endif
