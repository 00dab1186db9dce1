/* SPDX-License-Identifier: BSD-3-Clause */
/* Data calls for programs that know nothing of them: the buffer may be a bad address, with what the kernel makes of that, when guard_install_user() has been called. */
#ifndef UMBRA_CLIENT_DATA_H
#define UMBRA_CLIENT_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/section.h"
#include "util/util.h"

struct umbra_file;

#define DATA_AT_ONCE_MAX (256u << 10)

/* As umbra_pread(), umbra_pwrite(). */
must_check ssize_t data_call(struct umbra_file *file, void *buf, size_t size, off_t off, bool store);

/*
 * All of a call in one section, which the caller has entered after data_touch(): 1 to DATA_AT_ONCE_MAX bytes, off not negative. False: not possible, to be
 * done by data_call().
 */
must_check bool data_touch(void *buf, size_t size, bool store);
must_check bool data_at_once(struct umbra_file *file, struct section *section, void *buf, size_t size,
			     off_t off, bool store);

/* Whether the file is that long, as far as is known here. *open: it may be longer than that. */
must_check bool data_within(struct umbra_file *file, struct section *section, uint64_t end, bool *open);
/* The kernel has written up to there. */
void data_written_to(struct umbra_file *file, struct section *section, uint64_t end);

#endif
