/* SPDX-License-Identifier: BSD-3-Clause */
/* utimensat and futimens: exactness, range, permission; and which operations touch which time. */
#define _GNU_SOURCE
#include "files.h"

#include <sys/mman.h>
#include <sys/xattr.h>

static int times_set(const char *path, struct timespec a, struct timespec m)
{
	struct timespec ts[2] = { a, m };

	return utimensat(AT_FDCWD, path, ts, AT_SYMLINK_NOFOLLOW);
}

static struct timespec ts_of(long long sec, long nsec)
{
	return (struct timespec){ .tv_sec = sec, .tv_nsec = nsec };
}

static void times_are(const char *path, struct timespec a, struct timespec m)
{
	struct stat st = path_stat(path);

	EQ(a.tv_sec, st.st_atim.tv_sec);
	EQ(a.tv_nsec, st.st_atim.tv_nsec);
	EQ(m.tv_sec, st.st_mtim.tv_sec);
	EQ(m.tv_nsec, st.st_mtim.tv_nsec);
}

static void case_exact(void)
{
	static const long nsecs[] = { 0, 1, 999, 1000, 123456789, 999999999 };

	FOR_TYPES(t)
	{
		type_make(t, "f", 0644);
		for (size_t i = 0; i < sizeof(nsecs) / sizeof(nsecs[0]); i++) {
			struct timespec a = ts_of(1900000000, nsecs[i]);
			struct timespec m = ts_of(1000000000, nsecs[5 - i]);

			OK(times_set("f", a, m));
			times_are("f", a, m);
		}
		type_unlink(t, "f");
	}
}

static void times_range(long long first, long long last)
{
	const long long secs[] = { first, first + 1, first / 2, last / 2, last - 1, last };

	file_make("f", "", 0);
	for (size_t i = 0; i < sizeof(secs) / sizeof(secs[0]); i++) {
		struct timespec ts = ts_of(secs[i], 987654321);

		check_context("%lld", secs[i]);
		OK(times_set("f", ts, ts));
		times_are("f", ts, ts);
	}
}

/* 1901-12-13 to 2038-01-19: what every file system keeps. */
static void case_range_32bit(void)
{
	times_range(-0x7fffffffLL, 0x7fffffffLL);
}

/* Past 2038, up to 2446, as ext4 with 34 bits does; xfs bigtime goes to 2486. */
static void case_range_2446(void)
{
	times_range(0x80000000LL, 0x37ffffffeLL);
}

static void case_now_and_omit(void)
{
	struct timespec old = ts_of(1000000000, 111111111);
	struct timespec before;
	struct stat st;

	FOR_TYPES(t)
	{
		type_make(t, "f", 0644);
		OK(times_set("f", old, old));
		clock_gettime(CLOCK_REALTIME_COARSE, &before);
		OK(times_set("f", ts_of(0, UTIME_NOW), ts_of(0, UTIME_OMIT)));
		st = path_stat("f");
		TRUE(time_compare(st.st_atim, before) >= 0);
		EQ(0, time_compare(st.st_mtim, old));
		OK(times_set("f", ts_of(0, UTIME_OMIT), ts_of(0, UTIME_NOW)));
		st = path_stat("f");
		TRUE(time_compare(st.st_mtim, before) >= 0);
		OK(times_set("f", old, ts_of(0, UTIME_OMIT)));
		st = path_stat("f");
		EQ(0, time_compare(st.st_atim, old));
		OK(times_set("f", ts_of(0, UTIME_NOW), ts_of(0, UTIME_NOW)));
		st = path_stat("f");
		TRUE(time_compare(st.st_atim, before) >= 0 && time_compare(st.st_mtim, before) >= 0);
		/* Both omitted: nothing at all happens. */
		clock_tick();
		OK(times_set("f", ts_of(0, UTIME_OMIT), ts_of(0, UTIME_OMIT)));
		struct stat same = path_stat("f");
		TRUE(ctime_same(&st, &same) && mtime_same(&st, &same) && atime_same(&st, &same));
		type_unlink(t, "f");
	}
}

