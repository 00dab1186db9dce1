/* SPDX-License-Identifier: BSD-3-Clause */
/* rename: every type over every type, counts, "..", times, subtrees, permission. */
#define _GNU_SOURCE
#include "files.h"

static void case_each_type(void)
{
	struct stat before;
	struct stat after;

	MUST(mkdir("d", 0755));
	FOR_TYPES(t)
	{
		type_make(t, "f", 0640);
		before = path_stat("f");
		OK(rename("f", "g"));
		after = path_stat("g");
		ERR(ENOENT, lstat("f", &after));
		after = path_stat("g");
		EQ(before.st_ino, after.st_ino);
		EQ(before.st_mode, after.st_mode);
		EQ(before.st_nlink, after.st_nlink);
		OK(rename("g", "d/h"));
		ERR(ENOENT, lstat("g", &after));
		after = path_stat("d/h");
		EQ(before.st_ino, after.st_ino);
		OK(rename("d/h", "f"));
		EQ(before.st_ino, path_stat("f").st_ino);
		EQ(2, path_stat("d").st_nlink);
		type_unlink(t, "f");
	}
}

/* What happens for each type onto each type: nothing is lost when it is refused. */
static void case_type_over_type(void)
{
	for (int from = 0; from < T_COUNT; from++) {
		for (int to = 0; to < T_COUNT; to++) {
			struct stat a;
			struct stat b;

			check_context("%s over %s", type_name[from], type_name[to]);
			type_make(from, "a", 0644);
			type_make(to, "b", 0600);
			a = path_stat("a");
			b = path_stat("b");
			if (from == T_DIR && to != T_DIR) {
				ERR(ENOTDIR, rename("a", "b"));
			} else if (from != T_DIR && to == T_DIR) {
				ERR(EISDIR, rename("a", "b"));
			} else {
				OK(rename("a", "b"));
				EQ(a.st_ino, path_stat("b").st_ino);
				EQ(a.st_mode, path_stat("b").st_mode);
				ERR(ENOENT, lstat("a", &b));
				type_unlink(from, "b");
				continue;
			}
			EQ(a.st_ino, path_stat("a").st_ino);
			EQ(b.st_ino, path_stat("b").st_ino);
			type_unlink(from, "a");
			type_unlink(to, "b");
		}
	}
}

static void case_over_nonempty(void)
{
	FOR_TYPES(t)
	{
		MUST(mkdir("a", 0755));
		MUST(mkdir("b", 0755));
		type_make(t, "b/x", 0644);
		ERR2(ENOTEMPTY, EEXIST, rename("a", "b"));
		OK(rename("b", "a"));
		OK(access("a", F_OK));
		OK(faccessat(AT_FDCWD, "a/x", F_OK, AT_SYMLINK_NOFOLLOW));
		ERR(ENOENT, access("b", F_OK));
		type_unlink(t, "a/x");
		MUST(rmdir("a"));
	}
}

static void case_overwritten_links(void)
{
	struct stat before;
	struct stat after;
	int fd;

	FOR_TYPES(t)
	{
		if (t == T_DIR)
			continue;
		type_make(t, "src", 0644);
		type_make(t, "dst", 0644);
		MUST(link("dst", "other"));
		before = path_stat("other");
		clock_tick();
		OK(rename("src", "dst"));
		after = path_stat("other");
		EQ(1, after.st_nlink);
		TRUE(time_compare(before.st_ctim, after.st_ctim) < 0);
		EQ(1, path_stat("dst").st_nlink);
		unlink("dst");
		unlink("other");
	}
	check_context("open target");
	file_make("src", "new", 3);
	file_make("dst", "old", 3);
	fd = file_open("dst", O_RDONLY);
	char buf[4] = "";
	OK(rename("src", "dst"));
	EQ(0, fd_stat(fd).st_nlink);
	EQ(3, pread(fd, buf, 3, 0));
	STREQ("old", buf);
	close(fd);
	check_context("open empty dir target");
	MUST(mkdir("e", 0755));
	MUST(mkdir("g", 0755));
	fd = file_open("g", O_RDONLY | O_DIRECTORY);
	OK(rename("e", "g"));
	EQ(0, fd_stat(fd).st_nlink);
	ERR(ENOENT, openat(fd, "x", O_CREAT | O_RDWR, 0644));
}

static void case_same_file(void)
{
	FOR_TYPES(t)
	{
		type_make(t, "f", 0644);
		OK(rename("f", "f"));
		OK(faccessat(AT_FDCWD, "f", F_OK, AT_SYMLINK_NOFOLLOW));
		if (t != T_DIR) {
			/* Two names of one file: nothing happens. */
			MUST(link("f", "g"));
			OK(rename("f", "g"));
			EQ(2, path_stat("f").st_nlink);
			EQ(2, path_stat("g").st_nlink);
			unlink("g");
		}
		type_unlink(t, "f");
	}
}

