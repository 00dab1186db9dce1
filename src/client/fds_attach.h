/* SPDX-License-Identifier: BSD-3-Clause */
/* What is done to a description that is attached for the program: it is O_DIRECT from then on (fds.h). */
#ifndef UMBRA_CLIENT_FDS_ATTACH_H
#define UMBRA_CLIENT_FDS_ATTACH_H

#include <stdbool.h>
#include <sys/stat.h>

struct umbra_file;

/* Whether the mount gives us anything, before anything is changed. *flags: F_GETFL. */
bool attach_is_ours(int fd, struct stat *st, int *flags);
/* NULL: it cannot be attached; or, as long as attach_is_later(), not now. */
struct umbra_file *attach_begin(int fd, int flags);
/* This user gets no sessions just now. Takes no time. */
bool attach_is_later(void);

#endif
