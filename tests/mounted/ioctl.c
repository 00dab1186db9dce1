/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The private ioctls of <umbra/ioctl.h>: tokens, clone and dedupe of ranges, extents, fallocate modes that the kernel does not pass,
 * owners, clones of whole files. On another file system each case says so and is left out.
 */
#define _GNU_SOURCE
#include "check.h"
#include "files.h"

#include <dirent.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "../../include/umbra/ioctl.h"

#define BLK 4096u

static void umbrafs_needed(void)
{
	struct umbra_info info;
	int fd = open(".", O_RDONLY);

	if (ioctl(fd, UMBRA_IOC_INFO, &info))
		check_skip("not an umbrafs");
	close(fd);
}

static struct umbra_token token_of(const char *path)
{
	struct umbra_token token;
	int fd = file_open(path, O_RDONLY);

	MUST(ioctl(fd, UMBRA_IOC_TOKEN, &token));
	close(fd);
	return token;
}

/* -1 and errno, or the bytes shared. */
static long clone_range(const char *src, off_t src_off, off_t len, int dst, off_t dst_off)
{
	struct umbra_clone_range range = {
		.token = token_of(src),
		.src_off = (__u64)src_off,
		.len = (__u64)len,
		.dst_off = (__u64)dst_off,
	};

	return ioctl(dst, UMBRA_IOC_CLONE_RANGE, &range) ? -1 : (long)range.cloned;
}

static long dedupe_range(const char *src, off_t src_off, off_t len, int dst, off_t dst_off, int *differs)
{
	struct umbra_dedupe_range range = {
		.token = token_of(src),
		.src_off = (__u64)src_off,
		.len = (__u64)len,
		.dst_off = (__u64)dst_off,
	};
	int rc = ioctl(dst, UMBRA_IOC_DEDUPE_RANGE, &range);

	*differs = (int)range.status;
	return rc ? -1 : (long)range.deduped;
}

static void file_random(const char *path, size_t size, uint64_t seed)
{
	struct rnd r = { .state = seed };
	unsigned char *bytes = malloc(size + 8);

	for (size_t i = 0; i < size; i += 8) {
		uint64_t word = rnd_next(&r);

		memcpy(bytes + i, &word, 8);
	}
	file_make(path, bytes, size);
	free(bytes);
}

static bool files_same(const char *a, off_t a_off, const char *b, off_t b_off, size_t len)
{
	char *pa = malloc(len), *pb = malloc(len);
	int fa = file_open(a, O_RDONLY), fb = file_open(b, O_RDONLY);
	bool same;

	memset(pa, 1, len);
	memset(pb, 2, len);
	EQ(len, pread(fa, pa, len, a_off));
	EQ(len, pread(fb, pb, len, b_off));
	same = memcmp(pa, pb, len) == 0;
	close(fa);
	close(fb);
	free(pa);
	free(pb);
	return same;
}

static struct umbra_extents extents_of(const char *path)
{
	static struct umbra_extents e;
	int fd = file_open(path, O_RDONLY);

	memset(&e, 0, sizeof(e));
	MUST(ioctl(fd, UMBRA_IOC_EXTENTS, &e));
	close(fd);
	return e;
}

