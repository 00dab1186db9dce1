/* SPDX-License-Identifier: BSD-3-Clause */
/* Flags of inodes (chattr): append-only and immutable files and directories, the DAX flag, and who may set what. */
#define _GNU_SOURCE
#include "files.h"

#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/xattr.h>

#define FLAGS_TRIED (FS_APPEND_FL | FS_IMMUTABLE_FL | FS_NODUMP_FL | FS_DAX_FL)

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

static void case_times(void)
{
	struct stat before, after;

	flags_needed();
	file_make("f", "x", 1);
	before = path_stat("f");
	clock_tick();
	OK(flags_set("f", FS_NODUMP_FL));
	after = path_stat("f");
	TRUE(!ctime_same(&before, &after));
	TRUE(mtime_same(&before, &after));
}

/* ---- DAX ---- */

static unsigned xflags_get(const char *path)
{
	int fd = file_open(path, O_RDONLY | O_NONBLOCK);
	struct fsxattr x = { .fsx_xflags = 0 };

	OK(ioctl(fd, FS_IOC_FSGETXATTR, &x));
	close(fd);
	return x.fsx_xflags;
}

static int xflags_set(const char *path, unsigned set, unsigned clear)
{
	int fd = file_open(path, O_RDONLY | O_NONBLOCK), rc, saved;
	struct fsxattr x = { .fsx_xflags = 0 };

	OK(ioctl(fd, FS_IOC_FSGETXATTR, &x));
	x.fsx_xflags = (x.fsx_xflags & ~clear) | set;
	rc = ioctl(fd, FS_IOC_FSSETXATTR, &x);
	saved = errno;
	close(fd);
	errno = saved;
	return rc;
}

static void dax_needed(void)
{
	file_make("try", "x", 1);
	if (xflags_set("try", FS_XFLAG_DAX, 0) || !(xflags_get("try") & FS_XFLAG_DAX))
		check_skip("no DAX flag here");
	OK(unlink("try"));
}

static bool is_dax(const char *path)
{
	bool fl = flags_get(path) & FS_DAX_FL, xflag = xflags_get(path) & FS_XFLAG_DAX;

	TRUE(fl == xflag);
	return xflag;
}

static void case_dax(void)
{
	int types[] = { T_REG, T_DIR };

	dax_needed();
	for (int i = 0; i < 2; i++) {
		check_context("%s", type_name[types[i]]);
		type_make(types[i], "f", 0755);
		TRUE(!is_dax("f"));
		OK(flags_set("f", FS_DAX_FL));
		TRUE(is_dax("f"));
		OK(xflags_set("f", 0, FS_XFLAG_DAX));
		TRUE(!is_dax("f"));
		OK(xflags_set("f", FS_XFLAG_DAX | FS_XFLAG_NODUMP, 0));
		OK(flags_set("f", FS_NODUMP_FL));
		TRUE(!is_dax("f"));
		EQ(FS_NODUMP_FL, flags_get("f") & FLAGS_TRIED);
		type_unlink(types[i], "f");
	}
}

static void case_dax_inherited(void)
{
	char path[64];
	int fd;

	dax_needed();
	OK(mkdir("d", 0755));
	file_make("d/before", "x", 1);
	OK(flags_set("d", FS_DAX_FL));
	TRUE(!is_dax("d/before"));
	file_make("d/f", "x", 1);
	OK(mkdir("d/sub", 0755));
	file_make("d/sub/f", "x", 1);
	TRUE(is_dax("d/f") && is_dax("d/sub") && is_dax("d/sub/f"));
	fd = file_open("d", O_TMPFILE | O_RDWR);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	OK(linkat(AT_FDCWD, path, AT_FDCWD, "t", AT_SYMLINK_FOLLOW));
	close(fd);
	TRUE(is_dax("t"));
	/* It is the file's, not the name's. */
	file_make("other", "x", 1);
	OK(rename("other", "d/other"));
	OK(rename("d/f", "f"));
	TRUE(!is_dax("d/other") && is_dax("f"));
	OK(xflags_set("d", 0, FS_XFLAG_DAX));
	file_make("d/late", "x", 1);
	TRUE(!is_dax("d/late") && is_dax("d/sub"));
}

