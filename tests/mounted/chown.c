/* SPDX-License-Identifier: BSD-3-Clause */
/* chown, lchown, fchown: who may, what it sets, its times, and the bits it clears. */
#define _GNU_SOURCE
#include "files.h"

#define KEEP ((uid_t)-1)

static void owner_is(const char *path, uid_t uid, gid_t gid)
{
	struct stat st = path_stat(path);

	EQ(uid, st.st_uid);
	EQ(gid, st.st_gid);
}

static void case_by_root(void)
{
	FOR_TYPES(t)
	{
		type_make(t, "f", 0644);
		owner_is("f", 0, 0);
		OK(lchown("f", 123, 456));
		owner_is("f", 123, 456);
		OK(lchown("f", 0x7ffffffe, 0x7fffffff));
		owner_is("f", 0x7ffffffe, 0x7fffffff);
		OK(lchown("f", 0xfffffffe, 0xfffffffe));
		owner_is("f", 0xfffffffe, 0xfffffffe);
		OK(lchown("f", KEEP, 5));
		owner_is("f", 0xfffffffe, 5);
		OK(lchown("f", 6, KEEP));
		owner_is("f", 6, 5);
		OK(lchown("f", KEEP, KEEP));
		owner_is("f", 6, 5);
		OK(lchown("f", 0, 0));
		owner_is("f", 0, 0);
		type_unlink(t, "f");
	}
}

static void case_symlinks(void)
{
	int fd;

	FOR_TYPES(t)
	{
		if (t == T_LNK)
			continue;
		type_make(t, "f", 0644);
		MUST(symlink("f", "l"));
		OK(chown("l", 11, 12));
		owner_is("f", 11, 12);
		owner_is("l", 0, 0);
		OK(lchown("l", 21, 22));
		owner_is("f", 11, 12);
		owner_is("l", 21, 22);
		OK(fchownat(AT_FDCWD, "l", 31, 32, AT_SYMLINK_NOFOLLOW));
		owner_is("l", 31, 32);
		unlink("l");
		type_unlink(t, "f");
	}
	file_make("f", "", 0);
	fd = file_open("f", O_RDONLY);
	OK(fchown(fd, 41, 42));
	owner_is("f", 41, 42);
}

/* The owner gives his file to a group of his, and nobody gives a file away. */
static void case_by_owner(void)
{
	static const gid_t groups[] = { USER_A, USER_B };

	FOR_TYPES(t)
	{
		type_make(t, "f", 0644);
		MUST(lchown("f", USER_A, USER_A));
		user_groups_are(USER_A, USER_A, 2, groups);
		OK(lchown("f", KEEP, USER_B));
		owner_is("f", USER_A, USER_B);
		OK(lchown("f", USER_A, USER_A));
		owner_is("f", USER_A, USER_A);
		OK(lchown("f", USER_A, KEEP));
		ERR(EPERM, lchown("f", KEEP, USER_C));
		ERR(EPERM, lchown("f", USER_B, KEEP));
		ERR(EPERM, lchown("f", USER_B, USER_A));
		ERR(EPERM, lchown("f", 0, 0));
		user_root();
		owner_is("f", USER_A, USER_A);
		type_unlink(t, "f");
	}
}

static void case_eperm(void)
{
	static const gid_t groups[] = { USER_A, USER_B };
	struct stat before;
	struct stat after;

	FOR_TYPES(t)
	{
		type_make(t, "f", 0666);
		MUST(lchown("f", USER_A, USER_A));
		before = path_stat("f");
		clock_tick();
		user_groups_are(USER_B, USER_B, 2, groups);
		ERR(EPERM, lchown("f", KEEP, USER_B));
		ERR(EPERM, lchown("f", USER_B, USER_B));
		ERR(EPERM, lchown("f", USER_B, KEEP));
		/* Not even to what it is. */
		ERR(EPERM, lchown("f", USER_A, USER_A));
		OK(lchown("f", KEEP, KEEP));
		user_root();
		if (t != T_LNK) {
			MUST(symlink("f", "l"));
			ERR_AS(USER_B, EPERM, chown("l", USER_B, USER_B));
			unlink("l");
		}
		after = path_stat("f");
		EQ(before.st_uid, after.st_uid);
		EQ(before.st_gid, after.st_gid);
		type_unlink(t, "f");
	}
}

static void case_ctime(void)
{
	static const gid_t groups[] = { USER_B };
	struct stat before;
	struct stat after;

	FOR_TYPES(t)
	{
		type_make(t, "f", 0644);
		before = path_stat("f");
		clock_tick();
		OK(lchown("f", USER_A, USER_A));
		after = path_stat("f");
		TRUE(time_compare(before.st_ctim, after.st_ctim) < 0);
		TRUE(mtime_same(&before, &after));
		TRUE(atime_same(&before, &after));
		before = after;
		clock_tick();
		user_groups_are(USER_A, USER_A, 1, groups);
		OK(lchown("f", KEEP, USER_B));
		user_root();
		after = path_stat("f");
		TRUE(time_compare(before.st_ctim, after.st_ctim) < 0);
		before = after;
		clock_tick();
		ERR_AS(USER_A, EPERM, lchown("f", USER_B, KEEP));
		after = path_stat("f");
		TRUE(ctime_same(&before, &after));
		type_unlink(t, "f");
	}
}

