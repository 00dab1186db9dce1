/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A test build leaves out one step at a time, to see that the crash tests miss it. Elsewhere there is no such thing.
 */
#ifndef UMBRA_UTIL_SABOTAGE_H
#define UMBRA_UTIL_SABOTAGE_H

#include <stdbool.h>

#ifdef UMBRA_SABOTAGE
/* The step of this name is to be left out, or done wrong. */
bool sabotage_point(const char *name);
#else
#define sabotage_point(name) ((void)(name), false)
#endif

#endif
