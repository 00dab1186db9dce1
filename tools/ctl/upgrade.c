/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbractl upgrade: another program takes over a mount, which goes on.
 */
#include "ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define STEP_NS 10000000
#define STEPS_MAX 6000 /* a minute */

static const char usage[] =
	"usage: umbractl upgrade [--daemon PATH] [--json] DIR\n"
	"The daemon of the umbrafs that DIR is on makes room for the program as it is installed now; the mount goes on\n"
	"(mounted with -o keeper; for root).\n"
	"\n"
	"  -d, --daemon PATH   the program that takes over, instead of the one at the same place\n"
	"Exit status: 0 done, 1 failed (the daemon before serves again), 2 usage.\n";

struct upgrade_opts {
	const char *daemon;
};

static int take(void *arg, int letter, const char *value)
{
	struct upgrade_opts *opts = arg;

	(void)letter;
	opts->daemon = value;
	return 0;
}

static int failed(const char *path, int error)
{
	switch (error) {
	case EOPNOTSUPP:
		return ctl_say(path, "is not mounted with -o keeper");
	case ESRCH:
		return ctl_say(path,
			       "its keeper is gone, so nobody could start the program; the mount goes on");
	case EALREADY:
		return ctl_say(path, "another program is taking over already");
	case EPERM:
		return ctl_say(path,
			       "only root can have another program take over, and not from a container");
	case EDEADLK:
		return ctl_say(path, "the program lies on this mount, where nobody could read it");
	default:
		return ctl_fail(path, error);
	}
}

static int call(int fd, struct umbra_upgrade *arg)
{
	return ioctl(fd, UMBRA_IOC_UPGRADE, arg) ? errno : 0;
}

/* Until a daemon that has started since answers, and it is known how it went. */
static int wait_over(int fd, uint32_t starts, struct umbra_upgrade *arg)
{
	const struct timespec step = { .tv_nsec = STEP_NS };

	for (unsigned i = 0; i < STEPS_MAX; i++) {
		int rc;

		*arg = (struct umbra_upgrade){ .op = UMBRA_UPGRADE_STATUS };
		rc = call(fd, arg);
		if (rc)
			return rc;
		if (arg->state == UMBRA_UPGRADE_FAILED ||
		    (arg->starts != starts && arg->state != UMBRA_UPGRADE_RUNS))
			return 0;
		nanosleep(&step, NULL);
	}
	return ETIMEDOUT;
}

/* 0, or the status after a message. */
static int upgrade(const char *path, const char *program, struct umbra_upgrade *before,
		   struct umbra_upgrade *after)
{
	int fd = ctl_open(path, O_RDONLY), rc;

	if (fd < 0)
		return STATUS_FAILED;
	*before = (struct umbra_upgrade){ .op = UMBRA_UPGRADE_START };
	snprintf(before->program, sizeof(before->program), "%s", program);
	rc = call(fd, before);
	if (!rc)
		rc = wait_over(fd, before->starts, after);
	close(fd);
	if (rc)
		return failed(rc == ENOENT || rc == EACCES ? program : path, rc);
	if (after->state != UMBRA_UPGRADE_DONE) {
		char why[sizeof(after->why) + 64];

		snprintf(why, sizeof(why), "does not take over (%.*s); the daemon before serves again",
			 (int)sizeof(after->why) - 1, after->why);
		return ctl_say(before->program, why);
	}
	return 0;
}

int ctl_upgrade(int argc, char **argv)
{
	static const struct option longs[] = { { "daemon", required_argument, NULL, 'd' },
					       { NULL, 0, NULL, 0 } };
	struct upgrade_opts opts = { 0 };
	struct ctl_args args = {
		.usage = usage, .letters = "d:", .longs = longs, .take = take, .arg = &opts, .min = 1, .max = 1
	};
	struct umbra_upgrade before, after;
	char program[PATH_MAX] = "";
	int rc = ctl_parse(&args, argc, argv);

	if (rc)
		return rc < 0 ? 0 : rc;
	if (opts.daemon && !realpath(opts.daemon, program))
		return ctl_fail(opts.daemon, errno);
	if (strlen(program) >= sizeof(before.program))
		return ctl_fail(opts.daemon, ENAMETOOLONG);
	rc = upgrade(args.names[0], program, &before, &after);
	if (rc)
		return rc;
	if (args.json) {
		struct json_object *o = json_object_new_object();

		json_object_object_add(o, "program", json_object_new_string(before.program));
		json_object_object_add(o, "old_version", json_object_new_string(before.version));
		json_object_object_add(o, "version", json_object_new_string(after.version));
		json_object_object_add(o, "pid", json_u64(after.pid));
		return ctl_print_json(o);
	}
	printf("%s: %s %s has taken over from %s (process %u)\n", args.names[0], before.program,
	       after.version, before.version, after.pid);
	return ctl_finish();
}