/*
 * A change of owner clears setuid, and setgid where the group may execute; setgid without group
 * execution is an old lock mark, and a directory's setgid is about inheritance: both stay.
 */
static void case_suid_cleared(void)
{
	static const struct {
		mode_t before;
		mode_t root;
		mode_t owner;
	} rows[] = {
		{ 06555, 00555, 00555 }, { 04555, 00555, 00555 }, { 02555, 00555, 00555 },
		{ 06550, 00550, 00550 }, { 06505, 02505, 02505 }, { 04500, 00500, 00500 },
		{ 02644, 02644, 02644 }, { 01755, 01755, 01755 }, { 05755, 01755, 01755 },
		{ 00777, 00777, 00777 }, { 00000, 00000, 00000 },
	};
	static const gid_t groups[] = { USER_A, USER_B };

	for (int t = 0; t < T_COUNT; t++) {
		if (t == T_LNK)
			continue;
		for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
			check_context("%s %o", type_name[t], (unsigned)rows[i].before);
			type_make(t, "f", 0644);
			MUST(chown("f", USER_A, USER_A));
			MUST(chmod("f", rows[i].before));
			OK(chown("f", USER_C, USER_C));
			EQ(type_mode(t) | (t == T_DIR ? rows[i].before : rows[i].root),
			   path_stat("f").st_mode);
			MUST(chown("f", USER_A, USER_A));
			MUST(chmod("f", rows[i].before));
			user_groups_are(USER_A, USER_A, 2, groups);
			OK(chown("f", KEEP, USER_B));
			user_root();
			if ((rows[i].before & 02010) != 02000)
				EQ(type_mode(t) | (t == T_DIR ? rows[i].before : rows[i].owner),
				   path_stat("f").st_mode);
			type_unlink(t, "f");
		}
	}
}

/* On Linux even a chown that names nobody counts, from the owner and from root. */
static void case_suid_cleared_by_nobody(void)
{
	static const uid_t who[] = { 0, USER_A };

	for (size_t i = 0; i < 2; i++) {
		check_context("by %d", (int)who[i]);
		file_make("f", "", 0);
		MUST(chown("f", USER_A, USER_A));
		MUST(chmod("f", 06755));
		OK_AS(who[i], chown("f", KEEP, KEEP));
		EQ(S_IFREG | 0755, path_stat("f").st_mode);
		MUST(chmod("f", 06755));
		OK_AS(who[i], chown("f", USER_A, USER_A));
		EQ(S_IFREG | 0755, path_stat("f").st_mode);
		MUST(unlink("f"));
	}
}

/* A refused chown clears nothing. */
static void case_suid_kept_on_failure(void)
{
	file_make("f", "", 0);
	MUST(chown("f", USER_A, USER_A));
	MUST(chmod("f", 06755));
	ERR_AS(USER_B, EPERM, chown("f", USER_B, USER_B));
	ERR_AS(USER_A, EPERM, chown("f", USER_B, KEEP));
	ERR_AS(USER_B, EPERM, chown("f", KEEP, KEEP));
	EQ(S_IFREG | 06755, path_stat("f").st_mode);
	/* Without such a bit anybody may ask for nothing. */
	MUST(chmod("f", 0755));
	OK_AS(USER_B, chown("f", KEEP, KEEP));
}

static void case_new_owner_rules(void)
{
	file_make("f", "abc", 3);
	MUST(chmod("f", 0600));
	ERR_AS(USER_A, EACCES, open("f", O_RDONLY));
	OK(chown("f", USER_A, USER_A));
	OK_AS(USER_A, close((int)MUST(open("f", O_RDONLY))));
	OK(chown("f", USER_B, USER_B));
	ERR_AS(USER_A, EACCES, open("f", O_RDONLY));
	OK(chmod("f", 0640));
	OK(chown("f", USER_B, USER_A));
	OK_AS(USER_A, close((int)MUST(open("f", O_RDONLY))));
	ERR_AS(USER_A, EACCES, open("f", O_WRONLY));
}

static const struct check_case cases[] = {
	{ "by_root", case_by_root },
	{ "symlinks", case_symlinks },
	{ "by_owner", case_by_owner },
	{ "eperm", case_eperm },
	{ "ctime", case_ctime },
	{ "suid_cleared", case_suid_cleared },
	{ "suid_cleared_by_nobody", case_suid_cleared_by_nobody },
	{ "suid_kept_on_failure", case_suid_kept_on_failure },
	{ "new_owner_rules", case_new_owner_rules },
};

CHECK_MAIN(cases)
