/* SPDX-License-Identifier: BSD-3-Clause */
/* Mounts of the daemon of the tests' own that end, and the next ones: in the place of src/client/home.c (the linker's --wrap). */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/home.h"
#include "fake_daemon.h"

/* Descriptions of a dead mount have it, which their other descriptors share: the signal for O_ASYNC. */
#define DEAD_MARK 60

/* From fake_kill() to fake_mount(). */
static atomic_bool is_away;

bool fake_fd_is_dead(int fd)
{
	return fcntl(fd, F_GETSIG) == DEAD_MARK;
}

struct home *__wrap_home_of(int fd, dev_t dev);
int __wrap_home_next(const struct home *home, home_fn fn, void *arg);

struct home *__wrap_home_of(int fd, dev_t dev)
{
	static struct home home;
	static char nothing[1];
	struct umbra_info info;

	(void)dev;
	if (ioctl(fd, UMBRA_IOC_INFO, &info))
		return NULL;
	memcpy(home.uuid, info.uuid, sizeof(home.uuid));
	home.count = 1;
	home.points[0].root = home.points[0].at = nothing;
	return &home;
}

int __wrap_home_next(const struct home *home, home_fn fn, void *arg)
{
	int dir, rc;

	(void)home;
	if (is_away)
		return -ENOTCONN;
	dir = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert(dir >= 0);
	rc = fn(arg, dir, "");
	close(dir);
	return rc;
}

static void fds_die(const struct fake *f)
{
	struct dirent *entry;
	struct stat file;
	DIR *fds = opendir("/proc/self/fd");

	assert(fds && fstat(f->fd, &file) == 0);
	while ((entry = readdir(fds))) {
		int fd = atoi(entry->d_name);
		struct stat st;

		if (fd != f->fd && fstatat(dirfd(fds), entry->d_name, &st, 0) == 0 &&
		    st.st_dev == file.st_dev && st.st_ino == file.st_ino)
			/* Another thread may close it just now. */
			assert(fcntl(fd, F_SETSIG, DEAD_MARK) == 0 || errno == EBADF);
	}
	closedir(fds);
}

void fake_kill(struct fake *f, bool mount_first)
{
	is_away = true;
	if (mount_first)
		fds_die(f);
	fake_down(f);
	if (!mount_first)
		fds_die(f);
}

void fake_mount(struct fake *f)
{
	fake_up(f);
	is_away = false;
}
