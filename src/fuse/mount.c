/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Attaching to a mount point and letting go of it. Root mounts by itself, so that all of mount(8)'s flags work; others go through
 * fusermount3, which has the right to.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#undef BLOCK_SIZE /* another one of <sys/mount.h> */
#include "fuse/ops.h"
#include "util/log.h"

#define FUSE_DEVICE "/dev/fuse"
#define HELPER "fusermount3"
#define HELPER_COMM 9 /* its end of the socket over which it sends the connection */
#define HELPER_COMM_TEXT "9"
#define DYING_STEP_NS 1000000
#define DYING_STEPS 2000u

extern char **environ;

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

static const struct {
	unsigned long flag;
	const char *name;
} helper_flags[] = {
	{ MS_RDONLY, ",ro" },       { MS_NOSUID, ",nosuid" },   { MS_NODEV, ",nodev" },
	{ MS_NOEXEC, ",noexec" },   { MS_NOATIME, ",noatime" }, { MS_SYNCHRONOUS, ",sync" },
	{ MS_DIRSYNC, ",dirsync" },
};

/* What it cannot do, and what mount(8) calls it. */
static const struct {
	unsigned long flag;
	const char *name;
} direct_flags[] = {
	{ MS_NODIRATIME, "nodiratime" }, { 256, "nosymfollow" }, /* MS_NOSYMFOLLOW, newer than some headers */
};

/* The -o of fusermount3; a comma in the name of the pool must not end it. Freed by the caller. */
static char *helper_options(const struct session_opts *opts)
{
	size_t size = 2 * strlen(opts->source) + 256;
	char *list = malloc(size), *to;

	if (!list)
		return NULL;
	to = stpcpy(list, "subtype=umbrafs,default_permissions");
	if (opts->allow_other)
		to = stpcpy(to, ",allow_other");
	for (size_t i = 0; i < ARRAY_SIZE(helper_flags); i++)
		if (opts->mount_flags & helper_flags[i].flag)
			to = stpcpy(to, helper_flags[i].name);
	to = stpcpy(to, ",fsname=");
	for (const char *c = opts->source; *c; c++) {
		if (*c == ',' || *c == '\\')
			*to++ = '\\';
		*to++ = *c;
	}
	*to = '\0';
	return list;
}

/* Starts fusermount3, which sends the connection over comm and its complaints into says. */
static int helper_start(char *const *argv, int comm, int says, pid_t *pid)
{
	char variable[] = "_FUSE_COMMFD=" HELPER_COMM_TEXT;
	posix_spawn_file_actions_t actions;
	size_t count = 0;
	char **env;
	int from[2], rc;

	while (environ[count])
		count++;
	env = calloc(count + 2, sizeof(*env));
	if (!env)
		return -ENOMEM;
	memcpy(env, environ, count * sizeof(*env));
	env[count] = variable;
	/* Neither may have the number that is given to the other. */
	from[0] = fcntl(comm, F_DUPFD_CLOEXEC, HELPER_COMM + 1);
	from[1] = fcntl(says, F_DUPFD_CLOEXEC, HELPER_COMM + 1);
	if (from[0] < 0 || from[1] < 0) {
		rc = -errno;
	} else {
		posix_spawn_file_actions_init(&actions);
		posix_spawn_file_actions_adddup2(&actions, from[0], HELPER_COMM);
		posix_spawn_file_actions_adddup2(&actions, from[1], STDERR_FILENO);
		rc = -posix_spawnp(pid, HELPER, &actions, NULL, argv, env);
		posix_spawn_file_actions_destroy(&actions);
	}
	for (int i = 0; i < 2; i++)
		if (from[i] >= 0)
			close(from[i]);
	free(env);
	return rc;
}

/* The descriptor that comes over a socket, or -EPERM: it was closed without. */
static int receive_fd(int comm)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	const struct cmsghdr *head;
	ssize_t n;
	int fd;

	do
		n = recvmsg(comm, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	head = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
	if (!head || head->cmsg_type != SCM_RIGHTS)
		return -EPERM;
	memcpy(&fd, CMSG_DATA(head), sizeof(fd));
	return fd;
}

/* The first line of what the helper says, all of it read. */
static void receive_line(int says, char *line, size_t size)
{
	char buf[512];
	size_t used = 0;
	ssize_t n;

	while ((n = read(says, buf, sizeof(buf))) > 0) {
		size_t take = u64_min((uint64_t)n, size - 1 - used);

		memcpy(line + used, buf, take);
		used += take;
	}
	line[used] = '\0';
	line[strcspn(line, "\n")] = '\0';
}

/* Runs it with argv; *fd (may be NULL) is the connection it sends. -EPERM and what it said. */
static int helper_run(char *const *argv, int *fd, char *line, size_t line_size)
{
	int comm[2], says[2], status, rc;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, comm))
		return -errno;
	if (pipe2(says, O_CLOEXEC)) {
		rc = -errno;
		close(comm[0]);
		close(comm[1]);
		return rc;
	}
	rc = helper_start(argv, comm[1], says[1], &pid);
	close(comm[1]);
	close(says[1]);
	if (rc == 0) {
		int got = fd ? receive_fd(comm[0]) : -1;

		receive_line(says[0], line, line_size);
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		if (fd && got >= 0)
			*fd = got;
		else if (fd || !WIFEXITED(status) || WEXITSTATUS(status))
			rc = -EPERM;
	}
	close(comm[0]);
	close(says[0]);
	return rc;
}

