/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The program umbrafs.
 */
#ifndef UMBRA_DAEMON_DAEMON_H
#define UMBRA_DAEMON_DAEMON_H

/* Status as for mount(8): 0, 1 usage, 2 system error, 32 mount failure. */
int daemon_main(int argc, char **argv);

#endif
