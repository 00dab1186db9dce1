/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef UMBRA_CLIENT_PRELOAD_MAPPED_H
#define UMBRA_CLIENT_PRELOAD_MAPPED_H

#include <stdbool.h>
#include <stddef.h>

/* Mappings of ours in a range, and all others of their files, become the kernel's. False, with errno: not all could. */
bool preload_mapped_leave(const void *addr, size_t len);

/* ---- preload_given.c ---- */

/*
 * Before the kernel gets an ioctl: memory that it is to use by itself from then on, without touches of the program's that could be told to us, becomes the kernel's mapping.
 * False, with errno: it could not.
 */
bool preload_give(unsigned long request, const void *arg);
/* Some memory of this process has been given in that way: what is mapped over it is to be the kernel's too. */
bool preload_has_given(void);

/* ---- preload_mapped.c ---- */

/* A system call by its number that is about addresses: done, as syscall(2) says it. */
bool preload_mapped_call(long number, const long a[6], long *rc);

#endif
