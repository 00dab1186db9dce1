/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the kernel lets others than its server do with a FUSE connection: end it. Whoever waits for an answer is told so then.
 */
#ifndef UMBRA_DAEMON_FUSECTL_H
#define UMBRA_DAEMON_FUSECTL_H

#include "util/util.h"

/*
 * A descriptor by which the connection of the mount with that device number can be ended; of no other one, whatever has that number later, and of no use
 * when it is gone. Root needs nothing for it; others, who have mounted, that /sys/fs/fuse/connections is mounted. -errno
 */
must_check int fusectl_open(unsigned dev_minor);
/* -errno; 0 too if it has ended already. */
must_check int fusectl_abort(int fd);

#endif
