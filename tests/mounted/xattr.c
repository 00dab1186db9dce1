/* SPDX-License-Identifier: BSD-3-Clause */
/* Extended attributes: namespaces, flags, sizes up to 64 KiB, a thousand names, rules by type. */
#define _GNU_SOURCE
#include "files.h"

#include <limits.h>
#include <sys/xattr.h>

static void case_set_get(void)
{
	static const char *const names[] = { "user.a", "trusted.a", "security.umbra" };
	char got[64];

	FOR_TYPES(t)
	{
		type_make(t, "f", 0644);
		for (int i = 0; i < 3; i++) {
			if (i == 0 && t != T_REG && t != T_DIR) {
				ERR(EPERM, lsetxattr("f", names[i], "v", 1, 0));
				continue;
			}
			ERR(ENODATA, lgetxattr("f", names[i], got, sizeof(got)));
			OK(lsetxattr("f", names[i], "value", 5, 0));
			EQ(5, lgetxattr("f", names[i], NULL, 0));
			EQ(5, lgetxattr("f", names[i], got, sizeof(got)));
			MEMEQ("value", got, 5);
			OK(lsetxattr("f", names[i], "", 0, 0));
			EQ(0, lgetxattr("f", names[i], got, sizeof(got)));
			OK(lremovexattr("f", names[i]));
			ERR(ENODATA, lremovexattr("f", names[i]));
			ERR(ENODATA, lgetxattr("f", names[i], got, sizeof(got)));
		}
		type_unlink(t, "f");
	}
}

static void case_flags(void)
{
	char got[8];

	file_make("f", "", 0);
	ERR(ENODATA, setxattr("f", "user.a", "1", 1, XATTR_REPLACE));
	OK(setxattr("f", "user.a", "1", 1, XATTR_CREATE));
	ERR(EEXIST, setxattr("f", "user.a", "2", 1, XATTR_CREATE));
	EQ(1, getxattr("f", "user.a", got, sizeof(got)));
	EQ('1', got[0]);
	OK(setxattr("f", "user.a", "33", 2, XATTR_REPLACE));
	EQ(2, getxattr("f", "user.a", got, sizeof(got)));
	ERR(EINVAL, setxattr("f", "user.a", "2", 1, 64));
	OK(setxattr("f", "user.a", "4", 1, 0));
	EQ(1, getxattr("f", "user.a", got, sizeof(got)));
	EQ('4', got[0]);
}

static void case_sizes_and_ranges(void)
{
	char got[100];
	char list[100];

	file_make("f", "", 0);
	EQ(0, listxattr("f", NULL, 0));
	MUST(setxattr("f", "user.abc", "0123456789", 10, 0));
	ERR(ERANGE, getxattr("f", "user.abc", got, 9));
	EQ(10, getxattr("f", "user.abc", got, 10));
	EQ(10, getxattr("f", "user.abc", NULL, 0));
	EQ(9, listxattr("f", NULL, 0));
	ERR(ERANGE, listxattr("f", list, 8));
	EQ(9, listxattr("f", list, 9));
	STREQ("user.abc", list);
	ERR(ENODATA, getxattr("f", "user.ab", got, sizeof(got)));
	ERR(ENODATA, getxattr("f", "user.abcd", got, sizeof(got)));
	ERR(ENODATA, getxattr("f", "user.ABC", got, sizeof(got)));
}

static void case_names(void)
{
	char *longest = name_make(XATTR_NAME_MAX, 'n');
	char *too_long = name_make(XATTR_NAME_MAX + 1, 'n');
	char got[4];

	memcpy(longest, "user.", 5);
	memcpy(too_long, "user.", 5);
	file_make("f", "", 0);
	OK(setxattr("f", longest, "v", 1, 0));
	EQ(1, getxattr("f", longest, got, sizeof(got)));
	EQ(XATTR_NAME_MAX + 1, listxattr("f", NULL, 0));
	OK(removexattr("f", longest));
	ERR(ERANGE, setxattr("f", too_long, "v", 1, 0));
	ERR(ERANGE, getxattr("f", too_long, got, sizeof(got)));
	ERR2(EOPNOTSUPP, EINVAL, setxattr("f", "user.", "v", 1, 0));
	ERR2(ERANGE, EINVAL, setxattr("f", "", "v", 1, 0));
	ERR2(EOPNOTSUPP, EINVAL, setxattr("f", "nonsense.a", "v", 1, 0));
	ERR2(EOPNOTSUPP, EINVAL, setxattr("f", "noprefix", "v", 1, 0));
	/* Any bytes. */
	OK(setxattr("f", "user.\x01\xff\x80 /\n.", "v", 1, 0));
	EQ(1, getxattr("f", "user.\x01\xff\x80 /\n.", got, sizeof(got)));
	free(longest);
	free(too_long);
}

