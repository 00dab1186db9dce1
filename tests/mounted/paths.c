/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What every call that takes a path owes to bad paths: one table of calls, one case per kind of
 * trouble. Each call is also shown to succeed on a good path, so no row can rot unseen.
 */
#define _GNU_SOURCE
#include "files.h"
#include "path_calls.h"

#include <limits.h>

/* Each call in turn, as c. */
#define FOR_CALLS(c)                                                                                        \
	for (const struct call *c = calls; c < calls + calls_count && (check_context("%s", c->name), true); \
	     c++)

/* Puts there what the call wants at path, on behalf of uid. */
static void target_make(const struct call *c, const char *path, uid_t uid)
{
	file_make("helper", "h", 1);
	MUST(chown("helper", uid, uid));
	if (c->flags & NEEDS_FILE)
		file_make(path, "x", 1);
	else if (c->flags & NEEDS_DIR)
		MUST(mkdir(path, 0755));
	else if (c->flags & NEEDS_LNK)
		MUST(symlink("helper", path));
	if (!(c->flags & MAKES))
		MUST(lchown(path, uid, uid));
}

static void target_remove(const char *path)
{
	static const char *const others[] = { "helper", "link-new", "rename-new" };

	if (unlink(path) == -1 && errno == EISDIR)
		rmdir(path);
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		unlink(others[i]);
}

/* In a child, for chdir moves. */
struct attempt {
	const struct call *call;
	const char *path;
	int want_errno; /* 0: success */
	uid_t uid;
};

static void attempt_body(void *arg)
{
	const struct attempt *a = arg;
	int rc;

	if (a->uid)
		user_is(a->uid, a->uid);
	errno = 0;
	rc = a->call->run(a->path);
	if (a->want_errno)
		check_err(a->want_errno, 0, rc, a->call->name, CHECK_AT);
	else
		check_ok(rc, a->call->name, CHECK_AT);
}

static void attempt(const struct call *c, const char *path, int want_errno, uid_t uid)
{
	struct attempt a = { c, path, want_errno, uid };

	child_run(attempt_body, &a);
}

static void case_success(void)
{
	FOR_CALLS(c)
	{
		target_make(c, "t", 0);
		attempt(c, "t", 0, 0);
		EQ((c->flags & REMOVES) ? -1 : 0, faccessat(AT_FDCWD, "t", F_OK, AT_SYMLINK_NOFOLLOW));
		target_remove("t");
	}
}

static void case_success_as_user(void)
{
	MUST(mkdir("d", 0755));
	MUST(chown("d", USER_A, USER_A));
	MUST(chdir("d"));
	FOR_CALLS(c)
	{
		if (c->flags & BY_ROOT)
			continue;
		target_make(c, "t", USER_A);
		attempt(c, "t", 0, USER_A);
		target_remove("t");
	}
}

/* A component of the path is a file of each type that is not a directory. */
static void case_enotdir(void)
{
	for (int t = 0; t < T_COUNT; t++) {
		if (t == T_DIR)
			continue;
		check_context("%s", type_name[t]);
		type_make(t, "nodir", 0644);
		if (t == T_LNK) {
			unlink("nodir");
			MUST(symlink("plain", "nodir"));
			file_make("plain", "", 0);
		}
		FOR_CALLS(c)
		{
			target_make(c, "t", 0);
			attempt(c, "nodir/t", ENOTDIR, 0);
			attempt(c, "nodir/../t", ENOTDIR, 0);
			target_remove("t");
		}
		unlink("nodir");
	}
}

/* Calls that want a directory, or get a trailing slash, on a regular file. */
static void case_enotdir_last(void)
{
	FOR_TYPES(t)
	{
		if (t == T_DIR)
			continue;
		type_make(t, "t", 0644);
		ERR(ENOTDIR, rmdir("t"));
		ERR(ENOTDIR, unlink("t/"));
		if (t != T_LNK) {
			ERR(ENOTDIR, chdir("t"));
			ERR(ENOTDIR, open("t", O_RDONLY | O_DIRECTORY));
			ERR(ENOTDIR, chmod("t/", 0644));
			ERR(ENOTDIR, rename("t/", "u"));
			ERR(ENOTDIR, truncate("t/", 0));
		}
		MUST(unlink("t"));
	}
}

static void case_name_255(void)
{
	char *name = name_make(255, 'n');

	FOR_CALLS(c)
	{
		target_make(c, name, 0);
		attempt(c, name, 0, 0);
		target_remove(name);
	}
	free(name);
}

static void case_name_256(void)
{
	char *name = name_make(256, 'n');
	char *inner = path_make(260, "x");

	snprintf(inner, 261, "%s/x", name);
	FOR_CALLS(c)
	{
		target_make(c, "t", 0);
		attempt(c, name, ENAMETOOLONG, 0);
		attempt(c, inner, ENAMETOOLONG, 0);
		target_remove("t");
	}
	free(name);
	free(inner);
}

static void case_path_4095(void)
{
	char *path = path_make(PATH_MAX - 1, "t");

	FOR_CALLS(c)
	{
		target_make(c, "t", 0);
		attempt(c, path, 0, 0);
		target_remove("t");
	}
	free(path);
}

static void case_path_4096(void)
{
	char *path = path_make(PATH_MAX, "t");

	FOR_CALLS(c)
	{
		target_make(c, "t", 0);
		attempt(c, path, ENAMETOOLONG, 0);
		target_remove("t");
	}
	free(path);
}

