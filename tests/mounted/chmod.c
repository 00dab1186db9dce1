/* SPDX-License-Identifier: BSD-3-Clause */
/* chmod, fchmod: who may, what it sets, what it does to the times, and which bits it drops. */
#define _GNU_SOURCE
#include "files.h"

static void case_every_mode(void)
{
	struct stat st;

	FOR_TYPES(t)
	{
		if (t == T_LNK)
			continue;
		type_make(t, "f", 0644);
		for (unsigned mode = 0; mode <= 07777; mode += mode < 01000 ? 1 : 0111) {
			if (!OK(chmod("f", mode)))
				EQ(type_mode(t) | mode, path_stat("f").st_mode);
		}
		/* Bits that are no permission bits are ignored, the type stays. */
		OK(chmod("f", S_IFMT | 0712));
		EQ(type_mode(t) | 0712, path_stat("f").st_mode);
		type_unlink(t, "f");
	}
	file_make("f", "", 0);
	int fd = file_open("f", O_RDWR);
	for (unsigned mode = 0; mode <= 07777; mode += 0137) {
		OK(fchmod(fd, mode));
		EQ(S_IFREG | mode, fd_stat(fd).st_mode);
		st = path_stat("f");
		EQ(S_IFREG | mode, st.st_mode);
	}
}

static void case_through_symlink(void)
{
	FOR_TYPES(t)
	{
		if (t == T_LNK)
			continue;
		type_make(t, "f", 0644);
		MUST(symlink("f", "l"));
		OK(chmod("l", 0321));
		EQ(type_mode(t) | 0321, path_stat("f").st_mode);
		EQ(S_IFLNK | 0777, path_stat("l").st_mode);
		MUST(unlink("l"));
		type_unlink(t, "f");
	}
}

static void case_ctime(void)
{
	struct stat before;
	struct stat after;

	FOR_TYPES(t)
	{
		if (t == T_LNK)
			continue;
		type_make(t, "f", 0644);
		MUST(chown("f", USER_A, USER_A));
		before = path_stat("f");
		clock_tick();
		ERR_AS(USER_B, EPERM, chmod("f", 0111));
		after = path_stat("f");
		TRUE(ctime_same(&before, &after));
		EQ(before.st_mode, after.st_mode);
		OK_AS(USER_A, chmod("f", 0111));
		after = path_stat("f");
		TRUE(time_compare(before.st_ctim, after.st_ctim) < 0);
		TRUE(mtime_same(&before, &after));
		TRUE(atime_same(&before, &after));
		type_unlink(t, "f");
	}
}

static void case_eperm(void)
{
	static const gid_t group_a[] = { USER_A };

	FOR_TYPES(t)
	{
		if (t == T_LNK)
			continue;
		type_make(t, "f", 0666);
		MUST(chown("f", USER_A, USER_A));
		OK_AS(USER_A, chmod("f", 0660));
		ERR_AS(USER_B, EPERM, chmod("f", 0600));
		/* Being in the group is not being the owner. */
		user_groups_are(USER_B, USER_B, 1, group_a);
		ERR(EPERM, chmod("f", 0600));
		user_root();
		EQ(type_mode(t) | 0660, path_stat("f").st_mode);
		MUST(chown("f", 0, 0));
		ERR_AS(USER_A, EPERM, chmod("f", 0600));
		MUST(symlink("f", "l"));
		ERR_AS(USER_A, EPERM, chmod("l", 0600));
		EQ(type_mode(t) | 0660, path_stat("f").st_mode);
		unlink("l");
		type_unlink(t, "f");
	}
}

static void case_fchmod_eperm(void)
{
	int fd;

	file_make("f", "", 0);
	MUST(chown("f", USER_A, USER_A));
	MUST(chmod("f", 0666));
	user_is(USER_B, USER_B);
	fd = file_open("f", O_RDWR);
	ERR(EPERM, fchmod(fd, 0777));
	user_root();
	EQ(S_IFREG | 0666, fd_stat(fd).st_mode);
}

/* The setgid bit goes when the owner who sets it is not in the file's group. */
static void case_setgid_not_in_group(void)
{
	static const gid_t groups[] = { USER_B };
	int fd;

	FOR_TYPES(t)
	{
		if (t == T_LNK)
			continue;
		type_make(t, "f", 0755);
		MUST(chown("f", USER_A, USER_B));
		user_groups_are(USER_A, USER_A, 1, groups);
		OK(chmod("f", 02755));
		user_root();
		EQ(type_mode(t) | 02755, path_stat("f").st_mode);
		OK_AS(USER_A, chmod("f", 02750));
		EQ(type_mode(t) | 0750, path_stat("f").st_mode);
		OK_AS(USER_A, chmod("f", 06755));
		EQ(type_mode(t) | 04755, path_stat("f").st_mode);
		/* Root may always. */
		OK(chmod("f", 06755));
		EQ(type_mode(t) | 06755, path_stat("f").st_mode);
		type_unlink(t, "f");
	}
	check_context("fchmod");
	file_make("f", "", 0);
	MUST(chown("f", USER_A, USER_B));
	fd = file_open("f", O_RDWR);
	OK_AS(USER_A, fchmod(fd, 02755));
	EQ(S_IFREG | 0755, fd_stat(fd).st_mode);
}

/* The sticky bit is anybody's to set on his own files. */
static void case_sticky_by_user(void)
{
	FOR_TYPES(t)
	{
		if (t == T_LNK)
			continue;
		type_make(t, "f", 0755);
		MUST(chown("f", USER_A, USER_A));
		OK_AS(USER_A, chmod("f", 01755));
		EQ(type_mode(t) | 01755, path_stat("f").st_mode);
		type_unlink(t, "f");
	}
}

static void case_seen_by_open_file(void)
{
	char c = 0;
	int fd;

	/* A file opened before the mode forbade it stays usable. */
	file_make("f", "abc", 3);
	MUST(chown("f", USER_A, USER_A));
	user_is(USER_A, USER_A);
	fd = file_open("f", O_RDWR);
	OK(chmod("f", 0));
	EQ(1, pread(fd, &c, 1, 1));
	EQ('b', c);
	EQ(1, pwrite(fd, "X", 1, 1));
	ERR(EACCES, open("f", O_RDONLY));
	EQ(S_IFREG | 0, fd_stat(fd).st_mode);
	user_root();
}

static const struct check_case cases[] = {
	{ "every_mode", case_every_mode },
	{ "through_symlink", case_through_symlink },
	{ "ctime", case_ctime },
	{ "eperm", case_eperm },
	{ "fchmod_eperm", case_fchmod_eperm },
	{ "setgid_not_in_group", case_setgid_not_in_group },
	{ "sticky_by_user", case_sticky_by_user },
	{ "seen_by_open_file", case_seen_by_open_file },
};

CHECK_MAIN(cases)