static void case_dax_who(void)
{
	dax_needed();
	OK(chmod(".", 0777));
	file_make("f", "x", 1);
	OK(chmod("f", 0666));
	OK(chown("f", USER_A, USER_A));
	ERR_AS(USER_B, EPERM, flags_set("f", FS_DAX_FL));
	ERR_AS(USER_B, EPERM, xflags_set("f", FS_XFLAG_DAX, 0));
	TRUE(!is_dax("f"));
	OK_AS(USER_A, flags_set("f", FS_DAX_FL));
	ERR_AS(USER_B, EPERM, flags_set("f", 0));
	TRUE(is_dax("f"));
	OK_AS(USER_A, xflags_set("f", 0, FS_XFLAG_DAX));
	OK(flags_set("f", FS_DAX_FL));
	TRUE(is_dax("f"));
}

/* What shares its blocks has flags of its own. */
static void case_dax_clone(void)
{
	int src, dst;

	dax_needed();
	file_fill("src", 65536, 1);
	OK(flags_set("src", FS_DAX_FL));
	src = file_open("src", O_RDONLY);
	dst = file_open("dst", O_CREAT | O_RDWR);
	EQ(65536, copy_file_range(src, NULL, dst, NULL, 65536, 0));
	close(dst);
	TRUE(!is_dax("dst"));
	dst = file_open("src", O_RDWR);
	src = file_open("dst", O_RDONLY);
	EQ(65536, copy_file_range(src, NULL, dst, NULL, 65536, 0));
	TRUE(is_dax("src"));
	close(src);
	close(dst);
}

/* Who has it open from before, through the page cache, and who opens it past that see the same. */
static void case_dax_coherent(void)
{
	char *at, got[4] = "";
	int before, after;

	dax_needed();
	file_fill("f", 16384, 1);
	before = file_open("f", O_RDWR);
	at = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_SHARED, before, 0);
	TRUE(at != MAP_FAILED);
	memcpy(at, "one", 3);
	for (int on = 1; on >= 0; on--) {
		check_context("%s", on ? "on" : "off");
		OK(flags_set("f", on ? FS_DAX_FL : 0));
		after = file_open("f", O_RDWR);
		memcpy(at, on ? "one" : "ONE", 3);
		EQ(3, pread(after, got, 3, 0));
		MEMEQ(on ? "one" : "ONE", got, 3);
		EQ(3, pwrite(after, on ? "two" : "TWO", 3, 4096));
		MEMEQ(on ? "two" : "TWO", at + 4096, 3);
		EQ(3, pread(before, got, 3, 4096));
		MEMEQ(on ? "two" : "TWO", got, 3);
		EQ(3, pwrite(before, "xyz", 3, 8192));
		EQ(3, pread(after, got, 3, 8192));
		MEMEQ("xyz", got, 3);
		OK(ftruncate(after, 12288));
		EQ(0, pread(before, got, 3, 12288));
		OK(ftruncate(before, 16384));
		EQ(3, pread(after, got, 3, 12288));
		MEMEQ("\0\0\0", got, 3);
		close(after);
	}
	OK(munmap(at, 16384));
	close(before);
}

/* What has been read through the page cache is not what is read that way later, when it has changed past it. */
static void case_dax_and_back(void)
{
	char got[8] = "";
	int fd;

	dax_needed();
	file_make("f", "before", 6);
	for (int on = 1; on >= 0; on--) {
		fd = file_open("f", O_RDWR);
		EQ(6, pread(fd, got, 6, 0));
		EQ(6, pwrite(fd, on ? "cached" : "direct", 6, 0));
		EQ(6, pread(fd, got, 6, 0));
		close(fd);
		OK(flags_set("f", on ? FS_DAX_FL : 0));
	}
	fd = file_open("f", O_RDWR);
	EQ(6, pread(fd, got, 6, 0));
	MEMEQ("direct", got, 6);
	close(fd);
}

static const struct check_case cases[] = {
	{ "append_file", case_append_file },
	{ "immutable_file", case_immutable_file },
	{ "directories", case_directories },
	{ "who", case_who },
	{ "times", case_times },
	{ "dax", case_dax },
	{ "dax_inherited", case_dax_inherited },
	{ "dax_who", case_dax_who },
	{ "dax_clone", case_dax_clone },
	{ "dax_coherent", case_dax_coherent },
	{ "dax_and_back", case_dax_and_back },
};

CHECK_MAIN(cases)
