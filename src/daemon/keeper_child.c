/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The daemon's end of its keeper. See keeper.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "daemon/keeper.h"
#include "daemon/keeper_wire.h"
#include "util/log.h"

bool keeper_address(struct sockaddr_un *address, const char *path)
{
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(address->sun_path))
		return false;
	strcpy(address->sun_path, path);
	if (*path == '@')
		address->sun_path[0] = '\0';
	return true;
}

socklen_t keeper_address_size(const char *path)
{
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path) + (*path != '@'));
}

static bool fd_is_open(int fd)
{
	return fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
}

bool keeper_child(struct keeper_child *child)
{
	const char *how = getenv(KEEPER_VARIABLE);

	*child = (struct keeper_child){ .control = -1, .memory = -1, .connection = -1, .pool = -1 };
	if (!how)
		return false;
	child->is_taking = strcmp(how, "take") == 0;
	unsetenv(KEEPER_VARIABLE);
	if (!fd_is_open(KEEPER_FD))
		return false;
	child->control = KEEPER_FD;
	if (child->is_taking) {
		child->memory = KEEPER_FD + 1;
		child->connection = KEEPER_FD + 2;
		child->pool = KEEPER_FD + 3;
		if (!fd_is_open(child->memory) || !fd_is_open(child->connection) || !fd_is_open(child->pool))
			return false;
	}
	/* It was started by the number of a descriptor. */
	(void)prctl(PR_SET_NAME, "umbrafs", 0, 0, 0);
	return true;
}

static int say(const struct keeper_child *child, enum keeper_what what, const char *path, const int *fds)
{
	union {
		char bytes[CMSG_SPACE(KEEPER_FDS * sizeof(int))];
		struct cmsghdr head;
	} control = { { 0 } };
	struct keeper_message m = { .what = what };
	struct iovec iov = { &m, sizeof(m) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (path)
		snprintf(m.path, sizeof(m.path), "%s", path);
	if (fds) {
		msg.msg_control = control.bytes;
		msg.msg_controllen = sizeof(control.bytes);
		control.head = (struct cmsghdr){
			.cmsg_len = CMSG_LEN(KEEPER_FDS * sizeof(int)),
			.cmsg_level = SOL_SOCKET,
			.cmsg_type = SCM_RIGHTS,
		};
		memcpy(CMSG_DATA(&control.head), fds, KEEPER_FDS * sizeof(int));
	}
	do
		n = sendmsg(child->control, &msg, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

int keeper_mounted(const struct keeper_child *child, int memory, int connection, int pool)
{
	const int fds[KEEPER_FDS] = { memory, connection, pool };

	return say(child, KEEPER_MOUNTED, NULL, fds);
}

/* Without a keeper it serves all the same; nobody takes over. */
int keeper_up(const struct keeper_child *child)
{
	int rc = child->control >= 0 ? say(child, KEEPER_UP, NULL, NULL) : 0;

	if (rc)
		log_warn("the keeper is gone: %s", strerror(-rc));
	return rc;
}

bool keeper_is_there(const struct keeper_child *child)
{
	struct pollfd pfd = { .fd = child->control };

	return child->control >= 0 && poll(&pfd, 1, 0) == 0;
}

int keeper_upgrade(const struct keeper_child *child, const char *program)
{
	return say(child, KEEPER_UPGRADE, program, NULL);
}