static void case_clone(void)
{
	int fd;

	umbrafs_needed();
	file_random("a", 10 * BLK + 100, 1);
	fd = file_open("b", O_RDWR | O_CREAT);
	/* Whole, from the middle, to the end of the source, behind the end. */
	EQ(10 * BLK + 100, clone_range("a", 0, 0, fd, 0));
	EQ(10 * BLK + 100, fd_stat(fd).st_size);
	TRUE(files_same("a", 0, "b", 0, 10 * BLK + 100));
	EQ(2 * BLK, clone_range("a", 3 * BLK, 2 * BLK, fd, 0));
	TRUE(files_same("a", 3 * BLK, "b", 0, 2 * BLK));
	TRUE(files_same("a", 2 * BLK, "b", 2 * BLK, 8 * BLK));
	EQ(BLK + 100, clone_range("a", 9 * BLK, 0, fd, 20 * BLK));
	EQ(21 * BLK + 100, fd_stat(fd).st_size);
	TRUE(files_same("a", 9 * BLK, "b", 20 * BLK, BLK + 100));
	EQ(21 * BLK + 100, lseek(fd, 0, SEEK_END));
	/* Stores into one are not seen in the other. */
	OK(pwrite(fd, "x", 1, 0));
	TRUE(!files_same("a", 3 * BLK, "b", 0, BLK));
	TRUE(files_same("a", 4 * BLK, "b", BLK, BLK));
	/* Within one file. */
	EQ(BLK, clone_range("b", 2 * BLK, BLK, fd, 30 * BLK));
	TRUE(files_same("b", 2 * BLK, "b", 30 * BLK, BLK));
	ERR(EINVAL, clone_range("b", 0, 2 * BLK, fd, BLK));
	close(fd);
}

static void case_clone_errors(void)
{
	struct umbra_clone_range range = { .len = 0 };
	int fd;

	umbrafs_needed();
	file_random("a", 4 * BLK, 1);
	file_random("b", 4 * BLK, 2);
	OK(mkdir("d", 0755));
	fd = file_open("b", O_RDONLY);
	ERR(EBADF, clone_range("a", 0, 0, fd, 0));
	close(fd);
	fd = file_open("b", O_RDWR);
	ERR(EINVAL, clone_range("a", 1, BLK, fd, 0));
	ERR(EINVAL, clone_range("a", 0, BLK, fd, 1));
	ERR(EINVAL, clone_range("a", 0, 100, fd, 0));
	ERR(EINVAL, clone_range("a", 4 * BLK, BLK, fd, 0));
	ERR(EINVAL, clone_range("a", 0, 5 * BLK, fd, 0));
	ERR2(EINVAL, EFBIG, clone_range("a", 0, BLK, fd, (off_t)1 << 62 | BLK << 1 | 1));
	ERR2(EISDIR, EINVAL, clone_range("d", 0, 0, fd, 0));
	range.token = token_of("a");
	range.flags = 1;
	ERR(EINVAL, ioctl(fd, UMBRA_IOC_CLONE_RANGE, &range));
	TRUE(!files_same("a", 0, "b", 0, 4 * BLK));
	EQ(4 * BLK, fd_stat(fd).st_size);
	close(fd);
	fd = file_open("d", O_RDONLY);
	ERR2(EBADF, EISDIR, clone_range("a", 0, 0, fd, 0));
	close(fd);
}

static void case_token(void)
{
	struct umbra_clone_range range = { .len = 0 };
	int fd, wronly, status;
	pid_t pid;

	umbrafs_needed();
	file_random("a", 4 * BLK, 1);
	fd = file_open("b", O_RDWR | O_CREAT);
	/* One use, whether it works or not. */
	range.token = token_of("a");
	OK(ioctl(fd, UMBRA_IOC_CLONE_RANGE, &range));
	ERR(EACCES, ioctl(fd, UMBRA_IOC_CLONE_RANGE, &range));
	/* Not a guess. */
	range.token = token_of("a");
	range.token.bytes[31] ^= 1;
	ERR(EACCES, ioctl(fd, UMBRA_IOC_CLONE_RANGE, &range));
	/* From a descriptor that may read. */
	wronly = file_open("a", O_WRONLY);
	ERR(EBADF, ioctl(wronly, UMBRA_IOC_TOKEN, &range.token));
	close(wronly);
	/* Not another process's, and gone when he has tried. */
	range.token = token_of("a");
	pid = fork();
	if (pid == 0)
		_exit(ioctl(fd, UMBRA_IOC_CLONE_RANGE, &range) == -1 && errno == EACCES ? 0 : 1);
	MUST(waitpid(pid, &status, 0));
	EQ(0, status);
	ERR(EACCES, ioctl(fd, UMBRA_IOC_CLONE_RANGE, &range));
	/* The file may be gone meanwhile, another one have its number. */
	range.token = token_of("a");
	OK(unlink("a"));
	for (int i = 0; i < 100; i++) {
		char name[16];

		snprintf(name, sizeof(name), "n%d", i);
		file_random(name, 2 * BLK, 3);
	}
	OK(ftruncate(fd, 0));
	if (ioctl(fd, UMBRA_IOC_CLONE_RANGE, &range) == 0)
		EQ(4 * BLK, fd_stat(fd).st_size);
	else
		EQ(ESTALE, errno);
	close(fd);
}

