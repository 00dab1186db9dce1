/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The program's other descriptors of a file. Opens that are not attached have pages of the kernel's, and nobody may store directly beside those: so a program that has some that it never uses would
 * keep itself, and others, from it.
 */
#ifndef UMBRA_CLIENT_FDS_OTHERS_H
#define UMBRA_CLIENT_FDS_OTHERS_H

#include <stdint.h>

struct fd_entry;

/* Both between slow_begin() and slow_end(). Attaches all of those that are not yet, but fd. */
void others_learn(int fd, uint64_t dev, uint64_t ino);
/* After a call that may have been refused since somebody has the file open through the page cache. */
void others_look(struct fd_entry *e);

/* fds.c: one of them, if it is of that file and little is known of it. */
void fds_learn_other(int fd, uint64_t dev, uint64_t ino);

#endif
