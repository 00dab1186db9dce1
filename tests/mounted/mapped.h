/* SPDX-License-Identifier: BSD-3-Clause */
/* For programs that map files as any program does, with and without umbra-run. */
#ifndef UMBRA_TESTS_MOUNTED_MAPPED_H
#define UMBRA_TESTS_MOUNTED_MAPPED_H

#include "files.h"

#include <stdint.h>
#include <sys/mman.h>

enum { PAGE = 4096, PAGES = 64, BYTES = PAGES * PAGE, RW = PROT_READ | PROT_WRITE };

/* "f" of BYTES: the page of that number begins with its number and is filled with it. */
int mapped_file(const char *name, int flags);
/* mmap() that has to succeed. */
unsigned char *mapped_make(void *hint, size_t size, int prot, int flags, int fd, off_t at);
/* With MAPPED_DIRECT=1 in the environment: it is not the kernel's mapping of the file, after it has been touched. */
void mapped_is_direct(const void *at, bool direct);
/* What the kernel reads at off of a file by an open of its own. */
unsigned char mapped_read(const char *name, off_t off);
/* The signal that touching it gives, or 0. */
int mapped_touch(volatile unsigned char *at, bool store);

#endif
