/* SPDX-License-Identifier: BSD-3-Clause */
/* rename: sticky directories on both sides, and the flags NOREPLACE, EXCHANGE, WHITEOUT. */
#define _GNU_SOURCE
#include "files.h"

#include <sys/syscall.h>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE 2
#define RENAME_WHITEOUT 4
#endif

static int rename_flags(const char *from, const char *to, unsigned flags)
{
	return renameat2(AT_FDCWD, from, AT_FDCWD, to, flags);
}

static const uid_t ids[] = { 0, USER_A, USER_B };

static bool sticky_may(bool sticky, uid_t dir, uid_t file, uid_t who)
{
	return !sticky || who == 0 || who == dir || who == file;
}

/* Out of a sticky directory. */
static void case_sticky_source(void)
{
	for (int t = 0; t < T_COUNT; t++) {
		for (unsigned i = 0; i < 27; i++) {
			uid_t dir = ids[i % 3];
			uid_t file = ids[i / 3 % 3];
			uid_t who = ids[i / 9];
			bool may = sticky_may(true, dir, file, who);

			check_context("%s dir of %d, file of %d, by %d", type_name[t], (int)dir, (int)file,
				      (int)who);
			MUST(mkdir("s", 0777));
			MUST(mkdir("d", 0777));
			MUST(chown("s", dir, dir));
			MUST(chmod("s", 01777));
			type_make(t, "s/f", 0777);
			MUST(lchown("s/f", file, file));
			if (may) {
				OK_AS(who, rename("s/f", "s/g"));
				OK_AS(who, rename("s/g", "d/h"));
				OK(type_unlink(t, "d/h"));
			} else {
				ERR_AS(who, EPERM, rename("s/f", "s/g"));
				ERR_AS(who, EPERM, rename("s/f", "d/h"));
				OK(type_unlink(t, "s/f"));
			}
			MUST(rmdir("s"));
			MUST(rmdir("d"));
		}
	}
}

/* Over a file in a sticky directory: the file replaced must be one's own to remove. */
static void case_sticky_target(void)
{
	for (int t = 0; t < T_COUNT; t++) {
		for (unsigned i = 0; i < 81; i++) {
			uid_t dir = ids[i % 3];
			uid_t old = ids[i / 3 % 3];
			uid_t who = ids[i / 9 % 3];
			uid_t moved = ids[i / 27];
			bool may = sticky_may(true, dir, old, who);

			check_context("%s dir of %d, target of %d, by %d, moving one of %d", type_name[t],
				      (int)dir, (int)old, (int)who, (int)moved);
			MUST(mkdir("s", 0777));
			MUST(chown("s", dir, dir));
			MUST(chmod("s", 01777));
			MUST(mkdir("d", 0777));
			type_make(t, "d/f", 0777);
			MUST(lchown("d/f", moved, moved));
			type_make(t, "s/g", 0777);
			MUST(lchown("s/g", old, old));
			if (may) {
				OK_AS(who, rename("d/f", "s/g"));
				EQ(moved, path_stat("s/g").st_uid);
			} else {
				ERR_AS(who, EPERM, rename("d/f", "s/g"));
				EQ(old, path_stat("s/g").st_uid);
				OK(type_unlink(t, "d/f"));
			}
			OK(type_unlink(t, "s/g"));
			MUST(rmdir("s"));
			MUST(rmdir("d"));
		}
	}
}

/* Into a sticky directory, new name: anybody who may write it. */
static void case_sticky_into(void)
{
	MUST(mkdir("d", 0777));
	MUST(mkdir("s", 0777));
	MUST(chmod("s", 01777));
	FOR_TYPES(t)
	{
		type_make(t, "d/f", 0777);
		MUST(lchown("d/f", USER_B, USER_B));
		OK_AS(USER_A, rename("d/f", "s/f"));
		ERR_AS(USER_A, EPERM, rename("s/f", "d/f"));
		type_unlink(t, "s/f");
	}
}

static void case_noreplace(void)
{
	struct stat a;
	struct stat b;

	FOR_TYPES(t)
	{
		type_make(t, "a", 0644);
		OK(rename_flags("a", "b", RENAME_NOREPLACE));
		ERR(ENOENT, lstat("a", &a));
		for (int u = 0; u < T_COUNT; u++) {
			check_context("%s over %s", type_name[t], type_name[u]);
			type_make(u, "c", 0644);
			a = path_stat("b");
			b = path_stat("c");
			ERR(EEXIST, rename_flags("b", "c", RENAME_NOREPLACE));
			EQ(a.st_ino, path_stat("b").st_ino);
			EQ(b.st_ino, path_stat("c").st_ino);
			type_unlink(u, "c");
		}
		ERR(EEXIST, rename_flags("b", "b", RENAME_NOREPLACE));
		ERR(EEXIST, rename_flags("b", ".", RENAME_NOREPLACE));
		ERR(ENOENT, rename_flags("gone", "x", RENAME_NOREPLACE));
		type_unlink(t, "b");
	}
}

