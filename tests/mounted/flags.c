/* SPDX-License-Identifier: BSD-3-Clause */
/* Flags of inodes (chattr): append-only and immutable files and directories, and who may set what. */
#define _GNU_SOURCE
#include "files.h"

#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>

#define FLAGS_TRIED (FS_APPEND_FL | FS_IMMUTABLE_FL | FS_NODUMP_FL)

/* Those that are tried become these; what else the file system has to say stays. In spite of the number's name an int is meant. */
static int flags_set(const char *path, unsigned flags)
{
	int fd = file_open(path, O_RDONLY | O_NONBLOCK), rc, saved;
	unsigned long now = 0;

	OK(ioctl(fd, FS_IOC_GETFLAGS, &now));
	flags |= (unsigned)now & ~(unsigned)FLAGS_TRIED;
	rc = ioctl(fd, FS_IOC_SETFLAGS, &flags);
	saved = errno;
	close(fd);
	errno = saved;
	return rc;
}

static unsigned flags_get(const char *path)
{
	int fd = file_open(path, O_RDONLY | O_NONBLOCK);
	unsigned long flags = 0;

	OK(ioctl(fd, FS_IOC_GETFLAGS, &flags));
	close(fd);
	return (unsigned)flags;
}

static void flags_needed(void)
{
	file_make("try", "x", 1);
	if (flags_set("try", FS_APPEND_FL))
		check_skip("no append-only files here");
	OK(flags_set("try", 0));
}

static void case_append_file(void)
{
	static const int ways[] = { O_WRONLY, O_RDWR };
	char got[8] = "";
	int fd;

	flags_needed();
	file_make("f", "ab", 2);
	OK(setxattr("f", "user.a", "1", 1, 0));
	OK(flags_set("f", FS_APPEND_FL));
	TRUE(flags_get("f") & FS_APPEND_FL);
	for (int i = 0; i < 2; i++) {
		check_context("way %d", i);
		fd = file_open("f", ways[i] | O_APPEND);
		EQ(1, write(fd, "c", 1));
		EQ(1, write(fd, "d", 1));
		ERR(EPERM, ftruncate(fd, 1));
		close(fd);
		ERR(EPERM, open("f", ways[i]));
		ERR(EPERM, open("f", ways[i] | O_APPEND | O_TRUNC));
	}
	check_context("%s", "");
	ERR(EPERM, truncate("f", 1));
	ERR(EPERM, unlink("f"));
	ERR(EPERM, rename("f", "g"));
	ERR(EPERM, link("f", "g"));
	ERR(EPERM, chmod("f", 0600));
	ERR(EPERM, chown("f", USER_A, USER_A));
	ERR(EPERM, setxattr("f", "user.a", "2", 1, 0));
	ERR(EPERM, removexattr("f", "user.a"));
	fd = file_open("f", O_RDONLY);
	EQ(6, read(fd, got, sizeof(got)));
	MEMEQ("abcdcd", got, 6);
	close(fd);
	OK(flags_set("f", 0));
	OK(unlink("f"));
}

static void case_immutable_file(void)
{
	flags_needed();
	file_make("f", "ab", 2);
	OK(flags_set("f", FS_IMMUTABLE_FL));
	ERR(EPERM, open("f", O_WRONLY));
	ERR(EPERM, open("f", O_RDWR | O_APPEND));
	ERR(EPERM, open("f", O_WRONLY | O_TRUNC));
	ERR(EPERM, truncate("f", 1));
	ERR(EPERM, unlink("f"));
	ERR(EPERM, rename("f", "g"));
	ERR(EPERM, link("f", "g"));
	ERR(EPERM, chmod("f", 0600));
	ERR(EPERM, setxattr("f", "user.a", "2", 1, 0));
	EQ(2, path_stat("f").st_size);
	OK(close(file_open("f", O_RDONLY)));
	OK(flags_set("f", 0));
	OK(unlink("f"));
}

static void case_directories(void)
{
	flags_needed();
	OK(mkdir("d", 0755));
	file_make("d/old", "x", 1);
	OK(flags_set("d", FS_APPEND_FL));
	file_make("d/new", "x", 1);
	OK(mkdir("d/sub", 0755));
	ERR(EPERM, unlink("d/old"));
	ERR(EPERM, rmdir("d/sub"));
	ERR(EPERM, rename("d/old", "d/older"));
	ERR(EPERM, rename("d/old", "out"));
	OK(flags_set("d", FS_IMMUTABLE_FL));
	ERR(EPERM, open("d/newer", O_CREAT | O_WRONLY, 0644));
	ERR(EPERM, mkdir("d/more", 0755));
	ERR(EPERM, unlink("d/old"));
	/* What is in its files is another matter. */
	OK(truncate("d/old", 0));
	OK(flags_set("d", 0));
	OK(unlink("d/old"));
}

static void case_who(void)
{
	flags_needed();
	OK(chmod(".", 0777));
	file_make("f", "x", 1);
	OK(chown("f", USER_A, USER_A));
	ERR_AS(USER_B, EPERM, flags_set("f", FS_NODUMP_FL));
	OK_AS(USER_A, flags_set("f", FS_NODUMP_FL));
	ERR_AS(USER_A, EPERM, flags_set("f", FS_NODUMP_FL | FS_APPEND_FL));
	ERR_AS(USER_A, EPERM, flags_set("f", FS_NODUMP_FL | FS_IMMUTABLE_FL));
	EQ(FS_NODUMP_FL, flags_get("f") & FLAGS_TRIED);
	OK(flags_set("f", FS_IMMUTABLE_FL));
	ERR_AS(USER_A, EPERM, flags_set("f", 0));
	ERR(EOPNOTSUPP, flags_set("f", FS_IMMUTABLE_FL | 0x80000000u));
	OK(flags_set("f", 0));
}

static const struct check_case cases[] = {
	{ "append_file", case_append_file },
	{ "immutable_file", case_immutable_file },
	{ "directories", case_directories },
	{ "who", case_who },
};

CHECK_MAIN(cases)