/* Who asks for many loses only the oldest of these. */
static void case_token_share(void)
{
	struct umbra_clone_range range = { .len = 0 };
	struct umbra_token others, first, last;
	int fd;

	umbrafs_needed();
	OK(chmod(".", 0777));
	file_random("a", 4 * BLK, 1);
	OK(chmod("a", 0644));
	user_is(USER_A, USER_A);
	others = token_of("a");
	user_root();
	user_is(USER_B, USER_B);
	fd = file_open("b", O_RDWR | O_CREAT);
	first = token_of("a");
	for (int i = 0; i < 3000; i++)
		last = token_of("a");
	range.token = first;
	ERR(EACCES, ioctl(fd, UMBRA_IOC_CLONE_RANGE, &range));
	range.token = last;
	OK(ioctl(fd, UMBRA_IOC_CLONE_RANGE, &range));
	range.token = others;
	OK(ioctl(fd, UMBRA_IOC_CLONE_RANGE, &range));
	user_root();
	close(fd);
}

/* The right to read is the kernel's to check. */
static void case_token_rights(void)
{
	struct umbra_clone_range range = { .len = 0 };
	int fd;

	umbrafs_needed();
	OK(chmod(".", 0777));
	file_random("a", 4 * BLK, 1);
	OK(chmod("a", 0644));
	user_is(USER_A, USER_A);
	fd = file_open("b", O_RDWR | O_CREAT);
	range.token = token_of("a");
	OK(ioctl(fd, UMBRA_IOC_CLONE_RANGE, &range));
	user_root();
	OK(chmod("a", 0600));
	user_is(USER_A, USER_A);
	ERR(EACCES, open("a", O_RDONLY));
	user_root();
	TRUE(files_same("a", 0, "b", 0, 4 * BLK));
	/* A clone is a write: it takes the setuid bit away. */
	OK(chown("b", USER_A, USER_A));
	OK(chmod("b", 06755));
	user_is(USER_A, USER_A);
	EQ(4 * BLK, clone_range("b", 0, 0, fd, 8 * BLK));
	user_root();
	EQ(0755, path_stat("b").st_mode & 07777);
	close(fd);
}

