/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Making files of every type: mode and umask, owner and group, setgid directories, times of the
 * file and of its parent, link counts, EEXIST over every type, and what a failure leaves (nothing).
 */
#define _GNU_SOURCE
#include "files.h"

#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

/* The ways a file comes to be; a symlink has no mode. */
static int way_open(const char *p, mode_t m)
{
	int fd = open(p, O_RDWR | O_CREAT | O_EXCL, m);

	return fd == -1 ? -1 : close(fd);
}

static int way_creat(const char *p, mode_t m)
{
	int fd = creat(p, m);

	return fd == -1 ? -1 : close(fd);
}

static int way_bind(const char *p, mode_t m)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
	int rc;
	int saved;

	(void)m;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", p);
	rc = bind(fd, (struct sockaddr *)&addr, sizeof(addr));
	saved = errno;
	close(fd);
	errno = saved;
	return rc;
}

static int way_mkdir(const char *p, mode_t m)
{
	return mkdir(p, m);
}
static int way_mkfifo(const char *p, mode_t m)
{
	return mkfifo(p, m);
}
static int way_mknod_reg(const char *p, mode_t m)
{
	return mknod(p, S_IFREG | m, 0);
}
static int way_mknod_fifo(const char *p, mode_t m)
{
	return mknod(p, S_IFIFO | m, 0);
}
static int way_mknod_sock(const char *p, mode_t m)
{
	return mknod(p, S_IFSOCK | m, 0);
}
static int way_mknod_chr(const char *p, mode_t m)
{
	return mknod(p, S_IFCHR | m, makedev(1, 3));
}
static int way_mknod_blk(const char *p, mode_t m)
{
	return mknod(p, S_IFBLK | m, makedev(7, 9));
}
static int way_symlink(const char *p, mode_t m)
{
	return (void)m, symlink("nowhere", p);
}

static const struct way {
	const char *name;
	mode_t type;
	bool root_only;
	bool replaces; /* succeeds on an existing regular file */
	int (*run)(const char *path, mode_t mode);
} ways[] = {
	{ "open", S_IFREG, false, false, way_open },
	{ "creat", S_IFREG, false, true, way_creat },
	{ "mkdir", S_IFDIR, false, false, way_mkdir },
	{ "mkfifo", S_IFIFO, false, false, way_mkfifo },
	{ "mknod(reg)", S_IFREG, false, false, way_mknod_reg },
	{ "mknod(fifo)", S_IFIFO, false, false, way_mknod_fifo },
	{ "mknod(sock)", S_IFSOCK, false, false, way_mknod_sock },
	{ "mknod(chr)", S_IFCHR, true, false, way_mknod_chr },
	{ "mknod(blk)", S_IFBLK, true, false, way_mknod_blk },
	{ "bind", S_IFSOCK, false, false, way_bind },
	{ "symlink", S_IFLNK, false, false, way_symlink },
};

#define FOR_WAYS(w)                      \
	for (const struct way *w = ways; \
	     w < ways + sizeof(ways) / sizeof(ways[0]) && (check_context("%s", w->name), true); w++)

static void way_remove(const char *path)
{
	if (unlink(path) == -1 && errno == EISDIR)
		rmdir(path);
}

static void case_mode_umask(void)
{
	static const mode_t modes[] = { 0755, 0644, 0777, 0666, 0151, 0000, 0700, 01777, 0070 };
	static const mode_t masks[] = { 0, 022, 077, 0777, 0070, 0501, 0123 };

	FOR_WAYS(w)
	{
		for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
			for (size_t k = 0; k < sizeof(masks) / sizeof(masks[0]); k++) {
				mode_t mode = w->run == way_bind ? 0777 : modes[i];

				check_context("%s %o umask %o", w->name, (unsigned)mode, (unsigned)masks[k]);
				umask(masks[k]);
				OK(w->run("f", mode));
				umask(0);
				EQ(w->type | (w->type == S_IFLNK ? 0777 : mode & ~masks[k]),
				   path_stat("f").st_mode);
				way_remove("f");
			}
		}
	}
}

/* Set-id bits at creation: kept for root. mkdir may or may not take them (Linux drops setuid). */
static void case_mode_special(void)
{
	struct stat st;

	FOR_WAYS(w)
	{
		if (w->type == S_IFLNK || w->run == way_bind)
			continue;
		OK(w->run("f", 06755));
		st = path_stat("f");
		if (w->type == S_IFDIR)
			EQ(0755, st.st_mode & 01777);
		else
			EQ(w->type | 06755, st.st_mode);
		way_remove("f");
	}
}

static void case_owner(void)
{
	struct stat st;

	MUST(mkdir("d", 0777));
	MUST(chown("d", USER_C, USER_C));
	FOR_WAYS(w)
	{
		OK(w->run("d/f", 0755));
		st = path_stat("d/f");
		EQ(0, st.st_uid);
		EQ(0, st.st_gid);
		way_remove("d/f");
		if (w->root_only)
			continue;
		user_is(USER_A, USER_B);
		OK(w->run("d/f", 0755));
		user_root();
		st = path_stat("d/f");
		EQ(USER_A, st.st_uid);
		EQ(USER_B, st.st_gid);
		way_remove("d/f");
	}
}