/* Values of all sizes up to what the kernel takes; each replaced by the next. */
static void value_sizes(const size_t *sizes, size_t count)
{
	unsigned char *value = buffer_make(XATTR_SIZE_MAX + 1);
	unsigned char *got = buffer_make(XATTR_SIZE_MAX + 1);

	for (size_t i = 0; i < count; i++) {
		check_context("%zu bytes", sizes[i]);
		bytes_fill(value, sizes[i], (unsigned char)i);
		OK(setxattr("f", "user.v", value, sizes[i], 0));
		EQ(sizes[i], getxattr("f", "user.v", got, XATTR_SIZE_MAX));
		MEMEQ(value, got, sizes[i]);
		OK(setxattr("f", "user.w", "w", 1, 0));
		EQ(sizes[i], getxattr("f", "user.v", NULL, 0));
	}
	check_context("one too many");
	ERR(E2BIG, setxattr("f", "user.v", value, XATTR_SIZE_MAX + 1, 0));
	free(value);
	free(got);
}

static void case_value_sizes(void)
{
	static const size_t sizes[] = { 1, 10, 100, 255, 256, 257, 300, 500, 1000, 2000, 3000, 3500, 12, 0 };

	file_make("f", "", 0);
	value_sizes(sizes, sizeof(sizes) / sizeof(sizes[0]));
}

static void case_value_64k(void)
{
	static const size_t sizes[] = { 4000,  4095,  4096,  4097, 8192,  10000, 32768,
					65000, 65535, 65536, 3,    65536, 100 };

	file_make("f", "", 0);
	value_sizes(sizes, sizeof(sizes) / sizeof(sizes[0]));
	MUST(mkdir("d", 0755));
	MUST(chdir("d"));
	MUST(mkdir("f", 0755));
	value_sizes(sizes, sizeof(sizes) / sizeof(sizes[0]));
}

/* Names kept in a set, to be found again by listing. */
static void list_check(const char *path, unsigned count, const char *prefix)
{
	char *seen = calloc(1, 100000);
	ssize_t size = listxattr(path, NULL, 0);
	char *list = malloc(XATTR_LIST_MAX);
	unsigned found = 0;
	unsigned n;

	if (!seen || !list)
		abort();
	EQ(size, listxattr(path, list, XATTR_LIST_MAX));
	for (char *p = list; p < list + size; p += strlen(p) + 1) {
		if (strncmp(p, prefix, strlen(prefix)) != 0)
			continue;
		n = (unsigned)atoi(p + strlen(prefix));
		TRUE(n < 100000 && !seen[n]);
		seen[n % 100000] = 1;
		found++;
	}
	EQ(count, found);
	free(seen);
	free(list);
}

static void many_names(unsigned count)
{
	char name[64];
	char value[64];
	char got[64];
	int len;

	file_make("f", "data", 4);
	for (unsigned i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "user.name-%u", i);
		len = snprintf(value, sizeof(value), "value of %u", i);
		OK(setxattr("f", name, value, (size_t)len, XATTR_CREATE));
	}
	list_check("f", count, "user.name-");
	for (unsigned i = 0; i < count; i += 2) {
		snprintf(name, sizeof(name), "user.name-%u", i);
		OK(removexattr("f", name));
	}
	list_check("f", count / 2, "user.name-");
	for (unsigned i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "user.name-%u", i);
		len = snprintf(value, sizeof(value), "value of %u", i);
		if (i % 2 == 0) {
			ERR(ENODATA, getxattr("f", name, got, sizeof(got)));
		} else {
			EQ(len, getxattr("f", name, got, sizeof(got)));
			MEMEQ(value, got, (size_t)len);
		}
	}
	EQ(4, path_stat("f").st_size);
	OK(unlink("f"));
}

static void case_many_names_50(void)
{
	many_names(50);
}
static void case_many_names_1000(void)
{
	many_names(1000);
}

/* Many large ones together: each succeeds, or there is a limit that is said with ENOSPC. */
static void case_large_together(void)
{
	unsigned char *value = buffer_make(60000);
	unsigned char *got = buffer_make(60000);
	char name[64];
	int count;

	file_make("f", "", 0);
	for (count = 0; count < 20; count++) {
		snprintf(name, sizeof(name), "user.large-%d", count);
		bytes_fill(value, 60000, (unsigned char)count);
		if (setxattr("f", name, value, 60000, 0) == -1) {
			TRUE(errno == ENOSPC || errno == E2BIG);
			break;
		}
	}
	for (int i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "user.large-%d", i);
		bytes_fill(value, 60000, (unsigned char)i);
		EQ(60000, getxattr("f", name, got, 60000));
		MEMEQ(value, got, 60000);
	}
	free(value);
	free(got);
}

