/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbractl dax: the DAX flag of files and directories, which is that of chattr(1).
 */
#include "ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEPTH_FDS 32 /* descriptors for a tree */

static const char usage[] =
	"usage: umbractl dax [--json] [-r] show FILE...\n"
	"       umbractl dax [-r] on|off FILE...\n"
	"The DAX flag of files (chattr +x): those with it are opened past the kernel's page cache, if the mount has the option dax=inode,\n"
	"which is the default. What is made in a directory with it gets it too. A change counts for the opens that follow.\n"
	"show: tells it.\n"
	"on, off: sets it, takes it away. For the owner of a file and root.\n"
	"-r: for all files and directories of a tree; other kinds have none. It does not cross mounts and follows no links.\n"
	"Exit status: 0 done, 1 some failed (the others are done), 2 usage.\n";

enum what { WHAT_SHOW, WHAT_ON, WHAT_OFF, WHAT_COUNT };
static const char *const whats[WHAT_COUNT] = {
	[WHAT_SHOW] = "show",
	[WHAT_ON] = "on",
	[WHAT_OFF] = "off",
};

/* nftw(3) gives its function no argument. */
static struct {
	enum what what;
	bool json, recursive;
	struct json_object *list;
	int status;
} now;

static void show(const char *path, bool on)
{
	static char text[64 * 1024];
	struct json_object *o;

	ctl_path_text(path, strlen(path), text, sizeof(text));
	if (!now.json) {
		printf("%-3s  %s\n", on ? "on" : "off", text);
		return;
	}
	o = json_object_new_object();
	json_object_object_add(o, "path", json_object_new_string(text));
	json_object_object_add(o, "dax", json_object_new_boolean(on));
	json_object_array_add(now.list, o);
}

/* 0 or an errno. */
static int flag_see(int fd, const char *path)
{
	struct fsxattr x;

	if (ioctl(fd, FS_IOC_FSGETXATTR, &x))
		return errno;
	if (now.what == WHAT_SHOW) {
		show(path, x.fsx_xflags & FS_XFLAG_DAX);
		return 0;
	}
	if (!(x.fsx_xflags & FS_XFLAG_DAX) == (now.what == WHAT_OFF))
		return 0;
	x.fsx_xflags ^= FS_XFLAG_DAX;
	return ioctl(fd, FS_IOC_FSSETXATTR, &x) ? errno : 0;
}

static void file_see(const char *path, int flags)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | flags), rc;

	rc = fd < 0 ? errno : flag_see(fd, path);
	if (fd >= 0)
		close(fd);
	if (rc)
		now.status = ctl_fail(path, rc);
}

static int node_see(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)ftw;
	if (kind == FTW_DNR || kind == FTW_NS)
		now.status = ctl_say(path, "cannot be read");
	else if (S_ISREG(st->st_mode) || S_ISDIR(st->st_mode))
		file_see(path, O_NOFOLLOW);
	return 0;
}

static void name_see(const char *path)
{
	int fd = ctl_open(path, O_RDONLY), rc;
	struct umbra_info info;

	rc = fd < 0 ? EBADF : ioctl(fd, UMBRA_IOC_INFO, &info) ? errno : 0;
	if (fd >= 0)
		close(fd);
	if (rc) {
		now.status = fd < 0 ? STATUS_FAILED : ctl_fail(path, rc);
	} else if (!now.recursive) {
		file_see(path, 0);
	} else if (nftw(path, node_see, DEPTH_FDS, FTW_PHYS | FTW_MOUNT)) {
		now.status = ctl_fail(path, errno);
	}
}

static int option_take(void *arg, int letter, const char *value)
{
	(void)arg, (void)letter, (void)value;
	now.recursive = true;
	return 0;
}

int ctl_dax(int argc, char **argv)
{
	static const struct option longs[] = { { "recursive", no_argument, NULL, 'r' }, { 0 } };
	struct ctl_args args = {
		.usage = usage, .letters = "rR", .longs = longs, .take = option_take, .min = 2, .max = argc
	};
	int rc = ctl_parse(&args, argc, argv);

	if (rc)
		return rc < 0 ? 0 : rc;
	while (now.what < WHAT_COUNT && strcmp(args.names[0], whats[now.what]) != 0)
		now.what++;
	if (now.what == WHAT_COUNT) {
		fprintf(stderr, "umbractl dax: '%s' is none of show, on, off (try --help)\n", args.names[0]);
		return STATUS_USAGE;
	}
	now.json = args.json && now.what == WHAT_SHOW;
	now.list = now.json ? json_object_new_array() : NULL;
	for (int i = 1; i < args.names_count; i++)
		name_see(args.names[i]);
	rc = now.json ? ctl_print_json(now.list) : ctl_finish();
	return rc ? rc : now.status;
}
