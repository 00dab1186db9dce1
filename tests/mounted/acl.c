/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * POSIX ACLs through their raw xattrs: what is stored, how mode and mask follow each other, how a
 * default ACL is inherited, and who is let in.
 */
#define _GNU_SOURCE
#include "files.h"

#include <endian.h>
#include <stdarg.h>
#include <sys/xattr.h>

#define ACCESS "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"

enum { ACL_MAX = 16, ACL_VERSION = 2 };
enum { USER_OBJ = 1, USER = 2, GROUP_OBJ = 4, GROUP = 8, MASK = 16, OTHER = 32 };

struct entry {
	uint16_t tag;
	uint16_t perm;
	uint32_t id;
};

struct acl {
	uint32_t version;
	struct entry entries[ACL_MAX];
};

#define NOID 0xffffffffu
/* An ACL from a list of rows { tag, perm, id }. */
#define ACL_SET(path, name, ...)                                       \
	acl_set((path), (name), (const struct entry[]){ __VA_ARGS__ }, \
		sizeof((const struct entry[]){ __VA_ARGS__ }) / sizeof(struct entry))
#define ACL_IS(path, name, ...)                                       \
	acl_is((path), (name), (const struct entry[]){ __VA_ARGS__ }, \
	       sizeof((const struct entry[]){ __VA_ARGS__ }) / sizeof(struct entry), CHECK_AT)

static int acl_set(const char *path, const char *name, const struct entry *entries, size_t count)
{
	struct acl acl = { .version = htole32(ACL_VERSION) };

	for (size_t i = 0; i < count; i++) {
		acl.entries[i].tag = htole16(entries[i].tag);
		acl.entries[i].perm = htole16(entries[i].perm);
		acl.entries[i].id = htole32(entries[i].id);
	}
	return setxattr(path, name, &acl, 4 + count * sizeof(struct entry), 0);
}

static void acl_is(const char *path, const char *name, const struct entry *want, size_t count,
		   const char *file, int line)
{
	struct acl acl;
	ssize_t size = getxattr(path, name, &acl, sizeof(acl));

	if (!check_eq((long long)(4 + count * sizeof(struct entry)), size, "ACL size", file, line))
		return;
	for (size_t i = 0; i < count; i++) {
		check_eq(want[i].tag, le16toh(acl.entries[i].tag), "ACL tag", file, line);
		check_eq(want[i].perm, le16toh(acl.entries[i].perm), "ACL perm", file, line);
		if (want[i].tag == USER || want[i].tag == GROUP)
			check_eq(want[i].id, le32toh(acl.entries[i].id), "ACL id", file, line);
	}
}

static void acl_none(const char *path, const char *name)
{
	char buf[256];

	ERR(ENODATA, getxattr(path, name, buf, sizeof(buf)));
}

static void case_set_get(void)
{
	for (int t = 0; t < T_COUNT; t++) {
		if (t == T_LNK)
			continue;
		check_context("%s", type_name[t]);
		type_make(t, "f", 0640);
		acl_none("f", ACCESS);
		OK(ACL_SET("f", ACCESS, { USER_OBJ, 7, NOID }, { USER, 5, 1000 }, { USER, 6, 2000 },
			   { GROUP_OBJ, 4, NOID }, { GROUP, 3, 3000 }, { MASK, 7, NOID },
			   { OTHER, 1, NOID }));
		ACL_IS("f", ACCESS, { USER_OBJ, 7, NOID }, { USER, 5, 1000 }, { USER, 6, 2000 },
		       { GROUP_OBJ, 4, NOID }, { GROUP, 3, 3000 }, { MASK, 7, NOID }, { OTHER, 1, NOID });
		/* The group bits of the mode are the mask. */
		EQ(type_mode(t) | 0771, path_stat("f").st_mode);
		OK(removexattr("f", ACCESS));
		acl_none("f", ACCESS);
		EQ(type_mode(t) | (mode_t)(path_stat("f").st_mode & 0777), path_stat("f").st_mode);
		type_unlink(t, "f");
	}
}

