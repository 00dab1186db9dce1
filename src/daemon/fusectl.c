/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See fusectl.h. The file `abort` of the kernel's fusectl file system: root has that mounted for himself and nowhere, so that it does not matter whether it is mounted in
 * /sys, what is mounted over that, and nothing stays in use.
 */
#include "daemon/fusectl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "util/sabotage.h"

#define FUSECTL "fusectl"
#define FUSECTL_DIR "/sys/fs/fuse/connections"
#define FUSECTL_MAGIC 0x65735543

static int root_open(void)
{
	int context = fsopen(FUSECTL, FSOPEN_CLOEXEC), root;

	if (context < 0)
		return -errno;
	if (fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		root = -errno;
	else if ((root = fsmount(context, FSMOUNT_CLOEXEC, 0)) < 0)
		root = -errno;
	close(context);
	return root;
}

/* That of somebody else may be anything. */
static int root_mounted(void)
{
	int root = open(FUSECTL_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct statfs st;

	if (root < 0)
		return -errno;
	if (fstatfs(root, &st) == 0 && st.f_type == FUSECTL_MAGIC)
		return root;
	close(root);
	return -ENOENT;
}

int fusectl_open(unsigned dev_minor)
{
	int root = root_open(), fd;
	char path[32];

	if (root < 0)
		root = root_mounted();
	if (root < 0)
		return root;
	snprintf(path, sizeof(path), "%u/abort", dev_minor);
	fd = openat(root, path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		fd = -errno;
	close(root);
	return fd;
}

int fusectl_abort(int fd)
{
	if (sabotage_point("connection-abort"))
		return 0;
	return write(fd, "1", 1) < 0 ? -errno : 0;
}
