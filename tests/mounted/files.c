/* SPDX-License-Identifier: BSD-3-Clause */
/* Files of every type, users and times for the mounted tests. See files.h. */
#define _GNU_SOURCE
#include "files.h"

#include <grp.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

const char *const type_name[T_COUNT] = { "regular", "dir", "fifo", "block", "char", "socket", "symlink" };

mode_t type_mode(int type)
{
	static const mode_t modes[T_COUNT] = {
		S_IFREG, S_IFDIR, S_IFIFO, S_IFBLK, S_IFCHR, S_IFSOCK, S_IFLNK
	};

	return modes[type];
}

void type_make(int type, const char *path, mode_t mode)
{
	if (type == T_DIR)
		MUST(mkdir(path, mode));
	else if (type == T_LNK)
		MUST(symlink("target-of-link", path));
	else
		MUST(mknod(path, type_mode(type) | mode, makedev(1, 3)));
	if (type != T_LNK)
		MUST(chmod(path, mode));
}

int type_unlink(int type, const char *path)
{
	return type == T_DIR ? rmdir(path) : unlink(path);
}

void bytes_fill(unsigned char *bytes, size_t size, unsigned char byte)
{
	for (size_t i = 0; i < size; i++)
		bytes[i] = (unsigned char)(byte + i % 251 + i / 4096);
}

void file_make(const char *path, const void *data, size_t size)
{
	const char *bytes = data;
	int fd = (int)MUST(open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));

	for (size_t done = 0; done < size;)
		done += (size_t)MUST(write(fd, bytes + done, size - done));
	MUST(close(fd));
}

void file_fill(const char *path, size_t size, unsigned char byte)
{
	unsigned char *bytes = buffer_make(size ? size : 1);

	bytes_fill(bytes, size, byte);
	file_make(path, bytes, size);
	free(bytes);
}

int file_open(const char *path, int flags)
{
	return (int)MUST(open(path, flags | O_CLOEXEC, 0644));
}

void *pointer_bad(void)
{
	static void *volatile nowhere = (void *)8;

	return nowhere;
}

void *buffer_make(size_t size)
{
	void *p = NULL;

	if (posix_memalign(&p, 4096, size) != 0)
		abort();
	memset(p, 0, size);
	return p;
}

struct stat path_stat(const char *path)
{
	struct stat st = { 0 };

	MUST(lstat(path, &st));
	return st;
}

struct stat fd_stat(int fd)
{
	struct stat st = { 0 };

	MUST(fstat(fd, &st));
	return st;
}

void user_groups_are(uid_t uid, gid_t gid, size_t count, const gid_t *groups)
{
	MUST(setgroups(count, groups));
	MUST(setegid(gid));
	MUST(seteuid(uid));
}

void user_is(uid_t uid, gid_t gid)
{
	user_groups_are(uid, gid, 0, NULL);
}

void user_root(void)
{
	MUST(seteuid(0));
	MUST(setegid(0));
	MUST(setgroups(0, NULL));
}

int time_compare(struct timespec a, struct timespec b)
{
	if (a.tv_sec != b.tv_sec)
		return a.tv_sec < b.tv_sec ? -1 : 1;
	if (a.tv_nsec != b.tv_nsec)
		return a.tv_nsec < b.tv_nsec ? -1 : 1;
	return 0;
}

void clock_tick(void)
{
	static const struct timespec step = { 0, 500000 };
	struct timespec start;
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &start);
	do {
		nanosleep(&step, NULL);
		clock_gettime(CLOCK_REALTIME_COARSE, &now);
	} while (time_compare(now, start) <= 0);
}

bool ctime_same(const struct stat *a, const struct stat *b)
{
	return time_compare(a->st_ctim, b->st_ctim) == 0;
}

bool mtime_same(const struct stat *a, const struct stat *b)
{
	return time_compare(a->st_mtim, b->st_mtim) == 0;
}

bool atime_same(const struct stat *a, const struct stat *b)
{
	return time_compare(a->st_atim, b->st_atim) == 0;
}

uint64_t rnd_next(struct rnd *r)
{
	uint64_t z = (r->state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

uint64_t rnd_below(struct rnd *r, uint64_t bound)
{
	return bound ? rnd_next(r) % bound : 0;
}

char *name_make(size_t len, char c)
{
	char *name = malloc(len + 1);

	if (!name)
		abort();
	memset(name, c, len);
	name[len] = '\0';
	return name;
}

char *path_make(size_t len, const char *what)
{
	size_t what_len = strlen(what);
	char *path = name_make(len, '/');

	/* "./././" and perhaps one more slash, then what. */
	for (size_t i = 0; i + 1 < len - what_len; i += 2)
		path[i] = '.';
	memcpy(path + len - what_len, what, what_len);
	return path;
}
