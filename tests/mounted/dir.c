/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading directories: everything once, d_type and d_ino, telldir and seekdir, and what stays true
 * while others add and remove names: a name that was there all the time is listed exactly once.
 */
#define _GNU_SOURCE
#include "files.h"

#include <dirent.h>
#include <sys/syscall.h>

static void files_make(const char *dir, const char *prefix, int first, int count)
{
	char path[64];

	for (int i = first; i < first + count; i++) {
		snprintf(path, sizeof(path), "%s/%s%d", dir, prefix, i);
		MUST(mknod(path, S_IFREG | 0644, 0));
	}
}

/* Counts into seen[] the names prefix0..prefix(count-1) until the end or until stop entries. */
static int names_read(DIR *d, const char *prefix, unsigned char *seen, int count, int stop)
{
	size_t prefix_len = strlen(prefix);
	struct dirent *e;
	int entries = 0;

	while (entries < stop && (e = readdir(d))) {
		entries++;
		if (strncmp(e->d_name, prefix, prefix_len) == 0) {
			int n = atoi(e->d_name + prefix_len);

			if (TRUE(n >= 0 && n < count))
				seen[n]++;
		}
	}
	return entries;
}

static void all_once(const unsigned char *seen, int count)
{
	int bad = 0;

	for (int i = 0; i < count; i++)
		bad += seen[i] != 1;
	EQ(0, bad);
}

static void case_types_and_inodes(void)
{
	static const unsigned char want[T_COUNT] = {
		DT_REG, DT_DIR, DT_FIFO, DT_BLK, DT_CHR, DT_SOCK, DT_LNK
	};
	struct dirent *e;
	int found = 0;
	int dots = 0;
	DIR *d;

	MUST(mkdir("d", 0755));
	MUST(chdir("d"));
	for (int t = 0; t < T_COUNT; t++)
		type_make(t, type_name[t], 0644);
	d = opendir(".");
	if (!TRUE(d != NULL))
		return;
	while ((e = readdir(d))) {
		check_context("%s", e->d_name);
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) {
			dots++;
			EQ(DT_DIR, e->d_type);
			EQ(path_stat(e->d_name).st_ino, e->d_ino);
			continue;
		}
		for (int t = 0; t < T_COUNT; t++) {
			if (strcmp(e->d_name, type_name[t]) == 0) {
				EQ(want[t], e->d_type);
				EQ(path_stat(e->d_name).st_ino, e->d_ino);
				found++;
			}
		}
	}
	EQ(2, dots);
	EQ(T_COUNT, found);
	closedir(d);
}

static void case_rewind(void)
{
	unsigned char seen[100];
	DIR *d;

	MUST(mkdir("d", 0755));
	files_make("d", "f", 0, 50);
	d = opendir("d");
	for (int round = 0; round < 3; round++) {
		memset(seen, 0, sizeof(seen));
		EQ(52, names_read(d, "f", seen, 100, 1000));
		all_once(seen, 50);
		rewinddir(d);
	}
	/* rewinddir sees what is new since, and misses what is gone. */
	files_make("d", "f", 50, 50);
	MUST(unlink("d/f7"));
	rewinddir(d);
	memset(seen, 0, sizeof(seen));
	EQ(101, names_read(d, "f", seen, 100, 1000));
	EQ(0, seen[7]);
	seen[7] = 1;
	all_once(seen, 100);
	closedir(d);
}

