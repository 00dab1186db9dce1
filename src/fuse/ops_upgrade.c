/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * UMBRA_IOC_UPGRADE: another program takes over the mount, or what has become of that.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <umbra/ioctl.h>

#include "fuse/ops.h"
#include "util/log.h"

#define DELETED " (deleted)"

static_assert(sizeof(struct umbra_upgrade) < 16384, "an ioctl argument");
static_assert((int)UMBRA_UPGRADE_RUNS == (int)KEPT_UPGRADE_RUNS &&
		      (int)UMBRA_UPGRADE_DONE == (int)KEPT_UPGRADE_DONE &&
		      (int)UMBRA_UPGRADE_FAILED == (int)KEPT_UPGRADE_FAILED,
	      "the same");

/* Where this program was: by now it may be another one. */
static int program_own(char *path, size_t size)
{
	ssize_t n = readlink("/proc/self/exe", path, size - 1);
	size_t tail = sizeof(DELETED) - 1;

	if (n < 0)
		return -errno;
	path[n] = '\0';
	if ((size_t)n > tail && strcmp(path + n - tail, DELETED) == 0)
		path[(size_t)n - tail] = '\0';
	return 0;
}

/* Root of a container is root here too, but what its paths lead to is not, and what it names would run outside. */
static bool caller_has_our_mounts(pid_t pid)
{
	struct stat his, ours;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)pid);
	return pid > 0 && stat(path, &his) == 0 && stat("/proc/self/ns/mnt", &ours) == 0 &&
	       his.st_dev == ours.st_dev && his.st_ino == ours.st_ino;
}

static int program_check(const struct session *session, pid_t pid, struct umbra_upgrade *arg)
{
	struct stat st;

	if (arg->program[sizeof(arg->program) - 1])
		return -ENAMETOOLONG;
	if (!arg->program[0]) {
		int rc = program_own(arg->program, sizeof(arg->program));

		if (rc)
			return rc;
	} else if (!caller_has_our_mounts(pid)) {
		return -EPERM;
	}
	if (arg->program[0] != '/')
		return -EINVAL;
	if (stat(arg->program, &st) || access(arg->program, X_OK))
		return -errno;
	/* It is opened and run when nobody answers there. */
	if (st.st_dev == makedev(session->dev_major, session->dev_minor))
		return -EDEADLK;
	return S_ISREG(st.st_mode) ? 0 : -EACCES;
}

static int start_check(const struct session *session, pid_t pid, struct umbra_upgrade *arg)
{
	if (session_leaving(session))
		return -EALREADY;
	/* This daemon would end, and nobody start the next one. */
	if (!session->opts.keeper_is_there(session->opts.keeper_arg))
		return -ESRCH;
	return program_check(session, pid, arg);
}

static void status_fill(struct session *session, struct umbra_upgrade *arg)
{
	struct kept_head *head = kept_head(session->kept);

	arg->state = atomic_load(&head->upgrade);
	arg->pid = (uint32_t)getpid();
	arg->starts = atomic_load(&head->starts);
	arg->deaths = atomic_load(&head->deaths);
	snprintf(arg->version, sizeof(arg->version), "%s", UMBRA_VERSION);
	memset(arg->why, 0, sizeof(arg->why));
	if (arg->state == UMBRA_UPGRADE_FAILED)
		snprintf(arg->why, sizeof(arg->why), "%.*s", (int)sizeof(head->upgrade_why) - 1,
			 head->upgrade_why);
}

void ops_upgrade(fuse_req_t req, const void *in)
{
	struct session *session = req_session(req);
	struct umbra_upgrade arg;
	int rc = 0;

	memcpy(&arg, in, sizeof(arg));
	if (!session->kept)
		rc = -EOPNOTSUPP;
	else if (fuse_req_ctx(req)->uid != 0)
		rc = -EPERM; /* the program gets what this daemon has */
	else if (arg.op > UMBRA_UPGRADE_START || arg.pad)
		rc = -EINVAL;
	else if (arg.op == UMBRA_UPGRADE_START)
		rc = start_check(session, fuse_req_ctx(req)->pid, &arg);
	if (rc) {
		ops_reply(req, rc);
		return;
	}
	if (arg.op == UMBRA_UPGRADE_START)
		atomic_store(&kept_head(session->kept)->upgrade, KEPT_UPGRADE_RUNS);
	status_fill(session, &arg);
	fuse_reply_ioctl(req, 0, &arg, sizeof(arg));
	if (arg.op == UMBRA_UPGRADE_START)
		session_leave(session, arg.program);
}
