/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Many processes do anything to the names of one small tree, for a number of operations. They
 * expect nothing of a single call but a sensible errno; afterwards the tree must be consistent:
 * link counts, "..", types, sizes, listings, and every file full of its own inode number only.
 */
#define _GNU_SOURCE
#include "files.h"

#include <dirent.h>
#include <ftw.h>
#include <sys/mman.h>
#include <sys/xattr.h>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE 2
#endif

enum { NAMES = 12, DEPTH = 3, LINKS_MAX = 20000 };

static struct rnd rnd;

/* A path of one to three components out of few names, so that processes meet. */
static const char *path_pick(char *path, size_t size)
{
	unsigned depth = 1 + (unsigned)rnd_below(&rnd, DEPTH);
	size_t len = 0;

	for (unsigned i = 0; i < depth; i++) {
		unsigned n = (unsigned)rnd_below(&rnd, NAMES);

		/* Some names are long, so that directories outgrow their inodes. */
		len += (size_t)snprintf(path + len, size - len, "%s%s%u", i ? "/" : "",
					n % 4 ? "n" : "a-rather-long-name-to-fill-the-directory-", n);
	}
	return path;
}

/* Fills part of the file with its inode number. */
static void file_scribble(const char *path, int flags)
{
	uint64_t words[1200];
	int fd = open(path, flags | O_RDWR | O_NONBLOCK | O_NOFOLLOW, 0644);
	struct stat st;

	if (fd == -1)
		return;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
		size_t count = 1 + rnd_below(&rnd, 1200);
		off_t at = (off_t)rnd_below(&rnd, 4000) * 8;

		for (size_t i = 0; i < count; i++)
			words[i] = st.st_ino;
		if (rnd_below(&rnd, 5) == 0 && ftruncate(fd, (off_t)rnd_below(&rnd, 8000) * 8) == -1)
			TRUE(errno == ENOSPC);
		else
			EQ(count * 8, pwrite(fd, words, count * 8, at));
	}
	close(fd);
}

static int dir_list(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;
	struct stat st;

	if (!d)
		return -1;
	while ((e = readdir(d)))
		(void)(fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0);
	return closedir(d);
}

static int step_run(unsigned what, const char *a, const char *b)
{
	struct stat st;
	char buf[300];

	switch (what) {
	case 0:
	case 1:
		return file_scribble(a, O_CREAT), 0;
	case 2:
		return mkdir(a, 0755);
	case 3:
		return link(a, b);
	case 4:
		return symlink(b, a);
	case 5:
		return rename(a, b);
	case 6:
		return renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
	case 7:
		return renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_NOREPLACE);
	case 8:
		return unlink(a);
	case 9:
		return rmdir(a);
	case 10:
		return mknod(a, S_IFIFO | 0644, 0);
	case 11:
		return lsetxattr(a, "trusted.x", b, strlen(b), 0);
	case 12:
		return lremovexattr(a, "trusted.x");
	case 13:
		return lstat(a, &st);
	case 14:
		return dir_list(a);
	case 15:
		return fchmodat(AT_FDCWD, a, (mode_t)rnd_below(&rnd, 512), 0);
	case 16:
		return lchown(a, (uid_t)rnd_below(&rnd, 9), 0);
	case 17:
		return utimensat(AT_FDCWD, a, NULL, AT_SYMLINK_NOFOLLOW);
	case 18:
		return (int)readlink(a, buf, sizeof(buf));
	case 19:
		return file_scribble(a, 0), 0;
	default:
		return (int)lgetxattr(a, "trusted.x", buf, sizeof(buf));
	}
}

/* What a racing call may fail with; anything else is news. */
static bool errno_expected(int error)
{
	static const int expected[] = { ENOENT, EEXIST, ENOTDIR,    EISDIR,      ENOTEMPTY, EINVAL,
					EBUSY,  EPERM,  ELOOP,      ENODATA,     EMLINK,    ENXIO,
					EACCES, EXDEV,  EOPNOTSUPP, ENAMETOOLONG };

	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
		if (error == expected[i])
			return true;
	}
	return false;
}

struct stress {
	uint64_t seed;
	unsigned step_count;
};