static void case_times(void)
{
	struct stat dirs[4];
	struct stat before;
	struct stat after;

	MUST(mkdir("a", 0755));
	MUST(mkdir("b", 0755));
	FOR_TYPES(t)
	{
		type_make(t, "a/f", 0644);
		before = path_stat("a/f");
		dirs[0] = path_stat("a");
		dirs[1] = path_stat("b");
		clock_tick();
		OK(rename("a/f", "b/g"));
		after = path_stat("b/g");
		dirs[2] = path_stat("a");
		dirs[3] = path_stat("b");
		for (int i = 0; i < 2; i++) {
			TRUE(time_compare(dirs[i].st_mtim, dirs[i + 2].st_mtim) < 0);
			TRUE(time_compare(dirs[i].st_ctim, dirs[i + 2].st_ctim) < 0);
		}
		/* POSIX leaves the moved file's ctime open; Linux file systems set it. */
		TRUE(time_compare(before.st_ctim, after.st_ctim) < 0);
		TRUE(mtime_same(&before, &after) || t == T_DIR);
		/* A refused one changes nothing. */
		MUST(mkdir("a/full", 0755));
		file_make("a/full/x", "", 0);
		dirs[0] = path_stat("a");
		dirs[1] = path_stat("b");
		before = path_stat("b/g");
		clock_tick();
		TRUE(rename("b/g", "a/full") == -1);
		dirs[2] = path_stat("a");
		dirs[3] = path_stat("b");
		after = path_stat("b/g");
		for (int i = 0; i < 2; i++) {
			TRUE(mtime_same(&dirs[i], &dirs[i + 2]));
			TRUE(ctime_same(&dirs[i], &dirs[i + 2]));
		}
		TRUE(ctime_same(&before, &after));
		unlink("a/full/x");
		rmdir("a/full");
		type_unlink(t, "b/g");
	}
}

static void case_dotdot_and_counts(void)
{
	struct stat st;

	MUST(mkdir("a", 0755));
	MUST(mkdir("b", 0755));
	MUST(mkdir("a/m", 0755));
	MUST(mkdir("a/m/in", 0755));
	EQ(3, path_stat("a").st_nlink);
	OK(rename("a/m", "b/n"));
	EQ(2, path_stat("a").st_nlink);
	EQ(3, path_stat("b").st_nlink);
	EQ(path_stat("b").st_ino, path_stat("b/n/..").st_ino);
	EQ(path_stat("b/n").st_ino, path_stat("b/n/in/..").st_ino);
	/* Over an empty directory: that one's link goes. */
	MUST(mkdir("a/e", 0755));
	EQ(3, path_stat("a").st_nlink);
	OK(rename("b/n", "a/e"));
	EQ(3, path_stat("a").st_nlink);
	EQ(2, path_stat("b").st_nlink);
	EQ(path_stat("a").st_ino, path_stat("a/e/..").st_ino);
	/* From inside: the working directory moves along. */
	MUST(chdir("a/e/in"));
	OK(rename("../../e", "../../../b/e"));
	OK(stat("../../../b/e/in", &st));
	EQ(st.st_ino, path_stat(".").st_ino);
	EQ(path_stat("../../../b").st_ino, path_stat("../..").st_ino);
	/* Within the same directory nothing changes. */
	MUST(chdir("../../.."));
	EQ(3, path_stat("b").st_nlink);
	OK(rename("b/e", "b/f"));
	EQ(3, path_stat("b").st_nlink);
}

static void case_into_own_subtree(void)
{
	MUST(mkdir("a", 0755));
	MUST(mkdir("a/b", 0755));
	MUST(mkdir("a/b/c", 0755));
	ERR(EINVAL, rename("a", "a/x"));
	ERR(EINVAL, rename("a", "a/b"));
	ERR(EINVAL, rename("a", "a/b/x"));
	ERR(EINVAL, rename("a", "a/b/c"));
	ERR(EINVAL, rename("a/b", "a/b/c/x"));
	/* And onto one's own ancestor. */
	ERR(ENOTEMPTY, rename("a/b/c", "a"));
	ERR(ENOTEMPTY, rename("a/b/c", "a/b"));
	file_make("a/b/c/f", "", 0);
	ERR2(ENOTEMPTY, EISDIR, rename("a/b/c/f", "a/b"));
	OK(access("a/b/c", F_OK));
	EQ(3, path_stat("a").st_nlink);
	EQ(3, path_stat("a/b").st_nlink);
}