static void case_ctime(void)
{
	struct timespec old = ts_of(1000000000, 1);
	struct stat before;
	struct stat after;

	FOR_TYPES(t)
	{
		type_make(t, "f", 0644);
		before = path_stat("f");
		clock_tick();
		OK(times_set("f", old, old));
		after = path_stat("f");
		TRUE(time_compare(before.st_ctim, after.st_ctim) < 0);
		type_unlink(t, "f");
	}
}

static void case_symlink(void)
{
	struct timespec ts[2] = { ts_of(5, 6), ts_of(7, 8) };
	struct stat link_before;
	struct stat after;

	file_make("f", "", 0);
	MUST(symlink("f", "l"));
	link_before = path_stat("l");
	OK(utimensat(AT_FDCWD, "l", ts, 0));
	times_are("f", ts[0], ts[1]);
	after = path_stat("l");
	TRUE(mtime_same(&link_before, &after));
	ts[1] = ts_of(9, 10);
	OK(utimensat(AT_FDCWD, "l", ts, AT_SYMLINK_NOFOLLOW));
	EQ(9, path_stat("l").st_mtim.tv_sec);
	EQ(7, path_stat("f").st_mtim.tv_sec);
}

/* Any time: the owner. Now: whoever may write, too. */
static void case_permission(void)
{
	struct timespec ts = ts_of(1000, 0);
	struct timespec now = ts_of(0, UTIME_NOW);
	struct timespec omit = ts_of(0, UTIME_OMIT);

	FOR_TYPES(t)
	{
		if (t == T_LNK)
			continue;
		type_make(t, "f", 0644);
		MUST(chown("f", USER_A, USER_A));
		OK_AS(USER_A, times_set("f", ts, ts));
		OK_AS(USER_A, times_set("f", now, now));
		ERR_AS(USER_B, EACCES, utimensat(AT_FDCWD, "f", NULL, 0));
		ERR_AS(USER_B, EACCES, times_set("f", now, now));
		ERR_AS(USER_B, EPERM, times_set("f", ts, ts));
		ERR_AS(USER_B, EPERM, times_set("f", now, omit));
		ERR_AS(USER_B, EPERM, times_set("f", omit, now));
		OK_AS(USER_B, times_set("f", omit, omit));
		MUST(chmod("f", 0666));
		OK_AS(USER_B, utimensat(AT_FDCWD, "f", NULL, 0));
		OK_AS(USER_B, times_set("f", now, now));
		ERR_AS(USER_B, EPERM, times_set("f", ts, ts));
		ERR_AS(USER_B, EPERM, times_set("f", ts, now));
		ERR_AS(USER_B, EPERM, times_set("f", now, omit));
		/* The owner needs no write permission. */
		MUST(chmod("f", 0444));
		OK_AS(USER_A, utimensat(AT_FDCWD, "f", NULL, 0));
		type_unlink(t, "f");
	}
}

static void case_errors(void)
{
	struct timespec ts[2] = { ts_of(1, 1000000000), ts_of(1, 0) };

	file_make("f", "", 0);
	ERR(EINVAL, utimensat(AT_FDCWD, "f", ts, 0));
	ts[0] = ts_of(1, -1);
	ERR(EINVAL, utimensat(AT_FDCWD, "f", ts, 0));
	ts[0] = ts_of(1, 0);
	ERR(EINVAL, utimensat(AT_FDCWD, "f", ts, 0x4000));
	ERR(EFAULT, utimensat(AT_FDCWD, "f", pointer_bad(), 0));
	OK(futimens(file_open("f", O_RDONLY), ts));
	EQ(1, path_stat("f").st_mtim.tv_sec);
}

/* Which calls move mtime and ctime, and which do not. */
static void touch_check(const char *what, bool want_mtime, bool want_ctime, struct stat *before)
{
	struct stat after = path_stat("f");

	check_context("%s", what);
	EQ(want_mtime, time_compare(before->st_mtim, after.st_mtim) < 0);
	EQ(want_ctime, time_compare(before->st_ctim, after.st_ctim) < 0);
	*before = after;
	clock_tick();
}