static void exchange_check(int t, int u)
{
	struct stat a;
	struct stat b;
	struct stat parent[2];

	type_make(t, "p/a", 0644);
	type_make(u, "q/b", 0600);
	a = path_stat("p/a");
	b = path_stat("q/b");
	OK(rename_flags("p/a", "q/b", RENAME_EXCHANGE));
	EQ(b.st_ino, path_stat("p/a").st_ino);
	EQ(a.st_ino, path_stat("q/b").st_ino);
	EQ(a.st_mode, path_stat("q/b").st_mode);
	parent[0] = path_stat("p");
	parent[1] = path_stat("q");
	EQ(2 + (u == T_DIR), parent[0].st_nlink);
	EQ(2 + (t == T_DIR), parent[1].st_nlink);
	EQ(a.st_nlink, path_stat("q/b").st_nlink);
	if (u == T_DIR)
		EQ(parent[0].st_ino, path_stat("p/a/..").st_ino);
	if (t == T_DIR)
		EQ(parent[1].st_ino, path_stat("q/b/..").st_ino);
	/* And within one directory. */
	OK(rename("p/a", "q/a"));
	OK(rename_flags("q/a", "q/b", RENAME_EXCHANGE));
	EQ(a.st_ino, path_stat("q/a").st_ino);
	EQ(b.st_ino, path_stat("q/b").st_ino);
	type_unlink(t, "q/a");
	type_unlink(u, "q/b");
	EQ(2, path_stat("q").st_nlink);
	EQ(2, path_stat("p").st_nlink);
}

static void case_exchange(void)
{
	MUST(mkdir("p", 0755));
	MUST(mkdir("q", 0755));
	for (int t = 0; t < T_COUNT; t++) {
		for (int u = 0; u < T_COUNT; u++) {
			check_context("%s with %s", type_name[t], type_name[u]);
			exchange_check(t, u);
		}
	}
}

static void case_exchange_errors(void)
{
	struct stat before;

	file_make("f", "", 0);
	ERR(ENOENT, rename_flags("f", "gone", RENAME_EXCHANGE));
	ERR(ENOENT, rename_flags("gone", "f", RENAME_EXCHANGE));
	MUST(mkdir("d", 0755));
	MUST(mkdir("d/e", 0755));
	ERR(EINVAL, rename_flags("d", "d/e", RENAME_EXCHANGE));
	ERR(EINVAL, rename_flags("d/e", "d", RENAME_EXCHANGE));
	OK(rename_flags("f", "f", RENAME_EXCHANGE));
	/* Full directories may be exchanged. */
	file_make("d/x", "", 0);
	MUST(mkdir("d2", 0755));
	file_make("d2/y", "", 0);
	before = path_stat("d");
	OK(rename_flags("d", "d2", RENAME_EXCHANGE));
	OK(access("d2/x", F_OK));
	OK(access("d/y", F_OK));
	EQ(before.st_ino, path_stat("d2").st_ino);
	EQ(3, path_stat("d2").st_nlink);
	/* Sticky: both must be one's own. */
	MUST(mkdir("s", 0777));
	MUST(chmod("s", 01777));
	file_make("s/a", "", 0);
	file_make("s/b", "", 0);
	MUST(chown("s/a", USER_A, USER_A));
	MUST(chown("s/b", USER_B, USER_B));
	ERR_AS(USER_A, EPERM, rename_flags("s/a", "s/b", RENAME_EXCHANGE));
	MUST(chown("s/b", USER_A, USER_A));
	OK_AS(USER_A, rename_flags("s/a", "s/b", RENAME_EXCHANGE));
}

static void case_flag_combinations(void)
{
	file_make("a", "", 0);
	file_make("b", "", 0);
	ERR(EINVAL, rename_flags("a", "b", RENAME_NOREPLACE | RENAME_EXCHANGE));
	ERR(EINVAL, rename_flags("a", "b", RENAME_WHITEOUT | RENAME_EXCHANGE));
	ERR(EINVAL, rename_flags("a", "b", 8));
	ERR(EINVAL, rename_flags("a", "b", 1u << 31));
	ERR(EINVAL, rename_flags("a", "b", RENAME_WHITEOUT | 16));
	OK(access("a", F_OK));
	OK(access("b", F_OK));
}

/* Either supported, and then it leaves a 0:0 character device, or refused with EINVAL and no effect. */
static void case_whiteout(void)
{
	struct stat st;

	file_make("a", "x", 1);
	if (rename_flags("a", "b", RENAME_WHITEOUT) == -1) {
		EQ(EINVAL, errno);
		OK(access("a", F_OK));
		ERR(ENOENT, access("b", F_OK));
		return;
	}
	EQ(1, path_stat("b").st_size);
	st = path_stat("a");
	TRUE(S_ISCHR(st.st_mode));
	EQ(0, st.st_rdev);
	EQ(1, st.st_nlink);
}

static const struct check_case cases[] = {
	{ "sticky_source", case_sticky_source },
	{ "sticky_target", case_sticky_target },
	{ "sticky_into", case_sticky_into },
	{ "noreplace", case_noreplace },
	{ "exchange", case_exchange },
	{ "exchange_errors", case_exchange_errors },
	{ "flag_combinations", case_flag_combinations },
	{ "whiteout", case_whiteout },
};

CHECK_MAIN(cases)
