/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The calls that take a path, each done so that it succeeds on a good one. Those that make something
 * link to or move the file "helper", and "link-new" and "rename-new" are where the others lead.
 */
#define _GNU_SOURCE
#include "path_calls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/xattr.h>
#include <unistd.h>

static int call_chmod(const char *p)
{
	return chmod(p, 0640);
}
static int call_chown(const char *p)
{
	return chown(p, (uid_t)-1, (gid_t)-1);
}
static int call_lchown(const char *p)
{
	return lchown(p, (uid_t)-1, (gid_t)-1);
}
static int call_link_old(const char *p)
{
	return link(p, "link-new");
}
static int call_link_new(const char *p)
{
	return link("helper", p);
}
static int call_mkdir(const char *p)
{
	return mkdir(p, 0755);
}
static int call_mkfifo(const char *p)
{
	return mkfifo(p, 0644);
}
static int call_mknod(const char *p)
{
	return mknod(p, S_IFBLK | 0644, 0x103);
}
static int call_symlink(const char *p)
{
	return symlink("helper", p);
}
static int call_rename_old(const char *p)
{
	return rename(p, "rename-new");
}
static int call_rename_new(const char *p)
{
	return rename("helper", p);
}
static int call_unlink(const char *p)
{
	return unlink(p);
}
static int call_rmdir(const char *p)
{
	return rmdir(p);
}
static int call_truncate(const char *p)
{
	return truncate(p, 10);
}
static int call_utimens(const char *p)
{
	return utimensat(AT_FDCWD, p, NULL, 0);
}
static int call_stat(const char *p)
{
	struct stat st;
	return stat(p, &st);
}
static int call_lstat(const char *p)
{
	struct stat st;
	return lstat(p, &st);
}
static int call_statfs(const char *p)
{
	struct statfs st;
	return statfs(p, &st);
}
static int call_access(const char *p)
{
	return faccessat(AT_FDCWD, p, R_OK, AT_EACCESS);
}
static int call_setxattr(const char *p)
{
	return setxattr(p, "user.a", "b", 1, 0);
}
static int call_listxattr(const char *p)
{
	return (int)listxattr(p, NULL, 0);
}
static int call_chdir(const char *p)
{
	return chdir(p);
}

static int call_statx(const char *p)
{
	struct statx stx;

	return statx(AT_FDCWD, p, 0, STATX_BASIC_STATS, &stx);
}

static int call_readlink(const char *p)
{
	char target[64];

	return readlink(p, target, sizeof(target)) == -1 ? -1 : 0;
}

static int call_getxattr(const char *p)
{
	int rc = (int)getxattr(p, "user.nothing", NULL, 0);

	return rc == -1 && errno == ENODATA ? 0 : rc;
}

static int call_removexattr(const char *p)
{
	int rc = removexattr(p, "user.nothing");

	return rc == -1 && errno == ENODATA ? 0 : rc;
}

static int open_close(const char *p, int flags)
{
	int fd = open(p, flags, 0644);

	return fd == -1 ? -1 : close(fd);
}

static int call_open_read(const char *p)
{
	return open_close(p, O_RDONLY);
}
static int call_open_write(const char *p)
{
	return open_close(p, O_WRONLY);
}
static int call_open_create(const char *p)
{
	return open_close(p, O_RDWR | O_CREAT);
}
static int call_open_excl(const char *p)
{
	return open_close(p, O_RDWR | O_CREAT | O_EXCL);
}
static int call_open_dir(const char *p)
{
	return open_close(p, O_RDONLY | O_DIRECTORY);
}

const struct call calls[] = {
	{ "chmod", NEEDS_FILE | FOLLOWS, call_chmod },
	{ "chown", NEEDS_FILE | FOLLOWS, call_chown },
	{ "lchown", NEEDS_FILE, call_lchown },
	{ "link(old)", NEEDS_FILE | LINKS, call_link_old },
	{ "link(new)", MAKES | LINKS, call_link_new },
	{ "mkdir", MAKES, call_mkdir },
	{ "mkfifo", MAKES, call_mkfifo },
	{ "mknod", MAKES | BY_ROOT, call_mknod },
	{ "symlink", MAKES, call_symlink },
	{ "rename(old)", NEEDS_FILE | REMOVES, call_rename_old },
	{ "rename(new)", MAKES, call_rename_new },
	{ "unlink", NEEDS_FILE | REMOVES, call_unlink },
	{ "rmdir", NEEDS_DIR | REMOVES, call_rmdir },
	{ "truncate", NEEDS_FILE | FOLLOWS, call_truncate },
	{ "utimensat", NEEDS_FILE | FOLLOWS, call_utimens },
	{ "stat", NEEDS_FILE | FOLLOWS, call_stat },
	{ "lstat", NEEDS_FILE, call_lstat },
	{ "statx", NEEDS_FILE | FOLLOWS, call_statx },
	{ "statfs", NEEDS_FILE | FOLLOWS, call_statfs },
	{ "access", NEEDS_FILE | FOLLOWS, call_access },
	{ "readlink", NEEDS_LNK, call_readlink },
	{ "setxattr", NEEDS_FILE | FOLLOWS, call_setxattr },
	{ "getxattr", NEEDS_FILE | FOLLOWS, call_getxattr },
	{ "listxattr", NEEDS_FILE | FOLLOWS, call_listxattr },
	{ "removexattr", NEEDS_FILE | FOLLOWS, call_removexattr },
	{ "chdir", NEEDS_DIR | FOLLOWS, call_chdir },
	{ "open(read)", NEEDS_FILE | FOLLOWS, call_open_read },
	{ "open(write)", NEEDS_FILE | FOLLOWS, call_open_write },
	{ "open(create)", MAKES | FOLLOWS, call_open_create },
	{ "open(excl)", MAKES, call_open_excl },
	{ "open(dir)", NEEDS_DIR | FOLLOWS, call_open_dir },
};

const size_t calls_count = sizeof(calls) / sizeof(calls[0]);