/* An ACL of the three base entries is the mode, and leaves no xattr. */
static void case_minimal_is_mode(void)
{
	file_make("f", "", 0);
	OK(ACL_SET("f", ACCESS, { USER_OBJ, 6, NOID }, { GROUP_OBJ, 2, NOID }, { OTHER, 5, NOID }));
	EQ(S_IFREG | 0625, path_stat("f").st_mode);
	acl_none("f", ACCESS);
	OK(ACL_SET("f", ACCESS, { USER_OBJ, 7, NOID }, { USER, 7, 1000 }, { GROUP_OBJ, 7, NOID },
		   { MASK, 5, NOID }, { OTHER, 0, NOID }));
	EQ(S_IFREG | 0750, path_stat("f").st_mode);
	OK(ACL_SET("f", ACCESS, { USER_OBJ, 6, NOID }, { GROUP_OBJ, 4, NOID }, { OTHER, 4, NOID }));
	acl_none("f", ACCESS);
	EQ(S_IFREG | 0644, path_stat("f").st_mode);
}

static void case_chmod_moves_mask(void)
{
	file_make("f", "", 0);
	MUST(ACL_SET("f", ACCESS, { USER_OBJ, 7, NOID }, { USER, 7, 1000 }, { GROUP_OBJ, 7, NOID },
		     { MASK, 7, NOID }, { OTHER, 0, NOID }));
	OK(chmod("f", 0641));
	ACL_IS("f", ACCESS, { USER_OBJ, 6, NOID }, { USER, 7, 1000 }, { GROUP_OBJ, 7, NOID },
	       { MASK, 4, NOID }, { OTHER, 1, NOID });
	OK(chmod("f", 0777));
	ACL_IS("f", ACCESS, { USER_OBJ, 7, NOID }, { USER, 7, 1000 }, { GROUP_OBJ, 7, NOID },
	       { MASK, 7, NOID }, { OTHER, 7, NOID });
	OK(fchmod(file_open("f", O_RDONLY), 0600));
	ACL_IS("f", ACCESS, { USER_OBJ, 6, NOID }, { USER, 7, 1000 }, { GROUP_OBJ, 7, NOID },
	       { MASK, 0, NOID }, { OTHER, 0, NOID });
}

static void case_invalid(void)
{
	static const char short_acl[] = { 2, 0, 0, 0, 1, 0, 7 };
	static const char version[] = { 1, 0, 0, 0 };

	file_make("f", "", 0);
	ERR(EINVAL, setxattr("f", ACCESS, short_acl, sizeof(short_acl), 0));
	ERR2(EOPNOTSUPP, EINVAL, setxattr("f", ACCESS, version, sizeof(version), 0));
	/* No mask with a named user; wrong order; twice; bad permission bits; missing other. */
	ERR(EINVAL, ACL_SET("f", ACCESS, { USER_OBJ, 7, NOID }, { USER, 7, 1 }, { GROUP_OBJ, 7, NOID },
			    { OTHER, 0, NOID }));
	ERR(EINVAL, ACL_SET("f", ACCESS, { GROUP_OBJ, 7, NOID }, { USER_OBJ, 7, NOID }, { OTHER, 0, NOID }));
	ERR(EINVAL, ACL_SET("f", ACCESS, { USER_OBJ, 7, NOID }, { USER_OBJ, 7, NOID }, { GROUP_OBJ, 7, NOID },
			    { OTHER, 0, NOID }));
	ERR(EINVAL, ACL_SET("f", ACCESS, { USER_OBJ, 8, NOID }, { GROUP_OBJ, 7, NOID }, { OTHER, 0, NOID }));
	ERR(EINVAL, ACL_SET("f", ACCESS, { USER_OBJ, 7, NOID }, { GROUP_OBJ, 7, NOID }));
	ERR(EINVAL, ACL_SET("f", ACCESS, { 64, 7, NOID }, { GROUP_OBJ, 7, NOID }, { OTHER, 0, NOID }));
	EQ(S_IFREG | 0644, path_stat("f").st_mode);
	acl_none("f", ACCESS);
	/* A default ACL belongs to directories. */
	ERR(EACCES, ACL_SET("f", DEFAULT, { USER_OBJ, 7, NOID }, { GROUP_OBJ, 7, NOID }, { OTHER, 0, NOID }));
	/* Only the owner sets one. */
	ERR_AS(USER_A, EPERM,
	       ACL_SET("f", ACCESS, { USER_OBJ, 7, NOID }, { GROUP_OBJ, 7, NOID }, { OTHER, 7, NOID }));
	ERR_AS(USER_A, EPERM, removexattr("f", ACCESS));
	MUST(symlink("f", "l"));
	ERR2(EOPNOTSUPP, EPERM, lsetxattr("l", ACCESS, version, sizeof(version), 0));
}

