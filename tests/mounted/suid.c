/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Setuid and setgid go when somebody without privilege changes the content, by any road; root's
 * own writes leave them. setgid without group execution stays. security.capability goes as well.
 */
#define _GNU_SOURCE
#include "files.h"

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <sys/xattr.h>

#include "../../include/umbra/ioctl.h"

static int road_write(int fd)
{
	return (int)write(fd, "x", 1);
}
static int road_pwrite(int fd)
{
	return (int)pwrite(fd, "x", 1, 5000);
}
static int road_ftruncate(int fd)
{
	return ftruncate(fd, 10);
}
static int road_ftruncate_up(int fd)
{
	return ftruncate(fd, 100000);
}
static int road_truncate(int fd)
{
	return (void)fd, truncate("f", 10);
}
static int road_open_trunc(int fd)
{
	return (void)fd, close(file_open("f", O_WRONLY | O_TRUNC));
}
static int road_fallocate(int fd)
{
	return fallocate(fd, 0, 0, 200000);
}
static int road_punch(int fd)
{
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096);
}

static int road_writev(int fd)
{
	struct iovec iov = { (void *)(uintptr_t) "xyz", 3 };

	return (int)pwritev2(fd, &iov, 1, 0, 0);
}

static int road_append(int fd)
{
	int fd2 = file_open("f", O_WRONLY | O_APPEND);
	int rc = (int)write(fd2, "x", 1);

	(void)fd;
	close(fd2);
	return rc;
}

static int road_copy(int fd)
{
	int src = file_open("src", O_RDONLY);
	int rc = (int)copy_file_range(src, NULL, fd, NULL, 8192, 0);

	close(src);
	return rc;
}

static int road_sendfile(int fd)
{
	int src = file_open("src", O_RDONLY);
	int rc = (int)sendfile(fd, src, NULL, 8192);

	close(src);
	return rc;
}

static const struct road {
	const char *name;
	int (*run)(int fd);
} roads[] = {
	{ "write", road_write },          { "pwrite", road_pwrite },
	{ "writev", road_writev },        { "append", road_append },
	{ "ftruncate", road_ftruncate },  { "ftruncate up", road_ftruncate_up },
	{ "truncate", road_truncate },    { "open O_TRUNC", road_open_trunc },
	{ "fallocate", road_fallocate },  { "punch", road_punch },
	{ "copy_file_range", road_copy }, { "sendfile", road_sendfile },
};

static const mode_t modes[] = { 06755, 04755, 02755, 06777, 04700, 02711, 06555 | 0200, 01755, 0755 };

static mode_t mode_cleared(mode_t mode)
{
	mode &= ~(mode_t)S_ISUID;
	if (mode & S_IXGRP)
		mode &= ~(mode_t)S_ISGID;
	return mode;
}

static void road_try(const struct road *road, mode_t mode, uid_t uid)
{
	int fd;

	check_context("%s %o by %d", road->name, (unsigned)mode, (int)uid);
	file_fill("f", 9000, 1);
	MUST(chown("f", USER_A, USER_A));
	fd = file_open("f", O_RDWR);
	MUST(chmod("f", mode));
	user_is(uid, uid);
	OK(road->run(fd));
	user_root();
	EQ(S_IFREG | (uid ? mode_cleared(mode) : mode), path_stat("f").st_mode);
	EQ(S_IFREG | (uid ? mode_cleared(mode) : mode), fd_stat(fd).st_mode);
	close(fd);
	unlink("f");
}

static void roads_try(uid_t uid, bool others_only)
{
	MUST(chmod(".", 0777));
	file_fill("src", 8192, 2);
	for (size_t i = 0; i < sizeof(roads) / sizeof(roads[0]); i++) {
		/* By path only the owner may, here; the rest works on the descriptor. */
		if (others_only && (roads[i].run == road_truncate || roads[i].run == road_open_trunc ||
				    roads[i].run == road_append))
			continue;
		for (size_t k = 0; k < sizeof(modes) / sizeof(modes[0]); k++)
			road_try(&roads[i], modes[k], uid);
	}
}

static void case_by_owner(void)
{
	roads_try(USER_A, false);
}
static void case_by_other(void)
{
	roads_try(USER_B, true);
}
static void case_by_root(void)
{
	roads_try(0, false);
}

/* Group execution missing: by one who is in the group it stays. */
static void case_setgid_without_x(void)
{
	int fd;

	file_fill("f", 100, 1);
	MUST(chown("f", USER_A, USER_A));
	MUST(chmod("f", 02644));
	fd = file_open("f", O_RDWR);
	user_is(USER_A, USER_A);
	EQ(1, write(fd, "x", 1));
	user_root();
	EQ(S_IFREG | 02644, path_stat("f").st_mode);
}

/* By one who is not, it goes. */
static void case_setgid_of_others(void)
{
	static const gid_t groups[] = { 4711, USER_C };
	static const mode_t modes_of_all[] = { 02666, 06666 };

	MUST(chmod(".", 0777));
	file_fill("src", 8192, 2);
	for (size_t i = 0; i < sizeof(roads) / sizeof(roads[0]); i++) {
		for (unsigned member = 0; member < 2; member++) {
			mode_t mode = modes_of_all[i % 2];
			int fd;

			check_context("%s %o, member %u", roads[i].name, (unsigned)mode, member);
			file_fill("f", 9000, 1);
			MUST(chown("f", USER_B, USER_C));
			fd = file_open("f", O_RDWR);
			MUST(chmod("f", mode));
			user_groups_are(USER_A, USER_A, member ? 2 : 0, groups);
			OK(roads[i].run(fd));
			user_root();
			EQ(S_IFREG | (member ? 02666 : 0666), path_stat("f").st_mode);
			close(fd);
			unlink("f");
		}
	}
}

