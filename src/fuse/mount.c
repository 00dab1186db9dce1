/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Attaching to a mount point and letting go of it. Root mounts by itself, so that all of mount(8)'s flags work; others go through
 * fusermount3, as libfuse does.
 */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#undef BLOCK_SIZE /* another one of <sys/mount.h> */
#include "fuse/ops.h"
#include "util/log.h"

#define FUSE_DEVICE "/dev/fuse"
#define HELPER "fusermount3"

extern char **environ;

/* What libfuse said last, for the one line that the user gets. */
static char said[256];

static void libfuse_log(enum fuse_log_level level, const char *fmt, va_list ap)
{
	char line[256];
	size_t len;

	vsnprintf(line, sizeof(line), fmt, ap);
	len = strcspn(line, "\n");
	line[len] = '\0';
	snprintf(said, sizeof(said), "%s", line);
	(void)level;
	log_debug("%s", line);
}

static int device_open(char *why, size_t why_size)
{
	int fd = open(FUSE_DEVICE, O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		return fd;
	fd = -errno;
	if (fd == -ENOENT || fd == -ENODEV || fd == -ENXIO)
		snprintf(why, why_size, "%s: FUSE is not available here: %s (as root: modprobe fuse)",
			 FUSE_DEVICE, strerror(-fd));
	else
		snprintf(why, why_size, "%s: %s", FUSE_DEVICE, strerror(-fd));
	return fd;
}

/* mount(2). -EPERM: not for us. */
static int mount_direct(struct session *session, char *why, size_t why_size)
{
	const struct session_opts *opts = &session->opts;
	char data[256];
	int fd = device_open(why, why_size), rc;

	if (fd < 0)
		return fd;
	snprintf(data, sizeof(data), "fd=%d,rootmode=%o,user_id=%u,group_id=%u,default_permissions%s", fd,
		 (unsigned)S_IFDIR, getuid(), getgid(), opts->allow_other ? ",allow_other" : "");
	if (mount(opts->source, opts->mountpoint, "fuse.umbrafs", opts->mount_flags, data) == 0) {
		session->fd = fd;
		return 0;
	}
	rc = -errno;
	close(fd);
	if (rc == -ENODEV)
		snprintf(why, why_size, "the kernel has no FUSE (as root: modprobe fuse)");
	else
		snprintf(why, why_size, "%s: cannot mount: %s", opts->mountpoint, strerror(-rc));
	return rc;
}

static bool helper_is_there(void)
{
	const char *path = getenv("PATH");
	char file[4096];

	if (access("/usr/bin/" HELPER, X_OK) == 0 || access("/bin/" HELPER, X_OK) == 0)
		return true;
	for (const char *dir = path; dir && *dir;) {
		size_t len = strcspn(dir, ":");

		snprintf(file, sizeof(file), "%.*s/" HELPER, (int)len, dir);
		if (access(file, X_OK) == 0)
			return true;
		dir += len + (dir[len] == ':');
	}
	return false;
}

static const struct {
	unsigned long flag;
	const char *set;
} helper_flags[] = {
	{ MS_RDONLY, "ro" },       { MS_NOSUID, "nosuid" },   { MS_NODEV, "nodev" },
	{ MS_NOEXEC, "noexec" },   { MS_NOATIME, "noatime" }, { MS_SYNCHRONOUS, "sync" },
	{ MS_DIRSYNC, "dirsync" },
};

int mount_args(const struct session_opts *opts, struct fuse_args *args)
{
	char *option, *list = NULL;
	int rc = -ENOMEM;

	if (fuse_opt_add_arg(args, "umbrafs") || asprintf(&option, "fsname=%s", opts->source) < 0)
		return rc;
	if (fuse_opt_add_opt_escaped(&list, option) || fuse_opt_add_opt(&list, "subtype=umbrafs") ||
	    fuse_opt_add_opt(&list, "default_permissions"))
		goto out;
	if (opts->allow_other && fuse_opt_add_opt(&list, "allow_other"))
		goto out;
	for (size_t i = 0; i < ARRAY_SIZE(helper_flags); i++)
		if ((opts->mount_flags & helper_flags[i].flag) &&
		    fuse_opt_add_opt(&list, helper_flags[i].set))
			goto out;
	if (fuse_opt_add_arg(args, "-o") || fuse_opt_add_arg(args, list))
		goto out;
	rc = 0;
out:
	free(option);
	free(list);
	return rc;
}

static int mount_by_helper(struct session *session, char *why, size_t why_size)
{
	if (!helper_is_there()) {
		snprintf(why, why_size,
			 HELPER " is not installed (package fuse3), and without it only root can mount");
		return -ENOENT;
	}
	said[0] = '\0';
	if (fuse_session_mount(session->se, session->opts.mountpoint)) {
		snprintf(why, why_size, "%s: %s could not mount%s%s", session->opts.mountpoint, HELPER,
			 said[0] ? ": " : "", said);
		return -EPERM;
	}
	session->fd = fuse_session_fd(session->se);
	session->mounted_by_helper = true;
	return 0;
}

int mount_attach(struct session *session, char *why, size_t why_size)
{
	int rc = -EPERM;

	fuse_set_log_func(libfuse_log);
	if (geteuid() == 0)
		rc = mount_direct(session, why, why_size);
	else if (access(FUSE_DEVICE, F_OK))
		return device_open(why, why_size);
	if (rc == -EPERM)
		rc = mount_by_helper(session, why, why_size);
	return rc;
}

/* Quietly. */
static int helper_run(const char *dir)
{
	char *argv[] = { (char *)HELPER, (char *)"-u", (char *)"-z", (char *)"-q",
			 (char *)"--",   (char *)dir,  NULL };
	int status;
	pid_t pid;
	int rc = -posix_spawnp(&pid, HELPER, NULL, NULL, argv, environ);

	if (rc)
		return rc;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EPERM;
}

static int detach(const char *dir)
{
	if (umount2(dir, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
		return 0;
	if (errno != EPERM)
		return -errno;
	return helper_run(dir);
}

/* Whether what is seen at the mount point is ours: nothing mounted over it, not unmounted by somebody else. Asks no daemon. */
static bool mount_is_ours(const struct session *session)
{
	struct statx sx;

	if (statx(AT_FDCWD, session->opts.mountpoint, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE, &sx))
		return false;
	return sx.stx_dev_major == session->dev_major && sx.stx_dev_minor == session->dev_minor;
}

void mount_detach(struct session *session)
{
	int rc;

	if (!mount_is_ours(session))
		return;
	rc = detach(session->opts.mountpoint);
	if (rc)
		log_warn("%s: cannot unmount: %s", session->opts.mountpoint, strerror(-rc));
}

int session_detach_dead(const char *dir)
{
	struct stat st;
	char line[8192], seen[4096], type[128];
	FILE *mounts;
	bool found = false;

	if (stat(dir, &st) == 0 || errno != ENOTCONN)
		return -ENOENT;
	mounts = fopen("/proc/self/mountinfo", "re");
	if (!mounts)
		return -errno;
	/* The last one is on top. */
	while (fgets(line, sizeof(line), mounts)) {
		const char *dash = strstr(line, " - ");

		if (!dash || sscanf(line, "%*s %*s %*s %*s %4095s", seen) != 1 ||
		    sscanf(dash, " - %127s", type) != 1)
			continue;
		if (strcmp(seen, dir) == 0)
			found = strcmp(type, "fuse.umbrafs") == 0;
	}
	fclose(mounts);
	return found ? detach(dir) : -ENOENT;
}
