/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The check framework of the mounted tests.
 *
 * A program is a table of cases. Each case runs in a child of its own, as root, with umask 0, in a
 * fresh empty directory (mode 0755) on the file system under test; what it leaves behind is removed.
 * So a case may change ids, limits, signal handlers and mounts, and may crash: that is a failure of
 * this case only.
 *
 * A case makes any number of assertions. One line is printed for each case:
 *
 *	ok PROGRAM/CASE
 *	not ok PROGRAM/CASE: 3 of 120 assertions failed; FIRST FAILURE
 *	skip PROGRAM/CASE: WHY
 *
 * and one "# " line for each failed assertion (the first twenty). The last line counts assertions.
 *
 * Table-driven cases say with check_context() which row they are in; it is printed with a failure.
 */
#ifndef UMBRA_TESTS_MOUNTED_CHECK_H
#define UMBRA_TESTS_MOUNTED_CHECK_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

struct check_case {
	const char *name;
	void (*run)(void);
};

/* Runs the cases that the command line selects in the directory that it names; the exit status. */
int check_main(int argc, char **argv, const struct check_case *cases, size_t count);

#define CHECK_MAIN(cases)                                                                   \
	int main(int argc, char **argv)                                                     \
	{                                                                                   \
		return check_main(argc, argv, (cases), sizeof(cases) / sizeof((cases)[0])); \
	}

#define CHECK_AT __FILE__, __LINE__

/* The syscall expression succeeds (anything but -1); its value. */
#define OK(expr) (errno = 0, check_ok((long)(expr), #expr, CHECK_AT))
/* As OK, but a failure ends the case: for what later assertions stand on. */
#define MUST(expr) (errno = 0, check_must((long)(expr), #expr, CHECK_AT))
/* The syscall expression fails with this errno. */
#define ERR(want, expr) (errno = 0, check_err((want), 0, (long)(expr), #expr, CHECK_AT))
/* ... with one of two. */
#define ERR2(want, other, expr) (errno = 0, check_err((want), (other), (long)(expr), #expr, CHECK_AT))
#define TRUE(cond) check_true((cond), #cond, CHECK_AT)
/* A failed assertion in so many words; false. */
#define WRONG(why) check_true(false, (why), CHECK_AT)
#define EQ(want, got) check_eq((long long)(want), (long long)(got), #got, CHECK_AT)
#define MEMEQ(want, got, size) check_mem((want), (got), (size), #got, CHECK_AT)
#define STREQ(want, got) check_str((want), (got), #got, CHECK_AT)

long check_ok(long rc, const char *what, const char *file, int line);
long check_must(long rc, const char *what, const char *file, int line);
bool check_err(int want, int other, long rc, const char *what, const char *file, int line);
bool check_true(bool cond, const char *what, const char *file, int line);
bool check_eq(long long want, long long got, const char *what, const char *file, int line);
bool check_mem(const void *want, const void *got, size_t size, const char *what, const char *file, int line);
bool check_str(const char *want, const char *got, const char *what, const char *file, int line);

/* Where in a table the case is now; printed with each failure. An empty format clears it. */
void check_context(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Ends the case, which says that it could not be tried. */
void check_skip(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
/* How many assertions of this case have failed so far. */
unsigned long check_failed_count(void);
/* The seed of random cases: --seed, or one that is printed. */
uint64_t check_seed(void);
/* How often random cases repeat their body: --scale, default 1. */
unsigned check_scale(void);
/* The name of the file system under test as --fs gives it ("umbrafs", "xfs", ...), or "". */
bool check_fs_is(const char *name);

/*
 * Runs body(arg) in a child; its assertions count for this case. child_start returns at once,
 * child_wait checks that the child ended by itself.
 */
pid_t child_start(void (*body)(void *), void *arg);
void child_wait(pid_t pid);
void child_run(void (*body)(void *), void *arg);

#endif
