/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See direct_socket.h.
 */
#include "daemon/direct_socket.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDER "/run/umbrafs"
#define BACKLOG 128

static int address_set(struct sockaddr_un *address, const char *path)
{
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(address->sun_path))
		return -ENAMETOOLONG;
	memcpy(address->sun_path, path, strlen(path));
	return 0;
}

/* Removes a socket that nobody listens at. */
static int stale_remove(const char *path)
{
	struct sockaddr_un address;
	struct stat st;
	int fd, rc = address_set(&address, path);

	if (rc)
		return rc;
	if (lstat(path, &st))
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 || errno == EAGAIN)
		rc = -EADDRINUSE;
	else if (errno != ECONNREFUSED && errno != ENOENT)
		rc = -errno;
	else if (unlink(path) && errno != ENOENT)
		rc = -errno;
	close(fd);
	return rc;
}

/* Those of other mounts of the pool, whose daemons are dead. */
static void others_remove(const char *folder, const char *uuid)
{
	size_t len = strlen(uuid);
	struct dirent *entry;
	DIR *dir = opendir(folder);

	while (dir && (entry = readdir(dir))) {
		char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
		int n;

		if (strncmp(entry->d_name, uuid, len) != 0 || entry->d_name[len] != '-')
			continue;
		n = snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		if (n > 0 && (size_t)n < sizeof(path) && stale_remove(path))
			continue; /* it lives */
	}
	if (dir)
		closedir(dir);
}

void direct_socket_path(const uint8_t uuid[16], unsigned minor, char *path, size_t path_size)
{
	char folder[64] = FOLDER, hex[40];
	size_t at = 0;

	for (unsigned i = 0; i < 16; i++)
		at += (size_t)snprintf(hex + at, sizeof(hex) - at, "%s%02x",
				       i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
	if (geteuid() != 0)
		snprintf(folder, sizeof(folder), "/run/user/%u/umbrafs", (unsigned)geteuid());
	path[0] = '\0';
	if (mkdir(folder, 0755) && errno != EEXIST)
		return;
	if (geteuid() == 0)
		(void)!chmod(folder, 0755); /* whatever the umask is */
	others_remove(folder, hex);
	snprintf(path, path_size, "%s/%s-%u", folder, hex, minor);
}

int direct_socket_open(const char *path, struct direct_socket *out)
{
	struct sockaddr_un address;
	struct stat st;
	int fd, rc = address_set(&address, path);

	if (rc == 0)
		rc = stale_remove(path);
	if (rc)
		return rc;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address))) {
		rc = -errno;
		close(fd);
		return rc;
	}
	if (chmod(path, 0666) || lstat(path, &st) || listen(fd, BACKLOG)) {
		rc = -errno;
		unlink(path);
		close(fd);
		return rc;
	}
	*out = (struct direct_socket){ .fd = fd, .dev = st.st_dev, .ino = st.st_ino };
	memcpy(out->path, address.sun_path, sizeof(out->path));
	return 0;
}

void direct_socket_close(struct direct_socket *s)
{
	struct stat st;

	if (s->fd < 0)
		return;
	/* Perhaps it is somebody else's by now. */
	if (lstat(s->path, &st) == 0 && st.st_dev == s->dev && st.st_ino == s->ino)
		unlink(s->path);
	close(s->fd);
	s->fd = -1;
}
