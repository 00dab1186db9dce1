/* SPDX-License-Identifier: BSD-3-Clause */
/* unlink and rmdir: counts, times, sticky directories, and what may not be removed. */
#define _GNU_SOURCE
#include "files.h"

static void case_times(void)
{
	struct stat parent_before;
	struct stat parent_after;
	struct stat before;
	struct stat after;

	MUST(mkdir("d", 0755));
	FOR_TYPES(t)
	{
		type_make(t, "d/f", 0644);
		if (t != T_DIR)
			MUST(link("d/f", "other"));
		parent_before = path_stat("d");
		if (t != T_DIR)
			before = path_stat("other");
		clock_tick();
		OK(type_unlink(t, "d/f"));
		parent_after = path_stat("d");
		TRUE(time_compare(parent_before.st_mtim, parent_after.st_mtim) < 0);
		TRUE(time_compare(parent_before.st_ctim, parent_after.st_ctim) < 0);
		if (t != T_DIR) {
			after = path_stat("other");
			EQ(1, after.st_nlink);
			TRUE(time_compare(before.st_ctim, after.st_ctim) < 0);
			TRUE(mtime_same(&before, &after));
			unlink("other");
		}
	}
}

static void case_wrong_call(void)
{
	MUST(chmod(".", 0777));
	FOR_TYPES(t)
	{
		type_make(t, "f", 0777);
		MUST(lchown("f", USER_A, USER_A));
		if (t == T_DIR) {
			ERR(EISDIR, unlink("f"));
			ERR(EISDIR, unlink("f/"));
			ERR_AS(USER_A, EISDIR, unlink("f"));
			OK(rmdir("f/"));
		} else {
			ERR(ENOTDIR, rmdir("f"));
			ERR_AS(USER_A, ENOTDIR, rmdir("f"));
			OK(unlink("f"));
		}
	}
	/* rmdir does not follow a symlink to a directory. */
	check_context("symlink to dir");
	MUST(mkdir("d", 0755));
	MUST(symlink("d", "l"));
	ERR(ENOTDIR, rmdir("l"));
	ERR(ENOTDIR, rmdir("l/"));
	OK(unlink("l"));
	OK(rmdir("d"));
}

static void case_enotempty(void)
{
	struct stat before;
	struct stat after;

	FOR_TYPES(t)
	{
		MUST(mkdir("d", 0755));
		type_make(t, "d/f", 0644);
		before = path_stat("d");
		clock_tick();
		ERR(ENOTEMPTY, rmdir("d"));
		after = path_stat("d");
		TRUE(ctime_same(&before, &after));
		TRUE(mtime_same(&before, &after));
		OK(type_unlink(t, "d/f"));
		OK(rmdir("d"));
	}
}

static void case_dots(void)
{
	MUST(mkdir("d", 0755));
	MUST(mkdir("d/e", 0755));
	ERR(EINVAL, rmdir("d/."));
	ERR(ENOTEMPTY, rmdir("d/.."));
	ERR(ENOTEMPTY, rmdir("d/e/.."));
	ERR2(EISDIR, EINVAL, unlink("d/."));
	ERR(EISDIR, unlink("d/.."));
	OK(rmdir("d/e"));
	OK(rmdir("d"));
}

static void case_parent_counts(void)
{
	char name[16];

	MUST(mkdir("d", 0755));
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "d/%d", i);
		MUST(mkdir(name, 0755));
		EQ(3 + i, path_stat("d").st_nlink);
	}
	for (int i = 99; i >= 0; i--) {
		snprintf(name, sizeof(name), "d/%d", i);
		MUST(rmdir(name));
		EQ(2 + i, path_stat("d").st_nlink);
	}
}

/*
 * In a sticky directory a name is removed by the owner of the file, the owner of the directory
 * and root. Table: owner of the directory, owner of the file, who tries; who = 0 is root.
 */
