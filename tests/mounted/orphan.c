/* SPDX-License-Identifier: BSD-3-Clause */
/* Files without a name: unlinked while open, O_TMPFILE, linkat of them, and their space. */
#define _GNU_SOURCE
#include "files.h"

#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

static void case_use_after_unlink(void)
{
	unsigned char want[10000];
	unsigned char got[10000];
	struct stat before;
	int fd;

	bytes_fill(want, sizeof(want), 1);
	file_make("f", want, sizeof(want));
	fd = file_open("f", O_RDWR);
	before = fd_stat(fd);
	clock_tick();
	OK(unlink("f"));
	struct stat st = fd_stat(fd);
	EQ(0, st.st_nlink);
	EQ(before.st_ino, st.st_ino);
	TRUE(time_compare(before.st_ctim, st.st_ctim) < 0);
	EQ(sizeof(want), st.st_size);
	EQ(sizeof(got), pread(fd, got, sizeof(got), 0));
	MEMEQ(want, got, sizeof(want));
	EQ(5, pwrite(fd, "HELLO", 5, 20000));
	EQ(20005, fd_stat(fd).st_size);
	EQ(5, pread(fd, got, 100, 20000));
	MEMEQ("HELLO", got, 5);
	OK(ftruncate(fd, 100));
	OK(fchmod(fd, 0600));
	OK(fchown(fd, 1, 2));
	OK(fsetxattr(fd, "user.a", "b", 1, 0));
	EQ(1, fgetxattr(fd, "user.a", got, sizeof(got)));
	OK(futimens(fd, NULL));
	OK(fallocate(fd, 0, 0, 50000));
	OK(fsync(fd));
	EQ(50000, fd_stat(fd).st_size);
	EQ(1, fd_stat(fd).st_uid);
	/* The name is free for another file, which is another file. */
	file_make("f", "new", 3);
	TRUE(path_stat("f").st_ino != st.st_ino);
	EQ(3, path_stat("f").st_size);
	EQ(50000, fd_stat(fd).st_size);
	OK(close(fd));
}

static void case_mapped_after_unlink(void)
{
	char *map;
	char c;
	int fd;

	file_fill("f", 8192, 1);
	fd = file_open("f", O_RDWR);
	map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (!TRUE(map != MAP_FAILED))
		return;
	OK(unlink("f"));
	OK(close(fd));
	/* Only the mapping holds it now. */
	map[5000] = 'Z';
	c = ((volatile char *)map)[5000];
	EQ('Z', c);
	OK(msync(map, 8192, MS_SYNC));
	OK(munmap(map, 8192));
}

static void case_tmpfile(void)
{
	char path[64];
	char got[8];
	int fd = open(".", O_TMPFILE | O_RDWR, 0640);

	if (fd == -1 && (errno == EOPNOTSUPP || errno == EISDIR))
		check_skip("no O_TMPFILE");
	MUST(fd);
	EQ(0, fd_stat(fd).st_nlink);
	EQ(S_IFREG | 0640, fd_stat(fd).st_mode);
	EQ(5, write(fd, "hello", 5));
	EQ(5, pread(fd, got, 8, 0));
	EQ(0, faccessat(AT_FDCWD, "f", F_OK, 0) == 0);
	OK(linkat(fd, "", AT_FDCWD, "f", AT_EMPTY_PATH));
	EQ(1, fd_stat(fd).st_nlink);
	EQ(5, path_stat("f").st_size);
	EQ(fd_stat(fd).st_ino, path_stat("f").st_ino);
	close(fd);
	/* The other spelling, and O_EXCL that forbids it. */
	fd = (int)MUST(open(".", O_TMPFILE | O_WRONLY, 0600));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	OK(linkat(AT_FDCWD, path, AT_FDCWD, "g", AT_SYMLINK_FOLLOW));
	EQ(1, path_stat("g").st_nlink);
	ERR(EEXIST, linkat(AT_FDCWD, path, AT_FDCWD, "g", AT_SYMLINK_FOLLOW));
	fd = (int)MUST(open(".", O_TMPFILE | O_WRONLY | O_EXCL, 0600));
	ERR(ENOENT, linkat(fd, "", AT_FDCWD, "h", AT_EMPTY_PATH));
	ERR(EINVAL, open(".", O_TMPFILE | O_RDONLY, 0600));
	MUST(mkdir("ro", 0555));
	ERR_AS(USER_A, EACCES, open("ro", O_TMPFILE | O_RDWR, 0600));
}

/* What is linked again after its last name went is gone: link count 0 is the end, except O_TMPFILE. */
static void case_no_way_back(void)
{
	int fd;

	file_make("f", "x", 1);
	fd = file_open("f", O_RDWR);
	OK(unlink("f"));
	ERR(ENOENT, linkat(fd, "", AT_FDCWD, "g", AT_EMPTY_PATH));
	EQ(0, fd_stat(fd).st_nlink);
}

static void case_replaced_by_rename(void)
{
	char got[8] = "";
	int fd;

	file_make("f", "old", 3);
	for (int i = 0; i < 50; i++) {
		fd = file_open("f", O_RDWR);
		file_make("g", i & 1 ? "old" : "new", 3);
		OK(rename("g", "f"));
		EQ(0, fd_stat(fd).st_nlink);
		EQ(3, pread(fd, got, 8, 0));
		STREQ(i & 1 ? "new" : "old", got);
		close(fd);
	}
}

static void case_many(void)
{
	int fds[300];
	char got[16];
	char want[16];

	for (int i = 0; i < 300; i++) {
		snprintf(want, sizeof(want), "content %d", i);
		file_make("f", want, strlen(want));
		fds[i] = file_open("f", O_RDWR);
		OK(unlink("f"));
	}
	for (int i = 0; i < 300; i++) {
		snprintf(want, sizeof(want), "content %d", i);
		memset(got, 0, sizeof(got));
		OK(pread(fds[i], got, sizeof(got) - 1, 0));
		STREQ(want, got);
		OK(close(fds[i]));
	}
}

static unsigned long free_bytes(int dir)
{
	struct statvfs st = { 0 };

	OK(fsync(dir));
	OK(syncfs(dir));
	MUST(fstatvfs(dir, &st));
	return st.f_bfree * st.f_frsize;
}

/* The space of an unlinked file stays taken while it is open, and comes back in the end. */
static void case_space(void)
{
	int dir = file_open(".", O_RDONLY | O_DIRECTORY);
	unsigned long before;
	unsigned long with;
	unsigned long after = 0;
	int fd;

	file_fill("warm-up", 1 << 20, 1);
	before = free_bytes(dir);
	file_fill("f", 32 << 20, 1);
	fd = file_open("f", O_RDWR);
	OK(fsync(fd));
	OK(unlink("f"));
	with = free_bytes(dir);
	TRUE(with + (30 << 20) <= before);
	OK(close(fd));
	/* Freeing may go on behind: wait for it, the watchdog is the limit. */
	do
		after = free_bytes(dir);
	while (after + (2 << 20) < before && usleep(10000) == 0);
	TRUE(after + (2 << 20) >= before);
}

static const struct check_case cases[] = {
	{ "use_after_unlink", case_use_after_unlink },
	{ "mapped_after_unlink", case_mapped_after_unlink },
	{ "tmpfile", case_tmpfile },
	{ "no_way_back", case_no_way_back },
	{ "replaced_by_rename", case_replaced_by_rename },
	{ "many", case_many },
	{ "space", case_space },
};

CHECK_MAIN(cases)
