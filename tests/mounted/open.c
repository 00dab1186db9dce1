/* SPDX-License-Identifier: BSD-3-Clause */
/* open: permission matrix, flags, O_CREAT, O_TRUNC, and each error that a type or a flag earns. */
#define _GNU_SOURCE
#include "files.h"

#include <sys/mman.h>
#include <sys/wait.h>

static int try_open(const char *path, int flags)
{
	int fd = open(path, flags | O_NONBLOCK, 0644);

	return fd == -1 ? -1 : close(fd);
}

/* Every mode of owner, group and other, every access, as each of the three (and a group member). */
static void case_permission_matrix(void)
{
	static const struct {
		uid_t uid;
		gid_t gid;
		bool member;
		int shift;
	} who[] = { { USER_A, USER_A, false, 6 },
		    { USER_C, USER_B, false, 3 },
		    { USER_C, USER_C, true, 3 },
		    { USER_C, USER_C, false, 0 } };
	static const gid_t groups[] = { USER_B };
	static const int accesses[] = { O_RDONLY, O_WRONLY, O_RDWR, O_RDONLY | O_TRUNC };
	static const unsigned needs[] = { 4, 2, 6, 6 };

	for (int t = T_REG; t <= T_FIFO; t++) {
		type_make(t, "f", 0);
		MUST(chown("f", USER_A, USER_B));
		for (unsigned bits = 0; bits < 0777 * 4; bits++) {
			size_t w = bits & 3;
			unsigned mode = bits >> 2;
			unsigned have = (mode >> who[w].shift) & 7;

			/* One digit at a time, the others all set or all clear. */
			unsigned others = mode & ~(7u << who[w].shift);
			if (others != 0 && others != (0777u & ~(7u << who[w].shift)))
				continue;
			check_context("%s %o as %zu", type_name[t], mode, w);
			MUST(chmod("f", mode));
			user_groups_are(who[w].uid, who[w].gid, who[w].member ? 1 : 0, groups);
			for (int a = 0; a < (t == T_REG ? 4 : t == T_DIR ? 1 : 0); a++) {
				if ((needs[a] & have) == needs[a])
					OK(try_open("f", accesses[a]));
				else
					ERR(EACCES, try_open("f", accesses[a]));
			}
			if (t == T_FIFO) {
				if (have & 4)
					OK(try_open("f", O_RDONLY));
				else
					ERR(EACCES, try_open("f", O_RDONLY));
				if (have & 2)
					ERR(ENXIO, try_open("f", O_WRONLY));
				else
					ERR(EACCES, try_open("f", O_WRONLY));
			}
			EQ((have & 1) ? 0 : -1, faccessat(AT_FDCWD, "f", X_OK, AT_EACCESS));
			user_root();
		}
		type_unlink(t, "f");
	}
}

static void case_eacces_create(void)
{
	MUST(mkdir("d", 0755));
	file_make("d/f", "abc", 3);
	MUST(chmod("d/f", 0666));
	ERR_AS(USER_A, EACCES, try_open("d/new", O_RDWR | O_CREAT));
	/* O_CREAT of what is there needs no right to the directory, O_TRUNC needs one to the file. */
	OK_AS(USER_A, try_open("d/f", O_RDWR | O_CREAT));
	MUST(chmod("d/f", 0644));
	ERR_AS(USER_A, EACCES, try_open("d/f", O_RDONLY | O_TRUNC));
	ERR_AS(USER_A, EACCES, try_open("d/f", O_RDWR | O_CREAT | O_TRUNC));
	EQ(3, path_stat("d/f").st_size);
	/* The mode of creation does not bind the descriptor that creates. */
	MUST(chmod("d", 0777));
	user_is(USER_A, USER_A);
	int fd = (int)MUST(open("d/locked", O_RDWR | O_CREAT | O_EXCL, 0));
	EQ(2, write(fd, "xy", 2));
	ERR(EACCES, try_open("d/locked", O_RDONLY));
	user_root();
	EQ(S_IFREG | 0, path_stat("d/locked").st_mode);
}

static void case_eisdir(void)
{
	MUST(mkdir("d", 0755));
	ERR(EISDIR, try_open("d", O_WRONLY));
	ERR(EISDIR, try_open("d", O_RDWR));
	ERR(EISDIR, try_open("d", O_RDONLY | O_TRUNC));
	ERR(EISDIR, try_open("d", O_WRONLY | O_TRUNC));
	ERR(EISDIR, try_open("d", O_RDONLY | O_CREAT));
	ERR(EISDIR, try_open("new/", O_RDWR | O_CREAT));
	ERR(EEXIST, try_open("d", O_RDONLY | O_CREAT | O_EXCL));
	OK(try_open("d", O_RDONLY));
	OK(try_open("d", O_RDONLY | O_DIRECTORY));
	int fd = (int)MUST(open("d", O_RDONLY));
	char c;
	ERR(EISDIR, read(fd, &c, 1));
	ERR(EBADF, write(fd, &c, 1));
}