static void case_who_touches(void)
{
	struct stat st;
	char c;
	int fd;

	file_fill("f", 10000, 1);
	fd = file_open("f", O_RDWR);
	st = path_stat("f");
	clock_tick();
	EQ(1, pwrite(fd, "x", 1, 0));
	touch_check("write", true, true, &st);
	EQ(0, pwrite(fd, "x", 0, 0));
	touch_check("write of nothing", false, false, &st);
	EQ(1, pread(fd, &c, 1, 0));
	touch_check("read", false, false, &st);
	OK(fsync(fd));
	touch_check("fsync", false, false, &st);
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
	touch_check("punch", true, true, &st);
	OK(fallocate(fd, 0, 0, 20000));
	touch_check("fallocate", true, true, &st);
	OK(chmod("f", 0600));
	touch_check("chmod", false, true, &st);
	OK(setxattr("f", "user.x", "y", 1, 0));
	touch_check("setxattr", false, true, &st);
	OK(removexattr("f", "user.x"));
	touch_check("removexattr", false, true, &st);
	ERR(ENODATA, removexattr("f", "user.x"));
	touch_check("removexattr refused", false, false, &st);
	OK(link("f", "g"));
	touch_check("link", false, true, &st);
	OK(unlink("g"));
	touch_check("unlink of another name", false, true, &st);
	OK(close(file_open("f", O_RDWR)));
	touch_check("open and close", false, false, &st);
	OK(ftruncate(fd, 5));
	touch_check("ftruncate", true, true, &st);
	OK(rename("f", "h") || rename("h", "f"));
	touch_check("rename", false, true, &st);
}

static char *map_make(int *fd)
{
	char *map;

	file_fill("f", 8192, 1);
	*fd = file_open("f", O_RDWR);
	MUST(fsync(*fd));
	map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	MUST(map == MAP_FAILED ? -1 : 0);
	return map;
}

/* After msync of a dirty shared mapping both times have moved; reading through it moves nothing. */
static void case_mmap_write(void)
{
	struct stat before;
	struct stat after;
	int fd;
	char *map = map_make(&fd);

	before = path_stat("f");
	clock_tick();
	map[5000] = 'x';
	OK(msync(map, 8192, MS_SYNC));
	after = path_stat("f");
	TRUE(time_compare(before.st_mtim, after.st_mtim) < 0);
	TRUE(time_compare(before.st_ctim, after.st_ctim) < 0);
	before = after;
	clock_tick();
	EQ(path_stat("f").st_size, 8192 + 0 * ((volatile char *)map)[100]);
	OK(msync(map, 8192, MS_SYNC));
	munmap(map, 8192);
	close(fd);
	after = path_stat("f");
	TRUE(mtime_same(&before, &after));
}

/* Once msync has cleaned the page, the next store to it counts again. */
static void case_mmap_write_again(void)
{
	struct stat before;
	struct stat after;
	int fd;
	char *map = map_make(&fd);

	for (int i = 0; i < 3; i++) {
		before = path_stat("f");
		clock_tick();
		map[5000] = (char)i;
		OK(msync(map, 8192, MS_SYNC));
		after = path_stat("f");
		TRUE(time_compare(before.st_mtim, after.st_mtim) < 0);
		TRUE(time_compare(before.st_ctim, after.st_ctim) < 0);
	}
}

/* A time that is set after a store through a mapping stays, also when the page is written later; the next store moves it. */
static void case_mmap_write_and_set(void)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = 1000000000, .tv_nsec = 5 } };
	int fd;
	char *map = map_make(&fd);

	for (int i = 0; i < 3; i++) {
		map[5000] = (char)(10 + i);
		OK(i == 1 ? futimens(fd, times) : utimensat(AT_FDCWD, "f", times, 0));
		EQ(0, time_compare(path_stat("f").st_mtim, times[1]));
		OK(msync(map, 8192, MS_SYNC));
		OK(fsync(fd));
		EQ(0, time_compare(path_stat("f").st_mtim, times[1]));
		EQ(10 + i, map[5000]);
	}
	map[100] = 1;
	OK(msync(map, 8192, MS_SYNC));
	TRUE(time_compare(path_stat("f").st_mtim, times[1]) > 0);
	OK(utimensat(AT_FDCWD, "f", times, 0));
	munmap(map, 8192);
	close(fd);
	EQ(0, time_compare(path_stat("f").st_mtim, times[1]));
}