static void case_ctime(void)
{
	struct stat before;
	struct stat after;

	file_make("f", "", 0);
	before = path_stat("f");
	clock_tick();
	OK(ACL_SET("f", ACCESS, { USER_OBJ, 7, NOID }, { USER, 7, 1 }, { GROUP_OBJ, 7, NOID },
		   { MASK, 7, NOID }, { OTHER, 0, NOID }));
	after = path_stat("f");
	TRUE(time_compare(before.st_ctim, after.st_ctim) < 0);
	TRUE(mtime_same(&before, &after));
}

/* The algorithm of acl(5), entry by entry: who gets what. */
static void access_check(uid_t uid, gid_t gid, int want, const char *who)
{
	static const int bits[] = { R_OK, W_OK, X_OK };

	check_context("%s", who);
	user_is(uid, gid);
	for (int i = 0; i < 3; i++)
		EQ((want & bits[i]) ? 0 : -1, faccessat(AT_FDCWD, "f", bits[i], AT_EACCESS));
	int fd = open("f", O_RDONLY);
	EQ((want & R_OK) != 0, fd != -1);
	close(fd);
	fd = open("f", O_WRONLY);
	EQ((want & W_OK) != 0, fd != -1);
	close(fd);
	user_root();
}

static void case_access(void)
{
	file_make("f", "x", 1);
	MUST(chown("f", 1000, 2000));
	/* Mask off first. */
	MUST(ACL_SET("f", ACCESS, { USER_OBJ, 4, NOID }, { USER, 6, 1001 }, { USER, 0, 1002 },
		     { USER, 7, 1003 }, { GROUP_OBJ, 4, NOID }, { GROUP, 2, 2001 }, { GROUP, 0, 2002 },
		     { MASK, 7, NOID }, { OTHER, 1, NOID }));
	access_check(1000, 3000, 4, "owner");
	access_check(1000, 2001, 4, "owner in a named group");
	access_check(1001, 3000, 6, "named user");
	access_check(1001, 2002, 6, "named user in a barred group");
	access_check(1002, 2000, 0, "barred user in the file's group");
	access_check(1003, 3000, 7, "named user, all");
	access_check(1009, 2000, 4, "file's group");
	access_check(1009, 2001, 2, "named group");
	access_check(1009, 2002, 0, "barred group");
	access_check(1009, 3000, 1, "other");
	/* The mask limits all but owner and other. */
	MUST(chmod("f", 0747));
	access_check(1000, 3000, 7, "owner, mask 4");
	access_check(1001, 3000, 4, "named user, mask 4");
	access_check(1003, 3000, 4, "named user all, mask 4");
	access_check(1009, 2001, 0, "named group, mask 4");
	access_check(1009, 2000, 4, "file's group, mask 4");
	access_check(1009, 3000, 7, "other, mask 4");
	/* After the ACL is gone only the mode counts. */
	OK(removexattr("f", ACCESS));
	MUST(chmod("f", 0640));
	access_check(1001, 3000, 0, "named user, no ACL");
	access_check(1009, 2000, 4, "group, no ACL");
}