/* What the kernel has cached of the destination is true again when the call returns. */
static void case_coherence(void)
{
	char *map, c = 0;
	int fd;

	umbrafs_needed();
	file_random("a", 64 * BLK, 1);
	file_random("b", 64 * BLK, 2);
	fd = file_open("b", O_RDWR);
	map = mmap(NULL, 64 * BLK, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	MUST(map == MAP_FAILED ? -1 : 0);
	for (int i = 0; i < 64; i++)
		c ^= map[i * BLK];
	/* Dirty, inside and outside of what is cloned. */
	for (int i = 0; i < 64; i++)
		map[i * BLK] = (char)i;
	EQ(32 * BLK, clone_range("a", 0, 32 * BLK, fd, 0));
	TRUE(files_same("a", 0, "b", 0, 32 * BLK));
	for (int i = 32; i < 64; i++)
		EQ((char)i, map[i * BLK]);
	for (int i = 0; i < 32; i++) {
		char byte;

		EQ(1, pread(file_open("a", O_RDONLY), &byte, 1, i * BLK));
		EQ(byte, map[i * BLK]);
	}
	/* A store into the clone through the mapping stays in it. */
	map[0] ^= 1;
	OK(msync(map, BLK, MS_SYNC));
	TRUE(!files_same("a", 0, "b", 0, BLK));
	TRUE(files_same("a", BLK, "b", BLK, 31 * BLK));
	munmap(map, 64 * BLK);
	close(fd);
	(void)c;
}

static void case_dedupe(void)
{
	int fd, differs;

	umbrafs_needed();
	file_random("a", 8 * BLK + 10, 1);
	file_random("b", 8 * BLK + 10, 1);
	fd = file_open("b", O_RDWR);
	EQ(8 * BLK + 10, dedupe_range("a", 0, 8 * BLK + 10, fd, 0, &differs));
	EQ(0, differs);
	EQ(2, extents_of("b").extents[0].owners);
	EQ(extents_of("a").extents[0].dev_off, extents_of("b").extents[0].dev_off);
	TRUE(files_same("a", 0, "b", 0, 8 * BLK + 10));
	/* One byte makes the difference, and then nothing happens. */
	OK(pwrite(fd, "x", 1, 3 * BLK + 5));
	EQ(0, dedupe_range("a", 2 * BLK, 4 * BLK, fd, 2 * BLK, &differs));
	EQ(1, differs);
	EQ(0, dedupe_range("a", 0, 8 * BLK + 10, fd, 0, &differs));
	EQ(1, differs);
	ERR(EINVAL, dedupe_range("a", 1, BLK, fd, BLK, &differs));
	ERR(EINVAL, dedupe_range("a", 0, 100, fd, 0, &differs));
	ERR(EINVAL, dedupe_range("b", 0, 2 * BLK, fd, BLK, &differs));
	close(fd);
}

/* A comparison may not go on for years: nobody else could use the file, nor unmount. */
static void case_dedupe_long(void)
{
	int fd, differs;

	umbrafs_needed();
	file_make("a", "", 0);
	file_make("b", "", 0);
	OK(truncate("a", (off_t)1 << 60));
	OK(truncate("b", (off_t)1 << 60));
	fd = file_open("b", O_RDWR);
	ERR(EINVAL, dedupe_range("a", 0, (off_t)1 << 60, fd, 0, &differs));
	ERR(EINVAL, dedupe_range("a", 0, UMBRA_DEDUPE_MAX + BLK, fd, 0, &differs));
	EQ(UMBRA_DEDUPE_MAX, dedupe_range("a", 0, UMBRA_DEDUPE_MAX, fd, 0, &differs));
	EQ(0, differs);
	close(fd);
}

static void case_dedupe_keeps_times(void)
{
	struct stat before;
	int fd, differs;

	umbrafs_needed();
	file_random("a", 8 * BLK, 1);
	file_random("b", 8 * BLK, 1);
	OK(chmod("b", 04755));
	before = path_stat("b");
	clock_tick();
	fd = file_open("b", O_RDWR);
	EQ(8 * BLK, dedupe_range("a", 0, 8 * BLK, fd, 0, &differs));
	struct stat after = path_stat("b");
	TRUE(mtime_same(&before, &after));
	EQ(04755, after.st_mode & 07777);
	EQ(before.st_blocks, after.st_blocks);
	close(fd);
}

static void case_extents(void)
{
	struct umbra_extents e;
	int fd;

	umbrafs_needed();
	/* Data, a hole, unwritten blocks. */
	fd = file_open("a", O_RDWR | O_CREAT);
	file_random("data", 4 * BLK, 3);
	EQ(4 * BLK, clone_range("data", 0, 0, fd, 0));
	OK(unlink("data"));
	OK(fallocate(fd, 0, 16 * BLK, 8 * BLK));
	close(fd);
	/* The other owner goes in the background: no longer than the watchdog lets us wait. */
	do {
		e = extents_of("a");
	} while (e.count > 0 && e.extents[0].owners > 1);
	MUST(e.count >= 2 ? 0 : -1);
	EQ(0, e.extents[0].file_off);
	uint64_t end = 0;
	for (unsigned i = 0; i < e.count; i++) {
		const struct umbra_extent *x = &e.extents[i];

		TRUE(x->file_off >= end && x->len > 0 && x->len % BLK == 0);
		end = x->file_off + x->len;
		EQ(1, x->owners);
		EQ(x->file_off >= 16 * BLK, !!(x->flags & UMBRA_EXTENT_UNWRITTEN));
		EQ(i + 1 == e.count, !!(x->flags & UMBRA_EXTENT_LAST));
	}
	EQ(24 * BLK, end);
	/* A page at a time says the same. */
	fd = file_open("a", O_RDONLY);
	struct umbra_extents one = { .off = e.extents[1].file_off, .count = 1 };
	OK(ioctl(fd, UMBRA_IOC_EXTENTS, &one));
	EQ(1, one.count);
	EQ(e.extents[1].dev_off, one.extents[0].dev_off);
	one = (struct umbra_extents){ .off = 1 << 30 };
	OK(ioctl(fd, UMBRA_IOC_EXTENTS, &one));
	EQ(0, one.count);
	one = (struct umbra_extents){ .flags = 1 };
	ERR(EINVAL, ioctl(fd, UMBRA_IOC_EXTENTS, &one));
	close(fd);
	file_make("small", "hello", 5);
	e = extents_of("small");
	EQ(1, e.count);
	TRUE(e.extents[0].flags & UMBRA_EXTENT_INLINE);
	file_make("none", "", 0);
	EQ(0, extents_of("none").count);
}

static long do_fallocate(int fd, unsigned mode, off_t off, off_t len)
{
	struct umbra_fallocate arg = { .off = (__u64)off, .len = (__u64)len, .mode = mode };

	return ioctl(fd, UMBRA_IOC_FALLOCATE, &arg);
}

static void case_fallocate(void)
{
	char *map;
	int fd;

	umbrafs_needed();
	file_random("want", 16 * BLK, 1);
	file_random("a", 16 * BLK, 1);
	fd = file_open("a", O_RDWR);
	map = mmap(NULL, 32 * BLK, PROT_READ, MAP_SHARED, fd, 0);
	MUST(map == MAP_FAILED ? -1 : 0);
	EQ(0, map[0] ^ map[0]);
	OK(do_fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 4 * BLK, 4 * BLK));
	EQ(12 * BLK, fd_stat(fd).st_size);
	TRUE(files_same("want", 0, "a", 0, 4 * BLK));
	TRUE(files_same("want", 8 * BLK, "a", 4 * BLK, 8 * BLK));
	OK(do_fallocate(fd, FALLOC_FL_INSERT_RANGE, 4 * BLK, 4 * BLK));
	EQ(16 * BLK, fd_stat(fd).st_size);
	TRUE(files_same("want", 8 * BLK, "a", 8 * BLK, 8 * BLK));
	for (unsigned i = 0; i < 4 * BLK; i++)
		if (map[4 * BLK + i]) {
			EQ(0, map[4 * BLK + i]);
			break;
		}
	/* Unshare. */
	int b = file_open("b", O_RDWR | O_CREAT);
	EQ(16 * BLK, clone_range("a", 0, 0, b, 0));
	TRUE(extents_of("b").extents[0].owners == 2);
	OK(do_fallocate(b, FALLOC_FL_UNSHARE_RANGE, 0, 16 * BLK));
	TRUE(extents_of("b").extents[0].owners == 1);
	TRUE(files_same("a", 0, "b", 0, 16 * BLK));
	ERR(EINVAL, do_fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 1, BLK));
	ERR(EINVAL, do_fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 12 * BLK, 4 * BLK));
	ERR(EINVAL, do_fallocate(fd, FALLOC_FL_INSERT_RANGE, 16 * BLK, BLK));
	ERR(EINVAL, do_fallocate(fd, 0, 0, 0));
	close(b);
	b = file_open("b", O_RDONLY);
	ERR(EBADF, do_fallocate(b, 0, 0, BLK));
	munmap(map, 32 * BLK);
}

