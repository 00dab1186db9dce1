/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The mount option direct=: who may map pages directly.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/direct_rights.h"

static bool has_group_7(void *arg, uint32_t gid)
{
	(void)arg;
	return gid == 7;
}

static uint32_t rights_of(const char *value, uid_t uid)
{
	struct direct_rights rights;
	char why[256];

	assert_int_equal(direct_rights_parse(value, &rights, why, sizeof(why)), 0);
	return direct_rights_of(&rights, uid, has_group_7, NULL);
}

static void test_rights(void **state)
{
	static const char *const wrong[] = { "",     "o",     "on",   "rw,ro", "off:0",         "ro:",
					     "ro:+", "ro:1+", "ro:@", "ro:-1", "ro:4294967295", "ro:1x",
					     "ro:**" };
	const struct direct_rights defaults = DIRECT_RIGHTS_DEFAULT;
	struct direct_rights rights;
	char why[256];

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(direct_rights_parse(wrong[i], &rights, why, sizeof(why)), -EINVAL);
	assert_int_equal(direct_rights_of(&defaults, 0, has_group_7, NULL), 3);
	assert_int_equal(direct_rights_of(&defaults, 12345, has_group_7, NULL), 0);
	assert_int_equal(rights_of("off", 0), 0);
	assert_int_equal(rights_of("ro", 0), 1);
	assert_int_equal(rights_of("ro", 12345), 0);
	assert_int_equal(rights_of("rw:12345", 12345), 3);
	assert_int_equal(rights_of("ro:1+12345+3", 12345), 1);
	assert_int_equal(rights_of("ro:1+3", 12345), 0);
	assert_int_equal(rights_of("ro:1+3", 0), 3);
	assert_int_equal(rights_of("rw:@8", 12345), 0);
	assert_int_equal(rights_of("rw:@7", 12345), 3);
	assert_int_equal(rights_of("ro:*", 12345), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_rights) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