static void case_access_dir(void)
{
	MUST(mkdir("d", 0700));
	file_make("d/f", "x", 1);
	ERR_AS(USER_A, EACCES, access("d/f", F_OK) == -1 ? -1 : open("d/f", O_RDONLY));
	MUST(ACL_SET("d", ACCESS, { USER_OBJ, 7, NOID }, { USER, 7, USER_A }, { GROUP_OBJ, 0, NOID },
		     { MASK, 7, NOID }, { OTHER, 0, NOID }));
	user_is(USER_A, USER_A);
	OK(close((int)OK(open("d/f", O_RDONLY))));
	OK(close((int)OK(open("d/g", O_CREAT | O_RDWR, 0644))));
	OK(unlink("d/g"));
	user_root();
	ERR_AS(USER_B, EACCES, open("d/f", O_RDONLY));
}

static void default_make(const char *dir)
{
	MUST(mkdir(dir, 0755));
	MUST(ACL_SET(dir, DEFAULT, { USER_OBJ, 7, NOID }, { USER, 7, 1000 }, { GROUP_OBJ, 5, NOID },
		     { MASK, 7, NOID }, { OTHER, 4, NOID }));
}

/* A default ACL replaces the umask: the mode asked for cuts owner, mask and other. */
static void case_inherit_file(void)
{
	default_make("d");
	EQ(S_IFDIR | 0755, path_stat("d").st_mode);
	acl_none("d", ACCESS);
	umask(077);
	OK(close((int)OK(open("d/f", O_CREAT | O_RDWR, 0666))));
	ACL_IS("d/f", ACCESS, { USER_OBJ, 6, NOID }, { USER, 7, 1000 }, { GROUP_OBJ, 5, NOID },
	       { MASK, 6, NOID }, { OTHER, 4, NOID });
	EQ(S_IFREG | 0664, path_stat("d/f").st_mode);
	acl_none("d/f", DEFAULT);
	OK(mkfifo("d/p", 0640));
	ACL_IS("d/p", ACCESS, { USER_OBJ, 6, NOID }, { USER, 7, 1000 }, { GROUP_OBJ, 5, NOID },
	       { MASK, 4, NOID }, { OTHER, 0, NOID });
	OK(mknod("d/n", S_IFREG | 0777, 0));
	ACL_IS("d/n", ACCESS, { USER_OBJ, 7, NOID }, { USER, 7, 1000 }, { GROUP_OBJ, 5, NOID },
	       { MASK, 7, NOID }, { OTHER, 4, NOID });
	OK(symlink("f", "d/l"));
	EQ(S_IFLNK | 0777, path_stat("d/l").st_mode);
	/* Without a default ACL the umask is back. */
	OK(close((int)OK(open("plain", O_CREAT | O_RDWR, 0666))));
	EQ(S_IFREG | 0600, path_stat("plain").st_mode);
}

static void case_inherit_dir(void)
{
	default_make("d");
	umask(022);
	OK(mkdir("d/e", 0770));
	ACL_IS("d/e", ACCESS, { USER_OBJ, 7, NOID }, { USER, 7, 1000 }, { GROUP_OBJ, 5, NOID },
	       { MASK, 7, NOID }, { OTHER, 0, NOID });
	ACL_IS("d/e", DEFAULT, { USER_OBJ, 7, NOID }, { USER, 7, 1000 }, { GROUP_OBJ, 5, NOID },
	       { MASK, 7, NOID }, { OTHER, 4, NOID });
	OK(mkdir("d/e/g", 0777));
	ACL_IS("d/e/g", DEFAULT, { USER_OBJ, 7, NOID }, { USER, 7, 1000 }, { GROUP_OBJ, 5, NOID },
	       { MASK, 7, NOID }, { OTHER, 4, NOID });
	OK(removexattr("d/e", DEFAULT));
	acl_none("d/e", DEFAULT);
	OK(mkdir("d/e/h", 0777));
	acl_none("d/e/h", DEFAULT);
	EQ(S_IFDIR | 0755, path_stat("d/e/h").st_mode);
	/* A minimal default ACL: just a mode. */
	MUST(ACL_SET("d/e", DEFAULT, { USER_OBJ, 6, NOID }, { GROUP_OBJ, 6, NOID }, { OTHER, 0, NOID }));
	OK(close((int)OK(open("d/e/f", O_CREAT | O_RDWR, 0666))));
	EQ(S_IFREG | 0660, path_stat("d/e/f").st_mode);
	acl_none("d/e/f", ACCESS);
	OK(removexattr("d/e", DEFAULT));
	OK(removexattr("d", DEFAULT));
}