static void case_permission(void)
{
	char got[8];

	file_make("f", "", 0);
	MUST(chown("f", USER_A, USER_A));
	MUST(chmod("f", 0640));
	OK_AS(USER_A, setxattr("f", "user.a", "1", 1, 0));
	ERR_AS(USER_B, EACCES, setxattr("f", "user.a", "2", 1, 0));
	ERR_AS(USER_B, EACCES, getxattr("f", "user.a", got, sizeof(got)));
	ERR_AS(USER_B, EACCES, removexattr("f", "user.a"));
	MUST(chmod("f", 0644));
	OK_AS(USER_B, getxattr("f", "user.a", got, sizeof(got)));
	ERR_AS(USER_B, EACCES, removexattr("f", "user.a"));
	MUST(chmod("f", 0444));
	ERR_AS(USER_A, EACCES, setxattr("f", "user.a", "3", 1, 0));
	/* trusted is root's, and nobody else even sees it. */
	MUST(chmod("f", 0666));
	MUST(setxattr("f", "trusted.t", "1", 1, 0));
	ERR_AS(USER_A, EPERM, setxattr("f", "trusted.t", "2", 1, 0));
	ERR_AS(USER_A, ENODATA, getxattr("f", "trusted.t", got, sizeof(got)));
	ERR_AS(USER_A, EPERM, removexattr("f", "trusted.t"));
	ERR_AS(USER_A, EPERM, setxattr("f", "security.s", "2", 1, 0));
	/* In a sticky directory, user xattrs of the directory are its owner's. */
	MUST(mkdir("s", 0777));
	MUST(chmod("s", 01777));
	ERR_AS(USER_A, EPERM, setxattr("s", "user.a", "2", 1, 0));
	OK(setxattr("s", "user.a", "2", 1, 0));
}

static void case_trusted_hidden_from_list(void)
{
	file_make("f", "", 0);
	MUST(chmod("f", 0666));
	MUST(setxattr("f", "trusted.t", "1", 1, 0));
	MUST(setxattr("f", "user.u", "1", 1, 0));
	EQ(10 + 7, listxattr("f", NULL, 0));
	user_is(USER_A, USER_A);
	EQ(7, listxattr("f", NULL, 0));
	user_root();
}

static void case_shared_by_links(void)
{
	char got[8];
	int fd;

	file_make("f", "", 0);
	MUST(link("f", "g"));
	MUST(symlink("f", "l"));
	fd = file_open("f", O_RDONLY);
	OK(setxattr("l", "user.a", "1", 1, 0));
	EQ(1, getxattr("g", "user.a", got, sizeof(got)));
	OK(fsetxattr(fd, "user.b", "22", 2, 0));
	EQ(2, getxattr("f", "user.b", got, sizeof(got)));
	ERR(ENODATA, lgetxattr("l", "trusted.b", got, sizeof(got)));
	OK(rename("f", "h"));
	EQ(1, getxattr("h", "user.a", got, sizeof(got)));
	OK(unlink("g"));
	OK(unlink("h"));
	EQ(2, fgetxattr(fd, "user.b", got, sizeof(got)));
	OK(fremovexattr(fd, "user.b"));
	EQ(7, flistxattr(fd, NULL, 0));
	/* A new file has none of them. */
	file_make("f", "", 0);
	EQ(0, listxattr("f", NULL, 0));
}

static void case_survives_data(void)
{
	unsigned char value[600];
	unsigned char got[600];

	/* Whatever shares the inode with the attributes grows and shrinks around them. */
	bytes_fill(value, sizeof(value), 3);
	file_make("f", "tiny", 4);
	MUST(setxattr("f", "user.a", value, 50, 0));
	for (size_t size = 1; size < 100000; size *= 3) {
		check_context("file of %zu, value of %zu", size, size % 600);
		OK(setxattr("f", "user.b", value, size % 600, 0));
		file_fill("f", size, 1);
		EQ(50, getxattr("f", "user.a", got, sizeof(got)));
		MEMEQ(value, got, 50);
		EQ(size % 600, getxattr("f", "user.b", got, sizeof(got)));
		MEMEQ(value, got, size % 600);
		OK(truncate("f", (off_t)(size / 2)));
		EQ(50, getxattr("f", "user.a", got, sizeof(got)));
	}
}

static const struct check_case cases[] = {
	{ "set_get", case_set_get },
	{ "flags", case_flags },
	{ "sizes_and_ranges", case_sizes_and_ranges },
	{ "names", case_names },
	{ "value_sizes", case_value_sizes },
	{ "value_64k", case_value_64k },
	{ "many_names_50", case_many_names_50 },
	{ "many_names_1000", case_many_names_1000 },
	{ "large_together", case_large_together },
	{ "permission", case_permission },
	{ "trusted_hidden_from_list", case_trusted_hidden_from_list },
	{ "shared_by_links", case_shared_by_links },
	{ "survives_data", case_survives_data },
};

CHECK_MAIN(cases)
