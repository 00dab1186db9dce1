/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbractl clone: a file, or a tree, whose copy shares all blocks.
 */
#include "clone.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "ctl.h"

static const char usage[] =
	"usage: umbractl clone [-r] [--json] SRC DST\n"
	"Makes DST a clone of SRC on the same mount: all blocks shared, owner, mode, times, ACLs and attributes the same. DST must\n"
	"not exist; if it is a directory, the clone goes into it under SRC's name.\n"
	"\n"
	"  -r, --recursive  SRC is a directory: clone all that is below it. Hard links become files of their own. As root it goes\n"
	"                   many files at a time; others need the right to read each file.\n";

#define PROGRESS_NS 200000000

static double seconds_since(const struct timespec *then)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - then->tv_sec) + (double)(now.tv_nsec - then->tv_nsec) / 1e9;
}

void clone_progress(struct clone *c, bool last)
{
	if (!c->progress || (!last && seconds_since(&c->shown) * 1e9 < PROGRESS_NS))
		return;
	clock_gettime(CLOCK_MONOTONIC, &c->shown);
	fprintf(stderr, "\r%llu files, %llu directories, %.0f/s\033[K%s", (unsigned long long)c->files,
		(unsigned long long)c->dirs,
		(double)(c->files + c->dirs + c->others) / (seconds_since(&c->started) + 1e-9),
		last ? "\r\033[K" : "");
	fflush(stderr);
}

void clone_error(struct clone *c, const char *path, int error)
{
	clone_progress(c, true);
	ctl_fail(path, error);
	c->errors++;
}

/* All attributes of src, none but them. Those that only root may set are left out for others. */
static int clone_xattrs(int src, int dst)
{
	static char names[65536], value[65536];
	ssize_t len = flistxattr(dst, names, sizeof(names));

	/* What a default ACL of the parent left. */
	for (char *name = names; len > 0 && name < names + len; name += strlen(name) + 1)
		if (fgetxattr(src, name, NULL, 0) < 0 && errno == ENODATA)
			fremovexattr(dst, name);
	len = flistxattr(src, names, sizeof(names));
	for (char *name = names; len > 0 && name < names + len; name += strlen(name) + 1) {
		ssize_t n = fgetxattr(src, name, value, sizeof(value));

		if (n < 0 && errno == ENODATA)
			continue;
		if (n < 0 || fsetxattr(dst, name, value, (size_t)n, 0)) {
			if (errno == EPERM && strncmp(name, "user.", 5) != 0)
				continue;
			return errno;
		}
	}
	return len < 0 ? errno : 0;
}

int clone_attributes(int src, int dst, const struct stat *st)
{
	const struct timespec times[2] = { st->st_atim, st->st_mtim };
	mode_t mode = st->st_mode & 07777;
	int rc;

	/* Giving away is for root; cp -a of others leaves it too, and what the bits were to lend with it. */
	if (fchown(dst, st->st_uid, st->st_gid)) {
		if (fchown(dst, (uid_t)-1, st->st_gid) && errno != EPERM)
			return errno;
		mode &= 0777;
	}
	rc = clone_xattrs(src, dst);
	if (rc == 0 && fchmod(dst, mode))
		rc = errno;
	if (rc == 0 && futimens(dst, times))
		rc = errno;
	return rc;
}

static int clone_data(int src, int dst)
{
	struct umbra_clone_range range = { .len = 0 };

	if (fsync(src) || ioctl(src, UMBRA_IOC_TOKEN, &range.token) ||
	    ioctl(dst, UMBRA_IOC_CLONE_RANGE, &range))
		return errno;
	return 0;
}

