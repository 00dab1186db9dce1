/* SPDX-License-Identifier: BSD-3-Clause */
/* Which mounts libumbra asks for a file, and what it makes of their answers: a table of mounts of the test's own, of folders whose daemon is the test (the linker leads fopen() and ioctl() here). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cmocka.h>

#include <umbra/ioctl.h>

#include "client/home.h"

static char source[] = "/dev/dax0.0";
static const struct home home = { .uuid = { 1 }, .source = source, .count = 1 };
static char table[1024];
/* The daemon answers so many questions for its pool more. */
static unsigned answers;
static int dead_errno;

FILE *__wrap_fopen64(const char *name, const char *mode);
int __wrap_ioctl(int fd, unsigned long request, ...);

FILE *__wrap_fopen64(const char *name, const char *mode)
{
	(void)name, (void)mode;
	return fmemopen(table, strlen(table), "r");
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	struct umbra_info *info;
	va_list args;

	(void)fd;
	assert_int_equal(request, UMBRA_IOC_INFO);
	va_start(args, request);
	info = va_arg(args, struct umbra_info *);
	va_end(args);
	if (answers == 0) {
		errno = dead_errno;
		return -1;
	}
	answers--;
	memset(info, 0, sizeof(*info));
	info->uuid[0] = 1;
	return 0;
}

/* Two places of one mount: of a folder of the pool, and of all of it. */
static void places(void)
{
	struct stat st;

	assert_int_equal(stat("/", &st), 0);
	snprintf(table, sizeof(table),
		 "30 1 %u:%u /d / rw - fuse.umbrafs %s rw\n31 1 0:0 / /proc rw - proc proc rw\n"
		 "32 1 %u:%u / / rw - fuse.umbrafs %s rw\n",
		 major(st.st_dev), minor(st.st_dev), source, major(st.st_dev), minor(st.st_dev), source);
}

struct asked {
	unsigned count;
	const char *has; /* the place where it is found; NULL: nowhere */
};

static int ask(void *arg, int dir, const char *root)
{
	struct asked *a = arg;

	assert_true(dir >= 0);
	a->count++;
	return a->has && strcmp(a->has, root) == 0 ? 0 : -ESTALE;
}

/* All of its places are asked until one has it. */
static void test_places(void **state)
{
	struct asked a = { 0 };

	(void)state;
	places();
	answers = 100;
	assert_int_equal(home_next(&home, ask, &a), -ESTALE);
	assert_int_equal(a.count, 2);
	a.has = "";
	assert_int_equal(home_next(&home, ask, &a), 0);
	assert_int_equal(a.count, 4);
	a.has = "/d";
	assert_int_equal(home_next(&home, ask, &a), 0);
	assert_int_equal(a.count, 5);
}

/* The daemon ends before all places have been asked: that the first one does not have it says nothing. */
static void test_ends(void **state)
{
	static const int errors[] = { ENOTCONN, ECONNABORTED, EIO };

	(void)state;
	places();
	for (unsigned i = 0; i < 9; i++) {
		struct asked a = { 0 };

		answers = i / 3;
		dead_errno = errors[i % 3];
		assert_int_equal(home_next(&home, ask, &a), -ENOTCONN);
		assert_int_equal(a.count, i / 3);
	}
}

/* Of another kind of file system, or of another pool. */
static void test_another(void **state)
{
	struct home other = home;

	(void)state;
	answers = 0;
	dead_errno = ENOTTY;
	assert_int_equal(home_has(&home, 0), 0);
	dead_errno = ENOTCONN;
	assert_int_equal(home_has(&home, 0), -ENOTCONN);
	answers = 2;
	assert_int_equal(home_has(&home, 0), 1);
	other.uuid[0] = 2;
	assert_int_equal(home_has(&other, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_another),
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_places),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