static void case_enoent(void)
{
	FOR_CALLS(c)
	{
		target_make(c, "t", 0);
		attempt(c, "missing/t", ENOENT, 0);
		attempt(c, "missing/deeper/t", ENOENT, 0);
		attempt(c, "", ENOENT, 0);
		if (!(c->flags & MAKES))
			attempt(c, "missing", ENOENT, 0);
		target_remove("t");
	}
	/* A symlink that leads nowhere. */
	MUST(symlink("missing", "dangling"));
	FOR_CALLS(c)
	{
		if ((c->flags & FOLLOWS) && !(c->flags & MAKES))
			attempt(c, "dangling", ENOENT, 0);
		target_make(c, "t", 0);
		attempt(c, "dangling/t", ENOENT, 0);
		target_remove("t");
	}
}

static void case_eacces_search(void)
{
	static const mode_t modes[] = { 0600, 0200, 0400, 0066, 0000 };

	MUST(mkdir("d", 0755));
	MUST(chown("d", USER_A, USER_A));
	MUST(chdir("d"));
	FOR_CALLS(c)
	{
		MUST(mkdir("shut", 0755));
		MUST(chown("shut", USER_A, USER_A));
		target_make(c, "shut/t", USER_A);
		for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
			check_context("%s, dir mode %o", c->name, (unsigned)modes[i]);
			MUST(chmod("shut", modes[i]));
			attempt(c, "shut/t", EACCES, USER_A);
		}
		MUST(chmod("shut", 0755));
		target_remove("shut/t");
		rmdir("shut");
	}
}

/* Names are made in and removed from a directory only by who may write it. */
static void case_eacces_parent(void)
{
	struct stat before;
	struct stat after;

	FOR_CALLS(c)
	{
		if (!(c->flags & (MAKES | REMOVES)) || (c->flags & BY_ROOT))
			continue;
		MUST(mkdir("d", 0755));
		MUST(chown("d", USER_A, USER_A));
		MUST(mkdir("d/ro", 0755));
		MUST(chown("d/ro", USER_A, USER_A));
		target_make(c, "d/ro/t", USER_A);
		MUST(rename("helper", "d/helper"));
		MUST(chmod("d/ro", 0555));
		before = path_stat("d/ro");
		clock_tick();
		MUST(chdir("d"));
		attempt(c, "ro/t", EACCES, USER_A);
		/* Not his file: with protected_hardlinks that alone refuses a link. */
		if (!(c->flags & LINKS))
			attempt(c, "ro/t", EACCES, USER_B);
		MUST(chdir(".."));
		after = path_stat("d/ro");
		TRUE(mtime_same(&before, &after) && ctime_same(&before, &after));
		target_remove("d/ro/t");
		unlink("d/helper");
		MUST(rmdir("d/ro"));
		MUST(rmdir("d"));
	}
}

static void case_eloop(void)
{
	MUST(symlink("loop2", "loop1"));
	MUST(symlink("loop1", "loop2"));
	FOR_CALLS(c)
	{
		target_make(c, "t", 0);
		attempt(c, "loop1/t", ELOOP, 0);
		attempt(c, "loop2/t", ELOOP, 0);
		if (c->flags & FOLLOWS)
			attempt(c, "loop1", ELOOP, 0);
		target_remove("t");
	}
}

/* Forty symlinks may be followed, not forty-one. */
static void case_symlink_depth(void)
{
	char from[16];
	char to[16];

	file_make("s0", "x", 1);
	for (int i = 1; i <= 41; i++) {
		snprintf(to, sizeof(to), "s%d", i - 1);
		snprintf(from, sizeof(from), "s%d", i);
		MUST(symlink(to, from));
	}
	FOR_CALLS(c)
	{
		if (!(c->flags & FOLLOWS) || (c->flags & NEEDS_DIR) || (c->flags & MAKES))
			continue;
		attempt(c, "s40", 0, 0);
		attempt(c, "s41", ELOOP, 0);
	}
}

static void case_efault(void)
{
	const char *bad[] = { (const char *)-1, (const char *)8 };

	FOR_CALLS(c)
	{
		target_make(c, "t", 0);
		attempt(c, bad[0], EFAULT, 0);
		attempt(c, bad[1], EFAULT, 0);
		target_remove("t");
	}
}

static void case_follow(void)
{
	FOR_CALLS(c)
	{
		if (!(c->flags & FOLLOWS))
			continue;
		target_make(c, "t", 0);
		MUST(symlink("t", "to-t"));
		attempt(c, "to-t", 0, 0);
		EQ(0, access("t", F_OK));
		TRUE(S_ISLNK(path_stat("to-t").st_mode));
		MUST(unlink("to-t"));
		target_remove("t");
	}
}

static const struct check_case cases[] = {
	{ "success", case_success },
	{ "success_as_user", case_success_as_user },
	{ "enotdir", case_enotdir },
	{ "enotdir_last", case_enotdir_last },
	{ "name_255", case_name_255 },
	{ "name_256", case_name_256 },
	{ "path_4095", case_path_4095 },
	{ "path_4096", case_path_4096 },
	{ "enoent", case_enoent },
	{ "eacces_search", case_eacces_search },
	{ "eacces_parent", case_eacces_parent },
	{ "eloop", case_eloop },
	{ "symlink_depth", case_symlink_depth },
	{ "efault", case_efault },
	{ "follow", case_follow },
};

CHECK_MAIN(cases)