static int mount_by_helper(struct session *session, char *why, size_t why_size)
{
	char *options = helper_options(&session->opts), line[512] = "";
	char *argv[] = {
		(char *)HELPER, (char *)"-o", options, (char *)"--", (char *)session->opts.mountpoint, NULL
	};
	int rc;

	for (size_t i = 0; i < ARRAY_SIZE(direct_flags); i++) {
		if (session->opts.mount_flags & direct_flags[i].flag) {
			snprintf(why, why_size, "%s: only root can mount with the option '%s'",
				 session->opts.mountpoint, direct_flags[i].name);
			free(options);
			return -EPERM;
		}
	}
	rc = options ? helper_run(argv, &session->fd, line, sizeof(line)) : -ENOMEM;
	free(options);
	if (rc == -ENOENT)
		snprintf(why, why_size,
			 HELPER " is not installed (package fuse3), and without it only root can mount");
	else if (rc == -EPERM)
		snprintf(why, why_size, "%s: cannot mount: %s", session->opts.mountpoint,
			 *line ? line : HELPER " gives no reason");
	else if (rc)
		snprintf(why, why_size, HELPER ": %s", strerror(-rc));
	return rc;
}

int mount_attach(struct session *session, char *why, size_t why_size)
{
	int rc = -EPERM;

	if (geteuid() == 0)
		rc = mount_direct(session, why, why_size);
	if (rc == -EPERM)
		rc = mount_by_helper(session, why, why_size);
	return rc;
}

static int detach(const char *dir)
{
	char *argv[] = { (char *)HELPER, (char *)"-u", (char *)"-z", (char *)"-q",
			 (char *)"--",   (char *)dir,  NULL };
	char line[256];

	if (umount2(dir, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
		return 0;
	if (errno != EPERM)
		return -errno;
	return helper_run(argv, NULL, line, sizeof(line));
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

/* mountinfo writes blanks and backslashes as \ooo. */
static void unescape(char *text)
{
	char *to = text;

	for (const char *from = text; *from; to++) {
		if (from[0] == '\\' && from[1] && from[2] && from[3]) {
			*to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = '\0';
}

/* Whether the mount on top at dir is one of ours, dead or alive; of that source, if it is not NULL. */
static bool dir_has_mount(const char *dir, const char *source)
{
	FILE *mounts = fopen("/proc/self/mountinfo", "re");
	char line[3 * 4096], seen[4096], type[128], seen_source[4096];
	bool found = false;

	while (mounts && fgets(line, sizeof(line), mounts)) {
		const char *dash = strstr(line, " - ");

		if (!dash || sscanf(line, "%*s %*s %*s %*s %4095s", seen) != 1 ||
		    sscanf(dash, " - %127s %4095s", type, seen_source) != 2)
			continue;
		unescape(seen);
		unescape(seen_source);
		if (strcmp(seen, dir) == 0)
			found = strcmp(type, "fuse.umbrafs") == 0 &&
				(!source || strcmp(seen_source, source) == 0);
	}
	if (mounts)
		fclose(mounts);
	return found;
}

/* The last one of those that are mounted furthest down the path. Asks nobody. */
void session_in_the_way(const char *path, char *mountpoint, size_t size)
{
	FILE *mounts = fopen("/proc/self/mountinfo", "re");
	char line[3 * 4096], seen[4096], here[PATH_MAX] = "", full[2 * PATH_MAX];
	size_t best = 0;

	if (*path != '/' && !getcwd(here, sizeof(here)))
		*here = '\0';
	snprintf(full, sizeof(full), "%s%s%s", here, *path == '/' ? "" : "/", path);
	snprintf(mountpoint, size, "%s", "");
	while (mounts && fgets(line, sizeof(line), mounts)) {
		size_t len;

		if (sscanf(line, "%*s %*s %*s %*s %4095s", seen) != 1)
			continue;
		unescape(seen);
		len = strlen(seen);
		if (len < best || len < 2 || strncmp(full, seen, len) != 0 || (full[len] && full[len] != '/'))
			continue;
		best = len;
		snprintf(mountpoint, size, "%s", seen);
	}
	if (mounts)
		fclose(mounts);
}

bool session_is_dying(int error)
{
	return error == ECANCELED || error == ECONNABORTED;
}

int session_detach_dead(const char *dir)
{
	struct timespec a_moment = { 0, DYING_STEP_NS };
	int rc;

	if (!dir_has_mount(dir, NULL))
		return -ENOENT;
	for (unsigned i = 0; (rc = session_look(dir, NULL)) && session_is_dying(-rc) && i < DYING_STEPS; i++)
		nanosleep(&a_moment, NULL);
	return rc == -ENOTCONN ? detach(dir) : rc == -ETIMEDOUT ? rc : -ENOENT;
}

int session_detach_former(const char *dir, const char *source)
{
	return dir_has_mount(dir, source) ? detach(dir) : -ENOENT;
}

/* errno */
static int sync_here(const char *mountpoint)
{
	int fd = open(mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc;

	if (fd < 0)
		return errno;
	rc = syncfs(fd) ? errno : 0;
	close(fd);
	return rc;
}

int mount_sync(const struct session *session)
{
	pid_t child = fork();
	int status;

	if (child < 0) /* better so than not at all */
		return -sync_here(session->opts.mountpoint);
	if (child == 0) {
		(void)close_range(0, UINT_MAX, 0);
		_exit(sync_here(session->opts.mountpoint));
	}
	while (waitpid(child, &status, 0) < 0) {
		if (errno == ECHILD)
			return 0; /* SIGCHLD is ignored: it has ended, nobody knows how */
		if (errno != EINTR)
			return -errno;
	}
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO;
}