/* A read that the page cache does not answer: on FUSE only such a read is seen by anybody. */
static void read_cold(int fd)
{
	char c;

	OK(fsync(fd));
	EQ(0, posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
	EQ(1, pread(fd, &c, 1, 0));
}

/*
 * relatime: a read moves an atime that is not after mtime and ctime, and one that is a day old;
 * no other. (Setting times sets ctime to now, so only an atime to come is after it.)
 */
static void case_relatime(void)
{
	struct timespec now;
	struct timespec set;
	struct stat st;
	int fd;

	clock_gettime(CLOCK_REALTIME, &now);
	file_fill("f", 100, 1);
	fd = file_open("f", O_RDONLY);
	check_context("atime before mtime");
	set = now;
	set.tv_sec -= 2000;
	MUST(times_set("f", set, now));
	read_cold(fd);
	st = path_stat("f");
	TRUE(time_compare(st.st_atim, set) > 0);
	EQ(0, time_compare(st.st_mtim, now));
	check_context("atime after mtime and ctime");
	set.tv_sec += 10000;
	MUST(times_set("f", set, now));
	read_cold(fd);
	st = path_stat("f");
	EQ(0, time_compare(st.st_atim, set));
	check_context("atime older than a day");
	set.tv_sec -= 400000;
	now.tv_sec -= 500000;
	MUST(times_set("f", set, now));
	read_cold(fd);
	TRUE(time_compare(path_stat("f").st_atim, set) > 0);
}

/* What leaves the size as it is counts all the same where the call says so. */
static void case_truncate_same(void)
{
	struct timespec old = ts_of(1000000000, 0);
	int fd;

	for (size_t size = 0; size < 6; size += 5) {
		check_context("%zu bytes", size);
		file_make("f", "hello", size);
		fd = file_open("f", O_RDWR);
		MUST(times_set("f", old, old));
		OK(ftruncate(fd, (off_t)size));
		TRUE(path_stat("f").st_mtim.tv_sec > old.tv_sec);
		close(fd);
		MUST(times_set("f", old, old));
		close(file_open("f", O_WRONLY | O_TRUNC));
		TRUE(path_stat("f").st_mtim.tv_sec > old.tv_sec);
		MUST(unlink("f"));
	}
}

/* A time that was set holds, though a read just before it moved it. */
static void case_atime_after_read(void)
{
	struct timespec old = ts_of(1000000000, 0), set = ts_of(1100000000, 5);
	int fd;

	file_make("f", "hello", 5);
	fd = file_open("f", O_RDONLY);
	MUST(times_set("f", old, ts_of(1050000000, 0)));
	read_cold(fd);
	OK(times_set("f", set, old));
	times_are("f", set, old);
	sync();
	times_are("f", set, old);
	close(fd);
}

static const struct check_case cases[] = {
	{ "exact", case_exact },
	{ "range_32bit", case_range_32bit },
	{ "range_2446", case_range_2446 },
	{ "now_and_omit", case_now_and_omit },
	{ "ctime", case_ctime },
	{ "symlink", case_symlink },
	{ "permission", case_permission },
	{ "errors", case_errors },
	{ "who_touches", case_who_touches },
	{ "mmap_write", case_mmap_write },
	{ "mmap_write_again", case_mmap_write_again },
	{ "mmap_write_and_set", case_mmap_write_and_set },
	{ "relatime", case_relatime },
	{ "truncate_same", case_truncate_same },
	{ "atime_after_read", case_atime_after_read },
};

CHECK_MAIN(cases)