static void case_tell_seek(void)
{
	enum { COUNT = 500 };
	char names[COUNT + 2][32];
	long places[COUNT + 2];
	struct rnd r = { 7 };
	struct dirent *e;
	DIR *d;
	int n = 0;

	MUST(mkdir("d", 0755));
	files_make("d", "file-", 0, COUNT);
	d = opendir("d");
	for (;;) {
		long at = telldir(d);

		e = readdir(d);
		if (!e || !TRUE(n < COUNT + 2))
			break;
		places[n] = at;
		snprintf(names[n++], 32, "%.31s", e->d_name);
	}
	EQ(COUNT + 2, n);
	for (int i = 0; i < 2000; i++) {
		int k = (int)rnd_below(&r, COUNT + 2);

		seekdir(d, places[k]);
		e = readdir(d);
		if (!TRUE(e != NULL))
			break;
		STREQ(names[k], e->d_name);
	}
	/* From another descriptor of the same directory the cookies mean the same. */
	DIR *d2 = opendir("d");
	seekdir(d2, places[100]);
	e = readdir(d2);
	if (TRUE(e != NULL))
		STREQ(names[100], e->d_name);
	closedir(d2);
	closedir(d);
}

/* A cookie stays good when the name before it, the name behind it and many others go. */
static void case_seek_after_removal(void)
{
	enum { COUNT = 400 };
	char names[COUNT + 2][32];
	long places[COUNT + 3];
	unsigned char seen[COUNT];
	struct dirent *e;
	char path[40];
	int n = 0;
	DIR *d;

	MUST(mkdir("d", 0755));
	files_make("d", "x", 0, COUNT);
	d = opendir("d");
	while ((e = readdir(d)) && n < COUNT + 2) {
		snprintf(names[n], 32, "%.31s", e->d_name);
		places[++n] = telldir(d);
	}
	/* Of the names on either side of the middle every second one goes. */
	memset(seen, 0, sizeof(seen));
	for (int i = 0; i < n; i += 2) {
		if (names[i][0] == 'x') {
			snprintf(path, sizeof(path), "d/%.31s", names[i]);
			MUST(unlink(path));
		}
	}
	files_make("d", "new", 0, 100);
	seekdir(d, places[n / 2]);
	names_read(d, "x", seen, COUNT, 10000);
	for (int i = n / 2; i < n; i++) {
		if (names[i][0] == 'x')
			EQ(i % 2, seen[atoi(names[i] + 1)]);
	}
	for (int i = 0; i < n / 2; i++) {
		if (names[i][0] == 'x')
			EQ(0, seen[atoi(names[i] + 1)]);
	}
	closedir(d);
}

static void churn_body(void *arg)
{
	char from[64];
	char to[64];

	(void)arg;
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 300; i++) {
			snprintf(from, sizeof(from), "d/churn-%d-%d", round, i);
			MUST(mknod(from, S_IFREG | 0644, 0));
			if (i % 3 == 0) {
				snprintf(to, sizeof(to), "d/moved-%d-%d", round, i);
				MUST(rename(from, to));
				MUST(unlink(to));
			} else if (i % 3 == 1) {
				MUST(unlink(from));
			}
		}
	}
}

/* Names that stay are listed once in each pass, whatever others do meanwhile. */
static void case_stable_under_churn(void)
{
	enum { COUNT = 300 };
	unsigned char seen[COUNT];
	pid_t pids[2];
	DIR *d;

	MUST(mkdir("d", 0755));
	files_make("d", "stay", 0, COUNT);
	for (int i = 0; i < 1; i++)
		pids[i] = child_start(churn_body, NULL);
	for (int pass = 0; pass < 60; pass++) {
		d = opendir("d");
		memset(seen, 0, sizeof(seen));
		names_read(d, "stay", seen, COUNT, 1000000);
		closedir(d);
		check_context("pass %d", pass);
		all_once(seen, COUNT);
	}
	child_wait(pids[0]);
}

/* Deleting while reading, as rm -r does: every name is met. */
static void case_remove_while_reading(void)
{
	char path[300];
	struct dirent *e;
	int removed = 0;
	DIR *d;

	MUST(mkdir("d", 0755));
	files_make("d", "file-with-a-name-", 0, 3000);
	d = opendir("d");
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "d/%s", e->d_name);
		OK(unlink(path));
		removed++;
	}
	closedir(d);
	EQ(3000, removed);
	OK(rmdir("d"));
}