static void case_dots(void)
{
	MUST(mkdir("a", 0755));
	MUST(mkdir("a/b", 0755));
	ERR2(EINVAL, EBUSY, rename("a/.", "x"));
	ERR2(EINVAL, EBUSY, rename("a/b/..", "x"));
	ERR2(EINVAL, EBUSY, rename("a/b", "a/."));
	ERR2(EINVAL, EBUSY, rename("a/b", "a/.."));
	OK(rename("a/b/", "a/c"));
	OK(rename("a/c", "a/d/"));
	OK(access("a/d", F_OK));
	file_make("f", "", 0);
	ERR(ENOTDIR, rename("f/", "g"));
	ERR(ENOTDIR, rename("f", "g/"));
	ERR(EXDEV, rename("f", "/dev/umbra-test-rename"));
	OK(access("f", F_OK));
}

/* A directory that moves to another parent gets a new "..": that needs write permission on it. */
static void case_moved_dir_permission(void)
{
	MUST(mkdir("a", 0777));
	MUST(mkdir("b", 0777));
	FOR_TYPES(t)
	{
		type_make(t, "a/f", 0755);
		MUST(lchown("a/f", USER_B, USER_B));
		if (t == T_DIR)
			ERR_AS(USER_A, EACCES, rename("a/f", "b/f"));
		else
			OK_AS(USER_A, rename("a/f", "b/f"));
		if (t == T_DIR) {
			OK_AS(USER_A, rename("a/f", "a/g"));
			OK_AS(USER_A, rename("a/g", "a/f"));
			MUST(chmod("a/f", 0777));
			OK_AS(USER_A, rename("a/f", "b/f"));
			MUST(chown("b/f", USER_A, USER_A));
			MUST(chmod("b/f", 0555));
			ERR_AS(USER_A, EACCES, rename("b/f", "a/f"));
			MUST(chmod("b/f", 0755));
			OK_AS(USER_A, rename("b/f", "a/f"));
			MUST(rename("a/f", "b/f"));
		}
		type_unlink(t, "b/f");
	}
}

/* Both parents must be writable and searchable. */
static void case_parent_permission(void)
{
	for (int t = 0; t < T_COUNT; t++) {
		for (unsigned i = 0; i < 64; i++) {
			unsigned from = i & 7;
			unsigned to = i >> 3;
			bool may = (from & 3) == 3 && (to & 3) == 3;

			check_context("%s from dir %o to dir %o", type_name[t], from, to);
			MUST(mkdir("a", 0700));
			MUST(mkdir("b", 0700));
			type_make(t, "a/f", 0777);
			MUST(lchown("a/f", USER_A, USER_A));
			MUST(chmod("a", from));
			MUST(chmod("b", to));
			if (may)
				OK_AS(USER_A, rename("a/f", "b/g"));
			else
				ERR_AS(USER_A, EACCES, rename("a/f", "b/g"));
			type_unlink(t, may ? "b/g" : "a/f");
			MUST(rmdir("a"));
			MUST(rmdir("b"));
		}
	}
}

static void case_deep_tree(void)
{
	struct stat top;
	char path[64 * 4];
	size_t len = 0;

	MUST(mkdir("from", 0755));
	MUST(mkdir("to", 0755));
	len = (size_t)snprintf(path, sizeof(path), "from/t");
	MUST(mkdir(path, 0755));
	for (int i = 0; i < 50; i++) {
		len += (size_t)snprintf(path + len, sizeof(path) - len, "/%d", i % 10);
		MUST(mkdir(path, 0755));
	}
	top = path_stat(path);
	OK(rename("from/t", "to/t"));
	memmove(path, "to///", 4);
	path[2] = '/';
	path[3] = '/';
	path[4] = '/';
	EQ(top.st_ino, path_stat(path).st_ino);
	/* Clean up from below: the framework's walk would do, but "rmdir up" is a test too. */
	for (int i = 0; i < 50; i++) {
		OK(rmdir(path));
		*strrchr(path, '/') = '\0';
	}
}

static const struct check_case cases[] = {
	{ "each_type", case_each_type },
	{ "type_over_type", case_type_over_type },
	{ "over_nonempty", case_over_nonempty },
	{ "overwritten_links", case_overwritten_links },
	{ "same_file", case_same_file },
	{ "times", case_times },
	{ "dotdot_and_counts", case_dotdot_and_counts },
	{ "into_own_subtree", case_into_own_subtree },
	{ "dots", case_dots },
	{ "moved_dir_permission", case_moved_dir_permission },
	{ "parent_permission", case_parent_permission },
	{ "deep_tree", case_deep_tree },
};

CHECK_MAIN(cases)
