/* SPDX-License-Identifier: BSD-3-Clause */
/* Names: every byte but / and NUL, every length, look-alikes, long paths, and many of them. */
#define _GNU_SOURCE
#include "files.h"

#include <dirent.h>
#include <limits.h>

/* How often name is listed in dir. */
static int listed_count(const char *dir, const char *name)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	int count = 0;

	if (!TRUE(d != NULL))
		return -1;
	while ((e = readdir(d)))
		count += strcmp(e->d_name, name) == 0;
	closedir(d);
	return count;
}

static void name_try(const char *name)
{
	struct stat st;

	MUST(mkdir("d", 0755));
	int dir = file_open("d", O_RDONLY | O_DIRECTORY);
	int fd = (int)OK(openat(dir, name, O_RDWR | O_CREAT | O_EXCL, 0644));
	EQ(1, write(fd, "x", 1));
	close(fd);
	OK(fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW));
	EQ(1, st.st_size);
	EQ(1, listed_count("d", name));
	OK(renameat(dir, name, dir, "plain"));
	ERR(ENOENT, fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW));
	OK(linkat(dir, "plain", dir, name, 0));
	EQ(1, listed_count("d", name));
	OK(unlinkat(dir, name, 0));
	EQ(0, listed_count("d", name));
	OK(mkdirat(dir, name, 0755));
	OK(unlinkat(dir, name, AT_REMOVEDIR));
	OK(symlinkat(name, dir, name));
	char target[300] = "";
	OK(readlinkat(dir, name, target, sizeof(target) - 1));
	STREQ(name, target);
	OK(unlinkat(dir, name, 0));
	OK(unlinkat(dir, "plain", 0));
	close(dir);
	OK(rmdir("d"));
}

static void case_every_byte(void)
{
	char name[8];

	for (int c = 1; c < 256; c++) {
		if (c == '/')
			continue;
		check_context("byte 0x%02x", c);
		if (c != '.') {
			snprintf(name, sizeof(name), "%c", c);
			name_try(name);
		}
		snprintf(name, sizeof(name), "a%cb", c);
		name_try(name);
		snprintf(name, sizeof(name), "%c%c%c", c, c, c);
		name_try(name);
	}
}

static void case_all_bytes_together(void)
{
	char name[256];
	int len = 0;

	for (int c = 1; c < 256; c++) {
		if (c != '/')
			name[len++] = (char)c;
	}
	name[len] = '\0';
	name_try(name);
	/* All 254 of them, each once, one after the other in one directory. */
	for (int c = 1; c < 256; c++) {
		char one[4] = { 'n', (char)c, 0 };

		if (c != '/')
			file_make(one, one, 2);
	}
	for (int c = 1; c < 256; c++) {
		char one[4] = { 'n', (char)c, 0 };

		if (c != '/')
			EQ(1, listed_count(".", one));
	}
}

static void case_every_length(void)
{
	for (size_t len = 1; len <= NAME_MAX; len++) {
		char *name = name_make(len, 'n');

		check_context("length %zu", len);
		name_try(name);
		free(name);
	}
}

static void case_look_alikes(void)
{
	static const char *const names[] = {
		"a",
		"A",
		"aa",
		"aA",
		"a ",
		" a",
		"a.",
		".a",
		"..a",
		"a..",
		"...",
		". ",
		" .",
		"a\t",
		"\xc3\xa4",
		"a\xcc\x88",
		"\xe4",
		"CON",
		"nul",
		"a:b",
		"a\\b",
		"*",
		"?",
		"~",
		"-rf",
		"#a#",
		"\xe2\x80\xae",
		"\n",
		"a\nb",
		"\xff\xfe",
		"\xf0\x9f\x98\x80",
		".fuse_hidden0001",
		"lost+found",
	};
	char got[64];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		check_context("%s", names[i]);
		ERR(ENOENT, access(names[i], F_OK));
		file_make(names[i], names[i], strlen(names[i]));
	}
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		check_context("%s", names[i]);
		int fd = file_open(names[i], O_RDONLY);

		memset(got, 0, sizeof(got));
		OK(read(fd, got, sizeof(got) - 1));
		STREQ(names[i], got);
		EQ(1, listed_count(".", names[i]));
		close(fd);
	}
}

/* A path longer than PATH_MAX, walked step by step, with getcwd telling its length. */
static void case_deep(void)
{
	char *name = name_make(200, 'p');
	int depth;
	struct stat st;

	for (depth = 0; depth < 60; depth++) {
		MUST(mkdir(name, 0755));
		MUST(chdir(name));
	}
	file_make("bottom", "b", 1);
	OK(stat("bottom", &st));
	int fd = file_open(".", O_RDONLY | O_DIRECTORY);
	for (int i = 0; i < depth; i++)
		MUST(chdir(".."));
	ERR(ENOENT, access("bottom", F_OK));
	OK(fstatat(fd, "bottom", &st, 0));
	OK(fchdir(fd));
	OK(unlink("bottom"));
	while (depth-- > 0) {
		MUST(chdir(".."));
		OK(rmdir(name));
	}
	free(name);
}

static void case_thousand_deep(void)
{
	for (int i = 0; i < 1000; i++) {
		MUST(mkdir("d", 0755));
		MUST(chdir("d"));
	}
	file_make("f", "x", 1);
	OK(rename("f", "g"));
	OK(unlink("g"));
	for (int i = 0; i < 1000; i++) {
		MUST(chdir(".."));
		MUST(rmdir("d"));
	}
}

/* Names that were looked up in vain must be found once they are there, made by any road. */
static void case_negative_lookup(void)
{
	struct stat st;

	MUST(mkdir("sub", 0755));
	for (int i = 0; i < 60; i++) {
		ERR(ENOENT, stat("n", &st));
		ERR(ENOENT, stat("n", &st));
		switch (i % 6) {
		case 0:
			file_make("n", "", 0);
			break;
		case 1:
			MUST(mkdir("n", 0755));
			break;
		case 2:
			MUST(symlink("sub", "n"));
			break;
		case 3:
			file_make("o", "", 0);
			MUST(rename("o", "n"));
			break;
		case 4:
			file_make("o", "", 0);
			MUST(link("o", "n"));
			break;
		case 5:
			MUST(mkfifo("n", 0644));
			break;
		}
		OK(stat("n", &st));
		OK(i % 6 == 1 ? rmdir("n") : unlink("n"));
		unlink("o");
	}
}

static const struct check_case cases[] = {
	{ "every_byte", case_every_byte },
	{ "all_bytes_together", case_all_bytes_together },
	{ "every_length", case_every_length },
	{ "look_alikes", case_look_alikes },
	{ "deep", case_deep },
	{ "thousand_deep", case_thousand_deep },
	{ "negative_lookup", case_negative_lookup },
};

CHECK_MAIN(cases)