/* In a setgid directory the group is the directory's, and a new directory is setgid too. */
static void case_setgid_dir(void)
{
	static const gid_t groups[] = { USER_C };
	struct stat st;

	MUST(mkdir("d", 0777));
	MUST(chown("d", USER_B, USER_C));
	MUST(chmod("d", 02777));
	FOR_WAYS(w)
	{
		if (w->root_only)
			continue;
		user_is(USER_A, USER_A);
		OK(w->run("d/f", 0755));
		user_root();
		st = path_stat("d/f");
		EQ(USER_A, st.st_uid);
		EQ(USER_C, st.st_gid);
		EQ(w->type == S_IFDIR ? 02000 : 0, st.st_mode & 06000);
		way_remove("d/f");
		if (w->run == way_bind || w->type == S_IFLNK || w->type == S_IFDIR)
			continue;
		/* setgid asked for: only by members of that group. */
		check_context("%s 02775", w->name);
		user_is(USER_A, USER_A);
		OK(w->run("d/f", 02775));
		user_root();
		EQ(w->type | 0775, path_stat("d/f").st_mode);
		way_remove("d/f");
		user_groups_are(USER_A, USER_A, 1, groups);
		OK(w->run("d/f", 02775));
		user_root();
		EQ(w->type | 02775, path_stat("d/f").st_mode);
		way_remove("d/f");
	}
	check_context("nested");
	OK(mkdir("d/e", 0755));
	OK(mkdir("d/e/g", 0755));
	EQ(S_IFDIR | 02755, path_stat("d/e/g").st_mode);
	EQ(USER_C, path_stat("d/e/g").st_gid);
}

static void case_times(void)
{
	struct stat parent;
	struct stat st;
	struct stat ref;

	FOR_WAYS(w)
	{
		file_make("ref", "", 0);
		clock_tick();
		OK(w->run("f", 0755));
		ref = path_stat("ref");
		st = path_stat("f");
		parent = path_stat(".");
		TRUE(time_compare(ref.st_ctim, st.st_ctim) < 0);
		TRUE(time_compare(ref.st_ctim, st.st_mtim) < 0);
		TRUE(time_compare(ref.st_ctim, st.st_atim) < 0);
		TRUE(time_compare(ref.st_ctim, parent.st_mtim) < 0);
		TRUE(time_compare(ref.st_ctim, parent.st_ctim) < 0);
		way_remove("f");
	}
}

static void case_fresh_state(void)
{
	struct stat st;
	struct stat parent = path_stat(".");

	FOR_WAYS(w)
	{
		OK(w->run("f", 0755));
		st = path_stat("f");
		EQ(parent.st_dev, st.st_dev);
		if (w->type == S_IFDIR) {
			EQ(2, st.st_nlink);
			EQ(parent.st_nlink + 1, path_stat(".").st_nlink);
			EQ(st.st_ino, path_stat("f/.").st_ino);
			EQ(parent.st_ino, path_stat("f/..").st_ino);
		} else {
			EQ(1, st.st_nlink);
			EQ(parent.st_nlink, path_stat(".").st_nlink);
		}
		if (w->type == S_IFREG) {
			EQ(0, st.st_size);
			EQ(0, st.st_blocks);
		}
		if (w->type == S_IFLNK)
			EQ(strlen("nowhere"), st.st_size);
		if (w->run == way_mknod_chr)
			EQ(makedev(1, 3), st.st_rdev);
		if (w->run == way_mknod_blk)
			EQ(makedev(7, 9), st.st_rdev);
		way_remove("f");
		EQ(parent.st_nlink, path_stat(".").st_nlink);
	}
}

static void case_eexist(void)
{
	struct stat before;
	struct stat after;
	struct stat parent_before;
	struct stat parent_after;

	FOR_WAYS(w)
	{
		if (w->replaces)
			continue;
		for (int t = 0; t < T_COUNT; t++) {
			check_context("%s over %s", w->name, type_name[t]);
			type_make(t, "f", 0644);
			before = path_stat("f");
			parent_before = path_stat(".");
			ERR(w->run == way_bind ? EADDRINUSE : EEXIST, w->run("f", 0755));
			after = path_stat("f");
			parent_after = path_stat(".");
			EQ(before.st_ino, after.st_ino);
			EQ(before.st_mode, after.st_mode);
			EQ(before.st_nlink, after.st_nlink);
			TRUE(ctime_same(&before, &after));
			TRUE(mtime_same(&parent_before, &parent_after));
			type_unlink(t, "f");
		}
		check_context("%s over dot", w->name);
		ERR(w->run == way_bind ? EADDRINUSE : EEXIST, w->run(".", 0755));
		ERR(w->run == way_bind ? EADDRINUSE : EEXIST, w->run("..", 0755));
	}
}