static uint64_t ino_of(const char *path)
{
	return path_stat(path).st_ino;
}

static void name_add(struct umbra_clone_files *files, uint64_t ino, const char *name)
{
	struct umbra_clone_name *record = (void *)(files->data + files->size);

	record->ino = ino;
	record->name_len = (__u16)strlen(name);
	record->record_size = (__u16)((sizeof(*record) + record->name_len + 7) & ~7ul);
	record->pad = 0;
	memcpy(record->name, name, record->name_len);
	files->size += record->record_size;
	files->count++;
}

static void case_clone_files(void)
{
	static struct umbra_clone_files files;
	int dir;

	umbrafs_needed();
	file_random("a", 100 * BLK + 1, 1);
	file_make("small", "hello", 5);
	file_make("none", "", 0);
	OK(chmod("a", 04751));
	OK(chown("small", 12, 34));
	OK(mkdir("d", 0755));
	/* The kernel knows that these names are not there. */
	ERR(ENOENT, open("d/a", O_RDONLY));
	ERR(ENOENT, open("d/small", O_RDONLY));
	dir = file_open("d", O_RDONLY | O_DIRECTORY);
	name_add(&files, ino_of("a"), "a");
	name_add(&files, ino_of("small"), "small");
	name_add(&files, ino_of("none"), "none");
	OK(ioctl(dir, UMBRA_IOC_CLONE_FILES, &files));
	EQ(3, files.done);
	EQ(0, files.error);
	TRUE(files_same("a", 0, "d/a", 0, 100 * BLK + 1));
	EQ(04751, path_stat("d/a").st_mode & 07777);
	EQ(12, path_stat("d/small").st_uid);
	EQ(34, path_stat("d/small").st_gid);
	EQ(5, path_stat("d/small").st_size);
	EQ(0, path_stat("d/none").st_size);
	struct stat a = path_stat("a"), b = path_stat("d/a");
	TRUE(mtime_same(&a, &b));
	EQ(a.st_blocks, b.st_blocks);
	EQ(1, b.st_nlink);
	/* Stops at a name that is there. */
	files = (struct umbra_clone_files){ .count = 0 };
	name_add(&files, ino_of("a"), "new");
	name_add(&files, ino_of("a"), "small");
	name_add(&files, ino_of("a"), "newer");
	OK(ioctl(dir, UMBRA_IOC_CLONE_FILES, &files));
	EQ(1, files.done);
	EQ(EEXIST, files.error);
	OK(access("d/new", F_OK));
	ERR(ENOENT, access("d/newer", F_OK));
	close(dir);
}