static void case_symlinks(void)
{
	file_make("f", "abc", 3);
	MUST(symlink("f", "l"));
	MUST(symlink("gone", "dangling"));
	MUST(symlink(".", "here"));
	OK(try_open("l", O_RDWR));
	ERR(ELOOP, try_open("l", O_RDWR | O_NOFOLLOW));
	ERR(ELOOP, try_open("l", O_RDWR | O_NOFOLLOW | O_CREAT));
	ERR(ENOENT, try_open("dangling", O_RDWR));
	ERR(EEXIST, try_open("dangling", O_RDWR | O_CREAT | O_EXCL));
	ERR(ENOENT, access("gone", F_OK));
	OK(try_open("dangling", O_RDWR | O_CREAT));
	TRUE(S_ISREG(path_stat("gone").st_mode));
	OK(try_open("here/f", O_RDWR | O_NOFOLLOW));
	OK(try_open("here", O_RDONLY | O_DIRECTORY));
	ERR2(ENOTDIR, ELOOP, try_open("here", O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
}

static void case_eexist(void)
{
	FOR_TYPES(t)
	{
		type_make(t, "f", 0644);
		ERR(EEXIST, try_open("f", O_RDWR | O_CREAT | O_EXCL));
		ERR_AS(USER_A, EEXIST, try_open("f", O_RDWR | O_CREAT | O_EXCL));
		type_unlink(t, "f");
	}
}

static void case_special_types(void)
{
	MUST(mkfifo("fifo", 0644));
	ERR(ENXIO, try_open("fifo", O_WRONLY));
	ERR(ENXIO, open("fifo", O_WRONLY | O_NONBLOCK));
	OK(try_open("fifo", O_RDONLY));
	OK(try_open("fifo", O_RDWR));
	type_make(T_SOCK, "sock", 0644);
	ERR(ENXIO, try_open("sock", O_RDONLY));
	ERR(ENXIO, try_open("sock", O_RDWR));
	/* A character device with no driver, and one with. */
	MUST(mknod("nodev", S_IFCHR | 0644, (dev_t)0x1ff << 8));
	ERR2(ENXIO, ENODEV, try_open("nodev", O_RDONLY));
	type_make(T_CHR, "null", 0644);
	OK(try_open("null", O_RDWR));
	OK(try_open("null", O_PATH));
	OK(try_open("sock", O_PATH));
}

static void case_trunc(void)
{
	struct stat before;
	struct stat after;

	file_fill("f", 10000, 1);
	before = path_stat("f");
	clock_tick();
	OK(try_open("f", O_WRONLY | O_TRUNC));
	after = path_stat("f");
	EQ(0, after.st_size);
	EQ(0, after.st_blocks);
	EQ(before.st_ino, after.st_ino);
	TRUE(time_compare(before.st_mtim, after.st_mtim) < 0);
	TRUE(time_compare(before.st_ctim, after.st_ctim) < 0);
	/* O_CREAT alone leaves the content, and without O_TRUNC the times. */
	file_fill("f", 5000, 1);
	before = path_stat("f");
	clock_tick();
	OK(try_open("f", O_RDWR | O_CREAT));
	after = path_stat("f");
	EQ(5000, after.st_size);
	TRUE(mtime_same(&before, &after) && ctime_same(&before, &after));
	/* O_TRUNC while others have it open and mapped is seen by them. */
	int fd = file_open("f", O_RDONLY);
	char c;
	EQ(1, pread(fd, &c, 1, 4999));
	OK(try_open("f", O_WRONLY | O_TRUNC));
	EQ(0, pread(fd, &c, 1, 0));
	EQ(0, fd_stat(fd).st_size);
}

static void case_existing_keeps_mode(void)
{
	file_make("f", "", 0);
	MUST(chmod("f", 0600));
	OK(close((int)OK(open("f", O_RDWR | O_CREAT, 0777))));
	EQ(S_IFREG | 0600, path_stat("f").st_mode);
}

/* A running program cannot be opened for writing, nor truncated; one open for writing not run. */
static void case_etxtbsy(void)
{
	static char text[20000];
	char *map;
	int in[2];
	int out[2];
	pid_t pid;
	char c = 0;
	int fd;

	MUST(system("cp /bin/cat ./prog && chmod 755 ./prog"));
	MUST(pread(file_open("prog", O_RDONLY), text, sizeof(text), 0));
	map = mmap(NULL, sizeof(text), PROT_READ, MAP_SHARED, file_open("prog", O_RDONLY), 0);
	MUST(map == MAP_FAILED ? -1 : 0);
	MUST(pipe(in));
	MUST(pipe(out));
	pid = fork();
	if (pid == 0) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		close(in[1]);
		close(out[0]);
		execl("./prog", "prog", "-u", (char *)NULL);
		_exit(1);
	}
	close(in[0]);
	close(out[1]);
	/* Once it echoes, it runs. */
	EQ(1, write(in[1], "x", 1));
	EQ(1, read(out[0], &c, 1));
	ERR(ETXTBSY, try_open("prog", O_WRONLY));
	ERR(ETXTBSY, try_open("prog", O_RDWR));
	ERR(ETXTBSY, try_open("prog", O_RDONLY | O_TRUNC));
	/* Refused means that nothing happened, to who has it mapped either (that would be SIGBUS). */
	EQ(text[0], *(volatile char *)&map[0]);
	EQ(text[8192], *(volatile char *)&map[8192]);
	ERR(ETXTBSY, truncate("prog", 0));
	EQ(text[16384], *(volatile char *)&map[16384]);
	EQ(1, write(in[1], "y", 1));
	EQ(1, read(out[0], &c, 1));
	EQ('y', c);
	OK(try_open("prog", O_RDONLY));
	close(in[1]);
	waitpid(pid, NULL, 0);
	OK(try_open("prog", O_WRONLY));
	fd = file_open("prog", O_WRONLY);
	pid = fork();
	if (pid == 0) {
		execl("./prog", "prog", "/dev/null", (char *)NULL);
		_exit(errno == ETXTBSY ? 7 : 1);
	}
	int status = 0;
	waitpid(pid, &status, 0);
	EQ(7, WEXITSTATUS(status));
	close(fd);
	/* And afterwards it runs again. */
	EQ(0, system("./prog /dev/null"));
}

static void case_bad_descriptor_use(void)
{
	char c = 0;

	file_make("f", "abc", 3);
	int rd = file_open("f", O_RDONLY);
	int wr = file_open("f", O_WRONLY);
	int path = file_open("f", O_PATH);
	ERR(EBADF, write(rd, &c, 1));
	ERR(EBADF, read(wr, &c, 1));
	ERR(EBADF, read(path, &c, 1));
	ERR2(EINVAL, EBADF, ftruncate(rd, 0));
	ERR(EBADF, ftruncate(path, 0));
	ERR(EBADF, fallocate(rd, 0, 0, 10));
	OK(fsync(rd));
	OK(fdatasync(rd));
	ERR(ENOTDIR, openat(path, "x", O_PATH));
	ERR(ENOENT, openat(path, "", O_PATH));
	ERR(EINVAL, try_open("f", O_RDONLY | O_DIRECTORY | O_CREAT));
}

static void case_o_path_and_at(void)
{
	struct stat st;

	MUST(mkdir("d", 0755));
	file_make("d/f", "abc", 3);
	int dir = file_open("d", O_PATH | O_DIRECTORY);
	OK(fstatat(dir, "f", &st, 0));
	EQ(3, st.st_size);
	OK(mkdirat(dir, "e", 0755));
	OK(fstatat(dir, "", &st, AT_EMPTY_PATH));
	EQ(3, st.st_nlink);
	OK(renameat(dir, "f", dir, "g"));
	OK(unlinkat(dir, "g", 0));
	OK(unlinkat(dir, "e", AT_REMOVEDIR));
	/* In a removed directory nothing can be made. */
	OK(rmdir("d"));
	ERR(ENOENT, openat(dir, "x", O_RDWR | O_CREAT, 0644));
	ERR(ENOENT, mkdirat(dir, "x", 0755));
	ERR(ENOENT, symlinkat("x", dir, "x"));
	ERR(ENOENT, mknodat(dir, "x", S_IFIFO | 0644, 0));
	OK(fstatat(dir, "", &st, AT_EMPTY_PATH));
	EQ(0, st.st_nlink);
}

static void case_many_descriptors(void)
{
	int fds[200];
	char c;

	file_make("f", "q", 1);
	for (int i = 0; i < 200; i++)
		fds[i] = file_open("f", O_RDWR);
	for (int i = 0; i < 200; i++) {
		EQ(1, pread(fds[i], &c, 1, 0));
		OK(close(fds[i]));
	}
}

static const struct check_case cases[] = {
	{ "permission_matrix", case_permission_matrix },
	{ "eacces_create", case_eacces_create },
	{ "eisdir", case_eisdir },
	{ "symlinks", case_symlinks },
	{ "eexist", case_eexist },
	{ "special_types", case_special_types },
	{ "trunc", case_trunc },
	{ "existing_keeps_mode", case_existing_keeps_mode },
	{ "etxtbsy", case_etxtbsy },
	{ "bad_descriptor_use", case_bad_descriptor_use },
	{ "o_path_and_at", case_o_path_and_at },
	{ "many_descriptors", case_many_descriptors },
};

CHECK_MAIN(cases)
