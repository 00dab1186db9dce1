/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a keeper and its daemon say to each other. They may be of different builds: this changes only by what is new at its end.
 */
#ifndef UMBRA_DAEMON_KEEPER_WIRE_H
#define UMBRA_DAEMON_KEEPER_WIRE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#define KEEPER_VARIABLE "UMBRAFS_KEEPER" /* in the daemon's environment: mount, or take */
#define KEEPER_FD 3                      /* the socket; then the memory, the connection, the pool */
#define KEEPER_FDS 3
#define KEEPER_PATH_MAX 1024

enum keeper_what {
	KEEPER_MOUNTED = 1, /* with KEEPER_FDS descriptors */
	KEEPER_UP = 2,
	KEEPER_UPGRADE = 3, /* to path */
};

struct keeper_message {
	uint32_t what, reserved;
	char path[KEEPER_PATH_MAX];
};

/* Of a socket by its path; '@': one without a file. False: too long. */
bool keeper_address(struct sockaddr_un *address, const char *path);
socklen_t keeper_address_size(const char *path);

#endif