static void case_sticky_matrix(void)
{
	static const uid_t ids[] = { 0, USER_A, USER_B, USER_C };

	for (int t = 0; t < T_COUNT; t++) {
		for (unsigned i = 0; i < 4 * 4 * 4 * 2; i++) {
			uid_t dir_owner = ids[i & 3];
			uid_t owner = ids[(i >> 2) & 3];
			uid_t who = ids[(i >> 4) & 3];
			bool sticky = (i >> 6) & 1;
			bool may = !sticky || who == 0 || who == dir_owner || who == owner;

			check_context("%s dir of %d, file of %d, by %d%s", type_name[t], (int)dir_owner,
				      (int)owner, (int)who, sticky ? ", sticky" : "");
			MUST(mkdir("d", 0777));
			MUST(chown("d", dir_owner, dir_owner));
			MUST(chmod("d", sticky ? 01777 : 0777));
			type_make(t, "d/f", 0644);
			MUST(lchown("d/f", owner, owner));
			user_is(who, who);
			if (may)
				OK(type_unlink(t, "d/f"));
			else
				ERR2(EPERM, EACCES, type_unlink(t, "d/f"));
			user_root();
			EQ(may ? -1 : 0, faccessat(AT_FDCWD, "d/f", F_OK, AT_SYMLINK_NOFOLLOW));
			if (!may)
				type_unlink(t, "d/f");
			MUST(rmdir("d"));
		}
	}
}

/* The file's own mode does not matter, the directory's write and search permission does. */
static void case_directory_permission(void)
{
	FOR_TYPES(t)
	{
		for (unsigned mode = 0; mode < 8; mode++) {
			check_context("%s dir %o", type_name[t], mode);
			MUST(mkdir("d", 0700));
			type_make(t, "d/f", 0);
			MUST(chmod("d", mode));
			if ((mode & 3) == 3)
				OK_AS(USER_A, type_unlink(t, "d/f"));
			else
				ERR_AS(USER_A, EACCES, type_unlink(t, "d/f"));
			MUST(chmod("d", 0700));
			type_unlink(t, "d/f");
			MUST(rmdir("d"));
		}
	}
}

static void case_removed_directory(void)
{
	struct stat st;
	int fd;

	MUST(mkdir("d", 0755));
	fd = file_open("d", O_RDONLY | O_DIRECTORY);
	OK(rmdir("d"));
	st = fd_stat(fd);
	EQ(0, st.st_nlink);
	TRUE(S_ISDIR(st.st_mode));
	ERR(ENOENT, openat(fd, "f", O_CREAT | O_RDWR, 0644));
	ERR(ENOENT, mkdirat(fd, "f", 0755));
	file_make("g", "", 0);
	ERR(ENOENT, linkat(AT_FDCWD, "g", fd, "f", 0));
	ERR(ENOENT, renameat(AT_FDCWD, "g", fd, "f"));
	OK(unlink("g"));
	OK(fchmod(fd, 0700));
	OK(fchown(fd, 1, 1));
	EQ(1, fd_stat(fd).st_uid);
	/* The same name again is another directory. */
	MUST(mkdir("d", 0755));
	TRUE(path_stat("d").st_ino != st.st_ino || path_stat("d").st_nlink == 2);
	OK(rmdir("d"));
}

static void case_busy_cwd(void)
{
	char cwd[4096];
	struct stat st;

	MUST(mkdir("d", 0755));
	MUST(chdir("d"));
	OK(rmdir("../d"));
	ERR(ENOENT, open("f", O_RDWR | O_CREAT, 0644));
	ERR(ENOENT, (long)getcwd(cwd, sizeof(cwd)) ? 0 : -1);
	OK(stat(".", &st));
	EQ(0, st.st_nlink);
	OK(stat("..", &st));
	OK(chdir(".."));
}

static const struct check_case cases[] = {
	{ "times", case_times },
	{ "wrong_call", case_wrong_call },
	{ "enotempty", case_enotempty },
	{ "dots", case_dots },
	{ "parent_counts", case_parent_counts },
	{ "sticky_matrix", case_sticky_matrix },
	{ "directory_permission", case_directory_permission },
	{ "removed_directory", case_removed_directory },
	{ "busy_cwd", case_busy_cwd },
};

CHECK_MAIN(cases)