static void case_eacces(void)
{
	static const mode_t modes[] = { 0555, 0444, 0000, 0666 };
	struct stat before;
	struct stat after;

	FOR_WAYS(w)
	{
		if (w->root_only)
			continue;
		for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
			check_context("%s in %o", w->name, (unsigned)modes[i]);
			MUST(mkdir("d", 0755));
			MUST(chown("d", USER_A, USER_A));
			MUST(chmod("d", modes[i]));
			before = path_stat("d");
			clock_tick();
			ERR_AS(USER_A, EACCES, w->run("d/f", 0755));
			ERR_AS(USER_B, EACCES, w->run("d/f", 0755));
			after = path_stat("d");
			TRUE(mtime_same(&before, &after));
			TRUE(ctime_same(&before, &after));
			ERR(ENOENT, access("d/f", F_OK));
			MUST(rmdir("d"));
		}
	}
}

static void case_mknod_eperm(void)
{
	MUST(mkdir("d", 0777));
	ERR_AS(USER_A, EPERM, mknod("d/f", S_IFCHR | 0644, makedev(1, 3)));
	ERR_AS(USER_A, EPERM, mknod("d/f", S_IFBLK | 0644, makedev(1, 3)));
	ERR2(EPERM, EINVAL, mknod("d/f", S_IFDIR | 0644, 0));
	ERR2(EINVAL, EPERM, mknod("d/f", S_IFLNK | 0644, 0));
	ERR(ENOENT, access("d/f", F_OK));
	OK(mknod("d/zero", 0644, 0));
	TRUE(S_ISREG(path_stat("d/zero").st_mode));
}

static void device_try(unsigned major_number, unsigned minor_number)
{
	check_context("%u:%u", major_number, minor_number);
	for (int block = 0; block < 2; block++) {
		MUST(mknod("f", (block ? S_IFBLK : S_IFCHR) | 0600, makedev(major_number, minor_number)));
		EQ(makedev(major_number, minor_number), path_stat("f").st_rdev);
		MUST(unlink("f"));
	}
}

static void case_device_numbers(void)
{
	device_try(0, 0);
	device_try(1, 3);
	device_try(255, 255);
	device_try(256, 256);
	device_try(1, 0x3ffff);
}

static void case_device_numbers_12_20(void)
{
	device_try(4095, 1);
	device_try(1, 0xfffff);
	device_try(4095, 0xfffff);
}

static void case_symlink_targets(void)
{
	static const size_t lens[] = { 1,   2,   30,  58,  59,  60,  61,  63,  64,  100,  127,
				       128, 200, 255, 256, 300, 400, 511, 512, 513, 1000, 1023 };
	char got[4200];

	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		char *target = name_make(lens[i], 't');

		check_context("target of %zu", lens[i]);
		OK(symlink(target, "l"));
		EQ(lens[i], path_stat("l").st_size);
		EQ(lens[i], readlink("l", got, sizeof(got)));
		MEMEQ(target, got, lens[i]);
		EQ(1, readlink("l", got, 1));
		MUST(unlink("l"));
		free(target);
	}
	check_context("none");
	ERR(ENOENT, symlink("", "l2"));
	file_make("f", "", 0);
	MUST(symlink("f", "l"));
	ERR(EINVAL, readlink("f", got, sizeof(got)));
	ERR(EINVAL, readlink(".", got, sizeof(got)));
	ERR(EINVAL, readlink("l", got, 0));
}

static void case_symlink_targets_long(void)
{
	static const size_t lens[] = { 1024, 1025, 2000, 4030, 4094, 4095 };
	char got[4200];
	char *target;

	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		target = name_make(lens[i], 't');
		check_context("target of %zu", lens[i]);
		OK(symlink(target, "l"));
		EQ(lens[i], path_stat("l").st_size);
		EQ(lens[i], readlink("l", got, sizeof(got)));
		MEMEQ(target, got, lens[i]);
		MUST(unlink("l"));
		free(target);
	}
	target = name_make(4096, 't');
	ERR(ENAMETOOLONG, symlink(target, "l"));
	free(target);
}

/* With a trailing slash only mkdir makes anything. */
static void case_trailing_slash(void)
{
	FOR_WAYS(w)
	{
		if (w->type == S_IFDIR) {
			OK(w->run("f/", 0755));
			MUST(rmdir("f/"));
		} else {
			TRUE(w->run("f/", 0755) == -1);
			TRUE(access("f", F_OK) == -1);
		}
	}
}

static const struct check_case cases[] = {
	{ "mode_umask", case_mode_umask },
	{ "mode_special", case_mode_special },
	{ "owner", case_owner },
	{ "setgid_dir", case_setgid_dir },
	{ "times", case_times },
	{ "fresh_state", case_fresh_state },
	{ "eexist", case_eexist },
	{ "eacces", case_eacces },
	{ "mknod_eperm", case_mknod_eperm },
	{ "device_numbers", case_device_numbers },
	{ "device_numbers_12_20", case_device_numbers_12_20 },
	{ "symlink_targets", case_symlink_targets },
	{ "symlink_targets_long", case_symlink_targets_long },
	{ "trailing_slash", case_trailing_slash },
};

CHECK_MAIN(cases)