static void case_clone_files_errors(void)
{
	static struct umbra_clone_files files;
	static const char *const bad_names[] = { ".", "..", "a/b", "" };
	int dir, file;

	umbrafs_needed();
	file_make("a", "hello", 5);
	OK(mkdir("d", 0777));
	OK(chmod("d", 0777));
	dir = file_open("d", O_RDONLY | O_DIRECTORY);
	file = file_open("a", O_RDWR);
	name_add(&files, ino_of("a"), "b");
	ERR(ENOTDIR, ioctl(file, UMBRA_IOC_CLONE_FILES, &files));
	ERR_AS(USER_A, EPERM, ioctl(dir, UMBRA_IOC_CLONE_FILES, &files));
	for (unsigned i = 0; i < sizeof(bad_names) / sizeof(bad_names[0]); i++) {
		files = (struct umbra_clone_files){ .count = 0 };
		name_add(&files, ino_of("a"), bad_names[i]);
		ERR(EINVAL, ioctl(dir, UMBRA_IOC_CLONE_FILES, &files));
	}
	/* Any number for an inode, any length for a record. */
	for (uint64_t ino = 0; ino < 70; ino++) {
		files = (struct umbra_clone_files){ .count = 0 };
		name_add(&files, ino < 64 ? 1ull << ino : ~ino, "x");
		OK(ioctl(dir, UMBRA_IOC_CLONE_FILES, &files));
		if (files.done > 0)
			OK(unlink("d/x"));
		else
			TRUE(files.error != 0);
	}
	for (unsigned size = 0; size < 64; size++) {
		files = (struct umbra_clone_files){ .count = 0 };
		name_add(&files, ino_of("a"), "x");
		((struct umbra_clone_name *)files.data)->record_size = (__u16)size;
		if (size != 24)
			ERR(EINVAL, ioctl(dir, UMBRA_IOC_CLONE_FILES, &files));
	}
	files.count = ~0u;
	ERR(EINVAL, ioctl(dir, UMBRA_IOC_CLONE_FILES, &files));
	files.count = 1;
	files.size = ~0u;
	ERR(EINVAL, ioctl(dir, UMBRA_IOC_CLONE_FILES, &files));
	close(dir);
	close(file);
}

