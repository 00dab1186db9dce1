/* SPDX-License-Identifier: BSD-3-Clause */
/* link: counts, shared attributes, times, who may, and every refusal. */
#define _GNU_SOURCE
#include "files.h"

static void case_counts(void)
{
	struct stat a;
	struct stat b;

	MUST(mkdir("d", 0755));
	FOR_TYPES(t)
	{
		if (t == T_DIR)
			continue;
		type_make(t, "f", 0644);
		EQ(1, path_stat("f").st_nlink);
		OK(link("f", "g"));
		OK(link("g", "d/h"));
		a = path_stat("f");
		b = path_stat("d/h");
		EQ(3, a.st_nlink);
		EQ(3, b.st_nlink);
		EQ(a.st_ino, b.st_ino);
		EQ(a.st_mode, b.st_mode);
		OK(lchown("g", 7, 8));
		EQ(7, path_stat("d/h").st_uid);
		EQ(8, path_stat("f").st_gid);
		if (t != T_LNK) {
			OK(chmod("d/h", 0201));
			EQ(type_mode(t) | 0201, path_stat("f").st_mode);
		}
		OK(unlink("f"));
		EQ(2, path_stat("g").st_nlink);
		ERR(ENOENT, lstat("f", &a));
		OK(unlink("g"));
		EQ(1, path_stat("d/h").st_nlink);
		OK(unlink("d/h"));
		ERR(ENOENT, lstat("d/h", &a));
	}
}

static void case_times(void)
{
	struct stat before;
	struct stat after;
	struct stat parent_before;
	struct stat parent_after;

	MUST(mkdir("d", 0755));
	FOR_TYPES(t)
	{
		if (t == T_DIR)
			continue;
		type_make(t, "f", 0644);
		before = path_stat("f");
		parent_before = path_stat("d");
		clock_tick();
		OK(link("f", "d/g"));
		after = path_stat("f");
		parent_after = path_stat("d");
		TRUE(time_compare(before.st_ctim, after.st_ctim) < 0);
		TRUE(mtime_same(&before, &after));
		TRUE(time_compare(parent_before.st_mtim, parent_after.st_mtim) < 0);
		TRUE(time_compare(parent_before.st_ctim, parent_after.st_ctim) < 0);
		before = after;
		parent_before = parent_after;
		clock_tick();
		ERR(EEXIST, link("f", "d/g"));
		after = path_stat("f");
		parent_after = path_stat("d");
		TRUE(ctime_same(&before, &after));
		TRUE(mtime_same(&parent_before, &parent_after));
		TRUE(ctime_same(&parent_before, &parent_after));
		/* Removing one name changes the ctime of the others. */
		clock_tick();
		OK(unlink("d/g"));
		after = path_stat("f");
		TRUE(time_compare(before.st_ctim, after.st_ctim) < 0);
		unlink("f");
	}
}

static void case_eexist(void)
{
	file_make("src", "", 0);
	FOR_TYPES(t)
	{
		type_make(t, "f", 0644);
		ERR(EEXIST, link("src", "f"));
		EQ(1, path_stat("src").st_nlink);
		type_unlink(t, "f");
	}
	ERR(EEXIST, link("src", "src"));
	ERR(EEXIST, link("src", "."));
	ERR(EEXIST, link("src", ".."));
}

static void case_directory(void)
{
	MUST(mkdir("d", 0777));
	MUST(chown("d", USER_A, USER_A));
	ERR(EPERM, link("d", "e"));
	ERR(EPERM, link(".", "e"));
	MUST(chmod(".", 0777));
	ERR_AS(USER_A, EPERM, link("d", "e"));
	ERR(ENOENT, access("e", F_OK));
	EQ(2, path_stat("d").st_nlink);
}

static void case_exdev(void)
{
	file_make("f", "", 0);
	/* /dev and /proc are other file systems anywhere. */
	ERR(EXDEV, link("f", "/dev/umbra-test-link"));
	ERR(EXDEV, link("/proc/version", "g"));
	EQ(1, path_stat("f").st_nlink);
}

static void case_symlink_follow(void)
{
	file_make("f", "abc", 3);
	MUST(symlink("f", "l"));
	OK(link("l", "hard-l"));
	TRUE(S_ISLNK(path_stat("hard-l").st_mode));
	EQ(2, path_stat("l").st_nlink);
	OK(linkat(AT_FDCWD, "l", AT_FDCWD, "hard-f", AT_SYMLINK_FOLLOW));
	EQ(path_stat("f").st_ino, path_stat("hard-f").st_ino);
	EQ(2, path_stat("f").st_nlink);
	MUST(symlink("gone", "dangling"));
	ERR(ENOENT, linkat(AT_FDCWD, "dangling", AT_FDCWD, "x", AT_SYMLINK_FOLLOW));
	OK(link("dangling", "x"));
	ERR(EINVAL, linkat(AT_FDCWD, "f", AT_FDCWD, "y", 0x4000));
}

static void case_content_shared(void)
{
	char c = 0;

	file_make("f", "abc", 3);
	MUST(link("f", "g"));
	int a = file_open("f", O_RDWR);
	int b = file_open("g", O_RDWR);
	EQ(1, pwrite(a, "X", 1, 1));
	EQ(1, pread(b, &c, 1, 1));
	EQ('X', c);
	OK(ftruncate(b, 100));
	EQ(100, fd_stat(a).st_size);
	EQ(100, path_stat("f").st_size);
}

static void case_thousand_links(void)
{
	char name[32];

	file_make("f", "", 0);
	MUST(mkdir("d", 0755));
	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "d/link-%d", i);
		MUST(link("f", name));
	}
	EQ(1001, path_stat("f").st_nlink);
	MUST(unlink("f"));
	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "d/link-%d", i);
		EQ(1000 - i, path_stat(name).st_nlink);
		MUST(unlink(name));
	}
	OK(rmdir("d"));
}

/* The same link count limit as everybody's who can be asked: at least that many links work. */
static void case_link_max(void)
{
	long max = pathconf(".", _PC_LINK_MAX);
	long tried = max > 0 && max < 70000 ? max : 2000;
	char name[32];
	long i;

	file_make("f", "", 0);
	for (i = 1; i < tried; i++) {
		snprintf(name, sizeof(name), "l%ld", i);
		if (link("f", name) == -1)
			break;
	}
	if (i < tried)
		EQ(EMLINK, errno);
	EQ(i, path_stat("f").st_nlink);
	if (max > 0 && max < 70000 && max > 127)
		EQ(max, i);
}

static void case_reused_name(void)
{
	struct stat st;

	/* The same name again and again, with and without the file behind it going. */
	file_make("keep", "k", 1);
	for (int i = 0; i < 200; i++) {
		OK(link("keep", "n"));
		EQ(2, path_stat("keep").st_nlink);
		OK(unlink("n"));
		file_make("n", "x", 1);
		EQ(1, path_stat("n").st_nlink);
		OK(unlink("n"));
		ERR(ENOENT, stat("n", &st));
	}
	EQ(1, path_stat("keep").st_nlink);
}

static const struct check_case cases[] = {
	{ "counts", case_counts },
	{ "times", case_times },
	{ "eexist", case_eexist },
	{ "directory", case_directory },
	{ "exdev", case_exdev },
	{ "symlink_follow", case_symlink_follow },
	{ "content_shared", case_content_shared },
	{ "thousand_links", case_thousand_links },
	{ "link_max", case_link_max },
	{ "reused_name", case_reused_name },
};

CHECK_MAIN(cases)