static void stress_body(void *arg)
{
	const struct stress *s = arg;
	char a[200];
	char b[200];

	rnd.state = s->seed;
	for (unsigned i = 0; i < s->step_count && check_failed_count() < 10; i++) {
		unsigned what = (unsigned)rnd_below(&rnd, 21);

		path_pick(a, sizeof(a));
		path_pick(b, sizeof(b));
		check_context("seed %lu step %u: operation %u on %s and %s", (unsigned long)s->seed, i, what,
			      a, b);
		errno = 0;
		if (step_run(what, a, b) == -1 && !errno_expected(errno))
			OK(-1);
	}
}

/* One inode as the walk met it. */
struct met {
	ino_t ino;
	nlink_t nlink;
	nlink_t names;
};

static struct met mets[LINKS_MAX];
static size_t met_count;

static void met_add(const struct stat *st)
{
	size_t i;

	for (i = 0; i < met_count && mets[i].ino != st->st_ino; i++)
		;
	if (i == met_count && TRUE(met_count < LINKS_MAX))
		mets[met_count++] = (struct met){ st->st_ino, st->st_nlink, 0 };
	mets[i].names++;
	EQ(mets[i].nlink, st->st_nlink);
}

static void content_check(const char *path, const struct stat *st)
{
	uint64_t words[4096];
	int fd = file_open(path, O_RDONLY);
	off_t total = 0;
	ssize_t n;

	while ((n = OK(read(fd, words, sizeof(words)))) > 0) {
		total += n;
		for (size_t i = 0; i < (size_t)n / 8; i++) {
			if (words[i] != 0 && !EQ(st->st_ino, words[i]))
				break;
		}
	}
	EQ(st->st_size, total);
	close(fd);
}

static int type_of(unsigned char d_type)
{
	return (int)DTTOIF(d_type);
}

static void dir_check(const char *path, ino_t parent)
{
	struct stat self = path_stat(path);
	struct dirent *e;
	struct stat st;
	char sub[4096];
	unsigned subdirs = 0;
	DIR *d = opendir(path);

	if (!TRUE(d != NULL))
		return;
	while ((e = readdir(d))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) {
			EQ(e->d_name[1] ? parent : self.st_ino, e->d_ino);
			continue;
		}
		if (snprintf(sub, sizeof(sub), "%s/%s", path, e->d_name) >= (int)sizeof(sub))
			continue;
		check_context("%s", sub);
		if (OK(lstat(sub, &st)) == -1)
			continue;
		EQ(st.st_ino, e->d_ino);
		EQ(st.st_mode & S_IFMT, type_of(e->d_type));
		if (S_ISDIR(st.st_mode)) {
			subdirs++;
			dir_check(sub, self.st_ino);
		} else {
			met_add(&st);
		}
		if (S_ISREG(st.st_mode))
			content_check(sub, &st);
	}
	closedir(d);
	check_context("%s", path);
	EQ(subdirs + 2, self.st_nlink);
}

static void stress_run(unsigned process_count, unsigned step_count)
{
	struct stress s[8];
	pid_t pids[8];

	MUST(mkdir("t", 0755));
	MUST(chdir("t"));
	for (unsigned i = 0; i < process_count; i++) {
		s[i] = (struct stress){ check_seed() + i, step_count };
		pids[i] = child_start(stress_body, &s[i]);
	}
	for (unsigned i = 0; i < process_count; i++)
		child_wait(pids[i]);
	met_count = 0;
	dir_check(".", path_stat("..").st_ino);
	check_context("link counts, seed %lu", (unsigned long)check_seed());
	for (size_t i = 0; i < met_count; i++)
		EQ(mets[i].names, mets[i].nlink);
}

static void case_one_process(void)
{
	stress_run(1, 10000 * check_scale());
}
static void case_four_processes(void)
{
	stress_run(4, 5000 * check_scale());
}
static void case_eight_processes(void)
{
	stress_run(8, 2500 * check_scale());
}

static const struct check_case cases[] = {
	{ "one_process", case_one_process },
	{ "four_processes", case_four_processes },
	{ "eight_processes", case_eight_processes },
};

CHECK_MAIN(cases)