/* Owner of the first block of path found by its device address; the path is compared by its end. */
static unsigned owners_count(const char *path, const char *const *ends, unsigned ends_count)
{
	static struct umbra_owners owners;
	struct umbra_extents e = extents_of(path);
	unsigned found = 0, total = 0;
	int fd = file_open(".", O_RDONLY);

	memset(&owners, 0, sizeof(owners));
	owners.dev_off = e.extents[0].dev_off;
	owners.len = BLK;
	for (;;) {
		size_t at = 0;

		MUST(ioctl(fd, UMBRA_IOC_OWNERS, &owners));
		if (owners.count == 0)
			break;
		for (unsigned i = 0; i < owners.count; i++) {
			const struct umbra_owner *o = (const void *)(owners.data + at);

			total++;
			EQ(UMBRA_OWNER_FILE, o->kind);
			EQ(BLK, o->len);
			for (unsigned k = 0; k < ends_count; k++) {
				size_t len = strlen(ends[k]);

				if (o->path_len != UMBRA_OWNER_PATH_LONG && o->path_len > len &&
				    memcmp(o->path + o->path_len - len, ends[k], len) == 0)
					found++;
			}
			at += o->record_size;
		}
	}
	close(fd);
	EQ(found, total);
	return total;
}

static void case_owners(void)
{
	static const char *const ends[] = { "/a", "/b", "/c" };
	char name[300];
	int fd;

	umbrafs_needed();
	file_random("a", 4 * BLK, 1);
	EQ(1, owners_count("a", ends, 1));
	fd = file_open("b", O_RDWR | O_CREAT);
	EQ(4 * BLK, clone_range("a", 0, 0, fd, 0));
	close(fd);
	EQ(2, owners_count("a", ends, 2));
	/* More than one page of them, with long names. */
	for (int i = 0; i < 200; i++) {
		const char *one[] = { name };

		snprintf(name, sizeof(name), "%0250d", i);
		fd = file_open(name, O_RDWR | O_CREAT);
		EQ(4 * BLK, clone_range("a", 0, 0, fd, 0));
		close(fd);
		(void)one;
	}
	fd = file_open(".", O_RDONLY);
	struct umbra_owners *owners = calloc(1, sizeof(*owners));
	unsigned total = 0;

	owners->dev_off = extents_of("a").extents[0].dev_off;
	owners->len = 4 * BLK;
	do {
		MUST(ioctl(fd, UMBRA_IOC_OWNERS, owners));
		total += owners->count;
	} while (owners->count > 0);
	EQ(202, total);
	*owners = (struct umbra_owners){ .dev_off = 0, .len = 0 };
	ERR(EINVAL, ioctl(fd, UMBRA_IOC_OWNERS, owners));
	owners->len = ~0ull;
	ERR(EINVAL, ioctl(fd, UMBRA_IOC_OWNERS, owners));
	owners->dev_off = ~0ull;
	ERR(EINVAL, ioctl(fd, UMBRA_IOC_OWNERS, owners));
	*owners = (struct umbra_owners){ .dev_off = 0, .len = BLK, .cursor = { ~0ull, ~0ull, ~0ull } };
	if (ioctl(fd, UMBRA_IOC_OWNERS, owners) == 0)
		EQ(0, owners->count);
	*owners = (struct umbra_owners){ .len = BLK };
	ERR_AS(USER_B, EPERM, ioctl(fd, UMBRA_IOC_OWNERS, owners));
	free(owners);
	close(fd);
}

