/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A daemon that sends its keeper descriptors again and again, in messages that are not in order, and ends. See keeper.sh.
 */
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "daemon/keeper_wire.h"

#define TIMES 20
#define FDS_MAX 5

static void send_fds(enum keeper_what what, size_t size, size_t count)
{
	union {
		char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct cmsghdr head;
	} control = { { 0 } };
	struct keeper_message m = { .what = what };
	struct iovec iov = { &m, size };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.bytes,
			      .msg_controllen = CMSG_SPACE(count * sizeof(int)) };
	const int fds[FDS_MAX] = { 0, 1, 2, 0, 1 };

	control.head = (struct cmsghdr){
		.cmsg_len = CMSG_LEN(count * sizeof(int)),
		.cmsg_level = SOL_SOCKET,
		.cmsg_type = SCM_RIGHTS,
	};
	memcpy(CMSG_DATA(&control.head), fds, count * sizeof(int));
	(void)!sendmsg(KEEPER_FD, &msg, MSG_NOSIGNAL);
}

int main(void)
{
	for (int i = 0; i < TIMES; i++) {
		for (size_t count = 1; count <= FDS_MAX; count++) {
			send_fds(KEEPER_MOUNTED, sizeof(struct keeper_message), count);
			send_fds((enum keeper_what)99, sizeof(struct keeper_message), count);
		}
	}
	send_fds(KEEPER_MOUNTED, 8, KEEPER_FDS);
	return 1;
}
