/* SPDX-License-Identifier: BSD-3-Clause */
/* File handles: name_to_handle_at and open_by_handle_at, as an NFS server would use them. */
#define _GNU_SOURCE
#include <sched.h>

#include "files.h"

struct handle {
	struct file_handle head;
	unsigned char bytes[MAX_HANDLE_SZ];
};

static int mount_fd;

static int handle_get(const char *path, struct handle *h, int flags)
{
	int mount_id;

	h->head.handle_bytes = MAX_HANDLE_SZ;
	return name_to_handle_at(AT_FDCWD, path, &h->head, &mount_id, flags);
}

static int handle_open(struct handle *h, int flags)
{
	return open_by_handle_at(mount_fd, &h->head, flags);
}

static void handles_needed(void)
{
	struct handle h;

	mount_fd = file_open(".", O_RDONLY | O_DIRECTORY);
	file_make("probe", "", 0);
	if (handle_get("probe", &h, 0) == -1 && errno == EOPNOTSUPP)
		check_skip("the file system has no file handles");
	MUST(unlink("probe"));
}

static void case_open(void)
{
	struct handle h;
	struct stat st;
	char got[8];
	int fd;

	handles_needed();
	FOR_TYPES(t)
	{
		type_make(t, "f", 0644);
		st = path_stat("f");
		if (OK(handle_get("f", &h, 0)) == -1)
			continue;
		fd = (int)OK(handle_open(&h, t == T_REG || t == T_DIR ? O_RDONLY : O_PATH));
		if (fd != -1) {
			EQ(st.st_ino, fd_stat(fd).st_ino);
			EQ(st.st_mode, fd_stat(fd).st_mode);
			close(fd);
		}
		type_unlink(t, "f");
	}
	check_context("content");
	file_make("f", "hello", 5);
	MUST(handle_get("f", &h, 0));
	fd = (int)MUST(handle_open(&h, O_RDWR));
	EQ(5, read(fd, got, 8));
	MEMEQ("hello", got, 5);
	EQ(1, pwrite(fd, "J", 1, 0));
	EQ(1, pread(file_open("f", O_RDONLY), got, 1, 0));
	EQ('J', got[0]);
}

static void case_follows_rename(void)
{
	struct handle h;
	struct handle h2;

	handles_needed();
	MUST(mkdir("a", 0755));
	MUST(mkdir("b", 0755));
	file_make("a/f", "x", 1);
	MUST(handle_get("a/f", &h, 0));
	OK(rename("a/f", "b/g"));
	int fd = (int)OK(handle_open(&h, O_RDONLY));
	EQ(path_stat("b/g").st_ino, fd_stat(fd).st_ino);
	/* Any name of a file gives a handle of the same file. */
	OK(link("b/g", "h"));
	MUST(handle_get("h", &h2, 0));
	fd = (int)OK(handle_open(&h2, O_RDONLY));
	EQ(path_stat("b/g").st_ino, fd_stat(fd).st_ino);
	/* A directory moved: its handle leads there, and ".." to the new parent. */
	MUST(mkdir("a/d", 0755));
	MUST(handle_get("a/d", &h, 0));
	OK(rename("a/d", "b/d"));
	fd = (int)OK(handle_open(&h, O_RDONLY | O_DIRECTORY));
	struct stat st = { 0 };
	OK(fstatat(fd, "..", &st, 0));
	EQ(path_stat("b").st_ino, st.st_ino);
}

static void stale_check(const char *path, int type)
{
	struct handle h;

	MUST(handle_get(path, &h, 0));
	OK(type_unlink(type, path));
	ERR(ESTALE, handle_open(&h, O_PATH));
	/* Nor is it the next file that gets the same inode number. */
	for (int i = 0; i < 50; i++) {
		char name[16];

		snprintf(name, sizeof(name), "n%d", i);
		type_make(type, name, 0644);
		ERR(ESTALE, handle_open(&h, O_PATH));
	}
	for (int i = 0; i < 50; i++) {
		char name[16];

		snprintf(name, sizeof(name), "n%d", i);
		type_unlink(type, name);
	}
}

static void case_stale(void)
{
	handles_needed();
	FOR_TYPES(t)
	{
		type_make(t, "f", 0644);
		stale_check("f", t);
	}
}

/* The last close may still be on its way to a server: waits until it has come, the watchdog is the limit. */
static void stale_wait(struct handle *h)
{
	int fd;

	while ((fd = handle_open(h, O_RDONLY)) != -1) {
		close(fd);
		sched_yield();
	}
}

static void case_unlinked_open(void)
{
	struct handle h;
	char c = 0;
	int fd;

	handles_needed();
	file_make("f", "x", 1);
	fd = file_open("f", O_RDONLY);
	MUST(handle_get("f", &h, 0));
	OK(unlink("f"));
	/* While somebody has it open it may be reached or not; its content is there for him. */
	int fd2 = handle_open(&h, O_RDONLY);
	if (fd2 == -1)
		EQ(ESTALE, errno);
	else
		EQ(0, fd_stat(fd2).st_nlink);
	EQ(1, pread(fd, &c, 1, 0));
	close(fd2);
	close(fd);
	stale_wait(&h);
	ERR(ESTALE, handle_open(&h, O_RDONLY));
}

static void case_errors(void)
{
	struct handle h;

	handles_needed();
	file_make("f", "x", 1);
	h.head.handle_bytes = 0;
	int mount_id;
	ERR(EOVERFLOW, name_to_handle_at(AT_FDCWD, "f", &h.head, &mount_id, 0));
	TRUE(h.head.handle_bytes > 0 && h.head.handle_bytes <= MAX_HANDLE_SZ);
	MUST(handle_get("f", &h, 0));
	ERR_AS(USER_A, EPERM, handle_open(&h, O_RDONLY));
	/* Damaged handles: an error, or at worst some file, never a crash. */
	unsigned char *bytes = (unsigned char *)&h + offsetof(struct file_handle, f_handle);
	for (unsigned i = 0; i < h.head.handle_bytes * 8; i++) {
		bytes[i / 8] ^= (unsigned char)(1u << i % 8);
		int fd = handle_open(&h, O_PATH);
		if (fd != -1)
			close(fd);
		else
			TRUE(errno == ESTALE || errno == EINVAL);
		bytes[i / 8] ^= (unsigned char)(1u << i % 8);
	}
	memset(bytes, 0xff, h.head.handle_bytes);
	ERR2(ESTALE, EINVAL, handle_open(&h, O_PATH));
	memset(bytes, 0, h.head.handle_bytes);
	ERR2(ESTALE, EINVAL, handle_open(&h, O_PATH));
	OK(access("f", F_OK));
}

static const struct check_case cases[] = {
	{ "open", case_open },     { "follows_rename", case_follows_rename },
	{ "stale", case_stale },   { "unlinked_open", case_unlinked_open },
	{ "errors", case_errors },
};

CHECK_MAIN(cases)