static void case_huge(void)
{
	enum { COUNT = 20000 };
	unsigned char *seen = calloc(1, COUNT);
	struct stat st;
	char path[64];
	DIR *d;

	if (!seen)
		abort();
	MUST(mkdir("d", 0755));
	files_make("d", "n", 0, COUNT);
	d = opendir("d");
	EQ(COUNT + 2, names_read(d, "n", seen, COUNT, COUNT * 2));
	all_once(seen, COUNT);
	closedir(d);
	for (int i = 0; i < COUNT; i += 7) {
		snprintf(path, sizeof(path), "d/n%d", i);
		OK(stat(path, &st));
	}
	ERR(ENOENT, stat("d/n20000", &st));
	for (int i = 0; i < COUNT; i += 2) {
		snprintf(path, sizeof(path), "d/n%d", i);
		MUST(unlink(path));
	}
	memset(seen, 0, COUNT);
	d = opendir("d");
	EQ(COUNT / 2 + 2, names_read(d, "n", seen, COUNT, COUNT * 2));
	closedir(d);
	for (int i = 0; i < COUNT; i++)
		seen[i] = seen[i] == (i & 1);
	all_once(seen, COUNT);
	ERR(ENOTEMPTY, rmdir("d"));
	for (int i = 1; i < COUNT; i += 2) {
		snprintf(path, sizeof(path), "d/n%d", i);
		MUST(unlink(path));
	}
	OK(rmdir("d"));
	free(seen);
}

/* The kernel's own call with buffers small and smaller. */
static void case_small_buffers(void)
{
	static const size_t sizes[] = { 24, 32, 48, 64, 100, 280, 1000, 4096, 65536 };
	char buf[65536];

	MUST(mkdir("d", 0755));
	files_make("d", "f", 0, 300);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		int fd = file_open("d", O_RDONLY | O_DIRECTORY);
		long entries = 0;
		long got;

		check_context("%zu", sizes[i]);
		while ((got = syscall(SYS_getdents64, fd, buf, sizes[i])) > 0) {
			for (long at = 0; at < got; entries++)
				at += *(unsigned short *)(void *)(buf + at + 16);
		}
		if (got == -1 && sizes[i] < 48)
			EQ(EINVAL, errno);
		else
			EQ(302, entries);
		close(fd);
	}
	/* A name of 255 bytes needs 280. */
	char *name = name_make(255, 'z');
	MUST(mkdir("e", 0755));
	MUST(chdir("e"));
	file_make(name, "", 0);
	int fd = file_open(".", O_RDONLY | O_DIRECTORY);
	long got;
	while ((got = syscall(SYS_getdents64, fd, buf, 64)) > 0)
		;
	EQ(-1, got);
	EQ(EINVAL, errno);
	TRUE(syscall(SYS_getdents64, fd, buf, 280) > 255);
	free(name);
}

static void case_atime_and_open_removed(void)
{
	struct dirent *e;
	DIR *d;
	int n = 0;

	MUST(mkdir("d", 0755));
	d = opendir("d");
	MUST(rmdir("d"));
	while ((e = readdir(d)))
		n += e->d_name[0] != '.';
	EQ(0, n);
	closedir(d);
	file_make("f", "", 0);
	ERR(ENOTDIR, (d = opendir("f")) ? 0 : -1);
	char buf[64];
	ERR(ENOTDIR, syscall(SYS_getdents64, file_open("f", O_RDONLY), buf, 64));
}

static const struct check_case cases[] = {
	{ "types_and_inodes", case_types_and_inodes },
	{ "rewind", case_rewind },
	{ "tell_seek", case_tell_seek },
	{ "seek_after_removal", case_seek_after_removal },
	{ "stable_under_churn", case_stable_under_churn },
	{ "remove_while_reading", case_remove_while_reading },
	{ "huge", case_huge },
	{ "small_buffers", case_small_buffers },
	{ "open_removed", case_atime_and_open_removed },
};

CHECK_MAIN(cases)