static void case_read_keeps(void)
{
	char c;

	file_fill("f", 100, 1);
	MUST(chmod("f", 06755));
	user_is(USER_A, USER_A);
	EQ(1, read(file_open("f", O_RDONLY), &c, 1));
	user_root();
	EQ(S_IFREG | 06755, path_stat("f").st_mode);
	/* A write of nothing is no change, a refused one neither. */
	ERR_AS(USER_A, EACCES, open("f", O_WRONLY | O_TRUNC));
	EQ(S_IFREG | 06755, path_stat("f").st_mode);
}

static void case_capability_removed(void)
{
	/* VFS_CAP_REVISION_2, cap_net_raw permitted. */
	static const unsigned char cap[20] = { 0, 0, 0, 2, 0, 0x20 };
	char got[32];
	int fd;

	file_fill("f", 100, 1);
	MUST(chmod("f", 0755));
	OK(setxattr("f", "security.capability", cap, sizeof(cap), 0));
	EQ(sizeof(cap), getxattr("f", "security.capability", got, sizeof(got)));
	/* Root's write too: a capability is bound to the content. */
	fd = file_open("f", O_RDWR);
	EQ(1, write(fd, "x", 1));
	ERR(ENODATA, getxattr("f", "security.capability", got, sizeof(got)));
	OK(setxattr("f", "security.capability", cap, sizeof(cap), 0));
	OK(chown("f", USER_A, USER_A));
	ERR(ENODATA, getxattr("f", "security.capability", got, sizeof(got)));
	OK(setxattr("f", "security.capability", cap, sizeof(cap), 0));
	OK(truncate("f", 1));
	ERR(ENODATA, getxattr("f", "security.capability", got, sizeof(got)));
}

static void case_runs_as_owner(void)
{
	FILE *out;
	int uid = -1;

	MUST(system("cp /usr/bin/id ./id"));
	MUST(chown("id", USER_B, USER_B));
	MUST(chmod("id", 04755));
	user_is(USER_A, USER_A);
	out = popen("./id -u", "r");
	user_root();
	if (!TRUE(out && fscanf(out, "%d", &uid) == 1))
		return;
	pclose(out);
	EQ(USER_B, uid);
}

/* Written to by somebody else it runs as whoever runs it, at once: nobody has asked for its mode in between. */
static void case_written_runs_as_caller(void)
{
	static const int how[] = { O_WRONLY, O_WRONLY | O_APPEND, O_RDWR, O_WRONLY | O_DIRECT };

	for (size_t m = 0; m < sizeof(how) / sizeof(how[0]); m++) {
		FILE *out;
		int uid = -1, fd;
		off_t end;

		MUST(system("cp /usr/bin/id ./id"));
		MUST(chown("id", USER_B, USER_B));
		MUST(chmod("id", 06777));
		end = path_stat("id").st_size;
		user_is(USER_A, USER_A);
		fd = open("id", how[m]);
		if (fd >= 0) {
			ssize_t n = pwrite(fd, "\n", 1, end);

			if (!(how[m] & O_DIRECT)) /* others want whole blocks */
				EQ(1, n);
			close(fd);
			if (n == 1) {
				out = popen("./id -u", "r");
				check_context("open with flags 0%o", (unsigned)how[m]);
				if (TRUE(out && fscanf(out, "%d", &uid) == 1))
					pclose(out);
				TRUE(uid != USER_B);
			}
		}
		user_root();
		MUST(unlink("id"));
	}
}

/* The how of fallocate that come by an ioctl are no way around. */
static void case_fallocate_ioctl(void)
{
	static const unsigned changes[] = { 0, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					    FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE,
					    FALLOC_FL_ZERO_RANGE };
	static const unsigned char cap[20] = { 1, 0, 0, 2, 0, 0x20 };
	static const uid_t users[] = { USER_A, 0 };

	OK(chmod(".", 0777));
	for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]) * 2; i++) {
		uid_t uid = users[i % 2];
		struct umbra_fallocate arg = { .off = 4 * 4096, .len = 4 * 4096 };
		int fd, rc;

		check_context("mode %#x by %d", changes[i / 2], (int)uid);
		file_fill("f", 16 * 4096, 1);
		OK(chown("f", USER_A, USER_A));
		fd = file_open("f", O_RDWR);
		OK(chmod("f", 06755));
		OK(setxattr("f", "security.capability", cap, sizeof(cap), 0));
		user_is(uid, uid);
		arg.mode = changes[i / 2];
		rc = ioctl(fd, UMBRA_IOC_FALLOCATE, &arg);
		if (rc && errno == ENOTTY)
			check_skip("not an umbrafs");
		OK(rc);
		user_root();
		EQ(uid ? 0755 : 06755, path_stat("f").st_mode & 07777);
		ERR(ENODATA, getxattr("f", "security.capability", NULL, 0));
		close(fd);
		OK(unlink("f"));
	}
}

static const struct check_case cases[] = {
	{ "by_owner", case_by_owner },
	{ "by_other", case_by_other },
	{ "by_root", case_by_root },
	{ "setgid_without_x", case_setgid_without_x },
	{ "setgid_of_others", case_setgid_of_others },
	{ "read_keeps", case_read_keeps },
	{ "fallocate_ioctl", case_fallocate_ioctl },
	{ "capability_removed", case_capability_removed },
	{ "runs_as_owner", case_runs_as_owner },
	{ "written_runs_as_caller", case_written_runs_as_caller },
};

CHECK_MAIN(cases)
