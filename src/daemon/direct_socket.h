/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The socket at which processes ask for direct mappings.
 */
#ifndef UMBRA_DAEMON_DIRECT_SOCKET_H
#define UMBRA_DAEMON_DIRECT_SOCKET_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/un.h>

#include "util/util.h"

struct direct_socket {
	int fd; /* -1: none */
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	dev_t dev;
	ino_t ino;
};

/* Its path, if none is given: of the pool and the mount (the minor number of its device). "" if there is no folder for it. */
void direct_socket_path(const uint8_t uuid[16], unsigned minor, char *path, size_t path_size);

/* Makes it, for all to connect. What a dead daemon left there is replaced. -EADDRINUSE: somebody listens there, -EEXIST: it is something else, ... */
must_check int direct_socket_open(const char *path, struct direct_socket *out);
/* And removes it. */
void direct_socket_close(struct direct_socket *s);

#endif
