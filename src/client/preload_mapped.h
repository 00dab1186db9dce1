/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef UMBRA_CLIENT_PRELOAD_MAPPED_H
#define UMBRA_CLIENT_PRELOAD_MAPPED_H

#include <stdbool.h>

/* A system call by its number that is about addresses: done, as syscall(2) says it. */
bool preload_mapped_call(long number, const long a[6], long *rc);

#endif