int clone_file(struct clone *c, int src_dir, const char *src_name, int dst_dir, const char *dst_name)
{
	int src = openat(src_dir, src_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC), dst, rc = 0;
	struct stat st;

	if (src < 0)
		return errno;
	if (fstat(src, &st)) {
		rc = errno;
		close(src);
		return rc;
	}
	dst = openat(dst_dir, dst_name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (dst < 0) {
		rc = errno;
		close(src);
		return rc;
	}
	if (st.st_size > 0)
		rc = clone_data(src, dst);
	if (rc == 0)
		rc = clone_attributes(src, dst, &st);
	close(src);
	close(dst);
	if (rc) {
		unlinkat(dst_dir, dst_name, 0);
		return rc;
	}
	c->files++;
	c->bytes += (uint64_t)st.st_size;
	return 0;
}

/* Splits path into an open directory and a last name. -1 after a message. */
static int open_parent(char *path, const char **name)
{
	size_t len = strlen(path);
	char *slash;
	int fd;

	while (len > 1 && path[len - 1] == '/')
		path[--len] = '\0';
	slash = strrchr(path, '/');
	if (!slash) {
		*name = path;
		return ctl_open(".", O_RDONLY | O_DIRECTORY);
	}
	*name = slash + 1;
	if (slash == path)
		return ctl_open("/", O_RDONLY | O_DIRECTORY);
	*slash = '\0';
	fd = ctl_open(path, O_RDONLY | O_DIRECTORY);
	*slash = '/';
	return fd;
}

/* The directory and name of the new thing; dst may be a directory to put it into. */
static int open_target(char *dst, const char *src_name, const char **name)
{
	struct stat st;

	if (stat(dst, &st) == 0 && S_ISDIR(st.st_mode)) {
		*name = src_name;
		return ctl_open(dst, O_RDONLY | O_DIRECTORY);
	}
	return open_parent(dst, name);
}

static int report(const struct clone *c, bool json)
{
	double seconds = seconds_since(&c->started);
	struct json_object *o;

	if (!json)
		return c->errors ? STATUS_FAILED : 0;
	o = json_object_new_object();
	json_object_object_add(o, "files", json_u64(c->files));
	json_object_object_add(o, "directories", json_u64(c->dirs));
	json_object_object_add(o, "others", json_u64(c->others));
	json_object_object_add(o, "errors", json_u64(c->errors));
	json_object_object_add(o, "seconds", json_object_new_double(seconds));
	return ctl_print_json(o) || c->errors ? STATUS_FAILED : 0;
}

static int take(void *arg, int letter, const char *value)
{
	(void)letter;
	(void)value;
	*(bool *)arg = true;
	return 0;
}

/* Whether dir is the directory top or somewhere below it, as far as can be seen. */
static bool is_below(int dir, const struct stat *top)
{
	int at = openat(dir, ".", O_PATH | O_DIRECTORY | O_CLOEXEC), up;
	struct stat st, before = { .st_ino = 0 };
	bool found = false;

	while (at >= 0 && fstat(at, &st) == 0 && st.st_dev == top->st_dev && st.st_ino != before.st_ino) {
		found = st.st_ino == top->st_ino;
		if (found)
			break;
		before = st;
		up = openat(at, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
		close(at);
		at = up;
	}
	if (at >= 0)
		close(at);
	return found;
}

static int clone_any(struct clone *c, int src_dir, const char *src_name, int dst_dir, const char *dst_name,
		     const char *src_path, bool recursive)
{
	struct umbra_info info;
	struct stat st, dst_st;
	int rc;

	if (fstatat(src_dir, src_name, &st, AT_SYMLINK_NOFOLLOW))
		return ctl_fail(src_path, errno);
	if (fstat(dst_dir, &dst_st))
		return ctl_fail("the destination", errno);
	if (st.st_dev != dst_st.st_dev)
		return ctl_say(src_path, "not on the same mount as the destination");
	c->dev = st.st_dev;
	if (ioctl(dst_dir, UMBRA_IOC_INFO, &info))
		return ctl_fail(src_path, errno);
	if (S_ISDIR(st.st_mode) && !recursive)
		return ctl_say(src_path, "is a directory (-r clones it)");
	if (S_ISDIR(st.st_mode) && is_below(dst_dir, &st))
		return ctl_say(src_path, "a directory cannot be cloned into itself");
	if (S_ISDIR(st.st_mode)) {
		clone_tree(c, src_dir, src_name, dst_dir, dst_name, src_path);
		return 0;
	}
	if (!S_ISREG(st.st_mode))
		return ctl_say(src_path, "is neither a regular file nor a directory");
	rc = clone_file(c, src_dir, src_name, dst_dir, dst_name);
	return rc ? ctl_fail(rc == EEXIST ? dst_name : src_path, rc) : 0;
}

int ctl_clone(int argc, char **argv)
{
	static const struct option longs[] = { { "recursive", no_argument, NULL, 'r' },
					       { NULL, 0, NULL, 0 } };
	struct clone c = { .batches = geteuid() == 0, .progress = isatty(STDERR_FILENO) };
	bool recursive = false;
	struct ctl_args args = {
		.usage = usage,
		.letters = "r",
		.longs = longs,
		.take = take,
		.arg = &recursive,
		.min = 2,
		.max = 2,
	};
	const char *src_name, *dst_name;
	struct rlimit files;
	int rc = ctl_parse(&args, argc, argv), src_dir, dst_dir;

	if (rc)
		return rc < 0 ? 0 : rc;
	clock_gettime(CLOCK_MONOTONIC, &c.started);
	c.shown = c.started;
	src_dir = open_parent(args.names[0], &src_name);
	if (src_dir < 0)
		return STATUS_FAILED;
	dst_dir = open_target(args.names[1], src_name, &dst_name);
	if (dst_dir < 0) {
		close(src_dir);
		return STATUS_FAILED;
	}
	umask(0);
	/* Two descriptors for each level of the tree. */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	rc = clone_any(&c, src_dir, src_name, dst_dir, dst_name, args.names[0], recursive);
	close(src_dir);
	close(dst_dir);
	clone_progress(&c, true);
	if (rc)
		return rc;
	return report(&c, args.json);
}