/* A path too long to be told is not taken for none. */
static void case_owners_long_path(void)
{
	enum { LEVELS = 40 };
	static struct umbra_owners owners;
	const struct umbra_owner *o = (const void *)owners.data;
	char name[251];
	int fd;

	umbrafs_needed();
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	for (int i = 0; i < LEVELS; i++) {
		OK(mkdir(name, 0777));
		OK(chdir(name));
	}
	file_random("a", 4 * BLK, 1);
	fd = file_open(".", O_RDONLY);
	owners.dev_off = extents_of("a").extents[0].dev_off;
	owners.len = BLK;
	OK(ioctl(fd, UMBRA_IOC_OWNERS, &owners));
	close(fd);
	EQ(1, owners.count);
	EQ(UMBRA_OWNER_FILE, o->kind);
	EQ(UMBRA_OWNER_PATH_LONG, o->path_len);
	EQ(sizeof(*o), o->record_size);
	OK(unlink("a"));
	for (int i = 0; i < LEVELS; i++) {
		OK(chdir(".."));
		OK(rmdir(name));
	}
}

static void case_unknown(void)
{
	char arg[64] = { 0 };
	int fd;

	umbrafs_needed();
	fd = file_open(".", O_RDONLY);
	ERR(ENOTTY, ioctl(fd, _IO(UMBRA_IOC_TYPE, 99), 0));
	ERR(ENOTTY, ioctl(fd, _IOR(UMBRA_IOC_TYPE, 1, char[64]), arg));
	ERR(ENOTTY, ioctl(fd, _IOWR(UMBRA_IOC_TYPE, 2, char[8]), arg));
	ERR(EFAULT, ioctl(fd, UMBRA_IOC_INFO, pointer_bad()));
	close(fd);
}

/* Clones, reads and writes of one file by several threads: no deadlock between the kernel's pages and the daemon. */
static void *racer(void *arg)
{
	long which = (long)arg;
	int fd = open("b", O_RDWR);
	char *map = mmap(NULL, 64 * BLK, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	struct rnd r = { .state = (uint64_t)which + 1 };
	char buf[BLK];

	for (int i = 0; i < 200; i++) {
		off_t off = (off_t)rnd_below(&r, 32) * BLK;

		switch (which) {
		case 0:
			clone_range("a", off, 32 * BLK, fd, off);
			break;
		case 1:
			map[off] = (char)i;
			break;
		case 2:
			TRUE(pread(fd, buf, BLK, off) == BLK);
			break;
		default:
			do_fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, BLK);
		}
	}
	munmap(map, 64 * BLK);
	close(fd);
	return NULL;
}

static void case_race(void)
{
	pthread_t threads[8];

	umbrafs_needed();
	file_random("a", 64 * BLK, 1);
	file_random("b", 64 * BLK, 2);
	alarm(120);
	for (long i = 0; i < 8; i++)
		MUST(-pthread_create(&threads[i], NULL, racer, (void *)(i % 4)));
	for (int i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
	EQ(64 * BLK, path_stat("b").st_size);
}

static const struct check_case cases[] = {
	{ "clone", case_clone },
	{ "clone_errors", case_clone_errors },
	{ "token", case_token },
	{ "token_rights", case_token_rights },
	{ "token_share", case_token_share },
	{ "coherence", case_coherence },
	{ "dedupe", case_dedupe },
	{ "dedupe_long", case_dedupe_long },
	{ "dedupe_keeps_times", case_dedupe_keeps_times },
	{ "extents", case_extents },
	{ "fallocate", case_fallocate },
	{ "clone_files", case_clone_files },
	{ "clone_files_errors", case_clone_files_errors },
	{ "owners", case_owners },
	{ "owners_long_path", case_owners_long_path },
	{ "unknown", case_unknown },
	{ "race", case_race },
};

CHECK_MAIN(cases)