static void case_inherit_tmpfile(void)
{
	int fd;
	char buf[256];

	default_make("d");
	fd = open("d", O_TMPFILE | O_RDWR, 0666);
	if (fd == -1 && (errno == EOPNOTSUPP || errno == EISDIR))
		check_skip("no O_TMPFILE");
	TRUE(fd != -1);
	TRUE(fgetxattr(fd, ACCESS, buf, sizeof(buf)) == 44);
	EQ(S_IFREG | 0664, fd_stat(fd).st_mode);
}

/* setgid is lost by one outside the group who sets an ACL, as with chmod. */
static void case_setgid(void)
{
	file_make("f", "", 0);
	MUST(chown("f", USER_A, USER_B));
	MUST(chmod("f", 02755));
	OK_AS(USER_A, ACL_SET("f", ACCESS, { USER_OBJ, 7, NOID }, { USER, 5, 1 }, { GROUP_OBJ, 5, NOID },
			      { MASK, 5, NOID }, { OTHER, 5, NOID }));
	EQ(S_IFREG | 0755, path_stat("f").st_mode);
}

static void case_many_entries(void)
{
	struct {
		uint32_t version;
		struct entry entries[204];
	} acl = { .version = htole32(ACL_VERSION) }, got;
	size_t n = 0;

	file_make("f", "", 0);
	acl.entries[n++] = (struct entry){ htole16(USER_OBJ), htole16(7), htole32(NOID) };
	for (unsigned i = 0; i < 200 - 3; i++)
		acl.entries[n++] = (struct entry){ htole16(USER), htole16(i & 7), htole32(5000 + i) };
	acl.entries[n++] = (struct entry){ htole16(GROUP_OBJ), htole16(7), htole32(NOID) };
	acl.entries[n++] = (struct entry){ htole16(MASK), htole16(7), htole32(NOID) };
	acl.entries[n++] = (struct entry){ htole16(OTHER), htole16(7), htole32(NOID) };
	OK(setxattr("f", ACCESS, &acl, 4 + n * sizeof(struct entry), 0));
	EQ(4 + n * sizeof(struct entry), getxattr("f", ACCESS, &got, sizeof(got)));
	MEMEQ(&acl, &got, 4 + n * sizeof(struct entry));
}

static void case_listed(void)
{
	char list[256] = "";
	ssize_t size;

	default_make("d");
	size = listxattr("d", list, sizeof(list));
	TRUE(size > 0 && memmem(list, (size_t)size, DEFAULT, sizeof(DEFAULT)) != NULL);
	TRUE(memmem(list, (size_t)size, ACCESS, sizeof(ACCESS)) == NULL);
}

static const struct check_case cases[] = {
	{ "set_get", case_set_get },
	{ "minimal_is_mode", case_minimal_is_mode },
	{ "chmod_moves_mask", case_chmod_moves_mask },
	{ "invalid", case_invalid },
	{ "ctime", case_ctime },
	{ "access", case_access },
	{ "access_dir", case_access_dir },
	{ "inherit_file", case_inherit_file },
	{ "inherit_dir", case_inherit_dir },
	{ "inherit_tmpfile", case_inherit_tmpfile },
	{ "setgid", case_setgid },
	{ "many_entries", case_many_entries },
	{ "listed", case_listed },
};

CHECK_MAIN(cases)
