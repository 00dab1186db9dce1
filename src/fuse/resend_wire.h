/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests that a dead server was at, sent again: as the kernel speaks it (protocol 7.40, Linux 6.9); system headers may be older.
 *
 * A message without a body, written to the connection, puts all requests that have been read over /dev/fuse and not been answered back to
 * be read, before all others, the oldest first. Such a request has a bit in its number, which the answer has to carry too. What was read over io_uring is
 * not sent again (Linux 6.18): tests/mounted/kernel_resend.c.
 */
#ifndef UMBRA_FUSE_RESEND_WIRE_H
#define UMBRA_FUSE_RESEND_WIRE_H

#include <stdint.h>

#define RESEND_NOTIFY 7             /* in the error field of a message whose number is 0 */
#define RESEND_FEATURE (1ull << 39) /* of INIT: the kernel can */
#define RESEND_UNIQUE (1ull << 63)  /* in the number of a request that is sent again */

#endif
